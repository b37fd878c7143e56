/*
 * Packets through a session: trains, order, replays, forgeries, padding, addresses, ECN.
 */
#include "tests/unit/wireguard/tunnel.h"

#include "node/wireguard/device_internal.h"
#include "node/wireguard/ip_packet.h"

#include <assert.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct world w;

static void begin_connected(void)
{
	world_begin(&w);
	connect_both(&w);
}

/* ---- trains ---- */

/* All datagrams of the cable, which are of one size, as one train to bob. */
static void hand_over_as_train(void)
{
	struct train train = { .n = w.n_cable, .stride = w.cable[0].size + 5, .size = w.cable[0].size,
			       .last_size = w.cable[w.n_cable - 1].size };
	struct wg_path from = { .remote = w.alice.address };

	train.base = malloc((size_t)train.n * train.stride);
	for (uint32_t i = 0; i < train.n; i++)
		memcpy(train_packet(&train, i), w.cable[i].bytes, w.cable[i].size);
	cable_lose(&w);
	wg_device_receive(w.bob.device, &train, &from, w.now);
	free(train.base);
}

static void test_a_train_of_64_arrives_whole_and_in_order(void)
{
	begin_connected();

	say_train(&w.alice, 10, 64, 1420);
	assert(w.n_cable == 64 && w.cable[0].size == 1452);
	hand_over_as_train();
	assert(w.bob.n_inbox == 64);
	for (unsigned i = 0; i < 64; i++)
		assert(w.bob.inbox[i].bytes[20] == (uint8_t)(10 + i + 20 * 7));
	assert(stats_of(&w.bob).rx_packets == 65);
	world_end(&w);
}

static void test_bad_packets_of_a_train_do_not_hurt_their_neighbours(void)
{
	begin_connected();

	say_train(&w.alice, 10, 8, 200);
	w.cable[2].bytes[50] ^= 1;    /* forged */
	w.cable[5] = w.cable[4];      /* repeated */
	w.cable[7].bytes[4] ^= 1;     /* unknown index */
	hand_over_as_train();
	assert(w.bob.n_inbox == 5);
	assert(drops_of(&w.bob, WG_DROP_FORGED) == 1);
	assert(drops_of(&w.bob, WG_DROP_REPLAY) == 1);
	assert(drops_of(&w.bob, WG_DROP_UNKNOWN_INDEX) == 1);
	world_end(&w);
}

static uint32_t n_trains, sizes[16];

static void count_train(void *owner, struct wg_peer *peer, const struct train *train)
{
	for (uint32_t i = 0; i < train->n; i++)
		sizes[i % ARRAY_LEN(sizes)] = train_size(train, i);
	n_trains++;
}

static void test_equal_packets_are_delivered_as_one_train_with_a_shorter_last(void)
{
	begin_connected();
	w.bob.device->ports.deliver = count_train;
	n_trains = 0;

	say_train(&w.alice, 1, 3, 200);
	say(&w.alice, 9, 195); /* padded to the same size, but shorter by its own header */
	hand_over_as_train();
	assert(n_trains == 1);
	assert(sizes[0] == 200 && sizes[2] == 200 && sizes[3] == 195);
	world_end(&w);
}

static void count_sent(void *owner, struct wg_peer *peer, const struct wg_path *path,
		       const struct train *train)
{
	assert(train_is_contiguous(train));
	sizes[0] = train->size;
	sizes[1] = train->last_size;
	n_trains++;
}

static void test_a_train_leaves_without_gaps_with_a_shorter_last(void)
{
	uint8_t buffer[WG_HEADROOM + 4 * 1500];
	struct train train = { .base = buffer + WG_HEADROOM, .n = 4, .stride = wg_slot_size(1000, 1420),
			       .size = 1000, .last_size = 60 };
	begin_connected();
	w.alice.device->ports.transmit = count_sent;
	n_trains = 0;

	for (uint32_t i = 0; i < 4; i++)
		make_packet(&w.alice, 1, train_size(&train, i), train_packet(&train, i));
	wg_device_send(w.alice.device, &train, w.now);
	assert(n_trains == 1 && sizes[0] == 1008 + 32 && sizes[1] == 64 + 32);
	world_end(&w);
}

