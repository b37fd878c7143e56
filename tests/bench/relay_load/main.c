/*
 * bench_relay_load members FOLDER N
 *     makes N clients members of the network that control keeps there
 * bench_relay_load udp|turn|bare|none|tls|tcp|derp|derp-tls IP PORT [OPTION=VALUE]...
 *     pairs=1 size=1400 train=1 window=64 seconds=2 rate=0 nap=0 slow=0 first=64.0.0.1 client=0 key=HEX folder=CONTROL
 *     pid=RELAY
 *
 * Floods, then sends at half the rate that arrived, SECONDS each; or, with rate=, sends so many packets a second.
 * SIGTERM ends a run early. With nap= it rests so many µs between turns. With slow=1 it floods without a window, and the receivers read for a
 * millisecond in 20. client= is the number of its first client.
 * Prints a line of JSON for what it did: packets sent, received, nanoseconds of the relay's CPU time, of our own, and of
 * the kernel's threads ksoftirqd (of the whole machine: whose work they did nobody can tell; absent where they cannot
 * be seen), delay in µs as the receiver sees it, of all packets sent, so that a lost one took for ever (-1).
 */
#include "tests/bench/relay_load/load.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <inttypes.h>
#include <signal.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE_NS 20000000  /* a window of which nothing has arrived for so long is lost */
#define TAIL_NS	    100000000 /* for the last packets */
#define WARM_UP_NS  200000000
#define MIN_AT_ONCE 64 /* packets */
#define MAX_SOFTIRQ 1024 /* processors */
#define SLOW_NS	    20000000 /* a slow receiver reads once in so long … */
#define SLOW_READ_NS 1000000 /* … and for so long */

static const struct load_transport *const transports[] = { &load_udp,  &load_turn, &load_bare, &load_none,
						      &load_tls,  &load_tcp,  &load_derp, &load_derp_tls };
static uint32_t delays_ns[LOAD_MAX_DELAYS];
static struct load load;
static volatile sig_atomic_t is_ended; /* SIGTERM: what was measured until now is printed */

static void on_end(int number)
{
	(void)number;
	is_ended = 1;
}

void load_fail(const char *format, ...)
{
	va_list words;

	fputs("bench_relay_load: ", stderr);
	va_start(words, format);
	vfprintf(stderr, format, words);
	va_end(words);
	fputc('\n', stderr);
	exit(EXIT_FAILURE);
}

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

uint64_t load_now_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

uint32_t load_address(const struct load *l, uint32_t client)
{
	return l->first_source + (client << 8);
}

/* ---- CPU time: of all threads of the relay, and of what the kernel does in nobody's name, to the nanosecond ---- */

static unsigned n_softirq;
static char softirq_pids[MAX_SOFTIRQ][16];

static uint64_t cpu_ns_at(const char *path)
{
	unsigned long long ns = 0;

	FILE *file = fopen(path, "r");
	if (!file)
		return 0;
	if (fscanf(file, "%llu", &ns) != 1)
		ns = 0;
	fclose(file);
	return ns;
}

static bool is_softirq(const char *pid)
{
	char path[64], name[32] = "";

	snprintf(path, sizeof(path), "/proc/%.15s/comm", pid);
	FILE *file = fopen(path, "r");
	if (!file)
		return false;
	const bool is_read = fgets(name, sizeof(name), file) != NULL;
	fclose(file);
	return is_read && strncmp(name, "ksoftirqd/", 10) == 0;
}

static void find_softirqs(void)
{
	const struct dirent *entry;
	DIR *folder = opendir("/proc");

	while (folder && n_softirq < MAX_SOFTIRQ && (entry = readdir(folder)))
		if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9' && is_softirq(entry->d_name))
			snprintf(softirq_pids[n_softirq++], sizeof(*softirq_pids), "%.15s", entry->d_name);
	if (folder)
		closedir(folder);
}

static uint64_t softirq_cpu_ns(void)
{
	uint64_t ns = 0;
	char path[64];

	for (unsigned i = 0; i < n_softirq; i++) {
		snprintf(path, sizeof(path), "/proc/%s/schedstat", softirq_pids[i]);
		ns += cpu_ns_at(path);
	}
	return ns;
}

static uint64_t relay_cpu_ns(void)
{
	const struct dirent *entry;
	uint64_t ns = 0;
	char path[600];

	if (!load.pid)
		return 0;
	snprintf(path, sizeof(path), "/proc/%s/task", load.pid);
	DIR *folder = opendir(path);
	if (!folder)
		load_fail("the relay has ended");
	while ((entry = readdir(folder))) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/proc/%s/task/%s/schedstat", load.pid, entry->d_name);
		ns += cpu_ns_at(path);
	}
	closedir(folder);
	return ns;
}

static uint64_t more_than(uint64_t before_ns, uint64_t now_ns)
{
	if (now_ns < before_ns)
		load_fail("a thread whose CPU time was counted has ended");
	return now_ns - before_ns;
}

/* ---- packets ---- */

