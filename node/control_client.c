/*
 * The node's connection to control.
 *
 *   WAITING ─► CONNECTING ─┬─ certificate valid ─────────► GREETING ─► CURRENT
 *      ▲                   └─ else ─► PROVING ─► RENEWING ──┘             │
 *      └────── closed, from any but REMOVED ──────────────────────────────┘
 *
 * One timer serves all deadlines: the next attempt, the update to send, the renewal. Everything a
 * port may answer to is done before the port is called.
 */
#include "node/control_client.h"

#include "common/certificate.h"
#include "common/log.h"
#include "common/macros.h"
#include "common/node_proof.h"
#include "common/rpc_connection.h"
#include "node/wake_queue.h"

#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MODULE           "control"
#define FIRST_BACKOFF_MS 200
#define LAST_BACKOFF_MS  30000
#define CALL_TIMEOUT_MS  10000
#define UPDATE_RETRY_MS  5000
#define RENEW_RETRY_MS   60000
#define RENEW_LOOK_MS    600000 /* the wall clock may be set, and the machine may sleep: so often we look */
#define MAX_MESSAGE      (32 << 20) /* a snapshot of the largest map */
#define MAX_QUEUE        (1 << 20)
#define JOIN_TIMEOUT_MS  15000
#define EXPIRY_MARGIN_S  60
#define MAX_MAP_RESETS   3 /* snapshots asked for in a row before the connection is given up */

enum state { WAITING, CONNECTING, PROVING, RENEWING, GREETING, CURRENT, REMOVED };

struct control_client {
	struct control_client_ports ports;
	struct websocket_host *host;
	char control_host[JOIN_LINK_MAX_HOST + 1];
	uint16_t control_port;
	struct pin pin;
	char *key_pem, *certificate_pem;
	struct identity identity; /* what the certificate says */
	struct secret_key node_key;
	struct map map;

	enum state state;
	struct rpc_connection *connection;
	uv_timer_t timer;
	uint64_t attempt_ms, update_ms, renew_ms; /* when due; 0: not */
	uint64_t backoff_ms;
	uint32_t n_failures, n_map_resets;
	bool tell_removed;
	char removed_why[256];

	bool has_update, update_in_flight, renewing;
	struct wake_queue wakes;
	struct node_update update;
	char refusal[200];	/* of the last update; "": none */
	uint64_t told_sequence; /* where the map was when control took the last update; 0: it did not say */

	bool closing;
	void (*closed)(void *owner);
	void *closed_owner;
};

static void rearm(struct control_client *client);

static uint64_t now_ms(const struct control_client *client)
{
	return uv_now(client->timer.loop);
}

/* Half of value up to value and a half, so that a thousand nodes do not come back as one. */
static uint64_t jitter(uint64_t value)
{
	return value / 2 + randombytes_uniform((uint32_t)value + 1);
}

static bool may_use_certificate(const struct control_client *client)
{
	int64_t now = (int64_t)time(NULL);

	/*
	 * Every fourth attempt in a row does without: control may see the time or the certificate
	 * differently.
	 */
	return client->n_failures % 4 != 3 && now >= client->identity.not_before_s &&
	       now + EXPIRY_MARGIN_S < client->identity.not_after_s;
}

/* Seconds until half of the certificate's life is over. */
static int64_t renewal_left_s(const struct control_client *client)
{
	int64_t half = client->identity.not_before_s +
		       (client->identity.not_after_s - client->identity.not_before_s) / 2;

	return half - (int64_t)time(NULL);
}

static void plan_renewal(struct control_client *client)
{
	int64_t left = renewal_left_s(client);
	uint64_t wait_ms = left <= 0 ? 1 : left < RENEW_LOOK_MS / 1000 ? (uint64_t)left * 1000 : RENEW_LOOK_MS;

	client->renew_ms = now_ms(client) + wait_ms;
}

static void drop_connection(struct control_client *client, const char *why)
{
	if (client->connection)
		rpc_connection_close(client->connection, why);
}

