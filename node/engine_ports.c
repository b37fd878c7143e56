/*
 * Ports that lead to members: what this node's front door has opened, told to control; and what has come of the ports that this
 * node publishes, by what the doors of others say in the map.
 *
 *   front door ──► open, or why not ──► log, Session ──► control ──► map: relays ──► `p2pctl exposures` of members
 */
#include "node/engine_internal.h"

#include "common/log.h"

#include <errno.h>
#include <string.h>

/* ---- of our own door ---- */

static const struct port_state *find_state(const struct port_states *states, const struct port_name *name)
{
	for (uint32_t i = 0; i < states->n; i++)
		if (port_name_equal(&states->items[i].name, name))
			return &states->items[i];
	return NULL;
}

static void log_changes(const struct port_states *before, const struct port_states *now)
{
	for (uint32_t i = 0; i < now->n; i++) {
		const struct port_state *state = &now->items[i], *was = find_state(before, &state->name);
		const char *kind = port_kind_name(state->name.kind);
		if (was && was->error == state->error)
			continue;
		if (state->error == 0)
			log_info("frontdoor", "%s port %u is open: it leads to a member", kind, state->name.number);
		else if (state->error == -ENOSPC)
			log_warning("frontdoor", "%s port %u is not opened: %d are", kind, state->name.number, DOOR_MAX_PORTS / 2);
		else
			log_warning("frontdoor", "%s port %u, which a member publishes, cannot be opened: %s; it is tried again every "
				    "10 s", kind, state->name.number, strerror(-state->error));
	}
	for (uint32_t i = 0; i < before->n; i++)
		if (!find_state(now, &before->items[i].name))
			log_info("frontdoor", "%s port %u is closed", port_kind_name(before->items[i].name.kind),
				 before->items[i].name.number);
}

uint32_t engine_door_ports(const struct p2p_engine *engine, struct map_port ret[MAP_MAX_PORTS])
{
	const struct port_states *states = &engine->door_ports;

	_Static_assert(DOOR_MAX_PORTS <= MAP_MAX_PORTS, "all are told");
	for (uint32_t i = 0; i < states->n; i++)
		ret[i] = (struct map_port){ .is_udp = states->items[i].name.kind == PORT_UDP,
					    .is_open = states->items[i].error == 0,
					    .number = states->items[i].name.number };
	return states->n;
}

void engine_on_ports_changed(void *owner)
{
	struct p2p_engine *engine = owner;
	struct map_port ports[MAP_MAX_PORTS];
	struct port_states now;

	if (!engine->front_door)
		return; /* it is being closed */
	front_door_ports(engine->front_door, &now);
	log_changes(&engine->door_ports, &now);
	engine->door_ports = now;
	const uint32_t n = engine_door_ports(engine, ports);
	if (engine->session)
		session_set_ports(engine->session, ports, n);
}

/* ---- of what we publish ---- */

static bool is_ours_there(const struct map *map, uint32_t node_id, const struct port_name *port, uint32_t door_id)
{
	struct port_name on = *port;
	char any[PORT_NAME_TEXT], one[PORT_NAME_TEXT];

	on.door_id = door_id;
	port_name_print(port, any);
	port_name_print(&on, one);
	return map_has_grant(map, node_id, any) || map_has_grant(map, node_id, one);
}

enum engine_port_outcome engine_port_outcome(const struct map *map, uint32_t node_id, const struct port_name *port,
					     const char **ret_door)
{
	enum engine_port_outcome outcome = ENGINE_PORT_NO_DOOR;

	*ret_door = NULL;
	for (uint32_t i = 0; i < map->n_relays; i++) {
		const struct map_relay *relay = &map->relays[i];
		const struct map_peer *peer = relay->id == map->self.id ? &map->self : map_find_peer(map, relay->id);
		if (!peer || !peer->front_door || !is_ours_there(map, node_id, port, relay->id))
			continue;
		if (outcome == ENGINE_PORT_NO_DOOR) {
			outcome = ENGINE_PORT_NOT_OFFERED;
			*ret_door = peer->name;
		}
		for (uint32_t j = 0; j < relay->n_ports; j++) {
			if (relay->ports[j].number != port->number || relay->ports[j].is_udp != (port->kind == PORT_UDP))
				continue;
			if (relay->ports[j].is_open) {
				*ret_door = peer->name;
				return ENGINE_PORT_OPEN;
			}
			outcome = ENGINE_PORT_FAILED;
			*ret_door = peer->name;
		}
	}
	return outcome;
}
