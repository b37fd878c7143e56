/*
 * The peer state machine: relay first, punch, go direct, doubt, fall back, try again.
 * Every test reads as: what happens, then the trace it must leave. Order as in peer_fsm.h.
 */
#include "tests/unit/actors/peer_world.h"

#include "common/macros.h"

#define LAN    "192.168.1.2:7000"
#define PUBLIC "198.51.100.9:7000"
#define NATTED "203.0.113.5:40001"

/* A known peer with one address, the relay up, an own endpoint. */
static void given_a_known_peer(struct world *w)
{
	begin(w);
	happens_relay(w, true);
	happens_ours(w, 1);
	happens_info(w, 7, PUBLIC);
	forget_trace(w);
}

static void given_an_established_peer(struct world *w)
{
	given_a_known_peer(w);
	happens_plain(w, PEER_IN_TRAFFIC);
	w->now_ns += MS(20);
	happens_pong(w, PUBLIC);
	assert(w->peer.state == PEER_ESTABLISHED);
	forget_trace(w);
}

/* Data both ways for a while, every 50 ms. */
static void traffic_flows(struct world *w, uint64_t ms, const char *from)
{
	for (uint64_t t = 0; t < ms; t += 50) {
		happens_plain(w, PEER_IN_DATA_SENT);
		if (from)
			happens_from(w, PEER_IN_DATA_RECEIVED, from);
		after_ms(w, 50);
	}
}

/* ---- inactive, trying, establishing ---- */

static void test_nothing_happens_before_the_session_key_is_known(void)
{
	struct world w;
	begin(&w);

	happens_plain(&w, PEER_IN_TRAFFIC);
	happens_rendezvous(&w, PUBLIC);
	happens_info(&w, 0, PUBLIC);

	expect_path(&w, NULL, true);
	assert(w.n_pings == 0 && w.n_rendezvous == 0);
	expect_trace(&w, "[    0] waiting for info: traffic -> (ignored)\n"
			 "[    0] waiting for info: rendezvous -> (ignored)\n"
			 "[    0] waiting for info: removed -> waiting for info\n");
}

static void test_the_one_who_starts_pings_and_offers_and_is_direct_after_a_pong(void)
{
	struct world w;
	given_a_known_peer(&w);

	happens_plain(&w, PEER_IN_TRAFFIC);
	assert(sent_to(&w, PEER_DO_SEND_PING, PUBLIC) &&
	       sent_to(&w, PEER_DO_SEND_RENDEZVOUS, NULL));
	expect_path(&w, NULL, true);
	after_ms(&w, 30);
	happens_pong(&w, PUBLIC);

	assert(sent_to(&w, PEER_DO_ADD_AKA, PUBLIC));
	expect_path(&w, PUBLIC, false);
	assert(peer_fsm_latency_us(&w.peer) == 30000);
	expect_trace(&w, "[    0] inactive: traffic -> trying\n"
			 "[    0] trying: retry due -> pre-transmit\n"
			 "[    0] pre-transmit: then -> transmitting\n"
			 "[   30] transmitting: pong -> finalizing\n"
			 "[   30] finalizing: then -> booting\n"
			 "[   30] booting: then -> established\n"
			 "[   30]   path: 198.51.100.9:7000\n");
}

static void test_the_other_one_is_woken_by_the_rendezvous_and_answers_with_its_own(void)
{
	struct world w;
	given_a_known_peer(&w);

	happens_rendezvous(&w, NATTED);
	assert(sent_to(&w, PEER_DO_SEND_PING, NATTED) &&
	       sent_to(&w, PEER_DO_SEND_RENDEZVOUS, NULL));
	after_ms(&w, 10);
	happens_from(&w, PEER_IN_PING, NATTED);
	assert(sent_to(&w, PEER_DO_SEND_PONG, NATTED) && sent_to(&w, PEER_DO_SEND_PING, NATTED));
	expect_path(&w, NATTED, true); /* it may work already: both ways */
	after_ms(&w, 10);
	happens_pong(&w, NATTED);

	expect_trace(&w, "[    0] inactive: rendezvous -> rendezvous got\n"
			 "[    0] rendezvous got: then -> rendezvous acknowledged\n"
			 "[   10] rendezvous acknowledged: ping -> half-establishing\n"
			 "[   10] half-establishing: then -> half-established\n"
			 "[   10]   path: 203.0.113.5:40001 and relay\n"
			 "[   20] half-established: pong -> finalizing\n"
			 "[   20] finalizing: then -> booting\n"
			 "[   20] booting: then -> established\n"
			 "[   20]   path: 203.0.113.5:40001\n");
}

static void test_a_pong_from_an_address_nobody_advertised_is_the_path(void)
{
	struct world w;
	given_a_known_peer(&w);

	happens_plain(&w, PEER_IN_TRAFFIC);
	happens_pong(&w, NATTED);

	expect_path(&w, NATTED, false);
}

static void test_rendezvous_in_transmitting_leads_to_acknowledged_and_half_established_keeps_it(
	void)
{
	struct world w;
	given_a_known_peer(&w);

	happens_plain(&w, PEER_IN_TRAFFIC);
	forget_trace(&w);
	happens_rendezvous(&w, NATTED);
	happens_rendezvous(&w, NATTED);
	happens_from(&w, PEER_IN_PING, NATTED);
	happens_rendezvous(&w, LAN);

	expect_trace(&w, "[    0] transmitting: rendezvous -> rendezvous got\n"
			 "[    0] rendezvous got: then -> rendezvous acknowledged\n"
			 "[    0] rendezvous acknowledged: rendezvous -> rendezvous got\n"
			 "[    0] rendezvous got: then -> rendezvous acknowledged\n"
			 "[    0] rendezvous acknowledged: ping -> half-establishing\n"
			 "[    0] half-establishing: then -> half-established\n"
			 "[    0]   path: 203.0.113.5:40001 and relay\n"
			 "[    0] half-established: rendezvous -> half-established\n");
	assert(w.n_rendezvous == 1); /* ours is with the peer since the beginning */
	assert(sent_to(&w, PEER_DO_SEND_PING, LAN));
}

