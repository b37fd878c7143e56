/*
 * Several places that serve one host: which of them gets the next visitor.
 *
 *   not tried for this visitor yet ──► not passed over ──► with the fewest visitors ──► whose turn is longest ago
 *                                          │ all are
 *                                          └──► whose time is over first: nobody is refused for it
 *
 *   failed ──► passed over for 1, 2, 4, 8, 10, 10 … s ──► the next visitor tries it; the others pass it over meanwhile
 *                        ▲                                     │
 *                        └───────────── failed ────────────────┴── answered ──► as if it had never failed
 *
 * A place failed if it was not reached, or reset a visitor before it said a byte. A visitor that provokes that does not
 * shut anybody out: a place is passed over only for the sake of others.
 *
 * A place outlives the routes that lead to it, as a gate does (door_gate.h): each that points to it holds it. Choosing, and
 * what visitors do: the door's thread. Holding, letting go and reading counters: any thread. The list: one thread. Pure.
 */
#pragma once

#include "common/endpoint.h"
#include "common/macros.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define DOOR_MAX_PLACES 16 /* of one host */
#define DOOR_MAX_TRIES	3  /* of one visitor */
#define DOOR_PLACE_LABEL 64
#define DOOR_PLACE_HOST	 272

struct door_place {
	/* Unchanged since it was made. */
	struct endpoint target;
	char host[DOOR_PLACE_HOST]; /* as it is published */
	char label[DOOR_PLACE_LABEL]; /* whose it is */

	/* Of the thread that makes routes. */
	struct door_place *next;
	bool is_wanted, is_online;

	/* Of the door's thread. */
	uint64_t turn; /* when it was chosen last; by a count */
	uint32_t n_failed; /* in a row */
	bool is_on_trial;  /* a visitor is on its way to one that failed */
	bool is_said_failed; /* in the log, and not that it answers again */
	uint64_t said_failed_ms; /* when that was; 0: never */
	uint64_t without_quic_until_ms; /* nobody answers by QUIC there, it seems; 0: not so */
	uint64_t quic_heard_ms; /* when somebody did last */

	_Atomic uint64_t passed_over_until_ms; /* 0: it is not */
	_Atomic uint64_t visitors, visitors_now, failed;
	_Atomic uint32_t n_holders;
};

/* ---- the places of a door, to find them again when its routes are made anew ---- */

#define DOOR_PLACE_CHAINS 1024

struct door_places {
	struct door_place *chains[DOOR_PLACE_CHAINS];
};

/* The place is held by the list, which it outlives no further than others hold it. */
struct door_place *door_places_get(struct door_places *places, const char *host, const char *label,
				   const struct endpoint *target, bool is_online);
/* Those that were not asked for since this was called last are let go. */
void door_places_sweep(struct door_places *places);
void door_places_deinit(struct door_places *places);

/* ---- one place ---- */

struct door_place *door_place_hold(struct door_place *place);
/* Accepts NULL. */
void door_place_let_go(struct door_place *place);

/* NULL: all were tried. */
struct door_place *door_place_choose(struct door_place *const *places, uint32_t n, struct door_place *const *tried,
				     uint32_t n_tried, uint64_t now_ms);
/* A visitor is led there. turn: grows from one to the next. */
void door_place_enter(struct door_place *place, uint64_t turn, uint64_t now_ms);
/* One that the door before led there: nothing is tried by it. */
void door_place_enter_again(struct door_place *place);
void door_place_leave(struct door_place *place);
/* What came of leading one there. */
void door_place_answered(struct door_place *place);
void door_place_failed(struct door_place *place, uint64_t now_ms);
/*
 * Is that to be logged, after one of the two? That it failed once, and then that it answers; but a visitor may provoke both as often as
 * he comes, so the first not sooner than ten seconds after it was before. No other place's lines, and no visitor, hide these.
 */
P2P_CHECK bool door_place_is_to_say_failed(struct door_place *place, uint64_t now_ms);
P2P_CHECK bool door_place_is_to_say_answered(struct door_place *place);
bool door_place_is_passed_over(const struct door_place *place, uint64_t now_ms);
