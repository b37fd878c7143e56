#include "tests/sim/world_internal.h"

#include "common/macros.h"

#include <assert.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TELL_NS        MS(50) /* how often a shell looks at the data plane */
#define ACTIVITY_NS    SECONDS(10)
#define STUN_IP(relay) (0xc6336401u + (relay)) /* 198.51.100.1 … */
#define STUN_PORT      3478
#define PUBLIC_IP(i)   (0xc6336480u + (i))
#define NAT_IP(i)      (0xcb00710au + (uint32_t)(i))
#define LAN_IP(nat, i) (0x0a000002u + ((uint32_t)(nat) << 8) + (i))
#define UDP_PORT       7000
#define MESSAGE_BYTES  200 /* on the wire, of what is no data */
#define PACKET_BYTES   100 /* unless a flow says more */

enum event_type {
	EVENT_UDP,     /* packet arrives in the public world, at .to from .source */
	EVENT_LAN,     /* at .node, from .source, within its LAN */
	EVENT_RELAYED, /* at .node, from .other */
	EVENT_DATA,    /* .node has a packet for .other */
	EVENT_TELL,    /* .node's shell looks at its data plane */
	EVENT_PUBLISH, /* .node's record reaches control */
	EVENT_PUSH,    /* .other's record reaches .node */
	EVENT_CONNECT, /* .node is connected to relay .other */
	EVENT_CUT,     /* .node notices that it is not */
	EVENT_LINK,    /* .node notices its new address */
	EVENT_SECOND,  /* for counting */
};

struct event {
	uint64_t at_ns, order;
	enum event_type type;
	uint32_t node, other, life;
	struct endpoint source, to;
	struct record record;
	struct packet packet; /* last: not copied when there is none */
};

/* ---- small things ---- */

uint64_t world_random(struct stage_world *w, uint64_t below)
{
	uint64_t z = w->random += 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	z ^= z >> 31;
	return below > 0 ? z % below : z;
}

double world_chance(struct stage_world *w)
{
	return (double)world_random(w, 1000000) / 1000000.0;
}

void world_log(struct stage_world *w, const char *format, ...)
{
	va_list args;

	if (!w->trace)
		return;
	printf("[%5llu] ", (unsigned long long)(w->now_ns / 1000000));
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
}

const struct nat_rules *world_nat_of(const struct stage_world *w, uint32_t node)
{
	return w->nodes[node].nat >= 0 ? &w->nats[w->nodes[node].nat].nat.config.rules[NAT_UDP] : NULL;
}

/* ---- the queue of what will happen: a binary heap ---- */

static bool is_before(const struct event *a, const struct event *b)
{
	return a->at_ns < b->at_ns || (a->at_ns == b->at_ns && a->order < b->order);
}

static void push(struct stage_world *w, struct event *event)
{
	uint32_t i = w->n_heap++;

	if (w->n_heap > w->heap_cap) {
		w->heap_cap = w->heap_cap ? w->heap_cap * 2 : 256;
		w->heap = realloc(w->heap, w->heap_cap * sizeof(*w->heap));
		assert(w->heap);
	}
	for (; i > 0 && is_before(event, w->heap[(i - 1) / 2]); i = (i - 1) / 2)
		w->heap[i] = w->heap[(i - 1) / 2];
	w->heap[i] = event;
}

static struct event *pop(struct stage_world *w)
{
	struct event *first = w->heap[0], *last = w->heap[--w->n_heap];
	uint32_t i = 0, child;

	while ((child = 2 * i + 1) < w->n_heap) {
		if (child + 1 < w->n_heap && is_before(w->heap[child + 1], w->heap[child]))
			child++;
		if (!is_before(w->heap[child], last))
			break;
		w->heap[i] = w->heap[child];
		i = child;
	}
	w->heap[i] = last;
	return first;
}

/* Most of a run would else be malloc(). */
static void spare(struct stage_world *w, struct event *event)
{
	if (w->n_spare < ARRAY_LEN(w->spare))
		w->spare[w->n_spare++] = event;
	else
		free(event);
}

static struct event *later(struct stage_world *w, uint64_t in_ns, enum event_type type,
			   uint32_t node, uint32_t other, const struct packet *packet)
{
	struct event *event = w->n_spare > 0 ? w->spare[--w->n_spare] : malloc(sizeof(*event));

	assert(event);
	memset(event, 0, offsetof(struct event, packet));
	event->at_ns = w->now_ns + in_ns;
	event->order = w->n_events++;
	event->type = type;
	event->node = node;
	event->other = other;
	event->life = node < MAX_NODES ? w->nodes[node].life : 0;
	if (packet)
		event->packet = *packet;
	push(w, event);
	return event;
}

/* ---- UDP ---- */

static void fly(struct stage_world *w, uint64_t distance_ns, const struct endpoint *source,
		const struct endpoint *to, const struct packet *packet)
{
	int copies = world_chance(w) < w->loss ? 0 : 1;

	if (copies && world_chance(w) < w->duplicates)
		copies = 2;
	while (copies-- > 0) {
		uint64_t in_ns = distance_ns + world_random(w, w->jitter_ns + 1);
		struct event *event = later(w, in_ns, EVENT_UDP, MAX_NODES, 0, packet);

		event->source = *source;
		event->to = *to;
	}
}

