/*
 * What the parts of a Session share. Not for others.
 *
 *   session.c         its life: the cast of the stage, who is wired to whom, maps
 *   session_status.c  what it tells of itself, for node/status.h
 *   lan_found.c       peers found on our link, laid over control's map (pure)
 *   peer_conns.c      the conns of each peer
 */
#pragma once

#include "actors/direct_manager/direct_manager.h"
#include "actors/direct_router/direct_router.h"
#include "actors/endpoint_manager/endpoint_manager.h"
#include "actors/relay_manager/relay_manager.h"
#include "actors/relay_router/relay_router.h"
#include "actors/session_manager/session_manager.h"
#include "actors/traffic_manager/traffic_manager.h"
#include "node/lan_discovery.h"
#include "node/lan_found.h"
#include "node/peer_conns.h"
#include "node/session.h"
#include "node/side_paths.h"
#include "node/side_sockets.h"

#include <net/if.h>

struct session {
	struct session_ports ports;
	struct data_plane *data_plane;
	char interface[IF_NAMESIZE];
	struct secret_key key;
	struct map_ref *map; /* NULL: none yet */
	struct node_update update;
	struct control_client *control;
	struct lan_discovery *lan;
	struct lan_found_list lan_found;
	struct state_membership membership;

	struct stage *stage;
	struct direct_manager direct_manager;
	struct direct_router direct_router;
	struct relay_manager relay_manager;
	struct relay_router relay_router;
	struct traffic_manager traffic_manager;
	struct endpoint_manager endpoint_manager;
	struct side_paths *side_paths; /* through hard NATs */
	struct side_sockets *side; /* with which it finds out what the NAT does; NULL: not now */
	struct session_manager session_manager;
	struct peer_conns conns;

	enum relay_role { ROLE_UNKNOWN, ROLE_NOT_ADDED, ROLE_RELAY } told_role; /* of a public node, to the log */
	bool failed;
	bool connected;
	uint64_t changed_ns; /* when connected last changed */
	uint64_t map_ns;     /* when control last said something about the map */
	char last_error[NODE_STATUS_TEXT];
	int n_open; /* while closing: what has not yet let go */
	void (*closed)(void *owner);
	void *closed_owner;
};
