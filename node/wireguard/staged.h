/*
 * Packets that wait for a key: a pool of fixed size for the whole device, a queue per peer.
 *
 * When a peer has 128, its oldest goes; when the pool is empty, the oldest of all goes. So a burst
 * to peers that do not answer cannot keep others from waiting.
 */
#pragma once

#include "common/macros.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct wg_staged {
	struct wg_staged *next;		    /* in the peer's queue */
	struct wg_staged *older, *younger; /* among all that wait */
	struct wg_staged_queue *queue;
	uint32_t size;
	uint8_t *packet; /* with WG_HEADROOM before it, and room for padding and tag behind */
};

/* Of a peer. All zero: empty. */
struct wg_staged_queue {
	struct wg_staged *first, *last;
	uint32_t n;
};

struct wg_staged_pool {
	struct wg_staged *slots;
	uint8_t *memory;
	struct wg_staged *free;
	struct wg_staged *oldest, *youngest;
	uint32_t max_size;
};

P2P_CHECK int wg_staged_pool_init(struct wg_staged_pool *pool, uint32_t n, uint32_t max_size);
void wg_staged_pool_deinit(struct wg_staged_pool *pool);

/* Copies the packet (size <= max_size). Returns how many others had to go: 0 or 1. */
unsigned wg_staged_push(struct wg_staged_pool *pool, struct wg_staged_queue *queue, const uint8_t *packet,
			uint32_t size);
/* The oldest of the queue, or NULL. It stays valid until wg_staged_release(). */
struct wg_staged *wg_staged_pop(struct wg_staged_pool *pool, struct wg_staged_queue *queue);
void wg_staged_release(struct wg_staged_pool *pool, struct wg_staged *staged);
/* Returns how many there were. */
unsigned wg_staged_purge(struct wg_staged_pool *pool, struct wg_staged_queue *queue);
