/*
 * webgw's agent itself: when it asks whether its targets are there, what it makes of the answer, and when it asks for
 * connections to keep ready. Its WebSocket, its connections and time are the test's (meson.build gives uv_now() and
 * uv_timer_start() other names).
 */
#include "relay/webgw/webgw_agent.h"

#include "heard.h"

#include "common/log.h"
#include "common/macros.h"
#include "common/websocket.h"
#include "relay/webgw/raw_pairs.h"
#include "relay/webgw/target_probe.h"
#include "relay/webgw/tls_bridge.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_LINKS     64
#define SUBSCRIPTION  7
#define SECRET_62     "000000000000000000000000000000000000000000000000000000000000"
#define TICK_MS	      1000
#define PROBE_MS      2000  /* the agent's */
#define ASK_AGAIN_MS  10000 /* the same */
#define MAX_VISITS    1024
#define BEGAN_MS      100000

struct websocket {
	char last[1024];
};

static struct {
	uv_loop_t loop;
	uint64_t now_ms;
	struct webgw_agent *agent;
	struct websocket ws;
	struct websocket_handler handler;
	uv_timer_t *retry, *tick;
	uv_timer_cb on_retry, on_tick;
	uint64_t retry_ms; /* after which time */
	char secret[64];   /* a file, if the agent has one */
	int n_register, n_prepare, n_unregister;
	int target; /* listens */
	struct endpoint at;
	struct tls_bridge *links[MAX_LINKS]; /* NULL: closed */
	int n_links;
	struct endpoint dialled; /* last */
	bool has_no_links, has_header; /* of the PROXY protocol: its targets */
	struct {
		void (*closed)(void *owner);
		void *owner;
	} closing[MAX_LINKS];
	int n_closing;
	uint32_t n_raw;
	struct raw_pairs_counter *raw;
	void (*probed)(void *owner, int status);
	void *probe_owner;
	int n_probes;
} world;

/* ---- instead of libuv's ---- */

uint64_t uv_now(const uv_loop_t *loop) /* told_now */
{
	(void)loop;
	return world.now_ms;
}

int uv_timer_start(uv_timer_t *timer, uv_timer_cb cb, uint64_t timeout, uint64_t repeat) /* told_to_start */
{
	if (repeat > 0) {
		world.tick = timer;
		world.on_tick = cb;
	} else {
		world.retry = timer;
		world.on_retry = cb;
		world.retry_ms = timeout;
	}
	return 0;
}

/* ---- instead of common/websocket*.c ---- */

int websocket_host_new(uv_loop_t *loop, struct websocket_host **ret, struct error *reterr)
{
	(void)loop;
	(void)reterr;
	*ret = NULL;
	return 0;
}

void websocket_host_close(struct websocket_host *host, void (*cb)(void *owner), void *owner)
{
	(void)host;
	cb(owner);
}

struct websocket *websocket_connect(struct websocket_host *host, const struct websocket_client_options *options,
				    struct error *reterr)
{
	(void)host;
	(void)reterr;
	world.handler = options->handler;
	return &world.ws;
}

int websocket_send(struct websocket *ws, const char *text, size_t len)
{
	assert(ws == &world.ws && len < sizeof(ws->last));
	snprintf(ws->last, sizeof(ws->last), "%s", text);
	world.n_register += strstr(text, "webgw_registerClient") != NULL;
	world.n_prepare += strstr(text, "webgw_prepare") != NULL;
	world.n_unregister += strstr(text, "webgw_unregisterClient") != NULL;
	return 0;
}

void websocket_abort(struct websocket *ws, const char *why)
{
	(void)ws;
	(void)why;
	assert(false); /* it is told nothing that is wrong */
}

struct endpoint websocket_remote(const struct websocket *ws)
{
	(void)ws;
	return endpoint_from_v4(INADDR_LOOPBACK, 9081);
}

/* ---- instead of common/tls_stream.c and tls_bridge.c ---- */

int tls_host_new(uv_loop_t *loop, struct tls_host **ret)
{
	(void)loop;
	*ret = (struct tls_host *)&world;
	return 0;
}

