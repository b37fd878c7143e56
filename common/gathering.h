/*
 * How long a thread that serves many in turns may let come together what comes next. To wake up, and to give the
 * kernel a message or have one of it, costs as much as to forward several packets that are in one: so network cards
 * do with their interrupts. Pure.
 *
 *   turn ──► is it one of many that followed each other at once?  no ──► no pause
 *                         │ yes
 *            were its packets single ones?                        yes ──► as long as the turn took: so it begins
 *                         │                                             to grow at half of what we can do
 *            did it bring little?                                 yes ──► a short pause
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define GATHERING_HASTY_NS    200000 /* before a turn there was nothing to do for less: it is hasty */
#define GATHERING_PAUSE_NS    50000
#define GATHERING_SINGLE_NS   100000  /* of single packets: so long, or as long as the turn took … */
#define GATHERING_MAX_NS      1000000 /* … but no longer than this … */
#define GATHERING_EACH_NS     10000  /* … or this for each message: about what one less saves */
#define GATHERING_SINGLES     4	     /* fewer packets to a message are single ones … */
#define GATHERING_MANY	      256    /* … as long as there are fewer messages: else there is nothing to wait for */

struct gathering {
	/* options */
	uint32_t patience;     /* hasty turns before the first pause */
	uint64_t little_bytes; /* a turn that brings fewer brings little */
	/* zero at first */
	uint32_t n_hasty; /* in a row */
};

struct gathering_turn {
	uint64_t idle_ns, took_ns; /* before it, without the pause; and itself */
	uint64_t bytes;		   /* that it brought */
	uint64_t n_packets, n_messages;
	bool has_more; /* that it left for the next one */
};

/* Of single packets. */
static inline uint64_t gathering_longest_ns(const struct gathering_turn *turn)
{
	const uint64_t each_ns = turn->n_messages * GATHERING_EACH_NS;
	const uint64_t wanted_ns = turn->took_ns > GATHERING_SINGLE_NS ? turn->took_ns : GATHERING_SINGLE_NS;
	const uint64_t max_ns = each_ns < GATHERING_MAX_NS ? each_ns : GATHERING_MAX_NS;

	return wanted_ns < max_ns ? wanted_ns : max_ns;
}

/* After each turn: how long to sleep before the next; 0: not. */
static inline uint64_t gathering_pause_ns(struct gathering *gathering, const struct gathering_turn *turn)
{
	gathering->n_hasty = turn->idle_ns >= GATHERING_HASTY_NS	    ? 0
			     : gathering->n_hasty < gathering->patience ? gathering->n_hasty + 1
								      : gathering->n_hasty;
	if (gathering->n_hasty < gathering->patience || turn->has_more || turn->bytes == 0)
		return 0;
	if (turn->n_messages < GATHERING_MANY && turn->n_packets < GATHERING_SINGLES * turn->n_messages &&
	    gathering_longest_ns(turn) > GATHERING_PAUSE_NS)
		return gathering_longest_ns(turn);
	return turn->bytes < gathering->little_bytes ? GATHERING_PAUSE_NS : 0;
}
