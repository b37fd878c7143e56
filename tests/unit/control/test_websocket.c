/*
 * The WebSocket adapter on a real loop over loopback TLS: a server and clients in one process.
 * Each test waits for a condition with a deadline, never for a time.
 */
#include "common/websocket.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define DEADLINE_MS 10000

struct side {
	struct websocket *ws;
	int n_opened, n_closed, n_messages;
	size_t n_bytes, last_len;
	char last[64], why[256], name[64];
	bool echo;
};

struct world {
	uv_loop_t loop;
	struct websocket_host *host;
	struct websocket_server *server;
	struct certificate_authority ca;
	char *ca_key, *ca_pem, *server_key, *server_pem, *node_key, *node_pem;
	struct pin pin;
	struct side at_server, at_client;
	bool host_closed;
};

static void on_opened(void *owner, struct websocket *ws)
{
	struct side *side = owner;

	side->ws = ws;
	side->n_opened++;
	if (websocket_identity(ws))
		snprintf(side->name, sizeof(side->name), "%s", websocket_identity(ws)->name);
}

static void on_message(void *owner, struct websocket *ws, const char *text, size_t len)
{
	struct side *side = owner;

	side->n_messages++;
	side->n_bytes += len;
	side->last_len = len;
	snprintf(side->last, sizeof(side->last), "%s", text);
	if (side->echo)
		assert(websocket_send(ws, text, len) == 0);
}

static void on_closed(void *owner, struct websocket *ws, const char *why)
{
	struct side *side = owner;

	side->ws = NULL;
	side->n_closed++;
	snprintf(side->why, sizeof(side->why), "%s", why);
}

static struct websocket_handler handler_of(struct side *side)
{
	return (struct websocket_handler){ side, on_opened, on_message, on_closed };
}

static void on_host_closed(void *owner)
{
	*(bool *)owner = true;
}

static const char *running; /* the test, for the message */

static void on_deadline(uv_timer_t *timer)
{
	fprintf(stderr, "%s: deadline passed\n", running);
	abort();
}

/* Runs the loop until *counter reaches n. */
static void until(struct world *w, const int *counter, int n)
{
	uv_timer_t timer;

	uv_timer_init(&w->loop, &timer);
	uv_timer_start(&timer, on_deadline, DEADLINE_MS, 0);
	while (*counter < n)
		uv_run(&w->loop, UV_RUN_ONCE);
	uv_close((uv_handle_t *)&timer, NULL);
	uv_run(&w->loop, UV_RUN_NOWAIT);
}

static void make_certificates(struct world *w)
{
	const struct public_key node = { { 7 } };
	int64_t now = (int64_t)time(NULL);
	char *request = NULL;

	assert(certificate_authority_generate("home", now, &w->ca_key, &w->ca_pem, NULL) == 0);
	assert(certificate_authority_init(&w->ca, w->ca_key, w->ca_pem, NULL) == 0);
	assert(identity_key_generate(&w->server_key, NULL) == 0);
	assert(identity_key_generate(&w->node_key, NULL) == 0);
	assert(certificate_issue_control(&w->ca, w->server_key, "localhost", now, 3600,
					 &w->server_pem, NULL) == 0);
	assert(certificate_request(w->node_key, &request, NULL) == 0);
	assert(certificate_issue_node(&w->ca, request, "alice", &node, now, 3600, &w->node_pem,
				      NULL) == 0);
	assert(identity_key_pin(w->server_key, &w->pin, NULL) == 0);
	free(request);
}

static void begin_with(struct world *w, uint64_t handshake_ms, uint32_t max_rate_source)
{
	memset(w, 0, sizeof(*w));
	make_certificates(w);
	assert(uv_loop_init(&w->loop) == 0);
	assert(websocket_host_new(&w->loop, &w->host, NULL) == 0);
	const struct websocket_server_options options = {
		.listen = endpoint_from_v4(INADDR_LOOPBACK, 0),
		.tls = { .is_server = true,
			 .trust = TLS_TRUST_OPTIONAL,
			 .ca_pem = w->ca_pem,
			 .certificate_pem = w->server_pem,
			 .key_pem = w->server_key },
		.max_connections = 8,
		.handshake_ms = handshake_ms,
		.max_rate_source = max_rate_source,
		.max_message = 1 << 20,
		.max_queue = 4 << 20,
		.handler = handler_of(&w->at_server),
	};
	assert(websocket_server_new(w->host, &options, &w->server, NULL) == 0);
}

