/*
 * Bugs that other implementations of WireGuard really had. Each test is named after what must hold;
 * the comment says who got it wrong. Those that are not here have their test where their subject is:
 *
 *   gotatun        the port was missing in the cookie   test_cookie: a_cookie_is_bound_to_address_and_port
 *                  a changed PSK was not applied        test_handshake: a_psk_on_one_side_only_makes_no_session
 *                  no jitter                            test_timers: retries_of_different_peers_are_spread
 *                  no padding                           test_data: every_size_arrives_as_it_was_and_padded_…
 *                  a partial sendmmsg lost the rest     test_udp_refused: a_socket_that_fills_up_is_gone_on_with_…
 *   wireguard-go   fragments, versions, TTLs and IP     test_offload: fragments_are_not_merged,
 *                  options mixed up in merging          another_version_…, time_to_live_…, ipv4_options_…
 *                  a header of the packet before        test_tun: a_single_packet_does_not_inherit_…
 *                  a wake-up was lost                   test_lane_threads: a_full_queue_is_told_and_nothing_accepted_…
 *                  closing under traffic hung           tests/net/test_p2pwg: it_ends_in_the_middle_of_traffic
 *   VPP            keys of a wrong length               test_uapi: values_outside_their_range_are_refused
 *                  no roaming, cookies, rate limit      test_paths, test_handshake, test_cookie
 *   Firezone       what was sent was sent again         test_udp_refused: what_was_taken_is_not_sent_again
 *                  UDP_SEGMENT above the payload        test_udp_refused: in all of it
 *   Linux          sessions freed under their readers   test_threads
 *   many           two handshakes in one 16.7 ms step   test_handshake: time_is_told_in_steps_of_16_7_ms
 */
#include "tests/unit/wireguard/tunnel.h"

#include "node/wireguard/device_internal.h"

#include <assert.h>
#include <netinet/in.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#define SECOND_NS UINT64_C(1000000000)

static struct world w;

static void later(uint64_t seconds)
{
	w.now.ns += seconds * SECOND_NS;
	w.now.real_ns += seconds * SECOND_NS;
}

/* ---- numbers ---- */

/* boringtun, gotatun: a counter of machine words wrapped on 32-bit machines. */
static void test_no_nonce_is_used_twice_beyond_32_bits(void)
{
	static uint8_t first[16];
	world_begin(&w);
	connect_both(&w);

	w.alice.peer->keypairs.current->next_counter = UINT32_MAX;
	say(&w.alice, 1, 100);
	say(&w.alice, 2, 100);
	memcpy(first, w.cable[0].bytes + 8, 8);
	assert(memcmp(first, "\xff\xff\xff\xff\0\0\0\0", 8) == 0);
	assert(memcmp(w.cable[1].bytes + 8, "\0\0\0\0\1\0\0\0", 8) == 0);
	cable_run(&w);
	assert(w.bob.n_inbox == 2);
	world_end(&w);
}

/* Past what the sender itself would check. */
static void seal_as(struct node *node, uint64_t counter, uint8_t *data, uint32_t n)
{
	struct wg_aead_packet packet = { .data = data, .counter = counter, .size = n };

	assert(wg_aead_seal_packets(&node->device->own->aead, node->peer->keypairs.current->seal_key,
				    &packet, 1) == 1);
}

/* gotatun: the limit of messages was not enforced. */
static void test_the_limit_of_messages_holds_for_sending_and_receiving(void)
{
	world_begin(&w);
	connect_both(&w);

	w.alice.peer->keypairs.current->next_counter = WG_REJECT_AFTER_MESSAGES;
	say(&w.alice, 1, 100);
	assert(w.n_cable == 0 && stats_of(&w.alice).n_staged == 1);

	struct wg_data_header header = { .receiver = w.bob.peer->keypairs.current->local_index,
					 .counter = WG_REJECT_AFTER_MESSAGES };
	struct datagram forged = { .from = &w.alice, .size = 64 };
	wg_data_header_encode(forged.bytes, &header);
	seal_as(&w.alice, header.counter, forged.bytes + 16, 32);
	hand_over(&w, &forged); /* rightly sealed, but over the limit */
	assert(drops_of(&w.bob, WG_DROP_EXPIRED_KEY) == 1);
	world_end(&w);
}

