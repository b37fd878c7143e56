#include "relay/webgw/warm_pools.h"

#include <assert.h>
#include <sodium.h>
#include <string.h>

#define NOW 1000

static struct warm_pools *pools;
static uint8_t secrets[WARM_POOLS_MAX][WEBGW_EPHEMERAL_LEN];

static void begin(void)
{
	pools = warm_pools_new();
}

static void end(void)
{
	assert(warm_pools_count(pools) == 0);
	warm_pools_free(pools);
}

static void put(struct warm_place *place, int64_t subscription, uint64_t now_ms)
{
	memset(place, 0, sizeof(*place));
	assert(warm_pools_prepare(pools, subscription, 1, now_ms, secrets) == 1);
	assert(warm_pools_admit(pools, secrets[0], place, now_ms) == subscription);
}

static void test_a_secret_is_for_once_and_for_five_seconds(void)
{
	struct warm_place place = { 0 }, second = { 0 };
	uint8_t guess[WEBGW_EPHEMERAL_LEN] = { 0 };

	begin();
	assert(warm_pools_prepare(pools, 7, 2, NOW, secrets) == 2);
	assert(warm_pools_admit(pools, guess, &place, NOW) == 0);
	assert(warm_pools_admit(pools, secrets[0], &place, NOW + 4999) == 7 && place.pool);
	assert(warm_pools_admit(pools, secrets[0], &second, NOW) == WARM_POOLS_LATE);
	assert(warm_pools_admit(pools, secrets[1], &second, NOW + 5000) == WARM_POOLS_LATE && !second.pool);
	warm_pools_remove(pools, &place);
	warm_pools_remove(pools, &place);
	assert(!warm_pools_expired(pools, NOW + 5000));
	end();
}

static void test_a_secret_that_was_told_a_moment_ago_is_coming(void)
{
	struct warm_place place = { 0 };

	begin();
	assert(warm_pools_coming(pools, 7, NOW) == 0);
	assert(warm_pools_prepare(pools, 7, 2, NOW, secrets) == 2);
	assert(warm_pools_coming(pools, 7, NOW) == 2 && warm_pools_coming(pools, 8, NOW) == 0);
	assert(warm_pools_prepare(pools, 8, 1, NOW + 100, secrets + 2) == 1);
	assert(warm_pools_admit(pools, secrets[0], &place, NOW + 100) == 7);
	assert(warm_pools_coming(pools, 7, NOW + WARM_POOLS_COMING_MS - 1) == 1);
	assert(warm_pools_coming(pools, 7, NOW + WARM_POOLS_COMING_MS) == 0);
	assert(warm_pools_coming(pools, 8, NOW + WARM_POOLS_COMING_MS) == 1);
	warm_pools_remove(pools, &place);
	end();
}

static void test_an_agent_has_sixteen_with_secrets_and_all_have_a_thousand(void)
{
	struct warm_place place;

	begin();
	put(&place, 1, NOW);
	assert(warm_pools_prepare(pools, 1, 20, NOW, secrets) == WARM_POOLS_MAX_OF_ONE - 1);
	assert(warm_pools_prepare(pools, 1, 1, NOW, secrets) == 0);
	assert(warm_pools_prepare(pools, 1, 20, NOW + WARM_POOLS_SECRET_MS, secrets) == WARM_POOLS_MAX_OF_ONE - 1);
	warm_pools_remove(pools, &place);
	uint32_t n = WARM_POOLS_MAX_OF_ONE - 1;
	for (int64_t i = 2; n < WARM_POOLS_MAX; i++)
		n += warm_pools_prepare(pools, i, WARM_POOLS_MAX_OF_ONE, NOW + WARM_POOLS_SECRET_MS, secrets);
	assert(n == WARM_POOLS_MAX && warm_pools_prepare(pools, 5000, 1, NOW + WARM_POOLS_SECRET_MS, secrets) == 0);
	assert(warm_pools_prepare(pools, 5000, 1, NOW + 2 * WARM_POOLS_SECRET_MS, secrets) == 1);
	end();
}

static void test_who_was_heard_last_is_taken_and_by_its_agent_alone(void)
{
	struct warm_place first, second, other;

	begin();
	put(&first, 1, NOW);
	put(&second, 1, NOW);
	put(&other, 257, NOW); /* in the same bucket */
	warm_pools_heard(pools, &first, NOW + 1);
	assert(warm_pools_count(pools) == 3 && !warm_pools_take(pools, 2));
	assert(warm_pools_take(pools, 1) == &first && !first.pool);
	assert(warm_pools_take(pools, 1) == &second && !warm_pools_take(pools, 1));
	assert(warm_pools_take(pools, 257) == &other);
	end();
}

static void test_who_is_silent_expires_in_order(void)
{
	struct warm_place first, second;
	int64_t whose = 0;

	begin();
	put(&first, 1, NOW);
	put(&second, 2, NOW);
	assert(warm_pools_next(pools, NULL, &whose) == &first && whose == 1);
	assert(warm_pools_next(pools, &first, &whose) == &second && whose == 2);
	assert(!warm_pools_next(pools, &second, &whose));
	warm_pools_heard(pools, &first, NOW + 1);
	assert(!warm_pools_expired(pools, NOW + WARM_POOLS_SILENT_MS - 1));
	assert(warm_pools_expired(pools, NOW + WARM_POOLS_SILENT_MS) == &second);
	warm_pools_remove(pools, &second);
	assert(!warm_pools_expired(pools, NOW + WARM_POOLS_SILENT_MS));
	assert(warm_pools_expired(pools, NOW + WARM_POOLS_SILENT_MS + 1) == &first);
	warm_pools_remove(pools, &first);
	end();
}

int main(void)
{
	test_a_secret_that_was_told_a_moment_ago_is_coming();
	assert(sodium_init() >= 0);
	test_a_secret_is_for_once_and_for_five_seconds();
	test_an_agent_has_sixteen_with_secrets_and_all_have_a_thousand();
	test_who_was_heard_last_is_taken_and_by_its_agent_alone();
	test_who_is_silent_expires_in_order();
	return 0;
}
