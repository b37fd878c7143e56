/* From the first bytes to the target. Who is there already, as on this machine, gets them at once. */
#include "relay/frontdoor/door_thread_internal.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define WEBGW_SEND_BUFFER (16 * 1024) /* as at webgw's own port: an agent that does not read what it is told is noticed */

void visitor_hand_to_pump(struct visitor *visitor, const struct pump_end *target)
{
	/* Who is not watched yet is asked by being watched; who is may have had its edge before. */
	const struct pump_end own = { .is_readable = visitor->is_watched,
				      .is_writable = true,
				      .is_broken = visitor->pair.ends[0].state.is_broken };

	if (visitor_watch(visitor) < 0) {
		visitor_turn_away_for_want(visitor);
		return;
	}
	visitor->pair.ends[0].state = own;
	visitor->pair.ends[1].state = *target;
	visitor_begin_pump(visitor);
}

static void on_reached(struct visitor *visitor, const struct pump_end *target)
{
	if (visitor->gate && !visitor->is_at_sink)
		door_gate_reached(visitor->gate);
	if (!visitor_await_answer(visitor))
		visitor_hand_to_pump(visitor, target);
}

static void on_unreachable(struct visitor *visitor, int error)
{
	if (!visitor_try_another(visitor))
		visitor_not_reached(visitor, error);
}

void visitor_not_reached(struct visitor *visitor, int error)
{
	struct door_thread *door = visitor->door;

	if (visitor->is_webgws) { /* which has no room for it: it is counted as given already */
		visitor_turn_away(visitor);
		return;
	}
	door->counters.unreachable++;
	if (visitor->gate && !visitor->is_at_sink)
		door_gate_not_reached(visitor->gate);
	log_limited(&door->targets_log_limit, LOG_LEVEL_WARNING, "frontdoor", "target not reached: %s at %s: %s", visitor->host,
		    visitor->is_at_sink ? "this node" : endpoint_text(&visitor->target).s, strerror(error));
	visitor_turn_away(visitor);
}

void visitor_on_target(struct watch *watch, uint32_t events)
{
	struct splice_end *end = container_of(watch, struct splice_end, watch);
	struct visitor *visitor = container_of(end, struct visitor, pair.ends[1]);
	int error = 0;
	socklen_t len = sizeof(error);

	if (visitor->state != CONNECTING && visitor->state != ANSWERING)
		return;
	splice_end_note(end, events);
	if (visitor->state == ANSWERING) {
		visitor_on_answer(visitor, events);
		return;
	}
	if (events & (EPOLLERR | EPOLLHUP)) {
		(void)getsockopt(end->fd, SOL_SOCKET, SO_ERROR, &error, &len);
		on_unreachable(visitor, error);
	} else if (events & EPOLLOUT) {
		const struct pump_end state = { .is_readable = events & EPOLLIN, .is_writable = true };
		on_reached(visitor, &state);
	}
}

/*
 * TCP_DEFER_ACCEPT, of one who connects: its last segment of the handshake waits for what is sent with it, which is at
 * once. The target is woken one time instead of two. has_first: there is something to send.
 */
static int open_target(struct visitor *visitor, const struct endpoint *target, bool has_first)
{
	struct splice_end *end = &visitor->pair.ends[1];
	struct sockaddr_storage address;
	const socklen_t len = endpoint_to_sockaddr(target, &address);
	const int one_s = 1;

	if (visitor->warm != NOT_WARM)
		return 0;
	end->watch.happened = visitor_on_target;
	end->fd = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (end->fd < 0)
		return -errno;
	if (has_first)
		(void)setsockopt(end->fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &one_s, sizeof(one_s));
	if (connect(end->fd, (const struct sockaddr *)&address, len) < 0 && errno != EINPROGRESS)
		return -errno;
	return 0;
}

static size_t count_bytes(const struct iovec *pieces, size_t n_pieces)
{
	size_t n = 0;

	for (size_t i = 0; i < n_pieces; i++)
		n += pieces[i].iov_len;
	return n;
}

