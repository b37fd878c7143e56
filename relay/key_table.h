/*
 * A hash table from node key to a pointer of the owner's. Seeded, so that nobody can choose keys that
 * collide; grows with what it holds. sodium_init() must have been called. Pure.
 */
#pragma once

#include "common/key.h"

#include <stddef.h>
#include <stdint.h>

struct key_table_entry;

struct key_table {
	struct key_table_entry *entries;
	uint32_t n, capacity; /* capacity is a power of two, or 0 */
	uint8_t seed[16];
};

void key_table_init(struct key_table *table);
void key_table_deinit(struct key_table *table);
/* NULL when it is not there. */
void *key_table_find(const struct key_table *table, const struct public_key *key);
/* Returns what was there before, or NULL. value must not be NULL. */
void *key_table_put(struct key_table *table, const struct public_key *key, void *value);
/* Only if that very value is there: who was replaced does not remove its successor. */
void key_table_remove(struct key_table *table, const struct public_key *key, const void *value);
