#include "actors/traffic_manager/traffic_manager.h"

#include "actors/session_manager/session_box.h"
#include "common/log.h"
#include "common/random_seed.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TELL_NS	      1000000000ull
#define RENDEZVOUS_NS (200 * 1000000ull) /* no peer of ours sends them faster */
#define NAT_NS	      (500 * 1000000ull)

static_assert(PEER_TX_ID_LEN == SESSION_TX_ID_LEN, "one transaction id");
static_assert(PEER_NO_RECEIPT == SESSION_NO_RECEIPT, "one word for nothing");
static_assert(MESSAGE_MAX_ENDPOINTS <= SESSION_MAX_ENDPOINTS, "a rendezvous holds all our endpoints");

/* peers */

static struct traffic_peer **slot_of(const struct traffic_manager *manager, uint32_t id)
{
	return (struct traffic_peer **)&manager->buckets[id % TRAFFIC_MANAGER_BUCKETS];
}

static struct traffic_peer *find_peer(const struct traffic_manager *manager, uint32_t id)
{
	struct traffic_peer *peer = *slot_of(manager, id);

	while (peer && peer->id != id)
		peer = peer->next;
	return peer;
}

const struct peer_fsm *traffic_manager_peer(const struct traffic_manager *manager, uint32_t peer_id)
{
	const struct traffic_peer *peer = find_peer(manager, peer_id);

	return peer ? &peer->fsm : NULL;
}

const struct path_mtu_fsm *traffic_manager_peer_mtu(const struct traffic_manager *manager, uint32_t peer_id)
{
	const struct traffic_peer *peer = find_peer(manager, peer_id);

	return peer ? &peer->mtu.fsm : NULL;
}

static void on_trace(void *arg, const char *line)
{
	const struct traffic_peer *peer = arg;

	log_debug("traffic", "peer=%s %s", peer->name, line);
}

/* carrying out */

static void seal(struct traffic_manager *manager, const struct traffic_peer *peer,
		 const struct peer_source *to, const struct session_message *session)
{
	struct message message = { .type = MESSAGE_SEAL,
				   .peer_id = peer->id,
				   .via = { .by_relay = to->by_relay,
					    .relay_id = to->relay_id,
					    .endpoint = to->endpoint },
				   .session = *session };

	stage_post(manager->actor.stage, ACTOR_TRAFFIC_MANAGER, ACTOR_SESSION_MANAGER, &message);
}

static void send_ping(struct traffic_manager *manager, const struct traffic_peer *peer,
		      const struct peer_action *action)
{
	struct session_message ping = { .type = SESSION_PING, .n_padding = SESSION_PING_PADDING };

	memcpy(ping.tx_id, action->tx_id.bytes, sizeof(ping.tx_id));
	seal(manager, peer, &action->to, &ping);
}

static void send_pong(struct traffic_manager *manager, const struct traffic_peer *peer,
		      const struct peer_action *action)
{
	struct session_message pong = { .type = SESSION_PONG };

	memcpy(pong.tx_id, action->tx_id.bytes, sizeof(pong.tx_id));
	if (!action->to.by_relay)
		pong.observed = action->to.endpoint;
	seal(manager, peer, &action->to, &pong);
}

static void send_receipt(struct traffic_manager *manager, const struct traffic_peer *peer,
			 const struct peer_action *action)
{
	const struct session_message receipt = { .type = SESSION_RECEIPT, .age_ms = action->age_ms };

	seal(manager, peer, &action->to, &receipt);
}

static void send_rendezvous(struct traffic_manager *manager, const struct traffic_peer *peer)
{
	struct session_message rendezvous = { .type = SESSION_RENDEZVOUS, .n_endpoints = manager->n_ours };

	memcpy(rendezvous.endpoints, manager->ours, manager->n_ours * sizeof(*manager->ours));
	seal(manager, peer, &(struct peer_source){ .by_relay = true }, &rendezvous);
}

static void set_aka(struct traffic_manager *manager, const struct traffic_peer *peer,
		    const struct endpoint *endpoint, bool known)
{
	struct message message = { .type = MESSAGE_SET_AKA,
				   .peer_id = peer->id,
				   .via = { .endpoint = *endpoint },
				   .aka = { .known = known } };

	stage_post(manager->actor.stage, ACTOR_TRAFFIC_MANAGER, ACTOR_DIRECT_ROUTER, &message);
}

