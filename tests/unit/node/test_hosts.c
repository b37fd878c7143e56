/*
 * The pure parts of a WireGuard outside of the process: by which way packets came, when packets may go
 * straight to the peer's WireGuard, and how the other side follows.
 */
#include "node/hosts/bypass.h"
#include "node/hosts/follow.h"
#include "node/hosts/traffic.h"

#include <assert.h>
#include <string.h>

#define MS 1000000ull
#define S  1000000000ull

static struct endpoint at(const char *text)
{
	struct endpoint endpoint;

	int r = endpoint_parse(text, &endpoint);
	assert(r == 0);
	return endpoint;
}

/* ---- traffic ---- */

static struct traffic traffic;
static struct traffic_look look;

static void begin_traffic(void)
{
	traffic = (struct traffic){ 0 };
	look = (struct traffic_look){ .now = { .ns = 100 * S, .real_ns = 1000 * S } };
	traffic_take(&traffic, &look);
}

static const struct wg_stats *take_after(uint64_t ns)
{
	look.now.ns += ns;
	look.now.real_ns += ns;
	traffic_take(&traffic, &look);
	return &traffic.stats;
}

static void bring_direct(uint64_t bytes)
{
	look.carried.rx_direct_bytes += bytes;
	look.carried.rx_direct_ns = look.now.ns + 1;
	look.carried.rx_endpoint = at("192.0.2.7:1");
	look.carried.rx_data_ns = look.now.ns + 1;
}

static void bring_by_relay(uint64_t bytes)
{
	look.carried.rx_relay_bytes += bytes;
	look.carried.rx_relay_ns = look.now.ns + 1;
	look.carried.rx_data_ns = look.now.ns + 1;
}

static void test_what_came_one_way_and_was_counted_came_that_way(void)
{
	begin_traffic();
	bring_direct(1000);
	look.rx_bytes += 1000;
	const struct wg_stats *stats = take_after(50 * MS);
	assert(stats->direct.ns == 100 * S + 1 && stats->relayed.ns == 0);
	assert(stats->last_receive_data_ns == 100 * S + 1);
	const struct endpoint from = at("192.0.2.7:1");
	assert(endpoint_equal(&stats->direct.path.remote, &from));

	begin_traffic();
	bring_by_relay(1000);
	look.rx_bytes += 1000;
	stats = take_after(50 * MS);
	assert(stats->relayed.ns == 100 * S + 1 && stats->direct.ns == 0);
}

static void test_what_wireguard_did_not_count_was_not_authentic(void)
{
	begin_traffic();
	bring_direct(1000);
	const struct wg_stats *stats = take_after(50 * MS);
	assert(stats->direct.ns == 0 && stats->last_receive_data_ns == 0 && stats->rx_bytes == 0);
}

static void test_a_forger_at_the_path_does_not_keep_it_alive_while_the_relay_brings(void)
{
	begin_traffic();
	for (int i = 0; i < 10; i++) {
		bring_direct(500);
		bring_by_relay(1000);
		look.rx_bytes += 1000;
		assert(take_after(50 * MS)->direct.ns == 0);
	}
}

static void test_a_count_that_lags_is_not_taken_for_the_other_way(void)
{
	begin_traffic();
	bring_by_relay(1000); /* carried, but counted only at the next look */
	take_after(50 * MS);
	look.rx_bytes += 1000;
	assert(take_after(50 * MS)->direct.ns == 0);
}

static void test_what_nothing_brought_came_past_us_from_the_path(void)
{
	begin_traffic();
	look.path = at("192.0.2.9:5");
	look.rx_bytes += 1312;
	const struct wg_stats *stats = take_after(50 * MS);
	assert(stats->direct.ns == look.now.ns && stats->last_receive_data_ns == look.now.ns);
	assert(endpoint_equal(&stats->direct.path.remote, &look.path));
	assert(traffic.rx_bypassed == 1312);
}

