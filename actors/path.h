/*
 * A peer's path: by which legs its packets leave.
 *
 * Decided by TrafficManager, held by OutConn, published to the data plane. Both legs at once mean
 * doubt: each packet goes both ways until a probe has answered; WireGuard's replay window drops the
 * second.
 */
#pragma once

#include "common/endpoint.h"

#include <stdbool.h>

struct peer_path {
	bool direct;
	bool relay;		  /* the peer's home relay, resolved at send time */
	struct endpoint endpoint; /* if direct */
};
