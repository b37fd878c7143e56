/*
 * Every way of copying and summing that this CPU has does what memcpy and a sum byte pair by byte pair
 * do: any length, any alignment, and not a byte beyond.
 */
#include "node/wireguard/copy_sum.h"
#include "node/wireguard/offload.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_LEN 2048
#define ROOM	(MAX_LEN + 256)

static uint8_t from[ROOM], to[ROOM];

/* Of 16-bit words in network order. */
static uint16_t model_sum(const uint8_t *bytes, size_t len)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < len; i++) {
		sum += (uint32_t)(i % 2 ? bytes[i] : bytes[i] << 8);
		sum = (sum & 0xffff) + (sum >> 16);
	}
	return (uint16_t)sum;
}

static uint16_t in_network_order(uint16_t memory_order)
{
	uint8_t bytes[2];

	memcpy(bytes, &memory_order, 2);
	return (uint16_t)(bytes[0] << 8 | bytes[1]);
}

static void check(copy_sum_fn copy_sum, uint32_t from_at, uint32_t to_at, uint32_t len)
{
	memset(to, 0xa5, sizeof(to));
	uint16_t sum = in_network_order(offload_fold(copy_sum(to + to_at, from + from_at, len)));

	assert(sum == model_sum(from + from_at, len));
	assert(memcmp(to + to_at, from + from_at, len) == 0);
	for (uint32_t i = 0; i < to_at; i++)
		assert(to[i] == 0xa5);
	for (uint32_t i = to_at + len; i < to_at + len + 130; i++)
		assert(to[i] == 0xa5);
}

static void test_every_length_is_copied_and_summed(copy_sum_fn copy_sum)
{
	for (uint32_t len = 0; len <= MAX_LEN; len++)
		check(copy_sum, 1, 3, len);
}

static void test_every_alignment_is_copied_and_summed(copy_sum_fn copy_sum)
{
	static const uint32_t lens[] = { 0, 1, 63, 64, 65, 127, 128, 129, 255, 1368 };

	for (size_t i = 0; i < sizeof(lens) / sizeof(*lens); i++)
		for (uint32_t at = 0; at < 64; at++) {
			check(copy_sum, at, 63 - at, lens[i]);
			check(copy_sum, 0, at, lens[i]);
		}
}

/* The sum of 64 KB of ones is the one with most carries. */
static void test_no_carry_is_lost(copy_sum_fn copy_sum)
{
	static uint8_t ones[65536], copy[65536];

	memset(ones, 0xff, sizeof(ones));
	assert(offload_fold(copy_sum(copy, ones, sizeof(ones))) == 0xffff);
	assert(offload_fold(copy_sum(copy, ones, sizeof(ones) - 1)) ==
	       offload_fold(offload_sum(ones, sizeof(ones) - 1, 0)));
	memset(from, 0xff, sizeof(from));
	test_every_length_is_copied_and_summed(copy_sum);
}

/* What is not to be read is not touched: the last byte is the last of its block for the sanitizer. */
static void test_nothing_beyond_the_end_is_read_or_written(copy_sum_fn copy_sum)
{
	for (uint32_t len = 0; len < 300; len++) {
		uint8_t *source = malloc(len + 1), *copy = malloc(len + 1);
		assert(source && copy);
		memset(source, 1, len);
		copy_sum(copy, source, len);
		assert(memcmp(copy, source, len) == 0);
		free(source);
		free(copy);
	}
}

int main(void)
{
	struct copy_sum_way ways[COPY_SUM_MAX_WAYS];
	uint32_t n = copy_sum_ways(ways);

	srand(1);
	assert(n > 0 && strcmp(ways[0].name, "portable") == 0 && copy_sum_best() == ways[n - 1].fn);
	for (uint32_t i = 0; i < n; i++) {
		for (size_t k = 0; k < sizeof(from); k++)
			from[k] = (uint8_t)rand();
		test_every_length_is_copied_and_summed(ways[i].fn);
		test_every_alignment_is_copied_and_summed(ways[i].fn);
		test_nothing_beyond_the_end_is_read_or_written(ways[i].fn);
		test_no_carry_is_lost(ways[i].fn);
		printf("%s: ok\n", ways[i].name);
	}
	return 0;
}
