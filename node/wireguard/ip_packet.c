#include "node/wireguard/ip_packet.h"

#include <netinet/in.h>

#include "common/wire.h"

#define V4_MIN 20
#define V6_MIN 40

/* Offsets. */
#define V4_PROTOCOL    9
#define V6_NEXT_HEADER 6

static bool parse4(const uint8_t *bytes, size_t n, struct ip_packet *ret)
{
	struct wire_reader r = wire_reader(bytes, n);

	wire_u8(&r);
	ret->is_v6 = false;
	ret->ds = wire_u8(&r);
	ret->size = wire_u16(&r);
	wire_take(&r, 8);
	ret->src = wire_take(&r, 4);
	ret->dst = wire_take(&r, 4);
	return !r.failed && ret->size >= V4_MIN && ret->size <= n;
}

static bool parse6(const uint8_t *bytes, size_t n, struct ip_packet *ret)
{
	struct wire_reader r = wire_reader(bytes, n);

	ret->is_v6 = true;
	ret->ds = (uint8_t)(wire_u16(&r) >> 4);
	wire_u16(&r);
	ret->size = (uint32_t)wire_u16(&r) + V6_MIN;
	wire_u16(&r);
	ret->src = wire_take(&r, 16);
	ret->dst = wire_take(&r, 16);
	return !r.failed && ret->size <= n;
}

bool ip_packet_parse(const uint8_t *bytes, size_t n, struct ip_packet *ret)
{
	if (n == 0)
		return false;
	switch (bytes[0] >> 4) {
	case 4:
		return parse4(bytes, n, ret);
	case 6:
		return parse6(bytes, n, ret);
	}
	return false;
}

bool ip_packet_is_tcp(const uint8_t *packet)
{
	return packet[packet[0] >> 4 == 4 ? V4_PROTOCOL : V6_NEXT_HEADER] == IPPROTO_TCP;
}

/* RFC 1624: HC' = ~(~HC + ~m + m'), m being the first 16-bit word, which holds the DS field. */
static void set_ds4(uint8_t *bytes, uint8_t ds)
{
	uint32_t before = (uint32_t)bytes[0] << 8 | bytes[1];
	uint32_t after = (uint32_t)bytes[0] << 8 | ds;
	uint32_t sum = (uint32_t)(bytes[10] << 8 | bytes[11]) ^ 0xffff;

	sum += (before ^ 0xffff) + after;
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum ^= 0xffff;
	bytes[1] = ds;
	bytes[10] = (uint8_t)(sum >> 8);
	bytes[11] = (uint8_t)sum;
}

static void set_ecn(uint8_t *bytes, const struct ip_packet *packet, enum ip_ecn ecn)
{
	uint8_t ds = (uint8_t)((packet->ds & 0xfc) | ecn);

	if (!packet->is_v6) {
		set_ds4(bytes, ds);
		return;
	}
	bytes[0] = (uint8_t)((bytes[0] & 0xf0) | ds >> 4);
	bytes[1] = (uint8_t)((bytes[1] & 0x0f) | (ds & 0x0f) << 4);
}

bool ip_packet_decapsulate_ecn(uint8_t *bytes, const struct ip_packet *packet, uint8_t outer_ds)
{
	enum ip_ecn inner = packet->ds & 3, outer = outer_ds & 3;

	if (outer == IP_ECN_CE && inner == IP_ECN_NONE)
		return false;
	if ((outer == IP_ECN_CE && inner != IP_ECN_CE) ||
	    (outer == IP_ECN_ECT1 && inner == IP_ECN_ECT0))
		set_ecn(bytes, packet, outer);
	return true;
}
