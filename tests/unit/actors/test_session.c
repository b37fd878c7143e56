/*
 * Session messages and their box: docs/PROTOCOL-session.md, whose vectors are repeated here.
 * The vectors were also computed by an implementation of that text in another language.
 */
#include "actors/session_manager/session_box.h"
#include "common/macros.h"
#include "common/replay.h"

#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALICE = 1, BOB = 2, CAROL = 3 };

struct world {
	struct secret_key secret[4];
	struct public_key public[4];
	struct session_box *box[4];
	uint8_t bytes[SESSION_MAX_LEN];
	size_t len;
	struct session_opened opened;
};

static void begin(struct world *w)
{
	memset(w, 0, sizeof(*w));
	for (int i = 0; i < KEY_LEN; i++) {
		w->secret[ALICE].bytes[i] = (uint8_t)(i + 1);
		w->secret[BOB].bytes[i] = (uint8_t)(0x80 + i);
		w->secret[CAROL].bytes[i] = (uint8_t)(0x40 + i);
	}
	for (int i = ALICE; i <= CAROL; i++) {
		secret_key_public(&w->secret[i], &w->public[i]);
		w->box[i] = session_box_new(&w->secret[i]);
	}
}

static void end(struct world *w)
{
	for (int i = ALICE; i <= CAROL; i++)
		w->box[i] = session_box_free(w->box[i]);
}

static void knows(struct world *w, int who, uint32_t whom)
{
	int r = session_box_set_peer(w->box[who], whom, &w->public[whom]);

	assert(r == 0);
}

static void given_alice_and_bob(struct world *w)
{
	begin(w);
	knows(w, ALICE, BOB);
	knows(w, BOB, ALICE);
}

static struct session_message a_ping(void)
{
	struct session_message ping = { .type = SESSION_PING, .n_padding = SESSION_PING_PADDING };

	for (int i = 0; i < SESSION_TX_ID_LEN; i++)
		ping.tx_id[i] = (uint8_t)(0xa0 + i);
	return ping;
}

static void seals(struct world *w, int from, uint32_t to, const struct session_message *message)
{
	w->len = session_box_seal(w->box[from], to, message, w->bytes, sizeof(w->bytes));
}

static int opens(struct world *w, int who)
{
	return session_box_open(w->box[who], w->bytes, w->len, &w->opened);
}

static void expect_bytes(const struct world *w, const char *hex)
{
	char got[2 * SESSION_MAX_LEN + 1];

	sodium_bin2hex(got, sizeof(got), w->bytes, w->len);
	if (strcmp(got, hex) != 0) {
		fprintf(stderr, "expected %s\ngot      %s\n", hex, got);
		abort();
	}
}

/* ---- vectors ---- */

static void test_the_ping_of_the_specification(void)
{
	struct world w;
	struct session_message ping = a_ping();
	given_alice_and_bob(&w);

	seals(&w, ALICE, BOB, &ping);

	expect_bytes(
		&w,
		"d2703270f895e0f69f4946fe0000000000000000dab20b3a2106b3b1eed3f55cebaf3a14f892841085"
		"ac5668dcad3551c5cfe8faa40703aaa87138089f1334c90580a0");
	assert(opens(&w, BOB) == 0);
	assert(w.opened.peer_id == ALICE && w.opened.message.type == SESSION_PING);
	assert(memcmp(w.opened.message.tx_id, ping.tx_id, SESSION_TX_ID_LEN) == 0);
	end(&w);
}

static void test_the_pong_of_the_specification_is_as_long_as_its_ping(void)
{
	struct world w;
	struct session_message pong = a_ping(), ping = a_ping();
	given_alice_and_bob(&w);
	pong.type = SESSION_PONG;
	pong.observed = endpoint_from_v4(0xcb007105, 40001);

	seals(&w, ALICE, BOB, &ping);
	size_t ping_len = w.len;
	seals(&w, BOB, ALICE, &pong);

	assert(w.len == ping_len);
	expect_bytes(
		&w,
		"d2703270e9e4ce8143f5ede7000000000000000014db4dac70539fc034873dbf0b7c3e2727355ac945"
		"3ff92b83f1558425aab9887e8f5f80b3e80125eb42492e854d3b");
	assert(opens(&w, ALICE) == 0);
	assert(endpoint_equal(&w.opened.message.observed, &pong.observed));
	end(&w);
}

