/*
 * From the network to the TUN: a train as it was received is opened and written as it is, also when it
 * came through a relay over UDP. What is not WireGuard goes to the loop.
 */
#include "node/wireguard/lane_internal.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "common/relay_udp_wire.h"
#include "node/wireguard/ip_packet.h"

/* So much of one source before the others are looked at. */
#define UDP_BURST   2  /* calls for UDP_INBOX_MESSAGES trains */
#define RELAY_BURST 64 /* trains */

void lane_rx_init(struct lane *lane)
{
	lane->inbox = lane_allocate(sizeof(*lane->inbox));
	if (!lane->config.is_plain)
		lane->relayed_buffer = lane_allocate(UDP_MESSAGE_MAX);
}

void lane_rx_deinit(struct lane *lane)
{
	free(lane->inbox);
	free(lane->relayed_buffer);
}

void lane_deliver(void *owner, struct wg_peer *peer, const struct train *train)
{
	struct lane *lane = owner;

	struct tun *tun = &lane->tuns[0];
	const uint64_t n_refused = tun->n_refused;

	if (!ip_packet_is_tcp(train->base))
		lane->has_delivered_datagrams = true;
	if (lane->n_tuns > 0)
		(void)tun_write(tun, train); /* that the TUN is gone shows in epoll */
	if (tun->n_refused != n_refused)
		lane_count(&lane->counters.tun_refused, tun->n_refused - n_refused);
}

static void post_datagrams(struct lane *lane, enum demux_kind kind, const struct wg_path *from,
			   const struct train *train)
{
	if (lane->config.is_plain || !lane->config.wants_datagrams || kind == DEMUX_UNKNOWN) {
		lane_count(&lane->counters.unknown, train->n);
		return;
	}
	for (uint32_t i = 0; i < train->n; i++)
		lane_outbox_datagram(&lane->outbox, kind, from, train_packet(train, i),
				     train_size(train, i));
}

/* ---- through a relay over UDP ---- */

static_assert(WG_RELAY_HEADER_LEN == RELAY_UDP_HEADER_LEN, "one header");

/* Datagrams that begin alike belong together: the relay's header, type and index of WireGuard's. */
#define ALIKE_LEN (WG_RELAY_HEADER_LEN + 8)

void lane_set_relays(struct lane *lane, const struct udp_relays *relays)
{
	lane->relays = *relays;
}

/* How many from `first` on begin alike. */
static uint32_t count_alike(const struct train *train, uint32_t first)
{
	uint32_t n = 1;

	if (train_size(train, first) < ALIKE_LEN)
		return 1;
	while (first + n < train->n && train_size(train, first + n) >= ALIKE_LEN &&
	       memcmp(train_packet(train, first + n), train_packet(train, first), ALIKE_LEN) == 0)
		n++;
	return n;
}

static struct train without_header(const struct train *train)
{
	struct train rest = *train;

	rest.base += WG_RELAY_HEADER_LEN;
	rest.size -= WG_RELAY_HEADER_LEN;
	rest.last_size -= WG_RELAY_HEADER_LEN;
	return rest;
}

/* Data of a session of ours, brought by a relay of ours. False: the loop shall look at it. */
static bool take_alike(struct lane *lane, const struct endpoint *from, const struct train *alike)
{
	const uint32_t size = train_size(alike, 0);
	const uint32_t relay_id = udp_relays_find(&lane->relays, from, alike->base, size);
	struct wg_owner owner;

	if (relay_id == 0 || !wg_lane_find_owner(lane->core, alike->base + WG_RELAY_HEADER_LEN,
						 size - WG_RELAY_HEADER_LEN, &owner))
		return false;
	const struct wg_path way = { .relay_id = relay_id, .peer_id = owner.peer_id };
	const struct train data = without_header(alike);
	if (owner.shard != lane->config.shard)
		return lane->config.pass_on && lane->config.pass_on(lane->config.owner, owner.shard, &way, &data);
	lane_count(&lane->counters.udp_relayed, data.n);
	wg_lane_receive(lane->core, &data, &way, lane->now);
	return true;
}

/*
 * All peers behind a relay are one sender to the kernel: a train that it has joined may hold data of several,
 * and of sessions that are another lane's.
 */
static void receive_from_relay(struct lane *lane, const struct wg_path *from, const struct train *train)
{
	for (uint32_t first = 0, n; first < train->n; first += n) {
		n = count_alike(train, first);
		const struct train alike = train_slice(train, first, n);
		if (!take_alike(lane, &from->remote, &alike))
			post_datagrams(lane, DEMUX_RELAY, from, &alike);
	}
}

