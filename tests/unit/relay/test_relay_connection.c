/*
 * The client side of a relay connection: finds its relay, notices quickly that it is gone, comes back by
 * itself, and lets nobody pass for the relay.
 */
#include "relay/tcp_listener.h"
#include "world.h"

#include <openssl/ssl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* A listener that hands what it accepts to the test. */
struct trap {
	struct world *world;
	struct tcp_listener listener;
	int fd; /* the last accepted, or -1 */
	uint32_t n_accepted;
	bool closed;
};

static void on_accepted(void *owner, int fd, const struct endpoint *remote)
{
	struct trap *trap = owner;

	(void)remote;
	trap->fd = fd;
	trap->n_accepted++;
}

static void trap_open(struct trap *trap, struct world *world, const char *ip, uint16_t port)
{
	const struct tcp_listener_ports ports = { trap, on_accepted };
	struct endpoint address;

	*trap = (struct trap){ .world = world, .fd = -1 };
	EXPECT(endpoint_parse_ip(ip, port, &address) == 0);
	EXPECT(tcp_listener_open(&trap->listener, &world->loop, &address, NULL, &ports, NULL) == 0);
}

static void on_trap_closed(void *owner)
{
	((struct trap *)owner)->closed = true;
}

static void trap_close(struct trap *trap)
{
	tcp_listener_close(&trap->listener, on_trap_closed);
	AWAIT(trap->world, trap->closed);
}

static enum relay_connection_state state_of(const struct member *member)
{
	return relay_connection_state(member->connection);
}

static void test_it_comes_back_after_the_relay_was_restarted(void)
{
	struct world w;
	struct member alice;
	world_begin(&w);
	start_server(&w);
	make_member(&alice, &w, "alice", 1);
	connect_and_await(&alice);

	stop_server(&w);
	AWAIT(&w, alice.n_lost == 1);
	EXPECT(strcmp(alice.why, relay_closing_reason_text(RELAY_CLOSING_RESTART)) == 0);
	EXPECT(state_of(&alice) == RELAY_CONNECTION_BACKING_OFF);
	EXPECT(relay_connection_send(alice.connection, &alice.key, (const uint8_t *)"x", 1) == -ENOTCONN);
	AWAIT(&w, alice.n_lost == 3); /* tries while there is nobody */
	start_server(&w);
	AWAIT(&w, alice.n_ready == 2);
	EXPECT(relay_connection_counters(alice.connection).dropped_not_ready == 1);

	close_member(&alice);
	world_end(&w);
}

static void test_it_backs_off_further_each_time(void)
{
	struct world w;
	struct member alice;
	uint64_t at_ms[6];
	world_begin(&w);
	w.port = 1; /* nobody listens */
	make_member(&alice, &w, "alice", 1);
	connect_member(&alice);

	for (uint32_t i = 0; i < 5; i++) {
		AWAIT(&w, alice.n_lost == i + 1);
		at_ms[i] = uv_now(&w.loop);
	}
	/* 0.2, 0.4, 0.8, 1.6 s, of which half is random */
	for (uint32_t i = 1; i < 5; i++) {
		uint64_t wait_ms = at_ms[i] - at_ms[i - 1], most_ms = 100u << i;
		EXPECT(wait_ms >= most_ms / 2 && wait_ms <= most_ms + 100);
	}
	/* Who needs it now does not wait. */
	relay_connection_poke(alice.connection);
	uint64_t poked_ms = uv_now(&w.loop);
	AWAIT(&w, alice.n_lost == 6);
	EXPECT(uv_now(&w.loop) - poked_ms < 100);

	close_member(&alice);
	world_end(&w);
}

static void connect_with(struct member *member, const struct map_relay *relay)
{
	connect_member(member);
	struct relay_connection_options options = member->options;

	relay_connection_close(member->connection, NULL, NULL);
	options.relay = *relay;
	EXPECT(relay_connection_new(&options, &member->connection) == 0);
}

static void test_of_several_addresses_the_first_that_works_wins(void)
{
	struct world w;
	struct member alice;
	struct trap trap;
	world_begin(&w);
	start_server(&w);
	make_member(&alice, &w, "alice", 1);
	trap_open(&trap, &w, "127.0.0.9", w.port); /* accepts, and never says a word */

	struct map_relay relay = relay_at(&w);
	relay.n_addresses = 3;
	EXPECT(endpoint_parse_ip("127.0.0.8", 0, &relay.addresses[0]) == 0); /* refuses */
	EXPECT(endpoint_parse_ip("127.0.0.9", 0, &relay.addresses[1]) == 0);
	EXPECT(endpoint_parse_ip("127.0.0.1", 0, &relay.addresses[2]) == 0);
	uint64_t begin_ms = uv_hrtime() / 1000000;
	connect_with(&alice, &relay);
	AWAIT(&w, alice.n_ready == 1);
	EXPECT(uv_hrtime() / 1000000 - begin_ms < 1500 && alice.n_lost == 0);
	EXPECT(trap.n_accepted == 1);
	struct endpoint remote = relay_connection_remote(alice.connection);
	EXPECT(endpoint_is_v4(&remote) && remote.ip[15] == 1);

	close(trap.fd);
	trap_close(&trap);
	close_member(&alice);
	world_end(&w);
}

