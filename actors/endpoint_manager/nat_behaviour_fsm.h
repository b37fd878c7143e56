/*
 * What does the NAT before us do? Finds it in RFC 4787's words, by questions as those of RFC 5780.
 *
 *            news, wanted, due     opened           some answered         all heard, or time over
 *   RESTING ──────────────► OPENING ──────► FINDING ──────────────► MAPPING ──────► KNOCKING ──────► COUNTING
 *      ▲                                       │                       │ no answer                      │
 *      └───────────────────────────────────────┴───────────────────────┴───────────── told ◄────────────┘
 *
 *   FINDING   socket 1 asks up to 4 STUN servers at different addresses. A: one that has a second port (else
 *             any); B: one at another address.
 *   MAPPING   socket 1 asks A's second port. Three outside addresses, of A, A' and B, tell how it maps.
 *             Socket 0 asks A alone, and thereby is somebody whom A, and nobody else, may answer.
 *   KNOCKING  A answers socket 0 from its second port (CHANGE-REQUEST); B sends socket 0 what socket 1 asked
 *             for (RESPONSE-PORT). What arrives tells whom it lets in. That nothing arrives says something
 *             only where the same server answers when it is asked plainly. Both sockets also send to the
 *             outside address of either: does the NAT carry it back in (hairpin)?
 *   COUNTING  the other sockets ask A (if each remote has a mapping of its own, A' and B as well), one right
 *             after the other: do ports follow in steps, or at random?
 *
 * Sockets of its own are used, and closed after each run: of the one that carries packets the NAT already lets
 * in whomever it was sent to. A run has about 20 datagrams; it takes place at the beginning, when our addresses
 * change, twice a day, and when somebody wants to know; while mapping or filtering are not known after 10 s, 20 s, 40 s …
 * again. IPv4 only: nobody sees IPv6 from outside differently.
 *
 * Believed is an answer only with its question's random id, to the socket that is to hear it, and from the
 * address and port that is to give it.
 *
 * One machine a node, owned by EndpointManager. Pure: no I/O, no clock, no allocation, no STUN bytes.
 */
#pragma once

#include "common/endpoint.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NAT_BEHAVIOUR_SOCKETS	    6
#define NAT_BEHAVIOUR_MAX_SERVERS   16
#define NAT_BEHAVIOUR_MAX_ASKED	    4 /* of them in a run */
#define NAT_BEHAVIOUR_MAX_ADDRESSES 16
#define NAT_BEHAVIOUR_TX_ID_LEN	    12
#define NAT_BEHAVIOUR_MAX_QUESTIONS (NAT_BEHAVIOUR_MAX_ASKED + 2 + 5 + 3 * (NAT_BEHAVIOUR_SOCKETS - 2))
#define NAT_BEHAVIOUR_MAX_ACTIONS   (NAT_BEHAVIOUR_MAX_QUESTIONS + 2)

/* ---- what is found ---- */

/* On what of the remote's ip:port something depends. */
enum nat_dependence {
	NAT_DEPENDS_UNKNOWN,
	NAT_DEPENDS_NO_NAT, /* of a mapping: there is none */
	NAT_DEPENDS_NOT,    /* endpoint-independent: EIM, EIF */
	NAT_DEPENDS_ADDRESS, /* ADM, ADF */
	NAT_DEPENDS_PORT,    /* address-and-port-dependent: APDM, APDF */
	NAT_N_DEPENDENCES,
};

/* Why something is not known. */
enum nat_unknown {
	NAT_UNKNOWN_NOT,	 /* it is known */
	NAT_UNKNOWN_NOT_YET,	 /* being measured, or about to be */
	NAT_UNKNOWN_NO_SERVER,	 /* the network has no public node to ask, or we have no IPv4 address */
	NAT_UNKNOWN_NO_ANSWER,	 /* no public node answers, or not from where it says it does */
	NAT_UNKNOWN_ONE_PORT,	 /* needs a public node that answers at a second port */
	NAT_UNKNOWN_ONE_ADDRESS, /* needs a second public node */
	NAT_UNKNOWN_POOL,	 /* the NAT has several public addresses, and took another one each time */
	NAT_UNKNOWN_HIDDEN,	 /* its filter would drop it in either case */
	NAT_UNKNOWN_NO_NAT,	 /* has no meaning without a NAT */
	NAT_UNKNOWN_NO_SOCKET,	 /* the system refused to open one */
	NAT_N_UNKNOWNS,
};

