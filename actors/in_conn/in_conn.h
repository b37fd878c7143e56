/*
 * InConn: what comes from one peer, and whether anything does.
 *
 *   data plane ── carried ──► InConn ── activity (in, by which way) ──► TrafficManager
 *
 * The per-packet half (open, check, hand to TUN) is the data plane's. This half notes activity: that
 * authenticated packets came, and by which way; and whether data came within the window.
 */
#pragma once

#include "actors/data_plane.h"
#include "actors/stage.h"

/* toversok: a conn is inactive 10 s after its last packet. */
#define CONN_ACTIVITY_WINDOW_NS (10 * 1000000000ull)

struct in_conn {
	struct actor actor;
	uint64_t seen_direct_ns, seen_relay_ns, seen_data_ns; /* what TrafficManager has been told */
	bool active;
	uint64_t n_unexpected;			/* packets that are none of WireGuard's */
};

void in_conn_start(struct in_conn *conn, struct stage *stage, uint32_t peer_id);
void in_conn_stop(struct in_conn *conn);