static void test_pings_come_in_a_burst_then_every_second_until_ten_seconds_are_over(void)
{
	struct world w;
	given_a_known_peer(&w);

	happens_plain(&w, PEER_IN_TRAFFIC);
	after_ms(&w, 999);
	assert(w.n_pings == 4); /* 0, 200…250, 400…500, 600…750 */
	after_ms(&w, 9000);
	assert(w.n_pings >= 12 && w.n_pings <= 14);
	assert(w.n_rendezvous == 4); /* every 3 s, as the peer is not heard */
	forget_trace(&w);
	after_ms(&w, 10);

	expect_trace(&w, "[10000] transmitting: timed out -> trying\n");
	expect_path(&w, NULL, true);
}

static void test_the_lan_is_pinged_first(void)
{
	struct world w;
	struct endpoint both[] = { at(PUBLIC), at(LAN) };
	given_a_known_peer(&w);

	happens(&w,
		(struct peer_input){
			.type = PEER_IN_INFO, .session = 7, .endpoints = both, .n_endpoints = 2 });
	happens_plain(&w, PEER_IN_TRAFFIC);

	assert(w.last.all[0].type == PEER_DO_SEND_PING &&
	       endpoint_equal(&w.last.all[0].to.endpoint, &both[1]));
}

static void test_retries_wait_longer_each_time_and_never_longer_than_ten_minutes(void)
{
	struct world w;
	uint64_t expected_s = 1;
	given_a_known_peer(&w);

	happens_plain(&w, PEER_IN_TRAFFIC);
	for (int i = 0; i < 14; i++) {
		after_ms(&w, 10000);
		assert(w.peer.state == PEER_TRYING);
		uint64_t wait_ns = w.peer.deadline_ns - w.now_ns + (w.now_ns - w.peer.give_up_ns);
		assert(wait_ns >= MS(800) * expected_s && wait_ns <= MS(1200) * expected_s);
		w.now_ns = w.peer.deadline_ns;
		happens_plain(&w, PEER_IN_DEADLINE);
		expected_s = expected_s * 2 < 600 ? expected_s * 2 : 600;
	}
}

static void test_an_idle_peer_is_not_retried(void)
{
	struct world w;
	given_a_known_peer(&w);

	happens_plain(&w, PEER_IN_TRAFFIC);
	after_ms(&w, 10000);
	assert(w.peer.state == PEER_TRYING);
	happens_plain(&w, PEER_IN_IDLE);

	assert(w.peer.state == PEER_INACTIVE && w.peer.deadline_ns == 0);
}

static void test_new_endpoints_on_either_side_a_rendezvous_and_the_relay_end_the_wait(void)
{
	for (int what = 0; what < 5; what++) {
		struct world w;
		given_a_known_peer(&w);
		happens_plain(&w, PEER_IN_TRAFFIC);
		after_ms(&w, 10100);
		assert(w.peer.state == PEER_TRYING);

		if (what == 0)
			happens_info(&w, 7, LAN);
		if (what == 1)
			happens_ours(&w, 2);
		if (what == 2)
			happens_rendezvous(&w, LAN);
		if (what == 3)
			happens_relay(&w, false), happens_relay(&w, true);
		if (what == 4)
			happens_from(&w, PEER_IN_PING, LAN);

		assert(peer_state_is_establishing(w.peer.state));
	}
}

static void test_one_attempt_is_prolonged_by_a_rendezvous_only_once(void)
{
	struct world w;
	given_a_known_peer(&w);

	happens_plain(&w, PEER_IN_TRAFFIC);
	after_ms(&w, 9000);
	happens_rendezvous(&w, NATTED);
	after_ms(&w, 9000);
	happens_rendezvous(&w, NATTED);
	assert(w.peer.state == PEER_RENDEZVOUS_ACKNOWLEDGED);
	after_ms(&w, 1000);

	assert(w.peer.state == PEER_TRYING);
}

static void test_our_endpoints_found_a_moment_later_are_offered_with_the_next_round(void)
{
	struct world w;
	given_a_known_peer(&w);

	happens_plain(&w, PEER_IN_TRAFFIC);
	after_ms(&w, 50);
	happens_ours(&w, 2); /* the STUN server answered */
	assert(w.n_rendezvous == 1);
	after_ms(&w, 210);

	assert(w.n_rendezvous == 2);
}

static void test_without_any_endpoint_we_wait_for_one(void)
{
	struct world w;
	begin(&w);

	happens_relay(&w, true);
	happens_info(&w, 7, NULL);
	happens_plain(&w, PEER_IN_TRAFFIC);
	assert(w.peer.state == PEER_TRYING && w.peer.deadline_ns == 0);
	happens_ours(&w, 1);

	assert(w.peer.state == PEER_TRANSMITTING && w.n_rendezvous == 1);
}

static void test_without_a_relay_the_sources_of_pings_are_enough(void)
{
	struct world w;
	begin(&w);

	happens_info(&w, 7, NULL);
	happens_from(&w, PEER_IN_PING, NATTED);
	assert(sent_to(&w, PEER_DO_SEND_PONG, NATTED));
	happens_from(&w, PEER_IN_DATA_RECEIVED, NATTED);
	happens_plain(&w, PEER_IN_TRAFFIC);
	assert(sent_to(&w, PEER_DO_SEND_PING, NATTED) &&
	       !sent_to(&w, PEER_DO_SEND_RENDEZVOUS, NULL));
	happens_pong(&w, NATTED);

	expect_path(&w, NATTED, false);
}

static void test_a_late_or_foreign_pong_is_stale(void)
{
	struct world w;
	given_a_known_peer(&w);

	happens_plain(&w, PEER_IN_TRAFFIC);
	struct peer_action first = w.ping;
	forget_trace(&w);
	memset(w.ping.tx_id.bytes, 'x', PEER_TX_ID_LEN);
	happens_pong(&w, PUBLIC);
	w.now_ns += MS(5001);
	w.ping = first;
	happens_pong(&w, PUBLIC);

	assert(strstr(w.trace, "[    0] transmitting: stale pong -> (ignored)\n"));
	assert(strstr(w.trace, "[ 5001] transmitting: stale pong -> (ignored)\n"));
	assert(w.peer.state == PEER_TRANSMITTING);
}

