/*
 * The handshake and the messages, against all vectors that BOLT-8 has in its appendix, also those that must fail; and
 * what diglett/2 adds: its own prologue, and a payload in act 3.
 */
#include "relay/diglett/noise_xk.h"
#include "tests/unit/wireguard/hex.h"

#include <stdio.h>
#include <stdlib.h>

#define BOLT_8 "lightning"

static struct noise_curve curve;

/* What is secret in the vectors is one byte, 32 times. */
static struct noise_secret secret_of(uint8_t byte)
{
	struct noise_secret secret;

	memset(secret.bytes, byte, sizeof(secret.bytes));
	return secret;
}

static struct noise_public public_of(uint8_t byte)
{
	const struct noise_secret secret = secret_of(byte);
	struct noise_public public;

	assert(noise_public_of(&curve, &secret, &public));
	return public;
}

static struct noise_handshake initiator(const char *prologue)
{
	const struct noise_secret own = secret_of(0x11), ephemeral = secret_of(0x12);
	const struct noise_public responder = public_of(0x21);
	struct noise_handshake handshake;

	assert(noise_initiate(&handshake, &curve, prologue, strlen(prologue), &own, &ephemeral, &responder));
	return handshake;
}

static struct noise_handshake responder(const char *prologue)
{
	const struct noise_secret own = secret_of(0x21), ephemeral = secret_of(0x22);
	struct noise_handshake handshake;

	assert(noise_respond(&handshake, &curve, prologue, strlen(prologue), &own, &ephemeral));
	return handshake;
}

#define ACT_1 "00036360e856310ce5d294e8be33fc807077dc56ac80d95d9cd4ddbd21325eff73f70df6086551151f58b8afe6c195782c6a"
#define ACT_2 "0002466d7fcae563e5cb09a0d1870bb580344804617879a14949cf22285f1bae3f276e2470b93aac583c9ef6eafca3f730ae"
#define ACT_3                                                                                                         \
	"00b9e3a702e93e3a9948c2ed6e5fd7590a6e1c3a0344cfc9d5b57357049aa22355361aa02e55a8fc28fef5bd6d71ad0c38228dc68b1c" \
	"466263b47fdf31e560e139ba"

/* ---- acts that hold ---- */

static void test_the_keys_are_the_published_ones(void)
{
	assert(is_hex(public_of(0x21).bytes, 33, "028d7500dd4c12685d1f568b4c2b5048e8534b873319f3a8daa612b469132ec7f7"));
	assert(is_hex(public_of(0x11).bytes, 33, "034f355bdcb7cc0af728ef3cceb9615d90684bb5b2ca5f859ab0f0b704075871aa"));
}

static void test_the_acts_are_the_published_ones(void)
{
	struct noise_handshake a = initiator(BOLT_8), b = responder(BOLT_8);
	uint8_t act[NOISE_ACT_3_LEN];

	noise_write_act_1(&a, act);
	assert(is_hex(act, NOISE_ACT_1_LEN, ACT_1));
	assert(noise_read_act_1(&b, act, NOISE_ACT_1_LEN) == 0);
	noise_write_act_2(&b, act);
	assert(is_hex(act, NOISE_ACT_2_LEN, ACT_2));
	assert(noise_read_act_2(&a, act, NOISE_ACT_2_LEN) == 0);
	noise_write_act_3(&a, "", 0, act);
	assert(is_hex(act, NOISE_ACT_3_LEN, ACT_3));
	assert(noise_read_act_3(&b, act, NOISE_ACT_3_LEN, act) == 0);
	assert(is_hex(b.remote.bytes, 33, "034f355bdcb7cc0af728ef3cceb9615d90684bb5b2ca5f859ab0f0b704075871aa"));
	assert(memcmp(a.hash, b.hash, sizeof(a.hash)) == 0);
	assert(is_hex(a.chain, 32, "919219dbb2920afa8db80f9a51787a840bcf111ed8d588caf9ab4be716e42b01"));
	noise_handshake_wipe(&a);
	noise_handshake_wipe(&b);
}

