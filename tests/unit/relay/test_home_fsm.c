/*
 * Which relay is home: chosen fast, moved for good reason only, left at once when dead; other relays are
 * held while they are used. Every test reads as: what happens, then the trace it must leave.
 */
#include "actors/relay_manager/home_fsm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MS 1000u /* of µs */

struct world {
	struct home_fsm fsm;
	struct home_actions last;
	uint64_t now_ms;
	char trace[8192];
	char orders[1024];
};

static void expect(bool holds, const char *what, int line)
{
	if (holds)
		return;
	fprintf(stderr, "line %d: does not hold: %s\n", line, what);
	abort();
}
#define EXPECT(condition) expect(condition, #condition, __LINE__)

static void append(char *text, size_t cap, const char *line)
{
	size_t used = strlen(text);
	int n = snprintf(text + used, cap - used, "%s\n", line);

	EXPECT(n >= 0 && (size_t)n < cap - used);
}

static void keep(void *arg, const char *line)
{
	struct world *w = arg;

	append(w->trace, sizeof(w->trace), line);
}

static void begin(struct world *w)
{
	memset(w, 0, sizeof(*w));
	home_fsm_init(&w->fsm);
	w->fsm.trace = keep;
	w->fsm.trace_arg = w;
	w->now_ms = 1000;
}

static void step(struct world *w, const struct home_input *input)
{
	char line[64];

	home_fsm_step(&w->fsm, input, &w->last);
	for (uint32_t i = 0; i < w->last.n_orders; i++) {
		snprintf(line, sizeof(line), "[%6llu] %s %u", (unsigned long long)w->now_ms,
			 w->last.orders[i].hold ? "hold" : "drop", w->last.orders[i].relay_id);
		append(w->orders, sizeof(w->orders), line);
	}
}

static void relays(struct world *w, uint32_t n, const uint32_t *ids)
{
	step(w, &(struct home_input){ .type = HOME_IN_RELAYS, .now_ms = w->now_ms, .relays = { n, ids } });
}

static void happens(struct world *w, enum home_input_type type, uint32_t relay_id)
{
	step(w, &(struct home_input){ .type = type, .now_ms = w->now_ms, .relay_id = relay_id });
}

static void measured(struct world *w, uint32_t relay_id, uint32_t rtt_us)
{
	step(w, &(struct home_input){
			.type = HOME_IN_LATENCY, .now_ms = w->now_ms, .relay_id = relay_id, .rtt_us = rtt_us });
}

static void until_deadline(struct world *w)
{
	EXPECT(w->fsm.deadline_ms >= w->now_ms);
	w->now_ms = w->fsm.deadline_ms;
	happens(w, HOME_IN_DEADLINE, 0);
}

static void until(struct world *w, uint64_t ms)
{
	while (w->fsm.deadline_ms != 0 && w->fsm.deadline_ms <= ms)
		until_deadline(w);
	w->now_ms = ms;
}

/* A round in which relays 1, 2, 3 … answer with these latencies; 0: no answer. */
static void a_round(struct world *w, uint32_t n, const uint32_t *rtt_us)
{
	uint64_t end_ms = w->fsm.round_ms;

	for (uint32_t i = 0; i < n; i++)
		if (rtt_us[i] != 0)
			measured(w, i + 1, rtt_us[i]);
	until(w, end_ms);
}

static void expect_text(char *text, const char *expected)
{
	if (strcmp(text, expected) != 0) {
		fprintf(stderr, "expected:\n%sgot:\n%s", expected, text);
		abort();
	}
	text[0] = '\0';
}

static const uint32_t one[] = { 1 }, two[] = { 1, 2 }, three[] = { 1, 2, 3 };

static void given_home_is_1_of_3(struct world *w)
{
	begin(w);
	relays(w, 3, three);
	measured(w, 1, 50 * MS);
	EXPECT(w->fsm.home == 1);
	w->trace[0] = w->orders[0] = '\0';
}

static void test_a_sole_relay_is_home_at_once(void)
{
	struct world w;
	begin(&w);

	relays(&w, 1, one);
	EXPECT(w.last.home_changed && w.last.home == 1);

	expect_text(w.trace, "[  1000] none: sole -> settled\n");
	expect_text(w.orders, "[  1000] hold 1\n");
}

