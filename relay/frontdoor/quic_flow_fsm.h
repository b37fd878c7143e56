/*
 * The life of one path of a QUIC connection through the door: between one address of a visitor and one socket towards
 * its target. How long it may stay depends on what it has shown.
 *
 *   first datagram ─► SNIFFING ── host known, target there ──► ASKED ◄── a known connection from a new address
 *                        │                                       │ target speaks
 *                        │ sniff_ms,                             ▼
 *                        │ from its beginning                 ANSWERED
 *                        │                     asked_ms,         │ visitor names an ID that the target has chosen
 *                        │            from its beginning         ▼
 *                        └──────────────► over ◄──────────── PROVEN
 *                                          ▲  answered_ms, idle_ms
 *                                          └─ after the last datagram of either
 *
 * Who only sends under a false address does not come beyond ANSWERED: what the target says goes to that address, and with
 * it the ID that one would have to name. (Not so if the target makes its ID from the visitor's by a known rule other than
 * taking it as it is.) Who has a connection of its own may have a false address proven for it: one path of a connection is
 * PROVEN at most, the older one falls back to ANSWERED. Paths that are not PROVEN are short-lived, the first that make
 * room, and little is passed back on them (quic_flows.h).
 *
 * Pure.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum quic_flow_state { QUIC_FLOW_SNIFFING, QUIC_FLOW_ASKED, QUIC_FLOW_ANSWERED, QUIC_FLOW_PROVEN, QUIC_FLOW_N_STATES };

enum quic_flow_event {
	QUIC_FLOW_LED,		/* its host is known, and it has a socket towards its target */
	QUIC_FLOW_FROM_VISITOR, /* a datagram, passed on */
	QUIC_FLOW_PROOF,	/* one whose destination ID is the target's choice */
	QUIC_FLOW_OVERTAKEN, /* another path of its connection is proven now */
	QUIC_FLOW_FROM_TARGET,
	QUIC_FLOW_N_EVENTS
};

/* Milliseconds. spare_ms: one that is PROVEN and was silent for so long may have to make room. */
struct quic_flow_times {
	uint32_t sniff_ms, asked_ms, answered_ms, idle_ms, spare_ms;
};

struct quic_flow_fsm {
	uint8_t state;	   /* enum quic_flow_state */
	uint64_t since_ms; /* SNIFFING, ASKED: when that began; else the last datagram */
};

/* Monotonic milliseconds throughout. */
void quic_flow_begin(struct quic_flow_fsm *flow, enum quic_flow_state state, uint64_t now_ms);
void quic_flow_take(struct quic_flow_fsm *flow, enum quic_flow_event event, uint64_t now_ms);
/* From when on it is over. */
uint64_t quic_flow_due_ms(const struct quic_flow_fsm *flow, const struct quic_flow_times *times);
/* May it be ended for a new one? */
bool quic_flow_makes_room(const struct quic_flow_fsm *flow, const struct quic_flow_times *times, uint64_t now_ms);