static uint32_t ip_of(const struct endpoint *endpoint)
{
	return (uint32_t)endpoint->ip[12] << 24 | (uint32_t)endpoint->ip[13] << 16 |
	       (uint32_t)endpoint->ip[14] << 8 | endpoint->ip[15];
}

static bool is_same_ip(const struct endpoint *a, const struct endpoint *b)
{
	return memcmp(a->ip, b->ip, sizeof(a->ip)) == 0;
}

static bool has_second(const struct sim_node *node)
{
	return node->second.port != 0;
}

static bool is_at_second(const struct sim_node *node, const struct endpoint *to)
{
	return has_second(node) && is_same_ip(&node->second, to);
}

/* Whatever the port. */
static int owner_of(const struct stage_world *w, const struct endpoint *inside)
{
	for (uint32_t i = 0; i < w->n_nodes; i++)
		if (w->nodes[i].up &&
		    (is_same_ip(&w->nodes[i].local, inside) || is_at_second(&w->nodes[i], inside)))
			return (int)i;
	return -1;
}

/* What goes to a second address comes from one, as between two families. */
static struct endpoint address_towards(const struct stage_world *w, const struct sim_node *node,
				       const struct endpoint *to)
{
	for (uint32_t i = 0; i < w->n_nodes; i++)
		if (has_second(node) && is_at_second(&w->nodes[i], to))
			return node->second;
	return node->local;
}

static int node_at(const struct stage_world *w, const struct endpoint *local)
{
	for (uint32_t i = 0; i < w->n_nodes; i++)
		if (w->nodes[i].up && endpoint_equal(&w->nodes[i].local, local))
			return (int)i;
	return -1;
}

static uint64_t distance_to_ip(const struct stage_world *w, uint32_t ip)
{
	for (uint32_t i = 0; i < MAX_RELAYS; i++)
		if (ip == STUN_IP(i))
			return w->relays[i].distance_ns;
	for (uint32_t i = 0; i < w->n_nodes; i++) {
		const int nat = w->nodes[i].nat;

		if (ip == (nat >= 0 ? NAT_IP(nat) : ip_of(&w->nodes[i].local)) ||
		    (has_second(&w->nodes[i]) && ip == ip_of(&w->nodes[i].second)))
			return w->nodes[i].distance_ns;
	}
	return MS(10);
}

/* False: the queue before the node's link is full. Else how long the packet waits in it. */
static bool enter_link(struct stage_world *w, struct sim_node *node, uint32_t bytes, uint64_t *ret_wait_ns)
{
	uint64_t free_ns = node->link_free_ns > w->now_ns ? node->link_free_ns : w->now_ns;

	*ret_wait_ns = free_ns - w->now_ns + bytes * node->byte_ns;
	if (node->byte_ns == 0)
		return true;
	if (*ret_wait_ns > node->queue_ns)
		return false;
	node->link_free_ns = w->now_ns + *ret_wait_ns;
	return true;
}

void world_send_from(struct stage_world *w, uint32_t from, uint16_t port, const struct endpoint *to,
		     const struct packet *packet)
{
	struct sim_node *node = &w->nodes[from];
	struct endpoint inside = address_towards(w, node, to), source;
	uint64_t wait_ns, distance_ns = node->distance_ns + distance_to_ip(w, ip_of(to));

	inside.port = port;
	source = inside;
	if (!enter_link(w, node, packet->kind == PACKET_DATA ? packet->size : MESSAGE_BYTES, &wait_ns))
		return;
	distance_ns += wait_ns;
	if (endpoint_is_private(to)) { /* within the LAN or nowhere */
		int other = node_at(w, to);

		if (other < 0 || w->nodes[other].nat != node->nat || node->nat < 0 || w->isolated)
			return;
		later(w, wait_ns + MS(1) / 2, EVENT_LAN, (uint32_t)other, from, packet)->source = source;
		return;
	}
	if (node->nat >= 0) {
		struct sim_nat *router = &w->nats[node->nat];

		if (router->udp_cut ||
		    nat_out(&router->nat, w->now_ns, NAT_UDP, &inside, to, &source) != 0)
			return;
		if (nat_has_address(&router->nat, to)) {
			if (router->nat.config.hairpin == NAT_HAIRPIN_OFF)
				return;
			distance_ns = wait_ns + MS(1);
		}
	}
	fly(w, distance_ns, &source, to, packet);
}

static void send_udp(struct stage_world *w, uint32_t from, const struct endpoint *to, const struct packet *packet)
{
	const struct sim_node *node = &w->nodes[from];
	const struct side_pair *pair = is_same_ip(to, &node->local) ? side_model_by_near(&node->side, to->port) : NULL;

	world_send_from(w, from, pair ? pair->far_port : node->local.port, pair ? &pair->to : to, packet);
}

/* ---- relays ---- */

