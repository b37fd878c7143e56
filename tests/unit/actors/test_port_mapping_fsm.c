/*
 * A forwarded port: asked for by PCP, else NAT-PMP, else UPnP; renewed, given back.
 * The router is played by the test, byte for byte as the RFCs draw it.
 */
#include "actors/endpoint_manager/port_mapping_fsm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MS(n) ((uint64_t)(n)*1000000u)
#define S(n)  MS((n)*1000ull)

static struct port_mapping_fsm fsm;
static struct port_mapping_actions last;
static uint64_t now_ns;
static uint32_t n_sent, n_changed, n_ended, n_upnp_asked, n_upnp_removed, n_sockets;
static uint32_t n_sent_before_socket; /* … the last new one */
static struct port_mapping_action sent, removed; /* the last ones */
static struct endpoint router, ours;

static void expect(bool holds, const char *what, int line)
{
	if (holds)
		return;
	fprintf(stderr, "line %d: does not hold: %s (%s, %s)\n", line, what, port_mapping_state_name(fsm.state),
		port_mapping_way_name(fsm.way));
	abort();
}
#define EXPECT(condition) expect(condition, #condition, __LINE__)

static void happens(struct port_mapping_input in)
{
	in.now_ns = now_ns;
	port_mapping_fsm_step(&fsm, &in, &last);
	for (uint32_t i = 0; i < last.n; i++) {
		switch (last.all[i].type) {
		case PORT_MAPPING_DO_SOCKET:
			n_sockets++;
			n_sent_before_socket = n_sent;
			break;
		case PORT_MAPPING_DO_SEND:
			n_sent++;
			sent = last.all[i];
			break;
		case PORT_MAPPING_DO_UPNP_MAP:
			n_upnp_asked++;
			break;
		case PORT_MAPPING_DO_UPNP_REMOVE:
			n_upnp_removed++;
			removed = last.all[i];
			break;
		case PORT_MAPPING_DO_CHANGED:
			n_changed++;
			break;
		case PORT_MAPPING_DO_ENDED:
			n_ended++;
			break;
		}
	}
}

static void network(struct endpoint a_router, struct endpoint an_address)
{
	happens((struct port_mapping_input){
		.type = PORT_MAPPING_IN_NETWORK, .router = a_router, .ours = an_address, .nonce = "nonce of us" });
}

static void pass(uint64_t ns)
{
	const uint64_t end_ns = now_ns + ns;

	while (fsm.deadline_ns != 0 && fsm.deadline_ns <= end_ns) {
		now_ns = fsm.deadline_ns;
		happens((struct port_mapping_input){ .type = PORT_MAPPING_IN_DEADLINE });
	}
	now_ns = end_ns;
}

static void comes_from(struct endpoint from, const uint8_t *bytes, size_t len)
{
	happens((struct port_mapping_input){
		.type = PORT_MAPPING_IN_DATAGRAM, .from = from, .bytes = bytes, .len = len });
}

static void comes(const uint8_t *bytes, size_t len)
{
	struct endpoint from = router;

	from.port = 5351;
	comes_from(from, bytes, len);
}

static void is_announced(struct endpoint from, const uint8_t *bytes, size_t len)
{
	from.port = 5351;
	happens((struct port_mapping_input){
		.type = PORT_MAPPING_IN_ANNOUNCEMENT, .from = from, .bytes = bytes, .len = len });
}

static void pcp_announces(uint32_t epoch_s)
{
	const uint8_t bytes[24] = { 2, 0x80, [10] = (uint8_t)(epoch_s >> 8), [11] = (uint8_t)epoch_s };

	is_announced(router, bytes, sizeof(bytes));
}

static void natpmp_announces(uint8_t last_byte, uint8_t epoch_s)
{
	const uint8_t bytes[] = { 0, 128, 0, 0, 0, 0, 0, epoch_s, 203, 0, 113, last_byte };

	is_announced(router, bytes, sizeof(bytes));
}

static void upnp_went(enum port_mapping_outcome outcome)
{
	happens((struct port_mapping_input){ .type = PORT_MAPPING_IN_UPNP,
					     .serial = fsm.upnp_serial,
					     .outcome = outcome,
					     .external = endpoint_from_v4(0xcb007107, 41641) });
}

