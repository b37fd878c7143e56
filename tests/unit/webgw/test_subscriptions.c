/* Whose visitor it is: agents of one host share them, and nobody takes another's place. */
#include "relay/webgw/subscriptions.h"

#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <string.h>

static const uint8_t right[WEBGW_HASH_LEN] = { 1, 2, 3 }, wrong[WEBGW_HASH_LEN] = { 1, 2, 4 };
static int alice, bob;

static struct host_pattern pattern_of(const char *text)
{
	struct host_pattern pattern;

	assert(host_pattern_from(text, strlen(text), &pattern) == 0);
	return pattern;
}

static struct subscriptions *new_table(const char *host)
{
	struct subscriptions *table = subscriptions_new();
	const struct host_pattern pattern = pattern_of(host);

	assert(subscriptions_add_host(table, &pattern, right) == 0);
	return table;
}

static struct subscriptions *new_table_in_turn(const char *host)
{
	struct subscriptions *table = new_table(host);
	const struct host_pattern pattern = pattern_of(host);

	assert(subscriptions_set_balance(table, &pattern, WEBGW_ROUND_ROBIN));
	return table;
}

static int64_t enter(struct subscriptions *table, const char *host, void *owner)
{
	const struct host_pattern pattern = pattern_of(host);
	int64_t id = 0;

	assert(subscriptions_register(table, &pattern, right, owner, &id) == 0 && id > 0);
	return id;
}

static void *pick(struct subscriptions *table, const char *host, uint64_t now_ms, int64_t *ret_id)
{
	struct host_name name;

	assert(host_name_from(host, strlen(host), &name) == 0);
	void *owner = subscriptions_pick(table, &name, SUBSCRIPTIONS_HEALTHY, now_ms, ret_id);
	if (!owner)
		owner = subscriptions_pick(table, &name, SUBSCRIPTIONS_RESTING, now_ms, ret_id);
	if (owner)
		subscriptions_told(table, *ret_id, now_ms);
	return owner;
}

static void test_who_knows_the_secret_of_a_known_host_subscribes(void)
{
	struct subscriptions *table = new_table("a.example");
	const struct host_pattern host = pattern_of("A.Example."), other = pattern_of("b.example"), none = { 0 };
	int64_t id;

	assert(subscriptions_register(table, &host, wrong, &alice, &id) == SUBSCRIPTIONS_WRONG_SECRET);
	assert(subscriptions_register(table, &other, right, &alice, &id) == SUBSCRIPTIONS_UNKNOWN_HOST);
	assert(subscriptions_register(table, &none, right, &alice, &id) == SUBSCRIPTIONS_UNKNOWN_HOST);
	assert(!pick(table, "a.example", 0, &id));
	assert(subscriptions_register(table, &host, right, &alice, &id) == 0 && subscriptions_count(table, &host) == 1);
	subscriptions_free(table);
}

/* In the original the last one silently took all. */
static void test_agents_of_a_host_share_its_visitors_in_turn(void)
{
	struct subscriptions *table = new_table("a.example");
	int64_t id;

	const int64_t first = enter(table, "a.example", &alice), second = enter(table, "a.example", &bob);
	assert(first != second);
	for (int i = 0; i < 10; i++) {
		assert(pick(table, "a.example", 0, &id) == &alice && id == first);
		assert(pick(table, "a.example", 0, &id) == &bob && id == second);
	}
	subscriptions_free(table);
}

/* In the original a dead agent stayed until another took its place. */
static void test_who_has_gone_is_told_of_nobody(void)
{
	struct subscriptions *table = new_table("a.example");
	int64_t id;

	const int64_t first = enter(table, "a.example", &alice);
	(void)enter(table, "a.example", &bob);
	assert(!subscriptions_unregister(table, &bob, first)); /* not its own */
	subscriptions_drop_owner(table, &bob);
	for (int i = 0; i < 3; i++)
		assert(pick(table, "a.example", 0, &id) == &alice);
	assert(subscriptions_unregister(table, &alice, first) && !subscriptions_unregister(table, &alice, first));
	assert(!pick(table, "a.example", 0, &id));
	subscriptions_over(table, first, SUBSCRIPTIONS_DIALLED, 0); /* of one that is gone */
	subscriptions_free(table);
}

static void test_so_many_visitors_wait_for_one_agent_at_most(void)
{
	struct subscriptions *table = new_table("a.example");
	int64_t id, first = enter(table, "a.example", &alice);

	for (int i = 0; i < SUBSCRIPTIONS_MAX_PENDING; i++)
		assert(pick(table, "a.example", 0, &id) == &alice);
	assert(!pick(table, "a.example", 0, &id));
	subscriptions_over(table, first, SUBSCRIPTIONS_LEFT, 0);
	assert(pick(table, "a.example", 0, &id) && !pick(table, "a.example", 0, &id));
	(void)enter(table, "a.example", &bob); /* has room */
	assert(pick(table, "a.example", 0, &id) == &bob);
	subscriptions_free(table);
}

