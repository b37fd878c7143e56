#include "relay/diglett/v1_wire.h"

#include "common/wire.h"

#include <assert.h>
#include <errno.h>
#include <openssl/evp.h>
#include <secp256k1.h>
#include <secp256k1_ecdh.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define POINT_LEN 64

static const uint8_t magic[] = { V1_MAGIC_FIRST, 'i', 'g', 'l' };

void v1_hello_write(const struct noise_public *key, uint8_t ret[V1_HELLO_LEN])
{
	memcpy(ret, magic, sizeof(magic));
	ret[sizeof(magic)] = V1_VERSION;
	memcpy(ret + sizeof(magic) + 1, key->bytes, sizeof(key->bytes));
}

int v1_hello_read(const struct noise_curve *curve, const uint8_t hello[V1_HELLO_LEN], struct noise_public *ret)
{
	struct noise_public key;

	if (memcmp(hello, magic, sizeof(magic)) != 0 || hello[sizeof(magic)] != V1_VERSION)
		return NOISE_VERSION;
	memcpy(key.bytes, hello + sizeof(magic) + 1, sizeof(key.bytes));
	if (!noise_public_is_valid(curve, &key))
		return NOISE_KEY;
	*ret = key;
	return 0;
}

/* What the library would hash is wanted as it is. */
static int copy_point(unsigned char *ret, const unsigned char *x32, const unsigned char *y32, void *unused)
{
	(void)unused;
	memcpy(ret, x32, POINT_LEN / 2);
	memcpy(ret + POINT_LEN / 2, y32, POINT_LEN / 2);
	return 1;
}

bool v1_agree(const struct noise_curve *curve, const struct noise_secret *secret, const struct noise_public *public,
	      struct v1_keys *ret)
{
	uint8_t shared[POINT_LEN], hash[crypto_hash_sha512_BYTES];
	secp256k1_pubkey point;

	if (secp256k1_ec_pubkey_parse(curve->context, &point, public->bytes, sizeof(public->bytes)) != 1 ||
	    secp256k1_ecdh(curve->context, shared, &point, secret->bytes, copy_point, NULL) != 1)
		return false;
	crypto_hash_sha512(hash, shared, sizeof(shared));
	memcpy(ret->key, hash, V1_KEY_LEN);
	memcpy(ret->iv, hash + V1_KEY_LEN, V1_IV_LEN);
	sodium_memzero(shared, sizeof(shared));
	sodium_memzero(hash, sizeof(hash));
	return true;
}

int v1_cipher_init(struct v1_cipher *cipher, const struct v1_keys *keys)
{
	cipher->context = EVP_CIPHER_CTX_new();
	if (cipher->context && EVP_EncryptInit_ex(cipher->context, EVP_chacha20(), NULL, keys->key, keys->iv) == 1)
		return 0;
	v1_cipher_deinit(cipher);
	return -ENOMEM;
}

void v1_cipher_deinit(struct v1_cipher *cipher)
{
	EVP_CIPHER_CTX_free(cipher->context); /* which wipes it */
	cipher->context = NULL;
}

void v1_cipher_apply(struct v1_cipher *cipher, uint8_t *bytes, size_t n)
{
	int written = 0;

	assert(n <= INT32_MAX);
	if (EVP_EncryptUpdate(cipher->context, bytes, &written, bytes, (int)n) != 1 || (size_t)written != n)
		abort(); /* it only fails when it is used wrongly */
}

void v1_head_write(const struct v1_head *head, uint8_t ret[V1_HEAD_LEN])
{
	ret[0] = (uint8_t)head->kind;
	for (int i = 0; i < 4; i++)
		ret[1 + i] = (uint8_t)(head->id >> (24 - 8 * i));
	ret[5] = (uint8_t)(head->size >> 8);
	ret[6] = (uint8_t)head->size;
}

bool v1_head_read(const uint8_t bytes[V1_HEAD_LEN], struct v1_head *ret)
{
	struct wire_reader r = wire_reader(bytes, V1_HEAD_LEN);
	const uint8_t kind = wire_u8(&r);

	*ret = (struct v1_head){ .kind = kind < V1_N_KINDS ? (enum v1_kind)kind : V1_TERMINATE };
	ret->id = wire_u32(&r);
	ret->size = wire_u16(&r);
	return kind < V1_N_KINDS;
}
