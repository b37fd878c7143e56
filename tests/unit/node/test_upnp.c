/*
 * The UPnP client against a router that means well, and against ones that do not.
 *
 *   client  127.0.0.1 ──► router 127.0.0.2: SSDP and HTTP, on ports of its own, by one thread
 *                         stranger 127.0.0.3: answers searches as well
 */
#include "node/upnp.h"

#include "common/http_answer.h"
#include "common/macros.h"
#include "common/upnp_wire.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sodium.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define ROUTER	  0x7f000002u
#define STRANGER  0x7f000003u
#define OURS	  0x7f000001u
#define MAX_CALLS 16

struct router {
	/* What it does; NULL: what a good one does. */
	const char *location; /* in its SSDP answer, "%u": its port; "": it does not answer searches */
	void (*describe)(struct router *router, int fd);
	void (*call)(struct router *router, int fd, const char *request);
	bool has_stranger;

	/* What it was asked for. */
	unsigned n_searches, n_gets, n_calls;
	char calls[MAX_CALLS][UPNP_CALL_MAX_LEN];

	int search_fd, listen_fd, stop_fd;
	uint16_t search_port, http_port;
	pthread_t thread;
};

/* ---- the router ------------------------------------------------------------------------------ */

static int open_bound(uint32_t ip, int type, uint16_t *ret_port)
{
	struct endpoint at = endpoint_from_v4(ip, 0);
	struct sockaddr_storage address;
	socklen_t len = endpoint_to_sockaddr(&at, &address);
	int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);

	assert(fd >= 0 && bind(fd, (struct sockaddr *)&address, len) == 0);
	assert(getsockname(fd, (struct sockaddr *)&address, &len) == 0);
	*ret_port = endpoint_from_sockaddr((struct sockaddr *)&address).port;
	return fd;
}

/* false: the client has closed. */
static bool say(int fd, const char *text)
{
	return send(fd, text, strlen(text), MSG_NOSIGNAL) == (ssize_t)strlen(text);
}

static void answer(int fd, const char *status, const char *body)
{
	char text[8192];

	snprintf(text, sizeof(text), "HTTP/1.1 %s\r\nContent-Length: %zu\r\n\r\n%s", status, strlen(body), body);
	say(fd, text);
}

#define SERVICE(type, url) \
	"<service><serviceType>urn:schemas-upnp-org:service:" type "</serviceType><controlURL>" url "</controlURL></service>"

static void describe_well(struct router *router, int fd)
{
	answer(fd, "200 OK", "<?xml version=\"1.0\"?><root><device>" SERVICE("WANIPConnection:1", "/ip") "</device></root>");
}

static void refuse(int fd, unsigned code)
{
	char body[256];

	snprintf(body, sizeof(body), "<s:Fault><UPnPError><errorCode>%u</errorCode></UPnPError></s:Fault>", code);
	answer(fd, "500 Internal Server Error", body);
}

static bool is_call(const char *request, const char *action)
{
	char end[64];

	snprintf(end, sizeof(end), "#%s\"\r\n", action);
	return strstr(request, end) != NULL;
}

static void answer_external(int fd, const char *address)
{
	char body[256];

	snprintf(body, sizeof(body), "<u:R><NewExternalIPAddress>%s</NewExternalIPAddress></u:R>", address);
	answer(fd, "200 OK", body);
}

static void call_well(struct router *router, int fd, const char *request)
{
	if (is_call(request, "GetExternalIPAddress"))
		answer_external(fd, "203.0.113.5");
	else
		answer(fd, "200 OK", "<u:R></u:R>");
}

static void answer_search(struct router *router)
{
	const char *location = router->location ? router->location : "http://127.0.0.2:%u/desc.xml";
	char url[128], text[512], ignored[512];
	struct sockaddr_storage from;
	socklen_t len = sizeof(from);
	uint16_t port;

	if (recvfrom(router->search_fd, ignored, sizeof(ignored), 0, (struct sockaddr *)&from, &len) <= 0)
		return;
	router->n_searches++;
	if (!*location)
		return;
	if (router->has_stranger) {
		static const char lie[] = "HTTP/1.1 200 OK\r\nLOCATION: http://127.0.0.2:1/\r\n"
					  "ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n\r\n";
		int fd = open_bound(STRANGER, SOCK_DGRAM, &port);
		sendto(fd, lie, strlen(lie), 0, (struct sockaddr *)&from, len);
		close(fd);
	}
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	snprintf(url, sizeof(url), location, router->http_port);
#pragma GCC diagnostic pop
	snprintf(text, sizeof(text), "HTTP/1.1 200 OK\r\nST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n"
		 "LOCATION: %s\r\n\r\n", url);
	sendto(router->search_fd, text, strlen(text), 0, (struct sockaddr *)&from, len);
}

