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
	if (engine->session)
		session_fill_status(engine->session, status);
	for (uint32_t i = 0; engine->map && i < status->n_peers; i++) {
		const struct map_peer *peer = map_find_peer(map_ref_get(engine->map), status->peers[i].id);
		status->peers[i].online = peer && peer->online;
	}
	fill_public_drops(engine, status);
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
