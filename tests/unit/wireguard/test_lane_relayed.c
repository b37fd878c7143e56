/*
 * Data through a relay over UDP, on real lanes with real sockets on loopback; the test plays the relay, the
 * kernel's side of the TUN and what the loop does. Trains stay trains all the way, and only what the relay
 * really brought is opened by the lane itself.
 *
 *   TUN ─► lanes of a ─ header, data ─► relay ─ header, data ─► lanes of b ─► TUN
 *                                                    └ all else ─► loop of b
 */
#include "node/wireguard/lanes.h"

#include "common/relay_udp_wire.h"

#include <assert.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Long for a slow machine; the tests wait for conditions, not for this. */
#define PATIENCE_MS 30000
#define RELAY_ID    7
#define N_PACKETS   40
#define PACKET_LEN  1400
#define HEADERS_LEN 40 /* IPv4 and TCP */

struct world;

struct node {
	struct world *world;
	struct lanes *lanes;
	struct udp *udp;
	struct secret_key secret;
	struct public_key public;
	uint32_t id, slot, token;
	int kernel; /* the other end of its TUN */
	uv_poll_t poll;
	/* what has come */
	uint32_t n_sessions, n_tun_packets, n_done;
	uint32_t n_loop_data; /* WireGuard's data that came to the loop */
	uint32_t n_by_connection; /* datagrams for a relay that is not reached over UDP */
	struct wg_path last_arrival;
	bool is_deaf; /* the loop drops what the relay brings */
};

struct world {
	uv_loop_t loop;
	uv_timer_t patience;
	struct node nodes[2];
	uint32_t n_stopped;
	/* the relay */
	struct udp *relay, *stranger;
	struct udp_inbox *inbox;
	uv_poll_t relay_poll;
	void (*spoil)(struct world *world, struct train *train); /* before it is sent on; NULL: nothing */
	bool comes_from_stranger;
	uint32_t n_messages, n_data, initiator; /* messages and data datagrams; slot of the last that began a handshake */
};

static void on_patience(uv_timer_t *timer)
{
	fputs("the condition did not come\n", stderr);
	abort();
}

#define WAIT_UNTIL(world, condition)                         \
	do {                                                 \
		while (!(condition))                         \
			uv_run(&(world)->loop, UV_RUN_ONCE); \
	} while (0)

static struct node *other_of(struct node *node)
{
	return &node->world->nodes[node == &node->world->nodes[0]];
}

/* ---- the relay ---- */

static struct relay_udp_header header_of(const uint8_t *datagram, uint32_t size)
{
	struct relay_udp_header header;

	assert(relay_udp_header_decode(datagram, size, &header));
	return header;
}

static void forward(struct world *world, struct train *train)
{
	const struct relay_udp_header sent = header_of(train->base, train_size(train, 0));
	struct node *to = &world->nodes[sent.to - 1];
	const struct relay_udp_header header = {
		.type = RELAY_UDP_DATA, .to = sent.to, .from = sent.from, .token = to->token
	};
	const struct wg_path path = { .remote = endpoint_from_v4(INADDR_LOOPBACK, to->udp->port) };

	for (uint32_t i = 0; i < train->n; i++) {
		const struct relay_udp_header each = header_of(train_packet(train, i), train_size(train, i));
		const uint8_t type = train_packet(train, i)[RELAY_UDP_HEADER_LEN];
		assert(each.to == sent.to && each.from == sent.from && each.token == other_of(to)->token);
		relay_udp_header_encode(train_packet(train, i), &header);
		world->n_data += type == 4;
		if (type == 1)
			world->initiator = sent.from;
	}
	if (world->spoil)
		world->spoil(world, train);
	assert(udp_send(world->comes_from_stranger ? world->stranger : world->relay, 0, &path, train, NULL) == 0);
}

static void on_relay_readable(uv_poll_t *poll, int status, int events)
{
	struct world *world = container_of(poll, struct world, relay_poll);
	struct train train;
	int n = udp_receive(world->relay, 0, UDP_V4, world->inbox);

	for (int i = 0; i < n; i++) {
		const bool has_data = world->inbox->messages[i].at[RELAY_UDP_HEADER_LEN] == 4;
		world->n_messages += has_data;
		while (udp_message_next(&world->inbox->messages[i], &train))
			forward(world, &train);
	}
}

/* ---- the loop's part of a node ---- */

