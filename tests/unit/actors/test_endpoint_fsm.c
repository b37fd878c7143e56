/*
 * Our endpoints: ask all servers, retransmit, publish what changed, ask again in time.
 * Every test reads as: what happens, then what is asked and published.
 */
#include "actors/endpoint_manager/endpoint_fsm.h"
#include "common/macros.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MS(n) ((uint64_t)(n)*1000000u)

struct world {
	struct endpoint_fsm fsm;
	struct endpoint_actions last;
	uint64_t now_ns;
	struct endpoint keeper;
	uint32_t n_asked, n_published;
	struct endpoint_action
		asked[ENDPOINT_MAX_SERVERS]; /* by server, in the order of the list */
	char trace[8192];
};

static struct endpoint at(const char *text)
{
	struct endpoint endpoint;
	int r = endpoint_parse(text, &endpoint);

	assert(r == 0);
	return endpoint;
}

static void keep(void *arg, const char *line)
{
	struct world *w = arg;
	size_t used = strlen(w->trace);

	snprintf(w->trace + used, sizeof(w->trace) - used, "%s\n", line);
}

static void begin(struct world *w)
{
	memset(w, 0, sizeof(*w));
	w->now_ns = 1;
	endpoint_fsm_init(&w->fsm, 1);
	w->fsm.trace = keep;
	w->fsm.trace_arg = w;
}

static void happens(struct world *w, struct endpoint_input input)
{
	input.now_ns = w->now_ns;
	input.keeper = w->keeper;
	endpoint_fsm_step(&w->fsm, &input, &w->last);
	for (uint32_t i = 0; i < w->last.n; i++) {
		if (w->last.all[i].type == ENDPOINT_DO_PUBLISH) {
			w->n_published++;
			continue;
		}
		w->n_asked++;
		for (uint32_t s = 0; s < w->fsm.n_servers; s++)
			if (endpoint_equal(&w->fsm.servers[s].server.endpoint,
					   &w->last.all[i].server))
				w->asked[s] = w->last.all[i];
	}
}

static void after_ms(struct world *w, uint64_t ms)
{
	uint64_t until_ns = w->now_ns + MS(ms);

	while (w->fsm.deadline_ns && w->fsm.deadline_ns <= until_ns) {
		w->now_ns = w->fsm.deadline_ns;
		happens(w, (struct endpoint_input){ .type = ENDPOINT_IN_DEADLINE });
	}
	w->now_ns = until_ns;
}

static void happens_servers(struct world *w, uint32_t n, const char *const *texts)
{
	struct endpoint_server servers[8];

	for (uint32_t i = 0; i < n; i++)
		servers[i] =
			(struct endpoint_server){ .relay_id = i / 2 + 1, .endpoint = at(texts[i]) };
	happens(w,
		(struct endpoint_input){ .type = ENDPOINT_IN_SERVERS, .servers = servers, .n = n });
}

static void happens_local(struct world *w, const char *text)
{
	struct endpoint local = text ? at(text) : (struct endpoint){ 0 };

	happens(w, (struct endpoint_input){
			   .type = ENDPOINT_IN_LOCAL, .endpoints = &local, .n = text ? 1 : 0 });
}

/* The server answers its last request. */
static void answers(struct world *w, uint32_t server, const char *mapped)
{
	struct endpoint_input input = { .type = ENDPOINT_IN_ANSWER,
					.from = w->asked[server].server,
					.mapped = at(mapped) };

	memcpy(input.tx_id, w->asked[server].tx_id, sizeof(input.tx_id));
	happens(w, input);
}

static void expect_trace(struct world *w, const char *expected)
{
	if (strcmp(w->trace, expected) != 0) {
		fprintf(stderr, "expected:\n%sgot:\n%s", expected, w->trace);
		abort();
	}
	w->trace[0] = '\0';
}

static const char *const two_relays[] = { "198.51.100.1:3478", "198.51.100.1:3479",
					  "198.51.100.2:3478", "198.51.100.2:3479" };

static void given_two_relays(struct world *w)
{
	begin(w);
	happens_local(w, "192.168.1.2:7000");
	happens_servers(w, 4, two_relays);
	w->n_published = 0;
	w->trace[0] = '\0';
}

static void test_local_addresses_are_published_without_any_server(void)
{
	struct world w;
	begin(&w);

	happens_local(&w, "192.168.1.2:7000");

	assert(w.n_published == 1 && w.fsm.n_ours == 1 && w.n_asked == 0);
	expect_trace(&w, "[    0] offline: no way out -> offline\n"
			 "[    0]   ours: 1, mapping unknown\n");
}

