#include "common/rpc.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct code {
	enum rpc_code code;
	const char *text, *remedy;
} codes[] = {
	{ RPC_PARSE_ERROR, "the message is not valid JSON", "" },
	{ RPC_INVALID_REQUEST, "the message is not a JSON-RPC 2.0 request", "" },
	{ RPC_METHOD_NOT_FOUND, "there is no such method",
	  "both sides may be of different versions" },
	{ RPC_INVALID_PARAMS, "the parameters are wrong", "" },
	{ RPC_INTERNAL_ERROR, "something failed inside", "the log of the other side says what" },
	{ RPC_NOT_AUTHENTICATED, "who is asking is not known",
	  "join the network first, or log in as an admin" },
	{ RPC_NOT_PERMITTED, "this is not allowed to whom is asking", "" },
	{ RPC_JOIN_KEY_UNKNOWN, "the join key is not known",
	  "check that the link is complete, or ask the admin for a new one (p2pctl admin key "
	  "create)" },
	{ RPC_JOIN_KEY_EXPIRED, "the join key has expired",
	  "ask the admin for a new one (p2pctl admin key create)" },
	{ RPC_JOIN_KEY_USED, "the join key has been used already",
	  "ask the admin for a new one (p2pctl admin key create)" },
	{ RPC_JOIN_KEY_REVOKED, "the join key has been revoked",
	  "ask the admin for a new one (p2pctl admin key create)" },
	{ RPC_PROOF_WRONG, "possession of the node key was not shown", "join again" },
	{ RPC_NOT_A_MEMBER, "this node is not a member of the network",
	  "it was removed or has expired: join again with a new link" },
	{ RPC_NAME_INVALID, "the name is not valid",
	  "use 1 to 63 of the characters a-z, 0-9 and -, no - at either end" },
	{ RPC_NAME_TAKEN, "another node has this name", "choose another one" },
	{ RPC_ADDRESSES_EXHAUSTED, "the network has no free address left",
	  "remove nodes that are no longer used" },
	{ RPC_NOT_FOUND, "there is no such thing", "" },
	{ RPC_TOKEN_UNKNOWN, "the admin token is not known",
	  "use the network's current admin file" },
	{ RPC_BUSY, "a limit is reached", "try again later" },
	{ RPC_TIMEOUT, "there was no answer in time",
	  "check that the other side runs, then try again" },
	{ RPC_DISCONNECTED, "the connection ended before the answer", "try again" },
	{ RPC_UNAVAILABLE, "this cannot be done in the present state", "" },
	{ RPC_ALREADY, "this has been done already", "" },
	{ RPC_REQUEST_BAD, "the certificate request cannot be signed", "" },
};

static const struct code *find_code(int code)
{
	for (size_t i = 0; i < ARRAY_LEN(codes); i++)
		if ((int)codes[i].code == code)
			return &codes[i];
	return NULL;
}

const char *rpc_code_text(enum rpc_code code)
{
	const struct code *c = find_code((int)code);

	return c ? c->text : "an unknown error";
}

const char *rpc_code_remedy(enum rpc_code code)
{
	const struct code *c = find_code((int)code);

	return c ? c->remedy : "";
}

struct rpc_error rpc_error_make(enum rpc_code code, const char *format, ...)
{
	struct rpc_error error = { .code = (int)code };
	va_list args;

	va_start(args, format);
	vsnprintf(error.message, sizeof(error.message), format, args);
	va_end(args);
	return error;
}

/* Parsing */

static int parse_id(const struct json *root, struct rpc_id *ret, struct error *reterr)
{
	const struct json *id = json_member(root, "id");
	const char *text = json_text(id);
	int64_t number;

	*ret = (struct rpc_id){ .kind = RPC_ID_NONE };
	if (!id || json_is_null(id))
		return 0;
	if (text) {
		if (strlen(text) > RPC_MAX_ID)
			return error_set(reterr, -EINVAL, "member 'id': longer than %d",
					 RPC_MAX_ID);
		*ret = (struct rpc_id){ .kind = RPC_ID_TEXT };
		memcpy(ret->text, text, strlen(text));
		return 0;
	}
	int r = json_get_integer(root, "id", INT64_MIN, INT64_MAX, &number, reterr);
	if (r == 0)
		*ret = (struct rpc_id){ .kind = RPC_ID_NUMBER, .number = number };
	return r;
}

