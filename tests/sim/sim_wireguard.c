/*
 * Two devices on a bad network, a thousand times, on virtual time.
 *
 *   alice ── loses, delays, reorders, repeats, damages; goes away and comes back; moves alice ── bob
 *     └───────────────────────────────────── relay ────────────────────────────────────────────────┘
 *
 * In the chaos both say something now and then, bob restarts, clocks are set back. With even seeds
 * both roam; with odd ones they are pinned, to the direct path, the relay, both or none, as it
 * changes. What must hold:
 *   - what is delivered was sent, unchanged, by the other, and is delivered once;
 *   - nothing grows: indices and waiting packets stay within their bounds;
 *   - when the network is good again, every packet arrives after at most 20 s;
 *   - after long silence nobody holds keys.
 *
 * usage: sim_wireguard [N_SEEDS [FIRST_SEED]]. A failure prints its seed: run that one alone.
 */
#include "node/wireguard/device_internal.h"

#include <netinet/in.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MS_NS	   UINT64_C(1000000)
#define SECOND_NS  (1000 * MS_NS)
#define FLIGHT_MAX 1024
#define SENT_MAX   4096
#define PACKET_MAX 600
#define RELAY	   7

struct sim;

struct side {
	struct sim *sim;
	struct wg_device *device;
	struct wg_peer *peer;
	struct secret_key secret;
	struct public_key public;
	struct endpoint address;
	uint8_t number;
	uint32_t n_sent;
	uint8_t n_arrived[SENT_MAX]; /* of the packets that this side sent: how often */
};

struct flight {
	bool used;
	uint64_t arrives_ns;
	struct side *to;
	struct endpoint from, dst;
	bool is_relayed;
	uint32_t size;
	uint8_t bytes[PACKET_MAX + 64];
};

struct sim {
	uint64_t seed, random;
	struct wg_time now;
	struct side alice, bob;
	struct flight flights[FLIGHT_MAX];
	unsigned loss, repeat, damage; /* of 100 */
	uint64_t max_delay_ns;
	bool is_dead; /* nothing gets through */
	bool is_pinned;
	uint64_t n_ticks;
};

static struct sim sim;
static uint64_t total_said, total_arrived, total_sessions; /* over all seeds: the chaos was real */

static void fail(const char *what)
{
	fprintf(stderr, "seed %llu at %.3f s: %s\n", (unsigned long long)sim.seed,
		(double)sim.now.ns / (double)SECOND_NS, what);
	abort();
}

static void require(bool holds, const char *what)
{
	if (!holds)
		fail(what);
}

/* ---- chance ---- */

static uint64_t draw(uint64_t below)
{
	sim.random ^= sim.random << 13;
	sim.random ^= sim.random >> 7;
	sim.random ^= sim.random << 17;
	return sim.random % below;
}

static bool chance(unsigned of_100)
{
	return draw(100) < of_100;
}

static void on_random(void *owner, void *ret, size_t size)
{
	uint8_t seed[randombytes_SEEDBYTES] = { 0 };

	draw(2);
	memcpy(seed, &sim.random, sizeof(sim.random));
	randombytes_buf_deterministic(ret, size, seed);
}

/* ---- packets ---- */

/* Packet id of a side: all of it follows from the two numbers. */
static uint32_t make_packet(uint8_t number, uint32_t id, uint8_t *ret)
{
	uint32_t n = 24 + id * 37 % (PACKET_MAX - 24);
	const uint8_t header[20] = { 0x45, 0, (uint8_t)(n >> 8), (uint8_t)n, [8] = 64, 17,
				     [12] = 10, 0, 0, number, 10, 0, 0, (uint8_t)(3 - number) };

	memcpy(ret, header, sizeof(header));
	memcpy(ret + 20, &id, sizeof(id));
	for (uint32_t i = 24; i < n; i++)
		ret[i] = (uint8_t)(id * 13 + i * number);
	return n;
}

static struct side *other(struct side *side)
{
	return side == &sim.alice ? &sim.bob : &sim.alice;
}

static uint32_t say(struct side *side)
{
	uint8_t buffer[WG_HEADROOM + PACKET_MAX + 64];
	struct train train = train_of_one(buffer + WG_HEADROOM, 0);

	require(side->n_sent < SENT_MAX, "the test says too much");
	train.size = train.last_size = train.stride = make_packet(side->number, side->n_sent, train.base);
	wg_device_send(side->device, &train, sim.now);
	return side->n_sent++;
}

static void on_deliver(void *owner, struct wg_peer *peer, const struct train *train)
{
	struct side *side = owner, *sender = other(side);
	uint8_t expected[PACKET_MAX];

	require(peer == side->peer, "from another peer");
	for (uint32_t i = 0; i < train->n; i++) {
		const uint8_t *packet = train_packet(train, i);
		uint32_t id;
		require(train_size(train, i) >= 24, "too short");
		memcpy(&id, packet + 20, sizeof(id));
		require(id < sender->n_sent, "never sent");
		uint32_t n = make_packet(sender->number, id, expected);
		require(train_size(train, i) == n && memcmp(packet, expected, n) == 0, "altered");
		require(++sender->n_arrived[id] == 1, "delivered twice");
	}
}

