/*
 * QUIC at the front door as visitors and targets see it: datagrams pass as they are, also in trains, from and to the
 * addresses that were asked. Over UDP on the loopback, in one thread: the door has its turns here.
 */
#include "relay/frontdoor/door_udp.h"

#include "relay/frontdoor/proxy_header_wire.h"

#include "hello.h"
#include "initial.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

#define AWAIT_MS 10000
#define CAP	 65536
#define HANDSHAKE "\xe0\0\0\0\1\x06" "client" "\x08" "server-a" "handshake"
#define HANDSHAKE_BACK "\xe0\0\0\0\1\x08" "server-a" "\x06" "client" "handshake"

struct house {
	struct door_udp *udp;
	struct door_routes *routes;
	int server, visitor;
	uint16_t server_port, port;
};

static uint8_t message[CAP], frames[CAP], bytes[CAP], got[CAP];

static int bound(const char *ip, uint16_t *ret_port)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	socklen_t len = sizeof(address);
	const struct timeval limit = { .tv_sec = AWAIT_MS / 1000 };
	const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	assert(fd >= 0 && inet_pton(AF_INET, ip, &address.sin_addr) == 1);
	assert(bind(fd, (struct sockaddr *)&address, len) == 0 && getsockname(fd, (struct sockaddr *)&address, &len) == 0);
	assert(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) == 0);
	if (ret_port)
		*ret_port = ntohs(address.sin_port);
	return fd;
}

static int visitor_of(const struct house *house, const char *door_ip)
{
	struct sockaddr_in door = { .sin_family = AF_INET, .sin_port = htons(house->port) };
	const int fd = bound("127.0.0.1", NULL);

	assert(inet_pton(AF_INET, door_ip, &door.sin_addr) == 1);
	assert(connect(fd, (struct sockaddr *)&door, sizeof(door)) == 0); /* hears nothing from elsewhere */
	return fd;
}

static void set_target(struct house *house, uint16_t port, enum door_header header, struct door_gate *gate)
{
	struct door_routes *before = house->routes;
	struct door_rule rule;
	char line[128];

	snprintf(line, sizeof(line), "https://app.example.org 127.0.0.1:%u", port);
	assert(door_rule_parse(line, &rule, NULL) == 0);
	rule.header = header;
	rule.gate = gate;
	house->routes = door_routes_new(1);
	assert(door_routes_add(house->routes, &rule, &rule.address) == 0);
	door_udp_set_routes(house->udp, house->routes);
	door_routes_free(before);
}

static void open_house_with(struct house *house, const struct quic_flows_options *options)
{
	const struct endpoint any = { 0 };
	uint32_t failed;

	*house = (struct house){ 0 };
	assert(door_udp_new(options, &any, 1, &house->udp, &failed) == 0);
	house->port = door_udp_port(house->udp, 0);
	house->server = bound("127.0.0.1", &house->server_port);
	house->visitor = visitor_of(house, "127.0.0.1");
	set_target(house, house->server_port, DOOR_NO_HEADER, NULL);
}

static void open_house_of(struct house *house, uint32_t asked_ms)
{
	struct quic_flows_options options = door_udp_defaults(1024);

	options.times.asked_ms = asked_ms;
	open_house_with(house, &options);
}

static void open_house(struct house *house)
{
	open_house_of(house, AWAIT_MS);
}

static void close_house(struct house *house)
{
	door_udp_free(house->udp);
	door_routes_free(house->routes);
	close(house->server);
	close(house->visitor);
}

static void turn(struct house *house, int ms)
{
	struct pollfd readable = { .fd = door_udp_fd(house->udp), .events = POLLIN };

	if (poll(&readable, 1, ms) > 0)
		door_udp_watch(house->udp)->happened(door_udp_watch(house->udp), EPOLLIN);
}

/* Until the counters fulfil it. */
#define AWAIT(house, condition)                                                                             \
	do {                                                                                                \
		struct quic_counters c = door_udp_counters((house)->udp);                                   \
		for (int i_ = 0; !(condition); i_++) {                                                      \
			assert(i_ < AWAIT_MS);                                                              \
			turn(house, 10);                                                                    \
			c = door_udp_counters((house)->udp);                                                \
		}                                                                                           \
	} while (0)

