#include "node/wireguard/allowed_ips.h"

#include "node/wireguard/device.h"

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

static bool matches(const struct wg_allowed_node *node, const uint8_t *ip)
{
	return common_len(node->bits, ip, node->len) == node->len;
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
	node->peer = peer;
	node->list_next = NULL;
	node->list_link = list->end;
	*list->end = node;
	list->end = &node->list_next;
}

static void list_remove(struct wg_allowed_node *node)
{
	struct wg_allowed_list *list = wg_peer_allowed_list(node->peer);

	*node->list_link = node->list_next;
	if (node->list_next)
		node->list_next->list_link = node->list_link;
	else
		list->end = node->list_link;
	node->peer = NULL;
}

/* ---- the trie ---- */

static struct wg_allowed_node **root_of(struct wg_allowed_ips *ips, bool is_v6)
{
	return is_v6 ? &ips->root6 : &ips->root4;
}

static struct wg_allowed_node **link_to(struct wg_allowed_ips *ips, struct wg_allowed_node *node)
{
	if (!node->parent)
		return root_of(ips, node->is_v6);
	return &node->parent->child[node->parent->child[1] == node];
}

static void attach(struct wg_allowed_node *parent, struct wg_allowed_node *child)
{
	parent->child[bit_at(child->bits, parent->len)] = child;
	child->parent = parent;
}

static struct wg_allowed_node *node_new(const uint8_t bits[16], unsigned len, bool is_v6)
{
	struct wg_allowed_node *node = calloc(1, sizeof(*node));

	if (!node)
		return NULL;
	memcpy(node->bits, bits, sizeof(node->bits));
	mask(node->bits, len);
	node->len = (uint8_t)len;
	node->is_v6 = is_v6;
	return node;
}

/* Puts a node for the prefix at *link; what was there becomes its child or its sibling. */
static struct wg_allowed_node *split(struct wg_allowed_node **link, struct wg_allowed_node *parent,
				     const uint8_t bits[16], unsigned len, bool is_v6)
{
	struct wg_allowed_node *below = *link, *join = NULL;
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
		*link = join ? join : node;
		(*link)->parent = parent;
	}
	return node;
}

/* The node of exactly this prefix, made if make is set; NULL: absent, or out of memory. */
static struct wg_allowed_node *find(struct wg_allowed_ips *ips, const uint8_t bits[16],
				    unsigned len, bool is_v6, bool make)
{
	struct wg_allowed_node **link = root_of(ips, is_v6), *parent = NULL;

	while (*link && (*link)->len <= len && matches(*link, bits)) {
		if ((*link)->len == len)
			return *link;
		parent = *link;
		link = &parent->child[bit_at(bits, parent->len)];
	}
	return make ? split(link, parent, bits, len, is_v6) : NULL;
}

/* Takes nodes that neither belong to a peer nor join two children out of the tree. */
static void prune(struct wg_allowed_ips *ips, struct wg_allowed_node *node)
{
	while (node && !node->peer && !(node->child[0] && node->child[1])) {
		struct wg_allowed_node *parent = node->parent;
		struct wg_allowed_node *child = node->child[0] ? node->child[0] : node->child[1];

		*link_to(ips, node) = child;
		if (child)
			child->parent = parent;
		free(node);
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
	if (node->peer == peer)
		return 0;
	if (node->peer)
		list_remove(node);
	list_add(node, peer);
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
	if (!node || !node->peer || node->peer != peer)
		return;
	list_remove(node);
	prune(ips, node);
}

void wg_allowed_ips_remove_peer(struct wg_allowed_ips *ips, struct wg_peer *peer)
{
	struct wg_allowed_list *list = wg_peer_allowed_list(peer);

	while (list->first) {
		struct wg_allowed_node *node = list->first;
		list_remove(node);
		prune(ips, node);
	}
}

static struct wg_peer *lookup(const struct wg_allowed_node *node, const uint8_t *ip,
			      unsigned n_bits)
{
	struct wg_peer *best = NULL;

	while (node && matches(node, ip)) {
		if (node->peer)
			best = node->peer;
		if (node->len == n_bits)
			break;
		node = node->child[bit_at(ip, node->len)];
	}
	return best;
}

struct wg_peer *wg_allowed_ips_lookup4(const struct wg_allowed_ips *ips, const uint8_t *ip)
{
	return lookup(ips->root4, ip, 32);
}

struct wg_peer *wg_allowed_ips_lookup6(const struct wg_allowed_ips *ips, const uint8_t *ip)
{
	return lookup(ips->root6, ip, 128);
}
