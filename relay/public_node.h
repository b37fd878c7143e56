/*
 * What a node with a [public] section serves: the relay over TLS and over UDP, and STUN, put together.
 *
 * It listens on the addresses given; without any, or if one of them is not an address of this machine (its
 * router or cloud translates), on all of the machine.
 *
 * Loop only.
 */
#pragma once

#include "common/endpoint.h"
#include "common/error.h"
#include "common/key.h"
#include "relay/relay_server.h"
#include "relay/udp_server.h"

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#define PUBLIC_NODE_MAX_LED 16

struct public_node;

struct public_node_options {
	uint32_t n_addresses; /* 0: all of the machine */
	struct endpoint addresses[RELAY_SERVER_MAX_ADDRESSES]; /* to listen on; their ports do not matter */
	uint16_t tls_port, stun_port;			       /* 0: any */
	/*
	 * Where another listens on TCP, and hands over who wants the relay (public_node_take()): at those of our addresses
	 * the relay does not listen itself. "::" stands for all.
	 */
	uint32_t n_led;
	const struct endpoint *led; /* borrowed until return */
	SSL_CTX *context; /* tls_context_new(): is_server, trust CA, ALPN RELAY_ALPN; referenced */
	/* That listen already, used where they fit and closed where not; NULL: none. */
	struct listen_sockets *sockets;
	void *owner;
	bool (*is_member)(void *owner, const struct public_key *node_key); /* NULL: all with a certificate */
	uint32_t max_clients;						   /* 0: the relay's own limit */
	uint64_t max_rate_client, max_rate; /* bits a second taken in, of one client and of all; 0: no limit */
	uint32_t stun_rate; /* questions of one network (/24, /56) answered a second; 0: 100 */
	/* For the relay over UDP, which knows members by their keys alone; NULL: none. */
	const struct secret_key *node_key;
	/* Hands the clients over UDP on, from one run to the next: as udp_server.h. save may be NULL. */
	const uint8_t *saved_udp;
	size_t saved_udp_len;
	void (*save_udp)(void *owner, const uint8_t *saved, size_t len);
	/* UDP sockets among .sockets are not taken up: who else keeps them closes them before it returns. NULL: nobody does. */
	void (*forget_kept)(void *owner);
	/* Calls add(set, key) for every member. */
	void (*each_member)(void *owner, void (*add)(void *set, const struct public_key *node_key), void *set);
};

struct public_node_stats {
	struct relay_server_counters relay;
	struct stun_server_counters stun;
	struct udp_clients_counters udp;
	struct relay_outbox_counters udp_out;
	uint64_t dropped_bridge; /* between clients over UDP and over TLS */
	uint16_t tls_port, stun_port;
};

/* Binds at once, also privileged ports. 0 or -errno; reterr says which address and what to do. */
P2P_CHECK int public_node_start(uv_loop_t *loop, const struct public_node_options *options,
				struct public_node **ret, struct error *reterr);
/* Frees itself from the loop, then calls cb (may be NULL). */
void public_node_stop(struct public_node *node, void (*cb)(void *owner), void *owner);
/* As relay_server_take(). */
void public_node_take(struct public_node *node, int fd, const struct endpoint *remote, const uint8_t *bytes, size_t n);
/* A renewed certificate, for connections from now on. */
P2P_CHECK int public_node_set_certificate(struct public_node *node, const char *certificate_pem,
					  const char *key_pem, struct error *reterr);
/* The map changed: who is no longer a member is closed at once. */
void public_node_recheck_members(struct public_node *node);
/*
 * Sends the clients away over spread_ms (0: at once) and takes no new ones until it is taken back. STUN goes on:
 * who measures here learns its address, and finds no relay.
 */
void public_node_drain(struct public_node *node, uint32_t spread_ms);
void public_node_undrain(struct public_node *node);
#define PUBLIC_NODE_MAX_SOCKETS (RELAY_SERVER_MAX_ADDRESSES + UDP_SERVER_MAX_SOCKETS)
/* All its listening sockets, to hand to the next program; returns how many. */
uint32_t public_node_sockets(const struct public_node *node, int ret[PUBLIC_NODE_MAX_SOCKETS]);
struct public_node_stats public_node_stats(const struct public_node *node);
struct relay_server *public_node_relay(const struct public_node *node);
/* Of the clients over UDP, some seconds ago at most; valid until the next call. NULL: none yet. */
const struct udp_clients_busiest *public_node_busiest_udp(const struct public_node *node);
