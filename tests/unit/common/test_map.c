/*
 * The map: a snapshot, then patches that lead from one sequence to the next.
 * docs/PROTOCOL-control.md#the-map
 */
#include "common/map.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define K1 "\"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\""
#define K2 "\"AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=\""
#define PEER(id, name, rest)                                                                       \
	"{\"id\":" #id ",\"name\":\"" name "\",\"node_key\":" K1 ",\"address4\":\"10.77.0." #id    \
	"\",\"address6\":\"fd00::" #id "\"" rest "}"
#define MAP(peers, relays)                                                                         \
	"{\"sequence\":\"10\",\"epoch\":\"5\",\"network\":\"home\",\"prefix4\":\"10.77.0.0/16\","  \
	"\"prefix6\":\"fd00::/64\",\"self\":" PEER(1, "me", "") ",\"peers\":[" peers               \
								"],\"relays\":[" relays "]}"
#define RELAY(id)                                                                                  \
	"{\"id\":" #id ",\"name\":\"pub\",\"node_key\":" K2                                        \
	",\"tls_port\":443,\"addresses\":[\"198.51.100.1\"]}"

static struct json *parsed(const char *text)
{
	const struct json_limits limits = { .max_len = 65536 };
	struct json *json = NULL;

	assert(json_parse(text, strlen(text), &limits, &json, NULL) == 0);
	return json;
}

static void begin(struct map *map, const char *text)
{
	struct json *json = parsed(text);
	struct error err = { 0 };

	if (map_from_json(json, map, &err) != 0) {
		fprintf(stderr, "%s\n", err.message);
		abort();
	}
	json_free(json);
}

static int patch(struct map *map, const char *text, struct error *err)
{
	struct json *json = parsed(text);
	int r = map_apply_patch(map, json, err);

	json_free(json);
	return r;
}

/* "10: 2 bob, 3 carol | 7 pub" */
static void expect_map(const struct map *map, const char *expected)
{
	char line[512];
	size_t used =
		(size_t)snprintf(line, sizeof(line), "%llu:", (unsigned long long)map->sequence);

	for (uint32_t i = 0; i < map->n_peers; i++)
		used += (size_t)snprintf(line + used, sizeof(line) - used, "%s %u %s", i ? "," : "",
					 map->peers[i].id, map->peers[i].name);
	used += (size_t)snprintf(line + used, sizeof(line) - used, " |");
	for (uint32_t i = 0; i < map->n_relays; i++)
		used += (size_t)snprintf(line + used, sizeof(line) - used, "%s %u %s", i ? "," : "",
					 map->relays[i].id, map->relays[i].name);
	if (strcmp(line, expected) != 0) {
		fprintf(stderr, "expected: %s\ngot:      %s\n", expected, line);
		abort();
	}
}

static void test_a_snapshot_is_read_whole(void)
{
	struct map map;

	begin(&map, MAP(PEER(3, "carol", "") "," PEER(2, "bob",
						      ",\"session_key\":" K2 ",\"home_relay\":7,"
						      "\"online\":true,\"endpoints\":[\"192.0.2.1:"
						      "51820\",\"[2001:db8::1]:1\"]"),
			RELAY(7)));
	expect_map(&map, "10: 2 bob, 3 carol | 7 pub");
	const struct map_peer *bob = map_find_peer(&map, 2);
	assert(bob && bob->online && bob->home_relay == 7 && bob->n_endpoints == 2);
	assert(strcmp(endpoint_text(&bob->endpoints[0]).s, "192.0.2.1:51820") == 0);
	assert(!public_key_is_zero(&bob->session_key));
	assert(public_key_is_zero(&map_find_peer(&map, 3)->session_key));
	assert(map_find_peer_by_name(&map, "carol")->id == 3 &&
	       !map_find_peer_by_name(&map, "dave"));
	assert(map_find_peer_by_key(&map, &bob->node_key) &&
	       map_find_relay(&map, 7)->tls_port == 443);
	assert(map.epoch == 5 && map.prefix4_len == 16 && strcmp(map.network, "home") == 0);
	map_deinit(&map);
}

static void test_what_is_printed_is_read_again(void)
{
	struct map map, again, copy;

	begin(&map, MAP(PEER(2, "bob", ",\"endpoints\":[\"[2001:db8::1]:1\"]"), RELAY(7)));
	struct json *json = map_to_json(&map);
	assert(map_from_json(json, &again, NULL) == 0);
	assert(map_copy(&again, &copy) == 0);
	struct json *json_again = map_to_json(&copy);
	char *a = json_print(json), *b = json_print(json_again);
	assert(strcmp(a, b) == 0);
	free(a);
	free(b);
	json_free(json);
	json_free(json_again);
	map_deinit(&map);
	map_deinit(&again);
	map_deinit(&copy);
}

