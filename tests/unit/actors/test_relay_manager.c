/*
 * RelayManager's shell: what the data plane tells it from inside a call of its own comes back as an
 * order only in a later turn of the loop. What it decides is home_fsm's and tested there.
 */
#include "fake_data_plane.h"

#include "actors/relay_manager/relay_manager.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

static struct world {
	uv_loop_t loop;
	struct stage *stage;
	struct data_plane plane;
	struct relay_manager manager;
	struct actor traffic; /* which only listens */
	uint32_t home, n_up, n_down;
	uint32_t refused_len; /* of a probe, as TrafficManager is told */
	uint16_t cost_ms[4]; /* of the relays of the map */
} w;

static int listen_state(struct actor *actor, struct message *message)
{
	w.n_up += message->relay_state.up;
	w.n_down += !message->relay_state.up;
	return 0;
}

static int listen_failed(struct actor *actor, struct message *message)
{
	assert(message->via.by_relay && message->peer_id == 7 && message->send_failed.error == -EMSGSIZE);
	w.refused_len = message->send_failed.probe_len;
	return 0;
}

static const struct actor_accepts accepts[] = { { MESSAGE_RELAY_STATE, ACTOR_RELAY_MANAGER, listen_state },
						{ MESSAGE_SEND_FAILED, ACTOR_RELAY_MANAGER, listen_failed } };
static const struct actor_class traffic_class = { .kind = ACTOR_TRAFFIC_MANAGER, .accepts = accepts, .n_accepts = 2 };

static void on_home(void *owner, uint32_t relay_id)
{
	w.home = relay_id;
}

static void failed(void *owner, enum actor_kind who, int error)
{
	abort();
}

static void turn(void)
{
	uv_run(&w.loop, UV_RUN_NOWAIT);
	uv_run(&w.loop, UV_RUN_NOWAIT);
}

static void send_map(uint32_t n_relays)
{
	struct map_relay relays[4] = { 0 };
	struct map map = { .relays = relays, .n_relays = n_relays };

	for (uint32_t i = 0; i < n_relays; i++)
		relays[i] = (struct map_relay){ .id = i + 1, .cost_ms = w.cost_ms[i] };
	struct message message = { .type = MESSAGE_MAP, .map = map_ref_new(&map) };
	stage_post(w.stage, ACTOR_NONE, ACTOR_RELAY_MANAGER, &message);
}

static void begin(void)
{
	memset(&w, 0, sizeof(w));
	uv_loop_init(&w.loop);
	assert(stage_new(&w.loop, &(struct stage_ports){ .failed = failed }, &w.stage) == 0);
	relay_manager_start(&w.manager, w.stage, &w.plane, &(struct relay_manager_ports){ .home_relay = on_home });
	stage_add(w.stage, &w.traffic, &traffic_class, 0);
}

static void closed(void *owner)
{
}

static void end(void)
{
	relay_manager_stop(&w.manager);
	stage_close(w.stage, closed);
	uv_run(&w.loop, UV_RUN_DEFAULT);
	assert(uv_loop_close(&w.loop) == 0);
}

static void test_the_data_plane_is_not_called_from_inside_its_own_call(void)
{
	begin();
	send_map(2);
	relay_manager_on_used(&w.manager, 2); /* the map before it is still on its way: in its turn */
	relay_manager_on_relay_state(&w.manager, 1, true);
	w.plane.relay_up[1] = true;
	assert(w.plane.n_held == 0 && w.home == 0 && w.n_up == 0);
	turn();
	assert(w.plane.n_held > 0 && w.plane.held[0] == 2);
	assert(w.home == 1 && w.n_up > 0);
	relay_manager_on_relay_state(&w.manager, 1, false);
	assert(w.home == 1 && w.n_down == 0);
	turn();
	assert(w.home == 2 && w.n_down == 1);
	end();
}

static void test_what_an_earlier_stage_left_is_taken_over_or_dropped(void)
{
	begin();
	w.plane.relay_up[2] = true;
	send_map(3);
	turn();
	assert(w.n_up == 1 && w.home == 2);
	assert(w.plane.n_dropped == 2 && w.plane.dropped[0] == 1 && w.plane.dropped[1] == 3);
	end();
}

static void test_that_a_relay_is_up_counts_only_while_it_is(void)
{
	begin();
	send_map(2);
	turn();
	relay_manager_on_relay_state(&w.manager, 1, true); /* and lost before we hear of it */
	turn();
	assert(w.n_up == 0 && w.home == 0);
	end();
}

static void say_latency(uint32_t relay_id, uint32_t rtt_us)
{
	struct message message = { .type = MESSAGE_LATENCY,
				   .via = { .by_relay = true, .relay_id = relay_id },
				   .latency = { .rtt_us = rtt_us } };

	stage_post(w.stage, ACTOR_ENDPOINT_MANAGER, ACTOR_RELAY_MANAGER, &message);
}

