/*
 * What the files of the core share: the device itself and who does what.
 *
 *   on the device's thread
 *     device.c     configuration: peers, keys, routes, prefixes, statistics
 *     news.c       what lanes hand over, and the marks they leave
 *     waiting.c    packets that wait for a session, keepalives
 *     handshake.c  the three messages that are not data, both ways
 *     lifecycle.c  what timers ask for; sessions come and go
 *   on a lane's thread
 *     send.c       plain packets -> sealed -> transmit
 *     receive.c    datagrams -> opened -> deliver
 */
#pragma once

#include "node/wireguard/aead.h"
#include "node/wireguard/device.h"
#include "node/wireguard/device_lane.h"
#include "node/wireguard/index_table.h"
#include "node/wireguard/mss.h"
#include "node/wireguard/peer.h"
#include "node/wireguard/ratelimiter.h"
#include "node/wireguard/readers.h"
#include "node/wireguard/session_table.h"

#define WG_UNDER_LOAD_NS WG_SECOND_NS /* how long load is remembered */

#define WG_ANY_SHARD UINT32_MAX

#define WG_FLUSH_MAX 32 /* staged packets that leave as one train */

struct wg_lane {
	struct wg_device *device; /* of it only what is published */
	struct wg_lane_ports ports;
	struct wg_reader *reader; /* NULL: the device's own lane */
	struct wg_aead aead;
	uint32_t mtu;
	uint32_t shard;		  /* whose sessions it opens, or WG_ANY_SHARD */
	uint64_t lost_session_ns; /* told last */
	_Atomic uint64_t drops[WG_N_DROPS];
	struct wg_lane *next;
};

struct wg_device {
	struct wg_ports ports;
	uint32_t mtu;
	uint32_t n_shards, next_shard;
	struct wg_time now; /* of the call that is under way, for what its own lane hands over */
	struct wg_local local;

	/* read by lanes */
	struct wg_readers readers;
	struct wg_allowed_ips allowed;
	struct wg_session_table sessions;
	_Atomic(struct wg_peer *) noted; /* peers with new marks, pushed by lanes */

	struct wg_lane *own; /* for what is sealed on the device's thread */
	struct wg_lane *lanes;
	uint8_t *flush_buffer; /* staged packets become a train here */

	/* peers */
	struct wg_peer *first, *last;
	uint32_t n_peers;
	struct wg_peer **buckets; /* by public key; n_buckets is a power of two */
	uint32_t n_buckets;
	uint8_t hash_key[16]; /* nobody can choose keys or addresses that collide */
	struct wg_index_table indices;
	struct wg_schedule schedule;
	struct wg_staged_pool staged;

	/* defence */
	struct wg_cookie_checker checker;
	struct wg_ratelimiter limiter;
	uint32_t handshakes_per_second;
	uint64_t load_tokens_ns, load_last_ns; /* a bucket of handshakes; empty: under load */
	uint64_t load_until_ns;
	uint64_t last_lost_session_ns;
	struct wg_questions cookie_questions; /* by which way cookie replies leave */

	uint64_t drops[WG_N_DROPS];
};

static inline void wg_drop(struct wg_device *device, enum wg_drop drop)
{
	device->drops[drop]++;
}

static inline void wg_lane_drop(struct wg_lane *lane, enum wg_drop drop, uint64_t n)
{
	/* One thread writes, others only read. */
	const uint64_t before = atomic_load_explicit(&lane->drops[drop], memory_order_relaxed);

	atomic_store_explicit(&lane->drops[drop], before + n, memory_order_relaxed);
}

/* Whoever sees the new count (news.c) sees the times that were marked before. */
static inline void wg_mark_add(_Atomic uint64_t *mark, uint64_t n)
{
	atomic_fetch_add_explicit(mark, n, memory_order_release);
}

static inline void wg_mark_time(_Atomic uint64_t *mark, uint64_t now_ns)
{
	atomic_store_explicit(mark, now_ns, memory_order_relaxed);
}

/* device.c */
void wg_device_random(struct wg_device *device, void *ret, size_t n);
uint64_t wg_device_hash(const struct wg_device *device, const void *data, size_t n);
/* Call when a peer's timers may have changed. */
void wg_peer_reschedule(struct wg_peer *peer);
void wg_peer_tell(struct wg_peer *peer, enum wg_event_type type, const struct wg_path *path);
/* WG_EVENT_SENT, if that was not told just now. */
void wg_peer_tell_sent(struct wg_peer *peer, struct wg_time now);
/* Call when peer->route has changed. */
void wg_peer_publish_route(struct wg_peer *peer);