/* What is behind the first `at` bytes of the pieces waits in the pair. Returns how much. */
static size_t keep_rest(struct visitor *visitor, const struct iovec *pieces, size_t n_pieces, size_t at)
{
	const size_t n = count_bytes(pieces, n_pieces) - at;
	uint8_t *rest, *to;

	if (n == 0)
		return 0;
	rest = to = malloc(n);
	if (!rest)
		abort();
	for (size_t i = 0; i < n_pieces; i++) {
		const size_t gone = at < pieces[i].iov_len ? at : pieces[i].iov_len;
		memcpy(to, (const uint8_t *)pieces[i].iov_base + gone, pieces[i].iov_len - gone);
		to += pieces[i].iov_len - gone;
		at -= gone;
	}
	splice_pair_set_head_take(&visitor->pair, rest, n);
	return n;
}

/* What was warm is watched already, but for room. */
static int watch_target(struct visitor *visitor)
{
	struct splice_end *end = &visitor->pair.ends[1];
	struct epoll_event event = { .events = end->is_watched_for_room ? SPLICE_EVENTS_OF_FULL : SPLICE_EVENTS,
				     .data.ptr = &end->watch };

	if (visitor->warm == NOT_WARM)
		return door_watch(visitor->door, end->fd, &end->watch, event.events);
	if (!end->is_watched_for_room)
		return 0;
	return epoll_ctl(visitor->door->epoll_fd, EPOLL_CTL_MOD, end->fd, &event) < 0 ? -errno : 0;
}

/*
 * The target may be there already, for it is near, or was warm: then the pieces go to it at once, in one segment, and nothing of them
 * is kept. Else they wait in the pair.
 */
static void send_first(struct visitor *visitor, const struct iovec *pieces, size_t n_pieces)
{
	const struct msghdr message = { .msg_iov = (struct iovec *)pieces, .msg_iovlen = n_pieces };
	struct splice_end *end = &visitor->pair.ends[1];
	const ssize_t sent = sendmsg(end->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
	const size_t at = sent > 0 ? (size_t)sent : 0;

	visitor->door->counters.bytes_in += at;
	if (sent > 0 && visitor->warm != NOT_WARM)
		visitor->warm = WARM_TOLD;
	if (visitor->gate)
		door_gate_moved(visitor->gate, at, 0);
	if (sent < 0 && errno != EAGAIN) {
		on_unreachable(visitor, errno);
		return;
	}
	const size_t n_kept = keep_rest(visitor, pieces, n_pieces, at);
	visitor_free_hello(visitor); /* the pieces may have been in there */
	visitor_set_kept(visitor, n_kept + visitor_attempt_size(visitor));
	end->is_watched_for_room = sent <= 0 || n_kept > 0; /* also that it is there, if there is nothing to send yet */
	/* It has the bytes before it is watched: they are what takes time. */
	if (watch_target(visitor) < 0) {
		visitor_turn_away_for_want(visitor);
	} else if (sent > 0) {
		const struct pump_end state = { .is_writable = true };
		on_reached(visitor, &state);
	} else if (visitor_watch(visitor) < 0) {
		visitor_turn_away_for_want(visitor);
	} else {
		visitor_place(visitor, CONNECTING,
			      visitor->attempt ? &visitor->door->trying : &visitor->door->connecting);
	}
}

/* Of this machine: descriptors, memory, ports to that target. It tells nothing of the target. */
static bool is_want(int error)
{
	return error == EMFILE || error == ENFILE || error == ENOSPC || error == ENOBUFS || error == ENOMEM ||
	       error == EADDRNOTAVAIL;
}

void visitor_connect(struct visitor *visitor, const struct door_route *route, const struct endpoint *target,
		     const struct sniffed *found, const struct endpoint *destination, const uint8_t *bytes, size_t n)
{
	uint8_t header[DOOR_HEADER_MAX];
	struct iovec pieces[] = { { .iov_base = header }, { .iov_base = (void *)bytes, .iov_len = n } };
	const bool has_header = route->header != DOOR_NO_HEADER;
	visitor->target = *target;
	int r = open_target(visitor, target, has_header || n > 0);

	if (is_want(-r))
		visitor_turn_away_for_want(visitor);
	else if (r < 0)
		on_unreachable(visitor, -r);
	if (r < 0)
		return;
	if (has_header)
		pieces[0].iov_len = visitor_write_header(visitor, route->header, found, destination, header);
	send_first(visitor, has_header ? pieces : pieces + 1, has_header ? 2 : 1);
}

/* Its target is one end of a pair of sockets: its bytes come out of the other, which is somebody's in this process. */
static int open_pair(struct visitor *visitor, int fds[2])
{
	struct splice_end *end = &visitor->pair.ends[1];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) < 0)
		return -errno;
	end->watch.happened = visitor_on_target;
	end->fd = fds[0];
	end->is_prompt = true;
	visitor->ends_here = true;
	return 0;
}

