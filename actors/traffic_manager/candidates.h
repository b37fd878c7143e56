/*
 * The addresses one peer may be reached at: who told us, what we measured, who answers.
 *
 * A fixed table. An address is in it as long as it has an origin: the map named it, the peer's last
 * rendezvous named it, or an authenticated message came from it. Each origin is bounded, so a peer
 * can fill only its own share. Indices are stable; the generation tells a slot's former owner.
 *
 * Pure. Part of peer_fsm.
 */
#pragma once

#include "common/endpoint.h"

#include <stdbool.h>
#include <stdint.h>

#define PEER_MAX_MAP_ENDPOINTS	      16 /* as MAP_MAX_ENDPOINTS */
#define PEER_MAX_RENDEZVOUS_ENDPOINTS 32 /* as SESSION_MAX_ENDPOINTS */
#define PEER_MAX_LEARNED	      8	 /* sources of pings, pongs and data nobody advertised */
/* One more, for a newcomer while the AKA of the one that made room is not yet taken back. */
#define PEER_MAX_CANDIDATES                                                                        \
	(PEER_MAX_MAP_ENDPOINTS + PEER_MAX_RENDEZVOUS_ENDPOINTS + PEER_MAX_LEARNED + 1)

/* So many unanswered, and it is pinged no more unless there is news. */
#define HOPELESS_PINGS 8

enum peer_origin {
	PEER_FROM_MAP = 1,
	PEER_FROM_RENDEZVOUS = 2,
	PEER_LEARNED = 4,
};

/* A lost packet costs about a retransmission timeout: 10 % loss weighs as much as 40 ms. For a permille: */
#define PEER_LOSS_COST_US 400

/* A way's floor is the lowest of so many round trips. */
#define PEER_N_ROUND_TRIPS 8

/* What became of the last pings is kept of so many; what counts as lately is the last of those that count. */
#define PEER_N_PINGS	  256
#define PEER_N_LATE_PINGS 62
#define PEER_PING_WORDS	  (PEER_N_PINGS / 64)

/* One address, or the relay: both are measured alike. */
struct peer_candidate {
	struct endpoint endpoint;
	uint8_t origin;	       /* bits of enum peer_origin; 0: gone */
	uint8_t generation;    /* of the slot: a pong for its former owner is stale */
	bool aka;	       /* announced to DirectRouter as this peer */
	bool by_turn;	       /* our pings reach the peer by its TURN server: it sees them come from its own loopback */
	uint8_t n_unanswered;  /* pings since the last pong, saturating */
	uint16_t n_pings;      /* sent, modulo 2^16 */
	uint16_t n_pongs;      /* got, saturating */
	/* the last pings, bit 0 of the first word is the newest: which count, and which of these were answered */
	uint64_t counted[PEER_PING_WORDS], answered[PEER_PING_WORDS];
	uint16_t loss_permille; /* lately, of those that count */
	uint32_t latency_us;   /* smoothed round trip, queues of our own included; 0: unknown */
	uint32_t round_trips_us[PEER_N_ROUND_TRIPS]; /* the last ones that say something of the way; 0: none */
	uint8_t next_round_trip;
	uint8_t n_calm;	       /* pongs that did not wait behind our own packets, saturating */
	uint64_t ping_ns;      /* last sent, 0: never */
	uint64_t counted_ns;   /* last sent of those that count */
	uint64_t pong_ns;      /* last got, 0: never */
	uint64_t works_ns;     /* when the last ping was sent that it answered itself, 0: none */
	uint64_t heard_ns;     /* last authenticated anything from there, 0: never */
	uint64_t closed_until_ns; /* until then no data is tried: pings pass there, data does not; 0: it is open */
	uint8_t n_closed;      /* so often in a row that was found, saturating */
};

struct peer_candidates {
	struct peer_candidate all[PEER_MAX_CANDIDATES];
};

/* Index of the candidate with this address, or -1. */
int candidates_find(const struct peer_candidates *set, const struct endpoint *endpoint);
/*
 * Makes sure the address is in the table, as learned if nobody advertised it. A learned one that
 * was silent longest makes room (never keep). -1 when it is no address to send to.
 */
int candidates_learn(struct peer_candidates *set, const struct endpoint *endpoint, int keep);
/*
 * These are now all the addresses of that origin; returns how many are new to the table. What is
 * left without an origin is gone, except keep, which becomes learned.
 */
uint32_t candidates_replace(struct peer_candidates *set, enum peer_origin origin,
			    const struct endpoint *endpoints, uint32_t n, int keep);
/* Forgets what was only learned, except keep. */
void candidates_drop_learned(struct peer_candidates *set, int keep);
bool candidates_is_empty(const struct peer_candidates *set);

/* May a stranger make us send there? Not to multicast, broadcast, nowhere or port 0. To loopback: what peers
 * name there is left out by candidates_replace(), but who comes by TURN or a port that was searched for is there. */
bool candidate_is_sane(const struct endpoint *endpoint);
/*
 * loaded: so much is exchanged with the peer that a ping may wait, or be lost, in a queue that is our
 * own. Then a loss says nothing of the way, and a round trip only if it was shorter than any before. Nor does the loss of a ping
 * that was sent right after another one.
 */
void candidate_on_ping_sent(struct peer_candidate *candidate, bool loaded, uint64_t now_ns);
/* n_since: how many pings were sent after the one that it answers. */
void candidate_on_pong(struct peer_candidate *candidate, uint32_t n_since, uint32_t round_trip_us, bool loaded,
		       uint64_t now_ns);
/* It may answer again: pings are worth their while, and what many of them in a row were lost for is over. */
void candidate_hope(struct peer_candidate *candidate);
/* How many were lost of the last n pings that count and are known. */
uint32_t candidate_n_lost_of(const struct peer_candidate *candidate, uint32_t n);
/* So long after a ping its answer is late; a ping that follows sooner does not make it a lost one. */
uint64_t candidate_wait_ns(const struct peer_candidate *candidate);
/* The round trip without the queues that come and go; 0: unknown. */
uint32_t candidate_floor_us(const struct peer_candidate *candidate);
/* Pings pass, data does not: nothing is sent there for a while, and longer each time that it is found. */
void candidate_close(struct peer_candidate *candidate, uint64_t now_ns);
void candidate_open(struct peer_candidate *candidate);
bool candidate_is_closed(const struct peer_candidate *candidate, uint64_t now_ns);
/* Forgets what was measured. */
void candidate_forget_measures(struct peer_candidate *candidate);
/* By a TURN server, the peer's or ours (who comes by ours is at our loopback): somebody else carries what is sent. */
bool candidate_is_by_turn(const struct peer_candidate *candidate);
/* The floor, plus a little for leaving the LAN and more for TURN: without what loss costs. Microseconds; smaller is better. */
uint32_t candidate_base_us(const struct peer_candidate *candidate);
/* The same with it, as it was lately. */
uint32_t candidate_cost_us(const struct peer_candidate *candidate);
/* At least (deviations < 0), about (0) or at most so many permille are lost, as sure as that many standard deviations of the last n pings. */
uint32_t candidate_loss_bound(const struct peer_candidate *candidate, uint32_t n, int deviations);
