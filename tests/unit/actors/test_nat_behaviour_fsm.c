/*
 * What a NAT does is found by asking: here the NATs are models (tests/lib/nat), so that each can be compared with
 * what was found of it; the public nodes have two ports at one address, as ours do.
 *
 *    sockets of 10.0.0.2 --- NAT 203.0.113.1 --- A 198.51.100.1:3478, 3479
 *                                            --- B 198.51.100.2:3478, 3479
 */
#include "actors/endpoint_manager/nat_behaviour_fsm.h"
#include "tests/lib/nat/nat.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MS(n)	      ((uint64_t)(n)*1000000u)
#define N_MAPPINGS    64
#define N_BUCKETS     64
#define MAX_PACKETS   64
#define ONE_WAY_NS    MS(20)
#define FIRST_SOCKET  40000
#define STRANGER_PORT 9

struct server {
	uint32_t ip;
	bool has_two_ports, answers_ports, is_silent, drops_second_port;
};

struct packet {
	uint64_t at_ns;
	struct endpoint from, to; /* as they are outside; of what comes in: as inside */
	struct nat_behaviour_input input;
	struct nat_behaviour_action action;
	bool is_inbound;
};

static struct {
	struct nat_behaviour_fsm fsm;
	struct nat nat;
	bool has_nat, has_firewall;
	uint64_t now_ns;
	struct server servers[3];
	uint32_t n_servers, loss_percent;
	struct packet packets[MAX_PACKETS];
	uint32_t n_packets, n_asked, n_runs, n_open, n_told;
	bool refuses_sockets;
	uint64_t random;
} w;

static struct nat_mapping mappings[N_MAPPINGS];
static struct nat_session sessions[4 * N_MAPPINGS];
static struct nat_link buckets[3 * N_BUCKETS];

static const uint32_t inside_ip = 0x0a000002, outside_ip = 0xcb007101;

static void step(struct nat_behaviour_input input);

static struct nat_config config_of(enum nat_behaviour mapping, enum nat_behaviour filtering)
{
	struct nat_config config = { .addresses = { outside_ip }, .n_addresses = 1, .seed = 7, .ports = NAT_PORTS_RANDOM };

	for (int i = 0; i < NAT_PROTOCOLS; i++)
		config.rules[i] = (struct nat_rules){
			.mapping = mapping, .filtering = filtering, .timeout_ns = MS(120000), .is_kept_by_inbound = true
		};
	return config;
}

static void begin(const struct nat_config *config)
{
	const struct nat_tables tables = { mappings, sessions, buckets, N_MAPPINGS, 4 * N_MAPPINGS, N_BUCKETS };

	memset(&w, 0, sizeof(w));
	w.now_ns = MS(1);
	w.n_servers = 2;
	for (uint32_t i = 0; i < 3; i++)
		w.servers[i] = (struct server){ .ip = 0xc6336401 + i, .has_two_ports = true, .answers_ports = true };
	w.has_nat = config != NULL;
	if (config)
		nat_init(&w.nat, config, &tables);
	nat_behaviour_fsm_init(&w.fsm, 3);
}

static bool is_lost(void)
{
	w.random = w.random * 6364136223846793005u + 1442695040888963407u;
	return (w.random >> 33) % 100 < w.loss_percent;
}

static struct packet *post(bool is_inbound)
{
	assert(w.n_packets < MAX_PACKETS);
	w.packets[w.n_packets] = (struct packet){ .at_ns = w.now_ns + ONE_WAY_NS, .is_inbound = is_inbound };
	return &w.packets[w.n_packets++];
}

/* ---- the network ---- */

static struct endpoint inside_of(uint32_t socket)
{
	return endpoint_from_v4(w.has_nat ? inside_ip : outside_ip, (uint16_t)(FIRST_SOCKET + 7 * socket));
}

