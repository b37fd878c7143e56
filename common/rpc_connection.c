#include "common/rpc_connection.h"

#include "common/log.h"
#include "common/macros.h"

#include <stdlib.h>
#include <string.h>

#define MODULE "rpc"

struct rpc_connection {
	struct websocket *ws; /* NULL: ended */
	struct json_limits limits;
	struct rpc_connection_handler handler;
	struct rpc_calls calls;
	uv_timer_t timer;
};

static void on_deadline(uv_timer_t *timer);

static void rearm(struct rpc_connection *c)
{
	uint64_t at = rpc_calls_deadline_ms(&c->calls), now = uv_now(c->timer.loop);

	if (uv_is_closing((uv_handle_t *)&c->timer))
		return;
	if (at == 0)
		uv_timer_stop(&c->timer);
	else
		uv_timer_start(&c->timer, on_deadline, at > now ? at - now : 0, 0);
}

static void on_deadline(uv_timer_t *timer)
{
	struct rpc_connection *c = container_of(timer, struct rpc_connection, timer);

	rpc_calls_expire(&c->calls, uv_now(timer->loop));
	rearm(c);
}

static void on_opened(void *owner, struct websocket *ws)
{
	struct rpc_connection *c = owner;

	c->handler.opened(c->handler.owner);
}

static void handle(struct rpc_connection *c, const struct rpc_message *message)
{
	switch (message->kind) {
	case RPC_NOTIFICATION:
		if (c->handler.notified)
			c->handler.notified(c->handler.owner, message->method, message->params);
		break;
	case RPC_RESULT:
	case RPC_ERROR:
		if (!rpc_calls_answer(&c->calls, message))
			log_debug(MODULE, "an answer nobody waits for -> dropped");
		rearm(c);
		break;
	case RPC_REQUEST: {
		char *text = rpc_print_error(&message->id, RPC_METHOD_NOT_FOUND, NULL);
		int r = websocket_send(c->ws, text, strlen(text));
		if (r != 0)
			websocket_close(c->ws, "too much waits to be sent");
		free(text);
		break;
	}
	}
}

static void on_message(void *owner, struct websocket *ws, const char *text, size_t len)
{
	struct rpc_connection *c = owner;
	struct rpc_message message;
	enum rpc_code code;
	struct error err;

	if (rpc_parse(text, len, &c->limits, &message, &code, &err) != 0) {
		log_warning(MODULE, "control sent what is no message: %s", err.message);
		websocket_close(ws, "the other side does not speak JSON-RPC");
		return;
	}
	handle(c, &message);
	rpc_message_deinit(&message);
}

static void on_timer_closed(uv_handle_t *handle)
{
	free(container_of((uv_timer_t *)handle, struct rpc_connection, timer));
}

static void on_closed(void *owner, struct websocket *ws, const char *why)
{
	struct rpc_connection *c = owner;

	c->ws = NULL;
	rpc_calls_fail_all(&c->calls, RPC_DISCONNECTED, why);
	c->handler.closed(c->handler.owner, why);
	uv_close((uv_handle_t *)&c->timer, on_timer_closed);
}

struct rpc_connection *rpc_connection_new(struct websocket_host *host,
					  const struct websocket_client_options *options,
					  const struct rpc_connection_handler *handler,
					  struct error *reterr)
{
	struct rpc_connection *c = calloc(1, sizeof(*c));
	struct websocket_client_options with_handler = *options;

	if (!c)
		abort();
	c->handler = *handler;
	c->limits = (struct json_limits){ .max_len = options->max_message };
	rpc_calls_init(&c->calls);
	uv_timer_init(websocket_host_loop(host), &c->timer);
	with_handler.handler = (struct websocket_handler){ c, on_opened, on_message, on_closed };
	c->ws = websocket_connect(host, &with_handler, reterr);
	if (c->ws)
		return c;
	uv_close((uv_handle_t *)&c->timer, on_timer_closed);
	return NULL;
}

int rpc_connection_call(struct rpc_connection *c, const char *method, struct json *params_take,
			uint64_t timeout_ms, rpc_answer_cb cb, void *owner)
{
	uint64_t now = uv_now(c->timer.loop);
	int64_t id = c->ws ? rpc_calls_add(&c->calls, now + timeout_ms, cb, owner) : -ENOTCONN;

	if (id < 0) {
		json_free(params_take);
		return (int)id;
	}
	char *text = rpc_print_request(id, method, params_take);
	int r = websocket_send(c->ws, text, strlen(text));
	free(text);
	if (r != 0)
		rpc_calls_cancel(&c->calls, id);
	rearm(c);
	return r;
}

void rpc_connection_close(struct rpc_connection *c, const char *why)
{
	if (c->ws)
		websocket_close(c->ws, why);
}

void rpc_connection_abort(struct rpc_connection *c, const char *why)
{
	if (c->ws)
		websocket_abort(c->ws, why);
}