static void begin(struct world *w)
{
	begin_with(w, 0, 0);
}

static void free_world(struct world *w)
{
	assert(w->host_closed);
	assert(w->at_server.n_opened == w->at_server.n_closed);
	assert(uv_loop_close(&w->loop) == 0);
	certificate_authority_deinit(&w->ca);
	certificate_free_secret(w->ca_key);
	certificate_free_secret(w->server_key);
	certificate_free_secret(w->node_key);
	free(w->ca_pem);
	free(w->server_pem);
	free(w->node_pem);
}

static void end(struct world *w)
{
	websocket_host_close(w->host, on_host_closed, &w->host_closed);
	uv_run(&w->loop, UV_RUN_DEFAULT); /* ends by itself: nothing is left on the loop */
	free_world(w);
}

static struct websocket_client_options client_of(struct world *w, struct side *side)
{
	return (struct websocket_client_options){
		.host = "127.0.0.1",
		.port = websocket_server_port(w->server),
		.tls = { .trust = TLS_TRUST_PIN, .pin = w->pin },
		.max_message = 1 << 20,
		.max_queue = 4 << 20,
		.handler = handler_of(side),
	};
}

static struct websocket *client(struct world *w)
{
	struct websocket_client_options options = client_of(w, &w->at_client);
	struct websocket *ws = websocket_connect(w->host, &options, NULL);

	assert(ws && w->at_client.n_opened == 0);
	until(w, &w->at_client.n_opened, 1);
	until(w, &w->at_server.n_opened, 1);
	return ws;
}

static void test_messages_go_both_ways(void)
{
	struct world w;

	begin(&w);
	struct websocket *ws = client(&w);
	assert(websocket_send(ws, "hello", 5) == 0);
	until(&w, &w.at_server.n_messages, 1);
	assert(strcmp(w.at_server.last, "hello") == 0 && !websocket_identity(w.at_server.ws));
	assert(websocket_send(w.at_server.ws, "world", 5) == 0);
	until(&w, &w.at_client.n_messages, 1);
	assert(strcmp(w.at_client.last, "world") == 0);
	websocket_close(ws, "done");
	until(&w, &w.at_server.n_closed, 1);
	until(&w, &w.at_client.n_closed, 1);
	assert(strcmp(w.at_client.why, "done") == 0);
	end(&w);
}

static void test_a_name_is_resolved(void)
{
	struct world w;

	begin(&w);
	struct websocket_client_options options = client_of(&w, &w.at_client);
	options.host = "localhost"; /* may be ::1 first, where nobody listens */
	assert(websocket_connect(w.host, &options, NULL));
	until(&w, &w.at_client.n_opened, 1);
	end(&w);
}

static void test_a_certificate_says_who_the_client_is(void)
{
	struct world w;
	struct pin pin;

	begin(&w);
	struct websocket_client_options options = client_of(&w, &w.at_client);
	options.tls.trust = TLS_TRUST_CA;
	options.tls.ca_pem = w.ca_pem;
	options.tls.certificate_pem = w.node_pem;
	options.tls.key_pem = w.node_key;
	struct websocket *ws = websocket_connect(w.host, &options, NULL);
	until(&w, &w.at_server.n_opened, 1);
	assert(strcmp(w.at_server.name, "alice") == 0);
	until(&w, &w.at_client.n_opened, 1);
	assert(websocket_identity(ws)->is_control);
	assert(websocket_peer_pin(ws, &pin) && pin_equal(&pin, &w.pin));
	end(&w);
}

static void expect_no_connection(struct world *w, const struct websocket_client_options *options,
				 const char *why)
{
	assert(websocket_connect(w->host, options, NULL));
	until(w, &w->at_client.n_closed, 1);
	assert(w->at_client.n_opened == 0 || strstr(why, "refused") || !*why);
	if (!strstr(w->at_client.why, why))
		fprintf(stderr, "%s\n", w->at_client.why);
	assert(strstr(w->at_client.why, why));
}

