/* What is remembered of where a peer is, and what is forgotten first. */
#include "node/plane_places.h"

#include <stdio.h>
#include <stdlib.h>

#define MS UINT64_C(1000000)
#include <string.h>

static void expect(bool holds, const char *what, int line)
{
	if (holds)
		return;
	fprintf(stderr, "line %d: does not hold: %s\n", line, what);
	abort();
}
#define EXPECT(condition) expect(condition, #condition, __LINE__)

#define HOME 1

static struct plane_place places[PLANE_PLACES];

/* Relays 1 … 8, of which 1 is home; asked for the peer one after another, 8 longest ago. */
static void given_all_are_taken(void)
{
	memset(places, 0, sizeof(places));
	for (uint32_t id = HOME; id <= PLANE_PLACES; id++)
		plane_places_take(places, HOME, id)->asked_ns = 1000 - id;
}

static void test_an_answer_by_our_own_home_does_not_say_that_the_peer_is_there(void)
{
	enum { NONE, OURS, ITS, THIRD };

	EXPECT(!plane_is_answer_elsewhere(ITS, OURS, OURS, ITS)); /* as always, with two homes */
	EXPECT(!plane_is_answer_elsewhere(ITS, ITS, OURS, ITS));
	EXPECT(plane_is_answer_elsewhere(ITS, THIRD, OURS, ITS));
	EXPECT(plane_is_answer_elsewhere(THIRD, ITS, OURS, ITS));
	EXPECT(plane_is_answer_elsewhere(OURS, THIRD, OURS, OURS));
	EXPECT(plane_is_answer_elsewhere(THIRD, OURS, OURS, OURS)); /* it is back */
	EXPECT(plane_is_answer_elsewhere(ITS, THIRD, NONE, ITS));
	EXPECT(!plane_is_answer_elsewhere(THIRD, OURS, OURS, NONE));
}

static void test_a_place_is_kept_once_taken(void)
{
	given_all_are_taken();
	for (uint32_t id = HOME; id <= PLANE_PLACES; id++)
		EXPECT(plane_places_take(places, HOME, id)->asked_ns == 1000 - id);
	EXPECT(plane_places_find(places, 9) == NULL);
}

static void test_of_which_nothing_was_heard_for_longest_gives_way(void)
{
	given_all_are_taken();
	struct plane_place *place = plane_places_take(places, HOME, 9);

	EXPECT(place->relay_id == 9 && place->asked_ns == 0 && !plane_places_find(places, 8));
	EXPECT(plane_places_find(places, 7) && plane_places_find(places, HOME));
}

static void test_where_the_peer_is_stays_however_old(void)
{
	given_all_are_taken();
	plane_places_find(places, 8)->here_ns = 1;
	plane_places_find(places, 8)->asked_ns = 0;
	plane_places_take(places, HOME, 9);
	EXPECT(plane_places_find(places, 8) && !plane_places_find(places, 7));
}

static void test_its_home_gives_way_to_nothing(void)
{
	given_all_are_taken();
	plane_places_find(places, HOME)->asked_ns = 0;
	for (uint32_t id = 2; id <= PLANE_PLACES; id++)
		plane_places_find(places, id)->here_ns = 2000;
	for (uint32_t id = 9; id < 30; id++)
		plane_places_take(places, HOME, id)->here_ns = 2000 + id;
	EXPECT(plane_places_find(places, HOME));
}

static void test_the_latest_news_tell_whether_it_is_there(void)
{
	struct plane_place place = { .relay_id = 3 };

	EXPECT(!plane_place_is_here(&place) && !plane_place_is_absent(&place));
	place.here_ns = 10;
	EXPECT(plane_place_is_here(&place) && !plane_place_is_absent(&place));
	place.absent_ns = 20;
	EXPECT(!plane_place_is_here(&place) && plane_place_is_absent(&place));
	EXPECT(!plane_place_is_here(NULL) && !plane_place_is_absent(NULL) && !plane_place_is_deaf(NULL, 1));
}

static void test_who_did_not_answer_is_deaf_for_a_minute(void)
{
	struct plane_place place = { .relay_id = 3, .here_ns = 10 };

	EXPECT(!plane_place_is_deaf(&place, 20));
	place.deaf_ns = 20;
	EXPECT(plane_place_is_deaf(&place, 20) && plane_place_is_deaf(&place, 19 + PLANE_DEAF_NS));
	EXPECT(!plane_place_is_deaf(&place, 20 + PLANE_DEAF_NS) && plane_place_is_here(&place));
}

static void test_who_was_tried_and_not_said_to_be_absent_is_unknown_after_a_while(void)
{
	struct plane_place place = { .relay_id = 3, .absent_ns = 1000 };
	const uint64_t again = 1000 + PLANE_RETRY_NS;

	EXPECT(plane_place_was_tried(&place, again - 1, false) && !plane_place_was_tried(&place, again, false));
	plane_place_try(&place, again, 20000, false);
	EXPECT(plane_place_is_tried(&place, again) && !plane_place_is_absent(&place));
	EXPECT(plane_place_is_tried(&place, again + 89 * MS) && !plane_place_is_tried(&place, again + 90 * MS));
	EXPECT(!plane_place_is_absent(&place) && !plane_place_is_here(&place));
}

