/*
 * Sockets that listen already when the program starts: systemd has opened them, or has kept those of the program
 * that ran before. Connections and datagrams that came in between wait in them.
 */
#pragma once

#include "common/endpoint.h"

#include <stdbool.h>
#include <stdint.h>

#define LISTEN_SOCKETS_MAX 40 /* all of a public node and its front door, and two of streams (frontdoor/stream_queue.h) */

/* All zero: none. */
struct listen_sockets {
	uint32_t n;
	int fds[LISTEN_SOCKETS_MAX]; /* owned; -1: closed */
};

/*
 * A copy (close-on-exec, non-blocking) of the one of that type, SOCK_STREAM or SOCK_DGRAM, that has this address, or
 * all addresses of its family, with its port. -1: there is none.
 */
int listen_sockets_take(const struct listen_sockets *sockets, int type, const struct endpoint *address);
/*
 * Closes those of that type that none of the addresses takes: they would be in the way, and nobody serves them. Of
 * SOCK_STREAM they listen no longer in other copies either: systemd's would keep the port from whoever binds it next.
 * Those of SOCK_DGRAM stay bound until systemd has forgotten them. Returns how many were closed.
 * is_exact: the addresses are of two who accept, and one socket at all addresses would give each the other's.
 */
uint32_t listen_sockets_close_others(struct listen_sockets *sockets, int type, const struct endpoint *addresses,
				     uint32_t n_addresses, bool is_exact);
