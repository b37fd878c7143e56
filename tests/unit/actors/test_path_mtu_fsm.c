/*
 * The search for a path's MTU on virtual time. A world is a path that carries packets up to some size, with a
 * delay and a loss; the shell is played by step().
 */
#include "actors/traffic_manager/path_mtu_fsm.h"

#include "common/macros.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MS(n)  ((uint64_t)(n)*1000000u)
#define JUMBO  8928
#define COMMON 1440

struct answer {
	uint64_t at_ns;
	uint32_t size;
};

static struct world {
	struct path_mtu_fsm fsm;
	uint64_t now_ns;
	/* the path */
	uint32_t carries, link;
	uint64_t delay_ns;
	unsigned loss_percent;
	bool is_mute; /* the peer does not know probes */
	uint64_t random;
	/* what happened */
	uint32_t n_probes, n_said, n_answers;
	uint64_t n_bytes;
	uint32_t lowest_said;
	struct answer answers[64];
} w;

static void on_trace(void *arg, const char *line)
{
	printf("%8.3f %s\n", (double)w.now_ns / 1e9, line);
}

static void given_a_path(uint32_t carries)
{
	memset(&w, 0, sizeof(w));
	w.now_ns = MS(1000);
	w.carries = carries;
	w.link = JUMBO;
	w.delay_ns = MS(20);
	w.random = 1;
	w.lowest_said = JUMBO;
	w.fsm.trace = on_trace;
}

static unsigned roll(void)
{
	w.random = w.random * 6364136223846793005u + 1442695040888963407u;
	return (unsigned)(w.random >> 33) % 100;
}

static void step(struct path_mtu_input in);

static void send_probe(uint32_t size)
{
	w.n_probes++;
	assert(size <= w.fsm.max);
	if (size > w.link) {
		step((struct path_mtu_input){ .type = PATH_MTU_IN_REFUSED, .size = size });
		return;
	}
	w.n_bytes += size;
	if (w.is_mute || size > w.carries || roll() < w.loss_percent)
		return;
	assert(w.n_answers < ARRAY_LEN(w.answers));
	w.answers[w.n_answers++] = (struct answer){ w.now_ns + w.delay_ns, size };
}

static void step(struct path_mtu_input in)
{
	struct path_mtu_actions out;

	in.now_ns = w.now_ns;
	in.rtt_us = (uint32_t)(w.delay_ns / 1000);
	path_mtu_fsm_step(&w.fsm, &in, &out);
	for (uint32_t i = 0; i < out.n; i++) {
		if (out.all[i].type == PATH_MTU_DO_PROBE) {
			send_probe(out.all[i].size);
			continue;
		}
		w.n_said++;
		if (out.all[i].size < w.lowest_said)
			w.lowest_said = out.all[i].size;
	}
}

/* The next thing that happens before the end; false: nothing. */
static bool happen(uint64_t end_ns)
{
	uint64_t at_ns = w.fsm.deadline_ns != 0 ? w.fsm.deadline_ns : UINT64_MAX;
	uint32_t first = w.n_answers;

	for (uint32_t i = 0; i < w.n_answers; i++)
		if (w.answers[i].at_ns <= at_ns) {
			at_ns = w.answers[i].at_ns;
			first = i;
		}
	if (at_ns > end_ns)
		return false;
	if (at_ns > w.now_ns)
		w.now_ns = at_ns;
	if (first == w.n_answers) {
		step((struct path_mtu_input){ .type = PATH_MTU_IN_DEADLINE });
		return true;
	}
	const uint32_t size = w.answers[first].size;
	w.answers[first] = w.answers[--w.n_answers];
	step((struct path_mtu_input){ .type = PATH_MTU_IN_PASSED, .size = size });
	return true;
}

static void pass(uint64_t ns)
{
	const uint64_t end_ns = w.now_ns + ns;

	for (int i = 0; happen(end_ns); i++)
		assert(i < 10000); /* it comes to rest */
	w.now_ns = end_ns;
}

static void path_begins(uint32_t max)
{
	step((struct path_mtu_input){ .type = PATH_MTU_IN_TRAFFIC });
	step((struct path_mtu_input){ .type = PATH_MTU_IN_PATH, .max = max, .common = COMMON });
}

/* Data each way for so long, in looks of 50 ms. */
static void data_flows(uint64_t ns, bool comes_back)
{
	for (uint64_t end_ns = w.now_ns + ns; w.now_ns < end_ns;) {
		step((struct path_mtu_input){ .type = PATH_MTU_IN_SENT });
		if (comes_back)
			step((struct path_mtu_input){ .type = PATH_MTU_IN_RECEIVED });
		pass(MS(50));
	}
}

