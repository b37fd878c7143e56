/* A peer as the core sees it: everything that belongs to one remote static key. */
#pragma once

#include "node/wireguard/allowed_ips.h"
#include "node/wireguard/cookie.h"
#include "node/wireguard/device.h"
#include "node/wireguard/keypair.h"
#include "node/wireguard/noise.h"
#include "node/wireguard/schedule.h"
#include "node/wireguard/staged.h"
#include "node/wireguard/timers.h"

struct wg_peer {
	struct wg_device *device;
	struct wg_peer *next, *previous; /* in the order added */
	struct wg_peer *bucket_next;	 /* same hash of the public key */
	struct wg_schedule_entry schedule;
	uint32_t id;
	void *user;

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

	/* where */
	enum wg_mode mode;
	struct wg_route route;
	bool reached_nobody; /* the last initiation had no route */
	uint64_t last_no_path_ns;
	uint64_t arrival_told_ns[2]; /* direct, relayed */

	uint16_t keepalive_s;
	uint32_t n_initiations; /* since the last complete handshake */
	struct wg_stats stats;	/* the fields that are counted; the others are filled on request */
};
