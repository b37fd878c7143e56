#include "relay/frontdoor/door_udp_socket.h"

#include "relay/udp_ancillary.h"

#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/udp.h>
#include <string.h>
#include <unistd.h>

#ifndef UDP_GRO
#define UDP_GRO 104
#endif

#define SEGMENTS      63    /* as relay/udp_outbox.c */
#define MOST_BYTES    65000 /* of a train, with room for headers */
#define TARGET_BUFFER (1 << 20)
#define MOST_OF_FIRST 1280 /* bytes of datagrams with which clients begin: the longest known */

/* ---- opening ---- */

static void keep_whole(const struct relay_socket *sock)
{
	const int probe = IP_PMTUDISC_PROBE, probe6 = IPV6_PMTUDISC_PROBE;

	(void)setsockopt(sock->fd, IPPROTO_IP, IP_MTU_DISCOVER, &probe, sizeof(probe)); /* IPv4, mapped as well */
	if (sock->is_v6)
		(void)setsockopt(sock->fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, &probe6, sizeof(probe6));
}

int door_udp_listen(const struct endpoint *address, uint16_t number, struct relay_socket *ret)
{
	const struct endpoint any6 = { .port = address->port }, any4 = endpoint_from_v4(0, address->port);
	int r = relay_socket_open(address, number, ret);

	if (r == -EAFNOSUPPORT && endpoint_equal(address, &any6)) /* a machine without IPv6 */
		r = relay_socket_open(&any4, number, ret);
	if (r == 0)
		keep_whole(ret);
	return r;
}

uint32_t door_udp_interface_of(const struct endpoint *address)
{
	struct ifaddrs *all;
	uint32_t index = 0;

	if (getifaddrs(&all) < 0)
		return 0;
	for (const struct ifaddrs *one = all; one && index == 0; one = one->ifa_next) {
		const int family = one->ifa_addr ? one->ifa_addr->sa_family : AF_UNSPEC;
		if (family != AF_INET && family != AF_INET6)
			continue;
		const struct endpoint its = endpoint_from_sockaddr(one->ifa_addr);
		if (memcmp(its.ip, address->ip, sizeof(its.ip)) == 0)
			index = if_nametoindex(one->ifa_name);
	}
	freeifaddrs(all);
	return index;
}

int door_udp_connect(const struct endpoint *target, struct relay_socket *ret)
{
	struct relay_socket sock = { .local = *target };
	struct sockaddr_storage address;
	const socklen_t len = endpoint_to_sockaddr(target, &address);
	const int one = 1, buffer = TARGET_BUFFER;

	sock.is_v6 = address.ss_family == AF_INET6;
	sock.fd = socket(address.ss_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (sock.fd < 0)
		return -errno;
	(void)setsockopt(sock.fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof(buffer));
	(void)setsockopt(sock.fd, IPPROTO_UDP, UDP_GRO, &one, sizeof(one));
	keep_whole(&sock);
	if (connect(sock.fd, (const struct sockaddr *)&address, len) < 0) {
		const int r = -errno;
		close(sock.fd);
		return r;
	}
	*ret = sock;
	return 0;
}

/* ---- sending ---- */

/* 0 or an errno. What a target has said by ICMP before is not of this one: it is tried again. */
static int send_message(int fd, const struct msghdr *header)
{
	ssize_t n = sendmsg(fd, header, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n < 0 && (errno == ECONNREFUSED || errno == EINTR))
		n = sendmsg(fd, header, MSG_DONTWAIT | MSG_NOSIGNAL);
	return n < 0 ? errno : 0;
}

static void count(struct door_udp_losses *losses, int error, uint64_t n)
{
	if (error == 0)
		return;
	if (error == EAGAIN || error == ENOBUFS)
		losses->full += n;
	else if (error == EMSGSIZE)
		losses->too_big += n;
	else
		losses->failed += n;
}

/* 0 or an errno. */
static int send_train(const struct relay_socket *sock, struct msghdr *header, const uint8_t *bytes, size_t len,
		      size_t size)
{
	struct iovec piece = { (uint8_t *)(uintptr_t)bytes, len };
	const size_t without = header->msg_controllen;

	header->msg_iov = &piece;
	header->msg_iovlen = 1;
	if (len > size)
		udp_ancillary_put_segment(header, (uint16_t)size);
	const int error = send_message(sock->fd, header);
	header->msg_controllen = without;
	return error;
}

static void send_singly(const struct relay_socket *sock, struct msghdr *header, const uint8_t *bytes, size_t len,
			size_t size, struct door_udp_losses *losses)
{
	for (size_t at = 0; at < len; at += size)
		count(losses, send_train(sock, header, bytes + at, len - at < size ? len - at : size, size), 1);
}

static size_t most_of(size_t size)
{
	const size_t n = MOST_BYTES / size < SEGMENTS ? MOST_BYTES / size : SEGMENTS;

	return (n > 0 ? n : 1) * size;
}

void door_udp_send(const struct relay_socket *sock, const struct udp_way *to, const uint8_t *bytes, size_t len,
		   size_t size, bool *has_no_trains, struct door_udp_losses *losses)
{
	union {
		struct sockaddr_storage any;
		struct sockaddr_in6 v6;
	} name;
	struct udp_ancillary control;
	struct msghdr header = { .msg_control = control.bytes };

	if (len == 0 || size == 0)
		return;
	memset(&control, 0, sizeof(control));
	if (to) {
		header.msg_name = &name;
		header.msg_namelen = sock->is_v6 ? endpoint_to_sockaddr6(&to->remote, &name.v6)
						 : endpoint_to_sockaddr(&to->remote, &name.any);
		udp_ancillary_put_source(&header, sock, to);
	}
	for (size_t at = 0, n; at < len; at += n) {
		n = len - at < most_of(size) ? len - at : most_of(size);
		const int error = *has_no_trains && n > size ? EIO : send_train(sock, &header, bytes + at, n, size);
		if (n > size && (error == EIO || error == EINVAL || error == EMSGSIZE)) {
			*has_no_trains = *has_no_trains || error == EIO;
			send_singly(sock, &header, bytes + at, n, size, losses);
		} else {
			count(losses, error, (n + size - 1) / size);
		}
	}
}

void door_udp_send_behind(const struct relay_socket *sock, const uint8_t *header, size_t header_len, const uint8_t *bytes,
			  size_t len, size_t size, struct door_udp_losses *losses)
{
	struct iovec pieces[2] = { { (uint8_t *)(uintptr_t)header, header_len } };
	const struct msghdr message = { .msg_iov = pieces, .msg_iovlen = 2 };
	size_t at = 0, n;

	do {
		n = len - at < size ? len - at : size;
		pieces[1] = (struct iovec){ (uint8_t *)(uintptr_t)(bytes + at), n };
		count(losses, send_message(sock->fd, &message), 1);
	} while (n > 0 && (at += n) < len);
}

void door_udp_set_whole_for(const struct relay_socket *sock, size_t size, bool *is_whole)
{
	const bool whole = size > MOST_OF_FIRST;

	if (whole != *is_whole && relay_socket_set_whole(sock, whole) == 0)
		*is_whole = whole;
}
