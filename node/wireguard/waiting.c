/*
 * The device's side of sending: packets that wait for a key or a way, datagrams of the device's own,
 * keepalives.
 */
#include "node/wireguard/device_internal.h"
#include "node/wireguard/ip_packet.h"

#include <string.h>

#define NO_PATH_TOLD_NS WG_REKEY_TIMEOUT_NS

/* ---- datagrams that are ready ---- */

void wg_peer_transmit(struct wg_peer *peer, const struct train *datagrams, struct wg_time now)
{
	struct wg_device *device = peer->device;

	if (peer->route.n == 0) {
		wg_drop(device, WG_DROP_OUT_NO_PATH);
		return;
	}
	wg_mark_add(&peer->marks.tx_bytes, train_bytes(datagrams));
	peer->stats.last_send_ns = now.ns;
	for (uint32_t i = 0; i < peer->route.n; i++)
		device->ports.transmit(device->ports.owner, peer, &peer->route.paths[i], datagrams);
}

static void tell_no_path(struct wg_peer *peer, struct wg_time now)
{
	if (wg_is_recent(peer->last_no_path_ns, NO_PATH_TOLD_NS, now.ns))
		return;
	peer->last_no_path_ns = now.ns;
	wg_peer_tell(peer, WG_EVENT_NO_PATH, NULL);
}

/* ---- sealing on the device's thread ---- */

static uint32_t seal_and_transmit(struct wg_peer *peer, struct wg_keypair *keypair,
				  const struct train *packets, uint8_t ecn, struct wg_time now)
{
	peer->stats.last_send_ns = now.ns;
	return wg_lane_seal_and_transmit(peer->device->own, peer, keypair, &peer->route, packets, ecn);
}

static void on_data_sent(struct wg_peer *peer, uint32_t n, struct wg_time now)
{
	wg_peer_collect(peer, now);
	peer->stats.tx_packets += n;
	peer->stats.last_send_data_ns = now.ns;
	wg_timers_on_any_sent(&peer->timers, now.ns);
	wg_timers_on_data_sent(&peer->timers, now.ns);
	wg_peer_keep_fresh(peer, now);
}

/* ---- packets that wait ---- */

static void stage(struct wg_peer *peer, const struct train *packets)
{
	struct wg_device *device = peer->device;

	for (uint32_t i = 0; i < packets->n; i++) {
		uint32_t size = train_size(packets, i);
		if (size > device->staged.max_size)
			wg_drop(device, WG_DROP_OUT_TOO_BIG);
		else
			device->drops[WG_DROP_OUT_STAGED] += wg_staged_push(
				&device->staged, &peer->staged, train_packet(packets, i), size);
	}
}

/* What is missing before packets can be sent. */
static void get_ready(struct wg_peer *peer, struct wg_time now)
{
	if (!wg_keypairs_usable(&peer->keypairs, now.ns))
		wg_peer_initiate(peer, false, now);
	if (peer->route.n == 0)
		tell_no_path(peer, now);
}

static uint8_t ecn_of(const uint8_t *packet, uint32_t size)
{
	struct ip_packet ip;

	return ip_packet_parse(packet, size, &ip) ? ip.ds & 3 : IP_ECN_NONE;
}

static bool may_follow(const struct train *train, uint8_t ecn, const struct wg_staged *next)
{
	return train->n < WG_FLUSH_MAX && next && next->size <= train->size &&
	       train->last_size == train->size && ecn_of(next->packet, next->size) == ecn;
}

static void copy_to(struct train *train, const struct wg_staged *staged)
{
	memcpy(train->base + (size_t)train->n * train->stride, staged->packet, staged->size);
	train->last_size = staged->size;
	train->n++;
}

/* The oldest packets that may travel as one train; they leave the queue. */
static struct train take_train(struct wg_peer *peer, uint8_t *buffer, uint8_t *ret_ecn)
{
	struct wg_device *device = peer->device;
	struct wg_staged *staged = wg_staged_pop(&device->staged, &peer->staged);
	struct train train = { .base = buffer + WG_HEADROOM, .size = staged->size };

	*ret_ecn = ecn_of(staged->packet, staged->size);
	train.stride = wg_slot_size(train.size, device->mtu);
	copy_to(&train, staged);
	wg_staged_release(&device->staged, staged);
	while (may_follow(&train, *ret_ecn, peer->staged.first)) {
		staged = wg_staged_pop(&device->staged, &peer->staged);
		copy_to(&train, staged);
		wg_staged_release(&device->staged, staged);
	}
	return train;
}

static uint32_t flush(struct wg_peer *peer, struct wg_time now)
{
	uint32_t n = 0;
	uint8_t ecn;

	while (peer->route.n > 0 && peer->staged.n > 0) {
		struct wg_keypair *keypair = wg_keypairs_usable(&peer->keypairs, now.ns);
		if (!keypair)
			break;
		struct train train = take_train(peer, peer->device->flush_buffer, &ecn);
		n += seal_and_transmit(peer, keypair, &train, ecn, now);
	}
	return n;
}

void wg_peer_settle(struct wg_peer *peer)
{
	if (peer->staged.n == 0)
		atomic_store(&peer->published.n_settled, peer->n_taken);
}

void wg_peer_flush_staged(struct wg_peer *peer, struct wg_time now)
{
	const uint32_t n = flush(peer, now);

	wg_peer_settle(peer);
	if (n > 0)
		on_data_sent(peer, n, now);
}

void wg_peer_take_plain(struct wg_peer *peer, const struct train *packets, struct wg_time now)
{
	stage(peer, packets);
	peer->n_taken += packets->n;
	wg_peer_flush_staged(peer, now);
	get_ready(peer, now); /* also for those that are too big to wait: the next ones will be sealed */
	wg_peer_reschedule(peer);
}

/* ---- keepalives ---- */

static void send_empty(struct wg_peer *peer, struct wg_keypair *keypair, struct wg_time now)
{
	uint8_t buffer[WG_OVERHEAD];
	struct train empty = train_of_one(buffer + WG_DATA_HEADER_LEN, 0);

	if (seal_and_transmit(peer, keypair, &empty, IP_ECN_NONE, now) == 0)
		return;
	wg_peer_collect(peer, now);
	wg_timers_on_any_sent(&peer->timers, now.ns);
	wg_peer_keep_fresh(peer, now);
}

void wg_peer_send_keepalive(struct wg_peer *peer, struct wg_time now)
{
	struct wg_keypair *keypair = wg_keypairs_usable(&peer->keypairs, now.ns);

	if (!keypair || peer->route.n == 0)
		get_ready(peer, now);
	else if (peer->staged.n > 0)
		wg_peer_flush_staged(peer, now);
	else
		send_empty(peer, keypair, now);
	wg_peer_reschedule(peer);
}
