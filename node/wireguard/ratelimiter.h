/*
 * Under load: 20 handshakes a second and bursts of 5 from one source, whatever others do.
 *
 * A source is an IPv4 address, an IPv6 /64, or a peer behind a relay. A fixed hash table: an entry
 * that was idle for a second has its bucket full again and may be reused, so nothing needs to be
 * collected. When all places for a source are busy it is refused.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define WG_RATELIMIT_SIZE   4096
#define WG_RATELIMIT_PROBES 8

struct wg_ratelimiter {
	struct {
		uint64_t source; /* keyed hash; 0: never used */
		uint64_t last_ns, tokens_ns;
	} entries[WG_RATELIMIT_SIZE];
};

/* source: a keyed hash of the address, so that nobody can choose collisions. */
bool wg_ratelimiter_allow(struct wg_ratelimiter *limiter, uint64_t source, uint64_t now_ns);