/* ---- finding ---- */

static void test_what_the_first_link_takes_and_passes_is_found_in_a_round_trip(void)
{
	given_a_path(COMMON);
	path_begins(COMMON);
	assert(w.fsm.said == COMMON); /* at once: it cannot be more */

	pass(w.delay_ns);

	assert(w.fsm.state == PATH_MTU_COMPLETE && w.fsm.said == COMMON && w.n_said == 1);
	assert(w.n_probes == 3);
}

static void test_any_size_is_found_to_sixteen_bytes(void)
{
	for (uint32_t carries = PATH_MTU_MIN; carries <= JUMBO; carries += 7) {
		given_a_path(carries);
		w.fsm.trace = NULL;
		path_begins(JUMBO);
		pass(MS(12000));

		assert(w.fsm.state == PATH_MTU_COMPLETE);
		assert(w.fsm.said <= carries && carries - w.fsm.said < PATH_MTU_STEP);
		assert(w.lowest_said >= PATH_MTU_MIN && w.lowest_said <= carries);
		assert(w.n_bytes < 250000);
	}
}

static void test_a_size_refused_by_the_first_link_costs_no_time(void)
{
	given_a_path(JUMBO);
	w.link = 1436;
	path_begins(JUMBO);

	pass(5 * w.delay_ns);

	assert(w.fsm.state == PATH_MTU_COMPLETE && w.fsm.said == 1424);
}

static void test_where_1280_does_not_fit_1280_is_said_and_asked_again(void)
{
	given_a_path(1064); /* 1124 bytes outside */
	path_begins(1280);
	pass(MS(2000));
	assert(w.fsm.state == PATH_MTU_ERROR && w.fsm.said == PATH_MTU_MIN);

	w.carries = 1280;
	pass(MS(61000));

	assert(w.fsm.state == PATH_MTU_COMPLETE && w.fsm.said == PATH_MTU_MIN);
}

static void test_a_peer_that_knows_no_probes_gets_what_passes_everywhere(void)
{
	given_a_path(JUMBO);
	w.is_mute = true;
	path_begins(JUMBO);

	pass(MS(5000));

	assert(w.fsm.state == PATH_MTU_SILENT && w.fsm.said == PATH_MTU_MIN);
	assert(w.n_probes == 4 * 3);
}

static void test_a_peer_that_was_silent_is_asked_again_after_a_minute_and_then_every_ten(void)
{
	given_a_path(JUMBO);
	w.is_mute = true;
	path_begins(JUMBO);

	pass(MS(590000));
	assert(w.n_probes == 2 * 4 * 3);
	pass(MS(100000));
	assert(w.n_probes == 3 * 4 * 3);
	w.is_mute = false; /* its first probes were lost, or it is a newer one now */
	pass(MS(600000));
	assert(w.fsm.state == PATH_MTU_COMPLETE && w.fsm.said == JUMBO);
}

/* ---- loss ---- */

static void test_loss_is_not_taken_for_size(void)
{
	unsigned n_right = 0;

	for (unsigned seed = 1; seed <= 1000; seed++) {
		given_a_path(JUMBO);
		w.fsm.trace = NULL;
		w.random = seed;
		w.loss_percent = 15;
		path_begins(JUMBO);
		pass(MS(3000));
		n_right += w.fsm.said == JUMBO;
	}
	printf("15 %% loss: the right size in %u of 1000\n", n_right);
	assert(n_right >= 980); /* 0.15^3 is 3 in 1000 */
}

static void test_an_answer_that_comes_late_counts(void)
{
	given_a_path(JUMBO);
	w.fsm.trace = NULL;
	path_begins(JUMBO);
	w.delay_ns = MS(2500); /* a queue that our own packets fill; the round trip is known too late */
	pass(MS(10000));

	assert(w.fsm.state == PATH_MTU_COMPLETE && w.fsm.said == JUMBO);
}

static void test_on_a_lossy_path_what_passed_is_kept(void)
{
	given_a_path(JUMBO);
	w.fsm.trace = NULL;
	w.loss_percent = 5;
	path_begins(JUMBO);
	pass(MS(3000));
	const uint32_t n_said = w.n_said;

	for (int minute = 0; minute < 60; minute++)
		data_flows(MS(60000), true);

	printf("5 %% loss: said %u times in an hour\n", w.n_said - n_said);
	assert(w.n_said - n_said <= 3);
}

/* ---- changes ---- */

