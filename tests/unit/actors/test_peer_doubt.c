/*
 * Chance or death? Pings are lost on the best of paths, and all of them on a dead one. What is certain after how many, and
 * what may another address of the peer do meanwhile? See docs/decisions/0013-how-much-is-lost-takes-many-pings.md.
 */
#include "tests/unit/actors/peer_world.h"

#include "common/macros.h"

#define NEAR_LAN "192.168.1.2:7000"
#define FIRST	 "198.51.100.9:7000"
#define SECOND	 "203.0.113.5:40001"
#define VICTIM	 "192.0.2.77:53"

#define VOICE 2000 /* bytes in 50 ms */
#define BULK  500000

/* A flow to the peer, which answers pings so or not at all, and sends nothing else. */
struct flow {
	uint64_t n_bytes;	     /* of ours in 50 ms */
	uint64_t round_trip_ms;
	uint64_t second_is_faster_ms; /* its round trip is so much shorter */
	bool first_dies, second_dies;
	uint64_t first_each_ms; /* at most so often the first address answers; 0: always */
	uint64_t first_answered_ns;
	uint32_t n_seen; /* pings */
	uint64_t due_ns[16];
	struct peer_action due[16]; /* answers under way */
};

static bool is_answered(struct world *w, struct flow *flow, const struct peer_action *ping)
{
	const struct endpoint first = at(FIRST), second = at(SECOND);

	if (endpoint_equal(&ping->to.endpoint, &second))
		return !flow->second_dies;
	if (!endpoint_equal(&ping->to.endpoint, &first) || flow->first_dies ||
	    w->now_ns - flow->first_answered_ns < MS(flow->first_each_ms))
		return false;
	flow->first_answered_ns = w->now_ns;
	return true;
}

static void arrive(struct world *w, struct flow *flow)
{
	for (; flow->n_seen != w->n_pings; flow->n_seen++) {
		const uint32_t i = flow->n_seen % ARRAY_LEN(w->pings);
		const struct endpoint second = at(SECOND);
		uint64_t round_trip_ms = flow->round_trip_ms;

		flow->due[i] = w->pings[i];
		if (endpoint_equal(&flow->due[i].to.endpoint, &second))
			round_trip_ms -= flow->second_is_faster_ms;
		flow->due_ns[i] = is_answered(w, flow, &w->pings[i]) ? w->now_ns + MS(round_trip_ms) : UINT64_MAX;
	}
	for (uint32_t i = 0; i < ARRAY_LEN(flow->due); i++) {
		if (flow->due_ns[i] == 0 || flow->due_ns[i] > w->now_ns)
			continue;
		flow->due_ns[i] = UINT64_MAX;
		happens(w, (struct peer_input){ .type = PEER_IN_PONG,
						.tx_id = flow->due[i].tx_id,
						.from.endpoint = flow->due[i].to.endpoint });
	}
}

static void flows(struct world *w, struct flow *flow, uint64_t ms)
{
	for (uint64_t t = 0; t < ms; t += 10) {
		if (t % 50 == 0)
			happens(w, (struct peer_input){ .type = PEER_IN_DATA_SENT, .n_bytes = flow->n_bytes });
		after_ms(w, 10);
		arrive(w, flow);
	}
}

/* Until the path is another one; for so long at most. */
static uint64_t left_after_ms(struct world *w, struct flow *flow, uint64_t ms)
{
	const uint64_t begin_ns = w->now_ns;
	const struct endpoint first = at(FIRST);

	while (w->peer.path.direct && endpoint_equal(&w->peer.path.endpoint, &first) && w->now_ns - begin_ns < MS(ms))
		flows(w, flow, 10);
	return (w->now_ns - begin_ns) / MS(1);
}

/* The flow goes to the first of its two addresses; both answer. */
static void given_a_flow(struct world *w, struct flow *flow, bool relay_up)
{
	const struct endpoint both[] = { at(FIRST), at(SECOND) };

	begin(w);
	happens_relay(w, true);
	happens_ours(w, 1);
	happens_info(w, 7, FIRST);
	happens_plain(w, PEER_IN_TRAFFIC);
	w->now_ns += MS(flow->round_trip_ms);
	happens_pong(w, FIRST);
	happens(w, (struct peer_input){ .type = PEER_IN_INFO, .session = 7, .endpoints = both, .n_endpoints = 2 });
	flow->n_seen = w->n_pings - 1; /* the one to the second */
	flow->n_bytes = flow->n_bytes ? flow->n_bytes : VOICE;
	flows(w, flow, 60000); /* what is usual is known */
	happens_relay(w, relay_up);
	expect_path(w, FIRST, false);
	forget_trace(w);
}

