/*
 * The front door's thread from inside, shared by its files; nobody else includes it.
 *
 *   door_thread.c           the turn, time, beginning and end
 *   door_thread_accept.c    listeners: who comes is asked in
 *   door_thread_ports.c     ports that lead to one member each: opened, closed, and who comes there
 *   door_thread_visitors.c  visitors: their places, their bounds, and how they go
 *   door_thread_sniff.c     what their first bytes ask for
 *   door_thread_connect.c   to the target, and into the pump
 *   door_thread_places.c    if it has several: to one of them, and from one that fails to the next
 *   door_thread_warm.c      connections to members that are there before their visitor is
 *   door_thread_header.c    what doors say to each other and to targets of a visitor: PROXY headers
 *   door_thread_gate.c      whom a host's gate lets through, and what it counts
 *   door_thread_dial_back.c  or into the pump when an agent has dialled back; agents who do
 *   door_thread_streams.c   from the door that ran before, and to the one that runs next
 *
 * A visitor, from accept to its end:
 *
 *     accept ──► SNIFFING ──► CONNECTING ──► PUMPED ──► gone      WAITING instead of CONNECTING: for an agent
 *                                │ ▲            ▲
 *                                ▼ │            │                 ANSWERING between both, where another place is there to
 *                             ANSWERING ────────┘                 try: until either end says something
 *                   │             │                      ▲
 *                   ├── the node's own: its socket goes ─┤
 *                   ├─────────────┴── reset ─────────────┤
 *                   └──► LINGERING (has its answer) ─────┘
 *
 * Both sockets are put into the epoll once, edge-triggered, and stay there to their end: so each is tried until it has
 * no more, and an edge that comes while it is somebody else's turn is not needed again (splice_pump.h). What is over is
 * freed at the end of the turn, as events of the same turn may still point to it; and while this process starts a child,
 * which has a copy of each socket for a moment, some time later: closing alone does not take those out of the epoll.
 *
 * A short visit is sixteen system calls, most of which the kernel spends on segments: accept4, recv; socket, setsockopt,
 * connect, sendmsg and two epoll_ctl; recv, send and shutdown when the target has answered; recv and two close at the end,
 * and waiting in between.
 */
#pragma once

#include "relay/frontdoor/door_datagrams.h"
#include "relay/frontdoor/door_share.h"
#include "relay/frontdoor/door_thread.h"
#include "relay/frontdoor/door_warm.h"
#include "relay/frontdoor/hand_over.h"
#include "relay/frontdoor/splice_pump.h"

#include "common/log.h"

#include <sodium.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DOOR_SOURCES 65536
#define RELAY_PLACES	    1024 /* as many handshakes as the relay has in flight, in all and of one source */
#define RELAY_PLACES_SOURCE 64
#define DOOR_HEADER_MAX 384 /* of a PROXY header that is written: addresses, host, scheme and doors */
#define DOOR_MAX_SILENT 256 /* where doors come: connections that are there before their visitors, and wait */
#define DOOR_MAX_SILENT_OF_ONE 64
#define DOOR_MAX_DOORS	2   /* so many may pass a visitor on: a front door, and the acceptor of a member */

enum visitor_state { SNIFFING, CONNECTING, ANSWERING, WAITING, PUMPED, LINGERING, GONE, N_STATES };

/* Of one that waits for an agent. */
struct dial {
	uint64_t ticket; /* 0: there was no room for it */
	int64_t subscription; /* who was told; 0: nobody yet, or nobody is there */
	struct agent_tally *tally; /* of who was told; NULL: nothing counts */
	bool is_answered;
	bool is_tls; /* it speaks TLS itself */
};

/* What came so far from one that did not send all at once. */
struct hello {
	struct sniffer sniffer;
	size_t n, size;
	uint8_t *bytes;
};

/* By what it was led to its place: a connection that was there before it. */
enum visitor_warm { NOT_WARM, WARM_UNTOLD, WARM_TOLD };

