/*
 * TrafficManager's shell: the map makes and removes machines; activity, session messages and relays
 * are translated; what a machine decides goes to the right actor. What it decides is peer_fsm's and
 * tested there.
 */
#include "fake_data_plane.h"

#include "actors/traffic_manager/traffic_manager.h"
#include "common/log.h"

#include <assert.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

static struct world {
	uv_loop_t loop;
	struct stage *stage;
	struct data_plane plane;
	struct traffic_manager traffic;
	struct actor sessions, router, out7;
	uint32_t n_pings, n_rendezvous, n_pongs, n_by_relay, n_aka;
	uint32_t n_probes, n_probes_by_relay, n_passed; /* of the MTU */
	uint8_t last_tx[SESSION_TX_ID_LEN], first_probe_tx[SESSION_TX_ID_LEN];
	uint32_t n_receipts, last_age_ms;
	struct endpoint last_to;
	struct peer_path path;
	uint32_t last_pong_relay;
	uint32_t n_told; /* where our WireGuard is */
	uint32_t n_nats; /* what our NAT does */
	uint16_t told_port;
	bool failed;
} w;

static int listen_seal(struct actor *actor, struct message *message)
{
	w.n_by_relay += message->via.by_relay;
	switch (message->session.type) {
	case SESSION_PING:
		w.n_pings++;
		if (message->via.by_relay)
			break; /* the relay is measured, too */
		memcpy(w.last_tx, message->session.tx_id, sizeof(w.last_tx));
		w.last_to = message->via.endpoint;
		break;
	case SESSION_PONG:
		w.n_pongs++;
		w.last_pong_relay = message->via.relay_id;
		break;
	case SESSION_WIREGUARD:
		w.n_told++;
		w.told_port = message->session.port;
		assert(!message->via.by_relay);
		break;
	case SESSION_PROBE:
		if (w.n_probes++ == 0)
			memcpy(w.first_probe_tx, message->session.tx_id, sizeof(w.first_probe_tx));
		w.n_probes_by_relay += message->via.by_relay;
		break;
	case SESSION_PASSED:
		w.n_passed++;
		break;
	case SESSION_NAT:
	case SESSION_SEARCH:
		w.n_nats += message->session.type == SESSION_NAT;
		assert(message->via.by_relay);
		break;
	case SESSION_RECEIPT:
		w.n_receipts++;
		w.last_age_ms = message->session.age_ms;
		assert(!message->via.by_relay);
		break;
	case SESSION_RENDEZVOUS:
		w.n_rendezvous++;
		assert(message->via.by_relay && message->session.n_endpoints == 1);
		break;
	}
	return 0;
}

static int listen_aka(struct actor *actor, struct message *message)
{
	w.n_aka += message->aka.known ? 1 : 0;
	return 0;
}

static int listen_path(struct actor *actor, struct message *message)
{
	w.path = message->path;
	return 0;
}

static const struct actor_accepts seal_accepts[] = { { MESSAGE_SEAL, ACTOR_TRAFFIC_MANAGER, listen_seal } };
static const struct actor_accepts aka_accepts[] = { { MESSAGE_SET_AKA, ACTOR_TRAFFIC_MANAGER, listen_aka } };
static const struct actor_accepts path_accepts[] = { { MESSAGE_SET_PATH, ACTOR_TRAFFIC_MANAGER, listen_path } };
static const struct actor_class seal_class = { .kind = ACTOR_SESSION_MANAGER, .accepts = seal_accepts, .n_accepts = 1 };
static const struct actor_class aka_class = { .kind = ACTOR_DIRECT_ROUTER, .accepts = aka_accepts, .n_accepts = 1 };
static const struct actor_class path_class = { .kind = ACTOR_OUT_CONN, .accepts = path_accepts, .n_accepts = 1 };

static void failed(void *owner, enum actor_kind who, int error)
{
	w.failed = true;
}

static void begin(void)
{
	memset(&w, 0, sizeof(w));
	uv_loop_init(&w.loop);
	assert(stage_new(&w.loop, &(struct stage_ports){ .failed = failed }, &w.stage) == 0);
	traffic_manager_start(&w.traffic, w.stage, &w.plane);
	stage_add(w.stage, &w.sessions, &seal_class, 0);
	stage_add(w.stage, &w.router, &aka_class, 0);
	stage_add(w.stage, &w.out7, &path_class, 7);
}

