/*
 * Peers on one link without control: what an announcement says, to whom, and when one is made.
 */
#include "actors/lan_discovery/lan_announcement_wire.h"
#include "actors/lan_discovery/lan_discovery_fsm.h"
#include "actors/lan_discovery/lan_sources.h"
#include "common/macros.h"

#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

/* docs/PROTOCOL-lan.md, made by another implementation. */
#define VECTOR_KEY    "3346a04f1980ca76056ab6714ed0505c46e34136e4a9942ba59a94d8222c8e0e"
#define VECTOR_CALL   "86bcbe84f1442be233dbefea4e89418b"
#define VECTOR_SHARED "6271be3b2f0ddade750e1c66557958762bf0febc8f738ab4e33a643777d9b763"
#define VECTOR_ANSWER "87d1ee8ff8b43e8fc65f1c58a560b600"

#define MS(n)	   ((uint64_t)(n)*1000000u)
#define SECONDS(n) MS((n)*1000u)

static struct endpoint at(const char *text)
{
	struct endpoint endpoint;
	int r = endpoint_parse(text, &endpoint);

	assert(r == 0);
	return endpoint;
}

static struct public_key session(uint8_t byte)
{
	struct public_key key;

	memset(key.bytes, byte, sizeof(key.bytes));
	return key;
}

/* ---- what it says ---- */

static struct lan_announcement announcement(enum lan_kind kind, uint32_t n_tags)
{
	struct lan_announcement a = { .kind = kind, .port = 7000, .sequence = 5, .session_key = session(9), .n_tags = n_tags };

	a.answered = kind == LAN_ANSWER ? 3 : 0;

	memset(a.tags, 0x33, n_tags * LAN_TAG_LEN);
	return a;
}

static void test_what_is_encoded_is_decoded(void)
{
	const struct lan_announcement a = announcement(LAN_CALL, LAN_MAX_TAGS);
	struct lan_announcement b;
	uint8_t bytes[LAN_MAX_LEN];
	const size_t len = lan_announcement_encode(&a, bytes, sizeof(bytes));
	int r = lan_announcement_decode(bytes, len, &b);

	assert(len == LAN_MAX_LEN && r == 0);
	assert(b.kind == LAN_CALL && b.answered == 0 && b.port == 7000 && b.sequence == 5 && b.n_tags == LAN_MAX_TAGS);
	assert(public_key_equal(&a.session_key, &b.session_key) && memcmp(a.tags, b.tags, sizeof(a.tags)) == 0);
	assert(lan_announcement_encode(&a, bytes, sizeof(bytes) - 1) == 0);
}

static void expect_malformed(struct lan_announcement a, long more)
{
	uint8_t bytes[LAN_MAX_LEN + 16] = { 0 };
	struct lan_announcement b;
	const size_t len = lan_announcement_encode(&a, bytes, sizeof(bytes));
	int r = lan_announcement_decode(bytes, (size_t)((long)len + more), &b);

	assert(r == -EBADMSG);
}

static void test_what_is_not_whole_is_none(void)
{
	struct lan_announcement a = announcement(LAN_ANSWER, 1), b;

	expect_malformed(a, -1);
	expect_malformed(a, 1);
	expect_malformed(a, -LAN_TAG_LEN);
	b = a, b.n_tags = 0, expect_malformed(b, 0);
	b = a, b.port = 0, expect_malformed(b, 0);
	b = a, b.sequence = 0, expect_malformed(b, 0);
	b = a, b.session_key = session(0), expect_malformed(b, 0);
	b = a, b.answered = 0, expect_malformed(b, 0);
	b = a, b.kind = LAN_CALL, expect_malformed(b, 0); /* which answers nothing */
	b = a, b.kind = (enum lan_kind)3, expect_malformed(b, 0);
	b = a, b.kind = (enum lan_kind)0, expect_malformed(b, 0);
}

/* Alice and Bob of docs/PROTOCOL-session.md; here the secrets are those of their node keys. */
static struct secret_key secret(uint8_t first)
{
	struct secret_key key;

