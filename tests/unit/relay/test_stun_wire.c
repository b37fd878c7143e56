/*
 * STUN messages: the samples of RFC 5769, what we ask and answer, and what is refused.
 */
#include "common/stun_wire.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void expect(bool holds, const char *what, int line)
{
	if (holds)
		return;
	fprintf(stderr, "line %d: does not hold: %s\n", line, what);
	abort();
}
#define EXPECT(condition) expect(condition, #condition, __LINE__)

static size_t from_hex(const char *hex, uint8_t *ret)
{
	size_t n = 0;
	unsigned byte;

	for (; *hex; hex++) {
		if (*hex == ' ')
			continue;
		EXPECT(sscanf(hex, "%2x", &byte) == 1);
		ret[n++] = (uint8_t)byte;
		hex++;
	}
	return n;
}

/* RFC 5769, 2.1: SOFTWARE, PRIORITY, ICE-CONTROLLED, USERNAME, MESSAGE-INTEGRITY, FINGERPRINT */
#define SAMPLE_REQUEST                                                                                      \
	"000100582112a442b7e7a701bc34d686fa87dfae 802200105354554e207465737420636c69656e74"                  \
	"002400046e0001ff 80290008932ff9b151263b36 000600096576746a3a68367659202020"                          \
	"000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2 80280004e57a3bcf"
/* 2.2: SOFTWARE, XOR-MAPPED-ADDRESS 192.0.2.1:32853, MESSAGE-INTEGRITY, FINGERPRINT */
#define SAMPLE_V4                                                                                           \
	"0101003c2112a442b7e7a701bc34d686fa87dfae 8022000b7465737420766563746f7220"                          \
	"002000080001a147e112a643 000800142b91f599fd9e90c38c7489f92af9ba53f06be7d7 80280004c07d4c96"
/* 2.3: the same with [2001:db8:1234:5678:11:2233:4455:6677]:32853 */
#define SAMPLE_V6                                                                                           \
	"010100482112a442b7e7a701bc34d686fa87dfae 8022000b7465737420766563746f7220"                          \
	"002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9"                                                  \
	"00080014a382954e4be67bf11784c97c8292c275bfe3ed41 80280004c8fb0b4c"
/* 2.4: long-term credentials, no fingerprint: USERNAME, NONCE, REALM, MESSAGE-INTEGRITY */
#define SAMPLE_LONG_TERM                                                                                    \
	"000100602112a44278ad3433c6ad72c029da412e 00060012e3839ee38388e383aae38383e382afe382b90000"          \
	"0015001c662f2f3439396b39353464364f4c33346f4c394653547679363473410014000b6578616d706c652e6f726700"  \
	"00080014f67024656dd64a3e02b8e0712e85c9a28ca89666"

static const uint8_t sample_tx[] = { 0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae };

static struct endpoint at(const char *text)
{
	struct endpoint endpoint;

	EXPECT(endpoint_parse(text, &endpoint) == 0);
	return endpoint;
}

static void test_the_sample_request_of_rfc_5769(void)
{
	uint8_t buf[256];
	struct stun_message m;

	EXPECT(stun_decode(buf, from_hex(SAMPLE_REQUEST, buf), &m) == 0);
	EXPECT(m.class == STUN_REQUEST && m.method == STUN_METHOD_BINDING && m.has_fingerprint);
	EXPECT(memcmp(m.tx.bytes, sample_tx, sizeof(sample_tx)) == 0);
	EXPECT(strcmp(m.software, "STUN test client") == 0);
	EXPECT(m.n_unknown == 1 && m.unknown[0] == 0x0024); /* PRIORITY is of ICE */
}

