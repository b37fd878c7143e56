/*
 * The relays over UDP that we are bound to, as the lanes need them: is this datagram one that such a relay
 * brings us from a peer? Source, our slot and our token say so (docs/PROTOCOL-relay.md, "Over UDP").
 *
 *   0        4        8        12       16
 *   ├────────┼────────┼────────┼────────┼──────────────────┐
 *   │ data   │ to     │ from   │ token  │ packet           │
 *   └────────┴────────┴────────┴────────┴──────────────────┘
 *     our slot ┘        │          └ ours
 *                       └ the sender's: any
 *
 * Each lane has its own copy, which is replaced between two bursts. Pure.
 */
#pragma once

#include "common/endpoint.h"

#include <stdint.h>

/* Datagrams of further ones are the loop's. */
#define UDP_RELAYS_MAX 32

struct wireguard_udp_relay {
	uint32_t relay_id; /* not 0 */
	struct endpoint remote;
	uint32_t slot, token; /* ours at that relay */
};

struct udp_relays {
	uint32_t n;
	struct wireguard_udp_relay relays[UDP_RELAYS_MAX];
};

/* The relay that brings this datagram's packet; 0: none of these, or it is no data. */
uint32_t udp_relays_find(const struct udp_relays *relays, const struct endpoint *from, const uint8_t *datagram,
			 uint32_t size);
