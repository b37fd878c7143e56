#include "relay/webgw/tcp_pair.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_STRANGERS 16 /* asked in for one pair, before it is given up */

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

/* The other end of fd. */
static int accept_end(const struct tcp_pair_maker *maker, int fd)
{
	for (int i = 0; i < MAX_STRANGERS; i++) {
		struct sockaddr_in remote = { 0 };
		socklen_t len = sizeof(remote);
		const int end = accept4(maker->listener, (struct sockaddr *)&remote, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (end < 0)
			return -errno;
		if (is_end_of(fd, &remote))
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

int tcp_pair_make(struct tcp_pair_maker *maker, int ret[2])
{
	const int one = 1;
	int r = maker->listener < 0 ? open_listener(maker) : 0;

	if (r < 0)
		return r;
	ret[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (ret[0] < 0)
		return -errno;
	r = connect_end(maker, ret[0]);
	ret[1] = r == 0 ? accept_end(maker, ret[0]) : r; /* over the loopback it is there at once */
	if (ret[1] < 0) {
		close(ret[0]);
		return ret[1];
	}
	for (int i = 0; i < 2; i++)
		(void)setsockopt(ret[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return 0;
}

void tcp_pair_maker_deinit(struct tcp_pair_maker *maker)
{
	if (maker->listener >= 0)
		close(maker->listener);
	maker->listener = -1;
}
