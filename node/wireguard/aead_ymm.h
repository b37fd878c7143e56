/*
 * 8 packets at once, or 8 blocks of one packet, in registers of 256 bits. For AVX2, and for AVX-512,
 * which has more registers and rotates in one instruction: whoever includes this defines before
 *
 *   TARGET            the attributes: instructions that may be used, BMI2 among them; and
 *                     no_sanitize("undefined"), for which compiling would take minutes
 *   YMM_ROTATE(a, n)  eight words, rotated left by 16, 12, 8 or 7
 *   YMM_FORGET()      all vector registers are zero afterwards
 *
 * ChaCha20: vector w holds word w of the state of 8 packets (of 8 blocks); transpositions turn the
 * key stream into rows, in two halves of 32 bytes.
 *
 * Poly1305 is done by the scalar unit at the same time: between the quarter rounds stand some of its
 * blocks, of what was sealed before or is opened next. Alone each of both would wait for its own
 * results most of the time.
 */
#pragma once

#include "node/wireguard/aead_poly.h"

#ifdef __x86_64__

#include <immintrin.h>

#define INLINE	  static inline __attribute__((always_inline)) TARGET
#define ONCE	  static __attribute__((noinline, unused)) TARGET /* large: one copy is enough */
#define YMM_WIDTH 8
#define YMM_BLOCK 64
#define YMM_HALF  32

/* ---- ChaCha20 ---- */

struct ymm_cipher {
	__m256i key[8];
	__m256i nonce[2]; /* the counter's halves; the nonce's first word is 0 */
	__m256i numbers;  /* of the blocks */
};

#define YMM_ADD(a, b)  v##a = _mm256_add_epi32(v##a, v##b)
#define YMM_XOR(a, b)  v##a = _mm256_xor_si256(v##a, v##b)
#define YMM_TURN(a, n) v##a = YMM_ROTATE(v##a, n)

/* Two quarter rounds, in step: a CPU does not look far enough ahead to find the second itself. */
#define YMM_STEP(x, y, z, X, Y, Z, n)                                                              \
	YMM_ADD(x, y), YMM_ADD(X, Y), YMM_XOR(z, x), YMM_XOR(Z, X), YMM_TURN(z, n), YMM_TURN(Z, n)
#define YMM_QUARTERS(a, b, c, d, A, B, C, D)                                                       \
	YMM_STEP(a, b, d, A, B, D, 16), YMM_STEP(c, d, b, C, D, B, 12),                            \
		YMM_STEP(a, b, d, A, B, D, 8), YMM_STEP(c, d, b, C, D, B, 7)

/*
 * The state is in variables v0 to v15: in an array GCC would move it to and fro between the stack
 * and the registers.
 */
#define YMM_BEGIN(cipher)                                                                          \
	__m256i v0 = _mm256_set1_epi32(0x61707865), v1 = _mm256_set1_epi32(0x3320646e);            \
	__m256i v2 = _mm256_set1_epi32(0x79622d32), v3 = _mm256_set1_epi32(0x6b206574);            \
	__m256i v4 = (cipher)->key[0], v5 = (cipher)->key[1], v6 = (cipher)->key[2];               \
	__m256i v7 = (cipher)->key[3], v8 = (cipher)->key[4], v9 = (cipher)->key[5];               \
	__m256i v10 = (cipher)->key[6], v11 = (cipher)->key[7], v12 = (cipher)->numbers;           \
	__m256i v13 = _mm256_setzero_si256(), v14 = (cipher)->nonce[0], v15 = (cipher)->nonce[1]
#define YMM_END(cipher, ret)                                                                       \
	(ret)[0] = _mm256_add_epi32(v0, _mm256_set1_epi32(0x61707865));                            \
	(ret)[1] = _mm256_add_epi32(v1, _mm256_set1_epi32(0x3320646e));                            \
	(ret)[2] = _mm256_add_epi32(v2, _mm256_set1_epi32(0x79622d32));                            \
	(ret)[3] = _mm256_add_epi32(v3, _mm256_set1_epi32(0x6b206574));                            \
	(ret)[4] = _mm256_add_epi32(v4, (cipher)->key[0]);                                         \
	(ret)[5] = _mm256_add_epi32(v5, (cipher)->key[1]);                                         \
	(ret)[6] = _mm256_add_epi32(v6, (cipher)->key[2]);                                         \
	(ret)[7] = _mm256_add_epi32(v7, (cipher)->key[3]);                                         \
	(ret)[8] = _mm256_add_epi32(v8, (cipher)->key[4]);                                         \
	(ret)[9] = _mm256_add_epi32(v9, (cipher)->key[5]);                                         \
	(ret)[10] = _mm256_add_epi32(v10, (cipher)->key[6]);                                       \
	(ret)[11] = _mm256_add_epi32(v11, (cipher)->key[7]);                                       \
	(ret)[12] = _mm256_add_epi32(v12, (cipher)->numbers);                                      \
	(ret)[13] = v13;                                                                           \
	(ret)[14] = _mm256_add_epi32(v14, (cipher)->nonce[0]);                                     \
	(ret)[15] = _mm256_add_epi32(v15, (cipher)->nonce[1])

