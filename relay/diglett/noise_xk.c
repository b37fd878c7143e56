#include "relay/diglett/noise_xk.h"

#include "common/wire.h"

#include <assert.h>
#include <errno.h>
#include <openssl/evp.h>
#include <secp256k1.h>
#include <secp256k1_ecdh.h>
#include <sodium.h>
#include <stdlib.h>

static const char protocol[] = "Noise_XK_secp256k1_ChaChaPoly_SHA256";

#define ACT_VERSION 0
#define NONCE_LEN   12

/* the curve */

int noise_curve_init(struct noise_curve *curve, const uint8_t seed[32])
{
	secp256k1_context *context = secp256k1_context_create(SECP256K1_CONTEXT_NONE);

	*curve = (struct noise_curve){ context };
	if (context && secp256k1_context_randomize(context, seed) == 1)
		return 0;
	noise_curve_deinit(curve);
	return -ENOMEM;
}

void noise_curve_deinit(struct noise_curve *curve)
{
	if (curve->context)
		secp256k1_context_destroy(curve->context);
	curve->context = NULL;
}

bool noise_public_of(const struct noise_curve *curve, const struct noise_secret *secret, struct noise_public *ret)
{
	secp256k1_pubkey point;
	size_t len = sizeof(ret->bytes);

	return secp256k1_ec_seckey_verify(curve->context, secret->bytes) == 1 &&
	       secp256k1_ec_pubkey_create(curve->context, &point, secret->bytes) == 1 &&
	       secp256k1_ec_pubkey_serialize(curve->context, ret->bytes, &len, &point, SECP256K1_EC_COMPRESSED) == 1;
}

bool noise_public_is_valid(const struct noise_curve *curve, const struct noise_public *key)
{
	secp256k1_pubkey point;

	return secp256k1_ec_pubkey_parse(curve->context, &point, key->bytes, sizeof(key->bytes)) == 1;
}

/* SHA-256 of the compressed product: the library's own way. False: public is no point of the curve. */
static bool agree(const struct noise_curve *curve, const struct noise_secret *secret, const struct noise_public *public,
		  uint8_t ret[NOISE_HASH_LEN])
{
	secp256k1_pubkey point;

	return secp256k1_ec_pubkey_parse(curve->context, &point, public->bytes, sizeof(public->bytes)) == 1 &&
	       secp256k1_ecdh(curve->context, ret, &point, secret->bytes, NULL, NULL) == 1;
}

void noise_secret_wipe(struct noise_secret *secret)
{
	sodium_memzero(secret, sizeof(*secret));
}

/* hashes and keys */

static void hmac(const uint8_t key[NOISE_HASH_LEN], const void *data, size_t n, uint8_t ret[NOISE_HASH_LEN])
{
	crypto_auth_hmacsha256_state state;

	crypto_auth_hmacsha256_init(&state, key, NOISE_HASH_LEN);
	crypto_auth_hmacsha256_update(&state, data, n);
	crypto_auth_hmacsha256_final(&state, ret);
	sodium_memzero(&state, sizeof(state));
}

/* HKDF (RFC 5869): the next chaining key and a key, out of the chaining key and what was agreed on. */
static void derive(uint8_t chain[NOISE_HASH_LEN], const void *input, size_t n, uint8_t ret[NOISE_HASH_LEN])
{
	uint8_t extracted[NOISE_HASH_LEN], block[NOISE_HASH_LEN + 1] = { 1 };

	hmac(chain, input, n, extracted);
	hmac(extracted, block, 1, chain);
	memcpy(block, chain, NOISE_HASH_LEN);
	block[NOISE_HASH_LEN] = 2;
	hmac(extracted, block, sizeof(block), ret);
	sodium_memzero(extracted, sizeof(extracted));
	sodium_memzero(block, sizeof(block));
}

static void hash_with(const struct noise_handshake *h, const void *data, size_t n, uint8_t ret[NOISE_HASH_LEN])
{
	crypto_hash_sha256_state state;

	crypto_hash_sha256_init(&state);
	crypto_hash_sha256_update(&state, h->hash, sizeof(h->hash));
	crypto_hash_sha256_update(&state, data, n);
	crypto_hash_sha256_final(&state, ret);
}

static void mix_hash(struct noise_handshake *h, const void *data, size_t n)
{
	hash_with(h, data, n, h->hash);
}

