/* All that a node publishes: what stands in whose way, and who may take what away. */
#include "node/exposure_list.h"

#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct exposure_list list;
static struct error error;

static int add(const char *text, const char *place)
{
	struct exposure exposure;

	assert(exposure_parse(text, &exposure, &error) == 0);
	return exposure_list_add(&list, &exposure, place, &error);
}

static int take_away(const char *host)
{
	struct exposure exposure;

	assert(exposure_parse_host(host, &exposure, &error) == 0);
	return exposure_list_remove(&list, &exposure, &error);
}

static void expect_added(const char *expected)
{
	char *text = exposure_list_print_added(&list);

	if (strcmp(text, expected) != 0) {
		printf("'%s' instead of '%s'\n", text, expected);
		assert(false);
	}
	free(text);
}

static void test_what_p2pctl_added_is_replaced_by_p2pctl(void)
{
	memset(&list, 0, sizeof(list));
	assert(add("https://a.org 1 rate=5", "") == 0 && add("http://a.org 2", "") == 0);
	assert(add("https://a.org 3", "") == 0);
	expect_added("https://a.org 127.0.0.1:3\nhttp://a.org 127.0.0.1:2\n");
	assert(add("a.org 4", "") == -EEXIST && strstr(error.message, "unexpose https://a.org"));
}

static void test_what_the_configuration_says_is_changed_there_alone(void)
{
	memset(&list, 0, sizeof(list));
	assert(add("a.org 1", "p2pnode.conf:7") == 0);
	assert(add("https://a.org 2", "") == -EEXIST && strstr(error.message, "p2pnode.conf:7; change it there"));
	assert(add("a.org 1", "p2pnode.conf:8") == -EEXIST && strstr(error.message, "stands at p2pnode.conf:7"));
	assert(take_away("a.org") == -EPERM && strstr(error.message, "p2pnode.conf:7; take it out there"));
	assert(add("b.org 1", "") == 0 && list.n == 2);
	exposure_list_forget_added(&list);
	assert(list.n == 1 && list.items[0].place[0] != '\0');
}

static void test_one_scheme_may_be_taken_away_and_the_other_stays(void)
{
	memset(&list, 0, sizeof(list));
	assert(add("a.org 1 proxy=v2", "") == 0 && add("b.org 1", "") == 0);
	assert(take_away("https://a.org") == 0);
	expect_added("http://a.org 127.0.0.1:1 proxy=v2\nb.org 127.0.0.1:1\n");
	assert(take_away("https://a.org") == -ENOENT && strstr(error.message, "https://a.org is not exposed here"));
	assert(take_away("a.org") == 0 && take_away("b.org") == 0 && list.n == 0);
}

static void expect_http_after_a_restart(const char *text, const char *expected)
{
	memset(&list, 0, sizeof(list));
	assert(add(text, "") == 0 && take_away("https://a.org") == 0);
	char *kept = exposure_list_print_added(&list);
	memset(&list, 0, sizeof(list));
	assert(exposure_list_read_added(&list, kept) == 0 && list.n == 1);
	expect_added(expected);
	free(kept);
}

static void test_what_is_said_of_https_alone_goes_with_it(void)
{
	expect_http_after_a_restart("a.org 1 quic=no", "http://a.org 127.0.0.1:1\n");
	expect_http_after_a_restart("a.org 1 tls=acme h2=yes", "http://a.org 127.0.0.1:1\n");
	expect_http_after_a_restart("a.org 1 tls=terminate certificate=/c key=/k", "http://a.org 127.0.0.1:1\n");
}

static void test_the_exact_name_goes_before_the_wildcard(void)
{
	struct host_name host;

	memset(&list, 0, sizeof(list));
	assert(add("*.a.org 1", "") == 0 && add("https://b.a.org 2", "") == 0);
	assert(host_name_from("b.a.org", 7, &host) == 0);
	assert(exposure_list_find(&list, DOOR_HTTPS, &host)->exposure.target.port == 2);
	assert(exposure_list_find(&list, DOOR_HTTP, &host)->exposure.target.port == 1);
	assert(host_name_from("a.org", 5, &host) == 0 && !exposure_list_find(&list, DOOR_HTTP, &host));
}

