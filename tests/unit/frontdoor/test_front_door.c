/*
 * The front door as visitors meet it: let in by host, refused without a byte, with limits of time and number that
 * nobody can make others wait by. Over TCP on the loopback; what the door does it does in its own thread, and is
 * awaited.
 */
#include "relay/frontdoor/front_door.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/spawn.h"
#include "hello.h"
#include "relay/frontdoor/door_thread.h"
#include "relay/webgw/dial_exchange.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define AWAIT_MS   10000
#define LONG_MS	   600000
#define REQUEST	   "GET / HTTP/1.1\r\nHost: app.example.org\r\n\r\n"
#define STRANGER   "GET / HTTP/1.1\r\nHost: other.example.org\r\n\r\n"
#define NO_REQUEST "GET / HTTP/1.1\r\nHost: app.example.org\r\nHost: app.example.org\r\n\r\n"

struct house {
	uv_loop_t loop;
	struct front_door *door;
	int server; /* listens: the target of app.example.org */
	uint16_t server_port, port;
	bool has_stopped;
};

/* Until the door's counters fulfil it. */
#define AWAIT(house, condition)                                                                             \
	do {                                                                                                \
		struct front_door_counters c = front_door_counters((house)->door);                          \
		for (int i_ = 0; !(condition); i_++) {                                                      \
			assert(i_ < AWAIT_MS);                                                              \
			nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);                          \
			c = front_door_counters((house)->door);                                             \
		}                                                                                           \
	} while (0)

static int listen_anywhere(uint16_t *ret_port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(address);
	const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert(bind(fd, (struct sockaddr *)&address, len) == 0 && listen(fd, 1024) == 0);
	assert(getsockname(fd, (struct sockaddr *)&address, &len) == 0);
	*ret_port = ntohs(address.sin_port);
	return fd;
}

static struct door_routes *routes_to(uint16_t port)
{
	struct door_routes *routes = door_routes_new(1);
	struct door_rule rule;
	char line[128];

	snprintf(line, sizeof(line), "app.example.org 127.0.0.1:%u", port);
	assert(door_rule_parse(line, &rule, NULL) == 0);
	assert(door_routes_add(routes, &rule, &rule.address) == 0);
	return routes;
}

static void replace_routes(const struct house *house, struct door_routes *routes)
{
	const uint64_t before = front_door_counters(house->door).routes_taken;

	front_door_set_routes_take(house->door, routes);
	AWAIT(house, c.routes_taken > before);
}

/* options: of which all but the address matters. */
static void open_house(struct house *house, struct front_door_options options)
{
	struct error error;

	*house = (struct house){ 0 };
	house->server = listen_anywhere(&house->server_port);
	assert(uv_loop_init(&house->loop) == 0);
	options.n_listen = 1;
	options.listen[0] = endpoint_from_v4(INADDR_LOOPBACK, 0);
	if (front_door_start(&house->loop, &options, routes_to(house->server_port), &house->door, &error) != 0) {
		printf("%s\n", error.message);
		abort();
	}
	house->port = front_door_port(house->door, 0);
	AWAIT(house, c.routes_taken == 1);
}

static void on_stopped(void *owner)
{
	((struct house *)owner)->has_stopped = true;
}

static void close_house(struct house *house)
{
	front_door_stop(house->door, on_stopped, house);
	while (!house->has_stopped)
		uv_run(&house->loop, UV_RUN_ONCE);
	assert(uv_loop_close(&house->loop) == 0);
	close(house->server);
}

static struct front_door_options patient(void)
{
	return (struct front_door_options){ .sniff_ms = LONG_MS, .connect_ms = LONG_MS };
}

/* ---- visitors ---- */

static int visit_from(const struct house *house, uint32_t from)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
				       .sin_port = htons(house->port) };
	const struct sockaddr_in own = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(from) };
	const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	const struct timeval patience = { .tv_sec = AWAIT_MS / 1000 };

	assert(fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) == 0);
	assert(bind(fd, (const struct sockaddr *)&own, sizeof(own)) == 0);
	assert(connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
	return fd;
}

static int visit(const struct house *house)
{
	return visit_from(house, INADDR_LOOPBACK);
}

static void say(int fd, const char *text)
{
	assert(send(fd, text, strlen(text), MSG_NOSIGNAL) == (ssize_t)strlen(text));
}

static void hear(int fd, const char *text)
{
	char heard[1024];
	const size_t len = strlen(text);

	for (size_t n = 0; n < len;) {
		const ssize_t more = recv(fd, heard + n, len - n, 0);
		assert(more > 0);
		n += (size_t)more;
		assert(memcmp(heard, text, n) == 0);
	}
}

static void hear_end(int fd)
{
	char byte;

	assert(recv(fd, &byte, 1, 0) == 0);
}

/* Without a byte before. */
static void hear_reset(int fd)
{
	char byte;

	assert(recv(fd, &byte, 1, 0) < 0 && errno == ECONNRESET);
	close(fd);
}

/* Who came to the server. */
static int served(const struct house *house)
{
	struct pollfd wait = { .fd = house->server, .events = POLLIN };

	assert(poll(&wait, 1, AWAIT_MS) == 1);
	const int fd = accept(house->server, NULL, NULL);
	assert(fd >= 0);
	return fd;
}

/* From the visitor's first byte to its end, both ways. */
static void expect_service(const struct house *house, int fd)
{
	say(fd, REQUEST);
	const int server = served(house);
	hear(server, REQUEST);
	say(server, "welcome");
	hear(fd, "welcome");
	shutdown(fd, SHUT_WR);
	hear_end(server);
	say(server, "and good-bye");
	close(server);
	hear(fd, "and good-bye");
	hear_end(fd);
	close(fd);
}

/* ---- who is let in ---- */

static void test_a_visitor_is_led_to_the_host_it_asks_for(void)
{
	struct house house;

	open_house(&house, patient());
	expect_service(&house, visit(&house));
	AWAIT(&house, c.visitors == 1 && c.visitors_now == 0 && c.routed[SNIFFER_HTTP_1] == 1 && c.done == 1);
	AWAIT(&house, c.bytes_in == strlen(REQUEST) && c.bytes_out == strlen("welcomeand good-bye"));
	close_house(&house);
}

static void test_a_request_may_come_in_pieces(void)
{
	struct house house;
	const char *request = REQUEST;

	open_house(&house, patient());
	const int fd = visit(&house);
	for (const char *at = request; *at != '\0'; at++)
		assert(send(fd, at, 1, MSG_NOSIGNAL) == 1);
	const int server = served(&house);
	hear(server, REQUEST);
	say(fd, "more");
	hear(server, "more");
	close(fd);
	hear_end(server);
	close(server);
	close_house(&house);
}

static void test_an_unknown_host_is_reset_without_a_byte(void)
{
	struct house house;

	open_house(&house, patient());
	const int fd = visit(&house);
	say(fd, STRANGER);
	hear_reset(fd);
	AWAIT(&house, c.unknown_host == 1 && c.visitors_now == 0);
	close_house(&house);
}

static void test_without_routes_all_hosts_are_unknown(void)
{
	struct house house;

	open_house(&house, patient());
	replace_routes(&house, door_routes_new(0));
	const int fd = visit(&house);
	say(fd, REQUEST);
	hear_reset(fd);
	close_house(&house);
}

static void test_where_nobody_is_there_it_is_reset(void)
{
	struct house house;
	struct door_routes *routes = door_routes_new(1);
	const struct endpoint nowhere = { 0 };
	struct door_rule rule;

	open_house(&house, patient());
	assert(door_rule_parse("app.example.org alice:1", &rule, NULL) == 0);
	assert(door_routes_add(routes, &rule, &nowhere) == 0);
	replace_routes(&house, routes);
	const int fd = visit(&house);
	say(fd, REQUEST);
	hear_reset(fd);
	AWAIT(&house, c.nobody_there == 1);
	close_house(&house);
}

