/*
 * Who serves which host: hosts with the hash of their secret, and the agents that subscribed with it.
 *
 *   host ──► subscriber ──► subscriber ──► …      a visitor goes to the next one that has room
 *              │ id            │ id
 *              └── owner ──────┴── owner (a connection; one may have many)
 *
 * Agents of one host share its visitors: the next one is for who has the fewest, waiting and open, and of those for whose turn
 * it is; or in turn alone. Nobody who comes later takes the place of who was there, and a connection that subscribes twice has
 * one turn. What becomes of a subscriber's visitors is counted where they are, by another thread: subscriptions_tally().
 * An agent's health:
 *
 *   HEALTHY ── SUBSCRIPTIONS_DOUBT in vain, one after the other, or unanswered ──► RESTING ── SUBSCRIPTIONS_REST_MS ──► ON TRIAL
 *      ▲                                                                              ▲                                    │
 *      └──────────────────── it dialled back, or a visitor was answered ──────────────┼────────────────────────────────────┤
 *                                                                                     └──────── told of one visitor ───────┘
 *
 * Who rests is told of nobody, unless there is nobody else. In vain is a visitor for whom nobody dialled back, if the agent
 * has not done so for anybody else either for SUBSCRIPTIONS_SIGN_MS: an agent that has more visitors than it can serve in
 * time is not taken for a dead one, for anybody may send it visitors. Unanswered is one for whom it did, and whom it then ended
 * without a byte, as who has no target does; if it has not answered anybody else either for as long. Each of both doubts is
 * taken back by its own opposite alone: who dials back for everybody may still have no target. That a target says nothing to
 * some request anybody may find out, and use: so it only has others preferred, and the next visitor who is answered ends it.
 *
 * A host of members has no secret: who may serve it says the caller, of each that subscribes.
 *
 * Bounds: hosts, subscribers in all and of a host, and visitors that wait for one (SUBSCRIPTIONS_MAX_PENDING). Secrets are compared in
 * constant time. Times are the caller's. One thread, but for tallies. Pure; sodium_init() must have been called.
 */
#pragma once

#include "relay/frontdoor/host_name.h"
#include "relay/webgw/agent_tally.h"
#include "relay/webgw/webgw_wire.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SUBSCRIPTIONS_MAX_PENDING 256 /* of one subscriber */
#define SUBSCRIPTIONS_MAX_OF_HOST 64
#define SUBSCRIPTIONS_MAX	  10000
#define SUBSCRIPTIONS_MAX_HOSTS	  1024
#define SUBSCRIPTIONS_DOUBT	  3
#define SUBSCRIPTIONS_REST_MS	  10000
#define SUBSCRIPTIONS_SIGN_MS	  5000 /* who dialled back, or answered, within that time lives; as long as a visitor waits */

struct subscriptions;

enum subscriptions_outcome {
	SUBSCRIPTIONS_UNKNOWN_HOST = 1,
	SUBSCRIPTIONS_WRONG_SECRET,
	SUBSCRIPTIONS_FULL,
};

/* How the wait for an agent ended. */
enum subscriptions_end {
	SUBSCRIPTIONS_DIALLED,
	SUBSCRIPTIONS_IN_VAIN, /* it has not dialled back in time */
	SUBSCRIPTIONS_LEFT,    /* the visitor did not wait: nothing is said about the agent */
};

struct subscriptions *subscriptions_new(void);
/* Accepts NULL. */
void subscriptions_free(struct subscriptions *table);
/* 0, also for one that is there with this hash; -EEXIST: with another one; -ENOBUFS. */
P2P_CHECK int subscriptions_add_host(struct subscriptions *table, const struct host_pattern *host,
				     const uint8_t hash[WEBGW_HASH_LEN]);
