/*
 * Peers whose WireGuard is not on their UDP socket: ours in this process answers where their packets come
 * from, as long as they come. Pure.
 *
 * Such a peer (bypass.h) tells its WireGuard's port. For a moment each packet goes both ways then, to its
 * UDP socket and there: nothing is lost, and its WireGuard takes what comes first and answers to where it
 * came from. An authentic packet from exactly that port at the path's address moves the route there; when
 * its packets come from its UDP socket again, or none has come for two seconds, the route moves back.
 */
#pragma once

#include "actors/path.h"
#include "common/key.h"

#include <stdbool.h>
#include <stdint.h>

#define FOLLOW_BUCKETS 256

enum follow_state {
	FOLLOW_OFF,
	FOLLOW_TRYING, /* both ways */
	FOLLOW_ON,     /* only there */
};

struct follow {
	uint32_t id;
	struct follow *next;
	struct public_key key;
	struct peer_path path;	/* published */
	struct endpoint told;	/* its WireGuard; none: on its UDP socket */
	enum follow_state state;
	uint64_t tried_ns; /* began to try, or left it */
	uint32_t n_tries;  /* in vain */
	uint64_t heard_ns; /* from there */
	uint64_t nudged_ns;
	uint64_t alone_ns; /* until then the route stays with its UDP socket */
};

struct follow_table {
	struct follow *buckets[FOLLOW_BUCKETS];
};

/* The entry of the peer, NULL when there is none. */
struct follow *follow_find(const struct follow_table *table, uint32_t id);
/* The same; made when it is not there. Aborts when out of memory. */
struct follow *follow_get(struct follow_table *table, uint32_t id, const struct public_key *key);
void follow_remove(struct follow_table *table, const struct public_key *key);
void follow_clear(struct follow_table *table);

/* The peer said so. */
void follow_told(struct follow *follow, const struct endpoint *at);
/* The ways that packets go now: *ret_extra is one besides the path; none: there is none. */
struct peer_path follow_path(const struct follow *follow, struct endpoint *ret_extra);
/*
 * When a path that led there is no more direct alone, that may be because what went there was lost: for a while
 * it does not lead there again, and the direct path by the nodes is judged on its own.
 */
void follow_set_path(struct follow *follow, const struct peer_path *path, uint64_t now_ns);
/* These two: true when follow_path() is another now. An authentic packet came directly from there. */
bool follow_arrived(struct follow *follow, const struct endpoint *from, uint64_t now_ns);
/* The last one came from there, then. */
bool follow_look(struct follow *follow, const struct endpoint *last, uint64_t last_ns, uint64_t now_ns);
/* Its WireGuard has to hear something, or takes the way for dead: nothing was sent since sent_ns. */
bool follow_must_nudge(struct follow *follow, uint64_t sent_ns, uint64_t now_ns);
/* The peer said where its WireGuard is. */
void follow_told(struct follow *follow, const struct endpoint *at);