/* Sends a call; if that is not possible, the connection is of no use. */
static bool call(struct control_client *client, const char *method, struct json *params_take,
		 rpc_answer_cb cb)
{
	int r = rpc_connection_call(client->connection, method, params_take, CALL_TIMEOUT_MS, cb,
				    client);

	if (r != 0)
		drop_connection(client, "too much waits to be sent");
	return r == 0;
}

/* True when the answer is an error; then it has been dealt with. */
static bool failed(struct control_client *client, const char *what, const struct rpc_error *error)
{
	if (client->closing)
		return true;
	if (!error)
		return false;
	if (error->code == RPC_NOT_A_MEMBER) {
		client->state = REMOVED;
		client->tell_removed = true;
		snprintf(client->removed_why, sizeof(client->removed_why), "%.200s",
			 error->message);
	} else if (error->code != RPC_DISCONNECTED) {
		log_warning(MODULE, "%s: %s", what, error->message);
	}
	drop_connection(client, error->message);
	return true;
}

/* Certificates */

static struct json *request_params(const struct control_client *client)
{
	struct json *params = json_object();
	char *request = NULL;

	if (certificate_request(client->key_pem, &request, NULL) == 0)
		json_put_string(params, "request", request);
	free(request);
	return params;
}

static int take_certificate(struct control_client *client, const struct json *result)
{
	struct identity identity;
	struct error err;
	const char *pem;
	int r = json_get_string(result, "certificate", &pem, &err);

	if (r == 0)
		r = certificate_identity_pem(pem, &identity, &err);
	if (r != 0) {
		log_warning(MODULE, "control sent a certificate that cannot be used: %s",
			    err.message);
		return r;
	}
	free(client->certificate_pem);
	client->certificate_pem = strdup(pem);
	if (!client->certificate_pem)
		abort();
	client->identity = identity;
	plan_renewal(client);
	return 0;
}

static void on_renewed(void *owner, const struct json *result, const struct rpc_error *error)
{
	struct control_client *client = owner;

	client->renewing = false;
	if (client->closing)
		return;
	if (error && error->code == RPC_NOT_A_MEMBER) {
		(void)failed(client, "renewing the certificate", error);
		return;
	}
	if (error || take_certificate(client, result) != 0) {
		if (error)
			log_warning(MODULE, "renewing the certificate: %s", error->message);
		client->renew_ms = now_ms(client) + RENEW_RETRY_MS;
		rearm(client);
		return;
	}
	rearm(client);
	client->ports.identity_renewed(client->ports.owner, client->certificate_pem);
}

/* Saying who we are */

static void on_greeted(void *owner, const struct json *result, const struct rpc_error *error)
{
	struct control_client *client = owner;

	/* The map follows in a notification. */
	(void)failed(client, "node.hello", error);
}

static void greet(struct control_client *client)
{
	struct json *params = json_object();

	client->state = GREETING;
	json_put_u64(params, "sequence", client->map.sequence);
	json_put_u64(params, "epoch", client->map.epoch);
	(void)call(client, "node.hello", params, on_greeted);
}

static void on_proved(void *owner, const struct json *result, const struct rpc_error *error)
{
	struct control_client *client = owner;

	if (failed(client, "proving our node key", error))
		return;
	if (take_certificate(client, result) != 0) {
		drop_connection(client, "no usable certificate");
		return;
	}
	greet(client);
	client->ports.identity_renewed(client->ports.owner, client->certificate_pem);
}

static void put_proof(const struct control_client *client, struct json *params,
		      const struct node_challenge *challenge)
{
	struct public_key public_key;
	char proof[NODE_PROOF_LEN + 1];

	secret_key_public(&client->node_key, &public_key);
	json_put_public_key(params, "node_key", &public_key);
	if (node_proof_make(challenge, &client->pin, &client->node_key, proof) == 0)
		json_put_string(params, "proof", proof);
}

