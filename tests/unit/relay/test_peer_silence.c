/* When a peer that does not answer is woken, sought, looked for elsewhere; and when it is left alone. */
#include "actors/relay_manager/peer_silence.h"

#include <stdio.h>
#include <stdlib.h>

#define MS UINT64_C(1000000)

static void expect(bool holds, const char *what, int line)
{
	if (holds)
		return;
	fprintf(stderr, "line %d: does not hold: %s\n", line, what);
	abort();
}
#define EXPECT(condition) expect(condition, #condition, __LINE__)

static struct peer_silence silence;

static void given_a_peer_that_answered_at(uint64_t ms)
{
	silence = (struct peer_silence){ 0 };
	(void)peer_silence_heard(&silence, ms * MS);
}

static void data_sent(uint64_t ms)
{
	peer_silence_sent(&silence, ms * MS, false);
}

static uint32_t all_due(uint64_t ms)
{
	return peer_silence_due(&silence, ms * MS, ms * MS);
}

/* But knocks, which have tests of their own. */
static uint32_t due(uint64_t ms)
{
	return all_due(ms) & ~(uint32_t)PEER_SILENCE_KNOCK;
}

/* A packet every 10 ms; how often something was due, looked at every 50 ms. */
static uint32_t count(uint32_t deeds, uint64_t from_ms, uint64_t to_ms)
{
	uint32_t n = 0;

	for (uint64_t ms = from_ms; ms < to_ms; ms += 10) {
		data_sent(ms);
		if (ms % 50 == 0)
			n += (all_due(ms) & deeds) != 0;
	}
	return n;
}

static void test_a_peer_that_answers_is_never_in_doubt(void)
{
	given_a_peer_that_answered_at(1000);
	for (uint64_t ms = 1010; ms < 9000; ms += 10) {
		data_sent(ms);
		if (ms % 200 == 0)
			(void)peer_silence_heard(&silence, (ms - 20) * MS);
		EXPECT(due(ms) == 0);
	}
}

static void test_what_another_relay_lost_is_not_held_against_the_one_in_use_now(void)
{
	given_a_peer_that_answered_at(1000);
	EXPECT(count(PEER_SILENCE_WAKE | PEER_SILENCE_TURN, 1010, 1350) == 0);
	peer_silence_moved(&silence, 1350 * MS);
	EXPECT(count(PEER_SILENCE_WAKE | PEER_SILENCE_TURN, 1350, 1750) == 0);
	EXPECT(count(PEER_SILENCE_WAKE, 1750, 1850) == 1);
}

static void test_who_was_turned_is_not_waited_for_anew_when_it_moves(void)
{
	given_a_peer_that_answered_at(1000);
	data_sent(1010);
	peer_silence_turned(&silence, 1400 * MS);
	peer_silence_moved(&silence, 1400 * MS);
	data_sent(1450);
	EXPECT(peer_silence_is_doubted(&silence, 1460 * MS));
}

static void given_one_that_answers_within_20_ms(uint64_t until_ms)
{
	given_a_peer_that_answered_at(1000);
	for (uint64_t ms = 1010; ms < until_ms; ms += 10) {
		data_sent(ms);
		if (ms % 50 == 0)
			(void)peer_silence_heard(&silence, (ms + 5) * MS);
	}
}

static void test_after_400_ms_of_packets_without_an_answer_everything_is_due_at_once(void)
{
	given_one_that_answers_within_20_ms(2000);
	EXPECT(count(PEER_SILENCE_WAKE | PEER_SILENCE_SEEK | PEER_SILENCE_TURN, 2000, 2350) == 0);
	data_sent(2410);
	EXPECT(due(2420) == (PEER_SILENCE_WAKE | PEER_SILENCE_SEEK | PEER_SILENCE_TURN));
}

static void test_the_last_packet_of_a_conversation_needs_no_answer(void)
{
	given_a_peer_that_answered_at(1000);
	data_sent(1010);
	data_sent(1020);
	EXPECT(due(1500) == 0);
	EXPECT(due(60000) == 0);
}

static void test_a_handshake_needs_one(void)
{
	given_a_peer_that_answered_at(0);
	peer_silence_sent(&silence, 1000 * MS, true);
	EXPECT(due(1399) == 0);
	EXPECT(due(1400) == (PEER_SILENCE_WAKE | PEER_SILENCE_SEEK | PEER_SILENCE_TURN | PEER_SILENCE_AGAIN));
}

