#include "node/wireguard/udp_relays.h"

#include "common/relay_udp_wire.h"

uint32_t udp_relays_find(const struct udp_relays *relays, const struct endpoint *from, const uint8_t *datagram,
			 uint32_t size)
{
	struct relay_udp_header header;

	if (relays->n == 0 || !relay_udp_header_decode(datagram, size, &header))
		return 0;
	for (uint32_t i = 0; i < relays->n; i++) {
		const struct wireguard_udp_relay *relay = &relays->relays[i];
		if (relay->slot == header.to && relay->token == header.token &&
		    endpoint_equal(&relay->remote, from))
			return relay->relay_id;
	}
	return 0;
}