/* wireguard-lwip: the window was off by one, so the first packet after each rekey was dropped. */
static void test_the_first_packet_after_a_rekey_arrives(void)
{
	world_begin(&w);
	connect_both(&w);

	for (uint8_t i = 0; i < 5; i++) {
		later(121);
		say(&w.alice, i, 100); /* begins the rekey */
		cable_run(&w);
		assert(heard(&w.bob, i, 100));
		say(&w.alice, 99, 100);
		cable_run(&w);
		assert(heard(&w.bob, 99, 100));
	}
	world_end(&w);
}

/* gotatun: a window of 1024 lost packets on fast paths that reorder. */
static void test_a_packet_8000_behind_still_arrives(void)
{
	world_begin(&w);
	connect_both(&w);

	say(&w.alice, 1, 100);
	struct datagram old = cable_take(&w);
	w.alice.peer->keypairs.current->next_counter += 8000;
	say(&w.alice, 2, 100);
	cable_run(&w);
	assert(heard(&w.bob, 2, 100));
	hand_over(&w, &old);
	assert(heard(&w.bob, 1, 100));
	world_end(&w);
}

/* gotatun, boringtun: sequential session numbers told how many peers there are. */
static void test_indices_are_random(void)
{
	uint32_t indices[8];
	world_begin(&w);

	for (unsigned i = 0; i < 8; i++) {
		later(6);
		wg_peer_connect(w.alice.peer, w.now);
		memcpy(&indices[i], w.cable[0].bytes + 4, 4);
		cable_run(&w);
		for (unsigned j = 0; j < i; j++) {
			uint32_t distance = indices[i] > indices[j] ? indices[i] - indices[j] :
								      indices[j] - indices[i];
			assert(distance > 1000);
		}
	}
	world_end(&w);
}

/* ---- addresses ---- */

/* gotatun: the check passed when another peer owned a part of the prefix. */
static void test_the_source_must_be_this_peers_by_the_longest_prefix(void)
{
	const struct wg_prefix whole = { .family = AF_INET, .len = 8, .ip = { 10 } };
	const struct wg_prefix part = { .family = AF_INET, .len = 24, .ip = { 10, 9, 9 } };
	const struct public_key carol = { { 3 } };
	struct wg_peer *peer;
	uint8_t packet[100];
	world_begin(&w);
	connect_both(&w);

	assert(wg_peer_allow(w.bob.peer, &whole) == 0);
	assert(wg_device_add_peer(w.bob.device, &carol, &peer) == 0);
	assert(wg_peer_allow(peer, &part) == 0);
	make_packet(&w.alice, 1, 100, packet);
	packet[13] = packet[14] = 9; /* 10.9.9.1 is carol's */
	say_bytes(&w.alice, packet, sizeof(packet));
	cable_run(&w);
	assert(w.bob.n_inbox == 0 && drops_of(&w.bob, WG_DROP_SOURCE_IP) == 1);
	packet[14] = 8;
	say_bytes(&w.alice, packet, sizeof(packet));
	cable_run(&w);
	assert(w.bob.n_inbox == 1);
	world_end(&w);
}

/* gotatun: a cookie reply moved the endpoint. */
static void test_a_cookie_reply_moves_nothing(void)
{
	const struct wg_config config = { .mtu = 1420, .handshakes_per_second = 4 };
	world_begin_with(&w, &config);
	const struct endpoint home = w.bob.address;

	wg_peer_connect(w.alice.peer, w.now);
	struct datagram initiation = cable_take(&w);
	while (!wg_device_is_under_load(w.bob.device, w.now))
		hand_over(&w, &initiation);
	cable_lose(&w);
	hand_over(&w, &initiation);
	assert(w.n_cable == 1 && w.cable[0].bytes[0] == WG_MESSAGE_COOKIE_REPLY);
	struct datagram reply = cable_take(&w);
	w.bob.address.port = 1;
	hand_over(&w, &reply);
	assert(endpoint_equal(&wg_peer_route(w.alice.peer)->paths[0].remote, &home));
	assert(drops_of(&w.alice, WG_DROP_COOKIE_REPLY) == 0);
	assert(stats_of(&w.alice).rx_bytes == 0 && stats_of(&w.alice).direct.ns == 0);
	hand_over(&w, &reply); /* nor does a repeated one */
	assert(drops_of(&w.alice, WG_DROP_COOKIE_REPLY) == 1);
	world_end(&w);
}

