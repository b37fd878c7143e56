#include "node/wireguard/noise.h"

#include "common/wire.h"

#include <sodium.h>
#include <string.h>

#define PROTOCOL_NAME "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"

/* ---- the transcript: Noise's SymmetricState ---- */

static void mix_hash(const struct wg_crypto *crypto, struct wg_transcript *t, const void *data,
		     size_t n)
{
	wg_hash(crypto, t->hash, sizeof(t->hash), data, n, t->hash);
}

/* key may be NULL: only the chain moves on. */
static void mix_key(const struct wg_crypto *crypto, struct wg_transcript *t,
		    const uint8_t input[KEY_LEN], uint8_t *key)
{
	wg_kdf(crypto, t->chain, input, KEY_LEN, (uint8_t *[]){ t->chain, key }, key ? 2 : 1);
}

static void mix_ephemeral(const struct wg_crypto *crypto, struct wg_transcript *t,
			  const struct public_key *ephemeral)
{
	mix_hash(crypto, t, ephemeral->bytes, sizeof(ephemeral->bytes));
	mix_key(crypto, t, ephemeral->bytes, NULL);
}

static bool mix_dh(const struct wg_crypto *crypto, struct wg_transcript *t,
		   const struct secret_key *secret, const struct public_key *public, uint8_t *key)
{
	uint8_t shared[KEY_LEN];

	if (!wg_dh(secret, public, shared))
		return false;
	mix_key(crypto, t, shared, key);
	sodium_memzero(shared, sizeof(shared));
	return true;
}

static void mix_psk(const struct wg_crypto *crypto, struct wg_transcript *t,
		    const uint8_t psk[KEY_LEN], uint8_t key[KEY_LEN])
{
	uint8_t hashed[WG_HASH_LEN];

	wg_kdf(crypto, t->chain, psk, KEY_LEN, (uint8_t *[]){ t->chain, hashed, key }, 3);
	mix_hash(crypto, t, hashed, sizeof(hashed));
	sodium_memzero(hashed, sizeof(hashed));
}

static void seal_and_mix(const struct wg_crypto *crypto, struct wg_transcript *t,
			 const uint8_t key[KEY_LEN], const void *plain, size_t n, uint8_t *ret)
{
	wg_aead_seal(key, plain, n, t->hash, ret);
	mix_hash(crypto, t, ret, n + WG_AEAD_TAG_LEN);
}

static bool open_and_mix(const struct wg_crypto *crypto, struct wg_transcript *t,
			 const uint8_t key[KEY_LEN], const uint8_t *sealed, size_t n, uint8_t *ret)
{
	if (!wg_aead_open(key, sealed, n, t->hash, ret))
		return false;
	mix_hash(crypto, t, sealed, n);
	return true;
}

static void start(const struct wg_local *local, const struct public_key *responder,
		  struct wg_transcript *ret)
{
	*ret = local->start;
	mix_hash(&local->crypto, ret, responder->bytes, sizeof(responder->bytes));
}

/* T1 is the initiator's sending key. */
static void split(const struct wg_crypto *crypto, const struct wg_transcript *t,
		  uint8_t t1[KEY_LEN], uint8_t t2[KEY_LEN])
{
	wg_kdf(crypto, t->chain, NULL, 0, (uint8_t *[]){ t1, t2 }, 2);
}

/* ---- who we and they are ---- */

int wg_local_init(struct wg_local *local, const void *prologue, size_t n_prologue)
{
	*local = (struct wg_local){ 0 };
	int r = wg_crypto_init(&local->crypto);
	if (r != 0)
		return r;
	wg_hash(&local->crypto, PROTOCOL_NAME, strlen(PROTOCOL_NAME), NULL, 0, local->start.chain);
	memcpy(local->start.hash, local->start.chain, WG_HASH_LEN);
	mix_hash(&local->crypto, &local->start, prologue, n_prologue);
	return 0;
}

void wg_local_deinit(struct wg_local *local)
{
	wg_crypto_deinit(&local->crypto);
	sodium_memzero(local, sizeof(*local));
}

void wg_local_set_secret(struct wg_local *local, const struct secret_key *secret)
{
	secret_key_wipe(&local->secret);
	local->public = (struct public_key){ 0 };
	if (secret_key_is_zero(secret))
		return;
	local->secret = *secret;
	secret_key_public(secret, &local->public);
}

void wg_remote_set_key(struct wg_remote *remote, const struct wg_local *local,
		       const struct public_key *public)
{
	remote->public = *public;
	sodium_memzero(remote->static_static, KEY_LEN);
	remote->usable = !secret_key_is_zero(&local->secret) &&
			 wg_dh(&local->secret, public, remote->static_static);
}

/* ---- initiator ---- */

int wg_noise_write_initiation(struct wg_noise *noise, const struct wg_local *local,
			      const struct wg_remote *remote, const struct secret_key *ephemeral,
			      const void *payload, size_t n, uint8_t *ret)
{
	const struct wg_crypto *crypto = &local->crypto;
	struct wg_transcript *t = &noise->transcript;
	struct public_key ephemeral_public;
	uint8_t key[KEY_LEN];

	wg_noise_clear(noise);
	if (!remote->usable)
		return WG_NOISE_E_LOW_ORDER;
	start(local, &remote->public, t);
	secret_key_public(ephemeral, &ephemeral_public);
	memcpy(ret, ephemeral_public.bytes, KEY_LEN);
	mix_ephemeral(crypto, t, &ephemeral_public);               /* e */
	if (!mix_dh(crypto, t, ephemeral, &remote->public, key)) { /* es */
		wg_noise_clear(noise);
		return WG_NOISE_E_LOW_ORDER;
	}
	seal_and_mix(crypto, t, key, local->public.bytes, KEY_LEN, ret + KEY_LEN); /* s */
	mix_key(crypto, t, remote->static_static, key);                            /* ss */
	seal_and_mix(crypto, t, key, payload, n, ret + KEY_LEN + KEY_LEN + WG_AEAD_TAG_LEN);
	sodium_memzero(key, sizeof(key));
	noise->ephemeral = *ephemeral;
	noise->waiting = true;
	return 0;
}

