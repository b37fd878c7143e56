/*
 * Ports of UDP that lead to members: sockets and routes around datagram_flows.h.
 *
 *   visitor ◄──► socket of the port ◄──► flow ◄──► a connected socket ══ overlay: header v2 in front of each datagram ══► member
 *                                                                                                                         │
 *   target ◄── [header v2] ── a connected socket ◄──► flow: allowed? rate? ◄──► socket of the acceptor, doors alone ◄─────┘
 *
 * Answers go back as they are. The header (proxy_header_wire.h) has the visitor, where it came to, and the port's name. A datagram that
 * is too long with it is cut into pieces by the kernel, as it would be by any router; empty datagrams are not carried.
 *
 * At the acceptor also QUIC for hosts, as doors bring it (door_udp.h): the header then has the host, and HTTPS as its scheme. All
 * of it together has the bounds of one port. Whether the target is there does not follow from it: many speak TCP alone.
 *
 * It has an epoll of its own, watched as one descriptor, and shares the door's thread. When routes are replaced, flows to what
 * is no longer so end; they begin anew with the visitor's next datagram, if it may.
 */
#pragma once

#include "relay/frontdoor/datagram_flows.h"
#include "relay/frontdoor/door_routes.h"
#include "relay/frontdoor/splice_pump.h"

struct door_datagrams;
struct datagram_place; /* a port at an address */

/* Flows at once, of a process with so many descriptors. */
uint32_t door_datagrams_max_flows(uint64_t max_files);
/* takes_header: as front_door_options. 0 or -errno. */
P2P_CHECK int door_datagrams_new(uint32_t max_flows, bool takes_header, struct door_datagrams **ret);
/* Its places are closed. Accepts NULL. */
void door_datagrams_free(struct door_datagrams *datagrams);
/* Level-triggered, EPOLLIN; both borrowed. */
int door_datagrams_fd(const struct door_datagrams *datagrams);
struct watch *door_datagrams_watch(struct door_datagrams *datagrams);
/* name: of the port; NULL: headers say. 0 or -errno. */
P2P_CHECK int door_datagrams_open(struct door_datagrams *datagrams, const struct endpoint *address, const struct port_name *name,
				  struct datagram_place **ret);
/* Ends its flows. Not while it has its turn; accepts NULL. */
void door_datagrams_close(struct datagram_place *place);
/* Borrowed until the next are set; NULL: no port is known. Not while it has its turn. */
void door_datagrams_set_routes(struct door_datagrams *datagrams, const struct door_routes *routes);
/* Ends what is over. When the next one may be; UINT64_MAX: never. Not while it has its turn. */
uint64_t door_datagrams_expire(struct door_datagrams *datagrams, uint64_t now_ms);
struct datagram_counters door_datagrams_counters(const struct door_datagrams *datagrams);
