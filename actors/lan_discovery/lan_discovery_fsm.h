/*
 * When to call on the link, whom to answer, and who has been found. Pure: what it is told of calls and answers has
 * been checked to carry a tag of that peer for us; what it decides the shell sends.
 *
 *          control away for 1 s, addresses changed: 3 calls in 4 s
 *   QUIET ────────────────────────────────────────────────────► CALLING ──┐ a wanted peer cannot be
 *     ▲                                                            │  ▲   │ reached: 1, 2, 4 … 64 s
 *     └─────────── all said and nobody missing, or control is back ┘  └───┘ apart
 *
 * With control nobody calls: the map says all that a call could find out. Whoever hears a call answers always.
 *
 *   A calls ────► B answers                    (a tag that depends on A's session key and this call's number)
 *   A ◄───────── A: that can be no repetition: found B.  Answers as well
 *   B ◄───────── B: found A
 *
 * A call may be a repetition of somebody else's, so it never changes what is known of a peer: it is answered, at
 * most once for each sequence number, and once in ANSWER_NS to one peer. An answer names the number of ours that it
 * answers. It counts within FRESH_NS of that, and if that number is larger than of any answer before from this peer:
 * so what was recorded is worth nothing, whichever session it is of. Else it is a repetition, and counted.
 */
#pragma once

#include "common/endpoint.h"
#include "common/key.h"

#include <stdbool.h>
#include <stdint.h>

#define LAN_MAX_KNOWN 64 /* peers on our links; one more takes the place of the one silent longest */

enum lan_input_type {
	LAN_IN_LINK,	 /* our addresses are others than before */
	LAN_IN_CONTROL,	 /* .is_connected: at start, and when it changed */
	LAN_IN_MISSING,	 /* .n_missing: how many wanted peers cannot be reached; told when it may have changed */
	LAN_IN_CALL,	 /* from .peer_id, with .session, .sequence, .from (its endpoint) */
	LAN_IN_ANSWER,	 /* … with .answered; it was meant for our session */
	LAN_IN_FORGET,	 /* what was found of .peer_id is not used any more: it can be found again */
	LAN_IN_DEADLINE, /* deadline_ns has passed (earlier is harmless) */
};

struct lan_input {
	enum lan_input_type type;
	uint64_t now_ns; /* never 0, never goes back */
	uint32_t n_missing;
	bool is_connected;
	uint32_t peer_id;
	struct public_key session;
	uint64_t sequence;
	uint64_t answered; /* our number */
	struct endpoint from;
};

struct lan_output {
	bool call;
	bool answer; /* to the peer of the input … */
	uint64_t sequence; /* … with this number */
	bool found;  /* the peer of the input has this session and this endpoint */
};

/* Of one peer on a link. */
struct lan_known {
	uint32_t peer_id; /* 0: nobody */
	struct public_key called; /* the session of its last call … */
	uint64_t called_sequences[2]; /* … and the highest number of one; IPv6, IPv4: two sockets are not in one order */
	struct public_key session; /* proven; zero: none yet */
	struct endpoint endpoints[2]; /* proven; IPv6, IPv4 */
	uint64_t proven_by; /* our number, which its last answer answered */
	uint64_t asked; /* the number of our last answer to it */
	uint64_t answered_ns; /* when we answered last, 0: never */
	uint64_t heard_ns;
};

/* One call: all its datagrams. */
struct lan_call {
	uint64_t first, last; /* numbers */
	uint64_t at_ns;	      /* 0: none */
};

struct lan_discovery_fsm {
	uint64_t deadline_ns; /* step with LAN_IN_DEADLINE then; 0: none */
	uint64_t random;
	bool is_connected; /* to control */
	uint64_t plan_ns; /* when calls after a change begin, 0: no change */
	uint64_t began_ns; /* when they last began */
	uint32_t n_left; /* of them */
	uint64_t burst_ns; /* the next of them */
	bool is_searching;
	uint32_t n_searched;
	uint64_t search_ns; /* the next call of a search */
	uint64_t sequence; /* the last number */
	struct lan_call calls[2]; /* this one, and the one before, whose answers may be on the way */
	struct lan_known known[LAN_MAX_KNOWN];
	uint64_t n_calls, n_repetitions, n_found;
};

void lan_discovery_fsm_init(struct lan_discovery_fsm *fsm, uint64_t seed);
/* The number of the next datagram of the call that output.call has asked for. */
uint64_t lan_discovery_fsm_call_number(struct lan_discovery_fsm *fsm);
/* Whether an answer to this number may come, from whomever. Cheap: for before a tag is looked at. */
bool lan_discovery_fsm_is_expected(const struct lan_discovery_fsm *fsm, uint64_t answered, uint64_t now_ns);
void lan_discovery_fsm_step(struct lan_discovery_fsm *fsm, const struct lan_input *input, struct lan_output *ret);
