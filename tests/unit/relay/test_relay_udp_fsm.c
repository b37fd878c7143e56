/*
 * A node's side of a relay over UDP: bound in two round trips, moved in one, found dead in less than a second, and
 * deaf to strangers. Each test reads as: what happens, then the trace it leaves. One way takes 10 ms.
 */
#include "tests/sim/relay_udp_world.h"

#include <assert.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void expect(bool holds, const char *what, int line)
{
	if (holds)
		return;
	fprintf(stderr, "line %d: does not hold: %s\n", line, what);
	abort();
}
#define EXPECT(condition) expect(condition, #condition, __LINE__)

static void expect_text(char *text, const char *expected, int line)
{
	if (strcmp(text, expected) != 0) {
		fprintf(stderr, "line %d: expected:\n%sgot:\n%s", line, expected, text);
		abort();
	}
	text[0] = '\0';
}
#define EXPECT_TRACE(node, expected) expect_text((node)->trace, expected, __LINE__)

static void given_bound(struct world *w, unsigned n)
{
	world_begin(w);
	for (unsigned i = 0; i < n; i++)
		world_start(&w->nodes[i]);
	world_until(w, 2000);
	for (unsigned i = 0; i < n; i++) {
		EXPECT(w->nodes[i].fsm.state == RELAY_UDP_IS_BOUND);
		w->nodes[i].trace[0] = '\0';
	}
}

static void test_bound_after_two_round_trips(void)
{
	static struct world w;
	world_begin(&w);

	world_start(&w.nodes[0]);
	world_until(&w, 1200);
	EXPECT_TRACE(&w.nodes[0], "[  1000] idle: wanted -> asking\n"
				  "[  1020] asking: cookie -> binding\n"
				  "[  1040] binding: bound -> bound\n");
	EXPECT(w.nodes[0].n_bound == 1);
	EXPECT(w.nodes[0].fsm.rtt_us == 20000);
	world_end(&w);
}

static void test_the_address_that_answers_is_bound_to(void)
{
	static struct world w;
	world_begin(&w);

	w.is_deaf[0] = true;
	world_start(&w.nodes[0]);
	world_until(&w, 1200);
	const struct endpoint remote = relay_udp_fsm_remote(&w.nodes[0].fsm);
	EXPECT(w.nodes[0].n_bound == 1 && endpoint_equal(&remote, &w.relay_at[1]));
	world_end(&w);
}

static void test_a_slot_is_kept_for_hours_by_few_pings(void)
{
	static struct world w;
	given_bound(&w, 1);

	w.n_sent = 0;
	world_until(&w, 2 * 3600 * 1000);
	EXPECT_TRACE(&w.nodes[0], "");
	EXPECT(udp_clients_counters(w.clients).clients == 1);
	EXPECT(w.n_sent < 2 * 3600 / 15);
	world_end(&w);
}

/* Its NAT forgets a after so long without a datagram of a's; a's address is another one then. */
static void pass_behind_nat(struct world *w, struct world_node *a, uint64_t ms, uint64_t forgets_ms)
{
	uint64_t silent_ms = 0, n_sent = w->n_sent;

	for (uint64_t passed = 0; passed < ms; passed += 100) {
		world_pass(w, 100);
		silent_ms = w->n_sent == n_sent ? silent_ms + 100 : 0;
		n_sent = w->n_sent;
		if (silent_ms == forgets_ms)
			a->at.port++;
	}
}

static void test_a_nat_that_forgets_sooner_than_most_is_kept_awake_until_the_network_changes(void)
{
	static struct world w;
	given_bound(&w, 1);
	struct world_node *a = &w.nodes[0];

	pass_behind_nat(&w, a, 120000, 12000);
	const unsigned n_bound = a->n_bound;
	EXPECT(n_bound >= 3 && a->n_lost == 0);
	w.n_sent = 0;
	pass_behind_nat(&w, a, 600000, 12000);
	EXPECT(a->n_bound == n_bound && a->n_lost == 0);
	EXPECT(w.n_sent < 600 / 4);
	world_input(a, RELAY_UDP_IN_POKE);
	w.n_sent = 0;
	pass_behind_nat(&w, a, 600000, 60000);
	EXPECT(w.n_sent < 600 / 14 + 20);
	world_end(&w);
}

