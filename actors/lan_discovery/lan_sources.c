#include "actors/lan_discovery/lan_sources.h"

#include <assert.h>
#include <sodium.h>
#include <string.h>

bool lan_sources_take(struct lan_sources *sources, const struct endpoint *from, uint64_t now_ms)
{
	uint8_t hash[crypto_shorthash_BYTES];
	uint64_t index;

	static_assert(crypto_shorthash_KEYBYTES == sizeof(sources->seed), "the seed");
	static_assert(crypto_shorthash_BYTES == sizeof(index), "the hash");
	crypto_shorthash(hash, from->ip, sizeof(from->ip), sources->seed);
	memcpy(&index, hash, sizeof(index));
	return token_bucket_take(&sources->sources[index % LAN_SOURCES], now_ms, LAN_SOURCE_BURST,
				 LAN_SOURCE_EACH_MS) &&
	       token_bucket_take(&sources->all, now_ms, LAN_ALL_BURST, LAN_ALL_EACH_MS);
}
