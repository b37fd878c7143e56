/*
 * Whose is this datagram? All paths of QUIC connections through the door, and what is known of who comes anew.
 *
 *   from a visitor (its address, ours that it asked)
 *     ├─ a path of that address: of the connection with that ID, else of the one that is proven ──► PASS
 *     ├─ an ID of a connection that is known, from another address (rebinding, migration) ──► MOVED: a path more
 *     ├─ a version that is not known ──► NEGOTIATE: an answer, shorter than the question
 *     └─ Initial packets: a path that is SNIFFING; its datagrams are kept ─┬─ more are needed ──► KEPT
 *                                                                          ├─ host known ──► LEAD
 *   from a target ──► its path; the IDs it has chosen are learned          └─ refused ──► DROPPED, no answer
 *
 * A connection (quic_ids.h) has a path for each address that its visitor comes from, and each path its own socket
 * towards the target. So the target sees a new address when there is one, and does itself what QUIC asks for then: it
 * sends little there until who is there has answered (RFC 9000, sections 8.2, 9.3). The door moves nobody, and a forged
 * datagram moves nobody either; it opens a path, of which a connection has few.
 *
 * Targets see the door's address alone, so what they believe of an address from earlier (tokens) is no protection for others:
 * until a path is PROVEN the door itself passes back three times what came on it, and no more. If a target names no ID that
 * would be a proof (of less than four bytes, or the visitor's own), its answers are bounded so until the visitor has
 * spoken again after them; its paths are never PROVEN.
 *
 * Nothing is sent to a target before a whole hello with a known host has come. To visitors the door itself sends nothing
 * but Version Negotiation.
 *
 * Bounds: paths in all, of one source (an IPv4 address, an IPv6 /56), of one address and port, of one connection; bytes kept of who is not led
 * anywhere yet; hellos begun a second, in all and of one source; negotiations a second. For who comes when all places
 * are taken the one who is silent longest makes room: of those SNIFFING, then ASKED, ANSWERED, and PROVEN if it is
 * silent for a while. What is dropped is counted by cause.
 *
 * No I/O and no clock; memory is allocated for each path. One thread. Needs sodium_init().
 */
#pragma once

#include "relay/frontdoor/link.h"
#include "relay/frontdoor/quic_flow_fsm.h"
#include "relay/frontdoor/quic_ids.h"
#include "relay/frontdoor/quic_initial_wire.h"
#include "relay/udp_clients.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QUIC_PATHS_OF_ONE    16	 /* with one address and port: all of them are looked through for each datagram */
#define QUIC_ANSWER_FACTOR   3	 /* as a server itself: RFC 9000, section 8.1 */
#define QUIC_MAX_NEGOTIATION 600 /* bytes of an answer */

/* Of 64 bits each: published by words. Since the start, but for those called _now. */
struct quic_counters {
	uint64_t flows, flows_now, proven_now, sniffing_now, connections_now;
	uint64_t kept_bytes_now;
	uint64_t led;	/* their host was known, and somebody there */
	uint64_t moved; /* paths more of a connection */
	uint64_t negotiated;
	uint64_t datagrams_in, datagrams_out, bytes_in, bytes_out; /* passed on: from visitors, to visitors */
	uint64_t ended_silent;					   /* over, after it was led */
	/* Not led: each hello once. */
	uint64_t unknown_host, nobody_there, no_descriptors, unreachable, too_slow;
	uint64_t over_limit, over_source_limit; /* ended for others, or not begun */
	/* Datagrams of visitors that were dropped. */
	uint64_t refused[SNIFFER_N_REASONS];
	uint64_t stray;	       /* of no path, and no beginning */
	uint64_t over_rate;    /* too many hellos a second */
	uint64_t over_paths;   /* a connection has come from too many addresses: the oldest path ended, or none begun */
	uint64_t not_negotiated; /* too short a question, or too many a second */
	uint64_t over_port;	 /* paths of one address and port: ended for others of it, or not begun */
	uint64_t over_answer;	 /* of targets: more than who is not proven may be sent */
	/* Datagrams of either that the kernel did not take. */
	uint64_t full, too_big, failed;
};

struct quic_flow;

struct quic_flows_options {
	struct quic_flow_times times;
	uint32_t max_flows, max_source, max_paths;
	uint64_t max_kept_bytes;
	uint32_t hellos_per_s, hellos_source_per_s, negotiations_per_s;
	void *owner;
	/* The path is over: what the owner has with it ends; it is freed after this. */
	void (*ended)(void *owner, struct quic_flow *flow);
};

struct quic_sniffing;

struct quic_flow {
	void *owner; /* the owner's own, with this path; NULL at first */
	struct udp_way way;
	struct quic_flow_fsm fsm;
	struct quic_connection *connection; /* NULL while SNIFFING */
	uint64_t heard_bytes, answered_bytes; /* from the visitor; passed back while it is not proven */
	bool is_not_to_be_proven;	      /* its target names no ID that would be a proof */

	/* quic_flows.c's */
	struct quic_id first;
	struct quic_sniffing *sniffing;
	struct quic_flow *next;
	struct link place, of_connection;
	uint16_t source;
};

enum quic_verdict {
	QUIC_DROPPED,
	QUIC_KEPT,
	QUIC_PASS,	/* to the target of the path */
	QUIC_LEAD,	/* quic_flows_found() says whither: then quic_flows_led(), or quic_flows_end() */
	QUIC_MOVED,	/* to the target of the path's connection, which needs a socket for it; or quic_flows_end() */
	QUIC_NEGOTIATE, /* *ret_answer goes back */
};

struct quic_answer {
	size_t len;
	uint8_t bytes[QUIC_MAX_NEGOTIATION];
};

struct quic_flows;

struct quic_flows *quic_flows_new(const struct quic_flows_options *options, uint64_t now_ms);
/* Ends all paths. Accepts NULL. */
void quic_flows_free(struct quic_flows *flows);
/*
 * One datagram of a visitor. way: its address, and ours that it asked. *ret: of PASS, LEAD, MOVED; valid until the next
 * call. *ret_answer is written for NEGOTIATE alone.
 */
enum quic_verdict quic_flows_from_visitor(struct quic_flows *flows, const struct udp_way *way, const uint8_t *datagram,
					  size_t len, uint64_t now_ms, struct quic_flow **ret,
					  struct quic_answer *ret_answer);
/*
 * One datagram of that path's target. true: it goes to flow->way; false: it is dropped, as the path is not PROVEN and
 * would be sent more than QUIC_ANSWER_FACTOR times what came on it. Counted.
 */
bool quic_flows_from_target(struct quic_flows *flows, struct quic_flow *flow, const uint8_t *datagram, size_t len,
			    uint64_t now_ms);

/* Of a path to be led: what was asked for, and what came before the datagram that made it known, in its order. */
const struct sniffed *quic_flows_found(const struct quic_flow *flow);
const uint8_t *quic_flows_kept(const struct quic_flow *flow, uint32_t i, size_t *ret_len); /* NULL: there are no more */
/* It has its target, and all that was kept has been sent there. */
void quic_flows_led(struct quic_flows *flows, struct quic_flow *flow, const struct endpoint *target, uint64_t now_ms);
/* At once; the owner counts why. */
void quic_flows_end(struct quic_flows *flows, struct quic_flow *flow);
/* Ends what is over. When the next one may be; UINT64_MAX: never. */
uint64_t quic_flows_expire(struct quic_flows *flows, uint64_t now_ms);
/* The owner adds what it does itself. */
struct quic_counters *quic_flows_counters(struct quic_flows *flows);
