/*
 * The two conns of each peer of the map: InConn and OutConn, there as long as the peer is in the map. Loop only.
 *
 *   map without the peer ──► none ◄──────────────► a pair ◄── map with the peer
 */
#pragma once

#include "actors/data_plane.h"
#include "actors/stage.h"
#include "common/map.h"

#include <stdint.h>

#define PEER_CONNS_BUCKETS 1024

struct conn_pair;

struct peer_conns {
	struct stage *stage;
	struct data_plane *data_plane;
	struct conn_pair *buckets[PEER_CONNS_BUCKETS]; /* by peer */
};

void peer_conns_init(struct peer_conns *conns, struct stage *stage, struct data_plane *data_plane);
void peer_conns_deinit(struct peer_conns *conns);
/* before may be NULL: there were none. */
void peer_conns_follow_map(struct peer_conns *conns, const struct map *before, const struct map *map);
