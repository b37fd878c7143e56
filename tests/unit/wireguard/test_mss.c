/* The MSS of SYNs is made to fit; everything else stays as it is, and the checksum stays right. */
#include "node/wireguard/mss.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "node/wireguard/offload.h"

#define MSS_9000 0x22, 0xb8 /* 8888 */

static uint8_t packet[128];
static size_t len;
static bool is_v4;

static uint16_t sum(void)
{
	const size_t ip = is_v4 ? 20 : 40;

	return offload_fold(offload_sum(packet + ip, len - ip,
					offload_pseudo_sum(packet, is_v4, 6, (uint32_t)(len - ip))));
}

static void given_tcp(bool v4, uint8_t flags, const uint8_t *options, size_t n)
{
	const size_t ip = v4 ? 20 : 40;

	is_v4 = v4;
	len = ip + 20 + n;
	memset(packet, 0, sizeof(packet));
	packet[0] = v4 ? 0x45 : 0x60;
	packet[v4 ? 3 : 5] = (uint8_t)(v4 ? len : len - 40);
	packet[v4 ? 9 : 6] = 6;
	packet[ip + 3] = 80;
	packet[ip + 12] = (uint8_t)((20 + n) / 4 << 4);
	packet[ip + 13] = flags;
	memcpy(packet + ip + 20, options, n);
	const uint16_t check = (uint16_t)~sum();
	memcpy(packet + ip + 16, &check, sizeof(check));
	assert(sum() == 0xffff);
}

static unsigned mss_at(size_t option)
{
	const uint8_t *at = packet + (is_v4 ? 20 : 40) + 20 + option;

	return (unsigned)at[0] << 8 | at[1];
}

static void expect_unchanged(uint32_t mtu)
{
	uint8_t before[sizeof(packet)];

	memcpy(before, packet, sizeof(packet));
	if (mss_is_syn(packet, len))
		mss_clamp(packet, len, mtu);
	assert(memcmp(before, packet, sizeof(packet)) == 0);
}

static void test_a_syn_says_no_more_than_fits(void)
{
	static const uint8_t options[] = { 2, 4, MSS_9000, 4, 2, 1, 1 };

	given_tcp(true, 0x02, options, sizeof(options));
	assert(mss_is_syn(packet, len));
	mss_clamp(packet, len, 1440);
	assert(mss_at(2) == 1400 && sum() == 0xffff);

	given_tcp(false, 0x12, options, sizeof(options)); /* its answer, IPv6 */
	assert(mss_is_syn(packet, len));
	mss_clamp(packet, len, 1440);
	assert(mss_at(2) == 1380 && sum() == 0xffff);
}

static void test_the_option_may_stand_at_an_odd_place(void)
{
	static const uint8_t options[] = { 1, 2, 4, MSS_9000, 1, 1, 0 };

	given_tcp(true, 0x02, options, sizeof(options));
	mss_clamp(packet, len, 1280);
	assert(mss_at(3) == 1240 && sum() == 0xffff);
}

static void test_what_fits_and_what_is_no_syn_stays_as_it_is(void)
{
	static const uint8_t options[] = { 2, 4, MSS_9000 };

	given_tcp(true, 0x02, options, sizeof(options));
	expect_unchanged(8928);
	given_tcp(true, 0x10, options, sizeof(options));
	assert(!mss_is_syn(packet, len));
	given_tcp(true, 0x02, options, sizeof(options));
	packet[9] = 17;
	assert(!mss_is_syn(packet, len));
	given_tcp(true, 0x02, options, sizeof(options));
	packet[7] = 1; /* a later fragment */
	assert(!mss_is_syn(packet, len));
	given_tcp(true, 0x02, options, 0);
	expect_unchanged(1280);
}

static void test_options_that_make_no_sense_change_nothing(void)
{
	static const uint8_t options[][8] = {
		{ 2, 0, MSS_9000 }, { 3, 0, 2, 4, MSS_9000 }, { 2, 3, MSS_9000 }, { 3, 200, 2, 4, MSS_9000 },
		{ 0, 0, 2, 4, MSS_9000 }, { 1, 1, 1, 1, 1, 1, 1, 2 }, { 1, 1, 1, 1, 1, 2, 4, 0x22 },
	};

	for (size_t i = 0; i < sizeof(options) / sizeof(*options); i++) {
		given_tcp(true, 0x02, options[i], sizeof(options[i]));
		expect_unchanged(1280);
	}
}

/* Under the sanitizers: of any bytes, in a buffer that ends where the packet does. */
static void test_any_bytes_are_survived(void)
{
	srand(1);
	for (int i = 0; i < 200000; i++) {
		const size_t n = (size_t)rand() % MSS_MAX_SYN;
		uint8_t *bytes = malloc(n ? n : 1);
		for (size_t k = 0; k < n; k++)
			bytes[k] = (uint8_t)rand();
		if (n > 13 && i % 2) {
			bytes[0] = (uint8_t)(0x45 + rand() % 11);
			bytes[9] = 6;
			bytes[6] = bytes[7] = 0;
		}
		if (mss_is_syn(bytes, n))
			mss_clamp(bytes, n, 1280);
		free(bytes);
	}
}

int main(void)
{
	test_a_syn_says_no_more_than_fits();
	test_the_option_may_stand_at_an_odd_place();
	test_what_fits_and_what_is_no_syn_stays_as_it_is();
	test_options_that_make_no_sense_change_nothing();
	test_any_bytes_are_survived();
	return 0;
}
