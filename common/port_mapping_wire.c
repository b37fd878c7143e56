#include "common/port_mapping_wire.h"

#include "common/wire.h"

#include <netinet/in.h>
#include <string.h>

#define PCP_VERSION	   2
#define PCP_OP_ANNOUNCE	   0
#define PCP_OP_MAP	   1
#define PCP_ANSWER	   0x80
#define PCP_HEADER_LEN	   24
#define PCP_MAP_LEN	   60
#define PCP_UNSUPP_VERSION 1
#define PCP_NETWORK_FAILURE 7
#define PCP_NO_RESOURCES   8
#define PCP_USER_EX_QUOTA  10
#define PCP_CANNOT_PROVIDE_EXTERNAL 11

#define NATPMP_VERSION	   0
#define NATPMP_OP_ADDRESS  0
#define NATPMP_OP_MAP_UDP  1
#define NATPMP_ANSWER	   128
#define NATPMP_UNSUPP_VERSION 1
#define NATPMP_NETWORK_FAILURE 3
#define NATPMP_NO_RESOURCES 4

/* ---- PCP ---- */

size_t pcp_encode_map(uint8_t *ret, size_t room, const struct pcp_map *map)
{
	struct wire_writer w = wire_writer(ret, room);
	/* Any IPv4 address is ::ffff:0.0.0.0 (RFC 6887 section 5). */
	const struct endpoint any = endpoint_from_v4(0, 0);
	const struct endpoint *external = endpoint_is_none(&map->external) ? &any : &map->external;

	wire_put_u8(&w, PCP_VERSION);
	wire_put_u8(&w, PCP_OP_MAP);
	wire_put_u16(&w, 0);
	wire_put_u32(&w, map->lifetime_s);
	wire_put(&w, map->ours.ip, sizeof(map->ours.ip));
	wire_put(&w, map->nonce, sizeof(map->nonce));
	wire_put_u32(&w, (uint32_t)IPPROTO_UDP << 24);
	wire_put_u16(&w, map->ours.port);
	wire_put_u16(&w, external->port);
	wire_put(&w, external->ip, sizeof(external->ip));
	return w.failed ? 0 : (size_t)(w.at - w.base);
}

/* A router of the older protocol: version, operation, result. */
static bool is_natpmp_refusal(const uint8_t *bytes, size_t len)
{
	struct wire_reader r = wire_reader(bytes, len);

	return wire_u8(&r) == NATPMP_VERSION && wire_u8(&r) >= NATPMP_ANSWER && wire_u16(&r) == NATPMP_UNSUPP_VERSION &&
	       !r.failed;
}

int pcp_decode_mapped(const uint8_t *bytes, size_t len, struct pcp_mapped *ret)
{
	struct wire_reader r = wire_reader(bytes, len);
	struct pcp_mapped mapped = { 0 };

	if (len > PCP_MAX_LEN)
		return PORT_MAPPING_E_MALFORMED;
	if (is_natpmp_refusal(bytes, len))
		return PORT_MAPPING_E_VERSION;
	const uint8_t version = wire_u8(&r), operation = wire_u8(&r);
	wire_u8(&r);
	mapped.result = wire_u8(&r);
	mapped.lifetime_s = wire_u32(&r);
	mapped.epoch_s = wire_u32(&r);
	wire_take(&r, 12);
	if (r.failed || len % 4 != 0 || operation != (PCP_ANSWER | PCP_OP_MAP))
		return PORT_MAPPING_E_MALFORMED;
	if (version != PCP_VERSION)
		return mapped.result == PCP_UNSUPP_VERSION ? PORT_MAPPING_E_VERSION : PORT_MAPPING_E_MALFORMED;
	if (mapped.result == PCP_UNSUPP_VERSION)
		return PORT_MAPPING_E_VERSION;
	/* A refusal repeats the request from here on (RFC 6887 section 8.3), by which it is known to be ours. */
	wire_bytes(&r, mapped.nonce, sizeof(mapped.nonce));
	const uint32_t protocol = wire_u32(&r) >> 24;
	mapped.internal_port = wire_u16(&r);
	mapped.external.port = wire_u16(&r);
	wire_bytes(&r, mapped.external.ip, sizeof(mapped.external.ip));
	if (r.failed || protocol != IPPROTO_UDP)
		return PORT_MAPPING_E_MALFORMED;
	*ret = mapped;
	return mapped.result == 0 ? 0 : PORT_MAPPING_E_REFUSED;
}

