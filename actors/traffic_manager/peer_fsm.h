/*
 * The peer state machine: how do packets to one peer travel, and what is done to make that better?
 *
 *      info               traffic                     retry due
 *  [*] ────► WAITING FOR ────► INACTIVE ────► TRYING ──────────┐
 *              INFO          ▲  │    ▲          ▲ │            │
 *                            │  │    └── idle ──┼─┘            │
 *                            │  │ rendezvous    │              │
 *                            │  │ (from TRYING  │ timed out    │
 *                            │  │  as well)     │ (10 s)       │
 *     ┌ ESTABLISHING ────────┼──┼───────────────┴──────────────┼──────────────────────────┐
 *     │                      │  ▼                              ▼                          │
 *     │                      │ RENDEZVOUS GOT (t)          PRE-TRANSMIT (t)               │
 *     │                      │  │       ▲ rendezvous           │ pings and rendezvous     │
 *     │                      │  │ pings └──────────────────┐   ▼                          │
 *     │                      │  ▼                          └─ TRANSMITTING                │
 *     │                      │ RENDEZVOUS ACKNOWLEDGED        │    │                      │
 *     │                      │  │    │ ping                    │    │                      │
 *     │                      │  │    └──► HALF-ESTABLISHING (t) ◄───┘ ping                │
 *     │                      │  │                 │ pong and ping                         │
 *     │                      │  │ pong            ▼                 │ pong                │
 *     │                      │  │          HALF-ESTABLISHED         │                     │
 *     │                      │  │                 │ pong            │                     │
 *     │                      │  └────────► FINALIZING (t) ◄─────────┘                     │
 *     └──────────────────────┼───────────────────┬────────────────────────────────────────┘
 *                   unwanted │                   ▼
 *          TEARDOWN (t) ─────┘               BOOTING (t)
 *            ▲     └───── wanted ──► TRYING      │ path and AKA set
 *            │                                   ▼
 *            └──── lost, or unused for 60 s ── ESTABLISHED ◄─┐ ping > pong, pings, survey,
 *                                                └───────────┘ rendezvous, doubt
 *
 * (t) is transient: passed through within one step; the trace shows it. "removed" and "reset" lead
 * from any state to WAITING FOR INFO. The complete table is drawn in docs/fsm/peer_fsm.dot.
 *
 * One machine a peer, owned by TrafficManager. Pure: no I/O, no clock, no allocation. An input goes
 * in; the actions to carry out, in order, come out. Packets never wait for it: until a direct path
 * is proven they go by relay, and whenever the direct path is in doubt they go both ways.
 *
 * Path trust (of ESTABLISHED)
 *   trusted   authenticated data or a pong came lately: packets go direct only
 *   probed    data goes out and nothing came back for a moment: a ping asks
 *   suspect   the probe stayed unanswered: pings every 50 ms, packets go direct *and* by relay
 *   lost      so many unanswered in a row are not chance: another way that answered meanwhile, if there is one;
 *             else TEARDOWN, packets by relay, TRYING at once
 *   Where something changed (an address, a session, the interface refuses) the first way that answers is taken at once.
 *
 * Receipts (of ESTABLISHED, under traffic)
 *   What lets pings pass need not let data pass. With each ping under traffic, and each pong to an
 *   address that answered lately, goes a receipt: how old is the last data that came directly. When data
 *   that we sent should have come and did not, packets go direct *and* by relay, and pings every 100 ms
 *   ask for receipts; when none tells of data, the address is closed to data for a while: another way
 *   carries it. A peer that sends no receipts is trusted as before.
 *   Of two copies the peer notices the first, and that may be the relay's. So in this doubt a little data (0.2 s
 *   of it, or one packet where there are few) goes by the direct way alone, and only that counts against it.
 *
 * Loss (of ESTABLISHED, under traffic)
 *   Pings are few where data is liveness. So while data goes out without a pause, one a second goes with it; when two of
 *   the last eight are lost there is a closer look: 128 pings, ten a second, as many to the relay, and a survey
 *   each second. What changes nothing is not looked at so again for a minute, then two, four … ten, as long as something is
 *   lost: who looks often enough sees whatever chance can show. How sure one must be is in peer_choice.c.
 *   A look that a pause or load has cut short goes on when data flows again; of another way nothing was seen yet.
 *
 * Load (bulk traffic with the peer, by whatever way)
 *   Our own packets fill the queues that our pings wait in. What a ping suffers then is no reason to
 *   leave a direct path: a long round trip and a lost ping do not count in the choice of the best
 *   way, a probe is repeated and waited for longer, and the longer while authenticated data comes.
 */
#pragma once

#include "actors/path.h"
#include "actors/traffic_manager/candidates.h"
#include "common/endpoint.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PEER_MAX_ACTIONS 192
#define PEER_TX_ID_LEN	 12
#define PEER_NO_RECEIPT	 UINT32_MAX
/* Looks with data, so many, tell whether a receipt should have told of it. */
#define PEER_N_LOOKS	 16

