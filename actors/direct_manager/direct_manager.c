#include "actors/direct_manager/direct_manager.h"

#include <errno.h>

static int handle_write_datagram(struct actor *actor, struct message *message)
{
	struct direct_manager *manager = container_of(actor, struct direct_manager, actor);
	const bool whole = message->write.whole;
	int r = (whole ? data_plane_send_probe : data_plane_send_datagram)(
		manager->data_plane, &message->via.endpoint, message->bytes->bytes, message->bytes->len);

	if (r == 0 || r == -EAGAIN || r == -ENOBUFS)
		return 0; /* lost on the way, as any datagram may be */
	if (whole && r != -EMSGSIZE)
		return 0; /* that the path fails shows by what is no probe */
	manager->n_refused += !whole;
	if (message->peer_id == 0)
		return 0;
	struct message failed = { .type = MESSAGE_SEND_FAILED,
				  .peer_id = message->peer_id,
				  .via = message->via,
				  .send_failed = { .error = r, .probe_len = whole ? (uint32_t)message->bytes->len : 0 } };
	stage_post(actor->stage, ACTOR_DIRECT_MANAGER, ACTOR_TRAFFIC_MANAGER, &failed);
	return 0;
}

static const struct actor_accepts accepts[] = {
	{ MESSAGE_WRITE_DATAGRAM, ACTOR_SESSION_MANAGER, handle_write_datagram },
	{ MESSAGE_WRITE_DATAGRAM, ACTOR_ENDPOINT_MANAGER, handle_write_datagram },
};

static const struct actor_class direct_manager_class = {
	.kind = ACTOR_DIRECT_MANAGER,
	.accepts = accepts,
	.n_accepts = ARRAY_LEN(accepts),
};

void direct_manager_start(struct direct_manager *manager, struct stage *stage, struct data_plane *data_plane)
{
	manager->data_plane = data_plane;
	stage_add(stage, &manager->actor, &direct_manager_class, 0);
}

void direct_manager_stop(struct direct_manager *manager)
{
	stage_remove(manager->actor.stage, &manager->actor);
}

void direct_manager_on_datagram(struct direct_manager *manager, const struct endpoint *from,
				const uint8_t *bytes, size_t len)
{
	struct message message = { .type = MESSAGE_DATAGRAM,
				   .via = { .endpoint = *from },
				   .bytes = buffer_new(bytes, len) };

	stage_post(manager->actor.stage, ACTOR_DIRECT_MANAGER, ACTOR_DIRECT_ROUTER, &message);
}
