/*
 * A path under the load of its own traffic: its queue is ours, and no reason to leave it.
 *
 * The world here is a direct way, in one story another one, and a relay, each with its round trip. Every millisecond passes:
 * pings are answered when their time has come, and every 50 ms the shell tells what was carried.
 */
#include "tests/unit/actors/peer_world.h"

#include "common/macros.h"

#define DIRECT "198.51.100.9:7000"
#define OTHER  "198.51.100.9:7001"
#define BULK   500000 /* bytes in 50 ms */
#define VOICE  1000

struct road {
	uint64_t round_trip_ms;
	uint32_t lost_of_4; /* so many of four pings in a row */
	uint32_t n_pings;   /* by it */
	struct {
		struct peer_tx_id tx_id;
		uint64_t at_ns; /* 0: none */
	} answers[64];
};

struct story {
	struct world w;
	struct road direct, other, relay;
	uint32_t n_seen, n_relay_seen; /* pings that the machine has sent */
	uint64_t n_bytes; /* in each direction in 50 ms */
	bool is_one_way;  /* nothing comes back */
	bool falls_silent;
	uint64_t relayed_ms; /* how long packets went by relay, alone or as well */
};

static void take_ping(struct road *road, const struct peer_action *ping, uint64_t now_ns)
{
	if (++road->n_pings % 4 < road->lost_of_4)
		return;
	for (size_t i = 0; i < ARRAY_LEN(road->answers); i++) {
		if (road->answers[i].at_ns != 0)
			continue;
		road->answers[i].tx_id = ping->tx_id;
		road->answers[i].at_ns = now_ns + MS(road->round_trip_ms);
		return;
	}
}

static void take_pings(struct story *s)
{
	const struct world *w = &s->w;
	const struct endpoint other = at(OTHER);

	for (; s->n_seen != w->n_pings; s->n_seen++) {
		const struct peer_action *ping = &w->pings[s->n_seen % ARRAY_LEN(w->pings)];
		take_ping(endpoint_equal(&ping->to.endpoint, &other) ? &s->other : &s->direct, ping, w->now_ns);
	}
	if (s->n_relay_seen != w->n_relay_pings)
		take_ping(&s->relay, &w->relay_ping, w->now_ns);
	s->n_relay_seen = w->n_relay_pings;
}

static void answer_pings(struct world *w, struct road *road, const char *from)
{
	for (size_t i = 0; i < ARRAY_LEN(road->answers); i++) {
		struct peer_input pong = { .type = PEER_IN_PONG, .from = { .by_relay = !from } };

		if (road->answers[i].at_ns == 0 || road->answers[i].at_ns > w->now_ns)
			continue;
		road->answers[i].at_ns = 0;
		pong.tx_id = road->answers[i].tx_id;
		if (from)
			pong.from.endpoint = at(from);
		happens(w, pong);
	}
}

static void tell_what_was_carried(struct story *s)
{
	struct peer_input received = { .type = PEER_IN_DATA_RECEIVED,
				       .from = { .by_relay = !s->w.peer.path.direct,
						 .endpoint = s->w.peer.path.endpoint },
				       .n_bytes = s->n_bytes };

	if (!s->is_one_way && !s->falls_silent)
		happens(&s->w, received);
	happens(&s->w, (struct peer_input){ .type = PEER_IN_DATA_SENT, .n_bytes = s->n_bytes });
}

static void milliseconds_pass(struct story *s, uint64_t n)
{
	for (uint64_t ms = 0; ms < n; ms++) {
		after_ms(&s->w, 1);
		take_pings(s);
		if (!s->falls_silent) {
			answer_pings(&s->w, &s->direct, DIRECT);
			answer_pings(&s->w, &s->other, OTHER);
		}
		answer_pings(&s->w, &s->relay, NULL);
		if (s->n_bytes > 0 && ms % 50 == 0)
			tell_what_was_carried(s);
		s->relayed_ms += s->w.peer.path.relay;
	}
}

static void seconds_pass(struct story *s, uint64_t seconds)
{
	milliseconds_pass(s, seconds * 1000);
}

