/*
 * The data plane: what stands between WireGuard and the loop.
 *
 *   map, paths ──► struct plane_peer ──► one change at a time ──► WireGuard (wireguard_host.h)
 *   WireGuard ── relay(train) ──► plane_relay ──► relay connection
 *   relay connection ── packet ──► WireGuard? ──► the host, else ──► the attached stage
 *   WireGuard ── sample (every 50 ms while packets flow) ──► activity of each peer ──► the attached stage
 *
 * Changes are collected while one is under way, so that no queue of theirs fills.
 */
#include "node/data_plane_internal.h"

#include "actors/session_manager/session_wire.h"
#include "actors/traffic_manager/path_mtu_fsm.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/relay_wire.h"
#include "node/wireguard/lanes.h"
#include "node/wireguard/udp.h"

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
/* inside: a probe must be as long as the packet, which is padded to 16 bytes */
#define MTU_MAX		 ((SESSION_MAX_PROBE_LEN - WG_OVERHEAD) & ~15)
#define RELAYED_MTU	 1392 /* inside: 1500 - 40 - 8, the relay's header, WireGuard's, in steps of 16 */
#define CHECKS_BURST	 8    /* of our relays, because somebody says so: more than control lets through … */
#define CHECKS_EACH_MS	 5000 /* … also in the long run */

static void sample_soon(struct data_plane *plane);

/* ---- peers: found by id (the stage) and by key (relay frames) ---- */

static struct plane_peer **id_bucket(const struct data_plane *plane, uint32_t id)
{
	return &plane->by_id[id & (plane->n_buckets - 1)];
}

static struct plane_peer **key_bucket(const struct data_plane *plane, const struct public_key *key)
{
	uint32_t hash;

	memcpy(&hash, key->bytes, sizeof(hash)); /* keys of members: control signed them */
	return &plane->by_key[hash & (plane->n_buckets - 1)];
}

static struct plane_peer **new_buckets(uint32_t n)
{
	struct plane_peer **buckets = calloc(n, sizeof(struct plane_peer *));

	if (!buckets)
		abort();
	return buckets;
}

static void link_peer(struct data_plane *plane, struct plane_peer *peer)
{
	peer->next_by_id = *id_bucket(plane, peer->id);
	peer->next_by_key = *key_bucket(plane, &peer->key);
	*id_bucket(plane, peer->id) = peer;
	*key_bucket(plane, &peer->key) = peer;
}

/* Chains stay short, however many members there are. */
static void make_room(struct data_plane *plane)
{
	struct plane_peer **before = plane->by_id;
	const uint32_t n_before = plane->n_buckets;

	if (plane->n_peers < n_before)
		return;
	free(plane->by_key);
	plane->n_buckets = n_before == 0 ? MIN_BUCKETS : 2 * n_before;
	plane->by_id = new_buckets(plane->n_buckets);
	plane->by_key = new_buckets(plane->n_buckets);
	for (uint32_t i = 0; i < n_before; i++)
		for (struct plane_peer *peer = before[i], *next; peer; peer = next) {
			next = peer->next_by_id;
			link_peer(plane, peer);
		}
	free(before);
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
				     .is_new = true };
	make_room(plane);
	link_peer(plane, peer);
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

/* ---- MTU ---- */

/* What the first link takes, of at most `most`; header: what stands before each datagram. */
static uint32_t first_mtu(const struct endpoint *to, uint32_t header, uint32_t most)
{
	/* IP and UDP, and what WireGuard puts around a packet, which it pads. */
	const uint32_t around = (endpoint_is_v4(to) ? 20u : 40u) + 8 + header + WG_OVERHEAD;
	const uint32_t link = udp_first_mtu(to);

	if (link == 0 || link >= most + around)
		return most;
	const uint32_t fits = (link - around) & ~15u;
	return link > around && fits > PATH_MTU_MIN ? fits : PATH_MTU_MIN;
}

/* ---- changes: to WireGuard ---- */

static void publish_changes(struct data_plane *plane);

void plane_publish(struct data_plane *plane)
{
	publish_changes(plane);
}

static void on_changed(struct wireguard_change *change)
{
	struct data_plane *plane = change->owner;

	free(change->removed);
	free(change->peers);
	free(change);
	plane->is_changing = false;
	if (!plane->closed)
		publish_changes(plane);
}

/*
 * By relay, before it was asked how much passes: what fits into 1500 bytes does, as a rule, whatever the family; less
 * when our own link to the relay takes less.
 */
