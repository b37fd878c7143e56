/*
 * Trains through the UDP sockets of the data plane and nothing else: what is sent is always the same.
 *
 *   bench_udp receive PORT whole|single         UDP_GRO on, off; SIGTERM ends it
 *   bench_udp send IP PORT whole|single SECONDS  UDP_SEGMENT on, off
 *
 * The receiver says now and then how much has come, and the sender is never more than a window ahead:
 * what is dropped would cost less than what arrives. Each prints a line of JSON at its end.
 */
#include "node/wireguard/udp.h"

#include "tests/bench/bench_clock.h"

#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PACKETS	    45 /* as many of this size as one UDP_SEGMENT takes */
#define PACKET_LEN  1452
#define WINDOW	    (24 * PACKETS)
#define TELL_AFTER  (8 * PACKETS)
#define PATIENCE_MS 50 /* what was not told by then is lost */

static uint8_t data[PACKETS * PACKET_LEN];
static struct udp_inbox inbox;
static atomic_bool is_ending;

static struct udp *open_or_exit(uint16_t port, bool single)
{
	static struct offloads offloads;
	const struct udp_options options = { .port = port, .offloads = &offloads };
	struct error error = { 0 };
	struct udp *udp;

	offloads.switches.off[OFFLOAD_UDP_GSO] = single;
	offloads.switches.off[OFFLOAD_UDP_GRO] = single;
	if (udp_open(&options, &udp, &error) != 0) {
		fprintf(stderr, "bench_udp: %s\n", error.message);
		exit(EXIT_FAILURE);
	}
	return udp;
}

static bool wait_for_some(struct udp *udp, int ms)
{
	struct pollfd fd = { .fd = udp_fd(udp, 0, UDP_V4), .events = POLLIN };

	return poll(&fd, 1, ms) > 0;
}

static int receive_some(struct udp *udp)
{
	const int n = udp_receive(udp, 0, UDP_V4, &inbox);

	if (n < 0)
		abort();
	return n;
}

static uint32_t count_received(int n)
{
	struct train train;
	uint32_t sum = 0;

	for (int i = 0; i < n; i++)
		while (udp_message_next(&inbox.messages[i], &train))
			sum += train.n;
	return sum;
}

static void print_result(const char *role, uint64_t n_datagrams, uint64_t n_lost)
{
	printf("{\"role\": \"%s\", \"datagrams\": %" PRIu64 ", \"lost\": %" PRIu64
	       ", \"cpu_ns\": %" PRIu64 "}\n",
	       role, n_datagrams, n_lost, thread_ns());
}

/* ---- receiving ---- */

static void on_term(int number)
{
	is_ending = true;
}

static void receive(uint16_t port, bool single)
{
	struct udp *udp = open_or_exit(port, single);
	uint64_t n_received = 0, n_told = 0;

	signal(SIGTERM, on_term);
	puts("ready");
	fflush(stdout);
	while (!is_ending) {
		const int n = wait_for_some(udp, 100) ? receive_some(udp) : 0;
		if (n == 0)
			continue;
		const struct wg_path from = inbox.messages[0].from;
		n_received += count_received(n);
		if (n_received - n_told < TELL_AFTER)
			continue;
		const struct train told = train_of_one((uint8_t *)&n_received, sizeof(n_received));
		(void)udp_send(udp, 0, &from, &told, NULL);
		n_told = n_received;
	}
	print_result("receive", n_received, 0);
	udp_free(udp);
}

/* ---- sending ---- */

struct sending {
	int64_t n_sent, n_lost, n_told;
};

/* Until there is room in the window. */
static void await_news(struct udp *udp, struct sending *sending)
{
	const int64_t ahead = sending->n_sent - sending->n_lost - sending->n_told;

	if (ahead < WINDOW && !wait_for_some(udp, 0))
		return;
	if (ahead >= WINDOW && !wait_for_some(udp, PATIENCE_MS)) {
		sending->n_lost += ahead;
		return;
	}
	const int n = receive_some(udp);
	if (n > 0 && inbox.messages[n - 1].left >= sizeof(sending->n_told))
		memcpy(&sending->n_told, inbox.messages[n - 1].at, sizeof(sending->n_told));
}

static time_t seconds_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
	return t.tv_sec;
}

static void send_for(const struct endpoint *to, bool single, int seconds)
{
	struct udp *udp = open_or_exit(0, single);
	const struct wg_path path = { .remote = *to };
	const struct train train = { .base = data,
				     .n = PACKETS,
				     .stride = PACKET_LEN,
				     .size = PACKET_LEN,
				     .last_size = PACKET_LEN };
	const time_t end = seconds_now() + seconds;
	struct sending sending = { 0 };
	uint32_t n;

	while (seconds_now() < end) {
		(void)udp_send(udp, 0, &path, &train, &n);
		sending.n_sent += n;
		await_news(udp, &sending);
	}
	print_result("send", (uint64_t)sending.n_sent, (uint64_t)sending.n_lost);
	udp_free(udp);
}

int main(int argc, char *argv[])
{
	struct endpoint to;

	if (argc == 4 && strcmp(argv[1], "receive") == 0) {
		receive((uint16_t)atoi(argv[2]), strcmp(argv[3], "single") == 0);
		return 0;
	}
	if (argc == 6 && strcmp(argv[1], "send") == 0 &&
	    endpoint_parse_ip(argv[2], (uint16_t)atoi(argv[3]), &to) == 0) {
		send_for(&to, strcmp(argv[4], "single") == 0, atoi(argv[5]));
		return 0;
	}
	fputs("bench_udp receive PORT whole|single\n"
	      "bench_udp send IP PORT whole|single SECONDS\n",
	      stderr);
	return 2;
}
