/*
 * Copying between two sockets, over TCP on the loopback:
 *
 *     client ══ visitor ▸ pump ▸ target ══ server
 *
 * What one writes the other reads, with its end as an end and its reset as a reset. Times are the test's own.
 */
#include "relay/frontdoor/splice_pump.h"

#include <arpa/inet.h>
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define MEGABYTE    (1u << 20)
#define IDLE_MS	    60000
#define HALF_MS	    5000
#define LEAVE_MS    10000
#define BUDGET	    131072
#define TURN_BYTES  MEGABYTE
#define MAX_PAIRS   12
#define NARROW	    8192   /* bytes that a narrow end takes without reading, or about */
#define MUCH	    150000 /* more than that; but it fits into the send buffer */

struct route {
	struct splice_pair pair;
	int outside[2]; /* client, server */
	bool is_over;
	enum splice_outcome outcome;
};

struct world {
	struct splice_pump *pump;
	int epoll_fd;
	uint64_t now_ms;
	uint32_t n_routes, n_events, n_turns;
	bool has_more;
	struct route routes[MAX_PAIRS];
};

static void on_ended(void *owner, struct splice_pair *pair, enum splice_outcome outcome)
{
	struct route *route = container_of(pair, struct route, pair);

	(void)owner;
	assert(!route->is_over);
	route->is_over = true;
	route->outcome = outcome;
}

static struct world new_world_that_keeps(uint32_t max_pipes, size_t max_kept_bytes)
{
	const int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	const struct splice_pump_options options = { .epoll_fd = epoll_fd,
						     .max_pipes = max_pipes,
						     .pipe_size = 65536,
						     .budget = BUDGET,
						     .turn_bytes = TURN_BYTES,
						     .max_kept_bytes = max_kept_bytes,
						     .idle_ms = IDLE_MS,
						     .half_closed_ms = HALF_MS,
						     .ended = on_ended };

	return (struct world){ .pump = splice_pump_new(&options), .epoll_fd = epoll_fd, .now_ms = 1 };
}

static struct world new_world(uint32_t max_pipes)
{
	return new_world_that_keeps(max_pipes, MEGABYTE);
}

/* receive_bytes: of ret[0], 0: as usual. */
static void connect_pair(int ret[2], int receive_bytes)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(address);
	int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);

	assert(bind(listener, (struct sockaddr *)&address, len) == 0 && listen(listener, 1) == 0);
	assert(getsockname(listener, (struct sockaddr *)&address, &len) == 0);
	ret[0] = socket(AF_INET, SOCK_STREAM, 0);
	if (receive_bytes > 0)
		assert(setsockopt(ret[0], SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof(receive_bytes)) == 0);
	assert(connect(ret[0], (struct sockaddr *)&address, len) == 0);
	ret[1] = accept(listener, NULL, NULL);
	assert(ret[1] >= 0);
	close(listener);
	for (int i = 0; i < 2; i++) {
		assert(fcntl(ret[i], F_SETFL, O_NONBLOCK) == 0);
		assert(setsockopt(ret[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) == 0);
	}
}

static struct route *open_narrow_route(struct world *world, int receive_bytes)
{
	struct route *route = &world->routes[world->n_routes++];

	*route = (struct route){ 0 };
	for (int i = 0; i < 2; i++) {
		int ends[2];
		connect_pair(ends, receive_bytes);
		route->outside[i] = ends[0];
		route->pair.ends[i].fd = ends[1];
		route->pair.ends[i].state = (struct pump_end){ .is_readable = true, .is_writable = true };
	}
	return route;
}

static struct route *open_route(struct world *world)
{
	return open_narrow_route(world, 0);
}

static struct route *begin(struct world *world, struct route *route)
{
	splice_pair_begin(world->pump, &route->pair, world->now_ms);
	for (int i = 0; i < 2; i++) {
		struct epoll_event event = { .events = SPLICE_EVENTS,
					     .data.ptr = &route->pair.ends[i].watch };
		assert(epoll_ctl(world->epoll_fd, EPOLL_CTL_ADD, route->pair.ends[i].fd, &event) == 0);
	}
	return route;
}

