/*
 * The life of a tunnel on virtual time: rekeying, keepalives, silence, giving up, wiped keys.
 * Traces show who sends what; times are seconds without the jitter.
 */
#include "tests/unit/wireguard/tunnel.h"

#include "node/wireguard/device_internal.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define SECOND_NS UINT64_C(1000000000)

static struct world w;

static void begin_connected(void)
{
	world_begin(&w);
	connect_both(&w);
	say(&w.bob, 2, 100);
	cable_run(&w);
	w.alice.n_inbox = 0;
	w.trace_datagrams = true;
}

/* Both talk every second. */
static void talk_s(unsigned seconds)
{
	for (unsigned i = 0; i < seconds; i++) {
		wait_s(&w, 1);
		say(&w.alice, (uint8_t)i, 100);
		cable_run(&w);
		say(&w.bob, (uint8_t)i, 100);
		cable_run(&w);
		assert(heard(&w.bob, (uint8_t)i, 100) && heard(&w.alice, (uint8_t)i, 100));
	}
}

static void test_the_initiator_rekeys_after_120_seconds_and_no_packet_is_lost(void)
{
	begin_connected();
	w.trace_datagrams = false;

	talk_s(400);
	expect_trace(&w,
		"[120] alice: session\n"
		"[120] bob: session\n"
		"[240] alice: session\n"
		"[240] bob: session\n"
		"[360] alice: session\n"
		"[360] bob: session\n");
	world_end(&w);
}

static void test_an_idle_tunnel_is_silent(void)
{
	begin_connected();

	wait_s(&w, 500);
	expect_trace(&w, "[ 10] alice: send keepalive\n"); /* for the one packet of bob */
	world_end(&w);
}

static void test_a_receiver_answers_with_a_keepalive_after_10_seconds(void)
{
	begin_connected();
	wait_s(&w, 50);
	w.trace[0] = '\0';

	say(&w.alice, 1, 100);
	cable_run(&w);
	wait_s(&w, 60);
	expect_trace(&w,
		"[ 50] alice: send data\n"
		"[ 60] bob: send keepalive\n");
	world_end(&w);
}

static void test_a_peer_that_only_hears_keepalives_rekeys_in_the_last_minute(void)
{
	begin_connected();

	wait_s(&w, 164);
	w.trace[0] = '\0';
	w.now.ns += SECOND_NS;
	w.now.real_ns += SECOND_NS;
	wg_peer_send_keepalive(w.bob.peer, w.now); /* alice has nothing to say */
	cable_run(&w);
	expect_trace(&w,
		"[165] bob: send keepalive\n"
		"[165] alice: send initiation\n"
		"[165] bob: send response\n"
		"[165] alice: session\n"
		"[165] alice: send keepalive\n"
		"[165] bob: session\n");
	world_end(&w);
}

static void test_no_packet_passes_after_180_seconds(void)
{
	begin_connected();

	say(&w.alice, 1, 100);
	struct datagram late = cable_take(&w);
	w.now.ns += 180 * SECOND_NS;
	hand_over(&w, &late);
	assert(w.bob.n_inbox == 0 && drops_of(&w.bob, WG_DROP_EXPIRED_KEY) == 1);
	assert(!stats_of(&w.alice).has_session);
	w.trace[0] = '\0';
	say(&w.alice, 2, 100);
	cable_run(&w);
	assert(heard(&w.bob, 2, 100) && strstr(w.trace, "alice: send initiation"));
	world_end(&w);
}

/* Both had sent a packet that nobody answered. */
static void test_silence_after_data_begins_a_new_handshake_in_15_seconds(void)
{
	begin_connected();

	say(&w.alice, 1, 100);
	wait_s_deaf(&w, 27);
	expect_trace(&w,
		"[  0] alice: send data\n"
		"[ 15] alice: send initiation\n"
		"[ 15] bob: send initiation\n"
		"[ 20] alice: send initiation\n"
		"[ 20] bob: send initiation\n"
		"[ 25] alice: send initiation\n"
		"[ 25] bob: send initiation\n");
	world_end(&w);
}

static void test_without_any_answer_it_gives_up_after_20_initiations_and_wipes_its_keys(void)
{
	begin_connected();
	w.trace_datagrams = false;

	wait_s(&w, 200);
	say(&w.alice, 1, 100);
	cable_lose(&w);
	uint32_t before = w.n_sent;
	wait_s_deaf(&w, 150);
	assert(w.n_sent - before == 19 && stats_of(&w.alice).handshake_attempts == 20);
	assert(strstr(w.trace, "alice: gave up") && stats_of(&w.alice).n_staged == 0);
	assert(drops_of(&w.alice, WG_DROP_OUT_STAGED) == 1);
	w.trace[0] = '\0';
	wait_s_deaf(&w, 600);
	assert(strstr(w.trace, "alice: expired"));
	assert(!w.alice.peer->keypairs.current && !w.alice.peer->keypairs.previous);

	say(&w.alice, 2, 100);
	cable_run(&w);
	assert(heard(&w.bob, 2, 100)); /* and begins again when there is something to say */
	world_end(&w);
}

static void test_keys_are_wiped_540_seconds_after_the_last_session(void)
{
	begin_connected();
	w.trace_datagrams = false;

	wait_s(&w, 539);
	assert(w.alice.peer->keypairs.current);
	wait_s(&w, 2);
	expect_trace(&w,
		"[540] alice: expired\n"
		"[540] bob: expired\n");
	assert(!w.alice.peer->keypairs.current);
	assert(w.alice.device->indices.n == 0 && w.bob.device->indices.n == 0);
	world_end(&w);
}

