/*
 * What stands in front of one host: who may come to it, how many a second, and what came of them.
 *
 *   visitor ──► allowed? ──► rate of its source ──► rate of all ──► the target ──► what became of it
 *                  │no             │no                  │no             │
 *                  └───────────────┴── refused ─────────┘               └─► up, down
 *
 * A gate outlives the routes that lead through it: they are replaced whenever something changes, and it is counted on.
 * So each that points to it holds it: routes, visitors, and who made it.
 *
 * door_gate_ask() and what visitors do: the door's thread. Holding, letting go and reading counters: any thread.
 */
#pragma once

#include "common/endpoint.h"
#include "common/macros.h"
#include "common/source_limit.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum door_gate_answer { DOOR_GATE_OPEN, DOOR_GATE_NOT_ALLOWED, DOOR_GATE_OVER_RATE, DOOR_GATE_OVER_SOURCE_RATE,
			DOOR_GATE_N_ANSWERS };

enum door_target_state {
	DOOR_TARGET_UNKNOWN, /* nobody was led there yet, and it was not asked */
	DOOR_TARGET_UP,	     /* it answered, when it was tried last */
	DOOR_TARGET_DOWN,    /* it did not */
};

/* Embedded in what belongs to the host. */
struct door_gate {
	/* Set by who makes it, and then unchanged. */
	uint32_t rate, rate_source; /* visitors a second, twice as many at once; 0: no limit */
	bool (*allows)(const struct door_gate *gate, const struct endpoint *visitor); /* NULL: all */
	/* Of a host of webgw that a member has by its grant: it is no route of the door that runs next before its agent is back there. */
	bool is_members;
	void (*free)(struct door_gate *gate); /* the last one has let go; in whatever thread */

	/* Of the door's thread. */
	uint64_t filled_ms, milli_tokens;
	struct source_limit *of_source; /* NULL: no limit */

	_Atomic uint32_t n_holders;
	_Atomic uint64_t visitors, visitors_now, refused[DOOR_GATE_N_ANSWERS], unreachable, bytes_in, bytes_out;
	_Atomic uint32_t state; /* enum door_target_state */
	_Atomic bool is_shut;
};

struct door_gate_counters {
	uint64_t visitors;			/* that were let through, since it was made */
	uint64_t visitors_now;
	uint64_t refused[DOOR_GATE_N_ANSWERS]; /* by cause */
	uint64_t unreachable;			/* of those let through: their target did not answer, or refused */
	uint64_t bytes_in, bytes_out;		/* to the target, with our header, and to visitors; of a second ago */
	enum door_target_state state;
};

/* rate, rate_source, allows and free are set, the rest is zero. The caller holds it. sodium_init() must have been called. */
void door_gate_init(struct door_gate *gate);
/* Both accept NULL. */
struct door_gate *door_gate_hold(struct door_gate *gate);
void door_gate_let_go(struct door_gate *gate);

/* May it come in? If not, that is counted. any: the list is somebody else's to look at. */
enum door_gate_answer door_gate_ask(struct door_gate *gate, const struct endpoint *visitor, bool any, uint64_t now_ms);
/* By the list alone; in any thread. */
bool door_gate_allows(const struct door_gate *gate, const struct endpoint *visitor);
/* One that was let through with any is not on it; in any thread. */
void door_gate_not_allowed(struct door_gate *gate);
/* One that was let through. */
void door_gate_enter(struct door_gate *gate);
void door_gate_leave(struct door_gate *gate);
/* So many bytes more went in and out, of one that is there. */
void door_gate_moved(struct door_gate *gate, uint64_t bytes_in, uint64_t bytes_out);
/*
 * Its host is no more: nobody comes in, and who is there is turned away when the door's routes are replaced next. For
 * ever; in any thread.
 */
void door_gate_shut(struct door_gate *gate);
bool door_gate_is_shut(const struct door_gate *gate);
/* What came of leading one to the target. */
void door_gate_reached(struct door_gate *gate);
void door_gate_not_reached(struct door_gate *gate);
/* It was asked whether it is there; in any thread. */
void door_gate_set_state(struct door_gate *gate, enum door_target_state state);

struct door_gate_counters door_gate_counters(const struct door_gate *gate);
/* "open", "not allowed", "over rate", "over rate of source" */
const char *door_gate_answer_name(enum door_gate_answer answer);
/* "unknown", "up", "down" */
const char *door_target_state_name(enum door_target_state state);
