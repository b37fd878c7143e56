/*
 * Showing control that one has a node key, without a certificate.
 *
 * Control makes a challenge for one connection: a throw-away X25519 key and 32 random bytes. The
 * node answers with a box from its node key to that key, holding the challenge and the pin of the
 * server it talks to, so that an answer given to another server is worth nothing. Pure.
 *
 *   proof = base64( nonce 24 ‖ crypto_box( "p2pnode-proof-1" NUL ‖ challenge 32 ‖ pin 32 ) )
 */
#pragma once

#include "common/error.h"
#include "common/join_link.h"
#include "common/json.h"
#include "common/key.h"

#include <stdbool.h>
#include <stdint.h>

#define NODE_PROOF_LEN 160 /* characters */

struct node_challenge {
	struct public_key public_key;
	struct public_key random; /* 32 bytes; no key, but written like one */
};

/* *ret_secret is kept by control for the check, and wiped by it. */
void node_challenge_make(struct node_challenge *ret, struct secret_key *ret_secret);
struct json *node_challenge_to_json(const struct node_challenge *challenge);
P2P_CHECK int node_challenge_from_json(const struct json *json, struct node_challenge *ret,
				       struct error *reterr);

/* 0, or -EINVAL when the challenge's key is not usable. */
P2P_CHECK int node_proof_make(const struct node_challenge *challenge, const struct pin *server,
			      const struct secret_key *node_key, char ret[NODE_PROOF_LEN + 1]);
bool node_proof_is_right(const struct node_challenge *challenge, const struct secret_key *secret,
			 const struct pin *server, const struct public_key *node_key,
			 const char *proof);
