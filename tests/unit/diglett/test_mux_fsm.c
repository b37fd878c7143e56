/*
 * What each side of a connection may do, and what ends it. tests/sim/sim_mux.c has both sides on a link; here the other
 * side is the test, and keeps no rules.
 */
#include "relay/diglett/mux_fsm.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#define NOW 5000000

static struct mux_fsm mux;
static const uint8_t zeros[MUX_MAX_DATA];

static struct mux_settings settings(bool is_initiator)
{
	return (struct mux_settings){ .is_initiator = is_initiator, .max_ours = 4, .max_theirs = 4, .open_burst = 8,
				      .open_each_ms = 100, .session_window = 2 * MUX_SESSION_WINDOW,
				      .max_stream_window = 1 << 20, .ping_ms = 15000, .dead_ms = 45000, .stalled_ms = 10000 };
}

static void begin(void)
{
	const struct mux_settings agents = settings(true);

	mux_fsm_init(&mux, &agents, NOW);
}

static int receive_at(const struct mux_frame *frame, uint64_t now_us, struct mux_event *event)
{
	const int r = mux_fsm_receive(&mux, frame, now_us, event);

	mux_fsm_check(&mux);
	return r;
}

static int receive(const struct mux_frame *frame, struct mux_event *event)
{
	return receive_at(frame, NOW, event);
}

static struct mux_frame next_frame(void)
{
	struct mux_send send;

	mux_fsm_next(&mux, MUX_MAX_FRAME, NOW, &send);
	mux_fsm_check(&mux);
	if (send.type == MUX_SEND_NOTHING)
		return (struct mux_frame){ .type = MUX_N_TYPES };
	assert(send.type == MUX_SEND_FRAME);
	return send.frame;
}

/* PING and the window of all, which each side begins with. */
static void skip_first_frames(void)
{
	struct mux_frame ping = next_frame();
	assert(ping.type == MUX_PING);
	struct mux_frame window = next_frame();
	assert(window.type == MUX_WINDOW && window.stream == 0 && window.window.more == MUX_SESSION_WINDOW);
	assert(next_frame().type == MUX_N_TYPES);
}

static void accept_stream(struct mux_stream *stream, uint32_t id)
{
	const struct mux_frame open = { .stream = id, .type = MUX_OPEN, .open = { 3, endpoint_from_v4(1, 2) } };
	struct mux_event event;

	assert(receive(&open, &event) == 0 && event.type == MUX_EV_OPENED);
	mux_fsm_accept(&mux, stream, NOW);
	assert(stream->port == 3 && stream->visitor.port == 2);
}

static struct mux_frame data(uint32_t id, size_t len)
{
	return (struct mux_frame){ .stream = id, .type = MUX_DATA, .data = { zeros, len } };
}

static int receive_bytes(uint32_t id, size_t len)
{
	struct mux_event event;

	for (; len > MUX_MAX_DATA; len -= MUX_MAX_DATA) {
		const struct mux_frame frame = data(id, MUX_MAX_DATA);
		int r = receive(&frame, &event);
		if (r != 0)
			return r;
	}
	const struct mux_frame frame = data(id, len);
	return receive(&frame, &event);
}

/* ---- windows ---- */

static void test_who_sends_more_than_a_streams_window_is_closed(void)
{
	struct mux_stream stream;

	begin();
	accept_stream(&stream, 2);
	assert(receive_bytes(2, MUX_STREAM_WINDOW) == 0);
	assert(receive_bytes(2, 1) == MUX_OVERRUN);
}

static void test_who_sends_more_than_the_window_of_all_is_closed(void)
{
	struct mux_stream streams[4];

	begin();
	for (uint32_t i = 0; i < 4; i++) {
		accept_stream(&streams[i], 2 * i + 2);
		assert(receive_bytes(2 * i + 2, MUX_STREAM_WINDOW) == 0);
	}
	assert(mux.may_receive == 0 && mux.held == MUX_SESSION_WINDOW);
	mux_fsm_consumed(&mux, &streams[0], MUX_STREAM_WINDOW, NOW);
	streams[0].may_receive = 1; /* as if its own window had been told, and that of all had not */
	streams[0].unreported--;
	assert(receive_bytes(2, 1) == MUX_OVERRUN);
}

