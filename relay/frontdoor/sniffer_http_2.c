/*
 * HTTP/2 by prior knowledge (RFC 9113): the authority of the first request.
 *
 *   preface ─ SETTINGS ─┬─ SETTINGS, WINDOW_UPDATE, PING, PRIORITY, unknown … ─┐
 *                       └──────────────────────────────────────────────────────┴─ HEADERS ─ CONTINUATION … ─ its end
 *
 *   frame: length (3) · type (1) · flags (1) · stream (4) · payload
 *
 * Frames are only counted while they come in; when the header block is whole it is put together once, and decoded.
 */
#include "common/wire.h"
#include "relay/frontdoor/hpack_wire.h"
#include "relay/frontdoor/sniffer_parts.h"

#include <string.h>

#define FRAME_HEADER_LEN 9
#define FRAME_MAX_LEN	 (1 << 14) /* until the server allows more, and it has not said a word yet */
#define PRIORITY_LEN	 5

enum stage { STAGE_SETTINGS, STAGE_FRAMES, STAGE_CONTINUATION };

enum frame_type {
	FRAME_DATA = 0,
	FRAME_HEADERS = 1,
	FRAME_PRIORITY = 2,
	FRAME_RST_STREAM = 3,
	FRAME_SETTINGS = 4,
	FRAME_PUSH_PROMISE = 5,
	FRAME_PING = 6,
	FRAME_GOAWAY = 7,
	FRAME_WINDOW_UPDATE = 8,
	FRAME_CONTINUATION = 9,
};

enum flag { FLAG_ACK = 0x1, FLAG_END_HEADERS = 0x4, FLAG_PADDED = 0x8, FLAG_PRIORITY = 0x20 };

struct frame {
	uint32_t len, stream;
	uint8_t type, flags;
	const uint8_t *payload;
};

static struct frame frame_at(const uint8_t *bytes)
{
	struct wire_reader r = wire_reader(bytes, FRAME_HEADER_LEN);
	uint32_t high = wire_u8(&r);
	struct frame frame = { .len = high << 16 | wire_u16(&r), .payload = bytes + FRAME_HEADER_LEN };

	frame.type = wire_u8(&r);
	frame.flags = wire_u8(&r);
	frame.stream = wire_u32(&r) & 0x7fffffff;
	return frame;
}

/* The piece of a header block in a HEADERS or CONTINUATION frame; NULL: padded beyond its end. */
static const uint8_t *fragment_of(const struct frame *frame, uint32_t *ret_len)
{
	bool is_headers = frame->type == FRAME_HEADERS;
	struct wire_reader r = wire_reader(frame->payload, frame->len);
	size_t padding = is_headers && frame->flags & FLAG_PADDED ? wire_u8(&r) : 0;

	wire_take(&r, is_headers && frame->flags & FLAG_PRIORITY ? PRIORITY_LEN : 0);
	if (r.failed || wire_left(&r) < padding)
		return NULL;
	*ret_len = (uint32_t)(wire_left(&r) - padding);
	return r.at;
}

/* ---- the request ----------------------------------------------------------------------------- */

/* What was in the block so far. */
struct request {
	unsigned n[HPACK_N_NAMES];
	bool is_bad;
	int authority_error, host_error;
	struct host_name authority, host;
	bool is_connect, is_options, is_acme;
	bool is_path, is_star; /* what :path is */
};

static bool is_pseudo(enum hpack_name name)
{
	return name == HPACK_AUTHORITY || name == HPACK_METHOD || name == HPACK_PATH || name == HPACK_SCHEME;
}

static bool is_text(const struct hpack_string *value, const char *text)
{
	return value->len == strlen(text) && memcmp(value->text, text, value->len) == 0;
}

