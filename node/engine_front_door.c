/*
 * Where the front door leads: to addresses as configured, and to members at theirs in the overlay, by the map.
 *
 *   configuration ──► rules ─────┐
 *   map: members ────────────────┼──► routes ──► front door, anew whenever the map changes
 *   map: what members publish ───┘    (node/expose/published.h)
 */
#include "node/engine_internal.h"

#include "common/log.h"
#include "node/expose/published.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int engine_take_front_door(struct p2p_engine *engine, const struct p2p_engine_options *options, struct error *reterr)
{
	uint32_t n = 0;

	if (!options->front_door_hosts)
		return 0;
	while (options->front_door_hosts[n])
		n++;
	engine->door_rules = calloc(n + 1, sizeof(*engine->door_rules));
	if (!engine->door_rules)
		abort();
	for (; engine->n_door_rules < n; engine->n_door_rules++)
		if (door_rule_parse(options->front_door_hosts[engine->n_door_rules],
				    &engine->door_rules[engine->n_door_rules], reterr) != 0)
			return -EINVAL;
	engine->has_front_door = true;
	engine->door_options.serves_quic = !options->front_door_no_quic;
	if (port_ranges_parse(options->front_door_tcp_ports ? options->front_door_tcp_ports : "",
			      &engine->door_options.tcp_ports, reterr) != 0 ||
	    port_ranges_parse(options->front_door_udp_ports ? options->front_door_udp_ports : "",
			      &engine->door_options.udp_ports, reterr) != 0)
		return -EINVAL;
	engine->door_options.ports_changed = engine_on_ports_changed;
	engine->door_options.ports_owner = engine;
	engine->door_options.max_visitors = options->front_door_max_visitors;
	engine->door_options.max_visitors_source = options->front_door_max_visitors_source;
	return door_listen_parse(options->front_door_listen ? options->front_door_listen : "",
				 engine->door_options.listen, &engine->door_options.n_listen, reterr);
}

/* ---- streams of the door that ran before, and for the next one ---- */

void engine_take_streams(struct p2p_engine *engine)
{
	struct listen_sockets *sockets = &engine->sockets;
	uint32_t n_kept = 0, n_streams = 0;

	engine->streams = (struct stream_queue)STREAM_QUEUE_NONE;
	for (uint32_t i = 0; i < sockets->n; i++) {
		if (!stream_queue_is_end(sockets->fds[i]))
			sockets->fds[n_kept++] = sockets->fds[i];
		else if (n_streams < STREAM_QUEUE_FDS)
			engine->streams.fds[n_streams++] = sockets->fds[i];
		else
			close(sockets->fds[i]);
	}
	sockets->n = n_kept;
}

/* Only for a process that follows: who leaves the network leads nobody any more. */
static void on_streams_left(void *owner, const int *descriptors, size_t n)
{
	const struct p2p_engine *engine = owner;

	if (engine->stopping)
		engine->callbacks.streams_left(engine->callbacks.owner, descriptors, n);
}

/* ---- the port that the relay has as well ---- */

/* Does the relay listen there, on TCP? Where it does on all addresses, that is said by "::" alone. */
static bool is_the_relays(const struct p2p_engine *engine, const struct endpoint *place)
{
	const struct node_public *relay = &engine->public_options;
	const struct endpoint any6 = { .port = place->port }, any4 = endpoint_from_v4(0, place->port);

	if (!engine->has_front_door || !engine->is_public || place->port != relay->tls_port)
		return false;
	if (endpoint_equal(place, &any6) || endpoint_equal(place, &any4))
		return true;
	for (uint32_t i = 0; !engine->finds_addresses && i < relay->n_addresses; i++)
		if (memcmp(relay->addresses[i].ip, place->ip, sizeof(place->ip)) == 0)
			return true;
	return false;
}

uint32_t engine_shared_places(const struct p2p_engine *engine, struct endpoint ret[DOOR_MAX_LISTEN])
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < engine->door_options.n_listen; i++)
		if (is_the_relays(engine, &engine->door_options.listen[i]))
			ret[n++] = engine->door_options.listen[i];
	return n;
}

static void on_own_visitor(void *owner, enum door_whose whose, int fd, const struct endpoint *remote, const uint8_t *bytes,
			   size_t n)
{
	struct p2p_engine *engine = owner;

	if (whose != DOOR_WHOSE_RELAY)
		engine_take_webgw_visitor(engine, whose == DOOR_WHOSE_DIAL_BACK, fd, remote, bytes, n);
	else if (engine->public_node)
		public_node_take(engine->public_node, fd, remote, bytes, n);
	else
		close(fd); /* it is being closed, and the door as well */
}

const char *engine_name_now(const struct p2p_engine *engine)
{
	return engine->map ? map_ref_get(engine->map)->self.name : engine->membership.member.name;
}

