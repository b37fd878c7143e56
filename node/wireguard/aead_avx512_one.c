/*
 * One packet with AVX-512: its blocks are in the lanes.
 *
 * ChaCha20: passes of 16 blocks, or of 8 when no more are needed. Rows of a pass are then
 * consecutive bytes of the key stream.
 *
 * Poly1305: 8 blocks at once with powers of r. Lane k of the sum takes every eighth block,
 *
 *   h_k = (..((m_k) r^8 + m_8+k) r^8 + ..) r^8 + m_last_k,   h = sum of h_k r^(8-k)
 *
 * Zero blocks are put in front until there are a multiple of 8; they change nothing. A step stands
 * between the rounds of the pass that makes the next part of the key stream.
 */
#include "node/wireguard/aead_avx512.h"

#ifdef __x86_64__

#define STEP	 (IFMA_WIDTH * WG_POLY_BLOCK) /* bytes */
#define LONG	 (ZMM_WIDTH * ZMM_BLOCK)      /* of a pass */
#define SHORT	 (YMM_WIDTH * YMM_BLOCK)
#define SMALL	 256 /* up to here one pass and the scalar unit are faster */

struct wide_poly {
	struct ifma_number h;
	struct ifma_factor r8;	   /* r^8 in every lane */
	struct ifma_factor powers; /* what each lane is multiplied by in the end */
	uint64_t pad[2];
	uint32_t zeros; /* bytes of zero blocks in front */
	uint32_t at;	/* the next step, counting from these */
	uint32_t end;	/* of the last, with the block of lengths */
	__m512i last[2]; /* its rows */
};

struct one {
	struct zmm_cipher cipher;
	struct ymm_cipher short_cipher; /* of the same packet */
	struct wide_poly poly;
	__m512i stream[2][ZMM_WIDTH]; /* this pass's rows and those of the one before */
	__m256i halves[2][YMM_WIDTH];
	uint32_t block; /* the next of the key stream */
};

/* ---- Poly1305 ---- */

/*
 * Which lane holds which block of a step follows from how two rows of 64 bytes are split: block 0, 4,
 * 1, 5, 2, 6, 3, 7. So the powers in the end are r^8, r^4, r^7, r^3, r^6, r^2, r^5, r^1.
 */
INLINE void make_powers(struct wide_poly *poly, const struct ifma_factor *r)
{
	const __m512i lane_0 = _mm512_setzero_si512();
	__m512i r2[3], up_to_4[3], to_8[3], fourth[3], mixed[3];
	struct ifma_factor factor;

	ifma_multiply(r->limbs, r, r2);
	ifma_set_factor(&factor, r2);
	for (unsigned i = 0; i < 3; i++)
		mixed[i] = _mm512_mask_mov_epi64(r->limbs[i], 0x03, r2[i]);
	ifma_multiply(mixed, &factor, up_to_4); /* 4 4 3 3 3 3 3 3 */
	for (unsigned i = 0; i < 3; i++) {
		up_to_4[i] = _mm512_mask_mov_epi64(up_to_4[i], 0x30, r2[i]);
		up_to_4[i] = _mm512_mask_mov_epi64(up_to_4[i], 0xc0, r->limbs[i]);
		fourth[i] = _mm512_permutexvar_epi64(lane_0, up_to_4[i]);
	}
	ifma_set_factor(&factor, fourth);
	ifma_multiply(up_to_4, &factor, to_8); /* 8 8 7 7 6 6 5 5 */
	for (unsigned i = 0; i < 3; i++) {
		mixed[i] = _mm512_mask_mov_epi64(to_8[i], 0xaa, up_to_4[i]);
		to_8[i] = _mm512_permutexvar_epi64(lane_0, to_8[i]);
	}
	ifma_set_factor(&poly->powers, mixed);
	ifma_set_factor(&poly->r8, to_8);
}