static void test_where_the_target_refuses_it_is_reset(void)
{
	struct house house;
	uint16_t port;

	open_house(&house, patient());
	close(listen_anywhere(&port)); /* now nobody listens there */
	replace_routes(&house, routes_to(port));
	const int fd = visit(&house);
	say(fd, REQUEST);
	hear_reset(fd);
	AWAIT(&house, c.unreachable == 1 && c.visitors_now == 0);
	close_house(&house);
}

/* A listener whose queue is full: who connects gets no answer. */
struct silent_target {
	int listener, queued[4];
	uint16_t port;
};

static struct silent_target new_silent_target(void)
{
	struct silent_target target = { .listener = listen_anywhere(&target.port) };
	const struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
					     .sin_port = htons(target.port) };

	assert(listen(target.listener, 0) == 0);
	for (int i = 0; i < 4; i++) {
		target.queued[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		(void)!connect(target.queued[i], (const struct sockaddr *)&address, sizeof(address));
	}
	return target;
}

static void close_silent_target(const struct silent_target *target)
{
	for (int i = 0; i < 4; i++)
		close(target->queued[i]);
	close(target->listener);
}

static void send_reset(int fd)
{
	const struct linger linger = { .l_onoff = 1 };

	assert(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)) == 0);
	close(fd);
}

/* That nothing of it is kept the sanitizer sees. */
static void test_who_leaves_while_the_target_is_silent_is_forgotten(void)
{
	const struct silent_target target = new_silent_target();
	struct house house;

	open_house(&house, patient());
	replace_routes(&house, routes_to(target.port));
	for (int i = 0; i < 3; i++) {
		const int fd = visit(&house);
		say(fd, REQUEST);
		AWAIT(&house, c.connecting_now == 1 && c.hello_bytes_now == strlen(REQUEST));
		send_reset(fd);
		AWAIT(&house, c.visitors_now == 0 && c.hello_bytes_now == 0);
	}
	close_house(&house);
	close_silent_target(&target);
}

/* The one of those that came to it that says something. */
static int first_who_speaks(const struct silent_target *target)
{
	for (;;) {
		struct pollfd wait = { .fd = target->listener, .events = POLLIN };
		char byte;

		assert(poll(&wait, 1, AWAIT_MS) == 1);
		const int fd = accept(target->listener, NULL, NULL);
		if (recv(fd, &byte, 1, MSG_PEEK) == 1)
			return fd;
		close(fd);
	}
}

static void test_who_says_more_and_ends_while_the_target_is_silent_is_heard_to_the_end(void)
{
	const struct silent_target target = new_silent_target();
	struct house house;

	open_house(&house, patient());
	replace_routes(&house, routes_to(target.port));
	const int fd = visit(&house);
	say(fd, REQUEST);
	AWAIT(&house, c.connecting_now == 1);
	say(fd, "and this");
	shutdown(fd, SHUT_WR);
	for (int i = 0; i < 4; i++)
		close(target.queued[i]); /* there is room for the next SYN */
	const int server = first_who_speaks(&target);
	hear(server, REQUEST "and this");
	hear_end(server);
	close(server);
	hear_end(fd);
	close(fd);
	close(target.listener);
	AWAIT(&house, c.done == 1);
	close_house(&house);
}

static void test_a_target_that_is_silent_for_too_long_is_given_up(void)
{
	const struct silent_target target = new_silent_target();
	struct front_door_options options = patient();
	struct house house;

	options.connect_ms = 100;
	open_house(&house, options);
	replace_routes(&house, routes_to(target.port));
	const int fd = visit(&house);
	say(fd, REQUEST);
	hear_reset(fd);
	AWAIT(&house, c.connect_timed_out == 1 && c.visitors_now == 0);
	close_house(&house);
	close_silent_target(&target);
}

static void test_what_breaks_the_rules_of_http_is_told_so(void)
{
	struct house house;

	open_house(&house, patient());
	const int fd = visit(&house);
	say(fd, NO_REQUEST);
	hear(fd, sniffer_bad_request);
	hear_end(fd);
	close(fd);
	AWAIT(&house, c.refused[SNIFFER_TWO_HOSTS] == 1 && c.visitors_now == 0);
	close_house(&house);
}

static void test_what_is_no_protocol_is_reset(void)
{
	struct house house;

	open_house(&house, patient());
	const int fd = visit(&house);
	say(fd, "\x01\x02\x03\x04");
	hear_reset(fd);
	close_house(&house);
}

static void test_who_is_let_in_stays_when_the_host_is_taken_away(void)
{
	struct house house;

	open_house(&house, patient());
	const int fd = visit(&house);
	say(fd, REQUEST);
	const int server = served(&house);
	hear(server, REQUEST);
	replace_routes(&house, door_routes_new(0));
	const int other = visit(&house);
	say(other, REQUEST);
	hear_reset(other);
	say(server, "still here");
	hear(fd, "still here");
	close(fd);
	close(server);
	close_house(&house);
}

static void test_the_end_of_the_door_resets_all(void)
{
	struct house house;

	open_house(&house, patient());
	const int silent = visit(&house), busy = visit(&house);
	say(busy, REQUEST);
	const int server = served(&house);
	hear(server, REQUEST);
	AWAIT(&house, c.sniffing_now == 1);
	close_house(&house);
	hear_reset(silent);
	hear_reset(busy);
	hear_reset(server);
}

static void test_a_target_that_leads_back_is_known_by_any_address_of_this_machine(void)
{
	const struct endpoint any = { .port = 443 }, one = endpoint_from_v4(0xc0000201, 443);
	const struct endpoint own = endpoint_from_v4(INADDR_LOOPBACK + 7, 443);
	const struct endpoint other = endpoint_from_v4(INADDR_LOOPBACK, 8443);

	assert(front_door_leads_back(&any, 1, &own));
	assert(!front_door_leads_back(&any, 1, &other));
	assert(!front_door_leads_back(&any, 1, &one)); /* 192.0.2.1 */
	assert(!front_door_leads_back(&one, 1, &own));
	assert(front_door_leads_back(&one, 1, &one));
}

/* ---- who is slow, and who are many ---- */

static void test_silent_visitors_delay_nobody_and_are_reset_in_time(void)
{
	struct front_door_options options = patient();
	struct house house;
	int silent[100];

	options.sniff_ms = 1000;
	options.max_visitors_source = 200;
	open_house(&house, options);
	for (int i = 0; i < 100; i++) {
		silent[i] = visit(&house);
		if (i % 2 == 0)
			say(silent[i], "GET / HTTP/1.1\r\nHos");
	}
	expect_service(&house, visit(&house));
	for (int i = 0; i < 100; i++)
		hear_reset(silent[i]);
	AWAIT(&house, c.too_slow == 100 && c.visitors_now == 0);
	close_house(&house);
}

/* A byte now and then does not help: the limit counts from the visitor's coming. */
static void test_the_time_limit_is_absolute(void)
{
	struct front_door_options options = patient();
	struct house house;

	options.sniff_ms = 300;
	open_house(&house, options);
	const int fd = visit(&house);
	say(fd, "GET /");
	for (;;) {
		struct pollfd wait = { .fd = fd, .events = POLLIN };
		if (poll(&wait, 1, 20) == 1)
			break;
		assert(send(fd, "a", 1, MSG_NOSIGNAL) == 1 || errno == ECONNRESET || errno == EPIPE);
	}
	close(fd);
	AWAIT(&house, c.too_slow == 1);
	close_house(&house);
}

