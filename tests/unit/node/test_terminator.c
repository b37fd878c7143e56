/*
 * Where TLS ends: the visitor is OpenSSL's client at the other end of the pair of sockets that the door would have, the server
 * is ours. How visitors come there, and files, test_acceptor.c has; all of it together tests/net/test_terminate.py.
 */
#include "node/expose/terminator.h"

#include "node/expose/site_files.h"
#include "relay/frontdoor/proxy_header_wire.h"

#include "tests/unit/node/made_certificate.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define AWAIT_MS 10000
#define HOST	 "app.example.org"
#define VISITOR	 0xc0000207u /* 192.0.2.7 */

/* A host with its gate, as the acceptor has them. */
struct site {
	struct door_gate gate;
	struct terminated terminated;
};

struct world {
	struct terminator *terminator;
	struct site *site;
	int server;
	struct endpoint target;
	SSL_CTX *client;
};

static void free_site(struct door_gate *gate)
{
	struct site *site = container_of(gate, struct site, gate);

	terminated_deinit(&site->terminated);
	free(site);
}

static struct site *new_site(struct terminator *terminator, const struct endpoint *target, enum exposure_proxy proxy)
{
	struct site *site = calloc(1, sizeof(*site));

	assert(site);
	site->gate.free = free_site;
	door_gate_init(&site->gate);
	terminated_init(&site->terminated, terminator, target, proxy);
	return site;
}

static struct host_pattern pattern_of(const char *host)
{
	struct host_pattern pattern;

	assert(host_pattern_from(host, strlen(host), &pattern) == 0);
	return pattern;
}

static SSL_CTX *context_for(const char *host, bool has_h2)
{
	const struct host_pattern pattern = pattern_of(host);
	struct made_certificate made = make_certificate(host, 3600);
	struct tls_site_dates dates;
	struct error error;
	SSL_CTX *context;

	assert(tls_site_context_new(&pattern, made.certificate, made.key, has_h2, &context, &dates, &error) == 0);
	assert(dates.not_after - dates.not_before == 3600);
	free_made_certificate(&made);
	return context;
}

static int listen_somewhere(struct endpoint *ret)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(address);
	const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert(bind(fd, (struct sockaddr *)&address, len) == 0 && listen(fd, 100) == 0);
	assert(getsockname(fd, (struct sockaddr *)&address, &len) == 0);
	*ret = endpoint_from_v4(INADDR_LOOPBACK, ntohs(address.sin_port));
	return fd;
}

static void begin_with(struct world *world, const struct terminator_options *options, enum exposure_proxy proxy, bool has_h2)
{
	struct error error;

	*world = (struct world){ .client = SSL_CTX_new(TLS_client_method()) };
	assert(world->client && terminator_new(options, &world->terminator, &error) == 0);
	world->server = listen_somewhere(&world->target);
	world->site = new_site(world->terminator, &world->target, proxy);
	tls_site_set_context_take(&world->site->terminated.site, context_for(HOST, has_h2));
}

static void begin(struct world *world)
{
	const struct terminator_options options = { .max_visits = 0 };

	begin_with(world, &options, EXPOSURE_PROXY_NONE, false);
}

static void finish(struct world *world)
{
	terminator_free(world->terminator);
	door_gate_let_go(&world->site->gate);
	SSL_CTX_free(world->client);
	close(world->server);
}

/* The visitor's end, as the door has it, but that it waits. */
static int bring_to(struct site *site, const char *host, bool is_https, bool *ret_taken)
{
	struct door_guest guest = { .source = endpoint_from_v4(VISITOR, 1234), .destination = endpoint_from_v4(VISITOR + 1, 443),
				    .is_https = is_https, .n_doors = 2, .gate = &site->gate };
	const struct timeval patience = { .tv_sec = AWAIT_MS / 1000 };
	int fds[2];

	assert(host_name_from(host, strlen(host), &guest.host) == 0);
	assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
	assert(fcntl(fds[1], F_SETFL, O_NONBLOCK) == 0);
	*ret_taken = site->terminated.sink.take(&site->terminated.sink, fds[1], &guest);
	assert(setsockopt(fds[0], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) == 0);
	return fds[0];
}

static int bring(struct world *world)
{
	bool is_taken;
	const int fd = bring_to(world->site, HOST, true, &is_taken);

	assert(is_taken);
	return fd;
}

/* Asks for name, with these protocols ("\x08http/1.1"). */
static SSL *hello(struct world *world, int fd, const char *name, const char *alpn)
{
	SSL *ssl = SSL_new(world->client);

	assert(ssl && SSL_set_fd(ssl, fd) == 1);
	if (name)
		assert(SSL_set_tlsext_host_name(ssl, name) == 1);
	if (alpn)
		assert(SSL_set_alpn_protos(ssl, (const uint8_t *)alpn, (unsigned)strlen(alpn)) == 0);
	return ssl;
}

