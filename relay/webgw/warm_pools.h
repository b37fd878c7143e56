/*
 * Connections that agents have made before there are visitors, by whose they are:
 *
 *   prepare ─► a secret, for 5 s, once ─ admit ─► whose ─ put ─► ready ─ take ─► a visitor's
 *                 └── late: forgotten                             └── remove: it ended, or was silent for too long
 *                 └── coming: it was told a moment ago, so a visitor may wait for it
 *
 * Who was heard from last is taken first: it is the least likely to be dead, and those that are not needed grow old.
 *
 * Bounds: of one agent (a subscription) WARM_POOLS_MAX_OF_ONE, secrets among them, and WARM_POOLS_MAX in all. One thread.
 * Pure but for random bytes; sodium_init() must have been called.
 */
#pragma once

#include "common/macros.h"
#include "relay/frontdoor/link.h"
#include "relay/webgw/webgw_wire.h"

#include <stdint.h>

#define WARM_POOLS_MAX	      1024
#define WARM_POOLS_MAX_OF_ONE 16
#define WARM_POOLS_SECRET_MS  5000
#define WARM_POOLS_COMING_MS  500
#define WARM_POOLS_LATE	      (-1)
#define WARM_POOLS_SILENT_MS  45000 /* an agent says every fifteen seconds that it lives */

struct warm_pools;
struct warm_pool;

/* The caller's, all zero before it is put. */
struct warm_place {
	struct link of_pool, of_all; /* by when it was heard */
	struct warm_pool *pool;	     /* NULL: in none */
	uint64_t heard_ms;
};

struct warm_pools *warm_pools_new(void);
/* Nothing may be ready. Accepts NULL. */
void warm_pools_free(struct warm_pools *pools);
/* So many secrets at most for an agent's next connections. Returns how many there is room for. */
uint32_t warm_pools_prepare(struct warm_pools *pools, int64_t subscription, uint32_t n, uint64_t now_ms,
			    uint8_t ret[][WEBGW_EPHEMERAL_LEN]);
/* Secrets of an agent's that were told a moment ago, and for which nobody has come yet. */
uint32_t warm_pools_coming(const struct warm_pools *pools, int64_t subscription, uint64_t now_ms);
/* Whose such a secret is, which is used up by that, and the place is in its pool. WARM_POOLS_LATE: late, or used; 0: none of these. */
P2P_CHECK int64_t warm_pools_admit(struct warm_pools *pools, const uint8_t secret[WEBGW_EPHEMERAL_LEN],
				   struct warm_place *place, uint64_t now_ms);
void warm_pools_heard(struct warm_pools *pools, struct warm_place *place, uint64_t now_ms);
/* One that is ready, out of its pool; NULL: there is none. */
struct warm_place *warm_pools_take(struct warm_pools *pools, int64_t subscription);
/* Accepts one that is in none. */
void warm_pools_remove(struct warm_pools *pools, struct warm_place *place);
/* The next that nothing was heard of for too long, in its pool yet; NULL: none. Forgets secrets that are late. */
struct warm_place *warm_pools_expired(struct warm_pools *pools, uint64_t now_ms);
/* One after the other, from NULL on; the one that is given may have been removed only after the next was asked for. */
struct warm_place *warm_pools_next(const struct warm_pools *pools, const struct warm_place *place, int64_t *ret_subscription);
uint32_t warm_pools_count(const struct warm_pools *pools); /* that are ready */
