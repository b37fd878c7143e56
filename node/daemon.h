/*
 * The p2pnode daemon: an Engine and the local API, put together for one configuration.
 *
 * Loop only.
 */
#pragma once

#include "common/error.h"
#include "node/config.h"

#include <uv.h>

struct node_daemon;

struct node_daemon_options {
	uv_loop_t *loop;
	const struct node_config *config; /* copied */
	const char *state_dir;
	const char *socket; /* of the local API; its folder is made when missing */
	const int *public_sockets; /* that systemd has handed over, now the daemon's */
	size_t n_public_sockets;
};

/* 0 or -errno with what to do in reterr. */
P2P_CHECK int node_daemon_start(const struct node_daemon_options *options, struct node_daemon **ret,
				struct error *reterr);
/* Restarts the Session; packets go on. */
void node_daemon_restart_session(struct node_daemon *daemon);
/* Ends everything and frees it; then stopped (may be NULL) is called from the loop. */
void node_daemon_stop(struct node_daemon *daemon, void (*stopped)(void *owner), void *owner);
