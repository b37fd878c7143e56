/*
 * A connection's life, what comes and goes by it, and what libwebsockets tells of it.
 *
 * A struct websocket exists before its lws connection and after it; one function ends it, websocket_finish(), and one frees it,
 * on_timer_closed().
 *
 * Never lws_rx_flow_control() on TLS: it can spin the loop for ever. Buffers are larger than a TLS
 * record.
 */
#include "common/websocket_internal.h"

#include "common/macros.h"

#include <assert.h>
#include <errno.h>
#include <libwebsockets.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PING_S           60 /* each costs both sides 240 bytes with what TCP adds: 350 kB a day */
#define SILENCE_S        90
#define CLOSE_TIMEOUT_MS 5000
#define END_AGAIN_MS     50

const lws_retry_bo_t websocket_keep_alive = {
	.secs_since_valid_ping = PING_S,
	.secs_since_valid_hangup = SILENCE_S,
};

/* A connection's life */

static void drop_queue(struct websocket *ws)
{
	while (ws->first) {
		struct queued *item = ws->first;
		ws->first = item->next;
		free(item);
	}
	ws->last = &ws->first;
	ws->queued = 0;
}

static void on_timer_closed(uv_handle_t *handle)
{
	struct websocket *ws = container_of((uv_timer_t *)handle, struct websocket, timer);
	struct websocket_host *host = ws->host;

	assert(ws->state == ENDED && !ws->wsi && !ws->resolution);
	if (ws->next)
		ws->next->previous = ws->previous;
	if (ws->previous)
		ws->previous->next = ws->next;
	else
		host->websockets = ws->next;
	if (ws->server)
		websocket_server_forget(ws);
	drop_queue(ws);
	free(ws->rx);
	X509_free(ws->ca);
	X509_free(ws->certificate);
	EVP_PKEY_free(ws->key);
	free(ws);
	host->n_handles--;
	websocket_host_advance_close(host);
}

void websocket_free_when_quiet(struct websocket *ws)
{
	if (ws->state == ENDED && !ws->deferred_end && !uv_is_closing((uv_handle_t *)&ws->timer))
		uv_close((uv_handle_t *)&ws->timer, on_timer_closed);
}

static void on_deferred_end(uv_timer_t *timer)
{
	struct websocket *ws = container_of(timer, struct websocket, timer);

	if (ws->tell)
		ws->handler.closed(ws->handler.owner, ws, ws->why);
	ws->deferred_end = false;
	websocket_free_when_quiet(ws);
}

static void forget_resolution(struct websocket *ws)
{
	if (!ws->resolution)
		return;
	ws->resolution->ws = NULL;
	uv_cancel((uv_req_t *)&ws->resolution->request);
	ws->resolution = NULL;
}

static void set_why(struct websocket *ws, const char *why)
{
	if (*ws->why == '\0' && why)
		snprintf(ws->why, sizeof(ws->why), "%s", why);
}

void websocket_forget_unproven(struct websocket *ws)
{
	if (ws->is_unproven)
		ws->server->n_unproven--;
	ws->is_unproven = false;
}

/*
 * The lws connection is gone, or never was. A stranger that never got as far as OPEN ends silently.
 * The rest happens in a later turn of the loop, when libwebsockets has closed its handle and knows
 * us no more.
 */
void websocket_finish(struct websocket *ws, const char *why)
{
	if (ws->state == ENDED)
		return;
	if (ws->server && ws->state == CONNECTING && !ws->is_making_room)
		ws->server->counters.broken_handshakes++;
	websocket_forget_unproven(ws);
	ws->tell = !ws->server || ws->state == OPEN || ws->state == CLOSING;
	set_why(ws, why ? why : "the other side closed the connection, or fell silent");
	ws->state = ENDED;
	ws->wsi = NULL;
	drop_queue(ws);
	forget_resolution(ws);
	ws->deferred_end = true;
	uv_timer_start(&ws->timer, on_deferred_end, 0, 0);
}

/*
 * Ends the lws connection from the loop, whatever its state; its callback then calls websocket_finish(). A
 * step of the connection that comes first (TCP or TLS is there) replaces the time-out by which we
 * kill it: so we say it again until it is gone, and go no further with it.
 */
void websocket_end_now(struct websocket *ws, const char *why)
{
	set_why(ws, why);
	ws->ending = true;
	if (ws->wsi) {
		uv_timer_start(&ws->timer, websocket_on_timeout, END_AGAIN_MS, 0);
		lws_set_timeout(ws->wsi, PENDING_TIMEOUT_USER_REASON_BASE, LWS_TO_KILL_ASYNC);
		lws_cancel_service(
			ws->host->context); /* it looks at its timers only when something happens */
	} else if (!ws->in_connect) {
		websocket_finish(ws, why);
	}
}

