/*
 * WireGuard's protocol core: the whole protocol, in one process-local object, without I/O.
 *
 *             plain IP packets                          datagrams
 *   TUN ─── wg_device_send() ──►  ┌───────────┐ ──► ports.transmit() ─── UDP or a relay
 *                                 │ wg_device │
 *   TUN ◄── ports.deliver() ───── └───────────┘ ◄── wg_device_receive() ─ UDP or a relay
 *                                   ▲       │
 *             wg_device_tick() ─────┘       └──► ports.event()
 *
 * Pure: no descriptors, no clock, no locks, no globals. Time comes in with each call, packets go
 * in and out as trains. Every function of one device must be called from one thread (the lane).
 * Nothing is allocated for a data packet; memory grows only with peers, prefixes and sessions.
 *
 * Ports are called from inside wg_device_send/receive/tick and from those configuration functions
 * that take a time. From inside a port only functions that take a const object may be called.
 *
 * Words: a *path* is one way to a peer (an ip:port, or a relay). A *route* is the paths that a
 * peer's packets take now, usually one; with two each packet is sent on both.
 */
#pragma once

#include "common/endpoint.h"
#include "common/key.h"
#include "common/macros.h"
#include "node/wireguard/train.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define WG_HEADROOM	  16 /* free bytes before each packet given to wg_device_send() */
#define WG_TAG_LEN	  16
#define WG_OVERHEAD	  32   /* headroom and tag: what a sealed packet is longer than a padded one */
#define WG_DEFAULT_MTU	  1420
#define WG_ROUTE_MAX	  2
#define WG_RELAY_HEADER_LEN 16 /* common/relay_udp_wire.h */
#define WG_STAGED_MAX	  128  /* packets that wait for a key, per peer */
#define WG_STAGED_SIZE	  2016 /* longest of them, unless configured */
#define WG_DS_HANDSHAKE	  0x88 /* AF41 */

struct wg_aead;
struct wg_device;
struct wg_peer;

/* ---- time ---- */

struct wg_time {
	uint64_t ns;	  /* common/clock.h, nanoseconds, never 0: suspended time counts */
	uint64_t real_ns; /* CLOCK_REALTIME, nanoseconds since 1970: for handshake time stamps only */
};

/* ---- paths ---- */

/*
 * The way a datagram came, or the way it goes. Direct: relay_id 0 and remote set; local_ip and
 * ifindex (when not zero) are the source to send from, so that answers leave by the address that
 * was asked. Relayed: relay_id set, and peer_id names who sent it or who shall get it; with remote set as
 * well it goes to the relay over UDP, each datagram behind relay_header.
 */
struct wg_path {
	struct endpoint remote;
	uint8_t local_ip[16]; /* v4-mapped like endpoint.ip; all zero: any */
	uint32_t ifindex;     /* 0: any */
	uint32_t socket;      /* the owner's business: carried along, never looked at */
	uint32_t relay_id;
	uint32_t peer_id;
	uint8_t relay_header[WG_RELAY_HEADER_LEN];
};

static inline bool wg_path_is_udp_relayed(const struct wg_path *path)
{
	return path->relay_id != 0 && path->remote.port != 0;
}

/* Not by a UDP socket, but by whoever has a connection to the relay. */
static inline bool wg_path_is_the_loops(const struct wg_path *path)
{
	return path->relay_id != 0 && !wg_path_is_udp_relayed(path);
}

static inline bool wg_path_has_source(const struct wg_path *path)
{
	static const uint8_t any[sizeof(path->local_ip)];

	return path->ifindex != 0 || memcmp(path->local_ip, any, sizeof(any)) != 0;
}

struct wg_route {
	uint32_t n; /* 0: no way to the peer */
	struct wg_path paths[WG_ROUTE_MAX];
};

/*
 * Same remote, or same relay and peer; the local half does not matter. Of relayed paths neither does
 * how the relay is reached: what came through it has no remote.
 */
bool wg_path_equal(const struct wg_path *a, const struct wg_path *b);

enum wg_mode {
	WG_ROAMING, /* plain WireGuard: the route is the path of the last authenticated packet */
	WG_PINNED,  /* the route is what wg_peer_set_route() said last, whatever comes in */
};

/*
 * Pinned peers also recover from a restart of ours in a round trip: a data packet for a session
 * that we do not have, by the peer's path or from it through a relay, begins a handshake. Plain
 * WireGuard keeps silent, and the other side notices after 15 s.
 */

/* ---- what the device tells its owner ---- */

