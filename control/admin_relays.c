/* Which nodes are relays, and what is said of them. */
#include "control/methods_admin.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static int read_relay_hints(const struct json *params, struct map_relay *relay, struct error *reterr)
{
	static const char *const known[] = { "name", "region", "cost_ms", NULL };
	const char *region = NULL;
	int64_t cost_ms = 0;
	int r = json_only_members(params, known, reterr);

	if (r == 0 && json_member(params, "region"))
		r = json_get_string(params, "region", &region, reterr);
	if (r == 0 && region && region[0] && !map_name_is_valid(region))
		r = error_set(reterr, -EINVAL, "member 'region': must be one to %d of a-z 0-9 -, or empty",
			      MAP_NAME_LEN);
	if (r == 0)
		r = json_get_integer_or(params, "cost_ms", 0, MAP_MAX_COST_MS, relay->cost_ms, &cost_ms, reterr);
	if (r != 0)
		return r;
	if (region)
		snprintf(relay->region, sizeof(relay->region), "%s", region);
	relay->cost_ms = (uint16_t)cost_ms;
	return 0;
}

/* Also for one that is a relay already: what is said of it changes, the rest stays. */
int admin_relay_add(struct control *c, struct connection *conn, const struct json *params,
		    struct json **ret_result, struct rpc_error *reterr)
{
	struct member *now;
	struct error err;

	if (admin_find_node(c, params, &now, reterr) != 0)
		return 1;
	struct member m = *now;
	if (read_relay_hints(params, &m.relay, &err) != 0)
		return answer_error(reterr, RPC_INVALID_PARAMS, &err);
	member_let_relay(&m);
	if (member_is_relay(&m) && !member_is_relay(now) && directory_is_full_of_relays(&c->directory)) {
		error_set(&err, -ENOSPC, "the network has %d public nodes already", MAP_MAX_RELAYS);
		return answer_error(reterr, RPC_BUSY, &err);
	}
	if (control_put_member(c, &m, &err) != 0)
		return admin_internal(reterr, &err);
	*ret_result = json_object();
	json_put_boolean(*ret_result, "public", m.offers_relay);
	return 0;
}

int admin_relay_remove(struct control *c, struct connection *conn, const struct json *params,
		       struct json **ret_result, struct rpc_error *reterr)
{
	struct member *now;
	struct error err;

	if (admin_find_node(c, params, &now, reterr) != 0)
		return 1;
	struct member m = *now;
	if (!m.may_relay) {
		error_set(&err, -ENOENT, "'%.63s' is no relay", m.peer.name);
		return answer_error(reterr, RPC_NOT_FOUND, &err);
	}
	m.may_relay = false;
	return control_put_member(c, &m, &err) == 0 ? 0 : admin_internal(reterr, &err);
}

/* By id: how many nodes have each as their home. */
static int64_t *count_homes(const struct directory *directory)
{
	int64_t *n_homes = calloc((size_t)directory->last_id + 1, sizeof(*n_homes));

	if (!n_homes)
		abort();
	for (const struct member *m = directory_next(directory, NULL); m; m = directory_next(directory, m))
		if (m->peer.home_relay <= directory->last_id)
			n_homes[m->peer.home_relay]++;
	return n_homes;
}

int admin_relay_list(struct control *c, struct connection *conn, const struct json *params,
		     struct json **ret_result, struct rpc_error *reterr)
{
	struct json *relays = json_array();
	int64_t *n_homes = count_homes(&c->directory);

	for (const struct member *m = directory_next(&c->directory, NULL); m;
	     m = directory_next(&c->directory, m)) {
		if (!m->offers_relay && !(m->may_relay && m->had_relay))
			continue; /* whoever has joined with a key for relays may */
		struct json *relay = map_relay_to_json(&m->relay);
		json_put_boolean(relay, "online", m->peer.online);
		json_put_boolean(relay, "added", m->may_relay);
		json_put_boolean(relay, "public", m->offers_relay);
		json_put_integer(relay, "home_of", n_homes[m->peer.id]);
		json_append(relays, relay);
	}
	free(n_homes);
	*ret_result = json_object();
	json_put(*ret_result, "relays", relays);
	return 0;
}
