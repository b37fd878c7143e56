#include "actors/endpoint_manager/endpoint_manager.h"

#include "common/log.h"
#include "common/stun_wire.h"

#include <assert.h>
#include <string.h>

static_assert(ENDPOINT_TX_ID_LEN == STUN_TX_LEN, "one transaction id");
static_assert(ENDPOINT_MAX_OURS <= MESSAGE_MAX_ENDPOINTS, "a message holds all we publish");

static void on_trace(void *arg, const char *line)
{
	log_debug("endpoint", "%s", line);
}

/* carrying out */

static void ask(struct endpoint_manager *manager, const struct endpoint_action *action)
{
	struct message message = { .type = MESSAGE_WRITE_DATAGRAM, .via = { .endpoint = action->server } };
	struct stun_message request;
	uint8_t bytes[STUN_MAX_LEN];
	struct stun_tx tx;

	memcpy(tx.bytes, action->tx_id, sizeof(tx.bytes));
	stun_make_request(&request, &tx);
	size_t len = stun_encode(bytes, sizeof(bytes), &request);
	assert(len > 0);
	message.bytes = buffer_new(bytes, len);
	stage_post(manager->actor.stage, ACTOR_ENDPOINT_MANAGER, ACTOR_DIRECT_MANAGER, &message);
}

static void publish(struct endpoint_manager *manager)
{
	struct message message = { .type = MESSAGE_OUR_ENDPOINTS, .our_endpoints = { .n = manager->fsm.n_ours } };

	memcpy(message.our_endpoints.endpoints, manager->fsm.ours,
	       manager->fsm.n_ours * sizeof(*manager->fsm.ours));
	stage_post(manager->actor.stage, ACTOR_ENDPOINT_MANAGER, ACTOR_TRAFFIC_MANAGER, &message);
	manager->ports.our_endpoints(manager->ports.owner, manager->fsm.ours, manager->fsm.n_ours);
}

static void feed(struct endpoint_manager *manager, struct endpoint_input input)
{
	struct endpoint_actions actions;

	input.now_ns = stage_now_ns(manager->actor.stage);
	endpoint_fsm_step(&manager->fsm, &input, &actions);
	for (uint32_t i = 0; i < actions.n; i++) {
		if (actions.all[i].type == ENDPOINT_DO_ASK)
			ask(manager, &actions.all[i]);
		else
			publish(manager);
	}
	stage_set_deadline(&manager->actor, manager->fsm.deadline_ns);
}

static void feed_local(struct endpoint_manager *manager)
{
	struct endpoint local[ENDPOINT_MAX_LOCAL];
	size_t n = manager->ports.local_endpoints(manager->ports.owner, local, ENDPOINT_MAX_LOCAL);

	feed(manager, (struct endpoint_input){ .type = ENDPOINT_IN_LOCAL, .endpoints = local, .n = (uint32_t)n });
}

/* handlers */

static int handle_map(struct actor *actor, struct message *message)
{
	struct endpoint_manager *manager = container_of(actor, struct endpoint_manager, actor);
	const struct map *map = map_ref_get(message->map);
	struct endpoint_server servers[ENDPOINT_MAX_SERVERS];
	uint32_t n = 0;

	for (uint32_t i = 0; i < map->n_relays; i++) {
		const struct map_relay *relay = &map->relays[i];
		/* A public node does not learn anything from its own server. */
		for (uint32_t j = 0; relay->id != map->self.id && j < relay->n_addresses; j++) {
			if (n == ENDPOINT_MAX_SERVERS)
				break;
			servers[n] = (struct endpoint_server){ .relay_id = relay->id, .endpoint = relay->addresses[j] };
			servers[n++].endpoint.port = relay->stun_port;
		}
	}
	feed(manager, (struct endpoint_input){ .type = ENDPOINT_IN_SERVERS, .servers = servers, .n = n });
	return 0;
}

static int handle_link_changed(struct actor *actor, struct message *message)
{
	struct endpoint_manager *manager = container_of(actor, struct endpoint_manager, actor);

	feed_local(manager);
	feed(manager, (struct endpoint_input){ .type = ENDPOINT_IN_LINK });
	return 0;
}

static uint32_t relay_of(const struct endpoint_manager *manager, const struct endpoint *server)
{
	for (uint32_t i = 0; i < manager->fsm.n_servers; i++)
		if (endpoint_equal(&manager->fsm.servers[i].server.endpoint, server))
			return manager->fsm.servers[i].server.relay_id;
	return 0;
}

static void tell_latency(struct endpoint_manager *manager, uint32_t relay_id)
{
	uint32_t rtt_us = relay_id != 0 ? endpoint_fsm_latency_us(&manager->fsm, relay_id) : 0;
	struct message message = { .type = MESSAGE_LATENCY,
				   .via = { .by_relay = true, .relay_id = relay_id },
				   .latency = { .rtt_us = rtt_us } };

	if (rtt_us != 0)
		stage_post(manager->actor.stage, ACTOR_ENDPOINT_MANAGER, ACTOR_RELAY_MANAGER, &message);
}

static int handle_stun(struct actor *actor, struct message *message)
{
	struct endpoint_manager *manager = container_of(actor, struct endpoint_manager, actor);
	struct stun_message answer;
	struct endpoint_input input = { .type = ENDPOINT_IN_ANSWER, .from = message->via.endpoint };

	if (stun_decode(message->bytes->bytes, message->bytes->len, &answer) != 0 ||
	    answer.class != STUN_SUCCESS || answer.method != STUN_METHOD_BINDING ||
	    endpoint_is_none(&answer.mapped)) {
		manager->n_bad_answers++;
		return 0;
	}
	input.mapped = answer.mapped;
	memcpy(input.tx_id, answer.tx.bytes, sizeof(input.tx_id));
	feed(manager, input);
	tell_latency(manager, relay_of(manager, &message->via.endpoint));
	return 0;
}

static int on_deadline(struct actor *actor, uint64_t now_ns)
{
	feed(container_of(actor, struct endpoint_manager, actor),
	     (struct endpoint_input){ .type = ENDPOINT_IN_DEADLINE });
	return 0;
}

static const struct actor_accepts accepts[] = {
	{ MESSAGE_MAP, ACTOR_NONE, handle_map },
	{ MESSAGE_LINK_CHANGED, ACTOR_NONE, handle_link_changed },
	{ MESSAGE_STUN, ACTOR_DIRECT_ROUTER, handle_stun },
};

static const struct actor_class endpoint_manager_class = {
	.kind = ACTOR_ENDPOINT_MANAGER,
	.on_deadline = on_deadline,
	.accepts = accepts,
	.n_accepts = ARRAY_LEN(accepts),
};

void endpoint_manager_start(struct endpoint_manager *manager, struct stage *stage,
			    const struct endpoint_manager_ports *ports, uint64_t seed)
{
	manager->ports = *ports;
	endpoint_fsm_init(&manager->fsm, seed);
	manager->fsm.trace = on_trace;
	stage_add(stage, &manager->actor, &endpoint_manager_class, 0);
	feed_local(manager);
}

void endpoint_manager_stop(struct endpoint_manager *manager)
{
	stage_remove(manager->actor.stage, &manager->actor);
}