static void set_path(struct traffic_manager *manager, const struct traffic_peer *peer,
		     const struct peer_path *path)
{
	struct message message = { .type = MESSAGE_SET_PATH, .peer_id = peer->id, .path = *path };

	log_info("traffic", "peer=%s path=%s%s%s", peer->name, path->direct ? endpoint_text(&path->endpoint).s : "",
		 path->direct && path->relay ? "+" : "", path->relay ? "relay" : "");
	stage_post(manager->actor.stage, ACTOR_TRAFFIC_MANAGER, ACTOR_OUT_CONN, &message);
}

static void apply(struct traffic_manager *manager, const struct traffic_peer *peer,
		  const struct peer_actions *actions)
{
	for (uint32_t i = 0; i < actions->n; i++) {
		const struct peer_action *action = &actions->all[i];

		switch (action->type) {
		case PEER_DO_SEND_PING:
			send_ping(manager, peer, action);
			break;
		case PEER_DO_SEND_PONG:
			send_pong(manager, peer, action);
			break;
		case PEER_DO_SEND_RENDEZVOUS:
			send_rendezvous(manager, peer);
			break;
		case PEER_DO_SEND_RECEIPT:
			send_receipt(manager, peer, action);
			break;
		case PEER_DO_ADD_AKA:
			set_aka(manager, peer, &action->to.endpoint, true);
			break;
		case PEER_DO_REMOVE_AKA:
			set_aka(manager, peer, &action->to.endpoint, false);
			break;
		case PEER_DO_SET_PATH:
			set_path(manager, peer, &action->path);
			break;
		}
	}
}

static void rearm(struct traffic_manager *manager)
{
	const struct deadline *first = deadline_heap_first(&manager->deadlines);

	stage_set_deadline(&manager->actor, first ? first->at_ns : 0);
}

static uint64_t sooner(uint64_t a_ns, uint64_t b_ns)
{
	return a_ns == 0 || (b_ns != 0 && b_ns < a_ns) ? b_ns : a_ns;
}

static uint64_t next_deadline(const struct traffic_peer *peer)
{
	return sooner(sooner(peer->fsm.deadline_ns, peer->mtu.fsm.deadline_ns), peer->hard_nat.deadline_ns);
}

/* Its deadline, and the MTU of the path as it is now. */
static void settle(struct traffic_manager *manager, struct traffic_peer *peer)
{
	peer_mtu_follow(&peer->mtu, &peer->fsm.path, peer->in_active || peer->out_active,
			peer_fsm_latency_us(&peer->fsm));
	peer_hard_nat_follow(&peer->hard_nat, peer->in_active || peer->out_active, peer_fsm_has_direct(&peer->fsm));
	deadline_heap_set(&manager->deadlines, &peer->deadline, next_deadline(peer));
	rearm(manager);
}

static void feed(struct traffic_manager *manager, struct traffic_peer *peer, struct peer_input input)
{
	struct peer_actions actions;

	input.now_ns = stage_now_ns(manager->actor.stage);
	peer_fsm_step(&peer->fsm, &input, &actions);
	apply(manager, peer, &actions);
	settle(manager, peer);
}

/* map */

static bool relay_is_up(const struct traffic_manager *manager, uint32_t relay_id)
{
	if (relay_id == 0)
		return false;
	for (uint32_t i = 0; i < manager->n_relays_down; i++)
		if (manager->relays_down[i] == relay_id)
			return false;
	return true; /* a relay never tried is as good as up: it is connected on demand */
}

static uint64_t session_of(const struct map_peer *record)
{
	uint64_t id = 0;
	uint8_t key_id[SESSION_KEY_ID_LEN];

	if (public_key_is_zero(&record->session_key))
		return 0;
	session_key_id(&record->session_key, key_id);
	memcpy(&id, key_id, sizeof(id));
	return id != 0 ? id : 1;
}

static void tell_info(struct traffic_manager *manager, struct traffic_peer *peer, const struct map_peer *record)
{
	strcpy(peer->name, record->name);
	peer->home_relay = record->home_relay;
	peer_hard_nat_on_session(&peer->hard_nat, session_of(record));
	feed(manager, peer,
	     (struct peer_input){ .type = PEER_IN_RELAY, .relay_up = relay_is_up(manager, peer->home_relay) });
	feed(manager, peer,
	     (struct peer_input){ .type = PEER_IN_INFO,
				  .session = session_of(record),
				  .endpoints = record->endpoints,
				  .n_endpoints = record->n_endpoints });
}

