/*
 * What the files of the core share: the device itself and who does what.
 *
 *   device.c     configuration: peers, keys, routes, prefixes, statistics
 *   send.c       plain packets -> sealed -> transmit
 *   receive.c    datagrams -> opened -> deliver
 *   handshake.c  the other three messages, both ways
 *   lifecycle.c  what timers ask for; sessions come and go
 */
#pragma once

#include "node/wireguard/aead.h"
#include "node/wireguard/device.h"
#include "node/wireguard/index_table.h"
#include "node/wireguard/peer.h"
#include "node/wireguard/ratelimiter.h"

#define WG_UNDER_LOAD_NS WG_SECOND_NS /* how long load is remembered */

struct wg_device {
	struct wg_ports ports;
	uint32_t mtu;
	struct wg_local local;
	struct wg_aead aead;

	/* peers */
	struct wg_peer *first, *last;
	uint32_t n_peers;
	struct wg_peer **buckets; /* by public key; n_buckets is a power of two */
	uint32_t n_buckets;
	uint8_t hash_key[16]; /* nobody can choose keys or addresses that collide */
	struct wg_index_table indices;
	struct wg_allowed_ips allowed;
	struct wg_schedule schedule;
	struct wg_staged_pool staged;

	/* defence */
	struct wg_cookie_checker checker;
	struct wg_ratelimiter limiter;
	uint32_t handshakes_per_second;
	uint64_t load_tokens_ns, load_last_ns; /* a bucket of handshakes; empty: under load */
	uint64_t load_until_ns;
	uint64_t last_lost_session_ns;

	uint64_t drops[WG_N_DROPS];
};

static inline void wg_drop(struct wg_device *device, enum wg_drop drop)
{
	device->drops[drop]++;
}

/* device.c */
void wg_device_random(struct wg_device *device, void *ret, size_t n);
uint64_t wg_device_hash(const struct wg_device *device, const void *data, size_t n);
void wg_device_drop_indices(struct wg_device *device, const struct wg_dropped *dropped);
/* Call when a peer's timers may have changed. */
void wg_peer_reschedule(struct wg_peer *peer);
void wg_peer_tell(struct wg_peer *peer, enum wg_event_type type, const struct wg_path *path);

/* send.c: datagrams that are ready, to all paths of the route. Counts them; does not touch timers. */
void wg_peer_transmit(struct wg_peer *peer, const struct train *datagrams, struct wg_time now);
/* All that waits, if there are key and route now. */
void wg_peer_flush_staged(struct wg_peer *peer, struct wg_time now);

/* handshake.c */
void wg_peer_initiate(struct wg_peer *peer, bool is_retry, struct wg_time now);
void wg_peer_abandon_handshake(struct wg_peer *peer);
/* message: an initiation, response or cookie reply of the right length. */
void wg_device_receive_handshake(struct wg_device *device, enum wg_message_type type,
				 const uint8_t *message, size_t len, const struct wg_path *from,
				 struct wg_time now);

/* lifecycle.c */
/* A packet of this peer is authentic: liveness, roaming, timers. */
void wg_peer_on_authenticated(struct wg_peer *peer, const struct wg_path *from, struct wg_time now);
/* A handshake is complete on our side: packets can be sent under the current keypair. */
void wg_peer_on_session(struct wg_peer *peer, struct wg_time now);
void wg_peer_wipe_keys(struct wg_peer *peer);
/* Data for a session that we do not have; not authenticated, so it may only make us ask. */
void wg_device_on_lost_session(struct wg_device *device, const struct wg_path *from,
			       struct wg_time now);
/* Source addresses of the route are learned anew. */
void wg_peer_forget_source(struct wg_peer *peer);
