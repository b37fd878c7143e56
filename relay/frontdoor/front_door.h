/*
 * The front door: visitors from outside are let in by the host they ask for, and copied to where it is.
 *
 *   loop thread                       own thread, one epoll
 *  ┌────────────┐ routes, stop       ┌──────────────────────────────────────────────────────────────────┐
 *  │ front_door │ ─────────────────► │ listeners ─► SNIFFING ──► CONNECTING ──► splice_pump (to the end) │
 *  │            │ ◄───────────────── │               │  sniffer     to the route's target               │
 *  └────────────┘ counters (atomic)  │               ├─► reset: unknown host, nobody there, not understood │
 *                                    │               └─► LINGERING: an answer was sent (HTTP 400)       │
 *                                    └──────────────────────────────────────────────────────────────────┘
 *
 * Where it has a port together with the relay (door_share.h), who wants the relay, or dials back to webgw, is handed to the loop,
 * socket and all, with what was read of it (hand_over.h). Who wants webgw's WebSocket, whose library reads sockets itself from the first
 * byte on, stays a visitor of the door: the loop has the other end of a pair of Unix sockets, to which he is copied.
 *
 * Nobody waits for anybody: each visitor has its own state, an absolute time limit in it, and a share of each turn.
 * A visitor costs no memory of a buffer: what was sniffed is sent to the target out of one that all share, if it is
 * taken at once.
 *
 * Bounds: visitors in all, and of one source (an IPv4 address, an IPv6 /56). When all places are taken, the one
 * whose host has been unknown longest makes room; and when what came of those who are not led anywhere yet takes too much memory, the
 * one that began longest ago. When descriptors run out, who comes is reset, by means of a spare one.
 *
 * Who is refused is reset before a byte is sent to them; who asks in HTTP, but not by its rules, is told so.
 *
 * All functions: the loop's thread only.
 */
#pragma once

#include "common/endpoint.h"
#include "common/error.h"
#include "relay/frontdoor/datagram_flows.h"
#include "relay/frontdoor/door_routes.h"
#include "relay/frontdoor/door_share.h"
#include "relay/frontdoor/quic_flows.h"
#include "relay/frontdoor/sniffer.h"
#include "relay/frontdoor/stream_queue.h"
#include "relay/listen_sockets.h"
#include "relay/webgw/dial_exchange.h"

#include <stdint.h>
#include <uv.h>

struct front_door;

/* 0: the default, in brackets. */
struct front_door_options {
	uint32_t n_listen;
	struct endpoint listen[DOOR_MAX_LISTEN]; /* "::" listens on both families; port 0: any */
	/*
	 * Only other doors come, those that the routes name (door_routes_set_doors()); they say for whom in a PROXY header
	 * of version 2, with host and scheme. Nothing is sniffed: what follows the header goes to the target as it is.
	 */
	bool takes_header;
	/*
	 * Those of listen that the relay has together with the door: who wants the node itself there, by TLS, is handed to
	 * relay_port.visitor(); routes have the node's own name.
	 */
	bool is_relays[DOOR_MAX_LISTEN];
	bool serves_webgw; /* there, too */
	const struct listen_sockets *relay_sockets; /* that listen there already, borrowed until return; NULL: none */
	struct front_door_relay_port {
		void *owner;
		/*
		 * In the loop. whose: RELAY; if it serves webgw, WEBGW or DIAL_BACK. fd is the owner's, of WEBGW a Unix socket; bytes,
		 * borrowed: what came first, and the socket has no longer.
		 */
		void (*visitor)(void *owner, enum door_whose whose, int fd, const struct endpoint *remote, const uint8_t *bytes, size_t n);
	} relay_port;
	/*
	 * Streams that the door before has left: taken up, or closed. The queue is the door's when it has started, and *this has
	 * none any more. NULL: there is none.
	 */
	struct stream_queue *streams_before;
	/*
	 * In the loop, when it has stopped after front_door_hand_over(): visitors' streams wait in these, borrowed, for who has
	 * copies.
	 */
	struct front_door_streams_port {
		void *owner;
		void (*left)(void *owner, const int *descriptors, size_t n);
	} streams_port;
	/* Ports that may lead to a member each (port_name.h): open while the routes have them. */
	struct port_ranges tcp_ports, udp_ports;
	void (*ports_changed)(void *owner); /* in the loop: front_door_ports() says something else; may be NULL */
	void *ports_owner;
	bool serves_quic; /* by UDP at the same ports, but 80; door_udp.h */
	uint32_t max_visitors;			       /* [what the limit of open files lets, 65536 at most] */
	uint32_t max_visitors_source;		       /* [a quarter of these, 1024 at most] */
	uint32_t max_hello_bytes;		       /* [64 MiB] */
	uint32_t max_warm; /* connections to members before there are visitors for them [a sixteenth of these, 1024 at most] */
	uint32_t silent_ms; /* where doors come: that long one may say nothing, to have a connection before its visitor [60 s] */
	uint32_t sniff_ms;	 /* from its coming until its host is known [10 s] */
	uint32_t connect_ms;	 /* until the target answers [5 s] */
	uint32_t idle_ms;	 /* nothing moves [1 h] */
	uint32_t half_closed_ms; /* nothing moves, and one of both has ended [2 min] */
	/* Routes that are dial-back: agents dial back here. */
	bool has_dial_back;
	struct endpoint dial_back; /* as one of listen */
	uint32_t dial_ms;	   /* a visitor waits for its agent [5 s] */
	uint32_t present_ms;	   /* an agent that dialled has for its secret [3 s] */
	struct front_door_dial_ports {
		void *owner;
		/* A visitor waits: answered once, now or later, by front_door_answer(). */
		void (*wanted)(void *owner, const struct dial_wanted *wanted);
		/* Its wait is over. */
		void (*over)(void *owner, const struct dial_over *over);
	} dial_ports;
};

