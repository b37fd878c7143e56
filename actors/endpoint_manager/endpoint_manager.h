/*
 * EndpointManager: where can others reach us?
 *
 *   session ── map (relays' STUN ports), link changed, keeper changed ──► EndpointManager
 *   session ── forwarded (a port of the router's, node/port_mapping.h), turned (an address at a TURN server,
 *              node/turn_helper.h) ──► EndpointManager
 *   EndpointManager ── write datagram (request) ──► DirectManager … DirectRouter ── stun ──► EndpointManager
 *   EndpointManager ── our endpoints ──► TrafficManager; the session's port tells control
 *                   ── latency of each relay ──► RelayManager
 *
 * The deciding is endpoint_fsm's, and nat_behaviour_fsm's of what the NAT does; here are the STUN bytes and the
 * machine's own addresses.
 */
#pragma once

#include "actors/endpoint_manager/endpoint_fsm.h"
#include "actors/endpoint_manager/nat_behaviour_fsm.h"
#include "actors/stage.h"

struct endpoint_manager_ports {
	void *owner;
	/* The addresses of this machine with our UDP port, as they are now; returns how many. */
	size_t (*local_endpoints)(void *owner, struct endpoint *ret, size_t max);
	/* To whom another keep-alive leaves by the same socket, which tells (MESSAGE_KEEPER_CHANGED) when our address
	 * may be another; none: to nobody. May be NULL. */
	struct endpoint (*keeper)(void *owner);
	/* What we publish has changed. Borrowed. */
	void (*our_endpoints)(void *owner, const struct endpoint *endpoints, size_t n);
	/*
	 * NAT_BEHAVIOUR_SOCKETS of their own; what they hear goes to endpoint_manager_on_side(). 0 or -errno. NULL: what
	 * the NAT does is not found out.
	 */
	int (*open_side)(void *owner, uint16_t ret_ports[NAT_BEHAVIOUR_SOCKETS]);
	void (*send_side)(void *owner, uint32_t socket, const struct endpoint *to, const uint8_t *bytes, size_t len);
	void (*close_side)(void *owner);
};

struct endpoint_manager {
	struct actor actor;
	struct endpoint_manager_ports ports;
	struct endpoint_fsm fsm;
	struct nat_behaviour_fsm nat;
	struct endpoint forwarded, turned; /* none: there is none */
	uint64_t n_bad_answers; /* STUN that was no answer to us */
};

void endpoint_manager_start(struct endpoint_manager *manager, struct stage *stage,
			    const struct endpoint_manager_ports *ports);
void endpoint_manager_stop(struct endpoint_manager *manager);
/* A datagram came to one of the sockets that open_side opened. */
void endpoint_manager_on_side(struct endpoint_manager *manager, uint32_t socket, const struct endpoint *from,
			      const uint8_t *bytes, size_t len);
