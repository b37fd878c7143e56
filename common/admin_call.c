#include "common/admin_call.h"

#include "common/rpc_connection.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define TIMEOUT_MS  15000
#define MAX_MESSAGE (16 << 20)
#define MAX_QUEUE   (1 << 20)

struct call {
	struct rpc_connection *connection;
	char token[JOIN_LINK_SECRET_LEN + 1];
	char method[RPC_MAX_METHOD + 1];
	struct json *params;
	admin_answer_cb cb;
	void *owner;
	bool answered;
};

static void answer(struct call *call, const struct json *result, const struct rpc_error *error)
{
	if (call->answered)
		return;
	call->answered = true;
	call->cb(call->owner, result, error);
	rpc_connection_close(call->connection, "done");
}

static void on_answer(void *owner, const struct json *result, const struct rpc_error *error)
{
	answer(owner, result, error);
}

static void send_call(struct call *call, const char *method, struct json *params_take,
		      rpc_answer_cb cb)
{
	int r = rpc_connection_call(call->connection, method, params_take, TIMEOUT_MS, cb, call);

	if (r != 0)
		rpc_connection_close(call->connection, strerror(-r));
}

static void on_login(void *owner, const struct json *result, const struct rpc_error *error)
{
	struct call *call = owner;
	struct json *params = call->params;

	if (error) {
		answer(call, NULL, error);
		return;
	}
	call->params = NULL;
	send_call(call, call->method, params, on_answer);
}

static void on_opened(void *owner)
{
	struct call *call = owner;
	struct json *params = json_object();

	json_put_string(params, "token", call->token);
	send_call(call, "admin.login", params, on_login);
}

static void on_closed(void *owner, const char *why)
{
	struct call *call = owner;

	if (!call->answered) {
		struct rpc_error error = rpc_error_make(RPC_DISCONNECTED, "%s", why);
		error.code = -ECONNREFUSED;
		answer(call, NULL, &error);
	}
	json_free(call->params);
	sodium_memzero(call->token, sizeof(call->token));
	free(call);
}

int admin_call(struct websocket_host *host, const struct join_link *admin_link, const char *method,
	       struct json *params_take, admin_answer_cb cb, void *owner, struct error *reterr)
{
	struct call *call = calloc(1, sizeof(*call));

	if (!call)
		abort();
	*call = (struct call){ .params = params_take, .cb = cb, .owner = owner };
	memcpy(call->token, admin_link->secret, sizeof(call->token));
	strncpy(call->method, method, sizeof(call->method) - 1);
	const struct rpc_connection_handler handler = { call, on_opened, NULL, on_closed };
	const struct websocket_client_options options = {
		.host = admin_link->host,
		.port = admin_link->port,
		.tls = { .trust = TLS_TRUST_PIN, .pin = admin_link->pin },
		.max_message = MAX_MESSAGE,
		.max_queue = MAX_QUEUE,
	};
	call->connection = rpc_connection_new(host, &options, &handler, reterr);
	if (call->connection)
		return 0;
	json_free(call->params);
	free(call);
	return -EINVAL;
}
