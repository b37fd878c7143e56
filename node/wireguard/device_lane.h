/*
 * The device's lanes: data packets are sealed and opened by any number of threads.
 *
 *                    ┌──────────────── tables: allowed IPs, sessions, routes ───────────────┐
 *                    │ (one writes, all read, nobody locks; readers.h)                      ▼
 *   ┌───────────────────────┐                                     ┌──────────────────────────────┐
 *   │ wg_device             │ ◄────────── wg_news ─────────────── │ wg_lane, one per thread      │
 *   │ handshakes, timers,   │   no session yet · handshake ·      │ wg_lane_send():    seal      │
 *   │ configuration         │   new path · session confirmed      │ wg_lane_receive(): open      │
 *   └───────────────────────┘ ◄──── marks (times, per peer) ───── └──────────────────────────────┘
 *
 * A lane does what has to be done for every packet, and nothing else: it finds peer or session in the
 * tables, seals or opens the train, and passes it on. Whatever would change a table it hands to the
 * device as news. That packets flow it marks in the peer: coarse times, from which the device sets
 * its timers when it comes by (wg_device_collect()).
 *
 * Order: packets that a lane handed over for want of a session are sent by the device; until the last of
 * them is on its way the lane hands on, or waits a moment. So packets of one lane never overtake.
 *
 * A peer's sessions must be opened by one and the same lane: the replay window is that lane's. Any
 * lane may seal for any peer. The functions of a lane are for its thread; it runs them between
 * wg_reader_enter() and wg_reader_leave() of its reader.
 */
#pragma once

#include "node/wireguard/aead.h"
#include "node/wireguard/device.h"
#include "node/wireguard/readers.h"

#include <stdatomic.h>

struct wg_keypair;
struct wg_lane;

enum wg_news_type {
	WG_NEWS_PLAIN,	       /* packets of one peer that the lane could not seal: train */
	WG_NEWS_HANDSHAKE,     /* a message that is not data: train of one, from */
	WG_NEWS_AUTHENTICATED, /* the peer's packets come from where they did not, or a second has passed: from */
	WG_NEWS_CONFIRMED,     /* the first packet under this keypair arrived */
	WG_NEWS_LOST_SESSION,  /* data for a session that we do not have: from */
};

struct wg_news {
	enum wg_news_type type;
	struct wg_peer *peer;	    /* PLAIN, AUTHENTICATED, CONFIRMED */
	struct wg_keypair *keypair; /* CONFIRMED; only to be compared */
	struct wg_path from;	    /* HANDSHAKE, AUTHENTICATED, LOST_SESSION */
	struct train train;	    /* PLAIN, HANDSHAKE: valid during the call */
};

/*
 * As wg_ports; called from inside wg_lane_send/receive on the lane's thread. The peer given to
 * transmit and deliver is only to be compared or asked for its id.
 */
struct wg_lane_ports {
	void *owner;
	void (*transmit)(void *owner, struct wg_peer *peer, const struct wg_path *path,
			 const struct train *train);
	void (*deliver)(void *owner, struct wg_peer *peer, const struct train *train);
	void (*reject)(void *owner, enum wg_drop why, const uint8_t *packet, size_t size,
		       uint32_t mtu); /* may be NULL */
	/* To wg_device_take(), in order. False when there is no room now: counted here. */
	bool (*hand)(void *owner, const struct wg_news *news);
	/* wg_device_has_notes() became true. */
	void (*noted)(void *owner);
	/*
	 * The device has yet to do what was handed over, and going on would be too early: wait some
	 * microseconds. False: not any longer; NULL: it has always finished when hand() returns.
	 */
	bool (*wait)(void *owner, unsigned n_waits);
};

/*
 * 0, -ENOMEM or -ENOTSUP. On the device's thread, before the lane's own thread runs. `reader` is
 * that of its thread (wg_device_readers()), NULL if that is the device's.
 */
P2P_CHECK int wg_lane_new(struct wg_device *device, const struct wg_lane_ports *ports,
			  struct wg_reader *reader, struct wg_lane **ret);
/* On the device's thread, after the lane's has ended, before wg_device_free(). Accepts NULL. */
void wg_lane_free(struct wg_lane *lane);

/* As wg_device_send() and wg_device_receive(). */
void wg_lane_send(struct wg_lane *lane, const struct train *packets, struct wg_time now);
void wg_lane_receive(struct wg_lane *lane, const struct train *datagrams, const struct wg_path *from,
		     struct wg_time now);
/* Whose data a datagram is. */
struct wg_owner {
	uint32_t peer_id;
	uint32_t shard; /* which lane opens it */
};
/*
 * False: it is no data, or of no session of ours. Nothing is authenticated yet. Within the same burst as
 * wg_lane_receive().
 */
bool wg_lane_find_owner(const struct wg_lane *lane, const uint8_t *datagram, uint32_t size, struct wg_owner *ret);
/*
 * The only sessions that it opens from now on: those whose index is `shard` modulo n_shards. Before that
 * it opens all. A stranger can have a datagram for another lane's session delivered here (the kernel joins
 * datagrams of one sender, and the first decides), and two lanes must never use one replay window.
 */
void wg_lane_set_shard(struct wg_lane *lane, uint32_t shard);
/* As that of wg_device_set_mtu(); the slots of packets to be sealed are made for it. */
void wg_lane_set_mtu(struct wg_lane *lane, uint32_t mtu);
/* Any thread. */
uint64_t wg_lane_drops(const struct wg_lane *lane, enum wg_drop drop);

/* ---- the device's thread ---- */

struct wg_readers *wg_device_readers(struct wg_device *device);
void wg_device_take(struct wg_device *device, const struct wg_news *news, struct wg_time now);
/* Any thread: marks wait for wg_device_collect(), which may be put off, say for 100 ms. */
bool wg_device_has_notes(const struct wg_device *device);
/* Sets the timers of peers whose packets flowed. */
void wg_device_collect(struct wg_device *device, struct wg_time now);
/*
 * Frees what no lane can hold any more. `passed` is wg_readers_passed() from before the news of all
 * lanes were taken. True when something still waits.
 */
bool wg_device_reclaim(struct wg_device *device, uint64_t passed, struct wg_time now);