static void test_a_black_hole_under_traffic_is_found_within_1300_ms(void)
{
	given_a_path(JUMBO);
	path_begins(JUMBO);
	pass(MS(3000));
	assert(w.fsm.said == JUMBO);
	data_flows(MS(1000), true);

	w.carries = 1440; /* a route through a tunnel */
	data_flows(MS(1300), false);
	assert(w.fsm.said <= 1440);

	data_flows(MS(8000), true);
	assert(w.fsm.state == PATH_MTU_COMPLETE && w.fsm.said == 1440);
}

static void test_a_black_hole_that_some_traffic_passes_is_found_by_the_confirmation(void)
{
	given_a_path(JUMBO);
	path_begins(JUMBO);
	pass(MS(3000));

	w.carries = 1440;
	data_flows(MS(14000), true);

	assert(w.fsm.said <= 1440);
}

static void test_a_path_that_is_dead_is_no_matter_of_size(void)
{
	given_a_path(JUMBO);
	path_begins(JUMBO);
	pass(MS(3000));

	w.carries = 0;
	data_flows(MS(10000), false);
	assert(w.fsm.said == JUMBO);

	w.carries = JUMBO;
	data_flows(MS(3000), true);
	assert(w.fsm.said == JUMBO && w.lowest_said == JUMBO);
}

static void test_a_path_that_has_grown_is_noticed_after_ten_minutes(void)
{
	given_a_path(1440);
	path_begins(JUMBO);
	pass(MS(20000));
	assert(w.fsm.said == 1440);

	w.carries = JUMBO;
	data_flows(MS(600000), true);

	assert(w.fsm.said == JUMBO);
}

static void test_another_path_begins_anew_and_none_says_nothing(void)
{
	given_a_path(1440);
	path_begins(JUMBO);
	pass(MS(20000));

	w.carries = JUMBO;
	step((struct path_mtu_input){ .type = PATH_MTU_IN_PATH, .max = JUMBO, .common = COMMON });
	pass(MS(100));
	assert(w.fsm.said == JUMBO && w.fsm.state == PATH_MTU_COMPLETE);

	step((struct path_mtu_input){ .type = PATH_MTU_IN_NO_PATH });
	assert(w.fsm.said == 0 && w.fsm.deadline_ns == 0);
}

/* ---- by relay ---- */

static void relayed_path_begins(uint32_t max)
{
	step((struct path_mtu_input){ .type = PATH_MTU_IN_TRAFFIC });
	step((struct path_mtu_input){
		.type = PATH_MTU_IN_PATH, .max = max, .common = 1392, .until_known = 1392 });
}

static void test_by_relay_what_is_common_is_said_until_more_has_passed(void)
{
	given_a_path(JUMBO);
	relayed_path_begins(JUMBO);
	assert(w.fsm.said == 1392);

	pass(w.delay_ns);

	assert(w.fsm.state == PATH_MTU_COMPLETE && w.fsm.said == JUMBO && w.lowest_said == 1392);
}

/* Relays are turned to when the network is in trouble. */
static void test_by_relay_an_outage_at_the_beginning_is_no_matter_of_size(void)
{
	given_a_path(JUMBO);
	path_begins(JUMBO);
	pass(MS(3000));

	w.carries = 0;
	relayed_path_begins(JUMBO);
	pass(MS(4000));
	assert(w.fsm.said == 1392);

	w.carries = JUMBO;
	pass(MS(3000));
	assert(w.fsm.state == PATH_MTU_COMPLETE && w.fsm.said == JUMBO && w.lowest_said == 1392);
}

/* Long probes in the queue to a relay that hangs would look like life. */
static void test_by_relay_silence_is_no_cause_to_ask_for_a_second(void)
{
	given_a_path(JUMBO);
	relayed_path_begins(JUMBO);
	pass(MS(3000));
	data_flows(MS(1000), true);
	const uint32_t n = w.n_probes;

	w.carries = 1440;
	data_flows(MS(1200), false);
	assert(w.n_probes == n && w.fsm.said == JUMBO);
	data_flows(MS(1800), false);
	assert(w.fsm.said <= 1440);
}

static void test_by_relay_a_first_link_that_takes_less_counts_from_the_beginning(void)
{
	given_a_path(1312);
	relayed_path_begins(1312);
	assert(w.fsm.said == 1312);

	pass(w.delay_ns);

	assert(w.fsm.state == PATH_MTU_COMPLETE && w.fsm.said == 1312 && w.n_said == 1);
}

