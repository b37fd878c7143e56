/*
 * MACs, cookies, and the rate limit behind them. Expected MACs are from CPython's hashlib.blake2s.
 */
#include "node/wireguard/cookie.h"
#include "node/wireguard/ratelimiter.h"
#include "tests/unit/wireguard/hex.h"

#include <stdio.h>

#define SECOND UINT64_C(1000000000)
#define NOW    (1000 * SECOND)

static struct wg_crypto crypto;

struct world {
	struct public_key receiver;
	struct wg_cookie_checker checker; /* the receiver's */
	struct wg_cookie cookie;	  /* the sender's */
	uint8_t message[WG_INITIATION_LEN];
	uint8_t source[WG_SOURCE_LEN];
};

static void begin(struct world *w)
{
	uint8_t secret[KEY_LEN];

	memset(w, 0, sizeof(*w));
	for (size_t i = 0; i < KEY_LEN; i++) {
		w->receiver.bytes[i] = (uint8_t)(i + 1);
		secret[i] = (uint8_t)(i + 100);
	}
	unhex("01000000"
	      "11223344",
	      w->message, 8);
	for (size_t i = 0; i < 108; i++)
		w->message[8 + i] = (uint8_t)(i * 3);
	unhex("00"
	      "00000000000000000000ffffc0000201"
	      "ca6c",
	      w->source, sizeof(w->source));
	wg_cookie_checker_set_key(&w->checker, &crypto, &w->receiver);
	wg_cookie_set_secret(&w->checker, secret, NOW);
	wg_cookie_init(&w->cookie, &crypto, &w->receiver);
}

/* The macs of the message, again. */
static void add_macs(struct world *w, uint64_t now_ns)
{
	memset(w->message + 116, 0, 32);
	wg_cookie_add_macs(&w->cookie, &crypto, w->message, sizeof(w->message), now_ns);
}

static void get_cookie(struct world *w, uint64_t now_ns)
{
	struct wg_cookie_reply reply = { .nonce = { 9 } };

	add_macs(w, now_ns);
	wg_cookie_make_reply(&w->checker, &crypto, w->message, sizeof(w->message), w->source, &reply);
	assert(reply.receiver == 0x44332211);
	assert(wg_cookie_consume(&w->cookie, &reply, now_ns));
}

static bool mac2_is_right(struct world *w)
{
	return wg_cookie_check_mac2(&w->checker, &crypto, w->message, sizeof(w->message), w->source);
}

static void test_mac1_and_mac2_are_what_another_implementation_says(void)
{
	struct world w;
	begin(&w);

	get_cookie(&w, NOW);
	assert(is_hex(w.cookie.cookie, WG_MAC_LEN, "a8af8a0db40eef4a186de0c75d93c76d"));
	add_macs(&w, NOW);
	assert(is_hex(w.message + 116, WG_MAC_LEN, "5451eff52228f26457d7643e98d0ff9f"));
	assert(is_hex(w.message + 132, WG_MAC_LEN, "725c3e3d057a0df02c92ea858d809cba"));
}

static void test_without_a_cookie_mac2_is_zero_and_wrong(void)
{
	struct world w;
	begin(&w);

	add_macs(&w, NOW);
	assert(sodium_is_zero(w.message + 132, WG_MAC_LEN));
	assert(wg_cookie_check_mac1(&w.checker, &crypto, w.message, sizeof(w.message)));
	assert(!mac2_is_right(&w));
}

static void test_every_changed_byte_breaks_mac1(void)
{
	struct world w;
	begin(&w);

	add_macs(&w, NOW);
	for (size_t i = 0; i < 132; i++) {
		w.message[i] ^= 1;
		assert(!wg_cookie_check_mac1(&w.checker, &crypto, w.message, sizeof(w.message)));
		w.message[i] ^= 1;
	}
}

static void test_a_cookie_is_bound_to_address_and_port(void)
{
	struct world w;
	begin(&w);

	get_cookie(&w, NOW);
	add_macs(&w, NOW);
	assert(mac2_is_right(&w));
	for (size_t i = 0; i < WG_SOURCE_LEN; i++) { /* the last two bytes are the port: gotatun forgot it */
		w.source[i] ^= 1;
		assert(!mac2_is_right(&w));
		w.source[i] ^= 1;
	}
}

