/*
 * Whose is a QUIC datagram: who comes anew, who is known, who comes from another address, who has to go. On virtual
 * time; each test is a conversation of which every line says what becomes of the datagram.
 */
#include "relay/frontdoor/quic_flows.h"

#include "common/macros.h"
#include "hello.h"
#include "initial.h"

#include <assert.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SNIFF_MS    10000
#define ASKED_MS    10000
#define ANSWERED_MS 30000
#define IDLE_MS	    120000
#define SPARE_MS    10000
#define CAP	    4096

struct world {
	struct quic_flows *flows;
	uint64_t now_ms;
	struct quic_flow *flow; /* of the last verdict */
	struct quic_answer answer;
	uint32_t n_ended;
	int targets[4]; /* owners of flows are pointers into this */
};

static const struct endpoint target = { .ip = { [10] = 0xff, [11] = 0xff, 10, 0, 0, 1 }, .port = 443 };
static uint8_t message[4 * CAP], frames[4 * CAP], datagram[4 * CAP];
static size_t datagram_len;

static void on_ended(void *owner, struct quic_flow *flow)
{
	struct world *world = owner;

	world->n_ended++;
	if (world->flow == flow)
		world->flow = NULL;
}

static struct quic_flows_options usual(void)
{
	return (struct quic_flows_options){
		.times = { SNIFF_MS, ASKED_MS, ANSWERED_MS, IDLE_MS, SPARE_MS },
		.max_flows = 64, .max_source = 32, .max_paths = 3, .max_kept_bytes = 1 << 20,
		.hellos_per_s = 1000, .hellos_source_per_s = 1000, .negotiations_per_s = 10,
	};
}

static void begin(struct world *world, const struct quic_flows_options *options)
{
	struct quic_flows_options own = options ? *options : usual();

	*world = (struct world){ .now_ms = 86400000 };
	own.owner = world;
	own.ended = on_ended;
	world->flows = quic_flows_new(&own, world->now_ms);
}

static const struct quic_counters *counters(const struct world *world)
{
	return quic_flows_counters(world->flows);
}

/* Everything that was begun has an end. */
static void end(struct world *world)
{
	const uint64_t n = counters(world)->flows_now;

	world->n_ended = 0;
	quic_flows_free(world->flows);
	assert(world->n_ended == n);
}

static void pass_time(struct world *world, uint64_t ms)
{
	world->now_ms += ms;
	quic_flows_expire(world->flows, world->now_ms);
}

/* ---- datagrams ---- */

static struct udp_way visitor(uint32_t n)
{
	const struct endpoint ours = endpoint_from_v4(0xc6336401, 443);
	struct udp_way way = { .remote = endpoint_from_v4(0xc0000200 + n, 4000) };

	memcpy(way.local_ip, ours.ip, sizeof(way.local_ip));
	return way;
}

static enum quic_verdict says(struct world *world, const struct udp_way *way, const uint8_t *bytes, size_t len)
{
	uint8_t *copy = malloc(len > 0 ? len : 1); /* of exactly that size: a read past the end shows */

	assert(copy);
	memcpy(copy, bytes, len);
	world->flow = NULL;
	const enum quic_verdict verdict =
		quic_flows_from_visitor(world->flows, way, copy, len, world->now_ms, &world->flow, &world->answer);
	free(copy);
	return verdict;
}

/* The hello of who wants host, or a part of it, to that ID of eight letters. */
static void make_hello(const char *host, const char *id, uint32_t part, uint32_t n_parts)
{
	const struct hello_options hello = { .names = { host }, .alpn = { "h3" } };
	const size_t len = hello_build(&hello, message, sizeof(message)), size = len / n_parts + 1, at = part * size;
	const size_t n = initial_crypto(at, message + at, at + size < len ? size : len - at, frames, sizeof(frames));
	const struct initial_options options = { .destination = id, .destination_len = 8, .number = part };

	datagram_len = initial_build(&options, frames, n, datagram, sizeof(datagram));
}

static enum quic_verdict asks(struct world *world, const struct udp_way *way, const char *host, const char *id)
{
	make_hello(host, id, 0, 1);
	return says(world, way, datagram, datagram_len);
}

/* Long header: Initial 0, 0-RTT 1, Handshake 2, Retry 3. */
static void make_long(unsigned type, const char *destination, const char *source)
{
	uint8_t *at = datagram;

	*at++ = (uint8_t)(0xc0 | type << 4);
	memcpy(at, "\0\0\0\1", 4);
	at += 4;
	*at++ = (uint8_t)strlen(destination);
	at = mempcpy(at, destination, strlen(destination));
	*at++ = (uint8_t)strlen(source);
	at = mempcpy(at, source, strlen(source));
	memset(at, 0x5a, 40);
	datagram_len = (size_t)(at - datagram) + 40;
}

