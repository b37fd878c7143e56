/*
 * Several UDP sockets on one port, of which each WireGuard session has its own: a datagram goes to
 * socket number (receiver index % number of sockets), data also when a relay brings it over UDP, behind its
 * header. What names no session goes to socket 0.
 */
#pragma once

#include "common/macros.h"

#include <stdint.h>

/*
 * Tells the kernel, for the group of SO_REUSEPORT sockets that fd belongs to. They are numbered in
 * the order in which they were bound. 0 or -errno.
 */
P2P_CHECK int udp_steering_attach(int fd, uint32_t n_sockets);
