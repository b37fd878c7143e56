#include "actors/out_conn/out_conn.h"

#include "actors/in_conn/in_conn.h"

static void tell(struct out_conn *conn, bool active, uint64_t n_bytes)
{
	struct message message = { .type = MESSAGE_ACTIVITY,
				   .peer_id = conn->actor.peer_id,
				   .activity = { .out = true, .packet = active, .active = active, .n_bytes = n_bytes } };

	stage_post(conn->actor.stage, ACTOR_OUT_CONN, ACTOR_TRAFFIC_MANAGER, &message);
}

static int handle_set_path(struct actor *actor, struct message *message)
{
	struct out_conn *conn = container_of(actor, struct out_conn, actor);

	data_plane_set_path(conn->data_plane, actor->peer_id, &message->path);
	return 0;
}

static int handle_carried(struct actor *actor, struct message *message)
{
	struct out_conn *conn = container_of(actor, struct out_conn, actor);

	if (message->carried.tx_data_ns <= conn->seen_data_ns)
		return 0;
	conn->seen_data_ns = message->carried.tx_data_ns;
	tell(conn, true, message->carried.tx_bytes);
	stage_set_deadline(actor, stage_now_ns(actor->stage) + CONN_ACTIVITY_WINDOW_NS);
	return 0;
}

static int on_deadline(struct actor *actor, uint64_t now_ns)
{
	tell(container_of(actor, struct out_conn, actor), false, 0);
	return 0;
}

static const struct actor_accepts accepts[] = {
	{ MESSAGE_SET_PATH, ACTOR_TRAFFIC_MANAGER, handle_set_path },
	{ MESSAGE_CARRIED, ACTOR_NONE, handle_carried },
};

static const struct actor_class out_conn_class = {
	.kind = ACTOR_OUT_CONN,
	.on_deadline = on_deadline,
	.accepts = accepts,
	.n_accepts = ARRAY_LEN(accepts),
};

void out_conn_start(struct out_conn *conn, struct stage *stage, struct data_plane *data_plane,
		    uint32_t peer_id)
{
	struct peer_path path = { 0 };

	conn->data_plane = data_plane;
	stage_add(stage, &conn->actor, &out_conn_class, peer_id);
	conn->seen_data_ns = stage_now_ns(stage); /* what went before is no traffic of now */
	if (data_plane_get_path(data_plane, peer_id, &path)) {
		path.relay = true;
		data_plane_set_path(data_plane, peer_id, &path);
	}
}

void out_conn_stop(struct out_conn *conn)
{
	stage_remove(conn->actor.stage, &conn->actor);
}