/* ---- acts that must fail ---- */

struct bad_act {
	const char *rule, *act;
	int error;
};

/* "bolt8-act…" of BOLT-8's appendix, in its order; then what else an act can be. */
static const struct bad_act bad_acts_1[] = {
	{ "act 1 short read",
	  "00036360e856310ce5d294e8be33fc807077dc56ac80d95d9cd4ddbd21325eff73f70df6086551151f58b8afe6c195782c", NOISE_LENGTH },
	{ "act 1 bad version",
	  "01036360e856310ce5d294e8be33fc807077dc56ac80d95d9cd4ddbd21325eff73f70df6086551151f58b8afe6c195782c6a", NOISE_VERSION },
	{ "act 1 bad key",
	  "00046360e856310ce5d294e8be33fc807077dc56ac80d95d9cd4ddbd21325eff73f70df6086551151f58b8afe6c195782c6a", NOISE_KEY },
	{ "act 1 bad tag",
	  "00036360e856310ce5d294e8be33fc807077dc56ac80d95d9cd4ddbd21325eff73f70df6086551151f58b8afe6c195782c6b", NOISE_TAG },
	{ "act 1 with another sign of its key",
	  "00026360e856310ce5d294e8be33fc807077dc56ac80d95d9cd4ddbd21325eff73f70df6086551151f58b8afe6c195782c6a", NOISE_TAG },
	{ "act 1 with more behind it", ACT_1 "00", NOISE_LENGTH },
};

static const struct bad_act bad_acts_2[] = {
	{ "act 2 short read",
	  "0002466d7fcae563e5cb09a0d1870bb580344804617879a14949cf22285f1bae3f276e2470b93aac583c9ef6eafca3f730", NOISE_LENGTH },
	{ "act 2 bad version",
	  "0102466d7fcae563e5cb09a0d1870bb580344804617879a14949cf22285f1bae3f276e2470b93aac583c9ef6eafca3f730ae", NOISE_VERSION },
	{ "act 2 bad key",
	  "0004466d7fcae563e5cb09a0d1870bb580344804617879a14949cf22285f1bae3f276e2470b93aac583c9ef6eafca3f730ae", NOISE_KEY },
	{ "act 2 bad tag",
	  "0002466d7fcae563e5cb09a0d1870bb580344804617879a14949cf22285f1bae3f276e2470b93aac583c9ef6eafca3f730af", NOISE_TAG },
};

static const struct bad_act bad_acts_3[] = {
	{ "act 3 short read",
	  "00b9e3a702e93e3a9948c2ed6e5fd7590a6e1c3a0344cfc9d5b57357049aa22355361aa02e55a8fc28fef5bd6d71ad0c38228dc68b1c"
	  "466263b47fdf31e560e139", NOISE_LENGTH },
	{ "act 3 bad version",
	  "01b9e3a702e93e3a9948c2ed6e5fd7590a6e1c3a0344cfc9d5b57357049aa22355361aa02e55a8fc28fef5bd6d71ad0c38228dc68b1c"
	  "466263b47fdf31e560e139ba", NOISE_VERSION },
	{ "act 3 bad tag of the key",
	  "00c9e3a702e93e3a9948c2ed6e5fd7590a6e1c3a0344cfc9d5b57357049aa22355361aa02e55a8fc28fef5bd6d71ad0c38228dc68b1c"
	  "466263b47fdf31e560e139ba", NOISE_TAG },
	{ "act 3 bad key, sealed well",
	  "00bfe3a702e93e3a9948c2ed6e5fd7590a6e1c3a0344cfc9d5b57357049aa2235536ad09a8ee351870c2bb7f78b754a26c6cef79a98d"
	  "25139c856d7efd252c2ae73c", NOISE_KEY },
	{ "act 3 bad tag",
	  "00b9e3a702e93e3a9948c2ed6e5fd7590a6e1c3a0344cfc9d5b57357049aa22355361aa02e55a8fc28fef5bd6d71ad0c38228dc68b1c"
	  "466263b47fdf31e560e139bb", NOISE_TAG },
	{ "act 3 with more behind it", ACT_3 "00", NOISE_TAG },
};