static void test_a_nat_that_is_restarted_now_and_then_is_kept_awake_as_any_other(void)
{
	static struct world w;
	given_bound(&w, 1);
	struct world_node *a = &w.nodes[0];

	for (int i = 0; i < 10; i++) {
		world_pass(&w, 300000);
		a->at.port++;
	}
	world_pass(&w, 300000);
	EXPECT(a->fsm.nat_ms == 0 && a->n_lost == 0);
	world_end(&w);
}

static void test_a_peer_is_found_and_packets_go(void)
{
	static struct world w;
	given_bound(&w, 2);
	struct world_node *a = &w.nodes[0], *b = &w.nodes[1];

	world_find(a, &b->key, 0);
	world_pass(&w, 100);
	EXPECT(a->found_slot == b->fsm.slot && public_key_equal(&a->found_key, &b->key));
	EXPECT(a->fsm.n_finds == 0);
	world_send(a, a->found_slot);
	world_pass(&w, 100);
	EXPECT(b->n_packets == 1 && b->from_slot == a->fsm.slot);
	world_end(&w);
}

static void test_a_node_that_is_not_here_has_slot_0(void)
{
	static struct world w;
	given_bound(&w, 1);

	w.nodes[0].found_slot = 77;
	world_find(&w.nodes[0], &w.nodes[1].key, 0);
	world_pass(&w, 100);
	EXPECT(w.nodes[0].found_slot == 0 && public_key_equal(&w.nodes[0].found_key, &w.nodes[1].key));
	world_end(&w);
}

static void test_what_goes_to_nobody_comes_back_as_gone(void)
{
	static struct world w;
	given_bound(&w, 1);

	world_send(&w.nodes[0], 12345);
	world_pass(&w, 100);
	EXPECT(w.nodes[0].gone_slot == 12345);
	world_end(&w);
}

static void test_a_question_is_asked_again_but_not_for_ever(void)
{
	static struct world w;
	given_bound(&w, 1);
	world_pass(&w, 500); /* the first pings are over */

	w.is_dead = true;
	w.n_sent = 0;
	world_find(&w.nodes[0], &w.nodes[1].key, 0);
	EXPECT(w.n_sent == 1 && w.nodes[0].fsm.n_finds == 1);
	world_pass(&w, 4000);
	EXPECT(w.nodes[0].fsm.n_finds == 0);
	world_end(&w);
}

/* The key of a node that is not here. */
static struct public_key stranger(uint32_t i)
{
	return (struct public_key){ { (uint8_t)i, (uint8_t)(i >> 8), 1 } };
}

static void test_more_questions_than_there_is_room_for_drop_the_oldest(void)
{
	static struct world w;
	given_bound(&w, 1);

	for (uint32_t i = 0; i < RELAY_UDP_FSM_FINDS + 5; i++) {
		const struct public_key key = stranger(i);
		world_find(&w.nodes[0], &key, 0);
	}
	const struct public_key sixth = stranger(5);
	EXPECT(w.nodes[0].fsm.n_finds == RELAY_UDP_FSM_FINDS);
	EXPECT(public_key_equal(&w.nodes[0].fsm.finds[0].key, &sixth));
	world_end(&w);
}

static void test_a_far_relay_is_asked_for_64_peers_each_tenth_of_a_second_and_no_answer_is_lost(void)
{
	static struct world w;
	given_bound(&w, 1);

	w.latency_us = 150000;
	for (uint32_t i = 0; i < 256; i++) {
		const struct public_key key = stranger(i);
		world_find(&w.nodes[0], &key, 0);
		if (i % 64 == 63)
			world_pass(&w, 100);
	}
	world_pass(&w, 300);
	EXPECT(w.nodes[0].n_found == 256);
	world_end(&w);
}

static void test_a_new_address_costs_one_round_trip_and_keeps_the_slot(void)
{
	static struct world w;
	given_bound(&w, 1);
	struct world_node *a = &w.nodes[0];
	const uint32_t slot = a->fsm.slot, token = a->fsm.token;

	a->at = endpoint_from_v4(0x0a000099, 5555);
	world_input(a, RELAY_UDP_IN_POKE);
	world_pass(&w, 100);
	EXPECT_TRACE(a, "[  2020] bound: moved -> rebinding\n"
			"[  2040] rebinding: bound -> bound\n");
	EXPECT(a->fsm.slot == slot && a->fsm.token != token && a->n_lost == 0);
	world_end(&w);
}