static SSL *visit(struct world *world)
{
	SSL *ssl = hello(world, bring(world), HOST, NULL);

	assert(SSL_connect(ssl) == 1);
	return ssl;
}

static int accept_one(int server)
{
	struct pollfd wait = { .fd = server, .events = POLLIN };
	const struct timeval patience = { .tv_sec = AWAIT_MS / 1000 };

	assert(poll(&wait, 1, AWAIT_MS) == 1);
	const int fd = accept(server, NULL, NULL);
	assert(fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) == 0);
	return fd;
}

static void expect_bytes(int fd, const char *text)
{
	char heard[512];
	size_t n = 0;

	while (n < strlen(text)) {
		const ssize_t some = recv(fd, heard + n, strlen(text) - n, 0);
		assert(some > 0);
		n += (size_t)some;
	}
	assert(memcmp(heard, text, n) == 0);
}

static void leave(SSL *ssl)
{
	const int fd = SSL_get_fd(ssl);

	SSL_free(ssl);
	close(fd);
}

static struct terminated_counters counters_of(const struct world *world)
{
	return terminated_counters(&world->site->terminated);
}

static void test_bytes_go_through_in_plain_and_back_and_ends_are_ends(void)
{
	struct world world;
	char heard[16];

	begin(&world);
	SSL *ssl = visit(&world);
	const int server = accept_one(world.server);
	assert(SSL_write(ssl, "GET /", 5) == 5);
	expect_bytes(server, "GET /");
	assert(SSL_shutdown(ssl) == 0); /* close_notify: an end of one way */
	assert(recv(server, heard, 1, 0) == 0);
	assert(send(server, "answer", 6, MSG_NOSIGNAL) == 6);
	assert(SSL_read(ssl, heard, sizeof(heard)) == 6 && memcmp(heard, "answer", 6) == 0);
	close(server);
	assert(SSL_read(ssl, heard, sizeof(heard)) == 0 && SSL_get_error(ssl, 0) == SSL_ERROR_ZERO_RETURN);
	assert(counters_of(&world).handshakes == 1 && counters_of(&world).truncated == 0);
	leave(ssl);
	finish(&world);
}

static void test_the_server_may_end_first_and_still_be_told(void)
{
	struct world world;
	char heard[16];

	begin(&world);
	SSL *ssl = visit(&world);
	const int server = accept_one(world.server);
	assert(shutdown(server, SHUT_WR) == 0);
	assert(SSL_read(ssl, heard, sizeof(heard)) == 0 && SSL_get_error(ssl, 0) == SSL_ERROR_ZERO_RETURN);
	assert(SSL_write(ssl, "late", 4) == 4);
	expect_bytes(server, "late");
	assert(SSL_shutdown(ssl) >= 0);
	assert(recv(server, heard, 1, 0) == 0);
	close(server);
	leave(ssl);
	finish(&world);
}

static void test_who_breaks_off_resets_the_server(void)
{
	struct world world;
	char heard[16];

	begin(&world);
	SSL *ssl = visit(&world);
	const int server = accept_one(world.server);
	assert(SSL_write(ssl, "half", 4) == 4);
	expect_bytes(server, "half");
	leave(ssl); /* no close_notify */
	assert(recv(server, heard, 1, 0) < 0 && errno == ECONNRESET);
	close(server);
	assert(counters_of(&world).truncated == 1);
	finish(&world);
}

static void test_a_server_that_breaks_gives_no_close_notify(void)
{
	const struct linger linger = { .l_onoff = 1 };
	struct world world;
	char heard[16];

	begin(&world);
	SSL *ssl = visit(&world);
	const int server = accept_one(world.server);
	assert(setsockopt(server, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)) == 0);
	close(server);
	const int n = SSL_read(ssl, heard, sizeof(heard));
	assert(n <= 0 && SSL_get_error(ssl, n) != SSL_ERROR_ZERO_RETURN);
	leave(ssl);
	finish(&world);
}