static void test_the_rendezvous_of_the_specification(void)
{
	struct world w;
	struct session_message ping = a_ping();
	struct session_message rendezvous = { .type = SESSION_RENDEZVOUS, .n_endpoints = 2 };
	given_alice_and_bob(&w);
	rendezvous.endpoints[0] = endpoint_from_v4(0xc0a80102, 7000);
	int r = endpoint_parse("[2001:db8::5]:7000", &rendezvous.endpoints[1]);
	assert(r == 0);

	seals(&w, ALICE, BOB, &ping);
	seals(&w, ALICE, BOB, &rendezvous);

	expect_bytes(
		&w,
		"d2703270f895e0f69f4946fe000000000000000113ec1220167d9456cdd83d07d316e603f01148ba6f"
		"8c20fa2b95150c277d853fc221d3228934bfdcf91c3af23a0dc21cc135ef31374e");
	assert(opens(&w, BOB) == 0);
	assert(w.opened.message.n_endpoints == 2);
	assert(endpoint_equal(&w.opened.message.endpoints[1], &rendezvous.endpoints[1]));
	end(&w);
}

static void test_the_probe_and_its_answer_of_the_specification(void)
{
	struct world w;
	struct session_message ping = a_ping(), probe = a_ping(), passed = a_ping();
	given_alice_and_bob(&w);
	probe.type = SESSION_PROBE;
	probe.n_padding = 3;
	passed.type = SESSION_PASSED;

	seals(&w, ALICE, BOB, &ping);
	seals(&w, ALICE, BOB, &ping);
	seals(&w, ALICE, BOB, &probe);
	expect_bytes(&w, "d2703270f895e0f69f4946fe0000000000000002094dd49fda88edd36ffc63afbe4094078a35d16c91a1c529229c8e26"
			 "459e6891");
	assert(opens(&w, BOB) == 0 && w.opened.message.n_padding == 3);

	seals(&w, BOB, ALICE, &ping);
	seals(&w, BOB, ALICE, &passed);
	expect_bytes(&w, "d2703270e9e4ce8143f5ede7000000000000000195fe3f4a5369ca3a60a98395d3b88091b53ccab90ddd27439c338fc3"
			 "c1");
	assert(opens(&w, ALICE) == 0);
	assert(memcmp(w.opened.message.tx_id, probe.tx_id, SESSION_TX_ID_LEN) == 0);
	end(&w);
}

/* Made by an implementation in another language, as the others. */
static void test_the_wireguard_receipt_nat_and_search_of_the_specification(void)
{
	const struct session_nat nat = { .mapping = 4,
					 .filtering = 3,
					 .ports = 2,
					 .step = -2,
					 .low_port = 1024,
					 .high_port = 65535,
					 .last_port = 5000,
					 .n_ports = 12,
					 .outside = endpoint_from_v4(0xcb007105, 40001) };
	const struct {
		struct session_message message;
		const char *hex;
	} vectors[] = {
		{ { .type = SESSION_WIREGUARD, .port = 51820 },
		  "d2703270f895e0f69f4946fe00000000000000032763d1791f967c498e2f5a2cbb14030222e1"
		  "de" },
		{ { .type = SESSION_RECEIPT, .age_ms = 70000 },
		  "d2703270f895e0f69f4946fe000000000000000404e7a442bc9f3e6946468cb9e5a1d15df4a6"
		  "1c982f" },
		{ { .type = SESSION_NAT, .nat = nat },
		  "d2703270f895e0f69f4946fe00000000000000054c1044f34863c2fc362cabb6001d1d632ef3"
		  "ee77ba041cee9fdacbade0be1adf89be4e4f9413b13080b3161334e847" },
		{ { .type = SESSION_SEARCH, .nat = nat },
		  "d2703270f895e0f69f4946fe00000000000000066665f1d4cd02b63d2d30886c61d51a772fb9"
		  "e90158b970b080cb3cf4b3cb1674968fe7462894caf88dc0a7a1310b5f" },
	};
	struct world w;
	struct session_message ping = a_ping();
	given_alice_and_bob(&w);

	for (int i = 0; i < 3; i++)
		seals(&w, ALICE, BOB, &ping); /* counters 0 ... 2 */
	for (size_t i = 0; i < ARRAY_LEN(vectors); i++) {
		seals(&w, ALICE, BOB, &vectors[i].message);
		expect_bytes(&w, vectors[i].hex);
		assert(opens(&w, BOB) == 0 && w.opened.message.type == vectors[i].message.type);
	}
	end(&w);
}

