#include "common/relay_udp_wire.h"

#include "common/wire.h"

#include <sodium.h>
#include <string.h>

#define KEY_LABEL "p2pnode relay UDP v1"
#define MAGIC_MASK 0xffffff00u

/* Whole datagrams, header included; of data the shortest. */
static const size_t lengths[RELAY_UDP_N_TYPES] = {
	[RELAY_UDP_ASK] = 64, /* the answer fits into it twice */
	[RELAY_UDP_COOKIE] = 32,
	[RELAY_UDP_BIND] = 80,
	[RELAY_UDP_BOUND] = 44,
	[RELAY_UDP_REFUSED] = 36,
	[RELAY_UDP_MOVED] = 24,
	[RELAY_UDP_FIND] = RELAY_UDP_HEADER_LEN + KEY_LEN,
	[RELAY_UDP_FOUND] = RELAY_UDP_HEADER_LEN + KEY_LEN,
	[RELAY_UDP_PING] = RELAY_UDP_HEADER_LEN + 12,
	[RELAY_UDP_PONG] = RELAY_UDP_HEADER_LEN + 12,
	[RELAY_UDP_DATA] = RELAY_UDP_HEADER_LEN + 1,
	[RELAY_UDP_GONE] = RELAY_UDP_HEADER_LEN,
};

enum relay_udp_type relay_udp_type(const void *bytes, size_t len)
{
	struct wire_reader r = wire_reader(bytes, len);
	const uint32_t first = wire_u32(&r), type = first & ~MAGIC_MASK;

	if (r.failed || (first & MAGIC_MASK) != RELAY_UDP_MAGIC || type == 0 || type >= RELAY_UDP_N_TYPES)
		return 0;
	if (type == RELAY_UDP_DATA ? len < lengths[type] : len != lengths[type])
		return 0;
	return (enum relay_udp_type)type;
}

/* ---- the header of those who are bound ---- */

static void read_header(struct wire_reader *r, struct relay_udp_header *ret)
{
	ret->to = wire_u32(r);
	ret->from = wire_u32(r);
	ret->token = wire_u32(r);
}

static void put_header(struct wire_writer *w, const struct relay_udp_header *header)
{
	wire_put_u32(w, header->to);
	wire_put_u32(w, header->from);
	wire_put_u32(w, header->token);
}

bool relay_udp_header_decode(const void *bytes, size_t len, struct relay_udp_header *ret)
{
	struct wire_reader r = wire_reader(bytes, len);

	ret->type = relay_udp_type(bytes, len);
	wire_u32(&r);
	read_header(&r, ret);
	return ret->type == RELAY_UDP_DATA;
}

void relay_udp_header_encode(uint8_t bytes[RELAY_UDP_HEADER_LEN], const struct relay_udp_header *header)
{
	struct wire_writer w = wire_writer(bytes, RELAY_UDP_HEADER_LEN);

	wire_put_u32(&w, RELAY_UDP_MAGIC | (uint32_t)header->type);
	put_header(&w, header);
}

bool relay_packet_is_probe(const uint8_t *packet, size_t len)
{
	static const uint8_t magic[] = { RELAY_PROBE_MAGIC >> 24, RELAY_PROBE_MAGIC >> 16 & 0xff,
					 RELAY_PROBE_MAGIC >> 8 & 0xff, RELAY_PROBE_MAGIC & 0xff };

	return len >= RELAY_PROBE_MIN_LEN && memcmp(packet, magic, sizeof(magic)) == 0;
}

/* ---- all ---- */

static void read_bind(struct wire_reader *r, struct relay_udp_bind *ret)
{
	ret->version = wire_u8(r);
	wire_take(r, 3);
	wire_bytes(r, ret->cookie, sizeof(ret->cookie));
	wire_bytes(r, ret->node_key.bytes, KEY_LEN);
	ret->number = wire_u64(r);
	wire_bytes(r, ret->mac, sizeof(ret->mac));
}

static void read_bound(struct wire_reader *r, struct relay_udp_bound *ret)
{
	ret->slot = wire_u32(r);
	ret->token = wire_u32(r);
	ret->epoch = wire_u32(r);
	ret->keep_alive_s = wire_u8(r);
	wire_take(r, 3);
	ret->number = wire_u64(r);
	wire_bytes(r, ret->mac, sizeof(ret->mac));
}