static void test_who_does_not_dial_back_rests_unless_there_is_nobody_else(void)
{
	struct subscriptions *table = new_table_in_turn("a.example");
	int64_t id, silent = enter(table, "a.example", &alice);

	for (int i = 0; i < SUBSCRIPTIONS_DOUBT; i++) {
		assert(pick(table, "a.example", 0, &id) == &alice);
		subscriptions_over(table, silent, SUBSCRIPTIONS_IN_VAIN, 5000);
	}
	assert(pick(table, "a.example", 5000, &id) == &alice); /* nobody else */
	(void)enter(table, "a.example", &bob);
	for (int i = 0; i < 4; i++)
		assert(pick(table, "a.example", 5001, &id) == &bob);
	assert(pick(table, "a.example", 5000 + SUBSCRIPTIONS_REST_MS, &id) == &alice);
	subscriptions_over(table, silent, SUBSCRIPTIONS_DIALLED, 5001);
	assert(pick(table, "a.example", 5001, &id) == &bob && pick(table, "a.example", 5001, &id) == &alice);
	subscriptions_free(table);
}

static void test_a_visitor_who_leaves_says_nothing_about_the_agent(void)
{
	struct subscriptions *table = new_table("a.example");
	int64_t id, first = enter(table, "a.example", &alice);

	(void)enter(table, "a.example", &bob);
	for (int i = 0; i < 2 * SUBSCRIPTIONS_DOUBT; i++)
		assert(pick(table, "a.example", 0, &id));
	for (int i = 0; i < SUBSCRIPTIONS_DOUBT; i++)
		subscriptions_over(table, first, SUBSCRIPTIONS_LEFT, 0);
	assert(pick(table, "a.example", 0, &id) == &alice);
	subscriptions_free(table);
}

/* Anybody may send an agent more visitors than it can serve in time; it is alive all the same. */
static void test_who_is_late_for_some_and_dials_back_for_others_is_healthy(void)
{
	struct subscriptions *table = new_table("a.example");
	int64_t id, busy = enter(table, "a.example", &alice);
	const uint64_t now_ms = 100000;

	(void)enter(table, "a.example", &bob);
	for (int i = 0; i < 400; i++)
		assert(pick(table, "a.example", now_ms, &id));
	subscriptions_over(table, busy, SUBSCRIPTIONS_DIALLED, now_ms);
	for (int i = 0; i < 150; i++)
		subscriptions_over(table, busy, SUBSCRIPTIONS_IN_VAIN, now_ms + SUBSCRIPTIONS_SIGN_MS - 1);
	assert(pick(table, "a.example", now_ms + SUBSCRIPTIONS_SIGN_MS - 1, &id) == &alice);
	for (int i = 0; i < SUBSCRIPTIONS_DOUBT; i++) /* but not for ever */
		subscriptions_over(table, busy, SUBSCRIPTIONS_IN_VAIN, now_ms + SUBSCRIPTIONS_SIGN_MS);
	for (int i = 0; i < 4; i++)
		assert(pick(table, "a.example", now_ms + SUBSCRIPTIONS_SIGN_MS, &id) == &bob);
	subscriptions_free(table);
}

/* Else each return costs as many visitors as come until the first of them has waited in vain. */
static void test_who_returns_from_rest_is_tried_with_one_visitor(void)
{
	struct subscriptions *table = new_table_in_turn("a.example");
	int64_t id, dead = enter(table, "a.example", &alice);
	uint64_t now_ms = 5000;

	for (int i = 0; i < SUBSCRIPTIONS_DOUBT; i++) {
		assert(pick(table, "a.example", now_ms, &id) == &alice);
		subscriptions_over(table, dead, SUBSCRIPTIONS_IN_VAIN, now_ms);
	}
	(void)enter(table, "a.example", &bob);
	for (int round = 0; round < 3; round++) {
		int n = 0;
		now_ms += SUBSCRIPTIONS_REST_MS;
		for (int i = 0; i < 10; i++)
			n += pick(table, "a.example", now_ms, &id) == &alice;
		assert(n == 1);
	}
	subscriptions_over(table, dead, SUBSCRIPTIONS_DIALLED, now_ms); /* of one of them: it is back */
	int n = 0;
	for (int i = 0; i < 10; i++)
		n += pick(table, "a.example", now_ms, &id) == &alice;
	assert(n == 5);
	subscriptions_free(table);
}