static void test_keepalives_and_handshakes_past_us_are_no_data(void)
{
	static const uint64_t lengths[] = { 32, 64, 92, 148, 92 + 32, 148 + 32 };

	for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
		begin_traffic();
		look.path = at("192.0.2.9:5");
		look.rx_bytes += lengths[i];
		look.tx_bytes += lengths[i];
		const struct wg_stats *stats = take_after(50 * MS);
		assert(stats->direct.ns == look.now.ns);
		assert(stats->last_receive_data_ns == 0 && stats->last_send_data_ns == 0);
	}
}

static void test_counts_go_on_when_wireguard_was_told_to_forget_the_peer(void)
{
	begin_traffic();
	look.rx_bytes = 5000;
	look.tx_bytes = 7000;
	take_after(50 * MS);
	look.rx_bytes = 10;
	look.tx_bytes = 20;
	const struct wg_stats *stats = take_after(50 * MS);
	assert(stats->rx_bytes == 5010 && stats->tx_bytes == 7020);
}

static void test_the_age_of_a_handshake_is_told_by_our_clock(void)
{
	begin_traffic();
	look.last_handshake_real_ns = look.now.real_ns - 30 * S;
	const struct wg_stats *stats = take_after(0);
	assert(stats->last_handshake_ns == look.now.ns - 30 * S && stats->has_session);
	assert(!take_after(160 * S)->has_session);
}

static void test_an_initiation_without_an_answer_is_packets_that_wait(void)
{
	begin_traffic();
	look.carried.tx_initiation_ns = look.now.ns;
	assert(take_after(50 * MS)->n_staged == 1);
	look.last_handshake_real_ns = look.now.real_ns + 1;
	assert(take_after(50 * MS)->n_staged == 0);
	look.carried.tx_initiation_ns = look.now.ns;
	assert(take_after(7 * S)->n_staged == 0);
}

static void test_initiations_without_an_answer_are_counted_and_are_sent(void)
{
	begin_traffic();
	for (uint32_t i = 1; i <= 3; i++) {
		look.carried.tx_initiation_ns = look.now.ns;
		const struct wg_stats *stats = take_after(50 * MS);
		assert(stats->handshake_attempts == i && stats->last_send_ns == look.carried.tx_initiation_ns);
		assert(take_after(5 * S)->handshake_attempts == i);
	}
	look.last_handshake_real_ns = look.now.real_ns + 1;
	assert(take_after(50 * MS)->handshake_attempts == 0);
}

/* ---- bypass ---- */

static struct bypass bypass;
static struct bypass_look seen;

static void begin_bypass(const char *target)
{
	bypass = (struct bypass){ 0 };
	if (target)
		bypass.target = at(target);
	seen = (struct bypass_look){ .now_ns = 100 * S,
				     .is_direct = true,
				     .path = at("192.0.2.9:5"),
				     .endpoint = at("127.0.0.1:999"),
				     .is_loopback = true };
}

static enum bypass_deed step_after(uint64_t ns)
{
	seen.now_ns += ns;
	return bypass_step(&bypass, &seen);
}

static void send_to(const char *endpoint)
{
	seen.endpoint = at(endpoint);
	seen.is_loopback = strncmp(endpoint, "127.", 4) == 0;
}

static void test_nothing_is_tried_before_the_peer_has_told_its_port(void)
{
	begin_bypass(NULL);
	assert(step_after(0) == BYPASS_NOTHING && step_after(S) == BYPASS_NOTHING);
	bypass.target = at("192.0.2.10:77"); /* at another address than the path's */
	assert(step_after(S) == BYPASS_NOTHING);
	bypass.target = at("192.0.2.9:77");
	assert(step_after(S) == BYPASS_TO_PEER);
}

static void test_a_way_on_which_something_comes_back_is_used(void)
{
	begin_bypass("192.0.2.9:77");
	assert(step_after(0) == BYPASS_TO_PEER);
	assert(step_after(50 * MS) == BYPASS_TO_PEER); /* taken back by what was under way: again */
	send_to("192.0.2.9:77");
	assert(step_after(50 * MS) == BYPASS_NOTHING && bypass.state == BYPASS_TRYING);
	seen.has_heard = true;
	assert(step_after(50 * MS) == BYPASS_NOTHING && bypass.state == BYPASS_ON);
}

