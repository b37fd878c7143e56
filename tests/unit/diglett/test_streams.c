/* What a visitor does to its connection, the target sees; and what the target does, the visitor: an end is an end. */
#include "diglett_world.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOTE_PORT "test $1 = remove || { echo \"$1 $2 $3 $4\" >$0.new; mv $0.new $0.told; }"
#define MUCH	  3000000 /* more than windows and the sockets' buffers of one look */
#define TAIL	  2000000 /* what the sockets' buffers and a window hold */
#define HALF_CLOSED_MS 1000

enum outcome { GOES_ON, ENDED, RESET };

static struct diglett_agent *agent;
static pid_t elsewhere; /* the agent, when it is a process of its own */
static uint32_t half_closed_ms;
static int listener, visitor, target;

static void start_agent_elsewhere(uint16_t target_port)
{
	elsewhere = fork();
	assert(elsewhere >= 0);
	if (elsewhere > 0)
		return;
	assert(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && uv_loop_init(&world.loop) == 0);
	start_agent("app", world.token, target_port);
	uv_run(&world.loop, UV_RUN_DEFAULT);
	_exit(0);
}

static bool accept_target(void)
{
	target = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	return target >= 0;
}

/* A visitor and a target that are connected, through server and agent. dead_ms: 0, or of an agent that is elsewhere. */
static void begin_with(uint32_t dead_ms)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(address);

	new_world(NOTE_PORT);
	listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	assert(listener >= 0 && bind(listener, (struct sockaddr *)&address, len) == 0 && listen(listener, 8) == 0);
	assert(getsockname(listener, (struct sockaddr *)&address, &len) == 0);
	world.options.dead_ms = dead_ms;
	world.options.half_closed_ms = half_closed_ms;
	start_server();
	if (dead_ms > 0)
		start_agent_elsewhere(ntohs(address.sin_port));
	else
		agent = start_agent("app", world.token, ntohs(address.sin_port));
	AWAIT(told_port() != 0);
	visitor = visit(told_port());
	assert(visitor >= 0 && fcntl(visitor, F_SETFL, O_NONBLOCK) == 0);
	AWAIT(accept_target());
}

static void begin(void)
{
	begin_with(0);
}

static void end(void)
{
	close(visitor);
	close(target);
	close(listener);
	if (agent)
		stop_agent(agent);
	if (elsewhere > 0)
		assert(kill(elsewhere, SIGKILL) == 0 && waitpid(elsewhere, NULL, 0) == elsewhere);
	elsewhere = 0;
	agent = NULL;
	end_world();
}

/* Numbered bytes, so that a lost one shows. */
static void fill(uint8_t *bytes, size_t at, size_t n)
{
	for (size_t i = 0; i < n; i++)
		bytes[i] = (uint8_t)((at + i) * 7 + (at + i) / 251);
}

/* As much as is taken. */
static size_t write_some(int fd, size_t at, size_t total)
{
	static uint8_t bytes[65536];

	while (at < total) {
		const size_t n = total - at < sizeof(bytes) ? total - at : sizeof(bytes);
		fill(bytes, at, n);
		const ssize_t sent = send(fd, bytes, n, MSG_NOSIGNAL);
		if (sent < 0)
			break;
		at += (size_t)sent;
	}
	return at;
}

static enum outcome read_some(int fd, size_t *at, size_t most)
{
	static uint8_t bytes[65536], expected[65536];

	while (*at < most) {
		const size_t max = most - *at < sizeof(bytes) ? most - *at : sizeof(bytes);
		const ssize_t n = recv(fd, bytes, max, 0);
		if (n == 0)
			return ENDED;
		if (n < 0)
			return errno == EAGAIN ? GOES_ON : RESET;
		fill(expected, *at, (size_t)n);
		assert(memcmp(bytes, expected, (size_t)n) == 0);
		*at += (size_t)n;
	}
	return GOES_ON;
}

static void reset(int *fd)
{
	const struct linger now = { .l_onoff = 1, .l_linger = 0 };

	assert(setsockopt(*fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now)) == 0);
	close(*fd);
	*fd = -1;
}

/* What comes at last; whatever else comes before is read. */
static enum outcome await_outcome(int fd)
{
	enum outcome outcome;
	size_t n = 0;

	AWAIT((outcome = read_some(fd, &n, SIZE_MAX)) != GOES_ON);
	return outcome;
}

/* All goes through, in order, then the end; the other way goes on, and ends by itself. */
static void check_an_end(int *from, int *to)
{
	size_t sent = 0, got = 0;
	enum outcome outcome;

	begin();
	AWAIT((sent = write_some(*from, sent, MUCH)) == MUCH || read_some(*to, &got, MUCH) != GOES_ON);
	assert(sent == MUCH && shutdown(*from, SHUT_WR) == 0);
	AWAIT((outcome = read_some(*to, &got, SIZE_MAX)) != GOES_ON);
	assert(outcome == ENDED && got == MUCH);
	sent = got = 0;
	AWAIT((sent = write_some(*to, sent, MUCH)) == MUCH || read_some(*from, &got, MUCH) != GOES_ON);
	assert(sent == MUCH);
	close(*to);
	*to = -1;
	AWAIT((outcome = read_some(*from, &got, SIZE_MAX)) != GOES_ON);
	assert(outcome == ENDED && got == MUCH);
	end();
}

static void test_an_end_comes_behind_all_data_and_the_other_way_goes_on(void)
{
	check_an_end(&visitor, &target);
	check_an_end(&target, &visitor);
}

