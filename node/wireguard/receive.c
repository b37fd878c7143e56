/*
 * Datagrams become plain packets, in place, on a lane's thread. The order per packet:
 *
 *   index -> keypair, young enough -> decrypt -> replay window -> (authenticated) liveness, roaming
 *   -> whole IP packet -> source address is the peer's -> ECN -> deliver
 *
 * What concerns a peer as a whole is done once per train, not per packet; and the datagrams of one
 * session that stand side by side are decrypted together, before the rest is done in their order.
 */
#include "node/wireguard/device_internal.h"
#include "node/wireguard/ip_packet.h"

#include <assert.h>
#include <string.h>

#define TOLD_NS		WG_SECOND_NS	    /* a path in use is told so often */
#define LOST_SESSION_NS (WG_SECOND_NS / 10) /* lost sessions are told so often */
#define MOVE_WAITED_NS	(WG_SECOND_NS / 10) /* a peer that moves is waited for so often */

/* A train being received. */
struct reception {
	struct wg_lane *lane;
	const struct train *datagrams;
	const struct wg_path *from;
	struct wg_time now;

	/* the peer whose packets we are among; NULL: none yet */
	struct wg_peer *peer;
	bool is_v6;
	uint8_t src[16]; /* the last source address that was checked; valid if has_src */
	bool has_src;
	uint32_t n_data; /* packets with content, of this peer */
	uint32_t n_delivered;
	uint64_t n_bytes;

	/* good packets to deliver together; n 0: none */
	struct train run;
	uint32_t run_end; /* number of the datagram that would continue it */
};

/* Datagrams of one session that wait for being opened together. */
struct batch {
	struct wg_keypair *keypair;
	uint32_t n;
	uint32_t numbers[TRAIN_MAX]; /* in the train */
	struct wg_aead_packet packets[TRAIN_MAX];
};

static void drop(struct reception *rx, enum wg_drop why)
{
	wg_lane_drop(rx->lane, why, 1);
}

static bool hand(struct reception *rx, const struct wg_news *news)
{
	return rx->lane->ports.hand(rx->lane->ports.owner, news);
}

/* ---- runs ---- */