static void test_a_probe_fills_a_datagram_of_9000_bytes_and_is_never_shorter_than_its_answer(void)
{
	struct world w;
	struct session_message probe = a_ping(), passed = a_ping();
	uint8_t datagram[SESSION_MAX_PROBE_LEN + 1];
	given_alice_and_bob(&w);
	probe.type = SESSION_PROBE;
	passed.type = SESSION_PASSED;
	probe.n_padding = SESSION_MAX_PROBE_LEN - SESSION_PROBE_LEN;

	size_t len = session_box_seal(w.box[ALICE], BOB, &probe, datagram, sizeof(datagram));
	assert(len == SESSION_MAX_PROBE_LEN);
	assert(session_box_open(w.box[BOB], datagram, len, &w.opened) == 0);
	probe.n_padding++;
	assert(session_box_seal(w.box[ALICE], BOB, &probe, datagram, sizeof(datagram)) == 0);

	probe.n_padding = 0;
	assert(session_box_seal(w.box[ALICE], BOB, &probe, datagram, sizeof(datagram)) == SESSION_PROBE_LEN);
	assert(session_box_seal(w.box[ALICE], BOB, &passed, datagram, sizeof(datagram)) <= SESSION_PROBE_LEN);
	end(&w);
}

static void test_the_port_of_a_wireguard_arrives(void)
{
	struct world w;
	struct session_message wireguard = { .type = SESSION_WIREGUARD, .port = 51820 };
	const uint8_t none[] = { 4, 0, 0 }, cut[] = { 4, 1 };
	struct session_message decoded;
	given_alice_and_bob(&w);

	seals(&w, ALICE, BOB, &wireguard);

	assert(w.len == SESSION_HEADER_LEN + 3 + SESSION_TAG_LEN && opens(&w, BOB) == 0);
	assert(w.opened.message.type == SESSION_WIREGUARD && w.opened.message.port == 51820);
	assert(session_message_decode(none, sizeof(none), &decoded) == SESSION_E_MALFORMED);
	assert(session_message_decode(cut, sizeof(cut), &decoded) == SESSION_E_MALFORMED);
	end(&w);
}

static void test_a_receipt_arrives(void)
{
	struct world w;
	struct session_message receipt = { .type = SESSION_RECEIPT, .age_ms = 70000 };
	const uint8_t cut[] = { 7, 0, 0, 1 };
	struct session_message decoded;
	given_alice_and_bob(&w);

	seals(&w, ALICE, BOB, &receipt);

	assert(w.len == SESSION_HEADER_LEN + 5 + SESSION_TAG_LEN && opens(&w, BOB) == 0);
	assert(w.opened.message.type == SESSION_RECEIPT && w.opened.message.age_ms == 70000);
	assert(session_message_decode(cut, sizeof(cut), &decoded) == SESSION_E_MALFORMED);
	end(&w);
}

static void test_what_a_nat_does_arrives_and_nonsense_does_not(void)
{
	struct world w;
	struct session_message message = { .type = SESSION_NAT,
					   .nat = { .mapping = 4,
						    .filtering = 3,
						    .ports = 2,
						    .step = -2,
						    .low_port = 1024,
						    .high_port = 65535,
						    .last_port = 5000,
						    .n_ports = 12,
						    .outside = endpoint_from_v4(0xcb007105, 40001) } };
	uint8_t plain[SESSION_MAX_PLAIN];
	struct session_message decoded;
	given_alice_and_bob(&w);

	seals(&w, ALICE, BOB, &message);
	assert(w.len == SESSION_HEADER_LEN + 31 + SESSION_TAG_LEN && opens(&w, BOB) == 0);
	const struct session_nat *nat = &w.opened.message.nat;
	assert(nat->mapping == 4 && nat->filtering == 3 && nat->ports == 2 && nat->step == -2 && nat->n_ports == 12);
	assert(nat->low_port == 1024 && nat->high_port == 65535 && nat->last_port == 5000);
	assert(endpoint_equal(&nat->outside, &message.nat.outside));

	const size_t len = session_message_encode(plain, sizeof(plain), &message);
	assert(len == 31 && session_message_decode(plain, len - 1, &decoded) == SESSION_E_MALFORMED);
	for (size_t i = 1; i <= 3; i++) { /* a mapping, filter or kind of ports that is none */
		const uint8_t before = plain[i];
		plain[i] = 5;
		assert(session_message_decode(plain, len, &decoded) == SESSION_E_MALFORMED);
		plain[i] = before;
	}
	assert(session_message_decode(plain, len, &decoded) == 0);

	/* Ports that contradict each other. */
	static const uint16_t refused[][4] = { /* low, high, last, n */
		{ 5000, 4000, 4500, 12 }, { 4000, 5000, 5001, 12 }, { 4000, 5000, 3999, 12 },
		{ 0, 5000, 4000, 12 },	  { 4000, 5000, 4000, 0 },  { 0, 0, 0, 12 },
	};
	for (size_t i = 0; i < ARRAY_LEN(refused); i++) {
		message.nat.low_port = refused[i][0];
		message.nat.high_port = refused[i][1];
		message.nat.last_port = refused[i][2];
		message.nat.n_ports = (uint8_t)refused[i][3];
		assert(session_message_encode(plain, sizeof(plain), &message) == len);
		assert(session_message_decode(plain, len, &decoded) == SESSION_E_MALFORMED);
	}
	message.nat.low_port = message.nat.high_port = message.nat.last_port = message.nat.n_ports = 0;
	assert(session_message_encode(plain, sizeof(plain), &message) == len);
	assert(session_message_decode(plain, len, &decoded) == 0);
	message.type = SESSION_SEARCH; /* the same, and that it has begun */
	assert(session_message_encode(plain, sizeof(plain), &message) == len && plain[0] == 9);
	assert(session_message_decode(plain, len, &decoded) == 0 && decoded.type == SESSION_SEARCH && decoded.nat.mapping == 4);
	assert(session_message_decode(plain, len - 1, &decoded) == SESSION_E_MALFORMED);
	end(&w);
}