/* Traffic begins, so many bytes in 50 ms; the first pong comes after the round trip. */
static void given_a_direct_path(struct story *s, uint64_t round_trip_ms, uint64_t n_bytes)
{
	memset(s, 0, sizeof(*s));
	begin(&s->w);
	s->w.peer.trace = NULL;
	s->direct.round_trip_ms = round_trip_ms;
	s->relay.round_trip_ms = 5;
	s->n_bytes = n_bytes;
	happens_relay(&s->w, true);
	happens_ours(&s->w, 2);
	happens_info(&s->w, 7, DIRECT);
	happens_plain(&s->w, PEER_IN_TRAFFIC);
	seconds_pass(s, 1);
	expect_path(&s->w, DIRECT, false);
	s->relayed_ms = 0;
}

static void test_a_path_that_only_our_own_load_makes_slow_is_kept(void)
{
	struct story s;
	given_a_direct_path(&s, 5, VOICE);
	seconds_pass(&s, 4);

	s.n_bytes = BULK;
	s.direct.round_trip_ms = 180;
	seconds_pass(&s, 60);

	assert(s.relayed_ms == 0);
	assert(peer_fsm_latency_us(&s.w.peer) > 50000); /* what is shown is what packets suffer */
}

static void test_a_path_loaded_from_its_first_packet_on_is_kept(void)
{
	struct story s;
	given_a_direct_path(&s, 180, BULK);

	seconds_pass(&s, 60);

	assert(s.relayed_ms == 0);
}

static void test_pings_lost_in_a_queue_that_we_fill_do_not_count(void)
{
	struct story s;
	given_a_direct_path(&s, 5, VOICE);
	seconds_pass(&s, 4);

	s.n_bytes = BULK;
	s.direct.lost_of_4 = 2;
	seconds_pass(&s, 60);

	assert(s.relayed_ms == 0 && s.w.peer.candidates.all[s.w.peer.current].loss_permille == 0);
}

static void test_the_path_stays_when_the_load_ends(void)
{
	struct story s;
	given_a_direct_path(&s, 5, VOICE);
	seconds_pass(&s, 4);
	s.n_bytes = BULK;
	s.direct.round_trip_ms = 180;
	seconds_pass(&s, 30);

	s.n_bytes = VOICE;
	seconds_pass(&s, 1); /* the queue runs empty */
	s.direct.round_trip_ms = 5;
	seconds_pass(&s, 60);

	assert(s.relayed_ms == 0);
}

static void test_a_path_that_is_slow_without_load_loses_to_the_relay(void)
{
	struct story s;
	given_a_direct_path(&s, 5, VOICE);
	seconds_pass(&s, 4);

	s.direct.round_trip_ms = 180;
	seconds_pass(&s, 90);

	expect_path(&s.w, NULL, true);
}

static void test_a_path_that_loses_pings_without_load_loses_to_the_relay(void)
{
	struct story s;
	given_a_direct_path(&s, 5, VOICE);
	s.is_one_way = true; /* so that the path is asked, four times a second */

	s.direct.lost_of_4 = 2;
	seconds_pass(&s, 60);

	expect_path(&s.w, NULL, true);
}

static void test_a_path_that_begins_to_lose_is_left_within_twenty_seconds_while_data_flows(void)
{
	struct story s;
	given_a_direct_path(&s, 5, VOICE);
	seconds_pass(&s, 60);
	expect_path(&s.w, DIRECT, false);
	assert(s.w.n_pings < 80); /* one a second, and surveys */

	s.direct.lost_of_4 = 2;
	seconds_pass(&s, 20);

	expect_path(&s.w, NULL, true);
}

/* 1.5 s of data, then none for 0.5 s. */
static void seconds_of_speech_pass(struct story *s, uint64_t seconds)
{
	for (uint64_t i = 0; i < seconds; i += 2) {
		s->n_bytes = VOICE;
		seconds_pass(s, 1);
		milliseconds_pass(s, 500);
		s->n_bytes = 0;
		milliseconds_pass(s, 500);
	}
}

static void test_speech_with_pauses_leaves_a_path_that_begins_to_lose_within_forty_seconds(void)
{
	struct story s;
	given_a_direct_path(&s, 5, VOICE);
	seconds_of_speech_pass(&s, 60);
	assert(s.relayed_ms == 0);

	s.direct.lost_of_4 = 1;
	seconds_of_speech_pass(&s, 40);

	assert(s.w.peer.prefers_relay);
}

static void test_a_look_that_was_cut_short_has_no_more_pings_for_that(void)
{
	struct story s;
	given_a_direct_path(&s, 5, VOICE);
	seconds_of_speech_pass(&s, 60);
	happens_relay(&s.w, false); /* so that nothing changes */

	s.direct.lost_of_4 = 1;
	s.w.n_pings = s.n_seen = 0;
	seconds_of_speech_pass(&s, 60);

	/* One look, one a second, surveys, and probes where pings are lost. */
	assert(s.w.n_pings >= 64 && s.w.n_pings < 64 + 60 * 3);
}

