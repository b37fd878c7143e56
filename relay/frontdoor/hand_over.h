/*
 * Visitors of the front door who want the node itself, its relay or webgw, on their way from the door's thread to the loop: what they
 * want, the descriptor, who it is, and what was read of it already.
 *
 *   door's thread ── hand_over_put ──► [ at most HAND_OVER_MAX visitors, HAND_OVER_BYTES in all ] ── take ──► loop
 *                        └ false: full, counted by who puts: the visitor is reset
 *
 * So many of them are of one source as the queue was made for, with HAND_OVER_MAX_HELLO bytes each: none fills it alone. There are two
 * queues: an agent dials back once for each of its visitors, and a burst of these neither takes places of the relay's clients, nor has as few.
 *
 * Who it is comes with it, from who accepted it: who counts by address counts right. What is left when the queue is freed is
 * closed with it.
 */
#pragma once

#include "common/endpoint.h"
#include "common/ring.h"
#include "relay/frontdoor/door_share.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HAND_OVER_MAX	     1024
#define HAND_OVER_MAX_SOURCE 64 /* as many handshakes as the relay has of one */
#define HAND_OVER_MAX_DIALS  256 /* and webgw of one that dials back */
#define HAND_OVER_MAX_HELLO  8192 /* what members send before they are answered is 300 to 2,000 bytes */
#define HAND_OVER_BYTES	     (1u << 20)

struct hand_over {
	struct ring ring;
	_Atomic uint32_t n_waiting;
	uint32_t max_source;
	_Atomic uint16_t n_of_source[UINT16_MAX + 1]; /* waiting */
};

struct handed_over {
	int fd;
	enum door_whose whose; /* RELAY, WEBGW or DIAL_BACK */
	uint32_t n;
	uint16_t source;
	struct endpoint remote;
	uint8_t bytes[]; /* n; what came first, to be read before what the socket has */
};

void hand_over_init(struct hand_over *queue, uint32_t max_source);
/* Neither thread uses it any more. */
void hand_over_deinit(struct hand_over *queue);
/*
 * The door's thread: fd is the loop's from now on, which is woken by the caller. source: a hash of remote. False: full, also
 * for this source alone, or n is over HAND_OVER_MAX_HELLO; fd stays the caller's.
 */
bool hand_over_put(struct hand_over *queue, enum door_whose whose, int fd, const struct endpoint *remote, uint16_t source,
		   const uint8_t *bytes, size_t n);
/* The loop: who has waited longest, valid until it is done; its fd is the caller's. NULL: nobody. */
const struct handed_over *hand_over_peek(struct hand_over *queue);
void hand_over_done(struct hand_over *queue);
