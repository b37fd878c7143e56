/*
 * Cryptokey routing through the device's interface: the longest prefix wins, a prefix has one
 * owner; and the trie against a naive list, with random inserts, moves and removals.
 */
#include "common/endpoint.h"
#include "node/wireguard/allowed_ips.h"
#include "node/wireguard/device.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N_PEERS 6

struct world {
	struct wg_device *device;
	struct wg_peer *peers[N_PEERS];
};

static void begin(struct world *w)
{
	const struct wg_config config = { 0 };

	memset(w, 0, sizeof(*w));
	assert(wg_device_new(&config, &w->device) == 0);
	for (uint8_t i = 0; i < N_PEERS; i++) {
		const struct public_key key = { { [0] = 9, [1] = i } };
		assert(wg_device_add_peer(w->device, &key, &w->peers[i]) == 0);
	}
}

static struct wg_prefix prefix(const char *text)
{
	struct wg_prefix ret = { 0 };
	char ip[64];
	unsigned len;

	int n = sscanf(text, "%63[^/]/%u", ip, &len);
	assert(n == 2);
	ret.family = strchr(ip, ':') ? AF_INET6 : AF_INET;
	ret.len = (uint8_t)len;
	n = inet_pton(ret.family, ip, ret.ip);
	assert(n == 1);
	return ret;
}

static void allow(struct world *w, unsigned peer, const char *text)
{
	struct wg_prefix p = prefix(text);
	int r = wg_peer_allow(w->peers[peer], &p);

	assert(r == 0);
}

static void disallow(struct world *w, unsigned peer, const char *text)
{
	struct wg_prefix p = prefix(text);

	wg_peer_disallow(w->peers[peer], &p);
}

/* The number of the owner, -1: nobody. */
static int owner(struct world *w, const char *ip)
{
	uint8_t bytes[16];
	uint16_t family = strchr(ip, ':') ? AF_INET6 : AF_INET;
	int n = inet_pton(family, ip, bytes);

	assert(n == 1);
	struct wg_peer *peer = wg_device_lookup(w->device, family, bytes);
	for (int i = 0; i < N_PEERS; i++)
		if (peer && w->peers[i] == peer)
			return i;
	assert(!peer);
	return -1;
}

/* All prefixes of a peer as text, in order. */
static const char *listed(struct world *w, unsigned peer)
{
	static char text[1024];
	struct wg_prefix_cursor cursor = { 0 };
	struct wg_prefix p;
	char ip[64];

	text[0] = '\0';
	while (wg_peer_next_prefix(w->peers[peer], &cursor, &p)) {
		inet_ntop(p.family, p.ip, ip, sizeof(ip));
		snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s/%u ", ip, p.len);
	}
	return text;
}

static void test_the_longest_prefix_wins(void)
{
	struct world w;
	begin(&w);

	allow(&w, 0, "0.0.0.0/0");
	allow(&w, 1, "10.0.0.0/8");
	allow(&w, 2, "10.1.0.0/16");
	allow(&w, 3, "10.1.2.3/32");
	assert(owner(&w, "9.0.0.0") == 0);
	assert(owner(&w, "10.2.0.0") == 1);
	assert(owner(&w, "10.1.2.4") == 2);
	assert(owner(&w, "10.1.2.3") == 3);
	assert(owner(&w, "::1") == -1);
	wg_device_free(w.device);
}

static void test_both_families_are_apart(void)
{
	struct world w;
	begin(&w);

	allow(&w, 0, "::/0");
	allow(&w, 1, "fd00::/64");
	allow(&w, 2, "fd00::8000:0:0:0/65");
	assert(owner(&w, "fd00::1") == 1);
	assert(owner(&w, "fd00::8000:0:0:1") == 2);
	assert(owner(&w, "fe80::1") == 0);
	assert(owner(&w, "0.0.0.0") == -1);
	wg_device_free(w.device);
}

static void test_a_prefix_moves_to_who_asks_last(void)
{
	struct world w;
	begin(&w);

	allow(&w, 0, "10.0.0.0/24");
	allow(&w, 0, "10.0.1.0/24");
	allow(&w, 1, "10.0.0.77/24"); /* the same: host bits do not count */
	assert(owner(&w, "10.0.0.1") == 1);
	assert(strcmp(listed(&w, 0), "10.0.1.0/24 ") == 0);
	assert(strcmp(listed(&w, 1), "10.0.0.0/24 ") == 0);
	wg_device_free(w.device);
}

static void test_only_the_owner_can_take_a_prefix_away(void)
{
	struct world w;
	begin(&w);

	allow(&w, 0, "10.0.0.0/24");
	disallow(&w, 1, "10.0.0.0/24");
	disallow(&w, 0, "10.0.0.0/25");
	disallow(&w, 0, "10.0.0.0/23");
	assert(owner(&w, "10.0.0.1") == 0);
	disallow(&w, 0, "10.0.0.0/24");
	assert(owner(&w, "10.0.0.1") == -1);
	assert(strcmp(listed(&w, 0), "") == 0);
	wg_device_free(w.device);
}

