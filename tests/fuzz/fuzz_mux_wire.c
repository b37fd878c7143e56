/* Target: mux_frame_read. What is read is written as the same bytes, but for types that are skipped. */
#include "relay/diglett/mux_wire.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct wire_reader r = wire_reader(data, size);
	struct mux_frame frame;
	uint8_t again[MUX_MAX_FRAME];

	while (size > 0 && wire_left(&r) > 0) {
		const uint8_t *const begin = r.at;
		if (!mux_frame_read(&r, &frame))
			break;
		assert(mux_reason_text(frame.type));
		if (frame.type >= MUX_SKIPPED)
			continue;
		struct wire_writer w = wire_writer(again, sizeof(again));
		mux_frame_write(&w, &frame);
		assert(wire_written(&w) == (size_t)(r.at - begin));
		assert(frame.type == MUX_OPEN || memcmp(again, begin, wire_written(&w)) == 0);
	}
	return 0;
}