static bool is_any_under_way(const struct flow *flow)
{
	for (uint32_t i = 0; i < ARRAY_LEN(flow->due); i++)
		if (flow->due_ns[i] != 0 && flow->due_ns[i] != UINT64_MAX)
			return true;
	return false;
}

/* Nothing that it answered before comes after it. */
static void the_first_dies(struct world *w, struct flow *flow)
{
	while (is_any_under_way(flow))
		flows(w, flow, 10);
	flow->first_dies = true;
}

static void until_suspect(struct world *w, struct flow *flow)
{
	while (w->peer.trust != PEER_SUSPECT)
		flows(w, flow, 10);
}

/* ---- silence ---- */

static void test_silence_by_chance_does_not_make_another_address_the_path(void)
{
	struct world w;
	struct flow flow = { .round_trip_ms = 20 };
	given_a_flow(&w, &flow, true);

	flow.first_dies = true;
	until_suspect(&w, &flow);
	flows(&w, &flow, 100);
	expect_path(&w, FIRST, true);
	flow.first_dies = false;
	flows(&w, &flow, 100);

	expect_path(&w, FIRST, false);
	assert(strstr(w.trace, "pong"));
}

static void test_a_lost_path_is_replaced_by_another_address_that_answers_without_a_new_attempt(void)
{
	struct world w;
	struct flow flow = { .round_trip_ms = 20 };
	given_a_flow(&w, &flow, true);

	flow.first_dies = true;
	assert(left_after_ms(&w, &flow, 5000) < 1000);

	expect_path(&w, SECOND, false);
	assert(strstr(w.trace, "established: other works -> established") && !strstr(w.trace, "teardown"));
}

static void test_ten_probes_are_not_enough_where_15_percent_are_lost_each_way(void)
{
	struct world w;
	struct flow flow = { .round_trip_ms = 20 };
	given_a_flow(&w, &flow, true);
	for (int i = 0; i < PEER_PING_WORDS; i++) {
		w.peer.candidates.all[w.peer.current].counted[i] = UINT64_MAX;
		w.peer.candidates.all[w.peer.current].answered[i] = ~0x1111111111111110u; /* a quarter */
	}

	flow.first_dies = true;
	until_suspect(&w, &flow);
	while (w.peer.n_probes < 18) {
		flows(&w, &flow, 10);
		expect_path(&w, FIRST, true);
	}
}

static void test_without_a_relay_another_address_carries_within_a_second_whatever_flows_up_to_200_ms_away(void)
{
	static const uint64_t amounts[] = { VOICE, BULK }, round_trips_ms[] = { 5, 20, 50, 100, 150, 200 };

	for (size_t i = 0; i < ARRAY_LEN(amounts) * ARRAY_LEN(round_trips_ms); i++) {
		struct world w;
		struct flow flow = { .n_bytes = amounts[i % 2], .round_trip_ms = round_trips_ms[i / 2] };
		given_a_flow(&w, &flow, false);

		flow.first_dies = true;
		const uint64_t ms = left_after_ms(&w, &flow, 5000);
		expect_path(&w, SECOND, false);
		if (ms > 1000) {
			fprintf(stderr, "%llu ms at %llu\n%s", (unsigned long long)ms,
				(unsigned long long)flow.round_trip_ms, w.trace);
			abort();
		}
	}
}

static void test_without_a_relay_probes_are_fast_from_the_first_on(void)
{
	struct world w;
	struct flow flow = { .round_trip_ms = 200 };
	given_a_flow(&w, &flow, false);

	flow.first_dies = true;
	until_suspect(&w, &flow);

	assert(w.peer.n_probes >= 5);
}

static void test_nor_is_it_much_later_when_its_first_answer_is_lost(void)
{
	struct world w;
	struct flow flow = { .round_trip_ms = 20 };
	given_a_flow(&w, &flow, false);

	flow.first_dies = flow.second_dies = true;
	until_suspect(&w, &flow);
	flows(&w, &flow, 50);
	flow.second_dies = false;

	assert(left_after_ms(&w, &flow, 5000) < 600);
	expect_path(&w, SECOND, false);
}

