#include "common/key.h"

#include <errno.h>
#include <sodium.h>
#include <string.h>

void secret_key_generate(struct secret_key *ret)
{
	randombytes_buf(ret->bytes, sizeof(ret->bytes));
	ret->bytes[0] &= 248;
	ret->bytes[31] = (uint8_t)((ret->bytes[31] & 127) | 64);
}

void secret_key_wipe(struct secret_key *key)
{
	sodium_memzero(key, sizeof(*key));
}

void secret_key_public(const struct secret_key *key, struct public_key *ret)
{
	crypto_scalarmult_base(ret->bytes, key->bytes);
}

bool secret_key_is_zero(const struct secret_key *key)
{
	return sodium_is_zero(key->bytes, sizeof(key->bytes)) == 1;
}

bool public_key_equal(const struct public_key *a, const struct public_key *b)
{
	return memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

bool public_key_is_zero(const struct public_key *key)
{
	return sodium_is_zero(key->bytes, sizeof(key->bytes)) == 1;
}

static struct key_text to_text(const uint8_t bytes[KEY_LEN])
{
	struct key_text text;

	sodium_bin2base64(text.s, sizeof(text.s), bytes, KEY_LEN, sodium_base64_VARIANT_ORIGINAL);
	return text;
}

struct key_text public_key_text(const struct public_key *key)
{
	return to_text(key->bytes);
}

struct key_text public_key_short(const struct public_key *key)
{
	struct key_text text = to_text(key->bytes);

	text.s[8] = '\0';
	return text;
}

void secret_key_text(const struct secret_key *key, struct key_text *ret)
{
	*ret = to_text(key->bytes);
}

static int from_text(const char *text, uint8_t ret[KEY_LEN])
{
	uint8_t bytes[KEY_LEN];
	size_t n = 0;

	if (strlen(text) != KEY_TEXT_LEN ||
	    sodium_base642bin(bytes, sizeof(bytes), text, KEY_TEXT_LEN, NULL, &n, NULL,
			      sodium_base64_VARIANT_ORIGINAL) != 0 ||
	    n != KEY_LEN) {
		sodium_memzero(bytes, sizeof(bytes));
		return -EINVAL;
	}
	memcpy(ret, bytes, KEY_LEN);
	sodium_memzero(bytes, sizeof(bytes));
	return 0;
}

int public_key_parse(const char *text, struct public_key *ret)
{
	return from_text(text, ret->bytes);
}

int secret_key_parse(const char *text, struct secret_key *ret)
{
	return from_text(text, ret->bytes);
}

void key_to_hex(const uint8_t bytes[KEY_LEN], char *ret)
{
	sodium_bin2hex(ret, KEY_HEX_LEN + 1, bytes, KEY_LEN);
}

int key_from_hex(const char *text, uint8_t ret[KEY_LEN])
{
	uint8_t bytes[KEY_LEN];
	size_t n = 0;

	if (strlen(text) != KEY_HEX_LEN ||
	    sodium_hex2bin(bytes, sizeof(bytes), text, KEY_HEX_LEN, NULL, &n, NULL) != 0 || n != KEY_LEN) {
		sodium_memzero(bytes, sizeof(bytes));
		return -EINVAL;
	}
	memcpy(ret, bytes, KEY_LEN);
	sodium_memzero(bytes, sizeof(bytes));
	return 0;
}
