/*
 * The data plane's insides, shared by its files; nobody else includes it.
 *
 *   data_plane.c            peers, changes, samples, life
 *   data_plane_relays.c     relays: held, by UDP or TLS, up or down
 *   data_plane_relay_udp.c  their UDP side: datagrams, slots, senders nobody knows yet
 *   data_plane_reach.c      at which of them is a peer, and how does a packet get there
 *   data_plane_silence.c    peers that do not answer there
 *   plane_places.c          what is remembered of the relays at which a peer was looked for (pure)
 */
#pragma once

#include "actors/buffer.h"
#include "actors/relay_manager/peer_silence.h"
#include "actors/relay_manager/relay_choice.h"
#include "actors/relay_manager/relay_connection.h"
#include "actors/relay_manager/relay_udp_fsm.h"
#include "common/token_bucket.h"
#include "node/data_plane.h"
#include "node/plane_places.h"
#include "node/wireguard_host.h"

#define MIN_BUCKETS	  256
#define MAX_WAITING	  64 /* packets that wait for a relay to come up, or for their peer to be found */
#define MAX_STRANGERS	  32 /* packets whose sender the relay is asked for; of one relay */
#define MAX_SLOTS	  1024 /* senders of one relay that are remembered */

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
	uint32_t mtu; /* of packets inside; 0: not limited */
	bool is_new, is_dirty; /* not yet told to WireGuard: all of it, its path */
	bool is_reborn;	       /* nor this: it began a new Session, and may have lost its keys */
	bool is_gone;	       /* its relay did not know it just now: ask again with the next sample */
	uint32_t n_gone;       /* times that was done since there was a session */
	bool in_map, has_moved_home; /* has_moved_home: by the last map */
	struct wg_stats stats; /* of the last sample */
	struct plane_place places[PLANE_PLACES];
	struct wireguard_relay_way way; /* as WireGuard's host was told, or is about to be */
	uint64_t used_ns;		/* when something for it or from it last went by relay */
	uint64_t sought_ns;		/* when relays were last asked for it */
	struct peer_silence silence;
};

struct waiting {
	uint32_t peer_id, relay_id;
	uint64_t since_ns;
	struct buffer *bytes;
};

struct stranger {
	uint32_t slot;
	uint64_t since_ns;
	struct buffer *bytes;
};

struct plane_slot {
	uint32_t slot, peer_id;
};

struct plane_relay {
	struct data_plane *plane;
	struct plane_relay *next;
	struct map_relay relay;
	struct relay_choice choice;
	struct relay_connection *connection; /* NULL: TLS is not wanted now */
	struct relay_connection *finishing;  /* was closed, but what is on its way still comes */
	bool is_tls_up, is_tls_silent; /* silent: what was sent last has no answer */
	bool has_udp; /* it can be tried */
	struct relay_udp_fsm udp;
	bool sends_udp;	 /* what goes now goes by UDP */
	bool is_up;	 /* by one way or the other, as the stage was told */
	bool is_down;	 /* it was tried, and failed */
	bool is_leaving; /* it has said that it will stop */
	struct plane_relay_view {
		bool is_up, sends_udp, is_tls_up, is_tls_silent, is_silent, is_leaving;
		uint32_t slot, token;
		struct endpoint remote;
	} seen; /* as peers were last looked at for it */
	uint64_t down_ms; /* to be called down then; 0: no */
	uint64_t told_ns; /* relay_used */
	uint64_t searched_ns; /* all peers were looked through for a slot */
	uv_timer_t timer;
	uint32_t n_strangers;
	struct stranger strangers[MAX_STRANGERS]; /* oldest first */
	struct plane_slot slots[MAX_SLOTS];	  /* by slot, each in its place or in none */
	int n_open;				  /* while closing: handles, connections */
	bool is_closing;
};

struct data_plane {
	struct data_plane_options options;
	struct data_plane_ports ports;
	bool is_attached;
	struct offloads offloads; /* what becomes of them */
	struct udp *udp;
	struct wireguard_host *host;
	char interface[IF_NAMESIZE];

	struct plane_peer **by_id, **by_key;
	uint32_t n_buckets; /* of each; a power of two, not much less than there are peers */
	uint32_t n_peers;
	struct public_key *removed; /* keys WireGuard must still forget */
	uint32_t n_removed;
	bool is_changing; /* a change is under way */

	uint32_t n_known_relays;
	struct map_relay known_relays[MAP_MAX_RELAYS];
	struct plane_relay *relays;
	bool is_udp_blocked; /* relays are reached over TLS only */
	uint32_t n_ranked, ranked[MAP_MAX_RELAYS]; /* ids of relays, nearest first */
	uint32_t own_home;			   /* 0: none */
	struct secret_key node_key;
	struct public_key node_key_public;
	uint32_t n_waiting;
	struct waiting waiting[MAX_WAITING]; /* oldest first */
	bool is_flushing;
	uv_timer_t seek_timer;
	uint32_t seek_bucket; /* of by_id: where the last round ended */
	struct plane_rounds rounds; /* of peers that do not answer */