/* One turn; waits for an edge, if there is nothing else to do. */
static void turn(struct world *world, int timeout_ms)
{
	struct epoll_event events[16];
	const int n = epoll_wait(world->epoll_fd, events, 16, world->has_more ? 0 : timeout_ms);

	for (int i = 0; i < n; i++) {
		struct watch *watch = events[i].data.ptr;
		watch->happened(watch, events[i].events);
	}
	world->n_events += n > 0 ? (uint32_t)n : 0;
	world->n_turns++;
	world->has_more = splice_pump_turn(world->pump, world->now_ms);
}

/* And time goes on. */
static void pass_time(struct world *world, uint64_t ms)
{
	turn(world, 10);
	world->now_ms += ms;
	(void)splice_pump_expire(world->pump, world->now_ms);
}

/* Until nothing is to be done and no edge comes. */
static void settle(struct world *world)
{
	uint32_t before;

	do {
		before = world->n_events;
		turn(world, 20);
	} while (world->has_more || world->n_events != before);
}

static void end_world(struct world *world)
{
	for (uint32_t i = 0; i < world->n_routes; i++) {
		struct route *route = &world->routes[i];
		if (!route->is_over && route->pair.pump)
			splice_pair_cut(world->pump, &route->pair);
		for (int j = 0; j < 2; j++)
			if (route->outside[j] >= 0)
				close(route->outside[j]);
	}
	assert(splice_pump_counters(world->pump).pipes_in_use == 0);
	splice_pump_free(world->pump);
	close(world->epoll_fd);
}

static uint8_t byte_at(size_t at)
{
	return (uint8_t)(at * 31 + at / 251);
}

/* As much as the socket takes, of len; where it stands afterwards. */
static size_t put(int fd, size_t at, size_t len)
{
	uint8_t bytes[4096];

	while (at < len) {
		const size_t n = len - at < sizeof(bytes) ? len - at : sizeof(bytes);
		for (size_t i = 0; i < n; i++)
			bytes[i] = byte_at(at + i);
		const ssize_t sent = send(fd, bytes, n, MSG_NOSIGNAL);
		if (sent < 0)
			break;
		at += (size_t)sent;
	}
	return at;
}

/* What is there, each byte in its place; false when the end was read. */
static bool get(int fd, size_t *at)
{
	uint8_t bytes[65536];

	for (;;) {
		const ssize_t n = recv(fd, bytes, sizeof(bytes), 0);
		if (n <= 0) {
			assert(n == 0 || errno == EAGAIN);
			return n < 0;
		}
		for (ssize_t i = 0; i < n; i++)
			assert(bytes[i] == byte_at(*at + (size_t)i));
		*at += (size_t)n;
	}
}

/* len bytes from one end to the other, and none more. */
static void expect_passes(struct world *world, const struct route *route, int way, size_t len)
{
	size_t put_at = 0, got_at = 0;

	while (got_at < len) {
		put_at = put(route->outside[way], put_at, len);
		turn(world, 10);
		assert(get(route->outside[1 - way], &got_at));
	}
	assert(got_at == len);
}

static void expect_end(struct world *world, int fd)
{
	uint8_t byte;
	ssize_t n;

	while ((n = recv(fd, &byte, 1, 0)) < 0 && errno == EAGAIN)
		turn(world, 10);
	assert(n == 0);
}

/* Who has read its end already is told by its write end. */
static void expect_reset(struct world *world, int fd)
{
	struct pollfd wait = { .fd = fd };
	int error = 0;
	socklen_t len = sizeof(error);

	while (poll(&wait, 1, 0) == 0 || !(wait.revents & (POLLERR | POLLHUP)))
		pass_time(world, 500);
	assert(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0);
	assert(error == ECONNRESET || error == EPIPE);
}

/* Reads to the reset; how much came before. */
static size_t get_to_reset(struct world *world, int fd)
{
	uint8_t bytes[4096];
	size_t at = 0;

	for (;;) {
		const ssize_t n = recv(fd, bytes, sizeof(bytes), 0);
		if (n < 0 && errno == EAGAIN) {
			pass_time(world, 10);
			continue;
		}
		if (n < 0)
			break;
		assert(n > 0); /* it is no end */
		for (ssize_t i = 0; i < n; i++)
			assert(bytes[i] == byte_at(at + (size_t)i));
		at += (size_t)n;
	}
	assert(errno == ECONNRESET);
	return at;
}

/* The same to the end. */
static size_t get_to_end(struct world *world, int fd)
{
	size_t at = 0;

	while (get(fd, &at))
		pass_time(world, 10);
	return at;
}

