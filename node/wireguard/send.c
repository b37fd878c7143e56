/*
 * Plain packets become sealed datagrams, in place, on a lane's thread:
 *
 *   before   [16 free][packet        ][free                ]
 *   after    [header ][packet, sealed][padding, sealed][tag]
 *
 * What cannot be sealed now is handed to the device (waiting.c).
 */
#include "node/wireguard/device_internal.h"
#include "node/wireguard/ip_packet.h"

#include <assert.h>
#include <string.h>

/* ---- sealing ---- */

/* Gives one packet with free room around it its header, number and padding. */
static struct wg_aead_packet enclose(const struct wg_lane *lane, const struct wg_keypair *keypair,
				     uint8_t *packet, uint32_t n, uint64_t counter)
{
	const uint32_t padded = wg_padded_size(n, lane->mtu);
	const struct wg_data_header header = { .receiver = keypair->remote_index, .counter = counter };

	wg_data_header_encode(packet - WG_DATA_HEADER_LEN, &header);
	memset(packet + n, 0, padded - n);
	return (struct wg_aead_packet){ .data = packet, .counter = counter, .size = padded };
}

/* How many were sealed: fewer when the keypair is used up, or OpenSSL failed. */
static uint32_t seal(struct wg_lane *lane, struct wg_keypair *keypair, const struct train *packets)
{
	struct wg_aead_packet enclosed[TRAIN_MAX];
	uint64_t first;
	const uint32_t n = wg_keypair_take_counters(keypair, packets->n, &first);

	for (uint32_t i = 0; i < n; i++)
		enclosed[i] = enclose(lane, keypair, train_packet(packets, i),
				      train_size(packets, i), first + i);
	const uint32_t sealed = wg_aead_seal_packets(&lane->aead, keypair->seal_key, enclosed, n);
	if (sealed < n)
		wg_lane_drop(lane, WG_DROP_INTERNAL, 1);
	return sealed;
}

/* Packets that were sealed, as the train of datagrams that they are now. */
static struct train wire_train(const struct wg_lane *lane, const struct train *packets, uint8_t ecn)
{
	struct train wire = *packets;

	wire.base -= WG_DATA_HEADER_LEN;
	wire.size = wg_slot_size(packets->size, lane->mtu);
	wire.last_size = wg_slot_size(packets->last_size, lane->mtu);
	if (wire.n == 1)
		wire.stride = wire.size = wire.last_size;
	wire.ds = ecn; /* only ECN is told outside, as RFC 6040 wants; the DSCP is not */
	return wire;
}

uint32_t wg_lane_seal_and_transmit(struct wg_lane *lane, struct wg_peer *peer,
				   struct wg_keypair *keypair, const struct wg_route *route,
				   const struct train *packets, uint8_t ecn)
{
	const uint32_t n = seal(lane, keypair, packets);

	if (n == 0)
		return 0;
	struct train sealed = train_slice(packets, 0, n);
	struct train wire = wire_train(lane, &sealed, ecn);
	wg_mark_add(&peer->marks.tx_bytes, train_bytes(&wire));
	for (uint32_t i = 0; i < route->n; i++)
		lane->ports.transmit(lane->ports.owner, peer, &route->paths[i], &wire);
	return n;
}

/* ---- one peer's packets ---- */

static bool is_settled(const struct wg_peer *peer)
{
	return atomic_load(&peer->marks.n_handed) == atomic_load(&peer->published.n_settled);
}

/* What was handed to the device for this peer goes before. */
static bool wait_until_settled(const struct wg_lane *lane, const struct wg_peer *peer)
{
	const struct wg_lane_ports *ports = &lane->ports;

	for (unsigned n_waits = 0; !is_settled(peer); n_waits++)
		if (!ports->wait || !ports->wait(ports->owner, n_waits))
			return false;
	return true;
}

static void hand_over(struct wg_lane *lane, struct wg_peer *peer, const struct train *packets)
{
	const struct wg_news news = { .type = WG_NEWS_PLAIN, .peer = peer, .train = *packets };

	/* Before: the device settles them while this call lasts. */
	atomic_fetch_add(&peer->marks.n_handed, packets->n);
	if (lane->ports.hand(lane->ports.owner, &news))
		return;
	atomic_fetch_sub(&peer->marks.n_handed, packets->n);
	wg_lane_drop(lane, WG_DROP_OUT_QUEUE, packets->n);
}

