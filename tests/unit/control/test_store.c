/* The store: what it acknowledged is there after it is opened again, whatever happened in between.
 */
#include "control/store.h"

#include "common/file.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <sodium.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOW      1800000000
#define ONE_OFF  "jk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"
#define TOKEN    "at_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"
#define REUSABLE "jk_BBECAwQFBgcICQoLDA0ODxAREhMUFRYX"

struct world {
	char folder[64], path[96];
	struct store *store;
	struct store_network network;
	struct directory directory;
};

static void open_again(struct world *w)
{
	struct error err = { 0 };

	if (w->store) {
		w->store = store_close(w->store);
		directory_deinit(&w->directory);
	}
	directory_init(&w->directory);
	if (store_open(w->path, &w->store, &w->network, &err) != 0 ||
	    store_load(w->store, &w->network, &w->directory, &err) != 0) {
		fprintf(stderr, "%s\n", err.message);
		abort();
	}
}

static void begin(struct world *w)
{
	struct store_network network = {
		.network = "home", .host = "h", .port = 8443, .epoch = UINT64_MAX
	};
	const struct store_join_key first = { .created_s = NOW, .expires_s = NOW + 60 };
	struct store_join_key second = {
		.created_s = NOW, .is_reusable = true, .node_ttl_s = 7, .tags = "a,b"
	};

	memset(w, 0, sizeof(*w));
	snprintf(w->folder, sizeof(w->folder), "/tmp/p2p-test-store-XXXXXX");
	assert(mkdtemp(w->folder));
	snprintf(w->path, sizeof(w->path), "%s/control.db", w->folder);
	assert(inet_pton(AF_INET, "10.77.0.0", &network.prefix4) == 1);
	network.prefix4_len = 16;
	assert(inet_pton(AF_INET6, "fd00::", &network.prefix6) == 1);
	network.prefix6_len = 64;
	assert(store_create(w->path, &network, TOKEN, ONE_OFF, &first, NULL) == 0);
	open_again(w);
	assert(store_add_join_key(w->store, REUSABLE, &second, NULL) == 0 && second.id == 2);
}

static void end(struct world *w)
{
	char command[128];

	store_close(w->store);
	directory_deinit(&w->directory);
	snprintf(command, sizeof(command), "rm -r '%s'", w->folder);
	assert(system(command) == 0);
}

static struct member newcomer(struct world *w, const char *name)
{
	struct member m = { .peer = { .id = w->directory.last_id + 1 }, .joined_s = NOW };

	snprintf(m.peer.name, sizeof(m.peer.name), "%s", name);
	m.peer.node_key.bytes[0] = (uint8_t)m.peer.id;
	assert(directory_free_addresses(&w->directory, &m.peer.ip4, &m.peer.ip6) == 0);
	return m;
}

static int join(struct world *w, const char *key, const char *name, int64_t now_s)
{
	struct member m = newcomer(w, name);
	int r = store_join(w->store, key, 0, &m, w->directory.sequence + 1, now_s, NULL);

	if (r == 0)
		directory_put(&w->directory, &m, w->directory.sequence + 1);
	return r;
}

static void test_what_init_decided_is_read_again(void)
{
	struct world w;

	begin(&w);
	assert(strcmp(w.network.network, "home") == 0 && w.network.epoch == UINT64_MAX);
	assert(w.directory.sequence == 1 && w.directory.prefix4_len == 16 &&
	       w.directory.n_present == 0);
	assert(store_check_admin_token(w.store, TOKEN, NULL) == 0);
	assert(store_check_admin_token(w.store, ONE_OFF, NULL) == -ENOENT);
	end(&w);
}