static void test_who_holds_much_is_let_send_no_more_while_most_memory_is_held(void)
{
	struct mux_settings agents = settings(true);
	struct mux_stream streams[4];

	agents.session_window = MUX_SESSION_WINDOW;
	mux_fsm_init(&mux, &agents, NOW);
	assert(next_frame().type == MUX_PING);
	for (uint32_t i = 0; i < 4; i++) {
		accept_stream(&streams[i], 2 * i + 2);
		assert(receive_bytes(2 * i + 2, MUX_STREAM_WINDOW) == 0);
	}
	mux_fsm_consumed(&mux, &streams[0], 10, NOW);
	struct mux_frame window = next_frame();
	assert(window.type == MUX_WINDOW && window.stream == 0 && window.window.more == 10); /* for anyone else */
	assert(next_frame().type == MUX_N_TYPES);
	mux_fsm_consumed(&mux, &streams[0], MUX_STREAM_WINDOW - 10, NOW); /* it holds nothing: it may go on */
	window = next_frame();
	assert(window.type == MUX_WINDOW && window.stream == 0);
	window = next_frame();
	assert(window.type == MUX_WINDOW && window.stream == 2 && window.window.more == MUX_STREAM_WINDOW);
	assert(next_frame().type == MUX_N_TYPES);
}

static void test_windows_are_told_when_half_was_taken_and_not_before(void)
{
	struct mux_stream stream;

	begin();
	skip_first_frames();
	accept_stream(&stream, 2);
	assert(receive_bytes(2, MUX_STREAM_WINDOW / 2) == 0);
	assert(next_frame().type == MUX_N_TYPES); /* nothing was taken */
	mux_fsm_consumed(&mux, &stream, MUX_STREAM_WINDOW / 2 - 1, NOW);
	assert(next_frame().type == MUX_N_TYPES);
	mux_fsm_consumed(&mux, &stream, 1, NOW);
	const struct mux_frame window = next_frame();
	assert(window.type == MUX_WINDOW && window.stream == 2 && window.window.more == MUX_STREAM_WINDOW / 2);
	assert(next_frame().type == MUX_N_TYPES);
}

static void test_of_a_window_mostly_held_the_rest_goes_round(void)
{
	struct mux_stream stream;

	begin();
	skip_first_frames();
	accept_stream(&stream, 2);
	assert(receive_bytes(2, MUX_STREAM_WINDOW) == 0);
	mux_fsm_consumed(&mux, &stream, 10, NOW); /* the other side can send nothing until it is told of them */
	const struct mux_frame window = next_frame();
	assert(window.type == MUX_WINDOW && window.stream == 2 && window.window.more == 10);
}

static void test_what_came_for_who_is_gone_is_given_back(void)
{
	struct mux_stream stream;

	begin();
	skip_first_frames();
	accept_stream(&stream, 2);
	assert(receive_bytes(2, 1000) == 0);
	mux_fsm_close(&mux, &stream, MUX_STALLED);
	assert(mux.held == 0);
	const struct mux_frame reset = next_frame();
	assert(reset.type == MUX_RESET && reset.stream == 2 && reset.reset.reason == MUX_STALLED);
	assert(receive_bytes(2, MUX_STREAM_WINDOW - 1000) == 0 && mux.held == 0 && mux.counters.late > 0);
	assert(mux.unreported == MUX_STREAM_WINDOW);
}

static void test_no_more_is_sent_than_may_be(void)
{
	struct mux_stream stream;
	struct mux_send send;
	size_t total = 0;

	begin();
	skip_first_frames();
	accept_stream(&stream, 2);
	mux_fsm_readable(&mux, &stream);
	for (;;) {
		mux_fsm_next(&mux, MUX_MAX_FRAME, NOW, &send);
		if (send.type == MUX_SEND_NOTHING)
			break;
		assert(send.type == MUX_SEND_STREAM && send.max <= MUX_MAX_DATA);
		total += send.max;
		mux_fsm_sent(&mux, send.stream, send.max, MUX_HAS_MORE);
	}
	assert(total == MUX_STREAM_WINDOW);
	const struct mux_frame more = { .stream = 2, .type = MUX_WINDOW, .window.more = 5 };
	struct mux_event event;
	assert(receive(&more, &event) == 0);
	mux_fsm_next(&mux, MUX_MAX_FRAME, NOW, &send);
	assert(send.type == MUX_SEND_STREAM && send.max == 5);
}