static void test_many_moved_for_many_packets_bind_once(void)
{
	static struct world w;
	given_bound(&w, 1);
	struct world_node *a = &w.nodes[0];

	a->at = endpoint_from_v4(0x0a000099, 5555);
	for (int i = 0; i < 50; i++)
		world_send(a, 7);
	world_pass(&w, 200);
	EXPECT_TRACE(a, "[  2020] bound: moved -> rebinding\n"
			"[  2040] rebinding: bound -> bound\n");
	world_end(&w);
}

static void test_a_relay_that_restarts_is_bound_to_within_two_round_trips_of_the_next_packet(void)
{
	static struct world w;
	given_bound(&w, 1);
	struct world_node *a = &w.nodes[0];

	world_restart_relay(&w);
	world_send(a, 7);
	world_pass(&w, 200);
	EXPECT_TRACE(a, "[  2020] bound: moved -> rebinding\n"
			"[  2040] rebinding: bound -> bound\n");
	EXPECT(a->n_bound == 2 && a->n_lost == 0);
	world_end(&w);
}

static void test_a_dead_relay_is_noticed_in_use_within_800_ms(void)
{
	static struct world w;
	given_bound(&w, 1);
	struct world_node *a = &w.nodes[0];

	w.is_dead = true;
	for (int i = 0; i < 80 && a->n_lost == 0; i++) {
		world_send(a, 7);
		world_pass(&w, 10);
	}
	EXPECT_TRACE(a, "[  2750] bound: silent -> asking\n");
	world_end(&w);
}

static void test_a_question_without_an_answer_is_silence_like_a_packet_without(void)
{
	static struct world w;
	given_bound(&w, 1);

	world_pass(&w, 20000);
	w.is_dead = true;
	world_find(&w.nodes[0], &w.nodes[1].key, 0);
	world_pass(&w, 800);
	EXPECT_TRACE(&w.nodes[0], "[ 22450] bound: silent -> asking\n");
	world_end(&w);
}

static void test_who_only_receives_notices_a_restart_within_half_a_second_of_the_last_packet(void)
{
	static struct world w;
	given_bound(&w, 2);
	struct world_node *a = &w.nodes[0], *b = &w.nodes[1];

	world_pass(&w, 20000);
	for (int i = 0; i < 100; i++) {
		world_send(a, b->fsm.slot);
		world_pass(&w, 10);
	}
	EXPECT_TRACE(b, "");
	world_restart_relay(&w);
	world_pass(&w, 500);
	EXPECT(b->n_bound == 2 && b->n_lost == 0);
	world_end(&w);
}

static void test_a_lost_relay_is_asked_for_until_it_is_back(void)
{
	static struct world w;
	given_bound(&w, 1);
	struct world_node *a = &w.nodes[0];

	w.is_dead = true;
	world_send(a, 7);
	world_pass(&w, 20000);
	EXPECT_TRACE(a, "[  2750] bound: silent -> asking\n");
	world_restart_relay(&w);
	world_pass(&w, 500);
	EXPECT(a->n_bound == 2 && a->bound_us < (22000 + 450) * 1000);
	world_end(&w);
}

static void test_nobody_there_is_tried_again_later_and_later(void)
{
	static struct world w;
	world_begin(&w);
	struct world_node *a = &w.nodes[0];

	w.is_dead = true;
	world_start(a);
	world_until(&w, 30000);
	EXPECT(a->fsm.state == RELAY_UDP_WAITING);
	world_until(&w, 2 * 3600 * 1000);
	EXPECT(w.n_sent < 2 * 3 * 2 * 3600 / 225 + 100); /* two addresses, three times each, every 225 s or rarer */

	w.is_dead = false;
	world_input(a, RELAY_UDP_IN_POKE);
	world_pass(&w, 100);
	EXPECT(a->fsm.state == RELAY_UDP_IS_BOUND);
	world_end(&w);
}

static void test_after_a_long_silence_a_slow_path_is_good_enough(void)
{
	static struct world w;
	world_begin(&w);
	struct world_node *a = &w.nodes[0];

	w.is_dead = true;
	world_start(a);
	world_until(&w, 3600 * 1000);
	w.is_dead = false;
	w.latency_us = 500000; /* by satellite */
	world_pass(&w, 310 * 1000);

	EXPECT(a->fsm.state == RELAY_UDP_IS_BOUND);
	world_end(&w);
}

