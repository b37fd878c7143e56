/*
 * One port for relay and front door: the door listens, and hands the relay's clients over, from its thread to the loop.
 * Real connections on loopback; members must not notice.
 */
#include "hello.h"
#include "relay/frontdoor/front_door.h"
#include "relay/frontdoor/hand_over.h"
#include "relay/public_node.h"
#include "world.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct gate {
	struct world w;
	struct front_door *door;
	struct public_node *node;
	struct endpoint place;
	bool node_stopped, door_stopped, refuses;
	bool serves_webgw;
	uint32_t n_dialled; /* handed over as such */
	int webgw_fds[2 * HAND_OVER_MAX_SOURCE]; /* handed over for its WebSocket */
	uint32_t n_webgw;
	bool has_other_port; /* a second place of the door, not the relay's */
	uint16_t server_port; /* of app.example.org; 0: nobody is there */
	uint32_t max_visitors, max_visitors_source; /* 0: the door's own */
};

/* For what the door's thread does by itself: the loop does not turn. */
#define AWAIT_THREAD(condition)                                                                             \
	do {                                                                                                \
		for (int i_ = 0; !(condition); i_++) {                                                      \
			EXPECT(i_ < AWAIT_MS);                                                              \
			nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);                          \
		}                                                                                           \
	} while (0)

static void on_stopped(void *owner)
{
	*(bool *)owner = true;
}

static void on_visitor(void *owner, enum door_whose whose, int fd, const struct endpoint *remote, const uint8_t *bytes, size_t n)
{
	struct gate *gate = owner;

	EXPECT(whose == DOOR_WHOSE_RELAY || gate->serves_webgw);
	if (whose == DOOR_WHOSE_WEBGW) {
		EXPECT(n == 0 && endpoint_is_loopback(remote) && gate->n_webgw < ARRAY_LEN(gate->webgw_fds));
		gate->webgw_fds[gate->n_webgw++] = fd;
		return;
	}
	gate->n_dialled += whose == DOOR_WHOSE_DIAL_BACK;
	if (gate->refuses || whose == DOOR_WHOSE_DIAL_BACK)
		close(fd);
	else
		public_node_take(gate->node, fd, remote, bytes, n);
}

static int listening_socket(uint16_t *ret_port)
{
	struct sockaddr_storage sockaddr = { 0 };
	const struct endpoint any = endpoint_from_v4(0x7f000001, 0);
	socklen_t len = endpoint_to_sockaddr(&any, &sockaddr);
	const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	EXPECT(fd >= 0 && bind(fd, (struct sockaddr *)&sockaddr, len) == 0 && listen(fd, 16) == 0);
	EXPECT(getsockname(fd, (struct sockaddr *)&sockaddr, &len) == 0);
	*ret_port = endpoint_from_sockaddr((struct sockaddr *)&sockaddr).port;
	return fd;
}

static struct door_routes *routes_of(const char *own, uint16_t server_port)
{
	struct door_routes *routes = door_routes_new(1);
	struct host_name name;
	struct door_rule rule;
	char line[64];

	EXPECT(host_name_from(own, strlen(own), &name) == 0);
	door_routes_set_own_name(routes, &name);
	snprintf(line, sizeof(line), "http://app.example.org 127.0.0.1:%u", server_port);
	EXPECT(door_rule_parse(line, &rule, NULL) == 0 && door_routes_add(routes, &rule, &rule.address) == 0);
	return routes;
}

/*
 * sockets: of which both take theirs, as the Engine has them do it. The relay is at 127.0.0.1 and is_at_two: 127.0.0.2
 * as well, the door at its place; shared: that is the relay's, too.
 */
static void open_gate_at(struct gate *gate, struct listen_sockets *sockets, const struct endpoint *place, bool is_shared,
			 bool is_at_two)
{
	const uint16_t port = place->port;
	struct front_door_options door = { .n_listen = gate->has_other_port ? 2 : 1, .is_relays = { is_shared },
					   .relay_sockets = is_shared ? sockets : NULL,
					   .serves_webgw = gate->serves_webgw,
					   .max_visitors = gate->max_visitors,
					   .max_visitors_source = gate->max_visitors_source };
	struct public_node_options node = { .n_addresses = is_at_two ? 2 : 1, .tls_port = is_shared ? port : 0,
					    .n_led = is_shared ? 1 : 0, .led = place, .sockets = sockets };
	struct error error = { 0 };

	gate->place = endpoint_from_v4(0x7f000001, port);
	node.addresses[0] = gate->place;
	node.addresses[1] = endpoint_from_v4(0x7f000002, port);
	node.context = gate->w.server_options.context;
	EXPECT(public_node_start(&gate->w.loop, &node, &gate->node, &error) == 0);
	door.listen[0] = *place;
	door.listen[1] = endpoint_from_v4(0x7f000001, 0);
	door.relay_port = (struct front_door_relay_port){ .owner = gate, .visitor = on_visitor };
	EXPECT(front_door_start(&gate->w.loop, &door, routes_of("relay", gate->server_port ? gate->server_port : 1), &gate->door, &error) == 0);
	gate->w.port = port;
	AWAIT_OTHERS(&gate->w, front_door_counters(gate->door).routes_taken >= 1);
}

