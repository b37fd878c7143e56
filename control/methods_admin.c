/* admin.*: what an admin asks. docs/PROTOCOL-control.md */
#include "control/service.h"

#include "common/log.h"
#include "common/prefix.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_LIFE_S (INT64_C(100) * 365 * 24 * 3600)

static int internal(struct rpc_error *reterr, const struct error *err)
{
	log_error(CONTROL_MODULE, "%s", err->message);
	return answer_code(reterr, RPC_INTERNAL_ERROR);
}

static int on_login(struct control *c, struct connection *conn, const struct json *params,
		    struct json **ret_result, struct rpc_error *reterr)
{
	struct endpoint remote = websocket_remote(conn->ws);
	const char *token;
	struct error err;

	if (json_get_string(params, "token", &token, &err) != 0)
		return answer_error(reterr, RPC_INVALID_PARAMS, &err);
	int r = store_check_admin_token(c->store, token, &err);
	if (r == -ENOENT) {
		log_limited(&c->refusals, LOG_LEVEL_WARNING, CONTROL_MODULE,
			    "refused an admin token from=%s", endpoint_text(&remote).s);
		return answer_code(reterr, RPC_TOKEN_UNKNOWN);
	}
	if (r != 0)
		return internal(reterr, &err);
	conn->is_admin = true;
	*ret_result = json_object();
	json_put_string(*ret_result, "network", c->directory.network);
	return 0;
}

/* Join keys */

/* ["a", "b"] as "a,b". */
static int read_tags(const struct json *params, char ret[MEMBER_MAX_TAGS + 1], struct error *reterr)
{
	const struct json *list = json_member(params, "tags");
	size_t used = 0;

	ret[0] = '\0';
	if (list && !json_is_array(list) && !json_is_null(list))
		return error_set(reterr, -EINVAL, "member 'tags': must be an array");
	for (const struct json *i = json_first(list); i; i = json_next(i)) {
		const char *tag = json_text(i);
		if (!tag || !map_name_is_valid(tag) || used + strlen(tag) + 1 > MEMBER_MAX_TAGS)
			return error_set(
				reterr, -EINVAL,
				"member 'tags': must hold names of a-z 0-9 -, %d characters in all",
				MEMBER_MAX_TAGS);
		used += (size_t)snprintf(ret + used, MEMBER_MAX_TAGS + 1 - used, "%s%s",
					 used ? "," : "", tag);
	}
	return 0;
}

static struct json *tags_json(const char *tags)
{
	struct json *list = json_array();
	char copy[MEMBER_MAX_TAGS + 1], *rest = copy, *tag;

	snprintf(copy, sizeof(copy), "%s", tags);
	while ((tag = strsep(&rest, ",")))
		if (*tag)
			json_append_string(list, tag);
	return list;
}

static int read_key_options(const struct json *params, struct store_join_key *key,
			    struct error *reterr)
{
	static const char *const known[] = { "reusable", "expires_in_s", "node_ttl_s", "tags",
					     "relay", NULL };
	int64_t life_s = 0;
	int r = json_only_members(params, known, reterr);

	*key = (struct store_join_key){ .created_s = control_now_s() };
	if (r == 0)
		r = json_get_boolean_or(params, "reusable", false, &key->is_reusable, reterr);
	if (r == 0)
		r = json_get_integer_or(params, "expires_in_s", 0, MAX_LIFE_S, 24 * 3600, &life_s,
					reterr);
	if (r == 0)
		r = json_get_integer_or(params, "node_ttl_s", 0, MAX_LIFE_S, 0, &key->node_ttl_s,
					reterr);
	if (r == 0)
		r = read_tags(params, key->tags, reterr);
	if (r == 0)
		r = json_get_boolean_or(params, "relay", false, &key->may_relay, reterr);
	key->expires_s = life_s ? key->created_s + life_s : 0;
	return r;
}

static struct json *key_json(const struct store_join_key *key)
{
	struct json *json = json_object();