static void test_who_was_not_told_loses_neither_its_trial_nor_a_place(void)
{
	struct subscriptions *table = new_table("a.example");
	struct host_name name;
	int64_t id, back = enter(table, "a.example", &alice);

	assert(host_name_from("a.example", strlen("a.example"), &name) == 0);
	for (int i = 0; i < SUBSCRIPTIONS_DOUBT; i++) {
		assert(pick(table, "a.example", 0, &id) == &alice);
		subscriptions_over(table, back, SUBSCRIPTIONS_IN_VAIN, 0);
	}
	assert(!subscriptions_pick(table, &name, SUBSCRIPTIONS_HEALTHY, 0, &id));
	assert(subscriptions_pick(table, &name, SUBSCRIPTIONS_RESTING, 0, &id) == &alice);
	for (int i = 0; i < 2 * SUBSCRIPTIONS_MAX_PENDING; i++)
		assert(subscriptions_pick(table, &name, SUBSCRIPTIONS_HEALTHY, SUBSCRIPTIONS_REST_MS, &id) == &alice);
	assert(!subscriptions_pick(table, &name, SUBSCRIPTIONS_RESTING, SUBSCRIPTIONS_REST_MS, &id));
	subscriptions_told(table, id, SUBSCRIPTIONS_REST_MS);
	assert(!subscriptions_pick(table, &name, SUBSCRIPTIONS_HEALTHY, SUBSCRIPTIONS_REST_MS, &id));
	subscriptions_told(table, id + 1, 0); /* of nobody */
	subscriptions_free(table);
}

/* Told of by round robin's turns: the visitors of who has no target, and of who has one. */
static int n_told_of(struct subscriptions *table, const void *owner, int n, uint64_t now_ms)
{
	int64_t id;
	int n_told = 0;

	for (int i = 0; i < n; i++) {
		n_told += pick(table, "a.example", now_ms, &id) == owner;
		subscriptions_over(table, id, SUBSCRIPTIONS_DIALLED, now_ms);
	}
	return n_told;
}

/* That it dials back is no sign of a target: who fails at once has the fewest, and would have them all. */
static void test_who_ends_visitors_without_a_byte_rests_until_one_is_answered(void)
{
	struct subscriptions *table = new_table_in_turn("a.example");
	struct agent_tally *dead = subscriptions_tally(table, enter(table, "a.example", &alice));

	assert(n_told_of(table, &alice, 2 * SUBSCRIPTIONS_DOUBT, 0) == 2 * SUBSCRIPTIONS_DOUBT);
	(void)enter(table, "a.example", &bob);
	atomic_fetch_add(&dead->unanswered, SUBSCRIPTIONS_DOUBT - 1);
	assert(n_told_of(table, &alice, 4, 0) == 2);
	atomic_fetch_add(&dead->unanswered, 1);
	assert(n_told_of(table, &alice, 10, 1) == 0);
	for (uint64_t now_ms = 1 + SUBSCRIPTIONS_REST_MS; now_ms < 50000; now_ms += SUBSCRIPTIONS_REST_MS) {
		assert(n_told_of(table, &alice, 10, now_ms) == 1); /* on trial */
		atomic_fetch_add(&dead->unanswered, 1);
		assert(n_told_of(table, &alice, 10, now_ms) == 0);
	}
	atomic_fetch_add(&dead->answered, 1);
	assert(n_told_of(table, &alice, 10, 50000) == 5);
	subscriptions_free(table);
}

/* Whoever finds a request that a target ends without a byte may send many of them. */
static void test_who_answers_others_is_not_brought_into_doubt(void)
{
	struct subscriptions *table = new_table_in_turn("a.example");
	struct agent_tally *abused = subscriptions_tally(table, enter(table, "a.example", &alice));
	uint64_t now_ms = 100000;

	(void)enter(table, "a.example", &bob);
	atomic_fetch_add(&abused->answered, 1);
	assert(n_told_of(table, &alice, 2, now_ms) == 1);
	for (; now_ms < 100000 + SUBSCRIPTIONS_SIGN_MS; now_ms += 10) {
		atomic_fetch_add(&abused->unanswered, 100);
		assert(n_told_of(table, &alice, 2, now_ms) == 1);
	}
	atomic_fetch_add(&abused->unanswered, SUBSCRIPTIONS_DOUBT); /* but not for ever */
	assert(n_told_of(table, &alice, 2, now_ms) == 0);
	atomic_fetch_add(&abused->answered, 1); /* together: whichever was the last */
	atomic_fetch_add(&abused->unanswered, 100);
	assert(n_told_of(table, &alice, 2, now_ms) == 1);
	subscriptions_free(table);
}

