/*
 * Two multiplexers on a link of a given speed and delay, on virtual time:
 *
 *   visitor ══ stream ▸ server ══ link ══ agent ▸ stream ══ target      each takes at a speed of its own, or nothing
 *
 * What must hold, whatever the streams do:
 *   - what arrives is what was sent, in its order; an end comes behind the last byte, and the other way goes on;
 *   - who takes nothing slows nobody; who is fast get the same share; nothing waits for who is gone;
 *   - no more is held than the window of all, and no few have most of it;
 *   - a long way is filled;
 *   - when all is over, nothing is left.
 *
 * usage: sim_mux [N_SEEDS [FIRST_SEED]]. A failure prints its seed: run that one alone.
 */
#include "relay/diglett/mux_fsm.h"

#include <stdio.h>
#include <stdlib.h>

#define MAX_STREAMS  64
#define MAX_FLIGHTS  4096
#define MESSAGE_MAX  32768
#define TURN_US	     100
#define SECOND_US    1000000
#define MEGABYTE     1048576
#define FOREVER	     UINT64_MAX
#define WINDOW	     (16 * MEGABYTE)
#define SPEED	     (25 * MEGABYTE) /* of the link, bytes a second */
#define ALL_SPEED    UINT64_MAX

struct side;

/* One end of a stream: a socket that has `total` bytes to send, and takes `speed` bytes a second. */
struct end {
	struct mux_stream stream;
	struct side *side;
	bool is_used, got_end, got_reset;
	uint8_t number; /* of the stream, the same at both ends */
	uint64_t total, fetched, speed, came, taken, may_take;
};

struct flight {
	uint64_t arrives_us;
	size_t len;
	uint8_t *bytes;
};

struct side {
	struct mux_fsm mux;
	struct side *other;
	struct end ends[MAX_STREAMS];
	struct flight flights[MAX_FLIGHTS]; /* to the other, from first_flight on, round */
	uint32_t first_flight, n_flights;
	uint64_t link_free_us, max_held;
};

static struct world {
	uint64_t seed, random, now_us, link_speed, delay_us; /* bytes a second */
	struct side server, agent;
	uint64_t target_total, target_speed; /* of the targets that the agent opens */
	bool is_random;
} world;

static void require(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "seed %llu at %.4f s: %s\n", (unsigned long long)world.seed, (double)world.now_us / SECOND_US, what);
	abort();
}

static uint64_t draw(uint64_t below)
{
	world.random ^= world.random << 13;
	world.random ^= world.random >> 7;
	world.random ^= world.random << 17;
	return world.random % below;
}

static uint8_t byte_at(const struct end *end, bool from_server, uint64_t at)
{
	return (uint8_t)(at * 31 + end->number * 7u + (from_server ? 1 : 0));
}

/* ---- streams ---- */

static struct end *free_end(struct side *side)
{
	for (uint32_t i = 0; i < MAX_STREAMS; i++)
		if (!side->ends[i].is_used)
			return &side->ends[i];
	return NULL;
}

static struct end *new_end(struct side *side, uint8_t number, uint64_t total, uint64_t speed)
{
	struct end *end = free_end(side);

	require(end, "no place in the test");
	*end = (struct end){ .side = side, .is_used = true, .number = number, .total = total, .speed = speed };
	end->stream.owner = end;
	return end;
}

static struct end *visit(uint8_t number, uint64_t total, uint64_t speed)
{
	const struct endpoint visitor = endpoint_from_v4(0xc0000201, (uint16_t)(1000 + number));
	struct end *end = new_end(&world.server, number, total, speed);

	require(mux_fsm_open(&world.server.mux, &end->stream, number, &visitor, world.now_us), "cannot open");
	mux_fsm_readable(&world.server.mux, &end->stream);
	return end;
}

static void close_end(struct end *end, uint8_t reason)
{
	mux_fsm_close(&end->side->mux, &end->stream, reason);
	end->is_used = false;
}