static void test_a_wrong_pin_is_not_trusted(void)
{
	struct world w;

	begin(&w);
	struct websocket_client_options options = client_of(&w, &w.at_client);
	options.tls.pin.bytes[5] ^= 1;
	expect_no_connection(&w, &options, "its key does not match the pin");
	assert(w.at_server.n_opened == 0);
	end(&w);
}

static void test_a_server_of_another_network_is_not_trusted(void)
{
	struct world w, other;

	begin(&w);
	make_certificates(&other);
	struct websocket_client_options options = client_of(&w, &w.at_client);
	options.tls.trust = TLS_TRUST_CA;
	options.tls.ca_pem = other.ca_pem;
	expect_no_connection(&w, &options, "its certificate is not signed by the network");
	certificate_authority_deinit(&other.ca);
	certificate_free_secret(other.ca_key);
	certificate_free_secret(other.server_key);
	certificate_free_secret(other.node_key);
	free(other.ca_pem);
	free(other.server_pem);
	free(other.node_pem);
	end(&w);
}

static void test_a_client_certificate_of_another_network_is_refused(void)
{
	struct world w, other;

	begin(&w);
	make_certificates(&other);
	struct websocket_client_options options = client_of(&w, &w.at_client);
	options.tls.certificate_pem = other.node_pem;
	options.tls.key_pem = other.node_key;
	expect_no_connection(&w, &options, "");
	assert(w.at_server.n_opened == 0);
	certificate_authority_deinit(&other.ca);
	certificate_free_secret(other.ca_key);
	certificate_free_secret(other.server_key);
	certificate_free_secret(other.node_key);
	free(other.ca_pem);
	free(other.server_pem);
	free(other.node_pem);
	end(&w);
}

static void test_nobody_listens(void)
{
	struct world w;

	begin(&w);
	struct websocket_client_options options = client_of(&w, &w.at_client);
	options.port = 1;
	expect_no_connection(&w, &options, "cannot connect to 127.0.0.1:1");
	end(&w);
}

static void test_a_name_that_is_unknown(void)
{
	struct world w;

	begin(&w);
	struct websocket_client_options options = client_of(&w, &w.at_client);
	options.host = "no-such-name.invalid";
	expect_no_connection(&w, &options, "cannot resolve no-such-name.invalid");
	end(&w);
}

static void on_tick(uv_timer_t *timer)
{
	++*(int *)timer->data;
}

/* reference: a burst larger than a TLS record, in one go, must not hold up the loop. */
static void test_a_burst_leaves_the_timers_running(void)
{
	struct world w;
	uv_timer_t timer;
	int ticks = 0;
	char *burst = malloc(16384);

	begin(&w);
	struct websocket *ws = client(&w);
	w.at_server.echo = true;
	memset(burst, 'x', 16384);
	uv_timer_init(&w.loop, &timer);
	timer.data = &ticks;
	uv_timer_start(&timer, on_tick, 1, 1);
	for (int i = 0; i < 32; i++)
		assert(websocket_send(ws, burst, 16384) == 0);
	until(&w, &w.at_client.n_messages, 32);
	int before = ticks;
	until(&w, &ticks, before + 3);
	assert(w.at_server.n_bytes == 32 * 16384 && w.at_client.n_bytes == 32 * 16384);
	uv_close((uv_handle_t *)&timer, NULL);
	uv_run(&w.loop, UV_RUN_NOWAIT);
	free(burst);
	end(&w);
}

static void test_a_message_beyond_the_bound_ends_its_connection_only(void)
{
	struct world w;
	struct side other = { 0 };
	size_t len = (1 << 20) + 1;
	char *large = malloc(len);

	begin(&w);
	struct websocket *ws = client(&w);
	struct websocket_client_options options = client_of(&w, &other);
	assert(websocket_connect(w.host, &options, NULL));
	until(&w, &other.n_opened, 1);
	memset(large, 'x', len);
	assert(websocket_send(ws, large, len) == 0);
	until(&w, &w.at_server.n_closed, 1);
	until(&w, &w.at_client.n_closed, 1);
	assert(strcmp(w.at_server.why, "a message was too large") == 0);
	assert(other.n_closed == 0 && websocket_server_counters(w.server).bad_messages == 1);
	free(large);
	end(&w);
}

