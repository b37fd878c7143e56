/*
 * A connection reads until it holds a whole request, then stops reading until that is answered, so
 * that nobody can make us buffer more than one request. Requests are taken by turns.
 */
#include "node/wireguard/uapi.h"

#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/file.h"
#include "common/log.h"
#include "common/macros.h"

#define FIRST_ROOM 4096

struct uapi_connection {
	uv_pipe_t pipe;
	struct uapi_server *server;
	struct uapi_connection *next;
	char *input; /* secrets: wiped when freed */
	size_t len, room, scanned;
	bool is_ready; /* the first request in input is whole */
	bool is_closing;
};

struct uapi_server {
	uv_pipe_t pipe;
	uv_fs_event_t folder_watch;
	struct uapi_ports ports;
	char path[sizeof(UAPI_FOLDER) + 32];
	ino_t inode;
	struct uapi_connection *connections;
	uint32_t n_connections;

	struct uapi_connection *taken_from; /* of the request in work; NULL when it has hung up */
	bool is_taken;
	struct uapi_request request;
	struct uapi_item *items;

	int n_open; /* handles */
	void (*closed)(void *arg);
	void *closed_arg;
};

/* A write of an answer: the text goes with it. */
struct answer {
	uv_write_t write;
	struct uapi_connection *connection;
	char *text;
	size_t len;
};

static void wipe_and_free(void *secret, size_t len)
{
	if (secret)
		sodium_memzero(secret, len);
	free(secret);
}

/* closing */

static void one_handle_less(struct uapi_server *server)
{
	if (--server->n_open > 0)
		return;
	void (*closed)(void *arg) = server->closed;
	void *arg = server->closed_arg;

	wipe_and_free(server->items, server->request.n_items * sizeof(*server->items));
	free(server);
	closed(arg);
}

static void on_server_handle_closed(uv_handle_t *handle)
{
	one_handle_less(handle->data);
}

static void on_connection_closed(uv_handle_t *handle)
{
	struct uapi_connection *connection = container_of((uv_pipe_t *)handle, struct uapi_connection, pipe);
	struct uapi_server *server = connection->server;

	wipe_and_free(connection->input, connection->room);
	free(connection);
	one_handle_less(server);
}

static void close_connection(struct uapi_connection *connection)
{
	struct uapi_server *server = connection->server;

	if (connection->is_closing)
		return;
	connection->is_closing = true;
	for (struct uapi_connection **c = &server->connections; *c; c = &(*c)->next) {
		if (*c == connection) {
			*c = connection->next;
			break;
		}
	}
	server->n_connections--;
	if (server->taken_from == connection)
		server->taken_from = NULL;
	uv_close((uv_handle_t *)&connection->pipe, on_connection_closed);
}

/* answering */

static void go_on(struct uapi_connection *connection);

static void on_written(uv_write_t *write, int status)
{
	struct answer *answer = container_of(write, struct answer, write);
	struct uapi_connection *connection = answer->connection;

	wipe_and_free(answer->text, answer->len);
	free(answer);
	if (status != 0)
		close_connection(connection);
	else if (!connection->is_closing)
		go_on(connection);
}

static void send_answer(struct uapi_connection *connection, char *text_take, size_t len)
{
	struct answer *answer = calloc(1, sizeof(*answer));
	if (!answer)
		abort();

	*answer = (struct answer){ .connection = connection, .text = text_take, .len = len };
	uv_buf_t piece = { .base = text_take, .len = len };
	if (uv_write(&answer->write, (uv_stream_t *)&connection->pipe, &piece, 1, on_written) != 0) {
		wipe_and_free(text_take, len);
		free(answer);
		close_connection(connection);
	}
}

static char *result_text(int result, size_t *ret_len)
{
	char *text = malloc(UAPI_RESULT_TEXT_LEN);
	if (!text)
		abort();
	struct wire_writer w = wire_writer(text, UAPI_RESULT_TEXT_LEN);

	uapi_put_result(&w, result);
	*ret_len = wire_written(&w);
	return text;
}

static void send_result(struct uapi_connection *connection, int result)
{
	size_t len;
	char *text = result_text(result, &len);

	send_answer(connection, text, len);
}

/* reading */

