/*
 * What a diglett tunnel carries, server, agent, target and visitors a process each, on the loopback.
 *
 *   bench_diglett [SECONDS] [ROUNDS]        3 and 3
 *
 *   visitors ──► server ══ one connection ══ agent ──► target         and, to compare, visitors ──► target
 *
 * Each round measures every row once, so that what else the machine does meets all alike; printed are the medians: bytes of
 * one and of 8 visitors, from the target and to it; of 8 while one more, or another 8, read nothing, which should be the same;
 * and how long the first byte of a new visitor takes. At the end what is wanted: 2 Gb/s, and nine tenths beside who reads nothing.
 */
#include "../unit/diglett/diglett_world.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BUFFER	     (256 * 1024)
#define WARM_UP_US   300000
#define MAX_VISITORS 8
#define N_FIRST	     200 /* new visitors of a round */
#define MAX_ROUNDS   32
#define NOTE_PORT    "test $1 = remove || { echo \"$1 $2 $3 $4\" >$0.new; mv $0.new $0.told; }"

enum row { DIRECT_1, DOWN_1, UP_1, DOWN_8, UP_8, DOWN_8_STALLED_1, DOWN_8_STALLED_8, FIRST_P50, FIRST_P99, DIRECT_P50, N_ROWS };

static const char *const row_names[N_ROWS] = {
	[DIRECT_1] = "without a tunnel, 1 visitor, Gb/s",
	[DOWN_1] = "from the target, 1 visitor, Gb/s",
	[UP_1] = "to the target, 1 visitor, Gb/s",
	[DOWN_8] = "from the target, 8 visitors, Gb/s",
	[UP_8] = "to the target, 8 visitors, Gb/s",
	[DOWN_8_STALLED_1] = "from the target, 8 visitors beside one that reads nothing, Gb/s",
	[DOWN_8_STALLED_8] = "from the target, 8 visitors beside 8 that read nothing, Gb/s",
	[FIRST_P50] = "first byte of a new visitor, p50, ms",
	[FIRST_P99] = "first byte of a new visitor, p99, ms",
	[DIRECT_P50] = "the same without a tunnel, p50, ms",
};

static double results[N_ROWS][MAX_ROUNDS];
static uint16_t target_port, tunnel_port;

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* the target: does what the first byte of a connection says */

static void *serve(void *arg)
{
	const int fd = (int)(intptr_t)arg;
	char *bytes = calloc(1, BUFFER), word = 0;

	if (recv(fd, &word, 1, 0) == 1) {
		if (word == 'd')
			while (send(fd, bytes, BUFFER, MSG_NOSIGNAL) > 0)
				;
		if (word == 'u')
			while (recv(fd, bytes, BUFFER, 0) > 0)
				;
		if (word == 'e')
			(void)send(fd, "e", 1, MSG_NOSIGNAL);
	}
	free(bytes);
	close(fd);
	return NULL;
}

static void run_target(int listener)
{
	pthread_t thread;

	for (;;) {
		const int fd = accept(listener, NULL, NULL);
		assert(fd >= 0 && pthread_create(&thread, NULL, serve, (void *)(intptr_t)fd) == 0);
		pthread_detach(thread);
	}
}

/* visitors */

struct stream {
	pthread_t thread;
	int fd;
	bool is_upload;
	_Atomic uint64_t bytes;
};

static int open_stream(uint16_t port, char word)
{
	const int fd = visit(port);

	assert(fd >= 0 && send(fd, &word, 1, MSG_NOSIGNAL) == 1);
	return fd;
}

static void *move_bytes(void *arg)
{
	struct stream *stream = arg;
	char *bytes = calloc(1, BUFFER);
	ssize_t n;

	do {
		n = stream->is_upload ? send(stream->fd, bytes, BUFFER, MSG_NOSIGNAL) : recv(stream->fd, bytes, BUFFER, 0);
		stream->bytes += n > 0 ? (uint64_t)n : 0;
	} while (n > 0);
	free(bytes);
	return NULL;
}

static uint64_t sum_of(struct stream *streams, int n)
{
	uint64_t sum = 0;

	for (int i = 0; i < n; i++)
		sum += streams[i].bytes;
	return sum;
}

/* Gb/s of n streams together. What is sent counts as carried; all but the last megabytes are. */
static double measure(uint16_t port, int n, bool is_upload, double seconds)
{
	struct stream streams[MAX_VISITORS] = { 0 };

	for (int i = 0; i < n; i++) {
		streams[i].fd = open_stream(port, is_upload ? 'u' : 'd');
		streams[i].is_upload = is_upload;
		assert(pthread_create(&streams[i].thread, NULL, move_bytes, &streams[i]) == 0);
	}
	usleep(WARM_UP_US);
	const double begin_s = now_s();
	const uint64_t before = sum_of(streams, n);
	usleep((useconds_t)(seconds * 1e6));
	const double gigabits = (double)(sum_of(streams, n) - before) * 8 / 1e9 / (now_s() - begin_s);
	for (int i = 0; i < n; i++) {
		shutdown(streams[i].fd, SHUT_RDWR);
		pthread_join(streams[i].thread, NULL);
		close(streams[i].fd);
	}
	return gigabits;
}

