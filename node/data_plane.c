/*
 * The data plane: what stands between the lane thread and the loop.
 *
 *   map, paths ──► struct plane_peer ──► one change command at a time ──► lane (wg_device)
 *   lane ── relay(train) ──► plane_relay ──► relay connection
 *   relay connection ── packet ──► WireGuard? ──► lane, else ──► the attached stage
 *   lane ── sample (every 50 ms while packets flow) ──► activity of each peer ──► the attached stage
 *
 * Changes are collected while a command is under way, so that the lane's queue never fills.
 */
#include "node/data_plane_internal.h"

#include "common/clock.h"
#include "common/log.h"
#include "node/wireguard/link.h"

#include <assert.h>
#include <errno.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SAMPLE_ACTIVE_MS 50  /* while packets flow */
#define SAMPLE_DIRECT_MS 500 /* while nothing flows, but a direct path is in force */
#define ACTIVE_NS	 (11 * 1000000000ull)
#define MAX_DATAGRAM	 1500

static void sample_soon(struct data_plane *plane);

/* ---- peers: found by id (the stage) and by key (relay frames) ---- */

static struct plane_peer **id_bucket(const struct data_plane *plane, uint32_t id)
{
	return (struct plane_peer **)&plane->by_id[id % BUCKETS];
}

static struct plane_peer **key_bucket(const struct data_plane *plane, const struct public_key *key)
{
	uint32_t hash;

	memcpy(&hash, key->bytes, sizeof(hash)); /* keys of members: control signed them */
	return (struct plane_peer **)&plane->by_key[hash % BUCKETS];
}

struct plane_peer *plane_find_by_id(const struct data_plane *plane, uint32_t id)
{
	struct plane_peer *peer = *id_bucket(plane, id);

	while (peer && peer->id != id)
		peer = peer->next_by_id;
	return peer;
}

struct plane_peer *plane_find_by_key(const struct data_plane *plane, const struct public_key *key)
{
	struct plane_peer *peer = *key_bucket(plane, key);

	while (peer && !public_key_equal(&peer->key, key))
		peer = peer->next_by_key;
	return peer;
}

static struct plane_peer *add_peer(struct data_plane *plane, const struct map_peer *record)
{
	struct plane_peer *peer = calloc(1, sizeof(*peer));

	if (!peer)
		abort();
	*peer = (struct plane_peer){ .id = record->id,
				     .key = record->node_key,
				     .path = { .relay = true },
				     .is_new = true,
				     .next_by_id = *id_bucket(plane, record->id),
				     .next_by_key = *key_bucket(plane, &record->node_key) };
	*id_bucket(plane, record->id) = peer;
	*key_bucket(plane, &record->node_key) = peer;
	plane->n_peers++;
	return peer;
}

static void free_peer(struct data_plane *plane, struct plane_peer *peer)
{
	struct plane_peer **at = id_bucket(plane, peer->id);

	while (*at != peer)
		at = &(*at)->next_by_id;
	*at = peer->next_by_id;
	for (at = key_bucket(plane, &peer->key); *at != peer; at = &(*at)->next_by_key)
		;
	*at = peer->next_by_key;
	plane->n_peers--;
	free(peer);
}

/* ---- changes: loop thread → lane ---- */

struct changed_peer {
	struct public_key key;
	uint32_t id;
	bool is_new; /* else only its route */
	bool is_reborn, is_gone;
	struct in_addr ip4;
	struct in6_addr ip6;
	struct wg_route route;
};

struct change {
	struct data_plane *plane;
	uint32_t n_removed, n_peers;
	struct public_key *removed;
	struct changed_peer *peers;
};

static struct wg_route route_of(const struct plane_peer *peer)
{
	struct wg_route route = { 0 };

	if (peer->path.direct)
		route.paths[route.n++] = (struct wg_path){ .remote = peer->path.endpoint };
	if (peer->path.relay)
		route.paths[route.n++] = (struct wg_path){ .relay_id = RELAY_ANY, .peer_id = peer->id };
	return route;
}

