#include "node/side_sockets.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define BURST 16 /* datagrams of one socket before others get their turn */

struct side_socket {
	struct side_sockets *set;
	int fd; /* -1: none */
	bool is_taken;
	uv_poll_t poll;
};

struct side_sockets {
	struct side_sockets_options options;
	bool is_closed;
	uint32_t n_handles;
	struct side_socket all[];
};

static void on_handle_closed(uv_handle_t *handle)
{
	struct side_socket *sock = container_of((uv_poll_t *)handle, struct side_socket, poll);
	struct side_sockets *set = sock->set;

	close(sock->fd);
	if (--set->n_handles != 0)
		return;
	if (set->options.closed)
		set->options.closed(set->options.owner);
	free(set);
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
	struct side_socket *sock = container_of(poll, struct side_socket, poll);
	struct side_sockets *set = sock->set;
	uint8_t bytes[SIDE_SOCKETS_MAX_LEN];

	for (int i = 0; i < BURST && !set->is_closed && !sock->is_taken; i++) {
		struct sockaddr_storage address;
		socklen_t address_len = sizeof(address);
		ssize_t n = recvfrom(sock->fd, bytes, sizeof(bytes), MSG_DONTWAIT | MSG_TRUNC,
				     (struct sockaddr *)&address, &address_len);
		/* An error is of what was sent (ICMP), and of no interest. */
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return;
		if (n <= 0 || n > (ssize_t)sizeof(bytes))
			continue;
		const struct endpoint from = endpoint_from_sockaddr((struct sockaddr *)&address);
		set->options.received(set->options.owner, (uint32_t)(sock - set->all), &from, bytes, (size_t)n);
	}
}

static int open_one(uv_loop_t *loop, struct side_socket *sock, uint16_t *ret_port)
{
	struct sockaddr_in name = { .sin_family = AF_INET };
	socklen_t len = sizeof(name);
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), r = 0;

	if (fd < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&name, sizeof(name)) != 0 ||
	    getsockname(fd, (struct sockaddr *)&name, &len) != 0)
		r = -errno;
	if (r == 0)
		r = uv_poll_init(loop, &sock->poll, fd);
	if (r != 0) {
		close(fd);
		return r;
	}
	sock->fd = fd;
	sock->set->n_handles++;
	uv_poll_start(&sock->poll, UV_READABLE, on_readable);
	*ret_port = ntohs(name.sin_port);
	return 0;
}

int side_sockets_open(uv_loop_t *loop, const struct side_sockets_options *options, uint16_t *ret_ports,
		      struct side_sockets **ret)
{
	assert(options->n > 0 && options->n <= SIDE_SOCKETS_MAX);
	struct side_sockets *set = calloc(1, sizeof(*set) + options->n * sizeof(set->all[0]));
	int r = 0;

	if (!set)
		return -ENOMEM;
	set->options = *options;
	for (uint32_t i = 0; i < options->n; i++) {
		set->all[i].set = set;
		set->all[i].fd = -1;
	}
	for (uint32_t i = 0; i < options->n && r == 0; i++)
		r = open_one(loop, &set->all[i], &ret_ports[i]);
	if (r != 0) {
		set->options.closed = NULL;
		side_sockets_close(set);
		return r;
	}
	*ret = set;
	return 0;
}

int side_sockets_take(struct side_sockets *set, uint32_t index)
{
	assert(index < set->options.n && !set->all[index].is_taken);
	const int fd = fcntl(set->all[index].fd, F_DUPFD_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	set->all[index].is_taken = true;
	uv_poll_stop(&set->all[index].poll);
	return fd;
}

void side_sockets_close(struct side_sockets *set)
{
	if (!set)
		return;
	assert(!set->is_closed);
	set->is_closed = true;
	if (set->n_handles == 0) {
		free(set);
		return;
	}
	for (uint32_t i = 0; i < set->options.n; i++)
		if (set->all[i].fd >= 0)
			uv_close((uv_handle_t *)&set->all[i].poll, on_handle_closed);
}

int side_sockets_send(struct side_sockets *set, uint32_t index, const struct endpoint *to, const uint8_t *bytes,
		      size_t len)
{
	struct sockaddr_storage address;
	const socklen_t address_len = endpoint_to_sockaddr(to, &address);

	assert(index < set->options.n);
	return sendto(set->all[index].fd, bytes, len, MSG_DONTWAIT, (struct sockaddr *)&address, address_len) < 0 ?
		       -errno :
		       0;
}
