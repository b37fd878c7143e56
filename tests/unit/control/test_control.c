/*
 * A control service and nodes in one process, over loopback TLS on a real loop.
 * docs/PROTOCOL-control.md
 *
 * Each test: given a network, something happens, then everybody knows what he should. Conditions
 * are awaited with a deadline, never a time.
 */
#include "common/admin_call.h"
#include "common/file.h"
#include "common/log.h"
#include "common/node_proof.h"
#include "common/rpc_connection.h"
#include "control/control.h"
#include "control/service.h"
#include "node/control_client.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEADLINE_MS 20000

struct world {
	uv_loop_t loop;
	char folder[64];
	struct control *control;
	uint16_t port;
	struct websocket_host *host; /* of the nodes and admins */
	struct join_link link, admin;
	bool control_closed, host_closed;
};

struct node {
	struct world *w;
	struct secret_key key;
	struct public_key public_key;
	char *identity_key;
	struct membership membership;
	struct control_client *client;
	bool is_joined, is_closed;
	int n_connected, n_disconnected, n_maps, n_renewed, n_removed, n_woken;
	struct error join_error;
	char disconnected_why[256];
	struct map map; /* as last told */
};

/* Waiting */

static const char *running; /* the test, for the message */

static void on_deadline(uv_timer_t *timer)
{
	fprintf(stderr, "%s: deadline passed\n", running);
	abort();
}

#define UNTIL(w, condition)                                                                        \
	do {                                                                                       \
		uv_timer_t *until_timer = start_deadline(w);                                       \
		while (!(condition))                                                               \
			uv_run(&(w)->loop, UV_RUN_ONCE);                                           \
		uv_close((uv_handle_t *)until_timer, free_timer);                                  \
	} while (0)

static void free_timer(uv_handle_t *handle)
{
	free(handle);
}

static uv_timer_t *start_deadline(struct world *w)
{
	uv_timer_t *timer = malloc(sizeof(*timer));

	assert(timer);
	uv_timer_init(&w->loop, timer);
	uv_timer_start(timer, on_deadline, DEADLINE_MS, 0);
	return timer;
}

/* The world */

static void set_true(void *owner)
{
	*(bool *)owner = true;
}

static void start_control(struct world *w)
{
	const struct control_options options = {
		.state_dir = w->folder,
		.listen = endpoint_from_v4(INADDR_LOOPBACK, w->port),
	};
	struct error err = { 0 };

	if (control_new(&w->loop, &options, &w->control, &err) != 0) {
		fprintf(stderr, "%s\n", err.message);
		abort();
	}
	w->port = control_port(w->control);
	w->link.port = w->admin.port = w->port;
	w->control_closed = false;
}

static void stop_control(struct world *w)
{
	control_close(w->control, set_true, &w->control_closed);
	UNTIL(w, w->control_closed);
	w->control = NULL;
}

static void begin_with(struct world *w, bool reusable, int64_t life_s)
{
	const struct control_init_options options = {
		.state_dir = w->folder,
		.network = "home",
		.host = "127.0.0.1",
		.port = 8443,
		.first_key_reusable = reusable,
		.first_key_life_s = life_s,
	};
	struct error err = { 0 };

	memset(w, 0, sizeof(*w));
	snprintf(w->folder, sizeof(w->folder), "/tmp/p2p-test-control-XXXXXX");
	assert(mkdtemp(w->folder));
	if (control_init(&options, &w->link, &w->admin, &err) != 0) {
		fprintf(stderr, "%s\n", err.message);
		abort();
	}
	assert(uv_loop_init(&w->loop) == 0);
	assert(websocket_host_new(&w->loop, &w->host, NULL) == 0);
	start_control(w);
}

static void begin(struct world *w)
{
	begin_with(w, true, 3600);
}

static void remove_folder(const char *folder)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -r '%s'", folder);
	assert(system(command) == 0);
}

static void end(struct world *w)
{
	websocket_host_close(w->host, set_true, &w->host_closed);
	if (w->control)
		control_close(w->control, set_true, &w->control_closed);
	uv_run(&w->loop, UV_RUN_DEFAULT); /* ends by itself: nothing is left on the loop */
	assert(w->host_closed && w->control_closed);
	assert(uv_loop_close(&w->loop) == 0);
	remove_folder(w->folder);
}

/* Nodes */

static void node_init(struct world *w, struct node *n)
{
	memset(n, 0, sizeof(*n));
	n->w = w;
	secret_key_generate(&n->key);
	secret_key_public(&n->key, &n->public_key);
	assert(identity_key_generate(&n->identity_key, NULL) == 0);
}

static void on_joined(void *owner, const struct membership *membership, const struct error *err)
{
	struct node *n = owner;

	n->is_joined = true;
	if (membership)
		n->membership = *membership;
	n->join_error = err ? *err : (struct error){ 0 };
}

/* 0, or the code of the refusal. */
static int join(struct node *n, const struct join_link *link, const char *name)
{
	const struct control_join_options options = {
		.host = n->w->host,
		.link = link,
		.node_key = &n->key,
		.identity_key_pem = n->identity_key,
		.name = name,
	};

	n->is_joined = false;
	assert(control_client_join(&options, on_joined, n, NULL) == 0);
	assert(!n->is_joined);
	UNTIL(n->w, n->is_joined);
	return n->join_error.code;
}

static void on_connected(void *owner)
{
	((struct node *)owner)->n_connected++;
}

static void on_disconnected(void *owner, const char *why)
{
	struct node *n = owner;

	n->n_disconnected++;
	snprintf(n->disconnected_why, sizeof(n->disconnected_why), "%s", why);
}

static void on_map_changed(void *owner, const struct map *map)
{
	struct node *n = owner;

	n->n_maps++;
	map_deinit(&n->map);
	assert(map_copy(map, &n->map) == 0);
}

static void on_renewed(void *owner, const char *certificate_pem)
{
	struct node *n = owner;

	n->n_renewed++;
	snprintf(n->membership.certificate_pem, sizeof(n->membership.certificate_pem), "%s",
		 certificate_pem);
}

static void on_removed(void *owner, const char *why)
{
	((struct node *)owner)->n_removed++;
}

static void on_woken(void *owner)
{
	((struct node *)owner)->n_woken++;
}

static void start_node(struct node *n, const struct map *cached)
{
	const struct control_client_options options = {
		.host = n->w->host,
		.control_host = "127.0.0.1",
		.control_port = n->w->port,
		.pin = n->w->link.pin,
		.identity_key_pem = n->identity_key,
		.certificate_pem = n->membership.certificate_pem,
		.node_key = &n->key,
		.cached = cached,
		.ports = { n, on_connected, on_disconnected, on_map_changed, on_renewed,
			   on_removed, on_woken },
	};
	struct error err = { 0 };

	if (control_client_new(&options, &n->client, &err) != 0) {
		fprintf(stderr, "%s\n", err.message);
		abort();
	}
	n->is_closed = false;
}

static void stop_node(struct node *n)
{
	control_client_close(n->client, set_true, &n->is_closed);
	UNTIL(n->w, n->is_closed);
	n->client = NULL;
}

static void node_deinit(struct node *n)
{
	if (n->client)
		stop_node(n);
	map_deinit(&n->map);
	certificate_free_secret(n->identity_key);
}

/* Joined and connected. */
static void bring_up(struct world *w, struct node *n, const char *name)
{
	node_init(w, n);
	assert(join(n, &w->link, name) == 0);
	start_node(n, NULL);
	UNTIL(w, n->n_connected == 1);
}

static struct node_update update_of(uint8_t key, const char *endpoint)
{
	struct node_update update = { .session_key = { { key } }, .n_endpoints = 1 };

	assert(endpoint_parse(endpoint, &update.endpoints[0]) == 0);
	return update;
}

static const struct map_peer *peer(const struct node *n, const char *name)
{
	return map_find_peer_by_name(&n->map, name);
}

/* Joining */