static bool is_wiped(const struct noise_handshake *handshake)
{
	static const struct noise_handshake nothing;

	return memcmp(handshake, &nothing, sizeof(nothing)) == 0;
}

static void expect(const struct bad_act *bad, const struct noise_handshake *handshake, int error)
{
	if (error == bad->error && is_wiped(handshake))
		return;
	printf("%s: %d instead of %d\n", bad->rule, error, bad->error);
	abort();
}

static void test_each_bad_act_fails_as_published_and_leaves_no_secret(void)
{
	uint8_t act[128], spare[64];

	for (size_t i = 0; i < ARRAY_LEN(bad_acts_1); i++) {
		struct noise_handshake b = responder(BOLT_8);
		const size_t n = unhex(bad_acts_1[i].act, act, sizeof(act));
		expect(&bad_acts_1[i], &b, noise_read_act_1(&b, act, n));
	}
	for (size_t i = 0; i < ARRAY_LEN(bad_acts_2); i++) {
		struct noise_handshake a = initiator(BOLT_8);
		noise_write_act_1(&a, spare);
		const size_t n = unhex(bad_acts_2[i].act, act, sizeof(act));
		expect(&bad_acts_2[i], &a, noise_read_act_2(&a, act, n));
	}
	for (size_t i = 0; i < ARRAY_LEN(bad_acts_3); i++) {
		struct noise_handshake b = responder(BOLT_8);
		assert(noise_read_act_1(&b, act, unhex(ACT_1, act, sizeof(act))) == 0);
		noise_write_act_2(&b, spare);
		const size_t n = unhex(bad_acts_3[i].act, act, sizeof(act));
		expect(&bad_acts_3[i], &b, noise_read_act_3(&b, act, n, spare));
	}
}

static void test_a_key_that_is_none_is_not_used(void)
{
	const struct noise_secret good = secret_of(0x11), zero = secret_of(0), beyond = secret_of(0xff);
	struct noise_public no_point = public_of(0x21);
	struct noise_handshake a;

	no_point.bytes[0] = 4;
	assert(!noise_public_is_valid(&curve, &no_point));
	assert(!noise_initiate(&a, &curve, "", 0, &good, &good, &no_point) && is_wiped(&a));
	assert(!noise_respond(&a, &curve, "", 0, &zero, &good) && is_wiped(&a));
	assert(!noise_respond(&a, &curve, "", 0, &good, &beyond) && is_wiped(&a));
}

/* ---- messages ---- */

struct pair {
	struct noise_handshake a, b;
	struct noise_link initiator, responder;
	uint8_t payload[NOISE_MAX_PAYLOAD];
};

/* Both after the handshake, in which the initiator sent n bytes. */
static struct pair *new_pair(const char *prologue, const void *payload, size_t n)
{
	struct pair *pair = calloc(1, sizeof(*pair));
	uint8_t *act = malloc(NOISE_ACT_3_LEN + n);

	pair->a = initiator(prologue);
	pair->b = responder(prologue);
	noise_write_act_1(&pair->a, act);
	assert(noise_read_act_1(&pair->b, act, NOISE_ACT_1_LEN) == 0);
	noise_write_act_2(&pair->b, act);
	assert(noise_read_act_2(&pair->a, act, NOISE_ACT_2_LEN) == 0);
	noise_write_act_3(&pair->a, payload, n, act);
	assert(noise_read_act_3(&pair->b, act, NOISE_ACT_3_LEN + n, pair->payload) == 0);
	assert(noise_link_init(&pair->initiator, &pair->a) == 0 && noise_link_init(&pair->responder, &pair->b) == 0);
	free(act);
	return pair;
}

