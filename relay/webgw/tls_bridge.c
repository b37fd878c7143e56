#include "relay/webgw/tls_bridge.h"

#include "common/macros.h"
#include "relay/frontdoor/splice_pump.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_CAME  65536 /* then TLS is not read any more; what it has read already still comes */
#define KEEPALIVE_S 60
#define MAX_IN_A_ROW (256 * 1024) /* bytes of one visitor, then it is the others' turn */

static void on_plain(uv_poll_t *poll, int status, int events);

/* ---- the end ---- */

static void watch(struct tls_bridge *bridge, int events)
{
	if (bridge->fd < 0 || bridge->events == events)
		return;
	bridge->events = events;
	if (events != 0)
		(void)uv_poll_start(&bridge->poll, events, on_plain);
	else
		uv_poll_stop(&bridge->poll);
}

static void tell_over(struct tls_bridge *bridge, const struct error *why)
{
	if (bridge->is_over)
		return;
	bridge->is_over = true;
	watch(bridge, 0);
	bridge->ports.over(bridge->ports.owner, why);
}

static void on_broken(uv_timer_t *timer)
{
	struct tls_bridge *bridge = container_of(timer, struct tls_bridge, timer);
	struct error why;

	error_set(&why, bridge->broken, "%s", bridge->broken < 0 ? strerror(-bridge->broken) : "both sides are done");
	tell_over(bridge, &why);
}

/* From the loop: it may be known where nobody may close. */
static void end_soon(struct tls_bridge *bridge, int code)
{
	if (bridge->is_over || uv_is_active((uv_handle_t *)&bridge->timer))
		return;
	bridge->broken = code;
	(void)uv_timer_start(&bridge->timer, on_broken, 0, 0);
}

static void end_if_done(struct tls_bridge *bridge)
{
	if (bridge->has_shut_down && bridge->has_written_all)
		end_soon(bridge, 0);
}

/*
 * Behind the end of what it reads the plain socket is there to be written, and may be reset while nothing is. What is
 * polled for nothing is not polled; urgent data, of which there is none any more, stands for "errors only".
 */
static int for_a_reset(const struct tls_bridge *bridge)
{
	return bridge->has_read_all && !bridge->has_written_all ? UV_PRIORITIZED : 0;
}

/* What the socket met, or a reset: libuv says only that there was something. */
static void end_with_its_error(struct tls_bridge *bridge)
{
	int code = 0;
	socklen_t len = sizeof(code);

	if (getsockopt(bridge->fd, SOL_SOCKET, SO_ERROR, &code, &len) < 0 || code == 0)
		code = ECONNRESET;
	end_soon(bridge, -code);
}

/* ---- TLS → plain ---- */

static bool has_room(struct tls_bridge *bridge, size_t n)
{
	if (bridge->came_at > 0) {
		memmove(bridge->came, bridge->came + bridge->came_at, bridge->n_came);
		bridge->came_at = 0;
	}
	if (bridge->n_came + n <= bridge->came_size)
		return true;
	const size_t size = bridge->n_came + n;
	uint8_t *came = realloc(bridge->came, size);
	if (!came)
		return false;
	bridge->came = came;
	bridge->came_size = size;
	return true;
}

static void pause_if_full(struct tls_bridge *bridge)
{
	const bool is_full = bridge->is_raw || bridge->n_came >= (bridge->fd < 0 ? TLS_BRIDGE_EARLY : MAX_CAME);

	if (is_full != bridge->is_paused)
		tls_stream_pause(&bridge->stream, is_full);
	bridge->is_paused = is_full;
}