static bool is_connected(const struct stage_world *w, uint32_t node, uint32_t relay)
{
	return w->nodes[node].up && w->nodes[node].connected[relay] && w->relays[relay].up;
}

/* Through the receiver's home relay; ordered, nothing is lost while both are connected. */
static void send_relay(struct stage_world *w, uint32_t from, uint32_t to,
		       const struct packet *packet)
{
	uint32_t home = w->nodes[to].home;
	struct relay *relay = &w->relays[home];
	uint64_t at_ns = w->now_ns + 2 * relay->distance_ns + w->nodes[from].distance_ns +
			 w->nodes[to].distance_ns;

	if (!is_connected(w, from, home) || (w->relay_loss > 0 && world_chance(w) < w->relay_loss))
		return;
	if (at_ns <= relay->last_ns[from][to])
		at_ns = relay->last_ns[from][to] + 1;
	relay->last_ns[from][to] = at_ns;
	later(w, at_ns - w->now_ns, EVENT_RELAYED, to, from, packet);
}

/* ---- the machines and what they ask for ---- */

static void count_message(struct view *view)
{
	view->n_messages++;
	view->n_messages_ever++;
	if (view->n_messages > view->most_messages)
		view->most_messages = view->n_messages;
}

void world_seal_and_send(struct stage_world *w, uint32_t from, uint32_t to,
			 const struct peer_source *way, const struct session_message *message)
{
	struct packet packet = { .kind = PACKET_SESSION, .from = from };

	packet.len = session_box_seal(w->nodes[from].box, to, message, packet.bytes,
				      sizeof(packet.bytes));
	if (packet.len == 0)
		return;
	count_message(&w->nodes[from].views[to]);
	if (way->by_relay)
		send_relay(w, from, to, &packet);
	else
		send_udp(w, from, &way->endpoint, &packet);
}

static void send_message(struct stage_world *w, uint32_t from, uint32_t to,
			 const struct peer_action *action)
{
	const struct endpoint_fsm *ours = &w->nodes[from].endpoints;
	struct session_message message = { .type = SESSION_PING,
					   .n_padding = SESSION_PING_PADDING };

	memcpy(message.tx_id, action->tx_id.bytes, sizeof(message.tx_id));
	if (action->type == PEER_DO_SEND_PONG) {
		message.type = SESSION_PONG;
		message.observed = action->to.endpoint;
	}
	if (action->type == PEER_DO_SEND_RECEIPT) {
		message.type = SESSION_RECEIPT;
		message.age_ms = action->age_ms;
	}
	if (action->type == PEER_DO_SEND_RENDEZVOUS) {
		message.type = SESSION_RENDEZVOUS;
		message.n_endpoints = ours->n_ours;
		memcpy(message.endpoints, ours->ours, ours->n_ours * sizeof(*ours->ours));
	}
	world_seal_and_send(w, from, to, &action->to, &message);
}

static void note_path(struct stage_world *w, struct view *view, const struct peer_path *before,
		      const struct peer_path *path)
{
	view->n_path_changes++;
	view->n_ways += before->direct != path->direct || !endpoint_equal(&before->endpoint, &path->endpoint);
	if (path->direct && !path->relay)
		view->direct_ns = w->now_ns;
	else
		view->direct_ns = 0;
}

static void feed_peer(struct stage_world *w, uint32_t node, uint32_t peer, struct peer_input input)
{
	struct view *view = &w->nodes[node].views[peer];
	struct peer_path before = view->fsm.path;
	const bool was_established = view->fsm.state == PEER_ESTABLISHED;
	const bool had_path = was_established || before.direct; /* perhaps half established */
	struct peer_actions actions;

	input.now_ns = w->now_ns;
	peer_fsm_step(&view->fsm, &input, &actions);
	view->n_falls += had_path && view->fsm.state != PEER_ESTABLISHED && (was_established || !view->fsm.path.direct);
	for (uint32_t i = 0; i < actions.n; i++) {
		const struct peer_action *action = &actions.all[i];

		switch (action->type) {
		case PEER_DO_SEND_PING:
		case PEER_DO_SEND_PONG:
		case PEER_DO_SEND_RECEIPT:
		case PEER_DO_SEND_RENDEZVOUS:
			send_message(w, node, peer, action);
			break;
		case PEER_DO_SET_PATH:
			note_path(w, view, &before, &action->path);
			break;
		case PEER_DO_ADD_AKA:
		case PEER_DO_REMOVE_AKA:
			break;
		}
	}
	search_follow(w, node, peer);
}

static void feed_endpoints(struct stage_world *w, uint32_t i, struct endpoint_input input)
{
	struct sim_node *node = &w->nodes[i];
	struct endpoint_actions actions;

	input.now_ns = w->now_ns;
	endpoint_fsm_step(&node->endpoints, &input, &actions);
	for (uint32_t a = 0; a < actions.n; a++) {
		struct packet request = { .kind = PACKET_STUN_REQUEST, .from = i };

		if (actions.all[a].type == ENDPOINT_DO_ASK) {
			memcpy(request.tx_id, actions.all[a].tx_id, sizeof(request.tx_id));
			send_udp(w, i, &actions.all[a].server, &request);
			continue;
		}
		later(w, node->distance_ns + MS(20), EVENT_PUBLISH, i, 0, NULL);
		for (uint32_t p = 0; p < w->n_nodes; p++)
			if (p != i)
				feed_peer(w, i, p,
					  (struct peer_input){ .type = PEER_IN_OUR_ENDPOINTS,
							       .n_endpoints =
								       node->endpoints.n_ours });
		search_take_seen(w, i);
	}
}

