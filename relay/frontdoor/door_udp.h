/*
 * QUIC at the front door: sockets and routes around quic_flows.h.
 *
 *   visitors ◄──► listening sockets ◄──► quic_flows ◄──► a connected socket for each path ◄──► targets
 *                                            │
 *                                         routes: those of HTTPS
 *
 * It has an epoll of its own, with all sockets and a timer, which is watched as one descriptor: when it is readable,
 * there is something to do, and the watch is to be told. So it shares the door's thread with everybody else, and has a
 * bounded share of each turn.
 *
 * A target is an address; or the acceptor of a member that publishes the host (door_datagrams.h): then each datagram has a header in front
 * of it, with the visitor and the host, and the header alone says that a path is over. To other routes with a header to be
 * written nothing goes by UDP: there is no answer, and clients ask by TCP. Routes that are replaced change nothing for who is led already.
 */
#pragma once

#include "relay/frontdoor/front_door.h"
#include "relay/frontdoor/quic_flows.h"
#include "relay/frontdoor/splice_pump.h"

struct door_udp;

/* What 0 in options stands for. */
struct quic_flows_options door_udp_defaults(uint32_t max_files);
/*
 * Binds at once, one socket for each of n places. options: but for owner and ended. 0, or -errno; *ret_failed is the place
 * that could not be had, if it was one.
 */
P2P_CHECK int door_udp_new(const struct quic_flows_options *options, const struct endpoint *places, uint32_t n,
			   struct door_udp **ret, uint32_t *ret_failed);
/* Ends all paths: members are told so, by the header alone; visitors and targets nothing. Accepts NULL. */
void door_udp_free(struct door_udp *udp);
/* Level-triggered, EPOLLIN; both borrowed. */
int door_udp_fd(const struct door_udp *udp);
struct watch *door_udp_watch(struct door_udp *udp);
/* Borrowed until the next are set; NULL: no host is known. */
void door_udp_set_routes(struct door_udp *udp, const struct door_routes *routes);
uint16_t door_udp_port(const struct door_udp *udp, uint32_t place);
struct quic_counters door_udp_counters(const struct door_udp *udp);