static void arrive(struct packet *packet)
{
	struct endpoint inside = packet->to;

	if (w.has_nat && nat_in(&w.nat, w.now_ns, NAT_UDP, &packet->from, &packet->to, &inside) != 0)
		return;
	packet->input.socket = (inside.port - FIRST_SOCKET) / 7u;
	packet->input.from = packet->from;
	step(packet->input);
}

static void answer(const struct server *server, const struct packet *question)
{
	const uint16_t other_port = question->to.port == 3478 ? 3479 : 3478;
	const struct nat_behaviour_action *asked = &question->action;
	struct packet *packet = post(true);
	bool refuses = (asked->kind == NAT_ASK_OTHER_PORT && !server->has_two_ports) ||
		       (asked->kind == NAT_ASK_TO_PORT && !server->answers_ports);

	packet->from = question->to;
	packet->to = question->from;
	packet->input.type = refuses ? NAT_BEHAVIOUR_IN_REFUSAL : NAT_BEHAVIOUR_IN_ANSWER;
	packet->input.mapped = question->from;
	if (server->has_two_ports)
		packet->input.other = endpoint_from_v4(0xc0a80001, other_port); /* it is behind a NAT of its own */
	memcpy(packet->input.tx_id, asked->tx_id, sizeof(asked->tx_id));
	if (!refuses && asked->kind == NAT_ASK_OTHER_PORT)
		packet->from.port = other_port;
	if (!refuses && asked->kind == NAT_ASK_TO_PORT)
		packet->to.port = asked->port;
	if (is_lost() || (server->drops_second_port && packet->from.port == 3479))
		w.n_packets--;
}

static void reach(const struct packet *question)
{
	for (uint32_t i = 0; i < w.n_servers; i++) {
		const struct server *server = &w.servers[i];
		const bool serves = question->to.port == 3478 || (question->to.port == 3479 && server->has_two_ports);
		struct endpoint ip = endpoint_from_v4(server->ip, question->to.port);

		if (serves && !server->is_silent && endpoint_equal(&ip, &question->to))
			answer(server, question);
	}
}

static void turn(const struct nat_behaviour_action *action, const struct endpoint *from)
{
	struct endpoint source = *from, inside = action->to;
	struct nat_behaviour_input input = { .type = NAT_BEHAVIOUR_IN_QUESTION };

	if (w.has_nat && nat_turn(&w.nat, w.now_ns, NAT_UDP, from, &action->to, &source, &inside) != 0)
		return;
	input.from = source;
	input.socket = (inside.port - FIRST_SOCKET) / 7u;
	memcpy(input.tx_id, action->tx_id, sizeof(input.tx_id));
	struct packet *packet = post(true);
	packet->from = source;
	packet->to = inside;
	packet->input = input;
	packet->is_inbound = false; /* past the NAT already */
	packet->at_ns = w.now_ns + 1;
}

static void send_out(const struct nat_behaviour_action *action)
{
	const struct endpoint from = inside_of(action->socket);
	struct endpoint outside = from;

	w.n_asked++;
	assert(!w.has_nat || (action->kind == NAT_ASK_OURSELVES) == nat_has_address(&w.nat, &action->to));
	if (action->kind == NAT_ASK_OURSELVES) {
		turn(action, &from);
		return;
	}
	assert(!w.has_nat || nat_out(&w.nat, w.now_ns, NAT_UDP, &from, &action->to, &outside) == 0);
	if (is_lost())
		return;
	struct packet *packet = post(false);
	packet->from = outside;
	packet->to = action->to;
	packet->action = *action;
}

/* ---- the machine ---- */

static void open_sockets(void)
{
	struct nat_behaviour_input input = { .type = NAT_BEHAVIOUR_IN_OPENED, .n = NAT_BEHAVIOUR_SOCKETS };

	w.n_runs++;
	if (w.refuses_sockets)
		input.n = 0;
	else
		w.n_open++;
	for (uint32_t i = 0; i < NAT_BEHAVIOUR_SOCKETS; i++)
		input.ports[i] = inside_of(i).port;
	step(input);
}

