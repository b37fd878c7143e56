/*
 * An address at a TURN server (RFC 8656), through which those reach us whom nobody else can: got, kept, given back.
 *
 *                      allocated
 *      ASKING ─────────────────────────► ALLOCATED ──┐ refreshed at half of its life
 *       ▲  ▲ │ refused, silent              │   ▲    │
 *       │  │ ▼                              │   └────┘
 *       │ RESTING ◄─ 30 s, twice as long    │
 *       │            each time, 30 minutes  │ over, or the server knows it no more
 *       │            at most                │
 *       └───────────────────────────────────┘      stop, from any: RELEASING ──► ENDED
 *         moved, from any of the three: at once
 *
 *   permission  of an IP address: whom the server lets in. Wanted by the owner, renewed while that is so.
 *   channel     of an address and port: who talks through the server; a short name in place of the address.
 *
 * An address belongs to the socket that asked for it: each time one is asked for, the owner opens another socket.
 * What we send keeps the NAT's mapping towards the server; when nothing goes, an indication does every 20 seconds.
 *
 * Requests are repeated after 0.5, 1.5 and 3.5 s and given up after 7.5 s. Pure: no I/O, no clock, no allocation.
 * The shell (turn_client.h) writes and reads the messages, and knows by their integrity that answers are the server's.
 */
#pragma once

#include "common/endpoint.h"

#include <stdbool.h>
#include <stdint.h>

#define TURN_MAX_PERMISSIONS 64
#define TURN_MAX_CHANNELS    32
#define TURN_MAX_ACTIONS     (2 * (TURN_MAX_PERMISSIONS + TURN_MAX_CHANNELS) + 8)

enum turn_state { TURN_ASKING, TURN_ALLOCATED, TURN_RESTING, TURN_RELEASING, TURN_ENDED, TURN_N_STATES };

enum turn_request { TURN_ALLOCATE, TURN_REFRESH, TURN_PERMIT, TURN_BIND, TURN_N_REQUESTS };

enum turn_input_type {
	TURN_IN_START,
	TURN_IN_ANSWER,	  /* .request, .index, .code; ALLOCATE, REFRESH: .lifetime_s; ALLOCATE: .endpoint, the relayed one */
	TURN_IN_WANTED,	  /* .endpoint: its IP is to be let in, for ten minutes from now, or until others take all room */
	TURN_IN_DATA,	  /* .endpoint: who sent something through the server, and no channel is open for it */
	TURN_IN_USED,	  /* .index: a channel that the node sent something through */
	TURN_IN_DEADLINE, /* deadline_ns has passed (earlier is harmless) */
	TURN_IN_MOVED,	  /* the way to the server begins at another address of ours: this socket is of no use */
	TURN_IN_CHECK,	  /* the network has changed: does the server know us still? */
	TURN_IN_STOP,
	TURN_N_INPUTS,
};

/* Of an answer: 0: done. */
enum turn_code { TURN_UNAUTHORIZED = 401, TURN_MISMATCH = 437, TURN_STALE_NONCE = 438 };

struct turn_input {
	enum turn_input_type type;
	uint64_t now_ns; /* common/clock.h; never 0, never goes back */
	enum turn_request request;
	uint32_t index;
	uint16_t code;
	uint32_t lifetime_s;
	struct endpoint endpoint;
};

enum turn_action_type {
	TURN_DO_CONNECT, /* a new socket to the server, in place of the one before */
	TURN_DO_KEEP,	/* an indication to the server, for the NAT's sake */
	TURN_DO_ASK,	/* .request, of .index: a new transaction */
	TURN_DO_REPEAT, /* the same bytes again */
	TURN_DO_GIVE_UP, /* no answer is waited for any more */
	TURN_DO_OPEN,	/* channel .index is for .endpoint now */
	TURN_DO_CLOSE,	/* channel .index is nobody's any more */
	TURN_DO_RELAYED, /* fsm->relayed is another one, or none */
	TURN_DO_ENDED,
};

struct turn_action {
	enum turn_action_type type;
	enum turn_request request;
	uint32_t index;
	struct endpoint endpoint;
};

struct turn_actions {
	uint32_t n;
	struct turn_action all[TURN_MAX_ACTIONS];
};

/* One request under way, or none (n_sent 0). */
struct turn_asking {
	uint64_t begun_ns;
	uint32_t n_sent, n_challenged;
};

struct turn_permission {
	struct endpoint ip; /* port 0; none: free */
	struct turn_asking asking;
	uint64_t wanted_ns, renew_ns; /* renew_ns 0: not asked for yet, or under way */
	bool holds;
};

struct turn_channel {
	struct endpoint peer; /* none: free */
	uint16_t number;      /* 0x4000 … 0x4fff, of this peer only */
	struct turn_asking asking;
	uint64_t used_ns; /* opened, or last sent through by the node */
	uint64_t renew_ns;
	uint64_t bound_ns; /* the server knows it for 600 s from then; 0: not at all */
	bool bound;
	bool open;     /* else it is known only because the server knows it */
	bool answered; /* the node has sent through it */
};

/* A plain value. Read it, change it only by turn_fsm_step(). */
struct turn_fsm {
	enum turn_state state;
	uint64_t deadline_ns; /* 0: none */
	struct endpoint relayed;
	struct turn_asking asking; /* ALLOCATE, REFRESH */
	bool refreshes;		   /* … which of them */
	uint64_t renew_ns, expiry_ns, rest_ns, release_ns;
	uint64_t sent_ns; /* when something last went to the server */
	uint32_t n_rests, n_numbers;
	uint64_t n_refused; /* whom there was no room for (any more) */
	struct turn_permission permissions[TURN_MAX_PERMISSIONS];
	struct turn_channel channels[TURN_MAX_CHANNELS];
};

void turn_fsm_init(struct turn_fsm *fsm);
void turn_fsm_step(struct turn_fsm *fsm, const struct turn_input *in, struct turn_actions *ret);
/* Can that server reach who is at this address? From the internet nobody reaches a private one. */
bool turn_can_reach(const struct endpoint *server, const struct endpoint *peer);
/* The channel of this peer, or -1. */
int turn_fsm_find_channel(const struct turn_fsm *fsm, const struct endpoint *peer);
