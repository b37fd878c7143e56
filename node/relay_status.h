/*
 * What a public node tells of its relay: the answer to "relay.status", also read by p2pctl.
 *
 * A plain record, filled by the engine; the clients are on the heap, relay_status_deinit() frees them. The
 * same struct is read back from JSON, so both ends agree by construction. Pure.
 *
 * JSON, every member always there, and no other:
 *   { "tls_port", "stun_port", "uptime_ms", "cpu_ms", "handshakes", "draining", "drain_left_ms",
 *     "tls_clients", "udp_clients", "queue_mean_us", "queue_longest_ms",
 *     "totals": {"accepted", "admitted", "packets_in", "bytes_in", "packets_out", "bytes_out"},
 *     "drops": {cause: count}, "refused": {cause: count}, "closed": {cause: count}, "stun": {what: count},
 *     "clients": [{"name", "node_key", "transport", "remote", "connected_ms", "packets_in", "bytes_in",
 *                  "packets_out", "bytes_out", "dropped"}] }
 * Counts are decimal strings (64 bits) and only grow while the relay runs; one of 0 is told, too, so that
 * whoever collects them knows them all from the first time. What each cause means is in p2pnode(8).
 */
#pragma once

#include "common/endpoint.h"
#include "common/error.h"
#include "common/json.h"
#include "common/key.h"

#include <stdbool.h>
#include <stdint.h>

#define RELAY_STATUS_MAX_COUNTS 16
#define RELAY_STATUS_CAUSE	32
#define RELAY_STATUS_NAME	64

struct relay_status_count {
	char name[RELAY_STATUS_CAUSE];
	uint64_t n;
};

struct relay_status_counts {
	uint32_t n;
	struct relay_status_count items[RELAY_STATUS_MAX_COUNTS];
};

struct relay_status_client {
	char name[RELAY_STATUS_NAME];
	struct public_key node_key;
	char transport[8]; /* "tls", "udp" */
	struct endpoint remote;
	uint64_t connected_ms;	       /* for how long */
	uint64_t packets_in, bytes_in; /* that it gave us to forward; bytes of sealed packets */
	uint64_t packets_out, bytes_out; /* that it got; bytes with their headers */
	uint64_t dropped;	       /* for it, because it was too slow */
};

struct relay_status_totals {
	uint64_t accepted, admitted; /* connections, and those that became clients */
	uint64_t packets_in, bytes_in, packets_out, bytes_out;
};

struct relay_status {
	uint16_t tls_port, stun_port;
	uint64_t uptime_ms, cpu_ms; /* of the whole process */
	uint32_t handshakes;	    /* connections now that are not clients yet */
	bool draining;		    /* takes no clients, and sends away those it has … */
	uint64_t drain_left_ms;	    /* … within this; 0: that has passed */
	struct relay_status_totals totals;
	struct relay_status_counts drops;   /* packets */
	struct relay_status_counts refused; /* connections that came to nothing */
	struct relay_status_counts closed;  /* clients that left not by themselves */
	struct relay_status_counts stun;
	uint32_t tls_clients, udp_clients; /* now; listed are all or, of many, the busiest */
	/* How long packets waited for receivers over TLS: on average, always; at most, in the last 10 to 20 s. */
	uint64_t queue_mean_us, queue_longest_ms;
	uint32_t n_clients;
	struct relay_status_client *clients;
};

/* Everything empty. */
void relay_status_init(struct relay_status *status);
void relay_status_deinit(struct relay_status *status);
/* A new, empty entry at the end; valid until the next call. Out of memory aborts. */
struct relay_status_client *relay_status_add_client(struct relay_status *status);
/* Does nothing when the list is full. */
void relay_status_add_count(struct relay_status_counts *counts, const char *name, uint64_t n);

struct json *relay_status_to_json(const struct relay_status *status);
/* 0 or -EINVAL with the member in reterr. */
P2P_CHECK int relay_status_from_json(const struct json *json, struct relay_status *ret, struct error *reterr);
