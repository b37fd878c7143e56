/*
 * The lanes with a real loop, real sockets on loopback and no TUN: commands run and are answered,
 * what is not WireGuard comes to the loop, two devices shake hands directly and through a relay that
 * the test plays, and stopping leaves nothing behind.
 */
#include "node/wireguard/lanes.h"

#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Long for a slow machine; the tests wait for conditions, not for this. */
#define PATIENCE_MS 20000

struct world;

/* One node: lanes on a loopback port. */
struct node {
	struct world *world;
	struct lanes *lanes;
	struct udp *udp;
	struct secret_key secret;
	struct public_key public;
	uint32_t id;
	uint32_t n_run; /* of the device's thread */
	/* what has come to the loop */
	uint32_t n_done, n_sessions, n_arrivals, n_datagrams, n_relayed;
	enum demux_kind last_kind;
	struct wg_path last_from, last_arrival;
	uint8_t last_bytes[64];
	size_t last_len;
};

struct world {
	uv_loop_t loop;
	uv_timer_t patience;
	struct node nodes[2];
	uint32_t n_stopped;
};

static void on_patience(uv_timer_t *timer)
{
	fputs("the condition did not come\n", stderr);
	abort();
}

static void on_stopped(void *arg)
{
	struct world *world = arg;

	world->n_stopped++;
}

#define WAIT_UNTIL(world, condition)                       \
	do {                                               \
		while (!(condition))                       \
			uv_run(&(world)->loop, UV_RUN_ONCE); \
	} while (0)

/* ports */

static void on_datagram(void *owner, enum demux_kind kind, const struct wg_path *from, const uint8_t *bytes,
			size_t len)
{
	struct node *node = owner;

	node->n_datagrams++;
	node->last_kind = kind;
	node->last_from = *from;
	node->last_len = len;
	memcpy(node->last_bytes, bytes, len < sizeof(node->last_bytes) ? len : sizeof(node->last_bytes));
}

/* The test is the relay: what one node sends through it comes to the other. */
static void on_relay(void *owner, const struct wg_path *path, const struct train *train)
{
	struct node *node = owner;
	struct node *other = &node->world->nodes[node == &node->world->nodes[0]];
	struct wg_path from = { .relay_id = path->relay_id, .peer_id = node->id };

	assert(path->peer_id == other->id && train_is_contiguous(train));
	node->n_relayed += train->n;
	assert(lanes_put_relayed(other->lanes, &from, train) == 0);
}

static void on_peer(void *owner, const struct lanes_peer_event *event)
{
	struct node *node = owner;

	node->n_sessions += event->type == WG_EVENT_SESSION;
	if (event->type == WG_EVENT_ARRIVAL) {
		node->n_arrivals++;
		node->last_arrival = event->path;
	}
}

/* a world */

static void start_node(struct world *world, int i, bool is_plain)
{
	struct node *node = &world->nodes[i];
	const struct udp_options options = { 0 };

	memset(node, 0, sizeof(*node));
	node->world = world;
	node->id = 100 + (uint32_t)i;
	secret_key_generate(&node->secret);
	secret_key_public(&node->secret, &node->public);
	assert(udp_open(&options, &node->udp, NULL) == 0);
	const struct lanes_config config = {
		.loop = &world->loop,
		.ports = { node, on_datagram, on_relay, on_peer, NULL },
		.udp = node->udp,
		.is_plain = is_plain,
	};
	assert(lanes_start(&config, &node->lanes, NULL) == 0);
}

static void begin(struct world *world, bool is_plain)
{
	memset(world, 0, sizeof(*world));
	uv_loop_init(&world->loop);
	uv_timer_init(&world->loop, &world->patience);
	uv_timer_start(&world->patience, on_patience, PATIENCE_MS, 0);
	for (int i = 0; i < 2; i++)
		start_node(world, i, is_plain);
}

static void end(struct world *world)
{
	for (int i = 0; i < 2; i++)
		if (world->nodes[i].lanes)
			lanes_stop(world->nodes[i].lanes, on_stopped, world);
	WAIT_UNTIL(world, world->n_stopped == 2);
	for (int i = 0; i < 2; i++)
		udp_free(world->nodes[i].udp);
	uv_close((uv_handle_t *)&world->patience, NULL);
	uv_run(&world->loop, UV_RUN_DEFAULT);
	assert(uv_loop_close(&world->loop) == 0);
}

