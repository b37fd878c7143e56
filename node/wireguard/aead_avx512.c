/*
 * 16 packets at once with AVX-512.
 *
 * ChaCha20: vector w holds word w of the state of 16 packets, so one pass makes the same block of
 * the key stream of all; a transposition turns it into 16 rows of 64 bytes.
 *
 * Poly1305: of the first 8 packets the 52-bit multiplier does it, of the other 8 the scalar unit,
 * both while the next block of the key stream is made. None of the three has enough to do alone.
 *
 * Up to 8 packets, and small single ones: aead_ymm.h, with the better instructions.
 */
#include "node/wireguard/aead_avx512.h"

#ifdef __x86_64__

#define HALF_OF_LANES 8

/* Poly1305 of the first 8 packets. */
struct front {
	struct ifma_number h;
	struct ifma_factor r;
	__m512i pad[2];
	/* Four blocks that are still to be absorbed, and in which lanes they are. */
	__m512i lo[4], hi[4];
	__mmask8 who[4];
};

/* Of the others, and what the next pass absorbs: 64 bytes a lane. */
struct back {
	struct wg_poly poly[HALF_OF_LANES];
	struct wg_poly idle[HALF_OF_LANES]; /* what lanes without anything to absorb work at */
	struct wg_poly *to[HALF_OF_LANES];
	const uint8_t *from[HALF_OF_LANES];
	uint32_t until; /* all have so much */
	uint8_t nothing[ZMM_BLOCK];
};

/* Packets in lanes. */
struct batch {
	struct zmm_cipher cipher;
	struct front front;
	struct back back;
	union {
		__m512i words[16];
		uint32_t numbers[16][ZMM_WIDTH]; /* the same */
	};
	uint64_t sizes[ZMM_WIDTH], tags[2][HALF_OF_LANES];
	uint32_t longest;
};

/* ---- Poly1305 of the first 8 packets ---- */

INLINE void front_absorb(struct front *front, __m512i lo, __m512i hi, __mmask8 who)
{
	__m512i sum[3], product[3];

	ifma_add_block(&front->h, lo, hi, IFMA_ALL, sum);
	ifma_multiply(sum, &front->r, product);
	for (unsigned i = 0; i < 3; i++)
		front->h.limbs[i] = _mm512_mask_mov_epi64(front->h.limbs[i], who, product[i]);
}