/* The pump has given it all to a client that has not read yet. */
static void give_much(struct world *world, const struct route *route)
{
	const int size = MUCH;
	size_t at = 0;

	assert(setsockopt(route->pair.ends[0].fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)) == 0);
	while (route->pair.flows[1].n_bytes < MUCH) {
		at = put(route->outside[1], at, MUCH);
		turn(world, 10);
	}
}

static void close_outside(struct route *route, int i, bool with_reset)
{
	if (with_reset)
		splice_close_with_reset(route->outside[i]);
	else
		close(route->outside[i]);
	route->outside[i] = -1;
}

/* ---- what passes ---- */

static void test_bytes_pass_both_ways(void)
{
	struct world world = new_world(8);
	struct route *route = begin(&world, open_route(&world));

	for (int way = 0; way < 2; way++)
		expect_passes(&world, route, way, 3 * MEGABYTE + 1);
	settle(&world);
	const struct splice_pump_counters counters = splice_pump_counters(world.pump);
	assert(counters.bytes[0] == 3 * MEGABYTE + 1 && counters.bytes[1] == 3 * MEGABYTE + 1);
	assert(counters.bytes_copied == 0 && counters.pipes_in_use == 0);
	end_world(&world);
}

static void test_what_was_read_before_goes_first(void)
{
	struct world world = new_world(8);
	struct route *route = open_route(&world);
	uint8_t *head = malloc(990);

	for (size_t i = 0; i < 990; i++)
		head[i] = byte_at(i);
	splice_pair_set_head_take(&route->pair, head, 990);
	assert(put(route->outside[0], 990, 2000) == 2000);
	begin(&world, route);
	size_t at = 0;
	while (at < 2000) {
		turn(&world, 10);
		assert(get(route->outside[1], &at));
	}
	end_world(&world);
}

static void test_an_end_passes_as_an_end_and_the_other_way_goes_on(void)
{
	for (int way = 0; way < 2; way++) {
		struct world world = new_world(8);
		struct route *route = begin(&world, open_route(&world));

		expect_passes(&world, route, way, 100000);
		shutdown(route->outside[way], SHUT_WR);
		expect_end(&world, route->outside[1 - way]);
		expect_passes(&world, route, 1 - way, 2 * MEGABYTE);
		assert(!route->is_over);
		shutdown(route->outside[1 - way], SHUT_WR);
		expect_end(&world, route->outside[way]);
		while (!route->is_over)
			turn(&world, 10);
		assert(route->outcome == SPLICE_DONE);
		end_world(&world);
	}
}

static void test_an_end_comes_after_all_bytes(void)
{
	struct world world = new_world(8);
	struct route *route = begin(&world, open_route(&world));
	const size_t len = put(route->outside[0], 0, 64 * MEGABYTE); /* more than the way takes at once */
	size_t at = 0;

	shutdown(route->outside[0], SHUT_WR);
	settle(&world);
	while (get(route->outside[1], &at))
		turn(&world, 10);
	assert(at == len);
	end_world(&world);
}

static void test_a_reset_passes_as_a_reset(void)
{
	for (int way = 0; way < 2; way++) {
		struct world world = new_world(8);
		struct route *route = begin(&world, open_route(&world));

		expect_passes(&world, route, way, 1000);
		close_outside(route, way, true);
		expect_reset(&world, route->outside[1 - way]);
		assert(route->is_over && route->outcome == SPLICE_RESET);
		end_world(&world);
	}
}

/* Who leaves first, and had said nothing; not who has been left, nor whose only word came with its end. */
static void test_it_is_known_which_end_left_without_a_byte(void)
{
	for (int how = 0; how < 8; how++) {
		const int way = how & 1;
		const bool by_reset = how & 2, speaks = how & 4;
		struct world world = new_world(8);
		struct route *route = begin(&world, open_route(&world));

		if (speaks)
			assert(send(route->outside[way], "a", 1, MSG_NOSIGNAL | (by_reset ? 0 : MSG_MORE)) == 1); /* goes with the end */
		if (by_reset && speaks)
			settle(&world);
		if (by_reset)
			close_outside(route, way, true);
		else
			shutdown(route->outside[way], SHUT_WR);
		settle(&world);
		assert(route->pair.left_silent == (speaks ? 0 : 1 + way));
		close_outside(route, 1 - way, false);
		while (!route->is_over)
			turn(&world, 10);
		assert(route->pair.left_silent == (speaks ? 0 : 1 + way));
		end_world(&world);
	}
}

