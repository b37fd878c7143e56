/*
 * Visitors from one door to the next: who goes on does so with each byte, once; all others are reset, and counted; and
 * whatever was left, the next door starts. Two doors one after the other in this thread; nobody keeps the queue but the test.
 */
#include "relay/frontdoor/door_thread.h"

#include "relay/frontdoor/stream_queue.h"
#include "relay/frontdoor/stream_wire.h"

#include <arpa/inet.h>
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define LONG_MS	  600000
#define MAX_TURNS 20000
#define REQUEST	  "GET / HTTP/1.1\r\nHost: app.example.org\r\n\r\n"

struct town {
	int server, listener, wake_fd; /* server: the target of app.example.org */
	uint16_t server_port, port;
	struct door_routes *routes;
	struct door_thread *door;
	struct stream_queue queue;
};

static uint8_t message[STREAM_MAX_MESSAGE];

/* ---- doors ---- */

static int listen_anywhere(uint16_t *ret_port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(address);
	const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	assert(bind(fd, (struct sockaddr *)&address, len) == 0 && listen(fd, 1024) == 0);
	assert(getsockname(fd, (struct sockaddr *)&address, &len) == 0);
	*ret_port = ntohs(address.sin_port);
	return fd;
}

static struct door_routes *routes_to(const char *host, uint16_t port)
{
	struct door_routes *routes = door_routes_new(1);
	struct door_rule rule;
	char line[128];

	snprintf(line, sizeof(line), "%s 127.0.0.1:%u", host, port);
	assert(door_rule_parse(line, &rule, NULL) == 0);
	assert(door_routes_add(routes, &rule, &rule.address) == 0);
	return routes;
}

static struct front_door_options patient(void)
{
	return (struct front_door_options){ .n_listen = 1, .max_visitors = 100, .max_visitors_source = 100,
					    .max_hello_bytes = 1 << 20, .sniff_ms = LONG_MS, .connect_ms = LONG_MS,
					    .idle_ms = LONG_MS, .half_closed_ms = LONG_MS };
}

static void start_door(struct town *town, const struct front_door_options *options)
{
	assert(door_thread_new(options, &town->listener, town->wake_fd, &town->door) == 0);
	door_thread_set_routes(town->door, town->routes);
}

static void open_town(struct town *town)
{
	const struct front_door_options options = patient();

	*town = (struct town){ .wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .queue = STREAM_QUEUE_NONE };
	town->server = listen_anywhere(&town->server_port);
	town->listener = listen_anywhere(&town->port);
	town->routes = routes_to("app.example.org", town->server_port);
	start_door(town, &options);
}

static void close_town(struct town *town)
{
	door_thread_free(town->door);
	stream_queue_close(&town->queue);
	door_routes_free(town->routes);
	close(town->server);
	close(town->listener);
	close(town->wake_fd);
}

static void turn(const struct town *town)
{
	assert(eventfd_write(town->wake_fd, 1) == 0); /* it waits for nothing */
	(void)door_thread_turn(town->door);
}

/* The door turns until it is so. */
#define UNTIL(town, condition)                          \
	do {                                            \
		for (int i_ = 0; !(condition); i_++) {  \
			assert(i_ < MAX_TURNS);         \
			turn(town);                     \
			(void)poll(NULL, 0, i_ > 100);  \
		}                                       \
	} while (0)

static void leave(struct town *town)
{
	assert(stream_queue_open(&town->queue) == 0);
	door_thread_hand_streams_over(town->door, &town->queue);
	door_thread_free(town->door);
	town->door = NULL;
}

static void follow_with(struct town *town, const struct front_door_options *options)
{
	start_door(town, options);
	door_thread_take_streams(town->door, &town->queue);
	assert(town->queue.fds[0] == -1 && town->queue.fds[1] == -1);
}

static void follow(struct town *town)
{
	const struct front_door_options options = patient();

	follow_with(town, &options);
}

static bool are(const struct town *town, uint64_t n_taken, uint64_t n_lost)
{
	const struct front_door_counters counters = door_thread_counters(town->door);

	return counters.streams_taken == n_taken && counters.streams_lost == n_lost;
}

/* ---- visitors ---- */

static bool is_readable(int fd)
{
	struct pollfd wait = { .fd = fd, .events = POLLIN };

	return poll(&wait, 1, 0) == 1;
}

static int visit(const struct town *town)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
				       .sin_port = htons(town->port) };
	const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert(connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
	return fd;
}