/* ---- from the network ---- */

/* Datagrams of one sender; runs of the same protocol stay together. */
static void receive_train(struct lane *lane, const struct wg_path *from, const struct train *train)
{
	uint32_t first = 0;

	while (first < train->n) {
		enum demux_kind kind =
			demux_datagram(train_packet(train, first), train_size(train, first));
		uint32_t n = 1;
		while (first + n < train->n &&
		       demux_datagram(train_packet(train, first + n), train_size(train, first + n)) == kind)
			n++;
		struct train run = train_slice(train, first, n);
		if (kind == DEMUX_WIREGUARD)
			wg_lane_receive(lane->core, &run, from, lane->now);
		else if (kind == DEMUX_RELAY)
			receive_from_relay(lane, from, &run);
		else
			post_datagrams(lane, kind, from, &run);
		first += n;
	}
}

static void receive_message(struct lane *lane, struct udp_message *message)
{
	struct train train;

	lane_count(&lane->counters.udp_messages, 1);
	lane_count(&lane->counters.udp_bytes, message->left);
	while (udp_message_next(message, &train)) {
		lane_count(&lane->counters.udp_datagrams, train.n);
		receive_train(lane, &message->from, &train);
	}
}

void lane_serve_udp(struct lane *lane, enum udp_family family)
{
	for (int i = 0; i < UDP_BURST; i++) {
		int n = udp_receive(lane->udp, lane->config.shard, family, lane->inbox);

		lane->has_delivered_datagrams = false;
		for (int k = 0; k < n; k++)
			receive_message(lane, &lane->inbox->messages[k]);
		/*
		 * Who reads what was just delivered may wait for this core: a datagram socket's buffer holds some
		 * 250 small packets, and one more burst would overflow it. Costs nothing when nobody waits. A
		 * stream's sender knows how much room its reader has, and to change over to that one after each
		 * burst costs a tenth of the rate.
		 */
		if (lane->has_delivered_datagrams)
			sched_yield();
		if (n < UDP_INBOX_MESSAGES) {
			lane->ready &= ~(1u << ((unsigned)SOURCE_UDP + family));
			return;
		}
	}
}

/* ---- from the loop, and from lanes that got what is not theirs ---- */

/* The loop waits for a lane that is just putting something. */
#define CLAIM_ATTEMPTS 1000

/* Head of a record in the ring of relayed datagrams; bytes follow. */
struct relayed {
	struct wg_path from;
	struct train train;
};

/* Copied out first: opening happens in place, and the ring's memory is the loop's to fill. */
void lane_serve_relayed(struct lane *lane)
{
	const struct relayed *relayed;
	size_t len;

	for (int i = 0; (relayed = ring_peek(&lane->relayed, &len)); i++) {
		if (i == RELAY_BURST) {
			lane->ready |= 1u << SOURCE_WAKE; /* the rest after the others */
			return;
		}
		struct train train = relayed->train;
		struct wg_path from = relayed->from;
		train.base = lane->relayed_buffer;
		memcpy(train.base, relayed + 1, len - sizeof(*relayed));
		ring_release(&lane->relayed);
		receive_train(lane, &from, &train);
	}
}

/* The ring takes from one at a time: the one who has the claim. */
static bool claim(struct lane *lane)
{
	return !atomic_exchange(&lane->is_claimed, true);
}

static int put_claimed(struct lane *lane, const struct wg_path *from, const struct train *datagrams)
{
	const size_t len = (size_t)train_bytes(datagrams);
	struct relayed *record =
		len <= UDP_MESSAGE_MAX ? ring_reserve(&lane->relayed, sizeof(*record) + len) : NULL;

	if (record) {
		train_copy((uint8_t *)(record + 1), datagrams);
		record->from = *from;
		record->train = *datagrams;
		record->train.stride = datagrams->size;
		ring_commit(&lane->relayed);
	}
	atomic_store(&lane->is_claimed, false);
	if (!record)
		return -EAGAIN;
	lane_wake(lane);
	return 0;
}

int lane_put_relayed(struct lane *lane, const struct wg_path *from, const struct train *datagrams)
{
	for (int i = 0; i < CLAIM_ATTEMPTS; i++) {
		if (claim(lane))
			return put_claimed(lane, from, datagrams);
		sched_yield();
	}
	return -EAGAIN;
}

int lane_pass_on(struct lane *lane, const struct wg_path *from, const struct train *datagrams)
{
	return claim(lane) ? put_claimed(lane, from, datagrams) : LANE_E_BUSY;
}
