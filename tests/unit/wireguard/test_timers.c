/*
 * The five timers on virtual time: what is reported, and what is then to be done when. Times in the
 * traces are seconds; a jitter of up to a third of a second is cut off.
 */
#include "node/wireguard/timers.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct world {
	struct wg_timers timers;
	uint64_t start_ns, now_ns;
	char trace[4096];
};

static void begin(struct world *w)
{
	memset(w, 0, sizeof(*w));
	w->start_ns = w->now_ns = 5000 * WG_SECOND_NS;
	wg_timers_init(&w->timers, 12345);
}

static void note(struct world *w, const char *what)
{
	size_t used = strlen(w->trace);

	snprintf(w->trace + used, sizeof(w->trace) - used, "[%3llu] %s\n",
		 (unsigned long long)((w->now_ns - w->start_ns) / WG_SECOND_NS), what);
}

/* Does what a device would do with sessions that work. */
static void expire(struct world *w)
{
	unsigned todo = wg_timers_expire(&w->timers, w->now_ns);

	if (todo & WG_TODO_RETRY) {
		note(w, "retry");
		wg_timers_on_any_sent(&w->timers, w->now_ns);
		wg_timers_on_initiation_sent(&w->timers, w->now_ns);
	}
	if (todo & WG_TODO_INITIATE)
		note(w, "initiate");
	if (todo & WG_TODO_ANSWER_KEEPALIVE) {
		note(w, "answer");
		wg_timers_on_any_sent(&w->timers, w->now_ns);
		wg_timers_on_answer_keepalive_sent(&w->timers, w->now_ns);
	}
	if (todo & WG_TODO_KEEPALIVE) {
		note(w, "keepalive");
		wg_timers_on_any_sent(&w->timers, w->now_ns);
	}
	if (todo & WG_TODO_GIVE_UP)
		note(w, "give up");
	if (todo & WG_TODO_WIPE_KEYS)
		note(w, "wipe keys");
}

static void wait_s(struct world *w, uint64_t seconds)
{
	uint64_t end = w->now_ns + seconds * WG_SECOND_NS;

	for (uint64_t next; (next = wg_timers_next(&w->timers)) <= end;) {
		assert(next > w->now_ns);
		w->now_ns = next;
		expire(w);
	}
	w->now_ns = end;
}

static void expect_trace(struct world *w, const char *expected)
{
	if (strcmp(w->trace, expected) != 0) {
		fprintf(stderr, "expected:\n%sgot:\n%s", expected, w->trace);
		abort();
	}
	w->trace[0] = '\0';
}

static void test_nothing_happens_by_itself(void)
{
	struct world w;
	begin(&w);

	assert(wg_timers_next(&w.timers) == UINT64_MAX);
	wait_s(&w, 10000);
	expect_trace(&w, "");
}

static void test_data_without_an_answer_begins_a_handshake_after_15_seconds(void)
{
	struct world w;
	begin(&w);

	wg_timers_on_data_sent(&w.timers, w.now_ns);
	wait_s(&w, 10);
	wg_timers_on_data_sent(&w.timers, w.now_ns); /* more data does not put it off */
	wait_s(&w, 10);
	expect_trace(&w, "[ 15] initiate\n");
}

static void test_any_answer_stops_that(void)
{
	struct world w;
	begin(&w);

	wg_timers_on_data_sent(&w.timers, w.now_ns);
	wait_s(&w, 14);
	wg_timers_on_any_received(&w.timers, w.now_ns);
	wait_s(&w, 60);
	expect_trace(&w, "");
}

static void test_data_received_is_answered_after_10_seconds_if_nothing_else_is_sent(void)
{
	struct world w;
	begin(&w);

	wg_timers_on_data_received(&w.timers, w.now_ns);
	wait_s(&w, 60);
	expect_trace(&w, "[ 10] answer\n");
	wg_timers_on_data_received(&w.timers, w.now_ns);
	wait_s(&w, 9);
	wg_timers_on_any_sent(&w.timers, w.now_ns);
	wait_s(&w, 60);
	expect_trace(&w, "");
}

