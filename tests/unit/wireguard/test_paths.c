/*
 * Where packets go: roaming follows the last authenticated packet, pinned follows the owner; two
 * paths at once; relays; source addresses; peers without a route.
 */
#include "tests/unit/wireguard/tunnel.h"

#include "node/wireguard/device_internal.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define SECOND_NS UINT64_C(1000000000)

static struct world w;

static const struct wg_path relay_to_bob = { .relay_id = 7, .peer_id = 2 };

static bool bob_goes_to(const struct endpoint *endpoint)
{
	const struct wg_route *route = wg_peer_route(w.bob.peer);

	return route->n == 1 && endpoint_equal(&route->paths[0].remote, endpoint);
}

static void pin(struct node *node, const struct wg_path *a, const struct wg_path *b)
{
	struct wg_route route = { 0 };

	if (a)
		route.paths[route.n++] = *a;
	if (b)
		route.paths[route.n++] = *b;
	wg_peer_set_mode(node->peer, WG_PINNED);
	wg_peer_set_route(node->peer, &route, w.now);
}

/* ---- roaming ---- */

static void test_roaming_follows_each_authenticated_packet(void)
{
	world_begin(&w);
	connect_both(&w);
	assert(bob_goes_to(&w.alice.address));

	w.alice.address = endpoint_from_v4(0xcb007105, 4444);
	say(&w.alice, 2, 100);
	cable_run(&w);
	assert(bob_goes_to(&w.alice.address));
	expect_trace(&w, "[  0] bob: roamed\n");
	say(&w.bob, 3, 100);
	cable_run(&w);
	assert(w.alice.n_inbox == 1);
	world_end(&w);
}

static void test_roaming_also_follows_keepalives_and_initiations(void)
{
	world_begin(&w);
	connect_both(&w);

	w.alice.address.port = 1111;
	wg_peer_send_keepalive(w.alice.peer, w.now);
	cable_run(&w);
	assert(bob_goes_to(&w.alice.address));
	w.alice.address.port = 2222;
	w.now.ns += 6 * SECOND_NS;
	wg_peer_connect(w.alice.peer, w.now);
	struct datagram initiation = cable_take(&w);
	hand_over(&w, &initiation);
	assert(bob_goes_to(&w.alice.address));
	world_end(&w);
}

static void test_data_moves_a_peer_back_that_an_initiation_has_moved(void)
{
	world_begin(&w);
	connect_both(&w);
	const struct endpoint home = w.alice.address;

	w.now.ns += 6 * SECOND_NS;
	say(&w.alice, 2, 100);
	cable_run(&w);
	wg_peer_connect(w.alice.peer, w.now);
	struct datagram initiation = cable_take(&w);
	w.alice.address.port = 2222;
	hand_over(&w, &initiation);
	assert(bob_goes_to(&w.alice.address));
	cable_lose(&w);
	w.alice.address = home;
	say(&w.alice, 3, 100);
	cable_run(&w);
	assert(bob_goes_to(&home));
	world_end(&w);
}

static void test_forged_and_repeated_packets_do_not_move_a_peer(void)
{
	world_begin(&w);
	connect_both(&w);
	const struct endpoint home = w.alice.address;

	say(&w.alice, 2, 100);
	struct datagram datagram = cable_take(&w);
	w.alice.address.port = 1111;
	datagram.bytes[40] ^= 1;
	hand_over(&w, &datagram);
	assert(bob_goes_to(&home));
	datagram.bytes[40] ^= 1;
	w.alice.address = home;
	hand_over(&w, &datagram);
	w.alice.address.port = 1111;
	hand_over(&w, &datagram); /* somebody repeats it from elsewhere */
	assert(bob_goes_to(&home));
	world_end(&w);
}

/* ---- pinned ---- */

static void test_a_pinned_route_stays_whatever_comes_in(void)
{
	world_begin(&w);
	connect_both(&w);
	const struct endpoint home = w.alice.address;
	pin(&w.bob, &(struct wg_path){ .remote = home }, NULL);

	w.alice.address.port = 1111;
	say(&w.alice, 2, 100);
	cable_run(&w);
	assert(heard(&w.bob, 2, 100) && bob_goes_to(&home));
	struct wg_stats stats = stats_of(&w.bob);
	assert(stats.direct.path.remote.port == 1111 && stats.direct.ns == w.now.ns);
	world_end(&w);
}