static void test_windows_of_more_than_31_bits_close(void)
{
	const struct mux_frame more = { .stream = 0, .type = MUX_WINDOW, .window.more = MUX_MAX_WINDOW };
	struct mux_event event;

	begin();
	assert(receive(&more, &event) == MUX_WINDOW_OVER);
}

/* ---- opening ---- */

static void require_next_id(uint32_t next, uint32_t below)
{
	struct mux_event event;

	for (uint32_t id = 1; id < below; id++) {
		const struct mux_frame open = { .stream = id, .type = MUX_OPEN };
		assert(id == next || receive(&open, &event) == MUX_BAD_ID);
	}
}

static void test_ids_are_the_other_sides_and_each_the_next(void)
{
	struct mux_stream streams[2];

	begin();
	require_next_id(2, 2000);
	accept_stream(&streams[0], 2);
	require_next_id(4, 2000);
	accept_stream(&streams[1], 4);
	require_next_id(6, 2000);
}

static void test_the_other_sides_ids_do_not_begin_again(void)
{
	const struct mux_frame again = { .stream = 1, .type = MUX_OPEN };
	struct mux_settings servers = settings(false);
	struct mux_event event;

	mux_fsm_init(&mux, &servers, NOW);
	mux.last_theirs = UINT32_MAX;
	assert(receive(&again, &event) == MUX_BAD_ID);
}

/* As many streams of ours as there may be, which all go out with ids of their own. How many. */
static uint32_t open_all(uint32_t last)
{
	static struct mux_stream streams[MUX_MAX_STREAMS];
	struct mux_settings servers = settings(false);
	const struct endpoint visitor = { 0 };
	uint32_t n = 0;

	servers.max_ours = MUX_MAX_STREAMS;
	mux_fsm_init(&mux, &servers, NOW);
	skip_first_frames();
	mux.last_ours = last;
	while (n < MUX_MAX_STREAMS && mux_fsm_open(&mux, &streams[n], 0, &visitor, NOW))
		n++;
	for (struct mux_frame open; (open = next_frame()).type == MUX_OPEN; last = open.stream)
		assert(open.stream == last + 2 && open.stream > last);
	return n;
}

/* The connection ends then, so that another one may begin. */
static void test_without_ids_there_are_no_streams_and_the_connection_ends(void)
{
	const uint32_t enough = UINT32_MAX - 2 * MUX_MAX_STREAMS - 3;
	struct mux_event event;

	assert(open_all(enough - 2) == MUX_MAX_STREAMS);
	for (uint32_t last = enough + 2; last > enough; last += 2) {
		assert(open_all(last) == 0);
		mux_fsm_tick(&mux, NOW, &event);
		assert(event.type == MUX_EV_DEAD);
	}
}

static void test_a_stream_that_never_was_closes(void)
{
	begin();
	for (uint8_t type = MUX_DATA; type <= MUX_WINDOW; type++)
		for (uint32_t id = 1; id <= 2 && type != MUX_OPEN; id++) {
			struct mux_frame frame = { .stream = id, .type = type };
			struct mux_event event;
			if (type == MUX_DATA)
				frame = data(id, 1);
			assert(receive(&frame, &event) == MUX_UNKNOWN);
		}
}

static void test_too_many_streams_are_refused_and_places_come_back(void)
{
	struct mux_stream streams[4];
	struct mux_event event;

	begin();
	skip_first_frames();
	for (uint32_t i = 0; i < 4; i++)
		accept_stream(&streams[i], 2 * i + 2);
	const struct mux_frame fifth = { .stream = 10, .type = MUX_OPEN };
	assert(receive(&fifth, &event) == 0 && event.type == MUX_EV_NONE && mux.counters.refused == 1);
	const struct mux_frame reset = next_frame();
	assert(reset.type == MUX_RESET && reset.stream == 10 && reset.reset.reason == MUX_REFUSED);
	mux_fsm_close(&mux, &streams[0], MUX_CLOSED);
	assert(next_frame().type == MUX_RESET);
	accept_stream(&streams[0], 12);
}

