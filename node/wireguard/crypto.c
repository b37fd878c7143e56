#include "node/wireguard/crypto.h"

#include "common/wire.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <openssl/core_names.h>
#include <openssl/params.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define HMAC_BLOCK 64

static const uint8_t zero_nonce[crypto_aead_chacha20poly1305_IETF_NPUBBYTES];

static void must(int ok)
{
	if (ok != 1)
		abort();
}

int wg_crypto_init(struct wg_crypto *crypto)
{
	EVP_MAC *mac = EVP_MAC_fetch(NULL, "BLAKE2SMAC", NULL);

	*crypto = (struct wg_crypto){
		.blake2s = EVP_MD_fetch(NULL, "BLAKE2S-256", NULL),
		.chacha = EVP_CIPHER_fetch(NULL, "ChaCha20-Poly1305", NULL),
		.hash = EVP_MD_CTX_new(),
		.mac = mac ? EVP_MAC_CTX_new(mac) : NULL,
	};
	EVP_MAC_free(mac); /* the context keeps a reference */
	if (crypto->blake2s && crypto->chacha && crypto->hash && crypto->mac)
		return 0;
	wg_crypto_deinit(crypto);
	return mac ? -ENOMEM : -ENOTSUP;
}

void wg_crypto_deinit(struct wg_crypto *crypto)
{
	EVP_MD_CTX_free(crypto->hash);
	EVP_MAC_CTX_free(crypto->mac);
	EVP_MD_free(crypto->blake2s);
	EVP_CIPHER_free(crypto->chacha);
	*crypto = (struct wg_crypto){ 0 };
}

void wg_hash(const struct wg_crypto *crypto, const void *a, size_t n_a, const void *b, size_t n_b,
	     uint8_t ret[WG_HASH_LEN])
{
	unsigned n = 0;

	must(EVP_DigestInit_ex2(crypto->hash, crypto->blake2s, NULL));
	must(EVP_DigestUpdate(crypto->hash, a, n_a));
	must(EVP_DigestUpdate(crypto->hash, b, n_b));
	must(EVP_DigestFinal_ex(crypto->hash, ret, &n));
	assert(n == WG_HASH_LEN);
}

void wg_mac(const struct wg_crypto *crypto, const void *key, size_t n_key, const void *data,
	    size_t n, uint8_t ret[WG_MAC_LEN])
{
	size_t size = WG_MAC_LEN, n_out = 0;
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_size_t(OSSL_MAC_PARAM_SIZE, &size),
		OSSL_PARAM_construct_end(),
	};

	must(EVP_MAC_init(crypto->mac, key, n_key, params));
	must(EVP_MAC_update(crypto->mac, data, n));
	must(EVP_MAC_final(crypto->mac, ret, &n_out, WG_MAC_LEN));
	assert(n_out == WG_MAC_LEN);
}

void wg_hmac(const struct wg_crypto *crypto, const uint8_t key[WG_HASH_LEN], const void *data,
	     size_t n, uint8_t ret[WG_HASH_LEN])
{
	uint8_t inner[HMAC_BLOCK], outer[HMAC_BLOCK], digest[WG_HASH_LEN];

	memset(inner, 0x36, sizeof(inner));
	memset(outer, 0x5c, sizeof(outer));
	for (size_t i = 0; i < WG_HASH_LEN; i++) {
		inner[i] ^= key[i];
		outer[i] ^= key[i];
	}
	wg_hash(crypto, inner, sizeof(inner), data, n, digest);
	wg_hash(crypto, outer, sizeof(outer), digest, sizeof(digest), ret);
	sodium_memzero(inner, sizeof(inner));
	sodium_memzero(outer, sizeof(outer));
	sodium_memzero(digest, sizeof(digest));
}

void wg_kdf(const struct wg_crypto *crypto, const uint8_t key[WG_HASH_LEN], const void *input,
	    size_t n, uint8_t *const rets[], unsigned n_rets)
{
	uint8_t extracted[WG_HASH_LEN], block[WG_HASH_LEN + 1];
	size_t n_block = 1;

	wg_hmac(crypto, key, input, n, extracted);
	block[0] = 1;
	for (unsigned i = 0; i < n_rets; i++) {
		wg_hmac(crypto, extracted, block, n_block, block);
		memcpy(rets[i], block, WG_HASH_LEN);
		block[WG_HASH_LEN] = (uint8_t)(i + 2);
		n_block = sizeof(block);
	}
	sodium_memzero(extracted, sizeof(extracted));
	sodium_memzero(block, sizeof(block));
}

