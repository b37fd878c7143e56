#include "relay/webgw/agent_wire.h"

#include "common/json.h"
#include "common/wire.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#define MAX_WORD 4096

/* ---- a warm connection is claimed ---- */

static uint8_t kind_of(const struct webgw_start *start)
{
	if (webgw_visitor_is_whole(&start->visitor))
		return start->is_raw ? WEBGW_START_RAW_FROM : WEBGW_START_FROM;
	return start->is_raw ? WEBGW_START_RAW : WEBGW_START;
}

size_t webgw_start_write(const struct webgw_start *start, uint8_t ret[WEBGW_START_MAX])
{
	struct wire_writer w = wire_writer(ret, WEBGW_START_MAX);

	wire_put_u8(&w, kind_of(start));
	wire_put(&w, start->secret, WEBGW_EPHEMERAL_LEN);
	wire_put_u16(&w, start->port);
	wire_put_u8(&w, (uint8_t)start->host.len);
	wire_put(&w, start->host.text, start->host.len);
	if (webgw_visitor_is_whole(&start->visitor)) {
		wire_put_endpoint(&w, &start->visitor.from);
		wire_put_endpoint(&w, &start->visitor.to);
	}
	if (start->is_raw)
		wire_put_u16(&w, start->n_first);
	return wire_written(&w);
}

/* All of it is there. What is not TLS itself never goes without. */
static int read_start(struct wire_reader r, bool is_from, size_t host_len, struct webgw_start *start)
{
	memcpy(start->secret, wire_take(&r, WEBGW_EPHEMERAL_LEN), WEBGW_EPHEMERAL_LEN);
	start->port = wire_u16(&r);
	(void)wire_u8(&r);
	if (host_name_from((const char *)wire_take(&r, host_len), host_len, &start->host) != 0)
		return -EINVAL;
	start->visitor = (struct webgw_visitor){ 0 };
	if (is_from) {
		start->visitor.from = wire_endpoint(&r);
		start->visitor.to = wire_endpoint(&r);
		if (!webgw_visitor_is_whole(&start->visitor))
			return -EINVAL;
	}
	start->n_first = start->is_raw ? wire_u16(&r) : 0;
	return start->is_raw && (start->n_first > WEBGW_FIRST_MAX || start->port != 443) ? -EINVAL : 0;
}

int webgw_start_read(const uint8_t *bytes, size_t n, struct webgw_start *ret)
{
	const size_t fixed = 1 + WEBGW_EPHEMERAL_LEN + 2 + 1;

	if (n > 0 && (bytes[0] < WEBGW_START || bytes[0] > WEBGW_START_RAW_FROM))
		return -EINVAL;
	if (n < fixed)
		return 0;
	const bool is_from = bytes[0] >= WEBGW_START_FROM;
	ret->is_raw = bytes[0] == WEBGW_START_RAW || bytes[0] == WEBGW_START_RAW_FROM;
	const size_t host_len = bytes[fixed - 1];
	const size_t len = fixed + host_len + (is_from ? 2 * ENDPOINT_WIRE_LEN : 0) + (ret->is_raw ? 2 : 0);
	if (n < len)
		return 0;
	return read_start(wire_reader(bytes + 1, len - 1), is_from, host_len, ret) < 0 ? -EINVAL : (int)len;
}

/* ---- what is heard ---- */

static int take_secret(const struct json *hex, uint8_t ret[WEBGW_EPHEMERAL_LEN])
{
	const char *text = json_text(hex);
	size_t n = 0;

	if (!text || strlen(text) != 2 * WEBGW_EPHEMERAL_LEN)
		return -EINVAL;
	return sodium_hex2bin(ret, WEBGW_EPHEMERAL_LEN, text, strlen(text), NULL, &n, NULL) == 0 && n == WEBGW_EPHEMERAL_LEN
		       ? 0
		       : -EINVAL;
}

static int take_port(const struct json *result, uint16_t *ret)
{
	int64_t port;

	if (json_get_integer(result, "serverListeningPort", 1, 65535, &port, NULL) != 0)
		return -EINVAL;
	*ret = (uint16_t)port;
	return 0;
}

/* Whole, or not at all: half of it is nothing that a node says. */
static int take_visitor(const struct json *result, struct webgw_visitor *visitor)
{
	const struct json *from = json_member(result, "visitor"), *to = json_member(result, "visited");

	if (!from && !to)
		return 0;
	if (!json_text(from) || !json_text(to) || endpoint_parse(json_text(from), &visitor->from) != 0 ||
	    endpoint_parse(json_text(to), &visitor->to) != 0)
		return -EINVAL;
	return webgw_visitor_is_whole(visitor) ? 0 : -EINVAL;
}

static void take_host(const struct json *result, struct host_name *host)
{
	const char *name = json_text(json_member(result, "host"));

	if (!name || host_name_from(name, strlen(name), host) != 0)
		*host = (struct host_name){ 0 };
}

