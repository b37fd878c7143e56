/*
 * The cast of the stage and who is wired to whom. What decides anything is in the actors.
 */
#include "node/session_internal.h"

#include "common/clock.h"
#include "common/log.h"
#include "node/data_plane.h"
#include "node/link_monitor.h"

#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* maps */

/*
 * A public node is a relay when an admin has added it; said when it is known and when it changes. The first map
 * is of before we told control that we are public.
 */
static void tell_if_relay(struct session *session, bool is_first, const struct map *map)
{
	const enum relay_role role = map_find_relay(map, map->self.id) ? ROLE_RELAY : ROLE_NOT_ADDED;

	if (session->update.public_node.n_addresses == 0 || role == session->told_role ||
	    (is_first && role == ROLE_NOT_ADDED))
		return;
	session->told_role = role;
	if (role == ROLE_RELAY)
		log_info("session", "this node is a relay of the network");
	else
		log_warning("session",
			    "this public node is not a relay yet: an admin adds it with 'p2pctl admin relay add %s'",
			    map->self.name);
}

/* A new map: the data plane first, since the conns publish to it; then every actor. */
static void take_map(struct session *session, const struct map *map)
{
	struct map_ref *before = session->map;

	session->map = map_ref_new(map);
	data_plane_apply_map(session->data_plane, map);
	peer_conns_follow_map(&session->conns, before ? map_ref_get(before) : NULL, map);
	tell_if_relay(session, !before, map);
	if (session->lan)
		lan_discovery_set_map(session->lan, map);
	stage_broadcast(session->stage, ACTOR_NONE,
			&(struct message){ .type = MESSAGE_MAP, .map = session->map });
	map_unref(before);
}

/* What control's map says, and beyond that what was found on the link. */
static void take_map_and_found(struct session *session, const struct map *map)
{
	struct map both;

	if (session->lan_found.n == 0 || map_copy(map, &both) != 0) {
		take_map(session, map);
		return;
	}
	lan_found_lay_over(&session->lan_found, &both);
	take_map(session, &both);
	map_deinit(&both);
}

/* peers on our link */

static void on_forgotten(void *owner, uint32_t peer_id)
{
	struct session *session = owner;

	if (session->lan)
		lan_discovery_forget(session->lan, peer_id);
}

static void refuse_found(struct session *session, const struct map *map, uint32_t peer_id)
{
	log_warning("lan", "peer=%s: brings the session key of another, refused", map_find_peer(map, peer_id)->name);
	lan_discovery_forget(session->lan, peer_id);
}

static void on_lan_found(void *owner, uint32_t peer_id, const struct public_key *session_key,
			 const struct endpoint *endpoint)
{
	struct session *session = owner;
	struct map map;

	if (session->failed || !session->map || map_copy(map_ref_get(session->map), &map) != 0)
		return;
	switch (lan_found_take(&session->lan_found, &map, peer_id, session_key, endpoint)) {
	case LAN_FOUND_TAKEN:
		take_map(session, &map);
		break;
	case LAN_FOUND_KEY_OF_ANOTHER:
		refuse_found(session, &map, peer_id);
		break;
	case LAN_FOUND_NO_PEER:
		break;
	}
	map_deinit(&map);
}

static uint16_t on_lan_port(void *owner)
{
	return data_plane_port(((struct session *)owner)->data_plane);
}

static uint32_t on_lan_missing(void *owner)
{
	return traffic_manager_n_missing(&((struct session *)owner)->traffic_manager);
}

/* from the data plane */

static void on_datagram(void *owner, const struct endpoint *from, const uint8_t *bytes, size_t len)
{
	direct_manager_on_datagram(&((struct session *)owner)->direct_manager, from, bytes, len);
}

static void on_frame(void *owner, uint32_t relay_id, uint32_t peer_id, const uint8_t *bytes, size_t len)
{
	relay_manager_on_frame(&((struct session *)owner)->relay_manager, relay_id, peer_id, bytes, len);
}

