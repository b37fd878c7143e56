/*
 * Doors behind doors: who a visitor is goes along, in a PROXY header.
 *
 *   visitor ──► outer door ══ header v2 ══► inner door ──► server, with a header as it wants one
 *                    └── header as configured ──► a server of its own
 *
 * The test is also an outer door itself, to say what a real one would not. All over TCP on the loopback.
 */
#include "relay/frontdoor/front_door.h"

#include "relay/frontdoor/proxy_header_wire.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define AWAIT_MS 10000
#define LONG_MS	 600000
#define REQUEST	 "GET / HTTP/1.1\r\nHost: app.example.org\r\n\r\n"
#define VISITOR	 (INADDR_LOOPBACK + 5) /* 127.0.0.6 */
#define OVERLAY_DOOR 0x0a4d0009 /* 10.77.0.9 */

struct house {
	uv_loop_t loop;
	struct front_door *outer, *inner;
	int server; /* listens: the target of app.example.org */
	uint16_t server_port, outer_port, inner_port;
	struct door_gate *gate; /* of the inner door */
	int n_stopped;
};

#define AWAIT(counters, condition)                                                                          \
	for (int i_ = 0;; i_++) {                                                                           \
		const __typeof__(counters) c = (counters);                                                  \
		if (condition)                                                                              \
			break;                                                                              \
		assert(i_ < AWAIT_MS);                                                                      \
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);                                  \
	}

static int listen_anywhere(uint16_t *ret_port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(address);
	const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert(bind(fd, (struct sockaddr *)&address, len) == 0 && listen(fd, 1024) == 0);
	assert(getsockname(fd, (struct sockaddr *)&address, &len) == 0);
	*ret_port = ntohs(address.sin_port);
	return fd;
}

/* ---- what is built ---- */

struct plan {
	enum door_header header; /* what the server wants of the inner door */
	bool (*allows)(const struct door_gate *gate, const struct endpoint *visitor);
	struct front_door_options options; /* of the inner door */
	struct endpoint target; /* in place of the server */
	bool has_no_server;
};

static void free_gate(struct door_gate *gate)
{
	free(gate);
}

static struct door_routes *routes_of(const struct endpoint *target, enum door_header header, struct door_gate *gate)
{
	struct door_routes *routes = door_routes_new(1);
	struct door_rule rule;
	/* The outer door is at another of the addresses from which it may come. */
	const struct endpoint doors[] = { endpoint_from_v4(INADDR_LOOPBACK + 90, 0), endpoint_from_v4(INADDR_LOOPBACK, 0),
					  endpoint_from_v4(OVERLAY_DOOR, 0) };

	assert(door_rule_parse("app.example.org 127.0.0.1:1", &rule, NULL) == 0);
	rule.header = header;
	rule.gate = gate;
	assert(door_routes_add(routes, &rule, target) == 0);
	door_routes_set_doors(routes, doors, 3);
	return routes;
}

static struct front_door *open_door(struct house *house, struct front_door_options options, struct door_routes *routes)
{
	struct front_door *door;
	struct error error;

	options.n_listen = 1;
	options.listen[0] = endpoint_from_v4(INADDR_LOOPBACK, 0);
	if (options.sniff_ms == 0)
		options.sniff_ms = LONG_MS;
	if (front_door_start(&house->loop, &options, routes, &door, &error) != 0) {
		printf("%s\n", error.message);
		abort();
	}
	AWAIT(front_door_counters(door), c.routes_taken == 1);
	return door;
}