static void test_of_several_the_first_that_answers_is_home(void)
{
	struct world w;
	begin(&w);

	relays(&w, 3, three);
	EXPECT(w.last.home == 0);
	w.now_ms = 1012;
	measured(&w, 2, 12 * MS);
	EXPECT(w.last.home == 2);

	expect_text(w.trace, "[  1000] none: relays -> choosing\n"
			     "[  1012] choosing: answer -> settled\n");
	expect_text(w.orders, "[  1012] hold 2\n");
}

static void test_without_any_answer_the_choice_is_not_put_off(void)
{
	struct world w;
	begin(&w);

	relays(&w, 3, three);
	until_deadline(&w);
	EXPECT(w.last.home == 1);

	expect_text(w.trace, "[  1000] none: relays -> choosing\n"
			     "[  1150] choosing: answer -> settled\n");
}

static void test_a_wrong_guess_is_corrected_in_the_first_round_only(void)
{
	struct world w;
	begin(&w);

	relays(&w, 3, three);
	until_deadline(&w); /* a guess: 1 */
	measured(&w, 2, 200 * MS);
	measured(&w, 1, 205 * MS);
	EXPECT(w.last.home == 1); /* not clearly nearer */
	measured(&w, 3, 180 * MS);
	EXPECT(w.last.home == 1);
	measured(&w, 3, 30 * MS);
	EXPECT(w.last.home == 3 && w.last.home_changed);
	measured(&w, 2, 1 * MS); /* no guess any more: from now on in rounds */
	EXPECT(w.last.home == 3);

	expect_text(w.trace, "[  1000] none: relays -> choosing\n"
			     "[  1150] choosing: answer -> settled\n"
			     "[  1150] settled: answer -> settled\n");
}

static void test_a_connection_of_an_earlier_life_is_home_again(void)
{
	struct world w;
	begin(&w);

	relays(&w, 3, three);
	happens(&w, HOME_IN_UP, 3);
	EXPECT(w.last.home == 3);
	happens(&w, HOME_IN_UP, 2); /* another, which nobody uses any more */
	until(&w, 70000);

	expect_text(w.trace, "[  1000] none: relays -> choosing\n"
			     "[  1000] choosing: up -> settled\n"
			     "[  1000] settled: up -> (ignored)\n");
	expect_text(w.orders, "[ 61000] drop 2\n");
}

static void test_home_moves_when_another_was_clearly_nearer_in_three_rounds(void)
{
	struct world w;
	given_home_is_1_of_3(&w);

	a_round(&w, 2, (uint32_t[]){ 50 * MS, 20 * MS });
	happens(&w, HOME_IN_UP, 2);
	for (int i = 0; i < 2; i++)
		a_round(&w, 2, (uint32_t[]){ 50 * MS, 20 * MS });
	EXPECT(w.fsm.home == 2);

	expect_text(w.trace, "[ 21000] settled: better -> comparing\n"
			     "[ 21000] comparing: up -> (ignored)\n"
			     "[ 41000] comparing: better -> comparing\n"
			     "[ 61000] comparing: proven -> settled\n");
	/* The former home is held for a while, for those who still send to us there. */
	until(&w, 130000);
	expect_text(w.orders, "[ 21000] hold 2\n"
			      "[121000] drop 1\n");
}

static void test_home_does_not_move_to_a_relay_that_takes_nobody(void)
{
	struct world w;
	given_home_is_1_of_3(&w);

	for (int i = 0; i < 30; i++) { /* it answers STUN, and refuses each connection */
		a_round(&w, 2, (uint32_t[]){ 50 * MS, 20 * MS });
		happens(&w, HOME_IN_DOWN, 2);
		EXPECT(w.fsm.home == 1);
	}
	a_round(&w, 2, (uint32_t[]){ 50 * MS, 20 * MS });
	happens(&w, HOME_IN_UP, 2);
	for (int i = 0; i < 3; i++)
		a_round(&w, 2, (uint32_t[]){ 50 * MS, 20 * MS });
	EXPECT(w.fsm.home == 2);
}

