/*
 * The local API on a real loop and a real socket; the engine behind it is made of fake ports.
 * Clients are plain file descriptors of the same thread: write, turn the loop, read.
 */
#include "node/local_api.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define LINK "p2p://192.0.2.1:8443/#AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8.jk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"

struct world {
	uv_loop_t loop;
	struct local_api *api;
	char folder[32], path[64];
	char asked[128];	   /* what the last port was asked */
	local_api_request waiting; /* of a ping: answered by the test */
	bool closed;
};

/* the engine */

static void port_status(void *owner, struct node_status *ret)
{
	ret->state = NODE_RUNNING;
	strcpy(ret->network, "home");
}

static void port_join(void *owner, local_api_request request, const struct join_link *link, const char *name)
{
	struct world *w = owner;

	snprintf(w->asked, sizeof(w->asked), "join %.40s:%u %.40s", link->host, link->port, name);
	local_api_done(w->api, request);
}

static void port_leave(void *owner, local_api_request request)
{
	struct world *w = owner;

	local_api_refuse(w->api, request, RPC_UNAVAILABLE, "this node has not joined a network");
}

static void port_ping(void *owner, local_api_request request, const struct local_api_ping *ping)
{
	struct world *w = owner;

	snprintf(w->asked, sizeof(w->asked), "ping %.40s %u", ping->name, ping->timeout_ms);
	w->waiting = request;
}

static void port_netcheck(void *owner, local_api_request request)
{
	struct world *w = owner;
	struct node_netcheck netcheck;

	node_netcheck_init(&netcheck);
	netcheck.udp_works = true;
	local_api_answer_netcheck(w->api, request, &netcheck);
	node_netcheck_deinit(&netcheck);
}

static void port_relay_status(void *owner, local_api_request request, bool with_clients)
{
	struct world *w = owner;
	struct relay_status status;

	relay_status_init(&status);
	status.tls_port = 443;
	if (with_clients)
		strcpy(relay_status_add_client(&status)->name, "alice");
	local_api_answer_relay_status(w->api, request, &status);
	relay_status_deinit(&status);
}

static void port_relay_drain(void *owner, local_api_request request, uint32_t deadline_s)
{
	struct world *w = owner;

	snprintf(w->asked, sizeof(w->asked), "drain %u", deadline_s);
	local_api_done(w->api, request);
}

static void port_relay_undrain(void *owner, local_api_request request)
{
	local_api_refuse(((struct world *)owner)->api, request, RPC_NOT_FOUND, "no relay here");
}

static void port_expose(void *owner, local_api_request request, const struct exposure *exposure)
{
	struct world *w = owner;
	char text[EXPOSURE_TEXT];

	exposure_print(exposure, text);
	snprintf(w->asked, sizeof(w->asked), "expose %.40s", text);
	local_api_done(w->api, request);
}

static void port_unexpose(void *owner, local_api_request request, const struct exposure *host)
{
	struct world *w = owner;
	char text[EXPOSURE_HOST_TEXT];

	exposure_print_host(host, text);
	snprintf(w->asked, sizeof(w->asked), "unexpose %.40s", text);
	local_api_done(w->api, request);
}

static void port_exposures(void *owner, local_api_request request)
{
	local_api_done(((struct world *)owner)->api, request);
}

static void port_diglett(void *owner, local_api_request request, const struct diglett_order *order)
{
	struct world *w = owner;

	snprintf(w->asked, sizeof(w->asked), "diglett %d %.20s %.8s %u %.10s", order->kind, order->name.text, order->id,
		 order->token.n_patterns, order->token.label);
	local_api_done(w->api, request);
}

static struct local_api_ports ports_of(struct world *w)
{
	return (struct local_api_ports){ w,	       port_status,   port_join,	port_leave,
					 port_ping, port_netcheck, port_relay_status, port_relay_drain,
					 port_relay_undrain, port_expose, port_unexpose, port_exposures, port_diglett };
}

/* the world */

static void begin(struct world *w)
{
	*w = (struct world){ .folder = "/tmp/p2pnode-api-XXXXXX" };
	struct local_api_ports ports = ports_of(w);

	assert(mkdtemp(w->folder));
	snprintf(w->path, sizeof(w->path), "%s/s", w->folder);
	assert(uv_loop_init(&w->loop) == 0);
	assert(local_api_new(&w->loop, w->path, &ports, &w->api, NULL) == 0);
}

