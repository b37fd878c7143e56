/*
 * Nodes and a relay over UDP on virtual time: relay_udp_fsm against relay/udp_clients.h, a network between
 * them that is late, loses, cuts off and gives new addresses. No I/O.
 */
#pragma once

#include "actors/relay_manager/relay_udp_fsm.h"
#include "relay/udp_clients.h"

#include <stdbool.h>
#include <stdint.h>

#define WORLD_NODES	4
#define WORLD_ADDRESSES 2 /* of the relay */
#define WORLD_FLYING	4096

struct world;

struct world_node {
	struct world *world;
	struct secret_key secret;
	struct public_key key;
	struct endpoint at;
	struct relay_udp_fsm fsm;
	bool is_member;
	/* What it was told. */
	unsigned n_bound, n_lost, n_leaving, n_packets, n_found;
	uint32_t found_slot; /* the last one */
	struct public_key found_key;
	uint32_t gone_slot;
	uint32_t from_slot; /* of the last packet */
	uint64_t bound_us, lost_us, packet_us;
	char trace[8192];
};

struct world {
	struct udp_clients *clients;
	struct udp_clients_config config;
	struct public_key relay_key;
	struct endpoint relay_at[WORLD_ADDRESSES];
	bool is_dead;			    /* nothing is answered */
	bool is_deaf[WORLD_ADDRESSES];	    /* at this address */
	struct world_node nodes[WORLD_NODES];
	uint64_t now_us, latency_us;	    /* latency: one way */
	uint64_t seed;			    /* of loss and of the nodes' numbers */
	unsigned loss_percent;		    /* each way */
	unsigned n_sent;		    /* by nodes */
	uint64_t n_bytes;		    /* in them, without UDP's and IP's headers */
	size_t largest_answer;
	struct world_flight {
		uint64_t at_us, number;
		struct endpoint from, to;
		size_t len;
		uint8_t bytes[128];
	} flying[WORLD_FLYING];
	unsigned n_flying;
	uint64_t n_flights, next_tick_us;
};

/* All nodes are members; none has started. */
void world_begin(struct world *world);
void world_end(struct world *world);
/* Everything that happens up to that time. */
void world_until(struct world *world, uint64_t ms);
static inline void world_pass(struct world *world, uint64_t ms)
{
	world_until(world, world->now_us / 1000 + ms);
}

void world_start(struct world_node *node);
void world_input(struct world_node *node, enum relay_udp_input_type type);
void world_find(struct world_node *node, const struct public_key *key, uint32_t slot);
/* A packet to that slot; the node must be bound. */
void world_send(struct world_node *node, uint32_t slot);
/* A datagram to a node, from anywhere. */
void world_deliver(struct world_node *node, const struct endpoint *from, const uint8_t *bytes, size_t len);
/* The relay's program ends and another begins: nobody is known to it. */
void world_restart_relay(struct world *world);
/* The relay says that it will stop. */
void world_drain_relay(struct world *world, uint32_t retry_after_ms);
uint64_t world_random(struct world *world);
