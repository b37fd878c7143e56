/*
 * 8 packets at once with AVX2.
 *
 * ChaCha20: vector w holds word w of the state of 8 packets; transpositions turn the key stream
 * into rows, in two halves of 32 bytes.
 *
 * Poly1305: vector l holds limb l of 4 packets, so there are two groups. Numbers modulo 2^130 - 5
 * are five limbs of 26 bits, each in 64 bits, so that the products of the 32-bit multiplier add up
 * without a carry in between.
 */
#include "node/wireguard/aead_lanes.h"

#ifdef __x86_64__

#include <immintrin.h>

#define TARGET  __attribute__((target("avx2")))
#define INLINE  static inline __attribute__((always_inline)) TARGET
#define WIDTH   8
#define GROUPS  2
#define GROUP   4
#define BLOCK   64
#define HALF    32
#define POLY    16 /* bytes of a block of Poly1305 */
#define LIMBS   5
#define LIMB_26 _mm256_set1_epi64x((1 << 26) - 1)

/* ---- ChaCha20 ---- */

struct cipher {
	__m256i key[8];
	__m256i nonce[2]; /* the counter's halves; the nonce's first word is 0 */
};

INLINE __m256i rotate_16(__m256i a)
{
	return _mm256_shuffle_epi8(a, _mm256_setr_epi8(2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15,
						       12, 13, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9,
						       14, 15, 12, 13));
}

INLINE __m256i rotate_8(__m256i a)
{
	return _mm256_shuffle_epi8(a, _mm256_setr_epi8(3, 0, 1, 2, 7, 4, 5, 6, 11, 8, 9, 10, 15, 12,
						       13, 14, 3, 0, 1, 2, 7, 4, 5, 6, 11, 8, 9, 10,
						       15, 12, 13, 14));
}

INLINE __m256i rotate_12(__m256i a)
{
	return _mm256_or_si256(_mm256_slli_epi32(a, 12), _mm256_srli_epi32(a, 20));
}

INLINE __m256i rotate_7(__m256i a)
{
	return _mm256_or_si256(_mm256_slli_epi32(a, 7), _mm256_srli_epi32(a, 25));
}

#define QUARTER(a, b, c, d)                                                                        \
	a = _mm256_add_epi32(a, b), d = rotate_16(_mm256_xor_si256(d, a)),                         \
	c = _mm256_add_epi32(c, d), b = rotate_12(_mm256_xor_si256(b, c)),                         \
	a = _mm256_add_epi32(a, b), d = rotate_8(_mm256_xor_si256(d, a)),                          \
	c = _mm256_add_epi32(c, d), b = rotate_7(_mm256_xor_si256(b, c))

/* Vector w of ret: word w of block number `block`, of each packet. */
INLINE void chacha_words(const struct cipher *cipher, uint32_t block, __m256i ret[16])
{
	const __m256i c0 = _mm256_set1_epi32(0x61707865), c1 = _mm256_set1_epi32(0x3320646e);
	const __m256i c2 = _mm256_set1_epi32(0x79622d32), c3 = _mm256_set1_epi32(0x6b206574);
	const __m256i *k = cipher->key, number = _mm256_set1_epi32((int)block);
	__m256i v0 = c0, v1 = c1, v2 = c2, v3 = c3;
	__m256i v4 = k[0], v5 = k[1], v6 = k[2], v7 = k[3];
	__m256i v8 = k[4], v9 = k[5], v10 = k[6], v11 = k[7];
	__m256i v12 = number, v13 = _mm256_setzero_si256();
	__m256i v14 = cipher->nonce[0], v15 = cipher->nonce[1];

	for (unsigned i = 0; i < 10; i++) {
		QUARTER(v0, v4, v8, v12);
		QUARTER(v1, v5, v9, v13);
		QUARTER(v2, v6, v10, v14);
		QUARTER(v3, v7, v11, v15);
		QUARTER(v0, v5, v10, v15);
		QUARTER(v1, v6, v11, v12);
		QUARTER(v2, v7, v8, v13);
		QUARTER(v3, v4, v9, v14);
	}
	ret[0] = _mm256_add_epi32(v0, c0);
	ret[1] = _mm256_add_epi32(v1, c1);
	ret[2] = _mm256_add_epi32(v2, c2);
	ret[3] = _mm256_add_epi32(v3, c3);
	ret[4] = _mm256_add_epi32(v4, k[0]);
	ret[5] = _mm256_add_epi32(v5, k[1]);
	ret[6] = _mm256_add_epi32(v6, k[2]);
	ret[7] = _mm256_add_epi32(v7, k[3]);
	ret[8] = _mm256_add_epi32(v8, k[4]);
	ret[9] = _mm256_add_epi32(v9, k[5]);
	ret[10] = _mm256_add_epi32(v10, k[6]);
	ret[11] = _mm256_add_epi32(v11, k[7]);
	ret[12] = _mm256_add_epi32(v12, number);
	ret[13] = v13;
	ret[14] = _mm256_add_epi32(v14, cipher->nonce[0]);
	ret[15] = _mm256_add_epi32(v15, cipher->nonce[1]);
}