static void test_another_member_cannot_pass_for_the_relay(void)
{
	struct world w;
	struct member alice;
	world_begin(&w);
	start_server(&w);
	make_member(&alice, &w, "alice", 1);

	struct map_relay relay = relay_at(&w);
	relay.node_key.bytes[0] ^= 1; /* the map says another key */
	connect_with(&alice, &relay);
	AWAIT(&w, alice.n_lost == 1);
	EXPECT(alice.n_ready == 0 && strstr(alice.why, "not this relay"));

	close_member(&alice);
	world_end(&w);
}

/* A relay that says hello, and else what the test wants. */
struct puppet {
	struct world w;
	struct member alice;
	struct trap trap;
	struct raw relay;
};

static void puppet_begin(struct puppet *p)
{
	world_begin(&p->w);
	start_server(&p->w);
	stop_server(&p->w); /* for a port */
	trap_open(&p->trap, &p->w, "127.0.0.1", p->w.port);
	make_member(&p->alice, &p->w, "alice", 1);
	connect_member(&p->alice);
	AWAIT(&p->w, p->trap.fd >= 0);
	raw_accept(&p->relay, &p->w, p->w.server_options.context, p->trap.fd);
	raw_say_frame(&p->relay, &(struct relay_frame){ .type = RELAY_HELLO, .hello = { RELAY_VERSION, 20 } });
	AWAIT(&p->w, p->alice.n_ready == 1);
	AWAIT(&p->w, p->relay.n_pings == 1);
}

static void puppet_end(struct puppet *p)
{
	raw_close(&p->relay);
	if (p->trap.n_accepted > 1)
		close(p->trap.fd);
	trap_close(&p->trap);
	world_end(&p->w);
}

static void test_a_connection_without_an_answer_is_silent_until_it_is_heard(void)
{
	struct puppet p;
	puppet_begin(&p);

	send_number(&p.alice, &p.alice, 1, 100);
	AWAIT(&p.w, p.alice.is_silent);
	EXPECT(p.alice.n_lost == 0);
	raw_say_frame(&p.relay, &(struct relay_frame){ .type = RELAY_PONG });
	AWAIT(&p.w, !p.alice.is_silent);
	EXPECT(p.alice.n_lost == 0);

	close_member(&p.alice);
	puppet_end(&p);
}

static void test_who_only_receives_notices_that_nothing_comes_any_more(void)
{
	struct puppet p;
	puppet_begin(&p);

	raw_say_frame(&p.relay, &(struct relay_frame){ .type = RELAY_PONG });
	raw_say_frame(&p.relay, &(struct relay_frame){ .type = RELAY_RECV,
						       .packet = { p.alice.key, (const uint8_t *)"last", 4 } });
	AWAIT(&p.w, got_text(&p.alice, "last"));
	AWAIT(&p.w, p.relay.n_pings == 2);
	AWAIT(&p.w, p.alice.is_silent);

	close_member(&p.alice);
	puppet_end(&p);
}

/* A ping behind our own traffic: silence while nothing moves, and none while something does, answered or not. */
static void test_what_waits_behind_our_own_traffic_is_no_silence_of_the_relays(void)
{
	struct puppet p;
	puppet_begin(&p);

	tls_stream_pause(&p.relay.stream, true);
	uint64_t n = 1;
	while (relay_connection_counters(p.alice.connection).dropped_queue == 0) { /* its window is closed */
		send_number(&p.alice, &p.alice, n++, 1400);
		if (n % 100 == 0)
			run_for(&p.w, 1);
	}
	raw_say_frame(&p.relay, &(struct relay_frame){ .type = RELAY_PONG }); /* heard: the next ping comes later */
	AWAIT(&p.w, !p.alice.is_silent);
	run_for(&p.w, 50);
	send_number(&p.alice, &p.alice, n, 1400);
	AWAIT(&p.w, p.alice.is_silent);
	EXPECT(p.relay.n_pings == 1);
	tls_stream_pause(&p.relay.stream, false);
	AWAIT(&p.w, !p.alice.is_silent);
	EXPECT(p.alice.n_lost == 0 && p.alice.n_packets == 0);

	close_member(&p.alice);
	puppet_end(&p);
}