/* The first of the sockets listens at the shared port. */
static void open_gate(struct gate *gate, struct listen_sockets *sockets, uint16_t port)
{
	const struct endpoint place = endpoint_from_v4(0x7f000001, port);

	open_gate_at(gate, sockets, &place, true, false);
}

static void begin(struct gate *gate)
{
	struct listen_sockets sockets = { .n = 1 };
	uint16_t port;

	world_begin(&gate->w);
	sockets.fds[0] = listening_socket(&port);
	open_gate(gate, &sockets, port);
	close(sockets.fds[0]);
}

static void close_gate(struct gate *gate)
{
	front_door_stop(gate->door, on_stopped, &gate->door_stopped);
	AWAIT(&gate->w, gate->door_stopped);
	public_node_stop(gate->node, on_stopped, &gate->node_stopped);
	AWAIT(&gate->w, gate->node_stopped);
}

static struct front_door_counters door_counters(const struct gate *gate)
{
	return front_door_counters(gate->door);
}

static struct relay_server_counters relay_counters(const struct gate *gate)
{
	return public_node_stats(gate->node).relay;
}

static void test_members_talk_by_a_relay_that_the_door_leads_to(void)
{
	struct gate gate = { 0 };
	struct member alice, bob;

	begin(&gate);
	make_member(&alice, &gate.w, "alice", 1);
	make_member(&bob, &gate.w, "bob", 2);
	connect_and_await(&alice);
	connect_and_await(&bob);
	EXPECT(send_text(&alice, &bob, "hello") == 0);
	AWAIT(&gate.w, got_text(&bob, "hello"));
	EXPECT(relay_counters(&gate).clients == 2 && relay_counters(&gate).accepted == 2);
	AWAIT_OTHERS(&gate.w, door_counters(&gate).to_relay == 2 && door_counters(&gate).visitors_now == 0);
	EXPECT(public_node_stats(gate.node).tls_port == gate.place.port);
	close_gate(&gate);
	close_member(&alice);
	close_member(&bob);
	world_end(&gate.w);
}

static bool is_same_socket(int fd, int other)
{
	struct stat a, b;

	return fstat(fd, &a) == 0 && fstat(other, &b) == 0 && a.st_ino == b.st_ino;
}

static void test_the_socket_that_is_handed_on_is_the_doors_alone(void)
{
	struct gate gate = { 0 };
	struct listen_sockets sockets = { .n = 1 };
	int ret[PUBLIC_NODE_MAX_SOCKETS];
	uint16_t port;

	world_begin(&gate.w);
	sockets.fds[0] = listening_socket(&port);
	open_gate(&gate, &sockets, port);
	EXPECT(sockets.fds[0] >= 0); /* not closed as nobody's */
	EXPECT(public_node_sockets(gate.node, ret) == 1); /* of UDP */
	EXPECT(front_door_relay_sockets(gate.door, ret) == 1 && is_same_socket(ret[0], sockets.fds[0]));
	close_gate(&gate);
	close(sockets.fds[0]);
	world_end(&gate.w);
}

/* ---- sockets that were kept over a restart with other settings; systemd has its own copy of each ---- */

struct kept {
	struct listen_sockets sockets;
	int copy;
	uint16_t port;
};

static struct endpoint endpoint_of(int fd)
{
	struct sockaddr_storage sockaddr = { 0 };
	socklen_t len = sizeof(sockaddr);

	EXPECT(getsockname(fd, (struct sockaddr *)&sockaddr, &len) == 0);
	return endpoint_from_sockaddr((struct sockaddr *)&sockaddr);
}

static struct kept kept_at(const struct endpoint *address)
{
	const int one = 1, zero = 0;
	struct sockaddr_storage sockaddr = { 0 };
	const socklen_t len = endpoint_to_sockaddr(address, &sockaddr);
	const int fd = socket(sockaddr.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	EXPECT(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) == 0);
	if (sockaddr.ss_family == AF_INET6)
		EXPECT(setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero)) == 0);
	EXPECT(bind(fd, (struct sockaddr *)&sockaddr, len) == 0 && listen(fd, 16) == 0);
	return (struct kept){ .sockets = { 1, { fd } }, .copy = dup(fd), .port = endpoint_of(fd).port };
}

