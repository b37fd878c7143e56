/* One pair of functions a part of the status, writing and reading side by side. */
#include "node/status.h"

#include "node/status_values.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const state_names[NODE_N_STATES] = {
	[NODE_NOT_JOINED] = "not joined", [NODE_JOINING] = "joining", [NODE_STARTING] = "starting",
	[NODE_RUNNING] = "running",       [NODE_REMOVED] = "removed",
};
static const char *const path_names[NODE_N_PATHS] = {
	[NODE_PATH_NONE] = "none",
	[NODE_PATH_RELAY] = "relay",
	[NODE_PATH_DIRECT] = "direct",
	[NODE_PATH_BOTH] = "both",
};
static const char *const endpoint_kind_names[NODE_N_ENDPOINT_KINDS] = {
	[NODE_ENDPOINT_LOCAL] = "local",   [NODE_ENDPOINT_STUN] = "stun",
	[NODE_ENDPOINT_PUBLIC] = "public", [NODE_ENDPOINT_PORTMAP] = "portmap", [NODE_ENDPOINT_TURN] = "turn",
	[NODE_ENDPOINT_PEER] = "peer",
};
static const char *const nat_names[NODE_N_NATS] = {
	[NODE_NAT_UNKNOWN] = "unknown",
	[NODE_NAT_NONE] = "none",
	[NODE_NAT_EASY] = "easy",
	[NODE_NAT_HARD] = "hard",
	[NODE_NAT_UDP_BLOCKED] = "udp blocked",
};

const char *node_state_name(enum node_state state)
{
	return state_names[state];
}

const char *node_path_name(enum node_path_kind path)
{
	return path_names[path];
}

int node_path_get(const struct json *object, const char *key, enum node_path_kind *ret, struct error *reterr)
{
	int path;
	const int r = status_get_name(object, key, path_names, NODE_N_PATHS, &path, reterr);

	if (r == 0)
		*ret = (enum node_path_kind)path;
	return r;
}

const char *node_endpoint_kind_name(enum node_endpoint_kind kind)
{
	return endpoint_kind_names[kind];
}

const char *node_nat_name(enum node_nat nat)
{
	return nat_names[nat];
}

/* the struct */

void node_status_init(struct node_status *status)
{
	*status = (struct node_status){
		.control = { .since_ms = NODE_STATUS_UNKNOWN, .map_age_ms = NODE_STATUS_UNKNOWN },
		.home_relay = { .latency_us = NODE_STATUS_UNKNOWN },
	};
	snprintf(status->version, sizeof(status->version), "%s", P2P_VERSION);
	node_nat_behaviour_init(&status->nat_behaviour);
}

void node_status_deinit(struct node_status *status)
{
	free(status->peers);
	free(status->relays);
	status->peers = NULL;
	status->relays = NULL;
	status->n_peers = status->n_relays = 0;
}

/* Room for one more; grows by doubling, so n needs no capacity beside it. */
static void *grow(void *array, uint32_t n, size_t size)
{
	if (n != 0 && (n & (n - 1)) != 0)
		return array;
	void *bigger = realloc(array, (n == 0 ? 1 : (size_t)n * 2) * size);
	if (!bigger)
		abort();
	return bigger;
}

struct node_status_peer *node_status_add_peer(struct node_status *status)
{
	status->peers = grow(status->peers, status->n_peers, sizeof(*status->peers));
	struct node_status_peer *peer = &status->peers[status->n_peers++];
	*peer = (struct node_status_peer){
		.latency_us = NODE_STATUS_UNKNOWN,
		.handshake_ms = NODE_STATUS_UNKNOWN,
		.packet_ms = NODE_STATUS_UNKNOWN,
	};
	return peer;
}

struct node_status_relay *node_status_add_relay(struct node_status *status)
{
	status->relays = grow(status->relays, status->n_relays, sizeof(*status->relays));
	struct node_status_relay *relay = &status->relays[status->n_relays++];
	*relay = (struct node_status_relay){ .latency_us = NODE_STATUS_UNKNOWN,
					     .udp_latency_us = NODE_STATUS_UNKNOWN,
					     .tls_latency_us = NODE_STATUS_UNKNOWN };
	return relay;
}

