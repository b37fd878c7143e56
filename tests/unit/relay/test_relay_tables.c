/*
 * What the relay looks things up in: clients by node key, and how often a source may ask.
 */
#include "relay/key_table.h"
#include "relay/reach_limit.h"
#include "common/rate_limit.h"
#include "common/source_limit.h"

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

static struct public_key key_of(uint32_t number)
{
	struct public_key key = { { 0 } };

	memcpy(key.bytes, &number, sizeof(number));
	return key;
}

static void test_who_was_replaced_does_not_remove_its_successor(void)
{
	struct key_table table;
	struct public_key key = key_of(1);
	int older, newer;
	key_table_init(&table);

	EXPECT(key_table_find(&table, &key) == NULL);
	EXPECT(key_table_put(&table, &key, &older) == NULL);
	EXPECT(key_table_put(&table, &key, &newer) == &older);
	key_table_remove(&table, &key, &older);
	EXPECT(key_table_find(&table, &key) == &newer);
	key_table_remove(&table, &key, &newer);
	EXPECT(key_table_find(&table, &key) == NULL && table.n == 0);
	key_table_remove(&table, &key, &newer);
	key_table_deinit(&table);
}

/* Against the plainest table there is: an array of what should be there. */
static void test_the_table_is_right_after_any_puts_and_removals(void)
{
	static bool is_there[1000];
	static char values[1000];
	struct key_table table;
	uint32_t n = 0;
	key_table_init(&table);

	srand(1);
	for (int i = 0; i < 50000; i++) {
		uint32_t number = (uint32_t)rand() % (i < 25000 ? 1000 : 300);
		struct public_key key = key_of(number);
		if (rand() % 2) {
			void *before = key_table_put(&table, &key, &values[number]);
			EXPECT((before != NULL) == is_there[number]);
			n += is_there[number] ? 0 : 1;
			is_there[number] = true;
		} else {
			key_table_remove(&table, &key, &values[number]);
			n -= is_there[number] ? 1 : 0;
			is_there[number] = false;
		}
		EXPECT(table.n == n);
		uint32_t other = (uint32_t)rand() % 1000;
		struct public_key other_key = key_of(other);
		EXPECT(key_table_find(&table, &other_key) == (is_there[other] ? &values[other] : NULL));
	}
	key_table_deinit(&table);
}

static unsigned taken(struct source_limit *limit, const char *ip, uint64_t now_ms)
{
	struct endpoint source;
	unsigned n = 0;

	EXPECT(endpoint_parse_ip(ip, 1, &source) == 0);
	while (n < 1000 && source_limit_take(limit, &source, now_ms))
		n++;
	return n;
}

static void test_a_prefix_shares_its_rate_and_others_have_their_own(void)
{
	static struct source_limit limit;
	source_limit_init(&limit, 10, 20);

	EXPECT(taken(&limit, "192.0.2.1", 5000) == 20);
	EXPECT(taken(&limit, "192.0.2.200", 5000) == 0);
	EXPECT(taken(&limit, "192.0.3.1", 5000) == 20);
	EXPECT(taken(&limit, "2001:db8:0:100::1", 5000) == 20);
	EXPECT(taken(&limit, "2001:db8:0:1ff::1", 5000) == 0);
	EXPECT(taken(&limit, "192.0.2.1", 5099) == 0);
	EXPECT(taken(&limit, "192.0.2.1", 5500) == 5);
	EXPECT(taken(&limit, "192.0.2.1", UINT64_MAX / 2) == 20);
}

static void test_what_is_given_back_is_that_sources_and_no_more_than_it_may_have_at_once(void)
{
	static struct source_limit limit;
	struct endpoint source;
	source_limit_init(&limit, 10, 20);

	EXPECT(endpoint_parse_ip("192.0.2.1", 1, &source) == 0);
	EXPECT(taken(&limit, "192.0.2.1", 5000) == 20 && taken(&limit, "192.0.3.1", 5000) == 20);
	source_limit_give_back(&limit, &source);
	source_limit_give_back(&limit, &source);
	EXPECT(taken(&limit, "192.0.3.1", 5000) == 0 && taken(&limit, "192.0.2.1", 5000) == 2);
	for (unsigned i = 0; i < 100; i++)
		source_limit_give_back(&limit, &source);
	EXPECT(taken(&limit, "192.0.2.1", 5000) == 20);
}

static uint64_t bits_taken(struct rate_limit *limit, size_t bytes, uint64_t now_ms)
{
	uint64_t n = 0;

	while (n < 1000000 && rate_limit_take(limit, bytes, now_ms))
		n++;
	return n * bytes * 8;
}

