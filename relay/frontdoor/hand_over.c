#include "relay/frontdoor/hand_over.h"

#include <string.h>
#include <unistd.h>

void hand_over_init(struct hand_over *queue, uint32_t max_source)
{
	queue->max_source = max_source;
	ring_init(&queue->ring, HAND_OVER_BYTES);
	atomic_store(&queue->n_waiting, 0);
	for (size_t i = 0; i < ARRAY_LEN(queue->n_of_source); i++)
		atomic_init(&queue->n_of_source[i], 0);
}

void hand_over_deinit(struct hand_over *queue)
{
	const struct handed_over *handed;

	while ((handed = hand_over_peek(queue))) {
		close(handed->fd);
		hand_over_done(queue);
	}
	ring_deinit(&queue->ring);
}

bool hand_over_put(struct hand_over *queue, enum door_whose whose, int fd, const struct endpoint *remote, uint16_t source,
		   const uint8_t *bytes, size_t n)
{
	struct handed_over *handed = NULL;

	if (n <= HAND_OVER_MAX_HELLO && atomic_load(&queue->n_waiting) < HAND_OVER_MAX &&
	    atomic_load(&queue->n_of_source[source]) < queue->max_source)
		handed = ring_reserve(&queue->ring, sizeof(*handed) + n);
	if (!handed)
		return false;
	handed->fd = fd;
	handed->whose = whose;
	handed->remote = *remote;
	handed->source = source;
	handed->n = (uint32_t)n;
	if (n > 0)
		memcpy(handed->bytes, bytes, n);
	atomic_fetch_add(&queue->n_waiting, 1);
	atomic_fetch_add(&queue->n_of_source[source], 1);
	ring_commit(&queue->ring);
	return true;
}

const struct handed_over *hand_over_peek(struct hand_over *queue)
{
	size_t len;

	return ring_peek(&queue->ring, &len);
}

void hand_over_done(struct hand_over *queue)
{
	size_t len;
	const struct handed_over *handed = ring_peek(&queue->ring, &len);

	atomic_fetch_sub(&queue->n_of_source[handed->source], 1);
	ring_release(&queue->ring);
	atomic_fetch_sub(&queue->n_waiting, 1);
}