/* Head and body; the client sends both at once and waits. */
static void read_request(int fd, char *ret, size_t size)
{
	size_t len = 0, body_len = 0;
	const char *head_end = NULL;

	while (!head_end || len < (size_t)(head_end - ret) + 4 + body_len) {
		ssize_t n = recv(fd, ret + len, size - 1 - len, 0);
		if (n <= 0)
			break;
		len += (size_t)n;
		ret[len] = '\0';
		head_end = strstr(ret, "\r\n\r\n");
		const char *at = strstr(ret, "Content-Length: ");
		body_len = at ? strtoul(at + 16, NULL, 10) : 0;
	}
	ret[len] = '\0';
}

static void serve(struct router *router)
{
	char request[UPNP_CALL_MAX_LEN];
	int fd = accept(router->listen_fd, NULL, NULL);

	assert(fd >= 0);
	read_request(fd, request, sizeof(request));
	if (strncmp(request, "GET ", 4) == 0) {
		router->n_gets++;
		(router->describe ? router->describe : describe_well)(router, fd);
	} else if (router->n_calls < MAX_CALLS) {
		strcpy(router->calls[router->n_calls++], request);
		(router->call ? router->call : call_well)(router, fd, request);
	}
	close(fd);
}

static void *run(void *arg)
{
	struct router *router = arg;
	struct pollfd fds[] = { { .fd = router->search_fd, .events = POLLIN },
				{ .fd = router->listen_fd, .events = POLLIN },
				{ .fd = router->stop_fd, .events = POLLIN } };

	for (;;) {
		poll(fds, ARRAY_LEN(fds), -1);
		if (fds[2].revents)
			return NULL;
		if (fds[0].revents)
			answer_search(router);
		if (fds[1].revents)
			serve(router);
	}
}

static void begin(struct router *router)
{
	router->search_fd = open_bound(ROUTER, SOCK_DGRAM, &router->search_port);
	router->listen_fd = open_bound(ROUTER, SOCK_STREAM, &router->http_port);
	router->stop_fd = eventfd(0, EFD_CLOEXEC);
	assert(router->stop_fd >= 0 && listen(router->listen_fd, 8) == 0);
	int r = pthread_create(&router->thread, NULL, run, router);
	assert(r == 0);
}

/* After it, what the router was asked for can be read. */
static void end(struct router *router)
{
	assert(eventfd_write(router->stop_fd, 1) == 0);
	pthread_join(router->thread, NULL);
	close(router->search_fd);
	close(router->listen_fd);
	close(router->stop_fd);
}

/* ---- asking it ------------------------------------------------------------------------------- */

static struct upnp_request request_to(const struct router *router)
{
	return (struct upnp_request){ .router = endpoint_from_v4(ROUTER, 0),
				      .ours = endpoint_from_v4(OURS, 40000),
				      .external_port = 40001,
				      .lifetime_s = 7200,
				      .search_port = router->search_port };
}

struct mapped {
	struct endpoint external;
	uint32_t lifetime_s;
	struct upnp_service service;
	struct error error;
};

static int map(struct router *router, struct mapped *ret)
{
	begin(router);
	const struct upnp_request request = request_to(router);
	*ret = (struct mapped){ .lifetime_s = 1 };
	int r = upnp_map(&request, &ret->external, &ret->lifetime_s, &ret->service, &ret->error);
	end(router);
	assert(r == 0 || (ret->error.code == r && ret->error.message[0] != '\0'));
	return r;
}

static int unmap(struct router *router, struct error *error)
{
	begin(router);
	const struct upnp_request request = request_to(router);
	int r = upnp_remove(&request, error);
	end(router);
	return r;
}