static void test_nobody_can_make_us_ping_ourselves_or_a_multicast_group(void)
{
	struct world w;
	struct endpoint bad[] = { at("127.0.0.1:53"), at("224.0.0.1:7"), at("255.255.255.255:7"),
				  at("[::1]:7"),      at("[ff02::1]:7"), at("0.0.0.0:7") };
	given_a_known_peer(&w);

	happens(&w, (struct peer_input){ .type = PEER_IN_RENDEZVOUS,
					 .endpoints = bad,
					 .n_endpoints = ARRAY_LEN(bad) });

	assert(w.n_pings == 0);
}

static void test_a_peer_fills_only_its_own_share_of_the_table(void)
{
	struct world w;
	struct endpoint many[PEER_MAX_RENDEZVOUS_ENDPOINTS + 10];
	given_an_established_peer(&w);

	for (uint32_t round = 0; round < 50; round++) {
		for (uint32_t i = 0; i < ARRAY_LEN(many); i++)
			many[i] = endpoint_from_v4(0x0b000000u + round * 100 + i, 9);
		happens(&w, (struct peer_input){ .type = PEER_IN_RENDEZVOUS,
						 .endpoints = many,
						 .n_endpoints = ARRAY_LEN(many) });
		happens(&w, (struct peer_input){ .type = PEER_IN_INFO,
						 .session = 7,
						 .endpoints = many + 5,
						 .n_endpoints = ARRAY_LEN(many) - 5 });
		for (uint32_t i = 0; i < 20; i++) {
			struct peer_input ping = { .type = PEER_IN_PING };
			ping.from.endpoint = endpoint_from_v4(0x0c000000u + round * 100 + i, 9);
			happens(&w, ping);
		}
	}

	assert(w.peer.state == PEER_ESTABLISHED);
	expect_path(&w, PUBLIC, w.peer.path.relay);
}

/* ---- established ---- */

static void test_data_both_ways_needs_no_pings_but_surveys_and_one_a_second(void)
{
	struct world w;
	given_an_established_peer(&w);

	w.n_pings = 0;
	for (int i = 0; i < 20; i++) {
		uint32_t before = w.n_pings;

		traffic_flows(&w, 1000, PUBLIC);
		if (w.n_pings != before)
			happens_pong(&w, PUBLIC);
	}

	assert(w.n_pings >= 18 && w.n_pings <= 5 + 20 && w.n_paths == 1); /* surveys at 1, 2, 3 s, then every 10 s */
	assert(w.peer.state == PEER_ESTABLISHED);
}

/* A survey with an answer by one way, or none, and one by relay. */
static void survey(struct world *w, bool direct_answers, uint64_t relay_ms)
{
	w->now_ns = w->peer.survey_ns;
	happens_plain(w, PEER_IN_DEADLINE);
	if (direct_answers) {
		w->now_ns += MS(5);
		happens_pong(w, PUBLIC);
	}
	w->now_ns += MS(relay_ms);
	happens_pong(w, NULL);
	happens_from(w, PEER_IN_DATA_RECEIVED, PUBLIC); /* the data is not what decides */
}

static void test_a_direct_way_that_loses_a_third_is_left_for_the_relay_within_four_minutes_and_not_for_two_losses(void)
{
	struct world w;
	int n = 0;
	given_an_established_peer(&w);

	for (int i = 0; i < 20; i++)
		survey(&w, i != 7 && i != 8, 20);
	assert(!w.peer.prefers_relay);
	uint64_t begin_ns = w.now_ns;
	while (!w.peer.prefers_relay && n < 200)
		survey(&w, ++n % 3 != 0, 20);
	assert(w.peer.prefers_relay && w.now_ns - begin_ns < MS(240000)); /* by surveys alone */
}

static void test_a_direct_way_left_for_what_it_lost_is_taken_again_when_it_was_good_for_minutes_not_by_one_lucky_look(void)
{
	struct world w;
	int n;
	given_an_established_peer(&w);
	for (n = 0; !w.peer.prefers_relay && n < 200; n++)
		survey(&w, n % 3 != 0, 20);

	/* All that is known of it lately is good. */
	for (n = 0; n < 75; n++)
		survey(&w, true, 20);
	assert(w.peer.prefers_relay && w.peer.candidates.all[w.peer.current].loss_permille == 0);
	for (n = 0; n < 9; n++)
		survey(&w, n % 3 == 0, 20);
	assert(w.peer.prefers_relay);

	uint64_t begin_ns = w.now_ns;
	for (n = 0; w.peer.prefers_relay && n < 500; n++)
		survey(&w, true, 20);
	assert(!w.peer.prefers_relay && w.now_ns - begin_ns > MS(120000) && w.now_ns - begin_ns < MS(300000));
}

static void test_nor_is_another_address_of_the_peer_taken_by_one_lucky_look(void)
{
	struct world w;
	given_an_established_peer(&w);
	for (int n = 0; !w.peer.prefers_relay && n < 200; n++)
		survey(&w, n % 3 != 0, 20);
	assert(w.peer.prefers_relay);
	happens_rendezvous(&w, LAN);

	int n = 0;
	for (uint64_t begin_ns = w.now_ns; w.peer.prefers_relay && n < 200; n++) {
		w.now_ns = w.peer.survey_ns;
		happens_plain(&w, PEER_IN_DEADLINE);
		w.now_ns += MS(5);
		happens_pong_of(&w, LAN);
		if (n % 3 != 0)
			happens_pong_of(&w, PUBLIC);
		w.now_ns += MS(20);
		happens_pong(&w, NULL);
		happens_from(&w, PEER_IN_DATA_RECEIVED, PUBLIC);
		assert(w.now_ns - begin_ns < MS(180000));
	}
	assert(n >= 32 && strcmp(endpoint_text(&w.peer.path.endpoint).s, LAN) == 0);
}

static void test_a_quiet_path_is_pinged_every_two_seconds(void)
{
	struct world w;
	given_an_established_peer(&w);
	after_ms(&w, 1000);
	happens_pong(&w, PUBLIC);
	after_ms(&w, 1000);
	happens_pong(&w, PUBLIC);
	after_ms(&w, 1000);
	happens_pong(&w, PUBLIC);
	forget_trace(&w);
	w.n_pings = 0;

	for (int i = 0; i < 4; i++) {
		after_ms(&w, 2000);
		happens_pong(&w, PUBLIC);
	}

	assert(w.n_pings == 4);
	expect_path(&w, PUBLIC, false);
}

