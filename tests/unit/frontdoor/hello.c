#include "hello.h"

#include "common/wire.h"

#include <assert.h>
#include <string.h>

/* A length that is known later: room for it now. */
static uint8_t *begin(struct wire_writer *w)
{
	return wire_reserve(w, 2);
}

static void end(const struct wire_writer *w, uint8_t *length)
{
	size_t n = (size_t)(w->at - length) - 2;

	assert(!w->failed && n <= UINT16_MAX);
	length[0] = (uint8_t)(n >> 8);
	length[1] = (uint8_t)n;
}

static void put_fill(struct wire_writer *w, size_t n)
{
	uint8_t *at = wire_reserve(w, n);

	assert(at);
	memset(at, 0xa5, n);
}

static void put_server_name(struct wire_writer *w, const struct hello_options *options)
{
	wire_put_u16(w, 0);
	uint8_t *value = begin(w), *list = begin(w);
	for (size_t i = 0; i < HELLO_MAX_NAMES && options->names[i]; i++) {
		size_t len = options->name_len > 0 ? options->name_len : strlen(options->names[i]);
		wire_put_u8(w, 0);
		wire_put_u16(w, (uint16_t)len);
		wire_put(w, options->names[i], len);
	}
	end(w, list);
	end(w, value);
}

static void put_alpn(struct wire_writer *w, const struct hello_options *options)
{
	wire_put_u16(w, 16);
	uint8_t *value = begin(w), *list = begin(w);
	for (size_t i = 0; i < 4 && options->alpn[i]; i++) {
		wire_put_u8(w, (uint8_t)strlen(options->alpn[i]));
		wire_put(w, options->alpn[i], strlen(options->alpn[i]));
	}
	end(w, list);
	end(w, value);
}

static void put_ech(struct wire_writer *w, bool is_outer)
{
	wire_put_u16(w, 0xfe0d);
	uint8_t *value = begin(w);
	wire_put_u8(w, is_outer ? 0 : 1);
	if (is_outer)
		put_fill(w, 200);
	end(w, value);
}

static void put_filled(struct wire_writer *w, uint16_t type, size_t n)
{
	wire_put_u16(w, type);
	uint8_t *value = begin(w);
	put_fill(w, n);
	end(w, value);
}

static void put_extensions(struct wire_writer *w, const struct hello_options *options)
{
	uint8_t *extensions = begin(w);

	if (options->key_share > 0)
		put_filled(w, 51, options->key_share);
	if (options->names[0])
		put_server_name(w, options);
	if (options->repeats_extension)
		put_server_name(w, options);
	if (options->alpn[0])
		put_alpn(w, options);
	if (options->ech > 0)
		put_ech(w, options->ech == 1);
	put_filled(w, 21, options->padding);
	end(w, extensions);
}

size_t hello_build(const struct hello_options *options, uint8_t *ret, size_t cap)
{
	struct wire_writer w = wire_writer(ret, cap);

	wire_put_u8(&w, options->is_other ? 2 : 1);
	uint8_t *length = wire_reserve(&w, 3);
	assert(length);
	wire_put_u16(&w, 0x0303);
	put_fill(&w, 32); /* random */
	wire_put_u8(&w, 32);
	put_fill(&w, 32); /* session id */
	wire_put_u16(&w, 4);
	wire_put_u32(&w, 0x13011302);
	wire_put_u16(&w, 0x0100); /* one compression method, none */
	if (!options->is_old)
		put_extensions(&w, options);
	put_fill(&w, options->trailing);
	assert(!w.failed);
	size_t n = wire_written(&w) - 4;
	length[0] = (uint8_t)(n >> 16);
	length[1] = (uint8_t)(n >> 8);
	length[2] = (uint8_t)n;
	return wire_written(&w);
}

size_t hello_in_records(const uint8_t *message, size_t len, size_t record_len, uint8_t *ret, size_t cap)
{
	struct wire_writer w = wire_writer(ret, cap);

	for (size_t at = 0; at < len; at += record_len) {
		size_t n = len - at < record_len ? len - at : record_len;
		wire_put_u8(&w, 22);
		wire_put_u16(&w, 0x0301);
		wire_put_u16(&w, (uint16_t)n);
		wire_put(&w, message + at, n);
	}
	assert(!w.failed);
	return wire_written(&w);
}

size_t hello_of_records(const uint8_t *records, size_t len, uint8_t *ret, size_t cap)
{
	struct wire_reader r = wire_reader(records, len);
	struct wire_writer w = wire_writer(ret, cap);

	while (wire_left(&r) >= 5 && r.at[0] == 22) {
		wire_take(&r, 3);
		size_t n = wire_u16(&r);
		const uint8_t *piece = wire_take(&r, n);
		assert(piece);
		wire_put(&w, piece, n);
	}
	assert(!w.failed);
	return wire_written(&w);
}
