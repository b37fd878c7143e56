#include "common/relay_udp_wire.h"

#include <assert.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

static const struct relay_udp_header header = { .to = 0x01020304, .from = 0x05060708, .token = 0x090a0b0c };

/* One of each type, with bytes that tell the fields apart. */
static struct relay_udp_datagram example(enum relay_udp_type type)
{
	static const uint8_t packet[] = { 'a', 'b', 'c' };
	struct relay_udp_datagram d = { .type = type };

	if (type >= RELAY_UDP_FIND) {
		d.header = header;
		d.header.type = type;
	}
	switch (type) {
	case RELAY_UDP_ASK:
		d.ask.number = 0x1122334455667788;
		break;
	case RELAY_UDP_COOKIE:
		d.cookie.number = 0x1122334455667788;
		d.cookie.version = 1;
		memset(d.cookie.cookie, 0xc0, sizeof(d.cookie.cookie));
		break;
	case RELAY_UDP_BIND:
		d.bind = (struct relay_udp_bind){ .version = 1, .node_key = { { 7 } }, .number = 99 };
		memset(d.bind.cookie, 0xc0, sizeof(d.bind.cookie));
		memset(d.bind.mac, 0xaa, sizeof(d.bind.mac));
		break;
	case RELAY_UDP_BOUND:
		d.bound = (struct relay_udp_bound){ .slot = 5, .token = 6, .epoch = 8, .keep_alive_s = 20, .number = 99 };
		memset(d.bound.mac, 0xaa, sizeof(d.bound.mac));
		break;
	case RELAY_UDP_REFUSED:
		d.refused = (struct relay_udp_refused){ RELAY_UDP_FULL, 10000, 99, { 0 } };
		memset(d.refused.mac, 0xaa, sizeof(d.refused.mac));
		break;
	case RELAY_UDP_MOVED:
		d.moved.what = 0x0a0b0c0d;
		memset(d.moved.cookie, 0xc0, sizeof(d.moved.cookie));
		break;
	case RELAY_UDP_FIND:
	case RELAY_UDP_FOUND:
		memset(&d.node_key, 7, sizeof(d.node_key));
		break;
	case RELAY_UDP_PING:
	case RELAY_UDP_PONG:
		d.ping = (struct relay_udp_ping){ .number = 0x1122334455667788, .challenge = 0x99aabbcc };
		break;
	case RELAY_UDP_DATA:
		d.packet.bytes = packet;
		d.packet.len = sizeof(packet);
		break;
	case RELAY_UDP_GONE:
	case RELAY_UDP_N_TYPES:
		break;
	}
	return d;
}

static size_t encode(enum relay_udp_type type, uint8_t bytes[RELAY_UDP_MAX_LEN])
{
	const struct relay_udp_datagram d = example(type);

	return relay_udp_encode(bytes, RELAY_UDP_MAX_LEN, &d);
}

static void test_what_is_written_is_read(void)
{
	for (enum relay_udp_type type = 1; type < RELAY_UDP_N_TYPES; type++) {
		uint8_t bytes[RELAY_UDP_MAX_LEN], again[RELAY_UDP_MAX_LEN];
		struct relay_udp_datagram read;
		const size_t len = encode(type, bytes);

		assert(len > 0 && relay_udp_type(bytes, len) == type);
		assert(relay_udp_decode(bytes, len, &read) == 0 && read.type == type);
		assert(relay_udp_encode(again, sizeof(again), &read) == len && memcmp(bytes, again, len) == 0);
		for (size_t room = 0; room < len; room++)
			assert(relay_udp_encode(again, room, &read) == 0);
	}
}

static void test_the_bytes_are_those_of_the_document(void)
{
	static const uint8_t data[] = { 0xd2, 0x70, 0x72, 11, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 'a', 'b', 'c' };
	static const uint8_t bound[] = { 0xd2, 0x70, 0x72, 4, 0, 0, 0, 5, 0, 0,	0, 6,	 0,   0, 0, 8,
					 20,   0,    0,	   0, 0, 0, 0, 0, 0, 0, 0, 99, 0xaa, 0xaa };
	uint8_t bytes[RELAY_UDP_MAX_LEN];

	assert(encode(RELAY_UDP_DATA, bytes) == sizeof(data) && memcmp(bytes, data, sizeof(data)) == 0);
	assert(encode(RELAY_UDP_BOUND, bytes) == 44 && memcmp(bytes, bound, sizeof(bound)) == 0);
}

static void test_only_the_exact_length_is_a_datagram(void)
{
	for (enum relay_udp_type type = 1; type < RELAY_UDP_N_TYPES; type++) {
		uint8_t bytes[RELAY_UDP_MAX_LEN + 1] = { 0 };
		struct relay_udp_datagram read;
		const size_t len = encode(type, bytes);

		if (type == RELAY_UDP_DATA)
			continue;
		for (size_t n = 0; n <= sizeof(bytes); n++)
			assert((relay_udp_decode(bytes, n, &read) == 0) == (n == len));
	}
}

static void test_data_has_a_packet(void)
{
	uint8_t bytes[RELAY_UDP_MAX_LEN];
	struct relay_udp_header read;
	struct relay_udp_datagram empty = example(RELAY_UDP_DATA);
	const size_t len = encode(RELAY_UDP_DATA, bytes);

	assert(relay_udp_header_decode(bytes, len, &read) && read.to == header.to && read.from == header.from &&
	       read.token == header.token);
	assert(relay_udp_header_decode(bytes, RELAY_UDP_HEADER_LEN + 1, &read));
	for (size_t n = 0; n <= RELAY_UDP_HEADER_LEN; n++)
		assert(!relay_udp_header_decode(bytes, n, &read));
	empty.packet.len = 0;
	assert(relay_udp_encode(bytes, sizeof(bytes), &empty) == 0);
}