static void test_one_source_has_its_share_of_places(void)
{
	struct front_door_options options = patient();
	struct house house;
	int fds[3];

	options.max_visitors_source = 3;
	open_house(&house, options);
	for (int i = 0; i < 3; i++)
		fds[i] = visit(&house);
	AWAIT(&house, c.visitors_now == 3);
	hear_reset(visit(&house));
	AWAIT(&house, c.over_source_limit == 1);
	expect_service(&house, visit_from(&house, INADDR_LOOPBACK + 1));
	close(fds[0]); /* its place is free again */
	AWAIT(&house, c.visitors_now == 2);
	expect_service(&house, visit(&house));
	close(fds[1]);
	close(fds[2]);
	close_house(&house);
}

static void test_when_all_places_are_taken_the_one_silent_longest_makes_room(void)
{
	struct front_door_options options = patient();
	struct house house;
	int fds[3];

	options.max_visitors = 3;
	options.max_visitors_source = 100;
	open_house(&house, options);
	for (int i = 0; i < 3; i++) {
		fds[i] = visit(&house);
		AWAIT(&house, c.visitors_now == (uint64_t)i + 1);
	}
	expect_service(&house, visit(&house));
	hear_reset(fds[0]);
	AWAIT(&house, c.over_limit == 1 && c.visitors_now == 2);
	close(fds[1]);
	close(fds[2]);
	close_house(&house);
}

static void test_what_came_of_all_has_a_bound_and_who_began_first_makes_room(void)
{
	struct front_door_options options = patient();
	struct house house;
	char head[5001] = "GET / HTTP/1.1\r\n"; /* takes 8 KiB and a little */
	int fds[3];

	memset(head + strlen(head), 'a', sizeof(head) - 1 - strlen(head));
	options.max_hello_bytes = 20000;
	open_house(&house, options);
	const int silent = visit(&house); /* who has sent nothing costs nothing */
	AWAIT(&house, c.visitors_now == 1);
	for (int i = 0; i < 3; i++) {
		fds[i] = visit(&house);
		say(fds[i], head);
		AWAIT(&house, c.hello_bytes_now >= 8192 * (uint64_t)(i < 2 ? i + 1 : 2) && c.visitors == (uint64_t)i + 2);
	}
	hear_reset(fds[0]);
	AWAIT(&house, c.over_limit == 1 && c.visitors_now == 3 && c.hello_bytes_now <= 20000);
	close(fds[1]);
	close(fds[2]);
	AWAIT(&house, c.hello_bytes_now == 0);
	expect_service(&house, silent);
	close_house(&house);
}

static void test_who_is_served_does_not_make_room(void)
{
	struct front_door_options options = patient();
	struct house house;

	options.max_visitors = 1;
	options.max_visitors_source = 100;
	open_house(&house, options);
	const int fd = visit(&house);
	say(fd, REQUEST);
	const int server = served(&house);
	hear(server, REQUEST);
	hear_reset(visit(&house));
	say(server, "still here");
	hear(fd, "still here");
	close(fd);
	close(server);
	close_house(&house);
}

static struct front_door_options with_agents(void)
{
	struct front_door_options options = patient();

	options.has_dial_back = true;
	options.dial_back = endpoint_from_v4(INADDR_LOOPBACK, 0);
	return options;
}

/* So many let nobody else in: the one that was silent longest makes room for the next. */
static void expect_places(const struct front_door_options *options, uint32_t n)
{
	struct house house;
	int fds[128];

	assert(n <= sizeof(fds) / sizeof(*fds));
	open_house(&house, *options);
	for (uint32_t i = 0; i < n; i++) {
		fds[i] = visit(&house);
		AWAIT(&house, c.visitors_now == (uint64_t)i + 1);
	}
	assert(front_door_counters(house.door).over_limit == 0);
	const int one_more = visit(&house);
	hear_reset(fds[0]);
	AWAIT(&house, c.over_limit == 1 && c.visitors_now == n && c.no_descriptors == 0);
	close(one_more);
	for (uint32_t i = 1; i < n; i++)
		close(fds[i]);
	close_house(&house);
}

/* Of 516 the others' 256 are left out; whoever configures more visitors has no more descriptors by that. */
static void test_there_are_three_descriptors_for_a_visitor_and_five_where_agents_dial_back(void)
{
	struct front_door_options options[] = { patient(), with_agents() };
	struct rlimit before, low;

	assert(getrlimit(RLIMIT_NOFILE, &before) == 0);
	low = before;
	low.rlim_cur = 516;
	assert(setrlimit(RLIMIT_NOFILE, &low) == 0);
	for (size_t i = 0; i < sizeof(options) / sizeof(*options); i++) {
		options[i].max_visitors = 10000;
		options[i].max_visitors_source = 10000;
	}
	expect_places(&options[0], (516 - 256) / 3);
	expect_places(&options[1], (516 - 256) / 5);
	assert(setrlimit(RLIMIT_NOFILE, &before) == 0);
}

/* Who dialled back, for the door; the agent's own end. */
static struct dial_caller make_caller(int *ret_agent)
{
	struct dial_caller caller = { .is_raw = true, .n_answer = 5, .answer = malloc(5) };
	struct sockaddr_in address;
	socklen_t len = sizeof(address);
	uint16_t port;
	const int listener = listen_anywhere(&port);

	assert(caller.answer && getsockname(listener, (struct sockaddr *)&address, &len) == 0);
	memcpy(caller.answer, "hello", 5);
	*ret_agent = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert(connect(*ret_agent, (struct sockaddr *)&address, sizeof(address)) == 0);
	caller.fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	assert(caller.fd >= 0);
	close(listener);
	return caller;
}

/* To an agent without TLS a mere end would be the visitor's, and its target would take what it has for the whole. */
static void test_an_agent_for_whom_there_is_no_room_or_no_door_any_more_is_reset(void)
{
	const struct dial_caller nobody = { .fd = -1 };
	struct house house;
	int agents[2], n = 0;

	open_house(&house, with_agents());
	(void)uv_run(&house.loop, UV_RUN_NOWAIT); /* what it waits for is in its epoll from then on */
	front_door_stop(house.door, on_stopped, &house);
	struct pollfd wait = { .fd = uv_backend_fd(&house.loop), .events = POLLIN };
	assert(poll(&wait, 1, AWAIT_MS) == 1); /* its thread has ended, and takes nobody any more */
	const struct dial_caller waits = make_caller(&agents[0]), is_refused = make_caller(&agents[1]);
	assert(front_door_take_caller(house.door, &waits));
	while (front_door_take_caller(house.door, &nobody))
		assert(n++ < 4 * DIAL_EXCHANGE_CALLERS);
	assert(n + 1 >= DIAL_EXCHANGE_CALLERS);
	assert(!front_door_take_caller(house.door, &is_refused));
	hear_reset(agents[1]);
	close_house(&house);
	hear_reset(agents[0]);
}

/* ---- bad input, in number ---- */

#define N_OF_EACH      100
#define LINES_A_SECOND 5  /* of the log, for what strangers do at a door */

/* What is logged from here on. */
static FILE *begin_to_listen_to_log(int *ret_before)
{
	FILE *log = tmpfile();

	assert(log && (*ret_before = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3)) >= 0);
	assert(dup2(fileno(log), STDERR_FILENO) == STDERR_FILENO);
	log_set_level(LOG_LEVEL_DEBUG);
	return log;
}

static void end_to_listen_to_log(int before)
{
	log_set_level(LOG_LEVEL_INFO);
	assert(dup2(before, STDERR_FILENO) == STDERR_FILENO);
	close(before);
}

