/*
 * The directory: what a node is told it has missed. docs/PROTOCOL-control.md#5-the-map
 *
 * Each test changes members, then compares the patch a node gets, in short: "4->6 put 2 remove 3
 * self".
 */
#include "control/directory.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void begin(struct directory *d)
{
	directory_init(d);
	d->epoch = 9;
	d->sequence = 1;
	memcpy(d->network, "home", 5);
	d->prefix4.s_addr = htonl(0x0a4d0000);
	d->prefix4_len = 16;
	assert(inet_pton(AF_INET6, "fd00::", &d->prefix6) == 1);
	d->prefix6_len = 64;
}

static struct member *add(struct directory *d, const char *name)
{
	struct member m = { .peer = { .id = d->last_id + 1 } };

	snprintf(m.peer.name, sizeof(m.peer.name), "%s", name);
	m.peer.node_key.bytes[0] = (uint8_t)m.peer.id;
	assert(directory_free_addresses(d, &m.peer.ip4, &m.peer.ip6) == 0);
	return directory_put(d, &m, d->sequence + 1);
}

static void touch(struct directory *d, uint32_t id)
{
	struct member m = *directory_find(d, id);

	directory_put(d, &m, d->sequence + 1);
}

static void set_granted(struct directory *d, uint32_t id, const char *host, bool is_granted)
{
	const struct member m = *directory_find(d, id);
	struct host_grant grant = { .member_id = id };

	assert(host_pattern_from(host, strlen(host), &grant.host) == 0);
	if (is_granted)
		assert(host_grants_add(&d->grants, &grant) == 0);
	else
		host_grants_remove(&d->grants, id, &grant.host);
	directory_put_granted(d, &m, d->sequence + 1);
}

static void append_ids(char *line, size_t size, const char *word, const struct json *list)
{
	size_t used = strlen(line);

	for (const struct json *i = json_first(list); i; i = json_next(i)) {
		int64_t id = 0;
		if (json_is_object(i))
			assert(json_get_integer(i, "id", 1, 1000000, &id, NULL) == 0);
		else
			assert(json_integer_value(i, 1, 1000000, &id) == 0);
		used += (size_t)snprintf(line + used, size - used, " %s %d", word, (int)id);
	}
}

static void expect_patch(const struct directory *d, uint32_t for_id, uint64_t after,
			 const char *expected)
{
	struct json *json = directory_patch(d, directory_find(d, for_id), after);
	char line[512];

	snprintf(line, sizeof(line), "%s->%s", json_text(json_member(json, "after")),
		 json_text(json_member(json, "sequence")));
	append_ids(line, sizeof(line), "put", json_member(json, "put_peers"));
	append_ids(line, sizeof(line), "remove", json_member(json, "remove_peers"));
	append_ids(line, sizeof(line), "relay", json_member(json, "put_relays"));
	append_ids(line, sizeof(line), "no-relay", json_member(json, "remove_relays"));
	append_ids(line, sizeof(line), "grants", json_member(json, "put_grants"));
	append_ids(line, sizeof(line), "no-grants", json_member(json, "remove_grants"));
	if (json_member(json, "self"))
		strncat(line, " self", sizeof(line) - strlen(line) - 1);
	json_free(json);
	if (strcmp(line, expected) != 0) {
		fprintf(stderr, "expected: %s\ngot:      %s\n", expected, line);
		abort();
	}
}

static void test_a_patch_has_each_changed_member_once(void)
{
	struct directory d;

	begin(&d);
	add(&d, "a");
	add(&d, "b");
	add(&d, "c"); /* sequence 4 */
	touch(&d, 2);
	touch(&d, 3);
	touch(&d, 2);
	expect_patch(&d, 1, 4, "4->7 put 2 put 3");
	expect_patch(&d, 1, 6, "6->7 put 2");
	expect_patch(&d, 1, 7, "7->7");
	expect_patch(&d, 2, 4, "4->7 put 3 self");
	directory_deinit(&d);
}

static void test_a_removal_is_told_and_its_id_not_given_again(void)
{
	struct directory d;

	begin(&d);
	add(&d, "a");
	add(&d, "b"); /* sequence 3 */
	directory_remove(&d, 2, 4);
	expect_patch(&d, 1, 3, "3->4 remove 2");
	assert(!directory_find(&d, 2) && !directory_find_by_name(&d, "b") && d.n_present == 1);
	struct member *c = add(&d, "b");
	assert(c->peer.id == 3);
	expect_patch(&d, 1, 3, "3->5 put 3 remove 2");
	directory_deinit(&d);
}

static struct map_exposures *publish(uint32_t id)
{
	struct map_exposures *exposures = calloc(1, sizeof(*exposures));