/* Since the start, but for those called _now. All of 64 bits: published by words. */
struct front_door_counters {
	uint64_t visitors, visitors_now, sniffing_now, connecting_now;
	uint64_t routed[SNIFFER_N_PROTOCOLS]; /* their host has a target; whether that was reached is below */
	uint64_t to_relay, to_webgw;	      /* handed over; what becomes of them the relay, or webgw, counts */
	/* Those who were not, by cause; each visitor counts once. */
	uint64_t refused[SNIFFER_N_REASONS]; /* not understood */
	uint64_t unknown_host, nobody_there;
	uint64_t relay_over_limit, webgw_over_limit; /* too many wait for these */
	uint64_t not_allowed, over_rate; /* by the host's gate */
	uint64_t no_door, bad_header;	 /* where doors are awaited: somebody else; or what it said */
	uint64_t in_a_ring;		 /* there, too: through too many doors, or to be led back to the first one */
	uint64_t too_slow, left_early;
	uint64_t over_limit, over_source_limit, no_descriptors; /* reset when they came, or when others came */
	uint64_t unreachable, connect_timed_out;		/* the target */
	/*
	 * Connections to members that wait for visitors; where doors come, from doors, that have said nothing. Visitors that were led
	 * by one, and that would have been, but none was there. Those that turned out to be dead: the visitor was led to the same
	 * member by another. Those that the member ended, or that could not be made.
	 */
	uint64_t warm_now, warm_used, warm_missed, warm_dead, warm_ended;
	uint64_t tried_another; /* of several places one failed, and the visitor was led to the next; counts each time */
	/* What became of those that were routed. */
	uint64_t done, reset, timed_out;
	uint64_t cut; /* their host was taken away */
	uint64_t bytes_in, bytes_out; /* to targets, with headers; to visitors */
	uint64_t bytes_copied;	      /* of these, for want of a pipe */
	uint64_t pipes_now;
	uint64_t hello_bytes_now;
	uint64_t routes_taken; /* how often they were replaced */
	/* Of the streams of the door that ran before: that go on here; that could not be handed over, or be taken up. */
	uint64_t streams_taken, streams_lost;
	struct quic_counters quic; /* none of it is in the others */
	struct datagram_counters datagrams; /* of ports of UDP; nor is any of it */
	/* Visitors for whom agents dial back, and who dials: with a wrong secret, with one whose visitor waits no longer, or none. */
	uint64_t waiting_now, dialled, dial_timed_out, dial_over_limit, dial_over_source_limit;
	uint64_t dial_unknown, dial_late, dial_silent, dial_refused, dial_bare;
};

/*
 * Is target one of these places itself, by whatever address of this machine? Who is led there would come again, and
 * again.
 */
bool front_door_leads_back(const struct endpoint *places, uint32_t n, const struct endpoint *target);
/* Binds at once, also privileged ports. 0 or -errno; reterr names the address. routes: taken over, also on failure. */
P2P_CHECK int front_door_start(uv_loop_t *loop, const struct front_door_options *options,
			       struct door_routes *routes_take, struct front_door **ret, struct error *reterr);
/* Before front_door_stop(): visitors that can are left to the door that runs next, instead of being reset. */
void front_door_hand_over(struct front_door *door);
/* Resets all visitors, ends the thread, frees itself from the loop, then calls cb (may be NULL). */
void front_door_stop(struct front_door *door, void (*cb)(void *owner), void *owner);
/* For who comes from now on; who is let in stays. Taken over. */
void front_door_set_routes_take(struct front_door *door, struct door_routes *routes);
uint16_t front_door_port(const struct front_door *door, uint32_t listener);
/* The listeners that the relay has, too, to hand to the next program; returns how many. */
uint32_t front_door_relay_sockets(const struct front_door *door, int ret[DOOR_MAX_LISTEN]);
/* Where agents dial back; 0: nowhere. */
uint16_t front_door_dial_back_port(const struct front_door *door);
/*
 * subscription: who is told of the visitor, for dial_ports.over(); 0: nobody is there, and it is reset. tally: where its
 * visitors are counted from when it has dialled back; borrowed to the end of the door, NULL: nowhere.
 */
void front_door_answer(struct front_door *door, uint64_t ticket, int64_t subscription, struct agent_tally *tally);
/*
 * An agent has dialled back elsewhere, within TLS: its socket, to it or to who has TLS's keys, and its answer are taken over, its
 * secret is the caller's to wipe. False: there is no room, and all is closed and freed.
 */
bool front_door_take_caller(struct front_door *door, const struct dial_caller *caller_take);
/* Those that the routes have and that may be open, and whether they are. */
void front_door_ports(struct front_door *door, struct port_states *ret);
/* Of some microseconds ago. */
struct front_door_counters front_door_counters(const struct front_door *door);