/* An hour of packets every 10 ms to one that says something after 10 s without. */
static uint32_t count_in_an_hour_of_receiving(uint32_t deeds)
{
	uint32_t n = 0;

	given_a_peer_that_answered_at(1000);
	for (uint64_t ms = 1010; ms < 3601000; ms += 10) {
		data_sent(ms);
		if (ms % 50 == 0)
			n += (all_due(ms) & deeds) != 0;
		if (ms % 10000 == 1050)
			(void)peer_silence_heard(&silence, ms * MS);
	}
	return n;
}

static void test_a_peer_that_only_receives_is_never_sought_nor_left(void)
{
	EXPECT(count_in_an_hour_of_receiving(PEER_SILENCE_SEEK | PEER_SILENCE_ASK | PEER_SILENCE_TURN) == 0);
}

static void test_a_peer_that_only_receives_is_woken_less_and_less_though_it_says_something_now_and_then(void)
{
	const uint32_t n = count_in_an_hour_of_receiving(PEER_SILENCE_WAKE);

	EXPECT(n >= 10 && n <= 16);
}

static void test_a_peer_that_says_nothing_is_woken_after_1_2_4_s_and_so_on_up_to_512(void)
{
	given_a_peer_that_answered_at(1000);
	EXPECT(count(PEER_SILENCE_WAKE, 1010, 11000) == 4);
	const uint32_t n = count(PEER_SILENCE_WAKE, 11000, 3601000);
	EXPECT(n >= 10 && n <= 13);
}

static void test_it_is_sought_all_the_time_at_first_and_then_only_those_held_are_asked(void)
{
	given_one_that_answers_within_20_ms(2000);
	EXPECT(count(PEER_SILENCE_SEEK, 2000, 4400) >= 35);
	EXPECT(count(PEER_SILENCE_SEEK, 4900, 20000) == 0);
	const uint32_t n = count(PEER_SILENCE_ASK, 20000, 32000);
	EXPECT(n >= 2 && n <= 4);
}

static void test_who_only_receives_is_knocked_at_and_its_answers_make_a_longer_silence_strange(void)
{
	given_a_peer_that_answered_at(1000);
	uint32_t n_knocks = 0;
	for (uint64_t ms = 1010; ms < 11010; ms += 10) {
		data_sent(ms);
		if (ms % 50 != 0 || !(all_due(ms) & PEER_SILENCE_KNOCK))
			continue;
		n_knocks++;
		(void)peer_silence_heard(&silence, (ms + 5) * MS);
	}
	EXPECT(n_knocks >= 20 && n_knocks <= 25);
	EXPECT(count(PEER_SILENCE_SEEK | PEER_SILENCE_TURN, 11010, 11450) == 0);
	EXPECT(count(PEER_SILENCE_SEEK, 11450, 11650) > 0);
}

static void test_who_does_not_answer_is_knocked_at_ten_times_a_second_for_2400_ms(void)
{
	given_one_that_answers_within_20_ms(2000);
	EXPECT(count(PEER_SILENCE_KNOCK, 2000, 2400) == 0);
	const uint32_t n = count(PEER_SILENCE_KNOCK, 2400, 5000);
	EXPECT(n >= 20 && n <= 25);
	EXPECT(count(PEER_SILENCE_KNOCK, 5000, 20000) == 0);
}

static void test_others_are_tried_for_2400_ms_of_a_silence_longer_than_usual(void)
{
	given_one_that_answers_within_20_ms(2000);
	EXPECT(count(PEER_SILENCE_SEEK, 2000, 2350) == 0 && !peer_silence_is_sought(&silence, 2350 * MS));
	EXPECT(count(PEER_SILENCE_SEEK, 2350, 2450) > 0 && peer_silence_is_sought(&silence, 2450 * MS));
	EXPECT(count(PEER_SILENCE_SEEK, 2450, 5000) > 0 && !peer_silence_is_sought(&silence, 5000 * MS));
	(void)peer_silence_heard(&silence, 5001 * MS);
	data_sent(5010);
	EXPECT(!peer_silence_is_sought(&silence, 5020 * MS));
}

static void test_nothing_is_due_when_nothing_is_sent_any_more(void)
{
	given_one_that_answers_within_20_ms(2000);
	(void)count(PEER_SILENCE_WAKE, 2000, 3000);
	EXPECT(due(7000) & PEER_SILENCE_WAKE);
	for (uint64_t ms = 8000; ms < 24 * 3600 * 1000ull; ms += 500)
		EXPECT(due(ms) == 0);
}

