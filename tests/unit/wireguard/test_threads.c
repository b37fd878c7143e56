/*
 * What lanes read without a lock, with real threads: one writer and three readers, for a fixed number
 * of changes. Built with ThreadSanitizer too (suite 'threads' of ./check).
 *
 * Linked without the device: a peer here is no more than its list of prefixes.
 */
#include "node/wireguard/allowed_ips.h"
#include "node/wireguard/device.h"
#include "node/wireguard/readers.h"
#include "common/ring.h"
#include "node/wireguard/session_table.h"

#include <assert.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N_READERS 3
#define N_LOOKS	  64 /* in a burst */

struct crew;

struct worker {
	struct crew *crew;
	struct wg_reader *reader;
	struct ring left; /* what it leaves for the writer */
	pthread_t thread;
	uint64_t n_bursts; /* of its own thread; read after its end */
	uint32_t random;
	ptrdiff_t step; /* of the ladder, where it was last */
};

/* The readers of one test. look(): one burst of one of them. */
struct crew {
	struct wg_readers readers;
	void (*look)(struct worker *worker);
	struct worker workers[N_READERS];
	_Atomic unsigned n_started;
	_Atomic bool is_over;
};

static uint32_t next_random(uint32_t *state)
{
	*state = *state * 1664525u + 1013904223u;
	return *state >> 8;
}

static void *work(void *arg)
{
	struct worker *worker = arg;
	struct crew *crew = worker->crew;

	for (; !atomic_load(&crew->is_over) || worker->n_bursts == 0; worker->n_bursts++) {
		wg_reader_enter(&crew->readers, worker->reader);
		crew->look(worker);
		if (worker->n_bursts == 0)
			atomic_fetch_add(&crew->n_started, 1);
		if (next_random(&worker->random) % 4 == 0) {
			wg_reader_leave(worker->reader);
			sched_yield();
		}
	}
	wg_reader_leave(worker->reader);
	return NULL;
}

static void crew_init(struct crew *crew, void (*look)(struct worker *worker))
{
	memset(crew, 0, sizeof(*crew));
	wg_readers_init(&crew->readers);
	crew->look = look;
}

static void crew_start(struct crew *crew)
{
	for (uint32_t i = 0; i < N_READERS; i++) {
		struct worker *worker = &crew->workers[i];
		worker->crew = crew;
		worker->random = i;
		worker->reader = wg_readers_add(&crew->readers);
		ring_init(&worker->left, 4096);
		assert(worker->reader);
		int r = pthread_create(&worker->thread, NULL, work, worker);
		assert(r == 0);
	}
	while (atomic_load(&crew->n_started) < N_READERS)
		sched_yield();
}

static void crew_end(struct crew *crew)
{
	atomic_store(&crew->is_over, true);
	for (unsigned i = 0; i < N_READERS; i++) {
		pthread_join(crew->workers[i].thread, NULL);
		wg_readers_remove(&crew->readers, crew->workers[i].reader);
	}
}

static void crew_deinit(struct crew *crew)
{
	wg_readers_deinit(&crew->readers);
	for (unsigned i = 0; i < N_READERS; i++)
		ring_deinit(&crew->workers[i].left);
}

/* ---- objects come and go ---- */

#define LIVING 0x600dcafe

struct object {
	uint32_t mark; /* LIVING; plain memory: a reader and the destroyer must never meet */
	struct wg_retired retired;
};

static _Atomic(struct object *) published[4];
static unsigned n_destroyed;

static void object_destroy(void *arg)
{
	struct object *object = arg;

	assert(object->mark == LIVING);
	object->mark = 0;
	free(object);
	n_destroyed++;
}

static struct object *object_new(void)
{
	struct object *object = calloc(1, sizeof(*object));

	assert(object);
	object->mark = LIVING;
	return object;
}

/* Holds objects over a whole burst, and leaves some of them to the writer. */
static void look_at_objects(struct worker *worker)
{
	struct object *held[N_LOOKS];

	for (unsigned i = 0; i < N_LOOKS; i++)
		held[i] = atomic_load(&published[next_random(&worker->random) % ARRAY_LEN(published)]);
	for (unsigned i = 0; i < N_LOOKS; i++)
		assert(held[i]->mark == LIVING);
	void *record = ring_reserve(&worker->left, sizeof(held[0]));
	if (record) {
		memcpy(record, &held[0], sizeof(held[0]));
		ring_commit(&worker->left);
	}
}

