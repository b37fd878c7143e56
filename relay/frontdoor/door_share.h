/*
 * One TCP port for the node itself and the hosts of others: whose is a visitor of the front door?
 *
 *   TLS ── server name ── ALPN
 *            │             ├ the relay's protocol ─────────────────────────► the relay's
 *            │             ├ the protocol of who dials back to webgw ──────► webgw's, where it has the port as well
 *            │             ├ that of webgw's WebSocket ────────────────────► the same
 *            │             └ else, or none
 *            ├ its own name, none, or an IP address ┬ ALPN has HTTP/1.1 ──► webgw's WebSocket, the same
 *            │                                      └ else ───────────────► the relay's
 *            └ another ───────────────────────────────────────────────────► by the routes: a host's, or nobody's
 *   not TLS ─┬ its own name ──────────────────────────────────────────────► nobody's: what is the node's speaks TLS alone
 *            └ another ───────────────────────────────────────────────────► by the routes
 *   not understood ───────────────────────────────────────────────────────► refused
 *
 * That is so where the relay and the door have the port together. At ports that are the door's alone nobody is the
 * node's, and its own name is nobody's there. Which hosts the routes know does not matter: its own name is never theirs.
 *
 * Pure.
 */
#pragma once

#include "relay/frontdoor/sniffer.h"

#include <stdbool.h>

enum door_whose {
	DOOR_WHOSE_ROUTES,    /* as sniffer.found says */
	DOOR_WHOSE_RELAY,
	DOOR_WHOSE_WEBGW,     /* its WebSocket */
	DOOR_WHOSE_DIAL_BACK, /* an agent's of webgw, for a visitor */
	DOOR_WHOSE_NOBODY,    /* a name that is not led anywhere */
	DOOR_WHOSE_REFUSED,   /* as sniffer.reason says */
};

/* What is at the port to which the visitor came, besides hosts. */
struct door_share {
	bool has_relay;
	bool has_webgw;	/* with has_relay alone */
};

/* sniffer: whose outcome is FOUND or REFUSED. own: len 0: none. */
enum door_whose door_share_decide(const struct sniffer *sniffer, struct door_share share, const struct host_name *own);