	for (uint8_t i = 0; i < KEY_LEN; i++)
		key.bytes[i] = (uint8_t)(first + i);
	return key;
}

static void keys_of_two(struct lan_keys *alice, struct lan_keys *bob)
{
	const struct secret_key a = secret(1), b = secret(128);
	struct public_key pa, pb;
	int r;

	secret_key_public(&a, &pa);
	secret_key_public(&b, &pb);
	r = lan_keys_derive(&a, &pb, alice);
	assert(r == 0);
	r = lan_keys_derive(&b, &pa, bob);
	assert(r == 0);
}

static void test_only_the_two_know_their_tags_and_each_way_has_its_own(void)
{
	struct lan_keys alice, bob, stranger;
	const struct secret_key s = secret(60), a = secret(1);
	struct public_key pa;
	int r;

	keys_of_two(&alice, &bob);
	assert(memcmp(alice.to_peer, bob.from_peer, KEY_LEN) == 0 && memcmp(alice.from_peer, bob.to_peer, KEY_LEN) == 0);
	assert(memcmp(alice.to_peer, alice.from_peer, KEY_LEN) != 0);
	secret_key_public(&a, &pa);
	r = lan_keys_derive(&s, &pa, &stranger);
	assert(r == 0 && memcmp(stranger.to_peer, bob.to_peer, KEY_LEN) != 0);
	pa = session(0);
	r = lan_keys_derive(&s, &pa, &stranger);
	assert(r == -EINVAL);
}

static bool same_tag(const struct lan_announcement *a, const char *from_a, const struct lan_answered *answered_a,
		     const struct lan_announcement *b, const char *from_b, const struct lan_answered *answered_b)
{
	const struct endpoint source_a = at(from_a), source_b = at(from_b);
	const uint8_t key[KEY_LEN] = { 1 };
	uint8_t tag_a[LAN_TAG_LEN], tag_b[LAN_TAG_LEN];

	lan_tag(key, a, &source_a, answered_a, tag_a);
	lan_tag(key, b, &source_b, answered_b, tag_b);
	return memcmp(tag_a, tag_b, LAN_TAG_LEN) == 0;
}

static void test_a_tag_depends_on_all_that_is_said_and_whence(void)
{
	const struct lan_announcement call = announcement(LAN_CALL, 1), answer = announcement(LAN_ANSWER, 1);
	const struct lan_answered s1 = { .session_key = session(1) }, s2 = { .session_key = session(2) };
	const struct lan_answered stolen = { .session_key = session(1), .shared = { 1 } };
	struct lan_announcement other = call;

	assert(same_tag(&call, "10.0.0.2:1", NULL, &call, "10.0.0.2:2", NULL));
	assert(!same_tag(&call, "10.0.0.2:1", NULL, &call, "10.0.0.3:1", NULL));
	assert(!same_tag(&call, "10.0.0.2:1", NULL, &answer, "10.0.0.2:1", &s1));
	assert(!same_tag(&answer, "10.0.0.2:1", &s1, &answer, "10.0.0.2:1", &s2));
	other.port++;
	assert(!same_tag(&call, "10.0.0.2:1", NULL, &other, "10.0.0.2:1", NULL));
	other = call, other.sequence++;
	assert(!same_tag(&call, "10.0.0.2:1", NULL, &other, "10.0.0.2:1", NULL));
	assert(!same_tag(&answer, "10.0.0.2:1", &s1, &answer, "10.0.0.2:1", &stolen)); /* without its secret */
	other = answer, other.answered++;
	assert(!same_tag(&answer, "10.0.0.2:1", &s1, &other, "10.0.0.2:1", &s1));
	other = call, other.session_key = session(1);
	assert(!same_tag(&call, "10.0.0.2:1", NULL, &other, "10.0.0.2:1", NULL));
}