static int take_visit(const struct json *params, struct webgw_word *word)
{
	const struct json *result = json_member(params, "result");
	int64_t port;

	word->kind = WEBGW_WORD_VISIT;
	if (!json_is_object(params) || !json_is_object(result) ||
	    json_get_integer(params, "subscription", 1, WEBGW_MAX_SUBSCRIPTION, &word->subscription, NULL) != 0 ||
	    take_port(result, &word->listening_port) != 0 || take_visitor(result, &word->visitor) != 0)
		return -EINVAL;
	if (json_integer_value(json_member(result, "port"), 1, 65535, &port) == 0)
		word->port = (uint16_t)port;
	take_host(result, &word->host);
	return take_secret(json_member(result, "secret"), word->secret);
}

static int take_secrets(const struct json *result, struct webgw_word *word)
{
	const struct json *secrets = json_member(result, "secrets");

	word->kind = WEBGW_WORD_SECRETS;
	if (!json_is_array(secrets) || json_length(secrets) > WEBGW_PREPARE_MAX || take_port(result, &word->listening_port) != 0)
		return -EINVAL;
	for (const struct json *i = json_first(secrets); i; i = json_next(i))
		if (take_secret(i, word->secrets[word->n++]) != 0)
			return -EINVAL;
	return 0;
}

static int take_error(const struct json *error, struct webgw_word *word)
{
	const char *text;

	word->kind = WEBGW_WORD_REFUSED;
	if (!json_is_object(error) || json_get_integer(error, "code", INT32_MIN, INT32_MAX, &word->code, NULL) != 0 ||
	    json_get_string(error, "message", &text, NULL) != 0)
		return -EINVAL;
	snprintf(word->text, sizeof(word->text), "%s", text);
	return 0;
}

static int take_telling(const struct json *result, struct webgw_word *word)
{
	word->kind = WEBGW_WORD_SUBSCRIBED;
	if (json_get_integer(result, "subscription", 1, WEBGW_MAX_SUBSCRIPTION, &word->subscription, NULL) != 0)
		return -EINVAL;
	return json_get_boolean_or(result, "visitor", false, &word->tells_visitors, NULL) != 0 ? -EINVAL : 0;
}

static int take_answer(const struct json *root, struct webgw_word *word)
{
	const struct json *result = json_member(root, "result"), *error = json_member(root, "error");

	if (json_integer_value(json_member(root, "id"), 0, WEBGW_MAX_SUBSCRIPTION, &word->id) != 0)
		return 0; /* not of ours */
	if (error)
		return take_error(error, word);
	if (json_is_object(result))
		return json_member(result, "subscription") ? take_telling(result, word) : take_secrets(result, word);
	if (!result || json_integer_value(result, 1, WEBGW_MAX_SUBSCRIPTION, &word->subscription) != 0)
		return 0; /* true: unsubscribed */
	word->kind = WEBGW_WORD_SUBSCRIBED;
	return 0;
}

static int take_word(const struct json *root, struct webgw_word *word)
{
	if (!json_is_object(root))
		return -EINVAL;
	if (json_member(root, "id"))
		return take_answer(root, word);
	return json_is_object(json_member(root, "params")) ? take_visit(json_member(root, "params"), word) : 0;
}

int webgw_word_read(const char *text, size_t len, struct webgw_word *ret)
{
	const struct json_limits limits = { .max_len = MAX_WORD, .max_depth = 4, .max_members = 64 };
	struct json *root = NULL;

	memset(ret, 0, sizeof(*ret));
	if (json_parse(text, len, &limits, &root, NULL) != 0)
		return -EINVAL;
	const int r = take_word(root, ret);
	json_free(root);
	return r;
}

/* ---- what is said ---- */

static char *print_request(int64_t id, const char *method, struct json *params_take)
{
	struct json *root = json_object();

	json_put_string(root, "jsonrpc", "2.0");
	json_put_string(root, "method", method);
	json_put(root, "params", params_take);
	json_put_integer(root, "id", id);
	char *text = json_print(root);
	json_free(root);
	return text;
}

char *webgw_print_register(int64_t id, const struct host_pattern *host, const char *hex_secret, bool wants_visitors)
{
	char name[HOST_NAME_MAX_LEN + 3];
	struct json *params = json_object();

	snprintf(name, sizeof(name), "%s%s", host->is_wildcard ? "*." : "", host->name.text);
	json_put_string(params, "host", name);
	if (hex_secret)
		json_put_string(params, "hex_secret", hex_secret);
	if (wants_visitors)
		json_put_boolean(params, "visitor", true);
	return print_request(id, "webgw_registerClient", params);
}

char *webgw_print_unregister(int64_t id, int64_t subscription)
{
	struct json *params = json_object();

	json_put_integer(params, "subscription", subscription);
	return print_request(id, "webgw_unregisterClient", params);
}

char *webgw_print_prepare(int64_t id, int64_t subscription, uint32_t count)
{
	struct json *params = json_object();

	json_put_integer(params, "subscription", subscription);
	json_put_integer(params, "count", count);
	return print_request(id, "webgw_prepare", params);
}