static void make_short(const char *destination)
{
	datagram[0] = 0x4c;
	memcpy(datagram + 1, destination, strlen(destination));
	memset(datagram + 1 + strlen(destination), 0xa5, 40);
	datagram_len = 1 + strlen(destination) + 40;
}

static enum quic_verdict says_long(struct world *world, const struct udp_way *way, unsigned type, const char *id)
{
	make_long(type, id, "client");
	return says(world, way, datagram, datagram_len);
}

static enum quic_verdict says_short(struct world *world, const struct udp_way *way, const char *id)
{
	make_short(id);
	return says(world, way, datagram, datagram_len);
}

/* The target of that path calls itself so. */
static void answers(struct world *world, struct quic_flow *flow, const char *id)
{
	make_long(2, "client", id);
	quic_flows_from_target(world->flows, flow, datagram, datagram_len, world->now_ms);
}

static struct quic_flow *led(struct world *world, const struct udp_way *way, const char *host, const char *id)
{
	assert(asks(world, way, host, id) == QUIC_LEAD);
	quic_flows_led(world->flows, world->flow, &target, world->now_ms);
	return world->flow;
}

/* A whole handshake; the target calls itself own_id. */
static struct quic_flow *proven(struct world *world, const struct udp_way *way, const char *id, const char *own_id)
{
	struct quic_flow *flow = led(world, way, "app.example.org", id);

	answers(world, flow, own_id);
	assert(says_long(world, way, 2, own_id) == QUIC_PASS && world->flow == flow);
	assert(flow->fsm.state == QUIC_FLOW_PROVEN);
	return flow;
}

/* ---- who comes anew ---- */

static void test_a_hello_in_one_datagram_leads_at_once(void)
{
	struct world world;
	const struct udp_way way = visitor(1);
	size_t len;

	begin(&world, NULL);
	assert(asks(&world, &way, "App.example.org", "firstone") == QUIC_LEAD);
	assert(strcmp(quic_flows_found(world.flow)->host.text, "app.example.org") == 0);
	assert(quic_flows_kept(world.flow, 0, &len) == NULL && counters(&world)->kept_bytes_now == 0);
	quic_flows_led(world.flows, world.flow, &target, world.now_ms);
	struct quic_flow *flow = world.flow;
	assert(asks(&world, &way, "app.example.org", "firstone") == QUIC_PASS && world.flow == flow); /* sent again */
	assert(says_long(&world, &way, 1, "firstone") == QUIC_PASS && world.flow == flow); /* 0-RTT */
	end(&world);
}

static void test_of_several_datagrams_all_are_kept_in_their_order(void)
{
	struct world world;
	const struct udp_way way = visitor(1);
	static uint8_t sent[3][CAP];
	size_t lens[3], len;

	begin(&world, NULL);
	for (uint32_t i = 0; i < 3; i++) {
		if (i == 1)
			make_long(1, "firstone", "client"); /* 0-RTT in between */
		else
			make_hello("app.example.org", "firstone", i / 2, 2);
		memcpy(sent[i], datagram, lens[i] = datagram_len);
		assert(says(&world, &way, datagram, datagram_len) == (i < 2 ? QUIC_KEPT : QUIC_LEAD));
	}
	for (uint32_t i = 0; i < 2; i++) {
		const uint8_t *kept = quic_flows_kept(world.flow, i, &len);
		assert(kept && len == lens[i] && memcmp(kept, sent[i], len) == 0);
	}
	assert(quic_flows_kept(world.flow, 2, &len) == NULL); /* the last is the one at hand */
	quic_flows_led(world.flows, world.flow, &target, world.now_ms);
	assert(counters(&world)->kept_bytes_now == 0 && counters(&world)->sniffing_now == 0);
	end(&world);
}

static void test_half_a_hello_has_its_absolute_time(void)
{
	struct world world;
	const struct udp_way way = visitor(1);

	begin(&world, NULL);
	for (uint64_t ms = 0; ms < SNIFF_MS; ms += 1000) {
		make_hello("app.example.org", "firstone", 0, 2);
		assert(says(&world, &way, datagram, datagram_len) == QUIC_KEPT && counters(&world)->sniffing_now == 1);
		pass_time(&world, 1000);
	}
	assert(counters(&world)->flows_now == 0 && counters(&world)->too_slow == 1);
	assert(counters(&world)->kept_bytes_now == 0);
	end(&world);
}

