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
static uint32_t n_sent, n_changed, n_ended, n_upnp_asked, n_upnp_removed;
static struct port_mapping_action sent; /* the last one */
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
		case PORT_MAPPING_DO_SEND:
			n_sent++;
			sent = last.all[i];
			break;
		case PORT_MAPPING_DO_UPNP_MAP:
			n_upnp_asked++;
			break;
		case PORT_MAPPING_DO_UPNP_REMOVE:
			n_upnp_removed++;
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
	happens((struct port_mapping_input){ .type = PORT_MAPPING_IN_NETWORK, .router = a_router, .ours = an_address });
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
	n_sent = n_changed = n_ended = n_upnp_asked = n_upnp_removed = 0;
	now_ns = S(100000);
	router = endpoint_from_v4(0xc0a80001, 0);
	ours = endpoint_from_v4(0xc0a80017, 41641);
	port_mapping_fsm_init(&fsm, 7);
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

static void test_upnp_maps_when_the_others_do_not(void)
{
	given_a_router();
	pass(S(7));
	happens((struct port_mapping_input){ .type = PORT_MAPPING_IN_UPNP,
					     .external = endpoint_from_v4(0xcb007107, 41641) });
	EXPECT(fsm.state == PORT_MAPPING_MAPPED && is_reached_at("203.0.113.7:41641"));
}

static void test_a_refusal_leads_to_the_next_way(void)
{
	uint8_t bytes[60];

	given_a_router();
	comes(bytes, pcp_answer(bytes, 2, 0, 30, 1000)); /* NOT_AUTHORIZED */
	EXPECT(fsm.state == PORT_MAPPING_ASKING && fsm.way == PORT_MAPPING_NATPMP);
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

static void test_a_router_that_has_begun_anew_is_asked_at_once(void)
{
	given_a_mapping_by_natpmp();
	pass(S(10));
	natpmp_address(7, 110);
	EXPECT(n_sent == 0); /* its clock has gone on */
	natpmp_address(7, 1);
	EXPECT(n_sent == 2 && fsm.state == PORT_MAPPING_RENEWING && n_changed == 0);
}

static void test_a_pcp_router_that_has_begun_anew_is_asked_at_once(void)
{
	uint8_t bytes[24] = { 2, 0x80 };

	given_a_mapping_by_pcp();
	pass(S(10));
	bytes[10] = 1010 >> 8;
	bytes[11] = 1010 & 255;
	comes(bytes, sizeof(bytes));
	EXPECT(n_sent == 0);
	bytes[10] = 0;
	bytes[11] = 2;
	comes(bytes, sizeof(bytes));
	EXPECT(n_sent == 1 && fsm.state == PORT_MAPPING_RENEWING);
}

static void test_a_router_with_another_address_is_asked_at_once(void)
{
	given_a_mapping_by_natpmp();
	natpmp_address(8, 100);
	EXPECT(n_sent == 2 && fsm.state == PORT_MAPPING_RENEWING);
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
	given_a_router();
	pass(S(7));
	happens((struct port_mapping_input){ .type = PORT_MAPPING_IN_UPNP,
					     .external = endpoint_from_v4(0xcb007107, 41641) });
	stop();
	EXPECT(n_upnp_removed == 1 && n_ended == 0);
	happens((struct port_mapping_input){ .type = PORT_MAPPING_IN_UPNP });
	EXPECT(n_ended == 1);
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
	test_upnp_maps_when_the_others_do_not();
	test_a_refusal_leads_to_the_next_way();
	test_answers_of_others_than_the_router_are_nothing();
	test_an_answer_with_another_nonce_or_port_is_nothing();
	test_addresses_at_which_nobody_can_be_are_refusals();
	test_cut_answers_are_nothing();
	test_a_mapping_is_renewed_at_half_of_its_life_and_keeps_its_port();
	test_a_silent_renewal_is_tried_again_until_the_mapping_is_over();
	test_another_external_port_at_a_renewal_is_told();
	test_a_router_that_has_begun_anew_is_asked_at_once();
	test_a_pcp_router_that_has_begun_anew_is_asked_at_once();
	test_a_router_with_another_address_is_asked_at_once();
	test_a_permanent_or_very_long_mapping_is_renewed_daily();
	test_another_router_is_asked_anew_and_the_old_mapping_is_none_of_ours();
	test_the_same_network_told_again_is_no_news();
	test_without_a_router_there_is_nothing_to_do();
	test_at_the_end_the_mapping_is_given_back();
	test_a_silent_router_delays_the_end_by_half_a_second_at_most();
	test_upnp_gives_back_too();
	test_who_has_nothing_ends_at_once_and_only_once();
	return 0;
}
