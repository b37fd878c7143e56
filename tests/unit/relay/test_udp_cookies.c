/* What a relay over UDP knows again is good for whom it was made for, and for a time. */
#include "relay/udp_cookies.h"

#include <sodium.h>
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

#define MS  UINT64_C(1000000)
#define NOW (UINT64_C(1000000) * MS)

static struct udp_cookies cookies;

static struct endpoint endpoint_of(const char *text)
{
	struct endpoint endpoint;

	if (endpoint_parse(text, &endpoint) != 0)
		abort();
	return endpoint;
}

static void test_a_cookie_is_of_one_address_and_port_and_of_one_relay(void)
{
	const struct endpoint from = endpoint_of("192.0.2.7:1000"), port = endpoint_of("192.0.2.7:1001"),
			      address = endpoint_of("192.0.2.8:1000");
	uint8_t cookie[RELAY_UDP_COOKIE_LEN];
	struct udp_cookies others;
	uint32_t made_ms;

	udp_cookies_make(&cookies, &from, NOW, cookie);
	EXPECT(udp_cookies_is_good(&cookies, &from, cookie, NOW, &made_ms) && made_ms == udp_cookies_ms(NOW));
	EXPECT(!udp_cookies_is_good(&cookies, &port, cookie, NOW, &made_ms));
	EXPECT(!udp_cookies_is_good(&cookies, &address, cookie, NOW, &made_ms));
	udp_cookies_init(&others);
	EXPECT(!udp_cookies_is_good(&others, &from, cookie, NOW, &made_ms));
	others = cookies; /* the relay that follows */
	EXPECT(udp_cookies_is_good(&others, &from, cookie, NOW, &made_ms));
	for (size_t i = 0; i < sizeof(cookie); i++) {
		cookie[i] ^= 1;
		EXPECT(!udp_cookies_is_good(&cookies, &from, cookie, NOW, &made_ms));
		cookie[i] ^= 1;
	}
}

static void test_a_cookie_is_good_for_its_time_also_where_the_milliseconds_wrap(void)
{
	static const uint64_t begins[] = { 0, NOW, UINT64_C(0xffffffff) * MS };
	const struct endpoint from = endpoint_of("[2001:db8::1]:1000");
	uint8_t cookie[RELAY_UDP_COOKIE_LEN];
	uint32_t made_ms;

	for (size_t i = 0; i < sizeof(begins) / sizeof(*begins); i++) {
		udp_cookies_make(&cookies, &from, begins[i], cookie);
		EXPECT(udp_cookies_is_good(&cookies, &from, cookie, begins[i] + UDP_COOKIES_MS * MS, &made_ms));
		EXPECT(!udp_cookies_is_good(&cookies, &from, cookie, begins[i] + (UDP_COOKIES_MS + 1) * MS, &made_ms));
	}
	udp_cookies_make(&cookies, &from, NOW + MS, cookie);
	EXPECT(!udp_cookies_is_good(&cookies, &from, cookie, NOW, &made_ms)); /* of the future */
}

static void test_a_challenge_is_of_one_client_and_good_for_a_minute_and_a_half_at_most(void)
{
	const uint32_t challenge = udp_cookies_challenge(&cookies, 7, 8, NOW);

	EXPECT(udp_cookies_is_challenge(&cookies, 7, 8, challenge, NOW));
	EXPECT(udp_cookies_is_challenge(&cookies, 7, 8, challenge, NOW + 60000 * MS));
	EXPECT(!udp_cookies_is_challenge(&cookies, 7, 8, challenge, NOW + 97000 * MS));
	EXPECT(!udp_cookies_is_challenge(&cookies, 6, 8, challenge, NOW));
	EXPECT(!udp_cookies_is_challenge(&cookies, 7, 9, challenge, NOW));
	EXPECT(udp_cookies_is_challenge(&cookies, 7, 8, udp_cookies_challenge(&cookies, 7, 8, 0), 0)); /* just started */
}

static void test_who_follows_goes_on_with_other_random_numbers(void)
{
	const uint32_t first = udp_cookies_random(&cookies);
	struct udp_cookies follower = cookies;

	EXPECT(udp_cookies_random(&follower) != first);
	EXPECT(udp_cookies_random(&cookies) != udp_cookies_random(&cookies));
}

int main(void)
{
	if (sodium_init() < 0)
		return 1;
	udp_cookies_init(&cookies);
	test_a_cookie_is_of_one_address_and_port_and_of_one_relay();
	test_a_cookie_is_good_for_its_time_also_where_the_milliseconds_wrap();
	test_a_challenge_is_of_one_client_and_good_for_a_minute_and_a_half_at_most();
	test_who_follows_goes_on_with_other_random_numbers();
	return 0;
}
