/* Sockets that rest: each for its time, and no longer than its descriptor is not needed. */
#include "relay/frontdoor/resting_sockets.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#define N 5

/* One that rests from then on; its descriptor. */
static int add(struct resting_sockets *resting, uint64_t now_ms)
{
	struct relay_socket sock = { .fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0) };
	const int fd = sock.fd;

	assert(fd >= 0);
	resting_sockets_add(resting, &sock, now_ms);
	assert(sock.fd == -1);
	return fd;
}

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

static void test_each_rests_for_two_seconds(void)
{
	struct resting_sockets resting;

	resting_sockets_init(&resting);
	assert(resting_sockets_expire(&resting, 1000) == UINT64_MAX);
	const int first = add(&resting, 1000), second = add(&resting, 1500);
	assert(resting_sockets_expire(&resting, 2999) == 3000 && is_open(first));
	assert(resting_sockets_expire(&resting, 3000) == 3500 && !is_open(first) && is_open(second));
	assert(resting_sockets_expire(&resting, 9000) == UINT64_MAX && !is_open(second) && resting.n == 0);
}

static void test_the_oldest_make_room_and_no_more_than_are_needed(void)
{
	struct resting_sockets resting;
	int fds[N];

	resting_sockets_init(&resting);
	for (int i = 0; i < N; i++)
		fds[i] = add(&resting, 1000);
	resting_sockets_make_room(&resting, 10, 10 + N);
	assert(resting.n == N);
	resting_sockets_make_room(&resting, 12, 10 + N);
	assert(resting.n == N - 2 && !is_open(fds[0]) && !is_open(fds[1]) && is_open(fds[2]));
	resting_sockets_make_room(&resting, 1000, 10 + N); /* more than there should be: none is left */
	assert(resting.n == 0 && !is_open(fds[N - 1]));
	resting_sockets_make_room(&resting, 0, 0);
	assert(resting_sockets_expire(&resting, 1000) == UINT64_MAX);
}

/* A try that fails costs a few of those that rest their ports, and not all. */
static void test_for_want_of_one_the_oldest_few_are_given_up(void)
{
	struct resting_sockets resting;
	int fds[20];

	resting_sockets_init(&resting);
	assert(!resting_sockets_give_up(&resting, 0));
	for (int i = 0; i < 20; i++)
		fds[i] = add(&resting, 1000);
	assert(resting_sockets_give_up(&resting, 0) && resting.n == 19 && !is_open(fds[0]) && is_open(fds[1]));
	assert(resting_sockets_give_up(&resting, 1) && resting.n == 17 && !is_open(fds[2]) && is_open(fds[3]));
	assert(resting_sockets_give_up(&resting, 2) && resting_sockets_give_up(&resting, 3) && resting.n == 5);
	assert(!resting_sockets_give_up(&resting, 4) && resting.n == 5 && is_open(fds[15]));
	assert(resting_sockets_give_up(&resting, 3) && resting.n == 0 && !is_open(fds[19]));
	assert(!resting_sockets_give_up(&resting, 0));
}

/* Bound to a port of loopback's, and connected to that one, if it is there. */
static struct relay_socket open_connected(const struct sockaddr_in *to, struct sockaddr_in *ret_own)
{
	struct relay_socket sock = { .fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0) };
	socklen_t len = sizeof(*ret_own);
	const int size = 1 << 20;

	*ret_own = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	assert(setsockopt(sock.fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)) == 0);
	assert(bind(sock.fd, (const struct sockaddr *)ret_own, len) == 0);
	assert(getsockname(sock.fd, (struct sockaddr *)ret_own, &len) == 0);
	if (to)
		assert(connect(sock.fd, (const struct sockaddr *)to, len) == 0);
	return sock;
}

static void test_what_has_come_before_is_thrown_away(void)
{
	static const char datagram[1000];
	struct resting_sockets resting;
	struct sockaddr_in ours, theirs;
	struct relay_socket target = open_connected(NULL, &theirs), sock = open_connected(&theirs, &ours);
	const int fd = sock.fd;
	char byte;

	resting_sockets_init(&resting);
	for (int i = 0; i < 4000; i++) /* more than it takes, without a wait */
		(void)sendto(target.fd, datagram, i % 2 ? sizeof(datagram) : 0, 0, (struct sockaddr *)&ours, sizeof(ours));
	close(target.fd);
	assert(send(fd, datagram, 1, 0) == 1); /* nobody is there: that is said in front of all */
	assert(recv(fd, &byte, 1, MSG_PEEK) == -1 && errno == ECONNREFUSED && send(fd, datagram, 1, 0) == 1);
	resting_sockets_add(&resting, &sock, 1000);
	assert(recv(fd, &byte, 1, MSG_PEEK) == -1 && errno == EAGAIN);
	resting_sockets_make_room(&resting, 0, 0);
}

static void test_nothing_is_kept_of_what_comes(void)
{
	struct resting_sockets resting;
	int size = 0;
	socklen_t len = sizeof(size);

	resting_sockets_init(&resting);
	const int fd = add(&resting, 1000);
	assert(getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, &len) == 0 && size <= 8192);
	resting_sockets_make_room(&resting, 0, 0);
	assert(!is_open(fd));
}

int main(void)
{
	test_each_rests_for_two_seconds();
	test_the_oldest_make_room_and_no_more_than_are_needed();
	test_for_want_of_one_the_oldest_few_are_given_up();
	test_what_has_come_before_is_thrown_away();
	test_nothing_is_kept_of_what_comes();
	return 0;
}