static void test_a_pinned_responder_answers_by_the_way_it_was_asked(void)
{
	world_begin(&w);
	pin(&w.bob, NULL, NULL);

	say(&w.alice, 1, 100);
	cable_run(&w);
	assert(heard(&w.bob, 1, 100) && stats_of(&w.bob).has_session);
	say(&w.bob, 2, 100); /* but for its own packets it has no route */
	expect_trace(&w,
		"[  0] alice: session\n"
		"[  0] bob: session\n"
		"[  0] bob: no path\n");
	assert(stats_of(&w.bob).n_staged == 1);
	pin(&w.bob, &(struct wg_path){ .remote = w.alice.address }, NULL);
	cable_run(&w);
	assert(heard(&w.alice, 2, 100));
	world_end(&w);
}

static void test_a_pinned_responder_answers_by_its_route_too(void)
{
	world_begin(&w);
	const struct wg_path relay = { .relay_id = 7, .peer_id = 1 };
	pin(&w.bob, &relay, NULL);

	say(&w.alice, 1, 100);
	struct datagram initiation = cable_take(&w);
	hand_over(&w, &initiation);
	assert(w.n_cable == 2);
	assert(wg_path_equal(&w.cable[0].path, &(struct wg_path){ .remote = w.alice.address }));
	assert(wg_path_equal(&w.cable[1].path, &relay));
	cable_run(&w); /* the second copy is of no use and does no harm */
	assert(heard(&w.bob, 1, 100));
	world_end(&w);
}

static void test_with_two_paths_each_packet_is_sent_on_both_and_heard_once(void)
{
	world_begin(&w);
	const struct wg_path direct = { .remote = w.bob.address };
	pin(&w.alice, &direct, &relay_to_bob);

	say(&w.alice, 1, 100);
	assert(w.n_cable == 2);
	cable_run(&w);
	assert(heard(&w.bob, 1, 100));
	say(&w.alice, 2, 100);
	assert(w.n_cable == 2);
	cable_run(&w);
	assert(heard(&w.bob, 2, 100) && drops_of(&w.bob, WG_DROP_REPLAY) >= 1);
	struct wg_stats stats = stats_of(&w.bob);
	assert(stats.direct.ns != 0);
	world_end(&w);
}

static void test_how_a_relay_is_reached_is_what_the_route_said_last(void)
{
	world_begin(&w);
	struct wg_path over_udp = relay_to_bob;
	over_udp.remote = endpoint_from_v4(0xcb007163, 3478);
	memset(over_udp.relay_header, 1, sizeof(over_udp.relay_header));
	pin(&w.alice, &relay_to_bob, NULL);

	pin(&w.alice, &over_udp, NULL);
	assert(wg_path_is_udp_relayed(&wg_peer_route(w.alice.peer)->paths[0]));
	over_udp.relay_header[15]++; /* another token */
	pin(&w.alice, &over_udp, NULL);
	assert(memcmp(wg_peer_route(w.alice.peer)->paths[0].relay_header, over_udp.relay_header,
		      sizeof(over_udp.relay_header)) == 0);
	pin(&w.alice, &relay_to_bob, NULL);
	assert(wg_path_is_the_loops(&wg_peer_route(w.alice.peer)->paths[0]));
	world_end(&w);
}

static void test_all_works_through_a_relay_alone(void)
{
	world_begin(&w);
	pin(&w.alice, &relay_to_bob, NULL);

	say(&w.alice, 1, 100);
	cable_run(&w);
	assert(heard(&w.bob, 1, 100));
	struct wg_stats stats = stats_of(&w.bob);
	assert(stats.relayed.ns == w.now.ns && stats.relayed.path.relay_id == 7 && stats.direct.ns == 0);
	world_end(&w);
}

