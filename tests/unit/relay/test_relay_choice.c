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

/* ---- hours of pings, one a second; each is lost, or its answer is, by chance ---- */

static uint64_t now_ms, seed, n_changes;
static uint32_t last_pings, n_pings, n_silent;

static void given_an_hour_of_pings(void)
{
	given_a_relay();
	now_ms = seed = 1000;
	n_changes = last_pings = n_pings = n_silent = 0;
}

static uint32_t ones(uint32_t bits)
{
	return (uint32_t)__builtin_popcount(bits);
}

static bool is_by_chance(double share)
{
	seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (double)(seed >> 33) < share * (double)(UINT64_C(1) << 31);
}

/*
 * Traffic flows both ways: a ping is into silence only if nothing else was heard for a second. As the machine does: it
 * counts each ping when it is sent, so 2 when one was lost; those into silence are sent three times. Returns seconds by TLS.
 */
static uint32_t seconds_pass(uint32_t n, uint32_t percent_lost, bool is_quiet)
{
	const double p = percent_lost / 100.0;
	uint32_t by_tls = 0;

	n_changes = 0;
	for (uint32_t i = 0; i < n; i++) {
		const bool was_doubted = choice.doubts_udp;
		const bool is_lost = is_by_chance(n_silent > 0 ? p * p * p : p);
		now_ms += 1000;
		n_pings++;
		last_pings = last_pings << 1 | is_lost;
		n_silent = !is_lost || !is_quiet ? 0 : n_silent == 0 ? 2 : n_silent + 1;
		relay_choice_step(&choice, &(struct relay_choice_view){
						   .now_ms = now_ms, .is_bound = true, .n_silent = n_silent,
						   .missing = ones(last_pings & 0xff), .is_proven = n_pings >= 8 && ones(last_pings & 0xff) <= 1,
						   .knows_loss = n_pings >= 32,
						   .loss = n_pings < 32 ? 0 : ones(last_pings) * 100 / 32 });
		n_changes += was_doubted != choice.doubts_udp;
		by_tls += choice.doubts_udp;
	}
	return by_tls;
}

static void the_slot_is_lost(uint32_t n_silent_before)
{
	for (uint32_t i = 1; i <= n_silent_before; i++)
		relay_choice_step(&choice, &(struct relay_choice_view){ .now_ms = now_ms += 150, .is_bound = true,
									.is_proven = true, .n_silent = i });
	relay_choice_step(&choice, &(struct relay_choice_view){ .now_ms = now_ms += 150 });
	last_pings = n_pings = n_silent = 0;
}

#define HOUR 3600u

static void test_where_udp_loses_a_quarter_for_hours_tls_is_taken_and_kept(void)
{
	for (uint32_t percent = 25; percent <= 75; percent += 10) {
		given_an_hour_of_pings();
		seconds_pass(HOUR, percent, percent & 1); /* in which it is found out */
		EXPECT(seconds_pass(10 * HOUR, percent, percent & 1) > 9 * HOUR);
		EXPECT(n_changes <= 10);
	}
}

static void test_no_loss_makes_packets_change_their_way_more_than_once_an_hour(void)
{
	for (uint32_t percent = 0; percent <= 90; percent += 5)
		for (uint32_t quiet = 0; quiet < 2; quiet++) {
			given_an_hour_of_pings();
			seconds_pass(2 * HOUR, percent, quiet);
			EXPECT(n_changes <= 12); /* five times left, and one late ping */
			seconds_pass(100 * HOUR, percent, quiet);
			EXPECT(n_changes <= 100);
		}
}

static void test_what_loses_little_is_used(void)
{
	for (uint32_t percent = 0; percent <= 4; percent += 2) {
		for (uint32_t quiet = 0; quiet < 2; quiet++) {
			given_an_hour_of_pings();
			EXPECT(seconds_pass(100 * HOUR, percent, quiet) < 10 * HOUR);
		}
	}
}

