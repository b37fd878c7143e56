#include "actors/lan_discovery/lan_announcement_wire.h"

#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <string.h>

#define CONTEXT "p2pnode lan announcement v2"

static const uint8_t magic[4] = { 0xd2, 0x70, 0x32, 0x6c };

static_assert(LAN_TAG_LEN >= crypto_generichash_BYTES_MIN, "the shortest hash");

int lan_announcement_decode(const uint8_t *bytes, size_t len, struct lan_announcement *ret)
{
	struct wire_reader r = wire_reader(bytes, len);
	struct lan_announcement a = { 0 };
	uint8_t begin[sizeof(magic)];

	wire_bytes(&r, begin, sizeof(begin));
	a.kind = (enum lan_kind)wire_u8(&r);
	a.n_tags = wire_u8(&r);
	a.port = wire_u16(&r);
	a.sequence = wire_u64(&r);
	wire_bytes(&r, a.session_key.bytes, KEY_LEN);
	a.answered = wire_u64(&r);
	if (a.n_tags == 0 || a.n_tags > LAN_MAX_TAGS)
		return -EBADMSG;
	wire_bytes(&r, a.tags, a.n_tags * LAN_TAG_LEN);
	if (!wire_done(&r) || memcmp(begin, magic, sizeof(magic)) != 0 ||
	    (a.kind != LAN_CALL && a.kind != LAN_ANSWER) || a.port == 0 || a.sequence == 0 ||
	    public_key_is_zero(&a.session_key) || (a.kind == LAN_ANSWER) != (a.answered != 0))
		return -EBADMSG;
	*ret = a;
	return 0;
}

size_t lan_announcement_encode(const struct lan_announcement *announcement, uint8_t *ret, size_t cap)
{
	struct wire_writer w = wire_writer(ret, cap);

	wire_put(&w, magic, sizeof(magic));
	wire_put_u8(&w, (uint8_t)announcement->kind);
	wire_put_u8(&w, (uint8_t)announcement->n_tags);
	wire_put_u16(&w, announcement->port);
	wire_put_u64(&w, announcement->sequence);
	wire_put(&w, announcement->session_key.bytes, KEY_LEN);
	wire_put_u64(&w, announcement->answered);
	wire_put(&w, announcement->tags, announcement->n_tags * LAN_TAG_LEN);
	return wire_written(&w);
}

static void derive(const uint8_t shared[KEY_LEN], const struct public_key *from, const struct public_key *to,
		   uint8_t ret[KEY_LEN])
{
	crypto_generichash_state state;

	crypto_generichash_init(&state, shared, KEY_LEN, KEY_LEN);
	crypto_generichash_update(&state, (const uint8_t *)CONTEXT, sizeof(CONTEXT) - 1);
	crypto_generichash_update(&state, from->bytes, KEY_LEN);
	crypto_generichash_update(&state, to->bytes, KEY_LEN);
	crypto_generichash_final(&state, ret, KEY_LEN);
	sodium_memzero(&state, sizeof(state));
}

int lan_keys_derive(const struct secret_key *node_key, const struct public_key *peer, struct lan_keys *ret)
{
	uint8_t shared[KEY_LEN];
	struct public_key own;

	if (crypto_scalarmult(shared, node_key->bytes, peer->bytes) != 0)
		return -EINVAL;
	secret_key_public(node_key, &own);
	derive(shared, &own, peer, ret->to_peer);
	derive(shared, peer, &own, ret->from_peer);
	sodium_memzero(shared, sizeof(shared));
	return 0;
}

int lan_sessions_shared(const struct secret_key *session_secret, const struct public_key *other, uint8_t ret[KEY_LEN])
{
	return crypto_scalarmult(ret, session_secret->bytes, other->bytes) == 0 ? 0 : -EINVAL;
}

void lan_tag(const uint8_t key[KEY_LEN], const struct lan_announcement *announcement, const struct endpoint *source,
	     const struct lan_answered *answered, uint8_t ret[LAN_TAG_LEN])
{
	uint8_t text[1 + 2 + 8 + KEY_LEN + 8 + KEY_LEN + KEY_LEN + 16];
	struct wire_writer w = wire_writer(text, sizeof(text));

	wire_put_u8(&w, (uint8_t)announcement->kind);
	wire_put_u16(&w, announcement->port);
	wire_put_u64(&w, announcement->sequence);
	wire_put(&w, announcement->session_key.bytes, KEY_LEN);
	wire_put_u64(&w, announcement->answered);
	if (announcement->kind == LAN_ANSWER) {
		wire_put(&w, answered->session_key.bytes, KEY_LEN);
		wire_put(&w, answered->shared, KEY_LEN);
	}
	wire_put(&w, source->ip, sizeof(source->ip));
	crypto_generichash(ret, LAN_TAG_LEN, text, wire_written(&w), key, KEY_LEN);
	sodium_memzero(text, sizeof(text));
}
