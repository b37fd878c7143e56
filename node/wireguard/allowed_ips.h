/*
 * Cryptokey routing: which peer owns an address, by the longest prefix.
 *
 * One binary trie per family, path-compressed: a node stands for a prefix and its children for
 * longer ones; a node without a peer only joins two children.
 *
 *            10.0.0.0/8 (a)
 *             ├─ 10.0.0.0/15 (joins)
 *             │    ├─ 10.0.0.0/24 (b)
 *             │    └─ 10.1.0.0/16 (c)
 *             └─ 10.128.0.0/9 (d)
 *
 * One writer (the device) changes it while lanes look up without a lock. Each insertion, move and
 * removal of a prefix becomes visible by one store of one pointer, so that a lookup finds the owner
 * before or after it; a lookup during several changes may see some of them only. What is taken out
 * of the tree is retired: a lane that stands on it can go on.
 */
#pragma once

#include "common/macros.h"
#include "node/wireguard/readers.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct wg_peer;
struct wg_prefix;

struct wg_allowed_node {
	/* what a lookup reads: one cache line */
	_Alignas(64) uint8_t bits[16];
	_Atomic(struct wg_allowed_node *) child[2];
	_Atomic(struct wg_peer *) peer; /* NULL: a join */
	uint8_t len;
	bool is_v6;
	/* the writer's */
	struct wg_allowed_node *parent;
	struct wg_allowed_node *list_next, **list_link; /* among the peer's */
	struct wg_retired retired;
};

struct wg_allowed_ips {
	_Atomic(struct wg_allowed_node *) root4, root6;
	struct wg_readers *readers; /* who may look up meanwhile; NULL: nobody, nodes are freed at once */
};

/* The prefixes of one peer, oldest first. All zero: none. */
struct wg_allowed_list {
	struct wg_allowed_node *first, **end;
};

/* 0, -ENOMEM, -EINVAL. Takes the prefix from whoever had it. */
P2P_CHECK int wg_allowed_ips_insert(struct wg_allowed_ips *ips, const struct wg_prefix *prefix,
				    struct wg_peer *peer);
/* Nothing happens if the prefix is not the peer's. */
void wg_allowed_ips_remove(struct wg_allowed_ips *ips, const struct wg_prefix *prefix,
			   const struct wg_peer *peer);
void wg_allowed_ips_remove_peer(struct wg_allowed_ips *ips, struct wg_peer *peer);
/* ip: 4 or 16 bytes. NULL: nobody's. Any thread within wg_reader_enter() … leave(), and the writer. */
struct wg_peer *wg_allowed_ips_lookup4(const struct wg_allowed_ips *ips, const uint8_t *ip);
struct wg_peer *wg_allowed_ips_lookup6(const struct wg_allowed_ips *ips, const uint8_t *ip);

/* peer.h: where a peer keeps its list. */
struct wg_allowed_list *wg_peer_allowed_list(struct wg_peer *peer);