/* Of one whose host has several places, or that is led by a warm connection: what it takes to try the next, or again. */
struct attempt {
	struct sniffed found;
	struct door_place *tried[DOOR_MAX_TRIES]; /* held */
	uint32_t n_tried;
	bool may_say_again; /* also when the place has heard it: nothing happens twice */
	uint64_t told_ms;   /* when it was told all of it */
	size_t n;
	uint8_t bytes[]; /* that came first */
};

struct visitor {
	struct splice_pair pair; /* ends: visitor, target; an fd is -1 before it is there */
	struct door_thread *door;
	struct link place;   /* by state and time; SNIFFING, CONNECTING, ANSWERING, LINGERING, GONE */
	struct link among_all;
	struct link among_kept; /* while n_kept > 0: by since when */
	uint32_t n_kept;	/* bytes of memory for what came of it and is not passed on */
	uint64_t since_ms; /* in that place */
	struct dial *dial; /* while it is WAITING */
	struct agent_tally *tally; /* of the agent that serves it; NULL: none does, or nothing counts */
	struct hello *hello; /* NULL: nothing came yet, or it is in the head of the pair */
	struct door_place *led_to; /* held, and entered; NULL: to the only one there is */
	struct attempt *attempt;   /* NULL: there is no other to try */
	struct endpoint remote;
	struct endpoint target; /* that it was led to last; none: to no address */
	struct door_gate *gate;	       /* held; NULL: it went through none */
	uint64_t told_in, told_out;    /* bytes that the gate knows of */
	char *host;	 /* that it was led in for, for the door that runs next; NULL: not yet */
	uint8_t protocol; /* enum sniffer_protocol, the same */
	uint16_t source; /* its counter */
	uint8_t state;
	uint8_t n_doors; /* that have passed it on to this one; 0: it came by itself */
	uint8_t warm; /* enum visitor_warm */
	bool is_silent; /* a door that has said nothing yet, and may be so for silent_ms */
	bool is_watched; /* its own socket is in the epoll */
	bool is_at_relays; /* it came to a listener that the relay has, too */
	bool is_judged;	   /* what it says of its agent is counted */
	bool is_at_sink;   /* ends[1] is a sink's, who says whether the target was reached */
	bool ends_here;	   /* who holds the other end of ends[1] is in this process, and goes with it */
	bool is_webgws;	   /* and is webgw's WebSocket, at the port that we share */
};

struct listener {
	struct watch watch;
	struct door_thread *door;
	int fd;
	bool is_relays;
	const struct port_name *port; /* who comes wants that; NULL: it says what it wants */
	uint32_t n_a_turn; /* so many are asked in, if they are there; */
	uint64_t turn;	   /* in this one they were */
};

struct door_thread {
	struct front_door_options options;
	const struct door_routes *routes;
	int epoll_fd, wake_fd, spare_fd;
	struct watch wake_watch;
	bool has_word;
	struct listener listeners[DOOR_MAX_LISTEN];
	uint64_t accept_again_ms; /* descriptors have run out, and nobody is asked in until then; 0: all are */
	struct link ports; /* door_port */
	struct door_datagrams *datagrams; /* borrowed; NULL: none */
	uint64_t ports_again_ms; /* then those that could not be opened are tried */
	struct port_states port_states;
	uint64_t n_ports_changed; /* how often port_states was written */
	struct door_dial_back *dial_back; /* NULL: nobody dials back here */
	struct hand_over *for_relay;	  /* and for webgw's WebSocket, there. NULL: no listener is the relay's */
	struct hand_over *dial_backs;	  /* as well */
	uint32_t relay_places;		  /* beside max_visitors */
	void (*wake_for_relay)(void *owner);
	void *relay_owner;
	struct splice_pump *pump;
	bool pump_has_more;
	bool is_over; /* nothing is awaited any more */
	uint64_t kept_bytes;
	struct link kept, all, sniffing, connecting, lingering, gone;
	struct link trying, answering; /* CONNECTING while there is another to try; ANSWERING */
	struct link holding; /* ANSWERING, and has more to say: when the warm connection turns out to live */
	struct link silent;  /* SNIFFING, is_silent */
	uint32_t n_silent;
	struct door_warm warm;
	struct link warm_gone; /* freed at the end of the turn */
	uint64_t warm_due_ms;
	uint64_t n_chosen;
	uint64_t n_turns;
	uint64_t crowd_until_ms; /* visitors come many at a time */
	uint32_t n_events;	 /* of the last turn */
	bool may_look; /* before it sleeps */
	uint32_t n_looks_in_vain, n_not_to_look; /* 1, 3, 7 …; so many times it sleeps at once */
	uint64_t now_ms, due_ms; /* of this turn; when somebody is late */
	uint64_t n_in[N_STATES];
	uint64_t n_gated, tallied_ms, tallied_bytes; /* who went through a gate; when their bytes were told to it */
	struct front_door_counters counters;
	struct log_limit log_limit, targets_log_limit; /* targets': who is refused hides none of them */
	uint8_t seed[crypto_shorthash_KEYBYTES];
	uint16_t n_of_source[DOOR_SOURCES];
	struct sniffer sniffer;	      /* of who sends all at once */
	uint8_t scratch[SNIFFER_MAX]; /* the same */
};