static void allow(struct wg_peer *wg_peer, const struct changed_peer *changed)
{
	struct wg_prefix prefix4 = { .family = AF_INET, .len = 32 };
	struct wg_prefix prefix6 = { .family = AF_INET6, .len = 128 };

	memcpy(prefix4.ip, &changed->ip4, 4);
	memcpy(prefix6.ip, &changed->ip6, 16);
	wg_peer_disallow_all(wg_peer);
	if (wg_peer_allow(wg_peer, &prefix4) != 0 || wg_peer_allow(wg_peer, &prefix6) != 0)
		log_error("wireguard", "peer=%u: out of memory for its addresses", changed->id);
}

/* Lane thread. */
static void change_peer(const struct lane_context *context, const struct changed_peer *changed)
{
	struct wg_peer *wg_peer = wg_device_find_peer(context->device, &changed->key);

	if (!wg_peer && changed->is_new) {
		int r = wg_device_add_peer(context->device, &changed->key, &wg_peer);
		if (r != 0) {
			log_error("wireguard", "peer=%u: cannot be added (%d)", changed->id, r);
			return;
		}
	}
	if (!wg_peer)
		return; /* removed meanwhile */
	if (changed->is_new) {
		wg_peer_set_user(wg_peer, changed->id, NULL);
		wg_peer_set_mode(wg_peer, WG_PINNED);
		allow(wg_peer, changed);
	}
	wg_peer_set_route(wg_peer, &changed->route, context->now);
	struct wg_stats stats;
	wg_peer_get_stats(wg_peer, context->now, &stats);
	/* A session that the peer may have lost; a handshake that did not reach it. */
	if ((changed->is_reborn && stats.has_session) ||
	    (changed->is_gone && !stats.has_session && stats.handshake_attempts > 0))
		wg_peer_reconnect(wg_peer, context->now);
}

/* Lane thread. */
static void run_change(const struct lane_context *context, void *arg)
{
	struct change *change = arg;

	for (uint32_t i = 0; i < change->n_removed; i++) {
		struct wg_peer *wg_peer = wg_device_find_peer(context->device, &change->removed[i]);
		if (wg_peer)
			wg_device_remove_peer(context->device, wg_peer);
	}
	for (uint32_t i = 0; i < change->n_peers; i++)
		change_peer(context, &change->peers[i]);
}

static void publish_changes(struct data_plane *plane);

static void on_changed(void *arg)
{
	struct change *change = arg;
	struct data_plane *plane = change->plane;

	free(change->removed);
	free(change->peers);
	free(change);
	plane->is_changing = false;
	if (!plane->closed)
		publish_changes(plane);
}

static struct change *collect_changes(struct data_plane *plane)
{
	struct change *change = calloc(1, sizeof(*change));

	if (!change)
		abort();
	*change = (struct change){ .plane = plane, .removed = plane->removed, .n_removed = plane->n_removed };
	plane->removed = NULL;
	plane->n_removed = 0;
	change->peers = calloc(plane->n_peers + 1, sizeof(*change->peers));
	if (!change->peers)
		abort();
	for (uint32_t i = 0; i < BUCKETS; i++) {
		for (struct plane_peer *peer = plane->by_id[i]; peer; peer = peer->next_by_id) {
			if (!peer->is_new && !peer->is_dirty && !peer->is_reborn && !peer->is_gone)
				continue;
			change->peers[change->n_peers++] = (struct changed_peer){ .key = peer->key,
										  .id = peer->id,
										  .is_new = peer->is_new,
										  .is_reborn = peer->is_reborn,
										  .is_gone = peer->is_gone,
										  .ip4 = peer->ip4,
										  .ip6 = peer->ip6,
										  .route = route_of(peer) };
			peer->is_new = peer->is_dirty = peer->is_reborn = peer->is_gone = false;
		}
	}
	return change;
}

static void publish_changes(struct data_plane *plane)
{
	if (plane->is_changing)
		return;
	struct change *change = collect_changes(plane);
	if (change->n_peers == 0 && change->n_removed == 0) {
		free(change->peers);
		free(change);
		return;
	}
	plane->is_changing = true;
	if (lane_run(plane->lane, run_change, change, on_changed) != 0)
		abort(); /* at most one change, one sample: LANE_MAX_COMMANDS is far */
}