static void say(int fd, const char *text)
{
	assert(send(fd, text, strlen(text), MSG_NOSIGNAL) == (ssize_t)strlen(text));
}

static void hear(const struct town *town, int fd, const char *text)
{
	char heard[1024];
	const size_t len = strlen(text);

	for (size_t n = 0; n < len;) {
		UNTIL(town, is_readable(fd));
		const ssize_t more = recv(fd, heard + n, len - n, 0);
		assert(more > 0);
		n += (size_t)more;
		assert(memcmp(heard, text, n) == 0);
	}
}

static void hear_end(const struct town *town, int fd)
{
	char byte;

	UNTIL(town, is_readable(fd));
	assert(recv(fd, &byte, 1, 0) == 0);
}

/* After what was sent before, if anything was. */
static void expect_reset(int fd)
{
	struct pollfd wait = { .fd = fd, .events = POLLIN };
	char bytes[4096];
	ssize_t n;

	do {
		assert(poll(&wait, 1, 5000) == 1);
		n = recv(fd, bytes, sizeof(bytes), 0);
	} while (n > 0);
	assert(n < 0 && errno == ECONNRESET);
	close(fd);
}

static int serve(const struct town *town)
{
	UNTIL(town, is_readable(town->server));
	const int fd = accept4(town->server, NULL, NULL, SOCK_CLOEXEC);
	assert(fd >= 0);
	return fd;
}

struct pair {
	int visitor, server;
};

static struct pair pair_up(const struct town *town)
{
	struct pair pair = { .visitor = visit(town) };

	say(pair.visitor, REQUEST);
	pair.server = serve(town);
	hear(town, pair.server, REQUEST);
	return pair;
}

static void expect_service(const struct town *town, const struct pair *pair)
{
	say(pair->visitor, "are you there");
	hear(town, pair->server, "are you there");
	say(pair->server, "yes");
	hear(town, pair->visitor, "yes");
}

static void close_pair(const struct pair *pair)
{
	close(pair->visitor);
	close(pair->server);
}

static void expect_both_reset(const struct pair *pair)
{
	expect_reset(pair->visitor);
	expect_reset(pair->server);
}

