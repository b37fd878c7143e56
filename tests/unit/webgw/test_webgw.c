/* webgw itself, over WebSockets made here: who is somebody, and whom a visitor is told to. */
#include "relay/webgw/webgw.h"

#include "heard.h"

#include "common/macros.h"

#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ZEROS_8 "3030303030303030"
#define ZEROS	ZEROS_8 ZEROS_8 ZEROS_8 ZEROS_8 /* 32 bytes '0' in hex */
#define HASH	"84e0c0eafaa95a34c293f278ac52e45ce537bab5e752a00e6959a13ae103b65a"

struct websocket {
	void *data;
	const struct identity *identity;
	bool is_proven, is_deaf, is_ended, was_taken;
	size_t queued;
	uint64_t stalled_ms;
	char last[1024];
};

static struct {
	uv_loop_t loop;
	struct websocket_server_options server;
	struct webgw *webgw;
	uint64_t ticket;
	int64_t subscription; /* last answered */
} world;

/* ---- instead of common/websocket.c ---- */

uv_loop_t *websocket_host_loop(const struct websocket_host *host)
{
	(void)host;
	return &world.loop;
}

int websocket_server_new(struct websocket_host *host, const struct websocket_server_options *options,
			 struct websocket_server **ret, struct error *reterr)
{
	(void)host;
	(void)reterr;
	world.server = *options;
	*ret = NULL;
	return 0;
}

struct websocket_server_counters websocket_server_counters(const struct websocket_server *server)
{
	(void)server;
	return (struct websocket_server_counters){ 0 };
}

int websocket_server_set_certificate(struct websocket_server *server, const char *certificate_pem, const char *key_pem,
				     struct error *reterr)
{
	(void)server;
	(void)certificate_pem;
	(void)key_pem;
	(void)reterr;
	return 0;
}

void websocket_server_take(struct websocket_server *server, int fd_take, const struct endpoint *remote)
{
	(void)server;
	(void)fd_take;
	(void)remote;
	assert(false); /* there is no server here */
}

bool websocket_was_taken(const struct websocket *ws)
{
	return ws->was_taken;
}

const struct identity *websocket_identity(const struct websocket *ws)
{
	return ws->identity;
}

int websocket_send(struct websocket *ws, const char *text, size_t len)
{
	if (ws->is_deaf || len > world.server.max_queue - ws->queued)
		return -ENOBUFS;
	ws->queued += len;
	snprintf(ws->last, sizeof(ws->last), "%s", text);
	return 0;
}

uint64_t websocket_stalled_ms(const struct websocket *ws)
{
	return ws->stalled_ms;
}

void websocket_prove(struct websocket *ws)
{
	ws->is_proven = true;
}

void websocket_unprove(struct websocket *ws)
{
	ws->is_proven = false;
}

void websocket_close(struct websocket *ws, const char *why)
{
	(void)why;
	ws->is_ended = true;
}

void websocket_abort(struct websocket *ws, const char *why)
{
	websocket_close(ws, why);
}

void websocket_set_data(struct websocket *ws, void *data)
{
	ws->data = data;
}

void *websocket_data(const struct websocket *ws)
{
	return ws->data;
}

struct endpoint websocket_remote(const struct websocket *ws)
{
	(void)ws;
	return endpoint_from_v4(INADDR_LOOPBACK, 1);
}

/* ---- the world ---- */

static void on_answer(void *owner, uint64_t ticket, int64_t subscription, struct agent_tally *tally)
{
	(void)owner;
	assert((tally != NULL) == (subscription != 0));
	assert(ticket == world.ticket);
	world.subscription = subscription;
}

static uint16_t dial_back_port(void *owner, bool is_tls)
{
	(void)owner;
	(void)is_tls;
	return 65535;
}

static uint16_t shared_port(void *owner)
{
	(void)owner;
	return 443;
}

static struct host_pattern pattern_of(const char *text)
{
	struct host_pattern pattern;

	assert(host_pattern_from(text, strlen(text), &pattern) == 0);
	return pattern;
}

static void add_host(const char *text)
{
	const struct host_pattern host = pattern_of(text);
	uint8_t hash[WEBGW_HASH_LEN];

	assert(webgw_hash_read(HASH, strlen(HASH), hash) == 0 && webgw_add_host(world.webgw, &host, hash) == 0);
}

