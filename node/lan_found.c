#include "node/lan_found.h"

#include <stdbool.h>
#include <string.h>

void lan_found_init(struct lan_found_list *list, void (*forgotten)(void *owner, uint32_t peer_id), void *owner)
{
	list->forgotten = forgotten;
	list->owner = owner;
	list->n = 0;
}

/* ---- in a map ---- */

static struct map_peer *peer_in(struct map *map, uint32_t peer_id)
{
	for (uint32_t i = 0; i < map->n_peers; i++)
		if (map->peers[i].id == peer_id)
			return &map->peers[i];
	return NULL;
}

static bool is_key_of_another(const struct map *map, uint32_t peer_id, const struct public_key *session_key)
{
	for (uint32_t i = 0; i < map->n_peers; i++)
		if (map->peers[i].id != peer_id && public_key_equal(&map->peers[i].session_key, session_key))
			return true;
	return false;
}

/* Comes first among the peer's endpoints; the last one makes room. */
static void put_endpoint(struct map_peer *peer, const struct endpoint *endpoint)
{
	uint32_t at = 0;

	while (at < peer->n_endpoints && !endpoint_equal(&peer->endpoints[at], endpoint))
		at++;
	if (at == peer->n_endpoints && peer->n_endpoints < MAP_MAX_ENDPOINTS)
		peer->n_endpoints++;
	if (at == MAP_MAX_ENDPOINTS)
		at--;
	memmove(&peer->endpoints[1], &peer->endpoints[0], at * sizeof(*peer->endpoints));
	peer->endpoints[0] = *endpoint;
}

static void put(struct map_peer *peer, const struct lan_found *found)
{
	peer->session_key = found->session_key;
	put_endpoint(peer, &found->endpoint);
}

/* ---- in the list ---- */

static void remove_at(struct lan_found_list *list, uint32_t i)
{
	list->n--;
	memmove(&list->items[i], &list->items[i + 1], (list->n - i) * sizeof(*list->items));
}

static void forget_at(struct lan_found_list *list, uint32_t i)
{
	const uint32_t peer_id = list->items[i].peer_id;

	remove_at(list, i);
	list->forgotten(list->owner, peer_id);
}

/* What was kept of the same peer is replaced, but for what control's map had when it was found first. */
static void keep(struct lan_found_list *list, struct lan_found *found)
{
	for (uint32_t i = 0; i < list->n; i++) {
		if (list->items[i].peer_id != found->peer_id)
			continue;
		found->mapped = list->items[i].mapped;
		remove_at(list, i);
		break;
	}
	if (list->n == LAN_FOUND_MAX)
		forget_at(list, 0);
	list->items[list->n++] = *found;
}

enum lan_found_outcome lan_found_take(struct lan_found_list *list, struct map *map, uint32_t peer_id,
				      const struct public_key *session_key, const struct endpoint *endpoint)
{
	struct map_peer *peer = peer_in(map, peer_id);

	if (!peer)
		return LAN_FOUND_NO_PEER;
	if (is_key_of_another(map, peer_id, session_key))
		return LAN_FOUND_KEY_OF_ANOTHER;
	struct lan_found found = {
		.peer_id = peer_id, .mapped = peer->session_key, .session_key = *session_key, .endpoint = *endpoint,
	};
	keep(list, &found);
	put(peer, &found);
	return LAN_FOUND_TAKEN;
}

void lan_found_lay_over(struct lan_found_list *list, struct map *map)
{
	for (uint32_t i = list->n; i-- > 0;) {
		const struct lan_found *found = &list->items[i];
		struct map_peer *peer = peer_in(map, found->peer_id);

		if (!peer || !public_key_equal(&peer->session_key, &found->mapped) ||
		    is_key_of_another(map, found->peer_id, &found->session_key))
			forget_at(list, i);
		else
			put(peer, found);
	}
}
