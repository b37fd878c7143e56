#include "relay/diglett/diglett_orders.h"

#include "common/rpc.h"
#include "relay/diglett/diglett_keys.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

/* An order that waits for the disk. */
struct waiting {
	diglett_answered answered;
	void *owner;
	struct token_secret secret; /* of a new token; else empty */
	char id[TOKEN_ID_LEN + 1];
};

/* status */

static void put_key(struct json *json, const char *member, const struct noise_public *key)
{
	char text[DIGLETT_PUBLIC_TEXT + 1];

	diglett_public_text(key, text);
	json_put_string(json, member, text);
}

static void put_streams(struct json *json, const struct tunnel_counters *streams)
{
	json_put_integer(json, "streams", streams->visitors_now);
	json_put_u64(json, "streams_total", streams->mux.opened);
	json_put_u64(json, "bytes_in", streams->bytes_in);
	json_put_u64(json, "bytes_out", streams->bytes_out);
}

static const char *script_text(enum diglett_script_state state)
{
	static const char *const texts[] = {
		[DIGLETT_SCRIPT_NONE] = "none",
		[DIGLETT_SCRIPT_TELLS] = "waits",
		[DIGLETT_SCRIPT_HAS_TOLD] = "told",
		[DIGLETT_SCRIPT_HAS_FAILED] = "failed",
	};

	return texts[state];
}

static struct json *agent_json(const struct diglett_agent_view *view)
{
	struct json *json = json_object(), *ports = json_array();

	json_put_string(json, "address", endpoint_text(&view->remote).s);
	put_key(json, "public_key", view->key);
	json_put_integer(json, "since_s", view->since_s);
	json_put_integer(json, "version", view->version);
	if (view->node[0] != '\0') {
		json_put_string(json, "node", view->node);
	} else {
		json_put_string(json, "token", view->token.s);
		json_put_string(json, "label", view->label);
	}
	put_streams(json, &view->streams);
	for (uint8_t i = 0; i < view->n_ports; i++) {
		struct json *port = json_object();
		json_put_string(port, "name", view->ports[i].name->text);
		json_put_integer(port, "port", view->ports[i].port);
		json_put_string(port, "script", script_text(view->ports[i].script));
		json_append(ports, port);
	}
	json_put(json, "ports", ports);
	return json;
}

static struct json *server_json(const struct diglett_server *server)
{
	struct json *json = json_object(), *agents = json_array();
	const struct endpoint listens = diglett_server_listens(server);
	struct diglett_agent_view view;

	json_put_string(json, "listen", endpoint_text(&listens).s);
	put_key(json, "public_key", diglett_server_key(server));
	json_put_string(json, "domain", diglett_server_domain(server));
	for (uint32_t i = 0; diglett_server_agent_at(server, i, &view); i++)
		json_append(agents, agent_json(&view));
	json_put(json, "agents", agents);
	return json;
}

static struct json *own_json(const struct diglett_agent *agent)
{
	const struct diglett_agent_status status = diglett_agent_status(agent);
	struct json *json = json_object(), *tunnels = json_array();

	json_put_string(json, "server", status.host);
	json_put_integer(json, "port", status.port);
	json_put_string(json, "state", status.is_let_in ? "let in" : status.again_in_ms > 0 ? "waits" : "connects");
	if (status.is_let_in)
		json_put_integer(json, "since_s", status.since_s);
	else if (status.why[0] != '\0')
		json_put_string(json, "why", status.why);
	if (status.again_in_ms > 0)
		json_put_integer(json, "again_in_ms", status.again_in_ms);
	put_streams(json, &status.streams);
	for (uint8_t i = 0; i < status.n_ports; i++) {
		struct json *tunnel = json_object();
		json_put_string(tunnel, "name", status.names[i].text);
		json_put_string(tunnel, "target", endpoint_text(&status.targets[i]).s);
		json_append(tunnels, tunnel);
	}
	json_put(json, "tunnels", tunnels);
	return json;
}

static struct json *status_json(const struct diglett_server *server, const struct diglett_agent *agent)
{
	struct json *json = json_object();

	if (server)
		json_put(json, "server", server_json(server));
	if (agent)
		json_put(json, "agent", own_json(agent));
	return json;
}

/* tokens */

