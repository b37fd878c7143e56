/*
 * Plain packets become sealed datagrams, in place:
 *
 *   before   [16 free][packet        ][free                ]
 *   after    [header ][packet, sealed][padding, sealed][tag]
 */
#include "node/wireguard/device_internal.h"
#include "node/wireguard/ip_packet.h"

#include <assert.h>
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
	peer->stats.tx_bytes += train_bytes(datagrams);
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

/* ---- sealing ---- */

/* Gives one packet with free room around it its header, number and padding. */
static struct wg_aead_packet enclose(struct wg_peer *peer, struct wg_keypair *keypair,
				     uint8_t *packet, uint32_t n)
{
	const uint32_t padded = wg_padded_size(n, peer->device->mtu);
	const struct wg_data_header header = { .receiver = keypair->remote_index,
					       .counter = keypair->next_counter++ };

	wg_data_header_encode(packet - WG_DATA_HEADER_LEN, &header);
	memset(packet + n, 0, padded - n);
	return (struct wg_aead_packet){ .data = packet, .counter = header.counter, .size = padded };
}

/* How many were sealed: fewer when the keypair is used up, or OpenSSL failed. */
static uint32_t seal(struct wg_peer *peer, struct wg_keypair *keypair, const struct train *packets)
{
	struct wg_aead_packet enclosed[TRAIN_MAX];
	uint32_t n = 0;

	for (; n < packets->n && keypair->next_counter < WG_REJECT_AFTER_MESSAGES; n++)
		enclosed[n] =
			enclose(peer, keypair, train_packet(packets, n), train_size(packets, n));
	const uint32_t sealed =
		wg_aead_seal_packets(&peer->device->aead, keypair->seal_key, enclosed, n);
	if (sealed < n)
		wg_drop(peer->device, WG_DROP_INTERNAL);
	return sealed;
}

/* Packets that were sealed, as the train of datagrams that they are now. */
static struct train wire_train(const struct wg_device *device, const struct train *packets,
			       uint8_t ecn)
{
	struct train wire = *packets;

	wire.base -= WG_DATA_HEADER_LEN;
	wire.size = wg_slot_size(packets->size, device->mtu);
	wire.last_size = wg_slot_size(packets->last_size, device->mtu);
	if (wire.n == 1)
		wire.stride = wire.size = wire.last_size;
	wire.ds = ecn; /* only ECN is told outside, as RFC 6040 wants; the DSCP is not */
	return wire;
}

/* How many could be sealed and were sent. */
static uint32_t seal_and_transmit(struct wg_peer *peer, struct wg_keypair *keypair,
				  const struct train *packets, uint8_t ecn, struct wg_time now)
{
	const uint32_t n = seal(peer, keypair, packets);

	if (n == 0)
		return 0;
	struct train sealed = train_slice(packets, 0, n);
	struct train wire = wire_train(peer->device, &sealed, ecn);
	wg_peer_transmit(peer, &wire, now);
	return n;
}

/* A session that grows old is replaced while it still works. */
static void keep_fresh(struct wg_peer *peer, struct wg_time now)
{
	if (peer->keypairs.current && wg_keypair_wants_rekey(peer->keypairs.current, now.ns))
		wg_peer_initiate(peer, false, now);
}

static void on_data_sent(struct wg_peer *peer, uint32_t n, struct wg_time now)
{
	peer->stats.tx_packets += n;
	peer->stats.last_send_data_ns = now.ns;
	wg_timers_on_any_sent(&peer->timers, now.ns);
	wg_timers_on_data_sent(&peer->timers, now.ns);
	keep_fresh(peer, now);
}

/* ---- packets that wait ---- */

