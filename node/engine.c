/*
 * The Engine: what is there and in which order it comes and goes.
 *
 *                 join done, or a member at start            control says so
 *   NOT JOINED ───────────────────────────────────► MEMBER ──────────────────► REMOVED
 *       ▲     (interface, public node, Session)       │  ▲                        │
 *       │                                      failed │  │ after the back-off     │ join
 *       │                                             ▼  │                        ▼
 *       └──────────────── leave ─────────────────── (no Session: paths stay)   JOINING
 *
 * The data plane and the public node live as long as the membership; only the Session comes and goes
 * with failures.
 */
#include "node/wireguard/lanes.h"
#include "node/engine_internal.h"

#include "common/log.h"
#include "common/relay_wire.h"
#include "common/tls.h"

#include <assert.h>
#include <errno.h>
#include <openssl/ssl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BACK_OFF_MIN_MS	    200
#define BACK_OFF_MAX_MS	    30000
#define SESSION_STABLE_MS   60000 /* a Session that lived so long starts the back-off anew */

const char *p2p_engine_state_name(enum p2p_engine_state state)
{
	static const char *const names[] = {
		[P2P_ENGINE_STOPPED] = "stopped", [P2P_ENGINE_NOT_JOINED] = "not joined",
		[P2P_ENGINE_JOINING] = "joining", [P2P_ENGINE_OFFLINE] = "offline",
		[P2P_ENGINE_ONLINE] = "online",
	};

	return names[state];
}

enum p2p_engine_state p2p_engine_get_state(const struct p2p_engine *engine)
{
	if (engine->stopping)
		return P2P_ENGINE_STOPPED;
	switch (engine->state) {
	case JOINING:
		return P2P_ENGINE_JOINING;
	case MEMBER:
		return engine->session && session_is_connected(engine->session) ? P2P_ENGINE_ONLINE
										: P2P_ENGINE_OFFLINE;
	case NOT_JOINED:
	case REMOVED:
		break;
	}
	return P2P_ENGINE_NOT_JOINED;
}

void engine_tell_changed(struct p2p_engine *engine)
{
	enum p2p_engine_state state = p2p_engine_get_state(engine);

	if (state == engine->told_state || !engine->callbacks.changed)
		return;
	engine->told_state = state;
	engine->callbacks.changed(engine->callbacks.owner, state);
}

/* ---- the cached map ---- */

static void tell_map_changed(const struct p2p_engine *engine)
{
	if (engine->map_changed)
		engine->map_changed(engine->map_watcher);
}

void engine_watch_map(struct p2p_engine *engine, void (*changed)(void *owner), void *owner)
{
	engine->map_changed = changed;
	engine->map_watcher = owner;
}

const struct map *engine_map(const struct p2p_engine *engine)
{
	return engine->map ? map_ref_get(engine->map) : NULL;
}

const struct membership *engine_membership(const struct p2p_engine *engine)
{
	return &engine->membership.member;
}

static void keep_map(struct p2p_engine *engine, const struct map *map)
{
	map_unref(engine->map);
	engine->map = map_ref_new(map);
	if (engine->public_node)
		public_node_recheck_members(engine->public_node);
	if (engine->webgw)
		webgw_recheck(engine->webgw);
	engine_update_front_door(engine);
	engine_update_acceptor(engine);
	if (engine->map_cache)
		map_cache_keep(engine->map_cache, engine->map);
	tell_map_changed(engine);
}

static void load_map(struct p2p_engine *engine)
{
	struct error error;
	struct map map;
	int r = state_dir_load_map(&engine->dir, &map, &error);

	if (r == 0) {
		engine->map = map_ref_new(&map);
		map_deinit(&map);
	} else if (r != -ENOENT) {
		log_warning("node", "%s; control sends a new map", error.message);
	}
}

/* ---- Session ---- */

static void start_session(struct p2p_engine *engine);
static void close_longer_parts(struct p2p_engine *engine);

static void on_restart(uv_timer_t *timer)
{
	start_session(container_of(timer, struct p2p_engine, restart));
}

