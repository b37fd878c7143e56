/*
 * bench_relay_floor udp|tcp IP PORT: what the kernel alone takes for a relay's work. No keys, no frames, no TLS, no
 * queues, no counters: whatever comes of client 2n goes on to client 2n + 1, and the other way round, as it came; whose
 * it is, the third and second byte of its address say (tests/bench/relay_load, first=64.0.0.1).
 *
 *   udp  recvmmsg(2), sendmmsg(2), UDP_GRO and UDP_SEGMENT: trains stay trains, nothing is joined
 *   tcp  epoll_wait(2), then read(2) and write(2) for each connection that has something
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

#define BATCH	    1024
#define MESSAGE_LEN 65536
#define PIECE_LEN   65536
#define EVENTS	    128
#define CLIENTS	    65536
#define BUFFER	    (7 << 20)
#define WAIT_MS	    1000

_Noreturn static void fail(const char *what)
{
	fprintf(stderr, "bench_relay_floor: %s: %s\n", what, strerror(errno));
	exit(EXIT_FAILURE);
}

static uint32_t client_of(const struct sockaddr_in *address)
{
	return ntohl(address->sin_addr.s_addr) >> 8 & (CLIENTS - 1);
}

static int open_socket(int type, const struct sockaddr_in *address)
{
	const int one = 1;
	int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) != 0 ||
	    bind(fd, (const void *)address, sizeof(*address)) != 0)
		fail("socket");
	return fd;
}

/* ---- udp ---- */

struct control {
	_Alignas(struct cmsghdr) uint8_t bytes[CMSG_SPACE(sizeof(int))];
};

static struct {
	struct mmsghdr messages[BATCH];
	struct sockaddr_in names[BATCH];
	struct iovec pieces[BATCH];
	struct control controls[BATCH];
	uint8_t (*bytes)[MESSAGE_LEN + 4416]; /* not a whole number of pages: see relay/udp_socket.c */
} udp;

static void prepare(unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		udp.pieces[i] = (struct iovec){ udp.bytes[i], MESSAGE_LEN };
		udp.messages[i].msg_hdr = (struct msghdr){ .msg_name = &udp.names[i],
							   .msg_namelen = sizeof(udp.names[i]),
							   .msg_iov = &udp.pieces[i],
							   .msg_iovlen = 1,
							   .msg_control = &udp.controls[i],
							   .msg_controllen = sizeof(udp.controls[i]) };
	}
}

/* To the other of its pair, in segments as it came. */
static void turn_round(unsigned i)
{
	struct msghdr *message = &udp.messages[i].msg_hdr;
	struct cmsghdr *control = CMSG_FIRSTHDR(message);
	int size;

	udp.pieces[i].iov_len = udp.messages[i].msg_len;
	udp.names[i].sin_addr.s_addr ^= htonl(1u << 8);
	if (!control || control->cmsg_level != IPPROTO_UDP || control->cmsg_type != UDP_GRO) {
		message->msg_control = NULL;
		message->msg_controllen = 0;
		return;
	}
	memcpy(&size, CMSG_DATA(control), sizeof(size));
	const uint16_t segment = (uint16_t)size;
	control->cmsg_type = UDP_SEGMENT;
	control->cmsg_len = CMSG_LEN(sizeof(segment));
	memcpy(CMSG_DATA(control), &segment, sizeof(segment));
	message->msg_controllen = CMSG_SPACE(sizeof(segment));
}

static void send_all(int fd, unsigned n)
{
	for (unsigned done = 0; done < n;) {
		const int sent = sendmmsg(fd, udp.messages + done, n - done, 0);
		if (sent > 0)
			done += (unsigned)sent;
		else if (errno != EINTR)
			done++; /* refused: it is lost */
	}
}

static void serve_udp(const struct sockaddr_in *address)
{
	const int fd = open_socket(SOCK_DGRAM, address), one = 1, buffer = BUFFER;

	udp.bytes = calloc(BATCH, sizeof(*udp.bytes));
	if (!udp.bytes || setsockopt(fd, IPPROTO_UDP, UDP_GRO, &one, sizeof(one)) != 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof(buffer)) != 0)
		fail("socket options");
	prepare(BATCH);
	for (;;) {
		const int n = recvmmsg(fd, udp.messages, BATCH, MSG_WAITFORONE, NULL);
		if (n < 0 && errno != EINTR)
			fail("recvmmsg");
		for (int i = 0; i < n; i++)
			turn_round((unsigned)i);
		send_all(fd, n > 0 ? (unsigned)n : 0);
		prepare(n > 0 ? (unsigned)n : 0);
	}
}

/* ---- tcp ---- */

static struct {
	int epoll_fd, listener;
	int fds[CLIENTS];
	uint8_t piece[PIECE_LEN];
} tcp;

static void watch(int fd, uint32_t client)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u32 = client };

	if (epoll_ctl(tcp.epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0)
		fail("epoll_ctl");
}

static void take_connection(void)
{
	struct sockaddr_in name;
	socklen_t len = sizeof(name);
	const int fd = accept4(tcp.listener, (void *)&name, &len, SOCK_CLOEXEC | SOCK_NONBLOCK), one = 1;

	if (fd < 0)
		return;
	const uint32_t client = client_of(&name);
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (tcp.fds[client] > 0)
		close(tcp.fds[client]);
	tcp.fds[client] = fd;
	watch(fd, client);
}

/* False: it takes no more, and is gone. */
static bool write_all(int fd, const uint8_t *bytes, size_t len)
{
	while (len > 0) {
		const ssize_t n = send(fd, bytes, len, MSG_NOSIGNAL);
		struct pollfd room = { .fd = fd, .events = POLLOUT };
		if (n < 0 && (errno != EAGAIN || poll(&room, 1, WAIT_MS) != 1))
			return false;
		bytes += n > 0 ? n : 0;
		len -= n > 0 ? (size_t)n : 0;
	}
	return true;
}

static void carry(uint32_t client)
{
	const int other = tcp.fds[client ^ 1];
	const ssize_t n = read(tcp.fds[client], tcp.piece, PIECE_LEN);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		close(tcp.fds[client]);
		tcp.fds[client] = 0;
	} else if (other > 0) {
		(void)write_all(other, tcp.piece, (size_t)n);
	}
}

static void serve_tcp(const struct sockaddr_in *address)
{
	struct epoll_event events[EVENTS];

	tcp.listener = open_socket(SOCK_STREAM, address);
	tcp.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (tcp.epoll_fd < 0 || listen(tcp.listener, SOMAXCONN) != 0)
		fail("listen");
	watch(tcp.listener, CLIENTS);
	for (;;) {
		const int n = epoll_wait(tcp.epoll_fd, events, EVENTS, -1);
		for (int i = 0; i < n; i++) {
			if (events[i].data.u32 == CLIENTS)
				take_connection();
			else if (tcp.fds[events[i].data.u32] > 0)
				carry(events[i].data.u32);
		}
	}
}

int main(int argc, char *argv[])
{
	struct sockaddr_in address = { .sin_family = AF_INET };

	if (argc != 4 || inet_pton(AF_INET, argv[2], &address.sin_addr) != 1) {
		fputs("bench_relay_floor udp|tcp IP PORT\n", stderr);
		return EXIT_FAILURE;
	}
	address.sin_port = htons((uint16_t)atoi(argv[3]));
	if (strcmp(argv[1], "udp") == 0)
		serve_udp(&address);
	serve_tcp(&address);
}
