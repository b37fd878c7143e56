/*
 * Ports that lead to a member each: opened and closed with the routes, and who comes there.
 *
 *   visitor ──► a port of the outer door ══ header v2 ══► inner door ──► server, which speaks first
 *
 * All on the loopback.
 */
#undef NDEBUG
#include "relay/frontdoor/front_door.h"
#include "relay/frontdoor/proxy_header_wire.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define AWAIT_MS 10000

struct house {
	uv_loop_t loop;
	struct front_door *outer, *inner;
	enum port_kind kind;
	uint16_t n_offered; /* ports behind the first; set before it is opened */
	bool is_everywhere; /* the outer door listens at all addresses, IPv6 too; set before it is opened */
	int server; /* listens */
	uint16_t server_port, port, other_port; /* of the outer door */
	struct door_gate *gate;
	int n_told, n_stopped;
};

#define AWAIT(condition)                                                            \
	for (int i_ = 0; !(condition); i_++) {                                      \
		assert(i_ < AWAIT_MS);                                              \
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);          \
	}

static int socket_at(int kind, uint16_t port, uint16_t *ret_port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port) };
	socklen_t len = sizeof(address);
	const int fd = socket(AF_INET, kind | SOCK_CLOEXEC, 0);

	assert(bind(fd, (struct sockaddr *)&address, len) == 0);
	assert(getsockname(fd, (struct sockaddr *)&address, &len) == 0);
	*ret_port = ntohs(address.sin_port);
	return fd;
}

/* One that nobody has; another program could take it before we do. */
static uint16_t free_port(enum port_kind kind)
{
	uint16_t port;

	close(socket_at(kind == PORT_TCP ? SOCK_STREAM : SOCK_DGRAM, 0, &port));
	return port;
}

static int connect_by(int kind, uint16_t port)
{
	const struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port) };
	const struct timeval limit = { .tv_sec = AWAIT_MS / 1000 };
	const int fd = socket(AF_INET, kind | SOCK_CLOEXEC, 0);

	assert(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) == 0);
	if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	close(fd);
	return -1;
}

static int connect_to(uint16_t port)
{
	return connect_by(SOCK_STREAM, port);
}

