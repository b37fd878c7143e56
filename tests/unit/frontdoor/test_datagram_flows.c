#undef NDEBUG
#include "relay/frontdoor/datagram_flows.h"

#include <assert.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#define ASKED_MS    1000
#define ANSWERED_MS 3000
#define TALKING_MS  12000

struct world {
	struct datagram_flows *flows;
	uint32_t n_ended;
	uint64_t now_ms;
};

static void on_ended(void *owner, struct datagram_flow *flow)
{
	(void)flow;
	((struct world *)owner)->n_ended++;
}

static struct world world_of(struct world *world, uint32_t max_flows, uint32_t max_source, uint32_t per_s)
{
	const struct datagram_flows_options options = { .times_ms = { ASKED_MS, ANSWERED_MS, TALKING_MS },
							.max_flows = max_flows,
							.max_source = max_source,
							.begun_per_s = per_s,
							.begun_source_per_s = per_s,
							.owner = world,
							.ended = on_ended };

	*world = (struct world){ .now_ms = 1000000 };
	world->flows = datagram_flows_new(&options, world->now_ms);
	return *world;
}

static struct udp_way way_of(uint32_t ip, uint16_t port)
{
	return (struct udp_way){ .remote = endpoint_from_v4(ip, port), .socket = 1 };
}

/* NULL: dropped. */
static struct datagram_flow *say_to(struct world *world, uint16_t to, uint32_t ip, uint16_t port, enum datagram_verdict expected)
{
	const struct udp_way way = { .remote = endpoint_from_v4(ip, port), .socket = to };
	struct datagram_flow *flow = NULL;

	assert(datagram_flows_from_visitor(world->flows, &way, &way.remote, to, world->now_ms, &flow) == expected);
	return flow;
}

/* NULL: dropped. */
static struct datagram_flow *say(struct world *world, uint32_t ip, uint16_t port, enum datagram_verdict expected)
{
	const struct udp_way way = way_of(ip, port);
	struct datagram_flow *flow = NULL;

	assert(datagram_flows_from_visitor(world->flows, &way, &way.remote, 53, world->now_ms, &flow) == expected);
	return flow;
}

static void test_one_address_and_port_is_one_flow(void)
{
	struct world world;
	world_of(&world, 10, 10, 100);

	struct datagram_flow *flow = say(&world, 1, 1000, DATAGRAM_BEGUN);
	assert(say(&world, 1, 1000, DATAGRAM_PASS) == flow);
	assert(say(&world, 1, 1001, DATAGRAM_BEGUN) != flow);
	assert(say(&world, 2, 1000, DATAGRAM_BEGUN) != flow);
	/* Another address of ours, or another of our sockets, is another one's answer. */
	struct udp_way way = way_of(1, 1000);
	way.local_ip[15] = 7;
	assert(datagram_flows_from_visitor(world.flows, &way, &way.remote, 53, world.now_ms, &flow) == DATAGRAM_BEGUN);
	way = way_of(1, 1000);
	way.socket = 2;
	assert(datagram_flows_from_visitor(world.flows, &way, &way.remote, 53, world.now_ms, &flow) == DATAGRAM_BEGUN);
	assert(datagram_flows_counters(world.flows)->flows_now == 5);
	datagram_flows_free(world.flows);
	assert(world.n_ended == 5);
}