static void test_what_is_not_ours_is_none(void)
{
	uint8_t bytes[RELAY_UDP_MAX_LEN];
	const size_t len = encode(RELAY_UDP_PING, bytes);

	for (unsigned type = 0; type < 256; type++) {
		bytes[3] = (uint8_t)type;
		const bool fits = type == RELAY_UDP_PING || type == RELAY_UDP_PONG || type == RELAY_UDP_DATA;
		assert((relay_udp_type(bytes, len) != 0) == fits);
	}
	bytes[3] = RELAY_UDP_PING;
	for (int i = 0; i < 3; i++) {
		bytes[i] ^= 1;
		assert(relay_udp_type(bytes, len) == 0);
		bytes[i] ^= 1;
	}
	encode(RELAY_UDP_BOUND, bytes);
	memset(bytes + 4, 0, 4); /* slot 0 is the relay */
	struct relay_udp_datagram read;
	assert(relay_udp_decode(bytes, 44, &read) == RELAY_UDP_E_MALFORMED);
}

/* Each answer and what it may answer: a stranger cannot have more sent than he sends. */
static void test_no_answer_is_longer_than_its_question(void)
{
	static const enum relay_udp_type pairs[][2] = {
		{ RELAY_UDP_ASK, RELAY_UDP_COOKIE },  { RELAY_UDP_BIND, RELAY_UDP_BOUND },
		{ RELAY_UDP_BIND, RELAY_UDP_REFUSED }, { RELAY_UDP_BIND, RELAY_UDP_MOVED },
		{ RELAY_UDP_FIND, RELAY_UDP_FOUND },  { RELAY_UDP_FIND, RELAY_UDP_MOVED },
		{ RELAY_UDP_PING, RELAY_UDP_PONG },   { RELAY_UDP_PING, RELAY_UDP_MOVED },
		{ RELAY_UDP_DATA, RELAY_UDP_GONE },
	};
	uint8_t bytes[RELAY_UDP_MAX_LEN];

	for (size_t i = 0; i < ARRAY_LEN(pairs); i++)
		assert(encode(pairs[i][0], bytes) >= encode(pairs[i][1], bytes));
}

/* ---- proofs ---- */

struct end {
	struct secret_key secret;
	struct public_key public;
};

static struct end new_end(void)
{
	struct end end;

	secret_key_generate(&end.secret);
	secret_key_public(&end.secret, &end.public);
	return end;
}

static void test_both_ends_have_the_same_key_and_nobody_else(void)
{
	const struct end client = new_end(), relay = new_end(), other = new_end();
	struct relay_udp_key a, b, c, swapped;

	assert(relay_udp_key(&client.secret, &client.public, &relay.public, false, &a) == 0);
	assert(relay_udp_key(&relay.secret, &relay.public, &client.public, true, &b) == 0);
	assert(memcmp(&a, &b, sizeof(a)) == 0);
	assert(relay_udp_key(&relay.secret, &relay.public, &other.public, true, &c) == 0);
	assert(memcmp(&a, &c, sizeof(a)) != 0);
	/* What a node proves as a client it has not proven as a relay. */
	assert(relay_udp_key(&client.secret, &client.public, &relay.public, true, &swapped) == 0);
	assert(memcmp(&a, &swapped, sizeof(a)) != 0);
}

static void test_a_key_of_low_order_is_refused(void)
{
	const struct end relay = new_end();
	const struct public_key zero = { { 0 } }, one = { { 1 } };
	struct relay_udp_key key;

	assert(relay_udp_key(&relay.secret, &relay.public, &zero, true, &key) == RELAY_UDP_E_MALFORMED);
	assert(relay_udp_key(&relay.secret, &relay.public, &one, true, &key) == RELAY_UDP_E_MALFORMED);
}

static void test_every_bit_is_proven(void)
{
	static const enum relay_udp_type proven[] = { RELAY_UDP_BIND, RELAY_UDP_BOUND, RELAY_UDP_REFUSED };
	const struct relay_udp_key key = { { 1 } }, other = { { 2 } };
	uint8_t bytes[RELAY_UDP_MAX_LEN];

	for (size_t i = 0; i < ARRAY_LEN(proven); i++) {
		const size_t len = encode(proven[i], bytes);

		assert(!relay_udp_is_proven(&key, bytes, len));
		relay_udp_prove(&key, bytes, len);
		assert(relay_udp_is_proven(&key, bytes, len) && !relay_udp_is_proven(&other, bytes, len));
		for (size_t bit = 0; bit < len * 8; bit++) {
			bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
			assert(!relay_udp_is_proven(&key, bytes, len));
			bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
		}
	}
	assert(!relay_udp_is_proven(&key, bytes, RELAY_UDP_MAC_LEN - 1));
}

int main(void)
{
	if (sodium_init() < 0)
		return 1;
	test_what_is_written_is_read();
	test_the_bytes_are_those_of_the_document();
	test_only_the_exact_length_is_a_datagram();
	test_data_has_a_packet();
	test_what_is_not_ours_is_none();
	test_no_answer_is_longer_than_its_question();
	test_both_ends_have_the_same_key_and_nobody_else();
	test_a_key_of_low_order_is_refused();
	test_every_bit_is_proven();
	puts("ok");
}