/* ---- the network ---- */

static void take_off(struct side *from, const struct wg_path *path, const uint8_t *bytes, uint32_t size)
{
	struct flight *flight = sim.flights;

	while (flight < sim.flights + FLIGHT_MAX && flight->used)
		flight++;
	require(flight < sim.flights + FLIGHT_MAX, "too much in flight");
	*flight = (struct flight){ .used = true, .to = other(from), .from = from->address,
				   .dst = path->remote, .size = size,
				   .is_relayed = path->relay_id != 0,
				   .arrives_ns = sim.now.ns + 1 + draw(sim.max_delay_ns) };
	memcpy(flight->bytes, bytes, size);
	if (chance(sim.damage))
		flight->bytes[draw(size)] ^= (uint8_t)(1 << draw(8));
}

static void on_transmit(void *owner, struct wg_peer *peer, const struct wg_path *path,
			const struct train *train)
{
	for (uint32_t i = 0; i < train->n; i++) {
		if (sim.is_dead || chance(sim.loss))
			continue;
		do
			take_off(owner, path, train_packet(train, i), train_size(train, i));
		while (chance(sim.repeat));
	}
}

static void land(struct flight *flight)
{
	uint8_t *bytes = malloc(flight->size); /* exact, for the sanitizer */
	struct train train = train_of_one(bytes, flight->size);
	struct wg_path from = { .remote = flight->from };

	if (flight->is_relayed)
		from = (struct wg_path){ .relay_id = RELAY, .peer_id = other(flight->to)->number };
	flight->used = false;
	memcpy(bytes, flight->bytes, flight->size);
	if (flight->is_relayed || endpoint_equal(&flight->dst, &flight->to->address))
		wg_device_receive(flight->to->device, &train, &from, sim.now);
	free(bytes);
}

static struct flight *next_flight(void)
{
	struct flight *next = NULL;

	for (struct flight *f = sim.flights; f < sim.flights + FLIGHT_MAX; f++)
		if (f->used && (!next || f->arrives_ns < next->arrives_ns))
			next = f;
	return next;
}

/* ---- time ---- */