static void test_a_node_joins_and_gets_its_map(void)
{
	struct world w;
	struct node alice;

	begin(&w);
	bring_up(&w, &alice, "Alice.example.org");
	assert(strcmp(alice.membership.name, "alice") == 0 &&
	       strcmp(alice.membership.network, "home") == 0);
	assert(alice.membership.node_id == 1 && alice.map.self.id == 1 && alice.map.n_peers == 0);
	assert(alice.membership.ip4.s_addr == htonl(0x0a4d0001) &&
	       alice.membership.ip6.s6_addr[15] == 1);
	assert(alice.membership.ip6.s6_addr[0] == 0xfd && alice.membership.prefix6_len == 64);
	assert(strcmp(alice.map.network, "home") == 0 && alice.map.prefix4_len == 16);
	node_deinit(&alice);
	end(&w);
}

static void test_nodes_learn_of_each_other(void)
{
	struct world w;
	struct node alice, bob;

	begin(&w);
	bring_up(&w, &alice, "alice");
	bring_up(&w, &bob, "bob");
	UNTIL(&w, peer(&alice, "bob") && peer(&alice, "bob")->online);
	assert(peer(&bob, "alice") && peer(&bob, "alice")->id == 1);
	assert(public_key_equal(&peer(&bob, "alice")->node_key, &alice.public_key));
	struct node_update update = update_of(9, "192.0.2.1:51820");
	control_client_update(alice.client, &update);
	UNTIL(&w, peer(&bob, "alice")->n_endpoints == 1);
	assert(peer(&bob, "alice")->session_key.bytes[0] == 9);
	node_deinit(&alice);
	node_deinit(&bob);
	end(&w);
}

static void test_names_stay_unique(void)
{
	struct world w;
	struct node a, b, c;

	begin(&w);
	node_init(&w, &a);
	node_init(&w, &b);
	node_init(&w, &c);
	assert(join(&a, &w.link, "pi") == 0 && join(&b, &w.link, "pi") == 0 &&
	       join(&c, &w.link, "PI!") == 0);
	assert(strcmp(a.membership.name, "pi") == 0 && strcmp(b.membership.name, "pi-2") == 0);
	assert(strcmp(c.membership.name, "pi-3") == 0);
	node_deinit(&a);
	node_deinit(&b);
	node_deinit(&c);
	end(&w);
}

static void test_a_wrong_key_is_refused(void)
{
	struct world w;
	struct node n;

	begin(&w);
	node_init(&w, &n);
	struct join_link wrong = w.link;
	join_link_make_secret(JOIN_LINK_NODE, wrong.secret);
	assert(join(&n, &wrong, "n") == RPC_JOIN_KEY_UNKNOWN);
	assert(strstr(n.join_error.message, "p2pctl admin key create"));
	assert(!strstr(n.join_error.message, wrong.secret));
	node_deinit(&n);
	end(&w);
}

static void test_an_expired_key_is_refused(void)
{
	struct world w;
	struct node n;

	begin_with(&w, true, -1);
	node_init(&w, &n);
	assert(join(&n, &w.link, "n") == RPC_JOIN_KEY_EXPIRED);
	node_deinit(&n);
	end(&w);
}

static void test_a_one_off_key_joins_one_node(void)
{
	struct world w;
	struct node first, second;

	begin_with(&w, false, 0);
	node_init(&w, &first);
	node_init(&w, &second);
	assert(join(&first, &w.link, "first") == 0);
	assert(join(&second, &w.link, "second") == RPC_JOIN_KEY_USED);
	/*
	 * The one that used it gets the same answer again, as after a crash between commit and
	 * answer.
	 */
	struct membership before = first.membership;
	assert(join(&first, &w.link, "another-name") == 0);
	assert(first.membership.node_id == before.node_id);
	assert(strcmp(first.membership.name, before.name) == 0);
	assert(first.membership.ip4.s_addr == before.ip4.s_addr);
	node_deinit(&first);
	node_deinit(&second);
	end(&w);
}

static void test_a_wrong_pin_joins_nobody(void)
{
	struct world w;
	struct node n;

	begin(&w);
	node_init(&w, &n);
	struct join_link wrong = w.link;
	wrong.pin.bytes[0] ^= 1;
	assert(join(&n, &wrong, "n") == -ECONNREFUSED);
	assert(strstr(n.join_error.message, "does not match the pin"));
	node_deinit(&n);
	end(&w);
}

static void test_an_answer_lost_after_the_commit_loses_nothing(void)
{
	struct world w;
	struct node n;

	begin_with(&w, false, 0);
	node_init(&w, &n);
	/* What node.join does up to the commit; then the process dies. */
	struct member m = { .peer = { .id = 1, .name = "n", .node_key = n.public_key } };
	assert(directory_free_addresses(&w.control->directory, &m.peer.ip4, &m.peer.ip6) == 0);
	assert(store_join(w.control->store, w.link.secret, 0, &m, w.control->directory.sequence + 1,
			  control_now_s(), NULL) == 0);
	stop_control(&w);
	start_control(&w);
	assert(join(&n, &w.link, "n") == 0);
	assert(n.membership.node_id == 1 && n.membership.ip4.s_addr == m.peer.ip4.s_addr);
	assert(w.control->directory.n_present == 1);
	node_deinit(&n);
	end(&w);
}

/* The map over time */

static void test_a_restart_of_control_keeps_members_and_resumes_with_patches(void)
{
	struct world w;
	struct node alice, bob;

	begin(&w);
	bring_up(&w, &alice, "alice");
	bring_up(&w, &bob, "bob");
	struct node_update update = update_of(9, "192.0.2.1:51820");
	control_client_update(bob.client, &update);
	UNTIL(&w, peer(&alice, "bob") && peer(&alice, "bob")->n_endpoints == 1);
	uint64_t sequence = alice.map.sequence;
	stop_control(&w);
	UNTIL(&w, alice.n_disconnected > 0 && bob.n_disconnected > 0);
	assert(peer(&alice, "bob")); /* a broken connection removes nobody */
	start_control(&w);
	UNTIL(&w, alice.n_connected == 2 && bob.n_connected == 2);
	assert(alice.map.sequence ==
	       sequence); /* nothing had changed: an empty patch, no snapshot */
	assert(peer(&alice, "bob")->n_endpoints == 1 && peer(&alice, "bob")->online);
	node_deinit(&alice);
	node_deinit(&bob);
	end(&w);
}

static void test_a_node_that_was_away_gets_what_it_missed(void)
{
	struct world w;
	struct node alice, bob, carol;
	struct map cached;

	begin(&w);
	bring_up(&w, &alice, "alice");
	bring_up(&w, &bob, "bob");
	UNTIL(&w, peer(&alice, "bob"));
	assert(map_copy(&alice.map, &cached) == 0);
	stop_node(&alice);
	bring_up(&w, &carol, "carol");
	struct node_update update = update_of(9, "192.0.2.1:51820");
	control_client_update(carol.client, &update);
	UNTIL(&w, peer(&bob, "carol") && peer(&bob, "carol")->n_endpoints == 1);
	/* A peer that only our cache knows shows that it was a patch that came. */
	struct map_peer *marked =
		(struct map_peer *)(uintptr_t)map_find_peer_by_name(&cached, "bob");
	marked->home_relay = 4711;
	alice.n_maps = 0;
	start_node(&alice, &cached);
	UNTIL(&w, alice.n_connected == 2);
	assert(alice.n_maps == 1 && peer(&alice, "carol") &&
	       peer(&alice, "carol")->n_endpoints == 1);
	assert(peer(&alice, "bob")->home_relay == 4711);
	map_deinit(&cached);
	node_deinit(&alice);
	node_deinit(&bob);
	node_deinit(&carol);
	end(&w);
}

