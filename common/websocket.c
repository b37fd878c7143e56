/*
 * The libwebsockets adapter.
 *
 * The library does WebSocket framing and drives OpenSSL; all else is ours: we listen and accept (so
 * that limits are counted, logged and refused), resolve names (its getaddrinfo would block the
 * loop), decide whom to trust (common/tls), bound what is received and sent. A struct websocket
 * exists before its lws connection and after it; one function ends it, finish(), and one frees it,
 * on_timer_closed().
 *
 *   client   RESOLVING ──► CONNECTING ──► OPEN ──► CLOSING ──► ENDED
 *   server                 CONNECTING ──► OPEN ──► CLOSING ──► ENDED       any state ──► ENDED
 *
 * Never lws_rx_flow_control() on TLS: it can spin the loop for ever. Buffers are larger than a TLS
 * record.
 */
#include "common/websocket.h"

#include "common/log.h"
#include "common/macros.h"
#include "common/source_limit.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <libwebsockets.h>
#include <netdb.h>
#include <openssl/ssl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define MODULE              "websocket"
#define PROTOCOL            "p2pnode"
#define PATH                "/rpc"
#define TLS_RECORD          17000 /* larger than one TLS record with its overhead */
#define MAX_ADDRESSES       8
#define CONNECT_TIMEOUT_MS  10000
#define CLOSE_TIMEOUT_MS    5000
#define ACCEPT_PAUSE_MS     100
#define END_AGAIN_MS        50
#define ACCEPTS_PER_WAKE    16
#define SOURCES 4096
#define DEFAULT_PER_ADDRESS 1024
#define DEFAULT_RATE        100
#define BURST_OF_RATE       10
#define FILES_WANTED        65536
#define FILES_RESERVED      64
#define HANDSHAKE_S         10
#define PING_S              60 /* each costs both sides 240 bytes with what TCP adds: 350 kB a day */
#define SILENCE_S           90
#define KICK_MS             1
#define MAX_MAKING_ROOM     64 /* connections that end and have not yet */
#define PREFIX_V6           7  /* bytes: a /56 */
#define DESTROY_TURNS       8 /* loop turns in which libwebsockets' handles close, two are needed */

enum state { RESOLVING, CONNECTING, OPEN, CLOSING, ENDED };

struct queued {
	struct queued *next;
	size_t len;
	unsigned char bytes[]; /* LWS_PRE, then the text */
};

/* A name look-up. It cannot be broken off, only forgotten: nobody waits for its end. */
struct resolution {
	uv_getaddrinfo_t request;
	struct websocket *ws; /* NULL: it ended */
};

struct websocket {
	struct websocket_host *host;
	struct websocket_server *server; /* NULL: a client */
	struct websocket *next, *previous;
	struct websocket_handler handler;
	enum state state;
	struct lws *wsi; /* NULL before and after */
	uv_timer_t timer;
	void *data;
	char why[256];
	bool is_unproven;
	bool is_making_room; /* its place is another's already */
	bool ending;       /* libwebsockets has been told to end it */
	bool deferred_end; /* the timer's next shot is the end */
	bool tell;         /* and tells the owner */

	char *rx;
	size_t rx_len, rx_size, max_message;
	struct queued *first, **last;
	size_t queued, max_queue;
	uint64_t moved_ms; /* when something went out last, or had to wait after nothing had */

	bool has_identity, has_pin;
	struct identity identity;
	struct pin peer_pin;
	struct endpoint remote;

	/* client only */
	char address_name[JOIN_LINK_MAX_HOST + 1];
	uint16_t port;
	enum tls_trust trust;
	struct pin pin;
	X509 *ca, *certificate;
	EVP_PKEY *key;
	struct resolution *resolution; /* NULL: none under way */
	bool in_connect, connect_failed, saw_server, refused_server;
	struct endpoint addresses[MAX_ADDRESSES];
	uint32_t n_addresses, next_address;
};