static void test_what_is_no_beginning_is_dropped_and_leaves_nothing(void)
{
	struct world world;
	const struct udp_way way = visitor(1);

	begin(&world, NULL);
	assert(says_short(&world, &way, "whatever") == QUIC_DROPPED && counters(&world)->stray == 1);
	assert(says_long(&world, &way, 2, "whatever") == QUIC_DROPPED);
	assert(counters(&world)->refused[SNIFFER_QUIC_PACKET] == 1);
	assert(says(&world, &way, (const uint8_t *)"", 0) == QUIC_DROPPED);
	assert(asks(&world, &way, "192.0.2.1", "firstone") == QUIC_DROPPED);
	assert(counters(&world)->refused[SNIFFER_HOST_ADDRESS] == 1);
	assert(counters(&world)->flows == 0);
	end(&world);
}

static void test_who_is_refused_later_is_ended(void)
{
	struct world world;
	const struct udp_way way = visitor(1);

	begin(&world, NULL);
	for (uint32_t part = 0; part < 2; part++) {
		make_hello("192.0.2.1", "firstone", part, 2);
		assert(says(&world, &way, datagram, datagram_len) == (part == 0 ? QUIC_KEPT : QUIC_DROPPED));
	}
	assert(counters(&world)->refused[SNIFFER_HOST_ADDRESS] == 1 && counters(&world)->flows_now == 0);
	end(&world);
}

static void test_one_address_may_have_several_connections(void)
{
	struct world world;
	const struct udp_way way = visitor(1);

	begin(&world, NULL);
	struct quic_flow *one = proven(&world, &way, "firstone", "server-a"), *two = proven(&world, &way, "othertwo", "server-b");
	assert(one != two && one->connection != two->connection);
	assert(says_short(&world, &way, "server-a") == QUIC_PASS && world.flow == one);
	assert(says_short(&world, &way, "server-b") == QUIC_PASS && world.flow == two);
	end(&world);
}

static void test_two_places_of_the_door_are_two_ways(void)
{
	struct world world;
	struct udp_way way = visitor(1), other = way;

	begin(&world, NULL);
	other.socket = 1;
	struct quic_flow *flow = led(&world, &way, "app.example.org", "firstone");
	assert(asks(&world, &other, "app.example.org", "firstone") == QUIC_LEAD && world.flow != flow);
	quic_flows_end(world.flows, world.flow);
	end(&world);
}

/* ---- versions ---- */

static enum quic_verdict asks_in_other_version(struct world *world, const struct udp_way *way, size_t len)
{
	static const uint8_t header[] = "\xc0\x1a\x2a\x3a\x4a\x08" "firstone" "\x04" "self";

	memset(datagram, 0, len);
	memcpy(datagram, header, sizeof(header) - 1);
	return says(world, way, datagram, len);
}

static void test_unknown_versions_are_answered_with_less_than_was_asked(void)
{
	struct world world;
	const struct udp_way way = visitor(1);
	struct quic_header header;

	begin(&world, NULL);
	assert(asks_in_other_version(&world, &way, 1200) == QUIC_NEGOTIATE && world.answer.len < 1200);
	assert(quic_header_decode(world.answer.bytes, world.answer.len, &header) == 0);
	assert(header.type == QUIC_NEGOTIATION && header.destination.len == 4 && header.source.len == 8);
	assert(asks_in_other_version(&world, &way, 1199) == QUIC_DROPPED && counters(&world)->not_negotiated == 1);
	assert(counters(&world)->flows == 0);
	end(&world);
}

static void test_so_many_are_answered_a_second(void)
{
	struct world world;
	const struct udp_way way = visitor(1);
	uint32_t n = 0;

	begin(&world, NULL);
	pass_time(&world, 60000);
	for (uint32_t i = 0; i < 10000; i++) {
		n += asks_in_other_version(&world, &way, 1200) == QUIC_NEGOTIATE;
		pass_time(&world, 1);
	}
	assert(n >= 100 && n <= 100 + 10); /* ten seconds of ten */
	end(&world);
}

static void test_negotiation_from_a_visitor_is_nothing(void)
{
	struct world world;
	const struct udp_way way = visitor(1);

	begin(&world, NULL);
	memset(datagram, 0, 1200);
	datagram[0] = 0x80;
	assert(says(&world, &way, datagram, 1200) == QUIC_DROPPED);
	end(&world);
}

/* ---- who comes from another address ---- */