static void test_the_send_queue_is_bounded(void)
{
	struct world w;
	char *chunk = malloc(1 << 20);

	begin(&w);
	struct websocket *ws = client(&w);
	memset(chunk, 'x', 1 << 20);
	for (int i = 0; i < 4; i++)
		assert(websocket_send(ws, chunk, 1 << 20) == 0);
	assert(websocket_queued(ws) == 4 << 20);
	assert(websocket_send(ws, "x", 1) == -ENOBUFS);
	until(&w, &w.at_server.n_messages, 4);
	assert(websocket_send(ws, "x", 1) == 0);
	free(chunk);
	end(&w);
}

static int plain_connection(const struct world *w)
{
	struct endpoint to = endpoint_from_v4(INADDR_LOOPBACK, websocket_server_port(w->server));
	struct sockaddr_storage address;
	socklen_t len = endpoint_to_sockaddr(&to, &address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert(fd >= 0 && connect(fd, (struct sockaddr *)&address, len) == 0);
	assert(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
	return fd;
}

/* Until the server has hung up on fd. */
static void until_hung_up(struct world *w, int fd)
{
	char buf[512];
	uv_timer_t timer;

	uv_timer_init(&w->loop, &timer);
	uv_timer_start(&timer, on_deadline, DEADLINE_MS, 0);
	for (;;) {
		ssize_t n = recv(fd, buf, sizeof(buf), 0);
		if (n == 0 || (n < 0 && errno != EAGAIN))
			break;
		uv_run(&w->loop, UV_RUN_NOWAIT);
	}
	uv_close((uv_handle_t *)&timer, NULL);
	uv_run(&w->loop, UV_RUN_NOWAIT);
}

struct trickle {
	uv_timer_t timer;
	int fd, n_sent;
};

/* The next byte of a ClientHello that would be 512 bytes long. */
static void on_trickle(uv_timer_t *timer)
{
	static const char head[] = { 22, 3, 1, 2, 0, 1, 0, 1, (char)0xfc };
	struct trickle *trickle = (struct trickle *)timer;
	const char *byte = &head[trickle->n_sent < 8 ? trickle->n_sent : 8];

	if (send(trickle->fd, byte, 1, MSG_NOSIGNAL) == 1)
		trickle->n_sent++;
}

static void test_who_takes_too_long_to_shake_hands_is_hung_up_on(void)
{
	struct world w;
	struct trickle trickle = { 0 };

	begin_with(&w, 200, 0);
	trickle.fd = plain_connection(&w);
	uv_timer_init(&w.loop, &trickle.timer);
	uv_timer_start(&trickle.timer, on_trickle, 0, 10);
	until_hung_up(&w, trickle.fd);
	assert(trickle.n_sent > 2 && trickle.n_sent < 100);
	assert(w.at_server.n_opened == 0);
	assert(websocket_server_counters(w.server).broken_handshakes == 1);
	uv_close((uv_handle_t *)&trickle.timer, NULL);
	close(trickle.fd);
	end(&w);
}

static void test_garbage_is_hung_up_on(void)
{
	struct world w;
	char garbage[600];

	begin(&w);
	int fd = plain_connection(&w);
	randombytes_buf(garbage, sizeof(garbage));
	assert(send(fd, garbage, sizeof(garbage), MSG_NOSIGNAL) == sizeof(garbage));
	until_hung_up(&w, fd);
	close(fd);
	fd = plain_connection(&w);
	assert(send(fd, "GET /rpc HTTP/1.1\r\n\r\n", 22, MSG_NOSIGNAL) == 22);
	until_hung_up(&w, fd);
	close(fd);
	assert(w.at_server.n_opened == 0);
	client(&w); /* still served */
	assert(websocket_server_counters(w.server).broken_handshakes == 2);
	end(&w);
}

static void test_connections_beyond_the_limit_are_refused_at_once(void)
{
	struct world w;
	int fds[9];

	begin(&w);
	for (int i = 0; i < 9; i++)
		fds[i] = plain_connection(&w);
	until_hung_up(&w, fds[8]);
	assert(websocket_server_counters(w.server).refused_limit == 1);
	assert(websocket_server_counters(w.server).open == 8);
	for (int i = 0; i < 9; i++)
		close(fds[i]);
	while (websocket_server_counters(w.server).open > 0)
		uv_run(&w.loop, UV_RUN_ONCE);
	client(&w);
	end(&w);
}

/* Each costs us a signature, also when it closes at once. */
static void test_connections_that_come_too_fast_are_refused(void)
{
	struct world w;

	begin_with(&w, 0, 1);
	for (int i = 0; i < 20; i++) {
		int fd = plain_connection(&w);
		assert(shutdown(fd, SHUT_WR) == 0);
		until_hung_up(&w, fd);
		close(fd);
	}
	assert(websocket_server_counters(w.server).broken_handshakes >= 10);
	assert(websocket_server_counters(w.server).refused_rate >= 5);
	end(&w);
}

/* ---- who has to prove itself ---- */

static void begin_strict(struct world *w, uint64_t handshake_ms, uint32_t max_unproven, uint32_t max_unproven_source)
{
	memset(w, 0, sizeof(*w));
	make_certificates(w);
	assert(uv_loop_init(&w->loop) == 0);
	assert(websocket_host_new(&w->loop, &w->host, NULL) == 0);
	const struct websocket_server_options options = {
		.listen = endpoint_from_v4(INADDR_LOOPBACK, 0),
		.is_plain = true,
		.max_connections = 4,
		.handshake_ms = handshake_ms,
		.max_message = 1024,
		.max_queue = 4096,
		.send_buffer = 4096,
		.max_unproven = max_unproven,
		.max_unproven_source = max_unproven_source,
		.handler = handler_of(&w->at_server),
	};
	assert(websocket_server_new(w->host, &options, &w->server, NULL) == 0);
}

static int connection_from(const struct world *w, uint32_t address)
{
	const struct endpoint from = endpoint_from_v4(address, 0),
			      to = endpoint_from_v4(INADDR_LOOPBACK, websocket_server_port(w->server));
	struct sockaddr_storage own, other;
	const socklen_t own_len = endpoint_to_sockaddr(&from, &own), len = endpoint_to_sockaddr(&to, &other);
	const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), small = 4096;

	assert(fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)) == 0);
	assert(bind(fd, (struct sockaddr *)&own, own_len) == 0);
	assert(connect(fd, (struct sockaddr *)&other, len) == 0 && fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
	return fd;
}

