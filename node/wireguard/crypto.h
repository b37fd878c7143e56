/*
 * The primitives as WireGuard's specification names them, over OpenSSL and libsodium.
 *
 * HASH  BLAKE2s, 32 bytes                MAC   keyed BLAKE2s, 16 bytes
 * KDF   HMAC-BLAKE2s as in HKDF          DH    X25519
 * AEAD  ChaCha20-Poly1305 (RFC 8439)     XAEAD XChaCha20-Poly1305
 *
 * OpenSSL's algorithms are fetched once and its contexts reused. After init nothing here reports
 * an error of the library: OpenSSL then fails only when memory is gone, and that aborts.
 */
#pragma once

#include "common/key.h"
#include "common/macros.h"

#include <openssl/evp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WG_HASH_LEN	    32
#define WG_MAC_LEN	    16
#define WG_AEAD_TAG_LEN	    16
#define WG_XAEAD_NONCE_LEN  24

struct wg_crypto {
	EVP_MD *blake2s;
	EVP_MD_CTX *hash;
	EVP_MAC_CTX *mac;
	EVP_CIPHER *chacha;
};

/* 0, -ENOMEM or -ENOTSUP. deinit is safe on a zeroed or half-made one. */
P2P_CHECK int wg_crypto_init(struct wg_crypto *crypto);
void wg_crypto_deinit(struct wg_crypto *crypto);

/* HASH(a ‖ b); ret may be one of them. */
void wg_hash(const struct wg_crypto *crypto, const void *a, size_t n_a, const void *b, size_t n_b,
	     uint8_t ret[WG_HASH_LEN]);
void wg_mac(const struct wg_crypto *crypto, const void *key, size_t n_key, const void *data, size_t n,
	    uint8_t ret[WG_MAC_LEN]);
void wg_hmac(const struct wg_crypto *crypto, const uint8_t key[WG_HASH_LEN], const void *data, size_t n,
	     uint8_t ret[WG_HASH_LEN]);
/* n_rets (1..3) outputs of 32 bytes; the first may be the key itself. */
void wg_kdf(const struct wg_crypto *crypto, const uint8_t key[WG_HASH_LEN], const void *input, size_t n,
	    uint8_t *const rets[], unsigned n_rets);

/* False, and ret zeroed, for a public key of low order. */
P2P_CHECK bool wg_dh(const struct secret_key *secret, const struct public_key *public,
		     uint8_t ret[KEY_LEN]);

/* One message under a key of its own (nonce 0): ret gets n + 16 bytes. */
void wg_aead_seal(const uint8_t key[KEY_LEN], const void *plain, size_t n, const uint8_t ad[WG_HASH_LEN],
		  uint8_t *ret);
/* n counts the tag; ret gets n - 16 bytes, only on success. */
P2P_CHECK bool wg_aead_open(const uint8_t key[KEY_LEN], const uint8_t *sealed, size_t n,
			    const uint8_t ad[WG_HASH_LEN], uint8_t *ret);
void wg_xaead_seal(const uint8_t key[KEY_LEN], const uint8_t nonce[WG_XAEAD_NONCE_LEN], const void *plain,
		   size_t n, const uint8_t ad[WG_MAC_LEN], uint8_t *ret);
P2P_CHECK bool wg_xaead_open(const uint8_t key[KEY_LEN], const uint8_t nonce[WG_XAEAD_NONCE_LEN],
			     const uint8_t *sealed, size_t n, const uint8_t ad[WG_MAC_LEN], uint8_t *ret);

/* What seals or what opens packets, of any key, for one thread at a time. NULL: out of memory. */
EVP_CIPHER_CTX *wg_cipher_new(const struct wg_crypto *crypto, bool sealing);
/* Accepts NULL; wipes the last key. */
void wg_cipher_free(EVP_CIPHER_CTX *cipher);
/* The last key is wiped; the next packet brings its own in any case. */
void wg_cipher_forget_key(EVP_CIPHER_CTX *cipher);
/* In place: n bytes at data become n + 16. False only if OpenSSL fails. */
P2P_CHECK bool wg_cipher_seal(EVP_CIPHER_CTX *cipher, const uint8_t key[KEY_LEN], uint64_t counter,
			      uint8_t *data, size_t n);
/* In place; n counts the tag. False: forged (the bytes are then undefined). */
P2P_CHECK bool wg_cipher_open(EVP_CIPHER_CTX *cipher, const uint8_t key[KEY_LEN], uint64_t counter,
			      uint8_t *data, size_t n);