/* How many lines have that in them. */
static unsigned count_lines(FILE *log, const char *what)
{
	char line[2048];
	unsigned n = 0;

	rewind(log);
	while (fgets(line, sizeof(line), log))
		n += strstr(line, what) != NULL;
	return n;
}

static unsigned count_logged(FILE *log_take, int before, const char *what)
{
	end_to_listen_to_log(before);
	const unsigned n = count_lines(log_take, what);
	fclose(log_take);
	return n;
}

static unsigned most_lines(uint64_t since_ns)
{
	return (unsigned)((clock_now_ns() - since_ns) / 1000000000 + 2) * LINES_A_SECOND;
}

/* With 400 Bad Request, or with a reset before a byte. */
static void expect_closed(int fd)
{
	char heard[1024];
	ssize_t n, sum = 0;

	while ((n = recv(fd, heard + sum, sizeof(heard) - (size_t)sum, 0)) > 0)
		sum += n;
	if (sum > 0)
		assert((size_t)sum == strlen(sniffer_bad_request) && memcmp(heard, sniffer_bad_request, (size_t)sum) == 0);
	else
		assert(n < 0 && errno == ECONNRESET);
	close(fd);
}

static void expect_refused_and_counted(struct house *house, const char *said, size_t n_said)
{
	uint64_t n = 0, n_before = 0;

	for (size_t i = 0; i < SNIFFER_N_REASONS; i++)
		n_before += front_door_counters(house->door).refused[i];
	for (int i = 0; i < N_OF_EACH; i++) {
		const int fd = visit(house);
		assert(send(fd, said, n_said, MSG_NOSIGNAL) == (ssize_t)n_said || errno == ECONNRESET || errno == EPIPE);
		expect_closed(fd);
	}
	for (int ms = 0; n != n_before + N_OF_EACH; ms++) {
		assert(ms < AWAIT_MS);
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
		n = 0;
		for (size_t i = 0; i < SNIFFER_N_REASONS; i++)
			n += front_door_counters(house->door).refused[i];
	}
	AWAIT(house, c.visitors_now == 0 && c.hello_bytes_now == 0);
}

static void test_bad_requests_are_closed_and_counted_each_and_logged_at_a_bounded_rate(void)
{
#define BAD(text) { text, sizeof(text) - 1 }
	static const struct {
		const char *said;
		size_t n;
	} bad[] = {
		BAD(NO_REQUEST), /* what two read differently, so that one may be told what the other was not asked */
		BAD("GET http://other.example.org/ HTTP/1.1\r\nHost: app.example.org\r\n\r\n"),
		BAD("GET / HTTP/1.1\r\nHost : app.example.org\r\n\r\n"),
		BAD("GET / HTTP/1.1\r\nX: a\r\n Host: app.example.org\r\nHost: app.example.org\r\n\r\n"),
		BAD("GET / HTTP/1.1\r\nHost: app\0.example.org\r\n\r\n"),
		BAD("GET / HTTP/1.1\r\nHost: \xc3\xa4pp.example.org\r\n\r\n"),
	};
	static char oversized[80000] = "GET / HTTP/1.1\r\nX: ";
	const uint64_t begin_ns = clock_now_ns();
	struct house house;
	int before;

	memset(oversized + strlen(oversized), 'a', sizeof(oversized) - strlen(oversized));
	open_house(&house, patient());
	FILE *log = begin_to_listen_to_log(&before);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		expect_refused_and_counted(&house, bad[i].said, bad[i].n);
	expect_refused_and_counted(&house, oversized, sizeof(oversized));
	const unsigned n_lines = count_logged(log, before, ": refused");
	assert(n_lines > 0 && n_lines <= most_lines(begin_ns));
	expect_service(&house, visit(&house));
	close_house(&house);
}

static void test_forged_secrets_are_reset_and_counted_each_and_logged_at_a_bounded_rate(void)
{
	const uint64_t begin_ns = clock_now_ns();
	struct house house;
	uint8_t secret[32];
	int before;

	open_house(&house, with_agents());
	const uint16_t port = house.port;
	house.port = front_door_dial_back_port(house.door);
	FILE *log = begin_to_listen_to_log(&before);
	for (int i = 0; i < 5 * N_OF_EACH; i++) {
		const int fd = visit(&house);
		randombytes_buf(secret, sizeof(secret));
		assert(send(fd, secret, sizeof(secret), MSG_NOSIGNAL) == sizeof(secret));
		hear_reset(fd);
	}
	AWAIT(&house, c.dial_unknown == 5 * N_OF_EACH);
	const unsigned n_lines = count_logged(log, before, "a secret that was told to nobody");
	assert(n_lines > 0 && n_lines <= most_lines(begin_ns));
	house.port = port;
	expect_service(&house, visit(&house));
	close_house(&house);
}

static double cpu_seconds(void)
{
	struct timespec used;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
	return (double)used.tv_sec + (double)used.tv_nsec / 1e9;
}

static void test_without_descriptors_who_comes_is_reset_and_nothing_spins(void)
{
	struct rlimit before, low;
	struct house house;
	int fillers[256], n_fillers = 0;

	open_house(&house, patient());
	const int fd = visit(&house); /* its descriptor, while there is one */
	AWAIT(&house, c.visitors_now == 1);
	const int late = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert(getrlimit(RLIMIT_NOFILE, &before) == 0);
	low = before;
	low.rlim_cur = 200;
	assert(setrlimit(RLIMIT_NOFILE, &low) == 0);
	while ((fillers[n_fillers] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0)
		n_fillers++;
	assert(errno == EMFILE);

	const struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
					     .sin_port = htons(house.port) };
	assert(connect(late, (const struct sockaddr *)&address, sizeof(address)) == 0);
	hear_reset(late);
	AWAIT(&house, c.no_descriptors == 1);
	const double begin = cpu_seconds();
	nanosleep(&(struct timespec){ .tv_nsec = 200000000 }, NULL);
	assert(cpu_seconds() - begin < 0.1);

	while (n_fillers > 0)
		close(fillers[--n_fillers]);
	assert(setrlimit(RLIMIT_NOFILE, &before) == 0);
	expect_service(&house, fd); /* who was there is served as before, */
	expect_service(&house, visit(&house)); /* and who comes now as well */
	close_house(&house);
}

/* A socket that does not listen stands for one of which nobody can be accepted, though they wait. */
static void test_while_nobody_can_be_accepted_nothing_spins(void)
{
	struct front_door_options options = { .n_listen = 1, .max_visitors = 1, .max_visitors_source = 1,
					      .sniff_ms = 1000, .connect_ms = 1000 };
	struct door_thread *door;
	const uint64_t begin_ns = clock_now_ns();
	int fds[2];
	const int wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) == 0);
	assert(send(fds[1], "x", 1, 0) == 1);
	assert(door_thread_new(&options, fds, wake_fd, &door) == 0);
	for (int i = 0; i < 4; i++) /* it tries, waits a tenth of a second, and once more */
		(void)door_thread_turn(door);
	assert(clock_now_ns() - begin_ns >= 150000000);
	door_thread_free(door);
	close(fds[0]);
	close(fds[1]);
	close(wake_fd);
}

/* ---- a host with two places ---- */

struct two {
	struct house house;
	struct door_places places;
	int server[2]; /* listen; -1: nobody does */
	uint16_t port[2];
};

