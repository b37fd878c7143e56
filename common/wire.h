/*
 * Wire readers and writers with a sticky error.
 *
 * Every read past the end (and every write past the end) marks the cursor as failed and yields
 * zeroes; later calls are no-ops. A codec is therefore a straight list of fields, checked once at
 * the end. Multi-byte fields are big-endian unless the name says _le.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct wire_reader {
	const uint8_t *at, *end;
	bool failed;
};

static inline struct wire_reader wire_reader(const void *buf, size_t len)
{
	return (struct wire_reader){ .at = buf, .end = (const uint8_t *)buf + len };
}

/* n bytes in place, or NULL past the end. Borrowed from the buffer. */
static inline const uint8_t *wire_take(struct wire_reader *r, size_t n)
{
	const uint8_t *p = r->at;

	if (r->failed || (size_t)(r->end - r->at) < n) {
		r->failed = true;
		return NULL;
	}
	r->at += n;
	return p;
}

static inline size_t wire_left(const struct wire_reader *r)
{
	return r->failed ? 0 : (size_t)(r->end - r->at);
}

static inline uint8_t wire_u8(struct wire_reader *r)
{
	const uint8_t *p = wire_take(r, 1);
	return p ? p[0] : 0;
}

static inline uint16_t wire_u16(struct wire_reader *r)
{
	const uint8_t *p = wire_take(r, 2);
	return (uint16_t)(p ? p[0] << 8 | p[1] : 0);
}

static inline uint32_t wire_u32(struct wire_reader *r)
{
	const uint8_t *p = wire_take(r, 4);
	return p ? (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3] : 0;
}

static inline uint64_t wire_u64(struct wire_reader *r)
{
	uint64_t high = wire_u32(r);
	return high << 32 | wire_u32(r);
}

static inline uint32_t wire_u32_le(struct wire_reader *r)
{
	const uint8_t *p = wire_take(r, 4);
	return p ? (uint32_t)p[3] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[1] << 8 | p[0] : 0;
}

static inline uint64_t wire_u64_le(struct wire_reader *r)
{
	uint64_t low = wire_u32_le(r);
	return (uint64_t)wire_u32_le(r) << 32 | low;
}

static inline void wire_bytes(struct wire_reader *r, void *dst, size_t n)
{
	const uint8_t *p = wire_take(r, n);
	if (p)
		memcpy(dst, p, n);
	else
		memset(dst, 0, n);
}

/* True if every read succeeded and nothing is left over. */
static inline bool wire_done(const struct wire_reader *r)
{
	return !r->failed && r->at == r->end;
}

struct wire_writer {
	uint8_t *base, *at, *end;
	bool failed;
};

static inline struct wire_writer wire_writer(void *buf, size_t cap)
{
	return (struct wire_writer){ .base = buf, .at = buf, .end = (uint8_t *)buf + cap };
}

/* Room for n bytes, to be filled by the caller, or NULL if they do not fit. */
static inline uint8_t *wire_reserve(struct wire_writer *w, size_t n)
{
	uint8_t *p = w->at;

	if (w->failed || (size_t)(w->end - w->at) < n) {
		w->failed = true;
		return NULL;
	}
	w->at += n;
	return p;
}

static inline void wire_put(struct wire_writer *w, const void *src, size_t n)
{
	uint8_t *p = wire_reserve(w, n);
	if (p)
		memcpy(p, src, n);
}

static inline void wire_put_u8(struct wire_writer *w, uint8_t v)
{
	wire_put(w, &v, 1);
}

static inline void wire_put_u16(struct wire_writer *w, uint16_t v)
{
	wire_put(w, (uint8_t[]){ (uint8_t)(v >> 8), (uint8_t)v }, 2);
}

static inline void wire_put_u32(struct wire_writer *w, uint32_t v)
{
	wire_put_u16(w, (uint16_t)(v >> 16));
	wire_put_u16(w, (uint16_t)v);
}

static inline void wire_put_u64(struct wire_writer *w, uint64_t v)
{
	wire_put_u32(w, (uint32_t)(v >> 32));
	wire_put_u32(w, (uint32_t)v);
}

static inline void wire_put_u32_le(struct wire_writer *w, uint32_t v)
{
	wire_put(w, (uint8_t[]){ (uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24) }, 4);
}

static inline void wire_put_u64_le(struct wire_writer *w, uint64_t v)
{
	wire_put_u32_le(w, (uint32_t)v);
	wire_put_u32_le(w, (uint32_t)(v >> 32));
}

/* Bytes written, or 0 if they did not fit. */
static inline size_t wire_written(const struct wire_writer *w)
{
	return w->failed ? 0 : (size_t)(w->at - w->base);
}