static void test_a_path_that_lets_a_ping_pass_now_and_then_is_left_all_the_same(void)
{
	static const uint64_t each_ms[] = { 400, 500, 600, 900 };

	for (size_t i = 0; i < ARRAY_LEN(each_ms); i++) {
		struct world w;
		struct flow flow = { .round_trip_ms = 20 };
		given_a_flow(&w, &flow, true);

		flow.first_each_ms = each_ms[i];
		const uint64_t ms = left_after_ms(&w, &flow, 60000);
		if (ms > 30000) {
			fprintf(stderr, "a ping in %llu ms: %llu ms\n", (unsigned long long)each_ms[i], (unsigned long long)ms);
			abort();
		}
	}
}

static void test_one_lost_keepalive_is_no_reason_to_leave_a_path_however_far_it_is(void)
{
	for (int relay = 0; relay < 2; relay++) {
		struct world w;
		struct flow flow = { .round_trip_ms = 260, .second_is_faster_ms = 30 };
		given_a_flow(&w, &flow, relay == 1);

		/* No more data; the keepalive is lost, and nothing after it. */
		const uint32_t n = flow.n_seen;
		while (w.n_pings == n) {
			after_ms(&w, 10);
			arrive(&w, &flow);
		}
		flow.n_seen = w.n_pings;
		for (int i = 0; i < 200; i++) {
			after_ms(&w, 10);
			arrive(&w, &flow);
			assert(endpoint_equal(&w.peer.path.endpoint, &w.peer.candidates.all[0].endpoint));
		}
		expect_path(&w, FIRST, false);
	}
}

static void test_what_was_better_before_a_doubt_is_not_taken_in_it_unless_it_answers(void)
{
	struct world w;
	struct flow flow = { .round_trip_ms = 40 };
	given_a_flow(&w, &flow, true);

	flow.second_is_faster_ms = 35;
	while (w.peer.n_better == 0)
		flows(&w, &flow, 10);
	expect_path(&w, FIRST, false);
	w.peer.survey_ns = UINT64_MAX;
	flow.first_dies = flow.second_dies = true;
	until_suspect(&w, &flow);
	w.peer.survey_ns = w.now_ns + MS(10);
	flows(&w, &flow, 20);

	expect_path(&w, FIRST, true);
}

/* ---- causes ---- */

static void a_send_fails(struct world *w)
{
	happens_from(w, PEER_IN_SEND_FAILED, FIRST);
}

static void our_addresses_change(struct world *w)
{
	happens_ours(w, 2);
}

static void the_peer_starts_anew(struct world *w)
{
	const struct endpoint both[] = { at(FIRST), at(SECOND) };

	happens(w, (struct peer_input){ .type = PEER_IN_INFO, .session = 8, .endpoints = both, .n_endpoints = 2 });
}

static void the_peer_attempts_anew(struct world *w)
{
	w->peer.candidates.all[w->peer.current].pong_ns = w->now_ns - MS(1000);
	happens_rendezvous(w, SECOND);
}

static void (*const causes[])(struct world *) = { a_send_fails, our_addresses_change, the_peer_starts_anew,
						  the_peer_attempts_anew };

static void test_where_something_changed_the_first_address_that_answers_is_the_path(void)
{
	for (size_t i = 0; i < ARRAY_LEN(causes); i++) {
		struct world w;
		struct flow flow = { .round_trip_ms = 20 };
		given_a_flow(&w, &flow, true);

		the_first_dies(&w, &flow);
		causes[i](&w);
		assert(left_after_ms(&w, &flow, 1000) <= 30);

		expect_path(&w, SECOND, false);
	}
}

static void test_a_cause_that_comes_while_the_path_is_in_doubt_takes_the_address_that_answers_then(void)
{
	for (size_t i = 0; i < ARRAY_LEN(causes); i++) {
		struct world w;
		struct flow flow = { .round_trip_ms = 20 };
		given_a_flow(&w, &flow, true);

		the_first_dies(&w, &flow);
		until_suspect(&w, &flow);
		flows(&w, &flow, 60);
		expect_path(&w, FIRST, true);
		causes[i](&w);
		assert(left_after_ms(&w, &flow, 1000) <= 30);

		expect_path(&w, SECOND, false);
	}
}

