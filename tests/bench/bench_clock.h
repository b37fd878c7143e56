/* What the calling thread has computed, in nanoseconds: what others do on the machine is not in it. */
#pragma once

#include <stdint.h>
#include <time.h>

static inline uint64_t thread_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}
