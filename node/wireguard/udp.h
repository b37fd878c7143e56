/*
 * The UDP sockets: one for IPv4, one for IPv6, on the same port; datagrams go and come as trains.
 *
 * There may be several shards: such a pair of sockets each, all on the same port. The kernel puts a
 * WireGuard message with a receiver index (types 2, 3, 4) into shard index % n_shards, so that of type 4
 * behind the header of a relay over UDP, too, and everything else into shard 0. Three exceptions the receiver has to live with: what arrives while the sockets are
 * being opened, and a train that the kernel joined, which goes where its first datagram belongs. It
 * joins datagrams of one sender, so the second does not happen when all indices that are given to one
 * peer are equal modulo n_shards and nobody forges its address. The third: a relay is one sender for all
 * peers behind it. A lane does not open what is another's; of what a relay brought it passes it on.
 *
 * Opened by the loop thread; each shard is received from by one thread (a lane); sent from by any:
 * sending changes nothing but atomic counters. The sockets stay in the network namespace they were opened
 * in. Source addresses are sticky: an answer leaves by the address that was asked; in IPv4 by its interface, too. In IPv6
 * the kernel takes the interface as a wish only: whether the route of that address leads there is asked when the source
 * is learned (udp_fit_source()), and until it is forgotten after routes change packets may leave by another. Datagrams
 * leave without "don't fragment", as the kernel's WireGuard sends them.
 */
#pragma once

#include "common/error.h"
#include "node/wireguard/device.h"
#include "node/wireguard/offload_switches.h"
#include "common/refused_paths.h"
#include "node/wireguard/train.h"

#include <netinet/in.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

enum udp_family { UDP_V4, UDP_V6, UDP_N_FAMILIES };

#define UDP_MAX_SHARDS 16

struct udp_options {
	uint16_t port;		/* 0: any */
	bool any_port_if_taken; /* rather than fail with -EADDRINUSE */
	uint32_t fwmark;	/* 0: none */
	uint32_t n_shards;	/* 0 and 1: one */
	struct offloads *offloads; /* what is wanted, and what becomes of it; NULL: everything */
};

struct udp_counters {
	_Atomic uint64_t n_lost;	 /* datagrams that the kernel did not take */
	_Atomic uint64_t n_source_gone;	 /* times the remembered source address was refused */
	_Atomic uint64_t n_truncated;	 /* received messages that did not fit */
	_Atomic uint64_t n_kernel_drops; /* datagrams dropped in the socket's queue */
};

struct udp {
	uint32_t n_shards;
	int fds[UDP_MAX_SHARDS][UDP_N_FAMILIES]; /* -1: the machine does not have this family */
	_Atomic uint32_t kernel_drops[UDP_MAX_SHARDS][UDP_N_FAMILIES]; /* as the kernel counts them */
	uint16_t port;
	struct offloads *offloads;
	bool may_segment;
	_Atomic bool joins; /* the kernel is asked to join datagrams */
	struct refused_paths refused; /* where UDP_SEGMENT was refused */
	struct udp_counters counters;
};

/*
 * 0 or -errno; -EADDRINUSE when the port is taken, also by one that is sharded. *ret is freed with
 * udp_free().
 */
P2P_CHECK int udp_open(const struct udp_options *options, struct udp **ret, struct error *reterr);
/* Closes the sockets. Accepts NULL. */
void udp_free(struct udp *udp);
P2P_CHECK int udp_set_mark(struct udp *udp, uint32_t fwmark, struct error *reterr);
/*
 * Does a packet from path->local_ip to path->remote leave by path->ifindex, as routes are now? If not, the source is
 * taken out of the path. Of one that is to another address of this machine, and of an address that another interface
 * has (a service's, on the loopback), only the interface: they are asked, and answer, by whichever. When that cannot
 * be told nothing changes. Asks the kernel: not for each packet. In the sockets' network namespace.
 */
void udp_fit_source(const struct udp *udp, struct wg_path *path);
/* The machine's routes have changed: what was refused on a path may now be possible. Any thread. */
void udp_routes_changed(struct udp *udp);

/* A socket, to wait for; -1 when the machine does not have the family. */
static inline int udp_fd(const struct udp *udp, uint32_t shard, enum udp_family family)
{
	return udp->fds[shard][family];
}

/*
 * Sends the train to path->remote, from path->local_ip if that is set, by a socket of this shard: all
 * are equal, but what fills one does not delay another. On a path that is relayed over UDP each
 * datagram begins with path->relay_header. *ret_sent (may be NULL):
 * datagrams the kernel took. 0; -EAGAIN when the socket is full, to be gone on with at *ret_sent;
 * another -errno when the rest was given up. Any thread.
 */
int udp_send(struct udp *udp, uint32_t shard, const struct wg_path *path, const struct train *train,
	     uint32_t *ret_sent);

/*
 * One datagram, that is neither fragmented here nor on the way: 0, -EMSGSIZE when the link it would leave by
 * takes none so long, another -errno. For a moment the socket's other senders are held to the same: that loses
 * what needs fragments, and nothing else. Loop thread.
 */
int udp_send_whole(struct udp *udp, const struct endpoint *remote, const uint8_t *bytes, size_t len);
/* The MTU towards this address as the kernel knows it, IP header included; 0: it does not. */
uint32_t udp_first_mtu(const struct endpoint *remote);

/* ---- receiving ---- */

/*
 * What one UDP_SEGMENT takes: of bytes IPv4's limit, the smaller one (65535 - 20 - 8). UDP_MAX_SEGMENTS was 64 before Linux 6.9, and some kernels count the UDP
 * header into that.
 */
#define UDP_TRAIN_MAX_BYTES 65507
#define UDP_TRAIN_MAX	    63

#define UDP_MESSAGE_MAX	   65536
#define UDP_INBOX_MESSAGES 4
/* Free bytes before every message. */
#define UDP_INBOX_HEADROOM 64

/* One received message: one datagram, or several of equal length joined by the kernel. */
struct udp_message {
	struct wg_path from;
	uint8_t *at;	       /* what is left of it */
	uint32_t left;	       /* bytes */
	uint32_t datagram_len; /* of every datagram but the last */
	uint8_t ds;
};

struct udp_control {
	_Alignas(struct cmsghdr) uint8_t bytes[256];
};

/* Memory for one call of udp_receive(); about 256 KiB, on the heap. */
struct udp_inbox {
	struct udp_message messages[UDP_INBOX_MESSAGES];
	uint8_t buffers[UDP_INBOX_MESSAGES][UDP_INBOX_HEADROOM + UDP_MESSAGE_MAX];
	/* what recvmmsg(2) works with */
	struct mmsghdr headers[UDP_INBOX_MESSAGES];
	struct iovec pieces[UDP_INBOX_MESSAGES];
	struct sockaddr_in6 names[UDP_INBOX_MESSAGES];
	struct udp_control controls[UDP_INBOX_MESSAGES];
};

/* Number of messages, 0 when there is none now, -errno. They stay valid until the next call. */
P2P_CHECK int udp_receive(struct udp *udp, uint32_t shard, enum udp_family family, struct udp_inbox *inbox);
/* The message's next datagrams as a train; false at its end. */
bool udp_message_next(struct udp_message *message, struct train *ret);