static void test_a_reset_passes_when_its_end_has_closed_already(void)
{
	for (int way = 0; way < 2; way++) {
		struct world world = new_world(8);
		struct route *route = begin(&world, open_route(&world));

		shutdown(route->outside[way], SHUT_WR);
		expect_end(&world, route->outside[1 - way]);
		close_outside(route, way, true);
		expect_reset(&world, route->outside[1 - way]);
		assert(route->is_over && route->outcome == SPLICE_RESET);
		end_world(&world);
	}
}

static void test_what_came_before_a_reset_is_delivered(void)
{
	struct world world = new_world(8);
	struct route *route = begin(&world, open_narrow_route(&world, NARROW));

	give_much(&world, route);
	close_outside(route, 1, true);
	settle(&world);
	assert(!route->is_over); /* its memory is needed */
	assert(get_to_reset(&world, route->outside[0]) == MUCH);
	assert(route->is_over && route->outcome == SPLICE_RESET);
	end_world(&world);
}

/* A server that has closed answers what comes later with a reset: that is nothing to the client, who has its end. */
static void test_who_was_given_its_end_gets_all_before_it(void)
{
	struct world world = new_world(8);
	struct route *route = begin(&world, open_narrow_route(&world, NARROW));

	give_much(&world, route);
	close_outside(route, 1, false);
	while (!route->pair.flows[1].is_finished)
		turn(&world, 10);
	assert(send(route->outside[0], "x", 1, MSG_NOSIGNAL) == 1);
	while (!route->pair.ends[1].state.is_broken)
		turn(&world, 10);
	assert(send(route->outside[0], "y", 1, MSG_NOSIGNAL) == 1); /* for nobody */
	settle(&world);
	assert(get_to_end(&world, route->outside[0]) == MUCH);
	assert(!route->is_over);
	close_outside(route, 0, false);
	while (!route->is_over)
		turn(&world, 10);
	assert(route->outcome == SPLICE_RESET);
	end_world(&world);
}

static void test_who_leaves_and_takes_nothing_is_given_up(void)
{
	struct world world = new_world(8);
	struct route *route = begin(&world, open_narrow_route(&world, NARROW));

	give_much(&world, route);
	close_outside(route, 1, true);
	settle(&world);
	while (splice_pump_expire(world.pump, world.now_ms) != UINT64_MAX && world.now_ms < 2 * LEAVE_MS) {
		assert(!route->is_over);
		world.now_ms += 100;
	}
	assert(route->is_over && route->outcome == SPLICE_RESET && world.now_ms >= LEAVE_MS);
	assert(get_to_reset(&world, route->outside[0]) < MUCH);
	end_world(&world);
}

static void test_a_reset_reaches_who_does_not_read_when_nothing_waits_for_it(void)
{
	struct world world = new_world(8);
	struct route *route = begin(&world, open_route(&world));

	put(route->outside[1], 0, 64 * MEGABYTE);
	settle(&world);
	close_outside(route, 0, true); /* who should have read it */
	expect_reset(&world, route->outside[1]);
	end_world(&world);
}

/* What the other end reads, to its end. */
static void expect_text_and_end(struct world *world, int fd, const char *text)
{
	char heard[64];
	size_t n = 0;

	for (;;) {
		const ssize_t more = recv(fd, heard + n, sizeof(heard) - n, 0);
		if (more == 0)
			break;
		assert(more > 0 || errno == EAGAIN);
		n += more > 0 ? (size_t)more : 0;
		turn(world, 10);
	}
	assert(n == strlen(text) && memcmp(heard, text, n) == 0);
}

static void test_urgent_data_stops_nothing_and_cuts_off_nothing(void)
{
	for (int i = 0; i < 2; i++) { /* piece by piece, and all at once */
		struct world world = new_world(8);
		struct route *route = begin(&world, open_route(&world));
		const int fd = route->outside[0];
		size_t at = 0;

		settle(&world);
		assert(send(fd, "abc", 3, 0) == 3);
		if (i == 0)
			settle(&world);
		assert(send(fd, "U", 1, MSG_OOB) == 1);
		if (i == 0)
			settle(&world);
		assert(send(fd, "efghij", 6, 0) == 6);
		if (i == 0) {
			while (route->pair.flows[0].n_bytes < 9)
				turn(&world, 10);
			assert(put(fd, 0, 1000) == 1000);
			while (route->pair.flows[0].n_bytes < 1009)
				turn(&world, 10);
			assert(recv(route->outside[1], (char[9]){ 0 }, 9, 0) == 9);
			assert(get(route->outside[1], &at) && at == 1000);
		}
		shutdown(fd, SHUT_WR);
		expect_text_and_end(&world, route->outside[1], i == 0 ? "" : "abcefghij");
		end_world(&world);
	}
}

