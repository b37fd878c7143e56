/* Which ports of front doors members may publish. Among the grants of hosts, by the names of the ports. */
#include "control/methods_admin.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* "name", "port" and perhaps "on" in params. 0, or 1. */
static int read_grant(struct control *c, const struct json *params, struct member **ret_member, struct port_name *ret,
		      struct rpc_error *reterr)
{
	static const char *const known[] = { "name", "port", "on", NULL };
	const char *port, *on = NULL;
	struct error err;
	int r = json_only_members(params, known, &err);

	if (r == 0)
		r = json_get_string(params, "port", &port, &err);
	if (r == 0 && json_member(params, "on"))
		r = json_get_string(params, "on", &on, &err);
	if (r == 0 && (port_name_from(port, strlen(port), ret) != 0 || ret->door_id != 0))
		r = error_set(&err, -EINVAL, "a port of the front door such as tcp:2222 or udp:5353; '%.80s' is none", port);
	if (r != 0)
		return answer_error(reterr, RPC_INVALID_PARAMS, &err);
	const struct member *door = on ? directory_find_by_name(&c->directory, on) : NULL;
	if (on && !door) {
		error_set(&err, -ENOENT, "there is no node of the name '%.63s'", on);
		return answer_error(reterr, RPC_NOT_FOUND, &err);
	}
	ret->door_id = door ? door->peer.id : 0;
	return admin_find_node(c, params, ret_member, reterr);
}

static int judge(struct control *c, struct rpc_error *reterr)
{
	struct error err;

	return control_judge_exposures(c, &err) == 0 ? 0 : admin_internal(reterr, &err);
}

/* Granted already is granted. */
int admin_port_add(struct control *c, struct connection *conn, const struct json *params, struct json **ret_result,
		   struct rpc_error *reterr)
{
	struct host_grant grant = { .created_s = control_now_s() };
	struct port_name port;
	struct member *m;
	struct error err;

	if (read_grant(c, params, &m, &port, reterr) != 0)
		return 1;
	port_name_to_host(&port, &grant.host.name);
	grant.member_id = m->peer.id;
	if (host_grants_find(&c->directory.grants, m->peer.id, &grant.host))
		return judge(c, reterr);
	if (c->directory.grants.n >= HOST_GRANTS_MAX) {
		error_set(&err, -ENOSPC, "%d hosts and ports are granted already", HOST_GRANTS_MAX);
		return answer_error(reterr, RPC_BUSY, &err);
	}
	if (control_add_grant(c, &grant, m, &err) != 0)
		return admin_internal(reterr, &err);
	return judge(c, reterr);
}

/* One of this port that the member has, also for a door; of no door: of any. NULL: none. */
static const struct host_grant *find_grant(const struct control *c, const struct member *m, const struct port_name *port)
{
	uint32_t n;
	const struct host_grant *own = host_grants_of(&c->directory.grants, m->peer.id, &n);

	for (uint32_t i = 0; i < n; i++) {
		struct port_name granted;
		if (host_grant_is_port(&own[i].host, &granted) && granted.kind == port->kind &&
		    granted.number == port->number && (port->door_id == 0 || granted.door_id == port->door_id))
			return &own[i];
	}
	return NULL;
}

/* Of a door, or all of the port. */
int admin_port_remove(struct control *c, struct connection *conn, const struct json *params, struct json **ret_result,
		      struct rpc_error *reterr)
{
	const struct host_grant *found;
	struct port_name port;
	struct member *m;
	struct error err;
	char name[PORT_NAME_TEXT];
	bool has_any = false;

	if (read_grant(c, params, &m, &port, reterr) != 0)
		return 1;
	while ((found = find_grant(c, m, &port))) {
		const struct host_pattern host = found->host;
		has_any = true;
		if (control_remove_grant(c, &host, m, &err) != 0)
			return admin_internal(reterr, &err);
	}
	if (judge(c, reterr) != 0)
		return 1;
	if (has_any)
		return 0;
	port_name_print(&port, name);
	error_set(&err, -ENOENT, "'%s' is not granted to '%.63s'", name, m->peer.name);
	return answer_error(reterr, RPC_NOT_FOUND, &err);
}

static struct json *row(const struct control *c, const struct port_name *port, const struct member *m, bool granted, bool exposed)
{
	const struct port_name bare = { .kind = port->kind, .number = port->number };
	const struct member *door = port->door_id != 0 ? directory_find(&c->directory, port->door_id) : NULL;
	struct json *json = json_object();
	char name[PORT_NAME_TEXT];

	port_name_print(&bare, name);
	json_put_string(json, "port", name);
	json_put_string(json, "name", m->peer.name);
	if (port->door_id != 0)
		json_put_string(json, "on", door ? door->peer.name : "(removed)");
	json_put_boolean(json, "granted", granted);
	json_put_boolean(json, "exposed", exposed);
	json_put_boolean(json, "online", m->peer.online);
	return json;
}

static bool exposes(const struct member *m, const struct port_name *port)
{
	for (uint32_t i = 0; m->exposures && i < m->exposures->n; i++) {
		struct port_name exposed;
		const char *text = m->exposures->hosts[i];
		if (port_name_from(text, strlen(text), &exposed) == 0 && exposed.kind == port->kind &&
		    exposed.number == port->number)
			return true;
	}
	return false;
}

/* What is granted, then what waits for a grant. */
int admin_port_list(struct control *c, struct connection *conn, const struct json *params, struct json **ret_result,
		    struct rpc_error *reterr)
{
	const struct host_grants *grants = &c->directory.grants;
	struct json *ports = json_array();
	struct port_name port;

	for (uint32_t i = 0; i < grants->n; i++) {
		const struct member *m = directory_find(&c->directory, grants->items[i].member_id);
		if (m && host_grant_is_port(&grants->items[i].host, &port))
			json_append(ports, row(c, &port, m, true, exposes(m, &port)));
	}
	for (const struct member *m = directory_next(&c->directory, NULL); m; m = directory_next(&c->directory, m))
		for (uint32_t i = 0; m->exposures && i < m->exposures->n; i++) {
			const char *text = m->exposures->hosts[i];
			if (!(m->granted & UINT64_C(1) << i) && port_name_from(text, strlen(text), &port) == 0)
				json_append(ports, row(c, &port, m, false, true));
		}
	*ret_result = json_object();
	json_put(*ret_result, "ports", ports);
	return 0;
}
