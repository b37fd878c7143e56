#include "actors/endpoint_manager/endpoint_manager.h"

#include "common/log.h"
#include "common/random_seed.h"
#include "common/stun_wire.h"

#include <assert.h>
#include <string.h>

static_assert(ENDPOINT_TX_ID_LEN == STUN_TX_LEN, "one transaction id");
static_assert(NAT_BEHAVIOUR_TX_ID_LEN == STUN_TX_LEN, "one transaction id");
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

/* what the NAT does */

static void set_deadline(struct endpoint_manager *manager)
{
	const uint64_t a = manager->fsm.deadline_ns, b = manager->nat.deadline_ns;

	stage_set_deadline(&manager->actor, a == 0 || (b != 0 && b < a) ? b : a);
}

static void feed_nat(struct endpoint_manager *manager, struct nat_behaviour_input input);

static void open_side(struct endpoint_manager *manager)
{
	struct nat_behaviour_input input = { .type = NAT_BEHAVIOUR_IN_OPENED, .n = NAT_BEHAVIOUR_SOCKETS };
	int r = manager->ports.open_side(manager->ports.owner, input.ports);

	if (r != 0) {
		log_warning("nat", "cannot find out what the NAT does: no socket: %s", strerror(-r));
		input.n = 0;
	}
	feed_nat(manager, input);
}

static void ask_side(struct endpoint_manager *manager, const struct nat_behaviour_action *action)
{
	struct stun_message request;
	uint8_t bytes[STUN_MAX_LEN];
	struct stun_tx tx;

	memcpy(tx.bytes, action->tx_id, sizeof(tx.bytes));
	stun_make_request(&request, &tx);
	request.has_change_request = request.change_port = action->kind == NAT_ASK_OTHER_PORT;
	if (action->kind == NAT_ASK_TO_PORT)
		request.response_port = action->port;
	size_t len = stun_encode(bytes, sizeof(bytes), &request);
	assert(len > 0);
	manager->ports.send_side(manager->ports.owner, action->socket, &action->to, bytes, len);
}

static void log_findings(const struct nat_findings *findings)
{
	static const char *const names[] = { "?", "none", "EIM", "ADM", "APDM" }, *const filters[] = {
		"?", "?", "EIF", "ADF", "APDF"
	};

	if (findings->at_ns != 0)
		log_info("nat", "mapping %s, filtering %s, step %d", names[findings->mapping],
			 filters[findings->filtering], (int)findings->step);
}

static_assert(NAT_DEPENDS_PORT == SESSION_NAT_MAX_DEPENDENCE && NAT_PORTS_ANY == SESSION_NAT_MAX_PORTS,
	      "the protocol's numbers");

/* To TrafficManager, whose peers may have to know. The address is that of the socket that carries packets. */
static void tell_nat(struct endpoint_manager *manager)
{
	const struct nat_findings *findings = &manager->nat.findings;
	struct message message = { .type = MESSAGE_NAT };
	struct session_nat *nat = &message.nat;

	nat->mapping = (uint8_t)findings->mapping;
	nat->filtering = (uint8_t)findings->filtering;
	nat->ports = (uint8_t)findings->ports;
	nat->step = (int16_t)findings->step;
	nat->low_port = findings->low_port;
	nat->high_port = findings->high_port;
	nat->last_port = findings->last_port;
	nat->n_ports = (uint8_t)findings->n_ports;
	for (uint32_t i = 0; i < manager->fsm.n_servers && endpoint_is_none(&nat->outside); i++)
		if (endpoint_is_v4(&manager->fsm.servers[i].mapped))
			nat->outside = manager->fsm.servers[i].mapped;
	stage_post(manager->actor.stage, ACTOR_ENDPOINT_MANAGER, ACTOR_TRAFFIC_MANAGER, &message);
}

static void feed_nat(struct endpoint_manager *manager, struct nat_behaviour_input input)
{
	struct nat_behaviour_actions actions;

	if (!manager->ports.open_side)
		return;
	input.now_ns = stage_now_ns(manager->actor.stage);
	nat_behaviour_fsm_step(&manager->nat, &input, &actions);
	for (uint32_t i = 0; i < actions.n; i++) {
		switch (actions.all[i].type) {
		case NAT_BEHAVIOUR_DO_OPEN:
			open_side(manager);
			break;
		case NAT_BEHAVIOUR_DO_ASK:
			ask_side(manager, &actions.all[i]);
			break;
		case NAT_BEHAVIOUR_DO_CLOSE:
			manager->ports.close_side(manager->ports.owner);
			break;
		case NAT_BEHAVIOUR_DO_TELL:
			log_findings(&manager->nat.findings);
			tell_nat(manager);
			break;
		}
	}
	set_deadline(manager);
}