/* The delay before the next Session: doubled with each failure, with jitter of a quarter. */
static uint32_t next_delay_ms(struct p2p_engine *engine)
{
	if (uv_now(engine->loop) - engine->session_started_ms > SESSION_STABLE_MS || engine->back_off_ms == 0)
		engine->back_off_ms = BACK_OFF_MIN_MS;
	else if (engine->back_off_ms < BACK_OFF_MAX_MS / 2)
		engine->back_off_ms *= 2;
	else
		engine->back_off_ms = BACK_OFF_MAX_MS;
	return engine->back_off_ms + randombytes_uniform(engine->back_off_ms / 4 + 1);
}

static void on_failed_session_closed(void *owner)
{
	struct p2p_engine *engine = owner;

	engine->session_closing = false;
	if (engine->closing_member) {
		close_longer_parts(engine);
		return;
	}
	uint32_t delay_ms = next_delay_ms(engine);
	log_info("node", "next session in %u ms; packets go on by the paths in force", delay_ms);
	uv_timer_start(&engine->restart, on_restart, delay_ms, 0);
}

static void close_session(struct p2p_engine *engine)
{
	struct session *session = engine->session;

	engine->session = NULL;
	engine->session_closing = true;
	session_close(session, on_failed_session_closed, engine);
	engine_tell_changed(engine);
}

static void on_session_failed(void *owner, const char *reason)
{
	struct p2p_engine *engine = owner;

	log_error("node", "session failed: %s", reason);
	if (engine->callbacks.session_failed)
		engine->callbacks.session_failed(engine->callbacks.owner, reason, engine->back_off_ms);
	close_session(engine);
}

static void on_control_changed(void *owner, bool connected)
{
	engine_tell_changed(owner);
}

static void on_map_changed(void *owner, const struct map *map)
{
	keep_map(owner, map);
}

static void on_identity_renewed(void *owner, const char *certificate_pem);
static void on_removed(void *owner, const char *reason);

static void start_session(struct p2p_engine *engine)
{
	struct error error;
	struct map_exposures exposures;
	struct map_port ports[MAP_MAX_PORTS];
	const struct session_options options = {
		.loop = engine->loop,
		.websockets = engine->websockets,
		.data_plane = engine->data_plane,
		.membership = &engine->membership,
		.identity_key_pem = engine->identity_key_pem,
		.node_key = &engine->node_key,
		.map = engine->map ? map_ref_get(engine->map) : NULL,
		.public_node = engine->is_public ? &engine->public_options : NULL,
		.has_front_door = engine->has_front_door,
		.door_ports = ports,
		.n_door_ports = engine_door_ports(engine, ports),
		.exposures = engine_publishes(engine, &exposures) ? &exposures : NULL,
		.no_lan_discovery = engine->no_lan_discovery,
		.interface = engine->interface,
		.ports = { .owner = engine,
			   .failed = on_session_failed,
			   .removed = on_removed,
			   .control_changed = on_control_changed,
			   .map_changed = on_map_changed,
			   .identity_renewed = on_identity_renewed },
	};

	if (engine->state != MEMBER || engine->session || engine->session_closing ||
	    engine->closing_member)
		return;
	engine->session_started_ms = uv_now(engine->loop);
	if (session_new(&options, &engine->session, &error) != 0) {
		log_error("node", "cannot start a session: %s", error.message);
		uv_timer_start(&engine->restart, on_restart, next_delay_ms(engine), 0);
	}
	if (engine->session && engine->port_mapping) {
		const struct endpoint forwarded = port_mapping_external(engine->port_mapping);
		session_set_forwarded(engine->session, &forwarded);
	}
	if (engine->session && engine->turn_helper) {
		const struct endpoint relayed = turn_helper_relayed(engine->turn_helper);
		session_set_turned(engine->session, &relayed);
	}
	engine_tell_changed(engine);
}

void p2p_engine_restart_session(struct p2p_engine *engine)
{
	if (engine->session)
		session_inject_failure(engine->session, ACTOR_TRAFFIC_MANAGER, -ECANCELED);
}

/* ---- identity ---- */

