/*
 * The small actors: DirectManager writes what it is told and reports a refusal; DirectRouter sends
 * each datagram where it belongs, by kind and by address; the conns tell TrafficManager about activity
 * and publish paths, taking over the one in force.
 */
#include "fake_data_plane.h"

#include "actors/direct_manager/direct_manager.h"
#include "actors/direct_router/direct_router.h"
#include "actors/in_conn/in_conn.h"
#include "actors/out_conn/out_conn.h"
#include "actors/relay_router/relay_router.h"
#include "common/log.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#define SECOND 1000000000ull

static struct world {
	uv_loop_t loop;
	struct stage *stage;
	struct data_plane plane;
	struct direct_manager manager;
	struct direct_router router;
	struct relay_router relay_router;
	struct in_conn in;
	struct out_conn out;
	struct actor traffic, sessions, endpoints; /* which only listen */
	uint64_t began_ns; /* of the conns */
	char trace[4096];
} w;

static void note(const char *format, ...) P2P_PRINTF(1, 2);
static void note(const char *format, ...)
{
	size_t used = strlen(w.trace);
	va_list args;

	va_start(args, format);
	vsnprintf(w.trace + used, sizeof(w.trace) - used, format, args);
	va_end(args);
}

static void expect_trace(const char *expected)
{
	uv_run(&w.loop, UV_RUN_NOWAIT);
	uv_run(&w.loop, UV_RUN_NOWAIT);
	if (strcmp(w.trace, expected) != 0) {
		fprintf(stderr, "expected:\n%sgot:\n%s", expected, w.trace);
		abort();
	}
	w.trace[0] = '\0';
}

static int listen_activity(struct actor *actor, struct message *message)
{
	note("activity %s%s%s via %s, %u bytes\n", message->activity.out ? "out" : "in", message->activity.packet ? " packet" : "",
	     message->activity.active ? " active" : " idle",
	     message->via.by_relay ? "relay" : endpoint_text(&message->via.endpoint).s,
	     (unsigned)message->activity.n_bytes);
	return 0;
}

static int listen_failed(struct actor *actor, struct message *message)
{
	note("peer %u send failed %d\n", message->peer_id, message->send_failed.error);
	return 0;
}

static int listen_sealed(struct actor *actor, struct message *message)
{
	note("sealed via %s\n", message->via.by_relay ? "relay" : endpoint_text(&message->via.endpoint).s);
	return 0;
}

static int listen_stun(struct actor *actor, struct message *message)
{
	note("stun from %s\n", endpoint_text(&message->via.endpoint).s);
	return 0;
}

static const struct actor_accepts traffic_accepts[] = {
	{ MESSAGE_ACTIVITY, ACTOR_IN_CONN, listen_activity },
	{ MESSAGE_ACTIVITY, ACTOR_OUT_CONN, listen_activity },
	{ MESSAGE_SEND_FAILED, ACTOR_DIRECT_MANAGER, listen_failed },
};
static const struct actor_accepts sessions_accepts[] = {
	{ MESSAGE_SEALED, ACTOR_DIRECT_ROUTER, listen_sealed },
	{ MESSAGE_SEALED, ACTOR_RELAY_ROUTER, listen_sealed },
};
static const struct actor_accepts endpoints_accepts[] = { { MESSAGE_STUN, ACTOR_DIRECT_ROUTER, listen_stun } };
static const struct actor_class traffic_class = { .kind = ACTOR_TRAFFIC_MANAGER,
						  .accepts = traffic_accepts,
						  .n_accepts = 3 };
static const struct actor_class sessions_class = { .kind = ACTOR_SESSION_MANAGER,
						   .accepts = sessions_accepts,
						   .n_accepts = 2 };
static const struct actor_class endpoints_class = { .kind = ACTOR_ENDPOINT_MANAGER,
						    .accepts = endpoints_accepts,
						    .n_accepts = 1 };

static void failed(void *owner, enum actor_kind who, int error)
{
	note("%s failed %d\n", actor_kind_name(who), error);
}

static void begin(void)
{
	memset(&w, 0, sizeof(w));
	uv_loop_init(&w.loop);
	assert(stage_new(&w.loop, &(struct stage_ports){ .failed = failed }, &w.stage) == 0);
	direct_manager_start(&w.manager, w.stage, &w.plane);
	direct_router_start(&w.router, w.stage);
	relay_router_start(&w.relay_router, w.stage);
	stage_add(w.stage, &w.traffic, &traffic_class, 0);
	stage_add(w.stage, &w.sessions, &sessions_class, 0);
	stage_add(w.stage, &w.endpoints, &endpoints_class, 0);
}

