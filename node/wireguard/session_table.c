#include "node/wireguard/session_table.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#define SIZE_MIN 64

struct place {
	_Atomic uint32_t index;		   /* written once, before the keypair is */
	_Atomic(struct wg_keypair *) keypair; /* NULL: never taken */
};

struct wg_session_slots {
	struct wg_retired retired;
	uint32_t mask;
	struct place places[];
};

/* What is where a session was: searches go on behind it. Only the address counts. */
static struct place tombstone_place;
#define TOMBSTONE ((struct wg_keypair *)(void *)&tombstone_place)

/* Indices are random, and chosen by ourselves. Their low bits may all be alike: they say which shard. */
static uint32_t home(const struct wg_session_slots *slots, uint32_t index)
{
	return (index ^ index >> 16) & slots->mask;
}

static struct wg_session_slots *slots_new(uint32_t size)
{
	struct wg_session_slots *slots =
		calloc(1, sizeof(*slots) + (size_t)size * sizeof(slots->places[0]));

	if (slots)
		slots->mask = size - 1;
	return slots;
}

/* There is a free place. */
static void put(struct wg_session_slots *slots, uint32_t index, struct wg_keypair *keypair)
{
	uint32_t at = home(slots, index);

	while (atomic_load(&slots->places[at].keypair))
		at = (at + 1) & slots->mask;
	atomic_store(&slots->places[at].index, index);
	atomic_store(&slots->places[at].keypair, keypair);
}

/* The place of a session, and what is there; read once, for it may be removed meanwhile. */
static struct place *search(struct wg_session_slots *slots, uint32_t index, struct wg_keypair **ret)
{
	for (uint32_t at = home(slots, index);; at = (at + 1) & slots->mask) {
		struct place *place = &slots->places[at];
		struct wg_keypair *keypair = atomic_load(&place->keypair);
		if (!keypair)
			return NULL;
		if (keypair != TOMBSTONE && atomic_load(&place->index) == index) {
			*ret = keypair;
			return place;
		}
	}
}

int wg_session_table_init(struct wg_session_table *table)
{
	struct wg_session_slots *slots = slots_new(SIZE_MIN);

	if (!slots)
		return -ENOMEM;
	table->n = table->n_used = 0;
	atomic_init(&table->slots, slots);
	return 0;
}

void wg_session_table_deinit(struct wg_session_table *table)
{
	free(atomic_load(&table->slots));
	atomic_store(&table->slots, NULL);
	table->n = table->n_used = 0;
}

/* Copies what lives to new places, a quarter full at most: then they last a while. */
static int rebuild(struct wg_session_table *table, struct wg_readers *readers)
{
	struct wg_session_slots *old = atomic_load(&table->slots);
	uint32_t size = SIZE_MIN;

	while (size < (table->n + 1) * 4)
		size *= 2;
	struct wg_session_slots *slots = slots_new(size);
	if (!slots)
		return -ENOMEM;
	for (uint32_t i = 0; i <= old->mask; i++) {
		struct wg_keypair *keypair = atomic_load(&old->places[i].keypair);
		if (keypair && keypair != TOMBSTONE)
			put(slots, atomic_load(&old->places[i].index), keypair);
	}
	table->n_used = table->n;
	atomic_store(&table->slots, slots);
	if (readers)
		wg_readers_retire(readers, &old->retired, old, free);
	else
		free(old);
	return 0;
}

int wg_session_table_add(struct wg_session_table *table, struct wg_readers *readers, uint32_t index,
			 struct wg_keypair *keypair)
{
	struct wg_session_slots *slots = atomic_load(&table->slots);
	struct wg_keypair *other;

	assert(keypair && !search(slots, index, &other));
	if (table->n_used >= (slots->mask + 1) / 2) {
		int r = rebuild(table, readers);
		if (r != 0)
			return r;
		slots = atomic_load(&table->slots);
	}
	put(slots, index, keypair);
	table->n++;
	table->n_used++;
	return 0;
}

void wg_session_table_remove(struct wg_session_table *table, uint32_t index)
{
	struct wg_keypair *keypair;
	struct place *place = search(atomic_load(&table->slots), index, &keypair);

	if (!place)
		return;
	atomic_store(&place->keypair, TOMBSTONE);
	table->n--;
}

struct wg_keypair *wg_session_table_find(const struct wg_session_table *table, uint32_t index)
{
	struct wg_keypair *keypair = NULL;

	search(atomic_load(&table->slots), index, &keypair);
	return keypair;
}