static void send_run(struct wg_lane *lane, struct wg_peer *peer, const struct train *packets,
		     uint8_t ecn, struct wg_time now)
{
	struct wg_keypair *keypair = atomic_load(&peer->published.sending);
	const struct wg_route *route = &atomic_load(&peer->published.route)->route;
	uint32_t n = 0;

	if (keypair && route->n > 0 && wg_keypair_may_send(keypair, now.ns) &&
	    wait_until_settled(lane, peer))
		n = wg_lane_seal_and_transmit(lane, peer, keypair, route, packets, ecn);
	if (n > 0) {
		wg_mark_time(&peer->marks.data_sent_ns, now.ns);
		wg_mark_add(&peer->marks.tx_packets, n);
		wg_lane_note(lane, peer);
	}
	if (n < packets->n) {
		const struct train rest = train_slice(packets, n, packets->n - n);
		hand_over(lane, peer, &rest);
	}
}

/* ---- from the TUN device ---- */

/* Neighbouring packets of a train that go to one peer with one ECN. */
struct run {
	struct wg_peer *peer; /* NULL: empty */
	uint32_t first, n;
	uint8_t ecn;
	bool is_v6;
	uint8_t dst[16]; /* of the last one: a train is usually one flow */
};

static void reject(struct wg_lane *lane, enum wg_drop why, const uint8_t *packet, uint32_t size, uint32_t mtu)
{
	wg_lane_drop(lane, why, 1);
	if (lane->ports.reject)
		lane->ports.reject(lane->ports.owner, why, packet, size, mtu);
}

/* IPv4's "don't fragment"; IPv6 never may. */
static bool may_fragment(const uint8_t *packet)
{
	return packet[0] >> 4 == 4 && (packet[6] & 0x40) == 0;
}

/* Some of the packets are longer than the path takes: the others go on, in their order. */
static void send_what_fits(struct wg_lane *lane, struct wg_peer *peer, const struct train *packets, uint8_t ecn,
			   uint32_t mtu, struct wg_time now)
{
	for (uint32_t i = 0; i < packets->n; i++) {
		const struct train one = train_slice(packets, i, 1);
		if (one.size <= mtu || may_fragment(one.base))
			send_run(lane, peer, &one, ecn, now);
		else
			reject(lane, WG_DROP_OUT_MTU, one.base, one.size, mtu);
	}
}

static void end_run(struct wg_lane *lane, struct run *run, const struct train *packets,
		    struct wg_time now)
{
	if (!run->peer)
		return;
	struct train part = train_slice(packets, run->first, run->n);
	const uint32_t mtu = atomic_load_explicit(&run->peer->published.mtu, memory_order_relaxed);
	wg_peer_clamp_mss(run->peer, &part);
	if (part.size <= mtu)
		send_run(lane, run->peer, &part, run->ecn, now);
	else
		send_what_fits(lane, run->peer, &part, run->ecn, mtu, now);
	run->peer = NULL;
}

static struct wg_peer *find_peer(const struct wg_lane *lane, const struct run *run,
				 const struct ip_packet *ip)
{
	const struct wg_allowed_ips *allowed = &lane->device->allowed;
	size_t n = ip->is_v6 ? 16 : 4;

	if (run->peer && run->is_v6 == ip->is_v6 && memcmp(run->dst, ip->dst, n) == 0)
		return run->peer;
	return ip->is_v6 ? wg_allowed_ips_lookup6(allowed, ip->dst)
			 : wg_allowed_ips_lookup4(allowed, ip->dst);
}

static void add_to_run(struct wg_lane *lane, struct run *run, const struct train *packets,
		       uint32_t i, struct wg_time now)
{
	const uint8_t *packet = train_packet(packets, i);
	uint32_t size = train_size(packets, i);
	struct ip_packet ip;
	struct wg_peer *peer = NULL;
	bool is_ip = ip_packet_parse(packet, size, &ip);

	if (is_ip)
		peer = find_peer(lane, run, &ip);
	if (run->peer && (peer != run->peer || (ip.ds & 3) != run->ecn))
		end_run(lane, run, packets, now);
	if (!peer) {
		reject(lane, is_ip ? WG_DROP_OUT_NO_PEER : WG_DROP_OUT_NOT_IP, packet, size, 0);
		return;
	}
	if (!run->peer)
		*run = (struct run){ .peer = peer, .first = i, .ecn = ip.ds & 3 };
	run->n++;
	run->is_v6 = ip.is_v6;
	memcpy(run->dst, ip.dst, ip.is_v6 ? 16 : 4);
}

void wg_lane_send(struct wg_lane *lane, const struct train *packets, struct wg_time now)
{
	struct run run = { 0 };

	assert(packets->n >= 1 && packets->n <= TRAIN_MAX);
	assert(packets->n == 1 || packets->stride >= wg_slot_size(packets->size, lane->mtu));
	for (uint32_t i = 0; i < packets->n; i++)
		add_to_run(lane, &run, packets, i, now);
	end_run(lane, &run, packets, now);
}
