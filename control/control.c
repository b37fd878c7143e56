/*
 * Composition of the control service: connections, dispatch, and telling the nodes what has
 * changed.
 *
 * A change is committed first, then applied to the directory, then (FLUSH_MS later, so that changes
 * that come together travel together) sent to every greeted connection as the patch from what it
 * was sent last. A slow connection has at most one patch on its way; what changes meanwhile
 * coalesces in the directory and is in the next. So no queue grows with the number of changes.
 */
#include "control/control.h"

#include "common/file.h"
#include "common/log.h"
#include "common/macros.h"
#include "control/service.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#define FLUSH_MS             10
#define FLUSH_SLOW_MS        20 /* while a connection is behind */
#define SWEEP_MS             1000
#define STRANGER_MS          30000 /* to become a member or an admin */
#define OFFLINE_MS           5000  /* a lost connection may come back */
#define OFFLINE_AT_START_MS  30000
#define SERVER_CERTIFICATE_S (7 * 24 * 3600)
#define SERVER_RENEW_S       (24 * 3600)
#define MAX_PEM              8192

int64_t control_now_s(void)
{
	return (int64_t)time(NULL);
}

bool control_tags_are_valid(const char *tags)
{
	char copy[MEMBER_MAX_TAGS + 1], *rest = copy, *tag;

	if (strlen(tags) > MEMBER_MAX_TAGS)
		return false;
	if (*tags == '\0')
		return true;
	memcpy(copy, tags, strlen(tags) + 1);
	while ((tag = strsep(&rest, ",")))
		if (!map_name_is_valid(tag))
			return false;
	return true;
}

int answer_error(struct rpc_error *reterr, enum rpc_code code, const struct error *why)
{
	*reterr = rpc_error_make(code, "%.350s", why->message);
	return 1;
}

int answer_code(struct rpc_error *reterr, enum rpc_code code)
{
	*reterr = rpc_error_make(code, "%s", rpc_code_text(code));
	return 1;
}

/* Telling the nodes */

static void on_flush(uv_timer_t *timer);

static void schedule_flush(struct control *c, uint64_t in_ms)
{
	if (!c->is_closing && !uv_is_active((uv_handle_t *)&c->flush))
		uv_timer_start(&c->flush, on_flush, in_ms, 0);
}

static void send_text(struct connection *conn, char *text_take)
{
	if (websocket_send(conn->ws, text_take, strlen(text_take)) == -ENOBUFS)
		websocket_close(conn->ws, "it reads too slowly");
	free(text_take);
}

void control_send_notification(struct connection *conn, const char *method,
			       struct json *params_take)
{
	send_text(conn, rpc_print_notification(method, params_take));
}

void control_send_map(struct control *c, struct connection *conn)
{
	const struct member *m = directory_find(&c->directory, conn->node_id);

	if (!m || !conn->is_greeted)
		return;
	if (conn->sent_sequence == 0)
		control_send_notification(conn, "map.snapshot",
					  directory_snapshot(&c->directory, m));
	else
		control_send_notification(conn, "map.patch",
					  directory_patch(&c->directory, m, conn->sent_sequence));
	conn->sent_sequence = c->directory.sequence;
}

static void on_flush(uv_timer_t *timer)
{
	struct control *c = container_of(timer, struct control, flush);
	bool behind = false;

	for (struct connection *conn = c->connections; conn; conn = conn->next) {
		if (!conn->is_greeted || conn->after ||
		    conn->sent_sequence == c->directory.sequence)
			continue;
		/* Removals older than what the directory remembers: all of it again. */
		if (conn->sent_sequence < c->directory.oldest_resumable)
			conn->sent_sequence = 0;
		if (websocket_queued(conn->ws) > 0)
			behind = true;
		else
			control_send_map(c, conn);
	}
	if (behind)
		schedule_flush(c, FLUSH_SLOW_MS);
}

/* Changes */

int control_put_member(struct control *c, const struct member *member, struct error *reterr)
{
	uint64_t sequence = c->directory.sequence + 1;
	int r = store_put_member(c->store, member, sequence, reterr);

	if (r != 0) {
		log_error(CONTROL_MODULE, "%s", reterr->message);
		return r;
	}
	directory_put(&c->directory, member, sequence);
	schedule_flush(c, FLUSH_MS);
	return 0;
}