static void begin(void)
{
	const struct webgw_options options = { .ports = { .answer = on_answer, .dial_back_port = dial_back_port,
							  .shared_port = shared_port } };

	memset(&world, 0, sizeof(world));
	assert(uv_loop_init(&world.loop) == 0);
	assert(webgw_new(&options, &world.webgw, NULL) == 0);
}

static void end(void)
{
	webgw_free(world.webgw);
	assert(uv_loop_close(&world.loop) == 0);
}

static void open_one(struct websocket *ws)
{
	memset(ws, 0, sizeof(*ws));
	world.server.handler.opened(world.server.handler.owner, ws);
}

static void close_one(struct websocket *ws)
{
	world.server.handler.closed(world.server.handler.owner, ws, "it went");
}

static void ask(struct websocket *ws, const char *method, const char *params)
{
	char text[WEBGW_MAX_REQUEST];

	const int len = snprintf(text, sizeof(text), "{\"jsonrpc\":\"2.0\",\"method\":\"%s\",\"params\":%s,\"id\":1}", method, params);
	assert(len > 0 && len < (int)sizeof(text));
	world.server.handler.message(world.server.handler.owner, ws, text, (size_t)len);
	ws->queued = 0; /* it reads the answer */
}

static int64_t enter(struct websocket *ws, const char *host)
{
	char params[512];
	long long id;

	snprintf(params, sizeof(params), "{\"host\":\"%s\",\"hex_secret\":\"" ZEROS "\"}", host);
	ask(ws, "webgw_registerClient", params);
	assert(sscanf(ws->last, "{\"jsonrpc\":\"2.0\",\"result\":%lld", &id) == 1);
	return id;
}

static void leave(struct websocket *ws, int64_t id)
{
	char params[64];

	snprintf(params, sizeof(params), "[%lld]", (long long)id);
	ask(ws, "webgw_unregisterClient", params);
}

/* The subscription that was told; 0: nobody was. */
static int64_t visit(const char *host)
{
	struct dial_wanted wanted = { .ticket = ++world.ticket, .port = 443 };

	assert(host_name_from(host, strlen(host), &wanted.host) == 0);
	webgw_wanted(world.webgw, &wanted);
	return world.subscription;
}

static void in_vain(int64_t id)
{
	webgw_over(world.webgw, &(struct dial_over){ .subscription = id, .end = SUBSCRIPTIONS_IN_VAIN });
}

/* ---- who is somebody ---- */

static void test_who_has_no_subscription_left_is_as_one_that_has_not_subscribed(void)
{
	struct websocket ws;

	begin();
	add_host("a.example");
	add_host("b.example");
	open_one(&ws);
	assert(!ws.is_proven);
	const int64_t first = enter(&ws, "a.example"), second = enter(&ws, "b.example");
	assert(ws.is_proven && enter(&ws, "a.example") == first); /* again: it has two all the same */
	leave(&ws, second + 1);					  /* what it has not */
	leave(&ws, first);
	assert(ws.is_proven);
	leave(&ws, first); /* no longer there */
	assert(ws.is_proven);
	leave(&ws, second);
	assert(!ws.is_proven && !ws.is_ended && strstr(ws.last, "true"));
	(void)enter(&ws, "b.example");
	assert(ws.is_proven);
	close_one(&ws);
	end();
}

static void test_who_loses_its_last_host_is_so_too(void)
{
	const struct host_pattern a = pattern_of("a.example"), b = pattern_of("b.example");
	struct websocket both, one;

	begin();
	add_host("a.example");
	add_host("b.example");
	open_one(&both);
	open_one(&one);
	(void)enter(&both, "a.example");
	(void)enter(&both, "b.example");
	(void)enter(&one, "a.example");
	assert(webgw_remove_host(world.webgw, &a));
	assert(both.is_proven && !one.is_proven);
	assert(webgw_remove_host(world.webgw, &b));
	assert(!both.is_proven);
	close_one(&both);
	close_one(&one);
	end();
}

/* ---- who is told ---- */