/* Beside app.example.org with its places: nobody listens at down.example.org's port. */
static void open_two(struct two *two, struct front_door_options options)
{
	struct door_routes *routes = door_routes_new(2);
	struct door_rule rule;

	*two = (struct two){ 0 };
	open_house(&two->house, options);
	assert(door_rule_parse("app.example.org 127.0.0.1:1", &rule, NULL) == 0);
	for (int i = 0; i < 2; i++) {
		two->server[i] = listen_anywhere(&two->port[i]);
		const struct endpoint target = endpoint_from_v4(INADDR_LOOPBACK, two->port[i]);
		assert(door_routes_add_place(routes, &rule, door_places_get(&two->places, "app.example.org",
									    i == 0 ? "alice" : "bob", &target, true)) == 0);
	}
	door_places_sweep(&two->places);
	assert(door_rule_parse("down.example.org 127.0.0.1:1", &rule, NULL) == 0);
	assert(door_routes_add(routes, &rule, &rule.address) == 0);
	replace_routes(&two->house, routes);
}

static void stop_server(struct two *two, int i)
{
	close(two->server[i]);
	two->server[i] = -1;
}

static void start_server(struct two *two, int i)
{
	const struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
					     .sin_port = htons(two->port[i]) };
	const int one = 1;

	two->server[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert(setsockopt(two->server[i], SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) == 0);
	assert(bind(two->server[i], (const struct sockaddr *)&address, sizeof(address)) == 0 &&
	       listen(two->server[i], 1024) == 0);
}

static void close_two(struct two *two)
{
	close_house(&two->house);
	door_places_deinit(&two->places);
	for (int i = 0; i < 2; i++)
		if (two->server[i] >= 0)
			close(two->server[i]);
}

/* Whom the visitor is led to: 0 or 1; its connection there. */
static int led_to(const struct two *two, int *ret)
{
	struct pollfd wait[2] = { { .fd = two->server[0], .events = POLLIN }, { .fd = two->server[1], .events = POLLIN } };

	assert(poll(wait, 2, AWAIT_MS) > 0);
	const int i = wait[0].revents & POLLIN ? 0 : 1;
	*ret = accept(two->server[i], NULL, NULL);
	assert(*ret >= 0);
	return i;
}

/* Served and gone: by which. */
static int serve_one(const struct two *two)
{
	const int fd = visit(&two->house);
	int server;

	say(fd, REQUEST);
	const int i = led_to(two, &server);
	hear(server, REQUEST);
	say(server, "welcome");
	hear(fd, "welcome");
	close(server);
	hear_end(fd);
	close(fd);
	AWAIT(&two->house, c.visitors_now == 0);
	return i;
}

static void test_two_places_share_the_visitors_of_a_host(void)
{
	struct two two;

	open_two(&two, patient());
	for (int i = 0; i < 6; i++)
		assert(serve_one(&two) == i % 2);
	close_two(&two);
}

static void test_who_is_led_to_a_place_that_refuses_is_led_to_the_other(void)
{
	struct two two;

	open_two(&two, patient());
	stop_server(&two, 0);
	for (int i = 0; i < 6; i++)
		assert(serve_one(&two) == 1);
	AWAIT(&two.house, c.tried_another == 1 && c.unreachable == 0); /* it is tried once, and passed over then */
	start_server(&two, 0);
	for (int i = 0; serve_one(&two) != 0; i++) {
		assert(i < 1000);
		nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
	}
	assert(serve_one(&two) == 1 && serve_one(&two) == 0); /* as before */
	close_two(&two);
}

static void test_where_all_places_refuse_it_is_reset(void)
{
	struct two two;

	open_two(&two, patient());
	stop_server(&two, 0);
	stop_server(&two, 1);
	for (int i = 0; i < 3; i++) {
		const int fd = visit(&two.house);
		say(fd, REQUEST);
		hear_reset(fd);
	}
	AWAIT(&two.house, c.unreachable == 3 && c.tried_another == 3 && c.visitors_now == 0 && c.hello_bytes_now == 0);
	close_two(&two);
}

static void test_which_target_is_not_reached_is_logged_and_hides_no_place_that_fails_or_answers_again(void)
{
	struct two two;
	int before;

	open_two(&two, patient());
	FILE *log = begin_to_listen_to_log(&before);
	for (int i = 0; i < N_OF_EACH; i++) {
		const int fd = visit(&two.house);
		say(fd, "GET / HTTP/1.1\r\nHost: DOWN.Example.ORG.:80\r\n\r\n");
		hear_reset(fd);
	}
	stop_server(&two, 0);
	assert(serve_one(&two) == 1);
	start_server(&two, 0);
	for (int i = 0; serve_one(&two) != 0; i++) {
		assert(i < 1000);
		nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
	}
	end_to_listen_to_log(before);
	assert(count_lines(log, "target not reached: down.example.org at 127.0.0.1:1: Connection refused") > 0);
	assert(count_lines(log, "app.example.org of alice does not answer") == 1);
	assert(count_lines(log, "app.example.org of alice answers again") == 1);
	fclose(log);
	close_two(&two);
}

/* As a member does whose server is down: it takes the visitor, and resets it. */
static void test_what_does_nothing_twice_is_led_on_from_a_place_that_resets_it(void)
{
	struct two two;
	int server;

	open_two(&two, patient());
	const int fd = visit(&two.house);
	say(fd, REQUEST);
	assert(led_to(&two, &server) == 0);
	hear(server, REQUEST);
	send_reset(server);
	assert(led_to(&two, &server) == 1);
	hear(server, REQUEST);
	say(server, "welcome");
	hear(fd, "welcome");
	say(fd, "and more");
	hear(server, "and more");
	close(server);
	hear_end(fd);
	close(fd);
	AWAIT(&two.house, c.tried_another == 1 && c.visitors_now == 0 && c.done == 1 && c.reset == 0);
	close_two(&two);
}

static void test_what_may_do_something_twice_is_not_led_on_but_the_next_passes_over(void)
{
	struct two two;
	int server;

	open_two(&two, patient());
	const int fd = visit(&two.house);
	say(fd, "POST / HTTP/1.1\r\nHost: app.example.org\r\nContent-Length: 0\r\n\r\n");
	assert(led_to(&two, &server) == 0);
	hear(server, "POST");
	send_reset(server);
	hear_reset(fd);
	AWAIT(&two.house, c.visitors_now == 0 && c.tried_another == 0 && c.reset == 1);
	for (int i = 0; i < 3; i++)
		assert(serve_one(&two) == 1);
	close_two(&two);
}

/* It says that to the first place, and is reset there. */
static void assert_is_not_led_on(struct two *two, const void *said, size_t n)
{
	uint8_t heard[4096];
	int server;

	const int fd = visit(&two->house);
	assert(n <= sizeof(heard) && write(fd, said, n) == (ssize_t)n);
	(void)led_to(two, &server);
	assert(recv(server, heard, n, MSG_WAITALL) == (ssize_t)n && memcmp(heard, said, n) == 0);
	send_reset(server);
	hear_reset(fd);
	AWAIT(&two->house, c.visitors_now == 0 && c.tried_another == 0 && c.reset == 1);
}

static void test_a_second_request_behind_one_that_does_nothing_twice_is_not_said_to_another(void)
{
	static const char said[] = REQUEST "POST /pay HTTP/1.1\r\nHost: app.example.org\r\nContent-Length: 0\r\n\r\n";
	struct two two;

	open_two(&two, patient());
	assert_is_not_led_on(&two, said, strlen(said));
	close_two(&two);
}

/* n_early: bytes of a record of early data behind it. Bytes written. */
static size_t hello_with_early_data(uint8_t *ret, size_t cap, uint8_t n_early)
{
	const struct hello_options options = { .names = { "app.example.org" } };
	const uint8_t header[] = { 23, 3, 3, 0, n_early };
	uint8_t message[2048];
	size_t n = hello_in_records(message, hello_build(&options, message, sizeof(message)), 16384, ret, cap);

	if (n_early == 0)
		return n;
	assert(n + sizeof(header) + n_early <= cap);
	memcpy(ret + n, header, sizeof(header));
	memset(ret + n + sizeof(header), 0x5a, n_early);
	return n + sizeof(header) + n_early;
}