int control_add_grant(struct control *c, const struct host_grant *grant, const struct member *member,
		      struct error *reterr)
{
	const struct member same = *member;
	const uint64_t sequence = c->directory.sequence + 1;
	int r = store_add_host_grant(c->store, grant, &same, sequence, reterr);

	if (r != 0)
		return r;
	r = host_grants_add(&c->directory.grants, grant);
	directory_put_granted(&c->directory, &same, sequence);
	schedule_flush(c, FLUSH_MS);
	return r;
}

int control_remove_grant(struct control *c, const struct host_pattern *host, const struct member *member,
			 struct error *reterr)
{
	const struct member same = *member;
	const uint64_t sequence = c->directory.sequence + 1;
	const int r = store_remove_host_grant(c->store, host, &same, sequence, reterr);

	if (r != 0)
		return r;
	host_grants_remove(&c->directory.grants, member->peer.id, host);
	directory_put_granted(&c->directory, &same, sequence);
	schedule_flush(c, FLUSH_MS);
	return 0;
}

int control_judge_exposures(struct control *c, struct error *reterr)
{
	struct error err;
	int first = 0;

	for (const struct member *m = directory_next(&c->directory, NULL); m; m = directory_next(&c->directory, m)) {
		struct member changed = *m;
		changed.granted = directory_judge_exposures(&c->directory, m, m->exposures);
		const int r = changed.granted != m->granted ? control_put_member(c, &changed, &err) : 0;
		if (r != 0 && first == 0) {
			first = r;
			*reterr = err;
		}
	}
	c->judges_again = first != 0;
	return first;
}

/* A port at the front door of a node that is no member any more: nobody can name that node to take it back. */
static const struct host_grant *find_lost(const struct control *c)
{
	const struct host_grants *grants = &c->directory.grants;
	struct port_name port;

	for (uint32_t i = 0; i < grants->n; i++)
		if (host_grant_is_port(&grants->items[i].host, &port) && port.door_id != 0 &&
		    !directory_find(&c->directory, port.door_id))
			return &grants->items[i];
	return NULL;
}

/* What is not taken out now is at the next start, or when the next member is removed. */
static void forget_lost_grants(struct control *c)
{
	const struct host_grant *lost;
	struct error err;

	while ((lost = find_lost(c))) {
		const struct host_pattern host = lost->host;
		const struct member *m = directory_find(&c->directory, lost->member_id);
		if (!m || control_remove_grant(c, &host, m, &err) != 0) {
			log_warning(CONTROL_MODULE, "a port at a front door that was removed is still granted: %s", m ? err.message : "");
			return;
		}
	}
}

static void drop_connection_of(struct member *m, const char *why)
{
	struct connection *conn = m->connection;

	if (!conn)
		return;
	m->connection = NULL;
	conn->is_greeted = false;
	websocket_close(conn->ws, why);
}

int control_remove_member(struct control *c, struct member *m, const char *why,
			  struct error *reterr)
{
	uint64_t sequence = c->directory.sequence + 1;
	int r = store_remove_member(c->store, m->peer.id, sequence, reterr);

	if (r != 0) {
		log_error(CONTROL_MODULE, "%s", reterr->message);
		return r;
	}
	log_info(CONTROL_MODULE, "removed node=%s id=%u: %s", m->peer.name, m->peer.id, why);
	drop_connection_of(m, why);
	m->offline_at_ms = 0;
	const uint32_t n_grants = c->directory.grants.n;
	bool frees = m->granted != 0;
	directory_remove(&c->directory, m->peer.id, sequence);
	forget_lost_grants(c);
	schedule_flush(c, FLUSH_MS);
	/* A name that was its alone, or the room in the map, may now be another's. Removed it is, whatever becomes of that. */
	frees = frees || c->directory.grants.n != n_grants;
	struct error err;
	if (frees && control_judge_exposures(c, &err) != 0)
		log_warning(CONTROL_MODULE, "what others publish is judged later: %s", err.message);
	return 0;
}

static void set_online(struct control *c, struct member *m, bool online)
{
	struct member changed = *m;
	struct error err;

	m->offline_at_ms = 0;
	m->last_seen_s = changed.last_seen_s = control_now_s();
	if (m->peer.online == online) {
		if (store_touch_member(c->store, m->peer.id, m->last_seen_s, &err) != 0)
			log_error(CONTROL_MODULE, "%s", err.message);
		return;
	}
	changed.peer.online = online;
	if (control_put_member(c, &changed, &err) != 0)
		return; /* has been logged; the next change tells it */
}

