/*
 * A node's side of one relay over UDP (docs/PROTOCOL-relay.md, "Over UDP"; the relay's is relay/udp_clients.h).
 *
 *          wanted         cookie            bound            moved
 *   IDLE ─────────► ASKING ──────► BINDING ───────► BOUND ──────────► REBINDING ──┐ moved: its cookie
 *    ▲              │ ▲ ▲ ▲          │ │              │ ▲ │ ▲             │ │ ▲    │ was no good
 *    │              │ │ │ └─ poked ──┘ │              │ │ │ └── bound ────┘ │ └────┘
 *    │ unwanted     │ │ │              │              │ └─┘ leaving: the    │
 *    └─ (from any)  │ │ └──────────────┼── silent ────┤     relay will stop │
 *                   │ │                │ refused,     │                     │
 *             silent│ │ due, poked     │ silent, old  │ refused             │ refused; silent, old: ASKING
 *                   ▼ │                │              │                     │
 *                  WAITING ◄───────────┴──────────────┴─────────────────────┘
 *
 * All addresses of the relay are asked; the first that answers is bound to. Questions are asked again with
 * back-off. In BOUND and REBINDING there is a slot, and packets may go and come: a new address of ours costs one
 * round trip, and the slot stays.
 *
 * Pings tell the distance, the loss, and whether anybody is there: every second while the relay is used, after that
 * as often as half of the time since, and
 * when we have sent (or were sent something until just now) and heard nothing for 300 ms, three of them 150 ms
 * apart (each in three copies), or more where pings have been lost before; a relay from which nothing comes then
 * is dead. Half of the packets lost is not enough for that.
 *
 * A NAT that forgets us between two pings gives us another address, which the relay tells (moved). Twice so, with no pause as
 * long between that it outlived, and we ping after half of that pause, every 5 s at most, until the network changes.
 *
 * Pure: no I/O, no clock, no allocation. What does not come from the relay's address, or lacks our token, the
 * number of our question or the relay's mac, changes nothing. Times are of one monotonic clock, in µs.
 */
#pragma once

#include "common/endpoint.h"
#include "common/key.h"
#include "common/map.h"
#include "common/relay_udp_wire.h"

#include <stdbool.h>
#include <stdint.h>

#define RELAY_UDP_FSM_PINGS  8	/* the last ones, of which the loss is told */
/* Questions that wait for an answer, one more drops the oldest: of who asks for 64 peers in 0.1 s, for 0.4 s. */
#define RELAY_UDP_FSM_FINDS  256
#define RELAY_UDP_FSM_SENDS  24 /* datagrams of one step */
#define RELAY_UDP_FSM_EVENTS 2

enum relay_udp_state {
	RELAY_UDP_IDLE,
	RELAY_UDP_ASKING,
	RELAY_UDP_BINDING,
	RELAY_UDP_IS_BOUND,
	RELAY_UDP_REBINDING, /* bound, but our address has changed, or the relay restarted */
	RELAY_UDP_WAITING,   /* for the next attempt: refused, or nobody answered */
	RELAY_UDP_N_STATES,
};

/* The arrows of the drawing. */
enum relay_udp_cause {
	RELAY_UDP_ON_NOTHING,
	RELAY_UDP_ON_WANTED,
	RELAY_UDP_ON_UNWANTED,
	RELAY_UDP_ON_POKED,
	RELAY_UDP_ON_COOKIE,
	RELAY_UDP_ON_BOUND,
	RELAY_UDP_ON_MOVED,
	RELAY_UDP_ON_OLD,     /* refused: the cookie was older than one that came before */
	RELAY_UDP_ON_REFUSED, /* for any reason but the next and the last one */
	RELAY_UDP_ON_LEAVING, /* bound, and the relay will stop */
	RELAY_UDP_ON_SILENT,  /* no answer, however often we asked */
	RELAY_UDP_ON_DUE,     /* the wait is over */
	RELAY_UDP_N_CAUSES,
};