static struct endpoint loopback(const struct node *node)
{
	return endpoint_from_v4(INADDR_LOOPBACK, node->udp->port);
}

static void send_raw(struct node *from, const struct node *to, const void *bytes, size_t len)
{
	struct wg_path path = { .remote = loopback(to) };
	uint8_t copy[64];

	memcpy(copy, bytes, len);
	struct train train = train_of_one(copy, len);
	assert(udp_send(from->udp, 0, &path, &train, NULL) == 0);
}

/* commands */

static void run_once(const struct lanes_context *context, void *arg)
{
	struct node *node = arg;

	node->n_run++;
}

static void on_done(void *arg)
{
	struct node *node = arg;

	node->n_done++;
}

static void test_commands_run_on_the_lane_and_are_answered_on_the_loop(void)
{
	struct world world;
	begin(&world, true);

	for (int i = 0; i < 100; i++)
		assert(lanes_run(world.nodes[0].lanes, run_once, &world.nodes[0], on_done) == 0);
	WAIT_UNTIL(&world, world.nodes[0].n_done == 100);
	end(&world);
	assert(world.nodes[0].n_run == 100);
}

static uint32_t n_slow_done;

static void wait_for_byte(const struct lanes_context *context, void *arg)
{
	char byte;

	assert(read(*(int *)arg, &byte, 1) == 1);
}

static void on_slow_done(void *arg)
{
	n_slow_done++;
}

static void nothing(const struct lanes_context *context, void *arg)
{
}

static void test_a_full_queue_is_told_and_nothing_accepted_is_lost(void)
{
	struct world world;
	int gate[2];
	begin(&world, true);

	assert(pipe(gate) == 0);
	n_slow_done = 0;
	assert(lanes_run(world.nodes[0].lanes, wait_for_byte, &gate[0], on_slow_done) == 0);
	for (int i = 1; i < LANES_MAX_COMMANDS; i++)
		assert(lanes_run(world.nodes[0].lanes, nothing, NULL, on_slow_done) == 0);
	assert(lanes_run(world.nodes[0].lanes, nothing, NULL, on_slow_done) == -EAGAIN);
	assert(write(gate[1], "x", 1) == 1);
	/* Stopping at once: what was accepted is still run and answered. */
	end(&world);
	assert(n_slow_done == LANES_MAX_COMMANDS);
	close(gate[0]);
	close(gate[1]);
}

/* datagrams */

static void test_what_is_not_wireguard_comes_to_the_loop(void)
{
	static const uint8_t session[12] = { 0xd2, 0x70, 0x32, 0x70, 1, 2, 3, 4, 5, 6, 7, 8 };
	static const uint8_t stun[20] = { 1, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42 };
	struct world world;
	begin(&world, false);
	struct node *a = &world.nodes[0], *b = &world.nodes[1];

	send_raw(a, b, session, sizeof(session));
	WAIT_UNTIL(&world, b->n_datagrams == 1);
	assert(b->last_kind == DEMUX_SESSION && b->last_len == sizeof(session));
	assert(memcmp(b->last_bytes, session, sizeof(session)) == 0);
	struct endpoint sender = loopback(a);
	assert(endpoint_equal(&b->last_from.remote, &sender));
	send_raw(a, b, stun, sizeof(stun));
	WAIT_UNTIL(&world, b->n_datagrams == 2);
	assert(b->last_kind == DEMUX_STUN);
	end(&world);
}

static void test_garbage_is_counted_and_dropped(void)
{
	static const uint8_t garbage[16] = { 0x99, 1 }, session[12] = { 0xd2, 0x70, 0x32, 0x70 };
	struct lane_counters counters = { 0 };
	struct world world;
	begin(&world, false);
	struct node *a = &world.nodes[0], *b = &world.nodes[1];

	send_raw(a, b, garbage, sizeof(garbage));
	send_raw(a, b, session, sizeof(session));
	WAIT_UNTIL(&world, b->n_datagrams == 1);
	lanes_get_counters(b->lanes, &counters);
	assert(counters.n_unknown == 1 && counters.n_udp_datagrams == 2);
	end(&world);
}

