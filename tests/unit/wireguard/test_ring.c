/* The queue between two threads: order, bounds, wrap-around, and that nothing tears or is lost. */
#include "common/ring.h"

#include <assert.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static bool put(struct ring *ring, const char *text)
{
	void *record = ring_reserve(ring, strlen(text));

	if (!record)
		return false;
	memcpy(record, text, strlen(text));
	ring_commit(ring);
	return true;
}

static void expect(struct ring *ring, const char *text)
{
	size_t len;
	const void *record = ring_peek(ring, &len);

	assert(record && len == strlen(text) && memcmp(record, text, len) == 0);
	ring_release(ring);
}

static void test_records_come_out_in_order_and_whole(void)
{
	struct ring ring;
	size_t len;
	ring_init(&ring, 256);

	assert(put(&ring, "first") && put(&ring, "") && put(&ring, "the third one"));
	expect(&ring, "first");
	expect(&ring, "");
	expect(&ring, "the third one");
	assert(!ring_peek(&ring, &len));
	ring_deinit(&ring);
}

static void test_what_does_not_fit_is_counted(void)
{
	struct ring ring;
	static char big[300];
	ring_init(&ring, 64);

	assert(put(&ring, "0123456789012345678901234567890123456789"));
	assert(!put(&ring, "another one"));
	memset(big, 'x', sizeof(big) - 1);
	assert(!put(&ring, big));
	assert(ring.n_dropped == 2);
	expect(&ring, "0123456789012345678901234567890123456789");
	assert(put(&ring, "another one"));
	expect(&ring, "another one");
	ring_deinit(&ring);
}

static void test_strangers_leave_half_of_the_ring_to_others(void)
{
	struct ring ring;
	unsigned n_strangers = 0, n_others = 0;
	ring_init(&ring, 1024);

	for (; ring_reserve_for_stranger(&ring, 24); n_strangers++)
		ring_commit(&ring);
	for (; ring_reserve(&ring, 24); n_others++)
		ring_commit(&ring);
	assert(n_strangers == 16 && n_others == 16);
	assert(ring.n_dropped == 2);
	ring_deinit(&ring);
}

static void test_a_reservation_that_is_not_committed_is_nothing(void)
{
	struct ring ring;
	size_t len;
	ring_init(&ring, 64);

	assert(ring_reserve(&ring, 8));
	assert(!ring_peek(&ring, &len));
	assert(put(&ring, "real"));
	expect(&ring, "real");
	ring_deinit(&ring);
}

static void test_records_of_all_lengths_survive_the_end_of_the_buffer(void)
{
	struct ring ring;
	char text[64] = "";
	ring_init(&ring, 128);

	for (int i = 0; i < 1000; i++) {
		memset(text, 'a' + i % 26, (size_t)(i % 50));
		text[i % 50] = '\0';
		assert(put(&ring, text));
		expect(&ring, text);
	}
	ring_deinit(&ring);
}

#define N_NUMBERS 200000u

static void *put_numbers(void *arg)
{
	struct ring *ring = arg;

	for (uint32_t i = 0; i < N_NUMBERS;) {
		/* Record i holds i % 7 + 1 times the number i. */
		uint32_t n = i % 7 + 1, *record = ring_reserve(ring, n * sizeof(i));
		if (!record)
			continue;
		for (uint32_t k = 0; k < n; k++)
			record[k] = i;
		ring_commit(ring);
		i++;
	}
	return NULL;
}

static void test_two_threads_see_every_record_once(void)
{
	struct ring ring;
	pthread_t thread;
	ring_init(&ring, 4096);

	assert(pthread_create(&thread, NULL, put_numbers, &ring) == 0);
	for (uint32_t i = 0; i < N_NUMBERS;) {
		size_t len;
		const uint32_t *record = ring_peek(&ring, &len);
		if (!record)
			continue;
		assert(len == (i % 7 + 1) * sizeof(i));
		for (size_t k = 0; k < len / sizeof(i); k++)
			assert(record[k] == i);
		ring_release(&ring);
		i++;
	}
	pthread_join(thread, NULL);
	ring_deinit(&ring);
}

static void test_a_mark_is_passed_when_all_before_it_is_taken(void)
{
	struct ring ring;
	size_t len;

	ring_init(&ring, 64);
	for (int i = 0; i < 20; i++) { /* over the end of the buffer */
		uint64_t before = ring_mark(&ring);
		assert(ring_is_taken(&ring, before));
		assert(ring_reserve(&ring, 24));
		assert(ring_is_taken(&ring, ring_mark(&ring))); /* not committed: nothing */
		ring_commit(&ring);
		uint64_t behind = ring_mark(&ring);
		assert(ring_is_taken(&ring, before) && !ring_is_taken(&ring, behind));
		assert(ring_peek(&ring, &len));
		assert(!ring_is_taken(&ring, behind));
		ring_release(&ring);
		assert(ring_is_taken(&ring, behind));
	}
	ring_deinit(&ring);
}

int main(void)
{
	test_records_come_out_in_order_and_whole();
	test_what_does_not_fit_is_counted();
	test_strangers_leave_half_of_the_ring_to_others();
	test_a_reservation_that_is_not_committed_is_nothing();
	test_records_of_all_lengths_survive_the_end_of_the_buffer();
	test_two_threads_see_every_record_once();
	test_a_mark_is_passed_when_all_before_it_is_taken();
	puts("ok");
	return 0;
}