/* 203.0.113.7:PORT for so long, as RFC 6887 figure 9 has it; the nonce is that of the request. */
static size_t pcp_answer(uint8_t *ret, uint8_t result, uint16_t port, uint32_t lifetime_s, uint32_t epoch_s)
{
	const uint8_t head[] = { 2, 0x81, 0, result, (uint8_t)(lifetime_s >> 24), (uint8_t)(lifetime_s >> 16),
				 (uint8_t)(lifetime_s >> 8), (uint8_t)lifetime_s, 0, 0, (uint8_t)(epoch_s >> 8),
				 (uint8_t)epoch_s };
	const uint8_t address[] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 203, 0, 113, 7 };
	const uint8_t ports[] = { 17, 0, 0, 0, (uint8_t)(ours.port >> 8), (uint8_t)ours.port, (uint8_t)(port >> 8),
				  (uint8_t)port };

	memset(ret, 0, 60);
	memcpy(ret, head, sizeof(head));
	memcpy(ret + 24, fsm.nonce, 12);
	memcpy(ret + 36, ports, sizeof(ports));
	memcpy(ret + 44, address, sizeof(address));
	return 60;
}

static void pcp_maps(uint16_t port, uint32_t lifetime_s, uint32_t epoch_s)
{
	uint8_t bytes[60];

	comes(bytes, pcp_answer(bytes, 0, port, lifetime_s, epoch_s));
}

static void natpmp_address(uint8_t last_byte, uint8_t epoch_s)
{
	const uint8_t bytes[] = { 0, 128, 0, 0, 0, 0, 0, epoch_s, 203, 0, 113, last_byte };

	comes(bytes, sizeof(bytes));
}

static void natpmp_maps(uint16_t port, uint8_t lifetime_s)
{
	const uint8_t bytes[] = { 0, 129, 0, 0, 0, 0, 0, 100, (uint8_t)(ours.port >> 8), (uint8_t)ours.port,
				  (uint8_t)(port >> 8), (uint8_t)port, 0, 0, 0, lifetime_s };

	comes(bytes, sizeof(bytes));
}

static void natpmp_knows_no_pcp(void)
{
	const uint8_t bytes[] = { 0, 0x81, 0, 1, 0, 0, 0, 9 };

	comes(bytes, sizeof(bytes));
}

static bool is_reached_at(const char *text)
{
	struct endpoint endpoint;

	return endpoint_parse(text, &endpoint) == 0 && endpoint_equal(&endpoint, &fsm.external);
}

static void given_a_router(void)
{
	n_sent = n_changed = n_ended = n_upnp_asked = n_upnp_removed = n_sockets = 0;
	now_ns = S(100000);
	router = endpoint_from_v4(0xc0a80001, 0);
	ours = endpoint_from_v4(0xc0a80017, 41641);
	port_mapping_fsm_init(&fsm);
	network(router, ours);
}

static void given_a_mapping_by_pcp(void)
{
	given_a_router();
	pcp_maps(4000, 7200, 1000);
	EXPECT(fsm.state == PORT_MAPPING_MAPPED && is_reached_at("203.0.113.7:4000"));
	n_changed = n_sent = 0;
}

static void given_a_mapping_by_natpmp(void)
{
	given_a_router();
	natpmp_knows_no_pcp();
	natpmp_address(7, 100);
	natpmp_maps(4000, 120);
	EXPECT(fsm.state == PORT_MAPPING_MAPPED && is_reached_at("203.0.113.7:4000"));
	n_changed = n_sent = 0;
}

static void given_a_mapping_by_upnp(void)
{
	given_a_router();
	pass(S(7));
	upnp_went(PORT_MAPPING_UPNP_MAPPED);
	EXPECT(fsm.state == PORT_MAPPING_MAPPED && is_reached_at("203.0.113.7:41641"));
	n_changed = n_sent = n_upnp_asked = 0;
}

/* No way is left; the last refusal passes, or does not. */
static void given_a_rest(bool passing)
{
	given_a_router();
	pass(S(7));
	upnp_went(passing ? PORT_MAPPING_UPNP_PASSING : PORT_MAPPING_UPNP_NONE);
	EXPECT(fsm.state == PORT_MAPPING_RESTING);
	n_sent = 0;
}

/* ---- asking ---- */

static void test_a_router_is_asked_by_pcp_at_once(void)
{
	static const uint8_t head[] = { 2, 1, 0, 0, 0, 0, 0x1c, 0x20 }; /* MAP, 7200 s */

	given_a_router();
	EXPECT(n_sent == 1 && sent.len == 60 && memcmp(sent.bytes, head, sizeof(head)) == 0);
	EXPECT(sent.bytes[20] == 192 && sent.bytes[23] == 23);                /* our address, mapped */
	EXPECT(sent.bytes[36] == 17);                                         /* UDP */
	EXPECT(sent.bytes[40] == 41641 >> 8 && sent.bytes[41] == (41641 & 255)); /* our port */
}

static void test_an_answer_is_where_we_are_reached(void)
{
	given_a_router();
	pcp_maps(4000, 7200, 1000);
	EXPECT(n_changed == 1 && is_reached_at("203.0.113.7:4000"));
}