static bool listens(int fd)
{
	int value = 0;
	socklen_t len = sizeof(value);

	return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &value, &len) == 0 && value != 0;
}

static void expect_alice_is_served(struct gate *gate)
{
	struct member alice;

	make_member(&alice, &gate->w, "alice", 1);
	connect_and_await(&alice);
	close_member(&alice);
}

static void test_sharing_can_be_turned_on_while_the_relays_socket_is_kept(void)
{
	const struct endpoint one = endpoint_from_v4(0x7f000001, 0);
	struct gate gate = { 0 };
	struct kept kept = kept_at(&one);
	const struct endpoint all = { .port = kept.port };

	world_begin(&gate.w);
	open_gate_at(&gate, &kept.sockets, &all, true, false);
	EXPECT(kept.sockets.fds[0] == -1 && !listens(kept.copy));
	expect_alice_is_served(&gate);
	close_gate(&gate);
	close(kept.copy);
	world_end(&gate.w);
}

static void test_sharing_can_be_turned_off_while_the_shared_socket_is_kept(void)
{
	const struct endpoint any = { 0 };
	struct gate gate = { 0 };
	struct kept kept = kept_at(&any);
	const struct endpoint all = { .port = kept.port };

	world_begin(&gate.w);
	open_gate_at(&gate, &kept.sockets, &all, false, false); /* the relay has another port now */
	EXPECT(kept.sockets.fds[0] == -1 && !listens(kept.copy));
	gate.w.port = public_node_stats(gate.node).tls_port;
	expect_alice_is_served(&gate);
	close_gate(&gate);
	close(kept.copy);
	world_end(&gate.w);
}

/* Else each would have about half of the other's. */
static void test_relay_and_door_at_different_addresses_do_not_accept_from_one_kept_socket(void)
{
	const struct endpoint any = { 0 };
	struct gate gate = { 0 };
	struct kept kept = kept_at(&any);
	const struct endpoint one = endpoint_from_v4(0x7f000001, kept.port), two = endpoint_from_v4(0x7f000002, kept.port);
	int ret[PUBLIC_NODE_MAX_SOCKETS];

	world_begin(&gate.w);
	open_gate_at(&gate, &kept.sockets, &one, true, true);
	EXPECT(kept.sockets.fds[0] == -1 && !listens(kept.copy));
	EXPECT(public_node_sockets(gate.node, ret) >= 1);
	const struct endpoint relays = endpoint_of(ret[0]);
	EXPECT(endpoint_equal(&relays, &two));
	EXPECT(front_door_relay_sockets(gate.door, ret) == 1);
	const struct endpoint doors = endpoint_of(ret[0]);
	EXPECT(endpoint_equal(&doors, &one));
	expect_alice_is_served(&gate);
	close_gate(&gate);
	close(kept.copy);
	world_end(&gate.w);
}

/* Behind a cloud's router, say; or its address is still tentative. */
static void test_a_relay_that_falls_back_to_all_addresses_says_that_the_door_is_in_its_way(void)
{
	const struct endpoint one = endpoint_from_v4(0x7f000001, 443), all = { .port = 443 };
	struct public_node_options options = { .n_addresses = 2, .tls_port = 443, .n_led = 1, .led = &one };
	struct public_node *node;
	struct error error = { 0 };
	struct gate gate = { 0 };

	world_begin(&gate.w);
	options.context = gate.w.server_options.context;
	options.addresses[0] = one;
	EXPECT(endpoint_parse_ip("192.0.2.77", 0, &options.addresses[1]) == 0);
	EXPECT(public_node_start(&gate.w.loop, &options, &node, &error) < 0);
	EXPECT(strstr(error.message, "TCP port 443 at all addresses") && strstr(error.message, "write the port alone in listen"));
	options.led = &all;
	EXPECT(public_node_start(&gate.w.loop, &options, &node, &error) == 0);
	public_node_stop(node, on_stopped, &gate.node_stopped);
	AWAIT(&gate.w, gate.node_stopped);
	world_end(&gate.w);
}

/* From now on, in this process, as on a machine without IPv6. */
static void lose_ipv6(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_INET6, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EAFNOSUPPORT),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	const struct sock_fprog filter = { .len = sizeof(code) / sizeof(*code), .filter = code };

	EXPECT(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	EXPECT(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0);
	EXPECT(socket(AF_INET6, SOCK_STREAM, 0) < 0 && errno == EAFNOSUPPORT);
}

