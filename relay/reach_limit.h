/*
 * To how many nodes may a client send that do not answer? To whom it sends, and of whom it hears, is remembered: a
 * node that was heard of costs nothing, and for the others there is a bound, so that nobody tries all members, or
 * all keys there are, through a relay.
 *
 *            sent to             heard of
 *   unknown ─────────► unanswered ─────────► answered
 *      ▲                    │ 60 s               │ room is needed
 *      └────────────────────┴────────────────────┘
 *
 * Pure; holds no memory before the first packet.
 */
#pragma once

#include "common/key.h"

#include <stdbool.h>
#include <stdint.h>

#define REACH_MAX_UNANSWERED 512

struct reach;

/* All zero, but the seed, is the state to begin with. */
struct reach_limit {
	uint64_t seed; /* any; may be the same for many */
	struct reach *entries; /* owned */
	uint32_t capacity, n, n_unanswered;
	uint64_t swept_s;
};

void reach_limit_deinit(struct reach_limit *limit);
/* May it send to that node now? */
bool reach_limit_send(struct reach_limit *limit, const struct public_key *to, uint64_t now_s);
/* That node sends to it. */
void reach_limit_hear(struct reach_limit *limit, const struct public_key *from, uint64_t now_s);
