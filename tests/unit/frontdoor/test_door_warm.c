/* How many connections are kept ready for whom, which is next, and when none is made. Time is virtual. */
#include "relay/frontdoor/door_warm.h"

#include <assert.h>
#include <string.h>

#define CONNECT_MS 5000
#define N_ONES	   512

struct town {
	struct door_warm warm;
	struct endpoint target[2];
	struct door_warm_one ones[N_ONES];
	uint32_t n_made;
	uint64_t now_ms;
};

static void open_town(struct town *town, uint32_t max)
{
	memset(town, 0, sizeof(*town));
	door_warm_init(&town->warm, max, CONNECT_MS);
	for (uint8_t i = 0; i < 2; i++)
		town->target[i] = endpoint_from_v4(0x0a000001u + i, 20000);
	town->now_ms = 1000000;
}

static struct door_warm_pool *pool(const struct town *town, int i)
{
	return door_warm_find(&town->warm, &town->target[i]);
}

/* As the door's thread does when it looks after a pool. Each that is made is there at once. */
static void tend(struct town *town, int i)
{
	struct door_warm_one *one, *other;

	while ((one = door_warm_over(pool(town, i), town->now_ms)))
		door_warm_remove(&town->warm, one);
	while (door_warm_wants(pool(town, i), town->now_ms) &&
	       door_warm_has_room(&town->warm, pool(town, i), town->now_ms, &other)) {
		if (other)
			door_warm_remove(&town->warm, other);
		one = &town->ones[town->n_made++ % N_ONES];
		door_warm_add(&town->warm, pool(town, i), one, town->now_ms);
		door_warm_is_ready(one, town->now_ms);
	}
}

static struct door_warm_one *visit(struct town *town, int i)
{
	struct door_warm_one *one = door_warm_claim(&town->warm, pool(town, i), town->now_ms);

	assert(door_warm_visit(&town->warm, &town->target[i], town->now_ms));
	tend(town, i);
	return one;
}

static void close_town(struct town *town)
{
	for (int i = 0; i < 2; i++)
		for (struct door_warm_one *one; pool(town, i) && (one = door_warm_any(pool(town, i)));)
			door_warm_remove(&town->warm, one);
	assert(town->warm.n == 0);
	door_warm_deinit(&town->warm);
}

static void test_the_first_visitor_finds_none_and_the_next_does(void)
{
	struct town town;

	open_town(&town, 100);
	assert(!visit(&town, 0) && pool(&town, 0)->n == DOOR_WARM_LEAST);
	assert(!door_warm_claim(&town.warm, pool(&town, 1), town.now_ms));
	assert(visit(&town, 0) && pool(&town, 0)->n == DOOR_WARM_LEAST && town.n_made == 3);
	close_town(&town);
}

static void test_the_youngest_is_claimed_first(void)
{
	struct town town;

	open_town(&town, 100);
	visit(&town, 0);
	town.now_ms += 5000;
	visit(&town, 0);
	const struct door_warm_one *youngest = &town.ones[town.n_made - 1];
	assert(door_warm_claim(&town.warm, pool(&town, 0), town.now_ms) == youngest);
	close_town(&town);
}

static void test_there_are_as_many_as_visitors_come_in_a_second_up_to_a_bound(void)
{
	struct town town;

	open_town(&town, 100);
	for (int i = 0; i < 7; i++)
		visit(&town, 0);
	assert(pool(&town, 0)->n == 7);
	for (int i = 0; i < 100; i++)
		visit(&town, 0);
	assert(pool(&town, 0)->n == DOOR_WARM_MOST);
	town.now_ms += 1000;
	visit(&town, 0);
	assert(pool(&town, 0)->n == DOOR_WARM_MOST); /* the second before counts */
	town.now_ms += 2000;
	visit(&town, 0);
	assert(pool(&town, 0)->n == DOOR_WARM_LEAST);
	close_town(&town);
}