void websocket_on_timeout(uv_timer_t *timer)
{
	struct websocket *ws = container_of(timer, struct websocket, timer);

	if (ws->state == OPEN && ws->is_unproven && !ws->ending) {
		ws->server->counters.unproven++;
		websocket_end_now(ws, "it did not say in time who it is");
		return;
	}
	websocket_end_now(ws, ws->state == CLOSING ? NULL : "no answer in time");
}

struct websocket *websocket_new(struct websocket_host *host,
				       const struct websocket_handler *handler)
{
	struct websocket *ws = calloc(1, sizeof(*ws));

	if (!ws)
		abort();
	ws->host = host;
	ws->handler = *handler;
	ws->last = &ws->first;
	ws->state = CONNECTING;
	ws->next = host->websockets;
	if (ws->next)
		ws->next->previous = ws;
	host->websockets = ws;
	host->n_handles++;
	uv_timer_init(host->loop, &ws->timer);
	return ws;
}

/* Receiving and sending */

static bool append(struct websocket *ws, const char *bytes, size_t len)
{
	if (len > ws->max_message - ws->rx_len)
		return false;
	if (ws->rx_len + len + 1 > ws->rx_size) {
		size_t size = (ws->rx_len + len + 1) * 2;
		char *rx = realloc(ws->rx, size);
		if (!rx)
			return false;
		ws->rx = rx;
		ws->rx_size = size;
	}
	memcpy(ws->rx + ws->rx_len, bytes, len);
	ws->rx_len += len;
	ws->rx[ws->rx_len] = '\0';
	return true;
}

/* A large message's memory is not kept for the small ones that follow. */
static void deliver(struct websocket *ws)
{
	char *text = ws->rx;
	size_t len = ws->rx_len;

	ws->rx = NULL;
	ws->rx_len = ws->rx_size = 0;
	if (ws->state == OPEN && !ws->ending)
		ws->handler.message(ws->handler.owner, ws, text, len);
	free(text);
}

static int refuse_message(struct websocket *ws, enum lws_close_status status, const char *why)
{
	if (ws->server)
		ws->server->counters.bad_messages++;
	set_why(ws, why);
	lws_close_reason(ws->wsi, status, NULL, 0);
	return -1;
}

static int on_receive(struct websocket *ws, const char *bytes, size_t len)
{
	if (lws_frame_is_binary(ws->wsi))
		return refuse_message(ws, LWS_CLOSE_STATUS_UNACCEPTABLE_OPCODE,
				      "a binary message came");
	if (!append(ws, bytes, len))
		return refuse_message(ws, LWS_CLOSE_STATUS_MESSAGE_TOO_LARGE,
				      "a message was too large");
	if (lws_is_final_fragment(ws->wsi) && lws_remaining_packet_payload(ws->wsi) == 0)
		deliver(ws);
	return 0;
}

static int on_writable(struct websocket *ws)
{
	struct queued *item = ws->first;

	if (ws->ending)
		return -1;
	if (!item) {
		if (ws->state != CLOSING)
			return 0;
		lws_close_reason(ws->wsi, LWS_CLOSE_STATUS_NORMAL, NULL, 0);
		return -1;
	}
	ws->first = item->next;
	if (!ws->first)
		ws->last = &ws->first;
	ws->queued -= item->len;
	ws->moved_ms = uv_now(ws->host->loop);
	int n = lws_write(ws->wsi, item->bytes + LWS_PRE, item->len, LWS_WRITE_TEXT);
	free(item);
	if (n < 0)
		return -1;
	if (ws->first || ws->state == CLOSING)
		lws_callback_on_writable(ws->wsi);
	return 0;
}

static void learn_peer(struct websocket *ws)
{
	SSL *ssl = lws_get_ssl(ws->wsi);
	X509 *certificate = ssl ? SSL_get0_peer_certificate(ssl) : NULL;

	ws->has_identity = ssl && tls_peer_identity(ssl, &ws->identity) == 0;
	ws->has_pin = certificate && certificate_pin(certificate, &ws->peer_pin) == 0;
}

static int on_open(struct websocket *ws)
{
	if (ws->state != CONNECTING || ws->ending)
		return -1;
	learn_peer(ws);
	ws->state = OPEN;
	if (!ws->is_unproven) /* else its time goes on */
		uv_timer_stop(&ws->timer);
	ws->handler.opened(ws->handler.owner, ws);
	return 0;
}

/* Callbacks of libwebsockets */

/* The lws connection ends. It must not know us any longer: it may outlive us by a turn of the loop.
 */
static void on_gone(struct websocket *ws, struct lws *wsi)
{
	lws_set_opaque_user_data(wsi, NULL);
	if (!ws->in_connect) {
		websocket_finish(ws, NULL);
		return;
	}
	ws->connect_failed = true;
	ws->wsi = NULL;
}

