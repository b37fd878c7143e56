/*
 * What the two users of AVX-512 share (16 packets, and one packet): ChaCha20 of 16 blocks in
 * registers of 512 bits, and Poly1305 of 8 blocks with the 52-bit multiplier.
 *
 * Poly1305: vector l holds limb l of 8 numbers. Numbers modulo 2^130 - 5 are h0 + h1 2^44 + h2 2^88.
 * A product's low 52 bits and the rest are separate instructions; the rest counts
 * 2^52 = 2^44 2^8.
 */
#pragma once

#ifdef __x86_64__

#include <immintrin.h>

#define TARGET                                                                                     \
	__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,bmi2"),               \
		       no_sanitize("undefined")))
#define YMM_ROTATE(a, n) _mm256_rol_epi32(a, n)

/* Registers 16 to 31 are beyond what vzeroall knows. */
static inline __attribute__((always_inline)) TARGET void zmm_forget(void)
{
	_mm256_zeroall();
#define CLEAR(n) "vpxorq %%xmm" #n ", %%xmm" #n ", %%xmm" #n "\n\t"
	__asm__ volatile(CLEAR(16) CLEAR(17) CLEAR(18) CLEAR(19) CLEAR(20) CLEAR(21) CLEAR(22) CLEAR(23)
			 CLEAR(24) CLEAR(25) CLEAR(26) CLEAR(27) CLEAR(28) CLEAR(29) CLEAR(30) CLEAR(31)
			 :
			 :
			 : "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24",
			   "xmm25", "xmm26", "xmm27", "xmm28", "xmm29", "xmm30", "xmm31");
#undef CLEAR
}

#define YMM_FORGET() zmm_forget()

#include "node/wireguard/aead_ymm.h"

#define ZMM_WIDTH  16
#define ZMM_BLOCK  64
#define IFMA_WIDTH 8
#define IFMA_ALL   ((__mmask8)0xff)
#define LIMB_44    _mm512_set1_epi64((1LL << 44) - 1)
#define LIMB_42    _mm512_set1_epi64((1LL << 42) - 1)

/* aead_avx512_one.c; n packets, one after the other */
void wg_aead_avx512_seal_each(const uint8_t key[KEY_LEN], struct wg_aead_packet *packets, unsigned n);
void wg_aead_avx512_open_each(const uint8_t key[KEY_LEN], struct wg_aead_packet *packets, unsigned n);

/* ---- Poly1305 ---- */

struct ifma_number {
	__m512i limbs[3];
};

/* With 20 times itself: 2^132 = 4 * 5. */
struct ifma_factor {
	__m512i limbs[3], limbs_20[3];
};

/* Two 64-bit halves, as limbs of 44, 44 and 40 bits. */
INLINE void ifma_split(__m512i lo, __m512i hi, __m512i ret[3])
{
	ret[0] = _mm512_and_si512(lo, LIMB_44);
	ret[1] = _mm512_and_si512(
		_mm512_or_si512(_mm512_srli_epi64(lo, 44), _mm512_slli_epi64(hi, 20)), LIMB_44);
	ret[2] = _mm512_srli_epi64(hi, 24);
}

INLINE __m512i times_5(__m512i a)
{
	return _mm512_add_epi64(a, _mm512_slli_epi64(a, 2));
}

INLINE void ifma_set_factor(struct ifma_factor *factor, const __m512i limbs[3])
{
	for (unsigned i = 0; i < 3; i++) {
		factor->limbs[i] = limbs[i];
		factor->limbs_20[i] = _mm512_slli_epi64(times_5(limbs[i]), 2);
	}
}

/* r, clamped */
INLINE void ifma_set_r(struct ifma_factor *r, __m512i lo, __m512i hi)
{
	__m512i limbs[3];

	ifma_split(_mm512_and_si512(lo, _mm512_set1_epi64(0x0ffffffc0fffffff)),
		   _mm512_and_si512(hi, _mm512_set1_epi64(0x0ffffffc0ffffffc)), limbs);
	ifma_set_factor(r, limbs);
}

#define MUL_LO(acc, a, b) acc = _mm512_madd52lo_epu64(acc, a, b)
#define MUL_HI(acc, a, b) acc = _mm512_madd52hi_epu64(acc, a, b)