struct websocket_server {
	struct websocket_host *host;
	struct websocket_server *next;
	struct lws_vhost *vhost;
	SSL_CTX *tls;                                 /* libwebsockets' */
	const struct websocket_server_options *setup; /* while the vhost is made */
	struct error setup_error;
	struct websocket_handler handler;
	size_t max_connections, max_per_address, max_message, max_queue;
	int send_buffer;
	uint32_t max_unproven, max_unproven_source, n_unproven, n_making_room;
	uint64_t handshake_ms;
	struct source_limit source_limit; /* a handshake costs us a signature */
	uint32_t n_of[SOURCES];		  /* connections, by source_of(); several sources may share a place */
	uint8_t seed[crypto_shorthash_KEYBYTES];
	struct websocket_server_counters counters;
	struct log_limit refusals;
	bool is_plain, is_any_path;
	int fd;
	uint16_t port;
	char name[16];
	uv_poll_t accept;
	uv_timer_t pause;
};

struct websocket_host {
	uv_loop_t *loop;
	struct lws_context *context;
	struct lws_vhost *client_vhost;
	SSL_CTX *client_tls;
	struct websocket *websockets;
	struct websocket_server *servers;
	uint32_t n_handles; /* of ours, not closed yet */
	bool closing;
	bool destroying;
	uint32_t turns;
	uv_idle_t idle;       /* while closing */
	uv_prepare_t prepare; /* these two: see on_prepare() */
	uv_timer_t kick;
	uint32_t n_own_handles;
	void (*closed)(void *owner);
	void *owner;
};

static const lws_retry_bo_t keep_alive = {
	.secs_since_valid_ping = PING_S,
	.secs_since_valid_hangup = SILENCE_S,
};

/* As endpoint_is_same_source(): who is the same has the same. */
static size_t source_of(const struct websocket_server *server, const struct endpoint *address)
{
	uint64_t hash;

	_Static_assert(sizeof(hash) == crypto_shorthash_BYTES, "one hash of libsodium's");
	crypto_shorthash((unsigned char *)&hash, address->ip, endpoint_is_v4(address) ? sizeof(address->ip) : 8, server->seed);
	return hash % SOURCES;
}

static void advance_close(struct websocket_host *host);

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
	if (ws->server) {
		ws->server->counters.open--;
		ws->server->n_of[source_of(ws->server, &ws->remote)]--;
		ws->server->n_making_room -= ws->is_making_room;
	}
	drop_queue(ws);
	free(ws->rx);
	X509_free(ws->ca);
	X509_free(ws->certificate);
	EVP_PKEY_free(ws->key);
	free(ws);
	host->n_handles--;
	advance_close(host);
}

static void free_when_quiet(struct websocket *ws)
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
	free_when_quiet(ws);
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

static void forget_unproven(struct websocket *ws)
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
static void finish(struct websocket *ws, const char *why)
{
	if (ws->state == ENDED)
		return;
	if (ws->server && ws->state == CONNECTING && !ws->is_making_room)
		ws->server->counters.broken_handshakes++;
	forget_unproven(ws);
	ws->tell = !ws->server || ws->state == OPEN || ws->state == CLOSING;
	set_why(ws, why ? why : "the other side closed the connection, or fell silent");
	ws->state = ENDED;
	ws->wsi = NULL;
	drop_queue(ws);
	forget_resolution(ws);
	ws->deferred_end = true;
	uv_timer_start(&ws->timer, on_deferred_end, 0, 0);
}

static void on_timeout(uv_timer_t *timer);

/*
 * Ends the lws connection from the loop, whatever its state; its callback then calls finish(). A
 * step of the connection that comes first (TCP or TLS is there) replaces the time-out by which we
 * kill it: so we say it again until it is gone, and go no further with it.
 */
static void end_now(struct websocket *ws, const char *why)
{
	set_why(ws, why);
	ws->ending = true;
	if (ws->wsi) {
		uv_timer_start(&ws->timer, on_timeout, END_AGAIN_MS, 0);
		lws_set_timeout(ws->wsi, PENDING_TIMEOUT_USER_REASON_BASE, LWS_TO_KILL_ASYNC);
		lws_cancel_service(
			ws->host->context); /* it looks at its timers only when something happens */
	} else if (!ws->in_connect) {
		finish(ws, why);
	}
}

static void on_timeout(uv_timer_t *timer)
{
	struct websocket *ws = container_of(timer, struct websocket, timer);

	if (ws->state == OPEN && ws->is_unproven && !ws->ending) {
		ws->server->counters.unproven++;
		end_now(ws, "it did not say in time who it is");
		return;
	}
	end_now(ws, ws->state == CLOSING ? NULL : "no answer in time");
}