static void test_a_socket_of_a_door_that_speaks_for_another_is_another_flow(void)
{
	struct world world;
	const struct udp_way way = way_of(9, 4000);
	const struct endpoint one = endpoint_from_v4(1, 1), other = endpoint_from_v4(2, 1);
	struct datagram_flow *flow;
	world_of(&world, 10, 10, 100);

	assert(datagram_flows_from_visitor(world.flows, &way, &one, 53, world.now_ms, &flow) == DATAGRAM_BEGUN);
	assert(datagram_flows_from_visitor(world.flows, &way, &one, 53, world.now_ms, &flow) == DATAGRAM_PASS);
	assert(datagram_flows_from_visitor(world.flows, &way, &other, 53, world.now_ms, &flow) == DATAGRAM_BEGUN);
	assert(world.n_ended == 1 && endpoint_equal(&flow->visitor, &other));
	assert(datagram_flows_from_visitor(world.flows, &way, &other, 54, world.now_ms, &flow) == DATAGRAM_BEGUN);
	assert(world.n_ended == 2 && flow->port == 54 && datagram_flows_counters(world.flows)->flows_now == 1);
	struct udp_way another = way;
	another.remote.port++;
	assert(!datagram_flows_end_of(world.flows, &way, &one, 54) && !datagram_flows_end_of(world.flows, &way, &other, 53));
	assert(!datagram_flows_end_of(world.flows, &another, &other, 54) && world.n_ended == 2);
	assert(datagram_flows_end_of(world.flows, &way, &other, 54) && world.n_ended == 3);
	datagram_flows_free(world.flows);
}

static void test_a_flow_lives_by_what_its_visitor_sends(void)
{
	struct world world;
	world_of(&world, 10, 10, 100);

	struct datagram_flow *flow = say(&world, 1, 1, DATAGRAM_BEGUN);
	assert(datagram_flows_expire(world.flows, world.now_ms) == world.now_ms + ASKED_MS);
	world.now_ms += ASKED_MS - 1;
	datagram_flows_from_target(world.flows, flow);
	assert(datagram_flows_expire(world.flows, world.now_ms + ANSWERED_MS - ASKED_MS) == world.now_ms + 1 + ANSWERED_MS - ASKED_MS);
	datagram_flows_from_target(world.flows, flow); /* does not keep it */
	say(&world, 1, 1, DATAGRAM_PASS);
	assert(flow->state == DATAGRAM_TALKING);
	assert(datagram_flows_expire(world.flows, world.now_ms) == world.now_ms + TALKING_MS);
	datagram_flows_from_target(world.flows, flow);
	assert(flow->state == DATAGRAM_TALKING);
	assert(datagram_flows_expire(world.flows, world.now_ms + TALKING_MS) == UINT64_MAX && world.n_ended == 1);
	datagram_flows_free(world.flows);
}

static void test_the_first_to_be_over_is_the_first_that_was_heard_whatever_answers_first(void)
{
	struct world world;
	world_of(&world, 10, 10, 100);

	struct datagram_flow *first = say(&world, 1, 1, DATAGRAM_BEGUN);
	world.now_ms += 10;
	struct datagram_flow *second = say(&world, 2, 1, DATAGRAM_BEGUN);
	datagram_flows_from_target(world.flows, second);
	datagram_flows_from_target(world.flows, first);
	world.now_ms += ANSWERED_MS - 10;
	assert(datagram_flows_expire(world.flows, world.now_ms) == world.now_ms + 10 && world.n_ended == 1);
	say(&world, 1, 1, DATAGRAM_BEGUN);
	datagram_flows_free(world.flows);
}

static void test_when_places_are_taken_who_talks_keeps_his(void)
{
	struct world world;
	world_of(&world, 3, 2, 100);

	struct datagram_flow *talking = say(&world, 1, 1, DATAGRAM_BEGUN);
	datagram_flows_from_target(world.flows, talking);
	say(&world, 1, 1, DATAGRAM_PASS);
	world.now_ms++;
	say(&world, 2, 1, DATAGRAM_BEGUN);
	say(&world, 3, 1, DATAGRAM_BEGUN);
	say(&world, 4, 1, DATAGRAM_BEGUN); /* in place of 2 */
	assert(world.n_ended == 1 && datagram_flows_counters(world.flows)->flows_now == 3);
	say(&world, 1, 1, DATAGRAM_PASS);
	/* Of its own source: two at most. */
	say(&world, 4, 2, DATAGRAM_BEGUN);
	say(&world, 4, 3, DATAGRAM_BEGUN);
	assert(datagram_flows_counters(world.flows)->flows_now == 3 && datagram_flows_counters(world.flows)->evicted == 3);
	say(&world, 1, 1, DATAGRAM_PASS);
	datagram_flows_free(world.flows);
}