static void drop_request(struct uapi_connection *connection, size_t len)
{
	memmove(connection->input, connection->input + len, connection->len - len);
	connection->len -= len;
	sodium_memzero(connection->input + connection->len, len);
	connection->scanned = 0;
	connection->is_ready = false;
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *ret)
{
	struct uapi_connection *connection = container_of((uv_pipe_t *)handle, struct uapi_connection, pipe);

	if (connection->len == connection->room) {
		size_t room = connection->room ? connection->room * 2 : FIRST_ROOM;
		char *input = malloc(room);
		if (!input)
			abort();
		memcpy(input, connection->input ? connection->input : "", connection->len);
		wipe_and_free(connection->input, connection->room);
		connection->input = input;
		connection->room = room;
	}
	*ret = uv_buf_init(connection->input + connection->len,
			   (unsigned)(connection->room - connection->len));
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer)
{
	struct uapi_connection *connection = container_of((uv_pipe_t *)stream, struct uapi_connection, pipe);

	if (n < 0) {
		close_connection(connection);
		return;
	}
	connection->len += (size_t)n;
	go_on(connection);
}

/* Looks for a whole request in what has been read; reads on when there is none. */
static void go_on(struct uapi_connection *connection)
{
	struct uapi_server *server = connection->server;
	uv_stream_t *stream = (uv_stream_t *)&connection->pipe;

	if (uapi_request_len(connection->input, connection->len, &connection->scanned) > 0) {
		connection->is_ready = true;
		uv_read_stop(stream);
		server->ports.requested(server->ports.owner);
		return;
	}
	if (connection->len >= UAPI_MAX_REQUEST_LEN) {
		log_warning("wireguard", "configuration request longer than %u bytes refused",
			    UAPI_MAX_REQUEST_LEN);
		close_connection(connection);
		return;
	}
	int r = uv_read_start(stream, on_alloc, on_read);
	if (r != 0 && r != UV_EALREADY)
		close_connection(connection);
}

/* taking */

static struct uapi_connection *find_ready(struct uapi_server *server)
{
	struct uapi_connection *found = NULL;

	/* The list has the youngest first: the last one found has waited longest. */
	for (struct uapi_connection *c = server->connections; c; c = c->next)
		if (c->is_ready)
			found = c;
	return found;
}

/* Parses the connection's first request into server->request. 0 or an enum uapi_error. */
static int parse_request(struct uapi_server *server, struct uapi_connection *connection)
{
	size_t len = uapi_request_len(connection->input, connection->len, &connection->scanned);
	size_t room = uapi_count_lines(connection->input, len);
	size_t n = 0;

	wipe_and_free(server->items, server->request.n_items * sizeof(*server->items));
	server->items = calloc(room, sizeof(*server->items));
	if (!server->items)
		abort();
	int r = uapi_parse(connection->input, len, &server->request.command, server->items, room, &n);
	server->request.items = server->items;
	server->request.n_items = room; /* so that all of it is wiped */
	drop_request(connection, len);
	if (r != 0)
		return r;
	sodium_memzero(server->items + n, (room - n) * sizeof(*server->items));
	server->request.n_items = n;
	return 0;
}

const struct uapi_request *uapi_take(struct uapi_server *server)
{
	struct uapi_connection *connection;

	while (!server->is_taken && !server->closed && (connection = find_ready(server))) {
		int error = parse_request(server, connection);
		if (error != 0) {
			send_result(connection, -uapi_error_errno(error));
			continue;
		}
		server->is_taken = true;
		server->taken_from = connection;
		return &server->request;
	}
	return NULL;
}

void uapi_answer(struct uapi_server *server, char *text_take, size_t len)
{
	struct uapi_connection *connection = server->taken_from;

	assert(server->is_taken);
	server->is_taken = false;
	server->taken_from = NULL;
	if (connection)
		send_answer(connection, text_take, len);
	else
		wipe_and_free(text_take, len);
}

void uapi_answer_result(struct uapi_server *server, int result)
{
	size_t len;
	char *text = result_text(result, &len);

	uapi_answer(server, text, len);
}

/* listening */

static void on_connection(uv_stream_t *stream, int status)
{
	struct uapi_server *server = stream->data;
	struct uapi_connection *connection = calloc(1, sizeof(*connection));
	if (!connection)
		abort();

	connection->server = server;
	uv_pipe_init(stream->loop, &connection->pipe, 0);
	server->n_open++;
	server->n_connections++;
	connection->next = server->connections;
	server->connections = connection;
	if (status != 0 || uv_accept(stream, (uv_stream_t *)&connection->pipe) != 0 ||
	    server->n_connections > UAPI_MAX_CONNECTIONS)
		close_connection(connection);
	else
		go_on(connection);
}

