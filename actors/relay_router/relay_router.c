#include "actors/relay_router/relay_router.h"

#include "actors/direct_router/demux.h"

static int handle_frame(struct actor *actor, struct message *message)
{
	struct relay_router *router = container_of(actor, struct relay_router, actor);

	if (message->peer_id == 0) {
		router->counters.strangers++;
	} else if (demux_datagram(message->bytes->bytes, message->bytes->len) == DEMUX_SESSION) {
		router->counters.session++;
		message->type = MESSAGE_SEALED;
		stage_post(actor->stage, ACTOR_RELAY_ROUTER, ACTOR_SESSION_MANAGER, message);
	} else {
		router->counters.of_peers++;
		stage_post(actor->stage, ACTOR_RELAY_ROUTER, ACTOR_IN_CONN, message);
	}
	return 0;
}

static const struct actor_accepts accepts[] = {
	{ MESSAGE_FRAME, ACTOR_RELAY_MANAGER, handle_frame },
};

static const struct actor_class relay_router_class = {
	.kind = ACTOR_RELAY_ROUTER,
	.accepts = accepts,
	.n_accepts = ARRAY_LEN(accepts),
};

void relay_router_start(struct relay_router *router, struct stage *stage)
{
	stage_add(stage, &router->actor, &relay_router_class, 0);
}

void relay_router_stop(struct relay_router *router)
{
	stage_remove(router->actor.stage, &router->actor);
}