static void feed_seen(struct endpoint_manager *manager)
{
	struct endpoint seen[ENDPOINT_MAX_SERVERS];
	uint32_t n = 0;

	for (uint32_t i = 0; i < manager->fsm.n_servers; i++)
		if (!endpoint_is_none(&manager->fsm.servers[i].mapped))
			seen[n++] = manager->fsm.servers[i].mapped;
	feed_nat(manager, (struct nat_behaviour_input){ .type = NAT_BEHAVIOUR_IN_SEEN, .endpoints = seen, .n = n });
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
	if (manager->ports.keeper)
		input.keeper = manager->ports.keeper(manager->ports.owner);
	endpoint_fsm_step(&manager->fsm, &input, &actions);
	for (uint32_t i = 0; i < actions.n; i++) {
		if (actions.all[i].type == ENDPOINT_DO_ASK) {
			ask(manager, &actions.all[i]);
		} else {
			publish(manager);
			feed_seen(manager);
		}
	}
	set_deadline(manager);
}

static void feed_local(struct endpoint_manager *manager)
{
	struct endpoint local[ENDPOINT_MAX_LOCAL];
	size_t n = manager->ports.local_endpoints(manager->ports.owner, local, ENDPOINT_MAX_LOCAL);

	feed(manager, (struct endpoint_input){ .type = ENDPOINT_IN_LOCAL, .endpoints = local, .n = (uint32_t)n });
	feed_nat(manager,
		 (struct nat_behaviour_input){ .type = NAT_BEHAVIOUR_IN_LOCAL, .endpoints = local, .n = (uint32_t)n });
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
	struct endpoint endpoints[ENDPOINT_MAX_SERVERS];
	for (uint32_t i = 0; i < n; i++)
		endpoints[i] = servers[i].endpoint;
	feed_nat(manager,
		 (struct nat_behaviour_input){ .type = NAT_BEHAVIOUR_IN_SERVERS, .endpoints = endpoints, .n = n });
	return 0;
}

static int handle_link_changed(struct actor *actor, struct message *message)
{
	struct endpoint_manager *manager = container_of(actor, struct endpoint_manager, actor);

	feed_local(manager);
	feed(manager, (struct endpoint_input){ .type = ENDPOINT_IN_LINK });
	return 0;
}

static int handle_keeper_changed(struct actor *actor, struct message *message)
{
	feed(container_of(actor, struct endpoint_manager, actor), (struct endpoint_input){ .type = ENDPOINT_IN_KEEPER });
	return 0;
}

/* The way round by TURN comes last. */
static void feed_extra(struct endpoint_manager *manager)
{
	struct endpoint extra[2];
	uint32_t n = 0;

	if (!endpoint_is_none(&manager->forwarded))
		extra[n++] = manager->forwarded;
	if (!endpoint_is_none(&manager->turned))
		extra[n++] = manager->turned;
	feed(manager, (struct endpoint_input){ .type = ENDPOINT_IN_EXTRA, .endpoints = extra, .n = n });
}

static int handle_forwarded(struct actor *actor, struct message *message)
{
	struct endpoint_manager *manager = container_of(actor, struct endpoint_manager, actor);

	manager->forwarded = message->via.endpoint;
	feed_extra(manager);
	return 0;
}

