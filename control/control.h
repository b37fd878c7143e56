/*
 * The control service on a libuv loop: members, map, certificates, admin methods over one WebSocket
 * port.
 *
 * Loop only. Owns its store, its CA and its connections. Protocol: docs/PROTOCOL-control.md.
 */
#pragma once

#include "common/endpoint.h"
#include "common/error.h"
#include "common/join_link.h"

#include <stdint.h>
#include <uv.h>

struct control;

struct control_init_options {
	const char *state_dir;
	const char *network;
	const char *host; /* where nodes reach control */
	uint16_t port;
	const char *prefix4; /* NULL: 10.77.0.0/16 */
	const char *prefix6; /* NULL: a random /64 of fd00::/8 */
	int64_t first_key_life_s;
	bool first_key_reusable;
};

/*
 * Makes a network: CA, keys, store, admin token. -EEXIST, and nothing touched, when there is one.
 * The store comes last, so that what a crash leaves behind is no network and init can be run again.
 */
P2P_CHECK int control_init(const struct control_init_options *options, struct join_link *ret_join,
			   struct join_link *ret_admin, struct error *reterr);

struct control_options {
	const char *state_dir;
	struct endpoint
		listen; /* port 0: any; all zero: all addresses, and the port in the links */
};

P2P_CHECK int control_new(uv_loop_t *loop, const struct control_options *options,
			  struct control **ret, struct error *reterr);
uint16_t control_port(const struct control *control);
const char *control_network(const struct control *control);
/* Ends all connections, closes the store, frees itself, then calls cb. */
void control_close(struct control *control, void (*cb)(void *owner), void *owner);

/*
 * Adds a join key to a store that may be in use by a running service. ret_join is the link to give
 * away.
 */
struct control_key_options {
	bool is_reusable;
	int64_t life_s;     /* 0: does not expire */
	int64_t node_ttl_s; /* 0: nodes stay */
	const char *tags;   /* "a,b" */
	bool may_relay;	    /* public nodes that join with it become relays */
};
P2P_CHECK int control_add_key(const char *state_dir, const struct control_key_options *options,
			      struct join_link *ret_join, struct error *reterr);