static void test_the_latency_falls_at_once_and_rises_slowly(void)
{
	static const uint64_t rounds_ms[] = { 90, 30, 50 };
	static const uint32_t told_us[] = { 90000, 30000, 35000 };
	struct world w;
	given_two_relays(&w);

	for (uint32_t i = 0; i < 3; i++) {
		const uint64_t before = w.fsm.servers[0].first_ns;
		while (i > 0 && w.fsm.servers[0].first_ns == before)
			after_ms(&w, 1);
		after_ms(&w, rounds_ms[i]);
		answers(&w, 0, "203.0.113.5:40000");
		assert(endpoint_fsm_latency_us(&w.fsm, 1) / 1000 == told_us[i] / 1000);
	}
}

static void test_all_servers_are_asked_at_once_and_the_first_answer_is_published(void)
{
	struct world w;
	given_two_relays(&w);
	assert(w.n_asked == 4);

	after_ms(&w, 20);
	answers(&w, 0, "203.0.113.5:40000");
	assert(w.n_published == 1 && w.fsm.n_ours == 2);
	for (uint32_t i = 1; i < 4; i++)
		answers(&w, i, "203.0.113.5:40000");

	assert(w.n_published == 1);
	assert(w.fsm.mapping == ENDPOINT_MAPPING_INDEPENDENT);
	assert(endpoint_fsm_latency_us(&w.fsm, 1) == 20000 &&
	       endpoint_fsm_latency_us(&w.fsm, 2) == 20000);
	expect_trace(&w, "[   20] asking: answer -> asking\n"
			 "[   20]   ours: 2, mapping unknown\n"
			 "[   20] asking: answer -> asking\n"
			 "[   20] asking: answer -> asking\n"
			 "[   20] asking: answer -> asking\n"
			 "[   20] asking: all answered -> settled\n");
}

static void test_who_does_not_answer_is_asked_at_0_200_400_and_800_ms_then_given_up(void)
{
	struct world w;
	given_two_relays(&w);

	after_ms(&w, 199);
	assert(w.n_asked == 4);
	after_ms(&w, 2);
	assert(w.n_asked == 8);
	after_ms(&w, 200);
	assert(w.n_asked == 12);
	answers(&w, 0, "203.0.113.5:40000");
	after_ms(&w, 400);
	assert(w.n_asked == 15);
	after_ms(&w, 800);

	assert(w.n_asked == 15 && w.fsm.state == ENDPOINT_SETTLED);
}

static void test_the_mapping_is_refreshed_before_a_nat_forgets_it(void)
{
	struct world w;
	given_two_relays(&w);
	for (uint32_t i = 0; i < 4; i++)
		answers(&w, i, "203.0.113.5:40000");

	for (int round = 0; round < 5; round++) {
		uint64_t settled_ns = w.now_ns;
		assert(w.fsm.deadline_ns - settled_ns >= MS(20000) &&
		       w.fsm.deadline_ns - settled_ns <= MS(25000));
		after_ms(&w, 24100);
		for (uint32_t i = 0; i < 4; i++)
			answers(&w, i, "203.0.113.5:40000");
	}

	assert(w.n_published == 1);
}

static uint64_t after_a_round(struct world *w, const char *mapped)
{
	after_ms(w, (w->fsm.deadline_ns - w->now_ns) / 1000000 + 1);
	for (uint32_t i = 0; i < 4; i++)
		answers(w, i, mapped);
	return w->fsm.deadline_ns - w->now_ns;
}

static void test_a_nat_that_forgets_sooner_is_asked_sooner_until_the_link_changes(void)
{
	struct world w;
	given_two_relays(&w);
	for (uint32_t i = 0; i < 4; i++)
		answers(&w, i, "203.0.113.5:40000");

	assert(after_a_round(&w, "203.0.113.5:40001") >= MS(20000));
	assert(after_a_round(&w, "203.0.113.5:40002") <= MS(12000));
	for (int round = 0; round < 10; round++)
		assert(after_a_round(&w, "203.0.113.5:40002") <= MS(12000));
	happens(&w, (struct endpoint_input){ .type = ENDPOINT_IN_LINK });
	for (uint32_t i = 0; i < 4; i++)
		answers(&w, i, "203.0.113.5:40002");
	assert(w.fsm.deadline_ns - w.now_ns >= MS(20000));
}