static void check_a_reset(int *from, int *to)
{
	begin();
	assert(write_some(*from, 0, 1000) == 1000);
	size_t got = 0;
	AWAIT(read_some(*to, &got, 1000) == GOES_ON && got == 1000);
	reset(from);
	assert(await_outcome(*to) == RESET);
	end();
}

static void test_a_reset_passes_as_a_reset(void)
{
	check_a_reset(&visitor, &target);
	check_a_reset(&target, &visitor);
}

/* The one has ended, the other was told, and then the one is gone: the other is told that, too. */
static void check_a_reset_behind_an_end(int *from, int *to)
{
	size_t got = 0;

	begin();
	assert(shutdown(*from, SHUT_WR) == 0);
	AWAIT(read_some(*to, &got, 1) == ENDED);
	reset(from);
	int error = 0;
	socklen_t len = sizeof(error);
	AWAIT(getsockopt(*to, SOL_SOCKET, SO_ERROR, &error, &len) == 0 && error != 0);
	assert(error == EPIPE || error == ECONNRESET);
	end();
}

static void test_a_reset_behind_an_end_passes_too(void)
{
	check_a_reset_behind_an_end(&visitor, &target);
	check_a_reset_behind_an_end(&target, &visitor);
}

/* So much that nothing more is taken from it: nobody looks at what it has to say. */
static void check_a_reset_while_nothing_is_taken(int *from, int *to)
{
	size_t sent = 0, last = 1;

	begin();
	while (sent != last) {
		last = sent;
		for (int i = 0; i < 50; i++) {
			sent = write_some(*from, sent, 1u << 30);
			uv_run(&world.loop, UV_RUN_ONCE);
		}
	}
	reset(from);
	assert(await_outcome(*to) == RESET);
	end();
}

static void test_a_reset_passes_while_nothing_is_taken_of_who_resets(void)
{
	check_a_reset_while_nothing_is_taken(&visitor, &target);
	check_a_reset_while_nothing_is_taken(&target, &visitor);
}

static void test_an_agent_that_goes_resets_its_visitors_and_its_targets(void)
{
	begin();
	stop_agent(agent);
	agent = NULL;
	assert(await_outcome(visitor) == RESET);
	assert(await_outcome(target) == RESET);
	end();
}

static void test_what_an_agent_leaves_undone_is_no_end(void)
{
	size_t sent = 0, last = 1;

	begin();
	while (sent != last) { /* the target has sent all, and ended; the visitor has taken part of it */
		last = sent;
		for (int i = 0; i < 50; i++) {
			sent = write_some(target, sent, MUCH * 2);
			uv_run(&world.loop, UV_RUN_ONCE);
		}
	}
	assert(shutdown(target, SHUT_WR) == 0);
	stop_agent(agent);
	agent = NULL;
	assert(await_outcome(visitor) == RESET);
	end();
}

static void test_an_agent_that_answers_nothing_any_more_is_ended_and_one_that_is_idle_is_not(void)
{
	begin_with(3000);
	const uint64_t begin_ns = uv_hrtime();
	AWAIT(uv_hrtime() - begin_ns > 5000000000); /* it has nothing to say, but answers */
	assert(counters().agents_now == 1 && counters().gone == 0);
	assert(kill(elsewhere, SIGSTOP) == 0);
	AWAIT(counters().agents_now == 0);
	assert(counters().gone == 1);
	assert(await_outcome(visitor) == RESET);
	end();
}

/* Longer than half_closed_ms and a second, in any part of the way: what the visitor takes of it is little at a time. */
static void test_who_takes_slowly_behind_an_end_gets_all(void)
{
	enum outcome outcome = GOES_ON;
	size_t sent = 0, got = 0;

	half_closed_ms = HALF_CLOSED_MS;
	begin();
	AWAIT((sent = write_some(target, sent, TAIL)) == TAIL);
	close(target);
	target = -1;
	while (outcome == GOES_ON) {
		const uint64_t next_ns = uv_hrtime() + 100000000;
		outcome = read_some(visitor, &got, got + TAIL / 80);
		AWAIT(uv_hrtime() >= next_ns);
	}
	assert(outcome == ENDED && got == TAIL && counters().streams.mux.idle == 0);
	half_closed_ms = 0;
	end();
}

static void test_who_takes_nothing_behind_an_end_is_reset(void)
{
	size_t sent = 0;

	half_closed_ms = HALF_CLOSED_MS;
	begin();
	AWAIT((sent = write_some(target, sent, TAIL)) == TAIL);
	close(target);
	target = -1;
	AWAIT(counters().streams.mux.idle == 1);
	assert(await_outcome(visitor) == RESET);
	half_closed_ms = 0;
	end();
}

int main(void)
{
	test_an_end_comes_behind_all_data_and_the_other_way_goes_on();
	test_a_reset_passes_as_a_reset();
	test_a_reset_behind_an_end_passes_too();
	test_a_reset_passes_while_nothing_is_taken_of_who_resets();
	test_an_agent_that_goes_resets_its_visitors_and_its_targets();
	test_what_an_agent_leaves_undone_is_no_end();
	test_an_agent_that_answers_nothing_any_more_is_ended_and_one_that_is_idle_is_not();
	test_who_takes_slowly_behind_an_end_gets_all();
	test_who_takes_nothing_behind_an_end_is_reset();
	return 0;
}