/* The limbs of the product may be a little too long: that does for the next. */
INLINE void ifma_multiply(const __m512i a[3], const struct ifma_factor *b, __m512i ret[3])
{
	const __m512i *r = b->limbs, *r20 = b->limbs_20, zero = _mm512_setzero_si512();
	__m512i lo0 = zero, lo1 = zero, lo2 = zero, hi0 = zero, hi1 = zero, hi2 = zero, carry;

#define MUL(n, x, y) MUL_LO(lo##n, x, y), MUL_HI(hi##n, x, y)
	MUL(0, a[0], r[0]);
	MUL(1, a[0], r[1]);
	MUL(2, a[0], r[2]);
	MUL(0, a[2], r20[1]);
	MUL(1, a[2], r20[2]);
	MUL(2, a[2], r[0]);
	MUL(0, a[1], r20[2]);
	MUL(1, a[1], r[0]);
	MUL(2, a[1], r[1]);
#undef MUL
	carry = _mm512_add_epi64(_mm512_srli_epi64(lo0, 44), _mm512_slli_epi64(hi0, 8));
	lo0 = _mm512_and_si512(lo0, LIMB_44);
	lo1 = _mm512_add_epi64(lo1, carry);
	carry = _mm512_add_epi64(_mm512_srli_epi64(lo1, 44), _mm512_slli_epi64(hi1, 8));
	lo1 = _mm512_and_si512(lo1, LIMB_44);
	lo2 = _mm512_add_epi64(lo2, carry);
	carry = _mm512_add_epi64(_mm512_srli_epi64(lo2, 42), _mm512_slli_epi64(hi2, 10));
	lo2 = _mm512_and_si512(lo2, LIMB_42);
	lo0 = _mm512_add_epi64(lo0, times_5(carry));
	lo1 = _mm512_add_epi64(lo1, _mm512_srli_epi64(lo0, 44));
	lo0 = _mm512_and_si512(lo0, LIMB_44);
	ret[0] = lo0;
	ret[1] = lo1;
	ret[2] = lo2;
}

/* sum = h + a block's two halves + 2^128 in the lanes of `who` */
INLINE void ifma_add_block(const struct ifma_number *h, __m512i lo, __m512i hi, __mmask8 who,
			   __m512i ret_sum[3])
{
	__m512i m[3];

	ifma_split(lo, hi, m);
	m[2] = _mm512_mask_or_epi64(m[2], who, m[2], _mm512_set1_epi64(1LL << 40));
	for (unsigned i = 0; i < 3; i++)
		ret_sum[i] = _mm512_add_epi64(h->limbs[i], m[i]);
}

/* ---- ChaCha20 ---- */

struct zmm_cipher {
	__m512i key[8];
	__m512i nonce[2]; /* the counter's halves; the nonce's first word is 0 */
	__m512i numbers;  /* of the blocks */
};

#define ZMM_STEP(x, y, z, n)                                                                       \
	v##x = _mm512_add_epi32(v##x, v##y),                                                       \
	v##z = _mm512_rol_epi32(_mm512_xor_si512(v##z, v##x), n)
#define ZMM_QUARTER(a, b, c, d)                                                                    \
	ZMM_STEP(a, b, d, 16), ZMM_STEP(c, d, b, 12), ZMM_STEP(a, b, d, 8), ZMM_STEP(c, d, b, 7)

/*
 * The state is in variables v0 to v15: in an array GCC would move it to and fro between the stack
 * and the registers.
 */
#define ZMM_BEGIN(cipher)                                                                          \
	__m512i v0 = _mm512_set1_epi32(0x61707865), v1 = _mm512_set1_epi32(0x3320646e);            \
	__m512i v2 = _mm512_set1_epi32(0x79622d32), v3 = _mm512_set1_epi32(0x6b206574);            \
	__m512i v4 = (cipher)->key[0], v5 = (cipher)->key[1], v6 = (cipher)->key[2];               \
	__m512i v7 = (cipher)->key[3], v8 = (cipher)->key[4], v9 = (cipher)->key[5];               \
	__m512i v10 = (cipher)->key[6], v11 = (cipher)->key[7], v12 = (cipher)->numbers;           \
	__m512i v13 = _mm512_setzero_si512(), v14 = (cipher)->nonce[0], v15 = (cipher)->nonce[1]