void control_greet(struct control *c, struct member *m, struct connection *conn)
{
	if (m->connection && m->connection != conn)
		drop_connection_of(m, "the node has a newer connection");
	m->connection = conn;
	conn->is_greeted = true;
	set_online(c, m, true);
}

int control_sign(struct control *c, const struct json *params, const struct member *m,
		 char **ret_pem, struct rpc_error *reterr)
{
	const char *request;
	struct error err;

	if (json_get_string(params, "request", &request, &err) != 0)
		return answer_error(reterr, RPC_INVALID_PARAMS, &err);
	if (certificate_issue_node(&c->ca, request, m->peer.name, &m->peer.node_key,
				   control_now_s(), CERTIFICATE_LIFE_S, ret_pem, &err) != 0)
		return answer_error(reterr, RPC_REQUEST_BAD, &err);
	return 0;
}

int control_make_link(const struct store_network *network, const struct pin *pin,
		      enum join_link_kind kind, const char *secret, struct join_link *ret)
{
	*ret = (struct join_link){ .kind = kind, .port = network->port, .pin = *pin };
	memcpy(ret->host, network->host, sizeof(ret->host));
	if (!join_link_secret_is_valid(kind, secret))
		return -EINVAL;
	memcpy(ret->secret, secret, sizeof(ret->secret));
	return 0;
}

/* Dispatch */

static const struct method *find_method(const char *name)
{
	for (const struct method *m = node_methods; m->name; m++)
		if (strcmp(m->name, name) == 0)
			return m;
	for (const struct method *m = admin_methods; m->name; m++)
		if (strcmp(m->name, name) == 0)
			return m;
	return NULL;
}

/* 0 when this connection may call this method. */
static int check_caller(const struct control *c, const struct connection *conn,
			const struct method *method, struct rpc_error *reterr)
{
	switch (method->who) {
	case FOR_ANYBODY:
		return 0;
	case FOR_MEMBERS:
		if (directory_find(&c->directory, conn->node_id))
			return 0;
		return answer_code(reterr, conn->showed_identity || conn->node_id
						   ? RPC_NOT_A_MEMBER
						   : RPC_NOT_AUTHENTICATED);
	case FOR_ADMINS:
		return conn->is_admin ? 0 : answer_code(reterr, RPC_NOT_AUTHENTICATED);
	}
	return answer_code(reterr, RPC_INTERNAL_ERROR);
}

static void count_error(struct connection *conn)
{
	if (++conn->n_errors == CONTROL_MAX_ERRORS)
		websocket_close(conn->ws, "too many requests that had to be refused");
}

/* False: it has asked more than its share. Admins may ask what they like. */
static bool is_within_bounds(struct control *c, struct connection *conn, const struct method *method)
{
	/* What can wait takes nothing from what cannot. */
	struct token_bucket *bucket = method && strcmp(method->name, "node.wake") == 0 ? &conn->wakes : &conn->requests;

	if (conn->is_admin)
		return true;
	if (!directory_find(&c->directory, conn->node_id))
		return ++conn->n_strange <= CONTROL_STRANGER_REQUESTS;
	return token_bucket_take(bucket, uv_now(c->loop), CONTROL_REQUESTS_BURST, 1000 / CONTROL_REQUESTS_PER_S);
}

static int call(struct control *c, struct connection *conn, const struct rpc_message *message,
		struct json **ret_result, struct rpc_error *reterr)
{
	static const struct json_limits limits = { .max_len = 8 };
	const struct method *method = find_method(message->method);
	P2P_CLEANUP(json_freep) struct json *nothing = NULL;

	if (!is_within_bounds(c, conn, method))
		return answer_code(reterr, RPC_BUSY);
	if (!method)
		return answer_code(reterr, RPC_METHOD_NOT_FOUND);
	if (check_caller(c, conn, method, reterr) != 0)
		return 1;
	if (!message->params && json_parse("{}", 2, &limits, &nothing, NULL) != 0)
		abort();
	return method->handle(c, conn, message->params ? message->params : nothing, ret_result,
			      reterr);
}

