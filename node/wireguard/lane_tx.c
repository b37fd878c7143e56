/*
 * From the TUN to the network: what is read becomes trains; a superpacket is one already, packets
 * that come alone are joined while there are more to read. Nothing waits for a packet that has not come.
 *
 * The TUN has more queues than lanes. The kernel puts each flow into one of them, and they are read in
 * turn, one read each: a small packet waits for one train of every other queue in use, not for all
 * that a bulk flow has sent before.
 */
#include "node/wireguard/lane_internal.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>

#include "node/wireguard/icmp.h"

/* So many packets before the other sources are looked at: about half a millisecond. */
#define TUN_BURST 256
/* A full socket is waited for so long before its packets are dropped. */
#define SEND_PATIENCE_MS 2
/* ICMP errors a second. */
#define MAX_REJECT_ANSWERS 100
#define MAX_TOO_BIG_ANSWERS 1000 /* each flow needs one */

/* The TUN is read into the first, superpackets are cut into the second. */
#define READ_ROOM   (OFFLOAD_MAX_PACKET + WG_OVERHEAD + 16)
#define READ_BUFFER (128u * 1024 + READ_ROOM)
/* The longest train of a cut: 64 packets of 1/64 superpacket, or one packet of 64 KB. */
#define CUT_BUFFER (WG_HEADROOM + OFFLOAD_MAX_PACKET + TRAIN_MAX * (120 + WG_OVERHEAD + 16))

void lane_tx_init(struct lane *lane)
{
	lane->read_buffer = lane_allocate(READ_BUFFER);
	lane->cut_buffer = lane_allocate(CUT_BUFFER);
}

void lane_tx_deinit(struct lane *lane)
{
	free(lane->read_buffer);
	free(lane->cut_buffer);
}

/* ---- sealed ---- */

/* A full socket is waited for, a little: dropping in the middle of a train costs a retransmission. */
static void send_all(struct lane *lane, const struct wg_path *path, const struct train *train)
{
	const uint32_t shard = lane->config.shard;
	struct train rest = *train;
	uint32_t sent = 0;
	int r = udp_send(lane->udp, shard, path, &rest, &sent);

	if (r == -EAGAIN) {
		enum udp_family family = endpoint_is_v4(&path->remote) ? UDP_V4 : UDP_V6;
		struct pollfd full = { .fd = udp_fd(lane->udp, shard, family), .events = POLLOUT };
		poll(&full, 1, SEND_PATIENCE_MS);
		rest = train_slice(train, sent, train->n - sent);
		r = udp_send(lane->udp, shard, path, &rest, &sent);
		if (r == -EAGAIN)
			lane_count(&lane->counters.sends_dropped, rest.n - sent);
	}
}

void lane_transmit(void *owner, struct wg_peer *peer, const struct wg_path *path, const struct train *train)
{
	struct lane *lane = owner;

	if (!wg_path_is_the_loops(path) && lane->udp)
		send_all(lane, path, train);
	else if (wg_path_is_the_loops(path) && lane->config.wants_relay)
		lane_outbox_relay(&lane->outbox, path, train);
}

/* ---- refused ---- */

static size_t make_answer(struct lane *lane, enum wg_drop why, const uint8_t *packet, size_t size, uint32_t mtu,
			  uint8_t ret[ICMP6_MAX_LEN])
{
	if (why == WG_DROP_OUT_NO_PEER && lane->n_reject_answers < MAX_REJECT_ANSWERS) {
		lane->n_reject_answers++;
		return icmp_unreachable(packet, size, ret);
	}
	if (why == WG_DROP_OUT_MTU && lane->n_too_big_answers < MAX_TOO_BIG_ANSWERS) {
		lane->n_too_big_answers++;
		return icmp_too_big(packet, size, mtu, ret);
	}
	return 0;
}

/* Nobody has this destination, or it cannot be so long: the sender is told, and need not wait for a timeout. */
void lane_reject(void *owner, enum wg_drop why, const uint8_t *packet, size_t size, uint32_t mtu)
{
	struct lane *lane = owner;
	uint64_t second = lane->now.ns / 1000000000;
	uint8_t answer[ICMP6_MAX_LEN];

	lane_count(&lane->counters.rejected, 1);
	if (lane->reject_second != second)
		lane->n_reject_answers = lane->n_too_big_answers = 0;
	lane->reject_second = second;
	size_t len = lane->n_tuns > 0 ? make_answer(lane, why, packet, size, mtu, answer) : 0;
	if (len == 0)
		return;
	struct train train = train_of_one(answer, len);
	(void)tun_write(&lane->tuns[0], &train);
}