/* gotatun: the endpoint was updated by initiations only. */
static void test_data_moves_a_roaming_peer(void)
{
	world_begin(&w);
	connect_both(&w);

	w.alice.address.port = 1;
	say(&w.alice, 1, 100);
	cable_run(&w);
	assert(wg_peer_route(w.bob.peer)->paths[0].remote.port == 1);
	world_end(&w);
}

/* ---- timers ---- */

/* gotatun: keepalives were answered with keepalives, for ever. */
static void test_a_keepalive_is_not_answered(void)
{
	world_begin(&w);
	connect_both(&w);
	wait_s(&w, 60);

	uint32_t before = w.n_sent;
	wg_peer_send_keepalive(w.alice.peer, w.now);
	cable_run(&w);
	wait_s(&w, 100);
	assert(w.n_sent == before + 1);
	world_end(&w);
}

/* gotatun: the timer ran from the last packet sent, not from the first that was received. */
static void test_the_keepalive_is_10_seconds_after_the_first_unanswered_packet(void)
{
	world_begin(&w);
	connect_both(&w);
	wait_s(&w, 60);
	w.trace_datagrams = true;

	for (uint8_t i = 0; i < 9; i++) {
		say(&w.alice, i, 100);
		cable_run(&w);
		wait_s(&w, 1);
	}
	w.trace[0] = '\0';
	wait_s(&w, 5);
	expect_trace(&w, "[ 70] bob: send keepalive\n");
	world_end(&w);
}

/* gotatun: persistent keepalives went out although there was traffic. */
static void test_traffic_spares_persistent_keepalives(void)
{
	world_begin(&w);
	connect_both(&w);
	wg_peer_set_keepalive(w.bob.peer, 5, w.now);
	cable_run(&w);

	uint64_t before = stats_of(&w.bob).tx_bytes;
	for (uint8_t i = 0; i < 30; i++) {
		wait_s(&w, 1);
		say(&w.alice, i, 100);
		cable_run(&w);
	}
	assert(stats_of(&w.bob).tx_bytes - before <= 3 * 32); /* only what answers alice's data */
	world_end(&w);
}

/* gotatun: a response that came later than 250 ms was thrown away. */
static void test_a_response_may_come_seconds_later(void)
{
	world_begin(&w);

	say(&w.alice, 1, 100);
	struct datagram initiation = cable_take(&w);
	hand_over(&w, &initiation);
	struct datagram response = cable_take(&w);
	later(4);
	hand_over(&w, &response);
	cable_run(&w);
	assert(heard(&w.bob, 1, 100));
	world_end(&w);
}

/* ---- load ---- */

/* gotatun: every handshake after the hundredth got a cookie. */
static void test_a_thousand_handshakes_in_peace_need_no_cookie(void)
{
	world_begin(&w);

	for (int i = 0; i < 1000; i++) {
		later(6);
		wg_peer_connect(w.alice.peer, w.now);
		cable_run(&w);
		w.trace[0] = '\0';
	}
	assert(drops_of(&w.bob, WG_DROP_COOKIE_REQUIRED) == 0);
	assert(stats_of(&w.alice).handshake_attempts == 0);
	world_end(&w);
}

/* gotatun: one attacker's flood used up everybody's allowance. */
static void test_a_flood_from_one_source_leaves_others_their_share(void)
{
	const struct wg_config config = { .mtu = 1420, .handshakes_per_second = 4 };
	world_begin_with(&w, &config);
	const struct endpoint home = w.alice.address;

	/* Alice gets a cookie, from home. */
	wg_peer_connect(w.alice.peer, w.now);
	struct datagram old = cable_take(&w);
	while (!wg_device_is_under_load(w.bob.device, w.now))
		hand_over(&w, &old);
	cable_lose(&w);
	hand_over(&w, &old);
	cable_run(&w);

	/* Somebody else floods; that alice must still be heard is what counts. */
	later(6);
	wg_peer_connect(w.alice.peer, w.now);
	struct datagram good = cable_take(&w);
	w.alice.address = endpoint_from_v4(0x01020304, 5);
	for (int i = 0; i < 400; i++)
		hand_over(&w, &old);
	cable_lose(&w);
	w.alice.address = home;
	hand_over(&w, &good);
	cable_run(&w);
	assert(stats_of(&w.alice).has_session);
	world_end(&w);
}

/* ---- bad input ---- */

