/* Sockets that rest: each for its time, and no longer than its descriptor is not needed. */
#include "relay/frontdoor/resting_sockets.h"

#include <assert.h>
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
	test_nothing_is_kept_of_what_comes();
	return 0;
}