static void open_house(struct house *house, struct plan plan)
{
	*house = (struct house){ 0 };
	house->server = listen_anywhere(&house->server_port);
	const struct endpoint server = endpoint_from_v4(INADDR_LOOPBACK, house->server_port);
	const struct endpoint *target = endpoint_is_none(&plan.target) ? &server : &plan.target;
	if (plan.has_no_server)
		close(house->server);
	assert(uv_loop_init(&house->loop) == 0);
	house->gate = calloc(1, sizeof(*house->gate));
	assert(house->gate);
	house->gate->allows = plan.allows;
	house->gate->free = free_gate;
	door_gate_init(house->gate);
	plan.options.takes_header = true;
	house->inner = open_door(house, plan.options, routes_of(target, plan.header, house->gate));
	house->inner_port = front_door_port(house->inner, 0);
	const struct endpoint inner = endpoint_from_v4(INADDR_LOOPBACK, house->inner_port);
	house->outer = open_door(house, (struct front_door_options){ 0 }, routes_of(&inner, DOOR_HEADER_V2, NULL));
	house->outer_port = front_door_port(house->outer, 0);
	if (plan.has_no_server)
		house->server = -1;
}

static void on_stopped(void *owner)
{
	((struct house *)owner)->n_stopped++;
}

static void close_house(struct house *house)
{
	front_door_stop(house->outer, on_stopped, house);
	front_door_stop(house->inner, on_stopped, house);
	while (house->n_stopped < 2)
		uv_run(&house->loop, UV_RUN_ONCE);
	assert(uv_loop_close(&house->loop) == 0);
	door_gate_let_go(house->gate);
	if (house->server >= 0)
		close(house->server);
}

/* ---- visitors ---- */

static int visit_from(uint16_t port, uint32_t from)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
				       .sin_port = htons(port) };
	const struct sockaddr_in own = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(from) };
	const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	const struct timeval patience = { .tv_sec = AWAIT_MS / 1000 };

	assert(fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) == 0);
	assert(bind(fd, (const struct sockaddr *)&own, sizeof(own)) == 0);
	assert(connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
	return fd;
}

static void say(int fd, const void *bytes, size_t n)
{
	assert(send(fd, bytes, n, MSG_NOSIGNAL) == (ssize_t)n);
}

static void say_text(int fd, const char *text)
{
	say(fd, text, strlen(text));
}

static void hear(int fd, const char *text)
{
	char heard[1024];
	const size_t len = strlen(text);

	for (size_t n = 0; n < len;) {
		const ssize_t more = recv(fd, heard + n, len - n, 0);
		assert(more > 0);
		n += (size_t)more;
		assert(memcmp(heard, text, n) == 0);
	}
}

static void hear_reset(int fd)
{
	char byte;

	assert(recv(fd, &byte, 1, 0) < 0 && errno == ECONNRESET);
	close(fd);
}

static int served(const struct house *house)
{
	struct pollfd wait = { .fd = house->server, .events = POLLIN };

	assert(poll(&wait, 1, AWAIT_MS) == 1);
	const int fd = accept(house->server, NULL, NULL);
	assert(fd >= 0);
	return fd;
}

static struct endpoint own_of(int fd)
{
	struct sockaddr_storage address = { 0 };
	socklen_t len = sizeof(address);

	assert(getsockname(fd, (struct sockaddr *)&address, &len) == 0);
	return endpoint_from_sockaddr((struct sockaddr *)&address);
}

/* From here to its end: it says what it wants, byte by byte, and the rest is the visitor's. */
static void hear_header_2(int fd, struct proxy_header *ret, uint8_t bytes[PROXY_V2_MAX_LEN])
{
	size_t n = 0, len;
	int r = PROXY_MORE;

	while (r == PROXY_MORE) {
		assert(n < PROXY_V2_MAX_LEN && recv(fd, bytes + n, 1, 0) == 1);
		r = proxy_v2_decode(bytes, ++n, ret, &len);
	}
	assert(r == 0);
}

static struct proxy_header visitor_of(const char *host, enum proxy_scheme scheme, uint32_t visitor)
{
	return (struct proxy_header){ .has_addresses = true, .scheme = scheme,
				      .source = endpoint_from_v4(visitor, 56324),
				      .destination = endpoint_from_v4(0xc6336401, 443),
				      .authority = { .at = (const uint8_t *)host, .len = strlen(host) } };
}

