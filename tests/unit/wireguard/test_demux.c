/* Which of the protocols that share the UDP socket does a datagram belong to? */
#include "actors/direct_router/demux.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define KIND(...) demux_datagram((uint8_t[]){ __VA_ARGS__ }, sizeof((uint8_t[]){ __VA_ARGS__ }))

static void test_wireguard_is_a_type_of_one_to_four_and_three_zero_bytes(void)
{
	assert(KIND(1, 0, 0, 0, 9, 9, 9, 9) == DEMUX_WIREGUARD);
	assert(KIND(2, 0, 0, 0, 9, 9, 9, 9) == DEMUX_WIREGUARD);
	assert(KIND(3, 0, 0, 0, 9, 9, 9, 9) == DEMUX_WIREGUARD);
	assert(KIND(4, 0, 0, 0, 9, 9, 9, 9) == DEMUX_WIREGUARD);

	assert(KIND(0, 0, 0, 0, 9, 9, 9, 9) == DEMUX_UNKNOWN);
	assert(KIND(5, 0, 0, 0, 9, 9, 9, 9) == DEMUX_UNKNOWN);
	assert(KIND(4, 0, 0, 1, 9, 9, 9, 9) == DEMUX_UNKNOWN);
	assert(KIND(4, 1, 0, 0, 9, 9, 9, 9) == DEMUX_UNKNOWN);
}

static void test_a_session_message_is_known_by_its_magic(void)
{
	assert(KIND(0xd2, 0x70, 0x32, 0x70, 0, 0, 0, 0) == DEMUX_SESSION);
	assert(KIND(0xd2, 0x70, 0x32, 0x71, 0, 0, 0, 0) == DEMUX_UNKNOWN);
}

static void test_a_relays_datagram_is_known_by_its_magic_whatever_its_type(void)
{
	assert(KIND(0xd2, 0x70, 0x72, 11, 0, 0, 0, 0) == DEMUX_RELAY);
	assert(KIND(0xd2, 0x70, 0x72, 255, 0, 0, 0, 0) == DEMUX_RELAY);
	assert(KIND(0xd2, 0x70, 0x73, 11, 0, 0, 0, 0) == DEMUX_UNKNOWN);
}

static void test_stun_is_two_zero_bits_and_the_cookie(void)
{
	assert(KIND(0x01, 0x01, 0, 12, 0x21, 0x12, 0xa4, 0x42) == DEMUX_STUN);
	assert(KIND(0x00, 0x01, 0, 0, 0x21, 0x12, 0xa4, 0x42) == DEMUX_STUN);
	assert(KIND(0x41, 0x01, 0, 0, 0x21, 0x12, 0xa4, 0x42) == DEMUX_UNKNOWN);
	assert(KIND(0x01, 0x01, 0, 12, 0x21, 0x12, 0xa4, 0x43) == DEMUX_UNKNOWN);
}

static void test_wireguard_with_the_cookie_as_its_index_is_wireguard(void)
{
	assert(KIND(1, 0, 0, 0, 0x21, 0x12, 0xa4, 0x42) == DEMUX_WIREGUARD);
}

static void test_what_is_shorter_than_eight_bytes_is_nothing(void)
{
	static const uint8_t bytes[8] = { 4 };

	for (size_t len = 0; len < sizeof(bytes); len++)
		assert(demux_datagram(bytes, len) == DEMUX_UNKNOWN);
	assert(demux_datagram(bytes, sizeof(bytes)) == DEMUX_WIREGUARD);
	assert(demux_datagram(NULL, 0) == DEMUX_UNKNOWN);
}

static void test_every_kind_has_a_name(void)
{
	assert(strcmp(demux_kind_name(DEMUX_SESSION), "session") == 0);
	assert(strcmp(demux_kind_name(DEMUX_UNKNOWN), "unknown") == 0);
}

int main(void)
{
	test_wireguard_is_a_type_of_one_to_four_and_three_zero_bytes();
	test_a_session_message_is_known_by_its_magic();
	test_a_relays_datagram_is_known_by_its_magic_whatever_its_type();
	test_stun_is_two_zero_bits_and_the_cookie();
	test_wireguard_with_the_cookie_as_its_index_is_wireguard();
	test_what_is_shorter_than_eight_bytes_is_nothing();
	test_every_kind_has_a_name();
	puts("ok");
	return 0;
}