static void test_one_spike_does_not_move_home(void)
{
	struct world w;
	given_home_is_1_of_3(&w);

	a_round(&w, 2, (uint32_t[]){ 50 * MS, 45 * MS });
	for (int i = 0; i < 4; i++)
		a_round(&w, 2, (uint32_t[]){ 900 * MS, 45 * MS });
	a_round(&w, 2, (uint32_t[]){ 50 * MS, 45 * MS });

	EXPECT(w.fsm.home == 1);
	expect_text(w.trace, "");
}

static void test_a_little_nearer_is_not_enough(void)
{
	static const struct {
		uint32_t home_us, other_us;
		bool moves;
	} cases[] = {
		{ 20 * MS, 11 * MS, false },   /* 45 %, but only 9 ms */
		{ 20 * MS, 10 * MS, true },
		{ 100 * MS, 85 * MS, false },  /* 15 ms, but only 15 % */
		{ 100 * MS, 80 * MS, true },
		{ 8 * MS, 1 * MS, false },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct world w;
		begin(&w);
		relays(&w, 2, two);
		measured(&w, 1, cases[i].home_us);
		happens(&w, HOME_IN_UP, 2);
		for (int n = 0; n < 3; n++)
			a_round(&w, 2, (uint32_t[]){ cases[i].home_us, cases[i].other_us });
		EXPECT((w.fsm.home == 2) == cases[i].moves);
	}
}

static void test_the_rounds_must_follow_each_other(void)
{
	struct world w;
	given_home_is_1_of_3(&w);

	a_round(&w, 3, (uint32_t[]){ 50 * MS, 20 * MS, 0 });
	a_round(&w, 3, (uint32_t[]){ 50 * MS, 20 * MS, 0 });
	measured(&w, 1, 21 * MS); /* home was only busy */
	a_round(&w, 3, (uint32_t[]){ 50 * MS, 20 * MS, 0 });

	EXPECT(w.fsm.home == 1);
	expect_text(w.trace, "[ 21000] settled: better -> comparing\n"
			     "[ 41000] comparing: better -> comparing\n"
			     "[ 61000] comparing: equal -> settled\n");
}

static void test_another_challenger_begins_anew(void)
{
	struct world w;
	given_home_is_1_of_3(&w);

	a_round(&w, 3, (uint32_t[]){ 50 * MS, 20 * MS, 0 });
	a_round(&w, 3, (uint32_t[]){ 50 * MS, 20 * MS, 0 });
	a_round(&w, 3, (uint32_t[]){ 50 * MS, 20 * MS, 5 * MS });
	EXPECT(w.fsm.home == 1);
	happens(&w, HOME_IN_UP, 3);
	a_round(&w, 3, (uint32_t[]){ 50 * MS, 20 * MS, 5 * MS });
	a_round(&w, 3, (uint32_t[]){ 50 * MS, 20 * MS, 5 * MS });
	EXPECT(w.fsm.home == 3);
}

static void test_home_moves_for_latency_at_most_once_in_five_minutes(void)
{
	struct world w;
	given_home_is_1_of_3(&w);

	happens(&w, HOME_IN_UP, 2);
	for (int i = 0; i < 3; i++)
		a_round(&w, 3, (uint32_t[]){ 90 * MS, 50 * MS, 0 });
	EXPECT(w.fsm.home == 1); /* the first 50 ms are still in the window */
	for (int i = 0; i < 5; i++) {
		happens(&w, HOME_IN_UP, 2); /* it was dropped while it was no challenger */
		a_round(&w, 3, (uint32_t[]){ 90 * MS, 50 * MS, 0 });
	}
	EXPECT(w.fsm.home == 2);
	uint64_t moved_ms = w.fsm.moved_ms;
	for (int i = 0; w.fsm.home == 2; i++) {
		EXPECT(i < 100);
		happens(&w, HOME_IN_UP, 3);
		a_round(&w, 3, (uint32_t[]){ 0, 50 * MS, 10 * MS });
	}
	EXPECT(w.fsm.home == 3 && w.fsm.moved_ms >= moved_ms + HOME_KEEP_MS);
}

