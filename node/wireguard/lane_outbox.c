#include "node/wireguard/lane_outbox.h"

#include <string.h>

/* A burst of session messages; a burst of relayed trains. A page that was never used costs nothing. */
#define RING_LEN	 (256u << 10)
#define RELAYED_RING_LEN (512u << 10)

enum event_type { EVENT_DATAGRAM, EVENT_RELAY, EVENT_PEER };

/* Head of a record; bytes follow. */
struct event {
	enum event_type type;
	enum demux_kind kind;
	struct wg_path path;
	struct lanes_peer_event peer;
	struct train train; /* base is not used */
	uint32_t len;
};

void lane_outbox_init(struct lane_outbox *outbox)
{
	ring_init(&outbox->ring, RING_LEN);
	ring_init(&outbox->relayed, RELAYED_RING_LEN);
	outbox->has_news = false;
}

void lane_outbox_deinit(struct lane_outbox *outbox)
{
	ring_deinit(&outbox->ring);
	ring_deinit(&outbox->relayed);
}

uint64_t lane_outbox_n_dropped(const struct lane_outbox *outbox)
{
	return atomic_load_explicit(&outbox->ring.n_dropped, memory_order_relaxed) +
	       atomic_load_explicit(&outbox->relayed.n_dropped, memory_order_relaxed);
}

static struct ring *ring_of(struct lane_outbox *outbox, enum event_type type)
{
	return type == EVENT_RELAY ? &outbox->relayed : &outbox->ring;
}

/* An event with room for len bytes; NULL when the ring is full. Anybody can send datagrams. */
static struct event *begin_event(struct lane_outbox *outbox, enum event_type type, size_t len)
{
	struct event *event = type == EVENT_DATAGRAM ?
				      ring_reserve_for_stranger(&outbox->ring, sizeof(*event) + len) :
				      ring_reserve(ring_of(outbox, type), sizeof(*event) + len);

	if (!event)
		return NULL;
	memset(event, 0, sizeof(*event));
	event->type = type;
	event->len = (uint32_t)len;
	return event;
}

static void post(struct lane_outbox *outbox, enum event_type type)
{
	ring_commit(ring_of(outbox, type));
	outbox->has_news = true;
}

void lane_outbox_datagram(struct lane_outbox *outbox, enum demux_kind kind, const struct wg_path *from,
			  const uint8_t *bytes, size_t len)
{
	struct event *event = begin_event(outbox, EVENT_DATAGRAM, len);

	if (!event)
		return;
	event->kind = kind;
	event->path = *from;
	memcpy(event + 1, bytes, len);
	post(outbox, EVENT_DATAGRAM);
}

void lane_outbox_relay(struct lane_outbox *outbox, const struct wg_path *path, const struct train *train)
{
	struct event *event = begin_event(outbox, EVENT_RELAY, (size_t)train_bytes(train));

	if (!event)
		return;
	train_copy((uint8_t *)(event + 1), train);
	event->path = *path;
	event->train = *train;
	event->train.stride = train->size;
	post(outbox, EVENT_RELAY);
}

void lane_outbox_peer(struct lane_outbox *outbox, const struct lanes_peer_event *peer)
{
	struct event *event = begin_event(outbox, EVENT_PEER, 0);

	if (!event)
		return;
	event->peer = *peer;
	post(outbox, EVENT_PEER);
}

static void dispatch(const struct event *event, const struct lanes_ports *ports)
{
	struct train train = event->train;

	switch (event->type) {
	case EVENT_DATAGRAM:
		ports->datagram(ports->owner, event->kind, &event->path, (const uint8_t *)(event + 1),
				event->len);
		break;
	case EVENT_RELAY:
		/* Trains are mutable in general; these bytes are only to be read. */
		train.base = (uint8_t *)(uintptr_t)(event + 1);
		ports->relay(ports->owner, &event->path, &train);
		break;
	case EVENT_PEER:
		ports->peer(ports->owner, &event->peer);
		break;
	}
}

uint64_t lane_outbox_mark(const struct lane_outbox *outbox)
{
	return ring_mark(&outbox->relayed);
}

bool lane_outbox_dispatch(struct lane_outbox *outbox, const struct lanes_ports *ports, uint64_t mark,
			  unsigned max, const bool *is_stopped)
{
	size_t len;

	for (unsigned i = 0; i < max; i++) {
		struct ring *ring = &outbox->ring;
		const struct event *event = ring_peek(ring, &len);

		if (!event && !ring_is_taken(&outbox->relayed, mark)) {
			ring = &outbox->relayed;
			event = ring_peek(ring, &len);
		}
		if (*is_stopped || !event)
			return true;
		dispatch(event, ports);
		ring_release(ring);
	}
	return false;
}
