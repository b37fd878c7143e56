#include "common/ring.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Before each record. A length of SKIP: nothing more up to the end of the buffer. */
struct record {
	uint64_t len;
};
#define SKIP UINT64_MAX

static uint64_t span(size_t len)
{
	return sizeof(struct record) + ((len + 7) & ~(uint64_t)7);
}

static struct record *record_at(struct ring *ring, uint64_t position)
{
	return (struct record *)(void *)(ring->bytes + (position & (ring->size - 1)));
}

void ring_init(struct ring *ring, size_t size)
{
	memset(ring, 0, sizeof(*ring));
	ring->size = 64;
	while (ring->size < size)
		ring->size *= 2;
	ring->bytes = malloc(ring->size);
	if (!ring->bytes)
		abort();
}

void ring_deinit(struct ring *ring)
{
	free(ring->bytes);
	ring->bytes = NULL;
}

/* Room while no more than `limit` bytes are in use. */
static void *reserve(struct ring *ring, size_t len, uint64_t limit)
{
	uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
	uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_acquire);
	uint64_t to_end = ring->size - (head & (ring->size - 1));
	uint64_t skip = span(len) > to_end ? to_end : 0;

	if (len > ring->size || head + skip + span(len) - tail > limit) {
		atomic_fetch_add_explicit(&ring->n_dropped, 1, memory_order_relaxed);
		return NULL;
	}
	if (skip)
		record_at(ring, head)->len = SKIP;
	struct record *record = record_at(ring, head + skip);
	record->len = len;
	ring->reserved = head + skip + span(len);
	return record + 1;
}

void *ring_reserve(struct ring *ring, size_t len)
{
	return reserve(ring, len, ring->size);
}

void *ring_reserve_for_stranger(struct ring *ring, size_t len)
{
	return reserve(ring, len, ring->size / 2);
}

void ring_commit(struct ring *ring)
{
	atomic_store_explicit(&ring->head, ring->reserved, memory_order_release);
}

uint64_t ring_mark(const struct ring *ring)
{
	return atomic_load_explicit(&ring->head, memory_order_acquire);
}

bool ring_is_taken(const struct ring *ring, uint64_t mark)
{
	return atomic_load_explicit(&ring->tail, memory_order_acquire) >= mark;
}

const void *ring_peek(struct ring *ring, size_t *ret_len)
{
	uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
	uint64_t head = atomic_load_explicit(&ring->head, memory_order_acquire);

	if (tail == head)
		return NULL;
	if (record_at(ring, tail)->len == SKIP)
		tail += ring->size - (tail & (ring->size - 1));
	assert(tail < head);
	const struct record *record = record_at(ring, tail);
	ring->peeked = tail + span(record->len);
	*ret_len = record->len;
	return record + 1;
}

void ring_release(struct ring *ring)
{
	atomic_store_explicit(&ring->tail, ring->peeked, memory_order_release);
}