struct load_packet load_next(struct load *l, uint32_t pair)
{
	l->n_sent++;
	return (struct load_packet){
		.run = l->run, .number = l->pairs[pair].n_sent++, .sent_ns = l->now_ns, .pair = pair
	};
}

void load_received(struct load *l, const uint8_t *bytes, size_t len)
{
	struct load_packet packet;

	if (len != l->size)
		return;
	memcpy(&packet, bytes, sizeof(packet));
	if (packet.run != l->run || packet.pair >= l->n_pairs)
		return;
	struct load_pair *pair = &l->pairs[packet.pair];
	l->n_received++;
	if (packet.number >= pair->n_arrived_at)
		pair->n_arrived_at = packet.number + 1; /* what was sent before it has arrived, too, or is lost */
	if (l->n_delays < LOAD_MAX_DELAYS)
		delays_ns[l->n_delays++] = (uint32_t)(l->now_ns - packet.sent_ns);
}

/* ---- a run ---- */

struct result {
	double seconds;
	uint64_t n_sent, n_received, n_received_in_all, relay_ns, own_ns, softirq_ns, resets;
	double p50_us, p99_us;
};

static void begin_run(void)
{
	randombytes_buf(&load.run, sizeof(load.run));
	load.n_sent = load.n_received = load.n_lost_reset = load.n_delays = 0;
	memset(load.pairs, 0, sizeof(load.pairs));
	load.now_ns = load_now_ns();
}

/* A window whose end was lost would stay closed for ever. */
static void forget_lost(uint64_t *looked_ns, uint64_t *n_before)
{
	if (load.now_ns - *looked_ns < PATIENCE_NS)
		return;
	if (load.n_received == *n_before) {
		for (uint32_t i = 0; i < load.n_pairs; i++)
			load.pairs[i].n_arrived_at = load.pairs[i].n_sent;
		load.n_lost_reset++;
	}
	*looked_ns = load.now_ns;
	*n_before = load.n_received;
}

/* Of a few pairs more at once: the relay shall have something to do while we look what has arrived. */
static void send_where_there_is_room(void)
{
	const uint32_t times = MIN_AT_ONCE / load.n_pairs / load.train;

	for (uint32_t k = 0; k <= times; k++) {
		for (uint32_t i = 0; i < load.n_pairs; i++) {
			const struct load_pair *pair = &load.pairs[i];
			if (load.is_slow || pair->n_sent - pair->n_arrived_at + load.train <= load.window)
				(void)load.transport->send(&load, i, load.train);
		}
	}
	load.transport->flush(&load);
}

static void send_what_is_due(uint64_t begin_ns, double rate)
{
	static uint32_t next;
	const uint64_t due = (uint64_t)((double)(load.now_ns - begin_ns) / 1e9 * rate);

	for (unsigned i = 0; i < 64 && load.n_sent + load.train <= due; i++) {
		(void)load.transport->send(&load, next, load.train);
		next = (next + 1) % load.n_pairs;
	}
	load.transport->flush(&load);
}

static void turn(void)
{
	if (load.nap_us > 0)
		usleep(load.nap_us);
	load.now_ns = load_now_ns();
	if (!load.is_slow || load.now_ns % SLOW_NS < SLOW_READ_NS)
		load.transport->receive(&load);
}

static void run_for(uint64_t ns, double rate)
{
	const uint64_t begin_ns = load.now_ns;
	uint64_t looked_ns = begin_ns, n_before = 0;

	while (load.now_ns < begin_ns + ns && !is_ended) {
		if (rate == 0)
			send_where_there_is_room();
		else
			send_what_is_due(begin_ns, rate);
		turn();
		forget_lost(&looked_ns, &n_before);
	}
}