static void test_a_rate_lets_that_much_pass_and_a_tenth_of_a_second_at_once(void)
{
	struct rate_limit limit;
	uint64_t bits = 0;

	rate_limit_init(&limit, 100000000, 1000);
	EXPECT(bits_taken(&limit, 1250, 1000) == 10000000);
	for (uint64_t now_ms = 1001; now_ms <= 2000; now_ms++)
		bits += bits_taken(&limit, 1250, now_ms);
	EXPECT(bits == 100000000);
	EXPECT(bits_taken(&limit, 1250, UINT64_MAX / 2) == 10000000); /* a long pause is worth no more */
}

static void test_a_small_rate_lets_the_largest_packet_pass_now_and_then(void)
{
	struct rate_limit limit;

	rate_limit_init(&limit, 1000, 0);
	EXPECT(rate_limit_take(&limit, 65536, 0) && !rate_limit_take(&limit, 65536, 1000));
	EXPECT(rate_limit_take(&limit, 65536, 600000));
	rate_limit_init(&limit, 0, 0);
	EXPECT(rate_limit_take(&limit, SIZE_MAX, 0));
}

static void test_what_the_limit_of_all_refuses_is_not_charged_to_its_sender(void)
{
	struct rate_limit own, of_all, unlimited;

	rate_limit_init(&own, 100000000, 1000);
	rate_limit_init(&of_all, 80000000, 1000);
	rate_limit_init(&unlimited, 0, 1000);
	EXPECT(bits_taken(&of_all, 1000, 1000) == 8000000);
	for (int i = 0; i < 10000; i++)
		EXPECT(!rate_limit_take_both(&own, &of_all, 1250, 1000) &&
		       !rate_limit_take_both(&unlimited, &of_all, 1250, 1000));
	EXPECT(bits_taken(&own, 1250, 1000) == 10000000);
	EXPECT(rate_limit_take_both(&own, &of_all, 1250, 1001) && !rate_limit_take_both(&own, &unlimited, 125000, 1001));
}

static uint32_t reached(struct reach_limit *limit, uint32_t first, uint32_t n, uint64_t now_s)
{
	uint32_t n_reached = 0;

	for (uint32_t i = first; i < first + n; i++) {
		struct public_key key = key_of(i);
		n_reached += reach_limit_send(limit, &key, now_s) ? 1 : 0;
	}
	return n_reached;
}

static void hear(struct reach_limit *limit, uint32_t first, uint32_t n, uint64_t now_s)
{
	for (uint32_t i = first; i < first + n; i++) {
		struct public_key key = key_of(i);
		reach_limit_hear(limit, &key, now_s);
	}
}

static void test_so_many_nodes_may_be_sent_to_that_do_not_answer(void)
{
	struct reach_limit limit = { .seed = 7 };

	EXPECT(reached(&limit, 1, 10000, 100) == REACH_MAX_UNANSWERED);
	EXPECT(reached(&limit, 1, REACH_MAX_UNANSWERED, 130) == REACH_MAX_UNANSWERED); /* these again */
	EXPECT(reached(&limit, 20000, 100, 159) == 0);
	hear(&limit, 1, 10, 159);
	EXPECT(reached(&limit, 20000, 100, 159) == 10);
	EXPECT(reached(&limit, 30000, 10000, 160) == REACH_MAX_UNANSWERED - 10); /* the first have waited a minute */
	reach_limit_deinit(&limit);
}

static void test_nodes_that_answer_are_as_many_as_they_like(void)
{
	struct reach_limit limit = { .seed = 8 };

	for (uint32_t i = 1; i < 100000; i += 100) {
		EXPECT(reached(&limit, i, 100, i / 1000) == 100);
		hear(&limit, i, 100, i / 1000);
		EXPECT(limit.n_unanswered == 0 && limit.capacity <= 32768);
	}
	hear(&limit, 200000, 5000, 200);
	EXPECT(reached(&limit, 200000, 5000, 200) == 5000); /* whom it answers */
	reach_limit_deinit(&limit);
	EXPECT(limit.entries == NULL && reached(&limit, 1, 1, 0) == 1);
	reach_limit_deinit(&limit);
}

int main(void)
{
	EXPECT(sodium_init() >= 0);
	test_who_was_replaced_does_not_remove_its_successor();
	test_the_table_is_right_after_any_puts_and_removals();
	test_a_prefix_shares_its_rate_and_others_have_their_own();
	test_what_is_given_back_is_that_sources_and_no_more_than_it_may_have_at_once();
	test_a_rate_lets_that_much_pass_and_a_tenth_of_a_second_at_once();
	test_a_small_rate_lets_the_largest_packet_pass_now_and_then();
	test_what_the_limit_of_all_refuses_is_not_charged_to_its_sender();
	test_so_many_nodes_may_be_sent_to_that_do_not_answer();
	test_nodes_that_answer_are_as_many_as_they_like();
	puts("ok");
	return 0;
}
