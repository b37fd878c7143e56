/*
 * Receiver index -> whose it is. Every handshake that waits for a response and every keypair has a
 * random 32-bit number, unique on this device, which the other side puts into its messages.
 *
 * A hash table with linear probing; it grows with the peers (at most four indices each), never
 * when a packet comes.
 */
#pragma once

#include "common/macros.h"

#include <stdbool.h>
#include <stdint.h>

struct wg_peer;
struct wg_keypair;

struct wg_index_entry {
	uint32_t index;
	struct wg_peer *peer;	    /* NULL: free place */
	struct wg_keypair *keypair; /* NULL: the peer's handshake */
};

struct wg_index_table {
	struct wg_index_entry *entries;
	uint32_t mask, n;
};

/* Room for the indices of n_peers. 0 or -ENOMEM (then as before). */
P2P_CHECK int wg_index_table_reserve(struct wg_index_table *table, uint32_t n_peers);
void wg_index_table_deinit(struct wg_index_table *table);
const struct wg_index_entry *wg_index_table_find(const struct wg_index_table *table, uint32_t index);
/* False when the index is taken: try another. */
bool wg_index_table_add(struct wg_index_table *table, const struct wg_index_entry *entry);
void wg_index_table_remove(struct wg_index_table *table, uint32_t index);