static void test_a_lost_request_is_repeated_within_a_quarter_of_a_second(void)
{
	given_a_router();
	pass(MS(249));
	EXPECT(n_sent == 1);
	pass(MS(1));
	EXPECT(n_sent == 2 && fsm.way == PORT_MAPPING_PCP);
}

static void test_a_router_that_says_it_knows_no_pcp_is_asked_by_natpmp_at_once(void)
{
	given_a_router();
	natpmp_knows_no_pcp();
	EXPECT(fsm.way == PORT_MAPPING_NATPMP && n_sent == 3);
	EXPECT(sent.len == 12 && sent.bytes[1] == 1);
	natpmp_address(7, 100);
	EXPECT(n_changed == 0);
	natpmp_maps(4000, 120);
	EXPECT(n_changed == 1 && is_reached_at("203.0.113.7:4000"));
}

static void test_a_silent_router_is_tried_in_every_way_and_then_left_alone_for_ten_minutes(void)
{
	given_a_router();
	pass(S(3));
	EXPECT(fsm.way == PORT_MAPPING_NATPMP);
	pass(S(3));
	EXPECT(fsm.way == PORT_MAPPING_UPNP && n_upnp_asked == 1);
	pass(S(20));
	EXPECT(fsm.state == PORT_MAPPING_RESTING);
	n_sent = 0;
	pass(S(599));
	EXPECT(n_sent == 0);
	pass(S(1));
	EXPECT(n_sent == 1 && fsm.state == PORT_MAPPING_ASKING && fsm.way == PORT_MAPPING_PCP);
}

static uint64_t rest_s(void)
{
	return (fsm.deadline_ns - now_ns) / S(1);
}

static void no_way_again(enum port_mapping_outcome outcome)
{
	pass(fsm.deadline_ns - now_ns);
	EXPECT(fsm.state == PORT_MAPPING_ASKING);
	pass(S(7));
	upnp_went(outcome);
}

static void test_each_rest_is_twice_as_long_up_to_an_hour(void)
{
	static const uint64_t rests_s[] = { 600, 1200, 2400, 3600, 3600 };

	given_a_rest(false);
	for (size_t i = 0; i < sizeof(rests_s) / sizeof(*rests_s); i++) {
		EXPECT(rest_s() == rests_s[i]);
		no_way_again(PORT_MAPPING_UPNP_NONE);
	}
}

static void test_after_refusals_that_pass_the_rest_is_short(void)
{
	static const uint64_t rests_s[] = { 30, 60, 120, 240 };
	uint8_t bytes[60];

	given_a_rest(true);
	for (size_t i = 0; i < sizeof(rests_s) / sizeof(*rests_s); i++) {
		EXPECT(rest_s() == rests_s[i]);
		no_way_again(PORT_MAPPING_UPNP_PASSING);
	}
	given_a_router();
	comes(bytes, pcp_answer(bytes, 8, 0, 30, 1000)); /* NO_RESOURCES */
	pass(S(3));
	upnp_went(PORT_MAPPING_UPNP_NONE);
	EXPECT(rest_s() == 30);
}

static void test_what_worked_or_another_network_ends_the_patience(void)
{
	given_a_rest(true);
	no_way_again(PORT_MAPPING_UPNP_PASSING);
	pass(fsm.deadline_ns - now_ns);
	pcp_maps(4000, 7200, 1000);
	pass(S(7200));
	pass(S(7));
	upnp_went(PORT_MAPPING_UPNP_PASSING);
	EXPECT(fsm.state == PORT_MAPPING_RESTING && rest_s() == 30);
	no_way_again(PORT_MAPPING_UPNP_PASSING);
	ours = endpoint_from_v4(0xc0a80018, 41641);
	network(router, ours);
	pass(S(7));
	upnp_went(PORT_MAPPING_UPNP_PASSING);
	EXPECT(rest_s() == 30);
}

static void test_upnp_maps_when_the_others_do_not(void)
{
	given_a_mapping_by_upnp();
	EXPECT(fsm.known[PORT_MAPPING_PCP] == PORT_MAPPING_NOT_SPOKEN &&
	       fsm.known[PORT_MAPPING_NATPMP] == PORT_MAPPING_NOT_SPOKEN &&
	       fsm.known[PORT_MAPPING_UPNP] == PORT_MAPPING_SPOKEN);
}