static void on_closed(void *owner)
{
	((struct world *)owner)->closed = true;
}

static void end(struct world *w)
{
	local_api_close(w->api, on_closed, w);
	assert(uv_run(&w->loop, UV_RUN_DEFAULT) == 0);
	assert(w->closed && uv_loop_close(&w->loop) == 0);
	assert(access(w->path, F_OK) != 0); /* the socket is gone */
	assert(rmdir(w->folder) == 0);
}

static void turn(struct world *w)
{
	for (int i = 0; i < 8; i++)
		uv_run(&w->loop, UV_RUN_NOWAIT);
}

static int dial(struct world *w)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(address.sun_path, w->path);
	assert(fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
	turn(w);
	return fd;
}

static void say(struct world *w, int fd, const char *line)
{
	assert(write(fd, line, strlen(line)) == (ssize_t)strlen(line));
	assert(write(fd, "\n", 1) == 1);
	turn(w);
}

/* The next line, turning the loop until it is whole; "" at the end of the connection. */
static const char *hear(struct world *w, int fd)
{
	static char line[65536];
	size_t n = 0;

	for (int turns = 0; turns < 500; turns++) {
		struct pollfd pollfd = { .fd = fd, .events = POLLIN };
		turn(w);
		while (poll(&pollfd, 1, 5) == 1) {
			ssize_t r = read(fd, line + n, 1);
			if (r <= 0 || line[n] == '\n') {
				line[n] = '\0';
				return line;
			}
			assert(++n < sizeof(line));
		}
	}
	fprintf(stderr, "no answer in time\n");
	abort();
}

static void expect(struct world *w, int fd, const char *part)
{
	const char *line = hear(w, fd);

	if (!strstr(line, part))
		fprintf(stderr, "expected: %s\ngot:      %s\n", part, line);
	assert(strstr(line, part));
}

static void expect_end(struct world *w, int fd)
{
	assert(hear(w, fd)[0] == '\0');
	close(fd);
}

/* the rules */

