/*
 * How long has the other side owed us a sign of life? A question that waits behind our own full uplink has not been
 * asked yet.
 *
 *   question sent ──► in our queue ──► acknowledged by the other side's kernel ──► answered
 *                     │ what is before it moves on:      │
 *                     │ patience begins anew             └ patience begins: now it is the other side's turn
 *                     └ nothing moves: patience goes on
 *
 * Acknowledgements alone are no sign of life: the kernel of a relay that hangs gives them, until its window is
 * full. Pure; bytes are those of the stream, counted from its begin.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define UPLINK_LOOK_MS 50 /* look so often while a question waits */

struct uplink_watch {
	uint64_t end;	   /* the question's last byte; 0: not yet given to the socket */
	uint64_t acked;	   /* bytes, as of the last look */
	uint64_t since_ms; /* patience counts from here */
	bool is_queued;    /* there was a queue, and the question is not acknowledged yet */
};

/* A question was asked; so many bytes were sent before, and of these so many were acknowledged. */
void uplink_watch_ask(struct uplink_watch *watch, uint64_t now_ms, uint64_t sent, uint64_t acked);
/* It was given to the socket, and ends with this byte. Later calls for the same question are ignored. */
void uplink_watch_sent(struct uplink_watch *watch, uint64_t end);
/* So much is acknowledged now. */
void uplink_watch_look(struct uplink_watch *watch, uint64_t now_ms, uint64_t acked);
