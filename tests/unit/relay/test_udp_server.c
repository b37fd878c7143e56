/*
 * The relay over UDP with real sockets: what udp_clients decides leaves by the right socket and address, trains
 * stay trains, and STUN has the same port.
 */
#include "common/relay_udp_wire.h"
#include "common/stun_wire.h"
#include "relay/udp_server.h"
#include "udp_client.h"
#include "world.h"

#include <netinet/udp.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

#define MAX_CLIENTS 4

struct bench {
	struct world w; /* for its loop */
	struct udp_server *server;
	struct secret_key secret;
	struct public_key public;
	uint32_t n_clients;
	struct client clients[MAX_CLIENTS];
	bool stopped;
};

/* ---- the server ---- */

static void tell_members(struct bench *b, uint32_t n)
{
	struct key_table *members = calloc(1, sizeof(*members));

	EXPECT(members != NULL);
	key_table_init(members);
	for (uint32_t i = 0; i < n; i++)
		key_table_put(members, &b->clients[i].public, b);
	udp_server_set_members(b->server, members);
}

static void make_clients(struct bench *b)
{
	for (uint32_t i = 0; i < MAX_CLIENTS; i++) {
		struct client *client = &b->clients[i];
		make_client(client, &b->public);
	}
}

static void begin_with(struct bench *b, const struct udp_server_options *wanted)
{
	struct udp_server_options options = *wanted;
	struct error err = { 0 };

	*b = (struct bench){ 0 };
	world_begin(&b->w);
	secret_key_generate(&b->secret);
	secret_key_public(&b->secret, &b->public);
	options.node_key = &b->secret;
	if (udp_server_start(&b->w.loop, &options, &b->server, &err) != 0)
		fprintf(stderr, "%s\n", err.message);
	EXPECT(b->server != NULL);
	make_clients(b);
	tell_members(b, MAX_CLIENTS);
}

static void begin_on(struct bench *b, const char *first, const char *second)
{
	struct udp_server_options options = { .n_listen = second ? 2 : 1, .listen = { at(first, 0) } };

	if (second)
		options.listen[1] = at(second, 0);
	begin_with(b, &options);
}

static void begin(struct bench *b)
{
	begin_on(b, "127.0.0.1", NULL);
}

static void on_stopped(void *owner)
{
	((struct bench *)owner)->stopped = true;
}

static void stop(struct bench *b)
{
	udp_server_stop(b->server, on_stopped, b);
	AWAIT(&b->w, b->stopped);
}

static void finish(struct bench *b)
{
	if (!b->stopped)
		stop(b);
	for (uint32_t i = 0; i < MAX_CLIENTS; i++)
		if (b->clients[i].fd >= 0)
			close(b->clients[i].fd);
	world_end(&b->w);
}

static struct udp_server_counters counters(const struct bench *b)
{
	return udp_server_counters(b->server);
}

/* ---- clients ---- */

/* Client i on an address of its own, bound by one of the relay's. */
static struct client *bound_at(struct bench *b, uint32_t i, const char *ip, const char *relay_ip)
{
	struct client *client = &b->clients[i];

	bind_client(client, ip, at(relay_ip, udp_server_port(b->server)));
	return client;
}

static struct client *bound(struct bench *b, uint32_t i)
{
	return bound_at(b, i, "127.0.0.1", "127.0.0.1");
}

/* ---- trains ---- */

/* n packets of `size` bytes with the header, the last of last_size, each filled with its number from `first`. */
static size_t make_train(uint8_t *bytes, const struct client *from, uint32_t to, uint8_t first, unsigned n,
			 size_t size, size_t last_size)
{
	const struct relay_udp_header header = header_to(from, RELAY_UDP_DATA, to);

	for (unsigned i = 0; i < n; i++) {
		relay_udp_header_encode(bytes + i * size, &header);
		memset(bytes + i * size + RELAY_UDP_HEADER_LEN, (int)(first + i), size - RELAY_UDP_HEADER_LEN);
	}
	return (n - 1) * size + last_size;
}

