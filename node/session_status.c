/* What a Session tells of itself: its own endpoints and the NAT, relays, peers, and what was dropped. */
#include "node/session_internal.h"

#include "common/clock.h"
#include "node/data_plane.h"

#include <stdio.h>
#include <string.h>

static enum node_nat nat_of(const struct endpoint_fsm *fsm)
{
	bool any_answer = false;

	for (uint32_t i = 0; i < fsm->n_servers; i++)
		any_answer |= fsm->servers[i].answer_ns != 0 && fsm->servers[i].n_missed == 0;
	switch (fsm->mapping) {
	case ENDPOINT_MAPPING_NONE:
		return NODE_NAT_NONE;
	case ENDPOINT_MAPPING_INDEPENDENT:
		return NODE_NAT_EASY;
	case ENDPOINT_MAPPING_ADDRESS:
	case ENDPOINT_MAPPING_DEPENDENT:
		return NODE_NAT_HARD;
	case ENDPOINT_MAPPING_UNKNOWN:
	case ENDPOINT_N_MAPPINGS:
		break;
	}
	return fsm->n_servers > 0 && !any_answer && fsm->state == ENDPOINT_SETTLED ? NODE_NAT_UDP_BLOCKED
										   : NODE_NAT_UNKNOWN;
}

static void fill_endpoints(const struct endpoint_manager *manager, struct node_status *status)
{
	const struct endpoint_fsm *fsm = &manager->fsm;

	for (uint32_t i = 0; i < fsm->n_ours; i++) {
		enum node_endpoint_kind kind = NODE_ENDPOINT_STUN;
		for (uint32_t j = 0; j < fsm->n_local; j++)
			if (endpoint_equal(&fsm->local[j], &fsm->ours[i]))
				kind = NODE_ENDPOINT_LOCAL;
		for (uint32_t j = 0; j < fsm->n_extra; j++)
			if (endpoint_equal(&fsm->extra[j], &fsm->ours[i]))
				kind = endpoint_equal(&fsm->extra[j], &manager->turned) ? NODE_ENDPOINT_TURN : NODE_ENDPOINT_PORTMAP;
		node_status_add_endpoint(status, &fsm->ours[i], kind);
	}
	status->nat = nat_of(fsm);
}

static void fill_nat_behaviour(const struct nat_findings *findings, struct node_status *status)
{
	status->nat_behaviour.findings = *findings;
	if (findings->at_ns != 0)
		status->nat_behaviour.age_ms = (int64_t)((clock_now_ns() - findings->at_ns) / 1000000);
}

static int64_t latency_of(const struct session *session, uint32_t relay_id)
{
	uint32_t us = endpoint_fsm_latency_us(&session->endpoint_manager.fsm, relay_id);

	if (us == 0)
		us = data_plane_relay_rtt_us(session->data_plane, relay_id);
	return us != 0 ? (int64_t)us : NODE_STATUS_UNKNOWN;
}

static void fill_relays(const struct session *session, const struct map *map, struct node_status *status)
{
	uint32_t home = session->relay_manager.fsm.home;

	for (uint32_t i = 0; i < map->n_relays; i++) {
		struct node_status_relay *relay = node_status_add_relay(status);

		relay->id = map->relays[i].id;
		strcpy(relay->name, map->relays[i].name);
		relay->latency_us = latency_of(session, relay->id);
		relay->connected = data_plane_relay_is_up(session->data_plane, relay->id);
		data_plane_fill_relay(session->data_plane, relay);
		relay->home = relay->id == home;
		if (!relay->home)
			continue;
		status->home_relay.id = relay->id;
		strcpy(status->home_relay.name, relay->name);
		status->home_relay.latency_us = relay->latency_us;
		strcpy(status->home_relay.transport, relay->transport);
	}
}

static void fill_peers(const struct session *session, struct node_status *status)
{
	for (uint32_t i = 0; i < status->n_peers; i++) {
		struct node_status_peer *peer = &status->peers[i];
		const struct peer_fsm *fsm = traffic_manager_peer(&session->traffic_manager, peer->id);

		if (!fsm)
			continue;
		snprintf(peer->state, sizeof(peer->state), "%s", peer_state_name(fsm->state));
		uint32_t us = peer_fsm_latency_us(fsm);
		peer->latency_us = us != 0 ? (int64_t)us : NODE_STATUS_UNKNOWN;
		peer->by_turn = peer_fsm_is_by_turn(fsm);
	}
}

static void fill_drops(const struct session *session, struct node_status *status)
{
	const struct session_counters *sealed = session_box_counters(session->session_manager.box);
	char name[48];

	for (int i = 1; i < SESSION_N_ERRORS; i++) {
		snprintf(name, sizeof(name), "session %s", session_error_name((enum session_error)i));
		node_status_add_drop(status, name, sealed->dropped[i]);
	}
	node_status_add_drop(status, "datagram of a stranger", session->direct_router.counters.strangers);
	node_status_add_drop(status, "frame of a stranger", session->relay_router.counters.strangers);
	node_status_add_drop(status, "stun no answer to us", session->endpoint_manager.n_bad_answers);
	node_status_add_drop(status, "rendezvous too often", session->traffic_manager.n_rendezvous_dropped);
	node_status_add_drop(status, "stage queue full", stage_counters(session->stage)->dropped_full);
	if (!session->lan)
		return;
	const struct lan_discovery_counters lan = lan_discovery_counters(session->lan);
	node_status_add_drop(status, "lan malformed", lan.malformed);
	node_status_add_drop(status, "lan of a stranger", lan.strangers);
	node_status_add_drop(status, "lan repeated", lan.repetitions);
	node_status_add_drop(status, "lan too often", lan.too_many);
}

void session_fill_status(const struct session *session, struct node_status *status)
{
	const struct map *map = session_map(session);

	status->control.connected = session->connected;
	status->control.since_ms = (int64_t)((clock_now_ns() - session->changed_ns) / 1000000);
	snprintf(status->control.last_error, sizeof(status->control.last_error), "%s",
		 session->connected ? "" : session->last_error);
	status->control.map_age_ms =
		session->map_ns != 0 ? (int64_t)((clock_now_ns() - session->map_ns) / 1000000) : NODE_STATUS_UNKNOWN;
	fill_endpoints(&session->endpoint_manager, status);
	fill_nat_behaviour(&session->endpoint_manager.nat.findings, status);
	fill_peers(session, status);
	fill_drops(session, status);
	if (map) {
		status->control.map_sequence = map->sequence;
		fill_relays(session, map, status);
	}
}