/* Four words of 8 packets: half h of ret[p] has those of packet 4h + p. */
INLINE void ymm_words_to_cells(const __m256i words[4], __m256i ret[4])
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
INLINE void ymm_words_to_rows(const __m256i words[8], __m256i ret_rows[YMM_WIDTH])
{
	__m256i a[4], b[4];

	ymm_words_to_cells(words, a);
	ymm_words_to_cells(words + 4, b);
	for (unsigned p = 0; p < 4; p++) {
		ret_rows[p] = _mm256_permute2x128_si256(a[p], b[p], 0x20);
		ret_rows[4 + p] = _mm256_permute2x128_si256(a[p], b[p], 0x31);
	}
}

/* ---- 8 packets ---- */

/* Packets in lanes. */
struct ymm_batch {
	struct ymm_cipher cipher;
	struct wg_poly poly[YMM_WIDTH];
	struct wg_poly idle[YMM_WIDTH]; /* what lanes without anything to absorb work at */
	union {
		__m256i words[16];
		uint32_t numbers[16][YMM_WIDTH]; /* the same */
	};
	__m256i stream[YMM_WIDTH];
	uint8_t part[YMM_BLOCK];
	/* What the next pass absorbs: 64 bytes a lane. */
	struct wg_poly *to[YMM_WIDTH];
	const uint8_t *from[YMM_WIDTH];
	uint32_t longest;
};

/* Words of a block of each packet; meanwhile four blocks of Poly1305 of each packet. */
ONCE void ymm_chacha_lanes(struct ymm_batch *batch)
{
	YMM_BEGIN(&batch->cipher);

	for (unsigned i = 0; i < 10; i++) {
		/* four packets in turn: none waits for another, nor for its own block before */
		struct wg_poly **to = batch->to + i % 2 * 4;
		const uint8_t **from = batch->from + i % 2 * 4;
		const unsigned at = i / 2 * WG_POLY_BLOCK;
		const bool works = i < 8;
		YMM_QUARTERS(0, 4, 8, 12, 1, 5, 9, 13);
		if (works)
			wg_poly_block(to[0], from[0] + at);
		YMM_QUARTERS(2, 6, 10, 14, 3, 7, 11, 15);
		if (works)
			wg_poly_block(to[1], from[1] + at);
		YMM_QUARTERS(2, 7, 8, 13, 3, 4, 9, 14);
		if (works)
			wg_poly_block(to[2], from[2] + at);
		YMM_QUARTERS(0, 5, 10, 15, 1, 6, 11, 12);
		if (works)
			wg_poly_block(to[3], from[3] + at);
	}
	YMM_END(&batch->cipher, batch->words);
}

/* The next pass absorbs the 64 bytes at `at` of those packets that have them. False: none has. */
INLINE bool ymm_plan(struct ymm_batch *batch, const struct wg_aead_packet *packets, unsigned n,
		     uint32_t at)
{
	bool any = false;

	for (unsigned i = 0; i < YMM_WIDTH; i++) {
		const bool has = i < n && packets[i].size >= at + YMM_BLOCK;
		any |= has;
		batch->to[i] = has ? &batch->poly[i] : &batch->idle[i];
		batch->from[i] = has ? packets[i].data + at : batch->part;
	}
	return any;
}

/* Block 0 of the key stream is the key of Poly1305. */
INLINE void ymm_make_poly_keys(struct ymm_batch *batch)
{
	const uint32_t(*words)[YMM_WIDTH] = batch->numbers;

	ymm_plan(batch, NULL, 0, 0);
	ymm_chacha_lanes(batch);
#define JOIN(w, i) (words[w][i] | (uint64_t)words[(w) + 1][i] << 32)
	for (unsigned i = 0; i < YMM_WIDTH; i++)
		wg_poly_init(&batch->poly[i], (const uint64_t[4]){ JOIN(0, i), JOIN(2, i),
								   JOIN(4, i), JOIN(6, i) });
#undef JOIN
}

