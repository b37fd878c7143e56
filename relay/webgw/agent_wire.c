#include "relay/webgw/agent_wire.h"

#include "common/json.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#define MAX_WORD 4096

/* ---- a warm connection is claimed ---- */

size_t webgw_start_write(const struct webgw_start *start, uint8_t ret[WEBGW_START_MAX])
{
	uint8_t *at = ret;

	*at++ = start->is_raw ? WEBGW_START_RAW : WEBGW_START;
	memcpy(at, start->secret, WEBGW_EPHEMERAL_LEN);
	at += WEBGW_EPHEMERAL_LEN;
	*at++ = (uint8_t)(start->port >> 8);
	*at++ = (uint8_t)start->port;
	*at++ = (uint8_t)start->host.len;
	memcpy(at, start->host.text, start->host.len);
	at += start->host.len;
	if (start->is_raw) {
		*at++ = (uint8_t)(start->n_first >> 8);
		*at++ = (uint8_t)start->n_first;
	}
	return (size_t)(at - ret);
}

/* What is not TLS itself never goes without. */
static int read_n_first(const uint8_t at[2], size_t before, struct webgw_start *start)
{
	start->n_first = (uint16_t)(at[0] << 8 | at[1]);
	return start->n_first > WEBGW_FIRST_MAX || start->port != 443 ? -EINVAL : (int)before + 2;
}

int webgw_start_read(const uint8_t *bytes, size_t n, struct webgw_start *ret)
{
	const size_t fixed = 1 + WEBGW_EPHEMERAL_LEN + 2 + 1;

	if (n > 0 && bytes[0] != WEBGW_START && bytes[0] != WEBGW_START_RAW)
		return -EINVAL;
	if (n < fixed)
		return 0;
	const size_t len = bytes[fixed - 1];
	ret->is_raw = bytes[0] == WEBGW_START_RAW;
	if (n < fixed + len + (ret->is_raw ? 2 : 0))
		return 0;
	memcpy(ret->secret, bytes + 1, WEBGW_EPHEMERAL_LEN);
	ret->port = (uint16_t)(bytes[fixed - 3] << 8 | bytes[fixed - 2]);
	if (host_name_from((const char *)bytes + fixed, len, &ret->host) != 0)
		return -EINVAL;
	ret->n_first = 0;
	return ret->is_raw ? read_n_first(bytes + fixed + len, fixed + len, ret) : (int)(fixed + len);
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

static int take_visit(const struct json *params, struct webgw_word *word)
{
	const struct json *result = json_member(params, "result");
	int64_t port;

	word->kind = WEBGW_WORD_VISIT;
	if (!json_is_object(params) || !json_is_object(result) ||
	    json_get_integer(params, "subscription", 1, WEBGW_MAX_SUBSCRIPTION, &word->subscription, NULL) != 0 ||
	    take_port(result, &word->listening_port) != 0)
		return -EINVAL;
	if (json_integer_value(json_member(result, "port"), 1, 65535, &port) == 0)
		word->port = (uint16_t)port;
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

static int take_answer(const struct json *root, struct webgw_word *word)
{
	const struct json *result = json_member(root, "result"), *error = json_member(root, "error");

	if (json_integer_value(json_member(root, "id"), 0, WEBGW_MAX_SUBSCRIPTION, &word->id) != 0)
		return 0; /* not of ours */
	if (error)
		return take_error(error, word);
	if (json_is_object(result))
		return take_secrets(result, word);
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

char *webgw_print_register(int64_t id, const struct host_pattern *host, const char *hex_secret)
{
	char name[HOST_NAME_MAX_LEN + 3];
	struct json *params = json_object();

	snprintf(name, sizeof(name), "%s%s", host->is_wildcard ? "*." : "", host->name.text);
	json_put_string(params, "host", name);
	if (hex_secret)
		json_put_string(params, "hex_secret", hex_secret);
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
