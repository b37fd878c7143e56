/*
 * 16 packets at once with AVX-512 and its 52-bit multiplier.
 *
 * ChaCha20: vector w holds word w of the state of 16 packets, so one pass makes the same block of
 * the key stream of all; a transposition turns it into 16 rows of 64 bytes.
 *
 * Poly1305: vector l holds limb l of 8 packets, so there are two groups. Numbers modulo 2^130 - 5
 * are h0 + h1 2^44 + h2 2^88. A product's low 52 bits and the rest are separate instructions; the
 * rest counts 2^52 = 2^44 2^8.
 */
#include "node/wireguard/aead_lanes.h"

#ifdef __x86_64__

#include <immintrin.h>
#include <string.h>

#define TARGET   __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512ifma")))
#define INLINE   static inline __attribute__((always_inline)) TARGET
#define WIDTH    16
#define GROUPS   2
#define GROUP    8
#define BLOCK    64
#define POLY     16 /* bytes of a block of Poly1305 */
#define ALL      ((__mmask8)0xff)
#define LIMB_44  _mm512_set1_epi64((1LL << 44) - 1)
#define LIMB_42  _mm512_set1_epi64((1LL << 42) - 1)
#define CLAMP_LO _mm512_set1_epi64(0x0ffffffc0fffffff)
#define CLAMP_HI _mm512_set1_epi64(0x0ffffffc0ffffffc)

/* Four vectors of four 16-byte cells: rows become columns. */
INLINE void transpose_cells(__m512i a, __m512i b, __m512i c, __m512i d, __m512i ret[4])
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

/* ---- Poly1305 ---- */

struct poly {
	__m512i h[3];
	__m512i r[3];
	__m512i r20[3]; /* 20 r: 2^132 = 4 * 5. The first is not used */
	__m512i pad[2];
};

/* Two 64-bit halves, as limbs of 44, 44 and 40 bits. */
INLINE void to_limbs(__m512i lo, __m512i hi, __m512i ret[3])
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

INLINE void poly_init(struct poly *poly, __m512i r_lo, __m512i r_hi, __m512i pad_lo, __m512i pad_hi)
{
	to_limbs(_mm512_and_si512(r_lo, CLAMP_LO), _mm512_and_si512(r_hi, CLAMP_HI), poly->r);
	for (unsigned i = 0; i < 3; i++) {
		poly->h[i] = _mm512_setzero_si512();
		poly->r20[i] = _mm512_slli_epi64(times_5(poly->r[i]), 2);
	}
	poly->pad[0] = pad_lo;
	poly->pad[1] = pad_hi;
}

#define MUL_LO(acc, a, b) acc = _mm512_madd52lo_epu64(acc, a, b)
#define MUL_HI(acc, a, b) acc = _mm512_madd52hi_epu64(acc, a, b)

/* h = (h + block + 2^128) r, in the packets of `who`. Limbs may then be a little too long. */
INLINE void poly_block(struct poly *poly, __m512i lo, __m512i hi, __mmask8 who)
{
	const __m512i *r = poly->r, *r20 = poly->r20, zero = _mm512_setzero_si512();
	__m512i lo0 = zero, lo1 = zero, lo2 = zero, hi0 = zero, hi1 = zero, hi2 = zero, m[3], carry;

	to_limbs(lo, hi, m);
	const __m512i h0 = _mm512_add_epi64(poly->h[0], m[0]);
	const __m512i h1 = _mm512_add_epi64(poly->h[1], m[1]);
	const __m512i h2 =
		_mm512_add_epi64(poly->h[2], _mm512_or_si512(m[2], _mm512_set1_epi64(1LL << 40)));
#define MUL(n, a, b) MUL_LO(lo##n, a, b), MUL_HI(hi##n, a, b)
	MUL(0, h0, r[0]);
	MUL(1, h0, r[1]);
	MUL(2, h0, r[2]);
	MUL(0, h2, r20[1]);
	MUL(1, h2, r20[2]);
	MUL(2, h2, r[0]);
	MUL(0, h1, r20[2]);
	MUL(1, h1, r[0]);
	MUL(2, h1, r[1]);
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
	poly->h[0] = _mm512_mask_mov_epi64(poly->h[0], who, lo0);
	poly->h[1] = _mm512_mask_mov_epi64(poly->h[1], who, lo1);
	poly->h[2] = _mm512_mask_mov_epi64(poly->h[2], who, lo2);
}