static void put_tokens(struct json *list, const struct token_list *tokens, const char *place)
{
	for (uint32_t i = 0; i < tokens->n; i++) {
		const struct token_entry *entry = &tokens->entries[i];
		struct json *json = json_object(), *names = json_array();
		json_put_string(json, "id", token_id(entry->hash).s);
		json_put_string(json, "label", entry->label);
		json_put_string(json, "place", place);
		for (uint8_t j = 0; j < entry->n_patterns; j++) {
			char text[HOST_NAME_MAX_LEN + 3];
			snprintf(text, sizeof(text), "%s%s", entry->patterns[j].is_wildcard ? "*." : "",
				 entry->patterns[j].name.text);
			json_append_string(names, text);
		}
		json_put(json, "names", names);
		json_append(list, json);
	}
}

static struct json *tokens_json(const struct diglett_server *server)
{
	const struct token_store *tokens = diglett_server_tokens(server);
	struct json *json = json_object(), *list = json_array();

	put_tokens(list, &tokens->own, "p2pctl");
	put_tokens(list, &tokens->listed, tokens->file);
	json_put(json, "tokens", list);
	return json;
}

static void on_changed(void *owner, int r, const struct error *error)
{
	struct waiting *waiting = owner;
	struct json *json = NULL;

	if (r == 0) {
		json = json_object();
		json_put_string(json, "id", waiting->id);
		if (waiting->secret.s[0] != '\0')
			json_put_string(json, "token", waiting->secret.s);
	}
	waiting->answered(waiting->owner, r == 0 ? 0 : RPC_INTERNAL_ERROR, json, r == 0 ? NULL : error->message);
	sodium_memzero(waiting, sizeof(*waiting));
	free(waiting);
}

static int code_of(int r)
{
	switch (r) {
	case -ENOENT:
		return RPC_NOT_FOUND;
	case -EBUSY:
	case -ENOSPC:
		return RPC_BUSY;
	case -EPERM:
		return RPC_ALREADY; /* nothing that another user could do */
	default:
		return RPC_INVALID_PARAMS;
	}
}

static void change_tokens(struct diglett_server *server, const struct diglett_order *order, diglett_answered answered,
			  void *owner)
{
	struct waiting *waiting = calloc(1, sizeof(*waiting));
	struct token_entry entry = order->token;
	struct error error;
	int r;

	if (!waiting)
		abort();
	*waiting = (struct waiting){ .answered = answered, .owner = owner };
	if (order->kind == DIGLETT_ORDER_TOKEN_CREATE) {
		r = diglett_server_create_token(server, &entry, &waiting->secret, on_changed, waiting, &error);
		memcpy(waiting->id, token_id(entry.hash).s, sizeof(waiting->id));
	} else {
		r = diglett_server_revoke_token(server, order->id, on_changed, waiting, &error);
		memcpy(waiting->id, order->id, sizeof(waiting->id));
	}
	if (r == 0)
		return;
	free(waiting);
	answered(owner, code_of(r), NULL, error.message);
}

static void end_agent(struct diglett_server *server, const struct diglett_order *order, diglett_answered answered, void *owner)
{
	if (diglett_server_end_agent(server, &order->name) == 0)
		answered(owner, 0, json_object(), NULL);
	else
		answered(owner, RPC_NOT_FOUND, NULL, "no agent has this name; p2pctl diglett lists them");
}

void diglett_orders_run(struct diglett_server *server, struct diglett_agent *agent, const struct diglett_order *order,
			diglett_answered answered, void *owner)
{
	if (!server && order->kind != DIGLETT_ORDER_STATUS) {
		answered(owner, RPC_NOT_FOUND, NULL,
			 "this node is no diglett server: put a line '[diglett]' into p2pnode.conf, and restart p2pnode");
		return;
	}
	switch (order->kind) {
	case DIGLETT_ORDER_STATUS:
		answered(owner, 0, status_json(server, agent), NULL);
		break;
	case DIGLETT_ORDER_END:
		end_agent(server, order, answered, owner);
		break;
	case DIGLETT_ORDER_TOKEN_CREATE:
	case DIGLETT_ORDER_TOKEN_REVOKE:
		change_tokens(server, order, answered, owner);
		break;
	case DIGLETT_ORDER_TOKEN_LIST:
		answered(owner, 0, tokens_json(server), NULL);
		break;
	}
}
