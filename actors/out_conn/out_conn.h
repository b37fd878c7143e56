/*
 * OutConn: by which way one peer's packets leave.
 *
 *   TrafficManager ── set path ──► OutConn ── publishes ──► data plane
 *   data plane ── carried ──► OutConn ── activity (out) ──► TrafficManager
 *
 * The per-packet half is the data plane's: it sends by the path published here; a relay leg is
 * resolved to the peer's home relay at the moment of sending.
 */
#pragma once

#include "actors/data_plane.h"
#include "actors/stage.h"

struct out_conn {
	struct actor actor;
	struct data_plane *data_plane;
	uint64_t seen_data_ns; /* what TrafficManager has been told */
};

/*
 * Takes over the path that is in force in the data plane: a working direct path of an earlier stage
 * goes on being used, by relay as well until TrafficManager has decided anew.
 */
void out_conn_start(struct out_conn *conn, struct stage *stage, struct data_plane *data_plane,
		    uint32_t peer_id);
void out_conn_stop(struct out_conn *conn);
