/*
 * SessionManager: holds the session key; seals and opens session messages.
 *
 *   DirectRouter, RelayRouter ── sealed ──► SessionManager ── opened ──► TrafficManager
 *   TrafficManager ── seal ──► SessionManager ── write datagram / frame ──► Direct/RelayManager
 *   session ── map ──► SessionManager: the peers' session keys
 *
 * What does not open is counted and dropped (session_box.h says why).
 */
#pragma once

#include "actors/session_manager/session_box.h"
#include "actors/stage.h"

struct session_manager {
	struct actor actor;
	struct session_box *box;
	struct map_ref *map; /* the last one, to see who left */
};

/* Copies the session key. */
void session_manager_start(struct session_manager *manager, struct stage *stage,
			   const struct secret_key *session_key);
void session_manager_stop(struct session_manager *manager);