static bool is_open(uint16_t port)
{
	const int fd = connect_to(port);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

/* ---- what is built ---- */

static void free_gate(struct door_gate *gate)
{
	free(gate);
}

static void add_port(struct door_routes *routes, enum port_kind kind, uint16_t number, const struct endpoint *target, enum door_header header,
		     struct door_gate *gate)
{
	const struct port_name name = { .kind = kind, .number = number };
	struct door_rule rule;
	char text[PORT_NAME_TEXT];

	port_name_print(&name, text);
	assert(door_rule_parse_host(text, strlen(text), &rule, NULL) == 0);
	rule.header = header;
	rule.gate = gate;
	assert(door_routes_add(routes, &rule, target) == 0);
}

static struct endpoint inner_of(const struct house *house)
{
	return endpoint_from_v4(INADDR_LOOPBACK, front_door_port(house->inner, 0));
}

static void set_ports(struct house *house, const uint16_t *ports, uint32_t n)
{
	const struct endpoint inner = inner_of(house);
	struct door_routes *routes = door_routes_new(n);

	for (uint32_t i = 0; i < n; i++)
		add_port(routes, house->kind, ports[i], &inner, DOOR_HEADER_V2, NULL);
	const uint64_t before = front_door_counters(house->outer).routes_taken;
	front_door_set_routes_take(house->outer, routes);
	AWAIT(front_door_counters(house->outer).routes_taken > before);
}

static void on_changed(void *owner)
{
	((struct house *)owner)->n_told++;
}

static struct front_door *open_door(struct house *house, struct front_door_options options, struct door_routes *routes)
{
	struct front_door *door;
	struct error error;

	if (options.n_listen == 0) {
		options.n_listen = 1;
		options.listen[0] = endpoint_from_v4(INADDR_LOOPBACK, 0);
	}
	assert(front_door_start(&house->loop, &options, routes, &door, &error) == 0);
	AWAIT(front_door_counters(door).routes_taken == 1);
	return door;
}

static void open_house_of(struct house *house, enum port_kind kind, enum door_header header,
			  bool (*allows)(const struct door_gate *gate, const struct endpoint *visitor))
{
	const struct endpoint from = endpoint_from_v4(INADDR_LOOPBACK, 0);
	struct front_door_options outer = { .ports_changed = on_changed, .ports_owner = house };
	struct door_routes *routes = door_routes_new(1);

	*house = (struct house){ .kind = kind, .port = free_port(kind), .n_offered = house->n_offered,
				 .is_everywhere = house->is_everywhere };
	while (house->port + house->n_offered > UINT16_MAX)
		house->port = free_port(kind);
	do {
		house->other_port = free_port(kind);
	} while (house->other_port == house->port);
	house->server = socket_at(kind == PORT_TCP ? SOCK_STREAM : SOCK_DGRAM, 0, &house->server_port);
	assert(kind == PORT_UDP || listen(house->server, 16) == 0);
	assert(uv_loop_init(&house->loop) == 0);
	house->gate = calloc(1, sizeof(*house->gate));
	assert(house->gate);
	house->gate->free = free_gate;
	house->gate->allows = allows;
	door_gate_init(house->gate);
	const struct endpoint server = endpoint_from_v4(INADDR_LOOPBACK, house->server_port);
	add_port(routes, kind, house->port, &server, header, house->gate);
	door_routes_set_doors(routes, &from, 1);
	house->inner = open_door(house, (struct front_door_options){ .takes_header = true }, routes);
	struct port_ranges *ranges = kind == PORT_TCP ? &outer.tcp_ports : &outer.udp_ports;
	ranges->n = 1;
	ranges->items[0].first = house->port;
	ranges->items[0].last = (uint16_t)(house->port + house->n_offered);
	if (house->is_everywhere)
		outer.n_listen = 1; /* "::" */
	house->outer = open_door(house, outer, door_routes_new(0));
}

static void open_house(struct house *house)
{
	open_house_of(house, PORT_TCP, DOOR_NO_HEADER, NULL);
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
	close(house->server);
}

static void serve(const struct house *house)
{
	const int fd = accept(house->server, NULL, NULL);

	assert(fd >= 0 && send(fd, "hello", 5, 0) == 5);
	close(fd);
}

/* ---- the rules ---- */

static void test_a_port_is_open_while_the_routes_have_it(void)
{
	struct house house = { 0 };
	struct port_states states;
	char bytes[8];

	open_house(&house);
	assert(!is_open(house.port));
	set_ports(&house, &house.port, 1);
	const int visitor = connect_to(house.port);
	assert(visitor >= 0);
	serve(&house); /* before the visitor has said anything */
	assert(recv(visitor, bytes, sizeof(bytes), MSG_WAITALL) == 5 && memcmp(bytes, "hello", 5) == 0);
	close(visitor);
	AWAIT(door_gate_counters(house.gate).visitors == 1 && door_gate_counters(house.gate).visitors_now == 0);
	assert(front_door_counters(house.outer).routed[SNIFFER_TCP] == 1);
	front_door_ports(house.outer, &states);
	assert(states.n == 1 && states.items[0].error == 0 && states.items[0].name.number == house.port);
	AWAIT(uv_run(&house.loop, UV_RUN_NOWAIT) && house.n_told == 1);
	set_ports(&house, NULL, 0);
	assert(!is_open(house.port));
	front_door_ports(house.outer, &states);
	assert(states.n == 0);
	AWAIT(uv_run(&house.loop, UV_RUN_NOWAIT) && house.n_told == 2);
	close_house(&house);
}

static void test_a_port_that_its_operator_does_not_offer_stays_closed(void)
{
	struct house house = { 0 };
	struct port_states states;

	open_house(&house);
	set_ports(&house, &house.other_port, 1);
	assert(!is_open(house.other_port));
	front_door_ports(house.outer, &states);
	assert(states.n == 0);
	close_house(&house);
}

static void test_a_port_that_another_program_has_is_told_and_harms_no_other(void)
{
	struct house house = { 0 };
	struct port_states states;
	uint16_t port;

	open_house(&house);
	const int other = socket_at(SOCK_STREAM, house.port, &port);
	assert(listen(other, 1) == 0);
	set_ports(&house, &house.port, 1);
	front_door_ports(house.outer, &states);
	assert(states.n == 1 && states.items[0].error == -EADDRINUSE);
	set_ports(&house, NULL, 0);
	close(other);
	set_ports(&house, &house.port, 1);
	front_door_ports(house.outer, &states);
	assert(states.n == 1 && states.items[0].error == 0);
	assert(is_open(house.port));
	close_house(&house);
}

static void test_who_is_there_stays_when_its_port_is_closed(void)
{
	struct house house = { 0 };
	char bytes[8];

	open_house(&house);
	set_ports(&house, &house.port, 1);
	const int visitor = connect_to(house.port);
	assert(visitor >= 0);
	const int fd = accept(house.server, NULL, NULL);
	assert(fd >= 0);
	set_ports(&house, NULL, 0);
	assert(!is_open(house.port));
	assert(send(visitor, "still", 5, 0) == 5 && recv(fd, bytes, 5, MSG_WAITALL) == 5);
	close(visitor);
	close(fd);
	close_house(&house);
}

static void test_what_is_open_is_told_before_that_for_which_there_is_no_place(void)
{
	struct house house = { .n_offered = 400 };
	struct port_states states;
	uint16_t ports[400];
	uint32_t n_open = 0;

	open_house(&house);
	for (uint16_t i = 0; i < 400; i++)
		ports[i] = (uint16_t)(house.port + i);
	set_ports(&house, ports, 400);
	front_door_ports(house.outer, &states);
	assert(states.n == DOOR_MAX_PORTS);
	for (uint32_t i = 0; i < states.n; i++)
		n_open += states.items[i].error != -ENOSPC;
	assert(n_open == DOOR_MAX_PORTS / 2);
	close_house(&house);
}

/* ---- of UDP ---- */

static ssize_t receive(int fd, void *bytes, size_t size, struct sockaddr_in *from)
{
	const struct timeval limit = { .tv_sec = AWAIT_MS / 1000 };
	socklen_t len = sizeof(*from);

	assert(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) == 0);
	return recvfrom(fd, bytes, size, 0, (struct sockaddr *)from, &len);
}