static void test_a_map_of_another_history_is_replaced(void)
{
	struct world w;
	struct node alice;
	struct map cached;

	begin(&w);
	bring_up(&w, &alice, "alice");
	assert(map_copy(&alice.map, &cached) == 0);
	stop_node(&alice);
	cached.epoch++;
	cached.sequence = 1;
	start_node(&alice, &cached);
	UNTIL(&w, alice.n_connected == 2);
	assert(alice.map.epoch == cached.epoch - 1);
	map_deinit(&cached);
	node_deinit(&alice);
	end(&w);
}

static void test_updates_that_come_together_travel_together(void)
{
	struct world w;
	struct node alice, bob;

	begin(&w);
	bring_up(&w, &alice, "alice");
	bring_up(&w, &bob, "bob");
	UNTIL(&w, peer(&bob, "alice")->online);
	int maps = bob.n_maps;
	for (uint8_t i = 1; i <= 100; i++) {
		struct node_update update = update_of(i, "192.0.2.1:51820");
		control_client_update(alice.client, &update);
	}
	UNTIL(&w, peer(&bob, "alice")->session_key.bytes[0] == 100);
	assert(bob.n_maps - maps <= 3); /* the latest wins */
	node_deinit(&alice);
	node_deinit(&bob);
	end(&w);
}

/* Leaving */

struct answer {
	bool is_there;
	int code; /* 0: a result */
	char *text;
};

static void on_answer(void *owner, const struct json *result, const struct rpc_error *error)
{
	struct answer *answer = owner;

	answer->is_there = true;
	answer->code = error ? error->code : 0;
	answer->text = result ? json_print(result) : strdup(error->message);
}

static void test_a_node_is_woken_by_a_peer_but_not_without_end(void)
{
	struct world w;
	struct node alice, bob;

	begin(&w);
	bring_up(&w, &alice, "alice");
	bring_up(&w, &bob, "bob");
	UNTIL(&w, peer(&alice, "bob"));
	control_client_wake(alice.client, 4711); /* nobody */
	for (int i = 0; i < 300; i++)
		control_client_wake(alice.client, peer(&alice, "bob")->id);
	UNTIL(&w, bob.n_woken == 1);
	control_client_update(alice.client, &(struct node_update){ .session_key = { { 9 } } });
	UNTIL(&w, peer(&bob, "alice")->session_key.bytes[0] == 9); /* it came after the second */
	assert(bob.n_woken == 1 && alice.n_woken == 0 && alice.n_disconnected == 0);
	control_client_wake(alice.client, peer(&alice, "bob")->id);
	UNTIL(&w, bob.n_woken == 2);
	node_deinit(&alice);
	node_deinit(&bob);
	end(&w);
}

static void test_a_node_that_leaves_vanishes(void)
{
	struct world w;
	struct node alice, bob;
	struct answer answer = { 0 };

	begin(&w);
	bring_up(&w, &alice, "alice");
	bring_up(&w, &bob, "bob");
	UNTIL(&w, peer(&alice, "bob"));
	assert(control_client_leave(bob.client, on_answer, &answer) == 0);
	UNTIL(&w, answer.is_there);
	assert(answer.code == 0);
	UNTIL(&w, !peer(&alice, "bob"));
	free(answer.text);
	UNTIL(&w, bob.n_removed == 1); /* its certificate is good, but it is no member */
	node_deinit(&alice);
	node_deinit(&bob);
	end(&w);
}

/* Admins */

static struct json *params_of(const char *text)
{
	const struct json_limits limits = { .max_len = 4096 };
	struct json *params = NULL;

	assert(json_parse(text, strlen(text), &limits, &params, NULL) == 0);
	return params;
}

static struct answer ask_as_admin(struct world *w, const struct join_link *admin,
				  const char *method, const char *params)
{
	struct answer answer = { 0 };

	assert(admin_call(w->host, admin, method, params_of(params), on_answer, &answer, NULL) ==
	       0);
	UNTIL(w, answer.is_there);
	return answer;
}

static void expect_answer(struct answer answer, int code, const char *part)
{
	if (answer.code != code || !strstr(answer.text, part)) {
		fprintf(stderr, "%d %s\n", answer.code, answer.text);
		abort();
	}
	free(answer.text);
}

static void test_an_admin_removes_and_renames_nodes(void)
{
	struct world w;
	struct node alice, bob;

	begin(&w);
	bring_up(&w, &alice, "alice");
	bring_up(&w, &bob, "bob");
	expect_answer(ask_as_admin(&w, &w.admin, "admin.node.list", "{}"), 0, "\"name\":\"bob\"");
	expect_answer(ask_as_admin(&w, &w.admin, "admin.node.rename",
				   "{\"name\":\"bob\",\"new_name\":\"alice\"}"),
		      RPC_NAME_TAKEN, "another node");
	expect_answer(ask_as_admin(&w, &w.admin, "admin.node.rename",
				   "{\"name\":\"bob\",\"new_name\":\"robert\"}"),
		      0, "{}");
	UNTIL(&w, peer(&alice, "robert") && strcmp(bob.map.self.name, "robert") == 0);
	expect_answer(ask_as_admin(&w, &w.admin, "admin.node.remove", "{\"name\":\"bob\"}"),
		      RPC_NOT_FOUND, "no node");
	expect_answer(ask_as_admin(&w, &w.admin, "admin.node.remove", "{\"name\":\"robert\"}"), 0,
		      "{}");
	UNTIL(&w, !peer(&alice, "robert") && bob.n_removed == 1);
	expect_answer(ask_as_admin(&w, &w.admin, "admin.status", "{}"), 0, "\"nodes\":1");
	node_deinit(&alice);
	node_deinit(&bob);
	end(&w);
}

/* Relays */

static void add_relay(struct world *w, const char *params)
{
	expect_answer(ask_as_admin(w, &w->admin, "admin.relay.add", params), 0, "\"public\"");
}

static struct node_update public_update(void)
{
	struct node_update update = update_of(1, "198.51.100.1:51820");

	update.public_node =
		(struct node_public){ .tls_port = 443, .stun_port = 3478, .n_addresses = 1 };
	assert(endpoint_parse_ip("198.51.100.1", 0, &update.public_node.addresses[0]) == 0);
	return update;
}

static void test_a_public_node_becomes_a_relay_and_stops_being_one(void)
{
	struct world w;
	struct node pub, bob;

	begin(&w);
	bring_up(&w, &pub, "pub");
	bring_up(&w, &bob, "bob");
	add_relay(&w, "{\"name\":\"pub\"}");
	struct node_update update = public_update();
	control_client_update(pub.client, &update);
	UNTIL(&w, bob.map.n_relays == 1);
	const struct map_relay *relay = map_find_relay(&bob.map, 1);
	assert(relay && relay->tls_port == 443 && relay->stun_port == 3478 &&
	       strcmp(relay->name, "pub") == 0);
	assert(strcmp(endpoint_ip_text(&relay->addresses[0]).s, "198.51.100.1") == 0);
	update.public_node = (struct node_public){ 0 };
	control_client_update(pub.client, &update);
	UNTIL(&w, bob.map.n_relays == 0);
	assert(peer(&bob, "pub"));
	node_deinit(&pub);
	node_deinit(&bob);
	end(&w);
}