static void test_silence_is_no_loss_when_nobody_sends_and_pings_are_answered(void)
{
	static struct world w;
	given_bound(&w, 1);
	struct world_node *a = &w.nodes[0];

	for (int i = 0; i < 1000; i++) { /* one-way traffic */
		world_send(a, a->fsm.slot + 1);
		world_pass(&w, 10);
	}
	EXPECT_TRACE(a, "");
	EXPECT(relay_udp_fsm_missing(&a->fsm) == 0 && relay_udp_fsm_is_proven(&a->fsm));
	world_end(&w);
}

static void test_a_relay_that_drains_is_used_as_long_as_it_lasts(void)
{
	static struct world w;
	given_bound(&w, 1);
	struct world_node *a = &w.nodes[0];

	world_drain_relay(&w, 1000);
	world_pass(&w, 3000);
	EXPECT_TRACE(a, "[  2010] bound: leaving -> bound\n");
	EXPECT(a->n_leaving == 1 && a->n_lost == 0);

	world_restart_relay(&w);
	world_pass(&w, 400);
	EXPECT(a->n_bound == 2 && a->n_lost == 0 && !a->fsm.is_leaving);
	world_end(&w);
}

static void test_of_two_machines_with_one_key_the_first_waits(void)
{
	static struct world w;
	given_bound(&w, 1);
	struct world_node *a = &w.nodes[0], *twin = &w.nodes[1];
	struct relay_udp_config config = a->fsm.config;

	relay_udp_fsm_init(&twin->fsm, &config);
	world_start(twin);
	world_pass(&w, 25000);
	EXPECT_TRACE(a, "[  2040] bound: refused -> waiting\n");
	EXPECT(twin->fsm.state == RELAY_UDP_IS_BOUND && twin->n_lost == 0);
	world_end(&w);
}

static void test_a_removed_member_is_told_and_waits(void)
{
	static struct world w;
	given_bound(&w, 1);
	struct world_node *a = &w.nodes[0];
	struct relay_udp_datagram refused = {
		.type = RELAY_UDP_REFUSED,
		.refused = { .reason = RELAY_UDP_NOT_ADMITTED, .number = a->fsm.bind_number },
	};
	uint8_t bytes[RELAY_UDP_MAX_LEN];
	const size_t len = relay_udp_encode(bytes, sizeof(bytes), &refused);

	relay_udp_prove(&a->fsm.config.key, bytes, len);
	world_deliver(a, &w.relay_at[0], bytes, len);
	EXPECT_TRACE(a, "[  2000] bound: refused -> waiting\n");
	EXPECT(a->fsm.deadline_us >= (2000 + 30000) * 1000);
	for (int i = 0; i < 29; i++) { /* whatever happens meanwhile */
		world_pass(&w, 1000);
		world_input(a, RELAY_UDP_IN_POKE);
	}
	EXPECT(a->fsm.state == RELAY_UDP_WAITING);
	world_pass(&w, 15000);
	EXPECT(a->fsm.state == RELAY_UDP_IS_BOUND);
	world_end(&w);
}

static void test_who_gets_a_cookie_and_no_answer_to_the_bind_waits_longer_and_longer(void)
{
	static struct world w;
	world_begin(&w);
	struct world_node *a = &w.nodes[0];

	a->is_member = false;
	world_start(a);
	world_until(&w, 3600 * 1000);
	EXPECT(w.n_sent < 200);

	a->is_member = true;
	world_input(a, RELAY_UDP_IN_POKE);
	world_pass(&w, 2000);
	EXPECT(a->fsm.state == RELAY_UDP_IS_BOUND);
	world_end(&w);
}

static void test_pokes_without_end_neither_hide_nor_invent_that_a_relay_is_dead(void)
{
	static struct world w;
	given_bound(&w, 1);
	struct world_node *a = &w.nodes[0];

	for (int i = 0; i < 50; i++) {
		world_input(a, RELAY_UDP_IN_POKE);
		world_pass(&w, 100);
	}
	EXPECT_TRACE(a, "");
	w.is_dead = true;
	for (int i = 0; i < 30; i++) {
		world_input(a, RELAY_UDP_IN_POKE);
		world_pass(&w, 100);
	}
	EXPECT(a->n_lost == 1);
	world_end(&w);
}

