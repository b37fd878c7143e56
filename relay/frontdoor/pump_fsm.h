/*
 * What a copier between two sockets does next. Two flows, one each way; each is asked by itself:
 *
 *   from ──fill──► pipe ──drain──► to
 *
 *     something waits ─► `to` takes more? ─ no ──► REST
 *                              └ yes ► DRAIN, until nothing waits
 *     nothing waits ─┬─ `from` has ended ─┬─ whole ───► FINISH: the end is passed on as an end (FIN)
 *                    │                    └─ cut off ─► RESET: nobody takes what was cut off for the whole
 *                    ├─ `from` has nothing, or `to` takes nothing ──► REST
 *                    ├─ the turn's budget is used up ──► YIELD
 *                    └─ else ──► FILL
 *     `to` is broken ──► DISCARD: nobody is there who would take it
 *
 * A flow that rests holds as little as can be: nothing is fetched for somebody who does not read. What a broken end
 * has sent before it broke still goes to the other, as it would without a copier in between.
 *
 * Whether a socket has something to read or room to write is known by edges: true until the kernel says EAGAIN, or gives
 * less than was asked for; false until it tells the next edge. So no socket is asked in vain twice, and none is forgotten. A broken end is
 * readable until its end was read.
 *
 * Pure.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pump_end {
	bool is_readable, is_writable; /* as far as known */
	bool is_broken;		       /* reset, or failed: what came from it may lack its rest */
};

struct pump_flow {
	size_t waiting;	 /* bytes that were taken from the one and are not yet given to the other */
	bool has_ended;	 /* the last byte was read */
	bool is_cut_off; /* and it was the last because `from` was broken by then: what breaks later cuts off nothing */
	bool is_done;	 /* and passed on with its end; or nobody takes it */
};

enum pump_deed {
	PUMP_REST,    /* until an edge */
	PUMP_YIELD,   /* until the others had their turn */
	PUMP_DRAIN,   /* to `to`, what waits */
	PUMP_FILL,    /* from `from` */
	PUMP_FINISH,  /* tell `to` that this was all */
	PUMP_DISCARD, /* throw away what waits; this flow is done */
	PUMP_RESET,   /* end both with a reset */
	PUMP_N_DEEDS
};

enum pump_deed pump_next(const struct pump_flow *flow, const struct pump_end *from, const struct pump_end *to,
			 size_t budget);
/* An epoll edge. has_failed: EPOLLERR. */
void pump_edge(struct pump_end *end, bool readable, bool writable, bool has_failed);
