/* The four messages: what is encoded decodes to the same, and nothing else has the right shape. */
#include "node/wireguard/message_wire.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static void test_lengths_and_types_are_exact(void)
{
	static const struct {
		uint8_t type;
		size_t len;
		int expected;
	} cases[] = {
		{ 1, 147, 0 }, { 1, 148, 1 }, { 1, 149, 0 }, { 2, 91, 0 }, { 2, 92, 2 }, { 2, 93, 0 },
		{ 3, 63, 0 },  { 3, 64, 3 },  { 3, 65, 0 },  { 4, 31, 0 }, { 4, 32, 4 }, { 4, 33, 4 },
		{ 4, 2000, 4 }, { 0, 148, 0 }, { 5, 148, 0 }, { 1, 0, 0 }, { 1, 3, 0 },
	};
	uint8_t bytes[2000] = { 0 };

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		bytes[0] = cases[i].type;
		assert((int)wg_message_type(bytes, cases[i].len) == cases[i].expected);
	}
}

static void test_reserved_bytes_must_be_zero(void)
{
	for (size_t i = 1; i < 4; i++) {
		uint8_t bytes[WG_INITIATION_LEN] = { 1 };
		bytes[i] = 1;
		assert(wg_message_type(bytes, sizeof(bytes)) == 0);
	}
}

static void test_an_initiation_is_little_endian_in_the_drawn_order(void)
{
	struct wg_initiation message = { .sender = 0x44332211 }, again;
	uint8_t bytes[WG_INITIATION_LEN];

	memset(message.noise, 0xaa, sizeof(message.noise));
	memset(message.mac1, 0xbb, sizeof(message.mac1));
	memset(message.mac2, 0xcc, sizeof(message.mac2));
	wg_initiation_encode(bytes, &message);
	assert(memcmp(bytes, "\1\0\0\0\x11\x22\x33\x44\xaa", 9) == 0);
	assert(bytes[115] == 0xaa && bytes[116] == 0xbb && bytes[132] == 0xcc && bytes[147] == 0xcc);
	assert(wg_initiation_decode(bytes, sizeof(bytes), &again) == 0);
	assert(memcmp(&message, &again, sizeof(message)) == 0);
}

static void test_a_response_names_sender_then_receiver(void)
{
	struct wg_response message = { .sender = 1, .receiver = 2 }, again;
	uint8_t bytes[WG_RESPONSE_LEN];

	wg_response_encode(bytes, &message);
	assert(memcmp(bytes, "\2\0\0\0\1\0\0\0\2\0\0\0", 12) == 0);
	assert(wg_response_decode(bytes, sizeof(bytes), &again) == 0);
	assert(memcmp(&message, &again, sizeof(message)) == 0);
	assert(wg_response_decode(bytes, sizeof(bytes) - 1, &again) == WG_MESSAGE_E_MALFORMED);
}

static void test_a_data_header_counts_in_64_bits(void)
{
	const struct wg_data_header header = { .receiver = 7, .counter = UINT64_C(0x8877665544332211) };
	struct wg_data_header again;
	uint8_t bytes[WG_DATA_MIN_LEN] = { 0 };

	wg_data_header_encode(bytes, &header);
	assert(memcmp(bytes, "\4\0\0\0\7\0\0\0\x11\x22\x33\x44\x55\x66\x77\x88", 16) == 0);
	assert(wg_data_header_decode(bytes, sizeof(bytes), &again) == 0);
	assert(again.receiver == header.receiver && again.counter == header.counter);
	assert(wg_data_header_decode(bytes, sizeof(bytes) - 1, &again) == WG_MESSAGE_E_MALFORMED);
}

int main(void)
{
	test_lengths_and_types_are_exact();
	test_reserved_bytes_must_be_zero();
	test_an_initiation_is_little_endian_in_the_drawn_order();
	test_a_response_names_sender_then_receiver();
	test_a_data_header_counts_in_64_bits();
	puts("ok");
}