static void test_the_server_is_told_who_the_visitor_is(void)
{
	const struct terminator_options options = { .max_visits = 0 };
	struct world world;
	uint8_t bytes[512];
	struct proxy_header header;
	size_t len;

	begin_with(&world, &options, EXPOSURE_PROXY_V2, true);
	SSL *ssl = hello(&world, bring(&world), HOST, "\x02h2\x08http/1.1");
	assert(SSL_connect(ssl) == 1);
	const int server = accept_one(world.server);
	assert(SSL_write(ssl, "hello", 5) == 5);
	size_t n = 0;
	while (n < 5 || memcmp(bytes + n - 5, "hello", 5) != 0) {
		const ssize_t some = recv(server, bytes + n, sizeof(bytes) - n, 0);
		assert(some > 0);
		n += (size_t)some;
	}
	assert(proxy_v2_decode(bytes, n, &header, &len) == 0 && len + 5 == n);
	const struct endpoint visitor = endpoint_from_v4(VISITOR, 1234), place = endpoint_from_v4(VISITOR + 1, 443);
	assert(endpoint_equal(&header.source, &visitor) && endpoint_equal(&header.destination, &place));
	assert(header.authority.len == strlen(HOST) && memcmp(header.authority.at, HOST, strlen(HOST)) == 0);
	assert(header.alpn.len == 2 && memcmp(header.alpn.at, "h2", 2) == 0);
	assert(header.scheme == PROXY_HTTPS && header.n_doors == 2);
	close(server);
	leave(ssl);
	finish(&world);
}

static void refused(struct world *world, const char *name, const char *alpn)
{
	const uint64_t before = counters_of(world).failed;
	SSL *ssl = hello(world, bring(world), name, alpn);

	char heard[64];
	assert(SSL_connect(ssl) != 1);
	while (recv(SSL_get_fd(ssl), heard, sizeof(heard), 0) > 0)
		; /* until it is closed */
	leave(ssl);
	assert(counters_of(world).failed == before + 1);
	ERR_clear_error();
}

static void test_who_asks_for_another_host_or_protocol_is_refused_and_the_server_hears_nothing(void)
{
	struct world world;

	begin(&world);
	refused(&world, "other.example.org", NULL);
	refused(&world, NULL, NULL);
	refused(&world, HOST, "\x02h2");
	refused(&world, HOST, "\x0a" "acme-tls/1"); /* there is no order */
	struct pollfd wait = { .fd = world.server, .events = POLLIN };
	assert(poll(&wait, 1, 0) == 0);
	finish(&world);
}

static void expect_alpn(struct world *world, const char *alpn, const char *chosen)
{
	SSL *ssl = hello(world, bring(world), HOST, alpn);
	const uint8_t *got;
	unsigned len;

	assert(SSL_connect(ssl) == 1);
	SSL_get0_alpn_selected(ssl, &got, &len);
	assert(len == strlen(chosen) && memcmp(got, chosen, len) == 0);
	close(accept_one(world->server));
	leave(ssl);
}

static void test_h2_is_spoken_only_if_the_server_does(void)
{
	const struct terminator_options options = { .max_visits = 0 };
	struct world world;

	begin(&world);
	expect_alpn(&world, "\x02h2\x08http/1.1", "http/1.1");
	finish(&world);
	begin_with(&world, &options, EXPOSURE_PROXY_NONE, true);
	expect_alpn(&world, "\x02h2\x08http/1.1", "h2");
	expect_alpn(&world, "\x08http/1.1", "http/1.1");
	finish(&world);
}

static void test_old_tls_is_refused(void)
{
	struct world world;

	begin(&world);
	SSL_CTX_set_min_proto_version(world.client, TLS1_1_VERSION);
	SSL_CTX_set_max_proto_version(world.client, TLS1_1_VERSION);
	refused(&world, HOST, NULL);
	SSL_CTX_set_max_proto_version(world.client, TLS1_2_VERSION);
	SSL *ssl = visit(&world);
	assert(strcmp(SSL_get_version(ssl), "TLSv1.2") == 0);
	close(accept_one(world.server));
	leave(ssl);
	finish(&world);
}

/* A visit that is told a ticket, and ends well. */
static SSL_SESSION *session_of(struct world *world, struct site *site, const char *host, SSL_SESSION *session, bool *resumed)
{
	bool is_taken;
	char heard[4];
	SSL *ssl = hello(world, bring_to(site, host, true, &is_taken), host, NULL);

	assert(is_taken && (!session || SSL_set_session(ssl, session) == 1));
	assert(SSL_connect(ssl) == 1);
	*resumed = SSL_session_reused(ssl) == 1;
	const int server = accept_one(world->server);
	close(server);
	assert(SSL_read(ssl, heard, sizeof(heard)) == 0);
	SSL_SESSION *got = SSL_get1_session(ssl);
	(void)SSL_shutdown(ssl); /* else it is not good for another time */
	leave(ssl);
	return got;
}

