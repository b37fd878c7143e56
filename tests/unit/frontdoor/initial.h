/* QUIC's Initial packets to test with, sealed as a client does (RFC 9001, section 5; RFC 9369). */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct initial_options {
	uint32_t version;	 /* 0: version 1 */
	const char *destination; /* the ID; NULL: the one of the RFCs' appendices */
	uint8_t destination_len;
	size_t token_len;
	uint32_t number;
	uint8_t number_len; /* 0: 4 */
	uint8_t reserved;   /* bits that have to be zero */
	size_t pad_to;	    /* PADDING up to a datagram of that length; 0: QUIC_MIN_DATAGRAM */
};

/* A datagram with one Initial packet that holds these frames. Bytes written; it must fit. */
size_t initial_build(const struct initial_options *options, const uint8_t *frames, size_t len, uint8_t *ret, size_t cap);
/* A CRYPTO frame. Bytes written. */
size_t initial_crypto(uint64_t offset, const uint8_t *bytes, size_t len, uint8_t *ret, size_t cap);
/* The whole of a message in one CRYPTO frame of one datagram, version 1, packet 0. */
size_t initial_with_hello(const uint8_t *message, size_t len, uint8_t *ret, size_t cap);
