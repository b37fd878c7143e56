/*
 * Target: mux_fsm. Any frames of the other side and any doings of the owner, in any order, keep the numbers together:
 * what is held has its bound, and every place comes back.
 */
#include "relay/diglett/mux_fsm.h"

#include <assert.h>

#define MAX_STREAMS 16

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct one {
	struct mux_stream stream;
	bool is_used;
};

static struct mux_fsm mux;
static struct one ones[2 * MAX_STREAMS];

static struct one *free_one(void)
{
	for (uint32_t i = 0; i < ARRAY_LEN(ones); i++)
		if (!ones[i].is_used)
			return &ones[i];
	return NULL;
}

static void close_one(struct mux_stream *stream)
{
	mux_fsm_close(&mux, stream, MUX_CLOSED);
	container_of(stream, struct one, stream)->is_used = false;
}

/* False: the connection ends. */
static bool receive(struct wire_reader *r, uint64_t now_us)
{
	static const uint8_t zeros[MUX_MAX_DATA];
	struct mux_frame frame = { .stream = wire_u8(r), .type = wire_u8(r) % (MUX_N_TYPES + 1) };
	const uint32_t n = wire_u16(r);
	struct mux_event event;

	if (frame.type == MUX_OPEN && n % 8 != 0)
		frame.stream = mux.last_theirs + (mux.last_theirs == 0 && !mux.settings.is_initiator ? 1 : 2);
	if (frame.type == MUX_DATA)
		frame.data.bytes = zeros, frame.data.len = n % MUX_MAX_DATA + 1;
	else if (frame.type == MUX_WINDOW)
		frame.window.more = (n << 15) + 1;
	else if (frame.type == MUX_PONG)
		frame.ping.token = n % 4;
	if (mux_fsm_receive(&mux, &frame, now_us, &event) != 0)
		return false;
	struct one *one = event.type == MUX_EV_OPENED && n % 3 != 0 ? free_one() : NULL;
	if (one) {
		one->is_used = true;
		mux_fsm_accept(&mux, &one->stream, now_us);
	} else if (event.type == MUX_EV_OPENED) {
		mux_fsm_refuse(&mux, MUX_REFUSED);
	} else if (event.type == MUX_EV_RESET) {
		close_one(event.stream);
	}
	return true;
}

static void send_one(uint32_t n, uint64_t now_us)
{
	struct mux_send send;

	mux_fsm_next(&mux, n * 64, now_us, &send);
	if (send.type == MUX_SEND_STREAM)
		mux_fsm_sent(&mux, send.stream, send.max - n % 2, (enum mux_source)(n % 3));
}

/* A deed of the owner. */
static void act(struct wire_reader *r, uint64_t now_us)
{
	const uint8_t deed = wire_u8(r), n = wire_u8(r);
	const struct endpoint visitor = { 0 };
	struct one *one = &ones[n % ARRAY_LEN(ones)];
	struct mux_event event;

	if (deed % 8 < 3) {
		send_one(n, now_us);
	} else if (deed % 8 == 3 && !one->is_used) {
		one->is_used = mux_fsm_open(&mux, &one->stream, n, &visitor, now_us);
	} else if (deed % 8 == 4 && one->is_used) {
		mux_fsm_readable(&mux, &one->stream);
	} else if (deed % 8 == 5 && one->is_used) {
		mux_fsm_consumed(&mux, &one->stream, one->stream.held, now_us);
	} else if (deed % 8 == 6 && one->is_used) {
		close_one(&one->stream);
	} else if (deed % 8 == 7) {
		mux_fsm_tick(&mux, now_us, &event);
		if (event.type == MUX_EV_STALLED || event.type == MUX_EV_IDLE)
			close_one(event.stream);
	}
}

static void end(uint64_t now_us)
{
	struct mux_send send;

	for (struct mux_stream *stream; (stream = mux_fsm_any(&mux));)
		close_one(stream);
	do
		mux_fsm_next(&mux, MUX_MAX_CONTROL, now_us, &send);
	while (send.type != MUX_SEND_NOTHING);
	assert(mux.n_ours == 0 && mux.n_theirs == 0 && mux.n_lingering == 0 && mux.held == 0 && mux.grown == 0);
	mux_fsm_check(&mux);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct mux_settings settings = { .is_initiator = size % 2 == 1, .max_ours = MAX_STREAMS,
					       .max_theirs = MAX_STREAMS, .open_burst = 64, .open_each_ms = 10,
					       .session_window = 2 * MUX_SESSION_WINDOW, .max_stream_window = 4 * MUX_STREAM_WINDOW,
					       .ping_ms = 1000, .dead_ms = 100000, .stalled_ms = 10,
					       .idle_ms = 60000, .half_closed_ms = 20000 };
	struct wire_reader r = wire_reader(data, size);
	uint64_t now_us = 1000000;

	if (size == 0)
		return 0;
	memset(ones, 0, sizeof(ones));
	mux_fsm_init(&mux, &settings, now_us);
	while (wire_left(&r) > 0) {
		now_us += 500;
		if (wire_u8(&r) % 2 == 0 && !receive(&r, now_us))
			break;
		act(&r, now_us);
		mux_fsm_check(&mux);
	}
	end(now_us);
	return 0;
}
