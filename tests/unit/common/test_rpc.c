/* JSON-RPC 2.0 messages, and the table of calls that await an answer. docs/PROTOCOL-control.md */
#include "common/rpc.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct json_limits limits = { .max_len = 65536 };

static int parse(const char *text, struct rpc_message *m, enum rpc_code *code)
{
	return rpc_parse(text, strlen(text), &limits, m, code, NULL);
}

static void expect_kind(const char *text, enum rpc_kind kind)
{
	struct rpc_message m;
	enum rpc_code code;

	assert(parse(text, &m, &code) == 0);
	assert(m.kind == kind);
	rpc_message_deinit(&m);
}

static void expect_refused(const char *text, enum rpc_code expected)
{
	struct rpc_message m;
	enum rpc_code code = RPC_BUSY;

	assert(parse(text, &m, &code) != 0);
	assert(code == expected);
}

static void expect_text(char *text, const char *expected)
{
	if (strcmp(text, expected) != 0) {
		fprintf(stderr, "expected: %s\ngot:      %s\n", expected, text);
		abort();
	}
	free(text);
}

static void test_the_four_kinds_are_told_apart(void)
{
	expect_kind("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a.b\",\"params\":{}}", RPC_REQUEST);
	expect_kind("{\"jsonrpc\":\"2.0\",\"id\":\"x\",\"method\":\"a.b\"}", RPC_REQUEST);
	expect_kind("{\"jsonrpc\":\"2.0\",\"method\":\"a.b\"}", RPC_NOTIFICATION);
	expect_kind("{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":null}", RPC_RESULT);
	expect_kind("{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-1,\"message\":\"m\"}}",
		    RPC_ERROR);
	expect_kind("{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":null,\"error\":{\"code\":-1}}",
		    RPC_ERROR);
}

static void test_what_is_no_message_is_refused_with_the_code_to_answer(void)
{
	expect_refused("{", RPC_PARSE_ERROR);
	expect_refused("[]", RPC_INVALID_REQUEST);
	expect_refused("{}", RPC_INVALID_REQUEST);
	expect_refused("{\"jsonrpc\":\"1.0\",\"method\":\"m\"}", RPC_INVALID_REQUEST);
	expect_refused("{\"jsonrpc\":\"2.0\",\"method\":\"\"}", RPC_INVALID_REQUEST);
	expect_refused("{\"jsonrpc\":\"2.0\",\"method\":7}", RPC_INVALID_REQUEST);
	expect_refused("{\"jsonrpc\":\"2.0\",\"method\":\"m\",\"params\":[1]}",
		       RPC_INVALID_REQUEST);
	expect_refused("{\"jsonrpc\":\"2.0\",\"method\":\"m\",\"id\":null}", RPC_INVALID_REQUEST);
	expect_refused("{\"jsonrpc\":\"2.0\",\"method\":\"m\",\"id\":{}}", RPC_INVALID_REQUEST);
	expect_refused("{\"jsonrpc\":\"2.0\",\"method\":\"m\",\"id\":1.5}", RPC_INVALID_REQUEST);
	expect_refused("{\"jsonrpc\":\"2.0\",\"method\":\"m\",\"extra\":1}", RPC_INVALID_REQUEST);
	expect_refused("{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":1,\"error\":{\"code\":1}}",
		       RPC_INVALID_REQUEST);
	expect_refused("{\"jsonrpc\":\"2.0\",\"result\":1}", RPC_INVALID_REQUEST);
	expect_refused("{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"message\":\"no code\"}}",
		       RPC_INVALID_REQUEST);
}

static void test_a_bad_request_keeps_its_id_for_the_answer(void)
{
	struct rpc_message m;
	enum rpc_code code;

	assert(parse("{\"jsonrpc\":\"2.0\",\"id\":42,\"method\":\"\"}", &m, &code) != 0);
	expect_text(rpc_print_error(&m.id, code, NULL),
		    "{\"jsonrpc\":\"2.0\",\"id\":42,\"error\":{\"code\":-32600,"
		    "\"message\":\"the message is not a JSON-RPC 2.0 request\"}}");
}

static void test_messages_print_as_the_standard_shows_them(void)
{
	const struct rpc_id text = { .kind = RPC_ID_TEXT, .text = "a" };
	struct json *params = json_object();

	json_put_integer(params, "n", 1);
	expect_text(
		rpc_print_request(7, "node.hello", params),
		"{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"node.hello\",\"params\":{\"n\":1}}");
	expect_text(rpc_print_notification("map.patch", NULL),
		    "{\"jsonrpc\":\"2.0\",\"method\":\"map.patch\"}");
	expect_text(rpc_print_result(&text, NULL),
		    "{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"result\":{}}");
}

