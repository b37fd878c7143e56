/*
 * A port that the home router forwards to us, so that others reach us without having been asked first. Three
 * ways to ask for one, tried in this order: PCP, NAT-PMP, UPnP.
 *
 *         a router            answered
 *   OFF ──────────► ASKING ──────────────► MAPPED ◄────────────── RENEWING
 *    ▲    no answer, │  ▲  ▲                 │  │  half of its life │  ▲
 *    │    refused:   │  │  └─────────────────┘  └───────────────────┼──┘
 *    │    next way   └──┘   it is over, or another router           │ refused, over
 *    │                ▲  ▲                                          │
 *    │ no router      │  └──────────────────────────────────────────┘
 *    │                │ after 10 minutes
 *    │                └──────── RESTING ◄── no way left (from ASKING)
 *    └─ from any state; after stop: REMOVING ──► OFF, and `ended` is told
 *
 * One machine a node, owned by EndpointManager. Pure: no I/O, no clock, no allocation. The shell sends what it
 * is told to the router from one UDP socket (not that of the packets: the router would count it as a mapping of
 * its own) and feeds what comes back, whoever it is from; UPnP it carries out itself and tells how it went.
 *
 * Believed is only what comes from the router's address and port and answers the request under way; PCP proves
 * it with a nonce besides. A router that tells everybody that it has begun anew is asked again at once.
 */
#pragma once

#include "common/endpoint.h"
#include "common/port_mapping_wire.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PORT_MAPPING_MAX_ACTIONS 6

enum port_mapping_state {
	PORT_MAPPING_OFF, /* no router, or stopped */
	PORT_MAPPING_ASKING,
	PORT_MAPPING_MAPPED,
	PORT_MAPPING_RENEWING,
	PORT_MAPPING_RESTING,
	PORT_MAPPING_REMOVING,
	PORT_MAPPING_N_STATES,
};

enum port_mapping_way { PORT_MAPPING_PCP, PORT_MAPPING_NATPMP, PORT_MAPPING_UPNP, PORT_MAPPING_N_WAYS };

enum port_mapping_input_type {
	PORT_MAPPING_IN_NETWORK,  /* .router (an IPv4 address; none: there is none), .ours (address and port) */
	PORT_MAPPING_IN_DATAGRAM, /* .from, .bytes, .len */
	PORT_MAPPING_IN_UPNP,	  /* the way it went: .external and .lifetime_s (0: for good), or none: it did not */
	PORT_MAPPING_IN_DEADLINE, /* deadline_ns has passed (earlier is harmless) */
	PORT_MAPPING_IN_STOP,
	PORT_MAPPING_N_INPUTS,
};

/* Bytes are borrowed for the call. */
struct port_mapping_input {
	enum port_mapping_input_type type;
	uint64_t now_ns; /* common/clock.h; never 0, never goes back */
	struct endpoint router, ours, from, external;
	const uint8_t *bytes;
	size_t len;
	uint32_t lifetime_s;
};

enum port_mapping_action_type {
	PORT_MAPPING_DO_SEND,	     /* .bytes to fsm->router */
	PORT_MAPPING_DO_UPNP_MAP,    /* fsm->ours, if possible as .external's port, for .lifetime_s */
	PORT_MAPPING_DO_UPNP_REMOVE, /* the mapping of .external's port */
	PORT_MAPPING_DO_CHANGED,     /* fsm->external is another one, or none */
	PORT_MAPPING_DO_ENDED,	     /* after a stop: what could be removed is */
};

struct port_mapping_action {
	enum port_mapping_action_type type;
	uint8_t bytes[PORT_MAPPING_MAX_LEN];
	size_t len;
	struct endpoint external;
	uint32_t lifetime_s;
};

struct port_mapping_actions {
	uint32_t n;
	struct port_mapping_action all[PORT_MAPPING_MAX_ACTIONS];
};

/* Owned by the caller; a plain value. Read it, change it only by port_mapping_fsm_step(). */
struct port_mapping_fsm {
	enum port_mapping_state state;
	enum port_mapping_way way; /* in use; OFF and RESTING: of no meaning */
	uint64_t deadline_ns;	   /* step with PORT_MAPPING_IN_DEADLINE then; 0: none */
	struct endpoint router, ours;
	struct endpoint external;  /* where we are reached; none: nowhere */
	struct endpoint suggested; /* what we had last: the same is asked for again */
	uint64_t begun_ns;	   /* the request under way */
	uint32_t n_sent;	   /* of it */
	uint64_t renew_ns, expiry_ns, rest_ns;
	uint8_t nonce[PORT_MAPPING_NONCE_LEN]; /* PCP: of our mapping */
	/* NAT-PMP answers in two parts. */
	struct endpoint natpmp_address;
	/* The router's own clock: it goes back when the router has forgotten everything. */
	uint32_t epoch_s;
	uint64_t epoch_ns; /* when it was read, 0: never */
	uint64_t random;
	bool is_stopping;
	void (*trace)(void *arg, const char *line); /* may be NULL */
	void *trace_arg;
};

/* seed: secret and random; nonces are made from it. */
void port_mapping_fsm_init(struct port_mapping_fsm *fsm, uint64_t seed);
void port_mapping_fsm_step(struct port_mapping_fsm *fsm, const struct port_mapping_input *in,
			   struct port_mapping_actions *ret);

const char *port_mapping_state_name(enum port_mapping_state state);
const char *port_mapping_way_name(enum port_mapping_way way);