static void test_nothing_is_due_10_s_after_the_last_handshake_was_begun(void)
{
	given_a_peer_that_answered_at(0);
	peer_silence_sent(&silence, 1000 * MS, true);
	EXPECT(due(6000) & PEER_SILENCE_WAKE);
	EXPECT(due(11050) == 0);
}

static void test_after_a_pause_the_first_wake_is_due_at_once_however_many_there_were(void)
{
	given_a_peer_that_answered_at(1000);
	(void)count(PEER_SILENCE_WAKE, 1010, 100000);
	(void)peer_silence_heard(&silence, 100000 * MS);
	data_sent(200000);
	data_sent(200200);
	EXPECT(due(200200) == 0); /* not before the usual 0.4 s */
	EXPECT(due(200400) == PEER_SILENCE_WAKE);
	EXPECT(count(PEER_SILENCE_WAKE, 200410, 203000) == 0);
}

static void test_as_long_as_our_own_relay_is_silent_too_nothing_is_due_and_no_wake_used_up(void)
{
	given_one_that_answers_within_20_ms(2000);
	for (uint64_t ms = 2010; ms < 5000; ms += 10) {
		data_sent(ms);
		EXPECT(peer_silence_due(&silence, ms * MS, 1950 * MS) == 0);
	}
	EXPECT(peer_silence_due(&silence, 5000 * MS, 4990 * MS) & PEER_SILENCE_WAKE);
}

static void test_pauses_do_not_make_more_than_a_wake_in_10_s(void)
{
	uint32_t n = 0;

	given_a_peer_that_answered_at(1000);
	for (uint64_t ms = 12000; ms < 612000; ms += 12000)
		n += count(PEER_SILENCE_WAKE, ms, ms + 1000);
	EXPECT(n >= 45 && n <= 54);
}

static void test_a_turn_is_due_until_there_was_one_and_then_later_and_later(void)
{
	given_one_that_answers_within_20_ms(2000);
	EXPECT(count(PEER_SILENCE_TURN, 2450, 3450) == 20);
	peer_silence_turned(&silence, 3450 * MS);
	EXPECT(count(PEER_SILENCE_TURN, 3450, 4050) == 0);
	data_sent(4050);
	EXPECT(due(4050) & PEER_SILENCE_TURN);
	peer_silence_turned(&silence, 4050 * MS);
	EXPECT(count(PEER_SILENCE_TURN, 4060, 5250) == 0);
}

static void test_a_silence_as_long_as_one_that_ended_by_itself_is_not_strange(void)
{
	given_one_that_answers_within_20_ms(2000);
	(void)count(PEER_SILENCE_WAKE, 2000, 6000);
	(void)peer_silence_heard(&silence, 5995 * MS);
	EXPECT(count(PEER_SILENCE_SEEK | PEER_SILENCE_TURN, 6000, 10950) == 0);
	EXPECT(count(PEER_SILENCE_TURN, 10950, 11250) > 0);
}

static void test_a_silence_that_a_turn_ended_is_not_usual(void)
{
	given_one_that_answers_within_20_ms(2000);
	(void)count(PEER_SILENCE_TURN, 2000, 6000);
	peer_silence_turned(&silence, 6000 * MS);
	(void)peer_silence_heard(&silence, 6100 * MS);
	EXPECT(count(PEER_SILENCE_TURN, 6110, 6650) > 0);
}

static void test_an_answer_long_after_a_turn_is_usual_and_told_and_there_is_no_turn_so_soon_again(void)
{
	given_one_that_answers_within_20_ms(2000);
	(void)count(PEER_SILENCE_TURN, 2000, 2500);
	peer_silence_turned(&silence, 2500 * MS);
	(void)count(PEER_SILENCE_TURN, 2500, 11500);
	peer_silence_turned(&silence, 11500 * MS); /* and back */
	EXPECT(peer_silence_heard(&silence, 11995 * MS));
	EXPECT(count(PEER_SILENCE_TURN | PEER_SILENCE_SEEK, 12000, 22000) == 0);
	EXPECT(!peer_silence_heard(&silence, 22000 * MS));
}

static void test_answers_that_came_before_anybody_looked_count_too(void)
{
	given_a_peer_that_answered_at(1000);
	for (uint64_t ms = 1050; ms <= 1450; ms += 50) {
		(void)peer_silence_heard(&silence, ms * MS);
		data_sent(ms - 5);
	}
	EXPECT(count(PEER_SILENCE_TURN, 1460, 1950) > 0);
}