static void on_challenged(void *owner, const struct json *result, const struct rpc_error *error)
{
	struct control_client *client = owner;
	struct node_challenge challenge;
	struct error err;

	if (failed(client, "node.challenge", error))
		return;
	if (node_challenge_from_json(result, &challenge, &err) != 0) {
		drop_connection(client, err.message);
		return;
	}
	struct json *params = request_params(client);
	put_proof(client, params, &challenge);
	client->state = RENEWING;
	(void)call(client, "node.renew", params, on_proved);
}

static void on_opened(void *owner)
{
	struct control_client *client = owner;

	if (client->closing)
		return;
	if (may_use_certificate(client)) {
		greet(client);
		return;
	}
	client->state = PROVING;
	(void)call(client, "node.challenge", NULL, on_challenged);
}

/* The map */

static void on_map(struct control_client *client)
{
	bool first = client->state == GREETING;

	client->n_map_resets = 0;
	if (first) {
		client->state = CURRENT;
		client->backoff_ms = 0;
		client->n_failures = 0;
		client->update_in_flight = false;
		client->update_ms = client->has_update ? now_ms(client) : 0;
		rearm(client);
	}
	client->ports.map_changed(client->ports.owner, &client->map);
	if (first && !client->closing)
		client->ports.connected(client->ports.owner);
}

/*
 * What does not fit our map is mended by a snapshot; if that does not fit either, by a new
 * connection.
 */
static void ask_for_snapshot(struct control_client *client, const char *why)
{
	log_warning(MODULE, "the map from control does not fit: %s -> asking for all of it", why);
	client->map.sequence = client->map.epoch = 0;
	if (++client->n_map_resets > MAX_MAP_RESETS)
		drop_connection(client, why);
	else if (client->state == GREETING || client->state == CURRENT)
		greet(client);
}

static void on_snapshot(struct control_client *client, const struct json *params)
{
	struct error err;
	struct map map;

	if (map_from_json(params, &map, &err) != 0) {
		drop_connection(client, err.message);
		return;
	}
	map_deinit(&client->map);
	client->map = map;
	on_map(client);
}

static void on_patch(struct control_client *client, const struct json *params)
{
	struct error err;

	if (map_apply_patch(&client->map, params, &err) != 0)
		ask_for_snapshot(client, err.message);
	else
		on_map(client);
}

static void on_notified(void *owner, const char *method, const struct json *params)
{
	struct control_client *client = owner;

	if (client->closing || (client->state != GREETING && client->state != CURRENT))
		return;
	if (strcmp(method, "map.snapshot") == 0)
		on_snapshot(client, params);
	else if (strcmp(method, "map.patch") == 0)
		on_patch(client, params);
	else if (strcmp(method, "wake") == 0)
		client->ports.woken(client->ports.owner);
	else
		log_debug(MODULE, "notification %s -> ignored", method);
}

/* What we tell */

static struct json *endpoints_json(const struct endpoint *endpoints, uint32_t n, bool with_port)
{
	struct json *list = json_array();

	for (uint32_t i = 0; i < n; i++)
		json_append_string(list, with_port ? endpoint_text(&endpoints[i]).s
						   : endpoint_ip_text(&endpoints[i]).s);
	return list;
}

static struct json *update_params(const struct node_update *update)
{
	const struct node_public *public_node = &update->public_node;
	struct json *params = json_object();

	json_put_public_key(params, "session_key", &update->session_key);
	json_put_integer(params, "home_relay", update->home_relay);
	json_put(params, "endpoints", endpoints_json(update->endpoints, update->n_endpoints, true));
	if (public_node->n_addresses > 0) {
		struct json *public_json = json_object();
		json_put(public_json, "addresses",
			 endpoints_json(public_node->addresses, public_node->n_addresses, false));
		json_put_integer(public_json, "tls_port", public_node->tls_port);
		json_put_integer(public_json, "stun_port", public_node->stun_port);
		json_put(params, "public", public_json);
	}
	if (update->front_door)
		json_put_boolean(params, "front_door", true);
	if (update->n_ports > 0)
		json_put(params, "ports", map_ports_to_json(update->ports, update->n_ports));
	if (update->publishes)
		json_put(params, "exposures", map_exposures_to_json(&update->exposures));
	return params;
}