static void test_a_far_relay_has_more_time_to_say_so_but_not_for_ever(void)
{
	struct plane_place place = { .relay_id = 3 };

	plane_place_try(&place, 1000, 100000, false);
	EXPECT(plane_place_is_tried(&place, 249 * MS) && !plane_place_is_tried(&place, 251 * MS));
	place = (struct plane_place){ .relay_id = 3 };
	plane_place_try(&place, 1000, 5000000, false);
	EXPECT(!plane_place_is_tried(&place, 301 * MS));
	place = (struct plane_place){ .relay_id = 3 };
	plane_place_try(&place, 1000, 0, false);
	EXPECT(plane_place_is_tried(&place, 299 * MS) && !plane_place_is_tried(&place, 301 * MS));
}

static void test_who_was_tried_and_is_heard_is_there_at_once(void)
{
	struct plane_place place = { .relay_id = 3 };

	plane_place_try(&place, 1000, 20000, false);
	place.here_ns = 1001;
	EXPECT(!plane_place_is_tried(&place, 1001) && plane_place_is_here(&place));
}

static void test_who_was_tried_and_said_to_be_absent_is_absent(void)
{
	struct plane_place place = { .relay_id = 3, .here_ns = 900 };

	plane_place_try(&place, 1000, 20000, false);
	place.absent_ns = 1001;
	EXPECT(plane_place_is_absent(&place) && plane_place_was_tried(&place, 1002, false));
}

static void test_who_is_heard_while_it_is_tried_is_there_however_often_it_is_tried(void)
{
	struct plane_place place = { .relay_id = 3 };

	plane_place_try(&place, 1000 * MS, 20000, false);
	place.here_ns = 1010 * MS;
	plane_place_try(&place, 1050 * MS, 20000, false);
	EXPECT(!plane_place_is_tried(&place, 1050 * MS) && plane_place_is_here(&place));
	plane_place_try(&place, 1010 * MS + PLANE_FRESH_NS, 20000, false); /* that was long ago */
	EXPECT(plane_place_is_tried(&place, 1010 * MS + PLANE_FRESH_NS));
}

static void test_who_is_sought_is_tried_every_50_ms_and_a_try_has_its_time_all_the_same(void)
{
	struct plane_place place = { .relay_id = 3 };
	uint32_t n = 0;

	EXPECT(!plane_place_was_tried(&place, 1000 * MS, true) && !plane_place_was_tried(NULL, 1000 * MS, true));
	for (uint64_t ms = 1000; ms < 1300; ms += 10) {
		if (plane_place_was_tried(&place, ms * MS, true))
			continue;
		plane_place_try(&place, ms * MS, 100000, true);
		n++;
		EXPECT(plane_place_was_tried(&place, ms * MS, false));
		EXPECT(plane_place_is_tried(&place, ms * MS) == (ms < 1250));
		if (ms == 1200)
			break;
	}
	EXPECT(n == 5 && !plane_place_is_tried(&place, 1250 * MS)); /* of the first, not of the last */
	place.absent_ns = 1201 * MS;
	plane_place_try(&place, 1201 * MS + PLANE_RETRY_NS, 100000, false); /* the relay is asked anew */
	EXPECT(plane_place_is_tried(&place, 1600 * MS) && !plane_place_is_tried(&place, 1601 * MS));
}

/* Three peers are sought at a relay that has none of them, and says so 10 times a second. */
static void test_who_is_sought_where_it_was_absent_stays_absent_though_a_try_is_not_answered(void)
{
	struct plane_place peers[3] = { { .relay_id = 3 }, { .relay_id = 3 }, { .relay_id = 3 } };
	uint32_t n = 0;

	for (int i = 0; i < 3; i++)
		peers[i].absent_ns = 1000 * MS;
	for (uint64_t ms = 1000; ms < 3400; ms += 10)
		for (int i = 0; i < 3; i++) {
			if (!plane_place_was_tried(&peers[i], ms * MS, true)) {
				plane_place_try(&peers[i], ms * MS, 20000, true);
				n++;
			}
			if (ms % 300 == (uint64_t)i * 100)
				peers[i].absent_ns = ms * MS;
			EXPECT(plane_place_is_absent(&peers[i]));
		}
	EXPECT(n == 3 * 48);
}

