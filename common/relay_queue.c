#include "common/relay_queue.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define N_BUCKETS 256
#define N_LENGTHS 64
#define QUANTUM	  2048 /* bytes of one turn, kept when the packet in front is longer */

/* Frames of full-sized packets are kept by a pool: smaller ones malloc() has at hand itself, and larger are few. */
#define POOL_MIN_LEN 1232
#define POOL_LEN     1568
#define POOL_ITEMS   1024
#define POOL_FLOWS   64

struct relay_queue_item {
	struct relay_queue_item *next;
	uint32_t at_ms; /* when it came */
	uint32_t len;
	uint8_t bytes[];
};

static_assert(sizeof(struct relay_queue_item) + sizeof(size_t) <= RELAY_QUEUE_ITEM, "malloc() keeps a word beside it");

/* What waits from, or to, one node. It is in three lists, and gone when empty. */
struct flow {
	uint64_t node;
	struct flow *next_in_bucket;
	struct flow *next, *previous;		 /* the ring of turns */
	struct flow *next_as_long, *previous_as_long; /* those of about the same length */
	struct relay_queue_item *first, **last_next;
	size_t n_bytes;
	size_t may_send; /* bytes */
};

struct relay_queue_flows {
	struct flow *buckets[N_BUCKETS]; /* by node */
	struct flow *as_long[N_LENGTHS]; /* by the highest bit of n_bytes */
	uint64_t lengths;		 /* a bit for each of as_long that is not empty */
	struct flow *turn;		 /* whose turn it is */
	struct relay_queue_flows *next_spare; /* in a pool */
};

void relay_queue_init(struct relay_queue *queue, size_t max_bytes)
{
	*queue = (struct relay_queue){ .max_bytes = max_bytes };
}

static void *allocate(size_t size)
{
	void *memory = malloc(size);

	if (!memory)
		abort();
	return memory;
}

/* the pool */

static bool is_pooled(size_t len)
{
	return len >= POOL_MIN_LEN && len <= POOL_LEN;
}

/* What a packet takes of memory. */
static size_t size_of(const struct relay_queue *queue, size_t len)
{
	return RELAY_QUEUE_ITEM + (queue->pool && is_pooled(len) ? POOL_LEN : len);
}

static struct relay_queue_item *new_item(struct relay_queue_pool *pool, size_t len)
{
	struct relay_queue_item *item;

	if (!pool || !is_pooled(len))
		return allocate(sizeof(*item) + len);
	item = pool->items;
	if (!item)
		return allocate(sizeof(*item) + POOL_LEN);
	pool->items = item->next;
	pool->n_items--;
	return item;
}

static void free_item(struct relay_queue_pool *pool, struct relay_queue_item *item)
{
	if (!pool || !is_pooled(item->len) || pool->n_items == POOL_ITEMS) {
		free(item);
		return;
	}
	item->next = pool->items;
	pool->items = item;
	pool->n_items++;
}

/* Without a flow all of it is zero: so is one that a pool has kept. */
static struct relay_queue_flows *new_flows(struct relay_queue_pool *pool)
{
	struct relay_queue_flows *flows = pool ? pool->flows : NULL;

	if (flows) {
		pool->flows = flows->next_spare;
		pool->n_flows--;
		flows->next_spare = NULL;
		return flows;
	}
	flows = allocate(sizeof(*flows));
	memset(flows, 0, sizeof(*flows));
	return flows;
}

static void free_flows(struct relay_queue_pool *pool, struct relay_queue_flows *flows)
{
	if (!pool || pool->n_flows == POOL_FLOWS) {
		free(flows);
		return;
	}
	assert(flows->lengths == 0 && !flows->turn);
	flows->next_spare = pool->flows;
	pool->flows = flows;
	pool->n_flows++;
}

void relay_queue_pool_deinit(struct relay_queue_pool *pool)
{
	for (struct relay_queue_item *item; (item = pool->items);) {
		pool->items = item->next;
		free(item);
	}
	for (struct relay_queue_flows *flows; (flows = pool->flows);) {
		pool->flows = flows->next_spare;
		free(flows);
	}
	*pool = (struct relay_queue_pool){ 0 };
}

/* flows */

/* Enough of a key: to find another with the same 64 bits takes longer than anybody has. */
static uint64_t node_of(const struct public_key *key)
{
	uint64_t node;

	memcpy(&node, key->bytes, sizeof(node));
	return node;
}

static struct flow **bucket_of(struct relay_queue_flows *flows, uint64_t node)
{
	return &flows->buckets[(node ^ node >> 32) % N_BUCKETS];
}