int engine_make_context(const struct p2p_engine *engine, bool is_server, SSL_CTX **ret, struct error *reterr)
{
	const struct tls_options options = {
		.is_server = is_server,
		.trust = TLS_TRUST_CA,
		.ca_pem = engine->membership.member.ca_pem,
		.certificate_pem = engine->membership.member.certificate_pem,
		.key_pem = engine->identity_key_pem,
		.alpn = RELAY_ALPN,
	};

	return tls_context_new(&options, ret, reterr);
}

static void on_identity_renewed(void *owner, const char *certificate_pem)
{
	struct p2p_engine *engine = owner;
	struct membership *member = &engine->membership.member;
	struct error error;
	SSL_CTX *context;

	if (strlen(certificate_pem) >= sizeof(member->certificate_pem))
		return; /* control_client has checked it */
	strcpy(member->certificate_pem, certificate_pem);
	if (state_dir_save_membership(&engine->dir, &engine->membership, &error) != 0)
		log_error("node", "%s", error.message);
	if (engine_make_context(engine, false, &context, &error) == 0) {
		data_plane_set_relay_context(engine->data_plane, context);
		SSL_CTX_free(context);
	} else {
		log_error("node", "renewed certificate: %s", error.message);
	}
	if (engine->public_node &&
	    public_node_set_certificate(engine->public_node, certificate_pem, engine->identity_key_pem, &error) != 0)
		log_error("node", "renewed certificate: %s", error.message);
	engine_renew_webgw_tls(engine);
	log_info("node", "certificate renewed");
}

/* ---- membership: what lives as long as it ---- */

static void on_interface_gone(void *owner);

static void on_pinged(void *owner, const struct endpoint *to)
{
	struct p2p_engine *engine = owner;

	if (engine->turn_helper)
		turn_helper_pinged(engine->turn_helper, to);
}

static int start_data_plane(struct p2p_engine *engine, struct error *reterr)
{
	struct data_plane_options options = {
		.loop = engine->loop,
		.wireguard = engine->wireguard,
		.interface = engine->interface,
		.mtu = engine->mtu,
		.offloads = engine->offloads,
		.n_lanes = engine->n_lanes,
		.port = engine->listen_port ? engine->listen_port : state_dir_load_port(&engine->dir),
		.node_key = &engine->node_key,
		.membership = &engine->membership.member,
		.tls_host = engine->tls_host,
		.pinged = on_pinged,
		.interface_gone = on_interface_gone,
		.owner = engine,
	};
	int r = engine_make_context(engine, false, &options.relay_context, reterr);

	if (r != 0)
		return r;
	r = data_plane_new(&options, &engine->data_plane, reterr);
	SSL_CTX_free(options.relay_context);
	if (r == 0 && engine->listen_port != 0 && data_plane_port(engine->data_plane) != engine->listen_port)
		log_warning("node", "UDP port %u is taken by another program: using %u", engine->listen_port,
			    data_plane_port(engine->data_plane));
	if (r == 0 && data_plane_port(engine->data_plane) != options.port)
		state_dir_save_port(&engine->dir, data_plane_port(engine->data_plane));
	return r;
}

static void on_forwarded(void *owner, const struct endpoint *external)
{
	struct p2p_engine *engine = owner;

	if (engine->session)
		session_set_forwarded(engine->session, external);
}

/* A public node is reached without. */
static void start_port_mapping(struct p2p_engine *engine)
{
	const struct port_mapping_options options = { .loop = engine->loop,
						      .interface = engine->interface,
						      .port = data_plane_port(engine->data_plane),
						      .node_key = &engine->node_key,
						      .changed = on_forwarded,
						      .owner = engine };

	if (!engine->no_port_mapping && !engine->is_public)
		engine->port_mapping = port_mapping_new(&options);
}

static void on_turned(void *owner, const struct endpoint *relayed)
{
	struct p2p_engine *engine = owner;

	if (engine->session)
		session_set_turned(engine->session, relayed);
}

static void start_turn(struct p2p_engine *engine)
{
	const struct turn_helper_options options = { .loop = engine->loop,
						     .settings = &engine->turn,
						     .port = data_plane_port(engine->data_plane),
						     .changed = on_turned,
						     .owner = engine };

	if (!endpoint_is_none(&engine->turn.server))
		engine->turn_helper = turn_helper_new(&options);
}

