/*
 * Frames that wait to be written to one relay connection, oldest first.
 *
 * Bounded by bytes. When a packet does not fit, the oldest packets go: what waited longest is worth
 * least to WireGuard. Frames without a packet (pong, peer gone, closing) overtake packets, are never
 * dropped for them, and have a bound of their own.
 *
 * Pure; holds no memory while empty.
 */
#pragma once

#include "common/relay_wire.h"

#define RELAY_QUEUE_SMALL (8 * RELAY_SMALL_FRAME)

struct relay_queue_item;

struct relay_queue {
	size_t max_bytes; /* of packets, with their heads */
	size_t n_bytes;
	uint32_t n_packets;
	struct relay_queue_item *first, **last_next;
	uint8_t *small; /* owned, or NULL: frames without a packet */
	size_t n_small; /* bytes */
	size_t at;	/* bytes of first that have been taken */
	uint64_t n_dropped, dropped_bytes; /* counted, for the owner to read */
};

void relay_queue_init(struct relay_queue *queue, size_t max_bytes);
void relay_queue_deinit(struct relay_queue *queue);
bool relay_queue_is_empty(const struct relay_queue *queue);
/* Copies. Packets dropped to make room are counted in n_dropped; one longer than max_bytes is dropped itself. */
void relay_queue_packet(struct relay_queue *queue, enum relay_frame_type type, const struct relay_packet *packet);
/* A frame without a packet. False when there is no room: the frame is lost. */
bool relay_queue_frame(struct relay_queue *queue, const struct relay_frame *frame);
/* Moves up to cap bytes out; frames may be cut between two calls. Returns how many. */
size_t relay_queue_take(struct relay_queue *queue, uint8_t *buf, size_t cap);
