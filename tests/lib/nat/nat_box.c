/*
 * A router's NAT between two TUN devices. The kernel brings here what comes from inside and what arrives
 * at a public address, and carries on what comes out of here.
 *
 *   nat_box INSIDE OUTSIDE KEY=VALUE...
 *
 *   address=IP        public; up to eight times                                             needed
 *   type=NAME         eim-eif … apdm-apdf, of UDP; TCP and ping are EIM-APDF                eim-apdf
 *   ports=HOW         preserve, random, step:N                                              preserve
 *   port-range=A-B    what it has of ports                                                  1024-65535
 *   pool=HOW          paired (a host has one address), arbitrary (each mapping the next)    paired
 *   hairpin=HOW       off, internal, external: with whose source                            off
 *   lag-ms=N          a filter opens so long after the packet that asked                    0
 *   timeout-ms=N      a mapping of UDP lives so long unused                                 120000
 *   refresh=HOW       both, outbound: what is use                                           both
 *   mappings=N sessions=N    bounds of the tables                                           16384 65536
 *   seed=N            of what is random                                                     1
 *   control=PATH      a Unix socket; one line a connection:
 *                       counts              how many mappings there are and were, and what was refused: JSON
 *                       forget [IP...]      restarted, perhaps with other addresses
 *
 * SIGHUP is a restart, too. Prints "ready". What arrives for no mapping is for the router itself.
 */
#include "tests/lib/nat/nat_packet.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define BURST		64
#define PASSED_MAX	64
#define TCP_TIMEOUT_MS	300000u
#define PING_TIMEOUT_MS 30000u
#define MS(n)		((uint64_t)(n)*1000000u)

static struct nat nat;
static struct nat_config config;
static struct nat_tables tables = { .n_mappings = 16384, .n_sessions = 65536 };
static int inside_fd, outside_fd, listener_fd = -1;
/* Where the first fragments of the last few packets went, and with which addresses. */
struct passed {
	struct nat_fragment was, is;
	int from, to;
};

static struct passed passed[PASSED_MAX];
static unsigned n_passed;
static int last_put; /* where the last packet went, -1: nowhere */
static uint64_t n_forwarded, n_not_read, n_not_written;