static void test_an_answer_ends_it_and_what_was_sent_since_waits_anew(void)
{
	given_a_peer_that_answered_at(1000);
	(void)count(PEER_SILENCE_WAKE, 1010, 2000);
	(void)peer_silence_heard(&silence, 1980 * MS);
	EXPECT(due(2000) == 0);
	EXPECT(!peer_silence_is_doubted(&silence, 2380 * MS));
	data_sent(2390);
	EXPECT(peer_silence_is_doubted(&silence, 2400 * MS));
}

static void test_a_session_is_asked_for_again_five_times_however_often_that_is_told(void)
{
	uint32_t n = 0;

	given_a_peer_that_answered_at(0);
	peer_silence_sent(&silence, 1000 * MS, true);
	for (uint64_t ms = 1000; ms < 4950; ms += 50)
		if (due(ms) & PEER_SILENCE_AGAIN) {
			n++;
			peer_silence_sent(&silence, (ms + 1) * MS, true);
		}
	EXPECT(n == 5);
	peer_silence_sent(&silence, 6000 * MS, true); /* WireGuard's own next one */
	EXPECT(due(6400) & PEER_SILENCE_AGAIN);
}

static void test_a_handshake_that_was_answered_is_over(void)
{
	given_a_peer_that_answered_at(2000);
	peer_silence_sent(&silence, 1500 * MS, true); /* told late */
	EXPECT(silence.handshake_ns == 0);
	data_sent(3000);
	peer_silence_sent(&silence, 2900 * MS, true); /* told later than what came after it */
	(void)peer_silence_heard(&silence, 2950 * MS);
	EXPECT(silence.handshake_ns == 0);
}

static void test_what_is_forgotten_is_not_waited_for(void)
{
	given_one_that_answers_within_20_ms(2000);
	(void)count(PEER_SILENCE_WAKE, 2000, 4000);
	peer_silence_forget(&silence);
	EXPECT(due(4000) == 0);
	EXPECT(count(PEER_SILENCE_TURN, 4000, 4400) == 0);
	EXPECT(count(PEER_SILENCE_TURN, 4400, 4500) > 0);
}

static void test_news_that_come_late_change_nothing(void)
{
	given_a_peer_that_answered_at(2000);
	data_sent(1500);
	EXPECT(silence.unanswered_ns == 0);
	(void)peer_silence_heard(&silence, 1000 * MS);
	EXPECT(silence.heard_ns == 2000 * MS);
}

int main(void)
{
	test_a_peer_that_answers_is_never_in_doubt();
	test_what_another_relay_lost_is_not_held_against_the_one_in_use_now();
	test_who_was_turned_is_not_waited_for_anew_when_it_moves();
	test_after_400_ms_of_packets_without_an_answer_everything_is_due_at_once();
	test_the_last_packet_of_a_conversation_needs_no_answer();
	test_a_handshake_needs_one();
	test_a_peer_that_only_receives_is_never_sought_nor_left();
	test_a_peer_that_only_receives_is_woken_less_and_less_though_it_says_something_now_and_then();
	test_a_peer_that_says_nothing_is_woken_after_1_2_4_s_and_so_on_up_to_512();
	test_it_is_sought_all_the_time_at_first_and_then_only_those_held_are_asked();
	test_who_only_receives_is_knocked_at_and_its_answers_make_a_longer_silence_strange();
	test_who_does_not_answer_is_knocked_at_ten_times_a_second_for_2400_ms();
	test_others_are_tried_for_2400_ms_of_a_silence_longer_than_usual();
	test_nothing_is_due_when_nothing_is_sent_any_more();
	test_nothing_is_due_10_s_after_the_last_handshake_was_begun();
	test_after_a_pause_the_first_wake_is_due_at_once_however_many_there_were();
	test_as_long_as_our_own_relay_is_silent_too_nothing_is_due_and_no_wake_used_up();
	test_pauses_do_not_make_more_than_a_wake_in_10_s();
	test_a_turn_is_due_until_there_was_one_and_then_later_and_later();
	test_a_silence_as_long_as_one_that_ended_by_itself_is_not_strange();
	test_a_silence_that_a_turn_ended_is_not_usual();
	test_an_answer_long_after_a_turn_is_usual_and_told_and_there_is_no_turn_so_soon_again();
	test_answers_that_came_before_anybody_looked_count_too();
	test_an_answer_ends_it_and_what_was_sent_since_waits_anew();
	test_a_session_is_asked_for_again_five_times_however_often_that_is_told();
	test_a_handshake_that_was_answered_is_over();
	test_what_is_forgotten_is_not_waited_for();
	test_news_that_come_late_change_nothing();
	return 0;
}