static void test_a_relays_cost_counts_as_distance(void)
{
	begin();
	w.cost_ms[0] = 50;
	send_map(2);
	say_latency(1, 5000);
	say_latency(2, 40000);
	turn();
	assert(home_fsm_latency_us(&w.manager.fsm, 1) == 55000);
	assert(home_fsm_latency_us(&w.manager.fsm, 2) == 40000);
	end();
}

static void given_home_1_is_up_and_2_answered_stun(void)
{
	begin();
	send_map(4);
	say_latency(1, 5000);
	say_latency(2, 40000);
	turn();
	assert(w.home == 1 && w.plane.n_held == 1);
	w.plane.relay_up[1] = true;
	relay_manager_on_relay_state(&w.manager, 1, true);
	turn();
}

static void test_where_home_has_no_udp_those_that_nothing_measured_are_connected_to(void)
{
	given_home_1_is_up_and_2_answered_stun();
	assert(w.plane.n_held == 1);
	w.plane.has_no_udp = true;
	relay_manager_on_relay_state(&w.manager, 1, true);
	turn();
	assert(w.plane.n_held == 3 && w.plane.held[1] == 3 && w.plane.held[2] == 4);
	relay_manager_on_relay_state(&w.manager, 1, true); /* home came back: not each time */
	w.plane.n_held = 0;
	turn();
	assert(w.plane.n_held == 0);
	end();
}

static void test_udp_at_home_or_another_network_end_the_long_pauses_of_a_blocked_one(void)
{
	given_home_1_is_up_and_2_answered_stun();
	w.manager.survey.pause_ms = 3600000;
	relay_manager_on_relay_state(&w.manager, 1, true);
	turn();
	assert(w.manager.survey.pause_ms == 0);
	w.manager.survey.pause_ms = 3600000;
	w.plane.has_no_udp = true;
	relay_manager_on_relay_state(&w.manager, 1, true);
	turn();
	assert(w.manager.survey.pause_ms == 3600000);
	struct message message = { .type = MESSAGE_LINK_CHANGED };
	stage_post(w.stage, ACTOR_NONE, ACTOR_RELAY_MANAGER, &message);
	turn();
	assert(w.manager.survey.pause_ms == 0);
	end();
}

static void test_where_udp_works_a_relay_is_tried_only_when_somebody_asks(void)
{
	given_home_1_is_up_and_2_answered_stun();
	assert(w.plane.n_held == 1);
	struct message message = { .type = MESSAGE_MEASURE_NAT };
	stage_post(w.stage, ACTOR_NONE, ACTOR_RELAY_MANAGER, &message);
	turn();
	assert(w.plane.n_held == 3 && w.plane.held[1] == 3 && w.plane.held[2] == 4);
	end();
}

static void test_no_relays_at_all_and_relays_that_are_not_in_the_map(void)
{
	begin();
	relay_manager_on_used(&w.manager, 3);
	relay_manager_on_relay_state(&w.manager, 3, true);
	send_map(0);
	turn();
	assert(w.plane.n_held == 0 && w.home == 0);
	send_map(1);
	turn();
	assert(w.home == 1);
	send_map(0); /* the map shrinks */
	turn();
	assert(w.home == 0);
	end();
}

static void write_frame(size_t len, bool whole)
{
	static const uint8_t bytes[2000];
	struct message message = { .type = MESSAGE_WRITE_FRAME,
				   .peer_id = 7,
				   .via = { .by_relay = true },
				   .bytes = buffer_new(bytes, len),
				   .write = { .whole = whole } };

	stage_post(w.stage, ACTOR_SESSION_MANAGER, ACTOR_RELAY_MANAGER, &message);
	turn();
}

static void test_a_probe_that_the_first_link_refuses_is_told_and_nothing_else_is(void)
{
	begin();
	send_map(1);
	turn();
	write_frame(1456, true);
	assert(w.plane.n_sent == 1 && w.plane.sent[0].is_whole && w.refused_len == 0);
	w.plane.send_result = -EMSGSIZE;
	write_frame(1456, true);
	assert(w.refused_len == 1456);
	w.refused_len = 0;
	write_frame(100, false);
	assert(!w.plane.sent[2].is_whole && w.refused_len == 0);
	w.plane.send_result = -ENOTCONN;
	write_frame(1456, true);
	assert(w.refused_len == 0);
	end();
}

int main(void)
{
	test_a_probe_that_the_first_link_refuses_is_told_and_nothing_else_is();
	test_the_data_plane_is_not_called_from_inside_its_own_call();
	test_what_an_earlier_stage_left_is_taken_over_or_dropped();
	test_that_a_relay_is_up_counts_only_while_it_is();
	test_a_relays_cost_counts_as_distance();
	test_where_home_has_no_udp_those_that_nothing_measured_are_connected_to();
	test_udp_at_home_or_another_network_end_the_long_pauses_of_a_blocked_one();
	test_where_udp_works_a_relay_is_tried_only_when_somebody_asks();
	test_no_relays_at_all_and_relays_that_are_not_in_the_map();
	puts("ok");
}