/* Membership and identity key are loaded. On failure the caller closes what there is. */
int engine_start_member(struct p2p_engine *engine, struct error *reterr)
{
	int r;

	engine->state = MEMBER;
	engine->back_off_ms = 0;
	load_map(engine);
	tell_map_changed(engine);
	engine->map_cache = map_cache_new(engine->loop, &engine->dir);
	if ((r = start_data_plane(engine, reterr)) != 0 || (r = engine_start_public_node(engine, reterr)) != 0 ||
	    (r = engine_start_front_door(engine, reterr)) != 0 || (r = engine_start_webgw_tls(engine, reterr)) != 0)
		return r;
	if (engine->public_node)
		engine_tell_listening(engine);
	engine_start_acceptor(engine);
	log_info("node", "member of %s as %s", engine->membership.member.network, engine->membership.member.name);
	start_session(engine);
	start_port_mapping(engine);
	start_turn(engine);
	return 0;
}

static void close_hosts(struct p2p_engine *engine);
static void after_interface_gone(struct p2p_engine *engine);

void engine_forget_identity_key(struct p2p_engine *engine)
{
	certificate_free_secret(engine->identity_key_pem);
	engine->identity_key_pem = NULL;
}

static void on_part_closed(void *owner)
{
	struct p2p_engine *engine = owner;

	if (--engine->n_open > 0)
		return;
	engine_forget_identity_key(engine);
	map_unref(engine->map);
	engine->map = NULL;
	/* Whose interface is made again has the same map in a moment: nobody who was let in by it is to go for that. */
	if (engine->then != after_interface_gone)
		tell_map_changed(engine);
	engine->closing_member = false;
	if (engine->then)
		engine->then(engine);
	if (engine->stopping)
		close_hosts(engine);
}

static void close_sockets(struct listen_sockets *sockets)
{
	for (uint32_t i = 0; i < sockets->n; i++)
		if (sockets->fds[i] >= 0)
			close(sockets->fds[i]);
	sockets->n = 0;
}

/* What lives longer than a Session, taken out of the engine: nobody finds there what is closing. */
struct longer_parts {
	struct data_plane *data_plane;
	struct public_node *public_node;
	struct front_door *front_door;
	struct acceptor *acceptor;
	struct acme *acme;
	struct port_mapping *port_mapping;
	struct turn_helper *turn_helper;
	struct map_cache *map_cache;
	struct engine_webgw_tls *webgw_tls;
};

static struct longer_parts take_out_parts(struct p2p_engine *engine)
{
	const struct longer_parts parts = {
		.data_plane = engine->data_plane,
		.public_node = engine->public_node,
		.front_door = engine->front_door,
		.acceptor = engine->acceptor,
		.acme = engine->acme,
		.port_mapping = engine->port_mapping,
		.turn_helper = engine->turn_helper,
		.map_cache = engine->map_cache,
		.webgw_tls = engine->webgw_tls,
	};

	engine->data_plane = NULL;
	engine->public_node = NULL;
	engine->front_door = NULL;
	engine->door_ports.n = 0;
	engine->acceptor = NULL;
	engine->acceptor_port = 0;
	engine->acme = NULL;
	engine->port_mapping = NULL;
	engine->turn_helper = NULL;
	engine->map_cache = NULL;
	engine->webgw_tls = NULL;
	return parts;
}

static int n_parts(const struct longer_parts *parts)
{
	return (parts->data_plane != NULL) + (parts->public_node != NULL) + (parts->front_door != NULL) +
	       (parts->acceptor != NULL) + (parts->acme != NULL) + (parts->port_mapping != NULL) +
	       (parts->turn_helper != NULL) + (parts->map_cache != NULL) + (parts->webgw_tls != NULL);
}

static void close_front_door(struct p2p_engine *engine, struct front_door *front_door)
{
	if (engine->stopping && engine->callbacks.is_followed && engine->callbacks.is_followed(engine->callbacks.owner))
		front_door_hand_over(front_door);
	front_door_stop(front_door, on_part_closed, engine);
}

