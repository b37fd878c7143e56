/*
 * Handshakes between two devices: who says what, in both roles, what is refused, and what a device
 * does when it is under load.
 */
#include "tests/unit/wireguard/tunnel.h"

#include "node/wireguard/message_wire.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define SECOND_NS UINT64_C(1000000000)

static struct world w;

static void flip(struct datagram *datagram, uint32_t at)
{
	datagram->bytes[at] ^= 0x20;
}

/* ---- the exchange ---- */

static void test_a_first_packet_makes_a_session_and_then_arrives(void)
{
	world_begin(&w);
	w.trace_datagrams = true;

	say(&w.alice, 1, 100);
	cable_run(&w);

	expect_trace(&w,
		"[  0] alice: send initiation\n"
		"[  0] bob: roamed\n"
		"[  0] bob: send response\n"
		"[  0] alice: session\n"
		"[  0] alice: send data\n"
		"[  0] bob: session\n");
	assert(heard(&w.bob, 1, 100));
	say(&w.bob, 2, 1420);
	cable_run(&w);
	assert(heard(&w.alice, 2, 1420));
	world_end(&w);
}

static void test_without_data_the_initiator_confirms_with_a_keepalive(void)
{
	world_begin(&w);
	w.trace_datagrams = true;

	wg_peer_connect(w.alice.peer, w.now);
	cable_run(&w);

	expect_trace(&w,
		"[  0] alice: send initiation\n"
		"[  0] bob: roamed\n"
		"[  0] bob: send response\n"
		"[  0] alice: session\n"
		"[  0] alice: send keepalive\n"
		"[  0] bob: session\n");
	assert(stats_of(&w.bob).rx_packets == 0);
	world_end(&w);
}

static void test_the_responder_does_not_send_before_it_hears_that_its_response_arrived(void)
{
	world_begin(&w);

	say(&w.alice, 1, 100);
	struct datagram initiation = cable_take(&w);
	hand_over(&w, &initiation);
	cable_lose(&w); /* the response */
	say(&w.bob, 2, 100);
	assert(!stats_of(&w.bob).has_session && stats_of(&w.bob).n_staged == 1);
	assert(w.n_cable == 0); /* nor an initiation: a response was sent less than 5 s ago */
	world_end(&w);
}

static void test_both_begin_at_once_and_both_succeed_without_waiting(void)
{
	world_begin(&w);
	const struct wg_route to_alice = { .n = 1, .paths = { { .remote = w.alice.address } } };
	wg_peer_set_route(w.bob.peer, &to_alice, w.now);

	say(&w.alice, 1, 100);
	say(&w.bob, 2, 100);
	cable_run(&w); /* the initiations cross */

	assert(heard(&w.bob, 1, 100) && heard(&w.alice, 2, 100));
	say(&w.alice, 3, 100);
	say(&w.bob, 4, 100);
	cable_run(&w);
	assert(heard(&w.bob, 3, 100) && heard(&w.alice, 4, 100));
	world_end(&w);
}

static void test_a_lost_initiation_is_repeated(void)
{
	world_begin(&w);

	say(&w.alice, 1, 100);
	cable_lose(&w);
	wait_s(&w, 6);
	assert(heard(&w.bob, 1, 100));
	world_end(&w);
}

static void test_a_lost_response_is_repeated(void)
{
	world_begin(&w);

	say(&w.alice, 1, 100);
	struct datagram initiation = cable_take(&w);
	hand_over(&w, &initiation);
	cable_lose(&w);
	wait_s(&w, 6);
	assert(heard(&w.bob, 1, 100));
	world_end(&w);
}

static void test_packets_that_wait_arrive_in_order_the_last_128(void)
{
	world_begin(&w);

	for (unsigned i = 0; i < 140; i++)
		say(&w.alice, (uint8_t)i, 100);
	assert(drops_of(&w.alice, WG_DROP_OUT_STAGED) == 12);
	cable_run(&w);
	assert(w.bob.n_inbox == 128);
	for (unsigned i = 0; i < 128; i++)
		assert(w.bob.inbox[i].bytes[20] == (uint8_t)(i + 12 + 20 * 7));
	world_end(&w);
}

/* ---- what is refused ---- */