static void on_activity(void *owner, const struct data_plane_activity *activity)
{
	struct session *session = owner;
	struct message message = { .type = MESSAGE_CARRIED,
				   .peer_id = activity->peer_id,
				   .carried = { .rx_direct_ns = activity->rx_direct_ns,
						.rx_endpoint = activity->rx_endpoint,
						.rx_relay_ns = activity->rx_relay_ns,
						.rx_data_ns = activity->rx_data_ns,
						.tx_data_ns = activity->tx_data_ns,
						.rx_bytes = activity->rx_bytes,
						.tx_bytes = activity->tx_bytes } };
	struct message copy = message;

	stage_post(session->stage, ACTOR_NONE, ACTOR_IN_CONN, &message);
	stage_post(session->stage, ACTOR_NONE, ACTOR_OUT_CONN, &copy);
}

static void on_relay_state(void *owner, uint32_t relay_id, bool up)
{
	relay_manager_on_relay_state(&((struct session *)owner)->relay_manager, relay_id, up);
}

static void tell_keeper_changed(struct session *session)
{
	struct message message = { .type = MESSAGE_KEEPER_CHANGED };

	stage_post(session->stage, ACTOR_NONE, ACTOR_ENDPOINT_MANAGER, &message);
}

/* A NAT that has forgotten us is noticed here first: home is pinged all the time, STUN servers then are not. */
static void on_relay_bound(void *owner, uint32_t relay_id)
{
	struct session *session = owner;

	if (relay_id == session->relay_manager.fsm.home)
		tell_keeper_changed(session);
}

/* Pings to the home relay leave by the socket that peers talk to. */
static struct endpoint on_keeper(void *owner)
{
	const struct session *session = owner;

	return data_plane_relay_remote(session->data_plane, session->relay_manager.fsm.home);
}

static void on_relay_leaving(void *owner, uint32_t relay_id)
{
	relay_manager_on_leaving(&((struct session *)owner)->relay_manager, relay_id);
}

static void on_relay_used(void *owner, uint32_t relay_id)
{
	relay_manager_on_used(&((struct session *)owner)->relay_manager, relay_id);
}

static void on_peer_gone(void *owner, uint32_t relay_id, uint32_t peer_id)
{
	log_debug("relay", "peer=%u is not connected to relay=%u", peer_id, relay_id);
}

static void on_peer_doubted(void *owner, uint32_t peer_id)
{
	traffic_manager_on_doubted(&((struct session *)owner)->traffic_manager, peer_id);
}

static void on_peer_silent(void *owner, uint32_t peer_id)
{
	struct session *session = owner;

	if (session->control)
		control_client_wake(session->control, peer_id);
}

/* from the actors */

static void tell_control(struct session *session)
{
	if (session->control)
		control_client_update(session->control, &session->update);
}

/* The public addresses as well: a cloud's public node has them by NAT, and nobody else's STUN to ask. */
static size_t add_public(const struct session *session, struct endpoint *ret, size_t n, size_t max)
{
	const struct node_public *public_node = &session->update.public_node;

	for (uint32_t i = 0; i < public_node->n_addresses && n < max; i++) {
		struct endpoint endpoint = public_node->addresses[i];
		bool is_known = false;

		endpoint.port = data_plane_port(session->data_plane);
		for (size_t j = 0; j < n; j++)
			is_known |= endpoint_equal(&ret[j], &endpoint);
		if (!is_known)
			ret[n++] = endpoint;
	}
	return n;
}

static size_t on_local_endpoints(void *owner, struct endpoint *ret, size_t max)
{
	struct session *session = owner;
	size_t n = link_local_endpoints(data_plane_port(session->data_plane), session->interface, ret, max);

	return add_public(session, ret, n, max);
}

static void on_our_endpoints(void *owner, const struct endpoint *endpoints, size_t n)
{
	struct session *session = owner;

	session->update.n_endpoints = (uint32_t)(n < MAP_MAX_ENDPOINTS ? n : MAP_MAX_ENDPOINTS);
	memcpy(session->update.endpoints, endpoints,
	       session->update.n_endpoints * sizeof(*session->update.endpoints));
	tell_control(session);
}

static void on_side_received(void *owner, uint32_t index, const struct endpoint *from, const uint8_t *bytes, size_t len)
{
	endpoint_manager_on_side(&((struct session *)owner)->endpoint_manager, index, from, bytes, len);
}

