/*
 * What a public node serves, put together: relay and STUN on its addresses, one certificate, one stop.
 */
#include "relay/public_node.h"
#include "udp_client.h"
#include "world.h"

#include <openssl/ssl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <sys/socket.h>
#include <unistd.h>

static void on_stopped(void *owner)
{
	*(bool *)owner = true;
}

static struct public_node_options options_of(struct world *w)
{
	return (struct public_node_options){ .n_addresses = 2,
					     .addresses = { { .ip = { 0 } }, endpoint_from_v4(0, 0) },
					     .context = w->server_options.context,
					     .owner = w,
					     .is_member = w->server_options.is_member };
}

static void test_a_public_node_relays_and_answers_stun(void)
{
	struct world w;
	struct public_node *node;
	struct error err = { 0 };
	struct member alice, bob;
	bool stopped = false;
	world_begin(&w);

	struct public_node_options options = options_of(&w);
	EXPECT(public_node_start(&w.loop, &options, &node, &err) == 0);
	struct public_node_stats stats = public_node_stats(node);
	EXPECT(stats.tls_port != 0 && stats.stun_port != 0);
	w.port = stats.tls_port;
	make_member(&alice, &w, "alice", 1);
	make_member(&bob, &w, "bob", 2);
	connect_and_await(&alice);
	connect_and_await(&bob);
	EXPECT(send_text(&alice, &bob, "hello") == 0);
	AWAIT(&w, got_text(&bob, "hello"));
	EXPECT(public_node_stats(node).relay.clients == 2);
	w.removed = bob.key;
	public_node_recheck_members(node);
	AWAIT(&w, bob.n_lost == 1);

	public_node_stop(node, on_stopped, &stopped);
	AWAIT(&w, stopped);
	close_member(&alice);
	close_member(&bob);
	world_end(&w);
}

static void test_a_port_in_use_is_named_and_nothing_is_left(void)
{
	struct world w;
	struct public_node *node, *second;
	struct error err = { 0 };
	bool stopped = false;
	world_begin(&w);

	struct public_node_options options = options_of(&w);
	EXPECT(public_node_start(&w.loop, &options, &node, &err) == 0);
	options.tls_port = public_node_stats(node).tls_port;
	EXPECT(public_node_start(&w.loop, &options, &second, &err) == -EADDRINUSE);
	EXPECT(strstr(err.message, "another program has this port"));
	options.tls_port = 0;
	options.stun_port = public_node_stats(node).stun_port;
	EXPECT(public_node_start(&w.loop, &options, &second, &err) == -EADDRINUSE);
	EXPECT(strstr(err.message, "STUN"));

	public_node_stop(node, on_stopped, &stopped);
	AWAIT(&w, stopped);
	world_end(&w);
}

static void test_an_address_that_only_the_router_has_means_all_addresses(void)
{
	struct world w;
	struct public_node *node;
	struct member alice;
	bool stopped = false;
	world_begin(&w);

	struct public_node_options options = options_of(&w);
	options.n_addresses = 1;
	EXPECT(endpoint_parse_ip("192.0.2.77", 0, &options.addresses[0]) == 0);
	EXPECT(public_node_start(&w.loop, &options, &node, NULL) == 0);
	w.port = public_node_stats(node).tls_port;
	make_member(&alice, &w, "alice", 1);
	connect_and_await(&alice);

	public_node_stop(node, on_stopped, &stopped);
	AWAIT(&w, stopped);
	close_member(&alice);
	world_end(&w);
}

static int bound_socket(int type, uint16_t port)
{
	struct endpoint address = endpoint_from_v4(0x7f000001, port);
	struct sockaddr_storage sockaddr;
	socklen_t len = endpoint_to_sockaddr(&address, &sockaddr);
	int fd = socket(AF_INET, type, 0);

	EXPECT(fd >= 0 && bind(fd, (struct sockaddr *)&sockaddr, len) == 0);
	EXPECT(type == SOCK_DGRAM || listen(fd, 16) == 0);
	return fd;
}