/* Whatever the length of their host's name: nothing of it has gone out yet when the last comes. */
static void test_all_that_may_wait_for_an_agent_may_come_at_once(void)
{
	char label[64], host[254];
	struct websocket ws;

	begin();
	memset(label, 'a', sizeof(label));
	label[63] = '\0';
	snprintf(host, sizeof(host), "%s.%s.%s.%.61s", label, label, label, label);
	add_host(host);
	open_one(&ws);
	const int64_t id = enter(&ws, host);
	for (int i = 0; i < SUBSCRIPTIONS_MAX_PENDING; i++)
		assert(visit(host) == id);
	assert(visit(host) == 0 && webgw_counters(world.webgw).not_read == 0);
	close_one(&ws);
	end();
}

static void test_who_rests_is_told_when_nobody_else_can_be(void)
{
	struct websocket resting, deaf[2];

	begin();
	add_host("a.example");
	open_one(&resting);
	const int64_t id = enter(&resting, "a.example");
	for (int i = 0; i < SUBSCRIPTIONS_DOUBT; i++) {
		assert(visit("a.example") == id);
		in_vain(id);
	}
	for (size_t i = 0; i < ARRAY_LEN(deaf); i++) {
		open_one(&deaf[i]);
		const int64_t other = enter(&deaf[i], "a.example");
		assert(visit("a.example") == other); /* who rests is passed over */
		in_vain(other);
		deaf[i].is_deaf = true;
	}
	for (int i = 0; i < 3; i++)
		assert(visit("a.example") == id);
	deaf[1].stalled_ms = 5000; /* it is ended, and the others are asked all the same */
	assert(visit("a.example") == id && deaf[1].is_ended && webgw_counters(world.webgw).ended == 1);
	resting.is_deaf = true;
	assert(visit("a.example") == 0 && webgw_counters(world.webgw).not_read == 1);
	close_one(&resting);
	for (size_t i = 0; i < ARRAY_LEN(deaf); i++)
		close_one(&deaf[i]);
	assert(visit("a.example") == 0 && webgw_counters(world.webgw).nobody == 1);
	end();
}

/* ---- members ---- */

static struct {
	const char *name; /* who is granted the host */
	uint32_t n_changed;
} grant;

static bool is_granted(void *owner, const struct identity *who, const struct host_pattern *host)
{
	(void)owner;
	return grant.name && strcmp(grant.name, who->name) == 0 && strcmp(host->name.text, "m.example") == 0;
}

static void on_changed(void *owner)
{
	(void)owner;
	grant.n_changed++;
}

static bool is_any_granted(void *owner, const struct host_pattern *host)
{
	(void)owner;
	return !host->is_wildcard && grant.name != NULL;
}

static void begin_with_members(void)
{
	const struct webgw_options options = { .ports = { .answer = on_answer,
							  .dial_back_port = dial_back_port,
							  .is_granted = is_granted,
							  .is_any_granted = is_any_granted,
							  .changed = on_changed } };
	const struct tls_options tls = { .is_server = true };

	memset(&world, 0, sizeof(world));
	memset(&grant, 0, sizeof(grant));
	assert(uv_loop_init(&world.loop) == 0);
	assert(webgw_new(&options, &world.webgw, NULL) == 0);
	assert(world.server.is_plain);
	assert(webgw_open_tls(world.webgw, NULL, &options.listen, &tls, NULL) == 0);
	assert(!world.server.is_plain);
}

static void test_a_member_serves_what_is_granted_to_it_without_a_secret(void)
{
	const struct identity alice = { .name = "alice" }, bob = { .name = "bob" };
	const char *params = "{\"host\":\"m.example\"}";
	const struct host_pattern host = pattern_of("m.example");
	uint8_t hash[WEBGW_HASH_LEN] = { 0 };
	struct websocket ws, other;

	begin_with_members();
	open_one(&ws);
	open_one(&other);
	grant.name = "alice";
	ask(&ws, "webgw_registerClient", params);
	assert(strstr(ws.last, "-32602")); /* nobody's certificate */
	ws.identity = &alice;
	other.identity = &bob;
	ask(&other, "webgw_registerClient", params);
	assert(strstr(other.last, "-20000") && grant.n_changed == 0);
	ask(&ws, "webgw_registerClient", params);
	assert(strstr(ws.last, "result") && grant.n_changed == 1 && ws.is_proven);
	assert(visit("m.example") != 0);
	ask(&other, "webgw_registerClient", "{\"host\":\"m.example\",\"hex_secret\":\"" ZEROS "\"}");
	assert(strstr(other.last, "-20001")); /* no secret stands for a member */
	assert(webgw_add_host(world.webgw, &host, hash) == -EEXIST);
	webgw_recheck(world.webgw);
	assert(visit("m.example") != 0);
	grant.name = "bob"; /* the admin has changed his mind */
	webgw_recheck(world.webgw);
	assert(visit("m.example") == 0 && !ws.is_proven);
	ask(&other, "webgw_registerClient", params);
	assert(strstr(other.last, "result") && grant.n_changed == 2 && visit("m.example") != 0);
	close_one(&ws);
	close_one(&other);
	end();
}

