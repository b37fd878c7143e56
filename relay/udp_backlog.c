/* Places are known by their index, and lie in one list each: free, taken, put back, or that of a queue. */
#include "relay/udp_backlog.h"

#include <stdlib.h>
#include <string.h>

#define NONE	     UINT16_MAX
#define QUANTUM	     2048 /* bytes of a turn: one common datagram at least; a longer one waits for some turns */
#define DROP_AT_ONCE 32	  /* of the longest queue: finding it is dear */

enum place_state { PLACE_FREE, PLACE_WAITS, PLACE_IS_TAKEN, PLACE_WAS_PUT_BACK };

struct place {
	struct udp_way to;
	uint16_t len, next;
	enum place_state state;
};

struct queue {
	uint16_t first, last;	 /* places */
	uint16_t next, previous; /* queues that wait, in a ring */
	uint32_t n;
	int32_t deficit; /* bytes that it may send yet in this turn */
};

struct udp_backlog {
	uint8_t *bytes; /* UDP_BACKLOG_MAX_LEN for each place */
	uint16_t first_free, turn; /* turn: the queue whose it is; NONE: none waits */
	uint16_t put_back; /* the first of what goes before all turns */
	uint32_t n_taken;
	uint16_t taken[UDP_BACKLOG_PLACES];
	struct place places[UDP_BACKLOG_PLACES];
	struct queue queues[UDP_BACKLOG_QUEUES];
};

#define POOL_BYTES ((size_t)UDP_BACKLOG_PLACES * UDP_BACKLOG_MAX_LEN)

struct udp_backlog *udp_backlog_new(void)
{
	struct udp_backlog *backlog = calloc(1, sizeof(*backlog));

	if (!backlog)
		return NULL;
	backlog->bytes = calloc(1, POOL_BYTES);
	if (!backlog->bytes) {
		free(backlog);
		return NULL;
	}
	for (uint16_t i = 0; i < UDP_BACKLOG_PLACES; i++)
		backlog->places[i].next = i + 1 < UDP_BACKLOG_PLACES ? (uint16_t)(i + 1) : NONE;
	for (uint32_t i = 0; i < UDP_BACKLOG_QUEUES; i++)
		backlog->queues[i].first = backlog->queues[i].last = NONE;
	backlog->turn = backlog->put_back = NONE;
	return backlog;
}

void udp_backlog_free(struct udp_backlog *backlog)
{
	if (!backlog)
		return;
	free(backlog->bytes);
	free(backlog);
}

bool udp_backlog_is_empty(const struct udp_backlog *backlog)
{
	return backlog->turn == NONE && backlog->put_back == NONE;
}

static uint8_t *bytes_of(const struct udp_backlog *backlog, uint16_t place)
{
	return backlog->bytes + (size_t)place * UDP_BACKLOG_MAX_LEN;
}

/* ---- the ring of queues that wait ---- */

/* Behind all others. */
static void join_ring(struct udp_backlog *backlog, uint16_t q)
{
	struct queue *queue = &backlog->queues[q];

	queue->deficit = 0;
	if (backlog->turn == NONE) {
		queue->next = queue->previous = q;
		queue->deficit = QUANTUM;
		backlog->turn = q;
		return;
	}
	struct queue *turn = &backlog->queues[backlog->turn];
	queue->next = backlog->turn;
	queue->previous = turn->previous;
	backlog->queues[turn->previous].next = q;
	turn->previous = q;
}

static void pass_turn(struct udp_backlog *backlog)
{
	backlog->turn = backlog->queues[backlog->turn].next;
	backlog->queues[backlog->turn].deficit += QUANTUM;
}

static void leave_ring(struct udp_backlog *backlog, uint16_t q)
{
	const struct queue *queue = &backlog->queues[q];

	if (queue->next == q) {
		backlog->turn = NONE;
		return;
	}
	if (backlog->turn == q)
		pass_turn(backlog);
	backlog->queues[queue->previous].next = queue->next;
	backlog->queues[queue->next].previous = queue->previous;
}

/* ---- places ---- */

static uint16_t remove_first(struct udp_backlog *backlog, uint16_t q)
{
	struct queue *queue = &backlog->queues[q];
	const uint16_t p = queue->first;

	queue->first = backlog->places[p].next;
	if (queue->first == NONE)
		queue->last = NONE;
	if (--queue->n == 0)
		leave_ring(backlog, q);
	return p;
}

