/*
 * What the parts of udp_clients share. Not for others.
 *
 *   udp_clients.c         a datagram of one that is bound, and where it goes; clients elsewhere; beginning and end
 *   udp_clients_bind.c    how a stranger is bound, or refused
 *   udp_clients_places.c  who there is, by slot and by key
 *   udp_clients_sweep.c   what goes over all: the silent, the busiest, no longer members, sent elsewhere
 *   udp_clients_saved.c   from one relay to the one that follows it
 *   udp_limits.c          how much one may send, and to whom
 */
#pragma once

#include "common/rate_limit.h"
#include "common/source_limit.h"
#include "relay/key_table.h"
#include "relay/udp_clients.h"
#include "relay/udp_cookies.h"

#define INDEX_BITS      20
#define INDEX_MASK      ((1u << INDEX_BITS) - 1)
#define GENERATION_MASK (UINT32_MAX >> INDEX_BITS)
#define SECOND_NS       UINT64_C(1000000000)
#define MILLISECOND_NS  UINT64_C(1000000)

struct client;

/* A member who was bound once, or is elsewhere. */
struct known {
	struct known *next;
	struct public_key node_key;
	struct relay_udp_key proof;
	struct client *client; /* NULL: neither bound nor elsewhere */
	uint64_t bound_ns;  /* last, or moved; 0: never */
	uint32_t cookie_ms; /* when the cookie of that bind was made: binds are ordered by it, also when it has left */
	bool has_proof;
};

struct client {
	struct known *known;
	bool is_bound, is_elsewhere; /* not neither */
	bool is_told_here;	     /* what was said elsewhere last: it is reached here */
	bool is_leaving;	     /* it was sent away: pings keep it no longer */
	bool is_handed_over;	     /* by the relay before: it shall be bound anew */
	struct udp_way way;
	uint32_t slot, token;
	uint64_t bind_number;	/* the client's */
	uint64_t proven_ns;
	uint64_t heard_ns, heard_elsewhere_ns; /* a packet of it: lately, by which of both? */
	uint32_t gone_second, n_gone; /* told in that second */
	uint32_t find_second, n_finds; /* in vain, in that second */
	uint32_t contact_second, n_contacts; /* when those left were counted; to so many more it may begin to send */
	uint32_t last_to;		     /* slot */
	struct rate_limit rate;
	uint32_t round, n_round; /* packets that it sent in that round */
	uint64_t packets_in, bytes_in, packets_out, bytes_out;
	uint64_t swept_bytes, recent; /* of both ways when it was last looked at; carried lately */
};

struct place {
	struct client *client; /* NULL: free */
	uint32_t generation;   /* of the next client here, or of this one */
	uint32_t next_free;    /* index, 0: the last */
};

/* A list in the making, and how busy each of it is. */
struct busiest {
	struct udp_clients_busiest list;
	uint64_t recent[UDP_CLIENTS_BUSIEST];
};

/* So many a second. */
struct budget {
	uint64_t second;
	uint32_t n; /* spent in that second */
};

struct udp_clients {
	struct udp_clients_config config;
	struct public_key public;
	struct key_table known;	    /* by node key */
	struct known *first_known;
	struct place *places; /* [0] is not used: slot 0 is the relay */
	uint32_t n_places, sweep_at;
	uint32_t first_free, last_free; /* the longest free first; 0: none */
	struct udp_cookies cookies; /* and challenges, and tokens */
	uint32_t epoch;
	uint64_t saved_ns; /* when the relay before ended, whose clients these are; 0: none was */
	bool is_draining;
	uint32_t drain_at; /* all before were sent away */
	struct source_limit binds;
	struct budget answers, proofs;
	struct rate_limit rate;
	struct {
		uint32_t number, n_packets, n_senders, n_most; /* n_most: of one client */
		uint32_t fair; /* packets of one client in this round; UINT32_MAX: any number */
	} round;
	uint32_t n_pairs; /* a power of two */
	uint64_t *pairs; /* who sent to whom, lately: a hash of both in its place */
	struct udp_clients_counters counters;
	struct busiest busiest, next_busiest;
};