/* While nobody serves it the host is whoever's else; who is carried goes on, also over a change of the map meanwhile. */
static void test_a_members_host_goes_with_its_last_agent_and_its_visitors_stay(void)
{
	const struct identity alice = { .name = "alice" };
	const char *params = "{\"host\":\"m.example\"}";
	struct host_pattern host;
	struct websocket ws, second;
	long long id;

	begin_with_members();
	add_host("secret.example");
	grant.name = "alice";
	open_one(&ws);
	open_one(&second);
	ws.identity = second.identity = &alice;
	ask(&ws, "webgw_registerClient", params);
	ask(&second, "webgw_registerClient", params);
	struct door_gate *of_visitors = door_gate_hold(webgw_host_at(world.webgw, 1, &host));
	assert(grant.n_changed == 1);
	close_one(&ws);
	assert(grant.n_changed == 1 && visit("m.example") != 0); /* another has it */
	close_one(&second);
	assert(grant.n_changed == 2 && webgw_host_at(world.webgw, 0, &host) && !webgw_host_at(world.webgw, 1, &host));
	webgw_recheck(world.webgw);
	assert(!door_gate_is_shut(of_visitors));
	door_gate_let_go(of_visitors);

	open_one(&ws);
	ws.identity = &alice;
	ask(&ws, "webgw_registerClient", params);
	assert(sscanf(ws.last, "{\"jsonrpc\":\"2.0\",\"result\":%lld", &id) == 1 && grant.n_changed == 3);
	leave(&ws, id);
	assert(grant.n_changed == 4 && !webgw_host_at(world.webgw, 1, &host));
	ask(&ws, "webgw_registerClient", params);
	of_visitors = door_gate_hold(webgw_host_at(world.webgw, 1, &host));
	grant.name = NULL; /* taken back */
	webgw_recheck(world.webgw);
	assert(door_gate_is_shut(of_visitors) && !webgw_host_at(world.webgw, 1, &host));
	door_gate_let_go(of_visitors);
	close_one(&ws);
	end();
}

/* Its agent's WebSocket is not what carries them, and its end takes nothing from what an admin says. */
static void test_a_grant_taken_back_cuts_visitors_of_an_agent_that_has_gone(void)
{
	const struct identity alice = { .name = "alice" }, bob = { .name = "bob" };
	const char *params = "{\"host\":\"m.example\"}";
	struct host_pattern host;
	struct websocket ws, again;

	for (int is_back = 0; is_back < 2; is_back++) {
		begin_with_members();
		grant.name = "alice";
		open_one(&ws);
		ws.identity = &alice;
		ask(&ws, "webgw_registerClient", params);
		struct door_gate *of_visitors = door_gate_hold(webgw_host_at(world.webgw, 0, &host));
		door_gate_enter(of_visitors);
		close_one(&ws);
		assert(!webgw_host_at(world.webgw, 0, &host));
		webgw_recheck(world.webgw);
		assert(!door_gate_is_shut(of_visitors));
		open_one(&again);
		again.identity = is_back ? &alice : &bob;
		ask(&again, "webgw_registerClient", params);
		assert(webgw_host_at(world.webgw, 0, &host) == (is_back ? of_visitors : NULL)); /* and what it counts */
		grant.name = "bob";
		webgw_recheck(world.webgw);
		assert(door_gate_is_shut(of_visitors) && !webgw_host_at(world.webgw, 0, &host));
		ask(&again, "webgw_registerClient", params);
		assert(is_back == !webgw_host_at(world.webgw, 0, &host));
		door_gate_leave(of_visitors);
		door_gate_let_go(of_visitors);
		close_one(&again);
		end();
	}
}