static void test_who_is_known_by_its_id_has_a_path_more(void)
{
	struct world world;
	const struct udp_way way = visitor(1), moved = visitor(2);

	begin(&world, NULL);
	struct quic_flow *flow = proven(&world, &way, "firstone", "server-a");
	assert(says_short(&world, &moved, "server-a") == QUIC_MOVED && world.flow != flow);
	struct quic_flow *path = world.flow;
	assert(path->connection == flow->connection && endpoint_equal(&path->connection->target, &target));
	assert(says_short(&world, &moved, "server-a") == QUIC_PASS && world.flow == path);
	assert(says_short(&world, &way, "server-a") == QUIC_PASS && world.flow == flow); /* nobody was moved away */
	pass_time(&world, 1);
	answers(&world, path, "server-a");
	assert(says_short(&world, &moved, "server-a") == QUIC_PASS && path->fsm.state == QUIC_FLOW_PROVEN);
	pass_time(&world, IDLE_MS - 1);
	assert(counters(&world)->flows_now == 1); /* the old path is over, the connection is not */
	assert(says_short(&world, &moved, "server-a") == QUIC_PASS && world.flow == path);
	pass_time(&world, IDLE_MS);
	assert(counters(&world)->flows_now == 0 && counters(&world)->connections_now == 0);
	assert(says_short(&world, &moved, "server-a") == QUIC_DROPPED); /* its ID is forgotten */
	end(&world);
}

static void test_also_in_the_middle_of_the_handshake(void)
{
	struct world world;
	const struct udp_way way = visitor(1), moved = visitor(2);

	begin(&world, NULL);
	struct quic_flow *flow = led(&world, &way, "app.example.org", "firstone");
	answers(&world, flow, "server-a");
	assert(says_long(&world, &moved, 2, "server-a") == QUIC_MOVED && world.flow->connection == flow->connection);
	end(&world);
}

static void test_ids_after_a_retry_are_known(void)
{
	struct world world;
	const struct udp_way way = visitor(1);

	begin(&world, NULL);
	struct quic_flow *flow = led(&world, &way, "app.example.org", "firstone");
	make_long(3, "client", "retry-id");
	quic_flows_from_target(world.flows, flow, datagram, datagram_len, world.now_ms);
	assert(asks(&world, &way, "app.example.org", "retry-id") == QUIC_PASS && world.flow == flow);
	end(&world);
}

static void test_an_id_that_was_handed_out_later_is_told_by_its_address_alone(void)
{
	struct world world;
	const struct udp_way way = visitor(1), moved = visitor(2);

	begin(&world, NULL);
	struct quic_flow *flow = proven(&world, &way, "firstone", "server-a");
	assert(says_short(&world, &way, "under-encryption") == QUIC_PASS && world.flow == flow);
	assert(says_short(&world, &moved, "under-encryption") == QUIC_DROPPED && counters(&world)->stray == 1);
	end(&world);
}

static void test_an_id_that_two_targets_have_is_the_firsts(void)
{
	struct world world;
	const struct udp_way one = visitor(1), two = visitor(2), moved = visitor(3);

	begin(&world, NULL);
	struct quic_flow *first = proven(&world, &one, "firstone", "the-same"), *second = led(&world, &two, "app.example.org", "othertwo");
	answers(&world, second, "the-same");
	assert(says_short(&world, &two, "the-same") == QUIC_PASS && world.flow == second);
	assert(says_short(&world, &moved, "the-same") == QUIC_MOVED && world.flow->connection == first->connection);
	end(&world);
}

static void test_short_ids_move_nobody(void)
{
	struct world world;
	const struct udp_way way = visitor(1), moved = visitor(2);

	begin(&world, NULL);
	answers(&world, led(&world, &way, "app.example.org", "firstone"), "abc");
	assert(says_short(&world, &moved, "abc") == QUIC_DROPPED);
	end(&world);
}

static void test_a_connection_has_few_paths(void)
{
	struct world world;
	const struct udp_way way = visitor(1);

	begin(&world, NULL);
	proven(&world, &way, "firstone", "server-a");
	for (uint32_t i = 2; i < 20; i++) {
		const struct udp_way moved = visitor(i);
		assert(says_short(&world, &moved, "server-a") == (i < 4 ? QUIC_MOVED : QUIC_DROPPED));
	}
	assert(counters(&world)->over_paths == 16);
	pass_time(&world, ASKED_MS); /* nobody has answered there */
	assert(counters(&world)->flows_now == 1);
	const struct udp_way later = visitor(30);
	assert(says_short(&world, &later, "server-a") == QUIC_MOVED);
	end(&world);
}

/* ---- time ---- */