static void handle_request(struct control *c, struct connection *conn,
			   const struct rpc_message *message)
{
	struct json *result = NULL;
	struct rpc_error error;
	int r = call(c, conn, message, &result, &error);

	log_debug(CONTROL_MODULE, "%s node=%u -> %s", message->method, conn->node_id,
		  r == 0 ? "done" : error.message);
	if (r == 0) {
		send_text(conn, rpc_print_result(&message->id, result));
	} else {
		send_text(conn, rpc_print_error(&message->id, error.code, error.message));
		count_error(conn);
	}
	void (*after)(struct control *, struct connection *) = conn->after;
	conn->after = NULL;
	if (after)
		after(c, conn);
}

static void on_message(void *owner, struct websocket *ws, const char *text, size_t len)
{
	static const struct json_limits limits = { .max_len = CONTROL_MAX_MESSAGE,
						   .max_members = 1024 };
	struct control *c = owner;
	struct connection *conn = websocket_data(ws);
	struct rpc_message message;
	enum rpc_code code;
	struct error err;

	if (rpc_parse(text, len, &limits, &message, &code, &err) != 0) {
		c->n_bad_messages++;
		send_text(conn, rpc_print_error(&message.id, (int)code, err.message));
		count_error(conn);
		return;
	}
	if (message.kind == RPC_REQUEST)
		handle_request(c, conn, &message);
	else
		c->n_bad_messages++; /* nothing is notified to control, and it asks nothing */
	rpc_message_deinit(&message);
}

/* Connections */

static void recognise(struct control *c, struct connection *conn)
{
	const struct identity *identity = websocket_identity(conn->ws);

	if (!identity || identity->is_control ||
	    strcmp(identity->network, c->directory.network) != 0)
		return;
	const struct member *m = directory_find_by_key(&c->directory, &identity->node_key);
	conn->showed_identity = true;
	conn->node_id = m ? m->peer.id : 0;
}

static void on_opened(void *owner, struct websocket *ws)
{
	struct control *c = owner;
	struct connection *conn = calloc(1, sizeof(*conn));

	if (!conn)
		abort();
	conn->ws = ws;
	conn->opened_ms = uv_now(c->loop);
	conn->next = c->connections;
	if (conn->next)
		conn->next->previous = conn;
	c->connections = conn;
	c->n_connections++;
	websocket_set_data(ws, conn);
	recognise(c, conn);
}

static void on_closed(void *owner, struct websocket *ws, const char *why)
{
	struct control *c = owner;
	struct connection *conn = websocket_data(ws);
	struct member *m = directory_find(&c->directory, conn->node_id);

	log_debug(CONTROL_MODULE, "connection closed node=%u: %s", conn->node_id, why);
	if (m && m->connection == conn) {
		m->connection = NULL;
		m->offline_at_ms = uv_now(c->loop) + OFFLINE_MS;
	}
	if (conn->next)
		conn->next->previous = conn->previous;
	if (conn->previous)
		conn->previous->next = conn->next;
	else
		c->connections = conn->next;
	c->n_connections--;
	secret_key_wipe(&conn->challenge_secret);
	free(conn);
}

/* Once a second: what has become true by waiting */

static void sweep_connections(struct control *c, uint64_t now)
{
	for (struct connection *conn = c->connections; conn; conn = conn->next)
		if (!conn->is_greeted && !conn->is_admin && now - conn->opened_ms > STRANGER_MS)
			websocket_close(conn->ws, "it did not say who it is in time");
}

static bool has_expired(const struct member *m)
{
	return m->node_ttl_s != 0 && !m->connection &&
	       control_now_s() - m->last_seen_s > m->node_ttl_s;
}

static void sweep_members(struct control *c, uint64_t now)
{
	struct error err;
	struct member *next;

	for (struct member *m = directory_next(&c->directory, NULL); m; m = next) {
		next = directory_next(&c->directory, m);
		if (m->wake_waits)
			control_wake(c, m);
		if (m->offline_at_ms != 0 && m->offline_at_ms <= now)
			set_online(c, m, false);
		else if (has_expired(m) && m->offline_at_ms == 0 &&
			 control_remove_member(c, m, "it was not seen for too long", &err) != 0)
			return; /* has been logged; tried again in the next sweep */
	}
}

static int issue_server_certificate(struct control *c, char **ret_pem, struct error *reterr)
{
	c->server_certificate_due_s = (uint64_t)control_now_s() + SERVER_RENEW_S;
	return certificate_issue_control(&c->ca, c->server_key_pem, c->network.host,
					 control_now_s(), SERVER_CERTIFICATE_S, ret_pem, reterr);
}

