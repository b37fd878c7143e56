/* An address at a TURN server, on virtual time: the server is played by the test. */
#include "node/turn/turn_fsm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MS(n) ((uint64_t)(n)*1000000u)
#define S(n)  MS((n)*1000ull)

static struct turn_fsm fsm;
static struct turn_actions last;
static uint64_t now_ns;
static uint32_t n_asked[TURN_N_REQUESTS], n_repeated, n_relayed, n_opened, n_closed, n_ended, n_given_up, n_connected, n_kept;
static struct turn_action asked; /* the last one */

static void expect(bool holds, const char *what, int line)
{
	if (holds)
		return;
	fprintf(stderr, "line %d: does not hold: %s (state %d)\n", line, what, (int)fsm.state);
	abort();
}
#define EXPECT(condition) expect(condition, #condition, __LINE__)

static void count(const struct turn_action *action)
{
	switch (action->type) {
	case TURN_DO_CONNECT:
		n_connected++;
		break;
	case TURN_DO_KEEP:
		n_kept++;
		break;
	case TURN_DO_ASK:
		n_asked[action->request]++;
		asked = *action;
		break;
	case TURN_DO_REPEAT:
		n_repeated++;
		break;
	case TURN_DO_GIVE_UP:
		n_given_up++;
		break;
	case TURN_DO_OPEN:
		n_opened++;
		break;
	case TURN_DO_CLOSE:
		n_closed++;
		break;
	case TURN_DO_RELAYED:
		n_relayed++;
		break;
	case TURN_DO_ENDED:
		n_ended++;
		break;
	}
}

static void happens(struct turn_input in)
{
	in.now_ns = now_ns;
	turn_fsm_step(&fsm, &in, &last);
	for (uint32_t i = 0; i < last.n; i++)
		count(&last.all[i]);
	EXPECT(fsm.deadline_ns == 0 || fsm.deadline_ns > now_ns);
}

static void pass(uint64_t ns)
{
	const uint64_t end_ns = now_ns + ns;

	while (fsm.deadline_ns != 0 && fsm.deadline_ns <= end_ns) {
		now_ns = fsm.deadline_ns;
		happens((struct turn_input){ .type = TURN_IN_DEADLINE });
	}
	now_ns = end_ns;
}

static void answers(enum turn_request request, uint32_t index, uint16_t code)
{
	happens((struct turn_input){ .type = TURN_IN_ANSWER,
				     .request = request,
				     .index = index,
				     .code = code,
				     .lifetime_s = 600,
				     .endpoint = endpoint_from_v4(0xc6336405, 49152) });
}

static struct endpoint peer(uint32_t number)
{
	return endpoint_from_v4(0xcb007100 + number, 4000);
}

static void wanted(uint32_t number)
{
	happens((struct turn_input){ .type = TURN_IN_WANTED, .endpoint = peer(number) });
}

static void data_from(uint32_t number)
{
	happens((struct turn_input){ .type = TURN_IN_DATA, .endpoint = peer(number) });
}

static void forget_counts(void)
{
	memset(n_asked, 0, sizeof(n_asked));
	n_repeated = n_relayed = n_opened = n_closed = n_ended = n_given_up = n_connected = n_kept = 0;
}

static void given_a_start(void)
{
	now_ns = S(100000);
	turn_fsm_init(&fsm);
	forget_counts();
	happens((struct turn_input){ .type = TURN_IN_START });
}

static void given_an_address(void)
{
	given_a_start();
	answers(TURN_ALLOCATE, 0, 401);
	answers(TURN_ALLOCATE, 0, 0);
	EXPECT(fsm.state == TURN_ALLOCATED && n_relayed == 1 && n_asked[TURN_ALLOCATE] == 2);
	forget_counts();
}