static void test_only_who_has_a_private_address_asks(void)
{
	static const uint32_t private[] = { 0x0a000001, 0xac100001, 0xc0a80001, 0x64400001, 0xa9fe0001 };
	static const uint32_t public[] = { 0xcb007105, 0x08080808, 0xac200001, 0x64800001 };

	for (size_t i = 0; i < sizeof(private) / sizeof(*private); i++) {
		given_a_router();
		network(endpoint_from_v4(0x0a0000fe, 0), endpoint_from_v4(private[i], 41641));
		EXPECT(fsm.state == PORT_MAPPING_ASKING && n_sent == 2);
	}
	for (size_t i = 0; i < sizeof(public) / sizeof(*public); i++) {
		given_a_router();
		network(endpoint_from_v4(0x0a0000fe, 0), endpoint_from_v4(public[i], 41641));
		EXPECT(fsm.state == PORT_MAPPING_OFF && n_sent == 1);
	}
}

static void test_which_ways_a_router_speaks_is_kept_until_there_is_another_one(void)
{
	given_a_router();
	EXPECT(fsm.known[PORT_MAPPING_PCP] == PORT_MAPPING_UNKNOWN);
	natpmp_knows_no_pcp();
	natpmp_address(7, 100);
	EXPECT(fsm.known[PORT_MAPPING_PCP] == PORT_MAPPING_NOT_SPOKEN &&
	       fsm.known[PORT_MAPPING_NATPMP] == PORT_MAPPING_SPOKEN &&
	       fsm.known[PORT_MAPPING_UPNP] == PORT_MAPPING_UNKNOWN);
	network((struct endpoint){ 0 }, ours);
	network(router, ours);
	EXPECT(fsm.known[PORT_MAPPING_NATPMP] == PORT_MAPPING_SPOKEN);
	network(endpoint_from_v4(0x0a0000fe, 0), ours);
	EXPECT(fsm.known[PORT_MAPPING_NATPMP] == PORT_MAPPING_UNKNOWN);
}

static void test_a_refusal_leads_to_the_next_way(void)
{
	uint8_t bytes[60];

	given_a_router();
	comes(bytes, pcp_answer(bytes, 2, 0, 30, 1000)); /* NOT_AUTHORIZED */
	EXPECT(fsm.state == PORT_MAPPING_ASKING && fsm.way == PORT_MAPPING_NATPMP);
}

static void test_where_nobody_listens_upnp_is_next_at_once(void)
{
	given_a_router();
	happens((struct port_mapping_input){ .type = PORT_MAPPING_IN_NOBODY });
	happens((struct port_mapping_input){ .type = PORT_MAPPING_IN_NOBODY });
	EXPECT(fsm.way == PORT_MAPPING_UPNP && n_upnp_asked == 1);
}

static void is_found_out(enum port_mapping_way way, enum port_mapping_known known, struct endpoint at)
{
	happens((struct port_mapping_input){
		.type = PORT_MAPPING_IN_KNOWN, .router = at, .way = way, .known = known });
}

static void test_which_other_ways_a_router_speaks_may_be_found_out_besides(void)
{
	given_a_mapping_by_pcp();
	natpmp_address(66, 1);
	EXPECT(fsm.known[PORT_MAPPING_NATPMP] == PORT_MAPPING_SPOKEN);
	is_found_out(PORT_MAPPING_UPNP, PORT_MAPPING_SPOKEN, endpoint_from_v4(0x0a000001, 0));
	EXPECT(fsm.known[PORT_MAPPING_UPNP] == PORT_MAPPING_UNKNOWN);
	is_found_out(PORT_MAPPING_UPNP, PORT_MAPPING_NOT_SPOKEN, router);
	is_found_out(PORT_MAPPING_PCP, PORT_MAPPING_NOT_SPOKEN, router); /* what was heard counts more */
	EXPECT(fsm.known[PORT_MAPPING_UPNP] == PORT_MAPPING_NOT_SPOKEN &&
	       fsm.known[PORT_MAPPING_PCP] == PORT_MAPPING_SPOKEN);
	EXPECT(n_changed == 0 && n_sent == 0 && fsm.state == PORT_MAPPING_MAPPED);
}

static void test_a_repeated_refusal_of_pcp_is_none_of_natpmp(void)
{
	given_a_router();
	natpmp_knows_no_pcp();
	natpmp_knows_no_pcp();
	EXPECT(fsm.way == PORT_MAPPING_NATPMP);
	natpmp_address(7, 100);
	natpmp_maps(4000, 120);
	EXPECT(is_reached_at("203.0.113.7:4000"));
}

/* ---- what is not believed ---- */

static void test_answers_of_others_than_the_router_are_nothing(void)
{
	struct endpoint other = endpoint_from_v4(0xc0a80002, 5351), other_port = router;
	uint8_t bytes[60];

	given_a_router();
	other_port.port = 5350;
	const size_t len = pcp_answer(bytes, 0, 4000, 7200, 1000);
	comes_from(other, bytes, len);
	comes_from(other_port, bytes, len);
	EXPECT(n_changed == 0 && fsm.state == PORT_MAPPING_ASKING);
}