static void take(struct end *end)
{
	const uint64_t held = end->came - end->taken;
	const uint64_t more = end->speed == ALL_SPEED ? held : end->speed * TURN_US / SECOND_US;

	end->may_take = end->speed == ALL_SPEED ? held : end->may_take + more < 65536 ? end->may_take + more : 65536;
	const uint64_t n = held < end->may_take ? held : end->may_take;
	if (n > 0) {
		mux_fsm_consumed(&end->side->mux, &end->stream, n, world.now_us);
		end->taken += n;
		end->may_take -= n;
	}
	if (mux_fsm_is_over(&end->stream)) {
		require(end->got_end && end->fetched == end->total, "over before its end");
		close_end(end, MUX_CLOSED);
	}
}

/* ---- the link ---- */

static size_t write_message(struct side *side, uint8_t *bytes)
{
	struct wire_writer w = wire_writer(bytes, MESSAGE_MAX);
	struct mux_send send;

	for (;;) {
		mux_fsm_next(&side->mux, (size_t)(w.end - w.at), world.now_us, &send);
		if (send.type == MUX_SEND_NOTHING)
			return wire_written(&w);
		if (send.type == MUX_SEND_FRAME) {
			mux_frame_write(&w, &send.frame);
			continue;
		}
		struct end *end = send.stream->owner;
		const uint64_t left = end->total - end->fetched;
		const size_t n = left < send.max ? (size_t)left : send.max;
		if (n > 0) {
			mux_data_head(send.stream->id, n, wire_reserve(&w, MUX_HEAD_LEN));
			uint8_t *to = wire_reserve(&w, n);
			for (size_t i = 0; i < n; i++)
				to[i] = byte_at(end, side == &world.server, end->fetched + i);
		}
		end->fetched += n;
		mux_fsm_sent(&side->mux, send.stream, n, end->fetched == end->total ? MUX_AT_END : MUX_HAS_MORE);
	}
}

static void send_messages(struct side *side)
{
	while (side->n_flights < MAX_FLIGHTS && side->link_free_us <= world.now_us + TURN_US) {
		uint8_t bytes[MESSAGE_MAX];
		const size_t len = write_message(side, bytes);
		if (len == 0)
			return;
		if (side->link_free_us < world.now_us)
			side->link_free_us = world.now_us;
		side->link_free_us += len * SECOND_US / world.link_speed;
		struct flight *flight = &side->flights[(side->first_flight + side->n_flights++) % MAX_FLIGHTS];
		*flight = (struct flight){ side->link_free_us + world.delay_us, len, malloc(len) };
		memcpy(flight->bytes, bytes, len);
	}
}

static void on_came(struct end *end, const uint8_t *bytes, size_t len)
{
	const bool from_server = end->side == &world.agent;

	for (size_t i = 0; i < len; i++)
		if (bytes[i] != byte_at(end, from_server, end->came + i))
			require(false, "other bytes than were sent");
	end->came += len;
	if (end->side->mux.held > end->side->max_held)
		end->side->max_held = end->side->mux.held;
}

static void on_event(struct side *side, const struct mux_event *event)
{
	struct end *end = event->stream ? event->stream->owner : NULL;

	switch (event->type) {
	case MUX_EV_OPENED:
		if (world.is_random && draw(20) == 0) {
			mux_fsm_refuse(&side->mux, MUX_UNREACHABLE);
			break;
		}
		end = new_end(side, (uint8_t)side->mux.offer.open.port, world.is_random ? draw(400000) : world.target_total,
			      world.is_random && draw(4) == 0 ? 100000 + draw(1000000) : world.target_speed);
		mux_fsm_accept(&side->mux, &end->stream, world.now_us);
		mux_fsm_readable(&side->mux, &end->stream);
		break;
	case MUX_EV_CAME:
		on_came(end, event->bytes, event->len);
		break;
	case MUX_EV_ENDED:
		end->got_end = true;
		break;
	case MUX_EV_RESET:
		end->got_reset = true;
		close_end(end, MUX_CLOSED);
		break;
	case MUX_EV_STALLED:
		close_end(end, MUX_STALLED);
		break;
	default:
		require(event->type == MUX_EV_NONE, "an event that nobody caused");
		break;
	}
}

