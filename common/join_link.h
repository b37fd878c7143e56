/*
 * The links that bring a machine or an admin to a network, each one line of text:
 *
 *   p2p://HOST:PORT/#PIN.KEY           joins a node; KEY is a join key, "jk_…"
 *   p2p-admin://HOST:PORT/#PIN.TOKEN   an admin; TOKEN is "at_…"
 *
 * HOST is a name, an IPv4 address or an IPv6 address in brackets. PIN is SHA-256 of control's
 * SubjectPublicKeyInfo, base64url without padding (43 characters). KEY and TOKEN are a prefix and
 * 24 random bytes as base64url (32 characters). A link is a secret: wipe it, never log it. Pure.
 */
#pragma once

#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PIN_LEN              32
#define PIN_TEXT_LEN         43
#define JOIN_LINK_MAX_HOST   253
#define JOIN_LINK_SECRET_LEN 35 /* "jk_" and 32 characters */
#define JOIN_LINK_MAX_LEN    400

/* SHA-256 of a SubjectPublicKeyInfo. */
struct pin {
	uint8_t bytes[PIN_LEN];
};

struct pin_text {
	char s[PIN_TEXT_LEN + 1];
};

enum join_link_kind { JOIN_LINK_NODE, JOIN_LINK_ADMIN };

struct join_link {
	enum join_link_kind kind;
	char host[JOIN_LINK_MAX_HOST + 1]; /* without brackets */
	uint16_t port;
	struct pin pin;
	char secret[JOIN_LINK_SECRET_LEN + 1]; /* join key or admin token */
};

struct join_link_text {
	char s[JOIN_LINK_MAX_LEN + 1];
};

bool pin_equal(const struct pin *a, const struct pin *b);
struct pin_text pin_text(const struct pin *pin);
P2P_CHECK int pin_parse(const char *text, struct pin *ret); /* 0 or -EINVAL */

/*
 * White space around the link is ignored. 0, or -EINVAL with what is wrong in reterr (never the
 * secret).
 */
P2P_CHECK int join_link_parse(const char *text, struct join_link *ret, struct error *reterr);
struct join_link_text join_link_text(const struct join_link *link);
void join_link_wipe(struct join_link *link);
/* A fresh join key or admin token. sodium_init() must have been called. */
void join_link_make_secret(enum join_link_kind kind, char ret[JOIN_LINK_SECRET_LEN + 1]);
bool join_link_secret_is_valid(enum join_link_kind kind, const char *secret);
/*
 * "host:port", "[2001:db8::1]:8443"; the port may be left out when fallback_port is not 0. 0 or
 * -EINVAL.
 */
P2P_CHECK int host_port_parse(const char *text, uint16_t fallback_port,
			      char ret_host[JOIN_LINK_MAX_HOST + 1], uint16_t *ret_port);
