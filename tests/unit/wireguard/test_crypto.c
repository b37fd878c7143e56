/*
 * The primitives against published vectors. Where none fits the fixed parameters that WireGuard
 * uses (16-byte keyed BLAKE2s, HMAC-BLAKE2s, empty AAD), the values come from CPython's hashlib and
 * hmac (the BLAKE2 reference code) and libsodium is the oracle for the packet cipher.
 */
#include "node/wireguard/crypto.h"
#include "tests/unit/wireguard/hex.h"
#include "tests/unit/wireguard/wycheproof.h"

#include <stdio.h>
#include <stdlib.h>

static struct wg_crypto crypto;

static void count_up(uint8_t *ret, size_t n)
{
	for (size_t i = 0; i < n; i++)
		ret[i] = (uint8_t)i;
}

static void test_blake2s_of_abc_rfc7693_appendix_b(void)
{
	uint8_t hash[WG_HASH_LEN];

	wg_hash(&crypto, "abc", 3, NULL, 0, hash);
	assert(is_hex(hash, sizeof(hash), "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982"));
	wg_hash(&crypto, "a", 1, "bc", 2, hash);
	assert(is_hex(hash, sizeof(hash), "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982"));
}

static void test_mac_with_keys_of_both_lengths(void)
{
	uint8_t key[32], message[100], mac[WG_MAC_LEN];

	count_up(key, sizeof(key));
	count_up(message, sizeof(message));
	wg_mac(&crypto, key, 32, message, sizeof(message), mac);
	assert(is_hex(mac, sizeof(mac), "0b67d33f8b859c3157fbabd9e6e47ed0"));
	wg_mac(&crypto, key, 16, message, sizeof(message), mac);
	assert(is_hex(mac, sizeof(mac), "56301549e674c3b72a0e1dafb7a2c620"));
}

static void test_kdf_of_one_two_and_three(void)
{
	uint8_t key[32], message[100], out[3][WG_HASH_LEN];

	count_up(key, sizeof(key));
	count_up(message, sizeof(message));
	wg_hmac(&crypto, key, message, sizeof(message), out[0]);
	assert(is_hex(out[0], 32, "a81c95080ba2a7c4ed1b7b4c21dec2c4fd6dc9f03ff37b6d65289dc95a7d1ef1"));
	wg_kdf(&crypto, key, message, sizeof(message), (uint8_t *[]){ out[0], out[1], out[2] }, 3);
	assert(is_hex(out[0], 32, "90d0e91cdaea20e41b7e43ef99a35292921d3d49c1d86f48ddf62dbc1cc1bb01"));
	assert(is_hex(out[1], 32, "8814819cb396ee544e3a8314285739d6527a8d87cf930252e61501140ddbba51"));
	assert(is_hex(out[2], 32, "2d4748e29b90d92057489d6aaa0ee0d2a135113b4baaefb8d82fb54bffe16496"));
	wg_kdf(&crypto, key, NULL, 0, (uint8_t *[]){ out[0], out[1] }, 2);
	assert(is_hex(out[0], 32, "7a38c34bf2b8738d7374ca77c44ecb309a11d2b2528304fa86052c365e722624"));
	assert(is_hex(out[1], 32, "1a17621f346abdc520746a9fb64d8eb03231d674fc15687537b0780fd9c060fd"));
}

static void test_x25519_rfc7748(void)
{
	struct secret_key secret;
	struct public_key public, own;
	uint8_t shared[KEY_LEN];

	/* section 6.1, Bob's side */
	unhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb", secret.bytes, KEY_LEN);
	unhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a", public.bytes, KEY_LEN);
	secret_key_public(&secret, &own);
	assert(is_hex(own.bytes, KEY_LEN, "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"));
	assert(wg_dh(&secret, &public, shared));
	assert(is_hex(shared, KEY_LEN, "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"));
	/* section 5.2 */
	unhex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4", secret.bytes, KEY_LEN);
	unhex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c", public.bytes, KEY_LEN);
	assert(wg_dh(&secret, &public, shared));
	assert(is_hex(shared, KEY_LEN, "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"));
}

static void test_x25519_wycheproof(void)
{
	struct secret_key secret;
	struct public_key public;
	uint8_t shared[KEY_LEN];

	for (size_t i = 0; i < ARRAY_LEN(wycheproof_x25519); i++) {
		const struct wycheproof_x25519 *vector = &wycheproof_x25519[i];
		unhex(vector->secret, secret.bytes, KEY_LEN);
		unhex(vector->public, public.bytes, KEY_LEN);
		if (wg_dh(&secret, &public, shared))
			assert(vector->shared && is_hex(shared, KEY_LEN, vector->shared));
		else
			assert(!vector->shared && sodium_is_zero(shared, KEY_LEN));
	}
}