static uint64_t earlier(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static void pass_time(uint64_t ns)
{
	uint64_t end = sim.now.ns + ns;

	for (;;) {
		struct flight *flight = next_flight();
		uint64_t deadline = earlier(wg_device_next_deadline(sim.alice.device),
					    wg_device_next_deadline(sim.bob.device));
		uint64_t next = earlier(flight ? flight->arrives_ns : UINT64_MAX, deadline);
		if (next > end)
			break;
		next = next > sim.now.ns ? next : sim.now.ns;
		sim.now.real_ns += next - sim.now.ns;
		sim.now.ns = next;
		if (flight && flight->arrives_ns <= next)
			land(flight);
		wg_device_tick(sim.alice.device, sim.now);
		wg_device_tick(sim.bob.device, sim.now);
		require(++sim.n_ticks < 100000, "time does not pass");
	}
	sim.now.real_ns += end - sim.now.ns;
	sim.now.ns = end;
}

/* ---- sides ---- */

static void on_event(void *owner, struct wg_peer *peer, const struct wg_event *event)
{
	total_sessions += event->type == WG_EVENT_SESSION;
}

static void start(struct side *side)
{
	const struct wg_config config = {
		.ports = { .owner = side, .transmit = on_transmit, .deliver = on_deliver,
			   .event = on_event, .random = on_random },
		.n_staged = 16, .staged_size = PACKET_MAX,
	};
	const struct wg_prefix prefix = { .family = AF_INET, .len = 32,
					  .ip = { 10, 0, 0, (uint8_t)(3 - side->number) } };

	require(wg_device_new(&config, &side->device) == 0, "no memory");
	wg_device_set_private_key(side->device, &side->secret);
	require(wg_device_add_peer(side->device, &other(side)->public, &side->peer) == 0, "no peer");
	require(wg_peer_allow(side->peer, &prefix) == 0, "no prefix");
	wg_peer_set_user(side->peer, other(side)->number, NULL);
	wg_peer_set_mode(side->peer, sim.is_pinned ? WG_PINNED : WG_ROAMING);
}

static void set_route(struct side *side, bool is_direct, bool is_relayed)
{
	const struct wg_path direct = { .remote = other(side)->address };
	const struct wg_path relayed = { .relay_id = RELAY, .peer_id = other(side)->number };
	struct wg_route route = { 0 };

	if (is_direct)
		route.paths[route.n++] = direct;
	if (is_relayed)
		route.paths[route.n++] = relayed;
	wg_peer_set_route(side->peer, &route, sim.now);
}

static void side_init(struct side *side, uint8_t number)
{
	*side = (struct side){ .sim = &sim, .number = number,
			       .address = endpoint_from_v4(0xc0000200 + number, 51820) };
	on_random(NULL, side->secret.bytes, KEY_LEN);
	secret_key_public(&side->secret, &side->public);
}

/* ---- one run ---- */

static void count(const struct side *side)
{
	total_said += side->n_sent;
	for (uint32_t id = 0; id < side->n_sent; id++)
		total_arrived += side->n_arrived[id];
}

static void check_bounds(const struct side *side)
{
	require(side->device->indices.n <= 4, "indices leak");
	require(side->peer->staged.n <= 16, "packets leak");
}

static void chaos_step(void)
{
	unsigned what = (unsigned)draw(100);

	pass_time(draw(3 * SECOND_NS));
	if (what < 70) {
		for (uint64_t n = draw(5); n > 0; n--)
			say(draw(2) ? &sim.alice : &sim.bob);
	} else if (what < 75) {
		sim.is_dead = !sim.is_dead;
	} else if (what < 80) {
		sim.alice.address.port++; /* a NAT has forgotten her */
	} else if (what < 84) {
		pass_time(draw(200 * SECOND_NS));
	} else if (what < 87) {
		wg_device_free(sim.bob.device); /* a crash: all in memory is gone */
		start(&sim.bob);
	} else if (what < 89) {
		sim.now.real_ns -= draw(3600 * SECOND_NS);
	} else if (what < 91) {
		wg_peer_send_keepalive(sim.alice.peer, sim.now);
	} else if (what < 93) {
		sim.loss = (unsigned)draw(60);
	} else if (what < 98 && sim.is_pinned) {
		set_route(draw(2) ? &sim.alice : &sim.bob, draw(2), draw(2));
	} else if (what < 95) {
		wg_peer_connect(draw(2) ? sim.alice.peer : sim.bob.peer, sim.now);
	}
	check_bounds(&sim.alice);
	check_bounds(&sim.bob);
}

/* The network is good: what both say from now on arrives, at the latest after 20 s. */
static void recover(void)
{
	uint32_t id = 0;
	bool arrived = false;

	sim.loss = sim.repeat = sim.damage = 0;
	sim.max_delay_ns = 30 * MS_NS;
	sim.is_dead = false;
	set_route(&sim.alice, true, sim.is_pinned);
	if (sim.is_pinned)
		set_route(&sim.bob, draw(2), true);
	for (int i = 0; i < 20 && !arrived; i++) {
		id = say(&sim.alice);
		pass_time(SECOND_NS);
		arrived = sim.alice.n_arrived[id] == 1;
	}
	require(arrived, "alice did not get through");
	for (int i = 0; i < 10; i++) {
		uint32_t a = say(&sim.alice), b = say(&sim.bob);
		pass_time(SECOND_NS);
		require(sim.alice.n_arrived[a] == 1 && sim.bob.n_arrived[b] == 1, "lost on a good network");
	}
}

static void fall_silent(void)
{
	pass_time(800 * SECOND_NS);
	require(sim.alice.device->indices.n == 0 && sim.bob.device->indices.n == 0, "keys outlive silence");
	require(wg_device_next_deadline(sim.alice.device) == UINT64_MAX, "a timer runs for nothing");
}

static void run(uint64_t seed)
{
	memset(&sim, 0, sizeof(sim));
	sim.seed = seed;
	sim.is_pinned = seed % 2 == 1;
	sim.random = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
	for (int i = 0; i < 8; i++)
		draw(2);
	sim.now = (struct wg_time){ .ns = 10000 * SECOND_NS, .real_ns = UINT64_C(1800000000) * SECOND_NS };
	sim.loss = (unsigned)draw(50);
	sim.repeat = (unsigned)draw(20);
	sim.damage = (unsigned)draw(10);
	sim.max_delay_ns = 1 + draw(400) * MS_NS;
	side_init(&sim.alice, 1);
	side_init(&sim.bob, 2);
	start(&sim.alice);
	start(&sim.bob);
	set_route(&sim.alice, true, false);

	for (int i = 0; i < 60; i++)
		chaos_step();
	recover();
	if (seed % 4 < 2)
		fall_silent();
	count(&sim.alice);
	count(&sim.bob);
	wg_device_free(sim.alice.device);
	wg_device_free(sim.bob.device);
}

int main(int argc, char *argv[])
{
	uint64_t n = argc > 1 ? strtoull(argv[1], NULL, 10) : 1000;
	uint64_t first = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;

	if (sodium_init() < 0)
		return 1;
	for (uint64_t seed = first; seed < first + n; seed++)
		run(seed);
	printf("%llu seeds: %llu packets, %llu arrived, %llu sessions; the tunnel always recovered\n",
	       (unsigned long long)n, (unsigned long long)total_said, (unsigned long long)total_arrived,
	       (unsigned long long)total_sessions / 2);
}
