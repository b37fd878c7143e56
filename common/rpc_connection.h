/*
 * The client's end of JSON-RPC over a WebSocket: calls with deadlines, and notifications.
 *
 * Loop only. Every call is answered exactly once, by the other side, by its deadline or by the end
 * of the connection; closed comes last, exactly once, also after rpc_connection_close(), and then
 * it is freed.
 */
#pragma once

#include "common/error.h"
#include "common/json.h"
#include "common/rpc.h"
#include "common/websocket.h"

#include <stdint.h>

struct rpc_connection;

struct rpc_connection_handler {
	void *owner;
	void (*opened)(void *owner);
	/* May be NULL. params may be NULL; borrowed. */
	void (*notified)(void *owner, const char *method, const struct json *params);
	void (*closed)(void *owner, const char *why);
};

/*
 * options->handler is not used. NULL when the options make no sense. Messages:
 * options->max_message.
 */
struct rpc_connection *rpc_connection_new(struct websocket_host *host,
					  const struct websocket_client_options *options,
					  const struct rpc_connection_handler *handler,
					  struct error *reterr);
/* 0; -ENOBUFS or -ENOTCONN (cb is not called then). */
P2P_CHECK int rpc_connection_call(struct rpc_connection *connection, const char *method,
				  struct json *params_take, uint64_t timeout_ms, rpc_answer_cb cb,
				  void *owner);
void rpc_connection_close(struct rpc_connection *connection, const char *why);
/* Without waiting for what is queued. */
void rpc_connection_abort(struct rpc_connection *connection, const char *why);