static void test_who_offers_to_be_a_relay_is_none_until_an_admin_adds_it(void)
{
	struct world w;
	struct node pub, bob;

	begin(&w);
	bring_up(&w, &pub, "pub");
	bring_up(&w, &bob, "bob");
	struct node_update update = public_update();
	control_client_update(pub.client, &update);
	UNTIL(&w, directory_find_by_name(&w.control->directory, "pub")->offers_relay);
	expect_answer(ask_as_admin(&w, &w.admin, "admin.relay.list", "{}"), 0, "\"added\":false");
	assert(bob.map.n_relays == 0);
	expect_answer(ask_as_admin(&w, &w.admin, "admin.relay.add",
				   "{\"name\":\"pub\",\"region\":\"eu-west\",\"cost_ms\":50}"),
		      0, "\"public\":true");
	UNTIL(&w, bob.map.n_relays == 1 && pub.map.n_relays == 1);
	assert(strcmp(bob.map.relays[0].region, "eu-west") == 0 && bob.map.relays[0].cost_ms == 50);
	/* What is said again changes; the rest stays, also over what the node tells. */
	expect_answer(ask_as_admin(&w, &w.admin, "admin.relay.add", "{\"name\":\"pub\",\"cost_ms\":0}"), 0, "");
	update.public_node.tls_port = 8443;
	control_client_update(pub.client, &update);
	UNTIL(&w, bob.map.relays[0].tls_port == 8443);
	assert(strcmp(bob.map.relays[0].region, "eu-west") == 0 && bob.map.relays[0].cost_ms == 0);
	expect_answer(ask_as_admin(&w, &w.admin, "admin.relay.remove", "{\"name\":\"pub\"}"), 0, "{}");
	UNTIL(&w, bob.map.n_relays == 0 && peer(&bob, "pub"));
	expect_answer(ask_as_admin(&w, &w.admin, "admin.relay.remove", "{\"name\":\"pub\"}"), RPC_NOT_FOUND,
		      "no relay");
	node_deinit(&pub);
	node_deinit(&bob);
	end(&w);
}

/* Hosts */

static struct node_update publishing(const struct node *n, const char *host, const char *second)
{
	struct node_update update = update_of((uint8_t)n->membership.node_id, "192.0.2.1:51820");

	update.publishes = true;
	update.exposures = (struct map_exposures){ .id = n->membership.node_id, .port = 7443, .n = second ? 2 : 1 };
	snprintf(update.exposures.hosts[0], sizeof(update.exposures.hosts[0]), "%s", host);
	snprintf(update.exposures.hosts[1], sizeof(update.exposures.hosts[1]), "%s", second ? second : "");
	return update;
}

static void grant_host(struct world *w, const char *method, const char *name, const char *host, int code, const char *part)
{
	char params[256];

	snprintf(params, sizeof(params), "{\"name\":\"%s\",\"host\":\"%s\"}", name, host);
	expect_answer(ask_as_admin(w, &w->admin, method, params), code, part);
}

/* "https://a.org b.org": the hosts of that node in that map. */
static bool publishes(const struct node *n, const struct node *whose, const char *expected)
{
	uint32_t count;
	const struct map_exposure *exposures = map_exposures_of(&n->map, whose->membership.node_id, &count);
	char found[2 * (MAP_HOST_LEN + 2)] = "";

	for (uint32_t i = 0; i < count && i < 2; i++) {
		strcat(found, i ? " " : "");
		strcat(found, exposures[i].host);
	}
	return strcmp(found, expected) == 0;
}

static void test_a_host_is_in_the_map_while_it_is_granted(void)
{
	struct world w;
	struct node alice, bob;
	uint64_t sequence;

	begin(&w);
	bring_up(&w, &alice, "alice");
	bring_up(&w, &bob, "bob");
	struct node_update update = publishing(&alice, "https://app.example.org", "http://b.org");
	control_client_update(alice.client, &update);
	UNTIL(&w, control_client_word(alice.client, &sequence) == CONTROL_HAS_ANSWERED);
	UNTIL(&w, alice.map.sequence >= sequence && sequence > 0 && alice.map.n_exposures == 0);
	grant_host(&w, "admin.host.add", "alice", "*.example.org", 0, "{}");
	UNTIL(&w, publishes(&bob, &alice, "https://app.example.org") && publishes(&alice, &alice, "https://app.example.org"));
	assert(bob.map.exposures[0].port == 7443);
	grant_host(&w, "admin.host.add", "alice", "b.org", 0, "{}");
	UNTIL(&w, publishes(&bob, &alice, "https://app.example.org http://b.org"));
	grant_host(&w, "admin.host.add", "bob", "app.example.org", 0, "{}"); /* his by name, hers by wildcard only */
	UNTIL(&w, publishes(&bob, &alice, "http://b.org"));
	grant_host(&w, "admin.host.remove", "alice", "b.org", 0, "{}");
	UNTIL(&w, publishes(&bob, &alice, "") && publishes(&alice, &alice, ""));
	node_deinit(&alice);
	node_deinit(&bob);
	end(&w);
}

static void test_nobody_is_granted_the_name_of_a_public_node(void)
{
	struct world w;
	struct node pub, alice;

	begin(&w);
	bring_up(&w, &pub, "pub");
	bring_up(&w, &alice, "alice");
	grant_host(&w, "admin.host.add", "alice", "pub", 0, "{}"); /* not public yet: nobody asks for a relay of that name */
	grant_host(&w, "admin.host.remove", "alice", "pub", 0, "{}");
	add_relay(&w, "{\"name\":\"pub\"}");
	struct node_update update = public_update();
	control_client_update(pub.client, &update);
	UNTIL(&w, alice.map.n_relays == 1);
	grant_host(&w, "admin.host.add", "alice", "PUB.", RPC_INVALID_PARAMS, "pub is a public node of this network");
	grant_host(&w, "admin.host.add", "pub", "pub", RPC_INVALID_PARAMS, "a host needs another");
	grant_host(&w, "admin.host.add", "alice", "*.pub", 0, "{}");
	grant_host(&w, "admin.host.add", "alice", "alice", 0, "{}"); /* no relay has it */
	grant_host(&w, "admin.host.add", "alice", "hub", 0, "{}");
	expect_answer(ask_as_admin(&w, &w.admin, "admin.node.rename", "{\"name\":\"pub\",\"new_name\":\"hub\"}"),
		      RPC_INVALID_PARAMS, "hub is a host that is granted");
	expect_answer(ask_as_admin(&w, &w.admin, "admin.node.rename", "{\"name\":\"alice\",\"new_name\":\"hub\"}"), 0, "{}");
	node_deinit(&pub);
	node_deinit(&alice);
	end(&w);
}

static void test_grants_are_listed_and_what_waits_for_one(void)
{
	struct world w;
	struct node alice;
	uint64_t sequence;

	begin(&w);
	bring_up(&w, &alice, "alice");
	struct node_update update = publishing(&alice, "https://app.example.org", NULL);
	control_client_update(alice.client, &update);
	UNTIL(&w, control_client_word(alice.client, &sequence) == CONTROL_HAS_ANSWERED);
	grant_host(&w, "admin.host.list", "", "", 0, "\"host\":\"https://app.example.org\",\"name\":\"alice\",\"granted\":false");
	grant_host(&w, "admin.host.add", "alice", "App.Example.org.", 0, "{}");
	grant_host(&w, "admin.host.add", "alice", "app.example.org", 0, "{}"); /* is granted */
	grant_host(&w, "admin.host.list", "", "", 0,
		   "[{\"host\":\"app.example.org\",\"name\":\"alice\",\"granted\":true,\"exposed\":true,\"online\":true}]");
	grant_host(&w, "admin.host.add", "alice", "https://app.example.org", RPC_INVALID_PARAMS, "without scheme");
	grant_host(&w, "admin.host.add", "carol", "app.example.org", RPC_NOT_FOUND, "no node");
	grant_host(&w, "admin.host.remove", "alice", "b.org", RPC_NOT_FOUND, "'b.org' is not granted to 'alice'");
	node_deinit(&alice);
	end(&w);
}

static void test_a_member_that_is_removed_loses_its_hosts(void)
{
	struct world w;
	struct node alice, bob;

	begin(&w);
	bring_up(&w, &alice, "alice");
	bring_up(&w, &bob, "bob");
	grant_host(&w, "admin.host.add", "alice", "b.org", 0, "{}");
	struct node_update update = publishing(&alice, "b.org", NULL);
	control_client_update(alice.client, &update);
	UNTIL(&w, publishes(&bob, &alice, "b.org"));
	expect_answer(ask_as_admin(&w, &w.admin, "admin.node.remove", "{\"name\":\"alice\"}"), 0, "{}");
	UNTIL(&w, !peer(&bob, "alice") && bob.map.n_exposures == 0);
	grant_host(&w, "admin.host.list", "", "", 0, "\"hosts\":[]");
	node_deinit(&alice);
	node_deinit(&bob);
	end(&w);
}

