/* The Engine's questions to the network: does a peer answer, and by which way? What does this network allow? */
#include "node/engine_internal.h"

#include "common/rpc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NETCHECK_MS	 3000
#define NETCHECK_LOOK_MS 100  /* is the NAT measured? */
#define NETCHECK_MAX_MS	 10000

/* ---- ping ---- */

struct engine_ping {
	struct p2p_engine *engine;
	engine_ping_cb cb;
	void *owner;
	uint32_t peer_id;
	struct node_ping_result result;
};

static const struct map_peer *find_pinged(const struct map *map, const struct local_api_ping *ping)
{
	for (uint32_t i = 0; i < map->n_peers; i++) {
		const struct map_peer *peer = &map->peers[i];
		if (ping->name[0] ? strcmp(peer->name, ping->name) == 0
		    : endpoint_is_v4(&ping->ip) ? memcmp(&peer->ip4, ping->ip.ip + 12, 4) == 0
						: memcmp(&peer->ip6, ping->ip.ip, 16) == 0)
			return peer;
	}
	return NULL;
}

static void finish_ping(struct engine_ping *ping, int code)
{
	ping->cb(ping->owner, code, &ping->result);
	free(ping);
}

/* The sample taken after the echo tells by which way the last packet came. */
static void on_ping_refreshed(void *owner)
{
	struct engine_ping *ping = owner;
	const struct data_plane *data_plane = ping->engine->data_plane;
	struct peer_path path;
	bool by_relay;

	if (data_plane && data_plane_last_arrival(data_plane, ping->peer_id, &ping->result.endpoint, &by_relay)) {
		ping->result.path = by_relay ? NODE_PATH_RELAY : NODE_PATH_DIRECT;
		if (by_relay) {
			ping->result.endpoint = (struct endpoint){ 0 };
			data_plane_relay_name(data_plane, ping->peer_id, ping->result.relay,
					      sizeof(ping->result.relay));
		}
	} else if (data_plane && data_plane_get_path(data_plane, ping->peer_id, &path)) {
		ping->result.path = path.direct ? NODE_PATH_DIRECT : NODE_PATH_RELAY;
	}
	finish_ping(ping, 0);
}

static void on_echo(void *owner, int code, uint32_t rtt_us)
{
	struct engine_ping *ping = owner;

	if (code == -ETIMEDOUT || code == -ECANCELED) {
		finish_ping(ping, 0);
		return;
	}
	if (code != 0 || !ping->engine->data_plane) {
		finish_ping(ping, code);
		return;
	}
	ping->result.answered = true;
	ping->result.latency_us = rtt_us;
	data_plane_refresh(ping->engine->data_plane, on_ping_refreshed, ping);
}

void engine_ping(struct p2p_engine *engine, const struct local_api_ping *request, engine_ping_cb cb, void *owner)
{
	const struct map_peer *peer;
	struct node_ping_result none = { 0 };

	if (!engine->map || !engine->data_plane) {
		cb(owner, RPC_UNAVAILABLE, &none);
		return;
	}
	peer = find_pinged(map_ref_get(engine->map), request);
	if (!peer) {
		cb(owner, RPC_NOT_FOUND, &none);
		return;
	}
	struct engine_ping *ping = calloc(1, sizeof(*ping));
	if (!ping)
		abort();
	*ping = (struct engine_ping){ .engine = engine, .cb = cb, .owner = owner, .peer_id = peer->id };
	ping->result.latency_us = NODE_STATUS_UNKNOWN;
	ping->result.ip = endpoint_from_v4(ntohl(peer->ip4.s_addr), 0);
	strcpy(ping->result.peer, peer->name);
	int r = engine->echo ? echo_send(engine->echo, peer->ip4, request->timeout_ms, on_echo, ping) : -EPERM;
	if (r != 0)
		finish_ping(ping, r);
}

/* ---- netcheck ---- */

static void on_netcheck_closed(uv_handle_t *handle)
{
	free(container_of((uv_timer_t *)handle, struct netcheck, timer));
}

static void finish_netcheck(struct netcheck *netcheck)
{
	struct netcheck **at = &netcheck->engine->netchecks;

	while (*at != netcheck)
		at = &(*at)->next;
	*at = netcheck->next;
	netcheck->cb(netcheck->owner);
	uv_close((uv_handle_t *)&netcheck->timer, on_netcheck_closed);
}

void engine_finish_netchecks(struct p2p_engine *engine)
{
	while (engine->netchecks)
		finish_netcheck(engine->netchecks);
}

static void on_netcheck_due(uv_timer_t *timer)
{
	struct netcheck *netcheck = container_of(timer, struct netcheck, timer);
	const struct p2p_engine *engine = netcheck->engine;
	const bool is_late = uv_now(engine->loop) - netcheck->began_ms > NETCHECK_MAX_MS;

	if (!engine->session || !session_is_measuring(engine->session) || is_late)
		finish_netcheck(netcheck);
	else
		uv_timer_start(timer, on_netcheck_due, NETCHECK_LOOK_MS, 0);
}

void engine_netcheck(struct p2p_engine *engine, void (*cb)(void *owner), void *owner)
{
	struct netcheck *netcheck = calloc(1, sizeof(*netcheck));

	if (!netcheck)
		abort();
	*netcheck = (struct netcheck){ .engine = engine, .next = engine->netchecks, .cb = cb, .owner = owner,
				       .began_ms = uv_now(engine->loop) };
	engine->netchecks = netcheck;
	uv_timer_init(engine->loop, &netcheck->timer);
	uv_timer_start(&netcheck->timer, on_netcheck_due, engine->session ? NETCHECK_MS : 0, 0);
	if (!engine->session)
		return;
	session_link_changed(engine->session, false);
	session_measure_nat(engine->session);
}
