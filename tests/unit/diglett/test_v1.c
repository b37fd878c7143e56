/* An agent of version 1 at the server, on the loopback: it is served only where that is allowed, and as it expects it. */
#include "diglett_world.h"
#include "relay/diglett/diglett_keys.h"
#include "relay/diglett/v1_tunnel.h"
#include "relay/diglett/v1_wire.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define TOKEN "a-token-that-nobody-guesses" /* of diglett_world.c */
#define NOTE  "if test $1 = add; then echo \"$1 $2 $3 $4\" >$0.new; mv $0.new $0.told; else rm -f $0.told; fi"
#define MUCH  (8 * 1024 * 1024)

/* It does what the agent of 2023 does. */
static struct agent {
	int fd;
	struct noise_curve curve;
	struct noise_secret secret;
	struct v1_cipher sending, receiving;
	struct v1_head head; /* of the frame that came last … */
	uint8_t bytes[V1_HEAD_LEN + V1_MAX_PAYLOAD + 1]; /* … and what there is of the next */
	size_t n, n_plain;
} agent;

static bool read_exactly(void *ret, size_t n)
{
	uint8_t *const at = ret;

	while (agent.n < n) {
		const ssize_t got = recv(agent.fd, at + agent.n, n - agent.n, MSG_DONTWAIT);
		if (got <= 0)
			return false;
		agent.n += (size_t)got;
	}
	return true;
}

/* A whole frame is in .bytes. */
static bool has_frame(void)
{
	if (!read_exactly(agent.bytes, V1_HEAD_LEN))
		return false;
	if (agent.n_plain < V1_HEAD_LEN)
		v1_cipher_apply(&agent.receiving, agent.bytes, V1_HEAD_LEN);
	agent.n_plain = V1_HEAD_LEN;
	assert(v1_head_read(agent.bytes, &agent.head));
	if (!read_exactly(agent.bytes, V1_HEAD_LEN + (size_t)agent.head.size))
		return false;
	v1_cipher_apply(&agent.receiving, agent.bytes + V1_HEAD_LEN, agent.head.size);
	agent.bytes[agent.n] = '\0';
	agent.n = agent.n_plain = 0;
	return true;
}

static const char *payload(void)
{
	return (const char *)agent.bytes + V1_HEAD_LEN;
}

static void expect(enum v1_kind kind)
{
	AWAIT(has_frame());
	assert(agent.head.kind == kind);
}

static void say_bytes(enum v1_kind kind, uint32_t id, const void *bytes, size_t n)
{
	static uint8_t frame[V1_HEAD_LEN + V1_MAX_PAYLOAD];
	const struct v1_head head = { kind, id, (uint16_t)n };
	size_t at = 0;

	v1_head_write(&head, frame);
	memcpy(frame + V1_HEAD_LEN, bytes, n);
	v1_cipher_apply(&agent.sending, frame, V1_HEAD_LEN + n);
	while (at < V1_HEAD_LEN + n) {
		const ssize_t sent = send(agent.fd, frame + at, V1_HEAD_LEN + n - at, MSG_NOSIGNAL | MSG_DONTWAIT);
		at += sent > 0 ? (size_t)sent : 0;
		uv_run(&world.loop, UV_RUN_NOWAIT);
	}
}

static void say(enum v1_kind kind, uint32_t id, const char *text)
{
	say_bytes(kind, id, text, strlen(text));
}

static void connect_agent(void)
{
	uint8_t hello[V1_HELLO_LEN];
	struct noise_public public, server;
	struct v1_keys keys;

	memset(&agent, 0, sizeof(agent));
	assert(diglett_curve_init(&agent.curve) == 0);
	diglett_key_draw(&agent.curve, &agent.secret);
	assert(noise_public_of(&agent.curve, &agent.secret, &public));
	agent.fd = connect_from(1, 1);
	v1_hello_write(&public, hello);
	assert(send(agent.fd, hello, sizeof(hello), MSG_NOSIGNAL) == sizeof(hello));
	AWAIT(read_exactly(hello, sizeof(hello)));
	agent.n = 0;
	assert(v1_hello_read(&agent.curve, hello, &server) == 0 && v1_agree(&agent.curve, &agent.secret, &server, &keys));
	assert(v1_cipher_init(&agent.sending, &keys) == 0 && v1_cipher_init(&agent.receiving, &keys) == 0);
}

static void disconnect_agent(void)
{
	close(agent.fd);
	v1_cipher_deinit(&agent.sending);
	v1_cipher_deinit(&agent.receiving);
	noise_curve_deinit(&agent.curve);
}

static void begin(void)
{
	new_world(NOTE);
	world.options.allow_v1 = true;
	world.options.v1_stalled_ms = 500;
	start_server();
}

static void begin_with_agent(void)
{
	begin();
	connect_agent();
	say(V1_LOGIN, 0, TOKEN);
	expect(V1_OK);
	say(V1_REGISTER, 0, "app");
	expect(V1_OK);
	say(V1_FINISH_REGISTER, 0, "");
	AWAIT(told_port() != 0);
}