static int compare_delays(const void *a, const void *b)
{
	const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static double delay_at(unsigned percent)
{
	uint64_t of = load.n_sent;

	if (load.n_delays == LOAD_MAX_DELAYS) /* not all were kept */
		of = load.n_sent * LOAD_MAX_DELAYS / load.n_received;
	const uint64_t rank = (of * percent + 99) / 100;
	return rank > 0 && rank <= load.n_delays ? delays_ns[rank - 1] / 1e3 : -1;
}

static struct result run(double rate)
{
	struct result result;
	begin_run();

	const uint64_t begin_ns = load.now_ns, relay_ns = relay_cpu_ns(), softirq_ns = softirq_cpu_ns(),
		       own_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
	run_for((uint64_t)(load.seconds * 1e9), rate);
	result.seconds = (double)(load.now_ns - begin_ns) / 1e9;
	result.n_received = load.n_received;
	result.own_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - own_ns;
	for (const uint64_t end_ns = load.now_ns + TAIL_NS; load.now_ns < end_ns && load.n_received < load.n_sent;)
		turn();
	result.relay_ns = more_than(relay_ns, relay_cpu_ns());
	result.softirq_ns = more_than(softirq_ns, softirq_cpu_ns());
	result.n_sent = load.n_sent;
	result.n_received_in_all = load.n_received;
	result.resets = load.n_lost_reset;
	qsort(delays_ns, load.n_delays, sizeof(*delays_ns), compare_delays);
	result.p50_us = delay_at(50);
	result.p99_us = delay_at(99);
	return result;
}

static void print_result(const char *name, const struct result *r)
{
	printf("\"%s\": {\"seconds\": %.6f, \"sent\": %" PRIu64 ", \"received_in_time\": %" PRIu64
	       ", \"received\": %" PRIu64 ", \"relay_cpu_ns\": %" PRIu64 ", \"own_cpu_ns\": %" PRIu64
	       ", \"stalls\": %" PRIu64 ", \"p50_us\": %.1f, \"p99_us\": %.1f",
	       name, r->seconds, r->n_sent, r->n_received, r->n_received_in_all, r->relay_ns, r->own_ns, r->resets,
	       r->p50_us, r->p99_us);
	if (n_softirq > 0)
		printf(", \"softirq_cpu_ns\": %" PRIu64, r->softirq_ns);
	putchar('}');
}

/* ---- options ---- */

static void take_option(const char *word)
{
	const char *value = strchr(word, '=');
	struct in_addr ip;

	if (!value)
		load_fail("%s: OPTION=VALUE", word);
	value++;
	if (strncmp(word, "pairs=", 6) == 0)
		load.n_pairs = (uint32_t)atoi(value);
	else if (strncmp(word, "size=", 5) == 0)
		load.size = (uint32_t)atoi(value);
	else if (strncmp(word, "train=", 6) == 0)
		load.train = (uint32_t)atoi(value);
	else if (strncmp(word, "window=", 7) == 0)
		load.window = (uint32_t)atoi(value);
	else if (strncmp(word, "seconds=", 8) == 0)
		load.seconds = atof(value);
	else if (strncmp(word, "nap=", 4) == 0)
		load.nap_us = (uint32_t)atoi(value);
	else if (strncmp(word, "slow=", 5) == 0)
		load.is_slow = atoi(value) != 0;
	else if (strncmp(word, "client=", 7) == 0)
		load_first_client = (uint32_t)atoi(value);
	else if (strncmp(word, "rate=", 5) == 0)
		load.rate = atof(value);
	else if (strncmp(word, "pid=", 4) == 0)
		load.pid = value;
	else if (strncmp(word, "folder=", 7) == 0)
		load.control_folder = value;
	else if (strncmp(word, "key=", 4) == 0 && key_from_hex(value, load.relay_key.bytes) == 0)
		return;
	else if (strncmp(word, "first=", 6) == 0 && inet_pton(AF_INET, value, &ip) == 1)
		load.first_source = ntohl(ip.s_addr);
	else
		load_fail("%s: not understood", word);
}

static void take_options(int argc, char *argv[])
{
	load = (struct load){ .n_pairs = 1, .size = 1400, .train = 1, .window = 64, .seconds = 2, .first_source = 64u << 24 | 1 };
	for (size_t i = 0; i < sizeof(transports) / sizeof(*transports); i++)
		if (argc >= 4 && strcmp(argv[1], transports[i]->name) == 0)
			load.transport = transports[i];
	if (!load.transport || endpoint_parse_ip(argv[2], (uint16_t)atoi(argv[3]), &load.relay) != 0)
		load_fail("udp|turn|bare|none|tls|tcp|derp|derp-tls IP PORT [OPTION=VALUE]..., or members FOLDER N");
	for (int i = 4; i < argc; i++)
		take_option(argv[i]);
	if (load.n_pairs == 0 || load.n_pairs > LOAD_MAX_CLIENTS / 2 || load.size < LOAD_MIN_SIZE || load.size > 1500 ||
	    load.train == 0 || load.window < load.train || load.seconds <= 0 || load.rate < 0)
		load_fail("options out of range");
}

int main(int argc, char *argv[])
{
	if (sodium_init() < 0)
		return EXIT_FAILURE;
	signal(SIGPIPE, SIG_IGN);
	signal(SIGTERM, on_end);
	if (argc == 4 && strcmp(argv[1], "members") == 0) {
		load_make_members(argv[2], (uint32_t)atoi(argv[3]));
		return 0;
	}
	take_options(argc, argv);
	load.transport->connect(&load);
	find_softirqs();
	begin_run();
	run_for(WARM_UP_NS, load.rate);
	const struct result first = run(load.rate);
	if (first.n_received == 0 && !load.is_slow)
		load_fail("nothing arrived");
	putchar('{');
	print_result(load.rate > 0 ? "paced" : "flood", &first);
	if (load.rate == 0 && !load.is_slow) {
		const struct result half = run((double)first.n_received / first.seconds / 2);
		fputs(", ", stdout);
		print_result("half", &half);
	}
	if (load.tls_version)
		printf(", \"tls\": \"%s %s\"", load.tls_version, load.tls_cipher);
	puts("}");
	return 0;
}
