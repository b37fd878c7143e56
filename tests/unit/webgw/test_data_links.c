/*
 * Where agents dial back within TLS: who is slowed, and who is told that nobody comes. Connections, and time, are the test's
 * (meson.build gives uv_now() and uv_timer_start() other names).
 */
#include "relay/webgw/data_links.h"

#include "common/macros.h"
#include "relay/tcp_listener.h"
#include "relay/webgw/tcp_pair.h"
#include "relay/webgw/tls_bridge.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <sodium.h>
#include <string.h>
#include <unistd.h>

#define SUBSCRIPTION 7
#define RATE_S	     200 /* these are data_links' */
#define RATE_BURST   1000
#define RESUMED_S    2000
#define MANY	     (2 * (RATE_BURST + RESUMED_S))

static struct {
	uv_loop_t loop;
	uint64_t now_ms;
	SSL_CTX *context;
	struct data_links *links;
	struct tls_bridge *last; /* that was opened */
	uint8_t secret[WEBGW_EPHEMERAL_LEN];
	size_t n_secret; /* of it have come, and were not read */
	bool is_resumed;
	struct {
		void (*closed)(void *owner);
		void *owner;
	} closing;
	int n_not_taken, n_given_up;
	bool is_nobody_there, is_agent_gone;
	int n_said; /* words to agents */
	uint8_t given_up[WEBGW_EPHEMERAL_LEN];
} world;

/* ---- instead of libuv's ---- */

uint64_t uv_now(const uv_loop_t *loop) /* told_now */
{
	(void)loop;
	return world.now_ms;
}

int uv_timer_start(uv_timer_t *timer, uv_timer_cb cb, uint64_t timeout, uint64_t repeat) /* told_to_start */
{
	(void)timer;
	(void)cb;
	(void)timeout;
	(void)repeat;
	return 0;
}

/* ---- instead of tcp_listener.c and tcp_pair.c ---- */

int tcp_listener_open(struct tcp_listener *listener, uv_loop_t *loop, const struct endpoint *address,
		      const struct listen_sockets *sockets, const struct tcp_listener_ports *ports, struct error *reterr)
{
	(void)loop;
	(void)address;
	(void)sockets;
	(void)reterr;
	listener->ports = *ports;
	return 0;
}

uint16_t tcp_listener_port(const struct tcp_listener *listener)
{
	(void)listener;
	return 4659;
}

void tcp_listener_close(struct tcp_listener *listener, void (*closed)(void *owner))
{
	closed(listener->ports.owner);
}

int tcp_pair_make(struct tcp_pair_maker *maker, int ret[2])
{
	(void)maker;
	(void)ret;
	return -EMFILE;
}

void tcp_pair_maker_deinit(struct tcp_pair_maker *maker)
{
	(void)maker;
}

/* ---- instead of common/tls_stream.c and tls_bridge.c ---- */

bool tls_stream_alpn_is(const struct tls_stream *stream, const char *protocol)
{
	(void)stream;
	(void)protocol;
	return false;
}

bool tls_stream_was_resumed(const struct tls_stream *stream)
{
	(void)stream;
	return world.is_resumed;
}

void tls_stream_feed(struct tls_stream *stream, const uint8_t *bytes, size_t n)
{
	(void)stream;
	(void)bytes;
	(void)n;
}

int tls_bridge_open_server(struct tls_bridge *bridge, struct tls_host *host, SSL_CTX *context, int fd,
			   const struct tls_bridge_ports *ports)
{
	(void)host;
	(void)context;
	close(fd);
	bridge->ports = *ports;
	world.last = bridge;
	return 0;
}

void tls_bridge_close(struct tls_bridge *bridge, void (*closed)(void *owner))
{
	assert(!world.closing.closed);
	world.closing.closed = closed;
	world.closing.owner = bridge->ports.owner;
}

