/* What is found on a link is laid over control's map, and gives way to what control says. */
#include "node/lan_found.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void expect(bool holds, const char *what, int line)
{
	if (holds)
		return;
	fprintf(stderr, "line %d: does not hold: %s\n", line, what);
	abort();
}
#define EXPECT(condition) expect(condition, #condition, __LINE__)

#define N_PEERS (LAN_FOUND_MAX + 2)

static struct map map;
static struct map_peer peers[N_PEERS];
static struct lan_found_list list;
static uint32_t forgotten[N_PEERS], n_forgotten;

static void on_forgotten(void *owner, uint32_t peer_id)
{
	(void)owner;
	forgotten[n_forgotten++] = peer_id;
}

static struct public_key key_of(uint32_t number)
{
	struct public_key key = { 0 };

	memcpy(key.bytes, &number, sizeof(number));
	return key;
}

static struct endpoint endpoint_of(uint16_t port)
{
	struct endpoint endpoint;

	if (endpoint_parse("192.168.0.2:1", &endpoint) != 0)
		abort();
	endpoint.port = port;
	return endpoint;
}

/* Control's: peers 1 …, whose session keys are 1001 … */
static void control_says(void)
{
	memset(peers, 0, sizeof(peers));
	for (uint32_t i = 0; i < N_PEERS; i++) {
		peers[i].id = i + 1;
		peers[i].session_key = key_of(1001 + i);
	}
	map = (struct map){ .peers = peers, .n_peers = N_PEERS };
}

static void given_nothing_was_found(void)
{
	lan_found_init(&list, on_forgotten, NULL);
	n_forgotten = 0;
	control_says();
}

static enum lan_found_outcome find(uint32_t peer_id, uint32_t key, uint16_t port)
{
	const struct public_key session_key = key_of(key);
	const struct endpoint endpoint = endpoint_of(port);

	return lan_found_take(&list, &map, peer_id, &session_key, &endpoint);
}

static bool has_key(uint32_t peer_id, uint32_t key)
{
	const struct public_key wanted = key_of(key);

	return public_key_equal(&peers[peer_id - 1].session_key, &wanted);
}

static void test_what_is_found_is_in_the_map_and_in_those_that_follow(void)
{
	given_nothing_was_found();
	EXPECT(find(2, 5, 7) == LAN_FOUND_TAKEN);
	EXPECT(has_key(2, 5) && peers[1].n_endpoints == 1 && peers[1].endpoints[0].port == 7);
	control_says();
	lan_found_lay_over(&list, &map);
	EXPECT(has_key(2, 5) && peers[1].n_endpoints == 1 && peers[1].endpoints[0].port == 7);
	EXPECT(n_forgotten == 0);
}

static void test_a_new_word_of_control_about_the_session_counts_more(void)
{
	given_nothing_was_found();
	EXPECT(find(2, 5, 7) == LAN_FOUND_TAKEN);
	EXPECT(find(2, 6, 7) == LAN_FOUND_TAKEN); /* found anew: still over what control said before */
	control_says();
	lan_found_lay_over(&list, &map);
	EXPECT(has_key(2, 6));
	control_says();
	peers[1].session_key = key_of(8);
	lan_found_lay_over(&list, &map);
	EXPECT(has_key(2, 8) && peers[1].n_endpoints == 0);
	EXPECT(n_forgotten == 1 && forgotten[0] == 2 && list.n == 0);
}

static void test_the_session_key_of_another_is_refused_also_when_the_other_comes_later(void)
{
	given_nothing_was_found();
	EXPECT(find(2, 1001, 7) == LAN_FOUND_KEY_OF_ANOTHER && has_key(2, 1002) && list.n == 0);
	EXPECT(find(2, 5, 7) == LAN_FOUND_TAKEN);
	control_says();
	peers[2].session_key = key_of(5);
	lan_found_lay_over(&list, &map);
	EXPECT(has_key(2, 1002) && has_key(3, 5) && n_forgotten == 1 && forgotten[0] == 2);
}

static void test_who_is_not_in_the_map_is_not_found_and_who_leaves_it_is_forgotten(void)
{
	given_nothing_was_found();
	EXPECT(find(N_PEERS + 1, 5, 7) == LAN_FOUND_NO_PEER);
	EXPECT(find(N_PEERS, 5, 7) == LAN_FOUND_TAKEN);
	control_says();
	map.n_peers--;
	lan_found_lay_over(&list, &map);
	EXPECT(n_forgotten == 1 && forgotten[0] == N_PEERS && list.n == 0);
}

static void test_the_oldest_makes_room(void)
{
	given_nothing_was_found();
	for (uint32_t id = 1; id <= LAN_FOUND_MAX; id++)
		EXPECT(find(id, 5000 + id, 7) == LAN_FOUND_TAKEN);
	EXPECT(find(1, 6000, 7) == LAN_FOUND_TAKEN); /* anew: it is the latest now */
	EXPECT(n_forgotten == 0);
	EXPECT(find(LAN_FOUND_MAX + 1, 7000, 7) == LAN_FOUND_TAKEN);
	EXPECT(n_forgotten == 1 && forgotten[0] == 2 && list.n == LAN_FOUND_MAX);
}

static void test_a_found_endpoint_comes_first_and_the_last_makes_room(void)
{
	given_nothing_was_found();
	for (uint16_t i = 0; i < MAP_MAX_ENDPOINTS; i++)
		peers[0].endpoints[i] = endpoint_of((uint16_t)(100 + i));
	peers[0].n_endpoints = MAP_MAX_ENDPOINTS;
	EXPECT(find(1, 5, 101) == LAN_FOUND_TAKEN); /* is there already */
	EXPECT(peers[0].endpoints[0].port == 101 && peers[0].endpoints[1].port == 100 &&
	       peers[0].endpoints[2].port == 102);
	EXPECT(find(1, 5, 7) == LAN_FOUND_TAKEN);
	EXPECT(peers[0].n_endpoints == MAP_MAX_ENDPOINTS && peers[0].endpoints[0].port == 7 &&
	       peers[0].endpoints[1].port == 101 &&
	       peers[0].endpoints[MAP_MAX_ENDPOINTS - 1].port == 100 + MAP_MAX_ENDPOINTS - 2);
}

int main(void)
{
	test_what_is_found_is_in_the_map_and_in_those_that_follow();
	test_a_new_word_of_control_about_the_session_counts_more();
	test_the_session_key_of_another_is_refused_also_when_the_other_comes_later();
	test_who_is_not_in_the_map_is_not_found_and_who_leaves_it_is_forgotten();
	test_the_oldest_makes_room();
	test_a_found_endpoint_comes_first_and_the_last_makes_room();
	return 0;
}
