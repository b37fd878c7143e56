/*
 * The search for a way through a hard NAT: one side's outside port is another for each destination, the other side
 * lets in only whom it asked, at the port that it asked. Neither knows a port that would do, so they look for one.
 *
 *        facts of both, wanted                 it has begun         5 s over
 *   IDLE ───────────────────► PREPARING ─────────► SEARCHING ──────────────────► SPENT
 *    ▲ ▲                        │ │                  │ │
 *    │ ├─ no sockets; unheard ──┘ └─ direct path ────┴─│──► FOUND
 *    │ └─────────────── unheard ───────────────────────┘      │ path lost
 *    └────────────────────────────────────────────────────────┘
 *          from anywhere: other addresses outside (ours or the peer's network is another one), another session of the peer
 *
 *   hard side   opens sockets and sends from each to the easy side's outside port (PREPARING): that many ports of
 *               its NAT are open for the easy side now. Then waits for what arrives (SEARCHING).
 *               It begins when it hears that the easy side does, and then says so, each time that it hears it again; it
 *               tells one easy side at a time what its NAT does. When the easy side went on saying that it begins until it
 *               gave up, it has not heard us and pinged nobody: it is told anew what our NAT does.
 *   easy side   tells the hard side that it begins, each 0.5 s until it hears that that has begun, then waits until its
 *               ports are open (PREPARING), and sends pings from its one socket to ports of the hard side's outside
 *               address (SEARCHING). So no ping is sent in vain because a message was lost. When it is not heard within
 *               5 s, it has sent nothing else, and waits until it is told again.
 *
 * Which ports, by what was measured on the hard side (nat_behaviour_fsm.h):
 *
 *   in steps    64 sockets are a run of 64 steps: beginning at the last port seen, one ping for each 48 steps
 *   in a block  if all ports seen lie close together: 64 sockets, pings in that block and a margin
 *   anywhere    256 sockets, 1024 pings over all ports from 1024 on: one of them hits with 98.3 %
 *
 * Polite: at most 256 sockets, 1024 pings and 500 datagrams a second; none where it is not needed (a direct path exists
 * without) or cannot succeed (both sides are hard). One search for each change of network: where one found nothing there
 * is no other until our or the peer's outside address is another one, or the peer was restarted. A NAT that forgot what
 * it was asked is such a change, too: so when a path that was found is lost. A peer says what it likes, as often as it
 * likes, and may want us to flood somebody: so of all machines of a node one searches at a time (struct hard_nat_turn),
 * and no more than HARD_NAT_CHANGES are believed of a peer in ten minutes, unless our own network is another one.
 *
 * One machine a peer, owned by TrafficManager. Pure: no I/O, no clock, no allocation.
 */
#pragma once

#include "actors/endpoint_manager/nat_behaviour_fsm.h"

#define HARD_NAT_MAX_SOCKETS 256
#define HARD_NAT_MAX_PINGS   1024
#define HARD_NAT_RATE	     500 /* datagrams a second */
#define HARD_NAT_MAX_ACTIONS 24
#define HARD_NAT_CHANGES     2 /* that a peer is believed, until HARD_NAT_RENEWED_NS after the last search; one search each */
#define HARD_NAT_RENEWED_NS  600000000000u

struct hard_nat_fsm;

/* Whose turn it is to search: one for all machines of a node, owned by who owns them. All zero: nobody's. */
struct hard_nat_turn {
	uint64_t until_ns;		/* nobody else may begin before */
	const struct hard_nat_fsm *who; /* has told its peer, and waits for it to begin; compared, never followed. Else NULL */
};

/* What one side says of its NAT. */
struct hard_nat_facts {
	enum nat_dependence mapping, filtering;
	enum nat_ports_kind ports;
	int32_t step;
	uint16_t low_port, high_port, last_port; /* as nat_findings; 0: none */
	uint32_t n_ports;
	struct endpoint outside; /* of the socket that carries packets, as STUN servers see it */
};

enum hard_nat_role {
	HARD_NAT_NOTHING,
	HARD_NAT_EASY_SIDE,
	HARD_NAT_HARD_SIDE,
};

/* What both sides do; each knows the whole. */
struct hard_nat_plan {
	enum hard_nat_role role; /* ours */
	uint32_t n_sockets, n_pings;
	/* The i-th ping goes to low_port + (first + i * stride) mod n_range. */
	uint16_t low_port;
	uint32_t n_range, first, stride;
};