static int on_lws_connection(struct websocket *ws, struct lws *wsi,
			     enum lws_callback_reasons reason, void *in, size_t len)
{
	switch (reason) {
	case LWS_CALLBACK_FILTER_PROTOCOL_CONNECTION:
		return websocket_is_served(ws) && !ws->host->closing ? 0 : -1;
	case LWS_CALLBACK_ESTABLISHED:
	case LWS_CALLBACK_CLIENT_ESTABLISHED:
		return on_open(ws);
	case LWS_CALLBACK_RECEIVE:
	case LWS_CALLBACK_CLIENT_RECEIVE:
		return on_receive(ws, in, len);
	case LWS_CALLBACK_SERVER_WRITEABLE:
	case LWS_CALLBACK_CLIENT_WRITEABLE:
		return on_writable(ws);
	case LWS_CALLBACK_CLIENT_CONNECTION_ERROR:
		lws_set_opaque_user_data(wsi, NULL);
		websocket_on_connect_error(ws, in);
		return 0;
	case LWS_CALLBACK_CLOSED:
	case LWS_CALLBACK_CLIENT_CLOSED:
	case LWS_CALLBACK_WSI_DESTROY:
		on_gone(ws, wsi);
		return 0;
	case LWS_CALLBACK_HTTP: /* a plain HTTP request: nothing is served */
		return -1;
	default:
		return 0;
	}
}

static int on_lws(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in,
		  size_t len)
{
	if (reason == LWS_CALLBACK_OPENSSL_LOAD_EXTRA_SERVER_VERIFY_CERTS)
		return websocket_server_on_tls(wsi, user);
	if (reason == LWS_CALLBACK_OPENSSL_LOAD_EXTRA_CLIENT_VERIFY_CERTS)
		return 0;

	struct websocket *ws = wsi ? lws_get_opaque_user_data(wsi) : NULL;
	if (ws && (ws->wsi == wsi || (ws->in_connect && !ws->wsi)))
		return on_lws_connection(ws, wsi, reason, in, len);
	/* Not known to us (any more): only the handshake of a newcomer may go on. */
	return reason == LWS_CALLBACK_HTTP || reason == LWS_CALLBACK_ESTABLISHED ? -1 : 0;
}

const struct lws_protocols websocket_protocols[] = {
	{ .name = PROTOCOL, .callback = on_lws, .rx_buffer_size = TLS_RECORD },
	{ 0 },
};

/* What owners do with a connection */

int websocket_send(struct websocket *ws, const char *text, size_t len)
{
	if (ws->state != OPEN)
		return -ENOTCONN;
	if (len > ws->max_queue - ws->queued)
		return -ENOBUFS;
	struct queued *item = malloc(sizeof(*item) + LWS_PRE + len);
	if (!item)
		return -ENOBUFS;
	item->next = NULL;
	item->len = len;
	memcpy(item->bytes + LWS_PRE, text, len);
	if (!ws->first)
		ws->moved_ms = uv_now(ws->host->loop);
	*ws->last = item;
	ws->last = &item->next;
	ws->queued += len;
	lws_callback_on_writable(ws->wsi);
	return 0;
}

size_t websocket_queued(const struct websocket *ws)
{
	return ws->queued;
}

uint64_t websocket_stalled_ms(const struct websocket *ws)
{
	return ws->first ? uv_now(ws->host->loop) - ws->moved_ms : 0;
}

void websocket_prove(struct websocket *ws)
{
	if (ws->is_unproven && ws->state == OPEN && !ws->ending)
		uv_timer_stop(&ws->timer);
	websocket_forget_unproven(ws);
}

void websocket_unprove(struct websocket *ws)
{
	if (ws->is_unproven || ws->state != OPEN || ws->ending || !ws->server || ws->server->max_unproven == 0)
		return;
	ws->is_unproven = true;
	ws->server->n_unproven++;
	uv_timer_start(&ws->timer, websocket_on_timeout, ws->server->handshake_ms, 0);
}

void websocket_close(struct websocket *ws, const char *why)
{
	if (ws->state == ENDED || ws->state == CLOSING)
		return;
	if (ws->state != OPEN) {
		websocket_end_now(ws, why);
		return;
	}
	set_why(ws, why);
	ws->state = CLOSING;
	uv_timer_start(&ws->timer, websocket_on_timeout, CLOSE_TIMEOUT_MS, 0);
	lws_callback_on_writable(ws->wsi);
}

void websocket_abort(struct websocket *ws, const char *why)
{
	if (ws->state != ENDED)
		websocket_end_now(ws, why);
}

void websocket_set_data(struct websocket *ws, void *data)
{
	ws->data = data;
}

void *websocket_data(const struct websocket *ws)
{
	return ws->data;
}

const struct identity *websocket_identity(const struct websocket *ws)
{
	return ws->has_identity ? &ws->identity : NULL;
}

bool websocket_peer_pin(const struct websocket *ws, struct pin *ret)
{
	if (ws->has_pin)
		*ret = ws->peer_pin;
	return ws->has_pin;
}

struct endpoint websocket_remote(const struct websocket *ws)
{
	return ws->remote;
}

bool websocket_was_taken(const struct websocket *ws)
{
	return ws->was_taken;
}
