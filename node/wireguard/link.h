/*
 * Network interfaces by rtnetlink: look, set up, give addresses and routes.
 *
 * Each call opens a netlink socket in the network namespace of the calling thread, asks, waits for
 * the kernel's answer and closes it: for set-up, not for the packet path. No state, any thread.
 */
#pragma once

#include "common/error.h"
#include "common/macros.h"

#include <net/if.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

struct link_info {
	int ifindex;
	char name[IFNAMSIZ];
	bool is_up;
	uint32_t mtu;
};

/* An IP network; IPv4 in the first four bytes. */
struct link_prefix {
	int family; /* AF_INET or AF_INET6 */
	uint8_t ip[16];
	uint8_t len; /* bits */
};

/* All return 0 or -errno, with the reason in reterr; -ENODEV when there is no such interface. */
P2P_CHECK int link_find(const char *name, struct link_info *ret, struct error *reterr);
P2P_CHECK int link_get(int ifindex, struct link_info *ret, struct error *reterr);
P2P_CHECK int link_set_up(int ifindex, bool up, struct error *reterr);
P2P_CHECK int link_set_mtu(int ifindex, uint32_t mtu, struct error *reterr);
/* The address is ip, the network on the link ip/len. One that is there already is no failure. */
P2P_CHECK int link_add_address(int ifindex, const struct link_prefix *address, struct error *reterr);
/* The same, but nothing leads to the network on the link: that is for link_add_network_mtu(). */
P2P_CHECK int link_add_address_alone(int ifindex, const struct link_prefix *address, struct error *reterr);
P2P_CHECK int link_remove_address(int ifindex, const struct link_prefix *address, struct error *reterr);
/* A route in the main table that leads to the interface; replaces an equal one. */
P2P_CHECK int link_add_route(int ifindex, const struct link_prefix *to, struct error *reterr);
P2P_CHECK int link_remove_route(int ifindex, const struct link_prefix *to, struct error *reterr);
/*
 * Routes in the main table that lead to the interface, with packets of at most mtu bytes and our address on it as their
 * source. Who watches (link_watch.h) does not hear of these: no way becomes another. What somebody else has set stays as
 * it is, and goes before: the route to a network is put behind those that are there; one to a single address is -EEXIST
 * where packets to it leave by another interface, or by a route to that address alone.
 *
 *   network   one that is there already stays: no packet may leave elsewhere for a moment
 *   host      in place of the one that was made so before; mtu 0: none any more
 *   all       what a program that was killed has left on the interface; returns how many there were
 */
#define LINK_PROTOCOL_MTU 210 /* their rtm_protocol: nobody's */
P2P_CHECK int link_add_network_mtu(int ifindex, const struct link_prefix *to, const void *source, uint32_t mtu,
				   struct error *reterr);
P2P_CHECK int link_set_host_mtu(int ifindex, const struct link_prefix *to, const void *source, uint32_t mtu,
				struct error *reterr);
P2P_CHECK int link_remove_all_mtu(int ifindex, struct error *reterr);
/* The route that the kernel made for an address of the interface; that there is none is no failure. */
P2P_CHECK int link_remove_kernel_route(int ifindex, const struct link_prefix *to, const void *source,
				       struct error *reterr);
/* No superpacket that the kernel hands to the interface stands for more packets than this. */
P2P_CHECK int link_set_max_segments(int ifindex, uint32_t n, struct error *reterr);
P2P_CHECK int link_delete(int ifindex, struct error *reterr);

struct link_way {
	uint32_t ifindex; /* packets leave by it; 0: there is no way */
	bool is_here;	  /* to an address of this machine; ifindex is the loopback's */
};

/*
 * How a packet with this mark (0: none) would leave from one address to another: 0, or -errno when the kernel could
 * not be asked or did not answer that. The addresses are of 4 (AF_INET) or 16 bytes, in network order.
 */
P2P_CHECK int link_find_way(int family, const void *from, const void *to, uint32_t mark, struct link_way *ret);
/* The interface that has this address of ours, one of them if several have it: 0, -ENODEV when none has, -errno. */
P2P_CHECK int link_find_address(int family, const void *ip, uint32_t *ret_ifindex);
/* The way to the rest of the world by IPv4, in network order: -ENETUNREACH when it leads over no router. */
P2P_CHECK int link_find_router(struct in_addr *ret_router, struct in_addr *ret_ours, int *ret_ifindex);

/* Reads what an RTM_NEWLINK or RTM_DELLINK message says; false when it is none. message: nlmsghdr. */
bool link_info_from_message(const void *message, struct link_info *ret);
