/*
 * The search for a port of a hard NAT, between two models of NATs (tests/lib/nat): how often it finds one within
 * five seconds, what it costs, and where it is not tried.
 *
 *    easy 10.0.1.2 --- NAT 203.0.113.1 --- 40 ms --- NAT 203.0.113.2 --- hard 10.0.2.2
 */
#include "actors/traffic_manager/hard_nat_fsm.h"
#include "tests/lib/nat/nat.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define MS(n)	    ((uint64_t)(n)*1000000u)
#define ONE_WAY_NS  MS(20)
#define BY_RELAY_NS MS(60)
#define N_MAPPINGS  512
#define N_SESSIONS  4096
#define N_BUCKETS   2048
#define MAX_PACKETS 64
#define N_SEEDS	    3000
#define MAIN_PORT   7000
#define SIDE_PORT   10000 /* and following: the hard side's sockets */

static struct side {
	struct hard_nat_fsm fsm;
	struct hard_nat_turn turn;
	struct nat nat;
	struct nat_mapping mappings[N_MAPPINGS];
	struct nat_session sessions[N_SESSIONS];
	struct nat_link buckets[3 * N_BUCKETS];
	struct hard_nat_facts facts;
	uint32_t inside_ip, outside_ip;
	uint32_t n_open, n_knocks, n_pings, n_tells;
	uint64_t word_ns; /* when the other side hears that this one has begun; 0: nothing is on its way */
	uint64_t sent_ns[HARD_NAT_MAX_PINGS + HARD_NAT_MAX_SOCKETS]; /* when each datagram of the search left */
	uint32_t n_sent;
} easy, hard;

static struct packet {
	uint64_t at_ns;
	struct endpoint from, to;
	bool is_answer;
} packets[MAX_PACKETS];
static uint32_t n_packets;
static uint64_t now_ns, found_ns, loss_random;
static uint32_t loss_percent;
static bool relay_carries; /* what they tell; else it is lost */

static void step(struct side *side, struct hard_nat_input input);

static void start(struct side *side, uint32_t number, enum nat_behaviour mapping, enum nat_behaviour filtering,
		  uint64_t seed)
{
	const struct nat_tables tables = { side->mappings, side->sessions, side->buckets,
					   N_MAPPINGS,	   N_SESSIONS,	   N_BUCKETS };
	struct nat_config config = { .addresses = { 0xcb007100 + number }, .n_addresses = 1, .seed = seed };

	for (int i = 0; i < NAT_PROTOCOLS; i++)
		config.rules[i] = (struct nat_rules){
			.mapping = mapping, .filtering = filtering, .timeout_ns = MS(120000), .is_kept_by_inbound = true
		};
	config.ports = mapping == NAT_INDEPENDENT ? NAT_PORTS_PRESERVE : NAT_PORTS_RANDOM;
	side->inside_ip = 0x0a000002 + (number << 8);
	side->outside_ip = config.addresses[0];
	side->n_open = side->n_knocks = side->n_pings = side->n_tells = side->n_sent = 0;
	side->word_ns = 0;
	side->turn = (struct hard_nat_turn){ 0 };
	hard_nat_fsm_init(&side->fsm, &side->turn, seed);
	nat_init(&side->nat, &config, &tables);
}

static enum nat_dependence as_found(enum nat_behaviour behaviour)
{
	return behaviour == NAT_INDEPENDENT ? NAT_DEPENDS_NOT :
	       behaviour == NAT_ADDRESS	    ? NAT_DEPENDS_ADDRESS :
					      NAT_DEPENDS_PORT;
}

/* As nat_behaviour_fsm finds it: from twelve mappings to three ports of STUN servers. */
static void measure(struct side *side)
{
	const struct nat_rules *rules = &side->nat.config.rules[NAT_UDP];
	const struct endpoint server = endpoint_from_v4(0xc6336401, 3478), main_inside = endpoint_from_v4(side->inside_ip, MAIN_PORT);
	struct hard_nat_facts *facts = &side->facts;

	*facts = (struct hard_nat_facts){ .mapping = as_found(rules->mapping),
					  .filtering = as_found(rules->filtering),
					  .ports = side->nat.config.ports == NAT_PORTS_STEP ? NAT_PORTS_IN_STEPS :
										       NAT_PORTS_ANY,
					  .step = side->nat.config.port_step,
					  .n_ports = 12 };
	int r = nat_out(&side->nat, now_ns, NAT_UDP, &main_inside, &server, &facts->outside);
	assert(r == 0);
	for (uint16_t i = 0; i < 12; i++) {
		const struct endpoint inside = endpoint_from_v4(side->inside_ip, (uint16_t)(9000 + i));
		struct endpoint outside;
		r = nat_out(&side->nat, now_ns, NAT_UDP, &inside, &server, &outside);
		assert(r == 0);
		if (i == 0 || outside.port < facts->low_port)
			facts->low_port = outside.port;
		if (i == 0 || outside.port > facts->high_port)
			facts->high_port = outside.port;
		facts->last_port = outside.port;
	}
}

static void reset(uint64_t seed)
{
	now_ns = MS(1);
	found_ns = n_packets = 0;
	loss_random = seed;
	relay_carries = true;
	start(&easy, 1, NAT_INDEPENDENT, NAT_ADDRESS_AND_PORT, seed);
	start(&hard, 2, NAT_ADDRESS_AND_PORT, NAT_ADDRESS_AND_PORT, seed + 77);
}

static bool is_lost(void)
{
	loss_random = loss_random * 6364136223846793005u + 1442695040888963407u;
	return (loss_random >> 33) % 100 < loss_percent;
}

static void send_out(struct side *side, uint16_t port, const struct endpoint *to, bool is_answer)
{
	const struct endpoint inside = endpoint_from_v4(side->inside_ip, port);
	struct packet packet = { .at_ns = now_ns + ONE_WAY_NS, .to = *to, .is_answer = is_answer };
	int r = nat_out(&side->nat, now_ns, NAT_UDP, &inside, to, &packet.from);

	assert(r == 0);
	if (is_lost())
		return;
	/* What nobody waits for need not be kept: it would be dropped by the other NAT. */
	struct side *other = side == &easy ? &hard : &easy;
	struct endpoint found;
	if (!nat_find_inside(&other->nat, now_ns, NAT_UDP, to, &found))
		return;
	assert(n_packets < MAX_PACKETS);
	packets[n_packets++] = packet;
}