static void close_public_node(struct p2p_engine *engine, struct public_node *public_node)
{
	if (!engine->stopping) {
		close_sockets(&engine->sockets); /* else they would listen on, and nobody accept */
		engine_tell_listening(engine); /* no more */
	}
	public_node_stop(public_node, on_part_closed, engine);
}

/* The Session is gone: now what lives longer. */
static void close_longer_parts(struct p2p_engine *engine)
{
	const struct longer_parts parts = take_out_parts(engine);

	engine->n_open = 1 + n_parts(&parts);
	map_cache_close(parts.map_cache, on_part_closed, engine);
	if (parts.webgw_tls)
		engine_webgw_tls_close(parts.webgw_tls, on_part_closed, engine);
	if (parts.front_door)
		close_front_door(engine, parts.front_door);
	if (parts.acceptor)
		acceptor_close(parts.acceptor, on_part_closed, engine);
	if (parts.acme)
		acme_close(parts.acme, on_part_closed, engine);
	if (parts.turn_helper)
		turn_helper_close(parts.turn_helper, on_part_closed, engine);
	if (parts.port_mapping)
		port_mapping_close(parts.port_mapping, on_part_closed, engine);
	if (parts.data_plane)
		data_plane_close(parts.data_plane, on_part_closed, engine);
	if (parts.public_node)
		close_public_node(engine, parts.public_node);
	on_part_closed(engine);
}

/* Closes Session, public node and data plane; then(), if any, when all are gone. */
void engine_close_member(struct p2p_engine *engine, void (*then)(struct p2p_engine *engine))
{
	assert(!engine->closing_member);
	engine->closing_member = true;
	engine->then = then;
	uv_timer_stop(&engine->restart);
	if (engine->session)
		close_session(engine);
	else if (!engine->session_closing)
		close_longer_parts(engine);
}

/* ---- control says that we are no member any more ---- */

static void after_removal(struct p2p_engine *engine)
{
	engine->state = REMOVED;
	log_error("node", "this node is no member of %s any more: %s; p2pctl join brings it back",
		  engine->membership.member.network, engine->removed_why);
	engine_tell_changed(engine);
}

static void on_removed(void *owner, const char *reason)
{
	struct p2p_engine *engine = owner;

	snprintf(engine->removed_why, sizeof(engine->removed_why), "%s", reason);
	if (!engine->closing_member)
		engine_close_member(engine, after_removal);
}

/* ---- the interface was deleted under us: make it again ---- */

static void after_interface_gone(struct p2p_engine *engine)
{
	struct error error;

	if (engine->stopping)
		return;
	if (state_dir_load_identity_key(&engine->dir, &engine->identity_key_pem, &error) == 0 &&
	    engine_start_member(engine, &error) == 0)
		return;
	log_error("node", "%s; next try in %u s", error.message, ENGINE_INTERFACE_RETRY_MS / 1000);
	engine_retry_interface(engine);
}

static void on_interface_retry(uv_timer_t *timer)
{
	struct p2p_engine *engine = container_of(timer, struct p2p_engine, restart);

	if (!engine->closing_member)
		engine_close_member(engine, after_interface_gone);
}

void engine_retry_interface(struct p2p_engine *engine)
{
	uv_timer_start(&engine->restart, on_interface_retry, ENGINE_INTERFACE_RETRY_MS, 0);
}

static void on_interface_gone(void *owner)
{
	struct p2p_engine *engine = owner;

	log_warning("node", "interface %s was deleted; making it again", engine->interface);
	if (!engine->closing_member)
		engine_close_member(engine, after_interface_gone);
}

/* ---- life ---- */

/* Are those at which others could reach us other ones than before? Our own interface does not count. */
static bool addresses_changed(struct p2p_engine *engine)
{
	struct endpoint now[ENGINE_MAX_LOCAL] = { 0 };

	link_local_endpoints(0, engine->interface, now, ENGINE_MAX_LOCAL);
	if (memcmp(now, engine->local, sizeof(now)) == 0)
		return false;
	memcpy(engine->local, now, sizeof(now));
	return true;
}