/* 64 bytes of 8 packets, as both halves of four blocks. */
INLINE void to_blocks(const __m512i rows[GROUP], __m512i lo[4], __m512i hi[4])
{
#define PAIR(op, i) _mm512_unpack##op##_epi64(rows[i], rows[i + 1])
	transpose_cells(PAIR(lo, 0), PAIR(lo, 2), PAIR(lo, 4), PAIR(lo, 6), lo);
	transpose_cells(PAIR(hi, 0), PAIR(hi, 2), PAIR(hi, 4), PAIR(hi, 6), hi);
#undef PAIR
}

/* The same, of which `sizes` bytes follow from here on. */
INLINE void poly_rows(struct poly *poly, const __m512i rows[GROUP], __m512i sizes)
{
	__m512i lo[4], hi[4];

	to_blocks(rows, lo, hi);
#define WHO(i) _mm512_cmpgt_epi64_mask(sizes, _mm512_set1_epi64((i)*POLY))
	poly_block(poly, lo[0], hi[0], WHO(0));
	poly_block(poly, lo[1], hi[1], WHO(1));
	poly_block(poly, lo[2], hi[2], WHO(2));
	poly_block(poly, lo[3], hi[3], WHO(3));
#undef WHO
}

/* 64 bytes of all packets that are still to be absorbed: block i / 2 of group i % 2. */
struct backlog {
	__m512i lo[GROUPS * 4], hi[GROUPS * 4];
};

INLINE void put_off(struct backlog *backlog, const __m512i rows[WIDTH])
{
	__m512i lo[4], hi[4];

	for (unsigned g = 0; g < GROUPS; g++) {
		to_blocks(rows + g * GROUP, lo, hi);
		for (unsigned i = 0; i < 4; i++) {
			backlog->lo[2 * i + g] = lo[i];
			backlog->hi[2 * i + g] = hi[i];
		}
	}
}

/* One of the GROUPS * 4 blocks, in their order. */
INLINE void absorb(struct poly poly[GROUPS], const struct backlog *backlog, unsigned i)
{
	poly_block(&poly[i % 2], backlog->lo[i], backlog->hi[i], ALL);
}

/* From limb 1 round to limb 0 and 1: two times brings every limb into its bounds. */
INLINE void carry_round(__m512i h[3])
{
	h[2] = _mm512_add_epi64(h[2], _mm512_srli_epi64(h[1], 44));
	h[1] = _mm512_and_si512(h[1], LIMB_44);
	h[0] = _mm512_add_epi64(h[0], times_5(_mm512_srli_epi64(h[2], 42)));
	h[2] = _mm512_and_si512(h[2], LIMB_42);
	h[1] = _mm512_add_epi64(h[1], _mm512_srli_epi64(h[0], 44));
	h[0] = _mm512_and_si512(h[0], LIMB_44);
}

/* The tags: h modulo 2^130 - 5, and the pad added modulo 2^128. */
INLINE void poly_final(struct poly *poly, __m512i sizes, __m512i *ret_lo, __m512i *ret_hi)
{
	__m512i *h = poly->h, g0, g1, g2;

	poly_block(poly, _mm512_setzero_si512(), sizes, ALL);
	carry_round(h);
	carry_round(h);
	/* g = h - p; taken where it is not negative */
	g0 = _mm512_add_epi64(h[0], _mm512_set1_epi64(5));
	g1 = _mm512_add_epi64(h[1], _mm512_srli_epi64(g0, 44));
	g2 = _mm512_sub_epi64(_mm512_add_epi64(h[2], _mm512_srli_epi64(g1, 44)),
			      _mm512_set1_epi64(1LL << 42));
	const __mmask8 above = _mm512_cmpge_epi64_mask(g2, _mm512_setzero_si512());
	h[0] = _mm512_mask_and_epi64(h[0], above, g0, LIMB_44);
	h[1] = _mm512_mask_and_epi64(h[1], above, g1, LIMB_44);
	h[2] = _mm512_mask_mov_epi64(h[2], above, g2);

	const __m512i lo = _mm512_or_si512(h[0], _mm512_slli_epi64(h[1], 44));
	const __m512i hi =
		_mm512_or_si512(_mm512_srli_epi64(h[1], 20), _mm512_slli_epi64(h[2], 24));
	*ret_lo = _mm512_add_epi64(lo, poly->pad[0]);
	const __mmask8 over = _mm512_cmplt_epu64_mask(*ret_lo, lo);
	*ret_hi = _mm512_add_epi64(hi, poly->pad[1]);
	*ret_hi = _mm512_mask_add_epi64(*ret_hi, over, *ret_hi, _mm512_set1_epi64(1));
}

