/*
 * Where can others reach us? Asks STUN servers, collects the answers, says when the set changed.
 *
 *           servers, link up                 all answered, or given up
 *   OFFLINE ────────────────► ASKING ─────────────────────────────────► SETTLED
 *      ▲                        ▲  └─ retransmit at 0, 200, 400, 800 ms    │
 *      │ no link, no server     └──── refresh due (≤ 25 s,  ───────────────┘
 *      │                              ≤ 5 min if kept, or deaf), link or keeper changed
 *      └──────────────────────── (from any state)
 *
 * One machine a node, owned by EndpointManager. Pure: no I/O, no clock, no allocation, no STUN
 * bytes: the shell encodes a request for .server with .tx_id, sends it from the same UDP socket
 * that carries packets, and feeds the answer. A server is an ip:port; the two STUN ports of one
 * relay are two servers with one relay_id, so that two mappings of one address can be compared.
 * Our local addresses are published in every state, OFFLINE as well.
 *
 * One keep-alive of all kinds for a socket is enough: while its home relay is pinged by UDP from the same socket, and
 * would tell that our address is another, a node need not ask for the mapping's sake. Pings over IPv6 keep nothing of
 * an IPv4 NAT, and who was bound a moment ago keeps nothing at all: then the next round is 20 s away at most, as ever. Who
 * hears nobody has no mapping to keep: after three silent rounds the pause doubles, up to 5 min.
 *
 * A NAT that has forgotten the mapping when a round is due, twice in a row, forgets sooner than most: it is asked twice as
 * often, every 5 s at most, until the link changes. Once may be a NAT that was restarted.
 */
#pragma once

#include "common/endpoint.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ENDPOINT_MAX_SERVERS 16
#define ENDPOINT_MAX_LOCAL   10
#define ENDPOINT_MAX_EXTRA   4	/* port mappings and the like, given by the shell */
#define ENDPOINT_MAX_OURS    16 /* what is published: as MAP_MAX_ENDPOINTS */
#define ENDPOINT_MAX_ACTIONS (ENDPOINT_MAX_SERVERS + 2)
#define ENDPOINT_TX_ID_LEN   12

enum endpoint_state {
	ENDPOINT_OFFLINE,
	ENDPOINT_ASKING,
	ENDPOINT_SETTLED,
	ENDPOINT_N_STATES,
};

/* How the NAT in front of us maps, as far as the answers tell (IPv4). RFC 4787 section 4.1. */
enum endpoint_mapping {
	ENDPOINT_MAPPING_UNKNOWN,     /* fewer than two addresses answered */
	ENDPOINT_MAPPING_NONE,	      /* the mapped address is a local one: no NAT */
	ENDPOINT_MAPPING_INDEPENDENT, /* servers at two addresses or more all saw the same ip:port */
	ENDPOINT_MAPPING_ADDRESS,     /* the same for two ports of one address, not for two addresses */
	ENDPOINT_MAPPING_DEPENDENT,   /* another for another port of the same address, or unknown which */
	ENDPOINT_N_MAPPINGS,
};

struct endpoint_server {
	uint32_t relay_id;
	struct endpoint endpoint;
};

enum endpoint_input_type {
	ENDPOINT_IN_SERVERS,  /* the map's relays; .servers, .n */
	ENDPOINT_IN_LOCAL,    /* addresses of our interfaces with our UDP port; .endpoints, .n */
	ENDPOINT_IN_EXTRA,    /* other ways in, e.g. a port mapping; .endpoints, .n */
	ENDPOINT_IN_LINK,     /* interfaces, routes or the socket changed: ask again now, believe nothing of before */
	ENDPOINT_IN_KEEPER,   /* the keeper was lost, found anew, or is another, or somebody was reached: ask again now, believe what we know */
	ENDPOINT_IN_ANSWER,   /* a STUN success; .from (source address), .tx_id, .mapped */
	ENDPOINT_IN_DEADLINE, /* deadline_ns has passed (earlier is harmless) */
	ENDPOINT_N_INPUTS,
};

/* Arrays are borrowed for the call; what is above a limit is left out. */
struct endpoint_input {
	enum endpoint_input_type type;
	uint64_t now_ns; /* common/clock.h; never 0, never goes back */
	const struct endpoint_server *servers;
	const struct endpoint *endpoints;
	uint32_t n;
	struct endpoint from, mapped;
	uint8_t tx_id[ENDPOINT_TX_ID_LEN];
	struct endpoint keeper; /* of every input: who is pinged by the same socket, and tells of changes; none: nobody */
};

enum endpoint_action_type {
	ENDPOINT_DO_ASK,     /* a Binding request to .server with .tx_id */
	ENDPOINT_DO_PUBLISH, /* fsm->ours changed: tell control and TrafficManager */
};

struct endpoint_action {
	enum endpoint_action_type type;
	struct endpoint server;
	uint8_t tx_id[ENDPOINT_TX_ID_LEN];
};

struct endpoint_actions {
	uint32_t n;
	struct endpoint_action all[ENDPOINT_MAX_ACTIONS];
};

/* What we know of one server. */
struct endpoint_asked {
	struct endpoint_server server;
	uint8_t tx_id[ENDPOINT_TX_ID_LEN]; /* of this round; retransmissions repeat it */
	uint32_t n_sent;		   /* in this round */
	bool answered;			   /* in this round */
	uint64_t first_ns;		   /* of this round: the first request */
	uint64_t answer_ns;		   /* last answer ever, 0: never */
	uint32_t n_missed;		   /* rounds in a row without an answer */
	uint32_t latency_us;		   /* round trip: falls at once, rises slowly; 0: unknown */
	struct endpoint mapped;		   /* of the last answer; none: no (longer) known */
};

/* Owned by the caller; a plain value. Read it, change it only by endpoint_fsm_step(). */
struct endpoint_fsm {
	enum endpoint_state state;
	uint64_t deadline_ns; /* step with ENDPOINT_IN_DEADLINE then; 0: none */
	uint64_t round_ns;    /* ASKING: when it began */
	uint64_t refresh_ns;  /* SETTLED: next round */
	uint64_t keep_ns;     /* the pause in which this NAT forgets nothing */
	uint32_t n_forgotten; /* rounds in a row after which it had, in spite of that */
	bool is_test;	      /* of keep_ns is the round at hand, or the next */
	bool has_forgotten;   /* … and an answer was another one than before */
	uint64_t publish_ns;  /* last publication, 0: never */
	uint64_t random;
	uint32_t n_servers, n_local, n_extra, n_ours;
	struct endpoint_asked servers[ENDPOINT_MAX_SERVERS];
	struct endpoint local[ENDPOINT_MAX_LOCAL];
	struct endpoint extra[ENDPOINT_MAX_EXTRA];
	struct endpoint ours[ENDPOINT_MAX_OURS]; /* local first, then mapped, then extra; no doubles */
	enum endpoint_mapping mapping;
	void (*trace)(void *arg, const char *line); /* may be NULL */
	void *trace_arg;
};

void endpoint_fsm_init(struct endpoint_fsm *fsm, uint64_t seed);
void endpoint_fsm_step(struct endpoint_fsm *fsm, const struct endpoint_input *input,
		       struct endpoint_actions *ret);

const char *endpoint_state_name(enum endpoint_state state);
const char *endpoint_mapping_name(enum endpoint_mapping mapping);
/* A server that has not answered lately, or never: 0. By relay: the better of its ports. */
uint32_t endpoint_fsm_latency_us(const struct endpoint_fsm *fsm, uint32_t relay_id);
