/* Where visitors of what members publish are led, by the map. */
#include "node/expose/published.h"

#include <arpa/inet.h>
#include <assert.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DOOR = 1, ALICE, BOB, CAROL }; /* 10.0.0.1 … 10.0.0.4 */

#define MEMBER(id, name, online)                                                                                        \
	"{\"id\":" #id ",\"name\":\"" name "\",\"node_key\":\"A" #id "EBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\"," \
	"\"address4\":\"10.0.0." #id "\",\"address6\":\"fd00::" #id "\",\"online\":" online "}"
#define OF(id, hosts)  "{\"id\":" #id ",\"port\":7,\"hosts\":[" hosts "]}"
#define MAP(exposures, grants)                                                                                          \
	"{\"sequence\":\"7\",\"epoch\":\"3\",\"network\":\"home\",\"prefix4\":\"10.0.0.0/24\",\"prefix6\":\"fd00::/64\"," \
	"\"self\":" MEMBER(1, "door", "true") ",\"peers\":[" MEMBER(2, "alice", "true") "," MEMBER(3, "bob", "true") ","   \
	MEMBER(4, "carol", "false") "],\"relays\":[],\"exposures\":[" exposures "],\"grants\":[" grants "]}"

struct door {
	struct map map;
	struct door_rule rule; /* of the configuration */
	struct door_places places;
	struct door_routes *routes;
};

static void open_door(struct door *door, const char *map, const char *configured)
{
	struct json *json;
	struct error error = { 0 };

	memset(door, 0, sizeof(*door));
	assert(json_parse(map, strlen(map), &(struct json_limits){ .max_len = 65536 }, &json, &error) == 0);
	if (map_from_json(json, &door->map, &error) != 0) {
		fprintf(stderr, "%s\n", error.message);
		abort();
	}
	json_free(json);
	const struct published_options options = { .map = &door->map, .configured = &door->rule,
						   .n_configured = configured ? 1 : 0, .places = &door->places };
	door->routes = door_routes_new(1 + published_count(&door->map));
	if (configured) {
		assert(door_rule_parse(configured, &door->rule, NULL) == 0);
		assert(door_routes_add(door->routes, &door->rule, &door->rule.address) == 0);
	}
	published_add_routes(&options, door->routes);
	published_keep_names(&options, door->routes);
	door_places_sweep(&door->places);
}

static void close_door(struct door *door)
{
	door_routes_free(door->routes);
	door_places_deinit(&door->places);
	map_deinit(&door->map);
}

/* The last number of the address to which its visitors are led; 0: it is known, and nobody is there; -1: nobody's. */
static int led_to(const struct door *door, enum sniffer_protocol protocol, const char *host)
{
	struct host_name name;

	assert(host_name_from(host, strlen(host), &name) == 0);
	const struct door_route *route = door_routes_find(door->routes, protocol, &name);
	return route ? route->target.ip[15] : -1;
}

static void test_a_wildcard_stands_for_names_that_are_nobodys(void)
{
	struct door door;

	open_door(&door, MAP(OF(3, "\"*.a.org\""), ""), NULL);
	assert(led_to(&door, SNIFFER_TLS, "app.a.org") == BOB && led_to(&door, SNIFFER_HTTP_1, "app.a.org") == BOB);
	close_door(&door);
}

static void test_a_name_that_is_granted_to_another_is_excepted_from_a_wildcard(void)
{
	struct door door;

	open_door(&door, MAP(OF(3, "\"*.a.org\""), OF(2, "\"app.a.org\",\"other.b.org\"")), NULL);
	assert(led_to(&door, SNIFFER_TLS, "app.a.org") == 0 && led_to(&door, SNIFFER_HTTP_1, "app.a.org") == 0);
	assert(led_to(&door, SNIFFER_QUIC, "app.a.org") == 0);
	assert(led_to(&door, SNIFFER_TLS, "b.a.org") == BOB);
	assert(led_to(&door, SNIFFER_TLS, "other.b.org") == -1);
	close_door(&door);
}

static void test_who_publishes_his_name_has_it(void)
{
	struct door door;

	open_door(&door, MAP(OF(2, "\"https://app.a.org\"") "," OF(3, "\"*.a.org\""), OF(2, "\"app.a.org\"")), NULL);
	assert(led_to(&door, SNIFFER_TLS, "app.a.org") == ALICE);
	assert(led_to(&door, SNIFFER_HTTP_1, "app.a.org") == -1); /* his name in both */
	close_door(&door);
}

