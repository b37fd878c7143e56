/*
 * Who may bring visitors of what this node publishes: the front doors of the network, by the map; and its own.
 *
 *   map: front doors of relays, which an admin has added ──► overlay addresses ──► acceptor, anew whenever the map changes
 */
#include "node/engine_internal.h"

#include "common/log.h"

#include <arpa/inet.h>

static struct endpoint overlay_address(struct in_addr ip4)
{
	return endpoint_from_v4(ntohl(ip4.s_addr), 0);
}

static void on_port_changed(void *owner)
{
	struct p2p_engine *engine = owner;

	engine_set_acceptor_port(engine, acceptor_port(engine->acceptor));
}

void engine_start_acceptor(struct p2p_engine *engine)
{
	engine_start_acme(engine);
	const struct acceptor_options options = { .loop = engine->loop,
						  .address = overlay_address(engine->membership.member.ip4),
						  .node_key = &engine->node_key_public,
						  .acme = engine->acme,
						  .port_changed = on_port_changed,
						  .owner = engine };

	engine->acceptor = acceptor_new(&options);
	engine_update_acceptor(engine);
	engine_tell_acceptor(engine);
}

void engine_tell_acceptor(struct p2p_engine *engine)
{
	const struct endpoint nowhere = { 0 };
	struct exposure exposures[EXPOSURE_MAX];

	if (!engine->acceptor)
		return;
	engine_tell_acme(engine);
	for (uint32_t i = 0; i < engine->exposures->n; i++) {
		exposures[i] = engine->exposures->items[i].exposure;
		if (!engine_leads_back(engine, &exposures[i]))
			continue;
		/* Of a time when there was no door, or when its operator did not offer that port. */
		log_warning("expose", "the target of %s is the front door itself, or where this node takes visitors in: nobody is led there",
			    exposures[i].host.name.text);
		exposures[i].target = nowhere;
	}
	acceptor_set_exposures(engine->acceptor, exposures, engine->exposures->n);
}

void engine_update_acceptor(struct p2p_engine *engine)
{
	const struct map *map = engine->map ? map_ref_get(engine->map) : NULL;
	struct endpoint doors[MAP_MAX_RELAYS + 1];
	uint32_t n = 0;

	if (!engine->acceptor)
		return;
	for (uint32_t i = 0; map && i < map->n_relays; i++) {
		const struct map_peer *peer = map_find_peer(map, map->relays[i].id);
		if (peer && peer->front_door)
			doors[n++] = overlay_address(peer->ip4);
	}
	if (engine->has_front_door)
		doors[n++] = overlay_address(engine->membership.member.ip4);
	acceptor_set_doors(engine->acceptor, doors, n);
}

enum door_target_state engine_target_state(const struct p2p_engine *engine, uint32_t i)
{
	struct door_gate_counters counters;

	if (!engine->acceptor || i >= acceptor_count(engine->acceptor))
		return DOOR_TARGET_UNKNOWN;
	(void)acceptor_get(engine->acceptor, i, &counters);
	return counters.state;
}

void engine_put_visitors(const struct p2p_engine *engine, uint32_t i, struct json *ret)
{
	struct door_gate_counters counters;

	if (!engine->acceptor || i >= acceptor_count(engine->acceptor))
		return;
	(void)acceptor_get(engine->acceptor, i, &counters);
	json_put_string(ret, "server", door_target_state_name(counters.state));
	json_put_u64(ret, "visitors", counters.visitors);
	json_put_u64(ret, "visitors_now", counters.visitors_now);
	json_put_u64(ret, "bytes_in", counters.bytes_in);
	json_put_u64(ret, "bytes_out", counters.bytes_out);
	json_put_u64(ret, "not_allowed", counters.refused[DOOR_GATE_NOT_ALLOWED]);
	json_put_u64(ret, "over_rate", counters.refused[DOOR_GATE_OVER_RATE]);
	json_put_u64(ret, "over_rate_source", counters.refused[DOOR_GATE_OVER_SOURCE_RATE]);
	json_put_u64(ret, "not_reached", counters.unreachable);
}
