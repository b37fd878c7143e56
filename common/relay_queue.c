#include "common/relay_queue.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct relay_queue_item {
	struct relay_queue_item *next;
	size_t len;
	uint8_t bytes[];
};

void relay_queue_init(struct relay_queue *queue, size_t max_bytes)
{
	*queue = (struct relay_queue){ .max_bytes = max_bytes };
	queue->last_next = &queue->first;
}

static void pop(struct relay_queue *queue)
{
	struct relay_queue_item *item = queue->first;

	queue->first = item->next;
	if (!queue->first)
		queue->last_next = &queue->first;
	queue->n_bytes -= item->len;
	queue->n_packets--;
	queue->at = 0;
	free(item);
}

void relay_queue_deinit(struct relay_queue *queue)
{
	while (queue->first)
		pop(queue);
	free(queue->small);
	queue->small = NULL;
	queue->n_small = 0;
}

bool relay_queue_is_empty(const struct relay_queue *queue)
{
	return !queue->first && queue->n_small == 0;
}

static void count_drop(struct relay_queue *queue, size_t len)
{
	queue->n_dropped++;
	queue->dropped_bytes += len;
}

/* The oldest that has not begun to leave: what has begun must go out whole. */
static bool drop_oldest(struct relay_queue *queue)
{
	struct relay_queue_item *first = queue->first;

	if (!first)
		return false;
	if (queue->at == 0) {
		count_drop(queue, first->len);
		pop(queue);
		return true;
	}
	struct relay_queue_item *second = first->next;
	if (!second)
		return false;
	first->next = second->next;
	if (!first->next)
		queue->last_next = &first->next;
	queue->n_bytes -= second->len;
	queue->n_packets--;
	count_drop(queue, second->len);
	free(second);
	return true;
}

void relay_queue_packet(struct relay_queue *queue, enum relay_frame_type type, const struct relay_packet *packet)
{
	size_t len = RELAY_PACKET_HEAD + packet->len;

	while (queue->n_bytes + len > queue->max_bytes) {
		if (!drop_oldest(queue)) {
			count_drop(queue, len);
			return;
		}
	}
	struct relay_queue_item *item = malloc(sizeof(*item) + len);
	if (!item)
		abort();
	item->next = NULL;
	item->len = len;
	relay_encode_packet_head(item->bytes, type, &packet->key, packet->len);
	memcpy(item->bytes + RELAY_PACKET_HEAD, packet->bytes, packet->len);
	*queue->last_next = item;
	queue->last_next = &item->next;
	queue->n_bytes += len;
	queue->n_packets++;
}

bool relay_queue_frame(struct relay_queue *queue, const struct relay_frame *frame)
{
	if (!queue->small) {
		queue->small = malloc(RELAY_QUEUE_SMALL);
		if (!queue->small)
			abort();
	}
	size_t n = relay_encode(queue->small + queue->n_small, RELAY_QUEUE_SMALL - queue->n_small, frame);

	queue->n_small += n;
	return n > 0;
}

/* Small frames go between packets, never into one that was cut. */
static size_t take_small(struct relay_queue *queue, uint8_t *buf, size_t cap)
{
	size_t n = queue->n_small < cap ? queue->n_small : cap;

	if (queue->at != 0 || n == 0)
		return 0;
	/* If one is cut here, its rest is still in front of all else at the next call. */
	memcpy(buf, queue->small, n);
	queue->n_small -= n;
	memmove(queue->small, queue->small + n, queue->n_small);
	if (queue->n_small == 0) {
		free(queue->small);
		queue->small = NULL;
	}
	return n;
}

size_t relay_queue_take(struct relay_queue *queue, uint8_t *buf, size_t cap)
{
	size_t used = 0;

	while (used < cap) {
		used += take_small(queue, buf + used, cap - used);
		if (used == cap || !queue->first)
			break;

		struct relay_queue_item *first = queue->first;
		size_t left = first->len - queue->at;
		size_t n = left < cap - used ? left : cap - used;
		memcpy(buf + used, first->bytes + queue->at, n);
		used += n;
		queue->at += n;
		if (queue->at == first->len)
			pop(queue);
	}
	return used;
}