static unsigned count_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;

	assert(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

/* ---- who goes on ---- */

/* The i-th byte of what is carried. */
static uint8_t byte_at(size_t i)
{
	return (uint8_t)(i * 31 + (i >> 8) * 7 + (i >> 16));
}

/* Until neither the sockets nor the pipes of the door take any more; returns how much that was. */
static size_t fill_up(const struct town *town, int fd)
{
	uint8_t bytes[65536];
	size_t n = 0;

	for (int n_full = 0; n_full < 50;) {
		for (size_t i = 0; i < sizeof(bytes); i++)
			bytes[i] = byte_at(n + i);
		const ssize_t sent = send(fd, bytes, sizeof(bytes), MSG_NOSIGNAL | MSG_DONTWAIT);
		n += sent > 0 ? (size_t)sent : 0;
		n_full = sent > 0 ? 0 : n_full + 1;
		turn(town);
	}
	return n;
}

static void expect_bytes(const struct town *town, int fd, size_t n)
{
	uint8_t bytes[65536];

	for (size_t at = 0; at < n;) {
		UNTIL(town, is_readable(fd));
		const ssize_t got = recv(fd, bytes, sizeof(bytes), 0);
		assert(got > 0);
		for (ssize_t i = 0; i < got; i++)
			assert(bytes[i] == byte_at(at + (size_t)i));
		at += (size_t)got;
		assert(at <= n);
	}
}

static void test_what_is_under_way_comes_whole_and_once(void)
{
	struct town town;

	open_town(&town);
	const struct pair pair = pair_up(&town);
	const size_t n_up = fill_up(&town, pair.visitor), n_down = fill_up(&town, pair.server);
	assert(shutdown(pair.visitor, SHUT_WR) == 0 && shutdown(pair.server, SHUT_WR) == 0);
	assert(door_thread_counters(town.door).pipes_now == 2); /* both are full */
	leave(&town);
	follow(&town);
	assert(are(&town, 1, 0) && door_thread_counters(town.door).visitors_now == 1);
	expect_bytes(&town, pair.server, n_up);
	expect_bytes(&town, pair.visitor, n_down);
	hear_end(&town, pair.server);
	hear_end(&town, pair.visitor);
	UNTIL(&town, door_thread_counters(town.door).visitors_now == 0);
	assert(door_thread_counters(town.door).done == 1 && door_thread_counters(town.door).pipes_now == 0);
	close_pair(&pair);
	close_town(&town);
}

static void test_who_goes_on_counts_for_the_member_that_has_him(void)
{
	const struct endpoint elsewhere = endpoint_from_v4(INADDR_LOOPBACK, 1);
	struct door_places places = { 0 };
	struct door_rule rule;
	struct town town;

	open_town(&town);
	const struct pair pair = pair_up(&town);
	leave(&town);
	door_routes_free(town.routes);
	const struct endpoint here = endpoint_from_v4(INADDR_LOOPBACK, town.server_port);
	struct door_place *other = door_places_get(&places, "app.example.org", "bob", &elsewhere, true);
	struct door_place *his = door_places_get(&places, "app.example.org", "alice", &here, true);
	assert(door_rule_parse("app.example.org 127.0.0.1:1", &rule, NULL) == 0);
	town.routes = door_routes_new(2);
	assert(door_routes_add_place(town.routes, &rule, other) == 0 && door_routes_add_place(town.routes, &rule, his) == 0);
	follow(&town);
	assert(are(&town, 1, 0) && atomic_load(&his->visitors_now) == 1 && atomic_load(&other->visitors_now) == 0);
	assert(atomic_load(&his->visitors) == 0); /* he came to the door before */
	expect_service(&town, &pair);
	close_pair(&pair);
	UNTIL(&town, door_thread_counters(town.door).visitors_now == 0);
	assert(atomic_load(&his->visitors_now) == 0);
	close_town(&town);
	door_places_deinit(&places);
}

static void test_nobody_waits_for_a_pipe_that_was_taken_up(void)
{
	int ends[2];

	assert(pipe(ends) == 0 && stream_is_pipe(ends[0], ends[1], 0));
	assert((fcntl(ends[0], F_GETFL) & O_NONBLOCK) && (fcntl(ends[1], F_GETFL) & O_NONBLOCK));
	assert(!stream_is_pipe(ends[1], ends[0], 0) && !stream_is_pipe(ends[0], ends[1], 1));
	close(ends[0]);
	close(ends[1]);
}

static void test_one_way_that_has_ended_stays_so_and_the_other_goes_on(void)
{
	struct town town;

	open_town(&town);
	const struct pair asked = pair_up(&town), answered = pair_up(&town);
	shutdown(asked.visitor, SHUT_WR);
	hear_end(&town, asked.server);
	shutdown(answered.server, SHUT_WR);
	hear_end(&town, answered.visitor);
	for (int i = 0; i < 3; i++) { /* also from door to door */
		leave(&town);
		follow(&town);
		assert(are(&town, 2, 0));
		say(asked.server, "an answer");
		hear(&town, asked.visitor, "an answer");
		say(answered.visitor, "a question");
		hear(&town, answered.server, "a question");
		assert(!is_readable(asked.server) || recv(asked.server, message, 1, MSG_DONTWAIT) == 0);
	}
	close(asked.server);
	hear_end(&town, asked.visitor);
	UNTIL(&town, door_thread_counters(town.door).visitors_now == 1);
	close(asked.visitor);
	close_pair(&answered);
	close_town(&town);
}

static void test_what_one_has_said_of_whom_he_wants_counts_at_the_next_door(void)
{
	struct town town;

	open_town(&town);
	const int half = visit(&town), silent = visit(&town);
	say(half, "GET / HTTP/1.1\r\nHost: app.exa");
	UNTIL(&town, door_thread_counters(town.door).hello_bytes_now > 0 &&
			     door_thread_counters(town.door).visitors_now == 2);
	leave(&town);
	follow(&town);
	assert(are(&town, 2, 0));
	say(half, "mple.org\r\n\r\n");
	const struct pair first = { half, serve(&town) };
	hear(&town, first.server, REQUEST);
	say(silent, REQUEST);
	const struct pair second = { silent, serve(&town) };
	hear(&town, second.server, REQUEST);
	close_pair(&first);
	close_pair(&second);
	close_town(&town);
}

static void test_an_end_that_broke_meanwhile_is_a_reset_at_the_other(void)
{
	struct town town;

	open_town(&town);
	const struct pair pair = pair_up(&town);
	leave(&town);
	stream_set_reset_on_close(pair.visitor, true);
	close(pair.visitor);
	follow(&town);
	assert(are(&town, 1, 0));
	UNTIL(&town, is_readable(pair.server));
	expect_reset(pair.server);
	close_town(&town);
}

/* ---- who does not ---- */

static void test_who_does_not_fit_into_the_queue_is_reset_and_counted(void)
{
	enum { N = 60 };
	struct pair pairs[N];
	struct town town;
	const int small = 1; /* the kernel makes it its smallest */
	uint32_t n_reset = 0;

	open_town(&town);
	for (int i = 0; i < N; i++)
		pairs[i] = pair_up(&town);
	assert(stream_queue_open(&town.queue) == 0);
	assert(setsockopt(town.queue.fds[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)) == 0);
	door_thread_hand_streams_over(town.door, &town.queue);
	assert(door_thread_counters(town.door).visitors_now == 0);
	door_thread_free(town.door);
	follow(&town);
	const uint64_t n_taken = door_thread_counters(town.door).streams_taken;
	assert(n_taken > 0 && n_taken < N);
	for (int i = 0; i < N; i++) {
		if (!is_readable(pairs[i].visitor)) {
			expect_service(&town, &pairs[i]);
			close_pair(&pairs[i]);
			continue;
		}
		expect_both_reset(&pairs[i]);
		n_reset++;
	}
	assert(n_reset == N - n_taken);
	close_town(&town);
}

static void test_what_nobody_takes_up_is_reset(void)
{
	struct town town;

	open_town(&town);
	const unsigned n_before = count_descriptors();
	const struct pair dropped = pair_up(&town);
	(void)fill_up(&town, dropped.visitor);
	const struct pair closed = pair_up(&town);
	const int silent = visit(&town);
	UNTIL(&town, door_thread_counters(town.door).visitors_now == 3);
	leave(&town);
	assert(stream_queue_drop(&town.queue) == 5); /* with the first message, and the last */
	expect_both_reset(&dropped);
	expect_both_reset(&closed);
	expect_reset(silent);
	follow(&town);
	assert(are(&town, 0, 0));
	/* As when the keeper forgets both ends: what is inside goes with them. */
	const struct pair last = pair_up(&town);
	leave(&town);
	stream_queue_close(&town.queue);
	expect_both_reset(&last);
	follow(&town);
	assert(count_descriptors() == n_before);
	close_town(&town);
}

static void test_whose_host_is_led_nowhere_any_more_is_reset_and_counted(void)
{
	struct town town;

	open_town(&town);
	const struct pair pair = pair_up(&town);
	leave(&town);
	door_routes_free(town.routes);
	town.routes = routes_to("other.example.org", town.server_port);
	follow(&town);
	assert(are(&town, 0, 1));
	expect_both_reset(&pair);
	close_town(&town);
}

/* The door of `town` has app.example.org by this gate, and a pair of it. */
static struct pair pair_through(struct town *town, struct door_gate *gate)
{
	struct door_rule rule;
	char line[64];

	snprintf(line, sizeof(line), "app.example.org 127.0.0.1:%u", town->server_port);
	assert(door_rule_parse(line, &rule, NULL) == 0);
	rule.gate = gate;
	door_routes_free(town->routes);
	town->routes = door_routes_new(1);
	assert(door_routes_add(town->routes, &rule, &rule.address) == 0);
	door_thread_set_routes(town->door, town->routes);
	return pair_up(town);
}

/* The next door may lead that name elsewhere meanwhile, through somebody else's gate. */
static void test_whose_host_no_member_has_any_more_is_reset_and_no_wildcards(void)
{
	struct door_gate gate = { .is_members = true };
	struct town town;

	open_town(&town);
	door_gate_init(&gate);
	const struct pair pair = pair_through(&town, &gate);
	leave(&town);
	assert(door_gate_counters(&gate).visitors == 1 && door_gate_counters(&gate).visitors_now == 0);
	door_routes_free(town.routes);
	town.routes = routes_to("*.example.org", town.server_port);
	follow(&town);
	assert(are(&town, 0, 1));
	expect_both_reset(&pair);
	close_town(&town);
}

/* Also when somebody else has the name meanwhile; and a second time. Then the grant is taken back. */
static void test_whose_host_a_member_still_has_goes_on_through_the_members_gate(void)
{
	struct door_gate before = { .is_members = true }, gate = { .is_members = true }, other = { .is_members = true };
	struct door_awaited awaited[2] = { { .gate = &other }, { .gate = &gate } };
	struct town town;

	open_town(&town);
	door_gate_init(&before);
	door_gate_init(&gate);
	door_gate_init(&other);
	assert(host_name_from("zoo.example.org", 15, &awaited[0].host) == 0);
	assert(host_name_from("app.example.org", 15, &awaited[1].host) == 0);
	const struct pair pair = pair_through(&town, &before);
	for (int i = 0; i < 2; i++) {
		leave(&town);
		door_routes_free(town.routes);
		town.routes = routes_to("app.example.org", town.server_port);
		door_routes_set_awaited(town.routes, awaited, 2);
		follow(&town);
		assert(are(&town, 1, 0));
		assert(door_gate_counters(&gate).visitors_now == 1 && door_gate_counters(&other).visitors == 0);
		door_thread_set_routes(town.door, town.routes);
		expect_service(&town, &pair);
	}
	door_gate_shut(&gate);
	door_thread_set_routes(town.door, town.routes);
	assert(door_gate_counters(&gate).visitors_now == 0);
	expect_both_reset(&pair);
	close_town(&town);
}

/* tcp:`number` leads to the server. */
static struct door_routes *routes_of_port(const struct town *town, uint16_t number)
{
	const struct port_name name = { .kind = PORT_TCP, .number = number };
	const struct endpoint server = endpoint_from_v4(INADDR_LOOPBACK, town->server_port);
	struct door_routes *routes = door_routes_new(1);
	struct door_rule rule;
	char text[PORT_NAME_TEXT];

	port_name_print(&name, text);
	assert(door_rule_parse_host(text, strlen(text), &rule, NULL) == 0);
	assert(door_routes_add(routes, &rule, &server) == 0);
	return routes;
}

static int visit_port(uint16_t port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port) };
	const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert(connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
	return fd;
}

