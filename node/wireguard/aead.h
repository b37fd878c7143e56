/*
 * The packets of a train, sealed and opened together: ChaCha20-Poly1305 (RFC 8439) with empty
 * associated data and WireGuard's nonce, four zero bytes and the counter in little endian.
 *
 *   n packets of one key ──► 16 or 8 at once, a lane of the vector unit each   (aead_avx512.c, …)
 *                       └──► what is left, when that is few: one by one, a lane for a block each
 *
 * Which lanes there are is asked of the CPU, and they must agree with OpenSSL in a self-test before
 * they are used. Without any OpenSSL does it all. Sizes, counters, addresses and whether a tag was right are public; time and memory
 * accesses depend on nothing else.
 *
 * A struct wg_aead is for one thread at a time, and for any number of keys: none outlives the call.
 */
#pragma once

#include "common/macros.h"
#include "node/wireguard/crypto.h"

#include <stdbool.h>
#include <stdint.h>

/* Sealing: size bytes become size + 16. Opening: size + 16 bytes become size. In place. */
struct wg_aead_packet {
	uint8_t *data;
	uint64_t counter;
	uint32_t size; /* without the tag */
	bool is_good;  /* opening sets it. A forged packet's size bytes are zeroed */
};

/*
 * A way to treat up to `width` packets. Sizes may differ, but if they go together, the longest one
 * decides how long it takes. Packets must not overlap.
 */
struct wg_aead_way {
	unsigned width;
	bool is_deep; /* may leave secrets in 10 KiB of the stack, else in 4 */
	/* It is the fastest from so many packets on: up to 128 bytes, 640, longer. */
	uint8_t at_least[3];
	/* n 1..width */
	void (*seal)(const uint8_t key[KEY_LEN], struct wg_aead_packet *packets, unsigned n);
	void (*open)(const uint8_t key[KEY_LEN], struct wg_aead_packet *packets, unsigned n);
};

#define WG_AEAD_MAX_WAYS 3
#define WG_AEAD_EACH     16 /* the width of a way that takes one packet after the other */

/* The ways of one instruction set, widest first; width 0 ends them. */
struct wg_aead_lanes {
	const char *name;
	bool (*is_supported)(void); /* by the CPU and the kernel */
	struct wg_aead_way ways[WG_AEAD_MAX_WAYS];
};

/* All that were compiled in, best first, supported or not; ends with NULL. */
extern const struct wg_aead_lanes *const wg_aead_all_lanes[];

struct wg_aead {
	const struct wg_aead_lanes *lanes; /* NULL: OpenSSL only */
	const char *failed;                /* lanes that did not pass their self-test; NULL: none */
	EVP_CIPHER_CTX *sealing, *opening;
};

/*
 * With the first of `candidates` (as wg_aead_all_lanes) that is supported and passes; else with
 * OpenSSL alone. 0 or -ENOMEM. deinit is safe on a zeroed one.
 */
P2P_CHECK int wg_aead_init(struct wg_aead *aead, const struct wg_crypto *crypto,
			   const struct wg_aead_lanes *const *candidates);
void wg_aead_deinit(struct wg_aead *aead);
/* "avx512", "avx2" or "openssl". */
const char *wg_aead_name(const struct wg_aead *aead);

/* How many were sealed, from the first on: less than n only if OpenSSL failed at that one. */
P2P_CHECK uint32_t wg_aead_seal_packets(struct wg_aead *aead, const uint8_t key[KEY_LEN],
					struct wg_aead_packet *packets, uint32_t n);
/* See is_good of each. A forged packet does not disturb the others. */
void wg_aead_open_packets(struct wg_aead *aead, const uint8_t key[KEY_LEN],
			  struct wg_aead_packet *packets, uint32_t n);
