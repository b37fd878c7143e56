/*
 * Answers STUN Binding requests on UDP, on the libuv loop, with its own batched system calls.
 *
 * An answer leaves from the address that was asked and is never larger than the question: what does not
 * fit is left out (first OTHER-ADDRESS and RESPONSE-ORIGIN); if not even the mapped address fits, nothing
 * is sent and too_small is counted. Each source prefix (/24, /56) has a rate. With other_port and two
 * addresses of a family (no wildcards) it speaks RFC 5780: CHANGE-REQUEST and RESPONSE-PORT; otherwise
 * these are answered with 420, as the RFC wants.
 *
 * Loop only.
 */
#pragma once

#include "common/endpoint.h"
#include "common/error.h"

#include <stdint.h>
#include <uv.h>

#define STUN_SERVER_MAX_ADDRESSES 8

struct stun_server;

struct stun_server_options {
	uint32_t n_listen;
	struct endpoint listen[STUN_SERVER_MAX_ADDRESSES]; /* "::" listens on both families; port 0: any */
	uint16_t other_port; /* for RFC 5780, on the same addresses; 0: none */
	uint32_t rate_per_s; /* of one source prefix; 0: 100 */
	uint32_t burst;	     /* 0: 200 */
};

struct stun_server_counters {
	uint64_t received, answered;
	uint64_t garbage;	/* not STUN, malformed, wrong fingerprint */
	uint64_t not_a_request; /* STUN, but an answer or another method */
	uint64_t too_small;
	uint64_t rate_limited;
	uint64_t unknown_attribute; /* answered with 420; counted in answered, too */
	uint64_t send_failed;
};

/* 0 or -errno; reterr names the address. Port 0: any, the same for all. */
P2P_CHECK int stun_server_start(uv_loop_t *loop, const struct stun_server_options *options,
				struct stun_server **ret, struct error *reterr);
/* Frees itself from the loop, then calls cb (may be NULL). */
void stun_server_stop(struct stun_server *server, void (*cb)(void *owner), void *owner);
uint16_t stun_server_port(const struct stun_server *server);
struct stun_server_counters stun_server_counters(const struct stun_server *server);
