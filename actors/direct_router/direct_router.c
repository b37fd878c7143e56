#include "actors/direct_router/direct_router.h"

#include "actors/direct_router/demux.h"

/* the table of addresses known as a peer's */

static uint32_t hash_of(const struct endpoint *endpoint)
{
	uint32_t hash = 2166136261u; /* FNV-1a: addresses come from control and from answered pings */

	for (size_t i = 0; i < sizeof(endpoint->ip); i++)
		hash = (hash ^ endpoint->ip[i]) * 16777619u;
	return (hash ^ endpoint->port) * 16777619u;
}

/* The entry of the endpoint, or the free one where it would go. One entry is always free. */
static struct direct_router_aka *probe(struct direct_router *router, const struct endpoint *endpoint)
{
	for (uint32_t i = hash_of(endpoint);; i++) {
		struct direct_router_aka *aka = &router->aka[i % DIRECT_ROUTER_MAX_AKA];
		if (aka->peer_id == 0 || endpoint_equal(&aka->endpoint, endpoint))
			return aka;
	}
}

uint32_t direct_router_find(struct direct_router *router, const struct endpoint *endpoint)
{
	return probe(router, endpoint)->peer_id;
}

/* Removal closes the gap: what stands behind it in the same run is inserted again. */
static void forget(struct direct_router *router, const struct endpoint *endpoint)
{
	struct direct_router_aka *gone = probe(router, endpoint);
	size_t i = (size_t)(gone - router->aka);

	gone->peer_id = 0;
	router->n_aka--;
	for (i = (i + 1) % DIRECT_ROUTER_MAX_AKA; router->aka[i].peer_id != 0; i = (i + 1) % DIRECT_ROUTER_MAX_AKA) {
		struct direct_router_aka moved = router->aka[i];

		router->aka[i].peer_id = 0;
		*probe(router, &moved.endpoint) = moved;
	}
}

static void remember(struct direct_router *router, const struct endpoint *endpoint, uint32_t peer_id)
{
	struct direct_router_aka *aka = probe(router, endpoint);

	if (aka->peer_id == 0) {
		if (router->n_aka == DIRECT_ROUTER_MAX_AKA - 1) {
			router->counters.aka_full++;
			return;
		}
		router->n_aka++;
	}
	*aka = (struct direct_router_aka){ .endpoint = *endpoint, .peer_id = peer_id };
}

/* handlers */

static int handle_set_aka(struct actor *actor, struct message *message)
{
	struct direct_router *router = container_of(actor, struct direct_router, actor);

	if (message->aka.known)
		remember(router, &message->via.endpoint, message->peer_id);
	else if (direct_router_find(router, &message->via.endpoint) == message->peer_id)
		forget(router, &message->via.endpoint);
	return 0;
}

static void route_to_peer(struct direct_router *router, struct message *message)
{
	uint32_t peer_id = direct_router_find(router, &message->via.endpoint);

	if (peer_id == 0) {
		router->counters.strangers++;
		return;
	}
	router->counters.of_peers++;
	message->peer_id = peer_id;
	stage_post(router->actor.stage, ACTOR_DIRECT_ROUTER, ACTOR_IN_CONN, message);
}

static int handle_datagram(struct actor *actor, struct message *message)
{
	struct direct_router *router = container_of(actor, struct direct_router, actor);

	switch (demux_datagram(message->bytes->bytes, message->bytes->len)) {
	case DEMUX_STUN:
		router->counters.stun++;
		message->type = MESSAGE_STUN;
		stage_post(actor->stage, ACTOR_DIRECT_ROUTER, ACTOR_ENDPOINT_MANAGER, message);
		break;
	case DEMUX_SESSION:
		router->counters.session++;
		message->type = MESSAGE_SEALED;
		stage_post(actor->stage, ACTOR_DIRECT_ROUTER, ACTOR_SESSION_MANAGER, message);
		break;
	case DEMUX_WIREGUARD:
	case DEMUX_RELAY:
	case DEMUX_UNKNOWN:
	case DEMUX_N_KINDS:
		route_to_peer(router, message);
		break;
	}
	return 0;
}

static const struct actor_accepts accepts[] = {
	{ MESSAGE_DATAGRAM, ACTOR_DIRECT_MANAGER, handle_datagram },
	{ MESSAGE_SET_AKA, ACTOR_TRAFFIC_MANAGER, handle_set_aka },
};

static const struct actor_class direct_router_class = {
	.kind = ACTOR_DIRECT_ROUTER,
	.accepts = accepts,
	.n_accepts = ARRAY_LEN(accepts),
};

void direct_router_start(struct direct_router *router, struct stage *stage)
{
	stage_add(stage, &router->actor, &direct_router_class, 0);
}

void direct_router_stop(struct direct_router *router)
{
	stage_remove(router->actor.stage, &router->actor);
}
