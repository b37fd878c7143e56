#include "relay/diglett/token_store.h"

#include "common/file.h"
#include "common/log.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

static int load(const char *path, struct token_list *ret, struct error *reterr)
{
	struct token_list tokens = { 0 };
	char *text = NULL;
	size_t len = 0;

	int r = file_read_secret(path, TOKEN_LIST_MAX_FILE, &text, &len, reterr);
	if (r == 0) {
		r = token_list_parse(text, len, &tokens, reterr);
		if (r != 0)
			error_prefix(reterr, "%s", path);
	}
	free(text);
	if (r != 0)
		return r;
	token_list_deinit(ret);
	*ret = tokens;
	return 0;
}

/* Its mode is looked at, too. */
static bool has_file_changed(struct token_store *store)
{
	struct stat now = { 0 };

	if (stat(store->file, &now) != 0)
		now = (struct stat){ 0 }; /* the file was taken away */
	const struct stat *then = &store->file_stat;
	const bool changed = now.st_ino != then->st_ino || now.st_size != then->st_size ||
			     now.st_mtim.tv_sec != then->st_mtim.tv_sec || now.st_mtim.tv_nsec != then->st_mtim.tv_nsec ||
			     now.st_ctim.tv_sec != then->st_ctim.tv_sec || now.st_ctim.tv_nsec != then->st_ctim.tv_nsec;
	store->file_stat = now;
	return changed;
}

static void on_saved(void *owner, int r, const struct error *error)
{
	struct token_store *store = owner;

	if (r == 0) {
		token_list_deinit(&store->own);
		store->own = store->next_own;
		store->next_own = (struct token_list){ 0 };
	}
	token_list_deinit(&store->next_own);
	store->changed(store->owner, r, error);
}

int token_store_init(struct token_store *store, uv_loop_t *loop, const char *file, const char *own_file,
		     struct error *reterr)
{
	int r = 0;

	*store = (struct token_store){ .file = file, .own_file = own_file ? own_file : "" };
	file_saver_init(&store->saver, loop, store->own_file, on_saved, store);
	if (store->own_file[0] != '\0')
		r = load(store->own_file, &store->own, reterr);
	if (r != 0 && r != -ENOENT)
		return r;
	if (store->file[0] == '\0')
		return 0;
	(void)has_file_changed(store);
	return load(store->file, &store->listed, reterr);
}

void token_store_deinit(struct token_store *store)
{
	token_list_deinit(&store->listed);
	token_list_deinit(&store->own);
}

bool token_store_is_busy(const struct token_store *store)
{
	return store->saver.is_busy;
}

/* Does the file itself have to change before it can be read? Else a moment's want (of descriptors, of memory) was it. */
static bool is_for_good(int r)
{
	return r == 0 || r == -ENOENT || r == -EINVAL || r == -EPERM || r == -EFBIG;
}

/* Of a want that lasts only its beginning is told. */
static void log_look(struct token_store *store, int r, const struct error *error)
{
	if (r == 0)
		log_info("diglett", "%u tokens are valid now", store->listed.n + store->own.n);
	else if (is_for_good(r) || !store->has_to_try_again)
		log_error("diglett", "%s%s", error->message, r == -ENOENT ? "" : "; the tokens stay as they were");
}

bool token_store_look(struct token_store *store)
{
	struct error error;

	if (store->file[0] == '\0' || (!has_file_changed(store) && !store->has_to_try_again))
		return false;
	const int r = load(store->file, &store->listed, &error);
	if (r == -ENOENT)
		token_list_deinit(&store->listed);
	log_look(store, r, &error);
	store->has_to_try_again = !is_for_good(r);
	return true;
}

bool token_store_allows(const struct token_store *store, const uint8_t hash[TOKEN_HASH_LEN], const struct host_name *name)
{
	const bool listed = token_list_allows(&store->listed, hash, name);

	return token_list_allows(&store->own, hash, name) | listed;
}

static bool has_hash(const struct token_list *list, const uint8_t hash[TOKEN_HASH_LEN])
{
	for (uint32_t i = 0; i < list->n; i++)
		if (sodium_memcmp(list->entries[i].hash, hash, TOKEN_HASH_LEN) == 0)
			return true;
	return false;
}

static const char *label_in(const struct token_list *list, const uint8_t hash[TOKEN_HASH_LEN])
{
	for (uint32_t i = 0; i < list->n; i++)
		if (sodium_memcmp(list->entries[i].hash, hash, TOKEN_HASH_LEN) == 0)
			return list->entries[i].label;
	return "";
}

const char *token_store_label(const struct token_store *store, const uint8_t hash[TOKEN_HASH_LEN])
{
	const char *label = label_in(&store->own, hash);

	return label[0] != '\0' ? label : label_in(&store->listed, hash);
}

/* next is taken. */
static void save(struct token_store *store, struct token_list next,
		 void (*changed)(void *owner, int r, const struct error *error), void *owner)
{
	size_t len;
	char *text = token_list_print(&next, "by p2pctl diglett token", &len);

	store->next_own = next;
	store->changed = changed;
	store->owner = owner;
	file_saver_save(&store->saver, text, len);
}

static int check_changeable(const struct token_store *store, struct error *reterr)
{
	if (store->own_file[0] == '\0')
		return error_set(reterr, -ENOENT, "this server keeps no tokens of its own");
	if (store->saver.is_busy)
		return error_set(reterr, -EBUSY, "another change of the tokens is being written; try again");
	return 0;
}

static void draw(struct token_entry *entry, struct token_secret *ret)
{
	uint8_t bytes[32];

	randombytes_buf(bytes, sizeof(bytes));
	sodium_bin2base64(ret->s, sizeof(ret->s), bytes, sizeof(bytes), sodium_base64_VARIANT_URLSAFE_NO_PADDING);
	sodium_memzero(bytes, sizeof(bytes));
	token_hash(ret->s, entry->hash);
}

int token_store_create(struct token_store *store, struct token_entry *entry, struct token_secret *ret,
		       void (*changed)(void *owner, int r, const struct error *error), void *owner, struct error *reterr)
{
	int r = check_changeable(store, reterr);

	if (r != 0)
		return r;
	struct token_list next = token_list_copy(&store->own);
	do /* until its id is no other's */
		draw(entry, ret);
	while (token_list_find(&store->listed, token_id(entry->hash).s) || (r = token_list_add(&next, entry)) == -EEXIST);
	if (r != 0) {
		token_list_deinit(&next);
		return error_set(reterr, r, "there are %d tokens; revoke one first", TOKEN_LIST_MAX);
	}
	save(store, next, changed, owner);
	return 0;
}

/* One that stands in the file, too, would stay valid. */
int token_store_revoke(struct token_store *store, const char *id,
		       void (*changed)(void *owner, int r, const struct error *error), void *owner, struct error *reterr)
{
	int r = check_changeable(store, reterr);

	if (r != 0)
		return r;
	const struct token_entry *own = token_list_find(&store->own, id);
	if (own ? has_hash(&store->listed, own->hash) : token_list_find(&store->listed, id) != NULL)
		return error_set(reterr, -EPERM, "this token stands in %s; take its line away there first", store->file);
	if (!own)
		return error_set(reterr, -ENOENT, "no such token; p2pctl diglett token list has their ids");
	struct token_list next = token_list_copy(&store->own);
	token_list_remove(&next, token_list_find(&next, id));
	save(store, next, changed, owner);
	return 0;
}
