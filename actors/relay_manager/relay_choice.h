/*
 * By which way is one relay used: over UDP, or over TLS?
 *
 *               600 ms without a slot; a slot was lost; 3 of the last 8 pings were; a ping into silence was
 *   UDP alone ────────────────────────────────────────────────────────────────────────────► UDP and TLS
 *      ▲                                                                                         │
 *      └──────────────── UDP has been good for 8 s; packets go by UDP again after 3 ◄────────────┘
 *
 * Packets go by UDP when there is a slot, unless UDP loses too much and TLS is there. Both receive as long as
 * they are open. Pure.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define RELAY_CHOICE_PATIENCE_MS 600  /* how long UDP alone is tried */
#define RELAY_CHOICE_LOSSY	 3    /* of the last 8 pings */
#define RELAY_CHOICE_SILENT	 2    /* pings since anything was heard: the second is sent when the first is late */
#define RELAY_CHOICE_GOOD_MS	 3000 /* a UDP that lost was good for so long: it is used again … */
#define RELAY_CHOICE_CLOSE_MS	 8000 /* … and TLS closed */

/* How things are. */
struct relay_choice_view {
	uint64_t now_ms;
	bool is_bound;	 /* over UDP */
	bool is_proven;	 /* and hardly anything was lost */
	uint32_t missing; /* of the last 8 pings */
	uint32_t n_silent; /* pings since anything was heard */
	bool is_blocked; /* other relays are reached over TLS only: do not wait for UDP */
};

struct relay_choice {
	bool wants_tls, doubts_udp;
	bool was_bound;
	uint64_t without_ms; /* since when there is no slot; 0: there is one */
	uint64_t good_ms;    /* since when UDP is proven; 0: it is not */
	uint64_t deadline_ms; /* look again then; 0: only when something happens */
};

void relay_choice_init(struct relay_choice *choice, uint64_t now_ms);
void relay_choice_step(struct relay_choice *choice, const struct relay_choice_view *view);