static void send_train(const struct client *client, const uint8_t *bytes, size_t len, uint16_t size)
{
	_Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(sizeof(size))] = { 0 };
	struct sockaddr_storage address;
	struct iovec iov = { (void *)(uintptr_t)bytes, len };
	struct msghdr header = { .msg_name = &address,
				 .msg_namelen = endpoint_to_sockaddr(&client->relay, &address),
				 .msg_iov = &iov,
				 .msg_iovlen = 1,
				 .msg_control = control,
				 .msg_controllen = sizeof(control) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&header);

	c->cmsg_level = IPPROTO_UDP;
	c->cmsg_type = UDP_SEGMENT;
	c->cmsg_len = CMSG_LEN(sizeof(size));
	memcpy(CMSG_DATA(c), &size, sizeof(size));
	EXPECT(sendmsg(client->fd, &header, 0) == (ssize_t)len);
}

/* Packets numbered from `first` on arrive in their order; in how many messages. */
static unsigned await_train(const struct client *client, const struct client *from, uint8_t first, unsigned n)
{
	unsigned i = 0, messages = 0;

	for (; i < n; messages++) {
		await(client, RELAY_UDP_DATA);
		for (size_t j = 0; j < arrival.len; j += arrival.size, i++) {
			struct relay_udp_header header;
			const size_t left = arrival.len - j;
			EXPECT(relay_udp_header_decode(arrival.bytes + j, left, &header));
			EXPECT(header.from == from->slot && header.to == client->slot && header.token == client->token);
			EXPECT(arrival.bytes[j + RELAY_UDP_HEADER_LEN] == (uint8_t)(first + i));
		}
	}
	EXPECT(i == n);
	return messages;
}

/* ---- tests ---- */

static void test_members_find_each_other_and_their_packets_arrive(void)
{
	struct bench b;
	begin(&b);
	struct client *alice = bound(&b, 0), *bob = bound(&b, 1);
	struct relay_udp_datagram find = { .type = RELAY_UDP_FIND,
					   .header = header_to(alice, RELAY_UDP_FIND, 0),
					   .node_key = bob->public };

	send_datagram(alice, &find);
	await(alice, RELAY_UDP_FOUND);
	EXPECT(arrival.datagram.header.from == bob->slot);
	find = (struct relay_udp_datagram){ .type = RELAY_UDP_FIND, .header = header_to(bob, RELAY_UDP_FIND, alice->slot) };
	send_datagram(bob, &find);
	await(bob, RELAY_UDP_FOUND);
	EXPECT(public_key_equal(&arrival.datagram.node_key, &alice->public));

	say(alice, bob, "hello");
	await_said(bob, alice, "hello");
	say(bob, alice, "hello yourself");
	await_said(alice, bob, "hello yourself");
	ping(alice);
	AWAIT_OTHERS(&b.w, counters(&b).clients.packets == 2 && counters(&b).out.sent[RELAY_OUTBOX_DATA] == 2);
	EXPECT(counters(&b).clients.clients == 2 && counters(&b).clients.bytes == 19);
	finish(&b);
}

static void test_a_train_stays_a_train(void)
{
	static uint8_t bytes[ARRIVAL_ROOM];
	struct bench b;
	begin(&b);
	struct client *alice = bound(&b, 0), *bob = bound(&b, 1);

	uint64_t datagrams = 0, messages = 4; /* what both were answered while they were bound */
	for (unsigned n = 2; n <= 46; n += 11) {
		const size_t len = make_train(bytes, alice, bob->slot, (uint8_t)n, n, 1400, 700);
		send_train(alice, bytes, len, 1400);
		EXPECT(await_train(bob, alice, (uint8_t)n, n) == 1);
		EXPECT(arrival.size == 1400 && arrival.len == len);
		datagrams += n;
		messages++;
		AWAIT_OTHERS(&b.w, counters(&b).out.sent[RELAY_OUTBOX_DATA] == datagrams);
		AWAIT_OTHERS(&b.w, counters(&b).out.messages == messages);
	}
	finish(&b);
}