void node_status_add_endpoint(struct node_status *status, const struct endpoint *endpoint,
			      enum node_endpoint_kind kind)
{
	if (status->n_endpoints < NODE_STATUS_MAX_ENDPOINTS)
		status->endpoints[status->n_endpoints++] =
			(struct node_status_endpoint){ *endpoint, kind };
}

struct node_status_offload *node_status_add_offload(struct node_status *status)
{
	if (status->n_offloads >= NODE_STATUS_MAX_OFFLOADS)
		return NULL;
	struct node_status_offload *offload = &status->offloads[status->n_offloads++];
	memset(offload, 0, sizeof(*offload));
	return offload;
}

struct node_status_lane *node_status_add_lane(struct node_status *status)
{
	if (status->n_lanes >= NODE_STATUS_MAX_LANES)
		return NULL;
	struct node_status_lane *lane = &status->lanes[status->n_lanes++];
	memset(lane, 0, sizeof(*lane));
	return lane;
}

static void set_drop(struct node_status_drop *drop, const char *name, uint64_t n)
{
	snprintf(drop->name, sizeof(drop->name), "%s", name);
	drop->n = n;
}

void node_status_add_lane_drop(struct node_status_lane *lane, const char *name, uint64_t n)
{
	if (n > 0 && lane->n_drops < NODE_STATUS_MAX_LANE_DROPS)
		set_drop(&lane->drops[lane->n_drops++], name, n);
}

void node_status_add_drop(struct node_status *status, const char *name, uint64_t n)
{
	if (status->n_drops >= NODE_STATUS_MAX_DROPS)
		return;
	set_drop(&status->drops[status->n_drops++], name, n);
}

bool node_status_is_member(const struct node_status *status)
{
	return status->state != NODE_NOT_JOINED && status->state != NODE_REMOVED;
}

/* items and parts */

/* Each item of an array member (absent: none), at most max, to take(). */
static int get_items(const struct json *object, const char *key, size_t max,
		     int (*take)(const struct json *item, struct node_status *status,
				 struct error *reterr),
		     struct node_status *status, struct error *reterr)
{
	const struct json *array;
	size_t n = 0;
	int r = 0;

	if (!json_member(object, key))
		return 0;
	r = json_get_array(object, key, &array, reterr);
	for (const struct json *i = r == 0 ? json_first(array) : NULL; i && r == 0;
	     i = json_next(i), n++) {
		if (n == max)
			return error_set(reterr, -EINVAL, "member '%s': more than %zu items", key,
					 max);
		if (!json_is_object(i))
			return error_set(reterr, -EINVAL, "member '%s': item %zu must be an object",
					 key, n);
		r = take(i, status, reterr);
		if (r != 0)
			error_prefix(reterr, "%s[%zu]", key, n);
	}
	return r;
}

/* parts */

static struct json *self_to_json(const struct node_status *status)
{
	struct json *json = json_object();

	status_put_known(json, "id", status->self.id ? (int64_t)status->self.id : NODE_STATUS_UNKNOWN);
	status_put_text(json, "name", status->self.name);
	status_put_ips(json, &status->self.ip4, &status->self.ip6);
	status_put_key(json, "node_key", &status->self.node_key);
	json_put_boolean(json, "public", status->self.is_public);
	return json;
}

static int self_from_json(const struct json *json, struct node_status *ret, struct error *reterr)
{
	int r = status_get_u32(json, "id", &ret->self.id, reterr);

	if (r == 0)
		r = status_get_text(json, "name", ret->self.name, sizeof(ret->self.name), reterr);
	if (r == 0)
		r = status_get_ips(json, &ret->self.ip4, &ret->self.ip6, reterr);
	if (r == 0)
		r = status_get_key(json, "node_key", &ret->self.node_key, reterr);
	if (r == 0)
		r = json_get_boolean_or(json, "public", false, &ret->self.is_public, reterr);
	return r;
}