static void test_both_sessions_share_the_same_and_a_key_that_is_none_is_refused(void)
{
	const struct secret_key a = secret(40), b = secret(80);
	const struct public_key none = session(0);
	struct public_key pa, pb;
	uint8_t ab[KEY_LEN], ba[KEY_LEN];
	int r;

	secret_key_public(&a, &pa);
	secret_key_public(&b, &pb);
	r = lan_sessions_shared(&a, &pb, ab);
	assert(r == 0);
	r = lan_sessions_shared(&b, &pa, ba);
	assert(r == 0 && memcmp(ab, ba, KEY_LEN) == 0);
	r = lan_sessions_shared(&a, &none, ab);
	assert(r == -EINVAL);
}

static void test_the_vectors_of_the_document(void)
{
	const struct endpoint source = at("10.0.0.2:1");
	const struct secret_key session_a = secret(40), session_b = secret(80);
	struct lan_announcement call = announcement(LAN_CALL, 1), reply = announcement(LAN_ANSWER, 1);
	struct lan_answered answered;
	struct lan_keys alice, bob;
	uint8_t tag[LAN_TAG_LEN];
	char hex[2 * KEY_LEN + 1];

	keys_of_two(&alice, &bob);
	sodium_bin2hex(hex, sizeof(hex), alice.to_peer, KEY_LEN);
	assert(strcmp(hex, VECTOR_KEY) == 0);
	secret_key_public(&session_a, &call.session_key);
	reply.session_key = call.session_key;
	secret_key_public(&session_b, &answered.session_key);
	int r = lan_sessions_shared(&session_a, &answered.session_key, answered.shared);
	assert(r == 0);
	sodium_bin2hex(hex, sizeof(hex), answered.shared, KEY_LEN);
	assert(strcmp(hex, VECTOR_SHARED) == 0);
	lan_tag(alice.to_peer, &call, &source, NULL, tag);
	sodium_bin2hex(hex, sizeof(hex), tag, LAN_TAG_LEN);
	assert(strcmp(hex, VECTOR_CALL) == 0);
	lan_tag(alice.to_peer, &reply, &source, &answered, tag);
	sodium_bin2hex(hex, sizeof(hex), tag, LAN_TAG_LEN);
	assert(strcmp(hex, VECTOR_ANSWER) == 0);
}

/* ---- when ---- */

static uint32_t calls_until(struct lan_discovery_fsm *fsm, uint64_t *now_ns, uint64_t until_ns)
{
	uint32_t n = 0;

	while (fsm->deadline_ns != 0 && fsm->deadline_ns <= until_ns) {
		struct lan_output output;

		assert(fsm->deadline_ns >= *now_ns);
		*now_ns = fsm->deadline_ns;
		lan_discovery_fsm_step(fsm, &(struct lan_input){ .type = LAN_IN_DEADLINE, .now_ns = *now_ns }, &output);
		n += output.call;
	}
	*now_ns = until_ns;
	return n;
}

static struct lan_output tell(struct lan_discovery_fsm *fsm, uint64_t now_ns, struct lan_input input)
{
	struct lan_output output;

	input.now_ns = now_ns;
	lan_discovery_fsm_step(fsm, &input, &output);
	return output;
}

static void test_without_control_there_are_three_calls_and_then_silence(void)
{
	struct lan_discovery_fsm fsm;
	uint64_t now_ns = 1;

	lan_discovery_fsm_init(&fsm, 1);
	tell(&fsm, now_ns, (struct lan_input){ .type = LAN_IN_CONTROL });
	assert(calls_until(&fsm, &now_ns, MS(700)) == 0); /* control may come in a moment */
	assert(calls_until(&fsm, &now_ns, SECONDS(7)) == 3);
	assert(calls_until(&fsm, &now_ns, SECONDS(86400)) == 0);
	tell(&fsm, now_ns, (struct lan_input){ .type = LAN_IN_LINK });
	assert(calls_until(&fsm, &now_ns, now_ns + SECONDS(7)) == 3);
}