static void grant_port(struct world *w, const char *name, const char *port, const char *on)
{
	char params[256];

	snprintf(params, sizeof(params), "{\"name\":\"%s\",\"port\":\"%s\",\"on\":\"%s\"}", name, port, on);
	expect_answer(ask_as_admin(w, &w->admin, "admin.port.add", params), 0, "{}");
}

static bool has_grants(const struct node *n, uint32_t count)
{
	return n->map.n_grants == count;
}

/* Nobody could name its front door any more to take them back; nor one that was removed before it was so. */
static void test_what_is_granted_at_a_front_door_goes_with_it(void)
{
	const char *left = "\"ports\":[{\"port\":\"tcp:2222\",\"name\":\"alice\",\"on\":\"second\"";
	struct node alice, gate, second;
	struct host_grant lost = { 0 };
	struct error err;
	struct world w;

	begin(&w);
	bring_up(&w, &alice, "alice");
	bring_up(&w, &gate, "gate");
	bring_up(&w, &second, "second");
	grant_port(&w, "alice", "tcp:2222", "gate");
	grant_port(&w, "alice", "tcp:2222", "second");
	grant_port(&w, "gate", "udp:53", "gate");
	UNTIL(&w, has_grants(&alice, 3));
	expect_answer(ask_as_admin(&w, &w.admin, "admin.node.remove", "{\"name\":\"gate\"}"), 0, "{}");
	UNTIL(&w, has_grants(&alice, 1));
	expect_answer(ask_as_admin(&w, &w.admin, "admin.port.list", "{}"), 0, left);
	assert(host_grant_name_from("tcp:2222/999", &lost.host) == 0);
	lost.member_id = alice.membership.node_id;
	assert(control_add_grant(w.control, &lost, directory_find(&w.control->directory, lost.member_id), &err) == 0);
	UNTIL(&w, has_grants(&alice, 2));
	stop_control(&w);
	start_control(&w);
	UNTIL(&w, has_grants(&alice, 1));
	expect_answer(ask_as_admin(&w, &w.admin, "admin.port.list", "{}"), 0, left);
	node_deinit(&alice);
	node_deinit(&gate);
	node_deinit(&second);
	end(&w);
}

/* As after a put that failed: the grants are others, what follows from them is not yet put. */
static void test_what_an_admin_says_again_is_judged_again(void)
{
	struct world w;
	struct node alice, bob;
	struct host_grant grant = { .created_s = 1 };

	begin(&w);
	bring_up(&w, &alice, "alice");
	bring_up(&w, &bob, "bob");
	assert(host_pattern_from("b.org", 5, &grant.host) == 0);
	grant.member_id = alice.membership.node_id;
	grant_host(&w, "admin.host.add", "alice", "b.org", 0, "{}");
	struct node_update update = publishing(&alice, "b.org", NULL);
	control_client_update(alice.client, &update);
	UNTIL(&w, publishes(&bob, &alice, "b.org"));
	host_grants_remove(&w.control->directory.grants, grant.member_id, &grant.host);
	grant_host(&w, "admin.host.remove", "alice", "b.org", RPC_NOT_FOUND, "not granted");
	UNTIL(&w, publishes(&bob, &alice, ""));
	assert(host_grants_add(&w.control->directory.grants, &grant) == 0);
	grant_host(&w, "admin.host.add", "alice", "b.org", 0, "{}");
	UNTIL(&w, publishes(&bob, &alice, "b.org"));
	node_deinit(&alice);
	node_deinit(&bob);
	end(&w);
}

static void test_a_node_knows_why_control_refused_its_update(void)
{
	struct world w;
	struct node alice, bob;

	begin(&w);
	bring_up(&w, &alice, "alice");
	bring_up(&w, &bob, "bob");
	struct node_update update = publishing(&alice, "b.org", NULL);
	control_client_update(alice.client, &update);
	UNTIL(&w, peer(&bob, "alice")->session_key.bytes[0] == update.session_key.bytes[0]);
	const struct public_key hers = update.session_key;
	update = publishing(&bob, "c.org", NULL);
	update.session_key = hers;
	control_client_update(bob.client, &update);
	UNTIL(&w, strstr(control_client_refusal(bob.client), "another node has it"));
	update = publishing(&bob, "c.org", NULL);
	control_client_update(bob.client, &update);
	UNTIL(&w, control_client_refusal(bob.client)[0] == '\0');
	node_deinit(&alice);
	node_deinit(&bob);
	end(&w);
}

static void test_the_name_of_a_removed_member_may_be_a_wildcards(void)
{
	struct world w;
	struct node alice, bob;

	begin(&w);
	bring_up(&w, &alice, "alice");
	bring_up(&w, &bob, "bob");
	grant_host(&w, "admin.host.add", "alice", "*.example.org", 0, "{}");
	grant_host(&w, "admin.host.add", "bob", "app.example.org", 0, "{}");
	struct node_update update = publishing(&alice, "app.example.org", "b.example.org");
	control_client_update(alice.client, &update);
	UNTIL(&w, publishes(&alice, &alice, "b.example.org"));
	expect_answer(ask_as_admin(&w, &w.admin, "admin.node.remove", "{\"name\":\"bob\"}"), 0, "{}");
	UNTIL(&w, publishes(&alice, &alice, "app.example.org b.example.org"));
	node_deinit(&alice);
	node_deinit(&bob);
	end(&w);
}

static void test_grants_and_exposures_survive_a_restart_of_control(void)
{
	struct world w;
	struct node alice, bob;

	begin(&w);
	bring_up(&w, &alice, "alice");
	grant_host(&w, "admin.host.add", "alice", "b.org", 0, "{}");
	struct node_update update = publishing(&alice, "b.org", "c.org");
	control_client_update(alice.client, &update);
	UNTIL(&w, publishes(&alice, &alice, "b.org"));
	node_deinit(&alice); /* what it published stays in the map */
	stop_control(&w);
	start_control(&w);
	bring_up(&w, &bob, "bob");
	UNTIL(&w, bob.map.n_exposures == 1 && strcmp(bob.map.exposures[0].host, "b.org") == 0);
	grant_host(&w, "admin.host.add", "alice", "c.org", 0, "{}");
	UNTIL(&w, bob.map.n_exposures == 2);
	node_deinit(&bob);
	end(&w);
}

static void test_a_name_that_is_granted_is_in_the_map_before_it_is_published(void)
{
	struct world w;
	struct node alice, bob;

	begin(&w);
	bring_up(&w, &alice, "alice");
	bring_up(&w, &bob, "bob");
	const uint32_t her = alice.membership.node_id;
	grant_host(&w, "admin.host.add", "alice", "App.example.org", 0, "{}");
	UNTIL(&w, map_has_grant(&bob.map, her, "app.example.org") && map_has_grant(&alice.map, her, "app.example.org"));
	grant_host(&w, "admin.host.add", "alice", "b.org", 0, "{}");
	UNTIL(&w, map_has_grant(&bob.map, her, "b.org"));
	grant_host(&w, "admin.host.remove", "alice", "app.example.org", 0, "{}");
	UNTIL(&w, bob.map.n_grants == 1 && alice.map.n_grants == 1);
	stop_control(&w);
	start_control(&w);
	grant_host(&w, "admin.host.remove", "alice", "b.org", 0, "{}");
	UNTIL(&w, bob.map.n_grants == 0); /* resumed */
	node_deinit(&alice);
	node_deinit(&bob);
	end(&w);
}

