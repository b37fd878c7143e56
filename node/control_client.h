/*
 * The node's side of control: one connection, kept up; a map, kept current.
 *
 * Connects with back-off and jitter (0.2 s … 30 s), shows its certificate (or proves its node key
 * when the certificate has expired), says node.hello with the last sequence it knows, applies the
 * snapshot or the patches to its map, sends what the node has to tell (latest wins, again after
 * each reconnect), renews the certificate at half its life. Never gives up by itself; the one end
 * control can decide is removed().
 *
 * Loop only. It writes no files: what must be kept goes out through the ports. Ports are called
 * from the loop, never from inside a function of this header.
 */
#pragma once

#include "common/error.h"
#include "common/join_link.h"
#include "common/key.h"
#include "common/map.h"
#include "common/membership.h"
#include "common/rpc.h"
#include "common/websocket.h"

#include <stdbool.h>
#include <stdint.h>

struct control_client;

struct control_client_ports {
	void *owner;
	/* hello was answered: the map is current from here. */
	void (*connected)(void *owner);
	/*
	 * Once for each connected(), and for each failed attempt. The next attempt is already
	 * planned.
	 */
	void (*disconnected)(void *owner, const char *reason);
	/* Borrowed until return. sequence and epoch are in it: cache it whole. */
	void (*map_changed)(void *owner, const struct map *map);
	/* To be stored in place of the old one. */
	void (*identity_renewed)(void *owner, const char *certificate_pem);
	/* We are no member any more. No further attempt is made; the owner closes. */
	void (*removed)(void *owner, const char *reason);
	/* A peer sends to us by relay and hears nothing: are our relays still there? */
	void (*woken)(void *owner);
};

struct control_client_options {
	struct websocket_host *host;
	const char *control_host;
	uint16_t control_port;
	struct pin pin;
	const char *identity_key_pem;
	const char *certificate_pem;
	const struct secret_key *node_key; /* copied */
	const struct map *cached;          /* where to resume; NULL: ask for a snapshot. Copied */
	struct control_client_ports ports;
};

/* What a public node serves, as told to control. */
struct node_public {
	uint16_t tls_port, stun_port; /* 0: not served */
	uint32_t n_addresses;         /* 0: not a public node */
	struct endpoint addresses[MAP_MAX_ADDRESSES];
};

struct node_update {
	struct public_key session_key;
	uint32_t home_relay;
	uint32_t n_endpoints;
	struct endpoint endpoints[MAP_MAX_ENDPOINTS];
	struct node_public public_node;
	bool front_door; /* visitors come to it */
	uint32_t n_ports; /* there, which lead to members */
	struct map_port ports[MAP_MAX_PORTS];
	bool publishes;	 /* exposures are told, also that there are none any more */
	struct map_exposures exposures;
};

P2P_CHECK int control_client_new(const struct control_client_options *options,
				 struct control_client **ret, struct error *reterr);
/* Ends the connection, frees the client, then calls cb. No port is called any more. */
void control_client_close(struct control_client *client, void (*cb)(void *owner), void *owner);
/* The latest state; sent when it differs from what control last acknowledged. */
void control_client_update(struct control_client *client, const struct node_update *update);
/*
 * That peer shall look whether its relays are still there. Collected, seldom, and never to the harm of anything else here;
 * nothing happens while there is no connection, or the peer has none.
 */
void control_client_wake(struct control_client *client, uint32_t peer_id);
/*
 * What control says to the latest update. From *ret_sequence of the map on the map shows what came of it; 0: this
 * control is of an earlier version, and knows nothing of exposures.
 */
enum control_word { CONTROL_IS_AWAY, CONTROL_IS_ASKED, CONTROL_HAS_ANSWERED };
enum control_word control_client_word(const struct control_client *client, uint64_t *ret_sequence);
/* Why control refused the latest update, which is tried again; "": it did not. */
const char *control_client_refusal(const struct control_client *client);
bool control_client_is_connected(const struct control_client *client);
const struct map *control_client_map(const struct control_client *client);
/* Reconnect now (a network change): the back-off starts over. */
void control_client_kick(struct control_client *client);
/*
 * node.leave; cb with error NULL when control has forgotten us. -ENOTCONN when there is no
 * connection.
 */
P2P_CHECK int control_client_leave(struct control_client *client, rpc_answer_cb cb, void *owner);

/*
 * Joins once, with a join link. The callback comes exactly once, from the loop; membership is
 * borrowed and NULL when err is set (err->code is an enum rpc_code or -errno; its message says what
 * to do). Nothing is written: the caller stores node key, identity key and membership, then starts
 * a control_client. After a crash in between the same call with the same keys gives the same
 * membership again.
 */
typedef void (*control_join_cb)(void *owner, const struct membership *membership,
				const struct error *err);
struct control_join_options {
	struct websocket_host *host;
	const struct join_link *link;
	const struct secret_key *node_key;
	const char *identity_key_pem;
	const char *name;    /* wanted; control may append -2, -3 … */
	uint64_t timeout_ms; /* 0: 15 s */
};
P2P_CHECK int control_client_join(const struct control_join_options *options, control_join_cb cb,
				  void *owner, struct error *reterr);