static void test_members_and_changes_survive(void)
{
	struct world w;

	begin(&w);
	assert(join(&w, ONE_OFF, "alice", NOW) == 0 && join(&w, REUSABLE, "bob", NOW) == 0);
	struct member bob = *directory_find_by_name(&w.directory, "bob");
	bob.peer.home_relay = 1;
	bob.peer.n_endpoints = 1;
	assert(endpoint_parse("192.0.2.1:1", &bob.peer.endpoints[0]) == 0);
	bob.offers_relay = bob.may_relay = true;
	bob.relay = (struct map_relay){ .id = bob.peer.id, .name = "bob", .tls_port = 443 };
	assert(store_put_member(w.store, &bob, 4, NULL) == 0);
	open_again(&w);
	assert(w.directory.sequence == 4 && w.directory.n_present == 2);
	const struct member *again = directory_find_by_name(&w.directory, "bob");
	assert(again->peer.home_relay == 1 && again->peer.n_endpoints == 1 && member_is_relay(again) &&
	       again->had_relay);
	assert(again->relay.tls_port == 443 && again->revision == 4 && again->join_key_id == 2);
	assert(again->node_ttl_s == 7 && strcmp(again->tags, "a,b") == 0 && again->joined_s == NOW);
	end(&w);
}

static void test_what_is_said_of_a_relay_survives_that_it_is_none_now(void)
{
	struct world w;

	begin(&w);
	assert(join(&w, ONE_OFF, "alice", NOW) == 0);
	struct member alice = *directory_find_by_name(&w.directory, "alice");
	member_let_relay(&alice);
	alice.relay.cost_ms = 50;
	alice.may_relay = false;
	assert(store_put_member(w.store, &alice, 3, NULL) == 0);
	open_again(&w);
	assert(directory_find_by_name(&w.directory, "alice")->relay.cost_ms == 50);
	assert(!member_is_relay(directory_find_by_name(&w.directory, "alice")));
	end(&w);
}

static void run_sql(const char *path, const char *sql)
{
	sqlite3 *db;

	assert(sqlite3_open(path, &db) == SQLITE_OK);
	assert(sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK);
	sqlite3_close(db);
}

static void test_a_store_of_version_1_is_brought_up_to_date_and_its_relays_stay_relays(void)
{
	struct world w;

	begin(&w);
	assert(join(&w, ONE_OFF, "alice", NOW) == 0 && join(&w, REUSABLE, "bob", NOW) == 0);
	struct member bob = *directory_find_by_name(&w.directory, "bob");
	bob.offers_relay = bob.may_relay = true;
	bob.relay = (struct map_relay){ .id = bob.peer.id, .name = "bob", .tls_port = 443 };
	assert(store_put_member(w.store, &bob, 4, NULL) == 0);
	w.store = store_close(w.store);
	directory_deinit(&w.directory);
	run_sql(w.path, "ALTER TABLE members DROP COLUMN offers_relay;"
			"ALTER TABLE members DROP COLUMN may_relay;"
			"ALTER TABLE join_keys DROP COLUMN may_relay;"
			"ALTER TABLE members DROP COLUMN exposures;"
			"DROP TABLE host_grants;"
			"PRAGMA user_version = 1");
	struct error err;
	assert(store_open(w.path, &w.store, &w.network, &err) < 0 && strstr(err.message, "earlier version"));
	assert(store_upgrade(w.path, NULL) == 0 && store_upgrade(w.path, NULL) == 0);
	open_again(&w);
	assert(member_is_relay(directory_find_by_name(&w.directory, "bob")));
	assert(!directory_find_by_name(&w.directory, "alice")->may_relay);
	assert(join(&w, REUSABLE, "carol", NOW) == 0 && !directory_find_by_name(&w.directory, "carol")->may_relay);
	end(&w);
}

static struct host_grant grant_of(uint32_t member_id, const char *host)
{
	struct host_grant grant = { .member_id = member_id, .created_s = NOW };

	assert(host_pattern_from(host, strlen(host), &grant.host) == 0);
	return grant;
}

