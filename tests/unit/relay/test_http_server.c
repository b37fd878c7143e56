/* Pages for a monitor: one answer a connection, and nobody holds on to more than a share of them. */
#include "relay/http_server.h"
#include "relay/relay_metrics.h"
#include "world.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define MOST 16

struct test {
	struct world w;
	struct http_server *server;
	bool is_stopped;
};

static bool on_page(void *owner, const char *path, struct http_page *ret)
{
	(void)owner;
	if (strcmp(path, "/healthz") != 0)
		return false;
	*ret = (struct http_page){ .status = 503, .type = "text/plain", .text = strdup("draining\n") };
	return true;
}

static void begin(struct test *t)
{
	struct http_server_options options = { .listen = endpoint_from_v4(0x7f000001, 0),
					       .owner = t,
					       .page = on_page };
	struct error error = { 0 };

	*t = (struct test){ 0 };
	world_begin(&t->w);
	options.loop = &t->w.loop;
	EXPECT(http_server_start(&options, &t->server, &error) == 0);
	t->w.port = http_server_port(t->server);
}

static void on_stopped(void *owner)
{
	((struct test *)owner)->is_stopped = true;
}

static void finish(struct test *t)
{
	http_server_stop(t->server, on_stopped, t);
	AWAIT(&t->w, t->is_stopped);
	world_end(&t->w);
}

/* Whatever has come, when the other side has ended. */
static bool has_ended(int fd, char *buf, size_t cap, size_t *len)
{
	ssize_t n;

	while ((n = recv(fd, buf + *len, cap - *len - 1, MSG_DONTWAIT)) > 0)
		*len += (size_t)n;
	buf[*len] = '\0';
	return n == 0 || (n < 0 && errno == ECONNRESET);
}

static void expect_answer(struct test *t, const char *request, const char *begins, const char *ends)
{
	char buf[4096];
	size_t len = 0;
	int fd = plain_connect(&t->w);

	EXPECT(send(fd, request, strlen(request), 0) == (ssize_t)strlen(request));
	AWAIT(&t->w, has_ended(fd, buf, sizeof(buf), &len));
	EXPECT(strncmp(buf, begins, strlen(begins)) == 0);
	EXPECT(len >= strlen(ends) && strcmp(buf + len - strlen(ends), ends) == 0);
	EXPECT(strstr(buf, "Connection: close\r\n"));
	close(fd);
}

static void test_pages_are_served_and_all_else_refused(void)
{
	struct test t;
	begin(&t);

	expect_answer(&t, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 503 Service Unavailable\r\n",
		      "Content-Length: 9\r\nCache-Control: no-store\r\nConnection: close\r\n\r\ndraining\n");
	expect_answer(&t, "HEAD /healthz HTTP/1.0\r\n\r\n", "HTTP/1.1 503 ", "Connection: close\r\n\r\n");
	expect_answer(&t, "GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 404 Not Found\r\n", "Not Found\n");
	expect_answer(&t, "DELETE /healthz HTTP/1.1\r\n\r\n", "HTTP/1.1 405 ", "Method Not Allowed\n");
	expect_answer(&t, "\x16\x03\x01\r\n", "HTTP/1.1 400 ", "Bad Request\n");
	finish(&t);
}

static void test_who_says_nothing_keeps_others_out_for_a_while_only(void)
{
	struct test t;
	int idle[MOST + 1];
	char buf[64];
	size_t len = 0;
	begin(&t);

	for (int i = 0; i < MOST; i++)
		idle[i] = plain_connect(&t.w);
	run_for(&t.w, 50);
	idle[MOST] = plain_connect(&t.w);
	AWAIT(&t.w, has_ended(idle[MOST], buf, sizeof(buf), &len));
	EXPECT(len == 0);
	for (int i = 0; i < MOST; i++)
		AWAIT(&t.w, has_ended(idle[i], buf, sizeof(buf), &len));
	run_for(&t.w, 1); /* a turn of the loop, in which it forgets them */
	expect_answer(&t, "GET /healthz HTTP/1.1\r\n\r\n", "HTTP/1.1 503 ", "draining\n");
	for (int i = 0; i <= MOST; i++)
		close(idle[i]);
	finish(&t);
}

