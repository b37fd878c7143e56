/*
 * The data plane as the stage sees it: what carries packets, and goes on doing so when every actor
 * above it is gone. It belongs to the Engine; a stage attaches to it and detaches from it.
 *
 * The stage publishes: peers' paths, relays to hold. The data plane posts back what is not a data
 * packet, and what it has carried. All functions are called from the loop thread; none blocks.
 */
#pragma once

#include "actors/path.h"
#include "common/key.h"
#include "common/map.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct data_plane;

/* What was carried for one peer; times of common/clock.h in ns, 0: never. */
struct data_plane_activity {
	uint32_t peer_id;
	uint64_t rx_direct_ns;	     /* last authenticated packet that came directly … */
	struct endpoint rx_endpoint; /* … and from where */
	uint64_t rx_relay_ns;
	uint64_t rx_data_ns, tx_data_ns; /* last data packet, without keepalives and handshakes */
	uint64_t rx_bytes, tx_bytes;	 /* by any way, since the last look */
};

/* Events for the attached stage. Bytes are borrowed for the call. */
struct data_plane_ports {
	void *owner;
	void (*datagram)(void *owner, const struct endpoint *from, const uint8_t *bytes, size_t len);
	void (*frame)(void *owner, uint32_t relay_id, uint32_t peer_id, const uint8_t *bytes, size_t len);
	void (*activity)(void *owner, const struct data_plane_activity *activity);
	void (*relay_state)(void *owner, uint32_t relay_id, bool up);
	/* By UDP, a relay was bound, anew, or lost: our address may be another. */
	void (*relay_bound)(void *owner, uint32_t relay_id);
	void (*relay_leaving)(void *owner, uint32_t relay_id); /* still up, but it has said that it will stop */
	void (*relay_used)(void *owner, uint32_t relay_id); /* wanted or used; at most once a second each */
	void (*peer_gone)(void *owner, uint32_t relay_id, uint32_t peer_id);
	/* What was sent to the peer by relay has no answer: has it lost its way to its relays, and does not know? */
	void (*peer_silent)(void *owner, uint32_t peer_id);
	/* … does it hear us at all? A question, please, by relay; its answer is told by data_plane_answered(). */
	void (*peer_doubted)(void *owner, uint32_t peer_id);
	void (*link_changed)(void *owner);
};

/* At most one stage at a time; NULL detaches. Without one, events are counted and dropped. */
void data_plane_attach(struct data_plane *data_plane, const struct data_plane_ports *ports);

/* Published by OutConn. An unknown peer is ignored. */
void data_plane_set_path(struct data_plane *data_plane, uint32_t peer_id, const struct peer_path *path);
/* The path in force, also one left by an earlier stage. False: unknown peer. */
bool data_plane_get_path(const struct data_plane *data_plane, uint32_t peer_id, struct peer_path *ret);

/*
 * A valid session message came from the peer at this address: what is WireGuard and comes from there
 * may be its. Some hosts cannot know otherwise (node/hosts/loopback.h).
 */
void data_plane_heard(struct data_plane *data_plane, uint32_t peer_id, const struct endpoint *from);

/* It answered what was asked by relay; its answer came by this relay. */
void data_plane_answered(struct data_plane *data_plane, uint32_t peer_id, uint32_t relay_id);

/*
 * Where our WireGuard is reached by a peer that sees us at `observed`: 0: at our UDP socket; > 0: at this
 * port of its own; -1: it has a port of its own, but there is a NAT between.
 */
int data_plane_wireguard_port(const struct data_plane *data_plane, const struct endpoint *observed);
/* The peer says that its WireGuard is reached here. */
void data_plane_told_wireguard(struct data_plane *data_plane, uint32_t peer_id, const struct endpoint *at);

/* 0 or -errno as sendto(2) gives it; -EAGAIN and -ENOBUFS are losses, not failures. */
int data_plane_send_datagram(struct data_plane *data_plane, const struct endpoint *to, const uint8_t *bytes,
			     size_t len);
/* The same, but never in fragments: -EMSGSIZE when the first link takes no datagram so long. */
int data_plane_send_probe(struct data_plane *data_plane, const struct endpoint *to, const uint8_t *bytes,
			  size_t len);
/*
 * The longest packet inside that could reach this address whole as far as the first link is concerned, or that the
 * interface can have; at least 1280.
 */
uint32_t data_plane_first_mtu(const struct data_plane *data_plane, const struct endpoint *to);
/* By which relay packets to a peer go now, and how. */
struct relay_way {
	uint32_t relay_id;	/* 0: none */
	struct endpoint remote; /* over UDP; none: over TLS */
};
/* False: by none, for the moment. */
bool data_plane_relay_way(const struct data_plane *data_plane, uint32_t peer_id, struct relay_way *ret);
/* As data_plane_first_mtu(), by that relay. */
uint32_t data_plane_first_relayed_mtu(const struct data_plane *data_plane, const struct relay_way *way);
/* Longer packets to this peer are refused inside, from now on; 0: none. An unknown peer is ignored. */
void data_plane_set_mtu(struct data_plane *data_plane, uint32_t peer_id, uint32_t mtu);
/* relay_id 0: the peer's home relay. 0, -ENOTCONN when that relay is not up, -ENOENT for an unknown peer. */
int data_plane_send_frame(struct data_plane *data_plane, uint32_t relay_id, uint32_t peer_id,
			  const uint8_t *bytes, size_t len);
/*
 * The same by the relay that data goes by, never in fragments, and now or not at all: -EMSGSIZE when the first link
 * takes no datagram so long.
 */
int data_plane_send_frame_whole(struct data_plane *data_plane, uint32_t peer_id, const uint8_t *bytes, size_t len);

/* RelayManager decides which relays are held; the home relay is held always. */
void data_plane_hold_relay(struct data_plane *data_plane, const struct map_relay *relay);
void data_plane_drop_relay(struct data_plane *data_plane, uint32_t relay_id);
bool data_plane_relay_is_up(const struct data_plane *data_plane, uint32_t relay_id);
/*
 * All relays, nearest first: where peers are looked for that are not at their home. Copied. home: ours, where peers
 * send what they have for us; 0: none.
 */
void data_plane_rank_relays(struct data_plane *data_plane, uint32_t home, const uint32_t *ids, uint32_t n);
/* Round trip to the relay by what is in use, UDP or TLS, in µs; 0: not measured. */
uint32_t data_plane_relay_rtt_us(const struct data_plane *data_plane, uint32_t relay_id);
/* Where the relay of that id is bound by UDP, that is, pinged; none: it is not. */
struct endpoint data_plane_relay_remote(const struct data_plane *data_plane, uint32_t relay_id);
/* Local UDP port that peers reach, for endpoints. */
uint16_t data_plane_port(const struct data_plane *data_plane);
