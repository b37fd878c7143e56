/*
 * Paths by sockets beside the one that carries packets, through a NAT that gives that one no port which the peer
 * could know (actors/traffic_manager/hard_nat_fsm.h).
 *
 *                 our UDP socket             a pair of sockets            the one that was hit
 *   lanes, stage ── port P ◄────────► this machine's address:q ── loop ── port k ◄── NAT ──► peer
 *
 * To our UDP socket the peer is at this machine's own address and port q: WireGuard, pings and all else go there and
 * come from there. The kernel lets nobody else into either socket, for both are connected. Datagrams leave as they
 * are or not at all (no fragments), so that the search for the path's MTU finds it.
 *
 * One peer is searched for at a time. A pair lives until the next search for its peer, its end, or a search after three
 * minutes without a datagram of the peer. Loop only.
 */
#pragma once

#include "common/endpoint.h"

#include <stdint.h>
#include <uv.h>

#define SIDE_PATHS_MAX	    64 /* pairs, of all peers */
#define SIDE_PATHS_MAX_PEER 2

struct side_paths;

struct side_paths *side_paths_new(uv_loop_t *loop);
/* Frees itself from the loop. NULL: nothing. */
void side_paths_free(struct side_paths *paths);

/*
 * Opens n sockets. What `from` sends to one of them makes it a pair, and goes to our_port. 0; -EBUSY: another peer is
 * searched for, or the sockets of the last search are not gone yet (a loop turn); or another -errno.
 */
P2P_CHECK int side_paths_search(struct side_paths *paths, uint32_t peer_id, uint32_t n, const struct endpoint *from,
				uint16_t our_port);
/* From one of these sockets, so that the NAT lets `to` answer. */
void side_paths_knock(struct side_paths *paths, uint32_t peer_id, uint32_t number, const struct endpoint *to);
/* Closes all that are no pair. */
void side_paths_stop_search(struct side_paths *paths, uint32_t peer_id);
/* The pairs of this peer as well. */
void side_paths_end(struct side_paths *paths, uint32_t peer_id);