static void receive_messages(struct side *from)
{
	while (from->n_flights > 0 && from->flights[from->first_flight].arrives_us <= world.now_us) {
		struct flight *flight = &from->flights[from->first_flight];
		struct wire_reader r = wire_reader(flight->bytes, flight->len);
		while (wire_left(&r) > 0) {
			struct mux_frame frame;
			struct mux_event event;
			require(mux_frame_read(&r, &frame), "a frame is not one");
			require(mux_fsm_receive(&from->other->mux, &frame, world.now_us, &event) == 0, "rules broken");
			on_event(from->other, &event);
		}
		free(flight->bytes);
		from->first_flight = (from->first_flight + 1) % MAX_FLIGHTS;
		from->n_flights--;
	}
}

static void turn_side(struct side *side)
{
	struct mux_event event;

	for (uint32_t i = 0; i < MAX_STREAMS; i++)
		if (side->ends[i].is_used)
			take(&side->ends[i]);
	if (world.now_us % SECOND_US == 0)
		do {
			mux_fsm_tick(&side->mux, world.now_us, &event);
			on_event(side, &event);
		} while (event.type != MUX_EV_NONE);
	if (world.now_us % 10000 == 0)
		mux_fsm_check(&side->mux);
	send_messages(side);
}

static void turn(void)
{
	world.now_us += TURN_US;
	receive_messages(&world.server);
	receive_messages(&world.agent);
	turn_side(&world.server);
	turn_side(&world.agent);
}

static void run_for(uint64_t us)
{
	for (const uint64_t end_us = world.now_us + us; world.now_us < end_us;)
		turn();
}

static bool all_is_over(void)
{
	return !mux_fsm_any(&world.server.mux) && !mux_fsm_any(&world.agent.mux) && world.server.n_flights == 0 &&
	       world.agent.n_flights == 0;
}

static void begin_with(uint64_t seed, uint64_t link_speed, uint64_t delay_us, uint32_t session_window)
{
	struct mux_settings settings = { .max_ours = MAX_STREAMS, .max_theirs = 0, .open_burst = MAX_STREAMS * 4,
					 .open_each_ms = 1, .session_window = session_window, .max_stream_window = WINDOW / 2,
					 .ping_ms = 15000, .dead_ms = 45000, .stalled_ms = 10000 };

	memset(&world, 0, sizeof(world));
	world.seed = seed;
	world.random = seed * 0x9e3779b97f4a7c15ull + 1;
	world.now_us = 1000 * (uint64_t)SECOND_US;
	world.link_speed = link_speed;
	world.delay_us = delay_us;
	world.target_speed = ALL_SPEED;
	world.server.other = &world.agent;
	world.agent.other = &world.server;
	mux_fsm_init(&world.server.mux, &settings, world.now_us);
	settings.is_initiator = true;
	settings.max_ours = 0;
	settings.max_theirs = MAX_STREAMS;
	mux_fsm_init(&world.agent.mux, &settings, world.now_us);
}

static void begin(uint64_t seed, uint64_t link_speed, uint64_t delay_us)
{
	begin_with(seed, link_speed, delay_us, WINDOW);
}

