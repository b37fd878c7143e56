#include "node/wireguard/ratelimiter.h"

#include <stddef.h>

#define SECOND_NS UINT64_C(1000000000)
#define COST_NS   (SECOND_NS / 20) /* 20 a second */
#define FULL_NS   (5 * COST_NS)    /* bursts of 5 */

static uint32_t find(struct wg_ratelimiter *limiter, uint64_t source, uint64_t now_ns)
{
	uint32_t free_place = UINT32_MAX;

	for (uint32_t i = 0; i < WG_RATELIMIT_PROBES; i++) {
		uint32_t place = (uint32_t)((source + i) % WG_RATELIMIT_SIZE);
		if (limiter->entries[place].source == source)
			return place;
		bool idle = limiter->entries[place].source == 0 ||
			    now_ns - limiter->entries[place].last_ns >= SECOND_NS;
		if (idle && free_place == UINT32_MAX)
			free_place = place;
	}
	if (free_place != UINT32_MAX) {
		limiter->entries[free_place].source = source;
		limiter->entries[free_place].last_ns = now_ns;
		limiter->entries[free_place].tokens_ns = FULL_NS;
	}
	return free_place;
}

bool wg_ratelimiter_allow(struct wg_ratelimiter *limiter, uint64_t source, uint64_t now_ns)
{
	uint32_t place = find(limiter, source | 1, now_ns);

	if (place == UINT32_MAX)
		return false;
	uint64_t *tokens = &limiter->entries[place].tokens_ns;
	uint64_t elapsed = now_ns - limiter->entries[place].last_ns;
	*tokens = elapsed >= FULL_NS - *tokens ? FULL_NS : *tokens + elapsed;
	limiter->entries[place].last_ns = now_ns;
	if (*tokens < COST_NS)
		return false;
	*tokens -= COST_NS;
	return true;
}
