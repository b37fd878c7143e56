#include "relay/webgw/webgw_wire.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REGISTER   "webgw_registerClient"
#define UNREGISTER "webgw_unregisterClient"
#define PREPARE	   "webgw_prepare"
#define BALANCE	   "balance="

/* ---- what agents ask ---- */

/* As the originals' are: a number or a string. */
static int take_id(const struct json *root, struct rpc_id *ret)
{
	const struct json *id = json_member(root, "id");
	const char *text = json_text(id);

	if (!id || json_is_null(id))
		return 0;
	if (text) {
		if (strlen(text) > RPC_MAX_ID)
			return -EINVAL;
		ret->kind = RPC_ID_TEXT;
		memcpy(ret->text, text, strlen(text) + 1);
		return 0;
	}
	if (json_integer_value(id, -WEBGW_MAX_SUBSCRIPTION, WEBGW_MAX_SUBSCRIPTION, &ret->number) != 0)
		return -EINVAL;
	ret->kind = RPC_ID_NUMBER;
	return 0;
}

static int take_secret(const char *hex, uint8_t ret[WEBGW_HASH_LEN])
{
	uint8_t secret[WEBGW_MAX_SECRET];
	const size_t len = strlen(hex);
	size_t n = 0;
	const int r = sodium_hex2bin(secret, sizeof(secret), hex, len, NULL, &n, NULL);

	if (r == 0 && len % 2 == 0 && n >= WEBGW_MIN_SECRET)
		crypto_hash_sha256(ret, secret, n);
	sodium_memzero(secret, sizeof(secret));
	return r == 0 && len % 2 == 0 && n >= WEBGW_MIN_SECRET ? 0 : -EINVAL;
}

static int take_register(const struct json *params, struct webgw_request *request, struct error *reterr)
{
	const char *host, *hex = NULL;

	request->has_secret = json_member(params, "hex_secret") != NULL;
	if (!json_is_object(params) || json_get_string(params, "host", &host, reterr) != 0 ||
	    (request->has_secret && json_get_string(params, "hex_secret", &hex, reterr) != 0))
		return error_set(reterr, RPC_INVALID_PARAMS, "named parameters: host and hex_secret, both strings");
	if (request->has_secret && take_secret(hex, request->secret_hash) != 0)
		return error_set(reterr, RPC_INVALID_PARAMS, "hex_secret: %d to %d bytes in hex", WEBGW_MIN_SECRET,
				 WEBGW_MAX_SECRET);
	if (json_get_boolean_or(params, "visitor", false, &request->wants_visitors, NULL) != 0)
		return error_set(reterr, RPC_INVALID_PARAMS, "visitor: true or false");
	if (host_pattern_from(host, strlen(host), &request->host) != 0)
		request->host = (struct host_pattern){ 0 }; /* nobody's: an unknown host */
	return 0;
}

/* As the originals' library says it, in a list, or by its name. */
static int take_unregister(const struct json *params, struct webgw_request *request, struct error *reterr)
{
	const struct json *id = json_is_array(params) ? json_first(params) : json_member(params, "subscription");

	if (json_is_array(params) && json_length(params) != 1)
		id = NULL;
	if (!id || json_integer_value(id, 0, WEBGW_MAX_SUBSCRIPTION, &request->subscription) != 0)
		return error_set(reterr, RPC_INVALID_PARAMS, "one parameter: the subscription's id, a number");
	return 0;
}

static int take_prepare(const struct json *params, struct webgw_request *request, struct error *reterr)
{
	int64_t count;

	if (!json_is_object(params) ||
	    json_get_integer(params, "subscription", 1, WEBGW_MAX_SUBSCRIPTION, &request->subscription, reterr) != 0 ||
	    json_get_integer(params, "count", 1, WEBGW_PREPARE_MAX, &count, reterr) != 0)
		return error_set(reterr, RPC_INVALID_PARAMS, "named parameters: subscription, its id, and count, 1 to %d",
				 WEBGW_PREPARE_MAX);
	request->count = (uint32_t)count;
	return 0;
}