static void keep_without_ipv6(void)
{
	const struct endpoint any = endpoint_from_v4(0, 0);
	struct gate gate = { 0 };
	struct kept kept = kept_at(&any);
	const struct endpoint all = { .port = kept.port };
	int ret[DOOR_MAX_LISTEN];

	world_begin(&gate.w);
	open_gate_at(&gate, &kept.sockets, &all, true, false);
	EXPECT(kept.sockets.fds[0] >= 0);
	EXPECT(front_door_relay_sockets(gate.door, ret) == 1 && is_same_socket(ret[0], kept.copy));
	expect_alice_is_served(&gate);
	close_gate(&gate);
	close(kept.sockets.fds[0]);
	close(kept.copy);
	world_end(&gate.w);
}

static void test_without_ipv6_the_shared_socket_is_kept_over_a_restart(void)
{
	int status;
	const pid_t child = fork();

	if (child == 0) {
		lose_ipv6();
		keep_without_ipv6();
		_exit(0);
	}
	EXPECT(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static int accept_visitor(struct world *w, int listener)
{
	char byte;
	int fd = -1;

	EXPECT(fcntl(listener, F_SETFL, O_NONBLOCK) == 0);
	AWAIT_OTHERS(w, (fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0);
	AWAIT_OTHERS(w, recv(fd, &byte, 1, MSG_PEEK) == 1); /* its hello, in one piece */
	return fd;
}

/* What the relay has not read itself may be all of the hello, a part of it, or nothing. */
static void test_bytes_that_were_read_before_come_first(void)
{
	static const size_t shares[] = { 0, 1, 5, 100, 4096 };
	struct world w;
	struct member alice;
	uint8_t bytes[4096];
	uint16_t port;

	for (size_t i = 0; i < sizeof(shares) / sizeof(*shares); i++) {
		world_begin(&w);
		start_server(&w);
		const int listener = listening_socket(&port);
		w.port = port;
		make_member(&alice, &w, "alice", 1);
		connect_member(&alice);
		const int fd = accept_visitor(&w, listener);
		const ssize_t n = shares[i] == 0 ? 0 : recv(fd, bytes, shares[i], 0);
		EXPECT(n >= 0 && (shares[i] == 4096 || (size_t)n == shares[i]));
		const struct endpoint remote = endpoint_from_v4(0xc0000201, 1000);
		relay_server_take(w.server, fd, &remote, bytes, (size_t)n);
		AWAIT(&w, alice.n_ready == 1);
		EXPECT(alice.n_lost == 0 && relay_server_counters(w.server).clients == 1);
		close(listener);
		stop_server(&w);
		close_member(&alice);
		world_end(&w);
	}
}

static void test_garbage_that_was_read_before_is_refused_at_once(void)
{
	struct world w;
	int ends[2];
	const struct endpoint remote = endpoint_from_v4(0xc0000201, 1000);

	world_begin(&w);
	start_server(&w);
	EXPECT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
	relay_server_take(w.server, ends[0], &remote, (const uint8_t *)"GET / HTTP/1.1\r\n\r\n", 18);
	EXPECT(relay_server_counters(w.server).refused_tls == 1 && relay_server_counters(w.server).handshakes == 0);
	close(ends[1]);
	world_end(&w);
}

static void hand_over_silent(struct world *w, const struct endpoint *remote, int *ret_far)
{
	int ends[2];

	EXPECT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
	relay_server_take(w->server, ends[0], remote, NULL, 0);
	*ret_far = ends[1];
}

static void test_who_is_handed_over_counts_for_the_source_it_came_from(void)
{
	const struct endpoint one = endpoint_from_v4(0xc0000201, 1000), other = endpoint_from_v4(0xcb007101, 1000);
	struct world w;
	int far[20];

	world_begin(&w);
	w.server_options.max_handshakes_source = 4;
	w.server_options.max_rate_source = 5; /* twice that at once */
	start_server(&w);
	for (int i = 0; i < 18; i++)
		hand_over_silent(&w, &one, &far[i]);
	EXPECT(relay_server_counters(w.server).handshakes == 4);
	EXPECT(relay_server_counters(w.server).refused_handshakes == 6 && relay_server_counters(w.server).refused_rate == 8);
	for (int i = 18; i < 20; i++)
		hand_over_silent(&w, &other, &far[i]);
	EXPECT(relay_server_counters(w.server).handshakes == 6);
	for (int i = 0; i < 20; i++)
		close(far[i]);
	world_end(&w);
}

static int connect_to(const struct gate *gate)
{
	const int fd = plain_connect(&gate->w);
	const struct timeval patience = { .tv_sec = AWAIT_MS / 1000 };

	EXPECT(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) == 0);
	return fd;
}

static void say_hello(int fd, const struct hello_options *options)
{
	static uint8_t message[80000], records[90000];
	const size_t len = hello_build(options, message, sizeof(message));
	const size_t n = hello_in_records(message, len, 16384, records, sizeof(records));

	for (size_t at = 0; at < n;) {
		const ssize_t sent = send(fd, records + at, n - at, MSG_NOSIGNAL);
		EXPECT(sent > 0);
		at += (size_t)sent;
	}
}

static int connect_from(const struct gate *gate, uint32_t source)
{
	struct sockaddr_storage sockaddr;
	const struct endpoint from = endpoint_from_v4(source, 0);
	const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	const socklen_t len = endpoint_to_sockaddr(&from, &sockaddr);

	EXPECT(fd >= 0 && bind(fd, (struct sockaddr *)&sockaddr, len) == 0);
	(void)endpoint_to_sockaddr(&gate->place, &sockaddr);
	EXPECT(connect(fd, (struct sockaddr *)&sockaddr, len) == 0);
	return fd;
}

/* The loop does not turn meanwhile: it is busy, or stuck. */
static void test_a_flood_for_the_relay_is_bounded_and_passes(void)
{
	enum { SOURCES = 3, EACH = 80, LONG = 7500 };
	const struct hello_options large = { .padding = LONG };
	struct gate gate = { 0 };
	struct member alice;
	int fds[SOURCES * EACH];

	begin(&gate);
	for (uint32_t i = 0; i < SOURCES; i++) {
		const uint64_t before = door_counters(&gate).to_relay;
		for (uint32_t j = 0; j < EACH; j++) {
			fds[i * EACH + j] = connect_from(&gate, 0x7f000001 + i);
			say_hello(fds[i * EACH + j], &large);
		}
		AWAIT_THREAD(door_counters(&gate).to_relay + door_counters(&gate).relay_over_limit == (i + 1) * EACH);
		const uint64_t n = door_counters(&gate).to_relay - before;
		EXPECT(i < 2 ? n == HAND_OVER_MAX_SOURCE : n < HAND_OVER_MAX_SOURCE); /* one leaves room for another */
	}
	const uint64_t n_given = door_counters(&gate).to_relay;
	EXPECT(n_given * LONG <= HAND_OVER_BYTES && door_counters(&gate).visitors_now == 0);
	AWAIT(&gate.w, relay_counters(&gate).accepted == n_given);
	EXPECT(relay_counters(&gate).clients == 0);
	make_member(&alice, &gate.w, "alice", 1);
	connect_and_await(&alice);
	for (uint32_t i = 0; i < SOURCES * EACH; i++)
		close(fds[i]);
	close_gate(&gate);
	close_member(&alice);
	world_end(&gate.w);
}

static void expect_reset(int fd)
{
	char byte;

	EXPECT(recv(fd, &byte, 1, 0) < 0 && errno == ECONNRESET);
	close(fd);
}

/* A Unix socket without a name: what came of the visitor comes out of it, and goes in. */
static void test_who_wants_the_websocket_is_copied_to_it_and_keeps_a_place_of_the_doors(void)
{
	const struct hello_options wants = { .names = { "relay" }, .alpn = { "http/1.1" } };
	struct gate gate = { .serves_webgw = true };
	uint8_t bytes[64];

	begin(&gate);
	const int fd = connect_to(&gate);
	say_hello(fd, &wants);
	AWAIT(&gate.w, gate.n_webgw == 1 && door_counters(&gate).visitors_now == 1);
	struct sockaddr_storage address;
	socklen_t len = sizeof(address);
	EXPECT(getsockname(gate.webgw_fds[0], (struct sockaddr *)&address, &len) == 0);
	EXPECT(address.ss_family == AF_UNIX && len == sizeof(sa_family_t)); /* nobody can connect to it */
	AWAIT_THREAD(recv(gate.webgw_fds[0], bytes, 6, MSG_DONTWAIT) == 6);
	EXPECT(bytes[0] == 22 && bytes[5] == 1); /* a record of a handshake, a ClientHello */
	EXPECT(send(gate.webgw_fds[0], "answer", 6, 0) == 6 && recv(fd, bytes, 6, MSG_WAITALL) == 6 && memcmp(bytes, "answer", 6) == 0);
	close(gate.webgw_fds[0]);
	AWAIT_THREAD(door_counters(&gate).visitors_now == 0);
	EXPECT(door_counters(&gate).to_webgw == 1 && door_counters(&gate).to_relay == 0);
	close(fd);
	close_gate(&gate);
	world_end(&gate.w);
}

static void test_those_for_webgw_are_bounded_by_source_and_by_the_doors_places(void)
{
	enum { N = HAND_OVER_MAX_DIALS + 10, PLACES = 20 };
	const struct hello_options dials = { .alpn = { "p2p-webgw/2" } }, wants = { .names = { "relay" }, .alpn = { "http/1.1" } };
	struct gate gate = { .serves_webgw = true, .max_visitors_source = PLACES };
	int fds[N];

	begin(&gate);
	for (uint32_t i = 0; i < N; i++) { /* the loop does not turn meanwhile */
		fds[i] = connect_to(&gate);
		say_hello(fds[i], &dials);
	}
	AWAIT_THREAD(door_counters(&gate).to_webgw + door_counters(&gate).webgw_over_limit == N);
	EXPECT(door_counters(&gate).to_webgw == HAND_OVER_MAX_DIALS);
	AWAIT(&gate.w, gate.n_dialled == HAND_OVER_MAX_DIALS);
	for (uint32_t i = 0; i < N; i++)
		close(fds[i]);
	AWAIT_THREAD(door_counters(&gate).visitors_now == 0);
	for (uint32_t i = 0; i < PLACES + 1; i++) {
		fds[i] = connect_to(&gate);
		say_hello(fds[i], &wants);
	}
	AWAIT(&gate.w, gate.n_webgw == PLACES && door_counters(&gate).over_source_limit == 1);
	EXPECT(door_counters(&gate).relay_over_limit == 0);
	for (uint32_t i = 0; i < PLACES + 1; i++)
		close(fds[i]);
	for (uint32_t i = 0; i < PLACES; i++)
		close(gate.webgw_fds[i]);
	close_gate(&gate);
	world_end(&gate.w);
}

static void test_a_hello_longer_than_members_say_is_not_the_relays(void)
{
	const struct hello_options huge = { .padding = HAND_OVER_MAX_HELLO };
	struct gate gate = { 0 };

	begin(&gate);
	const int fd = connect_to(&gate);
	say_hello(fd, &huge);
	expect_reset(fd);
	EXPECT(door_counters(&gate).to_relay == 0 && relay_counters(&gate).accepted == 0);
	AWAIT_THREAD(door_counters(&gate).refused[SNIFFER_TOO_LONG] == 1 && door_counters(&gate).relay_over_limit == 0);
	close_gate(&gate);
	world_end(&gate.w);
}

static void test_another_host_is_not_the_relays(void)
{
	const struct hello_options other = { .names = { "app.example.org" }, .alpn = { "h2" } };
	struct gate gate = { 0 };
	int fd;

	begin(&gate);
	fd = connect_to(&gate);
	say_hello(fd, &other);
	expect_reset(fd);
	EXPECT(door_counters(&gate).to_relay == 0);
	AWAIT_THREAD(door_counters(&gate).unknown_host == 1);
	close_gate(&gate);
	world_end(&gate.w);
}

static void expect_closed(int fd)
{
	char byte;

	EXPECT(recv(fd, &byte, 1, 0) <= 0 && errno != EAGAIN);
	close(fd);
}

static void say_host(int fd)
{
	static const char request[] = "GET / HTTP/1.1\r\nHost: app.example.org\r\n\r\n";

	EXPECT(send(fd, request, strlen(request), MSG_NOSIGNAL) == (ssize_t)strlen(request));
}

static int connect_at(uint16_t port)
{
	struct sockaddr_storage sockaddr;
	const struct endpoint place = endpoint_from_v4(0x7f000001, port);
	const struct timeval patience = { .tv_sec = AWAIT_MS / 1000 };
	const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	const socklen_t len = endpoint_to_sockaddr(&place, &sockaddr);

	EXPECT(fd >= 0 && connect(fd, (struct sockaddr *)&sockaddr, len) == 0);
	EXPECT(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) == 0);
	return fd;
}

static int visit_host_at(uint16_t port)
{
	const int fd = connect_at(port);

	say_host(fd);
	return fd;
}

static int visit_host(const struct gate *gate)
{
	return visit_host_at(gate->w.port);
}

/* Both ways are ended at once. */
static void reset_and_close(int fd)
{
	const struct linger at_once = { .l_onoff = 1 };

	EXPECT(setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once)) == 0);
	close(fd);
}

