/*
 * Where TLS ends: visitors come encrypted, and are led to their host's server in plain.
 *
 *   acceptor's door ══ pair of sockets ══► [ SHAKING ──► CONNECTING ──► OPEN ] ──► server    a thread for all of them
 *                                              │  tls_site    PROXY header     │
 *                                              └── alert, reset ◄──────────────┘
 *
 * The end of either side's bytes goes on as an end: close_notify as FIN, FIN as close_notify, and the other way goes on.
 * Who breaks off without close_notify has not ended: the server is reset, for it could take what came for the whole. The other
 * way the visitor gets no close_notify.
 *
 * At http:// hosts for which there is an ACME order the first request is looked at: the challenge is answered here, all else goes
 * to the server as it came.
 *
 * Bounds: visits in all (by the limit of open files), handshakes under way in all and of one source, ten seconds for a handshake
 * and five for the server. A visit that waits for nobody holds no buffer; one that waits has one of 16 KiB each way, and nothing
 * more is read for it meanwhile. How long who is let in may be silent is the door's to say, which cuts it; but where one side has
 * ended, and that would not be seen here, two minutes without a movement, as at the door.
 *
 * terminator_new(), terminator_free(), set…: the loop. struct terminated's sink.take: the door's thread.
 */
#pragma once

#include "common/endpoint.h"
#include "node/expose/tls_site.h"
#include "node/exposure.h"
#include "relay/frontdoor/door_sink.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct terminator;

struct terminated_counters {
	uint64_t handshakes, resumed; /* that were done; of these, by a ticket */
	uint64_t failed;	      /* TLS that was not understood, was broken off, or was for another host */
	uint64_t no_certificate;      /* there was nothing to show yet */
	uint64_t too_slow, over_limit;
	uint64_t truncated;  /* broken off without close_notify */
	uint64_t challenges; /* of ACME, answered */
};

#define TERMINATED_N_COUNTERS (sizeof(struct terminated_counters) / sizeof(uint64_t))

/* In what belongs to a host's gate: it lives as long as the gate is held. */
struct terminated {
	struct door_sink sink;
	struct terminator *terminator;
	struct endpoint target;
	enum exposure_proxy proxy;
	struct tls_site site;
	_Atomic uint64_t counters[TERMINATED_N_COUNTERS];
};

struct terminator_options {
	uint32_t max_visits;	    /* 0: what the limit of open files lets */
	uint32_t max_handshakes;    /* 0: 1,024 */
	uint32_t max_of_source;	    /* handshakes; 0: 64 */
	uint32_t handshake_ms;	    /* 0: 10 s */
	uint32_t connect_ms;	    /* 0: 5 s */
	uint32_t half_closed_ms;    /* without a movement, of one of which an end is not watched; 0: 2 min */
};

/* Starts its thread. 0 or -errno. */
P2P_CHECK int terminator_new(const struct terminator_options *options, struct terminator **ret, struct error *reterr);
/* Resets all visits, ends the thread. No door leads to it any more. Accepts NULL. */
void terminator_free(struct terminator *terminator);

void terminated_init(struct terminated *terminated, struct terminator *terminator, const struct endpoint *target,
		     enum exposure_proxy proxy);
void terminated_deinit(struct terminated *terminated);
struct terminated_counters terminated_counters(const struct terminated *terminated);
