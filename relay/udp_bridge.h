/*
 * Between clients over TLS, on the loop, and those over UDP, on their thread: packets both ways in bounded rings, and
 * notes of who is connected by TLS, and who of these is reached over UDP.
 *
 *   loop    udp_bridge_put(to_udp) ──────────► ring ───────► udp_bridge_peek(to_udp)       UDP's thread
 *           udp_bridge_note(notes_to_udp) ───► list ───────► udp_bridge_take(notes_to_udp)
 *           udp_bridge_peek(to_tls) ◄───────── ring ◄─────── udp_bridge_put(to_tls)
 *           udp_bridge_take(notes_to_tls) ◄─── list ◄─────── udp_bridge_note(notes_to_tls)
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
	uint32_t size, len;
	uint32_t head; /* so many bytes of each come before its packet */
};

enum udp_bridge_news {
	/* From the loop. */
	UDP_BRIDGE_CAME, /* by TLS; or it has sent a packet there */
	UDP_BRIDGE_LEFT, /* TLS */
	UDP_BRIDGE_PINGED, /* over TLS */
	/* From UDP's thread, of who is connected by TLS. */
	UDP_BRIDGE_REACHED, /* over UDP from now on */
	UDP_BRIDGE_UNREACHED, /* not over UDP any more */
};

struct udp_bridge_note {
	struct public_key node_key;
	enum udp_bridge_news news;
};

struct udp_bridge_notes {
	struct udp_bridge_note *items;
	size_t n, capacity;
};

struct udp_bridge_list {
	_Atomic bool has_notes;
	pthread_mutex_t lock; /* of notes; never on the packet path */
	struct udp_bridge_notes notes;
};

struct udp_bridge {
	struct ring to_udp, to_tls;
	struct udp_bridge_list notes_to_udp, notes_to_tls;
};

void udp_bridge_init(struct udp_bridge *bridge);
void udp_bridge_deinit(struct udp_bridge *bridge);

/* False: the ring is full. */
bool udp_bridge_put(struct ring *ring, const struct udp_bridge_run *run, const uint8_t *bytes);
/* The oldest, and its bytes, until ring_release(ring); NULL: none. */
const struct udp_bridge_run *udp_bridge_peek(struct ring *ring, const uint8_t **ret_bytes);

void udp_bridge_note(struct udp_bridge_list *list, const struct public_key *node_key, enum udp_bridge_news news);
/* All there are, in their order; the caller frees ret->items. False: none. */
bool udp_bridge_take(struct udp_bridge_list *list, struct udp_bridge_notes *ret);