/* For a packet of size bytes. */
INLINE void wide_init(struct wide_poly *poly, const uint64_t key[4], uint32_t size)
{
	const uint32_t blocks = (size + WG_POLY_BLOCK - 1) / WG_POLY_BLOCK + 1;
	struct ifma_factor r;

	ifma_set_r(&r, _mm512_set1_epi64((long long)key[0]), _mm512_set1_epi64((long long)key[1]));
	make_powers(poly, &r);
	for (unsigned i = 0; i < 3; i++)
		poly->h.limbs[i] = _mm512_setzero_si512();
	poly->pad[0] = key[2];
	poly->pad[1] = key[3];
	poly->end = (blocks + IFMA_WIDTH - 1) / IFMA_WIDTH * STEP;
	poly->zeros = poly->end - blocks * WG_POLY_BLOCK;
	poly->at = 0;
}

INLINE void add_rows(const struct ifma_number *h, __m512i a, __m512i b, __mmask8 who,
		     __m512i ret_sum[3])
{
	ifma_add_block(h, _mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b), who, ret_sum);
}

/* 64 bytes of which `zeros` do not exist in front, and all from `size` on. */
INLINE __m512i load_row(const uint8_t *data, uint32_t at, uint32_t zeros, uint32_t size)
{
	const uint32_t front = zeros > at ? zeros - at : 0;
	const uint32_t until = zeros + size > at ? zeros + size - at : 0;

	if (front >= ZMM_BLOCK || until == 0)
		return _mm512_setzero_si512();
	return _mm512_maskz_loadu_epi8(zmm_first(until) & ~zmm_first(front), data + at - zeros);
}

/* The lanes whose block in a step does not begin before this. */
INLINE __mmask8 blocks_from(uint32_t zeros)
{
	return _mm512_cmpge_epu64_mask(_mm512_setr_epi64(0, 64, 16, 80, 32, 96, 48, 112),
				       _mm512_set1_epi64((long long)zeros));
}

/* The first step may begin with zero blocks, which have no 2^128 either. */
INLINE void first_step(struct wide_poly *poly, const uint8_t *data, uint32_t size)
{
	__m512i sum[3];

	add_rows(&poly->h, load_row(data, 0, poly->zeros, size),
		 load_row(data, ZMM_BLOCK, poly->zeros, size), blocks_from(poly->zeros), sum);
	ifma_multiply(sum, &poly->r8, poly->h.limbs);
	poly->at = STEP;
}

INLINE void middle_step(struct wide_poly *poly, const uint8_t *data)
{
	const uint8_t *at = data + poly->at - poly->zeros;
	__m512i sum[3];

	add_rows(&poly->h, _mm512_loadu_si512(at), _mm512_loadu_si512(at + ZMM_BLOCK), IFMA_ALL,
		 sum);
	ifma_multiply(sum, &poly->r8, poly->h.limbs);
	poly->at += STEP;
}

/* The last step ends with the block of lengths. To be read before any of it is deciphered. */
INLINE void read_last(struct wide_poly *poly, const uint8_t *data, uint32_t size)
{
	const uint32_t at = poly->end - STEP;
	const __m512i lengths = _mm512_setr_epi64(0, 0, 0, 0, 0, 0, 0, (long long)size);

	poly->last[0] = load_row(data, at, poly->zeros, size);
	poly->last[1] =
		_mm512_or_si512(lengths, load_row(data, at + ZMM_BLOCK, poly->zeros, size));
}

INLINE void last_step(struct wide_poly *poly, __m512i ret_product[3])
{
	__m512i sum[3];

	add_rows(&poly->h, poly->last[0], poly->last[1],
		 poly->at == 0 ? blocks_from(poly->zeros) : IFMA_ALL, sum);
	ifma_multiply(sum, &poly->powers, ret_product);
}