static void test_where_nobody_answers_all_are_told(void)
{
	struct subscriptions *table = new_table_in_turn("a.example");
	struct agent_tally *tallies[] = { subscriptions_tally(table, enter(table, "a.example", &alice)),
					  subscriptions_tally(table, enter(table, "a.example", &bob)) };

	for (int i = 0; i < 2; i++)
		atomic_fetch_add(&tallies[i]->unanswered, 1000);
	assert(n_told_of(table, &alice, 10, 0) == 5);
	atomic_fetch_add(&tallies[0]->answered, 1); /* the first that was answered is at once the one for all */
	assert(n_told_of(table, &alice, 10, 0) == 10);
	subscriptions_free(table);
}

/* Of both doubts each has its own end. */
static void test_who_is_silent_is_not_forgiven_for_an_old_visitors_answer(void)
{
	struct subscriptions *table = new_table_in_turn("a.example");
	int64_t id, silent = enter(table, "a.example", &alice);

	for (int i = 0; i < SUBSCRIPTIONS_DOUBT; i++) {
		assert(pick(table, "a.example", 0, &id) == &alice);
		subscriptions_over(table, silent, SUBSCRIPTIONS_IN_VAIN, 0);
	}
	(void)enter(table, "a.example", &bob);
	atomic_fetch_add(&subscriptions_tally(table, silent)->answered, 1);
	assert(n_told_of(table, &alice, 10, 1) == 0);
	subscriptions_free(table);
}

static void test_what_was_counted_of_another_is_nothing_to_who_has_its_place(void)
{
	struct subscriptions *table = new_table_in_turn("a.example");
	struct agent_tally *tally = subscriptions_tally(table, enter(table, "a.example", &alice));

	atomic_fetch_add(&tally->unanswered, SUBSCRIPTIONS_DOUBT);
	subscriptions_drop_owner(table, &alice);
	(void)enter(table, "a.example", &bob);
	for (;;) { /* until the place comes round */
		if (subscriptions_tally(table, enter(table, "a.example", &alice)) == tally)
			break;
		subscriptions_drop_owner(table, &alice);
	}
	assert(n_told_of(table, &alice, 10, 0) == 5);
	atomic_fetch_add(&tally->unanswered, 1);
	struct subscription_facts facts[2];
	assert(subscriptions_of_host(table, 0, 0, facts, 2) == 2);
	assert(facts[0].n_unanswered + facts[1].n_unanswered == 1);
	subscriptions_free(table);
}

/* Whoever is in the middle of many long ones is not given as many again. */
static void test_the_next_visitor_is_for_who_has_the_fewest(void)
{
	struct subscriptions *table = new_table("a.example");
	const struct host_pattern host = pattern_of("a.example");
	int64_t id;

	const int64_t first = enter(table, "a.example", &alice), second = enter(table, "a.example", &bob);
	atomic_fetch_add(&subscriptions_tally(table, first)->open, 2);
	assert(pick(table, "a.example", 0, &id) == &bob && pick(table, "a.example", 0, &id) == &bob);
	assert(pick(table, "a.example", 0, &id) == &alice); /* as many: it is her turn */
	subscriptions_over(table, second, SUBSCRIPTIONS_LEFT, 0);
	assert(pick(table, "a.example", 0, &id) == &bob);
	assert(subscriptions_set_balance(table, &host, WEBGW_ROUND_ROBIN));
	atomic_fetch_add(&subscriptions_tally(table, first)->open, 100);
	for (int i = 0; i < 4; i++)
		assert(pick(table, "a.example", 0, &id) == (i % 2 == 0 ? &alice : &bob));
	assert(!subscriptions_tally(table, first + second));
	subscriptions_free(table);
}

static void test_who_cannot_be_told_is_passed_over_for_this_visitor(void)
{
	struct subscriptions *table = new_table("a.example");
	int64_t id;

	const int64_t first = enter(table, "a.example", &alice);
	atomic_fetch_add(&subscriptions_tally(table, enter(table, "a.example", &bob))->open, 9);
	subscriptions_begin(table);
	assert(pick(table, "a.example", 0, &id) == &alice && id == first);
	subscriptions_pass_over(table, first);
	assert(pick(table, "a.example", 0, &id) == &bob);
	subscriptions_begin(table);
	assert(pick(table, "a.example", 0, &id) == &alice);
	subscriptions_free(table);
}

