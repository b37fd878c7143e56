/* Target: turn_fsm_step. Whatever the server and time do, the machine's bounds and its invariant hold, which it
 * asserts itself, and it never waits for what has passed. */
#include "node/turn/turn_fsm.h"

#include "common/wire.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint16_t codes[] = { 0, 0, 0, 400, TURN_UNAUTHORIZED, 403, TURN_MISMATCH, TURN_STALE_NONCE };
	struct wire_reader r = wire_reader(data, size);
	struct turn_fsm fsm;
	struct turn_actions out;
	uint64_t now_ns = 1;

	turn_fsm_init(&fsm);
	while (wire_left(&r) >= 4) {
		const uint32_t kind = wire_u8(&r), n = wire_u8(&r), wait = wire_u8(&r), code = wire_u8(&r);
		const struct turn_input in = {
			.type = (enum turn_input_type)(kind % TURN_N_INPUTS),
			.now_ns = now_ns += (uint64_t)wait * wait * wait * 100000,
			.request = (enum turn_request)(kind / 16 % TURN_N_REQUESTS),
			.index = n % 72,
			.code = codes[code % 8],
			.lifetime_s = code * 8,
			.endpoint = endpoint_from_v4(0xcb007100 + n, (uint16_t)(code % 4 * 1000)),
		};
		turn_fsm_step(&fsm, &in, &out);
		if (fsm.deadline_ns != 0 && fsm.deadline_ns <= now_ns)
			abort();
	}
	return 0;
}
