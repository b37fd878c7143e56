/*
 * The device as its owner configures it: identity, peers, routes, prefixes, statistics. Packets are
 * in send.c and receive.c.
 */
#include "node/wireguard/device_internal.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_N_STAGED              2048
#define DEFAULT_HANDSHAKES_PER_SECOND 500

static const char *const drop_names[] = {
	[WG_DROP_MALFORMED] = "malformed",
	[WG_DROP_NO_PRIVATE_KEY] = "no_private_key",
	[WG_DROP_MAC1] = "mac1",
	[WG_DROP_COOKIE_REQUIRED] = "cookie_required",
	[WG_DROP_RATE_LIMITED] = "rate_limited",
	[WG_DROP_UNKNOWN_INDEX] = "unknown_index",
	[WG_DROP_UNKNOWN_PEER] = "unknown_peer",
	[WG_DROP_HANDSHAKE] = "handshake",
	[WG_DROP_TIMESTAMP] = "timestamp",
	[WG_DROP_FLOOD] = "flood",
	[WG_DROP_COOKIE_REPLY] = "cookie_reply",
	[WG_DROP_EXPIRED_KEY] = "expired_key",
	[WG_DROP_FORGED] = "forged",
	[WG_DROP_REPLAY] = "replay",
	[WG_DROP_NOT_IP] = "not_ip",
	[WG_DROP_SOURCE_IP] = "source_ip",
	[WG_DROP_HANDSHAKE_QUEUE] = "handshake_queue",
	[WG_DROP_CONGESTION] = "congestion",
	[WG_DROP_OUT_NOT_IP] = "out_not_ip",
	[WG_DROP_OUT_NO_PEER] = "out_no_peer",
	[WG_DROP_OUT_MTU] = "out_mtu",
	[WG_DROP_OUT_TOO_BIG] = "out_too_big",
	[WG_DROP_OUT_STAGED] = "out_staged",
	[WG_DROP_OUT_QUEUE] = "out_queue",
	[WG_DROP_OUT_NO_PATH] = "out_no_path",
	[WG_DROP_INTERNAL] = "internal",
};
static_assert(ARRAY_LEN(drop_names) == WG_N_DROPS, "a name for every drop");

/* ---- small things ---- */

bool wg_path_equal(const struct wg_path *a, const struct wg_path *b)
{
	if (a->relay_id != 0 || b->relay_id != 0)
		return a->relay_id == b->relay_id && a->peer_id == b->peer_id;
	return endpoint_equal(&a->remote, &b->remote);
}

const char *wg_drop_name(enum wg_drop drop)
{
	return drop_names[drop];
}

void wg_device_random(struct wg_device *device, void *ret, size_t n)
{
	if (device->ports.random)
		device->ports.random(device->ports.owner, ret, n);
	else
		randombytes_buf(ret, n);
}

uint64_t wg_device_hash(const struct wg_device *device, const void *data, size_t n)
{
	uint64_t hash;

	static_assert(sizeof(hash) == crypto_shorthash_BYTES, "64 bits");
	crypto_shorthash((unsigned char *)&hash, data, n, device->hash_key);
	return hash;
}

void wg_peer_reschedule(struct wg_peer *peer)
{
	wg_schedule_earlier(&peer->device->schedule, &peer->schedule,
			    wg_timers_next(&peer->timers));
}

void wg_peer_tell(struct wg_peer *peer, enum wg_event_type type, const struct wg_path *path)
{
	const struct wg_ports *ports = &peer->device->ports;
	const struct wg_event event = { .type = type, .path = path };

	if (ports->event)
		ports->event(ports->owner, peer, &event);
}

/* ---- lanes ---- */

int wg_lane_new(struct wg_device *device, const struct wg_lane_ports *ports, struct wg_reader *reader,
		struct wg_lane **ret)
{
	struct wg_lane *lane = calloc(1, sizeof(*lane));

	if (!lane)
		return -ENOMEM;
	*lane = (struct wg_lane){ .device = device,
				  .ports = *ports,
				  .reader = reader,
				  .mtu = device->mtu,
				  .shard = WG_ANY_SHARD };
	int r = wg_aead_init(&lane->aead, &device->local.crypto, wg_aead_all_lanes);
	if (r != 0) {
		free(lane);
		return r;
	}
	lane->next = device->lanes;
	device->lanes = lane;
	*ret = lane;
	return 0;
}