static void test_datagrams_go_to_the_member_and_answers_back_while_the_routes_have_the_port(void)
{
	struct house house = { 0 };
	struct sockaddr_in from;
	struct port_states states;
	char bytes[2000] = { 0 };

	open_house_of(&house, PORT_UDP, DOOR_NO_HEADER, NULL);
	set_ports(&house, &house.port, 1);
	front_door_ports(house.outer, &states);
	assert(states.n == 1 && states.items[0].error == 0 && states.items[0].name.kind == PORT_UDP);
	const int one = connect_by(SOCK_DGRAM, house.port), other = connect_by(SOCK_DGRAM, house.port);
	for (int i = 0; i < 3; i++) {
		assert(send(one, "one", 3, 0) == 3 && receive(house.server, bytes, sizeof(bytes), &from) == 3);
		assert(memcmp(bytes, "one", 3) == 0 && sendto(house.server, "1", 1, 0, (struct sockaddr *)&from, sizeof(from)) == 1);
		assert(send(other, bytes, sizeof(bytes), 0) == sizeof(bytes));
		assert(receive(house.server, bytes, sizeof(bytes), &from) == sizeof(bytes));
		assert(sendto(house.server, "2", 1, 0, (struct sockaddr *)&from, sizeof(from)) == 1);
		assert(recv(one, bytes, sizeof(bytes), 0) == 1 && bytes[0] == '1');
		assert(recv(other, bytes, sizeof(bytes), 0) == 1 && bytes[0] == '2');
	}
	const struct door_gate_counters gate = door_gate_counters(house.gate);
	assert(gate.visitors == 2 && gate.visitors_now == 2 && gate.bytes_in == 3 * 2003 && gate.bytes_out == 6);
	assert(gate.state == DOOR_TARGET_UP);
	AWAIT(front_door_counters(house.outer).datagrams.datagrams_out == 6);
	assert(front_door_counters(house.outer).datagrams.flows_now == 2);
	assert(front_door_counters(house.inner).datagrams.flows_now == 2);
	set_ports(&house, NULL, 0);
	assert(front_door_counters(house.outer).datagrams.flows_now == 0);
	AWAIT(front_door_counters(house.inner).datagrams.flows_now == 0); /* it was told: the ports there may soon be others' */
	assert(front_door_counters(house.inner).datagrams.bad_header == 0);
	assert(send(one, "one", 3, 0) == 3 && recv(one, bytes, sizeof(bytes), 0) == -1 && errno == ECONNREFUSED);
	close(one);
	close(other);
	close_house(&house);
}

