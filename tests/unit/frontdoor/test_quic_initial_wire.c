/*
 * QUIC's first packets: keys and packets as in the appendices of RFC 9001 and RFC 9369; the hello in any order, over
 * several datagrams; what is not part of it, and what is refused.
 */
#include "common/macros.h"
#include "hello.h"
#include "initial.h"
#include "relay/frontdoor/quic_initial_wire.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CAP (64 * 1024)

static struct quic_initial client; /* too large for the stack of a function that is called often */
static uint8_t message[CAP], datagram[CAP], frames[CAP];

static void from_hex(const char *hex, uint8_t *ret)
{
	for (; *hex; hex += 2, ret++) {
		unsigned byte;
		assert(sscanf(hex, "%2x", &byte) == 1);
		*ret = (uint8_t)byte;
	}
}

static void expect_bytes(const uint8_t *bytes, const char *hex)
{
	uint8_t expected[256];

	from_hex(hex, expected);
	assert(memcmp(bytes, expected, strlen(hex) / 2) == 0);
}

/* From a block of exactly that size: a read past the end shows. */
static enum quic_outcome read_copy(const uint8_t *bytes, size_t n)
{
	uint8_t *copy = malloc(n > 0 ? n : 1);

	assert(copy);
	memcpy(copy, bytes, n);
	enum quic_outcome outcome = quic_initial_read(&client, copy, n);
	free(copy);
	return outcome;
}

static enum quic_outcome read_alone(const uint8_t *bytes, size_t n)
{
	quic_initial_init(&client);
	return read_copy(bytes, n);
}

static void expect_found(const char *host)
{
	assert(client.outcome == QUIC_FOUND && strcmp(client.found.host.text, host) == 0);
	assert(client.found.protocol == SNIFFER_QUIC);
}

/* ---- the appendices -------------------------------------------------------------------------- */

/* The frame that both RFCs send in appendix A.2, to be padded to 1162 bytes; the host is example.com. */
#define APPENDIX_FRAME \
	"060040f1010000ed0303ebf8fa56f12939b9584a3896472ec40bb863cfd3e86804fe3a47f06a2b69484c00000413011302010000c000000010" \
	"000e00000b6578616d706c652e636f6dff01000100000a00080006001d0017001800100007000504616c706e00050005010000000000330026" \
	"0024001d00209370b2c9caa47fbabaf4559fedba753de171fa71f50f1ce15d43e994ec74d748002b0003020304000d0010000e040305030603" \
	"0203080408050806002d00020101001c00024001003900320408ffffffffffffffff05048000ffff07048000ffff0801100104800075300901" \
	"100f088394c8f03e51570806048000ffff"
#define APPENDIX_FRAME_LEN 245

static const struct appendix {
	uint32_t version;
	const char *key, *iv, *header;	/* A.1 */
	const char *first, *last;	/* of the packet in A.2: 32 bytes, and its tag */
} appendices[] = {
	{ QUIC_VERSION_1, "1f369613dd76d5467730efcbe3b1a22d", "fa044b2f42a3fd3b46fb255c", "9f50449e04a0e810283a1e9933adedd2",
	  "c000000001088394c8f03e5157080000449e7b9aec34d1b1c98dd7689fb8ec11",
	  "e221af44860018ab0856972e194cd934" },
	{ QUIC_VERSION_2, "8b1a0bc121284290a29e0971b5cd045d", "91f73e2351d8fa91660e909f", "45b95e15235d6f45a6b19cbcb0294ba9",
	  "d76b3343cf088394c8f03e5157080000449ea0c95e82ffe67b6abcdb4298b485", "a18b2faa745b6fe189cf772a9f84cbfc" },
};

static void test_the_keys_are_those_of_the_appendices(void)
{
	struct quic_cid id = { 8, { 0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08 } };
	struct quic_keys keys;

	for (size_t i = 0; i < ARRAY_LEN(appendices); i++) {
		assert(quic_initial_keys(appendices[i].version, &id, &keys) == 0);
		expect_bytes(keys.key, appendices[i].key);
		expect_bytes(keys.iv, appendices[i].iv);
		expect_bytes(keys.header, appendices[i].header);
	}
	assert(quic_initial_keys(0xff00001d, &id, &keys) == -EPROTONOSUPPORT);
}