/* ---- who is slow ---- */

static void test_for_who_does_not_read_little_is_fetched_and_nothing_spins(void)
{
	struct world world = new_world(8);
	struct route *route = begin(&world, open_route(&world));
	size_t len = 0;

	for (;;) { /* until no more goes in anywhere */
		const size_t before = len;
		len = put(route->outside[0], len, 256 * MEGABYTE);
		settle(&world);
		if (len == before)
			break;
	}
	const uint32_t n_events = world.n_events;
	for (int i = 0; i < 10; i++) {
		turn(&world, 0);
		assert(!world.has_more);
	}
	assert(world.n_events == n_events);
	assert(splice_pump_counters(world.pump).pipes_in_use <= 1);

	size_t at = 0;
	while (at < len) {
		assert(get(route->outside[1], &at));
		turn(&world, 10);
	}
	end_world(&world);
}

static void test_both_ends_flood_and_all_arrives(void)
{
	struct world world = new_world(8);
	struct route *route = begin(&world, open_route(&world));
	const size_t len = 8 * MEGABYTE;
	size_t put_at[2] = { 0 }, got_at[2] = { 0 };

	while (got_at[0] < len || got_at[1] < len) {
		for (int i = 0; i < 2; i++)
			put_at[i] = put(route->outside[i], put_at[i], len);
		turn(&world, 10);
		for (int i = 0; i < 2; i++) {
			assert(get(route->outside[1 - i], &got_at[i]));
		}
	}
	end_world(&world);
}

static void test_a_fast_pair_does_not_keep_others_waiting(void)
{
	struct world world = new_world(8);
	struct route *fast = begin(&world, open_route(&world)), *slow = begin(&world, open_route(&world));

	settle(&world);
	put(fast->outside[0], 0, 64 * MEGABYTE);
	const size_t before = splice_pump_counters(world.pump).bytes[0];
	size_t at = 0;
	assert(put(slow->outside[0], 0, 100) == 100);
	turn(&world, 1000);
	assert(get(slow->outside[1], &at) && at == 100);
	assert(splice_pump_counters(world.pump).bytes[0] - before <= 100 + 131072);
	end_world(&world);
}

static uint64_t count_given(const struct route *route)
{
	return route->pair.flows[0].n_bytes;
}

static void test_a_turn_has_a_bound_and_the_rest_goes_first_the_next_time(void)
{
	struct world world = new_world(16);
	uint64_t before = 0;

	for (int i = 0; i < MAX_PAIRS; i++) {
		struct route *route = begin(&world, open_route(&world));
		assert(put(route->outside[0], 0, BUDGET) == BUDGET);
	}
	for (int i = 0; i < MAX_PAIRS; i++) /* what was put is there before the first turn */
		assert(poll(&(struct pollfd){ .fd = world.routes[i].pair.ends[0].fd, .events = POLLIN }, 1, 1000) == 1);
	turn(&world, 0);
	assert(world.has_more && count_given(&world.routes[MAX_PAIRS - 1]) == 0);
	for (int i = 0; i < MAX_PAIRS; i++)
		before += count_given(&world.routes[i]);
	assert(before <= TURN_BYTES + BUDGET);
	turn(&world, 0);
	assert(count_given(&world.routes[MAX_PAIRS - 1]) > 0);
	end_world(&world);
}

/* ---- little ---- */

static void test_little_goes_without_a_pipe(void)
{
	struct world world = new_world(8);
	struct route *route = begin(&world, open_route(&world));

	for (int i = 0; i < 3; i++)
		for (int way = 0; way < 2; way++)
			expect_passes(&world, route, way, 5000);
	settle(&world);
	const struct splice_pump_counters counters = splice_pump_counters(world.pump);
	assert(counters.bytes[0] == 15000 && counters.bytes_copied == 0 && counters.pipes_open == 0);
	end_world(&world);
}

