/*
 * Which host does a visitor want? Read from the first bytes of a TCP connection, of which none is changed.
 *
 *                      ┌─ 0x16 ────────────── TLS: records → ClientHello → server name ─┐
 *  first bytes ────────┼─ "PRI * HTTP/2.0…" ─ HTTP/2: frames → header block → :authority ┼─► FOUND   host, protocol …
 *   │  ▲               ├─ a method ────────── HTTP/1: request line, fields → Host ──────┤
 *   │  │ MORE          └─ anything else ────────────────────────────────────────────────┴─► REFUSED reason, answer
 *   └──┘ ask again with more
 *
 * Nothing is guessed: what is not understood is refused, and what could be read in two ways is not understood.
 * docs/FRONT-DOOR.md has the table of what is routed and what is refused.
 *
 * The host is found when the ClientHello or the head of the request is whole: only then it is known that no second
 * host stands further on. Until then the owner keeps all bytes in one buffer and asks again whenever some have come;
 * what was read is not read again, so a visitor that sends a byte at a time costs as much as one that sends all.
 *
 * Pure: no I/O, no clock, no allocation. Time limits are the owner's.
 */
#pragma once

#include "relay/frontdoor/host_name.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SNIFFER_MAX_HELLO (64 * 1024) /* of a ClientHello, without headers of records */
#define SNIFFER_MAX_HEAD  (32 * 1024) /* of the head of an HTTP/1 request, and of an HTTP/2 header block */
/* No visitor is MORE at that many bytes: as large as the owner's buffer need ever be. */
#define SNIFFER_MAX (SNIFFER_MAX_HELLO + 1024)

enum sniffer_outcome {
	SNIFFER_MORE,	 /* not known yet: ask again when more bytes have come */
	SNIFFER_FOUND,	 /* sniffer.found says what */
	SNIFFER_REFUSED, /* sniffer.reason says why, sniffer_answer() what the visitor gets */
};

enum sniffer_protocol {
	SNIFFER_UNKNOWN, /* too early to say, or none of these */
	SNIFFER_TLS,
	SNIFFER_HTTP_1,
	SNIFFER_HTTP_2, /* without TLS, by prior knowledge */
	SNIFFER_QUIC,	/* over UDP: quic_initial_wire.h */
	/* Of any protocol, by the port alone (port_name.h): nothing is sniffed, and host is the port's name. */
	SNIFFER_TCP,
	SNIFFER_UDP,
	SNIFFER_N_PROTOCOLS
};

enum sniffer_reason {
	SNIFFER_NOT_REFUSED,
	SNIFFER_NO_PROTOCOL,  /* none that is known here */
	SNIFFER_NO_HOST,      /* none was named: no SNI, no Host, no :authority */
	SNIFFER_TWO_HOSTS,    /* named twice, or two that differ */
	SNIFFER_HOST_INVALID, /* no name that a host can have */
	SNIFFER_HOST_ADDRESS, /* an IP address instead of a name */
	SNIFFER_TOO_LONG,     /* a head, hello or header block beyond the limit */
	SNIFFER_SSL_2,	      /* a hello in the form of SSL 2 */
	SNIFFER_TLS_RECORD,   /* not a record of a handshake, or an empty one */
	SNIFFER_TLS_HELLO,    /* not a ClientHello, or a malformed one */
	SNIFFER_HTTP_LINE,    /* the request line is none */
	SNIFFER_HTTP_FIELD,   /* a header field is none: folded, bare CR or LF, NUL, space before the colon … */
	SNIFFER_HTTP_CONNECT, /* CONNECT: this is no forward proxy */
	SNIFFER_H2_FRAME,     /* a frame that cannot stand there, or is malformed */
	SNIFFER_H2_HEADERS,   /* the header block does not decode, or is no request's */
	SNIFFER_QUIC_PACKET,   /* not an Initial packet of a client's, or a malformed one */
	SNIFFER_QUIC_SHORT,    /* an Initial packet in a datagram of less than 1,200 bytes */
	SNIFFER_QUIC_CONFLICT, /* two pieces of one hello that say different things of the same bytes */
	SNIFFER_N_REASONS
};

enum sniffer_answer {
	SNIFFER_RESET,	  /* nothing: the connection is reset */
	SNIFFER_HTTP_400, /* sniffer_bad_request, then close: HTTP/1 whose head breaks a rule of HTTP */
};

/* What was found out. */
struct sniffed {
	enum sniffer_protocol protocol;
	struct host_name host;
	/* HTTP: the path is that of an ACME challenge (http-01, RFC 8555), "/.well-known/acme-challenge/<token>". */
	bool is_acme_http;
	/* TLS and QUIC, by ALPN: "acme-tls/1" and nothing else (tls-alpn-01, RFC 8737); what of HTTP is offered. */
	bool is_acme_tls, offers_http_1, offers_h2, offers_h3;
	bool offers_relay, offers_webgw, offers_dial_back; /* the same: protocols of the node itself */
	/*
	 * TLS and QUIC: an encrypted ClientHello (or GREASE that looks like one) is inside, and host is the outer name, the
	 * one that is public.
	 */
	bool has_ech;
	/* TCP: nothing came behind the head, or behind the records of the hello: no second request, no early data. */
	bool is_all;
};

/* Fixed size, nothing to free. Only found, reason and protocol are for the owner to read. */
struct sniffer {
	enum sniffer_outcome outcome;
	enum sniffer_reason reason;	/* with SNIFFER_REFUSED */
	enum sniffer_protocol protocol; /* as soon as it is known; also of who is refused later */
	struct sniffed found;		/* with SNIFFER_FOUND; of TLS with NO_HOST and HOST_ADDRESS, too: what ALPN offers */

	/* How far it got: offsets into the visitor's bytes. */
	uint32_t at;	  /* of the line, record or frame that is not whole yet */
	uint32_t scanned; /* HTTP/1: no end of line before this */
	uint32_t first;	  /* HTTP/2: of the frame HEADERS */
	uint32_t length;  /* of the hello, or of the header block, as far as its pieces came */
	uint32_t stream;  /* HTTP/2: whose header block it is */
	uint8_t stage;	  /* the protocol's own */
	bool is_old, has_host;
	struct host_name authority; /* HTTP/1: of the request line; len 0: none */
};

void sniffer_init(struct sniffer *sniffer);
/*
 * bytes: all that came from the visitor so far, from the first on; n never falls. What was FOUND or REFUSED once
 * stays so. The bytes are not kept.
 */
enum sniffer_outcome sniffer_read(struct sniffer *sniffer, const uint8_t *bytes, size_t n);

/* What a refused visitor gets. */
enum sniffer_answer sniffer_answer(const struct sniffer *sniffer);
/* The whole answer of SNIFFER_HTTP_400, without a body. */
extern const char sniffer_bad_request[];

/* Names for logs and counters: "tls", "http/1", "http/2", "quic", "tcp", "udp", "unknown"; "no-host", "two-hosts" … */
const char *sniffer_protocol_name(enum sniffer_protocol protocol);
const char *sniffer_reason_name(enum sniffer_reason reason);
