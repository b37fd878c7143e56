/*
 * The replay window: each counter once, none that is too old, none beyond the limit. The sequences
 * are those of the Linux kernel's self-test for its counter, restated.
 */
#include "common/macros.h"
#include "common/replay.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#define EDGE (REPLAY_WINDOW + 1)

struct step {
	uint64_t counter;
	bool accepted;
};

static void follow(const struct step *steps, size_t n)
{
	struct replay replay = { 0 };

	for (size_t i = 0; i < n; i++) {
		bool fresh = replay_is_fresh(&replay, steps[i].counter);
		bool accepted = replay_accept(&replay, steps[i].counter);
		if (accepted != steps[i].accepted || fresh != accepted) {
			fprintf(stderr, "step %zu, counter %llu: %s\n", i,
				(unsigned long long)steps[i].counter, accepted ? "accepted" : "refused");
			abort();
		}
	}
}

static void test_the_kernel_sequence(void)
{
	static const struct step steps[] = {
		{ 0, true },
		{ 1, true },
		{ 1, false },
		{ 9, true },
		{ 8, true },
		{ 7, true },
		{ 7, false },
		{ EDGE, true },
		{ EDGE - 1, true },
		{ EDGE - 1, false },
		{ EDGE - 2, true },
		{ 2, true },
		{ 2, false },
		{ EDGE + 16, true },
		{ 3, false },
		{ EDGE + 16, false },
		{ EDGE * 4, true },
		{ EDGE * 4 - (EDGE - 1), true },
		{ 10, false },
		{ EDGE * 4 - EDGE, false },
		{ EDGE * 4 - (EDGE + 1), false },
		{ EDGE * 4 - (EDGE - 2), true },
		{ EDGE * 4 + 1 - EDGE, false },
		{ 0, false },
		{ REPLAY_LIMIT, false },
		{ REPLAY_LIMIT - 1, true },
		{ REPLAY_LIMIT, false },
		{ REPLAY_LIMIT - 1, false },
		{ REPLAY_LIMIT - 2, true },
		{ REPLAY_LIMIT + 1, false },
		{ REPLAY_LIMIT + 2, false },
		{ REPLAY_LIMIT - 2, false },
		{ REPLAY_LIMIT - 3, true },
		{ 0, false },
	};

	follow(steps, ARRAY_LEN(steps));
}

/* The counters from..to, upwards or downwards, are all new. */
static void accept_all(struct replay *replay, uint64_t from, uint64_t to)
{
	for (uint64_t c = from;; c = from < to ? c + 1 : c - 1) {
		bool accepted = replay_accept(replay, c);
		assert(accepted);
		if (c == to)
			return;
	}
}

static void test_a_whole_window_late(void)
{
	struct replay replay = { 0 };

	accept_all(&replay, 1, REPLAY_WINDOW);
	assert(replay_accept(&replay, 0));
	assert(!replay_accept(&replay, 0));
}

static void test_one_more_than_the_window_late(void)
{
	struct replay replay = { 0 };

	accept_all(&replay, 2, REPLAY_WINDOW + 1);
	assert(replay_accept(&replay, 1));
	assert(!replay_accept(&replay, 0));
}

static void test_a_window_backwards(void)
{
	struct replay replay = { 0 };

	accept_all(&replay, REPLAY_WINDOW, 0);
}

static void test_a_window_and_one_backwards(void)
{
	struct replay replay = { 0 };

	accept_all(&replay, REPLAY_WINDOW + 1, 1);
	assert(!replay_accept(&replay, 0));
}

static void test_the_edge_moves_with_the_head(void)
{
	struct replay early = { 0 }, late = { 0 };

	accept_all(&early, REPLAY_WINDOW, 1);
	assert(replay_accept(&early, REPLAY_WINDOW + 1));
	assert(!replay_accept(&early, 0));
	accept_all(&late, REPLAY_WINDOW, 1);
	assert(replay_accept(&late, 0));
	assert(replay_accept(&late, REPLAY_WINDOW + 1));
}

/* wireguard-lwip dropped the first packet after each rekey: a fresh window must take counter 0. */
static void test_a_fresh_window_takes_counter_zero(void)
{
	struct replay replay = { 0 };

	assert(replay_accept(&replay, 0));
	assert(!replay_accept(&replay, 0));
}

static void test_random_counters_as_a_naive_set_says(void)
{
	enum { RANGE = 40000 };
	static bool seen[RANGE];
	struct replay replay = { 0 };
	uint64_t highest = 0, head = 0;

	srand(1);
	for (int i = 0; i < 200000; i++) {
		uint64_t step = (uint64_t)(rand() % (rand() % 50 == 0 ? 9000 : 100));
		uint64_t counter = rand() % 3 == 0 ? head + step : head - (step < head ? step : head);
		if (counter >= RANGE)
			break;
		bool expected = !seen[counter] && (counter > highest || highest - counter <= REPLAY_WINDOW);
		bool accepted = replay_accept(&replay, counter);
		assert(accepted == expected);
		seen[counter] |= accepted;
		if (counter > highest)
			highest = counter;
		if (i % 20 == 0)
			head = highest;
	}
	assert(highest > RANGE / 2);
}

int main(void)
{
	test_the_kernel_sequence();
	test_a_whole_window_late();
	test_one_more_than_the_window_late();
	test_a_window_backwards();
	test_a_window_and_one_backwards();
	test_the_edge_moves_with_the_head();
	test_a_fresh_window_takes_counter_zero();
	test_random_counters_as_a_naive_set_says();
	puts("ok");
}
