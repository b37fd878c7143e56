#include "relay/http_server.h"

#include "common/http_request.h"
#include "common/macros.h"
#include "common/unix_socket.h"
#include "relay/tcp_listener.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_CONNECTIONS 16
#define TIMEOUT_MS	5000
#define BACKLOG		16

struct connection {
	struct http_server *server;
	struct connection *next;
	union {
		uv_handle_t handle;
		uv_stream_t stream;
		uv_tcp_t tcp;
		uv_pipe_t pipe;
	} socket;
	uv_timer_t deadline;
	uv_write_t write;
	uint8_t n_open; /* handles */
	bool is_closing, is_answered;
	char *answer; /* owned */
	char bytes[HTTP_REQUEST_MAX_LEN + HTTP_SERVER_MAX_BODY];
	size_t n_bytes;
};

struct http_server {
	struct http_server_options options;
	struct tcp_listener listener;
	bool is_listening, is_stopping;
	char *path; /* of a Unix socket, and its file */
	struct stat file;
	struct connection *connections;
	uint32_t n_connections;
	void (*stopped)(void *owner);
	void *stopped_owner;
};

/* the end */

static void free_if_stopped(struct http_server *server)
{
	if (!server->is_stopping || server->is_listening || server->n_connections > 0)
		return;
	void (*stopped)(void *owner) = server->stopped;
	void *owner = server->stopped_owner;

	free(server->path);
	free(server);
	if (stopped)
		stopped(owner);
}

static void on_handle_closed(uv_handle_t *handle)
{
	struct connection *connection = handle->data;
	struct http_server *server = connection->server;
	struct connection **at = &server->connections;

	if (--connection->n_open > 0)
		return;
	while (*at != connection)
		at = &(*at)->next;
	*at = connection->next;
	free(connection->answer);
	free(connection);
	server->n_connections--;
	free_if_stopped(server);
}

static void close_connection(struct connection *connection)
{
	if (connection->is_closing)
		return;
	connection->is_closing = true;
	uv_close(&connection->socket.handle, on_handle_closed);
	uv_close((uv_handle_t *)&connection->deadline, on_handle_closed);
}

static void on_deadline(uv_timer_t *timer)
{
	close_connection(timer->data);
}

/* answering */

static const char *reason_of(int status)
{
	switch (status) {
	case 200:
		return "OK";
	case 204:
		return "No Content";
	case 400:
		return "Bad Request";
	case 404:
		return "Not Found";
	case 405:
		return "Method Not Allowed";
	case 409:
		return "Conflict";
	case 413:
		return "Content Too Large";
	case 431:
		return "Request Header Fields Too Large";
	case 500:
		return "Internal Server Error";
	case 503:
		return "Service Unavailable";
	}
	return "Error";
}

/* The other side closes when it has read everything; what it still says meanwhile is read and forgotten. */
static void on_written(uv_write_t *write, int status)
{
	struct connection *connection = container_of(write, struct connection, write);

	uv_os_fd_t fd;

	free(connection->answer);
	connection->answer = NULL;
	if (status < 0 || uv_fileno(&connection->socket.handle, &fd) != 0)
		close_connection(connection);
	else
		shutdown(fd, SHUT_WR); /* a close might overtake the answer with a reset */
}