static void test_a_train_to_two_peers_is_parted_and_keeps_its_order(void)
{
	static uint8_t bytes[ARRIVAL_ROOM];
	struct bench b;
	size_t len = 0;
	begin(&b);
	struct client *alice = bound(&b, 0), *bob = bound(&b, 1), *carol = bound(&b, 2);

	for (uint8_t i = 0; i < 10; i++) {
		len += make_train(bytes + len, alice, bob->slot, (uint8_t)(i * 2), 2, 100, 100);
		len += make_train(bytes + len, alice, carol->slot, (uint8_t)(i * 3), 3, 100, 100);
	}
	send_train(alice, bytes, len, 100);
	EXPECT(await_train(bob, alice, 0, 20) == 1); /* joined anew, so that for each of both it is one train */
	EXPECT(await_train(carol, alice, 0, 30) == 1);
	finish(&b);
}

/* Beyond what one system call may segment. */
/* As one, but it is not told apart from a probe by what follows its first bytes. */
static void make_probe(uint8_t *datagram)
{
	static const uint8_t magic[] = { 0xd2, 0x70, 0x32, 0x70 };

	memcpy(datagram + RELAY_UDP_HEADER_LEN, magic, sizeof(magic));
}

static void await_probe(const struct client *client, size_t size)
{
	await(client, RELAY_UDP_DATA);
	EXPECT(arrival.len == size && arrival.size == size);
	EXPECT(relay_packet_is_probe(arrival.bytes + RELAY_UDP_HEADER_LEN, size - RELAY_UDP_HEADER_LEN));
}

static void test_probes_within_a_train_leave_by_themselves_and_in_their_order(void)
{
	static uint8_t bytes[ARRIVAL_ROOM];
	const size_t size = RELAY_UDP_HEADER_LEN + RELAY_PROBE_MIN_LEN;
	struct bench b;
	begin(&b);
	struct client *alice = bound(&b, 0), *bob = bound(&b, 1);

	const size_t len = make_train(bytes, alice, bob->slot, 1, 7, size, size);
	make_probe(bytes + 2 * size);
	make_probe(bytes + 3 * size);
	make_probe(bytes + 6 * size);
	send_train(alice, bytes, len, (uint16_t)size);

	await_train(bob, alice, 1, 2);
	await_probe(bob, size);
	await_probe(bob, size);
	await_train(bob, alice, 5, 2);
	await_probe(bob, size);
	AWAIT_OTHERS(&b.w, counters(&b).out.sent[RELAY_OUTBOX_PROBE] == 3);
	EXPECT(counters(&b).out.sent[RELAY_OUTBOX_DATA] == 4);
	finish(&b);
}

/* So that a member cannot have the relay do nothing else. */
static void test_probes_beyond_a_rate_are_dropped_and_counted(void)
{
	static uint8_t bytes[ARRIVAL_ROOM];
	const size_t size = RELAY_UDP_HEADER_LEN + RELAY_PROBE_MIN_LEN;
	struct bench b;
	begin(&b);
	struct client *alice = bound(&b, 0), *bob = bound(&b, 1);

	const size_t len = make_train(bytes, alice, bob->slot, 1, 40, size, size);
	for (unsigned i = 0; i < 40; i++)
		make_probe(bytes + i * size);
	for (unsigned n = 0; counters(&b).out.full[RELAY_OUTBOX_PROBE] == 0; n++) {
		EXPECT(n < 1000);
		send_train(alice, bytes, len, (uint16_t)size);
		ping(alice); /* which it has answered when it is through with these */
	}
	EXPECT(counters(&b).out.sent[RELAY_OUTBOX_PROBE] >= 400);
	finish(&b);
}

static void test_a_long_train_goes_in_parts(void)
{
	static uint8_t bytes[ARRIVAL_ROOM];
	struct bench b;
	begin(&b);
	struct client *alice = bound(&b, 0), *bob = bound(&b, 1);

	for (uint8_t i = 0; i < 4; i++)
		send_train(alice, bytes, make_train(bytes, alice, bob->slot, (uint8_t)(i * 60), 60, 200, 200), 200);
	await_train(bob, alice, 0, 240);
	finish(&b);
}