static void test_a_session_is_of_one_host_alone(void)
{
	struct world world;
	bool resumed;

	begin(&world);
	struct site *other = new_site(world.terminator, &world.target, EXPOSURE_PROXY_NONE);
	tls_site_set_context_take(&other->terminated.site, context_for("b.example.org", false));
	SSL_SESSION *session = session_of(&world, world.site, HOST, NULL, &resumed);
	SSL_SESSION *again = session_of(&world, world.site, HOST, session, &resumed);
	assert(resumed && counters_of(&world).resumed == 1);
	SSL_SESSION *elsewhere = session_of(&world, other, "b.example.org", session, &resumed);
	assert(!resumed);
	SSL_SESSION_free(session);
	SSL_SESSION_free(again);
	SSL_SESSION_free(elsewhere);
	terminator_free(world.terminator);
	world.terminator = NULL;
	door_gate_let_go(&other->gate);
	finish(&world);
}

static void test_who_does_not_shake_hands_goes_and_a_server_that_is_not_there_is_told_of(void)
{
	const struct terminator_options options = { .handshake_ms = 50, .max_of_source = 2 };
	struct world world;
	bool is_taken;
	char heard[1];

	begin_with(&world, &options, EXPOSURE_PROXY_NONE, false);
	const int one = bring(&world), two = bring(&world), three = bring_to(world.site, HOST, true, &is_taken);
	assert(!is_taken && recv(three, heard, 1, 0) == 0 && counters_of(&world).over_limit == 1);
	assert(recv(one, heard, 1, 0) == 0 && recv(two, heard, 1, 0) == 0);
	assert(counters_of(&world).too_slow == 2);
	close(one), close(two), close(three);
	assert(door_gate_counters(&world.site->gate).unreachable == 0);
	close(world.server);
	SSL *ssl = visit(&world);
	assert(SSL_read(ssl, heard, 1) <= 0);
	assert(door_gate_counters(&world.site->gate).unreachable == 1);
	assert(door_gate_counters(&world.site->gate).state == DOOR_TARGET_DOWN);
	leave(ssl);
	world.server = listen_somewhere(&world.target);
	finish(&world);
}

static void test_without_a_certificate_nobody_comes_in(void)
{
	struct world world;
	char heard[1];

	begin(&world);
	tls_site_set_context_take(&world.site->terminated.site, NULL);
	const int fd = bring(&world);
	assert(recv(fd, heard, 1, 0) == 0 && counters_of(&world).no_certificate == 1);
	close(fd);
	finish(&world);
}

static void test_an_acme_challenge_is_shown_to_who_asks_for_it_alone(void)
{
	struct world world;
	char heard[1];
	const uint8_t *got;
	unsigned len;

	begin(&world);
	tls_site_set_challenge_take(&world.site->terminated.site, context_for(HOST, false));
	for (int i = 0; i < 2; i++) {
		SSL *ssl = hello(&world, bring(&world), HOST, "\x0a" "acme-tls/1");
		assert(SSL_connect(ssl) == 1);
		SSL_get0_alpn_selected(ssl, &got, &len);
		assert(len == 10 && memcmp(got, "acme-tls/1", 10) == 0);
		assert(SSL_read(ssl, heard, 1) == 0); /* that was all */
		leave(ssl);
		if (i == 0) /* also before there is a certificate: but nobody else is shown it */
			tls_site_set_context_take(&world.site->terminated.site, NULL);
	}
	refused(&world, HOST, NULL);
	refused(&world, HOST, "\x08http/1.1\x0a" "acme-tls/1");
	assert(counters_of(&world).challenges == 2);
	finish(&world);
}

static void expect_http(struct world *world, const char *request, const char *answer)
{
	bool is_taken;
	char heard[1024] = "";
	const int fd = bring_to(world->site, HOST, false, &is_taken);
	size_t n = 0;
	ssize_t some;

	assert(is_taken && send(fd, request, strlen(request), MSG_NOSIGNAL) == (ssize_t)strlen(request));
	if (!answer) {
		const int server = accept_one(world->server);
		expect_bytes(server, request);
		close(server);
	}
	while ((some = recv(fd, heard + n, sizeof(heard) - n - 1, 0)) > 0)
		n += (size_t)some;
	assert(!answer || (strncmp(heard, "HTTP/1.1 200 ", 13) == 0 && strcmp(strstr(heard, "\r\n\r\n") + 4, answer) == 0));
	close(fd);
}