/* Whose agent they have is not known: any member's grant keeps them, until an agent is back. */
static void test_visitors_that_a_process_before_left_stay_while_a_member_has_their_host(void)
{
	const struct identity alice = { .name = "alice" };
	const struct host_pattern expected = pattern_of("m.example"), secret = pattern_of("secret.example");
	const char *params = "{\"host\":\"m.example\"}";
	struct host_pattern host;
	struct websocket ws;

	for (int is_back = 0; is_back < 2; is_back++) {
		begin_with_members();
		add_host("secret.example");
		assert(!webgw_expect_host(world.webgw, &expected)); /* nobody has it */
		grant.name = "bob";
		assert(!webgw_expect_host(world.webgw, &secret)); /* no member's */
		struct door_gate *of_visitors = door_gate_hold(webgw_expect_host(world.webgw, &expected));
		assert(of_visitors && of_visitors->is_members && webgw_expect_host(world.webgw, &expected) == of_visitors);
		door_gate_enter(of_visitors);
		grant.name = "alice";
		webgw_recheck(world.webgw);
		assert(!door_gate_is_shut(of_visitors) && !webgw_host_at(world.webgw, 1, &host));
		if (is_back) {
			open_one(&ws);
			ws.identity = &alice;
			ask(&ws, "webgw_registerClient", params);
			assert(webgw_host_at(world.webgw, 1, &host) == of_visitors);
			close_one(&ws);
			grant.name = "bob"; /* now it is known whose they are */
		} else {
			grant.name = NULL;
		}
		webgw_recheck(world.webgw);
		assert(door_gate_is_shut(of_visitors));
		door_gate_leave(of_visitors);
		door_gate_let_go(of_visitors);
		end();
	}
}

static void test_who_tries_secrets_is_sent_away_and_a_member_tries_none(void)
{
	const struct identity alice = { .name = "alice" };
	struct websocket ws;

	begin_with_members();
	open_one(&ws);
	ws.identity = &alice;
	for (int i = 0; i < 2 * WEBGW_MAX_WRONG; i++)
		ask(&ws, "webgw_registerClient", "{\"host\":\"not.example\"}");
	assert(strstr(ws.last, "-20000") && !ws.is_ended);
	for (int i = 0; i < WEBGW_MAX_WRONG; i++) {
		assert(!ws.is_ended);
		ask(&ws, "webgw_registerClient", "{\"host\":\"not.example\",\"hex_secret\":\"" ZEROS "\"}");
	}
	assert(ws.is_ended);
	close_one(&ws);
	end();
}

static void visit_guess_and_go(void)
{
	const struct identity alice = { .name = "alice" };
	struct websocket ws;

	open_one(&ws);
	ws.identity = &alice; /* who is not sent away */
	for (int i = 0; i < 100; i++)
		ask(&ws, "webgw_registerClient", "{\"host\":\"others.example\"}");
	close_one(&ws);
	for (int i = 0; i < 100; i++)
		assert(visit("nobody.example") == 0);
	for (int i = 0; i < 100; i++) {
		open_one(&ws);
		close_one(&ws);
	}
	open_one(&ws);
	ask(&ws, "webgw_registerClient", "{\"host\":\"not.example\",\"hex_secret\":\"" ZEROS "\"}");
	close_one(&ws);
}

static void test_who_guesses_is_told_of_whatever_visitors_strangers_and_members_make_of_lines(void)
{
	begin_with_members();
	const char *text = heard(visit_guess_and_go);
	assert(strstr(text, "no agent for a visitor of nobody.example"));
	assert(strstr(text, " is gone, and had not subscribed: it went"));
	assert(strstr(text, "others.example: unknown host or wrong secret of an agent at 127.0.0.1:1"));
	assert(strstr(text, "not.example: unknown host or wrong secret of an agent at 127.0.0.1:1"));
	end();
}

static void test_a_host_with_a_secret_is_no_members_to_take(void)
{
	const struct identity alice = { .name = "alice" };
	struct websocket ws;

	begin_with_members();
	add_host("m.example");
	grant.name = "alice";
	open_one(&ws);
	ws.identity = &alice;
	ask(&ws, "webgw_registerClient", "{\"host\":\"m.example\"}");
	assert(strstr(ws.last, "-20001"));
	(void)enter(&ws, "m.example"); /* who knows the secret may be a member as well */
	close_one(&ws);
	end();
}

/* ---- what is warm ---- */

static struct {
	uint32_t n_asked, n_ready, n_handed;
} ready;

