/*
 * For the lanes of aead.h only: the ways there are, and what they share.
 *
 * Everything here is small and inline, and knows nothing of a vector unit.
 */
#pragma once

#include "node/wireguard/aead.h"

#include <string.h>

#ifdef P2P_NULL_CRYPTO
extern const struct wg_aead_lanes wg_aead_null; /* for measuring only */
#endif
#ifdef __x86_64__ /* also little endian, as the lanes expect */
extern const struct wg_aead_lanes wg_aead_avx512;
extern const struct wg_aead_lanes wg_aead_avx2;
#endif

/* memset that stays, also when what is wiped is never read again. */
static inline void wg_aead_wipe(void *data, size_t n)
{
	memset(data, 0, n);
	__asm__ volatile("" : : "r"(data) : "memory");
}

static inline void wg_aead_put_tag(const struct wg_aead_packet *packet, const uint64_t tag[2])
{
	memcpy(packet->data + packet->size, tag, WG_AEAD_TAG_LEN);
}

/* Whether it was right is public; how it was wrong is not. */
static inline void wg_aead_check_tag(struct wg_aead_packet *packet, const uint64_t tag[2])
{
	uint64_t found[2];

	memcpy(found, packet->data + packet->size, sizeof(found));
	packet->is_good = ((tag[0] ^ found[0]) | (tag[1] ^ found[1])) == 0;
	if (!packet->is_good)
		memset(packet->data, 0, packet->size);
}
