/*
 * JSON, strictly: the only file that knows the JSON library.
 *
 * json_parse() refuses what RFC 8259 does not allow (and more: duplicate keys, NUL in strings,
 * invalid UTF-8, numbers of 10^15 or more, integers of more than 15 digits) before a tree is
 * built. 64-bit values travel as decimal strings. Typed getters say what is wrong and where.
 */
#pragma once

#include "common/error.h"
#include "common/key.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json; /* a node of a tree; the root is owned by whoever parsed or made it */

struct json_limits {
	size_t max_len;     /* bytes of text */
	size_t max_depth;   /* 0: 32 */
	size_t max_members; /* of one object or array; 0: 65536 */
};

/* 0; -EINVAL with position in reterr; -EFBIG. *ret is freed by the caller with json_free(). */
P2P_CHECK int json_parse(const char *text, size_t len, const struct json_limits *limits,
			 struct json **ret, struct error *reterr);
/* Accepts NULL. Wipes nothing: secrets are wiped by who printed them. */
void json_free(struct json *json);
void json_freep(struct json **json);
/* Compact, one line, NUL-terminated; the caller frees it. */
char *json_print(const struct json *json);
/* Indented, for people. */
char *json_print_pretty(const struct json *json);
struct json *json_copy(const struct json *json);

/*
 * Making trees. Out of memory aborts. Strings must be valid UTF-8 (anything else is replaced by
 * '?').
 */
struct json *json_object(void);
struct json *json_array(void);
struct json *json_string(const char *value);
struct json *json_integer(int64_t value); /* |value| < 10^15 */
struct json *json_boolean(bool value);
struct json *json_null(void);
void json_put(struct json *object, const char *key, struct json *value_take);
void json_put_string(struct json *object, const char *key, const char *value);
void json_put_integer(struct json *object, const char *key, int64_t value);
void json_put_u64(struct json *object, const char *key, uint64_t value);  /* as a decimal string */
void json_put_number(struct json *object, const char *key, double value); /* |value| < 10^15 */
void json_put_boolean(struct json *object, const char *key, bool value);
void json_put_public_key(struct json *object, const char *key, const struct public_key *value);
void json_append(struct json *array, struct json *value_take);
void json_append_string(struct json *array, const char *value);

/* Looking. */
bool json_is_object(const struct json *json);
bool json_is_array(const struct json *json);
bool json_is_string(const struct json *json);
bool json_is_null(const struct json *json);
/* NULL when absent. Borrowed from the tree. */
const struct json *json_member(const struct json *object, const char *key);
/* for (const struct json *i = json_first(a); i; i = json_next(i)) */
const struct json *json_first(const struct json *array_or_object);
const struct json *json_next(const struct json *item);
const char *json_key(const struct json *item); /* of a member of an object */
size_t json_length(const struct json *array_or_object);
/* Of a string, else NULL. Borrowed. */
const char *json_text(const struct json *string);
/* Of a number that is an integer within the bounds: 0, else -EINVAL. For the items of an array. */
P2P_CHECK int json_integer_value(const struct json *number, int64_t min, int64_t max, int64_t *ret);

/*
 * Required members: 0, or -EINVAL with "member 'x': missing / must be a string …" in reterr.
 * The _or forms give the default when the member is absent (or null) and still refuse a wrong type.
 */
P2P_CHECK int json_get_string(const struct json *object, const char *key, const char **ret,
			      struct error *reterr);
P2P_CHECK int json_get_string_or(const struct json *object, const char *key, const char *fallback,
				 const char **ret, struct error *reterr);
P2P_CHECK int json_get_integer(const struct json *object, const char *key, int64_t min, int64_t max,
			       int64_t *ret, struct error *reterr);
P2P_CHECK int json_get_integer_or(const struct json *object, const char *key, int64_t min,
				  int64_t max, int64_t fallback, int64_t *ret,
				  struct error *reterr);
P2P_CHECK int json_get_u64(const struct json *object, const char *key, uint64_t *ret,
			   struct error *reterr);
P2P_CHECK int json_get_boolean_or(const struct json *object, const char *key, bool fallback,
				  bool *ret, struct error *reterr);
P2P_CHECK int json_get_object(const struct json *object, const char *key, const struct json **ret,
			      struct error *reterr);
P2P_CHECK int json_get_array(const struct json *object, const char *key, const struct json **ret,
			     struct error *reterr);
P2P_CHECK int json_get_public_key(const struct json *object, const char *key,
				  struct public_key *ret, struct error *reterr);
/* -EINVAL when the object has a member that is not in the NULL-terminated list. */
P2P_CHECK int json_only_members(const struct json *object, const char *const known[],
				struct error *reterr);
