/*
 * Target: relay_decoder_*, relay_encode. The first byte says into what pieces the rest is cut; the frames
 * found must not depend on it, and each is written as it was read (up to bytes of later versions).
 */
#include "common/relay_wire.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t encoded[RELAY_MAX_FRAME];

static uint64_t mix(uint64_t hash, const void *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		hash = (hash ^ ((const uint8_t *)bytes)[i]) * 0x100000001b3u;
	return hash;
}

static uint64_t read_all(const uint8_t *data, size_t size, size_t piece)
{
	struct relay_decoder decoder = { 0 };
	struct relay_frame frame;
	uint64_t hash = 14695981039346656037u;
	int r = RELAY_WIRE_MORE;

	for (size_t at = 0; at < size && r != RELAY_WIRE_TOO_LONG; at += piece) {
		/* A copy of its own, so that a read past its end is seen. */
		size_t len = size - at < piece ? size - at : piece;
		uint8_t *copy = malloc(len);
		assert(copy);
		memcpy(copy, data + at, len);
		relay_decoder_feed(&decoder, copy, len);
		while ((r = relay_decoder_next(&decoder, &frame)) != RELAY_WIRE_MORE && r != RELAY_WIRE_TOO_LONG) {
			size_t n = r == 0 ? relay_encode(encoded, sizeof(encoded), &frame) : 0;
			assert(r != 0 || n > 0);
			hash = mix(mix(hash, &r, sizeof(r)), encoded, n);
		}
		free(copy);
	}
	relay_decoder_deinit(&decoder);
	return mix(hash, &r, sizeof(r));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2)
		return 0;
	uint64_t whole = read_all(data + 1, size - 1, size);
	uint64_t cut = read_all(data + 1, size - 1, 1 + data[0] % 50u);
	assert(whole == cut);
	return 0;
}
