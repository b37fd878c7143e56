/*
 * Many streams over one connection, none of which keeps another waiting.
 *
 *                  next ◄── urgent: pong, ping, windows, resets ◄── urgent streams: OPEN, WINDOW, END
 *   connection ◄────┴───────────────────── in turn, a frame each ◄── streams that may send DATA
 *
 *   connection ────► receive ──► event (opened, data, ended, reset …) ──► the owner gives it to the stream's socket,
 *                                                                         and says when that has `consumed` it
 *
 * Nothing is kept here but numbers: what is to be sent stays in the stream's socket until it is its turn, and what
 * was received is the owner's, who may hold so much of it as was let be sent (a window), and no more:
 *
 *   window = may_receive (the other side may send it still) + held (received, not consumed) + unreported (consumed)
 *
 * in bytes, of a stream, and of all together. Whenever something is consumed the other side is told of it if that is
 * not less than what it may still send: at half of an empty window, and early enough however much of it is held.
 * A stream's window doubles when it is used up within two round trips, up to a bound, and as long as others leave twice
 * that: so a long way is filled, and no few have all memory. While more than half of it is held, who holds more than its
 * part of that half is told of nothing. When three quarters are held, those that take (almost) nothing for long are
 * reset, who holds most first. Who sends more than it may is not spoken to any more.
 *
 * A stream on which nothing moves is ended: late, or soon by who was told the other side's end, and neither holds what its
 * socket still takes, nor waits to be let send. Who has only said its own end cannot see how that is taken.
 *
 * An end is of one way. A stream is over when both ways have ended, or by a reset. What is held for it then takes a
 * place still, of which there are not more than twice as many as streams; they are taken from who reads nothing.
 * Ids are odd for who began the connection and even for the other, without gaps, never used again; what comes late for
 * one that is gone is counted as consumed and forgotten.
 *
 * Pure: no I/O, no clock, no allocation; a stream's memory is the owner's. One thread at a time.
 */
#pragma once

#include "common/token_bucket.h"
#include "relay/diglett/mux_wire.h"

#define MUX_STREAM_WINDOW  65536  /* at first */
#define MUX_SESSION_WINDOW 262144 /* at first, of all streams together */
#define MUX_PROGRESS	   16384  /* who takes fewer bytes in stalled_ms (or than a 32nd of all), and not all, is stalled */
#define MUX_BUCKETS	   256

/* In a ring of its own when in none. */
struct mux_link {
	struct mux_link *next, *previous;
};

/* The owner's memory, from mux_fsm_open() or _accept() until mux_fsm_close(). Fields are the machine's, but owner. */
struct mux_stream {
	void *owner;
	uint32_t id; /* 0: not yet told to the other side */
	uint16_t port;
	struct endpoint visitor;
	struct mux_stream *next_in_bucket;
	struct mux_link all, urgent, turn; /* which rings it is in */
	uint64_t may_send;
	uint32_t may_receive, held, unreported;
	uint32_t grown, growth; /* more than MUX_STREAM_WINDOW by so much; what of it is not yet told */
	uint32_t taken;		/* since taken_us */
	uint64_t granted_us;	/* when a window was last given */
	uint64_t taken_us;	/* when it last had taken enough, or had nothing to take */
	uint64_t moved_us;	/* when a byte of it, its end or a window came, or bytes were taken, or fetched */
	bool is_ours;
	bool is_readable; /* its source may have something */
	bool ends;	  /* its source has ended: END is to be sent */
	bool has_ended, other_has_ended, is_reset;
};

struct mux_settings {
	bool is_initiator;
	uint32_t max_ours, max_theirs; /* streams at once, MUX_MAX_STREAMS at most; 0: none may be opened */
	uint32_t open_burst, open_each_ms; /* of theirs: so many at once, then one in so many ms */
	uint32_t session_window;    /* bytes; MUX_SESSION_WINDOW … MUX_MAX_WINDOW / 2 */
	uint32_t max_stream_window; /* bytes; MUX_STREAM_WINDOW … MUX_MAX_WINDOW / 2 */
	uint32_t ping_ms;	    /* a question every so often */
	uint32_t dead_ms;	    /* the end, when nothing was heard for so long, or no question answered for twice that */
	uint32_t idle_ms, half_closed_ms; /* a stream's end, when so long nothing moved; the same when the other side has ended; 0: never */
	uint32_t stalled_ms;	    /* how long who takes nothing is let be when memory or places are needed */
};

struct mux_reset {
	uint32_t id;
	uint8_t reason;
};

struct mux_counters {
	uint64_t opened, refused, resets_sent, resets_received, stalled, idle;
	uint64_t late; /* frames for streams that were gone */
};