/* Of SYNs, to fit into the peer's MTU. In a train of larger packets only the last can be one. */
static inline void wg_peer_clamp_mss(const struct wg_peer *peer, const struct train *packets)
{
	const uint32_t mtu = atomic_load_explicit(&peer->published.mtu, memory_order_relaxed);

	if (packets->last_size > MSS_MAX_SYN || mtu == UINT32_MAX)
		return;
	for (uint32_t i = packets->size > MSS_MAX_SYN ? packets->n - 1 : 0; i < packets->n; i++)
		if (mss_is_syn(train_packet(packets, i), train_size(packets, i)))
			mss_clamp(train_packet(packets, i), train_size(packets, i), mtu);
}

/* send.c: with a lane of the calling thread. How many could be sealed and were sent. */
uint32_t wg_lane_seal_and_transmit(struct wg_lane *lane, struct wg_peer *peer,
				   struct wg_keypair *keypair, const struct wg_route *route,
				   const struct train *packets, uint8_t ecn);

/* news.c */
/* The lane's thread, after the marks were set. */
void wg_lane_note(struct wg_lane *lane, struct wg_peer *peer);
/* What lanes marked comes before what the device is about to report to the timers. */
void wg_peer_collect(struct wg_peer *peer, struct wg_time now);

/* waiting.c: datagrams that are ready, to all paths of the route. Counts them; does not touch timers. */
void wg_peer_transmit(struct wg_peer *peer, const struct train *datagrams, struct wg_time now);
/* All that waits, if there are key and route now. */
void wg_peer_flush_staged(struct wg_peer *peer, struct wg_time now);
void wg_peer_take_plain(struct wg_peer *peer, const struct train *packets, struct wg_time now);
/* Call when nothing may wait any more: lanes need not hand over. */
void wg_peer_settle(struct wg_peer *peer);

/* handshake.c */
void wg_peer_initiate(struct wg_peer *peer, bool is_retry, struct wg_time now);
void wg_peer_abandon_handshake(struct wg_peer *peer);
/* message: an initiation, response or cookie reply of the right length. */
void wg_device_receive_handshake(struct wg_device *device, enum wg_message_type type,
				 const uint8_t *message, size_t len, const struct wg_path *from,
				 struct wg_time now);

/* lifecycle.c */
/*
 * A packet of this peer is authentic: liveness, roaming, timers. True when it goes another way from now on.
 * asks_again: whether answers leave by the source that is remembered, even if it is the same (seldom, please).
 */
bool wg_peer_on_authenticated(struct wg_peer *peer, const struct wg_path *from, bool asks_again, struct wg_time now);
/* A handshake is complete on our side: packets can be sent under the current keypair. */
void wg_peer_on_session(struct wg_peer *peer, struct wg_time now);
/* The responder learns that its response arrived. */
void wg_peer_confirm_next(struct wg_peer *peer, struct wg_time now);
/* A session that grows old is replaced while it still works. */
void wg_peer_keep_fresh(struct wg_peer *peer, struct wg_time now);
void wg_peer_wipe_keys(struct wg_peer *peer);
/* Lanes seal with the current keypair from now on. */
void wg_peer_publish_session(struct wg_peer *peer);
void wg_device_drop_keypairs(struct wg_device *device, const struct wg_dropped *dropped);
/* Data for a session that we do not have; not authenticated, so it may only make us ask. */
void wg_device_on_lost_session(struct wg_device *device, const struct wg_path *from,
			       struct wg_time now);
/*
 * Where it came from, and our address that it came to, unless the way back leads elsewhere by now (another default
 * route): from that address it would be lost there, or take our port at a NAT that others need it from. Of an address
 * that does not belong to where it was asked only the interface is left out.
 */
struct wg_path wg_peer_way_back(struct wg_peer *peer, const struct wg_path *from, struct wg_time now);
/* The same for a cookie reply, to a stranger. */
struct wg_path wg_device_way_of_cookie(struct wg_device *device, const struct wg_path *from, struct wg_time now);
/* Source addresses of the route are learned anew. */
void wg_peer_forget_source(struct wg_peer *peer);
