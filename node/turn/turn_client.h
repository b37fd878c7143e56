/*
 * A way round by a TURN server: the shell of turn_fsm.h, with libnice's STUN messages.
 *
 *   peer ──UDP──► TURN server ──channel──► turn_client ── 127.0.0.1:q ──► 127.0.0.1:port, the node
 *                 its relayed address      one socket    q: one for each peer's address
 *
 * To the node a peer that comes this way is at 127.0.0.1:q: it sends there as it sends to any address, and nothing
 * in it needs to know of TURN. To the peer the node is at the relayed address. Loop only.
 *
 * The server is believed by the integrity of its answers; what it passes on is as strange as any datagram.
 */
#pragma once

#include "common/endpoint.h"

#include <stdbool.h>
#include <uv.h>

struct turn_client;

struct turn_client_options {
	uv_loop_t *loop;
	struct endpoint server;
	const char *user, *password; /* copied */
	uint16_t node_port;	     /* of the node, on 127.0.0.1 */
	void (*relayed)(void *owner, const struct endpoint *relayed); /* none: not any more. Borrowed */
	void *owner;
};

/* Asks at once. */
struct turn_client *turn_client_new(const struct turn_client_options *options);
/* Addresses or routes of this machine changed: by another way there must be another relayed address. */
void turn_client_network_changed(struct turn_client *client);
/* Who is at this address (the port is of no meaning) may reach us, for ten minutes from now. IPv4 only. */
void turn_client_permit(struct turn_client *client, const struct endpoint *peer);
/* Gives the relayed address back, then closes: half a second at most. */
void turn_client_close(struct turn_client *client, void (*closed)(void *owner), void *owner);
