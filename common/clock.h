/*
 * The one clock: CLOCK_BOOTTIME, which goes on while the machine sleeps. Shells read it; pure parts are told.
 *
 * It begins a day after zero, so that 0, which everywhere means "never", is long ago on a machine that has just
 * booted as well. Every process of a machine reads the same.
 */
#pragma once

#include <stdint.h>
#include <time.h>

#define CLOCK_BOOT_NS 86400000000000ull /* what it was when the machine booted */

static inline uint64_t clock_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return CLOCK_BOOT_NS + (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}