static void test_who_came_by_a_port_goes_on_while_its_operator_offers_it(void)
{
	struct front_door_options offers = patient(), none = patient();
	struct town town;
	uint16_t number;

	open_town(&town);
	door_thread_free(town.door);
	door_routes_free(town.routes);
	close(listen_anywhere(&number)); /* another program could take it before we do */
	offers.listen[0] = endpoint_from_v4(INADDR_LOOPBACK, town.port);
	offers.tcp_ports.n = 1;
	offers.tcp_ports.items[0].first = offers.tcp_ports.items[0].last = number;
	town.routes = routes_of_port(&town, number);
	start_door(&town, &offers);
	struct pair pair = { .visitor = visit_port(number) };
	UNTIL(&town, is_readable(town.server));
	pair.server = accept(town.server, NULL, NULL);
	say(pair.server, "SSH-2.0-a");
	hear(&town, pair.visitor, "SSH-2.0-a");
	leave(&town);
	follow_with(&town, &offers);
	assert(are(&town, 1, 0));
	say(pair.visitor, "SSH-2.0-b");
	hear(&town, pair.server, "SSH-2.0-b");
	leave(&town);
	follow_with(&town, &none); /* the route is there still, as it is granted */
	assert(are(&town, 0, 1));
	expect_both_reset(&pair);
	close_town(&town);
}

