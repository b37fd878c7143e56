/*
 * Agents that dial back within TLS: from their connections to sockets that the front door takes for theirs.
 *
 *   agent ══ TLS ══► PROVING ── 32 bytes ──► JOINED ── a socket's other end, with the secret ──► front door
 *                       └── too slow, or too many: the oldest goes
 *
 * Which secret is whose the front door knows alone (relay/frontdoor/door_thread_dial_back.c): what does not hold is reset there.
 *
 * Bounds: connections in all; of those that have not said their secret, in all and of one source; and how fast those of
 * one source come. Loop only.
 */
#pragma once

#include "common/endpoint.h"
#include "common/error.h"
#include "common/tls_stream.h"
#include "relay/webgw/webgw_wire.h"

#include <openssl/types.h>
#include <stdint.h>
#include <uv.h>

struct data_links;

struct data_links_ports {
	void *owner;
	/* fd is taken over, also on failure. False: there is no room for it. */
	bool (*caller)(void *owner, int fd_take, const struct endpoint *remote, const uint8_t secret[WEBGW_EPHEMERAL_LEN]);
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
	uint64_t slow, broken;	 /* had not said a secret in time, or broke before */
	uint64_t refused;	 /* too many, or too fast */
	uint64_t no_descriptors; /* or no room at the front door */
	uint32_t open;
};

/* 0, or -errno with address and remedy in reterr. */
P2P_CHECK int data_links_start(const struct data_links_options *options, struct data_links **ret, struct error *reterr);
/* Resets what there is, frees itself from the loop, then calls stopped. */
void data_links_stop(struct data_links *links, void (*stopped)(void *owner), void *owner);
/* For connections from now on; referenced. */
void data_links_set_context(struct data_links *links, SSL_CTX *context);
uint16_t data_links_port(const struct data_links *links);
struct data_links_counters data_links_counters(const struct data_links *links);