static void test_a_patch_puts_and_removes(void)
{
	struct map map;

	begin(&map, MAP(PEER(2, "bob", "") "," PEER(4, "dave", ""), RELAY(7)));
	assert(patch(&map,
		     "{\"after\":\"10\",\"sequence\":\"12\",\"put_peers\":[" PEER(
			     3,
			     "carol", "") "," PEER(2, "robert",
						   "") "],\"remove_peers\":[4,99],\"put_relays\":"
						       "[" RELAY(8) "],"
								    "\"remove_relays\":[7]}",
		     NULL) == 0);
	expect_map(&map, "12: 2 robert, 3 carol | 8 pub");
	assert(patch(&map, "{\"after\":\"12\",\"sequence\":\"13\",\"self\":" PEER(1, "i", "") "}",
		     NULL) == 0);
	assert(strcmp(map.self.name, "i") == 0 && map.sequence == 13);
	map_deinit(&map);
}

static void test_a_patch_that_does_not_follow_is_stale(void)
{
	struct map map;
	struct error err;

	begin(&map, MAP(PEER(2, "bob", ""), ""));
	assert(patch(&map, "{\"after\":\"9\",\"sequence\":\"11\",\"remove_peers\":[2]}", &err) ==
	       -ESTALE);
	assert(patch(&map, "{\"after\":\"11\",\"sequence\":\"12\",\"remove_peers\":[2]}", &err) ==
	       -ESTALE);
	expect_map(&map, "10: 2 bob |");
	map_deinit(&map);
}

static void expect_refused(struct map *map, const char *text, const char *why)
{
	struct error err = { 0 };

	assert(patch(map, text, &err) == -EINVAL);
	if (strcmp(err.message, why) != 0) {
		fprintf(stderr, "expected: %s\ngot:      %s\n", why, err.message);
		abort();
	}
}

static void test_a_bad_patch_leaves_the_map_as_it_was(void)
{
	struct map map;

	begin(&map, MAP(PEER(2, "bob", ""), ""));
	expect_refused(&map, "{\"sequence\":\"11\"}", "member 'after': missing");
	expect_refused(&map, "{\"after\":\"10\",\"sequence\":\"9\"}",
		       "member 'sequence': must not be smaller than 'after'");
	expect_refused(&map,
		       "{\"after\":\"10\",\"sequence\":\"11\",\"put_peers\":[" PEER(
			       3, "c", "") "," PEER(4, "Not-Valid", "") "]}",
		       "put_peers[1]: member 'name': must be a name of 1 to 63 of a-z 0-9 -");
	expect_refused(&map,
		       "{\"after\":\"10\",\"sequence\":\"11\",\"put_peers\":[" PEER(
			       3, "c", "") "," PEER(3, "c", "") "]}",
		       "put_peers[1]: an id that came before");
	expect_refused(&map, "{\"after\":\"10\",\"sequence\":\"11\",\"remove_peers\":[2,\"x\"]}",
		       "remove_peers[1]: must be an id");
	expect_refused(&map,
		       "{\"after\":\"10\",\"sequence\":\"11\",\"put_peers\":[" PEER(
			       3, "c", ",\"endpoints\":[\"host:1\"]") "]}",
		       "put_peers[0]: member 'endpoints': must hold \"ip:port\" strings");
	expect_map(&map, "10: 2 bob |");
	map_deinit(&map);
}

static void test_we_are_not_among_our_peers(void)
{
	struct map map;

	begin(&map, MAP(PEER(1, "me", "") "," PEER(2, "bob", ""), ""));
	expect_map(&map, "10: 2 bob |");
	assert(patch(&map,
		     "{\"after\":\"10\",\"sequence\":\"11\",\"put_peers\":[" PEER(1, "me", "") "]}",
		     NULL) == 0);
	expect_map(&map, "11: 2 bob |");
	map_deinit(&map);
}

static void expect_exposures(const struct map *map, const char *expected)
{
	char line[512] = "";

	for (uint32_t i = 0; i < map->n_exposures; i++)
		snprintf(line + strlen(line), sizeof(line) - strlen(line), "%s%u:%u %s", i ? ", " : "",
			 map->exposures[i].peer_id, map->exposures[i].port, map->exposures[i].host);
	if (strcmp(line, expected) != 0) {
		fprintf(stderr, "expected: %s\ngot:      %s\n", expected, line);
		abort();
	}
}

#define HOSTS(id, hosts) "{\"id\":" #id ",\"port\":7443,\"hosts\":[" hosts "]}"
#define PATCH(after, sequence, rest) "{\"after\":\"" #after "\",\"sequence\":\"" #sequence "\"," rest "}"