/* ---- what is refused ---- */

static void test_a_message_is_taken_once(void)
{
	struct world w;
	struct session_message ping = a_ping();
	given_alice_and_bob(&w);

	seals(&w, ALICE, BOB, &ping);
	assert(opens(&w, BOB) == 0);

	assert(opens(&w, BOB) == SESSION_E_REPLAYED);
	assert(session_box_counters(w.box[BOB])->dropped[SESSION_E_REPLAYED] == 1);
	end(&w);
}

static void test_messages_may_overtake_each_other_within_the_window_only(void)
{
	struct world w;
	struct session_message ping = a_ping();
	uint8_t first[SESSION_MAX_LEN], second[SESSION_MAX_LEN];
	given_alice_and_bob(&w);

	seals(&w, ALICE, BOB, &ping);
	memcpy(first, w.bytes, w.len);
	seals(&w, ALICE, BOB, &ping);
	memcpy(second, w.bytes, w.len);
	for (uint32_t i = 2; i <= REPLAY_WINDOW + 1; i++)
		seals(&w, ALICE, BOB, &ping);
	assert(opens(&w, BOB) == 0);

	memcpy(w.bytes, second, w.len);
	assert(opens(&w, BOB) == 0);
	memcpy(w.bytes, first, w.len);
	assert(opens(&w, BOB) == SESSION_E_REPLAYED);
	end(&w);
}

static void test_our_own_message_coming_back_is_refused(void)
{
	struct world w;
	struct session_message ping = a_ping();
	given_alice_and_bob(&w);

	seals(&w, ALICE, BOB, &ping);

	assert(opens(&w, ALICE) == SESSION_E_REFLECTED);
	end(&w);
}

/* Even with the header changed to the other's key id: each direction has its own key. */
static void test_our_own_message_dressed_as_the_peers_is_forged(void)
{
	struct world w;
	struct session_message ping = a_ping();
	given_alice_and_bob(&w);

	seals(&w, ALICE, BOB, &ping);
	session_key_id(&w.public[BOB], w.bytes + 4);

	assert(opens(&w, ALICE) == SESSION_E_FORGED);
	end(&w);
}

static void test_a_stranger_is_dropped_before_any_crypto(void)
{
	struct world w;
	struct session_message ping = a_ping();
	given_alice_and_bob(&w);
	knows(&w, CAROL, BOB);

	seals(&w, CAROL, BOB, &ping);

	assert(opens(&w, BOB) == SESSION_E_UNKNOWN_KEY);
	assert(session_box_counters(w.box[BOB])->dropped[SESSION_E_FORGED] == 0);
	end(&w);
}

static void test_a_message_for_somebody_else_is_forged(void)
{
	struct world w;
	struct session_message ping = a_ping();
	given_alice_and_bob(&w);
	knows(&w, ALICE, CAROL);

	seals(&w, ALICE, CAROL, &ping);

	assert(opens(&w, BOB) == SESSION_E_FORGED);
	end(&w);
}