static void test_silence_under_traffic_is_asked_doubted_carried_by_relay_and_given_up(void)
{
	struct world w;
	given_an_established_peer(&w);
	traffic_flows(&w, 5000, PUBLIC);
	forget_trace(&w);

	w.now_ns = MS(10000);
	happens_from(&w, PEER_IN_DATA_RECEIVED, PUBLIC);
	forget_trace(&w);
	w.peer.survey_ns = MS(20000); /* not part of this story */
	candidate_forget_measures(&w.peer.candidates.all[w.peer.current]); /* nor are its unanswered pings */
	w.peer.established_ns = 0;
	traffic_flows(&w, 1000, NULL);

	expect_trace(&w, "[10100] established: watch due -> established\n"
			 "[10200] established: watch due -> established\n"
			 "[10250] established: silent -> established\n"
			 "[10300] established: watch due -> established\n"
			 "[10350] established: no answer -> established\n"
			 "[10350]   path: 198.51.100.9:7000 and relay\n"
			 "[10400] established: probe due -> established\n"
			 "[10400] established: watch due -> established\n"
			 "[10450] established: probe due -> established\n"
			 "[10500] established: probe due -> established\n"
			 "[10500] established: watch due -> established\n"
			 "[10550] established: probe due -> established\n"
			 "[10600] established: probe due -> established\n"
			 "[10600] established: watch due -> established\n"
			 "[10650] established: probe due -> established\n"
			 "[10700] established: probe due -> established\n"
			 "[10700] established: watch due -> established\n"
			 "[10750] established: probe due -> established\n"
			 "[10800] established: probe due -> established\n"
			 "[10800] established: watch due -> established\n"
			 "[10900] established: lost -> teardown\n"
			 "[10900] teardown: wanted -> trying\n"
			 "[10900] trying: retry due -> pre-transmit\n"
			 "[10900] pre-transmit: then -> transmitting\n"
			 "[10900]   path: relay\n");
}

static void happens_receipt(struct world *w, uint32_t age_ms)
{
	happens(w, (struct peer_input){
			   .type = PEER_IN_RECEIPT, .from = { .endpoint = at(PUBLIC) }, .age_ms = age_ms });
}

/* Traffic to the peer; every ping is answered, with a receipt of that age. 0: the data arrives. */
static void pings_pass(struct world *w, uint64_t ms, uint64_t silent_since_ns)
{
	for (uint64_t t = 0; t < ms; t += 50) {
		uint32_t before = w->n_pings;

		happens_plain(w, PEER_IN_DATA_SENT);
		after_ms(w, 50);
		if (w->n_pings == before)
			continue;
		pings_are_answered(w, before, PUBLIC);
		happens_receipt(w, silent_since_ns ? (uint32_t)((w->now_ns - silent_since_ns) / MS(1)) : 10);
	}
}

static void test_where_pings_pass_and_data_does_not_the_relay_carries_it_and_the_address_is_closed_for_a_while(void)
{
	struct world w;
	given_an_established_peer(&w);
	w.peer.survey_ns = UINT64_MAX; /* not part of this story */
	pings_pass(&w, 2000, 0);
	expect_path(&w, PUBLIC, false);
	uint64_t cut_ns = w.now_ns;

	pings_pass(&w, 300, cut_ns);
	expect_path(&w, PUBLIC, true);
	pings_pass(&w, 700, cut_ns);

	expect_path(&w, NULL, true);
	assert(w.peer.state == PEER_ESTABLISHED && w.peer.prefers_relay);
	assert(candidate_is_closed(&w.peer.candidates.all[w.peer.current], w.now_ns + MS(8000)));
	assert(!candidate_is_closed(&w.peer.candidates.all[w.peer.current], w.now_ns + MS(10000)));
}

static void test_a_receipt_of_data_ends_that_doubt(void)
{
	struct world w;
	given_an_established_peer(&w);
	w.peer.survey_ns = UINT64_MAX;
	pings_pass(&w, 2000, 0);

	pings_pass(&w, 300, w.now_ns);
	expect_path(&w, PUBLIC, true);
	pings_pass(&w, 400, 0);

	expect_path(&w, PUBLIC, false);
}

/* A packet each interval_ms, and how it fares by the direct way. We notice so late that it went. */
struct stream {
	uint64_t interval_ms, late_ms;
	bool is_cut;
	/* What goes both ways is noticed as the relay's, and as direct only what comes so long after the last copy:
	 * a kernel's WireGuard tells nothing of single packets. */
	bool relay_is_faster;
	uint64_t quiet_ms;
};

/* Every ping is answered, with a receipt. */
static void packets_go(struct world *w, uint64_t ms, const struct stream *stream)
{
	uint64_t heard_ns = 0, both_ns = 0;
	uint32_t n_relay_pings = w->n_relay_pings;

	for (uint64_t t = 0; t < ms; t += 10) {
		if (w->peer.path.relay && stream->relay_is_faster)
			both_ns = w->now_ns;
		else if (!stream->is_cut && t % stream->interval_ms == 0 &&
			 w->now_ns - both_ns >= MS(stream->quiet_ms))
			heard_ns = w->now_ns;
		if (t % stream->interval_ms == stream->late_ms)
			happens_plain(w, PEER_IN_DATA_SENT);
		uint64_t answer_ms = 9 - t / 2000 % 9; /* just before the next keepalive */
		after_ms(w, answer_ms);
		if (w->n_relay_pings != n_relay_pings)
			happens_pong(w, NULL);
		if (w->n_pings != w->n_answered) {
			pings_are_answered(w, w->n_answered, PUBLIC);
			happens_receipt(w, heard_ns ? (uint32_t)((w->now_ns - heard_ns) / MS(1)) : PEER_NO_RECEIPT);
		}
		n_relay_pings = w->n_relay_pings;
		after_ms(w, 10 - answer_ms);
	}
}

/* The direct way was fine; three looks were lost, and it is not believed any more. */
static void given_a_doubt_about_data(struct world *w)
{
	given_an_established_peer(w);
	w->peer.survey_ns = UINT64_MAX; /* not part of this story */
	pings_pass(w, 2000, 0);
	pings_pass(w, 300, w->now_ns);
	expect_path(w, PUBLIC, true);
}

