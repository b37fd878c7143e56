/*
 * A ClientHello (RFC 8446, section 4.1.2), as far as it says where its sender wants to go.
 *
 *  0                   1                   2                   3
 *  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * |  type = 1     |                  length                       |   of what follows
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * | version (2) | random (32) | session id <0…32> | cipher suites <2…> | compression methods <1…> |
 * | extensions <…>: type (2), length (2), value                                                  |
 *      0x0000 server_name   names <…>: type (1) = 0, name <1…>
 *      0x0010 ALPN          protocols <…>: name <1…255>
 *      0xfe0d ECH           type (1) = 0: the outer hello, around an encrypted one
 *
 * It comes in records over TCP, and in CRYPTO frames over QUIC: here it is in one piece. Pure.
 */
#pragma once

#include "common/macros.h"
#include "relay/frontdoor/host_name.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CLIENT_HELLO_HEADER_LEN 4

enum client_hello_error {
	CLIENT_HELLO_MALFORMED = 1,
	CLIENT_HELLO_NO_NAME,
	CLIENT_HELLO_TWO_NAMES, /* two names of hosts, or the extension twice */
	CLIENT_HELLO_NAME,	/* no name that a host can have */
	CLIENT_HELLO_ADDRESS,	/* an IP address instead of a name (RFC 6066, section 3, forbids it) */
};

struct client_hello {
	struct host_name host;
	bool is_acme; /* "acme-tls/1" is all that ALPN offers */
	bool offers_h2, offers_http_1, offers_h3;
	/* Our own protocols: RELAY_ALPN, WEBGW_SOCKET_ALPN, WEBGW_ALPN. */
	bool offers_relay, offers_webgw, offers_dial_back;
	bool has_ech; /* real or GREASE: nobody but who has the key can tell */
};

/* The length of the whole message, header included, from its first CLIENT_HELLO_HEADER_LEN bytes; 0: no ClientHello. */
size_t client_hello_length(const uint8_t *header);
/*
 * message: exactly one, header included. 0 or an enum client_hello_error; *ret is written on success; and with NO_NAME and ADDRESS, which
 * are right in everything else: then host.len is 0.
 */
P2P_CHECK int client_hello_decode(const uint8_t *message, size_t len, struct client_hello *ret);