INLINE void ymm_set_key(struct ymm_cipher *cipher, const uint8_t key[KEY_LEN])
{
	for (unsigned i = 0; i < 8; i++) {
		uint32_t word;
		memcpy(&word, key + i * sizeof(word), sizeof(word));
		cipher->key[i] = _mm256_set1_epi32((int)word);
	}
}

INLINE void ymm_begin(struct ymm_batch *batch, const uint8_t key[KEY_LEN],
		      const struct wg_aead_packet *packets, unsigned n)
{
	uint32_t nonce_lo[YMM_WIDTH] = { 0 }, nonce_hi[YMM_WIDTH] = { 0 };

	ymm_set_key(&batch->cipher, key);
	batch->longest = 0;
	for (unsigned i = 0; i < n; i++) {
		nonce_lo[i] = (uint32_t)packets[i].counter;
		nonce_hi[i] = (uint32_t)(packets[i].counter >> 32);
		if (packets[i].size > batch->longest)
			batch->longest = packets[i].size;
	}
	batch->cipher.nonce[0] = _mm256_loadu_si256((const __m256i *)nonce_lo);
	batch->cipher.nonce[1] = _mm256_loadu_si256((const __m256i *)nonce_hi);
	batch->cipher.numbers = _mm256_setzero_si256();
	memset(batch->idle, 0, sizeof(batch->idle));
	memset(batch->part, 0, sizeof(batch->part));
	ymm_make_poly_keys(batch);
}

INLINE void ymm_xor_whole(uint8_t *data, __m256i stream)
{
	_mm256_storeu_si256((__m256i *)data,
			    _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)data), stream));
}

/* size < 32 */
INLINE void ymm_xor_part(uint8_t *part, uint8_t *data, uint32_t size, __m256i stream)
{
	memcpy(part, data, size);
	ymm_xor_whole(part, stream);
	memcpy(data, part, size);
}

/* 32 bytes, or what a packet has of them, with these 8 words of the key stream. */
INLINE void ymm_crypt_rows(struct ymm_batch *batch, struct wg_aead_packet *packets, unsigned n,
			   uint32_t at, const __m256i words[8])
{
	ymm_words_to_rows(words, batch->stream);
	for (unsigned i = 0; i < n; i++) {
		const uint32_t size = packets[i].size > at ? packets[i].size - at : 0;
		if (size >= YMM_HALF)
			ymm_xor_whole(packets[i].data + at, batch->stream[i]);
		else if (size > 0)
			ymm_xor_part(batch->part, packets[i].data + at, size, batch->stream[i]);
	}
}

/* Less than a row: absorbed before it is deciphered. */
INLINE void ymm_absorb_tails(struct ymm_batch *batch, const struct wg_aead_packet *packets,
			     unsigned n, uint32_t at)
{
	for (unsigned i = 0; i < n; i++)
		if (packets[i].size > at && packets[i].size - at < YMM_BLOCK)
			wg_poly_rest(&batch->poly[i], packets[i].data, at, packets[i].size);
}

/* What no further pass absorbs; all packets in turn, as there. */
INLINE void ymm_absorb_last(struct ymm_batch *batch, const struct wg_aead_packet *packets,
			    unsigned n)
{
	if (!ymm_plan(batch, packets, n, (batch->longest - 1) / YMM_BLOCK * YMM_BLOCK))
		return;
	for (unsigned at = 0; at < YMM_BLOCK; at += WG_POLY_BLOCK)
		for (unsigned i = 0; i < n; i++)
			wg_poly_block(batch->to[i], batch->from[i] + at);
}

/* Sealing absorbs a row one pass later, opening just before it is deciphered. */
INLINE void ymm_crypt_batch(struct ymm_batch *batch, struct wg_aead_packet *packets, unsigned n,
			    bool sealing)
{
	for (uint32_t at = 0; at < batch->longest; at += YMM_BLOCK) {
		if (!sealing)
			ymm_plan(batch, packets, n, at);
		else if (at > 0)
			ymm_plan(batch, packets, n, at - YMM_BLOCK);
		batch->cipher.numbers =
			_mm256_add_epi32(batch->cipher.numbers, _mm256_set1_epi32(1));
		ymm_chacha_lanes(batch);
		if (!sealing)
			ymm_absorb_tails(batch, packets, n, at);
		ymm_crypt_rows(batch, packets, n, at, batch->words);
		ymm_crypt_rows(batch, packets, n, at + YMM_HALF, batch->words + 8);
	}
	if (sealing && batch->longest > 0)
		ymm_absorb_last(batch, packets, n);
}