static struct json *control_to_json(const struct node_status *status)
{
	struct json *json = json_object();

	json_put_boolean(json, "connected", status->control.connected);
	status_put_text(json, "address", status->control.address);
	status_put_known(json, "since_ms", status->control.since_ms);
	status_put_text(json, "last_error", status->control.last_error);
	json_put_u64(json, "map_sequence", status->control.map_sequence);
	status_put_known(json, "map_age_ms", status->control.map_age_ms);
	return json;
}

static int control_from_json(const struct json *json, struct node_status *ret, struct error *reterr)
{
	int r = status_get_flag(json, "connected", &ret->control.connected, reterr);

	if (r == 0)
		r = status_get_text(json, "address", ret->control.address, sizeof(ret->control.address),
			     reterr);
	if (r == 0)
		r = status_get_known(json, "since_ms", &ret->control.since_ms, reterr);
	if (r == 0)
		r = status_get_text(json, "last_error", ret->control.last_error,
			     sizeof(ret->control.last_error), reterr);
	if (r == 0 && json_member(json, "map_sequence"))
		r = json_get_u64(json, "map_sequence", &ret->control.map_sequence, reterr);
	if (r == 0)
		r = status_get_known(json, "map_age_ms", &ret->control.map_age_ms, reterr);
	return r;
}

static struct json *home_relay_to_json(const struct node_status *status)
{
	if (status->home_relay.id == 0)
		return json_null();

	struct json *json = json_object();
	json_put_integer(json, "id", status->home_relay.id);
	status_put_text(json, "name", status->home_relay.name);
	status_put_known(json, "latency_us", status->home_relay.latency_us);
	status_put_text(json, "transport", status->home_relay.transport);
	return json;
}

static int home_relay_from_json(const struct json *json, struct node_status *ret,
				struct error *reterr)
{
	int r = status_get_u32(json, "id", &ret->home_relay.id, reterr);

	if (r == 0)
		r = status_get_text(json, "name", ret->home_relay.name, sizeof(ret->home_relay.name),
			     reterr);
	if (r == 0)
		r = status_get_known(json, "latency_us", &ret->home_relay.latency_us, reterr);
	if (r == 0)
		r = status_get_text(json, "transport", ret->home_relay.transport,
			     sizeof(ret->home_relay.transport), reterr);
	return r;
}

static struct json *endpoint_to_json(const struct node_status_endpoint *endpoint)
{
	struct json *json = json_object();

	status_put_endpoint(json, "endpoint", &endpoint->endpoint);
	json_put_string(json, "kind", node_endpoint_kind_name(endpoint->kind));
	return json;
}

static int endpoint_from_json(const struct json *json, struct node_status *status,
			      struct error *reterr)
{
	struct endpoint endpoint = { 0 };
	int kind, r = status_get_endpoint(json, "endpoint", &endpoint, reterr);

	if (r == 0)
		r = status_get_name(json, "kind", endpoint_kind_names, NODE_N_ENDPOINT_KINDS, &kind,
			     reterr);
	if (r == 0)
		node_status_add_endpoint(status, &endpoint, (enum node_endpoint_kind)kind);
	return r;
}

static struct json *port_mapping_to_json(const struct node_status *status)
{
	if (status->port_mapping.state[0] == '\0')
		return json_null();

	struct json *json = json_object();
	json_put_string(json, "state", status->port_mapping.state);
	status_put_text(json, "way", status->port_mapping.way);
	status_put_endpoint(json, "router", &status->port_mapping.router);
	status_put_endpoint(json, "external", &status->port_mapping.external);
	status_put_yes_no(json, "pcp", status->port_mapping.pcp);
	status_put_yes_no(json, "natpmp", status->port_mapping.natpmp);
	status_put_yes_no(json, "upnp", status->port_mapping.upnp);
	return json;
}

