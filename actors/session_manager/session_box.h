/*
 * The box around session messages: who may have sent this, and did they?
 *
 * One object a Session: it holds our session key and, for every peer whose session key the map
 * brought, two keys (one a direction) and a replay window. A datagram costs a table lookup until
 * its key id is known; curve operations happen only in session_box_set_peer(), never because of a
 * packet. docs/PROTOCOL-session.md has every byte.
 *
 * Pure: no I/O, no clock. One thread. sodium_init() must have been called.
 */
#pragma once

#include "actors/session_manager/session_wire.h"
#include "common/key.h"
#include "common/macros.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct session_box;

struct session_counters {
	uint64_t sealed, opened;
	uint64_t dropped[SESSION_N_ERRORS]; /* by enum session_error */
};

/* The first eight bytes of BLAKE2b-256 of the key. */
void session_key_id(const struct public_key *session_key, uint8_t ret[SESSION_KEY_ID_LEN]);

/* Copies our session key and wipes the copy when freed. Never NULL (out of memory ends the program). */
struct session_box *session_box_new(const struct secret_key *ours);
struct session_box *session_box_free(struct session_box *box); /* takes NULL, returns NULL */

/*
 * The map says this peer's session key. The same key again changes nothing (the replay window
 * stays); another key replaces it: messages of the old one are dropped from now on.
 * 0; -EINVAL: zero, of low order, or our own key; -EEXIST: its key id is another peer's. After a
 * failure all is as before: whoever brings the key of another takes none away.
 */
P2P_CHECK int session_box_set_peer(struct session_box *box, uint32_t peer_id,
				   const struct public_key *session_key);
void session_box_remove_peer(struct session_box *box, uint32_t peer_id);
bool session_box_has_peer(const struct session_box *box, uint32_t peer_id);

/* What was opened. */
struct session_opened {
	uint32_t peer_id; /* whose key sealed it: from here on this is a fact */
	struct session_message message;
};

/* Header check, key id, box, replay window, decode: 0 or enum session_error (also counted). */
P2P_CHECK int session_box_open(struct session_box *box, const void *datagram, size_t len,
			       struct session_opened *ret);
/* Bytes written to buf (SESSION_MAX_LEN suffices, for probes SESSION_MAX_PROBE_LEN), or 0: the peer has no key, or no room. */
size_t session_box_seal(struct session_box *box, uint32_t peer_id,
			const struct session_message *message, void *buf, size_t cap);

const struct session_counters *session_box_counters(const struct session_box *box);