/* The tag at the end is of all that is before it: who makes it has made the same packet. */
static void test_the_packets_of_the_appendices_are_read(void)
{
	from_hex(APPENDIX_FRAME, frames);
	for (size_t i = 0; i < ARRAY_LEN(appendices); i++) {
		const struct appendix *appendix = &appendices[i];
		struct initial_options options = { .version = appendix->version, .number = 2 };
		size_t n = initial_build(&options, frames, APPENDIX_FRAME_LEN, datagram, CAP);

		assert(n == 1200);
		expect_bytes(datagram, appendix->first);
		expect_bytes(datagram + n - strlen(appendix->last) / 2, appendix->last);
		assert(read_alone(datagram, n) == QUIC_FOUND);
		expect_found("example.com");
	}
}

/* ---- the hello in pieces --------------------------------------------------------------------- */

static size_t hello(size_t key_share)
{
	struct hello_options options = { .names = { "App.example.org" }, .key_share = key_share, .alpn = { "h3" } };

	return hello_build(&options, message, sizeof(message));
}

/* One datagram with one piece of the hello. */
static size_t piece(uint32_t number, size_t offset, size_t len)
{
	size_t n = initial_crypto(offset, message + offset, len, frames, sizeof(frames));

	return initial_build(&(struct initial_options){ .number = number }, frames, n, datagram, CAP);
}

static void test_a_hello_may_come_in_several_datagrams_in_any_order(void)
{
	static const uint32_t orders[][3] = { { 0, 1, 2 }, { 2, 1, 0 }, { 1, 2, 0 }, { 0, 2, 1 }, { 2, 0, 1 }, { 1, 0, 2 } };
	size_t len = hello(2500), third = len / 3 + 1;

	for (size_t i = 0; i < ARRAY_LEN(orders); i++) {
		quic_initial_init(&client);
		for (size_t j = 0; j < 3; j++) {
			size_t at = orders[i][j] * third, n = at + third < len ? third : len - at;
			n = piece(orders[i][j], at, n);
			assert(read_copy(datagram, n) == (j < 2 ? QUIC_MORE : QUIC_FOUND));
		}
		expect_found("app.example.org");
		assert(client.found.offers_h3 && !client.found.offers_h2);
	}
}

/* Cut at every byte: the second half first, in one datagram, PING and PADDING between. */
static void test_crypto_frames_of_one_packet_come_in_any_order_cut_anywhere(void)
{
	size_t len = hello(400);

	for (size_t cut = 1; cut < len; cut++) {
		size_t n = initial_crypto(cut, message + cut, len - cut, frames, sizeof(frames));
		memcpy(frames + n, "\x01\x00\x00\x01", 4);
		n += 4;
		n += initial_crypto(0, message, cut, frames + n, sizeof(frames) - n);
		n = initial_build(&(struct initial_options){ 0 }, frames, n, datagram, CAP);
		assert(read_alone(datagram, n) == QUIC_FOUND);
		expect_found("app.example.org");
	}
}

static void test_a_frame_for_each_byte_backwards_is_a_hello_too(void)
{
	size_t len = hello(100), n = 0;

	for (size_t at = len; at > 0; at--)
		n += initial_crypto(at - 1, message + at - 1, 1, frames + n, sizeof(frames) - n);
	n = initial_build(&(struct initial_options){ 0 }, frames, n, datagram, CAP);
	assert(read_alone(datagram, n) == QUIC_FOUND);
	expect_found("app.example.org");
}

static void test_what_is_sent_again_overlaps_and_changes_nothing(void)
{
	size_t len = hello(2000);

	quic_initial_init(&client);
	for (int i = 0; i < 3; i++)
		assert(read_copy(datagram, piece(0, 0, 1000)) == QUIC_MORE);
	assert(read_copy(datagram, piece(1, 500, 900)) == QUIC_MORE);
	assert(read_copy(datagram, piece(2, 1200, len - 1200)) == QUIC_FOUND);
	expect_found("app.example.org");
}

