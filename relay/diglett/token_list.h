/*
 * Who may have which names: a text file, a token a line, which the server reads again when it has changed.
 *
 *   # for the shop
 *   2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824 shop.example.org *.test.example.org
 *
 * A token itself stands nowhere: the line begins with its SHA-256 in hex. A pattern is a name, or "*." and a name, where
 * "*" stands for one label. Tokens are random and long, so that a plain hash is enough. A comment behind the patterns is
 * the token's label, for people; the hash's first digits are its id.
 *
 * Pure.
 */
#pragma once

#include "common/error.h"
#include "relay/frontdoor/host_name.h"

#define TOKEN_HASH_LEN	    32
#define TOKEN_LIST_MAX	    1024
#define TOKEN_MAX_PATTERNS  8
#define TOKEN_LIST_MAX_FILE (4 * 1024 * 1024) /* of all, with names as long as can be */
#define TOKEN_LABEL_LEN	    40
#define TOKEN_ID_LEN	    8

struct token_entry {
	uint8_t hash[TOKEN_HASH_LEN];
	uint8_t n_patterns;
	struct host_pattern patterns[TOKEN_MAX_PATTERNS];
	char label[TOKEN_LABEL_LEN + 1]; /* printable ASCII; "": none */
};

struct token_id {
	char s[TOKEN_ID_LEN + 1];
};

struct token_list {
	uint32_t n;
	struct token_entry *entries; /* owned */
};

/* 0, or -EINVAL with "line N: …", without anything of a hash, in reterr; *ret only on success. Deinit accepts all zero. */
P2P_CHECK int token_list_parse(const char *text, size_t len, struct token_list *ret, struct error *reterr);
void token_list_deinit(struct token_list *list);
/* What token_list_parse() reads; the caller frees it. heading: a comment of one line. */
char *token_list_print(const struct token_list *list, const char *heading, size_t *ret_len);
/* Copied. 0, -EEXIST (its id, too, must be another one), or -ENOSPC. */
P2P_CHECK int token_list_add(struct token_list *list, const struct token_entry *entry);
/* NULL: none, or more than one. Borrowed. */
const struct token_entry *token_list_find(const struct token_list *list, const char *id);
void token_list_remove(struct token_list *list, const struct token_entry *entry);
struct token_list token_list_copy(const struct token_list *list);
struct token_id token_id(const uint8_t hash[TOKEN_HASH_LEN]);
/* Printable ASCII without '#', TOKEN_LABEL_LEN characters at most. */
P2P_CHECK bool token_label_is_valid(const char *label);
void token_hash(const char *token, uint8_t ret[TOKEN_HASH_LEN]);
/* Is there such a token, and may who has it have this name? Takes the same time whichever it is. */
bool token_list_allows(const struct token_list *list, const uint8_t hash[TOKEN_HASH_LEN], const struct host_name *name);