static void on_datagram(void *owner, enum demux_kind kind, const struct wg_path *from, const uint8_t *bytes,
			size_t len)
{
	const struct relay_udp_header header = header_of(bytes, (uint32_t)len);
	struct node *node = owner;
	struct wg_path way = { .relay_id = RELAY_ID, .peer_id = other_of(node)->id };
	uint8_t copy[2048];

	assert(kind == DEMUX_RELAY && header.type == RELAY_UDP_DATA && len <= sizeof(copy));
	node->n_loop_data += bytes[RELAY_UDP_HEADER_LEN] == 4;
	if (node->is_deaf)
		return;
	memcpy(copy, bytes + RELAY_UDP_HEADER_LEN, len - RELAY_UDP_HEADER_LEN);
	const struct train train = train_of_one(copy, len - RELAY_UDP_HEADER_LEN);
	assert(lanes_put_relayed(node->lanes, &way, &train) == 0);
}

/* By another way, as the answer to what came by none of the lanes' own. */
static void on_relay(void *owner, const struct wg_path *path, const struct train *train)
{
	struct node *node = owner;
	const struct wg_path from = { .relay_id = path->relay_id, .peer_id = node->id };

	node->n_by_connection += train->n;
	assert(lanes_put_relayed(other_of(node)->lanes, &from, train) == 0);
}

static void on_peer(void *owner, const struct lanes_peer_event *event)
{
	struct node *node = owner;

	node->n_sessions += event->type == WG_EVENT_SESSION;
	if (event->type == WG_EVENT_ARRIVAL)
		node->last_arrival = event->path;
}

static void on_tun_readable(uv_poll_t *poll, int status, int events)
{
	struct node *node = container_of(poll, struct node, poll);
	uint8_t bytes[OFFLOAD_HEADER_LEN + 2048];
	ssize_t n;

	while ((n = recv(node->kernel, bytes, sizeof(bytes), MSG_DONTWAIT)) > 0) {
		assert(n == OFFLOAD_HEADER_LEN + PACKET_LEN && bytes[n - 1] == 0x5a);
		node->n_tun_packets++;
	}
}

/* ---- a world ---- */

static void start_node(struct world *world, uint32_t i, unsigned n_lanes)
{
	struct node *node = &world->nodes[i];
	const struct udp_options options = { .n_shards = lanes_n_shards(n_lanes) };
	const int room = 4 << 20;
	int pair[2];

	*node = (struct node){ .world = world, .id = 100 + i, .slot = 1 + i, .token = 1000 + i };
	secret_key_generate(&node->secret);
	secret_key_public(&node->secret, &node->public);
	assert(udp_open(&options, &node->udp, NULL) == 0);
	assert(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair) == 0);
	for (int k = 0; k < 2; k++)
		(void)setsockopt(pair[k], SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room));
	node->kernel = pair[0];
	uv_poll_init(&world->loop, &node->poll, node->kernel);
	uv_poll_start(&node->poll, UV_READABLE, on_tun_readable);
	const struct tun tun = { .fd = pair[1], .has_header = true };
	const struct lanes_config config = {
		.loop = &world->loop,
		.ports = { node, on_datagram, on_relay, on_peer, NULL },
		.tuns_take = &tun,
		.n_tuns = 1,
		.n_lanes = n_lanes,
		.udp = node->udp,
	};
	assert(lanes_start(&config, &node->lanes, NULL) == 0);
}

static void begin(struct world *world, unsigned n_lanes)
{
	memset(world, 0, sizeof(*world));
	uv_loop_init(&world->loop);
	uv_timer_init(&world->loop, &world->patience);
	uv_timer_start(&world->patience, on_patience, PATIENCE_MS, 0);
	world->inbox = calloc(1, sizeof(*world->inbox));
	assert(udp_open(&(struct udp_options){ 0 }, &world->relay, NULL) == 0);
	assert(udp_open(&(struct udp_options){ 0 }, &world->stranger, NULL) == 0);
	uv_poll_init(&world->loop, &world->relay_poll, udp_fd(world->relay, 0, UDP_V4));
	uv_poll_start(&world->relay_poll, UV_READABLE, on_relay_readable);
	for (uint32_t i = 0; i < 2; i++)
		start_node(world, i, n_lanes);
}

static void on_stopped(void *arg)
{
	struct world *world = arg;

	world->n_stopped++;
}