static size_t make_hello(const char *host, const char *id, uint32_t part, uint32_t n_parts)
{
	const struct hello_options hello = { .names = { host } };
	const size_t len = hello_build(&hello, message, sizeof(message)), size = len / n_parts + 1, at = part * size;
	const size_t n = initial_crypto(at, message + at, at + size < len ? size : len - at, frames, sizeof(frames));
	const struct initial_options options = { .destination = id, .destination_len = 8, .number = part };

	return initial_build(&options, frames, n, bytes, sizeof(bytes));
}

static void say(int fd, const void *said, size_t len)
{
	assert(send(fd, said, len, 0) == (ssize_t)len);
}

static void hears(int fd, const void *wanted, size_t len, struct sockaddr_in *ret_from)
{
	socklen_t from_len = sizeof(*ret_from);
	const ssize_t n = recvfrom(fd, got, sizeof(got), 0, (struct sockaddr *)ret_from, ret_from ? &from_len : NULL);

	assert(n == (ssize_t)len && memcmp(got, wanted, len) == 0);
}

static bool hears_nothing(int fd)
{
	return recv(fd, got, sizeof(got), MSG_DONTWAIT) < 0 && errno == EAGAIN;
}

/* By the visitor's socket, to the door; *ret: the door's socket, as the server sees it. */
static void shake_hands(struct house *house, int visitor, struct sockaddr_in *ret)
{
	const struct quic_counters before = door_udp_counters(house->udp);
	const size_t len = make_hello("app.example.org", "firstone", 0, 1);

	say(visitor, bytes, len);
	AWAIT(house, c.led == before.led + 1);
	hears(house->server, bytes, len, ret);
	assert(sendto(house->server, HANDSHAKE, sizeof(HANDSHAKE), 0, (struct sockaddr *)ret, sizeof(*ret)) > 0);
	AWAIT(house, c.datagrams_out == before.datagrams_out + 1);
	hears(visitor, HANDSHAKE, sizeof(HANDSHAKE), NULL);
	say(visitor, HANDSHAKE_BACK, sizeof(HANDSHAKE_BACK));
	AWAIT(house, c.proven_now == before.proven_now + 1);
	hears(house->server, HANDSHAKE_BACK, sizeof(HANDSHAKE_BACK), NULL);
}

/* ---- the rules ---- */

static void test_datagrams_pass_both_ways_as_they_are(void)
{
	struct sockaddr_in from;
	struct house house;

	open_house(&house);
	shake_hands(&house, house.visitor, &from);
	close_house(&house);
}

static void test_the_answer_leaves_by_the_address_that_was_asked(void)
{
	struct sockaddr_in from;
	struct house house;

	open_house(&house);
	const int visitor = visitor_of(&house, "127.0.0.8"); /* connected: hears that address alone */
	shake_hands(&house, visitor, &from);
	close(visitor);
	close_house(&house);
}

static void test_a_hello_in_pieces_arrives_in_its_order(void)
{
	struct house house;
	uint8_t first[2048];

	open_house(&house);
	const size_t first_len = make_hello("app.example.org", "firstone", 1, 2); /* the second piece overtook */
	memcpy(first, bytes, first_len);
	say(house.visitor, first, first_len);
	AWAIT(&house, c.sniffing_now == 1);
	assert(hears_nothing(house.server));
	const size_t len = make_hello("app.example.org", "firstone", 0, 2);
	say(house.visitor, bytes, len);
	AWAIT(&house, c.led == 1 && c.sniffing_now == 0);
	hears(house.server, first, first_len, NULL);
	hears(house.server, bytes, len, NULL);
	close_house(&house);
}

static void send_train(int fd, const struct sockaddr_in *to, size_t len, uint16_t size)
{
	struct iovec piece = { bytes, len };
	struct {
		_Alignas(struct cmsghdr) uint8_t room[CMSG_SPACE(sizeof(uint16_t))];
	} control = { 0 };
	struct msghdr header = { .msg_name = (void *)(uintptr_t)to, .msg_namelen = to ? sizeof(*to) : 0, .msg_iov = &piece,
				 .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = sizeof(control.room) };
	struct cmsghdr *segment = CMSG_FIRSTHDR(&header);

	segment->cmsg_level = IPPROTO_UDP;
	segment->cmsg_type = UDP_SEGMENT;
	segment->cmsg_len = CMSG_LEN(sizeof(size));
	memcpy(CMSG_DATA(segment), &size, sizeof(size));
	assert(sendmsg(fd, &header, 0) == (ssize_t)len);
}

