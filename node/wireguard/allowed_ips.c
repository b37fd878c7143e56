#include "node/wireguard/allowed_ips.h"

#include "node/wireguard/device.h"

#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

/* ---- bits ---- */

static unsigned bit_at(const uint8_t *bits, unsigned i)
{
	return bits[i / 8] >> (7 - i % 8) & 1;
}

/* How many leading bits are equal, at most n. */
static unsigned common_len(const uint8_t *a, const uint8_t *b, unsigned n)
{
	unsigned len = 0;

	for (unsigned i = 0; i * 8 < n; i++) {
		uint8_t differing = a[i] ^ b[i];
		if (differing != 0) {
			len = i * 8 + (unsigned)__builtin_clz(differing) - 24;
			return len < n ? len : n;
		}
	}
	return n;
}

/* Bytes in network order as a number, so that a comparison of prefixes is a shift. */
static uint32_t load4(const uint8_t *bytes)
{
	uint32_t word;

	memcpy(&word, bytes, sizeof(word));
	return be32toh(word);
}

static uint64_t load8(const uint8_t *bytes)
{
	uint64_t word;

	memcpy(&word, bytes, sizeof(word));
	return be64toh(word);
}

/* len: 0 to 32. */
static bool equal4(const uint8_t *a, const uint8_t *b, unsigned len)
{
	return (uint64_t)(load4(a) ^ load4(b)) >> (32 - len) == 0;
}

/* len: 0 to 128. */
static bool equal6(const uint8_t *a, const uint8_t *b, unsigned len)
{
	uint64_t high = load8(a) ^ load8(b);

	if (len < 64)
		return high >> 1 >> (63 - len) == 0;
	return high == 0 && (len == 64 || (load8(a + 8) ^ load8(b + 8)) >> (128 - len) == 0);
}

static void mask(uint8_t bits[16], unsigned len)
{
	for (unsigned i = len; i < 128; i = (i / 8 + 1) * 8)
		bits[i / 8] &= (uint8_t)(i % 8 == 0 ? 0 : 0xff00 >> (i % 8));
}

/* ---- the peer's list ---- */

static void list_add(struct wg_allowed_node *node, struct wg_peer *peer)
{
	struct wg_allowed_list *list = wg_peer_allowed_list(peer);

	if (!list->end)
		list->end = &list->first;
	node->list_next = NULL;
	node->list_link = list->end;
	*list->end = node;
	list->end = &node->list_next;
}

static void list_remove(struct wg_allowed_node *node, struct wg_peer *peer)
{
	struct wg_allowed_list *list = wg_peer_allowed_list(peer);

	*node->list_link = node->list_next;
	if (node->list_next)
		node->list_next->list_link = node->list_link;
	else
		list->end = node->list_link;
}

/* A prefix gets its first owner, another one, or none (NULL): for lookups it happens in one store. */
static void set_peer(struct wg_allowed_node *node, struct wg_peer *peer)
{
	struct wg_peer *old = atomic_load(&node->peer);

	if (old == peer)
		return;
	if (old)
		list_remove(node, old);
	if (peer)
		list_add(node, peer);
	atomic_store(&node->peer, peer);
}

/* ---- the trie ---- */

typedef _Atomic(struct wg_allowed_node *) node_link;

static node_link *root_of(struct wg_allowed_ips *ips, bool is_v6)
{
	return is_v6 ? &ips->root6 : &ips->root4;
}

static node_link *link_to(struct wg_allowed_ips *ips, struct wg_allowed_node *node)
{
	if (!node->parent)
		return root_of(ips, node->is_v6);
	return &node->parent->child[atomic_load(&node->parent->child[1]) == node];
}

/* The parent is not published yet. */
static void attach(struct wg_allowed_node *parent, struct wg_allowed_node *child)
{
	atomic_store(&parent->child[bit_at(child->bits, parent->len)], child);
	child->parent = parent;
}

static struct wg_allowed_node *node_new(const uint8_t bits[16], unsigned len, bool is_v6)
{
	struct wg_allowed_node *node = aligned_alloc(_Alignof(struct wg_allowed_node), sizeof(*node));

	if (!node)
		return NULL;
	memset(node, 0, sizeof(*node));
	memcpy(node->bits, bits, sizeof(node->bits));
	mask(node->bits, len);
	node->len = (uint8_t)len;
	node->is_v6 = is_v6;
	return node;
}

/*
 * Puts a node for the prefix at *link; what was there becomes its child or its sibling. Nobody's
 * yet, so lookups go by it.
 */
