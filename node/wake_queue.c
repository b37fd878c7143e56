#include "node/wake_queue.h"

#include <string.h>

#define PAUSE_MS       200
#define OLD_MS	       5000
#define REFUSED_MS     10000
#define MAX_DOUBLINGS  5

static void drop_first(struct wake_queue *queue, uint32_t n)
{
	queue->n -= n;
	memmove(queue->waiting, queue->waiting + n, queue->n * sizeof(*queue->waiting));
}

static void drop_old(struct wake_queue *queue, uint64_t now_ms)
{
	uint32_t n = 0;

	while (n < queue->n && now_ms - queue->waiting[n].since_ms >= OLD_MS)
		n++;
	drop_first(queue, n);
}

void wake_queue_add(struct wake_queue *queue, uint32_t peer_id, uint64_t now_ms)
{
	if (queue->is_unknown)
		return;
	drop_old(queue, now_ms);
	for (uint32_t i = 0; i < queue->n; i++)
		if (queue->waiting[i].peer_id == peer_id)
			return;
	if (queue->n == WAKE_QUEUE_MAX)
		queue->n_dropped++;
	else
		queue->waiting[queue->n++] = (struct waiting_wake){ peer_id, now_ms };
}

uint32_t wake_queue_take(struct wake_queue *queue, uint64_t now_ms, uint32_t ret[WAKE_QUEUE_MAX])
{
	drop_old(queue, now_ms);
	const uint32_t n = queue->n;
	if (queue->in_flight || n == 0 || now_ms < queue->not_before_ms)
		return 0;
	for (uint32_t i = 0; i < n; i++)
		ret[i] = queue->waiting[i].peer_id;
	drop_first(queue, n);
	queue->in_flight = true;
	queue->not_before_ms = now_ms + PAUSE_MS;
	return n;
}

void wake_queue_answered(struct wake_queue *queue, enum wake_answer answer, uint64_t now_ms)
{
	queue->in_flight = false;
	if (answer == WAKE_UNKNOWN) {
		queue->is_unknown = true;
		queue->n = 0;
	}
	if (answer != WAKE_REFUSED) {
		queue->n_refused = 0;
		return;
	}
	queue->not_before_ms = now_ms + ((uint64_t)REFUSED_MS << queue->n_refused);
	queue->n_refused += queue->n_refused < MAX_DOUBLINGS;
}

void wake_queue_reset(struct wake_queue *queue)
{
	*queue = (struct wake_queue){ .n_dropped = queue->n_dropped };
}

uint64_t wake_queue_due_ms(const struct wake_queue *queue)
{
	if (queue->n == 0 || queue->in_flight)
		return 0;
	return queue->not_before_ms > 1 ? queue->not_before_ms : 1;
}
