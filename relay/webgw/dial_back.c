#include "relay/webgw/dial_back.h"

#include <assert.h>
#include <sodium.h>
#include <string.h>

static uint64_t hash_of(const struct dial_back *table, const uint8_t secret[DIAL_BACK_SECRET])
{
	uint64_t hash;

	_Static_assert(sizeof(hash) == crypto_shorthash_BYTES && sizeof(table->seed) == crypto_shorthash_KEYBYTES,
		       "one hash of libsodium's");
	crypto_shorthash((unsigned char *)&hash, secret, DIAL_BACK_SECRET, table->seed);
	return hash;
}

/* What stands behind its random bytes. */
static void seal(const struct dial_back *table, const uint8_t random[DIAL_BACK_RANDOM],
		 uint8_t ret[DIAL_BACK_SECRET - DIAL_BACK_RANDOM])
{
	_Static_assert(DIAL_BACK_SECRET - DIAL_BACK_RANDOM >= crypto_generichash_BYTES_MIN &&
			       sizeof(table->key) == crypto_generichash_KEYBYTES,
		       "one hash of libsodium's");
	crypto_generichash(ret, DIAL_BACK_SECRET - DIAL_BACK_RANDOM, random, DIAL_BACK_RANDOM, table->key, sizeof(table->key));
}

static bool was_told(const struct dial_back *table, const uint8_t secret[DIAL_BACK_SECRET])
{
	uint8_t expected[DIAL_BACK_SECRET - DIAL_BACK_RANDOM];

	seal(table, secret, expected);
	const bool is_ours = sodium_memcmp(expected, secret + DIAL_BACK_RANDOM, sizeof(expected)) == 0;
	sodium_memzero(expected, sizeof(expected)); /* of a guess: else it might be read from here */
	return is_ours;
}

void dial_back_init(struct dial_back *table)
{
	memset(table, 0, sizeof(*table));
	randombytes_buf(table->seed, sizeof(table->seed));
	randombytes_buf(table->key, sizeof(table->key));
	for (uint32_t i = 0; i < DIAL_BACK_MAX; i++)
		table->slots[i].next = i + 1 < DIAL_BACK_MAX ? i + 2 : 0;
	table->free = 1;
}

uint64_t dial_back_add(struct dial_back *table, void *visitor, uint64_t until_ms, uint8_t ret_secret[DIAL_BACK_SECRET])
{
	const uint32_t index = table->free;

	assert(visitor);
	if (index == 0)
		return 0;
	struct dial_back_slot *slot = &table->slots[index - 1];
	table->free = slot->next;
	randombytes_buf(slot->secret, DIAL_BACK_RANDOM);
	seal(table, slot->secret, slot->secret + DIAL_BACK_RANDOM);
	memcpy(ret_secret, slot->secret, sizeof(slot->secret));
	slot->until_ms = until_ms;
	slot->visitor = visitor;
	slot->hash = hash_of(table, slot->secret);
	slot->turn++;
	uint32_t *bucket = &table->buckets[slot->hash & (DIAL_BACK_BUCKETS - 1)];
	slot->next = *bucket;
	*bucket = index;
	table->n++;
	return (uint64_t)slot->turn << 32 | index;
}

static void remove_slot(struct dial_back *table, struct dial_back_slot *slot)
{
	const uint32_t index = (uint32_t)(slot - table->slots) + 1;
	uint32_t *at = &table->buckets[slot->hash & (DIAL_BACK_BUCKETS - 1)];

	while (*at != index)
		at = &table->slots[*at - 1].next;
	*at = slot->next;
	sodium_memzero(slot->secret, sizeof(slot->secret));
	slot->visitor = NULL;
	slot->next = table->free;
	table->free = index;
	table->n--;
}

int dial_back_take(struct dial_back *table, const uint8_t secret[DIAL_BACK_SECRET], uint64_t now_ms, void **ret_visitor)
{
	const uint64_t hash = hash_of(table, secret);

	for (uint32_t i = table->buckets[hash & (DIAL_BACK_BUCKETS - 1)]; i != 0; i = table->slots[i - 1].next) {
		struct dial_back_slot *slot = &table->slots[i - 1];
		if (slot->hash != hash || sodium_memcmp(slot->secret, secret, DIAL_BACK_SECRET) != 0)
			continue;
		const bool is_late = now_ms >= slot->until_ms;
		if (!is_late) {
			*ret_visitor = slot->visitor;
			remove_slot(table, slot);
		}
		return is_late ? DIAL_BACK_LATE : 0;
	}
	return was_told(table, secret) ? DIAL_BACK_LATE : DIAL_BACK_UNKNOWN;
}

static const struct dial_back_slot *find(const struct dial_back *table, uint64_t ticket)
{
	const uint32_t index = (uint32_t)ticket;

	if (index == 0 || index > DIAL_BACK_MAX)
		return NULL;
	const struct dial_back_slot *slot = &table->slots[index - 1];
	return slot->visitor && slot->turn == ticket >> 32 ? slot : NULL;
}

void *dial_back_find(const struct dial_back *table, uint64_t ticket)
{
	const struct dial_back_slot *slot = find(table, ticket);

	return slot ? slot->visitor : NULL;
}

void dial_back_remove(struct dial_back *table, uint64_t ticket)
{
	const struct dial_back_slot *slot = find(table, ticket);

	if (slot)
		remove_slot(table, &table->slots[slot - table->slots]);
}