static void test_the_sample_responses_of_rfc_5769(void)
{
	static const struct {
		const char *hex, *mapped;
	} samples[] = {
		{ SAMPLE_V4, "192.0.2.1:32853" },
		{ SAMPLE_V6, "[2001:db8:1234:5678:11:2233:4455:6677]:32853" },
	};

	for (int i = 0; i < 2; i++) {
		uint8_t buf[256];
		struct stun_message m;
		struct endpoint mapped = at(samples[i].mapped);
		EXPECT(stun_decode(buf, from_hex(samples[i].hex, buf), &m) == 0);
		EXPECT(m.class == STUN_SUCCESS && m.has_fingerprint && m.n_unknown == 0);
		EXPECT(endpoint_equal(&m.mapped, &mapped));
		EXPECT(strcmp(m.software, "test vector") == 0);
	}
}

static void test_the_sample_with_long_term_credentials(void)
{
	uint8_t buf[256];
	struct stun_message m;

	EXPECT(stun_decode(buf, from_hex(SAMPLE_LONG_TERM, buf), &m) == 0);
	EXPECT(m.class == STUN_REQUEST && !m.has_fingerprint && m.n_unknown == 0);
}

static void test_any_changed_byte_of_a_sample_is_noticed(void)
{
	uint8_t buf[256];
	struct stun_message m;
	size_t len = from_hex(SAMPLE_V4, buf);

	for (size_t i = 0; i < len; i++) {
		buf[i] ^= 0x10;
		EXPECT(stun_decode(buf, len, &m) != 0 || !m.has_fingerprint);
		buf[i] ^= 0x10;
	}
	for (size_t n = 0; n < len; n++)
		EXPECT(stun_decode(buf, n, &m) == STUN_E_NOT_STUN);
}

static void test_our_request_has_room_for_the_fullest_answer(void)
{
	uint8_t buf[256];
	struct stun_message question, answer, seen;
	struct stun_tx tx;
	memcpy(tx.bytes, sample_tx, sizeof(tx.bytes));

	stun_make_request(&question, &tx);
	EXPECT(stun_encode(buf, sizeof(buf), &question) == STUN_REQUEST_LEN);
	EXPECT(stun_decode(buf, STUN_REQUEST_LEN, &seen) == 0);
	EXPECT(seen.class == STUN_REQUEST && strcmp(seen.software, "p2pnode") == 0 && seen.n_unknown == 0);

	answer = (struct stun_message){ .class = STUN_SUCCESS,
					.method = STUN_METHOD_BINDING,
					.tx = tx,
					.has_fingerprint = true,
					.mapped = at("[2001:db8::1]:4000"),
					.response_origin = at("[2001:db8::2]:3478"),
					.other_address = at("[2001:db8::3]:3479") };
	size_t n = stun_encode(buf, STUN_REQUEST_LEN, &answer);
	EXPECT(n == STUN_REQUEST_LEN);
	EXPECT(stun_decode(buf, n, &seen) == 0);
	EXPECT(endpoint_equal(&seen.mapped, &answer.mapped));
	EXPECT(endpoint_equal(&seen.response_origin, &answer.response_origin));
	EXPECT(endpoint_equal(&seen.other_address, &answer.other_address));
	EXPECT(stun_tx_equal(&seen.tx, &tx));
}

static void test_behaviour_discovery_attributes_survive(void)
{
	uint8_t buf[256];
	struct stun_message question, seen;

	stun_make_request(&question, &(struct stun_tx){ { 1 } });
	question.has_change_request = question.change_port = true;
	question.response_port = 4711;
	size_t n = stun_encode(buf, sizeof(buf), &question);
	EXPECT(stun_decode(buf, n, &seen) == 0);
	EXPECT(seen.has_change_request && !seen.change_ip && seen.change_port && seen.response_port == 4711);
}