static void stage(struct wg_peer *peer, const struct train *packets, uint32_t first)
{
	struct wg_device *device = peer->device;

	for (uint32_t i = first; i < packets->n; i++) {
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

static uint8_t ecn_of(const struct train *packet)
{
	struct ip_packet ip;

	return ip_packet_parse(packet->base, packet->size, &ip) ? ip.ds & 3 : IP_ECN_NONE;
}

void wg_peer_flush_staged(struct wg_peer *peer, struct wg_time now)
{
	struct wg_staged_pool *pool = &peer->device->staged;
	uint32_t n = 0;

	while (peer->route.n > 0 && peer->staged.n > 0) {
		struct wg_keypair *keypair = wg_keypairs_usable(&peer->keypairs, now.ns);
		if (!keypair)
			break;
		struct wg_staged *staged = wg_staged_pop(pool, &peer->staged);
		struct train packet = train_of_one(staged->packet, staged->size);
		n += seal_and_transmit(peer, keypair, &packet, ecn_of(&packet), now);
		wg_staged_release(pool, staged);
	}
	if (n > 0)
		on_data_sent(peer, n, now);
}

/* ---- from the TUN device ---- */

static void send_run(struct wg_peer *peer, const struct train *packets, uint8_t ecn,
		     struct wg_time now)
{
	uint32_t n = 0;

	wg_peer_flush_staged(peer, now); /* those that came before go before */
	struct wg_keypair *keypair = wg_keypairs_usable(&peer->keypairs, now.ns);
	if (keypair && peer->route.n > 0)
		n = seal_and_transmit(peer, keypair, packets, ecn, now);
	if (n > 0)
		on_data_sent(peer, n, now);
	if (n < packets->n) {
		stage(peer, packets, n);
		get_ready(peer, now);
	}
	wg_peer_reschedule(peer);
}

/* Neighbouring packets of a train that go to one peer with one ECN. */
struct run {
	struct wg_peer *peer; /* NULL: empty */
	uint32_t first, n;
	uint8_t ecn;
	bool is_v6;
	uint8_t dst[16]; /* of the last one: a train is usually one flow */
};

static void end_run(struct run *run, const struct train *packets, struct wg_time now)
{
	if (!run->peer)
		return;
	struct train part = train_slice(packets, run->first, run->n);
	send_run(run->peer, &part, run->ecn, now);
	run->peer = NULL;
}

static struct wg_peer *find_peer(struct wg_device *device, const struct run *run,
				 const struct ip_packet *ip)
{
	size_t n = ip->is_v6 ? 16 : 4;

	if (run->peer && run->is_v6 == ip->is_v6 && memcmp(run->dst, ip->dst, n) == 0)
		return run->peer;
	return ip->is_v6 ? wg_allowed_ips_lookup6(&device->allowed, ip->dst)
			 : wg_allowed_ips_lookup4(&device->allowed, ip->dst);
}

static void reject(struct wg_device *device, enum wg_drop why, const uint8_t *packet, uint32_t size)
{
	wg_drop(device, why);
	if (device->ports.reject)
		device->ports.reject(device->ports.owner, why, packet, size);
}

static void add_to_run(struct wg_device *device, struct run *run, const struct train *packets,
		       uint32_t i, struct wg_time now)
{
	const uint8_t *packet = train_packet(packets, i);
	uint32_t size = train_size(packets, i);
	struct ip_packet ip;
	struct wg_peer *peer = NULL;
	bool is_ip = ip_packet_parse(packet, size, &ip);

	if (is_ip)
		peer = find_peer(device, run, &ip);
	if (run->peer && (peer != run->peer || (ip.ds & 3) != run->ecn))
		end_run(run, packets, now);
	if (!peer) {
		reject(device, is_ip ? WG_DROP_OUT_NO_PEER : WG_DROP_OUT_NOT_IP, packet, size);
		return;
	}
	if (!run->peer)
		*run = (struct run){ .peer = peer, .first = i, .ecn = ip.ds & 3 };
	run->n++;
	run->is_v6 = ip.is_v6;
	memcpy(run->dst, ip.dst, ip.is_v6 ? 16 : 4);
}

void wg_device_send(struct wg_device *device, const struct train *packets, struct wg_time now)
{
	struct run run = { 0 };

	assert(packets->n >= 1 && packets->n <= TRAIN_MAX);
	assert(packets->n == 1 || packets->stride >= wg_slot_size(packets->size, device->mtu));
	for (uint32_t i = 0; i < packets->n; i++)
		add_to_run(device, &run, packets, i, now);
	end_run(&run, packets, now);
}

/* ---- keepalives ---- */

static void send_empty(struct wg_peer *peer, struct wg_keypair *keypair, struct wg_time now)
{
	uint8_t buffer[WG_OVERHEAD];
	struct train empty = train_of_one(buffer + WG_DATA_HEADER_LEN, 0);

	if (seal_and_transmit(peer, keypair, &empty, IP_ECN_NONE, now) == 0)
		return;
	wg_timers_on_any_sent(&peer->timers, now.ns);
	keep_fresh(peer, now);
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