/* The sink has the other. */
static int open_sink(struct visitor *visitor, const struct door_route *route, const struct sniffed *found,
		     const struct endpoint *destination)
{
	const struct door_guest guest = { .source = visitor->remote,
					  .destination = destination ? *destination : visitor_own_end(visitor),
					  .host = found->host,
					  .is_https = found->protocol == SNIFFER_TLS,
					  .n_doors = (uint8_t)(visitor->n_doors + 1),
					  .gate = visitor->gate };
	int fds[2];
	const int r = open_pair(visitor, fds);

	if (r < 0)
		return r;
	visitor->is_at_sink = true;
	return route->sink->take(route->sink, fds[1], &guest) ? 0 : -EBUSY;
}

void visitor_enter_webgw(struct visitor *visitor, const uint8_t *bytes, size_t n)
{
	static const int size = WEBGW_SEND_BUFFER;
	const struct iovec piece = { .iov_base = (void *)bytes, .iov_len = n };
	int fds[2];

	if (open_pair(visitor, fds) < 0) {
		visitor_turn_away_for_want(visitor);
		return;
	}
	if (!visitor_hand_over(visitor, DOOR_WHOSE_WEBGW, fds[1], NULL, 0)) {
		close(fds[1]);
		visitor_turn_away(visitor);
		return;
	}
	visitor->is_webgws = true;
	(void)setsockopt(visitor->pair.ends[0].fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	send_first(visitor, &piece, 1);
}

static void begin_at_sink(struct visitor *visitor, const struct door_route *route, const struct sniffed *found,
			  const struct endpoint *destination, const uint8_t *bytes, size_t n)
{
	const struct iovec piece = { .iov_base = (void *)bytes, .iov_len = n };
	const int r = open_sink(visitor, route, found, destination);

	if (r == -EBUSY) {
		visitor->door->counters.over_limit++;
		visitor_turn_away(visitor);
	} else if (r < 0) {
		visitor_turn_away_for_want(visitor);
	} else {
		visitor->door->counters.routed[found->protocol]++;
		send_first(visitor, &piece, 1);
	}
}

void visitor_let_in(struct visitor *visitor, const struct sniffed *found, const struct endpoint *destination,
		    const uint8_t *bytes, size_t n)
{
	struct door_thread *door = visitor->door;
	const struct door_route *route =
		door->routes ? door_routes_find(door->routes, found->protocol, &found->host) : NULL;

	if (!route || (endpoint_is_none(&route->target) && !route->is_dial_back)) {
		door->counters.unknown_host += !route;
		door->counters.nobody_there += route != NULL;
		log_limited(&door->log_limit, LOG_LEVEL_INFO, "frontdoor", "%s %s for %s: refused",
			    route ? "nobody is there:" : "unknown host:", found->host.text,
			    endpoint_ip_text(&visitor->remote).s);
		visitor_turn_away(visitor);
		return;
	}
	if (destination && door_routes_lead_back(door->routes, destination, route)) {
		visitor_refuse_ring(visitor, &found->host); /* it would be led here again */
		return;
	}
	if (!visitor_pass_gate(visitor, route)) {
		visitor_turn_away(visitor);
		return;
	}
	visitor_note_host(visitor, found);
	if (route->is_dial_back)
		visitor_wait_for_agent(visitor, found, bytes, n);
	else if (route->sink && visitor->gate)
		begin_at_sink(visitor, route, found, destination, bytes, n);
	else {
		door->counters.routed[found->protocol]++;
		if (route->n_places > 0)
			visitor_choose_place(visitor, route, found, bytes, n);
		else
			visitor_connect(visitor, route, &route->target, found, destination, bytes, n);
	}
}