static int on_open_side(void *owner, uint16_t ret_ports[NAT_BEHAVIOUR_SOCKETS])
{
	struct session *session = owner;
	const struct side_sockets_options options = { .n = NAT_BEHAVIOUR_SOCKETS,
						      .owner = session,
						      .received = on_side_received };

	return side_sockets_open(stage_loop(session->stage), &options, ret_ports, &session->side);
}

static void on_send_side(void *owner, uint32_t socket, const struct endpoint *to, const uint8_t *bytes, size_t len)
{
	(void)side_sockets_send(((struct session *)owner)->side, socket, to, bytes, len); /* may be lost on the way, too */
}

static void on_close_side(void *owner)
{
	struct session *session = owner;

	side_sockets_close(session->side);
	session->side = NULL;
}

static void on_home_relay(void *owner, uint32_t relay_id)
{
	struct session *session = owner;

	session->update.home_relay = relay_id;
	tell_keeper_changed(session);
	tell_control(session);
}

static void on_stage_failed(void *owner, enum actor_kind who, int error)
{
	struct session *session = owner;
	char reason[128];

	session->failed = true;
	snprintf(reason, sizeof(reason), "%s failed: %s", actor_kind_name(who), strerror(-error));
	session->ports.failed(session->ports.owner, reason);
}

/* from control */

static void set_connected(struct session *session, bool connected)
{
	if (session->connected == connected)
		return;
	session->connected = connected;
	session->changed_ns = clock_now_ns();
	if (session->lan)
		lan_discovery_set_connected(session->lan, connected);
	session->ports.control_changed(session->ports.owner, connected);
}

static void on_connected(void *owner)
{
	struct session *session = owner;

	session->map_ns = clock_now_ns();
	set_connected(session, true);
	tell_keeper_changed(session); /* who heard nobody by UDP asks seldom by now: the network may be back */
}

static void on_disconnected(void *owner, const char *reason)
{
	struct session *session = owner;

	snprintf(session->last_error, sizeof(session->last_error), "%s", reason);
	set_connected(session, false);
}

static void on_map_changed(void *owner, const struct map *map)
{
	struct session *session = owner;

	session->map_ns = clock_now_ns();
	if (session->failed)
		return;
	session->ports.map_changed(session->ports.owner, map); /* kept first, then acted on */
	take_map_and_found(session, map);
}

static void on_woken(void *owner)
{
	data_plane_check_relays(((struct session *)owner)->data_plane);
}

static void on_identity_renewed(void *owner, const char *certificate_pem)
{
	struct session *session = owner;

	session->ports.identity_renewed(session->ports.owner, certificate_pem);
}

static void on_removed(void *owner, const char *reason)
{
	struct session *session = owner;

	session->ports.removed(session->ports.owner, reason);
}

/* life */

static int on_open_paths(void *owner, uint32_t peer_id, uint32_t n, const struct endpoint *from)
{
	struct session *session = owner;

	return side_paths_search(session->side_paths, peer_id, n, from, data_plane_port(session->data_plane));
}

static void on_knock(void *owner, uint32_t peer_id, uint32_t number, const struct endpoint *to)
{
	side_paths_knock(((struct session *)owner)->side_paths, peer_id, number, to);
}

static void on_close_paths(void *owner, uint32_t peer_id)
{
	side_paths_stop_search(((struct session *)owner)->side_paths, peer_id);
}

static void on_end_paths(void *owner, uint32_t peer_id)
{
	side_paths_end(((struct session *)owner)->side_paths, peer_id);
}

static void start_hard_nat(struct session *session)
{
	const struct hard_nat_ports ports = { .owner = session,
					      .open = on_open_paths,
					      .knock = on_knock,
					      .close = on_close_paths,
					      .end = on_end_paths };

	session->side_paths = side_paths_new(stage_loop(session->stage));
	traffic_manager_set_hard_nat_ports(&session->traffic_manager, &ports);
}

static void start_actors(struct session *session)
{
	const struct relay_manager_ports relay_ports = { .owner = session, .home_relay = on_home_relay };
	const struct endpoint_manager_ports endpoint_ports = { .owner = session,
							       .local_endpoints = on_local_endpoints,
							       .keeper = on_keeper,
							       .our_endpoints = on_our_endpoints,
							       .open_side = on_open_side,
							       .send_side = on_send_side,
							       .close_side = on_close_side };

	direct_manager_start(&session->direct_manager, session->stage, session->data_plane);
	direct_router_start(&session->direct_router, session->stage);
	relay_manager_start(&session->relay_manager, session->stage, session->data_plane, &relay_ports);
	relay_router_start(&session->relay_router, session->stage);
	traffic_manager_start(&session->traffic_manager, session->stage, session->data_plane);
	start_hard_nat(session);
	session_manager_start(&session->session_manager, session->stage, &session->key);
	endpoint_manager_start(&session->endpoint_manager, session->stage, &endpoint_ports);
}

