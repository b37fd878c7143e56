/*
 * What a node publishes, from the door's side: who may bring visitors, where, and what is known of the targets. What
 * becomes of visitors and headers is in tests/unit/frontdoor/test_door_header.c. The overlay is the loopback here.
 */
#include "node/expose/acceptor.h"

#include "relay/frontdoor/proxy_header_wire.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define AWAIT_MS 10000
#define VISITOR	 0xc0000207u /* 192.0.2.7 */

struct node {
	uv_loop_t loop;
	struct acceptor *acceptor;
	struct public_key key;
	uint32_t n_port_changed;
	bool is_closed;
};

static void on_wake(uv_timer_t *timer)
{
	(void)timer;
}

/* The loop runs until it is so. */
#define AWAIT(node, condition)                                                                              \
	do {                                                                                                \
		const uint64_t end_ms_ = uv_now(&(node)->loop) + AWAIT_MS;                                  \
		uv_timer_t wake_;                                                                           \
		uv_timer_init(&(node)->loop, &wake_);                                                       \
		uv_timer_start(&wake_, on_wake, 1, 1);                                                      \
		while (!(condition)) {                                                                      \
			assert(uv_now(&(node)->loop) < end_ms_);                                            \
			uv_run(&(node)->loop, UV_RUN_ONCE);                                                 \
		}                                                                                           \
		uv_close((uv_handle_t *)&wake_, NULL);                                                      \
		uv_run(&(node)->loop, UV_RUN_NOWAIT);                                                       \
	} while (0)

static int listen_at(uint16_t port, uint16_t *ret_port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
				       .sin_port = htons(port) };
	socklen_t len = sizeof(address);
	const int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) == 0);
	assert(bind(fd, (struct sockaddr *)&address, len) == 0 && listen(fd, 100) == 0);
	assert(getsockname(fd, (struct sockaddr *)&address, &len) == 0);
	*ret_port = ntohs(address.sin_port);
	return fd;
}

static void on_port_changed(void *owner)
{
	((struct node *)owner)->n_port_changed++;
}

static void begin(struct node *node)
{
	const struct endpoint doors[] = { endpoint_from_v4(INADDR_LOOPBACK, 0) };

	assert(uv_loop_init(&node->loop) == 0);
	const struct acceptor_options options = { .loop = &node->loop,
						  .address = endpoint_from_v4(INADDR_LOOPBACK, 0),
						  .node_key = &node->key,
						  .check_ms = 50,
						  .port_changed = on_port_changed,
						  .owner = node };
	node->acceptor = acceptor_new(&options);
	acceptor_set_doors(node->acceptor, doors, 1);
}

static void open_node(struct node *node)
{
	*node = (struct node){ .is_closed = false };
	randombytes_buf(node->key.bytes, sizeof(node->key.bytes));
	begin(node);
}

static void on_closed(void *owner)
{
	((struct node *)owner)->is_closed = true;
}

static void close_node(struct node *node)
{
	node->is_closed = false;
	acceptor_close(node->acceptor, on_closed, node);
	while (!node->is_closed)
		uv_run(&node->loop, UV_RUN_ONCE);
	assert(uv_loop_close(&node->loop) == 0);
}

static struct exposure exposure_of(const char *host, uint16_t port, const char *how)
{
	struct exposure exposure;
	struct error error;
	char text[EXPOSURE_TEXT];

	snprintf(text, sizeof(text), "%s %u %s", host, port, how);
	if (exposure_parse(text, &exposure, &error) != 0) {
		printf("%s: %s\n", text, error.message);
		assert(false);
	}
	return exposure;
}

static void expose(struct node *node, const struct exposure *exposures, uint32_t n)
{
	const uint64_t before = acceptor_counters(node->acceptor).routes_taken;

	acceptor_set_exposures(node->acceptor, exposures, n);
	AWAIT(node, acceptor_counters(node->acceptor).routes_taken > before);
}

static struct door_gate_counters counters_of(const struct node *node, uint32_t i)
{
	struct door_gate_counters counters;

	(void)acceptor_get(node->acceptor, i, &counters);
	return counters;
}

static int knock(const struct node *node)
{
	const struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
					     .sin_port = htons(acceptor_port(node->acceptor)) };
	const struct timeval patience = { .tv_sec = AWAIT_MS / 1000 };
	const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) == 0);
	assert(connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0);
	return fd;
}