static uint16_t port_of(int fd)
{
	struct sockaddr_storage sockaddr = { 0 };
	socklen_t len = sizeof(sockaddr);

	EXPECT(getsockname(fd, (struct sockaddr *)&sockaddr, &len) == 0);
	return endpoint_from_sockaddr((struct sockaddr *)&sockaddr).port;
}

static void test_sockets_that_are_handed_over_are_served_and_others_closed(void)
{
	struct world w;
	struct public_node *node;
	struct error err = { 0 };
	struct member alice;
	bool stopped = false;
	world_begin(&w);
	struct listen_sockets sockets = { 4,
					  { bound_socket(SOCK_STREAM, 0), bound_socket(SOCK_DGRAM, 0),
					    bound_socket(SOCK_STREAM, 0), bound_socket(SOCK_DGRAM, 0) } };
	w.port = port_of(sockets.fds[0]);
	make_member(&alice, &w, "alice", 1);
	connect_member(&alice); /* before anybody accepts */

	struct public_node_options options = options_of(&w);
	options.n_addresses = 1;
	options.addresses[0] = endpoint_from_v4(0x7f000001, 0);
	options.tls_port = w.port;
	options.stun_port = port_of(sockets.fds[1]);
	options.sockets = &sockets;
	EXPECT(public_node_start(&w.loop, &options, &node, &err) == 0);
	AWAIT(&w, alice.n_ready == 1);
	EXPECT(alice.n_lost == 0 && public_node_stats(node).stun_port == options.stun_port);
	EXPECT(sockets.fds[0] >= 0 && sockets.fds[1] >= 0 && sockets.fds[2] == -1 && sockets.fds[3] == -1);
	int listening[PUBLIC_NODE_MAX_SOCKETS];
	EXPECT(public_node_sockets(node, listening) == 2 && port_of(listening[0]) == w.port);

	public_node_stop(node, on_stopped, &stopped);
	AWAIT(&w, stopped);
	EXPECT(port_of(sockets.fds[0]) == w.port); /* for whoever is started next */
	close(sockets.fds[0]);
	close(sockets.fds[1]);
	close_member(&alice);
	world_end(&w);
}

/* A stream socket at that address, any port; -1: cannot be. */
static int listening_at(const char *ip, bool is_v6_only)
{
	struct endpoint address;
	struct sockaddr_storage sockaddr;

	EXPECT(endpoint_parse_ip(ip, 0, &address) == 0);
	socklen_t len = endpoint_to_sockaddr(&address, &sockaddr);
	int fd = socket(sockaddr.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (sockaddr.ss_family == AF_INET6)
		EXPECT(setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &(int){ is_v6_only }, sizeof(int)) == 0);
	EXPECT(bind(fd, (struct sockaddr *)&sockaddr, len) == 0);
	return fd;
}

static bool is_taken_for(const char *at, bool is_v6_only, bool listens, const char *ip)
{
	struct listen_sockets sockets = { 1, { listening_at(at, is_v6_only) } };
	struct endpoint address;

	EXPECT(!listens || listen(sockets.fds[0], 1) == 0);
	EXPECT(endpoint_parse_ip(ip, port_of(sockets.fds[0]), &address) == 0);
	int fd = listen_sockets_take(&sockets, SOCK_STREAM, &address);
	if (fd >= 0)
		close(fd);
	close(sockets.fds[0]);
	return fd >= 0;
}

static void test_a_socket_is_taken_for_the_addresses_that_it_serves(void)
{
	EXPECT(is_taken_for("::", false, true, "::") && is_taken_for("::", false, true, "192.0.2.1"));
	EXPECT(is_taken_for("::", true, true, "::1") && !is_taken_for("::", true, true, "192.0.2.1"));
	EXPECT(!is_taken_for("::", true, true, "::")); /* both families are wanted */
	EXPECT(is_taken_for("0.0.0.0", false, true, "192.0.2.1") && !is_taken_for("0.0.0.0", false, true, "::1"));
	EXPECT(!is_taken_for("0.0.0.0", false, true, "::"));
	EXPECT(is_taken_for("127.0.0.1", false, true, "127.0.0.1") && !is_taken_for("127.0.0.1", false, true, "127.0.0.2"));
	EXPECT(!is_taken_for("127.0.0.1", false, false, "127.0.0.1")); /* it does not listen */
}

