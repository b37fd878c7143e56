/*
 * A host with places, members: its visitor is led to one, and to the next when that one fails before it said a byte.
 *
 *   not reached in a fifth of connect_ms ──┐
 *   refused ───────────────────────────────┼──► the next, DOOR_MAX_TRIES in all; the last has connect_ms
 *   reset, or what it was given is not     │
 *   acknowledged, before it said a byte ───┘
 *
 * Who was heard already, but not answered, is led to another only if what it said does nothing twice: a hello of TLS, or a
 * GET, and nothing behind it, which may be early data or a second request; or nothing at all yet, at a port. When it says more,
 * that is kept for nobody: it stays where it is.
 *
 * By a warm connection (door_warm.h), if there is one, only such a visitor is led. That the connection has died unheard, as when
 * the member was started again, says nothing of the member, and must cost nobody anything:
 *
 *   reset, or ended, before it acknowledged all, or not acknowledged in ANSWER_MS ──► the same place again, by a new connection
 *   the visitor says more before it is acknowledged ──► that waits in its socket until one or the other is known
 */
#include "relay/frontdoor/door_thread_internal.h"

#include <errno.h>
#include <linux/sockios.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define ANSWER_MS 2000
#define HOLD_MS	  3    /* so often it is looked whether a warm connection lives, while somebody waits for that */
#define WARM_BYTES 4096 /* said first: more may not find room at once */

static bool begins_with(const uint8_t *bytes, size_t n, const char *word)
{
	return n >= strlen(word) && memcmp(bytes, word, strlen(word)) == 0;
}

static bool does_nothing_twice(const struct sniffed *found, const uint8_t *bytes, size_t n)
{
	if (n == 0 && found->protocol == SNIFFER_TCP)
		return true;
	if (!found->is_all)
		return false;
	if (found->protocol == SNIFFER_TLS)
		return true;
	return found->protocol == SNIFFER_HTTP_1 && (begins_with(bytes, n, "GET ") || begins_with(bytes, n, "HEAD ") ||
						     begins_with(bytes, n, "OPTIONS "));
}

size_t visitor_attempt_size(const struct visitor *visitor)
{
	return visitor->attempt ? sizeof(*visitor->attempt) + visitor->attempt->n : 0;
}

/* None when there is much of those who wait already: then it is led to one place only. */
static void keep_attempt(struct visitor *visitor, const struct sniffed *found, const uint8_t *bytes, size_t n)
{
	const struct door_thread *door = visitor->door;
	const size_t size = sizeof(struct attempt) + n;

	if (door->kept_bytes + size > door->options.max_hello_bytes / 2)
		return;
	visitor->attempt = calloc(1, size);
	if (!visitor->attempt)
		abort();
	visitor->attempt->found = *found;
	visitor->attempt->may_say_again = does_nothing_twice(found, bytes, n);
	visitor->attempt->n = n;
	memcpy(visitor->attempt->bytes, bytes, n);
}

void visitor_drop_attempt(struct visitor *visitor)
{
	for (uint32_t i = 0; visitor->attempt && i < visitor->attempt->n_tried; i++)
		door_place_let_go(visitor->attempt->tried[i]);
	free(visitor->attempt);
	visitor->attempt = NULL;
}

/*
 * Members take visitors with a header alone, and a connection that says nothing. Who is passed over has visitors by new ones;
 * who is alone is not: somebody who is refused there takes nothing from the others.
 */
static bool may_be_warm(const struct visitor *visitor, const struct door_route *route, const struct door_place *place,
			const struct sniffed *found, const uint8_t *bytes, size_t n)
{
	const bool is_passed_over = route->n_places > 1 && door_place_is_passed_over(place, visitor->door->now_ms);
	const bool has_said_more = visitor->attempt && !visitor->attempt->may_say_again;

	return route->header == DOOR_HEADER_V2 && !is_passed_over && !has_said_more && n <= WARM_BYTES &&
	       does_nothing_twice(found, bytes, n);
}

static void leave(struct visitor *visitor)
{
	if (!visitor->led_to)
		return;
	door_place_leave(visitor->led_to);
	door_place_let_go(visitor->led_to);
	visitor->led_to = NULL;
}

void visitor_leave_place(struct visitor *visitor)
{
	leave(visitor);
	visitor_drop_attempt(visitor);
}