static void test_a_way_on_which_nothing_comes_back_is_left_in_half_a_second_and_tried_ever_more_seldom(void)
{
	uint64_t wait_ns = 10 * S;

	begin_bypass("192.0.2.9:77");
	for (int i = 0; i < 5; i++) {
		assert(step_after(0) == BYPASS_TO_PEER);
		send_to("192.0.2.9:77");
		assert(step_after(499 * MS) == BYPASS_NOTHING);
		assert(step_after(1 * MS) == BYPASS_TO_LOOPBACK);
		send_to("127.0.0.1:999");
		assert(step_after(wait_ns - 1) == BYPASS_NOTHING);
		seen.now_ns++;
		wait_ns *= 2;
	}
}

static void turn_on(void)
{
	begin_bypass("192.0.2.9:77");
	assert(step_after(0) == BYPASS_TO_PEER);
	send_to("192.0.2.9:77");
	seen.has_heard = true;
	assert(step_after(50 * MS) == BYPASS_NOTHING && bypass.state == BYPASS_ON);
}

static void test_silence_ends_it_in_two_and_a_half_seconds(void)
{
	turn_on();
	seen.has_heard = false;
	seen.has_sent = true;
	assert(step_after(2499 * MS) == BYPASS_NOTHING);
	assert(step_after(1 * MS) == BYPASS_TO_LOOPBACK && bypass.state == BYPASS_OFF);
}

static void test_who_has_nothing_to_send_is_heard_each_second(void)
{
	turn_on();
	assert(step_after(999 * MS) == BYPASS_NOTHING);
	assert(step_after(1 * MS) == BYPASS_NUDGE);
	assert(step_after(500 * MS) == BYPASS_NOTHING);
	assert(step_after(500 * MS) == BYPASS_NUDGE);
}

static void test_it_ends_with_the_direct_path_at_once(void)
{
	turn_on();
	seen.is_direct = false;
	assert(step_after(50 * MS) == BYPASS_TO_LOOPBACK);
	send_to("127.0.0.1:999");
	assert(step_after(50 * MS) == BYPASS_NOTHING);

	turn_on();
	assert(bypass_end(&bypass, seen.now_ns) && !bypass_end(&bypass, seen.now_ns));
}

static void test_after_a_doubt_the_nodes_carry_for_ten_seconds_even_if_the_peer_sends_past_them(void)
{
	turn_on();
	seen.is_direct = false; /* in doubt: packets go by relay as well */
	assert(step_after(50 * MS) == BYPASS_TO_LOOPBACK);
	send_to("127.0.0.1:999");
	seen.is_direct = true;
	assert(step_after(200 * MS) == BYPASS_NOTHING);
	send_to("192.0.2.9:77"); /* where the peer's packets come from */
	assert(step_after(1 * S) == BYPASS_TO_LOOPBACK && bypass.state == BYPASS_OFF);
	send_to("127.0.0.1:999");
	assert(step_after(8750 * MS) == BYPASS_NOTHING);
	assert(step_after(50 * MS) == BYPASS_TO_PEER && bypass.state == BYPASS_TRYING);
}

static void test_a_peer_that_was_faster_is_followed_at_the_paths_address_only(void)
{
	begin_bypass(NULL);
	send_to("192.0.2.9:40000");
	assert(step_after(0) == BYPASS_NUDGE && bypass.state == BYPASS_ON);

	begin_bypass(NULL);
	send_to("203.0.113.1:40000");
	assert(step_after(0) == BYPASS_TO_LOOPBACK && bypass.state == BYPASS_OFF);
}

static void test_who_carries_our_packets_to_another_address_takes_nobody_along(void)
{
	turn_on();
	send_to("203.0.113.1:40000");
	assert(step_after(50 * MS) == BYPASS_TO_LOOPBACK && bypass.state == BYPASS_OFF);

	begin_bypass("192.0.2.9:77");
	assert(step_after(0) == BYPASS_TO_PEER);
	send_to("203.0.113.1:40000");
	assert(step_after(50 * MS) == BYPASS_TO_LOOPBACK && bypass.state == BYPASS_OFF);
}