enum peer_state {
	PEER_WAITING_FOR_INFO,
	PEER_INACTIVE,
	PEER_TRYING,
	/* Establishing */
	PEER_PRE_TRANSMIT, /* transient */
	PEER_TRANSMITTING,
	PEER_RENDEZVOUS_GOT, /* transient */
	PEER_RENDEZVOUS_ACKNOWLEDGED,
	PEER_HALF_ESTABLISHING, /* transient */
	PEER_HALF_ESTABLISHED,
	PEER_FINALIZING, /* transient */
	/* */
	PEER_BOOTING, /* transient */
	PEER_ESTABLISHED,
	PEER_TEARDOWN, /* transient */
	PEER_N_STATES,
};

enum peer_trust {
	PEER_TRUSTED,
	PEER_PROBED,
	PEER_SUSPECT,
};

/* Echoed in the pong; opaque to the other side. */
struct peer_tx_id {
	uint8_t bytes[PEER_TX_ID_LEN];
};

/* ---- inputs: what the shell tells -------------------------------------------------------- */

enum peer_input_type {
	PEER_IN_INFO,	       /* the map's record of the peer, at start and whenever it changed */
	PEER_IN_REMOVED,       /* the peer left the map; then free the machine */
	PEER_IN_TRAFFIC,       /* first data packet, in or out, after a pause */
	PEER_IN_IDLE,	       /* no data packet either way for the activity window (10 s) */
	PEER_IN_PING,	       /* session messages, opened and decoded; .from */
	PEER_IN_PONG,	       /* .from, .tx_id and .by_turn */
	PEER_IN_RENDEZVOUS,    /* .endpoints */
	PEER_IN_OUR_ENDPOINTS, /* our own set changed; .n_endpoints (how many there are now) */
	PEER_IN_DATA_RECEIVED, /* WireGuard authenticated a packet of the peer; .from */
	PEER_IN_DATA_SENT,     /* a data packet went out to the peer on its current path */
	PEER_IN_SEND_FAILED,   /* sending to .from.endpoint failed: ICMP error, EHOSTUNREACH, EMSGSIZE … */
	PEER_IN_RELAY,	       /* .relay_up: can we reach the peer's home relay now? */
	PEER_IN_ADOPT,	       /* .from.endpoint worked under the previous Session: keep it, in doubt */
	PEER_IN_DEADLINE,      /* deadline_ns has passed (earlier is harmless) */
	PEER_IN_RESET,	       /* the stage stops */
	PEER_IN_RECEIPT,       /* .from and .age_ms: of the last data of ours that came to the peer directly */
	PEER_N_INPUTS,
};

/* Where a message came from, or goes to. */
struct peer_source {
	bool by_relay;
	uint32_t relay_id;	  /* if by relay; 0: whichever goes to the peer */
	struct endpoint endpoint; /* if not by relay */
};

/*
 * Only the members named at the type are read. endpoints is borrowed for the call.
 * DATA_RECEIVED and DATA_SENT are summaries: one a source for everything since the last look, at
 * most every ~50 ms while packets flow; feed them before a DEADLINE of the same moment.
 */
struct peer_input {
	enum peer_input_type type;
	uint64_t now_ns; /* common/clock.h; never 0, never goes back */

	uint64_t session;	    /* INFO: id of the peer's session key; 0: has none yet */
	const struct endpoint *endpoints; /* INFO: at most 16 are used; RENDEZVOUS: at most 32 */
	uint32_t n_endpoints;
	struct peer_source from;
	struct peer_tx_id tx_id; /* PING and PONG */
	uint64_t n_bytes; /* DATA_RECEIVED and DATA_SENT: how much since the last look, by any way */
	uint32_t age_ms; /* RECEIPT; PEER_NO_RECEIPT: none lately */
	bool by_turn; /* PONG: the ping reached the peer by its TURN server */
	bool relay_up;
	bool too_big; /* SEND_FAILED: EMSGSIZE; small packets may still pass */
};

/* ---- actions: what the shell does, in this order ------------------------------------------ */

enum peer_action_type {
	PEER_DO_SEND_PING,	 /* .to, .tx_id */
	PEER_DO_SEND_PONG,	 /* .to, .tx_id; observed endpoint = where the ping came from = .to */
	PEER_DO_SEND_RECEIPT,	 /* .to, .age_ms */
	PEER_DO_SEND_RENDEZVOUS, /* by relay, with our current endpoints */
	PEER_DO_ADD_AKA,	 /* .to.endpoint means this peer */
	PEER_DO_REMOVE_AKA,	 /* no longer */
	PEER_DO_SET_PATH,	 /* .path replaces the previous one, at once and for every packet */
};

struct peer_action {
	enum peer_action_type type;
	struct peer_source to;
	struct peer_tx_id tx_id;
	uint32_t age_ms;
	struct peer_path path;
};

struct peer_actions {
	uint32_t n;
	struct peer_action all[PEER_MAX_ACTIONS];
};

/* ---- the machine --------------------------------------------------------------------------- */

