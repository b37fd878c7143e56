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
	bool has_front_door;		    /* visitors come to it */
	const struct map_port *door_ports;  /* there, which lead to members */
	uint32_t n_door_ports;
	const struct map_exposures *exposures; /* what we publish; NULL: nothing, nor ever did */
	bool no_lan_discovery;		    /* peers on the same link are not looked for */
	struct session_ports ports;
};

/* Everything is copied. 0 or -errno. */
P2P_CHECK int session_new(const struct session_options *options, struct session **ret, struct error *reterr);
/* Frees the session, then calls closed. No port is called any more. */
void session_close(struct session *session, void (*closed)(void *owner), void *owner);

/* What we serve is reached elsewhere now: tells control. */
void session_set_public(struct session *session, const struct node_public *public_node);
/* Ports of our front door that lead to members, copied, MAP_MAX_PORTS at most: tells control. */
void session_set_ports(struct session *session, const struct map_port *ports, uint32_t n);
/* What we publish now: tells control. exposures->id need not be set. */
void session_set_exposures(struct session *session, const struct map_exposures *exposures);
/* As control_client_word(). */
enum control_word session_control_word(const struct session *session, uint64_t *ret_sequence);
/* As control_client_refusal(). */
const char *session_control_refusal(const struct session *session);
/* The machine's routes changed, perhaps its addresses, too: then control is called anew. */
void session_link_changed(struct session *session, bool addresses);
/* Where a router forwards to the data plane's port; none: nowhere. Nothing at first. */
void session_set_forwarded(struct session *session, const struct endpoint *external);
/* Where a TURN server passes on to us; none: nowhere. Nothing at first. */
void session_set_turned(struct session *session, const struct endpoint *relayed);
/* Finds out anew what the NAT does, unless it is being done. */
void session_measure_nat(struct session *session);
/* That is under way, or about to be. */
bool session_is_measuring(const struct session *session);
/* As if that actor had failed. */
void session_inject_failure(struct session *session, enum actor_kind who, int error);

bool session_is_connected(const struct session *session);
const struct map *session_map(const struct session *session); /* NULL: none yet */
/* Tells control that we leave; cb as rpc_answer_cb. -ENOTCONN. */
P2P_CHECK int session_leave(struct session *session, rpc_answer_cb cb, void *owner);
/* Adds endpoints, NAT, home relay, relays, control, and per peer state and latency. */
void session_fill_status(const struct session *session, struct node_status *status);