static void hears_train(int fd, size_t len, size_t size)
{
	for (size_t at = 0; at < len; at += size)
		hears(fd, bytes + at, len - at < size ? len - at : size, NULL);
}

static void test_trains_pass_with_their_boundaries(void)
{
	const size_t len = 29 * 1200 + 77;
	struct sockaddr_in from;
	struct house house;

	open_house(&house);
	shake_hands(&house, house.visitor, &from);
	const struct quic_counters before = door_udp_counters(house.udp);
	for (size_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)(i % 1200 == 0 ? 0x40 : i / 1200 + i);
	send_train(house.visitor, NULL, len, 1200);
	AWAIT(&house, c.datagrams_in == before.datagrams_in + 30);
	hears_train(house.server, len, 1200);
	send_train(house.server, &from, len, 1200);
	AWAIT(&house, c.datagrams_out == before.datagrams_out + 30);
	hears_train(house.visitor, len, 1200);
	close_house(&house);
}

static void test_a_train_to_two_targets_is_parted(void)
{
	struct house house;
	size_t len;

	open_house(&house);
	len = make_hello("app.example.org", "othertwo", 0, 1);
	assert(len == 1200);
	memcpy(bytes + len, bytes, len);
	len = make_hello("app.example.org", "firstone", 0, 1);
	assert(len == 1200);
	send_train(house.visitor, NULL, 2400, 1200);
	AWAIT(&house, c.led == 2 && c.datagrams_in == 2);
	struct sockaddr_in one, two;
	hears(house.server, bytes, 1200, &one);
	hears(house.server, bytes + 1200, 1200, &two);
	assert(one.sin_port != two.sin_port);
	close_house(&house);
}

static void test_a_turn_takes_a_part_of_what_waits(void)
{
	static const char stray[] = "\x40" "of nobody's connection";
	struct house house;

	open_house(&house);
	for (int i = 0; i < 100; i++) /* small ones: all of them wait in the door's socket */
		say(house.visitor, stray, sizeof(stray));
	turn(&house, AWAIT_MS);
	const uint64_t n = door_udp_counters(house.udp).stray;
	assert(n > 0 && n < 100);
	AWAIT(&house, c.stray == 100);
	close_house(&house);
}

static void test_who_comes_from_elsewhere_is_seen_to(void)
{
	static const char known[] = "\x40" "server-a" "request", answer[] = "\x40" "client" "response";
	struct sockaddr_in before, after;
	struct house house;

	open_house(&house);
	shake_hands(&house, house.visitor, &before);
	const int moved = visitor_of(&house, "127.0.0.1");
	say(moved, known, sizeof(known));
	AWAIT(&house, c.moved == 1);
	hears(house.server, known, sizeof(known), &after);
	assert(before.sin_port != after.sin_port);
	const uint64_t n = door_udp_counters(house.udp).datagrams_out;
	assert(sendto(house.server, answer, sizeof(answer), 0, (struct sockaddr *)&after, sizeof(after)) > 0);
	AWAIT(&house, c.datagrams_out == n + 1);
	hears(moved, answer, sizeof(answer), NULL);
	assert(hears_nothing(house.visitor));
	close(moved);
	close_house(&house);
}

static void test_routes_that_are_replaced_are_for_who_comes(void)
{
	static const char known[] = "\x40" "server-a" "request";
	struct sockaddr_in from;
	struct house house;
	uint16_t port;

	open_house(&house);
	shake_hands(&house, house.visitor, &from);
	const int other = bound("127.0.0.1", &port);
	set_target(&house, port, DOOR_NO_HEADER, NULL);
	say(house.visitor, known, sizeof(known));
	const size_t len = make_hello("app.example.org", "othertwo", 0, 1);
	const int visitor = visitor_of(&house, "127.0.0.1");
	say(visitor, bytes, len);
	AWAIT(&house, c.led == 2);
	hears(house.server, known, sizeof(known), NULL);
	hears(other, bytes, len, NULL);
	close(other);
	close(visitor);
	close_house(&house);
}

static void free_nothing(struct door_gate *gate)
{
	(void)gate;
}