const uint8_t *tls_bridge_came(const struct tls_bridge *bridge, size_t *ret_n)
{
	(void)bridge;
	*ret_n = world.n_secret;
	return world.secret;
}

void tls_bridge_skip(struct tls_bridge *bridge, size_t n)
{
	(void)bridge;
	assert(n <= world.n_secret);
	world.n_secret -= n;
}

void tls_bridge_say(struct tls_bridge *bridge, const void *bytes, size_t n)
{
	(void)bridge;
	(void)bytes;
	(void)n;
	world.n_said++;
}

void tls_bridge_part(struct tls_bridge *bridge)
{
	(void)bridge;
	assert(false); /* nobody here can go on without TLS */
}

int tls_bridge_release(struct tls_bridge *bridge, uint8_t **ret_came, size_t *ret_n)
{
	(void)bridge;
	(void)ret_came;
	(void)ret_n;
	return -EMFILE;
}

int tls_bridge_join(struct tls_bridge *bridge, int fd_take)
{
	(void)bridge;
	close(fd_take);
	return -EMFILE;
}

void tls_bridge_pass(struct tls_bridge *bridge)
{
	(void)bridge;
}

/* ---- the world ---- */

static bool on_caller(void *owner, const struct dial_caller *caller_take)
{
	(void)owner;
	assert(caller_take->fd == -1);
	memcpy(world.given_up, caller_take->secret, sizeof(world.given_up));
	world.n_given_up++;
	return true;
}

static bool on_not_taken(void *owner, int64_t subscription, const struct dial_wanted *wanted)
{
	(void)owner;
	(void)wanted;
	assert(subscription == SUBSCRIPTION);
	world.n_not_taken++;
	return !world.is_nobody_there;
}

static bool is_there(void *owner, int64_t subscription)
{
	(void)owner;
	return subscription == SUBSCRIPTION && !world.is_agent_gone;
}

static void begin(void)
{
	memset(&world, 0, sizeof(world));
	world.now_ms = 100000;
	assert(uv_loop_init(&world.loop) == 0);
	world.context = SSL_CTX_new(TLS_server_method());
	assert(world.context);
	const struct data_links_options options = { .loop = &world.loop, .context = world.context,
						    .ports = { .caller = on_caller, .not_taken = on_not_taken,
							       .is_there = is_there } };
	assert(data_links_start(&options, &world.links, NULL) == 0);
}

static void turn(void)
{
	if (world.closing.closed)
		world.closing.closed(world.closing.owner);
	world.closing.closed = NULL;
}

static void end(void)
{
	data_links_stop(world.links, NULL, NULL);
	turn();
	assert(uv_run(&world.loop, UV_RUN_DEFAULT) == 0 && uv_loop_close(&world.loop) == 0);
	SSL_CTX_free(world.context);
}

/* Somebody has connected, and says this secret. False: it is refused. */
static bool dial(const struct endpoint *remote, const uint8_t secret[WEBGW_EPHEMERAL_LEN])
{
	world.last = NULL;
	data_links_take(world.links, open("/dev/null", O_RDWR | O_CLOEXEC), remote, NULL, 0);
	if (!world.last)
		return false;
	memcpy(world.secret, secret, sizeof(world.secret));
	world.n_secret = sizeof(world.secret);
	world.last->ports.came(world.last->ports.owner);
	return true;
}

/* The agent ends that connection. */
static void end_last(void)
{
	const struct error why = { .code = 0 };

	world.last->ports.over(world.last->ports.owner, &why);
	turn();
}

static bool dial_warm(const struct endpoint *remote)
{
	uint8_t secret[1][WEBGW_EPHEMERAL_LEN];

	assert(data_links_prepare(world.links, SUBSCRIPTION, 1, secret) == 1);
	if (!dial(remote, secret[0]))
		return false;
	assert(data_links_counters(world.links).warm_now == 1);
	return true;
}

