/*
 * What the loop says of visitors for whom an agent dials back, and in which order the door hears it: whose visitor it is
 * comes by one ring, who dialled back by another or by the network, and neither waits for the other. The loop is played by
 * the test, in the door's thread: what it says comes exactly between two things that the door does.
 */
#include "relay/frontdoor/door_thread.h"

#include "relay/webgw/dial_exchange.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define LONG_MS	  600000
#define MAX_TURNS 20000
#define REQUEST	  "GET / HTTP/1.1\r\nHost: app.example.org\r\n\r\n"
#define N_VISITS  3

struct town {
	int listener, dial_listener, wake_fd;
	uint16_t port, dial_port;
	struct door_routes *routes;
	struct dial_exchange exchange;
	struct door_thread *door;
	int visitors[N_VISITS], agents[N_VISITS]; /* their own ends */
	struct dial_wanted wanted[N_VISITS];
	int next; /* whose agent is heard by the loop when the door wakes it next; N_VISITS: nobody's */
	struct agent_tally tally;
};

static int listen_anywhere(uint16_t *ret_port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(address);
	const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	assert(bind(fd, (struct sockaddr *)&address, len) == 0 && listen(fd, 16) == 0);
	assert(getsockname(fd, (struct sockaddr *)&address, &len) == 0);
	*ret_port = ntohs(address.sin_port);
	return fd;
}

static int connect_to(uint16_t port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port) };
	const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert(connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
	return fd;
}

static struct door_routes *routes_to_agents(void)
{
	static const char host[] = "app.example.org";
	const struct endpoint none = { 0 };
	struct door_routes *routes = door_routes_new(1);
	struct door_rule rule = { 0 };

	assert(door_rule_parse_host(host, strlen(host), &rule, NULL) == 0);
	rule.is_dial_back = true;
	assert(door_routes_add(routes, &rule, &none) == 0);
	return routes;
}