/* ---- door_thread_visitors.c ---- */

/* fd is watched, by watch, for events. 0 or -errno. */
int door_watch(struct door_thread *door, int fd, struct watch *watch, uint32_t events);
/*
 * Is there a place for one more of this source? If not, that is counted. Where the relay has a port as well there are some
 * more, in which who comes may say whom he wants: visitors of others, however many, do not shut out the relay's. At that port
 * they are there also when as many are let in as may be.
 */
bool door_has_place(struct door_thread *door, uint16_t source, bool is_at_relays);
/* It is not the relay's: has it a place without those, which takes none from anybody? If not, that is counted. */
bool visitor_keeps_place(struct visitor *visitor);
/* The same of one who is refused, is counted for that, and would stay to read why. */
bool visitor_may_linger(const struct visitor *visitor);
uint16_t door_source_of(const struct door_thread *door, const struct endpoint *remote);
/* SNIFFING; its socket is taken over. */
struct visitor *visitor_new(struct door_thread *door, int fd, const struct endpoint *remote, uint16_t source);
/* Of the states that have a ring, with the time from which on it counts. */
void visitor_place(struct visitor *visitor, enum visitor_state state, struct link *ring);
/* From now on it is the pump's: PUMPED. The states of both ends and the head are set. */
void visitor_begin_pump(struct visitor *visitor);
/* The same of a pair that was set, in which nothing has moved for so long. */
void visitor_resume_pump(struct visitor *visitor, uint64_t quiet_ms);
/* Bytes of memory that are kept for it. */
void visitor_set_kept(struct visitor *visitor, size_t n);
void visitor_free_hello(struct visitor *visitor);
/* Its own socket; once. 0 or -errno. */
int visitor_watch(struct visitor *visitor);
/* Its sockets are closed: it is over. */
void visitor_forget(struct visitor *visitor);
/* Closed with a reset. Not for who is PUMPED. */
void visitor_turn_away(struct visitor *visitor);
/* The same, whatever its state. */
void visitor_cut(struct visitor *visitor);
/* The same as visitor_turn_away(), for want of descriptors. */
void visitor_turn_away_for_want(struct visitor *visitor);
/* Many who begin and do not go on: the memory of those who did so longest ago is freed. */
void door_keep_within_memory(struct door_thread *door);
/* Those of the ring that are over their time are turned away; when the next one is. UINT64_MAX: never. */
uint64_t door_expire(struct door_thread *door, const struct link *ring, uint64_t time_ms, uint64_t *counter);
/* splice_pump_options.ended */
void door_on_pair_ended(void *owner, struct splice_pair *pair, enum splice_outcome outcome);
/* Who went then: may no event point to it any more, once this turn is over? */
bool door_may_free(const struct door_thread *door, uint64_t gone_ms);
void door_free_gone(struct door_thread *door);
void door_end_all(struct door_thread *door);

/* A door has come and says nothing: it may wait, if not too many do, for longer than who has begun to speak. */
void visitor_may_be_silent(struct visitor *visitor);
/* Then it does; or goes. Accepts who was not silent. */
void visitor_is_heard(struct visitor *visitor);
/* The routes are others: those who are no doors any more go. */
void door_cut_silent(struct door_thread *door);