static void stop_actors(struct session *session)
{
	peer_conns_deinit(&session->conns);
	endpoint_manager_stop(&session->endpoint_manager);
	session_manager_stop(&session->session_manager);
	traffic_manager_stop(&session->traffic_manager);
	side_paths_free(session->side_paths);
	relay_router_stop(&session->relay_router);
	relay_manager_stop(&session->relay_manager);
	direct_router_stop(&session->direct_router);
	direct_manager_stop(&session->direct_manager);
}

static void attach(struct session *session)
{
	const struct data_plane_ports ports = {
		.owner = session,
		.datagram = on_datagram,
		.frame = on_frame,
		.activity = on_activity,
		.relay_state = on_relay_state,
		.relay_bound = on_relay_bound,
		.relay_leaving = on_relay_leaving,
		.relay_used = on_relay_used,
		.peer_gone = on_peer_gone,
		.peer_silent = on_peer_silent,
		.peer_doubted = on_peer_doubted,
	};

	data_plane_attach(session->data_plane, &ports);
}

static int start_control(struct session *session, const struct session_options *options, struct error *reterr)
{
	const struct control_client_options control = {
		.host = options->websockets,
		.control_host = session->membership.host,
		.control_port = session->membership.port,
		.pin = session->membership.pin,
		.identity_key_pem = options->identity_key_pem,
		.certificate_pem = session->membership.member.certificate_pem,
		.node_key = options->node_key,
		.cached = options->map,
		.ports = { .owner = session,
			   .connected = on_connected,
			   .disconnected = on_disconnected,
			   .map_changed = on_map_changed,
			   .woken = on_woken,
			   .identity_renewed = on_identity_renewed,
			   .removed = on_removed },
	};

	return control_client_new(&control, &session->control, reterr);
}

static void start_lan(struct session *session, const struct session_options *options)
{
	const struct lan_discovery_options lan = {
		.loop = options->loop,
		.node_key = options->node_key,
		.session_secret = &session->key,
		.except = session->interface,
		.ports = { .owner = session, .port = on_lan_port, .n_missing = on_lan_missing, .found = on_lan_found },
	};

	if (options->no_lan_discovery)
		return;
	session->lan = lan_discovery_new(&lan);
	if (session->map)
		lan_discovery_set_map(session->lan, map_ref_get(session->map));
}

static void ignore_closed(void *owner)
{
	struct session *session = owner;

	free(session);
}

static void keep_exposures(struct session *session, const struct map_exposures *exposures)
{
	session->update.publishes = true;
	session->update.exposures = *exposures;
	session->update.exposures.id = session->membership.member.node_id;
}

static void keep_ports(struct session *session, const struct map_port *ports, uint32_t n)
{
	session->update.n_ports = n;
	if (n > 0)
		memcpy(session->update.ports, ports, n * sizeof(*ports));
}

int session_new(const struct session_options *options, struct session **ret, struct error *reterr)
{
	struct session *session = calloc(1, sizeof(*session));

	if (!session)
		return error_set(reterr, -ENOMEM, "out of memory");
	session->ports = options->ports;
	session->data_plane = options->data_plane;
	session->membership = *options->membership;
	session->changed_ns = clock_now_ns();
	snprintf(session->interface, sizeof(session->interface), "%s", options->interface);
	secret_key_generate(&session->key);
	secret_key_public(&session->key, &session->update.session_key);
	if (options->public_node)
		session->update.public_node = *options->public_node;
	session->update.front_door = options->has_front_door;
	keep_ports(session, options->door_ports, options->n_door_ports);
	if (options->exposures)
		keep_exposures(session, options->exposures);

	int r = stage_new(options->loop, &(struct stage_ports){ .owner = session, .failed = on_stage_failed },
			  &session->stage);
	if (r != 0) {
		free(session);
		return error_set(reterr, r, "cannot start a stage: %s", strerror(-r));
	}
	peer_conns_init(&session->conns, session->stage, session->data_plane);
	lan_found_init(&session->lan_found, on_forgotten, session);
	start_actors(session);
	attach(session);
	if (options->map)
		take_map(session, options->map);
	r = start_control(session, options, reterr);
	if (r != 0) {
		data_plane_attach(session->data_plane, NULL);
		stop_actors(session);
		secret_key_wipe(&session->key);
		map_unref(session->map);
		stage_close(session->stage, ignore_closed);
		return r;
	}
	start_lan(session, options);
	tell_control(session);
	*ret = session;
	return 0;
}