static void test_packet_numbers_begin_anywhere_and_are_cut_to_their_last_bytes(void)
{
	static const struct initial_options options[] = {
		{ .number = 1, .number_len = 1 },	{ .number = 0, .number_len = 1 }, { .number = 200, .number_len = 2 },
		{ .number = 70000, .number_len = 3 },	{ .number = 0xfffffff0, .number_len = 4 },
		{ .number = 5, .token_len = 100 },	{ .destination = "0123456789abcdefghij", .destination_len = 20 },
		{ .version = QUIC_VERSION_2, .number_len = 2 }, { .pad_to = 1452 }, { .pad_to = 9000 },
	};
	size_t n = initial_crypto(0, message, hello(0), frames, sizeof(frames));

	for (size_t i = 0; i < ARRAY_LEN(options); i++) {
		size_t len = initial_build(&options[i], frames, n, datagram, CAP);
		if (options[i].pad_to > 2000) { /* zeroes behind the packet instead */
			memset(datagram + len, 0, 1000);
			len += 1000;
		}
		assert(read_alone(datagram, len) == QUIC_FOUND);
		expect_found("app.example.org");
	}
}

/* ---- what is not part of it ------------------------------------------------------------------ */

static void test_what_is_damaged_or_of_somebody_else_is_ignored(void)
{
	size_t len = hello(2000), n;

	assert(read_alone(datagram, piece(0, 0, 1000)) == QUIC_MORE && client.n_ignored == 0);
	n = piece(1, 1000, len - 1000);
	datagram[n - 1] ^= 1;
	assert(read_copy(datagram, n) == QUIC_MORE && client.n_ignored == 1);
	datagram[n - 1] ^= 1;
	datagram[6] ^= 1; /* another destination */
	assert(read_copy(datagram, n) == QUIC_MORE && client.n_ignored == 2);
	datagram[6] ^= 1;
	assert(read_copy(datagram, 1199) == QUIC_MORE && client.n_ignored == 3);
	assert(read_copy(datagram, n) == QUIC_FOUND);
	expect_found("app.example.org");
}

static void test_packets_that_share_the_datagram_are_passed_over(void)
{
	size_t len = hello(0), n = initial_crypto(0, message, len, frames, sizeof(frames));

	n = initial_build(&(struct initial_options){ 0 }, frames, n, datagram, CAP);
	/* 0-RTT in front would be no beginning; behind the Initial it is what clients do. */
	memmove(datagram + 24, datagram, n);
	memcpy(datagram, "\xd0\x00\x00\x00\x01\x08\x83\x94\xc8\xf0\x3e\x51\x57\x08\x00\x08" "12345678", 24);
	assert(read_alone(datagram, n + 24) == QUIC_REFUSED && client.reason == SNIFFER_QUIC_PACKET);

	size_t half = initial_crypto(0, message, 100, frames, sizeof(frames));
	size_t at = initial_build(&(struct initial_options){ .pad_to = 200 }, frames, half, datagram, CAP);
	memcpy(datagram + at, "\xd0\x00\x00\x00\x01\x08\x83\x94\xc8\xf0\x3e\x51\x57\x08\x00\x08" "12345678", 24);
	half = initial_crypto(100, message + 100, len - 100, frames, sizeof(frames));
	at += 24;
	at += initial_build(&(struct initial_options){ .number = 1 }, frames, half, datagram + at, CAP - at);
	assert(read_alone(datagram, at) == QUIC_FOUND && client.n_ignored == 0);
	expect_found("app.example.org");
}

/* The hello in the packet of that number, behind small ones; which of those is damaged, if any. */
static enum quic_outcome read_behind(uint32_t n_before, uint32_t damaged)
{
	const size_t len = hello(0);
	size_t at = 0;