static uint32_t count_segments_in(int fd)
{
	struct tcp_info info = { 0 };
	socklen_t len = sizeof(info);

	assert(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0);
	return info.tcpi_segs_in;
}

static void test_what_came_with_its_end_goes_with_its_end(void)
{
	struct world world = new_world(8);
	struct route *route = begin(&world, open_route(&world));

	settle(&world);
	assert(send(route->outside[1], "bye", 3, 0) == 3);
	shutdown(route->outside[1], SHUT_WR);
	assert(poll(&(struct pollfd){ .fd = route->pair.ends[1].fd, .events = POLLRDHUP }, 1, 1000) == 1);
	const uint32_t before = count_segments_in(route->outside[0]);
	expect_text_and_end(&world, route->outside[0], "bye");
	assert(count_segments_in(route->outside[0]) == before + 1);
	end_world(&world);
}

/* Small pieces to one who does not read, until the pump has one that is not taken. Returns where it stands. */
static size_t put_until_kept(struct world *world, const struct route *route)
{
	const int size = NARROW;
	size_t at = 0;

	assert(setsockopt(route->pair.ends[1].fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)) == 0);
	while (route->pair.flows[0].state.waiting == 0) {
		at = put(route->outside[0], at, at + 1000);
		settle(world);
	}
	return at;
}

static void test_little_that_is_not_taken_is_kept_and_not_lost(void)
{
	struct world world = new_world(8);
	struct route *route = begin(&world, open_narrow_route(&world, NARROW));
	size_t at = 0;
	const size_t len = put_until_kept(&world, route);

	assert(route->pair.flows[0].head && splice_pump_counters(world.pump).pipes_open == 0);
	shutdown(route->outside[0], SHUT_WR);
	settle(&world);
	while (get(route->outside[1], &at))
		turn(&world, 10);
	assert(at == len);
	end_world(&world);
}

static void test_what_is_kept_has_a_bound_and_pipes_take_the_rest(void)
{
	struct world world = new_world_that_keeps(8, 1);
	struct route *first = begin(&world, open_narrow_route(&world, NARROW));
	struct route *second = begin(&world, open_narrow_route(&world, NARROW));

	(void)put_until_kept(&world, first);
	const size_t len = put_until_kept(&world, second);
	assert(first->pair.flows[0].head && !first->pair.flows[0].pipe);
	assert(second->pair.flows[0].pipe && !second->pair.flows[0].head);
	for (size_t at = 0; at < len;) {
		assert(get(second->outside[1], &at));
		turn(&world, 10);
	}
	end_world(&world);
}

/* Edges that came before the pump had the pair are not told again. */
static void note_event(struct watch *watch, uint32_t events)
{
	splice_end_note(container_of(watch, struct splice_end, watch), events);
}

static void test_an_end_that_came_before_it_began_is_not_forgotten(void)
{
	struct world world = new_world(8);
	struct route *route = open_route(&world);
	size_t at = 0;

	for (int i = 0; i < 2; i++) {
		struct epoll_event event = { .events = SPLICE_EVENTS, .data.ptr = &route->pair.ends[i].watch };
		route->pair.ends[i].watch.happened = note_event;
		assert(epoll_ctl(world.epoll_fd, EPOLL_CTL_ADD, route->pair.ends[i].fd, &event) == 0);
	}
	assert(put(route->outside[0], 0, 100) == 100);
	shutdown(route->outside[0], SHUT_WR);
	settle(&world);
	splice_pair_begin(world.pump, &route->pair, world.now_ms);
	while (get(route->outside[1], &at))
		turn(&world, 10);
	assert(at == 100);
	end_world(&world);
}

static void test_a_reset_that_came_before_it_began_goes_on_as_a_reset(void)
{
	struct world world = new_world(8);
	struct route *route = open_route(&world);
	struct epoll_event event = { .events = SPLICE_EVENTS, .data.ptr = &route->pair.ends[0].watch };

	route->pair.ends[0].watch.happened = note_event;
	assert(epoll_ctl(world.epoll_fd, EPOLL_CTL_ADD, route->pair.ends[0].fd, &event) == 0);
	assert(put(route->outside[0], 0, 100) == 100);
	close_outside(route, 0, true);
	settle(&world);
	event.data.ptr = &route->pair.ends[1].watch;
	assert(epoll_ctl(world.epoll_fd, EPOLL_CTL_ADD, route->pair.ends[1].fd, &event) == 0);
	splice_pair_begin(world.pump, &route->pair, world.now_ms);
	assert(get_to_reset(&world, route->outside[1]) == 100);
	end_world(&world);
}