static void test_by_http_the_token_is_answered_and_all_else_is_the_servers(void)
{
	struct world world;

	begin(&world);
	tls_site_set_answer(&world.site->terminated.site, "token", "token.thumbprint");
	expect_http(&world, "GET /.well-known/acme-challenge/token HTTP/1.1\r\nHost: a\r\n\r\n", "token.thumbprint");
	expect_http(&world, "GET /.well-known/acme-challenge/token2 HTTP/1.1\r\nHost: a\r\n\r\n", NULL);
	expect_http(&world, "GET / HTTP/1.1\r\nHost: a\r\n\r\nbody", NULL);
	expect_http(&world, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", NULL);
	tls_site_set_answer(&world.site->terminated.site, NULL, NULL);
	expect_http(&world, "GET /.well-known/acme-challenge/token HTTP/1.1\r\nHost: a\r\n\r\n", NULL);
	assert(counters_of(&world).challenges == 1);
	finish(&world);
}

static bool allows_nobody(const struct door_gate *gate, const struct endpoint *visitor)
{
	(void)gate, (void)visitor;
	return false;
}

static bool is_server_asked(const struct world *world)
{
	struct pollfd poll_ = { .fd = world->server, .events = POLLIN };

	return poll(&poll_, 1, 0) > 0;
}

static void test_who_is_not_on_the_list_has_an_open_challenge_answered_and_no_more(void)
{
	const struct endpoint visitor = endpoint_from_v4(VISITOR, 1);
	struct world world;
	char heard[1];
	bool is_taken;

	begin(&world);
	struct door_gate *gate = &world.site->gate;
	struct door_sink *sink = &world.site->terminated.sink;
	gate->allows = allows_nobody;
	assert(!sink->judges(sink) && door_gate_ask(gate, &visitor, false, 1) == DOOR_GATE_NOT_ALLOWED);
	tls_site_set_answer(&world.site->terminated.site, "token", "token.thumbprint");
	assert(sink->judges(sink) && door_gate_ask(gate, &visitor, true, 1) == DOOR_GATE_OPEN);
	expect_http(&world, "GET /.well-known/acme-challenge/token HTTP/1.1\r\nHost: a\r\n\r\n", "token.thumbprint");
	const int fd = bring_to(world.site, HOST, false, &is_taken);
	assert(is_taken && send(fd, "GET / HTTP/1.1\r\n", 16, MSG_NOSIGNAL) == 16 && recv(fd, heard, 1, 0) <= 0);
	close(fd);

	tls_site_set_challenge_take(&world.site->terminated.site, context_for(HOST, false));
	SSL *ssl = hello(&world, bring(&world), HOST, "\x0a" "acme-tls/1");
	assert(SSL_connect(ssl) == 1 && SSL_read(ssl, heard, 1) == 0);
	leave(ssl);
	ssl = visit(&world);
	assert(SSL_read(ssl, heard, 1) <= 0);
	leave(ssl);
	assert(!is_server_asked(&world) && counters_of(&world).challenges == 2);
	assert(door_gate_counters(gate).refused[DOOR_GATE_NOT_ALLOWED] == 3);
	tls_site_set_challenge_take(&world.site->terminated.site, NULL);
	tls_site_set_answer(&world.site->terminated.site, NULL, NULL);
	assert(!sink->judges(sink));
	finish(&world);
}

/* Much both ways at once, and nobody reads before it is all sent or cannot be. */
static void test_much_is_carried_both_ways_and_who_does_not_read_is_waited_for(void)
{
	enum { MUCH = 4 << 20, PIECE = 16 << 10 };
	static uint8_t bytes[PIECE], heard[PIECE];
	struct world world;
	size_t up = 0, sent_down = 0, down = 0;

	begin(&world);
	randombytes_buf(bytes, sizeof(bytes));
	SSL *ssl = visit(&world);
	const int server = accept_one(world.server);
	SSL_set_mode(ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	while (sent_down < MUCH) { /* until nothing more is taken, and then as it is */
		const ssize_t n = send(server, bytes + sent_down % PIECE, PIECE - sent_down % PIECE, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && down == 0 && sent_down > 0)
			usleep(1000);
		sent_down += n > 0 ? (size_t)n : 0;
		if (n >= 0)
			continue;
		const int got = SSL_read(ssl, heard, PIECE);
		assert(got > 0);
		for (int i = 0; i < got; i++)
			assert(heard[i] == bytes[(down + (size_t)i) % PIECE]);
		down += (size_t)got;
		if (up < MUCH) {
			assert(SSL_write(ssl, bytes, 1000) == 1000);
			up += 1000;
			for (size_t taken = 0; taken < 1000;) {
				const ssize_t some = recv(server, heard, 1000 - taken, 0);
				assert(some > 0 && memcmp(heard, bytes + taken, (size_t)some) == 0);
				taken += (size_t)some;
			}
		}
	}
	close(server);
	int got;
	while ((got = SSL_read(ssl, heard, PIECE)) > 0)
		down += (size_t)got;
	assert(down == MUCH && SSL_get_error(ssl, got) == SSL_ERROR_ZERO_RETURN);
	leave(ssl);
	finish(&world);
}

/* ---- at the edge of what a server takes: its socket here is found among ours, and filled behind the terminator's back ---- */

enum { BLOCK = 1024, RECORD = 16 << 10 };

/* The terminator's socket to the server. */
static int find_far(const struct world *world)
{
	for (int fd = 3; fd < 1024; fd++) {
		struct sockaddr_in peer;
		socklen_t len = sizeof(peer);
		if (getpeername(fd, (struct sockaddr *)&peer, &len) == 0 && len == sizeof(peer) && peer.sin_family == AF_INET &&
		    ntohs(peer.sin_port) == world->target.port)
			return fd;
	}
	assert(false);
	return -1;
}

/* A server that is known to be reached: one byte has come through. */
static int accept_open(const struct world *world, SSL *ssl)
{
	const int server = accept_one(world->server);

	assert(SSL_write(ssl, "x", 1) == 1);
	expect_bytes(server, "x");
	return server;
}

static size_t n_waiting(int fd, unsigned long what)
{
	int n;

	assert(ioctl(fd, what, &n) == 0);
	return (size_t)n;
}

/* Returns how much it took. */
static size_t fill(int fd, size_t most)
{
	static const uint8_t block[BLOCK];
	size_t filled = 0;

	while (filled < most && send(fd, block, BLOCK, MSG_DONTWAIT | MSG_NOSIGNAL) == BLOCK)
		filled += BLOCK;
	return filled;
}

/* Seven records of a byte and one that is full, which a step reads at once. */
static void send_eight_records(SSL *ssl)
{
	static uint8_t bytes[2 * RECORD];
	const int fd = SSL_get_fd(ssl);
	BIO *bio = BIO_new(BIO_s_mem());

	SSL_set0_wbio(ssl, bio);
	for (int i = 0; i < 7; i++)
		assert(SSL_write(ssl, bytes, 1) == 1);
	assert(SSL_write(ssl, bytes, RECORD) == RECORD);
	const int n = BIO_read(bio, bytes, sizeof(bytes));
	assert(n > RECORD && send(fd, bytes, (size_t)n, MSG_NOSIGNAL) == n);
}

static size_t expect_n(int fd, size_t n)
{
	static uint8_t heard[RECORD];
	size_t got = 0;

	while (got < n) {
		const ssize_t some = recv(fd, heard, n - got < sizeof(heard) ? n - got : sizeof(heard), 0);
		assert(some > 0);
		got += (size_t)some;
	}
	return got;
}

/* Without a byte read of what lies there. */
static void expect_reset(int fd)
{
	struct pollfd polled = { .fd = fd };

	assert(poll(&polled, 1, AWAIT_MS) == 1 && (polled.revents & POLLERR));
}

/* The server's socket is filled with most, and a request ends behind that before it is read. Returns how much it was. */
static size_t request_with_room(struct world *world, size_t most)
{
	const int small = RECORD;
	SSL *ssl = visit(world);
	const int server = accept_open(world, ssl), far = find_far(world);

	assert(setsockopt(far, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)) == 0);
	const size_t filled = fill(far, most);
	send_eight_records(ssl);
	for (int i = 0; i < 50 && n_waiting(SSL_get_fd(ssl), SIOCOUTQ) > 0; i++)
		usleep(100); /* where there is no room at all, it waits there */
	expect_n(server, filled + 7 + RECORD);
	leave(ssl);
	close(server);
	return filled;
}

static void test_what_a_server_takes_in_part_reaches_it_when_it_reads_on(void)
{
	const int small = 4096;
	struct world world;

	begin(&world);
	assert(setsockopt(world.server, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)) == 0);
	const size_t all = request_with_room(&world, SIZE_MAX);
	for (size_t room = BLOCK; room < all && room < 4 * RECORD; room += BLOCK)
		(void)request_with_room(&world, all - room);
	finish(&world);
}

