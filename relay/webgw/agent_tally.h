/*
 * What becomes of the visitors of one subscriber: counted by the front door's thread, read by who picks the next visitor's
 * agent (subscriptions.h). Nothing is told: who reads sees how much more there is than when it looked last.
 *
 *   dialled back ──► open ──┬── its first byte has come ──────────────────────► answered
 *                           ├── the agent ends it, or breaks, without one ────► unanswered
 *                           └── anything else: the visitor left, or is silent   nothing is said of the agent
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

struct agent_tally {
	_Atomic uint32_t open; /* now */
	_Atomic uint32_t answered, unanswered; /* these only grow, and go round */
};