static void free_pair(struct pair *pair)
{
	noise_link_deinit(&pair->initiator);
	noise_link_deinit(&pair->responder);
	noise_handshake_wipe(&pair->a);
	noise_handshake_wipe(&pair->b);
	free(pair);
}

static void test_messages_are_the_published_ones_also_after_two_rotations(void)
{
	static const struct {
		int n;
		const char *message;
	} published[] = {
		{ 0, "cf2b30ddf0cf3f80e7c35a6e6730b59fe802473180f396d88a8fb0db8cbcf25d2f214cf9ea1d95" },
		{ 1, "72887022101f0b6753e0c7de21657d35a4cb2a1f5cde2650528bbc8f837d0f0d7ad833b1a256a1" },
		{ 500, "178cb9d7387190fa34db9c2d50027d21793c9bc2d40b1e14dcf30ebeeeb220f48364f7a4c68bf8" },
		{ 501, "1b186c57d44eb6de4c057c49940d79bb838a145cb528d6e8fd26dbe50a60ca2c104b56b60e45bd" },
		{ 1000, "4a2f3cc3b5e78ddb83dcb426d9863d9d9a723b0337c89dd0b005d89f8d3c05c52b76b29b740f09" },
		{ 1001, "2ecd8c8a5629d0d02ab457a0fdd0f7b90a192cd46be5ecb6ca570bfc5e268338b1a16cf4ef2d36" },
	};
	struct pair *pair = new_pair(BOLT_8, "", 0);
	size_t at = 0, n_body;

	assert(is_hex(pair->initiator.sending.key, 32, "969ab31b4d288cedf6218839b27a3e2140827047f2c0f01bf5c04435d43511a9"));
	assert(is_hex(pair->initiator.receiving.key, 32, "bb9020b8965f4df047e07f955f3c4b88418984aadc5cdb35096b9ea8fa5c3442"));
	for (int i = 0; i <= 1001; i++) {
		uint8_t message[5 + NOISE_MESSAGE_EXTRA];
		memcpy(message + NOISE_HEAD_LEN, "hello", 5);
		noise_seal(&pair->initiator, message, 5);
		if (i == published[at].n)
			assert(is_hex(message, sizeof(message), published[at++].message));
		assert(noise_open_head(&pair->responder, message, &n_body) == 0 && n_body == 5);
		assert(noise_open_body(&pair->responder, message + NOISE_HEAD_LEN, 5 + NOISE_TAG_LEN) == 0);
		assert(memcmp(message + NOISE_HEAD_LEN, "hello", 5) == 0);
	}
	assert(at == ARRAY_LEN(published));
	free_pair(pair);
}

static void test_both_ways_have_keys_of_their_own(void)
{
	struct pair *pair = new_pair(BOLT_8, "", 0);
	uint8_t one[1 + NOISE_MESSAGE_EXTRA] = { 0 }, other[1 + NOISE_MESSAGE_EXTRA] = { 0 };
	size_t n_body;

	noise_seal(&pair->initiator, one, 1);
	noise_seal(&pair->responder, other, 1);
	assert(memcmp(one, other, sizeof(one)) != 0);
	assert(noise_open_head(&pair->initiator, one, &n_body) == NOISE_TAG); /* not its own echoed */
	free_pair(pair);
}