/* The server has ended, does not read and does not close; the visitor is cut: nobody is told, but it goes. */
static void test_a_cut_visitor_of_a_server_that_has_ended_and_does_not_read_goes(void)
{
	const struct terminator_options options = { .half_closed_ms = 100 };
	static const uint8_t bytes[RECORD];
	struct world world;
	char heard[16];

	begin_with(&world, &options, EXPOSURE_PROXY_NONE, false);
	SSL *ssl = visit(&world);
	const int server = accept_open(&world, ssl);
	(void)fill(find_far(&world), SIZE_MAX);
	assert(SSL_write(ssl, bytes, RECORD) == RECORD);
	assert(shutdown(server, SHUT_WR) == 0);
	assert(SSL_read(ssl, heard, sizeof(heard)) == 0 && SSL_get_error(ssl, 0) == SSL_ERROR_ZERO_RETURN);
	leave(ssl);
	expect_reset(server);
	close(server);
	finish(&world);
}

/* As long as the visitor sends, and it is taken, that goes on. */
static void test_a_server_that_has_ended_and_reads_on_is_given_all(void)
{
	const struct terminator_options options = { .half_closed_ms = 200 };
	struct world world;
	char heard[16];

	begin_with(&world, &options, EXPOSURE_PROXY_NONE, false);
	SSL *ssl = visit(&world);
	const int server = accept_open(&world, ssl);
	assert(shutdown(server, SHUT_WR) == 0);
	assert(SSL_read(ssl, heard, sizeof(heard)) == 0);
	for (int i = 0; i < 10; i++) {
		usleep(50000);
		assert(SSL_write(ssl, "more", 4) == 4);
		expect_bytes(server, "more");
	}
	leave(ssl);
	close(server);
	finish(&world);
}