static struct websocket *new_websocket(struct websocket_host *host,
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

static int make_client_tls(struct websocket_host *host, struct error *reterr)
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

static void on_connect_error(struct websocket *ws, const char *why)
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
	finish(ws, text);
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
		.host = "control",
		.origin = "control",
		.protocol = PROTOCOL,
		.local_protocol_name = PROTOCOL,
		.alpn = "http/1.1",
		.pwsi = &ws->wsi,
		.opaque_user_data = ws,
		.retry_and_idle_policy = &keep_alive,
	};

	ws->remote = *address;
	ws->remote.port = ws->port;
	ws->in_connect = true;
	ws->connect_failed = false;
	struct lws *wsi = lws_client_connect_via_info(&info);
	ws->in_connect = false;
	lws_cancel_service(ws->host->context);
	if (!wsi || ws->connect_failed)
		on_connect_error(ws, strerror(ECONNREFUSED));
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
		finish(ws, text);
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
		ws->n_addresses = 1;
		ws->state = CONNECTING;
		uv_timer_start(&ws->timer, on_numeric, 0, 0);
		return;
	}
	ws->state = RESOLVING;
	uv_timer_start(&ws->timer, on_timeout, timeout_ms, 0);
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
	finish(ws, uv_strerror(r));
}

/* libwebsockets is called from the loop, not from inside the caller of websocket_connect(). */
static void on_numeric(uv_timer_t *timer)
{
	struct websocket *ws = container_of(timer, struct websocket, timer);

	uv_timer_start(&ws->timer, on_timeout, (uint64_t)(uintptr_t)ws->timer.data, 0);
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
	struct websocket *ws = new_websocket(host, &options->handler);
	ws->max_message = options->max_message;
	ws->max_queue = options->max_queue;
	ws->port = options->port;
	memcpy(ws->address_name, options->host, strlen(options->host) + 1);
	ws->timer.data = (void *)(uintptr_t)timeout_ms;
	if (take_tls_options(ws, &options->tls, reterr) != 0) {
		ws->state = ENDED;
		free_when_quiet(ws);
		return NULL;
	}
	start_connecting(ws, timeout_ms);
	return ws;
}

/* The server */

static bool is_rpc_path(struct lws *wsi)
{
	char path[16];

	return lws_hdr_copy(wsi, path, sizeof(path), WSI_TOKEN_GET_URI) == (int)strlen(PATH) &&
	       strcmp(path, PATH) == 0;
}

static bool is_served(const struct websocket *ws)
{
	return (ws->server && ws->server->is_any_path) || is_rpc_path(ws->wsi);
}

/* Whether there are as many of this address. That all are looked at is only for places that are that full. */
static bool is_address_full(const struct websocket_server *server, const struct endpoint *address)
{
	size_t n = 0;

	if (server->n_of[source_of(server, address)] < server->max_per_address)
		return false;
	for (const struct websocket *ws = server->host->websockets; ws; ws = ws->next)
		n += ws->server == server && endpoint_is_same_source(&ws->remote, address);
	return n >= server->max_per_address;
}

/* Why this newcomer cannot be served, or NULL. */
static const char *refusal(struct websocket_server *server, const struct endpoint *remote)
{
	const uint32_t n_stay = server->counters.open - server->n_making_room - server->n_unproven;

	if (n_stay >= server->max_connections || server->counters.open >= server->max_connections + MAX_MAKING_ROOM) {
		server->counters.refused_limit++;
		return "too many connections";
	}
	if (is_address_full(server, remote)) {
		server->counters.refused_address++;
		return "too many connections from this address";
	}
	if (!source_limit_take(&server->source_limit, remote, uv_now(server->host->loop))) {
		server->counters.refused_rate++;
		return "connections from this network come too fast";
	}
	return NULL;
}

static bool is_of_prefix(const struct endpoint *a, const struct endpoint *b)
{
	return memcmp(a->ip, b->ip, endpoint_is_v4(a) ? sizeof(a->ip) : PREFIX_V6) == 0;
}

/* prefix NULL: of all. */
static struct websocket *oldest_unproven(const struct websocket_server *server, const struct endpoint *prefix,
					 uint32_t *ret_n)
{
	struct websocket *oldest = NULL;

	*ret_n = 0;
	for (struct websocket *ws = server->host->websockets; ws; ws = ws->next) {
		if (ws->server != server || !ws->is_unproven || (prefix && !is_of_prefix(prefix, &ws->remote)))
			continue;
		oldest = ws; /* the newest is the first */
		++*ret_n;
	}
	return oldest;
}