/* The end of one way, and of the other; a byte is held. */
static void end_both_ways(struct mux_stream *stream, uint32_t id)
{
	const struct mux_frame ends = { .stream = id, .type = MUX_END };
	struct mux_event event;
	struct mux_send send;

	assert(receive_bytes(id, 1) == 0);
	mux_fsm_readable(&mux, stream);
	mux_fsm_next(&mux, MUX_MAX_FRAME, NOW, &send);
	assert(send.type == MUX_SEND_STREAM && send.stream == stream);
	mux_fsm_sent(&mux, stream, 0, MUX_AT_END);
	assert(next_frame().type == MUX_END);
	assert(receive(&ends, &event) == 0 && event.type == MUX_EV_ENDED && !mux_fsm_is_over(stream));
}

static void test_streams_that_are_over_but_held_take_twice_the_places_at_most(void)
{
	struct mux_settings agents = settings(true);
	struct mux_stream streams[8];
	struct mux_event event;

	agents.open_burst = 100;
	mux_fsm_init(&mux, &agents, NOW);
	skip_first_frames();
	for (uint32_t i = 0; i < 8; i++) {
		accept_stream(&streams[i], 2 * i + 2);
		end_both_ways(&streams[i], 2 * i + 2);
	}
	const struct mux_frame ninth = { .stream = 18, .type = MUX_OPEN };
	assert(receive(&ninth, &event) == 0 && event.type == MUX_EV_NONE && mux.counters.refused == 1);
	assert(next_frame().type == MUX_RESET);
	mux_fsm_consumed(&mux, &streams[3], 1, NOW);
	mux_fsm_close(&mux, &streams[3], MUX_CLOSED);
	accept_stream(&streams[3], 20);
}

static void test_places_are_taken_from_who_is_over_and_takes_nothing(void)
{
	struct mux_stream streams[5], waiting;
	struct mux_event event;
	uint32_t n = 0;

	begin();
	skip_first_frames();
	for (uint32_t i = 0; i < 5; i++) {
		accept_stream(&streams[i], 2 * i + 2);
		end_both_ways(&streams[i], 2 * i + 2);
	}
	accept_stream(&waiting, 12); /* neither is who is not over */
	assert(receive_bytes(12, 1) == 0);
	mux_fsm_tick(&mux, NOW + 9999999, &event);
	assert(event.type == MUX_EV_NONE);
	for (;; n++) {
		mux_fsm_tick(&mux, NOW + 10000000, &event);
		if (event.type == MUX_EV_NONE)
			break;
		assert(event.type == MUX_EV_STALLED && event.stream != &waiting);
		mux_fsm_close(&mux, event.stream, MUX_STALLED);
	}
	assert(n == 2); /* as many as are there now may linger */
}

static void test_ours_are_counted_until_they_are_closed(void)
{
	const struct endpoint visitor = { 0 };
	struct mux_stream streams[5];

	begin();
	skip_first_frames();
	for (uint32_t i = 0; i < 4; i++) {
		assert(mux_fsm_open(&mux, &streams[i], 0, &visitor, NOW) && next_frame().type == MUX_OPEN);
		end_both_ways(&streams[i], 2 * i + 1);
	}
	assert(!mux_fsm_open(&mux, &streams[4], 0, &visitor, NOW));
	mux_fsm_close(&mux, &streams[0], MUX_CLOSED);
	assert(mux_fsm_open(&mux, &streams[4], 0, &visitor, NOW));
}

static void test_streams_opened_too_fast_are_refused(void)
{
	struct mux_stream stream;
	struct mux_event event;

	begin();
	for (uint32_t i = 0; i < 8; i++) {
		accept_stream(&stream, 2 * i + 2);
		mux_fsm_close(&mux, &stream, MUX_CLOSED);
		while (next_frame().type != MUX_RESET)
			;
	}
	const struct mux_frame open = { .stream = 18, .type = MUX_OPEN };
	assert(receive(&open, &event) == 0 && event.type == MUX_EV_NONE && mux.counters.refused == 1);
}

static void test_who_opens_and_never_reads_what_is_refused_is_closed(void)
{
	struct mux_event event;
	uint32_t n = 0;
	int r = 0;

	begin();
	for (; r == 0; n++) {
		const struct mux_frame open = { .stream = 2 * n + 2, .type = MUX_OPEN };
		r = receive(&open, &event);
		if (event.type == MUX_EV_OPENED)
			mux_fsm_refuse(&mux, MUX_REFUSED);
	}
	assert(r == MUX_FLOOD && n == MUX_MAX_STREAMS + 1);
}

