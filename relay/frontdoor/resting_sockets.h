/*
 * Sockets of UDP that are over, and rest: a late datagram to the port of one comes to nobody, for the kernel gives the port to no
 * other visitor's while the socket is there.
 *
 *   its flow is over ──► RESTING, unread ──► closed: after REST_MS, or when its descriptor is needed, the oldest first
 *
 * What has come before they rest is thrown away, what comes later nothing reads: next to nothing is kept. How many may rest is the
 * owner's to say. One thread.
 */
#pragma once

#include "common/macros.h"
#include "relay/frontdoor/link.h"
#include "relay/udp_socket.h"

#include <stdbool.h>
#include <stdint.h>

struct resting_sockets {
	struct link ring; /* by since when */
	uint32_t n;
};

void resting_sockets_init(struct resting_sockets *resting);
/* Takes the socket, which is in no epoll set any more; now_ms: never less than before. */
void resting_sockets_add(struct resting_sockets *resting, struct relay_socket *sock, uint64_t now_ms);
/* The oldest are closed until there are no more than `most`, with so many beside them that do not rest. */
void resting_sockets_make_room(struct resting_sockets *resting, uint64_t n_beside, uint64_t most);
/*
 * A descriptor or a port was not to be had: 1, 2, 4, 8 of the oldest are closed, in tries 0 … 3, after each of which it may be. The
 * others rest on. False: nothing is to be gained here.
 */
P2P_CHECK bool resting_sockets_give_up(struct resting_sockets *resting, uint32_t try);
/* When the next one is done; UINT64_MAX: none rests. */
uint64_t resting_sockets_expire(struct resting_sockets *resting, uint64_t now_ms);
