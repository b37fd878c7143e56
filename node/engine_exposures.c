/*
 * What this node publishes: from the configuration and from p2pctl to control, and what has come of it.
 *
 *   configuration ─┐                            ┌──► Session ──► control ──► map (what is granted)
 *                  ├──► exposure_list ──────────┤                             │
 *   p2pctl ────────┘        │  ▲                └──► acceptor                 │
 *                           ▼  │ at start                                     │
 *                    state folder: exposures            state of each ◄───────┘
 */
#include "node/engine_internal.h"

#include "common/log.h"
#include "common/rpc.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WHY_LEN 1024

static struct exposure_rings rings_of(const struct p2p_engine *engine)
{
	struct exposure_rings rings = { .n_listen = engine->has_front_door ? engine->door_options.n_listen : 0,
					.tcp_ports = engine->door_options.tcp_ports,
					.udp_ports = engine->door_options.udp_ports,
					.leads_to = front_door_leads_back };

	memcpy(rings.listen, engine->door_options.listen, sizeof(rings.listen));
	return rings;
}

static bool is_acceptor(const struct p2p_engine *engine, const struct endpoint *target)
{
	const struct endpoint acceptor = endpoint_from_v4(ntohl(engine->membership.member.ip4.s_addr), engine->acceptor_port);

	return engine->acceptor_port != 0 && endpoint_equal(&acceptor, target);
}

bool engine_leads_back(const struct p2p_engine *engine, const struct exposure *exposure)
{
	const struct exposure_rings rings = rings_of(engine);

	return is_acceptor(engine, &exposure->target) || exposure_rings_is_door(&rings, &exposure->target) ||
	       exposure_rings_is_port(&rings, engine->exposures, exposure);
}

/* Visitors would be led in again, and again. */
static int check_no_loop(const struct p2p_engine *engine, const struct exposure *exposure, struct error *reterr)
{
	const struct exposure_rings rings = rings_of(engine);

	if (is_acceptor(engine, &exposure->target))
		return error_set(reterr, -EINVAL, "%s is where this node takes visitors in itself; name the port of the server behind it",
				 endpoint_text(&exposure->target).s);
	return exposure_rings_check(&rings, engine->exposures, exposure, reterr);
}

int engine_take_exposures(struct p2p_engine *engine, const struct p2p_engine_options *options, struct error *reterr)
{
	engine->exposures = calloc(1, sizeof(*engine->exposures));
	if (!engine->exposures)
		abort();
	for (size_t i = 0; options->exposures && options->exposures[i]; i++) {
		const char *place = options->exposure_places ? options->exposure_places[i] : "the program's options";
		struct exposure exposure;
		if (exposure_parse(options->exposures[i], &exposure, reterr) != 0 ||
		    check_no_loop(engine, &exposure, reterr) != 0 ||
		    exposure_list_add(engine->exposures, &exposure, place, reterr) != 0) {
			error_prefix(reterr, "%s", place);
			return -EINVAL;
		}
	}
	return 0;
}

void engine_load_exposures(struct p2p_engine *engine)
{
	struct error error;
	char *text;
	int r = state_dir_load_exposures(&engine->dir, &text, &error);

	if (r == 0) {
		r = exposure_list_read_added(engine->exposures, text);
		if (r > 0)
			log_warning("expose", "%d of what p2pctl exposed is left out, and kept; 'p2pctl exposures' says why", r);
		else if (r < 0)
			error_set(&error, r, "more lines than can be kept are no exposures");
		free(text);
	}
	engine->exposures_unread = r < 0 && r != -ENOENT;
	if (engine->exposures_unread)
		log_warning("expose", "what p2pctl exposed is not known: %s", error.message);
}

bool engine_publishes(const struct p2p_engine *engine, struct map_exposures *ret)
{
	*ret = (struct map_exposures){ .id = engine->membership.member.node_id,
				       .port = engine->acceptor_port,
				       .n = engine->exposures->n };
	for (uint32_t i = 0; i < ret->n; i++)
		exposure_print_host(&engine->exposures->items[i].exposure, ret->hosts[i]);
	return ret->n > 0;
}

void engine_exposures_changed(struct p2p_engine *engine)
{
	struct map_exposures exposures;

	(void)engine_publishes(engine, &exposures);
	if (engine->session)
		session_set_exposures(engine->session, &exposures);
}

