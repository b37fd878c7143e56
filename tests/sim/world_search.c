/*
 * What EndpointManager and TrafficManager do for hard NATs, on virtual time: nat_behaviour_fsm asks the world's STUN servers by
 * sockets of its own, peer_hard_nat (as it is: the stage below it is the world) searches with the sockets of side_model.h.
 */
#include "tests/sim/world_internal.h"

#include "common/macros.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_ASKER  41000 /* ports of the sockets that ask what the NAT does; others in each run */
#define N_ASKERS     (512 * NAT_BEHAVIOUR_SOCKETS)
#define NAT_SHARE    4 /* as TrafficManager believes a peer: so many at once, then one each NAT_NS */
#define NAT_NS	     MS(500)
#define WIDE_MAPPINGS 512
#define WIDE_SESSIONS 2048
#define WIDE_BUCKETS  1024

struct wide_tables {
	struct nat_mapping mappings[WIDE_MAPPINGS];
	struct nat_session sessions[WIDE_SESSIONS];
	struct nat_link buckets[3 * WIDE_BUCKETS];
};

/* ---- the stage below peer_hard_nat ---- */

uint64_t stage_now_ns(const struct stage *stage)
{
	return stage->world->now_ns;
}

/* No more than HARD_NAT_RATE in any second. */
static void count_datagram(struct stage_world *w, struct search_count *count)
{
	uint64_t *oldest = &count->sent_ns[count->n_datagrams % HARD_NAT_RATE];

	count->is_too_fast |= count->n_datagrams >= HARD_NAT_RATE && w->now_ns - *oldest < SECONDS(1);
	*oldest = w->now_ns;
	count->n_datagrams++;
}

void stage_post(struct stage *stage, enum actor_kind from, enum actor_kind to, struct message *message)
{
	struct stage_world *w = stage->world;
	struct search_count *count = &w->nodes[stage->node].count;
	const struct peer_source way = { .by_relay = message->via.by_relay, .endpoint = message->via.endpoint };

	assert(message->type == MESSAGE_SEAL && message->peer_id < w->n_nodes);
	if (!way.by_relay) {
		count->n_pings++;
		count_datagram(w, count);
	}
	world_seal_and_send(w, stage->node, message->peer_id, &way, &message->session);
}

/* ---- the sockets beside ---- */

static int open_sockets(void *owner, uint32_t peer, uint32_t n, const struct endpoint *from)
{
	struct stage *stage = owner;

	return side_model_open(&stage->world->nodes[stage->node].side, stage->world->now_ns, peer, n, from);
}

static void knock(void *owner, uint32_t peer, uint32_t number, const struct endpoint *to)
{
	struct stage *stage = owner;
	struct sim_node *node = &stage->world->nodes[stage->node];
	const struct packet packet = { .kind = PACKET_KNOCK, .from = stage->node };
	const uint16_t port = side_model_knock(&node->side, peer, number);

	if (port == 0)
		return;
	count_datagram(stage->world, &node->count);
	world_send_from(stage->world, stage->node, port, to, &packet);
}

static void close_sockets(void *owner, uint32_t peer)
{
	struct stage *stage = owner;

	side_model_close(&stage->world->nodes[stage->node].side, stage->world->now_ns, peer);
}

static void end_sockets(void *owner, uint32_t peer)
{
	struct stage *stage = owner;

	side_model_end(&stage->world->nodes[stage->node].side, stage->world->now_ns, peer);
}

/* ---- what the NAT does ---- */

static void feed_nat(struct stage_world *w, uint32_t i, struct nat_behaviour_input input);

static void open_askers(struct stage_world *w, uint32_t i)
{
	struct sim_node *node = &w->nodes[i];
	struct nat_behaviour_input input = { .type = NAT_BEHAVIOUR_IN_OPENED, .n = NAT_BEHAVIOUR_SOCKETS };

	node->first_asker = (uint16_t)(FIRST_ASKER + node->n_asked++ * NAT_BEHAVIOUR_SOCKETS % N_ASKERS);
	for (uint32_t k = 0; k < NAT_BEHAVIOUR_SOCKETS; k++)
		input.ports[k] = (uint16_t)(node->first_asker + k);
	feed_nat(w, i, input);
}

static void ask(struct stage_world *w, uint32_t i, const struct nat_behaviour_action *action)
{
	struct packet request = { .kind = PACKET_STUN_REQUEST, .from = i, .question = action->kind, .port = action->port };

	memcpy(request.tx_id, action->tx_id, sizeof(request.tx_id));
	world_send_from(w, i, (uint16_t)(w->nodes[i].first_asker + action->socket), &action->to, &request);
}