static void test_ours_have_a_bound_too_and_are_told_in_their_order(void)
{
	struct mux_stream streams[5];
	const struct endpoint visitor = endpoint_from_v4(1, 1);

	begin();
	skip_first_frames();
	for (uint32_t i = 0; i < 4; i++)
		assert(mux_fsm_open(&mux, &streams[i], 0, &visitor, NOW));
	assert(!mux_fsm_open(&mux, &streams[4], 0, &visitor, NOW));
	mux_fsm_close(&mux, &streams[1], MUX_CLOSED); /* of which the other side never hears */
	for (uint32_t i = 0; i < 3; i++) {
		const struct mux_frame open = next_frame();
		assert(open.type == MUX_OPEN && open.stream == 2 * i + 1);
	}
	assert(next_frame().type == MUX_N_TYPES);
}

/* ---- ends ---- */

static void test_data_behind_an_end_closes(void)
{
	const struct mux_frame ends = { .stream = 2, .type = MUX_END };
	struct mux_stream stream;
	struct mux_event event;

	begin();
	accept_stream(&stream, 2);
	assert(receive(&ends, &event) == 0 && event.type == MUX_EV_ENDED);
	assert(receive_bytes(2, 1) == MUX_AFTER_END);
	assert(receive(&ends, &event) == MUX_AFTER_END);
}

static void test_a_stream_is_over_when_both_have_ended_and_all_was_taken(void)
{
	const struct mux_frame ends = { .stream = 2, .type = MUX_END };
	struct mux_stream stream;
	struct mux_event event;
	struct mux_send send;

	begin();
	skip_first_frames();
	accept_stream(&stream, 2);
	assert(receive_bytes(2, 7) == 0 && receive(&ends, &event) == 0);
	mux_fsm_readable(&mux, &stream);
	mux_fsm_next(&mux, MUX_MAX_FRAME, NOW, &send);
	assert(send.type == MUX_SEND_STREAM);
	mux_fsm_sent(&mux, &stream, 3, MUX_AT_END);
	const struct mux_frame end = next_frame();
	assert(end.type == MUX_END && end.stream == 2 && mux.n_theirs == 0);
	assert(!mux_fsm_is_over(&stream));
	mux_fsm_consumed(&mux, &stream, 7, NOW);
	assert(mux_fsm_is_over(&stream));
	mux_fsm_close(&mux, &stream, MUX_CLOSED);
	assert(next_frame().type == MUX_N_TYPES); /* no reset */
}

static void test_what_crosses_a_reset_comes_late_and_is_forgotten(void)
{
	struct mux_stream stream;
	struct mux_event event;

	begin();
	accept_stream(&stream, 2);
	mux_fsm_close(&mux, &stream, MUX_CLOSED);
	for (uint8_t type = MUX_DATA; type <= MUX_WINDOW; type++) {
		struct mux_frame frame = { .stream = 2, .type = type };
		if (type == MUX_OPEN)
			continue;
		if (type == MUX_DATA)
			frame = data(2, 1);
		if (type == MUX_WINDOW)
			frame.window.more = 1;
		assert(receive(&frame, &event) == 0 && event.type == MUX_EV_NONE);
	}
	assert(mux.counters.late == 4);
}

/* ---- the connection ---- */

static void test_a_ping_is_answered_and_one_at_a_time(void)
{
	const struct mux_frame ping = { .type = MUX_PING, .ping.token = 77 }, no_pong = { .type = MUX_PONG, .ping.token = 9 };
	struct mux_event event;

	begin();
	assert(receive(&ping, &event) == 0);
	assert(receive(&ping, &event) == MUX_BAD_PONG);
	const struct mux_frame pong = next_frame();
	assert(pong.type == MUX_PONG && pong.ping.token == 77);
	assert(receive(&ping, &event) == 0);
	assert(receive(&no_pong, &event) == MUX_BAD_PONG);
}