/* gotatun, boringtun: a datagram of an unexpected size ended the program or the task. */
static void test_datagrams_of_every_size_and_type_are_survived(void)
{
	world_begin(&w);
	connect_both(&w);
	static uint8_t bytes[65535];
	const struct wg_path from = { .remote = w.alice.address };

	for (uint32_t n = 0; n < sizeof(bytes); n += n < 200 ? 1 : 997) {
		for (uint8_t type = 0; type < 6; type++) {
			randombytes_buf(bytes, n);
			if (n >= 4)
				memcpy(bytes, (uint8_t[]){ type, 0, 0, 0 }, 4);
			if (n >= 8)
				memcpy(bytes + 4, &w.bob.peer->keypairs.current->local_index, 4);
			struct train train = train_of_one(bytes, n);
			wg_device_receive(w.bob.device, &train, &from, w.now);
		}
	}
	assert(w.bob.n_inbox == 0 && w.n_cable == 0);
	assert(drops_of(&w.bob, WG_DROP_MALFORMED) > 100 && drops_of(&w.bob, WG_DROP_FORGED) > 100);
	say(&w.alice, 1, 100);
	cable_run(&w);
	assert(heard(&w.bob, 1, 100));
	world_end(&w);
}

/* wireguard-go, VPP: lengths of inner packets were not checked exactly. */
static void test_inner_packets_with_lying_lengths_are_dropped(void)
{
	uint8_t v4[40] = { 0x45, 0, 0, 60, [12] = 10, 0, 0, 1, 10, 0, 0, 2 };
	uint8_t v6[40] = { 0x60, [4] = 0xff, 0xff, [8] = 0xfd, [23] = 1, 0xfd, [39] = 2 };
	world_begin(&w);
	connect_both(&w);

	const uint8_t *const packets[] = { v4, v6 };
	for (uint64_t i = 0; i < 2; i++) {
		struct wg_data_header header = { .receiver = w.bob.peer->keypairs.current->local_index,
						 .counter = 1000 + i };
		struct datagram datagram = { .from = &w.alice, .size = 16 + 48 + 16 };
		wg_data_header_encode(datagram.bytes, &header);
		memcpy(datagram.bytes + 16, packets[i], 40);
		seal_as(&w.alice, header.counter, datagram.bytes + 16, 48);
		hand_over(&w, &datagram);
	}
	assert(w.bob.n_inbox == 0 && drops_of(&w.bob, WG_DROP_NOT_IP) == 2);
	world_end(&w);
}

/* wireguard-go: zero results of Diffie-Hellman were checked in some places only. */
static void test_a_peer_with_a_key_of_low_order_can_do_nothing(void)
{
	const struct public_key zero = { { 0 } };
	struct wg_peer *peer;
	world_begin(&w);

	assert(wg_device_add_peer(w.alice.device, &zero, &peer) == 0);
	const struct wg_route route = { .n = 1, .paths = { { .remote = w.bob.address } } };
	wg_peer_set_route(peer, &route, w.now);
	wg_peer_connect(peer, w.now);
	wg_peer_set_keepalive(peer, 5, w.now);
	assert(w.n_sent == 0);
	world_end(&w);
}

/* Kernel: a peer half torn down was still found by its index. */
static void test_a_removed_peer_is_not_found_by_its_indices(void)
{
	world_begin(&w);
	connect_both(&w);

	say(&w.alice, 1, 100);
	later(6);
	wg_peer_connect(w.bob.peer, w.now); /* a handshake waits as well */
	wg_device_remove_peer(w.bob.device, w.bob.peer);
	w.bob.peer = NULL;
	cable_run(&w);
	assert(w.bob.n_inbox == 0 && w.bob.device->indices.n == 0);
	assert(wg_device_next_deadline(w.bob.device) == UINT64_MAX);
	world_end(&w);
}

/* Firezone: batching by length put packets of one flow out of order. */
static void test_packets_of_changing_lengths_stay_in_order(void)
{
	static const uint32_t sizes[] = { 1400, 100, 1400, 1400, 60, 60, 1400, 200, 1399, 1400, 60, 1000 };
	world_begin(&w);

	for (uint8_t i = 0; i < ARRAY_LEN(sizes); i++)
		say(&w.alice, i, sizes[i]); /* they wait for the handshake … */
	cable_run(&w);
	for (uint8_t i = 0; i < ARRAY_LEN(sizes); i++)
		say(&w.alice, i, sizes[i]); /* … and these do not */
	cable_run(&w);
	assert(w.bob.n_inbox == 2 * ARRAY_LEN(sizes));
	for (uint32_t i = 0; i < w.bob.n_inbox; i++) {
		uint8_t expected[DATAGRAM_MAX], mark = (uint8_t)(i % ARRAY_LEN(sizes));
		uint32_t size = make_packet(&w.alice, mark, sizes[mark], expected);
		assert(w.bob.inbox[i].size == size && memcmp(w.bob.inbox[i].bytes, expected, size) == 0);
	}
	world_end(&w);
}