/* As EndpointManager tells it. */
static void tell_peers(struct stage_world *w, uint32_t i)
{
	struct sim_node *node = &w->nodes[i];
	const struct nat_findings *findings = &node->behaviour.findings;
	struct session_nat nat = { .mapping = (uint8_t)findings->mapping,
				   .filtering = (uint8_t)findings->filtering,
				   .ports = (uint8_t)findings->ports,
				   .step = (int16_t)findings->step,
				   .low_port = findings->low_port,
				   .high_port = findings->high_port,
				   .last_port = findings->last_port,
				   .n_ports = (uint8_t)findings->n_ports };

	for (uint32_t s = 0; s < node->endpoints.n_servers && endpoint_is_none(&nat.outside); s++)
		nat.outside = node->endpoints.servers[s].mapped;
	for (uint32_t p = 0; p < w->n_nodes; p++) {
		if (p == i)
			continue;
		peer_hard_nat_on_ours(&node->views[p].hard_nat, &nat);
		search_follow(w, i, p);
	}
}

static void feed_nat(struct stage_world *w, uint32_t i, struct nat_behaviour_input input)
{
	struct nat_behaviour_actions actions;

	input.now_ns = w->now_ns;
	nat_behaviour_fsm_step(&w->nodes[i].behaviour, &input, &actions);
	for (uint32_t a = 0; a < actions.n; a++) {
		switch (actions.all[a].type) {
		case NAT_BEHAVIOUR_DO_OPEN:
			open_askers(w, i);
			break;
		case NAT_BEHAVIOUR_DO_ASK:
			ask(w, i, &actions.all[a]);
			break;
		case NAT_BEHAVIOUR_DO_CLOSE:
			w->nodes[i].first_asker = 0;
			break;
		case NAT_BEHAVIOUR_DO_TELL:
			tell_peers(w, i);
			break;
		}
	}
}

static void receive_answer(struct stage_world *w, uint32_t i, uint32_t socket, const struct packet *packet,
			   const struct endpoint *source)
{
	struct nat_behaviour_input input = { .socket = socket, .from = *source, .mapped = packet->mapped, .other = packet->other };

	input.type = packet->kind == PACKET_STUN_ANSWER	 ? NAT_BEHAVIOUR_IN_ANSWER
		     : packet->kind == PACKET_STUN_REFUSAL ? NAT_BEHAVIOUR_IN_REFUSAL
							   : NAT_BEHAVIOUR_IN_QUESTION;
	memcpy(input.tx_id, packet->tx_id, sizeof(input.tx_id));
	feed_nat(w, i, input);
}

/* ---- what the rest of the world tells ---- */

static void trace(void *arg, const char *line)
{
	printf("        %s %s\n", (const char *)arg, line);
}

void search_init(struct stage_world *w, uint32_t i)
{
	static char names[MAX_NODES][MAX_NODES][32];
	struct sim_node *node = &w->nodes[i];

	if (!w->searches)
		return;
	node->stage = (struct stage){ .world = w, .node = i };
	node->turn = (struct hard_nat_turn){ 0 };
	memset(&node->side, 0, sizeof(node->side));
	memset(&node->count, 0, sizeof(node->count));
	node->first_asker = 0;
	node->hard_nat_ports = (struct hard_nat_ports){ &node->stage, open_sockets, knock, close_sockets, end_sockets };
	nat_behaviour_fsm_init(&node->behaviour, world_random(w, 0));
	for (uint32_t p = 0; p < w->n_nodes; p++) {
		struct peer_hard_nat *hard_nat = &node->views[p].hard_nat;

		*hard_nat = (struct peer_hard_nat){ 0 };
		node->views[p].nat_ns = 0;
		peer_hard_nat_init(hard_nat, &node->stage, &node->hard_nat_ports, &node->turn, p);
		hard_nat->fsm.random = world_random(w, 0); /* what it drew was of no seed */
		snprintf(names[i][p], sizeof(names[i][p]), "%u>%u", i, p);
		hard_nat->fsm.trace = w->trace ? trace : NULL;
		hard_nat->fsm.trace_arg = names[i][p];
	}
}

void search_take_servers(struct stage_world *w, uint32_t i, const struct endpoint_server *servers, uint32_t n)
{
	struct endpoint endpoints[ENDPOINT_MAX_SERVERS];

	if (!w->searches)
		return;
	for (uint32_t s = 0; s < n; s++)
		endpoints[s] = servers[s].endpoint;
	feed_nat(w, i, (struct nat_behaviour_input){ .type = NAT_BEHAVIOUR_IN_SERVERS, .endpoints = endpoints, .n = n });
}

