/*
 * TrafficManager: runs one peer state machine per peer and carries out what it decides.
 *
 *   InConn, OutConn ── activity ──►┐                      ┌── set path ──► OutConn
 *   SessionManager ── opened ─────►│    TrafficManager    ├── set aka ───► DirectRouter
 *   session ── map ───────────────►│  peer_fsm, one each  ├── seal ──────► SessionManager
 *   EndpointManager ── our ep. ───►│                      │
 *   RelayManager ── relay state ──►┘                      │
 *   DirectManager ── send failed ─►                       │
 *   the data plane ── doubted ────►                       │
 *
 * Handlers translate a message into an input of the machine; apply() carries out its actions. No
 * decision is taken here.
 */
#pragma once

#include "actors/data_plane.h"
#include "actors/stage.h"
#include "actors/traffic_manager/peer_fsm.h"
#include "actors/traffic_manager/peer_hard_nat.h"
#include "actors/traffic_manager/peer_mtu.h"

#define TRAFFIC_MANAGER_BUCKETS	   1024
#define TRAFFIC_MANAGER_RENDEZVOUS 8 /* honoured at once of one peer; then one in 200 ms */
#define TRAFFIC_MANAGER_NATS	   4 /* believed at once of one peer; then one in 500 ms */

struct traffic_peer {
	uint32_t id;
	struct traffic_peer *next; /* of the bucket */
	struct deadline deadline;
	struct peer_fsm fsm;
	struct peer_mtu mtu;
	struct peer_hard_nat hard_nat;
	uint32_t home_relay;
	bool in_active, out_active;
	uint64_t rendezvous_ns; /* up to when its share is used up */
	uint64_t nat_ns;	/* the same */
	uint64_t told_ns;	/* when it was told where our WireGuard is */
	char name[MAP_NAME_LEN + 1];
};

struct traffic_manager {
	struct actor actor;
	struct data_plane *data_plane; /* told where peers are; asked for the paths of an earlier stage */
	struct map_ref *map;
	struct traffic_peer *buckets[TRAFFIC_MANAGER_BUCKETS];
	struct deadline_heap deadlines;
	struct hard_nat_ports hard_nat_ports;
	struct hard_nat_turn hard_nat_turn;
	struct session_nat our_nat;
	uint32_t n_ours;
	struct endpoint ours[MESSAGE_MAX_ENDPOINTS];
	uint32_t n_relays_down;
	uint32_t relays_down[MAP_MAX_RELAYS];
	uint64_t n_unknown_peers; /* messages about peers that are gone */
	uint64_t n_rendezvous_dropped; /* of a peer that sends too many */
	uint64_t n_nats_dropped;       /* the same */
};

void traffic_manager_start(struct traffic_manager *manager, struct stage *stage, struct data_plane *data_plane);
/* Without it no hard NAT is searched from its own side. Copied; before the first map. */
void traffic_manager_set_hard_nat_ports(struct traffic_manager *manager, const struct hard_nat_ports *ports);
void traffic_manager_stop(struct traffic_manager *manager);
/* The peer is asked by relay whether it hears us. */
void traffic_manager_on_doubted(struct traffic_manager *manager, uint32_t peer_id);
/* For status; NULL when unknown. Borrowed until the next loop turn. */
const struct peer_fsm *traffic_manager_peer(const struct traffic_manager *manager, uint32_t peer_id);
const struct path_mtu_fsm *traffic_manager_peer_mtu(const struct traffic_manager *manager, uint32_t peer_id);
/* Peers that somebody wants to reach now, though we have neither a direct path to them nor their relay. */
uint32_t traffic_manager_n_missing(const struct traffic_manager *manager);