/* devices */

struct introduction {
	struct node *node, *peer;
	struct wg_route route;
	enum wg_mode mode;
};

static void introduce(const struct lanes_context *context, void *arg)
{
	const struct introduction *introduction = arg;
	struct wg_peer *peer;

	wg_device_set_private_key(context->device, &introduction->node->secret);
	assert(wg_device_add_peer(context->device, &introduction->peer->public, &peer) == 0);
	wg_peer_set_user(peer, introduction->peer->id, NULL);
	wg_peer_set_mode(peer, introduction->mode);
	if (introduction->route.n > 0) {
		wg_peer_set_route(peer, &introduction->route, context->now);
		wg_peer_set_keepalive(peer, 25, context->now);
	}
}

/* a knows the way to b; b knows a's key only. */
static void shake_hands(struct world *world, const struct wg_path *way, enum wg_mode mode)
{
	struct node *a = &world->nodes[0], *b = &world->nodes[1];
	struct introduction to_b = { a, b, { .n = 1, .paths = { *way } }, mode };
	struct introduction to_a = { b, a, { .n = 0 }, mode };

	assert(lanes_run(b->lanes, introduce, &to_a, NULL) == 0);
	assert(lanes_run(a->lanes, introduce, &to_b, NULL) == 0);
	WAIT_UNTIL(world, a->n_sessions > 0 && b->n_sessions > 0 && b->n_arrivals > 0);
}

static void test_two_devices_shake_hands(void)
{
	struct world world;
	begin(&world, true);

	struct wg_path way = { .remote = loopback(&world.nodes[1]) };
	shake_hands(&world, &way, WG_ROAMING);
	struct endpoint from = loopback(&world.nodes[0]);
	assert(endpoint_equal(&world.nodes[1].last_arrival.remote, &from));
	assert(world.nodes[0].n_relayed == 0);
	end(&world);
}

static void test_two_devices_shake_hands_through_a_relay(void)
{
	struct world world;
	begin(&world, false);

	struct wg_path way = { .relay_id = 7, .peer_id = world.nodes[1].id };
	shake_hands(&world, &way, WG_PINNED);
	assert(world.nodes[1].last_arrival.relay_id == 7);
	assert(world.nodes[1].last_arrival.peer_id == world.nodes[0].id);
	assert(world.nodes[0].n_relayed > 0 && world.nodes[1].n_relayed > 0);
	end(&world);
}

/* sockets */

static void use_none(const struct lanes_context *context, void *arg)
{
	lanes_use_udp(context, NULL);
}

static void use_these(const struct lanes_context *context, void *arg)
{
	lanes_use_udp(context, arg);
}

static void free_udp(void *arg)
{
	udp_free(arg);
}

static void test_sockets_change_while_it_runs(void)
{
	static const uint8_t session[12] = { 0xd2, 0x70, 0x32, 0x70 };
	const struct udp_options options = { 0 };
	struct world world;
	begin(&world, false);
	struct node *a = &world.nodes[0], *b = &world.nodes[1];

	assert(lanes_run(b->lanes, use_none, b->udp, free_udp) == 0);
	assert(udp_open(&options, &b->udp, NULL) == 0);
	assert(lanes_run(b->lanes, use_these, b->udp, NULL) == 0);
	send_raw(a, b, session, sizeof(session));
	WAIT_UNTIL(&world, b->n_datagrams == 1);
	end(&world);
}

int main(void)
{
	if (sodium_init() < 0)
		return 1;
	test_commands_run_on_the_lane_and_are_answered_on_the_loop();
	test_a_full_queue_is_told_and_nothing_accepted_is_lost();
	test_what_is_not_wireguard_comes_to_the_loop();
	test_garbage_is_counted_and_dropped();
	test_two_devices_shake_hands();
	test_two_devices_shake_hands_through_a_relay();
	test_sockets_change_while_it_runs();
	puts("ok");
	return 0;
}