static void test_what_cannot_be_served_gets_no_answer(void)
{
	struct door_gate gate = { .free = free_nothing };
	struct house house;

	open_house(&house);
	say(house.visitor, bytes, make_hello("other.example.org", "firstone", 0, 1));
	AWAIT(&house, c.unknown_host == 1);
	set_target(&house, house.server_port, DOOR_HEADER_V2, NULL); /* a server, before which no header can stand */
	say(house.visitor, bytes, make_hello("app.example.org", "firstone", 0, 1));
	AWAIT(&house, c.nobody_there == 1);
	door_gate_init(&gate);
	set_target(&house, house.server_port, DOOR_NO_HEADER, &gate); /* who is let in one by one */
	say(house.visitor, bytes, make_hello("app.example.org", "firstone", 0, 1));
	AWAIT(&house, c.nobody_there == 2);
	close(bound("127.0.0.1", &house.server_port));
	set_target(&house, house.server_port, DOOR_NO_HEADER, NULL);
	door_gate_let_go(&gate);
	say(house.visitor, bytes, make_hello("app.example.org", "firstone", 0, 1));
	AWAIT(&house, c.unreachable == 1 && c.flows_now == 0);
	assert(hears_nothing(house.visitor) && hears_nothing(house.server));
	assert(door_udp_counters(house.udp).datagrams_out == 0);
	close_house(&house);
}

/* ---- hosts of members ---- */

static void set_members(struct house *house, struct door_places *places, const uint16_t *ports, uint32_t n)
{
	struct door_routes *before = house->routes;
	struct door_rule rule;

	assert(door_rule_parse_host("*.example.org", 13, &rule, NULL) == 0);
	rule.header = DOOR_HEADER_V2;
	house->routes = door_routes_new(1);
	for (uint32_t i = 0; i < n; i++) {
		const struct endpoint target = endpoint_from_v4(INADDR_LOOPBACK, ports[i]);
		assert(door_routes_add_place(house->routes, &rule, door_places_get(places, "*.example.org", i ? "bob" : "alice",
										   &target, true)) == 0);
	}
	door_udp_set_routes(house->udp, house->routes);
	door_routes_free(before);
}

/* With a header in front, that says so; len 0: with nothing behind it. */
static void hears_with_header(const struct house *house, int fd, int visitor, const void *wanted, size_t len,
			      struct sockaddr_in *ret_from)
{
	struct sockaddr_in own;
	socklen_t own_len = sizeof(own), from_len = sizeof(*ret_from);
	struct proxy_header header;
	size_t header_len;

	const ssize_t n = recvfrom(fd, got, sizeof(got), 0, (struct sockaddr *)ret_from, ret_from ? &from_len : NULL);
	assert(getsockname(visitor, (struct sockaddr *)&own, &own_len) == 0);
	assert(n > 0 && proxy_v2_decode(got, (size_t)n, &header, &header_len) == 0);
	assert((size_t)n == header_len + len && memcmp(got + header_len, wanted, len) == 0);
	assert(header.is_datagram && header.scheme == PROXY_HTTPS && header.n_doors == 1);
	assert(header.authority.len == 15 && memcmp(header.authority.at, "app.example.org", 15) == 0);
	const struct endpoint wanted_source = endpoint_from_v4(INADDR_LOOPBACK, ntohs(own.sin_port));
	const struct endpoint wanted_destination = endpoint_from_v4(INADDR_LOOPBACK, house->port);
	assert(endpoint_equal(&header.source, &wanted_source) && endpoint_equal(&header.destination, &wanted_destination));
}