static void test_a_train_for_two_peers_is_cut_between_them(void)
{
	uint8_t buffer[WG_HEADROOM + 4 * 200];
	struct train train = { .base = buffer + WG_HEADROOM, .n = 4, .stride = wg_slot_size(100, 1420),
			       .size = 100, .last_size = 100 };
	begin_connected();

	for (uint32_t i = 0; i < 4; i++)
		make_packet(&w.alice, (uint8_t)i, 100, train_packet(&train, i));
	train_packet(&train, 1)[19] = 77; /* nobody has that address */
	train_packet(&train, 2)[0] = 0x50; /* no IP at all */
	wg_device_send(w.alice.device, &train, w.now);
	cable_run(&w);
	assert(w.bob.n_inbox == 2 && w.alice.n_rejected == 2);
	assert(drops_of(&w.alice, WG_DROP_OUT_NO_PEER) == 1);
	assert(drops_of(&w.alice, WG_DROP_OUT_NOT_IP) == 1);
	world_end(&w);
}

/* ---- what fits ---- */

static void send_sized(uint32_t n, uint32_t size, bool dont_fragment)
{
	static uint8_t buffer[WG_HEADROOM + 4 * 2100];
	struct train train = { .base = buffer + WG_HEADROOM, .n = n, .stride = wg_slot_size(size, 1420),
			       .size = size, .last_size = size };

	for (uint32_t i = 0; i < n; i++) {
		make_packet(&w.alice, 1, size, train_packet(&train, i));
		train_packet(&train, i)[6] = dont_fragment ? 0x40 : 0;
	}
	wg_device_send(w.alice.device, &train, w.now);
	cable_run(&w);
}

static void test_what_is_longer_than_the_peers_mtu_is_refused_unless_it_may_be_fragmented(void)
{
	begin_connected();
	wg_peer_set_mtu(w.alice.peer, 1328);
	w.bob.n_inbox = 0;

	send_sized(3, 1329, true);
	assert(w.bob.n_inbox == 0 && w.alice.n_rejected == 3 && w.alice.rejected_mtu == 1328);
	assert(drops_of(&w.alice, WG_DROP_OUT_MTU) == 3);
	send_sized(3, 1329, false);
	assert(w.bob.n_inbox == 3 && w.alice.n_rejected == 3);
	send_sized(3, 1328, true);
	assert(w.bob.n_inbox == 6);
	wg_peer_set_mtu(w.alice.peer, 0);
	send_sized(3, 1400, true);
	assert(w.bob.n_inbox == 9 && w.alice.n_rejected == 3);
	world_end(&w);
}

/* Behind a packet of 1200 bytes a SYN that offers 8888; what the other end hears. */
static uint32_t mss_behind_a_large_packet(void)
{
	static uint8_t buffer[WG_HEADROOM + 2 * 1400];
	static const uint8_t tcp[] = { [0] = 0x30, 0x39, 0, 80, [12] = 0x60, 0x02 /* SYN */, [20] = 2, 4, 0x22, 0xb8 };
	struct train train = { .base = buffer + WG_HEADROOM, .n = 2, .stride = wg_slot_size(1200, 1420),
			       .size = 1200, .last_size = 20 + sizeof(tcp) };
	uint8_t *syn = train_packet(&train, 1);

	make_packet(&w.alice, 1, 1200, train_packet(&train, 0));
	make_packet(&w.alice, 2, train.last_size, syn);
	syn[9] = 6;
	memcpy(syn + 20, tcp, sizeof(tcp));
	w.bob.n_inbox = 0;
	wg_device_send(w.alice.device, &train, w.now);
	cable_run(&w);
	assert(w.bob.n_inbox == 2 && w.bob.inbox[1].size == train.last_size);
	return (uint32_t)w.bob.inbox[1].bytes[42] << 8 | w.bob.inbox[1].bytes[43];
}