static void test_who_says_no_more_that_it_publishes_does_not(void)
{
	struct world w;
	struct node alice;

	begin(&w);
	bring_up(&w, &alice, "alice");
	grant_host(&w, "admin.host.add", "alice", "b.org", 0, "{}");
	struct node_update update = publishing(&alice, "b.org", NULL);
	control_client_update(alice.client, &update);
	UNTIL(&w, publishes(&alice, &alice, "b.org"));
	update.publishes = false; /* a node of an earlier version, say */
	control_client_update(alice.client, &update);
	UNTIL(&w, publishes(&alice, &alice, ""));
	update.publishes = true;
	update.exposures.id++;
	control_client_update(alice.client, &update);
	grant_host(&w, "admin.host.list", "", "", 0, "\"exposed\":false"); /* of another's, nothing is taken */
	node_deinit(&alice);
	end(&w);
}

static void test_a_relays_region_is_a_label_and_its_cost_bounded(void)
{
	struct world w;
	struct node pub;

	begin(&w);
	bring_up(&w, &pub, "pub");
	expect_answer(ask_as_admin(&w, &w.admin, "admin.relay.add", "{\"name\":\"pub\",\"region\":\"E U\"}"),
		      RPC_INVALID_PARAMS, "'region'");
	expect_answer(ask_as_admin(&w, &w.admin, "admin.relay.add", "{\"name\":\"pub\",\"cost_ms\":10001}"),
		      RPC_INVALID_PARAMS, "'cost_ms'");
	expect_answer(ask_as_admin(&w, &w.admin, "admin.relay.add", "{\"name\":\"pub\",\"price\":1}"),
		      RPC_INVALID_PARAMS, "'price'");
	expect_answer(ask_as_admin(&w, &w.admin, "admin.relay.add", "{\"name\":\"nobody\"}"), RPC_NOT_FOUND,
		      "no node");
	assert(!directory_find_by_name(&w.control->directory, "pub")->may_relay);
	node_deinit(&pub);
	end(&w);
}

static void test_who_joins_with_a_key_for_relays_is_one_when_it_offers(void)
{
	struct world w;
	struct node pub, bob;
	struct join_link link;

	begin(&w);
	bring_up(&w, &bob, "bob");
	node_init(&w, &pub);
	struct answer answer = ask_as_admin(&w, &w.admin, "admin.key.create", "{\"relay\":true}");
	struct json *key = params_of(answer.text);
	assert(join_link_parse(json_text(json_member(key, "link")), &link, NULL) == 0);
	json_free(key);
	free(answer.text);
	link.port = w.port; /* the network says 8443, the test listens elsewhere */
	assert(join(&pub, &link, "pub") == 0);
	start_node(&pub, NULL);
	UNTIL(&w, pub.n_connected == 1);
	struct node_update update = public_update();
	control_client_update(pub.client, &update);
	UNTIL(&w, bob.map.n_relays == 1);
	node_deinit(&pub);
	node_deinit(&bob);
	end(&w);
}

static void test_an_admin_makes_and_revokes_keys(void)
{
	struct world w;
	struct node n;
	struct join_link link;
	const struct json *text;

	begin(&w);
	node_init(&w, &n);
	struct answer answer =
		ask_as_admin(&w, &w.admin, "admin.key.create",
			     "{\"reusable\":true,\"expires_in_s\":3600,\"tags\":[\"lab\",\"pi\"]}");
	assert(answer.code == 0);
	struct json *json = params_of(answer.text);
	text = json_member(json, "link");
	assert(join_link_parse(json_text(text), &link, NULL) == 0);
	link.port = w.port; /* the network says 8443, the test listens elsewhere */
	assert(join(&n, &link, "n") == 0);
	expect_answer(ask_as_admin(&w, &w.admin, "admin.key.list", "{}"), 0,
		      "\"uses\":1,\"node_ttl_s\":0,\"tags\":[\"lab\",\"pi\"]");
	expect_answer(ask_as_admin(&w, &w.admin, "admin.node.list", "{}"), 0,
		      "\"tags\":[\"lab\",\"pi\"]");
	expect_answer(ask_as_admin(&w, &w.admin, "admin.key.revoke", "{\"id\":2}"), 0, "{}");
	expect_answer(ask_as_admin(&w, &w.admin, "admin.key.revoke", "{\"id\":99}"), RPC_NOT_FOUND,
		      "no join key");
	struct node late;
	node_init(&w, &late);
	assert(join(&late, &link, "late") == RPC_JOIN_KEY_REVOKED);
	json_free(json);
	free(answer.text);
	node_deinit(&n);
	node_deinit(&late);
	end(&w);
}

static void test_a_wrong_token_is_no_admin(void)
{
	struct world w;

	begin(&w);
	struct join_link wrong = w.admin;
	join_link_make_secret(JOIN_LINK_ADMIN, wrong.secret);
	expect_answer(ask_as_admin(&w, &wrong, "admin.status", "{}"), RPC_TOKEN_UNKNOWN, "token");
	expect_answer(ask_as_admin(&w, &w.admin, "admin.nothing", "{}"), RPC_METHOD_NOT_FOUND, "");
	expect_answer(ask_as_admin(&w, &w.admin, "node.hello", "{}"), RPC_NOT_AUTHENTICATED, "");
	end(&w);
}

/* Certificates */

static void test_a_node_with_an_expired_certificate_proves_its_key(void)
{
	struct world w;
	struct node n;
	char *request = NULL, *old = NULL;

	begin(&w);
	node_init(&w, &n);
	assert(join(&n, &w.link, "n") == 0);
	assert(certificate_request(n.identity_key, &request, NULL) == 0);
	assert(certificate_issue_node(&w.control->ca, request, "n", &n.public_key,
				      control_now_s() - 7200, 3600, &old, NULL) == 0);
	snprintf(n.membership.certificate_pem, sizeof(n.membership.certificate_pem), "%s", old);
	start_node(&n, NULL);
	UNTIL(&w, n.n_connected == 1);
	assert(n.n_renewed == 1);
	free(request);
	free(old);
	node_deinit(&n);
	end(&w);
}

static void test_a_certificate_is_renewed_at_half_its_life(void)
{
	struct world w;
	struct node n;
	char *request = NULL, *old = NULL;
	struct identity before, after;

	begin(&w);
	node_init(&w, &n);
	assert(join(&n, &w.link, "n") == 0);
	assert(certificate_request(n.identity_key, &request, NULL) == 0);
	assert(certificate_issue_node(&w.control->ca, request, "n", &n.public_key,
				      control_now_s() - 1000, 1200, &old, NULL) == 0);
	snprintf(n.membership.certificate_pem, sizeof(n.membership.certificate_pem), "%s", old);
	assert(certificate_identity_pem(old, &before, NULL) == 0);
	start_node(&n, NULL);
	UNTIL(&w, n.n_renewed == 1);
	assert(certificate_identity_pem(n.membership.certificate_pem, &after, NULL) == 0);
	assert(after.not_after_s > before.not_after_s && n.n_connected == 1);
	free(request);
	free(old);
	node_deinit(&n);
	end(&w);
}

/* Raw messages */

struct raw {
	struct websocket *ws;
	bool is_open, is_closed;
	int n_messages;
	char last[512];
};

static void raw_opened(void *owner, struct websocket *ws)
{
	((struct raw *)owner)->is_open = true;
}

static void raw_message(void *owner, struct websocket *ws, const char *text, size_t len)
{
	struct raw *raw = owner;

	raw->n_messages++;
	snprintf(raw->last, sizeof(raw->last), "%s", text);
}

static void raw_closed(void *owner, struct websocket *ws, const char *why)
{
	((struct raw *)owner)->is_closed = true;
}

/* With the certificate of a node, or as a stranger. */
static void raw_connect(struct world *w, struct raw *raw, const struct node *as)
{
	const struct websocket_client_options options = {
		.host = "127.0.0.1",
		.port = w->port,
		.tls = { .trust = TLS_TRUST_PIN,
			 .pin = w->link.pin,
			 .certificate_pem = as ? as->membership.certificate_pem : NULL,
			 .key_pem = as ? as->identity_key : NULL },
		.max_message = 65536,
		.max_queue = 1 << 20,
		.handler = { raw, raw_opened, raw_message, raw_closed },
	};

	*raw = (struct raw){ 0 };
	raw->ws = websocket_connect(w->host, &options, NULL);
	UNTIL(w, raw->is_open);
}