static void test_a_removed_peer_owns_nothing(void)
{
	struct world w;
	begin(&w);

	allow(&w, 0, "10.0.0.0/8");
	allow(&w, 1, "10.1.0.0/16");
	allow(&w, 1, "fd00::/8");
	wg_device_remove_peer(w.device, w.peers[1]);
	w.peers[1] = NULL;
	assert(owner(&w, "10.1.0.1") == 0);
	assert(owner(&w, "fd00::1") == -1);
	wg_device_free(w.device);
}

static void test_wrong_families_and_lengths_are_refused(void)
{
	struct world w;
	begin(&w);

	assert(wg_peer_allow(w.peers[0], &(struct wg_prefix){ .family = AF_INET, .len = 33 }) == -EINVAL);
	assert(wg_peer_allow(w.peers[0], &(struct wg_prefix){ .family = AF_INET6, .len = 129 }) == -EINVAL);
	assert(wg_peer_allow(w.peers[0], &(struct wg_prefix){ .family = AF_UNIX, .len = 0 }) == -EINVAL);
	wg_device_free(w.device);
}

/* ---- against a list ---- */

#define NAIVE_MAX 4000

static struct {
	struct wg_prefix prefix;
	int peer;
} naive[NAIVE_MAX];
static unsigned n_naive;

static bool covers(const struct wg_prefix *p, uint16_t family, const uint8_t *ip)
{
	if (p->family != family)
		return false;
	for (unsigned i = 0; i < p->len; i++)
		if ((p->ip[i / 8] ^ ip[i / 8]) >> (7 - i % 8) & 1)
			return false;
	return true;
}

static unsigned naive_find(const struct wg_prefix *p)
{
	unsigned i = 0;

	while (i < n_naive && !(naive[i].prefix.len == p->len && covers(&naive[i].prefix, p->family, p->ip)))
		i++;
	return i;
}

static int naive_owner(uint16_t family, const uint8_t *ip)
{
	int best = -1, len = -1;

	for (unsigned i = 0; i < n_naive; i++) {
		if (covers(&naive[i].prefix, family, ip) && naive[i].prefix.len > len) {
			len = naive[i].prefix.len;
			best = naive[i].peer;
		}
	}
	return best;
}

/* Addresses close to each other, so that prefixes nest and collide. */
static struct wg_prefix random_prefix(void)
{
	struct wg_prefix p = { .family = rand() % 2 ? AF_INET : AF_INET6 };

	for (unsigned i = 0; i < (p.family == AF_INET ? 4u : 16u); i++)
		p.ip[i] = (uint8_t)(rand() % 4 == 0 ? rand() : (rand() % 2) * 0x80);
	p.len = (uint8_t)(rand() % (p.family == AF_INET ? 33 : 129));
	return p;
}

static void random_step(struct world *w)
{
	struct wg_prefix p = random_prefix();
	int peer = rand() % N_PEERS;
	unsigned at = naive_find(&p);

	if (rand() % 3 != 0 && n_naive < NAIVE_MAX) {
		assert(wg_peer_allow(w->peers[peer], &p) == 0);
		naive[at].prefix = p;
		naive[at].peer = peer;
		n_naive += at == n_naive;
		return;
	}
	if (n_naive > 0 && rand() % 2) {
		at = (unsigned)rand() % n_naive;
		p = naive[at].prefix;
	}
	wg_peer_disallow(w->peers[peer], &p);
	if (at < n_naive && naive[at].peer == peer)
		naive[at] = naive[--n_naive];
}

static void check_lists(struct world *w)
{
	unsigned n = 0;

	for (int peer = 0; peer < N_PEERS; peer++) {
		struct wg_prefix_cursor cursor = { 0 };
		struct wg_prefix p;
		for (; wg_peer_next_prefix(w->peers[peer], &cursor, &p); n++) {
			unsigned at = naive_find(&p);
			assert(at < n_naive && naive[at].peer == peer);
		}
	}
	assert(n == n_naive);
}

static void test_random_changes_leave_what_a_naive_list_says(void)
{
	struct world w;
	begin(&w);
	srand(3);

	for (int i = 0; i < 6000; i++) {
		random_step(&w);
		struct wg_prefix p = random_prefix();
		struct wg_peer *found = wg_device_lookup(w.device, p.family, p.ip);
		int expected = naive_owner(p.family, p.ip);
		assert(found == (expected < 0 ? NULL : w.peers[expected]));
		if (i % 500 == 0)
			check_lists(&w);
	}
	for (int peer = 0; peer < N_PEERS; peer++)
		wg_peer_disallow_all(w.peers[peer]);
	n_naive = 0;
	check_lists(&w);
	wg_device_free(w.device);
}

int main(void)
{
	if (sodium_init() < 0)
		return 1;
	test_the_longest_prefix_wins();
	test_both_families_are_apart();
	test_a_prefix_moves_to_who_asks_last();
	test_only_the_owner_can_take_a_prefix_away();
	test_a_removed_peer_owns_nothing();
	test_wrong_families_and_lengths_are_refused();
	test_random_changes_leave_what_a_naive_list_says();
	puts("ok");
}
