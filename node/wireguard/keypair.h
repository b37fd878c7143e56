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

#include <stdbool.h>
#include <stdint.h>

/* Numbers from here on are not used: see REPLAY_LIMIT. */
#define WG_REJECT_AFTER_MESSAGES REPLAY_LIMIT

struct wg_keypair {
	uint8_t seal_key[KEY_LEN], open_key[KEY_LEN];
	uint64_t next_counter;
	struct replay replay;
	uint32_t local_index, remote_index;
	uint64_t birth_ns;
	bool is_used; /* else the slot is free */
	bool is_initiator;
	bool may_send;
};

struct wg_keypairs {
	struct wg_keypair slots[3];
	struct wg_keypair *current, *previous, *next; /* into slots, or NULL */
};

/* What becomes of the index of a keypair that is dropped. */
struct wg_dropped {
	uint32_t indices[3];
	uint32_t n;
};

/*
 * Makes room as drawn above and installs a session; its index is local_index. The dropped keypairs
 * are wiped.
 */
struct wg_keypair *wg_keypairs_install(struct wg_keypairs *keypairs,
				       const struct wg_session_keys *keys, bool is_initiator,
				       uint32_t local_index, uint32_t remote_index, uint64_t now_ns,
				       struct wg_dropped *ret_dropped);
/* An authenticated packet came under `next`: it becomes current. */
void wg_keypairs_confirm_next(struct wg_keypairs *keypairs, struct wg_dropped *ret_dropped);
void wg_keypairs_wipe(struct wg_keypairs *keypairs, struct wg_dropped *ret_dropped);
/* Nothing is sent with what is there now; what is under way may still arrive. */
void wg_keypairs_stop_sending(struct wg_keypairs *keypairs);
/* The current keypair if a packet may be sent with it now, else NULL. */
struct wg_keypair *wg_keypairs_usable(const struct wg_keypairs *keypairs, uint64_t now_ns);
/* Old enough, by time or by count, that a new session should be made while this one works. */
bool wg_keypair_wants_rekey(const struct wg_keypair *keypair, uint64_t now_ns);
