/* node.*: what nodes ask. docs/PROTOCOL-control.md */
#include "control/service.h"

#include "common/log.h"
#include "common/membership.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

/* NULL: a stranger's. */
static struct member *member_of(const struct control *c, const struct connection *conn)
{
	return directory_find(&c->directory, conn->node_id);
}

/* Proving a node key */

static int on_challenge(struct control *c, struct connection *conn, const struct json *params,
			struct json **ret_result, struct rpc_error *reterr)
{
	node_challenge_make(&conn->challenge, &conn->challenge_secret);
	conn->has_challenge = true;
	*ret_result = node_challenge_to_json(&conn->challenge);
	return 0;
}

/* node_key and proof in params. A challenge is good once. */
static int check_proof(struct control *c, struct connection *conn, const struct json *params,
		       struct public_key *ret_key, struct rpc_error *reterr)
{
	const char *proof;
	struct error err;

	if (json_get_public_key(params, "node_key", ret_key, &err) != 0 ||
	    json_get_string(params, "proof", &proof, &err) != 0)
		return answer_error(reterr, RPC_INVALID_PARAMS, &err);
	bool right = conn->has_challenge &&
		     node_proof_is_right(&conn->challenge, &conn->challenge_secret, &c->pin,
					 ret_key, proof);
	conn->has_challenge = false;
	secret_key_wipe(&conn->challenge_secret);
	return right ? 0 : answer_code(reterr, RPC_PROOF_WRONG);
}

/* Joining */

static int refuse_key(struct control *c, const struct connection *conn, int result,
		      struct rpc_error *reterr)
{
	static const enum rpc_code codes[] = {
		[STORE_KEY_UNKNOWN] = RPC_JOIN_KEY_UNKNOWN,
		[STORE_KEY_EXPIRED] = RPC_JOIN_KEY_EXPIRED,
		[STORE_KEY_USED] = RPC_JOIN_KEY_USED,
		[STORE_KEY_REVOKED] = RPC_JOIN_KEY_REVOKED,
	};
	struct endpoint remote = websocket_remote(conn->ws);

	c->n_refused_joins++;
	log_limited(&c->refusals, LOG_LEVEL_INFO, CONTROL_MODULE, "refused to join from=%s: %s",
		    endpoint_text(&remote).s, rpc_code_text(codes[result]));
	return answer_code(reterr, codes[result]);
}

static int prepare_member(struct control *c, const char *wanted_name,
			  const struct public_key *node_key, struct member *m,
			  struct rpc_error *reterr)
{
	*m = (struct member){ .joined_s = control_now_s(), .last_seen_s = control_now_s() };
	m->peer.id = c->directory.last_id + 1;
	m->peer.node_key = *node_key;
	directory_free_name(&c->directory, wanted_name, m->peer.name);
	if (c->directory.n_present >= MAP_MAX_PEERS ||
	    directory_free_addresses(&c->directory, &m->peer.ip4, &m->peer.ip6) != 0)
		return answer_code(reterr, RPC_ADDRESSES_EXHAUSTED);
	return 0;
}

static struct json *membership_json(const struct control *c, const struct member *m,
				    const char *certificate_pem)
{
	struct membership membership = {
		.node_id = m->peer.id,
		.ip4 = m->peer.ip4,
		.prefix4 = c->directory.prefix4,
		.prefix4_len = c->directory.prefix4_len,
		.ip6 = m->peer.ip6,
		.prefix6 = c->directory.prefix6,
		.prefix6_len = c->directory.prefix6_len,
	};

	memcpy(membership.name, m->peer.name, sizeof(membership.name));
	memcpy(membership.network, c->directory.network, sizeof(membership.network));
	strncpy(membership.ca_pem, c->ca_pem, sizeof(membership.ca_pem) - 1);
	strncpy(membership.certificate_pem, certificate_pem,
		sizeof(membership.certificate_pem) - 1);
	return membership_to_json(&membership);
}

/* The store decides; only then is the directory touched. */
static int admit(struct control *c, struct connection *conn, const char *key, struct member *m,
		 bool exists, struct rpc_error *reterr)
{
	uint64_t sequence = c->directory.sequence + 1;
	struct error err;
	int r = store_join(c->store, key, exists ? m->peer.id : 0, m, sequence, control_now_s(),
			   &err);

	if (r > 0)
		return refuse_key(c, conn, r, reterr);
	if (r < 0) {
		log_error(CONTROL_MODULE, "%s", err.message);
		return answer_code(reterr, RPC_INTERNAL_ERROR);
	}
	if (!exists) {
		directory_put(&c->directory, m, sequence);
		c->n_joins++;
		log_info(CONTROL_MODULE, "joined node=%s id=%u key=%s", m->peer.name, m->peer.id,
			 public_key_short(&m->peer.node_key).s);
	}
	return 0;
}