static void read_field(struct request *request, const struct hpack_field *field)
{
	const struct hpack_string *value = &field->value;
	/* What is longer than what is kept of it is no host name, and no path of ACME. */
	bool is_whole = value->len <= HPACK_MAX_TEXT;

	if (field->name == HPACK_NO_NAME || field->name == HPACK_PSEUDO || !value->is_value ||
	    (is_pseudo(field->name) && request->n[HPACK_OTHER] + request->n[HPACK_HOST] > 0))
		request->is_bad = true; /* section 8.3: pseudo fields come first, and only those of requests */
	request->n[field->name]++;
	if (field->is_again)
		return;
	if (field->name == HPACK_AUTHORITY)
		request->authority_error = is_whole ? host_name_from_authority(value->text, value->len, &request->authority) :
						      HOST_NAME_TOO_LONG;
	if (field->name == HPACK_HOST)
		request->host_error = is_whole ? host_name_from_authority(value->text, value->len, &request->host) :
						 HOST_NAME_TOO_LONG;
	if (field->name == HPACK_METHOD) {
		request->is_connect = is_text(value, "CONNECT");
		request->is_options = is_text(value, "OPTIONS");
	}
	if (field->name == HPACK_PATH) {
		request->is_path = value->is_path;
		request->is_star = is_text(value, "*");
		request->is_acme = is_whole && sniffer_is_acme_path(value->text, value->len);
	}
}

/* Which of two is the host: the authority, else Host; both must say the same (section 8.3.1). */
static enum sniffer_reason choose_host(const struct request *request, struct host_name *ret)
{
	bool has_authority = request->n[HPACK_AUTHORITY] > 0, has_host = request->n[HPACK_HOST] > 0;

	if (request->n[HPACK_AUTHORITY] > 1 || request->n[HPACK_HOST] > 1)
		return SNIFFER_TWO_HOSTS;
	if (!has_authority && !has_host)
		return SNIFFER_NO_HOST;
	if (request->authority_error != 0 || request->host_error != 0)
		return sniffer_reason_of_name(request->authority_error != 0 ? request->authority_error : request->host_error);
	if (has_authority && has_host && !host_name_equal(&request->authority, &request->host))
		return SNIFFER_TWO_HOSTS;
	*ret = has_authority ? request->authority : request->host;
	return SNIFFER_NOT_REFUSED;
}

static enum sniffer_reason judge(const struct request *request, struct host_name *ret)
{
	if (request->is_bad || request->n[HPACK_METHOD] != 1)
		return SNIFFER_H2_HEADERS;
	if (request->is_connect)
		return SNIFFER_HTTP_CONNECT;
	if (request->n[HPACK_PATH] != 1 || request->n[HPACK_SCHEME] != 1)
		return SNIFFER_H2_HEADERS;
	/* Section 8.3.1. A server that makes HTTP/1 of it could take a URL there for the host. */
	if (!request->is_path && !(request->is_star && request->is_options))
		return SNIFFER_H2_HEADERS;
	return choose_host(request, ret);
}

static enum sniffer_outcome read_block(struct sniffer *sniffer, const uint8_t *block, size_t len)
{
	struct request request = { .is_bad = false };
	struct hpack_field field;
	struct hpack hpack;
	int r;

	hpack_init(&hpack, block, len);
	while ((r = hpack_next(&hpack, &field)) == 0)
		read_field(&request, &field);
	if (r != HPACK_END)
		return sniffer_refuse(sniffer, SNIFFER_H2_HEADERS);
	enum sniffer_reason reason = judge(&request, &sniffer->found.host);
	if (reason != SNIFFER_NOT_REFUSED)
		return sniffer_refuse(sniffer, reason);
	sniffer->found.is_acme_http = request.is_acme;
	return sniffer_finish(sniffer);
}

/* ---- frames ---------------------------------------------------------------------------------- */

/* All frames of the block are there, from sniffer->first on. */
static enum sniffer_outcome join_and_read(struct sniffer *sniffer, const uint8_t *bytes)
{
	uint8_t joined[SNIFFER_MAX_HEAD];
	uint32_t n = 0, len = 0;

