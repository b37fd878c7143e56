#include "node/local_api_wire.h"

#include "common/json.h"
#include "relay/diglett/request_wire.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

typedef int (*decode_fn)(const struct json *params, struct local_api_call *ret,
			 struct error *reterr);

static int decode_nothing(const struct json *params, struct local_api_call *ret,
			  struct error *reterr)
{
	static const char *const known[] = { NULL };

	return params ? json_only_members(params, known, reterr) : 0;
}

static int decode_join(const struct json *params, struct local_api_call *ret, struct error *reterr)
{
	static const char *const known[] = { "link", "name", NULL };
	const char *link, *name;
	int r = json_only_members(params, known, reterr);

	if (r == 0)
		r = json_get_string(params, "link", &link, reterr);
	if (r == 0)
		r = json_get_string_or(params, "name", "", &name, reterr);
	if (r == 0)
		r = join_link_parse(link, &ret->join.link, reterr);
	if (r != 0)
		return r;
	if (ret->join.link.kind != JOIN_LINK_NODE)
		return error_set(
			reterr, -EINVAL,
			"this is an admin link; a node joins with a link made by 'p2pctl admin key "
			"create'");
	if (name[0] != '\0' && !map_name_is_valid(name))
		return error_set(
			reterr, -EINVAL,
			"member 'name': must be one to %d of a-z, 0-9 and '-', with no '-' at either "
			"end",
			MAP_NAME_LEN);
	snprintf(ret->join.name, sizeof(ret->join.name), "%s", name);
	return 0;
}

static int decode_ping(const struct json *params, struct local_api_call *ret, struct error *reterr)
{
	static const char *const known[] = { "peer", "timeout_ms", NULL };
	const char *peer;
	int64_t timeout_ms;
	int r = json_only_members(params, known, reterr);

	if (r == 0)
		r = json_get_string(params, "peer", &peer, reterr);
	if (r == 0)
		r = json_get_integer_or(params, "timeout_ms", 1, LOCAL_API_PING_MAX_MS,
					LOCAL_API_PING_TIMEOUT_MS, &timeout_ms, reterr);
	if (r != 0)
		return r;
	ret->ping.timeout_ms = (uint32_t)timeout_ms;
	if (endpoint_parse_ip(peer, 0, &ret->ping.ip) == 0)
		return 0;
	if (!map_name_is_valid(peer))
		return error_set(
			reterr, -EINVAL,
			"member 'peer': must be the name or the overlay address of a peer");
	snprintf(ret->ping.name, sizeof(ret->ping.name), "%s", peer);
	return 0;
}

static int decode_log_level(const struct json *params, struct local_api_call *ret,
			    struct error *reterr)
{
	static const char *const known[] = { "level", NULL };
	const char *level;
	int r = json_only_members(params, known, reterr);

	if (r == 0)
		r = json_get_string(params, "level", &level, reterr);
	if (r == 0 && log_level_parse(level, &ret->log_level) != 0)
		r = error_set(reterr, -EINVAL,
			      "member 'level': must be error, warning, info, debug or trace");
	return r;
}

static int decode_relay_status(const struct json *params, struct local_api_call *ret, struct error *reterr)
{
	static const char *const known[] = { "clients", NULL };
	int r = params ? json_only_members(params, known, reterr) : 0;

	ret->with_clients = true;
	if (params && r == 0)
		r = json_get_boolean_or(params, "clients", true, &ret->with_clients, reterr);
	return r;
}

static int decode_drain(const struct json *params, struct local_api_call *ret, struct error *reterr)
{
	static const char *const known[] = { "deadline_s", NULL };
	int64_t deadline_s = LOCAL_API_DRAIN_S;
	int r = params ? json_only_members(params, known, reterr) : 0;

	if (params && r == 0)
		r = json_get_integer_or(params, "deadline_s", 1, LOCAL_API_DRAIN_MAX_S, LOCAL_API_DRAIN_S,
					&deadline_s, reterr);
	ret->drain_s = (uint32_t)deadline_s;
	return r;
}