void search_take_local(struct stage_world *w, uint32_t i)
{
	if (w->searches)
		feed_nat(w, i,
			 (struct nat_behaviour_input){
				 .type = NAT_BEHAVIOUR_IN_LOCAL, .endpoints = &w->nodes[i].local, .n = 1 });
}

void search_take_seen(struct stage_world *w, uint32_t i)
{
	const struct endpoint_fsm *endpoints = &w->nodes[i].endpoints;
	struct endpoint seen[ENDPOINT_MAX_SERVERS];
	uint32_t n = 0;

	if (!w->searches)
		return;
	for (uint32_t s = 0; s < endpoints->n_servers; s++)
		if (!endpoint_is_none(&endpoints->servers[s].mapped))
			seen[n++] = endpoints->servers[s].mapped;
	feed_nat(w, i, (struct nat_behaviour_input){ .type = NAT_BEHAVIOUR_IN_SEEN, .endpoints = seen, .n = n });
}

void search_follow(struct stage_world *w, uint32_t node, uint32_t peer)
{
	struct view *view = &w->nodes[node].views[peer];

	if (w->searches)
		peer_hard_nat_follow(&view->hard_nat, view->was_active, peer_fsm_has_direct(&view->fsm));
}

void search_take_session(struct stage_world *w, uint32_t node, uint32_t peer, uint64_t session)
{
	if (w->searches)
		peer_hard_nat_on_session(&w->nodes[node].views[peer].hard_nat, session);
}

void search_take_nat(struct stage_world *w, uint32_t node, uint32_t peer, const struct session_nat *nat, bool has_begun)
{
	struct view *view = &w->nodes[node].views[peer];

	if (!w->searches)
		return;
	if (view->nat_ns < w->now_ns)
		view->nat_ns = w->now_ns;
	if (view->nat_ns - w->now_ns >= NAT_SHARE * NAT_NS)
		return;
	view->nat_ns += NAT_NS;
	peer_hard_nat_on_theirs(&view->hard_nat, nat, has_begun);
	search_follow(w, node, peer);
}

void search_receive(struct stage_world *w, uint32_t i, uint16_t port, const struct packet *packet,
		    const struct endpoint *source)
{
	struct sim_node *node = &w->nodes[i];
	struct peer_source near = { .endpoint = node->local };
	const struct side_pair *pair;

	if (!w->searches)
		return;
	if (node->first_asker != 0 && port >= node->first_asker && port < node->first_asker + NAT_BEHAVIOUR_SOCKETS) {
		receive_answer(w, i, (uint32_t)(port - node->first_asker), packet, source);
		return;
	}
	pair = side_model_hear(&node->side, port, source);
	if (!pair)
		return;
	near.endpoint.port = pair->near_port;
	world_receive(w, i, packet, &near);
}

void search_on_nat_deadline(struct stage_world *w, uint32_t node)
{
	feed_nat(w, node, (struct nat_behaviour_input){ .type = NAT_BEHAVIOUR_IN_DEADLINE });
}

void search_on_deadline(struct stage_world *w, uint32_t node, uint32_t peer)
{
	peer_hard_nat_on_deadline(&w->nodes[node].views[peer].hard_nat);
}

/* ---- for who runs the world ---- */

bool world_knows_nat(const struct stage_world *w, uint32_t node)
{
	const struct nat_findings *findings = &w->nodes[node].behaviour.findings;

	return findings->mapping != NAT_DEPENDS_UNKNOWN && findings->filtering != NAT_DEPENDS_UNKNOWN;
}

uint32_t world_n_searching(const struct stage_world *w, uint32_t node)
{
	uint32_t n = 0;

	for (uint32_t p = 0; p < w->n_nodes; p++) {
		const enum hard_nat_state state = w->nodes[node].views[p].hard_nat.fsm.state;

		n += p != node && (state == HARD_NAT_PREPARING || state == HARD_NAT_SEARCHING);
	}
	return n;
}

void world_widen_nat(struct stage_world *w, uint32_t nat)
{
	struct sim_nat *router = &w->nats[nat];
	struct nat_config config = router->nat.config;

	assert(!router->wide);
	router->wide = malloc(sizeof(*router->wide));
	assert(router->wide);
	const struct nat_tables tables = { router->wide->mappings, router->wide->sessions, router->wide->buckets,
					   WIDE_MAPPINGS,	   WIDE_SESSIONS,	   WIDE_BUCKETS };
	memset(router->wide, 0, sizeof(*router->wide));
	nat_init(&router->nat, &config, &tables);
}