enum nat_ports_kind {
	NAT_PORTS_UNKNOWN,
	NAT_PORTS_SAME,	      /* that of the socket, always as far as was seen */
	NAT_PORTS_IN_STEPS,   /* where not the same: the one before, plus step */
	NAT_PORTS_ANY,	      /* where not the same: at random */
	NAT_N_PORTS_KINDS,
};

struct nat_findings {
	uint64_t at_ns; /* when they were found; 0: never */
	enum nat_dependence mapping, filtering;
	enum nat_unknown mapping_unknown, filtering_unknown;
	/*
	 * Of meaning where known: from the outside address, as RFC 4787 wants it (REQ-9). What would come from the
	 * inside one is our own, and our system does not take it.
	 */
	bool hairpin;
	enum nat_unknown hairpin_unknown;
	bool preserves_port; /* a socket's first port outside is the one inside; of meaning where ports are known */
	enum nat_ports_kind ports;
	enum nat_unknown ports_unknown;
	int32_t step;		   /* of IN_STEPS */
	uint16_t low_port, high_port, last_port; /* seen, where not the same; 0: none */
	uint32_t n_ports;	      /* of these */
	struct endpoint outside;      /* our public address, port 0; none: not known */
};

/* ---- the machine ---- */

enum nat_behaviour_state {
	NAT_BEHAVIOUR_RESTING,
	NAT_BEHAVIOUR_OPENING,
	NAT_BEHAVIOUR_FINDING,
	NAT_BEHAVIOUR_MAPPING,
	NAT_BEHAVIOUR_KNOCKING,
	NAT_BEHAVIOUR_COUNTING,
	NAT_BEHAVIOUR_N_STATES,
};

enum nat_question_kind {
	NAT_ASK_PLAIN,
	NAT_ASK_OTHER_PORT, /* CHANGE-REQUEST: answer from your other port */
	NAT_ASK_TO_PORT,    /* RESPONSE-PORT: answer to .port of my address */
	NAT_ASK_OURSELVES,  /* sent to an outside address of ours: the question itself is to arrive */
};

enum nat_behaviour_input_type {
	NAT_BEHAVIOUR_IN_SERVERS,   /* .endpoints, .n: one a address, IPv6 is left out */
	NAT_BEHAVIOUR_IN_LOCAL,	    /* .endpoints, .n: addresses of our interfaces; ports do not matter */
	NAT_BEHAVIOUR_IN_SEEN,	    /* … and those that are seen outside: another one is another network */
	NAT_BEHAVIOUR_IN_WANTED,    /* somebody asks: measure now, unless it is being done */
	NAT_BEHAVIOUR_IN_OPENED,    /* .ports of the sockets; n 0: they could not be opened */
	NAT_BEHAVIOUR_IN_ANSWER,    /* .socket, .from, .tx_id, .mapped, .other (none: not told) */
	NAT_BEHAVIOUR_IN_REFUSAL,   /* .socket, .from, .tx_id: the server does not do this */
	NAT_BEHAVIOUR_IN_QUESTION,  /* .socket, .from, .tx_id: a question arrived, maybe our own */
	NAT_BEHAVIOUR_IN_DEADLINE,  /* deadline_ns has passed (earlier is harmless) */
	NAT_BEHAVIOUR_N_INPUTS,
};

