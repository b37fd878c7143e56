/*
 * How often may one source ask? Token buckets by source prefix (IPv4 /24, IPv6 /56), in a table of fixed
 * size: two prefixes may share a bucket, so a limit can be a little too strict, never too loose. Seeded, so
 * that nobody can aim at another's bucket. Pure.
 */
#pragma once

#include "common/endpoint.h"

#include <stdbool.h>
#include <stdint.h>

#define SOURCE_LIMIT_BUCKETS 4096

struct source_bucket {
	uint64_t filled_ms;
	uint64_t milli_tokens;
};

struct source_limit {
	uint32_t rate_per_s, burst;
	bool is_each_v4; /* each IPv4 address is a source, and not each /24; may be set after source_limit_init() */
	uint8_t seed[16];
	struct source_bucket buckets[SOURCE_LIMIT_BUCKETS];
};

/* sodium_init() must have been called. */
void source_limit_init(struct source_limit *limit, uint32_t rate_per_s, uint32_t burst);
/* Takes one token, if there is one. */
bool source_limit_take(struct source_limit *limit, const struct endpoint *source, uint64_t now_ms);
/* One back, of who has turned out to be welcome. */
void source_limit_give_back(struct source_limit *limit, const struct endpoint *source);
