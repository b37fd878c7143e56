/*
 * The client's side: whom it trusts, the look-up of the name, and one address after the other.
 */
#include "common/websocket_internal.h"

#include "common/macros.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CONNECT_TIMEOUT_MS 10000

/* The client's side of TLS. One context serves all client connections; each brings its own trust.
 */

static struct websocket *by_ssl(const struct websocket_host *host, const SSL *ssl)
{
	for (struct websocket *ws = host->websockets; ws; ws = ws->next)
		if (!ws->server && ws->wsi && lws_get_ssl(ws->wsi) == ssl)
			return ws;
	return NULL;
}

static bool trusts(const struct websocket *ws, X509 *certificate)
{
	struct pin pin;

	if (ws->trust == TLS_TRUST_PIN)
		return certificate_pin(certificate, &pin) == 0 && pin_equal(&pin, &ws->pin);
	return certificate_check(certificate, ws->ca, CERTIFICATE_FOR_SERVER, (int64_t)time(NULL),
				 NULL) == 0;
}

static int verify_server(X509_STORE_CTX *store, void *arg)
{
	const SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
	X509 *certificate = X509_STORE_CTX_get0_cert(store);
	struct websocket *ws = by_ssl(arg, ssl);
	bool trusted = ws && certificate && trusts(ws, certificate);

	if (ws) {
		ws->saw_server = true;
		ws->refused_server = !trusted;
	}
	X509_STORE_CTX_set_error(store, trusted ? X509_V_OK : X509_V_ERR_CERT_UNTRUSTED);
	return trusted;
}

static int offer_certificate(SSL *ssl, void *arg)
{
	const struct websocket *ws = by_ssl(arg, ssl);

	if (!ws)
		return 0;
	if (!ws->certificate)
		return 1;
	return SSL_use_certificate(ssl, ws->certificate) == 1 &&
	       SSL_use_PrivateKey(ssl, ws->key) == 1;
}

int websocket_make_client_tls(struct websocket_host *host, struct error *reterr)
{
	/* The zero pin trusts nobody; verify_server() decides instead. */
	const struct tls_options options = { .trust = TLS_TRUST_PIN };
	int r = tls_context_new(&options, &host->client_tls, reterr);

	if (r != 0)
		return r;
	SSL_CTX_set_cert_verify_callback(host->client_tls, verify_server, host);
	SSL_CTX_set_cert_cb(host->client_tls, offer_certificate, host);
	return 0;
}

/* Connecting */

static void connect_next(struct websocket *ws);

/* libwebsockets says the same of a refused connection and of one that ended during the upgrade. */
static const char *connect_reason(const char *why)
{
	return !why || strcmp(why, "closed before established") == 0 ? "no answer, or refused" : why;
}

void websocket_on_connect_error(struct websocket *ws, const char *why)
{
	char text[400];

	ws->wsi = NULL;
	if (ws->in_connect) {
		ws->connect_failed = true;
		return;
	}
	if (!ws->saw_server && *ws->why == '\0' && ws->next_address < ws->n_addresses) {
		connect_next(ws);
		return;
	}
	if (ws->refused_server)
		snprintf(text, sizeof(text),
			 "%s:%u is not the server this network was joined at: %s", ws->address_name,
			 ws->port,
			 ws->trust == TLS_TRUST_PIN
				 ? "its key does not match the pin"
				 : "its certificate is not signed by the network");
	else if (ws->saw_server)
		snprintf(text, sizeof(text), "%s:%u refused the connection%s", ws->address_name,
			 ws->port, ws->certificate ? " (our certificate may have expired)" : "");
	else
		snprintf(text, sizeof(text),
			 "cannot connect to %s:%u (%s): is p2pcontrol running there, and does a "
			 "firewall let TCP port %u through?",
			 ws->address_name, ws->port, connect_reason(why), ws->port);
	websocket_finish(ws, text);
}

static void connect_next(struct websocket *ws)
{
	const struct endpoint *address = &ws->addresses[ws->next_address++];
	struct endpoint_text text = endpoint_ip_text(address);
	struct lws_client_connect_info info = {
		.context = ws->host->context,
		.vhost = ws->host->client_vhost,
		.address = text.s,
		.port = ws->port,
		.ssl_connection = LCCSCF_USE_SSL | LCCSCF_SKIP_SERVER_CERT_HOSTNAME_CHECK,
		.path = PATH,
		.host = ws->tells_name ? ws->address_name : "control",
		.origin = "control",
		.protocol = PROTOCOL,
		.local_protocol_name = PROTOCOL,
		.alpn = ws->alpn ? ws->alpn : "http/1.1",
		.pwsi = &ws->wsi,
		.opaque_user_data = ws,
		.retry_and_idle_policy = &websocket_keep_alive,
	};

	ws->remote = *address;
	ws->remote.port = ws->port;
	ws->in_connect = true;
	ws->connect_failed = false;
	struct lws *wsi = lws_client_connect_via_info(&info);
	ws->in_connect = false;
	lws_cancel_service(ws->host->context);
	if (!wsi || ws->connect_failed)
		websocket_on_connect_error(ws, strerror(ECONNREFUSED));
}