static void test_a_packet_too_long_for_a_frame_is_dropped_on_its_way_to_tls(void)
{
	static const uint8_t longest[65527 - RELAY_UDP_HEADER_LEN]; /* IPv6 takes it */
	struct bench b;
	begin_on(&b, "::1", NULL);
	struct client *alice = bound_at(&b, 0, "::1", "::1"), *bob = &b.clients[1];

	udp_server_note_elsewhere(b.server, &bob->public, true);
	struct relay_udp_datagram datagram = { .type = RELAY_UDP_FIND,
					       .header = header_to(alice, RELAY_UDP_FIND, 0),
					       .node_key = bob->public };
	do { /* until the note has arrived */
		send_datagram(alice, &datagram);
		await(alice, RELAY_UDP_FOUND);
	} while (arrival.datagram.header.from == 0);
	datagram = (struct relay_udp_datagram){ .type = RELAY_UDP_DATA,
						.header = header_to(alice, RELAY_UDP_DATA, arrival.datagram.header.from),
						.packet = { longest, sizeof(longest) } };
	send_datagram(alice, &datagram);
	AWAIT_OTHERS(&b.w, counters(&b).dropped_bridge == 1);
	finish(&b);
}

static void test_stun_has_the_same_port(void)
{
	struct bench b;
	begin(&b);
	struct client *alice = bound(&b, 0);
	struct stun_message question, seen;
	uint8_t bytes[STUN_MAX_LEN];

	stun_make_request(&question, &(struct stun_tx){ { 1, 2, 3 } });
	send_bytes(alice, bytes, stun_encode(bytes, sizeof(bytes), &question));
	receive_bytes(alice);
	EXPECT(stun_decode(arrival.bytes, arrival.len, &seen) == 0 && seen.class == STUN_SUCCESS);
	EXPECT(stun_tx_equal(&seen.tx, &question.tx));
	ping(alice);
	AWAIT_OTHERS(&b.w, counters(&b).stun.answered == 1 && counters(&b).stun.received == 1);
	finish(&b);
}

static void test_who_is_no_client_is_told_so_and_reaches_nobody(void)
{
	struct bench b;
	begin(&b);
	struct client *alice = bound(&b, 0), *bob = bound(&b, 1), mallory = b.clients[2];
	mallory.fd = open_client("127.0.0.1");
	mallory.relay = alice->relay;

	mallory.slot = alice->slot;
	mallory.token = alice->token; /* all but the address is right */
	say(&mallory, bob, "it is I, alice");
	await(&mallory, RELAY_UDP_MOVED);
	EXPECT(arrival.datagram.moved.what == alice->token);
	mallory = *alice;
	mallory.token++; /* all but the token */
	say(&mallory, bob, "it is I, alice");
	await(alice, RELAY_UDP_MOVED);
	say(alice, bob, "really");
	await_said(bob, alice, "really");
	AWAIT_OTHERS(&b.w, counters(&b).clients.dropped_stranger == 2);
	close(b.clients[2].fd);
	b.clients[2].fd = -1;
	finish(&b);
}

static void test_a_forged_bind_is_not_answered(void)
{
	struct bench b;
	begin(&b);
	struct client *alice = bound(&b, 0), *mallory = bound(&b, 1);
	struct client forged = *mallory;

	forged.public = alice->public;
	ask(&forged);
	send_bind(&forged);
	AWAIT_OTHERS(&b.w, counters(&b).clients.refused_proof == 1);
	ping(mallory); /* the next answer is to this */
	ping(alice);
	finish(&b);
}

static void test_a_replayed_bind_moves_nobody(void)
{
	struct bench b;
	uint8_t bytes[RELAY_UDP_MAX_LEN];
	begin(&b);
	struct client *alice = bound(&b, 0), *mallory = bound(&b, 1);

	const size_t len = make_bind(alice, bytes);
	send_bytes(mallory, bytes, len); /* the cookie is of another address */
	await(mallory, RELAY_UDP_MOVED);
	ping(alice);
	send_bytes(alice, bytes, len); /* from the same one it is only answered again */
	await(alice, RELAY_UDP_BOUND);
	EXPECT(arrival.datagram.bound.slot == alice->slot && arrival.datagram.bound.token == alice->token);
	finish(&b);
}

