/*
 * Session messages, peer to peer: bytes <-> plain structs. docs/PROTOCOL-session.md is the text.
 *
 *  0                   1                   2                   3
 *  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * |                    magic = D2 70 32 70                        |
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * |            key id of the sender's session key (8)             |
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * |                         counter (8)                           |
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * |           box: type (1), body, authentication tag (16)        |
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 *
 * ping        01 ‖ tx id (12) ‖ padding (zeroes)
 * pong        02 ‖ tx id (12) ‖ observed endpoint (18; all zero: by relay)
 * rendezvous  03 ‖ n (1) ‖ n × endpoint (18)
 * wireguard   04 ‖ port (2)
 * probe       05 ‖ tx id (12) ‖ padding (zeroes)
 * passed      06 ‖ tx id (12)
 * receipt     07 ‖ age (4)
 * nat         08 ‖ mapping, filtering, ports (1 each) ‖ step, low, high, last port (2 each) ‖ n (1) ‖ endpoint (18)
 * search      09 ‖ as nat
 *
 * Total: any bytes decode or yield an enum session_error. Here only the bytes; sealing is session_box.
 */
#pragma once

#include "common/endpoint.h"
#include "common/macros.h"

#include <stddef.h>
#include <stdint.h>

#define SESSION_MAGIC	      0xd2703270u
#define SESSION_KEY_ID_LEN    8
#define SESSION_HEADER_LEN    20
#define SESSION_TAG_LEN	      16
#define SESSION_TX_ID_LEN     12
#define SESSION_MAX_ENDPOINTS 32
#define SESSION_PONG_LEN      (1 + SESSION_TX_ID_LEN + ENDPOINT_WIRE_LEN)
#define SESSION_MAX_PLAIN     1200 /* type and body of all but probes: fits any path that IPv6 allows */
#define SESSION_MAX_PADDING   (SESSION_MAX_PLAIN - 1 - SESSION_TX_ID_LEN)
/* A ping as long as its pong, so that nobody gains by a forged source address. */
#define SESSION_PING_PADDING  (SESSION_PONG_LEN - 1 - SESSION_TX_ID_LEN)
#define SESSION_MAX_LEN	      (SESSION_HEADER_LEN + SESSION_MAX_PLAIN + SESSION_TAG_LEN)
/* A probe is as long as the question it asks: up to a datagram that fills 9000 bytes of IPv4. */
#define SESSION_MAX_PROBE_LEN 8972
/* What a probe has besides its padding. */
#define SESSION_PROBE_LEN     (SESSION_HEADER_LEN + 1 + SESSION_TX_ID_LEN + SESSION_TAG_LEN)

/* Why a message was not taken. All are counted and dropped; none ends anything. */
enum session_error {
	SESSION_E_MALFORMED = 1, /* too short, too long, wrong magic, or a body that is not as drawn */
	SESSION_E_TYPE,		 /* well formed, but of a type we do not know */
	SESSION_E_UNKNOWN_KEY,	 /* no peer has a session key of this id */
	SESSION_E_REFLECTED,	 /* our own message came back to us */
	SESSION_E_FORGED,	 /* the box does not open */
	SESSION_E_REPLAYED,	 /* opened, but this counter was seen before or is too old */
	SESSION_N_ERRORS,
};

enum session_message_type {
	SESSION_PING = 1,
	SESSION_PONG = 2,
	SESSION_RENDEZVOUS = 3,
	SESSION_WIREGUARD = 4,
	SESSION_PROBE = 5,
	SESSION_PASSED = 6,
	SESSION_RECEIPT = 7,
	SESSION_NAT = 8,
	SESSION_SEARCH = 9, /* what NAT says, and that the search has begun */
};

#define SESSION_NO_RECEIPT UINT32_MAX /* an age: nothing in the last minute */

/* In clear, and authenticated by the box. */
struct session_header {
	uint8_t key_id[SESSION_KEY_ID_LEN];
	uint64_t counter;
};

/* What the sender's NAT does, in the numbers of the protocol; 0: not known. */
struct session_nat {
	uint8_t mapping, filtering; /* 1 no NAT, 2 endpoint-independent, 3 address-, 4 address-and-port-dependent */
	uint8_t ports;		    /* 1 as inside, 2 in steps, 3 at random */
	int16_t step;
	uint16_t low_port, high_port, last_port; /* seen, where not as inside */
	uint8_t n_ports;			 /* of these */
	struct endpoint outside;		 /* of the socket that carries packets; none: not known */
};

#define SESSION_NAT_MAX_DEPENDENCE 4
#define SESSION_NAT_MAX_PORTS	   3

struct session_message {
	enum session_message_type type;
	uint8_t tx_id[SESSION_TX_ID_LEN];    /* ping, pong, probe, passed */
	uint16_t n_padding;		     /* ping, probe */
	struct endpoint observed;	     /* pong: where the ping came from; none: by relay */
	uint16_t port;			     /* wireguard: where the sender's listens */
	uint32_t age_ms;		     /* receipt: of the last data that came directly */
	struct session_nat nat;		     /* nat, search */
	uint32_t n_endpoints;		     /* rendezvous: 0 … 32 */
	struct endpoint endpoints[SESSION_MAX_ENDPOINTS];
};

/* The first SESSION_HEADER_LEN bytes. 0 or SESSION_E_MALFORMED; *ret only on success. */
P2P_CHECK int session_header_decode(const void *datagram, size_t len, struct session_header *ret);
size_t session_header_encode(void *buf, size_t cap, const struct session_header *header);

/* The plain text of the box. 0, SESSION_E_MALFORMED or SESSION_E_TYPE; *ret only on success. */
P2P_CHECK int session_message_decode(const void *plain, size_t len, struct session_message *ret);
/* Bytes written, or 0 if they did not fit or a count is above its limit. */
size_t session_message_encode(void *buf, size_t cap, const struct session_message *message);

const char *session_error_name(enum session_error error);
const char *session_message_name(enum session_message_type type);
