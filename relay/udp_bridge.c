#include "relay/udp_bridge.h"

#include <stdlib.h>
#include <string.h>

#define RING_BYTES (4u << 20) /* some milliseconds of 5 Gb/s: a loop that is busy for longer loses packets */

void udp_bridge_init(struct udp_bridge *bridge)
{
	memset(bridge, 0, sizeof(*bridge));
	ring_init(&bridge->to_udp, RING_BYTES);
	ring_init(&bridge->to_tls, RING_BYTES);
	pthread_mutex_init(&bridge->notes_to_udp.lock, NULL);
	pthread_mutex_init(&bridge->notes_to_tls.lock, NULL);
}

static void list_deinit(struct udp_bridge_list *list)
{
	pthread_mutex_destroy(&list->lock);
	free(list->notes.items);
}

void udp_bridge_deinit(struct udp_bridge *bridge)
{
	ring_deinit(&bridge->to_udp);
	ring_deinit(&bridge->to_tls);
	list_deinit(&bridge->notes_to_udp);
	list_deinit(&bridge->notes_to_tls);
}

bool udp_bridge_put(struct ring *ring, const struct udp_bridge_run *run, const uint8_t *bytes)
{
	uint8_t *at = ring_reserve(ring, sizeof(*run) + run->len);

	if (!at)
		return false;
	memcpy(at, run, sizeof(*run));
	if (run->len > 0)
		memcpy(at + sizeof(*run), bytes, run->len);
	ring_commit(ring);
	return true;
}

const struct udp_bridge_run *udp_bridge_peek(struct ring *ring, const uint8_t **ret_bytes)
{
	size_t len;
	const struct udp_bridge_run *run = ring_peek(ring, &len);

	if (run)
		*ret_bytes = (const uint8_t *)(run + 1);
	return run;
}

void udp_bridge_note(struct udp_bridge_list *list, const struct public_key *node_key, enum udp_bridge_news news)
{
	struct udp_bridge_notes *notes = &list->notes;

	pthread_mutex_lock(&list->lock);
	if (notes->n == notes->capacity) {
		notes->capacity = notes->capacity ? notes->capacity * 2 : 16;
		notes->items = realloc(notes->items, notes->capacity * sizeof(*notes->items));
		if (!notes->items)
			abort();
	}
	notes->items[notes->n++] = (struct udp_bridge_note){ *node_key, news };
	pthread_mutex_unlock(&list->lock);
	atomic_store(&list->has_notes, true);
}

bool udp_bridge_take(struct udp_bridge_list *list, struct udp_bridge_notes *ret)
{
	if (!atomic_exchange(&list->has_notes, false))
		return false;
	pthread_mutex_lock(&list->lock);
	*ret = list->notes;
	list->notes = (struct udp_bridge_notes){ 0 };
	pthread_mutex_unlock(&list->lock);
	return true;
}
