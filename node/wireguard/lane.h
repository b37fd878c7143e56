/*
 * One lane: a thread that moves packets from the TUN to the network, from the network to the TUN, or
 * both. It runs to completion: wait, receive a burst, open or seal it, send it. No lock and no
 * allocation; what it has for others goes into rings.
 *
 *      TUN queue ──► ┌─────────────┐ ──► UDP
 *    UDP sockets ──► │    lane     │ ──► TUN queue
 *    loop: relayed ► │  (wg_lane)  │ ──► outbox (what the loop must see)
 *                    └─────────────┘ ──► news, notes (for the device's thread)
 *
 * lanes.c starts and drives the lanes; nobody else uses this. Functions are for the device's thread
 * unless they say otherwise.
 */
#pragma once

#include "node/wireguard/device_lane.h"
#include "node/wireguard/lanes.h"
#include "node/wireguard/lane_outbox.h"
#include "common/ring.h"
#include "node/wireguard/tun.h"
#include "node/wireguard/udp.h"
#include "node/wireguard/udp_relays.h"

struct lane;

/* What it takes packets from. */
enum lane_role { LANE_SEALS = 1, LANE_OPENS = 2, LANE_DOES_BOTH = 3 };

struct lane_config {
	void *owner;
	struct wg_device *device;
	enum lane_role role;
	uint32_t shard; /* of the UDP sockets that it receives from */
	uint32_t mtu;
	const struct tun *tuns; /* queues; copied, the descriptors are borrowed. Packets are written to the first */
	unsigned n_tuns;	/* up to LANES_MAX_QUEUES */
	struct udp *udp;       /* borrowed; NULL: none */
	bool is_plain;	       /* nothing but WireGuard */
	bool wants_datagrams, wants_relay;
	/* From the lane's thread: there are news or notes; events are in the outbox, or the TUN is gone. */
	void (*wake_device)(void *owner);
	void (*wake_loop)(void *owner);
	/*
	 * From the lane's thread: data, brought by a relay, that the lane of this shard opens; copied. False: it
	 * could not be passed on, and goes by the loop. NULL: never.
	 */
	bool (*pass_on)(void *owner, uint32_t shard, const struct wg_path *from, const struct train *datagrams);
};

/* 0 or -errno. The thread does not run yet. */
P2P_CHECK int lane_new(const struct lane_config *config, struct lane **ret);
/* Aborts when there is no memory for a stack. */
void lane_start(struct lane *lane);
/* Ends it and waits for that. Does nothing when it does not run. */
void lane_stop(struct lane *lane);
/* After stop. Accepts NULL. */
void lane_free(struct lane *lane);

/* fn(lane, arg) on the lane's thread between two bursts; returns when that was done. */
void lane_call(struct lane *lane, void (*fn)(struct lane *lane, void *arg), void *arg);
/* These three: from within such a call, or before the start. */
void lane_use_udp(struct lane *lane, struct udp *udp);
/* Copied. */
void lane_set_relays(struct lane *lane, const struct udp_relays *relays);
void lane_set_mtu(struct lane *lane, uint32_t mtu);

/* Gives news to the device; at most max. False when that was not all. */
bool lane_take_news(struct lane *lane, struct wg_time now, unsigned max);
/* Marks the news that it has given so far; true from when all of them were taken. */
void lane_mark_news(struct lane *lane);
bool lane_marked_were_taken(const struct lane *lane);

/* ---- another lane's thread ---- */

enum lane_error { LANE_E_BUSY = 1 };
/* Data of this lane's; copied. 0; -EAGAIN: full, dropped and counted; LANE_E_BUSY: another is putting just now. */
P2P_CHECK int lane_pass_on(struct lane *lane, const struct wg_path *from, const struct train *datagrams);

/* ---- loop thread ---- */

/* Copied. 0, or -EAGAIN: dropped. */
int lane_put_relayed(struct lane *lane, const struct wg_path *from, const struct train *datagrams);
struct lane_outbox *lane_outbox(struct lane *lane);
/* True once, when the interface was deleted. */
bool lane_take_tun_gone(struct lane *lane);

/* Any thread. */
void lane_get_counters(const struct lane *lane, struct lane_counters *ret);
struct wg_time lane_time_now(void);