/* The lanes' sum, as 64-bit numbers, and the pad added to it. */
INLINE void wide_final(struct wide_poly *poly, uint64_t ret_tag[2])
{
	const uint64_t limb_44 = (1ull << 44) - 1, limb_42 = (1ull << 42) - 1;
	struct wg_poly sum = { .pad = { poly->pad[0], poly->pad[1] } };
	__m512i product[3];

	last_step(poly, product);
	uint64_t a = (uint64_t)_mm512_reduce_add_epi64(product[0]);
	uint64_t b = (uint64_t)_mm512_reduce_add_epi64(product[1]);
	uint64_t c = (uint64_t)_mm512_reduce_add_epi64(product[2]);
	for (unsigned i = 0; i < 2; i++) { /* then every limb is in its bounds */
		b += a >> 44, a &= limb_44;
		c += b >> 44, b &= limb_44;
		a += (c >> 42) * 5, c &= limb_42;
	}
	b += a >> 44, a &= limb_44;
	sum.h[0] = a | b << 44;
	sum.h[1] = (b >> 20) + (c << 24);
	sum.h[2] = (c >> 40) + (sum.h[1] < (b >> 20));
	wg_poly_final(&sum, ret_tag);
	wg_aead_wipe(&sum, sizeof(sum));
}

/* A step of what ends (sealing) or begins (opening) before `until`, but never the last one. */
INLINE void absorb_step(struct wide_poly *poly, const uint8_t *data, uint32_t size, uint32_t until)
{
	if (poly->at + STEP >= poly->end || poly->at >= until + poly->zeros)
		return;
	if (poly->at == 0)
		first_step(poly, data, size);
	else
		middle_step(poly, data);
}

/* ---- ChaCha20 ---- */

/* The next 16 blocks; meanwhile up to 10 steps. */
ONCE void long_pass(struct one *one, const struct wg_aead_packet *packet, uint32_t until,
		      __m512i rows[ZMM_WIDTH])
{
	__m512i words[16];

	one->cipher.numbers = _mm512_add_epi32(
		_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
		_mm512_set1_epi32((int)one->block));
	ZMM_BEGIN(&one->cipher);
	for (unsigned i = 0; i < 10; i++) {
		ZMM_QUARTER(0, 4, 8, 12);
		ZMM_QUARTER(1, 5, 9, 13);
		ZMM_QUARTER(2, 6, 10, 14);
		ZMM_QUARTER(3, 7, 11, 15);
		ZMM_QUARTER(0, 5, 10, 15);
		ZMM_QUARTER(1, 6, 11, 12);
		ZMM_QUARTER(2, 7, 8, 13);
		ZMM_QUARTER(3, 4, 9, 14);
		absorb_step(&one->poly, packet->data, packet->size, until);
	}
	ZMM_END(&one->cipher, words);
	zmm_words_to_rows(words, rows);
	one->block += ZMM_WIDTH;
}

/* The next 8 blocks, likewise. */
ONCE void short_pass(struct one *one, const struct wg_aead_packet *packet, uint32_t until,
		       __m512i rows[YMM_WIDTH])
{
	__m256i words[16];

	one->short_cipher.numbers =
		_mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7),
				 _mm256_set1_epi32((int)one->block));
	YMM_BEGIN(&one->short_cipher);
	for (unsigned i = 0; i < 10; i++) {
		YMM_QUARTERS(0, 4, 8, 12, 1, 5, 9, 13);
		YMM_QUARTERS(2, 6, 10, 14, 3, 7, 11, 15);
		YMM_QUARTERS(2, 7, 8, 13, 3, 4, 9, 14);
		YMM_QUARTERS(0, 5, 10, 15, 1, 6, 11, 12);
		absorb_step(&one->poly, packet->data, packet->size, until);
	}
	YMM_END(&one->short_cipher, words);
	ymm_words_to_rows(words, one->halves[0]);
	ymm_words_to_rows(words + 8, one->halves[1]);
	for (unsigned i = 0; i < YMM_WIDTH; i++)
		rows[i] = _mm512_inserti64x4(_mm512_castsi256_si512(one->halves[0][i]),
					     one->halves[1][i], 1);
	one->block += YMM_WIDTH;
}

