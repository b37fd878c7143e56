/* Target: relay_udp_fsm_step. Any datagrams from the relay's address, in any order, keep the invariant, which the
 * machine asserts itself. */
#include "actors/relay_manager/relay_udp_fsm.h"
#include "common/wire.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct relay_udp_fsm fsm;
	static struct relay_udp_output out;
	struct wire_reader r = wire_reader(data, size);
	struct relay_udp_config config = { .n_addresses = 2,
					   .addresses = { endpoint_from_v4(1, 1), endpoint_from_v4(2, 1) } };
	uint64_t now_us = 1;

	relay_udp_fsm_init(&fsm, &config);
	while (wire_left(&r) >= 3) {
		struct relay_udp_input input = { .type = (enum relay_udp_input_type)(wire_u8(&r) % 6) };
		const uint32_t n = wire_u8(&r);
		const uint32_t wait = wire_u8(&r);
		now_us += (uint64_t)wait * wait * 1000;
		input.now_us = now_us;
		input.random = 1; /* so that numbers can be met */
		input.from = &config.addresses[n % 2];
		input.key.bytes[0] = (uint8_t)n;
		input.slot = n % 4;
		input.len = n < wire_left(&r) ? n : wire_left(&r);
		if (input.type == RELAY_UDP_IN_DATAGRAM)
			input.bytes = wire_take(&r, input.len);
		relay_udp_fsm_step(&fsm, &input, &out);
		if (wait % 3 == 0)
			relay_udp_fsm_sent(&fsm, now_us);
		assert(out.n_sends <= RELAY_UDP_FSM_SENDS && out.n_events <= RELAY_UDP_FSM_EVENTS);
	}
	return 0;
}