static void test_who_has_shown_more_may_be_silent_longer(void)
{
	struct world world;
	const struct udp_way asked = visitor(1), answered = visitor(2), known = visitor(3);

	begin(&world, NULL);
	led(&world, &asked, "app.example.org", "firstone");
	answers(&world, led(&world, &answered, "app.example.org", "othertwo"), "server-b");
	proven(&world, &known, "andthree", "server-c");
	pass_time(&world, ASKED_MS - 1);
	assert(asks(&world, &asked, "app.example.org", "firstone") == QUIC_PASS); /* asking again gains nothing */
	assert(counters(&world)->flows_now == 3);
	pass_time(&world, 1);
	assert(counters(&world)->flows_now == 2);
	pass_time(&world, ANSWERED_MS - ASKED_MS);
	assert(counters(&world)->flows_now == 1 && counters(&world)->proven_now == 1);
	pass_time(&world, IDLE_MS - ANSWERED_MS - 1);
	assert(says_short(&world, &known, "server-c") == QUIC_PASS);
	pass_time(&world, IDLE_MS - 1);
	assert(counters(&world)->flows_now == 1);
	pass_time(&world, 1);
	assert(counters(&world)->flows_now == 0 && counters(&world)->proven_now == 0 && counters(&world)->ended_silent == 3);
	end(&world);
}

static void test_who_says_nothing_of_the_targets_is_never_proven(void)
{
	struct world world;
	const struct udp_way way = visitor(1);

	begin(&world, NULL);
	struct quic_flow *flow = led(&world, &way, "app.example.org", "firstone");
	answers(&world, flow, "server-a");
	for (int i = 0; i < 10; i++) {
		assert(asks(&world, &way, "app.example.org", "firstone") == QUIC_PASS);
		assert(says_short(&world, &way, "guessed-") == QUIC_PASS && flow->fsm.state == QUIC_FLOW_ANSWERED);
	}
	end(&world);
}

static bool answers_at_length(struct world *world, struct quic_flow *flow, const char *id, size_t len)
{
	make_long(2, "client", id);
	memset(datagram + datagram_len, 0x5a, len - datagram_len);
	return quic_flows_from_target(world->flows, flow, datagram, len, world->now_ms);
}

static void test_until_it_is_proven_three_times_what_came_is_passed_back(void)
{
	struct world world;
	const struct udp_way way = visitor(1);

	begin(&world, NULL);
	struct quic_flow *flow = led(&world, &way, "app.example.org", "firstone");
	assert(datagram_len == 1200);
	for (int i = 0; i < 3; i++)
		assert(answers_at_length(&world, flow, "server-a", 1200));
	assert(!answers_at_length(&world, flow, "server-a", 100) && counters(&world)->over_answer == 1);
	assert(asks(&world, &way, "app.example.org", "firstone") == QUIC_PASS);
	assert(answers_at_length(&world, flow, "server-a", 3600));
	assert(!answers_at_length(&world, flow, "server-a", 100) && counters(&world)->over_answer == 2);
	assert(says_long(&world, &way, 2, "server-a") == QUIC_PASS && flow->fsm.state == QUIC_FLOW_PROVEN);
	for (int i = 0; i < 100; i++)
		assert(answers_at_length(&world, flow, "server-a", 1200));
	end(&world);
}

static void test_an_id_that_is_the_visitors_own_or_short_is_no_proof(void)
{
	static const char *const ids[] = { "firstone", "", "abc" };

	for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
		struct world world;
		const struct udp_way way = visitor(1);
		begin(&world, NULL);
		struct quic_flow *flow = led(&world, &way, "app.example.org", "firstone");
		assert(answers_at_length(&world, flow, ids[i], 3600) && !answers_at_length(&world, flow, ids[i], 100));
		assert(says_long(&world, &way, 2, ids[i]) == QUIC_PASS && says_short(&world, &way, ids[i]) == QUIC_PASS);
		assert(flow->fsm.state == QUIC_FLOW_ANSWERED && counters(&world)->proven_now == 0);
		assert(answers_at_length(&world, flow, ids[i], 3600)); /* but such targets are of use */
		end(&world);
	}
}

static void test_one_path_of_a_connection_is_proven(void)
{
	struct world world;
	const struct udp_way way = visitor(1), moved = visitor(2);

	begin(&world, NULL);
	struct quic_flow *flow = proven(&world, &way, "firstone", "server-a");
	assert(says_short(&world, &moved, "server-a") == QUIC_MOVED);
	struct quic_flow *path = world.flow;
	answers(&world, path, "server-a");
	assert(says_short(&world, &moved, "server-a") == QUIC_PASS && path->fsm.state == QUIC_FLOW_PROVEN);
	assert(flow->fsm.state == QUIC_FLOW_ANSWERED && counters(&world)->proven_now == 1);
	assert(says_short(&world, &way, "server-a") == QUIC_PASS && flow->fsm.state == QUIC_FLOW_PROVEN);
	assert(path->fsm.state == QUIC_FLOW_ANSWERED && counters(&world)->proven_now == 1);
	end(&world);
}

/* ---- bounds ---- */