static void test_each_method_reaches_its_port(void)
{
	struct world w;
	begin(&w);
	int fd = dial(&w);

	say(&w, fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"node.status\"}");
	expect(&w, fd, "\"network\":\"home\"");
	say(&w, fd, "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"node.join\",\"params\":{\"link\":\"" LINK
		    "\",\"name\":\"alice\"}}");
	expect(&w, fd, "{\"done\":true}");
	assert(strcmp(w.asked, "join 192.0.2.1:8443 alice") == 0);
	say(&w, fd, "{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"node.leave\",\"params\":{}}");
	expect(&w, fd, "\"code\":-32017,\"message\":\"this node has not joined a network\"");
	say(&w, fd, "{\"jsonrpc\":\"2.0\",\"id\":\"n\",\"method\":\"node.netcheck\"}");
	expect(&w, fd, "\"udp_works\":true");
	say(&w, fd, "{\"jsonrpc\":\"2.0\",\"id\":4,\"method\":\"node.log_level\",\"params\":{\"level\":\"error\"}}");
	expect(&w, fd, "\"id\":4");
	assert(log_get_level() == LOG_LEVEL_ERROR);
	say(&w, fd, "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"relay.status\"}");
	expect(&w, fd, "\"clients\":[{\"name\":\"alice\"");
	say(&w, fd, "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"relay.status\",\"params\":{\"clients\":false}}");
	expect(&w, fd, "\"clients\":[]");
	say(&w, fd, "{\"jsonrpc\":\"2.0\",\"id\":8,\"method\":\"relay.status\",\"params\":{\"of\":\"gate\"}}");
	expect(&w, fd, "\"code\":-32602");
	say(&w, fd, "{\"jsonrpc\":\"2.0\",\"id\":20,\"method\":\"node.expose\",\"params\":{\"exposure\":\"a.org 80 rate=5\"}}");
	expect(&w, fd, "{\"done\":true}");
	assert(strcmp(w.asked, "expose a.org 127.0.0.1:80 rate=5") == 0);
	say(&w, fd, "{\"jsonrpc\":\"2.0\",\"id\":21,\"method\":\"node.unexpose\",\"params\":{\"host\":\"https://a.org\"}}");
	expect(&w, fd, "{\"done\":true}");
	assert(strcmp(w.asked, "unexpose https://a.org") == 0);
	say(&w, fd, "{\"jsonrpc\":\"2.0\",\"id\":22,\"method\":\"node.expose\",\"params\":{\"exposure\":\"a.org\"}}");
	expect(&w, fd, "the port behind the host is missing");
	say(&w, fd, "{\"jsonrpc\":\"2.0\",\"id\":23,\"method\":\"node.exposures\"}");
	expect(&w, fd, "{\"done\":true}");
	say(&w, fd, "{\"jsonrpc\":\"2.0\",\"id\":24,\"method\":\"diglett.end\",\"params\":{\"name\":\"App.demo\"}}");
	expect(&w, fd, "{\"done\":true}");
	assert(strcmp(w.asked, "diglett 1 app.demo  0 ") == 0);
	say(&w, fd, "{\"jsonrpc\":\"2.0\",\"id\":25,\"method\":\"diglett.token_create\",\"params\":{\"names\":[\"a.demo\",\"*.b.demo\"],\"label\":\"shop\"}}");
	expect(&w, fd, "{\"done\":true}");
	assert(strcmp(w.asked, "diglett 2   2 shop") == 0);
	say(&w, fd, "{\"jsonrpc\":\"2.0\",\"id\":26,\"method\":\"diglett.token_create\",\"params\":{\"names\":[]}}");
	expect(&w, fd, "at least one is needed");
	say(&w, fd, "{\"jsonrpc\":\"2.0\",\"id\":27,\"method\":\"diglett.token_create\",\"params\":{\"names\":[7]}}");
	expect(&w, fd, "member 'names'");
	say(&w, fd, "{\"jsonrpc\":\"2.0\",\"id\":28,\"method\":\"diglett.token_revoke\",\"params\":{\"id\":\"2cf24dba5\"}}");
	expect(&w, fd, "8 hex digits");
	say(&w, fd, "{\"jsonrpc\":\"2.0\",\"id\":29,\"method\":\"diglett.status\"}");
	expect(&w, fd, "{\"done\":true}");
	say(&w, fd, "{\"jsonrpc\":\"2.0\",\"id\":9,\"method\":\"relay.drain\",\"params\":{\"deadline_s\":7}}");
	expect(&w, fd, "{\"done\":true}");
	assert(strcmp(w.asked, "drain 7") == 0);
	say(&w, fd, "{\"jsonrpc\":\"2.0\",\"id\":10,\"method\":\"relay.drain\"}");
	expect(&w, fd, "{\"done\":true}");
	assert(strcmp(w.asked, "drain 60") == 0);
	say(&w, fd, "{\"jsonrpc\":\"2.0\",\"id\":11,\"method\":\"relay.drain\",\"params\":{\"deadline_s\":0}}");
	expect(&w, fd, "\"code\":-32602");
	say(&w, fd, "{\"jsonrpc\":\"2.0\",\"id\":12,\"method\":\"relay.undrain\"}");
	expect(&w, fd, "no relay here");

	close(fd);
	end(&w);
}

static void test_an_answer_may_come_later_and_in_another_order(void)
{
	struct node_ping_result result = { .answered = true, .peer = "bob", .path = NODE_PATH_DIRECT,
					   .latency_us = 7 };
	struct world w;
	begin(&w);
	int fd = dial(&w);

	say(&w, fd, "{\"jsonrpc\":\"2.0\",\"id\":5,\"method\":\"node.ping\",\"params\":{\"peer\":\"bob\"}}");
	assert(strcmp(w.asked, "ping bob 2000") == 0);
	say(&w, fd, "{\"jsonrpc\":\"2.0\",\"id\":6,\"method\":\"node.status\"}");
	expect(&w, fd, "\"id\":6");
	local_api_answer_ping(w.api, w.waiting, &result);
	expect(&w, fd, "\"id\":5");
	local_api_answer_ping(w.api, w.waiting, &result); /* twice: dropped */
	assert(local_api_counters(w.api).late_answers == 1);

	close(fd);
	end(&w);
}