/* Those who have said who they are do not make room for anybody. */
static void make_room(struct websocket_server *server, const struct endpoint *remote)
{
	uint32_t n;
	struct websocket *oldest = oldest_unproven(server, remote, &n);

	if (n < server->max_unproven_source)
		oldest = NULL;
	if (!oldest && (server->n_unproven >= server->max_unproven ||
			server->counters.open - server->n_making_room >= server->max_connections))
		oldest = oldest_unproven(server, NULL, &n);
	if (!oldest)
		return;
	forget_unproven(oldest);
	oldest->is_making_room = true;
	server->n_making_room++;
	server->counters.made_room++;
	end_now(oldest, "others came, and it had not said who it is");
}

static void adopt(struct websocket_server *server, int fd, const struct endpoint *remote)
{
	const char *why = refusal(server, remote);

	if (why) {
		log_limited(&server->refusals, LOG_LEVEL_WARNING, MODULE, "refused %s: %s",
			    endpoint_text(remote).s, why);
		close(fd);
		return;
	}
	if (server->max_unproven > 0)
		make_room(server, remote);
	if (server->send_buffer > 0)
		(void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &server->send_buffer, sizeof(server->send_buffer));
	struct lws *wsi = lws_adopt_socket_vhost(server->vhost, fd); /* closes fd when it fails */
	if (!wsi) {
		server->counters.broken_handshakes++;
		return;
	}
	struct websocket *ws = new_websocket(server->host, &server->handler);
	ws->server = server;
	ws->wsi = wsi;
	ws->remote = *remote;
	ws->max_message = server->max_message;
	ws->max_queue = server->max_queue;
	ws->is_unproven = server->max_unproven > 0;
	server->n_unproven += ws->is_unproven;
	server->counters.open++;
	server->n_of[source_of(server, remote)]++;
	server->counters.accepted++;
	lws_set_opaque_user_data(wsi, ws);
	lws_cancel_service(server->host->context); /* its handshake timer */
	/* And ours: its own begins again with each step, and so never ends for who is slow enough. */
	uv_timer_start(&ws->timer, on_timeout, server->handshake_ms, 0);
}

static void on_acceptable(uv_poll_t *poll, int status, int events);

static void on_pause_over(uv_timer_t *timer)
{
	struct websocket_server *server = container_of(timer, struct websocket_server, pause);

	uv_poll_start(&server->accept, UV_READABLE, on_acceptable);
}

static void on_acceptable(uv_poll_t *poll, int status, int events)
{
	struct websocket_server *server = container_of(poll, struct websocket_server, accept);

	for (int i = 0; i < ACCEPTS_PER_WAKE; i++) {
		struct sockaddr_storage address;
		socklen_t len = sizeof(address);
		int fd = accept4(server->fd, (struct sockaddr *)&address, &len,
				 SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd >= 0) {
			struct endpoint remote =
				endpoint_from_sockaddr((struct sockaddr *)&address);
			adopt(server, fd, &remote);
			continue;
		}
		if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
			log_limited(&server->refusals, LOG_LEVEL_WARNING, MODULE,
				    "cannot accept: %s", strerror(errno));
			uv_poll_stop(&server->accept);
			uv_timer_start(&server->pause, on_pause_over, ACCEPT_PAUSE_MS, 0);
		}
		if (errno != ECONNABORTED && errno != EINTR)
			return;
	}
}

static int listen_on(const struct endpoint *where, int *ret_fd, uint16_t *ret_port,
		     struct error *reterr)
{
	struct sockaddr_storage address;
	socklen_t len = endpoint_to_sockaddr(where, &address);
	int fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int on = 1, off = 0, r = 0;

	if (fd >= 0)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (fd >= 0 && address.ss_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, len) != 0 || listen(fd, SOMAXCONN) != 0)
		r = -errno;
	len = sizeof(address);
	if (r == 0 && getsockname(fd, (struct sockaddr *)&address, &len) != 0)
		r = -errno;
	if (r != 0) {
		if (fd >= 0)
			close(fd);
		return error_set(
			reterr, r, "cannot listen on %s: %s%s", endpoint_text(where).s,
			strerror(-r),
			r == -EADDRINUSE
				? " (another program, or this one a second time, uses the port)"
				: "");
	}
	*ret_fd = fd;
	*ret_port = endpoint_from_sockaddr((struct sockaddr *)&address).port;
	return 0;
}