static void closed(void *owner)
{
}

static void end(void)
{
	stage_close(w.stage, closed);
	uv_run(&w.loop, UV_RUN_DEFAULT);
	assert(uv_loop_close(&w.loop) == 0);
}

static struct endpoint at(const char *text)
{
	struct endpoint endpoint;

	assert(endpoint_parse(text, &endpoint) == 0);
	return endpoint;
}

static void arrives(const char *from, const char *bytes, size_t len)
{
	struct endpoint endpoint = at(from);

	direct_manager_on_datagram(&w.manager, &endpoint, (const uint8_t *)bytes, len);
}

static void aka(const char *endpoint, uint32_t peer_id, bool known)
{
	struct message message = { .type = MESSAGE_SET_AKA,
				   .peer_id = peer_id,
				   .via = { .endpoint = at(endpoint) },
				   .aka = { .known = known } };

	stage_post(w.stage, ACTOR_TRAFFIC_MANAGER, ACTOR_DIRECT_ROUTER, &message);
}

static const char stun[20] = "\x01\x01\0\0\x21\x12\xa4\x42";
static const char sealed[36] = "\xd2\x70\x32\x70";
static const char other[8] = "garbage";

static void test_a_datagram_goes_where_its_kind_and_address_say(void)
{
	begin();
	in_conn_start(&w.in, w.stage, 7);
	aka("192.0.2.7:1", 7, true);
	arrives("192.0.2.1:3478", stun, sizeof(stun));
	arrives("192.0.2.9:9", sealed, sizeof(sealed)); /* from anywhere: the box decides */
	arrives("192.0.2.7:1", other, sizeof(other));
	arrives("192.0.2.8:1", other, sizeof(other));
	expect_trace("stun from 192.0.2.1:3478\nsealed via 192.0.2.9:9\n");
	assert(w.in.n_unexpected == 1);
	assert(w.router.counters.of_peers == 1 && w.router.counters.strangers == 1);
	end();
}

static void test_an_address_belongs_to_who_was_named_last_and_only_he_loses_it(void)
{
	begin();
	aka("192.0.2.7:1", 7, true);
	aka("192.0.2.7:1", 8, true);
	aka("192.0.2.7:1", 7, false); /* it is not his any more */
	expect_trace("");
	const struct endpoint endpoint = at("192.0.2.7:1");
	assert(direct_router_find(&w.router, &endpoint) == 8);
	aka("192.0.2.7:1", 8, false);
	expect_trace("");
	assert(direct_router_find(&w.router, &endpoint) == 0);
	assert(w.router.n_aka == 0);
	end();
}

static void test_thousands_of_addresses_come_and_go_and_the_table_stays_bounded(void)
{
	begin();
	for (int round = 0; round < 3; round++) {
		for (uint32_t i = 0; i < DIRECT_ROUTER_MAX_AKA + 10; i++) {
			struct message message = { .type = MESSAGE_SET_AKA,
						   .peer_id = i + 1,
						   .via = { .endpoint = endpoint_from_v4(0xc0000200 + i, 9) },
						   .aka = { .known = true } };
			stage_post(w.stage, ACTOR_TRAFFIC_MANAGER, ACTOR_DIRECT_ROUTER, &message);
		}
		while (uv_run(&w.loop, UV_RUN_NOWAIT))
			;
		assert(w.router.n_aka == DIRECT_ROUTER_MAX_AKA - 1);
		for (uint32_t i = 0; i < DIRECT_ROUTER_MAX_AKA - 1; i++) {
			const struct endpoint endpoint = endpoint_from_v4(0xc0000200 + i, 9);
			assert(direct_router_find(&w.router, &endpoint) == i + 1);
			struct message message = { .type = MESSAGE_SET_AKA,
						   .peer_id = i + 1,
						   .via = { .endpoint = endpoint } };
			stage_post(w.stage, ACTOR_TRAFFIC_MANAGER, ACTOR_DIRECT_ROUTER, &message);
			while (uv_run(&w.loop, UV_RUN_NOWAIT))
				;
		}
		assert(w.router.n_aka == 0);
	}
	assert(w.router.counters.aka_full == 3 * 11);
	end();
}

static void test_a_refused_datagram_to_a_peer_is_told_a_lost_one_is_not(void)
{
	begin();
	for (int i = 0; i < 2; i++) {
		struct message message = { .type = MESSAGE_WRITE_DATAGRAM,
					   .peer_id = 7,
					   .via = { .endpoint = at("192.0.2.7:1") },
					   .bytes = buffer_new("x", 1) };
		w.plane.send_result = i == 0 ? -EHOSTUNREACH : -EAGAIN;
		stage_post(w.stage, ACTOR_SESSION_MANAGER, ACTOR_DIRECT_MANAGER, &message);
		uv_run(&w.loop, UV_RUN_NOWAIT);
	}
	expect_trace("peer 7 send failed -113\n");
	assert(w.plane.n_sent == 2);
	end();
}

