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
	peer_silence_heard(&silence, ms * MS);
}

static void data_sent(uint64_t ms)
{
	peer_silence_sent(&silence, ms * MS, false);
}

static uint32_t due(uint64_t ms)
{
	return peer_silence_due(&silence, ms * MS);
}

/* A packet every 10 ms; how often something was due, looked at every 50 ms. */
static uint32_t count(enum peer_silence_deed deed, uint64_t from_ms, uint64_t to_ms)
{
	uint32_t n = 0;

	for (uint64_t ms = from_ms; ms < to_ms; ms += 10) {
		data_sent(ms);
		if (ms % 50 == 0)
			n += (due(ms) & deed) != 0;
	}
	return n;
}

static void test_a_peer_that_answers_is_never_in_doubt(void)
{
	given_a_peer_that_answered_at(1000);
	for (uint64_t ms = 1010; ms < 9000; ms += 10) {
		data_sent(ms);
		if (ms % 200 == 0)
			peer_silence_heard(&silence, (ms - 20) * MS);
		EXPECT(due(ms) == 0);
	}
}

static void test_after_400_ms_of_packets_without_an_answer_everything_is_due_at_once(void)
{
	given_a_peer_that_answered_at(1000);
	EXPECT(count(PEER_SILENCE_WAKE | PEER_SILENCE_SEEK | PEER_SILENCE_TURN, 1010, 1400) == 0);
	data_sent(1400);
	EXPECT(due(1410) == (PEER_SILENCE_WAKE | PEER_SILENCE_SEEK | PEER_SILENCE_TURN));
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
	EXPECT(due(1400) & PEER_SILENCE_WAKE);
}

static void test_a_peer_that_only_receives_is_woken_less_and_less(void)
{
	given_a_peer_that_answered_at(1000);
	EXPECT(count(PEER_SILENCE_WAKE, 1010, 11000) == 4); /* after 0.4 s, and 1, 2, 4 s later */
	EXPECT(count(PEER_SILENCE_WAKE, 11000, 601000) <= 14);
}

static void test_it_is_sought_all_the_time_at_first_and_then_with_each_wake(void)
{
	given_a_peer_that_answered_at(1000);
	EXPECT(count(PEER_SILENCE_SEEK, 1010, 3400) >= 35);
	EXPECT(count(PEER_SILENCE_SEEK, 3450, 11000) == 2);
}

static void test_a_turn_is_due_until_there_was_one_and_then_later_and_later(void)
{
	given_a_peer_that_answered_at(1000);
	EXPECT(count(PEER_SILENCE_TURN, 1010, 2410) == 20);
	peer_silence_turned(&silence, 2410 * MS);
	EXPECT(count(PEER_SILENCE_TURN, 2410, 3010) == 0);
	data_sent(3010);
	EXPECT(due(3010) & PEER_SILENCE_TURN);
	peer_silence_turned(&silence, 3010 * MS);
	EXPECT(count(PEER_SILENCE_TURN, 3020, 4210) == 0);
}

static void test_an_answer_ends_it_and_what_was_sent_since_waits_anew(void)
{
	given_a_peer_that_answered_at(1000);
	count(PEER_SILENCE_WAKE, 1010, 5000);
	peer_silence_heard(&silence, 4980 * MS);
	EXPECT(due(5000) == 0);
	EXPECT(count(PEER_SILENCE_WAKE, 5000, 5390) == 0);
	data_sent(5390);
	EXPECT(due(5400) & PEER_SILENCE_WAKE);
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

static void test_news_that_come_late_change_nothing(void)
{
	given_a_peer_that_answered_at(2000);
	data_sent(1500);
	EXPECT(silence.unanswered_ns == 0);
	peer_silence_heard(&silence, 1000 * MS);
	EXPECT(silence.heard_ns == 2000 * MS);
}

int main(void)
{
	test_a_peer_that_answers_is_never_in_doubt();
	test_after_400_ms_of_packets_without_an_answer_everything_is_due_at_once();
	test_the_last_packet_of_a_conversation_needs_no_answer();
	test_a_handshake_needs_one();
	test_a_peer_that_only_receives_is_woken_less_and_less();
	test_it_is_sought_all_the_time_at_first_and_then_with_each_wake();
	test_a_turn_is_due_until_there_was_one_and_then_later_and_later();
	test_an_answer_ends_it_and_what_was_sent_since_waits_anew();
	test_a_session_is_asked_for_again_five_times_however_often_that_is_told();
	test_news_that_come_late_change_nothing();
	return 0;
}
