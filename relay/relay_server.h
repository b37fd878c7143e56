/*
 * The relay over TLS: carries sealed packets between members by node key (docs/PROTOCOL-relay.md).
 *
 * A client is admitted by its certificate (the network's CA, checked by TLS) and by is_member(). One
 * connection a node key: a newer one replaces the older. Each client has a queue of its own; a slow one
 * loses its oldest packets and disturbs nobody.
 *
 * Loop only.
 */
#pragma once

#include "common/endpoint.h"
#include "common/error.h"
#include "common/key.h"
#include "common/tls_stream.h"
#include "relay/listen_sockets.h"

#include <openssl/types.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#define RELAY_SERVER_MAX_ADDRESSES 8
#define RELAY_SERVER_CLIENTS	   16384

struct relay_server;

struct relay_server_options {
	struct tls_host *host; /* outlives the server */
	SSL_CTX *context;      /* is_server, trust CA, ALPN RELAY_ALPN; referenced */
	uint32_t n_listen; /* 0: only who is handed over, relay_server_take() */
	struct endpoint listen[RELAY_SERVER_MAX_ADDRESSES]; /* port 0: any, the same for all */
	const struct listen_sockets *sockets; /* that listen already, borrowed until return; NULL: none */
	void *owner;
	/* NULL: whoever has a certificate. Asked at admission and by relay_server_recheck_members(). */
	bool (*is_member)(void *owner, const struct public_key *node_key);
	/* Clients that this server does not have: who comes and leaves here, and packets to whom is not here. Or NULL. */
	void (*note_client)(void *owner, const struct public_key *node_key, bool is_here);
	/* With note_client: one that is reached elsewhere, though it is here as well, has pinged here. */
	void (*note_ping)(void *owner, const struct public_key *node_key);
	void (*forward)(void *owner, const struct public_key *from, const struct public_key *to, const uint8_t *bytes,
			size_t len);
	uint32_t max_clients;		/* 0: RELAY_SERVER_CLIENTS */
	uint32_t max_handshakes;	/* in flight; 0: 1024. The oldest gives way */
	uint32_t max_handshakes_source; /* of these from one /32 or /64; 0: 64 */
	uint32_t max_rate_source;	/* connections a second from one /24 or /56; 0: 200, twice that at once */
	uint64_t max_rate_client, max_rate; /* bits a second taken in, of one client and of all; 0: no limit */
	uint32_t max_queue;		/* bytes that may wait for one client; 0: 512 KiB */
	uint64_t max_queues;		/* … for all; beyond it a client has no more than 64 KiB. 0: 256 MiB */
	uint32_t handshake_ms;		/* 0: TLS_STREAM_HANDSHAKE_MS */
	uint32_t keep_alive_s;		/* idle time before a ping, at most 120; 0: 30 */
	uint32_t dead_ms;		/* silence after which a client is dropped; 0: 2 × keep_alive_s + 5 s */
};

struct relay_server_counters {
	uint32_t clients, handshakes; /* now */
	uint64_t accepted;	      /* connections */
	uint64_t admitted;
	uint64_t packets, bytes; /* taken in for forwarding */
	uint64_t packets_out;	 /* written to their receivers' streams */
	uint64_t bytes_out;	 /* of all frames written, with their headers */
	uint64_t queued_bytes;	 /* that wait now, for all clients */
	uint64_t waited_ms;	 /* sum of the times that packets_out waited for their receivers */
	uint32_t longest_ms;	 /* the longest of these in the last 10 to 20 s */
	/* Connections that came to nothing, by reason. */
	uint64_t refused_tls;	      /* not TLS, wrong or no certificate, wrong ALPN */
	uint64_t refused_timeout;     /* the handshake took too long */
	uint64_t refused_handshakes;  /* too many in flight */
	uint64_t refused_rate;	      /* too many a second from one source */
	uint64_t refused_full;	      /* too many clients */
	uint64_t refused_not_member;
	uint64_t refused_draining;
	uint64_t refused_descriptors; /* out of file descriptors */
	/* Clients that left not by themselves, by reason. */
	uint64_t closed_replaced, closed_removed, closed_silent, closed_protocol, closed_expired, closed_drained;
	/* Packets dropped, by reason. */
	uint64_t dropped_unknown; /* destination not here */
	uint64_t dropped_rate;	  /* more than one client, or all, may send */
	uint64_t dropped_unanswered; /* to one more node that has not answered (reach_limit.h) */
	uint64_t dropped_queue;	  /* oldest of a full queue, or left in it when its client went */
	uint64_t malformed;	  /* frames with a body of a wrong form, or sent the wrong way */
};

struct relay_server_client {
	struct public_key node_key;
	char name[64];
	struct endpoint remote;
	uint64_t connected_ms; /* since when, uv_now() */
	uint64_t packets_in, bytes_in, packets_out, bytes_out, dropped_queue;
};

/* 0 or -errno; reterr names the address. */
P2P_CHECK int relay_server_start(const struct relay_server_options *options, struct relay_server **ret,
				 struct error *reterr);
/* Says closing to all, waits at most 1 s for what is queued, frees itself from the loop, calls cb (may be NULL). */
void relay_server_stop(struct relay_server *server, void (*cb)(void *owner), void *owner);
/*
 * Takes no clients any more, and sends away those it has, evenly over spread_ms (0: all at once), each with closing
 * (restart) and a time after which it may look again. May be called again with another spread. Undrain takes
 * clients again.
 */
void relay_server_drain(struct relay_server *server, uint32_t spread_ms);
void relay_server_undrain(struct relay_server *server);
/*
 * A visitor that another has accepted, as if it had come to one of our sockets; fd is taken over. bytes, borrowed: what
 * was read of it already.
 */
void relay_server_take(struct relay_server *server, int fd, const struct endpoint *remote, const uint8_t *bytes,
		       size_t n);
/* Its listening sockets, at most RELAY_SERVER_MAX_ADDRESSES; returns how many. */
uint32_t relay_server_sockets(const struct relay_server *server, int *ret);
uint16_t relay_server_port(const struct relay_server *server);
/*
 * The map has changed. Closes at once all clients for which is_member() no longer holds, and admits those that
 * were waiting for it: who has a certificate and is not a member yet has a second to become one.
 */
void relay_server_recheck_members(struct relay_server *server);
struct relay_server_counters relay_server_counters(const struct relay_server *server);
void relay_server_each_client(const struct relay_server *server,
			      void (*each)(void *owner, const struct relay_server_client *client), void *owner);

/* ---- for what has other clients: options.forward's counterpart ---- */

/* A packet of such a client to one of ours; the key of the sender is right. */
void relay_server_deliver(struct relay_server *server, const struct public_key *from, const struct public_key *to,
			  const uint8_t *bytes, size_t len);
/* Nobody has what a client of ours sent to this node. */
void relay_server_tell_gone(struct relay_server *server, const struct public_key *client,
			    const struct public_key *node_key);
/* A client of ours is reached elsewhere, for it sends there; or no longer. A packet of it that comes here ends it, too. */
void relay_server_tell_reached(struct relay_server *server, const struct public_key *client, bool is_elsewhere);