static void test_who_is_not_heard_is_asked_and_then_dead(void)
{
	struct mux_event event;

	begin();
	skip_first_frames();
	const struct mux_frame pong = { .type = MUX_PONG, .ping.token = mux.ping_token };
	assert(receive(&pong, &event) == 0);
	mux_fsm_tick(&mux, NOW + 14999999, &event);
	assert(event.type == MUX_EV_NONE && next_frame().type == MUX_N_TYPES);
	mux_fsm_tick(&mux, NOW + 15000000, &event);
	assert(event.type == MUX_EV_NONE && next_frame().type == MUX_PING);
	mux_fsm_tick(&mux, NOW + 44999999, &event);
	assert(event.type == MUX_EV_NONE);
	mux_fsm_tick(&mux, NOW + 45000000, &event);
	assert(event.type == MUX_EV_DEAD);
}

static void test_who_is_heard_and_never_answers_is_dead_too(void)
{
	const struct mux_frame skipped = { .type = 200 };
	struct mux_event event;

	begin();
	skip_first_frames();
	for (uint64_t at_us = NOW; at_us < NOW + 90000000; at_us += 1000000) {
		assert(receive_at(&skipped, at_us, &event) == 0);
		mux_fsm_tick(&mux, at_us, &event);
		assert(event.type == MUX_EV_NONE);
	}
	mux_fsm_tick(&mux, NOW + 90000000, &event);
	assert(event.type == MUX_EV_DEAD);
}

static void test_who_is_heard_and_takes_no_question_is_dead_too(void)
{
	const struct mux_frame skipped = { .type = 200 };
	struct mux_event event;

	begin(); /* nothing is ever asked for: the socket is full */
	assert(receive_at(&skipped, NOW + 89999999, &event) == 0);
	mux_fsm_tick(&mux, NOW + 89999999, &event);
	assert(event.type == MUX_EV_NONE);
	mux_fsm_tick(&mux, NOW + 90000000, &event);
	assert(event.type == MUX_EV_DEAD);
}

/* ---- memory ---- */

#define N_STREAMS 32

static struct mux_stream many[N_STREAMS];

/* Streams of which the first n_small hold 100 bytes, and the others all they may; memory is at least three quarters full. */
static void hold(uint32_t n, uint32_t n_small)
{
	struct mux_settings agents = settings(true);

	agents.max_theirs = agents.open_burst = N_STREAMS;
	agents.session_window = 16 * MUX_STREAM_WINDOW;
	mux_fsm_init(&mux, &agents, NOW);
	for (uint32_t i = 0; i < n; i++) {
		const size_t total = i < n_small ? 100 : MUX_STREAM_WINDOW;
		accept_stream(&many[i], 2 * i + 2);
		for (size_t left = total, len; left > 0; left -= len) {
			struct mux_send send;
			mux_fsm_next(&mux, MUX_MAX_FRAME, NOW, &send);
			len = left < 8192 ? left : 8192;
			assert(receive_bytes(2 * i + 2, len) == 0);
		}
	}
	assert(mux.held >= agents.session_window / 4 * 3);
}

static uint32_t reset_stalled(uint64_t now_us, uint32_t n_small, uint32_t *ret_small)
{
	struct mux_event event;
	uint32_t n = 0;

	*ret_small = 0;
	mux.heard_us = mux.pinged_us = now_us; /* of which this is not */
	mux.awaits_pong = false;
	for (;; n++) {
		mux_fsm_tick(&mux, now_us, &event);
		if (event.type != MUX_EV_STALLED)
			return n;
		*ret_small += event.stream < &many[n_small] ? 1 : 0;
		mux_fsm_close(&mux, event.stream, MUX_STALLED);
		mux_fsm_check(&mux);
	}
}

static void test_of_those_that_take_nothing_who_holds_most_is_reset(void)
{
	uint32_t n_small;

	hold(30, 16);
	for (uint32_t i = 0; i < 16; i++)
		many[i].taken_us--; /* they have stalled for longer */
	assert(reset_stalled(NOW + 9999998, 16, &n_small) == 0);
	assert(reset_stalled(NOW + 10000000, 16, &n_small) == 3 && n_small == 0);
}

static void test_a_byte_now_and_then_is_nothing(void)
{
	uint32_t n = 0, n_small;

	hold(16, 0);
	for (uint64_t at_us = NOW; n == 0 && at_us < NOW + 60000000; at_us += 1000000) {
		for (uint32_t i = 0; i < 16; i++)
			mux_fsm_consumed(&mux, &many[i], 1, at_us);
		n = reset_stalled(at_us, 0, &n_small);
	}
	assert(n == 4 && mux.held < 12 * MUX_STREAM_WINDOW);
}