static void test_every_changed_byte_of_the_exchange_is_refused(void)
{
	world_begin(&w);

	say(&w.alice, 1, 100);
	struct datagram initiation = cable_take(&w);
	for (uint32_t i = 0; i < 132; i++) { /* without mac2, which counts only under load */
		flip(&initiation, i);
		hand_over(&w, &initiation);
		flip(&initiation, i);
	}
	assert(w.n_cable == 0 && stats_of(&w.bob).rx_bytes == 0);
	assert(wg_peer_route(w.bob.peer)->n == 0);

	hand_over(&w, &initiation);
	struct datagram response = cable_take(&w);
	for (uint32_t i = 0; i < 76; i++) {
		flip(&response, i);
		hand_over(&w, &response);
		flip(&response, i);
	}
	assert(w.n_cable == 0 && !stats_of(&w.alice).has_session);
	hand_over(&w, &response);
	assert(stats_of(&w.alice).has_session);
	world_end(&w);
}

static void test_a_repeated_initiation_is_refused(void)
{
	world_begin(&w);

	say(&w.alice, 1, 100);
	struct datagram initiation = w.cable[0];
	cable_run(&w);
	w.now.ns += SECOND_NS;
	hand_over(&w, &initiation);
	assert(drops_of(&w.bob, WG_DROP_TIMESTAMP) == 1 && w.n_cable == 0);
	world_end(&w);
}

static void test_a_repeated_response_is_refused(void)
{
	world_begin(&w);

	say(&w.alice, 1, 100);
	struct datagram initiation = cable_take(&w);
	hand_over(&w, &initiation);
	struct datagram response = w.cable[0];
	cable_run(&w);
	hand_over(&w, &response);
	assert(drops_of(&w.alice, WG_DROP_UNKNOWN_INDEX) == 1);
	say(&w.alice, 2, 100);
	cable_run(&w);
	assert(w.bob.n_inbox == 2);
	world_end(&w);
}

static void test_a_stranger_is_not_answered(void)
{
	world_begin(&w);

	say(&w.alice, 1, 100);
	wg_device_remove_peer(w.bob.device, w.bob.peer);
	w.bob.peer = NULL;
	cable_run(&w);
	assert(drops_of(&w.bob, WG_DROP_UNKNOWN_PEER) == 1 && w.n_sent == 1);
	world_end(&w);
}

static void test_a_psk_on_one_side_only_makes_no_session(void)
{
	const uint8_t psk[KEY_LEN] = { 1 };
	world_begin(&w);

	wg_peer_set_psk(w.alice.peer, psk);
	say(&w.alice, 1, 100);
	cable_run(&w);
	assert(!stats_of(&w.alice).has_session && w.bob.n_inbox == 0);
	assert(drops_of(&w.alice, WG_DROP_HANDSHAKE) == 1);

	wg_peer_set_psk(w.bob.peer, psk); /* gotatun did not apply a change */
	wait_s(&w, 6);
	assert(heard(&w.bob, 1, 100));
	world_end(&w);
}

static void test_initiations_of_a_peer_closer_than_20_ms_are_refused(void)
{
	world_begin(&w);

	say(&w.alice, 1, 100);
	struct datagram first = cable_take(&w);
	w.now.ns += 6 * SECOND_NS; /* alice's next has a later stamp */
	wg_peer_connect(w.alice.peer, w.now);
	struct datagram second = cable_take(&w);
	hand_over(&w, &first);
	w.now.ns += 19000000;
	hand_over(&w, &second);
	assert(drops_of(&w.bob, WG_DROP_FLOOD) == 1);
	w.now.ns += 1000000;
	hand_over(&w, &second);
	assert(w.n_cable == 2);
	world_end(&w);
}

static void test_our_clock_going_back_does_not_lock_us_out(void)
{
	world_begin(&w);

	connect_both(&w);
	w.now.real_ns -= 3600 * SECOND_NS;
	w.now.ns += 200 * SECOND_NS; /* the session is over */
	say(&w.alice, 2, 100);
	cable_run(&w);
	assert(heard(&w.bob, 2, 100));
	world_end(&w);
}

static void test_time_is_told_in_steps_of_16_7_ms(void)
{
	uint8_t first[108], second[108];
	world_begin(&w);

	/* Two handshakes in one step: the second stamp is one step later, not the same. */
	say(&w.alice, 1, 100);
	memcpy(first, w.cable[0].bytes + 8, sizeof(first));
	cable_run(&w);
	w.now.ns += 200 * SECOND_NS;
	w.now.real_ns += 1;
	say(&w.alice, 2, 100);
	memcpy(second, w.cable[0].bytes + 8, sizeof(second));
	cable_run(&w);
	assert(memcmp(first, second, sizeof(first)) != 0);
	assert(drops_of(&w.bob, WG_DROP_TIMESTAMP) == 0);
	assert(w.bob.n_inbox == 2);
	world_end(&w);
}