static void test_an_answer_with_another_nonce_or_port_is_nothing(void)
{
	uint8_t bytes[60];
	size_t len;

	given_a_router();
	len = pcp_answer(bytes, 0, 4000, 7200, 1000);
	bytes[30] ^= 1;
	comes(bytes, len);
	EXPECT(n_changed == 0);
	len = pcp_answer(bytes, 0, 4000, 7200, 1000);
	bytes[41] ^= 1;
	comes(bytes, len);
	EXPECT(n_changed == 0 && fsm.state == PORT_MAPPING_ASKING);
}

static void test_a_refusal_with_another_nonce_is_nothing(void)
{
	uint8_t bytes[60];
	size_t len;

	given_a_router();
	len = pcp_answer(bytes, 2, 0, 30, 1000);
	bytes[30] ^= 1;
	comes(bytes, len);
	comes(bytes, 24);
	EXPECT(fsm.way == PORT_MAPPING_PCP);
}

static void test_what_everybody_is_told_is_no_answer(void)
{
	uint8_t bytes[60];

	given_a_router();
	is_announced(router, bytes, pcp_answer(bytes, 0, 4000, 7200, 1000));
	EXPECT(n_changed == 0 && fsm.state == PORT_MAPPING_ASKING && fsm.way == PORT_MAPPING_PCP);
	is_announced(router, bytes, pcp_answer(bytes, 2, 0, 30, 1000));
	EXPECT(fsm.way == PORT_MAPPING_PCP);
	natpmp_knows_no_pcp();
	natpmp_announces(66, 1);
	natpmp_maps(4000, 120);
	EXPECT(n_changed == 0);
	natpmp_address(7, 100);
	natpmp_maps(4000, 120);
	EXPECT(is_reached_at("203.0.113.7:4000"));
}

static void test_forged_announcements_change_nothing_and_cost_little(void)
{
	given_a_mapping_by_natpmp();
	for (uint32_t i = 0; i < 6000; i++) {
		natpmp_announces(66, 0);
		if (fsm.state == PORT_MAPPING_RENEWING) {
			natpmp_address(7, 100);
			natpmp_maps(4000, 120);
		}
		pass(MS(10));
	}
	EXPECT(n_changed == 0 && fsm.state == PORT_MAPPING_MAPPED);
	EXPECT(n_sent <= 8); /* a minute: two that were heeded, and the renewal that was due */
	given_a_mapping_by_natpmp();
	is_announced(endpoint_from_v4(0xc0a80002, 0), (const uint8_t[]){ 0, 128, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4 }, 12);
	EXPECT(n_sent == 0);
}

static void test_what_upnp_did_for_an_earlier_request_is_nothing(void)
{
	given_a_router();
	pass(S(7));
	const uint32_t serial = fsm.upnp_serial;
	network(router, endpoint_from_v4(0xc0a80018, 41641));
	pass(S(7));
	EXPECT(n_upnp_asked == 2);
	happens((struct port_mapping_input){ .type = PORT_MAPPING_IN_UPNP,
					     .serial = serial,
					     .outcome = PORT_MAPPING_UPNP_MAPPED,
					     .external = endpoint_from_v4(0xcb007107, 41641) });
	EXPECT(n_changed == 0 && fsm.state == PORT_MAPPING_ASKING);
	upnp_went(PORT_MAPPING_UPNP_MAPPED);
	EXPECT(n_changed == 1);
}

static void test_a_port_for_less_than_a_minute_is_a_refusal(void)
{
	given_a_router();
	pcp_maps(4000, 59, 1000);
	EXPECT(n_changed == 0 && fsm.way == PORT_MAPPING_NATPMP);
	natpmp_address(7, 100);
	natpmp_maps(4000, 4);
	EXPECT(n_changed == 0 && fsm.way == PORT_MAPPING_UPNP);
	given_a_router();
	pcp_maps(4000, 60, 1000);
	EXPECT(n_changed == 1);
}

static void test_addresses_at_which_nobody_can_be_are_refusals(void)
{
	static const uint8_t first_bytes[] = { 0, 127, 224, 255 };

	for (size_t i = 0; i < sizeof(first_bytes); i++) {
		uint8_t bytes[60];
		given_a_router();
		const size_t len = pcp_answer(bytes, 0, 4000, 7200, 1000);
		bytes[56] = first_bytes[i];
		comes(bytes, len);
		EXPECT(n_changed == 0 && fsm.way == PORT_MAPPING_NATPMP);
	}
}

