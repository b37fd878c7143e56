/*
 * STUN Binding (RFC 8489) with the attributes of NAT behaviour discovery (RFC 5780).
 *
 *  0                   1                   2                   3
 *  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * |0 0|  method and class, mixed  |   length (after the header)   |
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * |                   magic cookie = 0x2112A442                   |
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * |                   transaction id (12 bytes)                   |
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * | attributes: type (2), length (2), value, zero to three padding bytes ... |
 *
 * Our server never answers with more bytes than it was asked with, so that it cannot be used to
 * amplify. A client therefore pads its question: stun_make_request() asks with STUN_REQUEST_LEN bytes,
 * filled up by spaces in SOFTWARE, which any server accepts.
 *
 * Pure.
 */
#pragma once

#include "common/endpoint.h"
#include "common/macros.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STUN_HEADER_LEN	   20
#define STUN_TX_LEN	   12
#define STUN_METHOD_BINDING 1
#define STUN_PORT	   3478
#define STUN_MAX_LEN	   1280 /* of a message we read or write */
#define STUN_MAX_SOFTWARE  127	/* characters kept; the rest is ignored */
#define STUN_MAX_UNKNOWN   8	/* kept of the attributes that we do not know but should */
/* Room for the fullest answer: two IPv6 addresses besides the mapped one, and a fingerprint. */
#define STUN_REQUEST_LEN 100

enum stun_error {
	STUN_E_NOT_STUN = 1, /* not a STUN message at all, or not the whole of one */
	STUN_E_MALFORMED,    /* an attribute runs over the end or has a wrong form */
	STUN_E_FINGERPRINT,  /* FINGERPRINT is there and wrong */
};

enum stun_class { STUN_REQUEST, STUN_INDICATION, STUN_SUCCESS, STUN_ERROR };

enum stun_error_code { STUN_CODE_BAD_REQUEST = 400, STUN_CODE_UNKNOWN_ATTRIBUTE = 420 };

struct stun_tx {
	uint8_t bytes[STUN_TX_LEN];
};

/* An endpoint that is none (all zero) stands for an attribute that is not there. */
struct stun_message {
	enum stun_class class;
	uint16_t method;
	struct stun_tx tx;
	struct endpoint mapped;		 /* XOR-MAPPED-ADDRESS, else MAPPED-ADDRESS */
	struct endpoint response_origin; /* the rest of the addresses: RFC 5780 */
	struct endpoint other_address;
	bool has_change_request, change_ip, change_port;
	uint16_t response_port; /* 0: none */
	uint16_t error_code;	/* 300 … 699; 0: none */
	bool has_fingerprint;	/* decoding: there and right. Encoding: to be added */
	uint8_t n_unknown;	/* comprehension-required attributes not known here; in an error: those named */
	uint16_t unknown[STUN_MAX_UNKNOWN];
	char software[STUN_MAX_SOFTWARE + 1];
};

/* 0 or an enum stun_error; writes *ret only on success. The datagram must be exactly one message. */
P2P_CHECK int stun_decode(const void *buf, size_t len, struct stun_message *ret);
/* Bytes written, or 0 if they did not fit. mapped is written as XOR-MAPPED-ADDRESS. */
size_t stun_encode(void *buf, size_t cap, const struct stun_message *message);

bool stun_tx_equal(const struct stun_tx *a, const struct stun_tx *b);
/* A Binding request with a fingerprint, STUN_REQUEST_LEN long when encoded; add change_* as you like. */
void stun_make_request(struct stun_message *ret, const struct stun_tx *tx);
