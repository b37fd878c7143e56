#include "tests/sim/relay_udp_world.h"

#include <assert.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void carry_out(struct world_node *node, const struct relay_udp_output *out);

uint64_t world_random(struct world *world)
{
	uint64_t z = world->seed += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

/* ---- the network ---- */

static void fly(struct world *world, const struct endpoint *from, const struct endpoint *to, const uint8_t *bytes,
		size_t len)
{
	if (world_random(world) % 100 < world->loss_percent)
		return;
	assert(world->n_flying < WORLD_FLYING && len <= sizeof(world->flying[0].bytes));
	struct world_flight *flight = &world->flying[world->n_flying++];
	*flight = (struct world_flight){
		.at_us = world->now_us + world->latency_us, .number = world->n_flights++, .from = *from, .to = *to, .len = len
	};
	memcpy(flight->bytes, bytes, len);
}

/* By the address of the relay that the receiver knows. */
static void send_of_relay(void *owner, const struct udp_way *to, const uint8_t *bytes, size_t len)
{
	struct world *world = owner;

	fly(world, &world->relay_at[to->socket], &to->remote, bytes, len);
}

static void arrive_at_relay(struct world *world, struct world_flight *flight, unsigned address)
{
	const struct udp_way from = { .remote = flight->from, .socket = (uint16_t)address };
	struct udp_clients_result result;

	if (world->is_dead || world->is_deaf[address])
		return;
	switch (udp_clients_take(world->clients, &from, flight->bytes, flight->len, world->now_us * 1000,
				 &result)) {
	case UDP_CLIENTS_ANSWER:
		assert(result.answer_len <= flight->len);
		send_of_relay(world, &from, result.answer, result.answer_len);
		break;
	case UDP_CLIENTS_FORWARD:
		send_of_relay(world, result.route.way, flight->bytes, flight->len);
		break;
	case UDP_CLIENTS_DROP:
		break;
	}
	if (result.notice_len > 0)
		send_of_relay(world, &result.notice_to, result.notice, result.notice_len);
}

static void arrive(struct world *world, struct world_flight *flight)
{
	for (unsigned i = 0; i < WORLD_ADDRESSES; i++)
		if (endpoint_equal(&flight->to, &world->relay_at[i]))
			arrive_at_relay(world, flight, i);
	for (unsigned i = 0; i < WORLD_NODES; i++)
		if (endpoint_equal(&flight->to, &world->nodes[i].at))
			world_deliver(&world->nodes[i], &flight->from, flight->bytes, flight->len);
}

/* ---- nodes ---- */

static void take_event(struct world_node *node, const struct relay_udp_event *event)
{
	switch (event->type) {
	case RELAY_UDP_EV_BOUND:
		node->n_bound++;
		node->bound_us = node->world->now_us;
		break;
	case RELAY_UDP_EV_LOST:
		node->n_lost++;
		node->lost_us = node->world->now_us;
		break;
	case RELAY_UDP_EV_LEAVING:
		node->n_leaving++;
		break;
	case RELAY_UDP_EV_FOUND:
		node->n_found++;
		node->found_slot = event->slot;
		node->found_key = event->key;
		break;
	case RELAY_UDP_EV_GONE:
		node->gone_slot = event->slot;
		break;
	case RELAY_UDP_EV_PACKET:
		node->n_packets++;
		node->from_slot = event->slot;
		node->packet_us = node->world->now_us;
		break;
	}
}

static void carry_out(struct world_node *node, const struct relay_udp_output *out)
{
	for (uint32_t i = 0; i < out->n_sends; i++) {
		node->world->n_sent++;
		node->world->n_bytes += out->sends[i].len;
		fly(node->world, &node->at, &out->sends[i].to, out->sends[i].bytes, out->sends[i].len);
	}
	for (uint32_t i = 0; i < out->n_events; i++)
		take_event(node, &out->events[i]);
}

static void step(struct world_node *node, struct relay_udp_input *input)
{
	struct relay_udp_output out;

	input->now_us = node->world->now_us;
	input->random = world_random(node->world);
	relay_udp_fsm_step(&node->fsm, input, &out);
	carry_out(node, &out);
}

void world_input(struct world_node *node, enum relay_udp_input_type type)
{
	step(node, &(struct relay_udp_input){ .type = type });
}

void world_start(struct world_node *node)
{
	world_input(node, RELAY_UDP_IN_START);
}

void world_find(struct world_node *node, const struct public_key *key, uint32_t slot)
{
	struct relay_udp_input input = { .type = RELAY_UDP_IN_FIND, .slot = slot };

	if (key)
		input.key = *key;
	step(node, &input);
}

void world_send(struct world_node *node, uint32_t slot)
{
	uint8_t bytes[RELAY_UDP_HEADER_LEN + 32] = { 0 };
	const struct endpoint to = relay_udp_fsm_remote(&node->fsm);

	assert(relay_udp_fsm_is_bound(&node->fsm));
	relay_udp_fsm_header(&node->fsm, slot, bytes);
	fly(node->world, &node->at, &to, bytes, sizeof(bytes));
	relay_udp_fsm_sent(&node->fsm, node->world->now_us);
}

void world_deliver(struct world_node *node, const struct endpoint *from, const uint8_t *bytes, size_t len)
{
	step(node, &(struct relay_udp_input){ .type = RELAY_UDP_IN_DATAGRAM, .from = from, .bytes = bytes, .len = len });
}

/* ---- time ---- */

static struct world_flight *next_flight(struct world *world)
{
	struct world_flight *next = NULL;

	for (unsigned i = 0; i < world->n_flying; i++) {
		struct world_flight *flight = &world->flying[i];
		if (!next || flight->at_us < next->at_us ||
		    (flight->at_us == next->at_us && flight->number < next->number))
			next = flight;
	}
	return next;
}

static struct world_node *next_node(struct world *world)
{
	struct world_node *next = NULL;

	for (unsigned i = 0; i < WORLD_NODES; i++) {
		struct world_node *node = &world->nodes[i];
		if (node->fsm.deadline_us != 0 && (!next || node->fsm.deadline_us < next->fsm.deadline_us))
			next = node;
	}
	return next;
}

static void tick(struct world *world)
{
	world->now_us = world->next_tick_us;
	world->next_tick_us += 1000000;
	udp_clients_tick(world->clients, world->now_us * 1000);
}

void world_until(struct world *world, uint64_t ms)
{
	const uint64_t end_us = ms * 1000;

	for (;;) {
		struct world_flight *flight = next_flight(world);
		struct world_node *node = next_node(world);
		const uint64_t flight_us = flight ? flight->at_us : UINT64_MAX;
		const uint64_t node_us = node ? node->fsm.deadline_us : UINT64_MAX;
		if (flight_us > end_us && node_us > end_us && world->next_tick_us > end_us)
			break;
		if (world->next_tick_us <= flight_us && world->next_tick_us <= node_us) {
			tick(world);
		} else if (flight_us <= node_us) {
			struct world_flight taken = *flight;
			*flight = world->flying[--world->n_flying];
			world->now_us = flight_us;
			arrive(world, &taken);
		} else {
			world->now_us = node_us > world->now_us ? node_us : world->now_us;
			world_input(node, RELAY_UDP_IN_DEADLINE);
		}
	}
	world->now_us = end_us;
}

/* ---- the relay ---- */

static bool is_member(void *owner, const struct public_key *node_key)
{
	const struct world *world = owner;

	for (unsigned i = 0; i < WORLD_NODES; i++)
		if (public_key_equal(&world->nodes[i].key, node_key))
			return world->nodes[i].is_member;
	return false;
}

void world_restart_relay(struct world *world)
{
	udp_clients_free(world->clients);
	assert(udp_clients_new(&world->config, &world->clients) == 0);
	world->is_dead = false;
}

void world_drain_relay(struct world *world, uint32_t retry_after_ms)
{
	udp_clients_say_restart(world->clients, retry_after_ms, send_of_relay);
}

/* ---- life ---- */

static void keep(void *arg, const char *line)
{
	struct world_node *node = arg;
	const size_t used = strlen(node->trace);
	const int n = snprintf(node->trace + used, sizeof(node->trace) - used, "%s\n", line);

	if (n < 0 || (size_t)n >= sizeof(node->trace) - used)
		node->trace[0] = '\0'; /* of a long run nobody reads it all */
}

static void begin_node(struct world *world, unsigned i)
{
	struct world_node *node = &world->nodes[i];
	struct relay_udp_config config = { .n_addresses = WORLD_ADDRESSES };

	node->world = world;
	node->is_member = true;
	node->at = endpoint_from_v4(0x0a000001 + i, 4000);
	secret_key_generate(&node->secret);
	secret_key_public(&node->secret, &node->key);
	config.node_key = node->key;
	memcpy(config.addresses, world->relay_at, sizeof(world->relay_at));
	assert(relay_udp_key(&node->secret, &node->key, &world->relay_key, false, &config.key) == 0);
	relay_udp_fsm_init(&node->fsm, &config);
	node->fsm.trace = keep;
	node->fsm.trace_arg = node;
}

void world_begin(struct world *world)
{
	memset(world, 0, sizeof(*world));
	world->now_us = 1000 * 1000;
	world->next_tick_us = 2000 * 1000;
	world->latency_us = 10 * 1000;
	secret_key_generate(&world->config.node_key);
	secret_key_public(&world->config.node_key, &world->relay_key);
	world->config.owner = world;
	world->config.is_member = is_member;
	assert(udp_clients_new(&world->config, &world->clients) == 0);
	for (unsigned i = 0; i < WORLD_ADDRESSES; i++)
		world->relay_at[i] = endpoint_from_v4(0xc6336401 + i, 3478);
	for (unsigned i = 0; i < WORLD_NODES; i++)
		begin_node(world, i);
}

void world_end(struct world *world)
{
	for (unsigned i = 0; i < WORLD_NODES; i++)
		relay_udp_fsm_deinit(&world->nodes[i].fsm);
	udp_clients_free(world->clients);
}