static void test_data_after_the_first_is_answered_once_more(void)
{
	struct world w;
	begin(&w);

	wg_timers_on_data_received(&w.timers, w.now_ns);
	wait_s(&w, 3);
	wg_timers_on_data_received(&w.timers, w.now_ns);
	wait_s(&w, 60);
	expect_trace(&w,
		"[ 10] answer\n"
		"[ 20] answer\n");
}

static void test_an_initiation_is_repeated_19_times_then_given_up(void)
{
	struct world w;
	begin(&w);

	wg_timers_on_initiation_sent(&w.timers, w.now_ns);
	wait_s(&w, 30);
	expect_trace(&w, /* 5 s and a little each time */
		"[  5] retry\n"
		"[ 10] retry\n"
		"[ 15] retry\n"
		"[ 20] retry\n"
		"[ 25] retry\n");
	wait_s(&w, 60);
	w.trace[0] = '\0';
	wait_s(&w, 30);
	assert(strstr(w.trace, "give up\n"));
	assert(w.timers.attempts == 19);
	w.trace[0] = '\0';
	wait_s(&w, 600);
	assert(strstr(w.trace, "wipe keys\n"));
	assert(!strstr(w.trace, "retry"));
}

static void test_a_complete_handshake_stops_the_repeats(void)
{
	struct world w;
	begin(&w);

	wg_timers_on_initiation_sent(&w.timers, w.now_ns);
	wait_s(&w, 7);
	wg_timers_on_handshake_complete(&w.timers);
	wait_s(&w, 60);
	expect_trace(&w, "[  5] retry\n");
	assert(w.timers.attempts == 0);
}

static void test_no_two_initiations_within_5_seconds(void)
{
	struct world w;
	begin(&w);

	assert(wg_timers_may_initiate(&w.timers, false, w.now_ns));
	wg_timers_on_initiation_sent(&w.timers, w.now_ns);
	assert(!wg_timers_may_initiate(&w.timers, false, w.now_ns + 5 * WG_SECOND_NS - 1));
	assert(wg_timers_may_initiate(&w.timers, false, w.now_ns + 5 * WG_SECOND_NS));
	wg_timers_on_response_sent(&w.timers, w.now_ns + 5 * WG_SECOND_NS);
	assert(!wg_timers_may_initiate(&w.timers, false, w.now_ns + 6 * WG_SECOND_NS));
	wg_timers_forget_last_handshake(&w.timers);
	assert(wg_timers_may_initiate(&w.timers, false, w.now_ns + 6 * WG_SECOND_NS));
}

static void test_new_traffic_begins_the_count_of_attempts_anew(void)
{
	struct world w;
	begin(&w);

	wg_timers_on_initiation_sent(&w.timers, w.now_ns);
	wait_s(&w, 22);
	assert(w.timers.attempts == 4);
	wg_timers_may_initiate(&w.timers, true, w.now_ns);
	assert(w.timers.attempts == 4);
	wg_timers_may_initiate(&w.timers, false, w.now_ns);
	assert(w.timers.attempts == 0);
}

static void test_keys_are_wiped_540_seconds_after_the_last_session(void)
{
	struct world w;
	begin(&w);

	wg_timers_on_session_derived(&w.timers, w.now_ns);
	wait_s(&w, 100);
	wg_timers_on_session_derived(&w.timers, w.now_ns);
	wait_s(&w, 1000);
	expect_trace(&w, "[640] wipe keys\n");
}

