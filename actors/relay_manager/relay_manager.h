/*
 * RelayManager: the way to and from the relays; which one is our home, which others are held.
 *
 *   data plane ── frame, relay state ──► RelayManager ── frame ──► RelayRouter
 *   SessionManager ── write frame ──► RelayManager ──► data plane
 *   EndpointManager ── latency ──► RelayManager ── relay state ──► TrafficManager
 *   session ── map ──► RelayManager; its port learns the home relay, for control
 *
 * The connections live in the data plane, which outlives the stage. Which of them there are is
 * home_fsm's decision.
 */
#pragma once

#include "actors/data_plane.h"
#include "actors/relay_manager/home_fsm.h"
#include "actors/relay_manager/relay_survey.h"
#include "actors/stage.h"

struct relay_manager_ports {
	void *owner;
	void (*home_relay)(void *owner, uint32_t relay_id); /* 0: none */
};

struct relay_manager {
	struct actor actor;
	struct data_plane *data_plane;
	struct relay_manager_ports ports;
	struct home_fsm fsm;
	struct map_ref *map;
	uint64_t n_not_sent; /* frames for a relay that was not up */
	struct relay_survey survey;
};

void relay_manager_start(struct relay_manager *manager, struct stage *stage, struct data_plane *data_plane,
			 const struct relay_manager_ports *ports);
void relay_manager_stop(struct relay_manager *manager);

/*
 * From the data plane; each becomes a message, so that the data plane is never called from inside
 * its own call. Bytes are borrowed. peer_id 0: a sender that is not in the map.
 */
void relay_manager_on_frame(struct relay_manager *manager, uint32_t relay_id, uint32_t peer_id,
			    const uint8_t *bytes, size_t len);
void relay_manager_on_relay_state(struct relay_manager *manager, uint32_t relay_id, bool up);
void relay_manager_on_leaving(struct relay_manager *manager, uint32_t relay_id);
/* The data plane is about to use a relay, or did. */
void relay_manager_on_used(struct relay_manager *manager, uint32_t relay_id);