/* The rest when it has settled. */
static void on_link_begins(void *owner)
{
	struct p2p_engine *engine = owner;

	if (engine->data_plane)
		data_plane_forget_sources(engine->data_plane);
}

static void on_link_changed(void *owner)
{
	struct p2p_engine *engine = owner;

	bool changed = addresses_changed(engine);

	if (changed)
		log_info("node", "addresses of this machine changed");
	if (changed && engine->finds_addresses && engine_find_public_addresses(engine)) {
		engine_log_public_addresses(&engine->public_options);
		if (engine->session)
			session_set_public(engine->session, &engine->public_options);
	}
	if (engine->data_plane)
		data_plane_link_changed(engine->data_plane);
	if (engine->port_mapping)
		port_mapping_look(engine->port_mapping);
	if (engine->turn_helper)
		turn_helper_link_changed(engine->turn_helper);
	/* A route may have changed: ask STUN again. Control is called anew only from a new address. */
	if (engine->session)
		session_link_changed(engine->session, changed);
}

static int take_turn(struct turn_settings *turn, const struct p2p_engine_options *options, struct error *reterr)
{
	if (!options->turn_server)
		return 0;
	if (endpoint_parse(options->turn_server, &turn->server) != 0 || !endpoint_is_v4(&turn->server) ||
	    turn->server.port == 0)
		return error_set(reterr, -EINVAL, "TURN server: an IPv4 address and a port");
	if (!options->turn_user || !options->turn_password_file || strlen(options->turn_user) > TURN_USER_LEN ||
	    strlen(options->turn_password_file) > TURN_PATH_LEN)
		return error_set(reterr, -EINVAL, "TURN: a user of %d characters at most, and a file of %d",
				 TURN_USER_LEN, TURN_PATH_LEN);
	strcpy(turn->user, options->turn_user);
	strcpy(turn->password_file, options->turn_password_file);
	return 0;
}

static int take_interface(struct p2p_engine *engine, const struct p2p_engine_options *options, struct error *reterr)
{
	const size_t name_len = options->interface ? strlen(options->interface) : 0;

	if (name_len == 0 || name_len >= sizeof(engine->interface))
		return error_set(reterr, -EINVAL, "interface: 1 to %zu characters", sizeof(engine->interface) - 1);
	if (options->mtu < 1280 || options->mtu > 9000)
		return error_set(reterr, -EINVAL, "mtu: 1280 to 9000");
	if (options->wireguard && wireguard_kind_parse(options->wireguard, &engine->wireguard) != 0)
		return error_set(reterr, -EINVAL, "wireguard: in-process, kernel or uapi");
	if (options->lanes > LANES_MAX)
		return error_set(reterr, -EINVAL, "lanes: %d at most", LANES_MAX);
	strcpy(engine->interface, options->interface);
	engine->mtu = options->mtu;
	engine->listen_port = options->listen_port;
	engine->n_lanes = options->lanes;
	engine->no_port_mapping = options->no_port_mapping;
	engine->no_lan_discovery = options->no_lan_discovery;
	if (options->name)
		snprintf(engine->wanted_name, sizeof(engine->wanted_name), "%s", options->name);
	return 0;
}

static int take_public_addresses(struct p2p_engine *engine, const struct p2p_engine_options *options,
				 struct error *reterr)
{
	const char *const *texts = options->public_addresses;

	for (size_t i = 0; texts && texts[i]; i++) {
		if (i == MAP_MAX_ADDRESSES)
			return error_set(reterr, -EINVAL, "public address: at most %d", MAP_MAX_ADDRESSES);
		if (endpoint_parse_ip(texts[i], 0, &engine->public_options.addresses[i]) != 0)
			return error_set(reterr, -EINVAL, "public address '%s': not an IP address", texts[i]);
		engine->public_options.n_addresses = (uint32_t)i + 1;
	}
	engine->is_public = texts != NULL;
	engine->finds_addresses = engine->is_public && engine->public_options.n_addresses == 0;
	return 0;
}

static void take_public_node(struct p2p_engine *engine, const struct p2p_engine_options *options)
{
	engine->stun_rate = options->public_stun_rate;
	engine->max_rate_client = options->public_max_rate_client;
	engine->max_rate = options->public_max_rate;
	engine->public_options.tls_port = options->public_tls_port;
	engine->public_options.stun_port = options->public_stun_port;
}