static void add_peer(struct traffic_manager *manager, const struct map_peer *record)
{
	struct traffic_peer *peer = calloc(1, sizeof(*peer));
	struct peer_path path;

	if (!peer)
		abort();
	peer->id = record->id;
	peer->next = *slot_of(manager, record->id);
	*slot_of(manager, record->id) = peer;
	peer_fsm_init(&peer->fsm, random_seed());
	peer->fsm.trace = peer->mtu.fsm.trace = on_trace;
	peer->fsm.trace_arg = peer->mtu.fsm.trace_arg = peer;
	peer_mtu_init(&peer->mtu, manager->actor.stage, manager->data_plane, peer->id, random_seed());
	peer_hard_nat_init(&peer->hard_nat, manager->actor.stage, &manager->hard_nat_ports,
			   &manager->hard_nat_turn, peer->id);
	peer->hard_nat.fsm.trace = on_trace;
	peer->hard_nat.fsm.trace_arg = peer;
	peer_hard_nat_on_ours(&peer->hard_nat, &manager->our_nat);
	feed(manager, peer, (struct peer_input){ .type = PEER_IN_OUR_ENDPOINTS, .n_endpoints = manager->n_ours });
	tell_info(manager, peer, record);
	if (data_plane_get_path(manager->data_plane, record->id, &path) && path.direct)
		feed(manager, peer,
		     (struct peer_input){ .type = PEER_IN_ADOPT, .from = { .endpoint = path.endpoint } });
}

static void free_peer(struct traffic_manager *manager, struct traffic_peer *peer)
{
	struct traffic_peer **at = slot_of(manager, peer->id);

	while (*at != peer)
		at = &(*at)->next;
	*at = peer->next;
	deadline_heap_set(&manager->deadlines, &peer->deadline, 0);
	peer_hard_nat_end(&peer->hard_nat);
	free(peer);
}

static bool same_info(const struct map_peer *a, const struct map_peer *b)
{
	if (!public_key_equal(&a->session_key, &b->session_key) || a->home_relay != b->home_relay ||
	    a->n_endpoints != b->n_endpoints || strcmp(a->name, b->name) != 0)
		return false;
	for (uint32_t i = 0; i < a->n_endpoints; i++)
		if (!endpoint_equal(&a->endpoints[i], &b->endpoints[i]))
			return false;
	return true;
}

static void remove_absent(struct traffic_manager *manager, const struct map *before, const struct map *map)
{
	for (uint32_t i = 0; before && i < before->n_peers; i++) {
		struct traffic_peer *peer = find_peer(manager, before->peers[i].id);

		if (!peer || map_find_peer(map, peer->id))
			continue;
		feed(manager, peer, (struct peer_input){ .type = PEER_IN_REMOVED });
		free_peer(manager, peer);
	}
	rearm(manager);
}

static int handle_map(struct actor *actor, struct message *message)
{
	struct traffic_manager *manager = container_of(actor, struct traffic_manager, actor);
	const struct map *map = map_ref_get(message->map);
	const struct map *before = manager->map ? map_ref_get(manager->map) : NULL;

	remove_absent(manager, before, map);
	for (uint32_t i = 0; i < map->n_peers; i++) {
		const struct map_peer *record = &map->peers[i];
		struct traffic_peer *peer = find_peer(manager, record->id);
		const struct map_peer *old = before ? map_find_peer(before, record->id) : NULL;

		if (!peer)
			add_peer(manager, record);
		else if (!old || !same_info(old, record))
			tell_info(manager, peer, record);
	}
	map_unref(manager->map);
	manager->map = message->map;
	message->map = NULL; /* kept */
	return 0;
}

/* the other handlers */