/* wireguard-go: containers of packets leaked, until none was left and everything stood still. */
static void test_room_for_waiting_packets_is_whole_again_after_every_end(void)
{
	const struct wg_config config = { .mtu = 1420, .n_staged = 64 };
	world_begin_with(&w, &config);

	for (int i = 0; i < 20; i++) {
		uint64_t before = drops_of(&w.alice, WG_DROP_OUT_STAGED);
		for (uint8_t n = 0; n < 64; n++)
			say(&w.alice, n, 100);
		assert(stats_of(&w.alice).n_staged == 64);
		assert(drops_of(&w.alice, WG_DROP_OUT_STAGED) == before); /* all have found room */
		if (i % 2)
			wait_s_deaf(&w, 120); /* given up */
		else
			cable_run(&w); /* sent */
		assert(stats_of(&w.alice).n_staged == 0);
		wait_s_deaf(&w, 600); /* keys are wiped */
		w.bob.n_inbox = 0;
		w.trace[0] = '\0';
	}
	world_end(&w);
}

/*
 * CVE-2021-46873, of the protocol itself: a peer whose clock was set ahead for a moment is refused
 * until its clock gets there. What it said is not kept anywhere: a restart of the refusing side, or
 * removing the peer there, is the way out.
 */
static void test_a_clock_that_was_ahead_is_forgotten_with_the_peer(void)
{
	struct wg_peer *peer;
	world_begin(&w);

	w.now.real_ns += 365 * 86400 * SECOND_NS;
	connect_both(&w);
	w.now.real_ns -= 365 * 86400 * SECOND_NS;
	wg_device_remove_peer(w.alice.device, w.alice.peer); /* alice too is new, and her clock right */
	assert(wg_device_add_peer(w.alice.device, &w.bob.public, &w.alice.peer) == 0);
	const struct wg_route route = { .n = 1, .paths = { { .remote = w.bob.address } } };
	wg_peer_set_route(w.alice.peer, &route, w.now);
	wg_peer_connect(w.alice.peer, w.now);
	cable_run(&w);
	assert(drops_of(&w.bob, WG_DROP_TIMESTAMP) == 1 && !stats_of(&w.alice).has_session);

	wg_device_remove_peer(w.bob.device, w.bob.peer);
	assert(wg_device_add_peer(w.bob.device, &w.alice.public, &peer) == 0);
	w.bob.peer = peer;
	later(6);
	wg_peer_connect(w.alice.peer, w.now);
	cable_run(&w);
	assert(stats_of(&w.alice).has_session);
	world_end(&w);
}

int main(void)
{
	test_no_nonce_is_used_twice_beyond_32_bits();
	test_the_limit_of_messages_holds_for_sending_and_receiving();
	test_the_first_packet_after_a_rekey_arrives();
	test_a_packet_8000_behind_still_arrives();
	test_indices_are_random();
	test_the_source_must_be_this_peers_by_the_longest_prefix();
	test_a_cookie_reply_moves_nothing();
	test_data_moves_a_roaming_peer();
	test_a_keepalive_is_not_answered();
	test_the_keepalive_is_10_seconds_after_the_first_unanswered_packet();
	test_traffic_spares_persistent_keepalives();
	test_a_response_may_come_seconds_later();
	test_a_thousand_handshakes_in_peace_need_no_cookie();
	test_a_flood_from_one_source_leaves_others_their_share();
	test_datagrams_of_every_size_and_type_are_survived();
	test_inner_packets_with_lying_lengths_are_dropped();
	test_a_peer_with_a_key_of_low_order_can_do_nothing();
	test_a_removed_peer_is_not_found_by_its_indices();
	test_packets_of_changing_lengths_stay_in_order();
	test_room_for_waiting_packets_is_whole_again_after_every_end();
	test_a_clock_that_was_ahead_is_forgotten_with_the_peer();
	puts("ok");
}
