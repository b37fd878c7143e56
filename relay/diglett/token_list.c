#include "relay/diglett/token_list.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
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

/* The comment of a line, as far as it can be a label. */
static void take_label(const char *at, const char *end, char ret[TOKEN_LABEL_LEN + 1])
{
	size_t n = 0;

	for (at++; at < end && (is_space(*at) || *at == '#'); at++)
		;
	for (; at < end && n < TOKEN_LABEL_LEN; at++)
		ret[n++] = *at >= ' ' && *at <= '~' && *at != '#' ? *at : ' ';
	while (n > 0 && ret[n - 1] == ' ')
		n--;
	ret[n] = '\0';
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
	const char *behind;
	size_t n = 0;

	*ret = (struct token_entry){ 0 };
	if (word.len == 0)
		return 1;
	if (word.len != HEX_LEN ||
	    sodium_hex2bin(ret->hash, sizeof(ret->hash), word.at, word.len, NULL, &n, NULL) != 0 || n != TOKEN_HASH_LEN)
		return error_set(reterr, -EINVAL, "line %u: it does not begin with the SHA-256 of a token, 64 hex digits", line);
	while (behind = at, (word = next_word(&at, end)).len > 0) {
		int r = parse_pattern(&word, line, ret, reterr);
		if (r != 0)
			return r;
	}
	if (ret->n_patterns == 0)
		return error_set(reterr, -EINVAL, "line %u: no name; put what the token is for behind it", line);
	const char *comment = memchr(behind, '#', (size_t)(end - behind));
	if (comment)
		take_label(comment, end, ret->label);
	return 0;
}

static void append(struct token_list *list, const struct token_entry *entry)
{
	struct token_entry *entries = reallocarray(list->entries, list->n + 1, sizeof(*entries));

	if (!entries)
		abort();
	list->entries = entries;
	entries[list->n++] = *entry;
}

static int add(struct token_list *list, const struct token_entry *entry, uint32_t line, struct error *reterr)
{
	for (uint32_t i = 0; i < list->n; i++)
		if (sodium_memcmp(list->entries[i].hash, entry->hash, TOKEN_HASH_LEN) == 0)
			return error_set(reterr, -EINVAL, "line %u: this token stands above already; put its names there", line);
	if (list->n == TOKEN_LIST_MAX)
		return error_set(reterr, -EINVAL, "line %u: more than %d tokens", line, TOKEN_LIST_MAX);
	append(list, entry);
	return 0;
}

int token_list_add(struct token_list *list, const struct token_entry *entry)
{
	const struct token_id id = token_id(entry->hash);

	for (uint32_t i = 0; i < list->n; i++)
		if (strcmp(token_id(list->entries[i].hash).s, id.s) == 0)
			return -EEXIST;
	if (list->n == TOKEN_LIST_MAX)
		return -ENOSPC;
	append(list, entry);
	return 0;
}

const struct token_entry *token_list_find(const struct token_list *list, const char *id)
{
	const struct token_entry *found = NULL;

	for (uint32_t i = 0; i < list->n; i++)
		if (strcmp(token_id(list->entries[i].hash).s, id) == 0) {
			if (found)
				return NULL;
			found = &list->entries[i];
		}
	return found;
}

void token_list_remove(struct token_list *list, const struct token_entry *entry)
{
	const uint32_t i = (uint32_t)(entry - list->entries);

	list->n--;
	memmove(&list->entries[i], &list->entries[i + 1], (list->n - i) * sizeof(*list->entries));
}

struct token_list token_list_copy(const struct token_list *list)
{
	struct token_list copy = { 0 };

	for (uint32_t i = 0; i < list->n; i++)
		append(&copy, &list->entries[i]);
	return copy;
}

char *token_list_print(const struct token_list *list, const char *heading, size_t *ret_len)
{
	char *text = NULL;
	FILE *file = open_memstream(&text, ret_len);

	if (!file)
		abort();
	fprintf(file, "# %s\n", heading);
	for (uint32_t i = 0; i < list->n; i++) {
		const struct token_entry *entry = &list->entries[i];
		char hex[HEX_LEN + 1];
		sodium_bin2hex(hex, sizeof(hex), entry->hash, TOKEN_HASH_LEN);
		fputs(hex, file);
		for (uint8_t j = 0; j < entry->n_patterns; j++)
			fprintf(file, " %s%s", entry->patterns[j].is_wildcard ? "*." : "", entry->patterns[j].name.text);
		fprintf(file, "%s%s\n", entry->label[0] ? " # " : "", entry->label);
	}
	if (fclose(file) != 0)
		abort();
	return text;
}

struct token_id token_id(const uint8_t hash[TOKEN_HASH_LEN])
{
	struct token_id id;

	sodium_bin2hex(id.s, sizeof(id.s), hash, TOKEN_ID_LEN / 2);
	return id;
}

bool token_label_is_valid(const char *label)
{
	for (const char *at = label; *at != '\0'; at++)
		if (*at < ' ' || *at > '~' || *at == '#')
			return false;
	return strlen(label) <= TOKEN_LABEL_LEN;
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
