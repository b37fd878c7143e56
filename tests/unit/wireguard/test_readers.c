/* When retired objects are destroyed, step by step in one thread. Real threads: test_threads.c. */
#include "node/wireguard/readers.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

struct object {
	struct wg_retired retired;
	struct wg_readers *also; /* retires the next one when it is destroyed */
	struct object *next;
};

static unsigned n_destroyed;

static void destroy(void *arg)
{
	struct object *object = arg;

	if (object->next)
		wg_readers_retire(object->also, &object->next->retired, object->next, destroy);
	free(object);
	n_destroyed++;
}

static struct object *object_new(void)
{
	struct object *object = calloc(1, sizeof(*object));

	assert(object);
	return object;
}

static void retire(struct wg_readers *readers)
{
	struct object *object = object_new();

	wg_readers_retire(readers, &object->retired, object, destroy);
}

/* Destroys what it can; how many. */
static unsigned collect(struct wg_readers *readers)
{
	unsigned before = n_destroyed;

	(void)wg_readers_collect(readers, wg_readers_passed(readers));
	return n_destroyed - before;
}

static void test_without_readers_a_collection_destroys_all(void)
{
	struct wg_readers readers;
	wg_readers_init(&readers);

	retire(&readers);
	retire(&readers);
	assert(collect(&readers) == 2);
	wg_readers_deinit(&readers);
}

static void test_what_a_burst_may_hold_stays_until_the_next_burst(void)
{
	struct wg_readers readers;
	wg_readers_init(&readers);
	struct wg_reader *reader = wg_readers_add(&readers);

	wg_reader_enter(&readers, reader);
	retire(&readers);
	assert(collect(&readers) == 0);
	wg_reader_enter(&readers, reader);
	retire(&readers);
	assert(collect(&readers) == 1); /* the first; the second may be held by this burst */
	wg_reader_enter(&readers, reader);
	assert(collect(&readers) == 1);
	wg_readers_deinit(&readers);
}

static void test_a_reader_that_sleeps_delays_nothing(void)
{
	struct wg_readers readers;
	wg_readers_init(&readers);
	struct wg_reader *reader = wg_readers_add(&readers);

	retire(&readers);
	assert(collect(&readers) == 1); /* has never entered */
	wg_reader_enter(&readers, reader);
	retire(&readers);
	wg_reader_leave(reader);
	assert(collect(&readers) == 1);
	wg_readers_deinit(&readers);
}

static void test_the_slowest_reader_decides(void)
{
	struct wg_readers readers;
	wg_readers_init(&readers);
	struct wg_reader *fast = wg_readers_add(&readers), *slow = wg_readers_add(&readers);

	wg_reader_enter(&readers, fast);
	wg_reader_enter(&readers, slow);
	for (int i = 0; i < 3; i++) {
		retire(&readers);
		wg_reader_enter(&readers, fast);
		assert(collect(&readers) == 0);
	}
	wg_readers_remove(&readers, slow);
	assert(collect(&readers) == 3);
	wg_readers_deinit(&readers);
}

/* The writer looks at what readers left behind between the two: what it retires then has to wait. */
static void test_what_is_retired_after_passed_is_not_collected_with_it(void)
{
	struct wg_readers readers;
	wg_readers_init(&readers);

	retire(&readers);
	uint64_t passed = wg_readers_passed(&readers);
	retire(&readers);
	unsigned before = n_destroyed;
	assert(wg_readers_collect(&readers, passed));
	assert(n_destroyed == before + 1);
	assert(!wg_readers_collect(&readers, wg_readers_passed(&readers)));
	wg_readers_deinit(&readers);
}

static void test_destroying_may_retire_more(void)
{
	struct wg_readers readers;
	wg_readers_init(&readers);

	struct object *first = object_new();
	first->also = &readers;
	first->next = object_new();
	wg_readers_retire(&readers, &first->retired, first, destroy);
	assert(collect(&readers) == 1 && collect(&readers) == 1);

	first = object_new();
	first->also = &readers;
	first->next = object_new();
	wg_readers_retire(&readers, &first->retired, first, destroy);
	unsigned before = n_destroyed;
	wg_readers_deinit(&readers);
	assert(n_destroyed == before + 2);
}

static void test_places_of_readers_are_used_again(void)
{
	struct wg_readers readers;
	struct wg_reader *all[WG_READERS_MAX];
	wg_readers_init(&readers);

	for (unsigned i = 0; i < WG_READERS_MAX; i++) {
		all[i] = wg_readers_add(&readers);
		assert(all[i]);
	}
	assert(!wg_readers_add(&readers));
	wg_reader_enter(&readers, all[40]);
	retire(&readers);
	assert(collect(&readers) == 0);
	wg_readers_remove(&readers, all[40]);
	assert(collect(&readers) == 1);
	assert(wg_readers_add(&readers) == all[40]);
	assert(!wg_readers_add(&readers));
	wg_readers_deinit(&readers);
}

int main(void)
{
	test_without_readers_a_collection_destroys_all();
	test_what_a_burst_may_hold_stays_until_the_next_burst();
	test_a_reader_that_sleeps_delays_nothing();
	test_the_slowest_reader_decides();
	test_what_is_retired_after_passed_is_not_collected_with_it();
	test_destroying_may_retire_more();
	test_places_of_readers_are_used_again();
	puts("ok");
}