static void test_pokes_without_end_do_not_keep_it_from_binding(void)
{
	static struct world w;
	world_begin(&w);
	struct world_node *a = &w.nodes[0];

	w.latency_us = 150000;
	world_start(a);
	for (int i = 0; i < 50; i++) {
		world_input(a, RELAY_UDP_IN_POKE);
		world_pass(&w, 100);
	}
	EXPECT(a->fsm.state == RELAY_UDP_IS_BOUND);
	world_end(&w);
}

/* Pings leave 15 … 20 s after the last; one of them is the first into the silence. */
static void test_who_is_woken_finds_out_within_a_second_also_just_after_a_ping_of_its_own(void)
{
	for (uint64_t later_ms = 0; later_ms < 400; later_ms += 50) {
		static struct world w;
		given_bound(&w, 1);
		struct world_node *a = &w.nodes[0];

		world_pass(&w, 120000); /* at leisure */
		w.is_dead = true;
		for (int i = 0; i < 300 && a->fsm.n_silent == 0; i++)
			world_pass(&w, 100);
		EXPECT(a->fsm.n_silent == 1);
		world_pass(&w, later_ms);
		world_input(a, RELAY_UDP_IN_VERIFY);
		world_pass(&w, 600);
		EXPECT(a->n_lost == 1);
		world_end(&w);
	}
}

static void test_to_verify_leaves_alone_what_is_being_attempted_and_its_waits(void)
{
	static struct world w;
	world_begin(&w);
	struct world_node *a = &w.nodes[0];

	w.is_dead = true;
	world_start(a);
	world_until(&w, 3600 * 1000);
	EXPECT(a->fsm.state == RELAY_UDP_WAITING);
	const struct relay_udp_fsm before = a->fsm;
	world_input(a, RELAY_UDP_IN_VERIFY);
	EXPECT(a->fsm.state == RELAY_UDP_WAITING && a->fsm.retry_us == before.retry_us &&
	       a->fsm.n_failures == before.n_failures);
	while (a->fsm.state != RELAY_UDP_ASKING)
		world_pass(&w, 100);
	const uint32_t n_tries = a->fsm.n_tries;
	world_input(a, RELAY_UDP_IN_VERIFY);
	EXPECT(a->fsm.state == RELAY_UDP_ASKING && a->fsm.n_tries == n_tries && a->fsm.n_failures == before.n_failures);
	world_end(&w);
}

static void test_a_cookie_that_is_no_good_is_replaced_once_or_twice(void)
{
	static struct world w;
	world_begin(&w);
	struct world_node *a = &w.nodes[0];

	world_start(a);
	world_until(&w, 1025); /* the cookie is there, the bind on its way */
	world_restart_relay(&w);
	world_until(&w, 1200);
	EXPECT_TRACE(a, "[  1000] idle: wanted -> asking\n"
			"[  1020] asking: cookie -> binding\n"
			"[  1040] binding: moved -> binding\n"
			"[  1060] binding: bound -> bound\n");
	world_end(&w);
}

static void test_strangers_change_nothing(void)
{
	static struct world w;
	given_bound(&w, 1);
	struct world_node *a = &w.nodes[0];
	const struct endpoint elsewhere = endpoint_from_v4(0xcb007101, 3478);
	const struct relay_udp_datagram forged[] = {
		{ .type = RELAY_UDP_MOVED, .moved = { .what = a->fsm.token + 1 } },
		{ .type = RELAY_UDP_BOUND, .bound = { .slot = 5, .number = a->fsm.bind_number } },
		{ .type = RELAY_UDP_REFUSED, .refused = { .reason = RELAY_UDP_REPLACED, .number = a->fsm.bind_number } },
		{ .type = RELAY_UDP_COOKIE, .cookie = { .number = a->fsm.question, .version = 1 } },
		{ .type = RELAY_UDP_GONE, .header = { RELAY_UDP_GONE, a->fsm.slot, 7, a->fsm.token + 1 } },
		{ .type = RELAY_UDP_PONG, .header = { RELAY_UDP_PONG, a->fsm.slot + 1, 0, a->fsm.token } },
	};
	uint8_t bytes[RELAY_UDP_MAX_LEN];

	for (unsigned i = 0; i < sizeof(forged) / sizeof(*forged); i++) {
		const size_t len = relay_udp_encode(bytes, sizeof(bytes), &forged[i]);
		world_deliver(a, &w.relay_at[0], bytes, len);
		world_deliver(a, &elsewhere, bytes, len);
	}
	/* What would be right, but comes from elsewhere. */
	const struct relay_udp_datagram moved = { .type = RELAY_UDP_MOVED, .moved = { .what = a->fsm.token } };
	const size_t len = relay_udp_encode(bytes, sizeof(bytes), &moved);
	world_deliver(a, &elsewhere, bytes, len);
	world_deliver(a, &w.relay_at[1], bytes, len);
	EXPECT_TRACE(a, "");
	EXPECT(a->gone_slot == 0);
	world_end(&w);
}