static int port_mapping_from_json(const struct json *json, struct node_status *ret, struct error *reterr)
{
	int r = status_get_text(json, "state", ret->port_mapping.state, sizeof(ret->port_mapping.state), reterr);

	if (r == 0)
		r = status_get_text(json, "way", ret->port_mapping.way, sizeof(ret->port_mapping.way), reterr);
	if (r == 0)
		r = status_get_endpoint(json, "router", &ret->port_mapping.router, reterr);
	if (r == 0)
		r = status_get_endpoint(json, "external", &ret->port_mapping.external, reterr);
	if (r == 0)
		r = status_get_yes_no(json, "pcp", &ret->port_mapping.pcp, reterr);
	if (r == 0)
		r = status_get_yes_no(json, "natpmp", &ret->port_mapping.natpmp, reterr);
	if (r == 0)
		r = status_get_yes_no(json, "upnp", &ret->port_mapping.upnp, reterr);
	return r;
}

static struct json *peer_to_json(const struct node_status_peer *peer)
{
	struct json *json = json_object();

	json_put_integer(json, "id", peer->id);
	status_put_text(json, "name", peer->name);
	status_put_ips(json, &peer->ip4, &peer->ip6);
	status_put_key(json, "node_key", &peer->node_key);
	status_put_text(json, "state", peer->state);
	json_put_string(json, "path", node_path_name(peer->path));
	status_put_endpoint(json, "endpoint", &peer->endpoint);
	json_put_boolean(json, "by_turn", peer->by_turn);
	status_put_text(json, "relay", peer->relay);
	status_put_known(json, "latency_us", peer->latency_us);
	status_put_known(json, "mtu", peer->mtu != 0 ? (int64_t)peer->mtu : NODE_STATUS_UNKNOWN);
	status_put_known(json, "handshake_ms", peer->handshake_ms);
	status_put_known(json, "packet_ms", peer->packet_ms);
	json_put_u64(json, "rx_bytes", peer->rx_bytes);
	json_put_u64(json, "tx_bytes", peer->tx_bytes);
	json_put_boolean(json, "online", peer->online);
	return json;
}

/* A node of an earlier version does not say it. */
static int get_mtu(const struct json *json, uint32_t *ret, struct error *reterr)
{
	int64_t mtu = NODE_STATUS_UNKNOWN;
	int r = json_member(json, "mtu") ? status_get_known(json, "mtu", &mtu, reterr) : 0;

	*ret = r == 0 && mtu > 0 && mtu <= UINT16_MAX ? (uint32_t)mtu : 0;
	return r;
}

static int peer_path_from_json(const struct json *json, struct node_status_peer *peer,
			       struct error *reterr)
{
	int r = node_path_get(json, "path", &peer->path, reterr);

	if (r == 0)
		r = status_get_endpoint(json, "endpoint", &peer->endpoint, reterr);
	if (r == 0)
		r = status_get_flag(json, "by_turn", &peer->by_turn, reterr);
	if (r == 0)
		r = status_get_text(json, "relay", peer->relay, sizeof(peer->relay), reterr);
	if (r == 0)
		r = status_get_known(json, "latency_us", &peer->latency_us, reterr);
	if (r == 0)
		r = get_mtu(json, &peer->mtu, reterr);
	return r;
}

static int peer_counts_from_json(const struct json *json, struct node_status_peer *peer,
				 struct error *reterr)
{
	int r = status_get_known(json, "handshake_ms", &peer->handshake_ms, reterr);

	if (r == 0)
		r = status_get_known(json, "packet_ms", &peer->packet_ms, reterr);
	if (r == 0 && json_member(json, "rx_bytes"))
		r = json_get_u64(json, "rx_bytes", &peer->rx_bytes, reterr);
	if (r == 0 && json_member(json, "tx_bytes"))
		r = json_get_u64(json, "tx_bytes", &peer->tx_bytes, reterr);
	if (r == 0)
		r = status_get_flag(json, "online", &peer->online, reterr);
	return r;
}

