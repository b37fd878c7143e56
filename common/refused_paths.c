/*
 * An entry: 24 bits of the address's hash, 16 bits limit, 24 bits time of retry (194 days, compared
 * modulo). 0 is free: a time of retry is never 0.
 */
#include "common/refused_paths.h"

#define TIME_BITS 24
#define TIME_MASK ((1u << TIME_BITS) - 1)

static uint64_t hash_of(const struct endpoint *remote)
{
	uint64_t hash = 0xcbf29ce484222325 ^ remote->scope_id;

	for (int i = 0; i < 16; i++)
		hash = (hash ^ remote->ip[i]) * 0x100000001b3;
	return hash ^ hash >> 32;
}

static uint64_t tag_of(uint64_t hash)
{
	return hash >> 9 & 0xffffff; /* above what has chosen the slot */
}

uint32_t refused_paths_limit(const struct refused_paths *paths, const struct endpoint *remote, uint32_t now_s)
{
	if (!atomic_load_explicit(&paths->has_any, memory_order_relaxed))
		return REFUSED_PATHS_ANY;
	uint64_t hash = hash_of(remote);
	uint64_t entry = atomic_load_explicit(&paths->entries[hash % REFUSED_PATHS_N], memory_order_relaxed);
	if (entry == 0 || entry >> 40 != tag_of(hash))
		return REFUSED_PATHS_ANY;
	uint32_t left = ((uint32_t)entry - now_s) & TIME_MASK;
	if (left == 0 || left > TIME_MASK / 2)
		return REFUSED_PATHS_ANY; /* over */
	return entry >> TIME_BITS & 0xffff;
}

void refused_paths_note(struct refused_paths *paths, const struct endpoint *remote, uint32_t limit,
			uint32_t now_s)
{
	uint64_t hash = hash_of(remote);
	uint32_t retry_at = (now_s + REFUSED_PATHS_RETRY_S) & TIME_MASK;
	uint64_t entry = tag_of(hash) << 40 | (uint64_t)(limit & 0xffff) << TIME_BITS |
			 (retry_at ? retry_at : 1);

	atomic_store_explicit(&paths->entries[hash % REFUSED_PATHS_N], entry, memory_order_relaxed);
	atomic_store_explicit(&paths->has_any, true, memory_order_relaxed);
}

void refused_paths_forget(struct refused_paths *paths)
{
	if (!atomic_exchange_explicit(&paths->has_any, false, memory_order_relaxed))
		return;
	for (int i = 0; i < REFUSED_PATHS_N; i++)
		atomic_store_explicit(&paths->entries[i], 0, memory_order_relaxed);
}
