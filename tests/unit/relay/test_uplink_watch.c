/* Whose silence is it: that of the other side, or of a question that waits behind our own traffic? */
#include "actors/relay_manager/uplink_watch.h"

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

static struct uplink_watch watch;

static uint64_t silent_for(uint64_t now_ms)
{
	return now_ms - watch.since_ms;
}

static void test_on_an_idle_link_patience_begins_with_the_question(void)
{
	uplink_watch_ask(&watch, 1000, 500, 500);
	uplink_watch_sent(&watch, 533);
	EXPECT(!watch.is_queued);
	uplink_watch_look(&watch, 1020, 533);
	EXPECT(silent_for(1400) == 400);
}

static void test_a_relay_that_hangs_acknowledges_what_comes_later_and_that_does_not_help_it(void)
{
	uplink_watch_ask(&watch, 1000, 900, 500);
	uplink_watch_sent(&watch, 933);
	for (uint64_t ms = 1050; ms <= 1400; ms += 50)
		uplink_watch_look(&watch, ms, 500 + (ms - 1000) * 100);
	EXPECT(silent_for(1400) == 400);
}

static void test_behind_a_full_uplink_there_is_no_silence_as_long_as_something_moves(void)
{
	const uint64_t queued = 1000000, per_look = 12500; /* 2 Mb/s */
	uint64_t acked = 0, ms = 1000;

	uplink_watch_ask(&watch, ms, queued - 33, acked);
	uplink_watch_sent(&watch, queued);
	while (acked < queued) {
		ms += UPLINK_LOOK_MS;
		acked += per_look;
		uplink_watch_look(&watch, ms, acked);
		EXPECT(silent_for(ms) == 0);
	}
	EXPECT(ms == 5000 && !watch.is_queued);
	uplink_watch_look(&watch, 5300, acked + per_look);
	EXPECT(silent_for(5400) == 400); /* it was asked, and does not answer */
}

static void test_a_window_that_is_closed_is_silence(void)
{
	uplink_watch_ask(&watch, 1000, 89000, 500);
	uplink_watch_sent(&watch, 90000);
	uplink_watch_look(&watch, 1050, 60000);
	for (uint64_t ms = 1100; ms <= 1450; ms += 50)
		uplink_watch_look(&watch, ms, 60000); /* its kernel answers our probes, but takes nothing */
	EXPECT(watch.is_queued && silent_for(1450) == 400);
}

static void test_a_question_that_the_socket_has_not_taken_yet_is_not_acknowledged_by_anything(void)
{
	uplink_watch_ask(&watch, 1000, 89000, 500);
	uplink_watch_look(&watch, 1050, 90000);
	EXPECT(watch.is_queued);
	uplink_watch_sent(&watch, 100000);
	uplink_watch_sent(&watch, 200000); /* what went after it */
	uplink_watch_look(&watch, 1100, 100000);
	EXPECT(!watch.is_queued);
}

int main(void)
{
	test_on_an_idle_link_patience_begins_with_the_question();
	test_a_relay_that_hangs_acknowledges_what_comes_later_and_that_does_not_help_it();
	test_behind_a_full_uplink_there_is_no_silence_as_long_as_something_moves();
	test_a_window_that_is_closed_is_silence();
	test_a_question_that_the_socket_has_not_taken_yet_is_not_acknowledged_by_anything();
	return 0;
}
