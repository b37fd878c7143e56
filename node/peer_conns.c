#include "node/peer_conns.h"

#include "actors/in_conn/in_conn.h"
#include "actors/out_conn/out_conn.h"

#include <stdlib.h>

struct conn_pair {
	uint32_t peer_id;
	struct conn_pair *next; /* of the bucket */
	struct in_conn in;
	struct out_conn out;
};

static struct conn_pair **bucket_of(struct peer_conns *conns, uint32_t peer_id)
{
	return &conns->buckets[peer_id % PEER_CONNS_BUCKETS];
}

static struct conn_pair *find(struct peer_conns *conns, uint32_t peer_id)
{
	struct conn_pair *pair = *bucket_of(conns, peer_id);

	while (pair && pair->peer_id != peer_id)
		pair = pair->next;
	return pair;
}

static void add(struct peer_conns *conns, uint32_t peer_id)
{
	struct conn_pair *pair = calloc(1, sizeof(*pair));

	if (!pair)
		abort();
	pair->peer_id = peer_id;
	pair->next = *bucket_of(conns, peer_id);
	*bucket_of(conns, peer_id) = pair;
	in_conn_start(&pair->in, conns->stage, peer_id);
	out_conn_start(&pair->out, conns->stage, conns->data_plane, peer_id);
}

static void free_pair(struct peer_conns *conns, struct conn_pair *pair)
{
	struct conn_pair **at = bucket_of(conns, pair->peer_id);

	while (*at != pair)
		at = &(*at)->next;
	*at = pair->next;
	in_conn_stop(&pair->in);
	out_conn_stop(&pair->out);
	free(pair);
}

void peer_conns_init(struct peer_conns *conns, struct stage *stage, struct data_plane *data_plane)
{
	*conns = (struct peer_conns){ .stage = stage, .data_plane = data_plane };
}

void peer_conns_deinit(struct peer_conns *conns)
{
	for (uint32_t i = 0; i < PEER_CONNS_BUCKETS; i++)
		while (conns->buckets[i])
			free_pair(conns, conns->buckets[i]);
}

void peer_conns_follow_map(struct peer_conns *conns, const struct map *before, const struct map *map)
{
	for (uint32_t i = 0; before && i < before->n_peers; i++) {
		struct conn_pair *pair = find(conns, before->peers[i].id);
		if (pair && !map_find_peer(map, pair->peer_id))
			free_pair(conns, pair);
	}
	for (uint32_t i = 0; i < map->n_peers; i++)
		if (!find(conns, map->peers[i].id))
			add(conns, map->peers[i].id);
}