/* Callbacks of libwebsockets */

static int on_vhost_tls(struct lws *wsi, SSL_CTX *tls)
{
	struct websocket_server *server = lws_vhost_user(lws_get_vhost(wsi));

	if (!server || !server->setup)
		return 0;
	server->tls = tls;
	return tls_context_configure(tls, &server->setup->tls, &server->setup_error) == 0 ? 0 : 1;
}

/* The lws connection ends. It must not know us any longer: it may outlive us by a turn of the loop.
 */
static void on_gone(struct websocket *ws, struct lws *wsi)
{
	lws_set_opaque_user_data(wsi, NULL);
	if (!ws->in_connect) {
		finish(ws, NULL);
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
		return is_served(ws) && !ws->host->closing ? 0 : -1;
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
		on_connect_error(ws, in);
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
		return on_vhost_tls(wsi, user);
	if (reason == LWS_CALLBACK_OPENSSL_LOAD_EXTRA_CLIENT_VERIFY_CERTS)
		return 0;

	struct websocket *ws = wsi ? lws_get_opaque_user_data(wsi) : NULL;
	if (ws && (ws->wsi == wsi || (ws->in_connect && !ws->wsi)))
		return on_lws_connection(ws, wsi, reason, in, len);
	/* Not known to us (any more): only the handshake of a newcomer may go on. */
	return reason == LWS_CALLBACK_HTTP || reason == LWS_CALLBACK_ESTABLISHED ? -1 : 0;
}

static const struct lws_protocols protocols[] = {
	{ .name = PROTOCOL, .callback = on_lws, .rx_buffer_size = TLS_RECORD },
	{ 0 },
};

static void on_lws_log(int level, const char *line)
{
	log_debug(MODULE, "%.*s", (int)strcspn(line, "\n"), line);
}

/* The host */

/* Bounds libwebsockets' tables, which it sizes by this limit. */
static void set_file_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return;
	limit.rlim_cur = limit.rlim_max < FILES_WANTED ? limit.rlim_max : FILES_WANTED;
	setrlimit(RLIMIT_NOFILE, &limit);
}

static size_t file_limit(void)
{
	struct rlimit limit;

	return getrlimit(RLIMIT_NOFILE, &limit) == 0 ? (size_t)limit.rlim_cur : 1024;
}

static int make_context(struct websocket_host *host, struct error *reterr)
{
	void *loops[] = { host->loop };
	struct lws_context_creation_info info = {
		.port = CONTEXT_PORT_NO_LISTEN,
		.protocols = protocols,
		.options = LWS_SERVER_OPTION_LIBUV | LWS_SERVER_OPTION_DO_SSL_GLOBAL_INIT |
			   LWS_SERVER_OPTION_VALIDATE_UTF8 | LWS_SERVER_OPTION_EXPLICIT_VHOSTS |
			   LWS_SERVER_OPTION_UV_NO_SIGSEGV_SIGFPE_SPIN,
		.foreign_loops = loops,
		.pt_serv_buf_size = TLS_RECORD,
		.timeout_secs = HANDSHAKE_S,
		.gid = -1,
		.uid = -1,
	};

	lws_set_log_level(LLL_ERR | LLL_WARN, on_lws_log);
	host->context = lws_create_context(&info);
	if (!host->context)
		return error_set(
			reterr, -ENOMEM,
			"cannot start libwebsockets (is libwebsockets-evlib-uv installed?)");
	info.vhost_name = "clients";
	info.provided_client_ssl_ctx = host->client_tls;
	info.retry_and_idle_policy = &keep_alive;
	host->client_vhost = lws_create_vhost(host->context, &info);
	return host->client_vhost ? 0
				  : error_set(reterr, -ENOMEM, "cannot set up WebSocket clients");
}

/*
 * The library's libuv glue stops looking after one round, also when decrypted bytes still wait in
 * TLS or in its own buffers; they would then wait for the next packet, seconds perhaps. So we look
 * once a turn and make it look again, but not faster than once a millisecond.
 */
static void on_kick(uv_timer_t *timer)
{
	lws_cancel_service(container_of(timer, struct websocket_host, kick)->context);
}