static void test_points_of_low_order_are_refused(void)
{
	static const char *const points[] = {
		"0000000000000000000000000000000000000000000000000000000000000000",
		"0100000000000000000000000000000000000000000000000000000000000000",
		"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
		"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	};
	struct secret_key secret;
	struct public_key public;
	uint8_t shared[KEY_LEN];

	secret_key_generate(&secret);
	for (size_t i = 0; i < ARRAY_LEN(points); i++) {
		unhex(points[i], public.bytes, KEY_LEN);
		memset(shared, 1, sizeof(shared));
		assert(!wg_dh(&secret, &public, shared));
		assert(sodium_is_zero(shared, sizeof(shared)));
	}
}

/* The packet cipher has no AAD; without it the ciphertext is that of the vector, the tag is not. */
static void test_packet_cipher_rfc8439_appendix_a5(void)
{
	uint8_t key[KEY_LEN], packet[64 + WG_AEAD_TAG_LEN];

	unhex("1c9240a5eb55d38af333888604f6b5f0473917c1402b80099dca5cbc207075c0", key, sizeof(key));
	memcpy(packet, "Internet-Drafts are draft documents valid for a maximum of six m", 64);
	EVP_CIPHER_CTX *seal = wg_cipher_new(&crypto, true);
	assert(seal && wg_cipher_seal(seal, key, UINT64_C(0x0807060504030201), packet, 64));
	assert(is_hex(packet, 64,
		      "64a0861575861af460f062c79be643bd5e805cfd345cf389f108670ac76c8cb2"
		      "4c6cfc18755d43eea09ee94e382d26b0bdb7b73c321b0100d4f03b7f355894cf"));
	wg_cipher_free(seal);
}

static void test_packet_cipher_is_libsodiums_for_every_length(void)
{
	uint8_t key[KEY_LEN], plain[1500], ours[1516], theirs[1516], nonce[12] = { 0 };
	unsigned long long n_theirs;

	randombytes_buf(key, sizeof(key));
	randombytes_buf(plain, sizeof(plain));
	EVP_CIPHER_CTX *seal = wg_cipher_new(&crypto, true);
	EVP_CIPHER_CTX *open = wg_cipher_new(&crypto, false);
	for (size_t n = 0; n <= sizeof(plain); n += n < 300 ? 1 : 61) {
		uint64_t counter = n * UINT64_C(0x123456789abcdef);
		for (unsigned i = 0; i < 8; i++)
			nonce[4 + i] = (uint8_t)(counter >> (8 * i));
		memcpy(ours, plain, n);
		assert(wg_cipher_seal(seal, key, counter, ours, n));
		crypto_aead_chacha20poly1305_ietf_encrypt(theirs, &n_theirs, plain, n, NULL, 0, NULL, nonce,
							  key);
		assert(n_theirs == n + WG_AEAD_TAG_LEN && memcmp(ours, theirs, n_theirs) == 0);
		assert(wg_cipher_open(open, key, counter, theirs, n_theirs));
		assert(memcmp(theirs, plain, n) == 0);
	}
	wg_cipher_free(seal);
	wg_cipher_free(open);
}

static void test_packet_cipher_refuses_every_changed_bit_and_goes_on(void)
{
	uint8_t key[KEY_LEN] = { 7 }, sealed[20 + WG_AEAD_TAG_LEN], packet[sizeof(sealed)] = { 1, 2, 3 };

	EVP_CIPHER_CTX *seal = wg_cipher_new(&crypto, true);
	EVP_CIPHER_CTX *open = wg_cipher_new(&crypto, false);
	assert(wg_cipher_seal(seal, key, 5, packet, 20));
	memcpy(sealed, packet, sizeof(sealed));
	for (size_t bit = 0; bit < sizeof(sealed) * 8; bit++) {
		memcpy(packet, sealed, sizeof(sealed));
		packet[bit / 8] ^= (uint8_t)(1 << bit % 8);
		assert(!wg_cipher_open(open, key, 5, packet, sizeof(packet)));
	}
	memcpy(packet, sealed, sizeof(sealed));
	assert(!wg_cipher_open(open, key, 6, packet, sizeof(packet)));
	memcpy(packet, sealed, sizeof(sealed));
	assert(wg_cipher_open(open, key, 5, packet, sizeof(packet)));
	wg_cipher_free(seal);
	wg_cipher_free(open);
}

int main(void)
{
	if (sodium_init() < 0 || wg_crypto_init(&crypto) != 0)
		return 1;
	test_blake2s_of_abc_rfc7693_appendix_b();
	test_mac_with_keys_of_both_lengths();
	test_kdf_of_one_two_and_three();
	test_x25519_rfc7748();
	test_x25519_wycheproof();
	test_points_of_low_order_are_refused();
	test_packet_cipher_rfc8439_appendix_a5();
	test_packet_cipher_is_libsodiums_for_every_length();
	test_packet_cipher_refuses_every_changed_bit_and_goes_on();
	wg_crypto_deinit(&crypto);
	puts("ok");
}