void tls_host_close(struct tls_host *host, void (*cb)(void *owner), void *owner)
{
	(void)host;
	cb(owner);
}

bool tls_stream_alpn_is(const struct tls_stream *stream, const char *protocol)
{
	(void)stream;
	(void)protocol;
	return true;
}

void tls_stream_flush(struct tls_stream *stream)
{
	(void)stream;
}

int tls_bridge_open_client(struct tls_bridge *bridge, struct tls_host *host, SSL_CTX *context, const struct endpoint *remote,
			   const char *server_name, uint64_t timeout_ms, const struct tls_bridge_ports *ports)
{
	(void)host;
	(void)context;
	(void)server_name;
	(void)timeout_ms;
	if (world.has_no_links)
		return -ENOMEM;
	assert(world.n_links < MAX_LINKS);
	world.dialled = *remote;
	bridge->ports = *ports;
	bridge->fd = -1;
	world.links[world.n_links++] = bridge;
	return 0;
}

void tls_bridge_close(struct tls_bridge *bridge, void (*closed)(void *owner))
{
	assert(world.n_closing < MAX_LINKS);
	for (int i = 0; i < world.n_links; i++)
		world.links[i] = world.links[i] == bridge ? NULL : world.links[i];
	if (bridge->fd >= 0)
		close(bridge->fd);
	world.closing[world.n_closing].closed = closed;
	world.closing[world.n_closing++].owner = bridge->ports.owner;
}

bool tls_bridge_is_half_closed(const struct tls_bridge *bridge)
{
	(void)bridge;
	return false;
}

uint64_t tls_bridge_moved(const struct tls_bridge *bridge)
{
	return bridge->bytes_out;
}

void tls_bridge_put_before(struct tls_bridge *bridge, const void *bytes, size_t n)
{
	(void)bridge;
	(void)bytes;
	assert((n > 0) == world.has_header);
}

const uint8_t *tls_bridge_came(const struct tls_bridge *bridge, size_t *ret_n)
{
	(void)bridge;
	*ret_n = 0;
	return NULL;
}

void tls_bridge_skip(struct tls_bridge *bridge, size_t n)
{
	(void)bridge;
	(void)n;
}

void tls_bridge_say(struct tls_bridge *bridge, const void *bytes, size_t n)
{
	(void)bridge;
	(void)bytes;
	(void)n;
}

void tls_bridge_part(struct tls_bridge *bridge)
{
	(void)bridge;
}

int tls_bridge_release(struct tls_bridge *bridge, uint8_t **ret_came, size_t *ret_n)
{
	(void)bridge;
	*ret_came = NULL;
	*ret_n = 0;
	return dup(world.target);
}

int tls_bridge_join(struct tls_bridge *bridge, int fd_take)
{
	bridge->fd = fd_take;
	return 0;
}

void tls_bridge_pass(struct tls_bridge *bridge)
{
	(void)bridge;
}

/* ---- instead of raw_pairs.c and target_probe.c ---- */

int raw_pairs_new(uv_loop_t *loop, struct raw_pairs **ret)
{
	(void)loop;
	*ret = (struct raw_pairs *)&world;
	return 0;
}

int raw_pairs_begin(struct raw_pairs *pairs, int from_take, int to_take, uint8_t *head_take, size_t n_head,
		    struct raw_pairs_counter *counter)
{
	(void)pairs;
	(void)n_head;
	assert(!head_take);
	close(from_take);
	close(to_take);
	world.raw = counter;
	return 0;
}

uint32_t raw_pairs_count(const struct raw_pairs *pairs)
{
	(void)pairs;
	return world.n_raw;
}

void raw_pairs_close(struct raw_pairs *pairs, void (*closed)(void *owner), void *owner)
{
	(void)pairs;
	closed(owner);
}

struct target_probe *target_probe_begin(uv_loop_t *loop, const struct endpoint *target, void (*done)(void *owner, int status),
					void *owner)
{
	(void)loop;
	assert(!world.probed && endpoint_equal(target, &world.at));
	world.probed = done;
	world.probe_owner = owner;
	world.n_probes++;
	return (struct target_probe *)&world;
}

