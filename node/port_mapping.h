/*
 * Our UDP port, forwarded by the router: the shell of actors/endpoint_manager/port_mapping_fsm.h.
 *
 *   engine ── look (the network may have changed) ──► port_mapping ── changed: where we are reached ──► engine
 *                                                     │  ▲
 *                        requests to the router's port 5351, from a socket of its own: one for each network,
 *                        bound to our address there; and UPnP (node/upnp.h), one job at a time, on libuv's pool
 *
 * Lives as long as the data plane, whose port it is about; what was mapped is given back at the end. Loop only.
 */
#pragma once

#include "actors/endpoint_manager/port_mapping_fsm.h"
#include "common/error.h"
#include "common/key.h"
#include "common/macros.h"
#include "node/status.h"

#include <uv.h>

struct port_mapping;

struct port_mapping_options {
	uv_loop_t *loop;
	const char *interface; /* ours: what leads there leads to no router. Borrowed, as long as this lives */
	uint16_t port;	       /* of the data plane */
	/* By it PCP's routers know us again, also after a crash: what they are told is a keyed hash. Borrowed for the call */
	const struct secret_key *node_key;
	/* external: none when we are not reached any more. Borrowed. */
	void (*changed)(void *owner, const struct endpoint *external);
	void *owner;
};

/* Looks at once. */
struct port_mapping *port_mapping_new(const struct port_mapping_options *options);
/* Addresses or routes of the machine may have changed. */
void port_mapping_look(struct port_mapping *mapping);
/* Where we are reached; none: nowhere. */
struct endpoint port_mapping_external(const struct port_mapping *mapping);
void port_mapping_fill_status(const struct port_mapping *mapping, struct node_status *status);
/* Gives back what was mapped, then closes: half a second at most, two with UPnP. Accepts NULL. */
void port_mapping_close(struct port_mapping *mapping, void (*closed)(void *owner), void *owner);
