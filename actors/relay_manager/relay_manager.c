#include "actors/relay_manager/relay_manager.h"

#include "common/log.h"

#include <errno.h>

static void on_trace(void *arg, const char *line)
{
	log_debug("relay", "%s", line);
}

static const char *name_of(const struct relay_manager *manager, uint32_t relay_id)
{
	const struct map_relay *relay = manager->map ? map_find_relay(map_ref_get(manager->map), relay_id) : NULL;

	return relay ? relay->name : "none";
}

/* carrying out */

static void carry_out(struct relay_manager *manager, const struct home_order *order)
{
	const struct map_relay *relay = map_find_relay(map_ref_get(manager->map), order->relay_id);

	if (order->hold && relay)
		data_plane_hold_relay(manager->data_plane, relay);
	if (!order->hold)
		data_plane_drop_relay(manager->data_plane, order->relay_id);
}

/* Where peers are looked for that are not at their home. */
static void publish_ranks(struct relay_manager *manager, uint64_t now_ms)
{
	uint32_t ids[MAP_MAX_RELAYS];
	uint32_t n = home_fsm_rank(&manager->fsm, now_ms, ids);

	data_plane_rank_relays(manager->data_plane, manager->fsm.home, ids, n);
}

static void feed(struct relay_manager *manager, struct home_input input)
{
	struct home_actions actions;

	input.now_ms = stage_now_ns(manager->actor.stage) / 1000000;
	home_fsm_step(&manager->fsm, &input, &actions);
	for (uint32_t i = 0; i < actions.n_orders; i++)
		carry_out(manager, &actions.orders[i]);
	if (actions.home_changed || input.type == HOME_IN_RELAYS || input.type == HOME_IN_DEADLINE)
		publish_ranks(manager, input.now_ms);
	if (actions.home_changed) {
		log_info("relay", "home relay is %s", name_of(manager, actions.home));
		manager->ports.home_relay(manager->ports.owner, actions.home);
	}
	stage_set_deadline(&manager->actor, manager->fsm.deadline_ms * 1000000);
}

/* Who does not answer STUN is connected to: its pings tell how far it is. Dropped as any relay that nobody uses. */
static void try_unmeasured(struct relay_manager *manager)
{
	uint32_t ids[RELAY_SURVEY_MOST];
	const uint64_t now_ms = stage_now_ns(manager->actor.stage) / 1000000;
	const uint32_t n = relay_survey_begin(&manager->survey, &manager->fsm, now_ms, ids);

	for (uint32_t i = 0; i < n; i++)
		feed(manager, (struct home_input){ .type = HOME_IN_USED, .relay_id = ids[i] });
}

/* Home came up. By TLS alone: UDP is blocked, most likely, and home was but a guess. */
static void look_around(struct relay_manager *manager)
{
	if (data_plane_relay_remote(manager->data_plane, manager->fsm.home).port != 0)
		relay_survey_forgive(&manager->survey);
	else if (relay_survey_is_due(&manager->survey, stage_now_ns(manager->actor.stage) / 1000000))
		try_unmeasured(manager);
}

static void take_relay_state(struct relay_manager *manager, uint32_t relay_id, bool up)
{
	if (up && !data_plane_relay_is_up(manager->data_plane, relay_id))
		return; /* dropped or lost again since this was said */
	struct message message = { .type = MESSAGE_RELAY_STATE,
				   .via = { .by_relay = true, .relay_id = relay_id },
				   .relay_state = { .up = up } };

	stage_post(manager->actor.stage, ACTOR_RELAY_MANAGER, ACTOR_TRAFFIC_MANAGER, &message);
	feed(manager, (struct home_input){ .type = up ? HOME_IN_UP : HOME_IN_DOWN, .relay_id = relay_id });
	if (up && relay_id == manager->fsm.home)
		look_around(manager);
}

/* handlers */

static int handle_relay_state(struct actor *actor, struct message *message)
{
	take_relay_state(container_of(actor, struct relay_manager, actor), message->via.relay_id,
			 message->relay_state.up);
	return 0;
}

/* Home moves on; what is connected there lasts as long as it does. */
static int handle_relay_leaving(struct actor *actor, struct message *message)
{
	feed(container_of(actor, struct relay_manager, actor),
	     (struct home_input){ .type = HOME_IN_DOWN, .relay_id = message->via.relay_id });
	return 0;
}