static void end_probe(int status)
{
	void (*done)(void *owner, int status) = world.probed;

	assert(done);
	world.probed = NULL;
	done(world.probe_owner, status);
}

void target_probe_end(struct target_probe *probe)
{
	(void)probe;
	end_probe(-ETIMEDOUT);
}

/* ---- the world ---- */

/* What was closed is told so, as from the loop. */
static void turn(void)
{
	while (world.n_closing > 0) {
		world.n_closing--;
		world.closing[world.n_closing].closed(world.closing[world.n_closing].owner);
	}
}

static void tick(uint64_t after_ms)
{
	world.now_ms += after_ms;
	world.on_tick(world.tick);
	turn();
}

static void hear(const char *text)
{
	world.handler.message(world.handler.owner, &world.ws, text, strlen(text));
	turn();
}

static int identify(void *owner, char **ret_key_pem, char **ret_certificate_pem, struct error *reterr)
{
	(void)owner;
	(void)ret_key_pem;
	(void)ret_certificate_pem;
	(void)reterr;
	return 0;
}

static int listen_at(struct endpoint *ret_at)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(address);
	const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert(fd >= 0 && bind(fd, (struct sockaddr *)&address, len) == 0 && listen(fd, 16) == 0);
	assert(getsockname(fd, (struct sockaddr *)&address, &len) == 0);
	*ret_at = endpoint_from_v4(INADDR_LOOPBACK, ntohs(address.sin_port));
	return fd;
}

static void connect_again(void)
{
	world.on_retry(world.retry);
	world.handler.opened(world.handler.owner, &world.ws);
}

static void write_secret(void)
{
	snprintf(world.secret, sizeof(world.secret), "/tmp/webgw-secret-XXXXXX");
	const int fd = mkstemp(world.secret);

	assert(fd >= 0 && write(fd, SECRET_62 "0000\n", 65) == 65);
	close(fd);
}

/* Connected, and asks for its hosts: the first's name, and *.1.example.org, *.2.example.org ... */
static void begin_with_hosts(uint8_t n_hosts, uint8_t n_warm, enum door_header header, bool has_secret)
{
	struct webgw_agent_options options = { .host = "127.0.0.1", .port = 9081, .secret_file = "", .identify = identify,
					       .n_warm = n_warm, .n_hosts = n_hosts };
	char name[32];

	memset(&world, 0, sizeof(world));
	if (has_secret) {
		write_secret();
		options.secret_file = world.secret;
	}
	world.now_ms = BEGAN_MS;
	assert(uv_loop_init(&world.loop) == 0);
	world.target = listen_at(&world.at);
	world.has_header = header != DOOR_NO_HEADER;
	for (int i = 0; i < n_hosts; i++) {
		options.targets[i] = (struct webgw_agent_targets){ .http = world.at, .https = world.at, .http_header = header,
								    .https_header = header };
		snprintf(name, sizeof(name), "*.%d.example.org", i);
		assert(host_pattern_from(i == 0 ? "www.example.com" : name, strlen(i == 0 ? "www.example.com" : name),
					 &options.hosts[i]) == 0);
	}
	assert(webgw_agent_start(&world.loop, &options, &world.agent, NULL) == 0);
	connect_again();
	assert(strstr(world.ws.last, "webgw_registerClient"));
}

static void begin_with(uint8_t n_warm, enum door_header header)
{
	begin_with_hosts(1, n_warm, header, false);
}

static void begin(uint8_t n_warm)
{
	begin_with(n_warm, DOOR_NO_HEADER);
}

static void subscribe(void)
{
	hear("{\"jsonrpc\":\"2.0\",\"result\":7,\"id\":1}");
	assert(webgw_agent_counters(world.agent).subscribed_now == 1);
}

static void end(void)
{
	webgw_agent_stop(world.agent, NULL, NULL);
	turn();
	assert(uv_run(&world.loop, UV_RUN_DEFAULT) == 0 && uv_loop_close(&world.loop) == 0);
	close(world.target);
	assert(world.secret[0] == '\0' || unlink(world.secret) == 0);
}

