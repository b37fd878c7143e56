/*
 * The NAT that tests are run behind: that it maps, filters, turns and forgets as RFC 4787 names these, in
 * all nine combinations.
 */
#include "tests/lib/nat/nat.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define MS(n)	   ((uint64_t)(n)*1000000u)
#define SECONDS(n) (1000u * MS(n))

#define N_MAPPINGS 64
#define N_SESSIONS 128
#define N_BUCKETS  16 /* few: chains are walked */

static struct nat nat;
static struct nat_mapping mappings[N_MAPPINGS];
static struct nat_session sessions[N_SESSIONS];
static struct nat_link buckets[3 * N_BUCKETS];
static uint64_t now_ns;

static const uint32_t public_ip = 0xc6336401;

static struct endpoint at(uint32_t last_byte, uint16_t port)
{
	return endpoint_from_v4(0xcb007100u + last_byte, port);
}

static struct endpoint inside(uint32_t last_byte, uint16_t port)
{
	return endpoint_from_v4(0x0a000000u + last_byte, port);
}

static struct nat_config config_of(enum nat_behaviour mapping, enum nat_behaviour filtering)
{
	struct nat_config config = { .addresses = { public_ip }, .n_addresses = 1, .seed = 7 };

	for (int i = 0; i < NAT_PROTOCOLS; i++)
		config.rules[i] = (struct nat_rules){ .mapping = mapping,
						      .filtering = filtering,
						      .timeout_ns = SECONDS(30),
						      .is_kept_by_inbound = true };
	config.ports = NAT_PORTS_RANDOM;
	return config;
}

static void start(const struct nat_config *config)
{
	const struct nat_tables tables = { mappings,   sessions,   buckets,
					   N_MAPPINGS, N_SESSIONS, N_BUCKETS };

	nat_init(&nat, config, &tables);
	now_ns = SECONDS(1000);
}

static void start_as(enum nat_behaviour mapping, enum nat_behaviour filtering)
{
	const struct nat_config config = config_of(mapping, filtering);

	start(&config);
}

static struct endpoint out(struct endpoint from, struct endpoint to)
{
	struct endpoint seen;

	assert(nat_out(&nat, now_ns, NAT_UDP, &from, &to, &seen) == 0);
	return seen;
}

static int in(struct endpoint from, struct endpoint to)
{
	struct endpoint whom;

	return nat_in(&nat, now_ns, NAT_UDP, &from, &to, &whom);
}

static bool is(struct endpoint a, struct endpoint b)
{
	return endpoint_equal(&a, &b);
}

static void test_the_mapping_depends_on_as_much_of_the_remote_as_its_name_says(void)
{
	for (unsigned mapping = 0; mapping < 3; mapping++)
		for (unsigned filtering = 0; filtering < 3; filtering++) {
			start_as((enum nat_behaviour)mapping, (enum nat_behaviour)filtering);
			const struct endpoint first = out(inside(2, 5000), at(1, 4000));

			assert(is(out(inside(2, 5000), at(1, 4000)), first));
			assert(is(out(inside(2, 5000), at(1, 4001)), first) ==
			       (mapping < NAT_ADDRESS_AND_PORT));
			assert(is(out(inside(2, 5000), at(2, 4000)), first) == (mapping == NAT_INDEPENDENT));
			assert(!is(out(inside(2, 5001), at(1, 4000)), first));
			assert(!is(out(inside(3, 5000), at(1, 4000)), first));
		}
}

static void test_the_filter_lets_in_whom_its_name_says(void)
{
	for (unsigned mapping = 0; mapping < 3; mapping++)
		for (unsigned filtering = 0; filtering < 3; filtering++) {
			start_as((enum nat_behaviour)mapping, (enum nat_behaviour)filtering);
			const struct endpoint mapped = out(inside(2, 5000), at(1, 4000));

			assert(in(at(1, 4000), mapped) == 0);
			assert((in(at(1, 4001), mapped) == 0) == (filtering < NAT_ADDRESS_AND_PORT));
			assert((in(at(2, 4000), mapped) == 0) == (filtering == NAT_INDEPENDENT));
		}
}

static void test_who_was_let_in_opens_the_filter_for_nobody(void)
{
	start_as(NAT_INDEPENDENT, NAT_ADDRESS);
	const struct endpoint mapped = out(inside(2, 5000), at(1, 4000));

	assert(in(at(1, 4001), mapped) == 0);
	now_ns += SECONDS(20);
	assert(in(at(1, 4001), mapped) == 0);
	now_ns += SECONDS(20);
	assert(in(at(1, 4001), mapped) == NAT_FILTERED && "4000, which was asked, is forgotten");
}

