/*
 * The nodes of this node's network that may be agents without a token, and the names that an admin has granted to each
 * (control/host_grants.h): a snapshot of the map, for the diglett server's thread.
 *
 * Whole names only: wildcards are not in the map. Pure.
 */
#pragma once

#include "common/key.h"
#include "common/map.h"
#include "relay/diglett/node_badge.h"
#include "relay/frontdoor/host_name.h"

struct diglett_members;

/* NULL: the map has no such names. */
struct diglett_members *diglett_members_new(const struct map *map, const char *network, const char *ca_pem);
void diglett_members_free(struct diglett_members *members); /* accepts NULL */
/* Who shows this badge? members may be NULL. 0, or -EACCES with the reason. */
P2P_CHECK int diglett_members_read(const struct diglett_members *members, const struct node_badge *badge,
				   const struct node_badge_binding *binding, int64_t now_s, struct identity *ret,
				   struct error *reterr);
/* Is the name granted to the node with this key? members may be NULL. */
bool diglett_members_allow(const struct diglett_members *members, const struct public_key *node_key,
			   const struct host_name *name);
