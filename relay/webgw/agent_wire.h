/*
 * What an agent of ours says to a public node's webgw, what it hears, and how a warm connection is claimed
 * (docs/PROTOCOL-webgw.md). Both sides' part of it that webgw_wire.h does not have.
 *
 * A warm connection, after its secret:
 *
 *   agent ─ ALIVE, ALIVE … ─────────────────────────► node
 *   agent ◄─ START, secret, port, host, first bytes ─ node     a visitor is there
 *   agent ─ TAKEN, and from then on the answer ─────► node
 *
 * Or, if both have agreed on WEBGW_ALPN and the visitor speaks TLS, TLS ends in each direction, and the connection goes on:
 *
 *   agent ◄─ START_RAW, secret, port, host, how many, so many first bytes, end of TLS ┃ the rest of them ─ node
 *   agent ─ TAKEN, end of TLS ┃ the answer ─────────────────────────────────────────────────────────────► node
 *
 * To an agent that has asked to be told of its visitors, in their places: START_FROM, START_RAW_FROM, with who it is and where it came
 * behind the host.
 *
 * Pure.
 */
#pragma once

#include "common/error.h"
#include "relay/frontdoor/host_name.h"
#include "relay/webgw/webgw_wire.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WEBGW_START_MAX (1 + WEBGW_EPHEMERAL_LEN + 2 + 1 + HOST_NAME_MAX_LEN + 2 * ENDPOINT_WIRE_LEN + 2)
#define WEBGW_FIRST_MAX 4096 /* bytes of a visitor that go with a start */
#define WEBGW_ALPN	"p2p-webgw/2" /* who agrees on it says a WEBGW_DIAL_… before each secret */
/*
 * Offered for the WebSocket, beside "http/1.1", which is what is spoken: at a port that the relay and hosts of others have as well it says
 * what is wanted, under whatever name the server is reached (relay/frontdoor/door_share.h).
 */
#define WEBGW_SOCKET_ALPN "p2p-webgw-ws"
#define WEBGW_HEX_SECRET_MAX (2 * WEBGW_MAX_SECRET)

enum { WEBGW_ALIVE = 0, WEBGW_TAKEN = 1 };
enum { WEBGW_START = 1, WEBGW_START_RAW = 2, WEBGW_START_FROM = 3, WEBGW_START_RAW_FROM = 4 };
enum { WEBGW_DIAL_WRAPPED = 1, WEBGW_DIAL_RAW = 2 /* a visitor's that speaks TLS: behind the secret TLS ends */ };

struct webgw_start {
	uint8_t secret[WEBGW_EPHEMERAL_LEN]; /* as it would have been told to dial back with */
	uint16_t port;
	struct host_name host;
	struct webgw_visitor visitor; /* told if it is whole */
	bool is_raw;
	uint16_t n_first; /* is_raw: so many bytes follow, and then TLS's end */
};

/* Bytes of it. */
size_t webgw_start_write(const struct webgw_start *start, uint8_t ret[WEBGW_START_MAX]);
/* How long it is, without the first bytes; 0: more has to come; -EINVAL: it is none, or raw and not port 443, or from nowhere. */
int webgw_start_read(const uint8_t *bytes, size_t n, struct webgw_start *ret);

enum webgw_word_kind {
	WEBGW_WORD_OTHER, /* nothing that concerns an agent */
	WEBGW_WORD_SUBSCRIBED,
	WEBGW_WORD_SECRETS,
	WEBGW_WORD_REFUSED,
	WEBGW_WORD_VISIT,
};

struct webgw_word {
	enum webgw_word_kind kind;
	int64_t id;	      /* of the request; not of a visit */
	int64_t subscription; /* SUBSCRIBED, VISIT */
	bool tells_visitors;  /* SUBSCRIBED: who they are */
	struct webgw_visitor visitor; /* VISIT */
	struct host_name host;	      /* the same, that it asked for; len 0: it was not said */
	int64_t code;	      /* REFUSED */
	char text[RPC_MAX_TEXT + 1];
	uint16_t listening_port;	     /* SECRETS, VISIT */
	uint16_t port;			     /* VISIT: 443 if the visitor speaks TLS; 0: it was not said */
	uint8_t secret[WEBGW_EPHEMERAL_LEN]; /* VISIT */
	uint32_t n;			     /* SECRETS */
	uint8_t secrets[WEBGW_PREPARE_MAX][WEBGW_EPHEMERAL_LEN];
};

/* 0, or -EINVAL for what no webgw says. Has secrets in it: wiped by the caller. */
P2P_CHECK int webgw_word_read(const char *text, size_t len, struct webgw_word *ret);

/*
 * A line each, NUL-terminated, freed by the caller. hex_secret NULL: a member; else wiped by the caller. wants_visitors: to be told who
 * they are.
 */
char *webgw_print_register(int64_t id, const struct host_pattern *host, const char *hex_secret, bool wants_visitors);
char *webgw_print_unregister(int64_t id, int64_t subscription);
char *webgw_print_prepare(int64_t id, int64_t subscription, uint32_t count);