static void test_a_member_gets_each_datagram_behind_a_header_and_is_told_of_the_end(void)
{
	static const char known[] = "\x40" "server-a" "request";
	struct door_places places = { 0 };
	struct sockaddr_in from, moved_from;
	struct house house;
	size_t len;

	open_house(&house);
	set_members(&house, &places, &house.server_port, 1);
	len = make_hello("app.example.org", "firstone", 0, 1);
	say(house.visitor, bytes, len);
	AWAIT(&house, c.led == 1);
	hears_with_header(&house, house.server, house.visitor, bytes, len, &from);
	assert(sendto(house.server, HANDSHAKE, sizeof(HANDSHAKE), 0, (struct sockaddr *)&from, sizeof(from)) > 0);
	AWAIT(&house, c.datagrams_out == 1);
	hears(house.visitor, HANDSHAKE, sizeof(HANDSHAKE), NULL); /* as it is */
	say(house.visitor, HANDSHAKE_BACK, sizeof(HANDSHAKE_BACK));
	AWAIT(&house, c.proven_now == 1);
	hears_with_header(&house, house.server, house.visitor, HANDSHAKE_BACK, sizeof(HANDSHAKE_BACK), NULL);

	len = 3 * 1200 + 7;
	for (size_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)(i % 1200 == 0 ? 0x40 : i / 1200 + i);
	send_train(house.visitor, NULL, len, 1200);
	AWAIT(&house, c.datagrams_in == 6);
	for (size_t at = 0; at < len; at += 1200)
		hears_with_header(&house, house.server, house.visitor, bytes + at, len - at < 1200 ? len - at : 1200, NULL);

	set_members(&house, &places, NULL, 0); /* who is led stays, also from elsewhere */
	const int moved = visitor_of(&house, "127.0.0.1");
	say(moved, known, sizeof(known));
	AWAIT(&house, c.moved == 1);
	hears_with_header(&house, house.server, moved, known, sizeof(known), &moved_from);
	assert(moved_from.sin_port != from.sin_port);
	door_udp_free(house.udp);
	house.udp = NULL;
	for (int i = 0; i < 2; i++) {
		struct sockaddr_in ended;
		socklen_t ended_len = sizeof(ended);
		assert(recvfrom(house.server, got, sizeof(got), MSG_PEEK, (struct sockaddr *)&ended, &ended_len) > 0);
		hears_with_header(&house, house.server, ended.sin_port == from.sin_port ? house.visitor : moved, "", 0, NULL);
	}
	assert(hears_nothing(house.server));
	close(moved);
	close_house(&house);
	door_places_deinit(&places);
}

static void test_a_member_is_told_of_a_visitor_by_ipv6(void)
{
	struct sockaddr_in6 door = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT }, own;
	const int visitor = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	socklen_t own_len = sizeof(own);
	struct door_places places = { 0 };
	struct proxy_header header;
	struct house house;
	size_t header_len;

	open_house(&house);
	set_members(&house, &places, &house.server_port, 1);
	door.sin6_port = htons(house.port);
	if (visitor >= 0 && connect(visitor, (struct sockaddr *)&door, sizeof(door)) == 0) { /* not a machine without IPv6 */
		assert(getsockname(visitor, (struct sockaddr *)&own, &own_len) == 0);
		const size_t len = make_hello("app.example.org", "firstone", 0, 1);
		say(visitor, bytes, len);
		AWAIT(&house, c.led == 1);
		const ssize_t n = recv(house.server, got, sizeof(got), 0);
		assert(n > 0 && proxy_v2_decode(got, (size_t)n, &header, &header_len) == 0);
		assert((size_t)n == header_len + len && memcmp(got + header_len, bytes, len) == 0);
		struct endpoint wanted = endpoint_from_sockaddr((struct sockaddr *)&own);
		assert(endpoint_equal(&header.source, &wanted));
		wanted = endpoint_from_sockaddr((struct sockaddr *)&door);
		assert(endpoint_equal(&header.destination, &wanted));
	}
	close(visitor);
	close_house(&house);
	door_places_deinit(&places);
}

static void test_members_with_one_host_share_its_visitors(void)
{
	struct door_places places = { 0 };
	struct house house;
	uint16_t ports[2];

	open_house(&house);
	const int other = bound("127.0.0.1", &ports[1]);
	ports[0] = house.server_port;
	set_members(&house, &places, ports, 2);
	for (int i = 0; i < 4; i++) {
		char id[] = "firston0";
		id[7] = (char)('0' + i);
		say(house.visitor, bytes, make_hello("app.example.org", id, 0, 1));
	}
	AWAIT(&house, c.led == 4);
	for (int i = 0; i < 2; i++)
		assert(recv(house.server, got, sizeof(got), 0) > 0 && recv(other, got, sizeof(got), 0) > 0);
	assert(hears_nothing(house.server) && hears_nothing(other));
	close(other);
	close_house(&house);
	door_places_deinit(&places);
}