static void test_a_nat_that_was_restarted_now_and_then_is_asked_as_ever_and_none_more_often_than_each_5_s(void)
{
	struct world w;
	char mapped[32];
	given_two_relays(&w);
	for (uint32_t i = 0; i < 4; i++)
		answers(&w, i, "203.0.113.5:40000");

	for (int round = 1; round < 20; round++) {
		snprintf(mapped, sizeof(mapped), "203.0.113.5:%d", 40000 + round / 2);
		assert(after_a_round(&w, mapped) >= MS(20000));
	}
	for (int round = 0; round < 20; round++) {
		snprintf(mapped, sizeof(mapped), "203.0.113.5:%d", 50000 + round);
		assert(after_a_round(&w, mapped) >= MS(5000));
	}
	assert(w.fsm.deadline_ns - w.now_ns <= MS(6000));
}

static void test_a_mapping_that_another_keep_alive_keeps_is_asked_for_seldom_until_the_link_changes(void)
{
	struct world w;
	given_two_relays(&w);
	w.keeper = at("198.51.100.1:3478");
	for (uint32_t i = 0; i < 4; i++)
		answers(&w, i, "203.0.113.5:40000");

	assert(w.fsm.deadline_ns - w.now_ns >= MS(240000) && w.fsm.deadline_ns - w.now_ns <= MS(300000));
	w.n_asked = 0;
	after_ms(&w, 100000);
	assert(w.n_asked == 0);
	happens(&w, (struct endpoint_input){ .type = ENDPOINT_IN_LINK });
	assert(w.n_asked == 4);
	w.keeper = (struct endpoint){ 0 };
	for (uint32_t i = 0; i < 4; i++)
		answers(&w, i, "203.0.113.5:50000");
	assert(w.n_published == 3 && w.fsm.deadline_ns - w.now_ns <= MS(25000));
}

static bool is_asked_soon(const struct world *w)
{
	return w->fsm.deadline_ns - w->now_ns <= MS(25000);
}

static void given_a_kept_mapping(struct world *w, const char *keeper)
{
	given_two_relays(w);
	w->keeper = at(keeper);
	for (uint32_t i = 0; i < 4; i++)
		answers(w, i, "203.0.113.5:40000");
	w->n_asked = w->n_published = 0;
}

static void test_pings_over_ipv6_do_not_keep_a_mapping_over_ipv4(void)
{
	static const char *const over_ipv6[] = { "[2001:db8::1]:3478", "[2001:db8::1]:3479" };
	struct world w;

	given_a_kept_mapping(&w, "[2001:db8::1]:3478");
	assert(is_asked_soon(&w));

	begin(&w);
	happens_local(&w, "[2001:db8:1::2]:7000");
	happens_servers(&w, 2, over_ipv6);
	w.keeper = at("[2001:db8::1]:3478");
	for (uint32_t i = 0; i < 2; i++)
		answers(&w, i, "[2001:db8:1::2]:7000");
	assert(!is_asked_soon(&w));
}

static void test_a_relay_that_restarts_takes_no_address_with_it(void)
{
	struct world w;
	given_a_kept_mapping(&w, "198.51.100.1:3478");

	w.keeper = (struct endpoint){ 0 };
	happens(&w, (struct endpoint_input){ .type = ENDPOINT_IN_KEEPER });
	assert(w.n_asked == 4);
	after_ms(&w, 1700);
	assert(w.fsm.state == ENDPOINT_SETTLED && w.n_published == 0 && w.fsm.n_ours == 2);
	w.keeper = at("198.51.100.1:3478"); /* it is back, and one server does not answer yet */
	happens(&w, (struct endpoint_input){ .type = ENDPOINT_IN_KEEPER });
	for (uint32_t i = 1; i < 4; i++)
		answers(&w, i, "203.0.113.5:40000");
	after_ms(&w, 1700);
	assert(w.n_published == 0 && w.fsm.n_ours == 2 && is_asked_soon(&w));

	after_ms(&w, (w.fsm.deadline_ns - w.now_ns) / MS(1) + 1);
	for (uint32_t i = 0; i < 4; i++)
		answers(&w, i, "203.0.113.5:40000");
	assert(w.n_published == 0 && !is_asked_soon(&w));
}

static void test_an_address_that_a_relay_found_changed_is_published_at_once(void)
{
	struct world w;
	given_a_kept_mapping(&w, "198.51.100.1:3478");

	after_ms(&w, 100000);
	happens(&w, (struct endpoint_input){ .type = ENDPOINT_IN_KEEPER });
	for (uint32_t i = 0; i < 4; i++)
		answers(&w, i, "203.0.113.5:50000");

	const struct endpoint mapped = at("203.0.113.5:50000");
	assert(w.n_published > 0 && w.fsm.n_ours == 2 && endpoint_equal(&w.fsm.ours[1], &mapped));
}

