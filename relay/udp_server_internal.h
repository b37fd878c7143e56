/*
 * What the parts of udp_server share. Not for others.
 *
 *   udp_server.c            loop: begins and ends it, gives it what concerns its thread, takes what the thread has said
 *   udp_server_thread.c     thread: waits, takes turn after turn, hears the loop's word, tells how much there was
 *   udp_server_datagrams.c  thread: what came by the sockets, and where each of it goes
 *   udp_server_carried.c    thread: to and from clients over TLS, by the bridge
 *
 * A turn:
 *
 *   await ──► word of the loop? members, drain, notes, carried ──► each socket: receive ──► route or answer ──► flush
 *     ▲                                                                                                          │
 *     └── let come together ◄── publish counters ◄── tell the loop ◄── tick, if it is time ◄── end of a round? ◄─┘
 */
#pragma once

#include "common/gathering.h"
#include "common/token_bucket.h"
#include "relay/udp_bridge.h"
#include "relay/udp_server.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#define SECOND_NS	 UINT64_C(1000000000)
#define MILLISECOND_NS	 UINT64_C(1000000)
#define MAX_SOCKETS	 (STUN_SERVER_MAX_ADDRESSES * STUN_SERVER_MAX_PORTS)
#define NO_DRAIN	 UINT64_MAX
#define STAGED_BYTES	 (256u << 10)
#define PROBERS		 1024  /* clients whose slots are equal modulo that share what one may */
#define N_COUNTERS	 (sizeof(struct udp_server_counters) / sizeof(uint64_t))

_Static_assert(sizeof(struct udp_server_counters) % sizeof(uint64_t) == 0, "published by words");

struct udp_server {
	/* of the loop's thread */
	uv_async_t word; /* from the thread */
	pthread_t thread;
	void (*stopped)(void *owner);
	void *owner;
	struct udp_clients_busiest *busiest; /* the last that was taken; NULL: none */
	struct udp_server_options options;
	uint64_t dropped_to_udp;

	/* between both */
	_Atomic bool is_stopping, has_ended;
	_Atomic bool is_told; /* the thread was woken and has not yet looked */
	_Atomic uint64_t new_drain; /* spread in ms; NO_DRAIN */
	struct udp_bridge bridge;
	struct key_table *_Atomic new_members; /* NULL: none; whoever takes it out owns it */
	struct udp_clients_busiest *_Atomic new_busiest; /* the same, the other way */
	_Atomic uint64_t published[N_COUNTERS];
	int wake_fd;

	/* of the thread, once it runs */
	/* To wait for: word of the loop, then each socket. Not epoll: it would be told of each datagram that is freed. */
	struct pollfd waits[1 + MAX_SOCKETS];
	uint32_t n_sockets, n_ports;
	struct relay_socket sockets[MAX_SOCKETS]; /* number: address * n_ports + port */
	struct relay_outbox *outboxes[MAX_SOCKETS];
	struct relay_inbox *inbox;
	struct refused_paths refused;
	struct relay_outbox_counters out;
	struct udp_clients *clients; /* NULL: STUN alone */
	struct key_table *members;   /* NULL: none */
	struct stun_server stun;
	uint64_t now_ns, tick_ns;
	struct gathering gathering;
	struct gathering_turn turn; /* the last one, or this; of messages those that were sent */
	uint64_t busiest_round; /* told */
	uint64_t idle_ns, round_ns; /* when all that had come was received; when the round began */
	struct {
		uint64_t spread_ms; /* NO_DRAIN: all stay */
		uint64_t began_ns;
		uint32_t n_clients, n_told;
	} drain;
	struct token_bucket probes, probes_of[PROBERS];
	uint64_t dropped_to_tls;
	bool has_put; /* into the bridge, without a word yet */
	uint8_t *staged; /* datagrams of clients over TLS, until they are sent */
	size_t n_staged;
	uint8_t *saved; /* at the end */
	size_t saved_len;
};

/* ---- udp_server.c ---- */

void udp_server_free_members(struct key_table *members);
/* One system call, until the thread has looked. */
void udp_server_wake(struct udp_server *server);

/* ---- udp_server_thread.c ---- */

void *udp_server_run(void *server);
void udp_server_read_clock(struct udp_server *server);
uint32_t udp_server_now_s(const struct udp_server *server);
/* For udp_clients_config. */
bool udp_server_is_member(void *server, const struct public_key *node_key);

/* ---- udp_server_datagrams.c ---- */

/*
 * True when more waits. What waits to be sent leaves before what comes now, so that it does not pile up for a whole
 * turn.
 */
bool udp_server_serve(struct udp_server *server, const struct relay_socket *sock);
/* By UDP. Probes are rare, and most runs have none; one may end with a shorter one. The bytes stay until the flush. */
void udp_server_forward_run(struct udp_server *server, struct udp_way *way, const uint8_t *bytes, size_t len,
			    size_t size, uint32_t n);
void udp_server_flush(struct udp_server *server);

/* ---- udp_server_carried.c ---- */

/* To a client over TLS: the whole run, with its headers. */
void udp_server_carry(struct udp_server *server, const struct udp_clients_route *route, const uint8_t *bytes,
		      size_t len, size_t size, uint32_t n);
/* From those: who has come or gone, and then their packets. */
void udp_server_take_notes(struct udp_server *server);
void udp_server_take_carried(struct udp_server *server);
/* For udp_clients_config. */
void udp_server_tell_reached(void *server, const struct public_key *node_key, bool is_here);
