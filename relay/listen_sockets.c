#include "relay/listen_sockets.h"

#include "common/log.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static bool has_ip(const struct endpoint *address, const struct endpoint *other)
{
	return memcmp(address->ip, other->ip, sizeof(other->ip)) == 0;
}

static int option(int fd, int level, int name)
{
	int value = 0;
	socklen_t len = sizeof(value);

	return getsockopt(fd, level, name, &value, &len) == 0 ? value : 0;
}

static bool is_of_type(int fd, int type)
{
	return fd >= 0 && option(fd, SOL_SOCKET, SO_TYPE) == type &&
	       (type != SOCK_STREAM || option(fd, SOL_SOCKET, SO_ACCEPTCONN) != 0);
}

/* Does what is for the address come to a socket that is bound to `its`? */
static bool covers(int fd, const struct endpoint *its, const struct endpoint *address)
{
	const struct endpoint any4 = endpoint_from_v4(0, 0), any6 = { 0 };

	if (has_ip(its, &any4))
		return endpoint_is_v4(address);
	if (!has_ip(its, &any6))
		return has_ip(its, address);
	return option(fd, IPPROTO_IPV6, IPV6_V6ONLY) == 0 || (!endpoint_is_v4(address) && !has_ip(address, &any6));
}

static bool has_address(int fd, const struct endpoint *address, bool is_exact)
{
	struct sockaddr_storage sockaddr = { 0 };
	socklen_t len = sizeof(sockaddr);

	if (getsockname(fd, (struct sockaddr *)&sockaddr, &len) < 0)
		return false;
	struct endpoint its = endpoint_from_sockaddr((struct sockaddr *)&sockaddr);
	return its.port == address->port && covers(fd, &its, address) && (!is_exact || has_ip(&its, address));
}

int listen_sockets_take(const struct listen_sockets *sockets, int type, const struct endpoint *address)
{
	for (uint32_t i = 0; sockets && i < sockets->n; i++) {
		int fd = sockets->fds[i];
		if (!is_of_type(fd, type) || !has_address(fd, address, false))
			continue;
		int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
		if (copy >= 0)
			(void)fcntl(copy, F_SETFL, fcntl(copy, F_GETFL) | O_NONBLOCK);
		return copy;
	}
	return -1;
}

uint32_t listen_sockets_close_others(struct listen_sockets *sockets, int type, const struct endpoint *addresses,
				     uint32_t n_addresses, bool is_exact)
{
	uint32_t n_closed = 0;

	for (uint32_t i = 0; sockets && i < sockets->n; i++) {
		bool is_wanted = false;
		for (uint32_t j = 0; j < n_addresses; j++)
			is_wanted = is_wanted || has_address(sockets->fds[i], &addresses[j], is_exact);
		if (is_wanted || !is_of_type(sockets->fds[i], type))
			continue;
		log_warning("relay", "a socket that was handed over has none of our addresses and ports: closed");
		if (type == SOCK_STREAM)
			(void)shutdown(sockets->fds[i], SHUT_RDWR);
		close(sockets->fds[i]);
		sockets->fds[i] = -1;
		n_closed++;
	}
	return n_closed;
}