static void test_a_healthy_path_passes_its_trial_though_the_relays_copy_comes_first(void)
{
	for (uint64_t quiet_ms = 0; quiet_ms <= 100; quiet_ms += 100) {
		for (uint64_t interval_ms = 50; interval_ms <= 1000; interval_ms += 950) {
			struct world w;
			given_a_doubt_about_data(&w);

			packets_go(&w, 3000,
				   &(struct stream){ .interval_ms = interval_ms,
						     .relay_is_faster = true,
						     .quiet_ms = quiet_ms });

			expect_path(&w, PUBLIC, false);
			assert(w.peer.undelivered_ns == 0 && w.peer.candidates.all[w.peer.current].n_closed == 0);
		}
	}
}

static void test_a_packet_that_the_peer_tells_of_before_we_notice_that_it_went_is_not_missing(void)
{
	for (uint64_t late_ms = 0; late_ms <= 50; late_ms += 10) {
		struct world w;
		given_a_doubt_about_data(&w);

		packets_go(&w, 2000, &(struct stream){ .interval_ms = 1000, .late_ms = late_ms });

		expect_path(&w, PUBLIC, false);
		assert(w.peer.candidates.all[w.peer.current].n_closed == 0);
	}
}

static void test_a_path_closed_to_data_passes_its_trial_though_the_relays_copy_comes_first(void)
{
	struct world w;
	given_an_established_peer(&w);
	pings_pass(&w, 2000, 0);
	pings_pass(&w, 1500, w.now_ns);
	expect_path(&w, NULL, true);
	candidate_forget_measures(&w.peer.candidates.all[w.peer.current]); /* what was not answered is not part of this */

	packets_go(&w, 16000,
		   &(struct stream){ .interval_ms = 50, .relay_is_faster = true, .quiet_ms = 100 }); /* closed for 10 s, then chosen again within some surveys */

	expect_path(&w, PUBLIC, false);
	assert(w.peer.undelivered_ns == 0 && w.peer.candidates.all[w.peer.current].n_closed == 0);
}

static void test_a_trial_of_a_path_that_carries_no_data_costs_a_quarter_of_a_second_of_it_and_closes_the_path(void)
{
	struct world w;
	uint64_t alone_ms = 0;
	given_a_doubt_about_data(&w);

	for (int i = 0; i < 40 && w.peer.path.direct; i++) {
		alone_ms += w.peer.path.relay ? 0 : 50;
		packets_go(&w, 50, &(struct stream){ .interval_ms = 50, .is_cut = true });
	}

	expect_path(&w, NULL, true);
	assert(alone_ms > 0 && alone_ms <= 250);
}

/* Of a packet each second, the first that goes alone is lost. Is the path closed? */
static bool is_closed_by_one_loss(uint64_t lost_pings)
{
	struct world w;
	given_a_doubt_about_data(&w);

	for (int i = 0; i < 60 && w.peer.path.direct; i++) {
		struct peer_candidate *current = &w.peer.candidates.all[w.peer.current];

		current->counted[0] = UINT64_MAX;
		current->answered[0] = ~lost_pings;
		packets_go(&w, 50, &(struct stream){ .interval_ms = 50, .is_cut = i < 30, .late_ms = i % 20 == 10 ? 0 : 99 });
	}
	return !w.peer.path.direct;
}

static void test_where_some_is_lost_anyway_one_packet_is_not_enough_to_close_a_path(void)
{
	assert(is_closed_by_one_loss(0));
	assert(!is_closed_by_one_loss(7ull << 40));
}

static void test_a_peer_that_sends_no_receipts_is_trusted_by_its_pongs(void)
{
	struct world w;
	given_an_established_peer(&w);
	w.n_paths = 0;

	for (int i = 0; i < 200; i++) {
		uint32_t before = w.n_pings;

		happens_plain(&w, PEER_IN_DATA_SENT);
		after_ms(&w, 50);
		if (w.n_pings != before)
			happens_pong(&w, PUBLIC);
	}

	assert(w.n_paths == 0);
}

static void test_receipts_go_with_pings_and_pongs_under_traffic_only_and_tell_of_direct_data(void)
{
	struct world w;
	given_an_established_peer(&w);

	happens_from(&w, PEER_IN_DATA_RECEIVED, PUBLIC);
	after_ms(&w, 30);
	happens_from(&w, PEER_IN_DATA_RECEIVED, NULL);
	happens_from(&w, PEER_IN_PING, PUBLIC);
	assert(sent_to(&w, PEER_DO_SEND_RECEIPT, PUBLIC) && w.receipt.age_ms == 30);
	happens_from(&w, PEER_IN_PING, NULL);
	assert(w.n_receipts == 1);
	happens_plain(&w, PEER_IN_IDLE);
	happens_from(&w, PEER_IN_PING, PUBLIC);
	assert(w.n_receipts == 1);
}

static void test_who_did_not_answer_a_ping_lately_gets_a_pong_and_no_receipt(void)
{
	struct world w;
	given_an_established_peer(&w);
	pings_pass(&w, 26000, 0);
	struct peer_candidate *current = &w.peer.candidates.all[w.peer.current];
	current->pong_ns = w.now_ns - MS(24000);
	happens_from(&w, PEER_IN_PING, PUBLIC); /* asked back, this time */
	happens_from(&w, PEER_IN_PING, PUBLIC);
	assert(sent_to(&w, PEER_DO_SEND_PONG, PUBLIC) && sent_to(&w, PEER_DO_SEND_RECEIPT, PUBLIC));
	current->pong_ns = w.now_ns - MS(25000);
	happens_from(&w, PEER_IN_PING, PUBLIC);
	assert(sent_to(&w, PEER_DO_SEND_PONG, PUBLIC) && !sent_to(&w, PEER_DO_SEND_RECEIPT, PUBLIC));
	happens_from(&w, PEER_IN_PING, NATTED); /* it may be the address of somebody else */
	happens_from(&w, PEER_IN_PING, NATTED);
	assert(sent_to(&w, PEER_DO_SEND_PONG, NATTED) && !sent_to(&w, PEER_DO_SEND_RECEIPT, NATTED));
}