static void test_what_a_server_says_before_it_takes_no_more_is_the_visitors(void)
{
	static const uint8_t bytes[RECORD];
	struct world world;
	char heard[16];

	begin(&world);
	SSL *ssl = visit(&world);
	const int server = accept_open(&world, ssl);
	(void)fill(find_far(&world), SIZE_MAX);
	assert(SSL_write(ssl, bytes, RECORD) == RECORD);
	assert(send(server, "413", 3, MSG_NOSIGNAL) == 3);
	close(server); /* with the request unread: it is reset */
	assert(SSL_read(ssl, heard, sizeof(heard)) == 3 && memcmp(heard, "413", 3) == 0);
	const int n = SSL_read(ssl, heard, sizeof(heard));
	assert(n <= 0 && SSL_get_error(ssl, n) != SSL_ERROR_ZERO_RETURN);
	assert(counters_of(&world).truncated == 0);
	leave(ssl);
	finish(&world);
}

static void test_a_slow_visitor_gets_all_that_came_before_the_server_broke(void)
{
	struct world world;
	static uint8_t heard[RECORD];
	size_t got = 0;
	int n;

	begin(&world);
	SSL *ssl = visit(&world);
	const int server = accept_one(world.server), far = find_far(&world);
	assert(SSL_write(ssl, "request", 7) == 7);
	while (n_waiting(server, SIOCINQ) < 7)
		usleep(100);
	size_t sent = fill(server, 1 << 20); /* more than the visitor's socket holds */
	while (n_waiting(server, SIOCOUTQ) > 0 && n_waiting(far, SIOCINQ) == 0)
		usleep(100);
	sent -= n_waiting(server, SIOCOUTQ);
	close(server);
	while ((n = SSL_read(ssl, heard, RECORD)) > 0)
		got += (size_t)n;
	assert(got >= sent && SSL_get_error(ssl, n) != SSL_ERROR_ZERO_RETURN);
	leave(ssl);
	finish(&world);
}

/* ---- certificates ---- */

static void expect_not_fit(const char *host, const char *certificate, const char *key, const char *why)
{
	const struct host_pattern pattern = pattern_of(host);
	struct tls_site_dates dates;
	struct error error;
	SSL_CTX *context;

	assert(tls_site_context_new(&pattern, certificate, key, false, &context, &dates, &error) == -EINVAL);
	if (!strstr(error.message, why)) {
		printf("%s: %s\n", why, error.message);
		assert(false);
	}
}

static void test_what_does_not_fit_together_is_refused_with_the_reason(void)
{
	struct made_certificate one = make_certificate(HOST, 3600), other = make_certificate(HOST, 3600);
	struct made_certificate wild = make_certificate("*.example.org", 3600);

	expect_not_fit(HOST, one.certificate, other.key, "the key is not the certificate's");
	expect_not_fit("b.example.org", one.certificate, one.key, "the certificate is not for b.example.org");
	expect_not_fit("*.example.org", one.certificate, one.key, "the certificate is not for *.example.org");
	expect_not_fit(HOST, "nothing", one.key, "no certificate in PEM");
	expect_not_fit(HOST, one.certificate, "nothing", "no private key in PEM");
	SSL_CTX_free(context_for("*.example.org", false));
	const struct host_pattern pattern = pattern_of(HOST);
	struct tls_site_dates dates;
	struct error error;
	SSL_CTX *context;
	assert(tls_site_context_new(&pattern, wild.certificate, wild.key, false, &context, &dates, &error) == 0);
	SSL_CTX_free(context);
	free_made_certificate(&one);
	free_made_certificate(&other);
	free_made_certificate(&wild);
}

static void write_file(const char *path, const char *text, mode_t mode)
{
	FILE *file = fopen(path, "w");

	assert(file && fputs(text, file) >= 0 && fclose(file) == 0 && chmod(path, mode) == 0);
}

