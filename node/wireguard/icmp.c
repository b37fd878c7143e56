#include "node/wireguard/icmp.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>

#include "common/wire.h"
#include "node/wireguard/offload.h"

#define IP4_LEN	      20
#define IP6_LEN	      40
#define ICMP_LEN      8
#define HOP_LIMIT     64
#define ICMP4_UNREACH 3
#define ICMP4_HOST    1
#define ICMP4_TOO_BIG 4
#define ICMP6_UNREACH 1
#define ICMP6_ADDRESS 3
#define ICMP6_TOO_BIG 2

static bool is_icmp4_error(uint8_t type)
{
	return type == 3 || type == 4 || type == 5 || type == 11 || type == 12;
}

static bool may_answer4(const uint8_t *packet, size_t len)
{
	size_t header_len = (size_t)(packet[0] & 0x0f) * 4;
	bool is_later_fragment = (packet[6] & 0x1f) != 0 || packet[7] != 0;

	if (header_len < IP4_LEN || len < header_len || is_later_fragment)
		return false;
	if (packet[16] >= 224 || packet[12] >= 224 || packet[12] == 0) /* multicast, broadcast, nobody */
		return false;
	return packet[9] != IPPROTO_ICMP || (len > header_len && !is_icmp4_error(packet[header_len]));
}

static bool may_answer6(const uint8_t *packet, size_t len)
{
	static const uint8_t nobody[16];

	if (packet[24] == 0xff || packet[8] == 0xff || memcmp(packet + 8, nobody, 16) == 0)
		return false;
	/* ICMPv6 types below 128 are errors. */
	return packet[6] != IPPROTO_ICMPV6 || (len > IP6_LEN && packet[IP6_LEN] >= 128);
}

static void put_sum(uint8_t *at, uint16_t sum)
{
	memcpy(at, &sum, sizeof(sum)); /* in memory order already */
}

/* mtu 0: unreachable; else too big for it. */
static size_t answer4(const uint8_t *packet, size_t len, uint32_t mtu, uint8_t *ret)
{
	size_t quoted = len < ICMP4_MAX_LEN - IP4_LEN - ICMP_LEN ? len : ICMP4_MAX_LEN - IP4_LEN - ICMP_LEN;
	struct wire_writer w = wire_writer(ret, ICMP4_MAX_LEN);

	wire_put_u16(&w, 0x4500);
	wire_put_u16(&w, (uint16_t)(IP4_LEN + ICMP_LEN + quoted));
	wire_put_u32(&w, 0); /* never fragmented: no id needed (RFC 6864) */
	wire_put_u8(&w, HOP_LIMIT);
	wire_put_u8(&w, IPPROTO_ICMP);
	wire_put_u16(&w, 0);
	wire_put(&w, packet + 16, 4);
	wire_put(&w, packet + 12, 4);
	put_sum(ret + 10, (uint16_t)~offload_fold(offload_sum(ret, IP4_LEN, 0)));

	wire_put_u8(&w, ICMP4_UNREACH);
	wire_put_u8(&w, mtu ? ICMP4_TOO_BIG : ICMP4_HOST);
	wire_put_u16(&w, 0);
	wire_put_u32(&w, mtu); /* 16 bits unused, 16 of the MTU */
	wire_put(&w, packet, quoted);
	put_sum(ret + IP4_LEN + 2,
		(uint16_t)~offload_fold(offload_sum(ret + IP4_LEN, ICMP_LEN + quoted, 0)));
	return wire_written(&w);
}

static size_t answer6(const uint8_t *packet, size_t len, uint32_t mtu, uint8_t *ret)
{
	size_t quoted = len < ICMP6_MAX_LEN - IP6_LEN - ICMP_LEN ? len : ICMP6_MAX_LEN - IP6_LEN - ICMP_LEN;
	struct wire_writer w = wire_writer(ret, ICMP6_MAX_LEN);
	uint32_t icmp_len = (uint32_t)(ICMP_LEN + quoted);

	wire_put_u32(&w, 0x60000000);
	wire_put_u16(&w, (uint16_t)icmp_len);
	wire_put_u8(&w, IPPROTO_ICMPV6);
	wire_put_u8(&w, HOP_LIMIT);
	wire_put(&w, packet + 24, 16);
	wire_put(&w, packet + 8, 16);

	wire_put_u8(&w, mtu ? ICMP6_TOO_BIG : ICMP6_UNREACH);
	wire_put_u8(&w, mtu ? 0 : ICMP6_ADDRESS);
	wire_put_u16(&w, 0);
	wire_put_u32(&w, mtu);
	wire_put(&w, packet, quoted);
	uint64_t sum = offload_pseudo_sum(ret, false, IPPROTO_ICMPV6, icmp_len);
	put_sum(ret + IP6_LEN + 2, (uint16_t)~offload_fold(offload_sum(ret + IP6_LEN, icmp_len, sum)));
	return wire_written(&w);
}

static size_t answer(const uint8_t *packet, size_t len, uint32_t mtu, uint8_t ret[ICMP6_MAX_LEN])
{
	if (len >= IP4_LEN && packet[0] >> 4 == 4)
		return may_answer4(packet, len) ? answer4(packet, len, mtu, ret) : 0;
	if (len >= IP6_LEN && packet[0] >> 4 == 6)
		return may_answer6(packet, len) ? answer6(packet, len, mtu, ret) : 0;
	return 0;
}

size_t icmp_unreachable(const uint8_t *packet, size_t len, uint8_t ret[ICMP6_MAX_LEN])
{
	return answer(packet, len, 0, ret);
}

size_t icmp_too_big(const uint8_t *packet, size_t len, uint32_t mtu, uint8_t ret[ICMP6_MAX_LEN])
{
	return answer(packet, len, mtu, ret);
}
