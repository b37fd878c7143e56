#include "relay/listen_sockets.h"

#include "common/log.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static bool is_wildcard(const struct endpoint *address)
{
	const struct endpoint any4 = endpoint_from_v4(0, 0), any6 = { 0 };

	return memcmp(address->ip, any4.ip, sizeof(any4.ip)) == 0 || memcmp(address->ip, any6.ip, sizeof(any6.ip)) == 0;
}

static bool is_of_type(int fd, int type)
{
	int its_type = 0;
	socklen_t len = sizeof(its_type);

	return fd >= 0 && getsockopt(fd, SOL_SOCKET, SO_TYPE, &its_type, &len) == 0 && its_type == type;
}

static bool has_address(int fd, const struct endpoint *address)
{
	struct sockaddr_storage sockaddr = { 0 };
	socklen_t len = sizeof(sockaddr);

	if (getsockname(fd, (struct sockaddr *)&sockaddr, &len) < 0)
		return false;
	struct endpoint its = endpoint_from_sockaddr((struct sockaddr *)&sockaddr);
	return its.port == address->port && (is_wildcard(&its) || memcmp(its.ip, address->ip, sizeof(its.ip)) == 0);
}

int listen_sockets_take(const struct listen_sockets *sockets, int type, const struct endpoint *address)
{
	for (uint32_t i = 0; sockets && i < sockets->n; i++) {
		int fd = sockets->fds[i];
		if (!is_of_type(fd, type) || !has_address(fd, address))
			continue;
		int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
		if (copy >= 0)
			(void)fcntl(copy, F_SETFL, fcntl(copy, F_GETFL) | O_NONBLOCK);
		return copy;
	}
	return -1;
}

void listen_sockets_close_others(struct listen_sockets *sockets, int type, const struct endpoint *addresses,
				 uint32_t n_addresses)
{
	for (uint32_t i = 0; sockets && i < sockets->n; i++) {
		bool is_wanted = false;
		for (uint32_t j = 0; j < n_addresses; j++)
			is_wanted = is_wanted || has_address(sockets->fds[i], &addresses[j]);
		if (is_wanted || !is_of_type(sockets->fds[i], type))
			continue;
		log_warning("relay", "a socket that was handed over has none of our addresses and ports: closed");
		close(sockets->fds[i]);
		sockets->fds[i] = -1;
	}
}