static int handle_relay_used(struct actor *actor, struct message *message)
{
	feed(container_of(actor, struct relay_manager, actor),
	     (struct home_input){ .type = HOME_IN_USED, .relay_id = message->via.relay_id });
	return 0;
}

/* Another network: what was slow in the last one is no reason to be slow here. */
static int handle_link_changed(struct actor *actor, struct message *message)
{
	(void)message;
	relay_survey_forgive(&container_of(actor, struct relay_manager, actor)->survey);
	return 0;
}

/* What an earlier stage has connected is still up; what it was only trying, nobody wants any more. */
static void take_over(struct relay_manager *manager)
{
	const struct map *map = map_ref_get(manager->map);

	for (uint32_t i = 0; i < map->n_relays; i++)
		take_relay_state(manager, map->relays[i].id, true);
	for (uint32_t i = 0; i < manager->fsm.n_relays; i++)
		if (!manager->fsm.relays[i].is_held)
			data_plane_drop_relay(manager->data_plane, manager->fsm.relays[i].id);
}

static int handle_map(struct actor *actor, struct message *message)
{
	struct relay_manager *manager = container_of(actor, struct relay_manager, actor);
	const struct map *map = map_ref_get(message->map);
	bool is_first = !manager->map;
	uint32_t ids[MAP_MAX_RELAYS], n = 0;

	map_unref(manager->map);
	manager->map = message->map;
	message->map = NULL; /* kept */
	for (uint32_t i = 0; i < map->n_relays && n < MAP_MAX_RELAYS; i++)
		ids[n++] = map->relays[i].id;
	feed(manager, (struct home_input){ .type = HOME_IN_RELAYS, .relays = { .n = n, .ids = ids } });
	/* A relay whose addresses changed is held anew; the data plane keeps what is the same. */
	for (uint32_t i = 0; i < manager->fsm.n_relays; i++)
		if (manager->fsm.relays[i].is_held)
			carry_out(manager, &(struct home_order){ .relay_id = manager->fsm.relays[i].id, .hold = true });
	if (is_first)
		take_over(manager);
	return 0;
}

/* That it cannot be sent at all shows by what is no probe. */
static void send_whole(struct relay_manager *manager, const struct message *message)
{
	const uint32_t len = (uint32_t)message->bytes->len;
	int r = data_plane_send_frame_whole(manager->data_plane, message->peer_id, message->bytes->bytes, len);

	if (r != -EMSGSIZE)
		return;
	struct message failed = { .type = MESSAGE_SEND_FAILED,
				  .peer_id = message->peer_id,
				  .via = message->via,
				  .send_failed = { .error = r, .probe_len = len } };
	stage_post(manager->actor.stage, ACTOR_RELAY_MANAGER, ACTOR_TRAFFIC_MANAGER, &failed);
}

static int handle_write_frame(struct actor *actor, struct message *message)
{
	struct relay_manager *manager = container_of(actor, struct relay_manager, actor);

	if (message->write.whole) {
		send_whole(manager, message);
		return 0;
	}
	int r = data_plane_send_frame(manager->data_plane, message->via.relay_id, message->peer_id,
				      message->bytes->bytes, message->bytes->len);

	if (r != 0)
		manager->n_not_sent++;
	return 0;
}

/* What an admin says that a relay costs counts as distance. */
static void feed_latency(struct relay_manager *manager, uint32_t relay_id, uint32_t rtt_us)
{
	const struct map_relay *relay = manager->map ? map_find_relay(map_ref_get(manager->map), relay_id) : NULL;
	const uint32_t cost_us = relay ? relay->cost_ms * 1000u : 0;

	feed(manager, (struct home_input){ .type = HOME_IN_LATENCY,
					   .relay_id = relay_id,
					   .rtt_us = rtt_us < UINT32_MAX - cost_us ? rtt_us + cost_us : UINT32_MAX });
}

static int handle_latency(struct actor *actor, struct message *message)
{
	feed_latency(container_of(actor, struct relay_manager, actor), message->via.relay_id,
		     message->latency.rtt_us);
	return 0;
}