/* Who asks for this node itself is the relay's, so nobody else may have its name. */
static void set_own_name(const struct p2p_engine *engine, struct door_routes *routes)
{
	const char *name = engine_name_now(engine);
	struct endpoint shared[DOOR_MAX_LISTEN];
	struct host_name own;

	if (engine_shared_places(engine, shared) > 0 && host_name_from(name, strlen(name), &own) == 0)
		door_routes_set_own_name(routes, &own);
}

/* ---- targets ---- */

/* None: nobody of that name is in the network now. */
static struct endpoint find_target(const struct p2p_engine *engine, const struct door_rule *rule)
{
	const struct endpoint nowhere = { 0 };
	const struct map *map = engine->map ? map_ref_get(engine->map) : NULL;

	if (rule->member[0] == '\0')
		return rule->address;
	if (strcmp(rule->member, engine_name_now(engine)) == 0)
		return endpoint_from_v4(ntohl(engine->membership.member.ip4.s_addr), rule->address.port);
	const struct map_peer *peer = map ? map_find_peer_by_name(map, rule->member) : NULL;
	return peer ? endpoint_from_v4(ntohl(peer->ip4.s_addr), rule->address.port) : nowhere;
}

static struct endpoint checked_target(const struct p2p_engine *engine, const char *host, struct endpoint target)
{
	const struct endpoint nowhere = { 0 };

	if (endpoint_is_none(&target) ||
	    !front_door_leads_back(engine->door_options.listen, engine->door_options.n_listen, &target))
		return target;
	log_warning("frontdoor", "the target of %s is the front door itself: nobody is led there", host);
	return nowhere;
}

static void add_configured(struct p2p_engine *engine, struct door_routes *routes)
{
	for (uint32_t i = 0; i < engine->n_door_rules; i++) {
		const struct door_rule *rule = &engine->door_rules[i];
		const struct endpoint target = checked_target(engine, rule->host.name.text, find_target(engine, rule));
		const int r = door_routes_add(routes, rule, &target);
		if (r == -EPERM && published_is_news(&rule->host.name, &engine->door_told))
			log_error("frontdoor", "host %s is refused: it is this node's own name, by which its relay is asked for",
				  rule->host.name.text);
		else if (r != 0 && r != -EPERM && !engine->front_door)
			log_warning("frontdoor", "%s stands twice: the first is used", rule->host.name.text);
	}
}

static struct door_routes *make_routes(struct p2p_engine *engine)
{
	const struct map *map = engine->map ? map_ref_get(engine->map) : NULL;
	const struct published_options options = { .map = map,
						   .configured = engine->door_rules,
						   .n_configured = engine->n_door_rules,
						   .listen = engine->door_options.listen,
						   .n_listen = engine->door_options.n_listen,
						   .told = &engine->published_told,
						   .places = &engine->door_places };
	struct door_routes *routes = door_routes_new(engine->n_door_rules + (map ? published_count(map) : 0) +
						     engine_count_webgw(engine));

	set_own_name(engine, routes);
	add_configured(engine, routes);
	engine_add_webgw_routes(engine, routes);
	if (map) {
		published_add_routes(&options, routes);
		published_keep_names(&options, routes);
	}
	door_places_sweep(&engine->door_places);
	return routes;
}

int engine_start_front_door(struct p2p_engine *engine, struct error *reterr)
{
	if (!engine->has_front_door)
		return 0;
	for (uint32_t i = 0; i < engine->door_options.n_listen; i++)
		engine->door_options.is_relays[i] = is_the_relays(engine, &engine->door_options.listen[i]);
	engine->door_options.relay_sockets = &engine->sockets;
	engine->door_options.relay_port = (struct front_door_relay_port){ .owner = engine, .visitor = on_own_visitor };
	engine->door_options.serves_webgw = engine_shares_webgw(engine);
	engine->door_options.streams_before = &engine->streams;
	if (engine->callbacks.streams_left)
		engine->door_options.streams_port =
			(struct front_door_streams_port){ .owner = engine, .left = on_streams_left };
	struct door_routes *routes = make_routes(engine);
	engine_expect_webgw_hosts(engine, routes);
	int r = front_door_start(engine->loop, &engine->door_options, routes, &engine->front_door, reterr);
	for (uint32_t i = 0; r == 0 && i < engine->door_options.n_listen; i++)
		log_info("frontdoor", "open at TCP %s%s%s", endpoint_text(&engine->door_options.listen[i]).s,
			 engine->door_options.is_relays[i] ? ", for the relay as well," : "",
			 engine->door_options.serves_quic && engine->door_options.listen[i].port != 80 ? " and UDP" : "");
	return r;
}

void engine_update_front_door(struct p2p_engine *engine)
{
	if (engine->front_door)
		front_door_set_routes_take(engine->front_door, make_routes(engine));
}
