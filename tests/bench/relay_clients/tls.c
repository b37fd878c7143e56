/*
 *   process 1: the relay
 *   the others: so many clients each that their connections are no more files than a process may have
 *
 * Memory is what the relay's process grows by after a first client: when all are there, after a keep-alive period, and
 * when each has sent a packet to another; less the buffers that it keeps for those used last (9 MB at most), which are
 * told beside it. CPU is what it takes in one keep-alive period of theirs. The kernel's part of a connection is not in
 * it. A client may cost 24 KiB, and all of them 10 % of a core.
 */
#include "tests/bench/relay_clients/clients.h"

#include "tests/unit/relay/world.h"

#include <openssl/ssl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MOST_EACH     5000 /* clients of a process */
#define MAX_PROCESSES 8
#define KEEP_ALIVE_MS 20000
#define SETTLE_MS     500
#define SETUP_S	      300
#define MAX_KIB	      24.0
#define MAX_CPU	      0.10

struct shared {
	atomic_uint n_ready, n_lost, n_heard;
	atomic_bool is_talk; /* each shall send a packet to another */
};

static long rss_kib(pid_t pid)
{
	char path[64];
	long pages = 0;

	snprintf(path, sizeof(path), "/proc/%d/statm", (int)pid);
	FILE *file = fopen(path, "r");
	EXPECT(file && fscanf(file, "%*d %ld", &pages) == 1);
	fclose(file);
	return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

static double cpu_seconds(pid_t pid)
{
	clockid_t clock;
	struct timespec t;

	EXPECT(clock_getcpuclockid(pid, &clock) == 0 && clock_gettime(clock, &t) == 0);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void rest(unsigned ms)
{
	nanosleep(&(struct timespec){ .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 }, NULL);
}

static void await_count(atomic_uint *count, unsigned n)
{
	for (unsigned waited_ms = 0; atomic_load(count) < n; waited_ms += 100) {
		EXPECT(waited_ms < SETUP_S * 1000);
		rest(100);
	}
}

static void begin_child(struct world *w)
{
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	EXPECT(uv_loop_fork(&w->loop) == 0);
}

/* Returns when it listens. */
static pid_t fork_relay(struct world *w)
{
	int ends[2];

	EXPECT(pipe(ends) == 0);
	const pid_t pid = fork();
	EXPECT(pid >= 0);
	if (pid == 0) {
		begin_child(w);
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

static void connect_one(struct world *w, struct member *member, unsigned number)
{
	const struct public_key key = { { (uint8_t)number, (uint8_t)(number >> 8), (uint8_t)(number >> 16), 77 } };

	*member = (struct member){ .world = w,
				   .name = "idle",
				   .key = key,
				   .context = make_context(w, NULL, "idle", &key, false, 3600) };
	connect_member(member);
	AWAIT(w, member->n_ready == 1);
}

/* Each to the next; returns when all have been heard. */
static void talk(struct world *w, struct member *members, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		struct member *to = &members[(i + 1) % n];
		EXPECT(send_text(&members[i], to, "hello") == 0);
		AWAIT(w, to->n_packets == 1);
	}
}

/* Clients `first` and the n - 1 after it, until the program that measures kills this one. */
static pid_t fork_clients(struct world *w, struct shared *shared, unsigned first, unsigned n)
{
	const pid_t pid = fork();

	EXPECT(pid >= 0);
	if (pid > 0)
		return pid;
	begin_child(w);
	struct member *members = calloc(n, sizeof(*members));
	EXPECT(members != NULL);
	bool has_talked = false;
	for (unsigned i = 0; i < n; i++) {
		connect_one(w, &members[i], first + i);
		atomic_fetch_add(&shared->n_ready, 1);
	}
	for (;;) {
		run_for(w, 100);
		if (!has_talked && atomic_load(&shared->is_talk)) {
			has_talked = true;
			talk(w, members, n);
			atomic_fetch_add(&shared->n_heard, n);
		}
		for (unsigned i = 0; i < n; i++) {
			atomic_fetch_add(&shared->n_lost, members[i].n_lost > 0);
			members[i].n_lost = 0;
		}
	}
}

/* KiB of the relay that each client takes, but for what is kept for those used last. */
static double each_kib(pid_t relay, unsigned n, long before_kib)
{
	const unsigned n_kept = n < TLS_HOST_KEPT ? n : TLS_HOST_KEPT;

	return (double)(rss_kib(relay) - before_kib - (long)n_kept * TLS_STREAM_BUFFERS / 1024) / n;
}

static bool judge(pid_t relay, struct shared *shared, unsigned n, long before_kib)
{
	const double each = each_kib(relay, n, before_kib), cpu = cpu_seconds(relay);

	rest(KEEP_ALIVE_MS);
	const double share = (cpu_seconds(relay) - cpu) * 1000 / KEEP_ALIVE_MS;
	const double after = each_kib(relay, n, before_kib);
	atomic_store(&shared->is_talk, true);
	await_count(&shared->n_heard, n + 1);
	rest(SETTLE_MS);
	const double talked = each_kib(relay, n, before_kib);
	printf("%u clients over TLS: %.1f KiB each, %.1f after %d s, and %.1f when each has sent a packet (at most %.0f; "
	       "and %d KiB for each of the %d used last); their keep-alives: %.1f %% of a core (at most %.0f %%); %u lost\n",
	       n, each, after, KEEP_ALIVE_MS / 1000, talked, MAX_KIB, TLS_STREAM_BUFFERS / 1024, TLS_HOST_KEPT,
	       100 * share, 100 * MAX_CPU, atomic_load(&shared->n_lost));
	fflush(stdout);
	return each <= MAX_KIB && after <= MAX_KIB && talked <= MAX_KIB && share < MAX_CPU &&
	       atomic_load(&shared->n_lost) == 0;
}

bool clients_over_tls(unsigned n)
{
	struct world w;
	struct shared *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t pids[MAX_PROCESSES + 1];
	unsigned n_pids = 0;

	EXPECT(shared != MAP_FAILED && n <= MAX_PROCESSES * MOST_EACH);
	world_begin(&w);
	w.server_options.max_rate_source = 1000000;
	w.server_options.max_clients = n + 1;
	const pid_t relay = fork_relay(&w);
	pids[n_pids++] = fork_clients(&w, shared, n, 1); /* the first: what all share is allocated with it */
	await_count(&shared->n_ready, 1);
	const long before_kib = rss_kib(relay);
	for (unsigned first = 0; first < n; first += MOST_EACH)
		pids[n_pids++] = fork_clients(&w, shared, first, n - first < MOST_EACH ? n - first : MOST_EACH);
	await_count(&shared->n_ready, n + 1);
	rest(SETTLE_MS);
	const bool holds = judge(relay, shared, n, before_kib);
	for (unsigned i = 0; i < n_pids; i++) {
		kill(pids[i], SIGKILL);
		waitpid(pids[i], NULL, 0);
	}
	kill(relay, SIGKILL);
	waitpid(relay, NULL, 0);
	munmap(shared, sizeof(*shared));
	world_end(&w);
	return holds;
}