static void on_prepare(uv_prepare_t *prepare)
{
	struct websocket_host *host = container_of(prepare, struct websocket_host, prepare);

	if (!uv_is_active((uv_handle_t *)&host->kick) &&
	    lws_service_adjust_timeout(host->context, 1, 0) == 0)
		uv_timer_start(&host->kick, on_kick, KICK_MS, 0);
}

static void start_own_handles(struct websocket_host *host)
{
	uv_idle_init(host->loop, &host->idle);
	uv_prepare_init(host->loop, &host->prepare);
	uv_timer_init(host->loop, &host->kick);
	host->idle.data = host->prepare.data = host->kick.data = host;
	host->n_own_handles = 3;
	uv_prepare_start(&host->prepare, on_prepare);
}

int websocket_host_new(uv_loop_t *loop, struct websocket_host **ret, struct error *reterr)
{
	struct websocket_host *host = calloc(1, sizeof(*host));

	if (!host)
		abort();
	host->loop = loop;
	set_file_limit();
	int r = make_client_tls(host, reterr);
	if (r == 0)
		r = make_context(host, reterr);
	if (r != 0) {
		/*
		 * Only at start, and final: a context that failed half-way is left to the end of
		 * the process.
		 */
		SSL_CTX_free(host->client_tls);
		free(host);
		return r;
	}
	start_own_handles(host);
	*ret = host;
	return 0;
}

static void on_own_handle_closed(uv_handle_t *handle)
{
	struct websocket_host *host = handle->data;
	void (*closed)(void *owner) = host->closed;
	void *owner = host->owner;

	if (--host->n_own_handles > 0)
		return;
	while (host->servers) {
		struct websocket_server *server = host->servers;
		host->servers = server->next;
		free(server);
	}
	SSL_CTX_free(host->client_tls);
	free(host);
	closed(owner);
}

/*
 * libwebsockets closes its libuv handles in steps and does not say when it is done: give it its
 * turns.
 */
static void on_destroy_turn(uv_idle_t *idle)
{
	struct websocket_host *host = container_of(idle, struct websocket_host, idle);

	if (++host->turns < DESTROY_TURNS || host->n_handles > 0)
		return;
	lws_context_destroy(host->context);
	host->context = NULL;
	uv_close((uv_handle_t *)&host->idle, on_own_handle_closed);
	uv_close((uv_handle_t *)&host->prepare, on_own_handle_closed);
	uv_close((uv_handle_t *)&host->kick, on_own_handle_closed);
}

static void on_start_destroy(uv_idle_t *idle)
{
	struct websocket_host *host = container_of(idle, struct websocket_host, idle);

	uv_idle_stop(idle);
	uv_idle_start(idle, on_destroy_turn);
	uv_prepare_stop(&host->prepare);
	uv_timer_stop(&host->kick);
	lws_context_destroy(host->context);
}

static bool has_told_everyone(const struct websocket_host *host)
{
	for (const struct websocket *ws = host->websockets; ws; ws = ws->next)
		if (!ws->server || ws->state == OPEN || ws->state == CLOSING || ws->state == ENDED)
			return false;
	return true;
}

static void advance_close(struct websocket_host *host)
{
	if (!host->closing || host->destroying || !has_told_everyone(host))
		return;
	host->destroying = true;
	uv_idle_start(&host->idle, on_start_destroy);
}

static void on_server_handle_closed(uv_handle_t *handle)
{
	struct websocket_host *host = handle->data;

	host->n_handles--;
	advance_close(host);
}

static void close_server(struct websocket_server *server)
{
	server->accept.data = server->pause.data = server->host;
	uv_close((uv_handle_t *)&server->accept, on_server_handle_closed);
	uv_close((uv_handle_t *)&server->pause, on_server_handle_closed);
	close(server->fd);
	server->fd = -1;
}

void websocket_host_close(struct websocket_host *host, void (*cb)(void *owner), void *owner)
{
	assert(!host->closing);
	host->closing = true;
	host->closed = cb;
	host->owner = owner;
	for (struct websocket_server *server = host->servers; server; server = server->next)
		close_server(server);
	for (struct websocket *ws = host->websockets, *next; ws; ws = next) {
		next = ws->next;
		if (ws->state != ENDED)
			end_now(ws, "we are closing");
	}
	advance_close(host);
}

uv_loop_t *websocket_host_loop(const struct websocket_host *host)
{
	return host->loop;
}

/* Making a server */

