/*
 * What a visitor wants. Who says it all at once, as nearly everybody does, is read into memory that all share; who does
 * not gets a buffer of its own.
 */
#include "relay/frontdoor/door_thread_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define FIRST_BUFFER 4096 /* of who does not send all at once; doubled up to SNIFFER_MAX */

/* Not closed at once: a reset, because more came than was read, would take the answer away again. */
static void answer(struct visitor *visitor)
{
	const int fd = visitor->pair.ends[0].fd;
	const size_t len = strlen(sniffer_bad_request);

	if (send(fd, sniffer_bad_request, len, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)len ||
	    shutdown(fd, SHUT_WR) < 0 || visitor_watch(visitor) < 0) {
		visitor_turn_away(visitor);
		return;
	}
	visitor_free_hello(visitor);
	visitor_place(visitor, LINGERING, &visitor->door->lingering);
}

static void refuse(struct visitor *visitor, const struct sniffer *sniffer)
{
	struct door_thread *door = visitor->door;

	door->counters.refused[sniffer->reason]++;
	log_limited(&door->log_limit, LOG_LEVEL_DEBUG, "frontdoor", "%s %s from %s: refused",
		    sniffer_protocol_name(sniffer->protocol), sniffer_reason_name(sniffer->reason),
		    endpoint_ip_text(&visitor->remote).s);
	if (sniffer_answer(sniffer) == SNIFFER_HTTP_400 && visitor_may_linger(visitor))
		answer(visitor);
	else
		visitor_turn_away(visitor);
}

static const struct host_name *own_name(const struct door_thread *door)
{
	static const struct host_name none;

	return door->routes ? door_routes_own_name(door->routes) : &none;
}

static void count_given(struct door_thread *door, enum door_whose whose, bool is_given)
{
	struct front_door_counters *counters = &door->counters;
	uint64_t *given = whose == DOOR_WHOSE_RELAY ? &counters->to_relay : &counters->to_webgw;
	uint64_t *full = whose == DOOR_WHOSE_RELAY ? &counters->relay_over_limit : &counters->webgw_over_limit;

	++*(is_given ? given : full);
}

bool visitor_hand_over(const struct visitor *visitor, enum door_whose whose, int fd, const uint8_t *bytes, size_t n)
{
	struct door_thread *door = visitor->door;
	struct hand_over *queue = whose == DOOR_WHOSE_DIAL_BACK ? door->dial_backs : door->for_relay;
	const bool is_given = hand_over_put(queue, whose, fd, &visitor->remote, visitor->source, bytes, n);

	count_given(door, whose, is_given);
	if (is_given)
		door->wake_for_relay(door->relay_owner);
	return is_given;
}

