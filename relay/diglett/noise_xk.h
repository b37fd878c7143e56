/*
 * Noise_XK_secp256k1_ChaChaPoly_SHA256: the handshake and the messages of BOLT-8, for any prologue.
 *
 *   initiator: knows rs                            responder: has s
 *     ── act 1   0 ‖ e ‖ tag ─────────────────────►   es: only who knows rs is answered
 *     ◄────────── act 2   0 ‖ e ‖ tag ─────────────   ee
 *     ── act 3   0 ‖ sealed s ‖ sealed payload ───►   se: the payload is the initiator's, and for rs alone
 *     ◄═══════════════ messages ══════════════════►   a key each way, another one after 500 messages
 *
 * BOLT-8's acts have no payload; with an empty one act 3 is its act 3. The initiator's key s is sent sealed. Who
 * disagrees about the prologue finds tags wrong in act 1.
 *
 * Pure: what is random is given by the caller. The handshake allocates nothing; a noise_link has two contexts of OpenSSL.
 * All secrets are wiped by the functions called _wipe, _deinit; a handshake that failed is wiped at once.
 */
#pragma once

#include "common/macros.h"

#include <openssl/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NOISE_PUBLIC_LEN 33 /* compressed */
#define NOISE_SECRET_LEN 32
#define NOISE_HASH_LEN	 32
#define NOISE_TAG_LEN	 16

#define NOISE_ACT_1_LEN	    50
#define NOISE_ACT_2_LEN	    50
#define NOISE_ACT_3_LEN	    66 /* with an empty payload */
#define NOISE_MAX_PAYLOAD   8192
#define NOISE_ROTATE_AFTER  1000 /* nonces: two a message */
#define NOISE_HEAD_LEN	    18	 /* before a message's body: its length and a tag */
#define NOISE_MAX_BODY	    65535
#define NOISE_MESSAGE_EXTRA (NOISE_HEAD_LEN + NOISE_TAG_LEN)

struct noise_secret {
	uint8_t bytes[NOISE_SECRET_LEN];
};

struct noise_public {
	uint8_t bytes[NOISE_PUBLIC_LEN];
};

/* What is wrong with bytes of the other side. The connection is closed, without an answer. */
enum noise_error {
	NOISE_LENGTH = 1,
	NOISE_VERSION,
	NOISE_KEY, /* no point of the curve, or not compressed */
	NOISE_TAG, /* forged, damaged, or meant for another key or prologue */
};

/* The curve's precomputed part, for one thread. */
struct noise_curve {
	void *context;
};

/* seed: random, blinds computations with secrets. 0 or -ENOMEM. */
P2P_CHECK int noise_curve_init(struct noise_curve *curve, const uint8_t seed[32]);
void noise_curve_deinit(struct noise_curve *curve);
/* False: not a secret key, which of 32 random bytes is never seen. */
P2P_CHECK bool noise_public_of(const struct noise_curve *curve, const struct noise_secret *secret,
			       struct noise_public *ret);
P2P_CHECK bool noise_public_is_valid(const struct noise_curve *curve, const struct noise_public *key);
void noise_secret_wipe(struct noise_secret *secret);

/* The fields are the handshake's, but those that say so. One thread at a time, that of its curve. */
struct noise_handshake {
	const struct noise_curve *curve;
	uint8_t hash[NOISE_HASH_LEN]; /* for the owner: of all that was said; after act 2 and act 3 the same on both sides, and no others' */
	uint8_t chain[NOISE_HASH_LEN], key[NOISE_HASH_LEN];
	struct noise_secret own, ephemeral;
	struct noise_public own_public, ephemeral_public;
	struct noise_public remote; /* for the owner: who the other side is. The responder knows it after act 3 */
	struct noise_public remote_ephemeral;
	bool is_initiator;
	uint8_t next_act; /* 1 … 3; 4: done; 0: failed */
};

/*
 * own: kept for as long as the connection lives or longer; ephemeral: 32 random bytes of this connection alone.
 * False: a key is none.
 */
P2P_CHECK bool noise_initiate(struct noise_handshake *handshake, const struct noise_curve *curve, const void *prologue,
			      size_t n_prologue, const struct noise_secret *own, const struct noise_secret *ephemeral,
			      const struct noise_public *responder);
P2P_CHECK bool noise_respond(struct noise_handshake *handshake, const struct noise_curve *curve, const void *prologue,
			     size_t n_prologue, const struct noise_secret *own, const struct noise_secret *ephemeral);

/* Each act once, in its order: asserted. The read ones: 0 or an enum noise_error, and then nothing more works. */
void noise_write_act_1(struct noise_handshake *handshake, uint8_t ret[NOISE_ACT_1_LEN]);
P2P_CHECK int noise_read_act_1(struct noise_handshake *handshake, const uint8_t *act, size_t len);
void noise_write_act_2(struct noise_handshake *handshake, uint8_t ret[NOISE_ACT_2_LEN]);
P2P_CHECK int noise_read_act_2(struct noise_handshake *handshake, const uint8_t *act, size_t len);
/* ret: NOISE_ACT_3_LEN + n bytes, n <= NOISE_MAX_PAYLOAD. */
void noise_write_act_3(struct noise_handshake *handshake, const void *payload, size_t n, uint8_t *ret);
/* The payload's len - NOISE_ACT_3_LEN bytes go to ret, which may be in act; on failure ret is zeroed or as it was. */
P2P_CHECK int noise_read_act_3(struct noise_handshake *handshake, const uint8_t *act, size_t len, uint8_t *ret);
void noise_handshake_wipe(struct noise_handshake *handshake);

/* One direction. */
struct noise_key {
	uint8_t key[NOISE_HASH_LEN], chain[NOISE_HASH_LEN];
	uint64_t nonce;
	EVP_CIPHER_CTX *cipher;
};

/* Both, after the handshake. One thread at a time. */
struct noise_link {
	struct noise_key sending, receiving;
};

/* After act 3; wipes the handshake but for hash and remote. 0 or -ENOMEM. deinit is safe on a zeroed one. */
P2P_CHECK int noise_link_init(struct noise_link *link, struct noise_handshake *handshake);
void noise_link_deinit(struct noise_link *link);

/* In place: the n <= NOISE_MAX_BODY bytes at message + NOISE_HEAD_LEN become a message of n + NOISE_MESSAGE_EXTRA. */
void noise_seal(struct noise_link *link, uint8_t *message, size_t n);
/*
 * A head gives the length of the body that follows, without its tag. Then the body: in place, n with its tag; a forged
 * one is zeroed. 0 or NOISE_TAG.
 */
P2P_CHECK int noise_open_head(struct noise_link *link, const uint8_t head[NOISE_HEAD_LEN], size_t *ret_body);
P2P_CHECK int noise_open_body(struct noise_link *link, uint8_t *body, size_t n);
