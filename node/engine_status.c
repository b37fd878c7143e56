/* What the Engine tells of itself. */
#include "node/engine_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum node_state status_state(const struct p2p_engine *engine)
{
	switch (engine->state) {
	case NOT_JOINED:
		return NODE_NOT_JOINED;
	case JOINING:
		return NODE_JOINING;
	case REMOVED:
		return NODE_REMOVED;
	case MEMBER:
		break;
	}
	return engine->session ? NODE_RUNNING : NODE_STARTING;
}

static void fill_public_drops(const struct p2p_engine *engine, struct node_status *status)
{
	if (!engine->public_node)
		return;
	const struct public_node_stats stats = public_node_stats(engine->public_node);
	const struct {
		const char *name;
		uint64_t n;
	} drops[] = {
		{ "relay refused: not TLS", stats.relay.refused_tls },
		{ "relay refused: time-out", stats.relay.refused_timeout },
		{ "relay refused: not a member", stats.relay.refused_not_member },
		{ "relay refused: full", stats.relay.refused_full + stats.relay.refused_handshakes },
		{ "relay packet: destination unknown", stats.relay.dropped_unknown },
		{ "relay packet: queue full", stats.relay.dropped_queue },
		{ "relay frame malformed", stats.relay.malformed + stats.relay.closed_protocol },
		{ "stun garbage", stats.stun.garbage + stats.stun.not_a_request },
		{ "stun rate limited", stats.stun.rate_limited },
	};

	for (size_t i = 0; i < ARRAY_LEN(drops); i++)
		node_status_add_drop(status, drops[i].name, drops[i].n);
}

static void fill_quic_drops(const struct quic_counters *quic, struct node_status *status)
{
	const struct {
		const char *name;
		uint64_t n;
	} drops[] = {
		{ "front door, QUIC: unknown host", quic->unknown_host },
		{ "front door, QUIC: nobody there", quic->nobody_there },
		{ "front door, QUIC: too slow", quic->too_slow },
		{ "front door, QUIC: of no connection", quic->stray },
		{ "front door, QUIC: all places taken", quic->over_limit },
		{ "front door, QUIC: too many of one source", quic->over_source_limit + quic->over_paths + quic->over_port },
		{ "front door, QUIC: more than who is not proven may be sent", quic->over_answer },
		{ "front door, QUIC: too many a second", quic->over_rate + quic->not_negotiated },
		{ "front door, QUIC: no file descriptor", quic->no_descriptors },
		{ "front door, QUIC: target not reached", quic->unreachable },
		{ "front door, QUIC: socket full", quic->full },
		{ "front door, QUIC: datagram too large", quic->too_big },
		{ "front door, QUIC: not sent", quic->failed },
	};
	uint64_t not_understood = 0;

	for (int i = 0; i < SNIFFER_N_REASONS; i++)
		not_understood += quic->refused[i];
	node_status_add_drop(status, "front door, QUIC: not understood", not_understood);
	for (size_t i = 0; i < ARRAY_LEN(drops); i++)
		node_status_add_drop(status, drops[i].name, drops[i].n);
}

/* Visitors that were not served, by cause; of: which door it is. Causes that are none there are 0, and left out of lists. */
static void add_door_drops(const char *of, const struct front_door_counters *counters, struct node_status *status)
{
	const struct {
		const char *name;
		uint64_t n;
	} drops[] = {
		{ "unknown host", counters->unknown_host },
		{ "nobody there", counters->nobody_there },
		{ "too many wait for the relay", counters->relay_over_limit },
		{ "too many wait for webgw", counters->webgw_over_limit },
		{ "too slow", counters->too_slow },
		{ "left early", counters->left_early },
		{ "all places taken", counters->over_limit },
		{ "too many of one source", counters->over_source_limit },
		{ "no file descriptor", counters->no_descriptors },
		{ "target not reached", counters->unreachable + counters->connect_timed_out },
		{ "idle for too long", counters->timed_out },
		{ "not allowed", counters->not_allowed },
		{ "over the rate", counters->over_rate },
		{ "not by a front door", counters->no_door },
		{ "header not understood", counters->bad_header },
		{ "led in a ring", counters->in_a_ring },
	};
	char name[sizeof(status->drops->name)];

	for (size_t i = 0; i < ARRAY_LEN(drops); i++) {
		snprintf(name, sizeof(name), "%s: %s", of, drops[i].name);
		node_status_add_drop(status, name, drops[i].n);
	}
}

/* Datagrams to ports that lead to members. */
static void add_datagram_drops(const char *of, const struct datagram_counters *counters, struct node_status *status)
{
	const struct {
		const char *name;
		uint64_t n;
	} drops[] = {
		{ "nobody there", counters->unknown_port + counters->nobody_there },
		{ "not allowed", counters->not_allowed },
		{ "over the rate", counters->over_rate + counters->over_gate_rate },
		{ "all places taken", counters->over_limit },
		{ "too many of one source", counters->over_source_limit },
		{ "target not reached", counters->unreachable },
		{ "no file descriptor", counters->no_descriptors },
		{ "not by a front door", counters->no_door },
		{ "header not understood", counters->bad_header },
		{ "led in a ring", counters->in_a_ring },
		{ "not sent", counters->full + counters->too_big + counters->failed },
	};
	char name[sizeof(status->drops->name)];

	for (size_t i = 0; i < ARRAY_LEN(drops); i++) {
		snprintf(name, sizeof(name), "%s, UDP port: %s", of, drops[i].name);
		node_status_add_drop(status, name, drops[i].n);
	}
}