/* ---- data ---- */

static void become_active(struct stage_world *w, uint32_t node, uint32_t peer)
{
	struct view *view = &w->nodes[node].views[peer];

	view->activity_ns = w->now_ns;
	if (view->was_active)
		return;
	view->was_active = true;
	feed_peer(w, node, peer, (struct peer_input){ .type = PEER_IN_TRAFFIC });
}

static void send_data(struct stage_world *w, uint32_t from, uint32_t to)
{
	struct flow *flow = &w->flows[from][to];
	struct packet packet = {
		.kind = PACKET_DATA, .from = from, .number = ++flow->number, .sent_ns = w->now_ns,
		.size = flow->packet_bytes
	};
	struct view *view = &w->nodes[from].views[to];

	become_active(w, from, to);
	flow->n_sent++;
	view->sent = true;
	view->sent_bytes += flow->packet_bytes;
	if (view->fsm.path.direct)
		send_udp(w, from, &view->fsm.path.endpoint, &packet);
	if (view->fsm.path.relay)
		send_relay(w, from, to, &packet);
}

static void note_gap(struct flow *flow, uint64_t sent_ns)
{
	if (sent_ns <= flow->good_ns)
		return;
	if (sent_ns - flow->good_ns > flow->longest_gap_ns) {
		flow->longest_gap_ns = sent_ns - flow->good_ns;
		flow->longest_gap_at_ns = flow->good_ns;
	}
	flow->good_ns = sent_ns;
}

static void receive_data(struct stage_world *w, uint32_t to, const struct packet *packet,
			 const struct peer_source *source)
{
	struct flow *flow = &w->flows[packet->from][to];
	struct view *view = &w->nodes[to].views[packet->from];
	bool known = false;

	if (packet->number <= flow->highest)
		return; /* the second leg, a duplicate, or overtaken: WireGuard drops or does not
			   care */
	flow->highest = packet->number;
	flow->n_arrived++;
	flow->n_direct += !source->by_relay;
	view->heard_bytes += flow->packet_bytes;
	note_gap(flow, packet->sent_ns);
	if (source->by_relay)
		view->heard_by_relay = true;
	for (uint32_t i = 0; !source->by_relay && i < view->n_heard; i++)
		known |= endpoint_equal(&view->heard[i], &source->endpoint);
	if (!source->by_relay && !known && view->n_heard < ARRAY_LEN(view->heard))
		view->heard[view->n_heard++] = source->endpoint;
	become_active(w, to, packet->from);
}

/* What the data plane saw since the last time. */
static void tell(struct stage_world *w, uint32_t node, uint32_t peer)
{
	struct view *view = &w->nodes[node].views[peer];

	for (uint32_t i = 0; i < view->n_heard; i++)
		feed_peer(w, node, peer,
			  (struct peer_input){ .type = PEER_IN_DATA_RECEIVED,
					       .from = { .endpoint = view->heard[i] },
					       .n_bytes = view->heard_bytes });
	if (view->heard_by_relay)
		feed_peer(w, node, peer,
			  (struct peer_input){ .type = PEER_IN_DATA_RECEIVED,
					       .from = { .by_relay = true },
					       .n_bytes = view->heard_bytes });
	if (view->sent)
		feed_peer(w, node, peer,
			  (struct peer_input){ .type = PEER_IN_DATA_SENT,
					       .n_bytes = view->sent_bytes });
	view->n_heard = 0;
	view->sent_bytes = view->heard_bytes = 0;
	view->heard_by_relay = view->sent = false;
	if (!view->was_active || w->now_ns - view->activity_ns < ACTIVITY_NS)
		return;
	view->was_active = false;
	feed_peer(w, node, peer, (struct peer_input){ .type = PEER_IN_IDLE });
}

/* ---- arrivals ---- */

static void receive_session(struct stage_world *w, uint32_t to, const struct packet *packet,
			    const struct peer_source *source)
{
	struct session_opened opened;
	struct peer_input input = { .from = *source };

	if (session_box_open(w->nodes[to].box, packet->bytes, packet->len, &opened) != 0)
		return;
	if (opened.message.type == SESSION_NAT || opened.message.type == SESSION_SEARCH) {
		search_take_nat(w, to, opened.peer_id, &opened.message.nat, opened.message.type == SESSION_SEARCH);
		return;
	}
	memcpy(input.tx_id.bytes, opened.message.tx_id, sizeof(input.tx_id.bytes));
	input.endpoints = opened.message.endpoints;
	input.n_endpoints = opened.message.n_endpoints;
	input.age_ms = opened.message.age_ms;
	input.type = opened.message.type == SESSION_PING      ? PEER_IN_PING
		     : opened.message.type == SESSION_PONG    ? PEER_IN_PONG
		     : opened.message.type == SESSION_RECEIPT ? PEER_IN_RECEIPT
							      : PEER_IN_RENDEZVOUS;
	feed_peer(w, to, opened.peer_id, input);
}