/* Answers all that is asked for an hour and a half. */
static void pass_with_a_server(uint64_t ns)
{
	const uint64_t end_ns = now_ns + ns;

	while (fsm.deadline_ns != 0 && fsm.deadline_ns <= end_ns) {
		now_ns = fsm.deadline_ns;
		happens((struct turn_input){ .type = TURN_IN_DEADLINE });
		const struct turn_actions asked_now = last;
		for (uint32_t i = 0; i < asked_now.n; i++)
			if (asked_now.all[i].type == TURN_DO_ASK)
				answers(asked_now.all[i].request, asked_now.all[i].index, 0);
	}
	now_ns = end_ns;
}

static void test_an_address_is_asked_for_at_once_and_with_credentials_when_these_are_wanted(void)
{
	given_a_start();
	EXPECT(n_asked[TURN_ALLOCATE] == 1);
	answers(TURN_ALLOCATE, 0, 401);
	EXPECT(n_asked[TURN_ALLOCATE] == 2 && n_relayed == 0);
	answers(TURN_ALLOCATE, 0, 0);
	EXPECT(n_relayed == 1 && fsm.relayed.port == 49152);
}

static void test_wrong_credentials_are_not_repeated_for_long(void)
{
	given_a_start();
	for (int i = 0; i < 10; i++)
		answers(TURN_ALLOCATE, 0, 401);
	EXPECT(n_asked[TURN_ALLOCATE] == 3 && fsm.state == TURN_RESTING);
	EXPECT(fsm.deadline_ns == now_ns + S(30));
	pass(S(30));
	EXPECT(n_asked[TURN_ALLOCATE] == 4);
}

static void test_a_silent_server_is_asked_four_times_and_left_for_longer_and_longer(void)
{
	static const uint64_t rests_s[] = { 30, 60, 120, 240, 480, 960, 1800, 1800 };

	given_a_start();
	for (size_t i = 0; i < sizeof(rests_s) / sizeof(*rests_s); i++) {
		n_repeated = 0;
		pass(MS(7500));
		EXPECT(n_repeated == 3 && fsm.state == TURN_RESTING);
		EXPECT(fsm.deadline_ns == now_ns + S(rests_s[i]));
		pass(S(rests_s[i]));
		EXPECT(fsm.state == TURN_ASKING);
	}
}

static void test_an_address_is_refreshed_at_half_of_its_life(void)
{
	given_an_address();
	pass(S(299));
	EXPECT(n_asked[TURN_REFRESH] == 0);
	pass(S(1));
	EXPECT(n_asked[TURN_REFRESH] == 1);
	answers(TURN_REFRESH, 0, 438);
	EXPECT(n_asked[TURN_REFRESH] == 2);
	answers(TURN_REFRESH, 0, 0);
	EXPECT(fsm.renew_ns == now_ns + S(300) && n_relayed == 0);
}

static void test_a_lost_refresh_is_tried_again_until_the_address_is_over(void)
{
	given_an_address();
	pass(S(599));
	EXPECT(n_asked[TURN_REFRESH] >= 3 && n_relayed == 0);
	pass(S(1));
	EXPECT(n_relayed == 1 && fsm.state == TURN_ASKING && endpoint_is_none(&fsm.relayed));
}

static void test_a_server_that_knows_us_no_more_is_asked_for_another_address(void)
{
	given_an_address();
	pass(S(300));
	answers(TURN_REFRESH, 0, TURN_MISMATCH);
	EXPECT(n_relayed == 1 && n_asked[TURN_ALLOCATE] == 1 && fsm.state == TURN_ASKING);
}

static void test_who_is_wanted_is_let_in_and_stays_so_for_ten_minutes(void)
{
	given_an_address();
	wanted(1);
	EXPECT(n_asked[TURN_PERMIT] == 1);
	answers(TURN_PERMIT, 0, 0);
	EXPECT(fsm.permissions[0].holds);
	wanted(1);
	EXPECT(n_asked[TURN_PERMIT] == 1);
	pass_with_a_server(S(3600));
	EXPECT(n_asked[TURN_PERMIT] == 3 && endpoint_is_none(&fsm.permissions[0].ip));
}