INLINE void ymm_seal_tag(struct wg_poly *poly, struct wg_aead_packet *packet)
{
	const uint32_t whole = packet->size - packet->size % YMM_BLOCK;
	uint64_t tag[2];

	wg_poly_rest(poly, packet->data, whole, packet->size);
	wg_poly_final(poly, tag);
	wg_aead_put_tag(packet, tag);
}

INLINE void ymm_open_tag(struct wg_poly *poly, struct wg_aead_packet *packet)
{
	uint64_t tag[2];

	if (packet->size % YMM_BLOCK == 0)
		wg_poly_rest(poly, packet->data, packet->size, packet->size);
	wg_poly_final(poly, tag);
	wg_aead_check_tag(packet, tag);
}

TARGET static inline void ymm_seal_batch(const uint8_t key[KEY_LEN], struct wg_aead_packet *packets,
					 unsigned n)
{
	struct ymm_batch batch;

	ymm_begin(&batch, key, packets, n);
	ymm_crypt_batch(&batch, packets, n, true);
	for (unsigned i = 0; i < n; i++)
		ymm_seal_tag(&batch.poly[i], &packets[i]);
	wg_aead_wipe(&batch, sizeof(batch));
	YMM_FORGET();
}

/* What proves forged is zeroed. */
TARGET static inline void ymm_open_batch(const uint8_t key[KEY_LEN], struct wg_aead_packet *packets,
					 unsigned n)
{
	struct ymm_batch batch;

	ymm_begin(&batch, key, packets, n);
	ymm_crypt_batch(&batch, packets, n, false);
	for (unsigned i = 0; i < n; i++)
		ymm_open_tag(&batch.poly[i], &packets[i]);
	wg_aead_wipe(&batch, sizeof(batch));
	YMM_FORGET();
}

/* ---- one packet ---- */

#define YMM_PASS  (YMM_WIDTH * YMM_BLOCK) /* bytes of key stream */
#define YMM_FIRST (YMM_PASS - YMM_BLOCK)  /* of the first pass, without the key of Poly1305 */

struct ymm_single {
	struct ymm_cipher cipher;
	struct wg_poly poly;
	__m256i words[16], rows[YMM_WIDTH];
	uint8_t stream[2][YMM_PASS]; /* this pass's and the one before */
	uint32_t absorbed;           /* by Poly1305, so far */
};

/*
 * The next 8 blocks; meanwhile Poly1305 absorbs the data up to `until` (whole blocks of 16), which
 * for what the pass before made is enough.
 */
ONCE void ymm_chacha_single(struct ymm_single *single, const uint8_t *data, uint32_t until)
{
	uint32_t at = single->absorbed;
	YMM_BEGIN(&single->cipher);

#define ABSORB                                                                                     \
	if (at + WG_POLY_BLOCK <= until) {                                                         \
		wg_poly_block(&single->poly, data + at);                                           \
		at += WG_POLY_BLOCK;                                                               \
	}
	for (unsigned i = 0; i < 10; i++) {
		YMM_QUARTERS(0, 4, 8, 12, 1, 5, 9, 13);
		ABSORB
		YMM_QUARTERS(2, 6, 10, 14, 3, 7, 11, 15);
		ABSORB
		YMM_QUARTERS(2, 7, 8, 13, 3, 4, 9, 14);
		ABSORB
		YMM_QUARTERS(0, 5, 10, 15, 1, 6, 11, 12);
		ABSORB
	}
#undef ABSORB
	YMM_END(&single->cipher, single->words);
	single->absorbed = at;
	single->cipher.numbers =
		_mm256_add_epi32(single->cipher.numbers, _mm256_set1_epi32(YMM_WIDTH));
}