static void turn(const struct town *town)
{
	assert(eventfd_write(town->wake_fd, 1) == 0); /* it waits for nothing; and is not told that there is word */
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

/* ---- the loop ---- */

static int64_t subscription_of(int i)
{
	return 100 + i;
}

static void answer(struct town *town, int i)
{
	const struct dial_answer answer = { .ticket = town->wanted[i].ticket, .subscription = subscription_of(i), .tally = &town->tally };

	dial_exchange_answer(&town->exchange, &answer);
}

/* Its agent has dialled back within TLS, which is taken off elsewhere. */
static void give_caller(struct town *town, int i)
{
	uint16_t port;
	const int listener = listen_anywhere(&port);
	struct dial_caller caller = { 0 };

	town->agents[i] = connect_to(port);
	caller.fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	assert(caller.fd >= 0);
	close(listener);
	memcpy(caller.secret, town->wanted[i].secret, sizeof(caller.secret));
	assert(dial_exchange_give(&town->exchange, &caller));
}

/* The door wakes the loop in the middle of what it does; on another core the loop may be as far at that moment. */
static void on_woken(void *owner)
{
	struct town *town = owner;
	const int i = town->next;

	if (i == N_VISITS)
		return;
	town->next = N_VISITS;
	answer(town, i);
	give_caller(town, i);
}

/* Each agent has served its visitor, and the loop is told so, once. */
static void expect_dialled(struct town *town, int n)
{
	struct dial_over over;

	for (int i = 0; i < n; i++)
		assert(dial_exchange_take_over(&town->exchange, &over) && over.subscription == subscription_of(i) &&
		       over.end == SUBSCRIPTIONS_DIALLED);
	assert(!dial_exchange_take_over(&town->exchange, &over));
	assert(town->tally.open == (uint32_t)n && town->exchange.n_owed == N_VISITS - (uint32_t)n);
	assert(door_thread_counters(town->door).dialled == (uint64_t)n);
}

static void expect_request(const struct town *town, int i)
{
	char heard[sizeof(REQUEST)] = { 0 };
	struct pollfd wait = { .fd = town->agents[i], .events = POLLIN };

	UNTIL(town, poll(&wait, 1, 0) == 1);
	assert(recv(town->agents[i], heard, strlen(REQUEST), MSG_WAITALL) == (ssize_t)strlen(REQUEST));
	assert(strcmp(heard, REQUEST) == 0);
}

/* ---- the town ---- */

static bool wants_one_more(struct town *town, int i)
{
	if (!dial_exchange_take_wanted(&town->exchange, &town->wanted[i]))
		return false;
	free(town->wanted[i].first);
	return true;
}

static void open_town(struct town *town)
{
	const struct front_door_options options = { .n_listen = 1, .max_visitors = 100, .max_visitors_source = 100,
						    .max_hello_bytes = 1 << 20, .sniff_ms = LONG_MS, .connect_ms = LONG_MS,
						    .idle_ms = LONG_MS, .half_closed_ms = LONG_MS, .dial_ms = LONG_MS,
						    .present_ms = LONG_MS, .has_dial_back = true };

	*town = (struct town){ .wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .next = N_VISITS };
	town->listener = listen_anywhere(&town->port);
	town->dial_listener = listen_anywhere(&town->dial_port);
	town->routes = routes_to_agents();
	dial_exchange_init(&town->exchange, on_woken, town);
	assert(door_thread_new(&options, &town->listener, town->wake_fd, &town->door) == 0);
	assert(door_thread_open_dial_back(town->door, town->dial_listener, &town->exchange) == 0);
	door_thread_set_routes(town->door, town->routes);
	for (int i = 0; i < N_VISITS; i++) {
		town->agents[i] = -1;
		town->visitors[i] = connect_to(town->port);
		assert(send(town->visitors[i], REQUEST, strlen(REQUEST), MSG_NOSIGNAL) == (ssize_t)strlen(REQUEST));
		UNTIL(town, wants_one_more(town, i));
	}
}

static void close_town(struct town *town)
{
	door_thread_free(town->door);
	dial_exchange_deinit(&town->exchange);
	door_routes_free(town->routes);
	for (int i = 0; i < N_VISITS; i++) {
		if (town->visitors[i] >= 0)
			close(town->visitors[i]);
		if (town->agents[i] >= 0)
			close(town->agents[i]);
	}
	close(town->listener);
	close(town->dial_listener);
	close(town->wake_fd);
}

/* ---- the rules ---- */

/* The answers were looked for, and there was one; then the next agent was heard, with an answer of its own before it. */
static void test_an_answer_that_comes_while_callers_are_taken_is_heard_before_its_caller(void)
{
	struct town town;

	open_town(&town);
	answer(&town, 0);
	give_caller(&town, 0);
	town.next = 1; /* when the door says that visitor 0 is served */
	door_take_answers(town.door);
	expect_dialled(&town, 2);
	expect_request(&town, 0);
	expect_request(&town, 1);
	close_town(&town);
}

/* The eventfd may be told later than the agent's first bytes come. */
static void test_an_agent_that_is_faster_than_the_word_of_it_is_still_known(void)
{
	struct town town;

	open_town(&town);
	answer(&town, 0);
	town.agents[0] = connect_to(town.dial_port);
	assert(send(town.agents[0], town.wanted[0].secret, sizeof(town.wanted[0].secret), MSG_NOSIGNAL) ==
	       sizeof(town.wanted[0].secret));
	UNTIL(&town, door_thread_counters(town.door).dialled == 1); /* by its turns alone */
	expect_dialled(&town, 1);
	expect_request(&town, 0);
	close_town(&town);
}

static void test_who_left_before_the_answer_is_over_for_its_agent_as_one_that_left(void)
{
	struct dial_over over;
	struct town town;

	open_town(&town);
	const struct linger linger = { .l_onoff = 1 };
	assert(setsockopt(town.visitors[0], SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)) == 0);
	close(town.visitors[0]);
	town.visitors[0] = -1;
	UNTIL(&town, door_thread_counters(town.door).visitors_now == N_VISITS - 1);
	assert(town.exchange.n_owed == N_VISITS); /* the loop has not answered yet */
	answer(&town, 0);
	give_caller(&town, 0);
	door_take_answers(town.door);
	assert(dial_exchange_take_over(&town.exchange, &over) && over.subscription == subscription_of(0) &&
	       over.end == SUBSCRIPTIONS_LEFT);
	assert(!dial_exchange_take_over(&town.exchange, &over) && town.exchange.n_owed == N_VISITS - 1 && town.tally.open == 0);
	assert(door_thread_counters(town.door).dial_late == 1);
	char byte;
	assert(recv(town.agents[0], &byte, 1, 0) < 0 && errno == ECONNRESET);
	close_town(&town);
}

/* Its agent took it, and there are no descriptors for both: that is nothing against the agent, nor anybody else's. */
static void test_a_visitor_of_whom_it_is_known_that_nobody_can_come_is_reset_at_once(void)
{
	struct dial_caller nobody = { .fd = -1 };
	struct dial_over over;
	struct town town;
	char byte;

	open_town(&town);
	answer(&town, 0);
	assert(dial_exchange_give(&town.exchange, &nobody)); /* of a secret that is nobody's */
	memcpy(nobody.secret, town.wanted[0].secret, sizeof(nobody.secret));
	assert(dial_exchange_give(&town.exchange, &nobody));
	assert(dial_exchange_give(&town.exchange, &nobody)); /* who is gone already */
	door_take_answers(town.door);
	assert(recv(town.visitors[0], &byte, 1, 0) < 0 && errno == ECONNRESET);
	assert(dial_exchange_take_over(&town.exchange, &over) && over.subscription == subscription_of(0) &&
	       over.end == SUBSCRIPTIONS_LEFT);
	const struct front_door_counters counters = door_thread_counters(town.door);
	assert(counters.visitors_now == N_VISITS - 1 && counters.no_descriptors == 1 && town.tally.open == 0);
	answer(&town, 1);
	give_caller(&town, 1);
	door_take_answers(town.door);
	expect_request(&town, 1);
	assert(dial_exchange_give(&town.exchange, &nobody)); /* and whom the door never takes */
	close_town(&town);
}

