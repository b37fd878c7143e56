/*
 * webgw's HTTP interface for who runs the node: what is asked, and what is answered (docs/PROTOCOL-webgw.md).
 *
 *   GET    /api/v1/proxy          all hosts          POST /api/v1/proxy {host, hexSecretHash, balance}   one more
 *   GET    /api/v1/proxy/HOST     one                GET  /api/v1/clients                       who has subscribed
 *   DELETE /api/v1/proxy/HOST     no longer
 *
 * Total and bounded. Pure.
 */
#pragma once

#include "common/endpoint.h"
#include "common/error.h"
#include "common/http_request.h"
#include "common/json.h"
#include "relay/webgw/subscriptions.h"

#define WEBGW_ADMIN_PATH_LEN 107 /* of its socket's path */

enum webgw_admin_what {
	WEBGW_ADMIN_HOSTS,
	WEBGW_ADMIN_HOST,
	WEBGW_ADMIN_ADD,
	WEBGW_ADMIN_REMOVE,
	WEBGW_ADMIN_CLIENTS,
};

struct webgw_admin_request {
	enum webgw_admin_what what;
	struct host_pattern host;     /* WEBGW_ADMIN_HOST, _ADD, _REMOVE */
	uint8_t hash[WEBGW_HASH_LEN]; /* WEBGW_ADMIN_ADD */
	bool has_balance;	      /* the same */
	enum webgw_balance balance;
};

/*
 * 0; or a status of HTTP, 400, 404 or 405, with what is wrong for people in reterr; of a 405 *ret_allow are the methods
 * that there are.
 */
P2P_CHECK int webgw_admin_read(const struct http_request *http, const char *body, size_t len,
			       struct webgw_admin_request *ret, const char **ret_allow, struct error *reterr);

struct webgw_admin_host {
	struct host_pattern host;
	uint8_t hash[WEBGW_HASH_LEN];
	bool is_members; /* without a secret */
	enum webgw_balance balance;
	uint64_t read, written; /* bytes from agents, and to them */
	uint64_t visitors, visitors_now;
	uint32_t n_clients;
};

struct json *webgw_admin_host_json(const struct webgw_admin_host *host);
/* remote, connected_s: of the connection that has this subscription. */
struct json *webgw_admin_client_json(const struct subscription_facts *facts, const struct endpoint *remote,
				     uint64_t connected_s);
/* {"error": "..."}, freed by the caller. */
char *webgw_admin_print_error(const char *message);