/* As many blocks as are needed from `at` on. Returns how many bytes that makes. */
INLINE uint32_t next_pass(struct one *one, const struct wg_aead_packet *packet, uint32_t at,
			  uint32_t until, __m512i rows[ZMM_WIDTH])
{
	if (packet->size - at > SHORT) {
		long_pass(one, packet, until, rows);
		return LONG;
	}
	short_pass(one, packet, until, rows);
	return SHORT;
}

/* The rest of the pass in which block 0 is the key of Poly1305. Returns its bytes. */
INLINE uint32_t first_pass(struct one *one, const uint8_t key[KEY_LEN],
			   const struct wg_aead_packet *packet)
{
	const int nonce_lo = (int)(uint32_t)packet->counter;
	const int nonce_hi = (int)(uint32_t)(packet->counter >> 32);
	uint64_t poly_key[4];
	uint32_t n;

	zmm_set_key(&one->cipher, key);
	ymm_set_key(&one->short_cipher, key);
	one->cipher.nonce[0] = _mm512_set1_epi32(nonce_lo);
	one->cipher.nonce[1] = _mm512_set1_epi32(nonce_hi);
	one->short_cipher.nonce[0] = _mm256_set1_epi32(nonce_lo);
	one->short_cipher.nonce[1] = _mm256_set1_epi32(nonce_hi);
	one->block = 0;
	one->poly.at = one->poly.end = 0; /* nothing is absorbed yet */
	if (packet->size > SHORT - ZMM_BLOCK) {
		long_pass(one, packet, 0, one->stream[0]);
		n = LONG - ZMM_BLOCK;
	} else {
		short_pass(one, packet, 0, one->stream[0]);
		n = SHORT - ZMM_BLOCK;
	}
	memcpy(poly_key, &one->stream[0][0], sizeof(poly_key));
	wide_init(&one->poly, poly_key, packet->size);
	wg_aead_wipe(poly_key, sizeof(poly_key));
	return n;
}

/* The packet from `at` on, up to n bytes. */
INLINE void xor_rows(const struct wg_aead_packet *packet, uint32_t at, uint32_t n,
		     const __m512i *rows)
{
	uint8_t *data = packet->data + at;

	if (n > packet->size - at)
		n = packet->size - at;
	for (; n >= ZMM_BLOCK; n -= ZMM_BLOCK, data += ZMM_BLOCK, rows++)
		_mm512_storeu_si512(data, _mm512_xor_si512(_mm512_loadu_si512(data), *rows));
	if (n > 0) {
		const __mmask64 has = zmm_first(n);
		_mm512_mask_storeu_epi8(
			data, has, _mm512_xor_si512(_mm512_maskz_loadu_epi8(has, data), *rows));
	}
}

/* ---- both together ---- */

INLINE void seal_long(struct one *one, const uint8_t key[KEY_LEN], struct wg_aead_packet *packet)
{
	uint32_t at = first_pass(one, key, packet), n;
	uint64_t tag[2];

	xor_rows(packet, 0, at, one->stream[0] + 1);
	for (; at < packet->size; at += n) {
		/* a step reads beyond where it begins: only what is sealed wholly */
		n = next_pass(one, packet, at, at > STEP ? at - STEP : 0, one->stream[0]);
		xor_rows(packet, at, n, one->stream[0]);
	}
	while (one->poly.at + STEP < one->poly.end)
		absorb_step(&one->poly, packet->data, packet->size, packet->size);
	read_last(&one->poly, packet->data, packet->size);
	wide_final(&one->poly, tag);
	wg_aead_put_tag(packet, tag);
}

