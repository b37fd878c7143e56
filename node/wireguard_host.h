/*
 * The WireGuard behind the node's interface: ours in this process, the kernel's, or another
 * program's. What the data plane needs of it is this; node/hosts/ has one file for each.
 *
 *   in_process.c   a lane with our own WireGuard (node/wireguard/)
 *   kernel.c       the kernel's; its configuration goes by netlink
 *   uapi.c         a daemon's, such as wireguard-go or p2pwg; by its socket below /var/run/wireguard
 *
 * The last two speak WireGuard on a UDP port of their own and know nothing of relays and punched
 * paths; external.c brings them together with ours (see there).
 *
 * A host makes the interface and gives it its addresses. It alone receives from the node's UDP
 * sockets, since WireGuard and session messages share them. Loop thread only.
 */
#pragma once

#include "actors/direct_router/demux.h"
#include "actors/path.h"
#include "common/error.h"
#include "common/membership.h"
#include "node/wireguard/device.h"
#include "node/wireguard/udp_relays.h"
#include "node/wireguard_kind.h"

#include <uv.h>

struct udp;
struct offloads;
struct node_status;
struct wireguard_host;

/* The peer's home relay, whichever that is when a packet goes. */
#define WIREGUARD_RELAY_ANY UINT32_MAX

/* All bytes are borrowed for the call. */
struct wireguard_host_ports {
	void *owner;
	/* From the UDP sockets, and not for WireGuard; DEMUX_RELAY: whole, with its header. */
	void (*datagram)(void *owner, enum demux_kind kind, const struct endpoint *from, const uint8_t *bytes,
			 size_t len);
	/* Datagrams, contiguous, that shall go to the peer by a relay. */
	void (*relay)(void *owner, uint32_t relay_id, uint32_t peer_id, const struct train *train);
	/* Packets flow, perhaps after a pause: a sample is worth while. */
	void (*moved)(void *owner);
	/* The interface was deleted, or the daemon has ended; said once. */
	void (*gone)(void *owner);
};

struct wireguard_host_options {
	uv_loop_t *loop;
	struct wireguard_host_ports ports;
	const char *interface;
	uint16_t mtu;
	struct udp *udp;		     /* these two: borrowed until stopped */
	unsigned n_lanes; /* in-process only: see lane.h */
	struct offloads *offloads;
	const struct secret_key *node_key;   /* these two: borrowed for start() */
	const struct membership *membership;
};

/* How the peer is reached through a relay over UDP; remote.port 0: not, the loop sends what shall go by relay. */
struct wireguard_relay_way {
	uint32_t relay_id;
	struct endpoint remote;		     /* the relay's */
	uint8_t header[WG_RELAY_HEADER_LEN]; /* before each datagram */
};

/* What has become of one peer. */
struct wireguard_peer_change {
	struct public_key key;
	uint32_t id;
	bool is_new;	/* the addresses, too; else only what follows them */
	struct in_addr ip4;
	struct in6_addr ip6;
	struct peer_path path;
	uint32_t mtu; /* packets inside that are longer are refused; 0: none */
	struct wireguard_relay_way relay_way;
	bool is_reborn; /* it began a new Session, and may have lost its keys */
	bool is_gone;	/* its relay did not know it just now: a handshake may have been lost */
};

/* Belongs to the host from wireguard_host_change() until done(), which is called from the loop. */
struct wireguard_change {
	uint32_t n_removed, n_peers;
	struct public_key *removed;
	struct wireguard_peer_change *peers;
	void (*done)(struct wireguard_change *change);
	void *owner;
};

struct wireguard_peer_sample {
	uint32_t id;
	struct wg_stats stats;
};

/* As a change; the host fills at most max peers, n says how many. */
struct wireguard_sample {
	uint32_t n, max;
	struct wireguard_peer_sample *peers;
	void (*done)(struct wireguard_sample *sample);
	void *owner;
};

struct wireguard_host_class {
	/* Makes the interface, gives it addresses, brings it up. 0 or -errno. */
	int (*start)(const struct wireguard_host_options *options, struct wireguard_host **ret,
		     struct error *reterr);
	/* Removes the interface; what is under way gets its done(); then stopped(arg), from the loop. */
	void (*stop)(struct wireguard_host *host, void (*stopped)(void *arg), void *arg);
	/* At most one change and one sample are under way. */
	void (*change)(struct wireguard_host *host, struct wireguard_change *change);
	void (*sample)(struct wireguard_host *host, struct wireguard_sample *sample);
	/* WireGuard's datagram from a peer, by relay; copied. 0 or -EAGAIN: dropped. */
	int (*put_relayed)(struct wireguard_host *host, uint32_t relay_id, uint32_t peer_id, const uint8_t *bytes,
			   size_t len);
	/*
	 * The relays over UDP that we are bound to, from now on: data that they bring it takes itself, as far as
	 * it can; the rest comes as datagram of kind DEMUX_RELAY. Copied. NULL: all of it comes so.
	 */
	void (*set_relays)(struct wireguard_host *host, uint32_t n, const struct wireguard_udp_relay *relays);
	/* A valid session message came from the peer at this address. NULL: the host need not know. */
	void (*heard)(struct wireguard_host *host, uint32_t peer_id, const struct endpoint *from);
	/* As data_plane_wireguard_port(). NULL: WireGuard is on the UDP socket. */
	int (*port)(struct wireguard_host *host, const struct endpoint *observed);
	/* As data_plane_told_wireguard(). */
	void (*told)(struct wireguard_host *host, uint32_t peer_id, const struct endpoint *at);
	/* Addresses or routes of the machine change or have changed: called at both. */
	void (*link_changed)(struct wireguard_host *host);
	/* Drops by reason, as of the last sample. */
	void (*fill_drops)(struct wireguard_host *host, struct node_status *status);
};

/* Every host begins with it. */
struct wireguard_host {
	const struct wireguard_host_class *class;
};

extern const struct wireguard_host_class wireguard_in_process;
extern const struct wireguard_host_class wireguard_kernel;
extern const struct wireguard_host_class wireguard_uapi;

/*
 * For the hosts: MTU, overlay addresses, up. route_mtu, not 0: what peers are sent that have no route of their own
 * (link_set_host_mtu()), although the interface takes more. Without IPv6 in the overlay it is no failure.
 */
P2P_CHECK int wireguard_set_up_interface(int ifindex, const struct wireguard_host_options *options, uint32_t route_mtu,
					 bool *ret_has_ip6, struct error *reterr);
/* Whoever sets the interface down, or flushes its routes, takes these away: once more, if they are not there. */
P2P_CHECK int wireguard_renew_routes(int ifindex, const struct membership *member, uint32_t route_mtu, bool has_ip6,
				     struct error *reterr);