static int decode_expose(const struct json *params, struct local_api_call *ret, struct error *reterr)
{
	static const char *const known[] = { "exposure", NULL };
	const char *text;
	int r = json_only_members(params, known, reterr);

	if (r == 0)
		r = json_get_string(params, "exposure", &text, reterr);
	return r == 0 ? exposure_parse(text, &ret->exposure, reterr) : r;
}

static int decode_unexpose(const struct json *params, struct local_api_call *ret, struct error *reterr)
{
	static const char *const known[] = { "host", NULL };
	const char *text;
	int r = json_only_members(params, known, reterr);

	if (r == 0)
		r = json_get_string(params, "host", &text, reterr);
	return r == 0 ? exposure_parse_host(text, &ret->exposure, reterr) : r;
}

static int decode_diglett_status(const struct json *params, struct local_api_call *ret, struct error *reterr)
{
	ret->diglett.kind = DIGLETT_ORDER_STATUS;
	return decode_nothing(params, ret, reterr);
}

static int decode_diglett_end(const struct json *params, struct local_api_call *ret, struct error *reterr)
{
	static const char *const known[] = { "name", NULL };
	const char *name;
	int r = json_only_members(params, known, reterr);

	if (r == 0)
		r = json_get_string(params, "name", &name, reterr);
	if (r != 0)
		return r;
	ret->diglett.kind = DIGLETT_ORDER_END;
	return diglett_name_parse(name, strlen(name), &ret->diglett.name) == 0
		       ? 0
		       : error_set(reterr, -EINVAL, "member 'name': must be a host's name, such as app.example.org");
}

static int decode_pattern(const struct json *item, struct token_entry *entry, struct error *reterr)
{
	const char *text = json_text(item);

	if (entry->n_patterns == TOKEN_MAX_PATTERNS)
		return error_set(reterr, -EINVAL, "member 'names': at most %d; use a wildcard, or another token", TOKEN_MAX_PATTERNS);
	if (!text || host_pattern_from(text, strlen(text), &entry->patterns[entry->n_patterns]) != 0)
		return error_set(reterr, -EINVAL, "member 'names': wanted: names, or *. and a name");
	entry->n_patterns++;
	return 0;
}

static int decode_token_create(const struct json *params, struct local_api_call *ret, struct error *reterr)
{
	static const char *const known[] = { "names", "label", NULL };
	struct token_entry *entry = &ret->diglett.token;
	const struct json *names;
	const char *label;
	int r = json_only_members(params, known, reterr);

	ret->diglett.kind = DIGLETT_ORDER_TOKEN_CREATE;
	if (r == 0)
		r = json_get_array(params, "names", &names, reterr);
	if (r == 0)
		r = json_get_string_or(params, "label", "", &label, reterr);
	if (r != 0)
		return r;
	if (!token_label_is_valid(label))
		return error_set(reterr, -EINVAL, "member 'label': at most %d characters of ASCII, and no '#'", TOKEN_LABEL_LEN);
	snprintf(entry->label, sizeof(entry->label), "%s", label);
	for (const struct json *item = json_first(names); item && r == 0; item = json_next(item))
		r = decode_pattern(item, entry, reterr);
	if (r == 0 && entry->n_patterns == 0)
		return error_set(reterr, -EINVAL, "member 'names': at least one is needed");
	return r;
}

static int decode_token_list(const struct json *params, struct local_api_call *ret, struct error *reterr)
{
	ret->diglett.kind = DIGLETT_ORDER_TOKEN_LIST;
	return decode_nothing(params, ret, reterr);
}