static int handle_activity(struct actor *actor, struct message *message)
{
	struct traffic_manager *manager = container_of(actor, struct traffic_manager, actor);
	struct traffic_peer *peer = find_peer(manager, message->peer_id);
	if (!peer) {
		manager->n_unknown_peers++;
		return 0;
	}

	bool was_active = peer->in_active || peer->out_active;
	if (message->activity.out)
		peer->out_active = message->activity.active;
	else
		peer->in_active = message->activity.active;
	bool is_active = peer->in_active || peer->out_active;

	struct peer_source from = { .by_relay = message->via.by_relay, .endpoint = message->via.endpoint };
	if (is_active && !was_active)
		feed(manager, peer, (struct peer_input){ .type = PEER_IN_TRAFFIC });
	if (message->activity.packet && message->activity.out)
		peer_mtu_sent(&peer->mtu);
	else if (message->activity.packet)
		peer_mtu_received(&peer->mtu, &message->via);
	if (message->activity.packet && message->activity.out)
		feed(manager, peer,
		     (struct peer_input){ .type = PEER_IN_DATA_SENT, .n_bytes = message->activity.n_bytes });
	if (message->activity.packet && !message->activity.out)
		feed(manager, peer,
		     (struct peer_input){ .type = PEER_IN_DATA_RECEIVED,
					  .from = from,
					  .n_bytes = message->activity.n_bytes });
	if (was_active && !is_active)
		feed(manager, peer, (struct peer_input){ .type = PEER_IN_IDLE });
	return 0;
}

/* A share of so many at once, and one each period. *until_ns: up to when it is used up. */
static bool take_share(uint64_t *until_ns, uint64_t now_ns, uint64_t period_ns, uint32_t n_at_once)
{
	if (*until_ns < now_ns)
		*until_ns = now_ns;
	if (*until_ns - now_ns >= n_at_once * period_ns)
		return false;
	*until_ns += period_ns;
	return true;
}

/*
 * A rendezvous names up to 32 addresses that we ping, of anybody: a peer must not be able to have us
 * flood them.
 */
static bool may_rendezvous(struct traffic_manager *manager, struct traffic_peer *peer)
{
	const bool may = take_share(&peer->rendezvous_ns, stage_now_ns(manager->actor.stage), RENDEZVOUS_NS,
				    TRAFFIC_MANAGER_RENDEZVOUS);

	manager->n_rendezvous_dropped += !may;
	return may;
}

/* Each may end a search and begin another. */
static bool may_tell_nat(struct traffic_manager *manager, struct traffic_peer *peer)
{
	const bool may = take_share(&peer->nat_ns, stage_now_ns(manager->actor.stage), NAT_NS, TRAFFIC_MANAGER_NATS);

	manager->n_nats_dropped += !may;
	return may;
}

static void tell_wireguard(struct traffic_manager *manager, struct traffic_peer *peer,
			   const struct endpoint *to, uint16_t port)
{
	const struct session_message message = { .type = SESSION_WIREGUARD, .port = port };
	uint64_t now_ns = stage_now_ns(manager->actor.stage);

	if (peer->told_ns != 0 && now_ns - peer->told_ns < TELL_NS)
		return;
	peer->told_ns = now_ns;
	seal(manager, peer, &(struct peer_source){ .endpoint = *to }, &message);
}

/* The peer has seen our address: if that is our own, it also reaches a WireGuard of ours on a port of its own. */
static void learn_observed(struct traffic_manager *manager, struct traffic_peer *peer,
			   const struct endpoint *from, const struct endpoint *observed)
{
	int port = data_plane_wireguard_port(manager->data_plane, observed);

	if (port > 0)
		tell_wireguard(manager, peer, from, (uint16_t)port);
}

/* What comes by a socket beside has an address of this machine (node/side_paths.h). */
static bool is_this_machine(const struct traffic_manager *manager, const struct endpoint *from)
{
	for (uint32_t i = 0; i < manager->n_ours; i++)
		if (memcmp(manager->ours[i].ip, from->ip, sizeof(from->ip)) == 0)
			return true;
	return endpoint_is_loopback(from);
}

/* The peer's WireGuard listens at this port: its machine's, and never a port of ours. */
static void learn_wireguard(struct traffic_manager *manager, const struct traffic_peer *peer,
			    const struct endpoint *from, uint16_t port)
{
	struct endpoint at = *from;

	if (is_this_machine(manager, from))
		return;
	at.port = port;
	data_plane_told_wireguard(manager->data_plane, peer->id, &at);
}