static void test_syns_offer_what_the_path_takes_whichever_end_knows_it(void)
{
	begin_connected();

	assert(mss_behind_a_large_packet() == 8888);
	wg_peer_set_mtu(w.alice.peer, 1328);
	assert(mss_behind_a_large_packet() == 1328 - 40);
	wg_peer_set_mtu(w.alice.peer, 0);
	wg_peer_set_mtu(w.bob.peer, 1300);
	assert(mss_behind_a_large_packet() == 1300 - 40);
	world_end(&w);
}

/* ---- sizes ---- */

static void test_every_size_arrives_as_it_was_and_padded_on_the_way(void)
{
	begin_connected();

	for (uint32_t n = 20; n <= 1420; n += n < 60 ? 1 : 17) {
		say(&w.alice, (uint8_t)n, n);
		assert(w.cable[0].size == wg_padded_size(n, 1420) + WG_OVERHEAD);
		assert(w.cable[0].size % 16 == 0 || w.cable[0].size == 1452);
		cable_run(&w);
		assert(heard(&w.bob, (uint8_t)n, n));
	}
	world_end(&w);
}

static void test_packets_longer_than_the_mtu_pass_too(void)
{
	begin_connected();

	for (uint32_t n = 1421; n <= 1960; n += 49) {
		say(&w.alice, 5, n);
		cable_run(&w);
		assert(heard(&w.bob, 5, n));
	}
	wg_device_set_mtu(w.alice.device, 1280);
	wg_device_remove_peer(w.bob.device, w.bob.peer); /* the session of alice is worth nothing now */
	w.bob.peer = NULL;
	world_end(&w);
}

static void test_too_long_to_wait_is_dropped_and_counted(void)
{
	const struct wg_config config = { .mtu = 1420, .staged_size = 1000 };
	world_begin_with(&w, &config);

	say(&w.alice, 1, 1001);
	say(&w.alice, 2, 1000);
	assert(drops_of(&w.alice, WG_DROP_OUT_TOO_BIG) == 1);
	cable_run(&w);
	assert(heard(&w.bob, 2, 1000));
	world_end(&w);
}

static void test_bytes_are_counted_with_their_overhead(void)
{
	world_begin(&w);

	say(&w.alice, 1, 100);
	cable_run(&w);
	assert(stats_of(&w.alice).tx_bytes == 148 + 112 + 32);
	assert(stats_of(&w.alice).rx_bytes == 92);
	assert(stats_of(&w.bob).rx_bytes == 148 + 112 + 32);
	assert(stats_of(&w.bob).tx_bytes == 92);
	assert(stats_of(&w.alice).tx_packets == 1 && stats_of(&w.bob).rx_packets == 1);
	world_end(&w);
}

/* ---- order and repeats ---- */

static void test_reordered_packets_all_arrive_repeated_ones_do_not(void)
{
	struct datagram first;
	begin_connected();

	say(&w.alice, 1, 100);
	first = cable_take(&w);
	say(&w.alice, 2, 100);
	cable_run(&w);
	assert(heard(&w.bob, 2, 100));
	hand_over(&w, &first);
	assert(heard(&w.bob, 1, 100));
	hand_over(&w, &first);
	assert(w.bob.n_inbox == 0 && drops_of(&w.bob, WG_DROP_REPLAY) == 1);
	world_end(&w);
}

static void test_a_packet_behind_the_window_is_refused(void)
{
	begin_connected();
	say(&w.alice, 1, 100);
	struct datagram old = cable_take(&w);

	w.alice.peer->keypairs.current->next_counter += REPLAY_WINDOW + 1;
	say(&w.alice, 2, 100);
	cable_run(&w);
	hand_over(&w, &old);
	assert(heard(&w.bob, 2, 100) && drops_of(&w.bob, WG_DROP_REPLAY) == 1);
	world_end(&w);
}

