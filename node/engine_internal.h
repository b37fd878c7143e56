/*
 * The Engine's insides, shared by its files: engine.c (what comes and goes, and in which order),
 * engine_membership.c (join, leave), engine_public_node.c,
 * engine_ping.c (ping, netcheck), engine_front_door.c, engine_exposures.c, engine_acceptor.c, engine_status.c,
 * engine_relay_status.c, engine_metrics.c.
 * Nobody else includes it.
 */
#pragma once

#include "common/tls_stream.h"
#include "common/websocket.h"
#include "node/engine.h"
#include "node/data_plane.h"
#include "node/acme/acme.h"
#include "node/echo.h"
#include "node/expose/acceptor.h"
#include "node/exposure_list.h"
#include "node/exposure_rings.h"
#include "node/link_monitor.h"
#include "node/map_cache.h"
#include "node/port_mapping.h"
#include "node/session.h"
#include "node/state_dir.h"
#include "node/turn_helper.h"
#include "relay/frontdoor/front_door.h"
#include "relay/webgw/data_links.h"
#include "relay/webgw/webgw.h"
#include "relay/webgw/webgw_admin.h"
#include "relay/public_node.h"

#include <uv.h>

#define ENGINE_MAX_LOCAL 16

enum membership_state { NOT_JOINED, JOINING, MEMBER, REMOVED };

/* A netcheck that waits for its answers. */
struct netcheck {
	struct p2p_engine *engine;
	struct netcheck *next;
	uv_timer_t timer;
	uint64_t began_ms;
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
	bool no_port_mapping, no_lan_discovery;
	struct turn_settings turn;
	bool is_public;
	bool finds_addresses; /* none are configured: public_options has those of the machine */
	struct node_public public_options;
	uint32_t stun_rate;
	uint64_t max_rate_client, max_rate; /* of the relay */
	struct listen_sockets sockets;	    /* that the program was started with */
	struct stream_queue streams;	    /* of the front door that ran before, the same */
	bool has_front_door;
	struct front_door_options door_options;
	struct door_rule *door_rules; /* owned */
	uint32_t n_door_rules;
	struct exposure_list *exposures; /* owned */
	struct acme_settings acme_settings;
	bool exposures_unread; /* p2pctl's are in the state folder, but not here: they must not be written over */
	bool has_webgw;
	struct endpoint webgw_listen;
	struct endpoint webgw_tls_listen, webgw_tls_dial_back; /* none: no agents within TLS */
	char webgw_admin_path[WEBGW_ADMIN_PATH_LEN + 1]; /* empty: none */
	struct webgw_rule *webgw_rules; /* owned */
	uint32_t n_webgw_rules;
	bool webgw_hosts_unread; /* what was added before: it is there, and not understood */

	struct state_dir dir;
	struct secret_key node_key;
	struct public_key node_key_public;
	uint64_t started_ms;

	/* for the Engine's whole life */
	struct websocket_host *websockets;
	struct tls_host *tls_host;
	struct webgw *webgw; /* NULL: not wanted */
	struct webgw_admin *webgw_admin; /* the same */
	struct engine_webgw_tls *webgw_tls; /* while it is a member; the same */
	struct link_monitor *link_monitor;
	struct echo *echo; /* NULL: no capability */
	struct endpoint local[ENGINE_MAX_LOCAL]; /* the machine's addresses when last looked at */
	uv_timer_t restart; /* of the Session */
	uv_timer_t webgw_pause; /* runs: routes were made for a host of members a moment ago */
	bool webgw_routes_due; /* when that is over */