static void lead_to(struct visitor *visitor, const struct door_route *route, struct door_place *place,
		    const struct sniffed *found, const uint8_t *bytes, size_t n)
{
	struct door_thread *door = visitor->door;
	struct attempt *attempt = visitor->attempt;
	const bool is_for_warm = may_be_warm(visitor, route, place, found, bytes, n);
	const struct endpoint target = place->target;

	visitor->led_to = door_place_hold(place);
	door_place_enter(place, ++door->n_chosen, door->now_ms);
	if (attempt)
		attempt->tried[attempt->n_tried++] = door_place_hold(place);
	if (is_for_warm && attempt && visitor_claim_warm(visitor, &target))
		door->counters.warm_used++;
	else if (is_for_warm)
		door->counters.warm_missed++;
	visitor_connect(visitor, route, &target, found, NULL, bytes, n);
	if (is_for_warm)
		door_fill_warm(door, &target); /* the visitor's bytes go first */
}

void visitor_find_place(struct visitor *visitor, const struct door_route *route)
{
	struct sockaddr_storage address = { 0 };
	socklen_t len = sizeof(address);

	if (route->n_places == 0 || getpeername(visitor->pair.ends[1].fd, (struct sockaddr *)&address, &len) < 0)
		return;
	const struct endpoint target = endpoint_from_sockaddr((const struct sockaddr *)&address);
	for (uint32_t i = 0; i < route->n_places; i++) {
		if (!endpoint_equal(&route->places[i]->target, &target))
			continue;
		visitor->led_to = door_place_hold(route->places[i]);
		door_place_enter_again(visitor->led_to);
		return;
	}
}

void visitor_choose_place(struct visitor *visitor, const struct door_route *route, const struct sniffed *found,
			  const uint8_t *bytes, size_t n)
{
	struct door_place *place = door_place_choose(route->places, route->n_places, NULL, 0, visitor->door->now_ms);

	if (route->n_places > 1 ||
	    (door_has_warm(visitor->door, &place->target) && may_be_warm(visitor, route, place, found, bytes, n)))
		keep_attempt(visitor, found, bytes, n);
	lead_to(visitor, route, place, found, bytes, n);
}

/* NULL: none. */
static struct door_place *find_another(const struct visitor *visitor, const struct door_route **ret_route)
{
	const struct door_thread *door = visitor->door;
	const struct attempt *attempt = visitor->attempt;

	if (!attempt || attempt->n_tried == DOOR_MAX_TRIES || !door->routes)
		return NULL;
	/* Routes may be others than before. */
	*ret_route = door_routes_find(door->routes, attempt->found.protocol, &attempt->found.host);
	if (!*ret_route || (*ret_route)->n_places == 0 || (*ret_route)->gate != visitor->gate)
		return NULL;
	return door_place_choose((*ret_route)->places, (*ret_route)->n_places, attempt->tried, attempt->n_tried, door->now_ms);
}

/* As if it had not been led anywhere. */
static void close_target(struct visitor *visitor)
{
	struct splice_end *end = &visitor->pair.ends[1];

	if (end->fd >= 0) {
		/* Where a child that is being started has it open too, its end would be taken for that of the next. */
		(void)epoll_ctl(visitor->door->epoll_fd, EPOLL_CTL_DEL, end->fd, NULL);
		splice_close_with_reset(end->fd);
	}
	*end = (struct splice_end){ .fd = -1 };
	splice_pair_drop_head(&visitor->pair);
	visitor_set_kept(visitor, 0);
}

/* ---- what a place is worth ---- */

void visitor_place_failed(struct visitor *visitor)
{
	struct door_place *place = visitor->led_to;

	if (!place)
		return;
	door_place_failed(place, visitor->door->now_ms);
	if (door_place_is_to_say_failed(place, visitor->door->now_ms))
		log_warning("frontdoor", "%s of %s does not answer: visitors are led to others, if there are some", place->host,
			    place->label);
}

/* By what it was led, if that was warm, lived. */
static void warm_has_worked(const struct visitor *visitor)
{
	if (visitor->warm != NOT_WARM)
		door_warm_has_worked(visitor->door, &visitor->led_to->target);
}