static unsigned length_of(const struct flow *flow)
{
	return 63u - (unsigned)__builtin_clzll(flow->n_bytes);
}

static void link_length(struct relay_queue_flows *flows, struct flow *flow)
{
	struct flow **list = &flows->as_long[length_of(flow)];

	flow->previous_as_long = NULL;
	flow->next_as_long = *list;
	if (*list)
		(*list)->previous_as_long = flow;
	*list = flow;
	flows->lengths |= 1ull << length_of(flow);
}

static void unlink_length(struct relay_queue_flows *flows, struct flow *flow)
{
	struct flow **list = &flows->as_long[length_of(flow)];

	*(flow->previous_as_long ? &flow->previous_as_long->next_as_long : list) = flow->next_as_long;
	if (flow->next_as_long)
		flow->next_as_long->previous_as_long = flow->previous_as_long;
	if (!*list)
		flows->lengths &= ~(1ull << length_of(flow));
}

/* The last of this round. */
static void link_turn(struct relay_queue_flows *flows, struct flow *flow)
{
	struct flow *turn = flows->turn ? flows->turn : flow;

	flow->next = turn;
	flow->previous = flows->turn ? turn->previous : flow;
	flow->previous->next = flow;
	turn->previous = flow;
	flows->turn = turn;
}

static void unlink_turn(struct relay_queue_flows *flows, struct flow *flow)
{
	flow->previous->next = flow->next;
	flow->next->previous = flow->previous;
	if (flows->turn == flow)
		flows->turn = flow->next == flow ? NULL : flow->next;
}

static void free_flow(struct relay_queue_flows *flows, struct flow *flow)
{
	struct flow **at = bucket_of(flows, flow->node);

	while (*at != flow)
		at = &(*at)->next_in_bucket;
	*at = flow->next_in_bucket;
	unlink_turn(flows, flow);
	free(flow);
}

static struct flow *find_flow(struct relay_queue_flows *flows, uint64_t node)
{
	struct flow *flow = *bucket_of(flows, node);

	while (flow && flow->node != node)
		flow = flow->next_in_bucket;
	return flow;
}

/* Empty, and in no list of lengths yet. */
static struct flow *add_flow(struct relay_queue_flows *flows, uint64_t node)
{
	struct flow *flow = allocate(sizeof(*flow)), **bucket = bucket_of(flows, node);

	*flow = (struct flow){ .node = node, .next_in_bucket = *bucket, .may_send = QUANTUM };
	flow->last_next = &flow->first;
	*bucket = flow;
	link_turn(flows, flow);
	return flow;
}

/* packets */

static void push(struct relay_queue *queue, struct flow *flow, struct relay_queue_item *item)
{
	if (flow->n_bytes > 0)
		unlink_length(queue->flows, flow);
	*flow->last_next = item;
	flow->last_next = &item->next;
	flow->n_bytes += item->len;
	link_length(queue->flows, flow);
	queue->n_bytes += size_of(queue, item->len);
	queue->n_packets++;
}

/* The first of the flow, which is gone when it was the last; the caller frees it. */
static struct relay_queue_item *pop(struct relay_queue *queue, struct flow *flow)
{
	struct relay_queue_item *item = flow->first;

	unlink_length(queue->flows, flow);
	flow->first = item->next;
	flow->n_bytes -= item->len;
	queue->n_bytes -= size_of(queue, item->len);
	queue->n_packets--;
	if (flow->first) {
		link_length(queue->flows, flow);
		return item;
	}
	free_flow(queue->flows, flow);
	if (!queue->flows->turn) {
		free_flows(queue->pool, queue->flows);
		queue->flows = NULL;
	}
	return item;
}

void relay_queue_deinit(struct relay_queue *queue)
{
	while (queue->flows)
		free_item(queue->pool, pop(queue, queue->flows->turn));
	if (queue->cut)
		free_item(queue->pool, queue->cut);
	queue->cut = NULL;
	free(queue->small);
	queue->small = NULL;
	queue->n_small = 0;
}

bool relay_queue_is_empty(const struct relay_queue *queue)
{
	return !queue->flows && !queue->cut && queue->n_small == 0;
}

static void count_drop(struct relay_queue *queue, size_t len)
{
	queue->n_dropped++;
	queue->dropped_bytes += len;
}

/* The oldest packet of one of the longest flows: none is more than twice as long. */
static void drop_oldest(struct relay_queue *queue)
{
	unsigned longest = 63u - (unsigned)__builtin_clzll(queue->flows->lengths);
	struct relay_queue_item *item = pop(queue, queue->flows->as_long[longest]);

	count_drop(queue, item->len);
	free_item(queue->pool, item);
}