static void test_a_peer_that_sends_by_its_node_again_takes_us_back_for_three_seconds(void)
{
	turn_on();
	send_to("127.0.0.1:999");
	assert(step_after(50 * MS) == BYPASS_NOTHING && bypass.state == BYPASS_OFF);
	assert(step_after(2999 * MS) == BYPASS_NOTHING);
	assert(step_after(1 * MS) == BYPASS_TO_PEER);
}

/* ---- follow ---- */

static struct follow follow;

static bool goes(const char *to, const char *also)
{
	struct endpoint extra, wanted = at(to);
	struct peer_path path = follow_path(&follow, &extra);

	if (also) {
		const struct endpoint other = at(also);
		return endpoint_equal(&path.endpoint, &wanted) && endpoint_equal(&extra, &other);
	}
	return endpoint_equal(&path.endpoint, &wanted) && endpoint_is_none(&extra);
}

#define NODE "192.0.2.9:5"
#define WG   "192.0.2.9:77"

static void begin_follow(void)
{
	const struct peer_path path = { .direct = true, .endpoint = at(NODE) };
	const struct endpoint told = at(WG);

	follow = (struct follow){ 0 };
	follow_set_path(&follow, &path, 100 * S);
	follow_told(&follow, &told);
}

static bool look_at(const char *last, uint64_t last_ns, uint64_t now_ns)
{
	const struct endpoint endpoint = at(last);

	return follow_look(&follow, &endpoint, last_ns, now_ns);
}

static void test_trying_sends_both_ways_so_that_nothing_is_lost(void)
{
	begin_follow();
	assert(goes(NODE, NULL));
	assert(look_at(NODE, 99 * S, 100 * S) && goes(NODE, WG));
	assert(!look_at(NODE, 100 * S, 100 * S + 499 * MS));
	assert(look_at(NODE, 100 * S, 100 * S + 500 * MS) && goes(NODE, NULL));
	assert(!look_at(NODE, 100 * S, 105 * S));
	assert(look_at(NODE, 100 * S, 106 * S) && goes(NODE, WG));
}

static void test_an_authentic_packet_from_its_wireguard_moves_the_route_there(void)
{
	const struct endpoint wg = at(WG), stranger = at("192.0.2.9:78");

	begin_follow();
	assert(!follow_arrived(&follow, &stranger, 100 * S) && goes(NODE, NULL));
	assert(follow_arrived(&follow, &wg, 100 * S) && goes(WG, NULL));
	assert(!follow_arrived(&follow, &wg, 101 * S));
	assert(!look_at(WG, 102 * S, 102 * S) && goes(WG, NULL));
}

static void test_the_route_moves_back_when_the_peer_does_or_is_silent(void)
{
	const struct endpoint wg = at(WG);

	begin_follow();
	assert(follow_arrived(&follow, &wg, 100 * S));
	assert(!look_at(NODE, 100 * S + 10 * MS, 100 * S + 299 * MS)); /* it was still under way */
	assert(look_at(NODE, 100 * S + 290 * MS, 100 * S + 300 * MS) && goes(NODE, NULL));

	begin_follow();
	assert(follow_arrived(&follow, &wg, 100 * S));
	assert(!look_at(WG, 100 * S, 102 * S - 1));
	assert(look_at(WG, 100 * S, 102 * S) && goes(NODE, NULL));
}

static void test_another_path_ends_it(void)
{
	const struct endpoint wg = at(WG);
	const struct peer_path both = { .direct = true, .relay = true, .endpoint = at(NODE) };
	const struct peer_path elsewhere = { .direct = true, .endpoint = at("192.0.2.10:5") };

	begin_follow();
	assert(follow_arrived(&follow, &wg, 100 * S));
	follow_set_path(&follow, &both, 100 * S);
	assert(goes(NODE, NULL) && !follow_arrived(&follow, &wg, 100 * S));
	begin_follow();
	assert(follow_arrived(&follow, &wg, 100 * S));
	follow_set_path(&follow, &elsewhere, 100 * S);
	assert(goes("192.0.2.10:5", NULL));
}