static void note_sent(struct side *side)
{
	assert(side->n_sent < ARRAY_LEN(side->sent_ns));
	side->sent_ns[side->n_sent++] = now_ns;
}

static void hard_hears_that_it_begins(void)
{
	step(&hard, (struct hard_nat_input){ .type = HARD_NAT_IN_THEIRS, .facts = easy.facts, .flag = true });
}

static void step(struct side *side, struct hard_nat_input input)
{
	struct hard_nat_actions actions;

	input.now_ns = now_ns;
	hard_nat_fsm_step(&side->fsm, &input, &actions);
	for (uint32_t i = 0; i < actions.n; i++) {
		const struct hard_nat_action *action = &actions.all[i];
		switch (action->type) {
		case HARD_NAT_DO_TELL:
			side->n_tells++;
			if (relay_carries)
				side->word_ns = now_ns + BY_RELAY_NS;
			break;
		case HARD_NAT_DO_OPEN:
			side->n_open = action->n;
			break;
		case HARD_NAT_DO_KNOCK:
			assert(action->n < side->n_open);
			side->n_knocks++;
			note_sent(side);
			send_out(side, (uint16_t)(SIDE_PORT + action->n), &action->to, false);
			break;
		case HARD_NAT_DO_PING:
			side->n_pings++;
			note_sent(side);
			send_out(side, MAIN_PORT, &action->to, false);
			break;
		case HARD_NAT_DO_CLOSE:
			side->n_open = 0;
			break;
		}
	}
}

/* The socket that was hit answers; the answer proves both directions. */
static void arrive(const struct packet *packet)
{
	struct side *side = nat_has_address(&easy.nat, &packet->to) ? &easy : &hard;
	struct endpoint inside;

	if (nat_in(&side->nat, now_ns, NAT_UDP, &packet->from, &packet->to, &inside) != 0)
		return;
	if (side == &hard && !packet->is_answer) {
		assert(inside.port >= SIDE_PORT);
		send_out(&hard, inside.port, &packet->from, true);
	} else if (side == &easy && found_ns == 0) {
		found_ns = now_ns;
		step(&easy, (struct hard_nat_input){ .type = HARD_NAT_IN_DIRECT });
		step(&hard, (struct hard_nat_input){ .type = HARD_NAT_IN_DIRECT });
	}
}

static void hear_words(void)
{
	for (int i = 0; i < 2; i++) {
		struct side *from = i == 0 ? &easy : &hard;
		if (from->word_ns == 0 || from->word_ns > now_ns)
			continue;
		from->word_ns = 0;
		step(i == 0 ? &hard : &easy,
		     (struct hard_nat_input){ .type = HARD_NAT_IN_THEIRS, .facts = from->facts, .flag = true });
	}
}

static uint64_t or_never(uint64_t ns)
{
	return ns != 0 ? ns : UINT64_MAX;
}

static void run_until(uint64_t until_ns)
{
	for (;;) {
		hear_words();
		uint64_t next_ns = UINT64_MAX;
		uint32_t first = n_packets;
		for (uint32_t i = 0; i < n_packets; i++)
			if (packets[i].at_ns < next_ns) {
				next_ns = packets[i].at_ns;
				first = i;
			}
		const uint64_t easy_ns = or_never(easy.fsm.deadline_ns), hard_ns = or_never(hard.fsm.deadline_ns);
		const uint64_t timer_ns = easy_ns < hard_ns ? easy_ns : hard_ns;
		const uint64_t easy_word_ns = or_never(easy.word_ns), hard_word_ns = or_never(hard.word_ns);
		const uint64_t word_ns = easy_word_ns < hard_word_ns ? easy_word_ns : hard_word_ns;
		const uint64_t quiet_ns = timer_ns < word_ns ? timer_ns : word_ns;
		if ((next_ns < quiet_ns ? next_ns : quiet_ns) > until_ns)
			break;
		if (word_ns <= timer_ns && word_ns <= next_ns) {
			now_ns = word_ns;
			continue;
		}
		if (timer_ns < next_ns) {
			now_ns = timer_ns;
			step(timer_ns == easy_ns ? &easy : &hard, (struct hard_nat_input){ .type = HARD_NAT_IN_DEADLINE });
			continue;
		}
		const struct packet packet = packets[first];
		packets[first] = packets[--n_packets];
		now_ns = packet.at_ns;
		arrive(&packet);
	}
	now_ns = until_ns;
}

/* The hard side has told what its NAT does. */
static void search(void)
{
	const uint64_t begin_ns = now_ns;

	step(&easy, (struct hard_nat_input){ .type = HARD_NAT_IN_OURS, .facts = easy.facts });
	step(&hard, (struct hard_nat_input){ .type = HARD_NAT_IN_OURS, .facts = hard.facts });
	step(&easy, (struct hard_nat_input){ .type = HARD_NAT_IN_WANTED, .flag = true });
	step(&hard, (struct hard_nat_input){ .type = HARD_NAT_IN_WANTED, .flag = true });
	step(&easy, (struct hard_nat_input){ .type = HARD_NAT_IN_THEIRS, .facts = hard.facts });
	run_until(begin_ns + MS(5000));
}

static void expect_polite(const struct side *side)
{
	assert(side->n_knocks <= HARD_NAT_MAX_SOCKETS && side->n_pings <= HARD_NAT_MAX_PINGS);
	for (uint32_t i = HARD_NAT_RATE; i < side->n_sent; i++)
		assert(side->sent_ns[i] - side->sent_ns[i - HARD_NAT_RATE] >= MS(980));
}

struct tally {
	uint32_t n, n_found, n_pings;
	uint64_t slowest_ns;
};

