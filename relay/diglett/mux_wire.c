#include "relay/diglett/mux_wire.h"

/* May a frame of this type be of a stream, of the connection? */
static bool is_place(uint8_t type, uint32_t stream)
{
	switch (type) {
	case MUX_DATA:
	case MUX_OPEN:
	case MUX_END:
	case MUX_RESET:
		return stream != 0;
	case MUX_PING:
	case MUX_PONG:
	case MUX_GOAWAY:
		return stream == 0;
	default:
		return true;
	}
}

static bool read_data(struct wire_reader *r, struct mux_frame *ret)
{
	ret->data.len = wire_left(r);
	ret->data.bytes = wire_take(r, ret->data.len);
	return ret->data.len > 0;
}

static bool read_goaway(struct wire_reader *r, struct mux_frame *ret)
{
	ret->goaway.reason = wire_u8(r);
	ret->goaway.len = wire_left(r);
	ret->goaway.text = (const char *)wire_take(r, ret->goaway.len);
	for (size_t i = 0; i < ret->goaway.len; i++)
		if (ret->goaway.text[i] < ' ' || ret->goaway.text[i] > '~')
			return false;
	return ret->goaway.len <= MUX_MAX_TEXT;
}

static bool read_payload(struct wire_reader *r, struct mux_frame *ret)
{
	switch (ret->type) {
	case MUX_DATA:
		return read_data(r, ret);
	case MUX_OPEN:
		ret->open.port = wire_u16(r);
		ret->open.visitor = wire_endpoint(r);
		return true;
	case MUX_END:
		return true;
	case MUX_RESET:
		ret->reset.reason = wire_u8(r);
		return true;
	case MUX_WINDOW:
		ret->window.more = wire_u32(r);
		return ret->window.more > 0 && ret->window.more <= MUX_MAX_WINDOW;
	case MUX_PING:
	case MUX_PONG:
		ret->ping.token = wire_u64(r);
		return true;
	case MUX_GOAWAY:
		return read_goaway(r, ret);
	default:
		(void)wire_take(r, wire_left(r));
		return ret->type >= MUX_SKIPPED;
	}
}

bool mux_frame_read(struct wire_reader *reader, struct mux_frame *ret)
{
	*ret = (struct mux_frame){ .stream = wire_u32(reader) };
	ret->type = wire_u8(reader); /* not in the initialiser, which has no order */
	const size_t len = wire_u16(reader);
	const uint8_t *payload = wire_take(reader, len);

	if (!payload || len > MUX_MAX_DATA || !is_place(ret->type, ret->stream))
		return false;
	struct wire_reader r = wire_reader(payload, len);
	return read_payload(&r, ret) && wire_done(&r);
}

void mux_data_head(uint32_t stream, size_t len, uint8_t ret[MUX_HEAD_LEN])
{
	struct wire_writer w = wire_writer(ret, MUX_HEAD_LEN);

	wire_put_u32(&w, stream);
	wire_put_u8(&w, MUX_DATA);
	wire_put_u16(&w, (uint16_t)len);
}

static void write_payload(struct wire_writer *w, const struct mux_frame *frame)
{
	switch (frame->type) {
	case MUX_DATA:
		wire_put(w, frame->data.bytes, frame->data.len);
		break;
	case MUX_OPEN:
		wire_put_u16(w, frame->open.port);
		wire_put_endpoint(w, &frame->open.visitor);
		break;
	case MUX_RESET:
		wire_put_u8(w, frame->reset.reason);
		break;
	case MUX_WINDOW:
		wire_put_u32(w, frame->window.more);
		break;
	case MUX_PING:
	case MUX_PONG:
		wire_put_u64(w, frame->ping.token);
		break;
	case MUX_GOAWAY:
		wire_put_u8(w, frame->goaway.reason);
		wire_put(w, frame->goaway.text, frame->goaway.len);
		break;
	default:
		break;
	}
}

void mux_frame_write(struct wire_writer *writer, const struct mux_frame *frame)
{
	wire_put_u32(writer, frame->stream);
	wire_put_u8(writer, frame->type);
	uint8_t *const len_at = wire_reserve(writer, 2);
	const uint8_t *const begin = writer->at;

	write_payload(writer, frame);
	if (writer->failed)
		return;
	const size_t len = (size_t)(writer->at - begin);
	len_at[0] = (uint8_t)(len >> 8);
	len_at[1] = (uint8_t)len;
}

const char *mux_reason_text(uint8_t reason)
{
	static const char *const texts[MUX_N_REASONS] = {
		[MUX_CLOSED] = "closed",
		[MUX_ERROR] = "protocol error",
		[MUX_REFUSED] = "refused",
		[MUX_UNREACHABLE] = "target not reached",
		[MUX_STALLED] = "reads nothing",
		[MUX_REPLACED] = "replaced by a newer connection",
		[MUX_REVOKED] = "token revoked",
		[MUX_IDLE] = "idle for too long",
	};

	return texts[reason < MUX_N_REASONS ? reason : MUX_ERROR];
}