static void test_a_member_that_does_not_answer_by_quic_is_passed_over_while_others_do(void)
{
	struct door_places places = { 0 };
	struct house house;
	uint16_t ports[2];

	open_house_of(&house, 300);
	const int quiet = bound("127.0.0.1", &ports[0]);
	ports[1] = house.server_port;
	set_members(&house, &places, ports, 1);
	say(house.visitor, bytes, make_hello("app.example.org", "firstone", 0, 1));
	AWAIT(&house, c.led == 1 && c.flows_now == 0);
	assert(recv(quiet, got, sizeof(got), 0) > 0 && recv(quiet, got, sizeof(got), 0) > 0); /* and its end */
	set_members(&house, &places, ports, 2);
	for (uint64_t i = 0; i < 3; i++) {
		say(house.visitor, bytes, make_hello("app.example.org", i == 0 ? "secondid" : i == 1 ? "third_id" : "fourthid", 0, 1));
		AWAIT(&house, c.led == i + 2);
	}
	assert(hears_nothing(quiet));
	close(quiet);
	close_house(&house);
	door_places_deinit(&places);
}

static void test_a_member_that_answers_by_quic_is_not_passed_over_for_a_visitor_whom_it_does_not_allow(void)
{
	struct door_places places = { 0 };
	struct sockaddr_in from;
	struct house house;

	open_house_of(&house, 300);
	set_members(&house, &places, &house.server_port, 1);
	const struct endpoint target = endpoint_from_v4(INADDR_LOOPBACK, house.server_port);
	const struct door_place *place = door_places_get(&places, "*.example.org", "alice", &target, true);
	say(house.visitor, bytes, make_hello("app.example.org", "firstone", 0, 1));
	AWAIT(&house, c.led == 1 && c.flows_now == 0);
	assert(place->without_quic_until_ms > 0);
	assert(recv(house.server, got, sizeof(got), 0) > 0 && recv(house.server, got, sizeof(got), 0) > 0); /* and its end */

	say(house.visitor, bytes, make_hello("app.example.org", "secondid", 0, 1));
	const size_t len = make_hello("app.example.org", "third_id", 0, 1);
	say(house.visitor, bytes, len);
	AWAIT(&house, c.led == 3);
	assert(recv(house.server, got, sizeof(got), 0) > 0);
	hears_with_header(&house, house.server, house.visitor, bytes, len, &from);
	assert(sendto(house.server, HANDSHAKE, sizeof(HANDSHAKE), 0, (struct sockaddr *)&from, sizeof(from)) > 0);
	AWAIT(&house, c.datagrams_out == 1);
	assert(place->without_quic_until_ms == 0);
	AWAIT(&house, c.flows_now == 1);
	assert(place->without_quic_until_ms == 0);
	close_house(&house);
	door_places_deinit(&places);
}

static void test_a_member_that_refuses_quic_is_passed_over_while_others_have_it(void)
{
	struct door_places places = { 0 };
	struct house house;
	uint16_t ports[2];

	open_house(&house);
	ports[0] = house.server_port;
	const int gone = bound("127.0.0.1", &ports[1]);
	close(gone);
	set_members(&house, &places, ports, 2);
	for (uint64_t i = 0; i < 4; i++) { /* of the first two one is refused */
		char id[] = "firston0";
		id[7] = (char)('0' + i);
		say(house.visitor, bytes, make_hello("app.example.org", id, 0, 1));
		AWAIT(&house, c.led == i + 1);
		if (i == 1)
			AWAIT(&house, c.unreachable == 1);
	}
	for (int i = 0; i < 3; i++)
		assert(recv(house.server, got, sizeof(got), 0) > 0);
	set_members(&house, &places, ports + 1, 1); /* alone it is asked all the same */
	say(house.visitor, bytes, make_hello("app.example.org", "lastone0", 0, 1));
	AWAIT(&house, c.led == 5 && c.unreachable == 2);
	close_house(&house);
	door_places_deinit(&places);
}

/* A second descriptor of the door's socket towards that port, as a child has that is being forked. */
static int hold_socket_towards(uint16_t port)
{
	for (int fd = 3; fd < 256; fd++) {
		struct sockaddr_in peer = { 0 };
		socklen_t len = sizeof(peer);
		if (getpeername(fd, (struct sockaddr *)&peer, &len) == 0 && peer.sin_family == AF_INET &&
		    ntohs(peer.sin_port) == port)
			return dup(fd);
	}
	return -1;
}