static void test_early_data_behind_a_hello_is_not_said_to_another(void)
{
	uint8_t said[4096];
	struct two two;

	open_two(&two, patient());
	assert_is_not_led_on(&two, said, hello_with_early_data(said, sizeof(said), 100));
	close_two(&two);
}

static void test_a_hello_is_led_on_from_a_place_that_resets_it(void)
{
	uint8_t said[4096], heard[4096];
	const size_t n = hello_with_early_data(said, sizeof(said), 0);
	struct two two;
	int server;

	open_two(&two, patient());
	const int fd = visit(&two.house);
	assert(write(fd, said, n) == (ssize_t)n && led_to(&two, &server) == 0);
	assert(recv(server, heard, n, MSG_WAITALL) == (ssize_t)n);
	send_reset(server);
	assert(led_to(&two, &server) == 1);
	assert(recv(server, heard, n, MSG_WAITALL) == (ssize_t)n && memcmp(heard, said, n) == 0);
	close(server);
	hear_end(fd);
	close(fd);
	AWAIT(&two.house, c.tried_another == 1 && c.visitors_now == 0);
	close_two(&two);
}

static void test_who_was_answered_is_not_led_on(void)
{
	struct two two;
	int server;

	open_two(&two, patient());
	const int fd = visit(&two.house);
	say(fd, REQUEST);
	assert(led_to(&two, &server) == 0);
	hear(server, REQUEST);
	say(server, "half an ans");
	hear(fd, "half an ans");
	send_reset(server);
	hear_reset(fd);
	AWAIT(&two.house, c.visitors_now == 0 && c.tried_another == 0 && c.reset == 1);
	close_two(&two);
}

static void test_who_says_more_before_it_is_answered_stays_where_it_is(void)
{
	struct two two;
	int server;

	open_two(&two, patient());
	const int fd = visit(&two.house);
	say(fd, REQUEST);
	assert(led_to(&two, &server) == 0);
	hear(server, REQUEST);
	say(fd, "and this");
	hear(server, "and this");
	shutdown(fd, SHUT_WR);
	hear_end(server);
	say(server, "well");
	close(server);
	hear(fd, "well");
	hear_end(fd);
	close(fd);
	AWAIT(&two.house, c.done == 1 && c.visitors_now == 0);
	close_two(&two);
}

static void test_a_place_that_is_silent_is_left_for_the_other(void)
{
	const struct silent_target target = new_silent_target();
	struct front_door_options options = patient();
	struct two two;

	options.connect_ms = 1000;
	open_two(&two, options);
	struct door_routes *routes = door_routes_new(1);
	struct door_rule rule;
	assert(door_rule_parse("app.example.org 127.0.0.1:1", &rule, NULL) == 0);
	const uint16_t ports[] = { target.port, two.port[1] };
	for (int i = 0; i < 2; i++) {
		const struct endpoint at = endpoint_from_v4(INADDR_LOOPBACK, ports[i]);
		assert(door_routes_add_place(routes, &rule, door_places_get(&two.places, "app.example.org", "silent", &at,
									    true)) == 0);
	}
	replace_routes(&two.house, routes);
	for (int i = 0; i < 3; i++)
		assert(serve_one(&two) == 1);
	AWAIT(&two.house, c.tried_another == 1 && c.connect_timed_out == 0);
	close_two(&two);
	close_silent_target(&target);
}

static void test_a_visitor_for_whom_all_are_silent_counts_once_at_each_place(void)
{
	const struct silent_target targets[] = { new_silent_target(), new_silent_target() };
	struct front_door_options options = patient();
	struct door_place *places[2];
	struct door_rule rule;
	struct two two;

	options.connect_ms = 1000;
	open_two(&two, options);
	struct door_routes *routes = door_routes_new(1);
	assert(door_rule_parse("app.example.org 127.0.0.1:1", &rule, NULL) == 0);
	for (int i = 0; i < 2; i++) {
		const struct endpoint at = endpoint_from_v4(INADDR_LOOPBACK, targets[i].port);
		places[i] = door_places_get(&two.places, "app.example.org", "silent", &at, true);
		assert(door_routes_add_place(routes, &rule, places[i]) == 0);
	}
	replace_routes(&two.house, routes);
	const int fd = visit(&two.house);
	say(fd, REQUEST);
	hear_reset(fd);
	AWAIT(&two.house, c.tried_another == 1 && c.connect_timed_out == 1 && c.visitors_now == 0);
	for (int i = 0; i < 2; i++)
		assert(places[i]->failed == 1);
	close_two(&two);
	for (int i = 0; i < 2; i++)
		close_silent_target(&targets[i]);
}

static void test_who_leaves_before_it_is_answered_says_nothing_of_the_place(void)
{
	struct two two;
	int server;

	open_two(&two, patient());
	const int fd = visit(&two.house);
	say(fd, REQUEST);
	assert(led_to(&two, &server) == 0);
	hear(server, REQUEST);
	AWAIT(&two.house, c.hello_bytes_now > strlen(REQUEST)); /* what it takes to try the other */
	send_reset(fd);
	hear_reset(server);
	AWAIT(&two.house, c.visitors_now == 0 && c.hello_bytes_now == 0 && c.tried_another == 0);
	assert(serve_one(&two) == 1 && serve_one(&two) == 0);
	close_two(&two);
}

/* ---- connections to members before their visitors ---- */

/* As what a member publishes: one place, which gets a header. */
static void open_member(struct two *two)
{
	struct door_routes *routes = door_routes_new(1);
	struct door_rule rule;

	open_two(two, patient());
	assert(door_rule_parse("app.example.org 127.0.0.1:1", &rule, NULL) == 0);
	rule.header = DOOR_HEADER_V2;
	const struct endpoint target = endpoint_from_v4(INADDR_LOOPBACK, two->port[0]);
	assert(door_routes_add_place(routes, &rule, door_places_get(&two->places, "app.example.org", "alice", &target,
								    true)) == 0);
	replace_routes(&two->house, routes);
}

static int next_of_member(const struct two *two)
{
	struct pollfd wait = { .fd = two->server[0], .events = POLLIN };

	assert(poll(&wait, 1, AWAIT_MS) == 1);
	return accept(two->server[0], NULL, NULL);
}

static void hear_behind_header(int fd, const char *text)
{
	uint8_t header[16 + 512];

	assert(recv(fd, header, 16, MSG_WAITALL) == 16);
	const size_t n = (size_t)header[14] << 8 | header[15];
	assert(n <= 512 && recv(fd, header + 16, n, MSG_WAITALL) == (ssize_t)n);
	hear(fd, text);
}

/* One of these has something to say; which is then -1. */
static int take_one_that_speaks(int *fds, nfds_t n)
{
	struct pollfd wait[8];

	assert(n <= 8);
	for (nfds_t i = 0; i < n; i++)
		wait[i] = (struct pollfd){ .fd = fds[i], .events = POLLIN };
	assert(poll(wait, n, AWAIT_MS) > 0);
	for (nfds_t i = 0; i < n; i++)
		if (wait[i].revents != 0) {
			const int fd = fds[i];
			fds[i] = -1;
			return fd;
		}
	abort();
}

/* It says that, and is answered by this server. */
static void answer_and_end(const struct two *two, int fd, int server)
{
	say(server, "welcome");
	hear(fd, "welcome");
	close(server);
	hear_end(fd);
	close(fd);
	AWAIT(&two->house, c.visitors_now == 0);
}