/* What a door says of a visitor. Returns its length. */
static size_t header_of(const char *host, enum proxy_scheme scheme, uint32_t visitor, uint8_t bytes[512])
{
	const struct proxy_header header = visitor_of(host, scheme, visitor);

	return proxy_v2_encode(&header, bytes, 512);
}

/* ---- what targets are told ---- */

static void test_a_target_is_told_who_comes_to_where_for_which_host(void)
{
	struct house house;
	struct proxy_header header;
	uint8_t bytes[PROXY_V2_MAX_LEN];

	open_house(&house, (struct plan){ .header = DOOR_HEADER_V2 });
	const int fd = visit_from(house.outer_port, VISITOR);
	say_text(fd, REQUEST);
	const int server = served(&house);
	hear_header_2(server, &header, bytes);
	const struct endpoint visitor = own_of(fd), door = endpoint_from_v4(INADDR_LOOPBACK, house.outer_port);
	assert(header.has_addresses && endpoint_equal(&header.source, &visitor));
	assert(endpoint_equal(&header.destination, &door));
	assert(header.authority.len == 15 && memcmp(header.authority.at, "app.example.org", 15) == 0);
	assert(header.scheme == PROXY_HTTP && header.n_doors == 2);
	hear(server, REQUEST);
	say_text(server, "welcome");
	hear(fd, "welcome");
	close(fd);
	close(server);
	close_house(&house);
}

static void test_a_target_may_want_the_line_of_version_1(void)
{
	struct house house;
	char line[128];

	open_house(&house, (struct plan){ .header = DOOR_HEADER_V1 });
	const int fd = visit_from(house.outer_port, VISITOR);
	say_text(fd, REQUEST);
	const int server = served(&house);
	snprintf(line, sizeof(line), "PROXY TCP4 127.0.0.6 127.0.0.1 %u %u\r\n" REQUEST, own_of(fd).port,
		 house.outer_port);
	hear(server, line);
	close(fd);
	close(server);
	close_house(&house);
}

static void test_a_target_that_wants_none_gets_the_visitors_bytes_alone(void)
{
	struct house house;

	open_house(&house, (struct plan){ .header = DOOR_NO_HEADER });
	const int fd = visit_from(house.outer_port, VISITOR);
	say_text(fd, REQUEST);
	const int server = served(&house);
	hear(server, REQUEST);
	close(fd);
	close(server);
	close_house(&house);
}

/* ---- what a door is told ---- */

static void test_a_header_may_come_in_pieces_and_what_follows_later(void)
{
	struct house house;
	uint8_t bytes[512];

	open_house(&house, (struct plan){ .header = DOOR_NO_HEADER });
	const int fd = visit_from(house.inner_port, INADDR_LOOPBACK);
	const size_t n = header_of("app.example.org", PROXY_HTTPS, VISITOR, bytes);
	for (size_t i = 0; i < n; i++)
		say(fd, bytes + i, 1);
	const int server = served(&house);
	say_text(server, "I speak first");
	hear(fd, "I speak first");
	say_text(fd, "late");
	hear(server, "late");
	AWAIT(front_door_counters(house.inner), c.routed[SNIFFER_TLS] == 1);
	close(fd);
	close(server);
	close_house(&house);
}

static void expect_refused(const struct house *house, const void *bytes, size_t n)
{
	const uint64_t before = front_door_counters(house->inner).bad_header;
	const int fd = visit_from(house->inner_port, INADDR_LOOPBACK);

	say(fd, bytes, n);
	hear_reset(fd);
	AWAIT(front_door_counters(house->inner), c.bad_header == before + 1 && c.visitors_now == 0);
}

