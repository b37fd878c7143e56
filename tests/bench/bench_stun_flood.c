/*
 * Asks a STUN server, from one socket and many source addresses, and counts the answers.
 *
 *   bench_stun_flood IP PORT SECONDS RATE FIRST_SOURCE N_SOURCES
 *
 * RATE: questions a second, 0: as many as go. Sources are one address in each of N_SOURCES /24 prefixes, the
 * first of them FIRST_SOURCE: a server that limits each prefix is asked a little by each. They must be routed
 * here (`ip route add local PREFIX dev lo`). An answer counts once, and when its transaction is one
 * that waits; one of a few hundred is read in full, mapped address and fingerprint. Answers that come as a train
 * are taken as one (UDP_GRO), as our nodes do. Prints a line of JSON.
 */
#include "common/stun_wire.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/udp.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#ifndef UDP_GRO
#define UDP_GRO 104
#endif

#define BATCH	       64
#define MAX_TRAIN      65536 /* bytes of answers in one message */
#define SLOTS	       262144  /* questions that may wait at a time; the number of one is in its transaction */
#define MAX_DELAYS     4000000 /* kept; more is not needed for a percentile */
#define RECEIVE_BUFFER (32 * 1024 * 1024)
#define PATIENCE_NS    100000000 /* for the last answers */
#define READ_IN_FULL   256	 /* one of so many answers */

struct slot {
	uint8_t question[STUN_REQUEST_LEN];
	uint32_t source;   /* host order */
	uint64_t asked_ns; /* 0: nothing waits */
};

struct asker {
	int fd;
	struct sockaddr_in server;
	uint32_t first_source, n_sources;
	uint64_t rate;
	uint8_t run[STUN_TX_LEN - sizeof(uint32_t)]; /* the same in all transactions */
	uint64_t n_asked, n_unsent, n_answered, n_late, n_invalid, n_delays;
	uint64_t begin_ns, now_ns;
};

/* The address that a question leaves from, or that an answer came to. */
struct control {
	struct cmsghdr header;
	struct in_pktinfo info;
};
static_assert(sizeof(struct control) == CMSG_SPACE(sizeof(struct in_pktinfo)), "as the kernel has it");

/* What one system call sends. */
struct sending {
	struct mmsghdr messages[BATCH];
	struct iovec iovs[BATCH];
	struct control controls[BATCH];
};

/* And receives: each message one answer or a train. */
struct receiving {
	struct mmsghdr messages[BATCH];
	struct iovec iovs[BATCH];
	struct {
		_Alignas(struct cmsghdr) uint8_t bytes[CMSG_SPACE(sizeof(struct in_pktinfo)) + CMSG_SPACE(sizeof(int))];
	} controls[BATCH];
	uint8_t bytes[BATCH][MAX_TRAIN];
};

static struct slot slots[SLOTS];
static struct sending sending;
static struct receiving receiving;
static uint32_t delays_ns[MAX_DELAYS];

