/*
 * The box around session messages. Peers are in two hash tables, by id (to seal) and by key id (to
 * open); both grow together. A key id is chosen by its owner, so the second table is keyed.
 */
#include "actors/session_manager/session_box.h"

#include "common/replay.h"

#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define MIN_BUCKETS 64
#define MAX_PLAIN   (SESSION_MAX_PROBE_LEN - SESSION_HEADER_LEN - SESSION_TAG_LEN)
#define KEY_CONTEXT "p2pnode session message v1"

static_assert(SESSION_TAG_LEN == crypto_aead_chacha20poly1305_ietf_ABYTES, "the tag of the box");

struct entry {
	struct entry *next_by_id, *next_by_key_id;
	uint32_t peer_id;
	struct public_key key;
	uint8_t key_id[SESSION_KEY_ID_LEN];
	uint8_t seal_key[crypto_aead_chacha20poly1305_ietf_KEYBYTES];
	uint8_t open_key[crypto_aead_chacha20poly1305_ietf_KEYBYTES];
	struct replay replay;
};

struct session_box {
	struct secret_key secret;
	struct public_key public;
	uint8_t key_id[SESSION_KEY_ID_LEN];
	uint64_t counter; /* of the next message, to whomever: never repeats under one key */
	uint8_t hash_key[crypto_shorthash_KEYBYTES];
	size_t n_buckets, n_entries; /* buckets: a power of two */
	struct entry **by_id, **by_key_id;
	struct session_counters counters;
};

static void *must_calloc(size_t n, size_t size)
{
	void *p = calloc(n, size);

	if (!p)
		abort();
	return p;
}

void session_key_id(const struct public_key *session_key, uint8_t ret[SESSION_KEY_ID_LEN])
{
	uint8_t hash[32];

	crypto_generichash(hash, sizeof(hash), session_key->bytes, KEY_LEN, NULL, 0);
	memcpy(ret, hash, SESSION_KEY_ID_LEN);
}

/* ---- the tables ---- */

static size_t bucket_of(const struct session_box *box, const void *key, size_t len)
{
	uint8_t hash[crypto_shorthash_BYTES];
	uint64_t value;

	crypto_shorthash(hash, key, len, box->hash_key);
	memcpy(&value, hash, sizeof(value));
	return (size_t)value & (box->n_buckets - 1);
}

static struct entry **bucket_by_id(const struct session_box *box, uint32_t peer_id)
{
	return &box->by_id[bucket_of(box, &peer_id, sizeof(peer_id))];
}

static struct entry **bucket_by_key_id(const struct session_box *box, const uint8_t *key_id)
{
	return &box->by_key_id[bucket_of(box, key_id, SESSION_KEY_ID_LEN)];
}

static struct entry *find_by_id(const struct session_box *box, uint32_t peer_id)
{
	struct entry *entry = *bucket_by_id(box, peer_id);

	while (entry && entry->peer_id != peer_id)
		entry = entry->next_by_id;
	return entry;
}

static struct entry *find_by_key_id(const struct session_box *box, const uint8_t *key_id)
{
	struct entry *entry = *bucket_by_key_id(box, key_id);

	while (entry && memcmp(entry->key_id, key_id, SESSION_KEY_ID_LEN) != 0)
		entry = entry->next_by_key_id;
	return entry;
}

static void link_entry(struct session_box *box, struct entry *entry)
{
	struct entry **id = bucket_by_id(box, entry->peer_id);
	struct entry **key_id = bucket_by_key_id(box, entry->key_id);

	entry->next_by_id = *id;
	*id = entry;
	entry->next_by_key_id = *key_id;
	*key_id = entry;
}

static void unlink_entry(struct session_box *box, struct entry *entry)
{
	struct entry **id = bucket_by_id(box, entry->peer_id);
	struct entry **key_id = bucket_by_key_id(box, entry->key_id);

	while (*id != entry)
		id = &(*id)->next_by_id;
	*id = entry->next_by_id;
	while (*key_id != entry)
		key_id = &(*key_id)->next_by_key_id;
	*key_id = entry->next_by_key_id;
}

