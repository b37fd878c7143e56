/*
 * Words of 64 bits are added twice: whole, which loses carries, and their upper halves alone. What the
 * lower halves add up to is the difference, so that an addition and a shift suffice for each vector.
 * Halves of 64 KB cannot overflow 64 bits.
 */
#include "node/wireguard/copy_sum.h"

#include <string.h>

/* Sums of whole words and of their upper halves: the sum of all halves. */
static uint64_t sum_of_halves(uint64_t whole, uint64_t upper)
{
	return (whole - (upper << 32)) + upper;
}

static uint64_t portable(void *to, const void *from, size_t len)
{
	const uint8_t *in = from;
	uint8_t *out = to;
	uint64_t whole[2] = { 0 }, upper[2] = { 0 }, word = 0;

	for (; len >= 16; in += 16, out += 16, len -= 16) {
		for (int i = 0; i < 2; i++) {
			memcpy(&word, in + 8 * i, 8);
			memcpy(out + 8 * i, &word, 8);
			whole[i] += word;
			upper[i] += word >> 32;
		}
	}
	uint64_t sum = sum_of_halves(whole[0], upper[0]) + sum_of_halves(whole[1], upper[1]);
	for (size_t n; len > 0; in += n, out += n, len -= n) {
		n = len < 8 ? len : 8;
		word = 0;
		memcpy(&word, in, n);
		memcpy(out, &word, n);
		sum += (word & 0xffffffff) + (word >> 32);
	}
	return sum;
}

#ifdef __x86_64__

#include <immintrin.h>

__attribute__((target("avx2"))) static uint64_t with_avx2(void *to, const void *from, size_t len)
{
	const uint8_t *in = from;
	uint8_t *out = to;
	__m256i whole[2] = { _mm256_setzero_si256(), _mm256_setzero_si256() };
	__m256i upper[2] = { _mm256_setzero_si256(), _mm256_setzero_si256() };
	uint64_t sums[8];

	for (; len >= 64; in += 64, out += 64, len -= 64) {
		for (int i = 0; i < 2; i++) {
			__m256i v = _mm256_loadu_si256((const void *)(in + 32 * i));
			_mm256_storeu_si256((void *)(out + 32 * i), v);
			whole[i] = _mm256_add_epi64(whole[i], v);
			upper[i] = _mm256_add_epi64(upper[i], _mm256_srli_epi64(v, 32));
		}
	}
	_mm256_storeu_si256((void *)sums, _mm256_add_epi64(whole[0], whole[1]));
	_mm256_storeu_si256((void *)(sums + 4), _mm256_add_epi64(upper[0], upper[1]));
	uint64_t sum = portable(out, in, len);
	for (int i = 0; i < 4; i++)
		sum += sum_of_halves(sums[i], sums[4 + i]);
	return sum;
}

__attribute__((target("avx512f,avx512bw"))) static uint64_t with_avx512(void *to, const void *from, size_t len)
{
	const uint8_t *in = from;
	uint8_t *out = to;
	__m512i whole[2] = { _mm512_setzero_si512(), _mm512_setzero_si512() };
	__m512i upper[2] = { _mm512_setzero_si512(), _mm512_setzero_si512() };
	uint64_t sums[16], sum = 0;

	for (; len >= 128; in += 128, out += 128, len -= 128) {
		for (int i = 0; i < 2; i++) {
			__m512i v = _mm512_loadu_si512(in + 64 * i);
			_mm512_storeu_si512(out + 64 * i, v);
			whole[i] = _mm512_add_epi64(whole[i], v);
			upper[i] = _mm512_add_epi64(upper[i], _mm512_srli_epi64(v, 32));
		}
	}
	/* What is left, in two parts; masked bytes are neither read nor written, and count as zero. */
	for (int i = 0; i < 2; i++) {
		size_t n = len < 64 ? len : 64;
		__mmask64 mask = n == 64 ? ~0ULL : (1ULL << n) - 1;
		__m512i v = _mm512_maskz_loadu_epi8(mask, in);
		_mm512_mask_storeu_epi8(out, mask, v);
		whole[i] = _mm512_add_epi64(whole[i], v);
		upper[i] = _mm512_add_epi64(upper[i], _mm512_srli_epi64(v, 32));
		in += n, out += n, len -= n;
	}
	_mm512_storeu_si512(sums, _mm512_add_epi64(whole[0], whole[1]));
	_mm512_storeu_si512(sums + 8, _mm512_add_epi64(upper[0], upper[1]));
	for (int i = 0; i < 8; i++)
		sum += sum_of_halves(sums[i], sums[8 + i]);
	return sum;
}

static bool has_avx2(void)
{
	return __builtin_cpu_supports("avx2");
}

/* Only with the fast multiplier: CPUs that have wide vectors without it slow down when they are used. */
static bool has_avx512(void)
{
	return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
	       __builtin_cpu_supports("avx512ifma");
}

#else

#define with_avx2   portable
#define with_avx512 portable

static bool has_avx2(void)
{
	return false;
}

static bool has_avx512(void)
{
	return false;
}

#endif

copy_sum_fn copy_sum_best(void)
{
	return has_avx512() ? with_avx512 : has_avx2() ? with_avx2 : portable;
}

uint32_t copy_sum_ways(struct copy_sum_way ret[COPY_SUM_MAX_WAYS])
{
	uint32_t n = 0;

	ret[n++] = (struct copy_sum_way){ "portable", portable };
	if (has_avx2())
		ret[n++] = (struct copy_sum_way){ "avx2", with_avx2 };
	if (has_avx512())
		ret[n++] = (struct copy_sum_way){ "avx512", with_avx512 };
	return n;
}
