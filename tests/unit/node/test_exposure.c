/* What a node publishes: what its words mean, and what is said of wrong ones. */
#include "node/exposure.h"

#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

static struct exposure exposure_of(const char *text)
{
	struct exposure exposure;
	struct error error;

	if (exposure_parse(text, &exposure, &error) != 0) {
		printf("%s: %s\n", text, error.message);
		assert(false);
	}
	return exposure;
}

static void expect_wrong(const char *text, const char *part)
{
	struct exposure exposure;
	struct error error;

	assert(exposure_parse(text, &exposure, &error) == -EINVAL);
	if (!strstr(error.message, part)) {
		printf("%s: '%s' does not say '%s'\n", text, error.message, part);
		assert(false);
	}
}

static void expect_printed(const char *text, const char *expected)
{
	struct exposure exposure = exposure_of(text), again;
	char printed[EXPOSURE_TEXT];

	exposure_print(&exposure, printed);
	if (strcmp(printed, expected) != 0) {
		printf("%s: '%s' instead of '%s'\n", text, printed, expected);
		assert(false);
	}
	again = exposure_of(printed);
	assert(memcmp(&exposure, &again, sizeof(again)) == 0);
}

static void test_a_host_without_scheme_is_for_both(void)
{
	struct exposure exposure = exposure_of("App.Example.org. 8443");

	assert(exposure.takes[DOOR_HTTP] && exposure.takes[DOOR_HTTPS] && !exposure.host.is_wildcard);
	exposure = exposure_of("https://*.example.org 8443");
	assert(!exposure.takes[DOOR_HTTP] && exposure.takes[DOOR_HTTPS] && exposure.host.is_wildcard);
	exposure = exposure_of("http://app.example.org 8080");
	assert(exposure.takes[DOOR_HTTP] && !exposure.takes[DOOR_HTTPS]);
}

static void test_a_port_alone_is_of_this_machine(void)
{
	expect_printed("app.example.org 8443", "app.example.org 127.0.0.1:8443");
	expect_printed("\thttps://app.example.org \t 192.168.1.7:443 ", "https://app.example.org 192.168.1.7:443");
	expect_printed("http://*.Example.org [::1]:80", "http://*.example.org [::1]:80");
}

static void test_what_follows_says_how(void)
{
	expect_printed("a.org 1 proxy=v2 allow=10.0.0.0/8,192.0.2.7,2001:db8::/32,::1 rate=100 rate_source=5",
		       "a.org 127.0.0.1:1 proxy=v2 allow=10.0.0.0/8,192.0.2.7,2001:db8::/32,::1 rate=100 rate_source=5");
	expect_printed("a.org 1 rate=1 proxy=none", "a.org 127.0.0.1:1 rate=1");
	expect_printed("a.org 1 proxy=v1 allow=0.0.0.0/0", "a.org 127.0.0.1:1 proxy=v1 allow=0.0.0.0/0");
}

static void test_tls_may_end_here(void)
{
	expect_printed("a.org 1 tls=pass", "a.org 127.0.0.1:1");
	expect_printed("https://a.org 1 h2=yes key=/k certificate=/c.pem tls=terminate",
		       "https://a.org 127.0.0.1:1 tls=terminate h2=yes certificate=/c.pem key=/k");
	expect_printed("a.org 1 tls=acme h2=yes", "a.org 127.0.0.1:1 tls=acme h2=yes");
	expect_wrong("http://a.org 1 tls=acme", "a.org is not HTTPS");
	expect_wrong("*.a.org 1 tls=acme", "name each host");
	expect_wrong("a.org 1 tls=acme certificate=/c key=/k", "the node gets them itself");
	expect_wrong("http://a.org 1 tls=terminate", "a.org is not HTTPS");
	expect_wrong("a.org 1 certificate=/c key=/k", "go with tls=terminate");
	expect_wrong("a.org 1 h2=yes", "go with tls=terminate");
	expect_wrong("a.org 1 tls=terminate certificate=/c", "key= is missing");
	expect_wrong("a.org 1 tls=terminate key=/c", "certificate= is missing");
	expect_wrong("a.org 1 tls=terminate", "certificate= and key= are missing");
	expect_wrong("a.org 1 tls=terminate certificate=c key=/k", "certificate: a path from the root on");
	expect_wrong("a.org 1 tls=yes", "tls: one of pass, terminate");
	expect_wrong("a.org 1 tls=terminate h2=1", "h2: yes or no");
	expect_wrong("a.org 1 certificat=/c", "did you mean certificate");
}