/* Its socket goes as it is, out of our epoll first: from then on the loop has it, and may have closed it already. */
static void give_away(struct visitor *visitor, enum door_whose whose, const uint8_t *bytes, size_t n)
{
	struct door_thread *door = visitor->door;
	const int fd = visitor->pair.ends[0].fd;

	if (visitor->is_watched)
		(void)epoll_ctl(door->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
	visitor->is_watched = false;
	if (n > HAND_OVER_MAX_HELLO) { /* nobody of theirs says as much */
		door->counters.refused[SNIFFER_TOO_LONG]++;
		visitor_turn_away(visitor);
		return;
	}
	if (!visitor_hand_over(visitor, whose, fd, bytes, n)) {
		visitor_turn_away(visitor);
		return;
	}
	visitor->pair.ends[0].fd = -1;
	visitor_forget(visitor);
}

/* True: it waits for more. */
static bool judge(struct visitor *visitor, struct sniffer *sniffer, const uint8_t *bytes, size_t n)
{
	if (visitor->door->options.takes_header)
		return visitor_take_header(visitor, bytes, n);
	if (sniffer_read(sniffer, bytes, n) == SNIFFER_MORE)
		return true;
	const struct door_share share = { .has_relay = visitor->is_at_relays,
					  .has_webgw = visitor->is_at_relays && visitor->door->options.serves_webgw };
	const enum door_whose whose = door_share_decide(sniffer, share, own_name(visitor->door));
	switch (whose) {
	case DOOR_WHOSE_NOBODY: /* the routes say so as well */
	case DOOR_WHOSE_ROUTES:
		if (visitor_keeps_place(visitor))
			visitor_let_in(visitor, &sniffer->found, NULL, bytes, n);
		else
			visitor_turn_away(visitor);
		break;
	case DOOR_WHOSE_RELAY:
	case DOOR_WHOSE_DIAL_BACK:
		give_away(visitor, whose, bytes, n);
		break;
	case DOOR_WHOSE_WEBGW:
		if (visitor_keeps_place(visitor))
			visitor_enter_webgw(visitor, bytes, n);
		else
			visitor_turn_away(visitor);
		break;
	case DOOR_WHOSE_REFUSED:
		refuse(visitor, sniffer);
		break;
	}
	return false;
}

/* What came is not all: from now on it has a buffer of its own. */
static void keep_hello(struct visitor *visitor, const struct sniffer *sniffer, const uint8_t *bytes, size_t n)
{
	struct hello *hello = malloc(sizeof(*hello));
	size_t size = FIRST_BUFFER;

	while (size < n)
		size = size * 2 < SNIFFER_MAX ? size * 2 : SNIFFER_MAX;
	if (!hello || !(hello->bytes = malloc(size)))
		abort();
	memcpy(hello->bytes, bytes, n);
	hello->sniffer = *sniffer;
	hello->n = n;
	hello->size = size;
	visitor->hello = hello;
	visitor_set_kept(visitor, sizeof(*hello) + size);
}

static void make_room(struct visitor *visitor)
{
	struct hello *hello = visitor->hello;

	if (hello->n < hello->size)
		return;
	assert(hello->size < SNIFFER_MAX); /* at so many the sniffer has refused */
	hello->size = hello->size * 2 < SNIFFER_MAX ? hello->size * 2 : SNIFFER_MAX;
	hello->bytes = realloc(hello->bytes, hello->size);
	if (!hello->bytes)
		abort();
	visitor_set_kept(visitor, sizeof(*hello) + hello->size);
}

/* n of recv(): true when something came. Who has ended, or broken, before its host was known is gone. */
static bool has_come(struct visitor *visitor, ssize_t n)
{
	if (n > 0)
		return true;
	if (n < 0 && errno == EAGAIN)
		return false;
	visitor->door->counters.left_early += !visitor->is_silent; /* a door that had no visitor is none */
	visitor_turn_away(visitor);
	return false;
}

static void read_first(struct visitor *visitor)
{
	struct door_thread *door = visitor->door;
	const ssize_t n = recv(visitor->pair.ends[0].fd, door->scratch, sizeof(door->scratch), MSG_DONTWAIT);

	if (!has_come(visitor, n))
		return;
	visitor_is_heard(visitor);
	door->counters.visitors += door->options.takes_header;
	sniffer_init(&door->sniffer);
	if (judge(visitor, &door->sniffer, door->scratch, (size_t)n))
		keep_hello(visitor, &door->sniffer, door->scratch, (size_t)n);
}

static void read_more(struct visitor *visitor)
{
	struct hello *hello = visitor->hello;

	do {
		make_room(visitor);
		const ssize_t n = recv(visitor->pair.ends[0].fd, hello->bytes + hello->n, hello->size - hello->n,
				       MSG_DONTWAIT);
		if (!has_come(visitor, n))
			return;
		hello->n += (size_t)n;
	} while (judge(visitor, &hello->sniffer, hello->bytes, hello->n));
}

void visitor_sniff(struct visitor *visitor)
{
	if (!visitor->hello)
		read_first(visitor);
	if (visitor->state == SNIFFING && visitor->hello)
		read_more(visitor);
	door_keep_within_memory(visitor->door);
}

void visitor_sniff_again(struct visitor *visitor, const uint8_t *bytes, size_t n)
{
	struct door_thread *door = visitor->door;

	sniffer_init(&door->sniffer);
	if (n > 0 && judge(visitor, &door->sniffer, bytes, n))
		keep_hello(visitor, &door->sniffer, bytes, n);
	if (visitor->state == SNIFFING)
		visitor_sniff(visitor);
}

/* What it still sends is for nobody. */
static void drain_lingering(struct visitor *visitor)
{
	struct door_thread *door = visitor->door;
	ssize_t n = 0;

	for (int i = 0; i < 4; i++) {
		n = recv(visitor->pair.ends[0].fd, door->scratch, sizeof(door->scratch), MSG_DONTWAIT);
		if (n <= 0)
			break;
	}
	if (n < 0 && errno == EAGAIN)
		return;
	if (n == 0) { /* it has read its answer, or gives up: both ends have ended */
		close(visitor->pair.ends[0].fd);
		visitor->pair.ends[0].fd = -1;
		visitor_forget(visitor);
		return;
	}
	visitor_turn_away(visitor);
}

void visitor_on_event(struct watch *watch, uint32_t events)
{
	struct splice_end *end = container_of(watch, struct splice_end, watch);
	struct visitor *visitor = container_of(end, struct visitor, pair.ends[0]);

	splice_end_note(end, events);
	switch ((enum visitor_state)visitor->state) {
	case SNIFFING:
		if (events & (EPOLLIN | EPOLLERR | EPOLLHUP))
			visitor_sniff(visitor);
		break;
	case ANSWERING:
		if (events & (EPOLLERR | EPOLLHUP)) {
			visitor->door->counters.reset++;
			visitor_turn_away(visitor);
		} else if (events & (EPOLLIN | EPOLLPRI | EPOLLRDHUP)) {
			visitor_says_more(visitor);
		}
		break;
	case CONNECTING:
	case WAITING:
		if (events & (EPOLLERR | EPOLLHUP)) { /* it has gone */
			visitor->door->counters.left_early++;
			visitor_turn_away(visitor);
		} else if (visitor->attempt && (events & (EPOLLIN | EPOLLPRI | EPOLLRDHUP))) {
			visitor->attempt->may_say_again = false; /* this is not told twice, and nothing is kept of it */
		}
		break;
	case LINGERING:
		drain_lingering(visitor);
		break;
	case PUMPED:
	case GONE:
	case N_STATES:
		break;
	}
}
