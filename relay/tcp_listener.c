#include "relay/tcp_listener.h"

#include "common/macros.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKLOG		1024
#define ACCEPT_A_TURN	64
#define RETRY_MS	100

static void on_readable(uv_poll_t *poll, int status, int events);

static int open_spare(void)
{
	return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void on_retry(uv_timer_t *timer)
{
	struct tcp_listener *listener = container_of(timer, struct tcp_listener, retry);

	if (listener->spare < 0)
		listener->spare = open_spare();
	uv_poll_start(&listener->poll, UV_READABLE, on_readable);
}

/* Gives up the spare descriptor for as long as it takes to turn one connection away. */
static void turn_one_away(struct tcp_listener *listener)
{
	if (listener->spare >= 0) {
		close(listener->spare);
		int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC);
		if (fd >= 0) {
			listener->n_refused++;
			close(fd);
		}
		listener->spare = open_spare();
	}
	if (listener->spare >= 0)
		return;
	/* Somebody else took it: look again in a while instead of spinning. */
	uv_poll_stop(&listener->poll);
	uv_timer_start(&listener->retry, on_retry, RETRY_MS, 0);
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
	struct tcp_listener *listener = container_of(poll, struct tcp_listener, poll);

	(void)status;
	(void)events;
	for (int i = 0; i < ACCEPT_A_TURN; i++) {
		struct sockaddr_storage address = { 0 };
		socklen_t len = sizeof(address);
		int fd = accept4(listener->fd, (struct sockaddr *)&address, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd < 0 && (errno == EMFILE || errno == ENFILE)) {
			turn_one_away(listener);
			return;
		}
		if (fd < 0 && errno != ECONNABORTED && errno != EINTR)
			return; /* EAGAIN: no more; anything else concerns one connection that is gone */
		if (fd < 0)
			continue;
		struct endpoint remote = endpoint_from_sockaddr((struct sockaddr *)&address);
		listener->ports.accepted(listener->ports.owner, fd, &remote);
	}
}

static int listen_on(const struct endpoint *address, int *ret)
{
	struct sockaddr_storage sockaddr;
	socklen_t len = endpoint_to_sockaddr(address, &sockaddr);
	int one = 1, zero = 0;

	int fd = socket(sockaddr.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
	    (sockaddr.ss_family == AF_INET6 &&
	     setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero)) < 0) ||
	    bind(fd, (struct sockaddr *)&sockaddr, len) < 0 || listen(fd, BACKLOG) < 0) {
		int r = -errno;
		close(fd);
		return r;
	}
	*ret = fd;
	return 0;
}

static const char *hint(int r)
{
	switch (r) {
	case -EADDRINUSE:
		return " (another program has this port)";
	case -EACCES:
		return " (ports below 1024 need root or CAP_NET_BIND_SERVICE)";
	case -EADDRNOTAVAIL:
		return " (this machine does not have this address)";
	default:
		return "";
	}
}

int tcp_listen(const struct endpoint *address, const struct listen_sockets *sockets, int *ret, struct error *reterr)
{
	*ret = listen_sockets_take(sockets, SOCK_STREAM, address);
	int r = *ret >= 0 ? 0 : listen_on(address, ret);

	return r == 0 ? 0
		      : error_set(reterr, r, "cannot listen on TCP %s: %s%s", endpoint_text(address).s, strerror(-r),
				  hint(r));
}

int tcp_listener_adopt(struct tcp_listener *listener, uv_loop_t *loop, int fd_take,
		       const struct tcp_listener_ports *ports)
{
	*listener = (struct tcp_listener){ .ports = *ports, .fd = fd_take, .spare = open_spare() };

	const int r = uv_poll_init(loop, &listener->poll, listener->fd);
	if (r < 0) {
		close(listener->fd);
		if (listener->spare >= 0)
			close(listener->spare);
		return r;
	}
	uv_timer_init(loop, &listener->retry);
	listener->poll.data = listener->retry.data = listener;
	listener->n_open = 2;
	uv_poll_start(&listener->poll, UV_READABLE, on_readable);
	return 0;
}

int tcp_listener_open(struct tcp_listener *listener, uv_loop_t *loop, const struct endpoint *address,
		      const struct listen_sockets *sockets, const struct tcp_listener_ports *ports,
		      struct error *reterr)
{
	int fd = -1, r = tcp_listen(address, sockets, &fd, reterr);

	if (r < 0)
		return r;
	r = tcp_listener_adopt(listener, loop, fd, ports);
	return r == 0 ? 0
		      : error_set(reterr, r, "cannot watch TCP %s: %s", endpoint_text(address).s, uv_strerror(r));
}

uint16_t tcp_listener_port(const struct tcp_listener *listener)
{
	struct sockaddr_storage address = { 0 };
	socklen_t len = sizeof(address);

	if (getsockname(listener->fd, (struct sockaddr *)&address, &len) < 0)
		return 0;
	return endpoint_from_sockaddr((struct sockaddr *)&address).port;
}

static void on_closed(uv_handle_t *handle)
{
	struct tcp_listener *listener = handle->data;

	if (--listener->n_open > 0)
		return;
	close(listener->fd);
	if (listener->spare >= 0)
		close(listener->spare);
	if (listener->closed)
		listener->closed(listener->ports.owner); /* listener may be gone now */
}

void tcp_listener_close(struct tcp_listener *listener, void (*closed)(void *owner))
{
	listener->closed = closed;
	uv_close((uv_handle_t *)&listener->poll, on_closed);
	uv_close((uv_handle_t *)&listener->retry, on_closed);
}
