/*
 * Peers that control shall wake (node.wake): each once, all that wait in one call, one call at a time. What the
 * connection to control is for must not suffer: it is never asked often, and seldom when it refuses.
 *
 *   add ──► waiting ── take (0.2 s after the last one) ──► in flight ── answered ──► waiting …
 *             │ 5 s                                                  refused: not before 10, 20 … 320 s later
 *             └──► dropped: who still hears nothing says so again      unknown: never again, by this connection
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
	bool is_unknown; /* to this control, one of before */
	uint32_t n_refused; /* in a row */
	uint64_t not_before_ms;
	uint64_t n_dropped;
};

void wake_queue_add(struct wake_queue *queue, uint32_t peer_id, uint64_t now_ms);
/* Whom to wake now, with one call; 0: nobody, or not yet. */
uint32_t wake_queue_take(struct wake_queue *queue, uint64_t now_ms, uint32_t ret[WAKE_QUEUE_MAX]);
enum wake_answer { WAKE_DONE, WAKE_REFUSED, WAKE_UNKNOWN };

/* The call is over. UNKNOWN: control does not know how; each further question would count as an error there. */
void wake_queue_answered(struct wake_queue *queue, enum wake_answer answer, uint64_t now_ms);
/* A new connection: what waited, and what was refused or unknown, was the old one's. Control may be a newer one now. */
void wake_queue_reset(struct wake_queue *queue);
/* When wake_queue_take() may give some; 0: not before something else happens. */
uint64_t wake_queue_due_ms(const struct wake_queue *queue);
