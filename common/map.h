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
#define MAP_MAX_HOSTS     64    /* that one node publishes */
#define MAP_MAX_EXPOSURES 16384 /* of all nodes */
#define MAP_MAX_GRANTS    8192  /* of all nodes; control gives half as many: a patch may bring as many as are there */
#define MAP_MAX_PORTS     256   /* that one front door opens */
#define MAP_HOST_LEN      263   /* a scheme, "*." and a name */

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
	bool front_door;     /* visitors come to it from outside, also those of what others publish */
	uint32_t n_endpoints;
	struct endpoint endpoints[MAP_MAX_ENDPOINTS];
};

/* A port of a front door that leads to a member. */
struct map_port {
	bool is_udp;
	bool is_open; /* else the door could not open it */
	uint16_t number;
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
	uint32_t n_ports; /* of its front door; those that lead to members */
	struct map_port ports[MAP_MAX_PORTS];
	uint16_t cost_ms; /* counted as so much more latency when a home is chosen */
};

/* A host name that a node publishes, and may. */
struct map_exposure {
	uint32_t peer_id; /* of a peer, or of the node itself */
	uint16_t port;    /* TCP, at its overlay address: there it takes visitors of it; 0: nowhere now */
	char host[MAP_HOST_LEN + 1]; /* "https://app.example.org", "app.example.org" */
};

/*
 * A whole name that an admin has granted to a node, whether it publishes it now or not. No wildcard of another node stands
 * for it: its visitors wait for whose it is.
 */
struct map_grant {
	uint32_t peer_id;
	char host[MAP_HOST_LEN + 1]; /* "app.example.org" */
};

/* All that one node publishes, as it travels. A record of 17 KB. */
struct map_exposures {
	uint32_t id;
	uint16_t port;
	uint32_t n;
	char hosts[MAP_MAX_HOSTS][MAP_HOST_LEN + 1];
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
	uint32_t n_exposures; /* sorted by peer_id, those of one in its order */
	struct map_exposure *exposures;
	uint32_t n_grants; /* likewise */
	struct map_grant *grants;
};

void map_init(struct map *map);
void map_deinit(struct map *map);
int map_copy(const struct map *from, struct map *ret);
const struct map_peer *map_find_peer(const struct map *map, uint32_t id);
const struct map_peer *map_find_peer_by_name(const struct map *map, const char *name);
const struct map_peer *map_find_peer_by_key(const struct map *map,
					    const struct public_key *node_key);
const struct map_relay *map_find_relay(const struct map *map, uint32_t id);
/* The first of those of this node, *ret_n in all. */
const struct map_exposure *map_exposures_of(const struct map *map, uint32_t peer_id, uint32_t *ret_n);
/* Is this whole name granted to the node? */
bool map_has_grant(const struct map *map, uint32_t peer_id, const char *host);
/*
 * Whose word about who a visitor is may be taken: a front door of a public node that an admin has added. ip4: in the
 * overlay, network order.
 */
bool map_is_front_door(const struct map *map, struct in_addr ip4);

/* Letters in lower case, digits and what else a host with its scheme may have; 1 … MAP_HOST_LEN characters. */
bool map_host_is_valid(const char *host);
/* Lower-case DNS label of 1 … MAP_NAME_LEN characters. */
bool map_name_is_valid(const char *name);

/*
 * Snapshot: the whole map. Patch: {"after", "sequence", "put_peers":[…], "remove_peers":[id…],
 * "put_relays", "remove_relays", "put_exposures", "remove_exposures", "put_grants", "remove_grants", "self"}; a put replaces the whole record of that id, a removal of
 * an id that is not there is no error. A patch may cover several changes: it leads from sequence
 * "after" to "sequence". 0 or -EINVAL (reterr says which member); -ESTALE when "after" is not
 * map->sequence. *map is untouched on failure. Sequences and epoch are decimal strings.
 */
P2P_CHECK int map_from_json(const struct json *snapshot, struct map *ret, struct error *reterr);
P2P_CHECK int map_apply_patch(struct map *map, const struct json *patch, struct error *reterr);
struct json *map_to_json(const struct map *map);
struct json *map_peer_to_json(const struct map_peer *peer);
struct json *map_relay_to_json(const struct map_relay *relay);
/* {"open": ["tcp:2222", …], "failed": […]}, as it stands in a relay and in what its node tells control. */
struct json *map_ports_to_json(const struct map_port *ports, uint32_t n);
/* json: NULL is none. */
P2P_CHECK int map_ports_from_json(const struct json *json, struct map_port ret[MAP_MAX_PORTS], uint32_t *ret_n,
				  struct error *reterr);
struct json *map_exposures_to_json(const struct map_exposures *exposures);
P2P_CHECK int map_exposures_from_json(const struct json *json, struct map_exposures *ret, struct error *reterr);
P2P_CHECK int map_peer_from_json(const struct json *json, struct map_peer *ret,
				 struct error *reterr);
P2P_CHECK int map_relay_from_json(const struct json *json, struct map_relay *ret,
				  struct error *reterr);
