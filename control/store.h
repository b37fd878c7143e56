/*
 * What control keeps: one SQLite file, in WAL mode with full synchronisation. When a function here
 * has returned 0, what it did survives kill -9 and power loss.
 *
 * Members and sequence numbers change in the same transaction. Join keys and admin tokens are kept
 * as SHA-256 of their 192 random bits. Blocking (about 0.3 ms a change); one process serves a
 * store, another may add join keys meanwhile.
 */
#pragma once

#include "common/error.h"
#include "common/join_link.h"
#include "control/directory.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STORE_HASH_LEN 32

struct store;

/* What control init decides, once. */
struct store_network {
	char network[MAP_NAME_LEN + 1];
	char host[JOIN_LINK_MAX_HOST + 1]; /* where nodes reach control */
	uint16_t port;
	uint64_t epoch;
	struct in_addr prefix4;
	uint8_t prefix4_len;
	struct in6_addr prefix6;
	uint8_t prefix6_len;
};

struct store_join_key {
	int64_t id;
	bool is_reusable, is_revoked;
	int64_t created_s, expires_s; /* 0: does not expire */
	int64_t n_uses;
	int64_t node_ttl_s; /* of the nodes that join with it; 0: they stay */
	char tags[MEMBER_MAX_TAGS + 1];
	bool may_relay; /* nodes that join with it may be relays */
};

/* Creates the file with everything in it, in one transaction. -EEXIST when it is there already. */
P2P_CHECK int store_create(const char *path, const struct store_network *network,
			   const char *admin_token, const char *first_join_key,
			   const struct store_join_key *first, struct error *reterr);
/*
 * Brings a store of an earlier version up to date; one of today's is left as it is. No other process may serve
 * it: an earlier program would go on writing as it used to.
 */
P2P_CHECK int store_upgrade(const char *path, struct error *reterr);
/* reterr names the file and what to do; a store of an earlier version is refused. */
P2P_CHECK int store_open(const char *path, struct store **ret, struct store_network *ret_network,
			 struct error *reterr);
struct store *store_close(struct store *store); /* accepts NULL, returns NULL */
/* Fills an initialised directory. */
P2P_CHECK int store_load(struct store *store, const struct store_network *network,
			 struct directory *directory, struct error *reterr);

/* Changes of members. sequence is the one the change is to get: the directory's next. */
P2P_CHECK int store_put_member(struct store *store, const struct member *member, uint64_t sequence,
			       struct error *reterr);
P2P_CHECK int store_remove_member(struct store *store, uint32_t id, uint64_t sequence,
				  struct error *reterr);
/*
 * Changes of the member, to whom it is granted: the map has whole names. What follows from it for what others publish is
 * put after it, or, after a crash, judged anew.
 */
P2P_CHECK int store_add_host_grant(struct store *store, const struct host_grant *grant, const struct member *member,
				   uint64_t sequence, struct error *reterr);
P2P_CHECK int store_remove_host_grant(struct store *store, const struct host_pattern *host,
				      const struct member *member, uint64_t sequence, struct error *reterr);
/* Not a change of the map. */
P2P_CHECK int store_touch_member(struct store *store, uint32_t id, int64_t last_seen_s,
				 struct error *reterr);

/*
 * Looks at the key, consumes it and creates the member, all in one transaction, or nothing of it.
 * existing: the member that has this node key already, or 0; then nothing is created and a key that
 * this member consumed is good once more. *ret_key is filled when the key is known.
 */
enum store_join_result {
	STORE_JOINED = 0,
	STORE_KEY_UNKNOWN = 1, /* the caller names each of these to the node */
	STORE_KEY_EXPIRED,
	STORE_KEY_USED,
	STORE_KEY_REVOKED,
};
P2P_CHECK int store_join(struct store *store, const char *join_key, uint32_t existing,
			 struct member *member, uint64_t sequence, int64_t now_s,
			 struct error *reterr);

P2P_CHECK int store_add_join_key(struct store *store, const char *join_key,
				 struct store_join_key *key,
				 struct error *reterr); /* sets key->id */
P2P_CHECK int store_revoke_join_key(struct store *store, int64_t id,
				    struct error *reterr); /* or -ENOENT */
typedef void (*store_key_cb)(void *owner, const struct store_join_key *key);
P2P_CHECK int store_each_join_key(struct store *store, store_key_cb cb, void *owner,
				  struct error *reterr);
/* 0 known, -ENOENT not. */
P2P_CHECK int store_check_admin_token(struct store *store, const char *token, struct error *reterr);