static uint32_t on_prepare(void *owner, int64_t subscription, uint32_t n, uint8_t ret[][WEBGW_EPHEMERAL_LEN])
{
	(void)owner;
	(void)subscription;
	memset(ret, 0x5a, n * sizeof(*ret));
	ready.n_asked += n;
	return n;
}

static bool on_hand(void *owner, int64_t subscription, const struct dial_wanted *wanted)
{
	(void)owner;
	(void)subscription;
	(void)wanted;
	if (ready.n_ready == 0)
		return false;
	ready.n_ready--;
	ready.n_handed++;
	return true;
}

static void test_who_has_a_warm_connection_is_told_only_if_it_is_not_taken(void)
{
	const struct webgw_options options = { .ports = { .answer = on_answer,
							  .dial_back_port = dial_back_port,
							  .prepare = on_prepare,
							  .hand = on_hand } };
	const struct tls_options tls = { .is_server = true };
	struct dial_wanted wanted = { .port = 443 };
	struct websocket ws, other;
	char params[64];

	memset(&world, 0, sizeof(world));
	memset(&ready, 0, sizeof(ready));
	assert(uv_loop_init(&world.loop) == 0);
	assert(webgw_new(&options, &world.webgw, NULL) == 0);
	assert(webgw_open_tls(world.webgw, NULL, &options.listen, &tls, NULL) == 0);
	add_host("w.example");
	open_one(&ws);
	open_one(&other);
	const int64_t id = enter(&ws, "w.example");
	snprintf(params, sizeof(params), "{\"subscription\":%lld,\"count\":2}", (long long)id);
	ask(&other, "webgw_prepare", params);
	assert(strstr(other.last, "error") && ready.n_asked == 0); /* another's */
	ask(&ws, "webgw_prepare", params);
	assert(strstr(ws.last, "5a5a") && ready.n_asked == 2);
	ready.n_ready = 1;
	ws.last[0] = '\0';
	assert(visit("w.example") == id && ready.n_handed == 1 && ws.last[0] == '\0');
	assert(host_name_from("w.example", strlen("w.example"), &wanted.host) == 0);
	assert(webgw_not_taken(world.webgw, id, &wanted));
	assert(strstr(ws.last, "secret"));
	ws.last[0] = '\0';
	assert(visit("w.example") == id && strstr(ws.last, "secret"));
	close_one(&ws);
	assert(!webgw_is_there(world.webgw, id));
	assert(!webgw_not_taken(world.webgw, id, &wanted)); /* nobody is there to be told */
	(void)enter(&other, "w.example");
	other.last[0] = '\0';
	assert(webgw_not_taken(world.webgw, id, &wanted) && strstr(other.last, "secret")); /* who has gone has left it to another */
	close_one(&other);
	end();
}

/* ---- who visitors are ---- */

static void begin_within_tls(void)
{
	const struct tls_options tls = { .is_server = true };
	const struct endpoint listen = { 0 };

	begin();
	assert(webgw_open_tls(world.webgw, NULL, &listen, &tls, NULL) == 0); /* who comes now does so there */
}

static int64_t enter_asking(struct websocket *ws, const char *host)
{
	char params[512];
	long long id = 0;

	snprintf(params, sizeof(params), "{\"host\":\"%s\",\"hex_secret\":\"" ZEROS "\",\"visitor\":true}", host);
	ask(ws, "webgw_registerClient", params);
	if (sscanf(ws->last, "{\"jsonrpc\":\"2.0\",\"result\":{\"subscription\":%lld,\"visitor\":true},", &id) != 1)
		assert(sscanf(ws->last, "{\"jsonrpc\":\"2.0\",\"result\":%lld", &id) == 1);
	return id;
}

static int64_t visit_from(const char *host, const char *from, const char *to)
{
	struct dial_wanted wanted = { .ticket = ++world.ticket, .port = 443 };

	assert(endpoint_parse(from, &wanted.visitor.from) == 0 && endpoint_parse(to, &wanted.visitor.to) == 0);
	assert(host_name_from(host, strlen(host), &wanted.host) == 0);
	webgw_wanted(world.webgw, &wanted);
	return world.subscription;
}