static int parse_call(struct rpc_message *m, struct error *reterr)
{
	static const char *const known[] = { "jsonrpc", "id", "method", "params", NULL };
	const struct json *params = json_member(m->root, "params");
	const char *method;
	int r = json_only_members(m->root, known, reterr);

	if (r == 0)
		r = json_get_string(m->root, "method", &method, reterr);
	if (r != 0)
		return r;
	if (strlen(method) == 0 || strlen(method) > RPC_MAX_METHOD)
		return error_set(reterr, -EINVAL, "member 'method': must have 1 to %d characters",
				 RPC_MAX_METHOD);
	if (params && !json_is_object(params) && !json_is_null(params))
		return error_set(reterr, -EINVAL, "member 'params': must be an object");
	memcpy(m->method, method, strlen(method) + 1);
	m->params = json_is_object(params) ? params : NULL;
	m->kind = json_member(m->root, "id") ? RPC_REQUEST : RPC_NOTIFICATION;
	if (m->kind == RPC_REQUEST && m->id.kind == RPC_ID_NONE)
		return error_set(reterr, -EINVAL, "member 'id': must be a number or a string");
	return 0;
}

static int parse_error(struct rpc_message *m, struct error *reterr)
{
	const struct json *object;
	const char *message;
	int64_t code;
	int r = json_get_object(m->root, "error", &object, reterr);

	if (r == 0)
		r = json_get_integer(object, "code", INT32_MIN, INT32_MAX, &code, reterr);
	if (r == 0)
		r = json_get_string_or(object, "message", "", &message, reterr);
	if (r != 0)
		return r;
	m->kind = RPC_ERROR;
	m->error.code = (int)code;
	snprintf(m->error.message, sizeof(m->error.message), "%s", message);
	return 0;
}

static int parse_answer(struct rpc_message *m, struct error *reterr)
{
	static const char *const known[] = { "jsonrpc", "id", "result", "error", NULL };
	bool has_error =
		json_member(m->root, "error") && !json_is_null(json_member(m->root, "error"));
	int r = json_only_members(m->root, known, reterr);

	m->result = json_member(m->root, "result");
	if (r == 0 && has_error == (m->result != NULL && !json_is_null(m->result)) && has_error)
		r = error_set(reterr, -EINVAL, "both 'result' and 'error'");
	if (r == 0 && has_error)
		return parse_error(m, reterr);
	if (r == 0 && !m->result)
		r = error_set(reterr, -EINVAL, "neither 'method', 'result' nor 'error'");
	if (r == 0 && m->id.kind == RPC_ID_NONE)
		r = error_set(reterr, -EINVAL, "member 'id': missing");
	m->kind = RPC_RESULT;
	return r;
}

static int parse_root(struct rpc_message *m, struct error *reterr)
{
	const char *version;

	if (!json_is_object(m->root))
		return error_set(reterr, -EINVAL,
				 "a message must be an object (batches are not spoken)");
	int r = parse_id(m->root, &m->id, reterr);
	if (r == 0)
		r = json_get_string(m->root, "jsonrpc", &version, reterr);
	if (r == 0 && strcmp(version, "2.0") != 0)
		r = error_set(reterr, -EINVAL, "member 'jsonrpc': must be \"2.0\"");
	if (r != 0)
		return r;
	return json_member(m->root, "method") ? parse_call(m, reterr) : parse_answer(m, reterr);
}

int rpc_parse(const char *text, size_t len, const struct json_limits *limits,
	      struct rpc_message *ret, enum rpc_code *reterr_code, struct error *reterr)
{
	*ret = (struct rpc_message){ .id = { .kind = RPC_ID_NONE } };
	int r = json_parse(text, len, limits, &ret->root, reterr);
	if (r != 0) {
		*reterr_code = RPC_PARSE_ERROR;
		return r;
	}
	r = parse_root(ret, reterr);
	if (r != 0) {
		*reterr_code = RPC_INVALID_REQUEST;
		json_freep(&ret->root);
	}
	return r;
}

void rpc_message_deinit(struct rpc_message *message)
{
	json_freep(&message->root);
}

/* Printing */

static struct json *envelope(void)
{
	struct json *root = json_object();

	json_put_string(root, "jsonrpc", "2.0");
	return root;
}

static char *print_and_free(struct json *root)
{
	char *text = json_print(root);

	json_free(root);
	return text;
}

static void put_id(struct json *root, const struct rpc_id *id)
{
	switch (id->kind) {
	case RPC_ID_NONE:
		json_put(root, "id", json_null());
		break;
	case RPC_ID_NUMBER:
		json_put_integer(root, "id", id->number);
		break;
	case RPC_ID_TEXT:
		json_put_string(root, "id", id->text);
		break;
	}
}