static void test_who_is_wanted_before_there_is_an_address_is_let_in_with_it(void)
{
	given_a_start();
	wanted(1);
	wanted(2);
	EXPECT(n_asked[TURN_PERMIT] == 0);
	answers(TURN_ALLOCATE, 0, 0);
	EXPECT(n_asked[TURN_PERMIT] == 2);
}

static void test_nobody_is_let_in_whom_the_server_cannot_reach(void)
{
	const struct endpoint server = endpoint_from_v4(0xc6336405, 3478), near = endpoint_from_v4(0x0a000005, 3478),
			      lan = endpoint_from_v4(0xc0a80102, 7000), loopback = endpoint_from_v4(0x7f000001, 7000),
			      far = peer(1);

	EXPECT(turn_can_reach(&server, &far) && !turn_can_reach(&server, &lan) && !turn_can_reach(&server, &loopback));
	EXPECT(turn_can_reach(&near, &lan) && turn_can_reach(&near, &far) && !turn_can_reach(&near, &loopback));
}

static bool is_let_in(uint32_t number)
{
	struct endpoint ip = peer(number);

	ip.port = 0;
	for (uint32_t i = 0; i < TURN_MAX_PERMISSIONS; i++)
		if (endpoint_equal(&fsm.permissions[i].ip, &ip))
			return true;
	return false;
}

static void test_where_there_is_no_room_who_was_wanted_longest_ago_makes_it(void)
{
	given_an_address();
	for (uint32_t i = 0; i < TURN_MAX_PERMISSIONS; i++) {
		wanted(i);
		pass(MS(1));
	}
	wanted(0);
	pass(MS(1));
	wanted(1000);
	EXPECT(is_let_in(1000) && is_let_in(0) && !is_let_in(1) && is_let_in(2));
	EXPECT(n_given_up == 1 && fsm.n_refused == 1 && n_asked[TURN_PERMIT] == TURN_MAX_PERMISSIONS + 1);
	for (uint32_t i = 0; i < 1000; i++)
		wanted(i);
	EXPECT(is_let_in(999));
}

static void test_who_sends_has_a_channel_of_its_own_as_long_as_it_is_used(void)
{
	given_an_address();
	data_from(1);
	data_from(2);
	data_from(1);
	EXPECT(n_opened == 2 && n_asked[TURN_BIND] == 2);
	EXPECT(fsm.channels[0].number != fsm.channels[1].number && !fsm.channels[0].bound);
	answers(TURN_BIND, 0, 0);
	answers(TURN_BIND, 1, 0);
	EXPECT(fsm.channels[0].bound);
	pass_with_a_server(S(250));
	happens((struct turn_input){ .type = TURN_IN_USED, .index = 1 });
	pass_with_a_server(S(51));
	EXPECT(n_closed == 1 && !fsm.channels[0].open && fsm.channels[1].open && fsm.channels[1].bound);
}

static void test_who_comes_back_has_the_number_that_the_server_knows(void)
{
	given_an_address();
	data_from(1);
	answers(TURN_BIND, 0, 0);
	const uint16_t number = fsm.channels[0].number;
	happens((struct turn_input){ .type = TURN_IN_USED, .index = 0 });
	pass(S(300));
	pass_with_a_server(S(200));
	EXPECT(n_closed == 1 && fsm.channels[0].number == number);
	data_from(1);
	EXPECT(n_opened == 2 && fsm.channels[0].open && fsm.channels[0].number == number);
	answers(TURN_BIND, 0, 0);
	pass_with_a_server(S(599));
	EXPECT(n_closed == 2 && fsm.channels[0].number == number);
	pass_with_a_server(S(1));
	EXPECT(endpoint_is_none(&fsm.channels[0].peer));
}

