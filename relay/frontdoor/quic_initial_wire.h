/*
 * Which host does a QUIC client want? From the Initial packets of its first datagrams (RFC 9000, 9001; version 2:
 * RFC 9369). They are protected with keys that follow from a connection ID in the open, so everybody on the way can
 * read them; nobody who cannot is deceived by it.
 *
 *   datagram ──► long header: version, connection IDs ─┬─ version unknown ─► UNKNOWN_VERSION
 *                 │                                    └─ not an Initial ──► refused
 *                 ▼ keys from the client's first destination connection ID
 *                Initial packet(s) ─► CRYPTO frames, in any order, over several datagrams
 *                 │                    │ put together by their offsets
 *                 └ PADDING, PING, ACK ▼
 *                                     ClientHello whole ─► server name ─► FOUND
 *
 *  0                   1                   2                   3
 *  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * |1|1| T |R R|P P|                  version (32) …               |   R and P under header protection
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * | n (8), destination ID (n) | n (8), source ID (n) |
 * | token length (varint), token | length (varint) | packet number (1 + P) | payload … tag (16) |
 *
 * The owner has one struct quic_initial for each client that is not known yet, found by address and destination ID
 * (quic_header_decode()), and keeps the datagrams themselves: all of them go to the owner of the host. That a client was
 * REFUSED it does not remember: what overtook the first datagram of a good one is refused, and that one begins anew.
 *
 * Pure: no clock, no I/O, nothing allocated here (OpenSSL's contexts aside). Bounded by the size of the struct.
 */
#pragma once

#include "common/macros.h"
#include "relay/frontdoor/sniffer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QUIC_VERSION_1	  0x00000001U
#define QUIC_VERSION_2	  0x6b3343cfU
#define QUIC_MAX_CID	  20	/* of versions 1 and 2 */
#define QUIC_MAX_OTHER_CID 255	/* of any: who speaks another is answered with both IDs, however long (RFC 8999) */
#define QUIC_MIN_FIRST_CID 8	/* of the destination ID that a client begins with */
#define QUIC_MIN_DATAGRAM 1200	/* that holds a client's Initial: RFC 9000, section 14.1 */
#define QUIC_MAX_HELLO	  16384 /* a client that may send ten packets before it is answered sends no more */
#define QUIC_MAX_OPENED	  4	/* Initial packets of one datagram that are opened: a client sends one or two */
#define QUIC_MAX_DATAGRAMS 32	/* of a client that is not known by then: twice what such a hello needs */

struct quic_cid {
	uint8_t len;
	uint8_t bytes[QUIC_MAX_OTHER_CID];
};

enum quic_packet_type {
	QUIC_INITIAL,
	QUIC_ZERO_RTT,
	QUIC_HANDSHAKE,
	QUIC_RETRY,
	QUIC_SHORT,	     /* the short header; where its ID ends only who gave it knows */
	QUIC_NEGOTIATION,    /* Version Negotiation */
	QUIC_OTHER_VERSION,  /* nothing is known of it but the IDs (RFC 8999) */
};

struct quic_header {
	enum quic_packet_type type;
	uint32_t version;
	struct quic_cid destination, source; /* not of QUIC_SHORT */
};

enum quic_error {
	QUIC_E_MALFORMED = 1, /* cut, or of version 1 or 2 with longer IDs than theirs */
};

/* Of the first packet in a datagram. 0 or an enum quic_error. */
P2P_CHECK int quic_header_decode(const uint8_t *datagram, size_t len, struct quic_header *ret);
/*
 * Version Negotiation in answer to that header (RFC 9000, section 17.2.1): 1 and 2 are spoken here. Bytes written, or
 * 0 if they did not fit. To be sent only for a datagram of QUIC_MIN_DATAGRAM or more, which is always the larger one.
 */
size_t quic_encode_negotiation(const struct quic_header *header, uint8_t *ret, size_t cap);

/* ---- keys ------------------------------------------------------------------------------------ */

struct quic_keys {
	uint8_t key[16], iv[12], header[16];
};

/* The client's keys of Initial packets. 0, -EPROTONOSUPPORT: no such version, or -EIO: OpenSSL failed. */
P2P_CHECK int quic_initial_keys(uint32_t version, const struct quic_cid *destination, struct quic_keys *ret);

/* ---- the hello ------------------------------------------------------------------------------- */

enum quic_outcome {
	QUIC_MORE,    /* more datagrams of this client are needed */
	QUIC_FOUND,   /* found says what */
	QUIC_REFUSED, /* reason says why; nothing is answered */
	QUIC_UNKNOWN_VERSION, /* the first datagram is of a version that is not known here: quic_encode_negotiation() */
};

/* 18 KiB and more; nothing to free. Only outcome, reason, found and n_ignored are for the owner to read. */
struct quic_initial {
	enum quic_outcome outcome;
	enum sniffer_reason reason;
	struct sniffed found;
	uint32_t n_ignored; /* packets that are not part of it: of others, damaged, or forged */

	bool has_begun;
	uint32_t n_datagrams;
	uint32_t version;
	struct quic_cid destination;
	struct quic_keys keys;
	bool has_number;
	uint64_t largest; /* packet number so far */
	uint32_t n_whole; /* bytes of the hello without a gap, from its start */
	uint8_t hello[QUIC_MAX_HELLO];
	uint8_t is_there[QUIC_MAX_HELLO / 8]; /* a bit for each byte of hello */
};

void quic_initial_init(struct quic_initial *initial);
/*
 * The next datagram of this client, in whatever order they come. The first must begin with an Initial packet; what
 * else comes later is counted and ignored. What is not MORE stays so.
 */
enum quic_outcome quic_initial_read(struct quic_initial *initial, const uint8_t *datagram, size_t len);