static void expect_failure(struct router router, int error)
{
	struct mapped mapped;
	int r = map(&router, &mapped);

	if (r != error)
		fprintf(stderr, "%d instead of %d: %s\n", r, error, mapped.error.message);
	assert(r == error);
	assert(endpoint_is_none(&mapped.external) && mapped.lifetime_s == 1);
}

static bool has_port(const char *call, unsigned external_port)
{
	char text[64];

	snprintf(text, sizeof(text), "<NewExternalPort>%u</NewExternalPort>", external_port);
	return strstr(call, text) != NULL;
}

/* ---- a router that means well ---------------------------------------------------------------- */

static void test_a_port_is_forwarded_as_asked_for(void)
{
	struct router router = { 0 };
	struct mapped mapped;

	assert(map(&router, &mapped) == 0);
	assert(strcmp(endpoint_text(&mapped.external).s, "203.0.113.5:40001") == 0 && mapped.lifetime_s == 7200);
	assert(router.n_gets == 1 && router.n_calls == 2);
	assert(is_call(router.calls[0], "GetExternalIPAddress") && is_call(router.calls[1], "AddPortMapping"));
	assert(has_port(router.calls[1], 40001));
	assert(strstr(router.calls[1], "<NewInternalPort>40000</NewInternalPort><NewInternalClient>127.0.0.1<"));
	assert(strstr(router.calls[1], "<NewLeaseDuration>7200<"));
}

static void test_without_a_wish_our_own_port_is_asked_for(void)
{
	struct router router = { 0 };
	struct mapped mapped = { 0 };

	begin(&router);
	struct upnp_request request = request_to(&router);
	request.external_port = 0;
	assert(upnp_map(&request, &mapped.external, &mapped.lifetime_s, NULL, NULL) == 0);
	end(&router);
	assert(mapped.external.port == 40000);
}

static void refuse_twice(struct router *router, int fd, const char *request)
{
	if (router->n_calls == 2 || router->n_calls == 3)
		refuse(fd, 718);
	else
		call_well(router, fd, request);
}

static void test_a_port_that_is_taken_is_another_the_next_time(void)
{
	struct router router = { .call = refuse_twice };
	struct mapped mapped;

	assert(map(&router, &mapped) == 0);
	assert(router.n_calls == 4 && has_port(router.calls[1], 40001));
	assert(has_port(router.calls[3], mapped.external.port) && mapped.external.port >= 1024);
}

static void refuse_all_ports(struct router *router, int fd, const char *request)
{
	if (is_call(request, "AddPortMapping"))
		refuse(fd, 718);
	else
		call_well(router, fd, request);
}

static void test_after_three_other_ports_it_is_given_up(void)
{
	struct router router = { .call = refuse_all_ports };
	struct mapped mapped;

	assert(map(&router, &mapped) == -EADDRINUSE);
	assert(router.n_calls == 1 + 4);
	assert(strstr(mapped.error.message, "718, ConflictInMappingEntry"));
}

static void know_no_lifetime(struct router *router, int fd, const char *request)
{
	if (is_call(request, "AddPortMapping") && !strstr(request, "<NewLeaseDuration>0<"))
		refuse(fd, 725);
	else
		call_well(router, fd, request);
}

static void test_a_router_without_lifetimes_forwards_for_good(void)
{
	struct router router = { .call = know_no_lifetime };
	struct mapped mapped;

	assert(map(&router, &mapped) == 0);
	assert(mapped.lifetime_s == 0 && mapped.external.port == 40001 && router.n_calls == 3);
}

static void describe_two(struct router *router, int fd)
{
	answer(fd, "200 OK", SERVICE("WANPPPConnection:1", "/ppp") SERVICE("WANIPConnection:2", "/ip"));
}

static void be_online_by_ip(struct router *router, int fd, const char *request)
{
	if (strncmp(request, "POST /ppp ", 10) == 0)
		answer_external(fd, "0.0.0.0");
	else
		call_well(router, fd, request);
}

static void test_the_service_that_is_online_is_asked(void)
{
	struct router router = { .describe = describe_two, .call = be_online_by_ip };
	struct mapped mapped;

	assert(map(&router, &mapped) == 0);
	assert(router.n_calls == 3 && strstr(router.calls[2], "POST /ip ") && is_call(router.calls[2], "AddPortMapping"));
	assert(strstr(router.calls[2], "WANIPConnection:2#AddPortMapping"));
}