static void test_cut_answers_are_nothing(void)
{
	for (size_t n = 0; n < 60; n++) {
		uint8_t bytes[60];
		given_a_router();
		pcp_answer(bytes, 0, 4000, 7200, 1000);
		comes(bytes, n);
		EXPECT(n_changed == 0 && fsm.state == PORT_MAPPING_ASKING && fsm.way == PORT_MAPPING_PCP);
	}
}

/* ---- keeping ---- */

static void test_a_mapping_is_renewed_at_half_of_its_life_and_keeps_its_port(void)
{
	given_a_mapping_by_pcp();
	pass(S(3599));
	EXPECT(n_sent == 0);
	pass(S(1));
	EXPECT(n_sent == 1 && fsm.state == PORT_MAPPING_RENEWING);
	EXPECT(sent.bytes[42] == 4000 >> 8 && sent.bytes[43] == (4000 & 255)); /* suggested */
	pcp_maps(4000, 7200, 4600);
	EXPECT(fsm.state == PORT_MAPPING_MAPPED && n_changed == 0);
}

static void test_a_silent_renewal_is_tried_again_until_the_mapping_is_over(void)
{
	given_a_mapping_by_pcp();
	pass(S(7100));
	EXPECT(is_reached_at("203.0.113.7:4000") && n_sent > 8);
	pass(S(100));
	EXPECT(n_changed == 1 && endpoint_is_none(&fsm.external) && fsm.state == PORT_MAPPING_ASKING);
}

static void test_another_external_port_at_a_renewal_is_told(void)
{
	given_a_mapping_by_pcp();
	pass(S(3600));
	pcp_maps(4001, 7200, 4600);
	EXPECT(n_changed == 1 && is_reached_at("203.0.113.7:4001"));
}

static void test_a_renewal_by_upnp_without_an_answer_keeps_the_mapping(void)
{
	given_a_mapping_by_upnp();
	pass(S(43200));
	EXPECT(n_upnp_asked == 1 && fsm.state == PORT_MAPPING_RENEWING);
	upnp_went(PORT_MAPPING_UPNP_SILENT);
	EXPECT(fsm.state == PORT_MAPPING_MAPPED && n_changed == 0 && rest_s() == 21600);
	pass(S(21600));
	upnp_went(PORT_MAPPING_UPNP_PASSING);
	EXPECT(fsm.state == PORT_MAPPING_MAPPED && n_changed == 0);
	pass(S(10800));
	upnp_went(PORT_MAPPING_UPNP_REFUSED);
	EXPECT(n_changed == 1 && endpoint_is_none(&fsm.external));
}

static void test_a_renewal_refused_for_now_keeps_the_mapping(void)
{
	uint8_t bytes[60];

	given_a_mapping_by_pcp();
	pass(S(3600));
	comes(bytes, pcp_answer(bytes, 7, 0, 30, 4600)); /* NETWORK_FAILURE */
	EXPECT(fsm.state == PORT_MAPPING_MAPPED && n_changed == 0);
	pass(S(1800));
	comes(bytes, pcp_answer(bytes, 2, 0, 30, 4600)); /* NOT_AUTHORIZED */
	EXPECT(fsm.state == PORT_MAPPING_ASKING && n_changed == 1);
}

static void test_a_router_that_has_begun_anew_is_asked_at_once(void)
{
	given_a_mapping_by_natpmp();
	pass(S(10));
	natpmp_announces(7, 110);
	EXPECT(n_sent == 0); /* its clock has gone on */
	natpmp_announces(7, 1);
	EXPECT(n_sent == 2 && fsm.state == PORT_MAPPING_RENEWING && n_changed == 0);
}

static void test_a_pcp_router_that_has_begun_anew_is_asked_at_once(void)
{
	given_a_mapping_by_pcp();
	pass(S(10));
	pcp_announces(1010);
	EXPECT(n_sent == 0);
	pcp_announces(2);
	EXPECT(n_sent == 1 && fsm.state == PORT_MAPPING_RENEWING);
}

static void test_a_router_that_was_not_ready_is_asked_at_a_later_announcement(void)
{
	given_a_mapping_by_pcp();
	pcp_announces(2);
	pass(S(30));
	EXPECT(fsm.state == PORT_MAPPING_MAPPED);
	n_sent = 0;
	pcp_announces(32);
	EXPECT(n_sent == 1);
}