/* The agent has dialled back, to there, for a visitor that it was told of. The connection, or NULL: it ended at once. */
static struct tls_bridge *serve_for(int subscription, int i, int port, int listening_port)
{
	char text[512];

	snprintf(text, sizeof(text),
		 "{\"jsonrpc\":\"2.0\",\"method\":\"webgw_registerClient\",\"params\":{\"subscription\":%d,\"result\":"
		 "{\"secret\":\"%02x" SECRET_62 "%02x\",\"port\":%d,\"serverListeningPort\":%d,\"host\":\"www.example.com\"%s}}}",
		 subscription, i, i, port, listening_port,
		 world.has_header ? ",\"visitor\":\"192.0.2.1:1\",\"visited\":\"192.0.2.2:80\"" : "");
	const int before = world.n_links;
	hear(text);
	assert(world.n_links == before + 1);
	struct tls_bridge *link = world.links[before];
	link->ports.ready(link->ports.owner);
	turn();
	return world.links[before];
}

static struct tls_bridge *serve_at(int i, int port, int listening_port)
{
	return serve_for(SUBSCRIPTION, i, port, listening_port);
}

static struct tls_bridge *serve(int i, int port)
{
	return serve_at(i, port, 4659);
}

/* Its connection breaks, and the target had said nothing. */
static void break_unanswered(struct tls_bridge *link)
{
	struct error why = { .code = -ECONNRESET, .message = "it was reset" };

	link->ports.over(link->ports.owner, &why);
	turn();
}

/* One that goes on without TLS: where such are counted. */
static void serve_raw(int i)
{
	struct tls_bridge *link = serve(i, 443);

	link->ports.parted(link->ports.owner);
	turn();
	assert(world.raw);
}

static bool is_down(void)
{
	struct webgw_agent_facts facts;

	webgw_agent_facts(world.agent, &facts);
	return facts.hosts[0].is_down;
}

static void answer_with_secrets_at(int n, int listening_port)
{
	char text[1024];

	snprintf(text, sizeof(text), "{\"jsonrpc\":\"2.0\",\"result\":{\"serverListeningPort\":%d,\"secrets\":[", listening_port);
	for (int i = 0; i < n; i++)
		snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s\"%02x" SECRET_62 "ff\"", i > 0 ? "," : "", i);
	snprintf(text + strlen(text), sizeof(text) - strlen(text), "]},\"id\":1000}");
	hear(text);
}

static void answer_with_secrets(int n)
{
	answer_with_secrets_at(n, 4659);
}

/* ---- where it dials back ---- */

/* The server may say another with each word. */
static void test_each_connection_goes_to_the_port_that_was_told_for_it(void)
{
	static const uint16_t ports[] = { 4659, 5001, 443, 4659, 65535 };

	begin(1);
	subscribe();
	answer_with_secrets_at(1, 6001);
	assert(world.dialled.port == 6001);
	for (int i = 0; i < (int)ARRAY_LEN(ports); i++) {
		assert(serve_at(i, i % 2 ? 443 : 80, ports[i]));
		const struct endpoint there = endpoint_from_v4(INADDR_LOOPBACK, ports[i]);
		assert(endpoint_equal(&world.dialled, &there)); /* of the server, as its WebSocket has it */
	}
	end();
}

/* ---- whether the target is there ---- */

/* Strangers may use up what the agent has of descriptors: that would take away each host that has visitors. */
static void test_who_has_no_descriptor_for_a_visitor_suspects_no_target(void)
{
	struct rlimit before, none;

	begin(0);
	subscribe();
	assert(getrlimit(RLIMIT_NOFILE, &before) == 0);
	none = before;
	none.rlim_cur = 0;
	assert(setrlimit(RLIMIT_NOFILE, &none) == 0);
	assert(!serve(1, 80));
	assert(setrlimit(RLIMIT_NOFILE, &before) == 0);
	assert(world.n_probes == 0);
	break_unanswered(serve(2, 80));
	assert(world.n_probes == 1); /* but of who was not answered */
	end();
}