static void set_free(struct udp_backlog *backlog, uint16_t p)
{
	backlog->places[p].state = PLACE_FREE;
	backlog->places[p].next = backlog->first_free;
	backlog->first_free = p;
}

static uint16_t longest_queue(const struct udp_backlog *backlog)
{
	uint16_t longest = backlog->turn;

	for (uint16_t q = backlog->queues[longest].next; q != backlog->turn; q = backlog->queues[q].next)
		if (backlog->queues[q].n > backlog->queues[longest].n)
			longest = q;
	return longest;
}

static uint32_t make_room(struct udp_backlog *backlog)
{
	const uint16_t q = longest_queue(backlog);
	const uint32_t half = (backlog->queues[q].n + 1) / 2, n = half < DROP_AT_ONCE ? half : DROP_AT_ONCE;

	for (uint32_t i = 0; i < n; i++)
		set_free(backlog, remove_first(backlog, q));
	return n;
}

uint32_t udp_backlog_put(struct udp_backlog *backlog, uint32_t sender, const struct udp_way *to, const uint8_t *bytes,
			 size_t len)
{
	const uint16_t q = (uint16_t)(sender % UDP_BACKLOG_QUEUES);
	struct queue *queue = &backlog->queues[q];
	uint32_t n_dropped = 0;

	if (len > UDP_BACKLOG_MAX_LEN)
		return 1;
	if (backlog->first_free == NONE && backlog->turn != NONE)
		n_dropped = make_room(backlog);
	if (backlog->first_free == NONE)
		return n_dropped + 1; /* all are taken */
	const uint16_t p = backlog->first_free;
	struct place *place = &backlog->places[p];
	backlog->first_free = place->next;
	*place = (struct place){ .to = *to, .len = (uint16_t)len, .next = NONE, .state = PLACE_WAITS };
	memcpy(bytes_of(backlog, p), bytes, len);
	if (queue->last == NONE)
		queue->first = p;
	else
		backlog->places[queue->last].next = p;
	queue->last = p;
	if (queue->n++ == 0)
		join_ring(backlog, q);
	return n_dropped;
}

static uint16_t next_put_back(struct udp_backlog *backlog)
{
	const uint16_t p = backlog->put_back;

	backlog->put_back = backlog->places[p].next;
	return p;
}

static uint16_t next_in_turn(struct udp_backlog *backlog)
{
	while (backlog->queues[backlog->turn].deficit < backlog->places[backlog->queues[backlog->turn].first].len)
		pass_turn(backlog);
	const uint16_t q = backlog->turn;
	backlog->queues[q].deficit -= backlog->places[backlog->queues[q].first].len;
	return remove_first(backlog, q);
}

const uint8_t *udp_backlog_take(struct udp_backlog *backlog, struct udp_way *ret_to, size_t *ret_len)
{
	if (udp_backlog_is_empty(backlog))
		return NULL;
	const uint16_t p = backlog->put_back != NONE ? next_put_back(backlog) : next_in_turn(backlog);
	backlog->places[p].state = PLACE_IS_TAKEN;
	backlog->taken[backlog->n_taken++] = p;
	*ret_to = backlog->places[p].to;
	*ret_len = backlog->places[p].len;
	return bytes_of(backlog, p);
}

bool udp_backlog_has(const struct udp_backlog *backlog, const uint8_t *bytes)
{
	return bytes >= backlog->bytes && bytes < backlog->bytes + POOL_BYTES;
}

void udp_backlog_put_back(struct udp_backlog *backlog, const uint8_t *bytes)
{
	const uint16_t p = (uint16_t)((size_t)(bytes - backlog->bytes) / UDP_BACKLOG_MAX_LEN);

	backlog->places[p].state = PLACE_WAS_PUT_BACK;
	backlog->places[p].next = backlog->put_back;
	backlog->put_back = p;
}

void udp_backlog_settle(struct udp_backlog *backlog)
{
	for (uint32_t i = 0; i < backlog->n_taken; i++) {
		const uint16_t p = backlog->taken[i];
		if (backlog->places[p].state == PLACE_IS_TAKEN)
			set_free(backlog, p);
		else
			backlog->places[p].state = PLACE_WAITS;
	}
	backlog->n_taken = 0;
}