static void test_a_router_that_was_given_up_and_announces_itself_is_asked_at_once(void)
{
	given_a_rest(false);
	pcp_announces(2);
	EXPECT(n_sent == 1 && fsm.state == PORT_MAPPING_ASKING);
	given_a_rest(false);
	natpmp_announces(7, 0);
	EXPECT(n_sent == 1 && fsm.state == PORT_MAPPING_ASKING);
	pass(S(7));
	upnp_went(PORT_MAPPING_UPNP_NONE);
	n_sent = 0;
	natpmp_announces(7, 0); /* too soon */
	EXPECT(n_sent == 0 && fsm.state == PORT_MAPPING_RESTING);
	pass(S(30));
	natpmp_announces(7, 0);
	EXPECT(n_sent == 1);
}

static void test_a_router_with_another_address_is_asked_at_once(void)
{
	given_a_mapping_by_natpmp();
	natpmp_announces(8, 100);
	EXPECT(n_sent == 2 && fsm.state == PORT_MAPPING_RENEWING && n_changed == 0);
	natpmp_address(8, 100);
	natpmp_maps(4000, 120);
	EXPECT(n_changed == 1 && is_reached_at("203.0.113.8:4000"));
}

static void test_a_permanent_or_very_long_mapping_is_renewed_daily(void)
{
	given_a_router();
	pcp_maps(4000, 0xffffffff, 1000);
	n_sent = 0;
	pass(S(43199));
	EXPECT(n_sent == 0);
	pass(S(1));
	EXPECT(n_sent == 1);
}

/* ---- networks ---- */

static void test_another_router_is_asked_anew_and_the_old_mapping_is_none_of_ours(void)
{
	const struct endpoint other = endpoint_from_v4(0x0a000001, 0);

	given_a_mapping_by_pcp();
	network(other, endpoint_from_v4(0x0a000005, 41641));
	EXPECT(n_changed == 1 && endpoint_is_none(&fsm.external) && n_sent == 1);
	EXPECT(sent.bytes[42] == 0 && sent.bytes[43] == 0); /* nothing suggested */
}

static void test_each_network_has_a_socket_of_its_own(void)
{
	given_a_router();
	EXPECT(n_sockets == 1);
	natpmp_knows_no_pcp();
	pass(S(2));
	EXPECT(n_sockets == 1 && n_sent > 4);
	network(router, endpoint_from_v4(0xc0a80018, 41641));
	EXPECT(n_sockets == 2);
	network((struct endpoint){ 0 }, ours);
	EXPECT(n_sockets == 3 && fsm.state == PORT_MAPPING_OFF);
}

static void test_with_another_address_the_old_mapping_is_given_back_first(void)
{
	given_a_mapping_by_pcp();
	network(router, endpoint_from_v4(0xc0a80018, 41641));
	EXPECT(n_sent == 2 && n_sent_before_socket == 1 && n_changed == 1); /* the end by the old socket */
	EXPECT(last.all[0].bytes[7] == 0 && last.all[0].bytes[23] == 0x17);
	EXPECT(sent.bytes[23] == 0x18 && sent.bytes[42] == 0 && sent.bytes[43] == 0);
	given_a_mapping_by_upnp();
	network(router, endpoint_from_v4(0xc0a80018, 41641));
	EXPECT(n_upnp_removed == 1 && removed.ours.ip[15] == 0x17 && removed.external.port == 41641);
}

static void test_after_an_interruption_the_same_mapping_is_asked_for(void)
{
	uint8_t nonce[12];

	given_a_mapping_by_pcp();
	memcpy(nonce, sent.bytes + 24, sizeof(nonce));
	network((struct endpoint){ 0 }, ours);
	network(router, ours);
	EXPECT(n_sent == 1 && memcmp(sent.bytes + 24, nonce, sizeof(nonce)) == 0);
	EXPECT(sent.bytes[42] == 4000 >> 8 && sent.bytes[43] == (4000 & 255));
}

static void test_the_same_network_told_again_is_no_news(void)
{
	given_a_mapping_by_pcp();
	network(router, ours);
	EXPECT(n_changed == 0 && n_sent == 0 && fsm.state == PORT_MAPPING_MAPPED);
}

static void test_without_a_router_there_is_nothing_to_do(void)
{
	const struct endpoint none = { 0 };

	given_a_mapping_by_pcp();
	network(none, ours);
	EXPECT(n_changed == 1 && fsm.state == PORT_MAPPING_OFF && fsm.deadline_ns == 0);
}

/* ---- the end ---- */

static void stop(void)
{
	happens((struct port_mapping_input){ .type = PORT_MAPPING_IN_STOP });
}

static void test_at_the_end_the_mapping_is_given_back(void)
{
	uint8_t bytes[60];

	given_a_mapping_by_pcp();
	stop();
	EXPECT(n_sent == 1 && sent.bytes[7] == 0 && n_ended == 0); /* lifetime 0 */
	comes(bytes, pcp_answer(bytes, 0, 4000, 0, 1000));
	EXPECT(n_ended == 1 && fsm.state == PORT_MAPPING_OFF);
}

