/* When TLS is opened beside UDP, when packets go by it, and when it is closed again. */
#include "actors/relay_manager/relay_choice.h"

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

static struct relay_choice choice;

static void given_a_relay(void)
{
	relay_choice_init(&choice, 1000);
}

static void bound(uint64_t ms, uint32_t missing, bool is_proven)
{
	relay_choice_step(&choice, &(struct relay_choice_view){ .now_ms = ms, .is_bound = true, .missing = missing,
								.is_proven = is_proven });
}

static void unbound(uint64_t ms)
{
	relay_choice_step(&choice, &(struct relay_choice_view){ .now_ms = ms });
}

static void test_udp_has_600_ms_before_tls_is_tried(void)
{
	given_a_relay();
	unbound(1000);
	EXPECT(!choice.wants_tls && choice.deadline_ms == 1600);
	unbound(1600);
	EXPECT(choice.wants_tls);
}

static void test_with_udp_no_tls_is_opened(void)
{
	given_a_relay();
	unbound(1000);
	bound(1040, 0, false);
	bound(90000, 2, false);
	EXPECT(!choice.wants_tls && choice.deadline_ms == 0);
}

static void test_where_other_relays_have_no_udp_nobody_waits_for_it(void)
{
	given_a_relay();
	relay_choice_step(&choice, &(struct relay_choice_view){ .now_ms = 1000, .is_blocked = true });
	EXPECT(choice.wants_tls);
}

static void test_a_lost_slot_opens_tls_at_once(void)
{
	given_a_relay();
	bound(1040, 0, false);
	unbound(5000);
	EXPECT(choice.wants_tls);
	bound(5500, 0, false); /* and is not forgotten as soon as there is another */
	EXPECT(choice.wants_tls && choice.doubts_udp);
}

static void test_tls_is_opened_while_udp_is_silent_before_it_is_dead(void)
{
	given_a_relay();
	bound(1040, 0, false);
	relay_choice_step(&choice, &(struct relay_choice_view){ .now_ms = 5000, .is_bound = true, .n_silent = 1 });
	EXPECT(!choice.wants_tls);
	relay_choice_step(&choice, &(struct relay_choice_view){ .now_ms = 5150, .is_bound = true, .n_silent = 2 });
	EXPECT(choice.wants_tls && choice.doubts_udp);
}

static void test_silence_is_believed_however_long_udp_was_good(void)
{
	given_a_relay();
	for (uint64_t ms = 2000; ms < 90000; ms += 1000)
		bound(ms, 0, true);
	EXPECT(!choice.wants_tls && !choice.doubts_udp);
	relay_choice_step(&choice, &(struct relay_choice_view){ .now_ms = 90000, .is_bound = true, .is_proven = true,
								.n_silent = RELAY_CHOICE_SILENT });
	EXPECT(choice.wants_tls && choice.doubts_udp);
	bound(90100, 0, true);
	EXPECT(choice.wants_tls && choice.doubts_udp && choice.deadline_ms == 90100 + RELAY_CHOICE_GOOD_MS);
}

static void test_udp_that_loses_is_doubted_until_it_was_good_for_3_s(void)
{
	given_a_relay();
	bound(1040, 3, false);
	EXPECT(choice.wants_tls && choice.doubts_udp);
	bound(2000, 2, false);
	EXPECT(choice.doubts_udp);
	bound(3000, 1, true);
	EXPECT(choice.doubts_udp && choice.deadline_ms == 6000);
	bound(6000, 0, true);
	EXPECT(!choice.doubts_udp && choice.wants_tls && choice.deadline_ms == 11000);
}

static void test_tls_is_closed_when_udp_was_good_for_8_s_without_a_break(void)
{
	given_a_relay();
	unbound(1600);
	bound(3000, 0, true);
	bound(10000, 0, true);
	EXPECT(choice.wants_tls);
	bound(10500, 2, false);
	bound(11000, 0, true);
	EXPECT(choice.wants_tls);
	bound(19000, 0, true);
	EXPECT(!choice.wants_tls);
}

int main(void)
{
	test_udp_has_600_ms_before_tls_is_tried();
	test_with_udp_no_tls_is_opened();
	test_where_other_relays_have_no_udp_nobody_waits_for_it();
	test_a_lost_slot_opens_tls_at_once();
	test_tls_is_opened_while_udp_is_silent_before_it_is_dead();
	test_silence_is_believed_however_long_udp_was_good();
	test_udp_that_loses_is_doubted_until_it_was_good_for_3_s();
	test_tls_is_closed_when_udp_was_good_for_8_s_without_a_break();
	return 0;
}