	assert(exposures);
	*exposures = (struct map_exposures){ .id = id, .n = MAP_MAX_HOSTS };
	for (uint32_t i = 0; i < MAP_MAX_HOSTS; i++)
		snprintf(exposures->hosts[i], sizeof(exposures->hosts[i]), "h%u.example.org", i);
	return exposures;
}

static void test_no_more_is_published_than_a_map_holds(void)
{
	struct host_grant grant = { 0 };
	struct directory d;

	begin(&d);
	assert(host_pattern_from("*.example.org", 13, &grant.host) == 0);
	for (uint32_t id = 1; id <= MAP_MAX_EXPOSURES / MAP_MAX_HOSTS + 1; id++) {
		struct member m = { .peer = { .id = id }, .exposures = publish(id) };
		grant.member_id = id;
		assert(host_grants_add(&d.grants, &grant) == 0);
		m.granted = directory_judge_exposures(&d, &m, m.exposures);
		assert(m.granted == (id <= MAP_MAX_EXPOSURES / MAP_MAX_HOSTS ? UINT64_MAX : 0));
		directory_put(&d, &m, d.sequence + 1);
	}
	const struct member *first = directory_find(&d, 1), *last = directory_find(&d, d.last_id);
	assert(directory_judge_exposures(&d, first, first->exposures) == UINT64_MAX); /* it stays */
	assert(directory_judge_exposures(&d, last, last->exposures) == 0);
	directory_remove(&d, 1, d.sequence + 1);
	assert(directory_judge_exposures(&d, last, last->exposures) == UINT64_MAX);
	directory_deinit(&d);
}

static void test_whole_names_that_are_granted_are_told_and_wildcards_are_not(void)
{
	struct directory d;
	struct map map;

	begin(&d);
	add(&d, "a");
	add(&d, "b"); /* sequence 3 */
	struct json *json = directory_snapshot(&d, directory_find(&d, 1));
	assert(map_from_json(json, &map, NULL) == 0 && map.n_grants == 0);
	json_free(json);
	set_granted(&d, 2, "*.a.org", true);
	expect_patch(&d, 1, 3, "3->4 put 2 no-grants 2");
	set_granted(&d, 2, "App.a.org", true);
	expect_patch(&d, 1, 3, "3->5 put 2 grants 2");
	json = directory_patch(&d, directory_find(&d, 1), 3);
	assert(map_apply_patch(&map, json, NULL) == 0);
	assert(map.n_grants == 1 && map_has_grant(&map, 2, "app.a.org"));
	json_free(json);
	map_deinit(&map);
	json = directory_snapshot(&d, directory_find(&d, 1));
	assert(map_from_json(json, &map, NULL) == 0 && map.n_grants == 1 && map_has_grant(&map, 2, "app.a.org"));
	json_free(json);
	set_granted(&d, 2, "app.a.org", false);
	json = directory_patch(&d, directory_find(&d, 1), 5);
	assert(map_apply_patch(&map, json, NULL) == 0 && map.n_grants == 0);
	json_free(json);
	map_deinit(&map);
	directory_deinit(&d);
}

/* A member that comes and goes may have thousands. */
static void test_what_is_granted_is_told_only_to_who_does_not_know_it(void)
{
	struct directory d, again;

	begin(&d);
	add(&d, "a");
	add(&d, "b"); /* sequence 3 */
	set_granted(&d, 2, "app.a.org", true);
	touch(&d, 2);
	touch(&d, 2);
	expect_patch(&d, 1, 3, "3->6 put 2 grants 2");
	expect_patch(&d, 1, 4, "4->6 put 2");
	set_granted(&d, 2, "app.a.org", false);
	touch(&d, 2);
	expect_patch(&d, 1, 6, "6->8 put 2 no-grants 2");
	expect_patch(&d, 1, 7, "7->8 put 2");
	directory_remove(&d, 2, 9);
	expect_patch(&d, 1, 3, "3->9 remove 2");
	directory_deinit(&d);

	/* When it is loaded, what it had by its last revision may be news to all before. */
	begin(&again);
	struct member m = { .peer = { .id = 1 }, .revision = 4 };
	directory_load(&again, &m);
	m = (struct member){ .peer = { .id = 2 }, .revision = 5 };
	directory_load(&again, &m);
	again.sequence = 5;
	touch(&again, 2);
	expect_patch(&again, 1, 4, "4->6 put 2 no-grants 2");
	expect_patch(&again, 1, 5, "5->6 put 2");
	directory_deinit(&again);
}