static int decode_token_revoke(const struct json *params, struct local_api_call *ret, struct error *reterr)
{
	static const char *const known[] = { "id", NULL };
	const char *id;
	int r = json_only_members(params, known, reterr);

	ret->diglett.kind = DIGLETT_ORDER_TOKEN_REVOKE;
	if (r == 0)
		r = json_get_string(params, "id", &id, reterr);
	if (r != 0)
		return r;
	if (strlen(id) != TOKEN_ID_LEN || strspn(id, "0123456789abcdef") != TOKEN_ID_LEN)
		return error_set(reterr, -EINVAL, "member 'id': must be %d hex digits, as p2pctl diglett token list has them", TOKEN_ID_LEN);
	snprintf(ret->diglett.id, sizeof(ret->diglett.id), "%s", id);
	return 0;
}

static const struct {
	const char *name;
	bool needs_params;
	decode_fn decode;
} methods[LOCAL_API_N_METHODS] = {
	[LOCAL_API_STATUS] = { "node.status", false, decode_nothing },
	[LOCAL_API_JOIN] = { "node.join", true, decode_join },
	[LOCAL_API_LEAVE] = { "node.leave", false, decode_nothing },
	[LOCAL_API_PING] = { "node.ping", true, decode_ping },
	[LOCAL_API_NETCHECK] = { "node.netcheck", false, decode_nothing },
	[LOCAL_API_LOG_LEVEL] = { "node.log_level", true, decode_log_level },
	[LOCAL_API_RELAY_STATUS] = { "relay.status", false, decode_relay_status },
	[LOCAL_API_RELAY_DRAIN] = { "relay.drain", false, decode_drain },
	[LOCAL_API_RELAY_UNDRAIN] = { "relay.undrain", false, decode_nothing },
	[LOCAL_API_EXPOSE] = { "node.expose", true, decode_expose },
	[LOCAL_API_UNEXPOSE] = { "node.unexpose", true, decode_unexpose },
	[LOCAL_API_EXPOSURES] = { "node.exposures", false, decode_nothing },
	[LOCAL_API_DIGLETT_STATUS] = { "diglett.status", false, decode_diglett_status },
	[LOCAL_API_DIGLETT_END] = { "diglett.end", true, decode_diglett_end },
	[LOCAL_API_DIGLETT_TOKEN_CREATE] = { "diglett.token_create", true, decode_token_create },
	[LOCAL_API_DIGLETT_TOKEN_LIST] = { "diglett.token_list", false, decode_token_list },
	[LOCAL_API_DIGLETT_TOKEN_REVOKE] = { "diglett.token_revoke", true, decode_token_revoke },
};

const char *local_api_method_name(enum local_api_method method)
{
	return methods[method].name;
}

static int fail(enum rpc_code *reterr_code, enum rpc_code code)
{
	*reterr_code = code;
	return -EINVAL;
}

int local_api_decode(const struct rpc_message *message, struct local_api_call *ret,
		     enum rpc_code *reterr_code, struct error *reterr)
{
	struct local_api_call call = { .method = LOCAL_API_STATUS };

	if (message->kind != RPC_REQUEST) {
		error_set(reterr, -EINVAL, "only requests (with an id) are understood here");
		return fail(reterr_code, RPC_INVALID_REQUEST);
	}
	while (call.method < LOCAL_API_N_METHODS &&
	       strcmp(methods[call.method].name, message->method) != 0)
		call.method++;
	if (call.method == LOCAL_API_N_METHODS) {
		error_set(reterr, -EINVAL, "no method '%s'", message->method);
		return fail(reterr_code, RPC_METHOD_NOT_FOUND);
	}
	if (methods[call.method].needs_params && !message->params) {
		error_set(reterr, -EINVAL, "%s needs parameters", message->method);
		return fail(reterr_code, RPC_INVALID_PARAMS);
	}
	if (methods[call.method].decode(message->params, &call, reterr) != 0) {
		local_api_call_wipe(&call);
		return fail(reterr_code, RPC_INVALID_PARAMS);
	}
	*ret = call;
	local_api_call_wipe(&call);
	return 0;
}

void local_api_call_wipe(struct local_api_call *call)
{
	sodium_memzero(&call->join.link, sizeof(call->join.link));
}