static void test_a_cause_ends_with_its_doubt(void)
{
	struct world w;
	struct flow flow = { .round_trip_ms = 20 };
	given_a_flow(&w, &flow, true);

	flow.second_dies = true;
	our_addresses_change(&w);
	flows(&w, &flow, 1000);
	expect_path(&w, FIRST, false);
	flow.second_dies = false;
	the_first_dies(&w, &flow);
	until_suspect(&w, &flow);
	flows(&w, &flow, 100);

	expect_path(&w, FIRST, true);
}

static void test_that_the_peer_turns_to_the_relay_is_no_cause(void)
{
	struct world w;
	struct flow flow = { .round_trip_ms = 20 };
	given_a_flow(&w, &flow, true);

	happens_from(&w, PEER_IN_DATA_RECEIVED, FIRST);
	the_first_dies(&w, &flow);
	flows(&w, &flow, 300);
	happens_from(&w, PEER_IN_DATA_RECEIVED, NULL);
	expect_path(&w, FIRST, true);
	flows(&w, &flow, 100);

	expect_path(&w, FIRST, true);
}

static void test_an_adopted_path_gives_way_to_the_first_address_that_answers(void)
{
	struct world w;
	struct endpoint second = at(SECOND);
	begin(&w);
	happens_relay(&w, true);
	happens_ours(&w, 1);
	happens(&w, (struct peer_input){ .type = PEER_IN_INFO, .session = 7, .endpoints = &second, .n_endpoints = 1 });

	happens(&w, (struct peer_input){ .type = PEER_IN_ADOPT, .from = { .endpoint = at(FIRST) } });
	expect_path(&w, FIRST, true);
	happens_plain(&w, PEER_IN_TRAFFIC);
	w.peer.survey_ns = w.now_ns + MS(50);
	after_ms(&w, 60);
	happens_pong_of(&w, SECOND);

	expect_path(&w, SECOND, false);
}

static void test_a_peer_cannot_make_up_the_answer_of_an_address_that_was_not_asked(void)
{
	struct world w;
	struct flow flow = { .round_trip_ms = 20 };
	given_a_flow(&w, &flow, true);
	const struct peer_tx_id seen = w.ping.tx_id;
	const uint32_t n_pongs_before = w.n_pongs;

	happens_rendezvous(&w, VICTIM);
	const struct endpoint victim = at(VICTIM);
	const int slot = candidates_find(&w.peer.candidates, &victim);
	assert(slot >= 0);
	for (uint32_t number = 0; number < 1000; number++) {
		struct peer_input forged = { .type = PEER_IN_PONG, .tx_id = seen, .from.endpoint = at(FIRST) };

		forged.tx_id.bytes[4] = (uint8_t)slot;
		forged.tx_id.bytes[5] = w.peer.candidates.all[slot].generation;
		forged.tx_id.bytes[6] = (uint8_t)(number >> 8);
		forged.tx_id.bytes[7] = (uint8_t)number;
		happens(&w, forged);
	}

	assert(w.peer.candidates.all[slot].n_pongs == 0 && w.n_pongs == n_pongs_before);
}

/* ---- how much is lost ---- */

/* So many pings, and each n-th of them is lost (0: none). */
static void ping_it(struct peer_candidate *c, uint32_t n_pings, uint32_t n, uint64_t interval_ms)
{
	for (uint32_t i = 1; i <= n_pings; i++) {
		const uint64_t now_ns = c->ping_ns + MS(interval_ms);

		candidate_on_ping_sent(c, false, now_ns);
		if (n == 0 || i % n != 0)
			candidate_on_pong(c, 0, 0, false, now_ns);
	}
}

static struct peer_candidate pinged(uint32_t n_pings, uint32_t n)
{
	struct peer_candidate c = { .endpoint = at(NEAR_LAN) };

	ping_it(&c, n_pings, n, 100);
	return c;
}

/* At least so much is lost, in permille: we are sure by five standard deviations. */
static uint32_t surely_lost(const struct peer_candidate *c, uint32_t n)
{
	return candidate_loss_bound(c, n, -5);
}