	for (uint32_t i = 0; i < n_before; i++) {
		at += initial_build(&(struct initial_options){ .number = i, .pad_to = 60 }, (const uint8_t *)"\x01", 1,
				    datagram + at, CAP - at);
		datagram[at - 1] ^= i == damaged;
	}
	const size_t n = initial_crypto(0, message, len, frames, sizeof(frames));
	at += initial_build(&(struct initial_options){ .number = n_before }, frames, n, datagram + at, CAP - at);
	return read_alone(datagram, at);
}

static void test_of_one_datagram_few_packets_are_opened_and_none_behind_one_that_does_not_open(void)
{
	assert(read_behind(QUIC_MAX_OPENED - 1, UINT32_MAX) == QUIC_FOUND);
	assert(read_behind(QUIC_MAX_OPENED, UINT32_MAX) == QUIC_MORE);
	assert(read_behind(2, 1) == QUIC_MORE && client.n_ignored == 1);
	assert(read_behind(2, 0) == QUIC_REFUSED);
}

static void test_a_datagram_cut_anywhere_is_refused_and_never_read_past(void)
{
	size_t n = initial_with_hello(message, hello(0), datagram, CAP);

	for (size_t len = 0; len < n; len++)
		assert(read_alone(datagram, len) == QUIC_REFUSED);
}

/* ---- headers --------------------------------------------------------------------------------- */

static void test_types_of_packets_are_those_of_their_version(void)
{
	static const struct {
		const char *start;
		enum quic_packet_type type;
	} packets[] = {
		{ "\xc0\x00\x00\x00\x01", QUIC_INITIAL },   { "\xd0\x00\x00\x00\x01", QUIC_ZERO_RTT },
		{ "\xe0\x00\x00\x00\x01", QUIC_HANDSHAKE }, { "\xf0\x00\x00\x00\x01", QUIC_RETRY },
		{ "\xc0\x6b\x33\x43\xcf", QUIC_RETRY },	    { "\xd0\x6b\x33\x43\xcf", QUIC_INITIAL },
		{ "\xe0\x6b\x33\x43\xcf", QUIC_ZERO_RTT },  { "\xf0\x6b\x33\x43\xcf", QUIC_HANDSHAKE },
		{ "\xc0\x00\x00\x00\x00", QUIC_NEGOTIATION }, { "\xc0\xff\x00\x00\x1d", QUIC_OTHER_VERSION },
		{ "\x40\x00\x00\x00\x00", QUIC_SHORT },
	};
	struct quic_header header;
	uint8_t bytes[10] = { 0 };

	for (size_t i = 0; i < ARRAY_LEN(packets); i++) {
		memcpy(bytes, packets[i].start, 5);
		memcpy(bytes + 5, "\x02" "ab\x01" "c", 5);
		assert(quic_header_decode(bytes, sizeof(bytes), &header) == 0 && header.type == packets[i].type);
		if (header.type != QUIC_SHORT)
			assert(header.destination.len == 2 && memcmp(header.destination.bytes, "ab", 2) == 0 &&
			       header.source.len == 1 && header.source.bytes[0] == 'c');
	}
	assert(quic_header_decode(bytes, 0, &header) == QUIC_E_MALFORMED);
	assert(quic_header_decode((const uint8_t *)"\xc0\x00\x00\x00\x01\x02" "a", 7, &header) == QUIC_E_MALFORMED);
	memset(datagram, 21, 100);
	memcpy(datagram, "\xc0\x00\x00\x00\x01", 5);
	assert(quic_header_decode(datagram, 100, &header) == QUIC_E_MALFORMED);
}

static void test_version_negotiation_turns_the_ids_round_and_names_versions_1_and_2(void)
{
	struct quic_header header = { QUIC_OTHER_VERSION, 0xff00001d, { 2, "ab" }, { 3, "cde" } };
	uint8_t answer[64];

	size_t n = quic_encode_negotiation(&header, answer, sizeof(answer));
	assert(n == 20);
	expect_bytes(answer, "c00000000003636465026162000000016b3343cf");
	assert(quic_encode_negotiation(&header, answer, n - 1) == 0);
}

