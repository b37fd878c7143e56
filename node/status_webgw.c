/* The agent of webgw that this node is, as a part of its status. */
#include "node/status.h"

#include "node/status_values.h"

#include <errno.h>

static struct json *host_to_json(const struct node_status_webgw_host *host)
{
	struct json *json = json_object();

	json_put_string(json, "host", host->host);
	json_put_string(json, "target", host->target);
	json_put_string(json, "state", host->state);
	if (host->why[0] != '\0')
		json_put_string(json, "why", host->why);
	json_put_integer(json, "warm", host->warm);
	json_put_integer(json, "visitors_now", host->visitors_now);
	return json;
}

static int host_from_json(const struct json *json, struct node_status_webgw_host *ret, struct error *reterr)
{
	if (!json_is_object(json))
		return error_set(reterr, -EINVAL, "a host of an agent must be an object");
	int r = status_get_text(json, "host", ret->host, sizeof(ret->host), reterr);
	if (r == 0)
		r = status_get_text(json, "target", ret->target, sizeof(ret->target), reterr);
	if (r == 0)
		r = status_get_text(json, "state", ret->state, sizeof(ret->state), reterr);
	if (r == 0)
		r = status_get_text(json, "why", ret->why, sizeof(ret->why), reterr);
	if (r == 0)
		r = status_get_u32(json, "warm", &ret->warm, reterr);
	return r == 0 ? status_get_u32(json, "visitors_now", &ret->visitors_now, reterr) : r;
}

struct json *node_status_webgw_to_json(const struct node_status_webgw_agent *agent)
{
	struct json *json = json_object(), *hosts = json_array();

	json_put_string(json, "server", agent->server);
	json_put_boolean(json, "connected", agent->is_connected);
	if (agent->why[0] != '\0')
		json_put_string(json, "why", agent->why);
	for (uint32_t i = 0; i < agent->n_hosts; i++)
		json_append(hosts, host_to_json(&agent->hosts[i]));
	json_put(json, "hosts", hosts);
	return json;
}

int node_status_webgw_from_json(const struct json *json, struct node_status_webgw_agent *ret, struct error *reterr)
{
	const struct json *hosts = NULL;

	*ret = (struct node_status_webgw_agent){ .is_there = true };
	int r = status_get_text(json, "server", ret->server, sizeof(ret->server), reterr);
	if (r == 0)
		r = json_get_boolean_or(json, "connected", false, &ret->is_connected, reterr);
	if (r == 0)
		r = status_get_text(json, "why", ret->why, sizeof(ret->why), reterr);
	if (r == 0)
		r = json_get_array(json, "hosts", &hosts, reterr);
	for (const struct json *i = r == 0 ? json_first(hosts) : NULL; i && r == 0; i = json_next(i)) {
		if (ret->n_hosts == NODE_STATUS_MAX_WEBGW_HOSTS)
			return error_set(reterr, -EINVAL, "member 'hosts': more than %d items", NODE_STATUS_MAX_WEBGW_HOSTS);
		r = host_from_json(i, &ret->hosts[ret->n_hosts++], reterr);
	}
	return r;
}
