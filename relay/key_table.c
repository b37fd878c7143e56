/* Linear probing; removal moves later entries of the run back, so there are no tombstones. */
#include "relay/key_table.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define MIN_CAPACITY 64

struct key_table_entry {
	struct public_key key;
	void *value; /* NULL: free */
};

static uint32_t home_of(const struct key_table *table, const struct public_key *key)
{
	uint8_t hash[crypto_shorthash_BYTES];
	uint32_t low;

	crypto_shorthash(hash, key->bytes, KEY_LEN, table->seed);
	memcpy(&low, hash, sizeof(low));
	return low & (table->capacity - 1);
}

/* Where the key is, or the free place where it would be. */
static struct key_table_entry *place_of(const struct key_table *table, const struct public_key *key)
{
	uint32_t i = home_of(table, key);

	while (table->entries[i].value && !public_key_equal(&table->entries[i].key, key))
		i = (i + 1) & (table->capacity - 1);
	return &table->entries[i];
}

static void grow(struct key_table *table)
{
	struct key_table_entry *old = table->entries;
	uint32_t n_old = table->capacity;

	table->capacity = n_old ? n_old * 2 : MIN_CAPACITY;
	table->entries = calloc(table->capacity, sizeof(*table->entries));
	if (!table->entries)
		abort();
	for (uint32_t i = 0; i < n_old; i++)
		if (old[i].value)
			*place_of(table, &old[i].key) = old[i];
	free(old);
}

void key_table_init(struct key_table *table)
{
	*table = (struct key_table){ 0 };
	randombytes_buf(table->seed, sizeof(table->seed));
}

void key_table_deinit(struct key_table *table)
{
	free(table->entries);
	*table = (struct key_table){ 0 };
}

void *key_table_find(const struct key_table *table, const struct public_key *key)
{
	return table->n > 0 ? place_of(table, key)->value : NULL;
}

void *key_table_put(struct key_table *table, const struct public_key *key, void *value)
{
	if (table->n * 2 >= table->capacity)
		grow(table);
	struct key_table_entry *entry = place_of(table, key);
	void *before = entry->value;
	*entry = (struct key_table_entry){ .key = *key, .value = value };
	table->n += before ? 0 : 1;
	return before;
}

void key_table_remove(struct key_table *table, const struct public_key *key, const void *value)
{
	if (table->n == 0)
		return;
	struct key_table_entry *entry = place_of(table, key);
	if (!entry->value || entry->value != value)
		return;

	uint32_t mask = table->capacity - 1;
	uint32_t hole = (uint32_t)(entry - table->entries);
	for (uint32_t i = (hole + 1) & mask; table->entries[i].value; i = (i + 1) & mask) {
		/* May it move to the hole? Only if its home is not between the hole and itself. */
		uint32_t from_home = (i - home_of(table, &table->entries[i].key)) & mask;
		if (from_home >= ((i - hole) & mask)) {
			table->entries[hole] = table->entries[i];
			hole = i;
		}
	}
	table->entries[hole].value = NULL;
	table->n--;
}