static void raw_send(struct raw *raw, const char *method, struct json *params_take)
{
	char *text = rpc_print_request(1, method, params_take);

	assert(websocket_send(raw->ws, text, strlen(text)) == 0);
	free(text);
}

/* The answer is raw->last, cut. */
static void raw_call(struct world *w, struct raw *raw, const char *method, struct json *params_take)
{
	int n = raw->n_messages;

	raw_send(raw, method, params_take);
	UNTIL(w, raw->n_messages > n);
}

static struct json *hello_params(void)
{
	struct json *params = json_object();

	json_put_u64(params, "sequence", 0);
	json_put_u64(params, "epoch", 0);
	return params;
}

static struct json *wake_params(uint32_t peer_id)
{
	struct json *params = json_object(), *peers = json_array();

	json_append(peers, json_integer(peer_id));
	json_put(params, "peers", peers);
	return params;
}

static void test_who_has_not_greeted_wakes_nobody(void)
{
	struct world w;
	struct node alice, bob;
	struct raw raw;

	begin(&w);
	bring_up(&w, &alice, "alice");
	bring_up(&w, &bob, "bob");
	raw_connect(&w, &raw, &alice);
	raw_call(&w, &raw, "node.wake", wake_params(bob.membership.node_id));
	assert(strstr(raw.last, "result"));
	control_client_update(alice.client, &(struct node_update){ .session_key = { { 9 } } });
	UNTIL(&w, peer(&bob, "alice")->session_key.bytes[0] == 9);
	assert(bob.n_woken == 0);
	node_deinit(&alice);
	node_deinit(&bob);
	end(&w);
}

static void test_wakes_without_end_are_put_off_and_take_nothing_from_other_requests(void)
{
	struct world w;
	struct node alice, bob;
	struct raw raw;

	begin(&w);
	node_init(&w, &alice);
	assert(join(&alice, &w.link, "alice") == 0);
	bring_up(&w, &bob, "bob");
	raw_connect(&w, &raw, &alice);
	raw_call(&w, &raw, "node.hello", hello_params());
	UNTIL(&w, raw.n_messages == 2);
	for (int i = 0; i < 190; i++) {
		raw_call(&w, &raw, "node.wake", wake_params(bob.membership.node_id));
		assert(strstr(raw.last, "result"));
	}
	for (int i = 0; i < 150; i++) {
		struct json *params = json_object();
		json_put_public_key(params, "session_key", &alice.public_key);
		json_put(params, "endpoints", json_array());
		raw_call(&w, &raw, "node.update", params);
		assert(!strstr(raw.last, "error"));
	}
	UNTIL(&w, bob.n_woken == 4);
	UNTIL(&w, bob.n_woken == 5); /* 10 s after the first: the one that was put off */
	node_deinit(&alice);
	node_deinit(&bob);
	end(&w);
}

/* What proves the key of a node, with the challenge that raw got last. */
static struct json *join_params(struct world *w, struct raw *raw, const struct node *as)
{
	const struct json_limits limits = { .max_len = sizeof(raw->last) };
	struct json *answer, *params = json_object();
	struct node_challenge challenge;
	char proof[NODE_PROOF_LEN + 1], *request;

	assert(json_parse(raw->last, strlen(raw->last), &limits, &answer, NULL) == 0);
	assert(node_challenge_from_json(json_member(answer, "result"), &challenge, NULL) == 0);
	assert(node_proof_make(&challenge, &w->link.pin, &as->key, proof) == 0);
	assert(certificate_request(as->identity_key, &request, NULL) == 0);
	json_put_string(params, "key", w->link.secret);
	json_put_string(params, "name", "mallory");
	json_put_public_key(params, "node_key", &as->public_key);
	json_put_string(params, "proof", proof);
	json_put_string(params, "request", request);
	free(request);
	json_free(answer);
	return params;
}

/* Else the first member's record would keep pointing to a connection that is no longer its own. */
static void test_a_members_connection_cannot_become_another_members(void)
{
	struct world w;
	struct node alice, other;
	struct raw raw;

	begin(&w);
	node_init(&w, &alice);
	node_init(&w, &other);
	assert(join(&alice, &w.link, "alice") == 0);
	raw_connect(&w, &raw, &alice);
	raw_call(&w, &raw, "node.hello", hello_params());
	UNTIL(&w, raw.n_messages == 2); /* the map */
	raw_call(&w, &raw, "node.challenge", NULL);
	raw_call(&w, &raw, "node.join", join_params(&w, &raw, &other));
	assert(strstr(raw.last, "\"code\":-32002"));
	websocket_close(raw.ws, "enough");
	UNTIL(&w, raw.is_closed && w.control->n_connections == 0);
	start_node(&alice, NULL);
	UNTIL(&w, alice.n_connected == 1);
	node_deinit(&alice);
	node_deinit(&other);
	end(&w);
}

static struct json *update_params(uint8_t session_key, uint16_t port)
{
	struct json *params = json_object(), *endpoints = json_array();
	char endpoint[32];

	snprintf(endpoint, sizeof(endpoint), "192.0.2.1:%u", port);
	json_append_string(endpoints, endpoint);
	json_put_public_key(params, "session_key", &(struct public_key){ { session_key } });
	json_put(params, "endpoints", endpoints);
	return params;
}

static void test_a_session_key_is_one_nodes(void)
{
	struct world w;
	struct node alice, bob;
	struct raw raw;

	begin(&w);
	bring_up(&w, &alice, "alice");
	struct node_update update = update_of(7, "192.0.2.7:1");
	control_client_update(alice.client, &update);
	UNTIL(&w, alice.map.self.session_key.bytes[0] == 7);
	node_init(&w, &bob);
	assert(join(&bob, &w.link, "bob") == 0);
	raw_connect(&w, &raw, &bob);
	raw_call(&w, &raw, "node.update", update_params(7, 1));
	assert(strstr(raw.last, "\"code\":-32602") && strstr(raw.last, "session_key"));
	raw_call(&w, &raw, "node.update", update_params(8, 1));
	assert(strstr(raw.last, "\"result\":{\"sequence\""));
	node_deinit(&alice);
	node_deinit(&bob);
	end(&w);
}

static void test_there_are_never_more_relays_than_a_map_holds(void)
{
	struct world w;
	struct node alice;
	struct raw raw;

	begin(&w);
	node_init(&w, &alice);
	assert(join(&alice, &w.link, "alice") == 0);
	add_relay(&w, "{\"name\":\"alice\"}");
	struct directory *d = &w.control->directory;
	for (uint32_t i = 0; i < MAP_MAX_RELAYS; i++) {
		struct member m = { .offers_relay = true, .may_relay = true };
		m.peer.id = m.relay.id = 1000 + i;
		snprintf(m.peer.name, sizeof(m.peer.name), "relay-%u", i);
		directory_put(d, &m, d->sequence + 1);
	}
	struct json *params = update_params(1, 1), *public_node = json_object(),
		    *addresses = json_array();
	json_append_string(addresses, "192.0.2.1");
	json_put(public_node, "addresses", addresses);
	json_put(params, "public", public_node);
	raw_connect(&w, &raw, &alice);
	raw_call(&w, &raw, "node.update", params);
	assert(strstr(raw.last, "\"code\":-32014") && strstr(raw.last, "256 public nodes"));
	raw_call(&w, &raw, "node.update", update_params(1, 1));
	assert(strstr(raw.last, "\"result\":{\"sequence\""));
	node_deinit(&alice);
	end(&w);
}