static uint32_t relayed_mtu(const struct data_plane *plane, const struct plane_peer *peer)
{
	const struct endpoint *relay = &peer->way.remote;
	const uint32_t most = plane->options.mtu < RELAYED_MTU ? plane->options.mtu : RELAYED_MTU;

	return relay->port == 0 ? most : first_mtu(relay, WG_RELAY_HEADER_LEN, most);
}

/*
 * Of the direct path, as long as there is one: it may be in doubt for moments only, and what is refused meanwhile as
 * too large for the relay the senders would remember for minutes.
 */
static uint32_t mtu_of(const struct data_plane *plane, const struct plane_peer *peer)
{
	if (plane->options.wireguard != WIREGUARD_IN_PROCESS)
		return peer->mtu; /* a route each: only of those that are in use */
	return peer->path.relay && !peer->path.direct && peer->mtu == 0 ? relayed_mtu(plane, peer) : peer->mtu;
}

static struct wireguard_change *collect_changes(struct data_plane *plane)
{
	struct wireguard_change *change = calloc(1, sizeof(*change));

	if (!change)
		abort();
	*change = (struct wireguard_change){
		.removed = plane->removed, .n_removed = plane->n_removed, .done = on_changed, .owner = plane
	};
	plane->removed = NULL;
	plane->n_removed = 0;
	change->peers = calloc(plane->n_peers + 1, sizeof(*change->peers));
	if (!change->peers)
		abort();
	for (uint32_t i = 0; i < plane->n_buckets; i++) {
		for (struct plane_peer *peer = plane->by_id[i]; peer; peer = peer->next_by_id) {
			if (!peer->is_new && !peer->is_dirty && !peer->is_reborn && !peer->is_gone)
				continue;
			change->peers[change->n_peers++] =
				(struct wireguard_peer_change){ .key = peer->key,
								.id = peer->id,
								.is_new = peer->is_new,
								.is_reborn = peer->is_reborn,
								.is_gone = peer->is_gone,
								.ip4 = peer->ip4,
								.ip6 = peer->ip6,
								.path = peer->path,
								.mtu = mtu_of(plane, peer),
								.relay_way = peer->way };
			peer->is_new = peer->is_dirty = peer->is_reborn = peer->is_gone = false;
		}
	}
	return change;
}

static void publish_changes(struct data_plane *plane)
{
	if (plane->is_changing)
		return;
	struct wireguard_change *change = collect_changes(plane);
	if (change->n_peers == 0 && change->n_removed == 0) {
		free(change->peers);
		free(change);
		return;
	}
	plane->is_changing = true;
	plane->host->class->change(plane->host, change);
}

/* ---- samples: from WireGuard ---- */

struct refresh {
	struct refresh *next;
	void (*cb)(void *owner);
	void *owner;
};

static bool has_moved(const struct wg_stats *before, const struct wg_stats *now)
{
	return before->direct.ns != now->direct.ns || before->relayed.ns != now->relayed.ns ||
	       before->last_send_data_ns != now->last_send_data_ns || now->n_staged > 0;
}

static void take_stats(struct data_plane *plane, const struct wireguard_peer_sample *sampled)
{
	struct plane_peer *peer = plane_find_by_id(plane, sampled->id);

	if (!peer)
		return;
	const struct wg_stats before = peer->stats;
	bool moved = has_moved(&before, &sampled->stats);
	if (sampled->stats.has_session)
		peer->n_gone = 0;
	peer->stats = sampled->stats;
	plane_reach_sampled(plane, peer, &before);
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
						      .tx_data_ns = tx_ns,
						      .rx_bytes = sampled->stats.rx_bytes - before.rx_bytes,
						      .tx_bytes = sampled->stats.tx_bytes - before.tx_bytes };
	if (plane->is_attached)
		plane->ports.activity(plane->ports.owner, &activity);
}