static void test_other_files_are_taken_and_bad_ones_are_told_of_while_the_old_is_shown(void)
{
	char folder[] = "/tmp/p2p-site-XXXXXX", certificate[64], key[64], text[256];
	struct made_certificate one = make_certificate(HOST, 3600), other = make_certificate(HOST, 7200);
	struct site_files files = { .is_shown = false };
	struct tls_site site;
	struct exposure exposure;
	struct error error;

	assert(mkdtemp(folder));
	snprintf(certificate, sizeof(certificate), "%s/c.pem", folder);
	snprintf(key, sizeof(key), "%s/k.pem", folder);
	snprintf(text, sizeof(text), "https://" HOST " 80 tls=terminate certificate=%s key=%s", certificate, key);
	assert(exposure_parse(text, &exposure, &error) == 0);
	tls_site_init(&site);
	site_files_look(&files, &exposure, &site, 0);
	assert(!files.is_shown && strstr(files.failure.message, "c.pem"));
	assert(mkfifo(key, 0600) == 0 && mkfifo(certificate, 0600) == 0); /* nobody writes: it must not wait */
	site_files_look(&files, &exposure, &site, 0);
	assert(!files.is_shown && strstr(files.failure.message, "c.pem: is no plain file"));
	assert(unlink(certificate) == 0);
	write_file(certificate, one.certificate, 0644);
	site_files_look(&files, &exposure, &site, 0);
	assert(!files.is_shown && strstr(files.failure.message, "k.pem: is no plain file") && unlink(key) == 0);
	write_file(certificate, one.certificate, 0644);
	write_file(key, one.key, 0644);
	site_files_look(&files, &exposure, &site, 0);
	assert(!files.is_shown && strstr(files.failure.message, "chmod 600"));
	assert(chmod(key, 0600) == 0);
	site_files_look(&files, &exposure, &site, 0);
	SSL_CTX *first = site.context;
	assert(files.is_shown && first && files.dates.not_after - files.dates.not_before == 3600);
	site_files_look(&files, &exposure, &site, 1000);
	assert(site.context == first);
	write_file(certificate, other.certificate, 0644); /* its key is still to come */
	site_files_look(&files, &exposure, &site, 2000);
	assert(files.is_shown && site.context == first && strstr(files.failure.message, "the key is not the certificate's"));
	write_file(key, other.key, 0600);
	site_files_look(&files, &exposure, &site, 3000);
	assert(site.context != first && files.failure.message[0] == '\0' && files.dates.not_after - files.dates.not_before == 7200);
	SSL_CTX *second = site.context;
	site_files_look(&files, &exposure, &site, 3000 + 24 * 3600 * 1000); /* for the keys of tickets */
	assert(site.context != second);
	tls_site_deinit(&site);
	assert(unlink(certificate) == 0 && unlink(key) == 0 && rmdir(folder) == 0);
	free_made_certificate(&one);
	free_made_certificate(&other);
}

int main(void)
{
	assert(sodium_init() >= 0 && signal(SIGPIPE, SIG_IGN) != SIG_ERR);
	test_bytes_go_through_in_plain_and_back_and_ends_are_ends();
	test_the_server_may_end_first_and_still_be_told();
	test_who_breaks_off_resets_the_server();
	test_a_server_that_breaks_gives_no_close_notify();
	test_the_server_is_told_who_the_visitor_is();
	test_who_asks_for_another_host_or_protocol_is_refused_and_the_server_hears_nothing();
	test_h2_is_spoken_only_if_the_server_does();
	test_old_tls_is_refused();
	test_a_session_is_of_one_host_alone();
	test_who_does_not_shake_hands_goes_and_a_server_that_is_not_there_is_told_of();
	test_without_a_certificate_nobody_comes_in();
	test_an_acme_challenge_is_shown_to_who_asks_for_it_alone();
	test_by_http_the_token_is_answered_and_all_else_is_the_servers();
	test_who_is_not_on_the_list_has_an_open_challenge_answered_and_no_more();
	test_much_is_carried_both_ways_and_who_does_not_read_is_waited_for();
	test_what_a_server_takes_in_part_reaches_it_when_it_reads_on();
	test_a_cut_visitor_of_a_server_that_has_ended_and_does_not_read_goes();
	test_a_server_that_has_ended_and_reads_on_is_given_all();
	test_what_a_server_says_before_it_takes_no_more_is_the_visitors();
	test_a_slow_visitor_gets_all_that_came_before_the_server_broke();
	test_what_does_not_fit_together_is_refused_with_the_reason();
	test_other_files_are_taken_and_bad_ones_are_told_of_while_the_old_is_shown();
	printf("ok\n");
	return 0;
}