/* While nothing else was to be had, looks at the first way have changed nothing, and are minutes apart. */
static void test_another_way_is_looked_at_closely_at_once_whatever_was_looked_at_before(void)
{
	struct endpoint both[] = { at(DIRECT), at(OTHER) };
	struct story s;
	given_a_direct_path(&s, 5, VOICE);
	happens_relay(&s.w, false);
	s.direct.lost_of_4 = 1;
	seconds_pass(&s, 240);
	assert(s.w.peer.closer_ns > s.w.now_ns + MS(60000));
	s.other.round_trip_ms = 5;
	happens(&s.w, (struct peer_input){ .type = PEER_IN_INFO, .session = 7, .endpoints = both, .n_endpoints = 2 });
	s.direct.lost_of_4 = 2;
	happens_relay(&s.w, true);
	seconds_pass(&s, 45);
	expect_path(&s.w, OTHER, false);

	s.direct.lost_of_4 = 4;
	s.other.lost_of_4 = 2;
	seconds_pass(&s, 20);

	expect_path(&s.w, NULL, true);
}

static void test_direct_is_taken_again_a_few_seconds_after_it_became_good(void)
{
	for (int loaded = 0; loaded < 2; loaded++) {
		struct story s;
		given_a_direct_path(&s, 180, VOICE);
		seconds_pass(&s, 30);
		expect_path(&s.w, NULL, true);

		s.n_bytes = loaded ? BULK : VOICE; /* by the relay */
		s.direct.round_trip_ms = 5;
		seconds_pass(&s, 8);

		expect_path(&s.w, DIRECT, false);
	}
}

static void test_a_late_answer_is_no_doubt_while_data_comes(void)
{
	struct story s;
	given_a_direct_path(&s, 5, VOICE);
	s.n_bytes = BULK;
	seconds_pass(&s, 4);

	s.direct.round_trip_ms = 900;
	for (int i = 0; i < 10; i++) {
		happens_from(&s.w, PEER_IN_PING, DIRECT); /* does our own direction work? */
		seconds_pass(&s, 2);
	}

	assert(s.relayed_ms == 0);
}

static void test_a_flood_without_an_answer_is_asked_until_one_ping_gets_through(void)
{
	struct story s;
	given_a_direct_path(&s, 5, VOICE);
	seconds_pass(&s, 4);

	s.n_bytes = BULK;
	s.is_one_way = true;
	s.direct.round_trip_ms = 60;
	s.direct.lost_of_4 = 3;
	seconds_pass(&s, 30);

	assert(s.relayed_ms == 0);
	assert(s.w.n_pings < 30 * 20);
}

static void test_a_loaded_path_that_dies_is_doubted_within_a_second_and_left_within_four(void)
{
	struct story s;
	given_a_direct_path(&s, 5, VOICE);
	s.n_bytes = BULK;
	seconds_pass(&s, 4);

	s.falls_silent = true;
	seconds_pass(&s, 1);
	expect_path(&s.w, DIRECT, true);
	seconds_pass(&s, 3);

	expect_path(&s.w, NULL, true);
}

int main(void)
{
	test_a_path_that_only_our_own_load_makes_slow_is_kept();
	test_a_path_loaded_from_its_first_packet_on_is_kept();
	test_pings_lost_in_a_queue_that_we_fill_do_not_count();
	test_the_path_stays_when_the_load_ends();
	test_a_path_that_is_slow_without_load_loses_to_the_relay();
	test_a_path_that_loses_pings_without_load_loses_to_the_relay();
	test_a_path_that_begins_to_lose_is_left_within_twenty_seconds_while_data_flows();
	test_speech_with_pauses_leaves_a_path_that_begins_to_lose_within_forty_seconds();
	test_a_look_that_was_cut_short_has_no_more_pings_for_that();
	test_another_way_is_looked_at_closely_at_once_whatever_was_looked_at_before();
	test_direct_is_taken_again_a_few_seconds_after_it_became_good();
	test_a_late_answer_is_no_doubt_while_data_comes();
	test_a_flood_without_an_answer_is_asked_until_one_ping_gets_through();
	test_a_loaded_path_that_dies_is_doubted_within_a_second_and_left_within_four();
	puts("ok");
}