/* A door brings a visitor to host. */
static int bring(const struct node *node, const char *host, uint32_t visitor)
{
	const struct proxy_header header = { .has_addresses = true, .scheme = PROXY_HTTP,
					     .source = endpoint_from_v4(visitor, 1),
					     .destination = endpoint_from_v4(VISITOR, 2),
					     .authority = { .at = (const uint8_t *)host, .len = strlen(host) } };
	uint8_t bytes[512];
	const size_t n = proxy_v2_encode(&header, bytes, sizeof(bytes));
	const int fd = knock(node);

	assert(send(fd, bytes, n, MSG_NOSIGNAL) == (ssize_t)n);
	return fd;
}

static void hear_reset(int fd)
{
	char byte;

	assert(recv(fd, &byte, 1, 0) < 0 && errno == ECONNRESET);
	close(fd);
}

/* The next who comes to the server and says something; who only looks whether it is there does not. */
static int served(int server, const char *text)
{
	for (;;) {
		struct pollfd wait = { .fd = server, .events = POLLIN };
		char heard[64];
		assert(poll(&wait, 1, AWAIT_MS) == 1);
		const int fd = accept(server, NULL, NULL);
		assert(fd >= 0);
		const ssize_t n = recv(fd, heard, sizeof(heard), 0);
		if (n == (ssize_t)strlen(text) && memcmp(heard, text, strlen(text)) == 0)
			return fd;
		close(fd);
	}
}

static void test_without_exposures_nothing_is_open(void)
{
	struct node node;

	open_node(&node);
	assert(acceptor_port(node.acceptor) == 0 && acceptor_count(node.acceptor) == 0 && node.n_port_changed == 0);
	acceptor_set_exposures(node.acceptor, NULL, 0);
	assert(acceptor_port(node.acceptor) == 0);
	close_node(&node);
}

static void test_a_node_keeps_its_port_over_restarts(void)
{
	struct node node;
	const struct exposure exposure = exposure_of("app.example.org", 9, "");

	open_node(&node);
	expose(&node, &exposure, 1);
	const uint16_t port = acceptor_port(node.acceptor);
	assert(port != 0 && node.n_port_changed == 1);
	close_node(&node);
	begin(&node);
	expose(&node, &exposure, 1);
	assert(acceptor_port(node.acceptor) == port);
	close_node(&node);

	const int other = listen_at(port, &(uint16_t){ 0 }); /* now another program has it */
	begin(&node);
	expose(&node, &exposure, 1);
	assert(acceptor_port(node.acceptor) != 0 && acceptor_port(node.acceptor) != port);
	close_node(&node);
	close(other);
}

static void test_a_visitor_is_brought_to_the_target_of_its_host(void)
{
	struct node node;
	uint16_t port;
	const int server = listen_at(0, &port);
	const struct exposure exposures[] = { exposure_of("app.example.org", port, ""),
					      exposure_of("*.example.org", 9, "") };

	open_node(&node);
	expose(&node, exposures, 2);
	const int fd = bring(&node, "app.example.org", VISITOR);
	assert(send(fd, "hello", 5, MSG_NOSIGNAL) == 5);
	close(served(server, "hello"));
	close(fd);
	AWAIT(&node, counters_of(&node, 0).visitors == 1 && counters_of(&node, 0).visitors_now == 0);
	assert(counters_of(&node, 1).visitors == 0);
	hear_reset(bring(&node, "other.example.net", VISITOR));
	AWAIT(&node, acceptor_counters(node.acceptor).unknown_host == 1);
	close_node(&node);
	close(server);
}

static void test_the_allow_list_is_of_visitors(void)
{
	struct node node;
	uint16_t port;
	const int server = listen_at(0, &port);
	const struct exposure exposure = exposure_of("app.example.org", port, "allow=192.0.2.0/24,2001:db8::/32");

	open_node(&node);
	expose(&node, &exposure, 1);
	hear_reset(bring(&node, "app.example.org", VISITOR + 256));
	AWAIT(&node, counters_of(&node, 0).refused[DOOR_GATE_NOT_ALLOWED] == 1);
	const int fd = bring(&node, "app.example.org", VISITOR);
	AWAIT(&node, counters_of(&node, 0).visitors == 1);
	close(fd);
	close_node(&node);
	close(server);
}

