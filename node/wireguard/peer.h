/* A peer as the core sees it: everything that belongs to one remote static key. */
#pragma once

#include "node/wireguard/allowed_ips.h"
#include "node/wireguard/cookie.h"
#include "node/wireguard/device.h"
#include "node/wireguard/keypair.h"
#include "node/wireguard/noise.h"
#include "node/wireguard/readers.h"
#include "node/wireguard/schedule.h"
#include "node/wireguard/staged.h"
#include "node/wireguard/timers.h"

#include <stdatomic.h>

/* Never changed, only replaced. */
struct wg_published_route {
	struct wg_route route;
	struct wg_retired retired;
};

/* What lanes read; written by the device. */
struct wg_peer_published {
	_Atomic(struct wg_keypair *) sending;	/* NULL: packets are handed to the device */
	_Atomic(struct wg_published_route *) route; /* never NULL */
	_Atomic bool follows;			/* WG_ROAMING */
	_Atomic uint32_t mtu;			/* of packets to it; UINT32_MAX: none */
	/* Raised when the device chose a route itself: a lane tells it anew where packets come from. */
	_Atomic uint32_t route_version;
	_Atomic uint32_t n_told; /* WG_NEWS_AUTHENTICATED and CONFIRMED of this peer that were taken */
	/* Packets that the device took from lanes and sent or dropped, but for those that wait. */
	_Atomic uint64_t n_settled;
};

/*
 * What lanes leave for the device. Many lanes may seal for one peer, hence the atomic additions: once
 * per train.
 */
struct wg_peer_marks {
	_Atomic uint64_t n_handed; /* packets given to the device; equal to n_settled: none wait there */
	_Atomic uint64_t data_sent_ns, any_received_ns, data_received_ns; /* the last one */
	_Atomic uint64_t arrival_ns[2];					  /* direct, relayed */
	_Atomic uint64_t rx_bytes, tx_bytes, rx_packets, tx_packets;
	_Atomic uint64_t n_arrivals; /* trains received */
	_Atomic uint64_t n_data;     /* packets with content received, also those refused afterwards */
	_Atomic bool is_noted;	  /* in the device's list of peers with new marks */
	struct wg_peer *next_noted;
};

/* Of the lane that opens this peer's sessions: what it told the device last. */
struct wg_peer_told {
	uint64_t ns[2]; /* direct, relayed; 0: never */
	struct wg_path path[2];
	uint32_t route_version;
	uint32_t n; /* such news; equal to n_told: the device has followed */
	unsigned kind; /* the last: 0 direct, 1 relayed */
	uint64_t waited_ns; /* for the device to follow; 0: never */
};

/* How often something was asked in a second. */
struct wg_questions {
	uint64_t second_ns; /* its begin; 0: none yet */
	uint32_t n;
};

struct wg_peer {
	struct wg_device *device;
	struct wg_peer *next, *previous; /* in the order added */
	struct wg_peer *bucket_next;	 /* same hash of the public key */
	struct wg_schedule_entry schedule;
	_Atomic uint32_t id; /* read by lanes */
	uint32_t shard; /* which lane opens its sessions: index modulo n_shards */
	void *user;
	bool is_removed; /* lanes may still hold it */
	struct wg_retired retired;

	/* who */
	struct wg_remote remote;
	struct wg_cookie cookie;
	struct wg_allowed_list allowed;

	/* the handshake we began; its index is in the table while it waits */
	struct wg_noise noise;
	uint32_t handshake_index;
	uint64_t last_stamp_ns; /* whitened, of our last initiation: the next is later */
	/* the handshake they began */
	uint8_t latest_timestamp[12]; /* only later ones are answered */
	uint64_t last_initiation_ns;  /* received */

	struct wg_keypairs keypairs;
	struct wg_timers timers;
	struct wg_staged_queue staged;
	uint64_t n_taken; /* packets that lanes handed over */

	/* where */
	enum wg_mode mode;
	struct wg_route route;
	bool reached_nobody; /* the last initiation had no route */
	uint64_t last_no_path_ns;
	uint64_t arrival_told_ns[2]; /* direct, relayed */
	struct wg_path asked_way, told_way; /* whether answers leave by that source: the last question, and its answer */
	uint64_t asked_way_ns;		    /* 0: forgotten */
	struct wg_questions way_questions;

	uint16_t keepalive_s;
	uint32_t n_initiations; /* since the last complete handshake */
	struct wg_stats stats;	/* the fields that are counted here; the others are filled on request */

	uint64_t sent_told_ns;

	/* marks as they were when collected last */
	uint64_t seen_tx_packets, seen_arrivals, seen_data;

	_Alignas(64) struct wg_peer_published published;
	_Alignas(64) struct wg_peer_marks marks;
	struct wg_peer_told told;
};