char *rpc_print_request(int64_t id, const char *method, struct json *params_take)
{
	struct json *root = envelope();

	json_put_integer(root, "id", id);
	json_put_string(root, "method", method);
	if (params_take)
		json_put(root, "params", params_take);
	return print_and_free(root);
}

char *rpc_print_notification(const char *method, struct json *params_take)
{
	struct json *root = envelope();

	json_put_string(root, "method", method);
	if (params_take)
		json_put(root, "params", params_take);
	return print_and_free(root);
}

char *rpc_print_result(const struct rpc_id *id, struct json *result_take)
{
	struct json *root = envelope();

	put_id(root, id);
	json_put(root, "result", result_take ? result_take : json_object());
	return print_and_free(root);
}

char *rpc_print_error(const struct rpc_id *id, int code, const char *message)
{
	struct json *root = envelope(), *error = json_object();

	put_id(root, id);
	json_put_integer(error, "code", code);
	json_put_string(error, "message", message ? message : rpc_code_text((enum rpc_code)code));
	json_put(root, "error", error);
	return print_and_free(root);
}

/* Pending calls */

void rpc_calls_init(struct rpc_calls *calls)
{
	*calls = (struct rpc_calls){ 0 };
}

int64_t rpc_calls_add(struct rpc_calls *calls, uint64_t deadline_ms, rpc_answer_cb cb, void *owner)
{
	for (size_t i = 0; i < RPC_MAX_CALLS; i++) {
		struct rpc_call *call = &calls->calls[i];
		if (call->id != 0)
			continue;
		*call = (struct rpc_call){ ++calls->last_id, deadline_ms, cb, owner };
		calls->n++;
		return call->id;
	}
	return -ENOBUFS;
}

static struct rpc_call *find_call(struct rpc_calls *calls, int64_t id)
{
	for (size_t i = 0; i < RPC_MAX_CALLS; i++)
		if (calls->calls[i].id == id && id != 0)
			return &calls->calls[i];
	return NULL;
}

/* Frees the slot first: the callback may add calls. */
static void finish(struct rpc_calls *calls, struct rpc_call *call, const struct json *result,
		   const struct rpc_error *error)
{
	struct rpc_call done = *call;

	*call = (struct rpc_call){ 0 };
	calls->n--;
	done.cb(done.owner, result, error);
}

bool rpc_calls_answer(struct rpc_calls *calls, const struct rpc_message *answer)
{
	struct rpc_call *call =
		answer->id.kind == RPC_ID_NUMBER ? find_call(calls, answer->id.number) : NULL;

	if (!call || (answer->kind != RPC_RESULT && answer->kind != RPC_ERROR))
		return false;
	if (answer->kind == RPC_RESULT)
		finish(calls, call, answer->result, NULL);
	else
		finish(calls, call, NULL, &answer->error);
	return true;
}

void rpc_calls_cancel(struct rpc_calls *calls, int64_t id)
{
	struct rpc_call *call = find_call(calls, id);

	if (!call)
		return;
	*call = (struct rpc_call){ 0 };
	calls->n--;
}

uint64_t rpc_calls_deadline_ms(const struct rpc_calls *calls)
{
	uint64_t earliest = 0;

	for (size_t i = 0; i < RPC_MAX_CALLS; i++) {
		const struct rpc_call *call = &calls->calls[i];
		if (call->id != 0 && (earliest == 0 || call->deadline_ms < earliest))
			earliest = call->deadline_ms;
	}
	return earliest;
}

static void fail_until(struct rpc_calls *calls, uint64_t until_ms, const struct rpc_error *error)
{
	int64_t newest = calls->last_id; /* not those that a callback adds */

	for (size_t i = 0; i < RPC_MAX_CALLS; i++) {
		struct rpc_call *call = &calls->calls[i];
		if (call->id != 0 && call->id <= newest && call->deadline_ms <= until_ms)
			finish(calls, call, NULL, error);
	}
}

void rpc_calls_expire(struct rpc_calls *calls, uint64_t now_ms)
{
	struct rpc_error error = rpc_error_make(RPC_TIMEOUT, "%s", rpc_code_text(RPC_TIMEOUT));

	fail_until(calls, now_ms, &error);
}

void rpc_calls_fail_all(struct rpc_calls *calls, enum rpc_code code, const char *message)
{
	struct rpc_error error =
		rpc_error_make(code, "%s", message ? message : rpc_code_text(code));

	fail_until(calls, UINT64_MAX, &error);
}
