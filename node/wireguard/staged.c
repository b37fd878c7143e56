#include "node/wireguard/staged.h"

#include "node/wireguard/device.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MAX_PADDING 15

int wg_staged_pool_init(struct wg_staged_pool *pool, uint32_t n, uint32_t max_size)
{
	size_t stride = (size_t)WG_HEADROOM + max_size + MAX_PADDING + WG_TAG_LEN;

	*pool = (struct wg_staged_pool){ .max_size = max_size };
	pool->slots = calloc(n, sizeof(*pool->slots));
	pool->memory = calloc(n, stride); /* untouched pages cost nothing */
	if (!pool->slots || !pool->memory) {
		wg_staged_pool_deinit(pool);
		return -ENOMEM;
	}
	for (uint32_t i = n; i-- > 0;) {
		pool->slots[i].packet = pool->memory + i * stride + WG_HEADROOM;
		wg_staged_release(pool, &pool->slots[i]);
	}
	return 0;
}

void wg_staged_pool_deinit(struct wg_staged_pool *pool)
{
	free(pool->slots);
	free(pool->memory);
	*pool = (struct wg_staged_pool){ 0 };
}

static void age_add(struct wg_staged_pool *pool, struct wg_staged *staged)
{
	staged->older = pool->youngest;
	staged->younger = NULL;
	if (pool->youngest)
		pool->youngest->younger = staged;
	else
		pool->oldest = staged;
	pool->youngest = staged;
}

static void age_remove(struct wg_staged_pool *pool, struct wg_staged *staged)
{
	if (staged->older)
		staged->older->younger = staged->younger;
	else
		pool->oldest = staged->younger;
	if (staged->younger)
		staged->younger->older = staged->older;
	else
		pool->youngest = staged->older;
}

/* Queues are first in, first out, so the oldest of all heads its own queue. */
static void drop_oldest(struct wg_staged_pool *pool, struct wg_staged_queue *queue)
{
	wg_staged_release(pool, wg_staged_pop(pool, queue));
}

unsigned wg_staged_push(struct wg_staged_pool *pool, struct wg_staged_queue *queue,
			const uint8_t *packet, uint32_t size)
{
	unsigned n_dropped = 0;

	assert(size <= pool->max_size);
	if (queue->n >= WG_STAGED_MAX || !pool->free) {
		drop_oldest(pool, queue->n >= WG_STAGED_MAX ? queue : pool->oldest->queue);
		n_dropped = 1;
	}
	struct wg_staged *staged = pool->free;
	pool->free = staged->next;
	memcpy(staged->packet, packet, size);
	staged->size = size;
	staged->queue = queue;
	staged->next = NULL;
	if (queue->last)
		queue->last->next = staged;
	else
		queue->first = staged;
	queue->last = staged;
	queue->n++;
	age_add(pool, staged);
	return n_dropped;
}

struct wg_staged *wg_staged_pop(struct wg_staged_pool *pool, struct wg_staged_queue *queue)
{
	struct wg_staged *staged = queue->first;

	if (!staged)
		return NULL;
	queue->first = staged->next;
	if (!queue->first)
		queue->last = NULL;
	queue->n--;
	age_remove(pool, staged);
	return staged;
}

void wg_staged_release(struct wg_staged_pool *pool, struct wg_staged *staged)
{
	staged->next = pool->free;
	staged->queue = NULL;
	pool->free = staged;
}

unsigned wg_staged_purge(struct wg_staged_pool *pool, struct wg_staged_queue *queue)
{
	unsigned n = queue->n;

	while (queue->n > 0)
		drop_oldest(pool, queue);
	return n;
}