/* ---- pipes ---- */

static void test_without_pipes_all_the_same_passes(void)
{
	struct world world = new_world(0);
	struct route *route = begin(&world, open_route(&world));

	for (int way = 0; way < 2; way++)
		expect_passes(&world, route, way, 2 * MEGABYTE);
	assert(splice_pump_counters(world.pump).bytes_copied > 2 * MEGABYTE); /* what came in small pieces needs none */
	shutdown(route->outside[0], SHUT_WR);
	expect_end(&world, route->outside[1]);
	close_outside(route, 1, true);
	expect_reset(&world, route->outside[0]);
	end_world(&world);
}

static void test_who_holds_the_only_pipe_stops_nobody(void)
{
	struct world world = new_world(1);
	struct route *holder = begin(&world, open_route(&world)), *other = begin(&world, open_route(&world));
	size_t len = 0, before;

	do {
		before = len;
		len = put(holder->outside[0], len, 256 * MEGABYTE);
		settle(&world);
	} while (len != before);
	expect_passes(&world, other, 0, MEGABYTE);
	assert(splice_pump_counters(world.pump).pipes_open <= 1);
	end_world(&world);
}

/* What was under way to one visitor must not come to another. */
static void test_what_waits_in_a_pipe_goes_with_it(void)
{
	for (int i = 0; i < 2; i++) {
		struct world world = new_world(1);
		struct route *first = begin(&world, open_route(&world)), *second = begin(&world, open_route(&world));
		size_t len = 0, before;

		do {
			before = len;
			len = put(first->outside[0], len, 256 * MEGABYTE);
			settle(&world);
		} while (len != before);
		assert(first->pair.flows[0].state.waiting > 0 && first->pair.flows[0].pipe);
		if (i == 0) {
			splice_pair_cut(world.pump, &first->pair);
			first->is_over = true;
		} else {
			close_outside(first, 1, true); /* who should have read it */
			while (first->pair.flows[0].pipe)
				turn(&world, 10);
		}
		expect_passes(&world, second, 0, MEGABYTE);
		assert(splice_pump_counters(world.pump).bytes_copied == 0); /* it had the pipe */
		end_world(&world);
	}
}

/* ---- time ---- */

static uint32_t unacknowledged(const struct route *route)
{
	int n[2] = { 0 };

	for (int i = 0; i < 2; i++)
		assert(ioctl(route->pair.ends[i].fd, SIOCOUTQ, &n[i]) == 0);
	return (uint32_t)(n[0] + n[1]);
}

static void await_acknowledged(struct world *world, const struct route *route)
{
	settle(world);
	while (unacknowledged(route) > 0)
		turn(world, 1);
}

static void test_who_is_silent_for_too_long_is_reset(void)
{
	struct world world = new_world(8);
	struct route *route = begin(&world, open_route(&world));

	settle(&world);
	assert(splice_pump_expire(world.pump, world.now_ms) == world.now_ms + IDLE_MS);
	world.now_ms += IDLE_MS - 1;
	expect_passes(&world, route, 0, 10);
	await_acknowledged(&world, route);
	assert(splice_pump_expire(world.pump, world.now_ms + 1) == world.now_ms + IDLE_MS);
	assert(!route->is_over);
	assert(splice_pump_expire(world.pump, world.now_ms + IDLE_MS) == UINT64_MAX);
	assert(route->is_over && route->outcome == SPLICE_TIMED_OUT);
	expect_reset(&world, route->outside[0]);
	expect_reset(&world, route->outside[1]);
	end_world(&world);
}

static void test_half_closed_it_is_let_be_silent_for_less(void)
{
	struct world world = new_world(8);
	struct route *route = begin(&world, open_route(&world));

	shutdown(route->outside[0], SHUT_WR);
	expect_end(&world, route->outside[1]);
	assert(splice_pump_expire(world.pump, world.now_ms) == world.now_ms + HALF_MS);
	world.now_ms += HALF_MS - 1;
	expect_passes(&world, route, 1, 10);
	await_acknowledged(&world, route);
	assert(splice_pump_expire(world.pump, world.now_ms + 1) == world.now_ms + HALF_MS);
	assert(splice_pump_expire(world.pump, world.now_ms + HALF_MS) == UINT64_MAX);
	assert(route->outcome == SPLICE_TIMED_OUT);
	end_world(&world);
}