/* The steps of the response on a copy of the transcript. */
static int read_response(const struct wg_noise *noise, const struct wg_local *local,
			 const struct wg_remote *remote, const uint8_t *message, size_t n,
			 struct wg_transcript *t, uint8_t *ret_payload)
{
	const struct wg_crypto *crypto = &local->crypto;
	struct public_key remote_ephemeral;
	uint8_t key[KEY_LEN];

	memcpy(remote_ephemeral.bytes, message, KEY_LEN);
	mix_ephemeral(crypto, t, &remote_ephemeral);                          /* e */
	if (!mix_dh(crypto, t, &noise->ephemeral, &remote_ephemeral, NULL) || /* ee */
	    !mix_dh(crypto, t, &local->secret, &remote_ephemeral, NULL))      /* se */
		return WG_NOISE_E_LOW_ORDER;
	mix_psk(crypto, t, remote->psk, key); /* psk */
	bool good = open_and_mix(crypto, t, key, message + KEY_LEN, n - KEY_LEN, ret_payload);
	sodium_memzero(key, sizeof(key));
	return good ? 0 : WG_NOISE_E_DECRYPT;
}

int wg_noise_read_response(struct wg_noise *noise, const struct wg_local *local,
			   const struct wg_remote *remote, const uint8_t *message, size_t n,
			   uint8_t *ret_payload, struct wg_session_keys *ret_keys)
{
	struct wg_transcript t = noise->transcript;

	if (!noise->waiting)
		return WG_NOISE_E_STATE;
	if (n < WG_NOISE_SECOND_OVERHEAD)
		return WG_NOISE_E_MALFORMED;
	int r = read_response(noise, local, remote, message, n, &t, ret_payload);
	if (r == 0) {
		split(&local->crypto, &t, ret_keys->send, ret_keys->receive);
		wg_noise_clear(noise);
	}
	sodium_memzero(&t, sizeof(t));
	return r;
}

void wg_noise_clear(struct wg_noise *noise)
{
	sodium_memzero(noise, sizeof(*noise));
}

/* ---- responder ---- */

int wg_noise_open_initiation(const struct wg_local *local, const uint8_t *message, size_t n,
			     struct wg_noise_opened *ret)
{
	const struct wg_crypto *crypto = &local->crypto;
	struct wg_transcript *t = &ret->transcript;

	if (n < WG_NOISE_FIRST_OVERHEAD)
		return WG_NOISE_E_MALFORMED;
	start(local, &local->public, t);
	memcpy(ret->remote_ephemeral.bytes, message, KEY_LEN);
	mix_ephemeral(crypto, t, &ret->remote_ephemeral);                         /* e */
	if (!mix_dh(crypto, t, &local->secret, &ret->remote_ephemeral, ret->key)) /* es */
		return WG_NOISE_E_LOW_ORDER;
	if (!open_and_mix(crypto, t, ret->key, message + KEY_LEN, KEY_LEN + WG_AEAD_TAG_LEN,
			  ret->remote_static.bytes)) /* s */
		return WG_NOISE_E_DECRYPT;
	return 0;
}

int wg_noise_finish_initiation(struct wg_noise_opened *opened, const struct wg_local *local,
			       const struct wg_remote *remote, const uint8_t *message, size_t n,
			       uint8_t *ret_payload)
{
	const size_t fixed = KEY_LEN + KEY_LEN + WG_AEAD_TAG_LEN;

	if (!remote->usable)
		return WG_NOISE_E_LOW_ORDER;
	mix_key(&local->crypto, &opened->transcript, remote->static_static, opened->key); /* ss */
	if (!open_and_mix(&local->crypto, &opened->transcript, opened->key, message + fixed,
			  n - fixed, ret_payload))
		return WG_NOISE_E_DECRYPT;
	return 0;
}

int wg_noise_write_response(struct wg_noise_opened *opened, const struct wg_local *local,
			    const struct wg_remote *remote, const struct secret_key *ephemeral,
			    const void *payload, size_t n, uint8_t *ret,
			    struct wg_session_keys *ret_keys)
{
	const struct wg_crypto *crypto = &local->crypto;
	struct wg_transcript *t = &opened->transcript;
	struct public_key ephemeral_public;

	secret_key_public(ephemeral, &ephemeral_public);
	memcpy(ret, ephemeral_public.bytes, KEY_LEN);
	mix_ephemeral(crypto, t, &ephemeral_public);                          /* e */
	if (!mix_dh(crypto, t, ephemeral, &opened->remote_ephemeral, NULL) || /* ee */
	    !mix_dh(crypto, t, ephemeral, &remote->public, NULL))             /* se */
		return WG_NOISE_E_LOW_ORDER;
	mix_psk(crypto, t, remote->psk, opened->key); /* psk */
	seal_and_mix(crypto, t, opened->key, payload, n, ret + KEY_LEN);
	split(crypto, t, ret_keys->receive, ret_keys->send);
	return 0;
}
