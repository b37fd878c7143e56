/*
 * The host: libwebsockets' context on the loop, and the order in which all of it closes.
 */
#include "common/websocket_internal.h"

#include "common/log.h"
#include "common/macros.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define FILES_WANTED  65536
#define KICK_MS       1
#define DESTROY_TURNS 8 /* loop turns in which libwebsockets' handles close, two are needed */

/* Bounds libwebsockets' tables, which it sizes by this limit. */
static void set_file_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return;
	limit.rlim_cur = limit.rlim_max < FILES_WANTED ? limit.rlim_max : FILES_WANTED;
	setrlimit(RLIMIT_NOFILE, &limit);
}

static void on_lws_log(int level, const char *line)
{
	log_debug(MODULE, "%.*s", (int)strcspn(line, "\n"), line);
}

static int make_context(struct websocket_host *host, struct error *reterr)
{
	void *loops[] = { host->loop };
	struct lws_context_creation_info info = {
		.port = CONTEXT_PORT_NO_LISTEN,
		.protocols = websocket_protocols,
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
	websocket_number_find(&host->number, host->loop);
	info.vhost_name = "clients";
	info.provided_client_ssl_ctx = host->client_tls;
	info.retry_and_idle_policy = &websocket_keep_alive;
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
	int r = websocket_make_client_tls(host, reterr);
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
	websocket_number_let_go(&host->number);
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
	websocket_number_hold(&host->number);
}

static bool has_told_everyone(const struct websocket_host *host)
{
	for (const struct websocket *ws = host->websockets; ws; ws = ws->next)
		if (!ws->server || ws->state == OPEN || ws->state == CLOSING || ws->state == ENDED)
			return false;
	return true;
}

void websocket_host_advance_close(struct websocket_host *host)
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
	websocket_host_advance_close(host);
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
			websocket_end_now(ws, "we are closing");
	}
	websocket_host_advance_close(host);
}

uv_loop_t *websocket_host_loop(const struct websocket_host *host)
{
	return host->loop;
}