void world_receive(struct stage_world *w, uint32_t to, const struct packet *packet, const struct peer_source *source)
{
	struct endpoint_input answer = { .type = ENDPOINT_IN_ANSWER };

	switch (packet->kind) {
	case PACKET_SESSION:
		receive_session(w, to, packet, source);
		break;
	case PACKET_DATA:
		receive_data(w, to, packet, source);
		break;
	case PACKET_STUN_ANSWER:
		answer.from = source->endpoint;
		answer.mapped = packet->mapped;
		memcpy(answer.tx_id, packet->tx_id, sizeof(answer.tx_id));
		feed_endpoints(w, to, answer);
		break;
	case PACKET_STUN_REQUEST:
	case PACKET_STUN_REFUSAL:
	case PACKET_KNOCK:
		break;
	}
}

/* All servers have two ports, and do what RFC 5780 asks of them. */
static void answer_stun(struct stage_world *w, uint32_t relay, const struct event *event)
{
	const struct packet *request = &event->packet;
	struct packet answer = *request;
	struct endpoint from = event->to, to = event->source;

	if (!w->relays[relay].up || request->kind != PACKET_STUN_REQUEST)
		return;
	answer.kind = PACKET_STUN_ANSWER;
	answer.mapped = event->source;
	answer.other = event->to;
	answer.other.port = event->to.port == STUN_PORT ? STUN_PORT + 1 : STUN_PORT;
	if (request->question == NAT_ASK_OTHER_PORT)
		from = answer.other;
	if (request->question == NAT_ASK_TO_PORT)
		to.port = request->port;
	fly(w, w->relays[relay].distance_ns + distance_to_ip(w, ip_of(&to)), &from, &to, &answer);
}

/* The way from one node to another may be worse than the rest of the world. */
static bool is_lost_between(struct stage_world *w, uint32_t from, uint32_t to, enum packet_kind kind)
{
	double loss = w->loss_from[from][to];

	return (kind == PACKET_DATA && w->data_cut[from][to]) || (loss > 0 && world_chance(w) < loss);
}

static void arrive_udp(struct stage_world *w, const struct event *event)
{
	struct peer_source source = { .endpoint = event->source };
	uint32_t ip = ip_of(&event->to);
	struct endpoint inside = event->to;
	int node;

	for (uint32_t i = 0; i < MAX_RELAYS; i++)
		if (ip == STUN_IP(i))
			answer_stun(w, i, event);
	for (uint32_t i = 0; i < MAX_NATS; i++)
		if (nat_has_address(&w->nats[i].nat, &event->to) &&
		    (w->nats[i].udp_cut || nat_in(&w->nats[i].nat, w->now_ns, NAT_UDP, &event->source,
						  &event->to, &inside) != 0))
			return;
	node = owner_of(w, &inside);
	if (node < 0 || is_lost_between(w, event->packet.from, (uint32_t)node, event->packet.kind))
		return;
	if (inside.port == w->nodes[node].local.port)
		world_receive(w, (uint32_t)node, &event->packet, &source);
	else
		search_receive(w, (uint32_t)node, inside.port, &event->packet, &source.endpoint);
}

/* ---- map and relay connections ---- */

static void publish(struct stage_world *w, uint32_t node)
{
	struct record *record = &w->records[node];
	const struct sim_node *n = &w->nodes[node];

	if (!w->control_up)
		return;
	secret_key_public(&n->secret, &record->session_key);
	record->n_endpoints = n->endpoints.n_ours;
	memcpy(record->endpoints, n->endpoints.ours, sizeof(record->endpoints));
	for (uint32_t i = 0; i < w->n_nodes; i++)
		if (i != node)
			later(w, w->nodes[i].distance_ns + MS(20), EVENT_PUSH, i, node, NULL)
				->record = *record;
}

static uint64_t session_of(const struct public_key *key)
{
	uint64_t id = 0;

	if (!public_key_is_zero(key))
		session_key_id(key, (uint8_t *)&id);
	return id;
}

static void take_push(struct stage_world *w, uint32_t node, uint32_t other,
		      const struct record *record)
{
	struct view *view = &w->nodes[node].views[other];
	int r = session_box_set_peer(w->nodes[node].box, other, &record->session_key);

	assert(r == 0);
	search_take_session(w, node, other, session_of(&record->session_key));
	feed_peer(w, node, other,
		  (struct peer_input){ .type = PEER_IN_INFO,
				       .session = session_of(&record->session_key),
				       .endpoints = record->endpoints,
				       .n_endpoints = record->n_endpoints });
	view->session_key = record->session_key;
}

static void set_connected(struct stage_world *w, uint32_t node, uint32_t relay, bool connected)
{
	w->nodes[node].connected[relay] = connected;
	for (uint32_t i = 0; i < w->n_nodes; i++)
		if (i != node && w->nodes[i].home == relay)
			feed_peer(w, node, i,
				  (struct peer_input){ .type = PEER_IN_RELAY,
						       .relay_up = connected });
}

