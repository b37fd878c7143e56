#undef NDEBUG
#include "relay/frontdoor/door_routes.h"
#include "relay/frontdoor/port_name.h"

#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

static int read_name(const char *text, struct port_name *ret)
{
	return port_name_from(text, strlen(text), ret);
}

static void test_a_name_is_read_as_it_is_printed(void)
{
	static const char *const names[] = { "tcp:1", "tcp:2222", "udp:65535", "tcp:22/7", "udp:65535/4294967295" };
	char text[PORT_NAME_TEXT];
	struct port_name port;

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		assert(read_name(names[i], &port) == 0);
		port_name_print(&port, text);
		assert(strcmp(text, names[i]) == 0);
	}
	assert(port.kind == PORT_UDP && port.number == 65535 && port.door_id == UINT32_MAX);
}

static void test_what_could_be_written_in_two_ways_is_none(void)
{
	static const char *const names[] = { "", "tcp", "tcp:", "tcp:0", "tcp:022", "tcp:65536", "tcp:22/", "tcp:22/0", "tcp:22/07",
					     "tcp:22/4294967296", "tcp:22/7/7", "tcp:22 ", "TCP:22", "sctp:22", "tcp:22x", "tcp::22",
					     "tcp:-1", "tcp:18446744073709551617" };
	struct port_name port;

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		assert(read_name(names[i], &port) == -EINVAL);
	assert(port_name_from("tcp:22", 5, &port) == 0 && port.number == 2); /* no byte behind */
}

static void test_no_host_has_the_name_of_a_port(void)
{
	const struct port_name port = { .kind = PORT_TCP, .number = 2222 };
	struct host_pattern wildcard;
	struct host_name name, host;

	port_name_to_host(&port, &name);
	assert(strcmp(name.text, "tcp:2222") == 0 && name.len == 8);
	assert(host_name_from(name.text, name.len, &host) != 0);
	assert(host_pattern_from("*.example.org", 13, &wildcard) == 0 && !host_pattern_matches(&wildcard, &name));
}

static void test_people_may_write_a_space(void)
{
	struct port_name port;
	bool is_wrong;

	assert(port_name_word("tcp :2222 22", &port, &is_wrong) == 9 && port.number == 2222 && !is_wrong);
	assert(port_name_word("udp:53 192.0.2.1:53", &port, &is_wrong) == 6 && port.kind == PORT_UDP);
	assert(port_name_word("udp \t :53", &port, &is_wrong) == 9);
	assert(port_name_word("tcp.example.org 80", &port, &is_wrong) == 0 && !is_wrong);
	assert(port_name_word("tcp 2222 22", &port, &is_wrong) == 0 && is_wrong);
	assert(port_name_word("tcp :0 22", &port, &is_wrong) == 0 && is_wrong);
	assert(port_name_word("tcp:22/7 22", &port, &is_wrong) == 0 && is_wrong); /* a grant's, not an exposure's */
	assert(port_name_word("tcp", &port, &is_wrong) == 0);
	assert(port_name_word("tcp :22222222222222222222222222222", &port, &is_wrong) == 0 && is_wrong);
}

static void test_ranges_have_their_ends(void)
{
	struct port_ranges ranges;
	struct error error;
	char many[PORT_RANGES_MAX * 3 + 3] = "1";

	assert(port_ranges_parse(" 2222 , 30000-30100,65535", &ranges, &error) == 0 && ranges.n == 3);
	assert(port_ranges_have(&ranges, 2222) && port_ranges_have(&ranges, 30000) && port_ranges_have(&ranges, 30100));
	assert(port_ranges_have(&ranges, 65535) && !port_ranges_have(&ranges, 2221) && !port_ranges_have(&ranges, 30101));
	assert(port_ranges_parse("  ", &ranges, &error) == 0 && ranges.n == 0 && !port_ranges_have(&ranges, 1));
	static const char *const wrong[] = { "0", "2-1", "1-", "-1", "1,", ",1", "1 2", "65536", "1-65536", "a" };
	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++)
		assert(port_ranges_parse(wrong[i], &ranges, &error) == -EINVAL);
	for (int i = 1; i < PORT_RANGES_MAX; i++)
		strcat(many, ",1");
	assert(port_ranges_parse(many, &ranges, &error) == 0);
	strcat(many, ",1");
	assert(port_ranges_parse(many, &ranges, &error) == -EINVAL);
}

