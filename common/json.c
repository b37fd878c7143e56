/*
 * The strict wrapper: a validator reads the bytes first and lets through only what means the same
 * to every JSON reader; then cJSON builds the tree; then one walk over the tree refuses duplicate
 * keys (decoded by then, so that "a" and "\u0061" are seen as one). A struct json is a cJSON.
 */
#include "common/json.h"

#include <assert.h>
#include <cjson/cJSON.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_DEPTH    32
#define MAX_DEPTH        256 /* the validator recurses */
#define DEFAULT_MEMBERS  65536
#define MAX_DIGITS       15
#define MAX_NUMBER_CHARS 60
#define NUMBER_BOUND     1e15

/* The validator. It says nothing about values, only whether the text is allowed. */

struct scan {
	const char *base, *at, *end;
	size_t max_depth, max_members, depth;
	const char *why; /* set: refused, at `at` */
};

static bool refuse(struct scan *s, const char *why)
{
	if (!s->why)
		s->why = why;
	return false;
}

static int peek(const struct scan *s)
{
	return s->at < s->end ? (unsigned char)*s->at : -1;
}

static void skip_space(struct scan *s)
{
	while (s->at < s->end &&
	       (*s->at == ' ' || *s->at == '\t' || *s->at == '\n' || *s->at == '\r'))
		s->at++;
}

static bool scan_word(struct scan *s, const char *word)
{
	size_t n = strlen(word);

	if ((size_t)(s->end - s->at) < n || memcmp(s->at, word, n) != 0)
		return refuse(s, "not a JSON value");
	s->at += n;
	return true;
}

static bool scan_digits(struct scan *s, size_t *n)
{
	const char *from = s->at;

	while (s->at < s->end && *s->at >= '0' && *s->at <= '9')
		s->at++;
	*n = (size_t)(s->at - from);
	return *n > 0 || refuse(s, "a digit is missing");
}

static bool scan_fraction_and_exponent(struct scan *s, bool *is_integer)
{
	size_t n;

	*is_integer = true;
	if (peek(s) == '.') {
		*is_integer = false;
		s->at++;
		if (!scan_digits(s, &n))
			return false;
	}
	if (peek(s) == 'e' || peek(s) == 'E') {
		*is_integer = false;
		s->at++;
		if (peek(s) == '+' || peek(s) == '-')
			s->at++;
		if (!scan_digits(s, &n))
			return false;
	}
	return true;
}

static bool scan_number(struct scan *s)
{
	char copy[MAX_NUMBER_CHARS + 1];
	const char *from = s->at;
	bool is_integer;
	size_t digits;

	if (peek(s) == '-')
		s->at++;
	bool zero = peek(s) == '0';
	if (!scan_digits(s, &digits))
		return false;
	if (zero && digits > 1)
		return refuse(s, "a number must not begin with 0");
	if (!scan_fraction_and_exponent(s, &is_integer))
		return false;

	size_t len = (size_t)(s->at - from);
	if (is_integer && digits > MAX_DIGITS)
		return refuse(s, "an integer of more than 15 digits (send it as a string)");
	if (len > MAX_NUMBER_CHARS)
		return refuse(s, "a number of more than 60 characters");
	memcpy(copy, from, len);
	copy[len] = '\0';
	/* Larger ones would be printed again as integers that other readers refuse. */
	return fabs(strtod(copy, NULL)) < NUMBER_BOUND || refuse(s, "a number of 10^15 or more");
}

/*
 * The length of the UTF-8 sequence at p, or 0 when it is not one (overlong, surrogate, too large,
 * cut).
 */