static int peer_from_json(const struct json *json, struct node_status *status, struct error *reterr)
{
	struct node_status_peer *peer = node_status_add_peer(status);
	int r = status_get_u32(json, "id", &peer->id, reterr);

	if (r == 0)
		r = status_get_text(json, "name", peer->name, sizeof(peer->name), reterr);
	if (r == 0)
		r = status_get_ips(json, &peer->ip4, &peer->ip6, reterr);
	if (r == 0)
		r = status_get_key(json, "node_key", &peer->node_key, reterr);
	if (r == 0)
		r = status_get_text(json, "state", peer->state, sizeof(peer->state), reterr);
	if (r == 0)
		r = peer_path_from_json(json, peer, reterr);
	return r != 0 ? r : peer_counts_from_json(json, peer, reterr);
}

static struct json *relay_to_json(const struct node_status_relay *relay)
{
	struct json *json = json_object();

	json_put_integer(json, "id", relay->id);
	status_put_text(json, "name", relay->name);
	status_put_known(json, "latency_us", relay->latency_us);
	status_put_text(json, "transport", relay->transport);
	status_put_known(json, "udp_latency_us", relay->udp_latency_us);
	status_put_known(json, "tls_latency_us", relay->tls_latency_us);
	json_put_boolean(json, "connected", relay->connected);
	json_put_boolean(json, "home", relay->home);
	return json;
}

static int relay_from_json(const struct json *json, struct node_status *status,
			   struct error *reterr)
{
	struct node_status_relay *relay = node_status_add_relay(status);
	int r = status_get_u32(json, "id", &relay->id, reterr);

	if (r == 0)
		r = status_get_text(json, "name", relay->name, sizeof(relay->name), reterr);
	if (r == 0)
		r = status_get_known(json, "latency_us", &relay->latency_us, reterr);
	if (r == 0)
		r = status_get_text(json, "transport", relay->transport, sizeof(relay->transport), reterr);
	if (r == 0)
		r = status_get_known(json, "udp_latency_us", &relay->udp_latency_us, reterr);
	if (r == 0)
		r = status_get_known(json, "tls_latency_us", &relay->tls_latency_us, reterr);
	if (r == 0)
		r = status_get_flag(json, "connected", &relay->connected, reterr);
	return r != 0 ? r : status_get_flag(json, "home", &relay->home, reterr);
}

static struct json *offload_to_json(const struct node_status_offload *offload)
{
	struct json *json = json_object();

	status_put_text(json, "name", offload->name);
	status_put_text(json, "state", offload->state);
	status_put_text(json, "error", offload->error);
	json_put_u64(json, "used", offload->used);
	json_put_u64(json, "refused", offload->refused);
	json_put_u64(json, "fell_back", offload->fell_back);
	return json;
}

static int offload_from_json(const struct json *json, struct node_status *status, struct error *reterr)
{
	struct node_status_offload *offload = node_status_add_offload(status);
	int r = status_get_text(json, "name", offload->name, sizeof(offload->name), reterr);

	if (r == 0)
		r = status_get_text(json, "state", offload->state, sizeof(offload->state), reterr);
	if (r == 0)
		r = status_get_text(json, "error", offload->error, sizeof(offload->error), reterr);
	if (r == 0)
		r = json_get_u64(json, "used", &offload->used, reterr);
	if (r == 0)
		r = json_get_u64(json, "refused", &offload->refused, reterr);
	return r != 0 ? r : json_get_u64(json, "fell_back", &offload->fell_back, reterr);
}

static struct json *drops_to_json(const struct node_status_drop *drops, uint32_t n)
{
	struct json *json = json_object();

	for (uint32_t i = 0; i < n; i++)
		json_put_u64(json, drops[i].name, drops[i].n);
	return json;
}

static struct json *lane_to_json(const struct node_status_lane *lane)
{
	struct json *json = json_object();

	status_put_text(json, "role", lane->role);
	json_put_u64(json, "tun_packets", lane->tun_packets);
	json_put_u64(json, "tun_bytes", lane->tun_bytes);
	json_put_u64(json, "udp_datagrams", lane->udp_datagrams);
	json_put_u64(json, "udp_bytes", lane->udp_bytes);
	json_put_u64(json, "udp_relayed", lane->udp_relayed);
	json_put(json, "drops", drops_to_json(lane->drops, lane->n_drops));
	return json;
}

