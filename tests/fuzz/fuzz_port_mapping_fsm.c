/* Target: port_mapping_fsm_step and its codec. Whatever the router and time do, the invariant holds, which the
 * machine asserts itself; an endpoint is published only when one came from the router. */
#include "actors/endpoint_manager/port_mapping_fsm.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct wire_reader r = wire_reader(data, size);
	const struct endpoint router = endpoint_from_v4(0xc0a80001, PORT_MAPPING_SERVER_PORT);
	struct port_mapping_fsm fsm;
	struct port_mapping_actions out;
	uint8_t bytes[256];
	uint64_t now_ns = 1;

	port_mapping_fsm_init(&fsm);
	while (wire_left(&r) >= 3) {
		struct port_mapping_input in = {
			.type = (enum port_mapping_input_type)(wire_u8(&r) % PORT_MAPPING_N_INPUTS)
		};
		const uint32_t n = wire_u8(&r), wait = wire_u8(&r);
		now_ns += (uint64_t)wait * wait * wait * 100000;
		in.now_ns = now_ns;
		in.ours = endpoint_from_v4(0xc0a80002, (uint16_t)(1 + n % 2));
		if (n % 4 != 0)
			in.router = router;
		in.from = n % 8 == 7 ? endpoint_from_v4(0xc0a80003, PORT_MAPPING_SERVER_PORT) : router;
		if (in.type == PORT_MAPPING_IN_UPNP) {
			in.external = endpoint_from_v4(wire_u32(&r), (uint16_t)n);
			in.lifetime_s = wire_u16(&r);
			in.outcome = (enum port_mapping_outcome)(wait % PORT_MAPPING_N_OUTCOMES);
			in.serial = fsm.upnp_serial - (n % 16 == 0);
		}
		in.way = (enum port_mapping_way)(n % PORT_MAPPING_N_WAYS);
		in.known = (enum port_mapping_known)(wait % PORT_MAPPING_N_KNOWN);
		if (in.type == PORT_MAPPING_IN_DATAGRAM || in.type == PORT_MAPPING_IN_ANNOUNCEMENT) {
			in.len = n < wire_left(&r) ? n : wire_left(&r);
			memcpy(bytes, wire_take(&r, in.len), in.len);
			if (wait % 2 && in.len >= 36) /* the router knows what it was asked */
				memcpy(bytes + 24, fsm.nonce, sizeof(fsm.nonce));
			in.bytes = bytes;
		}
		const struct endpoint before = fsm.external;
		port_mapping_fsm_step(&fsm, &in, &out);
		const bool is_new = !endpoint_is_none(&fsm.external) && !endpoint_equal(&before, &fsm.external);
		if (is_new && in.type != PORT_MAPPING_IN_UPNP &&
		    (in.type != PORT_MAPPING_IN_DATAGRAM || !endpoint_equal(&in.from, &router)))
			abort();
	}
	return 0;
}