/* It is deciphered a pass later, when it has been absorbed. */
INLINE void open_long(struct one *one, const uint8_t key[KEY_LEN], struct wg_aead_packet *packet)
{
	uint32_t at = first_pass(one, key, packet), from = 0, n;
	const __m512i *stream = one->stream[0] + 1;
	unsigned next = 1;
	uint64_t tag[2];

	read_last(&one->poly, packet->data, packet->size);
	for (; at < packet->size; from = at, at += n, next ^= 1) {
		n = next_pass(one, packet, at, packet->size, one->stream[next]);
		while (one->poly.at < at + one->poly.zeros && one->poly.at + STEP < one->poly.end)
			absorb_step(&one->poly, packet->data, packet->size, packet->size);
		xor_rows(packet, from, at - from, stream);
		stream = one->stream[next];
	}
	while (one->poly.at + STEP < one->poly.end)
		absorb_step(&one->poly, packet->data, packet->size, packet->size);
	wide_final(&one->poly, tag);
	xor_rows(packet, from, at - from, stream);
	wg_aead_check_tag(packet, tag);
}

/* ---- each of n packets ---- */

static unsigned count_small(const struct wg_aead_packet *packets, unsigned n)
{
	unsigned n_small = 0;

	for (unsigned i = 0; i < n; i++)
		n_small += packets[i].size <= SMALL;
	return n_small;
}

/* Long packets need more of the stack than the caller wipes, short ones do not: their time counts. */
static __attribute__((noinline)) void wipe_deep_stack(void)
{
	uint8_t below[8192];

	wg_aead_wipe(below, sizeof(below));
}

INLINE void do_long(const uint8_t key[KEY_LEN], struct wg_aead_packet *packets, unsigned n, bool sealing)
{
	struct one one;

	for (unsigned i = 0; i < n; i++) {
		if (packets[i].size <= SMALL)
			continue;
		if (sealing)
			seal_long(&one, key, &packets[i]);
		else
			open_long(&one, key, &packets[i]);
	}
	wg_aead_wipe(&one, sizeof(one));
}

INLINE void do_small(const uint8_t key[KEY_LEN], struct wg_aead_packet *packets, unsigned n, bool sealing)
{
	struct ymm_single single;

	for (unsigned i = 0; i < n; i++) {
		if (packets[i].size > SMALL)
			continue;
		if (sealing)
			ymm_seal_single(&single, key, &packets[i]);
		else
			ymm_open_single(&single, key, &packets[i]);
	}
	wg_aead_wipe(&single, sizeof(single));
}

/* Not in line: small packets need not pay for the stack of long ones. */
#define EACH(name, what, sealing)                                                                  \
	TARGET static __attribute__((noinline)) void name(                                         \
		const uint8_t key[KEY_LEN], struct wg_aead_packet *packets, unsigned n)            \
	{                                                                                          \
		what(key, packets, n, sealing);                                                    \
	}
EACH(seal_each_long, do_long, true)
EACH(open_each_long, do_long, false)
EACH(seal_each_small, do_small, true)
EACH(open_each_small, do_small, false)
#undef EACH

TARGET void wg_aead_avx512_seal_each(const uint8_t key[KEY_LEN], struct wg_aead_packet *packets,
				     unsigned n)
{
	const unsigned n_small = count_small(packets, n);

	if (n_small < n) {
		seal_each_long(key, packets, n);
		wipe_deep_stack();
	}
	if (n_small > 0)
		seal_each_small(key, packets, n);
	YMM_FORGET();
}

TARGET void wg_aead_avx512_open_each(const uint8_t key[KEY_LEN], struct wg_aead_packet *packets,
				     unsigned n)
{
	const unsigned n_small = count_small(packets, n);

	if (n_small < n) {
		open_each_long(key, packets, n);
		wipe_deep_stack();
	}
	if (n_small > 0)
		open_each_small(key, packets, n);
	YMM_FORGET();
}

#endif
