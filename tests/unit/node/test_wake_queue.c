/* Who wants peers woken never hurts its connection to control. */
#include "common/token_bucket.h"
#include "node/wake_queue.h"

#include <assert.h>

static struct wake_queue queue;
static uint32_t ids[WAKE_QUEUE_MAX];

static void begin(void)
{
	queue = (struct wake_queue){ 0 };
}

static void test_all_that_wait_go_in_one_call_and_each_once(void)
{
	begin();
	for (int i = 0; i < 3; i++) {
		wake_queue_add(&queue, 7, 1000);
		wake_queue_add(&queue, 8, 1000);
	}
	assert(wake_queue_due_ms(&queue) != 0 && wake_queue_due_ms(&queue) <= 1000);
	assert(wake_queue_take(&queue, 1000, ids) == 2 && ids[0] == 7 && ids[1] == 8);
	assert(wake_queue_due_ms(&queue) == 0);
}

static void test_there_is_one_call_at_a_time_and_none_within_200_ms(void)
{
	begin();
	wake_queue_add(&queue, 7, 1000);
	assert(wake_queue_take(&queue, 1000, ids) == 1);
	wake_queue_add(&queue, 7, 1300);
	assert(wake_queue_take(&queue, 1300, ids) == 0 && wake_queue_due_ms(&queue) == 0);
	wake_queue_answered(&queue, WAKE_DONE, 1310);
	assert(wake_queue_take(&queue, 1310, ids) == 1);
	wake_queue_answered(&queue, WAKE_DONE, 1320);
	wake_queue_add(&queue, 7, 1320);
	assert(wake_queue_due_ms(&queue) == 1510);
	assert(wake_queue_take(&queue, 1509, ids) == 0 && wake_queue_take(&queue, 1510, ids) == 1);
}

static void test_more_than_64_are_counted_and_dropped(void)
{
	begin();
	for (uint32_t id = 1; id <= 100; id++)
		wake_queue_add(&queue, id, 1000);
	assert(wake_queue_take(&queue, 1000, ids) == 64 && ids[63] == 64 && queue.n_dropped == 36);
}

static void test_who_waited_for_5_s_is_not_woken_any_more(void)
{
	begin();
	wake_queue_add(&queue, 7, 1000);
	assert(wake_queue_take(&queue, 1000, ids) == 1);
	wake_queue_add(&queue, 8, 1500);
	wake_queue_add(&queue, 9, 7000);
	wake_queue_answered(&queue, WAKE_DONE, 11000); /* it was away for a while */
	assert(wake_queue_take(&queue, 11000, ids) == 1 && ids[0] == 9);
}

static void test_after_a_refusal_nobody_is_woken_for_longer_and_longer(void)
{
	uint64_t now_ms = 1000;
	int n = 0;

	begin();
	for (; now_ms < 3601000; now_ms += 100) {
		wake_queue_add(&queue, 7, now_ms);
		if (wake_queue_take(&queue, now_ms, ids) > 0) {
			wake_queue_answered(&queue, WAKE_REFUSED, now_ms);
			n++;
		}
	}
	assert(n >= 14 && n <= 17);
	wake_queue_reset(&queue);
	wake_queue_add(&queue, 7, now_ms);
	assert(wake_queue_take(&queue, now_ms, ids) == 1);
}

static void test_a_control_that_does_not_know_how_is_asked_once_a_connection(void)
{
	begin();
	wake_queue_add(&queue, 7, 1000);
	assert(wake_queue_take(&queue, 1000, ids) == 1);
	wake_queue_add(&queue, 8, 1010);
	wake_queue_answered(&queue, WAKE_UNKNOWN, 1020);
	wake_queue_add(&queue, 9, 5000);
	assert(wake_queue_due_ms(&queue) == 0 && wake_queue_take(&queue, 500000, ids) == 0);
	wake_queue_reset(&queue); /* it was upgraded, perhaps */
	wake_queue_add(&queue, 7, 600000);
	assert(wake_queue_take(&queue, 600000, ids) == 1 && ids[0] == 7);
}

static void test_a_bucket_gives_its_burst_and_then_one_in_each_interval(void)
{
	struct token_bucket bucket = { 0 };
	int n = 0;

	for (uint64_t ms = 5000; ms < 5100; ms++)
		n += token_bucket_take(&bucket, ms, 4, 10000);
	assert(n == 4);
	for (uint64_t ms = 5100; ms < 105000; ms += 50)
		n += token_bucket_take(&bucket, ms, 4, 10000);
	assert(n == 4 + 9);
	n = 0;
	for (uint64_t ms = 1000000; ms < 1000100; ms++)
		n += token_bucket_take(&bucket, ms, 4, 10000);
	assert(n == 4);
}

int main(void)
{
	test_all_that_wait_go_in_one_call_and_each_once();
	test_there_is_one_call_at_a_time_and_none_within_200_ms();
	test_more_than_64_are_counted_and_dropped();
	test_who_waited_for_5_s_is_not_woken_any_more();
	test_after_a_refusal_nobody_is_woken_for_longer_and_longer();
	test_a_control_that_does_not_know_how_is_asked_once_a_connection();
	test_a_bucket_gives_its_burst_and_then_one_in_each_interval();
	return 0;
}