static void on_finished(void *owner)
{
	((struct member *)owner)->closed = true;
}

static void test_what_is_on_its_way_arrives_when_it_finishes(void)
{
	struct puppet p;
	puppet_begin(&p);
	const uint8_t packet[] = "late";

	relay_connection_finish(p.alice.connection, on_finished, &p.alice);
	p.alice.connection = NULL;
	raw_say_frame(&p.relay, &(struct relay_frame){ .type = RELAY_RECV,
						       .packet = { p.alice.key, packet, sizeof(packet) - 1 } });
	AWAIT(&p.w, p.alice.n_packets == 1 && got_text(&p.alice, "late"));
	EXPECT(!p.alice.closed);
	AWAIT(&p.w, p.relay.is_ended);
	AWAIT(&p.w, p.alice.closed); /* after a while, at the latest */
	EXPECT(p.alice.n_lost == 0);

	close_member(&p.alice);
	puppet_end(&p);
}

/* The relay's process hangs: TLS is up, hello was said, and then nothing more. */
static void test_a_dead_connection_is_noticed_within_seconds(void)
{
	struct world w;
	struct member alice;
	struct trap trap;
	struct raw relay;
	world_begin(&w);
	start_server(&w);
	stop_server(&w); /* for a port */
	trap_open(&trap, &w, "127.0.0.1", w.port);
	make_member(&alice, &w, "alice", 1);

	connect_member(&alice);
	AWAIT(&w, trap.fd >= 0);
	raw_accept(&relay, &w, w.server_options.context, trap.fd);
	raw_say_frame(&relay, &(struct relay_frame){ .type = RELAY_HELLO, .hello = { RELAY_VERSION, 20 } });
	AWAIT(&w, alice.n_ready == 1);
	AWAIT(&w, relay.n_pings == 1);
	raw_say_frame(&relay, &(struct relay_frame){ .type = RELAY_PONG }); /* heard, though not that ping's */
	run_for(&w, 100);

	uint64_t begin_ms = uv_hrtime() / 1000000;
	send_number(&alice, &alice, 1, 100);
	AWAIT(&w, relay.n_pings == 2); /* nothing heard: it asks */
	AWAIT(&w, alice.n_lost == 1);
	uint64_t took_ms = uv_hrtime() / 1000000 - begin_ms;
	EXPECT(strstr(alice.why, "no answer to a ping"));
	EXPECT(took_ms >= 3000 && took_ms < 5500);
	printf("dead connection noticed after %llu ms\n", (unsigned long long)took_ms);

	AWAIT(&w, relay.is_ended);
	raw_close(&relay);
	close_member(&alice);
	if (trap.n_accepted > 1)
		close(trap.fd);
	trap_close(&trap);
	world_end(&w);
}

static void test_a_busy_connection_measures_its_distance(void)
{
	struct world w;
	struct member alice;
	world_begin(&w);
	start_server(&w);
	make_member(&alice, &w, "alice", 1);
	connect_and_await(&alice);

	AWAIT(&w, relay_connection_rtt_us(alice.connection) > 0);
	EXPECT(relay_connection_rtt_us(alice.connection) < 1000000);
	close_member(&alice);
	world_end(&w);
}

/* Closing is allowed at any instant: after n turns of the loop from the beginning, for every n. */
static void test_it_can_be_closed_at_any_turn_of_the_loop(void)
{
	struct world w;
	bool was_ready = false;
	world_begin(&w);
	start_server(&w);

	for (int n = 0; n < 200 && !was_ready; n++) {
		struct member alice;
		make_member(&alice, &w, "alice", 1);
		connect_member(&alice);
		for (int i = 0; i < n; i++)
			uv_run(&w.loop, UV_RUN_NOWAIT);
		was_ready = alice.n_ready > 0;
		close_member(&alice);
	}
	EXPECT(was_ready);
	AWAIT(&w, relay_server_counters(w.server).clients == 0);
	world_end(&w);
}

int main(void)
{
	test_it_comes_back_after_the_relay_was_restarted();
	test_it_backs_off_further_each_time();
	test_of_several_addresses_the_first_that_works_wins();
	test_another_member_cannot_pass_for_the_relay();
	test_a_dead_connection_is_noticed_within_seconds();
	test_a_connection_without_an_answer_is_silent_until_it_is_heard();
	test_who_only_receives_notices_that_nothing_comes_any_more();
	test_what_waits_behind_our_own_traffic_is_no_silence_of_the_relays();
	test_what_is_on_its_way_arrives_when_it_finishes();
	test_a_busy_connection_measures_its_distance();
	test_it_can_be_closed_at_any_turn_of_the_loop();
	puts("ok");
	return 0;
}