	/* of the membership */
	enum membership_state state;
	struct state_membership membership;
	char *identity_key_pem;
	struct data_plane *data_plane;
	struct public_node *public_node;
	struct front_door *front_door; /* NULL: not wanted */
	struct door_places door_places; /* of members that publish; for the routes to come */
	struct host_name door_told, webgw_told, published_told; /* a host that is refused: it is the node's own name */
	struct port_states door_ports; /* of our front door, as told last */
	uint16_t acceptor_port; /* TCP, at our overlay address: visitors of what we publish come there; 0: it is not open */
	struct acme *acme;	       /* NULL: not a member */
	struct acceptor *acceptor;     /* of what this node publishes; NULL: not a member */
	struct port_mapping *port_mapping; /* NULL: not wanted */
	struct turn_helper *turn_helper;   /* NULL: not wanted */
	bool relay_drains;
	struct {
		uint64_t until_ms; /* is good enough */
		uint32_t n;
	} open_fds;
	uint64_t relay_drained_ms; /* when all clients are sent away */
	struct map_ref *map; /* the last one known, also without a Session */
	void (*map_changed)(void *owner); /* NULL: nobody watches it */
	void *map_watcher;
	struct map_cache *map_cache;

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

/* What of the Engine is others' to see has changed, perhaps. */
void engine_tell_changed(struct p2p_engine *engine);
/* Membership and identity key are loaded. On failure the caller closes what there is. */
P2P_CHECK int engine_start_member(struct p2p_engine *engine, struct error *reterr);
/* Closes Session, public node and data plane; then(), if any, when all are gone. */
void engine_close_member(struct p2p_engine *engine, void (*then)(struct p2p_engine *engine));
void engine_forget_identity_key(struct p2p_engine *engine);
/* TLS with the node's own certificate; the caller frees it. */
P2P_CHECK int engine_make_context(const struct p2p_engine *engine, bool is_server, SSL_CTX **ret, struct error *reterr);
/* A member whose interface could not be made has it tried again later. */
#define ENGINE_INTERFACE_RETRY_MS 30000
void engine_retry_interface(struct p2p_engine *engine);

/* Does nothing on a node that is not public. */
P2P_CHECK int engine_start_public_node(struct p2p_engine *engine, struct error *reterr);
/* For a public node that was told no addresses: looks anew. True when they are other ones than before. */
bool engine_find_public_addresses(struct p2p_engine *engine);
void engine_log_public_addresses(const struct node_public *public_node);

/* From the program's options. 0 or -EINVAL. */
P2P_CHECK int engine_take_front_door(struct p2p_engine *engine, const struct p2p_engine_options *options,
				     struct error *reterr);
/* Those of the sockets that are no listening ones: visitors' streams wait in them. */
void engine_take_streams(struct p2p_engine *engine);
P2P_CHECK int engine_start_front_door(struct p2p_engine *engine, struct error *reterr);
/* Where the front door listens for the relay as well; returns how many. */
uint32_t engine_shared_places(const struct p2p_engine *engine, struct endpoint ret[DOOR_MAX_LISTEN]);
/* This node's in the network: an admin may have renamed it since it joined. */
const char *engine_name_now(const struct p2p_engine *engine);
/* The map changed: members have come, gone, or have other addresses. */
void engine_update_front_door(struct p2p_engine *engine);
/* front_door_options.ports_changed */
void engine_on_ports_changed(void *owner);
/* What control is to be told of them; returns how many. */
uint32_t engine_door_ports(const struct p2p_engine *engine, struct map_port ret[MAP_MAX_PORTS]);

enum engine_port_outcome { ENGINE_PORT_OPEN, ENGINE_PORT_FAILED, ENGINE_PORT_NOT_OFFERED, ENGINE_PORT_NO_DOOR };
/* Of a port that is granted: do doors have it open for this node? *ret_door: the name of one of which that is so, borrowed. */
enum engine_port_outcome engine_port_outcome(const struct map *map, uint32_t node_id, const struct port_name *port,
					     const char **ret_door);
/* From the program's options, also when it has none. 0 or -EINVAL. */
P2P_CHECK int engine_take_exposures(struct p2p_engine *engine, const struct p2p_engine_options *options,
				    struct error *reterr);
/* Is its target this node's front door, by whatever address, be it by others of its ports; or its acceptor? */
bool engine_leads_back(const struct p2p_engine *engine, const struct exposure *exposure);
/* Those of p2pctl, from the state folder. */
void engine_load_exposures(struct p2p_engine *engine);
/* This membership has ended, and with it what p2pctl has exposed. */
void engine_forget_exposures(struct p2p_engine *engine);
/* What control is to be told. False: nothing is published. */
bool engine_publishes(const struct p2p_engine *engine, struct map_exposures *ret);
/* Also has the doors of the map, if there is one. Cannot fail: what does not open is tried again. */
void engine_start_acceptor(struct p2p_engine *engine);
/* What is published has changed. */
void engine_tell_acceptor(struct p2p_engine *engine);
/* Of the exposure i. */
enum door_target_state engine_target_state(const struct p2p_engine *engine, uint32_t i);
/* Of the exposure i: "server" ("up", "down", "unknown"), and counts of its visitors; nothing while it is not open. */
void engine_put_visitors(const struct p2p_engine *engine, uint32_t i, struct json *ret);
/* Of the exposure i, where TLS ends here: is there nothing to show? */
bool engine_lacks_certificate(const struct p2p_engine *engine, uint32_t i);
/* What is wrong with its certificate, and what to do; "": nothing. */
void engine_say_certificate(const struct p2p_engine *engine, uint32_t i, char *ret, size_t size);
/* "certificate", and counts of handshakes; nothing where TLS does not end here. */
void engine_put_tls(const struct p2p_engine *engine, uint32_t i, struct json *ret);
/* From the program's options. 0 or -EINVAL. */
P2P_CHECK int engine_take_acme(struct p2p_engine *engine, const struct p2p_engine_options *options, struct error *reterr);
void engine_start_acme(struct p2p_engine *engine);
/* What is published has changed; before the acceptor hears of it. */
void engine_tell_acme(struct p2p_engine *engine);
/* Why there is no certificate by ACME, or none newer; false: the host has none to do with it. "": all is well. */
bool engine_say_acme(const struct p2p_engine *engine, uint32_t i, char *ret, size_t size);
/* "acme" in what is said of the certificate. */
void engine_put_acme(const struct p2p_engine *engine, uint32_t i, struct json *ret);
/* Are visitors of the exposure led here, as far as this node knows? */
bool engine_is_led_here(const struct p2p_engine *engine, uint32_t i);
/* The map changed: front doors have come, gone, or have other addresses. */
void engine_update_acceptor(struct p2p_engine *engine);
/* The same of webgw's server; it is started once, when there are WebSockets. */
P2P_CHECK int engine_take_webgw(struct p2p_engine *engine, const struct p2p_engine_options *options, struct error *reterr);
P2P_CHECK int engine_start_webgw(struct p2p_engine *engine, struct error *reterr);
uint32_t engine_count_webgw(const struct p2p_engine *engine);
/* For the door's first routes: hosts granted to members, of which the door before may have left visitors; none if it left nothing. */
void engine_expect_webgw_hosts(struct p2p_engine *engine, struct door_routes *routes);
/* Its agents within TLS, once there are certificate and front door. */
P2P_CHECK int engine_start_webgw_tls(struct p2p_engine *engine, struct error *reterr);
void engine_renew_webgw_tls(struct p2p_engine *engine);
/* False: no agents within TLS are listened to. */
bool engine_webgw_links(const struct p2p_engine *engine, struct data_links_counters *ret);
/* Is webgw, within TLS, also where relay and front door have a port together? */
bool engine_shares_webgw(const struct p2p_engine *engine);
/* Who came there: for its WebSocket, with a Unix socket and no bytes, or to dial back. fd is taken over. */
void engine_take_webgw_visitor(struct p2p_engine *engine, bool dials_back, int fd, const struct endpoint *remote, const uint8_t *bytes,
			       size_t n);
/* Warm connections: data_links_prepare() and data_links_hand(), where there are such. */
uint32_t engine_prepare_webgw(struct p2p_engine *engine, int64_t subscription, uint32_t n, uint8_t ret[][WEBGW_EPHEMERAL_LEN]);
bool engine_hand_webgw(struct p2p_engine *engine, int64_t subscription, const struct dial_wanted *wanted);
uint16_t engine_webgw_tls_port(const struct p2p_engine *engine);
/* Frees itself, then calls closed. */
void engine_webgw_tls_close(struct engine_webgw_tls *tls, void (*closed)(void *owner), void *owner);
void engine_add_webgw_tls_drops(const struct p2p_engine *engine, struct node_status *status);
/* Its hosts, so many, for which there is room. */
void engine_add_webgw_routes(struct p2p_engine *engine, struct door_routes *routes);
/* Answers the netchecks that wait; the Engine is about to end. */
void engine_finish_netchecks(struct p2p_engine *engine);