static void test_who_asks_for_it_within_tls_is_told_who_visitors_are_and_nobody_else(void)
{
	struct websocket ws;

	for (int is_tls = 0; is_tls < 2; is_tls++) {
		if (is_tls)
			begin_within_tls();
		else
			begin();
		add_host("a.example");
		open_one(&ws);
		const int64_t id = enter(&ws, "a.example");
		assert(!webgw_tells_visitors(world.webgw, id));
		assert(visit_from("a.example", "192.0.2.7:40000", "198.51.100.1:443") == id && !strstr(ws.last, "visit"));
		assert(enter_asking(&ws, "a.example") == id && webgw_tells_visitors(world.webgw, id) == is_tls);
		assert((strstr(ws.last, "visitor") != NULL) == is_tls);
		assert(visit_from("a.example", "192.0.2.7:40000", "198.51.100.1:443") == id);
		assert((strstr(ws.last, "\"visitor\":\"192.0.2.7:40000\",\"visited\":\"198.51.100.1:443\"") != NULL) == is_tls);
		close_one(&ws);
		assert(!webgw_tells_visitors(world.webgw, id));
		end();
	}
}

static void test_all_that_may_wait_may_come_at_once_with_the_longest_of_names_and_addresses(void)
{
	char label[64], host[254];
	struct websocket ws;

	begin_within_tls();
	memset(label, 'a', sizeof(label));
	label[63] = '\0';
	snprintf(host, sizeof(host), "%s.%s.%s.%.61s", label, label, label, label);
	add_host(host);
	open_one(&ws);
	const int64_t id = enter_asking(&ws, host);
	for (int i = 0; i < SUBSCRIPTIONS_MAX_PENDING; i++)
		assert(visit_from(host, "[2001:1db8:1000:1000:1000:1000:1000:1000]:40000",
				  "[2001:1db8:1000:1000:1000:1000:1000:1001]:40000") == id);
	assert(visit(host) == 0 && webgw_counters(world.webgw).not_read == 0);
	close_one(&ws);
	end();
}

/* ---- the port that is shared ---- */

static void test_an_agent_dials_back_to_the_port_it_came_by(void)
{
	struct websocket by_own, by_shared;

	begin();
	add_host("a.example");
	add_host("b.example");
	open_one(&by_own);
	open_one(&by_shared);
	by_shared.was_taken = true;
	(void)enter(&by_own, "a.example");
	(void)enter(&by_shared, "b.example");
	assert(visit("a.example") != 0 && strstr(by_own.last, "\"serverListeningPort\":65535"));
	assert(visit("b.example") != 0 && strstr(by_shared.last, "\"serverListeningPort\":443"));
	close_one(&by_own);
	close_one(&by_shared);
	end();
}

static void test_who_comes_by_it_while_nothing_listens_within_tls_is_closed(void)
{
	int ends[2];
	char byte;

	begin();
	assert(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
	const struct endpoint remote = endpoint_from_v4(INADDR_LOOPBACK, 1);
	webgw_take(world.webgw, ends[1], &remote);
	assert(read(ends[0], &byte, 1) == 0);
	close(ends[0]);
	end();
}

int main(void)
{
	assert(sodium_init() >= 0);
	test_who_has_no_subscription_left_is_as_one_that_has_not_subscribed();
	test_who_loses_its_last_host_is_so_too();
	test_all_that_may_wait_for_an_agent_may_come_at_once();
	test_who_rests_is_told_when_nobody_else_can_be();
	test_a_member_serves_what_is_granted_to_it_without_a_secret();
	test_a_members_host_goes_with_its_last_agent_and_its_visitors_stay();
	test_a_grant_taken_back_cuts_visitors_of_an_agent_that_has_gone();
	test_visitors_that_a_process_before_left_stay_while_a_member_has_their_host();
	test_who_tries_secrets_is_sent_away_and_a_member_tries_none();
	test_who_guesses_is_told_of_whatever_visitors_strangers_and_members_make_of_lines();
	test_a_host_with_a_secret_is_no_members_to_take();
	test_who_has_a_warm_connection_is_told_only_if_it_is_not_taken();
	test_who_asks_for_it_within_tls_is_told_who_visitors_are_and_nobody_else();
	test_all_that_may_wait_may_come_at_once_with_the_longest_of_names_and_addresses();
	test_an_agent_dials_back_to_the_port_it_came_by();
	test_who_comes_by_it_while_nothing_listens_within_tls_is_closed();
	return 0;
}
