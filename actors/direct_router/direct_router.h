/*
 * DirectRouter: whose is this datagram?
 *
 *   STUN answer ──► EndpointManager
 *   session message ──► SessionManager
 *   anything else from an address known as a peer's ("AKA") ──► that peer's InConn
 *   the rest: counted and dropped
 *
 * The deciding half of the router; the data plane runs the same classification (demux.h) on every
 * datagram and keeps what is WireGuard, so that only the rest comes here.
 */
#pragma once

#include "actors/stage.h"

#define DIRECT_ROUTER_MAX_AKA 4096

struct direct_router_counters {
	uint64_t stun, session, of_peers, strangers, aka_full;
};

struct direct_router_aka {
	struct endpoint endpoint;
	uint32_t peer_id; /* 0: free */
};

struct direct_router {
	struct actor actor;
	struct direct_router_counters counters;
	uint32_t n_aka;
	struct direct_router_aka aka[DIRECT_ROUTER_MAX_AKA]; /* open addressing */
};

void direct_router_start(struct direct_router *router, struct stage *stage);
void direct_router_stop(struct direct_router *router);
/* The peer known at this address, or 0. */
uint32_t direct_router_find(struct direct_router *router, const struct endpoint *endpoint);
