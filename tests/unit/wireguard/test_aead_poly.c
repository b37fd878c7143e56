/*
 * The ways to compute Poly1305 that the lanes have, with keys and messages for which carries travel
 * far and results lie at the edge of 2^130 - 5. Key stream would hardly ever make such keys, hence
 * the files themselves are included. libsodium is the oracle.
 */
#include "node/wireguard/aead_poly.h"
#include "tests/unit/wireguard/hex.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

#ifdef __x86_64__

#include "node/wireguard/aead_avx512.c"
#include "node/wireguard/aead_avx512_one.c"

#define MAX_SIZE 700

__extension__ typedef unsigned __int128 u128;

typedef void authenticate(const uint64_t key[4], const uint8_t *data, uint32_t size, uint64_t tag[2]);

/* ---- the three ways ---- */

static void with_scalars(const uint64_t key[4], const uint8_t *data, uint32_t size, uint64_t tag[2])
{
	struct wg_poly poly;

	wg_poly_init(&poly, key);
	wg_poly_rest(&poly, data, 0, size);
	wg_poly_final(&poly, tag);
}

/* Eight blocks at once. */
TARGET static void with_powers(const uint64_t key[4], const uint8_t *data, uint32_t size, uint64_t tag[2])
{
	struct wide_poly poly;

	wide_init(&poly, key, size);
	while (poly.at + STEP < poly.end)
		absorb_step(&poly, data, size, size);
	read_last(&poly, data, size);
	wide_final(&poly, tag);
}

/* Eight packets at once: here all alike. */
TARGET static void in_lanes(const uint64_t key[4], const uint8_t *data, uint32_t size, uint64_t tag[2])
{
	const __m512i sizes = _mm512_set1_epi64(size);
	struct front front = { 0 };
	uint64_t tags[2][HALF_OF_LANES];
	__m512i rows[HALF_OF_LANES], lo, hi;

	ifma_set_r(&front.r, _mm512_set1_epi64((long long)key[0]), _mm512_set1_epi64((long long)key[1]));
	front.pad[0] = _mm512_set1_epi64((long long)key[2]);
	front.pad[1] = _mm512_set1_epi64((long long)key[3]);
	for (uint32_t at = 0; at < size; at += ZMM_BLOCK) {
		for (unsigned i = 0; i < HALF_OF_LANES; i++)
			rows[i] = load_row(data, at, 0, size);
		put_off(&front, rows, _mm512_sub_epi64(sizes, _mm512_set1_epi64(at)));
		for (unsigned i = 0; i < 4; i++)
			front_absorb(&front, front.lo[i], front.hi[i], front.who[i]);
	}
	front_final(&front, sizes, &lo, &hi);
	_mm512_storeu_si512(tags[0], lo);
	_mm512_storeu_si512(tags[1], hi);
	for (unsigned i = 0; i < HALF_OF_LANES; i++)
		assert(tags[0][i] == tags[0][0] && tags[1][i] == tags[1][0]);
	tag[0] = tags[0][0];
	tag[1] = tags[1][0];
}

/* What RFC 8439 2.8 authenticates when there is no associated data. */
static void with_libsodium(const uint64_t key[4], const uint8_t *data, uint32_t size, uint64_t tag[2])
{
	uint8_t message[MAX_SIZE + 2 * WG_POLY_BLOCK] = { 0 };
	const uint32_t padded = (size + WG_POLY_BLOCK - 1) / WG_POLY_BLOCK * WG_POLY_BLOCK;
	const uint64_t length = size;

	memcpy(message, data, size);
	memcpy(message + padded + 8, &length, sizeof(length));
	crypto_onetimeauth_poly1305((uint8_t *)tag, message, padded + WG_POLY_BLOCK, (const uint8_t *)key);
}

/* ---- messages and keys ---- */

static void check(authenticate *way, const uint64_t key[4], const uint8_t *data, uint32_t size)
{
	uint64_t ours[2], theirs[2];

	with_libsodium(key, data, size, theirs);
	way(key, data, size, ours);
	assert(memcmp(ours, theirs, sizeof(ours)) == 0);
}

static const uint64_t extreme_keys[][4] = {
	{ 0, 0, 0, 0 },
	{ 1, 0, UINT64_MAX, UINT64_MAX },
	{ 2, 0, UINT64_MAX, 0 },
	{ 4, 0, 0, UINT64_MAX },
	{ UINT64_MAX, 0, 0, 0 },
	{ 0, UINT64_MAX, 1, 0 },
	{ UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX },
	{ 0x0fffffff, 4, 5, 6 },
};

/* Blocks of the RFC's own edge cases (A.3 #7 to #11), in any order. */
static void fill_with_extremes(uint8_t *data)
{
	static const char *const blocks[] = {
		"ffffffffffffffffffffffffffffffff", "00000000000000000000000000000000",
		"f0ffffffffffffffffffffffffffffff", "11000000000000000000000000000000",
		"fbfefefefefefefefefefefefefefefe", "01010101010101010101010101010101",
		"fdffffffffffffffffffffffffffffff", "02000000000000000000000000000000",
	};

	for (uint32_t at = 0; at + WG_POLY_BLOCK <= MAX_SIZE; at += WG_POLY_BLOCK)
		unhex(blocks[randombytes_uniform(ARRAY_LEN(blocks))], data + at, WG_POLY_BLOCK);
}

static void test_extreme_keys_and_blocks_of_every_length(authenticate *way)
{
	uint8_t data[MAX_SIZE];

	for (size_t k = 0; k < ARRAY_LEN(extreme_keys); k++)
		for (uint32_t size = 0; size <= MAX_SIZE; size++) {
			memset(data, size % 2 ? 0xff : 0, sizeof(data));
			check(way, extreme_keys[k], data, size);
			fill_with_extremes(data);
			check(way, extreme_keys[k], data, size);
		}
}

static void test_random_keys_of_every_length(authenticate *way)
{
	uint8_t data[MAX_SIZE];
	uint64_t key[4];

	for (uint32_t size = 0; size <= MAX_SIZE; size++) {
		randombytes_buf(data, sizeof(data));
		randombytes_buf(key, sizeof(key));
		check(way, key, data, size);
	}
}

/* With r = 1 the result is the sum of the blocks: two that with the lengths make 2^130 - 5 + d. */
static void test_results_around_the_modulus(authenticate *way)
{
	const uint64_t key[4] = { 1, 0, 0, 0 };
	u128 blocks[2];

	for (int d = -6; d <= 10; d++)
		for (unsigned round = 0; round < 50; round++) {
			const u128 sum = (u128)0 - 5 + (u128)(__int128_t)d - ((u128)sizeof(blocks) << 64);
			randombytes_buf(&blocks[0], sizeof(blocks[0]));
			if (blocks[0] > sum)
				blocks[0] = sum - blocks[0] % 1000;
			blocks[1] = sum - blocks[0];
			check(way, key, (const uint8_t *)blocks, sizeof(blocks));
		}
}

static void test_all(const char *name, authenticate *way)
{
	puts(name);
	test_extreme_keys_and_blocks_of_every_length(way);
	test_random_keys_of_every_length(way);
	test_results_around_the_modulus(way);
}

int main(void)
{
	if (sodium_init() < 0)
		return 1;
	if (__builtin_cpu_supports("bmi2"))
		test_all("scalars", with_scalars);
	if (wg_aead_avx512.is_supported()) {
		test_all("powers", with_powers);
		test_all("lanes", in_lanes);
	}
	puts("ok");
}

#else

int main(void)
{
	puts("no lanes for this CPU");
}

#endif