/* Of visitors that waited for agents, and of who dialled back. */
static void add_dial_drops(const struct front_door_counters *counters, struct node_status *status)
{
	node_status_add_drop(status, "front door: their host was taken away", counters->cut);
	node_status_add_drop(status, "front door: no agent dialled back", counters->dial_timed_out);
	node_status_add_drop(status, "front door: too many wait for agents", counters->dial_over_limit);
	node_status_add_drop(status, "front door: too many wait of one source", counters->dial_over_source_limit);
	node_status_add_drop(status, "front door: dialled back with a wrong secret", counters->dial_unknown);
	node_status_add_drop(status, "front door: dialled back too late", counters->dial_late);
	node_status_add_drop(status, "front door: dialled back and said nothing", counters->dial_silent);
	node_status_add_drop(status, "front door: dialled back too often", counters->dial_refused);
	node_status_add_drop(status, "front door: dialled back without TLS", counters->dial_bare);
}

static void add_webgw_drops(const struct webgw_counters *counters, struct node_status *status)
{
	node_status_add_drop(status, "webgw: no agent for a visitor", counters->nobody);
	node_status_add_drop(status, "webgw: agents read too slowly to be told", counters->not_read);
	node_status_add_drop(status, "webgw: agents ended that did not read", counters->ended);
	node_status_add_drop(status, "webgw: wrong secret or unknown host", counters->wrong);
	node_status_add_drop(status, "webgw: connected and did not subscribe", counters->unproven);
	node_status_add_drop(status, "webgw: made room before it subscribed", counters->made_room);
	node_status_add_drop(status, "webgw: too many connections, or too fast", counters->refused);
}

static void fill_door_drops(const struct p2p_engine *engine, struct node_status *status)
{
	uint64_t not_understood = 0;

	if (engine->front_door) {
		const struct front_door_counters counters = front_door_counters(engine->front_door);
		for (int i = 0; i < SNIFFER_N_REASONS; i++)
			not_understood += counters.refused[i];
		node_status_add_drop(status, "front door: not understood", not_understood);
		node_status_add_drop(status, "front door: not taken up after a restart", counters.streams_lost);
		node_status_add_drop(status, "front door: warm connections that were dead", counters.warm_dead);
		node_status_add_drop(status, "front door: warm connections that members ended", counters.warm_ended);
		add_door_drops("front door", &counters, status);
		if (engine->door_options.udp_ports.n > 0)
			add_datagram_drops("front door", &counters.datagrams, status);
		if (engine->door_options.serves_quic)
			fill_quic_drops(&counters.quic, status);
		if (engine->has_webgw)
			add_dial_drops(&counters, status);
	}
	if (engine->webgw) {
		const struct webgw_counters counters = webgw_counters(engine->webgw);
		add_webgw_drops(&counters, status);
		engine_add_webgw_tls_drops(engine, status);
	}
	if (engine->acceptor && acceptor_port(engine->acceptor) != 0) {
		const struct front_door_counters counters = acceptor_counters(engine->acceptor);
		add_door_drops("exposed", &counters, status);
		add_datagram_drops("exposed", &counters.datagrams, status);
	}
}

static void fill_member(const struct p2p_engine *engine, struct node_status *status)
{
	const struct membership *member = &engine->membership.member;

	strcpy(status->network, member->network);
	status->self.id = member->node_id;
	strcpy(status->self.name, member->name);
	status->self.ip4 = member->ip4;
	status->self.ip6 = member->ip6;
	snprintf(status->control.address, sizeof(status->control.address),
		 strchr(engine->membership.host, ':') ? "[%s]:%u" : "%s:%u", engine->membership.host,
		 engine->membership.port);
}

void engine_fill_status(const struct p2p_engine *engine, struct node_status *status)
{
	status->state = status_state(engine);
	snprintf(status->version, sizeof(status->version), "%s", P2P_VERSION);
	snprintf(status->interface, sizeof(status->interface), "%s", engine->interface);
	snprintf(status->wireguard, sizeof(status->wireguard), "%s", wireguard_kind_name(engine->wireguard));
	status->mtu = engine->mtu;
	status->uptime_ms = uv_now(engine->loop) - engine->started_ms;
	status->self.node_key = engine->node_key_public;
	status->self.is_public = engine->is_public;
	if (engine->state != MEMBER && engine->state != REMOVED)
		return;
	fill_member(engine, status);
	if (engine->state == REMOVED)
		snprintf(status->control.last_error, sizeof(status->control.last_error), "%.199s",
			 engine->removed_why);
	if (engine->data_plane)
		data_plane_fill_status(engine->data_plane, status);
	if (engine->port_mapping)
		port_mapping_fill_status(engine->port_mapping, status);
	if (engine->session)
		session_fill_status(engine->session, status);
	for (uint32_t i = 0; engine->map && i < status->n_peers; i++) {
		const struct map_peer *peer = map_find_peer(map_ref_get(engine->map), status->peers[i].id);
		status->peers[i].online = peer && peer->online;
	}
	fill_public_drops(engine, status);
	fill_door_drops(engine, status);
}

char *p2p_engine_status_json(struct p2p_engine *engine)
{
	struct node_status status;

	node_status_init(&status);
	engine_fill_status(engine, &status);
	struct json *json = node_status_to_json(&status);
	char *text = json_print(json);
	json_free(json);
	node_status_deinit(&status);
	return text;
}