static void test_an_unknown_port_is_nobodys(void)
{
	start_as(NAT_INDEPENDENT, NAT_INDEPENDENT);
	struct endpoint mapped = out(inside(2, 5000), at(1, 4000));

	mapped.port ^= 1;
	assert(in(at(1, 4000), mapped) == NAT_UNMAPPED);
	assert(nat.counts.unmapped == 1);
}

static void test_an_answer_leaves_by_the_port_its_question_came_in_by(void)
{
	start_as(NAT_ADDRESS_AND_PORT, NAT_INDEPENDENT);
	const struct endpoint mapped = out(inside(2, 5000), at(1, 4000));

	assert(in(at(2, 4000), mapped) == 0);
	assert(is(out(inside(2, 5000), at(2, 4000)), mapped));

	/* … also when something was sent there before. */
	const struct endpoint other = out(inside(2, 5000), at(3, 4000));
	assert(!is(other, mapped));
	assert(in(at(3, 4000), mapped) == 0);
	assert(is(out(inside(2, 5000), at(3, 4000)), mapped));
}

static void test_a_filter_opens_after_its_lag(void)
{
	for (unsigned filtering = 0; filtering < 3; filtering++) {
		struct nat_config config = config_of(NAT_INDEPENDENT, (enum nat_behaviour)filtering);
		config.rules[NAT_UDP].filter_lag_ns = MS(50);
		start(&config);
		const struct endpoint mapped = out(inside(2, 5000), at(1, 4000));

		now_ns += MS(49);
		assert(in(at(1, 4000), mapped) == NAT_FILTERED);
		assert(is(out(inside(2, 5000), at(1, 4000)), mapped) && "which does not start it anew");
		now_ns += MS(1);
		assert(in(at(1, 4000), mapped) == 0);
	}
}

static void test_a_mapping_ends_when_it_was_not_used_for_its_time(void)
{
	start_as(NAT_INDEPENDENT, NAT_INDEPENDENT);
	const struct endpoint mapped = out(inside(2, 5000), at(1, 4000));

	now_ns += SECONDS(30) - 1;
	assert(in(at(1, 4000), mapped) == 0);
	now_ns += SECONDS(30) - 1;
	assert(is(out(inside(2, 5000), at(1, 4000)), mapped));
	now_ns += SECONDS(30);
	assert(in(at(1, 4000), mapped) == NAT_UNMAPPED);
	assert(nat.counts.mappings == 0 && nat.counts.sessions == 0);
	assert(!is(out(inside(2, 5000), at(1, 4000)), mapped));
}

static void test_what_comes_in_need_not_keep_a_mapping(void)
{
	struct nat_config config = config_of(NAT_INDEPENDENT, NAT_ADDRESS_AND_PORT);
	config.rules[NAT_UDP].is_kept_by_inbound = false;
	start(&config);
	const struct endpoint mapped = out(inside(2, 5000), at(1, 4000));

	now_ns += SECONDS(20);
	assert(in(at(1, 4000), mapped) == 0);
	now_ns += SECONDS(10);
	assert(in(at(1, 4000), mapped) == NAT_UNMAPPED);
}

static void test_the_filter_forgets_one_remote_while_another_keeps_the_mapping(void)
{
	start_as(NAT_INDEPENDENT, NAT_ADDRESS_AND_PORT);
	const struct endpoint mapped = out(inside(2, 5000), at(1, 4000));

	now_ns += SECONDS(20);
	assert(is(out(inside(2, 5000), at(2, 4000)), mapped));
	now_ns += SECONDS(20);
	assert(in(at(1, 4000), mapped) == NAT_FILTERED);
	assert(in(at(2, 4000), mapped) == 0);
}

static void test_a_port_is_preserved_where_it_is_free(void)
{
	struct nat_config config = config_of(NAT_INDEPENDENT, NAT_INDEPENDENT);
	config.ports = NAT_PORTS_PRESERVE;
	start(&config);

	assert(out(inside(2, 5000), at(1, 4000)).port == 5000);
	assert(out(inside(3, 5000), at(1, 4000)).port != 5000);
}