/* As fast as it can, until it is refused: asks, connects, and lets it go, which frees its room at once. */
static int n_in_a_row(const struct endpoint *remote, bool is_resumed)
{
	int n = 0;

	world.is_resumed = is_resumed;
	for (; n < MANY && dial_warm(remote); n++)
		end_last();
	world.now_ms += 5000; /* the last secret is late; and the bound of this source is full again */
	return n;
}

/* ---- the rules ---- */

/* A whole handshake costs a signature: it is the agent that asks for connections, whoever it is. */
static void test_who_asks_for_connections_and_does_not_resume_is_slowed_as_anybody(void)
{
	const struct endpoint hostile = endpoint_from_v4(0xc6336404, 1), other = endpoint_from_v4(0xc6336405, 1);

	begin();
	assert(n_in_a_row(&hostile, false) == RATE_BURST);
	assert(data_links_counters(world.links).refused == 1);
	assert(n_in_a_row(&hostile, false) == RATE_BURST); /* five seconds later */
	assert(dial_warm(&other));
	end_last();
	end();
}

static void test_who_resumes_is_slowed_later_but_is(void)
{
	const struct endpoint busy = endpoint_from_v4(0xc6336404, 1);

	begin();
	assert(n_in_a_row(&busy, true) == RESUMED_S + RATE_BURST);
	end();
}

static struct dial_wanted wanted_of(uint8_t first_byte)
{
	struct dial_wanted wanted = { .ticket = 1, .port = 80, .secret = { first_byte } };

	assert(host_name_from("www.example.com", strlen("www.example.com"), &wanted.host) == 0);
	return wanted;
}

/* Else it would wait for as long as visitors do. */
static void test_a_visitor_whose_warm_connection_ends_and_whom_nobody_else_can_be_told_is_given_up_at_once(void)
{
	const struct endpoint agent = endpoint_from_v4(0xc6336404, 1);

	begin();
	for (int i = 1; i <= 2; i++) {
		const struct dial_wanted wanted = wanted_of((uint8_t)i);
		world.is_nobody_there = i == 2;
		assert(dial_warm(&agent) && data_links_hand(world.links, SUBSCRIPTION, &wanted));
		end_last();
		assert(world.n_not_taken == i && world.n_given_up == i - 1);
	}
	assert(world.given_up[0] == 2);
	end();
}

/* Nothing that comes of that agent's serves them: it may dial still, and would be told of a visitor, but not who it is. */
static void test_who_awaits_a_connection_of_an_agent_that_has_gone_is_told_to_another(void)
{
	const struct endpoint agent = endpoint_from_v4(0xc6336404, 1);
	uint8_t secrets[2][WEBGW_EPHEMERAL_LEN];

	for (int gone = 0; gone <= 1; gone++) {
		begin();
		assert(data_links_prepare(world.links, SUBSCRIPTION, 2, secrets) == 2);
		for (uint8_t i = 1; i <= 2; i++) {
			const struct dial_wanted wanted = wanted_of(i);
			assert(data_links_hand(world.links, SUBSCRIPTION, &wanted));
		}
		world.is_agent_gone = gone == 1;
		assert(dial(&agent, secrets[0]));
		assert(world.n_said == (gone ? 0 : 1) && world.n_not_taken == (gone ? 2 : 0) && world.n_given_up == 0);
		assert(data_links_counters(world.links).awaited == (gone ? 0 : 1));
		end_last();
		assert(world.n_not_taken == (gone ? 2 : 1)); /* once of each */
		end();
	}
}

int main(void)
{
	assert(sodium_init() >= 0);
	test_who_asks_for_connections_and_does_not_resume_is_slowed_as_anybody();
	test_who_resumes_is_slowed_later_but_is();
	test_a_visitor_whose_warm_connection_ends_and_whom_nobody_else_can_be_told_is_given_up_at_once();
	test_who_awaits_a_connection_of_an_agent_that_has_gone_is_told_to_another();
	return 0;
}