static void fail(const char *what)
{
	fprintf(stderr, "bench_stun_flood: %s: %s\n", what, strerror(errno));
	exit(EXIT_FAILURE);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* ---- before the first question ---- */

static void make_questions(struct asker *asker)
{
	struct stun_message message;
	struct stun_tx tx;

	randombytes_buf(asker->run, sizeof(asker->run));
	memcpy(tx.bytes, asker->run, sizeof(asker->run));
	for (uint32_t i = 0; i < SLOTS; i++) {
		memcpy(tx.bytes + sizeof(asker->run), &i, sizeof(i));
		stun_make_request(&message, &tx);
		if (stun_encode(slots[i].question, STUN_REQUEST_LEN, &message) != STUN_REQUEST_LEN)
			abort();
	}
}

static void prepare_sending(struct asker *asker)
{
	for (int i = 0; i < BATCH; i++) {
		sending.controls[i].header =
			(struct cmsghdr){ .cmsg_level = IPPROTO_IP,
					  .cmsg_type = IP_PKTINFO,
					  .cmsg_len = CMSG_LEN(sizeof(struct in_pktinfo)) };
		sending.messages[i].msg_hdr =
			(struct msghdr){ .msg_name = &asker->server,
					 .msg_namelen = sizeof(asker->server),
					 .msg_iov = &sending.iovs[i],
					 .msg_iovlen = 1,
					 .msg_control = &sending.controls[i],
					 .msg_controllen = sizeof(sending.controls[i]) };
	}
}

static void prepare_receiving(void)
{
	for (int i = 0; i < BATCH; i++) {
		receiving.iovs[i] = (struct iovec){ receiving.bytes[i], MAX_TRAIN };
		receiving.messages[i].msg_hdr =
			(struct msghdr){ .msg_iov = &receiving.iovs[i],
					 .msg_iovlen = 1,
					 .msg_control = &receiving.controls[i] };
	}
}

static void open_socket(struct asker *asker)
{
	const int one = 1, buffer = RECEIVE_BUFFER;
	const struct sockaddr_in any = { .sin_family = AF_INET };

	asker->fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (asker->fd < 0 || bind(asker->fd, (const struct sockaddr *)&any, sizeof(any)) != 0)
		fail("socket");
	/* Answers that came and were not read would be lost to the count. */
	if (setsockopt(asker->fd, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof(buffer)) != 0)
		fail("SO_RCVBUFFORCE");
	if (setsockopt(asker->fd, IPPROTO_IP, IP_PKTINFO, &one, sizeof(one)) != 0)
		fail("IP_PKTINFO");
	if (setsockopt(asker->fd, IPPROTO_UDP, UDP_GRO, &one, sizeof(one)) != 0)
		fail("UDP_GRO");
}

/* ---- asking ---- */

static void prepare_question(struct asker *asker, unsigned i)
{
	const uint64_t number = asker->n_asked + i;
	struct slot *slot = &slots[number % SLOTS];

	slot->source = asker->first_source + ((uint32_t)(number % asker->n_sources) << 8);
	slot->asked_ns = asker->now_ns;
	sending.controls[i].info = (struct in_pktinfo){ .ipi_spec_dst.s_addr = htonl(slot->source) };
	sending.iovs[i] = (struct iovec){ slot->question, STUN_REQUEST_LEN };
}

static void ask(struct asker *asker, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		prepare_question(asker, i);
	const int sent = sendmmsg(asker->fd, sending.messages, n, 0);
	if (sent < 0 && errno != EAGAIN && errno != ENOBUFS)
		fail("sendmmsg");
	if (sent != (int)n)
		asker->n_unsent++;
	asker->n_asked += sent > 0 ? (unsigned)sent : 0;
}

/* How many questions are due: in a flood always as many as one system call takes. */
static unsigned due(const struct asker *asker)
{
	if (asker->rate == 0)
		return BATCH;
	const uint64_t wanted = (asker->now_ns - asker->begin_ns) * asker->rate / 1000000000;
	const uint64_t n = wanted > asker->n_asked ? wanted - asker->n_asked : 0;
	return n > BATCH ? BATCH : (unsigned)n;
}

/* ---- answers ---- */

/* The question of ours that it answers, which may have been answered already; NULL: none. */
static struct slot *question_of(const struct asker *asker, const uint8_t *bytes, size_t len)
{
	static const uint8_t success[] = { 0x01, 0x01 };
	const uint8_t *tx = bytes + STUN_HEADER_LEN - STUN_TX_LEN;
	uint32_t i;

	if (len < STUN_HEADER_LEN || memcmp(bytes, success, sizeof(success)) != 0 ||
	    memcmp(tx, asker->run, sizeof(asker->run)) != 0)
		return NULL;
	memcpy(&i, tx + sizeof(asker->run), sizeof(i));
	return i < SLOTS ? &slots[i] : NULL;
}

static bool is_right_in_full(const struct slot *slot, const uint8_t *bytes, size_t len)
{
	struct stun_message answer;

	if (stun_decode(bytes, len, &answer) != 0 || !answer.has_fingerprint)
		return false;
	const struct endpoint source = endpoint_from_v4(slot->source, answer.mapped.port);
	return endpoint_equal(&answer.mapped, &source);
}

static void read_answer(struct asker *asker, uint32_t to, const uint8_t *bytes, size_t len)
{
	struct slot *slot = question_of(asker, bytes, len);

	if (slot && (slot->asked_ns == 0 || slot->source != to)) {
		asker->n_late++; /* its number has been given to another question */
		return;
	}
	if (!slot || (asker->n_answered % READ_IN_FULL == 0 && !is_right_in_full(slot, bytes, len))) {
		asker->n_invalid++;
		return;
	}
	asker->n_answered++;
	if (asker->n_delays < MAX_DELAYS)
		delays_ns[asker->n_delays++] = (uint32_t)(asker->now_ns - slot->asked_ns);
	slot->asked_ns = 0;
}

static void read_message(struct asker *asker, unsigned i)
{
	struct msghdr *header = &receiving.messages[i].msg_hdr;
	const size_t len = receiving.messages[i].msg_len;
	struct in_pktinfo info = { 0 };
	int size = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c)) {
		if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO)
			memcpy(&info, CMSG_DATA(c), sizeof(info));
		else if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO)
			memcpy(&size, CMSG_DATA(c), sizeof(size));
	}
	const size_t step = size > 0 ? (size_t)size : len;
	for (size_t at = 0; at < len; at += step)
		read_answer(asker, ntohl(info.ipi_addr.s_addr), receiving.bytes[i] + at, len - at < step ? len - at : step);
}