static int handle_turned(struct actor *actor, struct message *message)
{
	struct endpoint_manager *manager = container_of(actor, struct endpoint_manager, actor);

	manager->turned = message->via.endpoint;
	feed_extra(manager);
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

/* The last question to this server had this id. */
static bool was_asked(const struct endpoint_manager *manager, const struct endpoint_input *answer)
{
	for (uint32_t i = 0; i < manager->fsm.n_servers; i++) {
		const struct endpoint_asked *asked = &manager->fsm.servers[i];
		if (asked->n_sent > 0 && endpoint_equal(&asked->server.endpoint, &answer->from) &&
		    memcmp(asked->tx_id, answer->tx_id, sizeof(answer->tx_id)) == 0)
			return true;
	}
	return false;
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
	if (!was_asked(manager, &input)) {
		manager->n_bad_answers++;
		return 0;
	}
	feed(manager, input);
	tell_latency(manager, relay_of(manager, &message->via.endpoint));
	return 0;
}

static int handle_measure_nat(struct actor *actor, struct message *message)
{
	feed_nat(container_of(actor, struct endpoint_manager, actor),
		 (struct nat_behaviour_input){ .type = NAT_BEHAVIOUR_IN_WANTED });
	return 0;
}

static int handle_side(struct actor *actor, struct message *message)
{
	struct endpoint_manager *manager = container_of(actor, struct endpoint_manager, actor);
	struct nat_behaviour_input input = { .socket = message->side.socket, .from = message->via.endpoint };
	struct stun_message stun;

	if (stun_decode(message->bytes->bytes, message->bytes->len, &stun) != 0 ||
	    stun.method != STUN_METHOD_BINDING || stun.class == STUN_INDICATION) {
		manager->n_bad_answers++;
		return 0;
	}
	input.type = stun.class == STUN_SUCCESS ? NAT_BEHAVIOUR_IN_ANSWER :
		     stun.class == STUN_ERROR	? NAT_BEHAVIOUR_IN_REFUSAL :
						  NAT_BEHAVIOUR_IN_QUESTION;
	input.mapped = stun.mapped;
	input.other = stun.other_address;
	memcpy(input.tx_id, stun.tx.bytes, sizeof(input.tx_id));
	feed_nat(manager, input);
	return 0;
}

static int on_deadline(struct actor *actor, uint64_t now_ns)
{
	struct endpoint_manager *manager = container_of(actor, struct endpoint_manager, actor);

	feed(manager, (struct endpoint_input){ .type = ENDPOINT_IN_DEADLINE });
	feed_nat(manager, (struct nat_behaviour_input){ .type = NAT_BEHAVIOUR_IN_DEADLINE });
	return 0;
}

static const struct actor_accepts accepts[] = {
	{ MESSAGE_MAP, ACTOR_NONE, handle_map },
	{ MESSAGE_LINK_CHANGED, ACTOR_NONE, handle_link_changed },
	{ MESSAGE_KEEPER_CHANGED, ACTOR_NONE, handle_keeper_changed },
	{ MESSAGE_FORWARDED, ACTOR_NONE, handle_forwarded },
	{ MESSAGE_TURNED, ACTOR_NONE, handle_turned },
	{ MESSAGE_STUN, ACTOR_DIRECT_ROUTER, handle_stun },
	{ MESSAGE_STUN, ACTOR_NONE, handle_side },
	{ MESSAGE_MEASURE_NAT, ACTOR_NONE, handle_measure_nat },
};

static const struct actor_class endpoint_manager_class = {
	.kind = ACTOR_ENDPOINT_MANAGER,
	.on_deadline = on_deadline,
	.accepts = accepts,
	.n_accepts = ARRAY_LEN(accepts),
};

void endpoint_manager_start(struct endpoint_manager *manager, struct stage *stage,
			    const struct endpoint_manager_ports *ports)
{
	manager->ports = *ports;
	endpoint_fsm_init(&manager->fsm, random_seed());
	manager->fsm.trace = on_trace;
	nat_behaviour_fsm_init(&manager->nat, random_seed());
	manager->nat.trace = on_trace;
	stage_add(stage, &manager->actor, &endpoint_manager_class, 0);
	feed_local(manager);
}

void endpoint_manager_on_side(struct endpoint_manager *manager, uint32_t socket, const struct endpoint *from,
			      const uint8_t *bytes, size_t len)
{
	struct message message = { .type = MESSAGE_STUN,
				   .via = { .endpoint = *from },
				   .bytes = buffer_new(bytes, len),
				   .side = { .socket = socket } };

	stage_post(manager->actor.stage, ACTOR_NONE, ACTOR_ENDPOINT_MANAGER, &message);
}

void endpoint_manager_stop(struct endpoint_manager *manager)
{
	if (manager->nat.state > NAT_BEHAVIOUR_OPENING)
		manager->ports.close_side(manager->ports.owner);
	stage_remove(manager->actor.stage, &manager->actor);
}
