/*
 * The client side of one relay connection: keeps itself connected until it is closed.
 *
 *              first of the addresses          hello
 *   CONNECTING ───────────────────► HANDSHAKING ─────► READY
 *     ▲    ▲                             │               │
 *     │    └── delay ─┐    failed        │    lost       │
 *     │               └─ BACKING_OFF ◄───┴───────────────┘
 *
 * All addresses of the relay are tried, each a little later than the one before; the first that has
 * finished TLS and whose certificate carries the relay's node key wins. A connection that is silent while
 * we send is pinged, called silent when that has no answer within 400 ms, and given up after 3 s: a dead path is
 * noticed long before TCP does. These times begin when the ping has got through our own traffic (uplink_watch.h).
 *
 * Loop only. Ports are called from the loop, never from inside these functions.
 */
#pragma once

#include "common/key.h"
#include "common/map.h"
#include "common/relay_wire.h"
#include "common/tls_stream.h"

#include <openssl/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct relay_connection;

enum relay_connection_state {
	RELAY_CONNECTION_CONNECTING,
	RELAY_CONNECTION_HANDSHAKING,
	RELAY_CONNECTION_READY,
	RELAY_CONNECTION_BACKING_OFF,
	RELAY_CONNECTION_CLOSED,
	RELAY_CONNECTION_N_STATES,
};

const char *relay_connection_state_name(enum relay_connection_state state);

struct relay_connection_ports {
	void *owner;
	void (*ready)(void *owner, uint32_t relay_id);
	/* Was ready, or could not get there; it goes on trying by itself. why is for people. */
	void (*lost)(void *owner, uint32_t relay_id, const char *why);
	/* From that node; bytes are borrowed. */
	void (*packet)(void *owner, uint32_t relay_id, const struct public_key *from, const uint8_t *bytes,
		       size_t len);
	void (*peer_gone)(void *owner, uint32_t relay_id, const struct public_key *peer);
	/* A ping has no answer yet: perhaps it is dead, perhaps it stalls. Said again when it is heard. May be NULL. */
	void (*silent)(void *owner, uint32_t relay_id, bool is_silent);
};

struct relay_connection_counters {
	uint64_t packets_in, bytes_in, packets_out, bytes_out;
	uint64_t dropped_queue;	    /* oldest of the full queue */
	uint64_t dropped_not_ready; /* sent while not connected */
	uint64_t malformed;
	uint64_t attempts, connected, lost;
};

struct relay_connection_options {
	struct tls_host *host;	/* outlives the connection */
	SSL_CTX *context;	/* client, trust CA, our certificate, ALPN RELAY_ALPN; referenced */
	struct map_relay relay; /* copied */
	uint32_t max_queue;	/* bytes; 0: 512 KiB */
	struct relay_connection_ports ports;
};

P2P_CHECK int relay_connection_new(const struct relay_connection_options *options, struct relay_connection **ret);
/* Closes and frees itself from the loop, then calls cb (may be NULL). No port is called any more. */
void relay_connection_close(struct relay_connection *connection, void (*cb)(void *owner), void *owner);

/*
 * As close, but the relay is told first, and what it has sent until then still comes (2 s at most): only the packet
 * port is called. relay_connection_close() may follow, with the same cb, which is called once.
 */
void relay_connection_finish(struct relay_connection *connection, void (*cb)(void *owner), void *owner);

/* Copies. 0; -ENOTCONN when not ready (counted); -EMSGSIZE. A full queue drops its oldest packet. */
int relay_connection_send(struct relay_connection *connection, const struct public_key *to, const uint8_t *bytes,
			  size_t len);
/* The network changed, or somebody wants it now: no more waiting, and a live one is probed at once. */
void relay_connection_poke(struct relay_connection *connection);
/* A renewed certificate, for the next time it connects. */
void relay_connection_set_context(struct relay_connection *connection, SSL_CTX *context);

enum relay_connection_state relay_connection_state(const struct relay_connection *connection);
const struct map_relay *relay_connection_relay(const struct relay_connection *connection);
uint32_t relay_connection_rtt_us(const struct relay_connection *connection);  /* 0: not measured */
struct endpoint relay_connection_remote(const struct relay_connection *connection); /* none when not ready */
struct relay_connection_counters relay_connection_counters(const struct relay_connection *connection);