/* Every line is a comment or a metric that HELP and TYPE were given for. */
static void test_figures_are_in_the_format_of_prometheus(void)
{
	struct public_node_stats stats = { .relay = { .clients = 3, .dropped_queue = 7 } };
	const struct front_door_counters door = { .visitors = 9, .unknown_host = 2, .refused[SNIFFER_NO_HOST] = 5,
						   .dial_over_source_limit = 10 };
	const struct door_metrics_exposure exposure = { "https://*.example.org", { .visitors_now = 4,
										   .state = DOOR_TARGET_UP } };
	const struct door_metrics doors = { .front = &door, .exposures = &exposure, .n_exposures = 1 };
	const struct diglett_metrics diglett = { .is_server = true,
						 .is_agent = true,
						 .server = { .agents_now = 6, .refused[DIGLETT_REFUSED_TOKEN] = 8,
							     .streams.mux.idle = 11, .gateway.failures = 12 },
						 .agent.is_let_in = true };
	char *text = relay_metrics_text(&(struct relay_metrics){
		.stats = &stats, .has_control = true, .doors = doors, .diglett = diglett });
	char name[128] = "", *rest = text;
	size_t n = 0;

	EXPECT(strstr(text, "\np2pnode_relay_clients{transport=\"tls\"} 3\n"));
	EXPECT(strstr(text, "\np2pnode_relay_dropped_packets_total{transport=\"tls\",cause=\"queue_full\"} 7\n"));
	EXPECT(strstr(text, "\np2pnode_door_visitors_total{door=\"front\"} 9\n"));
	EXPECT(strstr(text, "\np2pnode_door_refused_total{door=\"front\",cause=\"unknown_host\"} 2\n"));
	EXPECT(strstr(text, "\np2pnode_door_refused_total{door=\"front\",cause=\"not_understood\"} 5\n"));
	EXPECT(strstr(text, "{door=\"front\",cause=\"too_many_of_one_source_wait_for_agents\"} 10\n"));
	EXPECT(strstr(text, "\np2pnode_exposure_visitors{host=\"https://*.example.org\"} 4\n"));
	EXPECT(strstr(text, "\np2pnode_exposure_target_up{host=\"https://*.example.org\"} 1\n"));
	EXPECT(strstr(text, "\np2pnode_diglett_agents 6\n"));
	EXPECT(strstr(text, "\np2pnode_diglett_agents_refused_total{cause=\"token_not_valid\"} 8\n"));
	EXPECT(strstr(text, "\np2pnode_diglett_streams_idle_total{side=\"server\"} 11\n"));
	EXPECT(strstr(text, "\np2pnode_diglett_streams_idle_total{side=\"agent\"} 0\n"));
	EXPECT(strstr(text, "\np2pnode_diglett_script_failures_total 12\n"));
	EXPECT(strstr(text, "\np2pnode_diglett_agent_connected 1\n"));
	for (char *line; (line = strsep(&rest, "\n")) != NULL && *line; n++) {
		if (sscanf(line, "# HELP %127s", name) == 1) {
			line = strsep(&rest, "\n");
			EXPECT(strncmp(line, "# TYPE ", 7) == 0 && strncmp(line + 7, name, strlen(name)) == 0);
			EXPECT(strstr(line, " counter") || strstr(line, " gauge"));
			continue;
		}
		EXPECT(strncmp(line, name, strlen(name)) == 0 && strchr("{ ", line[strlen(name)]));
		const char *value = strrchr(line, ' ');
		EXPECT(value && value[strspn(value + 1, "0123456789.") + 1] == '\0');
	}
	EXPECT(n > 60);
	free(text);
}