	json_put_integer(json, "id", key->id);
	json_put_boolean(json, "reusable", key->is_reusable);
	json_put_boolean(json, "revoked", key->is_revoked);
	json_put_integer(json, "created_s", key->created_s);
	json_put_integer(json, "expires_s", key->expires_s);
	json_put_integer(json, "uses", key->n_uses);
	json_put_integer(json, "node_ttl_s", key->node_ttl_s);
	json_put(json, "tags", tags_json(key->tags));
	json_put_boolean(json, "relay", key->may_relay);
	return json;
}

static int on_key_create(struct control *c, struct connection *conn, const struct json *params,
			 struct json **ret_result, struct rpc_error *reterr)
{
	char secret[JOIN_LINK_SECRET_LEN + 1];
	struct store_join_key key;
	struct join_link link;
	struct error err;

	if (read_key_options(params, &key, &err) != 0)
		return answer_error(reterr, RPC_INVALID_PARAMS, &err);
	join_link_make_secret(JOIN_LINK_NODE, secret);
	int r = store_add_join_key(c->store, secret, &key, &err);
	if (r == 0)
		r = control_make_link(&c->network, &c->pin, JOIN_LINK_NODE, secret, &link);
	sodium_memzero(secret, sizeof(secret));
	if (r != 0)
		return internal(reterr, &err);
	struct join_link_text text = join_link_text(&link);
	*ret_result = key_json(&key);
	json_put_string(*ret_result, "link", text.s);
	sodium_memzero(&text, sizeof(text));
	join_link_wipe(&link);
	return 0;
}

static void append_key(void *owner, const struct store_join_key *key)
{
	json_append(owner, key_json(key));
}

static int on_key_list(struct control *c, struct connection *conn, const struct json *params,
		       struct json **ret_result, struct rpc_error *reterr)
{
	struct json *keys = json_array();
	struct error err;

	if (store_each_join_key(c->store, append_key, keys, &err) != 0) {
		json_free(keys);
		return internal(reterr, &err);
	}
	*ret_result = json_object();
	json_put(*ret_result, "keys", keys);
	return 0;
}

static int on_key_revoke(struct control *c, struct connection *conn, const struct json *params,
			 struct json **ret_result, struct rpc_error *reterr)
{
	struct error err;
	int64_t id;

	if (json_get_integer(params, "id", 1, INT64_MAX, &id, &err) != 0)
		return answer_error(reterr, RPC_INVALID_PARAMS, &err);
	int r = store_revoke_join_key(c->store, id, &err);
	if (r == -ENOENT)
		return answer_error(reterr, RPC_NOT_FOUND, &err);
	return r == 0 ? 0 : internal(reterr, &err);
}

/* Nodes */

/* By "name". */
static int find_node(struct control *c, const struct json *params, struct member **ret,
		     struct rpc_error *reterr)
{
	const char *name;
	struct error err;

	if (json_get_string(params, "name", &name, &err) != 0)
		return answer_error(reterr, RPC_INVALID_PARAMS, &err);
	*ret = directory_find_by_name(&c->directory, name);
	if (*ret)
		return 0;
	error_set(&err, -ENOENT, "there is no node of the name '%.63s'", name);
	return answer_error(reterr, RPC_NOT_FOUND, &err);
}

static struct json *node_json(const struct member *m)
{
	struct json *json = map_peer_to_json(&m->peer);

	json_put_integer(json, "joined_s", m->joined_s);
	json_put_integer(json, "last_seen_s", m->last_seen_s);
	json_put_integer(json, "node_ttl_s", m->node_ttl_s);
	json_put_boolean(json, "relay", member_is_relay(m));
	json_put(json, "tags", tags_json(m->tags));
	return json;
}

static int on_node_list(struct control *c, struct connection *conn, const struct json *params,
			struct json **ret_result, struct rpc_error *reterr)
{
	struct json *nodes = json_array();

	for (const struct member *m = directory_next(&c->directory, NULL); m;
	     m = directory_next(&c->directory, m))
		json_append(nodes, node_json(m));
	*ret_result = json_object();
	json_put(*ret_result, "nodes", nodes);
	return 0;
}