static void read_refused(struct wire_reader *r, struct relay_udp_refused *ret)
{
	ret->reason = (enum relay_udp_reason)wire_u8(r);
	wire_take(r, 3);
	ret->retry_after_ms = wire_u32(r);
	ret->number = wire_u64(r);
	wire_bytes(r, ret->mac, sizeof(ret->mac));
}

static void read_body(struct wire_reader *r, struct relay_udp_datagram *ret)
{
	switch (ret->type) {
	case RELAY_UDP_ASK:
		ret->ask.number = wire_u64(r);
		break;
	case RELAY_UDP_COOKIE:
		ret->cookie.number = wire_u64(r);
		ret->cookie.version = wire_u8(r);
		wire_take(r, 3);
		wire_bytes(r, ret->cookie.cookie, sizeof(ret->cookie.cookie));
		break;
	case RELAY_UDP_BIND:
		read_bind(r, &ret->bind);
		break;
	case RELAY_UDP_BOUND:
		read_bound(r, &ret->bound);
		break;
	case RELAY_UDP_REFUSED:
		read_refused(r, &ret->refused);
		break;
	case RELAY_UDP_MOVED:
		ret->moved.what = wire_u32(r);
		wire_bytes(r, ret->moved.cookie, sizeof(ret->moved.cookie));
		break;
	case RELAY_UDP_FIND:
	case RELAY_UDP_FOUND:
		wire_bytes(r, ret->node_key.bytes, KEY_LEN);
		break;
	case RELAY_UDP_PING:
	case RELAY_UDP_PONG:
		ret->ping.number = wire_u64(r);
		ret->ping.challenge = wire_u32(r);
		break;
	case RELAY_UDP_DATA:
		ret->packet.len = wire_left(r);
		ret->packet.bytes = wire_take(r, ret->packet.len);
		break;
	case RELAY_UDP_GONE:
	case RELAY_UDP_N_TYPES:
		break;
	}
}

int relay_udp_decode(const void *bytes, size_t len, struct relay_udp_datagram *ret)
{
	struct wire_reader r = wire_reader(bytes, len);
	struct relay_udp_datagram datagram = { .type = relay_udp_type(bytes, len) };

	if (!datagram.type)
		return RELAY_UDP_E_MALFORMED;
	wire_u32(&r);
	if (datagram.type >= RELAY_UDP_FIND) {
		datagram.header.type = datagram.type;
		read_header(&r, &datagram.header);
	}
	read_body(&r, &datagram);
	if (r.failed || (datagram.type == RELAY_UDP_BOUND && datagram.bound.slot == 0))
		return RELAY_UDP_E_MALFORMED;
	*ret = datagram;
	return 0;
}

static void put_zeros(struct wire_writer *w, size_t n)
{
	uint8_t *at = wire_reserve(w, n);

	if (at)
		memset(at, 0, n);
}

static void put_cookie(struct wire_writer *w, const struct relay_udp_datagram *datagram)
{
	wire_put_u64(w, datagram->cookie.number);
	wire_put_u8(w, datagram->cookie.version);
	put_zeros(w, 3);
	wire_put(w, datagram->cookie.cookie, RELAY_UDP_COOKIE_LEN);
}

static void put_bind(struct wire_writer *w, const struct relay_udp_bind *bind)
{
	wire_put_u8(w, bind->version);
	put_zeros(w, 3);
	wire_put(w, bind->cookie, RELAY_UDP_COOKIE_LEN);
	wire_put(w, bind->node_key.bytes, KEY_LEN);
	wire_put_u64(w, bind->number);
	wire_put(w, bind->mac, RELAY_UDP_MAC_LEN);
}

static void put_bound(struct wire_writer *w, const struct relay_udp_datagram *datagram)
{
	wire_put_u32(w, datagram->bound.slot);
	wire_put_u32(w, datagram->bound.token);
	wire_put_u32(w, datagram->bound.epoch);
	wire_put_u8(w, datagram->bound.keep_alive_s);
	put_zeros(w, 3);
	wire_put_u64(w, datagram->bound.number);
	wire_put(w, datagram->bound.mac, RELAY_UDP_MAC_LEN);
}

static void put_refused(struct wire_writer *w, const struct relay_udp_datagram *datagram)
{
	wire_put_u8(w, (uint8_t)datagram->refused.reason);
	put_zeros(w, 3);
	wire_put_u32(w, datagram->refused.retry_after_ms);
	wire_put_u64(w, datagram->refused.number);
	wire_put(w, datagram->refused.mac, RELAY_UDP_MAC_LEN);
}