static void test_what_is_no_header_or_names_no_host_is_refused(void)
{
	struct house house;
	uint8_t bytes[512];

	open_house(&house, (struct plan){ .header = DOOR_NO_HEADER });
	expect_refused(&house, REQUEST, strlen(REQUEST));
	expect_refused(&house, "PROXY UNKNOWN\r\n", 15);
	expect_refused(&house, bytes, header_of("127.0.0.1", PROXY_HTTP, VISITOR, bytes));
	expect_refused(&house, bytes, header_of("app.example.org", PROXY_NO_SCHEME, VISITOR, bytes));
	expect_refused(&house, bytes, header_of("app.example.org", PROXY_TCP, VISITOR, bytes));
	expect_refused(&house, bytes, header_of("udp:2222", PROXY_TCP, VISITOR, bytes));
	expect_refused(&house, bytes, header_of("tcp:2222/7", PROXY_TCP, VISITOR, bytes));
	expect_refused(&house, bytes, header_of("tcp:2222", PROXY_HTTPS, VISITOR, bytes));
	const struct proxy_header local = { .has_addresses = false };
	expect_refused(&house, bytes, proxy_v2_encode(&local, bytes, sizeof(bytes)));
	close_house(&house);
}

static void test_a_host_that_is_not_published_is_reset(void)
{
	struct house house;
	uint8_t bytes[512];

	open_house(&house, (struct plan){ .header = DOOR_NO_HEADER });
	const int fd = visit_from(house.inner_port, INADDR_LOOPBACK);
	say(fd, bytes, header_of("other.example.org", PROXY_HTTP, VISITOR, bytes));
	hear_reset(fd);
	AWAIT(front_door_counters(house.inner), c.unknown_host == 1);
	close_house(&house);
}

static void test_who_is_no_door_is_reset_whatever_it_says(void)
{
	struct house house;

	open_house(&house, (struct plan){ .header = DOOR_NO_HEADER });
	hear_reset(visit_from(house.inner_port, INADDR_LOOPBACK + 1));
	AWAIT(front_door_counters(house.inner), c.no_door == 1 && c.visitors_now == 0);
	const int fd = visit_from(house.inner_port, INADDR_LOOPBACK + 90); /* the other one */
	say(fd, "\r", 1);
	AWAIT(front_door_counters(house.inner), c.sniffing_now == 1);
	close(fd);
	AWAIT(front_door_counters(house.inner), c.left_early == 1 && c.no_door == 1);
	close_house(&house);
}

static void test_who_has_come_through_two_doors_is_led_no_further(void)
{
	struct house house;
	struct proxy_header header = visitor_of("app.example.org", PROXY_HTTP, VISITOR);
	uint8_t bytes[512];

	open_house(&house, (struct plan){ .header = DOOR_NO_HEADER });
	for (uint8_t n_doors = 0; n_doors < 4; n_doors++) {
		const int fd = visit_from(house.inner_port, INADDR_LOOPBACK);
		header.n_doors = n_doors;
		say(fd, bytes, proxy_v2_encode(&header, bytes, sizeof(bytes)));
		if (n_doors >= 2) {
			hear_reset(fd);
		} else {
			close(served(&house));
			close(fd);
		}
	}
	AWAIT(front_door_counters(house.inner), c.in_a_ring == 2 && c.visitors_now == 0);
	close_house(&house);
}

static bool allows_nobody(const struct door_gate *gate, const struct endpoint *visitor)
{
	(void)gate;
	(void)visitor;
	return false;
}

/* Where it came to first is where it would be led. The gate is asked after that, and stops it before it is on the way there. */
static void expect_led_back(const char *address, bool is_ring)
{
	struct plan plan = { .allows = allows_nobody };
	struct house house;
	struct proxy_header header = visitor_of("app.example.org", PROXY_HTTP, VISITOR);
	uint8_t bytes[512];

	assert(endpoint_parse(address, &plan.target) == 0);
	open_house(&house, plan);
	header.destination = plan.target;
	if (!endpoint_is_v4(&plan.target))
		memcpy(header.source.ip, plan.target.ip, sizeof(header.source.ip)); /* both are of one family */
	const int fd = visit_from(house.inner_port, INADDR_LOOPBACK);
	say(fd, bytes, proxy_v2_encode(&header, bytes, sizeof(bytes)));
	hear_reset(fd);
	AWAIT(front_door_counters(house.inner), c.visitors_now == 0 && c.in_a_ring + c.not_allowed == 1);
	assert(front_door_counters(house.inner).in_a_ring == (is_ring ? 1 : 0));
	close_house(&house);
}

