/* The frames, byte by byte as docs/PROTOCOL-diglett.md has them, and those that are none. */
#include "relay/diglett/mux_wire.h"
#include "tests/unit/wireguard/hex.h"

#include <stdio.h>
#include <stdlib.h>

static const struct {
	struct mux_frame frame;
	const char *hex;
} frames[] = {
	{ { .stream = 2, .type = MUX_DATA, .data = { (const uint8_t *)"hi", 2 } }, "00000002000002" "6869" },
	{ { .stream = 4, .type = MUX_OPEN, .open = { 1, { { [10] = 0xff, 0xff, 192, 0, 2, 1 }, 40000, 0 } } },
	  "00000004010014" "0001" "00000000000000000000ffffc0000201" "9c40" },
	{ { .stream = 2, .type = MUX_END }, "00000002020000" },
	{ { .stream = 2, .type = MUX_RESET, .reset.reason = MUX_UNREACHABLE }, "00000002030001" "03" },
	{ { .stream = 2, .type = MUX_WINDOW, .window.more = 65536 }, "00000002040004" "00010000" },
	{ { .stream = 0, .type = MUX_WINDOW, .window.more = MUX_MAX_WINDOW }, "00000000040004" "7fffffff" },
	{ { .stream = 0, .type = MUX_PING, .ping.token = 1 }, "00000000050008" "0000000000000001" },
	{ { .stream = 0, .type = MUX_PONG, .ping.token = 1 }, "00000000060008" "0000000000000001" },
	{ { .stream = 0, .type = MUX_GOAWAY, .goaway = { MUX_REVOKED, "bye", 3 } }, "00000000070004" "06" "627965" },
};

static void test_each_frame_is_written_and_read_as_described(void)
{
	for (size_t i = 0; i < ARRAY_LEN(frames); i++) {
		uint8_t bytes[64], again[64];
		struct wire_writer w = wire_writer(bytes, sizeof(bytes));
		mux_frame_write(&w, &frames[i].frame);
		assert(is_hex(bytes, wire_written(&w), frames[i].hex));
		struct wire_reader r = wire_reader(bytes, wire_written(&w));
		struct mux_frame frame;
		assert(mux_frame_read(&r, &frame) && wire_done(&r));
		struct wire_writer w_again = wire_writer(again, sizeof(again));
		mux_frame_write(&w_again, &frame);
		assert(wire_written(&w_again) == wire_written(&w) && memcmp(again, bytes, wire_written(&w)) == 0);
	}
}

static const struct {
	const char *rule, *hex;
} bad[] = {
	{ "a head is whole", "000000020000" },
	{ "a payload is whole", "0000000200000261" },
	{ "data is not empty", "00000002000000" },
	{ "data is of a stream", "0000000000000161" },
	{ "an end has no payload", "0000000202000100" },
	{ "an end is of a stream", "00000000020000" },
	{ "a reset has a reason", "00000002030000" },
	{ "a reset has one reason", "000000020300020303" },
	{ "a window gives something", "0000000204000400000000" },
	{ "a window gives less than 2^31", "0000000204000480000000" },
	{ "an open has its length", "00000002010013" "0001" "00000000000000000000ffffc00002" "9c40" },
	{ "a ping is of the connection", "00000002050008" "0000000000000001" },
	{ "a text is printable", "00000000070002" "060a" },
	{ "what must be understood is known", "00000002080000" },
};

static void test_what_is_no_frame_breaks_the_rules(void)
{
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		uint8_t bytes[64];
		struct wire_reader r = wire_reader(bytes, unhex(bad[i].hex, bytes, sizeof(bytes)));
		struct mux_frame frame;
		if (mux_frame_read(&r, &frame)) {
			printf("%s\n", bad[i].rule);
			abort();
		}
	}
}

static void test_a_frame_has_16_kilobytes_at_most(void)
{
	uint8_t *bytes = calloc(1, MUX_MAX_FRAME + 1);
	struct mux_frame frame;

	mux_data_head(2, MUX_MAX_DATA, bytes);
	struct wire_reader r = wire_reader(bytes, MUX_MAX_FRAME);
	assert(mux_frame_read(&r, &frame) && frame.data.len == MUX_MAX_DATA);
	mux_data_head(2, MUX_MAX_DATA + 1, bytes);
	r = wire_reader(bytes, MUX_MAX_FRAME + 1);
	assert(!mux_frame_read(&r, &frame));
	free(bytes);
}

static void test_frames_to_come_are_skipped(void)
{
	uint8_t bytes[16];
	struct wire_reader r = wire_reader(bytes, unhex("00000009c8000161" "00000002020000", bytes, sizeof(bytes)));
	struct mux_frame frame;

	assert(mux_frame_read(&r, &frame) && frame.type == 200);
	assert(mux_frame_read(&r, &frame) && frame.type == MUX_END && wire_done(&r));
}

int main(void)
{
	test_each_frame_is_written_and_read_as_described();
	test_what_is_no_frame_breaks_the_rules();
	test_a_frame_has_16_kilobytes_at_most();
	test_frames_to_come_are_skipped();
	return 0;
}