static void test_ports_come_in_steps_and_skip_those_in_use(void)
{
	struct nat_config config = config_of(NAT_ADDRESS_AND_PORT, NAT_ADDRESS_AND_PORT);
	config.ports = NAT_PORTS_STEP;
	config.port_step = 2;
	config.first_port = 3000;
	config.last_port = 3003;
	start(&config);

	const uint16_t first = out(inside(2, 5000), at(1, 4000)).port;
	const uint16_t second = out(inside(2, 5000), at(1, 4001)).port;
	const uint16_t third = out(inside(2, 5000), at(1, 4002)).port;
	assert(second == 3000 + (first - 3000 + 2) % 4);
	assert(third == 3000 + (first - 3000 + 1) % 4 && "first is in use");
}

static void test_ports_stay_in_their_range_and_none_is_given_twice(void)
{
	struct nat_config config = config_of(NAT_ADDRESS_AND_PORT, NAT_ADDRESS_AND_PORT);
	bool was_given[8] = { false };
	struct endpoint from = inside(2, 5000), seen;

	config.first_port = 2000;
	config.last_port = 2007;
	start(&config);
	for (uint16_t i = 0; i < 8; i++) {
		const uint16_t port = out(from, at(1, (uint16_t)(4000 + i))).port;
		assert(port >= 2000 && port <= 2007 && !was_given[port - 2000]);
		was_given[port - 2000] = true;
	}
	const struct endpoint one_more = at(1, 5000);
	assert(nat_out(&nat, now_ns, NAT_UDP, &from, &one_more, &seen) == NAT_FULL);
	assert(nat_out(&nat, now_ns, NAT_TCP, &from, &one_more, &seen) == 0 && "has ports of its own");
}

static void test_the_same_seed_gives_the_same_ports(void)
{
	start_as(NAT_ADDRESS_AND_PORT, NAT_INDEPENDENT);
	const struct endpoint first = out(inside(2, 5000), at(1, 4000));
	start_as(NAT_ADDRESS_AND_PORT, NAT_INDEPENDENT);
	assert(is(out(inside(2, 5000), at(1, 4000)), first));

	struct nat_config config = config_of(NAT_ADDRESS_AND_PORT, NAT_INDEPENDENT);
	config.seed++;
	start(&config);
	assert(!is(out(inside(2, 5000), at(1, 4000)), first));
}

static bool same_address(struct endpoint a, struct endpoint b)
{
	return memcmp(a.ip, b.ip, sizeof(a.ip)) == 0;
}

static void test_a_paired_pool_gives_a_host_one_address_and_an_arbitrary_one_gives_many(void)
{
	struct nat_config config = config_of(NAT_INDEPENDENT, NAT_INDEPENDENT);
	config.addresses[1] = public_ip + 1;
	config.n_addresses = 2;
	start(&config);
	assert(same_address(out(inside(2, 5000), at(1, 4000)), out(inside(2, 5001), at(1, 4000))));
	assert(!same_address(out(inside(2, 5000), at(1, 4000)), out(inside(3, 5000), at(1, 4000))));

	config.is_pool_arbitrary = true;
	start(&config);
	assert(!same_address(out(inside(2, 5000), at(1, 4000)), out(inside(2, 5001), at(1, 4000))));
	assert(is(out(inside(2, 5000), at(1, 4000)), out(inside(2, 5000), at(2, 4000))) && "one mapping");
}

static int turn(struct endpoint from, struct endpoint to, struct endpoint *ret_source)
{
	struct endpoint whom;
	const int r = nat_turn(&nat, now_ns, NAT_UDP, &from, &to, ret_source, &whom);

	assert(r != 0 || is(whom, inside(2, 5000)));
	return r;
}

static void test_a_hairpin_arrives_with_the_source_that_was_asked_for(void)
{
	struct nat_config config = config_of(NAT_INDEPENDENT, NAT_INDEPENDENT);
	struct endpoint source;

	start(&config);
	assert(turn(inside(3, 6000), out(inside(2, 5000), at(1, 4000)), &source) == NAT_NO_HAIRPIN);

	config.hairpin = NAT_HAIRPIN_INTERNAL;
	start(&config);
	assert(turn(inside(3, 6000), out(inside(2, 5000), at(1, 4000)), &source) == 0);
	assert(is(source, inside(3, 6000)));

	config.hairpin = NAT_HAIRPIN_EXTERNAL;
	start(&config);
	assert(turn(inside(3, 6000), out(inside(2, 5000), at(1, 4000)), &source) == 0);
	assert(is(source, out(inside(3, 6000), at(1, 4000))));
}