/* ---- door_thread_sniff.c ---- */

/* As far as it goes. It may be gone afterwards, as in all that turns visitors away. */
void visitor_sniff(struct visitor *visitor);
/* One that another door has sniffed so far: these bytes came of it. It may be gone afterwards. */
void visitor_sniff_again(struct visitor *visitor, const uint8_t *bytes, size_t n);
/* To the loop: fd, the visitor's own or another for it, is the loop's then. False: there is no room, which is counted. */
bool visitor_hand_over(const struct visitor *visitor, enum door_whose whose, int fd, const uint8_t *bytes, size_t n);
/* The watch of a visitor's own socket, before it is the pump's. */
void visitor_on_event(struct watch *watch, uint32_t events);

/* ---- door_thread_connect.c ---- */

/* destination: where it came to; NULL: as its socket says. bytes: all that came from it. */
void visitor_let_in(struct visitor *visitor, const struct sniffed *found, const struct endpoint *destination,
		    const uint8_t *bytes, size_t n);
/* It wants webgw's WebSocket, and keeps its place; bytes: all that came from it. */
void visitor_enter_webgw(struct visitor *visitor, const uint8_t *bytes, size_t n);
/* Both sockets are there, the target's is watched; what it was not given yet is in the pair's head. */
void visitor_hand_to_pump(struct visitor *visitor, const struct pump_end *target);

/*
 * A connection to target, or the one that visitor_claim_warm() gave it: with all that it gets before the pump has the pair. Else the
 * visitor has none yet.
 */
void visitor_connect(struct visitor *visitor, const struct door_route *route, const struct endpoint *target,
		     const struct sniffed *found, const struct endpoint *destination, const uint8_t *bytes, size_t n);
/* What happens to its target before the pump has it. */
void visitor_on_target(struct watch *watch, uint32_t events);
/* It was not reached, and there is no other. */
void visitor_not_reached(struct visitor *visitor, int error);

/* ---- door_thread_places.c ---- */

/* Of one that the door before led to one of the route's places: it counts there, if it still is one. */
void visitor_find_place(struct visitor *visitor, const struct door_route *route);

/* To one of the route's places. */
void visitor_choose_place(struct visitor *visitor, const struct door_route *route, const struct sniffed *found,
			  const uint8_t *bytes, size_t n);
/* The place has failed. True: the visitor is led to another, or gone; false: there is none. */
bool visitor_try_another(struct visitor *visitor);
/* The place is there. True: that it answers is awaited, or it has failed; false: the visitor is the pump's now. */
bool visitor_await_answer(struct visitor *visitor);
/* Of one that is ANSWERING. */
void visitor_on_answer(struct visitor *visitor, uint32_t events);
void visitor_says_more(struct visitor *visitor);
/* The same: it stays where it is, whatever comes of that. */
void visitor_stay(struct visitor *visitor);
/* The place that it was led to, if there is one, was not reached, or broke before it said a byte. */
void visitor_place_failed(struct visitor *visitor);
/* The pump is done with it. is_whole: both ways had their end. */
void visitor_judge_place(struct visitor *visitor, bool is_whole);
/* It has had its answer, or needs none: nothing is kept to try another. */
void visitor_drop_attempt(struct visitor *visitor);
size_t visitor_attempt_size(const struct visitor *visitor);
/* It leaves the place, and what is kept is freed. Accepts one that was led to none. */
void visitor_leave_place(struct visitor *visitor);
/* Those who have waited for a place for too long try another; when the next one has. */
uint64_t door_expire_tries(struct door_thread *door);

/* ---- door_thread_warm.c ---- */

