#include "node/wireguard/lane_outbox.h"

#include <string.h>

/* Half a megabyte: a burst of relayed trains; a page that was never used costs nothing. */
#define RING_LEN (512u << 10)

enum event_type { EVENT_DATAGRAM, EVENT_RELAY, EVENT_PEER };

/* Head of a record; bytes follow. */
struct event {
	enum event_type type;
	enum demux_kind kind;
	struct wg_path path;
	struct lane_peer_event peer;
	struct train train; /* base is not used */
	uint32_t len;
};

void lane_outbox_init(struct lane_outbox *outbox)
{
	ring_init(&outbox->ring, RING_LEN);
	outbox->has_news = false;
}

void lane_outbox_deinit(struct lane_outbox *outbox)
{
	ring_deinit(&outbox->ring);
}

/* An event with room for len bytes; NULL when the ring is full. Anybody can send datagrams. */
static struct event *begin_event(struct lane_outbox *outbox, enum event_type type, size_t len)
{
	struct event *event = type == EVENT_DATAGRAM ?
				      ring_reserve_for_stranger(&outbox->ring, sizeof(*event) + len) :
				      ring_reserve(&outbox->ring, sizeof(*event) + len);

	if (!event)
		return NULL;
	memset(event, 0, sizeof(*event));
	event->type = type;
	event->len = (uint32_t)len;
	return event;
}

static void post(struct lane_outbox *outbox)
{
	ring_commit(&outbox->ring);
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
	post(outbox);
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
	post(outbox);
}

void lane_outbox_peer(struct lane_outbox *outbox, const struct lane_peer_event *peer)
{
	struct event *event = begin_event(outbox, EVENT_PEER, 0);

	if (!event)
		return;
	event->peer = *peer;
	post(outbox);
}

static void dispatch(const struct event *event, const struct lane_ports *ports)
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
	return ring_mark(&outbox->ring);
}

bool lane_outbox_dispatch(struct lane_outbox *outbox, const struct lane_ports *ports, uint64_t mark,
			  unsigned max, const bool *is_stopped)
{
	const struct event *event;
	size_t len;

	for (unsigned i = 0; i < max; i++) {
		if (*is_stopped || ring_is_taken(&outbox->ring, mark) ||
		    !(event = ring_peek(&outbox->ring, &len)))
			return true;
		dispatch(event, ports);
		ring_release(&outbox->ring);
	}
	return false;
}
