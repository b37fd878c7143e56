/*
 * What sealing and opening a train costs, with every way that this CPU has, in one thread and in
 * cache. Rounds of all ways are interleaved; printed are medians.
 *
 *   bench_aead [rounds]
 */
#include "node/wireguard/aead.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_PACKETS 45
#define STRIDE      1536
#define MAX_WAYS    4
#define MAX_ROUNDS  101
#define ROUND_NS    1000000

struct way {
	struct wg_aead_lanes lanes;
	struct wg_aead aead;
	double seal_ns[MAX_ROUNDS], open_ns[MAX_ROUNDS]; /* per packet */
};

static struct wg_crypto crypto;
static uint8_t key[KEY_LEN];
static uint8_t data[MAX_PACKETS * STRIDE], sealed[MAX_PACKETS * STRIDE];
static struct wg_aead_packet packets[MAX_PACKETS];
static struct way ways[MAX_WAYS];
static unsigned n_ways;

static double now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int by_size(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *values, unsigned n)
{
	qsort(values, n, sizeof(*values), by_size);
	return values[n / 2];
}

static void seal(struct way *way, unsigned n)
{
	if (wg_aead_seal_packets(&way->aead, key, packets, n) != n)
		abort();
}

/* Of what was sealed: the copy is in the price. */
static void open_again(struct way *way, unsigned n, uint32_t size)
{
	for (unsigned i = 0; i < n; i++)
		memcpy(packets[i].data, sealed + i * STRIDE, size + WG_AEAD_TAG_LEN);
	wg_aead_open_packets(&way->aead, key, packets, n);
	for (unsigned i = 0; i < n; i++)
		if (!packets[i].is_good)
			abort();
}

static void measure_round(struct way *way, unsigned n, uint32_t size, unsigned round)
{
	unsigned times = 0;
	double begin = now_ns(), end;

	do {
		seal(way, n);
		times++;
		end = now_ns();
	} while (end - begin < ROUND_NS);
	way->seal_ns[round] = (end - begin) / (times * n);

	for (unsigned i = 0; i < n; i++)
		memset(packets[i].data, (int)i, size);
	seal(way, n);
	memcpy(sealed, data, sizeof(data));
	times = 0;
	begin = now_ns();
	do {
		open_again(way, n, size);
		times++;
		end = now_ns();
	} while (end - begin < ROUND_NS);
	way->open_ns[round] = (end - begin) / (times * n);
}

static void measure(unsigned n, uint32_t size, unsigned rounds)
{
	double base = 0;

	for (unsigned i = 0; i < n; i++)
		packets[i] = (struct wg_aead_packet){ .data = data + i * STRIDE,
						      .counter = 1000 + i,
						      .size = size };
	for (unsigned round = 0; round < rounds; round++)
		for (unsigned w = 0; w < n_ways; w++)
			measure_round(&ways[w], n, size, round);
	for (unsigned w = 0; w < n_ways; w++) {
		const double seal_ns = median(ways[w].seal_ns, rounds);
		const double open_ns = median(ways[w].open_ns, rounds);
		if (w == 0)
			base = seal_ns;
		printf("%6u %8u  %-14s %8.0f %8.0f %8.2f %7.2f\n", size, n, ways[w].lanes.name,
		       seal_ns, open_ns, size / seal_ns, base / seal_ns);
	}
}

/* Without the threshold, below which OpenSSL would be used. */
static void add_way(const struct wg_aead_lanes *lanes)
{
	static const struct wg_aead_lanes *const none[] = { NULL };
	struct way *way = &ways[n_ways++];

	if (wg_aead_init(&way->aead, &crypto, none) != 0)
		abort();
	if (!lanes) {
		way->lanes.name = "openssl";
		return;
	}
	way->lanes = *lanes;
	memset(way->lanes.at_least, 1, sizeof(way->lanes.at_least));
	way->aead.lanes = &way->lanes;
}

int main(int argc, char **argv)
{
	static const uint32_t sizes[] = { 64, 576, 1280, 1420 };
	static const unsigned trains[] = { 1, 2, 4, 6, 8, 16, 45 };
	const int asked = argc > 1 ? atoi(argv[1]) : 7;
	const unsigned rounds = asked < 1 ? 1 : asked > MAX_ROUNDS ? MAX_ROUNDS : (unsigned)asked;

	if (sodium_init() < 0 || wg_crypto_init(&crypto) != 0)
		return 1;
	randombytes_buf(key, sizeof(key));
	add_way(NULL);
	for (const struct wg_aead_lanes *const *l = wg_aead_all_lanes; *l; l++)
		if ((*l)->is_supported())
			add_way(*l);
	printf("%6s %8s  %-14s %8s %8s %8s %7s\n", "bytes", "packets", "way", "seal ns", "open ns",
	       "GB/s", "x");
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
		for (size_t k = 0; k < ARRAY_LEN(trains); k++)
			measure(trains[k], sizes[i], rounds);
	for (unsigned w = 0; w < n_ways; w++)
		wg_aead_deinit(&ways[w].aead);
	wg_crypto_deinit(&crypto);
}
