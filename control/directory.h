/*
 * The members of the network in memory, and what of them changed when. Pure.
 *
 * Every change gives a member the next sequence number and moves it to the new end of one list; so
 * what a node has missed since sequence n is the end of that list, each member once, however often
 * it changed. That list is the whole revision log: it needs no more room than the members, and
 * resuming works from any sequence, as long as no removal older than those we remember is asked
 * for.
 */
#pragma once

#include "common/error.h"
#include "common/json.h"
#include "common/map.h"
#include "common/token_bucket.h"
#include "control/host_grants.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define DIRECTORY_MAX_REMOVED 4096
#define MEMBER_MAX_TAGS       128 /* characters, separated by commas */

struct connection;

struct member {
	struct map_peer peer;
	struct map_relay relay; /* of a public node; region and cost are an admin's */
	bool offers_relay;	/* its node says that it is public */
	bool may_relay;		/* an admin, or the key that it joined with, lets it be a relay */
	bool had_relay;		/* some node's map may have it as one */
	bool removed;
	uint64_t revision;
	uint64_t grants_revision; /* what is granted to it is told who knows an older one. Not kept: it may be too late a one */
	int64_t joined_s, last_seen_s;
	int64_t node_ttl_s; /* removed when not seen for so long; 0: never */
	int64_t join_key_id;
	char tags[MEMBER_MAX_TAGS + 1];
	struct map_exposures *exposures; /* what its node publishes; NULL: it never did. The directory's, if in it */
	uint64_t granted;		 /* a bit for each of these: it may, and so the map has it */

	struct connection *connection; /* that greets for it now; not kept */
	uint64_t offline_at_ms;        /* connection lost: when to say so; 0: no */
	struct token_bucket wakes, woken; /* what it may have others told, and is told itself; not kept */
	bool wake_waits;		  /* it shall be told when it may */
	struct member *older, *newer;
};

/* Whether the map has it as a relay. */
static inline bool member_is_relay(const struct member *member)
{
	return member->offers_relay && member->may_relay;
}

/* From now on it is one, as soon as it offers to be. */
static inline void member_let_relay(struct member *member)
{
	member->may_relay = true;
	member->relay.id = member->peer.id;
	member->relay.node_key = member->peer.node_key;
	memcpy(member->relay.name, member->peer.name, sizeof(member->relay.name));
}

struct directory {
	char network[MAP_NAME_LEN + 1];
	uint64_t epoch, sequence;
	uint64_t oldest_resumable; /* from an older sequence only a snapshot helps */
	struct in_addr prefix4;
	uint8_t prefix4_len;
	struct in6_addr prefix6;
	uint8_t prefix6_len;
	uint32_t last_id;
	uint32_t n, n_present, n_removed;
	struct member **members; /* sorted by id, removed ones among them */
	struct member *oldest, *newest;
	struct host_grants grants;
};

void directory_init(struct directory *directory);
void directory_deinit(struct directory *directory);

/* While loading, in the order of their revisions. Copied; its exposures are taken over. */
struct member *directory_load(struct directory *directory, const struct member *member);

/* NULL when there is none or it was removed. */
struct member *directory_find(const struct directory *directory, uint32_t id);
struct member *directory_find_by_key(const struct directory *directory,
				     const struct public_key *node_key);
struct member *directory_find_by_name(const struct directory *directory, const char *name);
/* for (m = directory_next(d, NULL); m; m = directory_next(d, m)): those present, by id. */
struct member *directory_next(const struct directory *directory, const struct member *after);

/*
 * A change that the store has committed under this sequence, which must be the next. Copies the
 * record of member over the one with its id, or adds it. Its exposures are taken over; if they are others than
 * before, those are freed.
 */
struct member *directory_put(struct directory *directory, const struct member *member,
			     uint64_t sequence);
/* The same, with another list of what is granted to it: else that is not told again, for it may be long. */
struct member *directory_put_granted(struct directory *directory, const struct member *member, uint64_t sequence);
void directory_remove(struct directory *directory, uint32_t id, uint64_t sequence);

/*
 * Which of these the member may publish: what is granted, as long as the map has room. One exposure more than nodes take
 * would take the map from all. A bit for each; what it publishes already (then exposures are its own) stays.
 */
uint64_t directory_judge_exposures(const struct directory *directory, const struct member *member,
				   const struct map_exposures *exposures);

/* As many relays as nodes take in a map: one more would take the map from all. */
bool directory_is_full_of_relays(const struct directory *directory);

/* A free name like the one wanted: itself, or with -2, -3 …; what is not allowed in it is replaced.
 */
void directory_free_name(const struct directory *directory, const char *wanted,
			 char ret[MAP_NAME_LEN + 1]);
/* Addresses nobody has, the IPv6 one with the same host number. 0, or -ENOSPC. */
P2P_CHECK int directory_free_addresses(const struct directory *directory, struct in_addr *ret4,
				       struct in6_addr *ret6);

bool directory_can_resume(const struct directory *directory, uint64_t epoch, uint64_t sequence);
/* What map_from_json() and map_apply_patch() of that node read. */
struct json *directory_snapshot(const struct directory *directory, const struct member *for_member);
struct json *directory_patch(const struct directory *directory, const struct member *for_member,
			     uint64_t after);