static void test_a_new_path_is_tried_at_once_when_a_handshake_waits(void)
{
	world_begin(&w);
	const struct wg_path direct = { .remote = w.bob.address };
	pin(&w.alice, &direct, NULL);

	say(&w.alice, 1, 100);
	cable_lose(&w); /* the direct path does not work */
	w.now.ns += 2 * SECOND_NS;
	pin(&w.alice, &direct, &relay_to_bob);
	assert(w.n_cable == 2);
	cable_run(&w);
	assert(heard(&w.bob, 1, 100));
	world_end(&w);
}

/* ---- no route ---- */

static void test_without_a_route_packets_wait_and_the_owner_is_told_once_in_five_seconds(void)
{
	world_begin(&w);

	say(&w.bob, 1, 100);
	say(&w.bob, 2, 100);
	expect_trace(&w, "[  0] bob: no path\n");
	assert(stats_of(&w.bob).n_staged == 2 && w.n_sent == 0);
	const struct wg_route route = { .n = 1, .paths = { { .remote = w.alice.address } } };
	wg_peer_set_route(w.bob.peer, &route, w.now);
	cable_run(&w);
	assert(w.alice.n_inbox == 2);
	world_end(&w);
}

static void test_without_a_route_it_gives_up_like_with_one(void)
{
	world_begin(&w);

	say(&w.bob, 1, 100);
	wait_s(&w, 120);
	assert(strstr(w.trace, "bob: gave up"));
	assert(stats_of(&w.bob).n_staged == 0 && w.n_sent == 0);
	world_end(&w);
}

static void test_a_route_after_giving_up_finds_nothing_to_do(void)
{
	world_begin(&w);
	const struct wg_route route = { .n = 1, .paths = { { .remote = w.alice.address } } };

	say(&w.bob, 1, 100);
	wait_s(&w, 120);
	wg_peer_set_route(w.bob.peer, &route, w.now);
	assert(w.n_sent == 0);
	world_end(&w);
}

static void test_a_keepalive_may_be_set_before_the_route(void)
{
	world_begin(&w);
	const struct wg_route route = { .n = 1, .paths = { { .remote = w.alice.address } } };

	wg_peer_set_keepalive(w.bob.peer, 25, w.now);
	assert(w.n_sent == 0);
	wg_peer_set_route(w.bob.peer, &route, w.now);
	cable_run(&w);
	assert(stats_of(&w.bob).has_session);
	world_end(&w);
}

/* ---- arrivals ---- */

static struct {
	unsigned n;
	struct wg_path last;
} arrivals;

static void count_arrivals(void *owner, struct wg_peer *peer, const struct wg_event *event)
{
	if (event->type != WG_EVENT_ARRIVAL)
		return;
	arrivals.n++;
	arrivals.last = *event->path;
}

static void begin_counting(void)
{
	world_begin(&w);
	connect_both(&w);
	w.now.ns += 2 * SECOND_NS;
	arrivals.n = 0;
	w.bob.device->ports.event = count_arrivals;
}

static void test_arrivals_are_told_once_a_second(void)
{
	begin_counting();

	for (int i = 0; i < 30; i++) { /* 0.0 … 2.9 s */
		say(&w.alice, 1, 100);
		cable_run(&w);
		w.now.ns += SECOND_NS / 10;
	}
	assert(arrivals.n == 3);
	world_end(&w);
}

static void test_an_arrival_by_another_path_is_told_at_once_for_each_kind(void)
{
	begin_counting();
	say(&w.alice, 1, 100);
	cable_run(&w);
	assert(arrivals.n == 1);

	w.alice.address.port++;
	say(&w.alice, 1, 100);
	cable_run(&w);
	assert(arrivals.n == 2 && arrivals.last.remote.port == w.alice.address.port);
	pin(&w.alice, &relay_to_bob, NULL);
	say(&w.alice, 1, 100);
	cable_run(&w);
	assert(arrivals.n == 3 && arrivals.last.relay_id == 7);
	pin(&w.alice, &(struct wg_path){ .remote = w.bob.address }, NULL);
	say(&w.alice, 1, 100);
	cable_run(&w);
	assert(arrivals.n == 3); /* the direct path is the same as before */
	world_end(&w);
}

/* ---- restarts ---- */