/* One of members. 0, also for one that is there; -EEXIST: one with a secret is there; -ENOBUFS. */
P2P_CHECK int subscriptions_add_members_host(struct subscriptions *table, const struct host_pattern *host);
/* At first: WEBGW_LEAST_CONNECTIONS. False: there is no such host. */
bool subscriptions_set_balance(struct subscriptions *table, const struct host_pattern *host, enum webgw_balance balance);
/* With its subscribers. False: it was not there. */
bool subscriptions_remove_host(struct subscriptions *table, const struct host_pattern *host);

/*
 * owner: borrowed, until its subscriptions are dropped. 0 with the id, > 0, which is the one it has if it subscribed
 * before; or an enum subscriptions_outcome.
 */
P2P_CHECK int subscriptions_register(struct subscriptions *table, const struct host_pattern *host,
				     const uint8_t hash[WEBGW_HASH_LEN], void *owner, int64_t *ret_id);
/* The same of a host of members, by one that may. */
P2P_CHECK int subscriptions_register_member(struct subscriptions *table, const struct host_pattern *host, void *owner,
					    int64_t *ret_id);
/* False: this owner has no such. */
bool subscriptions_unregister(struct subscriptions *table, const void *owner, int64_t id);
void subscriptions_drop_owner(struct subscriptions *table, const void *owner);

enum subscriptions_health { SUBSCRIPTIONS_HEALTHY, /* and who is on trial */ SUBSCRIPTIONS_RESTING };

/* A visitor comes: nobody has been passed over for it. */
void subscriptions_begin(struct subscriptions *table);
/* It could not be told: until the next subscriptions_begin() it is not picked. */
void subscriptions_pass_over(struct subscriptions *table, int64_t id);
/*
 * Whose is this visitor, of those of that health? The owner, with the id of its subscription; another has the next turn.
 * NULL: nobody is there, or all have too many waiting.
 */
void *subscriptions_pick(struct subscriptions *table, const struct host_name *host, enum subscriptions_health health,
			 uint64_t now_ms, int64_t *ret_id);
/* Who was picked has been told: one more waits for it, until subscriptions_over(). Who could not be told loses no trial. */
void subscriptions_told(struct subscriptions *table, int64_t id, uint64_t now_ms);
/* The wait for subscriber id, which was told, is over. Accepts one that is gone. */
void subscriptions_over(struct subscriptions *table, int64_t id, enum subscriptions_end end, uint64_t now_ms);

/*
 * Where the visitors of subscriber id are counted; there to the end of the table, also when the subscriber has gone: much
 * later it may be another's. NULL: there is no such.
 */
struct agent_tally *subscriptions_tally(struct subscriptions *table, int64_t id);

/* Whose subscription that is. NULL: there is no such. */
void *subscriptions_owner(struct subscriptions *table, int64_t id);
/* How many serve this very host. */
uint32_t subscriptions_count(const struct subscriptions *table, const struct host_pattern *host);
uint32_t subscriptions_n_hosts(const struct subscriptions *table);
/* Hosts one after the other: i from 0 on; false: there are no more. hash may be NULL. */
bool subscriptions_host_at(const struct subscriptions *table, uint32_t i, struct host_pattern *ret,
			   uint8_t ret_hash[WEBGW_HASH_LEN]);
bool subscriptions_is_members(const struct subscriptions *table, uint32_t i);
enum webgw_balance subscriptions_balance(const struct subscriptions *table, uint32_t i);
/* A word of the caller's own for a host, NULL at first; where it is. NULL: there is no such host. */
void **subscriptions_data(const struct subscriptions *table, const struct host_pattern *host);

struct subscription_facts {
	const struct host_pattern *host;
	void *owner;
	int64_t id;
	uint32_t n_waiting; /* visitors */
	uint32_t n_open;    /* the same, whom it serves */
	uint64_t n_dialled; /* that it dialled back for */
	uint32_t n_unanswered; /* of these, whom it ended without a byte; goes round */
	bool is_resting;
};

/* Of host i as in subscriptions_host_at(), one after the other: at most room of them. Returns how many. */
uint32_t subscriptions_of_host(const struct subscriptions *table, uint32_t i, uint64_t now_ms,
			       struct subscription_facts *ret, uint32_t room);