static void note(struct tally *tally)
{
	const uint32_t measured = 13; /* mappings that measuring took */

	expect_polite(&easy);
	expect_polite(&hard);
	assert(easy.nat.counts.mappings_peak <= measured && easy.nat.counts.sessions_peak <= HARD_NAT_MAX_PINGS + measured);
	assert(hard.nat.counts.mappings_peak <= HARD_NAT_MAX_SOCKETS + measured);
	assert(hard.nat.counts.sessions_peak <= HARD_NAT_MAX_SOCKETS + measured);
	tally->n++;
	tally->n_pings += easy.n_pings;
	tally->n_found += found_ns != 0;
	if (found_ns > tally->slowest_ns)
		tally->slowest_ns = found_ns;
}

static void expect(const char *what, const struct tally *tally, double share, uint32_t pings)
{
	printf("%-28s %u of %u found, %.0f pings on average, the slowest after %.2f s\n", what, tally->n_found, tally->n,
	       (double)tally->n_pings / tally->n, (double)tally->slowest_ns / 1e9);
	assert(tally->n_found >= share * tally->n && tally->n_pings <= (uint64_t)pings * tally->n);
}

/* ---- the rules ---- */

static void test_random_ports_are_found_in_98_of_100(enum nat_behaviour mapping, enum nat_behaviour filtering)
{
	struct tally tally = { 0 };

	for (uint64_t seed = 1; seed <= N_SEEDS; seed++) {
		reset(seed * 1000003);
		for (int i = 0; i < NAT_PROTOCOLS; i++) {
			hard.nat.config.rules[i].mapping = mapping;
			hard.nat.config.rules[i].filtering = filtering;
		}
		measure(&easy);
		measure(&hard);
		search();
		note(&tally);
	}
	expect("ports at random", &tally, 0.98, 500);
}

static void test_ports_in_steps_are_predicted(int step_size)
{
	struct tally tally = { 0 };

	for (uint64_t seed = 1; seed <= 300; seed++) {
		reset(seed * 1000003);
		hard.nat.config.ports = NAT_PORTS_STEP;
		hard.nat.config.port_step = (uint16_t)step_size;
		measure(&easy);
		measure(&hard);
		/* Others used up to 500 ports meanwhile. */
		for (uint64_t i = 0; i < seed * 7 % 200; i++) {
			const struct endpoint inside = endpoint_from_v4(hard.inside_ip + 1, (uint16_t)(20000 + i)),
					      to = endpoint_from_v4(0x01020304, 443);
			struct endpoint outside;
			int r = nat_out(&hard.nat, now_ns, NAT_UDP, &inside, &to, &outside);
			assert(r == 0);
		}
		hard.nat.counts.mappings_peak = hard.nat.counts.sessions_peak = 0; /* those of others do not count */
		search();
		assert(hard.n_knocks <= 64);
		hard.nat.counts.mappings_peak = hard.nat.counts.sessions_peak = 0;
		note(&tally);
	}
	expect("ports in steps", &tally, 1.0, 40);
}

static void test_a_block_of_ports_is_searched_alone(uint16_t size)
{
	struct tally tally = { 0 };

	for (uint64_t seed = 1; seed <= 1000; seed++) {
		reset(seed * 1000003);
		hard.nat.config.first_port = 30000;
		hard.nat.config.last_port = (uint16_t)(30000 + size - 1);
		measure(&easy);
		measure(&hard);
		search();
		assert(hard.n_knocks <= 64 && easy.n_pings <= 512);
		note(&tally);
	}
	expect("ports in a block", &tally, 0.98, 128);
}

static void test_loss_costs_little(void)
{
	struct tally tally = { 0 };

	loss_percent = 5;
	for (uint64_t seed = 1; seed <= 1000; seed++) {
		reset(seed * 1000003);
		measure(&easy);
		measure(&hard);
		search();
		note(&tally);
	}
	loss_percent = 0;
	expect("at random, 5 % loss", &tally, 0.96, 520);
}

/* Of all pairs of the nine types only those that need it and can succeed are searched. */
static void test_only_a_hard_side_with_an_easy_strict_one_is_searched(void)
{
	uint32_t n_searched = 0;

	for (unsigned a = 0; a < 9; a++) {
		for (unsigned b = 0; b < 9; b++) {
			const struct nat_rules first = { .mapping = a / 3, .filtering = a % 3 },
					       second = { .mapping = b / 3, .filtering = b % 3 };
			const struct hard_nat_facts ours = { .mapping = as_found(first.mapping),
							     .filtering = as_found(first.filtering),
							     .ports = NAT_PORTS_ANY,
							     .outside = endpoint_from_v4(0xcb007101, 4000) };
			struct hard_nat_facts theirs = { .mapping = as_found(second.mapping),
							 .filtering = as_found(second.filtering),
							 .ports = NAT_PORTS_ANY,
							 .outside = endpoint_from_v4(0xcb007102, 4000) };
			const struct hard_nat_plan plan = hard_nat_plan(&ours, &theirs, 7), back = hard_nat_plan(&theirs, &ours, 9);
			const bool is_searched = plan.role != HARD_NAT_NOTHING;
			const bool one_is_easy = first.mapping == NAT_INDEPENDENT || second.mapping == NAT_INDEPENDENT;

			assert(is_searched == (!nat_pair_can_be_direct(&first, &second) && one_is_easy));
			assert((plan.role == HARD_NAT_HARD_SIDE) == (back.role == HARD_NAT_EASY_SIDE));
			n_searched += is_searched;

			theirs.outside.ip[15] = ours.outside.ip[15]; /* behind one NAT */
			assert(hard_nat_plan(&ours, &theirs, 7).role == HARD_NAT_NOTHING);
			theirs.outside = endpoint_from_v4(0x0a000001, 4000); /* not to have us flood somebody's network */
			assert(hard_nat_plan(&ours, &theirs, 7).role == HARD_NAT_NOTHING);
		}
	}
	assert(n_searched == 8);
}

static void easy_hears(const struct hard_nat_facts *facts)
{
	step(&easy, (struct hard_nat_input){ .type = HARD_NAT_IN_THEIRS, .facts = *facts });
}

/* … and that it has begun, as soon as the easy side has. */
static void easy_hears_that_it_begins(const struct hard_nat_facts *facts)
{
	easy_hears(facts);
	run_until(now_ns + MS(100));
	step(&easy, (struct hard_nat_input){ .type = HARD_NAT_IN_THEIRS, .facts = *facts, .flag = true });
}