/* The second leg is the narrower one, and every leg loses: 1000 worlds. */
static void test_by_relay_the_narrower_leg_is_found_under_loss(void)
{
	unsigned n_right = 0;

	for (unsigned seed = 1; seed <= 1000; seed++) {
		given_a_path(1312);
		w.fsm.trace = NULL;
		w.random = seed;
		w.loss_percent = 10;
		relayed_path_begins(JUMBO);
		pass(MS(20000));
		assert(w.lowest_said >= PATH_MTU_MIN && w.fsm.said <= 1312);
		n_right += w.fsm.said == 1312;
	}
	printf("10 %% loss by relay: the right size in %u of 1000\n", n_right);
	assert(n_right >= 980);
}

/* ---- quiet, and bad input ---- */

static void test_without_traffic_nothing_is_sent(void)
{
	given_a_path(JUMBO);
	step((struct path_mtu_input){ .type = PATH_MTU_IN_PATH, .max = JUMBO, .common = COMMON });
	pass(MS(3600000));
	assert(w.n_probes == 0 && w.fsm.deadline_ns == 0);

	step((struct path_mtu_input){ .type = PATH_MTU_IN_TRAFFIC });
	pass(MS(5000));
	const uint32_t n = w.n_probes;
	assert(n > 0 && w.fsm.state == PATH_MTU_COMPLETE);
	step((struct path_mtu_input){ .type = PATH_MTU_IN_IDLE });
	pass(MS(3600000));
	assert(w.n_probes == n);
}

static void test_steady_traffic_costs_a_probe_in_ten_seconds(void)
{
	given_a_path(JUMBO);
	w.fsm.trace = NULL;
	path_begins(JUMBO);
	pass(MS(3000));
	const uint32_t n = w.n_probes;

	data_flows(MS(600000), true);

	assert(w.n_probes - n <= 2 * 60 + 6);
}

static void test_who_says_something_now_and_then_is_not_asked_each_time(void)
{
	given_a_path(JUMBO);
	w.fsm.trace = NULL;
	path_begins(JUMBO);
	pass(MS(3000));
	const uint32_t n = w.n_probes;

	for (int i = 0; i < 100; i++) {
		step((struct path_mtu_input){ .type = PATH_MTU_IN_IDLE });
		pass(MS(28000));
		step((struct path_mtu_input){ .type = PATH_MTU_IN_TRAFFIC });
		data_flows(MS(2000), true);
	}

	assert(w.n_probes - n <= 2 * 5); /* one larger one might pass by now, every ten minutes */
}

static void test_lies_about_size_are_bounded_by_what_was_sent(void)
{
	given_a_path(1280);
	path_begins(1440);
	step((struct path_mtu_input){ .type = PATH_MTU_IN_PASSED, .size = 60000 });
	assert(w.fsm.said == 1440 && w.fsm.passed == 0);
	step((struct path_mtu_input){ .type = PATH_MTU_IN_NO_PATH });
	step((struct path_mtu_input){ .type = PATH_MTU_IN_PASSED, .size = 1440 });
	assert(w.fsm.said == 0 && w.fsm.state == PATH_MTU_DISABLED);
}

int main(void)
{
	test_what_the_first_link_takes_and_passes_is_found_in_a_round_trip();
	test_any_size_is_found_to_sixteen_bytes();
	test_a_size_refused_by_the_first_link_costs_no_time();
	test_where_1280_does_not_fit_1280_is_said_and_asked_again();
	test_a_peer_that_knows_no_probes_gets_what_passes_everywhere();
	test_a_peer_that_was_silent_is_asked_again_after_a_minute_and_then_every_ten();
	test_loss_is_not_taken_for_size();
	test_an_answer_that_comes_late_counts();
	test_on_a_lossy_path_what_passed_is_kept();
	test_a_black_hole_under_traffic_is_found_within_1300_ms();
	test_a_black_hole_that_some_traffic_passes_is_found_by_the_confirmation();
	test_a_path_that_is_dead_is_no_matter_of_size();
	test_a_path_that_has_grown_is_noticed_after_ten_minutes();
	test_another_path_begins_anew_and_none_says_nothing();
	test_by_relay_what_is_common_is_said_until_more_has_passed();
	test_by_relay_an_outage_at_the_beginning_is_no_matter_of_size();
	test_by_relay_silence_is_no_cause_to_ask_for_a_second();
	test_by_relay_a_first_link_that_takes_less_counts_from_the_beginning();
	test_by_relay_the_narrower_leg_is_found_under_loss();
	test_without_traffic_nothing_is_sent();
	test_steady_traffic_costs_a_probe_in_ten_seconds();
	test_who_says_something_now_and_then_is_not_asked_each_time();
	test_lies_about_size_are_bounded_by_what_was_sent();
	return 0;
}