/* ---- keys ---- */

static void test_without_a_private_key_nothing_is_answered_or_begun(void)
{
	const struct secret_key none = { { 0 } };
	world_begin(&w);

	wg_device_set_private_key(w.bob.device, &none);
	say(&w.alice, 1, 100);
	cable_run(&w);
	assert(drops_of(&w.bob, WG_DROP_NO_PRIVATE_KEY) == 1 && w.n_sent == 1);
	assert(public_key_is_zero(wg_device_public_key(w.bob.device)));
	wg_device_set_private_key(w.bob.device, &w.bob.secret);
	wait_s(&w, 6);
	assert(heard(&w.bob, 1, 100));
	world_end(&w);
}

static void test_a_new_private_key_ends_sending_under_the_old(void)
{
	struct secret_key secret;
	struct public_key public;
	world_begin(&w);

	connect_both(&w);
	secret_key_generate(&secret);
	secret_key_public(&secret, &public);
	wg_device_set_private_key(w.alice.device, &secret);
	assert(!stats_of(&w.alice).has_session);
	say(&w.alice, 2, 100);
	cable_run(&w);
	assert(w.bob.n_inbox == 0 && drops_of(&w.bob, WG_DROP_UNKNOWN_PEER) == 1);

	assert(wg_device_add_peer(w.bob.device, &public, &w.bob.peer) == 0);
	const struct wg_prefix prefix = { .family = 2, .len = 32, .ip = { 10, 0, 0, 1 } };
	assert(wg_peer_allow(w.bob.peer, &prefix) == 0);
	wait_s(&w, 6);
	assert(heard(&w.bob, 2, 100));
	world_end(&w);
}

static void test_a_peer_with_our_own_key_is_refused_and_removed(void)
{
	struct wg_peer *peer;
	world_begin(&w);

	assert(wg_device_add_peer(w.alice.device, &w.alice.public, &peer) == WG_PEER_E_OWN_KEY);
	assert(wg_device_add_peer(w.alice.device, &w.bob.public, &peer) == WG_PEER_E_EXISTS);
	wg_device_set_private_key(w.alice.device, &w.bob.secret);
	assert(!wg_device_first_peer(w.alice.device));
	world_end(&w);
}

/* ---- load ---- */

static void begin_with_a_slow_bob(void)
{
	const struct wg_config config = { .mtu = 1420, .handshakes_per_second = 4 };

	world_begin_with(&w, &config);
}

static void later(uint64_t seconds)
{
	w.now.ns += seconds * SECOND_NS;
	w.now.real_ns += seconds * SECOND_NS;
}

static struct datagram next_initiation(void)
{
	later(6);
	wg_peer_connect(w.alice.peer, w.now);
	return cable_take(&w);
}

/* Old initiations, worthless but with a right mac1, until bob has enough. */
static void put_bob_under_load(const struct datagram *old)
{
	while (!wg_device_is_under_load(w.bob.device, w.now))
		hand_over(&w, old);
	cable_lose(&w);
}

static void test_under_load_a_cookie_is_asked_for_and_then_enough(void)
{
	begin_with_a_slow_bob();
	struct datagram old = next_initiation();

	struct datagram without = next_initiation();
	put_bob_under_load(&old);
	hand_over(&w, &without);
	assert(w.n_cable == 1 && w.cable[0].size == WG_COOKIE_REPLY_LEN);
	assert(w.cable[0].ds == WG_DS_HANDSHAKE);
	assert(stats_of(&w.bob).last_handshake_ns == 0 && !stats_of(&w.alice).has_session);
	cable_run(&w);
	assert(!stats_of(&w.alice).has_session && w.n_cable == 0);

	struct datagram with = next_initiation();
	put_bob_under_load(&old);
	hand_over(&w, &with);
	cable_run(&w);
	assert(stats_of(&w.alice).has_session && stats_of(&w.bob).has_session);
	world_end(&w);
}