static void test_a_cookie_is_used_for_115_seconds(void)
{
	struct world w;
	begin(&w);

	get_cookie(&w, NOW);
	add_macs(&w, NOW + 115 * SECOND - 1);
	assert(mac2_is_right(&w));
	add_macs(&w, NOW + 115 * SECOND);
	assert(sodium_is_zero(w.message + 132, WG_MAC_LEN));
}

static void test_the_secret_lives_120_seconds(void)
{
	struct world w;
	begin(&w);

	assert(!wg_cookie_secret_is_old(&w.checker, NOW + 120 * SECOND - 1));
	assert(wg_cookie_secret_is_old(&w.checker, NOW + 120 * SECOND));
	assert(wg_cookie_secret_is_old(&(struct wg_cookie_checker){ 0 }, NOW));
}

static void test_a_cookie_reply_is_an_answer_to_the_last_message_once(void)
{
	struct world w;
	struct wg_cookie_reply reply = { .nonce = { 9 } };
	begin(&w);

	assert(!wg_cookie_consume(&w.cookie, &reply, NOW)); /* we sent nothing */
	add_macs(&w, NOW);
	wg_cookie_make_reply(&w.checker, &crypto, w.message, sizeof(w.message), w.source, &reply);
	reply.sealed[3] ^= 1;
	assert(!wg_cookie_consume(&w.cookie, &reply, NOW)); /* forged */
	reply.sealed[3] ^= 1;
	assert(wg_cookie_consume(&w.cookie, &reply, NOW));
	assert(!wg_cookie_consume(&w.cookie, &reply, NOW)); /* repeated */
}

static void test_a_source_gets_five_at_once_and_twenty_a_second(void)
{
	static struct wg_ratelimiter limiter;
	unsigned n = 0;

	for (int i = 0; i < 10; i++)
		n += wg_ratelimiter_allow(&limiter, 1, NOW);
	assert(n == 5);
	for (uint64_t t = 0; t < 1000; t++)
		n += wg_ratelimiter_allow(&limiter, 1, NOW + t * SECOND / 1000);
	assert(n == 5 + 19); /* one every 50 ms, the first after 50 */
}

static void test_sources_do_not_share_a_limit(void)
{
	static struct wg_ratelimiter limiter;

	for (int i = 0; i < 10; i++)
		wg_ratelimiter_allow(&limiter, 2, NOW);
	assert(!wg_ratelimiter_allow(&limiter, 2, NOW));
	assert(wg_ratelimiter_allow(&limiter, 4, NOW));
}

static void test_a_full_table_refuses_and_recovers_in_a_second(void)
{
	static struct wg_ratelimiter limiter;
	const uint64_t first = 6;

	for (uint64_t i = 0; i < WG_RATELIMIT_PROBES + 1; i++) /* all want the same place */
		wg_ratelimiter_allow(&limiter, first + i * WG_RATELIMIT_SIZE * 2, NOW);
	assert(!wg_ratelimiter_allow(&limiter, first + 100 * WG_RATELIMIT_SIZE * 2, NOW));
	assert(wg_ratelimiter_allow(&limiter, first, NOW)); /* those who are in are served */
	assert(wg_ratelimiter_allow(&limiter, first + 100 * WG_RATELIMIT_SIZE * 2, NOW + SECOND));
}

int main(void)
{
	if (sodium_init() < 0 || wg_crypto_init(&crypto) != 0)
		return 1;
	test_mac1_and_mac2_are_what_another_implementation_says();
	test_without_a_cookie_mac2_is_zero_and_wrong();
	test_every_changed_byte_breaks_mac1();
	test_a_cookie_is_bound_to_address_and_port();
	test_a_cookie_is_used_for_115_seconds();
	test_the_secret_lives_120_seconds();
	test_a_cookie_reply_is_an_answer_to_the_last_message_once();
	test_a_source_gets_five_at_once_and_twenty_a_second();
	test_sources_do_not_share_a_limit();
	test_a_full_table_refuses_and_recovers_in_a_second();
	wg_crypto_deinit(&crypto);
	puts("ok");
}