static void test_a_port_is_open_at_each_address_of_the_door_once(void)
{
	struct endpoint listen[3] = { endpoint_from_v4(0xc0000201, 80), endpoint_from_v4(0xc0000201, 443), { .port = 80 } };
	struct endpoint places[DOOR_MAX_LISTEN];

	assert(door_places_of_port(listen, 2, 2222, places) == 1 && places[0].port == 2222);
	assert(memcmp(places[0].ip, listen[0].ip, 16) == 0);
	const struct endpoint any = { .port = 2222 };
	assert(door_places_of_port(listen, 3, 2222, places) == 1 && endpoint_equal(&places[0], &any));
}

static void test_all_addresses_of_ipv4_are_one_place_beside_those_of_ipv6(void)
{
	struct endpoint listen[4] = { endpoint_from_v4(0xc0000201, 443), endpoint_from_v4(0, 80), endpoint_from_v4(0xc0000202, 80),
				      { .ip = { 0x20, 0x01 }, .port = 80 } };
	const struct endpoint any4 = endpoint_from_v4(0, 2222);
	struct endpoint places[DOOR_MAX_LISTEN];

	for (int i = 0; i < 2; i++) {
		assert(door_places_of_port(listen, 4, 2222, places) == 2);
		assert(endpoint_equal(&places[0], &any4));
		assert(places[1].ip[0] == 0x20 && places[1].port == 2222);
		listen[0] = listen[1]; /* whichever stands first */
		listen[1] = endpoint_from_v4(0xc0000201, 443);
	}
}

static void test_a_port_is_looked_up_by_its_protocol_alone(void)
{
	const struct endpoint target = endpoint_from_v4(0x0a000001, 20000);
	struct door_routes *routes = door_routes_new(3);
	struct door_rule rule;
	struct port_name port;
	uint32_t at = 0;

	assert(door_rule_parse_host("tcp:2222", 8, &rule, NULL) == 0 && door_routes_add(routes, &rule, &target) == 0);
	assert(door_routes_add(routes, &rule, &target) == -EEXIST);
	assert(door_rule_parse_host("udp:2222", 8, &rule, NULL) == 0 && door_routes_add(routes, &rule, &target) == 0);
	assert(door_rule_parse_host("app.example.org", 15, &rule, NULL) == 0 && door_routes_add(routes, &rule, &target) == 0);
	struct host_name name;
	port_name_to_host(&(struct port_name){ .kind = PORT_TCP, .number = 2222 }, &name);
	assert(door_routes_find(routes, SNIFFER_TCP, &name));
	assert(!door_routes_find(routes, SNIFFER_UDP, &name) && !door_routes_find(routes, SNIFFER_TLS, &name));
	assert(!door_routes_find(routes, SNIFFER_HTTP_1, &name));
	assert(door_routes_next_port(routes, &at, &port) && port.kind == PORT_TCP && port.number == 2222);
	assert(door_routes_next_port(routes, &at, &port) && port.kind == PORT_UDP);
	assert(!door_routes_next_port(routes, &at, &port));
	assert(door_rule_parse("tcp:2222 127.0.0.1:22", &rule, NULL) == -EINVAL); /* no host of the configuration */
	assert(door_rule_parse_host("tcp:2222/7", 10, &rule, NULL) == -EINVAL);
	door_routes_free(routes);
}

int main(void)
{
	assert(sodium_init() >= 0);
	test_a_name_is_read_as_it_is_printed();
	test_what_could_be_written_in_two_ways_is_none();
	test_no_host_has_the_name_of_a_port();
	test_people_may_write_a_space();
	test_ranges_have_their_ends();
	test_a_port_is_open_at_each_address_of_the_door_once();
	test_all_addresses_of_ipv4_are_one_place_beside_those_of_ipv6();
	test_a_port_is_looked_up_by_its_protocol_alone();
	puts("ok");
	return 0;
}