static void put_body(struct wire_writer *w, const struct relay_udp_datagram *datagram)
{
	switch (datagram->type) {
	case RELAY_UDP_ASK:
		wire_put_u64(w, datagram->ask.number);
		put_zeros(w, lengths[RELAY_UDP_ASK] - 4 - 8);
		break;
	case RELAY_UDP_COOKIE:
		put_cookie(w, datagram);
		break;
	case RELAY_UDP_BIND:
		put_bind(w, &datagram->bind);
		break;
	case RELAY_UDP_BOUND:
		put_bound(w, datagram);
		break;
	case RELAY_UDP_REFUSED:
		put_refused(w, datagram);
		break;
	case RELAY_UDP_MOVED:
		wire_put_u32(w, datagram->moved.what);
		wire_put(w, datagram->moved.cookie, RELAY_UDP_COOKIE_LEN);
		break;
	case RELAY_UDP_FIND:
	case RELAY_UDP_FOUND:
		wire_put(w, datagram->node_key.bytes, KEY_LEN);
		break;
	case RELAY_UDP_PING:
	case RELAY_UDP_PONG:
		wire_put_u64(w, datagram->ping.number);
		wire_put_u32(w, datagram->ping.challenge);
		break;
	case RELAY_UDP_DATA:
		wire_put(w, datagram->packet.bytes, datagram->packet.len);
		break;
	case RELAY_UDP_GONE:
	case RELAY_UDP_N_TYPES:
		break;
	}
}

size_t relay_udp_encode(void *bytes, size_t room, const struct relay_udp_datagram *datagram)
{
	struct wire_writer w = wire_writer(bytes, room);

	if (datagram->type == 0 || datagram->type >= RELAY_UDP_N_TYPES ||
	    (datagram->type == RELAY_UDP_DATA && datagram->packet.len == 0))
		return 0;
	wire_put_u32(&w, RELAY_UDP_MAGIC | (uint32_t)datagram->type);
	if (datagram->type >= RELAY_UDP_FIND)
		put_header(&w, &datagram->header);
	put_body(&w, datagram);
	return w.failed ? 0 : wire_written(&w);
}

/* ---- proofs ---- */

int relay_udp_key(const struct secret_key *ours, const struct public_key *our_public,
		  const struct public_key *theirs, bool we_are_relay, struct relay_udp_key *ret)
{
	const struct public_key *client = we_are_relay ? theirs : our_public;
	const struct public_key *relay = we_are_relay ? our_public : theirs;
	crypto_generichash_state state;
	uint8_t shared[KEY_LEN];

	if (crypto_scalarmult(shared, ours->bytes, theirs->bytes) != 0)
		return RELAY_UDP_E_MALFORMED;
	crypto_generichash_init(&state, shared, sizeof(shared), sizeof(ret->bytes));
	crypto_generichash_update(&state, (const uint8_t *)KEY_LABEL, sizeof(KEY_LABEL) - 1);
	crypto_generichash_update(&state, client->bytes, KEY_LEN);
	crypto_generichash_update(&state, relay->bytes, KEY_LEN);
	crypto_generichash_final(&state, ret->bytes, sizeof(ret->bytes));
	sodium_memzero(&state, sizeof(state));
	sodium_memzero(shared, sizeof(shared));
	return 0;
}

static void make_mac(const struct relay_udp_key *key, const void *bytes, size_t len,
		     uint8_t ret[RELAY_UDP_MAC_LEN])
{
	crypto_generichash(ret, RELAY_UDP_MAC_LEN, bytes, len, key->bytes, sizeof(key->bytes));
}

void relay_udp_prove(const struct relay_udp_key *key, void *bytes, size_t len)
{
	const size_t before = len - RELAY_UDP_MAC_LEN;

	make_mac(key, bytes, before, (uint8_t *)bytes + before);
}

bool relay_udp_is_proven(const struct relay_udp_key *key, const void *bytes, size_t len)
{
	uint8_t expected[RELAY_UDP_MAC_LEN];

	if (len < RELAY_UDP_MAC_LEN)
		return false;
	make_mac(key, bytes, len - RELAY_UDP_MAC_LEN, expected);
	return sodium_memcmp(expected, (const uint8_t *)bytes + len - RELAY_UDP_MAC_LEN, sizeof(expected)) == 0;
}