/* ---- clients over TLS and over UDP ---- */

/* Alice comes by TLS, bob and carol by UDP. */
struct both {
	struct world w;
	struct public_node *node;
	struct secret_key secret;
	struct public_key public;
	struct member alice, bob_by_key; /* the latter only so that alice can name him */
	struct client bob, carol;
	bool is_bob_unlisted; /* over UDP: there he is no member any more */
	bool stopped;
};

static void each_member(void *owner, void (*add)(void *set, const struct public_key *node_key), void *set)
{
	const struct world *w = owner;
	const struct both *b = container_of(w, struct both, w);

	if (!b->is_bob_unlisted)
		add(set, &b->bob.public);
	add(set, &b->carol.public);
}

static void begin_both(struct both *b)
{
	*b = (struct both){ 0 };
	world_begin(&b->w);
	secret_key_generate(&b->secret);
	secret_key_public(&b->secret, &b->public);
	make_client(&b->bob, &b->public);
	make_client(&b->carol, &b->public);
	struct public_node_options options = options_of(&b->w);
	options.node_key = &b->secret;
	options.each_member = each_member;
	EXPECT(public_node_start(&b->w.loop, &options, &b->node, NULL) == 0);
	const struct public_node_stats stats = public_node_stats(b->node);
	b->w.port = stats.tls_port;
	make_member(&b->alice, &b->w, "alice", 1);
	connect_and_await(&b->alice);
	bind_client(&b->bob, "127.0.0.1", at("127.0.0.1", stats.stun_port));
	bind_client(&b->carol, "127.0.0.1", at("127.0.0.1", stats.stun_port));
	b->bob_by_key.key = b->bob.public;
}

static void finish_both(struct both *b)
{
	public_node_stop(b->node, on_stopped, &b->stopped);
	AWAIT(&b->w, b->stopped);
	close_member(&b->alice);
	close(b->bob.fd);
	close(b->carol.fd);
	world_end(&b->w);
}

/* The slot by which bob knows alice; 0: she is not here. */
static uint32_t slot_of_alice(struct both *b)
{
	const struct relay_udp_datagram find = { .type = RELAY_UDP_FIND,
						 .header = header_to(&b->bob, RELAY_UDP_FIND, 0),
						 .node_key = b->alice.key };

	send_datagram(&b->bob, &find);
	await(&b->bob, RELAY_UDP_FOUND);
	return arrival.datagram.header.from;
}

static void test_clients_over_tls_and_over_udp_reach_each_other(void)
{
	struct both b;
	begin_both(&b);
	struct client alice = { 0 }; /* as bob sees her */

	AWAIT_OTHERS(&b.w, (alice.slot = slot_of_alice(&b)) != 0);
	say(&b.bob, &alice, "from bob");
	AWAIT(&b.w, got_text(&b.alice, "from bob"));
	EXPECT(public_key_equal(&b.alice.last_from, &b.bob.public));
	EXPECT(send_text(&b.alice, &b.bob_by_key, "from alice") == 0);
	run_for(&b.w, 1);
	await_said(&b.bob, &alice, "from alice");
	finish_both(&b);
}

static void test_packets_between_both_keep_their_order(void)
{
	struct both b;
	begin_both(&b);
	struct client alice = { 0 };
	char text[16];

	AWAIT_OTHERS(&b.w, (alice.slot = slot_of_alice(&b)) != 0);
	for (int i = 0; i < 100; i++) {
		snprintf(text, sizeof(text), "%d", i);
		EXPECT(send_text(&b.alice, &b.bob_by_key, text) == 0);
	}
	run_for(&b.w, 1);
	for (int i = 0; i < 100;) {
		await(&b.bob, RELAY_UDP_DATA);
		for (size_t at = 0; at < arrival.len; at += arrival.size, i++) {
			snprintf(text, sizeof(text), "%d", i);
			EXPECT(memcmp(arrival.bytes + at + RELAY_UDP_HEADER_LEN, text, strlen(text)) == 0);
		}
	}
	for (uint64_t i = 1; i <= 100; i++) {
		uint8_t number[8];
		for (int j = 0; j < 8; j++)
			number[j] = (uint8_t)(i >> (56 - 8 * j));
		send_datagram(&b.bob, &(struct relay_udp_datagram){ .type = RELAY_UDP_DATA,
								    .header = header_to(&b.bob, RELAY_UDP_DATA, alice.slot),
								    .packet = { number, sizeof(number) } });
	}
	AWAIT(&b.w, b.alice.n_packets == 100);
	EXPECT(b.alice.n_misordered == 0);
	finish_both(&b);
}

