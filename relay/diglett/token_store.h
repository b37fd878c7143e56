/*
 * The tokens of a diglett server, from two places:
 *
 *   file, by hand ──► read again when it changes ──► listed ─┐
 *                                                            ├──► may who has this token have that name?
 *   p2pctl ──► own file, in the state folder ──► own ────────┘
 *
 * What p2pctl changes counts when it is on the disk; one change at a time. Loop only.
 */
#pragma once

#include "common/error.h"
#include "relay/diglett/file_saver.h"
#include "relay/diglett/token_list.h"

#include <sys/stat.h>
#include <uv.h>

#define TOKEN_SECRET_LEN 43 /* base64 of 32 random bytes */

struct token_store {
	const char *file, *own_file; /* "": none */
	struct token_list listed, own;
	struct stat file_stat;
	bool has_to_try_again; /* it has changed, and could not be read for a moment */
	struct file_saver saver;
	struct token_list next_own; /* is being written */
	void (*changed)(void *owner, int r, const struct error *error);
	void *owner;
};

struct token_secret {
	char s[TOKEN_SECRET_LEN + 1];
};

/* Paths are borrowed. 0, or -errno with what to do in reterr. */
P2P_CHECK int token_store_init(struct token_store *store, uv_loop_t *loop, const char *file, const char *own_file,
			       struct error *reterr);
/* Not while it is busy. */
void token_store_deinit(struct token_store *store);
bool token_store_is_busy(const struct token_store *store);
/*
 * Has the file changed? A file that cannot be read changes nothing, but for one that is gone: its tokens are no more. If it
 * could be read without being changed (there were no descriptors, say), the next look tries again.
 */
bool token_store_look(struct token_store *store);
bool token_store_allows(const struct token_store *store, const uint8_t hash[TOKEN_HASH_LEN], const struct host_name *name);
/* The label of a token, or "". */
const char *token_store_label(const struct token_store *store, const uint8_t hash[TOKEN_HASH_LEN]);
/*
 * A new token for entry's patterns: its hash is filled in; the secret stands nowhere else. 0: changed() is called later;
 * -EBUSY, -ENOSPC, -ENOENT (there is no own file) with what to do in reterr.
 */
P2P_CHECK int token_store_create(struct token_store *store, struct token_entry *entry, struct token_secret *ret,
				 void (*changed)(void *owner, int r, const struct error *error), void *owner,
				 struct error *reterr);
/* 0 as above; -ENOENT: no such token; -EPERM: it stands in the file, be it in both. */
P2P_CHECK int token_store_revoke(struct token_store *store, const char *id,
				 void (*changed)(void *owner, int r, const struct error *error), void *owner,
				 struct error *reterr);