static void test_who_takes_slowly_is_let_be(void)
{
	uint32_t n_small;

	hold(16, 0);
	for (uint64_t at_us = NOW; mux.held > 0; at_us += 1000000) {
		for (uint32_t i = 0; i < 16; i++)
			mux_fsm_consumed(&mux, &many[i], many[i].held < 2048 ? many[i].held : 2048, at_us);
		assert(reset_stalled(at_us, 0, &n_small) == 0);
	}
}

static void expect_idle(struct mux_stream *stream, uint64_t at_us)
{
	struct mux_event event;

	mux.heard_us = mux.pinged_us = at_us - 1; /* the connection lives */
	mux_fsm_tick(&mux, at_us - 1, &event);
	assert(event.type == MUX_EV_NONE);
	mux_fsm_tick(&mux, at_us, &event);
	assert(event.type == MUX_EV_IDLE && event.stream == stream);
}

static void begin_with_limits(struct mux_stream *stream)
{
	struct mux_settings agents = settings(true);

	agents.idle_ms = 3600000;
	agents.half_closed_ms = 120000;
	mux_fsm_init(&mux, &agents, NOW);
	skip_first_frames();
	accept_stream(stream, 2);
}

static void test_a_stream_that_moves_nothing_is_ended(void)
{
	const uint64_t hour_us = 3600000000;
	struct mux_frame some = data(2, 10);
	struct mux_stream stream;
	struct mux_event event;
	struct mux_send send;

	begin_with_limits(&stream);
	expect_idle(&stream, NOW + hour_us);
	assert(receive_at(&some, NOW + 1, &event) == 0); /* what comes, what is taken and what is sent moves it */
	expect_idle(&stream, NOW + 1 + hour_us);
	mux_fsm_consumed(&mux, &stream, 10, NOW + 2);
	expect_idle(&stream, NOW + 2 + hour_us);
	mux_fsm_readable(&mux, &stream);
	mux_fsm_next(&mux, MUX_MAX_FRAME, NOW + 3, &send);
	assert(send.type == MUX_SEND_STREAM);
	mux_fsm_sent(&mux, &stream, 10, MUX_DRAINED);
	expect_idle(&stream, NOW + 3 + hour_us);
	assert(mux.counters.idle == 0);
	mux_fsm_close(&mux, &stream, MUX_IDLE);
	assert(mux.counters.idle == 1);
	const struct mux_frame reset = next_frame();
	assert(reset.type == MUX_RESET && reset.stream == 2 && reset.reset.reason == MUX_IDLE);
}

static void test_who_was_told_the_end_ends_a_silent_stream_sooner(void)
{
	const struct mux_frame end = { .stream = 2, .type = MUX_END };
	const uint64_t two_minutes_us = 120000000;
	struct mux_frame some = data(2, 10);
	struct mux_stream stream;
	struct mux_event event;

	begin_with_limits(&stream);
	assert(receive_at(&some, NOW, &event) == 0);
	assert(receive_at(&end, NOW + two_minutes_us * 2, &event) == 0 && event.type == MUX_EV_ENDED);
	expect_idle(&stream, NOW + two_minutes_us * 3);
	mux_fsm_consumed(&mux, &stream, 5, NOW + two_minutes_us * 3); /* its socket takes what is held, slowly */
	expect_idle(&stream, NOW + two_minutes_us * 4);
	mux_fsm_moved(&stream, NOW + two_minutes_us * 4); /* or gives on what it has taken */
	expect_idle(&stream, NOW + two_minutes_us * 5);
}

static void test_who_has_only_ended_itself_lets_the_other_side_take_what_is_held(void)
{
	const uint64_t hour_us = 3600000000;
	struct mux_frame some = data(2, 10);
	struct mux_stream stream;
	struct mux_event event;
	struct mux_send send;

	begin_with_limits(&stream);
	mux_fsm_readable(&mux, &stream);
	mux_fsm_next(&mux, MUX_MAX_FRAME, NOW, &send);
	mux_fsm_sent(&mux, &stream, 10000, MUX_AT_END);
	assert(next_frame().type == MUX_END);
	expect_idle(&stream, NOW + hour_us); /* how that is taken is not seen here */
	assert(receive_at(&some, NOW + 7, &event) == 0);
	expect_idle(&stream, NOW + 7 + hour_us);
}