bool pcp_refusal_passes(uint8_t result)
{
	return result == PCP_NETWORK_FAILURE || result == PCP_NO_RESOURCES || result == PCP_USER_EX_QUOTA ||
	       result == PCP_CANNOT_PROVIDE_EXTERNAL;
}

int pcp_decode_announce(const uint8_t *bytes, size_t len, uint32_t *ret_epoch_s)
{
	struct wire_reader r = wire_reader(bytes, len);
	const uint8_t version = wire_u8(&r), operation = wire_u8(&r);

	wire_u8(&r);
	const uint8_t result = wire_u8(&r);
	wire_u32(&r);
	const uint32_t epoch_s = wire_u32(&r);
	wire_take(&r, 12);
	if (r.failed || len > PCP_MAX_LEN || version != PCP_VERSION || operation != (PCP_ANSWER | PCP_OP_ANNOUNCE) ||
	    result != 0)
		return PORT_MAPPING_E_MALFORMED;
	*ret_epoch_s = epoch_s;
	return 0;
}

/* ---- NAT-PMP ---- */

size_t natpmp_encode_address(uint8_t *ret, size_t room)
{
	struct wire_writer w = wire_writer(ret, room);

	wire_put_u8(&w, NATPMP_VERSION);
	wire_put_u8(&w, NATPMP_OP_ADDRESS);
	return w.failed ? 0 : (size_t)(w.at - w.base);
}

size_t natpmp_encode_map(uint8_t *ret, size_t room, uint16_t internal_port, uint16_t external_port, uint32_t lifetime_s)
{
	struct wire_writer w = wire_writer(ret, room);

	wire_put_u8(&w, NATPMP_VERSION);
	wire_put_u8(&w, NATPMP_OP_MAP_UDP);
	wire_put_u16(&w, 0);
	wire_put_u16(&w, internal_port);
	wire_put_u16(&w, lifetime_s == 0 ? 0 : external_port);
	wire_put_u32(&w, lifetime_s);
	return w.failed ? 0 : (size_t)(w.at - w.base);
}

int natpmp_decode(const uint8_t *bytes, size_t len, struct natpmp_answer *ret)
{
	struct wire_reader r = wire_reader(bytes, len);
	struct natpmp_answer answer = { 0 };
	const uint8_t version = wire_u8(&r), operation = wire_u8(&r);

	answer.result = wire_u16(&r);
	answer.epoch_s = wire_u32(&r);
	if (operation == NATPMP_ANSWER + NATPMP_OP_ADDRESS)
		answer.type = NATPMP_ADDRESS;
	else if (operation == NATPMP_ANSWER + NATPMP_OP_MAP_UDP)
		answer.type = NATPMP_MAPPED;
	else
		return PORT_MAPPING_E_MALFORMED;
	if (r.failed || version != NATPMP_VERSION)
		return PORT_MAPPING_E_MALFORMED;
	if (answer.result != 0) {
		*ret = answer;
		return answer.result == NATPMP_UNSUPP_VERSION ? PORT_MAPPING_E_VERSION : PORT_MAPPING_E_REFUSED;
	}
	if (answer.type == NATPMP_ADDRESS) {
		answer.address = endpoint_from_v4(wire_u32(&r), 0);
	} else {
		answer.internal_port = wire_u16(&r);
		answer.external_port = wire_u16(&r);
		answer.lifetime_s = wire_u32(&r);
	}
	if (!wire_done(&r))
		return PORT_MAPPING_E_MALFORMED;
	*ret = answer;
	return 0;
}

bool natpmp_refusal_passes(uint16_t result)
{
	return result == NATPMP_NETWORK_FAILURE || result == NATPMP_NO_RESOURCES;
}
