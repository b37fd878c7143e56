/*
 * A seed for a machine that draws its own numbers from then on. Drawn anew for each: what one shows of its numbers (a
 * transaction id is one) tells nothing of another's.
 */
#pragma once

#include <sodium.h>
#include <stdint.h>

/* Any thread. */
static inline uint64_t random_seed(void)
{
	uint64_t seed;

	randombytes_buf(&seed, sizeof(seed));
	return seed;
}