bool wg_dh(const struct secret_key *secret, const struct public_key *public, uint8_t ret[KEY_LEN])
{
	if (crypto_scalarmult(ret, secret->bytes, public->bytes) == 0)
		return true;
	sodium_memzero(ret, KEY_LEN);
	return false;
}

void wg_aead_seal(const uint8_t key[KEY_LEN], const void *plain, size_t n,
		  const uint8_t ad[WG_HASH_LEN], uint8_t *ret)
{
	crypto_aead_chacha20poly1305_ietf_encrypt(ret, NULL, plain, n, ad, WG_HASH_LEN, NULL,
						  zero_nonce, key);
}

bool wg_aead_open(const uint8_t key[KEY_LEN], const uint8_t *sealed, size_t n,
		  const uint8_t ad[WG_HASH_LEN], uint8_t *ret)
{
	return crypto_aead_chacha20poly1305_ietf_decrypt(ret, NULL, NULL, sealed, n, ad,
							 WG_HASH_LEN, zero_nonce, key) == 0;
}

void wg_xaead_seal(const uint8_t key[KEY_LEN], const uint8_t nonce[WG_XAEAD_NONCE_LEN],
		   const void *plain, size_t n, const uint8_t ad[WG_MAC_LEN], uint8_t *ret)
{
	crypto_aead_xchacha20poly1305_ietf_encrypt(ret, NULL, plain, n, ad, WG_MAC_LEN, NULL, nonce,
						   key);
}

bool wg_xaead_open(const uint8_t key[KEY_LEN], const uint8_t nonce[WG_XAEAD_NONCE_LEN],
		   const uint8_t *sealed, size_t n, const uint8_t ad[WG_MAC_LEN], uint8_t *ret)
{
	return crypto_aead_xchacha20poly1305_ietf_decrypt(ret, NULL, NULL, sealed, n, ad,
							  WG_MAC_LEN, nonce, key) == 0;
}

EVP_CIPHER_CTX *wg_cipher_new(const struct wg_crypto *crypto, bool sealing)
{
	EVP_CIPHER_CTX *cipher = EVP_CIPHER_CTX_new();

	if (!cipher ||
	    EVP_CipherInit_ex2(cipher, crypto->chacha, NULL, NULL, sealing, NULL) != 1) {
		EVP_CIPHER_CTX_free(cipher);
		return NULL;
	}
	return cipher;
}

void wg_cipher_free(EVP_CIPHER_CTX *cipher)
{
	EVP_CIPHER_CTX_free(cipher);
}

void wg_cipher_forget_key(EVP_CIPHER_CTX *cipher)
{
	static const uint8_t zero_key[KEY_LEN];

	must(EVP_CipherInit_ex2(cipher, NULL, zero_key, zero_nonce, -1, NULL));
}

static bool set_key(EVP_CIPHER_CTX *cipher, const uint8_t key[KEY_LEN], uint64_t counter)
{
	uint8_t nonce[12];
	struct wire_writer w = wire_writer(nonce, sizeof(nonce));

	wire_put_u32_le(&w, 0);
	wire_put_u64_le(&w, counter);
	return EVP_CipherInit_ex2(cipher, NULL, key, nonce, -1, NULL) == 1;
}

bool wg_cipher_seal(EVP_CIPHER_CTX *cipher, const uint8_t key[KEY_LEN], uint64_t counter,
		    uint8_t *data, size_t n)
{
	int n_out = 0;

	assert(n <= INT_MAX);
	return set_key(cipher, key, counter) &&
	       (n == 0 || EVP_EncryptUpdate(cipher, data, &n_out, data, (int)n) == 1) &&
	       EVP_EncryptFinal_ex(cipher, data + n, &n_out) == 1 &&
	       EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_AEAD_GET_TAG, WG_AEAD_TAG_LEN, data + n) == 1;
}

bool wg_cipher_open(EVP_CIPHER_CTX *cipher, const uint8_t key[KEY_LEN], uint64_t counter,
		    uint8_t *data, size_t n)
{
	int n_out = 0;

	assert(n >= WG_AEAD_TAG_LEN && n <= INT_MAX);
	n -= WG_AEAD_TAG_LEN;
	return set_key(cipher, key, counter) &&
	       EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_AEAD_SET_TAG, WG_AEAD_TAG_LEN, data + n) == 1 &&
	       (n == 0 || EVP_DecryptUpdate(cipher, data, &n_out, data, (int)n) == 1) &&
	       EVP_DecryptFinal_ex(cipher, data + n, &n_out) == 1;
}