static void test_who_is_proven_stays_when_strangers_fill_the_door(void)
{
	struct quic_flows_options options = usual();
	struct world world;
	const struct udp_way known = visitor(1);

	options.max_flows = 8;
	begin(&world, &options);
	proven(&world, &known, "andthree", "server-c");
	for (uint32_t i = 2; i < 100; i++) {
		const struct udp_way way = visitor(i);
		char id[9];
		snprintf(id, sizeof(id), "id%06u", i);
		answers(&world, led(&world, &way, "app.example.org", id), id);
		assert(counters(&world)->flows_now <= 8);
	}
	assert(counters(&world)->over_limit == 98 + 1 - 8);
	assert(says_short(&world, &known, "server-c") == QUIC_PASS);
	end(&world);
}

static void test_when_all_are_proven_the_one_silent_longest_goes(void)
{
	struct quic_flows_options options = usual();
	struct world world;
	const struct udp_way one = visitor(1), two = visitor(2), three = visitor(3);

	options.max_flows = 2;
	begin(&world, &options);
	proven(&world, &one, "firstone", "server-a");
	proven(&world, &two, "othertwo", "server-b");
	assert(asks(&world, &three, "app.example.org", "andthree") == QUIC_DROPPED); /* both speak */
	assert(counters(&world)->over_limit == 1);
	pass_time(&world, SPARE_MS);
	assert(says_short(&world, &one, "server-a") == QUIC_PASS);
	led(&world, &three, "app.example.org", "andthree");
	assert(says_short(&world, &one, "server-a") == QUIC_PASS);
	assert(says_short(&world, &two, "server-b") == QUIC_DROPPED);
	end(&world);
}

static void test_a_path_that_makes_room_for_the_next_of_its_connection_leaves_it_whole(void)
{
	struct quic_flows_options options = usual();
	struct world world;
	const struct udp_way one = visitor(1), two = visitor(2);

	options.max_flows = 1;
	begin(&world, &options);
	proven(&world, &one, "firstone", "server-a");
	pass_time(&world, SPARE_MS);
	assert(says_short(&world, &two, "server-a") == QUIC_MOVED && counters(&world)->flows_now == 1);
	assert(endpoint_equal(&world.flow->connection->target, &target) && counters(&world)->connections_now == 1);
	end(&world);
}

static void test_one_address_and_port_has_few_paths(void)
{
	struct world world;
	const struct udp_way way = visitor(1);
	char id[9];

	begin(&world, NULL);
	struct quic_flow *flow = proven(&world, &way, "firstone", "server-a");
	for (uint32_t i = 1; i <= 30; i++) {
		snprintf(id, sizeof(id), "id%06u", i);
		led(&world, &way, "app.example.org", id);
		assert(counters(&world)->flows_now <= QUIC_PATHS_OF_ONE);
	}
	assert(counters(&world)->over_port == 31 - QUIC_PATHS_OF_ONE);
	assert(says_short(&world, &way, "server-a") == QUIC_PASS && world.flow == flow);
	assert(asks(&world, &way, "app.example.org", id) == QUIC_PASS); /* who came last is there */
	end(&world);
}

static void test_one_address_and_port_whose_paths_are_all_proven_has_no_more(void)
{
	struct world world;
	const struct udp_way way = visitor(1);
	char id[9], own_id[9];

	begin(&world, NULL);
	for (uint32_t i = 0; i < QUIC_PATHS_OF_ONE; i++) {
		snprintf(id, sizeof(id), "id%06u", i);
		snprintf(own_id, sizeof(own_id), "own%05u", i);
		proven(&world, &way, id, own_id);
	}
	assert(asks(&world, &way, "app.example.org", "onemore!") == QUIC_DROPPED && counters(&world)->over_port == 1);
	pass_time(&world, SPARE_MS);
	led(&world, &way, "app.example.org", "onemore!");
	assert(counters(&world)->flows_now == QUIC_PATHS_OF_ONE);
	end(&world);
}

static void test_one_source_has_its_share(void)
{
	struct quic_flows_options options = usual();
	struct world world;
	struct udp_way way = visitor(1);
	char id[9];

	options.max_source = 3;
	begin(&world, &options);
	for (uint16_t i = 0; i < 10; i++) {
		way.remote.port = (uint16_t)(4000 + i);
		snprintf(id, sizeof(id), "id%06u", i);
		if (i < 3)
			led(&world, &way, "app.example.org", id);
		else
			assert(asks(&world, &way, "app.example.org", id) == QUIC_DROPPED);
	}
	assert(counters(&world)->over_source_limit == 7);
	const struct udp_way other = visitor(2);
	led(&world, &other, "app.example.org", "othertwo");
	end(&world);
}

/* From 2001:db8:0:SUBNET::LAST; of a /56 the last eight bits of SUBNET are its own. */
static struct udp_way visitor6(uint8_t network, uint8_t subnet, uint8_t last)
{
	return (struct udp_way){
		.remote = { .ip = { 0x20, 0x01, 0x0d, 0xb8, 0, 0, network, subnet, [15] = last }, .port = 4000 }
	};
}