static void on_updated(void *owner, const struct json *result, const struct rpc_error *error)
{
	struct control_client *client = owner;

	client->update_in_flight = false;
	if (client->closing)
		return;
	client->refusal[0] = '\0';
	if (error && error->code != RPC_DISCONNECTED) {
		log_warning(MODULE, "node.update: %s", error->message);
		snprintf(client->refusal, sizeof(client->refusal), "%.*s", (int)sizeof(client->refusal) - 1, error->message);
		client->update_ms = now_ms(client) + UPDATE_RETRY_MS;
	}
	if (!result || json_get_u64(result, "sequence", &client->told_sequence, NULL) != 0)
		client->told_sequence = 0;
	rearm(client); /* one that came in the meantime */
}

static void send_update(struct control_client *client)
{
	client->update_ms = 0;
	client->update_in_flight =
		call(client, "node.update", update_params(&client->update), on_updated);
}

static void send_renewal(struct control_client *client)
{
	if (renewal_left_s(client) > 0) {
		plan_renewal(client);
		return;
	}
	client->renew_ms = 0;
	client->renewing = call(client, "node.renew", request_params(client), on_renewed);
}

static void on_wakes_answered(void *owner, const struct json *result, const struct rpc_error *error)
{
	struct control_client *client = owner;

	if (client->closing || (error && error->code == RPC_DISCONNECTED))
		return;
	wake_queue_answered(&client->wakes,
			    !error				  ? WAKE_DONE :
			    error->code == RPC_METHOD_NOT_FOUND ? WAKE_UNKNOWN :
								  WAKE_REFUSED,
			    now_ms(client));
	rearm(client);
}

/* Unlike all else: when it cannot be sent now, the connection is none the worse. */
static void send_wakes(struct control_client *client)
{
	uint32_t ids[WAKE_QUEUE_MAX];
	const uint32_t n = wake_queue_take(&client->wakes, now_ms(client), ids);

	if (n == 0)
		return;
	struct json *params = json_object(), *peers = json_array();
	for (uint32_t i = 0; i < n; i++)
		json_append(peers, json_integer(ids[i]));
	json_put(params, "peers", peers);
	if (rpc_connection_call(client->connection, "node.wake", params, CALL_TIMEOUT_MS, on_wakes_answered,
				client) != 0)
		wake_queue_answered(&client->wakes, WAKE_REFUSED, now_ms(client));
}

/* Attempts */

static void on_closed(void *owner, const char *why);

static void attempt(struct control_client *client)
{
	bool with_certificate = may_use_certificate(client);
	const struct websocket_client_options options = {
		.host = client->control_host,
		.port = client->control_port,
		.tls = { .trust = TLS_TRUST_PIN,
			 .pin = client->pin,
			 .certificate_pem = with_certificate ? client->certificate_pem : NULL,
			 .key_pem = client->key_pem },
		.max_message = MAX_MESSAGE,
		.max_queue = MAX_QUEUE,
	};
	const struct rpc_connection_handler handler = { client, on_opened, on_notified, on_closed };
	struct error err;

	client->attempt_ms = 0;
	client->state = CONNECTING;
	client->connection = rpc_connection_new(client->host, &options, &handler, &err);
	if (!client->connection)
		on_closed(client, err.message);
}

static void plan_attempt(struct control_client *client)
{
	uint64_t backoff = client->backoff_ms ? client->backoff_ms : FIRST_BACKOFF_MS;

	client->state = WAITING;
	client->n_failures++;
	client->attempt_ms = now_ms(client) + jitter(backoff);
	client->backoff_ms = backoff * 2 < LAST_BACKOFF_MS ? backoff * 2 : LAST_BACKOFF_MS;
}