static void test_one_lost_ping_moves_packets_for_seconds_and_is_no_reason_to_wait_longer_later(void)
{
	given_an_hour_of_pings();
	seconds_pass(HOUR, 0, true);
	for (int i = 0; i < 20; i++) {
		EXPECT(seconds_pass(1, 100, true) == (i == 0)); /* the first only */
		EXPECT(choice.n_left == 0 && (choice.wants_tls || i > 0));
		EXPECT(seconds_pass(600, 0, true) <= 3 && !choice.wants_tls);
	}
}

/* How often TLS is opened in so many hours of an idle node, a ping every 20 s: each hundredth, or tenth, is late. */
static uint32_t times_opened(uint32_t n_hours, uint32_t one_of)
{
	uint32_t n = 0;

	for (uint32_t i = 1; i <= n_hours * 180; i++) {
		const bool was_open = choice.wants_tls;
		if (i % one_of == 0)
			relay_choice_step(&choice, &(struct relay_choice_view){ .now_ms = now_ms + 500, .is_bound = true,
										.is_proven = true, .n_silent = 2 });
		n += !was_open && choice.wants_tls;
		for (uint32_t k = 0; k < 20; k++) /* what is late is answered, and the next are */
			relay_choice_step(&choice, &(struct relay_choice_view){ .now_ms = now_ms += 1000, .is_bound = true,
										.is_proven = true });
		EXPECT(!choice.wants_tls);
	}
	return n;
}

static void test_late_pings_open_tls_15_times_a_day_at_most_and_first_at_once(void)
{
	for (uint32_t one_of = 1; one_of <= 100; one_of *= 10) {
		given_an_hour_of_pings();
		seconds_pass(60, 0, true);
		const uint32_t n = times_opened(24, one_of);
		EXPECT(n >= 10 && n <= 15);
		EXPECT(times_opened(24, one_of) <= 12);
	}
}

static void test_a_late_ping_opens_tls_at_once_after_six_hours_without_and_in_another_network(void)
{
	for (int is_other = 0; is_other < 2; is_other++) {
		given_an_hour_of_pings();
		seconds_pass(60, 0, true);
		EXPECT(times_opened(1, 1) == 3);
		if (is_other)
			relay_choice_forgive(&choice);
		else
			seconds_pass(6 * HOUR, 0, true);
		EXPECT(times_opened(1, 1) == 3);
	}
}

static void test_where_late_pings_open_tls_no_more_the_second_does_at_once(void)
{
	given_an_hour_of_pings();
	seconds_pass(60, 0, true);
	times_opened(1, 1);
	relay_choice_step(&choice, &(struct relay_choice_view){ .now_ms = now_ms += 500, .is_bound = true, .n_silent = 2 });
	EXPECT(!choice.wants_tls);
	relay_choice_step(&choice, &(struct relay_choice_view){ .now_ms = now_ms += 150, .is_bound = true, .n_silent = 3 });
	EXPECT(choice.wants_tls && choice.doubts_udp);
	seconds_pass(60, 0, true);
	EXPECT(!choice.wants_tls && times_opened(1, 1) == 3); /* that was not for nothing */
}

static void test_one_lost_ping_does_not_begin_the_two_hours_anew(void)
{
	given_an_hour_of_pings();
	seconds_pass(60, 60, true);
	choice.n_left = 5; /* as after days of this */
	EXPECT(choice.doubts_udp);
	seconds_pass(HOUR + 60, 0, true);
	seconds_pass(1, 100, true);
	EXPECT(choice.doubts_udp);
	seconds_pass(HOUR, 0, true);
	EXPECT(!choice.doubts_udp);
}

static void test_when_the_second_is_late_too_udp_was_left(void)
{
	given_an_hour_of_pings();
	seconds_pass(60, 0, true);
	seconds_pass(2, 100, true);
	EXPECT(choice.doubts_udp && choice.n_left == 1);
	seconds_pass(60, 0, true);
	EXPECT(!choice.doubts_udp && choice.n_left == 1);
}

static void test_a_relay_that_restarts_often_is_used_over_udp_all_the_same(void)
{
	given_an_hour_of_pings();
	for (uint32_t i = 0; i < 20; i++) {
		seconds_pass(600, 0, true);
		the_slot_is_lost(i % 6); /* it says so, or is silent */
		EXPECT(choice.wants_tls && choice.doubts_udp);
		EXPECT(seconds_pass(60, 0, true) < 20 && !choice.wants_tls);
	}
}