static void test_unwanted_is_silent(void)
{
	static struct world w;
	given_bound(&w, 1);

	world_input(&w.nodes[0], RELAY_UDP_IN_STOP);
	w.n_sent = 0;
	world_pass(&w, 100000);
	EXPECT_TRACE(&w.nodes[0], "[  2000] bound: unwanted -> idle\n");
	EXPECT(w.n_sent == 0);
	world_end(&w);
}

/* ---- the diagram ---- */

static void test_the_diagram_is_that_of_the_table(const char *path)
{
	char expected[8192], found[8192];
	uint32_t n;
	const struct relay_udp_arrow *arrows = relay_udp_fsm_arrows(&n);
	size_t used = (size_t)snprintf(expected, sizeof(expected), "digraph relay_udp_fsm {\n");

	for (uint32_t i = 0; i < n; i++)
		used += (size_t)snprintf(expected + used, sizeof(expected) - used,
					 "\t\"%s\" -> \"%s\" [label=\"%s / %s\"];\n",
					 arrows[i].from == RELAY_UDP_N_STATES ? "any" : relay_udp_state_name(arrows[i].from),
					 relay_udp_state_name(arrows[i].to), relay_udp_cause_name(arrows[i].on),
					 arrows[i].deed);
	snprintf(expected + used, sizeof(expected) - used, "}\n");
	FILE *file = fopen(path, "r");
	EXPECT(file != NULL);
	found[fread(found, 1, sizeof(found) - 1, file)] = '\0';
	fclose(file);
	expect_text(found, expected, __LINE__);
}

int main(int argc, char **argv)
{
	assert(argc == 2 && sodium_init() >= 0);
	test_bound_after_two_round_trips();
	test_the_address_that_answers_is_bound_to();
	test_a_slot_is_kept_for_hours_by_few_pings();
	test_a_nat_that_forgets_sooner_than_most_is_kept_awake_until_the_network_changes();
	test_a_nat_that_is_restarted_now_and_then_is_kept_awake_as_any_other();
	test_a_peer_is_found_and_packets_go();
	test_a_node_that_is_not_here_has_slot_0();
	test_what_goes_to_nobody_comes_back_as_gone();
	test_a_question_is_asked_again_but_not_for_ever();
	test_more_questions_than_there_is_room_for_drop_the_oldest();
	test_a_far_relay_is_asked_for_64_peers_each_tenth_of_a_second_and_no_answer_is_lost();
	test_a_new_address_costs_one_round_trip_and_keeps_the_slot();
	test_many_moved_for_many_packets_bind_once();
	test_a_relay_that_restarts_is_bound_to_within_two_round_trips_of_the_next_packet();
	test_a_dead_relay_is_noticed_in_use_within_800_ms();
	test_a_question_without_an_answer_is_silence_like_a_packet_without();
	test_who_only_receives_notices_a_restart_within_half_a_second_of_the_last_packet();
	test_a_lost_relay_is_asked_for_until_it_is_back();
	test_nobody_there_is_tried_again_later_and_later();
	test_after_a_long_silence_a_slow_path_is_good_enough();
	test_silence_is_no_loss_when_nobody_sends_and_pings_are_answered();
	test_a_relay_that_drains_is_used_as_long_as_it_lasts();
	test_of_two_machines_with_one_key_the_first_waits();
	test_a_removed_member_is_told_and_waits();
	test_who_gets_a_cookie_and_no_answer_to_the_bind_waits_longer_and_longer();
	test_pokes_without_end_neither_hide_nor_invent_that_a_relay_is_dead();
	test_pokes_without_end_do_not_keep_it_from_binding();
	test_who_is_woken_finds_out_within_a_second_also_just_after_a_ping_of_its_own();
	test_to_verify_leaves_alone_what_is_being_attempted_and_its_waits();
	test_a_cookie_that_is_no_good_is_replaced_once_or_twice();
	test_strangers_change_nothing();
	test_unwanted_is_silent();
	test_the_diagram_is_that_of_the_table(argv[1]);
	return 0;
}