static void test_ever_new_links_neither_put_calls_off_nor_bring_more_than_three_in_five_seconds(void)
{
	struct lan_discovery_fsm fsm;
	uint64_t now_ns = 1;
	uint32_t n = 0;

	lan_discovery_fsm_init(&fsm, 1);
	for (uint64_t i = 0; i < 2000; i++) { /* every 50 ms for 100 s */
		tell(&fsm, now_ns, (struct lan_input){ .type = LAN_IN_LINK });
		n += calls_until(&fsm, &now_ns, now_ns + MS(50));
		assert(i != 10 || n == 1); /* the first is not put off by what follows */
	}
	assert(n >= 2 * 20 && n <= 3 * 21);
	n = calls_until(&fsm, &now_ns, now_ns + SECONDS(3600));
	assert(n <= 2 + 3);
}

static void test_with_control_nobody_calls(void)
{
	struct lan_discovery_fsm fsm;
	uint64_t now_ns = 1;

	lan_discovery_fsm_init(&fsm, 1);
	tell(&fsm, now_ns, (struct lan_input){ .type = LAN_IN_CONTROL });
	tell(&fsm, MS(500), (struct lan_input){ .type = LAN_IN_CONTROL, .is_connected = true });
	tell(&fsm, SECONDS(1), (struct lan_input){ .type = LAN_IN_LINK });
	now_ns = SECONDS(1);
	assert(calls_until(&fsm, &now_ns, SECONDS(100)) == 0);
}

static void test_who_misses_a_peer_calls_ever_more_seldom(void)
{
	struct lan_discovery_fsm fsm;
	uint64_t now_ns = SECONDS(1);
	uint32_t n;

	lan_discovery_fsm_init(&fsm, 1);
	assert(tell(&fsm, now_ns, (struct lan_input){ .type = LAN_IN_MISSING, .n_missing = 1 }).call);
	n = calls_until(&fsm, &now_ns, SECONDS(16));
	assert(n >= 3 && n <= 4);
	n = calls_until(&fsm, &now_ns, SECONDS(3600));
	assert(n >= 3600 / 77 && n <= 3600 / 51 + 3);
	tell(&fsm, now_ns, (struct lan_input){ .type = LAN_IN_MISSING });
	assert(calls_until(&fsm, &now_ns, SECONDS(7200)) == 0);
}

/* ---- how much of it is looked at ---- */

static void test_who_floods_takes_nothing_from_others(void)
{
	struct lan_sources sources = { .seed = { 1 } };
	const struct endpoint loud = at("10.0.0.66:1"), other_port = at("10.0.0.66:2"), quiet = at("10.0.0.7:1");
	uint32_t n = 0;

	for (uint64_t ms = 1; ms <= 10000; ms++) { /* 2000 each second for 10 s */
		n += lan_sources_take(&sources, &loud, ms);
		n += lan_sources_take(&sources, &other_port, ms);
		if (ms % 1000 == 0)
			for (int i = 0; i < 4; i++)
				assert(lan_sources_take(&sources, &quiet, ms));
	}
	assert(n >= LAN_SOURCE_BURST && n <= LAN_SOURCE_BURST + 10000 / LAN_SOURCE_EACH_MS + 1);
}

static void test_forged_sources_get_no_more_than_there_is_for_all(void)
{
	struct lan_sources sources = { .seed = { 1 } };
	struct endpoint from = at("10.0.0.66:1");
	uint32_t n = 0;

	for (uint64_t ms = 1; ms <= 10000; ms++) {
		from.ip[14] = (uint8_t)(ms >> 8), from.ip[15] = (uint8_t)ms;
		n += lan_sources_take(&sources, &from, ms);
	}
	assert(n <= LAN_ALL_BURST + 10000 / LAN_ALL_EACH_MS + 1);
}

/* ---- who is found ---- */

static struct lan_input from_peer(enum lan_input_type type, uint64_t sequence, uint8_t session_byte)
{
	return (struct lan_input){ .type = type,
				   .peer_id = 7,
				   .session = session(session_byte),
				   .sequence = sequence,
				   .from = at("10.0.0.7:7000") };
}