static void test_one_way_traffic_is_asked_for_but_does_not_flap(void)
{
	struct world w;
	given_an_established_peer(&w);
	w.n_paths = 0;
	w.n_pings = 0;

	for (int i = 0; i < 600; i++) {
		uint32_t before = w.n_pings;

		happens_plain(&w, PEER_IN_DATA_SENT);
		after_ms(&w, 25);
		if (w.n_pings != before)
			happens_pong(&w, PUBLIC);
	}

	assert(w.n_paths == 0);
	assert(w.n_pings <= 15 * 5);
}

static void test_an_answer_ends_the_doubt(void)
{
	struct world w;
	given_an_established_peer(&w);

	happens_plain(&w, PEER_IN_DATA_SENT);
	after_ms(&w, 400);
	expect_path(&w, PUBLIC, true);
	happens_pong(&w, PUBLIC);

	expect_path(&w, PUBLIC, false);
}

static void test_a_peer_that_turns_to_the_relay_lost_something_and_data_from_it_is_no_proof(void)
{
	struct world w;
	given_an_established_peer(&w);
	traffic_flows(&w, 1500, PUBLIC);

	happens_from(&w, PEER_IN_DATA_RECEIVED, NULL);
	expect_path(&w, PUBLIC, true);
	happens_from(&w, PEER_IN_DATA_RECEIVED, PUBLIC);
	expect_path(&w, PUBLIC, true);
	happens_pong(&w, PUBLIC);

	expect_path(&w, PUBLIC, false);
}

static void test_a_peer_that_turns_to_the_relay_while_our_probe_is_not_answered_is_not_waited_for(void)
{
	struct world w;
	given_an_established_peer(&w);
	traffic_flows(&w, 1500, PUBLIC);
	traffic_flows(&w, 300, NULL);
	assert(w.peer.trust == PEER_PROBED);
	expect_path(&w, PUBLIC, false);

	happens_from(&w, PEER_IN_DATA_RECEIVED, NULL);
	expect_path(&w, PUBLIC, true);
	happens_pong(&w, PUBLIC);

	expect_path(&w, PUBLIC, false);
}

static void test_a_peer_that_always_uses_the_relay_is_asked_now_and_then(void)
{
	struct world w;
	given_an_established_peer(&w);
	w.n_pings = w.n_paths = 0;

	for (int i = 0; i < 200; i++) {
		uint32_t before = w.n_pings;

		happens_from(&w, PEER_IN_DATA_RECEIVED, NULL);
		after_ms(&w, 50);
		if (w.n_pings != before)
			happens_pong(&w, PUBLIC);
	}

	assert(w.n_paths == 0 && w.n_pings <= 45);
}

static void test_a_ping_of_the_peer_is_answered_and_asked_back_when_the_last_pong_is_old(void)
{
	struct world w;
	given_an_established_peer(&w);
	traffic_flows(&w, 600, PUBLIC);
	w.n_pings = 0;

	happens_from(&w, PEER_IN_PING, PUBLIC);
	assert(w.n_pongs == 1 && w.n_pings == 1);
	happens_pong(&w, PUBLIC);
	happens_from(&w, PEER_IN_PING, PUBLIC);

	assert(w.n_pongs == 2 && w.n_pings == 1);
}

static void test_without_traffic_or_relay_the_bound_is_five_seconds(void)
{
	for (int relay = 0; relay < 2; relay++) {
		struct world w;
		given_an_established_peer(&w);
		happens_relay(&w, relay == 1);

		for (int i = 0; i < 49; i++) {
			if (relay == 0)
				happens_plain(&w, PEER_IN_DATA_SENT);
			after_ms(&w, 100);
		}
		assert(w.peer.state == PEER_ESTABLISHED);
		after_ms(&w, 200);

		assert(w.peer.state == PEER_TRYING);
	}
}

static void test_a_failed_send_means_doubt_at_once(void)
{
	struct world w;
	given_an_established_peer(&w);

	happens_from(&w, PEER_IN_SEND_FAILED, LAN);
	expect_path(&w, PUBLIC, false);
	happens_from(&w, PEER_IN_SEND_FAILED, PUBLIC);

	expect_path(&w, PUBLIC, true);
}

static void test_packets_too_big_for_the_path_go_by_relay_as_well_for_a_minute(void)
{
	struct world w;
	given_an_established_peer(&w);

	happens(&w, (struct peer_input){ .type = PEER_IN_SEND_FAILED,
					 .too_big = true,
					 .from = { .endpoint = at(PUBLIC) } });
	traffic_flows(&w, 59000, PUBLIC);
	expect_path(&w, PUBLIC, true);
	traffic_flows(&w, 2000, PUBLIC);

	expect_path(&w, PUBLIC, false);
}

static void test_a_path_unused_for_a_minute_is_let_go_with_a_last_ping(void)
{
	struct world w;
	given_an_established_peer(&w);

	happens_plain(&w, PEER_IN_IDLE);
	for (int i = 0; i < 49; i++) {
		happens_from(&w, PEER_IN_DATA_RECEIVED, PUBLIC);
		after_ms(&w, 1000);
	}
	forget_trace(&w);
	w.peer.survey_ns = w.now_ns + MS(9000);
	after_ms(&w, 1000);

	assert(sent_to(&w, PEER_DO_SEND_PING, PUBLIC) && sent_to(&w, PEER_DO_REMOVE_AKA, PUBLIC));
	expect_trace(&w, "[50020] established: unused -> teardown\n"
			 "[50020] teardown: unwanted -> inactive\n"
			 "[50020]   path: relay\n");
}

static void test_a_stranger_is_answered_and_pinged_back_once(void)
{
	struct world w;
	given_an_established_peer(&w);
	w.n_pings = 0;

	happens_from(&w, PEER_IN_PING, NATTED);
	happens_from(&w, PEER_IN_PING, NATTED);

	assert(w.n_pongs == 2 && w.n_pings == 1);
	expect_path(&w, PUBLIC, false);
}