static void end(void)
{
	struct side *const sides[] = { &world.server, &world.agent };

	for (int i = 0; i < 2; i++) {
		require(sides[i]->max_held <= sides[i]->mux.settings.session_window, "more was held than let be sent");
		mux_fsm_check(&sides[i]->mux);
		for (struct mux_stream *stream; (stream = mux_fsm_any(&sides[i]->mux));)
			close_end(stream->owner, MUX_CLOSED);
	}
	run_for(SECOND_US);
	for (uint64_t n = 0; !all_is_over(); n++) {
		require(n < 1000000, "something is left");
		turn();
	}
	for (int i = 0; i < 2; i++)
		require(sides[i]->mux.n_ours == 0 && sides[i]->mux.n_theirs == 0 && sides[i]->mux.n_lingering == 0 &&
				sides[i]->mux.held == 0 && sides[i]->mux.grown == 0,
			"a place or memory is left");
}

/* ---- what must hold ---- */

/* Bytes that a visitor who takes all gets in a second, beside n that take nothing. */
static uint64_t measure_beside_stalled(uint8_t n)
{
	begin(1, SPEED, 1000);
	world.target_total = FOREVER / 2;
	for (uint8_t i = 0; i < n; i++)
		visit((uint8_t)(i + 1), 0, 0);
	struct end *fast = visit(0, 0, ALL_SPEED);
	run_for(SECOND_US / 2);
	const uint64_t before = fast->taken;
	run_for(SECOND_US);
	const uint64_t n_bytes = fast->taken - before;
	end();
	return n_bytes;
}

static void test_who_takes_nothing_slows_nobody(void)
{
	const uint64_t alone = measure_beside_stalled(0);

	require(alone > SPEED / 100 * 95, "alone it does not fill the link");
	require(measure_beside_stalled(1) > alone / 100 * 98, "one stalled visitor slows another");
	require(measure_beside_stalled(40) > alone / 100 * 95, "forty stalled visitors slow another");
}

static void test_who_is_fast_get_the_same_share(void)
{
	struct end *ends[8];

	begin(2, SPEED, 1000);
	world.target_total = FOREVER / 2;
	for (uint8_t i = 0; i < 8; i++)
		ends[i] = visit(i, 0, ALL_SPEED);
	run_for(2 * SECOND_US);
	for (uint8_t i = 0; i < 8; i++)
		require(ends[i]->taken > SPEED / 4 / 100 * 93 && ends[i]->taken < SPEED / 4 / 100 * 105, "an unfair share");
	end();
}

static void test_a_newcomer_waits_for_a_frame_of_each_other_at_most(void)
{
	begin(3, 10 * MEGABYTE, 1000);
	world.target_total = FOREVER / 2;
	for (uint8_t i = 0; i < 8; i++)
		visit(i, 0, ALL_SPEED);
	run_for(SECOND_US);
	const uint64_t since_us = world.now_us;
	struct end *late = visit(9, 100, ALL_SPEED);
	while (late->taken == 0)
		turn();
	/* There and back, nine frames, and what was on its way to the link before: two messages. */
	require(world.now_us - since_us < 2 * 1000 + (9 * 16384 + 2 * MESSAGE_MAX) / 10 + 5000, "a newcomer waits for long");
	end();
}

static void test_a_long_way_is_filled(void)
{
	begin(4, SPEED, 50000); /* 100 ms there and back: 2.5 MB under way */
	world.target_total = FOREVER / 2;
	struct end *visitor = visit(0, 0, ALL_SPEED);
	run_for(2 * SECOND_US);
	const uint64_t before = visitor->taken;
	run_for(SECOND_US);
	require(visitor->taken - before > SPEED / 100 * 95, "a long way is not filled");
	end();
}

static void test_an_end_is_of_one_way(void)
{
	begin(5, 10 * MEGABYTE, 1000);
	world.target_total = 3 * MEGABYTE;
	struct end *visitor = visit(0, 1000, 100000);
	run_for(10 * SECOND_US);
	require(visitor->is_used && visitor->stream.has_ended && visitor->taken > 900000, "an end ended both ways");
	visitor->speed = ALL_SPEED;
	run_for(SECOND_US);
	require(!visitor->is_used && visitor->taken == world.target_total, "not all arrived");
	end();
}