static void test_one_search_for_each_pair_of_networks(void)
{
	reset(5);
	measure(&easy);
	measure(&hard);
	hard.facts.outside.ip[15] = 99; /* nobody is there */
	search();
	const uint32_t n_pings = easy.n_pings;
	assert(n_pings == HARD_NAT_MAX_PINGS && found_ns == 0);
	run_until(now_ns + MS(1000));
	assert(easy.fsm.state == HARD_NAT_SPENT && hard.fsm.state == HARD_NAT_SPENT && hard.n_open == 0);

	step(&easy, (struct hard_nat_input){ .type = HARD_NAT_IN_WANTED, .flag = true });
	easy.facts.last_port ^= 5; /* measured again */
	step(&easy, (struct hard_nat_input){ .type = HARD_NAT_IN_OURS, .facts = easy.facts });
	step(&hard, (struct hard_nat_input){ .type = HARD_NAT_IN_WANTED, .flag = true });
	easy_hears(&hard.facts);
	run_until(now_ns + MS(3600000)); /* an hour later */
	easy_hears(&hard.facts);
	easy.facts.mapping = NAT_DEPENDS_NO_NAT; /* … and with other findings */
	step(&easy, (struct hard_nat_input){ .type = HARD_NAT_IN_OURS, .facts = easy.facts });
	struct hard_nat_facts unknown = hard.facts;
	unknown.outside = (struct endpoint){ 0 }; /* for a while */
	easy_hears(&unknown);
	easy_hears(&hard.facts);
	run_until(now_ns + MS(60000));
	assert(easy.n_pings == n_pings && hard.n_knocks == HARD_NAT_MAX_SOCKETS);
	assert(hard_nat_fsm_tell_at(&hard.fsm, now_ns) == UINT64_MAX);

	hard.facts.outside.ip[15] = 98; /* in another network */
	easy.n_sent = hard.n_sent = 0;
	step(&hard, (struct hard_nat_input){ .type = HARD_NAT_IN_OURS, .facts = hard.facts });
	step(&easy, (struct hard_nat_input){ .type = HARD_NAT_IN_THEIRS, .facts = hard.facts });
	run_until(now_ns + MS(6000));
	assert(easy.n_pings == 2 * n_pings);
}

/* Who says each time something else, of somebody who is not there. */
static void test_a_peer_that_alternates_what_it_says_gets_two_searches_in_ten_minutes(void)
{
	reset(5);
	measure(&easy);
	measure(&hard);
	struct hard_nat_facts other = hard.facts;
	other.outside.ip[15] = 98;
	other.mapping = NAT_DEPENDS_ADDRESS;
	step(&easy, (struct hard_nat_input){ .type = HARD_NAT_IN_OURS, .facts = easy.facts });
	step(&easy, (struct hard_nat_input){ .type = HARD_NAT_IN_WANTED, .flag = true });
	for (int i = 0; i < 160; i++) { /* 3.5 s: when most pings have gone */
		easy.n_sent = 0;
		easy_hears_that_it_begins(i % 2 == 0 ? &hard.facts : &other);
		run_until(now_ns + MS(3500));
	}
	assert(easy.n_pings > 0 && easy.n_pings <= HARD_NAT_CHANGES * HARD_NAT_MAX_PINGS);
	assert(easy.fsm.state == HARD_NAT_IDLE || easy.fsm.state == HARD_NAT_SPENT);

	const uint32_t n_pings = easy.n_pings;
	easy.n_sent = 0;
	run_until(now_ns + MS(600000));
	easy.n_sent = 0;
	other.outside.ip[15] = 97;
	easy_hears_that_it_begins(&other);
	run_until(now_ns + MS(6000));
	assert(easy.n_pings > n_pings && "ten minutes later");
}

static void test_another_network_of_our_own_renews_the_searches(void)
{
	reset(5);
	measure(&easy);
	measure(&hard);
	hard.facts.outside.ip[15] = 99; /* nobody is there */
	search();
	relay_carries = false; /* nobody is there, either, who hears it */
	for (uint8_t i = 0; i < 5; i++) {
		easy.n_sent = 0;
		hard.facts.outside.ip[15] = 90 + i;
		easy_hears_that_it_begins(&hard.facts);
		run_until(now_ns + MS(6000));
	}
	const uint32_t n_pings = easy.n_pings;
	assert(n_pings == 2 * HARD_NAT_MAX_PINGS);

	easy.n_sent = 0;
	easy.facts.outside.ip[15] = 3;
	step(&easy, (struct hard_nat_input){ .type = HARD_NAT_IN_OURS, .facts = easy.facts });
	easy_hears_that_it_begins(&hard.facts);
	run_until(now_ns + MS(6000));
	assert(easy.n_pings == 3 * HARD_NAT_MAX_PINGS);
}

