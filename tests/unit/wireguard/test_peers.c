/* The peers of a device as its owner sees them: many, in order, found by key, removed at any time. */
#include "node/wireguard/device_internal.h"

#include <assert.h>
#include <netinet/in.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N_PEERS 3000

static struct wg_device *device;
static struct wg_peer *peers[N_PEERS]; /* NULL: removed */
static const struct wg_time now = { .ns = UINT64_C(1000000000000), .real_ns = UINT64_C(1800000000000000000) };
static uint32_t n_initiations;

static void on_transmit(void *owner, struct wg_peer *peer, const struct wg_path *path,
			const struct train *train)
{
	assert(train->n == 1 && train->size == WG_INITIATION_LEN && train->ds == WG_DS_HANDSHAKE);
	assert(path->remote.port == wg_peer_id(peer) + 1);
	n_initiations++;
}

static struct public_key key_of(uint32_t i)
{
	struct public_key key = { { [0] = 9, [30] = 1 } };

	memcpy(key.bytes + 1, &i, sizeof(i));
	return key;
}

static void add(uint32_t i)
{
	const struct public_key key = key_of(i);
	const struct wg_prefix prefix = { .family = AF_INET, .len = 32,
					  .ip = { 10, 0, (uint8_t)(i >> 8), (uint8_t)i } };

	assert(wg_device_add_peer(device, &key, &peers[i]) == 0);
	wg_peer_set_user(peers[i], i, &peers[i]);
	assert(wg_peer_allow(peers[i], &prefix) == 0);
}

static void begin(void)
{
	const struct wg_config config = { .ports = { .transmit = on_transmit } };
	struct secret_key secret;

	assert(wg_device_new(&config, &device) == 0);
	secret_key_generate(&secret);
	wg_device_set_private_key(device, &secret);
	for (uint32_t i = 0; i < N_PEERS; i++)
		add(i);
}

static void check_all(void)
{
	uint32_t n = 0;

	for (struct wg_peer *peer = wg_device_first_peer(device); peer; peer = wg_peer_next(peer), n++)
		assert(wg_peer_user(peer) == &peers[wg_peer_id(peer)] && peers[wg_peer_id(peer)] == peer);
	for (uint32_t i = 0; i < N_PEERS; i++) {
		const struct public_key key = key_of(i);
		const uint8_t ip[4] = { 10, 0, (uint8_t)(i >> 8), (uint8_t)i };
		assert(wg_device_find_peer(device, &key) == peers[i]);
		assert(wg_device_lookup(device, AF_INET, ip) == peers[i]);
		n -= peers[i] != NULL;
	}
	assert(n == 0);
}

static void test_three_thousand_peers_are_found_and_removed_in_any_order(void)
{
	begin();
	check_all();
	srand(8);
	for (int i = 0; i < 2000; i++) {
		uint32_t k = (uint32_t)rand() % N_PEERS;
		if (peers[k])
			wg_device_remove_peer(device, peers[k]);
		peers[k] = NULL;
	}
	check_all();
	for (uint32_t i = 0; i < N_PEERS; i++)
		if (!peers[i])
			add(i);
	check_all();
	wg_device_free(device);
}

static void test_peers_are_walked_in_the_order_they_were_added(void)
{
	uint32_t i = 0;

	begin();
	for (struct wg_peer *peer = wg_device_first_peer(device); peer; peer = wg_peer_next(peer))
		assert(peer == peers[i++]);
	wg_device_free(device);
}

/* All have a timer; each deadline is told in order, and none is forgotten. */
static void test_the_timers_of_all_peers_are_served(void)
{
	struct wg_time t = now;

	begin();
	n_initiations = 0;
	for (uint32_t i = 0; i < N_PEERS; i++) {
		const struct wg_route route = { .n = 1, .paths = { { .remote.port = (uint16_t)(i + 1) } } };
		wg_peer_set_route(peers[i], &route, now);
		wg_peer_connect(peers[i], now);
	}
	assert(n_initiations == N_PEERS && device->indices.n == N_PEERS);
	for (uint64_t next; (next = wg_device_next_deadline(device)) < now.ns + 6 * WG_SECOND_NS;) {
		assert(next >= t.ns);
		t.ns = next;
		wg_device_tick(device, t);
	}
	assert(n_initiations == 2 * N_PEERS && device->indices.n == N_PEERS);
	wg_device_free(device);
}

static void test_settings_are_what_was_set(void)
{
	const uint8_t psk[KEY_LEN] = { 1, 2, 3 };
	uint8_t again[KEY_LEN];
	struct secret_key secret;

	begin();
	wg_peer_set_psk(peers[5], psk);
	wg_peer_get_psk(peers[5], again);
	assert(memcmp(psk, again, KEY_LEN) == 0);
	wg_peer_set_keepalive(peers[5], 25, now);
	assert(wg_peer_keepalive(peers[5]) == 25);
	wg_device_get_private_key(device, &secret);
	struct public_key public;
	secret_key_public(&secret, &public);
	assert(public_key_equal(&public, wg_device_public_key(device)));
	for (enum wg_drop drop = 0; drop < WG_N_DROPS; drop++)
		assert(wg_drop_name(drop) && wg_device_drops(device, drop) == 0);
	wg_device_free(device);
	wg_device_free(NULL);
}

int main(void)
{
	if (sodium_init() < 0)
		return 1;
	test_three_thousand_peers_are_found_and_removed_in_any_order();
	test_peers_are_walked_in_the_order_they_were_added();
	test_the_timers_of_all_peers_are_served();
	test_settings_are_what_was_set();
	puts("ok");
}
