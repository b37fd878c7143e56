/*
 * Datagrams become plain packets, in place. The order per packet:
 *
 *   index -> keypair, young enough -> decrypt -> replay window -> (authenticated) liveness, roaming
 *   -> whole IP packet -> source address is the peer's -> ECN -> deliver
 *
 * What concerns a peer as a whole is done once per train, not per packet.
 */
#include "node/wireguard/device_internal.h"
#include "node/wireguard/ip_packet.h"

#include <assert.h>
#include <string.h>

/* A train being received. */
struct reception {
	struct wg_device *device;
	const struct train *datagrams;
	const struct wg_path *from;
	struct wg_time now;

	/* the peer whose packets we are among; NULL: none yet */
	struct wg_peer *peer;
	bool is_v6;
	uint8_t src[16]; /* the last source address that was checked; valid if has_src */
	bool has_src;

	/* good packets to deliver together; n 0: none */
	struct train run;
	uint32_t run_end; /* number of the datagram that would continue it */
};

static void drop(struct reception *rx, enum wg_drop why)
{
	wg_drop(rx->device, why);
}

/* ---- runs ---- */

static void end_run(struct reception *rx)
{
	if (rx->run.n == 0)
		return;
	rx->peer->stats.rx_packets += rx->run.n;
	rx->device->ports.deliver(rx->device->ports.owner, rx->peer, &rx->run);
	rx->run.n = 0;
}

static void add_to_run(struct reception *rx, uint32_t i, uint8_t *packet, uint32_t size)
{
	struct train *run = &rx->run;
	bool fits =
		run->n > 0 && rx->run_end == i && run->last_size == run->size && size <= run->size;

	if (!fits) {
		end_run(rx);
		*run = (struct train){ .base = packet,
				       .stride = rx->datagrams->stride,
				       .size = size };
	}
	run->n++;
	run->last_size = size;
	rx->run_end = i + 1;
}

/* ---- peers ---- */

/* For an initiator that only receives: sending rekeys by itself. */
static void keep_fresh(struct wg_peer *peer, struct wg_time now)
{
	const struct wg_keypair *current = peer->keypairs.current;

	if (current && current->is_initiator &&
	    wg_timers_take_last_minute(&peer->timers, current->birth_ns, now.ns))
		wg_peer_initiate(peer, false, now);
}

static void end_peer(struct reception *rx)
{
	end_run(rx);
	if (rx->peer) {
		keep_fresh(rx->peer, rx->now);
		wg_peer_reschedule(rx->peer);
	}
	rx->peer = NULL;
	rx->has_src = false;
}

static void begin_peer(struct reception *rx, struct wg_peer *peer)
{
	if (rx->peer == peer)
		return;
	end_peer(rx);
	rx->peer = peer;
	wg_peer_on_authenticated(peer, rx->from, rx->now);
}

/* The responder learns that its response arrived. */
static void confirm_next(struct reception *rx, struct wg_peer *peer)
{
	struct wg_dropped dropped;

	wg_keypairs_confirm_next(&peer->keypairs, &dropped);
	wg_device_drop_indices(rx->device, &dropped);
	wg_peer_on_session(peer, rx->now);
	wg_peer_flush_staged(peer, rx->now);
}

/* ---- packets ---- */

static bool is_from_peer(struct reception *rx, const struct ip_packet *ip)
{
	const size_t n = ip->is_v6 ? 16 : 4;
	const struct wg_allowed_ips *allowed = &rx->device->allowed;

	if (rx->has_src && rx->is_v6 == ip->is_v6 && memcmp(rx->src, ip->src, n) == 0)
		return true;
	const struct wg_peer *owner = ip->is_v6 ? wg_allowed_ips_lookup6(allowed, ip->src)
						: wg_allowed_ips_lookup4(allowed, ip->src);
	if (owner != rx->peer)
		return false;
	rx->has_src = true;
	rx->is_v6 = ip->is_v6;
	memcpy(rx->src, ip->src, n);
	return true;
}