static void place_answered(struct visitor *visitor)
{
	struct door_place *place = visitor->led_to;

	warm_has_worked(visitor);
	door_place_answered(place);
	if (door_place_is_to_say_answered(place))
		log_info("frontdoor", "%s of %s answers again", place->host, place->label);
}

/*
 * Of those whose answer was not awaited before. That it said something is no sign where it broke then: that may have been
 * long ago.
 */
void visitor_judge_place(struct visitor *visitor, bool is_whole)
{
	if (!visitor->led_to)
		return;
	const bool has_answered = visitor->pair.flows[1].n_bytes > 0;
	if (is_whole && has_answered)
		place_answered(visitor);
	else if (!has_answered && visitor->pair.ends[1].state.is_broken)
		visitor_place_failed(visitor);
}

static bool is_acknowledged(const struct visitor *visitor)
{
	int n = 0;

	return ioctl(visitor->pair.ends[1].fd, SIOCOUTQ, &n) < 0 || n == 0;
}

static bool is_among(const struct door_route *route, const struct door_place *place)
{
	for (uint32_t i = 0; i < route->n_places; i++)
		if (route->places[i] == place)
			return true;
	return false;
}

/* NULL: it is led to where it was no more. */
static const struct door_route *find_same(const struct visitor *visitor)
{
	const struct door_thread *door = visitor->door;
	const struct sniffed *found = &visitor->attempt->found;
	const struct door_route *route = door->routes ? door_routes_find(door->routes, found->protocol, &found->host) : NULL;

	return route && route->gate == visitor->gate && is_among(route, visitor->led_to) ? route : NULL;
}

/* Its connection was there before it, and did not live any more. False: it did, or there is nothing to say again. */
static bool try_afresh(struct visitor *visitor)
{
	struct door_thread *door = visitor->door;
	struct attempt *attempt = visitor->attempt;

	if (visitor->warm == NOT_WARM || (visitor->warm == WARM_TOLD && is_acknowledged(visitor)))
		return false;
	door->counters.warm_dead++;
	door_warm_was_dead(door, &visitor->led_to->target);
	const struct door_route *route = attempt ? find_same(visitor) : NULL;
	if (!route)
		return false;
	close_target(visitor);
	visitor->warm = NOT_WARM;
	visitor_connect(visitor, route, &visitor->led_to->target, &attempt->found, NULL, attempt->bytes, attempt->n);
	return true;
}

bool visitor_try_another(struct visitor *visitor)
{
	struct door_thread *door = visitor->door;
	const struct door_route *route = NULL;

	if (try_afresh(visitor))
		return true;
	visitor->warm = NOT_WARM;
	visitor_place_failed(visitor);
	struct door_place *place = find_another(visitor, &route);
	if (!place)
		return false;
	door->counters.tried_another++;
	close_target(visitor);
	leave(visitor);
	const struct attempt *attempt = visitor->attempt;
	lead_to(visitor, route, place, &attempt->found, attempt->bytes, attempt->n);
	return true;
}

/* ---- until it answers ---- */

static void stay(struct visitor *visitor, bool is_readable)
{
	const struct pump_end target = { .is_readable = is_readable, .is_writable = true,
					 .is_broken = visitor->pair.ends[1].state.is_broken };

	visitor_drop_attempt(visitor);
	visitor->warm = NOT_WARM;
	visitor_hand_to_pump(visitor, &target);
}

/* The other end has acknowledged what it was told. */
static void stay_with_heard(struct visitor *visitor)
{
	warm_has_worked(visitor);
	stay(visitor, true);
}

void visitor_stay(struct visitor *visitor)
{
	stay(visitor, true);
}