static void on_timer_closed(uv_handle_t *handle)
{
	struct control_client *client =
		container_of((uv_timer_t *)handle, struct control_client, timer);
	void (*closed)(void *owner) = client->closed;
	void *owner = client->closed_owner;

	map_deinit(&client->map);
	secret_key_wipe(&client->node_key);
	certificate_free_secret(client->key_pem);
	free(client->certificate_pem);
	free(client);
	closed(owner);
}

static void on_closed(void *owner, const char *why)
{
	struct control_client *client = owner;

	client->connection = NULL;
	client->update_in_flight = client->renewing = false;
	wake_queue_reset(&client->wakes);
	if (client->closing) {
		uv_close((uv_handle_t *)&client->timer, on_timer_closed);
		return;
	}
	if (client->tell_removed) {
		client->tell_removed = false;
		client->ports.removed(client->ports.owner, client->removed_why);
		return;
	}
	plan_attempt(client);
	rearm(client);
	client->ports.disconnected(client->ports.owner, why);
}

static void on_due(uv_timer_t *timer)
{
	struct control_client *client = container_of(timer, struct control_client, timer);
	uint64_t now = now_ms(client);

	if (client->state == WAITING && client->attempt_ms != 0 && client->attempt_ms <= now)
		attempt(client);
	if (client->state == CURRENT && client->update_ms != 0 && client->update_ms <= now &&
	    !client->update_in_flight)
		send_update(client);
	if (client->state == CURRENT && client->renew_ms != 0 && client->renew_ms <= now &&
	    !client->renewing)
		send_renewal(client);
	if (client->state == CURRENT)
		send_wakes(client);
	rearm(client);
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
	return a == 0 || (b != 0 && b < a) ? b : a;
}

static void rearm(struct control_client *client)
{
	uint64_t at = 0, now = now_ms(client);

	if (client->closing)
		return;
	if (client->state == WAITING)
		at = client->attempt_ms;
	if (client->state == CURRENT && !client->update_in_flight)
		at = earlier(at, client->update_ms);
	if (client->state == CURRENT && !client->renewing)
		at = earlier(at, client->renew_ms);
	if (client->state == CURRENT)
		at = earlier(at, wake_queue_due_ms(&client->wakes));
	if (at == 0)
		uv_timer_stop(&client->timer);
	else
		uv_timer_start(&client->timer, on_due, at > now ? at - now : 0, 0);
}

/* public */

int control_client_new(const struct control_client_options *options, struct control_client **ret,
		       struct error *reterr)
{
	struct control_client *client = calloc(1, sizeof(*client));

	if (!client)
		abort();
	client->ports = options->ports;
	client->host = options->host;
	client->control_port = options->control_port;
	client->pin = options->pin;
	client->node_key = *options->node_key;
	map_init(&client->map);
	int r = certificate_identity_pem(options->certificate_pem, &client->identity, reterr);
	if (r == 0 && strlen(options->control_host) > JOIN_LINK_MAX_HOST)
		r = error_set(reterr, -EINVAL, "control's host name is too long");
	if (r == 0 && options->cached)
		r = map_copy(options->cached, &client->map);
	if (r != 0) {
		secret_key_wipe(&client->node_key);
		free(client);
		return r;
	}
	memcpy(client->control_host, options->control_host, strlen(options->control_host) + 1);
	client->key_pem = strdup(options->identity_key_pem);
	client->certificate_pem = strdup(options->certificate_pem);
	if (!client->key_pem || !client->certificate_pem)
		abort();
	uv_timer_init(websocket_host_loop(options->host), &client->timer);
	plan_renewal(client);
	client->state = WAITING;
	client->attempt_ms = now_ms(client);
	if (client->attempt_ms == 0)
		client->attempt_ms = 1;
	rearm(client);
	*ret = client;
	return 0;
}