static int take_request(const struct json *root, struct webgw_request *request, struct error *reterr)
{
	const char *version = json_text(json_member(root, "jsonrpc")), *method = json_text(json_member(root, "method"));
	const struct json *params = json_member(root, "params");

	if (!version || strcmp(version, "2.0") != 0 || !method)
		return error_set(reterr, RPC_INVALID_REQUEST, "a request of JSON-RPC 2.0 is expected");
	if (strcmp(method, REGISTER) == 0) {
		request->method = WEBGW_REGISTER;
		return take_register(params, request, reterr);
	}
	if (strcmp(method, UNREGISTER) == 0) {
		request->method = WEBGW_UNREGISTER;
		return take_unregister(params, request, reterr);
	}
	if (strcmp(method, PREPARE) == 0) {
		request->method = WEBGW_PREPARE;
		return take_prepare(params, request, reterr);
	}
	return error_set(reterr, RPC_METHOD_NOT_FOUND, "Method not found");
}

int webgw_request_read(const char *text, size_t len, struct webgw_request *ret, struct error *reterr)
{
	const struct json_limits limits = { .max_len = WEBGW_MAX_REQUEST, .max_depth = 4, .max_members = 16 };
	struct webgw_request request = { 0 };
	struct json *root = NULL;
	int r;

	*ret = request;
	if (json_parse(text, len, &limits, &root, reterr) != 0)
		return RPC_PARSE_ERROR;
	if (!json_is_object(root) || take_id(root, &request.id) != 0)
		r = error_set(reterr, RPC_INVALID_REQUEST, "a request of JSON-RPC 2.0 is expected");
	else
		r = take_request(root, &request, reterr);
	ret->id = request.id;
	if (r == 0)
		*ret = request;
	json_free(root);
	return r;
}

/* ---- what they hear: members in the originals' order ---- */

static struct json *id_json(const struct rpc_id *id)
{
	if (id->kind == RPC_ID_NUMBER)
		return json_integer(id->number);
	return id->kind == RPC_ID_TEXT ? json_string(id->text) : json_null();
}

static char *print_and_free(struct json *root)
{
	char *text = json_print(root);

	json_free(root);
	return text;
}

static char *print_answer(const struct rpc_id *id, const char *key, struct json *value_take)
{
	struct json *root = json_object();

	json_put_string(root, "jsonrpc", "2.0");
	json_put(root, key, value_take);
	json_put(root, "id", id_json(id));
	return print_and_free(root);
}

char *webgw_print_subscription(const struct rpc_id *id, int64_t subscription)
{
	return print_answer(id, "result", json_integer(subscription));
}

char *webgw_print_telling_subscription(const struct rpc_id *id, int64_t subscription)
{
	struct json *result = json_object();

	json_put_integer(result, "subscription", subscription);
	json_put_boolean(result, "visitor", true);
	return print_answer(id, "result", result);
}

char *webgw_print_unsubscribed(const struct rpc_id *id, bool was_there)
{
	return print_answer(id, "result", json_boolean(was_there));
}

char *webgw_print_prepared(const struct rpc_id *id, uint32_t n, const uint8_t secrets[][WEBGW_EPHEMERAL_LEN],
			   uint16_t listening_port)
{
	char hex[2 * WEBGW_EPHEMERAL_LEN + 1];
	struct json *result = json_object(), *list = json_array();

	for (uint32_t i = 0; i < n; i++) {
		sodium_bin2hex(hex, sizeof(hex), secrets[i], WEBGW_EPHEMERAL_LEN);
		json_append_string(list, hex);
	}
	sodium_memzero(hex, sizeof(hex));
	json_put(result, "secrets", list);
	json_put_integer(result, "serverListeningPort", listening_port);
	return print_answer(id, "result", result);
}

char *webgw_print_error(const struct rpc_id *id, int code, const char *message)
{
	struct json *error = json_object();

	json_put_integer(error, "code", code);
	json_put_string(error, "message", message);
	return print_answer(id, "error", error);
}

static bool has_ip(const struct endpoint *endpoint)
{
	static const uint8_t none[sizeof(endpoint->ip)];

	return memcmp(endpoint->ip, none, sizeof(none)) != 0;
}

