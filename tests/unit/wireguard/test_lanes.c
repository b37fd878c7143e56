/*
 * What a lane on a thread of its own does not let others do to it: here it is bob's, and its thread is
 * the test's. The device takes its news when the test says so.
 */
#include "tests/unit/wireguard/tunnel.h"

#include "node/wireguard/device_internal.h"
#include "node/wireguard/wait_budget.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define MILLISECOND_NS UINT64_C(1000000)

static struct world w;
static struct wg_lane *lane;
static struct wg_reader *reader;
static unsigned n_waits, n_delivered;

static void on_transmit(void *owner, struct wg_peer *peer, const struct wg_path *path, const struct train *train)
{
}

static void on_deliver(void *owner, struct wg_peer *peer, const struct train *train)
{
	n_delivered += train->n;
}

static bool on_hand(void *owner, const struct wg_news *news)
{
	return true; /* and the device is busy with something else */
}

static bool on_wait(void *owner, unsigned n)
{
	n_waits++;
	return false;
}

/* A session from alice to bob, and a lane of bob's beside the one that took part in it. */
static void begin(uint32_t n_shards)
{
	const struct wg_config config = { .mtu = 1420, .n_shards = n_shards };
	const struct wg_lane_ports ports = {
		.transmit = on_transmit, .deliver = on_deliver, .hand = on_hand, .wait = on_wait
	};

	world_begin_with(&w, &config);
	connect_both(&w);
	n_waits = n_delivered = 0;
	reader = wg_readers_add(wg_device_readers(w.bob.device));
	int r = wg_lane_new(w.bob.device, &ports, reader, &lane);
	assert(r == 0);
}

static void end(void)
{
	wg_lane_free(lane);
	world_end(&w);
}

/* One packet of alice's arrives at the lane by this path. */
static void arrive_by(const struct wg_path *from)
{
	say(&w.alice, 1, 100);
	struct datagram datagram = cable_take(&w);
	const struct train train = train_of_one(datagram.bytes, datagram.size);

	wg_reader_enter(wg_device_readers(w.bob.device), reader);
	wg_lane_receive(lane, &train, from, w.now);
	wg_reader_leave(reader);
}

static void arrive_from(uint16_t port)
{
	const struct wg_path from = { .remote = endpoint_from_v4(0xcb007105, port) };

	arrive_by(&from);
}

static void test_a_peer_that_moves_with_each_packet_is_not_waited_for_each_time(void)
{
	begin(1);
	for (uint16_t i = 0; i < 100; i++)
		arrive_from(1000 + i % 2);
	assert(n_waits == 1);
	w.now.ns += 200 * MILLISECOND_NS;
	arrive_from(3000);
	assert(n_waits == 2); /* one that moves now and then is */
	assert(n_delivered == 101);
	end();
}

/* Where answers leave elsewhere the device learns no source, however often it is told of one. */
static void test_a_peer_whose_source_is_left_to_routing_is_not_waited_for(void)
{
	begin(1);
	const struct wg_path from = { .remote = w.alice.address, .local_ip = { [15] = 9 }, .ifindex = 3 };

	for (int i = 0; i < 3; i++) {
		arrive_by(&from);
		w.now.ns += 2000 * MILLISECOND_NS;
	}
	assert(n_waits == 0 && n_delivered == 3);

	struct wg_route without_interface = { .n = 1, .paths = { from } };
	without_interface.paths[0].ifindex = 0;
	wg_peer_set_route(w.bob.peer, &without_interface, w.now);
	arrive_by(&from);
	assert(n_waits == 0 && n_delivered == 4);
	end();
}

static void test_a_lane_opens_no_session_of_another_lane(void)
{
	begin(2);
	const uint32_t own = w.bob.peer->shard;

	wg_lane_set_shard(lane, 1 - own);
	arrive_from(1000);
	assert(n_delivered == 0 && wg_lane_drops(lane, WG_DROP_UNKNOWN_INDEX) == 1);
	wg_lane_set_shard(lane, own);
	arrive_from(1000);
	assert(n_delivered == 1);
	end();
}

static void test_a_lane_stands_still_for_a_tenth_of_the_time_at_most(void)
{
	struct wait_budget budget = { 0 };
	uint64_t now_ns = 1000 * MILLISECOND_NS, waited_ns = 0;

	/* as often as it may, a millisecond each time, in 10 s */
	while (now_ns < 11000 * MILLISECOND_NS) {
		if (wait_budget_allows(&budget, now_ns)) {
			wait_budget_spend(&budget, MILLISECOND_NS);
			waited_ns += MILLISECOND_NS;
		}
		now_ns += MILLISECOND_NS;
	}
	assert(waited_ns >= 1000 * MILLISECOND_NS);
	assert(waited_ns <= 1000 * MILLISECOND_NS + WAIT_BUDGET_MAX_NS);
}

int main(void)
{
	test_a_peer_that_moves_with_each_packet_is_not_waited_for_each_time();
	test_a_peer_whose_source_is_left_to_routing_is_not_waited_for();
	test_a_lane_opens_no_session_of_another_lane();
	test_a_lane_stands_still_for_a_tenth_of_the_time_at_most();
	puts("ok");
	return 0;
}