static struct lan_input answer_to(uint64_t answered, uint8_t session_byte)
{
	struct lan_input input = from_peer(LAN_IN_ANSWER, 1, session_byte);

	input.answered = answered;
	return input;
}

/* Because somebody is missed; the number of the call's only datagram. */
static uint64_t call_now(struct lan_discovery_fsm *fsm, uint64_t now_ns)
{
	tell(fsm, now_ns, (struct lan_input){ .type = LAN_IN_MISSING });
	bool called = tell(fsm, now_ns, (struct lan_input){ .type = LAN_IN_MISSING, .n_missing = 1 }).call;

	assert(called);
	return lan_discovery_fsm_call_number(fsm);
}

static void test_a_call_finds_nobody_but_is_answered(void)
{
	struct lan_discovery_fsm fsm;
	struct lan_output output;

	lan_discovery_fsm_init(&fsm, 1);
	output = tell(&fsm, SECONDS(1), from_peer(LAN_IN_CALL, 1, 1));
	assert(output.answer && !output.found);
}

static void test_three_messages_make_both_sure(void)
{
	struct lan_discovery_fsm a, b;
	struct lan_output output;

	lan_discovery_fsm_init(&a, 1);
	lan_discovery_fsm_init(&b, 2);
	const uint64_t number = call_now(&a, SECONDS(1));
	output = tell(&b, SECONDS(1), from_peer(LAN_IN_CALL, number, 1));
	assert(output.answer && !output.found);
	output = tell(&a, SECONDS(1), answer_to(number, 2));
	assert(output.answer && output.found && output.sequence > number);
	output = tell(&b, SECONDS(1), answer_to(b.sequence, 1));
	assert(!output.answer && output.found); /* and so it ends */
}

static void test_when_the_third_message_is_lost_the_next_call_brings_it(void)
{
	struct lan_discovery_fsm a, b;
	struct lan_output output;
	uint64_t number;

	lan_discovery_fsm_init(&a, 1);
	lan_discovery_fsm_init(&b, 2);
	number = call_now(&a, SECONDS(1));
	tell(&b, SECONDS(1), from_peer(LAN_IN_CALL, number, 1));
	tell(&a, SECONDS(1), answer_to(number, 2)); /* its answer is lost */
	number = call_now(&a, SECONDS(2));
	output = tell(&b, SECONDS(2), from_peer(LAN_IN_CALL, number, 1));
	assert(output.answer);
	output = tell(&a, SECONDS(2), answer_to(number, 2));
	assert(output.answer && !output.found);
	output = tell(&b, SECONDS(2), answer_to(b.sequence, 1));
	assert(output.found);
}

/* Also who found the caller long ago: the caller may know nothing. */
static void test_each_new_call_is_answered(void)
{
	struct lan_discovery_fsm fsm;

	lan_discovery_fsm_init(&fsm, 1);
	assert(tell(&fsm, SECONDS(1), answer_to(call_now(&fsm, SECONDS(1)), 1)).found);
	assert(tell(&fsm, SECONDS(3), from_peer(LAN_IN_CALL, 5, 1)).answer);
	assert(!tell(&fsm, SECONDS(5), from_peer(LAN_IN_CALL, 5, 1)).answer && fsm.n_repetitions == 1);
	assert(tell(&fsm, SECONDS(5), from_peer(LAN_IN_CALL, 6, 1)).answer);
}

static void expect_repetition(struct lan_discovery_fsm *fsm, uint64_t now_ns, struct lan_input input)
{
	const struct lan_discovery_fsm before = *fsm;
	const struct lan_output output = tell(fsm, now_ns, input);

	assert(!output.answer && !output.found);
	assert(fsm->n_repetitions == before.n_repetitions + 1);
	assert(memcmp(before.known, fsm->known, sizeof(fsm->known)) == 0);
}