static void test_a_hairpin_is_filtered_as_what_comes_from_outside(void)
{
	struct nat_config config = config_of(NAT_INDEPENDENT, NAT_ADDRESS_AND_PORT);
	struct endpoint source;

	config.hairpin = NAT_HAIRPIN_EXTERNAL;
	start(&config);
	const struct endpoint two = out(inside(2, 5000), at(1, 4000));
	const struct endpoint three = out(inside(3, 6000), at(1, 4000));
	assert(turn(inside(3, 6000), two, &source) == NAT_FILTERED);
	out(inside(2, 5000), three);
	assert(turn(inside(3, 6000), two, &source) == 0);
}

static void test_a_restarted_nat_has_no_mapping_and_gives_other_ports(void)
{
	start_as(NAT_INDEPENDENT, NAT_INDEPENDENT);
	const struct endpoint mapped = out(inside(2, 5000), at(1, 4000));

	nat_forget(&nat);
	assert(in(at(1, 4000), mapped) == NAT_UNMAPPED);
	assert(nat.counts.mappings == 0 && nat.counts.sessions == 0 && nat.counts.mappings_peak == 1);
	assert(!is(out(inside(2, 5000), at(1, 4000)), mapped));
}

static void test_full_tables_refuse_and_count_until_something_ends(void)
{
	const struct endpoint from = inside(2, 5000);
	struct endpoint seen;

	start_as(NAT_ADDRESS_AND_PORT, NAT_ADDRESS_AND_PORT);
	for (uint16_t i = 0; i < N_MAPPINGS + 10; i++) {
		const struct endpoint to = at(1, (uint16_t)(4000 + i));
		assert(nat_out(&nat, now_ns, NAT_UDP, &from, &to, &seen) == (i < N_MAPPINGS ? 0 : NAT_FULL));
	}
	assert(nat.counts.mappings == N_MAPPINGS && nat.counts.mappings_peak == N_MAPPINGS);
	assert(nat.counts.full == 10);

	now_ns += SECONDS(30);
	out(from, at(2, 4000));
	assert(nat.counts.mappings == 1 && nat.counts.mappings_peak == N_MAPPINGS);
}

static void test_what_one_mapping_asks_is_bounded_by_sessions(void)
{
	const struct endpoint from = inside(2, 5000);
	struct endpoint seen;

	start_as(NAT_INDEPENDENT, NAT_ADDRESS_AND_PORT);
	for (uint16_t i = 0; i < N_SESSIONS + 10; i++) {
		const struct endpoint to = at(1, (uint16_t)(4000 + i));
		assert(nat_out(&nat, now_ns, NAT_UDP, &from, &to, &seen) == (i < N_SESSIONS ? 0 : NAT_FULL));
	}
	assert(nat.counts.mappings == 1 && nat.counts.sessions == N_SESSIONS);
}

static void test_an_error_finds_both_ends_and_changes_nothing(void)
{
	const struct endpoint host = inside(2, 5000), remote = at(1, 4000), stranger = at(2, 4000);
	struct endpoint found;

	start_as(NAT_INDEPENDENT, NAT_ADDRESS_AND_PORT);
	const struct endpoint mapped = out(host, remote);
	now_ns += SECONDS(29);
	assert(nat_find_inside(&nat, now_ns, NAT_UDP, &mapped, &found) && is(found, host));
	assert(nat_find_outside(&nat, now_ns, NAT_UDP, &host, &remote, &found) && is(found, mapped));
	assert(!nat_find_outside(&nat, now_ns, NAT_UDP, &host, &stranger, &found));
	now_ns += SECONDS(1);
	assert(!nat_find_inside(&nat, now_ns, NAT_UDP, &mapped, &found));
	assert(!nat_find_outside(&nat, now_ns, NAT_UDP, &host, &remote, &found));
}

static void test_the_rule_calls_31_of_45_pairs_possible(void)
{
	unsigned n_direct = 0, n = 0;

	for (unsigned a = 0; a < 9; a++)
		for (unsigned b = a; b < 9; b++, n++) {
			const struct nat_rules first = { .mapping = a / 3, .filtering = a % 3 };
			const struct nat_rules second = { .mapping = b / 3, .filtering = b % 3 };
			n_direct += nat_pair_can_be_direct(&first, &second);
			assert(nat_pair_can_be_direct(&first, NULL));
		}
	assert(n == 45 && n_direct == 31);
}

/* ---- two nodes behind two NATs ---- */