/* Bob, pinned, has lost his sessions; alice does not know yet. */
static void begin_after_a_restart(bool is_relayed)
{
	world_begin(&w);
	wg_peer_set_user(w.bob.peer, 1, NULL);
	pin(&w.alice, is_relayed ? &relay_to_bob : &(struct wg_path){ .remote = w.bob.address }, NULL);
	connect_both(&w);
	wg_peer_wipe_keys(w.bob.peer);
	w.now.ns += 10 * SECOND_NS;
	w.now.real_ns += 10 * SECOND_NS;
}

static void test_a_restarted_pinned_node_asks_who_still_uses_its_old_session(void)
{
	begin_after_a_restart(false);
	pin(&w.bob, &(struct wg_path){ .remote = w.alice.address }, NULL);

	say(&w.alice, 2, 100);
	cable_run(&w);
	assert(w.bob.n_inbox == 0 && stats_of(&w.bob).has_session);
	say(&w.alice, 3, 100);
	cable_run(&w);
	assert(heard(&w.bob, 3, 100));
	world_end(&w);
}

static void test_through_a_relay_it_tells_its_owner_that_it_needs_a_route(void)
{
	begin_after_a_restart(true);
	pin(&w.bob, NULL, NULL);

	say(&w.alice, 2, 100);
	struct datagram datagram = cable_take(&w);
	datagram.path.peer_id = 1; /* as the relay names alice to bob */
	w.trace[0] = '\0';
	hand_over(&w, &datagram);
	expect_trace(&w, "[ 10] bob: no path\n");
	pin(&w.bob, &(struct wg_path){ .relay_id = 7, .peer_id = 1 }, NULL);
	cable_run(&w);
	assert(stats_of(&w.bob).has_session);
	world_end(&w);
}

static void test_a_roaming_node_keeps_silent(void)
{
	begin_after_a_restart(false);

	say(&w.alice, 2, 100);
	uint32_t before = w.n_sent;
	cable_run(&w);
	assert(w.n_sent == before);
	world_end(&w);
}

static void test_forged_packets_make_it_ask_once_in_five_seconds_and_never_with_a_session(void)
{
	begin_after_a_restart(false);
	pin(&w.bob, &(struct wg_path){ .remote = w.alice.address }, NULL);

	say(&w.alice, 2, 100);
	struct datagram datagram = cable_take(&w);
	for (int i = 0; i < 40; i++) { /* 4 s */
		hand_over(&w, &datagram);
		w.now.ns += SECOND_NS / 10;
	}
	assert(w.n_cable == 1);
	cable_run(&w); /* there is a session again */
	uint32_t before = w.n_sent;
	w.now.ns += 10 * SECOND_NS;
	hand_over(&w, &datagram);
	assert(w.n_sent == before);
	world_end(&w);
}

/* ---- sources ---- */

static void test_answers_leave_from_the_address_that_was_asked(void)
{
	const struct wg_path asked = { .local_ip = { [15] = 9 }, .ifindex = 3,
				       .socket = 4 };
	world_begin(&w);
	connect_both(&w);

	say(&w.alice, 2, 100);
	struct datagram datagram = cable_take(&w);
	struct train train = train_of_one(datagram.bytes, datagram.size);
	struct wg_path from = asked;
	from.remote = w.alice.address;
	wg_device_receive(w.bob.device, &train, &from, w.now);
	const struct wg_path *path = &wg_peer_route(w.bob.peer)->paths[0];
	assert(path->local_ip[15] == 9 && path->ifindex == 3 && path->socket == 4);

	wg_device_forget_sources(w.bob.device);
	assert(path->local_ip[15] == 0 && path->ifindex == 0 && path->socket == 4);
	assert(endpoint_equal(&path->remote, &w.alice.address));
	world_end(&w);
}

static void test_a_source_that_brings_no_answer_is_forgotten(void)
{
	world_begin(&w);
	connect_both(&w);
	const struct wg_route route = { .n = 1, .paths = { { .remote = w.bob.address, .ifindex = 3 } } };
	wg_peer_set_route(w.alice.peer, &route, w.now);

	say(&w.alice, 2, 100);
	cable_lose(&w);
	wait_s_deaf(&w, 16);
	assert(wg_peer_route(w.alice.peer)->paths[0].ifindex == 0);
	world_end(&w);
}

