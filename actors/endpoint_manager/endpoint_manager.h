/*
 * EndpointManager: where can others reach us?
 *
 *   session ── map (relays' STUN ports), link changed ──► EndpointManager
 *   EndpointManager ── write datagram (request) ──► DirectManager … DirectRouter ── stun ──► EndpointManager
 *   EndpointManager ── our endpoints ──► TrafficManager; the session's port tells control
 *                   ── latency of each relay ──► RelayManager
 *
 * The deciding is endpoint_fsm's; here are the STUN bytes and the machine's own addresses.
 */
#pragma once

#include "actors/endpoint_manager/endpoint_fsm.h"
#include "actors/stage.h"

struct endpoint_manager_ports {
	void *owner;
	/* The addresses of this machine with our UDP port, as they are now; returns how many. */
	size_t (*local_endpoints)(void *owner, struct endpoint *ret, size_t max);
	/* What we publish has changed. Borrowed. */
	void (*our_endpoints)(void *owner, const struct endpoint *endpoints, size_t n);
};

struct endpoint_manager {
	struct actor actor;
	struct endpoint_manager_ports ports;
	struct endpoint_fsm fsm;
	uint64_t n_bad_answers; /* STUN that was no answer to us */
};

void endpoint_manager_start(struct endpoint_manager *manager, struct stage *stage,
			    const struct endpoint_manager_ports *ports, uint64_t seed);
void endpoint_manager_stop(struct endpoint_manager *manager);