static void on_folder_event(uv_fs_event_t *watch, const char *name, int events, int status)
{
	struct uapi_server *server = container_of(watch, struct uapi_server, folder_watch);
	struct stat now;

	if (server->closed || (stat(server->path, &now) == 0 && now.st_ino == server->inode))
		return;
	uv_fs_event_stop(watch);
	server->ports.socket_gone(server->ports.owner);
}

/* A socket file that nobody answers at is left over from a program that was killed. */
static int remove_stale_socket(const char *path)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;

	snprintf(name.sun_path, sizeof(name.sun_path), "%s", path);
	int r = connect(fd, (const void *)&name, sizeof(name)) == 0 ? -EADDRINUSE : -errno;
	close(fd);
	if (r == -ECONNREFUSED)
		r = unlink(path) == 0 ? 0 : -errno;
	return r == -ENOENT ? 0 : r;
}

/*
 * wg(8) removes a socket that nobody answers at, and ours is one until somebody listens: it gets its name
 * after that.
 */
static int bind_socket(struct uapi_server *server, const char *ifname)
{
	char path[sizeof(server->path)];
	struct stat now;
	int r = remove_stale_socket(server->path);

	if (r != 0)
		return r;
	snprintf(path, sizeof(path), "%s/.%s.%ld", UAPI_FOLDER, ifname, (long)getpid());
	mode_t before = umask(0177);
	r = uv_pipe_bind(&server->pipe, path);
	umask(before);
	if (r == 0)
		r = uv_listen((uv_stream_t *)&server->pipe, UAPI_MAX_CONNECTIONS, on_connection);
	if (r == 0 && (stat(path, &now) != 0 || rename(path, server->path) != 0))
		r = -errno;
	if (r == 0)
		server->inode = now.st_ino;
	return r;
}

/* The loop removes the name that it knows. */
static void remove_socket(const struct uapi_server *server)
{
	struct stat now;

	if (server->inode != 0 && stat(server->path, &now) == 0 && now.st_ino == server->inode)
		(void)unlink(server->path);
}

/* The user's inotify instances may be used up: we serve all the same, but do not see the removal. */
static void watch_folder(struct uapi_server *server)
{
	int r = uv_fs_event_start(&server->folder_watch, on_folder_event, UAPI_FOLDER, 0);

	if (r != 0)
		log_warning("wireguard", "cannot watch %s: %s", UAPI_FOLDER, uv_strerror(r));
}

static void report_nothing(void *arg)
{
}

int uapi_listen(uv_loop_t *loop, const char *ifname, const struct uapi_ports *ports, struct uapi_server **ret,
		struct error *reterr)
{
	int r = file_make_folder(UAPI_FOLDER, 0755, reterr);
	if (r != 0)
		return r;

	struct uapi_server *server = calloc(1, sizeof(*server));
	if (!server)
		abort();
	server->ports = *ports;
	snprintf(server->path, sizeof(server->path), "%s/%s.sock", UAPI_FOLDER, ifname);
	uv_pipe_init(loop, &server->pipe, 0);
	uv_fs_event_init(loop, &server->folder_watch);
	server->pipe.data = server->folder_watch.data = server;
	server->n_open = 2;

	r = bind_socket(server, ifname);
	if (r == 0)
		watch_folder(server);
	if (r != 0) {
		error_set(reterr, r, "cannot listen on %s: %s%s", server->path, strerror(-r),
			  r == -EADDRINUSE ? " (another program serves this interface)" : "");
		uapi_close(server, report_nothing, NULL);
		return r;
	}
	*ret = server;
	return 0;
}

void uapi_close(struct uapi_server *server, void (*closed)(void *arg), void *arg)
{
	assert(!server->closed);
	server->closed = closed;
	server->closed_arg = arg;
	while (server->connections)
		close_connection(server->connections);
	remove_socket(server);
	uv_close((uv_handle_t *)&server->folder_watch, on_server_handle_closed);
	uv_close((uv_handle_t *)&server->pipe, on_server_handle_closed);
}
