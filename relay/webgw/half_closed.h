/*
 * How long a connection of which one way has ended may wait for the other: whoever is behind it may have gone, and nobody is
 * told.
 *
 *   both ways open, or bytes move ──► begins anew        half closed, nothing moves, limit_ms ──► over
 *
 * A plain value, zero at first. Pure: asked from time to time, it is as exact as that.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct half_closed {
	uint64_t moved;	   /* bytes, both ways, when it was asked last */
	uint64_t since_ms; /* 0: not half closed, or it moved */
};

/* now_ms is never 0. True: it is over. */
static inline bool half_closed_is_over(struct half_closed *half_closed, bool is_half, uint64_t moved, uint64_t now_ms,
				       uint64_t limit_ms)
{
	if (!is_half || moved != half_closed->moved)
		half_closed->since_ms = 0;
	half_closed->moved = moved;
	if (!is_half)
		return false;
	if (half_closed->since_ms == 0)
		half_closed->since_ms = now_ms;
	return now_ms - half_closed->since_ms >= limit_ms;
}