static int on_join(struct control *c, struct connection *conn, const struct json *params,
		   struct json **ret_result, struct rpc_error *reterr)
{
	struct public_key node_key;
	const char *key, *name;
	char *certificate = NULL;
	struct member m;
	struct error err;

	if (json_get_string(params, "key", &key, &err) != 0 ||
	    json_get_string(params, "name", &name, &err) != 0)
		return answer_error(reterr, RPC_INVALID_PARAMS, &err);
	if (check_proof(c, conn, params, &node_key, reterr) != 0)
		return 1;
	const struct member *existing = directory_find_by_key(&c->directory, &node_key);
	/* A connection is one member's for good: that member's record points to it. */
	const struct member *self = member_of(c, conn);
	if (self && self != existing)
		return answer_code(reterr, RPC_NOT_PERMITTED);
	if (existing)
		m = *existing;
	else if (prepare_member(c, name, &node_key, &m, reterr) != 0)
		return 1;
	/* Signed before anything is kept: a request that cannot be signed uses up no key. */
	if (control_sign(c, params, &m, &certificate, reterr) != 0)
		return 1;
	int r = admit(c, conn, key, &m, existing != NULL, reterr);
	if (r == 0) {
		conn->node_id = m.peer.id;
		*ret_result = membership_json(c, &m, certificate);
	}
	free(certificate);
	return r;
}

/* Members */

static int on_renew(struct control *c, struct connection *conn, const struct json *params,
		    struct json **ret_result, struct rpc_error *reterr)
{
	struct public_key node_key;
	struct member *m = member_of(c, conn);
	char *certificate = NULL;

	if (!m && conn->showed_identity)
		return answer_code(reterr, RPC_NOT_A_MEMBER);
	if (!m && !conn->has_challenge)
		return answer_code(reterr, RPC_NOT_AUTHENTICATED);
	if (!m) {
		if (check_proof(c, conn, params, &node_key, reterr) != 0)
			return 1;
		m = directory_find_by_key(&c->directory, &node_key);
	}
	if (!m)
		return answer_code(reterr, RPC_NOT_A_MEMBER);
	if (control_sign(c, params, m, &certificate, reterr) != 0)
		return 1;
	conn->node_id = m->peer.id;
	*ret_result = json_object();
	json_put_string(*ret_result, "certificate", certificate);
	free(certificate);
	return 0;
}

static int on_hello(struct control *c, struct connection *conn, const struct json *params,
		    struct json **ret_result, struct rpc_error *reterr)
{
	struct member *m = member_of(c, conn);
	uint64_t sequence, epoch;
	struct error err;

	if (json_get_u64(params, "sequence", &sequence, &err) != 0 ||
	    json_get_u64(params, "epoch", &epoch, &err) != 0)
		return answer_error(reterr, RPC_INVALID_PARAMS, &err);
	bool resumes = directory_can_resume(&c->directory, epoch, sequence);
	conn->sent_sequence = resumes ? sequence : 0;
	control_greet(c, m, conn);
	conn->after = control_send_map;
	*ret_result = json_object();
	json_put_integer(*ret_result, "node_id", m->peer.id);
	json_put_boolean(*ret_result, "resumed", resumes);
	return 0;
}

static int read_list(const struct json *object, const char *key, bool with_port, uint32_t max,
		     struct endpoint *ret, uint32_t *ret_n, struct error *reterr)
{
	const struct json *list;
	uint32_t n = 0;
	int r = json_get_array(object, key, &list, reterr);

	if (r != 0)
		return r;
	for (const struct json *i = json_first(list); i; i = json_next(i)) {
		const char *text = json_text(i);
		if (n == max)
			return error_set(reterr, -EINVAL, "member '%s': more than %u", key, max);
		r = !text       ? -EINVAL
		    : with_port ? endpoint_parse(text, &ret[n])
				: endpoint_parse_ip(text, 0, &ret[n]);
		if (r != 0 || (with_port && ret[n].port == 0))
			return error_set(reterr, -EINVAL, "member '%s': must hold %s", key,
					 with_port ? "\"ip:port\" strings" : "IP address strings");
		n++;
	}
	*ret_n = n;
	return 0;
}