void wg_lane_free(struct wg_lane *lane)
{
	if (!lane)
		return;
	struct wg_device *device = lane->device;
	struct wg_lane **link = &device->lanes;

	while (*link != lane)
		link = &(*link)->next;
	*link = lane->next;
	for (int i = 0; i < WG_N_DROPS; i++)
		device->drops[i] += lane->drops[i];
	if (lane->reader)
		wg_readers_remove(&device->readers, lane->reader);
	wg_aead_deinit(&lane->aead);
	free(lane);
}

void wg_lane_set_shard(struct wg_lane *lane, uint32_t shard)
{
	lane->shard = shard;
}

void wg_lane_set_mtu(struct wg_lane *lane, uint32_t mtu)
{
	lane->mtu = mtu != 0 ? mtu : WG_DEFAULT_MTU;
}

uint64_t wg_lane_drops(const struct wg_lane *lane, enum wg_drop drop)
{
	return atomic_load_explicit(&lane->drops[drop], memory_order_relaxed);
}

struct wg_readers *wg_device_readers(struct wg_device *device)
{
	return &device->readers;
}

bool wg_device_reclaim(struct wg_device *device, uint64_t passed, struct wg_time now)
{
	if (!device->readers.first)
		return false;
	/* What is freed now may be noted, by a lane that has passed on since. */
	wg_device_collect(device, now);
	return wg_readers_collect(&device->readers, passed);
}

/* ---- the device's own lane: all on one thread ---- */

static void transmit_own(void *owner, struct wg_peer *peer, const struct wg_path *path,
			 const struct train *train)
{
	const struct wg_ports *ports = &((struct wg_device *)owner)->ports;

	ports->transmit(ports->owner, peer, path, train);
}

static void deliver_own(void *owner, struct wg_peer *peer, const struct train *train)
{
	const struct wg_ports *ports = &((struct wg_device *)owner)->ports;

	ports->deliver(ports->owner, peer, train);
}

static void reject_own(void *owner, enum wg_drop why, const uint8_t *packet, size_t size, uint32_t mtu)
{
	const struct wg_ports *ports = &((struct wg_device *)owner)->ports;

	if (ports->reject)
		ports->reject(ports->owner, why, packet, size, mtu);
}

static bool take_own(void *owner, const struct wg_news *news)
{
	struct wg_device *device = owner;

	wg_device_take(device, news, device->now);
	return true;
}

static int new_own_lane(struct wg_device *device)
{
	const struct wg_lane_ports ports = {
		.owner = device,
		.transmit = transmit_own,
		.deliver = deliver_own,
		.reject = reject_own,
		.hand = take_own,
	};

	return wg_lane_new(device, &ports, NULL, &device->own);
}

static void begin_call(struct wg_device *device, struct wg_time now)
{
	assert(device->lanes == device->own && !device->own->next);
	device->now = now;
}

static void end_call(struct wg_device *device)
{
	wg_device_collect(device, device->now);
	(void)wg_device_reclaim(device, wg_readers_passed(&device->readers), device->now);
}

void wg_device_send(struct wg_device *device, const struct train *packets, struct wg_time now)
{
	begin_call(device, now);
	wg_lane_send(device->own, packets, now);
	end_call(device);
}

void wg_device_receive(struct wg_device *device, const struct train *datagrams,
		       const struct wg_path *from, struct wg_time now)
{
	begin_call(device, now);
	wg_lane_receive(device->own, datagrams, from, now);
	end_call(device);
}

/* ---- device ---- */

static uint32_t or_default(uint32_t value, uint32_t fallback)
{
	return value != 0 ? value : fallback;
}

/* A room for a train of staged packets. */
static int new_flush_buffer(struct wg_device *device)
{
	const size_t slot = (size_t)device->staged.max_size + 15 + WG_OVERHEAD;

	device->flush_buffer = malloc(WG_HEADROOM + WG_FLUSH_MAX * slot);
	return device->flush_buffer ? 0 : -ENOMEM;
}