	uv_timer_t sample_timer;
	bool is_sampling, sample_again;
	struct token_bucket checks;
	uint64_t active_ns; /* when a packet was last seen to flow */
	struct refresh *refreshes, *answered; /* who waits for the next sample, for the one under way */
	uint64_t n_unknown_datagrams, n_unknown_senders, n_unattached, n_relay_dropped, n_not_reached;

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

/* A change of a peer is to be told to WireGuard's host; now, if none is under way. */
void plane_publish(struct data_plane *plane);

/* ---- data_plane_relays.c ---- */

struct plane_relay *plane_find_relay(const struct data_plane *plane, uint32_t id);
/* As plane_find_relay(), but one that the map has is opened. */
struct plane_relay *plane_relay_on_demand(struct data_plane *plane, uint32_t relay_id);
/* Something about its UDP or TLS may be other than before: chooses anew, tells who must know, sets the timer. */
/* It counts as up, but did not answer when it should have: it may be dead. False while TLS answers. */
bool plane_relay_is_silent(const struct plane_relay *relay);
void plane_relay_reconsider(struct plane_relay *relay);
/* The stage shall know that it is used. */
void plane_relay_used(struct plane_relay *relay);
/* A packet of that peer has come by the relay. */
void plane_relay_deliver(struct plane_relay *relay, struct plane_peer *peer, const uint8_t *bytes, size_t len);
/* Counts as open until it has let go. */
void plane_close_relay(struct plane_relay *relay);
const char *plane_relay_name(const struct data_plane *plane, uint32_t id);

/* ---- data_plane_relay_udp.c ---- */

void plane_relay_udp_open(struct plane_relay *relay);
void plane_relay_udp_close(struct plane_relay *relay);
void plane_relay_udp_input(struct plane_relay *relay, const struct relay_udp_input *input);
/* The slot of a peer, please; nothing when it was asked for just now. */
void plane_relay_udp_find(struct plane_relay *relay, struct plane_peer *peer);
/* Sends the train to the peer's slot. 0 or -errno. */
int plane_relay_udp_send(struct plane_relay *relay, uint32_t slot, const struct train *train);
/* One packet, in a datagram that is not fragmented: 0, -EMSGSIZE when the first link takes none so long, -errno. */
int plane_relay_udp_send_whole(struct plane_relay *relay, uint32_t slot, const uint8_t *bytes, size_t len);
/* A datagram of kind DEMUX_RELAY. */
void plane_relay_udp_take(struct data_plane *plane, const struct endpoint *from, const uint8_t *bytes, size_t len);
/* To WireGuard's host: the relays that we are bound to. */
void plane_relay_udp_publish(struct data_plane *plane);

/* ---- data_plane_reach.c ---- */

/* The relay by which a peer is reached now; NULL: none that is ready. wanted: preferred, 0 or any: its home. */
struct plane_relay *plane_reach(const struct data_plane *plane, const struct plane_peer *peer, uint32_t wanted);
/* The train goes to the peer by a relay, or waits a while for one. 0, or -ENOTCONN. */
int plane_send_relayed(struct data_plane *plane, struct plane_peer *peer, uint32_t wanted, const struct train *train);
/* The peer is at this relay (slot 0: which one it has there is not known), or it is not; was_lost: what was sent. */
void plane_peer_is_here(struct plane_relay *relay, struct plane_peer *peer, uint32_t slot);
void plane_peer_is_absent(struct plane_relay *relay, struct plane_peer *peer, bool was_lost);
/* The place of a peer at a relay, NULL: nothing is known. */
struct plane_place *plane_place(const struct plane_peer *peer, uint32_t relay_id);
/* A relay came, went, or is used otherwise than before. */
void plane_reach_changed(struct data_plane *plane);
/* A relay went. Nobody is asked for before the next turn: it may be opened anew, or another closed, in this one. */
void plane_reach_lost(struct data_plane *plane);
/* Slots there are nobody's any more. */
void plane_forget_slots(struct plane_relay *relay);
/* The peer may be elsewhere than before. */
void plane_reach_peer_changed(struct data_plane *plane, struct plane_peer *peer);
/* What was carried for the peer since the last sample. */
void plane_reach_sampled(struct data_plane *plane, struct plane_peer *peer, const struct wg_stats *before);
void plane_reach_close(struct data_plane *plane);
/* Relays are asked for the peer, unless they were just now, or too many others are sought. opens: also those not held. */
void plane_reach_seek(struct data_plane *plane, struct plane_peer *peer, bool opens);
/* The relay that a packet would take, for people; 0: none. */
uint32_t plane_reach_id(const struct data_plane *plane, const struct plane_peer *peer);

/* ---- data_plane_silence.c ---- */

/* What was carried for the peer since the last sample; does what is due. */
void plane_silence_sampled(struct data_plane *plane, struct plane_peer *peer, const struct wg_stats *before);
/* We reach that relay otherwise than before: who did not answer there may now. */
void plane_forget_deaf(struct plane_relay *relay);
/* Something of the peer came. */
void plane_silence_heard(struct data_plane *plane, struct plane_peer *peer, uint64_t at_ns);
/* With the next change WireGuard asks for a session again, if it waits for one; but not for ever. */
void plane_ask_again(struct plane_peer *peer);
