/* When a thread that serves many lets come together what comes next, and for how long. */
#include "common/gathering.h"

#include <assert.h>
#include <stdio.h>

#define US 1000u

static const struct gathering fresh = { .patience = 4, .little_bytes = 16384 };
static const struct gathering_turn little = { .took_ns = 20 * US, .bytes = 100, .n_packets = 1, .n_messages = 1 };

/* The pause after so many turns of that kind. */
static uint64_t pause_after(struct gathering *gathering, const struct gathering_turn *turn, int n)
{
	uint64_t pause_ns = 0;

	for (int i = 0; i < n; i++)
		pause_ns = gathering_pause_ns(gathering, turn);
	return pause_ns;
}

static void test_a_few_packets_never_wait(void)
{
	struct gathering g = fresh;
	struct gathering_turn late = little;

	assert(pause_after(&g, &little, 3) == 0);
	late.idle_ns = GATHERING_HASTY_NS;
	assert(pause_after(&g, &late, 100) == 0);
	assert(pause_after(&g, &little, 3) == 0); /* they begin anew */
	assert(pause_after(&g, &little, 1) == GATHERING_PAUSE_NS);
}

static void test_a_turn_for_nothing_is_followed_by_no_pause(void)
{
	struct gathering g = fresh;
	const struct gathering_turn nothing = { .took_ns = US };

	assert(pause_after(&g, &nothing, 100) == 0);
}

static void test_what_is_left_does_not_wait(void)
{
	struct gathering g = fresh;
	struct gathering_turn turn = little;

	turn.has_more = true;
	assert(pause_after(&g, &turn, 100) == 0);
}

static void test_bulk_does_not_wait(void)
{
	struct gathering g = fresh;
	const struct gathering_turn trains = { .took_ns = 600 * US, .bytes = 1 << 20, .n_packets = 700, .n_messages = 16 };

	assert(pause_after(&g, &trains, 100) == 0);
}

static void test_single_packets_wait_the_longer_the_more_there_is_to_do(void)
{
	struct gathering g = fresh;
	struct gathering_turn turn = { .took_ns = 40 * US, .bytes = 100000, .n_packets = 70, .n_messages = 50 };

	assert(pause_after(&g, &turn, 10) == GATHERING_SINGLE_NS);
	turn.took_ns = 300 * US;
	assert(pause_after(&g, &turn, 1) == 300 * US);
	turn.took_ns = 3000 * US;
	assert(pause_after(&g, &turn, 1) == 50 * GATHERING_EACH_NS);
	turn.n_packets = turn.n_messages = 100;
	assert(pause_after(&g, &turn, 1) == GATHERING_MAX_NS);
	turn.n_packets = GATHERING_SINGLES * turn.n_messages; /* they have come together */
	assert(pause_after(&g, &turn, 1) == 0);
	turn.n_packets = turn.n_messages = GATHERING_MANY; /* to so many that more would not help */
	assert(pause_after(&g, &turn, 1) == 0);
}

static void test_a_pause_is_never_longer_than_its_limit(void)
{
	struct gathering g = fresh;
	const struct gathering_turn turn = { .took_ns = UINT64_MAX, .bytes = 1, .n_packets = 200, .n_messages = 200 };

	assert(pause_after(&g, &turn, 100) == GATHERING_MAX_NS);
}

/* A handshake, say: nothing is saved by waiting. */
static void test_what_took_long_for_other_reasons_makes_no_long_pause(void)
{
	struct gathering g = fresh;
	struct gathering_turn turn = { .took_ns = 2000 * US, .bytes = 20000, .n_messages = 2 };

	assert(pause_after(&g, &turn, 100) == 0);
	turn.n_messages = 8;
	assert(pause_after(&g, &turn, 1) == 8 * GATHERING_EACH_NS);
}

/* What goes to one is in one message: more of it would save little. */
static void test_single_packets_of_few_wait_no_longer_than_others(void)
{
	struct gathering g = fresh;
	struct gathering_turn turn = { .took_ns = 40 * US, .bytes = 1000, .n_packets = 5, .n_messages = 5 };

	assert(pause_after(&g, &turn, 10) == GATHERING_PAUSE_NS);
	turn.n_packets = turn.n_messages = 7;
	assert(pause_after(&g, &turn, 1) == 7 * GATHERING_EACH_NS);
}

int main(void)
{
	test_a_few_packets_never_wait();
	test_a_turn_for_nothing_is_followed_by_no_pause();
	test_what_is_left_does_not_wait();
	test_bulk_does_not_wait();
	test_single_packets_wait_the_longer_the_more_there_is_to_do();
	test_a_pause_is_never_longer_than_its_limit();
	test_what_took_long_for_other_reasons_makes_no_long_pause();
	test_single_packets_of_few_wait_no_longer_than_others();
	puts("gathering: ok");
	return 0;
}