static void upgrade(struct world *w, int fd)
{
	static const char request[] = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
				      "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n";
	const int n = w->at_server.n_opened;

	assert(send(fd, request, strlen(request), MSG_NOSIGNAL) == (ssize_t)strlen(request));
	until(w, &w->at_server.n_opened, n + 1);
}

/* Nothing more is there, and it has not ended. */
static bool is_held(int fd)
{
	char buf[4096];
	ssize_t n;

	while ((n = recv(fd, buf, sizeof(buf), 0)) > 0)
		;
	return n < 0 && errno == EAGAIN;
}

static void accept_all(struct world *w, uint64_t n)
{
	while (websocket_server_counters(w->server).accepted < n)
		uv_run(&w->loop, UV_RUN_ONCE);
}

static void test_who_does_not_prove_itself_in_time_is_hung_up_on(void)
{
	struct world w;

	begin_strict(&w, 300, 4, 4);
	const int proven = connection_from(&w, INADDR_LOOPBACK), idle = connection_from(&w, INADDR_LOOPBACK);
	upgrade(&w, proven);
	websocket_prove(w.at_server.ws);
	upgrade(&w, idle);
	const int silent = connection_from(&w, INADDR_LOOPBACK); /* does not even ask for a WebSocket */
	until_hung_up(&w, idle);
	until_hung_up(&w, silent);
	assert(is_held(proven));
	assert(websocket_server_counters(w.server).unproven == 1);
	assert(websocket_server_counters(w.server).broken_handshakes == 1);
	close(proven);
	close(idle);
	close(silent);
	end(&w);
}

