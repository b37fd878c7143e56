/*
 * Who may have which names: a text file, a token a line, which the server reads again when it has changed.
 *
 *   # for the shop
 *   2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824 shop.example.org *.test.example.org
 *
 * A token itself stands nowhere: the line begins with its SHA-256 in hex. A pattern is a name, or "*." and a name, where
 * "*" stands for one label. Tokens are random and long, so that a plain hash is enough.
 *
 * Pure.
 */
#pragma once

#include "common/error.h"
#include "relay/frontdoor/host_name.h"

#define TOKEN_HASH_LEN	    32
#define TOKEN_LIST_MAX	    1024
#define TOKEN_MAX_PATTERNS  8
#define TOKEN_LIST_MAX_FILE (1024 * 1024)

struct token_entry {
	uint8_t hash[TOKEN_HASH_LEN];
	uint8_t n_patterns;
	struct host_pattern patterns[TOKEN_MAX_PATTERNS];
};

struct token_list {
	uint32_t n;
	struct token_entry *entries; /* owned */
};

/* 0, or -EINVAL with "line N: …", without anything of a hash, in reterr; *ret only on success. Deinit accepts all zero. */
P2P_CHECK int token_list_parse(const char *text, size_t len, struct token_list *ret, struct error *reterr);
void token_list_deinit(struct token_list *list);
void token_hash(const char *token, uint8_t ret[TOKEN_HASH_LEN]);
/* Is there such a token, and may who has it have this name? Takes the same time whichever it is. */
bool token_list_allows(const struct token_list *list, const uint8_t hash[TOKEN_HASH_LEN], const struct host_name *name);
