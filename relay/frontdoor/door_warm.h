/*
 * Connections to members that are made before a visitor needs them: how many for each target, which is next, and when none
 * is worth while. A target is where a member takes visitors in, whatever their hosts.
 *
 *   visitor ──► is one READY? ─ yes ─► the youngest is claimed: header and first bytes go at once
 *                     └──────── no ──► one is made for it alone, which takes a round trip more
 *        either way it is noted, and the pool is filled again
 *
 *   MAKING ──► READY ──► claimed
 *      │         ├─ 45 s old ─► closed, before the member does so; another takes its place
 *      └─ failed ┴─ ended by the member ─► none is made for 1, 2, 4 … 60 s, nor before the next visitor
 *
 *   visited within 10 s ──► as many as visitors of a second, 2 to 16
 *   within 10 min ────────► 1
 *   not since ────────────► 0, and the pool is forgotten
 *
 * Bounds: max in all, and DOOR_WARM_MAX_POOLS targets. Where all are there, a pool that was visited in the last 10 s has one of the
 * pool that was visited longest ago, if that was not; and a new target has the place of the one that was visited longest ago, if that
 * has none.
 *
 * One thread. Pure.
 */
#pragma once

#include "common/endpoint.h"
#include "relay/frontdoor/link.h"

#include <stdbool.h>
#include <stdint.h>

#define DOOR_WARM_MAX_POOLS  1024
#define DOOR_WARM_CHAINS     256
#define DOOR_WARM_LEAST	     2
#define DOOR_WARM_MOST	     16
#define DOOR_WARM_BUSY_MS    10000
#define DOOR_WARM_FORGET_MS  600000
#define DOOR_WARM_LIFE_MS    45000 /* members let a door be silent for 60 s */
#define DOOR_WARM_REST_MS    1000
#define DOOR_WARM_MAX_REST_MS 60000

struct door_warm_pool;

/* One connection; the caller's, all zero before it is added. */
struct door_warm_one {
	struct link of_pool;	     /* making, or ready: the youngest last */
	struct door_warm_pool *pool; /* NULL: it is in none any more */
	uint64_t since_ms;	     /* making; or ready */
	bool is_ready;
};

struct door_warm_pool {
	struct endpoint target;
	struct door_warm_pool *next; /* of its chain */
	struct link among_all;	     /* by the last visitor */
	struct link making, ready;
	uint32_t n; /* of both */
	uint64_t visited_ms;
	uint64_t second; /* of the last visitor, who is counted in */
	uint32_t n_this, n_last; /* visitors of that second, and of the one before */
	uint32_t n_failed;	 /* in a row */
	uint64_t not_before_ms;
	bool awaits_visitor; /* before another is made */
	bool is_marked;
};

struct door_warm {
	struct door_warm_pool *chains[DOOR_WARM_CHAINS];
	struct link pools;
	uint32_t n_pools, n, max;
	uint64_t connect_ms;
};

void door_warm_init(struct door_warm *warm, uint32_t max, uint64_t connect_ms);
/* Nothing is in it any more. */
void door_warm_deinit(struct door_warm *warm);

/* NULL: none. */
struct door_warm_pool *door_warm_find(const struct door_warm *warm, const struct endpoint *target);
/* A visitor comes there. NULL: there are as many targets as may be. */
struct door_warm_pool *door_warm_visit(struct door_warm *warm, const struct endpoint *target, uint64_t now_ms);
/* The youngest, out of the pool; NULL: none. Accepts NULL. */
struct door_warm_one *door_warm_claim(struct door_warm *warm, struct door_warm_pool *pool, uint64_t now_ms);
/* What was claimed has been answered. */
void door_warm_worked(struct door_warm_pool *pool);
/* What was claimed was dead: the others, which are to be closed, may be so, too. */
void door_warm_distrust(struct door_warm_pool *pool, uint64_t now_ms);

/* One more is to be made, if there is room. */
bool door_warm_wants(const struct door_warm_pool *pool, uint64_t now_ms);
/* For that. It may take one of another, *ret_other, which is to be closed first; else that is NULL. */
bool door_warm_has_room(const struct door_warm *warm, const struct door_warm_pool *pool, uint64_t now_ms,
			struct door_warm_one **ret_other);
void door_warm_add(struct door_warm *warm, struct door_warm_pool *pool, struct door_warm_one *one, uint64_t now_ms);
void door_warm_is_ready(struct door_warm_one *one, uint64_t now_ms);
/* Out of its pool, to be closed. Accepts one that is in none. */
void door_warm_remove(struct door_warm *warm, struct door_warm_one *one);
/* It could not be made, or the member has ended it: the same, and the pool rests. */
void door_warm_failed(struct door_warm *warm, struct door_warm_one *one, uint64_t now_ms);

/* The next of the pool that is too old, or one too many, in it yet; NULL: none. */
struct door_warm_one *door_warm_over(const struct door_warm_pool *pool, uint64_t now_ms);
/* The next that the member has not answered in its time: it has failed. The same. */
struct door_warm_one *door_warm_late(const struct door_warm *warm, const struct door_warm_pool *pool, uint64_t now_ms);
/* Any of the pool, in it yet. NULL: none. */
struct door_warm_one *door_warm_any(const struct door_warm_pool *pool);
/* Nobody has come for long, and nothing is in it: it may be forgotten. */
bool door_warm_is_done(const struct door_warm_pool *pool, uint64_t now_ms);
/* Nothing is in it. */
void door_warm_forget(struct door_warm *warm, struct door_warm_pool *pool);
/* When the pool is to be looked at again. */
uint64_t door_warm_due(const struct door_warm *warm, const struct door_warm_pool *pool, uint64_t now_ms);
