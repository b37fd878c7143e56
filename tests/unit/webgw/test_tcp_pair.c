/* Two sockets that are each other's end: whoever else connects to where they meet. */
#include "relay/webgw/tcp_pair.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static struct sockaddr_in address_of(int fd)
{
	struct sockaddr_in address = { 0 };
	socklen_t len = sizeof(address);

	assert(getsockname(fd, (struct sockaddr *)&address, &len) == 0);
	return address;
}

static void expect_pair(const int ends[2])
{
	char byte;

	assert(send(ends[0], "x", 1, 0) == 1 && recv(ends[1], &byte, 1, 0) == 1 && byte == 'x');
	close(ends[0]);
	close(ends[1]);
}

static int connect_to(const struct sockaddr_in *address)
{
	const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	assert(connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 || errno == EINPROGRESS);
	return fd;
}

static void test_who_comes_between_is_turned_away(void)
{
	struct tcp_pair_maker maker = { .listener = -1 };
	int ends[2];

	assert(tcp_pair_make(&maker, ends) == 0);
	expect_pair(ends);
	const struct sockaddr_in there = address_of(maker.listener);
	const int stranger = connect_to(&there);
	assert(tcp_pair_make(&maker, ends) == 0);
	expect_pair(ends);
	close(stranger);
	tcp_pair_maker_deinit(&maker);
}

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Where there is no room for the end: the pair is made elsewhere at once, without them. */
static void test_who_crowds_the_place_out_costs_no_pair_and_no_wait(void)
{
	uint64_t least_ms = UINT64_MAX;

	for (int round = 0; round < 5; round++) { /* one of them undisturbed */
		struct tcp_pair_maker maker = { .listener = -1 };
		int ends[2], strangers[40];

		assert(tcp_pair_make(&maker, ends) == 0);
		expect_pair(ends);
		const struct sockaddr_in there = address_of(maker.listener);
		for (int i = 0; i < 40; i++)
			strangers[i] = connect_to(&there);
		const uint64_t before_ms = now_ms();
		assert(tcp_pair_make(&maker, ends) == 0);
		const uint64_t took_ms = now_ms() - before_ms;
		least_ms = took_ms < least_ms ? took_ms : least_ms;
		assert(address_of(maker.listener).sin_port != there.sin_port);
		expect_pair(ends);
		for (int i = 0; i < 40; i++)
			close(strangers[i]);
		tcp_pair_maker_deinit(&maker);
	}
	assert(least_ms < 10);
}

/* As many as have a place before it. */
static void test_the_last_in_the_queue_is_found(void)
{
	struct tcp_pair_maker maker = { .listener = -1 };
	int ends[2], strangers[16];

	assert(tcp_pair_make(&maker, ends) == 0);
	expect_pair(ends);
	const struct sockaddr_in there = address_of(maker.listener);
	for (int i = 0; i < 16; i++)
		strangers[i] = connect_to(&there);
	assert(tcp_pair_make(&maker, ends) == 0);
	assert(address_of(maker.listener).sin_port == there.sin_port);
	expect_pair(ends);
	for (int i = 0; i < 16; i++)
		close(strangers[i]);
	tcp_pair_maker_deinit(&maker);
}

/* The end that nobody asked in is not taken for a stranger of the next pair's. */
static void test_want_of_descriptors_leaves_nothing_behind(void)
{
	struct tcp_pair_maker maker = { .listener = -1 };
	struct rlimit files, few;
	int ends[2];

	assert(tcp_pair_make(&maker, ends) == 0);
	expect_pair(ends);
	assert(getrlimit(RLIMIT_NOFILE, &files) == 0);
	few = files;
	few.rlim_cur = (rlim_t)maker.listener + 2; /* one */
	assert(setrlimit(RLIMIT_NOFILE, &few) == 0);
	assert(tcp_pair_make(&maker, ends) == -EMFILE && maker.listener < 0);
	assert(setrlimit(RLIMIT_NOFILE, &files) == 0);
	assert(tcp_pair_make(&maker, ends) == 0);
	expect_pair(ends);
	tcp_pair_maker_deinit(&maker);
}

int main(void)
{
	test_who_comes_between_is_turned_away();
	test_who_crowds_the_place_out_costs_no_pair_and_no_wait();
	test_the_last_in_the_queue_is_found();
	test_want_of_descriptors_leaves_nothing_behind();
	puts("ok");
	return 0;
}