static void free_entry(struct entry *entry)
{
	sodium_memzero(entry, sizeof(*entry));
	free(entry);
}

static void grow(struct session_box *box)
{
	struct entry **old = box->by_id;
	size_t n_old = box->n_buckets;

	box->n_buckets = n_old ? n_old * 2 : MIN_BUCKETS;
	free(box->by_key_id);
	box->by_id = must_calloc(box->n_buckets, sizeof(*box->by_id));
	box->by_key_id = must_calloc(box->n_buckets, sizeof(*box->by_key_id));
	for (size_t i = 0; i < n_old; i++) {
		for (struct entry *entry = old[i], *next; entry; entry = next) {
			next = entry->next_by_id;
			link_entry(box, entry);
		}
	}
	free(old);
}

/* ---- life ---- */

struct session_box *session_box_new(const struct secret_key *ours)
{
	struct session_box *box = must_calloc(1, sizeof(*box));

	box->secret = *ours;
	secret_key_public(ours, &box->public);
	session_key_id(&box->public, box->key_id);
	randombytes_buf(box->hash_key, sizeof(box->hash_key));
	grow(box);
	return box;
}

struct session_box *session_box_free(struct session_box *box)
{
	if (!box)
		return NULL;
	for (size_t i = 0; i < box->n_buckets; i++) {
		for (struct entry *entry = box->by_id[i], *next; entry; entry = next) {
			next = entry->next_by_id;
			free_entry(entry);
		}
	}
	free(box->by_id);
	free(box->by_key_id);
	sodium_memzero(box, sizeof(*box));
	free(box);
	return NULL;
}

/* ---- keys ---- */

/* BLAKE2b-256 keyed with the shared secret, over context ‖ sender's key ‖ receiver's key. */
static void derive(const uint8_t *shared, const struct public_key *from,
		   const struct public_key *to, uint8_t *ret)
{
	crypto_generichash_state state;

	crypto_generichash_init(&state, shared, crypto_scalarmult_BYTES, 32);
	crypto_generichash_update(&state, (const uint8_t *)KEY_CONTEXT, strlen(KEY_CONTEXT));
	crypto_generichash_update(&state, from->bytes, KEY_LEN);
	crypto_generichash_update(&state, to->bytes, KEY_LEN);
	crypto_generichash_final(&state, ret, 32);
	sodium_memzero(&state, sizeof(state));
}

static struct entry *new_entry(const struct session_box *box, uint32_t peer_id,
			       const struct public_key *key)
{
	struct entry *entry = must_calloc(1, sizeof(*entry));
	uint8_t shared[crypto_scalarmult_BYTES];

	/* A key of low order gives the same secret with everybody; libsodium refuses it. */
	if (crypto_scalarmult(shared, box->secret.bytes, key->bytes) != 0) {
		free(entry);
		return NULL;
	}
	entry->peer_id = peer_id;
	entry->key = *key;
	session_key_id(key, entry->key_id);
	derive(shared, &box->public, key, entry->seal_key);
	derive(shared, key, &box->public, entry->open_key);
	sodium_memzero(shared, sizeof(shared));
	return entry;
}

void session_box_remove_peer(struct session_box *box, uint32_t peer_id)
{
	struct entry *entry = find_by_id(box, peer_id);

	if (!entry)
		return;
	unlink_entry(box, entry);
	free_entry(entry);
	box->n_entries--;
}

int session_box_set_peer(struct session_box *box, uint32_t peer_id,
			 const struct public_key *session_key)
{
	struct entry *entry = find_by_id(box, peer_id);

	if (entry && public_key_equal(&entry->key, session_key))
		return 0;
	if (public_key_is_zero(session_key) || public_key_equal(&box->public, session_key))
		return -EINVAL;
	entry = new_entry(box, peer_id, session_key);
	if (!entry)
		return -EINVAL;
	if (find_by_key_id(box, entry->key_id) ||
	    memcmp(box->key_id, entry->key_id, SESSION_KEY_ID_LEN) == 0) {
		free_entry(entry);
		return -EEXIST;
	}
	session_box_remove_peer(box, peer_id);
	if (box->n_entries >= box->n_buckets)
		grow(box);
	link_entry(box, entry);
	box->n_entries++;
	return 0;
}