static int init(struct wg_device *device, const struct wg_config *config)
{
	device->ports = config->ports;
	device->mtu = or_default(config->mtu, WG_DEFAULT_MTU);
	device->n_shards = or_default(config->n_shards, 1);
	device->handshakes_per_second =
		or_default(config->handshakes_per_second, DEFAULT_HANDSHAKES_PER_SECOND);
	wg_device_random(device, device->hash_key, sizeof(device->hash_key));
	wg_readers_init(&device->readers);
	device->allowed.readers = &device->readers;

	int r = wg_local_init(&device->local, WG_NOISE_PROLOGUE, strlen(WG_NOISE_PROLOGUE));
	if (r == 0)
		r = wg_session_table_init(&device->sessions);
	if (r == 0)
		r = wg_index_table_reserve(&device->indices, 1);
	if (r == 0)
		r = wg_staged_pool_init(&device->staged,
					or_default(config->n_staged, DEFAULT_N_STAGED),
					or_default(config->staged_size, WG_STAGED_SIZE));
	if (r == 0)
		r = new_flush_buffer(device);
	if (r == 0)
		r = new_own_lane(device);
	return r;
}

int wg_device_new(const struct wg_config *config, struct wg_device **ret)
{
	struct wg_device *device = aligned_alloc(_Alignof(struct wg_device), sizeof(*device));

	if (!device)
		return -ENOMEM;
	memset(device, 0, sizeof(*device));
	int r = init(device, config);
	if (r != 0) {
		wg_device_free(device);
		return r;
	}
	*ret = device;
	return 0;
}

const struct wg_aead *wg_device_aead(const struct wg_device *device)
{
	return &device->own->aead;
}

void wg_device_free(struct wg_device *device)
{
	if (!device)
		return;
	while (device->first)
		wg_device_remove_peer(device, device->first);
	wg_lane_free(device->own);
	assert(!device->lanes);
	wg_readers_deinit(&device->readers);
	wg_session_table_deinit(&device->sessions);
	free(device->buckets);
	wg_index_table_deinit(&device->indices);
	wg_schedule_deinit(&device->schedule);
	wg_staged_pool_deinit(&device->staged);
	free(device->flush_buffer);
	wg_local_deinit(&device->local);
	sodium_memzero(device, sizeof(*device));
	free(device);
}

static void renew_identity(struct wg_peer *peer)
{
	wg_remote_set_key(&peer->remote, &peer->device->local, &peer->remote.public);
	wg_peer_abandon_handshake(peer);
	wg_keypairs_stop_sending(&peer->keypairs);
	wg_peer_publish_session(peer);
	wg_timers_forget_last_handshake(&peer->timers);
}

void wg_device_set_private_key(struct wg_device *device, const struct secret_key *key)
{
	if (sodium_memcmp(key->bytes, device->local.secret.bytes, KEY_LEN) == 0)
		return;
	wg_local_set_secret(&device->local, key);
	wg_cookie_checker_set_key(&device->checker, &device->local.crypto, &device->local.public);
	if (!secret_key_is_zero(key)) {
		struct wg_peer *self = wg_device_find_peer(device, &device->local.public);
		if (self)
			wg_device_remove_peer(device, self);
	}
	for (struct wg_peer *peer = device->first; peer; peer = peer->next)
		renew_identity(peer);
}

void wg_device_get_private_key(const struct wg_device *device, struct secret_key *ret)
{
	*ret = device->local.secret;
}

const struct public_key *wg_device_public_key(const struct wg_device *device)
{
	return &device->local.public;
}

void wg_device_set_mtu(struct wg_device *device, uint32_t mtu)
{
	device->mtu = or_default(mtu, WG_DEFAULT_MTU);
	wg_lane_set_mtu(device->own, device->mtu);
}

void wg_device_forget_sources(struct wg_device *device)
{
	for (struct wg_peer *peer = device->first; peer; peer = peer->next)
		wg_peer_forget_source(peer);
}

uint64_t wg_device_drops(const struct wg_device *device, enum wg_drop drop)
{
	uint64_t n = device->drops[drop];

	for (const struct wg_lane *lane = device->lanes; lane; lane = lane->next)
		n += wg_lane_drops(lane, drop);
	return n;
}

/* ---- peers ---- */

static struct wg_published_route no_route; /* before there is one; never written */

