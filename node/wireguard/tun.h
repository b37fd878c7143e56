/*
 * A TUN interface whose descriptor gives and takes superpackets (IFF_VNET_HDR).
 *
 * Read: one IP packet, or one TCP or UDP superpacket of up to 64 KB that offload.h cuts into a
 * train. Write: one IP packet, or a run of one flow's packets as one superpacket. The descriptor is
 * non-blocking and stays valid when the interface is renamed or moved into another network
 * namespace; when the interface is deleted, every call gives -EBADFD.
 */
#pragma once

#include "common/error.h"
#include "common/macros.h"
#include "node/wireguard/offload.h"
#include "node/wireguard/offload_switches.h"
#include "node/wireguard/train.h"

#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

struct tun {
	int fd; /* -1: none */
	int ifindex;
	char name[IFNAMSIZ];
	bool may_add_queues;
	bool has_header; /* packets come and go with a struct offload_header */
	struct offloads *offloads; /* borrowed; NULL: nobody wants to know */
	unsigned merge;		   /* OFFLOAD_MERGE_…: what may be put in */
	unsigned merge_refused;	   /* of these, what the kernel has refused; tried again at … */
	uint32_t merge_retry_s;
	uint32_t n_malformed; /* superpackets one after the other that made no sense */
	uint64_t n_refused;   /* packets that the kernel did not take */
};

#define TUN_NONE { .fd = -1 }

struct tun_options {
	bool several_queues; /* so that tun_add_queue() may be used, where the kernel can do that */
	struct offloads *offloads; /* what is wanted, and what becomes of it; NULL: everything */
};

/*
 * Creates the interface, or attaches to one of that name that no program has. The name may hold
 * "%d". With several_queues, ret->may_add_queues says whether more can be added: not when the kernel
 * cannot be told to keep each flow in one queue, and not for an interface that existed.
 */
P2P_CHECK int tun_open(const char *name, const struct tun_options *options, struct tun *ret,
		       struct error *reterr);
/*
 * Another queue of the interface. What the kernel sends goes to the queues by flow, each flow to the
 * same one; written may be to any. To be added before the interface goes up: flows move when
 * the number of queues changes. Call in the interface's network namespace. -EOPNOTSUPP when the first
 * may not; -EBUSY when the kernel's limit (256) is reached. Each queue is closed with tun_close(); the
 * interface vanishes with the last one.
 */
P2P_CHECK int tun_add_queue(const struct tun *first, struct tun *ret, struct error *reterr);
/*
 * tun_open() with as many queues as can be had, up to n, in ret. At least one. *ret_n: how many.
 */
P2P_CHECK int tun_open_queues(const char *name, struct offloads *offloads, unsigned n, struct tun *ret,
			      unsigned *ret_n, struct error *reterr);
/* Closes the descriptor; an interface that is not persistent vanishes. Accepts TUN_NONE. */
void tun_close(struct tun *tun);
/* False when the interface was deleted. */
bool tun_is_alive(const struct tun *tun);
/*
 * To be called when the MTU was set: the kernel then makes superpackets of so many packets as leave, once
 * sealed, in one UDP_SEGMENT, and arrive as one, instead of one and a stump (which is what goes to a relay,
 * whose header may leave no room for the last: it costs less there than a packet less would here). Where it
 * cannot be told, that is only slower. Call in the interface's network namespace.
 */
void tun_fit_superpackets(int ifindex, uint32_t mtu);
/* So many; up to UDP_TRAIN_MAX, which is no limit. */
uint32_t tun_max_segments(uint32_t mtu);
/* Reads the interface's name anew: it may have been changed. 0 or -errno. */
P2P_CHECK int tun_name(struct tun *tun);

/*
 * One read: the header into *ret_header, the packet to buffer (size ≥ OFFLOAD_MAX_PACKET).
 * The packet's length, -EAGAIN when there is none, -EBADFD when the interface is gone, -errno.
 */
P2P_CHECK ssize_t tun_read(const struct tun *tun, struct offload_header *ret_header, uint8_t *buffer,
			   size_t size);
/*
 * To be told what offload_begin() made of each superpacket. A kernel from which several in a row are
 * malformed is asked for plain packets from then on.
 */
void tun_read_made_sense(struct tun *tun, bool sense);
/*
 * Writes the packets, merged where the rules allow. Bytes of the train are changed. When the kernel
 * refuses a merged write (EINVAL), its packets are written one by one, and if it takes those, that kind
 * is not merged for a minute. A packet that it does not take (EIO: the interface is down) is counted
 * and dropped. -EBADFD when the interface is gone, else 0.
 */
int tun_write(struct tun *tun, const struct train *packets);