static void turn(void)
{
	for (int i = 0; i < 4; i++)
		uv_run(&w.loop, UV_RUN_NOWAIT);
	assert(!w.failed);
}

static void closed(void *owner)
{
}

static void end(void)
{
	traffic_manager_stop(&w.traffic);
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

/* A map with peer 7, or without. */
static void map_says(bool has_peer)
{
	struct map map;
	struct map_peer peer = { .id = 7, .home_relay = 3, .n_endpoints = 1, .endpoints = { at("192.0.2.7:1") } };

	strcpy(peer.name, "bob");
	memset(peer.session_key.bytes, 9, sizeof(peer.session_key.bytes));
	map_init(&map);
	map.n_peers = has_peer;
	map.peers = &peer;
	struct message message = { .type = MESSAGE_MAP, .map = map_ref_new(&map) };
	stage_post(w.stage, ACTOR_NONE, ACTOR_TRAFFIC_MANAGER, &message);
	turn();
}

static void we_are_at(const char *endpoint)
{
	struct message message = { .type = MESSAGE_OUR_ENDPOINTS,
				   .our_endpoints = { .n = 1, .endpoints = { at(endpoint) } } };

	stage_post(w.stage, ACTOR_ENDPOINT_MANAGER, ACTOR_TRAFFIC_MANAGER, &message);
	turn();
}

static void traffic_of(uint64_t n_bytes)
{
	struct message message = { .type = MESSAGE_ACTIVITY,
				   .peer_id = 7,
				   .activity = {
					   .out = true, .packet = true, .active = true, .n_bytes = n_bytes } };

	stage_post(w.stage, ACTOR_OUT_CONN, ACTOR_TRAFFIC_MANAGER, &message);
	turn();
}

static void traffic(void)
{
	traffic_of(100);
}

static void opened_by(struct session_message session, const struct via *via)
{
	struct message message = { .type = MESSAGE_OPENED, .peer_id = 7, .via = *via, .session = session };

	stage_post(w.stage, ACTOR_SESSION_MANAGER, ACTOR_TRAFFIC_MANAGER, &message);
	turn();
}

static void opened(struct session_message session, const char *from)
{
	struct via via = { .by_relay = !from };

	if (from)
		via.endpoint = at(from);
	opened_by(session, &via);
}

static enum peer_state state(void)
{
	return traffic_manager_peer(&w.traffic, 7)->state;
}

static void test_the_machine_is_told_how_much_was_carried(void)
{
	begin();
	we_are_at("198.51.100.1:1");
	map_says(true);
	traffic();
	assert(traffic_manager_peer(&w.traffic, 7)->loaded_ns == 0);
	traffic_of(100000);
	assert(traffic_manager_peer(&w.traffic, 7)->loaded_ns > 0);
	end();
}

static void test_a_peer_without_traffic_is_left_alone(void)
{
	begin();
	we_are_at("198.51.100.1:1");
	map_says(true);
	assert(state() == PEER_INACTIVE);
	assert(w.n_pings == 0 && w.n_rendezvous == 0);
	end();
}

static void test_traffic_leads_to_pings_and_a_rendezvous_and_a_pong_to_a_direct_path(void)
{
	begin();
	we_are_at("198.51.100.1:1");
	map_says(true);
	traffic();
	assert(peer_state_is_establishing(state()));
	assert(w.n_pings >= 1 && w.n_rendezvous == 1);

	struct session_message pong = { .type = SESSION_PONG };
	struct endpoint to = at("192.0.2.7:1");
	assert(endpoint_equal(&w.last_to, &to));
	memcpy(pong.tx_id, w.last_tx, sizeof(pong.tx_id));
	opened(pong, "192.0.2.7:1");
	assert(state() == PEER_ESTABLISHED);
	assert(w.path.direct && !w.path.relay && endpoint_equal(&w.path.endpoint, &to));
	assert(w.n_aka == 1);
	end();
}

static void test_a_ping_under_traffic_is_answered_with_a_receipt_and_one_of_the_peers_reaches_its_machine(void)
{
	struct session_message pong = { .type = SESSION_PONG };

	begin();
	we_are_at("198.51.100.1:1");
	map_says(true);
	traffic();
	memcpy(pong.tx_id, w.last_tx, sizeof(pong.tx_id));
	opened(pong, "192.0.2.7:1");
	w.n_receipts = 0;

	opened((struct session_message){ .type = SESSION_PING }, "192.0.2.7:1");

	assert(w.n_receipts == 1 && w.last_age_ms == SESSION_NO_RECEIPT);
	opened((struct session_message){ .type = SESSION_RECEIPT, .age_ms = 3 }, "192.0.2.7:1");
	assert(state() == PEER_ESTABLISHED);
	end();
}

static void test_a_ping_is_answered_by_the_way_it_came(void)
{
	begin();
	we_are_at("198.51.100.1:1");
	map_says(true);
	opened((struct session_message){ .type = SESSION_PING }, NULL);
	assert(w.n_pongs == 1 && w.n_by_relay == 1);
	opened((struct session_message){ .type = SESSION_PING }, "192.0.2.7:1");
	assert(w.n_pongs == 2 && w.n_by_relay == 1);
	end();
}

static void test_a_ping_is_answered_by_the_very_relay_it_came_by_idle_or_not(void)
{
	begin();
	we_are_at("198.51.100.1:1");
	map_says(true);
	opened_by((struct session_message){ .type = SESSION_PING }, &(struct via){ .by_relay = true, .relay_id = 40 });
	assert(w.n_pongs == 1 && w.last_pong_relay == 40);
	traffic();
	opened_by((struct session_message){ .type = SESSION_PING }, &(struct via){ .by_relay = true, .relay_id = 41 });
	assert(w.n_pongs == 2 && w.last_pong_relay == 41);
	opened((struct session_message){ .type = SESSION_PING }, "192.0.2.7:1");
	assert(w.n_pongs == 3 && w.last_pong_relay == 0);
	end();
}

static void test_a_peer_in_doubt_is_asked_by_relay_and_its_answer_goes_to_the_data_plane(void)
{
	begin();
	map_says(true);
	const uint32_t n_before = w.n_by_relay;
	traffic_manager_on_doubted(&w.traffic, 7);
	traffic_manager_on_doubted(&w.traffic, 8); /* nobody */
	turn();
	assert(w.n_pings == 1 && w.n_by_relay == n_before + 1 && w.plane.n_answered == 0);
	opened((struct session_message){ .type = SESSION_PONG }, NULL);
	turn();
	assert(w.plane.n_answered == 1);
	end();
}

static void test_a_peer_that_left_the_map_is_forgotten_and_what_comes_late_is_counted(void)
{
	begin();
	we_are_at("198.51.100.1:1");
	map_says(true);
	map_says(false);
	assert(!traffic_manager_peer(&w.traffic, 7));
	traffic();
	opened((struct session_message){ .type = SESSION_PING }, NULL);
	assert(w.traffic.n_unknown_peers == 2);
	end();
}

static void test_a_path_of_an_earlier_stage_is_taken_over_in_doubt(void)
{
	begin();
	w.plane.paths[7] = (struct peer_path){ .direct = true, .relay = true, .endpoint = at("192.0.2.7:1") };
	we_are_at("198.51.100.1:1");
	map_says(true);
	assert(state() == PEER_ESTABLISHED);
	assert(w.n_pings >= 1); /* it is asked at once whether it still works */
	end();
}

static void test_a_peer_that_sees_us_without_nat_is_told_our_wireguards_port_once_a_second(void)
{
	const struct session_message pong = { .type = SESSION_PONG, .observed = at("198.51.100.1:1") };

	begin();
	map_says(true);
	opened(pong, "192.0.2.7:1");
	assert(w.n_told == 0); /* it is on our UDP socket */
	w.plane.wireguard_port = -1;
	opened(pong, "192.0.2.7:1");
	assert(w.n_told == 0);
	w.plane.wireguard_port = 51820;
	opened(pong, "192.0.2.7:1");
	opened(pong, "192.0.2.7:1");
	assert(w.n_told == 1 && w.told_port == 51820);
	end();
}

static void test_where_a_peers_wireguard_is_goes_to_the_data_plane_unless_it_came_by_relay(void)
{
	const struct session_message wireguard = { .type = SESSION_WIREGUARD, .port = 77 };
	const struct endpoint its = at("192.0.2.7:77");

	begin();
	map_says(true);
	we_are_at("198.51.100.1:1");
	opened(wireguard, NULL);
	assert(endpoint_is_none(&w.plane.told[7]));
	/* By a socket of ours: the port would be one of this machine, not of the peer's. */
	opened(wireguard, "198.51.100.1:4000");
	opened(wireguard, "127.0.0.1:4000");
	assert(endpoint_is_none(&w.plane.told[7]));
	opened(wireguard, "192.0.2.7:1");
	assert(endpoint_equal(&w.plane.told[7], &its));
	end();
}

static void test_where_a_valid_message_came_from_is_told_to_the_data_plane(void)
{
	const struct session_message ping = { .type = SESSION_PING };
	const struct endpoint its = at("192.0.2.7:1");

	begin();
	map_says(true);
	opened(ping, NULL);
	assert(endpoint_is_none(&w.plane.heard[7]));
	opened(ping, "192.0.2.7:1");
	assert(endpoint_equal(&w.plane.heard[7], &its));
	end();
}

/* Each names another 32 addresses. */
static struct session_message rendezvous(uint8_t number)
{
	struct session_message session = { .type = SESSION_RENDEZVOUS, .n_endpoints = SESSION_MAX_ENDPOINTS };

	for (uint32_t i = 0; i < SESSION_MAX_ENDPOINTS; i++)
		session.endpoints[i] = endpoint_from_v4(0xc6336400u | number, (uint16_t)(1 + i));
	return session;
}

static void test_a_peer_cannot_have_us_flood_others(void)
{
	begin();
	we_are_at("198.51.100.1:1");
	map_says(true);
	for (uint8_t i = 1; i <= 200; i++)
		opened(rendezvous(i), NULL);
	assert(w.n_pings >= SESSION_MAX_ENDPOINTS);
	/* The allowance, what comes back to it in the seconds this may take, and rounds of our own. */
	assert(w.traffic.n_rendezvous_dropped >= 100);
	assert(w.n_pings <= 100 * SESSION_MAX_ENDPOINTS);
	end();
}

/* A peer sees transaction ids of ours; by them it must not know what STUN servers, or other peers, are asked with. */
static void test_no_machine_draws_its_numbers_from_the_seed_of_another(void)
{
	uint64_t first_seed = 0;

	for (int i = 0; i < 2; i++) { /* the same peer, the same node, twice */
		begin();
		map_says(true);
		const struct traffic_peer *peer = w.traffic.buckets[7];
		const uint64_t seeds[] = { peer->fsm.random, peer->hard_nat.fsm.random, peer->mtu.nonce };
		for (size_t a = 0; a < ARRAY_LEN(seeds); a++)
			for (size_t b = 0; b < a; b++)
				assert(seeds[a] - seeds[b] > 1000 && seeds[b] - seeds[a] > 1000);
		assert(seeds[0] != first_seed);
		first_seed = seeds[0];
		end();
	}
}

static void test_a_peer_that_tells_of_its_nat_too_often_is_not_believed(void)
{
	struct session_message nat = { .type = SESSION_NAT };

	begin();
	map_says(true);
	for (uint8_t i = 0; i < 200; i++) {
		nat.nat.mapping = i % 2 == 0 ? NAT_DEPENDS_ADDRESS : NAT_DEPENDS_PORT;
		opened(nat, NULL);
	}
	assert(w.traffic.n_nats_dropped >= 100);
	end();
}

static struct session_nat hard_nat(const char *outside)
{
	return (struct session_nat){ .mapping = NAT_DEPENDS_PORT,
				     .filtering = NAT_DEPENDS_PORT,
				     .ports = 3,
				     .outside = at(outside) };
}

/* Else it would ask five times, and have no time for those with whom a search would succeed. */
static void test_a_hard_side_that_asks_another_one_is_answered_once_a_second(void)
{
	struct message ours = { .type = MESSAGE_NAT, .nat = hard_nat("198.51.100.1:4000") };
	const struct session_message theirs = { .type = SESSION_NAT, .nat = hard_nat("203.0.113.7:4000") };

	begin();
	map_says(true);
	stage_post(w.stage, ACTOR_ENDPOINT_MANAGER, ACTOR_TRAFFIC_MANAGER, &ours);
	turn();
	assert(w.n_nats == 0);
	opened(theirs, NULL);
	assert(w.n_nats == 1);
	opened(theirs, NULL);
	assert(w.n_nats == 1);
	end();
}

#define CROWD 20000

/* The largest networks, at start and with every change of ours: no queue may overflow. */
static void test_twenty_thousand_peers_at_once(void)
{
	struct map_peer *peers = calloc(CROWD, sizeof(*peers));
	struct map map = { .peers = peers, .n_peers = CROWD };

	begin();
	for (uint32_t i = 0; i < CROWD; i++) {
		peers[i] = (struct map_peer){ .id = i + 1, .home_relay = 3, .n_endpoints = 1 };
		peers[i].endpoints[0] = at("192.0.2.7:1");
		memcpy(peers[i].session_key.bytes, &i, sizeof(i));
		peers[i].session_key.bytes[31] = 1;
	}
	we_are_at("198.51.100.1:1");
	for (int round = 0; round < 2; round++) {
		struct message message = { .type = MESSAGE_MAP, .map = map_ref_new(&map) };
		stage_post(w.stage, ACTOR_NONE, ACTOR_TRAFFIC_MANAGER, &message);
		turn();
		struct message down = { .type = MESSAGE_RELAY_STATE, .via = { .relay_id = 3 } };
		stage_post(w.stage, ACTOR_RELAY_MANAGER, ACTOR_TRAFFIC_MANAGER, &down);
		turn();
		struct message up = { .type = MESSAGE_RELAY_STATE, .via = { .relay_id = 3 }, .relay_state = { true } };
		stage_post(w.stage, ACTOR_RELAY_MANAGER, ACTOR_TRAFFIC_MANAGER, &up);
		turn();
		we_are_at("198.51.100.2:1");
		for (uint32_t i = 0; i < CROWD; i++)
			peers[i].session_key.bytes[31] = 2;
	}
	map.n_peers = 0;
	struct message message = { .type = MESSAGE_MAP, .map = map_ref_new(&map) };
	stage_post(w.stage, ACTOR_NONE, ACTOR_TRAFFIC_MANAGER, &message);
	turn();
	free(peers);
	end();
}

static void test_who_asks_about_the_mtu_too_often_is_not_answered(void)
{
	begin();
	map_says(true);
	const uint64_t begin_ns = stage_now_ns(w.stage);

	for (int i = 0; i < 1000; i++)
		opened((struct session_message){ .type = SESSION_PROBE, .n_padding = 1000 }, "192.0.2.7:1");

	const uint64_t passed_ms = (stage_now_ns(w.stage) - begin_ns) / 1000000;
	assert(w.n_passed >= 32 && w.n_passed <= 32 + passed_ms / 100 + 1);
	assert(w.n_probes == 0 && w.n_pings == 0); /* and it brings nothing about */
	end();
}

static void test_the_mtu_of_a_direct_path_is_asked_and_published(void)
{
	struct session_message pong = { .type = SESSION_PONG }, passed = { .type = SESSION_PASSED };

	begin();
	we_are_at("198.51.100.1:1");
	map_says(true);
	traffic();
	assert(w.n_probes == 0); /* nobody knows by which relay it goes */
	memcpy(pong.tx_id, w.last_tx, sizeof(pong.tx_id));
	opened(pong, "192.0.2.7:1");
	assert(w.plane.mtu[7] == 1440); /* the first link's */
	assert(w.n_probes >= 3 && w.n_probes_by_relay == 0);

	memset(passed.tx_id, 1, sizeof(passed.tx_id)); /* of nothing that was sent */
	opened(passed, "192.0.2.7:1");
	assert(traffic_manager_peer_mtu(&w.traffic, 7)->state == PATH_MTU_BASE);
	memcpy(passed.tx_id, w.first_probe_tx, sizeof(passed.tx_id)); /* the largest comes first */
	opened(passed, "192.0.2.7:1");
	assert(traffic_manager_peer_mtu(&w.traffic, 7)->state == PATH_MTU_COMPLETE);
	assert(w.plane.mtu[7] == 1440);
	end();
}

static void test_the_mtu_by_relay_is_asked_there_and_of_every_relay_anew(void)
{
	struct session_message passed = { .type = SESSION_PASSED };

	begin();
	we_are_at("198.51.100.1:1");
	map_says(true);
	w.plane.relay_way = (struct relay_way){ .relay_id = 3, .remote = at("192.0.2.3:3478") };
	traffic();
	assert(w.n_probes >= 3 && w.n_probes_by_relay == w.n_probes);
	assert(w.plane.mtu[7] == 1392); /* for the moment */
	memcpy(passed.tx_id, w.first_probe_tx, sizeof(passed.tx_id));
	opened(passed, NULL);
	assert(traffic_manager_peer_mtu(&w.traffic, 7)->state == PATH_MTU_COMPLETE);
	assert(w.plane.mtu[7] == 1424); /* the first link's */

	w.n_probes = 0;
	w.plane.relay_way = (struct relay_way){ .relay_id = 3 }; /* over TLS from now on */
	opened((struct session_message){ .type = SESSION_PING }, NULL);
	assert(w.n_probes >= 3 && traffic_manager_peer_mtu(&w.traffic, 7)->state == PATH_MTU_BASE);
	opened(passed, NULL); /* that was another path */
	assert(w.plane.mtu[7] == 1392);
	memcpy(passed.tx_id, w.first_probe_tx, sizeof(passed.tx_id));
	opened(passed, NULL);
	assert(w.plane.mtu[7] == 8920);
	end();
}

static void test_a_probe_by_relay_that_the_first_link_refuses_costs_no_time(void)
{
	struct message failed = { .type = MESSAGE_SEND_FAILED, .peer_id = 7, .via = { .by_relay = true } };

	begin();
	we_are_at("198.51.100.1:1");
	map_says(true);
	w.plane.relay_way = (struct relay_way){ .relay_id = 3, .remote = at("192.0.2.3:3478") };
	traffic();
	failed.send_failed.probe_len = 1424 + 32;
	stage_post(w.stage, ACTOR_RELAY_MANAGER, ACTOR_TRAFFIC_MANAGER, &failed);
	turn();
	assert(traffic_manager_peer_mtu(&w.traffic, 7)->failed == 1424);
	end();
}

int main(void)
{
	test_a_peer_cannot_have_us_flood_others();
	test_a_peer_that_tells_of_its_nat_too_often_is_not_believed();
	test_a_hard_side_that_asks_another_one_is_answered_once_a_second();
	test_no_machine_draws_its_numbers_from_the_seed_of_another();
	test_twenty_thousand_peers_at_once();
	assert(sodium_init() >= 0);
	log_set_level(LOG_LEVEL_ERROR);
	test_a_peer_that_sees_us_without_nat_is_told_our_wireguards_port_once_a_second();
	test_where_a_peers_wireguard_is_goes_to_the_data_plane_unless_it_came_by_relay();
	test_where_a_valid_message_came_from_is_told_to_the_data_plane();
	test_a_peer_without_traffic_is_left_alone();
	test_the_machine_is_told_how_much_was_carried();
	test_traffic_leads_to_pings_and_a_rendezvous_and_a_pong_to_a_direct_path();
	test_a_ping_under_traffic_is_answered_with_a_receipt_and_one_of_the_peers_reaches_its_machine();
	test_a_ping_is_answered_by_the_way_it_came();
	test_a_peer_in_doubt_is_asked_by_relay_and_its_answer_goes_to_the_data_plane();
	test_a_ping_is_answered_by_the_very_relay_it_came_by_idle_or_not();
	test_a_peer_that_left_the_map_is_forgotten_and_what_comes_late_is_counted();
	test_a_path_of_an_earlier_stage_is_taken_over_in_doubt();
	test_who_asks_about_the_mtu_too_often_is_not_answered();
	test_the_mtu_of_a_direct_path_is_asked_and_published();
	test_the_mtu_by_relay_is_asked_there_and_of_every_relay_anew();
	test_a_probe_by_relay_that_the_first_link_refuses_costs_no_time();
	puts("ok");
}
