/*
 * The sessions of one peer: up to three pairs of keys, each with a direction to send and one to
 * receive.
 *
 *   we began the handshake:            they began it:
 *     current ──► previous               next = new, previous is dropped
 *     (next, if any, ──► previous,         │ first packet that they seal with it
 *      and current is dropped)             ▼
 *     current = new                      current ──► previous, next ──► current
 *
 * The responder must not send with `next` before it knows that its response arrived. All three
 * open packets until they are 180 s old.
 */
#pragma once

#include "common/key.h"
#include "common/replay.h"
#include "node/wireguard/noise.h"
#include "node/wireguard/readers.h"
#include "node/wireguard/timers.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct wg_peer;

/* Numbers from here on are not used: see REPLAY_LIMIT. */
#define WG_REJECT_AFTER_MESSAGES REPLAY_LIMIT

/*
 * A session. What is neither atomic nor marked never changes after it was installed, so lanes read
 * it without a lock; whoever drops a keypair retires it (readers.h).
 */
struct wg_keypair {
	struct wg_peer *peer;
	uint8_t seal_key[KEY_LEN], open_key[KEY_LEN];
	uint32_t local_index, remote_index;
	uint64_t birth_ns;
	bool is_initiator;
	_Atomic bool may_send;
	struct wg_retired retired;
	/* any lane takes from it, a train at a time */
	_Alignas(64) _Atomic uint64_t next_counter;
	/* of the one lane that opens this session */
	_Alignas(64) bool is_confirmed; /* the device knows that packets arrive under it */
	struct replay replay;
};

struct wg_keypairs {
	struct wg_keypair *current, *previous, *next; /* or NULL */
};

/* No longer of the peer: to be taken out of all tables and retired with wg_keypair_free(). */
struct wg_dropped {
	struct wg_keypair *keypairs[3];
	uint32_t n;
};

/* NULL: no memory. */
struct wg_keypair *wg_keypair_new(struct wg_peer *peer, const struct wg_session_keys *keys,
				  bool is_initiator, uint32_t local_index, uint32_t remote_index,
				  uint64_t now_ns);
/* Wipes it. Accepts NULL. */
void wg_keypair_free(void *keypair);

/* Makes room as drawn above and installs a session. */
void wg_keypairs_install(struct wg_keypairs *keypairs, struct wg_keypair *keypair_take,
			 struct wg_dropped *ret_dropped);
/* An authenticated packet came under `next`: it becomes current. */
void wg_keypairs_confirm_next(struct wg_keypairs *keypairs, struct wg_dropped *ret_dropped);
void wg_keypairs_wipe(struct wg_keypairs *keypairs, struct wg_dropped *ret_dropped);
/* Nothing is sent with what is there now; what is under way may still arrive. */
void wg_keypairs_stop_sending(struct wg_keypairs *keypairs);
/* The current keypair if a packet may be sent with it now, else NULL. */
struct wg_keypair *wg_keypairs_usable(const struct wg_keypairs *keypairs, uint64_t now_ns);

/* Any thread: a packet may be sent with it now. */
static inline bool wg_keypair_may_send(const struct wg_keypair *keypair, uint64_t now_ns)
{
	return atomic_load_explicit(&keypair->may_send, memory_order_relaxed) &&
	       wg_is_recent(keypair->birth_ns, WG_REJECT_AFTER_TIME_NS, now_ns);
}
/*
 * Any thread: numbers for n packets, from *ret_first on, that nobody else gets. How many of them are
 * valid: fewer than n when the session is used up; then it sends no more.
 */
uint32_t wg_keypair_take_counters(struct wg_keypair *keypair, uint32_t n, uint64_t *ret_first);
/* Old enough, by time or by count, that a new session should be made while this one works. */
bool wg_keypair_wants_rekey(const struct wg_keypair *keypair, uint64_t now_ns);
