/* webgw's server, beside the front door, where hosts are configured whose agents dial back. */
#include "node/engine_internal.h"
#include "node/expose/published.h"

#include "common/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int engine_take_webgw(struct p2p_engine *engine, const struct p2p_engine_options *options, struct error *reterr)
{
	struct endpoint places[DOOR_MAX_LISTEN];
	uint32_t n = 0;
	int r;

	if (!options->webgw_hosts)
		return 0;
	while (options->webgw_hosts[n])
		n++;
	engine->webgw_rules = calloc(n + 1, sizeof(*engine->webgw_rules));
	if (!engine->webgw_rules)
		abort();
	for (; engine->n_webgw_rules < n; engine->n_webgw_rules++)
		if (webgw_rule_parse(options->webgw_hosts[engine->n_webgw_rules], &engine->webgw_rules[engine->n_webgw_rules],
				     reterr) != 0)
			return -EINVAL;
	if ((r = door_listen_parse(options->webgw_listen, places, &n, reterr)) != 0)
		return r;
	engine->webgw_listen = places[0];
	if (options->webgw_admin && strlen(options->webgw_admin) > WEBGW_ADMIN_PATH_LEN)
		return error_set(reterr, -ENAMETOOLONG, "%s: longer than the %d bytes a socket's path may have",
				 options->webgw_admin, WEBGW_ADMIN_PATH_LEN);
	if (options->webgw_admin)
		strcpy(engine->webgw_admin_path, options->webgw_admin);
	if ((r = door_listen_parse(options->webgw_dial_back, places, &n, reterr)) != 0)
		return r;
	engine->door_options.dial_back = places[0];
	engine->door_options.has_dial_back = engine->has_webgw = true;
	return 0;
}

static void on_wanted(void *owner, const struct dial_wanted *wanted)
{
	struct p2p_engine *engine = owner;

	if (engine->front_door)
		webgw_wanted(engine->webgw, wanted);
}

static void on_over(void *owner, const struct dial_over *over)
{
	struct p2p_engine *engine = owner;

	webgw_over(engine->webgw, over);
}

static void on_answer(void *owner, uint64_t ticket, int64_t subscription)
{
	struct p2p_engine *engine = owner;

	front_door_answer(engine->front_door, ticket, subscription);
}

static uint16_t on_dial_back_port(void *owner)
{
	struct p2p_engine *engine = owner;

	return front_door_dial_back_port(engine->front_door);
}

static void on_hosts_changed(void *owner)
{
	engine_update_front_door(owner);
}

static bool is_same(const struct host_pattern *a, const struct host_pattern *b)
{
	return a->is_wildcard == b->is_wildcard && host_name_equal(&a->name, &b->name);
}

/* What the front door would not lead to an agent, whatever webgw has. */
static const char *on_taken(void *owner, const struct host_pattern *host)
{
	const struct p2p_engine *engine = owner;
	const char *own = engine->membership.member.name;
	struct endpoint shared[DOOR_MAX_LISTEN];
	struct host_pattern pattern;

	for (uint32_t i = 0; i < engine->n_door_rules; i++)
		if (is_same(&engine->door_rules[i].host, host))
			return "[frontdoor] has this host";
	if (engine_shared_places(engine, shared) > 0 && host_pattern_from(own, strlen(own), &pattern) == 0 &&
	    is_same(&pattern, host))
		return "that is this node's own name, by which its relay is asked for";
	return NULL;
}

static int start_admin(struct p2p_engine *engine, struct error *reterr)
{
	const struct webgw_admin_options options = { .loop = engine->loop,
						     .path = engine->webgw_admin_path,
						     .webgw = engine->webgw,
						     .owner = engine,
						     .changed = on_hosts_changed,
						     .taken = on_taken };

	return engine->webgw_admin_path[0] == '\0' ? 0 : webgw_admin_start(&options, &engine->webgw_admin, reterr);
}

int engine_start_webgw(struct p2p_engine *engine, struct error *reterr)
{
	const struct webgw_options options = {
		.host = engine->websockets,
		.listen = engine->webgw_listen,
		.ports = { .owner = engine, .answer = on_answer, .dial_back_port = on_dial_back_port },
	};

	if (!engine->has_webgw)
		return 0;
	engine->door_options.dial_ports =
		(struct front_door_dial_ports){ .owner = engine, .wanted = on_wanted, .over = on_over };
	int r = webgw_new(&options, &engine->webgw, reterr);
	if (r != 0) {
		error_prefix(reterr, "webgw");
		return r;
	}
	for (uint32_t i = 0; i < engine->n_webgw_rules; i++)
		if (webgw_add_host(engine->webgw, &engine->webgw_rules[i].host, engine->webgw_rules[i].hash) != 0)
			log_warning("webgw", "%s stands twice: the first is used", engine->webgw_rules[i].host.name.text);
	log_warning("webgw", "agents are listened to at TCP %s without encryption: who sees that may take their visitors",
		    endpoint_text(&engine->webgw_listen).s);
	r = start_admin(engine, reterr);
	if (r != 0)
		error_prefix(reterr, "webgw");
	return r;
}

uint32_t engine_count_webgw(const struct p2p_engine *engine)
{
	struct host_pattern host;
	uint32_t n = 0;

	while (engine->webgw && webgw_host_at(engine->webgw, n, &host))
		n++;
	return n;
}

void engine_add_webgw_routes(struct p2p_engine *engine, struct door_routes *routes)
{
	const struct endpoint nowhere = { 0 };
	struct door_rule rule = { .takes = { true, true }, .is_dial_back = true };

	for (uint32_t i = 0; engine->webgw && (rule.gate = webgw_host_at(engine->webgw, i, &rule.host)); i++)
		switch (door_routes_add(routes, &rule, &nowhere)) {
		case 0:
			break;
		case -EPERM:
			if (!published_is_news(&rule.host.name, &engine->webgw_told))
				break;
			log_error("webgw", "host %s is refused: it is this node's own name, by which its relay is asked for",
				  rule.host.name.text);
			break;
		default:
			log_warning("webgw", "%s is a host of [frontdoor] as well: that is used", rule.host.name.text);
			break;
		}
}
