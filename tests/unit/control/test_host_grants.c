/* Which hosts a member may publish. */
#include "control/host_grants.h"

#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

enum { ALICE = 1, BOB };

static struct host_pattern host(const char *text)
{
	struct host_pattern pattern;

	assert(host_grant_name_from(text, &pattern) == 0);
	return pattern;
}

static void grant(struct host_grants *grants, uint32_t member, const char *text)
{
	assert(host_grants_add(grants, &(struct host_grant){ .member_id = member, .host = host(text) }) == 0);
}

static bool may(const struct host_grants *grants, uint32_t member, const char *text)
{
	const struct host_pattern pattern = host(text);

	return host_grants_allow(grants, member, &pattern);
}

static void test_only_what_is_granted_may_be_published(void)
{
	struct host_grants grants = { 0 };

	assert(!may(&grants, ALICE, "app.example.org"));
	grant(&grants, ALICE, "app.example.org");
	assert(may(&grants, ALICE, "APP.example.org.") && !may(&grants, BOB, "app.example.org"));
	assert(!may(&grants, ALICE, "example.org") && !may(&grants, ALICE, "*.example.org"));
	host_grants_deinit(&grants);
}

static void test_a_wildcard_is_for_one_label_and_itself(void)
{
	struct host_grants grants = { 0 };

	grant(&grants, ALICE, "*.example.org");
	assert(may(&grants, ALICE, "app.example.org") && may(&grants, ALICE, "*.example.org"));
	assert(!may(&grants, ALICE, "a.app.example.org") && !may(&grants, ALICE, "example.org"));
	assert(!may(&grants, ALICE, "*.app.example.org"));
	host_grants_deinit(&grants);
}

static void test_a_name_that_is_granted_by_itself_is_not_in_anothers_wildcard(void)
{
	struct host_grants grants = { 0 };

	grant(&grants, ALICE, "*.example.org");
	grant(&grants, BOB, "app.example.org");
	assert(may(&grants, BOB, "app.example.org") && !may(&grants, ALICE, "app.example.org"));
	assert(may(&grants, ALICE, "other.example.org"));
	grant(&grants, ALICE, "app.example.org"); /* to both, then */
	assert(may(&grants, BOB, "app.example.org") && may(&grants, ALICE, "app.example.org"));
	host_grants_deinit(&grants);
}

static void test_a_grant_is_taken_back_alone_or_with_its_member(void)
{
	struct host_grants grants = { 0 };
	const struct host_pattern app = host("app.example.org");

	grant(&grants, ALICE, "app.example.org");
	grant(&grants, ALICE, "b.org");
	grant(&grants, BOB, "app.example.org");
	assert(host_grants_add(&grants, &(struct host_grant){ .member_id = BOB, .host = app }) == -EEXIST);
	host_grants_remove(&grants, ALICE, &app);
	assert(!may(&grants, ALICE, "app.example.org") && may(&grants, ALICE, "b.org") && may(&grants, BOB, "app.example.org"));
	host_grants_remove(&grants, ALICE, &app);
	host_grants_remove_member(&grants, ALICE);
	assert(!may(&grants, ALICE, "b.org") && grants.n == 1 && host_grants_find(&grants, BOB, &app));
	host_grants_deinit(&grants);
}

static void test_what_is_no_host_is_not_granted(void)
{
	struct host_grants grants = { 0 };
	static struct map_exposures exposures = { .id = ALICE, .n = 5,
						  .hosts = { "https://app.example.org", "tcp://:2222", "http://b.org", "b.org", "a..b" } };

	grant(&grants, ALICE, "*.example.org");
	grant(&grants, ALICE, "b.org");
	assert(host_grants_judge(&grants, &exposures) == 0xd);
	assert(host_grants_judge(&grants, NULL) == 0);
	host_grants_deinit(&grants);
}

static void test_there_is_a_bound(void)
{
	struct host_grants grants = { 0 };
	struct host_grant one = { .member_id = ALICE };

	for (int i = 0; i <= HOST_GRANTS_MAX; i++) {
		char text[32];
		snprintf(text, sizeof(text), "h%d.org", i);
		one.host = host(text);
		assert(host_grants_add(&grants, &one) == (i < HOST_GRANTS_MAX ? 0 : -ENOSPC));
	}
	host_grants_deinit(&grants);
}

static void test_a_port_is_granted_by_its_number_at_whichever_door(void)
{
	struct host_grants grants = { 0 };
	struct map_exposures exposures = { .id = ALICE, .n = 3, .hosts = { "tcp:2222", "udp:2222", "tcp:2223" } };

	grant(&grants, ALICE, "tcp:2222");
	grant(&grants, BOB, "udp:2222/7");
	grant(&grants, BOB, "*.example.org");
	assert(may(&grants, ALICE, "tcp:2222") && !may(&grants, ALICE, "udp:2222") && !may(&grants, ALICE, "tcp:222"));
	assert(may(&grants, BOB, "udp:2222") && !may(&grants, BOB, "tcp:2222"));
	assert(host_grants_judge(&grants, &exposures) == 1);
	grant(&grants, ALICE, "tcp:2223/9");
	assert(host_grants_judge(&grants, &exposures) == 5);
	host_grants_deinit(&grants);
}

int main(void)
{
	assert(sodium_init() >= 0);
	test_only_what_is_granted_may_be_published();
	test_a_wildcard_is_for_one_label_and_itself();
	test_a_name_that_is_granted_by_itself_is_not_in_anothers_wildcard();
	test_a_grant_is_taken_back_alone_or_with_its_member();
	test_what_is_no_host_is_not_granted();
	test_a_port_is_granted_by_its_number_at_whichever_door();
	test_there_is_a_bound();
	return 0;
}