/* The first visitor has been there: the member has these two, which say nothing. */
static void visit_first(const struct two *two, int ret_warm[2])
{
	const int fd = visit(&two->house);
	int all[3];

	say(fd, REQUEST);
	for (int i = 0; i < 3; i++)
		all[i] = next_of_member(two);
	const int server = take_one_that_speaks(all, 3);
	for (int i = 0, n = 0; i < 3; i++)
		if (all[i] >= 0)
			ret_warm[n++] = all[i];
	hear_behind_header(server, REQUEST);
	answer_and_end(two, fd, server);
	AWAIT(&two->house, c.warm_now == 2 && c.warm_missed == 1 && c.warm_used == 0);
}

static void close_both(int warm[2])
{
	for (int i = 0; i < 2; i++)
		if (warm[i] >= 0)
			close(warm[i]);
}

static void test_the_second_visitor_of_a_member_is_led_by_a_connection_that_was_there(void)
{
	struct two two;
	int warm[2];

	open_member(&two);
	visit_first(&two, warm);
	const int fd = visit(&two.house);
	say(fd, REQUEST);
	const int server = take_one_that_speaks(warm, 2);
	hear_behind_header(server, REQUEST);
	const int next = next_of_member(&two); /* in its place */
	answer_and_end(&two, fd, server);
	AWAIT(&two.house, c.warm_now == 2 && c.warm_used == 1 && c.done == 2);
	close(next);
	close_both(warm);
	close_two(&two);
}

static void test_what_may_do_something_twice_is_led_by_a_new_connection(void)
{
	static const char post[] = "POST / HTTP/1.1\r\nHost: app.example.org\r\nContent-Length: 0\r\n\r\n";
	struct two two;
	int warm[2];

	open_member(&two);
	visit_first(&two, warm);
	const int fd = visit(&two.house);
	say(fd, post);
	const int server = next_of_member(&two);
	hear_behind_header(server, post);
	answer_and_end(&two, fd, server);
	AWAIT(&two.house, c.warm_now == 2 && c.warm_used == 0);
	close_both(warm);
	close_two(&two);
}

static void test_a_warm_connection_that_the_member_ends_is_no_failure_and_made_with_the_next_visitor(void)
{
	struct two two;
	int warm[2];

	open_member(&two);
	visit_first(&two, warm);
	send_reset(warm[0]);
	close(warm[1]);
	AWAIT(&two.house, c.warm_now == 0 && c.warm_ended == 2);
	const int fd = visit(&two.house);
	say(fd, REQUEST);
	const int server = next_of_member(&two);
	hear_behind_header(server, REQUEST);
	answer_and_end(&two, fd, server);
	AWAIT(&two.house, c.warm_now == 2 && c.warm_missed == 2 && c.unreachable == 0 && c.tried_another == 0);
	close_two(&two);
}

static void test_warm_connections_end_when_no_route_leads_there_any_more(void)
{
	struct two two;
	int warm[2];

	open_member(&two);
	visit_first(&two, warm);
	replace_routes(&two.house, routes_to(two.house.server_port));
	for (int i = 0; i < 2; i++)
		hear_reset(warm[i]);
	AWAIT(&two.house, c.warm_now == 0 && c.warm_ended == 0);
	close_two(&two);
}

static void test_who_says_more_to_a_warm_connection_is_heard_to_the_end(void)
{
	struct two two;
	int warm[2];

	open_member(&two);
	visit_first(&two, warm);
	const int fd = visit(&two.house);
	say(fd, REQUEST);
	const int server = take_one_that_speaks(warm, 2);
	hear_behind_header(server, REQUEST);
	say(fd, "and this");
	hear(server, "and this");
	shutdown(fd, SHUT_WR);
	hear_end(server);
	answer_and_end(&two, fd, server);
	AWAIT(&two.house, c.done == 2 && c.reset == 0);
	close_both(warm);
	close_two(&two);
}

static void test_what_a_member_resets_that_has_heard_it_is_reset_though_its_connection_was_warm(void)
{
	struct two two;
	int warm[2];

	open_member(&two);
	visit_first(&two, warm);
	const int fd = visit(&two.house);
	say(fd, REQUEST);
	const int server = take_one_that_speaks(warm, 2);
	hear_behind_header(server, REQUEST);
	send_reset(server);
	hear_reset(fd);
	AWAIT(&two.house, c.warm_dead == 0 && c.reset == 1 && c.visitors_now == 0 && c.hello_bytes_now == 0);
	close_both(warm);
	close_two(&two);
}

/* Its end is gone, and the other is not told. False: that takes a privilege. */
static bool forget_silently(int fd)
{
	const int on = 1;

	if (setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on)) < 0)
		return false;
	close(fd);
	return true;
}

/* On the loopback it is known at once that nobody hears it; tests/net/test_warm.py has who says more before that. */
static void test_who_is_led_by_a_dead_connection_is_led_afresh_with_all_it_says(void)
{
	struct two two;
	int warm[2];

	open_member(&two);
	visit_first(&two, warm);
	if (!forget_silently(warm[0])) {
		close_both(warm);
		close_two(&two);
		return;
	}
	assert(forget_silently(warm[1]));
	const int fd = visit(&two.house);
	say(fd, REQUEST);
	AWAIT(&two.house, c.warm_used == 1); /* both at once would be nothing for a warm one */
	say(fd, "and this");
	int server = next_of_member(&two);
	for (char byte; recv(server, &byte, 1, MSG_PEEK) <= 0; server = next_of_member(&two))
		close(server); /* it was made in the place of the dead one, and is closed with the others */
	hear_behind_header(server, REQUEST);
	hear(server, "and this");
	answer_and_end(&two, fd, server);
	AWAIT(&two.house, c.warm_dead == 1 && c.tried_another == 0 && c.reset == 0 && c.hello_bytes_now == 0);
	close_two(&two);
}

static void test_a_visitor_that_the_member_refuses_takes_no_warm_connection_from_the_next(void)
{
	struct two two;
	int warm[2];

	open_member(&two);
	visit_first(&two, warm);
	int fd = visit(&two.house);
	say(fd, REQUEST);
	int server = take_one_that_speaks(warm, 2);
	hear_behind_header(server, REQUEST);
	send_reset(server);
	hear_reset(fd);
	AWAIT(&two.house, c.reset == 1 && c.warm_used == 1 && c.warm_now == 2);
	fd = visit(&two.house);
	say(fd, REQUEST);
	const int next = next_of_member(&two); /* in the place of the first */
	int all[] = { warm[0], warm[1], next };
	for (int i = 0; i < 3; i++)
		if (all[i] < 0)
			all[i] = all[2];
	server = take_one_that_speaks(all, 2);
	hear_behind_header(server, REQUEST);
	AWAIT(&two.house, c.warm_used == 2);
	answer_and_end(&two, fd, server);
	for (int i = 0; i < 2; i++)
		if (all[i] >= 0)
			close(all[i]);
	close_two(&two);
}

/* So that none is made for a while: 1 s, as long as every failure is the first in a row. */
static void fail_both(const struct two *two, int warm[2])
{
	send_reset(warm[0]);
	send_reset(warm[1]);
	AWAIT(&two->house, c.warm_now == 0);
	nanosleep(&(struct timespec){ .tv_sec = 1, .tv_nsec = 100000000 }, NULL);
}

