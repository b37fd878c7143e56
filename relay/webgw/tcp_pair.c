#include "relay/webgw/tcp_pair.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_STRANGERS 16 /* asked in for one pair, before it is given up */
#define PATIENCE_MS   10 /* over the loopback the end is there at once, unless the kernel puts its work off */
#define MAX_WAITS     2

static int open_listener(struct tcp_pair_maker *maker)
{
	const struct sockaddr_in any = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	if (bind(fd, (const struct sockaddr *)&any, sizeof(any)) < 0 || listen(fd, MAX_STRANGERS) < 0) {
		const int r = -errno;
		close(fd);
		return r;
	}
	maker->listener = fd;
	return 0;
}

static bool is_end_of(int fd, const struct sockaddr_in *address)
{
	struct sockaddr_in own = { 0 };
	socklen_t len = sizeof(own);

	return getsockname(fd, (struct sockaddr *)&own, &len) == 0 && own.sin_port == address->sin_port &&
	       own.sin_addr.s_addr == address->sin_addr.s_addr;
}

/* The next one, whoever it is. max_waits: how often the caller's thread may stand still for it. */
static int accept_next(const struct tcp_pair_maker *maker, int max_waits, struct sockaddr_in *ret_remote)
{
	struct pollfd polled = { .fd = maker->listener, .events = POLLIN };
	int n_waits = 0;

	for (;;) {
		socklen_t len = sizeof(*ret_remote);
		const int end = accept4(maker->listener, (struct sockaddr *)ret_remote, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (end >= 0)
			return end;
		if (errno == EAGAIN && n_waits++ < max_waits)
			(void)poll(&polled, 1, PATIENCE_MS);
		else if (errno != EINTR && errno != ECONNABORTED)
			return -errno;
	}
}

/*
 * The other end of fd. It is not waited for where strangers were: they may have filled the queue, and the end is not in it.
 * -EAGAIN: so it was, or it did not come.
 */
static int accept_end(const struct tcp_pair_maker *maker, int fd)
{
	for (int i = 0; i <= MAX_STRANGERS; i++) { /* as many as are in the queue before it */
		struct sockaddr_in remote = { 0 };
		const int end = accept_next(maker, i == 0 ? MAX_WAITS : 0, &remote);
		if (end < 0 || is_end_of(fd, &remote))
			return end;
		close(end);
	}
	return -EAGAIN;
}

static int connect_end(const struct tcp_pair_maker *maker, int fd)
{
	struct sockaddr_in address = { 0 };
	socklen_t len = sizeof(address);

	if (getsockname(maker->listener, (struct sockaddr *)&address, &len) < 0)
		return -errno;
	return connect(fd, (const struct sockaddr *)&address, len) < 0 && errno != EINPROGRESS ? -errno : 0;
}

static int make_once(struct tcp_pair_maker *maker, int ret[2])
{
	const int one = 1;
	int r = maker->listener < 0 ? open_listener(maker) : 0;

	if (r < 0)
		return r;
	ret[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (ret[0] < 0)
		return -errno;
	r = connect_end(maker, ret[0]);
	ret[1] = r == 0 ? accept_end(maker, ret[0]) : r;
	if (ret[1] < 0) {
		close(ret[0]);
		tcp_pair_maker_deinit(maker); /* with all who wait there: the next pair has a port that nobody knows yet */
		return ret[1];
	}
	for (int i = 0; i < 2; i++)
		(void)setsockopt(ret[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return 0;
}

int tcp_pair_make(struct tcp_pair_maker *maker, int ret[2])
{
	const bool was_known = maker->listener >= 0;
	const int r = make_once(maker, ret);

	return r == -EAGAIN && was_known ? make_once(maker, ret) : r;
}

void tcp_pair_maker_deinit(struct tcp_pair_maker *maker)
{
	if (maker->listener >= 0)
		close(maker->listener);
	maker->listener = -1;
}
