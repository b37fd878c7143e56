/*
 * What clients of the relay over UDP cost when they only stay, memory and CPU for their keep-alives, and what
 * becomes of them under a flood.
 *
 * First without sockets: so many are bound, and the bytes on the heap counted. Then a relay in a process of its own,
 * to which as many come, each from an address of its own in 127.0.0.0/8, and ping as often as it says. A client may
 * cost 512 bytes, and all of them 10 % of a core.
 *
 * Then strangers send 200,000 datagrams a second to that relay, each from another address: questions for cookies,
 * binds with made-up cookies, binds in a member's name with a cookie that is right, again and again, data and pings of
 * slots and tokens that are nobody's. Fails when fewer than half of the pings are answered, the relay grows by more
 * than 16 MiB, or strangers get more bytes than they sent.
 */
#include "tests/bench/relay_clients/clients.h"

#include "common/relay_udp_wire.h"
#include "relay/udp_server.h"
#include "relay/udp_clients.h"

#include <malloc.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_BYTES    512
#define MAX_CPU	     0.10
#define KEEP_ALIVE_S 20
#define BATCH	     64
#define FLOOD_RATE   200000
#define MIN_HONEST   0.5
#define MAX_GROWTH   (16 << 10) /* KiB */
#define FLOOD_PORT   4001
#define SECOND_NS    UINT64_C(1000000000)

struct client {
	struct public_key public;
	struct relay_udp_key proof;
	uint32_t slot, token, challenge;
};

static struct client *clients;
static unsigned n_clients;
static struct secret_key relay_secret;
static struct public_key relay_public;

static void expect(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "bench_relay_clients: %s\n", what);
	exit(2);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * SECOND_NS + (uint64_t)t.tv_nsec;
}

static void make_clients(void)
{
	clients = calloc(n_clients, sizeof(*clients));
	expect(clients != NULL, "out of memory");
	secret_key_generate(&relay_secret);
	secret_key_public(&relay_secret, &relay_public);
	for (unsigned i = 0; i < n_clients; i++) {
		struct secret_key secret;
		secret_key_generate(&secret);
		secret_key_public(&secret, &clients[i].public);
		expect(relay_udp_key(&secret, &clients[i].public, &relay_public, false, &clients[i].proof) == 0, "key");
	}
}

/* Two clients in each /24, so that no limit by source is met. */
static struct endpoint address_of(unsigned i)
{
	return endpoint_from_v4(0x7f000000 | (1 + i / 2) << 8 | (1 + i % 2), (uint16_t)4000);
}

static size_t make_ask(uint8_t *bytes)
{
	return relay_udp_encode(bytes, RELAY_UDP_MAX_LEN, &(struct relay_udp_datagram){ .type = RELAY_UDP_ASK });
}

static size_t make_bind(unsigned i, const uint8_t *cookie, uint8_t *bytes)
{
	struct relay_udp_datagram bind = { .type = RELAY_UDP_BIND,
					   .bind = { .version = RELAY_UDP_VERSION,
						     .node_key = clients[i].public,
						     .number = i } };

	memcpy(bind.bind.cookie, cookie, RELAY_UDP_COOKIE_LEN);
	const size_t len = relay_udp_encode(bytes, RELAY_UDP_MAX_LEN, &bind);
	relay_udp_prove(&clients[i].proof, bytes, len);
	return len;
}

static size_t make_ping(unsigned i, uint8_t *bytes)
{
	const struct client *c = &clients[i];

	return relay_udp_encode(bytes, RELAY_UDP_MAX_LEN,
				&(struct relay_udp_datagram){ .type = RELAY_UDP_PING,
							      .header = { RELAY_UDP_PING, 0, c->slot, c->token },
							      .ping = { i, c->challenge } });
}

/* ---- memory ---- */

