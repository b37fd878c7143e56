/*
 * Which relay is our home, and which others do we keep a connection to?
 *
 *        relays          answer, up, sole          better
 *  NONE ─────────► CHOOSING ────────────► SETTLED ─────────► COMPARING ──┐ better
 *   ▲ │                         answer ┌─►│  ▲ ▲ ▲            │ │ │ ▲    │
 *   │ └──────── sole ─────────► SETTLED└──┘  │ │ └── equal ───┘ │ │ └────┘
 *   │                                        │ └──── proven ────┘ │
 *   │ no relays      SETTLED, COMPARING ─ lost (home moves)       │
 *   │ (from any)                             │                    │
 *   └─                 STRANDED ── up, lost ─┘                    │
 *                          ▲───────── stranded ──── SETTLED, COMPARING
 *
 * The home relay is the one where others find us. It is the nearest by measured latency, with hysteresis:
 * another must be 10 ms and 20 % nearer in three rounds running, and home moves at most once in 5 min,
 * unless it is dead: then it moves at once. A challenger is held, and home moves only when it is up: a drained relay
 * answers STUN and takes nobody. Other relays are held while we send through them, and dropped
 * after 60 s without use; a former home is one of these. A first choice made without any measurement is a
 * guess, which a clearly nearer relay corrects at once while the first round lasts.
 *
 * Pure: an input goes in; the new state and the actions to carry out come out.
 */
#pragma once

#include "common/map.h"

#include <stdbool.h>
#include <stdint.h>

#define HOME_MAX_HELD	  16 /* relays with a connection, home included; more only while they are all in use */
#define HOME_BUSY_MS	  10000 /* a relay is in use so long after it was used */
#define HOME_MAX_ORDERS	  (MAP_MAX_RELAYS + 1)
#define HOME_WINDOW	  5 /* rounds whose best latency counts */
#define HOME_ROUND_MS	  20000
#define HOME_CHOOSE_MS	  150	 /* how long the first choice waits for a measurement */
#define HOME_IDLE_MS	  60000	 /* an unused relay is dropped after that */
#define HOME_KEEP_MS	  300000 /* home moves for latency no sooner after the last move */
#define HOME_DOWN_MS	  60000	 /* a relay that failed is not chosen for so long, unless it comes up */
#define HOME_N_ROUNDS	  3
#define HOME_BETTER_US	  10000
#define HOME_BETTER_RATIO 80 /* per cent of home's latency, or less */

enum home_state {
	HOME_NONE,	/* no relay known */
	HOME_CHOOSING,	/* several known, none measured */
	HOME_SETTLED,
	HOME_COMPARING, /* another was clearly nearer in the last round or two */
	HOME_STRANDED,	/* home is dead and so are all others: we keep trying home */
	HOME_N_STATES,
};

/* What the owner tells. */
enum home_input_type {
	HOME_IN_RELAYS,	  /* the relays of the map, all of them; see .relays */
	HOME_IN_LATENCY,  /* a relay answered: STUN, or a ping of its connection */
	HOME_IN_UP,	  /* the connection to a relay is ready; maybe one of an earlier life, which we then hold */
	HOME_IN_DOWN,	  /* it was lost, or could not be made */
	HOME_IN_USED,	  /* we want to send through that relay, or just did */
	HOME_IN_DEADLINE, /* the deadline we asked for has passed */
};

struct home_input {
	enum home_input_type type;
	uint64_t now_ms;
	uint32_t relay_id; /* latency, up, down, used */
	uint32_t rtt_us;   /* latency */
	struct {
		uint32_t n;
		const uint32_t *ids;
	} relays;
};

/* What an input means for home: the arrows of the drawing. */
enum home_event {
	HOME_EV_NOTHING,
	HOME_EV_RELAYS,	  /* there are relays to choose from */
	HOME_EV_SOLE,	  /* there is exactly one */
	HOME_EV_ANSWER,	  /* a relay was measured (and a guess was wrong), or we have waited long enough */
	HOME_EV_BETTER,	  /* a round ended, in which another was clearly nearer */
	HOME_EV_PROVEN,	  /* … for the third time, and home has not moved for a while */
	HOME_EV_EQUAL,	  /* … in which none was */
	HOME_EV_LOST,	  /* home is dead or gone from the map, and another may be alive */
	HOME_EV_STRANDED, /* home is dead, and so are all others */
	HOME_EV_UP,	  /* a relay is connected */
	HOME_EV_NO_RELAYS,
	HOME_EV_N_TYPES,
};

struct home_order {
	uint32_t relay_id;
	bool hold; /* else drop */
};

struct home_actions {
	bool home_changed;
	uint32_t home; /* the id in force, 0: none */
	uint32_t n_orders;
	struct home_order orders[HOME_MAX_ORDERS]; /* carry out in this order */
};

struct home_relay {
	uint32_t id;
	uint32_t best_us[HOME_WINDOW]; /* of the round at hand first; 0: no answer */
	uint64_t down_until_ms;	       /* 0: not known to be down */
	uint64_t used_ms;
	bool is_held, is_up;
};

struct home_fsm {
	enum home_state state;
	uint32_t home;	      /* 0: none */
	uint32_t challenger;  /* in COMPARING */
	uint32_t n_better;    /* rounds it won */
	uint64_t moved_ms;    /* when home moved for latency, or was first chosen */
	bool has_moved;	      /* moved for latency: moved_ms binds */
	bool is_guess;	      /* home was not measured when it was chosen, and this is the first round */
	uint64_t round_ms;    /* end of the round at hand; 0: no relays */
	uint64_t choose_ms;   /* end of CHOOSING; 0 elsewhere */
	uint64_t deadline_ms; /* 0: none; the earliest of all that we wait for */
	uint32_t n_relays;
	struct home_relay relays[MAP_MAX_RELAYS];
	void (*trace)(void *arg, const char *line); /* may be NULL */
	void *trace_arg;
};

void home_fsm_init(struct home_fsm *fsm);
void home_fsm_step(struct home_fsm *fsm, const struct home_input *input, struct home_actions *out);
const char *home_state_name(enum home_state state);
const char *home_event_name(enum home_event event);
/* The best latency of the window, 0: not measured. */
uint32_t home_fsm_latency_us(const struct home_fsm *fsm, uint32_t relay_id);

/* All relays, nearest first; ret has room for MAP_MAX_RELAYS. Returns how many. */
uint32_t home_fsm_rank(const struct home_fsm *fsm, uint64_t now_ms, uint32_t *ret);

/* The table, for the test that compares it with docs/fsm/home_fsm.dot. HOME_N_STATES: from any. */
struct home_arrow {
	enum home_state from;
	enum home_event on;
	enum home_state to;
	const char *deed;
	void (*act)(struct home_fsm *fsm, uint64_t now_ms, struct home_actions *out);
};
const struct home_arrow *home_fsm_arrows(uint32_t *ret_n);