/* Visitors of a host have all places, or all of their source: members have the same address here. */
static void expect_members_find_a_place(uint32_t max_visitors, uint32_t max_visitors_source)
{
	struct gate gate = { .max_visitors = max_visitors, .max_visitors_source = max_visitors_source };
	const int server = listening_socket(&gate.server_port);
	struct member alice;
	int fds[3];

	begin(&gate);
	for (int i = 0; i < 3; i++)
		fds[i] = visit_host(&gate);
	AWAIT_THREAD(door_counters(&gate).bytes_in > 0 && door_counters(&gate).routed[SNIFFER_HTTP_1] == 3);
	expect_reset(visit_host(&gate));
	AWAIT_THREAD(door_counters(&gate).over_limit + door_counters(&gate).over_source_limit == 1);
	make_member(&alice, &gate.w, "alice", 1);
	connect_and_await(&alice);
	EXPECT(door_counters(&gate).visitors_now == 3 && alice.n_lost == 0);
	for (int i = 0; i < 3; i++)
		close(fds[i]);
	close(server);
	close_gate(&gate);
	close_member(&alice);
	world_end(&gate.w);
}

static void test_visitors_of_hosts_do_not_shut_out_the_relays(void)
{
	expect_members_find_a_place(3, 100);
	expect_members_find_a_place(100, 3);
}

