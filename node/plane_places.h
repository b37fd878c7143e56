/*
 * The relays at which a peer was looked for, found, or heard: a handful, of which the least useful gives way.
 *
 *            found, or heard from there
 *   UNKNOWN ─────────────────────────────► HERE ── does not answer ──► DEAF (and still HERE)
 *      │                                  │    ▲                         │
 *      │ said not to be there             ▼    │ found, or heard         └── heard from there, or a minute later:
 *      └────────────────────────────────► ABSENT                             not deaf any more
 *
 * Over TLS nobody says that a peer is there, only that it is not: a place that is tried is UNKNOWN again once the relay
 * has had time to say so, and what is UNKNOWN may be sent to. Who is sought is tried more often than a relay answers: what
 * it said stands for a while though a try was not answered.
 *
 * Pure. Times are of common/clock.h, 0: never.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define PLANE_PLACES  8
#define PLANE_RETRY_NS 150000000ull /* who was not there is tried again after that */
#define PLANE_SOUGHT_NS 50000000ull /* … and who is sought since it does not answer elsewhere, so often in any case */
#define PLANE_STANDS_NS 1000000000ull /* … where it was absent, and is until then: a relay says so 10 times a second, of all peers together */
#define PLANE_FRESH_NS 1000000000ull /* who was heard from so lately is there: a packet more does not put that in doubt */
#define PLANE_DEAF_NS 60000000000ull /* after that the relay knows itself whether the peer is there */

/* What is known of a peer at one relay. */
struct plane_place {
	uint32_t relay_id; /* 0: not in use */
	uint32_t slot;	   /* its own there, over UDP; 0: not known */
	uint64_t here_ns;  /* found there, or heard from there */
	uint64_t absent_ns; /* said not to be there */
	uint64_t asked_ns;
	/* A packet went there over TLS; until then the relay has had time to say that the peer is not there. */
	uint64_t tried_ns, tried_until_ns;
	uint64_t sent_ns; /* the last that was to find it there */
	uint64_t deaf_ns; /* what was sent there had no answer then; 0: or it had one since */
};

/* NULL: nothing is known. */
struct plane_place *plane_places_find(const struct plane_place places[PLANE_PLACES], uint32_t relay_id);
/* The place there is, or the one that gives way for it, which may be another relay's; never NULL. */
const struct plane_place *plane_places_room(const struct plane_place places[PLANE_PLACES], uint32_t home_relay,
					    uint32_t relay_id);
/* The place there is, or a new one; its home, and where it is, give way last. */
struct plane_place *plane_places_take(struct plane_place places[PLANE_PLACES], uint32_t home_relay, uint32_t relay_id);

/* A packet goes there. rtt_us: to the relay, 0: not known. Sought where it was not just now, a peer stays absent until heard. */
void plane_place_try(struct plane_place *place, uint64_t now_ns, uint32_t rtt_us, bool is_sought);
/* It was tried, or said not to be there, just now: not yet to be tried again. Who is sought may come any moment. */
bool plane_place_was_tried(const struct plane_place *place, uint64_t now_ns, bool is_sought);

/* Who is sought for long is sought in rounds, so that many do not ask all at once. All zero to begin with. */
struct plane_rounds {
	uint64_t began_ns;
	uint32_t n; /* sought in the one at hand */
	/*
	 * Some found the last round full (the one at hand: is_full), of whom one was sought at left_ns and none before. Who
	 * was sought in the same round as that one, or earlier, goes first: no later than first_ns.
	 */
	bool was_full, is_full;
	uint64_t first_ns, left_ns;
};

#define PLANE_ROUND_NS	   100000000ull
#define PLANE_ROUND_PEERS  64
#define PLANE_SEEK_PAUSE_NS 100000000ull

/* May a peer that was sought last at sought_ns be sought now? Then it counts. All have their turn, in whatever order. */
bool plane_rounds_take(struct plane_rounds *rounds, uint64_t sought_ns, uint64_t now_ns);

/*
 * What is sent to a peer goes by relay sent_by, and what it answered came by answered_by: is it the other one that has
 * the peer? A peer answers where we are at home, whatever was sent came by: that tells nothing, unless it is at home
 * there, too. 0: none.
 */
bool plane_is_answer_elsewhere(uint32_t sent_by, uint32_t answered_by, uint32_t our_home, uint32_t its_home);

/* All of these: false for NULL. */
bool plane_place_is_absent(const struct plane_place *place);
bool plane_place_is_here(const struct plane_place *place);
/* Tried, and no answer can be expected yet. */
bool plane_place_is_tried(const struct plane_place *place, uint64_t now_ns);
bool plane_place_is_deaf(const struct plane_place *place, uint64_t now_ns);