static void test_an_error_names_what_was_not_understood(void)
{
	uint8_t buf[256];
	struct stun_message seen, error = { .class = STUN_ERROR,
					    .method = STUN_METHOD_BINDING,
					    .error_code = STUN_CODE_UNKNOWN_ATTRIBUTE,
					    .n_unknown = 3,
					    .unknown = { 0x24, 0x25, 0x26 } };

	size_t n = stun_encode(buf, sizeof(buf), &error);
	EXPECT(n == STUN_HEADER_LEN + 8 + 12);
	EXPECT(stun_decode(buf, n, &seen) == 0);
	EXPECT(seen.error_code == 420 && seen.n_unknown == 3 && seen.unknown[2] == 0x26);
}

static void test_a_plain_mapped_address_counts_only_without_the_xored(void)
{
	uint8_t buf[256];
	struct stun_message m;
	struct endpoint plain = at("10.0.0.1:80"), xored = at("192.0.2.1:32853");
	const char *both = "010100182112a442b7e7a701bc34d686fa87dfae 00010008000100500a000001"
			   "002000080001a147e112a643";

	EXPECT(stun_decode(buf, from_hex(both, buf), &m) == 0);
	EXPECT(endpoint_equal(&m.mapped, &xored));
	EXPECT(stun_decode(buf, from_hex("0101000c2112a442b7e7a701bc34d686fa87dfae 00010008000100500a000001", buf),
			   &m) == 0);
	EXPECT(endpoint_equal(&m.mapped, &plain));
}

static void test_malformed_messages_are_refused(void)
{
	static const struct {
		const char *hex;
		int error;
	} cases[] = {
		{ "", STUN_E_NOT_STUN },
		{ "000100002112a443b7e7a701bc34d686fa87dfae", STUN_E_NOT_STUN }, /* wrong cookie */
		{ "400100002112a442b7e7a701bc34d686fa87dfae", STUN_E_NOT_STUN }, /* first bits */
		{ "000100042112a442b7e7a701bc34d686fa87dfae", STUN_E_NOT_STUN }, /* body is missing */
		{ "000100032112a442b7e7a701bc34d686fa87dfae 802200", STUN_E_NOT_STUN },
		/* a value over the end; a half head */
		{ "000100042112a442b7e7a701bc34d686fa87dfae 80220004", STUN_E_MALFORMED },
		{ "000100082112a442b7e7a701bc34d686fa87dfae 8022000541424344", STUN_E_MALFORMED },
		/* an address of family 3; of a wrong length */
		{ "0101000c2112a442b7e7a701bc34d686fa87dfae 002000080003a147e112a643", STUN_E_MALFORMED },
		{ "010100082112a442b7e7a701bc34d686fa87dfae 002000040001a147", STUN_E_MALFORMED },
		/* FINGERPRINT wrong; not last; too long */
		{ "000100082112a442b7e7a701bc34d686fa87dfae 8028000401020304", STUN_E_FINGERPRINT },
		{ "000100102112a442b7e7a701bc34d686fa87dfae 8028000401020304 8022000441424344",
		  STUN_E_MALFORMED },
		{ "0001000c2112a442b7e7a701bc34d686fa87dfae 802800080102030401020304", STUN_E_MALFORMED },
		/* error code 2xx */
		{ "011100082112a442b7e7a701bc34d686fa87dfae 0009000400000200", STUN_E_MALFORMED },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		uint8_t buf[256];
		struct stun_message m;
		size_t len = from_hex(cases[i].hex, buf);
		int r = stun_decode(buf, len, &m);
		if (r != cases[i].error)
			fprintf(stderr, "case %zu: %d, not %d\n", i, r, cases[i].error);
		EXPECT(r == cases[i].error);
	}
}

int main(void)
{
	test_the_sample_request_of_rfc_5769();
	test_the_sample_responses_of_rfc_5769();
	test_the_sample_with_long_term_credentials();
	test_any_changed_byte_of_a_sample_is_noticed();
	test_our_request_has_room_for_the_fullest_answer();
	test_behaviour_discovery_attributes_survive();
	test_an_error_names_what_was_not_understood();
	test_a_plain_mapped_address_counts_only_without_the_xored();
	test_malformed_messages_are_refused();
	puts("ok");
	return 0;
}
