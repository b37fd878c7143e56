/*
 * The socket of one stream: of a visitor at the server, of the local target at the agent.
 *
 *   socket ── when it is its turn ──► fetch ──► frames
 *   socket ◄── at once, or when it takes more ── chunks ◄── frames
 *
 * An end passes as an end, a reset as a reset.
 */
#include "relay/diglett/tunnel_internal.h"

#include "common/macros.h"

#include <errno.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHUNK_MIN    4096 /* so that many small frames take no more memory than a few */
#define CONNECT_SYNS 3	  /* some 15 s */

struct chunk {
	struct chunk *next;
	size_t at, len, size;
	uint8_t bytes[];
};

struct visitor {
	struct mux_stream stream;
	struct tunnel *tunnel;
	uv_poll_t poll;
	int fd, events, watched;
	uint32_t unacknowledged; /* what the socket had of us at the last look; 0: it was given more since then */
	bool is_urgent; /* it has sent something out of band */
	bool is_connecting, has_shut_down, is_closing;
	struct chunk *first, *last; /* for the socket */
};

static void on_event(uv_poll_t *poll, int status, int events);

static void watch(struct visitor *visitor, int events)
{
	/* Of who is neither to be read nor written it is still to be seen that it is gone. */
	const int watched = events == 0 && !visitor->is_urgent ? UV_PRIORITIZED : events;

	visitor->events = events;
	if (visitor->watched == watched || visitor->is_closing)
		return;
	visitor->watched = watched;
	if (watched == 0)
		uv_poll_stop(&visitor->poll);
	else
		uv_poll_start(&visitor->poll, watched, on_event);
}

/* its end */

static void on_closed(uv_handle_t *handle)
{
	struct visitor *visitor = handle->data;
	struct tunnel *const tunnel = visitor->tunnel;

	close(visitor->fd);
	for (struct chunk *chunk = visitor->first; chunk;) {
		struct chunk *const next = chunk->next;
		free(chunk);
		chunk = next;
	}
	free(visitor);
	tunnel->counters.visitors_now--;
	tunnel_release(tunnel);
}

static void reset_socket(int fd)
{
	const struct linger now = { .l_onoff = 1, .l_linger = 0 };

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
}

void visitor_close(struct visitor *visitor, uint8_t reason)
{
	if (visitor->is_closing)
		return;
	if (!mux_fsm_is_over(&visitor->stream))
		reset_socket(visitor->fd);
	visitor->is_closing = true;
	mux_fsm_close(&visitor->tunnel->mux, &visitor->stream, reason);
	uv_close((uv_handle_t *)&visitor->poll, on_closed);
	tunnel_wake(visitor->tunnel);
}

void visitor_close_if_over(struct visitor *visitor)
{
	if (!visitor->is_closing && mux_fsm_is_over(&visitor->stream))
		visitor_close(visitor, MUX_CLOSED);
}

/* to the socket */

/* How many it took; -1: it is gone, and closed. */
static ssize_t give(struct visitor *visitor, const uint8_t *bytes, size_t len)
{
	ssize_t n;

	do
		n = send(visitor->fd, bytes, len, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno == EAGAIN)
		n = 0;
	if (n < 0)
		visitor_close(visitor, MUX_CLOSED);
	if (n <= 0)
		return n;
	visitor->unacknowledged = 0;
	mux_fsm_consumed(&visitor->tunnel->mux, &visitor->stream, (size_t)n, tunnel_now_us());
	return n;
}

void visitor_close_if_silent(struct visitor *visitor)
{
	const uint32_t before = visitor->unacknowledged;
	int n = 0;

	if (ioctl(visitor->fd, SIOCOUTQ, &n) < 0 || n < 0)
		n = 0;
	visitor->unacknowledged = (uint32_t)n;
	if (n == 0 || (before != 0 && (uint32_t)n >= before))
		visitor_close(visitor, MUX_IDLE);
	else
		mux_fsm_moved(&visitor->stream, tunnel_now_us());
}

/* All was given: is this the end? */
static void finish(struct visitor *visitor)
{
	watch(visitor, visitor->events & ~UV_WRITABLE);
	if (!visitor->stream.other_has_ended)
		return;
	if (!visitor->has_shut_down)
		shutdown(visitor->fd, SHUT_WR);
	visitor->has_shut_down = true;
	visitor_close_if_over(visitor);
}

static void give_chunks(struct visitor *visitor)
{
	while (visitor->first) {
		struct chunk *chunk = visitor->first;
		const ssize_t n = give(visitor, chunk->bytes + chunk->at, chunk->len - chunk->at);
		if (n < 0)
			return;
		chunk->at += (size_t)n;
		if (chunk->at < chunk->len) {
			watch(visitor, visitor->events | UV_WRITABLE);
			return;
		}
		visitor->first = chunk->next;
		visitor->last = visitor->first ? visitor->last : NULL;
		free(chunk);
	}
	finish(visitor);
}

static void keep(struct visitor *visitor, const uint8_t *bytes, size_t len)
{
	struct chunk *last = visitor->last;
	const size_t fits = last ? last->size - last->len : 0;
	const size_t n = len < fits ? len : fits;

	if (n > 0) {
		memcpy(last->bytes + last->len, bytes, n);
		last->len += n;
	}
	if (len == n)
		return;
	const size_t size = len - n > CHUNK_MIN ? len - n : CHUNK_MIN;
	struct chunk *chunk = malloc(sizeof(*chunk) + size);
	if (!chunk)
		abort();
	*chunk = (struct chunk){ .len = len - n, .size = size };
	memcpy(chunk->bytes, bytes + n, len - n);
	if (last)
		last->next = chunk;
	else
		visitor->first = chunk;
	visitor->last = chunk;
}

