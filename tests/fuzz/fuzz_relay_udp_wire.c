/* Target: relay_udp_decode: any bytes are a datagram or none; what is understood is written the same. */
#include "common/relay_udp_wire.h"

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
	struct relay_udp_datagram datagram, again;
	struct relay_udp_header header;
	const enum relay_udp_type type = relay_udp_type(data, size);

	const bool is_data = relay_udp_header_decode(data, size, &header);
	expect(is_data == (type == RELAY_UDP_DATA));
	if (relay_udp_decode(data, size, &datagram) != 0)
		return 0;
	expect(datagram.type == type);
	if (is_data)
		expect(header.to == datagram.header.to && header.from == datagram.header.from &&
		       header.token == datagram.header.token);
	uint8_t *bytes = malloc(size);
	expect(bytes && relay_udp_encode(bytes, size, &datagram) == size);
	expect(relay_udp_decode(bytes, size, &again) == 0 && again.type == type);
	if (is_data)
		expect(memcmp(bytes, data, size) == 0); /* of others, bytes without a meaning may differ */
	free(bytes);
	return 0;
}