/* What is kept of what came first. 1, 0: not all of it, which is the pump's then; or -errno. */
static int send_head(struct visitor *visitor)
{
	struct splice_flow *flow = &visitor->pair.flows[0];

	if (!flow->head)
		return 1;
	const ssize_t sent = send(visitor->pair.ends[1].fd, flow->head + flow->head_at, flow->state.waiting,
				  MSG_NOSIGNAL | MSG_DONTWAIT);
	if (sent < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	visitor->door->counters.bytes_in += (uint64_t)sent;
	flow->head_at += (size_t)sent;
	flow->state.waiting -= (size_t)sent;
	if (flow->state.waiting > 0)
		return 0;
	splice_pair_drop_head(&visitor->pair);
	return 1;
}

static void fail(struct visitor *visitor)
{
	if (visitor_try_another(visitor))
		return;
	visitor->door->counters.reset++;
	visitor_turn_away(visitor);
}

bool visitor_await_answer(struct visitor *visitor)
{
	int r = 0;

	if (visitor->attempt && visitor->attempt->may_say_again && (r = send_head(visitor)) > 0 &&
	    visitor_watch(visitor) == 0) {
		visitor_set_kept(visitor, visitor_attempt_size(visitor));
		visitor->attempt->told_ms = visitor->door->now_ms;
		visitor->warm = visitor->warm != NOT_WARM ? WARM_TOLD : NOT_WARM;
		visitor_place(visitor, ANSWERING, &visitor->door->answering);
		return true;
	}
	if (r < 0) {
		fail(visitor);
		return true;
	}
	visitor->warm = NOT_WARM;
	visitor_drop_attempt(visitor); /* how the place does is seen at the end: visitor_judge_place() */
	return false;
}

void visitor_says_more(struct visitor *visitor)
{
	if (visitor->warm != NOT_WARM && !is_acknowledged(visitor)) {
		visitor->attempt->may_say_again = false; /* its edge is gone: by the next connection it is the pump's at once */
		visitor_place(visitor, ANSWERING, &visitor->door->holding);
		return;
	}
	stay_with_heard(visitor);
}

/* What it said before it broke is its answer. */
static bool has_said_something(const struct visitor *visitor)
{
	uint8_t byte;

	return recv(visitor->pair.ends[1].fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0;
}

/* An end without a byte is an answer, but of who has heard what was said. */
static bool is_end_of_dead(const struct visitor *visitor, uint32_t events)
{
	uint8_t byte;

	return visitor->warm != NOT_WARM && (events & (EPOLLRDHUP | EPOLLHUP)) && !is_acknowledged(visitor) &&
	       recv(visitor->pair.ends[1].fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) <= 0;
}

void visitor_on_answer(struct visitor *visitor, uint32_t events)
{
	if (((events & EPOLLERR) && !has_said_something(visitor)) || is_end_of_dead(visitor, events)) {
		fail(visitor);
	} else if (events & (EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
		place_answered(visitor);
		stay(visitor, true);
	}
}

/* ---- who waits for too long ---- */

static bool has_another(const struct visitor *visitor)
{
	const struct door_route *route;

	return find_another(visitor, &route) != NULL;
}

static void on_late(struct visitor *visitor)
{
	/* The last has all the time, and has failed when that is over: one visitor says so once. */
	if (visitor->state == CONNECTING && !(has_another(visitor) && visitor_try_another(visitor)))
		visitor_place(visitor, CONNECTING, &visitor->door->connecting);
	else if (visitor->state == ANSWERING && is_acknowledged(visitor))
		stay_with_heard(visitor); /* it takes its time */
	else if (visitor->state == ANSWERING && !visitor_try_another(visitor))
		stay(visitor, true);
}

/* It has more to say: has the other end heard what it was told? */
static void look_at_held(struct visitor *visitor)
{
	if (is_acknowledged(visitor) || visitor->door->now_ms >= visitor->attempt->told_ms + ANSWER_MS)
		on_late(visitor);
	else
		visitor_place(visitor, ANSWERING, &visitor->door->holding);
}

static uint64_t expire(struct door_thread *door, const struct link *ring, uint64_t time_ms)
{
	const struct link *first;

	while ((first = link_first(ring))) {
		struct visitor *visitor = container_of(first, struct visitor, place);
		if (visitor->since_ms + time_ms > door->now_ms)
			return visitor->since_ms + time_ms;
		if (ring == &door->holding)
			look_at_held(visitor);
		else
			on_late(visitor);
	}
	return UINT64_MAX;
}

uint64_t door_expire_tries(struct door_thread *door)
{
	const uint64_t try = expire(door, &door->trying, door->options.connect_ms / 5);
	const uint64_t answer = expire(door, &door->answering, ANSWER_MS);
	const uint64_t held = expire(door, &door->holding, HOLD_MS);
	const uint64_t first = try < answer ? try : answer;

	return first < held ? first : held;
}
