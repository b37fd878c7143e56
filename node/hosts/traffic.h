/*
 * What a WireGuard that only counts bytes tells of a peer's traffic. Pure.
 *
 * Whether a packet was authentic shows in WireGuard's count of received bytes; by which way it came, in
 * what the loopback sockets carried meanwhile. A way is believed when more authentic bytes came than
 * the other way had brought in this interval and the one before (counts are not read in one moment).
 * When packets come by both ways at once neither is believed: pings decide then. What no loopback socket
 * brought came from the peer's WireGuard straight (bypass.h).
 */
#pragma once

#include "node/hosts/loopback.h"
#include "node/wireguard/device.h"

#include <stdbool.h>
#include <stdint.h>

/* Of one peer. Zeroed at first. */
struct traffic {
	struct wg_stats stats; /* as they are now */
	/* the last look */
	uint64_t ns;
	uint64_t rx_bytes, tx_bytes; /* as WireGuard counts … */
	uint64_t rx_lost, tx_lost;   /* … and before it was told to forget the peer */
	struct loopback_carried carried;
	uint64_t direct_before, relay_before; /* bytes that came so in the interval before */
	/* Since the look before: authentic bytes that came past the loopback socket; any sent. */
	uint64_t rx_bypassed;
	bool has_sent;
};

struct traffic_look {
	struct wg_time now;
	uint64_t rx_bytes, tx_bytes, last_handshake_real_ns;
	struct loopback_carried carried;
	struct endpoint path; /* if it is direct: what came past the loopback socket came from there */
};

void traffic_take(struct traffic *traffic, const struct traffic_look *look);
