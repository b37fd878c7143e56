/* What a ping and a netcheck have found, for who has asked for them. */
#include "node/status.h"

#include "node/status_values.h"

#include <errno.h>

struct json *node_ping_result_to_json(const struct node_ping_result *result)
{
	struct json *json = json_object();

	json_put_boolean(json, "answered", result->answered);
	status_put_text(json, "peer", result->peer);
	status_put_text(json, "ip", endpoint_is_none(&result->ip) ? "" : endpoint_ip_text(&result->ip).s);
	json_put_string(json, "path", node_path_name(result->path));
	status_put_endpoint(json, "endpoint", &result->endpoint);
	status_put_text(json, "relay", result->relay);
	status_put_known(json, "latency_us", result->latency_us);
	return json;
}

int node_ping_result_from_json(const struct json *json, struct node_ping_result *ret,
			       struct error *reterr)
{
	struct node_ping_result result = { .latency_us = NODE_STATUS_UNKNOWN };
	const char *ip;
	int r = status_get_flag(json, "answered", &result.answered, reterr);

	if (r == 0)
		r = status_get_text(json, "peer", result.peer, sizeof(result.peer), reterr);
	if (r == 0)
		r = json_get_string_or(json, "ip", "", &ip, reterr);
	if (r == 0 && ip[0] != '\0' && endpoint_parse_ip(ip, 0, &result.ip) != 0)
		r = error_set(reterr, -EINVAL, "member 'ip': must be an IP address");
	if (r == 0)
		r = node_path_get(json, "path", &result.path, reterr);
	if (r == 0)
		r = status_get_endpoint(json, "endpoint", &result.endpoint, reterr);
	if (r == 0)
		r = status_get_text(json, "relay", result.relay, sizeof(result.relay), reterr);
	if (r == 0)
		r = status_get_known(json, "latency_us", &result.latency_us, reterr);
	if (r != 0)
		return r;
	*ret = result;
	return 0;
}

void node_netcheck_init(struct node_netcheck *netcheck)
{
	*netcheck = (struct node_netcheck){ 0 };
	node_status_init(&netcheck->status);
}

void node_netcheck_deinit(struct node_netcheck *netcheck)
{
	node_status_deinit(&netcheck->status);
}

struct json *node_netcheck_to_json(const struct node_netcheck *netcheck)
{
	struct json *json = json_object();

	json_put_boolean(json, "udp_works", netcheck->udp_works);
	json_put_boolean(json, "control_reachable", netcheck->control_reachable);
	json_put(json, "status", node_status_to_json(&netcheck->status));
	return json;
}

int node_netcheck_from_json(const struct json *json, struct node_netcheck *ret,
			    struct error *reterr)
{
	struct node_netcheck netcheck = { 0 };
	const struct json *status;
	int r = status_get_flag(json, "udp_works", &netcheck.udp_works, reterr);

	if (r == 0)
		r = status_get_flag(json, "control_reachable", &netcheck.control_reachable, reterr);
	if (r == 0)
		r = json_get_object(json, "status", &status, reterr);
	if (r == 0)
		r = node_status_from_json(status, &netcheck.status, reterr);
	if (r == 0)
		*ret = netcheck;
	return r;
}