/* ---- samples: lane → loop thread ---- */

struct refresh {
	struct refresh *next;
	void (*cb)(void *owner);
	void *owner;
};

struct sampled_peer {
	uint32_t id;
	struct wg_stats stats;
};

struct sample {
	struct data_plane *plane;
	uint32_t n, max;
	struct sampled_peer *peers;
	uint64_t drops[WG_N_DROPS];
	struct refresh *refreshes;
};

/* Lane thread. */
static void run_sample(const struct lane_context *context, void *arg)
{
	struct sample *sample = arg;

	for (struct wg_peer *peer = wg_device_first_peer(context->device); peer && sample->n < sample->max;
	     peer = wg_peer_next(peer)) {
		struct sampled_peer *sampled = &sample->peers[sample->n++];
		sampled->id = wg_peer_id(peer);
		wg_peer_get_stats(peer, context->now, &sampled->stats);
	}
	for (int i = 0; i < WG_N_DROPS; i++)
		sample->drops[i] = wg_device_drops(context->device, (enum wg_drop)i);
}

static bool has_moved(const struct wg_stats *before, const struct wg_stats *now)
{
	return before->direct.ns != now->direct.ns || before->relayed.ns != now->relayed.ns ||
	       before->last_send_data_ns != now->last_send_data_ns || now->n_staged > 0;
}

static void take_stats(struct data_plane *plane, const struct sampled_peer *sampled)
{
	struct plane_peer *peer = plane_find_by_id(plane, sampled->id);

	if (!peer)
		return;
	bool moved = has_moved(&peer->stats, &sampled->stats);
	if (sampled->stats.has_session)
		peer->n_gone = 0;
	peer->stats = sampled->stats;
	if (!moved)
		return;
	plane->active_ns = clock_now_ns();
	/* Packets that wait for a session are traffic, too. */
	uint64_t tx_ns = sampled->stats.n_staged > 0 ? plane->active_ns : sampled->stats.last_send_data_ns;
	const struct data_plane_activity activity = { .peer_id = peer->id,
						      .rx_direct_ns = sampled->stats.direct.ns,
						      .rx_endpoint = sampled->stats.direct.path.remote,
						      .rx_relay_ns = sampled->stats.relayed.ns,
						      .rx_data_ns = sampled->stats.last_receive_data_ns,
						      .tx_data_ns = tx_ns };
	if (plane->is_attached)
		plane->ports.activity(plane->ports.owner, &activity);
}

static bool any_direct(const struct data_plane *plane)
{
	for (uint32_t i = 0; i < BUCKETS; i++)
		for (const struct plane_peer *peer = plane->by_id[i]; peer; peer = peer->next_by_id)
			if (peer->path.direct)
				return true;
	return false;
}

static void on_sample_due(uv_timer_t *timer);

static void plan_sample(struct data_plane *plane)
{
	if (plane->sample_again)
		sample_soon(plane);
	else if (clock_now_ns() - plane->active_ns < ACTIVE_NS)
		uv_timer_start(&plane->sample_timer, on_sample_due, SAMPLE_ACTIVE_MS, 0);
	else if (any_direct(plane))
		uv_timer_start(&plane->sample_timer, on_sample_due, SAMPLE_DIRECT_MS, 0);
}

static void on_sampled(void *arg)
{
	struct sample *sample = arg;
	struct data_plane *plane = sample->plane;

	plane->is_sampling = false;
	if (!plane->closed) {
		memcpy(plane->drops, sample->drops, sizeof(plane->drops));
		for (uint32_t i = 0; i < sample->n; i++)
			take_stats(plane, &sample->peers[i]);
	}
	while (sample->refreshes) {
		struct refresh *refresh = sample->refreshes;
		sample->refreshes = refresh->next;
		refresh->cb(refresh->owner);
		free(refresh);
	}
	free(sample->peers);
	free(sample);
	if (!plane->closed) {
		publish_changes(plane); /* of those that were gone */
		plan_sample(plane);
	}
}