static void test_a_mapping_that_nobody_keeps_any_more_is_asked_for_within_twenty_seconds(void)
{
	struct world w;
	given_a_kept_mapping(&w, "198.51.100.1:3478");
	after_ms(&w, 10000);
	assert(!is_asked_soon(&w));

	w.keeper = (struct endpoint){ 0 };
	happens(&w, (struct endpoint_input){ .type = ENDPOINT_IN_EXTRA });

	assert(w.fsm.deadline_ns - w.now_ns == MS(20000));
	after_ms(&w, 20100);
	assert(w.n_asked == 4);
}

static void test_a_symmetric_nat_is_seen_and_published_once_more_when_all_answered(void)
{
	struct world w;
	given_two_relays(&w);

	answers(&w, 0, "203.0.113.5:40000");
	answers(&w, 1, "203.0.113.5:40001");
	answers(&w, 2, "203.0.113.5:40002");
	assert(w.n_published == 1);
	answers(&w, 3, "203.0.113.5:40003");

	assert(w.n_published == 2 && w.fsm.n_ours == 5);
	assert(w.fsm.mapping == ENDPOINT_MAPPING_DEPENDENT);
}

static void test_a_nat_that_maps_by_address_is_told_from_one_that_maps_by_port(void)
{
	struct world w;
	given_two_relays(&w);

	answers(&w, 0, "203.0.113.5:40000");
	answers(&w, 1, "203.0.113.5:40000");
	answers(&w, 2, "203.0.113.5:41000");
	answers(&w, 3, "203.0.113.5:41000");

	assert(w.fsm.mapping == ENDPOINT_MAPPING_ADDRESS);
}

static void test_one_address_alone_proves_nothing_and_a_local_one_means_no_nat(void)
{
	struct world w;
	begin(&w);

	happens_local(&w, "192.0.2.7:7000");
	happens_servers(&w, 2, two_relays);
	answers(&w, 0, "192.0.2.7:7000");
	assert(w.fsm.mapping == ENDPOINT_MAPPING_NONE && w.fsm.n_ours == 1);
	answers(&w, 1, "192.0.2.7:7000");

	assert(w.n_published == 1);
}

static void test_a_changed_link_asks_again_at_once_and_old_mappings_go_if_not_repeated(void)
{
	struct world w;
	given_two_relays(&w);
	for (uint32_t i = 0; i < 4; i++)
		answers(&w, i, "203.0.113.5:40000");
	after_ms(&w, 5000);

	w.n_asked = 0;
	happens(&w, (struct endpoint_input){ .type = ENDPOINT_IN_LINK });
	assert(w.n_asked == 4);
	answers(&w, 0, "203.0.113.99:1");
	after_ms(&w, 1600);

	assert(w.fsm.n_ours == 2 && w.fsm.state == ENDPOINT_SETTLED);
	assert(w.fsm.ours[1].port == 1);
}

static void test_a_server_that_is_silent_for_three_rounds_no_longer_counts(void)
{
	struct world w;
	given_two_relays(&w);
	for (uint32_t i = 0; i < 4; i++)
		answers(&w, i, "203.0.113.5:40000");

	after_ms(&w, 60000);
	assert(w.fsm.n_ours == 2);
	after_ms(&w, 20000);

	assert(w.fsm.n_ours == 1 && endpoint_fsm_latency_us(&w.fsm, 1) == 0);
}

static void given_silence_for_an_hour(struct world *w)
{
	given_two_relays(w);
	after_ms(w, 3600000);
	w->n_asked = 0;
}

static void test_who_hears_nobody_asks_seldom_and_each_server_once(void)
{
	struct world w;
	given_silence_for_an_hour(&w);

	after_ms(&w, 3600000);

	assert(w.n_asked >= 4 * 60 / 5 && w.n_asked <= 4 * 60 / 4);
}

static void test_a_pause_for_want_of_answers_ends_with_the_first_one(void)
{
	struct world w;
	given_silence_for_an_hour(&w);

	while (w.n_asked == 0)
		after_ms(&w, 1000);
	answers(&w, 2, "203.0.113.5:40000");
	after_ms(&w, 5000);

	assert(w.fsm.deadline_ns - w.now_ns <= MS(24000) && w.fsm.n_ours == 2);
}

