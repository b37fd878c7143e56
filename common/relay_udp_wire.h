/*
 * Datagrams of the relay protocol over UDP (docs/PROTOCOL-relay.md, "Over UDP").
 *
 *  0                   1                   2                   3
 *  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * |      0xd2     |      0x70     |      0x72     |     type      |
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+  ┐
 * |                              to                               |  │
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+  │ once bound
 * |                             from                              |  │
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+  │
 * |                             token                             |  │
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+  ┘
 * |  packet, or what belongs to the type ...
 *
 * A client is known to the relay by its slot. It learns its own when it is bound, and that of a peer when it
 * asks for it by node key.
 *
 *   client                                  relay
 *     │ ── ask ───────────────────────────►   │  keeps nothing
 *     │ ◄─────────────────────────── cookie ─ │  made of the address and a secret
 *     │ ── bind: cookie, key, mac ─────────►  │  address and key are proven: a slot
 *     │ ◄──────────────── bound: slot, token ─│
 *     │ ── find: key ──────────────────────►  │
 *     │ ◄──────────────────── found: its slot │
 *     │ ── data: to its slot ──────────────►  │ ── data: from our slot ──► the peer
 *     │ ◄───────── moved: cookie ──────────── │  to an address that it does not know: bind anew
 *
 * No answer is longer than what it answers. Pure.
 */
#pragma once

#include "common/key.h"
#include "common/macros.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RELAY_UDP_MAGIC	     0xd2707200u /* and the type in the low byte */
#define RELAY_UDP_VERSION    1
#define RELAY_UDP_HEADER_LEN 16
#define RELAY_UDP_COOKIE_LEN 16
#define RELAY_UDP_MAC_LEN    16
/* The longest that is no data. */
#define RELAY_UDP_MAX_LEN 80
/*
 * A packet that begins so and is longer than any other that does asks how long packets may be (docs/PROTOCOL-session.md,
 * "Probe and passed"). So it must reach its receiver whole or not at all.
 */
#define RELAY_PROBE_MAGIC   0xd2703270u
#define RELAY_PROBE_MIN_LEN 1237

enum relay_udp_type {
	RELAY_UDP_ASK = 1,     /* client → relay: a cookie, please */
	RELAY_UDP_COOKIE = 2,  /* relay → client */
	RELAY_UDP_BIND = 3,    /* client → relay */
	RELAY_UDP_BOUND = 4,   /* relay → client */
	RELAY_UDP_REFUSED = 5, /* relay → client: not bound, or no longer */
	RELAY_UDP_MOVED = 6,   /* relay → client: no client of this slot and token has your address */
	RELAY_UDP_FIND = 7,    /* client → relay: the slot of this node, please */
	RELAY_UDP_FOUND = 8,   /* relay → client; from 0: it is not here */
	RELAY_UDP_PING = 9,    /* client → relay; answered with a pong with the same number */
	RELAY_UDP_PONG = 10,
	RELAY_UDP_DATA = 11, /* both: to a node; from a node */
	RELAY_UDP_GONE = 12, /* relay → client: what you sent to the slot in `from` went nowhere */
	RELAY_UDP_N_TYPES,
};

enum relay_udp_reason {
	RELAY_UDP_NOT_ADMITTED = 1, /* no longer a member */
	RELAY_UDP_OLD = 2,	    /* a bind with a later cookie came before */
	RELAY_UDP_FULL = 3,
	RELAY_UDP_RESTART = 4,	/* the relay stops */
	RELAY_UDP_REPLACED = 5, /* your key was bound from another address */
};

/* What every datagram between a relay and a bound client begins with. */
struct relay_udp_header {
	enum relay_udp_type type;
	uint32_t to, from; /* slots; the relay itself is 0 */
	uint32_t token;	   /* of the client that sends or receives it: a stranger does not know it */
};

struct relay_udp_ask {
	uint64_t number; /* any; comes back */
};

struct relay_udp_cookie {
	uint64_t number;
	uint8_t version; /* the highest that the relay speaks */
	uint8_t cookie[RELAY_UDP_COOKIE_LEN];
};

