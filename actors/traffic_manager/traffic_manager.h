/*
 * TrafficManager: runs one peer state machine per peer and carries out what it decides.
 *
 *   InConn, OutConn ── activity ──►┐                      ┌── set path ──► OutConn
 *   SessionManager ── opened ─────►│    TrafficManager    ├── set aka ───► DirectRouter
 *   session ── map ───────────────►│  peer_fsm, one each  ├── seal ──────► SessionManager
 *   EndpointManager ── our ep. ───►│                      │
 *   RelayManager ── relay state ──►┘                      │
 *   DirectManager ── send failed ─►                       │
 *
 * Handlers translate a message into an input of the machine; apply() carries out its actions. No
 * decision is taken here.
 */
#pragma once

#include "actors/data_plane.h"
#include "actors/stage.h"
#include "actors/traffic_manager/peer_fsm.h"

#define TRAFFIC_MANAGER_BUCKETS	   1024
#define TRAFFIC_MANAGER_RENDEZVOUS 8 /* honoured at once of one peer; then one in 200 ms */

struct traffic_peer {
	uint32_t id;
	struct traffic_peer *next; /* of the bucket */
	struct deadline deadline;
	struct peer_fsm fsm;
	uint32_t home_relay;
	bool in_active, out_active;
	uint64_t rendezvous_ns; /* up to when its share is used up */
	uint64_t told_ns;	/* when it was told where our WireGuard is */
	char name[MAP_NAME_LEN + 1];
};

struct traffic_manager {
	struct actor actor;
	struct data_plane *data_plane; /* told where peers are; asked for the paths of an earlier stage */
	uint64_t seed;
	struct map_ref *map;
	struct traffic_peer *buckets[TRAFFIC_MANAGER_BUCKETS];
	struct deadline_heap deadlines;
	uint32_t n_ours;
	struct endpoint ours[MESSAGE_MAX_ENDPOINTS];
	uint32_t n_relays_down;
	uint32_t relays_down[MAP_MAX_RELAYS];
	uint64_t n_unknown_peers; /* messages about peers that are gone */
	uint64_t n_rendezvous_dropped; /* of a peer that sends too many */
};

void traffic_manager_start(struct traffic_manager *manager, struct stage *stage,
			   struct data_plane *data_plane, uint64_t seed);
void traffic_manager_stop(struct traffic_manager *manager);
/* For status; NULL when unknown. Borrowed until the next loop turn. */
const struct peer_fsm *traffic_manager_peer(const struct traffic_manager *manager, uint32_t peer_id);