#define ZMM_END(cipher, ret)                                                                       \
	(ret)[0] = _mm512_add_epi32(v0, _mm512_set1_epi32(0x61707865));                            \
	(ret)[1] = _mm512_add_epi32(v1, _mm512_set1_epi32(0x3320646e));                            \
	(ret)[2] = _mm512_add_epi32(v2, _mm512_set1_epi32(0x79622d32));                            \
	(ret)[3] = _mm512_add_epi32(v3, _mm512_set1_epi32(0x6b206574));                            \
	(ret)[4] = _mm512_add_epi32(v4, (cipher)->key[0]);                                         \
	(ret)[5] = _mm512_add_epi32(v5, (cipher)->key[1]);                                         \
	(ret)[6] = _mm512_add_epi32(v6, (cipher)->key[2]);                                         \
	(ret)[7] = _mm512_add_epi32(v7, (cipher)->key[3]);                                         \
	(ret)[8] = _mm512_add_epi32(v8, (cipher)->key[4]);                                         \
	(ret)[9] = _mm512_add_epi32(v9, (cipher)->key[5]);                                         \
	(ret)[10] = _mm512_add_epi32(v10, (cipher)->key[6]);                                       \
	(ret)[11] = _mm512_add_epi32(v11, (cipher)->key[7]);                                       \
	(ret)[12] = _mm512_add_epi32(v12, (cipher)->numbers);                                      \
	(ret)[13] = v13;                                                                           \
	(ret)[14] = _mm512_add_epi32(v14, (cipher)->nonce[0]);                                     \
	(ret)[15] = _mm512_add_epi32(v15, (cipher)->nonce[1])

INLINE void zmm_set_key(struct zmm_cipher *cipher, const uint8_t key[KEY_LEN])
{
	for (unsigned i = 0; i < 8; i++) {
		uint32_t word;
		memcpy(&word, key + i * sizeof(word), sizeof(word));
		cipher->key[i] = _mm512_set1_epi32((int)word);
	}
}

/* Four vectors of four 16-byte cells: rows become columns. */
INLINE void zmm_transpose_cells(__m512i a, __m512i b, __m512i c, __m512i d, __m512i ret[4])
{
	const __m512i ab_even = _mm512_shuffle_i64x2(a, b, 0x88);
	const __m512i ab_odd = _mm512_shuffle_i64x2(a, b, 0xdd);
	const __m512i cd_even = _mm512_shuffle_i64x2(c, d, 0x88);
	const __m512i cd_odd = _mm512_shuffle_i64x2(c, d, 0xdd);

	ret[0] = _mm512_shuffle_i64x2(ab_even, cd_even, 0x88);
	ret[1] = _mm512_shuffle_i64x2(ab_odd, cd_odd, 0x88);
	ret[2] = _mm512_shuffle_i64x2(ab_even, cd_even, 0xdd);
	ret[3] = _mm512_shuffle_i64x2(ab_odd, cd_odd, 0xdd);
}

/* Four words of 16 packets: cell c of ret[p] has those of packet 4c + p. */
INLINE void zmm_words_to_cells(const __m512i words[4], __m512i ret[4])
{
	const __m512i ab_lo = _mm512_unpacklo_epi32(words[0], words[1]);
	const __m512i ab_hi = _mm512_unpackhi_epi32(words[0], words[1]);
	const __m512i cd_lo = _mm512_unpacklo_epi32(words[2], words[3]);
	const __m512i cd_hi = _mm512_unpackhi_epi32(words[2], words[3]);

	ret[0] = _mm512_unpacklo_epi64(ab_lo, cd_lo);
	ret[1] = _mm512_unpackhi_epi64(ab_lo, cd_lo);
	ret[2] = _mm512_unpacklo_epi64(ab_hi, cd_hi);
	ret[3] = _mm512_unpackhi_epi64(ab_hi, cd_hi);
}

/* 64 bytes for each packet (for each block). */
INLINE void zmm_words_to_rows(const __m512i words[16], __m512i ret_rows[ZMM_WIDTH])
{
	__m512i a[4], b[4], c[4], d[4], rows[4];

	zmm_words_to_cells(words, a);
	zmm_words_to_cells(words + 4, b);
	zmm_words_to_cells(words + 8, c);
	zmm_words_to_cells(words + 12, d);
#define ROWS(p)                                                                                    \
	zmm_transpose_cells(a[p], b[p], c[p], d[p], rows);                                         \
	ret_rows[p] = rows[0], ret_rows[4 + (p)] = rows[1];                                        \
	ret_rows[8 + (p)] = rows[2], ret_rows[12 + (p)] = rows[3]
	ROWS(0);
	ROWS(1);
	ROWS(2);
	ROWS(3);
#undef ROWS
}

/* The first `size` bytes; the rest is not touched and counts as zeros. */
INLINE __mmask64 zmm_first(uint32_t size)
{
	return size >= ZMM_BLOCK ? ~0ull : (1ull << size) - 1;
}

#endif