static void test_without_visitors_it_becomes_one_and_after_ten_minutes_none(void)
{
	struct town town;
	uint32_t n_made;

	open_town(&town, 100);
	visit(&town, 0);
	const uint64_t visited_ms = town.now_ms;
	assert(door_warm_due(&town.warm, pool(&town, 0), town.now_ms) == visited_ms + DOOR_WARM_BUSY_MS);
	town.now_ms += DOOR_WARM_BUSY_MS;
	tend(&town, 0);
	n_made = town.n_made;
	assert(pool(&town, 0)->n == 1 && n_made == 2);
	while (town.now_ms < visited_ms + DOOR_WARM_FORGET_MS) {
		const uint64_t due = door_warm_due(&town.warm, pool(&town, 0), town.now_ms);
		assert(due > town.now_ms);
		town.now_ms = due;
		tend(&town, 0);
		assert(pool(&town, 0)->n == (town.now_ms < visited_ms + DOOR_WARM_FORGET_MS));
	}
	assert(town.n_made - n_made <= DOOR_WARM_FORGET_MS / DOOR_WARM_LIFE_MS); /* made anew so seldom */
	assert(door_warm_is_done(pool(&town, 0), town.now_ms));
	door_warm_forget(&town.warm, pool(&town, 0));
	assert(!pool(&town, 0));
	close_town(&town);
}

static void test_an_old_one_is_closed_before_the_member_does_so(void)
{
	struct town town;

	open_town(&town, 100);
	visit(&town, 0);
	for (int i = 0; i < 9; i++) {
		town.now_ms += DOOR_WARM_LIFE_MS / 9;
		if (i < 8)
			assert(door_warm_visit(&town.warm, &town.target[0], town.now_ms));
	}
	assert(!door_warm_claim(&town.warm, pool(&town, 0), town.now_ms)); /* too old, and not closed yet */
	tend(&town, 0);
	assert(pool(&town, 0)->n == DOOR_WARM_LEAST && town.n_made == 2 * DOOR_WARM_LEAST);
	close_town(&town);
}

static void test_after_an_end_by_the_member_none_is_made_before_the_next_visitor(void)
{
	struct town town;

	open_town(&town, 100);
	visit(&town, 0);
	for (int i = 0; i < 2; i++) /* both of them: that is one failure */
		door_warm_failed(&town.warm, door_warm_any(pool(&town, 0)), town.now_ms);
	assert(pool(&town, 0)->n == 0 && pool(&town, 0)->n_failed == 1);
	town.now_ms += DOOR_WARM_BUSY_MS - 1;
	tend(&town, 0);
	assert(pool(&town, 0)->n == 0);
	visit(&town, 0);
	assert(pool(&town, 0)->n == DOOR_WARM_LEAST);
	close_town(&town);
}

static void test_each_failure_doubles_the_rest_until_one_works(void)
{
	struct town town;

	open_town(&town, 100);
	visit(&town, 0);
	for (uint64_t rest_ms = DOOR_WARM_REST_MS, i = 0; i < 10; i++) {
		door_warm_failed(&town.warm, door_warm_any(pool(&town, 0)), town.now_ms);
		while (door_warm_any(pool(&town, 0)))
			door_warm_remove(&town.warm, door_warm_any(pool(&town, 0)));
		town.now_ms += rest_ms - 1;
		visit(&town, 0);
		assert(pool(&town, 0)->n == 0);
		assert(door_warm_due(&town.warm, pool(&town, 0), town.now_ms) == town.now_ms + 1);
		town.now_ms++;
		tend(&town, 0);
		assert(pool(&town, 0)->n == DOOR_WARM_LEAST);
		rest_ms = rest_ms * 2 < DOOR_WARM_MAX_REST_MS ? rest_ms * 2 : DOOR_WARM_MAX_REST_MS;
	}
	door_warm_worked(pool(&town, 0));
	door_warm_failed(&town.warm, door_warm_any(pool(&town, 0)), town.now_ms);
	assert(pool(&town, 0)->not_before_ms == town.now_ms + DOOR_WARM_REST_MS);
	close_town(&town);
}

