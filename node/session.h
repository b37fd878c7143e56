/*
 * Session: one membership at work: session key, control connection, map, and the stage.
 *
 *   session_new() ──► running ──► failed() ──► session_close() ──► closed
 *
 * Torn down whole and built anew by the Engine, on demand or on any error. What it leaves behind is
 * in the data plane: peers, and the paths last published. Loop only.
 */
#pragma once

#include "actors/data_plane.h"
#include "actors/message.h"
#include "common/certificate.h"
#include "common/error.h"
#include "common/websocket.h"
#include "node/control_client.h"
#include "node/state_dir.h"
#include "node/status.h"

#include <uv.h>

struct session;

struct session_ports {
	void *owner;
	/* Something in it broke; the owner closes it. Told once, from the loop. */
	void (*failed)(void *owner, const char *reason);
	/* Control says we are no member any more. */
	void (*removed)(void *owner, const char *reason);
	/* Connected to control, or no longer. */
	void (*control_changed)(void *owner, bool connected);
	/* Borrowed until return. */
	void (*map_changed)(void *owner, const struct map *map);
	void (*identity_renewed)(void *owner, const char *certificate_pem);
};

struct session_options {
	uv_loop_t *loop;
	struct websocket_host *websockets;
	struct data_plane *data_plane;
	const struct state_membership *membership;
	const char *identity_key_pem;
	const struct secret_key *node_key;
	const struct map *map;		    /* the cached one, or NULL */
	const struct node_public *public_node; /* NULL: not one */
	const char *interface;		    /* ours, left out of the local endpoints */
	struct session_ports ports;
};

/* Everything is copied. 0 or -errno. */
P2P_CHECK int session_new(const struct session_options *options, struct session **ret, struct error *reterr);
/* Frees the session, then calls closed. No port is called any more. */
void session_close(struct session *session, void (*closed)(void *owner), void *owner);

/* What we serve is reached elsewhere now: tells control. */
void session_set_public(struct session *session, const struct node_public *public_node);
/* The machine's routes changed, perhaps its addresses, too: then control is called anew. */
void session_link_changed(struct session *session, bool addresses);
/* As if that actor had failed. */
void session_inject_failure(struct session *session, enum actor_kind who, int error);

bool session_is_connected(const struct session *session);
const struct map *session_map(const struct session *session); /* NULL: none yet */
/* Tells control that we leave; cb as rpc_answer_cb. -ENOTCONN. */
P2P_CHECK int session_leave(struct session *session, rpc_answer_cb cb, void *owner);
/* Adds endpoints, NAT, home relay, relays, control, and per peer state and latency. */
void session_fill_status(const struct session *session, struct node_status *status);