static void step(struct nat_behaviour_input input)
{
	struct nat_behaviour_actions actions;

	input.now_ns = w.now_ns;
	nat_behaviour_fsm_step(&w.fsm, &input, &actions);
	for (uint32_t i = 0; i < actions.n; i++) {
		switch (actions.all[i].type) {
		case NAT_BEHAVIOUR_DO_OPEN:
			open_sockets();
			break;
		case NAT_BEHAVIOUR_DO_ASK:
			send_out(&actions.all[i]);
			break;
		case NAT_BEHAVIOUR_DO_CLOSE:
			w.n_open--;
			break;
		case NAT_BEHAVIOUR_DO_TELL:
			w.n_told++;
			break;
		}
	}
}

static bool handle_next(uint64_t until_ns)
{
	uint32_t first = 0;

	for (uint32_t i = 1; i < w.n_packets; i++)
		if (w.packets[i].at_ns < w.packets[first].at_ns)
			first = i;
	const uint64_t packet_ns = w.n_packets > 0 ? w.packets[first].at_ns : UINT64_MAX;
	const uint64_t timer_ns = w.fsm.deadline_ns != 0 ? w.fsm.deadline_ns : UINT64_MAX;
	if ((packet_ns < timer_ns ? packet_ns : timer_ns) > until_ns)
		return false;
	if (timer_ns <= packet_ns) {
		w.now_ns = timer_ns;
		step((struct nat_behaviour_input){ .type = NAT_BEHAVIOUR_IN_DEADLINE });
		return true;
	}
	struct packet packet = w.packets[first];
	w.packets[first] = w.packets[--w.n_packets];
	w.now_ns = packet.at_ns;
	if (packet.is_inbound)
		arrive(&packet);
	else if (packet.input.type == NAT_BEHAVIOUR_IN_QUESTION)
		step(packet.input);
	else
		reach(&packet);
	return true;
}

static void after_ms(uint64_t ms)
{
	const uint64_t until_ns = w.now_ns + MS(ms);

	while (handle_next(until_ns))
		;
	w.now_ns = until_ns;
}

static void happens_local(const char *text)
{
	struct endpoint local;
	const int r = endpoint_parse(text, &local);

	assert(r == 0);
	step((struct nat_behaviour_input){ .type = NAT_BEHAVIOUR_IN_LOCAL, .endpoints = &local, .n = 1 });
}

static void given_servers(void)
{
	struct endpoint servers[3] = { 0 };

	for (uint32_t i = 0; i < w.n_servers; i++)
		servers[i] = endpoint_from_v4(w.servers[i].ip, 3478);
	step((struct nat_behaviour_input){ .type = NAT_BEHAVIOUR_IN_SERVERS, .endpoints = servers, .n = w.n_servers });
}

static const struct nat_findings *measure(void)
{
	happens_local(w.has_nat ? "10.0.0.2:7000" : "203.0.113.1:7000");
	given_servers();
	after_ms(9000);
	assert(w.n_open == 0 && "sockets are given back");
	return &w.fsm.findings;
}

/* ---- the rules ---- */