static void test_the_bounds_of_the_next_door_hold(void)
{
	struct front_door_options options = patient();
	struct town town;

	open_town(&town);
	const struct pair first = pair_up(&town), second = pair_up(&town);
	leave(&town);
	options.max_visitors = 1;
	follow_with(&town, &options);
	assert(are(&town, 1, 1) && door_thread_counters(town.door).over_limit == 1);
	expect_service(&town, &first); /* it was silent for longer: the order is kept */
	expect_both_reset(&second);
	close_pair(&first);
	close_town(&town);
}

struct sink {
	struct door_sink sink;
	int fd;
};

static bool take_sink(struct door_sink *sink, int fd, const struct door_guest *guest)
{
	(void)guest;
	((struct sink *)sink)->fd = fd;
	return true;
}

static void test_who_is_served_in_the_process_itself_is_reset_and_counted(void)
{
	struct sink sink = { .sink.take = take_sink, .fd = -1 };
	struct door_rule rule;
	struct door_gate gate = { 0 };
	struct town town;

	open_town(&town);
	door_gate_init(&gate);
	door_routes_free(town.routes);
	town.routes = door_routes_new(2);
	assert(door_rule_parse("app.example.org 127.0.0.1:1", &rule, NULL) == 0);
	rule.gate = &gate;
	rule.sink = &sink.sink;
	assert(door_routes_add(town.routes, &rule, &rule.address) == 0);
	door_thread_set_routes(town.door, town.routes);
	const int fd = visit(&town);
	say(fd, REQUEST);
	UNTIL(&town, sink.fd >= 0 && is_readable(sink.fd));
	leave(&town);
	expect_reset(fd);
	close(sink.fd);
	follow(&town);
	assert(are(&town, 0, 1));
	close_town(&town);
}

