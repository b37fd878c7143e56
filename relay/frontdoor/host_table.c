#include "relay/frontdoor/host_table.h"

#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <string.h>

void host_table_init(struct host_table *table, struct host_entry **buckets, uint32_t n_buckets)
{
	assert(n_buckets > 0 && (n_buckets & (n_buckets - 1)) == 0);
	*table = (struct host_table){ .buckets = buckets, .n_buckets = n_buckets };
	memset(buckets, 0, n_buckets * sizeof(*buckets));
	randombytes_buf(table->seed, sizeof(table->seed));
}

/* Where the patterns with this name are, exact and wildcard in one chain. */
static struct host_entry **bucket(const struct host_table *table, const char *text, size_t len)
{
	uint64_t hash;

	static_assert(sizeof(hash) == crypto_shorthash_BYTES && sizeof(table->seed) == crypto_shorthash_KEYBYTES,
		      "one hash of libsodium's");
	crypto_shorthash((unsigned char *)&hash, (const unsigned char *)text, len, table->seed);
	return &table->buckets[hash & (table->n_buckets - 1)];
}

static struct host_entry *find(const struct host_table *table, bool is_wildcard, const char *text, size_t len)
{
	for (struct host_entry *entry = *bucket(table, text, len); entry; entry = entry->next) {
		const struct host_pattern *pattern = &entry->pattern;
		if (pattern->is_wildcard == is_wildcard && pattern->name.len == len &&
		    memcmp(pattern->name.text, text, len) == 0)
			return entry;
	}
	return NULL;
}

struct host_entry *host_table_find_pattern(const struct host_table *table, const struct host_pattern *pattern)
{
	return find(table, pattern->is_wildcard, pattern->name.text, pattern->name.len);
}

int host_table_add(struct host_table *table, struct host_entry *entry)
{
	const struct host_name *name = &entry->pattern.name;
	struct host_entry **first = bucket(table, name->text, name->len);

	if (host_table_find_pattern(table, &entry->pattern))
		return -EEXIST;
	entry->next = *first;
	*first = entry;
	table->n++;
	return 0;
}

void host_table_remove(struct host_table *table, struct host_entry *entry)
{
	const struct host_name *name = &entry->pattern.name;
	struct host_entry **at = bucket(table, name->text, name->len);

	while (*at != entry) {
		assert(*at);
		at = &(*at)->next;
	}
	*at = entry->next;
	entry->next = NULL;
	table->n--;
}

struct host_entry *host_table_find(const struct host_table *table, const struct host_name *name)
{
	struct host_entry *entry = find(table, false, name->text, name->len);
	const char *dot = memchr(name->text, '.', name->len);

	if (entry || !dot)
		return entry;
	return find(table, true, dot + 1, name->len - (size_t)(dot + 1 - name->text));
}