static void test_sixteen_prefixes_are_taken_and_one_more_is_not(void)
{
	char text[EXPOSURE_TEXT] = "a.org 1 allow=2001:db8:1111:2222:3333:4444:5555:0/127";

	for (int i = 1; i < EXPOSURE_MAX_ALLOW; i++)
		strcat(text, ",2001:db8:1111:2222:3333:4444:5555:0/127");
	expect_printed(text, "a.org 127.0.0.1:1 allow=2001:db8:1111:2222:3333:4444:5555:0/127"
		       ",2001:db8:1111:2222:3333:4444:5555:0/127,2001:db8:1111:2222:3333:4444:5555:0/127"
		       ",2001:db8:1111:2222:3333:4444:5555:0/127,2001:db8:1111:2222:3333:4444:5555:0/127"
		       ",2001:db8:1111:2222:3333:4444:5555:0/127,2001:db8:1111:2222:3333:4444:5555:0/127"
		       ",2001:db8:1111:2222:3333:4444:5555:0/127,2001:db8:1111:2222:3333:4444:5555:0/127"
		       ",2001:db8:1111:2222:3333:4444:5555:0/127,2001:db8:1111:2222:3333:4444:5555:0/127"
		       ",2001:db8:1111:2222:3333:4444:5555:0/127,2001:db8:1111:2222:3333:4444:5555:0/127"
		       ",2001:db8:1111:2222:3333:4444:5555:0/127,2001:db8:1111:2222:3333:4444:5555:0/127"
		       ",2001:db8:1111:2222:3333:4444:5555:0/127");
	strcat(text, ",::1");
	expect_wrong(text, "16 prefixes at most");
}

static void test_a_wrong_one_says_what_is_expected(void)
{
	expect_wrong("", "a host and the port");
	expect_wrong("app.example.org", "the port behind the host is missing");
	expect_wrong("192.0.2.1 80", "such as app.example.org");
	expect_wrong("https:// 80", "such as app.example.org");
	expect_wrong("ftp://app.example.org 80", "such as app.example.org");
	expect_wrong("app.example.org 0", "'0' is neither");
	expect_wrong("app.example.org 65536", "'65536' is neither");
	expect_wrong("app.example.org alice:80", "'alice:80' is neither");
	expect_wrong("app.example.org 0.0.0.0:80", "is neither");
	expect_wrong("app.example.org [::]:80", "is neither");
	expect_wrong("app.example.org 80 proxy=v3", "one of none, v1, v2");
	expect_wrong("app.example.org 80 proxi=v2", "did you mean proxy");
	expect_wrong("app.example.org 80 verbose", "'verbose': not known");
	expect_wrong("app.example.org 80 proxy", "may follow");
	expect_wrong("app.example.org 80 rate=5 rate=6", "rate: stands twice");
	expect_wrong("app.example.org 80 rate=0", "visitors a second");
	expect_wrong("app.example.org 80 rate=1000001", "visitors a second");
	expect_wrong("app.example.org 80 allow=", "'' is none");
	expect_wrong("app.example.org 80 allow=10.0.0.1/8", "no bits behind the length");
	expect_wrong("app.example.org 80 allow=10.0.0.0/8,", "'' is none");
	expect_wrong("app.example.org 80 allow=fe80::1%lo", "is none");
}

static bool allows(const char *allow, const char *visitor)
{
	struct endpoint from;
	char text[256];

	snprintf(text, sizeof(text), "a.org 1%s%s", allow[0] ? " allow=" : "", allow);
	struct exposure exposure = exposure_of(text);
	assert(endpoint_parse_ip(visitor, 4711, &from) == 0);
	return exposure_allows(&exposure, &from);
}

static void test_only_who_is_on_the_list_may_come(void)
{
	assert(allows("", "192.0.2.1") && allows("", "2001:db8::1"));
	assert(allows("10.0.0.0/8", "10.255.0.1") && !allows("10.0.0.0/8", "11.0.0.1"));
	assert(allows("192.0.2.7", "192.0.2.7") && !allows("192.0.2.7", "192.0.2.6"));
	assert(allows("192.0.2.0/25", "192.0.2.127") && !allows("192.0.2.0/25", "192.0.2.128"));
	assert(allows("10.0.0.0/8,2001:db8::/33", "2001:db8:7fff::1"));
	assert(!allows("10.0.0.0/8,2001:db8::/33", "2001:db8:8000::1"));
	assert(allows("0.0.0.0/0", "192.0.2.1") && !allows("0.0.0.0/0", "2001:db8::1"));
}

