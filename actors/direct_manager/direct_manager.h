/*
 * DirectManager: the way to and from the UDP sockets.
 *
 *   data plane ── raw reads ──► DirectManager ── datagram ──► DirectRouter
 *   SessionManager, EndpointManager ── write datagram ──► DirectManager ──► data plane
 *
 * The sockets themselves live in the data plane, which outlives the stage; on the loop nobody but
 * this actor touches them. A datagram that the kernel refuses is told to TrafficManager.
 */
#pragma once

#include "actors/data_plane.h"
#include "actors/stage.h"

struct direct_manager {
	struct actor actor;
	struct data_plane *data_plane;
	uint64_t n_refused; /* datagrams that the kernel did not take */
};

void direct_manager_start(struct direct_manager *manager, struct stage *stage, struct data_plane *data_plane);
void direct_manager_stop(struct direct_manager *manager);
/* A datagram that is not WireGuard came in. Bytes are borrowed. */
void direct_manager_on_datagram(struct direct_manager *manager, const struct endpoint *from,
				const uint8_t *bytes, size_t len);