static void test_nobody_comes_in_when_all_talk_and_one_that_was_silent_makes_room(void)
{
	struct world world;
	world_of(&world, 2, 1, 100);

	for (uint32_t ip = 1; ip <= 2; ip++) {
		struct datagram_flow *flow = say(&world, ip, 1, DATAGRAM_BEGUN);
		datagram_flows_from_target(world.flows, flow);
		say(&world, ip, 1, DATAGRAM_PASS);
	}
	say(&world, 3, 1, DATAGRAM_DROPPED);
	assert(datagram_flows_counters(world.flows)->over_limit == 1);
	say(&world, 1, 2, DATAGRAM_DROPPED);
	assert(datagram_flows_counters(world.flows)->over_source_limit == 1);
	world.now_ms += ANSWERED_MS;
	say(&world, 3, 1, DATAGRAM_BEGUN);
	datagram_flows_free(world.flows);
}

static void test_so_many_begin_a_second(void)
{
	struct world world;
	world_of(&world, 1000, 1000, 10);

	for (uint16_t port = 1; port <= 20; port++)
		say(&world, 1, port, DATAGRAM_BEGUN);
	say(&world, 1, 21, DATAGRAM_DROPPED);
	say(&world, 2, 1, DATAGRAM_DROPPED); /* of all, too */
	say(&world, 1, 1, DATAGRAM_PASS);    /* who is there is not asked */
	assert(datagram_flows_counters(world.flows)->over_rate == 2);
	world.now_ms += 100;
	say(&world, 3, 1, DATAGRAM_BEGUN);
	datagram_flows_free(world.flows);
}

/* n flows from `ip` on to that port, each TALKING. */
static void talk(struct world *world, uint16_t to, uint32_t ip, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		datagram_flows_from_target(world->flows, say_to(world, to, ip + i, 1, DATAGRAM_BEGUN));
		say_to(world, to, ip + i, 1, DATAGRAM_PASS);
	}
}

static void test_a_port_whose_flows_take_all_places_gives_those_above_its_share_to_others(void)
{
	struct world world;
	world_of(&world, 8, 8, 100);

	talk(&world, 53, 1, 8); /* nobody else is there: all are its own */
	say_to(&world, 53, 20, 1, DATAGRAM_DROPPED);
	talk(&world, 54, 100, 4); /* of two ports each has half */
	assert(datagram_flows_counters(world.flows)->flows_now == 8 && world.n_ended == 4);
	say_to(&world, 54, 110, 1, DATAGRAM_DROPPED);
	say_to(&world, 53, 20, 1, DATAGRAM_DROPPED);
	assert(datagram_flows_counters(world.flows)->over_limit == 3);
	for (uint32_t ip = 5; ip <= 8; ip++) /* those that were heard last have stayed */
		say_to(&world, 53, ip, 1, DATAGRAM_PASS);
	talk(&world, 55, 200, 2); /* of three: two each, and two above it that stay where they are */
	say_to(&world, 55, 210, 1, DATAGRAM_DROPPED);
	assert(datagram_flows_counters(world.flows)->flows_now == 8 && world.n_ended == 6);
	datagram_flows_free(world.flows);
}

static void test_a_port_above_its_share_takes_no_place_of_one_below(void)
{
	struct world world;
	world_of(&world, 8, 8, 100);

	struct datagram_flow *asked = say_to(&world, 54, 100, 1, DATAGRAM_BEGUN); /* makes room first, were it not below */
	for (uint32_t ip = 1; ip <= 30; ip++)
		say_to(&world, 53, ip, 1, DATAGRAM_BEGUN);
	assert(say_to(&world, 54, 100, 1, DATAGRAM_PASS) == asked);
	assert(datagram_flows_counters(world.flows)->flows_now == 8 && world.n_ended == 23);
	datagram_flows_free(world.flows);
}

