/*
 * Copies between pairs of sockets (relay/frontdoor/splice_pump.h) on a libuv loop: for an agent whose visitors' connections are
 * without TLS of ours.
 *
 *   epoll of the pump ──► uv_poll ──► a turn: events, a budget for each pair, ends ──► more to do: a turn of the loop later
 *
 * What ends, how, and when somebody silent is reset is the pump's. Not bounded here: the owner asks for the count.
 *
 * Loop only.
 */
#pragma once

#include "common/macros.h"

#include <stddef.h>
#include <stdint.h>
#include <uv.h>

struct raw_pairs;

/* Zeroed at first. */
struct raw_pairs_counter {
	uint32_t now;	     /* pairs */
	uint64_t unanswered; /* that broke before `to` had said a byte */
};

/* 0 or -errno. */
P2P_CHECK int raw_pairs_new(uv_loop_t *loop, struct raw_pairs **ret);
/*
 * Both sockets are TCP's, non-blocking; `to` may still be connecting. They and head_take are taken over, also on failure. head_take: of
 * malloc(), goes to `to` before what is read of `from`; NULL: nothing. counter: borrowed until all
 * is closed. 0 or -errno.
 */
P2P_CHECK int raw_pairs_begin(struct raw_pairs *pairs, int from_take, int to_take, uint8_t *head_take, size_t n_head,
			      struct raw_pairs_counter *counter);
uint32_t raw_pairs_count(const struct raw_pairs *pairs);
/* Resets what there is, frees itself from the loop, then calls closed. */
void raw_pairs_close(struct raw_pairs *pairs, void (*closed)(void *owner), void *owner);