INLINE void ymm_make_stream(struct ymm_single *single, const uint8_t *data, uint32_t until,
			    uint8_t stream[YMM_PASS])
{
	ymm_chacha_single(single, data, until);
	for (unsigned half = 0; half < 2; half++) {
		ymm_words_to_rows(single->words + 8 * half, single->rows);
		for (unsigned i = 0; i < YMM_WIDTH; i++)
			_mm256_storeu_si256((__m256i *)(stream + i * YMM_BLOCK + half * YMM_HALF),
					    single->rows[i]);
	}
}

/* The first pass. Its first block is the key of Poly1305. */
INLINE void ymm_begin_single(struct ymm_single *single, const uint8_t key[KEY_LEN],
			     uint64_t counter)
{
	uint64_t poly_key[4];

	ymm_set_key(&single->cipher, key);
	single->cipher.nonce[0] = _mm256_set1_epi32((int)(uint32_t)counter);
	single->cipher.nonce[1] = _mm256_set1_epi32((int)(uint32_t)(counter >> 32));
	single->cipher.numbers = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
	single->absorbed = 0;
	ymm_make_stream(single, NULL, 0, single->stream[0]);
	memcpy(poly_key, single->stream[0], sizeof(poly_key));
	wg_poly_init(&single->poly, poly_key);
	wg_aead_wipe(poly_key, sizeof(poly_key));
}

/* Up to n bytes of the packet from `at` on. */
INLINE void ymm_xor_stream(const struct wg_aead_packet *packet, uint32_t at, uint32_t n,
			   const uint8_t *stream, uint8_t part[YMM_HALF])
{
	uint8_t *data = packet->data + at;

	if (n > packet->size - at)
		n = packet->size - at;
	for (; n >= YMM_HALF; n -= YMM_HALF, data += YMM_HALF, stream += YMM_HALF)
		ymm_xor_whole(data, _mm256_loadu_si256((const __m256i *)stream));
	if (n > 0)
		ymm_xor_part(part, data, n, _mm256_loadu_si256((const __m256i *)stream));
}

INLINE void ymm_seal_single(struct ymm_single *single, const uint8_t key[KEY_LEN],
			    struct wg_aead_packet *packet)
{
	uint64_t tag[2];
	uint8_t *part = (uint8_t *)single->rows;

	ymm_begin_single(single, key, packet->counter);
	ymm_xor_stream(packet, 0, YMM_FIRST, single->stream[0] + YMM_BLOCK, part);
	for (uint32_t at = YMM_FIRST; at < packet->size; at += YMM_PASS) {
		ymm_make_stream(single, packet->data, at, single->stream[0]);
		ymm_xor_stream(packet, at, YMM_PASS, single->stream[0], part);
	}
	wg_poly_rest(&single->poly, packet->data, single->absorbed, packet->size);
	wg_poly_final(&single->poly, tag);
	wg_aead_put_tag(packet, tag);
}

/* It is deciphered a pass later, when it has been absorbed. */
INLINE void ymm_open_single(struct ymm_single *single, const uint8_t key[KEY_LEN],
			    struct wg_aead_packet *packet)
{
	uint64_t tag[2];
	uint8_t *part = (uint8_t *)single->rows;
	const uint8_t *stream = single->stream[0] + YMM_BLOCK;
	uint32_t from = 0, until = YMM_FIRST;
	unsigned next = 1;

	ymm_begin_single(single, key, packet->counter);
	for (; until < packet->size; from = until, until += YMM_PASS, next ^= 1) {
		ymm_make_stream(single, packet->data, packet->size, single->stream[next]);
		ymm_xor_stream(packet, from, until - from, stream, part);
		stream = single->stream[next];
	}
	wg_poly_rest(&single->poly, packet->data, single->absorbed, packet->size);
	ymm_xor_stream(packet, from, until - from, stream, part);
	wg_poly_final(&single->poly, tag);
	wg_aead_check_tag(packet, tag);
}

TARGET static inline void ymm_seal_each(const uint8_t key[KEY_LEN], struct wg_aead_packet *packets,
					unsigned n)
{
	struct ymm_single single;

	for (unsigned i = 0; i < n; i++)
		ymm_seal_single(&single, key, &packets[i]);
	wg_aead_wipe(&single, sizeof(single));
	YMM_FORGET();
}

TARGET static inline void ymm_open_each(const uint8_t key[KEY_LEN], struct wg_aead_packet *packets,
					unsigned n)
{
	struct ymm_single single;

	for (unsigned i = 0; i < n; i++)
		ymm_open_single(&single, key, &packets[i]);
	wg_aead_wipe(&single, sizeof(single));
	YMM_FORGET();
}

#endif