struct mux_fsm {
	struct mux_settings settings;
	struct mux_stream *buckets[MUX_BUCKETS];
	struct mux_link all, urgent, turn;
	uint32_t last_ours, last_theirs;
	uint32_t n_ours, n_theirs;     /* until they are closed; until they are over on the wire */
	uint32_t n_lingering;	       /* theirs that are over and not closed */
	uint32_t offered;	       /* an OPEN that the owner has not answered; 0: none */
	struct mux_frame offer;
	uint64_t may_send;
	uint32_t may_receive, held, unreported;
	uint32_t grown; /* of all streams */
	struct mux_reset resets[3 * MUX_MAX_STREAMS]; /* to be sent, from first_reset on, round */
	uint32_t first_reset, n_resets, n_resets_theirs;
	struct token_bucket opens;
	bool is_draining; /* they said that they leave */
	bool owes_pong, owes_ping, awaits_pong;
	uint64_t pong_token, ping_token;
	uint64_t heard_us, pinged_us, rtt_us; /* rtt 0: not yet known */
	struct mux_counters counters;
};

enum mux_event_type {
	MUX_EV_NONE,
	MUX_EV_OPENED, /* accept or refuse it now: mux->offer.open tells what it is */
	MUX_EV_CAME,   /* data */
	MUX_EV_ENDED,
	MUX_EV_RESET,	/* close it */
	MUX_EV_STALLED, /* close it */
	MUX_EV_IDLE,	/* close it, or say that it has mux_fsm_moved() */
	MUX_EV_LEAVES,	/* they end the connection */
	MUX_EV_DEAD,	/* nothing is heard of them, nothing answered, or no id is left: end the connection */
};

struct mux_event {
	enum mux_event_type type;
	struct mux_stream *stream;
	const uint8_t *bytes; /* CAME: borrowed */
	size_t len;
	uint8_t reason; /* RESET, LEAVES */
};

/* Rules that the other side broke: the connection is closed, with GOAWAY. */
enum mux_violation {
	MUX_BAD_ID = 1,	  /* of an OPEN: not the next of that side */
	MUX_UNKNOWN,	  /* no such stream was ever opened */
	MUX_OVERRUN,	  /* more data than the window */
	MUX_AFTER_END,	  /* data, or another end */
	MUX_WINDOW_OVER,  /* more than MUX_MAX_WINDOW in all */
	MUX_BAD_PONG,	  /* that answers nothing; or a PING before the last was answered, which would be a flood */
	MUX_FLOOD,	  /* of OPENs that were refused, and of whose refusal nothing is read */
	MUX_BAD_TYPE,
};

enum mux_send_type {
	MUX_SEND_NOTHING,
	MUX_SEND_FRAME,	 /* write .frame; an END's .stream may be over then */
	MUX_SEND_STREAM, /* fetch up to .max bytes for .stream; then mux_fsm_sent() */
};

struct mux_send {
	enum mux_send_type type;
	struct mux_frame frame;
	struct mux_stream *stream;
	size_t max;
};

enum mux_source {
	MUX_HAS_MORE, /* perhaps */
	MUX_DRAINED,  /* nothing until mux_fsm_readable() */
	MUX_AT_END,
};

/* settings: their bounds are asserted. */
void mux_fsm_init(struct mux_fsm *mux, const struct mux_settings *settings, uint64_t now_us);

/* What came: 0 and at most one event, or an enum mux_violation. */
P2P_CHECK int mux_fsm_receive(struct mux_fsm *mux, const struct mux_frame *frame, uint64_t now_us,
			      struct mux_event *ret);
/* The answer to MUX_EV_OPENED, before anything else is received. */
void mux_fsm_accept(struct mux_fsm *mux, struct mux_stream *stream, uint64_t now_us);
void mux_fsm_refuse(struct mux_fsm *mux, uint8_t reason);

/* A stream of ours, which goes out in its turn. False: there are too many, they leave, or no id is left. */
P2P_CHECK bool mux_fsm_open(struct mux_fsm *mux, struct mux_stream *stream, uint16_t port,
			    const struct endpoint *visitor, uint64_t now_us);
/* Its source may have something to send, or has ended. */
void mux_fsm_readable(struct mux_fsm *mux, struct mux_stream *stream);
/* n of the bytes that were held for it were taken by its socket, or thrown away. */
void mux_fsm_consumed(struct mux_fsm *mux, struct mux_stream *stream, size_t n, uint64_t now_us);
/* Its socket gives on what it has taken before: it is not idle. */
void mux_fsm_moved(struct mux_stream *stream, uint64_t now_us);
/* Both ways have ended, and all was taken: close it. */
bool mux_fsm_is_over(const struct mux_stream *stream);
/* Gone from here, with all that was held for it; a reset tells the other side if it was not over. */
void mux_fsm_close(struct mux_fsm *mux, struct mux_stream *stream, uint8_t reason);
/* One after the other, NULL after the last: for who closes all. */
struct mux_stream *mux_fsm_any(const struct mux_fsm *mux);

/* What goes out next, in a message with room for `room` more bytes; nothing if these are fewer than MUX_MAX_CONTROL. */
void mux_fsm_next(struct mux_fsm *mux, size_t room, uint64_t now_us, struct mux_send *ret);
/* After MUX_SEND_STREAM, at once: n bytes (0 … max) were fetched. */
void mux_fsm_sent(struct mux_fsm *mux, struct mux_stream *stream, size_t n, enum mux_source source);

/* Once a second or so, until it has no event. */
void mux_fsm_tick(struct mux_fsm *mux, uint64_t now_us, struct mux_event *ret);
/* Aborts if the numbers do not fit together. For tests. */
void mux_fsm_check(const struct mux_fsm *mux);
