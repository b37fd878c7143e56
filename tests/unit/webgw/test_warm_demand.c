#include "relay/webgw/warm_demand.h"

#include <assert.h>

#define LEAST 4
#define MOST  16

static void note(struct warm_demand *demand, uint32_t n, uint64_t now_ms)
{
	for (uint32_t i = 0; i < n; i++)
		warm_demand_note(demand, now_ms);
}

static void test_nobody_needs_no_more_than_the_least(void)
{
	const struct warm_demand demand = { 0 };

	assert(warm_demand_wanted(&demand, LEAST, MOST, 0) == LEAST);
	assert(warm_demand_wanted(&demand, LEAST, MOST, 1000000) == LEAST);
	assert(warm_demand_wanted(&demand, 20, MOST, 0) == MOST);
}

static void test_the_busiest_of_the_last_ten_seconds_counts(void)
{
	for (uint64_t at = 0; at < 25000; at += 1000) {
		struct warm_demand demand = { 0 };
		note(&demand, 9, at);
		note(&demand, 2, at + 1999);
		assert(warm_demand_wanted(&demand, LEAST, MOST, at) == 9);
		assert(warm_demand_wanted(&demand, LEAST, MOST, at + 9999) == 9);
		assert(warm_demand_wanted(&demand, LEAST, MOST, at + 10000) == LEAST);
		assert(warm_demand_wanted(&demand, 1, MOST, at + 10000) == 2);
		assert(warm_demand_wanted(&demand, 1, MOST, at + 11000) == 1);
	}
}

static void test_what_was_long_ago_is_not_counted_again(void)
{
	for (uint64_t gap = 10000; gap < 45000; gap += 1000) {
		struct warm_demand demand = { 0 };
		for (uint64_t at = 0; at < WARM_DEMAND_S * 1000; at += 1000)
			note(&demand, 12, at);
		note(&demand, 1, 9000 + gap);
		assert(warm_demand_wanted(&demand, 1, MOST, 9000 + gap) == 1);
		note(&demand, 4, 9000 + gap);
		assert(warm_demand_wanted(&demand, 1, MOST, 9000 + gap) == 5);
	}
}

static void test_more_than_there_is_room_for_is_cut(void)
{
	struct warm_demand demand = { 0 };

	note(&demand, 100000, 5000);
	assert(warm_demand_wanted(&demand, LEAST, MOST, 5000) == MOST);
	note(&demand, 1, 4000); /* a clock that goes back */
	assert(warm_demand_wanted(&demand, LEAST, MOST, 5000) == MOST);
}

int main(void)
{
	test_nobody_needs_no_more_than_the_least();
	test_the_busiest_of_the_last_ten_seconds_counts();
	test_what_was_long_ago_is_not_counted_again();
	test_more_than_there_is_room_for_is_cut();
	return 0;
}