static void test_a_flood_of_senders_takes_no_more_than_its_share(void)
{
	given_an_address();
	for (uint32_t i = 0; i < 10000; i++)
		data_from(i);
	EXPECT(n_opened == TURN_MAX_CHANNELS && fsm.n_refused == 10000 - TURN_MAX_CHANNELS);
	happens((struct turn_input){ .type = TURN_IN_USED, .index = 0 });
	pass(S(5)); /* the others were not answered */
	data_from(20000);
	EXPECT(n_opened == TURN_MAX_CHANNELS + 1 && fsm.channels[0].answered);
	EXPECT(turn_fsm_find_channel(&fsm, &(struct endpoint){ 0 }) < 0);
}

static void test_one_address_takes_no_more_than_some_channels(void)
{
	struct turn_input in = { .type = TURN_IN_DATA, .endpoint = peer(1) };

	given_an_address();
	for (uint16_t port = 1; port <= 1000; port++) {
		in.endpoint.port = port;
		happens(in);
	}
	EXPECT(n_opened == 8);
	pass(S(5));
	in.endpoint.port = 2000;
	happens(in);
	EXPECT(n_opened == 9 && n_closed == 1);
	data_from(2);
	EXPECT(n_opened == 10 && n_closed == 1);
}

static void test_answers_to_nothing_change_nothing(void)
{
	given_an_address();
	const struct turn_fsm before = fsm;
	for (int request = 0; request < TURN_N_REQUESTS; request++)
		for (uint32_t i = 0; i < 200; i++)
			answers((enum turn_request)request, i, request % 2 ? 437 : 0);
	EXPECT(memcmp(&before, &fsm, sizeof(fsm)) == 0);
}

static void test_with_the_address_go_the_channels_and_come_the_permissions(void)
{
	given_an_address();
	wanted(1);
	answers(TURN_PERMIT, 0, 0);
	data_from(1);
	pass(S(300));
	answers(TURN_REFRESH, 0, TURN_MISMATCH);
	EXPECT(n_closed == 1 && !fsm.permissions[0].holds);
	forget_counts();
	answers(TURN_ALLOCATE, 0, 0);
	EXPECT(n_asked[TURN_PERMIT] == 1);
}

static void test_each_address_is_asked_for_by_a_socket_of_its_own(void)
{
	given_a_start();
	EXPECT(n_connected == 1);
	answers(TURN_ALLOCATE, 0, 401);
	answers(TURN_ALLOCATE, 0, 0);
	EXPECT(n_connected == 1);
	pass(S(300));
	answers(TURN_REFRESH, 0, TURN_MISMATCH);
	EXPECT(n_connected == 2 && last.all[last.n - 1].type == TURN_DO_ASK);
}

static void test_who_has_moved_to_another_network_asks_for_another_address_at_once(void)
{
	given_an_address();
	happens((struct turn_input){ .type = TURN_IN_MOVED });
	EXPECT(n_relayed == 1 && n_connected == 1 && n_asked[TURN_ALLOCATE] == 1);
	pass(MS(7500));
	EXPECT(fsm.state == TURN_RESTING);
	happens((struct turn_input){ .type = TURN_IN_MOVED });
	EXPECT(fsm.state == TURN_ASKING && n_connected == 2);
	pass(MS(7500));
	EXPECT(fsm.deadline_ns == now_ns + S(30));
	happens((struct turn_input){ .type = TURN_IN_STOP });
	forget_counts();
	happens((struct turn_input){ .type = TURN_IN_MOVED });
	happens((struct turn_input){ .type = TURN_IN_CHECK });
	EXPECT(fsm.state == TURN_ENDED && n_connected == 0);
}