static int on_node_remove(struct control *c, struct connection *conn, const struct json *params,
			  struct json **ret_result, struct rpc_error *reterr)
{
	struct member *m;
	struct error err;

	if (find_node(c, params, &m, reterr) != 0)
		return 1;
	return control_remove_member(c, m, "an admin removed it", &err) == 0
		       ? 0
		       : internal(reterr, &err);
}

static int on_node_rename(struct control *c, struct connection *conn, const struct json *params,
			  struct json **ret_result, struct rpc_error *reterr)
{
	const char *new_name;
	struct member *m;
	struct error err;

	if (find_node(c, params, &m, reterr) != 0)
		return 1;
	if (json_get_string(params, "new_name", &new_name, &err) != 0)
		return answer_error(reterr, RPC_INVALID_PARAMS, &err);
	if (!map_name_is_valid(new_name))
		return answer_code(reterr, RPC_NAME_INVALID);
	const struct member *holder = directory_find_by_name(&c->directory, new_name);
	if (holder)
		return holder == m ? 0 : answer_code(reterr, RPC_NAME_TAKEN);
	struct member renamed = *m;
	memcpy(renamed.peer.name, new_name, strlen(new_name) + 1);
	memcpy(renamed.relay.name, renamed.peer.name, sizeof(renamed.relay.name));
	return control_put_member(c, &renamed, &err) == 0 ? 0 : internal(reterr, &err);
}

/* Relays */

static int read_relay_hints(const struct json *params, struct map_relay *relay, struct error *reterr)
{
	static const char *const known[] = { "name", "region", "cost_ms", NULL };
	const char *region = NULL;
	int64_t cost_ms = 0;
	int r = json_only_members(params, known, reterr);

	if (r == 0 && json_member(params, "region"))
		r = json_get_string(params, "region", &region, reterr);
	if (r == 0 && region && region[0] && !map_name_is_valid(region))
		r = error_set(reterr, -EINVAL, "member 'region': must be one to %d of a-z 0-9 -, or empty",
			      MAP_NAME_LEN);
	if (r == 0)
		r = json_get_integer_or(params, "cost_ms", 0, MAP_MAX_COST_MS, relay->cost_ms, &cost_ms, reterr);
	if (r != 0)
		return r;
	if (region)
		snprintf(relay->region, sizeof(relay->region), "%s", region);
	relay->cost_ms = (uint16_t)cost_ms;
	return 0;
}

/* Also for one that is a relay already: what is said of it changes, the rest stays. */
static int on_relay_add(struct control *c, struct connection *conn, const struct json *params,
			struct json **ret_result, struct rpc_error *reterr)
{
	struct member *now;
	struct error err;

	if (find_node(c, params, &now, reterr) != 0)
		return 1;
	struct member m = *now;
	if (read_relay_hints(params, &m.relay, &err) != 0)
		return answer_error(reterr, RPC_INVALID_PARAMS, &err);
	member_let_relay(&m);
	if (member_is_relay(&m) && !member_is_relay(now) && directory_is_full_of_relays(&c->directory)) {
		error_set(&err, -ENOSPC, "the network has %d public nodes already", MAP_MAX_RELAYS);
		return answer_error(reterr, RPC_BUSY, &err);
	}
	if (control_put_member(c, &m, &err) != 0)
		return internal(reterr, &err);
	*ret_result = json_object();
	json_put_boolean(*ret_result, "public", m.offers_relay);
	return 0;
}

static int on_relay_remove(struct control *c, struct connection *conn, const struct json *params,
			   struct json **ret_result, struct rpc_error *reterr)
{
	struct member *now;
	struct error err;

	if (find_node(c, params, &now, reterr) != 0)
		return 1;
	struct member m = *now;
	if (!m.may_relay) {
		error_set(&err, -ENOENT, "'%.63s' is no relay", m.peer.name);
		return answer_error(reterr, RPC_NOT_FOUND, &err);
	}
	m.may_relay = false;
	return control_put_member(c, &m, &err) == 0 ? 0 : internal(reterr, &err);
}

