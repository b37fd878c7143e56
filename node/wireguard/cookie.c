#include "node/wireguard/cookie.h"

#include "common/wire.h"

#include <assert.h>
#include <sodium.h>
#include <string.h>

#define MACS_LEN (WG_MAC_LEN + WG_MAC_LEN)

static void derive(const struct wg_crypto *crypto, const char label[9],
		   const struct public_key *public, uint8_t ret[WG_HASH_LEN])
{
	wg_hash(crypto, label, 8, public->bytes, sizeof(public->bytes), ret);
}

static const uint8_t *mac1_of(const uint8_t *message, size_t len)
{
	assert(len == WG_INITIATION_LEN || len == WG_RESPONSE_LEN);
	return message + len - MACS_LEN;
}

void wg_cookie_checker_set_key(struct wg_cookie_checker *checker, const struct wg_crypto *crypto,
			       const struct public_key *own)
{
	derive(crypto, "mac1----", own, checker->mac1_key);
	derive(crypto, "cookie--", own, checker->cookie_key);
}

bool wg_cookie_check_mac1(const struct wg_cookie_checker *checker, const struct wg_crypto *crypto,
			  const uint8_t *message, size_t len)
{
	uint8_t mac[WG_MAC_LEN];
	const uint8_t *mac1 = mac1_of(message, len);

	wg_mac(crypto, checker->mac1_key, sizeof(checker->mac1_key), message, len - MACS_LEN, mac);
	return sodium_memcmp(mac, mac1, sizeof(mac)) == 0;
}

bool wg_cookie_secret_is_old(const struct wg_cookie_checker *checker, uint64_t now_ns)
{
	return checker->secret_birth_ns == 0 ||
	       now_ns - checker->secret_birth_ns >= WG_COOKIE_LIFE_NS;
}

void wg_cookie_set_secret(struct wg_cookie_checker *checker, const uint8_t secret[KEY_LEN],
			  uint64_t now_ns)
{
	memcpy(checker->secret, secret, KEY_LEN);
	checker->secret_birth_ns = now_ns;
}

static void make_cookie(const struct wg_cookie_checker *checker, const struct wg_crypto *crypto,
			const uint8_t source[WG_SOURCE_LEN], uint8_t ret[WG_MAC_LEN])
{
	wg_mac(crypto, checker->secret, sizeof(checker->secret), source, WG_SOURCE_LEN, ret);
}

bool wg_cookie_check_mac2(const struct wg_cookie_checker *checker, const struct wg_crypto *crypto,
			  const uint8_t *message, size_t len, const uint8_t source[WG_SOURCE_LEN])
{
	uint8_t cookie[WG_MAC_LEN], mac[WG_MAC_LEN];

	make_cookie(checker, crypto, source, cookie);
	wg_mac(crypto, cookie, sizeof(cookie), message, len - WG_MAC_LEN, mac);
	return sodium_memcmp(mac, message + len - WG_MAC_LEN, sizeof(mac)) == 0;
}

void wg_cookie_make_reply(const struct wg_cookie_checker *checker, const struct wg_crypto *crypto,
			  const uint8_t *message, size_t len, const uint8_t source[WG_SOURCE_LEN],
			  struct wg_cookie_reply *ret)
{
	struct wire_reader r = wire_reader(message, len);
	uint8_t cookie[WG_MAC_LEN];

	wire_u32_le(&r);
	ret->receiver = wire_u32_le(&r); /* the sender's index is the second field of both kinds */
	make_cookie(checker, crypto, source, cookie);
	wg_xaead_seal(checker->cookie_key, ret->nonce, cookie, sizeof(cookie),
		      mac1_of(message, len), ret->sealed);
}

void wg_cookie_init(struct wg_cookie *cookie, const struct wg_crypto *crypto,
		    const struct public_key *peer)
{
	*cookie = (struct wg_cookie){ 0 };
	derive(crypto, "mac1----", peer, cookie->mac1_key);
	derive(crypto, "cookie--", peer, cookie->cookie_key);
}

void wg_cookie_add_macs(struct wg_cookie *cookie, const struct wg_crypto *crypto, uint8_t *message,
			size_t len, uint64_t now_ns)
{
	uint8_t *mac1 = message + len - MACS_LEN;
	uint8_t *mac2 = message + len - WG_MAC_LEN;

	wg_mac(crypto, cookie->mac1_key, sizeof(cookie->mac1_key), message, len - MACS_LEN, mac1);
	memcpy(cookie->last_mac1, mac1, WG_MAC_LEN);
	cookie->has_last_mac1 = true;
	if (cookie->birth_ns != 0 &&
	    now_ns - cookie->birth_ns < WG_COOKIE_LIFE_NS - WG_COOKIE_LATENCY_NS)
		wg_mac(crypto, cookie->cookie, sizeof(cookie->cookie), message, len - WG_MAC_LEN,
		       mac2);
}

bool wg_cookie_consume(struct wg_cookie *cookie, const struct wg_cookie_reply *reply,
		       uint64_t now_ns)
{
	uint8_t opened[WG_MAC_LEN];

	if (!cookie->has_last_mac1 ||
	    !wg_xaead_open(cookie->cookie_key, reply->nonce, reply->sealed, sizeof(reply->sealed),
			   cookie->last_mac1, opened))
		return false;
	memcpy(cookie->cookie, opened, sizeof(opened));
	cookie->birth_ns = now_ns;
	cookie->has_last_mac1 = false;
	return true;
}