static void test_a_warm_connection_has_worked_also_when_the_visitor_speaks_on_before_the_answer(void)
{
	struct two two;
	int warm[2];

	open_member(&two);
	visit_first(&two, warm);
	fail_both(&two, warm);
	int fd = visit(&two.house);
	say(fd, REQUEST);
	int all[] = { next_of_member(&two), next_of_member(&two), next_of_member(&two) };
	int server = take_one_that_speaks(all, 3);
	hear_behind_header(server, REQUEST);
	answer_and_end(&two, fd, server);
	AWAIT(&two.house, c.warm_now == 2 && c.warm_used == 0);
	fd = visit(&two.house);
	say(fd, REQUEST);
	server = take_one_that_speaks(all, 3);
	hear_behind_header(server, REQUEST);
	say(fd, "and this");
	hear(server, "and this");
	for (int i = 0; i < 3; i++)
		if (all[i] >= 0)
			warm[0] = all[i];
	warm[1] = next_of_member(&two);
	AWAIT(&two.house, c.warm_now == 2 && c.warm_used == 1);
	fail_both(&two, warm);
	const int next = visit(&two.house);
	const uint64_t said_ns = clock_now_ns();
	say(next, REQUEST);
	AWAIT(&two.house, c.warm_now == 2);
	assert(clock_now_ns() - said_ns < 600000000); /* after the second in a row it would be 900 */
	close(next);
	close(fd);
	close(server);
	close_two(&two);
}

static void test_without_descriptors_warm_connections_go_and_the_visitor_is_asked_in(void)
{
	struct rlimit before, low;
	struct two two;
	int warm[2], fillers[256], n_fillers = 0;

	open_member(&two);
	visit_first(&two, warm);
	const int late = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert(getrlimit(RLIMIT_NOFILE, &before) == 0);
	low = before;
	low.rlim_cur = 200;
	assert(setrlimit(RLIMIT_NOFILE, &low) == 0);
	while ((fillers[n_fillers] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0)
		n_fillers++;
	assert(errno == EMFILE);
	const struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
					     .sin_port = htons(two.house.port) };
	assert(connect(late, (const struct sockaddr *)&address, sizeof(address)) == 0);
	AWAIT(&two.house, c.visitors_now == 1 && c.warm_now == 0 && c.no_descriptors == 0);
	while (n_fillers > 0)
		close(fillers[--n_fillers]);
	assert(setrlimit(RLIMIT_NOFILE, &before) == 0);
	for (int i = 0; i < 2; i++)
		hear_reset(warm[i]);
	say(late, REQUEST);
	const int server = next_of_member(&two);
	hear_behind_header(server, REQUEST);
	answer_and_end(&two, late, server);
	close_two(&two);
}

/* Between fork and exec, for as long as *ret_hold is open; only without except. */
static pid_t start_child(int except, int *ret_hold)
{
	int ends[2];
	char byte;

	assert(pipe2(ends, O_CLOEXEC) == 0);
	spawn_begin();
	const pid_t child = fork();
	assert(child >= 0);
	if (child == 0) {
		close(ends[1]);
		close(except);
		(void)!read(ends[0], &byte, 1);
		_exit(0);
	}
	close(ends[0]);
	*ret_hold = ends[1];
	return child;
}

static void end_child(pid_t child, int hold)
{
	close(hold);
	assert(waitpid(child, NULL, 0) == child);
	spawn_end();
}

/* Its sockets are closed and yet in the epoll, as the child has them open: what is said to them must meet nobody freed. */
static void test_what_comes_while_a_child_is_started_for_who_has_gone_is_for_nobody(void)
{
	struct house house;
	int server, hold;

	open_house(&house, patient());
	const int fd = visit(&house);
	say(fd, REQUEST);
	assert((server = accept(house.server, NULL, NULL)) >= 0);
	hear(server, REQUEST);
	say(server, "welcome");
	hear(fd, "welcome");
	const pid_t child = start_child(server, &hold);
	send_reset(server);
	AWAIT(&house, c.reset == 1 && c.visitors_now == 0);
	say(fd, "still here"); /* it has not heard of it yet */
	for (int i = 0; i < 2; i++) { /* the door has turns meanwhile */
		const int next = visit(&house);
		say(next, STRANGER);
		hear_reset(next);
	}
	end_child(child, hold);
	hear_reset(fd);
	close_house(&house);
}

int main(void)
{
	static void (*const tests[])(void) = {
		test_a_visitor_is_led_to_the_host_it_asks_for,
		test_a_request_may_come_in_pieces,
		test_an_unknown_host_is_reset_without_a_byte,
		test_without_routes_all_hosts_are_unknown,
		test_where_nobody_is_there_it_is_reset,
		test_where_the_target_refuses_it_is_reset,
		test_who_leaves_while_the_target_is_silent_is_forgotten,
		test_who_says_more_and_ends_while_the_target_is_silent_is_heard_to_the_end,
		test_a_target_that_is_silent_for_too_long_is_given_up,
		test_what_breaks_the_rules_of_http_is_told_so,
		test_what_is_no_protocol_is_reset,
		test_who_is_let_in_stays_when_the_host_is_taken_away,
		test_the_end_of_the_door_resets_all,
		test_a_target_that_leads_back_is_known_by_any_address_of_this_machine,
		test_silent_visitors_delay_nobody_and_are_reset_in_time,
		test_the_time_limit_is_absolute,
		test_one_source_has_its_share_of_places,
		test_when_all_places_are_taken_the_one_silent_longest_makes_room,
		test_what_came_of_all_has_a_bound_and_who_began_first_makes_room,
		test_who_is_served_does_not_make_room,
		test_there_are_three_descriptors_for_a_visitor_and_five_where_agents_dial_back,
		test_an_agent_for_whom_there_is_no_room_or_no_door_any_more_is_reset,
		test_bad_requests_are_closed_and_counted_each_and_logged_at_a_bounded_rate,
		test_forged_secrets_are_reset_and_counted_each_and_logged_at_a_bounded_rate,
		test_without_descriptors_who_comes_is_reset_and_nothing_spins,
		test_while_nobody_can_be_accepted_nothing_spins,
		test_two_places_share_the_visitors_of_a_host,
		test_the_second_visitor_of_a_member_is_led_by_a_connection_that_was_there,
		test_what_may_do_something_twice_is_led_by_a_new_connection,
		test_a_warm_connection_that_the_member_ends_is_no_failure_and_made_with_the_next_visitor,
		test_warm_connections_end_when_no_route_leads_there_any_more,
		test_who_says_more_to_a_warm_connection_is_heard_to_the_end,
		test_what_a_member_resets_that_has_heard_it_is_reset_though_its_connection_was_warm,
		test_who_is_led_by_a_dead_connection_is_led_afresh_with_all_it_says,
		test_a_visitor_that_the_member_refuses_takes_no_warm_connection_from_the_next,
		test_a_warm_connection_has_worked_also_when_the_visitor_speaks_on_before_the_answer,
		test_without_descriptors_warm_connections_go_and_the_visitor_is_asked_in,
		test_who_is_led_to_a_place_that_refuses_is_led_to_the_other,
		test_where_all_places_refuse_it_is_reset,
		test_which_target_is_not_reached_is_logged_and_hides_no_place_that_fails_or_answers_again,
		test_what_does_nothing_twice_is_led_on_from_a_place_that_resets_it,
		test_what_may_do_something_twice_is_not_led_on_but_the_next_passes_over,
		test_a_second_request_behind_one_that_does_nothing_twice_is_not_said_to_another,
		test_early_data_behind_a_hello_is_not_said_to_another,
		test_a_hello_is_led_on_from_a_place_that_resets_it,
		test_who_was_answered_is_not_led_on,
		test_who_says_more_before_it_is_answered_stays_where_it_is,
		test_a_place_that_is_silent_is_left_for_the_other,
		test_a_visitor_for_whom_all_are_silent_counts_once_at_each_place,
		test_who_leaves_before_it_is_answered_says_nothing_of_the_place,
		test_what_comes_while_a_child_is_started_for_who_has_gone_is_for_nobody,
	};

	if (sodium_init() < 0)
		return 1;
	for (size_t i = 0; i < sizeof(tests) / sizeof(*tests); i++)
		tests[i]();
	return 0;
}
