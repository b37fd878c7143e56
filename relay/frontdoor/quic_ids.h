/*
 * Whose connection is it? By the connection IDs that targets have chosen for themselves, as far as they are seen.
 *
 *   from the target, in the open (long header): source ID ──► known, while its connection is
 *   from a visitor:  long header ─► destination ID, whole ─────────────────┐
 *                    short header ─► its first bytes, by each length known ─┴─► connection, or nobody's
 *
 * A connection keeps the first four IDs. IDs that are handed out later, inside of encrypted packets, nobody on the way
 * can see. An ID that is another connection's already stays that one's.
 *
 * Nothing is allocated here but the buckets. Seeded. One thread. Pure.
 */
#pragma once

#include "common/endpoint.h"
#include "common/macros.h"
#include "relay/frontdoor/host_name.h"
#include "relay/frontdoor/link.h"
#include "relay/frontdoor/quic_initial_wire.h"

#include <stddef.h>
#include <stdint.h>

#define QUIC_KNOWN_IDS 4
#define QUIC_MIN_KNOWN 4 /* bytes of an ID by which a connection is found from elsewhere: shorter ones are guessed */
#define QUIC_MIN_CERTAIN 8 /* by which even who may be meaning another, whose path is there, is believed to mean this one */

struct quic_id {
	uint8_t len, bytes[QUIC_MAX_CID];
};

struct quic_connection;
struct quic_flow;

struct quic_known_id {
	struct quic_id id;
	bool is_listed; /* in the table */
	bool is_proof;	/* who names it has heard the target: long enough, and not what the visitor itself began with */
	struct quic_connection *connection;
	struct quic_known_id *next;
};

struct quic_connection {
	struct endpoint target;
	struct host_name host; /* the owner's: for whom the target gets it */
	bool has_header;       /* the owner's: in front of each datagram to the target is one */
	struct quic_id first; /* the destination ID that the visitor began with */
	uint32_t n_flows;
	struct link flows;
	struct quic_flow *proven; /* the one path that is; NULL: none */
	uint8_t n_ids;
	struct quic_known_id ids[QUIC_KNOWN_IDS];
};

struct quic_ids {
	uint32_t n_buckets; /* a power of two */
	struct quic_known_id **buckets;
	uint32_t n_of_len[QUIC_MAX_CID + 1];
	uint8_t seed[16];
};

/* Zero or more bytes, cut to QUIC_MAX_CID. */
struct quic_id quic_id_from(const struct quic_cid *cid);
bool quic_id_equal(const struct quic_id *a, const struct quic_id *b);

/* n_buckets: rounded up to a power of two. sodium_init() must have been called. */
void quic_ids_init(struct quic_ids *ids, uint32_t n_buckets);
void quic_ids_free(struct quic_ids *ids);
/* What the target calls itself; of those that are known already, and of more than QUIC_KNOWN_IDS, nothing becomes. */
void quic_ids_learn(struct quic_ids *ids, struct quic_connection *connection, const struct quic_id *id);
/* All of the connection's. */
void quic_ids_forget(struct quic_ids *ids, struct quic_connection *connection);
/* NULL: nobody's. */
struct quic_connection *quic_ids_find(const struct quic_ids *ids, const struct quic_id *id);
/* Of a short header: what follows its first byte; by IDs of `least` bytes or more. */
struct quic_connection *quic_ids_find_prefix(const struct quic_ids *ids, const uint8_t *bytes, size_t len, size_t least);
/* The ID that the target has chosen which is this, whole or as far as it is long; NULL: none. Nothing begins with one of no bytes. */
const struct quic_known_id *quic_connection_find(const struct quic_connection *connection, const struct quic_id *id);
const struct quic_known_id *quic_connection_find_prefix(const struct quic_connection *connection, const uint8_t *bytes,
							 size_t len);
/* Has the target named any that is a proof? Some take the visitor's own, or none: then nobody can show that he heard it. */
bool quic_connection_can_be_proven(const struct quic_connection *connection);