enum wg_event_type {
	WG_EVENT_SESSION, /* a handshake is complete: packets flow, under new keys */
	WG_EVENT_ARRIVAL, /* authenticated packets come by event.path: told once a second, and when
			     the path is another than the last of its kind (direct, relayed) */
	WG_EVENT_ROAMED,  /* roaming only: the route is now event.path */
	WG_EVENT_NO_PATH, /* there is something to send and no route; at most once in 5 s */
	WG_EVENT_GAVE_UP, /* no answer in 90 s of trying: what waited was dropped */
	WG_EVENT_EXPIRED, /* 540 s without a new session: all keys are wiped */
	WG_EVENT_SENT,	  /* data, or the begin of a handshake, is sent: told once a second */
};

struct wg_event {
	enum wg_event_type type;
	const struct wg_path *path; /* ARRIVAL, ROAMED; else NULL. Valid during the call */
};

/* Why a packet was dropped; the device counts each. */
enum wg_drop {
	/* datagrams */
	WG_DROP_MALFORMED,	 /* no WireGuard message of a known type and right length */
	WG_DROP_NO_PRIVATE_KEY,	 /* we have no identity yet */
	WG_DROP_MAC1,		 /* handshake not meant for us, or forged */
	WG_DROP_COOKIE_REQUIRED, /* under load: a cookie reply was sent instead */
	WG_DROP_RATE_LIMITED,	 /* under load: this source sends too many handshakes */
	WG_DROP_UNKNOWN_INDEX,	 /* for a session or handshake that we do not have (any more) */
	WG_DROP_UNKNOWN_PEER,	 /* well-formed initiation of somebody we do not know */
	WG_DROP_HANDSHAKE,	 /* does not decrypt, a low-order key, or wrong pre-shared key */
	WG_DROP_TIMESTAMP,	 /* initiation not newer than the last: a replay, or a clock set back */
	WG_DROP_FLOOD,		 /* initiations of one peer less than 20 ms apart */
	WG_DROP_COOKIE_REPLY,	 /* does not decrypt, or we did not ask */
	WG_DROP_EXPIRED_KEY,	 /* session older than 180 s or out of numbers */
	WG_DROP_FORGED,		 /* data that does not decrypt */
	WG_DROP_REPLAY,		 /* data seen before, or older than the window */
	WG_DROP_NOT_IP,		 /* decrypted, but no whole IP packet */
	WG_DROP_SOURCE_IP,	 /* decrypted, but the source address is not this peer's */
	WG_DROP_HANDSHAKE_QUEUE, /* a handshake, and too many wait already */
	WG_DROP_CONGESTION,	 /* CE mark on a packet whose sender does not speak ECN (RFC 6040) */
	/* plain packets */
	WG_DROP_OUT_NOT_IP,
	WG_DROP_OUT_NO_PEER, /* no peer has the destination address */
	WG_DROP_OUT_MTU,     /* longer than wg_peer_set_mtu() allows */
	WG_DROP_OUT_TOO_BIG, /* longer than a staged packet may be, and there is no key yet */
	WG_DROP_OUT_STAGED,  /* too many wait for a key: the oldest went; or waited in vain */
	WG_DROP_OUT_QUEUE,   /* waited for a key, but the device could not take more */
	WG_DROP_OUT_NO_PATH, /* sealed or handshake, but the route is empty */
	WG_DROP_INTERNAL,    /* OpenSSL or memory failed us */
	WG_N_DROPS,
};

const char *wg_drop_name(enum wg_drop drop);

/*
 * What a device needs from its owner. All trains and pointers are valid during the call only, but
 * their bytes lie in the buffer that was given to wg_device_send/receive (unless staged), so the
 * owner may finish the work after that call has returned and before it reuses the buffer; staged
 * packets, handshakes and keepalives are in memory of the device: copy or send them at once.
 */
struct wg_ports {
	void *owner;
	/*
	 * Send the datagrams, in order, with train->ds as DS field. Called once per path of the
	 * route. peer is NULL for a cookie reply.
	 */
	void (*transmit)(void *owner, struct wg_peer *peer, const struct wg_path *path,
			 const struct train *train);
	/* Whole IP packets, source address checked, padding cut off, ECN applied. */
	void (*deliver)(void *owner, struct wg_peer *peer, const struct train *train);
	void (*event)(void *owner, struct wg_peer *peer, const struct wg_event *event); /* may be NULL */
	/*
	 * A plain packet was refused: the owner may answer with ICMP unreachable, or, when it is longer than mtu
	 * (WG_DROP_OUT_MTU; else 0), with "too big". May be NULL.
	 */
	void (*reject)(void *owner, enum wg_drop why, const uint8_t *packet, size_t size, uint32_t mtu);
	/* Unpredictable bytes; NULL: the system's. Given in tests to make a run repeatable. */
	void (*random)(void *owner, void *ret, size_t size);
	/*
	 * Would an answer from path->local_ip leave by path->ifindex, where the packet came in? If not, the source is
	 * taken out of the path, and routing chooses: an address of another network must not be seen there; or only
	 * the interface is. Called before a source is remembered, seldom. NULL: always.
	 */
	void (*fit_source)(void *owner, struct wg_path *path);
};