static size_t utf8_sequence(const unsigned char *p, size_t left)
{
	unsigned char b = p[0];

	if (b < 0x80)
		return 1;
	size_t n = b >= 0xc2 && b <= 0xdf   ? 2
		   : b >= 0xe0 && b <= 0xef ? 3
		   : b >= 0xf0 && b <= 0xf4 ? 4
					    : 0;
	if (n == 0 || left < n)
		return 0;
	for (size_t i = 1; i < n; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	if ((b == 0xe0 && p[1] < 0xa0) || (b == 0xed && p[1] > 0x9f) ||
	    (b == 0xf0 && p[1] < 0x90) || (b == 0xf4 && p[1] > 0x8f))
		return 0;
	return n;
}

/* Four hex digits behind \u; -1 when they are not. */
static int32_t scan_hex4(struct scan *s)
{
	int32_t value = 0;

	for (int i = 0; i < 4; i++) {
		int c = peek(s);
		int digit = c >= '0' && c <= '9'   ? c - '0'
			    : c >= 'a' && c <= 'f' ? c - 'a' + 10
			    : c >= 'A' && c <= 'F' ? c - 'A' + 10
						   : -1;
		if (digit < 0)
			return -1;
		value = value << 4 | digit;
		s->at++;
	}
	return value;
}

static bool scan_unicode_escape(struct scan *s)
{
	int32_t unit = scan_hex4(s);

	if (unit < 0)
		return refuse(s, "\\u without four hex digits");
	if (unit == 0)
		return refuse(s, "\\u0000 is not accepted");
	if (unit >= 0xdc00 && unit <= 0xdfff)
		return refuse(s, "half of a surrogate pair");
	if (unit < 0xd800 || unit > 0xdbff)
		return true;
	if (s->end - s->at < 2 || s->at[0] != '\\' || s->at[1] != 'u')
		return refuse(s, "half of a surrogate pair");
	s->at += 2;
	unit = scan_hex4(s);
	return (unit >= 0xdc00 && unit <= 0xdfff) || refuse(s, "half of a surrogate pair");
}

static bool scan_escape(struct scan *s)
{
	int c = peek(s);

	if (c < 0 || !strchr("\"\\/bfnrtu", c) || c == 0)
		return refuse(s, "an unknown escape");
	s->at++;
	return c != 'u' || scan_unicode_escape(s);
}

static bool scan_string(struct scan *s)
{
	if (peek(s) != '"')
		return refuse(s, "a string must stand here");
	s->at++;
	while (s->at < s->end) {
		unsigned char c = (unsigned char)*s->at;
		if (c < 0x20)
			return refuse(s, "a control character in a string");
		if (c == '"') {
			s->at++;
			return true;
		}
		if (c == '\\') {
			s->at++;
			if (!scan_escape(s))
				return false;
			continue;
		}
		size_t n = utf8_sequence((const unsigned char *)s->at, (size_t)(s->end - s->at));
		if (n == 0)
			return refuse(s, "not UTF-8");
		s->at += n;
	}
	return refuse(s, "a string without end");
}

static bool scan_value(struct scan *s);

static bool scan_member(struct scan *s, bool with_key)
{
	if (with_key) {
		skip_space(s);
		if (!scan_string(s))
			return false;
		skip_space(s);
		if (peek(s) != ':')
			return refuse(s, "a colon must stand here");
		s->at++;
	}
	return scan_value(s);
}

/* An object or an array, from behind its opening bracket. */
static bool scan_members(struct scan *s, bool with_key, char close)
{
	size_t n = 0;

	if (++s->depth > s->max_depth)
		return refuse(s, "nested too deeply");
	skip_space(s);
	if (peek(s) == close) {
		s->at++;
		s->depth--;
		return true;
	}
	for (;;) {
		if (++n > s->max_members)
			return refuse(s, "too many members");
		if (!scan_member(s, with_key))
			return false;
		skip_space(s);
		int c = peek(s);
		if (c != ',' && c != close)
			return refuse(s, c < 0 ? "the text ends too early"
					       : "a comma or an end must stand here");
		s->at++;
		if (c == close) {
			s->depth--;
			return true;
		}
	}
}

static bool scan_value(struct scan *s)
{
	skip_space(s);
	switch (peek(s)) {
	case -1:
		return refuse(s, "the text ends too early");
	case '{':
		s->at++;
		return scan_members(s, true, '}');
	case '[':
		s->at++;
		return scan_members(s, false, ']');
	case '"':
		return scan_string(s);
	case 't':
		return scan_word(s, "true");
	case 'f':
		return scan_word(s, "false");
	case 'n':
		return scan_word(s, "null");
	case '-':
	case '0' ... '9':
		return scan_number(s);
	default:
		return refuse(s, "not a JSON value");
	}
}

static bool scan_text(struct scan *s)
{
	if (!scan_value(s))
		return false;
	skip_space(s);
	return s->at == s->end || refuse(s, "something follows behind the end");
}

static int tell_position(const struct scan *s, struct error *reterr)
{
	size_t line = 1, column = 1;

	for (const char *p = s->base; p < s->at; p++) {
		column = *p == '\n' ? 1 : column + 1;
		line += *p == '\n';
	}
	return error_set(reterr, -EINVAL, "not valid JSON: %s (line %zu, column %zu)", s->why, line,
			 column);
}

/* The tree */

static cJSON *tree(const struct json *json)
{
	return (cJSON *)(uintptr_t)json;
}

static struct json *wrap(cJSON *item)
{
	if (!item)
		abort(); /* out of memory */
	return (struct json *)item;
}

static int compare_keys(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool keys_differ(const cJSON *object)
{
	size_t n = 0, max = json_length((const struct json *)object);
	const char **keys = max > 1 ? malloc(max * sizeof(*keys)) : NULL;

	if (max <= 1)
		return true;
	if (!keys)
		abort();
	for (const cJSON *i = object->child; i; i = i->next)
		keys[n++] = i->string;
	qsort(keys, n, sizeof(*keys), compare_keys);
	bool differ = true;
	for (size_t i = 1; i < n && differ; i++)
		differ = strcmp(keys[i - 1], keys[i]) != 0;
	free(keys);
	return differ;
}

static bool has_duplicate_keys(const cJSON *item)
{
	if (cJSON_IsObject(item) && !keys_differ(item))
		return true;
	if (!cJSON_IsObject(item) && !cJSON_IsArray(item))
		return false;
	for (const cJSON *i = item->child; i; i = i->next)
		if (has_duplicate_keys(i))
			return true;
	return false;
}

int json_parse(const char *text, size_t len, const struct json_limits *limits, struct json **ret,
	       struct error *reterr)
{
	struct scan s = {
		.base = text,
		.at = text,
		.end = text + len,
		.max_depth = limits->max_depth ? limits->max_depth : DEFAULT_DEPTH,
		.max_members = limits->max_members ? limits->max_members : DEFAULT_MEMBERS,
	};

	assert(s.max_depth <= MAX_DEPTH);
	if (len > limits->max_len)
		return error_set(reterr, -EFBIG, "JSON text of %zu bytes, at most %zu are accepted",
				 len, limits->max_len);
	if (!scan_text(&s))
		return tell_position(&s, reterr);

	cJSON *root = cJSON_ParseWithLength(text, len);
	if (!root)
		return error_set(reterr, -EINVAL, "not valid JSON");
	if (has_duplicate_keys(root)) {
		cJSON_Delete(root);
		return error_set(reterr, -EINVAL,
				 "not valid JSON: an object has two members of one name");
	}
	*ret = (struct json *)root;
	return 0;
}

void json_free(struct json *json)
{
	cJSON_Delete(tree(json));
}

void json_freep(struct json **json)
{
	json_free(*json);
	*json = NULL;
}

char *json_print(const struct json *json)
{
	char *text = cJSON_PrintUnformatted(tree(json));

	if (!text)
		abort();
	return text;
}

char *json_print_pretty(const struct json *json)
{
	char *text = cJSON_Print(tree(json));

	if (!text)
		abort();
	return text;
}

struct json *json_copy(const struct json *json)
{
	return wrap(cJSON_Duplicate(tree(json), true));
}

/* Making */

struct json *json_object(void)
{
	return wrap(cJSON_CreateObject());
}

struct json *json_array(void)
{
	return wrap(cJSON_CreateArray());
}

struct json *json_string(const char *value)
{
	cJSON *item = cJSON_CreateString(value);
	size_t left = strlen(value);

	if (!item)
		abort();
	for (unsigned char *p = (unsigned char *)item->valuestring; left > 0;) {
		size_t n = utf8_sequence(p, left);
		if (n == 0) {
			*p = '?';
			n = 1;
		}
		p += n;
		left -= n;
	}
	return wrap(item);
}

struct json *json_integer(int64_t value)
{
	assert(value > -(int64_t)NUMBER_BOUND && value < (int64_t)NUMBER_BOUND);
	return wrap(cJSON_CreateNumber((double)value));
}

struct json *json_boolean(bool value)
{
	return wrap(cJSON_CreateBool(value));
}

struct json *json_null(void)
{
	return wrap(cJSON_CreateNull());
}

void json_put(struct json *object, const char *key, struct json *value_take)
{
	if (!cJSON_AddItemToObject(tree(object), key, tree(value_take)))
		abort();
}

void json_put_string(struct json *object, const char *key, const char *value)
{
	json_put(object, key, json_string(value));
}

void json_put_integer(struct json *object, const char *key, int64_t value)
{
	json_put(object, key, json_integer(value));
}

void json_put_u64(struct json *object, const char *key, uint64_t value)
{
	char text[24];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
	json_put_string(object, key, text);
}

void json_put_number(struct json *object, const char *key, double value)
{
	assert(fabs(value) < NUMBER_BOUND);
	json_put(object, key, wrap(cJSON_CreateNumber(value)));
}

void json_put_boolean(struct json *object, const char *key, bool value)
{
	json_put(object, key, json_boolean(value));
}

void json_put_public_key(struct json *object, const char *key, const struct public_key *value)
{
	json_put_string(object, key, public_key_text(value).s);
}

void json_append(struct json *array, struct json *value_take)
{
	if (!cJSON_AddItemToArray(tree(array), tree(value_take)))
		abort();
}

void json_append_string(struct json *array, const char *value)
{
	json_append(array, json_string(value));
}

/* Looking */

bool json_is_object(const struct json *json)
{
	return cJSON_IsObject(tree(json));
}

bool json_is_array(const struct json *json)
{
	return cJSON_IsArray(tree(json));
}

bool json_is_string(const struct json *json)
{
	return cJSON_IsString(tree(json));
}

bool json_is_null(const struct json *json)
{
	return cJSON_IsNull(tree(json));
}

const struct json *json_member(const struct json *object, const char *key)
{
	return json_is_object(object)
		       ? (const struct json *)cJSON_GetObjectItemCaseSensitive(tree(object), key)
		       : NULL;
}

const struct json *json_first(const struct json *array_or_object)
{
	return array_or_object ? (const struct json *)tree(array_or_object)->child : NULL;
}

const struct json *json_next(const struct json *item)
{
	return (const struct json *)tree(item)->next;
}

const char *json_key(const struct json *item)
{
	return tree(item)->string;
}

size_t json_length(const struct json *array_or_object)
{
	size_t n = 0;

	for (const struct json *i = json_first(array_or_object); i; i = json_next(i))
		n++;
	return n;
}

const char *json_text(const struct json *string)
{
	return json_is_string(string) ? tree(string)->valuestring : NULL;
}

/* Typed getters */

static int missing(const char *key, struct error *reterr)
{
	return error_set(reterr, -EINVAL, "member '%s': missing", key);
}

static int wrong(const char *key, const char *must, struct error *reterr)
{
	return error_set(reterr, -EINVAL, "member '%s': must be %s", key, must);
}

/* NULL when the member is absent or null. */
static const cJSON *present(const struct json *object, const char *key)
{
	const cJSON *item = tree(json_member(object, key));

	return cJSON_IsNull(item) ? NULL : item;
}

int json_get_string_or(const struct json *object, const char *key, const char *fallback,
		       const char **ret, struct error *reterr)
{
	const cJSON *item = present(object, key);

	if (item && !cJSON_IsString(item))
		return wrong(key, "a string", reterr);
	*ret = item ? item->valuestring : fallback;
	return 0;
}

int json_get_string(const struct json *object, const char *key, const char **ret,
		    struct error *reterr)
{
	if (!present(object, key))
		return missing(key, reterr);
	return json_get_string_or(object, key, NULL, ret, reterr);
}

int json_integer_value(const struct json *number, int64_t min, int64_t max, int64_t *ret)
{
	double value = cJSON_IsNumber(tree(number)) ? tree(number)->valuedouble : NAN;

	if (!(fabs(value) < NUMBER_BOUND) || value != trunc(value) || (int64_t)value < min ||
	    (int64_t)value > max)
		return -EINVAL;
	*ret = (int64_t)value;
	return 0;
}

int json_get_integer_or(const struct json *object, const char *key, int64_t min, int64_t max,
			int64_t fallback, int64_t *ret, struct error *reterr)
{
	const cJSON *item = present(object, key);

	if (!item) {
		*ret = fallback;
		return 0;
	}
	int64_t value;
	if (json_integer_value((const struct json *)item, INT64_MIN, INT64_MAX, &value) != 0)
		return wrong(key, "an integer", reterr);
	if (value < min || value > max)
		return error_set(reterr, -EINVAL, "member '%s': must be from %lld to %lld", key,
				 (long long)min, (long long)max);
	*ret = value;
	return 0;
}

int json_get_integer(const struct json *object, const char *key, int64_t min, int64_t max,
		     int64_t *ret, struct error *reterr)
{
	if (!present(object, key))
		return missing(key, reterr);
	return json_get_integer_or(object, key, min, max, 0, ret, reterr);
}

/* Digits only, no leading zero, at most 2^64 - 1. */
static bool parse_u64(const char *text, uint64_t *ret)
{
	uint64_t value = 0;

	if (*text == '\0' || (text[0] == '0' && text[1] != '\0'))
		return false;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return false;
		if (__builtin_mul_overflow(value, (uint64_t)10, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(*text - '0'), &value))
			return false;
	}
	*ret = value;
	return true;
}

int json_get_u64(const struct json *object, const char *key, uint64_t *ret, struct error *reterr)
{
	const char *text;
	int r = json_get_string(object, key, &text, reterr);

	if (r != 0)
		return r;
	return parse_u64(text, ret) ? 0 : wrong(key, "a decimal number in a string", reterr);
}

int json_get_boolean_or(const struct json *object, const char *key, bool fallback, bool *ret,
			struct error *reterr)
{
	const cJSON *item = present(object, key);

	if (item && !cJSON_IsBool(item))
		return wrong(key, "true or false", reterr);
	*ret = item ? cJSON_IsTrue(item) : fallback;
	return 0;
}

int json_get_object(const struct json *object, const char *key, const struct json **ret,
		    struct error *reterr)
{
	const cJSON *item = present(object, key);

	if (!item)
		return missing(key, reterr);
	if (!cJSON_IsObject(item))
		return wrong(key, "an object", reterr);
	*ret = (const struct json *)item;
	return 0;
}

int json_get_array(const struct json *object, const char *key, const struct json **ret,
		   struct error *reterr)
{
	const cJSON *item = present(object, key);

	if (!item)
		return missing(key, reterr);
	if (!cJSON_IsArray(item))
		return wrong(key, "an array", reterr);
	*ret = (const struct json *)item;
	return 0;
}

int json_get_public_key(const struct json *object, const char *key, struct public_key *ret,
			struct error *reterr)
{
	const char *text;
	int r = json_get_string(object, key, &text, reterr);

	if (r != 0)
		return r;
	return public_key_parse(text, ret) == 0
		       ? 0
		       : wrong(key, "a key (base64, 44 characters)", reterr);
}

int json_only_members(const struct json *object, const char *const known[], struct error *reterr)
{
	for (const struct json *i = json_first(object); i; i = json_next(i)) {
		const char *const *k = known;
		while (*k && strcmp(*k, json_key(i)) != 0)
			k++;
		if (!*k)
			return error_set(reterr, -EINVAL, "member '%.64s': not known here",
					 json_key(i));
	}
	return 0;
}