/* A sample now, or one more as soon as the one under way has come back. */
static void sample_soon(struct data_plane *plane)
{
	if (plane->closed)
		return;
	plane->sample_again = plane->is_sampling;
	if (plane->is_sampling)
		return;
	struct sample *sample = calloc(1, sizeof(*sample));
	if (!sample)
		abort();
	sample->plane = plane;
	sample->max = plane->n_peers;
	sample->peers = calloc(sample->max + 1, sizeof(*sample->peers));
	if (!sample->peers)
		abort();
	sample->refreshes = plane->refreshes;
	plane->refreshes = NULL;
	uv_timer_stop(&plane->sample_timer);
	plane->is_sampling = true;
	if (lane_run(plane->lane, run_sample, sample, on_sampled) != 0)
		abort(); /* as in publish_changes() */
}

static void on_sample_due(uv_timer_t *timer)
{
	sample_soon(container_of(timer, struct data_plane, sample_timer));
}

void data_plane_refresh(struct data_plane *plane, void (*cb)(void *owner), void *owner)
{
	struct refresh *refresh = calloc(1, sizeof(*refresh));

	if (!refresh)
		abort();
	*refresh = (struct refresh){ .next = plane->refreshes, .cb = cb, .owner = owner };
	plane->refreshes = refresh;
	sample_soon(plane);
}

/* Something moved while nobody looked: look now. */
void plane_wake(struct data_plane *plane)
{
	if (clock_now_ns() - plane->active_ns < ACTIVE_NS)
		return;
	plane->active_ns = clock_now_ns();
	sample_soon(plane);
}

/* ---- from the lane ---- */

static void on_lane_datagram(void *owner, enum demux_kind kind, const struct wg_path *from,
			     const uint8_t *bytes, size_t len)
{
	struct data_plane *plane = owner;

	if (kind == DEMUX_UNKNOWN)
		plane->n_unknown_datagrams++;
	else if (!plane->is_attached)
		plane->n_unattached++;
	else
		plane->ports.datagram(plane->ports.owner, &from->remote, bytes, len);
}

static void on_lane_relay(void *owner, const struct wg_path *path, const struct train *train)
{
	struct data_plane *plane = owner;

	for (uint32_t i = 0; i < train->n; i++)
		if (data_plane_send_frame(plane, path->relay_id, path->peer_id, train_packet(train, i),
					  train_size(train, i)) != 0)
			plane->n_relay_dropped++;
	plane_wake(plane);
}

static void on_lane_peer(void *owner, const struct lane_peer_event *event)
{
	struct data_plane *plane = owner;

	if (event->type == WG_EVENT_SESSION)
		log_debug("wireguard", "peer=%u new session", event->peer_id);
	if (event->type == WG_EVENT_ARRIVAL || event->type == WG_EVENT_SESSION)
		plane_wake(plane);
}

static void on_tun_gone(void *owner)
{
	struct data_plane *plane = owner;

	if (!plane->closed)
		plane->options.interface_gone(plane->options.owner);
}

/* ---- the stage's side ---- */

void data_plane_attach(struct data_plane *plane, const struct data_plane_ports *ports)
{
	plane->is_attached = ports != NULL;
	if (!ports)
		return;
	plane->ports = *ports;
}

void data_plane_set_path(struct data_plane *plane, uint32_t peer_id, const struct peer_path *path)
{
	struct plane_peer *peer = plane_find_by_id(plane, peer_id);

	if (!peer)
		return;
	peer->path = *path;
	peer->is_dirty = true;
	publish_changes(plane);
	if (path->direct && !plane->is_sampling && !uv_is_active((uv_handle_t *)&plane->sample_timer))
		plan_sample(plane);
}

bool data_plane_get_path(const struct data_plane *plane, uint32_t peer_id, struct peer_path *ret)
{
	const struct plane_peer *peer = plane_find_by_id(plane, peer_id);

	if (peer)
		*ret = peer->path;
	return peer != NULL;
}

