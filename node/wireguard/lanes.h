/*
 * The data plane's threads: the device's, which decides, and the lanes, which move packets.
 *
 *   loop thread                          device's thread
 *   lanes_run() ─────── commands ───────► fn(context, arg)        handshakes, timers, configuration
 *   done(arg) ◄────── completions ──────      │ tables ▲ news
 *   ports ◄──────────── outboxes ───────      ▼        │
 *                                        lanes (lane.h)          ┌── TUN queues
 *   lanes_put_relayed() ── datagrams ───►   run to completion        ◄───┤
 *                                                                        └── UDP sockets
 *
 * How many lanes there are follows the machine:
 *
 *   1 core          one lane for both directions
 *   2 and 3 cores   one seals (TUN to UDP), one opens (UDP to TUN)
 *   4 and more      shards: each lane has its own TUN queues and UDP sockets and does both. The
 *                   kernel keeps a flow in one queue; a session's datagrams come to the lane
 *                   that its receiver index names.
 *
 * The TUN has several queues in any case, which a lane reads in turn: flows do not wait for each other.
 *
 * The threads share rings and published tables only; no lock and no allocation on the packet path. A
 * command is never lost: when there is no room the caller is told. Events and relayed datagrams are
 * dropped and counted when their ring is full.
 *
 * Functions are for the loop thread unless they say otherwise; ports and done are called there.
 */
#pragma once

#include "actors/direct_router/demux.h"
#include "common/error.h"
#include "node/wireguard/device.h"
#include "node/wireguard/tun.h"
#include "node/wireguard/udp.h"
#include "node/wireguard/udp_relays.h"

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#define LANES_MAX_COMMANDS 256
#define LANES_MAX	  16
#define LANES_MAX_QUEUES	  16 /* of the TUN, all lanes together */

struct lanes;

struct lanes_peer_event {
	uint32_t peer_id; /* wg_peer_id() */
	enum wg_event_type type;
	struct wg_path path; /* ARRIVAL and ROAMED */
};

/* All bytes are borrowed for the call. A port may be NULL: the event is then not even made. */
struct lanes_ports {
	void *owner;
	/*
	 * What is not WireGuard; what is of no kind that we know is counted and dropped. DEMUX_RELAY, with its
	 * header: all that lanes_set_relays() does not make a lane take.
	 */
	void (*datagram)(void *owner, enum demux_kind kind, const struct wg_path *from,
			 const uint8_t *bytes, size_t len);
	/* Datagrams, contiguous, that shall go through path->relay_id to path->peer_id. */
	void (*relay)(void *owner, const struct wg_path *path, const struct train *train);
	void (*peer)(void *owner, const struct lanes_peer_event *event);
	/* The TUN interface was deleted; said once. */
	void (*tun_gone)(void *owner);
};

struct lanes_config {
	uv_loop_t *loop;
	struct lanes_ports ports;
	const struct tun *tuns_take; /* queues of one TUN, closed by the lanes; only the array is borrowed */
	unsigned n_tuns;	     /* 0: no TUN; else up to lanes_n_queues() */
	struct udp *udp;	     /* borrowed, may be NULL; of lanes_n_shards() shards */
	unsigned n_lanes;	     /* how many are wanted; 0: as many as suit the machine */
	uint32_t mtu;	     /* 0: WG_DEFAULT_MTU */
	bool is_plain;	     /* nothing but WireGuard: the rest is dropped and counted */
};

/* What a command works with; the device's thread only, valid during the command. */
struct lanes_context {
	struct lanes *lanes;
	struct wg_device *device;
	struct wg_time now;
};

struct lane_counters {
	uint64_t n_events_dropped, n_relayed_dropped, n_news_dropped;
	uint64_t n_unknown, n_sends_dropped, n_tun_refused, n_rejected;
	uint64_t n_tun_reads, n_tun_packets, n_tun_bytes;	/* from the TUN */
	uint64_t n_udp_messages, n_udp_datagrams, n_udp_bytes; /* from the network */
	uint64_t n_udp_relayed;				       /* … of these: opened here, behind a relay's header */
	uint64_t drops[WG_N_DROPS];
};

/*
 * Into how many shards the UDP sockets are to be divided, and how many queues the TUN should have, when
 * so many lanes are wanted (0: as many as suit the machine). With fewer queues, lanes without one
 * only open.
 */
uint32_t lanes_n_shards(unsigned n_lanes);
unsigned lanes_n_queues(unsigned n_lanes);

P2P_CHECK int lanes_start(const struct lanes_config *config, struct lanes **ret, struct error *reterr);
/*
 * Runs the commands that are still waiting, ends the thread, calls their done, closes the TUN;
 * stopped(arg) when the lanes' memory has been freed, from the loop. No port is called any more.
 */
void lanes_stop(struct lanes *lanes, void (*stopped)(void *arg), void *arg);

/* fn runs on the device's thread, then done (may be NULL) on the loop. 0, or -EAGAIN: too many waiting. */
P2P_CHECK int lanes_run(struct lanes *lanes, void (*fn)(const struct lanes_context *context, void *arg),
		       void *arg, void (*done)(void *arg));
/* Datagrams that came through a relay (from->relay_id, from->peer_id); copied. 0, or -EAGAIN: dropped. */
int lanes_put_relayed(struct lanes *lanes, const struct wg_path *from, const struct train *datagrams);
/* Of all lanes together; drops: what lanes dropped, the device's own come by wg_device_drops(). */
void lanes_get_counters(struct lanes *lanes, struct lane_counters *ret);
/* Of one; "both", "seals" or "opens". False: there is no lane i. */
bool lanes_get_lane(struct lanes *lanes, unsigned i, struct lane_counters *ret, const char **ret_role);

/* ---- from within a command only ---- */

/* From now on these sockets; NULL: none. As many shards as before. The old ones may be freed in done. */
void lanes_use_udp(const struct lanes_context *context, struct udp *udp);
void lanes_set_mtu(const struct lanes_context *context, uint32_t mtu);
/*
 * From now on lanes open, as if it had come by {relay_id, peer}, the data of their sessions that one of
 * these relays brings over UDP. In the beginning: none. Copied.
 */
void lanes_set_relays(const struct lanes_context *context, const struct udp_relays *relays);