/* Four words of 8 packets: half h of ret[p] has those of packet 4h + p. */
INLINE void words_to_cells(const __m256i words[4], __m256i ret[4])
{
	const __m256i ab_lo = _mm256_unpacklo_epi32(words[0], words[1]);
	const __m256i ab_hi = _mm256_unpackhi_epi32(words[0], words[1]);
	const __m256i cd_lo = _mm256_unpacklo_epi32(words[2], words[3]);
	const __m256i cd_hi = _mm256_unpackhi_epi32(words[2], words[3]);

	ret[0] = _mm256_unpacklo_epi64(ab_lo, cd_lo);
	ret[1] = _mm256_unpackhi_epi64(ab_lo, cd_lo);
	ret[2] = _mm256_unpacklo_epi64(ab_hi, cd_hi);
	ret[3] = _mm256_unpackhi_epi64(ab_hi, cd_hi);
}

/* Eight words of 8 packets, as 32 bytes for each packet. */
INLINE void words_to_rows(const __m256i words[8], __m256i ret_rows[WIDTH])
{
	__m256i a[4], b[4];

	words_to_cells(words, a);
	words_to_cells(words + 4, b);
	for (unsigned p = 0; p < 4; p++) {
		ret_rows[p] = _mm256_permute2x128_si256(a[p], b[p], 0x20);
		ret_rows[4 + p] = _mm256_permute2x128_si256(a[p], b[p], 0x31);
	}
}

/* ---- Poly1305 ---- */

struct poly {
	__m256i h[LIMBS];
	__m256i r[LIMBS];
	__m256i r5[LIMBS]; /* 5 r: 2^130 = 5. The first is not used */
	__m256i pad[2];
};

/* Two 64-bit halves, as limbs. */
INLINE void to_limbs(__m256i lo, __m256i hi, __m256i ret[LIMBS])
{
	ret[0] = _mm256_and_si256(lo, LIMB_26);
	ret[1] = _mm256_and_si256(_mm256_srli_epi64(lo, 26), LIMB_26);
	ret[2] = _mm256_and_si256(
		_mm256_or_si256(_mm256_srli_epi64(lo, 52), _mm256_slli_epi64(hi, 12)), LIMB_26);
	ret[3] = _mm256_and_si256(_mm256_srli_epi64(hi, 14), LIMB_26);
	ret[4] = _mm256_srli_epi64(hi, 40);
}

INLINE __m256i times_5(__m256i a)
{
	return _mm256_add_epi64(a, _mm256_slli_epi64(a, 2));
}

INLINE void poly_init(struct poly *poly, __m256i r_lo, __m256i r_hi, __m256i pad_lo, __m256i pad_hi)
{
	const __m256i clamp_lo = _mm256_set1_epi64x(0x0ffffffc0fffffff);
	const __m256i clamp_hi = _mm256_set1_epi64x(0x0ffffffc0ffffffc);

	to_limbs(_mm256_and_si256(r_lo, clamp_lo), _mm256_and_si256(r_hi, clamp_hi), poly->r);
	for (unsigned i = 0; i < LIMBS; i++) {
		poly->h[i] = _mm256_setzero_si256();
		poly->r5[i] = times_5(poly->r[i]);
	}
	poly->pad[0] = pad_lo;
	poly->pad[1] = pad_hi;
}