static void end(struct world *world)
{
	for (int i = 0; i < 2; i++)
		lanes_stop(world->nodes[i].lanes, on_stopped, world);
	WAIT_UNTIL(world, world->n_stopped == 2);
	for (int i = 0; i < 2; i++) {
		uv_close((uv_handle_t *)&world->nodes[i].poll, NULL);
		udp_free(world->nodes[i].udp);
	}
	uv_close((uv_handle_t *)&world->relay_poll, NULL);
	uv_close((uv_handle_t *)&world->patience, NULL);
	uv_run(&world->loop, UV_RUN_DEFAULT);
	for (int i = 0; i < 2; i++)
		close(world->nodes[i].kernel);
	udp_free(world->relay);
	udp_free(world->stranger);
	free(world->inbox);
	assert(uv_loop_close(&world->loop) == 0);
}

/* ---- commands ---- */

static void on_done(void *arg)
{
	struct node *node = arg;

	node->n_done++;
}

static void run(struct node *node, void (*fn)(const struct lanes_context *context, void *arg))
{
	const uint32_t before = node->n_done;

	assert(lanes_run(node->lanes, fn, node, on_done) == 0);
	WAIT_UNTIL(node->world, node->n_done > before);
}

static void add_another(const struct lanes_context *context, void *arg)
{
	const struct public_key key = { { 9 } };
	struct wg_peer *peer;

	assert(wg_device_add_peer(context->device, &key, &peer) == 0);
}

static void add_other(const struct lanes_context *context, void *arg)
{
	const struct wg_prefix all = { .family = AF_INET };
	struct node *node = arg, *other = other_of(node);
	struct wg_route route = { .n = 1 };
	struct wg_peer *peer;

	route.paths[0] = (struct wg_path){ .relay_id = RELAY_ID, .peer_id = other->id };
	route.paths[0].remote = endpoint_from_v4(INADDR_LOOPBACK, node->world->relay->port);
	relay_udp_header_encode(route.paths[0].relay_header,
				&(struct relay_udp_header){ RELAY_UDP_DATA, other->slot, node->slot, node->token });
	wg_device_set_private_key(context->device, &node->secret);
	assert(wg_device_add_peer(context->device, &other->public, &peer) == 0);
	wg_peer_set_user(peer, other->id, NULL);
	wg_peer_set_mode(peer, WG_PINNED);
	assert(wg_peer_allow(peer, &all) == 0);
	wg_peer_set_route(peer, &route, context->now);
}

static void remove_other(const struct lanes_context *context, void *arg)
{
	wg_device_remove_peer(context->device, wg_device_first_peer(context->device));
}

static void shake_hands(const struct lanes_context *context, void *arg)
{
	wg_peer_set_keepalive(wg_device_find_peer(context->device, &other_of(arg)->public), 25, context->now);
}

static void use_relay(const struct lanes_context *context, void *arg)
{
	const struct node *node = arg;
	const struct udp_relays relays = {
		.n = 1,
		.relays = { { .relay_id = RELAY_ID,
			      .remote = endpoint_from_v4(INADDR_LOOPBACK, node->world->relay->port),
			      .slot = node->slot,
			      .token = node->token } },
	};

	lanes_set_relays(context, &relays);
}

static void use_no_relay(const struct lanes_context *context, void *arg)
{
	const struct udp_relays none = { 0 };

	lanes_set_relays(context, &none);
}

/* Both are bound to the relay and have a session through it. */
static void connect_both(struct world *world)
{
	struct node *a = &world->nodes[0], *b = &world->nodes[1];

	run(a, use_relay);
	run(b, use_relay);
	run(b, add_other);
	run(a, add_other);
	run(a, shake_hands);
	WAIT_UNTIL(world, a->n_sessions > 0 && b->n_sessions > 0 && b->last_arrival.relay_id != 0);
}

/* ---- packets ---- */

static struct lane_counters counters_of(const struct node *node)
{
	struct lane_counters counters;

	lanes_get_counters(node->lanes, &counters);
	return counters;
}