static struct wg_peer **bucket_of(const struct wg_device *device, const struct public_key *key)
{
	uint64_t hash = wg_device_hash(device, key->bytes, sizeof(key->bytes));

	return &device->buckets[hash & (device->n_buckets - 1)];
}

static void bucket_add(struct wg_device *device, struct wg_peer *peer)
{
	struct wg_peer **bucket = bucket_of(device, &peer->remote.public);

	peer->bucket_next = *bucket;
	*bucket = peer;
}

static void bucket_remove(struct wg_device *device, struct wg_peer *peer)
{
	struct wg_peer **link = bucket_of(device, &peer->remote.public);

	while (*link != peer)
		link = &(*link)->bucket_next;
	*link = peer->bucket_next;
}

static int grow_buckets(struct wg_device *device)
{
	uint32_t n = device->n_buckets != 0 ? device->n_buckets * 2 : 16;

	if (device->n_peers < device->n_buckets)
		return 0;
	struct wg_peer **buckets = calloc(n, sizeof(struct wg_peer *));
	if (!buckets)
		return -ENOMEM;
	free(device->buckets);
	device->buckets = buckets;
	device->n_buckets = n;
	for (struct wg_peer *peer = device->first; peer; peer = peer->next)
		bucket_add(device, peer);
	return 0;
}

static int reserve_for_peer(struct wg_device *device, struct wg_peer *peer)
{
	int r = grow_buckets(device);

	if (r == 0)
		r = wg_index_table_reserve(&device->indices, device->n_peers + 1);
	if (r == 0)
		r = wg_schedule_add(&device->schedule, &peer->schedule);
	return r;
}

static void list_add(struct wg_device *device, struct wg_peer *peer)
{
	peer->previous = device->last;
	if (device->last)
		device->last->next = peer;
	else
		device->first = peer;
	device->last = peer;
	device->n_peers++;
}

static void list_remove(struct wg_device *device, struct wg_peer *peer)
{
	if (peer->previous)
		peer->previous->next = peer->next;
	else
		device->first = peer->next;
	if (peer->next)
		peer->next->previous = peer->previous;
	else
		device->last = peer->previous;
	device->n_peers--;
}

int wg_device_add_peer(struct wg_device *device, const struct public_key *key, struct wg_peer **ret)
{
	uint32_t random;

	if (wg_device_find_peer(device, key))
		return WG_PEER_E_EXISTS;
	if (!secret_key_is_zero(&device->local.secret) &&
	    public_key_equal(key, &device->local.public))
		return WG_PEER_E_OWN_KEY;
	struct wg_peer *peer = aligned_alloc(_Alignof(struct wg_peer), sizeof(*peer));
	if (!peer)
		return -ENOMEM;
	memset(peer, 0, sizeof(*peer));
	int r = reserve_for_peer(device, peer);
	if (r != 0) {
		free(peer);
		return r;
	}
	peer->device = device;
	peer->shard = device->next_shard++ % device->n_shards;
	peer->published.route = &no_route;
	peer->published.follows = true;
	peer->published.mtu = UINT32_MAX;
	wg_remote_set_key(&peer->remote, &device->local, key);
	wg_cookie_init(&peer->cookie, &device->local.crypto, key);
	wg_device_random(device, &random, sizeof(random));
	wg_timers_init(&peer->timers, random);
	list_add(device, peer);
	bucket_add(device, peer);
	*ret = peer;
	return 0;
}

struct wg_peer *wg_device_find_peer(const struct wg_device *device, const struct public_key *key)
{
	if (device->n_buckets == 0)
		return NULL;
	struct wg_peer *peer = *bucket_of(device, key);
	while (peer && !public_key_equal(&peer->remote.public, key))
		peer = peer->bucket_next;
	return peer;
}

static void destroy_peer(void *object)
{
	struct wg_peer *peer = object;
	struct wg_published_route *route = peer->published.route;

	if (route != &no_route)
		free(route);
	sodium_memzero(peer, sizeof(*peer));
	free(peer);
}

