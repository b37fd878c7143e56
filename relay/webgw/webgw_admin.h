/*
 * Who runs the node adds and removes webgw's hosts, and looks who is there, by HTTP on a Unix socket: for the owner of the
 * node's process alone (docs/PROTOCOL-webgw.md).
 *
 *   curl ── request ──► http_server ──► admin_wire ──► webgw ──► changed(): the front door's routes are made anew
 *
 * Loop only.
 */
#pragma once

#include "common/error.h"
#include "relay/webgw/webgw.h"

#include <uv.h>

struct webgw_admin;

struct webgw_admin_options {
	uv_loop_t *loop;
	const char *path; /* of the socket; its folder is made */
	struct webgw *webgw; /* borrowed, until it has stopped */
	void *owner;
	/* Hosts came or went. 0; or -errno: they are not kept, and why. */
	int (*changed)(void *owner, struct error *reterr);
	/* Why this cannot be a host of webgw's: somebody else has it. NULL: nobody has. */
	const char *(*taken)(void *owner, const struct host_pattern *host);
};

/* 0, or -errno with path and remedy in reterr. */
P2P_CHECK int webgw_admin_start(const struct webgw_admin_options *options, struct webgw_admin **ret,
				struct error *reterr);
/* Removes the socket, frees itself from the loop, then calls cb. */
void webgw_admin_stop(struct webgw_admin *admin, void (*cb)(void *owner), void *owner);