static void test_a_message_changed_repeated_or_left_out_is_not_opened(void)
{
	for (size_t i = 0; i < 3 + NOISE_MESSAGE_EXTRA; i++) {
		struct pair *pair = new_pair(BOLT_8, "", 0);
		uint8_t message[3 + NOISE_MESSAGE_EXTRA];
		size_t n_body = 3;
		memcpy(message + NOISE_HEAD_LEN, "abc", 3);
		noise_seal(&pair->initiator, message, 3);
		message[i] ^= 1;
		const int head = noise_open_head(&pair->responder, message, &n_body);
		assert(head == (i < NOISE_HEAD_LEN ? NOISE_TAG : 0));
		assert(head != 0 || noise_open_body(&pair->responder, message + NOISE_HEAD_LEN, 3 + NOISE_TAG_LEN) == NOISE_TAG);
		free_pair(pair);
	}
	struct pair *pair = new_pair(BOLT_8, "", 0);
	uint8_t first[NOISE_MESSAGE_EXTRA] = { 0 }, second[NOISE_MESSAGE_EXTRA] = { 0 };
	size_t n_body;
	noise_seal(&pair->initiator, first, 0);
	noise_seal(&pair->initiator, second, 0);
	assert(noise_open_head(&pair->responder, first, &n_body) == 0 && n_body == 0);
	assert(noise_open_body(&pair->responder, first + NOISE_HEAD_LEN, NOISE_TAG_LEN) == 0);
	struct pair *other = new_pair(BOLT_8, "", 0);
	assert(noise_open_head(&other->responder, second, &n_body) == NOISE_TAG); /* the first is missing */
	assert(noise_open_head(&pair->responder, first, &n_body) == NOISE_TAG);	/* it was there */
	free_pair(pair);
	free_pair(other);
}

static void test_of_a_forged_message_nothing_is_left(void)
{
	static const uint8_t zeros[5 + NOISE_TAG_LEN];
	struct pair *pair = new_pair(BOLT_8, "", 0);
	uint8_t message[5 + NOISE_MESSAGE_EXTRA];
	size_t n_body;

	memcpy(message + NOISE_HEAD_LEN, "hello", 5);
	noise_seal(&pair->initiator, message, 5);
	message[sizeof(message) - 1] ^= 1;
	assert(noise_open_head(&pair->responder, message, &n_body) == 0 && n_body == 5);
	assert(noise_open_body(&pair->responder, message + NOISE_HEAD_LEN, 5 + NOISE_TAG_LEN) == NOISE_TAG);
	assert(memcmp(message + NOISE_HEAD_LEN, zeros, sizeof(zeros)) == 0);
	free_pair(pair);
}

static void test_the_longest_message_passes(void)
{
	struct pair *pair = new_pair(BOLT_8, "", 0);
	uint8_t *message = calloc(1, NOISE_MAX_BODY + NOISE_MESSAGE_EXTRA);
	size_t n_body;

	message[NOISE_HEAD_LEN + NOISE_MAX_BODY - 1] = 'z';
	noise_seal(&pair->responder, message, NOISE_MAX_BODY);
	assert(noise_open_head(&pair->initiator, message, &n_body) == 0 && n_body == NOISE_MAX_BODY);
	assert(noise_open_body(&pair->initiator, message + NOISE_HEAD_LEN, n_body + NOISE_TAG_LEN) == 0);
	assert(message[NOISE_HEAD_LEN + NOISE_MAX_BODY - 1] == 'z');
	free(message);
	free_pair(pair);
}

/* ---- diglett/2 ---- */

static void test_with_another_prologue_the_tags_are_others(void)
{
	struct noise_handshake a = initiator("diglett/2"), b = responder("diglett/2"), other = responder(BOLT_8);
	uint8_t act[NOISE_ACT_3_LEN];

	noise_write_act_1(&a, act);
	assert(is_hex(act + 34, NOISE_TAG_LEN, "c664a11de0cc62391d62a5dd5edb374a"));
	assert(noise_read_act_1(&other, act, NOISE_ACT_1_LEN) == NOISE_TAG);
	assert(noise_read_act_1(&b, act, NOISE_ACT_1_LEN) == 0);
	noise_write_act_2(&b, act);
	assert(is_hex(act + 34, NOISE_TAG_LEN, "4845c512dd5477ca9daa6e6bd4bc3239"));
	assert(noise_read_act_2(&a, act, NOISE_ACT_2_LEN) == 0);
	noise_write_act_3(&a, "", 0, act);
	assert(is_hex(act, NOISE_ACT_3_LEN, "00b9e3a702e93e3a9948c2ed6e5fd7590a6e1c3a0344cfc9d5b57357049aa22355369a6df952997"
					    "ca4490ce1c39f0083fde4462f1b6ac81304584e69eed79b4e2a37"));
	assert(is_hex(a.hash, NOISE_HASH_LEN, "74886e8f0e28799cc5be5d91926511687158cd09b4e030c58c5b4b58f2d5ad14"));
	noise_handshake_wipe(&a);
	noise_handshake_wipe(&b);
}