static void test_a_try_that_fails_for_want_says_neither_that_a_target_is_down_nor_that_it_is_up(void)
{
	static const int wants[] = { -EMFILE, -ENFILE, -ENOBUFS, -ENOMEM, -EADDRNOTAVAIL };

	begin(0);
	subscribe();
	for (int i = 0; i < (int)ARRAY_LEN(wants); i++) {
		break_unanswered(serve(i, 80));
		assert(world.n_probes == i + 1);
		end_probe(wants[i]);
		assert(!is_down() && world.n_unregister == 0);
		tick(PROBE_MS);
	}
	break_unanswered(serve(100, 80));
	end_probe(-ECONNREFUSED);
	assert(is_down() && world.n_unregister == 1);
	tick(PROBE_MS);
	end_probe(-EMFILE);
	assert(is_down());
	tick(PROBE_MS);
	end_probe(0);
	assert(!is_down());
	end();
}

/* On a quiet host the next visitor who would show it may come hours later. */
static void test_a_visitor_that_breaks_soon_after_a_try_is_not_forgotten(void)
{
	begin(0);
	subscribe();
	serve_raw(1);
	world.raw->unanswered++;
	tick(TICK_MS);
	assert(world.n_probes == 1);
	end_probe(0);
	world.raw->unanswered++; /* since then the target is gone */
	tick(TICK_MS);
	assert(world.n_probes == 1); /* but not for each visitor */
	tick(TICK_MS);
	assert(world.n_probes == 2);
	world.raw->unanswered++; /* that one began before */
	tick(TICK_MS);
	end_probe(0);
	tick(TICK_MS);
	assert(world.n_probes == 2);
	tick(TICK_MS);
	assert(world.n_probes == 3);
	end_probe(0);
	for (int i = 0; i < 10; i++)
		tick(TICK_MS);
	assert(world.n_probes == 3); /* nothing is due any more */
	end();
}

static void break_many_and_have_no_descriptor(void)
{
	struct rlimit before, none;

	for (int i = 0; i < 30; i++)
		break_unanswered(serve(i, 80));
	assert(getrlimit(RLIMIT_NOFILE, &before) == 0);
	none = before;
	none.rlim_cur = 0;
	assert(setrlimit(RLIMIT_NOFILE, &none) == 0);
	for (int i = 30; i < 60; i++)
		assert(!serve(i, 80));
	assert(setrlimit(RLIMIT_NOFILE, &before) == 0);
	end_probe(-EMFILE);
}

/* Visitors can break as many as they like. */
static void test_who_makes_many_of_a_line_hides_no_other(void)
{
	char line[256];

	begin(0);
	subscribe();
	const char *text = heard(break_many_and_have_no_descriptor);
	assert(strstr(text, "a visitor of www.example.com: it was reset"));
	snprintf(line, sizeof(line), "www.example.com: cannot connect to %s: Too many open files\n", endpoint_text(&world.at).s);
	assert(strstr(text, line));
	assert(strstr(text, "www.example.com: whether somebody answers cannot be tried: Too many open files"));
	end();
}

#define N_HOSTS 7

static void subscribe_all(void)
{
	char text[128];

	for (int i = 0; i < N_HOSTS; i++) {
		snprintf(text, sizeof(text), "{\"jsonrpc\":\"2.0\",\"result\":%d,\"id\":%d}", SUBSCRIPTION + i, i + 1);
		hear(text);
	}
	assert(webgw_agent_counters(world.agent).subscribed_now == N_HOSTS);
}

static void break_one_of_each_host(void)
{
	static int n;

	for (int i = 0; i < N_HOSTS; i++) {
		struct error why = { .code = -ECONNRESET, .message = "it was reset" };
		struct tls_bridge *link = serve_for(SUBSCRIPTION + i, n++, 80, 4659);
		link->bytes_out = 1; /* it was answered: no target is suspected */
		link->ports.over(link->ports.owner, &why);
		turn();
	}
}

static int count(const char *text, const char *what)
{
	int n = 0;

	for (const char *at = text; (at = strstr(at, what)); at++)
		n++;
	return n;
}