static void expect_as_configured(const struct nat_findings *found, const struct nat_config *config)
{
	static const enum nat_dependence named[] = { [NAT_INDEPENDENT] = NAT_DEPENDS_NOT,
						     [NAT_ADDRESS] = NAT_DEPENDS_ADDRESS,
						     [NAT_ADDRESS_AND_PORT] = NAT_DEPENDS_PORT };
	const struct nat_rules *rules = &config->rules[NAT_UDP];
	const bool shows_hairpin = rules->mapping == NAT_INDEPENDENT || rules->filtering == NAT_INDEPENDENT;

	assert(found->at_ns != 0 && found->mapping_unknown == NAT_UNKNOWN_NOT);
	assert(found->mapping == named[rules->mapping]);
	assert(found->filtering_unknown == NAT_UNKNOWN_NOT && found->filtering == named[rules->filtering]);
	assert(found->hairpin_unknown == (shows_hairpin ? NAT_UNKNOWN_NOT : NAT_UNKNOWN_HIDDEN));
	assert(found->hairpin == (shows_hairpin && config->hairpin != NAT_HAIRPIN_OFF));
	assert(found->ports_unknown == NAT_UNKNOWN_NOT);
	assert(found->preserves_port == (config->ports == NAT_PORTS_PRESERVE));
	if (config->ports == NAT_PORTS_STEP)
		assert(found->ports == NAT_PORTS_IN_STEPS && found->step == config->port_step);
	else if (config->ports == NAT_PORTS_RANDOM)
		assert(found->ports == NAT_PORTS_ANY && found->low_port < found->high_port);
	else
		assert(found->ports == (rules->mapping == NAT_INDEPENDENT ? NAT_PORTS_SAME : NAT_PORTS_ANY));
}

static void test_each_nat_is_found_to_be_what_it_is(uint32_t loss_percent)
{
	for (unsigned type = 0; type < 9; type++) {
		for (unsigned hairpin = NAT_HAIRPIN_OFF; hairpin <= NAT_HAIRPIN_EXTERNAL; hairpin++) {
			for (unsigned ports = NAT_PORTS_PRESERVE; ports <= NAT_PORTS_STEP; ports++) {
				struct nat_config config = config_of(type / 3, type % 3);
				config.hairpin = hairpin;
				config.ports = ports;
				config.port_step = 2;
				begin(&config);
				w.loss_percent = loss_percent;
				w.random = (uint64_t)(type * 100 + hairpin * 10 + ports);
				expect_as_configured(measure(), &config);
			}
		}
	}
}

static void test_without_a_nat_there_is_none_and_everybody_is_let_in(void)
{
	begin(NULL);
	const struct nat_findings *found = measure();

	assert(found->mapping == NAT_DEPENDS_NO_NAT && found->filtering == NAT_DEPENDS_NOT);
	assert(found->hairpin_unknown == NAT_UNKNOWN_NO_NAT && found->ports == NAT_PORTS_SAME);
}

static void test_what_cannot_be_told_is_not_known_and_why(void)
{
	struct nat_config config = config_of(NAT_INDEPENDENT, NAT_ADDRESS_AND_PORT);

	/* One public node: with its second port it tells that a filter is strict, not how a NAT maps. */
	begin(&config);
	w.n_servers = 1;
	const struct nat_findings *found = measure();
	assert(found->mapping == NAT_DEPENDS_UNKNOWN && found->mapping_unknown == NAT_UNKNOWN_ONE_ADDRESS);
	assert(found->filtering == NAT_DEPENDS_PORT);

	config = config_of(NAT_ADDRESS_AND_PORT, NAT_ADDRESS);
	begin(&config);
	w.n_servers = 1;
	found = measure();
	assert(found->mapping == NAT_DEPENDS_PORT);
	assert(found->filtering == NAT_DEPENDS_UNKNOWN && found->filtering_unknown == NAT_UNKNOWN_ONE_ADDRESS);

	/* Two of an earlier version: neither has a second port. */
	begin(&config);
	w.servers[0].has_two_ports = w.servers[1].has_two_ports = false;
	w.servers[0].answers_ports = w.servers[1].answers_ports = false;
	found = measure();
	assert(found->mapping == NAT_DEPENDS_UNKNOWN && found->mapping_unknown == NAT_UNKNOWN_ONE_PORT);
	assert(found->filtering == NAT_DEPENDS_UNKNOWN && found->filtering_unknown == NAT_UNKNOWN_ONE_PORT);

	/* A NAT that takes another public address each time: what B sends goes to the wrong one. */
	config = config_of(NAT_INDEPENDENT, NAT_INDEPENDENT);
	config.n_addresses = 2;
	config.addresses[1] = outside_ip + 1;
	config.is_pool_arbitrary = true;
	begin(&config);
	found = measure();
	assert(found->mapping == NAT_DEPENDS_NOT);
	assert(found->filtering == NAT_DEPENDS_UNKNOWN && found->filtering_unknown == NAT_UNKNOWN_POOL);

	begin(&config);
	w.n_servers = 0;
	found = measure();
	assert(found->at_ns == 0 && found->mapping_unknown == NAT_UNKNOWN_NO_SERVER && w.n_runs == 0);

	begin(&config);
	w.servers[0].is_silent = w.servers[1].is_silent = true;
	found = measure();
	assert(found->at_ns == 0 && found->filtering_unknown == NAT_UNKNOWN_NO_ANSWER && w.n_runs == 1);

	begin(&config);
	w.refuses_sockets = true;
	found = measure();
	assert(found->at_ns == 0 && found->mapping_unknown == NAT_UNKNOWN_NO_SOCKET && w.n_asked == 0);
}