static void end_run(struct reception *rx)
{
	if (rx->run.n == 0)
		return;
	rx->n_delivered += rx->run.n;
	wg_peer_clamp_mss(rx->peer, &rx->run);
	rx->lane->ports.deliver(rx->lane->ports.owner, rx->peer, &rx->run);
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

static bool is_same_path(const struct wg_path *a, const struct wg_path *b)
{
	return wg_path_equal(a, b) && a->ifindex == b->ifindex && a->socket == b->socket &&
	       memcmp(a->local_ip, b->local_ip, sizeof(a->local_ip)) == 0;
}

/* Does the device know that this peer's packets come from there? */
static bool is_told(const struct reception *rx, const struct wg_peer *peer, unsigned kind)
{
	const struct wg_peer_told *told = &peer->told;

	return wg_is_recent(told->ns[kind], TOLD_NS, rx->now.ns) &&
	       is_same_path(&told->path[kind], rx->from) &&
	       told->route_version == atomic_load(&peer->published.route_version) &&
	       (told->kind == kind || !atomic_load(&peer->published.follows));
}

/*
 * The answer to what is about to be delivered may be quicker than the device: it must find the new
 * session, and go where the peer is now.
 */
static void wait_until_taken(struct reception *rx, const struct wg_peer *peer)
{
	const struct wg_lane_ports *ports = &rx->lane->ports;

	for (unsigned n = 0; atomic_load(&peer->published.n_told) != peer->told.n; n++)
		if (!ports->wait || !ports->wait(ports->owner, n))
			return;
}

/* A peer could send from another address each time, and the lane would do nothing but wait. */
static void wait_for_move(struct reception *rx, struct wg_peer *peer)
{
	if (wg_is_recent(peer->told.waited_ns, MOVE_WAITED_NS, rx->now.ns))
		return;
	peer->told.waited_ns = rx->now.ns;
	wait_until_taken(rx, peer);
}

/* Where the device has left the source, or its interface alone, to routing, it would say so again. */
static bool has_fit_source(const struct wg_path *path, const struct wg_path *from)
{
	struct wg_path fit = *from;

	if (!wg_path_has_source(path))
		return wg_path_equal(path, from);
	if (path->ifindex == 0)
		fit.ifindex = 0;
	return is_same_path(path, &fit);
}

static bool is_answered_there(const struct wg_peer *peer, const struct wg_path *from)
{
	const struct wg_route *route = &atomic_load(&peer->published.route)->route;

	return !atomic_load(&peer->published.follows) ||
	       (route->n == 1 && has_fit_source(&route->paths[0], from));
}

static void tell_path(struct reception *rx, struct wg_peer *peer, unsigned kind)
{
	const struct wg_news news = { .type = WG_NEWS_AUTHENTICATED, .peer = peer, .from = *rx->from };
	const uint32_t version = atomic_load(&peer->published.route_version);

	if (!hand(rx, &news))
		return; /* with the next train */
	peer->told.n++;
	peer->told.ns[kind] = rx->now.ns;
	peer->told.path[kind] = *rx->from;
	peer->told.kind = kind;
	peer->told.route_version = version;
	if (!is_answered_there(peer, rx->from))
		wait_for_move(rx, peer);
}

static void end_peer(struct reception *rx)
{
	struct wg_peer *peer = rx->peer;

	end_run(rx);
	if (peer) {
		wg_mark_add(&peer->marks.rx_bytes, rx->n_bytes);
		wg_mark_add(&peer->marks.rx_packets, rx->n_delivered);
		if (rx->n_data > 0)
			wg_mark_time(&peer->marks.data_received_ns, rx->now.ns);
		wg_mark_add(&peer->marks.n_data, rx->n_data);
		wg_lane_note(rx->lane, peer);
	}
	rx->peer = NULL;
	rx->has_src = false;
	rx->n_data = rx->n_delivered = 0;
	rx->n_bytes = 0;
}

static void begin_peer(struct reception *rx, struct wg_peer *peer)
{
	const unsigned kind = rx->from->relay_id != 0;

	if (rx->peer == peer)
		return;
	end_peer(rx);
	rx->peer = peer;
	wg_mark_time(&peer->marks.arrival_ns[kind], rx->now.ns);
	wg_mark_time(&peer->marks.any_received_ns, rx->now.ns);
	wg_mark_add(&peer->marks.n_arrivals, 1);
	if (!is_told(rx, peer, kind))
		tell_path(rx, peer, kind);
}

/* The responder learns that its response arrived. */
static void confirm(struct reception *rx, struct wg_peer *peer, struct wg_keypair *keypair)
{
	const struct wg_news news = { .type = WG_NEWS_CONFIRMED, .peer = peer, .keypair = keypair };

	keypair->is_confirmed = hand(rx, &news);
	if (!keypair->is_confirmed)
		return; /* with the next packet */
	peer->told.n++;
	wait_until_taken(rx, peer);
}

/* ---- packets ---- */

static bool is_from_peer(struct reception *rx, const struct ip_packet *ip)
{
	const size_t n = ip->is_v6 ? 16 : 4;
	const struct wg_allowed_ips *allowed = &rx->lane->device->allowed;

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

	rx->n_data++;
	if (!ip_packet_parse(packet, n, &ip))
		drop(rx, WG_DROP_NOT_IP);
	else if (!is_from_peer(rx, &ip))
		drop(rx, WG_DROP_SOURCE_IP);
	else if (!ip_packet_decapsulate_ecn(packet, &ip, rx->datagrams->ds))
		drop(rx, WG_DROP_CONGESTION);
	else
		add_to_run(rx, i, packet, ip.size);
}

/* ---- batches: neighbouring datagrams of one session are opened together ---- */

static void receive_opened(struct reception *rx, struct wg_peer *peer, struct wg_keypair *keypair,
			   const struct wg_aead_packet *packet, uint32_t i)
{
	if (!packet->is_good) {
		drop(rx, WG_DROP_FORGED);
		return;
	}
	if (!replay_accept(&keypair->replay, packet->counter)) {
		drop(rx, WG_DROP_REPLAY);
		return;
	}
	begin_peer(rx, peer);
	rx->n_bytes += packet->size + WG_OVERHEAD;
	if (!keypair->is_confirmed)
		confirm(rx, peer, keypair);
	if (packet->size > 0)
		receive_plain(rx, i, packet->data, packet->size);
}

/* The session outlives this: what a packet can cause drops only others of its peer. */
static void end_batch(struct reception *rx, struct batch *batch)
{
	if (batch->n == 0)
		return;
	const uint32_t n = batch->n;

	batch->n = 0;
	wg_aead_open_packets(&rx->lane->aead, batch->keypair->open_key, batch->packets, n);
	for (uint32_t k = 0; k < n; k++)
		receive_opened(rx, batch->keypair->peer, batch->keypair, &batch->packets[k],
			       batch->numbers[k]);
}

/* False: nothing with this index, or it is another lane's. */
static bool use_session(struct reception *rx, struct batch *batch, uint32_t index)
{
	const struct wg_lane *lane = rx->lane;

	if (batch->n > 0 && batch->keypair->local_index == index)
		return true;
	end_batch(rx, batch);
	batch->keypair = wg_session_table_find(&lane->device->sessions, index);
	return batch->keypair && (lane->shard == WG_ANY_SHARD || lane->shard == batch->keypair->peer->shard);
}

bool wg_lane_find_owner(const struct wg_lane *lane, const uint8_t *datagram, uint32_t size, struct wg_owner *ret)
{
	const struct wg_keypair *keypair;
	struct wg_data_header header;

	if (wg_data_header_decode(datagram, size, &header) != 0)
		return false;
	keypair = wg_session_table_find(&lane->device->sessions, header.receiver);
	if (!keypair)
		return false;
	*ret = (struct wg_owner){ .peer_id = wg_peer_id(keypair->peer), .shard = keypair->peer->shard };
	return ret->peer_id != 0;
}

static void add_to_batch(struct reception *rx, struct batch *batch, uint64_t counter, uint32_t i)
{
	const struct wg_keypair *keypair = batch->keypair;

	if (!wg_is_recent(keypair->birth_ns, WG_REJECT_AFTER_TIME_NS, rx->now.ns) ||
	    counter >= WG_REJECT_AFTER_MESSAGES) {
		drop(rx, WG_DROP_EXPIRED_KEY);
		return;
	}
	/* spares decrypting; decides nothing else */
	if (!replay_is_fresh(&keypair->replay, counter)) {
		drop(rx, WG_DROP_REPLAY);
		return;
	}
	batch->numbers[batch->n] = i;
	batch->packets[batch->n++] = (struct wg_aead_packet){
		.data = train_packet(rx->datagrams, i) + WG_DATA_HEADER_LEN,
		.counter = counter,
		.size = train_size(rx->datagrams, i) - WG_OVERHEAD,
	};
}

static void tell_lost_session(struct reception *rx)
{
	const struct wg_news news = { .type = WG_NEWS_LOST_SESSION, .from = *rx->from };

	if (wg_is_recent(rx->lane->lost_session_ns, LOST_SESSION_NS, rx->now.ns))
		return;
	rx->lane->lost_session_ns = rx->now.ns;
	(void)hand(rx, &news);
}

static void receive_data(struct reception *rx, struct batch *batch, uint32_t i)
{
	struct wg_data_header header;

	if (wg_data_header_decode(train_packet(rx->datagrams, i), train_size(rx->datagrams, i),
				  &header) != 0) {
		drop(rx, WG_DROP_MALFORMED);
		return;
	}
	if (use_session(rx, batch, header.receiver)) {
		add_to_batch(rx, batch, header.counter, i);
		return;
	}
	drop(rx, WG_DROP_UNKNOWN_INDEX);
	tell_lost_session(rx);
}

static void hand_handshake(struct reception *rx, uint8_t *message, uint32_t size)
{
	const struct wg_news news = { .type = WG_NEWS_HANDSHAKE,
				      .from = *rx->from,
				      .train = train_of_one(message, size) };

	if (!hand(rx, &news))
		drop(rx, WG_DROP_HANDSHAKE_QUEUE);
}

static void receive_one(struct reception *rx, struct batch *batch, uint32_t i)
{
	uint8_t *datagram = train_packet(rx->datagrams, i);
	uint32_t size = train_size(rx->datagrams, i);
	enum wg_message_type type = wg_message_type(datagram, size);

	switch (type) {
	case WG_MESSAGE_DATA:
		receive_data(rx, batch, i);
		return;
	case WG_MESSAGE_INITIATION:
	case WG_MESSAGE_RESPONSE:
	case WG_MESSAGE_COOKIE_REPLY:
		end_batch(rx, batch);
		end_peer(rx);
		hand_handshake(rx, datagram, size);
		return;
	}
	drop(rx, WG_DROP_MALFORMED);
}

void wg_lane_receive(struct wg_lane *lane, const struct train *datagrams, const struct wg_path *from,
		     struct wg_time now)
{
	struct reception rx = { .lane = lane, .datagrams = datagrams, .from = from, .now = now };
	struct batch batch;

	batch.n = 0; /* and not all the rest */

	assert(datagrams->n >= 1 && datagrams->n <= TRAIN_MAX);
	for (uint32_t i = 0; i < datagrams->n; i++)
		receive_one(&rx, &batch, i);
	end_batch(&rx, &batch);
	end_peer(&rx);
}
