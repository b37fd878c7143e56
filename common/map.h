/*
 * The map: what a node knows of its network: itself, its peers, the relays.
 *
 * Control sends a snapshot, then patches with sequence numbers; the node applies them to its copy,
 * caches it on disk, and starts from the cache when control is away. Peers leave the map only on
 * removal or expiry, never because a connection broke.
 *
 * A plain tree of values, no pointers into JSON. Arrays grow on the heap; map_deinit() frees them.
 */
#pragma once

#include "common/endpoint.h"
#include "common/error.h"
#include "common/json.h"
#include "common/key.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#define MAP_NAME_LEN      63 /* a DNS label: a-z 0-9 -, not at either end */
#define MAP_MAX_ENDPOINTS 16
#define MAP_MAX_ADDRESSES 4
#define MAP_MAX_PEERS     65536
#define MAP_MAX_RELAYS    256
#define MAP_MAX_COST_MS   10000

/* One node as the others see it. id is unique in the network, given by control, never reused; > 0.
 */
struct map_peer {
	uint32_t id;
	char name[MAP_NAME_LEN + 1];
	struct public_key node_key;
	struct public_key session_key; /* all zero: never been online */
	struct in_addr ip4;            /* overlay addresses, network order */
	struct in6_addr ip6;
	uint32_t home_relay; /* the id of a relay, or 0 */
	bool online;         /* has a connection to control now: a hint, never a reason to forget */
	uint32_t n_endpoints;
	struct endpoint endpoints[MAP_MAX_ENDPOINTS];
};

/* A public node that relays; id and node_key are those of the node. */
struct map_relay {
	uint32_t id;
	char name[MAP_NAME_LEN + 1];
	struct public_key node_key;
	uint16_t tls_port;  /* relay over TLS, usually 443 */
	uint16_t stun_port; /* usually 3478 */
	uint32_t n_addresses;
	struct endpoint addresses[MAP_MAX_ADDRESSES]; /* port 0 */
	char region[MAP_NAME_LEN + 1]; /* where it is, for people; a label as names are, or empty */
	uint16_t cost_ms; /* counted as so much more latency when a home is chosen */
};

struct map {
	uint64_t sequence; /* of the last snapshot or patch applied */
	uint64_t epoch; /* changes when control's history was lost; a node then asks for a snapshot
			 */
	char network[MAP_NAME_LEN + 1];
	struct in_addr prefix4; /* of the overlay */
	uint8_t prefix4_len;
	struct in6_addr prefix6;
	uint8_t prefix6_len;
	struct map_peer self; /* endpoints and session key not filled */
	uint32_t n_peers;     /* sorted by id; without self */
	struct map_peer *peers;
	uint32_t n_relays; /* sorted by id */
	struct map_relay *relays;
};

void map_init(struct map *map);
void map_deinit(struct map *map);
int map_copy(const struct map *from, struct map *ret);
const struct map_peer *map_find_peer(const struct map *map, uint32_t id);
const struct map_peer *map_find_peer_by_name(const struct map *map, const char *name);
const struct map_peer *map_find_peer_by_key(const struct map *map,
					    const struct public_key *node_key);
const struct map_relay *map_find_relay(const struct map *map, uint32_t id);

/* Lower-case DNS label of 1 … MAP_NAME_LEN characters. */
bool map_name_is_valid(const char *name);

/*
 * Snapshot: the whole map. Patch: {"after", "sequence", "put_peers":[…], "remove_peers":[id…],
 * "put_relays", "remove_relays", "self"}; a put replaces the whole record of that id, a removal of
 * an id that is not there is no error. A patch may cover several changes: it leads from sequence
 * "after" to "sequence". 0 or -EINVAL (reterr says which member); -ESTALE when "after" is not
 * map->sequence. *map is untouched on failure. Sequences and epoch are decimal strings.
 */
P2P_CHECK int map_from_json(const struct json *snapshot, struct map *ret, struct error *reterr);
P2P_CHECK int map_apply_patch(struct map *map, const struct json *patch, struct error *reterr);
struct json *map_to_json(const struct map *map);
struct json *map_peer_to_json(const struct map_peer *peer);
struct json *map_relay_to_json(const struct map_relay *relay);
P2P_CHECK int map_peer_from_json(const struct json *json, struct map_peer *ret,
				 struct error *reterr);
P2P_CHECK int map_relay_from_json(const struct json *json, struct map_relay *ret,
				  struct error *reterr);