static void test_the_peer_behind_a_new_nat_mapping_is_found_by_its_data(void)
{
	struct world w;
	given_an_established_peer(&w);
	traffic_flows(&w, 2000, PUBLIC);

	happens_plain(&w, PEER_IN_DATA_SENT);
	happens_from(&w, PEER_IN_DATA_RECEIVED, NATTED);
	assert(sent_to(&w, PEER_DO_SEND_PING, NATTED) && sent_to(&w, PEER_DO_ADD_AKA, NATTED));
	after_ms(&w, 350);
	happens_from(&w, PEER_IN_DATA_RECEIVED, NATTED);
	assert(sent_to(&w, PEER_DO_SEND_PING, NATTED));
	happens_pong(&w, NATTED);

	expect_path(&w, NATTED, false);
}

static void test_a_better_way_is_taken_after_it_was_better_twice(void)
{
	struct world w;
	struct endpoint both[] = { at(PUBLIC), at(LAN) };
	given_an_established_peer(&w);

	happens(&w,
		(struct peer_input){
			.type = PEER_IN_INFO, .session = 7, .endpoints = both, .n_endpoints = 2 });
	for (int i = 0; i < 2400 && w.peer.current == 0; i++) {
		happens_plain(&w, PEER_IN_DATA_SENT);
		happens_from(&w, PEER_IN_DATA_RECEIVED, PUBLIC);
		after_ms(&w, 10);
		if (sent_to(&w, PEER_DO_SEND_PING, LAN))
			for (uint32_t a = 0; a < w.last.n; a++)
				if (endpoint_equal(&w.last.all[a].to.endpoint, &both[1])) {
					w.ping = w.last.all[a];
					w.last.n = 0;
					happens_pong(&w, LAN);
				}
	}

	expect_path(&w, LAN, false);
	assert(w.now_ns < MS(4500)); /* the early surveys are enough */
}

#define TURN    "198.51.100.50:3478" /* the peer's */
#define OWN_TURN "127.0.0.1:40000"   /* who comes by ours */

/* The address that this ping of the last step went to has answered, so many ms later. */
static void answered_at(struct world *w, const char *to, bool by_turn, uint64_t ms)
{
	const struct endpoint endpoint = at(to);

	for (uint32_t i = 0; i < w->last.n; i++) {
		if (w->last.all[i].type != PEER_DO_SEND_PING || w->last.all[i].to.by_relay ||
		    !endpoint_equal(&w->last.all[i].to.endpoint, &endpoint))
			continue;
		const struct peer_actions all = w->last;
		w->ping = all.all[i];
		w->by_turn = by_turn;
		w->now_ns += MS(ms);
		happens_pong(w, to);
		w->last = all;
		return;
	}
}

/* One survey, where the way by TURN and the other one answer. */
static void survey_both(struct world *w, const char *turn, const char *straight, uint64_t more_ms)
{
	w->now_ns = w->peer.survey_ns;
	happens_plain(w, PEER_IN_DEADLINE);
	answered_at(w, turn, strcmp(turn, TURN) == 0, 20);
	answered_at(w, straight, false, more_ms);
	happens_from(w, PEER_IN_DATA_RECEIVED, w->peer.path.endpoint.port == at(turn).port ? turn : straight);
}

static void test_a_way_by_turn_is_left_for_another_that_is_as_near_and_not_taken_instead_of_it(void)
{
	static const char *const turns[] = { TURN, OWN_TURN };

	for (int i = 0; i < 2; i++) {
		struct world w;
		given_a_known_peer(&w);
		happens_plain(&w, PEER_IN_TRAFFIC);
		happens_from(&w, PEER_IN_PING, turns[i]);
		w.by_turn = i == 0;
		w.now_ns += MS(20);
		happens_pong(&w, turns[i]); /* it was the first */
		expect_path(&w, turns[i], false);

		for (int n = 0; n < 6; n++)
			survey_both(&w, turns[i], PUBLIC, 5); /* 25 ms; TURN has 20 */
		expect_path(&w, PUBLIC, false);
		for (int n = 0; n < 30; n++)
			survey_both(&w, turns[i], PUBLIC, 5);
		expect_path(&w, PUBLIC, false);
	}
}

/* Pings are answered after 200 ms directly and 20 ms by relay, until that many ms are over. */
static void the_relay_is_faster(struct world *w, uint64_t ms)
{
	uint32_t seen = w->n_pings, seen_by_relay = w->n_relay_pings;
	uint64_t answer_at_ns = 0;

	for (uint64_t t = 0; t < ms; t += 20) {
		happens_plain(w, PEER_IN_DATA_SENT);
		happens_from(w, PEER_IN_DATA_RECEIVED, PUBLIC);
		after_ms(w, 20);
		if (w->n_relay_pings != seen_by_relay)
			happens_pong(w, NULL);
		if (w->n_pings != seen && answer_at_ns == 0)
			answer_at_ns = w->now_ns + MS(180);
		if (answer_at_ns && w->now_ns >= answer_at_ns) {
			answer_at_ns = 0;
			happens_pong(w, PUBLIC);
		}
		seen = w->n_pings;
		seen_by_relay = w->n_relay_pings;
	}
}

static void test_the_relay_wins_when_it_is_much_better_and_the_direct_way_is_kept(void)
{
	struct world w;
	given_a_known_peer(&w);
	happens_plain(&w, PEER_IN_TRAFFIC);
	w.now_ns += MS(200);
	happens_pong(&w, PUBLIC);
	expect_path(&w, PUBLIC, false);

	the_relay_is_faster(&w, 30000);
	expect_path(&w, NULL, true);
	assert(w.peer.state == PEER_ESTABLISHED && w.peer.prefers_relay);
	happens_relay(&w, false);

	expect_path(&w, PUBLIC, false);
}

static void test_a_restarted_peer_and_a_new_link_of_ours_put_the_path_in_doubt_not_down(void)
{
	struct world w;
	given_an_established_peer(&w);

	happens_info(&w, 8, PUBLIC);
	expect_path(&w, PUBLIC, true);
	happens_pong(&w, PUBLIC);
	expect_path(&w, PUBLIC, false);
	happens_ours(&w, 3);
	expect_path(&w, PUBLIC, true);
	happens_pong(&w, PUBLIC);

	expect_path(&w, PUBLIC, false);
}