void relay_queue_packet(struct relay_queue *queue, enum relay_frame_type type, const struct relay_packet *packet)
{
	size_t len = RELAY_PACKET_HEAD + packet->len;
	uint64_t node = node_of(&packet->key);

	if (len > queue->max_bytes) {
		count_drop(queue, len);
		return;
	}
	while (queue->flows && queue->n_bytes + size_of(queue, len) > queue->max_bytes)
		drop_oldest(queue); /* until one is alone: the longest packet has room in the smallest queue */
	if (!queue->flows)
		queue->flows = new_flows(queue->pool);
	struct relay_queue_item *item = new_item(queue->pool, len);
	item->next = NULL;
	item->at_ms = (uint32_t)queue->now_ms;
	item->len = (uint32_t)len;
	relay_encode_packet_head(item->bytes, type, &packet->key, packet->len);
	memcpy(item->bytes + RELAY_PACKET_HEAD, packet->bytes, packet->len);
	struct flow *flow = find_flow(queue->flows, node);
	push(queue, flow ? flow : add_flow(queue->flows, node), item);
}

void relay_queue_drop_packets(struct relay_queue *queue)
{
	while (queue->flows)
		drop_oldest(queue);
}

bool relay_queue_frame(struct relay_queue *queue, const struct relay_frame *frame)
{
	if (!queue->small)
		queue->small = allocate(RELAY_QUEUE_SMALL);
	/* Room is left for the last of all: who is not told why comes back too soon. */
	const size_t max = frame->type == RELAY_CLOSING ? RELAY_QUEUE_SMALL : RELAY_QUEUE_SMALL - RELAY_SMALL_FRAME;
	size_t n = queue->n_small < max ? relay_encode(queue->small + queue->n_small, max - queue->n_small, frame) : 0;

	queue->n_small += n;
	return n > 0;
}

/* taking */

/* If one is cut here, its rest is still in front of all else at the next call. */
static size_t take_small(struct relay_queue *queue, uint8_t *buf, size_t cap)
{
	size_t n = queue->n_small < cap ? queue->n_small : cap;

	if (n == 0)
		return 0;
	memcpy(buf, queue->small, n);
	queue->n_small -= n;
	memmove(queue->small, queue->small + n, queue->n_small);
	if (queue->n_small == 0) {
		free(queue->small);
		queue->small = NULL;
	}
	return n;
}

/* Whoever may send the packet in front of its flow; all others whose turn it was have got more credit. */
static struct flow *next_flow(struct relay_queue_flows *flows)
{
	while (flows->turn->may_send < flows->turn->first->len) {
		flows->turn->may_send += QUANTUM;
		flows->turn = flows->turn->next;
	}
	return flows->turn;
}

static void count_wait(struct relay_queue *queue, const struct relay_queue_item *item)
{
	uint32_t waited_ms = (uint32_t)queue->now_ms - item->at_ms;

	queue->waited_ms += waited_ms;
	if (waited_ms > queue->longest_ms)
		queue->longest_ms = waited_ms;
}

static size_t take_cut(struct relay_queue *queue, uint8_t *buf, size_t cap)
{
	size_t left = queue->cut->len - queue->at, n = left < cap ? left : cap;

	memcpy(buf, queue->cut->bytes + queue->at, n);
	queue->at += n;
	if (n == left) {
		free_item(queue->pool, queue->cut);
		queue->cut = NULL;
	}
	return n;
}

/* The next packet, if it fits or nothing can be in front of it; else 0. */
static size_t take_packet(struct relay_queue *queue, uint8_t *buf, size_t cap, bool may_cut)
{
	struct flow *flow = next_flow(queue->flows);

	if (flow->first->len > cap && !may_cut)
		return 0;
	flow->may_send -= flow->first->len;
	queue->cut = pop(queue, flow);
	queue->at = 0;
	count_wait(queue, queue->cut);
	return take_cut(queue, buf, cap);
}

size_t relay_queue_take(struct relay_queue *queue, uint8_t *buf, size_t cap)
{
	size_t used = queue->cut ? take_cut(queue, buf, cap) : 0;

	while (used < cap && !queue->cut) {
		used += take_small(queue, buf + used, cap - used);
		if (used == cap || !queue->flows)
			break;
		size_t n = take_packet(queue, buf + used, cap - used, used == 0);
		if (n == 0)
			break;
		used += n;
	}
	return used;
}
