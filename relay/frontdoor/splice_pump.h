/*
 * Copies between pairs of sockets, both ways, what is much without the bytes ever being in this process:
 *
 *               ┌────────────── pair ───────────────┐
 *               │ splice ►  pipe  ► splice          │      pipes come from a pool that all pairs share; a pair
 *    visitor ◄──┤                                   ├──►   holds one only while something waits in it
 *               │          splice ◄  pipe  ◄ splice │
 *               └───────────────────────────────────┘
 *    epoll edges ──► pairs with something to do ──► splice_pump_turn(): each a budget, one after the other
 *
 * What is decided stands in pump_fsm.h. The end of a stream goes on as an end (FIN), after all its bytes, and the other
 * way goes on; a reset goes on as a reset. A pair that moves nothing for idle_ms, or for half_closed_ms when one way
 * is done, is reset at both ends. What it was given and has not acknowledged yet is under way: so long as that becomes
 * less from one look to the next, the pair is not silent; who acknowledges nothing is reset at the second look.
 *
 * A reset takes away what its receiver's machine has not acknowledged. So when a pair is over because one end broke, the
 * other one leaves first: it is closed when all that it was given is acknowledged, and given up when for some
 * seconds nothing is. Until then what it still says is read for nobody, and the pair is not over.
 *
 * What is little, as requests and short answers are, passes through one buffer that all share: a pipe would cost more
 * calls than it saves copying. What the other end does not take of it then is kept, up to a bound for all; beyond, it
 * is a pipe's again.
 *
 * When no pipe is left (its bound, or that of the process's descriptors) bytes are copied through one buffer that all
 * share and nobody keeps: slower, but nobody waits for pipes that others hold.
 *
 * TCP's urgent byte itself is not passed on; what is before and behind it is.
 *
 * Memory: a pair without bytes under way has struct splice_pair, and nothing else. Pipes: at most max_pipes, of pipe_size.
 * What is kept: max_kept_bytes of all pairs, and a little.
 *
 * One thread, in which SIGPIPE is ignored or blocked.
 */
#pragma once

#include "common/macros.h"
#include "relay/frontdoor/link.h"
#include "relay/frontdoor/pump_fsm.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>

/* Where data.ptr of an epoll event points: whoever shares the epoll with a pump has these too. */
struct watch {
	void (*happened)(struct watch *watch, uint32_t events);
};

/*
 * What an end is watched for. EPOLLPRI: splice(2) stops in front of urgent data, for ever. EPOLLRDHUP: who reads less
 * than it asked for knows whether that was the last, without asking again.
 */
#define SPLICE_EVENTS	      (EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLET)
#define SPLICE_EVENTS_OF_FULL (SPLICE_EVENTS | EPOLLOUT) /* who did not take all */

struct splice_pump;
struct splice_pipe;

enum splice_outcome {
	SPLICE_DONE,	 /* both ways had their end */
	SPLICE_RESET,	 /* one end broke */
	SPLICE_TIMED_OUT, /* idle, or half closed, for too long */
};

struct splice_end {
	struct watch watch; /* what epoll knows this socket by */
	struct splice_pair *pair;
	int fd;
	struct pump_end state;
	bool is_urgent; /* it has sent urgent data: from then on it is copied, not spliced */
	bool has_hung_up; /* an edge told that its end has come; what is before it may be unread */
	bool is_watched_for_room; /* SPLICE_EVENTS_OF_FULL, and not SPLICE_EVENTS: before it is needed the pump sees to it */
	bool is_prompt; /* TCP_NODELAY is set, which the pump does before it gives it anything */
	/* Of who leaves: */
	bool has_ended;	       /* it says nothing more */
	uint32_t unacknowledged; /* bytes, when it was looked at last */
	uint64_t got_ms;       /* when they became fewer */
};

/* From ends[i] to ends[1 - i]. */
struct splice_flow {
	struct pump_flow state;
	struct splice_pipe *pipe; /* with what waits; NULL: it is in head, or nothing waits */
	uint8_t *head;		  /* goes first; owned, of malloc(); NULL: none */
	size_t head_at;
	size_t head_size; /* of its memory */
	bool is_bulk;	  /* much comes at a time: it goes through a pipe */
	uint64_t n_bytes; /* given to the other end */
	bool is_finished; /* and so was the end */
};

/* In memory of the caller's, all zero before it is begun. What is in it is the pump's. */
struct splice_pair {
	struct splice_end ends[2];
	struct splice_flow flows[2];
	struct link busy; /* in a ring while there is something to do */
	struct link quiet; /* by when something moved last */
	uint64_t moved_ms; /* of who leaves: when they were looked at */
	bool is_leaving;
	uint8_t left_silent; /* 1 + i: ends[i] ended, or broke, without having said a byte, while the other was whole; 0: none has */
	uint32_t unacknowledged; /* of both ends, when nothing had moved for its time; 0: it has */
	struct splice_pump *pump; /* NULL: not begun */
};