static void test_a_grant_is_a_change_of_its_member(void)
{
	struct world w;

	begin(&w);
	assert(join(&w, REUSABLE, "alice", NOW) == 0 && join(&w, REUSABLE, "bob", NOW) == 0); /* sequence 3 */
	const struct host_grant grant = grant_of(1, "app.example.org");
	assert(store_add_host_grant(w.store, &grant, directory_find(&w.directory, 1), 4, NULL) == 0);
	open_again(&w);
	assert(w.directory.sequence == 4 && directory_find(&w.directory, 1)->revision == 4);
	assert(host_grants_find(&w.directory.grants, 1, &grant.host));
	assert(store_add_host_grant(w.store, &grant, directory_find(&w.directory, 1), 5, NULL) != 0); /* all or nothing */
	assert(store_remove_host_grant(w.store, &grant.host, directory_find(&w.directory, 1), 5, NULL) == 0);
	open_again(&w);
	assert(w.directory.sequence == 5 && directory_find(&w.directory, 1)->revision == 5 && w.directory.grants.n == 0);
	end(&w);
}

/* Nodes whose maps are of before have to be told. */
static void test_of_a_store_of_version_3_the_grants_are_told_anew(void)
{
	struct world w;

	begin(&w);
	for (int i = 0; i < 3; i++)
		assert(join(&w, REUSABLE, i == 0 ? "alice" : i == 1 ? "bob" : "carol", NOW) == 0); /* sequence 4 */
	const struct host_grant grants[] = { grant_of(1, "a.org"), grant_of(3, "c.org"), grant_of(3, "d.org") };
	for (uint32_t i = 0; i < 3; i++)
		assert(store_add_host_grant(w.store, &grants[i], directory_find(&w.directory, grants[i].member_id), 5 + i,
					    NULL) == 0);
	open_again(&w);
	const uint64_t before = w.directory.sequence;
	w.store = store_close(w.store);
	directory_deinit(&w.directory);
	run_sql(w.path, "PRAGMA user_version = 3");
	assert(store_upgrade(w.path, NULL) == 0 && store_upgrade(w.path, NULL) == 0);
	open_again(&w);
	assert(w.directory.sequence == before + 2 && directory_find(&w.directory, 2)->revision <= before);
	assert(directory_find(&w.directory, 1)->revision == before + 1 && directory_find(&w.directory, 3)->revision == before + 2);
	assert(directory_can_resume(&w.directory, UINT64_MAX, before));
	end(&w);
}

static void test_a_removal_survives_and_its_id_with_it(void)
{
	struct world w;

	begin(&w);
	assert(join(&w, REUSABLE, "alice", NOW) == 0 && join(&w, REUSABLE, "bob", NOW) == 0);
	assert(store_remove_member(w.store, 2, 4, NULL) == 0);
	open_again(&w);
	assert(w.directory.n_present == 1 && w.directory.n_removed == 1 &&
	       w.directory.last_id == 2);
	assert(directory_can_resume(&w.directory, UINT64_MAX, 3));
	assert(join(&w, REUSABLE, "bob", NOW) == 0);
	assert(directory_find_by_name(&w.directory, "bob")->peer.id == 3);
	end(&w);
}

static void test_each_key_says_why_it_is_not_good(void)
{
	struct world w;

	begin(&w);
	assert(join(&w, "jk_XXECAwQFBgcICQoLDA0ODxAREhMUFRYX", "x", NOW) == STORE_KEY_UNKNOWN);
	assert(join(&w, ONE_OFF, "x", NOW + 60) == STORE_KEY_EXPIRED);
	assert(join(&w, ONE_OFF, "x", NOW + 59) == 0);
	assert(join(&w, ONE_OFF, "y", NOW) == STORE_KEY_USED);
	assert(store_revoke_join_key(w.store, 2, NULL) == 0);
	assert(join(&w, REUSABLE, "y", NOW) == STORE_KEY_REVOKED);
	assert(store_revoke_join_key(w.store, 99, NULL) == -ENOENT);
	end(&w);
}

static void test_a_join_that_fails_uses_up_no_key(void)
{
	struct world w;
	struct error err;

	begin(&w);
	assert(join(&w, REUSABLE, "alice", NOW) == 0);
	struct member twin =
		newcomer(&w, "alice"); /* the name is taken: the whole transaction fails */
	assert(store_join(w.store, ONE_OFF, 0, &twin, 3, NOW, &err) < 0);
	assert(join(&w, ONE_OFF, "bob", NOW) == 0);
	end(&w);
}