static void test_a_stranger_may_ask_a_few_times_only(void)
{
	struct world w;
	struct raw raw;

	begin(&w);
	raw_connect(&w, &raw, NULL);
	for (int i = 0; i < CONTROL_STRANGER_REQUESTS; i++)
		raw_call(&w, &raw, "node.challenge", NULL);
	assert(strstr(raw.last, "\"challenge\""));
	for (int i = 0; i < CONTROL_MAX_ERRORS; i++)
		raw_send(&raw, "node.challenge", NULL);
	UNTIL(&w, raw.is_closed);
	assert(strstr(raw.last, "\"code\":-32014"));
	end(&w);
}

/* Each change costs a write to the disk and a patch to everybody. */
static void test_a_member_that_never_stops_asking_is_slowed_down(void)
{
	struct world w;
	struct node alice;
	struct raw raw;

	begin(&w);
	node_init(&w, &alice);
	assert(join(&alice, &w.link, "alice") == 0);
	raw_connect(&w, &raw, &alice);
	uint64_t before = w.control->directory.sequence;
	for (uint16_t i = 0; i < 5 * CONTROL_REQUESTS_BURST; i++)
		raw_send(&raw, "node.update", update_params(1, (uint16_t)(1 + i)));
	UNTIL(&w, raw.is_closed);
	uint64_t n = w.control->directory.sequence - before;
	assert(n >= CONTROL_REQUESTS_BURST && n < 4 * CONTROL_REQUESTS_BURST);
	node_deinit(&alice);
	end(&w);
}

static void test_garbage_is_answered_counted_and_in_the_end_hung_up_on(void)
{
	struct world w;
	struct raw raw;

	begin(&w);
	raw_connect(&w, &raw, NULL);
	assert(websocket_send(raw.ws, "{]", 2) == 0);
	UNTIL(&w, raw.n_messages == 1);
	assert(strstr(raw.last, "\"code\":-32700"));
	const char *stranger =
		"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"node.update\",\"params\":{}}";
	assert(websocket_send(raw.ws, stranger, strlen(stranger)) == 0);
	UNTIL(&w, raw.n_messages == 2);
	assert(strstr(raw.last, "\"code\":-32001"));
	for (int i = 0; i < CONTROL_MAX_ERRORS; i++)
		assert(websocket_send(raw.ws, "[]", 2) == 0);
	UNTIL(&w, raw.is_closed);
	assert(w.control->n_bad_messages >= 2);
	end(&w);
}

/* Files */

static void test_init_twice_refuses_and_keeps_everything(void)
{
	struct world w;
	struct join_link link, admin;
	struct error err;
	struct node n;
	const struct control_init_options options = {
		.state_dir = w.folder, .network = "other", .host = "h", .port = 1
	};

	begin(&w);
	assert(control_init(&options, &link, &admin, &err) == -EEXIST);
	assert(strstr(err.message, "the network 'home' is here already"));
	node_init(&w, &n);
	assert(join(&n, &w.link, "n") == 0);
	node_deinit(&n);
	end(&w);
}

static void write_text(const struct world *w, const char *name, const char *text)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", w->folder, name);
	assert(file_write_atomic(path, text, strlen(text), 0600, NULL) == 0);
}

static void expect_start_fails(struct world *w, const char *part)
{
	const struct control_options options = { .state_dir = w->folder,
						 .listen = endpoint_from_v4(INADDR_LOOPBACK, 0) };
	struct control *control;
	struct error err;

	assert(control_new(&w->loop, &options, &control, &err) < 0);
	if (!strstr(err.message, part))
		fprintf(stderr, "%s\n", err.message);
	assert(strstr(err.message, part));
}

static void test_a_damaged_store_is_named(void)
{
	struct world w;

	begin(&w);
	expect_start_fails(&w, "another p2pcontrol serves this state folder");
	stop_control(&w);
	write_text(&w, "control.db",
		   "this is not a database, and longer than a header of one hundred bytes "
		   "has to be for sqlite to look at it at all, so here is more");
	expect_start_fails(&w, "/control.db: not a store or damaged");
	end(&w);
}

static void test_a_damaged_ca_is_named(void)
{
	struct world w;

	begin(&w);
	stop_control(&w);
	write_text(&w, "ca.key", "no key");
	expect_start_fails(&w, "/ca.key");
	end(&w);
}

static void test_keys_can_be_added_beside_the_running_service(void)
{
	struct world w;
	struct node n;
	struct join_link link;
	const struct control_key_options options = { .life_s = 60, .tags = "x" };

	begin(&w);
	assert(control_add_key(w.folder, &options, &link, NULL) == 0);
	link.port = w.port;
	node_init(&w, &n);
	assert(join(&n, &link, "n") == 0);
	node_deinit(&n);
	end(&w);
}

#define RUN(test)                                                                                  \
	do {                                                                                       \
		running = #test;                                                                   \
		test();                                                                            \
	} while (0)

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	log_set_level(getenv("TEST_DEBUG") ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR);
	assert(sodium_init() >= 0);
	RUN(test_a_node_joins_and_gets_its_map);
	RUN(test_nodes_learn_of_each_other);
	RUN(test_names_stay_unique);
	RUN(test_a_wrong_key_is_refused);
	RUN(test_an_expired_key_is_refused);
	RUN(test_a_one_off_key_joins_one_node);
	RUN(test_a_wrong_pin_joins_nobody);
	RUN(test_an_answer_lost_after_the_commit_loses_nothing);
	RUN(test_a_restart_of_control_keeps_members_and_resumes_with_patches);
	RUN(test_a_node_that_was_away_gets_what_it_missed);
	RUN(test_a_map_of_another_history_is_replaced);
	RUN(test_updates_that_come_together_travel_together);
	RUN(test_a_public_node_becomes_a_relay_and_stops_being_one);
	RUN(test_who_offers_to_be_a_relay_is_none_until_an_admin_adds_it);
	RUN(test_a_host_is_in_the_map_while_it_is_granted);
	RUN(test_nobody_is_granted_the_name_of_a_public_node);
	RUN(test_grants_are_listed_and_what_waits_for_one);
	RUN(test_a_member_that_is_removed_loses_its_hosts);
	RUN(test_what_is_granted_at_a_front_door_goes_with_it);
	RUN(test_what_an_admin_says_again_is_judged_again);
	RUN(test_a_node_knows_why_control_refused_its_update);
	RUN(test_the_name_of_a_removed_member_may_be_a_wildcards);
	RUN(test_grants_and_exposures_survive_a_restart_of_control);
	RUN(test_a_name_that_is_granted_is_in_the_map_before_it_is_published);
	RUN(test_who_says_no_more_that_it_publishes_does_not);
	RUN(test_a_relays_region_is_a_label_and_its_cost_bounded);
	RUN(test_who_joins_with_a_key_for_relays_is_one_when_it_offers);
	RUN(test_a_node_is_woken_by_a_peer_but_not_without_end);
	RUN(test_who_has_not_greeted_wakes_nobody);
	RUN(test_wakes_without_end_are_put_off_and_take_nothing_from_other_requests);
	RUN(test_a_node_that_leaves_vanishes);
	RUN(test_an_admin_removes_and_renames_nodes);
	RUN(test_an_admin_makes_and_revokes_keys);
	RUN(test_a_wrong_token_is_no_admin);
	RUN(test_a_node_with_an_expired_certificate_proves_its_key);
	RUN(test_a_certificate_is_renewed_at_half_its_life);
	RUN(test_a_members_connection_cannot_become_another_members);
	RUN(test_a_session_key_is_one_nodes);
	RUN(test_there_are_never_more_relays_than_a_map_holds);
	RUN(test_a_stranger_may_ask_a_few_times_only);
	RUN(test_a_member_that_never_stops_asking_is_slowed_down);
	RUN(test_garbage_is_answered_counted_and_in_the_end_hung_up_on);
	RUN(test_init_twice_refuses_and_keeps_everything);
	RUN(test_a_damaged_store_is_named);
	RUN(test_a_damaged_ca_is_named);
	RUN(test_keys_can_be_added_beside_the_running_service);
	puts("ok");
}
