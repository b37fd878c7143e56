/*
 * What a public node serves, put together: relay and STUN on its addresses, one certificate, one stop.
 */
#include "relay/public_node.h"
#include "world.h"

#include <openssl/ssl.h>
#include <stdio.h>
#include <string.h>
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

int main(void)
{
	test_a_public_node_relays_and_answers_stun();
	test_a_port_in_use_is_named_and_nothing_is_left();
	test_an_address_that_only_the_router_has_means_all_addresses();
	test_sockets_that_are_handed_over_are_served_and_others_closed();
	puts("ok");
	return 0;
}
