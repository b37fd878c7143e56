/* Keyed hashes, each use with a label of its own. */
#include "relay/udp_cookies.h"

#include <sodium.h>
#include <string.h>

#define SECOND_NS      UINT64_C(1000000000)
#define MILLISECOND_NS UINT64_C(1000000)
#define CHALLENGE_NS   (32 * SECOND_NS)
#define CHALLENGES     3 /* now and before */

enum hash_use { HASH_COOKIE, HASH_CHALLENGE, HASH_RANDOM };

static void hash(const struct udp_cookies *cookies, enum hash_use use, const void *bytes, size_t len,
		 uint8_t ret[crypto_generichash_BYTES_MIN])
{
	const uint8_t label = (uint8_t)use;
	crypto_generichash_state state;

	crypto_generichash_init(&state, cookies->secret, sizeof(cookies->secret), crypto_generichash_BYTES_MIN);
	crypto_generichash_update(&state, &label, sizeof(label));
	crypto_generichash_update(&state, bytes, len);
	crypto_generichash_final(&state, ret, crypto_generichash_BYTES_MIN);
}

static uint32_t hash_u32(const struct udp_cookies *cookies, enum hash_use use, const void *bytes, size_t len)
{
	uint8_t hashed[crypto_generichash_BYTES_MIN];
	uint32_t ret;

	hash(cookies, use, bytes, len, hashed);
	memcpy(&ret, hashed, sizeof(ret));
	return ret;
}

void udp_cookies_init(struct udp_cookies *cookies)
{
	cookies->n_random = 0;
	randombytes_buf(cookies->secret, sizeof(cookies->secret));
}

uint32_t udp_cookies_random(struct udp_cookies *cookies)
{
	const uint64_t number = cookies->n_random++;

	return hash_u32(cookies, HASH_RANDOM, &number, sizeof(number));
}

/* ---- cookies ---- */

uint32_t udp_cookies_ms(uint64_t now_ns)
{
	return (uint32_t)(now_ns / MILLISECOND_NS);
}

static void make_of(const struct udp_cookies *cookies, const struct endpoint *from, uint32_t made_ms,
		    uint8_t ret[RELAY_UDP_COOKIE_LEN])
{
	uint8_t input[sizeof(from->ip) + sizeof(from->port) + sizeof(made_ms)];
	uint8_t bytes[crypto_generichash_BYTES_MIN];

	memcpy(input, from->ip, sizeof(from->ip));
	memcpy(input + sizeof(from->ip), &from->port, sizeof(from->port));
	memcpy(input + sizeof(from->ip) + sizeof(from->port), &made_ms, sizeof(made_ms));
	hash(cookies, HASH_COOKIE, input, sizeof(input), bytes);
	memcpy(ret, &made_ms, sizeof(made_ms));
	memcpy(ret + sizeof(made_ms), bytes, RELAY_UDP_COOKIE_LEN - sizeof(made_ms));
}

void udp_cookies_make(const struct udp_cookies *cookies, const struct endpoint *from, uint64_t now_ns,
		      uint8_t ret[RELAY_UDP_COOKIE_LEN])
{
	make_of(cookies, from, udp_cookies_ms(now_ns), ret);
}

bool udp_cookies_is_good(const struct udp_cookies *cookies, const struct endpoint *from,
			 const uint8_t cookie[RELAY_UDP_COOKIE_LEN], uint64_t now_ns, uint32_t *ret_made_ms)
{
	uint8_t right[RELAY_UDP_COOKIE_LEN];

	memcpy(ret_made_ms, cookie, sizeof(*ret_made_ms));
	if (udp_cookies_ms(now_ns) - *ret_made_ms > UDP_COOKIES_MS) /* one of the future, too */
		return false;
	make_of(cookies, from, *ret_made_ms, right);
	return sodium_memcmp(right, cookie, sizeof(right)) == 0;
}

/* ---- challenges ---- */

static uint32_t challenge_of(const struct udp_cookies *cookies, uint32_t slot, uint32_t token, uint64_t period)
{
	const struct {
		uint64_t period;
		uint32_t slot, token;
	} input = { period, slot, token };

	return hash_u32(cookies, HASH_CHALLENGE, &input, sizeof(input));
}

uint32_t udp_cookies_challenge(const struct udp_cookies *cookies, uint32_t slot, uint32_t token, uint64_t now_ns)
{
	return challenge_of(cookies, slot, token, now_ns / CHALLENGE_NS);
}

bool udp_cookies_is_challenge(const struct udp_cookies *cookies, uint32_t slot, uint32_t token, uint32_t challenge,
			      uint64_t now_ns)
{
	const uint64_t period = now_ns / CHALLENGE_NS;

	for (uint64_t i = 0; i < CHALLENGES && i <= period; i++)
		if (challenge_of(cookies, slot, token, period - i) == challenge)
			return true;
	return false;
}
