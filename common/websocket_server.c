/*
 * The server's side: it listens and accepts itself, and says who finds a place.
 */
#include "common/websocket_internal.h"

#include "common/log.h"
#include "common/macros.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define ACCEPT_PAUSE_MS     100
#define ACCEPTS_PER_WAKE    16
#define DEFAULT_PER_ADDRESS 1024
#define DEFAULT_RATE        100
#define BURST_OF_RATE       10
#define FILES_RESERVED      64
#define MAX_MAKING_ROOM     64 /* connections that end and have not yet */
#define PREFIX_V6           7  /* bytes: a /56 */

/* As endpoint_is_same_source(): who is the same has the same. */
static size_t source_of(const struct websocket_server *server, const struct endpoint *address)
{
	uint64_t hash;

	_Static_assert(sizeof(hash) == crypto_shorthash_BYTES, "one hash of libsodium's");
	crypto_shorthash((unsigned char *)&hash, address->ip, endpoint_is_v4(address) ? sizeof(address->ip) : 8, server->seed);
	return hash % SOURCES;
}

void websocket_server_forget(const struct websocket *ws)
{
	struct websocket_server *server = ws->server;

	server->counters.open--;
	server->n_of[source_of(server, &ws->remote)]--;
	server->n_making_room -= ws->is_making_room;
}

static bool is_rpc_path(struct lws *wsi)
{
	char path[16];

	return lws_hdr_copy(wsi, path, sizeof(path), WSI_TOKEN_GET_URI) == (int)strlen(PATH) &&
	       strcmp(path, PATH) == 0;
}

bool websocket_is_served(const struct websocket *ws)
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
	websocket_forget_unproven(oldest);
	oldest->is_making_room = true;
	server->n_making_room++;
	server->counters.made_room++;
	websocket_end_now(oldest, "others came, and it had not said who it is");
}

static void adopt(struct websocket_server *server, int fd, const struct endpoint *remote, bool was_taken)
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
	struct websocket *ws = websocket_new(server->host, &server->handler);
	ws->server = server;
	ws->wsi = wsi;
	ws->remote = *remote;
	ws->was_taken = was_taken;
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
	uv_timer_start(&ws->timer, websocket_on_timeout, server->handshake_ms, 0);
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
			adopt(server, fd, &remote, false);
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

void websocket_server_take(struct websocket_server *server, int fd_take, const struct endpoint *remote)
{
	if (server->host->closing)
		close(fd_take);
	else
		adopt(server, fd_take, remote, true);
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

int websocket_server_on_tls(struct lws *wsi, SSL_CTX *tls)
{
	struct websocket_server *server = lws_vhost_user(lws_get_vhost(wsi));

	if (!server || !server->setup)
		return 0;
	server->tls = tls;
	return tls_context_configure(tls, &server->setup->tls, &server->setup_error) == 0 ? 0 : 1;
}

/* Making a server */

static struct lws_vhost *make_vhost(struct websocket_server *server)
{
	struct lws_context_creation_info info = {
		.port = CONTEXT_PORT_NO_LISTEN_SERVER,
		.protocols = websocket_protocols,
		.vhost_name = server->name,                          /* not copied */
		.provided_client_ssl_ctx = server->host->client_tls, /* else it makes one */
		.options = LWS_SERVER_OPTION_VALIDATE_UTF8 |
			   (server->is_plain ? 0 : LWS_SERVER_OPTION_DO_SSL_GLOBAL_INIT |
							   LWS_SERVER_OPTION_CREATE_VHOST_SSL_CTX),
		.alpn = "http/1.1",
		.user = server,
		.timeout_secs = HANDSHAKE_S,
		.retry_and_idle_policy = &websocket_keep_alive,
	};

	snprintf(server->name, sizeof(server->name), "port-%u", server->port);
	return lws_create_vhost(server->host->context, &info);
}

static size_t file_limit(void)
{
	struct rlimit limit;

	return getrlimit(RLIMIT_NOFILE, &limit) == 0 ? (size_t)limit.rlim_cur : 1024;
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
