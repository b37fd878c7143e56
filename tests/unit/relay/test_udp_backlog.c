/* What waits for a full socket: in order for each sender, in turn between them, and the longest queue pays. */
#include "relay/udp_backlog.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define LEN 1000

/* A datagram of the sender's with that number. */
static uint32_t put(struct udp_backlog *backlog, uint32_t sender, uint32_t number, size_t len)
{
	const struct udp_way to = { .socket = (uint16_t)sender };
	uint8_t bytes[UDP_BACKLOG_MAX_LEN + 1] = { 0 };

	memcpy(bytes, &sender, sizeof(sender));
	memcpy(bytes + sizeof(sender), &number, sizeof(number));
	return udp_backlog_put(backlog, sender, &to, bytes, len);
}

static const uint8_t *take(struct udp_backlog *backlog, uint32_t *ret_sender, uint32_t *ret_number)
{
	struct udp_way to;
	size_t len;
	const uint8_t *bytes = udp_backlog_take(backlog, &to, &len);

	if (!bytes)
		return NULL;
	assert(udp_backlog_has(backlog, bytes) && len <= UDP_BACKLOG_MAX_LEN);
	memcpy(ret_sender, bytes, sizeof(*ret_sender));
	memcpy(ret_number, bytes + sizeof(*ret_sender), sizeof(*ret_number));
	assert(to.socket == *ret_sender);
	return bytes;
}

static bool is_next(struct udp_backlog *backlog, uint32_t sender, uint32_t number)
{
	uint32_t got_sender, got_number;

	return take(backlog, &got_sender, &got_number) && got_sender == sender && got_number == number;
}

static void test_what_one_sender_sends_stays_in_order(void)
{
	struct udp_backlog *b = udp_backlog_new();
	assert(udp_backlog_is_empty(b));

	for (uint32_t i = 0; i < 100; i++)
		assert(put(b, 7, i, LEN) == 0);
	assert(!udp_backlog_is_empty(b));
	for (uint32_t i = 0; i < 100; i++)
		assert(is_next(b, 7, i));
	assert(udp_backlog_is_empty(b) && !is_next(b, 7, 100));
	udp_backlog_settle(b);
	udp_backlog_free(b);
}

/* By bytes: who sends small datagrams gets more of them through. */
static void test_senders_have_their_turns_by_bytes(void)
{
	struct udp_backlog *b = udp_backlog_new();
	uint32_t sender, number, n[3] = { 0 };

	for (uint32_t i = 0; i < 1000; i++) {
		put(b, 0, i, 2000);
		put(b, 1, i, 500);
		put(b, 2, i, 1000);
	}
	for (unsigned i = 0; i < 700; i++) {
		assert(take(b, &sender, &number) && number == n[sender]);
		n[sender]++;
	}
	assert(n[0] >= 97 && n[0] <= 103 && n[1] >= 394 && n[1] <= 406 && n[2] >= 197 && n[2] <= 203);
	udp_backlog_free(b);
}

static void test_who_sends_little_does_not_wait_for_who_sends_much(void)
{
	struct udp_backlog *b = udp_backlog_new();
	uint32_t sender, number;
	unsigned n = 0;

	for (uint32_t i = 0; i < 3000; i++)
		put(b, 1, i, LEN);
	put(b, 2, 0, LEN);
	do
		assert(take(b, &sender, &number));
	while (sender != 2 && ++n < 5);
	assert(n <= 3);
	udp_backlog_free(b);
}

static void test_when_it_is_full_the_longest_queue_loses_its_oldest(void)
{
	struct udp_backlog *b = udp_backlog_new();
	uint32_t sender, number, n_dropped = 0, next_fast = 0, n_slow = 0, n_fast = 0;

	for (uint32_t i = 0; i < 50; i++)
		assert(put(b, 2, i, LEN) == 0);
	for (uint32_t i = 0; i < 3 * UDP_BACKLOG_PLACES; i++)
		n_dropped += put(b, 1, i, LEN);
	while (take(b, &sender, &number)) {
		if (sender == 2) {
			assert(number == n_slow++);
		} else {
			assert(number >= next_fast);
			next_fast = number + 1;
			n_fast++;
		}
	}
	assert(n_slow == 50 && next_fast == 3 * UDP_BACKLOG_PLACES); /* none of the slow one's; the newest stays */
	assert(n_fast + n_dropped == 3 * UDP_BACKLOG_PLACES && n_fast > UDP_BACKLOG_PLACES - 100);
	udp_backlog_free(b);
}

