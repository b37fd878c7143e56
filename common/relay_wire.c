#include "common/relay_wire.h"

#include "common/wire.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TYPE RELAY_CLOSING

/* Bytes after those of a known length are for later versions and ignored. */
static const struct frame_type {
	size_t min_len;
	bool is_packet;
} types[MAX_TYPE + 1] = {
	[RELAY_HELLO] = { .min_len = 2 },
	[RELAY_SEND] = { .min_len = KEY_LEN + 1, .is_packet = true },
	[RELAY_RECV] = { .min_len = KEY_LEN + 1, .is_packet = true },
	[RELAY_PEER_GONE] = { .min_len = KEY_LEN + 1 },
	[RELAY_PING] = { .min_len = 8 },
	[RELAY_PONG] = { .min_len = 8 },
	[RELAY_CLOSING] = { .min_len = 5 },
};

static int decode_body(uint8_t type, const uint8_t *body, size_t len, struct relay_frame *ret)
{
	struct wire_reader r = wire_reader(body, len);
	struct relay_frame frame = { .type = (enum relay_frame_type)type };

	if (type == 0 || type > MAX_TYPE)
		return RELAY_WIRE_UNKNOWN;
	if (len < types[type].min_len)
		return RELAY_WIRE_MALFORMED;
	switch (frame.type) {
	case RELAY_HELLO:
		frame.hello.version = wire_u8(&r);
		frame.hello.keep_alive_s = wire_u8(&r);
		break;
	case RELAY_SEND:
	case RELAY_RECV:
		wire_bytes(&r, frame.packet.key.bytes, KEY_LEN);
		frame.packet.len = wire_left(&r);
		frame.packet.bytes = wire_take(&r, frame.packet.len);
		break;
	case RELAY_PEER_GONE:
		wire_bytes(&r, frame.peer_gone.key.bytes, KEY_LEN);
		frame.peer_gone.reason = (enum relay_gone_reason)wire_u8(&r);
		break;
	case RELAY_PING:
	case RELAY_PONG:
		frame.ping = wire_u64(&r);
		break;
	case RELAY_CLOSING:
		frame.closing.reason = (enum relay_closing_reason)wire_u8(&r);
		frame.closing.retry_after_ms = wire_u32(&r);
		break;
	}
	assert(!r.failed);
	*ret = frame;
	return 0;
}

static size_t body_len(const uint8_t head[RELAY_HEADER_LEN])
{
	return (size_t)head[1] << 16 | (size_t)head[2] << 8 | head[3];
}

void relay_decoder_feed(struct relay_decoder *decoder, const void *piece, size_t len)
{
	assert(decoder->at == decoder->end);
	decoder->at = piece;
	decoder->end = decoder->at + len;
}

/* Moves bytes of the piece until n of the cut frame are there. */
static bool collect(struct relay_decoder *d, uint8_t *into, size_t offset, size_t n)
{
	size_t want = n - d->n_partial, there = (size_t)(d->end - d->at);
	size_t move = want < there ? want : there;

	if (move > 0) {
		memcpy(into + (d->n_partial - offset), d->at, move);
		d->at += move;
		d->n_partial += move;
	}
	return move == want;
}

static void drop_partial(struct relay_decoder *d)
{
	free(d->partial);
	d->partial = NULL;
}

static int next_of_cut_frame(struct relay_decoder *d, struct relay_frame *ret)
{
	if (d->n_partial < RELAY_HEADER_LEN && !collect(d, d->head, 0, RELAY_HEADER_LEN))
		return RELAY_WIRE_MORE;

	size_t len = body_len(d->head);
	if (len > RELAY_MAX_BODY) {
		d->broken = true;
		return RELAY_WIRE_TOO_LONG;
	}
	if (!d->partial) {
		d->partial = malloc(len > 0 ? len : 1);
		if (!d->partial)
			abort();
	}
	if (!collect(d, d->partial, RELAY_HEADER_LEN, RELAY_HEADER_LEN + len))
		return RELAY_WIRE_MORE;
	d->n_partial = 0; /* the body stays until the next call: the frame borrows it */
	return decode_body(d->head[0], d->partial, len, ret);
}