static void test_each_datagram_says_who_the_visitor_is_if_its_target_wants_to_know(void)
{
	struct house house = { 0 };
	struct sockaddr_in from, own;
	struct proxy_header header;
	socklen_t own_len = sizeof(own);
	char bytes[500];
	size_t len;

	open_house_of(&house, PORT_UDP, DOOR_HEADER_V2, NULL);
	set_ports(&house, &house.port, 1);
	const int visitor = connect_by(SOCK_DGRAM, house.port);
	assert(getsockname(visitor, (struct sockaddr *)&own, &own_len) == 0);
	for (int i = 0; i < 2; i++) {
		assert(send(visitor, "hello", 5, 0) == 5);
		const ssize_t n = receive(house.server, bytes, sizeof(bytes), &from);
		assert(n > 5 && proxy_v2_decode((const uint8_t *)bytes, (size_t)n, &header, &len) == 0);
		assert((size_t)n == len + 5 && memcmp(bytes + len, "hello", 5) == 0);
		assert(header.is_datagram && header.scheme == PROXY_UDP && header.n_doors == 2);
		assert(header.source.port == ntohs(own.sin_port) && header.destination.port == house.port);
	}
	close(visitor);
	close_house(&house);
}

static bool allows_nobody(const struct door_gate *gate, const struct endpoint *visitor)
{
	(void)gate;
	(void)visitor;
	return false;
}

static void test_who_may_not_come_by_udp_is_counted_and_not_heard(void)
{
	struct house house = { 0 };

	open_house_of(&house, PORT_UDP, DOOR_NO_HEADER, allows_nobody);
	set_ports(&house, &house.port, 1);
	const int visitor = connect_by(SOCK_DGRAM, house.port);
	assert(send(visitor, "hello", 5, 0) == 5 && send(visitor, "hello", 5, 0) == 5);
	AWAIT(front_door_counters(house.inner).datagrams.not_allowed == 2);
	assert(front_door_counters(house.inner).datagrams.flows_now == 0 && door_gate_counters(house.gate).visitors == 0);
	close(visitor);
	close_house(&house);
}