static void test_an_answer_to_a_client_that_is_gone_is_dropped(void)
{
	struct node_ping_result result = { .latency_us = NODE_STATUS_UNKNOWN };
	struct world w;
	begin(&w);
	int fd = dial(&w);

	say(&w, fd, "{\"jsonrpc\":\"2.0\",\"id\":5,\"method\":\"node.ping\",\"params\":{\"peer\":\"bob\"}}");
	close(fd);
	turn(&w);
	local_api_answer_ping(w.api, w.waiting, &result);
	turn(&w);
	assert(local_api_counters(w.api).open == 0);
	local_api_answer_ping(w.api, w.waiting, &result);
	assert(local_api_counters(w.api).late_answers == 1);

	end(&w);
}

static void test_a_client_that_shut_its_half_still_gets_its_answers(void)
{
	struct node_ping_result result = { .latency_us = 7 };
	struct world w;
	begin(&w);
	int fd = dial(&w);

	say(&w, fd, "{\"jsonrpc\":\"2.0\",\"id\":5,\"method\":\"node.ping\",\"params\":{\"peer\":\"bob\"}}");
	shutdown(fd, SHUT_WR);
	turn(&w);
	local_api_answer_ping(w.api, w.waiting, &result);
	expect(&w, fd, "\"id\":5");
	expect_end(&w, fd);

	end(&w);
}

static const struct {
	const char *line, *answer;
} garbage[] = {
	{ "hello", "\"code\":-32700" },
	{ "{\"jsonrpc\":\"2.0\",\"id\":1}", "\"code\":-32600" },
	{ "[]", "\"code\":-32600" },
	{ "{\"jsonrpc\":\"2.0\",\"method\":\"node.status\"}", "\"code\":-32600" },
	{ "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"node.sing\"}", "\"code\":-32601" },
	{ "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"node.status\",\"params\":{\"x\":1}}", "\"code\":-32602" },
	{ "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"node.ping\"}", "node.ping needs parameters" },
	{ "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"node.ping\",\"params\":{}}", "peer" },
	{ "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"node.ping\",\"params\":{\"peer\":\"Bob!\"}}",
	  "must be the name or the overlay address of a peer" },
	{ "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"node.ping\",\"params\":{\"peer\":\"bob\",\"timeout_ms\":0}}",
	  "timeout_ms" },
	{ "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"node.join\",\"params\":{\"link\":\"p2p://x\"}}",
	  "\"code\":-32602" },
	{ "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"node.join\",\"params\":{\"link\":\"" LINK
	  "\",\"name\":\"Alice\"}}",
	  "member 'name'" },
	{ "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"node.log_level\",\"params\":{\"level\":\"loud\"}}",
	  "must be error, warning, info, debug or trace" },
};

static void test_garbage_is_answered_and_counted_and_ends_nothing(void)
{
	struct world w;
	begin(&w);
	int fd = dial(&w);

	for (size_t i = 0; i < ARRAY_LEN(garbage); i++) {
		say(&w, fd, garbage[i].line);
		expect(&w, fd, garbage[i].answer);
	}
	assert(local_api_counters(w.api).bad_lines == ARRAY_LEN(garbage));
	say(&w, fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"node.status\"}");
	expect(&w, fd, "\"result\"");

	close(fd);
	end(&w);
}

static void test_an_error_never_repeats_the_join_key(void)
{
	struct world w;
	begin(&w);
	int fd = dial(&w);

	say(&w, fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"node.join\",\"params\":{\"link\":\"" LINK "x\"}}");
	const char *answer = hear(&w, fd);
	assert(strstr(answer, "-32602") && !strstr(answer, "jk_"));

	close(fd);
	end(&w);
}

static void test_a_line_without_end_ends_its_client_only(void)
{
	static char much[64 * 1024];
	struct world w;
	begin(&w);
	int fd = dial(&w), other = dial(&w);

	memset(much, 'x', sizeof(much));
	for (size_t sent = 0; sent <= LOCAL_API_MAX_LINE; sent += sizeof(much)) {
		assert(send(fd, much, sizeof(much), MSG_NOSIGNAL | MSG_DONTWAIT) > 0);
		turn(&w);
	}
	expect(&w, fd, "line too long");
	shutdown(fd, SHUT_WR);
	close(fd);
	assert(local_api_counters(w.api).long_lines == 1);
	say(&w, other, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"node.status\"}");
	expect(&w, other, "\"result\"");

	close(other);
	end(&w);
}