int data_plane_send_datagram(struct data_plane *plane, const struct endpoint *to, const uint8_t *bytes,
			     size_t len)
{
	uint8_t copy[MAX_DATAGRAM];
	const struct wg_path path = { .remote = *to };

	if (len > sizeof(copy))
		return -EMSGSIZE;
	memcpy(copy, bytes, len);
	const struct train train = train_of_one(copy, len);
	return udp_send(plane->udp, 0, &path, &train, NULL);
}

uint16_t data_plane_port(const struct data_plane *plane)
{
	return plane->udp->port;
}

/* ---- the Engine's side ---- */

static void forget_peer(struct data_plane *plane, struct plane_peer *peer)
{
	plane->removed = realloc(plane->removed, (plane->n_removed + 1) * sizeof(*plane->removed));
	if (!plane->removed)
		abort();
	plane->removed[plane->n_removed++] = peer->key;
	free_peer(plane, peer);
}

static void forget_absent(struct data_plane *plane)
{
	for (uint32_t i = 0; i < BUCKETS; i++) {
		struct plane_peer *next;
		for (struct plane_peer *peer = plane->by_id[i]; peer; peer = next) {
			next = peer->next_by_id;
			if (!peer->in_map)
				forget_peer(plane, peer);
			else
				peer->in_map = false; /* for the next time */
		}
	}
}

static void take_peer(struct data_plane *plane, const struct map_peer *record)
{
	struct plane_peer *peer = plane_find_by_id(plane, record->id);

	if (peer && !public_key_equal(&peer->key, &record->node_key)) {
		forget_peer(plane, peer);
		peer = NULL;
	}
	if (!peer)
		peer = add_peer(plane, record);
	if (peer->ip4.s_addr != record->ip4.s_addr || memcmp(&peer->ip6, &record->ip6, sizeof(peer->ip6)) != 0)
		peer->is_new = true;
	if (!public_key_equal(&peer->session_key, &record->session_key))
		peer->is_reborn = !peer->is_new && !public_key_is_zero(&peer->session_key);
	peer->session_key = record->session_key;
	peer->ip4 = record->ip4;
	peer->ip6 = record->ip6;
	peer->home_relay = record->home_relay;
	memcpy(peer->name, record->name, sizeof(peer->name));
	peer->in_map = true;
}

void data_plane_apply_map(struct data_plane *plane, const struct map *map)
{
	for (uint32_t i = 0; i < map->n_peers; i++)
		take_peer(plane, &map->peers[i]);
	forget_absent(plane);
	plane->n_known_relays = map->n_relays < MAP_MAX_RELAYS ? map->n_relays : MAP_MAX_RELAYS;
	if (map->n_relays > 0)
		memcpy(plane->known_relays, map->relays, plane->n_known_relays * sizeof(*map->relays));
	for (struct plane_relay *relay = plane->relays, *next; relay; relay = next) {
		next = relay->next;
		if (!map_find_relay(map, relay->relay.id))
			plane_close_relay(relay);
	}
	publish_changes(plane);
}

void data_plane_set_relay_context(struct data_plane *plane, SSL_CTX *context)
{
	SSL_CTX_up_ref(context);
	SSL_CTX_free(plane->options.relay_context);
	plane->options.relay_context = context;
	for (struct plane_relay *relay = plane->relays; relay; relay = relay->next)
		relay_connection_set_context(relay->connection, context);
}

/* Lane thread. */
static void run_forget_sources(const struct lane_context *context, void *arg)
{
	wg_device_forget_sources(context->device);
}

void data_plane_link_changed(struct data_plane *plane)
{
	if (lane_run(plane->lane, run_forget_sources, NULL, NULL) != 0)
		log_warning("wireguard", "busy: source addresses are kept");
	for (struct plane_relay *relay = plane->relays; relay; relay = relay->next)
		relay_connection_poke(relay->connection);
}

bool data_plane_last_arrival(const struct data_plane *plane, uint32_t peer_id, struct endpoint *ret_direct,
			     bool *ret_by_relay)
{
	const struct plane_peer *peer = plane_find_by_id(plane, peer_id);

	if (!peer || (peer->stats.direct.ns == 0 && peer->stats.relayed.ns == 0))
		return false;
	*ret_by_relay = peer->stats.relayed.ns > peer->stats.direct.ns;
	*ret_direct = peer->stats.direct.path.remote;
	return true;
}

