/*
 * What was found of peers on our own link, laid over what control's map says of them: a session key, and an endpoint.
 *
 *             take                      lay over each map of control's
 *   found ──────────► kept, in the map ───────────────────────────────► kept, in the map
 *             │         │                          │
 *             │         └─ too many: the oldest ─┐ └─ control says something else about the peer's session by now,
 *             │                                  ▼    the peer has gone, or its key is another's
 *             └─ the key of another: refused   forgotten, and told: it may be found again
 *
 * A session key is of one node. Control sees to that (docs/PROTOCOL-control.md); what is found on a link may not undo it.
 *
 * Pure.
 */
#pragma once

#include "common/endpoint.h"
#include "common/key.h"
#include "common/map.h"

#include <stdint.h>

#define LAN_FOUND_MAX 64

struct lan_found {
	uint32_t peer_id;
	struct public_key mapped; /* the session key that control's map had then */
	struct public_key session_key;
	struct endpoint endpoint;
};

struct lan_found_list {
	/* For good: what it found may not be taken for found, or the two would never find each other again. */
	void (*forgotten)(void *owner, uint32_t peer_id);
	void *owner;
	uint32_t n; /* the latest last */
	struct lan_found items[LAN_FOUND_MAX];
};

enum lan_found_outcome { LAN_FOUND_TAKEN, LAN_FOUND_NO_PEER, LAN_FOUND_KEY_OF_ANOTHER };

void lan_found_init(struct lan_found_list *list, void (*forgotten)(void *owner, uint32_t peer_id), void *owner);
/* Changes the map, the one in use, if it is taken. */
enum lan_found_outcome lan_found_take(struct lan_found_list *list, struct map *map, uint32_t peer_id,
				      const struct public_key *session_key, const struct endpoint *endpoint);
/* The map is control's, and new. */
void lan_found_lay_over(struct lan_found_list *list, struct map *map);
