/*
 * Nothing instead of a cipher, so that what a tunnel costs apart from crypto can be measured: only with
 * `meson -Dnull_crypto=true`, and both ends must be such. Packets travel in the clear and anybody's are
 * taken. So that nobody uses it by mistake, such a program does not start unless it is told to.
 */
#include "node/wireguard/aead_lanes.h"

#include "node/wireguard/train.h"

#include <stdio.h>
#include <stdlib.h>

#define PERMISSION "P2P_NULL_CRYPTO_FOR_MEASURING"

static __attribute__((constructor)) void refuse_unless_told(void)
{
	const char *permission = getenv(PERMISSION);

	if (!permission || strcmp(permission, "1") != 0) {
		fputs("This program was built with -Dnull_crypto=true and DOES NOT ENCRYPT. It is for "
		      "tests/bench/roofline,\nwhich sets " PERMISSION "=1. Not started.\n",
		      stderr);
		exit(EXIT_FAILURE);
	}
	fputs("WARNING: this program DOES NOT ENCRYPT and takes forged packets (" PERMISSION "=1)\n", stderr);
}

static bool is_supported(void)
{
	return true;
}

static void seal(const uint8_t key[KEY_LEN], struct wg_aead_packet *packets, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		wg_aead_put_tag(&packets[i], (const uint64_t[2]){ 0 });
}

static void open(const uint8_t key[KEY_LEN], struct wg_aead_packet *packets, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		packets[i].is_good = true;
}

const struct wg_aead_lanes wg_aead_null = {
	.name = "nothing at all",
	.is_supported = is_supported,
	.ways = { { .width = TRAIN_MAX, .at_least = { 1, 1, 1 }, .seal = seal, .open = open } },
};