static void test_a_path_that_is_over_is_heard_no_more_even_if_a_child_holds_its_socket(void)
{
	struct sockaddr_in from;
	struct house house;

	open_house(&house);
	const size_t len = make_hello("app.example.org", "firstone", 0, 1);
	say(house.visitor, bytes, len);
	AWAIT(&house, c.led == 1);
	hears(house.server, bytes, len, &from);
	const int held = hold_socket_towards(house.server_port);
	assert(held >= 0);
	close(house.server);
	say(house.visitor, bytes, len);
	AWAIT(&house, c.unreachable == 1 && c.flows_now == 0);
	struct sockaddr_in again = { .sin_family = AF_INET, .sin_port = htons(house.server_port) };
	house.server = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	assert(inet_pton(AF_INET, "127.0.0.1", &again.sin_addr) == 1);
	assert(bind(house.server, (struct sockaddr *)&again, sizeof(again)) == 0);
	assert(sendto(house.server, HANDSHAKE, sizeof(HANDSHAKE), 0, (struct sockaddr *)&from, sizeof(from)) > 0);
	struct pollfd waiting = { .fd = held, .events = POLLIN };
	assert(poll(&waiting, 1, AWAIT_MS) == 1); /* it is there, and is not the door's */
	while (door_udp_counters(house.udp).unknown_host == 0) {
		say(house.visitor, bytes, make_hello("other.example.org", "othertwo", 0, 1));
		turn(&house, 10);
	}
	close(held);
	close_house(&house);
}

static bool is_free(uint16_t port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port) };
	const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	const bool is_bound = bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0;

	assert(fd >= 0 && (is_bound || errno == EADDRINUSE));
	close(fd);
	return is_bound;
}

static void test_the_port_of_a_path_that_is_over_is_nobodys_while_answers_may_be_under_way(void)
{
	struct sockaddr_in first, second;
	struct house house;
	size_t len;

	open_house_of(&house, 1);
	len = make_hello("app.example.org", "firstone", 0, 1);
	say(house.visitor, bytes, len);
	AWAIT(&house, c.led == 1);
	hears(house.server, bytes, len, &first);
	AWAIT(&house, c.flows_now == 0 && c.ended_silent == 1);
	assert(!is_free(ntohs(first.sin_port)));
	/* His next, and others', is another; what comes late for the first one comes to none of them. */
	len = make_hello("app.example.org", "othertwo", 0, 1);
	say(house.visitor, bytes, len);
	AWAIT(&house, c.led == 2);
	hears(house.server, bytes, len, &second);
	assert(first.sin_port != second.sin_port);
	for (int i = 0; i < 100; i++)
		assert(sendto(house.server, HANDSHAKE, sizeof(HANDSHAKE), 0, (struct sockaddr *)&first, sizeof(first)) > 0);
	AWAIT(&house, c.flows_now == 0);
	assert(door_udp_counters(house.udp).datagrams_out == 0 && hears_nothing(house.visitor));
	for (int i = 0; !is_free(ntohs(first.sin_port)); i++) { /* without a path, too, its time comes */
		assert(i < AWAIT_MS / 10);
		turn(&house, 10);
	}
	close_house(&house);
}

