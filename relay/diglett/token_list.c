#include "relay/diglett/token_list.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define HEX_LEN (2 * TOKEN_HASH_LEN)

struct word {
	const char *at;
	size_t len;
};

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

/* Of a line that ends at end; a comment ends it. Empty: no more. */
static struct word next_word(const char **at, const char *end)
{
	while (*at < end && is_space(**at))
		(*at)++;
	struct word word = { *at, 0 };
	if (*at < end && **at == '#')
		*at = end;
	while (*at < end && !is_space(**at)) {
		(*at)++;
		word.len++;
	}
	return word;
}

static int parse_pattern(const struct word *word, uint32_t line, struct token_entry *entry, struct error *reterr)
{
	if (entry->n_patterns == TOKEN_MAX_PATTERNS)
		return error_set(reterr, -EINVAL, "line %u: more than %d names; use a wildcard, or another token", line,
				 TOKEN_MAX_PATTERNS);
	int r = host_pattern_from(word->at, word->len, &entry->patterns[entry->n_patterns]);
	if (r != 0)
		return error_set(reterr, -EINVAL, "line %u: %s; wanted: a name, or *. and a name", line,
				 host_name_error_text(r));
	entry->n_patterns++;
	return 0;
}

/* 0, or 1 when there is nothing in it. */
static int parse_line(const char *at, const char *end, uint32_t line, struct token_entry *ret, struct error *reterr)
{
	struct word word = next_word(&at, end);
	size_t n = 0;

	*ret = (struct token_entry){ 0 };
	if (word.len == 0)
		return 1;
	if (word.len != HEX_LEN ||
	    sodium_hex2bin(ret->hash, sizeof(ret->hash), word.at, word.len, NULL, &n, NULL) != 0 || n != TOKEN_HASH_LEN)
		return error_set(reterr, -EINVAL, "line %u: it does not begin with the SHA-256 of a token, 64 hex digits", line);
	while ((word = next_word(&at, end)).len > 0) {
		int r = parse_pattern(&word, line, ret, reterr);
		if (r != 0)
			return r;
	}
	if (ret->n_patterns == 0)
		return error_set(reterr, -EINVAL, "line %u: no name; put what the token is for behind it", line);
	return 0;
}

static int add(struct token_list *list, const struct token_entry *entry, uint32_t line, struct error *reterr)
{
	for (uint32_t i = 0; i < list->n; i++)
		if (sodium_memcmp(list->entries[i].hash, entry->hash, TOKEN_HASH_LEN) == 0)
			return error_set(reterr, -EINVAL, "line %u: this token stands above already; put its names there", line);
	if (list->n == TOKEN_LIST_MAX)
		return error_set(reterr, -EINVAL, "line %u: more than %d tokens", line, TOKEN_LIST_MAX);
	struct token_entry *entries = reallocarray(list->entries, list->n + 1, sizeof(*entries));
	if (!entries)
		abort();
	list->entries = entries;
	entries[list->n++] = *entry;
	return 0;
}

int token_list_parse(const char *text, size_t len, struct token_list *ret, struct error *reterr)
{
	const char *const end = text + len;
	struct token_list list = { 0 };
	uint32_t line = 1;
	int r = 0;

	for (const char *at = text; at < end && r == 0; line++) {
		const char *newline = memchr(at, '\n', (size_t)(end - at));
		struct token_entry entry;
		r = parse_line(at, newline ? newline : end, line, &entry, reterr);
		r = r == 0 ? add(&list, &entry, line, reterr) : r == 1 ? 0 : r;
		at = newline ? newline + 1 : end;
	}
	if (r == 0)
		*ret = list;
	else
		token_list_deinit(&list);
	return r;
}

void token_list_deinit(struct token_list *list)
{
	if (list->entries)
		sodium_memzero(list->entries, list->n * sizeof(*list->entries));
	free(list->entries);
	*list = (struct token_list){ 0 };
}

void token_hash(const char *token, uint8_t ret[TOKEN_HASH_LEN])
{
	crypto_hash_sha256(ret, (const uint8_t *)token, strlen(token));
}

bool token_list_allows(const struct token_list *list, const uint8_t hash[TOKEN_HASH_LEN], const struct host_name *name)
{
	bool allows = false;

	for (uint32_t i = 0; i < list->n; i++) {
		const struct token_entry *entry = &list->entries[i];
		bool matches = false;
		for (uint8_t j = 0; j < entry->n_patterns; j++)
			matches |= host_pattern_matches(&entry->patterns[j], name);
		allows |= (sodium_memcmp(entry->hash, hash, TOKEN_HASH_LEN) == 0) & matches;
	}
	return allows;
}
