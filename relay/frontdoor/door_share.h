/*
 * One TCP port for the relay and the hosts of others: whose is a visitor of the front door?
 *
 *                      ┌ its own name ─────────────────────────────► the relay's
 *   TLS ── server name ┼ none, or an IP address ───────────────────► the relay's
 *                      └ another ┬ ALPN offers the relay's protocol ► the relay's
 *                                └ else ───────────────────────────► by the routes: a host's, or nobody's
 *   not TLS ───────────┬ its own name ─────────────────────────────► nobody's: the relay speaks TLS alone
 *                      └ another ──────────────────────────────────► by the routes
 *   not understood ────────────────────────────────────────────────► refused
 *
 * That is so where the relay and the door have the port together. At ports that are the door's alone nobody is the
 * relay's, and its own name is nobody's there. Which hosts the routes know does not matter: its own name is never theirs.
 *
 * Pure.
 */
#pragma once

#include "relay/frontdoor/sniffer.h"

#include <stdbool.h>

enum door_whose {
	DOOR_WHOSE_ROUTES,  /* as sniffer.found says */
	DOOR_WHOSE_RELAY,
	DOOR_WHOSE_NOBODY,  /* a name that is not led anywhere */
	DOOR_WHOSE_REFUSED, /* as sniffer.reason says */
};

/* sniffer: whose outcome is FOUND or REFUSED. is_shared: the visitor came to a port that the relay has, too. own: len 0: none. */
enum door_whose door_share_decide(const struct sniffer *sniffer, bool is_shared, const struct host_name *own);