static int lane_drops_from_json(const struct json *json, struct node_status_lane *lane, struct error *reterr)
{
	const struct json *drops;
	int r = json_get_object(json, "drops", &drops, reterr);

	if (r != 0)
		return r;
	for (const struct json *i = json_first(drops); i && r == 0; i = json_next(i)) {
		uint64_t n;
		r = json_get_u64(drops, json_key(i), &n, reterr);
		if (r == 0)
			node_status_add_lane_drop(lane, json_key(i), n);
	}
	return r;
}

static int lane_from_json(const struct json *json, struct node_status *status, struct error *reterr)
{
	struct node_status_lane *lane = node_status_add_lane(status);
	int r = status_get_text(json, "role", lane->role, sizeof(lane->role), reterr);

	if (r == 0)
		r = json_get_u64(json, "tun_packets", &lane->tun_packets, reterr);
	if (r == 0)
		r = json_get_u64(json, "tun_bytes", &lane->tun_bytes, reterr);
	if (r == 0)
		r = json_get_u64(json, "udp_datagrams", &lane->udp_datagrams, reterr);
	if (r == 0)
		r = json_get_u64(json, "udp_bytes", &lane->udp_bytes, reterr);
	if (r == 0)
		r = json_get_u64(json, "udp_relayed", &lane->udp_relayed, reterr);
	return r != 0 ? r : lane_drops_from_json(json, lane, reterr);
}

static int drops_from_json(const struct json *json, struct node_status *status,
			   struct error *reterr)
{
	int r = 0;

	for (const struct json *i = json_first(json); i && r == 0; i = json_next(i)) {
		uint64_t n;
		r = json_get_u64(json, json_key(i), &n, reterr);
		if (r == 0)
			node_status_add_drop(status, json_key(i), n);
	}
	return r;
}

/* whole */

struct json *node_status_to_json(const struct node_status *status)
{
	struct json *json = json_object();
	struct json *endpoints = json_array(), *peers = json_array(), *relays = json_array();
	struct json *offloads = json_array(), *lanes = json_array();

	for (uint32_t i = 0; i < status->n_endpoints; i++)
		json_append(endpoints, endpoint_to_json(&status->endpoints[i]));
	for (uint32_t i = 0; i < status->n_peers; i++)
		json_append(peers, peer_to_json(&status->peers[i]));
	for (uint32_t i = 0; i < status->n_relays; i++)
		json_append(relays, relay_to_json(&status->relays[i]));
	for (uint32_t i = 0; i < status->n_offloads; i++)
		json_append(offloads, offload_to_json(&status->offloads[i]));
	for (uint32_t i = 0; i < status->n_lanes; i++)
		json_append(lanes, lane_to_json(&status->lanes[i]));

	json_put_string(json, "state", node_state_name(status->state));
	status_put_text(json, "version", status->version);
	status_put_text(json, "network", status->network);
	status_put_text(json, "interface", status->interface);
	status_put_text(json, "wireguard", status->wireguard);
	json_put_integer(json, "mtu", status->mtu);
	json_put_integer(json, "uptime_ms", (int64_t)status->uptime_ms);
	json_put(json, "self", self_to_json(status));
	json_put(json, "control", control_to_json(status));
	json_put(json, "home_relay", home_relay_to_json(status));
	json_put(json, "endpoints", endpoints);
	json_put_string(json, "nat", node_nat_name(status->nat));
	json_put(json, "port_mapping", port_mapping_to_json(status));
	json_put(json, "nat_behaviour", node_nat_behaviour_to_json(&status->nat_behaviour));
	json_put(json, "peers", peers);
	json_put(json, "relays", relays);
	json_put(json, "offloads", offloads);
	json_put(json, "lanes", lanes);
	json_put(json, "drops", drops_to_json(status->drops, status->n_drops));
	if (status->webgw_agent.is_there)
		json_put(json, "webgw_agent", node_status_webgw_to_json(&status->webgw_agent));
	return json;
}