static void test_repetitions_are_counted_and_change_nothing(void)
{
	struct lan_discovery_fsm fsm;

	lan_discovery_fsm_init(&fsm, 1);
	tell(&fsm, SECONDS(1), from_peer(LAN_IN_CALL, 5, 1));
	const uint64_t number = call_now(&fsm, SECONDS(2));
	tell(&fsm, SECONDS(2), answer_to(number, 1));
	for (uint64_t sequence = 1; sequence <= 5; sequence++)
		expect_repetition(&fsm, SECONDS(2), from_peer(LAN_IN_CALL, sequence, 1));
	expect_repetition(&fsm, SECONDS(2), answer_to(number, 1));
}

/* B had session 1, and was started again: whoever recorded what it answered then brings nothing back. */
static void test_an_answer_of_a_session_before_is_worth_nothing(void)
{
	struct lan_discovery_fsm fsm;
	uint64_t first, second;

	lan_discovery_fsm_init(&fsm, 1);
	first = call_now(&fsm, SECONDS(1));
	assert(tell(&fsm, SECONDS(1), answer_to(first, 1)).found);
	second = call_now(&fsm, SECONDS(2));
	assert(tell(&fsm, SECONDS(2), answer_to(second, 2)).found);
	expect_repetition(&fsm, SECONDS(2), answer_to(first, 1));
	expect_repetition(&fsm, SECONDS(2), answer_to(second, 1));
	expect_repetition(&fsm, SECONDS(1000), answer_to(first, 1));
}

/* Also one that was held back, so that it has not been seen. */
static void test_an_answer_counts_for_three_seconds_to_what_was_asked(void)
{
	struct lan_discovery_fsm fsm;
	uint64_t number, asked;

	lan_discovery_fsm_init(&fsm, 1);
	assert(!tell(&fsm, SECONDS(1), answer_to(1, 1)).found); /* nothing was asked */
	number = call_now(&fsm, SECONDS(1));
	expect_repetition(&fsm, SECONDS(1), answer_to(number + 1, 1));
	assert(lan_discovery_fsm_is_expected(&fsm, number, SECONDS(4)));
	assert(!lan_discovery_fsm_is_expected(&fsm, number, SECONDS(4) + 1));
	expect_repetition(&fsm, SECONDS(4) + 1, answer_to(number, 1));

	asked = tell(&fsm, SECONDS(10), from_peer(LAN_IN_CALL, 1, 1)).sequence;
	struct lan_input other = answer_to(asked, 3);
	other.peer_id = 8; /* who was not asked that */
	assert(!tell(&fsm, SECONDS(10), other).found);
	assert(lan_discovery_fsm_is_expected(&fsm, asked, SECONDS(13)));
	expect_repetition(&fsm, SECONDS(13) + 1, answer_to(asked, 1));
}

static void test_whoever_repeats_calls_of_many_sessions_gets_few_answers(void)
{
	struct lan_discovery_fsm fsm;
	uint32_t n = 0;

	lan_discovery_fsm_init(&fsm, 1);
	for (uint32_t i = 0; i < 1000; i++) {
		const struct lan_output output =
			tell(&fsm, SECONDS(1) + MS(10) * i, from_peer(LAN_IN_CALL, 1, (uint8_t)(1 + i % 2)));
		n += output.answer;
		assert(!output.found);
	}
	assert(n <= 12);
}

/* The sockets of two families are read in any order. */
static void test_a_call_by_the_other_family_is_no_repetition(void)
{
	struct lan_discovery_fsm fsm;
	struct lan_input v6 = from_peer(LAN_IN_CALL, 2, 1);

	lan_discovery_fsm_init(&fsm, 1);
	v6.from = at("[2001:db8::7]:7000");
	tell(&fsm, SECONDS(1), v6);
	assert(tell(&fsm, SECONDS(2), from_peer(LAN_IN_CALL, 1, 1)).answer && fsm.n_repetitions == 0);
	expect_repetition(&fsm, SECONDS(3), from_peer(LAN_IN_CALL, 1, 1));
}

static bool finds(struct lan_discovery_fsm *fsm, uint64_t now_ns, struct lan_input input)
{
	input.answered = call_now(fsm, now_ns);
	return tell(fsm, now_ns, input).found;
}

