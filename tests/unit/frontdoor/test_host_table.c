/* The table of hosts: the exact name before the wildcard, and nobody for who is not there. */
#include "relay/frontdoor/host_table.h"

#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

static struct host_entry *buckets[4]; /* so few that chains are walked */

static struct host_entry entry_of(const char *text)
{
	struct host_entry entry = { 0 };

	assert(host_pattern_from(text, strlen(text), &entry.pattern) == 0);
	return entry;
}

static const struct host_entry *find(const struct host_table *table, const char *text)
{
	struct host_name name;

	assert(host_name_from(text, strlen(text), &name) == 0);
	return host_table_find(table, &name);
}

static void test_the_exact_name_goes_before_the_wildcard(void)
{
	struct host_table table;
	struct host_entry exact = entry_of("app.example.org"), wildcard = entry_of("*.example.org");

	host_table_init(&table, buckets, 4);
	assert(host_table_add(&table, &wildcard) == 0 && host_table_add(&table, &exact) == 0);
	assert(find(&table, "APP.example.org.") == &exact);
	assert(find(&table, "web.example.org") == &wildcard);
	assert(!find(&table, "example.org") && !find(&table, "a.b.example.org") && !find(&table, "org"));

	host_table_remove(&table, &exact);
	assert(find(&table, "app.example.org") == &wildcard);
	host_table_remove(&table, &wildcard);
	assert(!find(&table, "app.example.org") && table.n == 0);
}

static void test_a_pattern_is_there_once_and_a_name_is_not_its_wildcard(void)
{
	struct host_table table;
	struct host_entry name = entry_of("example.org"), wildcard = entry_of("*.example.org");
	struct host_entry again = entry_of("EXAMPLE.org");

	host_table_init(&table, buckets, 4);
	assert(host_table_add(&table, &name) == 0 && host_table_add(&table, &wildcard) == 0);
	assert(host_table_add(&table, &again) == -EEXIST && table.n == 2);
	assert(host_table_find_pattern(&table, &again.pattern) == &name);
	assert(host_table_find_pattern(&table, &wildcard.pattern) == &wildcard);
	assert(find(&table, "example.org") == &name);
}

static void test_many_hosts_are_told_apart_and_taken_away_in_any_order(void)
{
	enum { N = 200 };
	static struct host_entry entries[N];
	struct host_table table;
	char text[32];

	host_table_init(&table, buckets, 4);
	for (int i = 0; i < N; i++) {
		snprintf(text, sizeof(text), "%sh%d.example", i % 2 ? "*." : "", i);
		entries[i] = entry_of(text);
		assert(host_table_add(&table, &entries[i]) == 0);
	}
	for (int i = 0; i < N; i += 3)
		host_table_remove(&table, &entries[i]);
	for (int i = 0; i < N; i++) {
		snprintf(text, sizeof(text), "%sh%d.example", i % 2 ? "any." : "", i);
		assert(find(&table, text) == (i % 3 == 0 ? NULL : &entries[i]));
	}
	assert(table.n == N - (N + 2) / 3);
}

int main(void)
{
	assert(sodium_init() >= 0);
	test_the_exact_name_goes_before_the_wildcard();
	test_a_pattern_is_there_once_and_a_name_is_not_its_wildcard();
	test_many_hosts_are_told_apart_and_taken_away_in_any_order();
	puts("ok");
	return 0;
}