static void test_one_that_was_dead_lets_others_be_made_after_a_rest_without_a_visitor(void)
{
	struct town town;

	open_town(&town, 100);
	visit(&town, 0);
	door_warm_distrust(pool(&town, 0), town.now_ms);
	while (door_warm_any(pool(&town, 0)))
		door_warm_remove(&town.warm, door_warm_any(pool(&town, 0)));
	tend(&town, 0);
	assert(pool(&town, 0)->n == 0);
	town.now_ms += DOOR_WARM_REST_MS;
	tend(&town, 0);
	assert(pool(&town, 0)->n == DOOR_WARM_LEAST);
	close_town(&town);
}

static void test_one_that_is_not_answered_is_late(void)
{
	struct door_warm_one one;
	struct town town;

	open_town(&town, 100);
	assert(door_warm_visit(&town.warm, &town.target[0], town.now_ms));
	door_warm_add(&town.warm, pool(&town, 0), &one, town.now_ms);
	assert(!door_warm_claim(&town.warm, pool(&town, 0), town.now_ms));
	assert(door_warm_due(&town.warm, pool(&town, 0), town.now_ms) == town.now_ms + CONNECT_MS);
	assert(!door_warm_late(&town.warm, pool(&town, 0), town.now_ms + CONNECT_MS - 1));
	assert(door_warm_late(&town.warm, pool(&town, 0), town.now_ms + CONNECT_MS) == &one);
	close_town(&town);
}

static void test_of_all_there_are_so_many_and_who_is_busy_has_those_of_who_is_not(void)
{
	struct town town;

	open_town(&town, 2);
	visit(&town, 0);
	visit(&town, 1);
	assert(pool(&town, 0)->n == 2 && pool(&town, 1)->n == 0); /* both are busy */
	town.now_ms += DOOR_WARM_BUSY_MS;
	visit(&town, 1);
	assert(pool(&town, 0)->n == 0 && pool(&town, 1)->n == 2 && town.warm.n == 2);
	close_town(&town);
}

static void test_of_targets_there_are_so_many(void)
{
	struct town town;
	struct endpoint target;

	open_town(&town, 4);
	visit(&town, 0);
	for (uint32_t i = 1; i < DOOR_WARM_MAX_POOLS; i++) {
		target = endpoint_from_v4(0x0b000000u + i, 1);
		assert(door_warm_visit(&town.warm, &target, town.now_ms));
	}
	assert(!door_warm_visit(&town.warm, &town.target[1], town.now_ms)); /* the first is the oldest, and has some */
	assert(door_warm_visit(&town.warm, &town.target[0], town.now_ms));
	assert(door_warm_visit(&town.warm, &town.target[1], town.now_ms));
	target = endpoint_from_v4(0x0b000001u, 1);
	assert(!door_warm_find(&town.warm, &target) && town.warm.n_pools == DOOR_WARM_MAX_POOLS);
	close_town(&town);
}

static void test_where_none_may_be_none_is(void)
{
	struct town town;

	open_town(&town, 0);
	assert(!door_warm_visit(&town.warm, &town.target[0], town.now_ms));
	close_town(&town);
}

int main(void)
{
	test_the_first_visitor_finds_none_and_the_next_does();
	test_the_youngest_is_claimed_first();
	test_there_are_as_many_as_visitors_come_in_a_second_up_to_a_bound();
	test_without_visitors_it_becomes_one_and_after_ten_minutes_none();
	test_an_old_one_is_closed_before_the_member_does_so();
	test_after_an_end_by_the_member_none_is_made_before_the_next_visitor();
	test_each_failure_doubles_the_rest_until_one_works();
	test_one_that_was_dead_lets_others_be_made_after_a_rest_without_a_visitor();
	test_one_that_is_not_answered_is_late();
	test_of_all_there_are_so_many_and_who_is_busy_has_those_of_who_is_not();
	test_of_targets_there_are_so_many();
	test_where_none_may_be_none_is();
	return 0;
}
