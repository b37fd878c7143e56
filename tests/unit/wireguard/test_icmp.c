/* Who sends to an address that no peer has is told, unless RFC 1122 or RFC 4443 forbid it. */
#include "node/wireguard/icmp.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

/* A UDP packet from 10.0.0.1 to 10.9.9.9, with "quoted" payload. */
static uint8_t packet4[1400] = { 0x45, 0, 5, 120, 0, 1, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 9, 9, 9 };
static uint8_t packet6[1400] = { 0x60, 0, 0, 0, 5, 80, 17, 64, 0xfd, 1, [23] = 1, 0xfd, 9, [39] = 9 };

static uint32_t sum(const uint8_t *bytes, size_t len, uint32_t start)
{
	uint32_t total = start;

	for (size_t i = 0; i < len; i++)
		total += (uint32_t)(i % 2 ? bytes[i] : bytes[i] << 8);
	while (total > 0xffff)
		total = (total & 0xffff) + (total >> 16);
	return total;
}

static void test_a_v4_sender_gets_host_unreachable_with_the_packet_quoted(void)
{
	uint8_t answer[ICMP6_MAX_LEN];

	assert(icmp_unreachable(packet4, sizeof(packet4), answer) == ICMP4_MAX_LEN);
	assert(sum(answer, 20, 0) == 0xffff && sum(answer + 20, ICMP4_MAX_LEN - 20, 0) == 0xffff);
	assert(memcmp(answer + 12, packet4 + 16, 4) == 0 && memcmp(answer + 16, packet4 + 12, 4) == 0);
	assert(answer[20] == 3 && answer[21] == 1);
	assert(memcmp(answer + 28, packet4, ICMP4_MAX_LEN - 28) == 0);
	assert(icmp_unreachable(packet4, 30, answer) == 58);
	assert(sum(answer + 20, 38, 0) == 0xffff);
}

static void test_a_v6_sender_gets_address_unreachable(void)
{
	uint8_t answer[ICMP6_MAX_LEN];
	uint32_t icmp_len = ICMP6_MAX_LEN - 40;

	assert(icmp_unreachable(packet6, sizeof(packet6), answer) == ICMP6_MAX_LEN);
	assert(sum(answer + 40, icmp_len, sum(answer + 8, 32, 58 + icmp_len)) == 0xffff);
	assert(memcmp(answer + 8, packet6 + 24, 16) == 0 && memcmp(answer + 24, packet6 + 8, 16) == 0);
	assert(answer[40] == 1 && answer[41] == 3);
}

static void test_who_sends_too_large_a_packet_is_told_the_mtu(void)
{
	uint8_t answer[ICMP6_MAX_LEN];
	uint32_t icmp_len = ICMP6_MAX_LEN - 40;

	assert(icmp_too_big(packet4, sizeof(packet4), 1328, answer) == ICMP4_MAX_LEN);
	assert(sum(answer, 20, 0) == 0xffff && sum(answer + 20, ICMP4_MAX_LEN - 20, 0) == 0xffff);
	assert(answer[20] == 3 && answer[21] == 4 && answer[26] == 1328 >> 8 && answer[27] == (1328 & 0xff));
	assert(icmp_too_big(packet6, sizeof(packet6), 1328, answer) == ICMP6_MAX_LEN);
	assert(sum(answer + 40, icmp_len, sum(answer + 8, 32, 58 + icmp_len)) == 0xffff);
	assert(answer[40] == 2 && answer[41] == 0 && answer[46] == 1328 >> 8 && answer[47] == (1328 & 0xff));
}

/* The packet with one byte changed is not answered. */
static void expect_silence(const uint8_t *packet, size_t at, uint8_t value)
{
	uint8_t changed[1400], answer[ICMP6_MAX_LEN];

	memcpy(changed, packet, sizeof(changed));
	changed[at] = value;
	assert(icmp_unreachable(changed, sizeof(changed), answer) == 0);
}

static void test_where_an_answer_would_do_harm_there_is_none(void)
{
	uint8_t answer[ICMP6_MAX_LEN], echo[28] = { 0 };

	expect_silence(packet4, 16, 224); /* to multicast */
	expect_silence(packet4, 12, 224); /* from multicast */
	expect_silence(packet4, 12, 0);	  /* from nobody */
	expect_silence(packet4, 7, 1);	  /* not the first fragment */
	expect_silence(packet4, 0, 0x44); /* header too short */
	expect_silence(packet4, 0, 0x25); /* no IP */
	expect_silence(packet6, 24, 0xff);
	expect_silence(packet6, 8, 0xff);

	memcpy(echo, packet4, 20);
	echo[9] = 1;
	echo[20] = 8; /* an echo request is answered, an error not */
	assert(icmp_unreachable(echo, sizeof(echo), answer) > 0);
	echo[20] = 3;
	assert(icmp_unreachable(echo, sizeof(echo), answer) == 0);
	assert(icmp_unreachable(echo, 20, answer) == 0);
}

static void test_what_is_too_short_is_not_looked_at(void)
{
	uint8_t answer[ICMP6_MAX_LEN];

	for (size_t len = 0; len < 20; len++)
		assert(icmp_unreachable(packet4, len, answer) == 0);
	for (size_t len = 0; len < 40; len++)
		assert(icmp_unreachable(packet6, len, answer) == 0);
}

int main(void)
{
	test_a_v4_sender_gets_host_unreachable_with_the_packet_quoted();
	test_a_v6_sender_gets_address_unreachable();
	test_who_sends_too_large_a_packet_is_told_the_mtu();
	test_where_an_answer_would_do_harm_there_is_none();
	test_what_is_too_short_is_not_looked_at();
	puts("ok");
	return 0;
}