/* Or the machine's journal would drop lines, also those that are told but once. */
static void test_visitors_of_all_hosts_make_no_more_lines_than_a_journal_takes(void)
{
	const char *last = "a visitor of *.6.example.org: it was reset";

	begin_with_hosts(N_HOSTS, 0, DOOR_NO_HEADER, false);
	subscribe_all();
	const char *text = heard(break_one_of_each_host);
	assert(count(text, "it was reset") == LOG_LINES_PER_SECOND && strstr(text, "a visitor of *.1.example.org: it was reset"));
	assert(!strstr(text, last));
	world.now_ms += 1000;
	assert(count(heard(break_one_of_each_host), "it was reset") == LOG_LINES_PER_SECOND);
	end();
}

static void break_one_of_each_host_and_have_no_descriptor_for_the_last(void)
{
	struct rlimit before, none;

	break_one_of_each_host();
	assert(getrlimit(RLIMIT_NOFILE, &before) == 0);
	none = before;
	none.rlim_cur = 0;
	assert(setrlimit(RLIMIT_NOFILE, &none) == 0);
	assert(!serve_for(SUBSCRIPTION + N_HOSTS - 1, 99, 80, 4659));
	assert(setrlimit(RLIMIT_NOFILE, &before) == 0);
}

static void test_what_visitors_end_hides_no_warning_of_another_host(void)
{
	const char *warning = "*.6.example.org: cannot connect to ";

	begin_with_hosts(N_HOSTS, 0, DOOR_NO_HEADER, false);
	subscribe_all();
	assert(count(heard(break_one_of_each_host_and_have_no_descriptor_for_the_last), warning) == 1);
	end();
	log_set_level(LOG_LEVEL_WARNING); /* what is not written takes no place of what is */
	begin_with_hosts(N_HOSTS, 0, DOOR_NO_HEADER, false);
	subscribe_all();
	assert(count(heard(break_one_of_each_host_and_have_no_descriptor_for_the_last), warning) == 1);
	end();
	log_set_level(LOG_LEVEL_INFO);
}

/* ---- what is kept ready ---- */

/* The node would let visitors wait for them. */
static void test_who_has_no_room_asks_for_no_connections(void)
{
	begin(2);
	world.n_raw = MAX_VISITS;
	subscribe();
	for (int i = 0; i < 10; i++)
		tick(TICK_MS);
	assert(world.n_prepare == 0);
	world.n_raw = 0;
	tick(TICK_MS);
	assert(world.n_prepare == 1);
	end();
}

static void expect_asked_again_late(void)
{
	assert(world.n_prepare == 1);
	world.n_raw = 0;
	for (int i = 1; i < ASK_AGAIN_MS / TICK_MS; i++)
		tick(TICK_MS);
	assert(world.n_prepare == 1);
	tick(TICK_MS);
	assert(world.n_prepare == 2);
}

static void test_who_cannot_make_what_it_asked_for_asks_again_later(void)
{
	begin(2);
	subscribe();
	world.n_raw = MAX_VISITS - 1; /* since it asked */
	answer_with_secrets(2);
	assert(webgw_agent_counters(world.agent).warm_now == 1 && webgw_agent_counters(world.agent).too_many == 1);
	expect_asked_again_late();
	end();
	begin(2);
	subscribe();
	world.has_no_links = true;
	answer_with_secrets(2);
	expect_asked_again_late();
	end();
}

/* ---- at a node that does not tell who visits ---- */

#define REGISTER_MS	10000 /* the agent's: its first wait */
#define MAX_REGISTER_MS 60000
#define MAX_GUESS_MS	600000

static void answer_without_telling(void)
{
	const int before = world.n_unregister;

	hear("{\"jsonrpc\":\"2.0\",\"result\":7,\"id\":1}");
	assert(world.n_unregister == before + 1);
}

static void lose_socket(void)
{
	world.handler.closed(world.handler.owner, &world.ws, "it was reset");
	turn();
}

