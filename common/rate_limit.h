/*
 * How many bits a second may pass? A token bucket that holds a tenth of a second's worth, and room for one
 * large packet at least. Pure.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rate_limit {
	uint64_t bits_per_s; /* at most 10^15; 0: no limit */
	uint64_t bits;	     /* that may pass now */
	uint64_t filled_ms;
};

void rate_limit_init(struct rate_limit *limit, uint64_t bits_per_s, uint64_t now_ms);
/* Takes what that many bytes need, if all of it is there. */
bool rate_limit_take(struct rate_limit *limit, size_t bytes, uint64_t now_ms);
/* The same of both, or of neither: what the limit of all refuses is not charged to who sends it. */
bool rate_limit_take_both(struct rate_limit *own, struct rate_limit *of_all, size_t bytes, uint64_t now_ms);
