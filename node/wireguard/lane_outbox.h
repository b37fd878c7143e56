/*
 * What one of the data plane's threads has for the loop: rings of events, and whether the loop is yet
 * to be told. Dropped and counted when a ring is full. What is relayed has a ring of its own, so that
 * bulk traffic neither delays session messages nor takes their room.
 */
#pragma once

#include "node/wireguard/lanes.h"
#include "common/ring.h"

struct lane_outbox {
	struct ring ring; /* datagrams and peers' events: first */
	struct ring relayed;
	bool has_news; /* of the thread that posts */
};

void lane_outbox_init(struct lane_outbox *outbox);
void lane_outbox_deinit(struct lane_outbox *outbox);
/* Events of both rings; any thread. */
uint64_t lane_outbox_n_dropped(const struct lane_outbox *outbox);

/* ---- the thread ---- */

void lane_outbox_datagram(struct lane_outbox *outbox, enum demux_kind kind, const struct wg_path *from,
			  const uint8_t *bytes, size_t len);
void lane_outbox_relay(struct lane_outbox *outbox, const struct wg_path *path, const struct train *train);
void lane_outbox_peer(struct lane_outbox *outbox, const struct lanes_peer_event *event);

/* ---- the loop ---- */

/* A mark behind the relayed trains that have been posted. */
uint64_t lane_outbox_mark(const struct lane_outbox *outbox);
/*
 * Calls the ports for the datagrams and peers' events, and then for the trains before the mark
 * (UINT64_MAX: all), at most max; false when that was not all. Stops when *is_stopped becomes true, which a port may cause.
 */
bool lane_outbox_dispatch(struct lane_outbox *outbox, const struct lanes_ports *ports, uint64_t mark,
			  unsigned max, const bool *is_stopped);
