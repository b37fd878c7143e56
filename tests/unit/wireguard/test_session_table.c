/* Receiver index -> keypair in one thread: against a naive set. Real threads: test_threads.c. */
#include "node/wireguard/session_table.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

/* Only addresses count. */
static char objects[1000];

static struct wg_keypair *keypair(unsigned i)
{
	return (struct wg_keypair *)(void *)&objects[i];
}

static void test_a_session_is_found_from_add_to_remove(void)
{
	struct wg_session_table table;
	int r = wg_session_table_init(&table);
	assert(r == 0);

	assert(!wg_session_table_find(&table, 0) && !wg_session_table_find(&table, 7));
	r = wg_session_table_add(&table, NULL, 0, keypair(1));
	assert(r == 0);
	r = wg_session_table_add(&table, NULL, UINT32_MAX, keypair(2));
	assert(r == 0);
	assert(wg_session_table_find(&table, 0) == keypair(1));
	assert(wg_session_table_find(&table, UINT32_MAX) == keypair(2));
	wg_session_table_remove(&table, 0);
	wg_session_table_remove(&table, 0);
	wg_session_table_remove(&table, 7);
	assert(!wg_session_table_find(&table, 0) && table.n == 1);
	r = wg_session_table_add(&table, NULL, 0, keypair(3)); /* the number comes again */
	assert(r == 0 && wg_session_table_find(&table, 0) == keypair(3));
	wg_session_table_deinit(&table);
}

static void test_random_changes_as_a_naive_set_says(void)
{
	enum { RANGE = 900 };
	static bool there[RANGE];
	struct wg_session_table table;
	uint32_t n = 0;
	int r = wg_session_table_init(&table);

	assert(r == 0);
	srand(5);
	for (int i = 0; i < 200000; i++) {
		unsigned at = (unsigned)rand() % RANGE;
		uint32_t index = at * 0x10001; /* many of them have the same place */
		assert(wg_session_table_find(&table, index) == (there[at] ? keypair(at) : NULL));
		if (there[at]) {
			wg_session_table_remove(&table, index);
		} else {
			r = wg_session_table_add(&table, NULL, index, keypair(at));
			assert(r == 0);
		}
		there[at] = !there[at];
		n = there[at] ? n + 1 : n - 1;
		assert(table.n == n);
	}
	for (unsigned at = 0; at < RANGE; at++)
		assert(wg_session_table_find(&table, at * 0x10001) == (there[at] ? keypair(at) : NULL));
	wg_session_table_deinit(&table);
}

/* Sessions come and go for years; the table must not grow with how many there ever were. */
static void test_memory_follows_the_sessions_there_are(void)
{
	struct wg_session_table table;
	int r = wg_session_table_init(&table);

	assert(r == 0);
	for (uint32_t i = 0; i < 100000; i++) {
		r = wg_session_table_add(&table, NULL, i * 2654435761u, keypair(1));
		assert(r == 0);
		if (i >= 10)
			wg_session_table_remove(&table, (i - 10) * 2654435761u);
		assert(table.n_used <= 64);
	}
	wg_session_table_deinit(&table);
}

static void test_old_places_wait_for_the_readers(void)
{
	struct wg_readers readers;
	struct wg_session_table table;
	wg_readers_init(&readers);
	struct wg_reader *reader = wg_readers_add(&readers);
	int r = wg_session_table_init(&table);

	assert(r == 0);
	wg_reader_enter(&readers, reader);
	for (uint32_t i = 0; i < 100; i++) {
		r = wg_session_table_add(&table, &readers, i, keypair(i));
		assert(r == 0);
	}
	assert(wg_readers_collect(&readers, wg_readers_passed(&readers))); /* it grew: the old ones wait */
	wg_reader_leave(reader);
	assert(!wg_readers_collect(&readers, wg_readers_passed(&readers)));
	for (uint32_t i = 0; i < 100; i++)
		assert(wg_session_table_find(&table, i) == keypair(i));
	wg_session_table_deinit(&table);
	wg_readers_deinit(&readers);
}

int main(void)
{
	test_a_session_is_found_from_add_to_remove();
	test_random_changes_as_a_naive_set_says();
	test_memory_follows_the_sessions_there_are();
	test_old_places_wait_for_the_readers();
	puts("ok");
}