static void test_when_memory_is_needed_who_takes_nothing_is_reset_and_others_go_on(void)
{
	begin_with(6, SPEED, 5000, 2 * MEGABYTE);
	world.target_total = FOREVER / 2;
	for (uint8_t i = 0; i < 40; i++)
		visit((uint8_t)(i + 1), 0, 0);
	run_for(2 * SECOND_US);
	require(world.server.mux.held > 2 * MEGABYTE / 4 * 3, "the test holds too little");
	run_for(11 * SECOND_US);
	require(world.server.mux.counters.stalled >= 1, "nobody was reset");
	struct end *fast = visit(50, 0, ALL_SPEED);
	run_for(3 * SECOND_US);
	require(fast->taken > 10 * MEGABYTE, "others do not go on");
	end();
}

/* Who has read fast has a large window, and may hold as much when it reads slowly from then on. */
static void test_who_was_fast_and_is_slow_leaves_memory_for_others(uint64_t speed)
{
	struct end *slow[2];

	begin(7, 2 * SPEED, 50000);
	world.target_total = FOREVER / 2;
	for (uint8_t i = 0; i < 2; i++)
		slow[i] = visit((uint8_t)(i + 1), 0, ALL_SPEED);
	run_for(3 * SECOND_US);
	require(world.server.mux.grown > WINDOW / 4, "the windows have not grown");
	for (uint8_t i = 0; i < 2; i++)
		slow[i]->speed = speed;
	run_for(SECOND_US);
	struct end *fast = visit(9, 0, ALL_SPEED);
	run_for(3 * SECOND_US);
	require(world.server.mux.counters.stalled == 0, "one was reset");
	require(fast->taken > 20 * MEGABYTE, "two slow readers have all memory");
	end();
}

/* Streams come and go, half of them with a reset, some slow; what is not reset arrives whole: take() requires it. */
static void test_whatever_streams_do_all_arrives_and_nothing_is_left(uint64_t seed)
{
	begin(seed, 2 * MEGABYTE + draw(50) * MEGABYTE, 100 + draw(30) * 1000);
	world.is_random = true;
	for (uint32_t n = 0; n < 150; n++) {
		run_for(draw(10) * 1000);
		if (free_end(&world.server) && world.server.mux.n_ours < MAX_STREAMS - 8)
			visit((uint8_t)n, draw(300000), draw(4) == 0 ? 100000 + draw(1000000) : ALL_SPEED);
		struct side *const side = draw(2) == 0 ? &world.server : &world.agent;
		struct end *victim = &side->ends[draw(MAX_STREAMS)];
		if (draw(4) == 0 && victim->is_used)
			close_end(victim, MUX_CLOSED);
	}
	for (uint64_t n = 0; !all_is_over(); n++) {
		require(n < 600000, "not all arrives");
		turn();
	}
	require(world.server.mux.counters.opened > 50, "the test does nothing");
	end();
}

int main(int argc, char *argv[])
{
	const uint64_t n_seeds = argc > 1 ? strtoull(argv[1], NULL, 10) : 20;
	const uint64_t first = argc > 2 ? strtoull(argv[2], NULL, 10) : 100;

	test_who_takes_nothing_slows_nobody();
	test_who_is_fast_get_the_same_share();
	test_a_newcomer_waits_for_a_frame_of_each_other_at_most();
	test_a_long_way_is_filled();
	test_an_end_is_of_one_way();
	test_when_memory_is_needed_who_takes_nothing_is_reset_and_others_go_on();
	test_who_was_fast_and_is_slow_leaves_memory_for_others(0);
	test_who_was_fast_and_is_slow_leaves_memory_for_others(20000);
	for (uint64_t i = 0; i < n_seeds; i++)
		test_whatever_streams_do_all_arrives_and_nothing_is_left(first + i);
	return 0;
}