static double measure_beside_stalled(int n, double seconds)
{
	int stalled[MAX_VISITORS];

	for (int i = 0; i < n; i++)
		stalled[i] = open_stream(tunnel_port, 'd');
	usleep(WARM_UP_US); /* all that waits for them is full */
	const double gigabits = measure(tunnel_port, MAX_VISITORS, false, seconds);
	for (int i = 0; i < n; i++)
		close(stalled[i]);
	return gigabits;
}

static int compare(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static void measure_first_bytes(uint16_t port, double *ret_p50, double *ret_p99)
{
	double ms[N_FIRST];
	char byte;

	for (int i = 0; i < N_FIRST; i++) {
		const double begin_s = now_s();
		const int fd = open_stream(port, 'e');
		assert(recv(fd, &byte, 1, 0) == 1);
		ms[i] = (now_s() - begin_s) * 1e3;
		close(fd);
	}
	qsort(ms, N_FIRST, sizeof(*ms), compare);
	*ret_p50 = ms[N_FIRST / 2];
	*ret_p99 = ms[N_FIRST * 99 / 100];
}

static double median(double *values, int n)
{
	qsort(values, (size_t)n, sizeof(*values), compare);
	return values[n / 2];
}

static void judge(const char *what, double value, double wanted)
{
	printf("%s: %.2f (wanted: at least %g): %s\n", what, value, wanted, value >= wanted ? "reached" : "MISSED");
}

static void run_visitors(double seconds, int rounds)
{
	double beside_1[MAX_ROUNDS], beside_8[MAX_ROUNDS];
	double unused;

	while ((tunnel_port = told_port()) == 0)
		usleep(10000);
	for (int i = 0; i < rounds; i++) {
		results[DIRECT_1][i] = measure(target_port, 1, false, seconds);
		results[DOWN_1][i] = measure(tunnel_port, 1, false, seconds);
		results[UP_1][i] = measure(tunnel_port, 1, true, seconds);
		results[DOWN_8][i] = measure(tunnel_port, MAX_VISITORS, false, seconds);
		results[UP_8][i] = measure(tunnel_port, MAX_VISITORS, true, seconds);
		results[DOWN_8_STALLED_1][i] = measure_beside_stalled(1, seconds);
		results[DOWN_8_STALLED_8][i] = measure_beside_stalled(MAX_VISITORS, seconds);
		beside_1[i] = results[DOWN_8_STALLED_1][i] / results[DOWN_8][i];
		beside_8[i] = results[DOWN_8_STALLED_8][i] / results[DOWN_8][i];
		measure_first_bytes(target_port, &results[DIRECT_P50][i], &unused);
		measure_first_bytes(tunnel_port, &results[FIRST_P50][i], &results[FIRST_P99][i]);
	}
	for (int row = 0; row < N_ROWS; row++) {
		qsort(results[row], (size_t)rounds, sizeof(double), compare);
		printf("%-65s %8.2f   (%.2f – %.2f)\n", row_names[row], results[row][rounds / 2], results[row][0],
		       results[row][rounds - 1]);
	}
	for (enum row row = DOWN_1; row <= UP_8; row++)
		judge(row_names[row], results[row][rounds / 2], 2);
	judge("beside one that reads nothing, x without (median of the rounds' ratios)", median(beside_1, rounds), 0.9);
	judge("beside 8 that read nothing, x without", median(beside_8, rounds), 0.9);
	fflush(stdout);
}

/* processes */

/* True in the child, which ends with us. */
static bool begin_process(pid_t *ret)
{
	*ret = fork();
	assert(*ret >= 0);
	if (*ret == 0)
		assert(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
	return *ret == 0;
}

static int listen_as_target(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(address);
	const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert(listener >= 0 && bind(listener, (struct sockaddr *)&address, len) == 0 && listen(listener, 64) == 0);
	assert(getsockname(listener, (struct sockaddr *)&address, &len) == 0);
	target_port = ntohs(address.sin_port);
	return listener;
}

static void end_process(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

int main(int argc, char **argv)
{
	const double seconds = argc > 1 ? atof(argv[1]) : 3;
	const int rounds = argc > 2 ? atoi(argv[2]) : 3;
	pid_t target, agent, visitors;
	int status = 1;

	if (seconds <= 0 || rounds < 1 || rounds > MAX_ROUNDS) {
		fprintf(stderr, "usage: bench_diglett [SECONDS] [ROUNDS]\n");
		return 2;
	}
	const int listener = listen_as_target();
	if (begin_process(&target))
		run_target(listener);
	new_world(NOTE_PORT);
	start_server();
	if (begin_process(&agent)) {
		assert(uv_loop_init(&world.loop) == 0);
		start_agent("app", world.token, target_port);
		uv_run(&world.loop, UV_RUN_DEFAULT);
	}
	if (begin_process(&visitors)) {
		run_visitors(seconds, rounds);
		_exit(0);
	}
	AWAIT(waitpid(visitors, &status, WNOHANG) != 0);
	end_process(agent);
	end_process(target);
	end_world();
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