static struct wg_allowed_node *split(node_link *link, struct wg_allowed_node *parent,
				     const uint8_t bits[16], unsigned len, bool is_v6)
{
	struct wg_allowed_node *below = atomic_load(link), *join = NULL;
	struct wg_allowed_node *node = node_new(bits, len, is_v6);
	unsigned common =
		below ? common_len(below->bits, bits, len < below->len ? len : below->len) : 0;

	if (node && below && common < len) {
		join = node_new(bits, common, is_v6);
		if (!join) {
			free(node);
			return NULL;
		}
		attach(join, below);
		attach(join, node);
	} else if (node && below) {
		attach(node, below);
	}
	if (node) {
		struct wg_allowed_node *top = join ? join : node;
		top->parent = parent;
		atomic_store(link, top);
	}
	return node;
}

/* The node of exactly this prefix, made if make is set; NULL: absent, or out of memory. */
static struct wg_allowed_node *find(struct wg_allowed_ips *ips, const uint8_t bits[16],
				    unsigned len, bool is_v6, bool make)
{
	node_link *link = root_of(ips, is_v6);
	struct wg_allowed_node *parent = NULL, *node;

	while ((node = atomic_load(link)) && node->len <= len && equal6(node->bits, bits, node->len)) {
		if (node->len == len)
			return node;
		parent = node;
		link = &parent->child[bit_at(bits, parent->len)];
	}
	return make ? split(link, parent, bits, len, is_v6) : NULL;
}

static void discard(struct wg_allowed_ips *ips, struct wg_allowed_node *node)
{
	if (ips->readers)
		wg_readers_retire(ips->readers, &node->retired, node, free);
	else
		free(node);
}

/* Takes nodes that neither belong to a peer nor join two children out of the tree. */
static void prune(struct wg_allowed_ips *ips, struct wg_allowed_node *node)
{
	while (node && !atomic_load(&node->peer)) {
		struct wg_allowed_node *parent = node->parent;
		struct wg_allowed_node *left = atomic_load(&node->child[0]);
		struct wg_allowed_node *right = atomic_load(&node->child[1]);
		if (left && right)
			return;
		struct wg_allowed_node *child = left ? left : right;
		if (child)
			child->parent = parent;
		atomic_store(link_to(ips, node), child);
		discard(ips, node);
		node = parent;
	}
}

static int prefix_bits(const struct wg_prefix *prefix, uint8_t ret[16])
{
	bool is_v6 = prefix->family == AF_INET6;

	if ((!is_v6 && prefix->family != AF_INET) || prefix->len > (is_v6 ? 128 : 32))
		return -EINVAL;
	memset(ret, 0, 16);
	memcpy(ret, prefix->ip, is_v6 ? 16 : 4);
	mask(ret, prefix->len);
	return 0;
}

int wg_allowed_ips_insert(struct wg_allowed_ips *ips, const struct wg_prefix *prefix,
			  struct wg_peer *peer)
{
	uint8_t bits[16];

	if (prefix_bits(prefix, bits) != 0)
		return -EINVAL;
	struct wg_allowed_node *node =
		find(ips, bits, prefix->len, prefix->family == AF_INET6, true);
	if (!node)
		return -ENOMEM;
	set_peer(node, peer);
	return 0;
}

void wg_allowed_ips_remove(struct wg_allowed_ips *ips, const struct wg_prefix *prefix,
			   const struct wg_peer *peer)
{
	uint8_t bits[16];

	if (prefix_bits(prefix, bits) != 0)
		return;
	struct wg_allowed_node *node =
		find(ips, bits, prefix->len, prefix->family == AF_INET6, false);
	if (!node || !peer || atomic_load(&node->peer) != peer)
		return;
	set_peer(node, NULL);
	prune(ips, node);
}

void wg_allowed_ips_remove_peer(struct wg_allowed_ips *ips, struct wg_peer *peer)
{
	struct wg_allowed_list *list = wg_peer_allowed_list(peer);

	while (list->first) {
		struct wg_allowed_node *node = list->first;
		set_peer(node, NULL);
		prune(ips, node);
	}
}

/* ---- lookups ---- */

struct wg_peer *wg_allowed_ips_lookup4(const struct wg_allowed_ips *ips, const uint8_t *ip)
{
	const struct wg_allowed_node *node = atomic_load(&ips->root4);
	struct wg_peer *best = NULL, *peer;

	while (node && equal4(node->bits, ip, node->len)) {
		if ((peer = atomic_load(&node->peer)))
			best = peer;
		if (node->len == 32)
			break;
		node = atomic_load(&node->child[bit_at(ip, node->len)]);
	}
	return best;
}

struct wg_peer *wg_allowed_ips_lookup6(const struct wg_allowed_ips *ips, const uint8_t *ip)
{
	const struct wg_allowed_node *node = atomic_load(&ips->root6);
	struct wg_peer *best = NULL, *peer;

	while (node && equal6(node->bits, ip, node->len)) {
		if ((peer = atomic_load(&node->peer)))
			best = peer;
		if (node->len == 128)
			break;
		node = atomic_load(&node->child[bit_at(ip, node->len)]);
	}
	return best;
}