/* The writer's round: what was left behind is alive until it has looked there. */
static void take_what_was_left(struct crew *crew)
{
	uint64_t passed = wg_readers_passed(&crew->readers);
	struct object *object;
	size_t len;

	for (unsigned i = 0; i < N_READERS; i++) {
		const void *record;
		while ((record = ring_peek(&crew->workers[i].left, &len))) {
			memcpy(&object, record, sizeof(object));
			assert(object->mark == LIVING);
			ring_release(&crew->workers[i].left);
		}
	}
	(void)wg_readers_collect(&crew->readers, passed);
}

static void test_no_object_vanishes_under_a_reader(void)
{
	enum { N = 30000 };
	static struct crew crew;
	uint32_t random = 1;

	crew_init(&crew, look_at_objects);
	for (unsigned i = 0; i < ARRAY_LEN(published); i++)
		atomic_store(&published[i], object_new());
	crew_start(&crew);
	for (unsigned i = 0; i < N; i++) {
		struct object *old = atomic_exchange(
			&published[next_random(&random) % ARRAY_LEN(published)], object_new());
		wg_readers_retire(&crew.readers, &old->retired, old, object_destroy);
		take_what_was_left(&crew);
	}
	assert(n_destroyed > 0); /* not only at the end */
	crew_end(&crew);
	take_what_was_left(&crew);
	assert(n_destroyed == N);
	for (unsigned i = 0; i < ARRAY_LEN(published); i++)
		object_destroy(atomic_load(&published[i]));
	crew_deinit(&crew);
}

/* ---- sessions ---- */

#define N_LASTING  16
#define N_CHANGING 48

struct session {
	uint32_t index;
	struct wg_retired retired;
};

static struct wg_session_table table;

/* They share four places, so that searches lead over what comes and goes. */
static uint32_t index_of(uint32_t i)
{
	return i | (i ^ i % 4 * 16) << 16;
}

static void add_session(struct crew *crew, uint32_t i)
{
	struct session *session = calloc(1, sizeof(*session));

	assert(session);
	session->index = index_of(i);
	int r = wg_session_table_add(&table, &crew->readers, session->index, (void *)session);
	assert(r == 0);
}

/* Those that last are always there; of the others whatever is found is the right one, and alive. */
static void look_at_sessions(struct worker *worker)
{
	for (unsigned n = 0; n < N_LOOKS; n++) {
		uint32_t i = next_random(&worker->random) % (N_LASTING + N_CHANGING);
		const struct session *found =
			(const void *)wg_session_table_find(&table, index_of(i));
		assert(found || i >= N_LASTING);
		assert(!found || found->index == index_of(i));
	}
}

static void test_sessions_are_found_while_the_table_changes_and_grows(void)
{
	static struct crew crew;
	uint32_t random = 1;
	int r = wg_session_table_init(&table);

	assert(r == 0);
	crew_init(&crew, look_at_sessions);
	for (uint32_t i = N_LASTING + N_CHANGING; i-- > 0;)
		add_session(&crew, i);
	crew_start(&crew);
	for (unsigned n = 0; n < 60000; n++) {
		uint32_t i = N_LASTING + next_random(&random) % N_CHANGING;
		struct session *session = (void *)wg_session_table_find(&table, index_of(i));
		if (session) {
			wg_session_table_remove(&table, session->index);
			wg_readers_retire(&crew.readers, &session->retired, session, free);
		} else {
			add_session(&crew, i);
		}
		(void)wg_readers_collect(&crew.readers, wg_readers_passed(&crew.readers));
	}
	crew_end(&crew);
	for (uint32_t i = 0; i < N_LASTING + N_CHANGING; i++)
		free(wg_session_table_find(&table, index_of(i)));
	wg_session_table_deinit(&table);
	crew_deinit(&crew);
}

/* ---- addresses ---- */

struct wg_peer {
	struct wg_allowed_list list;
};

struct wg_allowed_list *wg_peer_allowed_list(struct wg_peer *peer)
{
	return &peer->list;
}

#define N_CHANGES 30000

/*
 * default_peer has everything; one and other give 10.1.0.0/16 to each other; fickle takes and leaves
 * parts of 10.2.0.0/16; constant has single addresses among them, below the joins that come and go.
 * 10.3.0.0/16 climbs a ladder: its owner is a later one each time.
 */