void wg_device_remove_peer(struct wg_device *device, struct wg_peer *peer)
{
	wg_peer_wipe_keys(peer);
	wg_allowed_ips_remove_peer(&device->allowed, peer);
	wg_staged_purge(&device->staged, &peer->staged);
	wg_schedule_remove(&device->schedule, &peer->schedule);
	bucket_remove(device, peer);
	list_remove(device, peer);
	/* Secrets go now, the rest when no lane holds it. */
	sodium_memzero(&peer->remote, sizeof(peer->remote));
	peer->is_removed = true;
	wg_readers_retire(&device->readers, &peer->retired, peer, destroy_peer);
}

struct wg_peer *wg_device_first_peer(const struct wg_device *device)
{
	return device->first;
}

struct wg_peer *wg_peer_next(const struct wg_peer *peer)
{
	return peer->next;
}

const struct public_key *wg_peer_key(const struct wg_peer *peer)
{
	return &peer->remote.public;
}

void wg_peer_set_user(struct wg_peer *peer, uint32_t id, void *user)
{
	peer->id = id;
	peer->user = user;
}

uint32_t wg_peer_id(const struct wg_peer *peer)
{
	return peer->id;
}

void *wg_peer_user(const struct wg_peer *peer)
{
	return peer->user;
}

void wg_peer_set_psk(struct wg_peer *peer, const uint8_t psk[KEY_LEN])
{
	memcpy(peer->remote.psk, psk, KEY_LEN);
}

void wg_peer_get_psk(const struct wg_peer *peer, uint8_t ret[KEY_LEN])
{
	memcpy(ret, peer->remote.psk, KEY_LEN);
}

/* ---- routes ---- */

static const struct wg_path *find_path(const struct wg_route *route, const struct wg_path *path)
{
	for (uint32_t i = 0; i < route->n; i++)
		if (wg_path_equal(&route->paths[i], path))
			return &route->paths[i];
	return NULL;
}

/*
 * True when there is a path that was not there before. What was learned of the others is kept: of direct
 * ones their source. A relayed one is what it is now: the relay may be reached in another way.
 */
static bool replace_route(struct wg_peer *peer, const struct wg_route *route)
{
	struct wg_route old = peer->route;
	bool gained = false;

	assert(route->n <= WG_ROUTE_MAX);
	peer->route = *route;
	for (uint32_t i = 0; i < route->n; i++) {
		const struct wg_path *before = find_path(&old, &route->paths[i]);
		if (!before)
			gained = true;
		else if (route->paths[i].relay_id == 0 && !wg_path_has_source(&route->paths[i]))
			peer->route.paths[i] = *before;
	}
	return gained;
}

void wg_peer_publish_route(struct wg_peer *peer)
{
	struct wg_published_route *copy = malloc(sizeof(*copy));

	if (!copy)
		abort(); /* packets would go where nobody is */
	copy->route = peer->route;
	struct wg_published_route *old = atomic_exchange(&peer->published.route, copy);
	if (old != &no_route)
		wg_readers_retire(&peer->device->readers, &old->retired, old, free);
}

void wg_peer_set_mode(struct wg_peer *peer, enum wg_mode mode)
{
	peer->mode = mode;
	atomic_store(&peer->published.follows, mode == WG_ROAMING);
	wg_timers_set_eager(&peer->timers, mode == WG_PINNED);
}

void wg_peer_set_route(struct wg_peer *peer, const struct wg_route *route, struct wg_time now)
{
	bool gained = replace_route(peer, route);

	atomic_fetch_add(&peer->published.route_version, 1);
	wg_peer_publish_route(peer);
	if (route->n == 0)
		return;
	if (peer->reached_nobody) {
		wg_timers_forget_last_handshake(&peer->timers);
		wg_peer_initiate(peer, false, now);
	} else if (gained && peer->noise.waiting &&
		   !wg_is_recent(peer->timers.last_handshake_sent_ns, WG_SECOND_NS, now.ns)) {
		wg_timers_forget_last_handshake(&peer->timers);
		wg_peer_initiate(peer, true, now);
	}
	wg_peer_flush_staged(peer, now);
	if (peer->staged.n > 0)
		wg_peer_initiate(peer, false, now);
	wg_peer_reschedule(peer);
}

void wg_peer_set_mtu(struct wg_peer *peer, uint32_t mtu)
{
	assert(mtu == 0 || mtu >= 1280);
	atomic_store_explicit(&peer->published.mtu, mtu != 0 ? mtu : UINT32_MAX, memory_order_relaxed);
}