static void test_an_ipv6_56_is_one_source(void)
{
	struct quic_flows_options options = usual();
	struct udp_way way;
	struct world world;
	char id[9];

	options.max_source = 3;
	options.hellos_source_per_s = 10;
	begin(&world, &options);
	for (uint32_t i = 0; i < 256; i++) {
		way = visitor6(1, (uint8_t)i, (uint8_t)(i * 7));
		snprintf(id, sizeof(id), "id%06u", i);
		if (i < 3)
			led(&world, &way, "app.example.org", id);
		else
			assert(asks(&world, &way, "app.example.org", id) == QUIC_DROPPED);
	}
	assert(counters(&world)->over_source_limit == 17 && counters(&world)->over_rate == 236); /* twice the rate at once */
	uint32_t n_neighbours = 0;
	for (uint8_t i = 0; i < 8; i++) {
		way = visitor6((uint8_t)(2 + i), 0, 0);
		n_neighbours += asks(&world, &way, "app.example.org", "othertwo") == QUIC_LEAD;
		if (world.flow)
			quic_flows_led(world.flows, world.flow, &target, world.now_ms);
	}
	assert(n_neighbours >= 6); /* few share a bucket */
	end(&world);
}

static void test_memory_for_half_hellos_is_bounded(void)
{
	struct quic_flows_options options = usual();
	struct world world;
	char id[9];

	options.max_kept_bytes = 200000;
	begin(&world, &options);
	for (uint32_t i = 1; i <= 60; i++) {
		const struct udp_way way = visitor(i);
		snprintf(id, sizeof(id), "id%06u", i);
		make_hello("app.example.org", id, 0, 2);
		assert(says(&world, &way, datagram, datagram_len) == QUIC_KEPT);
		assert(counters(&world)->kept_bytes_now <= 200000);
	}
	assert(counters(&world)->over_limit > 40);
	const struct udp_way last = visitor(60); /* who has come last is there */
	make_hello("app.example.org", id, 1, 2);
	assert(says(&world, &last, datagram, datagram_len) == QUIC_LEAD);
	quic_flows_end(world.flows, world.flow);
	end(&world);
}

static void test_hellos_without_end_are_refused(void)
{
	struct world world;
	const struct udp_way way = visitor(1);
	enum quic_verdict verdict = QUIC_KEPT;
	int n = 0;

	begin(&world, NULL);
	for (; verdict == QUIC_KEPT; n++) {
		make_hello("app.example.org", "firstone", 0, 2);
		verdict = says(&world, &way, datagram, datagram_len);
	}
	assert(verdict == QUIC_DROPPED && n <= QUIC_MAX_DATAGRAMS + 1);
	assert(counters(&world)->refused[SNIFFER_TOO_LONG] == 1 && counters(&world)->flows_now == 0);
	end(&world);
}

static void test_so_many_hellos_are_opened_a_second(void)
{
	struct quic_flows_options options = usual();
	struct world world;
	uint32_t n = 0;
	char id[9];

	options.hellos_per_s = 100;
	begin(&world, &options);
	for (uint32_t i = 0; i < 1000; i++) {
		const struct udp_way way = visitor(i % 250);
		snprintf(id, sizeof(id), "id%06u", i);
		if (asks(&world, &way, "app.example.org", id) == QUIC_LEAD) {
			quic_flows_end(world.flows, world.flow);
			n++;
		}
		pass_time(&world, 1);
	}
	assert(n >= 100 && n <= 125 && counters(&world)->over_rate == 1000 - n);
	end(&world);
}

static void test_what_goes_on_with_a_hello_and_what_moves_is_of_the_rate_too(void)
{
	struct quic_flows_options options = usual();
	struct world world;
	const struct udp_way way = visitor(1), moved = visitor(2);

	options.hellos_source_per_s = 2; /* four at once */
	begin(&world, &options);
	for (int i = 0; i < 6; i++) {
		make_hello("app.example.org", "firstone", 0, 2);
		assert(says(&world, &way, datagram, datagram_len) == (i < 4 ? QUIC_KEPT : QUIC_DROPPED));
	}
	assert(counters(&world)->over_rate == 2 && counters(&world)->flows_now == 1);
	pass_time(&world, 2000);
	proven(&world, &way, "othertwo", "server-a");
	for (int i = 0; i < 6; i++) {
		assert(says_short(&world, &moved, "server-a") == (i < 4 ? QUIC_MOVED : QUIC_DROPPED));
		if (world.flow)
			quic_flows_end(world.flows, world.flow);
	}
	assert(counters(&world)->over_rate == 4);
	end(&world);
}