/* Of all the peers of a node one is searched for: else each would add 500 datagrams a second. */
static void test_a_node_searches_for_one_peer_at_a_time(void)
{
	static struct hard_nat_fsm peers[20];
	struct hard_nat_turn turn = { 0 };
	struct hard_nat_actions actions;
	uint32_t n_sent = 0, n_begun = 0;
	const uint64_t begin_ns = MS(1), end_ns = MS(60000);

	reset(5);
	measure(&easy);
	measure(&hard);
	for (size_t i = 0; i < ARRAY_LEN(peers); i++) {
		hard_nat_fsm_init(&peers[i], &turn, i);
		hard.facts.outside.ip[15] = (uint8_t)(100 + i);
		for (enum hard_nat_input_type type = 0; type <= HARD_NAT_IN_WANTED; type++)
			hard_nat_fsm_step(&peers[i],
					  &(struct hard_nat_input){ .type = type,
								    .now_ns = begin_ns,
								    .flag = true,
								    .facts = type == HARD_NAT_IN_OURS ? easy.facts : hard.facts },
					  &actions);
	}
	for (now_ns = begin_ns; now_ns < end_ns; now_ns += MS(1)) {
		uint32_t n_searching = 0;
		for (size_t i = 0; i < ARRAY_LEN(peers); i++) {
			if (peers[i].deadline_ns != 0 && peers[i].deadline_ns <= now_ns) {
				hard_nat_fsm_step(&peers[i],
						  &(struct hard_nat_input){ .type = HARD_NAT_IN_DEADLINE, .now_ns = now_ns },
						  &actions);
				for (uint32_t k = 0; k < actions.n; k++)
					n_sent += actions.all[k].type == HARD_NAT_DO_PING;
				hard.facts.outside.ip[15] = (uint8_t)(100 + i); /* its peer begins, too */
				hard_nat_fsm_step(&peers[i],
						  &(struct hard_nat_input){ .type = HARD_NAT_IN_THEIRS,
									    .now_ns = now_ns,
									    .flag = true,
									    .facts = hard.facts },
						  &actions);
			}
			n_searching += peers[i].state == HARD_NAT_PREPARING || peers[i].state == HARD_NAT_SEARCHING;
		}
		assert(n_searching <= 1);
		assert(n_sent <= HARD_NAT_RATE * (now_ns / MS(1000) + 1));
	}
	for (size_t i = 0; i < ARRAY_LEN(peers); i++)
		n_begun += peers[i].n_begun;
	assert(n_begun >= 11 && "the next one when the one before is over");
}

static struct hard_nat_actions feed(struct hard_nat_fsm *fsm, struct hard_nat_input input)
{
	struct hard_nat_actions actions;

	input.now_ns = now_ns;
	hard_nat_fsm_step(fsm, &input, &actions);
	return actions;
}

/* Two of a hard side's peers; it has told the first. */
static void given_one_of_two_was_told(struct hard_nat_fsm peers[2], struct hard_nat_turn *turn)
{
	reset(5);
	measure(&easy);
	measure(&hard);
	*turn = (struct hard_nat_turn){ 0 };
	for (int i = 0; i < 2; i++) {
		hard_nat_fsm_init(&peers[i], turn, 1);
		feed(&peers[i], (struct hard_nat_input){ .type = HARD_NAT_IN_OURS, .facts = hard.facts });
		feed(&peers[i], (struct hard_nat_input){ .type = HARD_NAT_IN_WANTED, .flag = true });
		assert(hard_nat_fsm_tell_at(&peers[i], now_ns) <= now_ns);
	}
	hard_nat_fsm_told(&peers[0], now_ns);
}

/* Else both would begin, and one send all its pings to a NAT that has opened nothing for it. */
static void test_a_hard_side_tells_one_peer_at_a_time(void)
{
	struct hard_nat_fsm peers[2];
	struct hard_nat_turn turn;

	given_one_of_two_was_told(peers, &turn);
	assert(hard_nat_fsm_tell_at(&peers[0], now_ns) <= now_ns && hard_nat_fsm_tell_at(&peers[1], now_ns) > now_ns);
	assert(feed(&peers[0], (struct hard_nat_input){ .type = HARD_NAT_IN_THEIRS, .facts = easy.facts, .flag = true }).n == 1);
	now_ns += MS(1000);
	assert(peers[0].state == HARD_NAT_PREPARING && hard_nat_fsm_tell_at(&peers[1], now_ns) > now_ns);
}

static void test_a_peer_that_was_told_and_does_not_begin_is_waited_for_less_than_a_second(void)
{
	struct hard_nat_fsm peers[2];
	struct hard_nat_turn turn;

	given_one_of_two_was_told(peers, &turn);
	now_ns += MS(900);
	assert(hard_nat_fsm_tell_at(&peers[1], now_ns) <= now_ns);
}

static void test_a_peer_that_needs_no_search_is_not_waited_for(void)
{
	struct hard_nat_fsm peers[2];
	struct hard_nat_turn turn;

	given_one_of_two_was_told(peers, &turn);
	feed(&peers[0], (struct hard_nat_input){ .type = HARD_NAT_IN_THEIRS, .facts = hard.facts });
	assert(hard_nat_fsm_tell_at(&peers[1], now_ns) <= now_ns);
	given_one_of_two_was_told(peers, &turn);
	feed(&peers[0], (struct hard_nat_input){ .type = HARD_NAT_IN_DIRECT });
	assert(hard_nat_fsm_tell_at(&peers[1], now_ns) <= now_ns);
}

static void test_a_turn_that_is_given_back_early_is_soon_another_s(void)
{
	struct hard_nat_fsm peers[2];
	struct hard_nat_turn turn;

	given_one_of_two_was_told(peers, &turn);
	for (int i = 0; i < 2; i++)
		feed(&peers[i], (struct hard_nat_input){ .type = HARD_NAT_IN_THEIRS, .facts = easy.facts, .flag = true });
	assert(peers[0].state == HARD_NAT_PREPARING && peers[1].state == HARD_NAT_IDLE);
	now_ns += MS(50);
	feed(&peers[0], (struct hard_nat_input){ .type = HARD_NAT_IN_DIRECT });
	assert(peers[1].deadline_ns != 0 && peers[1].deadline_ns <= now_ns + MS(200));
	now_ns = peers[1].deadline_ns;
	feed(&peers[1], (struct hard_nat_input){ .type = HARD_NAT_IN_DEADLINE });
	assert(peers[1].state == HARD_NAT_PREPARING);
}

static void test_a_direct_path_ends_the_search(void)
{
	reset(5);
	measure(&easy);
	measure(&hard);
	step(&hard, (struct hard_nat_input){ .type = HARD_NAT_IN_OURS, .facts = hard.facts });
	hard_hears_that_it_begins();
	run_until(now_ns + MS(1000));
	assert(hard.n_knocks == 0 && "nobody wants it");

	step(&hard, (struct hard_nat_input){ .type = HARD_NAT_IN_WANTED, .flag = true });
	run_until(now_ns + MS(100));
	assert(hard.n_open == HARD_NAT_MAX_SOCKETS && hard.n_knocks > 0);
	step(&hard, (struct hard_nat_input){ .type = HARD_NAT_IN_DIRECT });
	const uint32_t n_knocks = hard.n_knocks;
	run_until(now_ns + MS(9000));
	assert(hard.n_open == 0 && hard.n_knocks == n_knocks && hard.fsm.state == HARD_NAT_FOUND);
}