/* Its own firewall holds back what the second port sends: that is not our NAT's filter. */
static void test_silence_of_a_server_is_not_taken_for_a_filter(void)
{
	const struct nat_config config = config_of(NAT_INDEPENDENT, NAT_ADDRESS);
	begin(&config);
	w.servers[0].drops_second_port = w.servers[1].drops_second_port = true;

	const struct nat_findings *found = measure();
	assert(found->filtering == NAT_DEPENDS_UNKNOWN && found->filtering_unknown == NAT_UNKNOWN_ONE_PORT);
}

static void test_a_forged_answer_changes_nothing(void)
{
	const struct nat_config config = config_of(NAT_ADDRESS_AND_PORT, NAT_ADDRESS_AND_PORT);
	begin(&config);
	happens_local("10.0.0.2:7000");
	given_servers();

	for (int i = 0; i < 600; i++) {
		after_ms(10);
		for (uint32_t q = w.fsm.first_open; q < w.fsm.n_questions; q++) {
			const struct nat_question question = w.fsm.questions[q];
			const bool is_ours = question.kind == NAT_ASK_OURSELVES;
			struct nat_behaviour_input lie = { .type = NAT_BEHAVIOUR_IN_ANSWER,
							   .socket = question.hearer,
							   .from = question.from,
							   .mapped = endpoint_from_v4(0x01020304, 5) };
			const struct nat_behaviour_fsm before = w.fsm;
			memcpy(lie.tx_id, question.tx_id, sizeof(lie.tx_id));
			lie.tx_id[3] ^= 1; /* wrong id, right source */
			step(lie);
			memcpy(lie.tx_id, question.tx_id, sizeof(lie.tx_id));
			lie.from.port ^= 1; /* right id, wrong source */
			step(lie);
			lie.from = question.from;
			lie.socket = (question.hearer + 1) % NAT_BEHAVIOUR_SOCKETS; /* another socket hears it */
			step(lie);
			lie.socket = question.hearer;
			lie.type = is_ours ? NAT_BEHAVIOUR_IN_ANSWER : NAT_BEHAVIOUR_IN_QUESTION;
			step(lie);
			lie.type = NAT_BEHAVIOUR_IN_REFUSAL;
			lie.from = endpoint_from_v4(0x01020304, STRANGER_PORT);
			step(lie);
			assert(memcmp(before.questions, w.fsm.questions, sizeof(before.questions)) == 0);
			assert(before.state == w.fsm.state && before.n_questions == w.fsm.n_questions);
		}
	}
	expect_as_configured(&w.fsm.findings, &config);
}