static void test_a_persistent_keepalive_is_put_off_by_traffic_of_both_directions(void)
{
	struct world w;
	begin(&w);

	wg_timers_set_persistent(&w.timers, 25 * WG_SECOND_NS, w.now_ns);
	wait_s(&w, 20);
	wg_timers_on_any_sent(&w.timers, w.now_ns);
	wait_s(&w, 20);
	wg_timers_on_any_received(&w.timers, w.now_ns);
	wait_s(&w, 60);
	expect_trace(&w,
		"[ 65] keepalive\n"
		"[ 90] keepalive\n");
	wg_timers_set_persistent(&w.timers, 0, w.now_ns);
	wait_s(&w, 100);
	expect_trace(&w, "");
}

static void test_the_last_minute_comes_once_a_session(void)
{
	struct world w;
	begin(&w);
	const uint64_t birth = w.now_ns;

	assert(!wg_timers_take_last_minute(&w.timers, birth, birth + 165 * WG_SECOND_NS - 1));
	assert(wg_timers_take_last_minute(&w.timers, birth, birth + 165 * WG_SECOND_NS));
	assert(!wg_timers_take_last_minute(&w.timers, birth, birth + 170 * WG_SECOND_NS));
	wg_timers_on_handshake_complete(&w.timers);
	assert(wg_timers_take_last_minute(&w.timers, birth, birth + 170 * WG_SECOND_NS));
}

/* gotatun had none: a thousand peers that lost one server would call it in the same instant. */
static void test_retries_of_different_peers_are_spread(void)
{
	struct wg_timers timers[50];
	uint64_t first = UINT64_MAX, last = 0;

	for (uint32_t i = 0; i < 50; i++) {
		wg_timers_init(&timers[i], i * 7919 + 1);
		wg_timers_on_initiation_sent(&timers[i], WG_SECOND_NS);
		uint64_t next = wg_timers_next(&timers[i]);
		assert(next >= 6 * WG_SECOND_NS && next < 6 * WG_SECOND_NS + WG_JITTER_NS);
		first = next < first ? next : first;
		last = next > last ? next : last;
	}
	assert(last - first > WG_JITTER_NS / 2);
}

static void test_eager_retries_come_sooner_at_first_and_traffic_does_not_hasten_them(void)
{
	static const uint64_t after_ms[] = { 250, 500, 1000, 2000, 5000, 5000 };
	struct wg_timers timers;
	uint64_t now_ns = 5000 * WG_SECOND_NS;

	wg_timers_init(&timers, 1);
	wg_timers_set_eager(&timers, true);
	wg_timers_on_initiation_sent(&timers, now_ns);
	for (size_t i = 0; i < sizeof(after_ms) / sizeof(*after_ms); i++) {
		uint64_t next = wg_timers_next(&timers), due = now_ns + after_ms[i] * 1000000;
		assert(next >= due && next < due + WG_JITTER_NS);
		assert(!wg_timers_may_initiate(&timers, false, due - 1000000));
		now_ns = next;
		assert(wg_timers_expire(&timers, now_ns) == WG_TODO_RETRY);
		assert(wg_timers_may_initiate(&timers, true, now_ns));
		wg_timers_on_initiation_sent(&timers, now_ns);
	}
}

int main(void)
{
	test_nothing_happens_by_itself();
	test_data_without_an_answer_begins_a_handshake_after_15_seconds();
	test_any_answer_stops_that();
	test_data_received_is_answered_after_10_seconds_if_nothing_else_is_sent();
	test_data_after_the_first_is_answered_once_more();
	test_an_initiation_is_repeated_19_times_then_given_up();
	test_a_complete_handshake_stops_the_repeats();
	test_no_two_initiations_within_5_seconds();
	test_new_traffic_begins_the_count_of_attempts_anew();
	test_keys_are_wiped_540_seconds_after_the_last_session();
	test_a_persistent_keepalive_is_put_off_by_traffic_of_both_directions();
	test_the_last_minute_comes_once_a_session();
	test_retries_of_different_peers_are_spread();
	test_eager_retries_come_sooner_at_first_and_traffic_does_not_hasten_them();
	puts("ok");
}