/* ---- read ---- */

static void flush_pending(struct lane *lane)
{
	if (lane->pending.n > 0)
		wg_lane_send(lane->core, &lane->pending, lane->now);
	lane->pending.n = 0;
}

/* Where the next packet is read to: behind those pending, in its slot of the train. */
static uint8_t *read_position(struct lane *lane)
{
	uint8_t *start = lane->read_buffer + WG_HEADROOM;

	if (lane->pending.n == 0)
		return start;
	uint8_t *next = lane->pending.base + (size_t)lane->pending.n * lane->pending.stride;
	if (next + READ_ROOM <= lane->read_buffer + READ_BUFFER)
		return next;
	flush_pending(lane);
	return start;
}

/* A packet that came alone joins the train of its like, or begins a new one where it lies. */
static void add_pending(struct lane *lane, uint8_t *packet, uint32_t size)
{
	struct train *pending = &lane->pending;

	if (pending->n > 0 && size <= pending->size) {
		pending->n++;
		pending->last_size = size;
	} else {
		flush_pending(lane);
		*pending = train_of_one(packet, size);
		pending->stride = wg_slot_size(size, lane->mtu);
	}
	if (size < pending->size || pending->n == TRAIN_MAX)
		flush_pending(lane);
}

/* How many packets it was cut into. */
static uint32_t send_superpacket(struct lane *lane, struct offload_cut *cut)
{
	uint32_t stride = wg_slot_size(offload_packet_len(cut), lane->mtu);
	uint32_t max_n = (CUT_BUFFER - WG_HEADROOM) / stride;
	struct train train;

	if (max_n > TRAIN_MAX)
		max_n = TRAIN_MAX;
	while (offload_next(cut, lane->cut_buffer + WG_HEADROOM, stride, max_n, &train))
		wg_lane_send(lane->core, &train, lane->now);
	return cut->n_cut;
}

/* How many packets the read has brought. */
static uint32_t send_read(struct lane *lane, struct tun *tun, const struct offload_header *header,
			  uint8_t *packet, size_t len)
{
	struct offload_cut cut;
	bool is_super;

	int r = offload_begin(header, packet, len, &cut, &is_super);
	if (header->gso_type != OFFLOAD_GSO_NONE)
		tun_read_made_sense(tun, r == 0);
	if (r != 0) {
		flush_pending(lane);
		return 1;
	}
	if (!is_super) {
		add_pending(lane, packet, (uint32_t)len);
		return 1;
	}
	flush_pending(lane);
	return send_superpacket(lane, &cut);
}

/* The next queue, in turn, that may have something. */
static unsigned take_turn(struct lane *lane)
{
	unsigned queue = lane->next_queue;

	while (!(lane->ready & 1u << (SOURCE_TUN + queue)))
		queue = (queue + 1) % lane->n_tuns;
	lane->next_queue = (queue + 1) % lane->n_tuns;
	return queue;
}

void lane_serve_tun(struct lane *lane)
{
	struct offload_header header;
	uint32_t n_packets = 0, n_reads = 0;
	uint64_t n_bytes = 0;

	while (n_packets < TUN_BURST && lane->ready & SOURCES_TUN) {
		const unsigned queue = take_turn(lane);
		uint8_t *packet = read_position(lane);
		ssize_t len = tun_read(&lane->tuns[queue], &header, packet, OFFLOAD_MAX_PACKET);
		if (len <= 0) {
			lane->ready &= ~(1u << (SOURCE_TUN + queue));
			continue;
		}
		n_packets += send_read(lane, &lane->tuns[queue], &header, packet, (size_t)len);
		n_bytes += (size_t)len;
		n_reads++;
	}
	flush_pending(lane);
	lane_count(&lane->counters.tun_reads, n_reads);
	lane_count(&lane->counters.tun_packets, n_packets);
	lane_count(&lane->counters.tun_bytes, n_bytes);
}