static void test_a_name_that_is_granted_to_the_wildcards_owner_too_is_his_as_well(void)
{
	struct door door;

	open_door(&door, MAP(OF(3, "\"https://*.a.org\"") "," OF(4, "\"*.a.org\""),
			     OF(2, "\"app.a.org\"") "," OF(3, "\"app.a.org\"")), NULL);
	assert(led_to(&door, SNIFFER_TLS, "app.a.org") == BOB);
	assert(led_to(&door, SNIFFER_HTTP_1, "app.a.org") == 0);   /* not carol, whose wildcard takes HTTP */
	assert(led_to(&door, SNIFFER_HTTP_1, "b.a.org") == CAROL);
	close_door(&door);
	/* Also when another's wildcard would be preferred: bob is first by name, carol has the name. */
	open_door(&door, MAP(OF(3, "\"*.a.org\"") "," OF(4, "\"*.a.org\""), OF(4, "\"app.a.org\"")), NULL);
	assert(led_to(&door, SNIFFER_TLS, "app.a.org") == CAROL && led_to(&door, SNIFFER_TLS, "b.a.org") == BOB);
	close_door(&door);
}

static void test_a_wildcard_of_the_configuration_leaves_whole_names_to_members_too(void)
{
	struct door door;

	open_door(&door, MAP("", OF(2, "\"app.a.org\"")), "*.a.org 127.0.0.9:80");
	assert(led_to(&door, SNIFFER_TLS, "app.a.org") == 0 && led_to(&door, SNIFFER_TLS, "b.a.org") == 9);
	close_door(&door);
	open_door(&door, MAP("", OF(2, "\"app.a.org\"")), "app.a.org 127.0.0.9:80");
	assert(led_to(&door, SNIFFER_TLS, "app.a.org") == 9); /* the configuration's own word */
	close_door(&door);
}

/* Which members share its visitors, as the last numbers of their addresses in a row: 34 is bob and carol. */
static int shared_by(const struct door *door, const char *host)
{
	struct host_name name;
	int all = 0;

	assert(host_name_from(host, strlen(host), &name) == 0);
	const struct door_route *route = door_routes_find(door->routes, SNIFFER_TLS, &name);
	for (uint32_t i = 0; route && i < route->n_places; i++)
		all = all * 10 + route->places[i]->target.ip[15];
	return all;
}

static void test_those_who_are_online_share_a_host(void)
{
	struct door door;

	open_door(&door, MAP(OF(2, "\"app.a.org\"") "," OF(3, "\"app.a.org\"") "," OF(4, "\"app.a.org\""), ""), NULL);
	assert(shared_by(&door, "app.a.org") == 23);
	close_door(&door);
	/* Also a wildcard, and a name that is granted to those who have it. */
	open_door(&door, MAP(OF(2, "\"*.a.org\"") "," OF(3, "\"*.a.org\""), OF(2, "\"app.a.org\"") "," OF(3, "\"app.a.org\"")),
		  NULL);
	assert(shared_by(&door, "b.a.org") == 23 && shared_by(&door, "app.a.org") == 23);
	close_door(&door);
	/* Where nobody is online, it is tried all the same: control may not know yet. */
	open_door(&door, MAP(OF(4, "\"app.a.org\""), ""), NULL);
	assert(shared_by(&door, "app.a.org") == 4 && led_to(&door, SNIFFER_TLS, "app.a.org") == CAROL);
	close_door(&door);
}

static void test_nobody_shares_what_the_configuration_has(void)
{
	struct door door;

	open_door(&door, MAP(OF(3, "\"app.a.org\"") "," OF(4, "\"app.a.org\",\"c.org\""), ""), "c.org 127.0.0.9:80");
	assert(led_to(&door, SNIFFER_TLS, "app.a.org") == BOB && led_to(&door, SNIFFER_TLS, "c.org") == 9);
	assert(shared_by(&door, "c.org") == 0);
	close_door(&door);
}

static void test_a_place_is_the_same_when_the_map_changes(void)
{
	struct host_name name;
	struct door door;

	open_door(&door, MAP(OF(2, "\"app.a.org\"") "," OF(3, "\"app.a.org\""), ""), NULL);
	assert(host_name_from("app.a.org", 9, &name) == 0);
	const struct door_place *before = door_routes_find(door.routes, SNIFFER_TLS, &name)->places[1];
	const struct published_options options = { .map = &door.map, .places = &door.places };
	door_routes_free(door.routes);
	door.routes = door_routes_new(published_count(&door.map));
	published_add_routes(&options, door.routes);
	door_places_sweep(&door.places);
	assert(door_routes_find(door.routes, SNIFFER_TLS, &name)->places[1] == before);
	close_door(&door);
}

int main(void)
{
	assert(sodium_init() >= 0);
	test_a_wildcard_stands_for_names_that_are_nobodys();
	test_a_name_that_is_granted_to_another_is_excepted_from_a_wildcard();
	test_who_publishes_his_name_has_it();
	test_a_name_that_is_granted_to_the_wildcards_owner_too_is_his_as_well();
	test_a_wildcard_of_the_configuration_leaves_whole_names_to_members_too();
	test_those_who_are_online_share_a_host();
	test_nobody_shares_what_the_configuration_has();
	test_a_place_is_the_same_when_the_map_changes();
	return 0;
}
