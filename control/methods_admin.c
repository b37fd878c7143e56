/* admin.*: what an admin asks. docs/PROTOCOL-control.md */
#include "control/methods_admin.h"

#include "common/log.h"
#include "common/prefix.h"

#include <errno.h>
#include <string.h>

int admin_internal(struct rpc_error *reterr, const struct error *err)
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
		return admin_internal(reterr, &err);
	conn->is_admin = true;
	*ret_result = json_object();
	json_put_string(*ret_result, "network", c->directory.network);
	return 0;
}

/* Nodes */

/* By "name". */
int admin_find_node(struct control *c, const struct json *params, struct member **ret,
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
	json_put(json, "tags", admin_tags_json(m->tags));
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

	if (admin_find_node(c, params, &m, reterr) != 0)
		return 1;
	return control_remove_member(c, m, "an admin removed it", &err) == 0
		       ? 0
		       : admin_internal(reterr, &err);
}

static int on_node_rename(struct control *c, struct connection *conn, const struct json *params,
			  struct json **ret_result, struct rpc_error *reterr)
{
	const char *new_name;
	struct member *m;
	struct error err;

	if (admin_find_node(c, params, &m, reterr) != 0)
		return 1;
	if (json_get_string(params, "new_name", &new_name, &err) != 0)
		return answer_error(reterr, RPC_INVALID_PARAMS, &err);
	if (!map_name_is_valid(new_name))
		return answer_code(reterr, RPC_NAME_INVALID);
	const struct member *holder = directory_find_by_name(&c->directory, new_name);
	if (holder)
		return holder == m ? 0 : answer_code(reterr, RPC_NAME_TAKEN);
	if (m->offers_relay && admin_is_granted_host(c, new_name)) {
		error_set(&err, -EINVAL, "%.63s is a host that is granted, and a public node's relay is asked for by its name: "
			  "it needs another", new_name);
		return answer_error(reterr, RPC_INVALID_PARAMS, &err);
	}
	struct member renamed = *m;
	memcpy(renamed.peer.name, new_name, strlen(new_name) + 1);
	memcpy(renamed.relay.name, renamed.peer.name, sizeof(renamed.relay.name));
	return control_put_member(c, &renamed, &err) == 0 ? 0 : admin_internal(reterr, &err);
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
	{ "admin.key.create",  FOR_ADMINS,  admin_key_create  },
	{ "admin.key.list",    FOR_ADMINS,  admin_key_list    },
	{ "admin.key.revoke",  FOR_ADMINS,  admin_key_revoke  },
	{ "admin.node.list",   FOR_ADMINS,  on_node_list   },
	{ "admin.node.remove", FOR_ADMINS,  on_node_remove },
	{ "admin.node.rename", FOR_ADMINS,  on_node_rename },
	{ "admin.host.add",    FOR_ADMINS,  admin_host_add    },
	{ "admin.host.list",   FOR_ADMINS,  admin_host_list   },
	{ "admin.host.remove", FOR_ADMINS,  admin_host_remove },
	{ "admin.port.add",    FOR_ADMINS,  admin_port_add    },
	{ "admin.port.list",   FOR_ADMINS,  admin_port_list   },
	{ "admin.port.remove", FOR_ADMINS,  admin_port_remove },
	{ "admin.relay.add",   FOR_ADMINS,  admin_relay_add   },
	{ "admin.relay.list",  FOR_ADMINS,  admin_relay_list  },
	{ "admin.relay.remove", FOR_ADMINS, admin_relay_remove },
	{ "admin.status",      FOR_ADMINS,  on_status      },
	{ 0 },
};
/* clang-format on */
