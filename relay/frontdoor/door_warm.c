#include "relay/frontdoor/door_warm.h"

#include "common/macros.h"

#include <stdlib.h>
#include <string.h>

void door_warm_init(struct door_warm *warm, uint32_t max, uint64_t connect_ms)
{
	*warm = (struct door_warm){ .max = max, .connect_ms = connect_ms };
	link_init_ring(&warm->pools);
}

static struct door_warm_pool *pool_of(const struct link *among_all)
{
	return container_of(among_all, struct door_warm_pool, among_all);
}

static struct door_warm_one *one_of(const struct link *of_pool)
{
	return container_of(of_pool, struct door_warm_one, of_pool);
}

void door_warm_deinit(struct door_warm *warm)
{
	struct link *first;

	while ((first = link_first(&warm->pools)))
		door_warm_forget(warm, pool_of(first));
}

/* ---- pools ---- */

/* FNV-1a. Who has which address the network says: nobody chooses them so that they collide. */
static uint32_t chain_of(const struct endpoint *target)
{
	uint32_t hash = 2166136261u;

	for (size_t i = 0; i < sizeof(target->ip); i++)
		hash = (hash ^ target->ip[i]) * 16777619u;
	hash = (hash ^ target->port) * 16777619u;
	return (hash ^ hash >> 16) % DOOR_WARM_CHAINS;
}

struct door_warm_pool *door_warm_find(const struct door_warm *warm, const struct endpoint *target)
{
	struct door_warm_pool *pool = warm->chains[chain_of(target)];

	while (pool && !endpoint_equal(&pool->target, target))
		pool = pool->next;
	return pool;
}

static bool is_busy(const struct door_warm_pool *pool, uint64_t now_ms)
{
	return now_ms < pool->visited_ms + DOOR_WARM_BUSY_MS;
}

/* NULL: there is no place for it. That of a pool in which nothing is goes to the next. */
static struct door_warm_pool *make_pool(struct door_warm *warm, const struct endpoint *target)
{
	struct door_warm_pool **chain = &warm->chains[chain_of(target)], *pool;

	if (warm->max == 0)
		return NULL;
	if (warm->n_pools >= DOOR_WARM_MAX_POOLS) {
		struct door_warm_pool *oldest = pool_of(link_first(&warm->pools));
		if (oldest->n > 0)
			return NULL;
		door_warm_forget(warm, oldest);
	}
	pool = calloc(1, sizeof(*pool));
	if (!pool)
		abort();
	pool->target = *target;
	link_init_ring(&pool->making);
	link_init_ring(&pool->ready);
	pool->next = *chain;
	*chain = pool;
	warm->n_pools++;
	return pool;
}

void door_warm_forget(struct door_warm *warm, struct door_warm_pool *pool)
{
	struct door_warm_pool **at = &warm->chains[chain_of(&pool->target)];

	while (*at != pool)
		at = &(*at)->next;
	*at = pool->next;
	link_remove(&pool->among_all);
	warm->n_pools--;
	free(pool);
}

struct door_warm_pool *door_warm_visit(struct door_warm *warm, const struct endpoint *target, uint64_t now_ms)
{
	struct door_warm_pool *pool = door_warm_find(warm, target);
	const uint64_t second = now_ms / 1000;

	if (!pool && !(pool = make_pool(warm, target)))
		return NULL;
	if (second != pool->second) {
		pool->n_last = second == pool->second + 1 ? pool->n_this : 0;
		pool->n_this = 0;
		pool->second = second;
	}
	pool->n_this++;
	pool->visited_ms = now_ms;
	pool->awaits_visitor = false;
	link_put_last(&warm->pools, &pool->among_all);
	return pool;
}

/* ---- how many ---- */

static uint32_t most_of(const struct door_warm_pool *pool, uint64_t now_ms)
{
	const uint32_t n = pool->n_this > pool->n_last ? pool->n_this : pool->n_last;

	if (now_ms >= pool->visited_ms + DOOR_WARM_FORGET_MS)
		return 0;
	if (!is_busy(pool, now_ms))
		return 1;
	if (n < DOOR_WARM_LEAST)
		return DOOR_WARM_LEAST;
	return n < DOOR_WARM_MOST ? n : DOOR_WARM_MOST;
}

static bool may_make(const struct door_warm_pool *pool, uint64_t now_ms)
{
	return !pool->awaits_visitor && pool->n < most_of(pool, now_ms);
}

bool door_warm_wants(const struct door_warm_pool *pool, uint64_t now_ms)
{
	return may_make(pool, now_ms) && now_ms >= pool->not_before_ms;
}