enum relay_udp_input_type {
	RELAY_UDP_IN_START,    /* the relay is wanted */
	RELAY_UDP_IN_STOP,     /* … is not */
	RELAY_UDP_IN_POKE,     /* the network changed, or somebody wants it now */
	RELAY_UDP_IN_VERIFY,   /* a slot may be lost without our knowing: a ping; what is under way goes on as it is */
	RELAY_UDP_IN_DATAGRAM, /* of kind DEMUX_RELAY; from whomever */
	RELAY_UDP_IN_DEADLINE,
	RELAY_UDP_IN_FIND,     /* the slot of a node: key; or the node of a slot: slot, and the key zero */
};

struct relay_udp_input {
	enum relay_udp_input_type type;
	uint64_t now_us;
	uint64_t random; /* of every input: numbers and jitter are made of it */
	const struct endpoint *from; /* datagram; these three borrowed for the call */
	const uint8_t *bytes;
	size_t len;
	struct public_key key; /* find */
	uint32_t slot;
};

enum relay_udp_event_type {
	RELAY_UDP_EV_BOUND,   /* slot, token or address are others than before, or new */
	RELAY_UDP_EV_LOST,    /* there is no slot any more; why */
	RELAY_UDP_EV_LEAVING, /* the relay will stop: what is bound lasts as long as it does */
	RELAY_UDP_EV_FOUND,   /* key and slot belong together; slot 0: that node is not here */
	RELAY_UDP_EV_GONE,    /* slot is nobody's any more */
	RELAY_UDP_EV_PACKET,  /* from the node with this slot; in the input's bytes */
};

struct relay_udp_event {
	enum relay_udp_event_type type;
	const char *why; /* lost: for people; lives for ever */
	bool is_new_epoch; /* bound: slots that were found before are nobody's */
	struct public_key key;
	uint32_t slot;
	const uint8_t *bytes;
	size_t len;
};

struct relay_udp_output {
	uint32_t n_sends, n_events;
	struct relay_udp_send {
		struct endpoint to;
		size_t len;
		uint8_t bytes[RELAY_UDP_MAX_LEN];
	} sends[RELAY_UDP_FSM_SENDS];
	struct relay_udp_event events[RELAY_UDP_FSM_EVENTS];
};

struct relay_udp_config {
	struct relay_udp_key key;   /* wiped by relay_udp_fsm_deinit() */
	struct public_key node_key; /* ours */
	uint32_t n_addresses;
	struct endpoint addresses[MAP_MAX_ADDRESSES]; /* with the port */
};

enum relay_udp_ping_state { RELAY_UDP_PING_NONE, RELAY_UDP_PING_OUT, RELAY_UDP_PING_ANSWERED, RELAY_UDP_PING_MISSED };

struct relay_udp_fsm {
	struct relay_udp_config config;
	enum relay_udp_state state;
	uint64_t deadline_us; /* the earliest of all that we wait for; 0: none */

	/* ASKING, BINDING, REBINDING, WAITING */
	uint64_t question;	/* the number of our ask */
	uint64_t bind_number;
	uint8_t cookie[RELAY_UDP_COOKIE_LEN];
	uint32_t address;	/* index of the one that answered */
	uint32_t n_tries;	/* of the question at hand */
	uint32_t n_failures;	/* attempts without a bound between them */
	uint64_t retry_us;	/* next repetition, or end of WAITING */
	uint32_t retry_after_ms;
	uint64_t not_before_us;	 /* WAITING: the relay said so */
	uint64_t poked_us;	 /* the last one that was followed */
	uint64_t eager_until_us; /* was bound a while ago: no long waits */