static void take_link(struct stage_world *w, uint32_t node)
{
	const struct sim_node *n = &w->nodes[node];
	const struct endpoint locals[] = { n->local, n->second };

	feed_endpoints(w, node,
		       (struct endpoint_input){
			       .type = ENDPOINT_IN_LOCAL, .endpoints = locals, .n = 1 + has_second(n) });
	search_take_local(w, node);
	feed_endpoints(w, node, (struct endpoint_input){ .type = ENDPOINT_IN_LINK });
}

/* ---- nodes ---- */

static void on_trace(void *arg, const char *line)
{
	printf("%s %s\n", (const char *)arg, line);
}

static char names[MAX_NODES][MAX_NODES + 1][32];

static void init_machines(struct stage_world *w, uint32_t i)
{
	struct sim_node *node = &w->nodes[i];

	endpoint_fsm_init(&node->endpoints, world_random(w, 0));
	snprintf(names[i][MAX_NODES], sizeof(names[i][0]), "        %u  ", i);
	node->endpoints.trace = w->trace ? on_trace : NULL;
	node->endpoints.trace_arg = names[i][MAX_NODES];
	for (uint32_t p = 0; p < w->n_nodes; p++) {
		struct view *view = &node->views[p];

		view->was_active = false;
		view->n_heard = 0;
		view->direct_ns = 0;
		view->heard_by_relay = view->sent = false;
		peer_fsm_init(&view->fsm, world_random(w, 0));
		snprintf(names[i][p], sizeof(names[i][p]), "        %u>%u", i, p);
		view->fsm.trace = w->trace ? on_trace : NULL;
		view->fsm.trace_arg = names[i][p];
	}
	search_init(w, i);
}

static void new_secret(struct stage_world *w, struct secret_key *ret)
{
	for (int i = 0; i < KEY_LEN; i++)
		ret->bytes[i] = (uint8_t)world_random(w, 256);
}

void world_start_node(struct stage_world *w, uint32_t i)
{
	struct sim_node *node = &w->nodes[i];
	struct endpoint_server servers[2 * MAX_RELAYS];

	world_log(w, "node %u starts behind %s", i, nat_name(world_nat_of(w, i)));
	node->up = true;
	node->life++;
	new_secret(w, &node->secret);
	node->box = session_box_new(&node->secret);
	init_machines(w, i);
	for (uint32_t s = 0; s < 2 * MAX_RELAYS; s++)
		servers[s] = (struct endpoint_server){
			.relay_id = s / 2 + 1,
			.endpoint = endpoint_from_v4(STUN_IP(s / 2), (uint16_t)(STUN_PORT + s % 2))
		};
	feed_endpoints(w, i,
		       (struct endpoint_input){ .type = ENDPOINT_IN_SERVERS,
						.servers = servers,
						.n = ARRAY_LEN(servers) });
	search_take_servers(w, i, servers, ARRAY_LEN(servers));
	take_link(w, i);
	for (uint32_t p = 0; p < w->n_nodes; p++) /* the cached map, then control's */
		if (p != i && !public_key_is_zero(&w->records[p].session_key))
			later(w, MS(1), EVENT_PUSH, i, p, NULL)->record = w->records[p];
	for (uint32_t r = 0; r < MAX_RELAYS; r++)
		if (w->relays[r].up)
			later(w, MS(100) + world_random(w, MS(200)), EVENT_CONNECT, i, r, NULL);
	later(w, TELL_NS, EVENT_TELL, i, 0, NULL);
}

void world_stop_node(struct stage_world *w, uint32_t i)
{
	struct sim_node *node = &w->nodes[i];

	world_log(w, "node %u is killed", i);
	node->up = false;
	node->life++;
	node->box = session_box_free(node->box);
	memset(node->connected, 0, sizeof(node->connected));
}

void world_move_node(struct stage_world *w, uint32_t i, int nat)
{
	struct sim_node *node = &w->nodes[i];

	world_log(w, "node %u moves behind %s", i, nat_name(&w->nats[nat].nat.config.rules[NAT_UDP]));
	node->nat = nat;
	node->local = endpoint_from_v4(LAN_IP(nat, i), UDP_PORT);
	for (uint32_t r = 0; r < MAX_RELAYS; r++)
		node->connected[r] =
			false; /* its TCP connections are dead; it knows with the link */
	later(w, world_random(w, MS(200)), EVENT_LINK, i, 0, NULL);
}

/* ---- the world ---- */

void world_set_flow(struct stage_world *w, uint32_t from, uint32_t to, uint64_t interval_ns)
{
	struct flow *flow = &w->flows[from][to];
	bool was_silent = flow->interval_ns == 0;

	flow->interval_ns = interval_ns;
	flow->packet_bytes = PACKET_BYTES;
	flow->good_ns = w->now_ns;
	if (was_silent && interval_ns > 0)
		later(w, 1, EVENT_DATA, from, to, NULL)->life = 0;
}

