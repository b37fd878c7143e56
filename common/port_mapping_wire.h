/*
 * What a home router is asked to forward a UDP port with: PCP (RFC 6887) and its forerunner NAT-PMP (RFC 6886),
 * both on its port 5351. For IPv4.
 *
 *   PCP MAP, request                                    answer
 *   0                   1                   2                   3
 *   0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 *  +---------------+-+-------------+-------------------------------+
 *  |  version = 2  |R| opcode = 1  |  reserved; answer: result low |   R: 1 in an answer
 *  +---------------+-+-------------+-------------------------------+
 *  |                           lifetime, s                         |   answer: also of an error, how long it holds
 *  +---------------------------------------------------------------+
 *  |  our address, 16 bytes;  answer: epoch, s, then 12 reserved   |
 *  +---------------------------------------------------------------+
 *  |                       nonce, 12 bytes                         |
 *  +---------------+-----------------------------------------------+
 *  | protocol = 17 |                   reserved                    |
 *  +---------------+---------------+-------------------------------+
 *  |        internal port          |  external: suggested; given   |
 *  +-------------------------------+-------------------------------+
 *  |       external address, 16 bytes: suggested; given            |
 *  +---------------------------------------------------------------+
 *
 *   NAT-PMP         0        1        2        4        8        12       16
 *   address?        version=0  op=0
 *     answer        0        128      result   epoch    address
 *   map UDP         0        1        0        ports: internal, suggested        lifetime (8..12)
 *     answer        0        129      result   epoch    ports: internal, given   lifetime
 *
 * A router that knows NAT-PMP only answers PCP in its own words: PORT_MAPPING_E_VERSION. Pure.
 */
#pragma once

#include "common/endpoint.h"
#include "common/macros.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PORT_MAPPING_SERVER_PORT 5351
#define PORT_MAPPING_NONCE_LEN	 12
#define PORT_MAPPING_MAX_LEN	 60   /* of what we send */
#define PCP_MAX_LEN		 1100 /* of any message; longer ones are none (RFC 6887 section 7) */

enum port_mapping_wire_error {
	PORT_MAPPING_E_MALFORMED = 1, /* no answer of this protocol, or not a whole one */
	PORT_MAPPING_E_VERSION,	      /* the router does not know this version of the protocol */
	PORT_MAPPING_E_REFUSED,	      /* result tells why; lifetime_s for how long (0: not told) */
};

struct pcp_map {
	uint8_t nonce[PORT_MAPPING_NONCE_LEN];
	struct endpoint ours;	  /* our address behind the router, and port */
	struct endpoint external; /* none: anything will do */
	uint32_t lifetime_s;	  /* 0: remove */
};

struct pcp_mapped {
	uint8_t nonce[PORT_MAPPING_NONCE_LEN];
	uint16_t internal_port;
	struct endpoint external;
	uint32_t lifetime_s, epoch_s;
	uint8_t result;
};

/* All of these: bytes written, PORT_MAPPING_MAX_LEN at most; 0: there is no room for them. */
size_t pcp_encode_map(uint8_t *ret, size_t room, const struct pcp_map *map);
/* 0 or an enum port_mapping_wire_error; of a refusal (REFUSED) .external is what was asked for. */
P2P_CHECK int pcp_decode_mapped(const uint8_t *bytes, size_t len, struct pcp_mapped *ret);

/* May the same request be granted a little later (RFC 6887 section 7.4: a short lifetime error)? */
bool pcp_refusal_passes(uint8_t result);

/* What a PCP router tells everybody when it has begun anew or has another address: its epoch. */
P2P_CHECK int pcp_decode_announce(const uint8_t *bytes, size_t len, uint32_t *ret_epoch_s);

enum natpmp_type { NATPMP_ADDRESS, NATPMP_MAPPED };

struct natpmp_answer {
	enum natpmp_type type;
	uint32_t epoch_s;
	uint16_t result;
	struct endpoint address;	       /* NATPMP_ADDRESS: without a port */
	uint16_t internal_port, external_port; /* NATPMP_MAPPED */
	uint32_t lifetime_s;
};

size_t natpmp_encode_address(uint8_t *ret, size_t room);
/* lifetime_s 0: remove; the suggested external port is 0 then. */
size_t natpmp_encode_map(uint8_t *ret, size_t room, uint16_t internal_port, uint16_t external_port, uint32_t lifetime_s);
/* 0 or an enum port_mapping_wire_error; of a refusal only type, result and epoch_s are set. */
P2P_CHECK int natpmp_decode(const uint8_t *bytes, size_t len, struct natpmp_answer *ret);
/* As for PCP: no network, no resources (RFC 6886 section 3.5). */
bool natpmp_refusal_passes(uint16_t result);
