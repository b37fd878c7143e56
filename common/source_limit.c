#include "common/source_limit.h"

#include <sodium.h>
#include <string.h>

#define V4_PREFIX_LEN 15 /* bytes of the v4-mapped form: /24 */
#define V6_PREFIX_LEN 7	 /* /56 */

void source_limit_init(struct source_limit *limit, uint32_t rate_per_s, uint32_t burst)
{
	memset(limit, 0, sizeof(*limit));
	limit->rate_per_s = rate_per_s;
	limit->burst = burst;
	randombytes_buf(limit->seed, sizeof(limit->seed));
	for (int i = 0; i < SOURCE_LIMIT_BUCKETS; i++)
		limit->buckets[i].milli_tokens = burst * 1000ull;
}

static struct source_bucket *bucket_of(struct source_limit *limit, const struct endpoint *source)
{
	uint8_t hash[crypto_shorthash_BYTES];
	const size_t v4_len = limit->is_each_v4 ? sizeof(source->ip) : V4_PREFIX_LEN;
	uint32_t index;

	crypto_shorthash(hash, source->ip, endpoint_is_v4(source) ? v4_len : V6_PREFIX_LEN, limit->seed);
	memcpy(&index, hash, sizeof(index));
	return &limit->buckets[index % SOURCE_LIMIT_BUCKETS];
}

bool source_limit_take(struct source_limit *limit, const struct endpoint *source, uint64_t now_ms)
{
	struct source_bucket *bucket = bucket_of(limit, source);
	uint64_t full = limit->burst * 1000ull, passed_ms = now_ms - bucket->filled_ms;

	/* A long time fills it in any case; so the product cannot overflow. */
	if (passed_ms > full || bucket->milli_tokens + passed_ms * limit->rate_per_s > full)
		bucket->milli_tokens = full;
	else
		bucket->milli_tokens += passed_ms * limit->rate_per_s;
	bucket->filled_ms = now_ms;
	if (bucket->milli_tokens < 1000)
		return false;
	bucket->milli_tokens -= 1000;
	return true;
}

void source_limit_give_back(struct source_limit *limit, const struct endpoint *source)
{
	struct source_bucket *bucket = bucket_of(limit, source);
	const uint64_t full = limit->burst * 1000ull;

	bucket->milli_tokens = bucket->milli_tokens + 1000 < full ? bucket->milli_tokens + 1000 : full;
}