static struct wg_peer default_peer, one, other, fickle, constant, ladder[N_CHANGES];
static struct wg_allowed_ips allowed;
static bool is_v6; /* the same with 32 zero bits before and behind */

static struct wg_prefix prefix(uint32_t address, unsigned len)
{
	unsigned at = is_v6 ? 4 : 0;
	struct wg_prefix ret = {
		.family = is_v6 ? AF_INET6 : AF_INET,
		.len = (uint8_t)(is_v6 ? (len == 0 ? 0 : len == 32 ? 128 : len + 32) : len),
	};

	for (unsigned i = 0; i < 4; i++)
		ret.ip[at + i] = (uint8_t)(address >> (24 - 8 * i));
	return ret;
}

static void allow(struct wg_peer *peer, uint32_t address, unsigned len)
{
	const struct wg_prefix p = prefix(address, len);
	int r = wg_allowed_ips_insert(&allowed, &p, peer);

	assert(r == 0);
}

static const struct wg_peer *owner(uint32_t address)
{
	const struct wg_prefix p = prefix(address, 32);

	return is_v6 ? wg_allowed_ips_lookup6(&allowed, p.ip) : wg_allowed_ips_lookup4(&allowed, p.ip);
}

static void look_at_ladder(struct worker *worker)
{
	const struct wg_peer *peer = owner(0x0a030000);

	assert(peer - ladder >= worker->step && peer < ladder + N_CHANGES);
	worker->step = peer - ladder;
}

static void look_at_addresses(struct worker *worker)
{
	for (unsigned n = 0; n < N_LOOKS / 4; n++) {
		uint32_t low = next_random(&worker->random) & 0xffff;
		const struct wg_peer *peer = owner(0x0a010000 | low);
		assert(peer == &one || peer == &other);
		peer = owner(0x0a020000 | low);
		assert(peer == &default_peer || peer == &fickle || (peer == &constant && low % 4097 == 0));
		assert(owner(0x0a020000 | low % 16 * 4097) == &constant);
		assert(owner(0x0b000000 | low) == &default_peer);
		look_at_ladder(worker);
	}
}

static void change_addresses(uint32_t *random, unsigned i)
{
	uint32_t address = 0x0a020000 | (next_random(random) & 0xffff);
	const struct wg_prefix p = prefix(address, 17 + next_random(random) % 15);

	allow(i % 2 ? &one : &other, 0x0a010000, 16);
	allow(&ladder[i], 0x0a030000, 16);
	if (next_random(random) % 3 == 0) {
		wg_allowed_ips_remove(&allowed, &p, &fickle);
	} else {
		int r = wg_allowed_ips_insert(&allowed, &p, &fickle);
		assert(r == 0);
	}
	if (i % 200 == 0)
		wg_allowed_ips_remove_peer(&allowed, &fickle);
}

static void check_addresses(void)
{
	static struct crew crew;
	struct wg_peer *const all[] = { &default_peer, &one, &other, &fickle, &constant,
					&ladder[N_CHANGES - 1] };
	uint32_t random = 1;

	crew_init(&crew, look_at_addresses);
	allowed = (struct wg_allowed_ips){ .readers = &crew.readers };
	allow(&default_peer, 0, 0);
	allow(&one, 0x0a010000, 16);
	allow(&ladder[0], 0x0a030000, 16);
	for (uint32_t i = 0; i < 16; i++)
		allow(&constant, 0x0a020000 | i * 4097, 32);
	crew_start(&crew);
	for (unsigned i = 0; i < N_CHANGES; i++) {
		change_addresses(&random, i);
		(void)wg_readers_collect(&crew.readers, wg_readers_passed(&crew.readers));
	}
	crew_end(&crew);
	for (unsigned i = 0; i < ARRAY_LEN(all); i++)
		wg_allowed_ips_remove_peer(&allowed, all[i]);
	assert(!atomic_load(&allowed.root4) && !atomic_load(&allowed.root6));
	crew_deinit(&crew);
}

static void test_an_address_always_has_the_owner_of_before_or_after(void)
{
	check_addresses();
	is_v6 = true;
	check_addresses();
}

int main(void)
{
	test_no_object_vanishes_under_a_reader();
	test_sessions_are_found_while_the_table_changes_and_grows();
	test_an_address_always_has_the_owner_of_before_or_after();
	puts("ok");
}