static void test_in_a_network_that_changed_the_server_is_asked_whether_it_knows_us(void)
{
	given_an_address();
	happens((struct turn_input){ .type = TURN_IN_CHECK });
	EXPECT(n_asked[TURN_REFRESH] == 1 && n_relayed == 0);
	happens((struct turn_input){ .type = TURN_IN_CHECK });
	EXPECT(n_asked[TURN_REFRESH] == 1);
	answers(TURN_REFRESH, 0, TURN_MISMATCH);
	EXPECT(n_asked[TURN_ALLOCATE] == 1);
	pass(MS(7500));
	happens((struct turn_input){ .type = TURN_IN_CHECK });
	EXPECT(fsm.state == TURN_ASKING);
}

static void test_the_nat_before_us_does_not_forget_us_while_nobody_talks(void)
{
	given_an_address();
	pass(MS(19999));
	EXPECT(n_kept == 0);
	pass(MS(1));
	EXPECT(n_kept == 1 && last.n == 1);
	pass(S(40));
	EXPECT(n_kept == 3);
	data_from(1); /* asks for a channel */
	answers(TURN_BIND, 0, 0);
	for (int i = 0; i < 10; i++) {
		pass(S(15));
		happens((struct turn_input){ .type = TURN_IN_USED, .index = 0 });
	}
	EXPECT(n_kept == 3);
}

static void test_who_is_wanted_again_after_a_pause_is_let_in_anew(void)
{
	given_an_address();
	wanted(1);
	answers(TURN_PERMIT, 0, 0);
	pass(S(89));
	wanted(1);
	EXPECT(n_asked[TURN_PERMIT] == 1);
	pass(S(90));
	wanted(1);
	EXPECT(n_asked[TURN_PERMIT] == 2);
}

static void test_at_the_end_the_address_is_given_back_in_half_a_second_at_most(void)
{
	given_an_address();
	happens((struct turn_input){ .type = TURN_IN_STOP });
	EXPECT(n_asked[TURN_REFRESH] == 1 && n_ended == 0);
	answers(TURN_REFRESH, 0, 0);
	EXPECT(n_ended == 1 && fsm.state == TURN_ENDED);
	given_an_address();
	happens((struct turn_input){ .type = TURN_IN_STOP });
	pass(MS(499));
	EXPECT(n_ended == 0);
	pass(MS(1));
	EXPECT(n_ended == 1);
	given_a_start();
	happens((struct turn_input){ .type = TURN_IN_STOP });
	EXPECT(n_ended == 1 && fsm.deadline_ns == 0);
}

int main(void)
{
	test_an_address_is_asked_for_at_once_and_with_credentials_when_these_are_wanted();
	test_wrong_credentials_are_not_repeated_for_long();
	test_a_silent_server_is_asked_four_times_and_left_for_longer_and_longer();
	test_an_address_is_refreshed_at_half_of_its_life();
	test_a_lost_refresh_is_tried_again_until_the_address_is_over();
	test_a_server_that_knows_us_no_more_is_asked_for_another_address();
	test_who_is_wanted_is_let_in_and_stays_so_for_ten_minutes();
	test_who_is_wanted_before_there_is_an_address_is_let_in_with_it();
	test_nobody_is_let_in_whom_the_server_cannot_reach();
	test_where_there_is_no_room_who_was_wanted_longest_ago_makes_it();
	test_who_sends_has_a_channel_of_its_own_as_long_as_it_is_used();
	test_who_comes_back_has_the_number_that_the_server_knows();
	test_one_address_takes_no_more_than_some_channels();
	test_a_flood_of_senders_takes_no_more_than_its_share();
	test_answers_to_nothing_change_nothing();
	test_with_the_address_go_the_channels_and_come_the_permissions();
	test_each_address_is_asked_for_by_a_socket_of_its_own();
	test_who_has_moved_to_another_network_asks_for_another_address_at_once();
	test_in_a_network_that_changed_the_server_is_asked_whether_it_knows_us();
	test_the_nat_before_us_does_not_forget_us_while_nobody_talks();
	test_who_is_wanted_again_after_a_pause_is_let_in_anew();
	test_at_the_end_the_address_is_given_back_in_half_a_second_at_most();
	return 0;
}
