#include "relay/http_server.h"

#include "common/http_request.h"
#include "common/macros.h"
#include "relay/tcp_listener.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_CONNECTIONS 16
#define TIMEOUT_MS	5000

struct connection {
	struct http_server *server;
	struct connection *next;
	uv_tcp_t tcp;
	uv_timer_t deadline;
	uv_write_t write;
	uint8_t n_open; /* handles */
	bool is_closing, is_answered;
	char *answer; /* owned */
	char head[HTTP_REQUEST_MAX_LEN];
	size_t n_head;
};

struct http_server {
	struct http_server_options options;
	struct tcp_listener listener;
	bool is_listening, is_stopping;
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
	uv_close((uv_handle_t *)&connection->tcp, on_handle_closed);
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
	case 400:
		return "Bad Request";
	case 404:
		return "Not Found";
	case 405:
		return "Method Not Allowed";
	case 431:
		return "Request Header Fields Too Large";
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
	if (status < 0 || uv_fileno((uv_handle_t *)&connection->tcp, &fd) != 0)
		close_connection(connection);
	else
		shutdown(fd, SHUT_WR); /* a close might overtake the answer with a reset */
}

static void answer(struct connection *connection, int status, const char *type, const char *text, bool with_body)
{
	const char *allow = status == 405 ? "Allow: GET, HEAD\r\n" : "";
	int len = asprintf(&connection->answer,
			   "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n%s"
			   "Cache-Control: no-store\r\nConnection: close\r\n\r\n%s",
			   status, reason_of(status), type, strlen(text), allow, with_body ? text : "");

	connection->is_answered = true;
	if (len < 0)
		abort();
	uv_buf_t buf = uv_buf_init(connection->answer, (unsigned)len);
	if (uv_write(&connection->write, (uv_stream_t *)&connection->tcp, &buf, 1, on_written) < 0)
		close_connection(connection);
}

static void answer_plain(struct connection *connection, int status)
{
	char text[64];

	snprintf(text, sizeof(text), "%s\n", reason_of(status));
	answer(connection, status, "text/plain; charset=utf-8", text, true);
}

static void serve(struct connection *connection, const struct http_request *request)
{
	const struct http_server_options *options = &connection->server->options;
	struct http_page page;

	if (request->method == HTTP_OTHER) {
		answer_plain(connection, 405);
	} else if (!options->page(options->owner, request->path, &page)) {
		answer_plain(connection, 404);
	} else {
		answer(connection, page.status, page.type, page.text, request->method == HTTP_GET);
		free(page.text);
	}
}

/* reading */

static void on_allocate(uv_handle_t *handle, size_t suggested, uv_buf_t *ret)
{
	struct connection *connection = handle->data;

	(void)suggested;
	if (connection->is_answered) /* nobody reads it */
		connection->n_head = 0;
	*ret = uv_buf_init(connection->head + connection->n_head,
			   (unsigned)(sizeof(connection->head) - connection->n_head));
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
	connection->n_head += (size_t)n;
	switch (http_request_parse(connection->head, connection->n_head, &request)) {
	case 0:
		serve(connection, &request);
		break;
	case HTTP_REQUEST_MORE:
		break;
	case HTTP_REQUEST_TOO_LONG:
		answer_plain(connection, 431);
		break;
	default:
		answer_plain(connection, 400);
		break;
	}
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
	uv_tcp_init(server->options.loop, &connection->tcp);
	uv_timer_init(server->options.loop, &connection->deadline);
	connection->tcp.data = connection->deadline.data = connection;
	uv_timer_start(&connection->deadline, on_deadline, TIMEOUT_MS, 0);
	if (uv_tcp_open(&connection->tcp, fd) < 0) {
		close(fd);
		close_connection(connection);
	} else if (uv_read_start((uv_stream_t *)&connection->tcp, on_allocate, on_read) < 0) {
		close_connection(connection);
	}
}

/* public */

int http_server_start(const struct http_server_options *options, struct http_server **ret, struct error *reterr)
{
	struct http_server *server = calloc(1, sizeof(*server));

	if (!server)
		return error_set(reterr, -ENOMEM, "out of memory");
	server->options = *options;
	const struct tcp_listener_ports ports = { server, on_accepted };
	int r = tcp_listener_open(&server->listener, options->loop, &options->listen, NULL, &ports, reterr);
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
	for (struct connection *c = server->connections; c; c = c->next)
		close_connection(c);
	tcp_listener_close(&server->listener, on_listener_closed);
}

uint16_t http_server_port(const struct http_server *server)
{
	return tcp_listener_port(&server->listener);
}