static void test_the_oldest_unproven_makes_room_and_no_other(void)
{
	struct world w;
	int fds[8];

	begin_strict(&w, 0, 3, 3);
	fds[0] = connection_from(&w, INADDR_LOOPBACK);
	upgrade(&w, fds[0]);
	websocket_prove(w.at_server.ws);
	for (int i = 1; i < 4; i++) {
		fds[i] = connection_from(&w, INADDR_LOOPBACK + (uint32_t)i);
		accept_all(&w, (uint64_t)i + 1);
	}
	for (int i = 4; i < 7; i++) { /* all places are taken; each newcomer has one */
		fds[i] = connection_from(&w, INADDR_LOOPBACK + (uint32_t)i);
		until_hung_up(&w, fds[i - 3]);
	}
	upgrade(&w, fds[6]);
	websocket_prove(w.at_server.ws);
	assert(is_held(fds[0]) && is_held(fds[5]) && is_held(fds[6]));
	assert(websocket_server_counters(w.server).made_room == 3);
	assert(websocket_server_counters(w.server).broken_handshakes == 0); /* none is counted twice */
	for (int i = 0; i < 7; i++)
		close(fds[i]);
	end(&w);
}

/* Else who proved itself once may stay for ever, and take all places, whatever becomes of what it proved. */
static void test_who_is_nobody_any_more_has_its_time_anew(void)
{
	struct world w;

	begin_strict(&w, 300, 4, 4);
	const int gone = connection_from(&w, INADDR_LOOPBACK);
	upgrade(&w, gone);
	websocket_prove(w.at_server.ws);
	websocket_unprove(w.at_server.ws);
	until_hung_up(&w, gone);
	assert(websocket_server_counters(w.server).unproven == 1);
	const int back = connection_from(&w, INADDR_LOOPBACK);
	upgrade(&w, back);
	websocket_prove(w.at_server.ws);
	websocket_unprove(w.at_server.ws);
	websocket_prove(w.at_server.ws); /* somebody again */
	const int later = connection_from(&w, INADDR_LOOPBACK);
	until_hung_up(&w, later); /* after the time that the other would have had */
	assert(is_held(back));
	close(gone);
	close(back);
	close(later);
	end(&w);
}

static void test_who_is_nobody_any_more_makes_room(void)
{
	struct world w;
	int fds[2];

	begin_strict(&w, 0, 2, 2);
	fds[0] = connection_from(&w, INADDR_LOOPBACK);
	upgrade(&w, fds[0]);
	websocket_prove(w.at_server.ws);
	websocket_unprove(w.at_server.ws);
	websocket_unprove(w.at_server.ws); /* it counts once */
	fds[1] = connection_from(&w, INADDR_LOOPBACK);
	upgrade(&w, fds[1]);
	assert(is_held(fds[0]));
	const int third = connection_from(&w, INADDR_LOOPBACK);
	until_hung_up(&w, fds[0]);
	assert(is_held(fds[1]) && websocket_server_counters(w.server).made_room == 1);
	close(third);
	for (int i = 0; i < 2; i++)
		close(fds[i]);
	end(&w);
}

static void test_a_source_takes_only_its_own_unproven_places(void)
{
	struct world w;
	int fds[5];

	begin_strict(&w, 0, 4, 2);
	fds[0] = connection_from(&w, INADDR_LOOPBACK + 1); /* the oldest of all */
	accept_all(&w, 1);
	for (int i = 1; i < 5; i++) {
		fds[i] = connection_from(&w, INADDR_LOOPBACK + 7);
		accept_all(&w, (uint64_t)i + 1);
	}
	until_hung_up(&w, fds[1]);
	until_hung_up(&w, fds[2]);
	assert(is_held(fds[0]) && is_held(fds[3]) && is_held(fds[4]));
	for (int i = 0; i < 5; i++)
		close(fds[i]);
	end(&w);
}

static void test_who_does_not_read_is_known_by_how_long(void)
{
	struct world w;
	char text[512];

	begin_strict(&w, 0, 4, 4);
	const int fd = connection_from(&w, INADDR_LOOPBACK);
	upgrade(&w, fd);
	websocket_prove(w.at_server.ws);
	memset(text, 'x', sizeof(text));
	assert(websocket_stalled_ms(w.at_server.ws) == 0);
	while (websocket_stalled_ms(w.at_server.ws) < 100) {
		while (websocket_send(w.at_server.ws, text, sizeof(text)) == 0)
			;
		uv_run(&w.loop, UV_RUN_NOWAIT);
	}
	assert(websocket_queued(w.at_server.ws) <= 4096);
	while (websocket_queued(w.at_server.ws) > 0) { /* it reads again */
		assert(is_held(fd));
		uv_run(&w.loop, UV_RUN_NOWAIT);
	}
	assert(websocket_stalled_ms(w.at_server.ws) == 0);
	close(fd);
	end(&w);
}