static char *print_answer(const struct http_page *page, bool with_body)
{
	const char *allow = page->allow ? page->allow : "GET, HEAD";
	const bool is_allowed = page->status != 405;
	char *text = NULL;
	int len;

	if (page->status == 204)
		len = asprintf(&text, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
	else
		len = asprintf(&text,
			       "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n%s%s%s"
			       "Cache-Control: no-store\r\nConnection: close\r\n\r\n%s",
			       page->status, reason_of(page->status), page->type, strlen(page->text),
			       is_allowed ? "" : "Allow: ", is_allowed ? "" : allow, is_allowed ? "" : "\r\n",
			       with_body ? page->text : "");
	if (len < 0)
		abort();
	return text;
}

static void answer(struct connection *connection, const struct http_page *page, bool with_body)
{
	connection->is_answered = true;
	connection->answer = print_answer(page, with_body);
	uv_buf_t buf = uv_buf_init(connection->answer, (unsigned)strlen(connection->answer));
	if (uv_write(&connection->write, &connection->socket.stream, &buf, 1, on_written) < 0)
		close_connection(connection);
}

static void fail(struct connection *connection, int status)
{
	const struct http_server_options *options = &connection->server->options;
	char text[64];

	snprintf(text, sizeof(text), "%s\n", reason_of(status));
	struct http_page page = { .status = status, .type = "text/plain; charset=utf-8", .text = text };
	if (options->failure) {
		page.type = "application/json";
		page.text = options->failure(reason_of(status));
	}
	answer(connection, &page, true);
	if (options->failure)
		free(page.text);
}

static void serve_page(struct connection *connection, const struct http_request *request)
{
	const struct http_server_options *options = &connection->server->options;
	struct http_page page = { 0 };

	if (request->method != HTTP_GET && request->method != HTTP_HEAD) {
		fail(connection, 405);
	} else if (!options->page(options->owner, request->path, &page)) {
		fail(connection, 404);
	} else {
		answer(connection, &page, request->method == HTTP_GET);
		free(page.text);
	}
}

static void serve_request(struct connection *connection, const struct http_request *request)
{
	const struct http_server_options *options = &connection->server->options;
	struct http_page page = { 0 };
	const char *body = NULL;
	size_t len = 0;

	switch (http_request_body(connection->bytes, connection->n_bytes, HTTP_SERVER_MAX_BODY, &body, &len)) {
	case 0:
		options->request(options->owner, request, body, len, &page);
		answer(connection, &page, request->method != HTTP_HEAD);
		free(page.text);
		return;
	case HTTP_REQUEST_MORE:
		return;
	case HTTP_REQUEST_TOO_LONG:
		fail(connection, 413);
		return;
	default:
		fail(connection, 400);
	}
}

/* reading */

static void on_allocate(uv_handle_t *handle, size_t suggested, uv_buf_t *ret)
{
	struct connection *connection = handle->data;

	(void)suggested;
	if (connection->is_answered) /* nobody reads it */
		connection->n_bytes = 0;
	*ret = uv_buf_init(connection->bytes + connection->n_bytes,
			   (unsigned)(sizeof(connection->bytes) - connection->n_bytes));
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct connection *connection = stream->data;
	struct http_request request;

	(void)buf;
	if (n < 0) {
		close_connection(connection);
		return;
	}
	if (connection->is_answered || n == 0)
		return;
	connection->n_bytes += (size_t)n;
	const size_t n_head = connection->n_bytes < HTTP_REQUEST_MAX_LEN ? connection->n_bytes : HTTP_REQUEST_MAX_LEN;
	switch (http_request_parse(connection->bytes, n_head, &request)) {
	case 0:
		if (connection->server->options.request)
			serve_request(connection, &request);
		else
			serve_page(connection, &request);
		break;
	case HTTP_REQUEST_MORE:
		break;
	case HTTP_REQUEST_TOO_LONG:
		fail(connection, 431);
		break;
	default:
		fail(connection, 400);
		break;
	}
}

/* 0, or the descriptor is still the caller's. */
static int take_socket(struct connection *connection, int fd)
{
	uv_loop_t *loop = connection->server->options.loop;

	if (!connection->server->path) {
		uv_tcp_init(loop, &connection->socket.tcp);
		return uv_tcp_open(&connection->socket.tcp, fd);
	}
	uv_pipe_init(loop, &connection->socket.pipe, 0);
	return uv_pipe_open(&connection->socket.pipe, fd);
}

static void on_accepted(void *owner, int fd, const struct endpoint *remote)
{
	struct http_server *server = owner;
	struct connection *connection =
		server->n_connections < MAX_CONNECTIONS ? calloc(1, sizeof(*connection)) : NULL;

	(void)remote;
	if (!connection) {
		close(fd);
		return;
	}
	connection->server = server;
	connection->next = server->connections;
	server->connections = connection;
	server->n_connections++;
	connection->n_open = 2;
	const int r = take_socket(connection, fd);
	uv_timer_init(server->options.loop, &connection->deadline);
	connection->socket.handle.data = connection->deadline.data = connection;
	uv_timer_start(&connection->deadline, on_deadline, TIMEOUT_MS, 0);
	if (r < 0) {
		close(fd);
		close_connection(connection);
	} else if (uv_read_start(&connection->socket.stream, on_allocate, on_read) < 0) {
		close_connection(connection);
	}
}

/* public */

static int listen_at_path(struct http_server *server, const struct tcp_listener_ports *ports, struct error *reterr)
{
	const struct http_server_options *options = &server->options;
	int fd = -1, r = unix_socket_listen(options->path, options->choose, BACKLOG, &fd, &server->file, reterr);

	if (r < 0)
		return r;
	server->path = strdup(options->path);
	if (!server->path)
		abort();
	r = tcp_listener_adopt(&server->listener, options->loop, fd, ports);
	if (r == 0)
		return 0;
	unix_socket_remove(server->path, &server->file);
	free(server->path);
	return error_set(reterr, r, "%s: cannot watch: %s", options->path, uv_strerror(r));
}

int http_server_start(const struct http_server_options *options, struct http_server **ret, struct error *reterr)
{
	struct http_server *server = calloc(1, sizeof(*server));

	if (!server)
		return error_set(reterr, -ENOMEM, "out of memory");
	server->options = *options;
	const struct tcp_listener_ports ports = { server, on_accepted };
	int r = options->path ? listen_at_path(server, &ports, reterr)
			      : tcp_listener_open(&server->listener, options->loop, &options->listen, NULL, &ports, reterr);
	if (r < 0) {
		free(server);
		return r;
	}
	server->is_listening = true;
	*ret = server;
	return 0;
}

static void on_listener_closed(void *owner)
{
	struct http_server *server = owner;

	server->is_listening = false;
	free_if_stopped(server);
}

void http_server_stop(struct http_server *server, void (*cb)(void *owner), void *owner)
{
	server->is_stopping = true;
	server->stopped = cb;
	server->stopped_owner = owner;
	if (server->path)
		unix_socket_remove(server->path, &server->file);
	for (struct connection *c = server->connections; c; c = c->next)
		close_connection(c);
	tcp_listener_close(&server->listener, on_listener_closed);
}

uint16_t http_server_port(const struct http_server *server)
{
	return tcp_listener_port(&server->listener);
}