/* ---- what is no door's ---- */

static void put_bytes(struct town *town, const void *bytes, size_t n, const int *fds, size_t n_fds)
{
	assert(stream_queue_put(&town->queue, bytes, n, fds, n_fds) == 0);
}

static void put(struct town *town, const struct stream_said *said, const int *fds, size_t n_fds)
{
	put_bytes(town, message, stream_encode(said, message), fds, n_fds);
}

static void put_first(struct town *town)
{
	const struct stream_said first = { .kind = STREAM_FIRST };

	assert(stream_queue_open(&town->queue) == 0);
	put(town, &first, NULL, 0);
}

static struct stream_said idle(void)
{
	struct stream_said said = { .kind = STREAM_CARRIED, .remote = endpoint_from_v4(INADDR_LOOPBACK, 1),
				    .protocol = SNIFFER_HTTP_1 };

	assert(host_name_from("app.example.org", strlen("app.example.org"), &said.host) == 0);
	return said;
}

/* A socket that is connected, and its other end. */
static void make_connection(const struct town *town, int ret[2])
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
				       .sin_port = htons(town->server_port) };

	ret[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert(connect(ret[0], (struct sockaddr *)&address, sizeof(address)) == 0);
	ret[1] = accept4(town->server, NULL, NULL, SOCK_CLOEXEC);
	assert(ret[1] >= 0);
	stream_set_reset_on_close(ret[0], true);
}

static void test_what_another_version_has_left_is_reset_and_the_door_starts(void)
{
	struct town town;

	open_town(&town);
	const unsigned n_before = count_descriptors();
	const struct pair pair = pair_up(&town);
	struct stream_queue of_door, other;
	int fds[STREAM_MAX_FDS];
	size_t n, n_fds;
	leave(&town);
	/* The same messages, behind one that says another format. */
	of_door = town.queue;
	assert(stream_queue_open(&other) == 0);
	while (stream_queue_take(&of_door, message, sizeof(message), &n, fds, STREAM_MAX_FDS, &n_fds) == 0) {
		if (message[0] == STREAM_FIRST)
			message[n - 9]++;
		assert(stream_queue_put(&other, message, n, fds, n_fds) == 0);
		for (size_t i = 0; i < n_fds; i++)
			close(fds[i]);
	}
	stream_queue_close(&of_door);
	town.queue = other;
	follow(&town);
	assert(door_thread_counters(town.door).streams_taken == 0 && door_thread_counters(town.door).streams_lost > 0);
	expect_both_reset(&pair);
	const struct pair next = pair_up(&town); /* it serves */
	expect_service(&town, &next);
	close_pair(&next);
	UNTIL(&town, door_thread_counters(town.door).visitors_now == 0);
	assert(count_descriptors() == n_before);
	close_town(&town);
}

static void test_what_is_corrupted_is_closed_and_counted_and_the_others_go_on(void)
{
	struct stream_said said = idle();
	struct town town;
	int one[2], two[2], pipe_fds[2];

	open_town(&town);
	const unsigned n_before = count_descriptors();
	const struct pair good = pair_up(&town);
	leave(&town); /* FIRST, CARRIED, LAST are in there; and now: */
	make_connection(&town, one);
	make_connection(&town, two);
	const int connected[] = { one[0], two[0] };
	size_t n = stream_encode(&said, message);
	put_bytes(&town, message, n - 1, connected, 2);	 /* cut */
	put_bytes(&town, "nonsense", 8, connected, 2);	 /* of no kind */
	put_bytes(&town, message, n, connected, 1);	 /* one is missing */
	put_bytes(&town, message, n, NULL, 0);
	const int with_listener[] = { one[0], town.server };
	put_bytes(&town, message, n, with_listener, 2);
	assert(pipe2(pipe_fds, O_CLOEXEC) == 0);
	const int with_pipe[] = { one[0], pipe_fds[0] };
	put_bytes(&town, message, n, with_pipe, 2);
	/* A pipe that has less in it than is said, and one that is the wrong way round. */
	said.flows[0] = (struct stream_flow){ .waiting = 5, .is_in_pipe = true };
	assert(write(pipe_fds[1], "four", 4) == 4);
	const int less[] = { one[0], two[0], pipe_fds[0], pipe_fds[1] }, turned[] = { one[0], two[0], pipe_fds[1], pipe_fds[0] };
	put(&town, &said, less, 4);
	said.flows[0].waiting = 4;
	put(&town, &said, turned, 4);
	close(pipe_fds[0]);
	close(pipe_fds[1]);
	close(one[0]);
	close(two[0]);
	follow(&town);
	assert(are(&town, 1, 8));
	expect_reset(one[1]);
	expect_reset(two[1]);
	expect_service(&town, &good);
	close_pair(&good);
	UNTIL(&town, door_thread_counters(town.door).visitors_now == 0);
	assert(count_descriptors() == n_before);
	close_town(&town);
}

