/*
 * Agents that dial back within TLS: from their connections to sockets that the front door takes for theirs.
 *
 *   agent ══ TLS ══► PROVING ── a visitor's secret ──► JOINED ── a socket's other end, with the secret ──► front door
 *                     │   └── of those that were prepared ──► WARM ── a visitor ──► STARTED ── taken ──► JOINED
 *                     └── too slow, or too many: the oldest goes   └── silent      └── not in time, or it ended: the agent is
 *                                                                                      told as if it had none that is warm
 *
 * Which secret is whose the front door knows alone (relay/frontdoor/door_thread_dial_back.c): what does not hold is reset there.
 *
 * Of a visitor that speaks TLS itself, and with an agent that can (WEBGW_ALPN), TLS ends behind that in both directions, and the socket
 * itself is what the front door has (RAW): nothing is wrapped twice, and this is done with it.
 *
 * Who finds none that is warm waits for a moment if one is coming: it is there sooner than one that is yet to be asked for.
 *
 * A warm one is sent the visitor's first bytes with its start, without a question before: it may be dead, and nobody know.
 * Then the agent is told the same secret by its WebSocket, and the door takes whichever comes first.
 *
 * Bounds: visitors that wait, one for each secret that was told a moment ago; connections in all; warm ones of an agent, and in all (relay/webgw/warm_pools.h); of those that have not said their secret, in all and of one source; and how fast those of
 * one source come. Loop only.
 */
#pragma once

#include "common/endpoint.h"
#include "common/error.h"
#include "common/tls_stream.h"
#include "relay/webgw/dial_exchange.h"
#include "relay/webgw/webgw_wire.h"

#include <openssl/types.h>
#include <stdint.h>
#include <uv.h>

struct data_links;

struct data_links_ports {
	void *owner;
	/* Its fd and answer are taken over, also on failure. False: there is no room for it. */
	bool (*caller)(void *owner, const struct dial_caller *caller_take);
	/* A warm connection seems to be dead: its agent, or another, has to be told otherwise. False: there is none to be told. */
	bool (*not_taken)(void *owner, int64_t subscription, const struct dial_wanted *wanted);
	/* Is there still such an agent? */
	bool (*is_there)(void *owner, int64_t subscription);
	/* Is it told who its visitors are? NULL: none is. */
	bool (*tells_visitors)(void *owner, int64_t subscription);
};

struct data_links_options {
	uv_loop_t *loop;
	struct tls_host *tls_host;
	SSL_CTX *context; /* a server's; referenced */
	struct endpoint listen;
	struct data_links_ports ports;
};

struct data_links_counters {
	uint64_t accepted, joined;
	uint64_t raw; /* of joined: without TLS, behind its end */
	uint64_t slow, broken;	 /* had not said a secret in time, or broke before */
	uint64_t refused;	 /* too many, or too fast */
	uint64_t awaited, awaited_late; /* visitors that waited for one that was coming: it came; not in time */
	uint64_t warm_used, warm_lost; /* visitors: by a warm connection; it did not take them */
	uint64_t warm_ended;	 /* silent, misbehaving, late, or nobody's any more */
	uint64_t no_descriptors; /* or no room at the front door */
	uint32_t open, warm_now;
};

/* 0, or -errno with address and remedy in reterr. */
P2P_CHECK int data_links_start(const struct data_links_options *options, struct data_links **ret, struct error *reterr);
/* Resets what there is, frees itself from the loop, then calls stopped. */
void data_links_stop(struct data_links *links, void (*stopped)(void *owner), void *owner);
/*
 * Who came to a port that is not only for these: as if it had come here. fd: taken over; bytes, borrowed: what came first, and the socket
 * has no longer.
 */
void data_links_take(struct data_links *links, int fd_take, const struct endpoint *remote, const uint8_t *bytes, size_t n);
/* For connections from now on; referenced. */
void data_links_set_context(struct data_links *links, SSL_CTX *context);
/* Secrets for an agent's next connections, so many at most; how many there is room for. */
uint32_t data_links_prepare(struct data_links *links, int64_t subscription, uint32_t n, uint8_t ret[][WEBGW_EPHEMERAL_LEN]);
/* To a warm connection of that agent, or one that is coming. False: it has none. */
bool data_links_hand(struct data_links *links, int64_t subscription, const struct dial_wanted *wanted);
uint16_t data_links_port(const struct data_links *links);
struct data_links_counters data_links_counters(const struct data_links *links);