static void renew_server_certificate(struct control *c)
{
	struct error err;
	char *pem = NULL;
	int r = issue_server_certificate(c, &pem, &err);

	if (r == 0)
		r = websocket_server_set_certificate(c->server, pem, c->server_key_pem, &err);
	if (r != 0)
		log_error(CONTROL_MODULE, "cannot renew our certificate: %s", err.message);
	free(pem);
}

static void judge_again(struct control *c)
{
	struct error err;

	if (c->judges_again && control_judge_exposures(c, &err) == 0)
		log_info(CONTROL_MODULE, "what members publish is judged by the grants again");
}

static void on_sweep(uv_timer_t *timer)
{
	struct control *c = container_of(timer, struct control, sweep);
	uint64_t now = uv_now(c->loop);

	sweep_connections(c, now);
	sweep_members(c, now);
	judge_again(c);
	if ((uint64_t)control_now_s() >= c->server_certificate_due_s)
		renew_server_certificate(c);
}

/* Start and end */

static int path_in(char ret[PATH_MAX], const char *folder, const char *name, struct error *reterr)
{
	int n = snprintf(ret, PATH_MAX, "%s/%s", folder, name);

	return n < PATH_MAX ? 0 : error_set(reterr, -ENAMETOOLONG, "%s: path too long", folder);
}

static int read_pem(const char *folder, const char *name, char **ret, struct error *reterr)
{
	char path[PATH_MAX];
	size_t len;
	int r = path_in(path, folder, name, reterr);

	return r == 0 ? file_read(path, MAX_PEM, ret, &len, reterr) : r;
}

/* One service a state folder. */
static int lock_folder(struct control *c, const char *folder, struct error *reterr)
{
	char path[PATH_MAX];
	int r = path_in(path, folder, "lock", reterr);

	if (r != 0)
		return r;
	c->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (c->lock_fd < 0)
		return error_set(reterr, -errno, "%s: cannot open: %s", path, strerror(errno));
	if (flock(c->lock_fd, LOCK_EX | LOCK_NB) != 0)
		return error_set(reterr, -EBUSY,
				 "%s: another p2pcontrol serves this state folder; stop it first",
				 folder);
	return 0;
}

/* Locked first: nobody else may write between loading and serving. */
static int upgrade_store(struct control *c, const char *folder, struct error *reterr)
{
	char path[PATH_MAX];
	int r = path_in(path, folder, "control.db", reterr);

	if (r != 0 || (access(path, F_OK) != 0 && errno == ENOENT))
		return r; /* to be told by who loads it */
	r = lock_folder(c, folder, reterr);
	return r == 0 ? store_upgrade(path, reterr) : r;
}

static int load_authority(struct control *c, const char *folder, struct error *reterr)
{
	char *key = NULL;
	int r = read_pem(folder, "ca.key", &key, reterr);

	if (r == 0)
		r = read_pem(folder, "ca.crt", &c->ca_pem, reterr);
	if (r == 0) {
		r = certificate_authority_init(&c->ca, key, c->ca_pem, reterr);
		if (r != 0)
			error_prefix(reterr, "%s/ca.key, %s/ca.crt", folder, folder);
	}
	certificate_free_secret(key);
	if (r == 0)
		r = read_pem(folder, "server.key", &c->server_key_pem, reterr);
	if (r == 0) {
		r = identity_key_pin(c->server_key_pem, &c->pin, reterr);
		if (r != 0)
			error_prefix(reterr, "%s/server.key", folder);
	}
	return r;
}

static int load_store(struct control *c, const char *folder, struct error *reterr)
{
	char path[PATH_MAX];
	int r = path_in(path, folder, "control.db", reterr);

	if (r == 0)
		r = store_open(path, &c->store, &c->network, reterr);
	if (r == 0)
		r = store_load(c->store, &c->network, &c->directory, reterr);
	return r;
}

static int load(struct control *c, const char *folder, struct error *reterr)
{
	int r = upgrade_store(c, folder, reterr);

	if (r == 0)
		r = load_store(c, folder, reterr);
	if (r == 0)
		r = load_authority(c, folder, reterr);
	if (r == 0 && strcmp(c->ca.network, c->network.network) != 0)
		r = error_set(reterr, -EINVAL,
			      "%s/ca.crt is of network '%s', control.db of '%s'; put back a copy "
			      "of the whole state folder",
			      folder, c->ca.network, c->network.network);
	return r;
}

