/*
 * Visitors of a front door, and the server behind it, for tests/bench/frontdoor. Nobody speaks TLS: a visitor begins with
 * a ClientHello, by which a door knows the host, and behind it says in one byte what it wants of the server.
 *
 *   serve PORT                           until it is killed
 *
 * PORT: at 127.0.0.1, or ADDRESS:PORT. What these calls cost bounds what can be measured of a door: so they are as few as can be.
 *
 *   stream PORT HOST N MS                bytes a second by N connections at once
 *   connect PORT HOST N MS               connections a second, N at once, and time to first byte: p50, p99 (us)
 *   hold PORT HOST N BYTES               N connections that were sent so many bytes; says so, and holds them until the
 *                                        end of its input
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BUFFER	   (256 * 1024)
#define MAX_EVENTS 256
#define MAX_FDS	   65536
#define MAX_TIMES  4000000

enum want { WANT_STREAM = 's', WANT_BYTE = 'b', WANT_HOLD = 'h' };

#define WISH_AT 11 /* in a hello, where its random bytes begin */

static uint8_t hello[512], bytes[BUFFER];
static size_t hello_len;

static uint64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void die(const char *what)
{
	perror(what);
	exit(1);
}

/* ---- a ClientHello ---- */

static void put(uint64_t value, int n)
{
	for (int i = n - 1; i >= 0; i--)
		hello[hello_len++] = (uint8_t)(value >> (8 * i));
}

/* TLS 1.2 with one cipher suite and one extension, server_name; length fields behind it are filled in at the end. */
static void make_hello(const char *host)
{
	const size_t n = strlen(host);

	hello_len = 0;
	put(0x160301, 3), put(0, 2);	/* record */
	put(0x01000000, 4);		/* handshake */
	put(0x0303, 2);
	for (int i = 0; i < 32; i++)
		put((uint64_t)i, 1);
	put(0, 1);			/* session */
	put(2, 2), put(0x1301, 2);	/* cipher suites */
	put(1, 1), put(0, 1);		/* compression */
	put(n + 9, 2);			/* extensions */
	put(0, 2), put(n + 5, 2), put(n + 3, 2), put(0, 1), put(n, 2);
	memcpy(hello + hello_len, host, n);
	hello_len += n;
	hello[3] = (uint8_t)((hello_len - 5) >> 8), hello[4] = (uint8_t)(hello_len - 5);
	hello[7] = (uint8_t)((hello_len - 9) >> 8), hello[8] = (uint8_t)(hello_len - 9);
}

/* ---- the server ---- */

struct guest {
	size_t n_read;
	size_t left; /* to be sent; SIZE_MAX: no end */
	bool holds;
	uint8_t head[520];
};

static struct guest *guests[MAX_FDS];

static void leave(int fd)
{
	free(guests[fd]);
	guests[fd] = NULL;
	close(fd);
}

/*
 * What it wants, and how many bytes, once its ClientHello (with its length in it) is here: they stand where 32 bytes by chance do. Behind
 * a hello nothing comes before its answer, as with all who speak TLS.
 */
static bool take_wish(struct guest *guest)
{
	const uint8_t *head = guest->head;
	const size_t len = guest->n_read >= 5 ? 5 + (size_t)(head[3] << 8 | head[4]) : SIZE_MAX;
	uint32_t n;

	if (guest->n_read < 5 || guest->n_read < len || len < WISH_AT + 5)
		return false;
	memcpy(&n, head + WISH_AT + 1, sizeof(n));
	guest->holds = head[WISH_AT] == WANT_HOLD;
	guest->left = head[WISH_AT] == WANT_STREAM ? SIZE_MAX : n;
	return true;
}

static void attend(int fd)
{
	struct guest *guest = guests[fd];

	if (!guest)
		return;
	for (;;) { /* until its end, which is an end of ours too */
		uint8_t *at = guest->n_read < sizeof(guest->head) ? guest->head + guest->n_read : bytes;
		size_t room = guest->n_read < sizeof(guest->head) ? sizeof(guest->head) - guest->n_read : BUFFER;
		const ssize_t n = recv(fd, at, room, 0);
		if (n == 0 || (n < 0 && errno != EAGAIN)) {
			leave(fd);
			return;
		}
		if (n < 0)
			break;
		const bool had = guest->left > 0 || guest->holds;
		guest->n_read += (size_t)n;
		if (!had && take_wish(guest) && !guest->holds && guest->left < BUFFER)
			break; /* it is told at once, and then its end comes */
	}
	while (guest->left > 0) {
		const size_t want = guest->left < BUFFER ? guest->left : BUFFER;
		const ssize_t n = send(fd, bytes, want, MSG_NOSIGNAL);
		if (n < 0)
			return;
		guest->left -= guest->left == SIZE_MAX ? 0 : (size_t)n;
		if (guest->left == 0 && !guest->holds) {
			leave(fd);
			return;
		}
	}
}