static void test_one_that_broke_off_in_the_middle_is_taken_up_so_far(void)
{
	const struct stream_said said = idle();
	struct town town;
	int ends[2][2];

	open_town(&town);
	door_thread_free(town.door);
	put_first(&town);
	make_connection(&town, ends[0]);
	make_connection(&town, ends[1]);
	const int fds[] = { ends[0][0], ends[1][0] };
	put(&town, &said, fds, 2);
	close(fds[0]);
	close(fds[1]);
	follow(&town); /* there is no LAST */
	assert(are(&town, 1, 0));
	const struct pair pair = { ends[0][1], ends[1][1] };
	expect_service(&town, &pair);
	close_pair(&pair);
	close_town(&town);
}

static void test_an_empty_queue_and_one_of_which_an_end_is_missing_do_no_harm(void)
{
	struct town town;

	open_town(&town);
	door_thread_free(town.door);
	assert(stream_queue_open(&town.queue) == 0);
	follow(&town);
	assert(are(&town, 0, 0));
	const struct pair pair = pair_up(&town);
	leave(&town);
	close(town.queue.fds[1]); /* the one in which they wait */
	town.queue.fds[1] = -1;
	expect_both_reset(&pair);
	follow(&town);
	assert(are(&town, 0, 0));
	close_town(&town);
}

static void test_an_end_of_a_queue_is_told_from_sockets_that_listen(void)
{
	struct stream_queue queue;
	uint16_t port;
	const int listener = listen_anywhere(&port), udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	assert(stream_queue_open(&queue) == 0);
	assert(stream_queue_is_end(queue.fds[0]) && stream_queue_is_end(queue.fds[1]));
	assert(!stream_queue_is_end(listener) && !stream_queue_is_end(udp) && !stream_queue_is_end(-1));
	stream_queue_close(&queue);
	close(listener);
	close(udp);
}

int main(void)
{
	assert(sodium_init() >= 0);
	signal(SIGPIPE, SIG_IGN);
	test_what_is_under_way_comes_whole_and_once();
	test_who_goes_on_counts_for_the_member_that_has_him();
	test_nobody_waits_for_a_pipe_that_was_taken_up();
	test_one_way_that_has_ended_stays_so_and_the_other_goes_on();
	test_what_one_has_said_of_whom_he_wants_counts_at_the_next_door();
	test_an_end_that_broke_meanwhile_is_a_reset_at_the_other();
	test_who_does_not_fit_into_the_queue_is_reset_and_counted();
	test_what_nobody_takes_up_is_reset();
	test_whose_host_is_led_nowhere_any_more_is_reset_and_counted();
	test_whose_host_no_member_has_any_more_is_reset_and_no_wildcards();
	test_whose_host_a_member_still_has_goes_on_through_the_members_gate();
	test_who_came_by_a_port_goes_on_while_its_operator_offers_it();
	test_the_bounds_of_the_next_door_hold();
	test_who_is_served_in_the_process_itself_is_reset_and_counted();
	test_what_another_version_has_left_is_reset_and_the_door_starts();
	test_what_is_corrupted_is_closed_and_counted_and_the_others_go_on();
	test_one_that_broke_off_in_the_middle_is_taken_up_so_far();
	test_an_empty_queue_and_one_of_which_an_end_is_missing_do_no_harm();
	test_an_end_of_a_queue_is_told_from_sockets_that_listen();
	puts("ok");
	return 0;
}
