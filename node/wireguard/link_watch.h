/*
 * Tells when interfaces come, go, change, and when addresses, routes, rules or nexthops change:
 * rtnetlink's notifications of one network namespace, on the loop. Loop thread only.
 */
#pragma once

#include "common/error.h"
#include "node/wireguard/link.h"

#include <stdbool.h>
#include <uv.h>

struct link_watch_ports {
	void *owner;
	void (*link)(void *owner, const struct link_info *link);  /* new or changed */
	void (*link_gone)(void *owner, const struct link_info *link); /* deleted, or moved away */
	/*
	 * Addresses, routes, rules or nexthops changed; also when notifications were lost. Not when a cable is pulled,
	 * which may lead packets elsewhere, too (ignore_routes_with_linkdown): that is told as a link.
	 */
	void (*routes)(void *owner);
};

struct link_watch {
	struct link_watch_ports ports;
	uv_poll_t poll;
	int fd;
	void (*closed)(void *arg);
	void *closed_arg;
};

/* Watches the namespace that the calling thread is in. A port may be NULL. */
P2P_CHECK int link_watch_start(struct link_watch *watch, uv_loop_t *loop,
			       const struct link_watch_ports *ports, struct error *reterr);
void link_watch_close(struct link_watch *watch, void (*closed)(void *arg), void *arg);
