/*
 * Replay window: accepts every counter once, in any order, as long as it is not too far behind.
 *
 *        too old            window: 8128 counters           ahead
 *   ───────────────┬──────────────────────────────┬────────────────►
 *      refused     │ accepted once                │ accepted, moves the window
 *                                            highest seen
 *
 * A ring of 8192 bits; one word is always being cleared, hence 8128. Ask and mark only after the
 * packet is authenticated: a forged counter must not move the window.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define REPLAY_BITS   8192
#define REPLAY_WINDOW (REPLAY_BITS - 64)
/* Counters from here on are never valid: the window must not wrap. */
#define REPLAY_LIMIT (UINT64_MAX - REPLAY_WINDOW - 1)

/* All zero: nothing seen. */
struct replay {
	uint64_t next; /* highest counter seen + 1 */
	uint64_t seen[REPLAY_BITS / 64];
};

/* False when the counter would be refused; changes nothing. */
bool replay_is_fresh(const struct replay *replay, uint64_t counter);
/* False: seen before, too old, or beyond the limit. True: marked as seen. */
bool replay_accept(struct replay *replay, uint64_t counter);