static bool mix_key(struct noise_handshake *h, const struct noise_secret *secret, const struct noise_public *public)
{
	uint8_t shared[NOISE_HASH_LEN];
	const bool agreed = agree(h->curve, secret, public, shared);

	if (agreed)
		derive(h->chain, shared, sizeof(shared), h->key);
	sodium_memzero(shared, sizeof(shared));
	return agreed;
}

static void make_nonce(uint64_t counter, uint8_t ret[NONCE_LEN])
{
	struct wire_writer w = wire_writer(ret, NONCE_LEN);

	wire_put_u32_le(&w, 0);
	wire_put_u64_le(&w, counter);
}

/* n bytes become n + 16; the hash goes with them, before and after. */
static void seal(struct noise_handshake *h, uint64_t counter, const void *plain, size_t n, uint8_t *ret)
{
	uint8_t nonce[NONCE_LEN];

	make_nonce(counter, nonce);
	crypto_aead_chacha20poly1305_ietf_encrypt(ret, NULL, plain, n, h->hash, sizeof(h->hash), NULL, nonce, h->key);
	mix_hash(h, ret, n + NOISE_TAG_LEN);
}

static bool open_sealed(struct noise_handshake *h, uint64_t counter, const uint8_t *sealed, size_t n, uint8_t *ret)
{
	uint8_t nonce[NONCE_LEN], next[NOISE_HASH_LEN];

	make_nonce(counter, nonce);
	hash_with(h, sealed, n, next); /* before: ret may be where sealed is */
	if (crypto_aead_chacha20poly1305_ietf_decrypt(ret, NULL, NULL, sealed, n, h->hash, sizeof(h->hash), nonce,
						      h->key) != 0)
		return false;
	memcpy(h->hash, next, sizeof(h->hash));
	return true;
}

/* the handshake */

static bool begin(struct noise_handshake *h, const struct noise_curve *curve, const void *prologue, size_t n_prologue,
		  const struct noise_secret *own, const struct noise_secret *ephemeral, const struct noise_public *responder)
{
	*h = (struct noise_handshake){ .curve = curve, .own = *own, .ephemeral = *ephemeral, .next_act = 1 };
	if (!noise_public_of(curve, own, &h->own_public) || !noise_public_of(curve, ephemeral, &h->ephemeral_public) ||
	    (responder && !noise_public_is_valid(curve, responder))) {
		noise_handshake_wipe(h);
		return false;
	}
	h->is_initiator = responder != NULL;
	if (responder)
		h->remote = *responder;
	crypto_hash_sha256(h->hash, (const uint8_t *)protocol, sizeof(protocol) - 1);
	memcpy(h->chain, h->hash, sizeof(h->chain));
	mix_hash(h, prologue, n_prologue);
	mix_hash(h, responder ? responder->bytes : h->own_public.bytes, NOISE_PUBLIC_LEN);
	return true;
}

bool noise_initiate(struct noise_handshake *handshake, const struct noise_curve *curve, const void *prologue,
		    size_t n_prologue, const struct noise_secret *own, const struct noise_secret *ephemeral,
		    const struct noise_public *responder)
{
	return begin(handshake, curve, prologue, n_prologue, own, ephemeral, responder);
}

bool noise_respond(struct noise_handshake *handshake, const struct noise_curve *curve, const void *prologue,
		   size_t n_prologue, const struct noise_secret *own, const struct noise_secret *ephemeral)
{
	return begin(handshake, curve, prologue, n_prologue, own, ephemeral, NULL);
}

static int fail(struct noise_handshake *h, int error)
{
	noise_handshake_wipe(h);
	return error;
}

static void must(bool done)
{
	if (!done)
		abort(); /* keys that were checked before agree */
}

/* Acts 1 and 2 are alike: an ephemeral key, and a tag under what it makes with a key of the other side. */
static void write_ephemeral(struct noise_handshake *h, const struct noise_public *with, uint8_t ret[NOISE_ACT_1_LEN])
{
	ret[0] = ACT_VERSION;
	memcpy(ret + 1, h->ephemeral_public.bytes, NOISE_PUBLIC_LEN);
	mix_hash(h, h->ephemeral_public.bytes, NOISE_PUBLIC_LEN);
	must(mix_key(h, &h->ephemeral, with));
	seal(h, 0, "", 0, ret + 1 + NOISE_PUBLIC_LEN);
	h->next_act++;
}