static void test_only_doors_bring_datagrams_and_only_with_a_header(void)
{
	struct house house = { 0 };
	struct sockaddr_in stranger = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1) };
	uint8_t bytes[200];

	open_house_of(&house, PORT_UDP, DOOR_NO_HEADER, NULL);
	const uint16_t port = front_door_port(house.inner, 0);
	const struct sockaddr_in inner = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port) };
	const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), door = connect_by(SOCK_DGRAM, port);
	assert(bind(fd, (struct sockaddr *)&stranger, sizeof(stranger)) == 0);
	assert(sendto(fd, "hello", 5, 0, (const struct sockaddr *)&inner, sizeof(inner)) == 5);
	AWAIT(front_door_counters(house.inner).datagrams.no_door == 1);
	struct proxy_header header = { .has_addresses = true,
				       .is_datagram = true,
				       .source = endpoint_from_v4(0xc6336407, 7),
				       .destination = endpoint_from_v4(0xc6336401, 53),
				       .authority = { (const uint8_t *)"udp:1/7", 7 },
				       .scheme = PROXY_UDP,
				       .n_doors = 1 };
	assert(send(door, "hello", 5, 0) == 5);
	size_t n = proxy_v2_encode(&header, bytes, sizeof(bytes));
	assert(send(door, bytes, n + 1, 0) == (ssize_t)n + 1);
	header.authority.len = 5;
	n = proxy_v2_encode(&header, bytes, sizeof(bytes));
	assert(send(door, bytes, n, 0) == (ssize_t)n); /* the end of one that there is not */
	AWAIT(front_door_counters(house.inner).datagrams.bad_header == 2);
	assert(send(door, bytes, n + 1, 0) == (ssize_t)n + 1);
	AWAIT(front_door_counters(house.inner).datagrams.unknown_port == 1);
	header.n_doors = 2;
	n = proxy_v2_encode(&header, bytes, sizeof(bytes));
	assert(send(door, bytes, n + 1, 0) == (ssize_t)n + 1);
	AWAIT(front_door_counters(house.inner).datagrams.in_a_ring == 1);
	close(fd);
	close(door);
	close_house(&house);
}

/* ---- QUIC for hosts, as a door brings it ---- */

static void add_host(struct door_routes *routes, const struct house *house, const char *host, struct door_rule how)
{
	const struct endpoint server = endpoint_from_v4(INADDR_LOOPBACK, house->server_port);
	struct door_rule rule;

	assert(door_rule_parse_host(host, strlen(host), &rule, NULL) == 0);
	rule.header = how.header;
	rule.gate = how.gate;
	rule.sink = how.sink;
	rule.is_without_quic = how.is_without_quic;
	assert(door_routes_add(routes, &rule, &server) == 0);
}

static void set_hosts(struct house *house, bool has_any)
{
	static struct door_sink sink;
	const struct endpoint from = endpoint_from_v4(INADDR_LOOPBACK, 0);
	struct door_routes *routes = door_routes_new(6);

	if (has_any) {
		add_host(routes, house, "https://*.demo", (struct door_rule){ .gate = house->gate });
		add_host(routes, house, "https://no.demo", (struct door_rule){ .gate = house->gate, .is_without_quic = true });
		add_host(routes, house, "https://told.demo", (struct door_rule){ .gate = house->gate, .header = DOOR_HEADER_V2 });
		add_host(routes, house, "https://ends.demo", (struct door_rule){ .gate = house->gate, .sink = &sink });
		add_host(routes, house, "http://plain.demo", (struct door_rule){ .gate = house->gate });
	}
	door_routes_set_doors(routes, &from, 1);
	const uint64_t before = front_door_counters(house->inner).routes_taken;
	front_door_set_routes_take(house->inner, routes);
	AWAIT(front_door_counters(house->inner).routes_taken > before);
}

static void bring(int door, const char *host, enum proxy_scheme scheme, uint16_t visitor, const char *said)
{
	uint8_t bytes[300];
	const struct proxy_header header = { .has_addresses = true,
					     .is_datagram = true,
					     .source = endpoint_from_v4(0xc6336407, visitor),
					     .destination = endpoint_from_v4(0xc6336401, 443),
					     .authority = { (const uint8_t *)host, strlen(host) },
					     .scheme = scheme,
					     .n_doors = 1 };
	const size_t n = proxy_v2_encode(&header, bytes, 200);

	assert(n > 0);
	memcpy(bytes + n, said, strlen(said));
	assert(send(door, bytes, n + strlen(said), 0) == (ssize_t)(n + strlen(said)));
}

#define COUNTED(house) front_door_counters((house)->inner).datagrams