void engine_set_acceptor_port(struct p2p_engine *engine, uint16_t port)
{
	if (engine->acceptor_port == port)
		return;
	engine->acceptor_port = port;
	if (engine->exposures->n > 0)
		engine_exposures_changed(engine);
}

/* A public node's relay is asked for by its name, where it has a port with the front door. */
static int check_no_relays_name(const struct p2p_engine *engine, const struct exposure *exposure, struct error *reterr)
{
	const struct map *map = engine->map ? map_ref_get(engine->map) : NULL;

	for (uint32_t i = 0; map && !exposure->host.is_wildcard && i < map->n_relays; i++)
		if (strcmp(map->relays[i].name, exposure->host.name.text) == 0)
			return error_set(reterr, -EINVAL, "%s is a public node of this network, and its relay is asked for by that "
					 "name: a host needs another", map->relays[i].name);
	return 0;
}

/* Kept first, then told. */
static int keep(struct p2p_engine *engine, struct exposure_list *changed, struct error *reterr)
{
	if (engine->exposures_unread)
		return error_set(reterr, RPC_INTERNAL_ERROR, "the file 'exposures' in the state folder could not be read at the "
				 "start, and would be lost: mend or remove it, and restart p2pnode");
	char *text = exposure_list_print_added(changed);
	int r = state_dir_save_exposures(&engine->dir, text, reterr);

	free(text);
	if (r != 0)
		return RPC_INTERNAL_ERROR;
	*engine->exposures = *changed;
	engine_tell_acceptor(engine);
	engine_exposures_changed(engine);
	return 0;
}

static int code_of(int r)
{
	switch (r) {
	case -EEXIST:
		return RPC_ALREADY;
	case -ENOSPC:
		return RPC_BUSY;
	case -ENOENT:
		return RPC_NOT_FOUND;
	case -EPERM:
		return RPC_ALREADY; /* nothing that another user could do */
	default:
		return RPC_INVALID_PARAMS;
	}
}

static int check_member(const struct p2p_engine *engine, struct error *reterr)
{
	if (engine->state == MEMBER)
		return 0;
	return error_set(reterr, RPC_UNAVAILABLE, "this node is no member of a network: p2pctl join LINK");
}

int engine_expose(struct p2p_engine *engine, const struct exposure *exposure, struct error *reterr)
{
	struct exposure_list *changed = malloc(sizeof(*changed));
	int r = check_member(engine, reterr);

	if (!changed)
		abort();
	*changed = *engine->exposures;
	if (r == 0) {
		r = check_no_loop(engine, exposure, reterr);
		r = r == 0 ? check_no_relays_name(engine, exposure, reterr) : r;
		r = r == 0 ? exposure_list_add(changed, exposure, "", reterr) : r;
		r = r == 0 ? keep(engine, changed, reterr) : code_of(r);
	}
	free(changed);
	return r;
}

int engine_unexpose(struct p2p_engine *engine, const struct exposure *host, struct error *reterr)
{
	struct exposure_list *changed = malloc(sizeof(*changed));
	int r;

	if (!changed)
		abort();
	*changed = *engine->exposures;
	r = exposure_list_remove(changed, host, reterr);
	r = r == 0 ? keep(engine, changed, reterr) : code_of(r);
	free(changed);
	return r;
}

void engine_forget_exposures(struct p2p_engine *engine)
{
	exposure_list_forget_added(engine->exposures);
	engine->exposures_unread = false; /* and the file is gone */
}

/* ---- what has come of them ---- */

static const char *const state_names[] = {
	[EXPOSURE_NOT_JOINED] = "not joined",	    [EXPOSURE_NOT_OPEN] = "not open",
	[EXPOSURE_ASKING] = "asking control",	    [EXPOSURE_CONTROL_OLD] = "control too old",
	[EXPOSURE_NOT_GRANTED] = "not granted",	    [EXPOSURE_NO_DOOR] = "no front door",
	[EXPOSURE_PORT_NOT_OPENED] = "port not opened", [EXPOSURE_PORT_TAKEN] = "port taken",
	[EXPOSURE_TRYING] = "trying the target",    [EXPOSURE_TARGET_DOWN] = "target down",
	[EXPOSURE_NO_CERTIFICATE] = "no certificate",
	[EXPOSURE_LIVE] = "live",
};