static void read_answers(struct asker *asker)
{
	int n;

	do {
		for (int i = 0; i < BATCH; i++)
			receiving.messages[i].msg_hdr.msg_controllen = sizeof(receiving.controls[i]);
		n = recvmmsg(asker->fd, receiving.messages, BATCH, 0, NULL);
		if (n < 0 && errno != EAGAIN)
			fail("recvmmsg");
		asker->now_ns = now_ns();
		for (int i = 0; i < n; i++)
			read_message(asker, (unsigned)i);
	} while (n == BATCH);
}

/* ---- a run ---- */

static int compare_delays(const void *a, const void *b)
{
	const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

/* In microseconds; of all questions, so that one without an answer took for ever (-1). */
static double delay_at(const struct asker *asker, unsigned percent)
{
	uint64_t of = asker->n_asked;

	if (asker->n_delays == MAX_DELAYS) /* not all were kept */
		of = asker->n_asked * MAX_DELAYS / asker->n_answered;
	const uint64_t rank = (of * percent + 99) / 100;
	return rank > 0 && rank <= asker->n_delays ? delays_ns[rank - 1] / 1e3 : -1;
}

static void print_result(const struct asker *asker, double seconds, uint64_t n_in_time)
{
	qsort(delays_ns, asker->n_delays, sizeof(*delays_ns), compare_delays);
	printf("{\"seconds\": %.6f, \"asked\": %" PRIu64 ", \"answered\": %" PRIu64
	       ", \"answered_in_time\": %" PRIu64 ", \"late\": %" PRIu64 ", \"invalid\": %" PRIu64 ", \"unsent\": %" PRIu64
	       ", \"p50_us\": %.1f, \"p99_us\": %.1f}\n",
	       seconds, asker->n_asked, asker->n_answered, n_in_time, asker->n_late, asker->n_invalid, asker->n_unsent,
	       delay_at(asker, 50), delay_at(asker, 99));
}

static void run(struct asker *asker, double seconds)
{
	asker->begin_ns = asker->now_ns = now_ns();
	const uint64_t end_ns = asker->begin_ns + (uint64_t)(seconds * 1e9);

	while (asker->now_ns < end_ns) {
		const unsigned n = due(asker);
		if (n > 0)
			ask(asker, n);
		read_answers(asker);
	}
	const double took = (double)(asker->now_ns - asker->begin_ns) / 1e9;
	const uint64_t n_in_time = asker->n_answered;
	while (asker->now_ns < end_ns + PATIENCE_NS)
		read_answers(asker);
	print_result(asker, took, n_in_time);
}

int main(int argc, char *argv[])
{
	struct asker asker = { .server.sin_family = AF_INET };
	struct in_addr first;

	if (argc != 7 || sodium_init() < 0 || inet_pton(AF_INET, argv[1], &asker.server.sin_addr) != 1 ||
	    inet_pton(AF_INET, argv[5], &first) != 1 || atof(argv[3]) <= 0 || atoi(argv[6]) <= 0) {
		fputs("bench_stun_flood IP PORT SECONDS RATE FIRST_SOURCE N_SOURCES\n", stderr);
		return 2;
	}
	asker.server.sin_port = htons((uint16_t)atoi(argv[2]));
	asker.rate = strtoull(argv[4], NULL, 10);
	asker.first_source = ntohl(first.s_addr);
	asker.n_sources = (uint32_t)atoi(argv[6]);
	make_questions(&asker);
	prepare_sending(&asker);
	prepare_receiving();
	open_socket(&asker);
	run(&asker, atof(argv[3]));
	return 0;
}