static void test_every_changed_bit_and_every_cut_is_noticed(void)
{
	struct world w;
	struct session_message ping = a_ping();
	uint8_t right[SESSION_MAX_LEN];
	given_alice_and_bob(&w);
	seals(&w, ALICE, BOB, &ping);
	size_t len = w.len;
	memcpy(right, w.bytes, len);

	for (size_t bit = 0; bit < len * 8; bit++) {
		memcpy(w.bytes, right, len);
		w.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
		assert(opens(&w, BOB) != 0);
	}
	memcpy(w.bytes, right, len);
	for (w.len = 0; w.len < len; w.len++)
		assert(opens(&w, BOB) != 0);
	w.len = len;

	assert(opens(&w, BOB) == 0); /* and a forged counter has not moved the window */
	end(&w);
}

static void test_what_is_sealed_but_not_well_formed_is_refused(void)
{
	static const struct {
		const char *hex;
		int expected;
	} cases[] = {
		{ "", SESSION_E_MALFORMED },
		{ "01", SESSION_E_MALFORMED },
		{ "01a0a1a2a3a4a5a6a7a8a9aa", SESSION_E_MALFORMED },
		{ "01a0a1a2a3a4a5a6a7a8a9aaab", 0 },
		{ "01a0a1a2a3a4a5a6a7a8a9aaab0000", 0 },
		{ "01a0a1a2a3a4a5a6a7a8a9aaab0001", SESSION_E_MALFORMED },
		{ "02a0a1a2a3a4a5a6a7a8a9aaab", SESSION_E_MALFORMED },
		{ "0300", 0 },
		{ "03", SESSION_E_MALFORMED },
		{ "0301", SESSION_E_MALFORMED },
		{ "030000", SESSION_E_MALFORMED },
		{ "0321", SESSION_E_MALFORMED },
		{ "00", SESSION_E_TYPE },
		{ "04", SESSION_E_MALFORMED },
		{ "05", SESSION_E_MALFORMED },
		{ "05a0a1a2a3a4a5a6a7a8a9aaab", 0 },
		{ "05a0a1a2a3a4a5a6a7a8a9aaab0000", 0 },
		{ "05a0a1a2a3a4a5a6a7a8a9aaab0100", SESSION_E_MALFORMED },
		{ "06a0a1a2a3a4a5a6a7a8a9aaab", 0 },
		{ "06a0a1a2a3a4a5a6a7a8a9aa", SESSION_E_MALFORMED },
		{ "06a0a1a2a3a4a5a6a7a8a9aaab00", SESSION_E_MALFORMED },
		{ "07", SESSION_E_MALFORMED },
		{ "0700000001", 0 },
		{ "09", SESSION_E_MALFORMED },
		{ "0a", SESSION_E_TYPE },
		{ "08", SESSION_E_MALFORMED },
		{ "ff00000000000000000000000000", SESSION_E_TYPE },
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		uint8_t plain[64];
		size_t len;
		struct session_message message;

		sodium_hex2bin(plain, sizeof(plain), cases[i].hex, strlen(cases[i].hex), NULL, &len,
			       NULL);
		assert(session_message_decode(plain, len, &message) == cases[i].expected);
	}
}

static void test_what_does_not_fit_is_not_encoded(void)
{
	struct session_message message = { .type = SESSION_RENDEZVOUS,
					   .n_endpoints = SESSION_MAX_ENDPOINTS + 1 };
	uint8_t plain[2 * SESSION_MAX_PLAIN];

	assert(session_message_encode(plain, sizeof(plain), &message) == 0);
	message.n_endpoints = SESSION_MAX_ENDPOINTS;
	assert(session_message_encode(plain, sizeof(plain), &message) ==
	       2 + 18 * SESSION_MAX_ENDPOINTS);
	message =
		(struct session_message){ .type = SESSION_PING, .n_padding = SESSION_MAX_PADDING };
	assert(session_message_encode(plain, sizeof(plain), &message) == SESSION_MAX_PLAIN);
	message.n_padding++;
	assert(session_message_encode(plain, sizeof(plain), &message) == 0);
	assert(session_message_encode(plain, SESSION_TX_ID_LEN, &message) == 0);
}

/* ---- keys ---- */

