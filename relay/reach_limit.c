#include "relay/reach_limit.h"

#include <stdlib.h>
#include <string.h>

#define MIN_CAPACITY 16
#define MAX_ANSWERED 8192 /* about */
#define UNANSWERED_S 60

struct reach {
	uint64_t node; /* enough of its key */
	uint32_t at_s; /* first sent to */
	bool is_there, is_answered;
};

static uint64_t node_of(const struct public_key *key)
{
	uint64_t node;

	memcpy(&node, key->bytes, sizeof(node));
	return node;
}

/* Where it is, or the free place where it would be. There is one: see make_room(). */
static struct reach *find(const struct reach_limit *limit, uint64_t node)
{
	uint64_t hash = (node ^ limit->seed) * UINT64_C(0x9e3779b97f4a7c15);
	uint32_t i = (uint32_t)(hash >> 32) & (limit->capacity - 1);

	while (limit->entries[i].is_there && limit->entries[i].node != node)
		i = (i + 1) & (limit->capacity - 1);
	return &limit->entries[i];
}

static void put(struct reach_limit *limit, const struct reach *reach)
{
	*find(limit, reach->node) = *reach;
	limit->n++;
	limit->n_unanswered += reach->is_answered ? 0 : 1;
}

static bool is_worth_keeping(const struct reach *reach, bool keep_answered, uint64_t now_s)
{
	if (!reach->is_there)
		return false;
	return reach->is_answered ? keep_answered : (uint32_t)now_s - reach->at_s < UNANSWERED_S;
}

/* Without those that have waited long enough, and if it is large, those that have answered: they will again. */
static void rebuild(struct reach_limit *limit, uint64_t now_s)
{
	struct reach *old = limit->entries;
	uint32_t old_capacity = limit->capacity, n = 0;
	bool keep_answered = limit->n < MAX_ANSWERED + REACH_MAX_UNANSWERED;

	for (uint32_t i = 0; i < old_capacity; i++)
		n += is_worth_keeping(&old[i], keep_answered, now_s) ? 1 : 0;
	limit->capacity = MIN_CAPACITY;
	while (limit->capacity < 2 * n + 2)
		limit->capacity *= 2;
	limit->entries = calloc(limit->capacity, sizeof(*limit->entries));
	if (!limit->entries)
		abort();
	limit->n = limit->n_unanswered = 0;
	limit->swept_s = now_s;
	for (uint32_t i = 0; i < old_capacity; i++)
		if (is_worth_keeping(&old[i], keep_answered, now_s))
			put(limit, &old[i]);
	free(old);
}

/* For one more; a quarter stays free. */
static void make_room(struct reach_limit *limit, uint64_t now_s)
{
	if (limit->capacity == 0 || (limit->n + 1) * 4 > limit->capacity * 3)
		rebuild(limit, now_s);
}

void reach_limit_deinit(struct reach_limit *limit)
{
	free(limit->entries);
	*limit = (struct reach_limit){ .seed = limit->seed };
}

bool reach_limit_send(struct reach_limit *limit, const struct public_key *to, uint64_t now_s)
{
	const struct reach new = { .node = node_of(to), .at_s = (uint32_t)now_s, .is_there = true };

	if (limit->capacity > 0 && find(limit, new.node)->is_there)
		return true;
	if (limit->n_unanswered >= REACH_MAX_UNANSWERED && limit->swept_s != now_s)
		rebuild(limit, now_s);
	if (limit->n_unanswered >= REACH_MAX_UNANSWERED)
		return false;
	make_room(limit, now_s);
	put(limit, &new);
	return true;
}

void reach_limit_hear(struct reach_limit *limit, const struct public_key *from, uint64_t now_s)
{
	struct reach new = { .node = node_of(from), .at_s = (uint32_t)now_s, .is_there = true, .is_answered = true };
	struct reach *reach = limit->capacity > 0 ? find(limit, new.node) : NULL;

	if (reach && reach->is_there) {
		limit->n_unanswered -= reach->is_answered ? 0 : 1;
		reach->is_answered = true;
		return;
	}
	make_room(limit, now_s);
	put(limit, &new);
}