static void test_a_port_in_use_is_named(void)
{
	struct world w;
	struct websocket_server *second;
	struct error err;

	begin(&w);
	const struct websocket_server_options options = {
		.listen = endpoint_from_v4(INADDR_LOOPBACK, websocket_server_port(w.server)),
	};
	assert(websocket_server_new(w.host, &options, &second, &err) == -EADDRINUSE);
	assert(strstr(err.message, "cannot listen on 127.0.0.1:") &&
	       strstr(err.message, "uses the port"));
	end(&w);
}

static void test_a_host_closes_in_the_midst_of_everything(void)
{
	for (int turns = 0; turns < 30; turns++) {
		struct world w;
		begin(&w);
		struct websocket_client_options options = client_of(&w, &w.at_client);
		assert(websocket_connect(w.host, &options, NULL));
		options.host = "localhost";
		struct side other = { 0 };
		options.handler = handler_of(&other);
		assert(websocket_connect(w.host, &options, NULL));
		for (int i = 0; i < turns; i++)
			uv_run(&w.loop, UV_RUN_NOWAIT);
		end(&w);
		assert(w.at_client.n_closed == 1 && other.n_closed == 1);
	}
}

/* As another thread would, whenever the loop turns. */
struct opener {
	uv_check_t check;
	int fds[64];
	int n;
};

static void on_turn(uv_check_t *check)
{
	struct opener *opener = check->data;

	if (opener->n == (int)ARRAY_LEN(opener->fds))
		return;
	opener->fds[opener->n] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	assert(opener->fds[opener->n++] >= 0);
}

static int n_open(void)
{
	int n = 0;

	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void test_a_host_that_closes_closes_no_descriptor_of_others(void)
{
	struct world w;
	struct opener opener = { 0 };
	const int n_before = n_open();

	begin(&w);
	uv_check_init(&w.loop, &opener.check);
	opener.check.data = &opener;
	uv_check_start(&opener.check, on_turn);
	uv_unref((uv_handle_t *)&opener.check); /* as long as the host takes */
	websocket_host_close(w.host, on_host_closed, &w.host_closed);
	uv_run(&w.loop, UV_RUN_DEFAULT);
	assert(opener.n > 2);
	for (int i = 0; i < opener.n; i++)
		assert(close(opener.fds[i]) == 0);
	uv_close((uv_handle_t *)&opener.check, NULL);
	uv_run(&w.loop, UV_RUN_DEFAULT);
	free_world(&w);
	assert(n_open() == n_before);
}

#define RUN(test)                                                                                  \
	do {                                                                                       \
		running = #test;                                                                   \
		test();                                                                            \
	} while (0)

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	assert(sodium_init() >= 0);
	RUN(test_messages_go_both_ways);
	RUN(test_a_name_is_resolved);
	RUN(test_a_certificate_says_who_the_client_is);
	RUN(test_a_wrong_pin_is_not_trusted);
	RUN(test_a_server_of_another_network_is_not_trusted);
	RUN(test_a_client_certificate_of_another_network_is_refused);
	RUN(test_nobody_listens);
	RUN(test_a_name_that_is_unknown);
	RUN(test_a_burst_leaves_the_timers_running);
	RUN(test_a_message_beyond_the_bound_ends_its_connection_only);
	RUN(test_the_send_queue_is_bounded);
	RUN(test_who_takes_too_long_to_shake_hands_is_hung_up_on);
	RUN(test_garbage_is_hung_up_on);
	RUN(test_connections_beyond_the_limit_are_refused_at_once);
	RUN(test_connections_that_come_too_fast_are_refused);
	RUN(test_who_does_not_prove_itself_in_time_is_hung_up_on);
	RUN(test_the_oldest_unproven_makes_room_and_no_other);
	RUN(test_who_is_nobody_any_more_has_its_time_anew);
	RUN(test_who_is_nobody_any_more_makes_room);
	RUN(test_a_source_takes_only_its_own_unproven_places);
	RUN(test_who_does_not_read_is_known_by_how_long);
	RUN(test_a_port_in_use_is_named);
	RUN(test_a_host_closes_in_the_midst_of_everything);
	RUN(test_a_host_that_closes_closes_no_descriptor_of_others);
	puts("ok");
}
