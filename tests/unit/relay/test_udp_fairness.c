/*
 * The relay over UDP behind a narrow way out: one who sends as fast as it can loses its own packets, and nobody
 * else's. In a network namespace of its own, where loopback lets only so much of what the relay sends pass; skipped
 * where that cannot be had.
 */
#include "relay/udp_server.h"
#include "udp_client.h"
#include "world.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SKIPPED	  77
#define N_CLIENTS 6 /* a fast one, who it sends to, and two pairs */
#define N_PACKETS 200
#define PACKET	  1000

struct bench {
	struct world w;
	struct udp_server *server;
	struct secret_key secret;
	struct public_key public;
	struct client clients[N_CLIENTS];
	bool stopped;
};

static bool succeeds(const char *command)
{
	return system(command) == 0;
}

static bool has_own_network(void)
{
	if (unshare(CLONE_NEWNET) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0)
		return false;
	return succeeds("ip link set lo up 2>/dev/null");
}

/* Of loopback, what comes from this port: so many bits a second; what waits for that lies in the socket's buffer. */
static bool narrow(uint16_t port)
{
	char command[512];

	snprintf(command, sizeof(command),
		 "{ tc qdisc add dev lo root handle 1: htb && "
		 "tc class add dev lo parent 1: classid 1:3 htb rate 80mbit burst 128kb && "
		 "tc qdisc add dev lo parent 1:3 pfifo limit 10000 && "
		 "tc filter add dev lo parent 1: protocol ip u32 match ip sport %u 0xffff flowid 1:3; } 2>/dev/null",
		 port);
	return succeeds(command);
}

static void begin(struct bench *b)
{
	struct udp_server_options options = { .n_listen = 1, .listen = { at("127.0.0.1", 0) } };
	struct key_table *members = calloc(1, sizeof(*members));

	*b = (struct bench){ 0 };
	world_begin(&b->w);
	secret_key_generate(&b->secret);
	secret_key_public(&b->secret, &b->public);
	options.node_key = &b->secret;
	EXPECT(members && udp_server_start(&b->w.loop, &options, &b->server, NULL) == 0);
	key_table_init(members);
	for (int i = 0; i < N_CLIENTS; i++) {
		make_client(&b->clients[i], &b->public);
		key_table_put(members, &b->clients[i].public, b);
	}
	udp_server_set_members(b->server, members);
	for (int i = 0; i < N_CLIENTS; i++)
		bind_client(&b->clients[i], "127.0.0.1", at("127.0.0.1", udp_server_port(b->server)));
}

static void on_stopped(void *owner)
{
	((struct bench *)owner)->stopped = true;
}

static void finish(struct bench *b)
{
	udp_server_stop(b->server, on_stopped, b);
	AWAIT(&b->w, b->stopped);
	for (int i = 0; i < N_CLIENTS; i++)
		close(b->clients[i].fd);
	world_end(&b->w);
}

static void send_number_to(const struct client *from, const struct client *to, uint32_t number)
{
	uint8_t bytes[PACKET] = { 0 };

	memcpy(bytes, &number, sizeof(number));
	send_datagram(from, &(struct relay_udp_datagram){ .type = RELAY_UDP_DATA,
							  .header = header_to(from, RELAY_UDP_DATA, to->slot),
							  .packet = { bytes, sizeof(bytes) } });
}

static bool has_something(const struct client *client)
{
	struct pollfd wait = { .fd = client->fd, .events = POLLIN };

	return poll(&wait, 1, 0) > 0;
}

/* All that has arrived is from the sender, in order, from *next on. */
static void take_numbers(const struct client *client, const struct client *from, uint32_t *next)
{
	while (has_something(client)) {
		await(client, RELAY_UDP_DATA);
		for (size_t i = 0; i < arrival.len; i += arrival.size, ++*next) {
			struct relay_udp_header header;
			uint32_t number;
			EXPECT(relay_udp_header_decode(arrival.bytes + i, arrival.len - i, &header));
			memcpy(&number, arrival.bytes + i + RELAY_UDP_HEADER_LEN, sizeof(number));
			EXPECT(header.from == from->slot && number == *next);
		}
	}
}

/* What was sent to the relay so far it has taken from its socket: or the kernel would drop, and not it, when it is late. */
static bool has_taken_all(uint16_t port)
{
	FILE *sockets = fopen("/proc/thread-self/net/udp", "r");
	char line[256];
	unsigned local = 0, waiting = 1;
	bool found = false;

	EXPECT(sockets);
	while (!found && fgets(line, sizeof(line), sockets))
		found = sscanf(line, " %*u: %*x:%x %*x:%*x %*x %*x:%x", &local, &waiting) == 2 && local == port;
	fclose(sockets);
	EXPECT(found);
	return waiting == 0;
}

static void test_a_fast_sender_loses_its_own_packets_and_nobody_elses(void)
{
	struct bench b;
	uint32_t next[2] = { 0 }, n_fast = 0;
	begin(&b);
	const struct client *fast = &b.clients[0], *slow = &b.clients[1], *pairs = &b.clients[2];
	if (!narrow(udp_server_port(b.server))) {
		finish(&b);
		puts("skipped: tc cannot narrow loopback here");
		exit(SKIPPED);
	}

	/* Until the way out is full and the fast one loses. */
	while (udp_server_counters(b.server).out.full[RELAY_OUTBOX_DATA] == 0)
		for (int i = 0; i < 20; i++)
			send_number_to(fast, slow, n_fast++);
	AWAIT_OTHERS(&b.w, has_taken_all(udp_server_port(b.server)));
	/* Now everybody. */
	for (uint32_t i = 0; i < N_PACKETS; i++) {
		for (int j = 0; j < 20; j++)
			send_number_to(fast, slow, n_fast++);
		for (int pair = 0; pair < 2; pair++) {
			send_number_to(&pairs[2 * pair], &pairs[2 * pair + 1], i);
			take_numbers(&pairs[2 * pair + 1], &pairs[2 * pair], &next[pair]);
		}
		run_for(&b.w, 2);
	}
	AWAIT_OTHERS(&b.w, (take_numbers(&pairs[1], &pairs[0], &next[0]), next[0] == N_PACKETS));
	AWAIT_OTHERS(&b.w, (take_numbers(&pairs[3], &pairs[2], &next[1]), next[1] == N_PACKETS));
	EXPECT(udp_server_counters(b.server).out.failed[RELAY_OUTBOX_DATA] == 0);
	finish(&b);
}

int main(void)
{
	EXPECT(sodium_init() >= 0);
	if (!has_own_network()) {
		puts("skipped: no network namespace");
		return SKIPPED;
	}
	test_a_fast_sender_loses_its_own_packets_and_nobody_elses();
	puts("ok");
	return 0;
}