enum hard_nat_state {
	HARD_NAT_IDLE,
	HARD_NAT_PREPARING,
	HARD_NAT_SEARCHING,
	HARD_NAT_FOUND,
	HARD_NAT_SPENT,
	HARD_NAT_N_STATES,
};

enum hard_nat_input_type {
	HARD_NAT_IN_OURS,     /* .facts */
	HARD_NAT_IN_THEIRS,   /* .facts; .flag: it has begun to search */
	HARD_NAT_IN_WANTED,   /* .flag: there is traffic, and no direct path */
	HARD_NAT_IN_DIRECT,   /* there is a direct path */
	HARD_NAT_IN_SESSION,  /* the peer was restarted: it knows nothing of what was */
	HARD_NAT_IN_REFUSED,  /* the sockets of HARD_NAT_DO_OPEN could not be opened */
	HARD_NAT_IN_DEADLINE, /* deadline_ns has passed (earlier is harmless) */
	HARD_NAT_N_INPUTS,
};

struct hard_nat_input {
	enum hard_nat_input_type type;
	uint64_t now_ns; /* common/clock.h; never 0, never goes back */
	struct hard_nat_facts facts;
	bool flag;
};

enum hard_nat_action_type {
	HARD_NAT_DO_TELL,  /* the peer our facts, and that we have begun */
	HARD_NAT_DO_OPEN,  /* .n sockets */
	HARD_NAT_DO_KNOCK, /* socket .n sends something small to .to */
	HARD_NAT_DO_PING,  /* the socket that carries packets sends a ping to .to */
	HARD_NAT_DO_CLOSE, /* all sockets, but one that carries the path by now */
};

struct hard_nat_action {
	enum hard_nat_action_type type;
	uint32_t n;
	struct endpoint to;
};

struct hard_nat_actions {
	uint32_t n;
	struct hard_nat_action all[HARD_NAT_MAX_ACTIONS];
};

/* Owned by the caller; a plain value. Read it, change it only by hard_nat_fsm_step(). */
struct hard_nat_fsm {
	enum hard_nat_state state;
	uint64_t deadline_ns; /* step with HARD_NAT_IN_DEADLINE then; 0: none */
	uint64_t next_ns, end_ns;
	bool is_wanted;
	struct hard_nat_facts ours, theirs;
	uint64_t theirs_ns, they_begin_ns; /* when they were heard, and that they begin; 0: never, or no longer of use */
	struct hard_nat_plan plan;
	uint32_t n_sent;	    /* knocks, or pings */
	uint32_t n_tells;	    /* of an easy side that begins, so far */
	bool is_heard;		    /* the hard side has said that it begins, too */
	struct hard_nat_turn *turn; /* borrowed */
	uint64_t turn_ns;	    /* until when we took it */
	struct endpoint our_network, their_network; /* outside, as last known */
	bool is_spent;		   /* the search that this pair of networks is worth */
	uint32_t n_begun, n_tried; /* searches, and attempts of an easy side to be heard, within HARD_NAT_RENEWED_NS */
	uint64_t begun_ns;	   /* the last of either */
	uint64_t random;
	void (*trace)(void *arg, const char *line); /* may be NULL */
	void *trace_arg;
};

/* Another mapping for each destination, and a strict filter. */
bool hard_nat_is_hard(const struct hard_nat_facts *facts);
/* Pure: HARD_NAT_NOTHING where no search is needed, or none can succeed. */
struct hard_nat_plan hard_nat_plan(const struct hard_nat_facts *ours, const struct hard_nat_facts *theirs,
				   uint64_t random);
uint16_t hard_nat_port(const struct hard_nat_plan *plan, uint32_t i);

/* turn: of the node; it lives longer than the machine. */
void hard_nat_fsm_init(struct hard_nat_fsm *fsm, struct hard_nat_turn *turn, uint64_t seed);
void hard_nat_fsm_step(struct hard_nat_fsm *fsm, const struct hard_nat_input *in, struct hard_nat_actions *ret);
/* When a hard side should tell the easy one, which then begins; UINT64_MAX: not at all. While another one has the turn: when to look again. */
uint64_t hard_nat_fsm_tell_at(const struct hard_nat_fsm *fsm, uint64_t now_ns);
/* It has told it: until that begins, or does not, nobody else does. Two easy sides would search at once, one of them in vain. */
void hard_nat_fsm_told(struct hard_nat_fsm *fsm, uint64_t now_ns);
const char *hard_nat_state_name(enum hard_nat_state state);
