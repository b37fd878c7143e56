/* Who is let through to a host, how many a second, and what is remembered of it. */
#include "relay/frontdoor/door_gate.h"

#include <assert.h>
#include <sodium.h>
#include <string.h>

#define NOW_MS 1000000u

struct guarded {
	struct door_gate gate;
	struct endpoint friend;
	bool *is_freed;
};

static struct endpoint address(uint32_t last)
{
	return endpoint_from_v4(0xc0000200 | last, 1234); /* 192.0.2.last */
}

static bool allows_friend(const struct door_gate *gate, const struct endpoint *visitor)
{
	const struct guarded *guarded = container_of(gate, const struct guarded, gate);

	return memcmp(visitor->ip, guarded->friend.ip, sizeof(visitor->ip)) == 0;
}

static void on_free(struct door_gate *gate)
{
	bool *is_freed = container_of(gate, struct guarded, gate)->is_freed;

	if (is_freed)
		*is_freed = true;
}

static void begin(struct guarded *guarded)
{
	guarded->gate.free = on_free;
	door_gate_init(&guarded->gate);
}

static enum door_gate_answer ask(struct guarded *guarded, uint32_t last, uint64_t now_ms)
{
	const struct endpoint visitor = address(last);

	return door_gate_ask(&guarded->gate, &visitor, false, now_ms);
}

static uint32_t count_open(struct guarded *guarded, uint32_t last, uint32_t n, uint64_t now_ms)
{
	uint32_t n_open = 0;

	for (uint32_t i = 0; i < n; i++)
		n_open += ask(guarded, last, now_ms) == DOOR_GATE_OPEN;
	return n_open;
}

static void test_without_limits_everybody_may_come(void)
{
	struct guarded guarded = { .is_freed = NULL };

	begin(&guarded);
	assert(count_open(&guarded, 1, 10000, NOW_MS) == 10000);
	door_gate_let_go(&guarded.gate);
}

static void test_who_is_not_allowed_is_refused_and_counted(void)
{
	struct guarded guarded = { .gate.allows = allows_friend, .friend = address(7) };

	begin(&guarded);
	assert(ask(&guarded, 7, NOW_MS) == DOOR_GATE_OPEN);
	assert(ask(&guarded, 8, NOW_MS) == DOOR_GATE_NOT_ALLOWED);
	assert(door_gate_counters(&guarded.gate).refused[DOOR_GATE_NOT_ALLOWED] == 1);
	door_gate_let_go(&guarded.gate);
}

static void test_two_seconds_worth_may_come_at_once_and_then_so_many_a_second(void)
{
	struct guarded guarded = { .gate.rate = 10 };

	begin(&guarded);
	assert(count_open(&guarded, 1, 100, NOW_MS) == 20);
	assert(ask(&guarded, 2, NOW_MS) == DOOR_GATE_OVER_RATE); /* the rate is of all */
	assert(count_open(&guarded, 1, 100, NOW_MS + 99) == 0);
	assert(count_open(&guarded, 1, 100, NOW_MS + 100) == 1);
	assert(count_open(&guarded, 1, 100, NOW_MS + 1100) == 10);
	assert(count_open(&guarded, 1, 100, NOW_MS + 3600000) == 20);
	assert(door_gate_counters(&guarded.gate).refused[DOOR_GATE_OVER_RATE] == 80 + 1 + 100 + 99 + 90 + 80);
	door_gate_let_go(&guarded.gate);
}

static void test_a_high_rate_is_exact_as_well(void)
{
	struct guarded guarded = { .gate.rate = 1000000 };

	begin(&guarded);
	assert(count_open(&guarded, 1, 2100000, NOW_MS) == 2000000);
	assert(count_open(&guarded, 1, 2100, NOW_MS + 1) == 1000);
	door_gate_let_go(&guarded.gate);
}

static void test_one_source_has_its_own_rate_and_takes_nothing_from_others_beyond_it(void)
{
	struct guarded guarded = { .gate = { .rate = 10, .rate_source = 2 } };

	begin(&guarded);
	assert(count_open(&guarded, 1, 1000, NOW_MS) == 4);
	assert(ask(&guarded, 1, NOW_MS) == DOOR_GATE_OVER_SOURCE_RATE);
	assert(count_open(&guarded, 2, 1000, NOW_MS) == 4); /* a neighbour in the same /24 */
	assert(count_open(&guarded, 3, 4, NOW_MS) == 4);
	door_gate_let_go(&guarded.gate);
}