static void test_a_dead_home_is_left_at_once(void)
{
	struct world w;
	given_home_is_1_of_3(&w);

	measured(&w, 2, 90 * MS);
	measured(&w, 3, 70 * MS);
	happens(&w, HOME_IN_DOWN, 1);
	EXPECT(w.last.home_changed && w.last.home == 3);
	w.now_ms += 10;
	happens(&w, HOME_IN_DOWN, 3);
	EXPECT(w.last.home == 2);

	expect_text(w.trace, "[  1000] settled: lost -> settled\n"
			     "[  1010] settled: lost -> settled\n");
	expect_text(w.orders, "[  1000] hold 3\n"
			      "[  1010] hold 2\n");
}

static void test_when_all_are_dead_home_stays_until_one_is_up(void)
{
	struct world w;
	begin(&w);

	relays(&w, 1, one);
	happens(&w, HOME_IN_DOWN, 1);
	EXPECT(w.last.home == 1 && !w.last.home_changed);
	happens(&w, HOME_IN_DOWN, 1);
	w.now_ms = 5000;
	happens(&w, HOME_IN_UP, 1);
	EXPECT(w.last.home == 1 && !w.last.home_changed);

	expect_text(w.trace, "[  1000] none: sole -> settled\n"
			     "[  1000] settled: stranded -> stranded\n"
			     "[  1000] stranded: stranded -> (ignored)\n"
			     "[  5000] stranded: up -> settled\n");
}

static void test_a_new_relay_rescues_the_stranded(void)
{
	struct world w;
	begin(&w);

	relays(&w, 1, one);
	happens(&w, HOME_IN_DOWN, 1);
	relays(&w, 2, two);
	EXPECT(w.last.home == 2);
	expect_text(w.orders, "[  1000] hold 1\n"
			      "[  1000] hold 2\n");
}

static void test_a_home_that_leaves_the_map_is_left_and_dropped(void)
{
	struct world w;
	given_home_is_1_of_3(&w);

	relays(&w, 2, (uint32_t[]){ 2, 3 });
	EXPECT(w.last.home == 2);
	expect_text(w.orders, "[  1000] drop 1\n"
			      "[  1000] hold 2\n");
	relays(&w, 0, NULL);
	EXPECT(w.last.home == 0 && w.last.home_changed && w.fsm.deadline_ms == 0);
	expect_text(w.orders, "[  1000] drop 2\n");
}

static void test_other_relays_are_held_while_they_are_used(void)
{
	struct world w;
	given_home_is_1_of_3(&w);

	happens(&w, HOME_IN_USED, 3);
	until(&w, 40000);
	happens(&w, HOME_IN_USED, 3);
	until(&w, 99999);
	expect_text(w.orders, "[  1000] hold 3\n");
	until(&w, 100000);
	expect_text(w.orders, "[100000] drop 3\n");
	happens(&w, HOME_IN_USED, 1); /* home */
	happens(&w, HOME_IN_USED, 9); /* not in the map */
	expect_text(w.orders, "");
}

static void test_no_more_are_held_than_there_is_room_for(void)
{
	struct world w;
	uint32_t ids[64], n_held = 0;
	begin(&w);

	for (uint32_t i = 0; i < 64; i++)
		ids[i] = i + 1;
	relays(&w, 64, ids);
	measured(&w, 1, 1 * MS);
	for (uint32_t i = 2; i <= 64; i++) {
		until(&w, w.now_ms + 1000);
		happens(&w, HOME_IN_USED, i);
		w.orders[0] = '\0';
	}
	for (uint32_t i = 0; i < 64; i++)
		n_held += w.fsm.relays[i].is_held;
	EXPECT(n_held == HOME_MAX_HELD);
	EXPECT(w.fsm.relays[0].is_held && w.fsm.relays[63].is_held); /* home, and the last used */
}