static void test_persistent_keepalive_opens_the_tunnel_and_holds_it(void)
{
	world_begin(&w);
	w.trace_datagrams = true;

	wg_peer_set_keepalive(w.alice.peer, 25, w.now);
	cable_run(&w);
	wait_s(&w, 60);
	expect_trace(&w,
		"[  0] alice: send initiation\n"
		"[  0] bob: roamed\n"
		"[  0] bob: send response\n"
		"[  0] alice: session\n"
		"[  0] alice: send keepalive\n"
		"[  0] bob: session\n"
		"[ 25] alice: send keepalive\n"
		"[ 50] alice: send keepalive\n");
	world_end(&w);
}

static void test_a_keypair_that_ran_out_of_numbers_is_replaced(void)
{
	begin_connected();
	w.trace_datagrams = false;

	w.alice.peer->keypairs.current->next_counter = WG_REJECT_AFTER_MESSAGES - 2;
	w.now.ns += 6 * SECOND_NS;
	w.now.real_ns += 6 * SECOND_NS;
	say_train(&w.alice, 1, 5, 100);
	cable_run(&w);
	assert(w.bob.n_inbox == 5); /* two under the old, three under the new */
	assert(w.alice.peer->keypairs.current->next_counter < 10);
	world_end(&w);
}

static void test_many_messages_are_a_reason_to_rekey_too(void)
{
	begin_connected();
	w.trace_datagrams = false;

	w.bob.peer->keypairs.current->next_counter = (UINT64_C(1) << 60) + 1; /* bob is no initiator */
	w.now.ns += 6 * SECOND_NS;
	say(&w.bob, 1, 100);
	cable_run(&w);
	expect_trace(&w,
		"[  6] bob: session\n"
		"[  6] alice: session\n");
	world_end(&w);
}

static void test_packets_under_way_during_a_rekey_still_arrive(void)
{
	begin_connected();
	say(&w.alice, 1, 100);
	struct datagram old = cable_take(&w);

	w.now.ns += 6 * SECOND_NS;
	w.now.real_ns += 6 * SECOND_NS;
	wg_peer_connect(w.alice.peer, w.now);
	cable_run(&w);
	say(&w.alice, 2, 100);
	cable_run(&w);
	assert(heard(&w.bob, 2, 100));
	hand_over(&w, &old);
	assert(heard(&w.bob, 1, 100));
	world_end(&w);
}

static void test_a_restarted_peer_is_back_with_its_first_packet(void)
{
	begin_connected();

	/* Bob forgets all: a new device with the same key. */
	wg_peer_wipe_keys(w.bob.peer);
	say(&w.alice, 1, 100);
	cable_run(&w);
	assert(w.bob.n_inbox == 0 && drops_of(&w.bob, WG_DROP_UNKNOWN_INDEX) == 1);
	w.now.ns += 6 * SECOND_NS;
	w.now.real_ns += 6 * SECOND_NS;
	say(&w.bob, 3, 100);
	cable_run(&w);
	assert(heard(&w.alice, 3, 100));
	say(&w.alice, 4, 100);
	cable_run(&w);
	assert(heard(&w.bob, 4, 100));
	world_end(&w);
}

static void test_that_packets_leave_is_told_once_a_second_though_nothing_comes(void)
{
	begin_connected();
	wait_s(&w, 30);
	const uint32_t before = w.alice.n_sent_told;

	for (int i = 0; i < 50; i++) { /* within a second */
		say(&w.alice, 1, 100);
		w.now.ns += SECOND_NS / 100;
	}
	cable_lose(&w);
	assert(w.alice.n_sent_told == before + 1);
	wait_s_deaf(&w, 1);
	say(&w.alice, 1, 100);
	cable_lose(&w);
	assert(w.alice.n_sent_told == before + 2);
	world_end(&w);
}

static void test_that_a_handshake_is_begun_is_told(void)
{
	world_begin(&w);
	say(&w.alice, 1, 100);
	cable_lose(&w);
	assert(w.alice.n_sent_told == 1);
	wait_s_deaf(&w, 20);
	assert(w.alice.n_sent_told >= 4);
	world_end(&w);
}

int main(void)
{
	test_the_initiator_rekeys_after_120_seconds_and_no_packet_is_lost();
	test_an_idle_tunnel_is_silent();
	test_a_receiver_answers_with_a_keepalive_after_10_seconds();
	test_a_peer_that_only_hears_keepalives_rekeys_in_the_last_minute();
	test_no_packet_passes_after_180_seconds();
	test_silence_after_data_begins_a_new_handshake_in_15_seconds();
	test_without_any_answer_it_gives_up_after_20_initiations_and_wipes_its_keys();
	test_keys_are_wiped_540_seconds_after_the_last_session();
	test_persistent_keepalive_opens_the_tunnel_and_holds_it();
	test_a_keypair_that_ran_out_of_numbers_is_replaced();
	test_many_messages_are_a_reason_to_rekey_too();
	test_packets_under_way_during_a_rekey_still_arrive();
	test_a_restarted_peer_is_back_with_its_first_packet();
	test_that_packets_leave_is_told_once_a_second_though_nothing_comes();
	test_that_a_handshake_is_begun_is_told();
	puts("ok");
}
