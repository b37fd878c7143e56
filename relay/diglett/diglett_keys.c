#include "relay/diglett/diglett_keys.h"

#include "common/file.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define SECRET_TEXT (2 * NOISE_SECRET_LEN)

int diglett_curve_init(struct noise_curve *curve)
{
	uint8_t seed[32];

	randombytes_buf(seed, sizeof(seed));
	int r = noise_curve_init(curve, seed);
	sodium_memzero(seed, sizeof(seed));
	return r;
}

void diglett_key_draw(const struct noise_curve *curve, struct noise_secret *ret)
{
	struct noise_public public;

	do
		randombytes_buf(ret->bytes, sizeof(ret->bytes));
	while (!noise_public_of(curve, ret, &public));
}

static int make_key(const char *path, const struct noise_curve *curve, struct noise_secret *ret, struct error *reterr)
{
	char text[SECRET_TEXT + 2];

	diglett_key_draw(curve, ret);
	sodium_bin2hex(text, SECRET_TEXT + 1, ret->bytes, sizeof(ret->bytes));
	text[SECRET_TEXT] = '\n';
	int r = file_write_atomic(path, text, SECRET_TEXT + 1, 0600, reterr);
	sodium_memzero(text, sizeof(text));
	return r;
}

int diglett_key_load(const char *path, const struct noise_curve *curve, struct noise_secret *ret, struct error *reterr)
{
	struct noise_public public;
	char *text = NULL;
	size_t len = 0, n = 0;

	int r = file_read_secret(path, 1024, &text, &len, reterr);
	if (r == -ENOENT)
		return make_key(path, curve, ret, reterr);
	if (r < 0)
		return r;
	const bool is_one = sodium_hex2bin(ret->bytes, sizeof(ret->bytes), text, strcspn(text, "\r\n"), NULL, &n, NULL) == 0 &&
			    n == sizeof(ret->bytes) && noise_public_of(curve, ret, &public);
	sodium_memzero(text, len);
	free(text);
	return is_one ? 0
		      : error_set(reterr, -EINVAL, "%s holds no key; move it away, and a new one is made (agents must be told it)",
				  path);
}

int diglett_public_parse(const char *text, struct noise_public *ret)
{
	struct noise_public key;
	size_t n = 0;

	if (strlen(text) != DIGLETT_PUBLIC_TEXT ||
	    sodium_hex2bin(key.bytes, sizeof(key.bytes), text, strlen(text), NULL, &n, NULL) != 0 || n != sizeof(key.bytes) ||
	    (key.bytes[0] != 2 && key.bytes[0] != 3))
		return -EINVAL;
	*ret = key;
	return 0;
}

void diglett_public_text(const struct noise_public *key, char ret[DIGLETT_PUBLIC_TEXT + 1])
{
	sodium_bin2hex(ret, DIGLETT_PUBLIC_TEXT + 1, key->bytes, sizeof(key->bytes));
}