static void test_that_much_is_lost_is_certain_after_few_pings_and_that_a_little_is_after_many(void)
{
	struct peer_candidate none = pinged(300, 0), much = pinged(64, 2), little = pinged(300, 7);

	assert(surely_lost(&none, PEER_N_LATE_PINGS) == 0 && surely_lost(&none, PEER_N_PINGS) == 0);
	assert(surely_lost(&much, PEER_N_LATE_PINGS) >= 230 && surely_lost(&much, PEER_N_PINGS) >= 230);
	assert(surely_lost(&little, PEER_N_LATE_PINGS) <= 40);
	assert(surely_lost(&little, PEER_N_PINGS) >= 60 && surely_lost(&little, PEER_N_PINGS) <= 142);
	assert(little.loss_permille > 100 && little.loss_permille < 180);
	/* Nothing is known of what was not asked; and at most all is lost. */
	struct peer_candidate unknown = { .endpoint = at(NEAR_LAN) };
	assert(surely_lost(&unknown, PEER_N_PINGS) == 0);
	assert(candidate_loss_bound(&unknown, PEER_N_PINGS, 1) == 1000);
	assert(candidate_loss_bound(&none, PEER_N_PINGS, 2) <= 16);
}

static void test_what_was_away_is_not_lossy_when_it_is_back(void)
{
	struct peer_candidate c = pinged(30, 0);

	for (int i = 0; i < 12; i++)
		candidate_on_ping_sent(&c, false, c.ping_ns + MS(1000));
	assert(c.loss_permille > 200);
	ping_it(&c, 4, 0, 1000);

	assert(c.loss_permille == 0 && candidate_loss_bound(&c, PEER_N_PINGS, -1) == 0);

	for (int i = 0; i < HOPELESS_PINGS; i++) /* no more are sent */
		candidate_on_ping_sent(&c, false, c.ping_ns + MS(1000));
	candidate_hope(&c);
	ping_it(&c, 4, 0, 1000);
	assert(c.loss_permille == 0);
}

static void test_what_was_lossy_before_it_was_away_is_so_after_it(void)
{
	struct peer_candidate c = pinged(250, 3);
	const uint16_t before_permille = c.loss_permille;

	for (int i = 0; i < 100; i++)
		candidate_on_ping_sent(&c, false, c.ping_ns + MS(1000));
	assert(c.loss_permille == 1000);
	candidate_on_ping_sent(&c, false, c.ping_ns + MS(1000));
	candidate_on_pong(&c, 0, 0, false, c.ping_ns);
	ping_it(&c, 2, 0, 1000);

	assert(c.loss_permille + 40 > before_permille && c.loss_permille < before_permille + 40);
	assert(candidate_loss_bound(&c, PEER_N_PINGS, -1) > 250);
}

static void test_pings_lost_within_a_moment_count_as_few(void)
{
	struct peer_candidate apart = pinged(62, 0), close = apart;

	for (int i = 0; i < 9; i++) {
		candidate_on_ping_sent(&apart, false, apart.ping_ns + MS(100));
		candidate_on_ping_sent(&close, false, close.ping_ns + MS(40));
	}
	ping_it(&apart, 2, 0, 100);
	ping_it(&close, 2, 0, 100);

	assert(candidate_n_lost_of(&apart, 62) == 9 && candidate_n_lost_of(&close, 62) <= 5);
}

int main(void)
{
	test_silence_by_chance_does_not_make_another_address_the_path();
	test_a_lost_path_is_replaced_by_another_address_that_answers_without_a_new_attempt();
	test_ten_probes_are_not_enough_where_15_percent_are_lost_each_way();
	test_without_a_relay_another_address_carries_within_a_second_whatever_flows_up_to_200_ms_away();
	test_without_a_relay_probes_are_fast_from_the_first_on();
	test_nor_is_it_much_later_when_its_first_answer_is_lost();
	test_a_path_that_lets_a_ping_pass_now_and_then_is_left_all_the_same();
	test_what_was_better_before_a_doubt_is_not_taken_in_it_unless_it_answers();
	test_one_lost_keepalive_is_no_reason_to_leave_a_path_however_far_it_is();
	test_where_something_changed_the_first_address_that_answers_is_the_path();
	test_a_cause_that_comes_while_the_path_is_in_doubt_takes_the_address_that_answers_then();
	test_a_cause_ends_with_its_doubt();
	test_that_the_peer_turns_to_the_relay_is_no_cause();
	test_an_adopted_path_gives_way_to_the_first_address_that_answers();
	test_a_peer_cannot_make_up_the_answer_of_an_address_that_was_not_asked();
	test_that_much_is_lost_is_certain_after_few_pings_and_that_a_little_is_after_many();
	test_what_was_away_is_not_lossy_when_it_is_back();
	test_what_was_lossy_before_it_was_away_is_so_after_it();
	test_pings_lost_within_a_moment_count_as_few();
	puts("ok");
}