static void test_a_peer_with_a_new_session_or_address_is_found_again(void)
{
	struct lan_discovery_fsm fsm;
	struct lan_input moved = answer_to(0, 2);

	lan_discovery_fsm_init(&fsm, 1);
	assert(finds(&fsm, SECONDS(1), answer_to(0, 1)));
	assert(finds(&fsm, SECONDS(2), answer_to(0, 2)));
	assert(!finds(&fsm, SECONDS(3), answer_to(0, 2)));
	moved.from = at("10.0.0.8:7000");
	assert(finds(&fsm, SECONDS(4), moved));
	moved.from = at("[2001:db8::8]:7000");
	assert(finds(&fsm, SECONDS(5), moved));
	moved.from = at("10.0.0.8:7000");
	assert(!finds(&fsm, SECONDS(6), moved)); /* both are known */
}

static void test_who_was_forgotten_is_found_again_but_not_by_an_old_answer(void)
{
	struct lan_discovery_fsm fsm;

	lan_discovery_fsm_init(&fsm, 1);
	assert(finds(&fsm, SECONDS(1), answer_to(0, 1)));
	tell(&fsm, SECONDS(2), (struct lan_input){ .type = LAN_IN_FORGET, .peer_id = 8 });
	assert(!finds(&fsm, SECONDS(2), answer_to(0, 1)));
	tell(&fsm, SECONDS(3), (struct lan_input){ .type = LAN_IN_FORGET, .peer_id = 7 });
	expect_repetition(&fsm, SECONDS(3), answer_to(2, 1));
	assert(finds(&fsm, SECONDS(3), answer_to(0, 1)));
}

static void test_more_peers_than_there_is_room_for_drop_the_one_silent_longest(void)
{
	struct lan_discovery_fsm fsm;
	struct lan_input input = answer_to(0, 1);

	lan_discovery_fsm_init(&fsm, 1);
	for (uint32_t i = 1; i <= LAN_MAX_KNOWN + 1; i++) {
		input.peer_id = i;
		assert(finds(&fsm, SECONDS(i), input));
	}
	input.peer_id = LAN_MAX_KNOWN + 1;
	assert(!finds(&fsm, SECONDS(1000), input));
	input.peer_id = 2;
	assert(!finds(&fsm, SECONDS(1001), input));
	input.peer_id = 1;
	assert(finds(&fsm, SECONDS(1002), input));
}

int main(void)
{
	if (sodium_init() < 0)
		return 1;
	test_what_is_encoded_is_decoded();
	test_what_is_not_whole_is_none();
	test_only_the_two_know_their_tags_and_each_way_has_its_own();
	test_a_tag_depends_on_all_that_is_said_and_whence();
	test_both_sessions_share_the_same_and_a_key_that_is_none_is_refused();
	test_the_vectors_of_the_document();
	test_without_control_there_are_three_calls_and_then_silence();
	test_ever_new_links_neither_put_calls_off_nor_bring_more_than_three_in_five_seconds();
	test_with_control_nobody_calls();
	test_who_misses_a_peer_calls_ever_more_seldom();
	test_who_floods_takes_nothing_from_others();
	test_forged_sources_get_no_more_than_there_is_for_all();
	test_a_call_finds_nobody_but_is_answered();
	test_three_messages_make_both_sure();
	test_when_the_third_message_is_lost_the_next_call_brings_it();
	test_each_new_call_is_answered();
	test_repetitions_are_counted_and_change_nothing();
	test_an_answer_of_a_session_before_is_worth_nothing();
	test_an_answer_counts_for_three_seconds_to_what_was_asked();
	test_whoever_repeats_calls_of_many_sessions_gets_few_answers();
	test_a_call_by_the_other_family_is_no_repetition();
	test_a_peer_with_a_new_session_or_address_is_found_again();
	test_who_was_forgotten_is_found_again_but_not_by_an_old_answer();
	test_more_peers_than_there_is_room_for_drop_the_one_silent_longest();
	return 0;
}