static int read_public(const struct json *params, struct member *m, struct error *reterr)
{
	const struct json *object = json_member(params, "public");
	int64_t tls_port = 0, stun_port = 0;

	m->offers_relay = object && !json_is_null(object);
	if (!m->offers_relay)
		return 0;
	m->relay.id = m->peer.id;
	m->relay.node_key = m->peer.node_key;
	memcpy(m->relay.name, m->peer.name, sizeof(m->relay.name));
	memset(m->relay.addresses, 0, sizeof(m->relay.addresses));
	int r = read_list(object, "addresses", false, MAP_MAX_ADDRESSES, m->relay.addresses,
			  &m->relay.n_addresses, reterr);
	if (r == 0 && m->relay.n_addresses == 0)
		r = error_set(reterr, -EINVAL, "member 'addresses': must not be empty");
	if (r == 0)
		r = json_get_integer_or(object, "tls_port", 0, UINT16_MAX, 0, &tls_port, reterr);
	if (r == 0)
		r = json_get_integer_or(object, "stun_port", 0, UINT16_MAX, 0, &stun_port, reterr);
	if (r == 0)
		r = map_ports_from_json(json_member(params, "ports"), m->relay.ports, &m->relay.n_ports, reterr);
	m->relay.tls_port = (uint16_t)tls_port;
	m->relay.stun_port = (uint16_t)stun_port;
	return r;
}

/* Is it what the member published before? */
static bool same_exposures(const struct map_exposures *a, const struct map_exposures *b)
{
	if (!a || a->port != b->port || a->n != b->n)
		return false;
	for (uint32_t i = 0; i < a->n; i++)
		if (strcmp(a->hosts[i], b->hosts[i]) != 0)
			return false;
	return true;
}

/* What the node publishes, into a list of its own if it is another than before; the caller's then. */
static int read_exposures(const struct json *params, struct member *m, struct error *reterr)
{
	const struct json *object = json_member(params, "exposures");
	struct map_exposures *exposures;
	int r = 0;

	if ((!object || json_is_null(object)) && !m->exposures)
		return 0;
	exposures = calloc(1, sizeof(*exposures));
	if (!exposures)
		abort();
	exposures->id = m->peer.id;
	if (object && !json_is_null(object))
		r = map_exposures_from_json(object, exposures, reterr);
	if (r == 0 && exposures->id != m->peer.id)
		r = error_set(reterr, -EINVAL, "member 'id' of 'exposures': must be the node's own");
	if (r != 0 || same_exposures(m->exposures, exposures))
		free(exposures);
	else
		m->exposures = exposures;
	return r;
}

static int read_update(const struct json *params, struct member *m, struct error *reterr)
{
	int64_t home_relay = 0;
	int r = json_get_public_key(params, "session_key", &m->peer.session_key, reterr);

	memset(m->peer.endpoints, 0, sizeof(m->peer.endpoints));
	if (r == 0)
		r = json_get_integer_or(params, "home_relay", 0, UINT32_MAX, 0, &home_relay,
					reterr);
	if (r == 0)
		r = read_list(params, "endpoints", true, MAP_MAX_ENDPOINTS, m->peer.endpoints,
			      &m->peer.n_endpoints, reterr);
	if (r == 0)
		r = read_public(params, m, reterr);
	if (r == 0)
		r = json_get_boolean_or(params, "front_door", false, &m->peer.front_door, reterr);
	if (r == 0)
		r = read_exposures(params, m, reterr);
	m->peer.home_relay = (uint32_t)home_relay;
	return r;
}

static bool same_record(const struct member *a, const struct member *b)
{
	struct json *json[4] = { map_peer_to_json(&a->peer), map_peer_to_json(&b->peer),
				 map_relay_to_json(&a->relay), map_relay_to_json(&b->relay) };
	char *text[4];

	for (int i = 0; i < 4; i++) {
		text[i] = json_print(json[i]);
		json_free(json[i]);
	}
	bool same = a->offers_relay == b->offers_relay && a->exposures == b->exposures && a->granted == b->granted &&
		    strcmp(text[0], text[1]) == 0 &&
		    (!a->offers_relay || strcmp(text[2], text[3]) == 0);
	for (int i = 0; i < 4; i++)
		free(text[i]);
	return same;
}

/* A session key names its owner to the peers: nobody may take another's. */
static bool is_key_of_another(const struct control *c, const struct member *m)
{
	for (const struct member *i = directory_next(&c->directory, NULL); i;
	     i = directory_next(&c->directory, i))
		if (i->peer.id != m->peer.id &&
		    public_key_equal(&i->peer.session_key, &m->peer.session_key))
			return !public_key_is_zero(&m->peer.session_key);
	return false;
}