static void test_relays_come_and_go(void)
{
	struct directory d;

	begin(&d);
	add(&d, "a");
	struct member m = *add(&d, "pub"); /* sequence 3 */
	m.relay.id = 2;
	m.offers_relay = m.may_relay = true;
	directory_put(&d, &m, 4);
	expect_patch(&d, 1, 3, "3->4 put 2 relay 2");
	m.may_relay = false;
	directory_put(&d, &m, 5);
	expect_patch(&d, 1, 4, "4->5 put 2 no-relay 2");
	m.may_relay = true;
	directory_put(&d, &m, 6);
	directory_remove(&d, 2, 7);
	expect_patch(&d, 1, 6, "6->7 remove 2 no-relay 2");
	directory_deinit(&d);
}

static void test_what_can_be_resumed(void)
{
	struct directory d;

	begin(&d);
	add(&d, "a");
	assert(directory_can_resume(&d, 9, 1) && directory_can_resume(&d, 9, 2));
	assert(!directory_can_resume(&d, 8, 1)); /* another history */
	assert(!directory_can_resume(&d, 9, 3)); /* from a future that was lost */
	assert(!directory_can_resume(&d, 9, 0)); /* has none */
	directory_deinit(&d);
}

static void test_only_the_newest_removals_are_remembered(void)
{
	struct directory d;

	begin(&d);
	add(&d, "stays");
	uint64_t before = d.sequence;
	for (uint32_t i = 0; i <= DIRECTORY_MAX_REMOVED; i++) {
		uint32_t id = add(&d, "goes")->peer.id;
		directory_remove(&d, id, d.sequence + 1);
	}
	assert(!directory_can_resume(&d, 9, before) && d.n_removed == DIRECTORY_MAX_REMOVED);
	assert(directory_can_resume(&d, 9, d.oldest_resumable) && d.n == DIRECTORY_MAX_REMOVED + 1);
	directory_deinit(&d);
}

static void expect_name(const struct directory *d, const char *wanted, const char *expected)
{
	char name[MAP_NAME_LEN + 1];

	directory_free_name(d, wanted, name);
	if (strcmp(name, expected) != 0)
		fprintf(stderr, "%s -> %s\n", wanted, name);
	assert(strcmp(name, expected) == 0 && map_name_is_valid(name));
}

static void test_names_are_made_valid_and_unique(void)
{
	struct directory d;

	begin(&d);
	expect_name(&d, "Alice", "alice");
	expect_name(&d, "host.example.org", "host");
	expect_name(&d, "my_pc 2", "my-pc-2");
	expect_name(&d, "--x--", "x");
	expect_name(&d, "", "node");
	expect_name(&d, "\xc3\xa4", "node");
	add(&d, "pi");
	add(&d, "pi-2");
	expect_name(&d, "pi", "pi-3");
	char longest[80];
	memset(longest, 'a', sizeof(longest));
	longest[79] = '\0';
	longest[MAP_NAME_LEN] = '\0';
	add(&d, longest);
	longest[MAP_NAME_LEN - 2] = '-';
	longest[MAP_NAME_LEN - 1] = '2';
	char wanted[80];
	memset(wanted, 'a', sizeof(wanted));
	wanted[79] = '\0';
	expect_name(&d, wanted, longest);
	directory_deinit(&d);
}

static void test_addresses_are_used_again_late(void)
{
	struct directory d;

	begin(&d);
	d.prefix4_len = 29; /* hosts 1 … 6 */
	for (int i = 1; i <= 4; i++)
		assert(ntohl(add(&d, "x")->peer.ip4.s_addr) == 0x0a4d0000u + (uint32_t)i);
	directory_remove(&d, 2, d.sequence + 1);
	assert(ntohl(add(&d, "x")->peer.ip4.s_addr) == 0x0a4d0005);
	assert(ntohl(add(&d, "x")->peer.ip4.s_addr) == 0x0a4d0006);
	const struct member *again = add(&d, "x");
	assert(ntohl(again->peer.ip4.s_addr) == 0x0a4d0002 && again->peer.ip6.s6_addr[15] == 2);
	struct in_addr ip4;
	struct in6_addr ip6;
	assert(directory_free_addresses(&d, &ip4, &ip6) == -ENOSPC);
	directory_deinit(&d);
}

int main(void)
{
	test_a_patch_has_each_changed_member_once();
	test_a_removal_is_told_and_its_id_not_given_again();
	test_relays_come_and_go();
	test_whole_names_that_are_granted_are_told_and_wildcards_are_not();
	test_what_is_granted_is_told_only_to_who_does_not_know_it();
	test_no_more_is_published_than_a_map_holds();
	test_what_can_be_resumed();
	test_only_the_newest_removals_are_remembered();
	test_names_are_made_valid_and_unique();
	test_addresses_are_used_again_late();
	puts("ok");
}