static uint32_t n_descriptors(void)
{
	uint32_t n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void begin_paths(struct house *house, uint32_t n)
{
	const uint64_t led = door_udp_counters(house->udp).led;
	char id[9];

	for (uint32_t i = 0; i < n; i++) {
		snprintf(id, sizeof(id), "path%04u", (unsigned)(led + i) % 10000);
		say(house->visitor, bytes, make_hello("app.example.org", id, 0, 1));
		AWAIT(house, c.led == led + i + 1);
	}
}

static void test_paths_that_are_over_take_no_descriptors_from_those_that_begin(void)
{
	struct quic_flows_options options = door_udp_defaults(1024);
	const uint32_t outside = n_descriptors();
	struct house house;

	options.max_flows = options.max_source = QUIC_PATHS_OF_ONE;
	options.times.asked_ms = 300;
	open_house_with(&house, &options);
	const uint32_t before = n_descriptors();
	begin_paths(&house, QUIC_PATHS_OF_ONE);
	AWAIT(&house, c.flows_now == 0);
	assert(n_descriptors() == before + QUIC_PATHS_OF_ONE); /* all rest */
	begin_paths(&house, QUIC_PATHS_OF_ONE);
	assert(n_descriptors() == before + QUIC_PATHS_OF_ONE);
	assert(door_udp_counters(house.udp).over_limit == 0);
	close_house(&house);
	assert(n_descriptors() == outside);
}

/* No descriptor more is to be had; ret: what the limit was. */
static void take_all_descriptors(struct rlimit *ret)
{
	int highest = 0;

	for (int fd = 0; fd < 256; fd++)
		highest = fcntl(fd, F_GETFD) >= 0 ? fd : highest;
	assert(getrlimit(RLIMIT_NOFILE, ret) == 0);
	const struct rlimit limit = { .rlim_cur = (rlim_t)highest + 1, .rlim_max = ret->rlim_max };
	assert(setrlimit(RLIMIT_NOFILE, &limit) == 0);
	while (dup(STDERR_FILENO) >= 0)
		;
}

static uint16_t hears_from(int fd)
{
	struct sockaddr_in from;
	socklen_t len = sizeof(from);

	assert(recvfrom(fd, got, sizeof(got), 0, (struct sockaddr *)&from, &len) > 0);
	return ntohs(from.sin_port);
}

static void test_for_want_of_a_descriptor_one_path_that_is_over_makes_room(void)
{
	uint16_t ports[5];
	struct rlimit before;
	struct house house;

	open_house_of(&house, 300);
	begin_paths(&house, 5);
	for (int i = 0; i < 5; i++)
		ports[i] = hears_from(house.server);
	AWAIT(&house, c.flows_now == 0);
	take_all_descriptors(&before);
	const uint32_t n = n_descriptors();
	begin_paths(&house, 1);
	assert(n_descriptors() == n && door_udp_counters(house.udp).no_descriptors == 0);
	assert(setrlimit(RLIMIT_NOFILE, &before) == 0);
	for (int i = 1; i < 5; i++)
		assert(!is_free(ports[i]));
	close_house(&house);
}

static void test_other_versions_are_told_which_there_are(void)
{
	static const uint8_t question[1200] = "\xc0\x1a\x2a\x3a\x4a\x08" "firstone" "\x04" "self";
	static const uint8_t answer[] = "\0\0\0\0\x04" "self" "\x08" "firstone" "\0\0\0\1" "\x6b\x33\x43\xcf";
	struct house house;

	open_house(&house);
	say(house.visitor, question, sizeof(question));
	AWAIT(&house, c.negotiated == 1);
	const ssize_t n = recv(house.visitor, got, sizeof(got), 0);
	assert(n == (ssize_t)sizeof(answer) && got[0] & 0x80 && memcmp(got + 1, answer, (size_t)n - 1) == 0);
	close_house(&house);
}

int main(void)
{
	assert(sodium_init() >= 0);
	test_datagrams_pass_both_ways_as_they_are();
	test_the_answer_leaves_by_the_address_that_was_asked();
	test_a_hello_in_pieces_arrives_in_its_order();
	test_trains_pass_with_their_boundaries();
	test_a_train_to_two_targets_is_parted();
	test_a_turn_takes_a_part_of_what_waits();
	test_who_comes_from_elsewhere_is_seen_to();
	test_routes_that_are_replaced_are_for_who_comes();
	test_what_cannot_be_served_gets_no_answer();
	test_a_path_that_is_over_is_heard_no_more_even_if_a_child_holds_its_socket();
	test_the_port_of_a_path_that_is_over_is_nobodys_while_answers_may_be_under_way();
	test_paths_that_are_over_take_no_descriptors_from_those_that_begin();
	test_for_want_of_a_descriptor_one_path_that_is_over_makes_room();
	test_other_versions_are_told_which_there_are();
	test_a_member_gets_each_datagram_behind_a_header_and_is_told_of_the_end();
	test_a_member_is_told_of_a_visitor_by_ipv6();
	test_members_with_one_host_share_its_visitors();
	test_a_member_that_does_not_answer_by_quic_is_passed_over_while_others_do();
	test_a_member_that_answers_by_quic_is_not_passed_over_for_a_visitor_whom_it_does_not_allow();
	test_a_member_that_refuses_quic_is_passed_over_while_others_have_it();
	return 0;
}