void control_client_close(struct control_client *client, void (*cb)(void *owner), void *owner)
{
	assert(!client->closing);
	client->closing = true;
	client->closed = cb;
	client->closed_owner = owner;
	uv_timer_stop(&client->timer);
	if (client->connection)
		rpc_connection_abort(client->connection, "the node ends the session");
	else
		uv_close((uv_handle_t *)&client->timer, on_timer_closed);
}

static bool same_update(const struct node_update *a, const struct node_update *b)
{
	struct json *left = update_params(a), *right = update_params(b);
	char *left_text = json_print(left), *right_text = json_print(right);
	bool same = strcmp(left_text, right_text) == 0;

	free(left_text);
	free(right_text);
	json_free(left);
	json_free(right);
	return same;
}

void control_client_update(struct control_client *client, const struct node_update *update)
{
	assert(update->n_endpoints <= MAP_MAX_ENDPOINTS);
	assert(update->public_node.n_addresses <= MAP_MAX_ADDRESSES);
	if (client->has_update && same_update(&client->update, update))
		return;
	client->update = *update;
	client->has_update = true;
	client->update_ms = now_ms(client) ? now_ms(client) : 1;
	rearm(client);
}

enum control_word control_client_word(const struct control_client *client, uint64_t *ret_sequence)
{
	*ret_sequence = client->told_sequence;
	if (!control_client_is_connected(client))
		return CONTROL_IS_AWAY;
	return client->has_update && client->update_ms == 0 && !client->update_in_flight ? CONTROL_HAS_ANSWERED
											   : CONTROL_IS_ASKED;
}

const char *control_client_refusal(const struct control_client *client)
{
	return client->refusal;
}

void control_client_wake(struct control_client *client, uint32_t peer_id)
{
	if (!control_client_is_connected(client))
		return;
	/* Who has no connection cannot be told. */
	const struct map_peer *peer = map_find_peer(&client->map, peer_id);
	if (!peer || !peer->online)
		return;
	wake_queue_add(&client->wakes, peer_id, now_ms(client));
	rearm(client);
}

bool control_client_is_connected(const struct control_client *client)
{
	return client->state == CURRENT && !client->closing;
}

const struct map *control_client_map(const struct control_client *client)
{
	return &client->map;
}

void control_client_kick(struct control_client *client)
{
	if (client->closing || client->state == REMOVED)
		return;
	client->backoff_ms = 0;
	if (client->state == WAITING)
		client->attempt_ms = now_ms(client) ? now_ms(client) : 1;
	rearm(client);
	if (client->connection)
		rpc_connection_abort(client->connection, "the network has changed");
}

int control_client_leave(struct control_client *client, rpc_answer_cb cb, void *owner)
{
	if (!control_client_is_connected(client))
		return -ENOTCONN;
	return rpc_connection_call(client->connection, "node.leave", NULL, CALL_TIMEOUT_MS, cb,
				   owner);
}

/* Joining: open, node.challenge, node.join, close. */

struct join {
	struct rpc_connection *connection;
	struct join_link link;
	struct secret_key node_key;
	char *key_pem;
	char name[MAP_NAME_LEN + 1];
	uint64_t timeout_ms;
	control_join_cb cb;
	void *owner;
	bool answered;
};

static void finish_join(struct join *join, const struct membership *membership,
			const struct error *err)
{
	if (join->answered)
		return;
	join->answered = true;
	join->cb(join->owner, membership, err);
	if (join->connection)
		rpc_connection_close(join->connection, "done");
}

static void fail_join(struct join *join, int code, const char *message)
{
	const char *remedy = code < -32000 ? rpc_code_remedy((enum rpc_code)code) : "";
	struct error err;

	error_set(&err, code, "%s%s%s", message, *remedy ? "; " : "", remedy);
	finish_join(join, NULL, &err);
}

static void send_join(struct join *join, const char *method, struct json *params_take,
		      rpc_answer_cb cb)
{
	int r = rpc_connection_call(join->connection, method, params_take, join->timeout_ms, cb,
				    join);

	if (r != 0)
		fail_join(join, r, strerror(-r));
}

