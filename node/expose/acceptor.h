/*
 * Where visitors of what this node publishes come in: at its overlay address, from front doors, each with a header that
 * says who it is and what for.
 *
 *   front doors ══ overlay ══► acceptor: a front_door with takes_header ──► gate of the exposure ──► its target
 *      ▲ of the map              ▲ own thread                                  │ counters, up or down
 *      │                         │ routes                                      ▼
 *   set_doors ──────────────► [ loop: the exposures, a gate for each ] ──► acceptor_get()
 *                                │
 *                                └─ every 10 s each target that is not known to be up is connected to, and closed; each
 *                                   that is, every 60 s
 *
 * It is open while there are exposures and for as long as it was so. Its port is always the same for a node key, if no
 * other program has it; else some other.
 *
 * Where TLS is to end here the gate leads to the terminator (terminator.h), and from there on to the target.
 *
 * An exposure that stays as it is keeps its gate, and so its counters, whatever else changes.
 *
 * All functions: the loop's thread only.
 */
#pragma once

#include "common/endpoint.h"
#include "common/key.h"
#include "node/acme/acme.h"
#include "node/expose/site_files.h"
#include "node/expose/terminator.h"
#include "node/exposure.h"
#include "relay/frontdoor/door_gate.h"
#include "relay/frontdoor/front_door.h"

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct acceptor;

struct acceptor_options {
	uv_loop_t *loop;
	struct endpoint address;       /* in the overlay; port 0 */
	const struct public_key *node_key; /* chooses the port; not kept */
	const struct acme *acme;       /* has the certificates of tls=acme; borrowed as long as it lives; may be NULL */
	uint32_t check_ms;	       /* how often targets are tried that are not up; 0: 10 s */
	/* acceptor_port() says something else now; may be NULL. */
	void (*port_changed)(void *owner);
	void *owner;
};

struct acceptor *acceptor_new(const struct acceptor_options *options);
/* Resets all visitors, frees itself, then calls cb (may be NULL). */
void acceptor_close(struct acceptor *acceptor, void (*cb)(void *owner), void *owner);

/* All of them, copied; at most EXPOSURE_MAX, of which no two overlap. For who comes from now on. */
void acceptor_set_exposures(struct acceptor *acceptor, const struct exposure *exposures, uint32_t n);
/* The overlay addresses of those that may bring visitors, copied. */
void acceptor_set_doors(struct acceptor *acceptor, const struct endpoint *doors, uint32_t n);

/* Where it is open; 0: it is not. */
uint16_t acceptor_port(const struct acceptor *acceptor);
/* Why it could not be opened when that was tried last, "" else. It is tried again with the targets. */
const char *acceptor_failure(const struct acceptor *acceptor);
/* The same of where TLS ends, if it is to end here. */
const char *acceptor_tls_failure(const struct acceptor *acceptor, uint32_t i);
uint32_t acceptor_count(const struct acceptor *acceptor);
/* i < acceptor_count(): in the order in which they were set. The exposure is borrowed until they are set again. */
const struct exposure *acceptor_get(const struct acceptor *acceptor, uint32_t i, struct door_gate_counters *ret);
/* The ACME client has something else to show. */
void acceptor_look_at_acme(struct acceptor *acceptor);
/* Where TLS ends here. */
struct acceptor_tls {
	struct terminated_counters counters;
	bool has_certificate;	     /* it is shown to visitors */
	struct tls_site_dates dates; /* of that */
	const char *failure;	     /* of the files as they are now; "": none. Borrowed until the loop turns */
};

/* False: it does not. */
bool acceptor_get_tls(const struct acceptor *acceptor, uint32_t i, struct acceptor_tls *ret);
/* Of all visitors; all zero while it is not open. */
struct front_door_counters acceptor_counters(const struct acceptor *acceptor);