static void test_a_pause_for_want_of_answers_ends_with_another_link_or_when_somebody_was_heard(void)
{
	static const enum endpoint_input_type all[] = { ENDPOINT_IN_LINK, ENDPOINT_IN_KEEPER };

	for (size_t i = 0; i < ARRAY_LEN(all); i++) {
		struct world w;
		given_silence_for_an_hour(&w);

		happens(&w, (struct endpoint_input){ .type = all[i] });

		assert(w.n_asked == 4);
		after_ms(&w, 1600);
		assert(w.n_asked == 16 && w.fsm.deadline_ns - w.now_ns <= MS(96000));
	}
}

static void test_answers_nobody_asked_for_are_ignored(void)
{
	struct world w;
	given_two_relays(&w);
	struct endpoint_action right = w.asked[0];

	w.asked[0].tx_id[0] ^= 1;
	answers(&w, 0, "203.0.113.66:666"); /* another transaction */
	w.asked[0] = right;
	w.asked[0].server = at("203.0.113.66:666");
	answers(&w, 0, "203.0.113.66:666"); /* another source */
	w.asked[0] = right;
	answers(&w, 0, "203.0.113.5:40000");
	answers(&w, 0, "203.0.113.66:666"); /* answered already */

	assert(w.fsm.n_ours == 2 && w.fsm.ours[1].port == 40000);
}

static void test_servers_that_stay_keep_what_we_know_of_them(void)
{
	struct world w;
	given_two_relays(&w);
	for (uint32_t i = 0; i < 4; i++)
		answers(&w, i, "203.0.113.5:40000");

	happens_servers(&w, 4, two_relays);
	assert(w.fsm.state == ENDPOINT_SETTLED);
	happens_servers(&w, 2, two_relays);

	assert(w.fsm.state == ENDPOINT_ASKING && w.fsm.n_ours == 2);
}

static void test_without_an_address_there_is_no_way_out(void)
{
	struct world w;
	given_two_relays(&w);

	happens_local(&w, NULL);

	assert(w.fsm.state == ENDPOINT_OFFLINE && w.fsm.n_ours == 0 && w.n_published == 1);
}

static void test_a_late_clock_does_not_catch_up_with_a_burst(void)
{
	struct world w;
	given_two_relays(&w);

	w.now_ns += MS(700000);
	happens(&w, (struct endpoint_input){ .type = ENDPOINT_IN_DEADLINE });

	assert(w.n_asked == 8 && w.fsm.state == ENDPOINT_SETTLED);
}

int main(void)
{
	test_local_addresses_are_published_without_any_server();
	test_all_servers_are_asked_at_once_and_the_first_answer_is_published();
	test_the_latency_falls_at_once_and_rises_slowly();
	test_who_does_not_answer_is_asked_at_0_200_400_and_800_ms_then_given_up();
	test_the_mapping_is_refreshed_before_a_nat_forgets_it();
	test_a_nat_that_forgets_sooner_is_asked_sooner_until_the_link_changes();
	test_a_nat_that_was_restarted_now_and_then_is_asked_as_ever_and_none_more_often_than_each_5_s();
	test_a_mapping_that_another_keep_alive_keeps_is_asked_for_seldom_until_the_link_changes();
	test_pings_over_ipv6_do_not_keep_a_mapping_over_ipv4();
	test_a_relay_that_restarts_takes_no_address_with_it();
	test_an_address_that_a_relay_found_changed_is_published_at_once();
	test_a_mapping_that_nobody_keeps_any_more_is_asked_for_within_twenty_seconds();
	test_a_symmetric_nat_is_seen_and_published_once_more_when_all_answered();
	test_a_nat_that_maps_by_address_is_told_from_one_that_maps_by_port();
	test_one_address_alone_proves_nothing_and_a_local_one_means_no_nat();
	test_a_changed_link_asks_again_at_once_and_old_mappings_go_if_not_repeated();
	test_a_server_that_is_silent_for_three_rounds_no_longer_counts();
	test_who_hears_nobody_asks_seldom_and_each_server_once();
	test_a_pause_for_want_of_answers_ends_with_the_first_one();
	test_a_pause_for_want_of_answers_ends_with_another_link_or_when_somebody_was_heard();
	test_answers_nobody_asked_for_are_ignored();
	test_servers_that_stay_keep_what_we_know_of_them();
	test_without_an_address_there_is_no_way_out();
	test_a_late_clock_does_not_catch_up_with_a_burst();
	puts("ok");
}