static void test_who_waits_for_a_window_behind_the_others_end_is_let_wait(void)
{
	const struct mux_frame end = { .stream = 2, .type = MUX_END };
	const struct mux_frame window = { .stream = 2, .type = MUX_WINDOW, .window.more = 10 };
	const uint64_t hour_us = 3600000000, two_minutes_us = 120000000;
	struct mux_stream stream;
	struct mux_event event;
	struct mux_send send;

	begin_with_limits(&stream);
	assert(receive_at(&end, NOW, &event) == 0);
	mux_fsm_readable(&mux, &stream);
	for (;;) {
		mux_fsm_next(&mux, MUX_MAX_FRAME, NOW, &send);
		if (send.type == MUX_SEND_NOTHING)
			break;
		mux_fsm_sent(&mux, &stream, send.max, MUX_HAS_MORE);
	}
	assert(stream.may_send == 0);
	expect_idle(&stream, NOW + hour_us);
	assert(receive_at(&window, NOW + hour_us / 2, &event) == 0); /* what was sent before was taken */
	expect_idle(&stream, NOW + hour_us / 2 + hour_us);
	mux_fsm_next(&mux, MUX_MAX_FRAME, NOW + hour_us, &send);
	assert(send.type == MUX_SEND_STREAM && send.max == 10);
	mux_fsm_sent(&mux, &stream, 10, MUX_DRAINED); /* now its source is waited for */
	expect_idle(&stream, NOW + hour_us + two_minutes_us);
}

static void test_who_leaves_is_sent_no_new_streams(void)
{
	const struct mux_frame leaves = { .type = MUX_GOAWAY, .goaway = { MUX_REVOKED, "", 0 } };
	const struct endpoint visitor = endpoint_from_v4(1, 1);
	struct mux_stream stream;
	struct mux_event event;

	begin();
	assert(receive(&leaves, &event) == 0 && event.type == MUX_EV_LEAVES && event.reason == MUX_REVOKED);
	assert(!mux_fsm_open(&mux, &stream, 0, &visitor, NOW));
}

int main(void)
{
	test_who_sends_more_than_a_streams_window_is_closed();
	test_who_sends_more_than_the_window_of_all_is_closed();
	test_who_holds_much_is_let_send_no_more_while_most_memory_is_held();
	test_windows_are_told_when_half_was_taken_and_not_before();
	test_of_a_window_mostly_held_the_rest_goes_round();
	test_what_came_for_who_is_gone_is_given_back();
	test_no_more_is_sent_than_may_be();
	test_windows_of_more_than_31_bits_close();
	test_ids_are_the_other_sides_and_each_the_next();
	test_the_other_sides_ids_do_not_begin_again();
	test_without_ids_there_are_no_streams_and_the_connection_ends();
	test_a_stream_that_never_was_closes();
	test_too_many_streams_are_refused_and_places_come_back();
	test_streams_that_are_over_but_held_take_twice_the_places_at_most();
	test_places_are_taken_from_who_is_over_and_takes_nothing();
	test_ours_are_counted_until_they_are_closed();
	test_streams_opened_too_fast_are_refused();
	test_who_opens_and_never_reads_what_is_refused_is_closed();
	test_ours_have_a_bound_too_and_are_told_in_their_order();
	test_data_behind_an_end_closes();
	test_a_stream_is_over_when_both_have_ended_and_all_was_taken();
	test_what_crosses_a_reset_comes_late_and_is_forgotten();
	test_a_ping_is_answered_and_one_at_a_time();
	test_who_is_not_heard_is_asked_and_then_dead();
	test_who_is_heard_and_never_answers_is_dead_too();
	test_who_is_heard_and_takes_no_question_is_dead_too();
	test_of_those_that_take_nothing_who_holds_most_is_reset();
	test_a_byte_now_and_then_is_nothing();
	test_who_takes_slowly_is_let_be();
	test_a_stream_that_moves_nothing_is_ended();
	test_who_was_told_the_end_ends_a_silent_stream_sooner();
	test_who_has_only_ended_itself_lets_the_other_side_take_what_is_held();
	test_who_waits_for_a_window_behind_the_others_end_is_let_wait();
	test_who_leaves_is_sent_no_new_streams();
	return 0;
}
