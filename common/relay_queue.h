/*
 * Frames that wait to be written to one relay connection.
 *
 *   packets ──► a queue for each other end ──► take turns, by bytes ──┐
 *               (sender or receiver)                                  ├──► whole frames, as many as fit
 *   frames without a packet ──────────────────────────────────────────┘
 *
 * The other end of a packet is the node whose key it carries: at a relay its sender, at a client its receiver.
 * Each has its share of the connection (deficit round robin), and packets between two nodes keep their order.
 * All together are bounded by the memory they take. When a packet does not fit, the oldest go of one who has most
 * (nobody has twice as much): who sends too fast pushes out its own, and what waited longest is worth least to
 * WireGuard. Frames without a packet (pong, peer gone, closing) overtake packets, are never dropped for them, and have
 * a bound of their own.
 *
 * Pure; holds no memory while empty. Queues that come and go with each packet may share a pool, which keeps a bounded
 * number of what they have freed.
 */
#pragma once

#include "common/relay_wire.h"

#define RELAY_QUEUE_SMALL (8 * RELAY_SMALL_FRAME)
#define RELAY_QUEUE_ITEM  24 /* bytes of memory beside a packet and its head */

struct relay_queue_item;
struct relay_queue_flows;

/* Of one thread; zero is the state to begin with. It must outlive its queues. */
struct relay_queue_pool {
	struct relay_queue_item *items;	 /* of full-sized packets */
	struct relay_queue_flows *flows; /* empty */
	uint32_t n_items, n_flows;
};

struct relay_queue {
	size_t max_bytes; /* of memory that packets take; one packet alone may be as long as this and take more */
	struct relay_queue_pool *pool; /* borrowed, or NULL; set by the owner while the queue is empty */
	size_t n_bytes; /* of memory, so */
	uint32_t n_packets;
	struct relay_queue_flows *flows; /* owned, or NULL: no packets */
	uint8_t *small;			 /* owned, or NULL: frames without a packet */
	size_t n_small;			 /* bytes */
	struct relay_queue_item *cut;	 /* owned, or NULL: a packet of which a part has been taken … */
	size_t at;			 /* … so many bytes */
	uint64_t n_dropped, dropped_bytes; /* counted, for the owner to read */
	/* The owner's clock, set by it before packets come and are taken; and how long they waited by it. */
	uint64_t now_ms;
	uint64_t waited_ms; /* the sum, of all that were taken */
	uint32_t longest_ms; /* since the owner has set it to 0 */
};

/* Frees what it keeps. */
void relay_queue_pool_deinit(struct relay_queue_pool *pool);

void relay_queue_init(struct relay_queue *queue, size_t max_bytes);
void relay_queue_deinit(struct relay_queue *queue);
bool relay_queue_is_empty(const struct relay_queue *queue);
/* Copies. Packets dropped to make room are counted in n_dropped; one longer than max_bytes is dropped itself. */
void relay_queue_packet(struct relay_queue *queue, enum relay_frame_type type, const struct relay_packet *packet);
/* All packets but one that has begun to leave, which must go on; they are counted in n_dropped. */
void relay_queue_drop_packets(struct relay_queue *queue);
/* A frame without a packet. False when there is no room: the frame is lost. */
bool relay_queue_frame(struct relay_queue *queue, const struct relay_frame *frame);
/*
 * Moves up to cap bytes out: whole frames as long as they fit; one longer than cap goes in parts, with nothing in
 * between. A packet no longer counts as waiting when its first byte is taken. Returns how many bytes.
 */
size_t relay_queue_take(struct relay_queue *queue, uint8_t *buf, size_t cap);
