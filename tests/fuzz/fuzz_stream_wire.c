/*
 * Target: stream_decode: whatever a door is said to have handed over is refused, or says what can be said again, in the same
 * bytes.
 */
#include "relay/frontdoor/stream_wire.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(bool holds)
{
	if (!holds)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t again[STREAM_MAX_MESSAGE];
	struct stream_said said;

	if (stream_decode(data, size, &said) != 0)
		return 0;
	expect(stream_count_fds(&said) <= STREAM_MAX_FDS);
	expect(said.kind != STREAM_SNIFFED || said.n_bytes <= SNIFFER_MAX);
	for (int i = 0; i < 2 && said.kind == STREAM_CARRIED; i++) {
		const struct stream_flow *flow = &said.flows[i];
		expect(flow->is_in_pipe || flow->waiting == 0 || (flow->head >= data && flow->head + flow->waiting <= data + size));
	}
	expect(stream_encode(&said, again) == size && memcmp(again, data, size) == 0);
	return 0;
}