/* What is left of who has gone is counted where no other counts, for a long time. */
static void test_a_place_is_not_somebody_elses_soon(void)
{
	struct subscriptions *table = new_table("a.example");

	struct agent_tally *const left = subscriptions_tally(table, enter(table, "a.example", &alice));
	for (int i = 0; i < SUBSCRIPTIONS_MAX - 1; i++) {
		subscriptions_drop_owner(table, i % 2 == 0 ? &alice : &bob);
		assert(subscriptions_tally(table, enter(table, "a.example", i % 2 == 0 ? &bob : &alice)) != left);
	}
	subscriptions_free(table);
}

static void test_who_subscribes_twice_has_one_turn(void)
{
	struct subscriptions *table = new_table("a.example");
	const struct host_pattern host = pattern_of("a.example");
	int64_t id;

	const int64_t first = enter(table, "a.example", &alice);
	assert(enter(table, "a.example", &alice) == first && subscriptions_count(table, &host) == 1);
	(void)enter(table, "a.example", &bob);
	for (int i = 0; i < 4; i++)
		assert(pick(table, "a.example", 0, &id) == (i % 2 == 0 ? &alice : &bob));
	subscriptions_free(table);
}

/* In the original to give the same host again orphaned what was there. */
static void test_a_host_given_again_is_the_same(void)
{
	struct subscriptions *table = new_table("a.example");
	const struct host_pattern host = pattern_of("a.example");
	int64_t id;

	(void)enter(table, "a.example", &alice);
	assert(subscriptions_add_host(table, &host, right) == 0 && subscriptions_add_host(table, &host, wrong) == -EEXIST);
	assert(pick(table, "a.example", 0, &id) == &alice);
	assert(subscriptions_remove_host(table, &host) && !subscriptions_remove_host(table, &host));
	assert(!pick(table, "a.example", 0, &id) && subscriptions_count(table, &host) == 0);
	assert(!subscriptions_unregister(table, &alice, id));
	subscriptions_free(table);
}

static void test_a_wildcard_has_a_secret_of_its_own(void)
{
	struct subscriptions *table = new_table("*.example");
	const struct host_pattern exact = pattern_of("a.example");
	int64_t id;

	(void)enter(table, "*.example", &alice);
	assert(subscriptions_register(table, &exact, right, &bob, &id) == SUBSCRIPTIONS_UNKNOWN_HOST);
	assert(pick(table, "a.example", 0, &id) == &alice && !pick(table, "b.a.example", 0, &id));
	subscriptions_free(table);
}

static void test_a_host_has_so_many_agents_at_most(void)
{
	struct subscriptions *table = new_table("a.example");
	const struct host_pattern host = pattern_of("a.example");
	int64_t id;

	char agents[SUBSCRIPTIONS_MAX_OF_HOST];
	for (int i = 0; i < SUBSCRIPTIONS_MAX_OF_HOST; i++)
		(void)enter(table, "a.example", &agents[i]);
	assert(subscriptions_register(table, &host, right, &bob, &id) == SUBSCRIPTIONS_FULL);
	assert(subscriptions_register(table, &host, right, &agents[7], &id) == 0); /* it is there */
	subscriptions_drop_owner(table, &agents[0]);
	(void)enter(table, "a.example", &bob);
	subscriptions_free(table);
}

int main(void)
{
	assert(sodium_init() >= 0);
	test_who_knows_the_secret_of_a_known_host_subscribes();
	test_agents_of_a_host_share_its_visitors_in_turn();
	test_who_has_gone_is_told_of_nobody();
	test_so_many_visitors_wait_for_one_agent_at_most();
	test_who_does_not_dial_back_rests_unless_there_is_nobody_else();
	test_a_visitor_who_leaves_says_nothing_about_the_agent();
	test_who_is_late_for_some_and_dials_back_for_others_is_healthy();
	test_who_returns_from_rest_is_tried_with_one_visitor();
	test_who_was_not_told_loses_neither_its_trial_nor_a_place();
	test_who_ends_visitors_without_a_byte_rests_until_one_is_answered();
	test_who_answers_others_is_not_brought_into_doubt();
	test_where_nobody_answers_all_are_told();
	test_who_is_silent_is_not_forgiven_for_an_old_visitors_answer();
	test_what_was_counted_of_another_is_nothing_to_who_has_its_place();
	test_the_next_visitor_is_for_who_has_the_fewest();
	test_who_cannot_be_told_is_passed_over_for_this_visitor();
	test_a_place_is_not_somebody_elses_soon();
	test_who_subscribes_twice_has_one_turn();
	test_a_host_given_again_is_the_same();
	test_a_wildcard_has_a_secret_of_its_own();
	test_a_host_has_so_many_agents_at_most();
	return 0;
}