static void take_sockets(struct p2p_engine *engine, const struct p2p_engine_options *options)
{
	engine->sockets.n = (uint32_t)(options->n_public_sockets < LISTEN_SOCKETS_MAX ? options->n_public_sockets
										       : LISTEN_SOCKETS_MAX);
	for (uint32_t i = 0; i < engine->sockets.n; i++)
		engine->sockets.fds[i] = options->public_sockets[i];
	engine_take_streams(engine);
	if (engine->is_public)
		return;
	/* Nobody would answer there, and the front door may bind the port. */
	(void)listen_sockets_close_others(&engine->sockets, SOCK_STREAM, NULL, 0, false);
	close_sockets(&engine->sockets);
}

static int take_options(struct p2p_engine *engine, const struct p2p_engine_options *options, struct error *reterr)
{
	if (take_interface(engine, options, reterr) != 0 || take_turn(&engine->turn, options, reterr) != 0)
		return -EINVAL;
	if (options->offloads && offload_switches_parse(options->offloads, &engine->offloads, reterr) != 0)
		return -EINVAL;
	if (take_public_addresses(engine, options, reterr) != 0)
		return -EINVAL;
	take_public_node(engine, options);
	if (engine_take_front_door(engine, options, reterr) != 0 || engine_take_exposures(engine, options, reterr) != 0 ||
	    engine_take_acme(engine, options, reterr) != 0 || engine_take_webgw(engine, options, reterr) != 0)
		return -EINVAL;
	take_sockets(engine, options);
	return 0;
}

/* The host's name as a DNS label: what may not be in one becomes '-'. */
static void default_name(struct p2p_engine *engine)
{
	char host[256] = "node";
	size_t n = 0;

	if (engine->wanted_name[0] != '\0')
		return;
	if (gethostname(host, sizeof(host) - 1) != 0 || host[0] == '\0')
		strcpy(host, "node");
	for (const char *at = host; *at != '\0' && *at != '.' && n < MAP_NAME_LEN; at++) {
		char c = *at >= 'A' && *at <= 'Z' ? (char)(*at + 32) : *at;
		bool ok = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
		engine->wanted_name[n++] = ok ? c : '-';
	}
	engine->wanted_name[n] = '\0';
	if (!map_name_is_valid(engine->wanted_name))
		strcpy(engine->wanted_name, "node");
}

int p2p_engine_new(p2p_loop *loop, const struct p2p_engine_options *options,
		   const struct p2p_engine_callbacks *callbacks, struct p2p_engine **ret, char *message,
		   size_t message_len)
{
	struct error error = { 0 };
	struct p2p_engine *engine = calloc(1, sizeof(*engine));
	int r;

	if (!engine)
		abort();
	if (sodium_init() < 0)
		abort();
	engine->loop = loop;
	engine->callbacks = *callbacks;
	engine->dir.lock_fd = -1;
	if ((r = take_options(engine, options, &error)) != 0 ||
	    (r = state_dir_open(&engine->dir, options->state_dir, &error)) != 0 ||
	    (r = state_dir_node_key(&engine->dir, &engine->node_key, &error)) != 0) {
		snprintf(message, message_len, "%s", error.message);
		state_dir_close(&engine->dir);
		free(engine->door_rules);
		free(engine->exposures);
		free(engine->webgw_rules);
		free(engine);
		return r;
	}
	secret_key_public(&engine->node_key, &engine->node_key_public);
	default_name(engine);
	*ret = engine;
	return 0;
}

/* What lives as long as the Engine. */
static int start_hosts(struct p2p_engine *engine, struct error *reterr)
{
	const struct link_monitor_ports link = { .owner = engine, .begins = on_link_begins, .changed = on_link_changed };
	int r = websocket_host_new(engine->loop, &engine->websockets, reterr);

	if (r != 0)
		return r;
	if ((r = engine_start_webgw(engine, reterr)) != 0)
		return r;
	r = tls_host_new(engine->loop, &engine->tls_host);
	if (r != 0)
		return error_set(reterr, r, "cannot start TLS: %s", strerror(-r));
	r = link_monitor_new(engine->loop, &link, &engine->link_monitor, reterr);
	if (r != 0)
		return r;
	addresses_changed(engine);
	r = echo_new(engine->loop, &engine->echo);
	if (r != 0)
		log_warning("node", "no ICMP socket (%s): p2pctl ping will not work", strerror(-r));
	return 0;
}