/* ---- ChaCha20 ---- */

struct cipher {
	__m512i key[8];
	__m512i nonce[2]; /* the counter's halves; the nonce's first word is 0 */
};

#define QUARTER(a, b, c, d)                                                                        \
	a = _mm512_add_epi32(a, b), d = _mm512_rol_epi32(_mm512_xor_si512(d, a), 16),              \
	c = _mm512_add_epi32(c, d), b = _mm512_rol_epi32(_mm512_xor_si512(b, c), 12),              \
	a = _mm512_add_epi32(a, b), d = _mm512_rol_epi32(_mm512_xor_si512(d, a), 8),               \
	c = _mm512_add_epi32(c, d), b = _mm512_rol_epi32(_mm512_xor_si512(b, c), 7)

/*
 * Vector w of ret: word w of block number `block`, of each packet. The backlog, if there is one, is
 * absorbed meanwhile: each of both alone waits for its own results most of the time.
 */
INLINE void chacha_words(const struct cipher *cipher, uint32_t block, __m512i ret[16],
			 struct poly poly[GROUPS], const struct backlog *backlog)
{
	const __m512i c0 = _mm512_set1_epi32(0x61707865), c1 = _mm512_set1_epi32(0x3320646e);
	const __m512i c2 = _mm512_set1_epi32(0x79622d32), c3 = _mm512_set1_epi32(0x6b206574);
	const __m512i *k = cipher->key, number = _mm512_set1_epi32((int)block);
	__m512i v0 = c0, v1 = c1, v2 = c2, v3 = c3;
	__m512i v4 = k[0], v5 = k[1], v6 = k[2], v7 = k[3];
	__m512i v8 = k[4], v9 = k[5], v10 = k[6], v11 = k[7];
	__m512i v12 = number, v13 = _mm512_setzero_si512();
	__m512i v14 = cipher->nonce[0], v15 = cipher->nonce[1];

	for (unsigned i = 0; i < 10; i++) {
		QUARTER(v0, v4, v8, v12);
		QUARTER(v1, v5, v9, v13);
		QUARTER(v2, v6, v10, v14);
		QUARTER(v3, v7, v11, v15);
		QUARTER(v0, v5, v10, v15);
		QUARTER(v1, v6, v11, v12);
		QUARTER(v2, v7, v8, v13);
		QUARTER(v3, v4, v9, v14);
		if (backlog && i < GROUPS * 4)
			absorb(poly, backlog, i);
	}
	ret[0] = _mm512_add_epi32(v0, c0);
	ret[1] = _mm512_add_epi32(v1, c1);
	ret[2] = _mm512_add_epi32(v2, c2);
	ret[3] = _mm512_add_epi32(v3, c3);
	ret[4] = _mm512_add_epi32(v4, k[0]);
	ret[5] = _mm512_add_epi32(v5, k[1]);
	ret[6] = _mm512_add_epi32(v6, k[2]);
	ret[7] = _mm512_add_epi32(v7, k[3]);
	ret[8] = _mm512_add_epi32(v8, k[4]);
	ret[9] = _mm512_add_epi32(v9, k[5]);
	ret[10] = _mm512_add_epi32(v10, k[6]);
	ret[11] = _mm512_add_epi32(v11, k[7]);
	ret[12] = _mm512_add_epi32(v12, number);
	ret[13] = v13;
	ret[14] = _mm512_add_epi32(v14, cipher->nonce[0]);
	ret[15] = _mm512_add_epi32(v15, cipher->nonce[1]);
}

/* Four words of 16 packets: cell c of ret[p] has those of packet 4c + p. */
INLINE void words_to_cells(const __m512i words[4], __m512i ret[4])
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