static void test_a_silent_router_delays_the_end_by_half_a_second_at_most(void)
{
	given_a_mapping_by_natpmp();
	stop();
	pass(MS(499));
	EXPECT(n_ended == 0 && n_sent == 2);
	pass(MS(1));
	EXPECT(n_ended == 1);
}

static void test_upnp_gives_back_too(void)
{
	given_a_mapping_by_upnp();
	stop();
	EXPECT(n_upnp_removed == 1 && n_ended == 0);
	upnp_went(PORT_MAPPING_UPNP_REMOVED);
	EXPECT(n_ended == 1);
}

static void test_what_upnp_may_have_done_is_given_back(void)
{
	given_a_router();
	pass(S(7));
	stop();
	EXPECT(n_upnp_removed == 1 && n_ended == 0);
	pass(MS(1500));
	EXPECT(n_ended == 1);
}

static void test_a_request_under_way_is_withdrawn_without_waiting(void)
{
	given_a_router();
	stop();
	EXPECT(n_sent == 2 && sent.bytes[7] == 0 && n_ended == 1 && fsm.state == PORT_MAPPING_OFF);
}

static void test_who_has_nothing_ends_at_once_and_only_once(void)
{
	const struct endpoint none = { 0 };

	given_a_router();
	network(none, ours);
	stop();
	stop();
	network(router, ours);
	EXPECT(n_ended == 1 && fsm.state == PORT_MAPPING_OFF);
}

int main(void)
{
	test_a_router_is_asked_by_pcp_at_once();
	test_an_answer_is_where_we_are_reached();
	test_a_lost_request_is_repeated_within_a_quarter_of_a_second();
	test_a_router_that_says_it_knows_no_pcp_is_asked_by_natpmp_at_once();
	test_a_silent_router_is_tried_in_every_way_and_then_left_alone_for_ten_minutes();
	test_each_rest_is_twice_as_long_up_to_an_hour();
	test_after_refusals_that_pass_the_rest_is_short();
	test_what_worked_or_another_network_ends_the_patience();
	test_upnp_maps_when_the_others_do_not();
	test_only_who_has_a_private_address_asks();
	test_which_ways_a_router_speaks_is_kept_until_there_is_another_one();
	test_a_refusal_leads_to_the_next_way();
	test_where_nobody_listens_upnp_is_next_at_once();
	test_which_other_ways_a_router_speaks_may_be_found_out_besides();
	test_a_repeated_refusal_of_pcp_is_none_of_natpmp();
	test_answers_of_others_than_the_router_are_nothing();
	test_an_answer_with_another_nonce_or_port_is_nothing();
	test_a_refusal_with_another_nonce_is_nothing();
	test_what_everybody_is_told_is_no_answer();
	test_forged_announcements_change_nothing_and_cost_little();
	test_what_upnp_did_for_an_earlier_request_is_nothing();
	test_a_port_for_less_than_a_minute_is_a_refusal();
	test_addresses_at_which_nobody_can_be_are_refusals();
	test_cut_answers_are_nothing();
	test_a_mapping_is_renewed_at_half_of_its_life_and_keeps_its_port();
	test_a_silent_renewal_is_tried_again_until_the_mapping_is_over();
	test_another_external_port_at_a_renewal_is_told();
	test_a_renewal_by_upnp_without_an_answer_keeps_the_mapping();
	test_a_renewal_refused_for_now_keeps_the_mapping();
	test_a_router_that_has_begun_anew_is_asked_at_once();
	test_a_pcp_router_that_has_begun_anew_is_asked_at_once();
	test_a_router_that_was_not_ready_is_asked_at_a_later_announcement();
	test_a_router_that_was_given_up_and_announces_itself_is_asked_at_once();
	test_a_router_with_another_address_is_asked_at_once();
	test_a_permanent_or_very_long_mapping_is_renewed_daily();
	test_another_router_is_asked_anew_and_the_old_mapping_is_none_of_ours();
	test_each_network_has_a_socket_of_its_own();
	test_with_another_address_the_old_mapping_is_given_back_first();
	test_after_an_interruption_the_same_mapping_is_asked_for();
	test_the_same_network_told_again_is_no_news();
	test_without_a_router_there_is_nothing_to_do();
	test_at_the_end_the_mapping_is_given_back();
	test_a_silent_router_delays_the_end_by_half_a_second_at_most();
	test_upnp_gives_back_too();
	test_what_upnp_may_have_done_is_given_back();
	test_a_request_under_way_is_withdrawn_without_waiting();
	test_who_has_nothing_ends_at_once_and_only_once();
	return 0;
}