static void test_ids_of_an_unknown_version_may_be_longer(void)
{
	static const uint8_t first[] = { 0xc0, 0xff, 0, 0, 0x1d };
	uint8_t answer[600];
	struct quic_header header;

	memset(datagram, 0xab, QUIC_MIN_DATAGRAM);
	memcpy(datagram, first, sizeof(first));
	datagram[5] = 255;
	datagram[6 + 255] = 21;
	assert(quic_header_decode(datagram, QUIC_MIN_DATAGRAM, &header) == 0);
	assert(header.type == QUIC_OTHER_VERSION && header.destination.len == 255 && header.source.len == 21);
	assert(quic_header_decode(datagram, 6 + 255 + 1 + 20, &header) == QUIC_E_MALFORMED);
	const size_t n = quic_encode_negotiation(&header, answer, sizeof(answer));
	assert(n == 7 + 255 + 21 + 8);
	assert(quic_header_decode(answer, n, &header) == 0 && header.source.len == 255 && header.destination.len == 21);
	datagram[1] = datagram[2] = datagram[3] = 0;
	datagram[4] = 1;
	assert(quic_header_decode(datagram, QUIC_MIN_DATAGRAM, &header) == QUIC_E_MALFORMED);
}

/* Else who forges their address had others sent more than they send. */
static void test_a_short_datagram_of_an_unknown_version_is_not_answered(void)
{
	static const uint8_t least[] = { 0xc0, 0xff, 0, 0, 0x1d, 0, 0 };

	memset(datagram, 0, QUIC_MIN_DATAGRAM);
	memcpy(datagram, least, sizeof(least));
	assert(read_alone(datagram, sizeof(least)) == QUIC_REFUSED && client.reason == SNIFFER_QUIC_SHORT);
	assert(read_alone(datagram, QUIC_MIN_DATAGRAM - 1) == QUIC_REFUSED && client.reason == SNIFFER_QUIC_SHORT);
	assert(read_alone(datagram, QUIC_MIN_DATAGRAM) == QUIC_UNKNOWN_VERSION);
}

static void test_who_sends_without_end_and_says_nothing_is_refused(void)
{
	static const uint8_t ping[] = { 1 };

	quic_initial_init(&client);
	for (uint32_t i = 0; i <= QUIC_MAX_DATAGRAMS; i++) {
		const size_t n = initial_build(&(struct initial_options){ .number = i }, ping, 1, datagram, CAP);
		assert(read_copy(datagram, n) == (i < QUIC_MAX_DATAGRAMS ? QUIC_MORE : QUIC_REFUSED));
	}
	assert(client.reason == SNIFFER_TOO_LONG && client.n_ignored == 0);
}

int main(void)
{
	test_the_keys_are_those_of_the_appendices();
	test_the_packets_of_the_appendices_are_read();
	test_a_hello_may_come_in_several_datagrams_in_any_order();
	test_crypto_frames_of_one_packet_come_in_any_order_cut_anywhere();
	test_a_frame_for_each_byte_backwards_is_a_hello_too();
	test_what_is_sent_again_overlaps_and_changes_nothing();
	test_packet_numbers_begin_anywhere_and_are_cut_to_their_last_bytes();
	test_what_is_damaged_or_of_somebody_else_is_ignored();
	test_packets_that_share_the_datagram_are_passed_over();
	test_of_one_datagram_few_packets_are_opened_and_none_behind_one_that_does_not_open();
	test_a_datagram_cut_anywhere_is_refused_and_never_read_past();
	test_types_of_packets_are_those_of_their_version();
	test_version_negotiation_turns_the_ids_round_and_names_versions_1_and_2();
	test_ids_of_an_unknown_version_may_be_longer();
	test_a_short_datagram_of_an_unknown_version_is_not_answered();
	test_who_sends_without_end_and_says_nothing_is_refused();
	puts("ok");
	return 0;
}