/* The next node may be of today's version; the same one took visitors from another agent for as long as it was asked. */
static void test_a_node_that_does_not_tell_who_visits_is_asked_once_by_each_socket_and_seldom(void)
{
	struct webgw_agent_facts facts;

	begin_with(0, DOOR_HEADER_V2);
	answer_without_telling();
	for (uint64_t wait_ms = REGISTER_MS; wait_ms <= 4 * REGISTER_MS; wait_ms *= 2) {
		const int asked = world.n_register;
		lose_socket();
		connect_again();
		assert(world.n_register == asked);
		tick(wait_ms - 1);
		assert(world.n_register == asked);
		webgw_agent_facts(world.agent, &facts);
		assert(!facts.hosts[0].is_subscribed && strstr(facts.hosts[0].refusal, "does not tell who visits"));
		tick(1);
		assert(world.n_register == asked + 1);
		answer_without_telling();
	}
	const int asked = world.n_register;
	for (int i = 0; i < 3600; i++) /* that node learns it by no wait */
		tick(TICK_MS);
	assert(world.n_register == asked);
	lose_socket();
	connect_again(); /* the wait is over: maybe it was updated */
	assert(world.n_register == asked + 1);
	hear("{\"jsonrpc\":\"2.0\",\"result\":{\"subscription\":7,\"visitor\":true},\"id\":1}");
	assert(webgw_agent_counters(world.agent).subscribed_now == 1);
	lose_socket();
	connect_again(); /* nothing is left of the waits */
	assert(world.n_register == asked + 2);
	end();
}

/* Its secret is right: the waits of who guesses are none for it. */
static void test_who_has_a_secret_waits_no_longer_for_a_node_that_tells(void)
{
	begin_with_hosts(1, 0, DOOR_HEADER_V2, true);
	for (int i = 0; i < 10; i++) { /* of a wrong one before: no wait is carried on */
		hear("{\"jsonrpc\":\"2.0\",\"error\":{\"code\":-20001,\"message\":\"Wrong secret\"},\"id\":1}");
		tick(MAX_GUESS_MS);
	}
	uint64_t wait_ms = REGISTER_MS;
	for (int i = 0; i < 6; i++) {
		const int asked = world.n_register;
		answer_without_telling();
		lose_socket();
		connect_again();
		tick(wait_ms - 1);
		assert(world.n_register == asked);
		tick(1);
		assert(world.n_register == asked + 1);
		wait_ms = 2 * wait_ms < MAX_REGISTER_MS ? 2 * wait_ms : MAX_REGISTER_MS;
	}
	hear("{\"jsonrpc\":\"2.0\",\"error\":{\"code\":-20001,\"message\":\"Wrong secret\"},\"id\":1}");
	const int asked = world.n_register;
	tick(2 * REGISTER_MS - 1); /* this reason's first wait */
	assert(world.n_register == asked);
	tick(1);
	assert(world.n_register == asked + 1);
	end();
}

static void test_an_answer_that_is_lost_with_its_socket_is_waited_for_no_longer_than_one_that_came(void)
{
	begin_with(0, DOOR_HEADER_V2);
	answer_without_telling();
	lose_socket();
	tick(REGISTER_MS);
	connect_again();
	assert(world.n_register == 2);
	lose_socket(); /* before the answer */
	connect_again();
	tick(REGISTER_MS - 1);
	assert(world.n_register == 2);
	tick(1);
	assert(world.n_register == 3);
	end();
}

/* Who asks for nothing is not let stay at the server. */
static void test_who_has_nothing_to_ask_for_does_not_connect(void)
{
	begin_with(0, DOOR_HEADER_V2);
	answer_without_telling();
	tick(1000);
	lose_socket();
	assert(world.retry_ms == REGISTER_MS - 1000);
	end();
	begin(0);
	subscribe();
	lose_socket();
	assert(world.retry_ms < 2000); /* at once, but for the others' sake */
	end();
}

static void test_a_target_that_is_back_does_not_end_the_wait_for_a_node_that_tells(void)
{
	begin_with(0, DOOR_HEADER_V2);
	hear("{\"jsonrpc\":\"2.0\",\"result\":{\"subscription\":7,\"visitor\":true},\"id\":1}");
	struct tls_bridge *link = serve(1, 80);
	lose_socket();
	connect_again();
	answer_without_telling(); /* another node */
	break_unanswered(link);
	end_probe(-ECONNREFUSED);
	assert(is_down());
	lose_socket();
	const int asked = world.n_register;
	tick(PROBE_MS);
	end_probe(0);
	assert(!is_down() && world.retry_ms == REGISTER_MS - PROBE_MS);
	connect_again();
	assert(world.n_register == asked);
	tick(REGISTER_MS - PROBE_MS);
	assert(world.n_register == asked + 1);
	end();
}

