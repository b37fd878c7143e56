/*
 * What sealing and opening a train costs, in one thread and in cache: with OpenSSL, libsodium, and
 * whatever lanes this CPU has, as they are used and (with "ways") every way of theirs alone.
 *
 *   bench_aead [rounds [ways]]
 *
 * Rounds of all are interleaved and count CPU time, since other programs run here too. Printed are
 * medians, and how many times faster than OpenSSL sealing is.
 */
#include "node/wireguard/aead.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_PACKETS 45
#define STRIDE	    1536
#define MAX_WAYS    16
#define MAX_ROUNDS  101
#define ROUND_NS    1000000

struct way {
	char name[32];
	struct wg_aead aead;
	struct wg_aead_lanes alone; /* one way of some lanes, for any number of packets */
	bool is_sodium;
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

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
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

static void sodium_seal(const struct wg_aead_packet *packet)
{
	uint8_t nonce[12] = { 0 };

	memcpy(nonce + 4, &packet->counter, sizeof(packet->counter));
	crypto_aead_chacha20poly1305_ietf_encrypt(packet->data, NULL, packet->data, packet->size,
						  NULL, 0, NULL, nonce, key);
}

static void sodium_open(struct wg_aead_packet *packet)
{
	uint8_t nonce[12] = { 0 };

	memcpy(nonce + 4, &packet->counter, sizeof(packet->counter));
	packet->is_good = crypto_aead_chacha20poly1305_ietf_decrypt(
				  packet->data, NULL, NULL, packet->data,
				  packet->size + WG_AEAD_TAG_LEN, NULL, 0, nonce, key) == 0;
}

static void seal(struct way *way, unsigned n)
{
	if (way->is_sodium)
		for (unsigned i = 0; i < n; i++)
			sodium_seal(&packets[i]);
	else if (wg_aead_seal_packets(&way->aead, key, packets, n) != n)
		abort();
}

/* Of what was sealed: the copy is in the price. */
static void open_again(struct way *way, unsigned n, uint32_t size)
{
	for (unsigned i = 0; i < n; i++)
		memcpy(packets[i].data, sealed + i * STRIDE, size + WG_AEAD_TAG_LEN);
	if (way->is_sodium)
		for (unsigned i = 0; i < n; i++)
			sodium_open(&packets[i]);
	else
		wg_aead_open_packets(&way->aead, key, packets, n);
	for (unsigned i = 0; i < n; i++)
		if (!packets[i].is_good)
			abort();
}

/* The clock is a system call: not after every train. */
static unsigned repeats(unsigned n, uint32_t size)
{
	return 1 + 100000 / (n * (size + 300));
}

static void measure_round(struct way *way, unsigned n, uint32_t size, unsigned round)
{
	const unsigned times = repeats(n, size);
	unsigned done = 0;
	double begin = now_ns(), end;

	do {
		for (unsigned i = 0; i < times; i++)
			seal(way, n);
		done += times;
		end = now_ns();
	} while (end - begin < ROUND_NS);
	way->seal_ns[round] = (end - begin) / (done * n);

	for (unsigned i = 0; i < n; i++)
		memset(packets[i].data, (int)i, size);
	seal(way, n);
	memcpy(sealed, data, sizeof(data));
	done = 0;
	begin = now_ns();
	do {
		for (unsigned i = 0; i < times; i++)
			open_again(way, n, size);
		done += times;
		end = now_ns();
	} while (end - begin < ROUND_NS);
	way->open_ns[round] = (end - begin) / (done * n);
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
		printf("%6u %8u  %-12s %8.0f %8.0f %8.2f %7.2f\n", size, n, ways[w].name, seal_ns,
		       open_ns, size / seal_ns, base / seal_ns);
	}
}

static struct way *add_way(const char *name)
{
	static const struct wg_aead_lanes *const none[] = { NULL };
	struct way *way = &ways[n_ways++];

	if (n_ways > MAX_WAYS || wg_aead_init(&way->aead, &crypto, none) != 0)
		abort();
	snprintf(way->name, sizeof(way->name), "%s", name);
	return way;
}

static void add_lanes(const struct wg_aead_lanes *lanes, bool each_way)
{
	char name[32];

	add_way(lanes->name)->aead.lanes = lanes;
	for (unsigned i = 0; each_way && i < WG_AEAD_MAX_WAYS && lanes->ways[i].width > 0; i++) {
		snprintf(name, sizeof(name), "%s way %u", lanes->name, i);
		struct way *way = add_way(name);
		way->alone.ways[0] = lanes->ways[i];
		memset(way->alone.ways[0].at_least, 1, sizeof(way->alone.ways[0].at_least));
		way->aead.lanes = &way->alone;
	}
}

int main(int argc, char **argv)
{
	static const uint32_t sizes[] = { 64, 200, 576, 1280, 1420 };
	static const unsigned trains[] = { 1, 2, 4, 8, 16, 45 };
	const int asked = argc > 1 ? atoi(argv[1]) : 7;
	const unsigned rounds = asked < 1 ? 1 : asked > MAX_ROUNDS ? MAX_ROUNDS : (unsigned)asked;

	if (sodium_init() < 0 || wg_crypto_init(&crypto) != 0)
		return 1;
	randombytes_buf(key, sizeof(key));
	add_way("openssl");
	add_way("libsodium")->is_sodium = true;
	for (const struct wg_aead_lanes *const *l = wg_aead_all_lanes; *l; l++)
		if ((*l)->is_supported())
			add_lanes(*l, argc > 2);
	printf("%6s %8s  %-12s %8s %8s %8s %7s\n", "bytes", "packets", "way", "seal ns", "open ns",
	       "GB/s", "x");
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
		for (size_t k = 0; k < ARRAY_LEN(trains); k++)
			measure(trains[k], sizes[i], rounds);
	for (unsigned w = 0; w < n_ways; w++)
		wg_aead_deinit(&ways[w].aead);
	wg_crypto_deinit(&crypto);
}