static void test_what_was_added_is_read_again_after_a_restart(void)
{
	memset(&list, 0, sizeof(list));
	assert(add("a.org 1", "") == 0 && add("https://*.b.org [::1]:2 allow=10.0.0.0/8", "") == 0);
	char *text = exposure_list_print_added(&list);
	memset(&list, 0, sizeof(list));
	assert(add("http://a.org 9", "p2pnode.conf:1") == 0);
	assert(exposure_list_read_added(&list, text) == 1); /* the configuration's stands in the way of one */
	expect_added("a.org 127.0.0.1:1\nhttps://*.b.org [::1]:2 allow=10.0.0.0/8\n");
	assert(exposure_list_read_added(&list, "\nnonsense\nc.org 3") == 1 && list.n == 3);
	free(text);
}

static void test_what_is_left_out_is_kept_until_p2pctl_says_otherwise(void)
{
	memset(&list, 0, sizeof(list));
	assert(add("a.org 9", "p2pnode.conf:1") == 0);
	assert(exposure_list_read_added(&list, "a.org 1\nhttps://b.org 2 later=1\nc.org 3 later=1\n") == 3 && list.n == 1);
	expect_added("a.org 1\nhttps://b.org 2 later=1\nc.org 3 later=1\n");
	assert(add("b.org 4", "") == 0 && take_away("c.org") == 0);
	expect_added("a.org 1\nb.org 127.0.0.1:4\n");
	assert(take_away("c.org") == -ENOENT);
	exposure_list_forget_added(&list);
	expect_added("");
}

static void expect_left_out(uint32_t i, const char *expected, const char *why)
{
	char line[EXPOSURE_TEXT];

	assert(exposure_list_left_out(&list, i, line, &error));
	if (strcmp(line, expected) != 0 || !strstr(error.message, why)) {
		printf("'%s': %s\n", line, error.message);
		assert(false);
	}
}

static void test_what_is_left_out_is_listed_with_its_reason(void)
{
	char line[EXPOSURE_TEXT], text[EXPOSURE_MAX * 16 + 4 * EXPOSURE_TEXT] = "", host[64];

	memset(&list, 0, sizeof(list));
	assert(!exposure_list_left_out(&list, 0, line, &error));
	assert(add("http://a.org 9", "p2pnode.conf:1") == 0);
	for (int i = 1; i < EXPOSURE_MAX; i++) {
		snprintf(host, sizeof(host), "h%d.org 1\n", i);
		strcat(text, host);
	}
	strcat(text, "http://a.org 2\nb.org 3 later=1\nmore.org 4\n");
	memset(text + strlen(text), 'x', EXPOSURE_TEXT);
	assert(exposure_list_read_added(&list, text) == 4);
	expect_left_out(0, "http://a.org 2", "http://a.org stands in the configuration, at p2pnode.conf:1");
	expect_left_out(1, "b.org 3 later=1", "'later': did you mean rate");
	expect_left_out(2, "more.org 4", "64 hosts at most");
	assert(exposure_list_left_out(&list, 3, line, &error) && strlen(line) == EXPOSURE_TEXT - 1);
	assert(strstr(error.message, "longer than 1855"));
	assert(!exposure_list_left_out(&list, 4, line, &error));
	assert(take_away("h1.org") == 0);
	expect_left_out(2, "more.org 4", "nothing stands in its way any more");
}

static void test_there_is_a_bound(void)
{
	char text[32];

	memset(&list, 0, sizeof(list));
	for (int i = 0; i < EXPOSURE_MAX; i++) {
		snprintf(text, sizeof(text), "h%d.org 1", i);
		assert(add(text, "") == 0);
	}
	assert(add("more.org 1", "") == -ENOSPC && strstr(error.message, "64 hosts at most"));
	assert(add("h1.org 2", "") == 0);
}

int main(void)
{
	assert(sodium_init() >= 0);
	test_what_p2pctl_added_is_replaced_by_p2pctl();
	test_what_the_configuration_says_is_changed_there_alone();
	test_one_scheme_may_be_taken_away_and_the_other_stays();
	test_what_is_said_of_https_alone_goes_with_it();
	test_the_exact_name_goes_before_the_wildcard();
	test_what_was_added_is_read_again_after_a_restart();
	test_what_is_left_out_is_kept_until_p2pctl_says_otherwise();
	test_what_is_left_out_is_listed_with_its_reason();
	test_there_is_a_bound();
	return 0;
}