/* What limb `from` has too much goes to limb `to`. */
#define CARRY(from, to)                                                                            \
	to = _mm256_add_epi64(to, _mm256_srli_epi64(from, 26)),                                    \
	from = _mm256_and_si256(from, LIMB_26)
#define CARRY_ROUND(from, to)                                                                      \
	to = _mm256_add_epi64(to, times_5(_mm256_srli_epi64(from, 26))),                           \
	from = _mm256_and_si256(from, LIMB_26)

/* h = (h + block + 2^128) r, in the packets of `who`. Limbs may then be a little too long. */
INLINE void poly_block(struct poly *poly, __m256i lo, __m256i hi, __m256i who)
{
	const __m256i *r = poly->r, *r5 = poly->r5;
	__m256i a[LIMBS];

	to_limbs(lo, hi, a);
	a[0] = _mm256_add_epi64(a[0], poly->h[0]);
	a[1] = _mm256_add_epi64(a[1], poly->h[1]);
	a[2] = _mm256_add_epi64(a[2], poly->h[2]);
	a[3] = _mm256_add_epi64(a[3], poly->h[3]);
	a[4] = _mm256_add_epi64(_mm256_or_si256(a[4], _mm256_set1_epi64x(1 << 24)), poly->h[4]);
#define SUM(x, y) _mm256_add_epi64(x, y)
#define MUL(i, y) _mm256_mul_epu32(a[i], y)
#define ROW(y0, y1, y2, y3, y4)                                                                    \
	SUM(SUM(SUM(MUL(0, y0), MUL(1, y1)), SUM(MUL(2, y2), MUL(3, y3))), MUL(4, y4))
	__m256i d0 = ROW(r[0], r5[4], r5[3], r5[2], r5[1]);
	__m256i d1 = ROW(r[1], r[0], r5[4], r5[3], r5[2]);
	__m256i d2 = ROW(r[2], r[1], r[0], r5[4], r5[3]);
	__m256i d3 = ROW(r[3], r[2], r[1], r[0], r5[4]);
	__m256i d4 = ROW(r[4], r[3], r[2], r[1], r[0]);
#undef ROW
#undef MUL
#undef SUM
	CARRY(d0, d1), CARRY(d3, d4);
	CARRY(d1, d2), CARRY_ROUND(d4, d0);
	CARRY(d2, d3), CARRY(d0, d1);
	CARRY(d3, d4);
	poly->h[0] = _mm256_blendv_epi8(poly->h[0], d0, who);
	poly->h[1] = _mm256_blendv_epi8(poly->h[1], d1, who);
	poly->h[2] = _mm256_blendv_epi8(poly->h[2], d2, who);
	poly->h[3] = _mm256_blendv_epi8(poly->h[3], d3, who);
	poly->h[4] = _mm256_blendv_epi8(poly->h[4], d4, who);
}

/* 32 bytes of 4 packets, of which `sizes` bytes follow from here on. */
INLINE void poly_rows(struct poly *poly, const __m256i rows[GROUP], __m256i sizes)
{
	const __m256i lo_01 = _mm256_unpacklo_epi64(rows[0], rows[1]);
	const __m256i hi_01 = _mm256_unpackhi_epi64(rows[0], rows[1]);
	const __m256i lo_23 = _mm256_unpacklo_epi64(rows[2], rows[3]);
	const __m256i hi_23 = _mm256_unpackhi_epi64(rows[2], rows[3]);

	poly_block(poly, _mm256_permute2x128_si256(lo_01, lo_23, 0x20),
		   _mm256_permute2x128_si256(hi_01, hi_23, 0x20),
		   _mm256_cmpgt_epi64(sizes, _mm256_setzero_si256()));
	poly_block(poly, _mm256_permute2x128_si256(lo_01, lo_23, 0x31),
		   _mm256_permute2x128_si256(hi_01, hi_23, 0x31),
		   _mm256_cmpgt_epi64(sizes, _mm256_set1_epi64x(POLY)));
}