/* From an address of another network it would be lost, or take our port at a NAT there. */
static void test_a_cookie_reply_leaves_where_routes_lead_if_not_too_many_ask(void)
{
	begin_with_a_slow_bob();
	struct datagram old = next_initiation();
	struct datagram without = next_initiation();
	struct train train = train_of_one(without.bytes, without.size);
	const struct wg_path from = { .remote = w.alice.address, .local_ip = { [15] = 9 }, .ifindex = 3 };

	put_bob_under_load(&old);
	w.bob.is_moved = true;
	w.bob.n_fit = 0;
	for (uint32_t i = 0; i < 101; i++) {
		wg_device_receive(w.bob.device, &train, &from, w.now);
		struct datagram reply = cable_take(&w);
		assert(reply.size == WG_COOKIE_REPLY_LEN && reply.path.ifindex == 0);
		assert(reply.path.local_ip[15] == (i < 100 ? 0 : 9));
	}
	assert(w.bob.n_fit == 100);
	world_end(&w);
}

static void test_a_cookie_does_not_help_from_another_port(void)
{
	begin_with_a_slow_bob();
	struct datagram old = next_initiation();
	struct datagram without = next_initiation();
	put_bob_under_load(&old);
	hand_over(&w, &without);
	cable_run(&w);

	struct datagram with = next_initiation();
	put_bob_under_load(&old);
	uint64_t asked = drops_of(&w.bob, WG_DROP_COOKIE_REQUIRED);
	w.alice.address.port++;
	hand_over(&w, &with);
	assert(drops_of(&w.bob, WG_DROP_COOKIE_REQUIRED) == asked + 1);
	world_end(&w);
}

static void test_under_load_a_source_with_a_cookie_is_still_limited(void)
{
	begin_with_a_slow_bob();
	struct datagram old = next_initiation();
	struct datagram without = next_initiation();
	put_bob_under_load(&old);
	hand_over(&w, &without);
	cable_run(&w);

	struct datagram with = next_initiation();
	put_bob_under_load(&old);
	for (int i = 0; i < 50; i++)
		hand_over(&w, &with);
	assert(drops_of(&w.bob, WG_DROP_RATE_LIMITED) == 45); /* five at once */
	world_end(&w);
}

static void test_load_ends_a_second_after_the_last_of_too_many(void)
{
	begin_with_a_slow_bob();
	struct datagram old = next_initiation();

	put_bob_under_load(&old);
	later(1);
	assert(!wg_device_is_under_load(w.bob.device, w.now));
	say(&w.alice, 1, 100);
	later(6);
	wg_peer_connect(w.alice.peer, w.now);
	cable_run(&w);
	assert(stats_of(&w.alice).has_session);
	world_end(&w);
}

static void test_messages_without_mac1_do_not_make_load(void)
{
	begin_with_a_slow_bob();
	struct datagram forged = next_initiation();

	flip(&forged, 20);
	for (int i = 0; i < 1000; i++)
		hand_over(&w, &forged);
	assert(!wg_device_is_under_load(w.bob.device, w.now));
	assert(drops_of(&w.bob, WG_DROP_MAC1) == 1000 && w.n_cable == 0);
	world_end(&w);
}

int main(void)
{
	test_a_first_packet_makes_a_session_and_then_arrives();
	test_without_data_the_initiator_confirms_with_a_keepalive();
	test_the_responder_does_not_send_before_it_hears_that_its_response_arrived();
	test_both_begin_at_once_and_both_succeed_without_waiting();
	test_a_lost_initiation_is_repeated();
	test_a_lost_response_is_repeated();
	test_packets_that_wait_arrive_in_order_the_last_128();
	test_every_changed_byte_of_the_exchange_is_refused();
	test_a_repeated_initiation_is_refused();
	test_a_repeated_response_is_refused();
	test_a_stranger_is_not_answered();
	test_a_psk_on_one_side_only_makes_no_session();
	test_initiations_of_a_peer_closer_than_20_ms_are_refused();
	test_our_clock_going_back_does_not_lock_us_out();
	test_time_is_told_in_steps_of_16_7_ms();
	test_without_a_private_key_nothing_is_answered_or_begun();
	test_a_new_private_key_ends_sending_under_the_old();
	test_a_peer_with_our_own_key_is_refused_and_removed();
	test_under_load_a_cookie_is_asked_for_and_then_enough();
	test_a_cookie_reply_leaves_where_routes_lead_if_not_too_many_ask();
	test_a_cookie_does_not_help_from_another_port();
	test_under_load_a_source_with_a_cookie_is_still_limited();
	test_load_ends_a_second_after_the_last_of_too_many();
	test_messages_without_mac1_do_not_make_load();
	puts("ok");
}
