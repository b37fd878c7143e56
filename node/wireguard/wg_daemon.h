/*
 * A plain userspace WireGuard, put together: one interface, its lanes, the UAPI socket.
 *
 * As wg(8) and wg-quick(8) expect: the UDP sockets are open while the interface is up, in the
 * network namespace the program was started in, wherever the interface moves; the daemon ends when
 * the interface is deleted or the socket's file is removed. Loop thread only.
 */
#pragma once

#include "common/error.h"
#include "node/wireguard/offload_switches.h"

#include <uv.h>

struct wg_daemon;

struct wg_daemon_options {
	struct offload_switches offloads;
	unsigned n_lanes; /* 0: as many as suit the machine */
};

/*
 * Creates interface and socket. ended(arg) is called once, from the loop, when the daemon has ended
 * by itself or by wg_daemon_stop() and its memory has been freed; not when starting failed.
 */
P2P_CHECK int wg_daemon_start(uv_loop_t *loop, const char *ifname, const struct wg_daemon_options *options,
			      void (*ended)(void *arg), void *arg, struct wg_daemon **ret, struct error *reterr);
/* Begins the end; may be called again. */
void wg_daemon_stop(struct wg_daemon *daemon);
/* Begins a new session with every peer that has an endpoint, as happens by itself every two minutes. */
void wg_daemon_rekey(struct wg_daemon *daemon);
/* Into the log: the state of each offload, what came and what was dropped. */
void wg_daemon_log(struct wg_daemon *daemon);