/* All places have visitors of a host; one more of them, and one who is refused, come and go while a member begins. */
static void test_who_finds_no_place_takes_none_from_who_is_about_to_say_the_relay(void)
{
	static const char bad[] = "GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n";
	const struct hello_options hello = { .names = { "relay" } };
	struct gate gate = { .max_visitors = 2, .max_visitors_source = 100 };
	const int server = listening_socket(&gate.server_port);
	int fds[2];

	begin(&gate);
	for (int i = 0; i < 2; i++)
		fds[i] = visit_host(&gate);
	AWAIT_THREAD(door_counters(&gate).routed[SNIFFER_HTTP_1] == 2);
	const int member = connect_to(&gate);
	AWAIT_THREAD(door_counters(&gate).visitors_now == 3);
	expect_reset(visit_host(&gate));
	const int refused = connect_to(&gate);
	EXPECT(send(refused, bad, strlen(bad), MSG_NOSIGNAL) == (ssize_t)strlen(bad));
	expect_reset(refused); /* an answer would be a place for it */
	AWAIT_THREAD(door_counters(&gate).visitors_now == 3 && door_counters(&gate).over_limit == 1 &&
		     door_counters(&gate).refused[SNIFFER_HTTP_FIELD] == 1);
	say_hello(member, &hello);
	AWAIT_THREAD(door_counters(&gate).to_relay == 1);
	close(member);
	for (int i = 0; i < 2; i++)
		close(fds[i]);
	close(server);
	close_gate(&gate);
	world_end(&gate.w);
}