static void test_more_a_second_than_the_rate_are_reset(void)
{
	struct node node;
	uint16_t port;
	const int server = listen_at(0, &port);
	const struct exposure exposure = exposure_of("app.example.org", port, "rate_source=1 rate=1000");
	int fds[2];

	open_node(&node);
	expose(&node, &exposure, 1);
	for (int i = 0; i < 2; i++) {
		fds[i] = bring(&node, "app.example.org", VISITOR);
		AWAIT(&node, counters_of(&node, 0).visitors == (uint64_t)i + 1);
	}
	/* On a machine so slow that a second has passed, one more is let in. */
	for (int n = 0; counters_of(&node, 0).refused[DOOR_GATE_OVER_SOURCE_RATE] == 0; n++) {
		const int fd = bring(&node, "app.example.org", VISITOR);
		AWAIT(&node, counters_of(&node, 0).refused[DOOR_GATE_OVER_SOURCE_RATE] == 1 ||
				     counters_of(&node, 0).visitors > (uint64_t)n + 2);
		close(fd);
	}
	close(fds[0]);
	close(fds[1]);
	close_node(&node);
	close(server);
}

static void test_what_is_exposed_as_before_is_counted_on(void)
{
	struct node node;
	uint16_t port;
	const int server = listen_at(0, &port);
	const struct exposure both[] = { exposure_of("app.example.org", port, ""),
					 exposure_of("api.example.org", port, "proxy=v2") };

	open_node(&node);
	expose(&node, both, 2);
	const int fd = bring(&node, "api.example.org", VISITOR);
	AWAIT(&node, counters_of(&node, 1).visitors == 1);
	expose(&node, both + 1, 1);
	assert(acceptor_count(node.acceptor) == 1 && counters_of(&node, 0).visitors_now == 1);
	expose(&node, both, 2);
	assert(counters_of(&node, 0).visitors == 0 && counters_of(&node, 1).visitors == 1);
	close(fd);
	close_node(&node);
	close(server);
}

static void test_a_target_is_looked_after_until_it_is_up(void)
{
	struct node node;
	uint16_t port;
	int server = listen_at(0, &port);
	const struct exposure exposure = exposure_of("app.example.org", port, "");

	close(server);
	open_node(&node);
	expose(&node, &exposure, 1);
	AWAIT(&node, counters_of(&node, 0).state == DOOR_TARGET_DOWN);
	server = listen_at(port, &port);
	AWAIT(&node, counters_of(&node, 0).state == DOOR_TARGET_UP);
	close(server);
	hear_reset(bring(&node, "app.example.org", VISITOR)); /* who comes now finds it out */
	AWAIT(&node, counters_of(&node, 0).state == DOOR_TARGET_DOWN && counters_of(&node, 0).unreachable == 1);
	close_node(&node);
}

static void test_a_target_that_was_up_is_looked_after_too(void)
{
	struct node node;
	uint16_t port;
	const int server = listen_at(0, &port);
	const struct exposure exposure = exposure_of("app.example.org", port, "");

	open_node(&node);
	expose(&node, &exposure, 1);
	AWAIT(&node, counters_of(&node, 0).state == DOOR_TARGET_UP);
	close(server); /* and nobody visits it */
	AWAIT(&node, counters_of(&node, 0).state == DOOR_TARGET_DOWN);
	assert(counters_of(&node, 0).unreachable == 0);
	close_node(&node);
}

static void test_why_it_is_not_open_is_known(void)
{
	struct node node;
	const struct exposure exposure = exposure_of("app.example.org", 9, "");

	open_node(&node);
	acceptor_close(node.acceptor, on_closed, &node);
	const struct acceptor_options options = { .loop = &node.loop,
						  .address = endpoint_from_v4(VISITOR, 0), /* nobody's here */
						  .node_key = &node.key,
						  .check_ms = 50 };
	node.acceptor = acceptor_new(&options);
	assert(acceptor_failure(node.acceptor)[0] == '\0');
	acceptor_set_exposures(node.acceptor, &exposure, 1);
	assert(acceptor_port(node.acceptor) == 0 && strstr(acceptor_failure(node.acceptor), "192.0.2.7"));
	close_node(&node);
}

