/* Which host names members may publish. */
#include "control/methods_admin.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* "name" and "host" in params. 0, or 1. */
static int read_grant(struct control *c, const struct json *params, struct member **ret_member,
		      struct host_pattern *ret_host, struct rpc_error *reterr)
{
	static const char *const known[] = { "name", "host", NULL };
	const char *host;
	struct error err;

	if (json_only_members(params, known, &err) != 0 || json_get_string(params, "host", &host, &err) != 0)
		return answer_error(reterr, RPC_INVALID_PARAMS, &err);
	const int r = host_pattern_from(host, strlen(host), ret_host);
	if (r != 0) {
		error_set(&err, -EINVAL, "a host such as app.example.org or *.example.org, without scheme and port; "
			  "'%.80s' is none: %s", host, host_name_error_text(r));
		return answer_error(reterr, RPC_INVALID_PARAMS, &err);
	}
	return admin_find_node(c, params, ret_member, reterr);
}

/* What follows from the grants, also from those of before: what could not be put then is put now. */
static int judge(struct control *c, struct rpc_error *reterr)
{
	struct error err;

	return control_judge_exposures(c, &err) == 0 ? 0 : admin_internal(reterr, &err);
}

/* Its relay is asked for by that name, on a port that it may share with the hosts of others. */
static bool is_a_public_nodes_name(const struct control *c, const struct host_pattern *host)
{
	const struct member *named = host->is_wildcard ? NULL : directory_find_by_name(&c->directory, host->name.text);

	return named && named->offers_relay;
}

bool admin_is_granted_host(const struct control *c, const char *name)
{
	const struct host_grants *grants = &c->directory.grants;

	for (uint32_t i = 0; i < grants->n; i++)
		if (!grants->items[i].host.is_wildcard && strcmp(grants->items[i].host.name.text, name) == 0)
			return true;
	return false;
}

/* Granted already is granted. */
int admin_host_add(struct control *c, struct connection *conn, const struct json *params, struct json **ret_result,
		   struct rpc_error *reterr)
{
	struct host_grant grant = { .created_s = control_now_s() };
	struct member *m;
	struct error err;

	if (read_grant(c, params, &m, &grant.host, reterr) != 0)
		return 1;
	if (is_a_public_nodes_name(c, &grant.host)) {
		error_set(&err, -EINVAL, "%.63s is a public node of this network, and its relay is asked for by that name: a "
			  "host needs another", grant.host.name.text);
		return answer_error(reterr, RPC_INVALID_PARAMS, &err);
	}
	grant.member_id = m->peer.id;
	if (host_grants_find(&c->directory.grants, m->peer.id, &grant.host))
		return judge(c, reterr);
	if (c->directory.grants.n >= HOST_GRANTS_MAX) {
		error_set(&err, -ENOSPC, "%d hosts are granted already; a wildcard may stand for many of them",
			  HOST_GRANTS_MAX);
		return answer_error(reterr, RPC_BUSY, &err);
	}
	if (control_add_grant(c, &grant, m, &err) != 0)
		return admin_internal(reterr, &err);
	return judge(c, reterr);
}

/* Said again after an internal error, it is judged again, and then not granted. */
int admin_host_remove(struct control *c, struct connection *conn, const struct json *params,
		      struct json **ret_result, struct rpc_error *reterr)
{
	struct host_pattern host;
	struct member *m;
	struct error err;

	if (read_grant(c, params, &m, &host, reterr) != 0)
		return 1;
	if (!host_grants_find(&c->directory.grants, m->peer.id, &host)) {
		if (judge(c, reterr) != 0)
			return 1;
		error_set(&err, -ENOENT, "'%s%.253s' is not granted to '%.63s'", host.is_wildcard ? "*." : "",
			  host.name.text, m->peer.name);
		return answer_error(reterr, RPC_NOT_FOUND, &err);
	}
	if (control_remove_grant(c, &host, m, &err) != 0)
		return admin_internal(reterr, &err);
	return judge(c, reterr);
}

static struct json *row(const char *host, const struct member *m, bool granted, bool exposed)
{
	struct json *json = json_object();

	json_put_string(json, "host", host);
	json_put_string(json, "name", m->peer.name);
	json_put_boolean(json, "granted", granted);
	json_put_boolean(json, "exposed", exposed);
	json_put_boolean(json, "online", m->peer.online);
	return json;
}

/* Does one of the member's exposures make use of the grant? */
static bool is_used(const struct host_grant *grant, const struct member *m)
{
	bool used = false;

	for (uint32_t i = 0; m->exposures && i < m->exposures->n && !used; i++) {
		struct host_pattern host;
		const char *text = strstr(m->exposures->hosts[i], "://");
		text = text ? text + 3 : m->exposures->hosts[i];
		if (host_pattern_from(text, strlen(text), &host) != 0)
			continue;
		used = host.is_wildcard == grant->host.is_wildcard && host_name_equal(&host.name, &grant->host.name);
		used = used || (grant->host.is_wildcard && !host.is_wildcard &&
				host_pattern_matches(&grant->host, &host.name));
	}
	return used;
}

static bool is_port(const char *exposed)
{
	struct port_name port;

	return port_name_from(exposed, strlen(exposed), &port) == 0;
}

/* What is granted, then what waits for a grant. */
int admin_host_list(struct control *c, struct connection *conn, const struct json *params, struct json **ret_result,
		    struct rpc_error *reterr)
{
	const struct host_grants *grants = &c->directory.grants;
	struct json *hosts = json_array();
	char host[HOST_NAME_MAX_LEN + 3];

	for (uint32_t i = 0; i < grants->n; i++) {
		const struct host_grant *grant = &grants->items[i];
		const struct member *m = directory_find(&c->directory, grant->member_id);
		struct port_name port;
		if (host_grant_is_port(&grant->host, &port))
			continue; /* admin_ports.c */
		snprintf(host, sizeof(host), "%s%s", grant->host.is_wildcard ? "*." : "", grant->host.name.text);
		if (m)
			json_append(hosts, row(host, m, true, is_used(grant, m)));
	}
	for (const struct member *m = directory_next(&c->directory, NULL); m; m = directory_next(&c->directory, m))
		for (uint32_t i = 0; m->exposures && i < m->exposures->n; i++)
			if (!(m->granted & UINT64_C(1) << i) && !is_port(m->exposures->hosts[i]))
				json_append(hosts, row(m->exposures->hosts[i], m, false, true));
	*ret_result = json_object();
	json_put(*ret_result, "hosts", hosts);
	return 0;
}