static void on_part_closed(void *owner)
{
	struct session *session = owner;

	if (--session->n_open > 0)
		return;
	void (*closed)(void *) = session->closed;
	void *closed_owner = session->closed_owner;
	secret_key_wipe(&session->key);
	map_unref(session->map);
	free(session);
	closed(closed_owner);
}

void session_close(struct session *session, void (*closed)(void *owner), void *owner)
{
	assert(!session->closed);
	session->closed = closed;
	session->closed_owner = owner;
	session->n_open = 3;
	data_plane_attach(session->data_plane, NULL);
	stop_actors(session);
	stage_close(session->stage, on_part_closed);
	control_client_close(session->control, on_part_closed, session);
	lan_discovery_close(session->lan, on_part_closed, session);
}

void session_set_public(struct session *session, const struct node_public *public_node)
{
	session->update.public_node = *public_node;
	tell_control(session);
}

void session_set_ports(struct session *session, const struct map_port *ports, uint32_t n)
{
	keep_ports(session, ports, n);
	tell_control(session);
}

void session_set_exposures(struct session *session, const struct map_exposures *exposures)
{
	keep_exposures(session, exposures);
	tell_control(session);
}

enum control_word session_control_word(const struct session *session, uint64_t *ret_sequence)
{
	return control_client_word(session->control, ret_sequence);
}

const char *session_control_refusal(const struct session *session)
{
	return control_client_refusal(session->control);
}

void session_link_changed(struct session *session, bool addresses)
{
	struct message message = { .type = MESSAGE_LINK_CHANGED };

	stage_post(session->stage, ACTOR_NONE, ACTOR_ENDPOINT_MANAGER, &message);
	if (session->lan)
		lan_discovery_link_changed(session->lan);
	if (!addresses)
		return;
	message = (struct message){ .type = MESSAGE_LINK_CHANGED };
	stage_post(session->stage, ACTOR_NONE, ACTOR_RELAY_MANAGER, &message);
	control_client_kick(session->control);
}

void session_set_forwarded(struct session *session, const struct endpoint *external)
{
	struct message message = { .type = MESSAGE_FORWARDED, .via = { .endpoint = *external } };

	stage_post(session->stage, ACTOR_NONE, ACTOR_ENDPOINT_MANAGER, &message);
}

void session_set_turned(struct session *session, const struct endpoint *relayed)
{
	struct message message = { .type = MESSAGE_TURNED, .via = { .endpoint = *relayed } };

	stage_post(session->stage, ACTOR_NONE, ACTOR_ENDPOINT_MANAGER, &message);
}

void session_measure_nat(struct session *session)
{
	struct message message = { .type = MESSAGE_MEASURE_NAT };

	stage_post(session->stage, ACTOR_NONE, ACTOR_ENDPOINT_MANAGER, &message);
	message = (struct message){ .type = MESSAGE_MEASURE_NAT };
	stage_post(session->stage, ACTOR_NONE, ACTOR_RELAY_MANAGER, &message);
}

bool session_is_measuring(const struct session *session)
{
	return !session->failed && nat_behaviour_fsm_is_busy(&session->endpoint_manager.nat);
}

void session_inject_failure(struct session *session, enum actor_kind who, int error)
{
	stage_fail(session->stage, who, error);
}

bool session_is_connected(const struct session *session)
{
	return session->connected;
}

const struct map *session_map(const struct session *session)
{
	return session->map ? map_ref_get(session->map) : NULL;
}

int session_leave(struct session *session, rpc_answer_cb cb, void *owner)
{
	return control_client_leave(session->control, cb, owner);
}