static int handle_opened(struct actor *actor, struct message *message)
{
	struct traffic_manager *manager = container_of(actor, struct traffic_manager, actor);
	struct traffic_peer *peer = find_peer(manager, message->peer_id);
	const struct session_message *session = &message->session;
	struct peer_input input = {
		.from = { .by_relay = message->via.by_relay,
			  .relay_id = message->via.relay_id,
			  .endpoint = message->via.endpoint }
	};

	if (!peer) {
		manager->n_unknown_peers++;
		return 0;
	}
	if (!message->via.by_relay)
		data_plane_heard(manager->data_plane, message->peer_id, &message->via.endpoint);
	memcpy(input.tx_id.bytes, session->tx_id, sizeof(input.tx_id.bytes));
	switch (session->type) {
	case SESSION_PING:
		input.type = PEER_IN_PING;
		break;
	case SESSION_PONG:
		input.type = PEER_IN_PONG;
		input.by_turn = endpoint_is_loopback(&session->observed);
		if (message->via.by_relay)
			data_plane_answered(manager->data_plane, peer->id, message->via.relay_id);
		else
			learn_observed(manager, peer, &message->via.endpoint, &session->observed);
		break;
	case SESSION_WIREGUARD:
		if (!message->via.by_relay)
			learn_wireguard(manager, peer, &message->via.endpoint, session->port);
		return 0;
	case SESSION_PROBE:
		peer_mtu_on_probe(&peer->mtu, &message->via, session);
		return 0;
	case SESSION_PASSED:
		peer_mtu_on_passed(&peer->mtu, session);
		settle(manager, peer);
		return 0;
	case SESSION_NAT:
	case SESSION_SEARCH:
		if (!may_tell_nat(manager, peer))
			return 0;
		peer_hard_nat_on_theirs(&peer->hard_nat, &session->nat, session->type == SESSION_SEARCH);
		settle(manager, peer);
		return 0;
	case SESSION_RECEIPT:
		input.type = PEER_IN_RECEIPT;
		input.age_ms = session->age_ms;
		break;
	case SESSION_RENDEZVOUS:
		if (!may_rendezvous(manager, peer))
			return 0;
		input.type = PEER_IN_RENDEZVOUS;
		input.endpoints = session->endpoints;
		input.n_endpoints = session->n_endpoints;
		break;
	}
	feed(manager, peer, input);
	return 0;
}

/* One input to every peer (of a home relay, or all). */
static void feed_all(struct traffic_manager *manager, uint32_t home_relay, const struct peer_input *input)
{
	for (uint32_t i = 0; i < TRAFFIC_MANAGER_BUCKETS; i++)
		for (struct traffic_peer *peer = manager->buckets[i]; peer; peer = peer->next)
			if (home_relay == 0 || peer->home_relay == home_relay)
				feed(manager, peer, *input);
}

static int handle_our_endpoints(struct actor *actor, struct message *message)
{
	struct traffic_manager *manager = container_of(actor, struct traffic_manager, actor);

	manager->n_ours = message->our_endpoints.n;
	memcpy(manager->ours, message->our_endpoints.endpoints, sizeof(manager->ours));
	feed_all(manager, 0,
		 &(struct peer_input){ .type = PEER_IN_OUR_ENDPOINTS, .n_endpoints = manager->n_ours });
	return 0;
}

static int handle_nat(struct actor *actor, struct message *message)
{
	struct traffic_manager *manager = container_of(actor, struct traffic_manager, actor);

	manager->our_nat = message->nat;
	for (uint32_t i = 0; i < TRAFFIC_MANAGER_BUCKETS; i++) {
		for (struct traffic_peer *peer = manager->buckets[i]; peer; peer = peer->next) {
			peer_hard_nat_on_ours(&peer->hard_nat, &manager->our_nat);
			settle(manager, peer);
		}
	}
	return 0;
}

static void note_relay(struct traffic_manager *manager, uint32_t relay_id, bool up)
{
	uint32_t i = 0;

	while (i < manager->n_relays_down && manager->relays_down[i] != relay_id)
		i++;
	if (up && i < manager->n_relays_down)
		manager->relays_down[i] = manager->relays_down[--manager->n_relays_down];
	if (!up && i == manager->n_relays_down && i < MAP_MAX_RELAYS)
		manager->relays_down[manager->n_relays_down++] = relay_id;
}

static int handle_relay_state(struct actor *actor, struct message *message)
{
	struct traffic_manager *manager = container_of(actor, struct traffic_manager, actor);

	note_relay(manager, message->via.relay_id, message->relay_state.up);
	feed_all(manager, message->via.relay_id,
		 &(struct peer_input){ .type = PEER_IN_RELAY, .relay_up = message->relay_state.up });
	return 0;
}