/* Where UDP is blocked no STUN answer tells the latency; the pings of the connections do. */
static void feed_rtts(struct relay_manager *manager)
{
	for (uint32_t i = 0; i < manager->fsm.n_relays; i++) {
		uint32_t id = manager->fsm.relays[i].id;
		uint32_t rtt_us = data_plane_relay_rtt_us(manager->data_plane, id);

		if (rtt_us != 0 && data_plane_relay_is_up(manager->data_plane, id))
			feed_latency(manager, id, rtt_us);
	}
}

/* Somebody asks how things are. */
static int handle_measure(struct actor *actor, struct message *message)
{
	struct relay_manager *manager = container_of(actor, struct relay_manager, actor);

	feed_rtts(manager);
	try_unmeasured(manager);
	return 0;
}

static int on_deadline(struct actor *actor, uint64_t now_ns)
{
	struct relay_manager *manager = container_of(actor, struct relay_manager, actor);

	feed_rtts(manager);
	feed(manager, (struct home_input){ .type = HOME_IN_DEADLINE });
	return 0;
}

static const struct actor_accepts accepts[] = {
	{ MESSAGE_MAP, ACTOR_NONE, handle_map },
	{ MESSAGE_RELAY_STATE, ACTOR_NONE, handle_relay_state },
	{ MESSAGE_RELAY_LEAVING, ACTOR_NONE, handle_relay_leaving },
	{ MESSAGE_RELAY_USED, ACTOR_NONE, handle_relay_used },
	{ MESSAGE_WRITE_FRAME, ACTOR_SESSION_MANAGER, handle_write_frame },
	{ MESSAGE_LATENCY, ACTOR_ENDPOINT_MANAGER, handle_latency },
	{ MESSAGE_MEASURE_NAT, ACTOR_NONE, handle_measure },
	{ MESSAGE_LINK_CHANGED, ACTOR_NONE, handle_link_changed },
};

static const struct actor_class relay_manager_class = {
	.kind = ACTOR_RELAY_MANAGER,
	.on_deadline = on_deadline,
	.accepts = accepts,
	.n_accepts = ARRAY_LEN(accepts),
};

/* from the data plane */

void relay_manager_on_frame(struct relay_manager *manager, uint32_t relay_id, uint32_t peer_id,
			    const uint8_t *bytes, size_t len)
{
	struct message message = { .type = MESSAGE_FRAME,
				   .peer_id = peer_id,
				   .via = { .by_relay = true, .relay_id = relay_id },
				   .bytes = buffer_new(bytes, len) };

	stage_post(manager->actor.stage, ACTOR_RELAY_MANAGER, ACTOR_RELAY_ROUTER, &message);
}

void relay_manager_on_relay_state(struct relay_manager *manager, uint32_t relay_id, bool up)
{
	struct message message = { .type = MESSAGE_RELAY_STATE,
				   .via = { .by_relay = true, .relay_id = relay_id },
				   .relay_state = { .up = up } };

	stage_post(manager->actor.stage, ACTOR_NONE, ACTOR_RELAY_MANAGER, &message);
}

void relay_manager_on_leaving(struct relay_manager *manager, uint32_t relay_id)
{
	struct message message = { .type = MESSAGE_RELAY_LEAVING, .via = { .by_relay = true, .relay_id = relay_id } };

	stage_post(manager->actor.stage, ACTOR_NONE, ACTOR_RELAY_MANAGER, &message);
}

void relay_manager_on_used(struct relay_manager *manager, uint32_t relay_id)
{
	struct message message = { .type = MESSAGE_RELAY_USED, .via = { .by_relay = true, .relay_id = relay_id } };

	stage_post(manager->actor.stage, ACTOR_NONE, ACTOR_RELAY_MANAGER, &message);
}

void relay_manager_start(struct relay_manager *manager, struct stage *stage, struct data_plane *data_plane,
			 const struct relay_manager_ports *ports)
{
	manager->data_plane = data_plane;
	manager->ports = *ports;
	manager->map = NULL;
	manager->survey = (struct relay_survey){ 0 };
	home_fsm_init(&manager->fsm);
	manager->fsm.trace = on_trace;
	stage_add(stage, &manager->actor, &relay_manager_class, 0);
}

void relay_manager_stop(struct relay_manager *manager)
{
	stage_remove(manager->actor.stage, &manager->actor);
	map_unref(manager->map);
	manager->map = NULL;
}