static _Noreturn void fail(const char *what)
{
	fprintf(stderr, "nat_box: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- packets ---- */

static void put(int fd, const uint8_t *bytes, size_t len)
{
	if (write(fd, bytes, len) < 0)
		n_not_written++;
	else
		n_forwarded++;
	last_put = fd;
}

static void error_goes_out(struct nat_packet *packet, uint8_t *bytes, uint64_t now)
{
	const struct nat_header *about = &packet->inner;
	struct endpoint outside;

	if (!nat_find_outside(&nat, now, about->protocol, &about->destination, &about->source, &outside))
		return;
	nat_packet_set_inner_destination(packet, &outside);
	put(outside_fd, bytes, packet->len);
}

static void turn(struct nat_packet *packet, uint8_t *bytes, uint64_t now)
{
	const struct nat_header *h = &packet->outer;
	struct endpoint source, inside;

	if (h->protocol == NAT_ICMP) /* the router answers its own ping */
		put(inside_fd, bytes, packet->len);
	else if (nat_turn(&nat, now, h->protocol, &h->source, &h->destination, &source, &inside) == 0) {
		nat_packet_set_source(packet, &source);
		nat_packet_set_destination(packet, &inside);
		put(inside_fd, bytes, packet->len);
	}
}

static void from_inside(struct nat_packet *packet, uint8_t *bytes, uint64_t now)
{
	const struct nat_header *h = &packet->outer;
	struct endpoint outside;

	if (packet->is_error) {
		error_goes_out(packet, bytes, now);
	} else if (nat_has_address(&nat, &h->destination)) {
		turn(packet, bytes, now);
	} else if (nat_out(&nat, now, h->protocol, &h->source, &h->destination, &outside) == 0) {
		nat_packet_set_source(packet, &outside);
		put(outside_fd, bytes, packet->len);
	}
}

static void from_outside(struct nat_packet *packet, uint8_t *bytes, uint64_t now)
{
	const struct nat_header *h = &packet->outer, *about = &packet->inner;
	struct endpoint inside;
	int r;

	if (packet->is_error) {
		if (nat_find_inside(&nat, now, about->protocol, &about->source, &inside))
			nat_packet_set_inner_source(packet, &inside);
		put(inside_fd, bytes, packet->len);
		return;
	}
	r = nat_in(&nat, now, h->protocol, &h->source, &h->destination, &inside);
	if (r == 0)
		nat_packet_set_destination(packet, &inside);
	if (r == 0 || r == NAT_UNMAPPED)
		put(inside_fd, bytes, packet->len);
}

static void pass_packet(int fd, uint8_t *bytes, size_t len)
{
	struct nat_packet packet;

	last_put = -1;
	if (!nat_packet_read(bytes, len, &packet))
		n_not_read++;
	else if (fd == inside_fd)
		from_inside(&packet, bytes, now_ns());
	else
		from_outside(&packet, bytes, now_ns());
}

static void pass_first(int fd, uint8_t *bytes, size_t len, const struct nat_fragment *was)
{
	struct passed *p = &passed[n_passed % PASSED_MAX];

	pass_packet(fd, bytes, len);
	if (last_put < 0)
		return;
	p->was = *was;
	p->from = fd;
	p->to = last_put;
	if (nat_fragment_read(bytes, len, &p->is))
		n_passed++;
}

/* The kernel hands them over in their order, so the first one came before. */
static void pass_later(int fd, uint8_t *bytes, size_t len, const struct nat_fragment *was)
{
	for (unsigned i = 1; i <= PASSED_MAX && i <= n_passed; i++) {
		const struct passed *p = &passed[(n_passed - i) % PASSED_MAX];
		if (p->from == fd && nat_fragment_is_of(&p->was, was)) {
			nat_fragment_readdress(bytes, &p->is);
			put(p->to, bytes, len);
			return;
		}
	}
}

static void carry(int fd)
{
	static uint8_t bytes[NAT_PACKET_MAX];
	struct nat_fragment fragment;

	for (int i = 0; i < BURST; i++) {
		const ssize_t len = read(fd, bytes, sizeof(bytes));
		if (len < 0 && errno != EAGAIN && errno != EINTR)
			fail("read");
		if (len <= 0)
			return;
		if (!nat_fragment_read(bytes, (size_t)len, &fragment))
			pass_packet(fd, bytes, (size_t)len);
		else if (fragment.is_first)
			pass_first(fd, bytes, (size_t)len, &fragment);
		else
			pass_later(fd, bytes, (size_t)len, &fragment);
	}
}

static int open_tun(const char *name)
{
	struct ifreq request = { .ifr_flags = IFF_TUN | IFF_NO_PI };
	const int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);

	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
	if (fd < 0 || ioctl(fd, TUNSETIFF, &request) != 0)
		fail(name);
	return fd;
}

/* ---- options ---- */

static _Noreturn void refuse(const char *option)
{
	fprintf(stderr, "nat_box: %s\nusage: nat_box INSIDE OUTSIDE KEY=VALUE...\n", option);
	exit(2);
}

static uint32_t number(const char *option, const char *text, uint32_t least, uint32_t most)
{
	char *end;
	const unsigned long value = strtoul(text, &end, 10);

	if (*end || end == text || value < least || value > most)
		refuse(option);
	return (uint32_t)value;
}

static bool add_address(struct nat_config *c, const char *text)
{
	struct in_addr address;

	if (c->n_addresses == NAT_ADDRESSES_MAX || inet_pton(AF_INET, text, &address) != 1)
		return false;
	c->addresses[c->n_addresses++] = ntohl(address.s_addr);
	return true;
}

/* Which of the names it is. */
static uint32_t choice(const char *option, const char *value, const char *const *names)
{
	for (uint32_t i = 0; names[i]; i++)
		if (strcmp(names[i], value) == 0)
			return i;
	refuse(option);
}

static void set_ports(const char *option, const char *value)
{
	static const char *const hows[] = { "preserve", "random", NULL };

	if (strncmp(value, "step:", 5) == 0) {
		config.ports = NAT_PORTS_STEP;
		config.port_step = (uint16_t)number(option, value + 5, 1, 65535);
	} else {
		config.ports = (enum nat_ports)choice(option, value, hows);
	}
}

static void set_port_range(const char *option, const char *value)
{
	char first[8];
	const char *dash = strchr(value, '-');

	if (!dash || (size_t)(dash - value) >= sizeof(first))
		refuse(option);
	snprintf(first, sizeof(first), "%.*s", (int)(dash - value), value);
	config.first_port = (uint16_t)number(option, first, 1, 65535);
	config.last_port = (uint16_t)number(option, dash + 1, config.first_port, 65535);
}

static void open_control(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	if (strlen(path) >= sizeof(address.sun_path))
		refuse("control: the path is too long");
	strcpy(address.sun_path, path);
	unlink(path);
	listener_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (listener_fd < 0 || bind(listener_fd, (struct sockaddr *)&address, sizeof(address)) != 0 ||
	    listen(listener_fd, 8) != 0)
		fail(path);
}

static bool set_table_option(const char *option, const char *key, const char *value)
{
	if (strcmp(key, "mappings") == 0)
		tables.n_mappings = number(option, value, 1, 1u << 20);
	else if (strcmp(key, "sessions") == 0)
		tables.n_sessions = number(option, value, 1, 1u << 20);
	else if (strcmp(key, "seed") == 0)
		config.seed = number(option, value, 0, UINT32_MAX);
	else if (strcmp(key, "control") == 0)
		open_control(value);
	else
		return false;
	return true;
}

static void set_option(const char *option, const char *key, const char *value)
{
	static const char *const pools[] = { "paired", "arbitrary", NULL };
	static const char *const hairpins[] = { "off", "internal", "external", NULL };
	static const char *const refreshes[] = { "outbound", "both", NULL };
	struct nat_rules *udp = &config.rules[NAT_UDP];

	if (strcmp(key, "type") == 0) {
		if (nat_parse_type(value, &udp->mapping, &udp->filtering) != 0)
			refuse(option);
	} else if (strcmp(key, "address") == 0) {
		if (!add_address(&config, value))
			refuse(option);
	} else if (strcmp(key, "ports") == 0) {
		set_ports(option, value);
	} else if (strcmp(key, "port-range") == 0) {
		set_port_range(option, value);
	} else if (strcmp(key, "pool") == 0) {
		config.is_pool_arbitrary = choice(option, value, pools) == 1;
	} else if (strcmp(key, "hairpin") == 0) {
		config.hairpin = (enum nat_hairpin)choice(option, value, hairpins);
	} else if (strcmp(key, "lag-ms") == 0) {
		udp->filter_lag_ns = MS(number(option, value, 0, 600000));
	} else if (strcmp(key, "timeout-ms") == 0) {
		udp->timeout_ns = MS(number(option, value, 1, 86400000));
	} else if (strcmp(key, "refresh") == 0) {
		udp->is_kept_by_inbound = choice(option, value, refreshes) == 1;
	} else if (!set_table_option(option, key, value)) {
		refuse(option);
	}
}

static void read_options(int n, char *options[])
{
	const struct nat_rules strict = { .mapping = NAT_INDEPENDENT,
					  .filtering = NAT_ADDRESS_AND_PORT,
					  .timeout_ns = MS(120000),
					  .is_kept_by_inbound = true };

	for (int i = 0; i < NAT_PROTOCOLS; i++)
		config.rules[i] = strict;
	config.rules[NAT_TCP].timeout_ns = MS(TCP_TIMEOUT_MS);
	config.rules[NAT_ICMP].timeout_ns = MS(PING_TIMEOUT_MS);
	config.seed = 1;
	for (int i = 0; i < n; i++) {
		char key[16];
		const char *value = strchr(options[i], '=');
		if (!value || (size_t)(value - options[i]) >= sizeof(key))
			refuse(options[i]);
		snprintf(key, sizeof(key), "%.*s", (int)(value - options[i]), options[i]);
		set_option(options[i], key, value + 1);
	}
	if (config.n_addresses == 0)
		refuse("address=IP is needed");
}

static void make_tables(void)
{
	tables.n_buckets = 1;
	while (tables.n_buckets < tables.n_sessions)
		tables.n_buckets *= 2;
	tables.mappings = calloc(tables.n_mappings, sizeof(*tables.mappings));
	tables.sessions = calloc(tables.n_sessions, sizeof(*tables.sessions));
	tables.buckets = calloc((size_t)3 * tables.n_buckets, sizeof(*tables.buckets));
	if (!tables.mappings || !tables.sessions || !tables.buckets)
		fail("memory");
}

/* ---- control ---- */

static void write_counts(FILE *to)
{
	const struct nat_counts *c = &nat.counts;

	nat_expire(&nat, now_ns());
	fprintf(to,
		"{\"mappings\": %u, \"mappings_peak\": %u, \"mappings_made\": %llu, "
		"\"sessions\": %u, \"sessions_peak\": %u, \"sessions_made\": %llu, "
		"\"unmapped\": %llu, \"filtered\": %llu, \"full\": %llu, "
		"\"forwarded\": %llu, \"not_read\": %llu, \"not_written\": %llu}\n",
		c->mappings, c->mappings_peak, (unsigned long long)c->mappings_made, c->sessions,
		c->sessions_peak, (unsigned long long)c->sessions_made, (unsigned long long)c->unmapped,
		(unsigned long long)c->filtered, (unsigned long long)c->full,
		(unsigned long long)n_forwarded, (unsigned long long)n_not_read,
		(unsigned long long)n_not_written);
}

static void forget(char *addresses, FILE *answer)
{
	struct nat_config fresh = { 0 };
	char *rest = NULL;

	for (char *word = strtok_r(addresses, " \n", &rest); word; word = strtok_r(NULL, " \n", &rest))
		if (!add_address(&fresh, word)) {
			fprintf(answer, "not an address, or too many: %s\n", word);
			return;
		}
	nat_forget(&nat);
	if (fresh.n_addresses > 0) {
		memcpy(nat.config.addresses, fresh.addresses, sizeof(fresh.addresses));
		nat.config.n_addresses = fresh.n_addresses;
	}
	fputs("ok\n", answer);
}

static void answer(FILE *to, char *line)
{
	if (strcmp(line, "counts\n") == 0)
		write_counts(to);
	else if (strncmp(line, "forget", 6) == 0)
		forget(line + 6, to);
	else
		fputs("unknown\n", to);
}

static void serve_control(void)
{
	const struct timeval patience = { .tv_sec = 1 };
	const int fd = accept(listener_fd, NULL, NULL);
	FILE *stream = fd < 0 ? NULL : fdopen(fd, "w");
	char line[256];
	ssize_t len;

	if (!stream) {
		if (fd >= 0)
			close(fd);
		return;
	}
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	len = read(fd, line, sizeof(line) - 1);
	if (len > 0) {
		line[len] = '\0';
		answer(stream, line);
	}
	fclose(stream);
}

static int open_signals(void)
{
	sigset_t set;
	int fd;

	sigemptyset(&set);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	fd = signalfd(-1, &set, SFD_CLOEXEC);
	if (fd < 0)
		fail("signalfd");
	return fd;
}

/* False: the end. */
static bool serve_signal(int fd)
{
	struct signalfd_siginfo info;

	if (read(fd, &info, sizeof(info)) != sizeof(info))
		fail("signal");
	if (info.ssi_signo == SIGHUP)
		nat_forget(&nat);
	return info.ssi_signo == SIGHUP;
}

int main(int argc, char *argv[])
{
	enum { INSIDE, OUTSIDE, SIGNALS, CONTROL, ENDS };
	struct pollfd ends[ENDS];
	bool is_running = true;

	if (argc < 3)
		refuse("which interfaces?");
	ends[SIGNALS].fd = open_signals();
	read_options(argc - 3, argv + 3);
	make_tables();
	nat_init(&nat, &config, &tables);
	ends[INSIDE].fd = inside_fd = open_tun(argv[1]);
	ends[OUTSIDE].fd = outside_fd = open_tun(argv[2]);
	ends[CONTROL].fd = listener_fd;
	for (int i = 0; i < ENDS; i++)
		ends[i].events = POLLIN;
	puts("ready");
	fflush(stdout);
	while (is_running) {
		if (poll(ends, ENDS, -1) < 0)
			fail("poll");
		if (ends[INSIDE].revents)
			carry(inside_fd);
		if (ends[OUTSIDE].revents)
			carry(outside_fd);
		if (ends[CONTROL].revents)
			serve_control();
		if (ends[SIGNALS].revents)
			is_running = serve_signal(ends[SIGNALS].fd);
	}
	write_counts(stdout);
	free(tables.mappings);
	free(tables.sessions);
	free(tables.buckets);
	return 0;
}
