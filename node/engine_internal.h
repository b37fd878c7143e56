/*
 * The Engine's insides, shared by its five files: engine.c (what comes and goes, and in which order),
 * engine_ping.c (ping, netcheck), engine_status.c, engine_relay_status.c, engine_metrics.c. Nobody else
 * includes it.
 */
#pragma once

#include "common/tls_stream.h"
#include "common/websocket.h"
#include "node/engine.h"
#include "node/data_plane.h"
#include "node/echo.h"
#include "node/link_monitor.h"
#include "node/session.h"
#include "node/state_dir.h"
#include "relay/public_node.h"

#include <uv.h>

#define ENGINE_MAX_LOCAL 16

enum membership_state { NOT_JOINED, JOINING, MEMBER, REMOVED };

/* A netcheck that waits for its answers. */
struct netcheck {
	struct p2p_engine *engine;
	struct netcheck *next;
	uv_timer_t timer;
	void (*cb)(void *owner);
	void *owner;
};

struct p2p_engine {
	uv_loop_t *loop;
	struct p2p_engine_callbacks callbacks;
	char interface[IF_NAMESIZE];
	char wanted_name[MAP_NAME_LEN + 1];
	uint16_t listen_port, mtu;
	struct offload_switches offloads;
	unsigned n_lanes;
	enum wireguard_kind wireguard;
	bool is_public;
	bool finds_addresses; /* none are configured: public_options has those of the machine */
	struct node_public public_options;
	uint64_t max_rate_client, max_rate; /* of the relay */
	struct listen_sockets sockets;	    /* that the program was started with */

	struct state_dir dir;
	struct secret_key node_key;
	struct public_key node_key_public;
	uint64_t started_ms;

	/* for the Engine's whole life */
	struct websocket_host *websockets;
	struct tls_host *tls_host;
	struct link_monitor *link_monitor;
	struct echo *echo; /* NULL: no capability */
	struct endpoint local[ENGINE_MAX_LOCAL]; /* the machine's addresses when last looked at */
	uv_timer_t restart;  /* of the Session */
	uv_timer_t map_save; /* of the cached map */

	/* of the membership */
	enum membership_state state;
	struct state_membership membership;
	char *identity_key_pem;
	struct data_plane *data_plane;
	struct public_node *public_node;
	bool relay_drains;
	struct {
		uint64_t until_ms; /* is good enough */
		uint32_t n;
	} open_fds;
	uint64_t relay_drained_ms; /* when all clients are sent away */
	struct map_ref *map; /* the last one known, also without a Session */
	uint64_t map_due_ns; /* when it may be written again */

	struct session *session;
	bool session_closing;
	uint64_t session_started_ms;
	uint32_t back_off_ms;

	/* one at a time */
	p2p_engine_done join_done, leave_done;
	void *join_owner, *leave_owner;
	struct join_link join_link;
	bool was_removed; /* when that join began */
	char removed_why[256], join_failure[256];
	struct netcheck *netchecks;

	enum p2p_engine_state told_state;
	bool closing_member;
	/* When the membership's parts are closed; may be NULL. Begins nothing anew while stopping. */
	void (*then)(struct p2p_engine *engine);
	bool has_timers;
	bool stopping;
	int n_open;
	void (*stopped)(void *owner);
	void *stopped_owner;
};

/* Answers the netchecks that wait; the Engine is about to end. */
void engine_finish_netchecks(struct p2p_engine *engine);