/* What waits, as far as the plain socket takes it. */
static void pass_on(struct tls_bridge *bridge)
{
	while (bridge->passes && bridge->n_came > 0) {
		const ssize_t n = send(bridge->fd, bridge->came + bridge->came_at, bridge->n_came, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			break;
		if (n < 0) {
			end_soon(bridge, -errno);
			return;
		}
		bridge->bytes_in += (uint64_t)n;
		bridge->came_at += (size_t)n;
		bridge->n_came -= (size_t)n;
	}
	if (!bridge->passes)
		return;
	if (bridge->n_came == 0) {
		free(bridge->came);
		bridge->came = NULL;
		bridge->came_at = bridge->came_size = 0;
	}
	if (bridge->n_came == 0 && bridge->has_heard_all && !bridge->has_written_all) {
		bridge->has_written_all = true;
		(void)shutdown(bridge->fd, SHUT_WR);
		end_if_done(bridge);
	}
	watch(bridge, (bridge->events & UV_READABLE) | (bridge->n_came > 0 ? UV_WRITABLE : 0) | for_a_reset(bridge));
	pause_if_full(bridge);
}

/* Without a copy, while nothing waits. Returns how much was taken; an error is met again by pass_on(). */
static size_t send_at_once(struct tls_bridge *bridge, const uint8_t *bytes, size_t n)
{
	if (!bridge->passes || bridge->n_came > 0)
		return 0;
	const ssize_t sent = send(bridge->fd, bytes, n, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (sent <= 0)
		return 0;
	bridge->bytes_in += (uint64_t)sent;
	return (size_t)sent;
}

static void on_received(void *owner, const uint8_t *bytes, size_t n)
{
	struct tls_bridge *bridge = owner;

	if (bridge->is_over || bridge->broken < 0)
		return;
	const size_t sent = send_at_once(bridge, bytes, n);
	if (sent == n)
		return;
	bytes += sent;
	n -= sent;
	if (!has_room(bridge, n)) {
		end_soon(bridge, -ENOMEM);
		return;
	}
	memcpy(bridge->came + bridge->n_came, bytes, n);
	bridge->n_came += n;
	if (bridge->passes) {
		pass_on(bridge);
		return;
	}
	pause_if_full(bridge);
	bridge->ports.came(bridge->ports.owner);
}

static void tell_if_parted(struct tls_bridge *bridge)
{
	if (bridge->has_parted && bridge->is_raw && !bridge->is_over && bridge->broken == 0)
		bridge->ports.parted(bridge->ports.owner);
}

/* What is behind TLS's end is kept, and the rest of it is the socket's. */
static void go_raw(struct tls_bridge *bridge)
{
	size_t n;
	const uint8_t *rest = tls_stream_rest(&bridge->stream, &n);

	if (!has_room(bridge, n)) {
		end_soon(bridge, -ENOMEM);
		return;
	}
	if (n > 0)
		memcpy(bridge->came, rest, n);
	bridge->n_came = n;
	bridge->is_raw = true;
	pause_if_full(bridge);
	tell_if_parted(bridge);
}

static void on_finished(void *owner)
{
	struct tls_bridge *bridge = owner;

	bridge->has_heard_all = true;
	if (bridge->parts && bridge->n_came == 0 && !bridge->is_over && bridge->broken == 0)
		go_raw(bridge);
	else if (bridge->passes)
		pass_on(bridge);
	else
		end_soon(bridge, -ECONNRESET); /* before it was anybody's */
}

/* ---- plain → TLS ---- */

static size_t take_first(struct tls_bridge *bridge, uint8_t *buf, size_t cap)
{
	const size_t left = bridge->n_first - bridge->first_at, n = left < cap ? left : cap;

	memcpy(buf, bridge->first + bridge->first_at, n);
	bridge->first_at += n;
	if (bridge->first_at == bridge->n_first) {
		free(bridge->first);
		bridge->first = NULL;
		bridge->n_first = bridge->first_at = 0;
	}
	return n;
}

static size_t on_produce(void *owner, uint8_t *buf, size_t cap)
{
	struct tls_bridge *bridge = owner;

	if (bridge->n_first > 0)
		return take_first(bridge, buf, cap);
	if (bridge->fd < 0 || bridge->has_read_all || bridge->broken < 0 || bridge->is_over)
		return 0;
	if (bridge->n_in_a_row >= MAX_IN_A_ROW) { /* polled, it is readable at once again, and begins anew: until then it may be asked */
		watch(bridge, bridge->events | UV_READABLE);
		return 0;
	}
	const ssize_t n = recv(bridge->fd, buf, cap, MSG_DONTWAIT);
	if (n > 0) {
		bridge->bytes_out += (uint64_t)n;
		bridge->n_in_a_row += (size_t)n;
		return (size_t)n;
	}
	if (n == 0) {
		bridge->has_read_all = true;
		watch(bridge, bridge->events | for_a_reset(bridge));
		tls_stream_shutdown(&bridge->stream);
	} else if (errno == EAGAIN || errno == EINTR) {
		watch(bridge, bridge->events | UV_READABLE);
	} else {
		end_soon(bridge, -errno);
	}
	return 0;
}

static void on_shut_down(void *owner)
{
	struct tls_bridge *bridge = owner;

	if (bridge->parts) {
		bridge->has_parted = true;
		tell_if_parted(bridge);
		return;
	}
	bridge->has_shut_down = true;
	end_if_done(bridge);
}

/* Read when TLS has room: until then the socket is not asked again. */
static void on_plain(uv_poll_t *poll, int status, int events)
{
	struct tls_bridge *bridge = container_of(poll, struct tls_bridge, poll);

	if (status < 0 || (events & UV_PRIORITIZED)) {
		watch(bridge, 0);
		end_with_its_error(bridge);
		return;
	}
	if (events & UV_READABLE) {
		bridge->n_in_a_row = 0;
		watch(bridge, bridge->events & ~UV_READABLE);
		tls_stream_wake(&bridge->stream);
	}
	if (events & UV_WRITABLE)
		pass_on(bridge);
}

/* ---- the owner's ---- */

bool tls_bridge_is_half_closed(const struct tls_bridge *bridge)
{
	return bridge->has_read_all != bridge->has_heard_all;
}

uint64_t tls_bridge_moved(const struct tls_bridge *bridge)
{
	return bridge->bytes_in + bridge->bytes_out;
}

const uint8_t *tls_bridge_came(const struct tls_bridge *bridge, size_t *ret_n)
{
	*ret_n = bridge->n_came;
	return bridge->came + bridge->came_at;
}

void tls_bridge_skip(struct tls_bridge *bridge, size_t n)
{
	assert(n <= bridge->n_came);
	bridge->came_at += n;
	bridge->n_came -= n;
	pause_if_full(bridge);
}

void tls_bridge_say(struct tls_bridge *bridge, const void *bytes, size_t n)
{
	uint8_t *first = realloc(bridge->first, bridge->n_first + n);

	if (!first)
		abort();
	memcpy(first + bridge->n_first, bytes, n);
	bridge->first = first;
	bridge->n_first += n;
	tls_stream_wake(&bridge->stream);
}

void tls_bridge_part(struct tls_bridge *bridge)
{
	assert(bridge->fd < 0);
	bridge->parts = true;
	tls_stream_part(&bridge->stream);
}

int tls_bridge_release(struct tls_bridge *bridge, uint8_t **ret_came, size_t *ret_n)
{
	assert(bridge->has_parted && bridge->is_raw);
	const int fd = tls_stream_release(&bridge->stream);

	if (fd < 0)
		return fd;
	bridge->is_released = true;
	*ret_n = bridge->n_came;
	*ret_came = bridge->n_came > 0 ? bridge->came : NULL;
	if (bridge->n_came == 0)
		free(bridge->came);
	bridge->came = NULL;
	bridge->n_came = bridge->came_size = 0;
	return fd;
}

int tls_bridge_join(struct tls_bridge *bridge, int fd_take)
{
	assert(bridge->fd < 0 && !bridge->parts);
	const int r = uv_poll_init(tls_host_loop(bridge->stream.host), &bridge->poll, fd_take);
	if (r < 0) {
		close(fd_take);
		return r;
	}
	bridge->fd = fd_take;
	bridge->events = 0;
	bridge->n_open++;
	tls_stream_wake(&bridge->stream);
	return 0;
}

void tls_bridge_put_before(struct tls_bridge *bridge, const void *bytes, size_t n)
{
	assert(!bridge->passes);
	if (n == 0)
		return;
	if (!has_room(bridge, n))
		abort();
	memmove(bridge->came + n, bridge->came, bridge->n_came);
	memcpy(bridge->came, bytes, n);
	bridge->n_came += n;
}

void tls_bridge_pass(struct tls_bridge *bridge)
{
	bridge->passes = true;
	pass_on(bridge);
}

/* ---- beginning and end ---- */

static void on_ready(void *owner)
{
	struct tls_bridge *bridge = owner;

	bridge->is_ready = true;
	(void)uv_tcp_keepalive(&bridge->stream.tcp, 1, KEEPALIVE_S);
	bridge->ports.ready(bridge->ports.owner);
}

static void on_ended(void *owner, const struct error *why)
{
	struct tls_bridge *bridge = owner;

	if (bridge->broken == 0)
		bridge->broken = why->code < 0 ? why->code : -ECONNRESET;
	tell_over(bridge, why);
}

static struct tls_stream_ports stream_ports(struct tls_bridge *bridge)
{
	return (struct tls_stream_ports){ .owner = bridge,
					  .ready = on_ready,
					  .received = on_received,
					  .produce = on_produce,
					  .ended = on_ended,
					  .finished = on_finished,
					  .shut_down = on_shut_down };
}

static void begin(struct tls_bridge *bridge, const struct tls_bridge_ports *ports)
{
	*bridge = (struct tls_bridge){ .ports = *ports, .fd = -1, .n_open = 2 };
}

/* A stream tells nothing before the loop turns. */
static int start_timer(struct tls_bridge *bridge, struct tls_host *host, int r)
{
	if (r == 0)
		(void)uv_timer_init(tls_host_loop(host), &bridge->timer);
	return r;
}

static void on_timer_closed(uv_handle_t *handle)
{
	struct tls_bridge *bridge = container_of((uv_timer_t *)handle, struct tls_bridge, timer);

	if (--bridge->n_open == 0)
		bridge->closed(bridge->ports.owner);
}

static void on_poll_closed(uv_handle_t *handle)
{
	struct tls_bridge *bridge = container_of((uv_poll_t *)handle, struct tls_bridge, poll);

	if (--bridge->n_open == 0)
		bridge->closed(bridge->ports.owner);
}

static void on_stream_closed(void *owner)
{
	struct tls_bridge *bridge = owner;

	if (--bridge->n_open == 0)
		bridge->closed(bridge->ports.owner);
}

int tls_bridge_open_server(struct tls_bridge *bridge, struct tls_host *host, SSL_CTX *context, int fd,
			   const struct tls_bridge_ports *ports)
{
	begin(bridge, ports);
	const struct tls_stream_ports own = stream_ports(bridge);
	return start_timer(bridge, host, tls_stream_open_server(&bridge->stream, host, context, fd, 0, &own));
}

int tls_bridge_open_client(struct tls_bridge *bridge, struct tls_host *host, SSL_CTX *context,
			   const struct endpoint *remote, const char *server_name, uint64_t timeout_ms,
			   const struct tls_bridge_ports *ports)
{
	begin(bridge, ports);
	const struct tls_stream_ports own = stream_ports(bridge);
	return start_timer(bridge, host, tls_stream_open_client(&bridge->stream, host, context, remote, server_name,
								timeout_ms, &own));
}

/* Without TLS, to whom it may be so already, a mere end would be taken for the whole. */
static void reset_if_parting(const struct tls_bridge *bridge)
{
	const struct linger linger = { .l_onoff = 1 };
	uv_os_fd_t fd;

	if (bridge->parts && !bridge->is_released && uv_fileno((const uv_handle_t *)&bridge->stream.tcp, &fd) == 0)
		(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
}

void tls_bridge_close(struct tls_bridge *bridge, void (*closed)(void *owner))
{
	reset_if_parting(bridge);
	bridge->closed = closed;
	bridge->is_over = true;
	free(bridge->came);
	free(bridge->first);
	bridge->came = bridge->first = NULL;
	if (bridge->fd >= 0) {
		uv_close((uv_handle_t *)&bridge->poll, on_poll_closed);
		if (bridge->broken < 0 || !bridge->has_written_all || !bridge->has_read_all)
			splice_close_with_reset(bridge->fd);
		else
			close(bridge->fd);
		bridge->fd = -1;
	}
	uv_close((uv_handle_t *)&bridge->timer, on_timer_closed);
	tls_stream_close(&bridge->stream, on_stream_closed);
}