static void test_what_was_not_sent_is_the_first_again(void)
{
	struct udp_backlog *b = udp_backlog_new();
	const uint8_t *taken[4];
	uint32_t sender, number;

	for (uint32_t i = 0; i < 6; i++)
		put(b, 1, i, LEN);
	for (int i = 0; i < 4; i++)
		assert((taken[i] = take(b, &sender, &number)) && number == (uint32_t)i);
	for (int i = 3; i >= 2; i--)
		udp_backlog_put_back(b, taken[i]);
	udp_backlog_settle(b);
	for (uint32_t i = 2; i < 6; i++)
		assert(is_next(b, 1, i));
	assert(udp_backlog_is_empty(b));
	udp_backlog_settle(b);
	for (uint32_t i = 0; i < UDP_BACKLOG_PLACES; i++) /* every place is there again */
		assert(put(b, i, i, LEN) == 0);
	udp_backlog_free(b);
}

/* A socket that takes three of the twenty that are tried each time: they go in their turns all the same. */
static void test_what_was_put_back_keeps_its_turn(void)
{
	struct udp_backlog *b = udp_backlog_new();
	const uint8_t *taken[20];
	uint32_t senders[20], number;
	bool is_sent = false;

	for (uint32_t sender = 1; sender <= 8; sender++)
		for (uint32_t i = 0; i < 200; i++)
			put(b, sender, i, LEN);
	put(b, 9, 0, LEN);
	for (int tries = 0; tries < 8 && !is_sent; tries++) { /* two datagrams are a turn: it is the seventeenth */
		for (int i = 0; i < 20; i++)
			assert((taken[i] = take(b, &senders[i], &number)));
		for (int i = 19; i >= 3; i--)
			udp_backlog_put_back(b, taken[i]);
		for (int i = 0; i < 3; i++)
			is_sent |= senders[i] == 9;
		udp_backlog_settle(b);
	}
	assert(is_sent);
	udp_backlog_free(b);
}

/* What is scarce are places, and a small datagram takes one as a large one does. */
static void test_when_it_is_full_many_small_ones_do_not_push_out_a_few_large_ones(void)
{
	struct udp_backlog *b = udp_backlog_new();
	uint32_t sender, number, n_large = 0;

	for (uint32_t i = 0; i < 200; i++)
		assert(put(b, 2, i, UDP_BACKLOG_MAX_LEN) == 0);
	for (uint32_t i = 0; i < 2 * UDP_BACKLOG_PLACES; i++)
		put(b, 1, i, 64);
	while (take(b, &sender, &number))
		n_large += sender == 2;
	assert(n_large == 200);
	udp_backlog_free(b);
}

static void test_what_is_too_long_is_dropped(void)
{
	struct udp_backlog *b = udp_backlog_new();

	assert(put(b, 1, 0, UDP_BACKLOG_MAX_LEN + 1) == 1 && udp_backlog_is_empty(b));
	assert(put(b, 1, 0, UDP_BACKLOG_MAX_LEN) == 0 && is_next(b, 1, 0));
	udp_backlog_free(b);
}

/* All taken, and none settled: there is no queue that could lose anything. */
static void test_when_everything_is_taken_the_new_one_is_dropped(void)
{
	struct udp_backlog *b = udp_backlog_new();
	uint32_t sender, number;

	for (uint32_t i = 0; i < UDP_BACKLOG_PLACES; i++)
		put(b, 1, i, LEN);
	while (take(b, &sender, &number))
		;
	assert(put(b, 1, 0, LEN) == 1);
	udp_backlog_settle(b);
	assert(put(b, 1, 0, LEN) == 0);
	udp_backlog_free(b);
}

int main(void)
{
	test_what_one_sender_sends_stays_in_order();
	test_senders_have_their_turns_by_bytes();
	test_who_sends_little_does_not_wait_for_who_sends_much();
	test_when_it_is_full_the_longest_queue_loses_its_oldest();
	test_what_was_not_sent_is_the_first_again();
	test_what_was_put_back_keeps_its_turn();
	test_when_it_is_full_many_small_ones_do_not_push_out_a_few_large_ones();
	test_what_is_too_long_is_dropped();
	test_when_everything_is_taken_the_new_one_is_dropped();
	puts("ok");
}