/* 64 bytes of key stream for each packet. */
INLINE void key_stream(const struct cipher *cipher, uint32_t block, __m512i ret_rows[WIDTH],
		       struct poly poly[GROUPS], const struct backlog *backlog)
{
	__m512i words[16], a[4], b[4], c[4], d[4], rows[4];

	chacha_words(cipher, block, words, poly, backlog);
	words_to_cells(words, a);
	words_to_cells(words + 4, b);
	words_to_cells(words + 8, c);
	words_to_cells(words + 12, d);
#define ROWS(p)                                                                                    \
	transpose_cells(a[p], b[p], c[p], d[p], rows);                                             \
	ret_rows[p] = rows[0], ret_rows[4 + p] = rows[1];                                          \
	ret_rows[8 + p] = rows[2], ret_rows[12 + p] = rows[3]
	ROWS(0);
	ROWS(1);
	ROWS(2);
	ROWS(3);
#undef ROWS
}

/* ---- both together ---- */

/* Packets in lanes. */
struct batch {
	struct cipher cipher;
	struct poly poly[GROUPS];
	struct backlog backlog;
	__m512i stream[WIDTH], sealed[WIDTH]; /* rows */
	uint64_t sizes[WIDTH], tags_lo[WIDTH], tags_hi[WIDTH];
	uint32_t shortest, longest;
};

/* Words a and b of 8 packets, as 64-bit numbers. */
INLINE __m512i join_words(__m512i a, __m512i b, unsigned group)
{
	const __m512i lo = _mm512_cvtepu32_epi64(group ? _mm512_extracti64x4_epi64(a, 1)
						       : _mm512_castsi512_si256(a));
	const __m512i hi = _mm512_cvtepu32_epi64(group ? _mm512_extracti64x4_epi64(b, 1)
						       : _mm512_castsi512_si256(b));

	return _mm512_or_si512(lo, _mm512_slli_epi64(hi, 32));
}

/* Block 0 of the key stream is the key of Poly1305. */
INLINE void make_poly_keys(struct batch *batch)
{
	__m512i w[16];

	chacha_words(&batch->cipher, 0, w, NULL, NULL);
	for (unsigned g = 0; g < GROUPS; g++)
		poly_init(&batch->poly[g], join_words(w[0], w[1], g), join_words(w[2], w[3], g),
			  join_words(w[4], w[5], g), join_words(w[6], w[7], g));
}

INLINE void begin(struct batch *batch, const uint8_t key[KEY_LEN],
		  const struct wg_aead_packet *packets, unsigned n)
{
	uint32_t words[8], nonce_lo[WIDTH] = { 0 }, nonce_hi[WIDTH] = { 0 };

	memcpy(words, key, sizeof(words));
	for (unsigned i = 0; i < 8; i++)
		batch->cipher.key[i] = _mm512_set1_epi32((int)words[i]);
	wg_aead_wipe(words, sizeof(words));
	batch->shortest = batch->longest = packets[0].size;
	for (unsigned i = 0; i < WIDTH; i++) {
		batch->sizes[i] = i < n ? packets[i].size : 0;
		batch->sealed[i] = _mm512_setzero_si512();
	}
	for (unsigned i = 0; i < n; i++) {
		nonce_lo[i] = (uint32_t)packets[i].counter;
		nonce_hi[i] = (uint32_t)(packets[i].counter >> 32);
		if (packets[i].size < batch->shortest)
			batch->shortest = packets[i].size;
		if (packets[i].size > batch->longest)
			batch->longest = packets[i].size;
	}
	batch->cipher.nonce[0] = _mm512_loadu_si512(nonce_lo);
	batch->cipher.nonce[1] = _mm512_loadu_si512(nonce_hi);
	make_poly_keys(batch);
}

INLINE __m512i group_sizes(const struct batch *batch, unsigned group)
{
	return _mm512_loadu_si512(&batch->sizes[group * GROUP]);
}

/* 64 bytes that every packet has. Poly1305 is put off. */
INLINE void whole_rows(struct batch *batch, struct wg_aead_packet *packets, unsigned n, uint32_t at,
		       bool sealing)
{
	for (unsigned i = 0; i < n; i++) {
		uint8_t *data = packets[i].data + at;
		const __m512i before = _mm512_loadu_si512(data);
		const __m512i after = _mm512_xor_si512(before, batch->stream[i]);
		_mm512_storeu_si512(data, after);
		batch->sealed[i] = sealing ? after : before;
	}
	put_off(&batch->backlog, batch->sealed);
}

