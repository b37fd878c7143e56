/*
 * Copying and summing in one pass: a superpacket's payload is read once, and the checksum of what it
 * is cut into is free. Pure.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Copies len bytes, which do not overlap. The one's-complement sum of them as 16-bit words in memory
 * order, a last odd byte followed by zero: to be added to others and folded with offload_fold().
 */
typedef uint64_t (*copy_sum_fn)(void *to, const void *from, size_t len);

/* The fastest that this CPU has. */
copy_sum_fn copy_sum_best(void);

/* All that this CPU has, the portable one first, the best last; for tests and benchmarks. */
struct copy_sum_way {
	const char *name;
	copy_sum_fn fn;
};
#define COPY_SUM_MAX_WAYS 3
uint32_t copy_sum_ways(struct copy_sum_way ret[COPY_SUM_MAX_WAYS]);