	for (uint32_t at = sniffer->first; at < sniffer->at;) {
		struct frame frame = frame_at(bytes + at);
		const uint8_t *fragment = fragment_of(&frame, &len);

		memcpy(joined + n, fragment, len);
		n += len;
		at += FRAME_HEADER_LEN + frame.len;
	}
	return read_block(sniffer, joined, n);
}

/* A HEADERS or CONTINUATION frame that stands where it may; it ends at sniffer->at. */
static enum sniffer_outcome take_fragment(struct sniffer *sniffer, const uint8_t *bytes, const struct frame *frame)
{
	uint32_t len = 0;

	if (!fragment_of(frame, &len))
		return sniffer_refuse(sniffer, SNIFFER_H2_FRAME);
	sniffer->length += len;
	if (sniffer->length > SNIFFER_MAX_HEAD)
		return sniffer_refuse(sniffer, SNIFFER_TOO_LONG);
	sniffer->stage = STAGE_CONTINUATION;
	return frame->flags & FLAG_END_HEADERS ? join_and_read(sniffer, bytes) : SNIFFER_MORE;
}

static bool is_settings(const struct frame *frame)
{
	return frame->type == FRAME_SETTINGS && frame->stream == 0 && frame->len % 6 == 0;
}

/* What may stand between the first SETTINGS and the first HEADERS: all streams are idle. */
static bool may_come_before(const struct frame *frame)
{
	switch (frame->type) {
	case FRAME_SETTINGS:
		return is_settings(frame) && (!(frame->flags & FLAG_ACK) || frame->len == 0);
	case FRAME_WINDOW_UPDATE:
		return frame->stream == 0 && frame->len == 4;
	case FRAME_PING:
		return frame->stream == 0 && frame->len == 8;
	case FRAME_PRIORITY:
		return frame->stream != 0 && frame->len == PRIORITY_LEN;
	case FRAME_DATA:
	case FRAME_HEADERS:
	case FRAME_RST_STREAM:
	case FRAME_PUSH_PROMISE:
	case FRAME_GOAWAY:
	case FRAME_CONTINUATION:
		return false;
	default:
		return true; /* section 4.1: unknown ones are ignored */
	}
}

/* The frame ends at sniffer->at. */
static enum sniffer_outcome take_frame(struct sniffer *sniffer, const uint8_t *bytes, const struct frame *frame)
{
	switch ((enum stage)sniffer->stage) {
	case STAGE_SETTINGS:
		if (!is_settings(frame) || frame->flags & FLAG_ACK)
			break;
		sniffer->stage = STAGE_FRAMES;
		return SNIFFER_MORE;
	case STAGE_FRAMES:
		if (frame->type != FRAME_HEADERS)
			return may_come_before(frame) ? SNIFFER_MORE : sniffer_refuse(sniffer, SNIFFER_H2_FRAME);
		if (frame->stream % 2 == 0)
			break;
		sniffer->first = sniffer->at - FRAME_HEADER_LEN - frame->len;
		sniffer->stream = frame->stream;
		return take_fragment(sniffer, bytes, frame);
	case STAGE_CONTINUATION:
		if (frame->type != FRAME_CONTINUATION || frame->stream != sniffer->stream)
			break;
		return take_fragment(sniffer, bytes, frame);
	}
	return sniffer_refuse(sniffer, SNIFFER_H2_FRAME);
}

enum sniffer_outcome sniffer_read_http_2(struct sniffer *sniffer, const uint8_t *bytes, uint32_t n)
{
	if (sniffer->at == 0)
		sniffer->at = SNIFFER_PREFACE_LEN;
	while (sniffer->outcome == SNIFFER_MORE && n - sniffer->at >= FRAME_HEADER_LEN) {
		struct frame frame = frame_at(bytes + sniffer->at);

		if (frame.len > FRAME_MAX_LEN)
			return sniffer_refuse(sniffer, SNIFFER_H2_FRAME);
		if (n - sniffer->at < FRAME_HEADER_LEN + frame.len)
			break;
		sniffer->at += FRAME_HEADER_LEN + frame.len;
		take_frame(sniffer, bytes, &frame);
	}
	return sniffer->outcome;
}