/* With this secret somebody dials back, and is reset. */
static void expect_refused(const struct town *town, const uint8_t *secret)
{
	const int fd = connect_to(town->dial_port);
	struct pollfd wait = { .fd = fd, .events = POLLIN };
	char byte;

	assert(send(fd, secret, sizeof(town->wanted[0].secret), MSG_NOSIGNAL) == sizeof(town->wanted[0].secret));
	UNTIL(town, poll(&wait, 1, 0) == 1);
	assert(recv(fd, &byte, 1, 0) < 0 && errno == ECONNRESET);
	close(fd);
}

static void test_a_secret_that_comes_twice_is_reset_and_counted_and_its_visitor_stays(void)
{
	struct town town;

	open_town(&town);
	answer(&town, 0);
	give_caller(&town, 0);
	door_take_answers(town.door);
	expect_request(&town, 0);
	for (int i = 0; i < 3; i++)
		expect_refused(&town, town.wanted[0].secret);
	assert(door_thread_counters(town.door).dial_late == 3 && door_thread_counters(town.door).dial_unknown == 0);
	assert(door_thread_counters(town.door).visitors_now == N_VISITS);
	expect_dialled(&town, 1);
	close_town(&town);
}

/* Visitor i is served, and has been heard. */
static void begin_to_serve(struct town *town, int i)
{
	answer(town, i);
	give_caller(town, i);
	door_take_answers(town->door);
	expect_request(town, i);
}

static void end_one(int *fd, bool by_reset)
{
	const struct linger linger = { .l_onoff = by_reset };

	assert(setsockopt(*fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)) == 0);
	close(*fd);
	*fd = -1;
}

static void expect_over(struct town *town, uint32_t unanswered)
{
	UNTIL(town, town->tally.open == 0);
	assert(town->tally.unanswered == unanswered && town->tally.answered == 0);
}

static void test_a_visitor_whom_its_agent_leaves_without_a_byte_is_unanswered(void)
{
	struct town town;

	open_town(&town);
	begin_to_serve(&town, 0);
	end_one(&town.agents[0], true);
	expect_over(&town, 1);
	begin_to_serve(&town, 1);
	end_one(&town.agents[1], false);
	char byte;
	struct pollfd wait = { .fd = town.visitors[1], .events = POLLIN };
	UNTIL(&town, poll(&wait, 1, 0) == 1);
	assert(recv(town.visitors[1], &byte, 1, 0) == 0);
	end_one(&town.visitors[1], false);
	expect_over(&town, 2);
	close_town(&town);
}

static void test_what_a_visitor_ends_itself_says_nothing_of_its_agent(void)
{
	struct town town;

	open_town(&town);
	begin_to_serve(&town, 0);
	end_one(&town.visitors[0], true);
	expect_over(&town, 0);
	begin_to_serve(&town, 1);
	assert(shutdown(town.visitors[1], SHUT_WR) == 0); /* a server may end then, too */
	char byte;
	struct pollfd wait = { .fd = town.agents[1], .events = POLLIN };
	UNTIL(&town, poll(&wait, 1, 0) == 1);
	assert(recv(town.agents[1], &byte, 1, 0) == 0);
	end_one(&town.agents[1], false);
	expect_over(&town, 0);
	begin_to_serve(&town, 2); /* both before the door looks */
	assert(shutdown(town.visitors[2], SHUT_WR) == 0);
	end_one(&town.agents[2], true);
	expect_over(&town, 0);
	close_town(&town);
}

static void test_a_visitor_who_had_a_byte_is_answered_once_however_it_ends(void)
{
	struct town town;

	open_town(&town);
	for (int i = 0; i < 2; i++) {
		struct pollfd wait = { .fd = town.visitors[i], .events = POLLIN };
		begin_to_serve(&town, i);
		assert(send(town.agents[i], "a", 1, MSG_NOSIGNAL) == 1);
		UNTIL(&town, poll(&wait, 1, 0) == 1);
		end_one(&town.agents[i], i == 0);
		UNTIL(&town, poll(&wait, 1, 0) == 1);
		end_one(&town.visitors[i], true);
		UNTIL(&town, town.tally.open == 0);
		assert(town.tally.answered == (uint32_t)i + 1 && town.tally.unanswered == 0);
	}
	close_town(&town);
}

int main(void)
{
	if (sodium_init() < 0)
		return 1;
	test_an_answer_that_comes_while_callers_are_taken_is_heard_before_its_caller();
	test_an_agent_that_is_faster_than_the_word_of_it_is_still_known();
	test_who_left_before_the_answer_is_over_for_its_agent_as_one_that_left();
	test_a_visitor_of_whom_it_is_known_that_nobody_can_come_is_reset_at_once();
	test_a_secret_that_comes_twice_is_reset_and_counted_and_its_visitor_stays();
	test_a_visitor_whom_its_agent_leaves_without_a_byte_is_unanswered();
	test_what_a_visitor_ends_itself_says_nothing_of_its_agent();
	test_a_visitor_who_had_a_byte_is_answered_once_however_it_ends();
	return 0;
}
