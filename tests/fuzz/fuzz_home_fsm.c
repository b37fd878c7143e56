/* Target: home_fsm_step. Any sequence of inputs keeps the invariant, which the machine asserts itself. */
#include "actors/relay_manager/home_fsm.h"
#include "common/wire.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct home_fsm fsm;
	struct wire_reader r = wire_reader(data, size);
	struct home_actions out;
	uint64_t now_ms = 1;

	home_fsm_init(&fsm);
	while (wire_left(&r) >= 5) {
		struct home_input input = { .type = (enum home_input_type)(wire_u8(&r) % 6) };
		uint32_t ids[32], n = 0, bits = wire_u16(&r);
		now_ms += wire_u16(&r) * 4u;
		for (uint32_t i = 0; i < 32; i++)
			if (bits >> i % 16 & 1)
				ids[n++] = i + 1;
		input.now_ms = now_ms;
		input.relay_id = bits % 32 + 1;
		input.rtt_us = bits * 7;
		input.relays.n = n;
		input.relays.ids = ids;
		home_fsm_step(&fsm, &input, &out);
		assert(out.home == fsm.home && out.n_orders <= HOME_MAX_ORDERS);
	}
	return 0;
}
