/* AVX2: what aead_ymm.h does. */
#ifdef __x86_64__

#include <immintrin.h>

#define TARGET		 __attribute__((target("avx2,bmi2"), no_sanitize("undefined")))
#define YMM_ROTATE(a, n) rotate_##n(a)
#define YMM_FORGET()	 _mm256_zeroall()

static inline __attribute__((always_inline)) TARGET __m256i rotate_16(__m256i a)
{
	return _mm256_shuffle_epi8(a, _mm256_setr_epi8(2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15,
						       12, 13, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9,
						       14, 15, 12, 13));
}

static inline __attribute__((always_inline)) TARGET __m256i rotate_8(__m256i a)
{
	return _mm256_shuffle_epi8(a, _mm256_setr_epi8(3, 0, 1, 2, 7, 4, 5, 6, 11, 8, 9, 10, 15, 12,
						       13, 14, 3, 0, 1, 2, 7, 4, 5, 6, 11, 8, 9, 10,
						       15, 12, 13, 14));
}

static inline __attribute__((always_inline)) TARGET __m256i rotate_12(__m256i a)
{
	return _mm256_or_si256(_mm256_slli_epi32(a, 12), _mm256_srli_epi32(a, 20));
}

static inline __attribute__((always_inline)) TARGET __m256i rotate_7(__m256i a)
{
	return _mm256_or_si256(_mm256_slli_epi32(a, 7), _mm256_srli_epi32(a, 25));
}

#include "node/wireguard/aead_ymm.h"

static bool is_supported(void)
{
	return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2");
}

const struct wg_aead_lanes wg_aead_avx2 = {
	.name = "avx2",
	.is_supported = is_supported,
	.ways = { { .width = YMM_WIDTH,
		    .at_least = { 3, 5, 7 },
		    .seal = ymm_seal_batch,
		    .open = ymm_open_batch },
		  { .width = WG_AEAD_EACH,
		    .at_least = { 1, 1, 1 },
		    .seal = ymm_seal_each,
		    .open = ymm_open_each } },
};

#endif
