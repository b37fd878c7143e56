/*
 * What a client over UDP costs a relay that is idle: memory of each, and the time for its keep-alives, but for the
 * system calls (which bench_relay_load measures as single packets).
 *
 *   bench_relay_clients [CLIENTS]
 */
#include "relay/udp_clients.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MILLISECOND_NS	UINT64_C(1000000)
#define KEEP_ALIVE_S	20
#define TICKS_A_SECOND	4

struct bench_client {
	uint32_t slot, token, challenge;
};

static struct udp_clients *clients;
static struct public_key relay_key;
static uint64_t now_ns = UINT64_C(1000000000000);

static void fail(const char *what)
{
	fprintf(stderr, "bench_relay_clients: %s\n", what);
	exit(EXIT_FAILURE);
}

static long rss_bytes(void)
{
	long pages = 0;
	FILE *file = fopen("/proc/self/statm", "re");

	if (!file || fscanf(file, "%*d %ld", &pages) != 1)
		fail("no /proc/self/statm");
	fclose(file);
	return pages * sysconf(_SC_PAGESIZE);
}

static double cpu_seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Each in a /24 of its own. */
static struct udp_way way_of(uint32_t i)
{
	return (struct udp_way){ .remote = endpoint_from_v4(0x0a000001 + (i << 8), 40000) };
}

static struct relay_udp_datagram say(uint32_t i, uint8_t *bytes, size_t len)
{
	const struct udp_way way = way_of(i);
	struct relay_udp_datagram answer;
	struct udp_clients_result result;

	if (udp_clients_take(clients, &way, bytes, len, now_ns, &result) != UDP_CLIENTS_ANSWER ||
	    relay_udp_decode(result.answer, result.answer_len, &answer) != 0)
		fail("the relay does not answer");
	return answer;
}

static void bind_client(uint32_t i, struct bench_client *client)
{
	uint8_t bytes[RELAY_UDP_MAX_LEN];
	struct secret_key secret;
	struct public_key public;
	struct relay_udp_key proof;
	struct relay_udp_datagram ask = { .type = RELAY_UDP_ASK, .ask = { .number = i } };

	secret_key_generate(&secret);
	secret_key_public(&secret, &public);
	if (relay_udp_key(&secret, &public, &relay_key, false, &proof) != 0)
		fail("no key");
	struct relay_udp_datagram cookie = say(i, bytes, relay_udp_encode(bytes, sizeof(bytes), &ask));
	struct relay_udp_datagram bind = { .type = RELAY_UDP_BIND,
					   .bind = { .version = RELAY_UDP_VERSION, .node_key = public, .number = i } };
	memcpy(bind.bind.cookie, cookie.cookie.cookie, sizeof(bind.bind.cookie));
	size_t len = relay_udp_encode(bytes, sizeof(bytes), &bind);
	relay_udp_prove(&proof, bytes, len);
	struct relay_udp_datagram bound = say(i, bytes, len);
	if (bound.type != RELAY_UDP_BOUND)
		fail("not bound");
	*client = (struct bench_client){ bound.bound.slot, bound.bound.token, 0 };
	now_ns += 10000;
}

static void ping(uint32_t i, struct bench_client *client)
{
	uint8_t bytes[RELAY_UDP_MAX_LEN];
	struct relay_udp_datagram ping = { .type = RELAY_UDP_PING,
					   .header = { RELAY_UDP_PING, 0, client->slot, client->token },
					   .ping = { .number = i, .challenge = client->challenge } };
	struct relay_udp_datagram pong = say(i, bytes, relay_udp_encode(bytes, sizeof(bytes), &ping));

	if (pong.type != RELAY_UDP_PONG)
		fail("no pong");
	client->challenge = pong.ping.challenge;
}

/* One period of all: each pings once, and the relay looks around as often as it does. */
static double keep_alive(struct bench_client *list, uint32_t n)
{
	const uint32_t ticks = KEEP_ALIVE_S * TICKS_A_SECOND;
	double begin = cpu_seconds();

	for (uint32_t tick = 0; tick < ticks; tick++) {
		for (uint32_t i = tick; i < n; i += ticks)
			ping(i, &list[i]);
		now_ns += 1000 * MILLISECOND_NS / TICKS_A_SECOND;
		udp_clients_tick(clients, now_ns);
	}
	return cpu_seconds() - begin;
}

int main(int argc, char **argv)
{
	uint32_t n = argc > 1 ? (uint32_t)atoi(argv[1]) : 100000;
	struct udp_clients_config config = {
		.max_clients = n, .max_answers = UINT32_MAX, .max_binds_source = 100000, .max_proofs = UINT32_MAX
	};
	struct bench_client *list = calloc(n, sizeof(*list));

	if (!list || sodium_init() < 0)
		fail("out of memory");
	memset(list, 1, n * sizeof(*list));
	secret_key_generate(&config.node_key);
	secret_key_public(&config.node_key, &relay_key);
	if (udp_clients_new(&config, &clients) != 0)
		fail("out of memory");
	long before = rss_bytes();
	for (uint32_t i = 0; i < n; i++)
		bind_client(i, &list[i]);
	long after = rss_bytes();
	keep_alive(list, n); /* now all have a challenge */
	double cpu_s = keep_alive(list, n);
	if (udp_clients_counters(clients).clients != n)
		fail("clients were lost");
	printf("relay: %u clients over UDP: %ld bytes each; their keep-alives %.2f %% of a core, but for system calls\n", n,
	       (after - before) / (long)n, 100 * cpu_s / KEEP_ALIVE_S);
	udp_clients_free(clients);
	free(list);
	return 0;
}