/* All places for visitors of hosts are taken; one of them goes, and another comes, while a member begins. */
static void expect_members_stay_while_visitors_come_and_go(bool is_by_other_port)
{
	const struct hello_options hello = { .names = { "relay" } };
	struct gate gate = { .max_visitors = 2, .max_visitors_source = 100, .has_other_port = is_by_other_port };
	const int server = listening_socket(&gate.server_port);
	int fds[2];

	begin(&gate);
	const uint16_t port = is_by_other_port ? front_door_port(gate.door, 1) : gate.w.port;
	for (int i = 0; i < 2; i++)
		fds[i] = visit_host_at(port);
	AWAIT_THREAD(door_counters(&gate).routed[SNIFFER_HTTP_1] == 2);
	const int member = connect_to(&gate);
	AWAIT_THREAD(door_counters(&gate).visitors_now == 3);
	for (uint64_t i = 0; i < 4; i++) {
		reset_and_close(fds[i % 2]);
		AWAIT_THREAD(door_counters(&gate).visitors_now == 2);
		fds[i % 2] = visit_host_at(port);
		AWAIT_THREAD(door_counters(&gate).routed[SNIFFER_HTTP_1] == 3 + i);
		EXPECT(door_counters(&gate).visitors_now == 3 && door_counters(&gate).over_limit == 0);
	}
	say_hello(member, &hello);
	AWAIT_THREAD(door_counters(&gate).to_relay == 1);
	close(member);
	for (int i = 0; i < 2; i++)
		close(fds[i]);
	close(server);
	close_gate(&gate);
	world_end(&gate.w);
}