static void test_what_nodes_publish_is_put_and_removed_whole(void)
{
	struct error err = { 0 };
	struct map map;

	begin(&map, MAP(PEER(2, "bob", "") "," PEER(3, "carol", ""), ""));
	assert(patch(&map, PATCH(10, 11, "\"put_exposures\":[" HOSTS(3, "\"c.org\",\"https://d.org\"") "," HOSTS(1, "\"a.org\"") "]"),
		     NULL) == 0);
	expect_exposures(&map, "1:7443 a.org, 3:7443 c.org, 3:7443 https://d.org");
	assert(patch(&map, PATCH(11, 12, "\"put_exposures\":[" HOSTS(2, "\"*.b.org\"") "," HOSTS(3, "\"e.org\"") "]"), NULL) == 0);
	expect_exposures(&map, "1:7443 a.org, 2:7443 *.b.org, 3:7443 e.org");
	uint32_t n;
	assert(strcmp(map_exposures_of(&map, 2, &n)->host, "*.b.org") == 0 && n == 1);
	assert(!map_exposures_of(&map, 4, &n) && n == 0);
	assert(patch(&map, PATCH(12, 13, "\"remove_exposures\":[1,9],\"remove_peers\":[3]"), NULL) == 0);
	expect_exposures(&map, "2:7443 *.b.org"); /* who leaves publishes nothing */
	assert(patch(&map, PATCH(13, 14, "\"put_exposures\":[" HOSTS(2, "\"A.org\"") "]"), &err) == -EINVAL);
	assert(patch(&map, PATCH(13, 14, "\"put_exposures\":[" HOSTS(2, "") "]"), &err) == -EINVAL);
	expect_exposures(&map, "2:7443 *.b.org");
	struct json *json = map_to_json(&map);
	struct map again;
	assert(map_from_json(json, &again, NULL) == 0);
	expect_exposures(&again, "2:7443 *.b.org");
	json_free(json);
	map_deinit(&again);
	map_deinit(&map);
}

#define GRANTS(id, hosts) "{\"id\":" #id ",\"hosts\":[" hosts "]}"

static void test_what_is_granted_is_put_and_removed_whole(void)
{
	struct error err = { 0 };
	struct map map, again;

	begin(&map, MAP(PEER(2, "bob", "") "," PEER(3, "carol", ""), ""));
	assert(map.n_grants == 0 && !map_has_grant(&map, 2, "a.org"));
	assert(patch(&map, PATCH(10, 11, "\"put_grants\":[" GRANTS(3, "\"c.org\"") "," GRANTS(2, "\"a.org\",\"b.org\"") "]"), NULL) == 0);
	assert(map_has_grant(&map, 2, "b.org") && map_has_grant(&map, 3, "c.org") && !map_has_grant(&map, 3, "b.org"));
	assert(patch(&map, PATCH(11, 12, "\"put_grants\":[" GRANTS(2, "\"d.org\"") "],\"remove_grants\":[2,7]"), NULL) == 0);
	assert(map.n_grants == 2 && map_has_grant(&map, 2, "d.org") && !map_has_grant(&map, 2, "b.org"));
	assert(patch(&map, PATCH(12, 13, "\"put_grants\":[" GRANTS(2, "") "]"), &err) == -EINVAL);
	assert(patch(&map, PATCH(12, 13, "\"put_grants\":[" GRANTS(2, "\"A.org\"") "]"), &err) == -EINVAL);
	assert(patch(&map, PATCH(12, 13, "\"put_grants\":[" GRANTS(2, "\"e.org\"") "," GRANTS(2, "\"f.org\"") "]"), &err) == -EINVAL);
	assert(patch(&map, PATCH(12, 13, "\"put_grants\":7"), &err) == -EINVAL);
	struct json *json = map_to_json(&map);
	assert(map_from_json(json, &again, NULL) == 0);
	assert(again.n_grants == 2 && map_has_grant(&again, 3, "c.org"));
	json_free(json);
	map_deinit(&again);
	assert(patch(&map, PATCH(12, 13, "\"remove_peers\":[3],\"remove_grants\":[2]"), NULL) == 0);
	assert(map.n_grants == 0); /* who leaves has none */
	map_deinit(&map);
}

static void test_a_front_door_is_one_of_an_added_public_node(void)
{
	struct map map;

	begin(&map, MAP(PEER(2, "bob", ",\"front_door\":true") "," PEER(7, "pub", ",\"front_door\":true") "," PEER(8, "old", ""),
			RELAY(7) "," RELAY(8)));
	assert(map_is_front_door(&map, map_find_peer(&map, 7)->ip4));
	assert(!map_is_front_door(&map, map_find_peer(&map, 2)->ip4)); /* it says so itself, and nobody else */
	assert(!map_is_front_door(&map, map_find_peer(&map, 8)->ip4) && !map_is_front_door(&map, map.self.ip4));
	map_deinit(&map);
}

static void test_names_are_dns_labels(void)
{
	assert(map_name_is_valid("a") && map_name_is_valid("a-1") && map_name_is_valid("0"));
	assert(!map_name_is_valid("") && !map_name_is_valid("-a") && !map_name_is_valid("a-"));
	assert(!map_name_is_valid("A") && !map_name_is_valid("a.b") && !map_name_is_valid("a_b"));
	assert(map_name_is_valid(
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"));
	assert(!map_name_is_valid(
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"));
}

int main(void)
{
	test_a_snapshot_is_read_whole();
	test_what_is_printed_is_read_again();
	test_a_patch_puts_and_removes();
	test_a_patch_that_does_not_follow_is_stale();
	test_a_bad_patch_leaves_the_map_as_it_was();
	test_we_are_not_among_our_peers();
	test_what_nodes_publish_is_put_and_removed_whole();
	test_what_is_granted_is_put_and_removed_whole();
	test_a_front_door_is_one_of_an_added_public_node();
	test_names_are_dns_labels();
	puts("ok");
}
