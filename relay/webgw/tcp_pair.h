/*
 * Two ends of one TCP connection within this process: what is handed to somebody who expects a socket of the network's, with
 * its ends and resets.
 *
 * Over the loopback, by a listener that is open only for that: who else connects there is closed. One thread.
 */
#pragma once

#include "common/macros.h"

struct tcp_pair_maker {
	int listener; /* -1: none yet */
};

/* Non-blocking, TCP_NODELAY. 0 or -errno. */
P2P_CHECK int tcp_pair_make(struct tcp_pair_maker *maker, int ret[2]);
void tcp_pair_maker_deinit(struct tcp_pair_maker *maker);