static void bind_directly(struct udp_clients *relay, unsigned i, uint64_t now)
{
	const struct udp_way from = { .remote = address_of(i) };
	struct udp_clients_result result;
	struct relay_udp_datagram answer;
	uint8_t bytes[RELAY_UDP_MAX_LEN];

	expect(udp_clients_take(relay, &from, bytes, make_ask(bytes), now, &result) == UDP_CLIENTS_ANSWER, "ask");
	expect(relay_udp_decode(result.answer, result.answer_len, &answer) == 0, "cookie");
	const size_t len = make_bind(i, answer.cookie.cookie, bytes);
	expect(udp_clients_take(relay, &from, bytes, len, now, &result) == UDP_CLIENTS_ANSWER, "bind");
	expect(relay_udp_decode(result.answer, result.answer_len, &answer) == 0 && answer.type == RELAY_UDP_BOUND,
	       "bound");
	clients[i].slot = answer.bound.slot;
	clients[i].token = answer.bound.token;
}

static size_t heap_bytes(void)
{
	const struct mallinfo2 info = mallinfo2();

	return info.uordblks + info.hblkhd;
}

static bool measure_memory(void)
{
	struct udp_clients_config config = { .node_key = relay_secret, .max_proofs = UINT32_MAX,
					     .max_answers = UINT32_MAX };
	struct udp_clients *relay;

	expect(udp_clients_new(&config, &relay) == 0, "out of memory");
	const size_t before = heap_bytes();
	for (unsigned i = 0; i < n_clients; i++)
		bind_directly(relay, i, SECOND_NS + i * 100000);
	const double each = (double)(heap_bytes() - before) / n_clients;
	expect(udp_clients_counters(relay).clients == n_clients, "not all are bound");
	printf("%u clients bound: %.0f bytes each (at most %d)\n", n_clients, each, MAX_BYTES);
	udp_clients_free(relay);
	return each <= MAX_BYTES;
}

/* ---- CPU ---- */

/* The relay in a process of its own; returns its port. */
static pid_t fork_relay(uint16_t *ret_port)
{
	int ends[2];

	expect(pipe(ends) == 0, "no pipe");
	const pid_t pid = fork();
	expect(pid >= 0, "cannot fork");
	if (pid > 0) {
		expect(read(ends[0], ret_port, sizeof(*ret_port)) == sizeof(*ret_port), "the relay did not start");
		return pid;
	}
	struct udp_server_options options = { .n_listen = 1, .node_key = &relay_secret, .max_proofs = UINT32_MAX };
	struct key_table *members = calloc(1, sizeof(*members));
	struct udp_server *server;
	struct error error = { 0 };
	uv_loop_t loop;

	expect(uv_loop_init(&loop) == 0 && members, "out of memory");
	options.listen[0] = endpoint_from_v4(0, 0);
	key_table_init(members);
	for (unsigned i = 0; i < n_clients; i++)
		key_table_put(members, &clients[i].public, members);
	expect(udp_server_start(&loop, &options, &server, &error) == 0, error.message);
	udp_server_set_members(server, members);
	*ret_port = udp_server_port(server);
	expect(write(ends[1], ret_port, sizeof(*ret_port)) == sizeof(*ret_port), "write");
	uv_run(&loop, UV_RUN_DEFAULT);
	_exit(0);
}

struct batch {
	struct mmsghdr headers[BATCH];
	struct iovec pieces[BATCH];
	struct sockaddr_in from[BATCH];
	struct in_pktinfo infos[BATCH];
	uint8_t bytes[BATCH][RELAY_UDP_MAX_LEN];
	struct {
		_Alignas(struct cmsghdr) uint8_t bytes[CMSG_SPACE(sizeof(struct in_pktinfo))];
	} controls[BATCH];
	struct sockaddr_in relay;
};

static struct batch batch;

static int open_generator(uint16_t relay_port, uint16_t port)
{
	const struct sockaddr_in any = { .sin_family = AF_INET, .sin_port = htons(port) };
	const struct timeval patience = { .tv_usec = 200000 };
	const int fd = socket(AF_INET, SOCK_DGRAM, 0), one = 1, buffer = 4 << 20;

	expect(fd >= 0 && bind(fd, (const void *)&any, sizeof(any)) == 0, "cannot bind UDP port 4000 or 4001");
	setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof(buffer));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	batch.relay = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(relay_port) };
	batch.relay.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return fd;
}