struct splice_pump_options {
	int epoll_fd; /* which has the ends */
	uint32_t max_pipes;
	size_t pipe_size; /* bytes; the kernel may give less */
	size_t budget;	  /* bytes of one flow in one turn */
	size_t turn_bytes; /* and of all: who had no turn then is the first in the next */
	size_t max_kept_bytes; /* about, of all pairs: read from the one end, and not taken by the other */
	uint64_t idle_ms, half_closed_ms;
	void *owner;
	/*
	 * The pair is over, its sockets are closed and epoll knows them no more. The memory is the caller's again; but
	 * events that were fetched before may still point to it: it is freed when those have happened.
	 */
	void (*ended)(void *owner, struct splice_pair *pair, enum splice_outcome outcome);
};

struct splice_pump_counters {
	uint64_t bytes[2];	 /* from ends[0], from ends[1] */
	uint64_t bytes_copied;	 /* of these, for want of a pipe */
	uint64_t pipes_in_use, pipes_open;
	uint64_t done, reset, timed_out; /* pairs */
};

struct splice_pump *splice_pump_new(const struct splice_pump_options *options);
/* No pair is left. Accepts NULL. */
void splice_pump_free(struct splice_pump *pump);
/*
 * The sockets ends[i].fd, non-blocking, belong to the pump from now on. They are in an epoll with the ends' watches
 * and SPLICE_EVENTS, and ends[i].state says what is known of them: true where in doubt. Edges that came before are not
 * needed again, if splice_end_note() was told of them.
 */
void splice_pair_begin(struct splice_pump *pump, struct splice_pair *pair, uint64_t now_ms);
/* An event that came before splice_pair_begin(): that an end has hung up, or broken, is not told twice. */
void splice_end_note(struct splice_end *end, uint32_t events);
/*
 * Bytes that were read from ends[0] already, for ends[1]; before splice_pair_begin(). bytes: of malloc(), taken over;
 * not none.
 */
void splice_pair_set_head_take(struct splice_pair *pair, uint8_t *bytes, size_t len);
/* The same the other way: read from ends[1], for ends[0]. */
void splice_pair_set_answer_take(struct splice_pair *pair, uint8_t *bytes, size_t len);
/* The first n of such bytes are there already; of a pair that has not begun. */
void splice_pair_skip_head(struct splice_pair *pair, size_t n);
/* Frees such bytes of a pair that will not begin. Accepts a pair that has none. */
void splice_pair_drop_head(struct splice_pair *pair);
/* Resets both ends, at once; ended() is not called. The pair must be begun. */
void splice_pair_cut(struct splice_pump *pump, struct splice_pair *pair);
/*
 * A pair on its way to another program's pump: what it is at, its sockets, and what waits in it.
 *
 *   splice_pump_quietest ─► splice_pair_save ─► (to the other program) ─► splice_pair_let_go ┄┄► splice_pair_set ─► …_resume
 */
struct splice_saved {
	struct {
		int fd;
		bool is_urgent, is_broken, is_prompt;
	} ends[2];
	struct {
		struct pump_flow state;
		int pipe_out, pipe_in; /* with what waits; -1: it is in head, or nothing waits */
		const uint8_t *head;   /* state.waiting bytes; NULL: none */
		bool is_bulk, is_finished;
		uint64_t n_bytes;
	} flows[2];
	uint64_t quiet_ms; /* nothing has moved for so long */
};

/* The pair in which nothing has moved for longest, of those of which one way is done, or of the others. NULL: there is none. */
struct splice_pair *splice_pump_quietest(const struct splice_pump *pump, bool is_half_closed);
/* All in *ret is borrowed from the pair. The pair must be begun, and not leave. */
void splice_pair_save(const struct splice_pair *pair, uint64_t now_ms, struct splice_saved *ret);
/* Closes its descriptors, of which there are copies now: neither end hears of it. ended() is not called. */
void splice_pair_let_go(struct splice_pump *pump, struct splice_pair *pair);
/* In place of splice_pair_begin(), in a pair that is all zero. Takes descriptors over; head is copied. */
void splice_pair_set(struct splice_pump *pump, struct splice_pair *pair, const struct splice_saved *saved);
/* When both ends are watched, for SPLICE_EVENTS_OF_FULL. Those that are quiet for longest come first. */
void splice_pair_resume(struct splice_pump *pump, struct splice_pair *pair, uint64_t quiet_ms, uint64_t now_ms);
/* Of a pair that was set and will not be resumed: what waits is thrown away, the sockets are the caller's again. */
void splice_pair_unset(struct splice_pump *pump, struct splice_pair *pair);
/* Moves what can be moved, each pair by its budget, until turn_bytes were. True when there is more to do at once. */
bool splice_pump_turn(struct splice_pump *pump, uint64_t now_ms);
/* Ends what is silent for too long, and looks after who leaves; returns when to look again, UINT64_MAX: never. */
uint64_t splice_pump_expire(struct splice_pump *pump, uint64_t now_ms);
struct splice_pump_counters splice_pump_counters(const struct splice_pump *pump);
/* The next who closes it sends a reset instead of an end. */
void splice_close_with_reset(int fd);
