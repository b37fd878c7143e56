#include "actors/session_manager/session_manager.h"

#include "common/log.h"

static int handle_map(struct actor *actor, struct message *message)
{
	struct session_manager *manager = container_of(actor, struct session_manager, actor);
	const struct map *map = map_ref_get(message->map);
	const struct map *before = manager->map ? map_ref_get(manager->map) : NULL;

	for (uint32_t i = 0; before && i < before->n_peers; i++)
		if (!map_find_peer(map, before->peers[i].id))
			session_box_remove_peer(manager->box, before->peers[i].id);
	for (uint32_t i = 0; i < map->n_peers; i++) {
		const struct map_peer *peer = &map->peers[i];
		if (public_key_is_zero(&peer->session_key))
			continue; /* never been online */
		int r = session_box_set_peer(manager->box, peer->id, &peer->session_key);
		if (r != 0)
			log_warning("session", "peer=%s: session key refused (%d)", peer->name, r);
	}
	map_unref(manager->map);
	manager->map = message->map;
	message->map = NULL; /* kept */
	return 0;
}

static int handle_sealed(struct actor *actor, struct message *message)
{
	struct session_manager *manager = container_of(actor, struct session_manager, actor);
	struct session_opened opened;

	/* Whatever the reason, it is counted in the box. */
	if (session_box_open(manager->box, message->bytes->bytes, message->bytes->len, &opened) != 0)
		return 0;
	struct message out = { .type = MESSAGE_OPENED,
			       .peer_id = opened.peer_id,
			       .via = message->via,
			       .session = opened.message };
	stage_post(actor->stage, ACTOR_SESSION_MANAGER, ACTOR_TRAFFIC_MANAGER, &out);
	return 0;
}

static int handle_seal(struct actor *actor, struct message *message)
{
	struct session_manager *manager = container_of(actor, struct session_manager, actor);
	struct message out = { .type = message->via.by_relay ? MESSAGE_WRITE_FRAME : MESSAGE_WRITE_DATAGRAM,
			       .peer_id = message->peer_id,
			       .via = message->via };
	uint8_t sealed[SESSION_MAX_PROBE_LEN];
	size_t len = session_box_seal(manager->box, message->peer_id, &message->session, sealed, sizeof(sealed));

	if (len == 0)
		return 0; /* the peer left meanwhile */
	out.bytes = buffer_new(sealed, len);
	out.write.whole = message->session.type == SESSION_PROBE;
	stage_post(actor->stage, ACTOR_SESSION_MANAGER,
		   message->via.by_relay ? ACTOR_RELAY_MANAGER : ACTOR_DIRECT_MANAGER, &out);
	return 0;
}

static const struct actor_accepts accepts[] = {
	{ MESSAGE_MAP, ACTOR_NONE, handle_map },
	{ MESSAGE_SEALED, ACTOR_DIRECT_ROUTER, handle_sealed },
	{ MESSAGE_SEALED, ACTOR_RELAY_ROUTER, handle_sealed },
	{ MESSAGE_SEAL, ACTOR_TRAFFIC_MANAGER, handle_seal },
};

static const struct actor_class session_manager_class = {
	.kind = ACTOR_SESSION_MANAGER,
	.accepts = accepts,
	.n_accepts = ARRAY_LEN(accepts),
};

void session_manager_start(struct session_manager *manager, struct stage *stage,
			   const struct secret_key *session_key)
{
	manager->box = session_box_new(session_key);
	manager->map = NULL;
	stage_add(stage, &manager->actor, &session_manager_class, 0);
}

void session_manager_stop(struct session_manager *manager)
{
	stage_remove(manager->actor.stage, &manager->actor);
	manager->box = session_box_free(manager->box);
	map_unref(manager->map);
	manager->map = NULL;
}