/* All ones where a < b, unsigned. */
INLINE __m256i is_less(__m256i a, __m256i b)
{
	const __m256i sign = _mm256_set1_epi64x(INT64_MIN);

	return _mm256_cmpgt_epi64(_mm256_xor_si256(b, sign), _mm256_xor_si256(a, sign));
}

/* h modulo 2^130 - 5, every limb in its bounds. */
INLINE void poly_reduce(__m256i h[LIMBS])
{
	__m256i g[LIMBS];

	for (unsigned i = 0; i < 2; i++) {
		CARRY(h[0], h[1]);
		CARRY(h[1], h[2]);
		CARRY(h[2], h[3]);
		CARRY(h[3], h[4]);
		CARRY_ROUND(h[4], h[0]);
	}
	CARRY(h[0], h[1]);
	/* g = h + 5 - 2^130; taken where it is not negative */
	for (unsigned i = 0; i < LIMBS; i++)
		g[i] = h[i];
	g[0] = _mm256_add_epi64(g[0], _mm256_set1_epi64x(5));
	CARRY(g[0], g[1]);
	CARRY(g[1], g[2]);
	CARRY(g[2], g[3]);
	CARRY(g[3], g[4]);
	g[4] = _mm256_sub_epi64(g[4], _mm256_set1_epi64x(1 << 26));
	const __m256i below = _mm256_cmpgt_epi64(_mm256_setzero_si256(), g[4]);
	for (unsigned i = 0; i < LIMBS; i++)
		h[i] = _mm256_blendv_epi8(g[i], h[i], below);
}

/* The tags: the pad is added modulo 2^128. */
INLINE void poly_final(struct poly *poly, __m256i sizes, uint64_t *ret_lo, uint64_t *ret_hi)
{
	__m256i *h = poly->h;

	poly_block(poly, _mm256_setzero_si256(), sizes, _mm256_set1_epi64x(-1));
	poly_reduce(h);
	__m256i lo = _mm256_or_si256(h[0], _mm256_slli_epi64(h[1], 26));
	lo = _mm256_or_si256(lo, _mm256_slli_epi64(h[2], 52));
	__m256i hi = _mm256_or_si256(_mm256_srli_epi64(h[2], 12), _mm256_slli_epi64(h[3], 14));
	hi = _mm256_or_si256(hi, _mm256_slli_epi64(h[4], 40));
	const __m256i sum = _mm256_add_epi64(lo, poly->pad[0]);
	hi = _mm256_add_epi64(hi, poly->pad[1]);
	hi = _mm256_sub_epi64(hi, is_less(sum, lo));
	_mm256_storeu_si256((__m256i *)ret_lo, sum);
	_mm256_storeu_si256((__m256i *)ret_hi, hi);
}

/* ---- both together ---- */

/* Packets in lanes. */
struct batch {
	struct cipher cipher;
	struct poly poly[GROUPS];
	__m256i words[16], stream[WIDTH], sealed[WIDTH];
	uint8_t part[HALF]; /* a packet's last bytes and zeros */
	uint64_t sizes[WIDTH], tags_lo[WIDTH], tags_hi[WIDTH];
	uint32_t longest;
};

/* Words a and b of 4 packets, as 64-bit numbers. */
INLINE __m256i join_words(__m256i a, __m256i b, unsigned group)
{
	const __m256i lo = _mm256_cvtepu32_epi64(group ? _mm256_extracti128_si256(a, 1)
						       : _mm256_castsi256_si128(a));
	const __m256i hi = _mm256_cvtepu32_epi64(group ? _mm256_extracti128_si256(b, 1)
						       : _mm256_castsi256_si128(b));

	return _mm256_or_si256(lo, _mm256_slli_epi64(hi, 32));
}

