/*
 * RelayRouter: whose is this frame?
 *
 *   session message ──► SessionManager
 *   anything else from a peer ──► that peer's InConn
 *   from nobody we know: counted and dropped
 *
 * The data plane keeps WireGuard's packets; only the rest comes here.
 */
#pragma once

#include "actors/stage.h"

struct relay_router_counters {
	uint64_t session, of_peers, strangers;
};

struct relay_router {
	struct actor actor;
	struct relay_router_counters counters;
};

void relay_router_start(struct relay_router *router, struct stage *stage);
void relay_router_stop(struct relay_router *router);
