/* Which of several places of one host gets the next visitor, and which is passed over, for how long. */
#include "relay/frontdoor/door_places.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#define HOST "app.example.org"

struct several {
	struct door_places list;
	struct door_place *places[3];
	uint64_t n_turns, now_ms;
};

static void open_several(struct several *several)
{
	*several = (struct several){ .now_ms = 100000 };
	for (uint8_t i = 0; i < 3; i++) {
		const struct endpoint target = endpoint_from_v4(0x0a000001u + i, 7);
		several->places[i] = door_places_get(&several->list, HOST, &"abc"[i], &target, true);
	}
	door_places_sweep(&several->list);
}

static void close_several(struct several *several)
{
	door_places_deinit(&several->list);
}

/* Where the next visitor comes: 0, 1 or 2. */
static int enter(struct several *several)
{
	struct door_place *place = door_place_choose(several->places, 3, NULL, 0, several->now_ms);

	assert(place);
	door_place_enter(place, ++several->n_turns, several->now_ms);
	for (int i = 0; i < 3; i++)
		if (several->places[i] == place)
			return i;
	abort();
}

/* Who is there for a moment alone. */
static int pass(struct several *several)
{
	const int i = enter(several);

	door_place_leave(several->places[i]);
	return i;
}

static void fail(struct several *several, int i)
{
	door_place_failed(several->places[i], several->now_ms);
}

static void test_equals_take_turns(void)
{
	struct several several;

	open_several(&several);
	for (int i = 0; i < 9; i++)
		assert(pass(&several) == i % 3);
	close_several(&several);
}

static void test_the_next_visitor_is_for_the_one_with_the_fewest(void)
{
	struct several several;

	open_several(&several);
	for (int i = 0; i < 6; i++)
		enter(&several);
	door_place_leave(several.places[1]);
	door_place_leave(several.places[1]);
	assert(enter(&several) == 1 && enter(&several) == 1 && enter(&several) == 0);
	close_several(&several);
}

static void test_who_failed_is_passed_over_and_tried_by_one_after_its_time(void)
{
	struct several several;

	open_several(&several);
	assert(pass(&several) == 0);
	fail(&several, 0);
	for (int i = 0; i < 6; i++)
		assert(pass(&several) != 0);
	several.now_ms += 999;
	assert(door_place_is_passed_over(several.places[0], several.now_ms));
	several.now_ms++;
	assert(pass(&several) == 0);
	for (int i = 0; i < 6; i++)
		assert(pass(&several) != 0); /* the others wait for what comes of it */
	fail(&several, 0);
	several.now_ms += 1999;
	assert(door_place_is_passed_over(several.places[0], several.now_ms)); /* twice as long */
	several.now_ms++;
	assert(pass(&several) == 0);
	door_place_answered(several.places[0]);
	assert(pass(&several) == 1 && pass(&several) == 2 && pass(&several) == 0);
	close_several(&several);
}

static void test_the_time_grows_to_ten_seconds_and_no_further(void)
{
	static const uint64_t seconds[] = { 1, 2, 4, 8, 10, 10, 10 };
	struct several several;

	open_several(&several);
	for (size_t i = 0; i < ARRAY_LEN(seconds); i++) {
		fail(&several, 0);
		several.now_ms += seconds[i] * 1000 - 1;
		assert(door_place_is_passed_over(several.places[0], several.now_ms));
		several.now_ms++;
		assert(!door_place_is_passed_over(several.places[0], several.now_ms));
	}
	close_several(&several);
}

/* Many who were on their way when it broke say it once. */
static void test_a_crowd_that_fails_at_once_counts_as_one(void)
{
	struct several several;

	open_several(&several);
	for (int i = 0; i < 100; i++)
		fail(&several, 2);
	several.now_ms += 1000;
	assert(!door_place_is_passed_over(several.places[2], several.now_ms));
	assert(atomic_load(&several.places[2]->failed) == 100);
	close_several(&several);
}

static void test_when_all_failed_nobody_is_refused_for_it(void)
{
	struct several several;

	open_several(&several);
	for (int i = 2; i >= 0; i--) {
		fail(&several, i);
		several.now_ms += 10;
	}
	assert(pass(&several) == 2); /* whose time is over first */
	close_several(&several);
}

/* What is said of it is bounded, however often it changes; and who is said to have failed is said to answer. */
static void test_who_fails_and_answers_by_turns_is_said_to_at_a_bounded_rate(void)
{
	struct several several;
	uint32_t n_failed = 0, n_answered = 0;

	open_several(&several);
	struct door_place *place = several.places[0];
	assert(!door_place_is_to_say_answered(place));
	for (int i = 0; i < 2000; i++) { /* 20 s */
		door_place_failed(place, several.now_ms);
		n_failed += door_place_is_to_say_failed(place, several.now_ms);
		assert(!door_place_is_to_say_failed(place, several.now_ms));
		several.now_ms += 10;
		door_place_answered(place);
		n_answered += door_place_is_to_say_answered(place);
		assert(n_failed == n_answered && !door_place_is_to_say_answered(place));
	}
	assert(n_failed == 2);
	/* What was not said then is later, when it still fails; and of others it is said at once. */
	several.now_ms -= 1000;
	assert(!door_place_is_to_say_failed(place, several.now_ms) && door_place_is_to_say_failed(several.places[1], several.now_ms));
	several.now_ms += 1000;
	assert(door_place_is_to_say_failed(place, several.now_ms));
	close_several(&several);
}

static void test_one_visitor_is_led_to_each_once(void)
{
	struct several several;

	open_several(&several);
	assert(door_place_choose(several.places, 3, several.places, 1, several.now_ms) == several.places[1]);
	fail(&several, 1);
	assert(door_place_choose(several.places, 3, several.places, 1, several.now_ms) == several.places[2]);
	assert(door_place_choose(several.places, 3, several.places, 3, several.now_ms) == NULL);
	close_several(&several);
}

static void test_the_list_has_those_that_were_asked_for_last(void)
{
	struct several several;

	open_several(&several);
	struct door_place *first = several.places[0], *other = several.places[1];
	assert(door_places_get(&several.list, HOST, "abc", &first->target, false) == first && !first->is_online);
	assert(door_places_get(&several.list, HOST, "abc", &other->target, true) != first); /* it has moved */
	assert(door_places_get(&several.list, "other.org", "abc", &first->target, true) != first);
	door_place_hold(other);
	door_places_sweep(&several.list); /* of the second it lets go, and whoever holds it has it still */
	const struct endpoint target = other->target;
	struct door_place *again = door_places_get(&several.list, HOST, "bc", &target, true);
	assert(again != other);
	door_place_let_go(other);
	door_place_let_go(NULL);
	close_several(&several);
}

int main(void)
{
	test_equals_take_turns();
	test_the_next_visitor_is_for_the_one_with_the_fewest();
	test_who_failed_is_passed_over_and_tried_by_one_after_its_time();
	test_the_time_grows_to_ten_seconds_and_no_further();
	test_a_crowd_that_fails_at_once_counts_as_one();
	test_when_all_failed_nobody_is_refused_for_it();
	test_who_fails_and_answers_by_turns_is_said_to_at_a_bounded_rate();
	test_one_visitor_is_led_to_each_once();
	test_the_list_has_those_that_were_asked_for_last();
	return 0;
}
