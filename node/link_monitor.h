/*
 * The machine's own addresses, and a word when they change.
 *
 * Listens to rtnetlink for links, addresses, routes and rules; a burst of changes is told twice: at once, to
 * stop what is wrong by now, and 100 ms after the first of it, to look anew. Loop only.
 */
#pragma once

#include "common/endpoint.h"
#include "common/error.h"
#include "common/macros.h"

#include <stddef.h>
#include <uv.h>

struct link_monitor;

struct link_monitor_ports {
	void *owner;
	void (*begins)(void *owner);  /* something changes */
	void (*changed)(void *owner); /* something has changed */
};

/* 0 or -errno. The ports are called from the loop. */
P2P_CHECK int link_monitor_new(uv_loop_t *loop, const struct link_monitor_ports *ports, struct link_monitor **ret,
			       struct error *reterr);
/* Accepts NULL: closed is called at once. */
void link_monitor_close(struct link_monitor *monitor, void (*closed)(void *owner), void *owner);

/*
 * Addresses at which this machine may be reached, with the given port: of interfaces that are up,
 * not loopback, not point-to-point, not link-local, not `except` (our own overlay interface).
 * Returns how many were written.
 */
size_t link_local_endpoints(uint16_t port, const char *except, struct endpoint *ret, size_t max);