static bool any_direct(const struct data_plane *plane)
{
	for (uint32_t i = 0; i < plane->n_buckets; i++)
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

/* Whoever asked while this one was under way waits for the next. */
static void answer_refreshes(struct refresh *refreshes)
{
	while (refreshes) {
		struct refresh *refresh = refreshes;
		refreshes = refresh->next;
		refresh->cb(refresh->owner);
		free(refresh);
	}
}

static void on_sampled(struct wireguard_sample *sample)
{
	struct data_plane *plane = sample->owner;
	struct refresh *refreshes = plane->answered;

	plane->is_sampling = false;
	plane->answered = NULL;
	for (uint32_t i = 0; i < sample->n && !plane->closed; i++)
		take_stats(plane, &sample->peers[i]);
	free(sample->peers);
	free(sample);
	answer_refreshes(refreshes);
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
	struct wireguard_sample *sample = calloc(1, sizeof(*sample));
	if (!sample)
		abort();
	*sample = (struct wireguard_sample){ .max = plane->n_peers, .done = on_sampled, .owner = plane };
	sample->peers = calloc(sample->max + 1, sizeof(*sample->peers));
	if (!sample->peers)
		abort();
	plane->answered = plane->refreshes;
	plane->refreshes = NULL;
	uv_timer_stop(&plane->sample_timer);
	plane->is_sampling = true;
	plane->host->class->sample(plane->host, sample);
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

/* ---- from WireGuard ---- */

static void on_host_datagram(void *owner, enum demux_kind kind, const struct endpoint *from, const uint8_t *bytes,
			     size_t len)
{
	struct data_plane *plane = owner;

	if (kind == DEMUX_UNKNOWN)
		plane->n_unknown_datagrams++;
	else if (kind == DEMUX_RELAY)
		plane_relay_udp_take(plane, from, bytes, len);
	else if (!plane->is_attached)
		plane->n_unattached++;
	else
		plane->ports.datagram(plane->ports.owner, from, bytes, len);
}

static void on_host_relay(void *owner, uint32_t relay_id, uint32_t peer_id, const struct train *train)
{
	struct data_plane *plane = owner;

	struct plane_peer *peer = plane_find_by_id(plane, peer_id);
	if (!peer || plane_send_relayed(plane, peer, relay_id, train) != 0)
		plane->n_relay_dropped += train->n;
	plane_wake(plane);
}

static void on_host_moved(void *owner)
{
	plane_wake(owner);
}

static void on_host_gone(void *owner)
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

/* Are they still there, and are we where they think? */
static void poke_relays(struct data_plane *plane)
{
	for (struct plane_relay *relay = plane->relays; relay; relay = relay->next) {
		plane_relay_udp_input(relay, &(struct relay_udp_input){ .type = RELAY_UDP_IN_POKE });
		if (relay->connection)
			relay_connection_poke(relay->connection);
	}
}

/*
 * Unlike after a change of the network, what is lost is known to be, and being mended: only what seems to be well is asked.
 */
void data_plane_check_relays(struct data_plane *plane)
{
	if (!token_bucket_take(&plane->checks, clock_now_ns() / 1000000, CHECKS_BURST, CHECKS_EACH_MS))
		return;
	for (struct plane_relay *relay = plane->relays; relay; relay = relay->next) {
		plane_relay_udp_input(relay, &(struct relay_udp_input){ .type = RELAY_UDP_IN_VERIFY });
		if (relay->connection && relay_connection_state(relay->connection) == RELAY_CONNECTION_READY)
			relay_connection_poke(relay->connection);
	}
}

void data_plane_set_path(struct data_plane *plane, uint32_t peer_id, const struct peer_path *path)
{
	struct plane_peer *peer = plane_find_by_id(plane, peer_id);

	if (!peer)
		return;
	const bool needs_relay = path->relay && peer->path.direct && !peer->path.relay;
	peer->path = *path;
	peer->is_dirty = true;
	publish_changes(plane);
	/* What cut the direct path may have cut the relays': we are reached by them, and may have nothing to send. */
	if (needs_relay)
		poke_relays(plane);
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

void data_plane_heard(struct data_plane *plane, uint32_t peer_id, const struct endpoint *from)
{
	if (plane->host->class->heard)
		plane->host->class->heard(plane->host, peer_id, from);
}

int data_plane_wireguard_port(const struct data_plane *plane, const struct endpoint *observed)
{
	if (!plane->host->class->port)
		return 0;
	return plane->host->class->port(plane->host, observed);
}

void data_plane_told_wireguard(struct data_plane *plane, uint32_t peer_id, const struct endpoint *at)
{
	plane->host->class->told(plane->host, peer_id, at);
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
	/* Lanes send no session messages: all that leave come by here. */
	if (plane->options.pinged && demux_datagram(bytes, len) == DEMUX_SESSION)
		plane->options.pinged(plane->options.owner, to);
	return udp_send(plane->udp, 0, &path, &train, NULL);
}

int data_plane_send_probe(struct data_plane *plane, const struct endpoint *to, const uint8_t *bytes, size_t len)
{
	return udp_send_whole(plane->udp, to, bytes, len);
}

uint32_t data_plane_first_mtu(const struct data_plane *plane, const struct endpoint *to)
{
	return first_mtu(to, 0, plane->options.mtu < MTU_MAX ? plane->options.mtu : MTU_MAX);
}

/* Over TLS every size goes, up to a frame's bound, which is beyond the interface's. */
uint32_t data_plane_first_relayed_mtu(const struct data_plane *plane, const struct relay_way *way)
{
	const uint32_t most = plane->options.mtu < MTU_MAX ? plane->options.mtu : MTU_MAX;

	static_assert(MTU_MAX + WG_OVERHEAD <= RELAY_MAX_PACKET, "a frame has room for any packet");
	return way->remote.port == 0 ? most : first_mtu(&way->remote, WG_RELAY_HEADER_LEN, most);
}

void data_plane_set_mtu(struct data_plane *plane, uint32_t peer_id, uint32_t mtu)
{
	struct plane_peer *peer = plane_find_by_id(plane, peer_id);

	if (!peer || peer->mtu == mtu)
		return;
	log_info("traffic", "peer=%s mtu=%u", peer->name, mtu);
	peer->mtu = mtu;
	peer->is_dirty = true;
	publish_changes(plane);
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
	for (uint32_t i = 0; i < plane->n_buckets; i++) {
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
	peer->has_moved_home = peer->home_relay != record->home_relay;
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
	for (uint32_t i = 0; i < map->n_peers; i++) {
		struct plane_peer *peer = plane_find_by_id(plane, map->peers[i].id);
		if (peer && peer->has_moved_home)
			plane_reach_peer_changed(plane, peer);
	}
	publish_changes(plane);
}

void data_plane_set_relay_context(struct data_plane *plane, SSL_CTX *context)
{
	SSL_CTX_up_ref(context);
	SSL_CTX_free(plane->options.relay_context);
	plane->options.relay_context = context;
	for (struct plane_relay *relay = plane->relays; relay; relay = relay->next)
		if (relay->connection)
			relay_connection_set_context(relay->connection, context);
}

void data_plane_forget_sources(struct data_plane *plane)
{
	plane->host->class->link_changed(plane->host);
}

void data_plane_link_changed(struct data_plane *plane)
{
	udp_routes_changed(plane->udp);
	plane->host->class->link_changed(plane->host);
	for (struct plane_relay *relay = plane->relays; relay; relay = relay->next)
		relay_choice_forgive(&relay->choice);
	poke_relays(plane);
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
	ret->mtu = peer->mtu;
	if (peer->path.direct)
		ret->endpoint = peer->path.endpoint;
	if (peer->path.relay)
		snprintf(ret->relay, sizeof(ret->relay), "%s",
			 plane_relay_name(plane, plane_reach_id(plane, peer)));
	ret->handshake_ms = age_ms(peer->stats.last_handshake_ns, now);
	ret->packet_ms = age_ms(heard, now);
	ret->rx_bytes = peer->stats.rx_bytes;
	ret->tx_bytes = peer->stats.tx_bytes;
}

static void fill_drops(const struct data_plane *plane, struct node_status *status)
{
	const struct udp_counters *udp = &plane->udp->counters;

	plane->host->class->fill_drops(plane->host, status);
	node_status_add_drop(status, "udp: not sent", udp->n_lost);
	node_status_add_drop(status, "udp: receive queue full", udp->n_kernel_drops);
	node_status_add_drop(status, "udp: truncated", udp->n_truncated);
	node_status_add_drop(status, "datagram unknown", plane->n_unknown_datagrams);
	node_status_add_drop(status, "frame of unknown sender", plane->n_unknown_senders);
	node_status_add_drop(status, "no session", plane->n_unattached);
	node_status_add_drop(status, "relay queue full", plane->n_relay_dropped);
	node_status_add_drop(status, "relay: peer not found", plane->n_not_reached);
}

static void fill_offloads(const struct data_plane *plane, struct node_status *status)
{
	for (int kind = 0; kind < OFFLOAD_N_KINDS; kind++) {
		struct offload_report report = offloads_report(&plane->offloads, (enum offload_kind)kind);
		struct node_status_offload *told = node_status_add_offload(status);
		snprintf(told->name, sizeof(told->name), "%s", report.name);
		snprintf(told->state, sizeof(told->state), "%s", report.state);
		snprintf(told->error, sizeof(told->error), "%s", report.error);
		told->used = report.n_used;
		told->refused = report.n_refused;
		told->fell_back = report.n_fell_back;
	}
}

void data_plane_fill_status(const struct data_plane *plane, struct node_status *status)
{
	snprintf(status->interface, sizeof(status->interface), "%s", plane->interface);
	status->mtu = plane->options.mtu;
	for (uint32_t i = 0; i < plane->n_buckets; i++)
		for (const struct plane_peer *peer = plane->by_id[i]; peer; peer = peer->next_by_id)
			fill_peer(plane, peer, node_status_add_peer(status));
	fill_offloads(plane, status);
	fill_drops(plane, status);
}

/* ---- life ---- */

static int start_host(struct data_plane *plane, struct error *reterr)
{
	static const struct wireguard_host_class *const classes[WIREGUARD_N_KINDS] = {
		[WIREGUARD_IN_PROCESS] = &wireguard_in_process,
		[WIREGUARD_KERNEL] = &wireguard_kernel,
		[WIREGUARD_UAPI] = &wireguard_uapi,
	};
	const struct wireguard_host_options options = {
		.loop = plane->options.loop,
		.interface = plane->options.interface,
		.mtu = plane->options.mtu,
		.udp = plane->udp,
		.offloads = &plane->offloads,
		.n_lanes = plane->options.n_lanes,
		.node_key = plane->options.node_key,
		.membership = plane->options.membership,
		.ports = { .owner = plane,
			   .datagram = on_host_datagram,
			   .relay = on_host_relay,
			   .moved = on_host_moved,
			   .gone = on_host_gone },
	};

	return classes[plane->options.wireguard]->start(&options, &plane->host, reterr);
}

int data_plane_new(const struct data_plane_options *options, struct data_plane **ret, struct error *reterr)
{
	struct data_plane *plane = calloc(1, sizeof(*plane));
	int r;

	if (!plane)
		return error_set(reterr, -ENOMEM, "out of memory");
	const struct udp_options udp_options = {
		.port = options->port,
		.any_port_if_taken = true,
		.offloads = &plane->offloads,
		.n_shards = options->wireguard == WIREGUARD_IN_PROCESS ? lanes_n_shards(options->n_lanes) : 1,
	};
	plane->options = *options;
	make_room(plane);
	plane->offloads.switches = options->offloads;
	snprintf(plane->interface, sizeof(plane->interface), "%s", options->interface);
	if ((r = udp_open(&udp_options, &plane->udp, reterr)) != 0 || (r = start_host(plane, reterr)) != 0) {
		udp_free(plane->udp);
		free(plane->by_id);
		free(plane->by_key);
		free(plane);
		return r;
	}
	SSL_CTX_up_ref(plane->options.relay_context);
	uv_timer_init(options->loop, &plane->sample_timer);
	uv_timer_init(options->loop, &plane->seek_timer);
	plane->node_key = *options->node_key; /* relays over UDP want to see a proof of it */
	secret_key_public(&plane->node_key, &plane->node_key_public);
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
	for (uint32_t i = 0; i < plane->n_buckets; i++)
		while (plane->by_id[i])
			free_peer(plane, plane->by_id[i]);
	free(plane->by_id);
	free(plane->by_key);
	free(plane->removed);
	udp_free(plane->udp);
	SSL_CTX_free(plane->options.relay_context);
	secret_key_wipe(&plane->node_key);
	free(plane);
	closed(closed_owner);
}

static void on_sample_timer_closed(uv_handle_t *handle)
{
	plane_part_closed(container_of((uv_timer_t *)handle, struct data_plane, sample_timer));
}

static void on_seek_timer_closed(uv_handle_t *handle)
{
	plane_part_closed(container_of((uv_timer_t *)handle, struct data_plane, seek_timer));
}

void data_plane_close(struct data_plane *plane, void (*closed)(void *owner), void *owner)
{
	assert(!plane->closed);
	plane->is_attached = false;
	plane->closed = closed;
	plane->closed_owner = owner;
	plane->n_open += 3;
	answer_refreshes(plane->refreshes);
	plane->refreshes = NULL;
	while (plane->relays)
		plane_close_relay(plane->relays);
	plane_reach_close(plane);
	uv_close((uv_handle_t *)&plane->sample_timer, on_sample_timer_closed);
	uv_close((uv_handle_t *)&plane->seek_timer, on_seek_timer_closed);
	plane->host->class->stop(plane->host, plane_part_closed, plane);
}