/* One superpacket of so many packets, as the kernel hands it to the TUN. */
static void put_superpacket(struct node *node, uint32_t n)
{
	static uint8_t bytes[OFFLOAD_HEADER_LEN + 65536];
	const uint32_t payload = PACKET_LEN - HEADERS_LEN, len = HEADERS_LEN + n * payload;
	const struct offload_header header = {
		.flags = OFFLOAD_NEEDS_CSUM,
		.gso_type = n > 1 ? OFFLOAD_GSO_TCP4 : OFFLOAD_GSO_NONE,
		.hdr_len = HEADERS_LEN,
		.gso_size = (uint16_t)(n > 1 ? payload : 0),
		.csum_start = 20,
		.csum_offset = 16,
	};
	uint8_t *ip = bytes + OFFLOAD_HEADER_LEN;

	memset(bytes, 0x5a, sizeof(bytes));
	memcpy(bytes, &header, OFFLOAD_HEADER_LEN);
	memset(ip, 0, HEADERS_LEN);
	ip[0] = 0x45;
	ip[2] = (uint8_t)(len >> 8);
	ip[3] = (uint8_t)len;
	ip[8] = 64;
	ip[9] = IPPROTO_TCP;
	ip[12] = ip[16] = 10;
	ip[20 + 12] = 5 << 4;
	ip[20 + 13] = 0x10; /* ACK */
	assert(send(node->kernel, bytes, OFFLOAD_HEADER_LEN + len, 0) == (ssize_t)(OFFLOAD_HEADER_LEN + len));
}

/* ---- tests ---- */

static void test_data_takes_the_lane_and_trains_stay_trains(unsigned n_lanes)
{
	struct world world;
	struct node *a = &world.nodes[0], *b = &world.nodes[1];
	begin(&world, n_lanes);
	connect_both(&world);
	const uint64_t before = counters_of(b).n_udp_relayed, messages_before = counters_of(b).n_udp_messages;
	assert(before > 0); /* the keepalive that ended the handshake */
	world.n_messages = 0;

	put_superpacket(a, N_PACKETS);
	WAIT_UNTIL(&world, b->n_tun_packets == N_PACKETS);
	assert(counters_of(b).n_udp_relayed == before + N_PACKETS && b->n_loop_data == 0);
	if (world.relay->joins) { /* else the kernel is too old */
		assert(world.n_messages == 1);
		assert(counters_of(b).n_udp_messages == messages_before + 1);
	}
	assert(b->last_arrival.relay_id == RELAY_ID && b->last_arrival.peer_id == a->id);
	assert(a->n_by_connection == 0);
	end(&world);
}

/* The session is one of b's second shard: the kernel must look behind the header. */
static void test_with_a_lane_for_each_session_it_comes_to_that_lane(void)
{
	struct world world;
	struct node *a = &world.nodes[0], *b = &world.nodes[1];
	struct lane_counters lane;
	const char *role;
	begin(&world, 4);
	run(b, add_another);
	connect_both(&world);

	put_superpacket(a, N_PACKETS);
	WAIT_UNTIL(&world, b->n_tun_packets == N_PACKETS);
	assert(b->n_loop_data == 0);
	for (unsigned i = 0; lanes_get_lane(b->lanes, i, &lane, &role); i++)
		assert(i == 1 ? lane.n_udp_relayed >= N_PACKETS : lane.n_udp_relayed == 0);
	end(&world);
}

/* Of a train that the kernel joins the first datagram decides who gets it. */
static void spoil_first_index(struct world *world, struct train *train)
{
	if (train->n > 1)
		train_packet(train, 0)[RELAY_UDP_HEADER_LEN + 4] ^= 1;
}

static void test_what_comes_to_another_lane_is_passed_on_to_its_own(void)
{
	struct world world;
	struct node *a = &world.nodes[0], *b = &world.nodes[1];
	begin(&world, 4);
	connect_both(&world);
	const uint64_t before = counters_of(b).n_udp_relayed;

	world.spoil = spoil_first_index;
	b->is_deaf = true;
	for (uint32_t i = 1; i <= 20; i++) {
		put_superpacket(a, N_PACKETS);
		WAIT_UNTIL(&world, b->n_tun_packets == (N_PACKETS - 1) * i && b->n_loop_data == i);
	}
	if (world.relay->joins)
		assert(counters_of(b).n_udp_relayed == before); /* by no lane that received it itself */
	end(&world);
}

static void spoil_token(struct world *world, struct train *train)
{
	for (uint32_t i = 0; i < train->n; i++)
		train_packet(train, i)[15] ^= 1;
}