static void test_who_is_neither_here_nor_there_is_gone(void)
{
	struct both b;
	begin_both(&b);
	struct member nobody = { .key = { { 99 } } };

	EXPECT(send_text(&b.alice, &nobody, "hello?") == 0);
	AWAIT(&b.w, b.alice.n_gone == 1);
	EXPECT(public_key_equal(&b.alice.last_gone, &nobody.key));
	EXPECT(public_node_stats(b.node).relay.dropped_unknown == 1);
	finish_both(&b);
}

static void test_a_client_that_leaves_tls_is_gone_for_those_over_udp(void)
{
	struct both b;
	begin_both(&b);
	struct client alice = { 0 };

	AWAIT_OTHERS(&b.w, (alice.slot = slot_of_alice(&b)) != 0);
	b.w.removed = b.alice.key;
	public_node_recheck_members(b.node);
	AWAIT(&b.w, b.alice.n_lost == 1);
	AWAIT_OTHERS(&b.w, slot_of_alice(&b) == 0);
	say(&b.bob, &alice, "are you there?");
	await(&b.bob, RELAY_UDP_GONE);
	EXPECT(arrival.datagram.header.from == alice.slot);
	finish_both(&b);
}

/* The same node as over UDP. */
static void connect_bob_by_tls(struct both *b, struct member *bob)
{
	*bob = (struct member){ .world = &b->w, .name = "bob", .key = b->bob.public };
	bob->context = make_context(&b->w, NULL, bob->name, &bob->key, false, 3600);
	connect_and_await(bob);
}

/* Its TLS may be dead, and nobody know yet. */
static void test_who_sends_over_udp_though_it_has_tls_is_reached_over_udp_by_who_has_tls(void)
{
	struct both b;
	begin_both(&b);
	struct client alice = { 0 };
	struct member bob;

	connect_bob_by_tls(&b, &bob);
	EXPECT(send_text(&b.alice, &bob, "by TLS") == 0);
	AWAIT(&b.w, got_text(&bob, "by TLS"));
	AWAIT_OTHERS(&b.w, (alice.slot = slot_of_alice(&b)) != 0);
	say(&b.bob, &alice, "I am back");
	AWAIT(&b.w, got_text(&b.alice, "I am back"));
	EXPECT(send_text(&b.alice, &bob, "by UDP") == 0);
	run_for(&b.w, 1);
	await_said(&b.bob, &alice, "by UDP");
	EXPECT(send_text(&bob, &b.alice, "by TLS again") == 0);
	AWAIT(&b.w, got_text(&b.alice, "by TLS again"));
	EXPECT(send_text(&b.alice, &bob, "and so are you") == 0);
	AWAIT(&b.w, got_text(&bob, "and so are you"));
	close_member(&bob);
	finish_both(&b);
}

static bool has_something(const struct client *client)
{
	struct pollfd wait = { .fd = client->fd, .events = POLLIN };

	return poll(&wait, 1, 0) > 0;
}

/* Bob, who is connected by TLS, sends over UDP: so what alice sends to him over TLS comes by UDP. */
static void come_back_over_udp(struct both *b)
{
	struct client alice = { 0 };

	AWAIT_OTHERS(&b->w, (alice.slot = slot_of_alice(b)) != 0);
	say(&b->bob, &alice, "I am back");
	AWAIT(&b->w, got_text(&b->alice, "I am back"));
	EXPECT(send_text(&b->alice, &b->bob_by_key, "by UDP") == 0);
	AWAIT_OTHERS(&b->w, has_something(&b->bob));
	await_said(&b->bob, &alice, "by UDP");
}