static void test_some_of_each_port_begin_whatever_begins_at_others(void)
{
	struct world world;
	const struct datagram_flows_options options = { .times_ms = { ASKED_MS, ANSWERED_MS, TALKING_MS },
							.max_flows = 1000,
							.max_source = 1000,
							.begun_per_s = 10,
							.begun_source_per_s = 1000,
							.begun_port_per_s = 2,
							.owner = &world,
							.ended = on_ended };
	world = (struct world){ .now_ms = 1000000 };
	world.flows = datagram_flows_new(&options, world.now_ms);

	for (uint32_t ip = 1; ip <= 24; ip++)
		say_to(&world, 53, ip, 1, DATAGRAM_BEGUN);
	say_to(&world, 53, 25, 1, DATAGRAM_DROPPED);
	for (uint32_t ip = 1; ip <= 4; ip++)
		say_to(&world, 54, ip, 1, DATAGRAM_BEGUN);
	say_to(&world, 54, 5, 1, DATAGRAM_DROPPED);
	datagram_flows_free(world.flows);
}

static bool is_of_two(const void *context, const struct datagram_flow *flow)
{
	const struct endpoint two = endpoint_from_v4(2, 1);

	(void)context;
	return endpoint_equal(&flow->visitor, &two);
}

/* From 2001:db8:0:SUBNET::LAST; of a /56 the last eight bits of SUBNET are its own. */
static enum datagram_verdict say6(struct world *world, uint8_t network, uint8_t subnet, uint8_t last)
{
	const struct udp_way way = {
		.remote = { .ip = { 0x20, 0x01, 0x0d, 0xb8, 0, 0, network, subnet, [15] = last }, .port = 1000 }, .socket = 1
	};
	struct datagram_flow *flow;

	return datagram_flows_from_visitor(world->flows, &way, &way.remote, 53, world->now_ms, &flow);
}

static void test_an_ipv6_56_is_one_source(void)
{
	struct world world;

	world_of(&world, 100, 4, 1000); /* places: the oldest of its own makes room */
	assert(say6(&world, 2, 0, 1) == DATAGRAM_BEGUN);
	for (uint32_t i = 0; i < 256; i++)
		assert(say6(&world, 1, (uint8_t)i, 1) == DATAGRAM_BEGUN);
	assert(datagram_flows_counters(world.flows)->flows_now == 5 && datagram_flows_counters(world.flows)->evicted == 252);
	assert(say6(&world, 2, 0, 1) == DATAGRAM_PASS);
	datagram_flows_free(world.flows);

	world_of(&world, 1000, 1000, 5); /* the rate */
	uint32_t n = 0;
	for (uint32_t i = 0; i < 256; i++)
		n += say6(&world, 1, (uint8_t)i, 2) == DATAGRAM_BEGUN;
	assert(n == 10);
	datagram_flows_free(world.flows);
}

static void test_some_may_be_ended(void)
{
	struct world world;
	world_of(&world, 10, 10, 100);

	for (uint32_t ip = 1; ip <= 3; ip++)
		say(&world, ip, 1, DATAGRAM_BEGUN);
	datagram_flows_end_some(world.flows, is_of_two, NULL);
	assert(world.n_ended == 1);
	say(&world, 2, 1, DATAGRAM_BEGUN);
	say(&world, 1, 1, DATAGRAM_PASS);
	datagram_flows_free(world.flows);
}

int main(void)
{
	assert(sodium_init() >= 0);
	test_one_address_and_port_is_one_flow();
	test_a_socket_of_a_door_that_speaks_for_another_is_another_flow();
	test_a_flow_lives_by_what_its_visitor_sends();
	test_the_first_to_be_over_is_the_first_that_was_heard_whatever_answers_first();
	test_when_places_are_taken_who_talks_keeps_his();
	test_nobody_comes_in_when_all_talk_and_one_that_was_silent_makes_room();
	test_so_many_begin_a_second();
	test_a_port_whose_flows_take_all_places_gives_those_above_its_share_to_others();
	test_a_port_above_its_share_takes_no_place_of_one_below();
	test_some_of_each_port_begin_whatever_begins_at_others();
	test_an_ipv6_56_is_one_source();
	test_some_may_be_ended();
	puts("ok");
	return 0;
}
