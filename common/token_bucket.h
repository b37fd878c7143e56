/*
 * So many at once, and so many in the long run: each take uses up time that comes back as time passes. Pure.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct token_bucket {
	uint64_t used_ms; /* zeroed: full */
	uint64_t at_ms;
};

/* Takes one of at most `burst`, of which one comes back in each_ms. False: there is none. Times of one monotonic clock. */
static inline bool token_bucket_take(struct token_bucket *bucket, uint64_t now_ms, uint32_t burst, uint32_t each_ms)
{
	const uint64_t passed_ms = now_ms > bucket->at_ms ? now_ms - bucket->at_ms : 0;

	bucket->used_ms = bucket->used_ms > passed_ms ? bucket->used_ms - passed_ms : 0;
	bucket->at_ms = now_ms;
	if (bucket->used_ms + each_ms > (uint64_t)burst * each_ms)
		return false;
	bucket->used_ms += each_ms;
	return true;
}
