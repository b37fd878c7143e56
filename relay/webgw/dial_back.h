/*
 * Visitors that wait for an agent to dial back: from a secret that is told once, and taken once, to who waits.
 *
 *   visitor ─ add ─► secret ─ told to an agent ─► dialled back ─ take ─► visitor       until_ms: no longer valid
 *                      └─ remove: it has left, is late, or nobody is there
 *
 * A secret is 16 random bytes and, of these, what a hash makes with a key that nobody knows. Where it is looked for says
 * another such hash, and then all bytes are compared in constant time. So it is known of each, for ever and without a
 * list, whether it was told to somebody: who is late is not taken for one who guesses, however many came meanwhile. What
 * stands for a waiting one elsewhere is its ticket, which is never used again.
 *
 * Bounded: DIAL_BACK_MAX wait at most. One thread. Pure but for random bytes; sodium_init() must have been called.
 */
#pragma once

#include "common/macros.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DIAL_BACK_SECRET  32
#define DIAL_BACK_RANDOM  16 /* bytes of it; the rest follows from them */
#define DIAL_BACK_MAX	  2048
#define DIAL_BACK_BUCKETS 4096 /* a power of two */

enum dial_back_outcome {
	DIAL_BACK_UNKNOWN = 1, /* never told to anybody */
	DIAL_BACK_LATE,	       /* used before, or its visitor waits no longer */
};

struct dial_back_slot {
	uint8_t secret[DIAL_BACK_SECRET];
	uint64_t until_ms;
	uint64_t hash;
	void *visitor;	   /* NULL: free */
	uint32_t turn;	   /* how often it was used: the upper half of the ticket */
	uint32_t next;	   /* of the bucket, or of those that are free; index + 1, 0: none */
};

struct dial_back {
	uint8_t seed[16], key[32];
	uint32_t n, free;
	uint32_t buckets[DIAL_BACK_BUCKETS]; /* index + 1 */
	struct dial_back_slot slots[DIAL_BACK_MAX];
};

void dial_back_init(struct dial_back *table);
/*
 * visitor: borrowed, until it is taken or removed. The secret is made. A ticket, > 0; 0: too many wait.
 */
uint64_t dial_back_add(struct dial_back *table, void *visitor, uint64_t until_ms, uint8_t ret_secret[DIAL_BACK_SECRET]);
/* Who waits, which is then no longer in the table. 0 or an enum dial_back_outcome. */
P2P_CHECK int dial_back_take(struct dial_back *table, const uint8_t secret[DIAL_BACK_SECRET], uint64_t now_ms,
			     void **ret_visitor);
/* Who has this ticket; NULL: it waits no longer. */
void *dial_back_find(const struct dial_back *table, uint64_t ticket);
/* Accepts one that is no longer there. */
void dial_back_remove(struct dial_back *table, uint64_t ticket);