/* Client i's datagram as the n-th of a batch, from its address. */
static void prepare(unsigned n, unsigned i, size_t len)
{
	const struct endpoint from = address_of(i);
	struct in_pktinfo info = { 0 };

	memcpy(&info.ipi_spec_dst, from.ip + 12, 4);
	batch.pieces[n] = (struct iovec){ batch.bytes[n], len };
	batch.headers[n].msg_hdr = (struct msghdr){ .msg_name = &batch.relay,
						    .msg_namelen = sizeof(batch.relay),
						    .msg_iov = &batch.pieces[n],
						    .msg_iovlen = 1,
						    .msg_control = batch.controls[n].bytes,
						    .msg_controllen = sizeof(batch.controls[n].bytes) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&batch.headers[n].msg_hdr);
	c->cmsg_level = IPPROTO_IP;
	c->cmsg_type = IP_PKTINFO;
	c->cmsg_len = CMSG_LEN(sizeof(info));
	memcpy(CMSG_DATA(c), &info, sizeof(info));
}

static unsigned receive(int fd, int flags)
{
	for (unsigned n = 0; n < BATCH; n++) {
		batch.pieces[n] = (struct iovec){ batch.bytes[n], RELAY_UDP_MAX_LEN };
		batch.headers[n].msg_hdr = (struct msghdr){ .msg_iov = &batch.pieces[n],
							    .msg_iovlen = 1,
							    .msg_control = batch.controls[n].bytes,
							    .msg_controllen = sizeof(batch.controls[n].bytes) };
	}
	const int n = recvmmsg(fd, batch.headers, BATCH, flags, NULL);
	return n > 0 ? (unsigned)n : 0;
}

/* Which client the n-th of the batch is for: by the address it came to. */
static unsigned client_of(unsigned n)
{
	const struct cmsghdr *c = CMSG_FIRSTHDR(&batch.headers[n].msg_hdr);
	struct in_pktinfo info;

	expect(c && c->cmsg_type == IP_PKTINFO, "no address");
	memcpy(&info, CMSG_DATA(c), sizeof(info));
	const uint32_t ip = ntohl(info.ipi_addr.s_addr) & 0xffffff;
	return ((ip >> 8) - 1) * 2 + (ip & 0xff) - 1;
}

/* From `first` on: asks, binds with the cookies that come back. How many were bound. */
static unsigned bind_some(int fd, unsigned first, unsigned n)
{
	struct relay_udp_datagram answer;
	unsigned n_bound = 0, n_asked = 0;

	for (unsigned i = 0; i < n; i++)
		if (clients[first + i].slot == 0)
			prepare(n_asked, first + i, make_ask(batch.bytes[n_asked])), n_asked++;
		else
			n_bound++;
	if (n_asked == 0)
		return n_bound;
	expect(sendmmsg(fd, batch.headers, n_asked, 0) == (int)n_asked, "cannot send");
	while (n_bound < n) {
		const unsigned got = receive(fd, MSG_WAITFORONE);
		unsigned n_binds = 0;
		for (unsigned j = 0; j < got; j++) {
			const unsigned i = client_of(j);
			if (relay_udp_decode(batch.bytes[j], batch.headers[j].msg_len, &answer) != 0)
				continue;
			if (answer.type == RELAY_UDP_BOUND) {
				n_bound += clients[i].slot == 0;
				clients[i].slot = answer.bound.slot;
				clients[i].token = answer.bound.token;
			} else if (answer.type == RELAY_UDP_COOKIE) {
				uint8_t cookie[RELAY_UDP_COOKIE_LEN];
				memcpy(cookie, answer.cookie.cookie, sizeof(cookie));
				prepare(n_binds, i, make_bind(i, cookie, batch.bytes[n_binds]));
				n_binds++;
			}
		}
		if (n_binds > 0)
			expect(sendmmsg(fd, batch.headers, n_binds, 0) == (int)n_binds, "cannot send");
		if (got == 0)
			break; /* something was lost: again */
	}
	return n_bound;
}

static void bind_all(int fd)
{
	for (unsigned i = 0; i < n_clients; i++)
		clients[i].slot = 0;
	for (unsigned first = 0; first < n_clients; first += BATCH) {
		const unsigned n = n_clients - first < BATCH ? n_clients - first : BATCH;
		for (int tries = 0; bind_some(fd, first, n) < n; tries++)
			expect(tries < 20, "cannot bind all");
	}
}