static void test_a_forged_counter_does_not_move_the_window(void)
{
	begin_connected();

	say(&w.alice, 1, 100);
	struct datagram forged = w.cable[0];
	forged.bytes[12] = 0xff; /* far ahead */
	hand_over(&w, &forged);
	assert(drops_of(&w.bob, WG_DROP_FORGED) == 1);
	cable_run(&w);
	assert(heard(&w.bob, 1, 100));
	world_end(&w);
}

/* ---- addresses ---- */

static void test_a_source_address_that_is_not_the_peers_is_dropped(void)
{
	uint8_t packet[100];
	begin_connected();

	make_packet(&w.alice, 1, 100, packet);
	packet[15] = 9; /* 10.0.0.9 is nobody */
	say_bytes(&w.alice, packet, sizeof(packet));
	make_packet(&w.alice, 1, 100, packet);
	packet[15] = 2; /* bob himself */
	say_bytes(&w.alice, packet, sizeof(packet));
	cable_run(&w);
	assert(w.bob.n_inbox == 0 && drops_of(&w.bob, WG_DROP_SOURCE_IP) == 2);
	world_end(&w);
}

static void test_version_6_packets_pass_too(void)
{
	uint8_t packet[48] = { 0x60, [5] = 8, 17, 64, 0xfd, [23] = 1, 0xfd, [39] = 2 };
	begin_connected();

	say_bytes(&w.alice, packet, sizeof(packet));
	cable_run(&w);
	assert(w.bob.n_inbox == 1 && w.bob.inbox[0].size == 48);
	packet[23] = 3;
	say_bytes(&w.alice, packet, sizeof(packet));
	cable_run(&w);
	assert(w.bob.n_inbox == 1 && drops_of(&w.bob, WG_DROP_SOURCE_IP) == 1);
	world_end(&w);
}

/* ---- ECN ---- */

static void test_ecn_goes_outside_and_marks_come_inside(void)
{
	uint8_t packet[100];
	begin_connected();

	make_packet(&w.alice, 1, 100, packet);
	packet[1] = 0xb8 | IP_ECN_ECT0;
	say_bytes(&w.alice, packet, sizeof(packet));
	assert(w.cable[0].ds == IP_ECN_ECT0); /* the DSCP stays inside */
	w.cable[0].ds = IP_ECN_CE;
	cable_run(&w);
	assert(w.bob.n_inbox == 1 && w.bob.inbox[0].bytes[1] == (0xb8 | IP_ECN_CE));

	say(&w.alice, 2, 100); /* does not speak ECN */
	w.cable[0].ds = IP_ECN_CE;
	cable_run(&w);
	assert(w.bob.n_inbox == 1 && drops_of(&w.bob, WG_DROP_CONGESTION) == 1);
	world_end(&w);
}

int main(void)
{
	test_a_train_of_64_arrives_whole_and_in_order();
	test_bad_packets_of_a_train_do_not_hurt_their_neighbours();
	test_equal_packets_are_delivered_as_one_train_with_a_shorter_last();
	test_a_train_leaves_without_gaps_with_a_shorter_last();
	test_a_train_for_two_peers_is_cut_between_them();
	test_what_is_longer_than_the_peers_mtu_is_refused_unless_it_may_be_fragmented();
	test_every_size_arrives_as_it_was_and_padded_on_the_way();
	test_syns_offer_what_the_path_takes_whichever_end_knows_it();
	test_packets_longer_than_the_mtu_pass_too();
	test_too_long_to_wait_is_dropped_and_counted();
	test_bytes_are_counted_with_their_overhead();
	test_reordered_packets_all_arrive_repeated_ones_do_not();
	test_a_packet_behind_the_window_is_refused();
	test_a_forged_counter_does_not_move_the_window();
	test_a_source_address_that_is_not_the_peers_is_dropped();
	test_version_6_packets_pass_too();
	test_ecn_goes_outside_and_marks_come_inside();
	puts("ok");
}
