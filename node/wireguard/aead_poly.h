/*
 * Poly1305 of one message in the scalar unit, which is idle while vectors make the key stream.
 *
 * Numbers modulo 2^130 - 5 are h0 + h1 2^64 + h2 2^128, h2 being small. A product's part from 2^130
 * on counts five times; r1 is a multiple of 4 (RFC 8439 clamps it), so that r1 2^128 is 5/4 r1.
 */
#pragma once

#include "node/wireguard/aead_lanes.h"

#ifdef __x86_64__

#define WG_POLY_BLOCK 16

struct wg_poly {
	uint64_t h[3];
	uint64_t r[2];
	uint64_t r1_round; /* 5/4 r1 */
	uint64_t pad[2];
};

/* Of the first 32 bytes of the key stream, as numbers. */
static inline void wg_poly_init(struct wg_poly *poly, const uint64_t key[4])
{
	const uint64_t r1 = key[1] & 0x0ffffffc0ffffffc;

	*poly = (struct wg_poly){ .r = { key[0] & 0x0ffffffc0fffffff, r1 },
				  .r1_round = r1 + (r1 >> 2),
				  .pad = { key[2], key[3] } };
}

/*
 * h = (h + block + 2^128) r, n times, of 16 bytes each. Written in assembly because GCC makes twice as many
 * instructions of carries. Needs BMI2.
 */
static inline __attribute__((always_inline)) void wg_poly_blocks(struct wg_poly *poly,
								 const uint8_t *block, unsigned n)
{
	uint64_t h0 = poly->h[0], h1 = poly->h[1], h2 = poly->h[2], a, b, c, d;

	for (; n > 0; n--, block += WG_POLY_BLOCK) {
		__asm__("add (%[block]), %[h0]\n\t"
			"adc 8(%[block]), %[h1]\n\t"
			"adc $1, %[h2]\n\t"
			"mov %[r0], %%rdx\n\t"
			"mulx %[h0], %[a], %[b]\n\t"
			"mulx %[h1], %[c], %[d]\n\t"
			"imul %[h2], %%rdx\n\t"
			"add %%rdx, %[d]\n\t"
			"mov %[r1], %%rdx\n\t"
			"mulx %[h0], %[h0], %%rdx\n\t"
			"add %[h0], %[c]\n\t"
			"adc %%rdx, %[d]\n\t"
			"mov %[r1_round], %%rdx\n\t"
			"mulx %[h1], %[h0], %[h1]\n\t"
			"imul %%rdx, %[h2]\n\t"
			"add %[a], %[h0]\n\t"
			"adc %[b], %[h1]\n\t"
			"add %[h2], %[c]\n\t"
			"adc $0, %[d]\n\t"
			"add %[c], %[h1]\n\t"
			"adc $0, %[d]\n\t"
			/* from 2^130 on: (d / 4) 5 */
			"mov %[d], %[h2]\n\t"
			"mov %[d], %[a]\n\t"
			"and $-4, %[d]\n\t"
			"shr $2, %[a]\n\t"
			"and $3, %[h2]\n\t"
			"add %[a], %[d]\n\t"
			"add %[d], %[h0]\n\t"
			"adc $0, %[h1]\n\t"
			"adc $0, %[h2]"
			: [h0] "+&r"(h0), [h1] "+&r"(h1), [h2] "+&r"(h2), [a] "=&r"(a), [b] "=&r"(b),
			  [c] "=&r"(c), [d] "=&r"(d)
			: [block] "r"(block), [r0] "rm"(poly->r[0]), [r1] "rm"(poly->r[1]),
			  [r1_round] "rm"(poly->r1_round), "m"(*(const uint8_t(*)[WG_POLY_BLOCK])block)
			: "rdx", "cc");
	}
	poly->h[0] = h0;
	poly->h[1] = h1;
	poly->h[2] = h2;
}

static inline __attribute__((always_inline)) void wg_poly_block(struct wg_poly *poly,
								const uint8_t *block)
{
	wg_poly_blocks(poly, block, 1);
}

/* What is left of a message of `size` bytes from `from` (a multiple of 16) on, and its length. */
static inline void wg_poly_rest(struct wg_poly *poly, const uint8_t *data, uint32_t from, uint32_t size)
{
	const uint64_t lengths[2] = { 0, size };
	uint8_t part[WG_POLY_BLOCK] = { 0 };

	for (; size - from >= WG_POLY_BLOCK; from += WG_POLY_BLOCK)
		wg_poly_block(poly, data + from);
	if (size > from) {
		memcpy(part, data + from, size - from);
		wg_poly_block(poly, part);
	}
	wg_poly_block(poly, (const uint8_t *)lengths);
}

/* h modulo 2^130 - 5, and the pad added modulo 2^128. */
static inline void wg_poly_final(const struct wg_poly *poly, uint64_t ret_tag[2])
{
	uint64_t h0 = poly->h[0], h1 = poly->h[1], h2 = poly->h[2];
	uint64_t g0, g1, carry;

	/* g = h + 5: if that reaches 2^130, it is (modulo that) what h was too large by */
	g0 = h0 + 5;
	carry = g0 < h0;
	g1 = h1 + carry;
	carry &= g1 == 0;
	const uint64_t above = 0 - ((h2 + carry) >> 2);
	h0 ^= above & (h0 ^ g0);
	h1 ^= above & (h1 ^ g1);
	ret_tag[0] = h0 + poly->pad[0];
	ret_tag[1] = h1 + poly->pad[1] + (ret_tag[0] < h0);
}

#endif