void visitor_take(struct visitor *visitor, const uint8_t *bytes, size_t len)
{
	ssize_t n = 0;

	if (!visitor->first && !visitor->is_connecting)
		n = give(visitor, bytes, len);
	if (n < 0 || (size_t)n == len)
		return;
	keep(visitor, bytes + n, len - (size_t)n);
	watch(visitor, visitor->events | UV_WRITABLE);
}

void visitor_end(struct visitor *visitor)
{
	if (!visitor->first && !visitor->is_connecting)
		finish(visitor);
}

/* from the socket */

ssize_t visitor_fetch(struct visitor *visitor, uint8_t *ret, size_t max, enum mux_source *ret_source)
{
	ssize_t n;

	do
		n = recv(visitor->fd, ret, max, 0);
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno != EAGAIN) {
		visitor_close(visitor, MUX_CLOSED);
		return -1;
	}
	*ret_source = n == 0 ? MUX_AT_END : n == (ssize_t)max ? MUX_HAS_MORE : MUX_DRAINED;
	if (*ret_source == MUX_DRAINED)
		watch(visitor, visitor->events | UV_READABLE);
	return n < 0 ? 0 : n;
}

static bool is_broken(const struct visitor *visitor)
{
	int error = 0;
	socklen_t len = sizeof(error);

	return getsockopt(visitor->fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0 || error != 0;
}

/* False: it is gone, and closed. */
static bool finish_connect(struct visitor *visitor)
{
	if (is_broken(visitor)) {
		visitor_close(visitor, MUX_UNREACHABLE);
		return false;
	}
	visitor->is_connecting = false;
	return true;
}

static void on_event(uv_poll_t *poll, int status, int events)
{
	struct visitor *visitor = poll->data;

	if (visitor->is_connecting && !finish_connect(visitor))
		return;
	if (status < 0 || (events & UV_PRIORITIZED && is_broken(visitor))) { /* broken: nobody reads what is still to come */
		visitor_close(visitor, MUX_CLOSED);
		return;
	}
	if (events & UV_PRIORITIZED) { /* it would be told of again and again */
		visitor->is_urgent = true;
		watch(visitor, visitor->events);
	}
	if (events & UV_READABLE) {
		watch(visitor, visitor->events & ~UV_READABLE);
		mux_fsm_readable(&visitor->tunnel->mux, &visitor->stream);
	}
	if (events & UV_WRITABLE) {
		watch(visitor, (visitor->events & ~UV_WRITABLE) | (visitor->stream.is_readable ? 0 : UV_READABLE));
		give_chunks(visitor);
	}
	tunnel_wake(visitor->tunnel);
}

/* its begin */

static void set_options(int fd)
{
	const int one = 1, idle_s = 60, syns = CONNECT_SYNS;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
	setsockopt(fd, IPPROTO_TCP, TCP_SYNCNT, &syns, sizeof(syns));
}

/* NULL: no memory; fd is closed then. */
static struct visitor *new_visitor(struct tunnel *tunnel, int fd)
{
	struct visitor *visitor = calloc(1, sizeof(*visitor));

	if (!visitor || uv_poll_init(tunnel->loop, &visitor->poll, fd) < 0) {
		close(fd);
		free(visitor);
		return NULL;
	}
	set_options(fd);
	visitor->tunnel = tunnel;
	visitor->fd = fd;
	visitor->poll.data = visitor->stream.owner = visitor;
	tunnel->n_open++;
	tunnel->counters.visitors_now++;
	return visitor;
}

void visitor_open(struct tunnel *tunnel, int fd, uint16_t port, const struct endpoint *remote)
{
	struct visitor *visitor = tunnel->state == TUNNEL_OPEN ? new_visitor(tunnel, fd) : NULL;

	if (tunnel->state != TUNNEL_OPEN) {
		reset_socket(fd);
		close(fd);
	} else if (visitor && !mux_fsm_open(&tunnel->mux, &visitor->stream, port, remote, tunnel_now_us())) {
		reset_socket(fd);
		visitor->is_closing = true;
		uv_close((uv_handle_t *)&visitor->poll, on_closed);
	} else if (visitor) {
		watch(visitor, UV_READABLE);
		tunnel_wake(tunnel);
	}
}

/* The agent's: a connection to the target begins. -1: none. */
static int connect_to_target(struct tunnel *tunnel, uint16_t port)
{
	struct sockaddr_storage address;
	struct endpoint target;

	if (!tunnel->ports.find_target || !tunnel->ports.find_target(tunnel->ports.owner, port, &target))
		return -1;
	const socklen_t len = endpoint_to_sockaddr(&target, &address);
	int fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&address, len) < 0 && errno != EINPROGRESS) {
		close(fd);
		return -1;
	}
	return fd;
}

void visitor_answer_offer(struct tunnel *tunnel)
{
	const int fd = connect_to_target(tunnel, tunnel->mux.offer.open.port);
	struct visitor *visitor = fd < 0 ? NULL : new_visitor(tunnel, fd);

	if (!visitor) {
		mux_fsm_refuse(&tunnel->mux, MUX_UNREACHABLE);
		return;
	}
	visitor->is_connecting = true;
	mux_fsm_accept(&tunnel->mux, &visitor->stream, tunnel_now_us());
	watch(visitor, UV_WRITABLE);
}