/* Owned by the caller; a plain value, nothing to free. Read it, change it only by peer_fsm_step(). */
struct peer_fsm {
	enum peer_state state;
	uint64_t deadline_ns;  /* step with PEER_IN_DEADLINE then; 0: none */
	struct peer_path path; /* what the last SET_PATH said; before the first one: relay only */

	/* facts, kept in every state */
	uint64_t session;
	bool active; /* data packets flow */
	uint64_t loaded_ns; /* last that so much flowed that our own queue may be long, 0: never */
	bool relay_up;
	uint32_t n_ours; /* our own endpoints */
	struct peer_candidates candidates;
	struct peer_candidate relay; /* measured like the others */
	uint64_t random;
	uint8_t key[16]; /* of the check in our tx ids, new with each attempt */

	uint64_t received_ns; /* last authenticated data by any direct way, 0: never */

	/* trying */
	uint64_t retry_ns; /* 0: when there is something new */
	uint32_t n_failures;

	/* establishing */
	uint64_t attempt_ns; /* when it began */
	uint64_t give_up_ns;
	uint64_t round_ns;	/* next round of pings; a burst in ESTABLISHED as well; 0: none */
	uint32_t n_rounds;	/* of this burst, so far */
	bool extended;		/* give_up_ns was put off once, for a rendezvous */
	uint64_t rendezvous_ns; /* last sent in this attempt, 0: not yet */
	bool owes_offer;	/* another one, because our endpoints changed since */

	/* half-established and established */
	int current; /* index of the direct way's candidate, -1: none */

	/* established */
	enum peer_trust trust;
	bool needs_pong;	/* this doubt ends by a pong only: it is about our own direction */
	bool takes_any;		/* … and whichever way answers first is taken: something changed */
	uint32_t n_probes;	/* of this doubt */
	uint64_t doubt_ns;	/* the first of them */
	uint16_t usual_loss_permille; /* of the path before it */
	uint64_t probe_ns;	/* the last of them */
	uint64_t alive_ns;	/* last pong or authenticated data on the current direct way */
	uint64_t data_ns;	/* last authenticated data on it */
	uint64_t relay_data_ns; /* and by relay */
	uint64_t unanswered_ns; /* first data sent on it after alive_ns, 0: none */
	uint64_t idle_ns;	/* since when no data flows, 0: it does */
	uint64_t established_ns;
	uint64_t survey_ns;   /* next look at the other ways */
	uint32_t n_surveys;
	uint64_t looks_ns[PEER_N_LOOKS]; /* when data went by the current direct way alone, the last ones; 0: none */
	uint8_t next_look;
	uint64_t undelivered_ns; /* since when we doubt that data arrives, though pings do; 0: we do not */
	uint64_t asked_ns;	 /* last ping for that doubt */
	uint64_t alone_ns;	 /* within it: since when data goes by the direct way alone again, 0: it does not */
	uint8_t n_receipts;	 /* since then, that told of none of the data that went alone */
	uint64_t sent_ns;	 /* data last went out by the direct way */
	uint64_t watch_ns;	 /* next ping that asks for loss, while it does; 0: with the next data */
	uint8_t n_closer;	 /* pings left of a closer look at it, 0: there is none */
	uint8_t n_closer_looks;	 /* so many in a row changed nothing */
	uint64_t closer_ns;	 /* not before there is another one */
	uint64_t too_big_ns;  /* until then the relay carries as well, 0: no */
	bool prefers_relay;   /* measured better than the direct way, which is kept warm */
	bool was_lossy;	      /* … and the direct way was left for what it lost: each second it is asked whether it still does */
	int better;	      /* another way … */
	uint32_t n_better;    /* … and how many surveys in a row found it better */

	void (*trace)(void *arg, const char *line); /* may be NULL; a decision a line */
	void *trace_arg;
};

/* seed: secret, and another one for each machine. */
void peer_fsm_init(struct peer_fsm *fsm, uint64_t seed);
void peer_fsm_step(struct peer_fsm *fsm, const struct peer_input *input, struct peer_actions *ret);

const char *peer_state_name(enum peer_state state);
bool peer_state_is_transient(enum peer_state state);
/* One of the seven states within Establishing. */
bool peer_state_is_establishing(enum peer_state state);
/* Smoothed round trip of the way packets take now, 0: not measured. */
uint32_t peer_fsm_latency_us(const struct peer_fsm *fsm);

/* Is there a direct way, though packets may go by a relay that is better? */
bool peer_fsm_has_direct(const struct peer_fsm *fsm);
/* Is the direct way of packets one by a TURN server? */
bool peer_fsm_is_by_turn(const struct peer_fsm *fsm);

/* The table, for the tests that draw it and walk it. Names of events as in the trace. */
struct peer_arrow_text {
	const char *from; /* "*": any state; "establishing": its three states that wait */
	const char *on, *to, *act;
};
size_t peer_fsm_n_arrows(void);
struct peer_arrow_text peer_fsm_arrow(size_t i);
size_t peer_fsm_n_events(void);
const char *peer_fsm_event_name(size_t event);
/* The state an event leads to, or -1 if it is ignored there. */
int peer_fsm_next(enum peer_state state, size_t event);
