/* Of a connection one way has ended. How long may it stay? */
#include "relay/webgw/half_closed.h"

#include <assert.h>
#include <stdio.h>

#define LIMIT 120000

static void test_while_both_ways_are_open_silence_is_no_end(void)
{
	struct half_closed half_closed = { 0 };

	for (uint64_t now_ms = 1; now_ms < 10 * LIMIT; now_ms += 1000)
		assert(!half_closed_is_over(&half_closed, false, 5, now_ms, LIMIT));
}

static void test_half_closed_and_silent_it_is_over_after_the_limit(void)
{
	struct half_closed half_closed = { 0 };

	assert(!half_closed_is_over(&half_closed, false, 5, 900000, LIMIT));
	assert(!half_closed_is_over(&half_closed, true, 5, 1000000, LIMIT));
	assert(!half_closed_is_over(&half_closed, true, 5, 1000000 + LIMIT - 1, LIMIT));
	assert(half_closed_is_over(&half_closed, true, 5, 1000000 + LIMIT, LIMIT));
}

static void test_what_still_moves_stays(void)
{
	struct half_closed half_closed = { 0 };
	uint64_t moved = 0, now_ms = 1;

	for (int i = 0; i < 50; i++, now_ms += LIMIT - 1)
		assert(!half_closed_is_over(&half_closed, true, ++moved, now_ms, LIMIT));
	assert(!half_closed_is_over(&half_closed, true, moved, now_ms, LIMIT));
	assert(half_closed_is_over(&half_closed, true, moved, now_ms + LIMIT, LIMIT));
}

int main(void)
{
	test_while_both_ways_are_open_silence_is_no_end();
	test_half_closed_and_silent_it_is_over_after_the_limit();
	test_what_still_moves_stays();
	puts("ok");
}