/* All addresses of both families, or of IPv4 where there is no IPv6. */
static struct endpoint everywhere(const struct control *c)
{
	int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return endpoint_from_v4(INADDR_ANY, c->network.port);
	close(fd);
	return (struct endpoint){ .port = c->network.port };
}

static int start_server(struct control *c, struct endpoint listen, struct error *reterr)
{
	char *certificate = NULL;
	int r = issue_server_certificate(c, &certificate, reterr);
	const struct websocket_server_options options = {
		.listen = listen,
		.tls = { .is_server = true,
			 .trust = TLS_TRUST_OPTIONAL,
			 .ca_pem = c->ca_pem,
			 .certificate_pem = certificate,
			 .key_pem = c->server_key_pem },
		.max_message = CONTROL_MAX_MESSAGE,
		.max_queue = CONTROL_MAX_QUEUE,
		.handler = { c, on_opened, on_message, on_closed },
	};

	if (r == 0)
		r = websocket_host_new(c->loop, &c->host, reterr);
	if (r == 0)
		r = websocket_server_new(c->host, &options, &c->server, reterr);
	free(certificate);
	return r;
}

static void free_control(struct control *c)
{
	store_close(c->store);
	directory_deinit(&c->directory);
	certificate_authority_deinit(&c->ca);
	certificate_free_secret(c->server_key_pem);
	free(c->ca_pem);
	if (c->lock_fd >= 0)
		close(c->lock_fd);
	free(c);
}

static void finish_close(struct control *c)
{
	void (*closed)(void *owner) = c->closed;
	void *owner = c->owner;

	if (--c->n_open_handles > 0)
		return;
	free_control(c);
	closed(owner);
}

static void on_flush_closed(uv_handle_t *handle)
{
	finish_close(container_of((uv_timer_t *)handle, struct control, flush));
}

static void on_sweep_closed(uv_handle_t *handle)
{
	finish_close(container_of((uv_timer_t *)handle, struct control, sweep));
}

static void on_host_closed(void *owner)
{
	struct control *c = owner;

	c->host = NULL;
	uv_close((uv_handle_t *)&c->flush, on_flush_closed);
	uv_close((uv_handle_t *)&c->sweep, on_sweep_closed);
}

static void ignore_closed(void *owner)
{
}

static void expect_members_back(struct control *c)
{
	for (struct member *m = directory_next(&c->directory, NULL); m;
	     m = directory_next(&c->directory, m))
		m->offline_at_ms = m->peer.online ? uv_now(c->loop) + OFFLINE_AT_START_MS : 0;
}

int control_new(uv_loop_t *loop, const struct control_options *options, struct control **ret,
		struct error *reterr)
{
	struct control *c = calloc(1, sizeof(*c));

	if (!c)
		abort();
	c->loop = loop;
	c->lock_fd = -1;
	directory_init(&c->directory);
	int r = load(c, options->state_dir, reterr);
	if (r == 0)
		r = start_server(
			c, endpoint_is_none(&options->listen) ? everywhere(c) : options->listen,
			reterr);
	if (r != 0) {
		/* Has no connections: what is left of it on the loop ends by itself. */
		if (c->host)
			websocket_host_close(c->host, ignore_closed, NULL);
		free_control(c);
		return r;
	}
	uv_timer_init(loop, &c->flush);
	uv_timer_init(loop, &c->sweep);
	c->n_open_handles = 2;
	uv_timer_start(&c->sweep, on_sweep, SWEEP_MS, SWEEP_MS);
	expect_members_back(c);
	forget_lost_grants(c);
	if (control_judge_exposures(c, reterr) != 0) /* a crash may have come between a grant and what follows from it */
		log_error(CONTROL_MODULE, "%s", reterr->message);
	*ret = c;
	return 0;
}

uint16_t control_port(const struct control *control)
{
	return websocket_server_port(control->server);
}

const char *control_network(const struct control *control)
{
	return control->directory.network;
}

void control_close(struct control *c, void (*cb)(void *owner), void *owner)
{
	assert(!c->is_closing);
	c->is_closing = true;
	c->closed = cb;
	c->owner = owner;
	uv_timer_stop(&c->flush);
	uv_timer_stop(&c->sweep);
	websocket_host_close(c->host, on_host_closed, c);
}
