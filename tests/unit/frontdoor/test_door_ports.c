/*
 * Ports that lead to a member each: opened and closed with the routes, and who comes there.
 *
 *   visitor ──► a port of the outer door ══ header v2 ══► inner door ──► server, which speaks first
 *
 * All on the loopback.
 */
#undef NDEBUG
#include "relay/frontdoor/front_door.h"

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
static uint16_t free_port(void)
{
	uint16_t port;

	close(socket_at(SOCK_STREAM, 0, &port));
	return port;
}

static int connect_to(uint16_t port)
{
	const struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port) };
	const struct timeval limit = { .tv_sec = AWAIT_MS / 1000 };
	const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) == 0);
	if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	close(fd);
	return -1;
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

static void add_port(struct door_routes *routes, uint16_t number, const struct endpoint *target, enum door_header header,
		     struct door_gate *gate)
{
	const struct port_name name = { .kind = PORT_TCP, .number = number };
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
		add_port(routes, ports[i], &inner, DOOR_HEADER_V2, NULL);
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

	options.n_listen = 1;
	options.listen[0] = endpoint_from_v4(INADDR_LOOPBACK, 0);
	assert(front_door_start(&house->loop, &options, routes, &door, &error) == 0);
	AWAIT(front_door_counters(door).routes_taken == 1);
	return door;
}

static void open_house(struct house *house)
{
	const struct endpoint from = endpoint_from_v4(INADDR_LOOPBACK, 0);
	struct front_door_options outer = { .ports_changed = on_changed, .ports_owner = house };
	struct door_routes *routes = door_routes_new(1);

	*house = (struct house){ .port = free_port() };
	do {
		house->other_port = free_port();
	} while (house->other_port == house->port);
	house->server = socket_at(SOCK_STREAM, 0, &house->server_port);
	assert(listen(house->server, 16) == 0);
	assert(uv_loop_init(&house->loop) == 0);
	house->gate = calloc(1, sizeof(*house->gate));
	assert(house->gate);
	house->gate->free = free_gate;
	door_gate_init(house->gate);
	const struct endpoint server = endpoint_from_v4(INADDR_LOOPBACK, house->server_port);
	add_port(routes, house->port, &server, DOOR_NO_HEADER, house->gate);
	door_routes_set_doors(routes, &from, 1);
	house->inner = open_door(house, (struct front_door_options){ .takes_header = true }, routes);
	outer.tcp_ports.n = 1;
	outer.tcp_ports.items[0].first = outer.tcp_ports.items[0].last = house->port;
	house->outer = open_door(house, outer, door_routes_new(0));
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
	struct house house;
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
	struct house house;
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
	struct house house;
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
	struct house house;
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

int main(void)
{
	assert(sodium_init() >= 0);
	test_a_port_is_open_while_the_routes_have_it();
	test_a_port_that_its_operator_does_not_offer_stays_closed();
	test_a_port_that_another_program_has_is_told_and_harms_no_other();
	test_who_is_there_stays_when_its_port_is_closed();
	puts("ok");
	return 0;
}
