/*
 * Nodes at a relay over UDP while the network loses, the relay dies, restarts and drains, and addresses change:
 *
 *   sim_relay_udp SEEDS
 *
 * 1. After whatever happened, two seconds of peace and all are bound, find each other, and packets arrive.
 * 2. Half of the datagrams lost, each way, is not a dead relay: one-way traffic, where only pings are answered.
 * 3. Nothing is ever larger than what it answers (asserted in the world).
 */
#include "tests/sim/relay_udp_world.h"

#include <assert.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

#define N 3

static void fail(const struct world *w, uint64_t seed, const char *what)
{
	fprintf(stderr, "seed %llu at %llu ms: %s\n", (unsigned long long)seed,
		(unsigned long long)(w->now_us / 1000), what);
	for (unsigned i = 0; i < N; i++)
		fprintf(stderr, "node %u:\n%s", i, w->nodes[i].trace);
	exit(1);
}

static void happen(struct world *w)
{
	struct world_node *node = &w->nodes[world_random(w) % N];

	switch (world_random(w) % 12) {
	case 0:
		w->loss_percent = (unsigned)(world_random(w) % 90);
		break;
	case 1:
		w->is_dead = true;
		break;
	case 2:
		world_restart_relay(w);
		break;
	case 3:
		world_drain_relay(w, 1000);
		break;
	case 4:
		node->at.port++;
		break;
	case 5:
		node->at.port++;
		world_input(node, RELAY_UDP_IN_POKE);
		break;
	case 6:
		w->is_deaf[0] = !w->is_deaf[0];
		break;
	case 7:
		world_input(node, RELAY_UDP_IN_STOP);
		world_start(node);
		break;
	default:
		if (relay_udp_fsm_is_bound(&node->fsm)) {
			world_find(node, &w->nodes[world_random(w) % N].key, 0);
			world_send(node, (uint32_t)world_random(w));
		}
		break;
	}
	world_pass(w, 1 + world_random(w) % 300);
}

static void make_peace(struct world *w)
{
	w->loss_percent = 0;
	w->is_dead = w->is_deaf[0] = false;
	for (unsigned i = 0; i < N; i++)
		world_input(&w->nodes[i], RELAY_UDP_IN_POKE);
	world_pass(w, 2000);
	/* Who had another address all the time is told by what it sends. */
	for (unsigned i = 0; i < N; i++)
		if (relay_udp_fsm_is_bound(&w->nodes[i].fsm))
			world_send(&w->nodes[i], 1);
	world_pass(w, 100);
}

/* The first was told that another has its key when its own notice went astray: a wait is right then. */
static bool is_waiting_rightly(const struct world_node *node)
{
	return node->fsm.state == RELAY_UDP_WAITING && node->n_bound > 0;
}

static void check_service(struct world *w, uint64_t seed)
{
	for (unsigned i = 0; i < N; i++) {
		struct world_node *node = &w->nodes[i], *peer = &w->nodes[(i + 1) % N];
		if (is_waiting_rightly(node) || is_waiting_rightly(peer))
			continue;
		if (node->fsm.state != RELAY_UDP_IS_BOUND)
			fail(w, seed, "not bound");
		node->found_slot = 0;
		world_find(node, &peer->key, 0);
		world_pass(w, 100);
		if (node->found_slot != peer->fsm.slot)
			fail(w, seed, "the peer was not found");
		const unsigned before = peer->n_packets;
		world_send(node, node->found_slot);
		world_pass(w, 100);
		if (peer->n_packets != before + 1)
			fail(w, seed, "the packet did not arrive");
	}
}

static void run_chaos(uint64_t seed)
{
	static struct world w;

	world_begin(&w);
	w.seed = seed;
	for (unsigned i = 0; i < N; i++)
		world_start(&w.nodes[i]);
	for (unsigned i = 0; i < 40; i++)
		happen(&w);
	make_peace(&w);
	check_service(&w, seed);
	world_end(&w);
}

/* Seconds of a minute without a slot, with half of everything lost each way. */
static unsigned run_half_lost(uint64_t seed)
{
	static struct world w;
	struct world_node *node = &w.nodes[0];
	unsigned n_without = 0;

	world_begin(&w);
	w.seed = seed;
	world_start(node);
	world_pass(&w, 2000);
	w.loss_percent = 50;
	for (unsigned i = 0; i < 6000; i++) {
		if (relay_udp_fsm_is_bound(&node->fsm))
			world_send(node, node->fsm.slot + 1);
		else
			n_without++;
		world_pass(&w, 10);
	}
	world_end(&w);
	return n_without;
}

int main(int argc, char **argv)
{
	const unsigned n_seeds = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 200;
	unsigned n_without = 0;

	assert(sodium_init() >= 0);
	for (unsigned seed = 1; seed <= n_seeds; seed++)
		run_chaos(seed);
	for (unsigned seed = 1; seed <= 20; seed++)
		n_without += run_half_lost(seed);
	printf("%u seeds; with half of all lost, without a slot %.2f %% of the time\n", n_seeds, n_without / 1200.0);
	if (n_without > 6000) /* 5 % */
		return 1;
	return 0;
}