static void test_a_client_that_moves_is_back_after_one_round_trip(void)
{
	struct bench b;
	begin(&b);
	struct client *alice = bound(&b, 0), *bob = bound(&b, 1), before = *alice;

	run_for(&b.w, 2); /* binds are told apart by the millisecond their cookies were made in */
	alice->fd = open_client("127.0.0.1"); /* another port */
	say(alice, bob, "lost, but not without an answer");
	await(alice, RELAY_UDP_MOVED);
	memcpy(alice->cookie, arrival.datagram.moved.cookie, sizeof(alice->cookie));
	send_bind(alice);
	await_bound(alice);
	EXPECT(alice->slot == before.slot && alice->token != before.token);
	await(&before, RELAY_UDP_REFUSED);
	EXPECT(arrival.datagram.refused.reason == RELAY_UDP_REPLACED);
	say(bob, alice, "welcome");
	await_said(alice, bob, "welcome");
	close(before.fd);
	finish(&b);
}

static void test_a_removed_member_is_told_and_loses_the_relay(void)
{
	struct bench b;
	begin(&b);
	struct client *alice = bound(&b, 0), *bob = bound(&b, 1);

	tell_members(&b, 1);
	await(bob, RELAY_UDP_REFUSED);
	EXPECT(arrival.datagram.refused.reason == RELAY_UDP_NOT_ADMITTED);
	EXPECT(relay_udp_is_proven(&bob->proof, arrival.bytes, arrival.len));
	say(bob, alice, "still here");
	await(bob, RELAY_UDP_MOVED);
	memcpy(bob->cookie, arrival.datagram.moved.cookie, sizeof(bob->cookie));
	send_bind(bob); /* to which nothing is said */
	AWAIT_OTHERS(&b.w, counters(&b).clients.refused_not_member == 1);
	EXPECT(counters(&b).clients.clients == 1 && counters(&b).clients.closed_removed == 1);
	tell_members(&b, 2);
	run_for(&b.w, 2);
	ask(bob);
	send_bind(bob);
	await_bound(bob);
	finish(&b);
}

/* Everything that arrives is checked to come from where the client sends to: also what others sent to it. */
static void test_each_hears_the_relay_from_the_address_it_knows(const char *first, const char *second,
								 const char *to_alice, const char *to_bob,
								 const char *alice_ip, const char *bob_ip)
{
	static uint8_t bytes[ARRIVAL_ROOM];
	struct bench b;
	begin_on(&b, first, second);
	struct client *alice = bound_at(&b, 0, alice_ip, to_alice), *bob = bound_at(&b, 1, bob_ip, to_bob);

	say(alice, bob, "hello");
	await_said(bob, alice, "hello");
	say(bob, alice, "hello");
	await_said(alice, bob, "hello");
	send_train(alice, bytes, make_train(bytes, alice, bob->slot, 0, 20, 1000, 500), 1000);
	EXPECT(await_train(bob, alice, 0, 20) == 1);
	ping(alice);
	ping(bob);
	tell_members(&b, 1);
	await(bob, RELAY_UDP_REFUSED);
	finish(&b);
}

static void test_a_relay_that_drains_sends_clients_away_until_it_is_taken_back(void)
{
	struct bench b;
	begin(&b);
	struct client *alice = bound(&b, 0), *bob = bound(&b, 1), *carol = &b.clients[2];

	udp_server_drain(b.server, 0);
	await(alice, RELAY_UDP_REFUSED);
	EXPECT(arrival.datagram.refused.reason == RELAY_UDP_RESTART);
	await(bob, RELAY_UDP_REFUSED);
	say(alice, bob, "on its way");
	await_said(bob, alice, "on its way");
	carol->fd = open_client("127.0.0.1");
	carol->relay = alice->relay;
	ask(carol);
	send_bind(carol);
	await(carol, RELAY_UDP_REFUSED);
	udp_server_undrain(b.server);
	AWAIT_OTHERS(&b.w, (ask(carol), send_bind(carol), receive_bytes(carol),
			    relay_udp_type(arrival.bytes, arrival.len) == RELAY_UDP_BOUND));
	finish(&b);
}