/* 2001:db8:0:SUBNET::LAST; of a /56 the last eight bits of SUBNET are its own. */
static struct endpoint address6(uint8_t network, uint8_t subnet, uint8_t last)
{
	return (struct endpoint){ .ip = { 0x20, 0x01, 0x0d, 0xb8, 0, 0, network, subnet, [15] = last }, .port = 1234 };
}

static void test_an_ipv6_56_is_one_source(void)
{
	struct guarded guarded = { .gate.rate_source = 2 };
	uint32_t n_open = 0;

	begin(&guarded);
	for (uint32_t i = 0; i < 1024; i++) {
		const struct endpoint visitor = address6(1, (uint8_t)(i / 4), (uint8_t)(i % 4));
		n_open += door_gate_ask(&guarded.gate, &visitor, false, NOW_MS) == DOOR_GATE_OPEN;
	}
	assert(n_open == 4);
	for (uint8_t i = 0; i < 8; i++) {
		const struct endpoint neighbour = address6((uint8_t)(2 + i), 0, 0);
		n_open += door_gate_ask(&guarded.gate, &neighbour, false, NOW_MS) == DOOR_GATE_OPEN;
	}
	assert(n_open >= 4 + 6); /* few share a bucket */
	door_gate_let_go(&guarded.gate);
}

static void test_it_counts_who_is_there_and_what_they_move(void)
{
	struct guarded guarded = { .is_freed = NULL };

	begin(&guarded);
	door_gate_enter(&guarded.gate);
	door_gate_enter(&guarded.gate);
	door_gate_moved(&guarded.gate, 3, 5);
	door_gate_moved(&guarded.gate, 30, 50);
	door_gate_leave(&guarded.gate);
	const struct door_gate_counters counters = door_gate_counters(&guarded.gate);
	assert(counters.visitors == 2 && counters.visitors_now == 1);
	assert(counters.bytes_in == 33 && counters.bytes_out == 55);
	door_gate_let_go(&guarded.gate);
}

static void test_the_target_is_as_it_was_when_tried_last(void)
{
	struct guarded guarded = { .is_freed = NULL };

	begin(&guarded);
	assert(door_gate_counters(&guarded.gate).state == DOOR_TARGET_UNKNOWN);
	door_gate_not_reached(&guarded.gate);
	assert(door_gate_counters(&guarded.gate).state == DOOR_TARGET_DOWN);
	assert(door_gate_counters(&guarded.gate).unreachable == 1);
	door_gate_reached(&guarded.gate);
	assert(door_gate_counters(&guarded.gate).state == DOOR_TARGET_UP);
	door_gate_set_state(&guarded.gate, DOOR_TARGET_DOWN); /* asked for, by nobody who came */
	assert(door_gate_counters(&guarded.gate).state == DOOR_TARGET_DOWN);
	assert(door_gate_counters(&guarded.gate).unreachable == 1);
	door_gate_let_go(&guarded.gate);
}

static void test_the_last_who_lets_go_frees_it(void)
{
	bool is_freed = false;
	struct guarded guarded = { .is_freed = &is_freed };

	begin(&guarded);
	assert(door_gate_hold(&guarded.gate) == &guarded.gate);
	door_gate_let_go(&guarded.gate);
	assert(!is_freed);
	door_gate_let_go(&guarded.gate);
	assert(is_freed);
	door_gate_let_go(NULL);
	assert(!door_gate_hold(NULL));
}

static void test_nobody_comes_through_one_that_is_shut(void)
{
	struct guarded guarded = { .is_freed = NULL };
	const struct endpoint visitor = endpoint_from_v4(0xc6336401, 4000);

	begin(&guarded);
	assert(!door_gate_is_shut(&guarded.gate) && door_gate_ask(&guarded.gate, &visitor, false, 0) == DOOR_GATE_OPEN);
	door_gate_shut(&guarded.gate);
	assert(door_gate_is_shut(&guarded.gate) && door_gate_ask(&guarded.gate, &visitor, false, 0) == DOOR_GATE_NOT_ALLOWED);
	door_gate_let_go(&guarded.gate);
}

int main(void)
{
	if (sodium_init() < 0)
		return 1;
	test_without_limits_everybody_may_come();
	test_who_is_not_allowed_is_refused_and_counted();
	test_two_seconds_worth_may_come_at_once_and_then_so_many_a_second();
	test_a_high_rate_is_exact_as_well();
	test_one_source_has_its_own_rate_and_takes_nothing_from_others_beyond_it();
	test_an_ipv6_56_is_one_source();
	test_it_counts_who_is_there_and_what_they_move();
	test_the_target_is_as_it_was_when_tried_last();
	test_the_last_who_lets_go_frees_it();
	test_nobody_comes_through_one_that_is_shut();
	return 0;
}
