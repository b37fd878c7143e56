/* webgw's server, beside the front door, where hosts are configured whose agents dial back. */
#include "node/engine_internal.h"
#include "node/expose/published.h"
#include "relay/webgw/saved_hosts.h"

#include "common/log.h"
#include "common/macros.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ROUTES_PAUSE_MS 100

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
	if (options->webgw_tls_listen && options->webgw_tls_dial_back) {
		if ((r = door_listen_parse(options->webgw_tls_dial_back, places, &n, reterr)) != 0)
			return r;
		engine->webgw_tls_dial_back = places[0];
		if ((r = door_listen_parse(options->webgw_tls_listen, places, &n, reterr)) != 0)
			return r;
		engine->webgw_tls_listen = places[0];
	}
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

static void on_answer(void *owner, uint64_t ticket, int64_t subscription, struct agent_tally *tally)
{
	struct p2p_engine *engine = owner;

	front_door_answer(engine->front_door, ticket, subscription, tally);
}

static uint16_t on_dial_back_port(void *owner, bool is_tls)
{
	struct p2p_engine *engine = owner;

	if (is_tls)
		return engine_webgw_tls_port(engine);
	return front_door_dial_back_port(engine->front_door);
}

static uint16_t on_shared_port(void *owner)
{
	const struct p2p_engine *engine = owner;

	return engine->public_options.tls_port;
}

static bool is_same(const struct host_pattern *a, const struct host_pattern *b)
{
	return a->is_wildcard == b->is_wildcard && host_name_equal(&a->name, &b->name);
}

/* ---- hosts that are added while the node runs ---- */

static bool is_configured(const struct p2p_engine *engine, const struct host_pattern *host)
{
	for (uint32_t i = 0; i < engine->n_webgw_rules; i++)
		if (is_same(&engine->webgw_rules[i].host, host))
			return true;
	return false;
}

static int keep_added(const struct p2p_engine *engine, struct error *reterr)
{
	struct webgw_rule *rules = calloc(SUBSCRIPTIONS_MAX_HOSTS, sizeof(*rules));
	struct webgw_admin_host host;
	uint32_t n = 0;

	if (!rules)
		abort();
	for (uint32_t i = 0; webgw_host_facts(engine->webgw, i, &host); i++) {
		if (host.is_members || is_configured(engine, &host.host))
			continue;
		rules[n].host = host.host;
		rules[n].balance = host.balance;
		memcpy(rules[n++].hash, host.hash, sizeof(host.hash));
	}
	char *text = saved_hosts_print(rules, n);
	const int r = state_dir_save_webgw_hosts(&engine->dir, text, reterr);
	free(text);
	free(rules);
	return r;
}

static int on_hosts_changed(void *owner, struct error *reterr)
{
	struct p2p_engine *engine = owner;

	engine_update_front_door(engine);
	if (engine->webgw_hosts_unread)
		return error_set(reterr, -EIO, "not kept: the file 'webgw-hosts' in the state folder could not be read at the "
					       "start, and would be lost: mend or remove it, and restart p2pnode");
	return keep_added(engine, reterr);
}

static void add_saved(struct p2p_engine *engine, const struct webgw_rule *rule)
{
	const char *star = rule->host.is_wildcard ? "*." : "";
	const int r = is_configured(engine, &rule->host) ? -EEXIST : webgw_add_host(engine->webgw, &rule->host, rule->hash);

	if (r != 0)
		log_warning("webgw", "%s%s was added while the node ran: %s", star, rule->host.name.text,
			    r == -EEXIST ? "what stands in the configuration is used" : "there are too many hosts");
	else
		(void)webgw_set_balance(engine->webgw, &rule->host, rule->balance);
}

static void load_added(struct p2p_engine *engine)
{
	struct webgw_rule *rules = calloc(SUBSCRIPTIONS_MAX_HOSTS, sizeof(*rules));
	struct error error;
	char *text = NULL;
	size_t len = 0;

	if (!rules)
		abort();
	int n = state_dir_load_webgw_hosts(&engine->dir, &text, &len, &error);
	const bool is_there = n != -ENOENT;
	if (n == 0)
		n = saved_hosts_read(text, len, rules, SUBSCRIPTIONS_MAX_HOSTS, &error);
	engine->webgw_hosts_unread = is_there && n < 0;
	if (engine->webgw_hosts_unread)
		log_error("webgw", "hosts that were added are not known: webgw-hosts: %s", error.message);
	for (int i = 0; i < n; i++)
		add_saved(engine, &rules[i]);
	free(text);
	free(rules);
}