static void test_a_key_is_good_once_more_for_the_member_that_used_it(void)
{
	struct world w;

	begin(&w);
	assert(join(&w, ONE_OFF, "alice", NOW) == 0 && join(&w, REUSABLE, "bob", NOW) == 0);
	struct member alice = *directory_find_by_name(&w.directory, "alice");
	struct member bob = *directory_find_by_name(&w.directory, "bob");
	assert(store_join(w.store, ONE_OFF, alice.peer.id, &alice, 4, NOW + 3600, NULL) == 0);
	assert(store_join(w.store, ONE_OFF, bob.peer.id, &bob, 4, NOW, NULL) == STORE_KEY_USED);
	open_again(&w);
	assert(w.directory.sequence == 3 && w.directory.n_present == 2);
	end(&w);
}

/* A child changes the store until it is killed; what it said was done must be there. */
static void test_kill_9_loses_nothing_that_was_acknowledged(void)
{
	struct world w;
	int fds[2], status;
	uint64_t acknowledged = 0, sequence;

	begin(&w);
	assert(join(&w, REUSABLE, "alice", NOW) == 0);
	struct member alice = *directory_find_by_name(&w.directory, "alice");
	sequence = w.directory.sequence;
	w.store = store_close(w.store);
	assert(pipe(fds) == 0);
	pid_t child = fork();
	assert(child >= 0);
	if (child == 0) {
		open_again(&w);
		while (store_put_member(w.store, &alice, ++sequence, NULL) == 0)
			if (write(fds[1], &sequence, sizeof(sequence)) != sizeof(sequence))
				break;
		_exit(1);
	}
	close(fds[1]);
	while (acknowledged < sequence + 100)
		assert(read(fds[0], &acknowledged, sizeof(acknowledged)) == sizeof(acknowledged));
	assert(kill(child, SIGKILL) == 0 && waitpid(child, &status, 0) == child);
	while (read(fds[0], &acknowledged, sizeof(acknowledged)) == sizeof(acknowledged)) {
	}
	close(fds[0]);
	directory_deinit(&w.directory);
	open_again(&w);
	assert(w.directory.sequence >= acknowledged && w.directory.sequence <= acknowledged + 1);
	assert(directory_find_by_name(&w.directory, "alice")->revision == w.directory.sequence);
	end(&w);
}

static void expect_open_fails(struct world *w, const char *part)
{
	struct store_network network;
	struct store *store = NULL;
	struct error err;

	assert(store_open(w->path, &store, &network, &err) < 0 && !store);
	if (!strstr(err.message, part) || !strstr(err.message, w->path))
		fprintf(stderr, "%s\n", err.message);
	assert(strstr(err.message, part) && strstr(err.message, w->path));
}

static void test_what_is_no_store_is_named_with_its_remedy(void)
{
	struct world w;
	char junk[8192];

	begin(&w);
	w.store = store_close(w.store);
	memset(junk, 'x', sizeof(junk));
	assert(file_write_atomic(w.path, junk, sizeof(junk), 0600, NULL) == 0);
	expect_open_fails(&w, "put back a copy of the state folder");
	assert(file_write_atomic(w.path, "", 0, 0600, NULL) == 0);
	expect_open_fails(&w, "run p2pcontrol init");
	assert(unlink(w.path) == 0);
	expect_open_fails(&w, "run p2pcontrol init first");
	end(&w);
}

int main(void)
{
	assert(sodium_init() >= 0);
	test_what_init_decided_is_read_again();
	test_members_and_changes_survive();
	test_what_is_said_of_a_relay_survives_that_it_is_none_now();
	test_a_store_of_version_1_is_brought_up_to_date_and_its_relays_stay_relays();
	test_a_removal_survives_and_its_id_with_it();
	test_of_a_store_of_version_3_the_grants_are_told_anew();
	test_a_grant_is_a_change_of_its_member();
	test_each_key_says_why_it_is_not_good();
	test_a_join_that_fails_uses_up_no_key();
	test_a_key_is_good_once_more_for_the_member_that_used_it();
	test_kill_9_loses_nothing_that_was_acknowledged();
	test_what_is_no_store_is_named_with_its_remedy();
	puts("ok");
}