/* What a peer tells need not be so. */
static void expect_sane(const struct hard_nat_facts *hard_facts)
{
	const struct hard_nat_facts ours = { .mapping = NAT_DEPENDS_NOT,
					     .filtering = NAT_DEPENDS_PORT,
					     .outside = endpoint_from_v4(0xcb007101, 4000) };
	const struct hard_nat_plan plan = hard_nat_plan(&ours, hard_facts, 0x123456789abcdef0u);

	assert(plan.role == HARD_NAT_EASY_SIDE && plan.n_sockets > 0 && plan.n_sockets <= HARD_NAT_MAX_SOCKETS);
	assert(plan.n_pings > 0 && plan.n_pings <= HARD_NAT_MAX_PINGS);
	for (uint32_t i = 0; i < plan.n_pings; i++)
		assert(hard_nat_port(&plan, i) >= 1024);
}

static void test_whatever_ports_a_peer_tells_of_those_from_1024_on_are_pinged_and_at_most_1024(void)
{
	static const uint16_t told[][2] = { { 1007, 1007 }, { 0, 0 },	    { 1, 1000 },     { 1023, 1024 }, { 1008, 1008 },
					    { 900, 2000 },  { 65535, 65535 }, { 5000, 4000 }, { 65535, 0 } };
	struct hard_nat_facts facts = { .mapping = NAT_DEPENDS_PORT,
					.filtering = NAT_DEPENDS_PORT,
					.ports = NAT_PORTS_ANY,
					.outside = endpoint_from_v4(0xcb007102, 4000) };

	for (size_t i = 0; i < ARRAY_LEN(told); i++) {
		for (uint32_t n = 0; n <= 8; n += 8) {
			facts.low_port = told[i][0];
			facts.high_port = told[i][1];
			facts.n_ports = n;
			expect_sane(&facts);
		}
	}
	facts.ports = NAT_PORTS_IN_STEPS;
	for (int32_t size = -32768; size <= 32767; size += size > -70 && size < 70 ? 1 : 97) {
		for (uint32_t last = 0; last <= 65535; last += 13107) {
			facts.step = size;
			facts.last_port = (uint16_t)last;
			expect_sane(&facts);
		}
	}
}

static void test_a_side_that_says_it_is_at_a_well_known_port_is_not_searched(void)
{
	const struct hard_nat_facts ours = { .mapping = NAT_DEPENDS_PORT,
					     .filtering = NAT_DEPENDS_PORT,
					     .outside = endpoint_from_v4(0xcb007101, 4000) };
	struct hard_nat_facts theirs = { .mapping = NAT_DEPENDS_NOT,
					 .filtering = NAT_DEPENDS_PORT,
					 .outside = endpoint_from_v4(0xcb007102, 1024) };

	assert(hard_nat_plan(&ours, &theirs, 7).role == HARD_NAT_HARD_SIDE);
	theirs.outside.port = 53;
	assert(hard_nat_plan(&ours, &theirs, 7).role == HARD_NAT_NOTHING);
}

/* Both sides want it; whose facts are known is the test's. */
static void given_two_who_want(void)
{
	reset(5);
	measure(&easy);
	measure(&hard);
	step(&easy, (struct hard_nat_input){ .type = HARD_NAT_IN_WANTED, .flag = true });
	step(&hard, (struct hard_nat_input){ .type = HARD_NAT_IN_WANTED, .flag = true });
	step(&hard, (struct hard_nat_input){ .type = HARD_NAT_IN_OURS, .facts = hard.facts });
}

static void test_an_easy_side_that_learns_late_what_it_is_tells_when_it_begins(void)
{
	given_two_who_want();
	easy_hears(&hard.facts);
	run_until(now_ns + MS(20000)); /* the hard side gave up telling */
	assert(easy.n_tells == 0 && easy.n_pings == 0 && hard.n_open == 0);

	step(&easy, (struct hard_nat_input){ .type = HARD_NAT_IN_OURS, .facts = easy.facts });
	assert(easy.n_tells == 1 && easy.n_pings == 0);
	run_until(now_ns + MS(60));
	hard_hears_that_it_begins();
	run_until(now_ns + MS(5000));
	assert(found_ns != 0);
}

static void test_a_hard_side_opens_nothing_unless_the_easy_one_begins_now(void)
{
	given_two_who_want();
	step(&hard, (struct hard_nat_input){ .type = HARD_NAT_IN_WANTED, .flag = false });
	hard_hears_that_it_begins();
	run_until(now_ns + MS(6000));
	step(&hard, (struct hard_nat_input){ .type = HARD_NAT_IN_WANTED, .flag = true });
	assert(hard.n_open == 0 && hard_nat_fsm_tell_at(&hard.fsm, now_ns) <= now_ns && "it asks first");
	hard_hears_that_it_begins();
	assert(hard.n_open == HARD_NAT_MAX_SOCKETS);
}

static void given_an_easy_side_that_began(void)
{
	given_two_who_want();
	step(&easy, (struct hard_nat_input){ .type = HARD_NAT_IN_OURS, .facts = easy.facts });
	relay_carries = false;
	easy_hears(&hard.facts);
	assert(easy.n_tells == 1);
}

static void test_nobody_knocks_at_a_well_known_port_that_is_told_of_amid_a_search(void)
{
	struct hard_nat_facts moved;

	given_an_easy_side_that_began();
	relay_carries = true;
	hard_hears_that_it_begins();
	assert(hard.n_open == HARD_NAT_MAX_SOCKETS && hard.n_knocks == 0);
	moved = easy.facts;
	moved.outside.port = 53;
	step(&hard, (struct hard_nat_input){ .type = HARD_NAT_IN_THEIRS, .facts = moved, .flag = true });
	run_until(now_ns + MS(4500));
	assert(hard.n_open == 0 && hard.n_knocks == 0);
}