const char *exposure_state_name(enum exposure_state state)
{
	return state_names[state];
}

/* NULL: the map does not have it. */
static const struct map_exposure *find_in_map(const struct map *map, uint32_t node_id, const char *host)
{
	uint32_t n;
	const struct map_exposure *own = map_exposures_of(map, node_id, &n);

	for (uint32_t i = 0; i < n; i++)
		if (strcmp(own[i].host, host) == 0)
			return &own[i];
	return NULL;
}

static bool is_door(const struct map *map, const struct map_peer *peer)
{
	return peer->front_door && map_find_relay(map, peer->id);
}

static bool has_door(const struct map *map)
{
	bool has = is_door(map, &map->self);

	for (uint32_t i = 0; i < map->n_peers && !has; i++)
		has = is_door(map, &map->peers[i]);
	return has;
}

/* Of one that is in the map. */
static enum exposure_state state_of_target(const struct p2p_engine *engine, uint32_t i)
{
	const bool is_udp = engine->exposures->items[i].exposure.takes[DOOR_UDP];

	if (engine_lacks_certificate(engine, i))
		return EXPOSURE_NO_CERTIFICATE;
	switch (engine_target_state(engine, i)) {
	case DOOR_TARGET_UNKNOWN:
		return is_udp ? EXPOSURE_LIVE : EXPOSURE_TRYING; /* datagrams are not answered by who is only asked */
	case DOOR_TARGET_DOWN:
		return EXPOSURE_TARGET_DOWN;
	case DOOR_TARGET_UP:
		break;
	}
	return EXPOSURE_LIVE;
}

/* Of one that is in the map. */
static enum exposure_state state_at_doors(const struct p2p_engine *engine, const struct map *map, uint32_t i)
{
	struct port_name port;
	const char *door;

	if (!has_door(map))
		return EXPOSURE_NO_DOOR;
	if (!exposure_is_port(&engine->exposures->items[i].exposure, &port))
		return state_of_target(engine, i);
	switch (engine_port_outcome(map, engine->membership.member.node_id, &port, &door)) {
	case ENGINE_PORT_NO_DOOR:
	case ENGINE_PORT_NOT_OFFERED:
		return EXPOSURE_PORT_NOT_OPENED;
	case ENGINE_PORT_FAILED:
		return EXPOSURE_PORT_TAKEN;
	case ENGINE_PORT_OPEN:
		break;
	}
	return state_of_target(engine, i);
}

static enum exposure_state state_of(const struct p2p_engine *engine, uint32_t i, const char *host)
{
	const struct map *map = engine->map ? map_ref_get(engine->map) : NULL;
	uint64_t sequence = 0;

	if (engine->state != MEMBER)
		return EXPOSURE_NOT_JOINED;
	if (!engine->acceptor || acceptor_port(engine->acceptor) == 0 || acceptor_tls_failure(engine->acceptor, i)[0] != '\0')
		return EXPOSURE_NOT_OPEN;
	const struct map_exposure *told = map ? find_in_map(map, engine->membership.member.node_id, host) : NULL;
	if (told && told->port == acceptor_port(engine->acceptor))
		return state_at_doors(engine, map, i);
	if (!map || !engine->session ||
	    session_control_word(engine->session, &sequence) != CONTROL_HAS_ANSWERED)
		return EXPOSURE_ASKING;
	if (sequence == 0)
		return EXPOSURE_CONTROL_OLD;
	return told || map->sequence < sequence ? EXPOSURE_ASKING : EXPOSURE_NOT_GRANTED;
}

bool engine_is_led_here(const struct p2p_engine *engine, uint32_t i)
{
	char host[EXPOSURE_HOST_TEXT];

	exposure_print_host(&engine->exposures->items[i].exposure, host);
	switch (state_of(engine, i, host)) {
	case EXPOSURE_NO_CERTIFICATE:
	case EXPOSURE_TRYING:
	case EXPOSURE_TARGET_DOWN:
	case EXPOSURE_LIVE:
		return true;
	default:
		return false;
	}
}

/* Who publishes the same host; NULL: nobody. */
static const char *other_publisher(const struct map *map, uint32_t node_id, const char *host)
{
	for (uint32_t i = 0; i < map->n_exposures; i++) {
		const struct map_exposure *other = &map->exposures[i];
		const struct map_peer *peer = map_find_peer(map, other->peer_id);
		if (other->peer_id != node_id && peer && strcmp(other->host, host) == 0)
			return peer->name;
	}
	return NULL;
}