static void on_resolved(uv_getaddrinfo_t *request, int status, struct addrinfo *list)
{
	struct resolution *resolution = container_of(request, struct resolution, request);
	struct websocket *ws = resolution->ws;
	char text[400];

	for (const struct addrinfo *i = list; ws && i && ws->n_addresses < MAX_ADDRESSES; i = i->ai_next)
		if (i->ai_family == AF_INET || i->ai_family == AF_INET6)
			ws->addresses[ws->n_addresses++] = endpoint_from_sockaddr(i->ai_addr);
	uv_freeaddrinfo(list);
	free(resolution);
	if (!ws)
		return;
	ws->resolution = NULL;
	if (ws->n_addresses == 0) {
		snprintf(text, sizeof(text), "cannot resolve %s: %s; is the name right, and does this machine's DNS work?", ws->address_name,
			 status != 0 ? uv_strerror(status) : "no address");
		websocket_finish(ws, text);
		return;
	}
	ws->state = CONNECTING;
	connect_next(ws);
}

static void on_numeric(uv_timer_t *timer);

static void start_connecting(struct websocket *ws, uint64_t timeout_ms)
{
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG };

	if (endpoint_parse_ip(ws->address_name, ws->port, &ws->addresses[0]) == 0) {
		ws->tells_name = false;
		ws->n_addresses = 1;
		ws->state = CONNECTING;
		uv_timer_start(&ws->timer, on_numeric, 0, 0);
		return;
	}
	ws->state = RESOLVING;
	uv_timer_start(&ws->timer, websocket_on_timeout, timeout_ms, 0);
	struct resolution *resolution = malloc(sizeof(*resolution));
	if (!resolution)
		abort();
	resolution->ws = ws;
	int r = uv_getaddrinfo(ws->host->loop, &resolution->request, on_resolved, ws->address_name,
			       NULL, &hints);
	if (r == 0) {
		ws->resolution = resolution;
		return;
	}
	free(resolution);
	websocket_finish(ws, uv_strerror(r));
}

/* libwebsockets is called from the loop, not from inside the caller of websocket_connect(). */
static void on_numeric(uv_timer_t *timer)
{
	struct websocket *ws = container_of(timer, struct websocket, timer);

	uv_timer_start(&ws->timer, websocket_on_timeout, (uint64_t)(uintptr_t)ws->timer.data, 0);
	connect_next(ws);
}

static int take_tls_options(struct websocket *ws, const struct tls_options *tls,
			    struct error *reterr)
{
	int r = 0;

	ws->trust = tls->trust;
	ws->pin = tls->pin;
	if (tls->trust != TLS_TRUST_PIN)
		r = tls->ca_pem ? certificate_parse(tls->ca_pem, &ws->ca, reterr)
				: error_set(reterr, -EINVAL, "TLS without a CA");
	if (r == 0 && tls->certificate_pem)
		r = certificate_parse(tls->certificate_pem, &ws->certificate, reterr);
	if (r == 0 && tls->certificate_pem)
		r = identity_key_parse(tls->key_pem, &ws->key, reterr);
	return r;
}

struct websocket *websocket_connect(struct websocket_host *host,
				    const struct websocket_client_options *options,
				    struct error *reterr)
{
	uint64_t timeout_ms = options->timeout_ms ? options->timeout_ms : CONNECT_TIMEOUT_MS;

	if (host->closing || strlen(options->host) > JOIN_LINK_MAX_HOST || options->port == 0) {
		error_set(reterr, -EINVAL, "not a host and port to connect to");
		return NULL;
	}
	struct websocket *ws = websocket_new(host, &options->handler);
	ws->max_message = options->max_message;
	ws->max_queue = options->max_queue;
	ws->port = options->port;
	ws->alpn = options->alpn;
	ws->tells_name = options->alpn != NULL;
	memcpy(ws->address_name, options->host, strlen(options->host) + 1);
	ws->timer.data = (void *)(uintptr_t)timeout_ms;
	if (take_tls_options(ws, &options->tls, reterr) != 0) {
		ws->state = ENDED;
		websocket_free_when_quiet(ws);
		return NULL;
	}
	start_connecting(ws, timeout_ms);
	return ws;
}