static void test_a_pinned_path_learns_its_source_too(void)
{
	world_begin(&w);
	connect_both(&w);
	pin(&w.bob, &(struct wg_path){ .remote = w.alice.address }, NULL);

	say(&w.alice, 2, 100);
	struct datagram datagram = cable_take(&w);
	struct train train = train_of_one(datagram.bytes, datagram.size);
	const struct wg_path from = { .remote = w.alice.address, .ifindex = 3 };
	wg_device_receive(w.bob.device, &train, &from, w.now);
	assert(wg_peer_route(w.bob.peer)->paths[0].ifindex == 3);
	pin(&w.bob, &(struct wg_path){ .remote = w.alice.address }, NULL); /* the same again */
	assert(wg_peer_route(w.bob.peer)->paths[0].ifindex == 3);
	world_end(&w);
}

/* From the old address a NAT on the new way would give our port to the wrong flow. */
static void test_when_answers_leave_elsewhere_their_source_is_left_to_routing(void)
{
	const struct wg_path old = { .local_ip = { [15] = 9 }, .ifindex = 3 };

	for (int pinned = 0; pinned < 2; pinned++) {
		world_begin(&w);
		connect_both(&w);
		if (pinned)
			pin(&w.bob, &(struct wg_path){ .remote = w.alice.address }, NULL);
		w.bob.is_moved = true;

		say(&w.alice, 2, 100);
		struct datagram datagram = cable_take(&w);
		struct train train = train_of_one(datagram.bytes, datagram.size);
		struct wg_path from = old;
		from.remote = w.alice.address;
		wg_device_receive(w.bob.device, &train, &from, w.now);
		assert(heard(&w.bob, 2, 100));
		assert(!wg_path_has_source(&wg_peer_route(w.bob.peer)->paths[0]));
		world_end(&w);
	}
}

/* The same source as before, and nobody has told that routes changed. */
static void test_a_handshake_asks_anew_whether_answers_leave_from_there(void)
{
	const struct wg_path asked = { .local_ip = { [15] = 9 }, .ifindex = 3 };

	for (int pinned = 0; pinned < 2; pinned++) {
		world_begin(&w);
		connect_both(&w);
		if (pinned)
			pin(&w.bob, &(struct wg_path){ .remote = w.alice.address }, NULL);
		for (int moved = 0; moved < 2; moved++) {
			w.bob.is_moved = moved;
			w.now.ns += 200 * SECOND_NS; /* a new session each time */
			w.now.real_ns += 200 * SECOND_NS;
			say(&w.alice, 2, 100);
			struct datagram datagram = cable_take(&w);
			struct train train = train_of_one(datagram.bytes, datagram.size);
			struct wg_path from = asked;
			from.remote = w.alice.address;
			assert(datagram.bytes[0] == 1);
			wg_device_receive(w.bob.device, &train, &from, w.now);
			assert(wg_path_has_source(&wg_peer_route(w.bob.peer)->paths[0]) == !moved);
			cable_lose(&w);
		}
		world_end(&w);
	}
}

/* One packet of alice's arrives at bob, with this last byte of the address that it was sent to. */
static void arrive_at(uint8_t number)
{
	say(&w.alice, 2, 100);
	struct datagram datagram = cable_take(&w);
	struct train train = train_of_one(datagram.bytes, datagram.size);
	const struct wg_path from = { .remote = w.alice.address, .local_ip = { [15] = number }, .ifindex = 3 };

	wg_device_receive(w.bob.device, &train, &from, w.now);
	w.bob.n_inbox = 0;
}

static void test_who_alternates_between_two_addresses_has_routes_asked_ten_times_a_second(void)
{
	world_begin(&w);
	connect_both(&w);
	w.bob.n_fit = 0;
	for (uint32_t i = 0; i < 100; i++)
		arrive_at(1 + i % 2);
	assert(w.bob.n_fit == 10);
	assert(wg_peer_route(w.bob.peer)->paths[0].local_ip[15] == 2); /* the answer to the last question */
	arrive_at(1);
	assert(!wg_path_has_source(&wg_peer_route(w.bob.peer)->paths[0])); /* is left to routing */
	w.now.ns += SECOND_NS;
	arrive_at(1);
	assert(w.bob.n_fit == 11 && wg_peer_route(w.bob.peer)->paths[0].local_ip[15] == 1);
	world_end(&w);
}