static void say_not_granted(const struct p2p_engine *engine, const char *host, char ret[WHY_LEN])
{
	const struct map *map = map_ref_get(engine->map);
	const uint32_t id = engine->membership.member.node_id;
	const char *other = other_publisher(map, id, host), *bare = strstr(host, "://");

	struct port_name port;

	bare = bare ? bare + 3 : host;
	if (map_has_grant(map, id, bare))
		snprintf(ret, WHY_LEN, "%s is granted, but members publish as many hosts as a map has room for: it waits for one "
			 "to be unexposed", bare);
	else
		snprintf(ret, WHY_LEN, "%s is not granted to this node%s%s; an admin grants it: p2pctl admin %s add %s '%s'",
			 bare, other ? ", it is published by " : "", other ? other : "",
			 port_name_from(bare, strlen(bare), &port) == 0 ? "port" : "host", engine->membership.member.name, bare);
}

static void say_asking(const struct p2p_engine *engine, char ret[WHY_LEN])
{
	if (!engine->session || !session_is_connected(engine->session))
		snprintf(ret, WHY_LEN, "control is not connected: it is asked as soon as it is");
	else if (session_control_refusal(engine->session)[0] != '\0')
		snprintf(ret, WHY_LEN, "control refused it, and is asked again: %s", session_control_refusal(engine->session));
}

static void say_not_open(const struct p2p_engine *engine, uint32_t i, char ret[WHY_LEN])
{
	const char *failure = engine->acceptor ? acceptor_failure(engine->acceptor) : "";

	if (engine->acceptor && acceptor_port(engine->acceptor) != 0) {
		snprintf(ret, WHY_LEN, "%s. It is tried again every 10 s", acceptor_tls_failure(engine->acceptor, i));
		return;
	}
	snprintf(ret, WHY_LEN, "front doors cannot come to this node%s%s: is its interface up, and its overlay address on it? It is "
		 "tried again every 10 s", failure[0] ? ": " : "", failure);
}

/* It is a port, in the map, and not open for us anywhere. */
static void say_port(const struct p2p_engine *engine, const struct exposure *exposure, char ret[WHY_LEN])
{
	const uint32_t id = engine->membership.member.node_id;
	struct port_name port;
	const char *door;

	if (!exposure_is_port(exposure, &port))
		return;
	const char *kind = port_kind_name(port.kind), *key = port.kind == PORT_UDP ? "udp_ports" : "tcp_ports";
	const enum engine_port_outcome outcome = engine_port_outcome(map_ref_get(engine->map), id, &port, &door);
	if (outcome == ENGINE_PORT_FAILED)
		snprintf(ret, WHY_LEN, "%s could not open %s port %u: another program has it there, or it may not have it; its log "
			 "says more. End that program, or have another port granted", door, kind, port.number);
	else if (outcome == ENGINE_PORT_NO_DOOR)
		snprintf(ret, WHY_LEN, "%s port %u is granted at a node that opens no front door: grant it at another, without --on "
			 "at any", kind, port.number);
	else
		snprintf(ret, WHY_LEN, "no front door opens %s port %u: its operator, as of %s, adds it to %s in [frontdoor] of "
			 "p2pnode.conf, and restarts p2pnode", kind, port.number, door ? door : "a public node", key);
}

