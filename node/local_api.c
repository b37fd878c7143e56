/*
 * Clients are on a list; each has its line buffer and a small table of requests that await an
 * answer. Nothing is freed but in on_closed(), where the last handle to close also ends the API
 * itself.
 */
#include "node/local_api.h"

#include "common/lines.h"
#include "common/unix_socket.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define MODULE  "local_api"
#define BACKLOG 16

struct pending {
	local_api_request request; /* 0: free */
	struct rpc_id id;
};

struct client {
	struct client *next;
	struct local_api *api;
	uv_pipe_t pipe;
	struct lines lines;
	struct pending pending[LOCAL_API_MAX_PENDING];
	bool ending; /* no more reading; closed when everything is answered and written */
	bool closing;
};

struct local_api {
	struct local_api_ports ports;
	struct local_api_counters counters;
	uv_pipe_t pipe;
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	struct stat file; /* of the socket, so that we remove none but ours */
	struct client *clients;
	uint32_t n_handles; /* not closed yet: all clients and the listening pipe */
	local_api_request last_request;
	struct log_limit garbage, refusals;
	void (*closed_cb)(void *owner);
	void *closed_owner;
	bool closing;
};

/* closing */

static void forget_client(struct client *client)
{
	struct client **at = &client->api->clients;

	while (*at != client)
		at = &(*at)->next;
	*at = client->next;
	client->api->counters.open--;
	lines_deinit(&client->lines);
	free(client);
}

static void free_when_all_is_closed(struct local_api *api)
{
	if (--api->n_handles > 0)
		return;

	void (*cb)(void *owner) = api->closed_cb;
	void *owner = api->closed_owner;
	free(api);
	if (cb)
		cb(owner);
}

static void on_client_closed(uv_handle_t *handle)
{
	struct client *client = container_of((uv_pipe_t *)handle, struct client, pipe);
	struct local_api *api = client->api;

	forget_client(client);
	free_when_all_is_closed(api);
}

static void on_listener_closed(uv_handle_t *handle)
{
	free_when_all_is_closed(container_of((uv_pipe_t *)handle, struct local_api, pipe));
}

static void close_client(struct client *client)
{
	if (client->closing)
		return;
	client->closing = true;
	uv_close((uv_handle_t *)&client->pipe, on_client_closed);
}

static bool owes_nothing(const struct client *client)
{
	for (size_t i = 0; i < LOCAL_API_MAX_PENDING; i++)
		if (client->pending[i].request != 0)
			return false;
	return uv_stream_get_write_queue_size((const uv_stream_t *)&client->pipe) == 0;
}

static void close_if_ended(struct client *client)
{
	if (client->ending && owes_nothing(client))
		close_client(client);
}

/* Nothing more is read; what was asked is still answered (the other side may only have shut its
 * half). */
static void end_client(struct client *client)
{
	client->ending = true;
	uv_read_stop((uv_stream_t *)&client->pipe);
	close_if_ended(client);
}

/* writing */

struct outgoing {
	uv_write_t write;
	char text[];
};

static void on_written(uv_write_t *write, int status)
{
	struct client *client = container_of((uv_pipe_t *)write->handle, struct client, pipe);

	free(container_of(write, struct outgoing, write));
	if (status != 0)
		close_client(client);
	else
		close_if_ended(client);
}

static void send_line(struct client *client, const char *text)
{
	size_t len = strlen(text),
	       queued = uv_stream_get_write_queue_size((uv_stream_t *)&client->pipe);

	if (client->closing)
		return;
	/* One answer may be as long as it must; a client that does not read gets no second one. */
	if (queued > LOCAL_API_MAX_QUEUE || (queued > 0 && queued + len > LOCAL_API_MAX_QUEUE)) {
		client->api->counters.slow_clients++;
		log_limited(&client->api->refusals, LOG_LEVEL_WARNING, MODULE,
			    "a client does not read its answers -> closed");
		close_client(client);
		return;
	}
	struct outgoing *out = malloc(sizeof(*out) + len + 1);
	if (!out)
		abort();
	memcpy(out->text, text, len);
	out->text[len] = '\n';
	uv_buf_t buf = uv_buf_init(out->text, (unsigned)(len + 1));
	if (uv_write(&out->write, (uv_stream_t *)&client->pipe, &buf, 1, on_written) != 0) {
		free(out);
		close_client(client);
	}
}

static void send_error(struct client *client, const struct rpc_id *id, int code,
		       const char *message)
{
	char *text = rpc_print_error(id, code, message);

	send_line(client, text);
	free(text);
}

/* requests */

static struct pending *find_pending(struct local_api *api, local_api_request request,
				    struct client **ret)
{
	for (struct client *client = api->clients; client; client = client->next) {
		for (size_t i = 0; i < LOCAL_API_MAX_PENDING; i++) {
			if (client->pending[i].request == request && !client->closing) {
				*ret = client;
				return &client->pending[i];
			}
		}
	}
	return NULL;
}