static void test_a_rendezvous_while_established_is_honoured(void)
{
	struct world w;
	given_an_established_peer(&w);
	after_ms(&w, 1010);

	happens_rendezvous(&w, NATTED);

	assert(sent_to(&w, PEER_DO_SEND_PING, NATTED) && sent_to(&w, PEER_DO_SEND_PING, PUBLIC));
	expect_path(&w, PUBLIC, true);
}

static void test_a_path_that_comes_and_goes_is_tried_more_and_more_slowly(void)
{
	struct world w;
	given_an_established_peer(&w);

	traffic_flows(&w, 900, NULL);
	assert(w.peer.state == PEER_TRYING);
	after_ms(&w, 1200);

	assert(w.peer.state == PEER_TRANSMITTING && w.peer.n_failures == 1);
}

static void test_a_path_of_the_previous_session_is_adopted_in_doubt(void)
{
	struct world w;
	given_a_known_peer(&w);

	happens(&w,
		(struct peer_input){ .type = PEER_IN_ADOPT, .from = { .endpoint = at(NATTED) } });
	expect_path(&w, NATTED, true);
	happens_pong(&w, NATTED);

	expect_path(&w, NATTED, false);
	expect_trace(&w, "[    0] inactive: adopt -> booting\n"
			 "[    0] booting: then -> established\n"
			 "[    0]   path: 203.0.113.5:40001 and relay\n"
			 "[    0] established: pong -> established\n"
			 "[    0]   path: 203.0.113.5:40001\n");
}

static void test_reset_and_removal_take_everything_back(void)
{
	for (int what = 0; what < 2; what++) {
		struct world w;
		given_an_established_peer(&w);

		happens_plain(&w, what ? PEER_IN_RESET : PEER_IN_REMOVED);

		assert(w.peer.state == PEER_WAITING_FOR_INFO && w.peer.deadline_ns == 0);
		assert(sent_to(&w, PEER_DO_REMOVE_AKA, PUBLIC));
		expect_path(&w, NULL, true);
	}
}

int main(void)
{
	test_nothing_happens_before_the_session_key_is_known();
	test_the_one_who_starts_pings_and_offers_and_is_direct_after_a_pong();
	test_the_other_one_is_woken_by_the_rendezvous_and_answers_with_its_own();
	test_a_pong_from_an_address_nobody_advertised_is_the_path();
	test_rendezvous_in_transmitting_leads_to_acknowledged_and_half_established_keeps_it();
	test_pings_come_in_a_burst_then_every_second_until_ten_seconds_are_over();
	test_the_lan_is_pinged_first();
	test_retries_wait_longer_each_time_and_never_longer_than_ten_minutes();
	test_an_idle_peer_is_not_retried();
	test_new_endpoints_on_either_side_a_rendezvous_and_the_relay_end_the_wait();
	test_one_attempt_is_prolonged_by_a_rendezvous_only_once();
	test_our_endpoints_found_a_moment_later_are_offered_with_the_next_round();
	test_without_any_endpoint_we_wait_for_one();
	test_without_a_relay_the_sources_of_pings_are_enough();
	test_a_late_or_foreign_pong_is_stale();
	test_nobody_can_make_us_ping_ourselves_or_a_multicast_group();
	test_a_peer_fills_only_its_own_share_of_the_table();
	test_data_both_ways_needs_no_pings_but_surveys_and_one_a_second();
	test_a_direct_way_that_loses_a_third_is_left_for_the_relay_within_four_minutes_and_not_for_two_losses();
	test_a_direct_way_left_for_what_it_lost_is_taken_again_when_it_was_good_for_minutes_not_by_one_lucky_look();
	test_nor_is_another_address_of_the_peer_taken_by_one_lucky_look();
	test_a_quiet_path_is_pinged_every_two_seconds();
	test_silence_under_traffic_is_asked_doubted_carried_by_relay_and_given_up();
	test_where_pings_pass_and_data_does_not_the_relay_carries_it_and_the_address_is_closed_for_a_while();
	test_a_receipt_of_data_ends_that_doubt();
	test_a_healthy_path_passes_its_trial_though_the_relays_copy_comes_first();
	test_a_packet_that_the_peer_tells_of_before_we_notice_that_it_went_is_not_missing();
	test_a_path_closed_to_data_passes_its_trial_though_the_relays_copy_comes_first();
	test_a_trial_of_a_path_that_carries_no_data_costs_a_quarter_of_a_second_of_it_and_closes_the_path();
	test_where_some_is_lost_anyway_one_packet_is_not_enough_to_close_a_path();
	test_a_peer_that_sends_no_receipts_is_trusted_by_its_pongs();
	test_receipts_go_with_pings_and_pongs_under_traffic_only_and_tell_of_direct_data();
	test_who_did_not_answer_a_ping_lately_gets_a_pong_and_no_receipt();
	test_one_way_traffic_is_asked_for_but_does_not_flap();
	test_an_answer_ends_the_doubt();
	test_a_peer_that_turns_to_the_relay_lost_something_and_data_from_it_is_no_proof();
	test_a_peer_that_turns_to_the_relay_while_our_probe_is_not_answered_is_not_waited_for();
	test_a_peer_that_always_uses_the_relay_is_asked_now_and_then();
	test_a_ping_of_the_peer_is_answered_and_asked_back_when_the_last_pong_is_old();
	test_without_traffic_or_relay_the_bound_is_five_seconds();
	test_a_failed_send_means_doubt_at_once();
	test_packets_too_big_for_the_path_go_by_relay_as_well_for_a_minute();
	test_a_path_unused_for_a_minute_is_let_go_with_a_last_ping();
	test_a_stranger_is_answered_and_pinged_back_once();
	test_the_peer_behind_a_new_nat_mapping_is_found_by_its_data();
	test_a_better_way_is_taken_after_it_was_better_twice();
	test_a_way_by_turn_is_left_for_another_that_is_as_near_and_not_taken_instead_of_it();
	test_the_relay_wins_when_it_is_much_better_and_the_direct_way_is_kept();
	test_a_restarted_peer_and_a_new_link_of_ours_put_the_path_in_doubt_not_down();
	test_a_rendezvous_while_established_is_honoured();
	test_a_path_that_comes_and_goes_is_tried_more_and_more_slowly();
	test_a_path_of_the_previous_session_is_adopted_in_doubt();
	test_reset_and_removal_take_everything_back();
	puts("ok");
}