static void spoil_slot(struct world *world, struct train *train)
{
	for (uint32_t i = 0; i < train->n; i++)
		train_packet(train, i)[7] ^= 0x10;
}

static void come_from_stranger(struct world *world, struct train *train)
{
	world->comes_from_stranger = true;
}

static void test_what_the_relay_did_not_bring_us_is_not_opened(void (*spoil)(struct world *, struct train *))
{
	struct world world;
	struct node *a = &world.nodes[0], *b = &world.nodes[1];
	begin(&world, 2);
	connect_both(&world);
	const uint64_t before = counters_of(b).n_udp_relayed;

	world.spoil = spoil;
	b->is_deaf = true;
	put_superpacket(a, 5);
	WAIT_UNTIL(&world, b->n_loop_data == 5);
	assert(counters_of(b).n_udp_relayed == before && b->n_tun_packets == 0);

	world.spoil = NULL;
	world.comes_from_stranger = false;
	put_superpacket(a, 5);
	WAIT_UNTIL(&world, b->n_tun_packets == 5);
	assert(b->n_loop_data == 5);
	end(&world);
}

static void spoil_every_third(struct world *world, struct train *train)
{
	for (uint32_t i = 0; i < train->n; i += 3)
		train_packet(train, i)[RELAY_UDP_HEADER_LEN + 4] ^= 1; /* WireGuard's index */
}

static void test_of_a_mixed_train_the_lane_takes_what_is_its_own(void)
{
	struct world world;
	struct node *a = &world.nodes[0], *b = &world.nodes[1];
	begin(&world, 2);
	connect_both(&world);

	world.spoil = spoil_every_third;
	b->is_deaf = true;
	put_superpacket(a, 30);
	WAIT_UNTIL(&world, b->n_tun_packets == 20 && b->n_loop_data == 10);
	end(&world);
}

static void test_data_of_a_session_that_was_lost_makes_us_begin_one(void)
{
	struct world world;
	struct node *a = &world.nodes[0], *b = &world.nodes[1];
	begin(&world, 2);
	connect_both(&world);
	const uint32_t n_sessions = b->n_sessions;

	run(b, remove_other);
	run(b, add_other);
	world.initiator = 0;
	put_superpacket(a, 1);
	WAIT_UNTIL(&world, b->n_sessions > n_sessions);
	assert(b->n_loop_data > 0 && world.initiator == b->slot);
	end(&world);
}

/* Without a relay in the table the loop brings the same data to the lane. */
static void test_the_table_changes_while_data_flows_and_nothing_is_lost(unsigned n_lanes)
{
	struct world world;
	struct node *a = &world.nodes[0], *b = &world.nodes[1];
	begin(&world, n_lanes);
	connect_both(&world);

	for (uint32_t i = 1; i <= 60; i++) {
		put_superpacket(a, 8);
		run(b, i % 2 ? use_no_relay : use_relay);
		WAIT_UNTIL(&world, b->n_tun_packets >= 8 * (i - 1));
	}
	WAIT_UNTIL(&world, b->n_tun_packets == 8 * 60);
	run(b, use_no_relay);
	const uint64_t before = counters_of(b).n_udp_relayed;
	put_superpacket(a, 8);
	WAIT_UNTIL(&world, b->n_tun_packets == 8 * 61);
	assert(counters_of(b).n_udp_relayed == before && b->n_loop_data >= 8);
	end(&world);
}

int main(void)
{
	if (sodium_init() < 0)
		return 1;
	for (unsigned n_lanes = 1; n_lanes <= 4; n_lanes *= 2)
		test_data_takes_the_lane_and_trains_stay_trains(n_lanes);
	test_with_a_lane_for_each_session_it_comes_to_that_lane();
	test_what_comes_to_another_lane_is_passed_on_to_its_own();
	test_what_the_relay_did_not_bring_us_is_not_opened(spoil_token);
	test_what_the_relay_did_not_bring_us_is_not_opened(spoil_slot);
	test_what_the_relay_did_not_bring_us_is_not_opened(come_from_stranger);
	test_of_a_mixed_train_the_lane_takes_what_is_its_own();
	test_data_of_a_session_that_was_lost_makes_us_begin_one();
	test_the_table_changes_while_data_flows_and_nothing_is_lost(1);
	test_the_table_changes_while_data_flows_and_nothing_is_lost(4);
	puts("ok");
	return 0;
}