/* The id to answer with, or false: whoever asked has gone, or has been answered. */
static bool take_pending(struct local_api *api, local_api_request request,
			 struct client **ret_client, struct rpc_id *ret_id)
{
	struct pending *pending = request != 0 ? find_pending(api, request, ret_client) : NULL;

	if (!pending) {
		api->counters.late_answers++;
		return false;
	}
	*ret_id = pending->id;
	pending->request = 0;
	return true;
}

static void answer_status(struct local_api *api, local_api_request request)
{
	struct node_status status;

	node_status_init(&status);
	api->ports.status(api->ports.owner, &status);
	local_api_answer(api, request, node_status_to_json(&status));
	node_status_deinit(&status);
}

static void set_log_level(struct local_api *api, local_api_request request, enum log_level level)
{
	log_info(MODULE, "log level is now %s", log_level_name(level));
	log_set_level(level);
	local_api_done(api, request);
}

static void dispatch(struct local_api *api, local_api_request request,
		     const struct local_api_call *call)
{
	const struct local_api_ports *ports = &api->ports;

	switch (call->method) {
	case LOCAL_API_STATUS:
		answer_status(api, request);
		break;
	case LOCAL_API_JOIN:
		ports->join(ports->owner, request, &call->join.link, call->join.name);
		break;
	case LOCAL_API_LEAVE:
		ports->leave(ports->owner, request);
		break;
	case LOCAL_API_PING:
		ports->ping(ports->owner, request, &call->ping);
		break;
	case LOCAL_API_NETCHECK:
		ports->netcheck(ports->owner, request);
		break;
	case LOCAL_API_LOG_LEVEL:
		set_log_level(api, request, call->log_level);
		break;
	case LOCAL_API_RELAY_STATUS:
		ports->relay_status(ports->owner, request, call->with_clients);
		break;
	case LOCAL_API_RELAY_DRAIN:
		ports->relay_drain(ports->owner, request, call->drain_s);
		break;
	case LOCAL_API_RELAY_UNDRAIN:
		ports->relay_undrain(ports->owner, request);
		break;
	case LOCAL_API_EXPOSE:
		ports->expose(ports->owner, request, &call->exposure);
		break;
	case LOCAL_API_UNEXPOSE:
		ports->unexpose(ports->owner, request, &call->exposure);
		break;
	case LOCAL_API_EXPOSURES:
		ports->exposures(ports->owner, request);
		break;
	case LOCAL_API_DIGLETT_STATUS:
	case LOCAL_API_DIGLETT_END:
	case LOCAL_API_DIGLETT_TOKEN_CREATE:
	case LOCAL_API_DIGLETT_TOKEN_LIST:
	case LOCAL_API_DIGLETT_TOKEN_REVOKE:
		ports->diglett(ports->owner, request, &call->diglett);
		break;
	case LOCAL_API_N_METHODS:
		abort();
	}
}

static void on_bad_line(struct client *client, const struct rpc_id *id, enum rpc_code code,
			const struct error *why)
{
	client->api->counters.bad_lines++;
	log_limited(&client->api->garbage, LOG_LEVEL_DEBUG, MODULE, "bad request: %s -> refused",
		    why->message);
	send_error(client, id, code, why->message);
}

static void handle_message(struct client *client, const struct rpc_message *message)
{
	struct local_api *api = client->api;
	struct local_api_call call;
	struct error error = { 0 };
	enum rpc_code code;
	size_t slot = 0;

	if (local_api_decode(message, &call, &code, &error) != 0) {
		on_bad_line(client, &message->id, code, &error);
		return;
	}
	while (slot < LOCAL_API_MAX_PENDING && client->pending[slot].request != 0)
		slot++;
	if (slot == LOCAL_API_MAX_PENDING) {
		api->counters.busy++;
		send_error(client, &message->id, RPC_BUSY,
			   "too many requests without an answer on this connection");
	} else {
		api->counters.requests++;
		client->pending[slot] = (struct pending){ ++api->last_request, message->id };
		dispatch(api, api->last_request, &call);
	}
	local_api_call_wipe(&call);
}

static void handle_line(struct client *client, const char *line, size_t len)
{
	struct json_limits limits = { .max_len = LOCAL_API_MAX_LINE };
	struct rpc_message message = { 0 };
	struct error error = { 0 };
	enum rpc_code code;

	if (rpc_parse(line, len, &limits, &message, &code, &error) != 0) {
		on_bad_line(client, &message.id, code, &error);
		return;
	}
	handle_message(client, &message);
	rpc_message_deinit(&message);
}

/* reading */

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
	struct client *client = container_of((uv_pipe_t *)handle, struct client, pipe);
	size_t size;
	char *room = lines_room(&client->lines, &size);

	*buf = uv_buf_init(room, (unsigned)size);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct client *client = container_of((uv_pipe_t *)stream, struct client, pipe);
	static const struct rpc_id none = { .kind = RPC_ID_NONE };
	char *line;
	size_t len;

	if (n == UV_EOF)
		end_client(client);
	else if (n < 0)
		close_client(client);
	if (n <= 0)
		return;
	if (lines_put(&client->lines, (size_t)n) != 0) {
		client->api->counters.long_lines++;
		send_error(client, &none, RPC_INVALID_REQUEST, "line too long");
		end_client(client);
		return;
	}
	while (!client->closing && !client->ending && lines_take(&client->lines, &line, &len))
		if (len > 0)
			handle_line(client, line, len);
}