/* Is there one for the next visitor? */
bool door_has_warm(const struct door_thread *door, const struct endpoint *target);
/* It is the visitor's target, watched as such. False: there is none. */
bool visitor_claim_warm(struct visitor *visitor, const struct endpoint *target);
/* A visitor has come for this target: more are made. */
void door_fill_warm(struct door_thread *door, const struct endpoint *target);
/* One that was claimed there has been answered; or was dead, and so may the others be. */
void door_warm_has_worked(struct door_thread *door, const struct endpoint *target);
void door_warm_was_dead(struct door_thread *door, const struct endpoint *target);
/* Those to which no visitor of these routes is led are closed. */
void door_check_warm(struct door_thread *door);
/* Closes what is late or old, and makes more; returns when to do so again. */
uint64_t door_tend_warm(struct door_thread *door);
/* Descriptors are short: visitors need them more. */
void door_close_warm(struct door_thread *door);
/* No event points to them any more. */
void door_free_gone_warm(struct door_thread *door);

/* ---- door_thread_header.c ---- */

/* bytes: all that came, beginning with a header. True: it waits for more; else it was let in or turned away. */
bool visitor_take_header(struct visitor *visitor, const uint8_t *bytes, size_t n);
/* It has been here before, or is about to be: turned away, and counted. */
void visitor_refuse_ring(struct visitor *visitor, const struct host_name *host);
/* Where it came to: said by its socket. */
struct endpoint visitor_own_end(const struct visitor *visitor);
/* Returns its length. destination: as in visitor_let_in(). */
size_t visitor_write_header(const struct visitor *visitor, enum door_header kind, const struct sniffed *found,
			    const struct endpoint *destination, uint8_t buf[DOOR_HEADER_MAX]);

/* ---- door_thread_gate.c ---- */

/* It is there, and counts; nothing is asked. */
void visitor_hold_gate(struct visitor *visitor, struct door_gate *gate);
/* False: it is not let through, which is counted. */
bool visitor_pass_gate(struct visitor *visitor, const struct door_route *route);
/* Accepts one that went through none. */
void visitor_leave_gate(struct visitor *visitor);
/* Ends who came through a gate that is shut now. Between turns. */
void door_cut_shut(struct door_thread *door);
/* Tells gates what was carried, at most once a second; returns when to do so again, UINT64_MAX: not before more is. */
uint64_t door_tally_gates(struct door_thread *door);

/* ---- door_thread_dial_back.c ---- */

/* The same bytes; WAITING, if an agent is asked for. */
void visitor_wait_for_agent(struct visitor *visitor, const struct sniffed *found, const uint8_t *bytes, size_t n);
/* Of whoever was WAITING, before it is anything else; its secret is no longer known. Accepts others. */
void visitor_end_dial(struct visitor *visitor, bool is_dialled);
/*
 * Of one that is PUMPED, or was until now: that its agent has answered it, or has not, is counted once it is known. Accepts others.
 */
void visitor_judge_agent(struct visitor *visitor);
/* Visitors and callers who are late; when the next is. */
uint64_t door_expire_dial_back(struct door_thread *door);
void door_free_gone_callers(struct door_thread *door);
/* No visitor is left. */
void door_close_dial_back(struct door_thread *door);

/* ---- door_thread_streams.c ---- */

/* Is led in; so that the door that runs next knows for whom. */
void visitor_note_host(struct visitor *visitor, const struct sniffed *found);

/* ---- door_thread_ports.c ---- */

/* The routes are others, or a port could be had. Between turns, or where nobody looks at listeners. */
void door_update_ports(struct door_thread *door);
/* As its operator says. */
bool door_may_open_port(const struct door_thread *door, const struct port_name *name);
/* Those that could not be opened, when it is time. Returns when that will be; UINT64_MAX: all are open. */
uint64_t door_retry_ports(struct door_thread *door);
void door_set_ports_accepting(struct door_thread *door, bool is_accepting);
void door_close_ports(struct door_thread *door);
/* To whom this port leads. It may be gone afterwards. */
void visitor_enter_port(struct visitor *visitor, const struct port_name *port);

/* ---- door_thread_accept.c ---- */

/* All but its watch is set. */
void door_listener_init(struct listener *listener);

/* Listeners are watched; their fds are borrowed. 0 or -errno. */
int door_open_listeners(struct door_thread *door, const int *listeners);
/* After descriptors had run out: asks in again when it is time. Returns when that will be; UINT64_MAX: all are asked in. */
uint64_t door_retry_accept(struct door_thread *door);
int door_open_spare(void);