/* 0: kept, and the directory's. */
static int take_update(struct control *c, const struct member *now, struct member *m, struct rpc_error *reterr)
{
	struct error err;

	if (is_key_of_another(c, m)) {
		error_set(&err, -EINVAL, "member 'session_key': another node has it");
		return answer_error(reterr, RPC_INVALID_PARAMS, &err);
	}
	if (member_is_relay(m) && !member_is_relay(now) && directory_is_full_of_relays(&c->directory)) {
		error_set(&err, -ENOSPC, "the network has %d public nodes already", MAP_MAX_RELAYS);
		return answer_error(reterr, RPC_BUSY, &err);
	}
	return control_put_member(c, m, &err) == 0 ? 0 : answer_code(reterr, RPC_INTERNAL_ERROR);
}

static int on_update(struct control *c, struct connection *conn, const struct json *params,
		     struct json **ret_result, struct rpc_error *reterr)
{
	const struct member *now = member_of(c, conn);
	struct member m = *now;
	struct error err;
	int r = 0;

	if (read_update(params, &m, &err) != 0)
		return answer_error(reterr, RPC_INVALID_PARAMS, &err);
	m.granted = directory_judge_exposures(&c->directory, now, m.exposures);
	if (!same_record(now, &m))
		r = take_update(c, now, &m, reterr);
	if (r != 0 && m.exposures != now->exposures)
		free(m.exposures);
	if (r == 0) {
		/* From there on the map says what of it is so. */
		*ret_result = json_object();
		json_put_u64(*ret_result, "sequence", c->directory.sequence);
	}
	return r;
}

void control_wake(struct control *c, struct member *m)
{
	m->wake_waits = m->connection && !token_bucket_take(&m->woken, uv_now(c->loop), CONTROL_WOKEN_BURST,
							    CONTROL_WOKEN_EACH_MS);
	if (m->connection && !m->wake_waits)
		control_send_notification(m->connection, "wake", json_object());
}

/*
 * Who is not connected, or left just now, is nobody's error: the one who asks cannot know. Nor is too much of it, which
 * is not done.
 */
static int on_wake(struct control *c, struct connection *conn, const struct json *params,
		   struct json **ret_result, struct rpc_error *reterr)
{
	struct member *self = member_of(c, conn);
	const struct json *peers;
	uint32_t n = 0;
	struct error err;

	if (json_get_array(params, "peers", &peers, &err) != 0)
		return answer_error(reterr, RPC_INVALID_PARAMS, &err);
	for (const struct json *i = json_first(peers); i; i = json_next(i)) {
		int64_t id;
		if (n++ == CONTROL_WAKE_MAX || json_integer_value(i, 1, UINT32_MAX, &id) != 0) {
			error_set(&err, -EINVAL, "member 'peers': must hold at most %d ids", CONTROL_WAKE_MAX);
			return answer_error(reterr, RPC_INVALID_PARAMS, &err);
		}
		struct member *peer = directory_find(&c->directory, (uint32_t)id);
		if (self->connection != conn || !peer || !peer->connection || peer == self || peer->wake_waits)
			continue;
		if (token_bucket_take(&self->wakes, uv_now(c->loop), CONTROL_WAKE_MAX, CONTROL_WAKES_EACH_MS))
			control_wake(c, peer);
	}
	return 0;
}

static void close_after_leave(struct control *c, struct connection *conn)
{
	websocket_close(conn->ws, "it left");
}

static int on_leave(struct control *c, struct connection *conn, const struct json *params,
		    struct json **ret_result, struct rpc_error *reterr)
{
	struct member *m = member_of(c, conn);
	struct error err;

	/* Its connection must still carry the answer. */
	if (m->connection == conn) {
		m->connection = NULL;
		conn->is_greeted = false;
	}
	if (control_remove_member(c, m, "it left", &err) != 0)
		return answer_code(reterr, RPC_INTERNAL_ERROR);
	conn->node_id = 0;
	conn->after = close_after_leave;
	return 0;
}

/* clang-format off */
const struct method node_methods[] = {
	/* name              who          handle */
	{ "node.challenge", FOR_ANYBODY, on_challenge },
	{ "node.join",      FOR_ANYBODY, on_join      },
	{ "node.renew",     FOR_ANYBODY, on_renew     }, /* by proof, or as a member */
	{ "node.hello",     FOR_MEMBERS, on_hello     },
	{ "node.update",    FOR_MEMBERS, on_update    },
	{ "node.wake",      FOR_MEMBERS, on_wake      },
	{ "node.leave",     FOR_MEMBERS, on_leave     },
	{ 0 },
};
/* clang-format on */
