#include "node/wireguard/tun_probe.h"

#include <netinet/in.h>
#include <string.h>

#include "node/wireguard/offload.h"

#define PAYLOAD	     8 /* of the first packet; half of it in the second */
#define DISCARD_PORT 9

static uint32_t put_ip(uint8_t *packet, bool is_v4, uint8_t protocol, uint32_t l4_len)
{
	if (is_v4) {
		memcpy(packet, (uint8_t[20]){ 0x45, [3] = (uint8_t)(20 + l4_len), [6] = 0x40, [9] = protocol,
					      [12] = 127, [15] = 1, [16] = 127, [19] = 1 }, 20);
		uint16_t sum = (uint16_t)~offload_fold(offload_sum(packet, 20, 0));
		memcpy(packet + 10, &sum, sizeof(sum));
		return 20;
	}
	memcpy(packet, (uint8_t[40]){ 0x60, [5] = (uint8_t)l4_len, [6] = protocol, [23] = 1, [39] = 1 }, 40);
	return 40;
}

/* Returns the packet's length. */
static uint32_t put_packet(uint8_t *packet, bool is_v4, bool is_tcp, uint8_t sequence, uint32_t payload)
{
	uint8_t protocol = is_tcp ? IPPROTO_TCP : IPPROTO_UDP;
	uint32_t l4_header = is_tcp ? 20 : 8, l4_len = l4_header + payload;
	uint32_t at = put_ip(packet, is_v4, protocol, l4_len);
	uint8_t *l4 = packet + at;

	memset(l4, 0, l4_len);
	l4[1] = l4[3] = DISCARD_PORT;
	if (is_tcp) {
		l4[7] = sequence;
		l4[12] = 5 << 4; /* length of the header in words */
		l4[13] = 0x10;	 /* ACK */
	} else {
		l4[5] = (uint8_t)l4_len;
	}
	uint64_t pseudo = offload_pseudo_sum(packet, is_v4, protocol, l4_len);
	uint16_t sum = (uint16_t)~offload_fold(offload_sum(l4, l4_len, pseudo));
	memcpy(l4 + (is_tcp ? 16 : 6), &sum, sizeof(sum));
	return at + l4_len;
}

struct train tun_probe_packets(bool is_v4, bool is_tcp, uint8_t bytes[TUN_PROBE_LEN])
{
	uint32_t len = put_packet(bytes, is_v4, is_tcp, 0, PAYLOAD);

	return (struct train){
		.base = bytes,
		.n = 2,
		.stride = len,
		.size = len,
		.last_size = put_packet(bytes + len, is_v4, is_tcp, PAYLOAD, PAYLOAD / 2),
	};
}