/* ---- status ---- */

static int64_t age_ms(uint64_t then_ns, uint64_t now)
{
	return then_ns == 0 ? NODE_STATUS_UNKNOWN : now > then_ns ? (int64_t)((now - then_ns) / 1000000) : 0;
}

static enum node_path_kind path_kind(const struct peer_path *path)
{
	if (path->direct)
		return path->relay ? NODE_PATH_BOTH : NODE_PATH_DIRECT;
	return path->relay ? NODE_PATH_RELAY : NODE_PATH_NONE;
}

static void fill_peer(const struct data_plane *plane, const struct plane_peer *peer, struct node_status_peer *ret)
{
	uint64_t now = clock_now_ns();
	uint64_t heard = peer->stats.direct.ns > peer->stats.relayed.ns ? peer->stats.direct.ns
									: peer->stats.relayed.ns;

	ret->id = peer->id;
	memcpy(ret->name, peer->name, sizeof(ret->name));
	ret->node_key = peer->key;
	ret->ip4 = peer->ip4;
	ret->ip6 = peer->ip6;
	ret->path = path_kind(&peer->path);
	if (peer->path.direct)
		ret->endpoint = peer->path.endpoint;
	if (peer->path.relay)
		snprintf(ret->relay, sizeof(ret->relay), "%s",
			 plane_relay_name(plane, plane_resolve_relay(plane, peer, RELAY_ANY)));
	ret->handshake_ms = age_ms(peer->stats.last_handshake_ns, now);
	ret->packet_ms = age_ms(heard, now);
	ret->rx_bytes = peer->stats.rx_bytes;
	ret->tx_bytes = peer->stats.tx_bytes;
}

static void fill_drops(const struct data_plane *plane, struct node_status *status)
{
	struct lane_counters lane;
	char name[48];

	lane_get_counters(plane->lane, &lane);
	for (int i = 0; i < WG_N_DROPS; i++) {
		snprintf(name, sizeof(name), "wireguard %s", wg_drop_name((enum wg_drop)i));
		node_status_add_drop(status, name, plane->drops[i]);
	}
	node_status_add_drop(status, "datagram unknown", plane->n_unknown_datagrams);
	node_status_add_drop(status, "frame of unknown sender", plane->n_unknown_senders);
	node_status_add_drop(status, "no session", plane->n_unattached);
	node_status_add_drop(status, "relay queue full", plane->n_relay_dropped);
	node_status_add_drop(status, "lane events full", lane.n_events_dropped);
	node_status_add_drop(status, "lane relayed full", lane.n_relayed_dropped);
	node_status_add_drop(status, "lane sends refused", lane.n_sends_dropped);
}

void data_plane_fill_status(const struct data_plane *plane, struct node_status *status)
{
	snprintf(status->interface, sizeof(status->interface), "%s", plane->interface);
	status->mtu = plane->options.mtu;
	for (uint32_t i = 0; i < BUCKETS; i++)
		for (const struct plane_peer *peer = plane->by_id[i]; peer; peer = peer->next_by_id)
			fill_peer(plane, peer, node_status_add_peer(status));
	fill_drops(plane, status);
}

/* ---- life ---- */

static struct link_prefix prefix_of(int family, const void *ip, uint8_t len)
{
	struct link_prefix prefix = { .family = family, .len = len };

	memcpy(prefix.ip, ip, family == AF_INET ? 4 : 16);
	return prefix;
}

static int set_up_interface(const struct tun *tun, const struct data_plane_options *options,
			    struct error *reterr)
{
	const struct membership *member = options->membership;
	const struct link_prefix ip4 = prefix_of(AF_INET, &member->ip4, member->prefix4_len);
	const struct link_prefix ip6 = prefix_of(AF_INET6, &member->ip6, member->prefix6_len);
	int r;

