/* Join keys: made, listed, revoked by an admin. */
#include "control/methods_admin.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#define MAX_LIFE_S (INT64_C(100) * 365 * 24 * 3600)

/* ["a", "b"] as "a,b". */
static int read_tags(const struct json *params, char ret[MEMBER_MAX_TAGS + 1], struct error *reterr)
{
	const struct json *list = json_member(params, "tags");
	size_t used = 0;

	ret[0] = '\0';
	if (list && !json_is_array(list) && !json_is_null(list))
		return error_set(reterr, -EINVAL, "member 'tags': must be an array");
	for (const struct json *i = json_first(list); i; i = json_next(i)) {
		const char *tag = json_text(i);
		if (!tag || !map_name_is_valid(tag) || used + strlen(tag) + 1 > MEMBER_MAX_TAGS)
			return error_set(
				reterr, -EINVAL,
				"member 'tags': must hold names of a-z 0-9 -, %d characters in all",
				MEMBER_MAX_TAGS);
		used += (size_t)snprintf(ret + used, MEMBER_MAX_TAGS + 1 - used, "%s%s",
					 used ? "," : "", tag);
	}
	return 0;
}

struct json *admin_tags_json(const char *tags)
{
	struct json *list = json_array();
	char copy[MEMBER_MAX_TAGS + 1], *rest = copy, *tag;

	snprintf(copy, sizeof(copy), "%s", tags);
	while ((tag = strsep(&rest, ",")))
		if (*tag)
			json_append_string(list, tag);
	return list;
}

static int read_key_options(const struct json *params, struct store_join_key *key,
			    struct error *reterr)
{
	static const char *const known[] = { "reusable", "expires_in_s", "node_ttl_s", "tags",
					     "relay", NULL };
	int64_t life_s = 0;
	int r = json_only_members(params, known, reterr);

	*key = (struct store_join_key){ .created_s = control_now_s() };
	if (r == 0)
		r = json_get_boolean_or(params, "reusable", false, &key->is_reusable, reterr);
	if (r == 0)
		r = json_get_integer_or(params, "expires_in_s", 0, MAX_LIFE_S, 24 * 3600, &life_s,
					reterr);
	if (r == 0)
		r = json_get_integer_or(params, "node_ttl_s", 0, MAX_LIFE_S, 0, &key->node_ttl_s,
					reterr);
	if (r == 0)
		r = read_tags(params, key->tags, reterr);
	if (r == 0)
		r = json_get_boolean_or(params, "relay", false, &key->may_relay, reterr);
	key->expires_s = life_s ? key->created_s + life_s : 0;
	return r;
}

static struct json *key_json(const struct store_join_key *key)
{
	struct json *json = json_object();

	json_put_integer(json, "id", key->id);
	json_put_boolean(json, "reusable", key->is_reusable);
	json_put_boolean(json, "revoked", key->is_revoked);
	json_put_integer(json, "created_s", key->created_s);
	json_put_integer(json, "expires_s", key->expires_s);
	json_put_integer(json, "uses", key->n_uses);
	json_put_integer(json, "node_ttl_s", key->node_ttl_s);
	json_put(json, "tags", admin_tags_json(key->tags));
	json_put_boolean(json, "relay", key->may_relay);
	return json;
}

int admin_key_create(struct control *c, struct connection *conn, const struct json *params,
		     struct json **ret_result, struct rpc_error *reterr)
{
	char secret[JOIN_LINK_SECRET_LEN + 1];
	struct store_join_key key;
	struct join_link link;
	struct error err;

	if (read_key_options(params, &key, &err) != 0)
		return answer_error(reterr, RPC_INVALID_PARAMS, &err);
	join_link_make_secret(JOIN_LINK_NODE, secret);
	int r = store_add_join_key(c->store, secret, &key, &err);
	if (r == 0)
		r = control_make_link(&c->network, &c->pin, JOIN_LINK_NODE, secret, &link);
	sodium_memzero(secret, sizeof(secret));
	if (r != 0)
		return admin_internal(reterr, &err);
	struct join_link_text text = join_link_text(&link);
	*ret_result = key_json(&key);
	json_put_string(*ret_result, "link", text.s);
	sodium_memzero(&text, sizeof(text));
	join_link_wipe(&link);
	return 0;
}

static void append_key(void *owner, const struct store_join_key *key)
{
	json_append(owner, key_json(key));
}

int admin_key_list(struct control *c, struct connection *conn, const struct json *params,
		   struct json **ret_result, struct rpc_error *reterr)
{
	struct json *keys = json_array();
	struct error err;

	if (store_each_join_key(c->store, append_key, keys, &err) != 0) {
		json_free(keys);
		return admin_internal(reterr, &err);
	}
	*ret_result = json_object();
	json_put(*ret_result, "keys", keys);
	return 0;
}

int admin_key_revoke(struct control *c, struct connection *conn, const struct json *params,
		     struct json **ret_result, struct rpc_error *reterr)
{
	struct error err;
	int64_t id;

	if (json_get_integer(params, "id", 1, INT64_MAX, &id, &err) != 0)
		return answer_error(reterr, RPC_INVALID_PARAMS, &err);
	int r = store_revoke_join_key(c->store, id, &err);
	if (r == -ENOENT)
		return answer_error(reterr, RPC_NOT_FOUND, &err);
	return r == 0 ? 0 : admin_internal(reterr, &err);
}
