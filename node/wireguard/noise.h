/*
 * Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s, both roles.
 *
 *   initiator                                                responder
 *   write_initiation ── e, es, s, ss, payload ─────────────► open_initiation    (who is it?)
 *                                                            finish_initiation  (is it really?)
 *   read_response  ◄── e, ee, se, psk, payload ───────────── write_response
 *        │                                                        │
 *        └── session keys                                         └── session keys
 *
 * An initiator keeps a struct wg_noise per peer between its two steps. A responder needs nothing
 * between messages: it answers at once, so its state is a local variable, and an initiation that
 * comes while our own is under way does not disturb it.
 *
 * Payloads and prologue are parameters, so that published vectors run through the same code.
 */
#pragma once

#include "common/key.h"
#include "common/macros.h"
#include "node/wireguard/crypto.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WG_NOISE_PROLOGUE "WireGuard v1 zx2c4 Jason@zx2c4.com"
/* What the messages are longer than their payloads. */
#define WG_NOISE_FIRST_OVERHEAD	 (KEY_LEN + KEY_LEN + WG_AEAD_TAG_LEN + WG_AEAD_TAG_LEN)
#define WG_NOISE_SECOND_OVERHEAD (KEY_LEN + WG_AEAD_TAG_LEN)

enum wg_noise_error {
	WG_NOISE_E_DECRYPT = 1, /* forged, for somebody else, or other secrets than ours */
	WG_NOISE_E_LOW_ORDER,	/* a public key that makes a Diffie-Hellman result zero */
	WG_NOISE_E_STATE,	/* no initiation of ours is waiting for a response */
	WG_NOISE_E_MALFORMED,	/* shorter than its fixed parts */
};

struct wg_transcript {
	uint8_t chain[WG_HASH_LEN]; /* "chaining key" */
	uint8_t hash[WG_HASH_LEN];
};

/* What is the same for all handshakes of one device. */
struct wg_local {
	struct wg_crypto crypto;
	struct wg_transcript start; /* after protocol name and prologue */
	struct secret_key secret;   /* all zero: no identity yet */
	struct public_key public;
};

/* What is known of a remote before a handshake. */
struct wg_remote {
	struct public_key public;
	uint8_t static_static[KEY_LEN]; /* DH of both static keys */
	bool usable;			/* false: that was zero, or we have no identity */
	uint8_t psk[KEY_LEN];		/* all zero: none */
};

/* Our initiation that waits for its response. All zero: none. */
struct wg_noise {
	bool waiting;
	struct wg_transcript transcript;
	struct secret_key ephemeral;
};

/* An initiation being answered: the responder's local variable, wiped by its user. */
struct wg_noise_opened {
	struct wg_transcript transcript;
	uint8_t key[KEY_LEN];
	struct public_key remote_static, remote_ephemeral;
};

struct wg_session_keys {
	uint8_t send[KEY_LEN], receive[KEY_LEN];
};

/* 0 or -errno of wg_crypto_init. */
P2P_CHECK int wg_local_init(struct wg_local *local, const void *prologue, size_t n_prologue);
void wg_local_deinit(struct wg_local *local);
void wg_local_set_secret(struct wg_local *local, const struct secret_key *secret);

/* Also after our own key has changed. Keeps the psk. */
void wg_remote_set_key(struct wg_remote *remote, const struct wg_local *local,
		       const struct public_key *public);

/* ret gets n + WG_NOISE_FIRST_OVERHEAD bytes. 0 or an enum wg_noise_error; noise is then cleared. */
P2P_CHECK int wg_noise_write_initiation(struct wg_noise *noise, const struct wg_local *local,
					const struct wg_remote *remote, const struct secret_key *ephemeral,
					const void *payload, size_t n, uint8_t *ret);
/* Steps e, es, s: *ret names the sender, who is not yet authenticated. */
P2P_CHECK int wg_noise_open_initiation(const struct wg_local *local, const uint8_t *message, size_t n,
				       struct wg_noise_opened *ret);
/* Step ss and the payload (n - WG_NOISE_FIRST_OVERHEAD bytes): now the sender is known to be remote. */
P2P_CHECK int wg_noise_finish_initiation(struct wg_noise_opened *opened, const struct wg_local *local,
					 const struct wg_remote *remote, const uint8_t *message, size_t n,
					 uint8_t *ret_payload);
/* ret gets n + WG_NOISE_SECOND_OVERHEAD bytes, *ret_keys the session's keys. */
P2P_CHECK int wg_noise_write_response(struct wg_noise_opened *opened, const struct wg_local *local,
				      const struct wg_remote *remote, const struct secret_key *ephemeral,
				      const void *payload, size_t n, uint8_t *ret,
				      struct wg_session_keys *ret_keys);
/*
 * 0: *ret_keys and the payload are filled and noise is cleared. On any error noise is as before: a
 * forged response does not end a handshake.
 */
P2P_CHECK int wg_noise_read_response(struct wg_noise *noise, const struct wg_local *local,
				     const struct wg_remote *remote, const uint8_t *message, size_t n,
				     uint8_t *ret_payload, struct wg_session_keys *ret_keys);
void wg_noise_clear(struct wg_noise *noise);