/* Arrays are borrowed for the call; what is above a limit is left out. */
struct nat_behaviour_input {
	enum nat_behaviour_input_type type;
	uint64_t now_ns; /* common/clock.h; never 0, never goes back */
	const struct endpoint *endpoints;
	uint32_t n;
	uint16_t ports[NAT_BEHAVIOUR_SOCKETS];
	uint32_t socket;
	struct endpoint from, mapped, other;
	uint8_t tx_id[NAT_BEHAVIOUR_TX_ID_LEN];
};

enum nat_behaviour_action_type {
	NAT_BEHAVIOUR_DO_OPEN,	/* NAT_BEHAVIOUR_SOCKETS sockets, then step with IN_OPENED */
	NAT_BEHAVIOUR_DO_ASK,	/* .socket sends a question of this .kind with .tx_id to .to */
	NAT_BEHAVIOUR_DO_CLOSE,
	NAT_BEHAVIOUR_DO_TELL, /* fsm->findings are new */
};

struct nat_behaviour_action {
	enum nat_behaviour_action_type type;
	enum nat_question_kind kind;
	uint32_t socket;
	uint16_t port;
	struct endpoint to;
	uint8_t tx_id[NAT_BEHAVIOUR_TX_ID_LEN];
};

struct nat_behaviour_actions {
	uint32_t n;
	struct nat_behaviour_action all[NAT_BEHAVIOUR_MAX_ACTIONS];
};

struct nat_question {
	enum nat_question_kind kind;
	uint32_t asker, hearer; /* sockets */
	uint16_t port;		/* of TO_PORT */
	struct endpoint to;
	struct endpoint from; /* whom the answer comes from; none: anybody */
	uint8_t tx_id[NAT_BEHAVIOUR_TX_ID_LEN];
	bool is_heard, is_refused;
	struct endpoint mapped, other;
};

/* Owned by the caller; a plain value. Read it, change it only by nat_behaviour_fsm_step(). */
struct nat_behaviour_fsm {
	enum nat_behaviour_state state;
	uint64_t deadline_ns; /* step with NAT_BEHAVIOUR_IN_DEADLINE then; 0: none */
	uint64_t due_ns;      /* RESTING: the next run; 0: none */
	uint64_t begun_ns;    /* the last run; 0: never */
	uint32_t n_vague;     /* runs in a row that did not tell how it maps, or whom it lets in */
	uint64_t stage_ns;    /* when the questions of this state were first asked */
	uint32_t n_sent;      /* how often, since */
	uint64_t random;
	uint32_t n_servers, n_local, n_seen;
	struct endpoint servers[NAT_BEHAVIOUR_MAX_SERVERS];
	struct endpoint local[NAT_BEHAVIOUR_MAX_ADDRESSES], seen[NAT_BEHAVIOUR_MAX_ADDRESSES];
	uint16_t ports[NAT_BEHAVIOUR_SOCKETS];
	uint32_t n_questions, first_open; /* of this run; those of this state begin with first_open */
	struct nat_question questions[NAT_BEHAVIOUR_MAX_QUESTIONS];
	int of_a, of_a2, of_b;	  /* the questions of socket 1 that A, its second port and B were asked; -1: none */
	int of_0;		  /* … of socket 0 to A */
	int by_port, by_address;  /* what is knocked with: from A's second port, from B */
	int hairpin, n_hairpin;	  /* the questions to ourselves: the first, and how many */
	struct nat_findings findings;
	void (*trace)(void *arg, const char *line); /* may be NULL */
	void *trace_arg;
};

/* seed: secret and random; ids are made from it. */
void nat_behaviour_fsm_init(struct nat_behaviour_fsm *fsm, uint64_t seed);
void nat_behaviour_fsm_step(struct nat_behaviour_fsm *fsm, const struct nat_behaviour_input *in,
			    struct nat_behaviour_actions *ret);
/* A run is under way or begins at once. */
bool nat_behaviour_fsm_is_busy(const struct nat_behaviour_fsm *fsm);

const char *nat_behaviour_state_name(enum nat_behaviour_state state);