static inline uint32_t udp_clients_index_of(uint32_t slot)
{
	return slot & INDEX_MASK;
}

/* NULL: nobody has it, or not any more. */
static inline struct client *udp_clients_find_slot(const struct udp_clients *clients, uint32_t slot)
{
	const uint32_t i = udp_clients_index_of(slot);
	struct client *client = i < clients->n_places ? clients->places[i].client : NULL;

	return client && client->slot == slot ? client : NULL;
}

/*
 * A node that has lost UDP, or loses too much there, comes by TLS, and goes on pinging here: what counts is by which
 * way it sends.
 */
static inline bool udp_clients_is_reached_here(const struct client *to)
{
	return to->is_bound && (!to->is_elsewhere || to->heard_ns > to->heard_elsewhere_ns);
}

/* ---- udp_clients_places.c ---- */

/* The place is free: it is used again after all others that are. */
void udp_clients_free_place(struct udp_clients *clients, uint32_t i);
/* Twice as many; the first time some. Out of memory aborts. */
void udp_clients_add_places(struct udp_clients *clients);
/* Of a known that has none; out of memory aborts. */
struct client *udp_clients_add_client(struct udp_clients *clients, struct known *known);
/* Neither bound nor elsewhere any more: it is freed. */
void udp_clients_remove_client(struct udp_clients *clients, struct client *client);
/* That of the key, or a new one. */
struct known *udp_clients_get_known(struct udp_clients *clients, const struct public_key *node_key);
/* What a list's link has, of which there is no client. */
void udp_clients_forget_known(struct udp_clients *clients, struct known **at);
/*
 * Elsewhere counts what was said last. So "here" is taken back whenever it comes there, or is lost here: it may be heard
 * only after that.
 */
void udp_clients_tell_reached(const struct udp_clients *clients, struct client *client, bool is_here);
/* A packet of it came, or it has moved. */
void udp_clients_hear(const struct udp_clients *clients, struct client *client, uint64_t now_ns);
/* Bound no longer. Freed, unless it is elsewhere. */
void udp_clients_unbind(struct udp_clients *clients, struct client *client);

/* ---- udp_clients_bind.c ---- */

bool udp_clients_is_member(const struct udp_clients *clients, const struct public_key *node_key);
enum udp_clients_verdict udp_clients_answer_ask(struct udp_clients *clients, const struct udp_way *from,
						const struct relay_udp_ask *ask, uint64_t now_ns,
						struct udp_clients_result *ret);
enum udp_clients_verdict udp_clients_take_bind(struct udp_clients *clients, const struct udp_way *from,
					       const struct relay_udp_bind *bind, const void *bytes, size_t len,
					       uint64_t now_ns, struct udp_clients_result *ret);
/* A cookie for who comes from an unknown address; len: of what is answered, which moved may not exceed. */
enum udp_clients_verdict udp_clients_answer_moved(struct udp_clients *clients, const struct udp_way *from,
						  uint32_t what, size_t len, uint64_t now_ns,
						  struct udp_clients_result *ret);
/* A cookie, so that it binds anew. */
enum udp_clients_verdict udp_clients_say_moved(const struct udp_clients *clients, const struct udp_way *to,
					       uint32_t what, uint64_t now_ns, struct udp_clients_result *ret);
struct relay_udp_datagram udp_clients_refusal(enum relay_udp_reason reason, uint32_t retry_after_ms, uint64_t number);
enum udp_clients_verdict udp_clients_answer_proven(struct udp_clients_result *ret, const struct relay_udp_key *key,
						   const struct relay_udp_datagram *datagram);

/* ---- udp_clients.c ---- */

enum udp_clients_verdict udp_clients_answer(struct udp_clients_result *ret, const struct relay_udp_datagram *datagram);