struct side {
	struct nat nat;
	struct nat_mapping mappings[N_MAPPINGS];
	struct nat_session sessions[N_SESSIONS];
	struct nat_link buckets[3 * N_BUCKETS];
	struct endpoint host, known; /* known: as a STUN server saw it */
	struct endpoint seen;	     /* where a ping of the other one came from */
	bool has_pong;
};

static void start_side(struct side *side, unsigned type, uint32_t n)
{
	struct nat_config config = config_of((enum nat_behaviour)(type / 3), (enum nat_behaviour)(type % 3));
	const struct nat_tables tables = { side->mappings, side->sessions, side->buckets,
					   N_MAPPINGS,	   N_SESSIONS,	   N_BUCKETS };
	const struct endpoint stun = at(1, 3478);

	memset(side, 0, sizeof(*side));
	config.addresses[0] = public_ip + n;
	config.seed = n;
	nat_init(&side->nat, &config, &tables);
	side->host = inside(2 + n, 5000);
	assert(nat_out(&side->nat, now_ns, NAT_UDP, &side->host, &stun, &side->known) == 0);
}

/* A datagram of one to the other, who sees where it came from, if it came. */
static bool reaches(struct side *from, struct side *to, struct endpoint where)
{
	struct endpoint source, whom;

	if (nat_out(&from->nat, now_ns, NAT_UDP, &from->host, &where, &source) != 0 ||
	    nat_in(&to->nat, now_ns, NAT_UDP, &source, &where, &whom) != 0)
		return false;
	to->seen = source;
	return true;
}

/* To where the other one is known to be, and was seen; it answers to where it sees us. */
static void ping(struct side *from, struct side *to)
{
	const struct endpoint where[] = { to->known, from->seen };

	for (int i = 0; i < 2; i++)
		if (where[i].port && reaches(from, to, where[i]) && reaches(to, from, to->seen))
			from->has_pong = true;
}

static void test_two_nodes_punch_through_where_the_rule_says_so(void)
{
	static struct side one, two;

	now_ns = SECONDS(1000);
	for (unsigned a = 0; a < 9; a++)
		for (unsigned b = 0; b < 9; b++) {
			start_side(&one, a, 1);
			start_side(&two, b, 2);
			for (int round = 0; round < 4; round++) {
				ping(&one, &two);
				ping(&two, &one);
			}
			const bool is_direct = one.has_pong || two.has_pong;
			assert(is_direct == nat_pair_can_be_direct(&one.nat.config.rules[NAT_UDP],
								   &two.nat.config.rules[NAT_UDP]));
		}
}

static void test_a_type_has_one_name(void)
{
	struct nat_rules rules = { 0 };

	assert(nat_parse_type("apdm-adf", &rules.mapping, &rules.filtering) == 0);
	assert(rules.mapping == NAT_ADDRESS_AND_PORT && rules.filtering == NAT_ADDRESS);
	assert(strcmp(nat_name(&rules), "APDM-ADF") == 0);
	assert(nat_parse_type("symmetric", &rules.mapping, &rules.filtering) == -EINVAL);
}

int main(void)
{
	test_the_mapping_depends_on_as_much_of_the_remote_as_its_name_says();
	test_the_filter_lets_in_whom_its_name_says();
	test_who_was_let_in_opens_the_filter_for_nobody();
	test_an_unknown_port_is_nobodys();
	test_an_answer_leaves_by_the_port_its_question_came_in_by();
	test_a_filter_opens_after_its_lag();
	test_a_mapping_ends_when_it_was_not_used_for_its_time();
	test_what_comes_in_need_not_keep_a_mapping();
	test_the_filter_forgets_one_remote_while_another_keeps_the_mapping();
	test_a_port_is_preserved_where_it_is_free();
	test_ports_come_in_steps_and_skip_those_in_use();
	test_ports_stay_in_their_range_and_none_is_given_twice();
	test_the_same_seed_gives_the_same_ports();
	test_a_paired_pool_gives_a_host_one_address_and_an_arbitrary_one_gives_many();
	test_a_hairpin_arrives_with_the_source_that_was_asked_for();
	test_a_hairpin_is_filtered_as_what_comes_from_outside();
	test_a_restarted_nat_has_no_mapping_and_gives_other_ports();
	test_full_tables_refuse_and_count_until_something_ends();
	test_what_one_mapping_asks_is_bounded_by_sessions();
	test_an_error_finds_both_ends_and_changes_nothing();
	test_the_rule_calls_31_of_45_pairs_possible();
	test_two_nodes_punch_through_where_the_rule_says_so();
	test_a_type_has_one_name();
	puts("ok");
}