/* Its answer was under way when the target went. */
static void test_a_node_that_tells_is_asked_again_as_soon_as_the_target_is_back(void)
{
	struct webgw_agent_facts facts;

	begin_with(0, DOOR_HEADER_V2);
	hear("{\"jsonrpc\":\"2.0\",\"result\":{\"subscription\":7,\"visitor\":true},\"id\":1}");
	struct tls_bridge *link = serve(1, 80);
	lose_socket();
	connect_again();
	answer_without_telling();
	lose_socket();
	tick(REGISTER_MS);
	connect_again(); /* to another node */
	break_unanswered(link);
	end_probe(-ECONNREFUSED);
	assert(is_down());
	const int asked = world.n_register, given_back = world.n_unregister;
	hear("{\"jsonrpc\":\"2.0\",\"result\":{\"subscription\":8,\"visitor\":true},\"id\":1}");
	assert(world.n_unregister == given_back + 1);
	webgw_agent_facts(world.agent, &facts);
	assert(facts.hosts[0].refusal[0] == '\0');
	tick(PROBE_MS);
	end_probe(0);
	tick(TICK_MS);
	assert(!is_down() && world.n_register == asked + 1);
	end();
}

static void refuse_often(void)
{
	char text[128];

	for (int i = 0; i < 100; i++) {
		snprintf(text, sizeof(text), "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":-20000,\"message\":\"Reason %d\"},\"id\":1}", i);
		hear(text);
	}
}

static void test_a_node_that_finds_ever_new_reasons_does_not_fill_the_log(void)
{
	begin(0);
	assert(count(heard(refuse_often), "refused by") <= 2 * LOG_LINES_PER_SECOND); /* a second may have begun meanwhile */
	end();
}

static void refuse_for_two_reasons(void)
{
	for (int i = 0; i < 4; i++)
		hear(i < 2 ? "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":-20000,\"message\":\"Unknown host\"},\"id\":1}"
			   : "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":-20001,\"message\":\"Wrong secret\"},\"id\":1}");
}

static void test_each_reason_to_refuse_is_told_once(void)
{
	begin(0);
	const char *text = heard(refuse_for_two_reasons);
	assert(count(text, "refused by 127.0.0.1:9081: Unknown host; trying again") == 1);
	assert(count(text, "refused by 127.0.0.1:9081: Wrong secret; trying again") == 1);
	end();
}

int main(void)
{
	assert(sodium_init() >= 0);
	test_each_connection_goes_to_the_port_that_was_told_for_it();
	test_who_has_no_descriptor_for_a_visitor_suspects_no_target();
	test_a_try_that_fails_for_want_says_neither_that_a_target_is_down_nor_that_it_is_up();
	test_a_visitor_that_breaks_soon_after_a_try_is_not_forgotten();
	test_who_makes_many_of_a_line_hides_no_other();
	test_who_has_no_room_asks_for_no_connections();
	test_who_cannot_make_what_it_asked_for_asks_again_later();
	test_a_node_that_does_not_tell_who_visits_is_asked_once_by_each_socket_and_seldom();
	test_visitors_of_all_hosts_make_no_more_lines_than_a_journal_takes();
	test_what_visitors_end_hides_no_warning_of_another_host();
	test_who_has_a_secret_waits_no_longer_for_a_node_that_tells();
	test_an_answer_that_is_lost_with_its_socket_is_waited_for_no_longer_than_one_that_came();
	test_who_has_nothing_to_ask_for_does_not_connect();
	test_a_target_that_is_back_does_not_end_the_wait_for_a_node_that_tells();
	test_a_node_that_tells_is_asked_again_as_soon_as_the_target_is_back();
	test_each_reason_to_refuse_is_told_once();
	test_a_node_that_finds_ever_new_reasons_does_not_fill_the_log();
	return 0;
}