static void test_who_is_sought_where_it_was_absent_is_there_when_heard_and_unknown_when_that_was_long_ago(void)
{
	struct plane_place place = { .relay_id = 3, .absent_ns = 1000 * MS };

	plane_place_try(&place, 1000 * MS + PLANE_STANDS_NS - 1, 20000, true);
	EXPECT(plane_place_is_absent(&place) && !plane_place_is_tried(&place, 1000 * MS + PLANE_STANDS_NS));
	EXPECT(plane_place_was_tried(&place, 1000 * MS + PLANE_STANDS_NS, true));
	struct plane_place heard = place;
	heard.here_ns = 1000 * MS + PLANE_STANDS_NS;
	EXPECT(plane_place_is_here(&heard) && !plane_place_is_tried(&heard, heard.here_ns));
	plane_place_try(&place, 1000 * MS + PLANE_STANDS_NS, 20000, true);
	EXPECT(!plane_place_is_absent(&place) && plane_place_is_tried(&place, 1000 * MS + PLANE_STANDS_NS));
}

/* 11 relays, of which a packet tries four, those first that are not remembered. */
static void test_of_more_relays_than_are_remembered_each_has_its_turn_and_none_within_50_ms(void)
{
	uint64_t last_ms[12] = { 0 };
	uint32_t n_tries[12] = { 0 };

	memset(places, 0, sizeof(places));
	for (uint64_t ms = 1000; ms < 3000; ms += 10) {
		uint32_t n = 0;
		for (int pass = 0; pass < 2; pass++)
			for (uint32_t id = 1; id < 12 && n < 4; id++) {
				if ((plane_places_find(places, id) != NULL) != (pass == 1) ||
				    plane_place_was_tried(plane_places_room(places, HOME, id), ms * MS, true))
					continue;
				EXPECT(ms - last_ms[id] >= 50);
				plane_place_try(plane_places_take(places, HOME, id), ms * MS, 20000, true);
				last_ms[id] = ms;
				n_tries[id]++;
				n++;
			}
	}
	for (uint32_t id = 1; id < 12; id++)
		EXPECT(n_tries[id] >= 20 && n_tries[id] <= 40);
}

static void test_the_room_for_a_place_is_its_own_or_of_who_gives_way_and_looking_takes_nothing(void)
{
	given_all_are_taken();
	EXPECT(plane_places_room(places, HOME, 5)->relay_id == 5);
	EXPECT(plane_places_room(places, HOME, 9)->relay_id == 8 && !plane_places_find(places, 9));
	plane_places_find(places, 8)->sent_ns = 1000; /* tried since */
	EXPECT(plane_places_room(places, HOME, 9)->relay_id == 7);
	EXPECT(plane_places_take(places, HOME, 9)->relay_id == 9 && !plane_places_find(places, 7));
}

/* So many peers are sought for 10 s, looked at every 50 ms, always in the same order: how often, at least and at most? */
static void expect_turns(int n_peers, uint32_t least, uint32_t most)
{
	struct plane_rounds rounds = { 0 };
	uint64_t sought_ns[1000] = { 0 };
	uint32_t n_turns[1000] = { 0 };

	for (uint64_t ms = 1000; ms < 11000; ms += 50) {
		uint32_t n = 0;
		for (int i = 0; i < n_peers; i++) {
			if (!plane_rounds_take(&rounds, sought_ns[i], ms * MS))
				continue;
			sought_ns[i] = ms * MS;
			n_turns[i]++;
			n++;
		}
		EXPECT(n <= 64);
	}
	for (int i = 0; i < n_peers; i++)
		EXPECT(n_turns[i] >= least && n_turns[i] <= most);
}

static void test_few_are_sought_ten_times_a_second(void)
{
	expect_turns(1, 100, 100);
	expect_turns(64, 100, 100);
}

static void test_of_many_that_are_sought_64_are_in_a_round_and_all_have_their_turn(void)
{
	expect_turns(200, 20, 34);
	expect_turns(1000, 5, 8);
}

int main(void)
{
	test_who_was_tried_and_not_said_to_be_absent_is_unknown_after_a_while();
	test_a_far_relay_has_more_time_to_say_so_but_not_for_ever();
	test_who_was_tried_and_is_heard_is_there_at_once();
	test_who_was_tried_and_said_to_be_absent_is_absent();
	test_who_is_heard_while_it_is_tried_is_there_however_often_it_is_tried();
	test_who_is_sought_is_tried_every_50_ms_and_a_try_has_its_time_all_the_same();
	test_who_is_sought_where_it_was_absent_stays_absent_though_a_try_is_not_answered();
	test_who_is_sought_where_it_was_absent_is_there_when_heard_and_unknown_when_that_was_long_ago();
	test_of_more_relays_than_are_remembered_each_has_its_turn_and_none_within_50_ms();
	test_the_room_for_a_place_is_its_own_or_of_who_gives_way_and_looking_takes_nothing();
	test_an_answer_by_our_own_home_does_not_say_that_the_peer_is_there();
	test_a_place_is_kept_once_taken();
	test_of_which_nothing_was_heard_for_longest_gives_way();
	test_where_the_peer_is_stays_however_old();
	test_its_home_gives_way_to_nothing();
	test_the_latest_news_tell_whether_it_is_there();
	test_who_did_not_answer_is_deaf_for_a_minute();
	test_few_are_sought_ten_times_a_second();
	test_of_many_that_are_sought_64_are_in_a_round_and_all_have_their_turn();
	return 0;
}
