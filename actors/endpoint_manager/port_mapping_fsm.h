/*
 * A port that the home router forwards to us, so that others reach us without having been asked first. Three
 * ways to ask for one, tried in this order: PCP, NAT-PMP, UPnP.
 *
 *         a router            answered
 *   OFF ──────────► ASKING ──────────────► MAPPED ◄────────────── RENEWING
 *    ▲    no answer, │  ▲  ▲                 │  │  half of its life │  ▲
 *    │    refused:   │  │  └─────────────────┘  └───────────────────┼──┘
 *    │    next way   └──┘   it is over, or another router           │ refused for good, over
 *    │                ▲  ▲                                          │
 *    │ no router      │  └──────────────────────────────────────────┘
 *    │                │ after a while; when the router tells that it has begun anew
 *    │                └──────── RESTING ◄── no way left (from ASKING)
 *    └─ from any state; after stop, if mapped: REMOVING ──► OFF, and `ended` is told
 *
 * One machine a node. Pure: no I/O, no clock, no allocation. The shell (node/port_mapping.h) sends what it is told
 * from a socket that is bound to our address and connected to the router, a new one for each network (not that of
 * the packets: the router would count it as a mapping of its own); UPnP it carries out itself and tells how it went.
 *
 * Believed is only what comes from the router's address and port and answers the request under way; PCP proves it
 * with a nonce besides, and what UPnP did has the serial of what was asked. What a router tells everybody is no
 * answer: it only leads to our asking again, and not oftener than once in 30 s.
 *
 * RESTING: after refusals that pass (no resources, no network) 30 s, else 10 minutes; twice as long each time, an
 * hour at most.
 */
#pragma once

#include "common/endpoint.h"
#include "common/port_mapping_wire.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PORT_MAPPING_MAX_ACTIONS 8

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
	/* .router (an IPv4 address; none: there is none), .ours (address and port), .nonce. Asked is only from a private
	 * address: with any other there is nothing to forward */
	PORT_MAPPING_IN_NETWORK,
	PORT_MAPPING_IN_DATAGRAM,     /* .from, .bytes, .len: to the socket of this network */
	PORT_MAPPING_IN_ANNOUNCEMENT, /* .from, .bytes, .len: to where routers tell everybody */
	PORT_MAPPING_IN_NOBODY,	      /* the router says that nobody listens there (ICMP port unreachable) */
	PORT_MAPPING_IN_UPNP,	      /* .serial, .outcome; MAPPED: .external and .lifetime_s (0: for good) */
	PORT_MAPPING_IN_KNOWN,	      /* .router speaks .way or not, .known, as was found out besides */
	PORT_MAPPING_IN_DEADLINE,     /* deadline_ns has passed (earlier is harmless) */
	PORT_MAPPING_IN_STOP,
	PORT_MAPPING_N_INPUTS,
};

enum port_mapping_outcome {
	PORT_MAPPING_UPNP_SILENT, /* no answer, or none that makes sense: it may have been done or not */
	PORT_MAPPING_UPNP_MAPPED,
	PORT_MAPPING_UPNP_REMOVED, /* or nothing to be done about it any more */
	PORT_MAPPING_UPNP_PASSING, /* not now */
	PORT_MAPPING_UPNP_REFUSED,
	PORT_MAPPING_UPNP_NONE, /* the router does not forward ports by UPnP */
	PORT_MAPPING_N_OUTCOMES,
};

/* Does this router speak a way? As far as was seen since it is our router. */
enum port_mapping_known { PORT_MAPPING_UNKNOWN, PORT_MAPPING_SPOKEN, PORT_MAPPING_NOT_SPOKEN, PORT_MAPPING_N_KNOWN };

/* Bytes are borrowed for the call. */
struct port_mapping_input {
	enum port_mapping_input_type type;
	uint64_t now_ns; /* common/clock.h; never 0, never goes back */
	struct endpoint router, ours, from, external;
	/* Secret, and the same whenever this router is asked for this port of ours: by it PCP knows whose mapping it is,
	 * also after a crash. */
	uint8_t nonce[PORT_MAPPING_NONCE_LEN];
	const uint8_t *bytes;
	size_t len;
	uint32_t lifetime_s, serial;
	enum port_mapping_outcome outcome;
	enum port_mapping_way way;
	enum port_mapping_known known;
};

enum port_mapping_action_type {
	PORT_MAPPING_DO_SOCKET,	     /* another network: what is sent goes from fsm->ours to fsm->router; OFF: no more */
	PORT_MAPPING_DO_SEND,	     /* .bytes to the router */
	PORT_MAPPING_DO_UPNP_MAP,    /* .ours, if possible as .external's port, for .lifetime_s; ends what is under way */
	PORT_MAPPING_DO_UPNP_REMOVE, /* the mapping of .external's port to .ours; ends what is under way */
	PORT_MAPPING_DO_CHANGED,     /* fsm->external is another one, or none */
	PORT_MAPPING_DO_ENDED,	     /* after a stop: what could be removed is */
};

struct port_mapping_action {
	enum port_mapping_action_type type;
	uint8_t bytes[PORT_MAPPING_MAX_LEN];
	size_t len;
	struct endpoint router, ours, external;
	uint32_t lifetime_s, serial; /* UPnP; its outcome is told with the same serial */
};

struct port_mapping_actions {
	uint32_t n;
	struct port_mapping_action all[PORT_MAPPING_MAX_ACTIONS];
};

/* Owned by the caller; a plain value. Read it, change it only by port_mapping_fsm_step(). */
struct port_mapping_fsm {
	enum port_mapping_state state;
	enum port_mapping_way way; /* in use; OFF and RESTING: of no meaning */
	enum port_mapping_known known[PORT_MAPPING_N_WAYS];
	uint64_t deadline_ns;	      /* step with PORT_MAPPING_IN_DEADLINE then; 0: none */
	struct endpoint router, ours; /* OFF: the last ones */
	struct endpoint external;     /* where we are reached; none: nowhere */
	struct endpoint suggested;    /* what we had last: the same is asked for again */
	uint64_t begun_ns;	      /* the request under way */
	uint32_t n_sent;	      /* of it */
	uint32_t upnp_serial;	      /* of the last request */
	uint64_t renew_ns, expiry_ns, rest_ns;
	uint32_t n_rests;     /* since something worked, or another network */
	bool is_passing;      /* a refusal since asking began will pass */
	uint64_t heeded_ns;   /* the last announcement; 0: none */
	uint8_t nonce[PORT_MAPPING_NONCE_LEN];
	/* NAT-PMP answers in two parts. */
	struct endpoint natpmp_address;
	/* The router's own clock, as its answers told it: it goes back when the router has forgotten everything. */
	uint32_t epoch_s;
	uint64_t epoch_ns; /* when it was read, 0: never */
	bool is_stopping;
	void (*trace)(void *arg, const char *line); /* may be NULL */
	void *trace_arg;
};

void port_mapping_fsm_init(struct port_mapping_fsm *fsm);
void port_mapping_fsm_step(struct port_mapping_fsm *fsm, const struct port_mapping_input *in,
			   struct port_mapping_actions *ret);

const char *port_mapping_state_name(enum port_mapping_state state);
const char *port_mapping_way_name(enum port_mapping_way way);