static void be_offline(struct router *router, int fd, const char *request)
{
	answer_external(fd, "0.0.0.0");
}

static void test_a_router_that_is_not_online_forwards_nothing(void)
{
	expect_failure((struct router){ .call = be_offline }, -ENETUNREACH);
}

static void not_authorized(struct router *router, int fd, const char *request)
{
	if (is_call(request, "GetExternalIPAddress"))
		call_well(router, fd, request);
	else
		refuse(fd, 606);
}

static void test_a_refusal_is_named(void)
{
	struct router router = { .call = not_authorized };
	struct mapped mapped;

	assert(map(&router, &mapped) == -EACCES);
	assert(strstr(mapped.error.message, "606, Action Not Authorized"));
}

static void test_a_mapping_is_removed(void)
{
	struct router router = { 0 };
	struct error error;

	assert(unmap(&router, &error) == 0);
	assert(router.n_calls == 1 && is_call(router.calls[0], "DeletePortMapping") && has_port(router.calls[0], 40001));
}

static void test_who_is_known_is_told_to_remove_without_a_search(void)
{
	struct router router = { 0 };
	struct mapped mapped;

	assert(map(&router, &mapped) == 0 && strcmp(mapped.service.control.path, "/ip") == 0);
	router = (struct router){ .location = "" };
	begin(&router);
	struct upnp_request request = request_to(&router);
	mapped.service.control.host.port = router.http_port;
	request.service = &mapped.service;
	assert(upnp_remove(&request, NULL) == 0);
	end(&router);
	assert(router.n_searches == 0 && router.n_calls == 1 && is_call(router.calls[0], "DeletePortMapping"));
}

static void test_who_is_known_and_has_gone_is_searched_for(void)
{
	struct router router = { 0 };
	struct mapped mapped;

	assert(map(&router, &mapped) == 0); /* another port, that time */
	router = (struct router){ 0 };
	begin(&router);
	struct upnp_request request = request_to(&router);
	mapped.service.control.host.port = 1;
	request.service = &mapped.service;
	assert(upnp_remove(&request, NULL) == 0);
	end(&router);
	assert(router.n_gets == 1 && is_call(router.calls[0], "DeletePortMapping"));
}

static void describe_nothing(struct router *router, int fd)
{
	answer(fd, "200 OK", "<root></root>");
}

static void test_who_was_asked_is_told_also_when_it_refused(void)
{
	struct router refusing = { .call = refuse_all_ports }, silent = { .describe = describe_nothing };
	struct mapped mapped;

	assert(map(&refusing, &mapped) == -EADDRINUSE && !endpoint_is_none(&mapped.service.control.host));
	assert(map(&silent, &mapped) != 0 && endpoint_is_none(&mapped.service.control.host));
}

static void test_whether_it_forwards_at_all_is_asked_without_a_call(void)
{
	struct router good = { 0 }, other = { .describe = describe_nothing };
	struct upnp_request request;

	begin(&good);
	request = request_to(&good);
	assert(upnp_find(&request, NULL) == 0);
	end(&good);
	assert(good.n_gets == 1 && good.n_calls == 0);
	begin(&other);
	request = request_to(&other);
	assert(upnp_find(&request, NULL) == -ENOENT);
	end(&other);
}

static void have_no_mapping(struct router *router, int fd, const char *request)
{
	refuse(fd, 714);
}

static void test_what_is_not_there_is_removed(void)
{
	struct router router = { .describe = describe_two, .call = have_no_mapping };
	struct error error;

	assert(unmap(&router, &error) == 0 && router.n_calls == 2);
}

static void test_a_removal_may_be_refused(void)
{
	struct router router = { .call = not_authorized };
	struct error error;

	assert(unmap(&router, &error) == -EACCES && strstr(error.message, "606"));
}

