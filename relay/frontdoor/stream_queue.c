#include "relay/frontdoor/stream_queue.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define QUEUE_BYTES   (512 << 20) /* all that doors keep in memory, and what the kernel needs for each message */
#define MAX_TAKEN_FDS 16

int stream_queue_open(struct stream_queue *ret)
{
	const int size = QUEUE_BYTES;

	if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ret->fds) < 0)
		return -errno;
	/* Without the capability there is room for some hundred streams. */
	if (setsockopt(ret->fds[0], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) < 0)
		(void)setsockopt(ret->fds[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	return 0;
}

static int option(int fd, int name)
{
	int value = -1;
	socklen_t len = sizeof(value);

	return getsockopt(fd, SOL_SOCKET, name, &value, &len) == 0 ? value : -1;
}

bool stream_queue_is_end(int fd)
{
	return option(fd, SO_DOMAIN) == AF_UNIX && option(fd, SO_TYPE) == SOCK_DGRAM;
}

void stream_queue_close(struct stream_queue *queue)
{
	for (int i = 0; i < STREAM_QUEUE_FDS; i++) {
		if (queue->fds[i] >= 0)
			close(queue->fds[i]);
		queue->fds[i] = -1;
	}
}

uint32_t stream_queue_drop(struct stream_queue *queue)
{
	int fds[MAX_TAKEN_FDS], r;
	uint32_t n_dropped = 0;
	size_t n, n_fds;
	uint8_t byte;

	/* They are longer than a byte, and closed for that. */
	while ((r = stream_queue_take(queue, &byte, sizeof(byte), &n, fds, MAX_TAKEN_FDS, &n_fds)) != -EAGAIN) {
		for (size_t i = 0; r == 0 && i < n_fds; i++)
			close(fds[i]);
		n_dropped++;
	}
	stream_queue_close(queue);
	return n_dropped;
}

int stream_queue_put(struct stream_queue *queue, const uint8_t *bytes, size_t n, const int *fds, size_t n_fds)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(MAX_TAKEN_FDS * sizeof(int))];
	} control = { 0 };
	struct iovec part = { (void *)(uintptr_t)bytes, n };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };

	if (n_fds > MAX_TAKEN_FDS)
		return -EINVAL;
	if (n_fds > 0) {
		control.header = (struct cmsghdr){ .cmsg_level = SOL_SOCKET,
						   .cmsg_type = SCM_RIGHTS,
						   .cmsg_len = CMSG_LEN(n_fds * sizeof(int)) };
		memcpy(CMSG_DATA(&control.header), fds, n_fds * sizeof(int));
		message.msg_control = &control;
		message.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
	}
	return sendmsg(queue->fds[0], &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* Returns how many there were; those beyond max are closed. */
static size_t take_fds(struct msghdr *message, int *fds, size_t max)
{
	size_t n = 0;

	for (struct cmsghdr *at = CMSG_FIRSTHDR(message); at; at = CMSG_NXTHDR(message, at)) {
		if (at->cmsg_level != SOL_SOCKET || at->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < (at->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
			int fd;
			memcpy(&fd, CMSG_DATA(at) + i * sizeof(int), sizeof(fd));
			if (n < max)
				fds[n] = fd;
			else
				close(fd);
			n++;
		}
	}
	return n;
}

static int take_from(int end, uint8_t *buf, size_t size, size_t *ret_n, int *fds, size_t max_fds, size_t *ret_n_fds)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(MAX_TAKEN_FDS * sizeof(int))];
	} control;
	struct iovec part = { buf, size };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control,
				  .msg_controllen = sizeof(control) };
	const ssize_t n = recvmsg(end, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	if (n < 0)
		return -EAGAIN;
	const size_t n_fds = take_fds(&message, fds, max_fds);
	if (n_fds > max_fds || (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC))) {
		for (size_t i = 0; i < n_fds && i < max_fds; i++)
			close(fds[i]);
		return -EBADMSG;
	}
	*ret_n = (size_t)n;
	*ret_n_fds = n_fds;
	return 0;
}

/* Which end is which, who kept them may not know. */
int stream_queue_take(struct stream_queue *queue, uint8_t *buf, size_t size, size_t *ret_n, int *fds, size_t max_fds,
		      size_t *ret_n_fds)
{
	int r = -EAGAIN;

	for (int i = STREAM_QUEUE_FDS - 1; i >= 0 && r == -EAGAIN; i--)
		if (queue->fds[i] >= 0)
			r = take_from(queue->fds[i], buf, size, ret_n, fds, max_fds, ret_n_fds);
	return r;
}

bool stream_is_connected(int fd)
{
	struct tcp_info info = { 0 };
	socklen_t len = sizeof(info);

	if ((option(fd, SO_DOMAIN) != AF_INET && option(fd, SO_DOMAIN) != AF_INET6) ||
	    option(fd, SO_PROTOCOL) != IPPROTO_TCP || getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0)
		return false;
	return info.tcpi_state != TCP_LISTEN && info.tcpi_state != TCP_SYN_SENT && info.tcpi_state != TCP_SYN_RECV;
}

bool stream_is_pipe(int out, int in, size_t n)
{
	struct stat a, b;
	int waiting = 0;

	if (fstat(out, &a) < 0 || fstat(in, &b) < 0 || !S_ISFIFO(a.st_mode) || a.st_dev != b.st_dev || a.st_ino != b.st_ino ||
	    (fcntl(out, F_GETFL) & O_ACCMODE) != O_RDONLY || (fcntl(in, F_GETFL) & O_ACCMODE) != O_WRONLY)
		return false;
	if (ioctl(out, FIONREAD, &waiting) < 0 || waiting < 0 || (size_t)waiting != n)
		return false;
	return fcntl(out, F_SETFL, O_NONBLOCK) == 0 && fcntl(in, F_SETFL, O_NONBLOCK) == 0;
}

void stream_set_reset_on_close(int fd, bool resets)
{
	const struct linger linger = { .l_onoff = resets };

	(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
}