/* "PORT" or "ADDRESS:PORT" */
static struct sockaddr_in parse_place(const char *text)
{
	struct sockaddr_in place = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	const char *colon = strchr(text, ':');
	char address[32] = "";

	if (colon && (size_t)(colon - text) < sizeof(address)) {
		memcpy(address, text, (size_t)(colon - text));
		if (inet_pton(AF_INET, address, &place.sin_addr) != 1)
			exit(2);
	}
	place.sin_port = htons((uint16_t)atoi(colon ? colon + 1 : text));
	return place;
}

static int listen_at(struct sockaddr_in address)
{
	const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 4096) < 0)
		die("listen");
	return fd;
}

static _Noreturn void serve(struct sockaddr_in place)
{
	const int listener = listen_at(place), epoll = epoll_create1(0);
	struct epoll_event events[MAX_EVENTS], event = { .events = EPOLLIN, .data.fd = listener };

	epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
	printf("serving\n");
	fflush(stdout);
	for (;;) {
		const int n = epoll_wait(epoll, events, MAX_EVENTS, -1);
		for (int i = 0; i < n; i++) {
			int fd = events[i].data.fd;
			if (fd != listener) {
				attend(fd);
				continue;
			}
			while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
				guests[fd] = calloc(1, sizeof(struct guest));
				attend(fd); /* who wants little may be gone already, and costs no more calls */
				if (!guests[fd])
					continue;
				event = (struct epoll_event){ .events = EPOLLIN | EPOLLOUT | EPOLLET, .data.fd = fd };
				epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
			}
		}
	}
}

/* ---- visitors ---- */

static struct sockaddr_in to; /* where the visitors go */

/* On the loopback each from an address of its own, so that no ports run out. */
static void bind_own(int fd)
{
	static uint32_t n;
	const int one = 1;
	const struct sockaddr_in from = { .sin_family = AF_INET,
					  .sin_addr.s_addr = htonl(0x7f010001 + n++ % 60000) };
	setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
	if (bind(fd, (const struct sockaddr *)&from, sizeof(from)) < 0)
		die("bind");
}

/* -1: the door takes nobody now. */
static int visit(enum want want, uint32_t n_bytes, bool blocks)
{
	const bool is_near = ntohl(to.sin_addr.s_addr) == INADDR_LOOPBACK;
	const int fd = socket(AF_INET, SOCK_STREAM | (blocks || !is_near ? 0 : SOCK_NONBLOCK), 0);
	uint8_t said[sizeof(hello)];

	if (fd < 0)
		die("socket");
	if (is_near)
		bind_own(fd);
	if (connect(fd, (const struct sockaddr *)&to, sizeof(to)) < 0 && errno != EINPROGRESS)
		die("connect");
	memcpy(said, hello, hello_len);
	said[WISH_AT] = (uint8_t)want;
	memcpy(said + WISH_AT + 1, &n_bytes, sizeof(n_bytes));
	if (send(fd, said, hello_len, MSG_NOSIGNAL) == (ssize_t)hello_len) {
		if (!is_near && !blocks)
			fcntl(fd, F_SETFL, O_NONBLOCK);
		return fd;
	}
	close(fd); /* on the loopback a connection is there at once, or turned away */
	return -1;
}