/* 64 bytes of which some packets have less or nothing. What they lack is zero for Poly1305. */
INLINE void ragged_rows(struct batch *batch, struct wg_aead_packet *packets, unsigned n,
			uint32_t at, bool sealing)
{
	for (unsigned i = 0; i < n; i++) {
		const uint32_t size = packets[i].size > at ? packets[i].size - at : 0;
		const __mmask64 has = size >= BLOCK ? ~0ull : (1ull << size) - 1;
		uint8_t *data = size > 0 ? packets[i].data + at : packets[i].data;
		const __m512i before = _mm512_maskz_loadu_epi8(has, data);
		const __m512i after =
			_mm512_maskz_mov_epi8(has, _mm512_xor_si512(before, batch->stream[i]));
		_mm512_mask_storeu_epi8(data, has, after);
		batch->sealed[i] = sealing ? after : before;
	}
	for (unsigned g = 0; g < GROUPS; g++)
		poly_rows(&batch->poly[g], &batch->sealed[g * GROUP],
			  _mm512_sub_epi64(group_sizes(batch, g), _mm512_set1_epi64(at)));
}

/* What every packet has, as whole blocks of 64 bytes. Returns where that ends. */
INLINE uint32_t crypt_whole(struct batch *batch, struct wg_aead_packet *packets, unsigned n,
			    bool sealing)
{
	uint32_t at = 0;

	if (batch->shortest < BLOCK)
		return 0;
	key_stream(&batch->cipher, 1, batch->stream, NULL, NULL);
	whole_rows(batch, packets, n, at, sealing);
	for (at += BLOCK; at + BLOCK <= batch->shortest; at += BLOCK) {
		key_stream(&batch->cipher, at / BLOCK + 1, batch->stream, batch->poly,
			   &batch->backlog);
		whole_rows(batch, packets, n, at, sealing);
	}
	for (unsigned i = 0; i < GROUPS * 4; i++)
		absorb(batch->poly, &batch->backlog, i);
	return at;
}

INLINE void crypt(struct batch *batch, struct wg_aead_packet *packets, unsigned n, bool sealing)
{
	uint32_t at = crypt_whole(batch, packets, n, sealing);

	for (; at < batch->longest; at += BLOCK) {
		key_stream(&batch->cipher, at / BLOCK + 1, batch->stream, NULL, NULL);
		ragged_rows(batch, packets, n, at, sealing);
	}
	for (unsigned g = 0; g < GROUPS; g++) {
		__m512i lo, hi;
		poly_final(&batch->poly[g], group_sizes(batch, g), &lo, &hi);
		_mm512_storeu_si512(&batch->tags_lo[g * GROUP], lo);
		_mm512_storeu_si512(&batch->tags_hi[g * GROUP], hi);
	}
}

TARGET static void seal_batch(const uint8_t key[KEY_LEN], struct wg_aead_packet *packets,
			      unsigned n)
{
	struct batch batch;

	begin(&batch, key, packets, n);
	crypt(&batch, packets, n, true);
	for (unsigned i = 0; i < n; i++)
		wg_aead_put_tag(&packets[i], batch.tags_lo[i], batch.tags_hi[i]);
	wg_aead_wipe(&batch, sizeof(batch));
	_mm256_zeroall();
}

/* Deciphers while it authenticates; what proves forged is zeroed. */
TARGET static void open_batch(const uint8_t key[KEY_LEN], struct wg_aead_packet *packets,
			      unsigned n)
{
	struct batch batch;

	begin(&batch, key, packets, n);
	crypt(&batch, packets, n, false);
	for (unsigned i = 0; i < n; i++)
		wg_aead_check_tag(&packets[i], batch.tags_lo[i], batch.tags_hi[i]);
	wg_aead_wipe(&batch, sizeof(batch));
	_mm256_zeroall();
}

static bool is_supported(void)
{
	return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
	       __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
	       __builtin_cpu_supports("avx512ifma");
}

const struct wg_aead_lanes wg_aead_avx512 = { .name = "avx512",
					      .width = WIDTH,
					      .at_least = { 2, 4, 6 },
					      .is_supported = is_supported,
					      .seal = seal_batch,
					      .open = open_batch };

#endif