static void test_a_connection_that_moves_on_leaves_its_oldest_path(void)
{
	struct world world;
	const struct udp_way way = visitor(1);

	begin(&world, NULL);
	proven(&world, &way, "firstone", "server-a");
	for (uint32_t i = 2; i < 20; i++) { /* a NAT that takes another port every two seconds */
		const struct udp_way moved = visitor(i);
		pass_time(&world, 2000);
		assert(says_short(&world, &moved, "server-a") == QUIC_MOVED);
		struct quic_flow *path = world.flow;
		answers(&world, path, "server-a");
		assert(says_short(&world, &moved, "server-a") == QUIC_PASS && world.flow == path);
		assert(counters(&world)->flows_now <= 3 && counters(&world)->proven_now == 1);
	}
	assert(counters(&world)->over_paths == 16);
	end(&world);
}

static void test_paths_that_were_not_answered_go_first(void)
{
	struct world world;
	const struct udp_way way = visitor(1), forged = visitor(2), other = visitor(3), moved = visitor(4);

	begin(&world, NULL);
	struct quic_flow *flow = proven(&world, &way, "firstone", "server-a");
	pass_time(&world, 1000);
	assert(says_short(&world, &forged, "server-a") == QUIC_MOVED && says_short(&world, &other, "server-a") == QUIC_MOVED);
	pass_time(&world, 1000);
	assert(says_short(&world, &moved, "server-a") == QUIC_MOVED);
	assert(says_short(&world, &way, "server-a") == QUIC_PASS && world.flow == flow);
	end(&world);
}

static void test_who_has_a_path_is_not_led_away_by_a_few_bytes_or_dropped_by_more(void)
{
	struct world world;
	const struct udp_way way = visitor(1), other = visitor(2), third = visitor(3);

	begin(&world, NULL);
	proven(&world, &other, "othertwo", "srvc");
	proven(&world, &third, "andthree", "server-c");
	struct quic_flow *flow = proven(&world, &way, "firstone", "server-a");
	assert(says_short(&world, &way, "srvc-under-encryption") == QUIC_PASS && world.flow == flow);
	for (uint32_t i = 4; i < 6; i++) {
		const struct udp_way moved = visitor(i);
		assert(says_short(&world, &moved, "server-c") == QUIC_MOVED);
	}
	assert(says_short(&world, &way, "server-c") == QUIC_PASS && world.flow == flow); /* that one has no path more */
	end(&world);
}

int main(void)
{
	assert(sodium_init() >= 0);
	test_a_connection_that_moves_on_leaves_its_oldest_path();
	test_paths_that_were_not_answered_go_first();
	test_who_has_a_path_is_not_led_away_by_a_few_bytes_or_dropped_by_more();
	test_what_goes_on_with_a_hello_and_what_moves_is_of_the_rate_too();
	test_one_address_and_port_has_few_paths();
	test_one_address_and_port_whose_paths_are_all_proven_has_no_more();
	test_until_it_is_proven_three_times_what_came_is_passed_back();
	test_an_id_that_is_the_visitors_own_or_short_is_no_proof();
	test_one_path_of_a_connection_is_proven();
	test_a_hello_in_one_datagram_leads_at_once();
	test_of_several_datagrams_all_are_kept_in_their_order();
	test_half_a_hello_has_its_absolute_time();
	test_what_is_no_beginning_is_dropped_and_leaves_nothing();
	test_who_is_refused_later_is_ended();
	test_one_address_may_have_several_connections();
	test_two_places_of_the_door_are_two_ways();
	test_unknown_versions_are_answered_with_less_than_was_asked();
	test_so_many_are_answered_a_second();
	test_negotiation_from_a_visitor_is_nothing();
	test_who_is_known_by_its_id_has_a_path_more();
	test_also_in_the_middle_of_the_handshake();
	test_ids_after_a_retry_are_known();
	test_an_id_that_was_handed_out_later_is_told_by_its_address_alone();
	test_an_id_that_two_targets_have_is_the_firsts();
	test_short_ids_move_nobody();
	test_a_connection_has_few_paths();
	test_who_has_shown_more_may_be_silent_longer();
	test_who_says_nothing_of_the_targets_is_never_proven();
	test_who_is_proven_stays_when_strangers_fill_the_door();
	test_when_all_are_proven_the_one_silent_longest_goes();
	test_a_path_that_makes_room_for_the_next_of_its_connection_leaves_it_whole();
	test_one_source_has_its_share();
	test_an_ipv6_56_is_one_source();
	test_memory_for_half_hellos_is_bounded();
	test_hellos_without_end_are_refused();
	test_so_many_hellos_are_opened_a_second();
	return 0;
}