static void test_who_would_be_led_back_to_the_first_door_is_refused(void)
{
	expect_led_back("203.0.113.1:443", true);
	expect_led_back("[2001:db8::1]:443", true);
	expect_led_back("10.77.0.9:443", true); /* a door's, in the overlay */
}

/* The first door's 192.168.1.10 is not this machine's. */
static void test_a_target_with_the_first_doors_address_in_another_network_is_not_that_door(void)
{
	expect_led_back("127.0.0.1:8443", false);
	expect_led_back("[::1]:8443", false);
	expect_led_back("192.168.1.10:443", false);
	expect_led_back("10.77.0.8:443", false);
	expect_led_back("[fd00::1]:443", false);
}

/* What is on the outer door's machine comes to it by the loopback, and so does the inner one's server. */
static void test_who_came_to_the_first_door_by_the_loopback_is_led_to_a_server_there(void)
{
	struct house house;
	struct proxy_header header = visitor_of("app.example.org", PROXY_HTTP, VISITOR);
	uint8_t bytes[512];

	open_house(&house, (struct plan){ .header = DOOR_NO_HEADER });
	header.destination = endpoint_from_v4(INADDR_LOOPBACK, house.server_port);
	const int fd = visit_from(house.inner_port, INADDR_LOOPBACK);
	say(fd, bytes, proxy_v2_encode(&header, bytes, sizeof(bytes)));
	close(served(&house));
	close(fd);
	close_house(&house);
}

static void test_a_header_that_does_not_come_is_waited_for_only_so_long(void)
{
	struct house house;

	open_house(&house, (struct plan){ .options.sniff_ms = 200 });
	const int fd = visit_from(house.inner_port, INADDR_LOOPBACK);
	say(fd, "\r\n\r\n", 4);
	hear_reset(fd);
	AWAIT(front_door_counters(house.inner), c.too_slow == 1);
	close_house(&house);
}

static void test_a_door_that_says_nothing_yet_may_wait_for_its_visitor(void)
{
	struct house house;
	uint8_t bytes[512];

	open_house(&house, (struct plan){ .options = { .sniff_ms = 50, .silent_ms = LONG_MS } });
	const int fd = visit_from(house.inner_port, INADDR_LOOPBACK);
	AWAIT(front_door_counters(house.inner), c.warm_now == 1 && c.visitors == 0 && c.visitors_now == 0);
	nanosleep(&(struct timespec){ .tv_nsec = 150000000 }, NULL); /* longer than who speaks has */
	say(fd, bytes, header_of("app.example.org", PROXY_HTTP, VISITOR, bytes));
	const int server = served(&house);
	AWAIT(front_door_counters(house.inner), c.warm_now == 0 && c.visitors == 1 && c.visitors_now == 1);
	close(server);
	close(fd);
	close_house(&house);
}

static void test_who_has_waited_and_begins_has_the_time_of_a_header(void)
{
	struct house house;

	open_house(&house, (struct plan){ .options = { .sniff_ms = 50, .silent_ms = LONG_MS } });
	const int fd = visit_from(house.inner_port, INADDR_LOOPBACK);
	AWAIT(front_door_counters(house.inner), c.warm_now == 1);
	say(fd, "\r\n\r\n", 4);
	hear_reset(fd);
	AWAIT(front_door_counters(house.inner), c.too_slow == 1 && c.warm_now == 0 && c.visitors_now == 0);
	close_house(&house);
}

static void test_a_door_that_waits_or_leaves_in_vain_is_no_visitor(void)
{
	struct house house;

	open_house(&house, (struct plan){ .options = { .silent_ms = 50 } });
	hear_reset(visit_from(house.inner_port, INADDR_LOOPBACK));
	close(visit_from(house.inner_port, INADDR_LOOPBACK));
	AWAIT(front_door_counters(house.inner), c.warm_now == 0 && c.too_slow == 0 && c.left_early == 0 && c.visitors == 0);
	close_house(&house);
}