static void test_an_easy_side_says_that_it_begins_until_it_is_heard_and_pings_nobody_before(void)
{
	given_an_easy_side_that_began();
	run_until(now_ns + MS(1900));
	assert(easy.n_tells == 4 && easy.n_pings == 0 && hard.n_open == 0);
	relay_carries = true;
	run_until(now_ns + MS(4500));
	assert(found_ns != 0 && easy.n_pings <= HARD_NAT_MAX_PINGS && easy.fsm.n_begun == 1 && hard.fsm.n_begun == 1);
}

/* What it says is heard, and that the hard side begins, too, is not. */
static void test_a_hard_side_says_again_that_it_begins_and_opens_no_other_sockets(void)
{
	given_an_easy_side_that_began();
	for (int i = 0; i < 3; i++) {
		hard_hears_that_it_begins();
		run_until(now_ns + MS(700));
	}
	assert(hard.n_tells == 3 && hard.n_knocks == HARD_NAT_MAX_SOCKETS && hard.fsm.n_begun == 1 && easy.n_pings == 0);
	relay_carries = true;
	run_until(now_ns + MS(4500));
	assert(found_ns != 0 && hard.n_knocks == HARD_NAT_MAX_SOCKETS && hard.fsm.n_begun == 1);
}

static void test_a_hard_side_that_is_told_all_the_time_keeps_its_sockets_for_a_while_and_no_longer(void)
{
	given_an_easy_side_that_began();
	for (int i = 0; i < 40; i++) {
		hard_hears_that_it_begins();
		run_until(now_ns + MS(500));
	}
	assert(hard.fsm.state == HARD_NAT_SPENT && hard.n_open == 0 && hard.n_knocks == HARD_NAT_MAX_SOCKETS);
	assert(hard.n_tells <= 22 && hard.turn.until_ns < now_ns);
}

/* For five seconds the relay carries to the hard side alone. The search was none, and there is another one. */
static void test_a_search_that_the_easy_side_never_heard_of_does_not_count(void)
{
	given_an_easy_side_that_began();
	for (int i = 0; i < 10; i++) {
		hard_hears_that_it_begins();
		run_until(now_ns + MS(500));
	}
	assert(easy.n_tells == 10 && easy.fsm.state == HARD_NAT_IDLE && hard.n_open == HARD_NAT_MAX_SOCKETS);
	run_until(now_ns + MS(5000));
	assert(hard.fsm.state == HARD_NAT_IDLE && hard.n_open == 0 && hard.turn.until_ns <= now_ns);
	assert(hard_nat_fsm_tell_at(&hard.fsm, now_ns) <= now_ns && "the easy side waits to be told");

	relay_carries = true;
	easy.n_sent = hard.n_sent = 0;
	easy_hears(&hard.facts);
	run_until(now_ns + MS(5000));
	assert(found_ns != 0 && hard.fsm.n_begun == 2 && easy.fsm.n_begun == 1);
}

static void test_a_peer_that_never_hears_us_has_us_search_twice_in_ten_minutes(void)
{
	const uint64_t begin_ns = MS(1);

	given_an_easy_side_that_began();
	while (now_ns < begin_ns + MS(590000)) {
		for (int i = 0; i < 10; i++) {
			hard_hears_that_it_begins();
			run_until(now_ns + MS(500));
		}
		run_until(now_ns + MS(6000));
	}
	assert(hard.n_knocks == 2 * HARD_NAT_MAX_SOCKETS && hard.n_open == 0);
}

static void test_an_easy_side_that_is_never_heard_pings_nobody_and_begins_anew_when_it_is_told(void)
{
	given_an_easy_side_that_began();
	run_until(now_ns + MS(20000));
	assert(easy.n_tells == 10 && easy.n_pings == 0 && easy.fsm.state == HARD_NAT_IDLE && easy.turn.until_ns < now_ns);
	relay_carries = true;
	easy_hears(&hard.facts);
	run_until(now_ns + MS(5000));
	assert(found_ns != 0 && easy.fsm.n_begun == 1);
}

/* A peer that tells what its NAT does, and never begins, does not keep the turn from others. */
static void test_an_easy_side_that_is_told_all_the_time_and_never_heard_is_silent_after_four_tries(void)
{
	given_an_easy_side_that_began();
	for (int i = 0; i < 200; i++) {
		easy_hears(&hard.facts);
		run_until(now_ns + MS(500));
	}
	assert(easy.n_tells == 4 * 10 && easy.n_pings == 0 && easy.turn.until_ns < now_ns);
}

static void test_an_easy_side_that_is_told_all_the_time_searches_once(void)
{
	given_an_easy_side_that_began();
	hard.facts.outside.ip[15] = 99; /* nobody is there */
	for (int i = 0; i < 3000; i++) {
		easy_hears_that_it_begins(&hard.facts);
		run_until(now_ns + MS(500));
	}
	assert(easy.n_pings == HARD_NAT_MAX_PINGS && easy.fsm.state == HARD_NAT_SPENT);
}

static void test_a_search_that_got_no_sockets_does_not_count(void)
{
	given_two_who_want();
	for (int i = 0; i < 10; i++) {
		hard.n_open = 0;
		hard_hears_that_it_begins();
		assert(hard.n_open == HARD_NAT_MAX_SOCKETS);
		step(&hard, (struct hard_nat_input){ .type = HARD_NAT_IN_REFUSED });
		assert(hard.fsm.state == HARD_NAT_IDLE && hard.turn.until_ns <= now_ns);
		assert(hard_nat_fsm_tell_at(&hard.fsm, now_ns) <= now_ns && "the peer is asked again");
		run_until(now_ns + MS(1000));
	}
	assert(hard.n_knocks == 0);
}

static void both(struct hard_nat_input input)
{
	easy.n_sent = hard.n_sent = 0;
	step(&easy, input);
	step(&hard, input);
}