static void print_why(const struct p2p_engine *engine, uint32_t i, const char *host, enum exposure_state state,
		      char ret[WHY_LEN])
{
	const struct exposure *exposure = &engine->exposures->items[i].exposure;

	ret[0] = '\0';
	switch (state) {
	case EXPOSURE_NOT_GRANTED:
		say_not_granted(engine, host, ret);
		break;
	case EXPOSURE_NO_DOOR:
		snprintf(ret, WHY_LEN, "no public node of the network opens a front door: one with [public] and [frontdoor] in "
			 "its p2pnode.conf is needed, and 'p2pctl admin relay add' for it");
		break;
	case EXPOSURE_ASKING:
		say_asking(engine, ret);
		break;
	case EXPOSURE_CONTROL_OLD:
		snprintf(ret, WHY_LEN, "p2pcontrol is of an earlier version and knows nothing of exposures: update it");
		break;
	case EXPOSURE_NOT_OPEN:
		say_not_open(engine, i, ret);
		break;
	case EXPOSURE_TARGET_DOWN:
		snprintf(ret, WHY_LEN, "nobody takes %s at %s: start the server there, or expose %s with another target. It "
			 "is tried again %s", exposure->takes[DOOR_UDP] ? "datagrams" : "connections", endpoint_text(&exposure->target).s, host,
			 exposure->takes[DOOR_UDP] ? "with the next visitor" : "every 10 s");
		break;
	case EXPOSURE_NOT_JOINED:
		snprintf(ret, WHY_LEN, "this node is no member of a network: p2pctl join LINK");
		break;
	case EXPOSURE_PORT_NOT_OPENED:
	case EXPOSURE_PORT_TAKEN:
		say_port(engine, exposure, ret);
		break;
	case EXPOSURE_NO_CERTIFICATE: /* it is said of each, whatever else holds */
	case EXPOSURE_TRYING:
	case EXPOSURE_LIVE:
		break;
	}
}

static struct json *item_json(const struct p2p_engine *engine, uint32_t i)
{
	const struct exposure_item *item = &engine->exposures->items[i];
	struct json *json = json_object(), *allow = json_array();
	char host[EXPOSURE_HOST_TEXT], why[WHY_LEN];

	exposure_print_host(&item->exposure, host);
	const enum exposure_state state = state_of(engine, i, host);
	print_why(engine, i, host, state, why);
	if (why[0] == '\0')
		engine_say_certificate(engine, i, why, sizeof(why));
	json_put_string(json, "host", host);
	json_put_string(json, "target", endpoint_text(&item->exposure.target).s);
	json_put_string(json, "state", exposure_state_name(state));
	if (why[0] != '\0')
		json_put_string(json, "why", why);
	json_put_string(json, "proxy", exposure_proxy_name(item->exposure.proxy));
	for (uint32_t j = 0; j < item->exposure.n_allow; j++)
		json_append_string(allow, exposure_prefix_text(&item->exposure.allow[j]).s);
	json_put(json, "allow", allow);
	json_put_integer(json, "rate", item->exposure.rate);
	json_put_integer(json, "rate_source", item->exposure.rate_source);
	json_put_string(json, "tls", exposure_tls_name(item->exposure.tls));
	json_put_boolean(json, "quic", exposure_has_quic(&item->exposure));
	if (item->place[0] != '\0')
		json_put_string(json, "place", item->place);
	return json;
}

static void append_door(struct json *doors, const struct map *map, const struct map_peer *peer)
{
	if (is_door(map, peer))
		json_append_string(doors, peer->name);
}

static struct json *left_out_item(const char *line, const char *why)
{
	struct json *json = json_object();

	json_put_string(json, "line", line);
	json_put_string(json, "why", why);
	return json;
}

/* What p2pctl has exposed, and is not now; as many of them as could be. */
static struct json *left_out_json(const struct p2p_engine *engine)
{
	struct json *list = json_array();
	char line[EXPOSURE_TEXT];
	struct error why;

	for (uint32_t i = 0; i < EXPOSURE_MAX && exposure_list_left_out(engine->exposures, i, line, &why); i++)
		json_append(list, left_out_item(line, why.message));
	if (engine->exposures_unread)
		json_append(list, left_out_item("all of 'exposures' in the state folder",
						"the file could not be read at the start: mend or remove it, and restart p2pnode"));
	return list;
}

struct json *engine_exposures_json(const struct p2p_engine *engine)
{
	const struct map *map = engine->map ? map_ref_get(engine->map) : NULL;
	struct json *json = json_object(), *exposures = json_array(), *doors = json_array();

	for (uint32_t i = 0; i < engine->exposures->n; i++) {
		struct json *item = item_json(engine, i);
		engine_put_visitors(engine, i, item);
		engine_put_tls(engine, i, item);
		json_append(exposures, item);
	}
	if (map)
		append_door(doors, map, &map->self);
	for (uint32_t i = 0; map && i < map->n_peers; i++)
		append_door(doors, map, &map->peers[i]);
	json_put(json, "exposures", exposures);
	json_put(json, "front_doors", doors);
	json_put(json, "left_out", left_out_json(engine));
	return json;
}
