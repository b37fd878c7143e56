/* Opening the sockets and receiving from them. */
#include "relay/udp_socket.h"

#include <errno.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef UDP_GRO
#define UDP_GRO 104
#endif

#define CONTROL_LEN                                                                                         \
	(CMSG_SPACE(sizeof(struct in6_pktinfo)) + CMSG_SPACE(sizeof(struct in_pktinfo)) + CMSG_SPACE(sizeof(int)))
#define MESSAGE_MAX 65536
/* Not a whole number of pages: else the heads of all messages would fight for the same lines of the cache. */
#define BUFFER_STRIDE (MESSAGE_MAX + 4096 + 320)
/*
 * Of small messages many are taken at once, so that those to one client can leave as a train: to send a message costs
 * most of what there is to do. Of trains no more than the cache holds.
 */
#define BYTES_AT_ONCE (1u << 20)
#define MIN_AT_ONCE   8
/* A socket whose buffer is not ours to choose never holds as many small ones as are asked for. */
#define MANY	      256

/* ---- opening ---- */

static bool is_wildcard(const struct endpoint *endpoint)
{
	static const uint8_t zero[16];

	return memcmp(endpoint->ip, zero, 16) == 0 ||
	       (endpoint_is_v4(endpoint) && memcmp(endpoint->ip + 12, zero, 4) == 0);
}

static int set_option(int fd, int level, int name, int value)
{
	return setsockopt(fd, level, name, &value, sizeof(value)) == 0 ? 0 : -errno;
}

int relay_socket_set_whole(const struct relay_socket *sock, bool whole)
{
	/* PROBE: what ICMP has told does not count, as nodes do not listen to it, either. */
	int r = set_option(sock->fd, IPPROTO_IP, IP_MTU_DISCOVER, whole ? IP_PMTUDISC_PROBE : IP_PMTUDISC_DONT);

	if (!sock->is_v6)
		return r;
	return set_option(sock->fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, whole ? IPV6_PMTUDISC_PROBE : IPV6_PMTUDISC_DONT);
}