void world_set_link(struct stage_world *w, uint32_t i, uint64_t byte_ns, uint64_t queue_ns)
{
	w->nodes[i].byte_ns = byte_ns;
	w->nodes[i].queue_ns = queue_ns;
	w->nodes[i].link_free_ns = 0;
}

void world_set_relay(struct stage_world *w, uint32_t relay, bool up)
{
	world_log(w, "relay %u is %s", relay, up ? "up" : "down");
	w->relays[relay].up = up;
	for (uint32_t i = 0; i < w->n_nodes; i++)
		if (w->nodes[i].up)
			later(w, MS(20) + world_random(w, MS(180)), up ? EVENT_CONNECT : EVENT_CUT,
			      i, relay, NULL);
}

void world_set_control(struct stage_world *w, bool up)
{
	world_log(w, "control is %s", up ? "back" : "away");
	w->control_up = up;
	for (uint32_t i = 0; i < w->n_nodes && up; i++)
		if (w->nodes[i].up)
			later(w, MS(50), EVENT_PUBLISH, i, 0, NULL);
}

void world_reset_gaps(struct stage_world *w)
{
	for (uint32_t i = 0; i < w->n_nodes; i++) {
		for (uint32_t k = 0; k < w->n_nodes; k++) {
			w->flows[i][k].good_ns = w->now_ns;
			w->flows[i][k].longest_gap_ns = 0;
		}
	}
}

static void happen_to_node(struct stage_world *w, const struct event *event)
{
	struct peer_source source = { .endpoint = event->source };

	switch (event->type) {
	case EVENT_LAN:
		if (!is_lost_between(w, event->other, event->node, event->packet.kind))
			world_receive(w, event->node, &event->packet, &source);
		break;
	case EVENT_RELAYED:
		source.by_relay = true;
		if (is_connected(w, event->node, w->nodes[event->node].home))
			world_receive(w, event->node, &event->packet, &source);
		break;
	case EVENT_TELL:
		for (uint32_t p = 0; p < w->n_nodes; p++)
			if (p != event->node)
				tell(w, event->node, p);
		later(w, TELL_NS, EVENT_TELL, event->node, 0, NULL);
		break;
	case EVENT_PUBLISH:
		publish(w, event->node);
		break;
	case EVENT_PUSH:
		take_push(w, event->node, event->other, &event->record);
		break;
	case EVENT_CONNECT:
	case EVENT_CUT:
		if (w->relays[event->other].up == (event->type == EVENT_CONNECT))
			set_connected(w, event->node, event->other, event->type == EVENT_CONNECT);
		break;
	case EVENT_LINK:
		take_link(w, event->node);
		for (uint32_t r = 0; r < MAX_RELAYS; r++) {
			set_connected(w, event->node, r, false);
			later(w, MS(100) + world_random(w, MS(200)), EVENT_CONNECT, event->node, r,
			      NULL);
		}
		break;
	case EVENT_UDP:
	case EVENT_DATA:
	case EVENT_SECOND:
		break;
	}
}

static void happen_data(struct stage_world *w, const struct event *event)
{
	const struct flow *flow = &w->flows[event->node][event->other];

	if (flow->interval_ns == 0)
		return;
	if (w->nodes[event->node].up)
		send_data(w, event->node, event->other);
	later(w, flow->interval_ns, EVENT_DATA, event->node, event->other, NULL);
}

static void count_second(struct stage_world *w)
{
	for (uint32_t i = 0; i < w->n_nodes; i++)
		for (uint32_t p = 0; p < w->n_nodes; p++)
			w->nodes[i].views[p].n_messages = 0;
	later(w, SECONDS(1), EVENT_SECOND, MAX_NODES, 0, NULL);
}

static void happen(struct stage_world *w, const struct event *event)
{
	if (event->type == EVENT_UDP)
		arrive_udp(w, event);
	else if (event->type == EVENT_DATA)
		happen_data(w, event);
	else if (event->type == EVENT_SECOND)
		count_second(w);
	else if (w->nodes[event->node].up && w->nodes[event->node].life == event->life)
		happen_to_node(w, event);
}

enum machine { MACHINE_PEER, MACHINE_SEARCH, MACHINE_ENDPOINTS, MACHINE_NAT };

/* A machine's deadline: of a node's, or of its view of a peer. */
struct alarm {
	uint64_t at_ns;
	enum machine machine;
	uint32_t node, peer;
};

static void consider(struct alarm *first, uint64_t at_ns, enum machine machine, uint32_t node, uint32_t peer)
{
	if (at_ns == 0 || at_ns >= first->at_ns)
		return;
	first->at_ns = at_ns;
	first->machine = machine;
	first->node = node;
	first->peer = peer;
}

static struct alarm first_alarm(const struct stage_world *w)
{
	struct alarm first = { .at_ns = UINT64_MAX };