/* ---- device ---- */

struct wg_config {
	struct wg_ports ports;
	uint32_t mtu;		       /* of the inner interface; 0: WG_DEFAULT_MTU */
	uint32_t n_staged;	       /* packets that may wait for keys, over all peers; 0: 2048 */
	uint32_t staged_size;	       /* longest of them; 0: WG_STAGED_SIZE */
	uint32_t n_shards; /* lanes that open packets: a peer's receiver indices, modulo this, name one; 0: 1 */
	uint32_t handshakes_per_second; /* more than that is "under load"; 0: 500 */
};

/* sodium_init() must have been called. 0, -ENOMEM, or -ENOTSUP when OpenSSL lacks an algorithm. */
P2P_CHECK int wg_device_new(const struct wg_config *config, struct wg_device **ret);
/* Accepts NULL; wipes all keys. */
void wg_device_free(struct wg_device *device);

/*
 * All-zero clears it. Nothing is sent under old sessions any more. A peer that has our own key is
 * removed, and its pointer with it.
 */
void wg_device_set_private_key(struct wg_device *device, const struct secret_key *key);
/* All-zero when there is none. The caller wipes *ret. */
void wg_device_get_private_key(const struct wg_device *device, struct secret_key *ret);
/* All-zero when there is no private key. */
const struct public_key *wg_device_public_key(const struct wg_device *device);
void wg_device_set_mtu(struct wg_device *device, uint32_t mtu);
/* The source addresses remembered for answers are forgotten: call when routes or addresses change. */
void wg_device_forget_sources(struct wg_device *device);

/*
 * Seal plain IP packets and transmit them, in place: the headers are written before the packets,
 * padding and tags behind.
 *
 *   base - WG_HEADROOM      base
 *   ┌──────────────────────┬──────────────────────┬───────────────────┬──── next packet's slot
 *   │ free                 │ packet               │ free: padding, tag│
 *   └──────────────────────┴──────────────────────┴───────────────────┴────
 *    ◄────────────────── wg_slot_size(size, mtu) ─────────────────────►
 *
 * Each packet needs its whole slot, the last and an only one too; the stride must be at least the
 * slot's size, and when it is exactly that the datagrams leave without gaps, ready for UDP_SEGMENT.
 * Packets for several peers may be mixed in a train. The buffer is overwritten. mtu is that of the
 * device (wg_config, wg_device_set_mtu).
 */
void wg_device_send(struct wg_device *device, const struct train *packets, struct wg_time now);
/* Handle datagrams that came by one path. They are opened in place; the buffer is overwritten. */
void wg_device_receive(struct wg_device *device, const struct train *datagrams,
		       const struct wg_path *from, struct wg_time now);
/* Does what is due. Cheap when nothing is. */
void wg_device_tick(struct wg_device *device, struct wg_time now);
/* When to call tick next, in wg_time.ns; UINT64_MAX: never. May be earlier than needed. */
uint64_t wg_device_next_deadline(const struct wg_device *device);

uint64_t wg_device_drops(const struct wg_device *device, enum wg_drop drop);
bool wg_device_is_under_load(const struct wg_device *device, struct wg_time now);
/* With what packets are sealed and opened (aead.h); chosen once. */
const struct wg_aead *wg_device_aead(const struct wg_device *device);

/* Length of a packet when padded: a multiple of 16, but not beyond the MTU. */
static inline uint32_t wg_padded_size(uint32_t size, uint32_t mtu)
{
	uint32_t unit = mtu != 0 && size > mtu ? size % mtu : size;
	uint32_t padded = (unit + 15) & ~15u;

	if (mtu != 0 && padded > mtu)
		padded = mtu;
	return size - unit + padded;
}

/* Bytes that a packet takes in a send buffer: header, padded packet, tag. */
static inline uint32_t wg_slot_size(uint32_t size, uint32_t mtu)
{
	return wg_padded_size(size, mtu) + WG_OVERHEAD;
}

/* ---- peers ---- */

enum wg_peer_error {
	WG_PEER_E_EXISTS = 1,
	WG_PEER_E_OWN_KEY, /* the key is our own public key */
};

/* 0, -ENOMEM, or an enum wg_peer_error. Roaming, no route, no allowed IPs. The device owns it. */
P2P_CHECK int wg_device_add_peer(struct wg_device *device, const struct public_key *key,
				 struct wg_peer **ret);
/* NULL when unknown. */
struct wg_peer *wg_device_find_peer(const struct wg_device *device, const struct public_key *key);
/* The peer is freed; its packets and keys with it. */
void wg_device_remove_peer(struct wg_device *device, struct wg_peer *peer);
/* for (p = wg_device_first_peer(d); p; p = wg_peer_next(p)), in the order added. */
struct wg_peer *wg_device_first_peer(const struct wg_device *device);
struct wg_peer *wg_peer_next(const struct wg_peer *peer);

