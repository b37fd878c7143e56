/* The lines of [frontdoor]: what they mean, what is wrong with a wrong one, and who is led where. */
#include "relay/frontdoor/door_routes.h"

#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

static struct door_rule rule_of(const char *text)
{
	struct error error;
	struct door_rule rule;

	if (door_rule_parse(text, &rule, &error) != 0) {
		printf("%s: %s\n", text, error.message);
		assert(false);
	}
	return rule;
}

static void expect_wrong(const char *text, const char *part)
{
	struct error error;
	struct door_rule rule;

	assert(door_rule_parse(text, &rule, &error) == -EINVAL);
	if (!strstr(error.message, part)) {
		printf("%s: '%s' does not say '%s'\n", text, error.message, part);
		assert(false);
	}
}

static void test_a_rule_names_host_schemes_and_target(void)
{
	struct door_rule rule = rule_of("App.Example.org. 127.0.0.1:8443");

	assert(strcmp(rule.host.name.text, "app.example.org") == 0 && !rule.host.is_wildcard);
	assert(rule.takes[DOOR_HTTP] && rule.takes[DOOR_HTTPS]);
	assert(rule.member[0] == '\0' && strcmp(endpoint_text(&rule.address).s, "127.0.0.1:8443") == 0);

	rule = rule_of("http://app.example.org\t [2001:db8::7]:80");
	assert(rule.takes[DOOR_HTTP] && !rule.takes[DOOR_HTTPS]);
	assert(strcmp(endpoint_text(&rule.address).s, "[2001:db8::7]:80") == 0);

	rule = rule_of("https://*.example.org alice:8443");
	assert(!rule.takes[DOOR_HTTP] && rule.takes[DOOR_HTTPS] && rule.host.is_wildcard);
	assert(strcmp(rule.member, "alice") == 0 && rule.address.port == 8443);
}

static const struct door_route *add_port(struct door_routes *routes, const char *name, const char *target)
{
	struct door_rule rule = rule_of("a.org 127.0.0.1:1");
	struct endpoint place;

	assert(door_rule_parse_host(name, strlen(name), &rule, NULL) == 0);
	assert(endpoint_parse(target, &place) == 0 && door_routes_add(routes, &rule, &place) == 0);
	return door_routes_find(routes, rule.takes[DOOR_UDP] ? SNIFFER_UDP : SNIFFER_TCP, &rule.host.name);
}

static bool leads_back(const struct door_routes *routes, const struct door_route *route, const char *first_door)
{
	struct endpoint door;

	assert(endpoint_parse(first_door, &door) == 0);
	return door_routes_lead_back(routes, &door, route);
}

static void test_ports_of_a_member_that_lead_to_each_other_by_the_door_are_a_ring(void)
{
	struct door_routes *routes = door_routes_new(8);
	const struct door_route *one = add_port(routes, "tcp:2222", "192.0.2.1:2223");
	const struct door_route *other = add_port(routes, "tcp:2223", "192.0.2.1:2222");
	const struct door_route *away = add_port(routes, "tcp:2224", "192.0.2.1:22");
	const struct door_route *udp = add_port(routes, "udp:2222", "192.0.2.1:2223");

	assert(leads_back(routes, one, "192.0.2.1:2222") && leads_back(routes, other, "192.0.2.1:2223"));
	assert(!leads_back(routes, one, "192.0.2.2:2222")); /* another door */
	assert(!leads_back(routes, away, "192.0.2.1:2224")); /* a server beside the door */
	assert(!leads_back(routes, udp, "192.0.2.1:2222"));  /* what leads on is of TCP */
	assert(leads_back(routes, udp, "192.0.2.1:2223"));   /* there it came in */
	door_routes_free(routes);
}

static void test_a_wrong_rule_says_what_is_expected(void)
{
	expect_wrong("app.example.org", "a host and where it is");
	expect_wrong("https:// alice:1", "a host and where it is");
	expect_wrong("192.0.2.1 alice:1", "such as app.example.org");
	expect_wrong("a..b alice:1", "'a..b' is none");
	expect_wrong("app.example.org 127.0.0.1", "'127.0.0.1' is neither");
	expect_wrong("app.example.org 127.0.0.1:0", "is neither");
	expect_wrong("app.example.org alice", "is neither");
	expect_wrong("app.example.org alice:65536", "is neither");
	expect_wrong("app.example.org Alice:1", "is neither");
	expect_wrong("app.example.org alice:80 bob:80", "proxy=v1, proxy=v2 or nothing");
	expect_wrong("app.example.org alice:80 proxy=v3", "not 'proxy=v3'");
}

static void expect_listen(const char *text, const char *expected)
{
	struct endpoint places[DOOR_MAX_LISTEN];
	char found[256] = "";
	struct error error;
	uint32_t n;

	if (door_listen_parse(text, places, &n, &error) != 0)
		n = 0;
	for (uint32_t i = 0; i < n; i++)
		snprintf(found + strlen(found), sizeof(found) - strlen(found), "%s ", endpoint_text(&places[i]).s);
	if (strcmp(found, expected) != 0) {
		printf("%s: '%s' instead of '%s'\n", text, found, expected);
		assert(false);
	}
}