static void test_after_a_doubt_the_route_stays_with_the_node_for_ten_seconds(void)
{
	const struct endpoint wg = at(WG);
	const struct peer_path both = { .direct = true, .relay = true, .endpoint = at(NODE) };
	const struct peer_path direct = { .direct = true, .endpoint = at(NODE) };

	begin_follow();
	assert(follow_arrived(&follow, &wg, 100 * S));
	follow_set_path(&follow, &both, 100 * S);
	follow_set_path(&follow, &direct, 101 * S);
	assert(!follow_arrived(&follow, &wg, 110 * S - 1) && !look_at(WG, 110 * S - 1, 110 * S - 1) && goes(NODE, NULL));
	assert(follow_arrived(&follow, &wg, 110 * S) && goes(WG, NULL));
}

static void test_its_wireguard_is_nudged_while_nothing_goes_there(void)
{
	const struct endpoint wg = at(WG);

	begin_follow();
	assert(!follow_must_nudge(&follow, 0, 100 * S));
	assert(follow_arrived(&follow, &wg, 100 * S));
	assert(!follow_must_nudge(&follow, 100 * S, 101 * S - 1));
	assert(follow_must_nudge(&follow, 100 * S, 101 * S));
	assert(!follow_must_nudge(&follow, 100 * S, 101 * S + 1));
}

static void test_a_table_finds_and_forgets_peers(void)
{
	struct follow_table table = { 0 };
	const struct public_key a = { { 1 } }, b = { { 2 } };

	follow_get(&table, 1, &a);
	struct follow *second = follow_get(&table, 1 + FOLLOW_BUCKETS, &b);
	assert(follow_find(&table, 1 + FOLLOW_BUCKETS) == second && follow_get(&table, 1, &a) != second);
	follow_remove(&table, &a);
	assert(!follow_find(&table, 1) && follow_find(&table, 1 + FOLLOW_BUCKETS) == second);
	follow_clear(&table);
	assert(!follow_find(&table, 1 + FOLLOW_BUCKETS));
}

int main(void)
{
	test_what_came_one_way_and_was_counted_came_that_way();
	test_what_wireguard_did_not_count_was_not_authentic();
	test_a_forger_at_the_path_does_not_keep_it_alive_while_the_relay_brings();
	test_a_count_that_lags_is_not_taken_for_the_other_way();
	test_what_nothing_brought_came_past_us_from_the_path();
	test_keepalives_and_handshakes_past_us_are_no_data();
	test_counts_go_on_when_wireguard_was_told_to_forget_the_peer();
	test_the_age_of_a_handshake_is_told_by_our_clock();
	test_an_initiation_without_an_answer_is_packets_that_wait();
	test_initiations_without_an_answer_are_counted_and_are_sent();
	test_nothing_is_tried_before_the_peer_has_told_its_port();
	test_a_way_on_which_something_comes_back_is_used();
	test_a_way_on_which_nothing_comes_back_is_left_in_half_a_second_and_tried_ever_more_seldom();
	test_silence_ends_it_in_two_and_a_half_seconds();
	test_who_has_nothing_to_send_is_heard_each_second();
	test_it_ends_with_the_direct_path_at_once();
	test_after_a_doubt_the_nodes_carry_for_ten_seconds_even_if_the_peer_sends_past_them();
	test_a_peer_that_was_faster_is_followed_at_the_paths_address_only();
	test_who_carries_our_packets_to_another_address_takes_nobody_along();
	test_a_peer_that_sends_by_its_node_again_takes_us_back_for_three_seconds();
	test_trying_sends_both_ways_so_that_nothing_is_lost();
	test_an_authentic_packet_from_its_wireguard_moves_the_route_there();
	test_the_route_moves_back_when_the_peer_does_or_is_silent();
	test_another_path_ends_it();
	test_after_a_doubt_the_route_stays_with_the_node_for_ten_seconds();
	test_its_wireguard_is_nudged_while_nothing_goes_there();
	test_a_table_finds_and_forgets_peers();
	return 0;
}
