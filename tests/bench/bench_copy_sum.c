/*
 * What a segment of a superpacket costs: copying and summing in one pass, in every way that this CPU
 * has, beside memcpy and a sum of its own; and the whole cut, headers and all. In cache; medians.
 *
 *   bench_copy_sum [payload bytes of a segment, 1368]
 */
#include "node/wireguard/copy_sum.h"
#include "node/wireguard/offload.h"

#include "bench_clock.h"

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SEGMENTS 45
#define STRIDE	 2048
#define ROUNDS	 51
#define ROUND_NS 500000

static uint8_t super[OFFLOAD_MAX_PACKET], slots[SEGMENTS * STRIDE];
static uint32_t segment = 1368;
static volatile uint64_t sink;

static uint64_t separately(void *to, const void *from, size_t len)
{
	memcpy(to, from, len);
	return offload_sum(to, len, 0);
}

static uint64_t copy_only(void *to, const void *from, size_t len)
{
	memcpy(to, from, len);
	return 0;
}

static void train_by(copy_sum_fn copy_sum)
{
	for (uint32_t i = 0; i < SEGMENTS; i++)
		sink += copy_sum(slots + i * STRIDE + 68, super + 52 + i * segment, segment);
}

static void cut_all(copy_sum_fn copy_sum)
{
	const struct offload_header header = { .flags = OFFLOAD_NEEDS_CSUM, .gso_type = OFFLOAD_GSO_TCP4,
					       .gso_size = (uint16_t)segment, .csum_start = 20, .csum_offset = 16 };
	struct offload_cut cut;
	struct train train;
	bool is_super;

	if (offload_begin(&header, super, 52 + SEGMENTS * segment, &cut, &is_super) != 0)
		abort();
	cut.copy_sum = copy_sum;
	while (offload_next(&cut, slots + 16, STRIDE, SEGMENTS, &train))
		sink += train.n;
}

static int by_size(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double ns_per_segment(void (*work)(copy_sum_fn copy_sum), copy_sum_fn copy_sum)
{
	double rounds[ROUNDS];

	for (int i = 0; i < ROUNDS; i++) {
		uint64_t begin = thread_ns(), now;
		uint32_t n = 0;
		do {
			work(copy_sum);
			n += SEGMENTS;
		} while ((now = thread_ns()) - begin < ROUND_NS);
		rounds[i] = (double)(now - begin) / n;
	}
	qsort(rounds, ROUNDS, sizeof(*rounds), by_size);
	return rounds[ROUNDS / 2];
}

static void print(const char *name, copy_sum_fn copy_sum)
{
	printf("%-22s %8.1f %8.1f\n", name, ns_per_segment(train_by, copy_sum), ns_per_segment(cut_all, copy_sum));
}

int main(int argc, char *argv[])
{
	struct copy_sum_way ways[COPY_SUM_MAX_WAYS];
	uint32_t n = copy_sum_ways(ways);

	if (argc > 1)
		segment = (uint32_t)atoi(argv[1]);
	if (segment == 0 || segment > 1440)
		return fprintf(stderr, "usage: bench_copy_sum [1..1440]\n"), 2;
	for (size_t i = 0; i < sizeof(super); i++)
		super[i] = (uint8_t)rand();
	memset(super, 0, 52);
	super[0] = 0x45;
	super[9] = IPPROTO_TCP;
	super[32] = 8 << 4; /* with timestamps: 32 bytes of header */
	printf("ns per segment of %u bytes   payload      cut\n", segment);
	print("memcpy, no sum", copy_only);
	print("memcpy, then sum", separately);
	for (uint32_t i = 0; i < n; i++)
		print(ways[i].name, ways[i].fn);
	return 0;
}
