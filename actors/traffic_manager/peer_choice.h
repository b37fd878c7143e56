/*
 * The choice among the ways to one peer. Part of the peer state machine; nobody else includes this.
 */
#pragma once

#include "actors/traffic_manager/peer_fsm.h"

#define RELAY_SLOT 0xff	       /* the relay's index, as it were */
#define FRESH_NS   25000000000u /* a measurement that old still counts */

static inline struct peer_candidate *peer_current(struct peer_fsm *fsm)
{
	return fsm->current >= 0 ? &fsm->candidates.all[fsm->current] : NULL;
}

/* Is so much lost there that its share is an estimate, with an error? */
bool peer_is_lossy(const struct peer_candidate *candidate);
/* The cheapest way we know, other than the one in use: an index, RELAY_SLOT, or -1. Only if it is so much better that it is worth
 * a change, if it must. */
int peer_best_other(struct peer_fsm *fsm, bool must_be_better, uint64_t now_ns);
