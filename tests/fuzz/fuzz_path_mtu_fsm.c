/*
 * Target: path_mtu_fsm_step. Whatever is answered, refused or silent, in any order: what is said is 0 or 1280 … the
 * most, probes are bounded in number and size, and without traffic there are none.
 */
#include "actors/traffic_manager/path_mtu_fsm.h"
#include "common/wire.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct path_mtu_fsm fsm = { 0 };
	struct path_mtu_actions out;
	struct wire_reader r = wire_reader(data, size);
	uint64_t now_ns = 1;

	while (wire_left(&r) >= 6) {
		struct path_mtu_input in = { .type = (enum path_mtu_input_type)(wire_u8(&r) % 9) };
		const uint64_t wait = wire_u8(&r);
		const bool was_active = fsm.active;
		now_ns += wait * wait * wait * 100000;
		in.now_ns = now_ns;
		in.size = wire_u16(&r);
		in.max = PATH_MTU_MIN + wire_u16(&r) % 7661;
		in.common = 1440;
		in.until_known = wait % 2 != 0 ? 1392 : 0;
		path_mtu_fsm_step(&fsm, &in, &out);
		assert(fsm.said == 0 || (fsm.said >= PATH_MTU_MIN && fsm.said <= fsm.max));
		assert(out.n <= PATH_MTU_MAX_ACTIONS && fsm.n_sizes <= PATH_MTU_MAX_SIZES);
		for (uint32_t i = 0; i < out.n; i++)
			assert(out.all[i].type != PATH_MTU_DO_PROBE ||
			       (was_active && out.all[i].size >= PATH_MTU_SMALL && out.all[i].size <= fsm.max) ||
			       in.type == PATH_MTU_IN_TRAFFIC);
		assert(fsm.active || fsm.deadline_ns == 0);
	}
	return 0;
}