static void test_quic_of_a_host_goes_to_its_target_as_it_is(void)
{
	struct house house = { 0 };
	struct sockaddr_in one, other;
	uint16_t port;
	char bytes[10];

	open_house_of(&house, PORT_UDP, DOOR_NO_HEADER, NULL);
	set_hosts(&house, true);
	const int door = connect_by(SOCK_DGRAM, front_door_port(house.inner, 0));
	bring(door, "app.demo", PROXY_HTTPS, 7, "hello");
	assert(receive(house.server, bytes, sizeof(bytes), &one) == 5 && memcmp(bytes, "hello", 5) == 0);
	assert(sendto(house.server, "yes", 3, 0, (struct sockaddr *)&one, sizeof(one)) == 3);
	assert(recv(door, bytes, sizeof(bytes), 0) == 3);
	struct door_gate_counters gate = door_gate_counters(house.gate);
	assert(gate.visitors == 1 && gate.visitors_now == 1 && gate.bytes_in == 5 && gate.bytes_out == 3);

	/* The same socket of the door for another host: another flow. */
	bring(door, "b.demo", PROXY_HTTPS, 7, "hello");
	assert(receive(house.server, bytes, sizeof(bytes), &other) == 5);
	gate = door_gate_counters(house.gate);
	assert(gate.visitors == 2 && gate.visitors_now == 1 && COUNTED(&house).flows_now == 1);
	bring(door, "b.demo", PROXY_HTTPS, 7, ""); /* its end */
	AWAIT(COUNTED(&house).flows_now == 0);

	/* Whether the target is there is not told by it. */
	close(house.server);
	bring(door, "app.demo", PROXY_HTTPS, 8, "hello");
	AWAIT(COUNTED(&house).unreachable == 1);
	assert(door_gate_counters(house.gate).state == DOOR_TARGET_UNKNOWN && door_gate_counters(house.gate).unreachable == 0);
	house.server = socket_at(SOCK_DGRAM, house.server_port, &port);
	set_hosts(&house, false);
	AWAIT(COUNTED(&house).flows_now == 0);
	close(door);
	close_house(&house);
}

static void test_quic_is_refused_where_it_would_not_go_as_it_comes(void)
{
	static const char *const hosts[] = { "no.demo", "told.demo", "ends.demo" };
	struct house house = { 0 };
	char bytes[10];

	open_house_of(&house, PORT_UDP, DOOR_NO_HEADER, NULL);
	set_hosts(&house, true);
	const int door = connect_by(SOCK_DGRAM, front_door_port(house.inner, 0));
	for (uint64_t i = 0; i < 3; i++) {
		bring(door, hosts[i], PROXY_HTTPS, 7, "hello");
		AWAIT(COUNTED(&house).nobody_there == i + 1);
	}
	bring(door, "plain.demo", PROXY_HTTPS, 7, "hello");
	bring(door, "a.b.demo", PROXY_HTTPS, 7, "hello");
	AWAIT(COUNTED(&house).unknown_port == 2);
	bring(door, "app.demo", PROXY_HTTP, 7, "hello");
	bring(door, "app.demo", PROXY_UDP, 7, "hello");
	bring(door, "192.0.2.1", PROXY_HTTPS, 7, "hello");
	bring(door, "udp:53", PROXY_HTTPS, 7, "hello");
	AWAIT(COUNTED(&house).bad_header == 4);
	assert(COUNTED(&house).flows_now == 0 && recv(house.server, bytes, sizeof(bytes), MSG_DONTWAIT) < 0);
	close(door);
	close_house(&house);
}

static void test_that_nobody_takes_datagrams_is_known_until_they_are_answered(void)
{
	struct house house = { 0 };
	struct sockaddr_in from;
	uint16_t port;
	char bytes[10];

	open_house_of(&house, PORT_UDP, DOOR_NO_HEADER, NULL);
	set_ports(&house, &house.port, 1);
	close(house.server);
	const int visitor = connect_by(SOCK_DGRAM, house.port);
	assert(send(visitor, "hello", 5, 0) == 5);
	AWAIT(door_gate_counters(house.gate).state == DOOR_TARGET_DOWN);
	house.server = socket_at(SOCK_DGRAM, house.server_port, &port);
	assert(send(visitor, "hello", 5, 0) == 5 && receive(house.server, bytes, sizeof(bytes), &from) == 5);
	assert(sendto(house.server, "yes", 3, 0, (struct sockaddr *)&from, sizeof(from)) == 3);
	assert(recv(visitor, bytes, sizeof(bytes), 0) == 3 && door_gate_counters(house.gate).state == DOOR_TARGET_UP);
	close(visitor);
	close_house(&house);
}