static int head_from_json(const struct json *json, struct node_status *ret, struct error *reterr)
{
	int64_t uptime_ms;
	int state, nat, r = status_get_name(json, "state", state_names, NODE_N_STATES, &state, reterr);

	if (r == 0)
		r = status_get_text(json, "version", ret->version, sizeof(ret->version), reterr);
	if (r == 0)
		r = status_get_text(json, "network", ret->network, sizeof(ret->network), reterr);
	if (r == 0)
		r = status_get_text(json, "interface", ret->interface, sizeof(ret->interface), reterr);
	if (r == 0)
		r = status_get_text(json, "wireguard", ret->wireguard, sizeof(ret->wireguard), reterr);
	if (r == 0)
		r = status_get_u32(json, "mtu", &ret->mtu, reterr);
	if (r == 0)
		r = json_get_integer_or(json, "uptime_ms", 0, 999999999999999, 0, &uptime_ms,
					reterr);
	if (r == 0)
		r = status_get_name(json, "nat", nat_names, NODE_N_NATS, &nat, reterr);
	if (r != 0)
		return r;
	ret->state = (enum node_state)state;
	ret->nat = (enum node_nat)nat;
	ret->uptime_ms = (uint64_t)uptime_ms;
	return 0;
}

/* A member that is an object, or absent or null. */
static int get_part(const struct json *json, const char *key,
		    int (*take)(const struct json *part, struct node_status *ret,
				struct error *reterr),
		    struct node_status *ret, struct error *reterr)
{
	const struct json *part = json_member(json, key);
	int r;

	if (!part || json_is_null(part))
		return 0;
	r = json_get_object(json, key, &part, reterr);
	if (r == 0) {
		r = take(part, ret, reterr);
		if (r != 0)
			error_prefix(reterr, "%s", key);
	}
	return r;
}

static int nat_behaviour_from_json(const struct json *json, struct node_status *ret, struct error *reterr)
{
	return node_nat_behaviour_from_json(json, &ret->nat_behaviour, reterr);
}

static int webgw_from_json(const struct json *json, struct node_status *status, struct error *reterr)
{
	return node_status_webgw_from_json(json, &status->webgw_agent, reterr);
}

static int parts_from_json(const struct json *json, struct node_status *ret, struct error *reterr)
{
	int r = head_from_json(json, ret, reterr);

	if (r == 0)
		r = get_part(json, "self", self_from_json, ret, reterr);
	if (r == 0)
		r = get_part(json, "control", control_from_json, ret, reterr);
	if (r == 0)
		r = get_part(json, "home_relay", home_relay_from_json, ret, reterr);
	if (r == 0)
		r = get_part(json, "nat_behaviour", nat_behaviour_from_json, ret, reterr);
	if (r == 0)
		r = get_items(json, "endpoints", NODE_STATUS_MAX_ENDPOINTS, endpoint_from_json, ret,
			      reterr);
	if (r == 0)
		r = get_part(json, "port_mapping", port_mapping_from_json, ret, reterr);
	if (r == 0)
		r = get_items(json, "peers", MAP_MAX_PEERS, peer_from_json, ret, reterr);
	if (r == 0)
		r = get_items(json, "relays", MAP_MAX_RELAYS, relay_from_json, ret, reterr);
	if (r == 0)
		r = get_items(json, "offloads", NODE_STATUS_MAX_OFFLOADS, offload_from_json, ret, reterr);
	if (r == 0)
		r = get_items(json, "lanes", NODE_STATUS_MAX_LANES, lane_from_json, ret, reterr);
	if (r == 0)
		r = get_part(json, "drops", drops_from_json, ret, reterr);
	if (r == 0)
		r = get_part(json, "webgw_agent", webgw_from_json, ret, reterr);
	return r;
}

int node_status_from_json(const struct json *json, struct node_status *ret, struct error *reterr)
{
	struct node_status status;
	int r;

	if (!json_is_object(json))
		return error_set(reterr, -EINVAL, "a status must be an object");
	node_status_init(&status);
	status.version[0] = '\0';
	r = parts_from_json(json, &status, reterr);
	if (r != 0)
		node_status_deinit(&status);
	else
		*ret = status;
	return r;
}
