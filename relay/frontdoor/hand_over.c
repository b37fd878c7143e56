#include "relay/frontdoor/hand_over.h"

#include <string.h>
#include <unistd.h>

void hand_over_init(struct hand_over *queue)
{
	ring_init(&queue->ring, HAND_OVER_BYTES);
	atomic_store(&queue->n_waiting, 0);
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

bool hand_over_put(struct hand_over *queue, int fd, const struct endpoint *remote, const uint8_t *bytes, size_t n)
{
	struct handed_over *handed = NULL;

	if (atomic_load(&queue->n_waiting) < HAND_OVER_MAX)
		handed = ring_reserve(&queue->ring, sizeof(*handed) + n);
	if (!handed)
		return false;
	handed->fd = fd;
	handed->remote = *remote;
	handed->n = (uint32_t)n;
	memcpy(handed->bytes, bytes, n);
	atomic_fetch_add(&queue->n_waiting, 1);
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
	ring_release(&queue->ring);
	atomic_fetch_sub(&queue->n_waiting, 1);
}
