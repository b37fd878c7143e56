/*
 * The PROXY protocol (versions 1 and 2): who a connection is really from, said in its first bytes by who passes it on.
 *
 * Version 2, binary:
 *
 *  0                   1                   2                   3
 *  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 * +---------------------------------------------------------------+
 * |       0d 0a 0d 0a 00 0d 0a 51 55 49 54 0a: the signature      |
 * |                                                               |
 * |                                                               |
 * +-------+-------+-------+-------+-------------------------------+
 * |  2    |command|family | kind  |    length of what follows     |   command 0: LOCAL, 1: PROXY; kind 1: a stream, 2: datagrams
 * +-------+-------+-------+-------+-------------------------------+
 * | source, destination: addresses (4 or 16 bytes each), then ports |   family 1: IPv4, 2: IPv6, 0: nothing stands here
 * | type (1), length (2), value; again and again                    |   0x01 ALPN, 0x02 AUTHORITY, 0x05 UNIQUE_ID,
 * +-----------------------------------------------------------------+   our own: 0xe0 the scheme, 0xe1 how many doors;
 *                                                                       others are skipped
 *
 * Version 1, text: "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n", TCP6 likewise, or "PROXY UNKNOWN ...\r\n".
 *
 * LOCAL and UNKNOWN: the connection is from who opened it, and not on behalf of somebody else.
 *
 * A reader knows beforehand which version comes and that one comes at all; nothing is guessed from the bytes. What
 * could be read in two ways (a value that may stand once, twice) is malformed. Pure.
 */
#pragma once

#include "common/endpoint.h"
#include "common/macros.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PROXY_V1_MAX_LEN 107
#define PROXY_V2_MAX_LEN 4096 /* of what is read; the form would allow for 64 KiB and more */
#define PROXY_V2_HEAD_LEN 16
#define PROXY_MAX_UNIQUE_ID 128

enum proxy_header_error {
	PROXY_MORE = 1,	   /* as far as it came it may be one: ask again with more */
	PROXY_NO_HEADER,   /* something else */
	PROXY_UNSUPPORTED, /* another version, command or family than the above */
	PROXY_TOO_LONG,
	PROXY_MALFORMED,
};

/* What the visitor spoke, as our own value says it; what it means is the reader's. */
enum proxy_scheme {
	PROXY_NO_SCHEME,
	PROXY_HTTP,
	PROXY_HTTPS,
	PROXY_TCP,
	PROXY_UDP,
	PROXY_N_SCHEMES
};

/* at: borrowed from the header's bytes; NULL: not there. */
struct proxy_value {
	const uint8_t *at;
	size_t len;
};

struct proxy_header {
	bool is_datagram; /* version 2: of UDP; needs has_addresses */
	bool has_addresses; /* else LOCAL (then nothing else is there), UNKNOWN or of no family: the two are none */
	struct endpoint source, destination;
	struct proxy_value alpn, authority, unique_id; /* version 2 */
	enum proxy_scheme scheme;		       /* version 2 */
	uint8_t n_doors; /* version 2: so many doors have passed it on, also who says so; 0: it does not say */
};

/*
 * bytes: all that came from the first on; n: how many. 0, and *ret_len is where the header ends; or an enum
 * proxy_header_error. Of the same bytes, and more behind them, the outcome is the same, but for PROXY_MORE. Both are written
 * only on success.
 */
P2P_CHECK int proxy_v1_decode(const uint8_t *bytes, size_t n, struct proxy_header *ret, size_t *ret_len);
P2P_CHECK int proxy_v2_decode(const uint8_t *bytes, size_t n, struct proxy_header *ret, size_t *ret_len);

/*
 * Bytes written, or 0: they do not fit. Of version 1 PROXY_V1_MAX_LEN are enough. Values that are not
 * there are left out; version 2 without any, and without addresses, is LOCAL.
 */
P2P_CHECK size_t proxy_v1_encode(const struct proxy_header *header, uint8_t *buf, size_t size);
P2P_CHECK size_t proxy_v2_encode(const struct proxy_header *header, uint8_t *buf, size_t size);

/* "more", "no-header" … for logs. */
const char *proxy_header_error_name(int error);