static int read_ephemeral(struct noise_handshake *h, const struct noise_secret *with, const uint8_t *act, size_t len)
{
	uint8_t nothing[1];

	if (len != NOISE_ACT_1_LEN)
		return fail(h, NOISE_LENGTH);
	if (act[0] != ACT_VERSION)
		return fail(h, NOISE_VERSION);
	memcpy(h->remote_ephemeral.bytes, act + 1, NOISE_PUBLIC_LEN);
	mix_hash(h, h->remote_ephemeral.bytes, NOISE_PUBLIC_LEN);
	if (!mix_key(h, with, &h->remote_ephemeral))
		return fail(h, NOISE_KEY);
	if (!open_sealed(h, 0, act + 1 + NOISE_PUBLIC_LEN, NOISE_TAG_LEN, nothing))
		return fail(h, NOISE_TAG);
	h->next_act++;
	return 0;
}

void noise_write_act_1(struct noise_handshake *h, uint8_t ret[NOISE_ACT_1_LEN])
{
	assert(h->is_initiator && h->next_act == 1);
	write_ephemeral(h, &h->remote, ret);
}

int noise_read_act_1(struct noise_handshake *h, const uint8_t *act, size_t len)
{
	assert(!h->is_initiator && h->next_act == 1);
	return read_ephemeral(h, &h->own, act, len);
}

void noise_write_act_2(struct noise_handshake *h, uint8_t ret[NOISE_ACT_2_LEN])
{
	assert(!h->is_initiator && h->next_act == 2);
	write_ephemeral(h, &h->remote_ephemeral, ret);
}

int noise_read_act_2(struct noise_handshake *h, const uint8_t *act, size_t len)
{
	assert(h->is_initiator && h->next_act == 2);
	return read_ephemeral(h, &h->ephemeral, act, len);
}

void noise_write_act_3(struct noise_handshake *h, const void *payload, size_t n, uint8_t *ret)
{
	uint8_t *const payload_at = ret + 1 + NOISE_PUBLIC_LEN + NOISE_TAG_LEN;

	assert(h->is_initiator && h->next_act == 3 && n <= NOISE_MAX_PAYLOAD);
	ret[0] = ACT_VERSION;
	seal(h, 1, h->own_public.bytes, NOISE_PUBLIC_LEN, ret + 1); /* 0 was act 2's */
	must(mix_key(h, &h->own, &h->remote_ephemeral));
	seal(h, 0, payload, n, payload_at);
	h->next_act++;
}

int noise_read_act_3(struct noise_handshake *h, const uint8_t *act, size_t len, uint8_t *ret)
{
	const uint8_t *const payload_at = act + 1 + NOISE_PUBLIC_LEN + NOISE_TAG_LEN;

	assert(!h->is_initiator && h->next_act == 3);
	if (len < NOISE_ACT_3_LEN || len > NOISE_ACT_3_LEN + NOISE_MAX_PAYLOAD)
		return fail(h, NOISE_LENGTH);
	if (act[0] != ACT_VERSION)
		return fail(h, NOISE_VERSION);
	if (!open_sealed(h, 1, act + 1, NOISE_PUBLIC_LEN + NOISE_TAG_LEN, h->remote.bytes))
		return fail(h, NOISE_TAG);
	if (!mix_key(h, &h->ephemeral, &h->remote))
		return fail(h, NOISE_KEY);
	if (!open_sealed(h, 0, payload_at, len - (size_t)(payload_at - act), ret))
		return fail(h, NOISE_TAG);
	h->next_act++;
	return 0;
}

void noise_handshake_wipe(struct noise_handshake *h)
{
	sodium_memzero(h, sizeof(*h));
}

/* messages */

static int begin_key(struct noise_key *key, const uint8_t bytes[NOISE_HASH_LEN], const uint8_t chain[NOISE_HASH_LEN],
		     bool is_sealing)
{
	memcpy(key->key, bytes, sizeof(key->key));
	memcpy(key->chain, chain, sizeof(key->chain));
	key->cipher = EVP_CIPHER_CTX_new();
	if (!key->cipher ||
	    EVP_CipherInit_ex2(key->cipher, EVP_chacha20_poly1305(), NULL, NULL, is_sealing ? 1 : 0, NULL) != 1)
		return -ENOMEM;
	return 0;
}