static uint8_t saved[4096];
static size_t saved_len;

static void save(void *owner, const uint8_t *bytes, size_t len)
{
	EXPECT(len <= sizeof(saved));
	memcpy(saved, bytes, len);
	saved_len = len;
}

/* The same key and port, and what was saved. */
static void start_next(struct bench *b, uint16_t port)
{
	const struct udp_server_options options = { .n_listen = 1,
						    .listen = { at("127.0.0.1", port) },
						    .node_key = &b->secret,
						    .saved = saved,
						    .saved_len = saved_len };

	b->stopped = false;
	EXPECT(udp_server_start(&b->w.loop, &options, &b->server, NULL) == 0);
	tell_members(b, MAX_CLIENTS);
}

static void test_the_relay_that_follows_has_the_clients_of_the_one_before(void)
{
	struct bench b;
	begin_with(&b, &(struct udp_server_options){ .n_listen = 1, .listen = { at("127.0.0.1", 0) }, .save = save });
	struct client *alice = bound(&b, 0), *bob = bound(&b, 1);
	const uint16_t port = udp_server_port(b.server);

	stop(&b);
	await(alice, RELAY_UDP_REFUSED);
	await(bob, RELAY_UDP_REFUSED);
	start_next(&b, port);
	say(alice, bob, "still here");
	await_said(bob, alice, "still here");
	say(bob, alice, "so am I");
	await_said(alice, bob, "so am I");
	AWAIT_OTHERS(&b.w, counters(&b).clients.clients == 2);
	finish(&b);
}

static void test_clients_are_told_when_the_relay_stops(void)
{
	struct bench b;
	begin(&b);
	struct client *alice = bound(&b, 0), *bob = bound(&b, 1);

	stop(&b);
	await(alice, RELAY_UDP_REFUSED);
	EXPECT(arrival.datagram.refused.reason == RELAY_UDP_RESTART && arrival.datagram.refused.retry_after_ms > 0);
	await(bob, RELAY_UDP_REFUSED);
	finish(&b);
}

int main(void)
{
	const int fd6 = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	EXPECT(sodium_init() >= 0);
	test_members_find_each_other_and_their_packets_arrive();
	test_a_train_stays_a_train();
	test_a_train_to_two_peers_is_parted_and_keeps_its_order();
	test_a_long_train_goes_in_parts();
	test_probes_within_a_train_leave_by_themselves_and_in_their_order();
	test_probes_beyond_a_rate_are_dropped_and_counted();
	test_a_packet_too_long_for_a_frame_is_dropped_on_its_way_to_tls();
	test_stun_has_the_same_port();
	test_who_is_no_client_is_told_so_and_reaches_nobody();
	test_a_forged_bind_is_not_answered();
	test_a_replayed_bind_moves_nobody();
	test_a_client_that_moves_is_back_after_one_round_trip();
	test_a_removed_member_is_told_and_loses_the_relay();
	test_each_hears_the_relay_from_the_address_it_knows("0.0.0.0", NULL, "127.0.0.3", "127.0.0.4", "127.0.0.1",
							     "127.0.0.1");
	test_each_hears_the_relay_from_the_address_it_knows("127.0.0.3", "127.0.0.4", "127.0.0.3", "127.0.0.4",
							     "127.0.0.1", "127.0.0.1");
	if (fd6 >= 0) {
		test_each_hears_the_relay_from_the_address_it_knows("::", NULL, "127.0.0.3", "::1", "127.0.0.1",
								     "::1");
		test_each_hears_the_relay_from_the_address_it_knows("::1", "127.0.0.2", "::1", "127.0.0.2", "::1",
								     "127.0.0.1");
		close(fd6);
	}
	test_a_relay_that_drains_sends_clients_away_until_it_is_taken_back();
	test_the_relay_that_follows_has_the_clients_of_the_one_before();
	test_clients_are_told_when_the_relay_stops();
	puts("ok");
	return 0;
}
