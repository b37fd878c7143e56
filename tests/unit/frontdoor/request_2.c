#include "request_2.h"

#include "common/wire.h"

#include <assert.h>
#include <string.h>

static void put_integer(struct wire_writer *w, uint8_t first, unsigned n_bits, size_t value)
{
	size_t prefix = (1U << n_bits) - 1;

	if (value < prefix) {
		wire_put_u8(w, (uint8_t)(first | value));
		return;
	}
	wire_put_u8(w, (uint8_t)(first | prefix));
	for (value -= prefix; value >= 128; value >>= 7)
		wire_put_u8(w, (uint8_t)(value | 0x80));
	wire_put_u8(w, (uint8_t)value);
}

static void put_string(struct wire_writer *w, const char *text)
{
	put_integer(w, 0, 7, strlen(text));
	wire_put(w, text, strlen(text));
}

static void put_block(struct wire_writer *w, const struct request_2 *request)
{
	for (size_t i = 0; i < REQUEST_2_MAX_FIELDS && request->fields[i].name; i++) {
		wire_put_u8(w, request->is_indexed ? 0x40 : 0x00);
		put_string(w, request->fields[i].name);
		put_string(w, request->fields[i].value);
	}
	if (request->filler > 0) {
		wire_put_u8(w, 0);
		put_string(w, "filler");
		put_integer(w, 0, 7, request->filler);
		uint8_t *at = wire_reserve(w, request->filler);
		assert(at);
		memset(at, 'x', request->filler);
	}
	if (request->block)
		wire_put(w, request->block, request->block_len);
}

static void put_frame(struct wire_writer *w, size_t len, uint8_t type, uint8_t flags, uint32_t stream)
{
	wire_put_u8(w, (uint8_t)(len >> 16));
	wire_put_u16(w, (uint16_t)len);
	wire_put_u8(w, type);
	wire_put_u8(w, flags);
	wire_put_u32(w, stream);
}

static void put_headers(struct wire_writer *w, const struct request_2 *request, const uint8_t *block, size_t len,
			bool is_last)
{
	uint8_t flags = (uint8_t)(0x1 | (is_last ? 0x4 : 0) | (request->is_padded ? 0x8 : 0) |
				  (request->has_priority ? 0x20 : 0));
	size_t n = len + (request->is_padded ? 4 : 0) + (request->has_priority ? 5 : 0);

	put_frame(w, n, 1, flags, request->stream ? request->stream : 1);
	if (request->is_padded)
		wire_put_u8(w, 3);
	if (request->has_priority)
		wire_put(w, "\0\0\0\0\xff", 5);
	wire_put(w, block, len);
	if (request->is_padded)
		wire_put(w, "\0\0\0", 3);
}

size_t request_2_build(const struct request_2 *request, uint8_t *ret, size_t cap)
{
	static uint8_t block[128 * 1024];
	struct wire_writer w = wire_writer(ret, cap), b = wire_writer(block, sizeof(block));

	put_block(&b, request);
	size_t len = wire_written(&b), fragment = request->fragment_len ? request->fragment_len : len;
	wire_put(&w, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
	if (!request->has_no_settings) {
		put_frame(&w, 6, 4, 0, 0);
		wire_put(&w, "\0\2\0\0\0\0", 6); /* no push */
	}
	if (request->before)
		wire_put(&w, request->before, request->before_len);
	if (fragment > len)
		fragment = len;
	put_headers(&w, request, block, fragment, fragment == len);
	for (size_t at = fragment; at < len; at += fragment) {
		size_t n = len - at < fragment ? len - at : fragment;
		put_frame(&w, n, 9, at + n == len ? 0x4 : 0, request->stream ? request->stream : 1);
		wire_put(&w, block + at, n);
	}
	assert(!w.failed && !b.failed);
	return wire_written(&w);
}
