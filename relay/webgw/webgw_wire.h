/*
 * What webgw's agents and server say to each other: JSON-RPC 2.0, a WebSocket message each (docs/PROTOCOL-webgw.md).
 *
 *   agent                                            server
 *     ├─ webgw_registerClient {host, hex_secret} ─────►│
 *     │◄───────────────────── the subscription's id ───┤   or -20000, -20001, -32602
 *     │◄── webgw_registerClient {subscription, result} ┤   a visitor waits: dial back
 *     ├─ webgw_unregisterClient [subscription] ───────►│
 *     │◄───────────────────────────────── true/false ──┤
 *
 * An agent of ours may ask, with "visitor": true, to be told who each visitor is; then its subscription is {subscription, visitor}.
 *
 * Total and bounded. Pure.
 */
#pragma once

#include "common/endpoint.h"
#include "common/error.h"
#include "common/rpc.h"
#include "relay/frontdoor/host_name.h"

#include <stddef.h>
#include <stdint.h>

#define WEBGW_MAX_REQUEST    1024 /* bytes of text */
#define WEBGW_MIN_SECRET     32	  /* bytes, of an agent's */
#define WEBGW_MAX_SECRET     256
#define WEBGW_HASH_LEN	     32 /* SHA-256 */
#define WEBGW_EPHEMERAL_LEN  32 /* of the secret to dial back with */
#define WEBGW_MAX_SUBSCRIPTION INT64_C(999999999999999)
#define WEBGW_PREPARE_MAX	     8 /* warm connections asked for at once */
#define WEBGW_MAX_WRONG	     32 /* secrets on one connection; one each half a minute is forgiven */

enum webgw_error {
	WEBGW_UNKNOWN_HOST = -20000,
	WEBGW_WRONG_SECRET = -20001,
};

enum webgw_method { WEBGW_REGISTER, WEBGW_UNREGISTER, WEBGW_PREPARE };

struct webgw_request {
	struct rpc_id id; /* kind NONE: no answer is wanted */
	enum webgw_method method;
	struct host_pattern host;	     /* WEBGW_REGISTER; what no host can be called: an empty one */
	bool has_secret;		     /* the same; without one it is for members */
	bool wants_visitors;		     /* the same: to be told who they are */
	uint8_t secret_hash[WEBGW_HASH_LEN]; /* SHA-256 of the secret */
	int64_t subscription;		     /* WEBGW_UNREGISTER, WEBGW_PREPARE */
	uint32_t count;			     /* WEBGW_PREPARE: 1 to WEBGW_PREPARE_MAX */
};

/*
 * 0; or an enum rpc_code, negative, with what is wrong for people in
 * reterr: then ret->id alone is set, as far as it could be read.
 */
P2P_CHECK int webgw_request_read(const char *text, size_t len, struct webgw_request *ret, struct error *reterr);

/* A line each, NUL-terminated, freed by the caller. */
char *webgw_print_subscription(const struct rpc_id *id, int64_t subscription);
/* The same, to an agent that wants to be told who its visitors are, and is. */
char *webgw_print_telling_subscription(const struct rpc_id *id, int64_t subscription);
char *webgw_print_unsubscribed(const struct rpc_id *id, bool was_there);
/* Has secrets in it: wiped by the caller. */
char *webgw_print_prepared(const struct rpc_id *id, uint32_t n, const uint8_t secrets[][WEBGW_EPHEMERAL_LEN],
			   uint16_t listening_port);
/* code: an enum webgw_error or rpc_code. */
char *webgw_print_error(const struct rpc_id *id, int code, const char *message);

/* Who a visitor is, and to what address and port it came. */
struct webgw_visitor {
	struct endpoint from, to;
};

/* Else it is not told: one of both is none, or half of one. */
bool webgw_visitor_is_whole(const struct webgw_visitor *visitor);

/* A visitor waits. */
struct webgw_visit {
	uint8_t secret[WEBGW_EPHEMERAL_LEN];
	uint16_t port;		 /* at which it came: 80 or 443 */
	uint16_t listening_port; /* to be dialled */
	struct host_name host;	 /* that it asked for */
	struct webgw_visitor visitor; /* told if it is whole */
};

/* Has a secret in it: wiped by the caller. */
char *webgw_print_visit(int64_t subscription, const struct webgw_visit *visit);

/* Whose is the next visitor, of several agents: who has the fewest, or in turn. */
enum webgw_balance { WEBGW_LEAST_CONNECTIONS, WEBGW_ROUND_ROBIN };

/* 0 or -EINVAL. */
P2P_CHECK int webgw_balance_read(const char *text, size_t len, enum webgw_balance *ret);
const char *webgw_balance_text(enum webgw_balance balance);

/*
 * As it is configured: "www.example.com 84e0c0ea… balance=round-robin", a host and the SHA-256 of its secret in hex; then, if
 * it is not least-connections, how agents share it.
 */
struct webgw_rule {
	struct host_pattern host;
	uint8_t hash[WEBGW_HASH_LEN];
	enum webgw_balance balance;
};

/* 0, or -EINVAL with what is wrong, and how it should be, in reterr. */
P2P_CHECK int webgw_rule_parse(const char *text, struct webgw_rule *ret, struct error *reterr);
/* 64 hex digits, of either case. 0 or -EINVAL. */
P2P_CHECK int webgw_hash_read(const char *text, size_t len, uint8_t ret[WEBGW_HASH_LEN]);
