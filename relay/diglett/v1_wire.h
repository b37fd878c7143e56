/*
 * Version 1 of diglett, as its agents of 2023 speak it, byte by byte. Only for servers that were told to let such in
 * (allow_v1): whoever hears such a connection reads it.
 *
 *   agent  ── "digl" 1 key (33) ──────────────────────────────────►  server    plain, 38 bytes
 *          ◄────────────────────────────────── "digl" 1 key (33) ──            plain, at once
 *          ══ frames: kind (1), id (4), size (2), payload ══════════            ChaCha20
 *
 *   S = the point agreed on, x and y; K = SHA-512(S); key = K[0 … 31], iv = K[32 … 47]
 *
 * Both directions have the same key and the same iv: the same keystream. The server's first two frames are 14 bytes that
 * are all zero, so that they are keystream, and open the first 14 of the agent, in which its token begins; later each
 * byte that is known of the one direction opens one of the other. Nothing shows that a byte was changed, nor who the
 * other side is. tests/unit/diglett/test_v1_wire.c does it.
 *
 * The iv's first 32 bits are the counter of blocks, little endian, and carry into the next.
 *
 * Pure. A cipher has a context of OpenSSL.
 */
#pragma once

#include "relay/diglett/noise_xk.h"

#define V1_VERSION     1
#define V1_HELLO_LEN   38
#define V1_MAGIC_FIRST 'd' /* of diglett/2 the first byte is 0 */
#define V1_KEY_LEN     32
#define V1_IV_LEN      16
#define V1_HEAD_LEN    7
#define V1_MAX_PAYLOAD 65535

enum v1_kind {
	V1_OK,
	V1_ERROR,
	V1_REGISTER,
	V1_FINISH_REGISTER,
	V1_PAYLOAD,
	V1_CLOSE,
	V1_TERMINATE,
	V1_LOGIN,
	V1_N_KINDS,
};

struct v1_head {
	enum v1_kind kind;
	uint32_t id; /* of the registration in the high half, of the visitor in the low one */
	uint16_t size;
};

struct v1_keys {
	uint8_t key[V1_KEY_LEN], iv[V1_IV_LEN];
};

/* One direction. */
struct v1_cipher {
	EVP_CIPHER_CTX *context;
};

void v1_hello_write(const struct noise_public *key, uint8_t ret[V1_HELLO_LEN]);
/* 0, or NOISE_VERSION, NOISE_KEY. */
P2P_CHECK int v1_hello_read(const struct noise_curve *curve, const uint8_t hello[V1_HELLO_LEN], struct noise_public *ret);
/* False: public is no point of the curve. ret is to be wiped. */
P2P_CHECK bool v1_agree(const struct noise_curve *curve, const struct noise_secret *secret,
			const struct noise_public *public, struct v1_keys *ret);
/* 0 or -ENOMEM. deinit is safe on a zeroed one. */
P2P_CHECK int v1_cipher_init(struct v1_cipher *cipher, const struct v1_keys *keys);
void v1_cipher_deinit(struct v1_cipher *cipher);
/* In place, either way. */
void v1_cipher_apply(struct v1_cipher *cipher, uint8_t *bytes, size_t n);

void v1_head_write(const struct v1_head *head, uint8_t ret[V1_HEAD_LEN]);
/* False: there is no such kind. */
P2P_CHECK bool v1_head_read(const uint8_t bytes[V1_HEAD_LEN], struct v1_head *ret);
