/*
 * Peers on one link find each other without control: docs/PROTOCOL-lan.md. The sockets of
 * actors/lan_discovery/lan_discovery_fsm.h, which decides.
 *
 *   239.255.112.50, ff12::7032:6c, UDP 27032 ◄── calls ── from an own port for each family
 *                                              answers ──► to the port that a call or an answer came from
 *
 * What comes is parsed, counted and dropped unless a tag in it is a peer's for us: one keyed hash for each peer of
 * the map (LAN_MAX_PEERS of them), as often as lan_sources.h lets it. Calls are taken from the group only, so nobody
 * who is not on a link can make us compute; answers only within seconds of what they answer. Loop only.
 */
#pragma once

#include "common/endpoint.h"
#include "common/key.h"
#include "common/map.h"

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#define LAN_DISCOVERY_PORT 27032

struct lan_discovery;

struct lan_discovery_ports {
	void *owner;
	uint16_t (*port)(void *owner); /* of our packets and session messages */
	uint32_t (*n_missing)(void *owner); /* wanted peers that cannot be reached; asked once a second without control */
	/* A peer has this session key, and says that it is here. Proven to be of now. */
	void (*found)(void *owner, uint32_t peer_id, const struct public_key *session_key,
		      const struct endpoint *endpoint);
};

struct lan_discovery_options {
	uv_loop_t *loop;
	const struct secret_key *node_key; /* copied, wiped at the end */
	const struct secret_key *session_secret; /* as well */
	const char *except; /* the overlay's interface */
	struct lan_discovery_ports ports;
};

/* Dropped, by why; and what was sent. */
struct lan_discovery_counters {
	uint64_t malformed, strangers, repetitions, too_many;
	uint64_t n_sent;
};

/* Without sockets (a port that is in use, no such family) it finds nobody; said in the log. */
struct lan_discovery *lan_discovery_new(const struct lan_discovery_options *options);
/* Accepts NULL: closed is called at once. */
void lan_discovery_close(struct lan_discovery *lan, void (*closed)(void *owner), void *owner);

void lan_discovery_set_map(struct lan_discovery *lan, const struct map *map);
void lan_discovery_set_connected(struct lan_discovery *lan, bool connected);
/* What was found of this peer is not used any more; it can be found again. Also from found(). */
void lan_discovery_forget(struct lan_discovery *lan, uint32_t peer_id);
/* Perhaps: it looks for itself whether our addresses are others than before. */
void lan_discovery_link_changed(struct lan_discovery *lan);
struct lan_discovery_counters lan_discovery_counters(const struct lan_discovery *lan);