static void describe_in_chunks(struct router *router, int fd)
{
	static const char xml[] = SERVICE("WANIPConnection:1", "/ip");

	say(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
	for (const char *at = xml; *at; at++) {
		char chunk[] = { '1', '\r', '\n', *at, '\r', '\n', '\0' };
		say(fd, chunk);
	}
	say(fd, "0\r\n\r\n");
}

static void describe_until_close(struct router *router, int fd)
{
	say(fd, "HTTP/1.0 200 OK\n\n" SERVICE("WANIPConnection:1", "/ip"));
}

static void test_a_description_may_end_in_any_of_three_ways(void)
{
	struct router in_chunks = { .describe = describe_in_chunks }, until_close = { .describe = describe_until_close };
	struct mapped mapped;

	assert(map(&in_chunks, &mapped) == 0);
	assert(map(&until_close, &mapped) == 0);
}

/* ---- routers, and others, that do not -------------------------------------------------------- */

static void test_a_strangers_answer_is_not_believed(void)
{
	struct router router = { .has_stranger = true };
	struct mapped mapped;

	assert(map(&router, &mapped) == 0); /* the stranger's LOCATION, which came first, leads nowhere */
}

static void test_a_description_on_another_host_is_not_fetched(void)
{
	struct router router = { .location = "http://127.0.0.3:%u/desc.xml" };

	expect_failure(router, -EXDEV);
}

static void control_elsewhere(struct router *router, int fd)
{
	answer(fd, "200 OK", SERVICE("WANIPConnection:1", "http://127.0.0.3/ip"));
}

static void test_a_service_on_another_host_is_not_called(void)
{
	expect_failure((struct router){ .describe = control_elsewhere }, -EXDEV);
}

static void redirect(struct router *router, int fd)
{
	char text[256];

	snprintf(text, sizeof(text), "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.2:%u/other\r\nContent-Length: 0\r\n\r\n",
		 router->http_port);
	say(fd, text);
}

static void test_a_redirect_is_not_followed(void)
{
	struct router router = { .describe = redirect };
	struct mapped mapped;

	assert(map(&router, &mapped) == -EPROTO);
	assert(router.n_gets == 1 && strstr(mapped.error.message, "302"));
}

static void say_without_end(int fd, const char *what)
{
	while (say(fd, what))
		;
}

static void endless_body(struct router *router, int fd)
{
	say(fd, "HTTP/1.1 200 OK\r\n\r\n");
	say_without_end(fd, "<root>");
}

static void endless_chunks(struct router *router, int fd)
{
	say(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
	say_without_end(fd, "6\r\n<root>\r\n");
}

static void endless_head(struct router *router, int fd)
{
	say(fd, "HTTP/1.1 200 OK\r\n");
	say_without_end(fd, "X: y\r\n");
}

static void endless_line(struct router *router, int fd)
{
	say_without_end(fd, "HTTP/1.1 200 ");
}

static void huge_length(struct router *router, int fd)
{
	say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999999999999\r\n\r\n<root>");
}

static void test_what_has_no_end_is_cut_off(void)
{
	expect_failure((struct router){ .describe = endless_body }, -EMSGSIZE);
	expect_failure((struct router){ .describe = endless_chunks }, -EMSGSIZE);
	expect_failure((struct router){ .describe = endless_head }, -EMSGSIZE);
	expect_failure((struct router){ .describe = endless_line }, -EMSGSIZE);
	expect_failure((struct router){ .describe = huge_length }, -EMSGSIZE);
}

static void long_answer(struct router *router, int fd, const char *request)
{
	char head[128];

	snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", UPNP_MAX_ANSWER);
	say(fd, head);
	say_without_end(fd, " ");
}

static void test_an_answer_to_a_call_is_a_short_one(void)
{
	expect_failure((struct router){ .call = long_answer }, -EMSGSIZE);
}

static void huge_chunk(struct router *router, int fd)
{
	say(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffffff\r\n<root>");
}

static void cut_body(struct router *router, int fd)
{
	say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n<root>");
}

static void close_at_once(struct router *router, int fd)
{
}

static void no_http(struct router *router, int fd)
{
	say(fd, "220 ready for you\r\n");
}

static void test_what_is_no_whole_answer_is_none(void)
{
	expect_failure((struct router){ .describe = huge_chunk }, -EPROTO);
	expect_failure((struct router){ .describe = cut_body }, -EPROTO);
	expect_failure((struct router){ .describe = close_at_once }, -EPROTO);
	expect_failure((struct router){ .describe = no_http }, -EPROTO);
}

static void broken_xml(struct router *router, int fd)
{
	answer(fd, "200 OK", "<root><service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceTy<a b='");
}

static void empty(struct router *router, int fd)
{
	answer(fd, "200 OK", "");
}

static void test_a_description_that_is_none_has_no_service(void)
{
	expect_failure((struct router){ .describe = broken_xml }, -ENOENT);
	expect_failure((struct router){ .describe = empty }, -ENOENT);
}

static void no_address(struct router *router, int fd, const char *request)
{
	answer_external(fd, "99999999999999999999.1.1.1");
}

static void no_error_code(struct router *router, int fd, const char *request)
{
	answer(fd, "500 Internal Server Error", "<errorCode>99999999999999999999718</errorCode>");
}

static void test_numbers_that_are_none_are_no_answer(void)
{
	expect_failure((struct router){ .call = no_address }, -EPROTO);
	expect_failure((struct router){ .call = no_error_code }, -EPROTO);
}

/* A byte now and then, until the client has had enough; each alone comes in time. */
static void trickle(struct router *router, int fd)
{
	say(fd, "HTTP/1.1 200 OK\r\n\r\n");
	while (say(fd, " "))
		poll(NULL, 0, 50);
}

static void test_a_trickle_is_not_waited_for(void)
{
	expect_failure((struct router){ .describe = trickle }, -ETIMEDOUT);
}

static void test_a_router_without_upnp_is_given_up(void)
{
	expect_failure((struct router){ .location = "" }, -ETIMEDOUT);
}

/* The search is repeated after 700 ms. */
static void test_who_has_less_time_is_answered_sooner(void)
{
	struct router router = { .location = "" };
	struct error error;

	begin(&router);
	struct upnp_request request = request_to(&router);
	request.max_ms = 300;
	assert(upnp_remove(&request, &error) == -ETIMEDOUT);
	end(&router);
	assert(router.n_searches <= UPNP_N_IGD_VERSIONS);
}

static void test_a_description_where_nobody_listens_is_an_error(void)
{
	expect_failure((struct router){ .location = "http://127.0.0.2:1/" }, -ECONNREFUSED);
}

static void test_a_request_must_make_sense(void)
{
	struct upnp_request good = { .router = endpoint_from_v4(ROUTER, 0), .ours = endpoint_from_v4(OURS, 1) }, bad = good;
	struct mapped mapped = { 0 };

	bad.router = (struct endpoint){ .ip = { 0x20, 0x01 } };
	assert(upnp_map(&bad, &mapped.external, &mapped.lifetime_s, NULL, &mapped.error) == -EINVAL);
	bad = good;
	bad.ours.port = 0;
	assert(upnp_map(&bad, &mapped.external, &mapped.lifetime_s, NULL, &mapped.error) == -EINVAL);
	assert(upnp_remove(&good, &mapped.error) == -EINVAL);
}

int main(void)
{
	assert(sodium_init() >= 0);
	test_a_port_is_forwarded_as_asked_for();
	test_without_a_wish_our_own_port_is_asked_for();
	test_a_port_that_is_taken_is_another_the_next_time();
	test_after_three_other_ports_it_is_given_up();
	test_a_router_without_lifetimes_forwards_for_good();
	test_the_service_that_is_online_is_asked();
	test_a_router_that_is_not_online_forwards_nothing();
	test_a_refusal_is_named();
	test_a_mapping_is_removed();
	test_who_is_known_is_told_to_remove_without_a_search();
	test_who_is_known_and_has_gone_is_searched_for();
	test_who_was_asked_is_told_also_when_it_refused();
	test_whether_it_forwards_at_all_is_asked_without_a_call();
	test_what_is_not_there_is_removed();
	test_a_removal_may_be_refused();
	test_a_description_may_end_in_any_of_three_ways();
	test_a_strangers_answer_is_not_believed();
	test_a_description_on_another_host_is_not_fetched();
	test_a_service_on_another_host_is_not_called();
	test_a_redirect_is_not_followed();
	test_what_has_no_end_is_cut_off();
	test_an_answer_to_a_call_is_a_short_one();
	test_what_is_no_whole_answer_is_none();
	test_a_description_that_is_none_has_no_service();
	test_numbers_that_are_none_are_no_answer();
	test_a_trickle_is_not_waited_for();
	test_a_router_without_upnp_is_given_up();
	test_who_has_less_time_is_answered_sooner();
	test_a_description_where_nobody_listens_is_an_error();
	test_a_request_must_make_sense();
	puts("ok");
	return 0;
}
