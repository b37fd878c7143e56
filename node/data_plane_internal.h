/*
 * The data plane's insides, shared by its two files: data_plane.c (peers, changes, samples, life) and
 * data_plane_relays.c (relay connections, frames). Nobody else includes it.
 */
#pragma once

#include "actors/buffer.h"
#include "actors/relay_manager/relay_connection.h"
#include "node/data_plane.h"
#include "node/wireguard_host.h"

#define BUCKETS		  1024
#define RELAY_MAX_WAITING 64	     /* packets that wait for a relay to come up */

struct plane_peer {
	uint32_t id;
	struct plane_peer *next_by_id, *next_by_key; /* of the buckets */
	char name[MAP_NAME_LEN + 1];
	struct public_key key;
	struct in_addr ip4;
	struct in6_addr ip6;
	uint32_t home_relay;
	struct public_key session_key;
	struct peer_path path;
	bool is_new, is_dirty; /* not yet told to WireGuard: all of it, its path */
	bool is_reborn;	       /* nor this: it began a new Session, and may have lost its keys */
	bool is_gone;	       /* its relay did not know it just now: ask again with the next sample */
	uint32_t n_gone;       /* times that was done since there was a session */
	bool in_map;
	struct wg_stats stats; /* of the last sample */
};

struct waiting {
	struct public_key to;
	uint64_t since_ns;
	struct buffer *bytes;
};

struct plane_relay {
	struct data_plane *plane;
	struct plane_relay *next;
	struct map_relay relay;
	struct relay_connection *connection;
	bool is_up;
	uint64_t told_ns; /* relay_used */
	uint32_t n_waiting;
	struct waiting waiting[RELAY_MAX_WAITING]; /* oldest first */
};

struct data_plane {
	struct data_plane_options options;
	struct data_plane_ports ports;
	bool is_attached;
	struct offloads offloads; /* what becomes of them */
	struct udp *udp;
	struct wireguard_host *host;
	char interface[IF_NAMESIZE];

	struct plane_peer *by_id[BUCKETS], *by_key[BUCKETS];
	uint32_t n_peers;
	struct public_key *removed; /* keys WireGuard must still forget */
	uint32_t n_removed;
	bool is_changing; /* a change is under way */

	uint32_t n_known_relays;
	struct map_relay known_relays[MAP_MAX_RELAYS];
	struct plane_relay *relays;

	uv_timer_t sample_timer;
	bool is_sampling, sample_again;
	uint64_t active_ns; /* when a packet was last seen to flow */
	struct refresh *refreshes, *answered; /* who waits for the next sample, for the one under way */
	uint64_t n_unknown_datagrams, n_unknown_senders, n_unattached, n_relay_dropped;

	int n_open; /* while closing */
	void (*closed)(void *owner);
	void *closed_owner;
};

/* NULL when unknown. */
struct plane_peer *plane_find_by_id(const struct data_plane *plane, uint32_t id);
struct plane_peer *plane_find_by_key(const struct data_plane *plane, const struct public_key *key);
/* Something moved while nobody looked: look now. */
void plane_wake(struct data_plane *plane);
/* One of the parts that plane->n_open counts has let go. */
void plane_part_closed(void *owner);

struct plane_relay *plane_find_relay(const struct data_plane *plane, uint32_t id);
/* The id of the relay by which the peer is reached: `wanted` if it is held, else its home. 0: none. */
uint32_t plane_resolve_relay(const struct data_plane *plane, const struct plane_peer *peer, uint32_t wanted);
/* Counts as open until it has let go. */
void plane_close_relay(struct plane_relay *relay);
const char *plane_relay_name(const struct data_plane *plane, uint32_t id);