/* What the front door would not lead to an agent, whatever webgw has. */
static const char *on_taken(void *owner, const struct host_pattern *host)
{
	const struct p2p_engine *engine = owner;
	const char *own = engine_name_now(engine);
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

/* ---- members ---- */

/* Its certificate says who it is; the map, whether it still is, and what is granted to it. */
static bool on_is_granted(void *owner, const struct identity *who, const struct host_pattern *host)
{
	const struct p2p_engine *engine = owner;
	const struct map *map = engine->map ? map_ref_get(engine->map) : NULL;
	const struct map_peer *peer = map ? map_find_peer_by_key(map, &who->node_key) : NULL;

	if (!peer || host->is_wildcard || host->name.len == 0 || on_taken((void *)engine, host))
		return false;
	return map_has_grant(map, peer->id, host->name.text);
}

static bool on_is_any_granted(void *owner, const struct host_pattern *host)
{
	const struct p2p_engine *engine = owner;
	const struct map *map = engine->map ? map_ref_get(engine->map) : NULL;

	if (!map || host->is_wildcard || host->name.len == 0 || on_taken(owner, host))
		return false;
	for (uint32_t i = 0; i < map->n_grants; i++)
		if (strcmp(map->grants[i].host, host->name.text) == 0 && map_find_peer(map, map->grants[i].peer_id))
			return true;
	return false;
}

/* Of those that the door before has led there it is not known yet whose they are: they may be of any host that members have. */
void engine_expect_webgw_hosts(struct p2p_engine *engine, struct door_routes *routes)
{
	const struct map *map = engine->map ? map_ref_get(engine->map) : NULL;
	struct door_awaited *awaited;
	struct host_pattern host;
	uint32_t n = 0;

	if (!engine->webgw || !map || map->n_grants == 0 || engine->streams.fds[0] < 0)
		return;
	awaited = calloc(map->n_grants, sizeof(*awaited));
	if (!awaited)
		abort();
	for (uint32_t i = 0; i < map->n_grants; i++) {
		const char *name = map->grants[i].host;
		if (host_pattern_from(name, strlen(name), &host) != 0)
			continue; /* a port */
		struct door_gate *gate = webgw_expect_host(engine->webgw, &host);
		if (gate)
			awaited[n++] = (struct door_awaited){ .host = host.name, .gate = gate };
	}
	door_routes_set_awaited(routes, awaited, n);
	free(awaited);
}

static void on_pause_over(uv_timer_t *timer);

/* At once, and then not again for a while: a member may come and go as fast as it can write. */
static void on_members_host(void *owner)
{
	struct p2p_engine *engine = owner;

	engine->webgw_routes_due = uv_is_active((uv_handle_t *)&engine->webgw_pause) != 0;
	if (engine->webgw_routes_due)
		return;
	engine_update_front_door(engine);
	if (!uv_is_closing((uv_handle_t *)&engine->webgw_pause))
		(void)uv_timer_start(&engine->webgw_pause, on_pause_over, ROUTES_PAUSE_MS, 0);
}

static void on_pause_over(uv_timer_t *timer)
{
	struct p2p_engine *engine = container_of(timer, struct p2p_engine, webgw_pause);

	if (engine->webgw_routes_due)
		on_members_host(engine);
}

static uint32_t on_prepare(void *owner, int64_t subscription, uint32_t n, uint8_t ret[][WEBGW_EPHEMERAL_LEN])
{
	return engine_prepare_webgw(owner, subscription, n, ret);
}

static bool on_hand(void *owner, int64_t subscription, const struct dial_wanted *wanted)
{
	return engine_hand_webgw(owner, subscription, wanted);
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

static void add_configured(struct p2p_engine *engine)
{
	for (uint32_t i = 0; i < engine->n_webgw_rules; i++) {
		const struct webgw_rule *rule = &engine->webgw_rules[i];
		if (webgw_add_host(engine->webgw, &rule->host, rule->hash) != 0)
			log_warning("webgw", "%s stands twice: the first is used", rule->host.name.text);
		else
			(void)webgw_set_balance(engine->webgw, &rule->host, rule->balance);
	}
}

int engine_start_webgw(struct p2p_engine *engine, struct error *reterr)
{
	const struct webgw_options options = {
		.host = engine->websockets,
		.listen = engine->webgw_listen,
		.ports = { .owner = engine,
			   .answer = on_answer,
			   .dial_back_port = on_dial_back_port,
			   .shared_port = on_shared_port,
			   .is_granted = on_is_granted,
			   .is_any_granted = on_is_any_granted,
			   .changed = on_members_host,
			   .prepare = on_prepare,
			   .hand = on_hand },
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
	add_configured(engine);
	load_added(engine);
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
