/*
 * How an agent shows that it is a node of a network: the node's certificate, spiffe://NETWORK/node/NAME, and a signature
 * with its key over what only this connection has.
 *
 *   signed: "diglett/2 node badge" NUL ‖ the handshake's hash after act 2 (32) ‖ the agent's static key (33)
 *
 * The hash has both ephemeral keys and the server's key in it: a badge is worth nothing in another connection, nor to
 * another server. Pure.
 */
#pragma once

#include "common/certificate.h"
#include "common/error.h"

#include <stdint.h>

#define NODE_BADGE_MAX_CERTIFICATE 1024 /* DER; p2pcontrol's have some 600 bytes */
#define NODE_BADGE_MAX_SIGNATURE   72	/* ECDSA with P-256 and SHA-256, DER */

struct node_badge {
	uint16_t n_certificate; /* 0: there is no badge */
	uint8_t n_signature;
	uint8_t certificate[NODE_BADGE_MAX_CERTIFICATE], signature[NODE_BADGE_MAX_SIGNATURE];
};

struct node_badge_binding {
	uint8_t hash[32], agent[33];
};

/* 0, or -EINVAL: key or certificate is none, or they are not of each other. */
P2P_CHECK int node_badge_make(const char *key_pem, const char *certificate_pem, const struct node_badge_binding *binding,
			      struct node_badge *ret, struct error *reterr);
/* Of a node of that network, by that CA, valid now, and bound? 0, or -EACCES with the reason. */
P2P_CHECK int node_badge_check(const struct node_badge *badge, const struct node_badge_binding *binding,
			       const char *ca_pem, const char *network, int64_t now_s, struct identity *ret,
			       struct error *reterr);
