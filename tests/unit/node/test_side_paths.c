/*
 * Paths by sockets beside: one pair for a socket that was hit, for the peer alone; never more sockets than a search
 * has. What they are for is tested with real NATs (tests/net/test_hard_nat.py).
 */
#include "node/side_paths.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#define PEER 7

static uint32_t n_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	uint32_t n = 0;

	assert(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static void test_no_other_sockets_are_opened_before_those_of_the_last_search_are_gone(void)
{
	const struct endpoint from = endpoint_from_v4(0xcb007101, 4000);
	uv_loop_t loop;
	uv_loop_init(&loop);
	struct side_paths *paths = side_paths_new(&loop);
	uint32_t n_opened = 0;

	int r = side_paths_search(paths, PEER, 8, &from, 7000);
	assert(r == 0);
	r = side_paths_search(paths, PEER + 1, 8, &from, 7000);
	assert(r == -EBUSY && "another peer is searched for");
	const uint32_t n_before = n_descriptors();
	for (int i = 0; i < 100; i++) { /* all in one loop turn */
		side_paths_stop_search(paths, PEER);
		n_opened += side_paths_search(paths, PEER, 8, &from, 7000) == 0;
	}
	assert(n_opened == 0 && n_descriptors() == n_before);

	uv_run(&loop, UV_RUN_NOWAIT);
	assert(n_descriptors() == n_before - 8);
	r = side_paths_search(paths, PEER, 8, &from, 7000);
	assert(r == 0);
	side_paths_free(paths);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert(uv_loop_close(&loop) == 0);
}

static int udp_socket(struct endpoint *ret)
{
	struct sockaddr_in name = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(name);
	const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	int r = bind(fd, (struct sockaddr *)&name, sizeof(name));
	assert(r == 0);
	r = getsockname(fd, (struct sockaddr *)&name, &len);
	assert(r == 0);
	*ret = endpoint_from_sockaddr((struct sockaddr *)&name);
	return fd;
}

/*
 * Three of the peer and one of a stranger wait in the socket when it is looked at first: one pair, which carries what
 * is the peer's.
 */
static void test_all_that_waits_in_a_socket_makes_one_pair_and_a_strangers_goes_nowhere(void)
{
	struct endpoint us, peer, stranger;
	const int our_fd = udp_socket(&us), peer_fd = udp_socket(&peer), strange_fd = udp_socket(&stranger);
	struct sockaddr_in hit, source, first_source;
	socklen_t len = sizeof(hit);
	uv_loop_t loop;
	char byte;
	uint32_t n = 0;
	uv_loop_init(&loop);
	struct side_paths *paths = side_paths_new(&loop);

	int r = side_paths_search(paths, PEER, 4, &peer, us.port);
	assert(r == 0);
	side_paths_knock(paths, PEER, 2, &peer);
	ssize_t got = recvfrom(peer_fd, &byte, 1, 0, (struct sockaddr *)&hit, &len);
	assert(got == 1);
	hit.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	for (int i = 0; i < 4; i++) {
		got = sendto(i == 1 ? strange_fd : peer_fd, i == 1 ? "x" : "p", 1, 0, (struct sockaddr *)&hit, sizeof(hit));
		assert(got == 1);
	}
	for (int i = 0; i < 4; i++)
		uv_run(&loop, UV_RUN_NOWAIT);

	for (len = sizeof(source); recvfrom(our_fd, &byte, 1, 0, (struct sockaddr *)&source, &len) == 1; n++) {
		assert(byte == 'p');
		if (n == 0)
			first_source = source;
		assert(source.sin_port == first_source.sin_port && "of one pair");
	}
	assert(n == 3);
	side_paths_free(paths);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert(uv_loop_close(&loop) == 0);
	close(our_fd);
	close(peer_fd);
	close(strange_fd);
}

int main(void)
{
	test_all_that_waits_in_a_socket_makes_one_pair_and_a_strangers_goes_nowhere();
	test_no_other_sockets_are_opened_before_those_of_the_last_search_are_gone();
	puts("ok");
	return 0;
}