static void test_every_code_has_a_text(void)
{
	for (int code = RPC_REQUEST_BAD; code <= RPC_NOT_AUTHENTICATED; code++)
		assert(strcmp(rpc_code_text((enum rpc_code)code), "an unknown error") != 0);
	assert(*rpc_code_remedy(RPC_JOIN_KEY_USED) != '\0');
}

struct seen {
	int n, last_code; /* 0: a result */
};

static void note(void *owner, const struct json *result, const struct rpc_error *error)
{
	struct seen *seen = owner;

	assert((result != NULL) != (error != NULL));
	seen->n++;
	seen->last_code = error ? error->code : 0;
}

static bool answer(struct rpc_calls *calls, const char *text)
{
	struct rpc_message m;
	enum rpc_code code;

	assert(parse(text, &m, &code) == 0);
	bool taken = rpc_calls_answer(calls, &m);
	rpc_message_deinit(&m);
	return taken;
}

static void test_an_answer_finds_its_call_once(void)
{
	struct rpc_calls calls;
	struct seen seen = { 0 };

	rpc_calls_init(&calls);
	assert(rpc_calls_add(&calls, 100, note, &seen) == 1);
	assert(rpc_calls_add(&calls, 50, note, &seen) == 2);
	assert(rpc_calls_deadline_ms(&calls) == 50);

	assert(answer(&calls, "{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{}}"));
	assert(seen.n == 1 && seen.last_code == 0);
	assert(!answer(&calls, "{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{}}"));
	assert(!answer(&calls, "{\"jsonrpc\":\"2.0\",\"id\":\"1\",\"result\":{}}"));
	assert(!answer(&calls, "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":1}}"));
	assert(answer(&calls, "{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":-32003}}"));
	assert(seen.n == 2 && seen.last_code == RPC_JOIN_KEY_UNKNOWN);
	assert(rpc_calls_deadline_ms(&calls) == 0 && calls.n == 0);
}

static void test_a_call_ends_by_its_deadline(void)
{
	struct rpc_calls calls;
	struct seen seen = { 0 };

	rpc_calls_init(&calls);
	assert(rpc_calls_add(&calls, 100, note, &seen) > 0);
	assert(rpc_calls_add(&calls, 200, note, &seen) > 0);
	rpc_calls_expire(&calls, 99);
	assert(seen.n == 0);
	rpc_calls_expire(&calls, 100);
	assert(seen.n == 1 && seen.last_code == RPC_TIMEOUT);
	rpc_calls_fail_all(&calls, RPC_DISCONNECTED, NULL);
	assert(seen.n == 2 && seen.last_code == RPC_DISCONNECTED);
}

static void test_the_table_is_bounded(void)
{
	struct rpc_calls calls;
	struct seen seen = { 0 };

	rpc_calls_init(&calls);
	for (int i = 0; i < RPC_MAX_CALLS; i++)
		assert(rpc_calls_add(&calls, 1, note, &seen) > 0);
	assert(rpc_calls_add(&calls, 1, note, &seen) == -ENOBUFS);
	rpc_calls_cancel(&calls, 3);
	assert(rpc_calls_add(&calls, 1, note, &seen) > 0);
	assert(seen.n == 0);
}

static struct rpc_calls *again;

static void call_again(void *owner, const struct json *result, const struct rpc_error *error)
{
	assert(rpc_calls_add(again, 0, note, owner) > 0);
}

static void test_a_call_made_by_a_callback_is_not_failed_with_the_old_ones(void)
{
	struct rpc_calls calls;
	struct seen seen = { 0 };

	again = &calls;
	rpc_calls_init(&calls);
	assert(rpc_calls_add(&calls, 0, call_again, &seen) > 0);
	rpc_calls_fail_all(&calls, RPC_DISCONNECTED, NULL);
	assert(seen.n == 0 && calls.n == 1);
}

int main(void)
{
	test_the_four_kinds_are_told_apart();
	test_what_is_no_message_is_refused_with_the_code_to_answer();
	test_a_bad_request_keeps_its_id_for_the_answer();
	test_messages_print_as_the_standard_shows_them();
	test_every_code_has_a_text();
	test_an_answer_finds_its_call_once();
	test_a_call_ends_by_its_deadline();
	test_the_table_is_bounded();
	test_a_call_made_by_a_callback_is_not_failed_with_the_old_ones();
	puts("ok");
}