int relay_socket_tell_interface(const struct relay_socket *sock)
{
	return sock->is_v6 ? set_option(sock->fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
			   : set_option(sock->fd, IPPROTO_IP, IP_PKTINFO, 1);
}

/*
 * Datagrams leave without "don't fragment", as those that come straight from a node: until their senders know how
 * much passes, what is too long arrives in pieces. They find it out by probes, which leave whole
 * (relay_outbox_send_whole()).
 */
static int set_options(const struct relay_socket *sock)
{
	if (set_option(sock->fd, SOL_SOCKET, SO_RCVBUFFORCE, RELAY_SOCKET_BUFFER) != 0)
		(void)set_option(sock->fd, SOL_SOCKET, SO_RCVBUF, RELAY_SOCKET_BUFFER); /* as much as there is */
	if (set_option(sock->fd, SOL_SOCKET, SO_SNDBUFFORCE, RELAY_SEND_BUFFER) != 0)
		(void)set_option(sock->fd, SOL_SOCKET, SO_SNDBUF, RELAY_SEND_BUFFER);
	(void)set_option(sock->fd, IPPROTO_UDP, UDP_GRO, 1);
	(void)relay_socket_set_whole(sock, false); /* on a socket of IPv6, of IPv4 mapped as well */
	return sock->tells_address ? relay_socket_tell_interface(sock) : 0;
}

static int bind_socket(struct relay_socket *sock, const struct sockaddr_storage *address, socklen_t len)
{
	struct sockaddr_storage bound;
	int r = set_options(sock);

	if (r == 0 && sock->is_v6)
		r = set_option(sock->fd, IPPROTO_IPV6, IPV6_V6ONLY, !sock->tells_address);
	if (r < 0)
		return r;
	len = bind(sock->fd, (const struct sockaddr *)address, len) == 0 ? sizeof(bound) : 0;
	if (len == 0 || getsockname(sock->fd, (struct sockaddr *)&bound, &len) < 0)
		return -errno;
	sock->local = endpoint_from_sockaddr((struct sockaddr *)&bound);
	return 0;
}

int relay_socket_open(const struct endpoint *address, uint16_t number, struct relay_socket *ret)
{
	struct relay_socket sock = { .number = number, .tells_address = is_wildcard(address) };
	struct sockaddr_storage sockaddr;
	socklen_t len = endpoint_to_sockaddr(address, &sockaddr);

	sock.is_v6 = sockaddr.ss_family == AF_INET6;
	sock.fd = socket(sockaddr.ss_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (sock.fd < 0)
		return -errno;
	int r = bind_socket(&sock, &sockaddr, len);
	if (r < 0) {
		close(sock.fd);
		return r;
	}
	*ret = sock;
	return 0;
}

int relay_socket_adopt(int fd, uint16_t number, struct relay_socket *ret)
{
	struct relay_socket sock = { .fd = fd, .number = number };
	struct sockaddr_storage bound;
	socklen_t len = sizeof(bound);

	int r = getsockname(fd, (struct sockaddr *)&bound, &len) == 0 ? 0 : -errno;
	if (r == 0) {
		sock.local = endpoint_from_sockaddr((struct sockaddr *)&bound);
		sock.tells_address = is_wildcard(&sock.local);
		sock.is_v6 = bound.ss_family == AF_INET6;
		r = set_options(&sock);
	}
	if (r < 0)
		close(fd);
	else
		*ret = sock;
	return r;
}

void relay_socket_close(struct relay_socket *sock)
{
	if (sock->fd >= 0)
		close(sock->fd);
	sock->fd = -1;
}

/* ---- receiving ---- */

struct relay_inbox {
	struct relay_message messages[RELAY_INBOX_MESSAGES];
	struct mmsghdr headers[RELAY_INBOX_MESSAGES];
	struct iovec pieces[RELAY_INBOX_MESSAGES];
	struct sockaddr_in6 names[RELAY_INBOX_MESSAGES];
	struct {
		_Alignas(struct cmsghdr) uint8_t bytes[CONTROL_LEN];
	} controls[RELAY_INBOX_MESSAGES];
	uint32_t most;
	uint32_t wanted, n_used; /* the first ones, of which the kernel has changed the headers */
	uint8_t *buffers; /* BUFFER_STRIDE each */
};

#define BUFFERS_LEN ((size_t)RELAY_INBOX_MESSAGES * BUFFER_STRIDE)

struct relay_inbox *relay_inbox_new(void)
{
	struct relay_inbox *inbox = calloc(1, sizeof(*inbox));

	if (!inbox)
		return NULL;
	inbox->buffers = mmap(NULL, BUFFERS_LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (inbox->buffers == MAP_FAILED) {
		free(inbox);
		return NULL;
	}
	for (uint32_t i = 0; i < RELAY_INBOX_MESSAGES; i++)
		inbox->pieces[i] = (struct iovec){ inbox->buffers + (size_t)i * BUFFER_STRIDE, MESSAGE_MAX };
	inbox->most = inbox->wanted = inbox->n_used = RELAY_INBOX_MESSAGES;
	return inbox;
}

void relay_inbox_free(struct relay_inbox *inbox)
{
	if (!inbox)
		return;
	munmap(inbox->buffers, BUFFERS_LEN);
	free(inbox);
}

void relay_inbox_set_most(struct relay_inbox *inbox, uint32_t most)
{
	inbox->most = most;
	inbox->wanted = inbox->wanted < most ? inbox->wanted : most;
}

struct relay_message *relay_inbox_message(struct relay_inbox *inbox, uint32_t i)
{
	return &inbox->messages[i];
}

static void prepare(struct relay_inbox *inbox)
{
	for (uint32_t i = 0; i < inbox->n_used; i++)
		inbox->headers[i].msg_hdr = (struct msghdr){ .msg_name = &inbox->names[i],
							     .msg_namelen = sizeof(inbox->names[i]),
							     .msg_iov = &inbox->pieces[i],
							     .msg_iovlen = 1,
							     .msg_control = inbox->controls[i].bytes,
							     .msg_controllen = CONTROL_LEN };
}

static void read_control(const struct cmsghdr *control, struct relay_message *message)
{
	const void *data = CMSG_DATA(control);

	if (control->cmsg_level == IPPROTO_UDP && control->cmsg_type == UDP_GRO) {
		int size;
		memcpy(&size, data, sizeof(size));
		if (size > 0)
			message->size = (size_t)size;
	} else if (control->cmsg_level == IPPROTO_IP && control->cmsg_type == IP_PKTINFO) {
		struct in_pktinfo info;
		memcpy(&info, data, sizeof(info));
		message->ifindex = (uint32_t)info.ipi_ifindex;
		message->asked = endpoint_from_v4(ntohl(info.ipi_spec_dst.s_addr), message->asked.port);
		memcpy(message->from.local_ip, message->asked.ip, sizeof(message->from.local_ip));
	} else if (control->cmsg_level == IPPROTO_IPV6 && control->cmsg_type == IPV6_PKTINFO) {
		struct in6_pktinfo info;
		memcpy(&info, data, sizeof(info));
		message->ifindex = info.ipi6_ifindex;
		memcpy(message->asked.ip, &info.ipi6_addr, sizeof(message->asked.ip));
		memcpy(message->from.local_ip, &info.ipi6_addr, sizeof(message->from.local_ip));
		if (IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr))
			message->asked.scope_id = message->from.ifindex = info.ipi6_ifindex;
	}
}

static size_t read_message(struct relay_inbox *inbox, const struct relay_socket *sock, uint32_t i)
{
	struct msghdr *header = &inbox->headers[i].msg_hdr;
	struct relay_message *message = &inbox->messages[i];
	const size_t len = inbox->headers[i].msg_len;

	*message = (struct relay_message){ .from = { .remote = endpoint_from_sockaddr((void *)&inbox->names[i]),
						     .socket = sock->number },
					   .asked = sock->local,
					   .bytes = inbox->pieces[i].iov_base,
					   .len = len,
					   .size = len };
	for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c))
		read_control(c, message);
	return len;
}

/* Of messages like the last n. */
static uint32_t number_at_once(size_t bytes, uint32_t n)
{
	const size_t number = bytes > 0 ? (size_t)BYTES_AT_ONCE * n / bytes : RELAY_INBOX_MESSAGES;

	return number < MIN_AT_ONCE ? MIN_AT_ONCE : number < RELAY_INBOX_MESSAGES ? (uint32_t)number : RELAY_INBOX_MESSAGES;
}

uint32_t relay_inbox_receive(struct relay_inbox *inbox, const struct relay_socket *sock, bool *ret_is_full)
{
	size_t bytes = 0;
	int n;

	prepare(inbox);
	do
		n = recvmmsg(sock->fd, inbox->headers, inbox->wanted, MSG_DONTWAIT, NULL);
	while (n < 0 && errno == EINTR);
	inbox->n_used = n > 0 ? (uint32_t)n : 1;
	for (int i = 0; i < n; i++)
		bytes += read_message(inbox, sock, (uint32_t)i);
	*ret_is_full = n == (int)inbox->wanted || n >= MANY;
	if (n <= 0)
		return 0;
	const uint32_t number = number_at_once(bytes, (uint32_t)n);
	inbox->wanted = number < inbox->most ? number : inbox->most;
	return (uint32_t)n;
}
