#include "relay/diglett/diglett_members.h"

#include "common/membership.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct grant {
	struct public_key node_key;
	char host[MAP_HOST_LEN + 1];
};

struct diglett_members {
	char network[MAP_NAME_LEN + 1], ca_pem[MEMBERSHIP_MAX_PEM];
	uint32_t n;
	struct grant grants[];
};

static const struct map_peer *find_peer(const struct map *map, uint32_t id)
{
	return id == map->self.id ? &map->self : map_find_peer(map, id);
}

struct diglett_members *diglett_members_new(const struct map *map, const char *network, const char *ca_pem)
{
	struct diglett_members *members = calloc(1, sizeof(*members) + map->n_grants * sizeof(struct grant));

	if (!members)
		abort();
	snprintf(members->network, sizeof(members->network), "%s", network);
	snprintf(members->ca_pem, sizeof(members->ca_pem), "%s", ca_pem);
	for (uint32_t i = 0; i < map->n_grants; i++) {
		const struct map_peer *peer = find_peer(map, map->grants[i].peer_id);
		struct grant *grant = &members->grants[members->n];
		if (!peer)
			continue;
		grant->node_key = peer->node_key;
		memcpy(grant->host, map->grants[i].host, sizeof(grant->host));
		members->n++;
	}
	if (members->n > 0)
		return members;
	free(members);
	return NULL;
}

void diglett_members_free(struct diglett_members *members)
{
	free(members);
}

int diglett_members_read(const struct diglett_members *members, const struct node_badge *badge,
			 const struct node_badge_binding *binding, int64_t now_s, struct identity *ret,
			 struct error *reterr)
{
	if (!members)
		return error_set(reterr, -EACCES, "no name is granted to a node");
	return node_badge_check(badge, binding, members->ca_pem, members->network, now_s, ret, reterr);
}

bool diglett_members_allow(const struct diglett_members *members, const struct public_key *node_key,
			   const struct host_name *name)
{
	for (uint32_t i = 0; members && i < members->n; i++)
		if (public_key_equal(&members->grants[i].node_key, node_key) && strcmp(members->grants[i].host, name->text) == 0)
			return true;
	return false;
}