/* Block 0 of the key stream is the key of Poly1305. */
INLINE void make_poly_keys(struct batch *batch)
{
	const __m256i *w = batch->words;

	chacha_words(&batch->cipher, 0, batch->words);
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
		batch->cipher.key[i] = _mm256_set1_epi32((int)words[i]);
	wg_aead_wipe(words, sizeof(words));
	batch->longest = packets[0].size;
	for (unsigned i = 0; i < WIDTH; i++) {
		batch->sizes[i] = i < n ? packets[i].size : 0;
		batch->sealed[i] = _mm256_setzero_si256();
	}
	for (unsigned i = 0; i < n; i++) {
		nonce_lo[i] = (uint32_t)packets[i].counter;
		nonce_hi[i] = (uint32_t)(packets[i].counter >> 32);
		if (packets[i].size > batch->longest)
			batch->longest = packets[i].size;
	}
	batch->cipher.nonce[0] = _mm256_loadu_si256((const __m256i *)nonce_lo);
	batch->cipher.nonce[1] = _mm256_loadu_si256((const __m256i *)nonce_hi);
	make_poly_keys(batch);
}

INLINE __m256i group_sizes(const struct batch *batch, unsigned group)
{
	return _mm256_loadu_si256((const __m256i *)&batch->sizes[group * GROUP]);
}

/* 32 bytes that the packet has. Returns them sealed. */
INLINE __m256i whole_row(uint8_t *data, __m256i stream, bool sealing)
{
	const __m256i before = _mm256_loadu_si256((const __m256i *)data);
	const __m256i after = _mm256_xor_si256(before, stream);

	_mm256_storeu_si256((__m256i *)data, after);
	return sealing ? after : before;
}

/* The packet's last size bytes, or none. Returns them sealed, and zeros. */
INLINE __m256i ragged_row(struct batch *batch, uint8_t *data, uint32_t size, __m256i stream,
			  bool sealing)
{
	__m256i *part = (__m256i *)batch->part;

	_mm256_storeu_si256(part, _mm256_setzero_si256());
	if (size == 0)
		return _mm256_setzero_si256();
	memcpy(batch->part, data, size);
	const __m256i before = _mm256_loadu_si256(part);
	_mm256_storeu_si256(part, _mm256_xor_si256(before, stream));
	memcpy(data, batch->part, size);
	memset(batch->part + size, 0, HALF - size);
	return sealing ? _mm256_loadu_si256(part) : before;
}

/* 32 bytes, or what a packet has of them, with these 8 words of the key stream. */
INLINE void crypt_rows(struct batch *batch, struct wg_aead_packet *packets, unsigned n, uint32_t at,
		       const __m256i words[8], bool sealing)
{
	words_to_rows(words, batch->stream);
	for (unsigned i = 0; i < n; i++) {
		const uint32_t size = packets[i].size > at ? packets[i].size - at : 0;
		batch->sealed[i] =
			size >= HALF ? whole_row(packets[i].data + at, batch->stream[i], sealing)
				     : ragged_row(batch, packets[i].data + (size > 0 ? at : 0),
						  size, batch->stream[i], sealing);
	}
	for (unsigned g = 0; g < GROUPS; g++)
		poly_rows(&batch->poly[g], &batch->sealed[g * GROUP],
			  _mm256_sub_epi64(group_sizes(batch, g), _mm256_set1_epi64x(at)));
}

INLINE void crypt(struct batch *batch, struct wg_aead_packet *packets, unsigned n, bool sealing)
{
	uint32_t block = 1;

	for (uint32_t at = 0; at < batch->longest; at += BLOCK) {
		chacha_words(&batch->cipher, block++, batch->words);
		crypt_rows(batch, packets, n, at, batch->words, sealing);
		crypt_rows(batch, packets, n, at + HALF, batch->words + 8, sealing);
	}
	for (unsigned g = 0; g < GROUPS; g++)
		poly_final(&batch->poly[g], group_sizes(batch, g), &batch->tags_lo[g * GROUP],
			   &batch->tags_hi[g * GROUP]);
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
	return __builtin_cpu_supports("avx2");
}

/* The thresholds are against OpenSSL as it is on a CPU that has no AVX-512 either. */
const struct wg_aead_lanes wg_aead_avx2 = { .name = "avx2",
					    .width = WIDTH,
					    .at_least = { 2, 4, 6 },
					    .is_supported = is_supported,
					    .seal = seal_batch,
					    .open = open_batch };

#endif
