/*
 * The calls of the local API, decoded.
 *
 *   node.status    {}
 *   node.join      {"link": "p2p://…", "name": "alice"?}    name: lower-case DNS label
 *   node.leave     {}
 *   node.ping      {"peer": "bob" | "10.77.0.3" | "fd…::3", "timeout_ms": 2000?}
 *   node.netcheck  {}
 *   node.log_level {"level": "debug"}
 *   relay.status   {"clients": true?}                    false: none is listed
 *   relay.drain    {"deadline_s": 60?}
 *   relay.undrain  {}
 *   node.expose    {"exposure": "https://app.example.org 8443 proxy=v2"}
 *   node.unexpose  {"host": "https://app.example.org"}
 *   node.exposures {}
 *   diglett.status {}
 *   diglett.end    {"name": "app.example.org"}
 *   diglett.token_create {"names": ["app.example.org", "*.test.example.org"], "label": "for the shop"?}
 *   diglett.token_list   {}
 *   diglett.token_revoke {"id": "2cf24dba"}
 *
 * Unknown members are refused: a typing mistake must not pass for a default. Pure.
 */
#pragma once

#include "common/endpoint.h"
#include "common/error.h"
#include "common/join_link.h"
#include "common/log.h"
#include "common/map.h"
#include "common/rpc.h"
#include "node/exposure.h"
#include "relay/diglett/diglett_order.h"

#include <stdbool.h>
#include <stdint.h>

#define LOCAL_API_MAX_LINE	   (1024 * 1024)
#define LOCAL_API_PING_TIMEOUT_MS  2000
#define LOCAL_API_PING_MAX_MS	   60000
#define LOCAL_API_DRAIN_S	   60
#define LOCAL_API_DRAIN_MAX_S	   3600

enum local_api_method {
	LOCAL_API_STATUS,
	LOCAL_API_JOIN,
	LOCAL_API_LEAVE,
	LOCAL_API_PING,
	LOCAL_API_NETCHECK,
	LOCAL_API_LOG_LEVEL,
	LOCAL_API_RELAY_STATUS,
	LOCAL_API_RELAY_DRAIN,
	LOCAL_API_RELAY_UNDRAIN,
	LOCAL_API_EXPOSE,
	LOCAL_API_UNEXPOSE,
	LOCAL_API_EXPOSURES,
	LOCAL_API_DIGLETT_STATUS,
	LOCAL_API_DIGLETT_END,
	LOCAL_API_DIGLETT_TOKEN_CREATE,
	LOCAL_API_DIGLETT_TOKEN_LIST,
	LOCAL_API_DIGLETT_TOKEN_REVOKE,
	LOCAL_API_N_METHODS,
};

struct local_api_ping {
	char name[MAP_NAME_LEN + 1]; /* of the peer; "" when it was asked by address */
	struct endpoint ip;	     /* overlay address, port 0; none when asked by name */
	uint32_t timeout_ms;
};

/* One call. It may hold a join key: end it with local_api_call_wipe(). */
struct local_api_call {
	enum local_api_method method;
	struct {
		struct join_link link;
		char name[MAP_NAME_LEN + 1]; /* "": the node's choice */
	} join;
	struct local_api_ping ping;
	enum log_level log_level;
	bool with_clients; /* are they listed? */
	struct exposure exposure; /* to unexpose: host and schemes alone */
	struct diglett_order diglett;
	uint32_t drain_s; /* until all clients of the relay are sent away */
};

const char *local_api_method_name(enum local_api_method method);
/* 0, or -EINVAL with the code to answer in *reterr_code and what is wrong in reterr. */
P2P_CHECK int local_api_decode(const struct rpc_message *message, struct local_api_call *ret,
			       enum rpc_code *reterr_code, struct error *reterr);
void local_api_call_wipe(struct local_api_call *call);