static void test_only_some_of_one_door_may_wait(void)
{
	struct house house;
	int fds[4];

	/* A quarter of the places of one source. */
	open_house(&house, (struct plan){ .options = { .max_visitors = 100, .max_visitors_source = 8, .sniff_ms = 50,
						       .silent_ms = LONG_MS } });
	for (int i = 0; i < 4; i++)
		fds[i] = visit_from(house.inner_port, INADDR_LOOPBACK);
	for (int i = 2; i < 4; i++)
		hear_reset(fds[i]);
	AWAIT(front_door_counters(house.inner), c.warm_now == 2 && c.too_slow == 2);
	const int other = visit_from(house.inner_port, INADDR_LOOPBACK + 90);
	AWAIT(front_door_counters(house.inner), c.warm_now == 3);
	close(other);
	close(fds[0]);
	close(fds[1]);
	close_house(&house);
}

static void test_a_door_that_is_none_any_more_waits_no_longer(void)
{
	struct house house;

	open_house(&house, (struct plan){ .header = DOOR_NO_HEADER });
	const int fd = visit_from(house.inner_port, INADDR_LOOPBACK);
	AWAIT(front_door_counters(house.inner), c.warm_now == 1);
	const struct endpoint server = endpoint_from_v4(INADDR_LOOPBACK, house.server_port);
	struct door_routes *routes = door_routes_new(1);
	struct door_rule rule;
	assert(door_rule_parse("app.example.org 127.0.0.1:1", &rule, NULL) == 0);
	assert(door_routes_add(routes, &rule, &server) == 0);
	front_door_set_routes_take(house.inner, routes);
	hear_reset(fd);
	AWAIT(front_door_counters(house.inner), c.visitors_now == 0 && c.warm_now == 0 && c.no_door == 0);
	close_house(&house);
}

static void test_who_is_passed_on_has_the_places_of_its_own_source(void)
{
	struct house house;
	uint8_t bytes[512];
	int fds[4];

	open_house(&house, (struct plan){ .options = { .max_visitors_source = 2, .max_visitors = 100 } });
	const size_t n = header_of("app.example.org", PROXY_HTTP, VISITOR, bytes);
	for (int i = 0; i < 2; i++) {
		fds[i] = visit_from(house.inner_port, INADDR_LOOPBACK);
		say(fds[i], bytes, n);
		close(served(&house));
	}
	fds[2] = visit_from(house.inner_port, INADDR_LOOPBACK);
	say(fds[2], bytes, n);
	hear_reset(fds[2]);
	AWAIT(front_door_counters(house.inner), c.over_source_limit == 1 && c.visitors_now == 2);
	fds[3] = visit_from(house.inner_port, INADDR_LOOPBACK);
	say(fds[3], bytes, header_of("app.example.org", PROXY_HTTP, VISITOR + 1, bytes));
	close(served(&house));
	AWAIT(front_door_counters(house.inner), c.visitors_now == 3);
	close(fds[0]);
	close(fds[1]);
	close(fds[3]);
	close_house(&house);
}

/* ---- gates ---- */

static bool allows_visitor(const struct door_gate *gate, const struct endpoint *visitor)
{
	const struct endpoint allowed = endpoint_from_v4(VISITOR, 0);

	(void)gate;
	return memcmp(visitor->ip, allowed.ip, sizeof(allowed.ip)) == 0;
}

static void test_it_is_the_visitor_that_has_to_be_allowed_and_not_the_door(void)
{
	struct house house;

	open_house(&house, (struct plan){ .allows = allows_visitor });
	const int friend = visit_from(house.outer_port, VISITOR);
	say_text(friend, REQUEST);
	const int server = served(&house);
	hear(server, REQUEST);
	const int other = visit_from(house.outer_port, VISITOR + 1);
	say_text(other, REQUEST);
	hear_reset(other);
	AWAIT(door_gate_counters(house.gate), c.refused[DOOR_GATE_NOT_ALLOWED] == 1 && c.visitors == 1);
	AWAIT(front_door_counters(house.inner), c.not_allowed == 1);
	close(friend);
	close(server);
	close_house(&house);
}