static int connect_by_6(int kind, uint16_t port)
{
	const struct sockaddr_in6 address = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT, .sin6_port = htons(port) };
	const struct timeval limit = { .tv_sec = AWAIT_MS / 1000 };
	const int fd = socket(AF_INET6, kind | SOCK_CLOEXEC, 0);

	assert(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) == 0);
	assert(connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0);
	return fd;
}

static bool has_ipv6(void)
{
	const struct sockaddr_in6 address = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	const int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	const bool has = fd >= 0 && bind(fd, (const struct sockaddr *)&address, sizeof(address)) == 0;

	if (fd >= 0)
		close(fd);
	return has;
}

static void test_visitors_come_by_ipv6_and_ipv4_to_one_port(void)
{
	struct house house = { .is_everywhere = true };
	const struct in6_addr loopback6 = IN6ADDR_LOOPBACK_INIT;
	struct sockaddr_in from;
	struct proxy_header header;
	char bytes[500];
	size_t len;

	open_house_of(&house, PORT_UDP, DOOR_HEADER_V2, NULL);
	set_ports(&house, &house.port, 1);
	for (int is_6 = has_ipv6(); is_6 >= 0; is_6--) {
		const int visitor = is_6 ? connect_by_6(SOCK_DGRAM, house.port) : connect_by(SOCK_DGRAM, house.port);
		assert(send(visitor, "hello", 5, 0) == 5);
		const ssize_t n = receive(house.server, bytes, sizeof(bytes), &from);
		assert(n > 5 && proxy_v2_decode((const uint8_t *)bytes, (size_t)n, &header, &len) == 0);
		assert(endpoint_is_v4(&header.source) == !is_6 && endpoint_is_v4(&header.destination) == !is_6);
		assert(!is_6 || memcmp(header.source.ip, &loopback6, 16) == 0);
		assert(sendto(house.server, "yes", 3, 0, (struct sockaddr *)&from, sizeof(from)) == 3);
		assert(recv(visitor, bytes, sizeof(bytes), 0) == 3); /* connected: from the address that it asked */
		close(visitor);
	}
	close_house(&house);
	house = (struct house){ .is_everywhere = true };
	open_house_of(&house, PORT_TCP, DOOR_NO_HEADER, NULL);
	set_ports(&house, &house.port, 1);
	for (int is_6 = has_ipv6(); is_6 >= 0; is_6--) {
		const int visitor = is_6 ? connect_by_6(SOCK_STREAM, house.port) : connect_to(house.port);
		serve(&house);
		assert(recv(visitor, bytes, 5, MSG_WAITALL) == 5);
		close(visitor);
	}
	close_house(&house);
}

int main(void)
{
	assert(sodium_init() >= 0);
	test_a_port_is_open_while_the_routes_have_it();
	test_a_port_that_its_operator_does_not_offer_stays_closed();
	test_a_port_that_another_program_has_is_told_and_harms_no_other();
	test_who_is_there_stays_when_its_port_is_closed();
	test_what_is_open_is_told_before_that_for_which_there_is_no_place();
	test_datagrams_go_to_the_member_and_answers_back_while_the_routes_have_the_port();
	test_each_datagram_says_who_the_visitor_is_if_its_target_wants_to_know();
	test_who_may_not_come_by_udp_is_counted_and_not_heard();
	test_only_doors_bring_datagrams_and_only_with_a_header();
	test_that_nobody_takes_datagrams_is_known_until_they_are_answered();
	test_quic_of_a_host_goes_to_its_target_as_it_is();
	test_quic_is_refused_where_it_would_not_go_as_it_comes();
	test_visitors_come_by_ipv6_and_ipv4_to_one_port();
	puts("ok");
	return 0;
}