/* accepting */

static bool may_speak(const struct client *client)
{
	struct ucred who;
	socklen_t size = sizeof(who);
	int fd;

	if (uv_fileno((const uv_handle_t *)&client->pipe, &fd) != 0 ||
	    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size) != 0)
		return false;
	return who.uid == 0 || who.uid == geteuid();
}

static void refuse_client(struct client *client, enum rpc_code code, const char *message)
{
	static const struct rpc_id none = { .kind = RPC_ID_NONE };

	log_limited(&client->api->refusals, LOG_LEVEL_WARNING, MODULE, "client refused: %s",
		    message);
	send_error(client, &none, code, message);
	end_client(client);
}

static struct client *add_client(struct local_api *api)
{
	struct client *client = calloc(1, sizeof(*client));

	if (!client)
		abort();
	client->api = api;
	client->next = api->clients;
	api->clients = client;
	lines_init(&client->lines, LOCAL_API_MAX_LINE);
	uv_pipe_init(api->pipe.loop, &client->pipe, 0);
	api->n_handles++;
	api->counters.open++;
	return client;
}

static void on_connection(uv_stream_t *listener, int status)
{
	struct local_api *api = container_of((uv_pipe_t *)listener, struct local_api, pipe);
	struct client *client;

	if (status != 0)
		return;
	client = add_client(api);
	if (uv_accept(listener, (uv_stream_t *)&client->pipe) != 0) {
		close_client(client);
	} else if (!may_speak(client)) {
		api->counters.refused_uid++;
		refuse_client(client, RPC_NOT_PERMITTED,
			      "only root and the node's own user may speak to it");
	} else if (api->counters.open > LOCAL_API_MAX_CLIENTS) {
		api->counters.refused_limit++;
		refuse_client(client, RPC_BUSY, "too many clients");
	} else {
		api->counters.accepted++;
		uv_read_start((uv_stream_t *)&client->pipe, on_alloc, on_read);
	}
}

/* public */

int local_api_new(uv_loop_t *loop, const char *path, const struct local_api_ports *ports,
		  struct local_api **ret, struct error *reterr)
{
	struct stat file;
	int fd = -1, r = unix_socket_listen(path, "choose another --socket", BACKLOG, &fd, &file, reterr);

	if (r != 0)
		return r;
	struct local_api *api = calloc(1, sizeof(*api));
	if (!api)
		abort();
	api->ports = *ports;
	memcpy(api->path, path, strlen(path) + 1);
	uv_pipe_init(loop, &api->pipe, 0);
	api->n_handles = 1;
	api->file = file;
	r = uv_pipe_open(&api->pipe, fd);
	if (r == 0)
		r = uv_listen((uv_stream_t *)&api->pipe, BACKLOG, on_connection);
	if (r != 0) {
		error_set(reterr, r, "%s: cannot listen: %s", path, strerror(-r));
		local_api_close(api, NULL, NULL);
		return r;
	}
	log_info(MODULE, "listening path=%s", path);
	*ret = api;
	return 0;
}

void local_api_close(struct local_api *api, void (*cb)(void *owner), void *owner)
{
	assert(!api->closing);
	api->closing = true;
	api->closed_cb = cb;
	api->closed_owner = owner;
	unix_socket_remove(api->path, &api->file);
	for (struct client *client = api->clients; client; client = client->next)
		close_client(client);
	uv_close((uv_handle_t *)&api->pipe, on_listener_closed);
}

void local_api_answer(struct local_api *api, local_api_request request, struct json *result_take)
{
	struct client *client;
	struct rpc_id id;

	if (!take_pending(api, request, &client, &id)) {
		json_free(result_take);
		return;
	}
	char *text = rpc_print_result(&id, result_take);
	send_line(client, text);
	free(text);
}

void local_api_done(struct local_api *api, local_api_request request)
{
	struct json *json = json_object();

	json_put_boolean(json, "done", true);
	local_api_answer(api, request, json);
}

void local_api_answer_ping(struct local_api *api, local_api_request request,
			   const struct node_ping_result *result)
{
	local_api_answer(api, request, node_ping_result_to_json(result));
}

void local_api_answer_netcheck(struct local_api *api, local_api_request request,
			       const struct node_netcheck *netcheck)
{
	local_api_answer(api, request, node_netcheck_to_json(netcheck));
}

void local_api_answer_relay_status(struct local_api *api, local_api_request request,
				   const struct relay_status *status)
{
	local_api_answer(api, request, relay_status_to_json(status));
}

void local_api_refuse(struct local_api *api, local_api_request request, int code,
		      const char *message)
{
	struct client *client;
	struct rpc_id id;

	if (take_pending(api, request, &client, &id))
		send_error(client, &id, code, message);
}

struct local_api_counters local_api_counters(const struct local_api *api)
{
	return api->counters;
}
