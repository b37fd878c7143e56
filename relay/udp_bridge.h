/*
 * Between clients over TLS, on the loop, and those over UDP, on their thread: packets both ways in bounded rings, and
 * who is connected by TLS.
 *
 *   loop    udp_bridge_put(to_udp) ───────► ring ───────► udp_bridge_peek(to_udp)    UDP's thread
 *           udp_bridge_note(key, there) ──► list ───────► udp_bridge_take_notes
 *           udp_bridge_peek(to_tls) ◄────── ring ◄─────── udp_bridge_put(to_tls)
 *
 * What does not fit into a ring is dropped, and counted by who puts it. A note is never lost: its list grows, by no
 * more than there are connections. It is put before the packets that need it, and may be looked for again when one of
 * them comes. Neither side wakes the other here.
 */
#pragma once

#include "common/key.h"
#include "common/ring.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A run of datagrams from one client to one other, each of `size` bytes but the last. */
struct udp_bridge_run {
	struct public_key from, to;
	bool is_gone; /* without bytes: what `to` sent to `from` went nowhere */
	bool is_back; /* without bytes: `from` is connected by TLS, but reached over UDP from now on */
	uint32_t size, len;
};

struct udp_bridge_note {
	struct public_key node_key;
	bool is_there; /* connected by TLS from now on; or not any more */
};

struct udp_bridge_notes {
	struct udp_bridge_note *items;
	size_t n, capacity;
};

struct udp_bridge {
	struct ring to_udp, to_tls;
	_Atomic bool has_notes;
	pthread_mutex_t lock; /* of notes; never on the packet path */
	struct udp_bridge_notes notes;
};

void udp_bridge_init(struct udp_bridge *bridge);
void udp_bridge_deinit(struct udp_bridge *bridge);

/* False: the ring is full. */
bool udp_bridge_put(struct ring *ring, const struct udp_bridge_run *run, const uint8_t *bytes);
/* The oldest, and its bytes, until ring_release(ring); NULL: none. */
const struct udp_bridge_run *udp_bridge_peek(struct ring *ring, const uint8_t **ret_bytes);

/* Loop. */
void udp_bridge_note(struct udp_bridge *bridge, const struct public_key *node_key, bool is_there);
/* UDP's thread: all there are, in their order; the caller frees ret->items. False: none. */
bool udp_bridge_take_notes(struct udp_bridge *bridge, struct udp_bridge_notes *ret);