static void test_who_is_about_to_say_the_relay_stays_while_visitors_of_hosts_come_and_go(void)
{
	expect_members_stay_while_visitors_come_and_go(false);
	expect_members_stay_while_visitors_come_and_go(true);
}

/* They may be asked in, in the relay's places: who says a host first has what there is for hosts. */
static void test_the_relays_places_are_not_for_hosts_at_a_port_that_is_not_the_relays(void)
{
	struct gate gate = { .max_visitors = 2, .max_visitors_source = 100, .has_other_port = true };
	const int server = listening_socket(&gate.server_port);
	int fds[4];

	begin(&gate);
	for (int i = 0; i < 4; i++)
		fds[i] = connect_at(front_door_port(gate.door, 1));
	AWAIT_THREAD(door_counters(&gate).visitors_now == 4);
	for (int i = 0; i < 4; i++) {
		say_host(fds[i]);
		AWAIT_THREAD(door_counters(&gate).routed[SNIFFER_HTTP_1] + door_counters(&gate).over_limit == (uint64_t)i + 1);
	}
	EXPECT(door_counters(&gate).routed[SNIFFER_HTTP_1] == 2);
	expect_reset(fds[2]);
	expect_reset(fds[3]);
	for (int i = 0; i < 2; i++)
		close(fds[i]);
	close(server);
	close_gate(&gate);
	world_end(&gate.w);
}

static void test_who_comes_when_all_places_have_silent_ones_takes_that_of_the_first(void)
{
	enum { PLACES = 3 + 16 };
	struct gate gate = { .max_visitors = 3, .max_visitors_source = 100 };
	const int server = listening_socket(&gate.server_port);
	int silent[PLACES];

	begin(&gate);
	for (int i = 0; i < PLACES; i++) {
		silent[i] = connect_to(&gate);
		AWAIT_THREAD(door_counters(&gate).visitors_now == (uint64_t)i + 1);
	}
	EXPECT(door_counters(&gate).over_limit == 0);
	const int fd = visit_host(&gate);
	AWAIT_THREAD(door_counters(&gate).routed[SNIFFER_HTTP_1] == 1);
	EXPECT(door_counters(&gate).over_limit == 1 && door_counters(&gate).visitors_now == PLACES);
	expect_reset(silent[0]);
	for (int i = 1; i < PLACES; i++)
		close(silent[i]);
	close(fd);
	close(server);
	close_gate(&gate);
	world_end(&gate.w);
}

/* Who waits to be taken over when the door goes is closed, and nothing of it is left: the sanitizer sees. */
static void test_who_is_on_the_way_when_the_door_goes_is_closed(void)
{
	const struct hello_options hello = { .names = { "relay" } };
	struct gate gate = { 0 };

	begin(&gate);
	const int fd = connect_to(&gate);
	say_hello(fd, &hello);
	AWAIT_THREAD(door_counters(&gate).to_relay == 1);
	gate.refuses = true;
	close_gate(&gate);
	expect_closed(fd);
	world_end(&gate.w);
}

int main(void)
{
	test_members_talk_by_a_relay_that_the_door_leads_to();
	test_the_socket_that_is_handed_on_is_the_doors_alone();
	test_sharing_can_be_turned_on_while_the_relays_socket_is_kept();
	test_sharing_can_be_turned_off_while_the_shared_socket_is_kept();
	test_relay_and_door_at_different_addresses_do_not_accept_from_one_kept_socket();
	test_without_ipv6_the_shared_socket_is_kept_over_a_restart();
	test_a_relay_that_falls_back_to_all_addresses_says_that_the_door_is_in_its_way();
	test_bytes_that_were_read_before_come_first();
	test_garbage_that_was_read_before_is_refused_at_once();
	test_who_is_handed_over_counts_for_the_source_it_came_from();
	test_another_host_is_not_the_relays();
	test_a_hello_longer_than_members_say_is_not_the_relays();
	test_who_wants_the_websocket_is_copied_to_it_and_keeps_a_place_of_the_doors();
	test_those_for_webgw_are_bounded_by_source_and_by_the_doors_places();
	test_a_flood_for_the_relay_is_bounded_and_passes();
	test_visitors_of_hosts_do_not_shut_out_the_relays();
	test_who_finds_no_place_takes_none_from_who_is_about_to_say_the_relay();
	test_who_is_about_to_say_the_relay_stays_while_visitors_of_hosts_come_and_go();
	test_the_relays_places_are_not_for_hosts_at_a_port_that_is_not_the_relays();
	test_who_comes_when_all_places_have_silent_ones_takes_that_of_the_first();
	test_who_is_on_the_way_when_the_door_goes_is_closed();
	puts("ok");
	return 0;
}