const struct public_key *wg_peer_key(const struct wg_peer *peer);
/*
 * An id and a pointer for the owner's use. The device keeps them; of a pinned peer it knows by the
 * id what comes from it through a relay (wg_path.peer_id).
 */
void wg_peer_set_user(struct wg_peer *peer, uint32_t id, void *user);
uint32_t wg_peer_id(const struct wg_peer *peer);
void *wg_peer_user(const struct wg_peer *peer);

/* All-zero: none. Holds for handshakes that begin from now on. */
void wg_peer_set_psk(struct wg_peer *peer, const uint8_t psk[KEY_LEN]);
/* The caller wipes ret. */
void wg_peer_get_psk(const struct wg_peer *peer, uint8_t ret[KEY_LEN]);

void wg_peer_set_mode(struct wg_peer *peer, enum wg_mode mode);
/*
 * Where the peer is: a configured endpoint (roaming: until it is heard from elsewhere) or the
 * owner's decision (pinned). If packets wait, a handshake begins at once. In pinned mode the answer
 * to an authenticated initiation additionally goes back by the way that came.
 */
void wg_peer_set_route(struct wg_peer *peer, const struct wg_route *route, struct wg_time now);
/*
 * Longer plain packets to this peer are refused, but for IPv4 ones that may be fragmented, whose datagrams then
 * are; the MSS in SYNs, both ways, is made to fit. At least 1280, or 0: none (in the beginning).
 */
void wg_peer_set_mtu(struct wg_peer *peer, uint32_t mtu);
const struct wg_route *wg_peer_route(const struct wg_peer *peer);

/* Seconds, 0: off. Turning it on sends one at once. */
void wg_peer_set_keepalive(struct wg_peer *peer, uint16_t seconds, struct wg_time now);
uint16_t wg_peer_keepalive(const struct wg_peer *peer);
/* Begin a handshake if none was begun in the last 5 s; nothing without a route. */
void wg_peer_connect(struct wg_peer *peer, struct wg_time now);
/* The peer may have lost its sessions (it was started anew): begin a handshake now, whatever is recent. */
void wg_peer_reconnect(struct wg_peer *peer, struct wg_time now);
/* Send an empty packet now (a handshake first, if there is no key). */
void wg_peer_send_keepalive(struct wg_peer *peer, struct wg_time now);

/* ---- allowed IPs ---- */

struct wg_prefix {
	uint16_t family; /* AF_INET or AF_INET6 */
	uint8_t len;	 /* bits */
	uint8_t ip[16];	 /* network order; IPv4 in the first four */
};

/* Moves the prefix here if another peer had it. 0, -ENOMEM, -EINVAL (family or length). */
P2P_CHECK int wg_peer_allow(struct wg_peer *peer, const struct wg_prefix *prefix);
/* Nothing happens if the prefix is not this peer's. */
void wg_peer_disallow(struct wg_peer *peer, const struct wg_prefix *prefix);
void wg_peer_disallow_all(struct wg_peer *peer);

/* Walks a peer's prefixes: start with a zeroed cursor; false at the end. Do not change them meanwhile. */
struct wg_prefix_cursor {
	const void *at;
	bool begun;
};
bool wg_peer_next_prefix(const struct wg_peer *peer, struct wg_prefix_cursor *cursor,
			 struct wg_prefix *ret);
/* Whose packets go to this address; NULL: nobody's. ip: 4 or 16 bytes. */
struct wg_peer *wg_device_lookup(const struct wg_device *device, uint16_t family, const uint8_t *ip);

/* ---- what happened ---- */

/* The last authenticated packet of one kind of path. */
struct wg_arrival {
	uint64_t ns; /* wg_time.ns; 0: never */
	struct wg_path path;
};

struct wg_stats {
	uint64_t rx_bytes, tx_bytes; /* datagrams: authenticated ones; sent (on two paths: once) */
	uint64_t rx_packets, tx_packets; /* of data, without keepalives */
	uint64_t last_handshake_ns;	 /* wg_time.ns; 0: never */
	uint64_t last_handshake_real_ns;
	uint64_t last_send_ns;	    /* anything */
	uint64_t last_send_data_ns; /* not a keepalive or handshake */
	uint64_t last_receive_data_ns;
	struct wg_arrival direct, relayed;
	uint32_t handshake_attempts; /* initiations sent since the last complete handshake */
	uint32_t n_staged;
	bool has_session; /* packets could be sealed now */
};

void wg_peer_get_stats(const struct wg_peer *peer, struct wg_time now, struct wg_stats *ret);