static bool overlap(const char *a, const char *b)
{
	struct exposure first, second;
	struct error error;

	assert(exposure_parse_host(a, &first, &error) == 0 && exposure_parse_host(b, &second, &error) == 0);
	assert(exposure_overlaps(&first, &second) == exposure_overlaps(&second, &first));
	return exposure_overlaps(&first, &second);
}

static void test_two_of_one_host_and_scheme_are_in_each_others_way(void)
{
	assert(overlap("a.org", "https://A.org") && overlap("http://a.org", "http://a.org"));
	assert(!overlap("http://a.org", "https://a.org") && !overlap("a.org", "b.org"));
	assert(!overlap("*.a.org", "a.org") && overlap("*.a.org", "https://*.a.org"));
}

static void test_a_host_alone_has_nothing_behind_it(void)
{
	struct exposure exposure;
	struct error error;

	assert(exposure_parse_host("https://a.org 80", &exposure, &error) == -EINVAL);
	assert(exposure_parse_host("", &exposure, &error) == -EINVAL);
}

static void test_a_port_of_the_front_door_may_stand_for_a_host(void)
{
	struct exposure exposure = exposure_of("tcp :2222 22"), other = exposure_of("udp:2222 22");
	struct port_name port;

	assert(exposure.takes[DOOR_TCP] && !exposure.takes[DOOR_UDP] && !exposure.takes[DOOR_HTTP] && !exposure.takes[DOOR_HTTPS]);
	assert(exposure_is_port(&exposure, &port) && port.kind == PORT_TCP && port.number == 2222);
	assert(!exposure_overlaps(&exposure, &other));
	other = exposure_of("tcp:2222 23");
	assert(exposure_overlaps(&exposure, &other));
	other = exposure_of("app.example.org 23");
	assert(!exposure_overlaps(&exposure, &other) && !exposure_is_port(&other, &port));
	expect_printed("tcp :2222 22 proxy=v1 rate=3", "tcp:2222 127.0.0.1:22 proxy=v1 rate=3");
	expect_printed("udp \t:5353 192.168.1.1:53 proxy=v2 allow=10.0.0.0/8", "udp:5353 192.168.1.1:53 proxy=v2 allow=10.0.0.0/8");
	expect_wrong("tcp 2222 22", "a port of the front door such as");
	expect_wrong("tcp :70000 22", "a port of the front door such as");
	expect_wrong("tcp :2222", "the port behind the host is missing");
	expect_wrong("udp :53 53 proxy=v1", "v2 or none");
}

static bool has_quic(const char *text)
{
	const struct exposure exposure = exposure_of(text);

	return exposure_has_quic(&exposure);
}

static void test_quic_goes_where_https_goes_as_it_comes_unless_it_is_not_wanted(void)
{
	assert(has_quic("https://a.org 1") && has_quic("a.org 1") && has_quic("*.a.org 1 allow=10.0.0.0/8 rate=3 quic=yes"));
	assert(!has_quic("http://a.org 1") && !has_quic("udp :1 1") && !has_quic("tcp :1 1"));
	assert(!has_quic("a.org 1 quic=no") && !has_quic("a.org 1 proxy=v2") && !has_quic("a.org 1 tls=acme"));
	expect_printed("https://a.org 1 quic=no", "https://a.org 127.0.0.1:1 quic=no");
	expect_printed("https://a.org 1 quic=yes", "https://a.org 127.0.0.1:1");
	expect_printed("a.org 1 quic=no tls=acme proxy=v1", "a.org 127.0.0.1:1 proxy=v1 tls=acme quic=no");
	expect_wrong("a.org 1 quic=maybe", "quic: yes or no");
	expect_wrong("a.org 1 proxy=v2 quic=yes", "not with proxy=");
	expect_wrong("a.org 1 tls=acme quic=yes", "not with tls=");
	expect_wrong("http://a.org 1 quic=yes", "of HTTPS alone");
	expect_wrong("udp :1 1 quic=no", "of HTTPS alone");
}

int main(void)
{
	assert(sodium_init() >= 0);
	test_a_host_without_scheme_is_for_both();
	test_a_port_alone_is_of_this_machine();
	test_what_follows_says_how();
	test_tls_may_end_here();
	test_sixteen_prefixes_are_taken_and_one_more_is_not();
	test_a_wrong_one_says_what_is_expected();
	test_only_who_is_on_the_list_may_come();
	test_two_of_one_host_and_scheme_are_in_each_others_way();
	test_a_host_alone_has_nothing_behind_it();
	test_a_port_of_the_front_door_may_stand_for_a_host();
	test_quic_goes_where_https_goes_as_it_comes_unless_it_is_not_wanted();
	return 0;
}