/* The certificate must be ours: of our identity key and node key. */
static int check_membership(const struct join *join, const struct membership *m,
			    struct error *reterr)
{
	struct identity identity;
	struct public_key public_key;
	int r = certificate_identity_pem(m->certificate_pem, &identity, reterr);

	if (r != 0)
		return r;
	secret_key_public(&join->node_key, &public_key);
	if (!public_key_equal(&identity.node_key, &public_key) ||
	    strcmp(identity.name, m->name) != 0)
		return error_set(reterr, -EINVAL, "it is a certificate of somebody else");
	return 0;
}

static void on_joined(void *owner, const struct json *result, const struct rpc_error *error)
{
	struct join *join = owner;
	struct membership membership;
	struct error err;

	if (error) {
		fail_join(join, error->code, error->message);
		return;
	}
	int r = membership_from_json(result, &membership, &err);
	if (r == 0)
		r = check_membership(join, &membership, &err);
	if (r != 0) {
		error_prefix(&err, "control's answer cannot be used");
		finish_join(join, NULL, &err);
		return;
	}
	finish_join(join, &membership, NULL);
}

static void on_join_challenged(void *owner, const struct json *result,
			       const struct rpc_error *error)
{
	struct join *join = owner;
	struct node_challenge challenge;
	struct public_key public_key;
	char proof[NODE_PROOF_LEN + 1], *request = NULL;
	struct error err;

	if (error) {
		fail_join(join, error->code, error->message);
		return;
	}
	int r = node_challenge_from_json(result, &challenge, &err);
	if (r == 0 && node_proof_make(&challenge, &join->link.pin, &join->node_key, proof) != 0)
		r = error_set(&err, -EINVAL, "control's challenge cannot be answered");
	if (r == 0)
		r = certificate_request(join->key_pem, &request, &err);
	if (r != 0) {
		finish_join(join, NULL, &err);
		return;
	}
	struct json *params = json_object();
	secret_key_public(&join->node_key, &public_key);
	json_put_string(params, "key", join->link.secret);
	json_put_string(params, "name", join->name);
	json_put_public_key(params, "node_key", &public_key);
	json_put_string(params, "proof", proof);
	json_put_string(params, "request", request);
	free(request);
	send_join(join, "node.join", params, on_joined);
}

static void on_join_opened(void *owner)
{
	send_join(owner, "node.challenge", NULL, on_join_challenged);
}

static void on_join_closed(void *owner, const char *why)
{
	struct join *join = owner;

	join->connection = NULL;
	fail_join(join, -ECONNREFUSED, why);
	join_link_wipe(&join->link);
	secret_key_wipe(&join->node_key);
	certificate_free_secret(join->key_pem);
	free(join);
}

int control_client_join(const struct control_join_options *options, control_join_cb cb, void *owner,
			struct error *reterr)
{
	struct join *join = calloc(1, sizeof(*join));

	if (!join || !(join->key_pem = strdup(options->identity_key_pem)))
		abort();
	join->link = *options->link;
	join->node_key = *options->node_key;
	join->timeout_ms = options->timeout_ms ? options->timeout_ms : JOIN_TIMEOUT_MS;
	join->cb = cb;
	join->owner = owner;
	snprintf(join->name, sizeof(join->name), "%s", options->name);
	const struct rpc_connection_handler handler = { join, on_join_opened, NULL,
							on_join_closed };
	const struct websocket_client_options websocket = {
		.host = join->link.host,
		.port = join->link.port,
		.tls = { .trust = TLS_TRUST_PIN, .pin = join->link.pin },
		.max_message = MAX_QUEUE,
		.max_queue = MAX_QUEUE,
		.timeout_ms = join->timeout_ms,
	};
	join->connection = rpc_connection_new(options->host, &websocket, &handler, reterr);
	if (join->connection)
		return 0;
	join->answered = true;
	on_join_closed(join, "");
	return -EINVAL;
}
