#include "common/rate_limit.h"

#define BURST_MS  100
#define MIN_BURST (8 * 65536ull) /* bits of the largest packet there is */

static uint64_t burst(const struct rate_limit *limit)
{
	uint64_t bits = limit->bits_per_s / 1000 * BURST_MS;

	return bits > MIN_BURST ? bits : MIN_BURST;
}

void rate_limit_init(struct rate_limit *limit, uint64_t bits_per_s, uint64_t now_ms)
{
	*limit = (struct rate_limit){ .bits_per_s = bits_per_s, .filled_ms = now_ms };
	limit->bits = burst(limit);
}

/* Time that is worth less than a bit is kept for the next time. */
static void fill(struct rate_limit *limit, uint64_t now_ms)
{
	uint64_t passed_ms = now_ms > limit->filled_ms ? now_ms - limit->filled_ms : 0;
	uint64_t longest_ms = MIN_BURST * 1000 / limit->bits_per_s + BURST_MS + 1; /* fills it in any case */

	if (passed_ms > longest_ms)
		passed_ms = longest_ms;
	uint64_t bits = limit->bits_per_s * passed_ms / 1000;
	if (bits == 0)
		return;
	limit->filled_ms = now_ms;
	limit->bits = limit->bits + bits < burst(limit) ? limit->bits + bits : burst(limit);
}

bool rate_limit_take(struct rate_limit *limit, size_t bytes, uint64_t now_ms)
{
	if (limit->bits_per_s == 0)
		return true;
	fill(limit, now_ms);
	if (limit->bits < bytes * 8)
		return false;
	limit->bits -= bytes * 8;
	return true;
}

bool rate_limit_take_both(struct rate_limit *own, struct rate_limit *of_all, size_t bytes, uint64_t now_ms)
{
	if (!rate_limit_take(own, bytes, now_ms))
		return false;
	if (rate_limit_take(of_all, bytes, now_ms))
		return true;
	if (own->bits_per_s > 0)
		own->bits += bytes * 8;
	return false;
}
