/*
 * Two TUN interfaces, each of which gets what the other was sent: what a tunnel costs apart from UDP
 * and crypto. The interfaces may be moved into other network namespaces, also while this runs.
 *
 *   bench_tun whole|cut FIRST SECOND
 *
 *   whole  superpackets are passed on as they were read
 *   cut    they are cut into packets as before sealing, and those merged as after opening
 *
 * Prints "ready" when both are there. SIGTERM ends it; then follows a line of JSON for each direction:
 * the thread's CPU time, and how much of it went into which call.
 */
#include "node/wireguard/tun.h"

#include "tests/bench/bench_clock.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define SLOT_ROOM  48 /* what a sealed packet's slot has around the packet, at most */
#define CUT_BUFFER (OFFLOAD_MAX_PACKET + TRAIN_MAX * (120 + SLOT_ROOM))

struct direction {
	struct tun from, to; /* descriptors are shared with the other direction */
	bool cuts;
	pthread_t thread;
	uint8_t packet[OFFLOAD_MAX_PACKET], slots[CUT_BUFFER];
	uint64_t n_reads, n_packets, n_bytes;
	uint64_t read_ns, cut_ns, write_ns, cpu_ns;
};

static struct direction directions[2];
static atomic_bool is_ending;

static void pass_whole(struct direction *direction, struct offload_header *header, size_t len)
{
	struct iovec pieces[] = { { header, sizeof(*header) }, { direction->packet, len } };
	const size_t payload = len > header->hdr_len ? len - header->hdr_len : 0;
	const uint64_t begin = thread_ns();

	if (writev(direction->to.fd, pieces, ARRAY_LEN(pieces)) < 0)
		direction->to.n_refused++;
	direction->write_ns += thread_ns() - begin;
	direction->n_packets += header->gso_size ? (payload + header->gso_size - 1) / header->gso_size : 1;
}

static void pass_cut(struct direction *direction, const struct offload_header *header, size_t len)
{
	struct offload_cut cut;
	struct train train = train_of_one(direction->packet, len);
	bool is_super;
	uint64_t begin = thread_ns(), cut_at, end;

	if (offload_begin(header, direction->packet, len, &cut, &is_super) != 0)
		return;
	const uint32_t stride = is_super ? offload_packet_len(&cut) + SLOT_ROOM : 0;
	for (bool more = true; more; more = is_super, begin = end) {
		if (is_super && !offload_next(&cut, direction->slots, stride, TRAIN_MAX, &train))
			break;
		cut_at = thread_ns();
		(void)tun_write(&direction->to, &train);
		end = thread_ns();
		direction->cut_ns += cut_at - begin;
		direction->write_ns += end - cut_at;
		direction->n_packets += train.n;
	}
}

/* Whatever there is now. */
static void serve(struct direction *direction)
{
	struct offload_header header;

	for (;;) {
		const uint64_t begin = thread_ns();
		const ssize_t len =
			tun_read(&direction->from, &header, direction->packet, sizeof(direction->packet));
		direction->read_ns += thread_ns() - begin;
		if (len <= 0)
			return;
		direction->n_reads++;
		direction->n_bytes += (uint64_t)len;
		if (direction->cuts)
			pass_cut(direction, &header, (size_t)len);
		else
			pass_whole(direction, &header, (size_t)len);
	}
}

static void *run(void *arg)
{
	struct direction *direction = arg;
	struct pollfd fd = { .fd = direction->from.fd, .events = POLLIN };

	while (!is_ending)
		if (poll(&fd, 1, 100) > 0)
			serve(direction);
	direction->cpu_ns = thread_ns();
	return NULL;
}

static void print_direction(const struct direction *d)
{
	printf("{\"from\": \"%s\", \"reads\": %" PRIu64 ", \"packets\": %" PRIu64 ", \"bytes\": %" PRIu64
	       ", \"refused\": %" PRIu64 ", \"read_ns\": %" PRIu64 ", \"cut_ns\": %" PRIu64
	       ", \"write_ns\": %" PRIu64 ", \"cpu_ns\": %" PRIu64 "}\n",
	       d->from.name, d->n_reads, d->n_packets, d->n_bytes, d->to.n_refused, d->read_ns,
	       d->cut_ns, d->write_ns, d->cpu_ns);
}

static struct tun open_or_exit(const char *name)
{
	struct error error = { 0 };
	struct tun tun;

	if (tun_open(name, &(struct tun_options){ 0 }, &tun, &error) != 0) {
		fprintf(stderr, "bench_tun: %s\n", error.message);
		exit(EXIT_FAILURE);
	}
	return tun;
}

int main(int argc, char *argv[])
{
	sigset_t end;
	int number;

	if (argc != 4 || (strcmp(argv[1], "whole") != 0 && strcmp(argv[1], "cut") != 0)) {
		fputs("bench_tun whole|cut FIRST SECOND\n", stderr);
		return 2;
	}
	sigemptyset(&end);
	sigaddset(&end, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &end, NULL);
	const struct tun first = open_or_exit(argv[2]), second = open_or_exit(argv[3]);
	for (int i = 0; i < 2; i++) {
		directions[i].from = i == 0 ? first : second;
		directions[i].to = i == 0 ? second : first;
		directions[i].cuts = strcmp(argv[1], "cut") == 0;
		if (pthread_create(&directions[i].thread, NULL, run, &directions[i]) != 0)
			abort();
	}
	puts("ready");
	fflush(stdout);
	sigwait(&end, &number);
	is_ending = true;
	for (int i = 0; i < 2; i++) {
		pthread_join(directions[i].thread, NULL);
		print_direction(&directions[i]);
	}
	return 0;
}
