#include "node/wireguard/index_table.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#define PLACES_PER_PEER 8 /* four indices: never more than half full */

/* Indices are random already; ours were chosen by ourselves. */
static uint32_t home(const struct wg_index_table *table, uint32_t index)
{
	return (index ^ index >> 16) & table->mask;
}

static uint32_t find_place(const struct wg_index_table *table, uint32_t index)
{
	uint32_t place = home(table, index);

	while (table->entries[place].peer && table->entries[place].index != index)
		place = (place + 1) & table->mask;
	return place;
}

int wg_index_table_reserve(struct wg_index_table *table, uint32_t n_peers)
{
	struct wg_index_table old = *table;
	uint32_t size = 64;

	while (size < n_peers * PLACES_PER_PEER)
		size *= 2;
	if (old.entries && size <= old.mask + 1)
		return 0;
	struct wg_index_entry *entries = calloc(size, sizeof(*entries));
	if (!entries)
		return -ENOMEM;
	*table = (struct wg_index_table){ .entries = entries, .mask = size - 1 };
	for (uint32_t i = 0; old.entries && i <= old.mask; i++)
		if (old.entries[i].peer)
			wg_index_table_add(table, &old.entries[i]);
	free(old.entries);
	return 0;
}

void wg_index_table_deinit(struct wg_index_table *table)
{
	free(table->entries);
	*table = (struct wg_index_table){ 0 };
}

const struct wg_index_entry *wg_index_table_find(const struct wg_index_table *table, uint32_t index)
{
	if (!table->entries)
		return NULL;
	const struct wg_index_entry *entry = &table->entries[find_place(table, index)];
	return entry->peer ? entry : NULL;
}

bool wg_index_table_add(struct wg_index_table *table, const struct wg_index_entry *entry)
{
	uint32_t place = find_place(table, entry->index);

	if (table->entries[place].peer)
		return false;
	assert(table->n <= table->mask / 2);
	table->entries[place] = *entry;
	table->n++;
	return true;
}

/* Moves followers back over the hole, so that no search ends too early. */
void wg_index_table_remove(struct wg_index_table *table, uint32_t index)
{
	uint32_t hole = find_place(table, index);

	if (!table->entries[hole].peer)
		return;
	table->n--;
	for (uint32_t at = (hole + 1) & table->mask; table->entries[at].peer;
	     at = (at + 1) & table->mask) {
		uint32_t wanted = home(table, table->entries[at].index);
		if (((at - wanted) & table->mask) >= ((at - hole) & table->mask)) {
			table->entries[hole] = table->entries[at];
			hole = at;
		}
	}
	table->entries[hole] = (struct wg_index_entry){ 0 };
}