static int stream(int n, uint64_t ms)
{
	const int epoll = epoll_create1(0);
	struct epoll_event events[MAX_EVENTS];
	uint64_t total = 0, begin = 0, until = UINT64_MAX;

	for (int i = 0; i < n; i++) {
		struct epoll_event event = { .events = EPOLLIN, .data.fd = visit(WANT_STREAM, 1, false) };
		if (event.data.fd < 0)
			die("send");
		epoll_ctl(epoll, EPOLL_CTL_ADD, event.data.fd, &event);
	}
	for (uint64_t now; (now = now_us()) < until;) {
		const int ready = epoll_wait(epoll, events, MAX_EVENTS, 1000);
		for (int i = 0; i < ready; i++) {
			const ssize_t got = recv(events[i].data.fd, bytes, BUFFER, 0);
			if (got == 0 || (got < 0 && errno != EAGAIN))
				die("a stream ended");
			total += got > 0 ? (uint64_t)got : 0;
		}
		if (begin == 0 && total > 64 << 20) { /* what comes first finds small windows */
			begin = now_us();
			until = begin + ms * 1000;
			total = 0;
		}
	}
	printf("%.0f\n", (double)total * 8 * 1e6 / (double)(now_us() - begin));
	return 0;
}

static uint32_t *times;
static size_t n_times;
static uint64_t begun_us[MAX_FDS];

static int by_value(const void *a, const void *b)
{
	const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static void begin_visit(int epoll, uint64_t *n_failed)
{
	uint64_t begun;
	int fd;

	do {
		begun = now_us();
		fd = visit(WANT_BYTE, 1, false);
		*n_failed += fd < 0;
	} while (fd < 0);
	begun_us[fd] = begun;
	epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &(struct epoll_event){ .events = EPOLLIN | EPOLLRDHUP, .data.fd = fd });
}

/* has_ended: its end came with what is there to read. True: this visit is over. */
static bool go_on(int fd, bool has_ended, uint64_t *n_failed)
{
	uint8_t got[16];
	const ssize_t n = recv(fd, got, sizeof(got), 0);

	if (n < 0 && errno == EAGAIN)
		return false;
	if (n > 0) {
		if (n_times < MAX_TIMES)
			times[n_times++] = (uint32_t)(now_us() - begun_us[fd]);
		begun_us[fd] = 0;
		if (!has_ended)
			return false;
	}
	*n_failed += begun_us[fd] != 0;
	close(fd);
	return true;
}

static int connect_and_go(int n, uint64_t ms)
{
	const int epoll = epoll_create1(0);
	const uint64_t begin = now_us();
	struct epoll_event events[MAX_EVENTS];
	uint64_t n_failed = 0;

	times = malloc(MAX_TIMES * sizeof(*times));
	for (int i = 0; i < n; i++)
		begin_visit(epoll, &n_failed);
	while (now_us() < begin + ms * 1000) {
		const int ready = epoll_wait(epoll, events, MAX_EVENTS, 1000);
		for (int i = 0; i < ready; i++)
			if (go_on(events[i].data.fd, events[i].events & EPOLLRDHUP, &n_failed))
				begin_visit(epoll, &n_failed);
	}
	const double seconds = (double)(now_us() - begin) / 1e6;
	if (n_times == 0)
		die("no visit");
	qsort(times, n_times, sizeof(*times), by_value);
	printf("%.0f %u %u %lu\n", (double)n_times / seconds, times[n_times / 2], times[n_times * 99 / 100],
	       (unsigned long)n_failed);
	return 0;
}

static int hold(int n, uint32_t n_bytes)
{
	for (int i = 0; i < n; i++) {
		const int fd = visit(WANT_HOLD, n_bytes, true);
		if (fd < 0)
			die("send");
		for (uint32_t got = 0; got < n_bytes;) {
			const ssize_t more = recv(fd, bytes, BUFFER, 0);
			if (more <= 0)
				die("recv");
			got += (uint32_t)more;
		}
	}
	printf("held\n");
	fflush(stdout);
	return getchar() == EOF ? 0 : 1;
}

int main(int argc, char **argv)
{
	struct rlimit files;

	signal(SIGPIPE, SIG_IGN);
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max < MAX_FDS ? files.rlim_max : MAX_FDS;
	setrlimit(RLIMIT_NOFILE, &files);
	if (argc == 3 && strcmp(argv[1], "serve") == 0)
		serve(parse_place(argv[2]));
	if (argc != 6)
		return 2;
	to = parse_place(argv[2]);
	const int n = atoi(argv[4]);
	make_hello(argv[3]);
	if (strcmp(argv[1], "stream") == 0)
		return stream(n, (uint64_t)atoi(argv[5]));
	if (strcmp(argv[1], "connect") == 0)
		return connect_and_go(n, (uint64_t)atoi(argv[5]));
	if (strcmp(argv[1], "hold") == 0)
		return hold(n, (uint32_t)atoi(argv[5]));
	return 2;
}