struct relay_udp_bind {
	uint8_t version;
	uint8_t cookie[RELAY_UDP_COOKIE_LEN];
	struct public_key node_key; /* of the client */
	uint64_t number;	    /* random: what comes back with it answers this bind and no other */
	uint8_t mac[RELAY_UDP_MAC_LEN];
};

struct relay_udp_bound {
	uint32_t slot, token; /* slot: never 0 */
	uint32_t epoch;	      /* of the relay: when it changes, slots that were found are nobody's */
	uint8_t keep_alive_s; /* the relay forgets who was silent for longer than twice this and 5 s */
	uint64_t number;      /* of the bind */
	uint8_t mac[RELAY_UDP_MAC_LEN];
};

struct relay_udp_refused {
	enum relay_udp_reason reason; /* unknown values are passed on */
	uint32_t retry_after_ms;
	uint64_t number; /* of the bind */
	uint8_t mac[RELAY_UDP_MAC_LEN];
};

struct relay_udp_moved {
	uint32_t what; /* the token of what is answered; of a bind the lower half of its number */
	uint8_t cookie[RELAY_UDP_COOKIE_LEN];
};

struct relay_udp_ping {
	uint64_t number;    /* any; comes back */
	uint32_t challenge; /* pong: to be returned by the next ping, for the address may have a new owner */
};

struct relay_udp_datagram {
	enum relay_udp_type type;
	struct relay_udp_header header; /* find, found, ping, pong, data, gone */
	union {
		struct relay_udp_ask ask;
		struct relay_udp_cookie cookie;
		struct relay_udp_bind bind;
		struct relay_udp_bound bound;
		struct relay_udp_refused refused;
		struct relay_udp_moved moved;
		struct public_key node_key; /* find, found */
		struct relay_udp_ping ping; /* ping, pong */
		struct {
			const uint8_t *bytes; /* borrowed */
			size_t len;	      /* not 0 */
		} packet;
	};
};

/* The type when the length fits it; 0: none of ours. */
enum relay_udp_type relay_udp_type(const void *bytes, size_t len);
/* Of data, for the packet path: false when it is none, or has no packet. */
bool relay_udp_header_decode(const void *bytes, size_t len, struct relay_udp_header *ret);
void relay_udp_header_encode(uint8_t bytes[RELAY_UDP_HEADER_LEN], const struct relay_udp_header *header);
/* Of a packet, without our header: is it one that must not be fragmented? */
bool relay_packet_is_probe(const uint8_t *packet, size_t len);

enum relay_udp_error {
	RELAY_UDP_E_MALFORMED = 1, /* wrong length, type, or a field that has no meaning */
};
/* 0 or an enum relay_udp_error. What *ret borrows lies in bytes. */
P2P_CHECK int relay_udp_decode(const void *bytes, size_t len, struct relay_udp_datagram *ret);
/* Bytes written, or 0 if they did not fit. Data is no longer than RELAY_UDP_HEADER_LEN + packet.len. */
size_t relay_udp_encode(void *bytes, size_t room, const struct relay_udp_datagram *datagram);

/*
 * The proof: the datagram's bytes before its mac, hashed with a key that only the two have. It is made
 * of both node keys' Diffie-Hellman, so it is the same for all binds: a relay keeps it for each member.
 */
struct relay_udp_key {
	uint8_t bytes[KEY_LEN];
};
/* 0, or RELAY_UDP_E_MALFORMED when theirs is of low order. Both ends get the same. */
P2P_CHECK int relay_udp_key(const struct secret_key *ours, const struct public_key *our_public,
			    const struct public_key *theirs, bool we_are_relay, struct relay_udp_key *ret);
/* Of an encoded bind, bound or refused: puts its mac at the end; is it the right one? */
void relay_udp_prove(const struct relay_udp_key *key, void *bytes, size_t len);
bool relay_udp_is_proven(const struct relay_udp_key *key, const void *bytes, size_t len);