	/* BOUND, REBINDING */
	uint32_t slot, token, epoch;
	uint32_t keep_alive_ms;	   /* the relay's wish, and … */
	uint32_t nat_ms;	   /* the pause that our NAT outlives; 0: any */
	uint64_t forgotten_us;	   /* the pause in which it forgot us last; 0: it did not */
	uint32_t challenge;
	uint64_t bound_us;
	bool is_leaving;      /* the relay has said that it stops */
	uint64_t used_us;     /* when a packet last went or came */
	uint64_t received_us; /* the last packet */
	bool is_watched;
	uint64_t heard_us;
	uint64_t unanswered_us; /* first sent after heard_us; 0: nothing */
	uint64_t next_ping_us;
	uint32_t n_silent; /* pings since heard_us */
	uint32_t rtt_us;   /* 0: not measured */
	struct relay_udp_ping_record {
		enum relay_udp_ping_state state;
		uint64_t number, sent_us;
	} pings[RELAY_UDP_FSM_PINGS];
	uint32_t next_record;
	uint32_t history, n_history; /* of the last 32 pings, a bit each, the last one lowest: 1 is missing */

	uint32_t n_finds; /* oldest first */
	struct relay_udp_find {
		struct public_key key;
		uint32_t slot;
		uint32_t n_tries;
		uint64_t next_us;
	} finds[RELAY_UDP_FSM_FINDS];

	uint64_t random; /* of the input at hand */
	void (*trace)(void *arg, const char *line); /* may be NULL */
	void *trace_arg;
};

void relay_udp_fsm_init(struct relay_udp_fsm *fsm, const struct relay_udp_config *config);
void relay_udp_fsm_deinit(struct relay_udp_fsm *fsm);
void relay_udp_fsm_step(struct relay_udp_fsm *fsm, const struct relay_udp_input *input,
			struct relay_udp_output *out);
/* A packet was sent through the relay. True: the deadline has changed. */
bool relay_udp_fsm_sent(struct relay_udp_fsm *fsm, uint64_t now_us);
/* A packet of the relay's that others took (the packet path) came at that time. True: as above. */
bool relay_udp_fsm_received(struct relay_udp_fsm *fsm, uint64_t at_us);
/* Ping every second also when it is not used, to learn how good it is. True: as above. */
bool relay_udp_fsm_watch(struct relay_udp_fsm *fsm, bool watch, uint64_t now_us);

/* There is a slot: packets may go. */
bool relay_udp_fsm_is_bound(const struct relay_udp_fsm *fsm);
/* Where the relay is, while bound. */
struct endpoint relay_udp_fsm_remote(const struct relay_udp_fsm *fsm);
/* What a packet to that slot begins with, while bound. */
void relay_udp_fsm_header(const struct relay_udp_fsm *fsm, uint32_t slot, uint8_t ret[RELAY_UDP_HEADER_LEN]);
/* Does this address belong to the relay? */
bool relay_udp_fsm_owns(const struct relay_udp_fsm *fsm, const struct endpoint *from);
/* Of the last RELAY_UDP_FSM_PINGS pings: unanswered ones; all of them are there, and at most one is missing. */
uint32_t relay_udp_fsm_missing(const struct relay_udp_fsm *fsm);
/* Per cent of the last 32 pings that have no answer; 0 while they are fewer. */
uint32_t relay_udp_fsm_loss(const struct relay_udp_fsm *fsm);
/* Are there so many? */
bool relay_udp_fsm_knows_loss(const struct relay_udp_fsm *fsm);
bool relay_udp_fsm_is_proven(const struct relay_udp_fsm *fsm);

const char *relay_udp_state_name(enum relay_udp_state state);
const char *relay_udp_cause_name(enum relay_udp_cause cause);

/* The table, for the test that compares it with docs/fsm/relay_udp_fsm.dot. RELAY_UDP_N_STATES: from any. */
struct relay_udp_arrow {
	enum relay_udp_state from;
	enum relay_udp_cause on;
	enum relay_udp_state to;
	const char *deed;
	void (*act)(struct relay_udp_fsm *fsm, const struct relay_udp_input *input, struct relay_udp_output *out);
};
const struct relay_udp_arrow *relay_udp_fsm_arrows(uint32_t *ret_n);
