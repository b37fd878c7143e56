#include "actors/in_conn/in_conn.h"

static void tell(struct in_conn *conn, bool packet, const struct via *via, uint64_t n_bytes)
{
	struct message message = { .type = MESSAGE_ACTIVITY,
				   .peer_id = conn->actor.peer_id,
				   .via = *via,
				   .activity = { .packet = packet, .active = conn->active, .n_bytes = n_bytes } };

	stage_post(conn->actor.stage, ACTOR_IN_CONN, ACTOR_TRAFFIC_MANAGER, &message);
}

static int handle_carried(struct actor *actor, struct message *message)
{
	struct in_conn *conn = container_of(actor, struct in_conn, actor);

	if (message->carried.rx_data_ns > conn->seen_data_ns) {
		conn->seen_data_ns = message->carried.rx_data_ns;
		conn->active = true;
		stage_set_deadline(actor, stage_now_ns(actor->stage) + CONN_ACTIVITY_WINDOW_NS);
	}
	if (message->carried.rx_direct_ns > conn->seen_direct_ns) {
		conn->seen_direct_ns = message->carried.rx_direct_ns;
		tell(conn, true, &(struct via){ .endpoint = message->carried.rx_endpoint },
		     message->carried.rx_bytes);
	}
	if (message->carried.rx_relay_ns > conn->seen_relay_ns) {
		conn->seen_relay_ns = message->carried.rx_relay_ns;
		tell(conn, true, &(struct via){ .by_relay = true }, message->carried.rx_bytes);
	}
	return 0;
}

static int handle_unexpected(struct actor *actor, struct message *message)
{
	container_of(actor, struct in_conn, actor)->n_unexpected++;
	return 0;
}

static int on_deadline(struct actor *actor, uint64_t now_ns)
{
	struct in_conn *conn = container_of(actor, struct in_conn, actor);

	conn->active = false;
	tell(conn, false, &(struct via){ 0 }, 0);
	return 0;
}

static const struct actor_accepts accepts[] = {
	{ MESSAGE_CARRIED, ACTOR_NONE, handle_carried },
	{ MESSAGE_DATAGRAM, ACTOR_DIRECT_ROUTER, handle_unexpected },
	{ MESSAGE_FRAME, ACTOR_RELAY_ROUTER, handle_unexpected },
};

static const struct actor_class in_conn_class = {
	.kind = ACTOR_IN_CONN,
	.on_deadline = on_deadline,
	.accepts = accepts,
	.n_accepts = ARRAY_LEN(accepts),
};

void in_conn_start(struct in_conn *conn, struct stage *stage, uint32_t peer_id)
{
	stage_add(stage, &conn->actor, &in_conn_class, peer_id);
	/* What came before, to an earlier stage perhaps, is no sign of life now. */
	conn->seen_direct_ns = conn->seen_relay_ns = conn->seen_data_ns = stage_now_ns(stage);
}

void in_conn_stop(struct in_conn *conn)
{
	stage_remove(conn->actor.stage, &conn->actor);
}