bool session_box_has_peer(const struct session_box *box, uint32_t peer_id)
{
	return find_by_id(box, peer_id) != NULL;
}

/* ---- messages ---- */

static void nonce_of(uint64_t counter, uint8_t ret[crypto_aead_chacha20poly1305_ietf_NPUBBYTES])
{
	struct wire_writer w = wire_writer(ret, crypto_aead_chacha20poly1305_ietf_NPUBBYTES);

	wire_put_u32(&w, 0);
	wire_put_u64(&w, counter);
}

static bool decrypt(const struct entry *entry, const struct session_header *header,
		    const uint8_t *datagram, size_t len, uint8_t plain[MAX_PLAIN])
{
	uint8_t nonce[crypto_aead_chacha20poly1305_ietf_NPUBBYTES];

	nonce_of(header->counter, nonce);
	return crypto_aead_chacha20poly1305_ietf_decrypt(
		       plain, NULL, NULL, datagram + SESSION_HEADER_LEN, len - SESSION_HEADER_LEN,
		       datagram, SESSION_HEADER_LEN, nonce, entry->open_key) == 0;
}

/* Cheapest first: sizes, then the key id, then the window, and only then the box. */
static int open_box(struct session_box *box, const uint8_t *datagram, size_t len,
		    struct session_opened *ret)
{
	struct session_header header;
	struct entry *entry;
	uint8_t plain[MAX_PLAIN];
	int r;

	if (len <= SESSION_HEADER_LEN + SESSION_TAG_LEN || len > SESSION_MAX_PROBE_LEN)
		return SESSION_E_MALFORMED;
	r = session_header_decode(datagram, len, &header);
	if (r != 0)
		return r;
	if (memcmp(header.key_id, box->key_id, SESSION_KEY_ID_LEN) == 0)
		return SESSION_E_REFLECTED;
	entry = find_by_key_id(box, header.key_id);
	if (!entry)
		return SESSION_E_UNKNOWN_KEY;
	if (!replay_is_fresh(&entry->replay, header.counter))
		return SESSION_E_REPLAYED;
	if (!decrypt(entry, &header, datagram, len, plain))
		return SESSION_E_FORGED;
	replay_accept(&entry->replay,
		      header.counter); /* only now: a forged counter moves nothing */
	r = session_message_decode(plain, len - SESSION_HEADER_LEN - SESSION_TAG_LEN,
				   &ret->message);
	if (r == 0)
		ret->peer_id = entry->peer_id;
	return r;
}

int session_box_open(struct session_box *box, const void *datagram, size_t len,
		     struct session_opened *ret)
{
	int r = open_box(box, datagram, len, ret);

	if (r == 0)
		box->counters.opened++;
	else
		box->counters.dropped[r]++;
	return r;
}

size_t session_box_seal(struct session_box *box, uint32_t peer_id,
			const struct session_message *message, void *buf, size_t cap)
{
	const struct entry *entry = find_by_id(box, peer_id);
	struct session_header header = { .counter = box->counter };
	uint8_t plain[MAX_PLAIN], nonce[crypto_aead_chacha20poly1305_ietf_NPUBBYTES];
	uint8_t *out = buf;
	size_t len = session_message_encode(plain, sizeof(plain), message);

	if (!entry || len == 0 || cap < SESSION_HEADER_LEN + len + SESSION_TAG_LEN ||
	    box->counter >= REPLAY_LIMIT)
		return 0;
	box->counter++;
	memcpy(header.key_id, box->key_id, SESSION_KEY_ID_LEN);
	session_header_encode(out, SESSION_HEADER_LEN, &header);
	nonce_of(header.counter, nonce);
	crypto_aead_chacha20poly1305_ietf_encrypt(out + SESSION_HEADER_LEN, NULL, plain, len, out,
						  SESSION_HEADER_LEN, NULL, nonce, entry->seal_key);
	box->counters.sealed++;
	return SESSION_HEADER_LEN + len + SESSION_TAG_LEN;
}

const struct session_counters *session_box_counters(const struct session_box *box)
{
	return &box->counters;
}
