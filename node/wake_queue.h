/*
 * Peers that control shall wake (node.wake): each once, all that wait in one call, one call at a time. What the
 * connection to control is for must not suffer: it is never asked often, and seldom when it refuses.
 *
 *   add ──► waiting ── take (0.2 s after the last one) ──► in flight ── answered ──► waiting …
 *             │ 5 s                                                  refused: not before 10, 20 … 320 s later
 *             └──► dropped: who still hears nothing says so again
 *
 * Pure; times are of one monotonic clock.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define WAKE_QUEUE_MAX 64 /* one more is dropped, and counted */

struct wake_queue {
	uint32_t n;
	struct waiting_wake {
		uint32_t peer_id;
		uint64_t since_ms;
	} waiting[WAKE_QUEUE_MAX]; /* oldest first */
	bool in_flight;
	uint32_t n_refused; /* in a row */
	uint64_t not_before_ms;
	uint64_t n_dropped;
};

void wake_queue_add(struct wake_queue *queue, uint32_t peer_id, uint64_t now_ms);
/* Whom to wake now, with one call; 0: nobody, or not yet. */
uint32_t wake_queue_take(struct wake_queue *queue, uint64_t now_ms, uint32_t ret[WAKE_QUEUE_MAX]);
/* The call is over. */
void wake_queue_answered(struct wake_queue *queue, bool was_refused, uint64_t now_ms);
/* A new connection: what waited, and what was refused, was the old one's. */
void wake_queue_reset(struct wake_queue *queue);
/* When wake_queue_take() may give some; 0: not before something else happens. */
uint64_t wake_queue_due_ms(const struct wake_queue *queue);