	for (uint32_t i = 0; i < w->n_nodes; i++) {
		const struct sim_node *node = &w->nodes[i];

		if (!node->up)
			continue;
		for (uint32_t p = 0; p < w->n_nodes; p++) {
			consider(&first, node->views[p].fsm.deadline_ns, MACHINE_PEER, i, p);
			consider(&first, node->views[p].hard_nat.deadline_ns, MACHINE_SEARCH, i, p);
		}
		consider(&first, node->endpoints.deadline_ns, MACHINE_ENDPOINTS, i, 0);
		consider(&first, node->behaviour.deadline_ns, MACHINE_NAT, i, 0);
	}
	return first;
}

static void ring(struct stage_world *w, const struct alarm *alarm)
{
	switch (alarm->machine) {
	case MACHINE_PEER:
		feed_peer(w, alarm->node, alarm->peer, (struct peer_input){ .type = PEER_IN_DEADLINE });
		break;
	case MACHINE_SEARCH:
		search_on_deadline(w, alarm->node, alarm->peer);
		break;
	case MACHINE_ENDPOINTS:
		feed_endpoints(w, alarm->node, (struct endpoint_input){ .type = ENDPOINT_IN_DEADLINE });
		break;
	case MACHINE_NAT:
		search_on_nat_deadline(w, alarm->node);
		break;
	}
}

void world_run_until(struct stage_world *w, uint64_t ns)
{
	for (;;) {
		const uint64_t event_ns = w->n_heap > 0 ? w->heap[0]->at_ns : UINT64_MAX;
		const struct alarm alarm = first_alarm(w);
		const bool rings = alarm.at_ns != UINT64_MAX && alarm.at_ns <= event_ns;
		struct event *event;

		if ((rings ? alarm.at_ns : event_ns) > ns)
			break;
		w->now_ns = rings ? alarm.at_ns : event_ns;
		if (rings) {
			ring(w, &alarm);
			continue;
		}
		event = pop(w);
		happen(w, event);
		spare(w, event);
	}
	w->now_ns = ns;
	for (uint32_t i = 0; i < w->n_nodes; i++) /* what is still missing is a gap as well */
		for (uint32_t k = 0; k < w->n_nodes; k++)
			if (w->flows[i][k].interval_ns > 0 && w->nodes[i].up && w->nodes[k].up &&
			    ns > w->flows[i][k].good_ns + SECONDS(1))
				w->flows[i][k].longest_gap_ns = ns - w->flows[i][k].good_ns;
}

static void make_nat(struct stage_world *w, uint32_t i)
{
	struct sim_nat *router = &w->nats[i];
	const struct nat_tables tables = { router->mappings, router->sessions, router->buckets,
					   NAT_MAPPINGS,     NAT_SESSIONS,     NAT_BUCKETS };
	struct nat_config config = { .addresses = { NAT_IP(i) }, .n_addresses = 1, .seed = w->seed + i };
	struct nat_rules *rules = &config.rules[NAT_UDP];

	rules->mapping = (enum nat_behaviour)world_random(w, 3);
	rules->filtering = (enum nat_behaviour)world_random(w, 3);
	rules->timeout_ns = SECONDS(30);
	rules->is_kept_by_inbound = true;
	config.hairpin = world_random(w, 2) == 1 ? NAT_HAIRPIN_EXTERNAL : NAT_HAIRPIN_OFF;
	rules->filter_lag_ns = world_random(w, 2) * world_random(w, MS(100));
	config.ports = rules->mapping == NAT_INDEPENDENT ? NAT_PORTS_PRESERVE : NAT_PORTS_RANDOM;
	nat_init(&router->nat, &config, &tables);
}

void world_init(struct stage_world *w, uint64_t seed, bool trace)
{
	memset(w, 0, sizeof(*w));
	w->now_ns = 1;
	w->seed = seed;
	w->random = seed * 0x2545f4914f6cdd1du + 1;
	w->trace = trace;
	w->control_up = true;
	for (uint32_t i = 0; i < MAX_RELAYS; i++)
		w->relays[i] = (struct relay){ .up = true,
					       .distance_ns = MS(2) + world_random(w, MS(20)) };
	for (uint32_t i = 0; i < MAX_NATS; i++)
		make_nat(w, i);
	for (uint32_t i = 0; i < MAX_NODES; i++) {
		struct sim_node *node = &w->nodes[i];

		node->nat = world_random(w, 8) == 0 ? -1 : (int)i;
		node->home = (uint32_t)world_random(w, MAX_RELAYS);
		node->distance_ns = MS(1) + world_random(w, MS(40));
		node->local = node->nat < 0 ? endpoint_from_v4(PUBLIC_IP(i), UDP_PORT)
					    : endpoint_from_v4(LAN_IP(node->nat, i), UDP_PORT);
	}
	later(w, SECONDS(1), EVENT_SECOND, MAX_NODES, 0, NULL);
}

void world_deinit(struct stage_world *w)
{
	for (uint32_t i = 0; i < w->n_nodes; i++)
		w->nodes[i].box = session_box_free(w->nodes[i].box);
	while (w->n_heap > 0)
		free(w->heap[--w->n_heap]);
	free(w->heap);
	while (w->n_spare > 0)
		free(w->spare[--w->n_spare]);
	for (uint32_t i = 0; i < MAX_NATS; i++)
		free(w->nats[i].wide);
}