static void test_who_loses_udp_is_reached_by_tls_without_the_loss_of_a_packet(void)
{
	struct both b;
	struct member bob;
	begin_both(&b);

	connect_bob_by_tls(&b, &bob);
	come_back_over_udp(&b);
	b.is_bob_unlisted = true;
	public_node_recheck_members(b.node);
	await(&b.bob, RELAY_UDP_REFUSED);
	EXPECT(send_text(&b.alice, &bob, "by TLS") == 0);
	AWAIT(&b.w, got_text(&bob, "by TLS"));
	EXPECT(b.alice.n_gone == 0 && public_node_stats(b.node).relay.dropped_unknown == 0);
	close_member(&bob);
	finish_both(&b);
}

/* It has turned to TLS, and only receives: its pings there show it. */
static void test_who_only_pings_over_tls_is_reached_there(void)
{
	const struct relay_frame ping = { .type = RELAY_PING, .ping = 7 };
	struct both b;
	struct raw bob;
	begin_both(&b);
	SSL_CTX *context = make_context(&b.w, NULL, "bob", &b.bob.public, false, 3600);

	raw_connect(&bob, &b.w, context);
	AWAIT(&b.w, bob.n_hello == 1);
	come_back_over_udp(&b);
	AWAIT_OTHERS(&b.w, (raw_say_frame(&bob, &ping), send_number(&b.alice, &b.bob_by_key, 1, 8), bob.n_packets > 0));
	raw_close(&bob);
	SSL_CTX_free(context);
	finish_both(&b);
}

/* From carol, until not even the smallest packet has room. Nobody takes any out: the loop stands still. */
static void fill_the_ring_to_tls(struct both *b, const struct client *to)
{
	static const uint8_t packet[60000];
	static const size_t sizes[] = { sizeof(packet), 1200, 1 }; /* no note would fit into what is left then */

	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		const uint64_t dropped = public_node_stats(b->node).dropped_bridge;
		while (public_node_stats(b->node).dropped_bridge == dropped) {
			send_datagram(&b->carol,
				      &(struct relay_udp_datagram){ .type = RELAY_UDP_DATA,
								    .header = header_to(&b->carol, RELAY_UDP_DATA, to->slot),
								    .packet = { packet, sizes[i] } });
			ping(&b->carol);
		}
	}
}

static void test_who_is_reached_over_udp_is_known_however_much_there_is_to_carry(void)
{
	struct both b;
	struct client alice = { 0 };
	struct member bob;
	begin_both(&b);

	connect_bob_by_tls(&b, &bob);
	AWAIT_OTHERS(&b.w, (alice.slot = slot_of_alice(&b)) != 0);
	fill_the_ring_to_tls(&b, &alice);
	say(&b.bob, &alice, "I am back"); /* it finds no room */
	ping(&b.bob);
	AWAIT_OTHERS(&b.w, b.alice.n_packets > 0);
	EXPECT(!got_text(&b.alice, "I am back") && send_text(&b.alice, &b.bob_by_key, "by UDP") == 0);
	AWAIT_OTHERS(&b.w, has_something(&b.bob));
	await_said(&b.bob, &alice, "by UDP");
	close_member(&bob);
	finish_both(&b);
}

int main(void)
{
	test_a_public_node_relays_and_answers_stun();
	test_a_port_in_use_is_named_and_nothing_is_left();
	test_an_address_that_only_the_router_has_means_all_addresses();
	test_clients_over_tls_and_over_udp_reach_each_other();
	test_packets_between_both_keep_their_order();
	test_who_is_neither_here_nor_there_is_gone();
	test_a_client_that_leaves_tls_is_gone_for_those_over_udp();
	test_who_sends_over_udp_though_it_has_tls_is_reached_over_udp_by_who_has_tls();
	test_who_loses_udp_is_reached_by_tls_without_the_loss_of_a_packet();
	test_who_only_pings_over_tls_is_reached_there();
	test_who_is_reached_over_udp_is_known_however_much_there_is_to_carry();
	test_a_socket_is_taken_for_the_addresses_that_it_serves();
	test_sockets_that_are_handed_over_are_served_and_others_closed();
	puts("ok");
	return 0;
}
