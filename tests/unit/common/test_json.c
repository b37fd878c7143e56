/*
 * The strict JSON wrapper: what it lets in means the same to every reader, what it prints it reads
 * again, and its getters say what was wrong. test_json_oracle.c asks another parser about the same
 * rows.
 */
#include "common/json.h"
#include "tests/unit/common/json_rows.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct json_limits limits = { .max_len = 1 << 20 };

static bool accepts(const char *text, size_t len)
{
	struct json *json = NULL;
	struct error err = { 0 };
	char *copy = malloc(len ? len : 1); /* exactly this long: a read past the end is seen */
	assert(copy);
	memcpy(copy, text, len);
	int r = json_parse(copy, len, &limits, &json, &err);

	assert(r == 0 || (r == -EINVAL && strstr(err.message, "not valid JSON")));
	json_free(json);
	free(copy);
	return r == 0;
}

static void test_only_strict_json_is_accepted(void)
{
	for (size_t i = 0; i < sizeof(json_rows) / sizeof(*json_rows); i++) {
		if (accepts(json_rows[i].text, json_rows[i].len) == json_rows[i].accepted)
			continue;
		fprintf(stderr, "row %zu: %s\n", i, json_rows[i].text);
		abort();
	}
}

static struct json *parsed(const char *text)
{
	struct json *json = NULL;

	assert(json_parse(text, strlen(text), &limits, &json, NULL) == 0);
	return json;
}

static void expect_text(char *text, const char *expected)
{
	if (strcmp(text, expected) != 0) {
		fprintf(stderr, "expected: %s\ngot:      %s\n", expected, text);
		abort();
	}
	free(text);
}

static void test_errors_say_where(void)
{
	struct json *json = NULL;
	struct error err;
	const char *text = "{\n  \"a\": tru\n}";

	assert(json_parse(text, strlen(text), &limits, &json, &err) == -EINVAL);
	assert(strcmp(err.message, "not valid JSON: not a JSON value (line 2, column 8)") == 0);
	assert(!json);
}

static void test_limits_hold(void)
{
	const struct json_limits small = { .max_len = 20, .max_depth = 2, .max_members = 3 };
	struct json *json = NULL;

	assert(json_parse(TEXT("[1,2,3]"), &small, &json, NULL) == 0);
	json_freep(&json);
	assert(json_parse(TEXT("[1,2,3,4]"), &small, &json, NULL) == -EINVAL);
	assert(json_parse(TEXT("[[[1]]]"), &small, &json, NULL) == -EINVAL);
	assert(json_parse(TEXT("\"aaaaaaaaaaaaaaaaaaa\""), &small, &json, NULL) == -EFBIG);
}

static void test_what_is_made_prints_compactly_and_is_read_again(void)
{
	struct json *json = json_object(), *list = json_array();

	json_put_string(json, "s", "a\"\\\n\xc3\xa4");
	json_put_string(json, "bad", "x\xff\xc0y");
	json_put_integer(json, "i", -999999999999999);
	json_put_u64(json, "u", UINT64_MAX);
	json_put_number(json, "n", 0.25);
	json_put_boolean(json, "b", true);
	json_append_string(list, "one");
	json_append(list, json_null());
	json_put(json, "l", list);
	char *text = json_print(json);
	struct json *again = parsed(text);
	expect_text(json_print(again), text);
	expect_text(text,
		    "{\"s\":\"a\\\"\\\\\\n\xc3\xa4\",\"bad\":\"x??y\",\"i\":-999999999999999,"
		    "\"u\":\"18446744073709551615\",\"n\":0.25,\"b\":true,\"l\":[\"one\",null]}");
	json_free(again);
	json_free(json);
}

static void test_getters_take_what_fits(void)
{
	struct json *json = parsed("{\"s\":\"x\",\"i\":7,\"u\":\"18446744073709551615\",\"b\":true,"
				   "\"o\":{},\"a\":[1,2],\"z\":null}");
	const struct json *inner;
	const char *s;
	int64_t i;
	uint64_t u;
	bool b;

	assert(json_get_string(json, "s", &s, NULL) == 0 && strcmp(s, "x") == 0);
	assert(json_get_string_or(json, "z", "d", &s, NULL) == 0 && strcmp(s, "d") == 0);
	assert(json_get_integer(json, "i", 7, 7, &i, NULL) == 0 && i == 7);
	assert(json_get_integer_or(json, "none", 0, 1, 5, &i, NULL) == 0 && i == 5);
	assert(json_get_u64(json, "u", &u, NULL) == 0 && u == UINT64_MAX);
	assert(json_get_boolean_or(json, "b", false, &b, NULL) == 0 && b);
	assert(json_get_object(json, "o", &inner, NULL) == 0 && json_length(inner) == 0);
	assert(json_get_array(json, "a", &inner, NULL) == 0 && json_length(inner) == 2);
	json_free(json);
}

static void expect_refusal(int r, const struct error *err, const char *message)
{
	assert(r == -EINVAL);
	if (strcmp(err->message, message) != 0) {
		fprintf(stderr, "expected: %s\ngot:      %s\n", message, err->message);
		abort();
	}
}

static void test_getters_name_what_is_wrong(void)
{
	struct json *json = parsed(
		"{\"s\":\"x\",\"i\":1.5,\"u\":\"18446744073709551616\",\"v\":\"007\",\"n\":3}");
	static const char *const known[] = { "s", "i", "u", "v", NULL };
	const struct json *inner;
	struct public_key key;
	struct error err;
	const char *s;
	int64_t i;
	uint64_t u;
	bool b;

	expect_refusal(json_get_string(json, "q", &s, &err), &err, "member 'q': missing");
	expect_refusal(json_get_string(json, "i", &s, &err), &err, "member 'i': must be a string");
	expect_refusal(json_get_integer(json, "i", 0, 9, &i, &err), &err,
		       "member 'i': must be an integer");
	expect_refusal(json_get_integer(json, "n", 4, 9, &i, &err), &err,
		       "member 'n': must be from 4 to 9");
	expect_refusal(json_get_u64(json, "u", &u, &err), &err,
		       "member 'u': must be a decimal number in a string");
	expect_refusal(json_get_u64(json, "v", &u, &err), &err,
		       "member 'v': must be a decimal number in a string");
	expect_refusal(json_get_boolean_or(json, "s", true, &b, &err), &err,
		       "member 's': must be true or false");
	expect_refusal(json_get_array(json, "s", &inner, &err), &err,
		       "member 's': must be an array");
	expect_refusal(json_get_public_key(json, "s", &key, &err), &err,
		       "member 's': must be a key (base64, 44 characters)");
	expect_refusal(json_only_members(json, known, &err), &err, "member 'n': not known here");
	json_free(json);
}

static void test_names_are_told_apart_by_case(void)
{
	struct json *json = parsed("{\"Name\":1}");

	assert(json_member(json, "Name") && !json_member(json, "name"));
	json_free(json);
}

int main(void)
{
	test_only_strict_json_is_accepted();
	test_errors_say_where();
	test_limits_hold();
	test_what_is_made_prints_compactly_and_is_read_again();
	test_getters_take_what_fits();
	test_getters_name_what_is_wrong();
	test_names_are_told_apart_by_case();
	puts("ok");
}
