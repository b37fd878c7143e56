#include "relay/frontdoor/quic_ids.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

struct quic_id quic_id_from(const struct quic_cid *cid)
{
	struct quic_id id = { .len = cid->len < QUIC_MAX_CID ? cid->len : QUIC_MAX_CID };

	memcpy(id.bytes, cid->bytes, id.len);
	return id;
}

bool quic_id_equal(const struct quic_id *a, const struct quic_id *b)
{
	return a->len == b->len && memcmp(a->bytes, b->bytes, a->len) == 0;
}

void quic_ids_init(struct quic_ids *ids, uint32_t n_buckets)
{
	*ids = (struct quic_ids){ .n_buckets = 1 };
	while (ids->n_buckets < n_buckets)
		ids->n_buckets *= 2;
	ids->buckets = calloc(ids->n_buckets, sizeof(struct quic_known_id *));
	if (!ids->buckets)
		abort();
	crypto_shorthash_keygen(ids->seed);
}

void quic_ids_free(struct quic_ids *ids)
{
	free(ids->buckets);
}

static struct quic_known_id **bucket_of(const struct quic_ids *ids, const uint8_t *bytes, size_t len)
{
	uint8_t hash[crypto_shorthash_BYTES];
	uint32_t index;

	crypto_shorthash(hash, bytes, len, ids->seed);
	memcpy(&index, hash, sizeof(index));
	return &ids->buckets[index & (ids->n_buckets - 1)];
}

static struct quic_connection *find(const struct quic_ids *ids, const uint8_t *bytes, size_t len)
{
	for (const struct quic_known_id *known = *bucket_of(ids, bytes, len); known; known = known->next)
		if (known->id.len == len && memcmp(known->id.bytes, bytes, len) == 0)
			return known->connection;
	return NULL;
}

struct quic_connection *quic_ids_find(const struct quic_ids *ids, const struct quic_id *id)
{
	return ids->n_of_len[id->len] > 0 ? find(ids, id->bytes, id->len) : NULL;
}

struct quic_connection *quic_ids_find_prefix(const struct quic_ids *ids, const uint8_t *bytes, size_t len,
					     size_t least)
{
	struct quic_connection *found = NULL;

	for (size_t n = QUIC_MAX_CID; n >= least && !found; n--)
		if (n <= len && ids->n_of_len[n] > 0)
			found = find(ids, bytes, n);
	return found;
}

void quic_ids_learn(struct quic_ids *ids, struct quic_connection *connection, const struct quic_id *id)
{
	if (connection->n_ids == QUIC_KNOWN_IDS || quic_connection_find(connection, id))
		return;
	struct quic_known_id *known = &connection->ids[connection->n_ids++];
	*known = (struct quic_known_id){ .id = *id, .connection = connection };
	known->is_proof = id->len >= QUIC_MIN_KNOWN && !quic_id_equal(id, &connection->first);
	if (id->len < QUIC_MIN_KNOWN || find(ids, id->bytes, id->len))
		return;
	struct quic_known_id **bucket = bucket_of(ids, id->bytes, id->len);
	known->is_listed = true;
	known->next = *bucket;
	*bucket = known;
	ids->n_of_len[id->len]++;
}

void quic_ids_forget(struct quic_ids *ids, struct quic_connection *connection)
{
	for (uint8_t i = 0; i < connection->n_ids; i++) {
		struct quic_known_id *known = &connection->ids[i];
		if (!known->is_listed)
			continue;
		struct quic_known_id **at = bucket_of(ids, known->id.bytes, known->id.len);
		while (*at != known)
			at = &(*at)->next;
		*at = known->next;
		ids->n_of_len[known->id.len]--;
	}
	connection->n_ids = 0;
}

const struct quic_known_id *quic_connection_find(const struct quic_connection *connection, const struct quic_id *id)
{
	for (uint8_t i = 0; i < connection->n_ids; i++)
		if (quic_id_equal(&connection->ids[i].id, id))
			return &connection->ids[i];
	return NULL;
}

const struct quic_known_id *quic_connection_find_prefix(const struct quic_connection *connection, const uint8_t *bytes,
							 size_t len)
{
	for (uint8_t i = 0; i < connection->n_ids; i++) {
		const struct quic_id *id = &connection->ids[i].id;
		if (id->len > 0 && id->len <= len && memcmp(id->bytes, bytes, id->len) == 0)
			return &connection->ids[i];
	}
	return NULL;
}

bool quic_connection_can_be_proven(const struct quic_connection *connection)
{
	bool can = false;

	for (uint8_t i = 0; i < connection->n_ids; i++)
		can = can || connection->ids[i].is_proof;
	return can;
}