static void end(void)
{
	disconnect_agent();
	AWAIT(counters().agents_now == 0);
	end_world();
}

/* Its number is its port. */
static int come(uint32_t *ret_id)
{
	const int fd = visit(told_port());
	struct sockaddr_in own;
	socklen_t len = sizeof(own);

	assert(fd >= 0 && fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
	assert(getsockname(fd, (struct sockaddr *)&own, &len) == 0);
	expect(V1_PAYLOAD); /* empty: a target that speaks first is to speak */
	assert(agent.head.size == 0 && agent.head.id == ntohs(own.sin_port));
	*ret_id = agent.head.id;
	return fd;
}

static bool hears(int fd, const char *text)
{
	char bytes[64];
	const ssize_t n = recv(fd, bytes, sizeof(bytes), 0);

	assert(n < 0 || ((size_t)n == strlen(text) && memcmp(bytes, text, (size_t)n) == 0));
	return n >= 0;
}

static void test_without_allow_v1_it_is_closed_without_a_word(void)
{
	uint8_t hello[V1_HELLO_LEN] = "digl\1";

	new_world(NULL);
	start_server();
	const int fd = connect_from(1, 1);
	assert(send(fd, hello, sizeof(hello), MSG_NOSIGNAL) == sizeof(hello));
	AWAIT(is_closed(fd));
	assert(counters().failed == 1 && counters().accepted == 0);
	close(fd);
	end_world();
}

static void test_visitor_and_target_speak_and_the_end_of_either_is_the_others(void)
{
	uint32_t id, other_id;

	begin_with_agent();
	assert(counters().of_v1 == 1 && counters().agents_now == 1);
	const int visitor = come(&id);
	say(V1_PAYLOAD, id, "220 first"); /* before the visitor */
	AWAIT(hears(visitor, "220 first"));
	assert(send(visitor, "hello", 5, MSG_NOSIGNAL) == 5);
	expect(V1_PAYLOAD);
	assert(agent.head.id == id && strcmp(payload(), "hello") == 0);
	const int other = come(&other_id);
	assert(other_id != id);
	say(V1_PAYLOAD, other_id, "last words");
	say(V1_CLOSE, other_id, "");
	AWAIT(hears(other, "last words"));
	AWAIT(is_closed(other));
	expect(V1_CLOSE); /* the answer */
	assert(agent.head.id == other_id);
	close(visitor);
	expect(V1_CLOSE);
	assert(agent.head.id == id);
	say(V1_PAYLOAD, id, "late"); /* for nobody */
	say(V1_CLOSE, id, "");
	AWAIT(counters().streams.mux.late == 2);
	assert(counters().agents_now == 1);
	close(other);
	end();
}

static void test_diglett_2_is_served_beside_it(void)
{
	begin_with_agent();
	struct diglett_agent *two = start_agent("two", world.token, 1);
	AWAIT(counters().agents_now == 2);
	assert(counters().of_v1 == 1);
	stop_agent(two);
	end();
}

static void refuse(const char *token, const char *name, const char *why)
{
	begin();
	connect_agent();
	say(V1_LOGIN, 0, token);
	expect(V1_OK); /* nobody learns of a token alone whether it is one */
	say(V1_REGISTER, 0, name);
	expect(V1_ERROR);
	assert(strcmp(payload(), why) == 0);
	AWAIT(is_closed(agent.fd));
	assert(counters().agents_now == 0 && counters().accepted == 0);
	end();
}

static void test_who_may_not_have_the_name_is_told_so_and_closed(void)
{
	refuse("another-token", "app", "the token is not valid for this name");
	refuse(TOKEN, "app.other.example", "the token is not valid for this name");
}

static void test_what_is_not_its_turn_is_answered_by_an_error(void)
{
	begin();
	connect_agent();
	say(V1_REGISTER, 0, "app");
	expect(V1_ERROR);
	AWAIT(is_closed(agent.fd));
	assert(counters().failed == 1);
	end();
}

/* It is not waited for. */
static void test_what_is_too_long_is_answered_by_an_error(void)
{
	char token[DIGLETT_MAX_TOKEN + 2] = "";

	memset(token, 't', DIGLETT_MAX_TOKEN + 1);
	begin();
	connect_agent();
	say(V1_LOGIN, 0, token);
	expect(V1_ERROR);
	assert(strcmp(payload(), "message too long") == 0);
	AWAIT(is_closed(agent.fd));
	assert(counters().failed == 1);
	end();
}

static void test_who_says_late_that_it_is_of_version_1_has_no_more_time(void)
{
	new_world(NULL);
	world.options.allow_v1 = true;
	world.options.handshake_ms = 2000;
	start_server();
	const int fd = connect_from(1, 1);
	const uint64_t came_ms = uv_now(&world.loop);
	AWAIT(uv_now(&world.loop) - came_ms > 1500);
	assert(!is_closed(fd) && send(fd, "digl", 4, MSG_NOSIGNAL) == 4);
	AWAIT(is_closed(fd));
	assert(counters().failed == 1 && uv_now(&world.loop) - came_ms < 3400); /* with time anew: 3500 at least */
	close(fd);
	end_world();
}

static void test_who_says_nothing_or_not_all_is_closed_in_time(void)
{
	new_world(NULL);
	world.options.allow_v1 = true;
	world.options.handshake_ms = 200;
	start_server();
	const int silent = connect_from(1, 1);
	assert(send(silent, "digl", 4, MSG_NOSIGNAL) == 4);
	connect_agent();
	say(V1_LOGIN, 0, TOKEN);
	expect(V1_OK);
	AWAIT(is_closed(agent.fd));
	AWAIT(is_closed(silent));
	assert(counters().failed == 2);
	close(silent);
	end();
}

static void test_a_revoked_token_ends_it_and_the_script_hears(void)
{
	begin_with_agent();
	allow("other.demo", "*.demo");
	AWAIT(counters().revoked == 1);
	AWAIT(is_closed(agent.fd));
	AWAIT(told_port() == 0);
	end();
}

/* As much as is taken, of zeros. */
static size_t write_all(int fd, size_t n, size_t total)
{
	static const uint8_t zeros[65536];

	while (n < total) {
		const ssize_t sent = send(fd, zeros, total - n < sizeof(zeros) ? total - n : sizeof(zeros), MSG_NOSIGNAL);
		if (sent < 0)
			break;
		n += (size_t)sent;
	}
	return n;
}

static void test_much_goes_through_both_ways(void)
{
	static uint8_t bytes[65536];
	size_t got = 0, sent = 0;
	uint32_t id;

	begin_with_agent();
	const int visitor = come(&id);
	while (got < MUCH) {
		sent = write_all(visitor, sent, MUCH);
		if (!has_frame()) {
			uv_run(&world.loop, UV_RUN_ONCE);
			continue;
		}
		assert(agent.head.kind == V1_PAYLOAD && agent.head.id == id && agent.head.size <= 16384);
		got += agent.head.size;
	}
	for (sent = 0, got = 0; got < MUCH;) {
		if (sent < MUCH) {
			say_bytes(V1_PAYLOAD, id, bytes, V1_MAX_PAYLOAD);
			sent += V1_MAX_PAYLOAD;
		}
		ssize_t n;
		while ((n = recv(visitor, bytes, sizeof(bytes), 0)) > 0)
			got += (size_t)n;
		uv_run(&world.loop, UV_RUN_ONCE);
	}
	close(visitor);
	end();
}

/* This version cannot say that one visitor is to wait: all do, until it is closed. */
static void test_who_reads_nothing_is_closed_and_the_others_go_on(void)
{
	static uint8_t bytes[V1_MAX_PAYLOAD];
	uint32_t id, other_id;

	begin_with_agent();
	const int stalled = come(&id), other = come(&other_id);
	for (size_t n = 0; n < MUCH * 2; n += sizeof(bytes))
		say_bytes(V1_PAYLOAD, id, bytes, sizeof(bytes)); /* more than all buffers hold */
	AWAIT(counters().streams.mux.stalled == 1);
	expect(V1_CLOSE);
	assert(agent.head.id == id);
	say(V1_PAYLOAD, other_id, "goes on");
	AWAIT(hears(other, "goes on"));
	close(stalled);
	close(other);
	end();
}

static void test_visitors_have_a_bound(void)
{
	static int fds[V1_MAX_VISITORS + 1];

	begin_with_agent();
	for (uint32_t i = 0, id; i < V1_MAX_VISITORS; i++)
		fds[i] = come(&id);
	fds[V1_MAX_VISITORS] = visit(told_port());
	AWAIT(counters().streams.mux.refused == 1);
	AWAIT(is_closed(fds[V1_MAX_VISITORS]));
	for (uint32_t i = 0; i <= V1_MAX_VISITORS; i++)
		close(fds[i]);
	for (uint32_t i = 0; i < V1_MAX_VISITORS; i++)
		expect(V1_CLOSE);
	AWAIT(counters().streams.visitors_now == 0);
	end();
}

static void test_what_is_no_frame_ends_the_agent(void)
{
	begin_with_agent();
	say(V1_N_KINDS, 0, "");
	AWAIT(counters().gone == 1);
	AWAIT(is_closed(agent.fd));
	end();
}

int main(void)
{
	test_without_allow_v1_it_is_closed_without_a_word();
	test_visitor_and_target_speak_and_the_end_of_either_is_the_others();
	test_diglett_2_is_served_beside_it();
	test_who_may_not_have_the_name_is_told_so_and_closed();
	test_what_is_not_its_turn_is_answered_by_an_error();
	test_what_is_too_long_is_answered_by_an_error();
	test_who_says_nothing_or_not_all_is_closed_in_time();
	test_who_says_late_that_it_is_of_version_1_has_no_more_time();
	test_a_revoked_token_ends_it_and_the_script_hears();
	test_much_goes_through_both_ways();
	test_who_reads_nothing_is_closed_and_the_others_go_on();
	test_visitors_have_a_bound();
	test_what_is_no_frame_ends_the_agent();
	return 0;
}