/* ---- requests on a Unix socket ---- */

static void on_request(void *owner, const struct http_request *request, const char *body, size_t len,
		       struct http_page *ret)
{
	(void)owner;
	ret->status = request->method == HTTP_DELETE ? 204 : request->method == HTTP_POST ? 200 : 405;
	ret->type = "text/plain";
	ret->allow = "POST, DELETE";
	if (asprintf(&ret->text, "%s %.*s\n", request->path, (int)len, body) < 0)
		abort();
}

static void begin_at_path(struct test *t, char folder[32], struct sockaddr_un *ret)
{
	struct http_server_options options = { .choose = "choose another", .owner = t, .request = on_request };
	struct error error = { 0 };

	*t = (struct test){ 0 };
	world_begin(&t->w);
	strcpy(folder, "/tmp/p2p-http-XXXXXX");
	EXPECT(mkdtemp(folder));
	*ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
	snprintf(ret->sun_path, sizeof(ret->sun_path), "%s/socket", folder);
	options.loop = &t->w.loop;
	options.path = ret->sun_path;
	EXPECT(http_server_start(&options, &t->server, &error) == 0);
}

/* In two pieces, cut at `at`. */
static void expect_answer_at(struct test *t, const struct sockaddr_un *path, const char *request, size_t at,
			     const char *begins, const char *ends)
{
	const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char buf[4096];
	size_t len = 0;

	EXPECT(fd >= 0 && connect(fd, (const struct sockaddr *)path, sizeof(*path)) == 0);
	EXPECT(send(fd, request, at, MSG_NOSIGNAL) == (ssize_t)at);
	run_for(&t->w, 1);
	(void)!send(fd, request + at, strlen(request) - at, MSG_NOSIGNAL);
	AWAIT(&t->w, has_ended(fd, buf, sizeof(buf), &len));
	EXPECT(strncmp(buf, begins, strlen(begins)) == 0);
	EXPECT(len >= strlen(ends) && strcmp(buf + len - strlen(ends), ends) == 0);
	close(fd);
}

static void test_requests_with_a_body_are_served_on_a_unix_socket(void)
{
	static const char post[] = "POST /a HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody, and what does not belong to it";
	const size_t whole = strlen(post) - strlen(", and what does not belong to it");
	struct sockaddr_un path;
	struct stat file;
	struct test t;
	char folder[32];

	begin_at_path(&t, folder, &path);
	EXPECT(stat(path.sun_path, &file) == 0 && (file.st_mode & 0777) == 0600);
	for (size_t at = 0; at < whole; at++)
		expect_answer_at(&t, &path, post, at, "HTTP/1.1 200 OK\r\n", "\r\n\r\n/a body\n");
	expect_answer_at(&t, &path, "DELETE /a HTTP/1.1\r\n\r\n", 9, "HTTP/1.1 204 No Content\r\n", "Connection: close\r\n\r\n");
	expect_answer_at(&t, &path, "GET /a HTTP/1.1\r\n\r\n", 0, "HTTP/1.1 405 ", "/a \n");
	expect_answer_at(&t, &path, "POST / HTTP/1.1\r\nContent-Length: 1025\r\n\r\n", 0, "HTTP/1.1 413 ", "Too Large\n");
	expect_answer_at(&t, &path, "POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", 0, "HTTP/1.1 400 ", "Bad Request\n");
	finish(&t);
	EXPECT(stat(path.sun_path, &file) != 0); /* it goes with its server */
	EXPECT(rmdir(folder) == 0);
}

int main(void)
{
	test_pages_are_served_and_all_else_refused();
	test_who_says_nothing_keeps_others_out_for_a_while_only();
	test_figures_are_in_the_format_of_prometheus();
	test_requests_with_a_body_are_served_on_a_unix_socket();
	puts("ok");
	return 0;
}
