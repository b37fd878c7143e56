/*
 * Key types. A public and a secret key are different types, so that they cannot be mixed up.
 *
 * node key     X25519, life of the device: WireGuard static key and overlay identity
 * session key  X25519, life of one Session: boxes session messages between peers
 *
 * Text form of both: standard base64 with padding, 44 characters, as wg(8) prints them.
 */
#pragma once

#include "common/macros.h"

#include <stdbool.h>
#include <stdint.h>

#define KEY_LEN	       32
#define KEY_TEXT_LEN   44
#define KEY_HEX_LEN    64

struct public_key {
	uint8_t bytes[KEY_LEN];
};

/* Wiped by its owner with secret_key_wipe(); never logged. */
struct secret_key {
	uint8_t bytes[KEY_LEN];
};

struct key_text {
	char s[KEY_TEXT_LEN + 1];
};

/* A new random X25519 secret key, clamped. sodium_init() must have been called. */
void secret_key_generate(struct secret_key *ret);
void secret_key_wipe(struct secret_key *key);
/* The public half. */
void secret_key_public(const struct secret_key *key, struct public_key *ret);
bool secret_key_is_zero(const struct secret_key *key);

bool public_key_equal(const struct public_key *a, const struct public_key *b);
bool public_key_is_zero(const struct public_key *key);
struct key_text public_key_text(const struct public_key *key);
/* First eight characters: enough for a log line. */
struct key_text public_key_short(const struct public_key *key);

/* 0, or -EINVAL when the text is not exactly one key; writes *ret only on success. */
P2P_CHECK int public_key_parse(const char *text, struct public_key *ret);
P2P_CHECK int secret_key_parse(const char *text, struct secret_key *ret);
/* The same 32 bytes as 64 lower-case hex digits (UAPI, certificates). ret has room for KEY_HEX_LEN + 1. */
void key_to_hex(const uint8_t bytes[KEY_LEN], char *ret);
P2P_CHECK int key_from_hex(const char *text, uint8_t ret[KEY_LEN]);
/* The text form of a secret, for a file the caller keeps private; wipe it after use. */
void secret_key_text(const struct secret_key *key, struct key_text *ret);