static struct lws_vhost *make_vhost(struct websocket_server *server)
{
	struct lws_context_creation_info info = {
		.port = CONTEXT_PORT_NO_LISTEN_SERVER,
		.protocols = protocols,
		.vhost_name = server->name,                          /* not copied */
		.provided_client_ssl_ctx = server->host->client_tls, /* else it makes one */
		.options = LWS_SERVER_OPTION_VALIDATE_UTF8 |
			   (server->is_plain ? 0 : LWS_SERVER_OPTION_DO_SSL_GLOBAL_INIT |
							   LWS_SERVER_OPTION_CREATE_VHOST_SSL_CTX),
		.alpn = "http/1.1",
		.user = server,
		.timeout_secs = HANDSHAKE_S,
		.retry_and_idle_policy = &keep_alive,
	};

	snprintf(server->name, sizeof(server->name), "port-%u", server->port);
	return lws_create_vhost(server->host->context, &info);
}

static size_t or_default(size_t value, size_t fallback)
{
	return value ? value : fallback;
}

int websocket_server_new(struct websocket_host *host,
			 const struct websocket_server_options *options,
			 struct websocket_server **ret, struct error *reterr)
{
	struct websocket_server *server = calloc(1, sizeof(*server));

	if (!server)
		abort();
	server->host = host;
	server->handler = options->handler;
	server->is_plain = options->is_plain;
	server->is_any_path = options->is_plain || options->is_any_path;
	server->max_connections =
		or_default(options->max_connections, file_limit() - FILES_RESERVED);
	server->max_per_address = or_default(options->max_per_address, DEFAULT_PER_ADDRESS);
	uint32_t rate = options->max_rate_source ? options->max_rate_source : DEFAULT_RATE;
	source_limit_init(&server->source_limit, rate, BURST_OF_RATE * rate);
	randombytes_buf(server->seed, sizeof(server->seed));
	server->handshake_ms =
		options->handshake_ms ? options->handshake_ms : HANDSHAKE_S * UINT64_C(1000);
	server->max_message = options->max_message;
	server->max_queue = options->max_queue;
	server->send_buffer = options->send_buffer;
	server->max_unproven = options->max_unproven;
	server->max_unproven_source = options->max_unproven_source;
	int r = listen_on(&options->listen, &server->fd, &server->port, reterr);
	if (r != 0) {
		free(server);
		return r;
	}
	server->setup = options;
	server->vhost = make_vhost(server);
	server->setup = NULL;
	if (!server->vhost) {
		r = error_set(reterr, -EINVAL, "cannot set up TLS: %s",
			      server->setup_error.message);
		close(server->fd);
		free(server);
		return r;
	}
	uv_poll_init(host->loop, &server->accept, server->fd);
	uv_timer_init(host->loop, &server->pause);
	host->n_handles += 2;
	uv_poll_start(&server->accept, UV_READABLE, on_acceptable);
	server->next = host->servers;
	host->servers = server;
	*ret = server;
	return 0;
}

uint16_t websocket_server_port(const struct websocket_server *server)
{
	return server->port;
}

int websocket_server_set_certificate(struct websocket_server *server, const char *certificate_pem,
				     const char *key_pem, struct error *reterr)
{
	return tls_context_set_certificate(server->tls, certificate_pem, key_pem, reterr);
}

struct websocket_server_counters websocket_server_counters(const struct websocket_server *server)
{
	return server->counters;
}

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
	forget_unproven(ws);
}

void websocket_unprove(struct websocket *ws)
{
	if (ws->is_unproven || ws->state != OPEN || ws->ending || !ws->server || ws->server->max_unproven == 0)
		return;
	ws->is_unproven = true;
	ws->server->n_unproven++;
	uv_timer_start(&ws->timer, on_timeout, ws->server->handshake_ms, 0);
}

void websocket_close(struct websocket *ws, const char *why)
{
	if (ws->state == ENDED || ws->state == CLOSING)
		return;
	if (ws->state != OPEN) {
		end_now(ws, why);
		return;
	}
	set_why(ws, why);
	ws->state = CLOSING;
	uv_timer_start(&ws->timer, on_timeout, CLOSE_TIMEOUT_MS, 0);
	lws_callback_on_writable(ws->wsi);
}

void websocket_abort(struct websocket *ws, const char *why)
{
	if (ws->state != ENDED)
		end_now(ws, why);
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