	if ((r = link_set_mtu(tun->ifindex, options->mtu, reterr)) != 0 ||
	    (r = link_add_address(tun->ifindex, &ip4, reterr)) != 0 ||
	    (r = link_set_up(tun->ifindex, true, reterr)) != 0)
		return r;
	struct error error;
	if (link_add_address(tun->ifindex, &ip6, &error) != 0)
		log_warning("node", "no IPv6 in the overlay: %s", error.message);
	return 0;
}

struct identity_command {
	struct secret_key key;
};

/* Lane thread. */
static void run_set_key(const struct lane_context *context, void *arg)
{
	struct identity_command *command = arg;

	wg_device_set_private_key(context->device, &command->key);
}

static void on_key_set(void *arg)
{
	struct identity_command *command = arg;

	secret_key_wipe(&command->key);
	free(command);
}

static int start_lane(struct data_plane *plane, const struct tun *tun_take, struct error *reterr)
{
	const struct lane_config config = {
		.loop = plane->options.loop,
		.tun_take = *tun_take,
		.udp = plane->udp,
		.mtu = plane->options.mtu,
		.ports = { .owner = plane,
			   .datagram = on_lane_datagram,
			   .relay = on_lane_relay,
			   .peer = on_lane_peer,
			   .tun_gone = on_tun_gone },
	};
	int r = lane_start(&config, &plane->lane, reterr);
	if (r != 0)
		return r;

	struct identity_command *command = malloc(sizeof(*command));
	if (!command)
		abort();
	command->key = *plane->options.node_key;
	if (lane_run(plane->lane, run_set_key, command, on_key_set) != 0)
		abort(); /* the first command of all */
	return 0;
}

int data_plane_new(const struct data_plane_options *options, struct data_plane **ret, struct error *reterr)
{
	const struct udp_options udp_options = { .port = options->port, .any_port_if_taken = true };
	struct tun tun = TUN_NONE;
	struct data_plane *plane = calloc(1, sizeof(*plane));
	int r;

	if (!plane)
		return error_set(reterr, -ENOMEM, "out of memory");
	plane->options = *options;
	snprintf(plane->interface, sizeof(plane->interface), "%s", options->interface);
	if ((r = udp_open(&udp_options, &plane->udp, reterr)) != 0 ||
	    (r = tun_open(options->interface, &(struct tun_options){ 0 }, &tun, reterr)) != 0 ||
	    (r = set_up_interface(&tun, options, reterr)) != 0 || (r = start_lane(plane, &tun, reterr)) != 0) {
		tun_close(&tun);
		udp_free(plane->udp);
		free(plane);
		return r;
	}
	SSL_CTX_up_ref(plane->options.relay_context);
	uv_timer_init(options->loop, &plane->sample_timer);
	plane->options.node_key = NULL; /* borrowed: gone after this call */
	plane->options.membership = NULL;
	*ret = plane;
	return 0;
}

void plane_part_closed(void *owner)
{
	struct data_plane *plane = owner;

	if (--plane->n_open > 0 || !plane->closed)
		return;
	void (*closed)(void *) = plane->closed;
	void *closed_owner = plane->closed_owner;
	for (uint32_t i = 0; i < BUCKETS; i++)
		while (plane->by_id[i])
			free_peer(plane, plane->by_id[i]);
	free(plane->removed);
	udp_free(plane->udp);
	SSL_CTX_free(plane->options.relay_context);
	free(plane);
	closed(closed_owner);
}

static void on_timer_closed(uv_handle_t *handle)
{
	plane_part_closed(container_of((uv_timer_t *)handle, struct data_plane, sample_timer));
}

void data_plane_close(struct data_plane *plane, void (*closed)(void *owner), void *owner)
{
	assert(!plane->closed);
	plane->is_attached = false;
	plane->closed = closed;
	plane->closed_owner = owner;
	plane->n_open += 2;
	while (plane->refreshes) {
		struct refresh *refresh = plane->refreshes;
		plane->refreshes = refresh->next;
		refresh->cb(refresh->owner);
		free(refresh);
	}
	while (plane->relays)
		plane_close_relay(plane->relays);
	uv_close((uv_handle_t *)&plane->sample_timer, on_timer_closed);
	lane_stop(plane->lane, plane_part_closed, plane);
}