static void test_a_nat_is_measured_at_the_beginning_after_a_change_and_twice_a_day(void)
{
	const struct nat_config config = config_of(NAT_INDEPENDENT, NAT_INDEPENDENT);
	begin(&config);
	measure();
	assert(w.n_runs == 1 && w.n_asked < 40);

	given_servers();
	happens_local("10.0.0.2:7777"); /* the same address */
	after_ms(60000);
	assert(w.n_runs == 1);

	happens_local("10.0.9.9:7000");
	assert(w.fsm.findings.at_ns == 0 && w.fsm.findings.mapping_unknown == NAT_UNKNOWN_NOT_YET);
	after_ms(9000);
	assert(w.n_runs == 2 && w.fsm.findings.at_ns != 0);

	struct endpoint seen = endpoint_from_v4(outside_ip + 1, 4000);
	step((struct nat_behaviour_input){ .type = NAT_BEHAVIOUR_IN_SEEN, .endpoints = &seen, .n = 1 });
	after_ms(15000);
	assert(w.n_runs == 3);

	after_ms(24u * 3600 * 1000);
	assert(w.n_runs == 4 || w.n_runs == 5);
}

static void test_a_network_that_changes_all_the_time_is_measured_once_in_ten_seconds(void)
{
	const struct nat_config config = config_of(NAT_INDEPENDENT, NAT_INDEPENDENT);
	char text[32];
	begin(&config);
	measure();

	for (int i = 0; i < 600; i++) { /* a minute */
		snprintf(text, sizeof(text), "10.0.1.%d:7000", i % 200 + 1);
		happens_local(text);
		after_ms(100);
	}
	assert(w.n_runs <= 8);
}

static void test_what_nobody_told_is_asked_again_ever_more_seldom(void)
{
	const struct nat_config config = config_of(NAT_ADDRESS_AND_PORT, NAT_ADDRESS_AND_PORT);
	begin(&config);
	w.loss_percent = 100;
	measure();
	assert(w.n_runs == 1 && w.fsm.findings.mapping_unknown == NAT_UNKNOWN_NO_ANSWER);
	after_ms(12u * 3600 * 1000);
	assert(w.n_runs > 8 && w.n_runs < 14);

	begin(&config);
	w.loss_percent = 100;
	measure();
	w.loss_percent = 0;
	after_ms(20000);
	assert(w.n_runs == 2);
	expect_as_configured(&w.fsm.findings, &config);
	after_ms(9u * 3600 * 1000);
	assert(w.n_runs == 2);
}

static void test_who_wants_to_know_need_not_wait(void)
{
	const struct nat_config config = config_of(NAT_INDEPENDENT, NAT_INDEPENDENT);
	begin(&config);
	measure();
	const uint64_t before_ns = w.fsm.findings.at_ns;

	step((struct nat_behaviour_input){ .type = NAT_BEHAVIOUR_IN_WANTED });
	assert(nat_behaviour_fsm_is_busy(&w.fsm) && w.fsm.findings.at_ns == before_ns && "known meanwhile");
	step((struct nat_behaviour_input){ .type = NAT_BEHAVIOUR_IN_WANTED });
	after_ms(9000);
	assert(w.n_runs == 2 && w.fsm.findings.at_ns > before_ns && !nat_behaviour_fsm_is_busy(&w.fsm));
}

int main(void)
{
	test_each_nat_is_found_to_be_what_it_is(0);
	test_each_nat_is_found_to_be_what_it_is(5);
	test_without_a_nat_there_is_none_and_everybody_is_let_in();
	test_what_cannot_be_told_is_not_known_and_why();
	test_silence_of_a_server_is_not_taken_for_a_filter();
	test_a_forged_answer_changes_nothing();
	test_a_nat_is_measured_at_the_beginning_after_a_change_and_twice_a_day();
	test_a_network_that_changes_all_the_time_is_measured_once_in_ten_seconds();
	test_what_nobody_told_is_asked_again_ever_more_seldom();
	test_who_wants_to_know_need_not_wait();
	puts("ok");
	return 0;
}
