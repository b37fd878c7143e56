/*
 * The choice among the ways to one peer. Part of the peer state machine; nobody else includes this.
 */
#pragma once

#include "actors/traffic_manager/peer_fsm.h"

/* Is so much lost there that its share is an estimate, with an error? */
bool peer_is_lossy(const struct peer_candidate *candidate);
/* The cheapest way we know, other than the one in use: an index, RELAY_SLOT, or -1. */
int peer_best_other(struct peer_fsm *fsm, uint64_t now_ns, uint32_t *ret_cost_us);
/* Is it better than the one in use by more than a change costs? False for -1. */
bool peer_is_better(struct peer_fsm *fsm, int other, uint32_t cost_us);