int noise_link_init(struct noise_link *link, struct noise_handshake *h)
{
	uint8_t first[NOISE_HASH_LEN], second[NOISE_HASH_LEN];
	const struct noise_public remote = h->remote;
	uint8_t hash[NOISE_HASH_LEN];

	assert(h->next_act == 4);
	*link = (struct noise_link){ 0 };
	memcpy(hash, h->hash, sizeof(hash));
	/* The first is the initiator's to send with; the second, which derive() leaves as the key, the responder's. */
	memcpy(first, h->chain, sizeof(first));
	derive(first, "", 0, second);
	int r = begin_key(&link->sending, h->is_initiator ? first : second, h->chain, true);
	if (r == 0)
		r = begin_key(&link->receiving, h->is_initiator ? second : first, h->chain, false);
	sodium_memzero(first, sizeof(first));
	sodium_memzero(second, sizeof(second));
	noise_handshake_wipe(h);
	h->remote = remote;
	memcpy(h->hash, hash, sizeof(hash));
	if (r < 0)
		noise_link_deinit(link);
	return r;
}

void noise_link_deinit(struct noise_link *link)
{
	EVP_CIPHER_CTX_free(link->sending.cipher); /* wipes its key */
	EVP_CIPHER_CTX_free(link->receiving.cipher);
	sodium_memzero(link, sizeof(*link));
}

/* The nonce of the next piece is set; after so many the key is another one. */
static bool next_nonce(struct noise_key *key)
{
	uint8_t nonce[NONCE_LEN];

	if (key->nonce == NOISE_ROTATE_AFTER) {
		uint8_t old[NOISE_HASH_LEN];
		memcpy(old, key->key, sizeof(old));
		derive(key->chain, old, sizeof(old), key->key);
		sodium_memzero(old, sizeof(old));
		key->nonce = 0;
	}
	make_nonce(key->nonce++, nonce);
	return EVP_CipherInit_ex2(key->cipher, NULL, key->key, nonce, -1, NULL) == 1;
}

static void seal_piece(struct noise_key *key, uint8_t *data, size_t n)
{
	int len = 0;

	/* OpenSSL fails here only if memory is gone. */
	must(next_nonce(key) && (n == 0 || EVP_EncryptUpdate(key->cipher, data, &len, data, (int)n) == 1) &&
	     EVP_EncryptFinal_ex(key->cipher, data + n, &len) == 1 &&
	     EVP_CIPHER_CTX_ctrl(key->cipher, EVP_CTRL_AEAD_GET_TAG, NOISE_TAG_LEN, data + n) == 1);
}

static bool open_piece(struct noise_key *key, uint8_t *data, size_t n)
{
	int len = 0;

	return next_nonce(key) && EVP_CIPHER_CTX_ctrl(key->cipher, EVP_CTRL_AEAD_SET_TAG, NOISE_TAG_LEN, data + n) == 1 &&
	       (n == 0 || EVP_DecryptUpdate(key->cipher, data, &len, data, (int)n) == 1) &&
	       EVP_DecryptFinal_ex(key->cipher, data + n, &len) == 1;
}

void noise_seal(struct noise_link *link, uint8_t *message, size_t n)
{
	assert(n <= NOISE_MAX_BODY);
	message[0] = (uint8_t)(n >> 8);
	message[1] = (uint8_t)n;
	seal_piece(&link->sending, message, 2);
	seal_piece(&link->sending, message + NOISE_HEAD_LEN, n);
}

int noise_open_head(struct noise_link *link, const uint8_t head[NOISE_HEAD_LEN], size_t *ret_body)
{
	uint8_t bytes[NOISE_HEAD_LEN];

	memcpy(bytes, head, sizeof(bytes));
	if (!open_piece(&link->receiving, bytes, 2))
		return NOISE_TAG;
	*ret_body = (size_t)bytes[0] << 8 | bytes[1];
	return 0;
}

int noise_open_body(struct noise_link *link, uint8_t *body, size_t n)
{
	assert(n >= NOISE_TAG_LEN && n <= NOISE_MAX_BODY + NOISE_TAG_LEN);
	if (open_piece(&link->receiving, body, n - NOISE_TAG_LEN))
		return 0;
	sodium_memzero(body, n); /* OpenSSL has opened it before the tag was seen to be wrong */
	return NOISE_TAG;
}