static double cpu_seconds(pid_t pid)
{
	clockid_t clock;
	struct timespec t;

	expect(clock_getcpuclockid(pid, &clock) == 0 && clock_gettime(clock, &t) == 0, "no CPU clock");
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void take_pongs(int fd, uint64_t *n_pongs)
{
	struct relay_udp_datagram answer;

	for (unsigned got; (got = receive(fd, MSG_DONTWAIT)) > 0;) {
		for (unsigned j = 0; j < got; j++) {
			if (relay_udp_decode(batch.bytes[j], batch.headers[j].msg_len, &answer) != 0 ||
			    answer.type != RELAY_UDP_PONG)
				continue;
			clients[client_of(j)].challenge = answer.ping.challenge;
			++*n_pongs;
		}
	}
}

struct pings {
	uint64_t n_sent, n_answered;
};

/* As n_clients that ping every KEEP_ALIVE_S do, in any order: one after the other. */
static struct pings ping_for(int fd, double seconds)
{
	const double rate = (double)n_clients / KEEP_ALIVE_S;
	const uint64_t begin = now_ns(), end = begin + (uint64_t)(seconds * 1e9);
	struct pings pings = { 0 };

	for (uint64_t now; (now = now_ns()) < end;) {
		const uint64_t due = (uint64_t)((double)(now - begin) / 1e9 * rate);
		for (; pings.n_sent < due; pings.n_sent++) {
			const unsigned i = (unsigned)(pings.n_sent % n_clients);
			prepare(0, i, make_ping(i, batch.bytes[0]));
			expect(sendmmsg(fd, batch.headers, 1, 0) == 1, "cannot send");
		}
		take_pongs(fd, &pings.n_answered);
		nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
	}
	nanosleep(&(struct timespec){ .tv_nsec = 100000000 }, NULL);
	take_pongs(fd, &pings.n_answered);
	return pings;
}

static bool measure_keep_alives(pid_t relay, int fd, double seconds)
{
	const double cpu = cpu_seconds(relay);
	const struct pings pings = ping_for(fd, seconds);
	const double share = (cpu_seconds(relay) - cpu) / seconds;

	printf("%u clients idle, a ping of each every %d s: %.1f %% of a core (at most %.0f %%); %lu of %lu answered\n",
	       n_clients, KEEP_ALIVE_S, 100 * share, 100 * MAX_CPU, (unsigned long)pings.n_answered,
	       (unsigned long)pings.n_sent);
	return share < MAX_CPU && pings.n_answered * 100 >= pings.n_sent * 99;
}

/* ---- a flood ---- */

struct flood {
	int fd;
	uint64_t n_sent, bytes_sent, bytes_received;
	uint8_t cookie[RELAY_UDP_COOKIE_LEN]; /* good for address_of(0) and FLOOD_PORT */
};

static size_t make_stranger(const struct flood *flood, unsigned kind, uint8_t *bytes)
{
	struct relay_udp_datagram d = { .header = { RELAY_UDP_PING, (uint32_t)random(), (uint32_t)random(),
						    (uint32_t)random() } };
	uint8_t cookie[RELAY_UDP_COOKIE_LEN];

	switch (kind) {
	case 0:
		return make_ask(bytes);
	case 1:
		randombytes_buf(cookie, sizeof(cookie));
		return make_bind((unsigned)random() % n_clients, cookie, bytes);
	case 2: { /* right but for the mac */
		const size_t len = make_bind((unsigned)random() % n_clients, flood->cookie, bytes);
		bytes[len - 1] ^= 1;
		return len;
	}
	case 3:
		d.type = RELAY_UDP_PING;
		return relay_udp_encode(bytes, RELAY_UDP_MAX_LEN, &d);
	default:
		d.type = RELAY_UDP_DATA;
		d.packet.bytes = cookie;
		d.packet.len = sizeof(cookie);
		return relay_udp_encode(bytes, RELAY_UDP_MAX_LEN, &d);
	}
}

static void send_strangers(struct flood *flood)
{
	for (unsigned n = 0; n < BATCH; n++) {
		const unsigned kind = (unsigned)random() % 5;
		prepare(n, kind == 2 ? 0 : (unsigned)random() % 200000, make_stranger(flood, kind, batch.bytes[n]));
		flood->bytes_sent += batch.pieces[n].iov_len;
	}
	const int n = sendmmsg(flood->fd, batch.headers, BATCH, 0);
	flood->n_sent += n > 0 ? (unsigned)n : 0;
}

static void take_answers(struct flood *flood)
{
	for (unsigned n; (n = receive(flood->fd, MSG_DONTWAIT)) > 0;)
		for (unsigned i = 0; i < n; i++)
			flood->bytes_received += batch.headers[i].msg_len;
}

static void get_cookie(struct flood *flood)
{
	struct relay_udp_datagram answer = { 0 };

	prepare(0, 0, make_ask(batch.bytes[0]));
	expect(sendmmsg(flood->fd, batch.headers, 1, 0) == 1 && receive(flood->fd, MSG_WAITFORONE) == 1, "no cookie");
	expect(relay_udp_decode(batch.bytes[0], batch.headers[0].msg_len, &answer) == 0, "no cookie");
	memcpy(flood->cookie, answer.cookie.cookie, sizeof(flood->cookie));
}

/* In a process of its own; writes what it has done to the end. */
static void run_flood(uint16_t port, double seconds, int end)
{
	struct flood flood = { .fd = open_generator(port, FLOOD_PORT) };
	const uint64_t begin = now_ns();

	get_cookie(&flood);
	for (uint64_t passed; (passed = now_ns() - begin) < (uint64_t)(seconds * 1e9);) {
		if (flood.n_sent * SECOND_NS < passed * FLOOD_RATE)
			send_strangers(&flood);
		take_answers(&flood);
	}
	nanosleep(&(struct timespec){ .tv_nsec = 200000000 }, NULL);
	take_answers(&flood);
	expect(write(end, &flood, sizeof(flood)) == sizeof(flood), "write");
	_exit(0);
}

static long rss_kib(pid_t pid)
{
	char path[64];
	long pages = 0;

	snprintf(path, sizeof(path), "/proc/%d/statm", (int)pid);
	FILE *file = fopen(path, "r");
	expect(file && fscanf(file, "%*d %ld", &pages) == 1, "no statm");
	fclose(file);
	return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

static bool measure_flood(pid_t relay, uint16_t port, int fd, double seconds)
{
	const long before = rss_kib(relay);
	struct flood flood;
	int ends[2];

	expect(pipe(ends) == 0, "pipe");
	const pid_t stranger = fork();
	expect(stranger >= 0, "cannot fork");
	if (stranger == 0)
		run_flood(port, seconds, ends[1]);
	const struct pings pings = ping_for(fd, seconds);
	expect(read(ends[0], &flood, sizeof(flood)) == sizeof(flood), "no word of the flood");
	waitpid(stranger, NULL, 0);
	const long growth = rss_kib(relay) - before;
	const double honest = (double)pings.n_answered / (double)pings.n_sent;
	const double factor = (double)flood.bytes_received / (double)flood.bytes_sent;
	printf("under %.0f datagrams of strangers a second: %.1f %% of %lu pings answered (at least %.0f %%), %ld KiB more "
	       "memory, %.2f bytes to strangers for each of theirs\n",
	       (double)flood.n_sent / seconds, 100 * honest, (unsigned long)pings.n_sent, 100 * MIN_HONEST, growth, factor);
	return honest >= MIN_HONEST && growth <= MAX_GROWTH && factor <= 1;
}

bool clients_over_udp(unsigned n, double seconds)
{
	n_clients = n;
	expect(sodium_init() >= 0 && n_clients > 0 && n_clients <= 120000, "1 to 120000 clients");
	make_clients();
	const bool is_small = measure_memory();
	uint16_t port;
	const pid_t relay = fork_relay(&port);
	const int fd = open_generator(port, 4000);
	bind_all(fd);
	const bool is_cheap = measure_keep_alives(relay, fd, seconds), is_robust = measure_flood(relay, port, fd, seconds);
	fflush(stdout);
	kill(relay, SIGTERM);
	waitpid(relay, NULL, 0);
	free(clients);
	close(fd);
	return is_small && is_cheap && is_robust;
}