/* One of the NATs forgot it, which nobody is told of. */
static void test_a_found_path_that_is_lost_is_searched_again_twice_in_ten_minutes_at_most(void)
{
	given_two_who_want();
	search();
	assert(found_ns != 0 && easy.fsm.n_begun == 1);
	for (uint32_t i = 1; i <= 5; i++) {
		both((struct hard_nat_input){ .type = HARD_NAT_IN_WANTED, .flag = true });
		run_until(now_ns + MS(2000));
		assert(easy.fsm.n_begun == 2 && hard.fsm.n_begun == 2);
		both((struct hard_nat_input){ .type = HARD_NAT_IN_DIRECT });
		run_until(now_ns + MS(2000));
	}
	assert(easy.n_tells <= 4 && hard.n_knocks <= 2 * HARD_NAT_MAX_SOCKETS);
	both((struct hard_nat_input){ .type = HARD_NAT_IN_WANTED, .flag = true });
	run_until(now_ns + MS(600000));
	assert(easy.fsm.n_begun == 1 && hard.fsm.n_begun == 1 && "ten minutes later");
}

/* The cable is out, and in again, while nothing is said. */
static void test_a_found_path_that_is_lost_while_an_address_was_not_known_is_searched_again(void)
{
	given_two_who_want();
	search();
	assert(found_ns != 0 && hard.fsm.state == HARD_NAT_FOUND);
	step(&hard, (struct hard_nat_input){ .type = HARD_NAT_IN_OURS });
	step(&hard, (struct hard_nat_input){ .type = HARD_NAT_IN_OURS, .facts = hard.facts });
	both((struct hard_nat_input){ .type = HARD_NAT_IN_WANTED, .flag = true });
	run_until(now_ns + MS(2000));
	assert(hard.fsm.n_begun == 2);
}

static void test_a_search_that_found_nothing_is_the_last_until_a_network_changes(void)
{
	given_two_who_want();
	hard.facts.outside.ip[15] = 99; /* nobody is there */
	search();
	run_until(now_ns + MS(3000));
	assert(easy.fsm.state == HARD_NAT_SPENT && hard.fsm.state == HARD_NAT_SPENT);
	both((struct hard_nat_input){ .type = HARD_NAT_IN_WANTED, .flag = false });
	both((struct hard_nat_input){ .type = HARD_NAT_IN_WANTED, .flag = true });
	run_until(now_ns + MS(7200000));
	assert(easy.n_pings == HARD_NAT_MAX_PINGS && hard.n_knocks == HARD_NAT_MAX_SOCKETS);

	hard.facts.outside.ip[15] = 98;
	step(&hard, (struct hard_nat_input){ .type = HARD_NAT_IN_OURS, .facts = hard.facts });
	assert(hard_nat_fsm_tell_at(&hard.fsm, now_ns) <= now_ns);
}

static void test_a_peer_that_was_restarted_is_told_anew_within_the_same_number_of_searches(void)
{
	given_two_who_want();
	hard_hears_that_it_begins();
	run_until(now_ns + MS(6000));
	assert(hard.fsm.state == HARD_NAT_SPENT && hard_nat_fsm_tell_at(&hard.fsm, now_ns) == UINT64_MAX);

	step(&hard, (struct hard_nat_input){ .type = HARD_NAT_IN_SESSION });
	assert(hard_nat_fsm_tell_at(&hard.fsm, now_ns) <= now_ns);
	hard_hears_that_it_begins();
	assert(hard.n_open != 0);
	step(&hard, (struct hard_nat_input){ .type = HARD_NAT_IN_SESSION });
	assert(hard.n_open == 0 && hard_nat_fsm_tell_at(&hard.fsm, now_ns) > now_ns + MS(500000));
}

int main(void)
{
	test_random_ports_are_found_in_98_of_100(NAT_ADDRESS_AND_PORT, NAT_ADDRESS_AND_PORT);
	test_random_ports_are_found_in_98_of_100(NAT_ADDRESS, NAT_ADDRESS);
	test_ports_in_steps_are_predicted(1);
	test_ports_in_steps_are_predicted(2);
	test_a_block_of_ports_is_searched_alone(1024);
	test_a_block_of_ports_is_searched_alone(2048);
	test_loss_costs_little();
	test_only_a_hard_side_with_an_easy_strict_one_is_searched();
	test_whatever_ports_a_peer_tells_of_those_from_1024_on_are_pinged_and_at_most_1024();
	test_a_side_that_says_it_is_at_a_well_known_port_is_not_searched();
	test_nobody_knocks_at_a_well_known_port_that_is_told_of_amid_a_search();
	test_one_search_for_each_pair_of_networks();
	test_a_peer_that_alternates_what_it_says_gets_two_searches_in_ten_minutes();
	test_another_network_of_our_own_renews_the_searches();
	test_a_node_searches_for_one_peer_at_a_time();
	test_an_easy_side_that_learns_late_what_it_is_tells_when_it_begins();
	test_a_hard_side_opens_nothing_unless_the_easy_one_begins_now();
	test_an_easy_side_says_that_it_begins_until_it_is_heard_and_pings_nobody_before();
	test_a_hard_side_says_again_that_it_begins_and_opens_no_other_sockets();
	test_a_hard_side_that_is_told_all_the_time_keeps_its_sockets_for_a_while_and_no_longer();
	test_a_search_that_the_easy_side_never_heard_of_does_not_count();
	test_a_peer_that_never_hears_us_has_us_search_twice_in_ten_minutes();
	test_an_easy_side_that_is_never_heard_pings_nobody_and_begins_anew_when_it_is_told();
	test_an_easy_side_that_is_told_all_the_time_and_never_heard_is_silent_after_four_tries();
	test_an_easy_side_that_is_told_all_the_time_searches_once();
	test_a_search_that_got_no_sockets_does_not_count();
	test_a_found_path_that_is_lost_is_searched_again_twice_in_ten_minutes_at_most();
	test_a_found_path_that_is_lost_while_an_address_was_not_known_is_searched_again();
	test_a_search_that_found_nothing_is_the_last_until_a_network_changes();
	test_a_peer_that_was_restarted_is_told_anew_within_the_same_number_of_searches();
	test_a_hard_side_tells_one_peer_at_a_time();
	test_a_peer_that_was_told_and_does_not_begin_is_waited_for_less_than_a_second();
	test_a_peer_that_needs_no_search_is_not_waited_for();
	test_a_turn_that_is_given_back_early_is_soon_another_s();
	test_a_direct_path_ends_the_search();
	puts("ok");
	return 0;
}