static void test_a_target_that_is_the_acceptor_itself_is_led_nowhere(void)
{
	struct node node;
	const struct exposure any = exposure_of("other.example.org", 9, "");

	open_node(&node);
	expose(&node, &any, 1);
	const struct exposure itself = exposure_of("app.example.org", acceptor_port(node.acceptor), "proxy=v2");
	expose(&node, &itself, 1);
	hear_reset(bring(&node, "app.example.org", VISITOR));
	assert(counters_of(&node, 0).visitors <= 1);
	close_node(&node);
}

static void test_where_tls_ends_is_started_later_if_it_cannot_be_at_once(void)
{
	struct node node;
	const struct exposure exposure = exposure_of("https://app.example.org", 9, "tls=terminate certificate=/none/c key=/none/k");
	const struct proxy_header header = { .has_addresses = true, .scheme = PROXY_HTTPS,
					     .source = endpoint_from_v4(VISITOR, 1), .destination = endpoint_from_v4(VISITOR, 2),
					     .authority = { .at = (const uint8_t *)"app.example.org", .len = 15 } };
	struct acceptor_tls tls;
	struct rlimit files, none;
	uint8_t bytes[512];

	open_node(&node);
	assert(getrlimit(RLIMIT_NOFILE, &files) == 0);
	none = files;
	none.rlim_cur = 0;
	assert(setrlimit(RLIMIT_NOFILE, &none) == 0);
	acceptor_set_exposures(node.acceptor, &exposure, 1);
	assert(setrlimit(RLIMIT_NOFILE, &files) == 0 && acceptor_port(node.acceptor) == 0);
	assert(strstr(acceptor_tls_failure(node.acceptor, 0), "TLS cannot be terminated: Too many open files"));
	AWAIT(&node, acceptor_port(node.acceptor) != 0);
	assert(acceptor_tls_failure(node.acceptor, 0)[0] == '\0');
	const int fd = knock(&node);
	const size_t n = proxy_v2_encode(&header, bytes, sizeof(bytes));
	assert(send(fd, bytes, n, MSG_NOSIGNAL) == (ssize_t)n && send(fd, "hello", 5, MSG_NOSIGNAL) == 5);
	AWAIT(&node, acceptor_get_tls(node.acceptor, 0, &tls) && tls.counters.no_certificate == 1);
	close(fd);
	close_node(&node);
}

static void test_only_doors_of_the_map_bring_visitors(void)
{
	struct node node;
	const struct exposure exposure = exposure_of("app.example.org", 9, "");
	const struct endpoint other = endpoint_from_v4(INADDR_LOOPBACK + 1, 0);

	open_node(&node);
	expose(&node, &exposure, 1);
	acceptor_set_doors(node.acceptor, &other, 1);
	AWAIT(&node, acceptor_counters(node.acceptor).routes_taken == 2);
	hear_reset(knock(&node));
	AWAIT(&node, acceptor_counters(node.acceptor).no_door == 1);
	acceptor_set_doors(node.acceptor, NULL, 0);
	AWAIT(&node, acceptor_counters(node.acceptor).routes_taken == 3);
	hear_reset(knock(&node));
	close_node(&node);
}

int main(void)
{
	static void (*const tests[])(void) = {
		test_without_exposures_nothing_is_open,
		test_a_node_keeps_its_port_over_restarts,
		test_a_visitor_is_brought_to_the_target_of_its_host,
		test_the_allow_list_is_of_visitors,
		test_more_a_second_than_the_rate_are_reset,
		test_what_is_exposed_as_before_is_counted_on,
		test_a_target_is_looked_after_until_it_is_up,
		test_a_target_that_was_up_is_looked_after_too,
		test_why_it_is_not_open_is_known,
		test_a_target_that_is_the_acceptor_itself_is_led_nowhere,
		test_where_tls_ends_is_started_later_if_it_cannot_be_at_once,
		test_only_doors_of_the_map_bring_visitors,
	};

	if (sodium_init() < 0)
		return 1;
	for (size_t i = 0; i < sizeof(tests) / sizeof(*tests); i++)
		tests[i]();
	return 0;
}
