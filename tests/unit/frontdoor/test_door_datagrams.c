/* Ports of UDP with real sockets: what comes late for a flow that is over is nobody's. */
#include "relay/frontdoor/door_datagrams.h"

#include "common/clock.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sodium.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_FLOWS 16

struct town {
	struct door_datagrams *datagrams;
	struct datagram_place *place;
	struct door_routes *routes;
	struct port_name name;
	int server;
	uint16_t server_port;
};

static int open_socket(uint16_t *port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(*port) };
	socklen_t len = sizeof(address);
	const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (bind(fd, (struct sockaddr *)&address, len) < 0) {
		assert(errno == EADDRINUSE);
		close(fd);
		return -1;
	}
	assert(getsockname(fd, (struct sockaddr *)&address, &len) == 0);
	*port = ntohs(address.sin_port);
	return fd;
}

static bool is_free(uint16_t port)
{
	const int fd = open_socket(&port);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

static void turn(struct town *town)
{
	struct pollfd wait = { .fd = door_datagrams_fd(town->datagrams), .events = POLLIN };
	struct watch *watch = door_datagrams_watch(town->datagrams);

	while (poll(&wait, 1, 20) == 1)
		watch->happened(watch, POLLIN);
}

static void send_to(int fd, uint16_t port, const char *text)
{
	const struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port) };

	assert(sendto(fd, text, strlen(text), 0, (const struct sockaddr *)&address, sizeof(address)) == (ssize_t)strlen(text));
}

/* Who sent it; 0: nothing is there. */
static uint16_t hear(int fd, const char *text)
{
	struct sockaddr_in from = { 0 };
	socklen_t len = sizeof(from);
	char heard[64];
	const ssize_t n = recvfrom(fd, heard, sizeof(heard), MSG_DONTWAIT, (struct sockaddr *)&from, &len);

	assert(n < 0 || ((size_t)n == strlen(text) && memcmp(heard, text, (size_t)n) == 0));
	return n < 0 ? 0 : ntohs(from.sin_port);
}

static void open_town(struct town *town)
{
	struct door_rule rule = { .takes[DOOR_UDP] = true };
	struct endpoint at, target;
	uint16_t port = 0;

	*town = (struct town){ .server = -1 };
	town->server = open_socket(&town->server_port);
	close(open_socket(&port)); /* free a moment ago */
	town->name = (struct port_name){ .kind = PORT_UDP, .number = port };
	at = endpoint_from_v4(INADDR_LOOPBACK, port);
	target = endpoint_from_v4(INADDR_LOOPBACK, town->server_port);
	port_name_to_host(&town->name, &rule.host.name);
	town->routes = door_routes_new(1);
	assert(door_routes_add(town->routes, &rule, &target) == 0);
	assert(door_datagrams_new(MAX_FLOWS, false, &town->datagrams) == 0);
	assert(door_datagrams_open(town->datagrams, &at, &town->name, &town->place) == 0);
	door_datagrams_set_routes(town->datagrams, town->routes);
}

static void close_town(struct town *town)
{
	door_datagrams_free(town->datagrams);
	door_routes_free(town->routes);
	close(town->server);
}

/* Its flow's port at the door, by which its server knows it. */
static uint16_t ask(struct town *town, int visitor)
{
	send_to(visitor, town->name.number, "question");
	turn(town);
	const uint16_t port = hear(town->server, "question");
	assert(port != 0);
	return port;
}

static void end_flows(struct town *town)
{
	door_datagrams_set_routes(town->datagrams, NULL);
	door_datagrams_set_routes(town->datagrams, town->routes);
	assert(door_datagrams_counters(town->datagrams).flows_now == 0);
}

static void test_the_port_of_a_flow_that_is_over_is_nobodys_while_answers_may_be_under_way(void)
{
	struct town town;
	uint16_t any = 0, other = 0;
	const int visitor = open_socket(&any), next = open_socket(&other);

	open_town(&town);
	const uint16_t port = ask(&town, visitor);
	send_to(town.server, port, "answer");
	turn(&town);
	assert(hear(visitor, "answer") == town.name.number);
	end_flows(&town);
	const uint64_t ended_ms = clock_now_ns() / 1000000;
	assert(!is_free(port));
	assert(ask(&town, next) != port);
	for (int i = 0; i < 1000; i++)
		send_to(town.server, port, "late");
	turn(&town);
	assert(hear(visitor, "") == 0 && hear(next, "") == 0);
	const uint64_t due_ms = door_datagrams_expire(town.datagrams, ended_ms + 1000);
	assert(due_ms > ended_ms + 1000 && due_ms <= ended_ms + 2000 && !is_free(port));
	(void)door_datagrams_expire(town.datagrams, due_ms);
	assert(is_free(port));
	close(visitor);
	close(next);
	close_town(&town);
}

static void test_flows_that_are_over_take_no_descriptors_from_those_that_begin(void)
{
	uint16_t ports[MAX_FLOWS];
	int visitors[MAX_FLOWS];
	struct town town;

	open_town(&town);
	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < MAX_FLOWS / 2; i++) { /* of one source no more are there */
			uint16_t any = 0;
			visitors[i] = open_socket(&any);
			ports[i] = ask(&town, visitors[i]);
		}
		for (int i = 0; i < MAX_FLOWS / 2; i++)
			close(visitors[i]);
		end_flows(&town);
	}
	uint16_t first = ports[0], any = 0;
	assert(!is_free(first));
	visitors[0] = open_socket(&any);
	(void)ask(&town, visitors[0]); /* one of the first round makes room */
	assert(!is_free(first));
	for (int i = 1; i < MAX_FLOWS / 2; i++)
		(void)ask(&town, visitors[i] = open_socket(&(uint16_t){ 0 }));
	assert(!is_free(first)); /* half of all are flows, half rest */
	end_flows(&town);
	door_datagrams_close(town.place);
	assert(!is_free(first));
	for (int i = 0; i < MAX_FLOWS / 2; i++)
		close(visitors[i]);
	close_town(&town);
	assert(is_free(first));
}

static void test_for_want_of_a_descriptor_one_flow_that_is_over_makes_room(void)
{
	uint16_t ports[4], any = 0;
	struct rlimit before;
	struct town town;
	int highest = 0;

	open_town(&town);
	for (int i = 0; i < 4; i++) {
		const int visitor = open_socket(&(uint16_t){ 0 });
		ports[i] = ask(&town, visitor);
		close(visitor);
	}
	end_flows(&town);
	const int next = open_socket(&any);
	for (int fd = 0; fd < 256; fd++)
		highest = fcntl(fd, F_GETFD) >= 0 ? fd : highest;
	assert(getrlimit(RLIMIT_NOFILE, &before) == 0);
	const struct rlimit limit = { .rlim_cur = (rlim_t)highest + 1, .rlim_max = before.rlim_max };
	assert(setrlimit(RLIMIT_NOFILE, &limit) == 0);
	while (dup(STDERR_FILENO) >= 0)
		;
	(void)ask(&town, next);
	assert(setrlimit(RLIMIT_NOFILE, &before) == 0);
	assert(door_datagrams_counters(town.datagrams).no_descriptors == 0);
	for (int i = 1; i < 4; i++)
		assert(!is_free(ports[i]));
	close(next);
	close_town(&town);
}

int main(void)
{
	if (sodium_init() < 0)
		return 1;
	test_the_port_of_a_flow_that_is_over_is_nobodys_while_answers_may_be_under_way();
	test_flows_that_are_over_take_no_descriptors_from_those_that_begin();
	test_for_want_of_a_descriptor_one_flow_that_is_over_makes_room();
	return 0;
}