int relay_decoder_next(struct relay_decoder *d, struct relay_frame *ret)
{
	size_t left = (size_t)(d->end - d->at);

	if (d->broken) {
		d->at = d->end;
		return RELAY_WIRE_TOO_LONG;
	}
	if (d->n_partial == 0 && d->partial)
		drop_partial(d);
	if (d->n_partial == 0 && left == 0)
		return RELAY_WIRE_MORE;
	if (d->n_partial > 0 || left < RELAY_HEADER_LEN || left - RELAY_HEADER_LEN < body_len(d->at)) {
		int r = next_of_cut_frame(d, ret);
		if (r == RELAY_WIRE_TOO_LONG)
			d->at = d->end;
		return r;
	}

	const uint8_t *head = d->at;
	d->at += RELAY_HEADER_LEN + body_len(head);
	if (body_len(head) > RELAY_MAX_BODY) {
		d->broken = true;
		d->at = d->end;
		return RELAY_WIRE_TOO_LONG;
	}
	return decode_body(head[0], head + RELAY_HEADER_LEN, body_len(head), ret);
}

void relay_decoder_deinit(struct relay_decoder *decoder)
{
	drop_partial(decoder);
	*decoder = (struct relay_decoder){ 0 };
}

static void put_head(struct wire_writer *w, enum relay_frame_type type, size_t len)
{
	wire_put_u32(w, (uint32_t)type << 24 | (uint32_t)len);
}

void relay_encode_packet_head(uint8_t ret[RELAY_PACKET_HEAD], enum relay_frame_type type,
			      const struct public_key *key, size_t len)
{
	struct wire_writer w = wire_writer(ret, RELAY_PACKET_HEAD);

	assert(len > 0 && len <= RELAY_MAX_PACKET);
	put_head(&w, type, KEY_LEN + len);
	wire_put(&w, key->bytes, KEY_LEN);
}

static size_t encode_packet(void *buf, size_t cap, const struct relay_frame *frame)
{
	struct wire_writer w = wire_writer(buf, cap);

	if (frame->packet.len == 0 || frame->packet.len > RELAY_MAX_PACKET)
		return 0;
	put_head(&w, frame->type, KEY_LEN + frame->packet.len);
	wire_put(&w, frame->packet.key.bytes, KEY_LEN);
	wire_put(&w, frame->packet.bytes, frame->packet.len);
	return wire_written(&w);
}

size_t relay_encode(void *buf, size_t cap, const struct relay_frame *frame)
{
	struct wire_writer w = wire_writer(buf, cap);

	if (types[frame->type].is_packet)
		return encode_packet(buf, cap, frame);
	put_head(&w, frame->type, types[frame->type].min_len);
	switch (frame->type) {
	case RELAY_HELLO:
		wire_put_u8(&w, frame->hello.version);
		wire_put_u8(&w, frame->hello.keep_alive_s);
		break;
	case RELAY_PEER_GONE:
		wire_put(&w, frame->peer_gone.key.bytes, KEY_LEN);
		wire_put_u8(&w, (uint8_t)frame->peer_gone.reason);
		break;
	case RELAY_PING:
	case RELAY_PONG:
		wire_put_u64(&w, frame->ping);
		break;
	case RELAY_CLOSING:
		wire_put_u8(&w, (uint8_t)frame->closing.reason);
		wire_put_u32(&w, frame->closing.retry_after_ms);
		break;
	case RELAY_SEND:
	case RELAY_RECV:
		break;
	}
	return wire_written(&w);
}

const char *relay_closing_reason_text(enum relay_closing_reason reason)
{
	switch (reason) {
	case RELAY_CLOSING_RESTART:
		return "the relay stops";
	case RELAY_CLOSING_REPLACED:
		return "another connection with our key took over";
	case RELAY_CLOSING_NOT_ADMITTED:
		return "the relay does not know us as a member";
	case RELAY_CLOSING_PROTOCOL:
		return "the relay could not follow our frames";
	case RELAY_CLOSING_EXPIRED:
		return "our certificate has expired";
	case RELAY_CLOSING_FULL:
		return "the relay has too many clients";
	}
	return "the relay closed for a reason we do not know";
}
