#include "relay/frontdoor/door_udp_socket.h"

#include <errno.h>
#include <netinet/udp.h>
#include <string.h>
#include <unistd.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

#define SEGMENTS      63    /* as relay/udp_outbox.c */
#define MOST_BYTES    65000 /* of a train, with room for headers */
#define TARGET_BUFFER (1 << 20)
#define CONTROL_LEN   (CMSG_SPACE(sizeof(struct in6_pktinfo)) + CMSG_SPACE(sizeof(uint16_t)))

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

struct control {
	_Alignas(struct cmsghdr) uint8_t bytes[CONTROL_LEN];
};

static void put_control(struct msghdr *header, int level, int type, const void *value, size_t len)
{
	struct cmsghdr *control = (struct cmsghdr *)(void *)((uint8_t *)header->msg_control + header->msg_controllen);

	control->cmsg_level = level;
	control->cmsg_type = type;
	control->cmsg_len = CMSG_LEN(len);
	memcpy(CMSG_DATA(control), value, len);
	header->msg_controllen += CMSG_SPACE(len);
}

/* It leaves by the address of ours that was asked. */
static void put_source(const struct relay_socket *sock, struct msghdr *header, const struct udp_way *to)
{
	static const uint8_t none[16];

	if (!sock->tells_address || memcmp(to->local_ip, none, sizeof(none)) == 0)
		return;
	if (sock->is_v6) {
		struct in6_pktinfo info = { .ipi6_ifindex = to->ifindex };
		memcpy(&info.ipi6_addr, to->local_ip, sizeof(info.ipi6_addr));
		put_control(header, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof(info));
	} else {
		struct in_pktinfo info = { 0 };
		memcpy(&info.ipi_spec_dst, to->local_ip + 12, sizeof(info.ipi_spec_dst));
		put_control(header, IPPROTO_IP, IP_PKTINFO, &info, sizeof(info));
	}
}

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
	const uint16_t segment = (uint16_t)size;

	header->msg_iov = &piece;
	header->msg_iovlen = 1;
	if (len > size)
		put_control(header, IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof(segment));
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
	struct control control;
	struct msghdr header = { .msg_control = control.bytes };

	if (len == 0 || size == 0)
		return;
	memset(&control, 0, sizeof(control));
	if (to) {
		header.msg_name = &name;
		header.msg_namelen = sock->is_v6 ? endpoint_to_sockaddr6(&to->remote, &name.v6)
						 : endpoint_to_sockaddr(&to->remote, &name.any);
		put_source(sock, &header, to);
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