bool door_warm_has_room(const struct door_warm *warm, const struct door_warm_pool *pool, uint64_t now_ms,
			struct door_warm_one **ret_other)
{
	const struct link *at = warm->pools.after;

	*ret_other = NULL;
	if (warm->n < warm->max)
		return true;
	for (; at != &warm->pools && is_busy(pool, now_ms) && !is_busy(pool_of(at), now_ms); at = at->after)
		if ((*ret_other = door_warm_any(pool_of(at))))
			return true;
	return false;
}

/* ---- one ---- */

void door_warm_add(struct door_warm *warm, struct door_warm_pool *pool, struct door_warm_one *one, uint64_t now_ms)
{
	*one = (struct door_warm_one){ .pool = pool, .since_ms = now_ms };
	link_put_last(&pool->making, &one->of_pool);
	pool->n++;
	warm->n++;
}

void door_warm_is_ready(struct door_warm_one *one, uint64_t now_ms)
{
	one->is_ready = true;
	one->since_ms = now_ms;
	link_put_last(&one->pool->ready, &one->of_pool);
}

void door_warm_remove(struct door_warm *warm, struct door_warm_one *one)
{
	if (!one->pool)
		return;
	link_remove(&one->of_pool);
	one->pool->n--;
	one->pool = NULL;
	warm->n--;
}

struct door_warm_one *door_warm_claim(struct door_warm *warm, struct door_warm_pool *pool, uint64_t now_ms)
{
	if (!pool || !link_first(&pool->ready))
		return NULL;
	struct door_warm_one *one = one_of(pool->ready.before);
	if (now_ms >= one->since_ms + DOOR_WARM_LIFE_MS)
		return NULL; /* the member may have closed it by now */
	door_warm_remove(warm, one);
	return one;
}

/* ---- what does not work ---- */

void door_warm_worked(struct door_warm_pool *pool)
{
	pool->n_failed = 0;
	pool->not_before_ms = 0;
}

/* Several of a pool that end together are one failure. */
static void rest(struct door_warm_pool *pool, uint64_t now_ms)
{
	if (now_ms < pool->not_before_ms)
		return;
	const uint64_t for_ms = (uint64_t)DOOR_WARM_REST_MS << (pool->n_failed < 6 ? pool->n_failed : 6);
	pool->n_failed++;
	pool->not_before_ms = now_ms + (for_ms < DOOR_WARM_MAX_REST_MS ? for_ms : DOOR_WARM_MAX_REST_MS);
}

void door_warm_distrust(struct door_warm_pool *pool, uint64_t now_ms)
{
	rest(pool, now_ms);
}

void door_warm_failed(struct door_warm *warm, struct door_warm_one *one, uint64_t now_ms)
{
	struct door_warm_pool *pool = one->pool;

	if (!pool)
		return;
	door_warm_remove(warm, one);
	pool->awaits_visitor = true;
	rest(pool, now_ms);
}

/* ---- time ---- */

struct door_warm_one *door_warm_any(const struct door_warm_pool *pool)
{
	const struct link *first = link_first(&pool->ready);

	if (!first)
		first = link_first(&pool->making);
	return first ? one_of(first) : NULL;
}

struct door_warm_one *door_warm_over(const struct door_warm_pool *pool, uint64_t now_ms)
{
	const struct link *oldest = link_first(&pool->ready);

	if (pool->n > most_of(pool, now_ms))
		return door_warm_any(pool);
	return oldest && now_ms >= one_of(oldest)->since_ms + DOOR_WARM_LIFE_MS ? one_of(oldest) : NULL;
}

struct door_warm_one *door_warm_late(const struct door_warm *warm, const struct door_warm_pool *pool, uint64_t now_ms)
{
	const struct link *oldest = link_first(&pool->making);

	return oldest && now_ms >= one_of(oldest)->since_ms + warm->connect_ms ? one_of(oldest) : NULL;
}

bool door_warm_is_done(const struct door_warm_pool *pool, uint64_t now_ms)
{
	return pool->n == 0 && most_of(pool, now_ms) == 0;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

uint64_t door_warm_due(const struct door_warm *warm, const struct door_warm_pool *pool, uint64_t now_ms)
{
	const struct link *making = link_first(&pool->making), *ready = link_first(&pool->ready);
	uint64_t due = pool->visited_ms + (is_busy(pool, now_ms) ? DOOR_WARM_BUSY_MS : DOOR_WARM_FORGET_MS);

	if (making)
		due = earlier(due, one_of(making)->since_ms + warm->connect_ms);
	if (ready)
		due = earlier(due, one_of(ready)->since_ms + DOOR_WARM_LIFE_MS);
	if (may_make(pool, now_ms) && pool->not_before_ms > now_ms)
		due = earlier(due, pool->not_before_ms);
	return due;
}