static void test_an_answer_about_routes_holds_for_a_second_or_until_they_change(void)
{
	world_begin(&w);
	connect_both(&w);
	w.bob.n_fit = 0;
	w.bob.is_moved = true;
	w.now.ns += 200 * SECOND_NS;
	w.now.real_ns += 200 * SECOND_NS;
	arrive_at(1); /* a handshake: for data, for the response */
	assert(w.cable[0].from == &w.bob && w.cable[0].bytes[0] == 2);
	cable_run(&w);
	arrive_at(1);
	assert(w.bob.n_fit == 1);
	wg_device_forget_sources(w.bob.device);
	arrive_at(1);
	assert(w.bob.n_fit == 2);
	w.now.ns += SECOND_NS;
	arrive_at(1);
	assert(w.bob.n_fit == 3);
	world_end(&w);
}

static void test_a_handshake_is_answered_where_routes_lead_too(void)
{
	world_begin(&w);
	for (int moved = 0; moved < 2; moved++) {
		w.bob.is_moved = moved;
		w.now.ns += 200 * SECOND_NS; /* a new session each time */
		w.now.real_ns += 200 * SECOND_NS;
		say(&w.alice, 2, 100);
		struct datagram datagram = cable_take(&w);
		struct train train = train_of_one(datagram.bytes, datagram.size);
		const struct wg_path from = { .remote = w.alice.address, .local_ip = { [15] = 9 }, .ifindex = 3 };
		wg_device_receive(w.bob.device, &train, &from, w.now);
		datagram = cable_take(&w);
		assert(datagram.from == &w.bob && datagram.bytes[0] == 2);
		assert(wg_path_has_source(&datagram.path) == !moved);
		hand_over(&w, &datagram);
		cable_run(&w);
	}
	world_end(&w);
}

int main(void)
{
	test_roaming_follows_each_authenticated_packet();
	test_roaming_also_follows_keepalives_and_initiations();
	test_data_moves_a_peer_back_that_an_initiation_has_moved();
	test_forged_and_repeated_packets_do_not_move_a_peer();
	test_a_pinned_route_stays_whatever_comes_in();
	test_a_pinned_responder_answers_by_the_way_it_was_asked();
	test_a_pinned_responder_answers_by_its_route_too();
	test_with_two_paths_each_packet_is_sent_on_both_and_heard_once();
	test_how_a_relay_is_reached_is_what_the_route_said_last();
	test_all_works_through_a_relay_alone();
	test_a_new_path_is_tried_at_once_when_a_handshake_waits();
	test_without_a_route_packets_wait_and_the_owner_is_told_once_in_five_seconds();
	test_without_a_route_it_gives_up_like_with_one();
	test_a_route_after_giving_up_finds_nothing_to_do();
	test_a_keepalive_may_be_set_before_the_route();
	test_arrivals_are_told_once_a_second();
	test_an_arrival_by_another_path_is_told_at_once_for_each_kind();
	test_a_restarted_pinned_node_asks_who_still_uses_its_old_session();
	test_through_a_relay_it_tells_its_owner_that_it_needs_a_route();
	test_a_roaming_node_keeps_silent();
	test_forged_packets_make_it_ask_once_in_five_seconds_and_never_with_a_session();
	test_answers_leave_from_the_address_that_was_asked();
	test_a_source_that_brings_no_answer_is_forgotten();
	test_a_pinned_path_learns_its_source_too();
	test_when_answers_leave_elsewhere_their_source_is_left_to_routing();
	test_a_handshake_asks_anew_whether_answers_leave_from_there();
	test_who_alternates_between_two_addresses_has_routes_asked_ten_times_a_second();
	test_an_answer_about_routes_holds_for_a_second_or_until_they_change();
	test_a_handshake_is_answered_where_routes_lead_too();
	puts("ok");
}