static void test_in_a_new_slot_udp_is_not_believed_before_its_loss_is_known(void)
{
	given_an_hour_of_pings();
	for (int i = 0; i < 2; i++) {
		seconds_pass(60, 0, false);
		seconds_pass(20, 100, false);
		seconds_pass(120, 0, false);
	}
	EXPECT(choice.n_left == 2 && !choice.doubts_udp);
	the_slot_is_lost(0);
	for (int i = 0; i < 10; i++) { /* a third is lost */
		seconds_pass(2, 0, false);
		seconds_pass(1, 100, false);
		EXPECT(choice.doubts_udp);
	}
	the_slot_is_lost(0);
	seconds_pass(31, 0, false); /* 8 until it is proven, and 24 s are not over */
	EXPECT(choice.doubts_udp);
	seconds_pass(2, 0, false);
	EXPECT(!choice.doubts_udp);
}

static void test_in_a_new_slot_a_udp_that_loses_most_is_left_before_32_pings(void)
{
	given_a_relay();
	choice = (struct relay_choice){ .was_bound = true, .n_left = 2, .trusted_ms = 1 };
	relay_choice_step(&choice, &(struct relay_choice_view){ .now_ms = 100000, .is_bound = true, .missing = 6 });
	EXPECT(choice.doubts_udp);
}

static void test_udp_is_taken_back_when_it_has_long_been_good(void)
{
	given_an_hour_of_pings();
	seconds_pass(4 * HOUR, 40, true);
	EXPECT(choice.doubts_udp);
	seconds_pass(2 * HOUR + 60, 0, true);
	EXPECT(!choice.doubts_udp && n_changes == 1);
	EXPECT(seconds_pass(6 * HOUR + 60, 0, true) == 0 && !choice.wants_tls);
	EXPECT(seconds_pass(HOUR, 100, true) > HOUR - 5); /* silence is believed at once, and forgiven as at first */
	EXPECT(seconds_pass(60, 0, true) < 20);
}

static void test_another_network_is_given_the_same_chance_as_the_first(void)
{
	given_an_hour_of_pings();
	seconds_pass(4 * HOUR, 40, true);
	relay_choice_forgive(&choice);
	EXPECT(seconds_pass(60, 0, true) < 20 && !choice.doubts_udp);
}

static void test_a_doubted_udp_costs_no_pings_while_nothing_flows(void)
{
	given_a_relay();
	EXPECT(!relay_choice_is_watching(&choice, true));
	bound(2000, 8, false);
	EXPECT(relay_choice_is_watching(&choice, false));
	given_an_hour_of_pings();
	seconds_pass(2 * HOUR, 40, true);
	EXPECT(relay_choice_is_watching(&choice, true) && !relay_choice_is_watching(&choice, false));
}

int main(void)
{
	test_where_udp_loses_a_quarter_for_hours_tls_is_taken_and_kept();
	test_no_loss_makes_packets_change_their_way_more_than_once_an_hour();
	test_what_loses_little_is_used();
	test_one_lost_ping_moves_packets_for_seconds_and_is_no_reason_to_wait_longer_later();
	test_late_pings_open_tls_15_times_a_day_at_most_and_first_at_once();
	test_a_late_ping_opens_tls_at_once_after_six_hours_without_and_in_another_network();
	test_where_late_pings_open_tls_no_more_the_second_does_at_once();
	test_one_lost_ping_does_not_begin_the_two_hours_anew();
	test_when_the_second_is_late_too_udp_was_left();
	test_a_relay_that_restarts_often_is_used_over_udp_all_the_same();
	test_in_a_new_slot_udp_is_not_believed_before_its_loss_is_known();
	test_in_a_new_slot_a_udp_that_loses_most_is_left_before_32_pings();
	test_udp_is_taken_back_when_it_has_long_been_good();
	test_another_network_is_given_the_same_chance_as_the_first();
	test_a_doubted_udp_costs_no_pings_while_nothing_flows();

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