/* Times in seconds from the conns' start; NEVER: not at all. */
#define NEVER INT32_MIN

static uint64_t when(int seconds)
{
	return seconds == NEVER ? 0 : w.began_ns + (uint64_t)((int64_t)seconds * (int64_t)SECOND);
}

static void start_conns(void)
{
	w.began_ns = stage_now_ns(w.stage);
	in_conn_start(&w.in, w.stage, 7);
	out_conn_start(&w.out, w.stage, &w.plane, 7);
}

static void carried(int rx_direct, int rx_relay, int rx_data, int tx_data)
{
	for (enum actor_kind kind = ACTOR_IN_CONN; kind <= ACTOR_OUT_CONN; kind++) {
		struct message message = { .type = MESSAGE_CARRIED,
					   .peer_id = 7,
					   .carried = { .rx_direct_ns = when(rx_direct),
							.rx_endpoint = at("192.0.2.7:1"),
							.rx_relay_ns = when(rx_relay),
							.rx_data_ns = when(rx_data),
							.tx_data_ns = when(tx_data),
							.rx_bytes = 100,
							.tx_bytes = 200 } };
		stage_post(w.stage, ACTOR_NONE, kind, &message);
	}
}

static void test_the_conns_tell_what_was_carried_and_when_it_ends(void)
{
	begin();
	start_conns();
	carried(5, NEVER, NEVER, NEVER); /* a keepalive is life, but no traffic */
	expect_trace("activity in packet idle via 192.0.2.7:1, 100 bytes\n");
	carried(5, 6, 6, 6);
	expect_trace("activity in packet active via relay, 100 bytes\n"
		     "activity out packet active via [::]:0, 200 bytes\n");
	carried(5, 6, 6, 6); /* nothing new */
	expect_trace("");
	in_conn_stop(&w.in);
	out_conn_stop(&w.out);
	end();
}

static void test_what_an_earlier_stage_carried_is_no_sign_of_life(void)
{
	begin();
	start_conns();
	carried(-5, 1, -5, -5); /* it came directly once; now by the relay */
	expect_trace("activity in packet idle via relay, 100 bytes\n");
	in_conn_stop(&w.in);
	out_conn_stop(&w.out);
	end();
}

static void test_an_out_conn_takes_over_the_path_in_force_and_adds_the_relay(void)
{
	begin();
	w.plane.paths[7] = (struct peer_path){ .direct = true, .endpoint = at("192.0.2.7:1") };
	out_conn_start(&w.out, w.stage, &w.plane, 7);
	assert(w.plane.paths[7].direct && w.plane.paths[7].relay);
	struct message message = { .type = MESSAGE_SET_PATH, .peer_id = 7, .path = { .relay = true } };
	stage_post(w.stage, ACTOR_TRAFFIC_MANAGER, ACTOR_OUT_CONN, &message);
	expect_trace("");
	assert(!w.plane.paths[7].direct && w.plane.paths[7].relay);
	end();
}

static void test_a_frame_of_a_stranger_is_counted_a_session_message_is_passed_on(void)
{
	begin();
	for (uint32_t peer_id = 0; peer_id < 2; peer_id++) {
		struct message message = { .type = MESSAGE_FRAME,
					   .peer_id = peer_id,
					   .via = { .by_relay = true, .relay_id = 3 },
					   .bytes = buffer_new(sealed, sizeof(sealed)) };
		stage_post(w.stage, ACTOR_RELAY_MANAGER, ACTOR_RELAY_ROUTER, &message);
	}
	expect_trace("sealed via relay\n");
	assert(w.relay_router.counters.strangers == 1 && w.relay_router.counters.session == 1);
	end();
}

int main(void)
{
	test_a_datagram_goes_where_its_kind_and_address_say();
	test_an_address_belongs_to_who_was_named_last_and_only_he_loses_it();
	test_thousands_of_addresses_come_and_go_and_the_table_stays_bounded();
	test_a_refused_datagram_to_a_peer_is_told_a_lost_one_is_not();
	test_the_conns_tell_what_was_carried_and_when_it_ends();
	test_what_an_earlier_stage_carried_is_no_sign_of_life();
	test_an_out_conn_takes_over_the_path_in_force_and_adds_the_relay();
	test_a_frame_of_a_stranger_is_counted_a_session_message_is_passed_on();
	puts("ok");
}