bool webgw_visitor_is_whole(const struct webgw_visitor *visitor)
{
	return visitor->from.port != 0 && visitor->to.port != 0 && has_ip(&visitor->from) && has_ip(&visitor->to);
}

/* A link-local one is of a link that the agent does not have. */
static void put_endpoint(struct json *result, const char *key, const struct endpoint *endpoint)
{
	struct endpoint told = *endpoint;

	told.scope_id = 0;
	json_put_string(result, key, endpoint_text(&told).s);
}

char *webgw_print_visit(int64_t subscription, const struct webgw_visit *visit)
{
	char hex[2 * WEBGW_EPHEMERAL_LEN + 1];
	struct json *root = json_object(), *params = json_object(), *result = json_object();

	sodium_bin2hex(hex, sizeof(hex), visit->secret, sizeof(visit->secret));
	json_put_string(result, "secret", hex);
	json_put_integer(result, "port", visit->port);
	json_put_integer(result, "serverListeningPort", visit->listening_port);
	json_put_string(result, "host", visit->host.text);
	if (webgw_visitor_is_whole(&visit->visitor)) {
		put_endpoint(result, "visitor", &visit->visitor.from);
		put_endpoint(result, "visited", &visit->visitor.to);
	}
	json_put_integer(params, "subscription", subscription);
	json_put(params, "result", result);
	json_put_string(root, "jsonrpc", "2.0");
	json_put_string(root, "method", REGISTER);
	json_put(root, "params", params);
	sodium_memzero(hex, sizeof(hex));
	return print_and_free(root);
}

int webgw_hash_read(const char *text, size_t len, uint8_t ret[WEBGW_HASH_LEN])
{
	uint8_t hash[WEBGW_HASH_LEN];
	size_t n = 0;

	if (len != 2 * sizeof(hash) || sodium_hex2bin(hash, sizeof(hash), text, len, NULL, &n, NULL) != 0 ||
	    n != sizeof(hash))
		return -EINVAL;
	memcpy(ret, hash, sizeof(hash));
	return 0;
}

static const char *const balances[] = { [WEBGW_LEAST_CONNECTIONS] = "least-connections", [WEBGW_ROUND_ROBIN] = "round-robin" };

int webgw_balance_read(const char *text, size_t len, enum webgw_balance *ret)
{
	for (enum webgw_balance i = WEBGW_LEAST_CONNECTIONS; i <= WEBGW_ROUND_ROBIN; i++) {
		if (len != strlen(balances[i]) || memcmp(text, balances[i], len) != 0)
			continue;
		*ret = i;
		return 0;
	}
	return -EINVAL;
}

const char *webgw_balance_text(enum webgw_balance balance)
{
	return balances[balance];
}

/* What stands behind the hash. */
static int read_options(const char *text, struct webgw_rule *rule, struct error *reterr)
{
	const size_t skipped = strspn(text, " \t"), len = strlen(text + skipped);
	const char *option = text + skipped;

	if (len == 0)
		return 0;
	if (strncmp(option, BALANCE, strlen(BALANCE)) == 0 &&
	    webgw_balance_read(option + strlen(BALANCE), len - strlen(BALANCE), &rule->balance) == 0)
		return 0;
	return error_set(reterr, -EINVAL, "behind the hash nothing, " BALANCE "least-connections or " BALANCE "round-robin");
}

int webgw_rule_parse(const char *text, struct webgw_rule *ret, struct error *reterr)
{
	const size_t len = strcspn(text, " \t");
	const char *hash = text + len + strspn(text + len, " \t");
	const size_t hash_len = strcspn(hash, " \t");
	struct webgw_rule rule = { 0 };
	int r = host_pattern_from(text, len, &rule.host);

	if (r != 0)
		return error_set(reterr, -EINVAL, "a host such as www.example.com; '%.*s' is none: %s",
				 (int)(len < 80 ? len : 80), text, host_name_error_text(r));
	if (webgw_hash_read(hash, hash_len, rule.hash) != 0)
		return error_set(reterr, -EINVAL, "behind the host the SHA-256 of its secret, 64 hex digits; the secret "
						  "itself does not belong here");
	r = read_options(hash + hash_len, &rule, reterr);
	if (r != 0)
		return r;
	*ret = rule;
	return 0;
}