/* `rows` are 64 bytes of 8 packets, of which `sizes` bytes follow from here on. */
INLINE void put_off(struct front *front, const __m512i rows[HALF_OF_LANES], __m512i sizes)
{
#define PAIR(op, i) _mm512_unpack##op##_epi64(rows[i], rows[i + 1])
	zmm_transpose_cells(PAIR(lo, 0), PAIR(lo, 2), PAIR(lo, 4), PAIR(lo, 6), front->lo);
	zmm_transpose_cells(PAIR(hi, 0), PAIR(hi, 2), PAIR(hi, 4), PAIR(hi, 6), front->hi);
#undef PAIR
	for (int i = 0; i < 4; i++)
		front->who[i] =
			_mm512_cmpgt_epi64_mask(sizes, _mm512_set1_epi64(i * WG_POLY_BLOCK));
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
INLINE void front_final(struct front *front, __m512i sizes, __m512i *ret_lo, __m512i *ret_hi)
{
	__m512i *h = front->h.limbs, g0, g1, g2;

	front_absorb(front, _mm512_setzero_si512(), sizes, IFMA_ALL);
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
	*ret_lo = _mm512_add_epi64(lo, front->pad[0]);
	const __mmask8 over = _mm512_cmplt_epu64_mask(*ret_lo, lo);
	*ret_hi = _mm512_add_epi64(hi, front->pad[1]);
	*ret_hi = _mm512_mask_add_epi64(*ret_hi, over, *ret_hi, _mm512_set1_epi64(1));
}

/* ---- of the others ---- */

/* The next pass absorbs the 64 bytes at `at` of those packets that have them. */
INLINE void plan(struct back *back, const struct wg_aead_packet *packets, unsigned n, uint32_t at)
{
	back->until = n == HALF_OF_LANES ? UINT32_MAX : 0;
	for (unsigned i = 0; i < HALF_OF_LANES; i++) {
		const bool has = i < n && packets[i].size >= at + ZMM_BLOCK;
		back->to[i] = has ? &back->poly[i] : &back->idle[i];
		back->from[i] = has ? packets[i].data + at : back->nothing;
		if (i < n && packets[i].size < back->until)
			back->until = packets[i].size;
	}
}

/* The same after at - 64. */
INLINE void plan_next(struct back *back, const struct wg_aead_packet *packets, unsigned n,
		      uint32_t at)
{
	if (at == 0 || at + ZMM_BLOCK > back->until) {
		plan(back, packets, n, at);
		return;
	}
	for (unsigned i = 0; i < HALF_OF_LANES; i++)
		back->from[i] += ZMM_BLOCK;
}

/* Two blocks of two packets (i 0 and 1); the eighths of a pass bring all four blocks of all eight. */
INLINE void back_absorb(struct back *back, unsigned eighth, unsigned i)
{
	i += eighth % 4 * 2;
	wg_poly_blocks(back->to[i], back->from[i] + eighth / 4 * 2 * WG_POLY_BLOCK, 2);
}

/* ---- all together ---- */

/* Words of a block of each packet; meanwhile what was put off and planned is absorbed. */
INLINE void make_words(struct batch *batch, bool absorbs, __m512i ret_words[16])
{
	struct front *front = &batch->front;
	struct back *back = &batch->back;
	ZMM_BEGIN(&batch->cipher);

#define ABSORB(k)                                                                                  \
	if (absorbs && i < 8)                                                                      \
	back_absorb(back, i, k)
	for (unsigned i = 0; i < 10; i++) {
		ZMM_QUARTER(0, 4, 8, 12);
		ZMM_QUARTER(1, 5, 9, 13);
		ZMM_QUARTER(2, 6, 10, 14);
		ZMM_QUARTER(3, 7, 11, 15);
		ABSORB(0);
		ZMM_QUARTER(0, 5, 10, 15);
		ZMM_QUARTER(1, 6, 11, 12);
		ZMM_QUARTER(2, 7, 8, 13);
		ZMM_QUARTER(3, 4, 9, 14);
		ABSORB(1);
		if (absorbs && i < 4)
			front_absorb(front, front->lo[i], front->hi[i], front->who[i]);
	}
#undef ABSORB
	ZMM_END(&batch->cipher, ret_words);
	batch->cipher.numbers = _mm512_add_epi32(batch->cipher.numbers, _mm512_set1_epi32(1));
}

ONCE void make_first_words(struct batch *batch)
{
	make_words(batch, false, batch->words);
}

/* Words a and b of the first 8 packets, as 64-bit numbers. */
INLINE __m512i join_words(__m512i a, __m512i b)
{
	return _mm512_or_si512(
		_mm512_cvtepu32_epi64(_mm512_castsi512_si256(a)),
		_mm512_slli_epi64(_mm512_cvtepu32_epi64(_mm512_castsi512_si256(b)), 32));
}

/* Block 0 of the key stream is the key of Poly1305. */
INLINE void make_poly_keys(struct batch *batch)
{
	const uint32_t(*words)[ZMM_WIDTH] = batch->numbers;
	const __m512i *w = batch->words;
	struct front *front = &batch->front;

	make_first_words(batch);
	ifma_set_r(&front->r, join_words(w[0], w[1]), join_words(w[2], w[3]));
	front->pad[0] = join_words(w[4], w[5]);
	front->pad[1] = join_words(w[6], w[7]);
	for (unsigned i = 0; i < 3; i++)
		front->h.limbs[i] = _mm512_setzero_si512();
	for (unsigned i = 0; i < 4; i++) {
		front->lo[i] = front->hi[i] = _mm512_setzero_si512();
		front->who[i] = 0; /* the first pass has nothing to absorb */
	}
#define JOIN(w, i) (words[w][i] | (uint64_t)words[(w) + 1][i] << 32)
	for (unsigned i = 0; i < HALF_OF_LANES; i++) {
		const unsigned k = HALF_OF_LANES + i;
		wg_poly_init(&batch->back.poly[i],
			     (const uint64_t[4]){ JOIN(0, k), JOIN(2, k), JOIN(4, k), JOIN(6, k) });
	}
#undef JOIN
}

INLINE void begin(struct batch *batch, const uint8_t key[KEY_LEN],
		  const struct wg_aead_packet *packets, unsigned n)
{
	uint32_t nonce_lo[ZMM_WIDTH] = { 0 }, nonce_hi[ZMM_WIDTH] = { 0 };

	zmm_set_key(&batch->cipher, key);
	batch->longest = 0;
	memset(batch->sizes, 0, sizeof(batch->sizes));
	for (unsigned i = 0; i < n; i++) {
		batch->sizes[i] = packets[i].size;
		nonce_lo[i] = (uint32_t)packets[i].counter;
		nonce_hi[i] = (uint32_t)(packets[i].counter >> 32);
		if (packets[i].size > batch->longest)
			batch->longest = packets[i].size;
	}
	batch->cipher.nonce[0] = _mm512_loadu_si512(nonce_lo);
	batch->cipher.nonce[1] = _mm512_loadu_si512(nonce_hi);
	batch->cipher.numbers = _mm512_setzero_si512();
	memset(batch->back.idle, 0, sizeof(batch->back.idle));
	memset(batch->back.nothing, 0, sizeof(batch->back.nothing));
	plan(&batch->back, packets, 0, 0);
	make_poly_keys(batch);
}

/* 64 bytes, or what a packet has of them. Returns them sealed, and zeros for Poly1305. */
INLINE __m512i crypt_row(const struct wg_aead_packet *packet, uint32_t at, __m512i stream,
			 bool sealing)
{
	const uint32_t size = packet->size > at ? packet->size - at : 0;
	uint8_t *data = packet->data + (size > 0 ? at : 0);

	if (size >= ZMM_BLOCK) {
		const __m512i before = _mm512_loadu_si512(data);
		const __m512i after = _mm512_xor_si512(before, stream);
		_mm512_storeu_si512(data, after);
		return sealing ? after : before;
	}
	const __mmask64 has = zmm_first(size);
	const __m512i before = _mm512_maskz_loadu_epi8(has, data);
	const __m512i after = _mm512_maskz_mov_epi8(has, _mm512_xor_si512(before, stream));
	_mm512_mask_storeu_epi8(data, has, after);
	return sealing ? after : before;
}

/* Written out: in a loop the rows would go to memory and back, which takes a tenth of all. */
INLINE void crypt_rows(struct batch *batch, const __m512i words[16], struct wg_aead_packet *packets,
		       unsigned n, uint32_t at, bool sealing)
{
	__m512i stream[ZMM_WIDTH], sealed[HALF_OF_LANES];

	zmm_words_to_rows(words, stream);
#define ROW(i) ((i) < n ? crypt_row(&packets[i], at, stream[i], sealing) : _mm512_setzero_si512())
	sealed[0] = ROW(0), sealed[1] = ROW(1), sealed[2] = ROW(2), sealed[3] = ROW(3);
	sealed[4] = ROW(4), sealed[5] = ROW(5), sealed[6] = ROW(6), sealed[7] = ROW(7);
	(void)ROW(8), (void)ROW(9), (void)ROW(10), (void)ROW(11);
	(void)ROW(12), (void)ROW(13), (void)ROW(14), (void)ROW(15);
#undef ROW
	put_off(&batch->front, sealed,
		_mm512_sub_epi64(_mm512_loadu_si512(batch->sizes), _mm512_set1_epi64(at)));
}

/* Less than a row: absorbed before it is deciphered. */
INLINE void absorb_tails(struct back *back, const struct wg_aead_packet *packets, unsigned n,
			 uint32_t at)
{
	for (unsigned i = 0; i < n; i++)
		if (packets[i].size > at && packets[i].size - at < ZMM_BLOCK)
			wg_poly_rest(&back->poly[i], packets[i].data, at, packets[i].size);
}

/* What is put off when there is no further pass; of the last 8 packets only when sealing. */
INLINE void absorb_last(struct batch *batch, bool sealing)
{
	struct front *front = &batch->front;

	for (unsigned i = 0; i < 8; i++) {
		for (unsigned k = 0; sealing && k < 2; k++)
			back_absorb(&batch->back, i, k);
		if (i % 2 == 0)
			front_absorb(front, front->lo[i / 2], front->hi[i / 2], front->who[i / 2]);
	}
}

/* The last 8 packets: sealing absorbs a row one pass later, opening just before it is deciphered. */
INLINE void crypt_batch(struct batch *batch, struct wg_aead_packet *packets, unsigned n,
			bool sealing)
{
	const struct wg_aead_packet *others = packets + HALF_OF_LANES;
	const unsigned n_others = n > HALF_OF_LANES ? n - HALF_OF_LANES : 0;

	for (uint32_t at = 0; at < batch->longest; at += ZMM_BLOCK) {
		__m512i words[16];

		if (!sealing)
			plan_next(&batch->back, others, n_others, at);
		make_words(batch, true, words);
		if (!sealing)
			absorb_tails(&batch->back, others, n_others, at);
		crypt_rows(batch, words, packets, n, at, sealing);
		if (sealing)
			plan_next(&batch->back, others, n_others, at);
	}
	if (batch->longest > 0)
		absorb_last(batch, sealing);
}

INLINE void make_front_tags(struct batch *batch)
{
	__m512i lo, hi;

	front_final(&batch->front, _mm512_loadu_si512(batch->sizes), &lo, &hi);
	_mm512_storeu_si512(batch->tags[0], lo);
	_mm512_storeu_si512(batch->tags[1], hi);
}

TARGET static void seal_batch(const uint8_t key[KEY_LEN], struct wg_aead_packet *packets,
			      unsigned n)
{
	struct batch batch;

	begin(&batch, key, packets, n);
	crypt_batch(&batch, packets, n, true);
	make_front_tags(&batch);
	for (unsigned i = 0; i < HALF_OF_LANES && i < n; i++)
		wg_aead_put_tag(&packets[i],
				(const uint64_t[]){ batch.tags[0][i], batch.tags[1][i] });
	for (unsigned i = HALF_OF_LANES; i < n; i++)
		ymm_seal_tag(&batch.back.poly[i - HALF_OF_LANES], &packets[i]);
	wg_aead_wipe(&batch, sizeof(batch));
	YMM_FORGET();
}

/* What proves forged is zeroed. */
TARGET static void open_batch(const uint8_t key[KEY_LEN], struct wg_aead_packet *packets,
			      unsigned n)
{
	struct batch batch;

	begin(&batch, key, packets, n);
	crypt_batch(&batch, packets, n, false);
	make_front_tags(&batch);
	for (unsigned i = 0; i < HALF_OF_LANES && i < n; i++)
		wg_aead_check_tag(&packets[i],
				  (const uint64_t[]){ batch.tags[0][i], batch.tags[1][i] });
	for (unsigned i = HALF_OF_LANES; i < n; i++)
		ymm_open_tag(&batch.back.poly[i - HALF_OF_LANES], &packets[i]);
	wg_aead_wipe(&batch, sizeof(batch));
	YMM_FORGET();
}

static bool is_supported(void)
{
	return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
	       __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
	       __builtin_cpu_supports("avx512ifma") && __builtin_cpu_supports("bmi2");
}

/* Eight large packets are no faster together than one after the other, and slower when the CPU has lowered its clock. */
#define NEVER (ZMM_WIDTH + 1)

const struct wg_aead_lanes wg_aead_avx512 = {
	.name = "avx512",
	.is_supported = is_supported,
	.ways = { { .width = ZMM_WIDTH,
		    .is_deep = true,
		    .at_least = { 10, 11, 13 },
		    .seal = seal_batch,
		    .open = open_batch },
		  { .width = YMM_WIDTH,
		    .at_least = { 4, 5, NEVER },
		    .seal = ymm_seal_batch,
		    .open = ymm_open_batch },
		  { .width = WG_AEAD_EACH,
		    .at_least = { 1, 1, 1 },
		    .seal = wg_aead_avx512_seal_each,
		    .open = wg_aead_avx512_open_each } },
};

#endif