static void test_act_3_carries_a_payload_that_only_the_responder_reads(void)
{
	static const char config[] = "app.example.org, and a token";
	struct pair *pair = new_pair("diglett/2", config, sizeof(config));

	assert(memcmp(pair->payload, config, sizeof(config)) == 0);
	assert(memcmp(pair->a.hash, pair->b.hash, sizeof(pair->a.hash)) == 0);
	free_pair(pair);
}

static void test_a_payload_changed_in_any_byte_is_not_read(void)
{
	uint8_t act_1[NOISE_ACT_1_LEN], act_2[NOISE_ACT_2_LEN], act_3[NOISE_ACT_3_LEN + 10], ret[10];

	for (size_t i = 0; i < sizeof(act_3); i++) {
		struct noise_handshake a = initiator("diglett/2"), b = responder("diglett/2");
		noise_write_act_1(&a, act_1);
		assert(noise_read_act_1(&b, act_1, sizeof(act_1)) == 0);
		noise_write_act_2(&b, act_2);
		assert(noise_read_act_2(&a, act_2, sizeof(act_2)) == 0);
		noise_write_act_3(&a, "0123456789", 10, act_3);
		assert(!memmem(act_3, sizeof(act_3), "0123456789", 10));
		act_3[i] ^= 0x10;
		assert(noise_read_act_3(&b, act_3, sizeof(act_3), ret) == (i == 0 ? NOISE_VERSION : NOISE_TAG));
		assert(is_wiped(&b));
		noise_handshake_wipe(&a);
	}
}

static void test_a_payload_may_be_opened_in_place(void)
{
	uint8_t act[NOISE_ACT_3_LEN + 10];
	uint8_t *const payload = act + NOISE_ACT_3_LEN - NOISE_TAG_LEN;
	struct noise_handshake a = initiator("diglett/2"), b = responder("diglett/2");

	noise_write_act_1(&a, act);
	assert(noise_read_act_1(&b, act, NOISE_ACT_1_LEN) == 0);
	noise_write_act_2(&b, act);
	assert(noise_read_act_2(&a, act, NOISE_ACT_2_LEN) == 0);
	noise_write_act_3(&a, "0123456789", 10, act);
	assert(noise_read_act_3(&b, act, sizeof(act), payload) == 0);
	assert(memcmp(payload, "0123456789", 10) == 0 && memcmp(a.hash, b.hash, sizeof(a.hash)) == 0);
	noise_handshake_wipe(&a);
	noise_handshake_wipe(&b);
}

int main(void)
{
	uint8_t seed[32];

	if (sodium_init() < 0)
		return 1;
	randombytes_buf(seed, sizeof(seed));
	if (noise_curve_init(&curve, seed) < 0)
		return 1;
	test_the_keys_are_the_published_ones();
	test_the_acts_are_the_published_ones();
	test_each_bad_act_fails_as_published_and_leaves_no_secret();
	test_a_key_that_is_none_is_not_used();
	test_messages_are_the_published_ones_also_after_two_rotations();
	test_both_ways_have_keys_of_their_own();
	test_a_message_changed_repeated_or_left_out_is_not_opened();
	test_of_a_forged_message_nothing_is_left();
	test_the_longest_message_passes();
	test_with_another_prologue_the_tags_are_others();
	test_act_3_carries_a_payload_that_only_the_responder_reads();
	test_a_payload_changed_in_any_byte_is_not_read();
	test_a_payload_may_be_opened_in_place();
	noise_curve_deinit(&curve);
	return 0;
}
