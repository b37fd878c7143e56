/*
 * Receiver index -> keypair, for the lanes: which session a datagram belongs to.
 *
 * One writer (the device) adds and removes; any number of lanes look up meanwhile without a lock. A
 * keypair that was removed may still be found by a lane whose burst began before: it is to be
 * retired with the same readers, not freed.
 *
 * A hash table with linear probing, a tombstone where something was removed; when it grows full
 * of either it is built anew and the old one retired. A place, once taken, stays with its index, so
 * that a reader never sees the index of one session with the keypair of another.
 */
#pragma once

#include "common/macros.h"
#include "node/wireguard/readers.h"

#include <stdatomic.h>
#include <stdint.h>

struct wg_keypair;
struct wg_session_slots;

struct wg_session_table {
	_Atomic(struct wg_session_slots *) slots;
	uint32_t n;	 /* sessions */
	uint32_t n_used; /* places taken, tombstones too */
};

/* 0 or -ENOMEM. */
P2P_CHECK int wg_session_table_init(struct wg_session_table *table);
/* No reader is left. The keypairs are the caller's. */
void wg_session_table_deinit(struct wg_session_table *table);
/*
 * 0 or -ENOMEM (then as before). The index must not be in the table. readers: who retires the old
 * places; NULL when nobody reads meanwhile.
 */
P2P_CHECK int wg_session_table_add(struct wg_session_table *table, struct wg_readers *readers,
				   uint32_t index, struct wg_keypair *keypair);
/* Nothing happens if the index is not there. */
void wg_session_table_remove(struct wg_session_table *table, uint32_t index);
/* Any thread within wg_reader_enter() … leave(), and the writer. NULL: no such session. */
struct wg_keypair *wg_session_table_find(const struct wg_session_table *table, uint32_t index);