static int load_member(struct p2p_engine *engine, struct error *reterr)
{
	int r = state_dir_load_membership(&engine->dir, &engine->membership, reterr);

	if (r == -ENOENT) {
		log_info("node", "not a member of a network yet: p2pctl join LINK");
		return 0;
	}
	if (r != 0)
		return r;
	r = state_dir_load_identity_key(&engine->dir, &engine->identity_key_pem, reterr);
	if (r != 0)
		return r;
	return engine_start_member(engine, reterr);
}

int p2p_engine_start(struct p2p_engine *engine, char *message, size_t message_len)
{
	struct error error = { 0 };
	int r;

	engine->started_ms = uv_now(engine->loop);
	uv_timer_init(engine->loop, &engine->restart);
	uv_timer_init(engine->loop, &engine->webgw_pause);
	engine->has_timers = true;
	engine_load_exposures(engine);
	r = start_hosts(engine, &error);
	if (r == 0)
		r = load_member(engine, &error);
	if (r != 0) {
		snprintf(message, message_len, "%s", error.message);
		return r;
	}
	(void)stream_queue_drop(&engine->streams); /* no front door is there to take them up */
	engine_tell_changed(engine);
	return 0;
}

static void on_host_closed(void *owner)
{
	struct p2p_engine *engine = owner;

	if (--engine->n_open > 0)
		return;
	void (*stopped)(void *) = engine->stopped;
	void *stopped_owner = engine->stopped_owner;
	state_dir_close(&engine->dir);
	secret_key_wipe(&engine->node_key);
	join_link_wipe(&engine->join_link);
	close_sockets(&engine->sockets);
	stream_queue_close(&engine->streams);
	free(engine->door_rules);
	free(engine->exposures);
	webgw_free(engine->webgw);
	free(engine->webgw_rules);
	door_places_deinit(&engine->door_places);
	free(engine);
	stopped(stopped_owner);
}

static void on_restart_closed(uv_handle_t *handle)
{
	on_host_closed(container_of((uv_timer_t *)handle, struct p2p_engine, restart));
}

static void on_webgw_pause_closed(uv_handle_t *handle)
{
	on_host_closed(container_of((uv_timer_t *)handle, struct p2p_engine, webgw_pause));
}

static void close_hosts(struct p2p_engine *engine)
{
	engine->n_open = 1;
	if (engine->has_timers) {
		engine->n_open += 2;
		uv_close((uv_handle_t *)&engine->restart, on_restart_closed);
		uv_close((uv_handle_t *)&engine->webgw_pause, on_webgw_pause_closed);
	}
	if (engine->webgw_admin) {
		engine->n_open++;
		webgw_admin_stop(engine->webgw_admin, on_host_closed, engine);
	}
	if (engine->websockets) {
		engine->n_open++;
		websocket_host_close(engine->websockets, on_host_closed, engine);
	}
	if (engine->tls_host) {
		engine->n_open++;
		tls_host_close(engine->tls_host, on_host_closed, engine);
	}
	engine->n_open += 2;
	link_monitor_close(engine->link_monitor, on_host_closed, engine);
	echo_close(engine->echo, on_host_closed, engine);
	on_host_closed(engine); /* our own */
}

void p2p_engine_stop(struct p2p_engine *engine, void (*stopped)(void *owner), void *owner)
{
	assert(!engine->stopping);
	engine->stopping = true;
	engine->stopped = stopped;
	engine->stopped_owner = owner;
	engine_finish_netchecks(engine);
	if (!engine->has_timers)
		close_hosts(engine);
	else if (!engine->closing_member) /* else close_hosts() follows what is under way */
		engine_close_member(engine, NULL);
}
