/* When relays are connected to only for their latency, and which. */
#include "actors/relay_manager/relay_survey.h"

#include <stdio.h>
#include <stdlib.h>

static void expect(bool holds, const char *what, int line)
{
	if (holds)
		return;
	fprintf(stderr, "line %d: does not hold: %s\n", line, what);
	abort();
}
#define EXPECT(condition) expect(condition, #condition, __LINE__)

#define MINUTE 60000u
#define DAY    (24 * 60 * MINUTE)

static struct home_fsm home;
static struct relay_survey survey;
static uint32_t ids[RELAY_SURVEY_MOST], n_ids, n_times[MAP_MAX_RELAYS + 1];

static void given_relays(uint32_t n)
{
	home = (struct home_fsm){ .home = 1, .n_relays = n };
	for (uint32_t i = 0; i < n; i++)
		home.relays[i].id = i + 1;
	survey = (struct relay_survey){ 0 };
	for (uint32_t i = 0; i <= MAP_MAX_RELAYS; i++)
		n_times[i] = 0;
}

static void try_at(uint64_t now_ms)
{
	n_ids = relay_survey_begin(&survey, &home, now_ms, ids);
	for (uint32_t i = 0; i < n_ids; i++)
		n_times[ids[i]]++;
}

/* Home's connection is cut that often. Returns how many were connected to for their latency. */
static uint32_t a_day_passes(uint64_t *now_ms, uint64_t cut_ms)
{
	uint32_t n = 0;

	for (const uint64_t end = *now_ms + DAY; *now_ms < end; *now_ms += cut_ms)
		if (relay_survey_is_due(&survey, *now_ms)) {
			try_at(*now_ms);
			n += n_ids;
		}
	return n;
}

static void test_who_is_cut_off_often_connects_to_others_ever_more_seldom(void)
{
	uint64_t now_ms = 1000;

	given_relays(40);
	EXPECT(a_day_passes(&now_ms, 10 * MINUTE) <= 9 * RELAY_SURVEY_MOST);
	a_day_passes(&now_ms, 10 * MINUTE);
	EXPECT(a_day_passes(&now_ms, 10 * MINUTE) <= RELAY_SURVEY_MOST);
	EXPECT(a_day_passes(&now_ms, 10 * MINUTE) <= RELAY_SURVEY_MOST);
}

static void test_another_network_is_looked_at_as_soon_as_the_first(void)
{
	uint64_t now_ms = 1000;

	given_relays(40);
	a_day_passes(&now_ms, 10 * MINUTE);
	EXPECT(!relay_survey_is_due(&survey, now_ms));
	relay_survey_forgive(&survey);
	survey.tried_ms = now_ms;
	EXPECT(!relay_survey_is_due(&survey, now_ms + RELAY_SURVEY_MIN_MS - 1));
	EXPECT(relay_survey_is_due(&survey, now_ms + RELAY_SURVEY_MIN_MS));
}

static void test_relays_behind_those_that_do_not_answer_have_their_turn(void)
{
	given_relays(MAP_MAX_RELAYS);
	for (uint64_t i = 0; i < MAP_MAX_RELAYS / RELAY_SURVEY_MOST; i++)
		try_at(i * 2 * HOME_DOWN_MS);
	for (uint32_t id = 2; id <= MAP_MAX_RELAYS; id++)
		EXPECT(n_times[id] == 1);
	EXPECT(n_times[1] == 0);
	try_at(DAY); /* and from the beginning */
	EXPECT(n_times[2] == 2);
}

static void test_who_is_down_or_measured_takes_no_place(void)
{
	given_relays(40);
	for (uint32_t i = 1; i < 20; i++)
		home.relays[i].down_until_ms = 5000;
	home.relays[20].best_us[1] = 7000;
	try_at(4000);
	EXPECT(n_ids == RELAY_SURVEY_MOST && ids[0] == 22);
	for (uint32_t i = 0; i < n_ids; i++)
		EXPECT(ids[i] > 21);
}

static void test_few_relays_and_a_map_that_shrinks(void)
{
	given_relays(0);
	try_at(1000);
	EXPECT(n_ids == 0);
	given_relays(3);
	try_at(1000);
	EXPECT(n_ids == 2 && ids[0] == 2 && ids[1] == 3);
	given_relays(40);
	try_at(1000);
	try_at(2000);
	home.n_relays = 2;
	try_at(3000);
	EXPECT(n_ids == 1 && ids[0] == 2);
}

int main(void)
{
	test_who_is_cut_off_often_connects_to_others_ever_more_seldom();
	test_another_network_is_looked_at_as_soon_as_the_first();
	test_relays_behind_those_that_do_not_answer_have_their_turn();
	test_who_is_down_or_measured_takes_no_place();
	test_few_relays_and_a_map_that_shrinks();
	return 0;
}