static void receive_plain(struct reception *rx, uint32_t i, uint8_t *packet, uint32_t n)
{
	struct ip_packet ip;

	wg_timers_on_data_received(&rx->peer->timers, rx->now.ns);
	rx->peer->stats.last_receive_data_ns = rx->now.ns;
	if (!ip_packet_parse(packet, n, &ip))
		drop(rx, WG_DROP_NOT_IP);
	else if (!is_from_peer(rx, &ip))
		drop(rx, WG_DROP_SOURCE_IP);
	else if (!ip_packet_decapsulate_ecn(packet, &ip, rx->datagrams->ds))
		drop(rx, WG_DROP_CONGESTION);
	else
		add_to_run(rx, i, packet, ip.size);
}

/* True: decrypted, and never seen before. */
static bool open_datagram(struct reception *rx, struct wg_keypair *keypair, uint64_t counter,
			  uint8_t *sealed, uint32_t n)
{
	if (!wg_is_recent(keypair->birth_ns, WG_REJECT_AFTER_TIME_NS, rx->now.ns) ||
	    counter >= WG_REJECT_AFTER_MESSAGES)
		drop(rx, WG_DROP_EXPIRED_KEY);
	else if (!replay_is_fresh(&keypair->replay,
				  counter)) /* spares decrypting; decides nothing else */
		drop(rx, WG_DROP_REPLAY);
	else if (!wg_cipher_open(keypair->open, counter, sealed, n))
		drop(rx, WG_DROP_FORGED);
	else if (!replay_accept(&keypair->replay, counter))
		drop(rx, WG_DROP_REPLAY);
	else
		return true;
	return false;
}

static void receive_data(struct reception *rx, uint32_t i)
{
	uint8_t *datagram = train_packet(rx->datagrams, i);
	uint32_t size = train_size(rx->datagrams, i);
	struct wg_data_header header;

	if (wg_data_header_decode(datagram, size, &header) != 0) {
		drop(rx, WG_DROP_MALFORMED);
		return;
	}
	const struct wg_index_entry *entry =
		wg_index_table_find(&rx->device->indices, header.receiver);
	if (!entry || !entry->keypair) {
		drop(rx, WG_DROP_UNKNOWN_INDEX);
		wg_device_on_lost_session(rx->device, rx->from, rx->now);
		return;
	}
	struct wg_peer *peer = entry->peer;
	struct wg_keypair *keypair = entry->keypair;
	uint8_t *packet = datagram + WG_DATA_HEADER_LEN;
	uint32_t n = size - WG_DATA_HEADER_LEN;

	if (!open_datagram(rx, keypair, header.counter, packet, n))
		return;
	begin_peer(rx, peer);
	peer->stats.rx_bytes += size;
	if (keypair == peer->keypairs.next)
		confirm_next(rx, peer);
	if (n > WG_AEAD_TAG_LEN)
		receive_plain(rx, i, packet, n - WG_AEAD_TAG_LEN);
}

static void receive_one(struct reception *rx, uint32_t i)
{
	const uint8_t *datagram = train_packet(rx->datagrams, i);
	uint32_t size = train_size(rx->datagrams, i);
	enum wg_message_type type = wg_message_type(datagram, size);

	switch (type) {
	case WG_MESSAGE_DATA:
		receive_data(rx, i);
		return;
	case WG_MESSAGE_INITIATION:
	case WG_MESSAGE_RESPONSE:
	case WG_MESSAGE_COOKIE_REPLY:
		end_peer(rx);
		wg_device_receive_handshake(rx->device, type, datagram, size, rx->from, rx->now);
		return;
	}
	drop(rx, WG_DROP_MALFORMED);
}

void wg_device_receive(struct wg_device *device, const struct train *datagrams,
		       const struct wg_path *from, struct wg_time now)
{
	struct reception rx = {
		.device = device, .datagrams = datagrams, .from = from, .now = now
	};

	assert(datagrams->n >= 1 && datagrams->n <= TRAIN_MAX);
	for (uint32_t i = 0; i < datagrams->n; i++)
		receive_one(&rx, i);
	end_peer(&rx);
}