static int handle_send_failed(struct actor *actor, struct message *message)
{
	struct traffic_manager *manager = container_of(actor, struct traffic_manager, actor);
	struct traffic_peer *peer = find_peer(manager, message->peer_id);

	if (peer && message->send_failed.probe_len != 0) {
		peer_mtu_on_refused(&peer->mtu, &message->via, message->send_failed.probe_len);
		settle(manager, peer);
	} else if (peer)
		feed(manager, peer,
		     (struct peer_input){ .type = PEER_IN_SEND_FAILED,
					  .from = { .endpoint = message->via.endpoint },
					  .too_big = message->send_failed.error == -EMSGSIZE });
	return 0;
}

static int on_deadline(struct actor *actor, uint64_t now_ns)
{
	struct traffic_manager *manager = container_of(actor, struct traffic_manager, actor);
	struct deadline *first;

	while ((first = deadline_heap_first(&manager->deadlines)) != NULL && first->at_ns <= now_ns) {
		struct traffic_peer *peer = container_of(first, struct traffic_peer, deadline);

		peer_mtu_on_deadline(&peer->mtu);
		peer_hard_nat_on_deadline(&peer->hard_nat);
		feed(manager, peer, (struct peer_input){ .type = PEER_IN_DEADLINE });
		if (peer->deadline.at_ns != 0 && peer->deadline.at_ns <= now_ns)
			deadline_heap_set(&manager->deadlines, &peer->deadline, now_ns + 1);
	}
	rearm(manager);
	return 0;
}

static const struct actor_accepts accepts[] = {
	{ MESSAGE_MAP, ACTOR_NONE, handle_map },
	{ MESSAGE_ACTIVITY, ACTOR_IN_CONN, handle_activity },
	{ MESSAGE_ACTIVITY, ACTOR_OUT_CONN, handle_activity },
	{ MESSAGE_OPENED, ACTOR_SESSION_MANAGER, handle_opened },
	{ MESSAGE_OUR_ENDPOINTS, ACTOR_ENDPOINT_MANAGER, handle_our_endpoints },
	{ MESSAGE_NAT, ACTOR_ENDPOINT_MANAGER, handle_nat },
	{ MESSAGE_RELAY_STATE, ACTOR_RELAY_MANAGER, handle_relay_state },
	{ MESSAGE_SEND_FAILED, ACTOR_DIRECT_MANAGER, handle_send_failed },
	{ MESSAGE_SEND_FAILED, ACTOR_RELAY_MANAGER, handle_send_failed },
};

static const struct actor_class traffic_manager_class = {
	.kind = ACTOR_TRAFFIC_MANAGER,
	.on_deadline = on_deadline,
	.accepts = accepts,
	.n_accepts = ARRAY_LEN(accepts),
};

void traffic_manager_start(struct traffic_manager *manager, struct stage *stage, struct data_plane *data_plane)
{
	*manager = (struct traffic_manager){ .data_plane = data_plane };
	stage_add(stage, &manager->actor, &traffic_manager_class, 0);
}

void traffic_manager_set_hard_nat_ports(struct traffic_manager *manager, const struct hard_nat_ports *ports)
{
	manager->hard_nat_ports = *ports;
}

/* The machine does not know this ping, and its pong says nothing to it. */
void traffic_manager_on_doubted(struct traffic_manager *manager, uint32_t peer_id)
{
	struct session_message ping = { .type = SESSION_PING, .n_padding = SESSION_PING_PADDING };
	const struct traffic_peer *peer = find_peer(manager, peer_id);
	const uint64_t random = random_seed();

	if (!peer)
		return;
	memcpy(ping.tx_id, &random, sizeof(random));
	seal(manager, peer, &(struct peer_source){ .by_relay = true }, &ping);
}

void traffic_manager_stop(struct traffic_manager *manager)
{
	for (uint32_t i = 0; i < TRAFFIC_MANAGER_BUCKETS; i++)
		while (manager->buckets[i])
			free_peer(manager, manager->buckets[i]);
	stage_remove(manager->actor.stage, &manager->actor);
	deadline_heap_deinit(&manager->deadlines);
	map_unref(manager->map);
	manager->map = NULL;
}

uint32_t traffic_manager_n_missing(const struct traffic_manager *manager)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < TRAFFIC_MANAGER_BUCKETS; i++)
		for (const struct traffic_peer *peer = manager->buckets[i]; peer; peer = peer->next)
			n += peer->fsm.active && !peer->fsm.path.direct && !peer->fsm.relay_up;
	return n;
}
