/* Who comes is asked in. When descriptors run out, they are reset by means of a spare one, so that nobody waits in vain. */
#include "relay/frontdoor/door_thread_internal.h"

#include "relay/tcp_listener.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKLOG		4096
#define ACCEPT_A_TURN	64
#define RETRY_ACCEPT_MS 100

/* Visitors' sockets are like the one that they came to: so it is said once for all of them. */
int door_open_listener(const struct endpoint *address, const struct listen_sockets *sockets, int *ret,
		       struct error *reterr)
{
	const int one = 1, idle_s = 120, each_s = 30, times = 4;

	const struct endpoint any6 = { .port = address->port }, any4 = endpoint_from_v4(0, address->port);

	int r = tcp_listen(address, sockets, ret, reterr);
	if (r == -EAFNOSUPPORT && endpoint_equal(address, &any6)) /* a machine without IPv6 */
		r = tcp_listen(&any4, sockets, ret, reterr);
	if (r < 0)
		return r;
	(void)listen(*ret, BACKLOG);
	(void)setsockopt(*ret, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	(void)setsockopt(*ret, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	(void)setsockopt(*ret, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
	(void)setsockopt(*ret, IPPROTO_TCP, TCP_KEEPINTVL, &each_s, sizeof(each_s));
	(void)setsockopt(*ret, IPPROTO_TCP, TCP_KEEPCNT, &times, sizeof(times));
	return 0;
}

static void welcome(const struct listener *listener, int fd, const struct sockaddr_storage *address)
{
	struct door_thread *door = listener->door;
	const struct endpoint remote = endpoint_from_sockaddr((const struct sockaddr *)address);
	const uint16_t source = door_source_of(door, &remote);

	door->counters.visitors += !door->options.takes_header; /* doors come before their visitors */
	if (door->options.takes_header && !(door->routes && door_routes_has_door(door->routes, &remote))) {
		door->counters.no_door++;
		log_limited(&door->log_limit, LOG_LEVEL_WARNING, "frontdoor", "%s is no front door: refused",
			    endpoint_ip_text(&remote).s);
		splice_close_with_reset(fd);
		return;
	}
	if (!door_has_place(door, source, listener->is_relays)) {
		splice_close_with_reset(fd);
		return;
	}
	struct visitor *visitor = visitor_new(door, fd, &remote, source);
	visitor->is_at_relays = listener->is_relays;
	if (listener->port)
		visitor_enter_port(visitor, listener->port);
	else
		visitor_sniff(visitor); /* under load its first bytes are there already */
	if (visitor->state == SNIFFING && visitor_watch(visitor) < 0)
		visitor_turn_away_for_want(visitor);
	else if (visitor->state == SNIFFING && door->options.takes_header && !visitor->hello)
		visitor_may_be_silent(visitor);
}

int door_open_spare(void)
{
	return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void set_accepting(struct door_thread *door, bool is_accepting)
{
	for (uint32_t i = 0; i < door->options.n_listen; i++) {
		struct epoll_event event = { .events = is_accepting ? EPOLLIN : 0,
					     .data.ptr = &door->listeners[i].watch };
		(void)epoll_ctl(door->epoll_fd, EPOLL_CTL_MOD, door->listeners[i].fd, &event);
	}
	door_set_ports_accepting(door, is_accepting);
	door->accept_again_ms = is_accepting ? 0 : door->now_ms + RETRY_ACCEPT_MS;
}

/* Gives up the spare descriptor for as long as it takes to reset one. False: somebody else took it. */
static bool turn_one_away(struct door_thread *door, int listener)
{
	if (door->spare_fd >= 0) {
		close(door->spare_fd);
		const int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd >= 0) {
			door->counters.visitors++;
			door->counters.no_descriptors++;
			splice_close_with_reset(fd);
		}
	}
	door->spare_fd = door_open_spare();
	return door->spare_fd >= 0;
}

/*
 * Who comes alone is asked in by one call; that nobody else waits is not asked. Those who come in crowds are: who is
 * still there in the next turn was not alone, and then it is twice as many.
 */
static uint32_t count_to_ask_in(struct listener *listener)
{
	const bool is_crowd = listener->n_a_turn > 0 && listener->turn + 1 == listener->door->n_turns;
	const uint32_t n = is_crowd ? listener->n_a_turn * 2 : 1;

	listener->turn = listener->door->n_turns;
	listener->n_a_turn = n < ACCEPT_A_TURN ? n : ACCEPT_A_TURN;
	return listener->n_a_turn;
}

static void on_listener(struct watch *watch, uint32_t events)
{
	struct listener *listener = container_of(watch, struct listener, watch);
	struct door_thread *door = listener->door;
	const uint32_t n = count_to_ask_in(listener);

	for (uint32_t i = 0; i < n; i++) {
		struct sockaddr_storage address = { 0 };
		socklen_t len = sizeof(address);
		const int fd = accept4(listener->fd, (struct sockaddr *)&address, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd >= 0) {
			welcome(listener, fd, &address);
			continue;
		}
		if (errno == ECONNABORTED || errno == EINTR)
			continue;
		if (errno == EAGAIN) {
			listener->n_a_turn = i > 1 ? i : 1;
			return;
		}
		if ((errno == EMFILE || errno == ENFILE) && door->warm.n > 0) {
			door_close_warm(door); /* visitors need them more; this one is in the queue yet */
			continue;
		}
		/* What is short otherwise, as memory, is so for a while; who waits stays in the queue. */
		if ((errno != EMFILE && errno != ENFILE) || !turn_one_away(door, listener->fd)) {
			set_accepting(door, false);
			return;
		}
	}
}

void door_listener_init(struct listener *listener)
{
	listener->watch.happened = on_listener;
}

int door_open_listeners(struct door_thread *door, const int *listeners)
{
	int r = 0;

	for (uint32_t i = 0; i < door->options.n_listen && r == 0; i++) {
		door->listeners[i] = (struct listener){ .watch.happened = on_listener, .door = door,
							.fd = listeners[i],
							.is_relays = door->options.is_relays[i] };
		r = door_watch(door, listeners[i], &door->listeners[i].watch, EPOLLIN);
	}
	return r;
}

uint64_t door_retry_accept(struct door_thread *door)
{
	if (door->accept_again_ms != 0 && door->accept_again_ms <= door->now_ms) {
		if (door->spare_fd < 0)
			door->spare_fd = door_open_spare();
		set_accepting(door, true);
	}
	return door->accept_again_ms != 0 ? door->accept_again_ms : UINT64_MAX;
}
