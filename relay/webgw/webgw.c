#include "relay/webgw/webgw.h"

#include "common/log.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define MODULE	  "webgw"
#define MAX_QUEUE (64 * 1024) /* bytes to one agent: of 200 visitors or so */
#define MAX_WRONG 8	      /* secrets on one connection */

struct webgw {
	uv_loop_t *loop;
	struct webgw_ports ports;
	struct subscriptions *subscriptions;
	struct websocket_server *server;
	struct log_limit log_limit;
};

/* ---- agents ---- */

static void send_and_free(struct websocket *ws, char *text)
{
	if (websocket_send(ws, text, strlen(text)) != 0)
		websocket_close(ws, "it does not read what it is told");
	free(text);
}

static void refuse(struct websocket *ws, const struct rpc_id *id, int code, const char *message)
{
	send_and_free(ws, webgw_print_error(id, code, message));
}

/* Who tries secrets is sent away; the next connection is one of those that are rate limited. */
static void count_wrong(struct websocket *ws)
{
	const uintptr_t n = (uintptr_t)websocket_data(ws) + 1;

	websocket_set_data(ws, (void *)n);
	if (n >= MAX_WRONG)
		websocket_close(ws, "too many wrong secrets");
}

static void subscribe(struct webgw *webgw, struct websocket *ws, const struct webgw_request *request)
{
	const struct endpoint remote = websocket_remote(ws);
	int64_t id = 0;

	switch (subscriptions_register(webgw->subscriptions, &request->host, request->secret_hash, ws, &id)) {
	case 0:
		log_info(MODULE, "%s%s: an agent at %s", request->host.is_wildcard ? "*." : "",
			 request->host.name.text, endpoint_text(&remote).s);
		send_and_free(ws, webgw_print_subscription(&request->id, id));
		return;
	case SUBSCRIPTIONS_UNKNOWN_HOST:
		refuse(ws, &request->id, WEBGW_UNKNOWN_HOST, "Unknown host");
		break;
	case SUBSCRIPTIONS_WRONG_SECRET:
		refuse(ws, &request->id, WEBGW_WRONG_SECRET, "Wrong secret");
		break;
	default:
		refuse(ws, &request->id, RPC_BUSY, "Too many agents");
		return;
	}
	log_limited(&webgw->log_limit, LOG_LEVEL_WARNING, MODULE, "unknown host or wrong secret of an agent at %s",
		    endpoint_text(&remote).s);
	count_wrong(ws);
}

static void on_message(void *owner, struct websocket *ws, const char *text, size_t len)
{
	struct webgw *webgw = owner;
	struct webgw_request request;
	struct error error = { 0 };
	const int r = webgw_request_read(text, len, &request, &error);

	if (r != 0)
		refuse(ws, &request.id, r, error.message);
	else if (request.method == WEBGW_REGISTER)
		subscribe(webgw, ws, &request);
	else
		send_and_free(ws, webgw_print_unsubscribed(&request.id, subscriptions_unregister(webgw->subscriptions, ws,
												 request.subscription)));
}

static void on_opened(void *owner, struct websocket *ws)
{
	(void)owner;
	(void)ws;
}

static void on_closed(void *owner, struct websocket *ws, const char *why)
{
	struct webgw *webgw = owner;
	const struct endpoint remote = websocket_remote(ws);

	subscriptions_drop_owner(webgw->subscriptions, ws);
	log_info(MODULE, "an agent is gone: %s: %s", endpoint_text(&remote).s, why);
}

/* ---- visitors ---- */

static bool tell(struct webgw *webgw, struct websocket *ws, int64_t id, const struct dial_wanted *wanted)
{
	struct webgw_visit visit = { .port = wanted->port, .host = wanted->host,
				     .listening_port = webgw->ports.dial_back_port(webgw->ports.owner) };

	memcpy(visit.secret, wanted->secret, sizeof(visit.secret));
	char *text = webgw_print_visit(id, &visit);
	const bool is_told = websocket_send(ws, text, strlen(text)) == 0;
	sodium_memzero(text, strlen(text));
	sodium_memzero(&visit, sizeof(visit));
	free(text);
	return is_told;
}

/* The answer goes first: the door knows whose the visitor is before the agent can be there. */
void webgw_wanted(struct webgw *webgw, const struct dial_wanted *wanted)
{
	int64_t id = 0;
	struct websocket *ws = subscriptions_pick(webgw->subscriptions, &wanted->host, uv_now(webgw->loop), &id);

	webgw->ports.answer(webgw->ports.owner, wanted->ticket, ws ? id : 0);
	if (!ws)
		log_limited(&webgw->log_limit, LOG_LEVEL_INFO, MODULE, "no agent for a visitor of %s", wanted->host.text);
	else if (!tell(webgw, ws, id, wanted))
		websocket_close(ws, "it does not read what it is told");
}

void webgw_over(struct webgw *webgw, const struct dial_over *over)
{
	subscriptions_over(webgw->subscriptions, over->subscription, over->end, uv_now(webgw->loop));
}

/* ---- beginning and end ---- */

int webgw_add_host(struct webgw *webgw, const struct host_pattern *host, const uint8_t hash[WEBGW_HASH_LEN])
{
	return subscriptions_add_host(webgw->subscriptions, host, hash);
}

bool webgw_host_at(const struct webgw *webgw, uint32_t i, struct host_pattern *ret)
{
	return subscriptions_host_at(webgw->subscriptions, i, ret, NULL);
}

int webgw_new(const struct webgw_options *options, struct webgw **ret, struct error *reterr)
{
	struct webgw *webgw = calloc(1, sizeof(*webgw));

	if (!webgw)
		abort();
	webgw->loop = websocket_host_loop(options->host);
	webgw->ports = options->ports;
	webgw->subscriptions = subscriptions_new();
	const struct websocket_server_options server = {
		.listen = options->listen,
		.is_plain = true,
		.max_connections = SUBSCRIPTIONS_MAX,
		.max_message = WEBGW_MAX_REQUEST,
		.max_queue = MAX_QUEUE,
		.handler = { .owner = webgw, .opened = on_opened, .message = on_message, .closed = on_closed },
	};
	const int r = websocket_server_new(options->host, &server, &webgw->server, reterr);
	if (r != 0) {
		webgw_free(webgw);
		return r;
	}
	*ret = webgw;
	return 0;
}

void webgw_free(struct webgw *webgw)
{
	if (!webgw)
		return;
	subscriptions_free(webgw->subscriptions);
	free(webgw);
}