static void test_it_listens_on_ports_and_addresses(void)
{
	expect_listen("80, 443", "[::]:80 [::]:443 ");
	expect_listen("8080", "[::]:8080 ");
	expect_listen("198.51.100.1:80 ,[2001:db8::1]:8443", "198.51.100.1:80 [2001:db8::1]:8443 ");
	expect_listen("", "");
	expect_listen("80,", "");
	expect_listen("80, 80", "");
	expect_listen("0", "");
	expect_listen("65536", "");
	expect_listen("example.org:80", "");
	expect_listen("1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17", "");
}

static bool listens_at(const char *listen, const char *target, bool is_own)
{
	struct endpoint places[DOOR_MAX_LISTEN], at;
	struct error error;
	uint32_t n;

	assert(door_listen_parse(listen, places, &n, &error) == 0 && endpoint_parse(target, &at) == 0);
	return door_listens_at(places, n, &at, is_own);
}

static void test_a_target_is_the_door_itself_where_it_listens(void)
{
	assert(listens_at("80, 443", "127.0.0.1:443", true) && listens_at("443", "[::1]:443", true));
	assert(!listens_at("80, 443", "127.0.0.1:8443", true));
	assert(!listens_at("443", "192.0.2.1:443", false));
	assert(listens_at("198.51.100.1:443", "198.51.100.1:443", false));
	assert(!listens_at("198.51.100.1:443", "127.0.0.1:443", true));
	assert(listens_at("0.0.0.0:443", "127.0.0.1:443", true) && !listens_at("0.0.0.0:443", "[::1]:443", true));
}

/* Where the routes lead, as a port; 0: nowhere. */
static int find(const struct door_routes *routes, enum sniffer_protocol protocol, const char *host)
{
	struct host_name name;

	assert(host_name_from(host, strlen(host), &name) == 0);
	const struct door_route *route = door_routes_find(routes, protocol, &name);
	return route ? route->target.port : 0;
}

static void test_schemes_of_one_host_may_lead_to_different_places(void)
{
	static const char *const lines[] = { "http://app.example.org 127.0.0.1:1", "https://app.example.org 127.0.0.1:2",
					     "*.example.org 127.0.0.1:3" };
	struct door_routes *routes = door_routes_new(3);

	for (int i = 0; i < 3; i++) {
		const struct door_rule rule = rule_of(lines[i]);
		assert(door_routes_add(routes, &rule, &rule.address) == 0);
	}
	assert(find(routes, SNIFFER_HTTP_1, "app.example.org") == 1);
	assert(find(routes, SNIFFER_HTTP_2, "app.example.org") == 1);
	assert(find(routes, SNIFFER_TLS, "app.example.org") == 2);
	assert(find(routes, SNIFFER_TLS, "other.example.org") == 3);
	assert(find(routes, SNIFFER_HTTP_1, "a.b.example.org") == 0);
	door_routes_free(routes);
}

/* Else who has the wildcard could show to a certificate authority that app.example.org is theirs. */
static void test_an_exact_name_goes_before_the_wildcard_in_both_schemes(void)
{
	static const char *const lines[] = { "https://app.example.org 127.0.0.1:1", "http://web.example.org 127.0.0.1:2",
					     "*.example.org 127.0.0.1:3" };
	struct door_routes *routes = door_routes_new(3);

	for (int i = 0; i < 3; i++) {
		const struct door_rule rule = rule_of(lines[i]);
		assert(door_routes_add(routes, &rule, &rule.address) == 0);
	}
	assert(find(routes, SNIFFER_TLS, "app.example.org") == 1);
	assert(find(routes, SNIFFER_HTTP_1, "app.example.org") == 0);
	assert(find(routes, SNIFFER_HTTP_2, "app.example.org") == 0);
	assert(find(routes, SNIFFER_HTTP_1, "web.example.org") == 2);
	assert(find(routes, SNIFFER_TLS, "web.example.org") == 0);
	assert(find(routes, SNIFFER_HTTP_1, "other.example.org") == 3);
	assert(find(routes, SNIFFER_TLS, "other.example.org") == 3);
	door_routes_free(routes);
}

static void test_a_host_has_one_target_a_scheme(void)
{
	struct door_routes *routes = door_routes_new(2);
	const struct door_rule first = rule_of("https://app.example.org 127.0.0.1:1");
	const struct door_rule second = rule_of("app.example.org 127.0.0.1:2");

	assert(door_routes_add(routes, &first, &first.address) == 0);
	assert(door_routes_add(routes, &second, &second.address) == -EEXIST);
	assert(find(routes, SNIFFER_HTTP_1, "app.example.org") == 0);
	door_routes_free(routes);
}

static void test_without_rules_nobody_is_found(void)
{
	struct door_routes *routes = door_routes_new(0);

	assert(find(routes, SNIFFER_TLS, "app.example.org") == 0);
	door_routes_free(routes);
}

int main(void)
{
	if (sodium_init() < 0)
		return 1;
	test_a_rule_names_host_schemes_and_target();
	test_ports_of_a_member_that_lead_to_each_other_by_the_door_are_a_ring();
	test_a_wrong_rule_says_what_is_expected();
	test_it_listens_on_ports_and_addresses();
	test_a_target_is_the_door_itself_where_it_listens();
	test_schemes_of_one_host_may_lead_to_different_places();
	test_an_exact_name_goes_before_the_wildcard_in_both_schemes();
	test_a_host_has_one_target_a_scheme();
	test_without_rules_nobody_is_found();
	return 0;
}
