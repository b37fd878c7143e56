#include "relay/webgw/warm_pools.h"

#include "relay/webgw/dial_back.h"

#include <sodium.h>
#include <stdlib.h>

#define BUCKETS 256

_Static_assert(WARM_POOLS_MAX <= DIAL_BACK_MAX && WEBGW_EPHEMERAL_LEN == DIAL_BACK_SECRET, "the table of secrets has room");

/* Of one agent; there while it has something in it. */
struct warm_pool {
	struct warm_pool *next; /* of the bucket */
	int64_t subscription;
	uint32_t n; /* secrets and places */
	struct link places;
};

/* A secret that was told. */
struct told {
	struct link among;
	struct warm_pool *pool;
	uint64_t ticket, until_ms;
};

struct warm_pools {
	struct dial_back secrets;
	struct warm_pool *buckets[BUCKETS];
	struct link told; /* in the order of their ends */
	struct link all;
	uint32_t n, n_ready; /* with secrets; without */
};

struct warm_pools *warm_pools_new(void)
{
	struct warm_pools *pools = calloc(1, sizeof(*pools));

	if (!pools)
		abort();
	dial_back_init(&pools->secrets);
	link_init_ring(&pools->told);
	link_init_ring(&pools->all);
	return pools;
}

static struct warm_pool **find(struct warm_pools *pools, int64_t subscription)
{
	struct warm_pool **at = &pools->buckets[(uint64_t)subscription % BUCKETS];

	while (*at && (*at)->subscription != subscription)
		at = &(*at)->next;
	return at;
}

static struct warm_pool *find_or_make(struct warm_pools *pools, int64_t subscription)
{
	struct warm_pool **at = find(pools, subscription);

	if (*at)
		return *at;
	struct warm_pool *pool = calloc(1, sizeof(*pool));
	if (!pool)
		abort();
	pool->subscription = subscription;
	link_init_ring(&pool->places);
	return *at = pool;
}

static void leave(struct warm_pools *pools, struct warm_pool *pool)
{
	pools->n--;
	if (--pool->n > 0)
		return;
	struct warm_pool **at = find(pools, pool->subscription);
	*at = pool->next;
	free(pool);
}

static void forget(struct warm_pools *pools, struct told *told)
{
	struct warm_pool *pool = told->pool;

	dial_back_remove(&pools->secrets, told->ticket);
	link_remove(&told->among);
	free(told);
	leave(pools, pool);
}

static void forget_late(struct warm_pools *pools, uint64_t now_ms)
{
	struct link *first;

	while ((first = link_first(&pools->told)) && container_of(first, struct told, among)->until_ms <= now_ms)
		forget(pools, container_of(first, struct told, among));
}

void warm_pools_free(struct warm_pools *pools)
{
	if (!pools)
		return;
	forget_late(pools, UINT64_MAX);
	sodium_memzero(&pools->secrets, sizeof(pools->secrets));
	free(pools);
}

uint32_t warm_pools_prepare(struct warm_pools *pools, int64_t subscription, uint32_t n, uint64_t now_ms,
			    uint8_t ret[][WEBGW_EPHEMERAL_LEN])
{
	uint32_t made = 0;

	forget_late(pools, now_ms);
	for (; made < n && pools->n < WARM_POOLS_MAX; made++) {
		struct warm_pool *pool = *find(pools, subscription);
		if (pool && pool->n == WARM_POOLS_MAX_OF_ONE)
			break;
		struct told *told = calloc(1, sizeof(*told));
		if (!told)
			abort();
		told->pool = find_or_make(pools, subscription);
		told->until_ms = now_ms + WARM_POOLS_SECRET_MS;
		told->ticket = dial_back_add(&pools->secrets, told, told->until_ms, ret[made]);
		link_put_last(&pools->told, &told->among);
		told->pool->n++;
		pools->n++;
	}
	return made;
}

uint32_t warm_pools_coming(const struct warm_pools *pools, int64_t subscription, uint64_t now_ms)
{
	uint32_t n = 0;

	for (const struct link *at = pools->told.before; at != &pools->told; at = at->before) {
		const struct told *told = container_of(at, struct told, among);
		if (now_ms + WARM_POOLS_SECRET_MS >= told->until_ms + WARM_POOLS_COMING_MS)
			break;
		n += told->pool->subscription == subscription;
	}
	return n;
}

int64_t warm_pools_admit(struct warm_pools *pools, const uint8_t secret[WEBGW_EPHEMERAL_LEN], struct warm_place *place,
			 uint64_t now_ms)
{
	void *found = NULL;

	const int r = dial_back_take(&pools->secrets, secret, now_ms, &found);
	if (r != 0)
		return r == DIAL_BACK_LATE ? WARM_POOLS_LATE : 0;
	struct told *told = found;
	struct warm_pool *pool = told->pool;
	link_remove(&told->among);
	free(told);
	place->pool = pool; /* the secret's room is its own now */
	pools->n_ready++;
	warm_pools_heard(pools, place, now_ms);
	return pool->subscription;
}

void warm_pools_heard(struct warm_pools *pools, struct warm_place *place, uint64_t now_ms)
{
	place->heard_ms = now_ms;
	link_put_last(&place->pool->places, &place->of_pool);
	link_put_last(&pools->all, &place->of_all);
}

void warm_pools_remove(struct warm_pools *pools, struct warm_place *place)
{
	struct warm_pool *pool = place->pool;

	if (!pool)
		return;
	link_remove(&place->of_pool);
	link_remove(&place->of_all);
	place->pool = NULL;
	pools->n_ready--;
	leave(pools, pool);
}

struct warm_place *warm_pools_take(struct warm_pools *pools, int64_t subscription)
{
	struct warm_pool *pool = *find(pools, subscription);

	if (!pool || !link_first(&pool->places))
		return NULL;
	struct warm_place *place = container_of(pool->places.before, struct warm_place, of_pool);
	warm_pools_remove(pools, place);
	return place;
}

struct warm_place *warm_pools_expired(struct warm_pools *pools, uint64_t now_ms)
{
	struct link *first = link_first(&pools->all);
	struct warm_place *place = first ? container_of(first, struct warm_place, of_all) : NULL;

	forget_late(pools, now_ms);
	return place && now_ms >= place->heard_ms + WARM_POOLS_SILENT_MS ? place : NULL;
}

struct warm_place *warm_pools_next(const struct warm_pools *pools, const struct warm_place *place, int64_t *ret_subscription)
{
	struct link *next = place ? place->of_all.after : pools->all.after;

	if (next == &pools->all)
		return NULL;
	struct warm_place *found = container_of(next, struct warm_place, of_all);
	*ret_subscription = found->pool->subscription;
	return found;
}

uint32_t warm_pools_count(const struct warm_pools *pools)
{
	return pools->n_ready;
}