static void test_clients_and_pending_requests_have_a_limit(void)
{
	struct world w;
	int fds[LOCAL_API_MAX_CLIENTS];
	begin(&w);

	for (size_t i = 0; i < LOCAL_API_MAX_CLIENTS; i++)
		fds[i] = dial(&w);
	int late = dial(&w);
	expect(&w, late, "too many clients");
	expect_end(&w, late);
	for (size_t i = 0; i <= LOCAL_API_MAX_PENDING; i++)
		say(&w, fds[0], "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"node.ping\",\"params\":{\"peer\":\"b\"}}");
	expect(&w, fds[0], "too many requests without an answer");
	assert(local_api_counters(w.api).busy == 1 && local_api_counters(w.api).refused_limit == 1);

	for (size_t i = 0; i < LOCAL_API_MAX_CLIENTS; i++)
		close(fds[i]);
	end(&w);
}

static void test_a_client_that_never_reads_is_closed(void)
{
	struct world w;
	begin(&w);
	int fd = dial(&w);

	for (int i = 0; i < 100000 && local_api_counters(w.api).open == 1; i++) {
		static const char line[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"node.status\"}\n";
		if (send(fd, line, strlen(line), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
			turn(&w);
	}
	assert(local_api_counters(w.api).slow_clients == 1);

	close(fd);
	end(&w);
}

static void test_the_socket_is_private_and_a_stale_one_is_replaced(void)
{
	struct world w;
	struct stat st;
	struct error error;
	struct local_api *second;
	begin(&w);
	struct local_api_ports ports = ports_of(&w);

	assert(stat(w.path, &st) == 0 && (st.st_mode & 0777) == 0600);
	assert(local_api_new(&w.loop, w.path, &ports, &second, &error) == -EADDRINUSE);
	assert(strstr(error.message, "another node answers here"));

	/* What kill -9 leaves behind: a socket that nobody listens on. */
	assert(unlink(w.path) == 0);
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	strcpy(address.sun_path, w.path);
	assert(bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
	close(fd);
	assert(local_api_new(&w.loop, w.path, &ports, &second, &error) == 0);

	/* The first does not remove the socket of the second. */
	struct local_api *first = w.api;
	w.api = second;
	local_api_close(first, NULL, NULL);
	fd = dial(&w);
	say(&w, fd, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"node.status\"}");
	expect(&w, fd, "\"result\"");

	close(fd);
	end(&w);
}

static void test_a_path_that_cannot_be_is_told(void)
{
	struct world w;
	struct local_api *api;
	struct error error;
	char path[200];
	begin(&w);
	struct local_api_ports ports = ports_of(&w);

	memset(path, 'x', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	assert(local_api_new(&w.loop, path, &ports, &api, &error) == -ENAMETOOLONG);
	assert(local_api_new(&w.loop, "/nonexistent/s", &ports, &api, &error) == -ENOENT);
	assert(strstr(error.message, "/nonexistent/s: cannot listen: No such file or directory"));
	snprintf(path, sizeof(path), "%s/file", w.folder);
	close(open(path, O_CREAT | O_WRONLY, 0600));
	assert(local_api_new(&w.loop, path, &ports, &api, &error) == -EEXIST);
	assert(access(path, F_OK) == 0);

	unlink(path);
	end(&w);
}

static void test_it_closes_with_clients_and_requests_open(void)
{
	struct world w;
	begin(&w);
	int fd = dial(&w);

	say(&w, fd, "{\"jsonrpc\":\"2.0\",\"id\":5,\"method\":\"node.ping\",\"params\":{\"peer\":\"bob\"}}");
	end(&w);
	char byte;
	assert(read(fd, &byte, 1) == 0);
	close(fd);
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	assert(sodium_init() >= 0);
	test_each_method_reaches_its_port();
	test_an_answer_may_come_later_and_in_another_order();
	test_an_answer_to_a_client_that_is_gone_is_dropped();
	test_a_client_that_shut_its_half_still_gets_its_answers();
	test_garbage_is_answered_and_counted_and_ends_nothing();
	test_an_error_never_repeats_the_join_key();
	test_a_line_without_end_ends_its_client_only();
	test_clients_and_pending_requests_have_a_limit();
	test_a_client_that_never_reads_is_closed();
	test_the_socket_is_private_and_a_stale_one_is_replaced();
	test_a_path_that_cannot_be_is_told();
	test_it_closes_with_clients_and_requests_open();
	return 0;
}
