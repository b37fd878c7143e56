/*
 * How much of what comes is looked at: so much of each source, so that one that floods takes nothing from the
 * others, and so much altogether, since each costs a hash for each peer and sources can be forged on a link.
 *
 *   announcement ──► bucket of its source ──► bucket of all ──► looked at
 *
 * A table of fixed size: two sources may share a bucket, so a limit can be a little too strict, never too loose.
 * Seeded, so that nobody can aim at another's. Pure.
 */
#pragma once

#include "common/endpoint.h"
#include "common/token_bucket.h"

#include <stdbool.h>
#include <stdint.h>

#define LAN_SOURCES	   256
#define LAN_SOURCE_BURST   16 /* a call has up to 4 datagrams */
#define LAN_SOURCE_EACH_MS 200
#define LAN_ALL_BURST	   128
#define LAN_ALL_EACH_MS	   10

struct lan_sources {
	uint8_t seed[16]; /* random */
	struct token_bucket sources[LAN_SOURCES], all;
};

/* Times of one monotonic clock. False: too often. The port of the source does not matter. */
bool lan_sources_take(struct lan_sources *sources, const struct endpoint *from, uint64_t now_ms);
