/*
 * Who comes to ports of UDP that lead to members: a flow for each address and port that a visitor comes from.
 *
 *   datagram of a visitor ──► its flow ──► PASS
 *        │ it has none
 *        └──► how many a second: of its source, of all ──► a place: of its source, among all ──► BEGUN
 *                                   └ or of its port, which  └ of that source, of a port that has its share: the one that was heard
 *                                     has some of its own      longest ago makes room, ASKED before ANSWERED; TALKING only if it
 *                                                              was silent for answered_ms. Else DROPPED
 *
 * Shares: all places by the ports that have flows. As long as there is room, a port may have more than its share; when there is
 * none, what is above it makes room for ports below theirs, also who is TALKING. So a flood at one port takes none from others.
 *
 *   ASKED ── the target answers ──► ANSWERED ── the visitor goes on ──► TALKING
 *     └ over after asked_ms            └ answered_ms                       └ talking_ms, without a datagram of the visitor
 *
 * Only what visitors send keeps a flow: so a target cannot go on for ever to who never wanted it, or has left, and whose
 * refusals (ICMP) do not come as far as the target. Nothing is sent to visitors but what the target answers.
 *
 * Sources are IPv4 addresses and IPv6 /56. What is dropped is counted by cause.
 *
 * No I/O and no clock; memory is allocated for each flow. One thread. Needs sodium_init().
 */
#pragma once

#include "common/endpoint.h"
#include "common/macros.h"
#include "relay/frontdoor/link.h"
#include "relay/udp_clients.h"

#include <stdbool.h>
#include <stdint.h>

/* Of 64 bits each: published by words. Since the start, but for those called _now. */
struct datagram_counters {
	uint64_t flows, flows_now;
	uint64_t datagrams_in, datagrams_out, bytes_in, bytes_out; /* passed on: from visitors, to visitors */
	/* Datagrams of visitors that were dropped. */
	uint64_t over_limit, over_source_limit, over_rate;
	uint64_t no_door, bad_header, in_a_ring; /* where doors are awaited; no_door: also by another interface than theirs */
	uint64_t unknown_port, nobody_there, not_allowed, over_gate_rate;
	uint64_t unreachable, no_descriptors;
	/* Of either, that the kernel did not take. */
	uint64_t full, too_big, failed;
	uint64_t evicted; /* flows that ended to make room */
};

enum datagram_state { DATAGRAM_ASKED, DATAGRAM_ANSWERED, DATAGRAM_TALKING, DATAGRAM_N_STATES };

struct datagram_flow {
	void *owner; /* the owner's own, with this flow; NULL at first */
	struct udp_way way;
	struct endpoint visitor; /* who it is: way.remote, or whom a door has named */
	uint16_t port; /* 0: the owner's, as all that has none has shares like one port */
	uint8_t state; /* enum datagram_state */

	/* datagram_flows.c's */
	uint16_t source;
	uint64_t heard_ms;
	struct datagram_flow *next;
	struct link place, among_all;
};

struct datagram_flows_options {
	uint32_t times_ms[DATAGRAM_N_STATES]; /* asked_ms, answered_ms, talking_ms */
	uint32_t max_flows, max_source;
	uint32_t begun_per_s, begun_source_per_s; /* flows; twice as many at once */
	uint32_t begun_port_per_s; /* so many of each port, also when all have begun as many as they may */
	void *owner;
	/* The flow is over: what the owner has with it ends; it is freed after this. */
	void (*ended)(void *owner, struct datagram_flow *flow);
};

enum datagram_verdict {
	DATAGRAM_DROPPED,
	DATAGRAM_PASS,	/* to the flow's target */
	DATAGRAM_BEGUN, /* whither, the owner says; or datagram_flows_end() */
};

struct datagram_flows;

struct datagram_flows *datagram_flows_new(const struct datagram_flows_options *options, uint64_t now_ms);
/* Ends all. Accepts NULL. */
void datagram_flows_free(struct datagram_flows *flows);
/* A visitor's datagram to that port. *ret: valid until the next call; not of DROPPED. */
enum datagram_verdict datagram_flows_from_visitor(struct datagram_flows *flows, const struct udp_way *way,
						  const struct endpoint *visitor, uint16_t port, uint64_t now_ms,
						  struct datagram_flow **ret);
/* That of this way, whoever's it is; NULL: there is none. Valid until the next call. */
struct datagram_flow *datagram_flows_find(struct datagram_flows *flows, const struct udp_way *way);
/* An answer of its target. */
void datagram_flows_from_target(struct datagram_flows *flows, struct datagram_flow *flow);
/* Who has it open says that it is over. False: it has none there that is this visitor's at this port. */
bool datagram_flows_end_of(struct datagram_flows *flows, const struct udp_way *way, const struct endpoint *visitor, uint16_t port);
/* At once. */
void datagram_flows_end(struct datagram_flows *flows, struct datagram_flow *flow);
/* Those for which `ends` says so. */
void datagram_flows_end_some(struct datagram_flows *flows, bool (*ends)(const void *context, const struct datagram_flow *flow),
			     const void *context);
/* Ends what is over. When the next one may be; UINT64_MAX: never. */
uint64_t datagram_flows_expire(struct datagram_flows *flows, uint64_t now_ms);
/* The owner adds what it does itself. */
struct datagram_counters *datagram_flows_counters(struct datagram_flows *flows);
