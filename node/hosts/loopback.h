/*
 * Between a WireGuard that knows only UDP endpoints and the ways a node has to its peers: for each
 * peer one UDP socket on the loopback, which WireGuard takes for the peer.
 *
 *   WireGuard ──► 127.0.0.1:(peer's socket) ──► the peer's path: the node's UDP socket, a relay, both
 *   WireGuard ◄── from 127.0.0.1:(peer's socket) ◄── the node's UDP socket (whose? by its address), relays
 *
 * A thread of its own carries datagrams, a train at a time; the loop's part is relayed ones, session
 * messages and STUN. What is WireGuard and comes from an address that is not known as a peer's cannot
 * be given to anybody: it is counted and dropped. Known are the published path and the latest
 * addresses from which valid session messages came. Nothing is authenticated here; WireGuard does that.
 *
 * Functions are for the loop thread; ports are called there.
 */
#pragma once

#include "actors/direct_router/demux.h"
#include "actors/path.h"
#include "common/error.h"
#include "node/wireguard/udp.h"

#include <uv.h>

struct loopback;
struct loopback_peer;

/* Bytes are borrowed for the call. */
struct loopback_ports {
	void *owner;
	void (*datagram)(void *owner, enum demux_kind kind, const struct endpoint *from, const uint8_t *bytes,
			 size_t len);
	void (*relay)(void *owner, uint32_t peer_id, const struct train *train);
	void (*moved)(void *owner); /* something was carried; at most every 200 ms */
};

struct loopback_options {
	uv_loop_t *loop;
	struct loopback_ports ports;
	struct udp *udp; /* borrowed until stopped; nobody else receives from it */
	uint16_t mtu;	 /* of the inner interface */
	uint16_t wireguard_port;
};

/* What went by for one peer; times of common/clock.h in ns, 0: never. */
struct loopback_carried {
	/* To WireGuard: bytes of what it counts when it is authentic. */
	uint64_t rx_direct_bytes, rx_relay_bytes;
	uint64_t rx_direct_ns, rx_relay_ns;
	uint64_t rx_data_ns;	     /* longer than a keepalive */
	struct endpoint rx_endpoint; /* where the last direct one came from */
	/* From WireGuard. */
	uint64_t tx_bytes;
	uint64_t tx_data_ns, tx_initiation_ns;
};

struct loopback_counters {
	uint64_t n_unknown_initiations; /* from an address that is nobody's */
	uint64_t n_unknown_senders;	/* the same, any other WireGuard message */
	uint64_t n_no_path, n_sends_dropped, n_events_dropped;
};

P2P_CHECK int loopback_start(const struct loopback_options *options, struct loopback **ret,
			     struct error *reterr);
/* Ends the thread, closes the sockets of all peers; stopped(arg) from the loop. No port is called any more. */
void loopback_stop(struct loopback *loopback, void (*stopped)(void *arg), void *arg);

P2P_CHECK int loopback_add_peer(struct loopback *loopback, uint32_t id, struct loopback_peer **ret,
				struct error *reterr);
void loopback_remove_peer(struct loopback *loopback, struct loopback_peer *peer);
/* The endpoint to give to WireGuard. */
struct endpoint loopback_peer_endpoint(const struct loopback_peer *peer);
void loopback_set_path(struct loopback *loopback, struct loopback_peer *peer, const struct peer_path *path);
/* The peer is at this address, too. */
void loopback_know(struct loopback *loopback, struct loopback_peer *peer, const struct endpoint *address);
/* One datagram that came by relay. 0, or -errno: dropped. */
int loopback_put_relayed(struct loopback *loopback, struct loopback_peer *peer, const uint8_t *bytes, size_t len);

void loopback_get_carried(struct loopback *loopback, const struct loopback_peer *peer,
			  struct loopback_carried *ret);
void loopback_get_counters(struct loopback *loopback, struct loopback_counters *ret);
