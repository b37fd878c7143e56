/*
 * What a public node serves by UDP, on one port: the relay and STUN, told apart by their first bytes.
 *
 *     loop thread                            own thread
 *   ┌─────────────┐  members, stop (eventfd) ┌──────────────────────────────────────────────┐
 *   │ public_node │ ───────────────────────► │ sockets ─► inbox ─┬─► udp_clients ─┬─► outbox │
 *   │             │ ◄─────────────────────── │                   └─► stun_server ─┘    ─► sockets │
 *   └─────────────┘  counters (atomic), end  └──────────────────────────────────────────────┘
 *          ▲               packets of clients over TLS, to and from (udp_bridge.h)      ▲
 *          └───────────────────────────────────────────────────────────────────────────┘
 *
 * On the packet path nothing is allocated, no lock is taken, and system calls are for batches. What goes on leaves
 * by the socket and the address of ours at which its receiver was bound.
 *
 * The busiest clients are told from thread to thread by handing on a list, so that neither waits.
 *
 * All functions: the loop's thread only.
 */
#pragma once

#include "common/endpoint.h"
#include "common/error.h"
#include "common/key.h"
#include "relay/key_table.h"
#include "relay/listen_sockets.h"
#include "relay/stun_server.h"
#include "relay/udp_clients.h"
#include "relay/udp_socket.h"

#include <stdint.h>
#include <uv.h>

#define UDP_SERVER_MAX_SOCKETS (2 * STUN_SERVER_MAX_ADDRESSES) /* one more a address for RFC 5780 */

struct udp_server;

struct udp_server_options {
	uint32_t n_listen;
	struct endpoint listen[STUN_SERVER_MAX_ADDRESSES]; /* "::" listens on both families; port 0: any */
	const struct listen_sockets *sockets; /* that are bound already, borrowed until return; NULL: none */
	uint16_t other_port; /* for RFC 5780, on the same addresses, if it is free; 0: none */
	uint32_t stun_rate_per_s, stun_burst; /* of one source prefix; 0: 100, 200 */
	/* Of this node, copied; NULL: STUN alone. Nobody is a member before udp_server_set_members(). */
	const struct secret_key *node_key;
	/* As udp_clients.h. */
	uint32_t max_clients, max_proofs, max_binds_source;
	uint64_t max_rate_client, max_rate;
	/* What the server before gave to save(), if it was of the same node; borrowed during the call. NULL: nothing. */
	const uint8_t *saved;
	size_t saved_len;
	/* At its end, on the loop: for the server that runs next (udp_clients_save()). NULL: it is not wanted. */
	void (*save)(void *owner, const uint8_t *saved, size_t len);
	/* What concerns clients over TLS; on the loop. */
	void *owner;
	/* A packet from a client over UDP to one over TLS; NULL: there are none. */
	void (*deliver)(void *owner, const struct public_key *from, const struct public_key *to, const uint8_t *bytes,
			size_t len);
	/* What a client over TLS sent to this node went nowhere. */
	void (*tell_gone)(void *owner, const struct public_key *client, const struct public_key *node_key);
	/*
	 * This one, connected by TLS as well, is reached over UDP from now on, for it sends there; or not any more. Never
	 * lost, and in its order.
	 */
	void (*tell_reached)(void *owner, const struct public_key *client, bool over_udp);
};

struct udp_server_counters {
	struct stun_server_counters stun;
	struct udp_clients_counters clients;
	struct relay_outbox_counters out;
	uint64_t dropped_bridge; /* between clients over UDP and over TLS, because either side was too slow */
};

/* 0 or -errno; reterr names the address. Port 0: any, the same for all. */
P2P_CHECK int udp_server_start(uv_loop_t *loop, const struct udp_server_options *options, struct udp_server **ret,
			       struct error *reterr);
/* Tells the clients to come back, ends the thread, frees itself from the loop, then calls cb (may be NULL). */
void udp_server_stop(struct udp_server *server, void (*cb)(void *owner), void *owner);
/* Its sockets, of the second port none; at most UDP_SERVER_MAX_SOCKETS; returns how many. */
uint32_t udp_server_sockets(const struct udp_server *server, int *ret);
uint16_t udp_server_port(const struct udp_server *server);
/*
 * These are the members from now on: keys with any value, initialized, on the heap; taken over. Who is bound and not
 * among them is told and forgotten.
 */
void udp_server_set_members(struct udp_server *server, struct key_table *members);
/* As public_node.h says it. */
void udp_server_drain(struct udp_server *server, uint32_t spread_ms);
void udp_server_undrain(struct udp_server *server);
/* Of some microseconds ago. */
struct udp_server_counters udp_server_counters(const struct udp_server *server);
/* Of some seconds ago at most; valid until the next call. NULL: none yet. bound_ns is of common/clock.h. */
const struct udp_clients_busiest *udp_server_busiest(struct udp_server *server);
/* Who is connected by TLS: reached by clients over UDP from now on, or not any more. There again: it has sent something. */
void udp_server_note_elsewhere(struct udp_server *server, const struct public_key *node_key, bool is_there);
/* It has pinged over TLS, and is reached there when it has sent no packet over UDP for a second. */
void udp_server_note_ping(struct udp_server *server, const struct public_key *node_key);
/* A packet from a client over TLS to a node that is not connected so, or reached by UDP all the same. */
void udp_server_forward(struct udp_server *server, const struct public_key *from, const struct public_key *to,
			const uint8_t *bytes, size_t len);