static void test_a_gate_counts_its_visitors_and_their_bytes_while_they_are_there(void)
{
	struct house house;

	open_house(&house, (struct plan){ .header = DOOR_NO_HEADER });
	const int fd = visit_from(house.outer_port, VISITOR);
	say_text(fd, REQUEST);
	const int server = served(&house);
	hear(server, REQUEST);
	say_text(server, "welcome");
	hear(fd, "welcome");
	AWAIT(door_gate_counters(house.gate), c.visitors_now == 1 && c.state == DOOR_TARGET_UP &&
						      c.bytes_in == strlen(REQUEST) && c.bytes_out == strlen("welcome"));
	close(fd);
	close(server);
	AWAIT(door_gate_counters(house.gate), c.visitors_now == 0 && c.visitors == 1);
	close_house(&house);
}

static void test_a_dead_target_gives_the_visitor_a_reset_and_is_known_as_down(void)
{
	struct house house;

	open_house(&house, (struct plan){ .has_no_server = true });
	const int fd = visit_from(house.outer_port, VISITOR);
	say_text(fd, REQUEST);
	hear_reset(fd);
	AWAIT(door_gate_counters(house.gate), c.unreachable == 1 && c.state == DOOR_TARGET_DOWN && c.visitors_now == 0);
	close_house(&house);
}

static void test_a_gate_outlives_routes_for_who_came_by_it(void)
{
	struct house house;

	open_house(&house, (struct plan){ .header = DOOR_NO_HEADER });
	const int fd = visit_from(house.outer_port, VISITOR);
	say_text(fd, REQUEST);
	const int server = served(&house);
	hear(server, REQUEST);
	front_door_set_routes_take(house.inner, door_routes_new(0));
	AWAIT(front_door_counters(house.inner), c.routes_taken == 2);
	say_text(server, "still here");
	hear(fd, "still here");
	assert(door_gate_counters(house.gate).visitors_now == 1);
	close(fd);
	close(server);
	AWAIT(door_gate_counters(house.gate), c.visitors_now == 0);
	close_house(&house);
}

int main(void)
{
	static void (*const tests[])(void) = {
		test_a_target_is_told_who_comes_to_where_for_which_host,
		test_a_target_may_want_the_line_of_version_1,
		test_a_target_that_wants_none_gets_the_visitors_bytes_alone,
		test_a_header_may_come_in_pieces_and_what_follows_later,
		test_what_is_no_header_or_names_no_host_is_refused,
		test_a_host_that_is_not_published_is_reset,
		test_who_is_no_door_is_reset_whatever_it_says,
		test_who_has_come_through_two_doors_is_led_no_further,
		test_who_would_be_led_back_to_the_first_door_is_refused,
		test_a_target_with_the_first_doors_address_in_another_network_is_not_that_door,
		test_who_came_to_the_first_door_by_the_loopback_is_led_to_a_server_there,
		test_a_header_that_does_not_come_is_waited_for_only_so_long,
		test_a_door_that_says_nothing_yet_may_wait_for_its_visitor,
		test_who_has_waited_and_begins_has_the_time_of_a_header,
		test_a_door_that_waits_or_leaves_in_vain_is_no_visitor,
		test_only_some_of_one_door_may_wait,
		test_a_door_that_is_none_any_more_waits_no_longer,
		test_who_is_passed_on_has_the_places_of_its_own_source,
		test_it_is_the_visitor_that_has_to_be_allowed_and_not_the_door,
		test_a_gate_counts_its_visitors_and_their_bytes_while_they_are_there,
		test_a_dead_target_gives_the_visitor_a_reset_and_is_known_as_down,
		test_a_gate_outlives_routes_for_who_came_by_it,
	};

	if (sodium_init() < 0)
		return 1;
	for (size_t i = 0; i < sizeof(tests) / sizeof(*tests); i++)
		tests[i]();
	return 0;
}