/* By id: how many nodes have each as their home. */
static int64_t *count_homes(const struct directory *directory)
{
	int64_t *n_homes = calloc((size_t)directory->last_id + 1, sizeof(*n_homes));

	if (!n_homes)
		abort();
	for (const struct member *m = directory_next(directory, NULL); m; m = directory_next(directory, m))
		if (m->peer.home_relay <= directory->last_id)
			n_homes[m->peer.home_relay]++;
	return n_homes;
}

static int on_relay_list(struct control *c, struct connection *conn, const struct json *params,
			 struct json **ret_result, struct rpc_error *reterr)
{
	struct json *relays = json_array();
	int64_t *n_homes = count_homes(&c->directory);

	for (const struct member *m = directory_next(&c->directory, NULL); m;
	     m = directory_next(&c->directory, m)) {
		if (!m->offers_relay && !(m->may_relay && m->had_relay))
			continue; /* whoever has joined with a key for relays may */
		struct json *relay = map_relay_to_json(&m->relay);
		json_put_boolean(relay, "online", m->peer.online);
		json_put_boolean(relay, "added", m->may_relay);
		json_put_boolean(relay, "public", m->offers_relay);
		json_put_integer(relay, "home_of", n_homes[m->peer.id]);
		json_append(relays, relay);
	}
	free(n_homes);
	*ret_result = json_object();
	json_put(*ret_result, "relays", relays);
	return 0;
}

static int on_status(struct control *c, struct connection *conn, const struct json *params,
		     struct json **ret_result, struct rpc_error *reterr)
{
	struct websocket_server_counters counters = websocket_server_counters(c->server);
	struct json *json = json_object();
	int64_t n_online = 0;

	for (const struct member *m = directory_next(&c->directory, NULL); m;
	     m = directory_next(&c->directory, m))
		n_online += m->peer.online;
	json_put_string(json, "version", P2P_VERSION);
	json_put_string(json, "network", c->directory.network);
	json_put_string(json, "host", c->network.host);
	json_put_integer(json, "port", c->network.port);
	json_put_string(json, "prefix4",
			prefix4_text(c->directory.prefix4, c->directory.prefix4_len).s);
	json_put_string(json, "prefix6",
			prefix6_text(&c->directory.prefix6, c->directory.prefix6_len).s);
	json_put_u64(json, "sequence", c->directory.sequence);
	json_put_u64(json, "epoch", c->directory.epoch);
	json_put_integer(json, "nodes", c->directory.n_present);
	json_put_integer(json, "online", n_online);
	json_put_integer(json, "connections", c->n_connections);
	json_put_u64(json, "joins", c->n_joins);
	json_put_u64(json, "refused_joins", c->n_refused_joins);
	json_put_u64(json, "refused_connections",
		     counters.refused_limit + counters.refused_address + counters.refused_rate);
	json_put_u64(json, "broken_handshakes", counters.broken_handshakes);
	json_put_u64(json, "bad_messages", c->n_bad_messages + counters.bad_messages);
	*ret_result = json;
	return 0;
}

/* clang-format off */
const struct method admin_methods[] = {
	/* name                 who          handle */
	{ "admin.login",       FOR_ANYBODY, on_login       },
	{ "admin.key.create",  FOR_ADMINS,  on_key_create  },
	{ "admin.key.list",    FOR_ADMINS,  on_key_list    },
	{ "admin.key.revoke",  FOR_ADMINS,  on_key_revoke  },
	{ "admin.node.list",   FOR_ADMINS,  on_node_list   },
	{ "admin.node.remove", FOR_ADMINS,  on_node_remove },
	{ "admin.node.rename", FOR_ADMINS,  on_node_rename },
	{ "admin.relay.add",   FOR_ADMINS,  on_relay_add   },
	{ "admin.relay.list",  FOR_ADMINS,  on_relay_list  },
	{ "admin.relay.remove", FOR_ADMINS, on_relay_remove },
	{ "admin.status",      FOR_ADMINS,  on_status      },
	{ 0 },
};
/* clang-format on */