static void test_who_reads_slowly_what_was_given_is_not_silent(void)
{
	struct world world = new_world(8);
	struct route *route = begin(&world, open_narrow_route(&world, NARROW));
	uint8_t bytes[1024];
	size_t at = 0;

	give_much(&world, route);
	shutdown(route->outside[1], SHUT_WR);
	while (!route->pair.flows[1].is_finished)
		turn(&world, 10);
	settle(&world);
	for (int i = 0; i < 5; i++) {
		world.now_ms += HALF_MS;
		assert(splice_pump_expire(world.pump, world.now_ms) == world.now_ms + HALF_MS);
		const uint32_t before = unacknowledged(route);
		while (unacknowledged(route) >= before) {
			const ssize_t n = recv(route->outside[0], bytes, sizeof(bytes), 0);
			for (ssize_t j = 0; j < n; j++)
				assert(bytes[j] == byte_at(at + (size_t)j));
			at += n > 0 ? (size_t)n : 0;
			turn(&world, 1);
		}
	}
	assert(!route->is_over && at < MUCH);
	while (get(route->outside[0], &at))
		turn(&world, 10);
	assert(at == MUCH);
	end_world(&world);
}

static void test_who_takes_nothing_of_what_was_given_is_silent(void)
{
	struct world world = new_world(8);
	struct route *route = begin(&world, open_narrow_route(&world, NARROW));

	give_much(&world, route);
	settle(&world);
	int n_looks = 0; /* more than two, if the last of the narrow window was filled between them */
	while (!route->is_over) {
		assert(n_looks++ < 20);
		world.now_ms += IDLE_MS;
		(void)splice_pump_expire(world.pump, world.now_ms);
	}
	assert(n_looks >= 2 && route->outcome == SPLICE_TIMED_OUT);
	end_world(&world);
}

/* ---- what is left ---- */

static uint32_t count_descriptors(void)
{
	DIR *folder = opendir("/proc/self/fd");
	uint32_t n = 0;

	while (readdir(folder))
		n++;
	closedir(folder);
	return n;
}

int main(void)
{
	static void (*const tests[])(void) = {
		test_bytes_pass_both_ways,
		test_what_was_read_before_goes_first,
		test_an_end_passes_as_an_end_and_the_other_way_goes_on,
		test_an_end_comes_after_all_bytes,
		test_a_reset_passes_as_a_reset,
		test_it_is_known_which_end_left_without_a_byte,
		test_a_reset_passes_when_its_end_has_closed_already,
		test_what_came_before_a_reset_is_delivered,
		test_who_was_given_its_end_gets_all_before_it,
		test_who_leaves_and_takes_nothing_is_given_up,
		test_a_reset_reaches_who_does_not_read_when_nothing_waits_for_it,
		test_urgent_data_stops_nothing_and_cuts_off_nothing,
		test_for_who_does_not_read_little_is_fetched_and_nothing_spins,
		test_both_ends_flood_and_all_arrives,
		test_a_fast_pair_does_not_keep_others_waiting,
		test_a_turn_has_a_bound_and_the_rest_goes_first_the_next_time,
		test_little_goes_without_a_pipe,
		test_what_came_with_its_end_goes_with_its_end,
		test_little_that_is_not_taken_is_kept_and_not_lost,
		test_what_is_kept_has_a_bound_and_pipes_take_the_rest,
		test_an_end_that_came_before_it_began_is_not_forgotten,
		test_a_reset_that_came_before_it_began_goes_on_as_a_reset,
		test_without_pipes_all_the_same_passes,
		test_who_holds_the_only_pipe_stops_nobody,
		test_what_waits_in_a_pipe_goes_with_it,
		test_who_is_silent_for_too_long_is_reset,
		test_half_closed_it_is_let_be_silent_for_less,
		test_who_reads_slowly_what_was_given_is_not_silent,
		test_who_takes_nothing_of_what_was_given_is_silent,
	};
	const uint32_t n_descriptors = count_descriptors();

	signal(SIGPIPE, SIG_IGN);
	for (size_t i = 0; i < sizeof(tests) / sizeof(*tests); i++) {
		tests[i]();
		assert(count_descriptors() == n_descriptors);
	}
	return 0;
}