const struct wg_route *wg_peer_route(const struct wg_peer *peer)
{
	return &peer->route;
}

void wg_peer_set_keepalive(struct wg_peer *peer, uint16_t seconds, struct wg_time now)
{
	bool turned_on = peer->keepalive_s == 0 && seconds != 0;

	peer->keepalive_s = seconds;
	wg_timers_set_persistent(&peer->timers, seconds * WG_SECOND_NS, now.ns);
	if (turned_on)
		wg_peer_send_keepalive(peer, now);
	wg_peer_reschedule(peer);
}

uint16_t wg_peer_keepalive(const struct wg_peer *peer)
{
	return peer->keepalive_s;
}

void wg_peer_connect(struct wg_peer *peer, struct wg_time now)
{
	if (peer->route.n > 0)
		wg_peer_initiate(peer, false, now);
}

void wg_peer_reconnect(struct wg_peer *peer, struct wg_time now)
{
	wg_timers_forget_last_handshake(&peer->timers);
	wg_peer_connect(peer, now);
}

/* ---- allowed IPs ---- */

struct wg_allowed_list *wg_peer_allowed_list(struct wg_peer *peer)
{
	return &peer->allowed;
}

int wg_peer_allow(struct wg_peer *peer, const struct wg_prefix *prefix)
{
	return wg_allowed_ips_insert(&peer->device->allowed, prefix, peer);
}

void wg_peer_disallow(struct wg_peer *peer, const struct wg_prefix *prefix)
{
	wg_allowed_ips_remove(&peer->device->allowed, prefix, peer);
}

void wg_peer_disallow_all(struct wg_peer *peer)
{
	wg_allowed_ips_remove_peer(&peer->device->allowed, peer);
}

bool wg_peer_next_prefix(const struct wg_peer *peer, struct wg_prefix_cursor *cursor,
			 struct wg_prefix *ret)
{
	const struct wg_allowed_node *node = cursor->at;

	node = cursor->begun ? (node ? node->list_next : NULL) : peer->allowed.first;
	*cursor = (struct wg_prefix_cursor){ .at = node, .begun = true };
	if (!node)
		return false;
	*ret = (struct wg_prefix){ .family = node->is_v6 ? AF_INET6 : AF_INET, .len = node->len };
	memcpy(ret->ip, node->bits, sizeof(ret->ip));
	return true;
}

struct wg_peer *wg_device_lookup(const struct wg_device *device, uint16_t family, const uint8_t *ip)
{
	if (family == AF_INET6)
		return wg_allowed_ips_lookup6(&device->allowed, ip);
	return family == AF_INET ? wg_allowed_ips_lookup4(&device->allowed, ip) : NULL;
}

/* ---- statistics ---- */

static uint64_t later(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static uint64_t read_mark(const _Atomic uint64_t *mark)
{
	return atomic_load_explicit(mark, memory_order_relaxed);
}

void wg_peer_get_stats(const struct wg_peer *peer, struct wg_time now, struct wg_stats *ret)
{
	const struct wg_keypair *current = peer->keypairs.current;
	const struct wg_peer_marks *marks = &peer->marks;

	*ret = peer->stats;
	ret->rx_bytes = read_mark(&marks->rx_bytes);
	ret->tx_bytes = read_mark(&marks->tx_bytes);
	ret->rx_packets = read_mark(&marks->rx_packets);
	ret->tx_packets += read_mark(&marks->tx_packets);
	ret->last_send_data_ns = later(ret->last_send_data_ns, read_mark(&marks->data_sent_ns));
	ret->last_send_ns = later(ret->last_send_ns, ret->last_send_data_ns);
	ret->last_receive_data_ns = read_mark(&marks->data_received_ns);
	ret->direct.ns = later(ret->direct.ns, read_mark(&marks->arrival_ns[0]));
	ret->relayed.ns = later(ret->relayed.ns, read_mark(&marks->arrival_ns[1]));
	ret->handshake_attempts = peer->n_initiations;
	ret->n_staged = peer->staged.n;
	ret->has_session = current && current->may_send &&
			   current->next_counter < WG_REJECT_AFTER_MESSAGES &&
			   wg_is_recent(current->birth_ns, WG_REJECT_AFTER_TIME_NS, now.ns);
}