static void test_keys_that_are_no_keys_are_refused(void)
{
	struct world w;
	struct public_key zero = { { 0 } }, one = { { 1 } };
	given_alice_and_bob(&w);

	assert(session_box_set_peer(w.box[ALICE], CAROL, &zero) == -EINVAL);
	assert(session_box_set_peer(w.box[ALICE], CAROL, &one) == -EINVAL); /* of low order */
	assert(session_box_set_peer(w.box[ALICE], CAROL, &w.public[ALICE]) == -EINVAL);
	assert(session_box_set_peer(w.box[ALICE], CAROL, &w.public[BOB]) == -EEXIST);
	assert(!session_box_has_peer(w.box[ALICE], CAROL) &&
	       session_box_has_peer(w.box[ALICE], BOB));
	end(&w);
}

static void test_a_refused_key_leaves_the_peer_the_one_it_had(void)
{
	struct world w;
	struct public_key zero = { { 0 } };
	given_alice_and_bob(&w);
	struct public_key carol = { { 9 } };

	assert(session_box_set_peer(w.box[ALICE], CAROL, &carol) == 0);
	assert(session_box_set_peer(w.box[ALICE], CAROL, &w.public[BOB]) == -EEXIST);
	assert(session_box_set_peer(w.box[ALICE], CAROL, &zero) == -EINVAL);
	assert(session_box_has_peer(w.box[ALICE], CAROL) && session_box_has_peer(w.box[ALICE], BOB));
	assert(session_box_set_peer(w.box[ALICE], CAROL, &carol) == 0);
	end(&w);
}

static void test_a_new_session_key_replaces_the_old_and_the_same_one_keeps_the_window(void)
{
	struct world w;
	struct session_message ping = a_ping();
	given_alice_and_bob(&w);

	seals(&w, ALICE, BOB, &ping);
	assert(opens(&w, BOB) == 0);
	knows(&w, BOB, ALICE);
	assert(opens(&w, BOB) == SESSION_E_REPLAYED);
	int r = session_box_set_peer(w.box[BOB], ALICE, &w.public[CAROL]);
	assert(r == 0);
	assert(opens(&w, BOB) == SESSION_E_UNKNOWN_KEY);
	session_box_remove_peer(w.box[BOB], ALICE);
	session_box_remove_peer(w.box[BOB], ALICE);

	assert(session_box_seal(w.box[BOB], ALICE, &ping, w.bytes, sizeof(w.bytes)) == 0);
	end(&w);
}

static void test_a_thousand_peers_are_found(void)
{
	struct world w;
	struct session_message ping = a_ping();
	begin(&w);

	for (uint32_t id = 10; id < 1010; id++) {
		struct secret_key secret = { { 0, (uint8_t)id, (uint8_t)(id >> 8) } };
		struct public_key public;

		secret_key_public(&secret, &public);
		int r = session_box_set_peer(w.box[ALICE], id, &public);
		assert(r == 0);
	}
	for (uint32_t id = 10; id < 1010; id++)
		assert(session_box_seal(w.box[ALICE], id, &ping, w.bytes, sizeof(w.bytes)) > 0);
	for (uint32_t id = 10; id < 1010; id += 2)
		session_box_remove_peer(w.box[ALICE], id);
	for (uint32_t id = 10; id < 1010; id++)
		assert(session_box_has_peer(w.box[ALICE], id) == (id % 2 == 1));
	end(&w);
}

int main(void)
{
	if (sodium_init() < 0)
		return 1;
	test_the_ping_of_the_specification();
	test_the_pong_of_the_specification_is_as_long_as_its_ping();
	test_the_rendezvous_of_the_specification();
	test_the_probe_and_its_answer_of_the_specification();
	test_the_wireguard_receipt_nat_and_search_of_the_specification();
	test_a_probe_fills_a_datagram_of_9000_bytes_and_is_never_shorter_than_its_answer();
	test_the_port_of_a_wireguard_arrives();
	test_a_receipt_arrives();
	test_what_a_nat_does_arrives_and_nonsense_does_not();
	test_a_message_is_taken_once();
	test_messages_may_overtake_each_other_within_the_window_only();
	test_our_own_message_coming_back_is_refused();
	test_our_own_message_dressed_as_the_peers_is_forged();
	test_a_stranger_is_dropped_before_any_crypto();
	test_a_message_for_somebody_else_is_forged();
	test_every_changed_bit_and_every_cut_is_noticed();
	test_what_is_sealed_but_not_well_formed_is_refused();
	test_what_does_not_fit_is_not_encoded();
	test_keys_that_are_no_keys_are_refused();
	test_a_refused_key_leaves_the_peer_the_one_it_had();
	test_a_new_session_key_replaces_the_old_and_the_same_one_keeps_the_window();
	test_a_thousand_peers_are_found();
	puts("ok");
}