static void test_those_in_use_are_held_however_many_they_are(void)
{
	struct world w;
	uint32_t ids[64], n_held = 0;
	begin(&w);

	for (uint32_t i = 0; i < 64; i++)
		ids[i] = i + 1;
	relays(&w, 64, ids);
	measured(&w, 1, 1 * MS);
	w.orders[0] = '\0';
	for (int round = 0; round < 3; round++) /* none pushes another out, which would come back and push out the next */
		for (uint32_t i = 2; i <= 40; i++)
			happens(&w, HOME_IN_USED, i);
	for (uint32_t i = 0; i < 64; i++)
		n_held += w.fsm.relays[i].is_held;
	EXPECT(n_held == 40 && !strstr(w.orders, "drop"));
	w.orders[0] = '\0';
	until(&w, w.now_ms + HOME_IDLE_MS);
	EXPECT(w.fsm.relays[0].is_held && !w.fsm.relays[1].is_held && !w.fsm.relays[39].is_held);
}

static void test_any_sequence_keeps_the_invariant(void)
{
	for (unsigned seed = 1; seed <= 300; seed++) {
		struct world w;
		begin(&w);
		w.fsm.trace = NULL;
		srand(seed);
		for (int i = 0; i < 500; i++) {
			uint32_t id = (uint32_t)rand() % 5 + 1;
			until(&w, w.now_ms + (uint64_t)rand() % 3000);
			w.orders[0] = '\0';
			switch (rand() % 6) {
			case 0:
				relays(&w, (uint32_t)rand() % 4, (const uint32_t[]){ 1 + id % 2, 3, 4, 5 });
				break;
			case 1:
				happens(&w, HOME_IN_UP, id);
				break;
			case 2:
				happens(&w, HOME_IN_DOWN, id);
				break;
			case 3:
				happens(&w, HOME_IN_USED, id);
				break;
			default:
				measured(&w, id, (uint32_t)rand() % (100 * MS));
			}
			w.orders[0] = '\0';
		}
	}
}

/* The drawing in docs/fsm, made from the table. */
static void print_dot(FILE *file)
{
	uint32_t n;
	const struct home_arrow *arrows = home_fsm_arrows(&n);

	fputs("digraph home_fsm {\n", file);
	for (const struct home_arrow *a = arrows; a < arrows + n; a++)
		fprintf(file, "\t\"%s\" -> \"%s\" [label=\"%s / %s\"];\n",
			a->from == HOME_N_STATES ? "any" : home_state_name(a->from), home_state_name(a->to),
			home_event_name(a->on), a->deed);
	fputs("}\n", file);
}

static void test_the_table_is_the_documented_diagram(const char *path)
{
	char documented[8192] = "", *made = NULL;
	size_t made_len = 0;
	FILE *file = fopen(path, "r"), *memory = open_memstream(&made, &made_len);

	EXPECT(memory != NULL);
	print_dot(memory);
	fclose(memory);
	if (file) {
		size_t n = fread(documented, 1, sizeof(documented) - 1, file);
		documented[n] = '\0';
		fclose(file);
	}
	if (strcmp(made, documented) != 0)
		fprintf(stderr, "%s should be:\n%s", path, made);
	EXPECT(strcmp(made, documented) == 0);
	free(made);
}

int main(int argc, char **argv)
{
	test_a_sole_relay_is_home_at_once();
	test_of_several_the_first_that_answers_is_home();
	test_without_any_answer_the_choice_is_not_put_off();
	test_a_wrong_guess_is_corrected_in_the_first_round_only();
	test_a_connection_of_an_earlier_life_is_home_again();
	test_home_moves_when_another_was_clearly_nearer_in_three_rounds();
	test_home_does_not_move_to_a_relay_that_takes_nobody();
	test_one_spike_does_not_move_home();
	test_a_little_nearer_is_not_enough();
	test_the_rounds_must_follow_each_other();
	test_another_challenger_begins_anew();
	test_home_moves_for_latency_at_most_once_in_five_minutes();
	test_a_dead_home_is_left_at_once();
	test_when_all_are_dead_home_stays_until_one_is_up();
	test_a_new_relay_rescues_the_stranded();
	test_a_home_that_leaves_the_map_is_left_and_dropped();
	test_other_relays_are_held_while_they_are_used();
	test_no_more_are_held_than_there_is_room_for();
	test_those_in_use_are_held_however_many_they_are();
	test_any_sequence_keeps_the_invariant();
	if (argc > 1)
		test_the_table_is_the_documented_diagram(argv[1]);
	puts("ok");
	return 0;
}
