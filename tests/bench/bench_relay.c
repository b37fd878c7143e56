/*
 * What a relay carries over TLS and what a client costs it: one relay process, two members that exchange packets
 * of 1400 bytes through it as fast as it goes, then idle members: their memory, and over one keep-alive period of
 * theirs the time that the relay takes for them. Exits with 1 when a packet costs more than 4 µs of CPU, an idle
 * client more than 24 KiB, or all of them 10 % of a core.
 *
 *   bench_relay [SECONDS [IDLE_CLIENTS]]
 */
#include "../unit/relay/world.h"

#include <fcntl.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define PACKET_LEN 1400
#define WINDOW	   256 /* packets on the way at most */
#define KEEP_ALIVE_MS 20000
#define MAX_US	      4.0
#define MAX_KIB	      24.0
#define MAX_CPU	      0.10

static bool has_failed;

static long rss_kib(pid_t pid)
{
	char path[64], line[256];
	long pages = 0;

	snprintf(path, sizeof(path), "/proc/%d/statm", (int)pid);
	FILE *file = fopen(path, "r");
	if (file && fgets(line, sizeof(line), file))
		EXPECT(sscanf(line, "%*d %ld", &pages) == 1);
	if (file)
		fclose(file);
	return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

static double cpu_seconds(pid_t pid)
{
	char path[64], line[512];
	unsigned long user = 0, system = 0;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	FILE *file = fopen(path, "r");
	if (file && fgets(line, sizeof(line), file)) {
		const char *after_name = strrchr(line, ')');
		EXPECT(after_name && sscanf(after_name + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
					    &user, &system) == 2);
	}
	if (file)
		fclose(file);
	return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

/* The relay in a process of its own; returns when it listens. */
static pid_t fork_relay(struct world *w)
{
	int ends[2];

	EXPECT(pipe(ends) == 0);
	pid_t pid = fork();
	EXPECT(pid >= 0);
	if (pid == 0) {
		uv_loop_fork(&w->loop);
		start_server(w);
		EXPECT(write(ends[1], &w->port, sizeof(w->port)) == sizeof(w->port));
		uv_run(&w->loop, UV_RUN_DEFAULT);
		_exit(0);
	}
	EXPECT(read(ends[0], &w->port, sizeof(w->port)) == sizeof(w->port));
	close(ends[0]);
	close(ends[1]);
	return pid;
}

static void measure_throughput(struct world *w, pid_t relay, double seconds)
{
	struct member alice, bob;
	uint64_t number = 0;
	make_member(&alice, w, "alice", 1);
	make_member(&bob, w, "bob", 2);
	connect_and_await(&alice);
	connect_and_await(&bob);

	double cpu = cpu_seconds(relay);
	uint64_t begin = uv_hrtime(), end = begin + (uint64_t)(seconds * 1e9);
	while (uv_hrtime() < end) {
		for (int i = 0; i < 64 && number < bob.n_packets + WINDOW; i++)
			send_number(&alice, &bob, ++number, PACKET_LEN);
		uv_run(&w->loop, UV_RUN_NOWAIT);
	}
	double took = (double)(uv_hrtime() - begin) / 1e9, bits = (double)bob.n_packets * PACKET_LEN * 8;
	cpu = cpu_seconds(relay) - cpu;
	printf("relay: %.0f packets/s, %.2f Gbit/s of %d-byte packets; relay used %.0f %% of a core: "
	       "%.2f us a packet\n",
	       bob.n_packets / took, bits / took / 1e9, PACKET_LEN, 100 * cpu / took, 1e6 * cpu / bob.n_packets);
	has_failed = has_failed || 1e6 * cpu / bob.n_packets > MAX_US;
	close_member(&alice);
	close_member(&bob);
}

static void measure_memory(struct world *w, pid_t relay, unsigned n)
{
	struct member *members = calloc(n, sizeof(*members));
	SSL_CTX *context = NULL;
	unsigned n_ready = 0;

	EXPECT(members != NULL);
	long before = rss_kib(relay);
	for (unsigned i = 0; i < n; i++) {
		struct public_key key = { { (uint8_t)i, (uint8_t)(i >> 8), 77 } };
		context = make_context(w, NULL, "idle", &key, false, 3600);
		members[i] = (struct member){ .world = w, .name = "idle", .key = key, .context = context };
		connect_member(&members[i]);
		AWAIT(w, members[i].n_ready == 1);
		n_ready++;
	}
	run_for(w, 500);
	long after = rss_kib(relay);
	double cpu = cpu_seconds(relay);
	run_for(w, KEEP_ALIVE_MS);
	cpu = cpu_seconds(relay) - cpu;
	printf("relay: %u idle clients, their keep-alives served for %d s: %.2f %% of a core\n", n_ready,
	       KEEP_ALIVE_MS / 1000, 100 * cpu * 1000 / KEEP_ALIVE_MS);
	has_failed = has_failed || cpu * 1000 / KEEP_ALIVE_MS > MAX_CPU;
	printf("relay: %u idle clients: %.1f KiB each (RSS %ld -> %ld KiB)\n", n_ready,
	       (double)(after - before) / n_ready, before, after);
	has_failed = has_failed || (double)(after - before) / n_ready > MAX_KIB;
	for (unsigned i = 0; i < n; i++)
		close_member(&members[i]);
	free(members);
}

int main(int argc, char **argv)
{
	struct world w;
	double seconds = argc > 1 ? atof(argv[1]) : 3;
	unsigned n_idle = argc > 2 ? (unsigned)atoi(argv[2]) : 200;

	world_begin(&w);
	w.server_options.max_rate_source = 1000000;
	pid_t relay = fork_relay(&w);
	measure_throughput(&w, relay, seconds);
	measure_memory(&w, relay, n_idle);
	kill(relay, SIGTERM);
	EXPECT(waitpid(relay, NULL, 0) == relay);
	world_end(&w);
	return has_failed ? 1 : 0;
}
