/*
 * What leaves by a socket that takes only so much, and one that cannot segment: everything in its order, once.
 * The socket is a model: sendmmsg(2) and sendmsg(2) are defined here.
 */
#include "common/relay_udp_wire.h"
#include "relay/udp_socket.h"

#include <assert.h>
#include <errno.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

#define SIZE	 100 /* of a datagram */
#define MAX_SENT 4096

static struct {
	uint32_t room; /* datagrams, before it is full; a train goes whole, as there is room for its first */
	bool cannot_segment;
	uint32_t n_sent, sent[MAX_SENT]; /* their numbers */
	uint32_t n_calls;
	bool is_whole;	  /* what is sent now may not be fragmented */
	uint32_t n_whole; /* messages that were sent so */
} kernel;

int setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
	int how;

	memcpy(&how, value, sizeof(how));
	assert(level == IPPROTO_IP && name == IP_MTU_DISCOVER && len == sizeof(how));
	kernel.is_whole = how == IP_PMTUDISC_PROBE;
	return 0;
}

static uint32_t segment_of(const struct msghdr *header)
{
	uint16_t size = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR((struct msghdr *)(uintptr_t)header, c))
		if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_SEGMENT)
			memcpy(&size, CMSG_DATA(c), sizeof(size));
	return size;
}

static void deliver(const uint8_t *datagram)
{
	uint32_t number;

	memcpy(&number, datagram + RELAY_UDP_HEADER_LEN, sizeof(number));
	assert(kernel.n_sent < MAX_SENT);
	kernel.sent[kernel.n_sent++] = number;
}

ssize_t sendmsg(int fd, const struct msghdr *header, int flags)
{
	const uint32_t segment = segment_of(header);
	static uint8_t bytes[65536];
	size_t len = 0;

	kernel.n_calls++;
	kernel.n_whole += kernel.is_whole;
	for (size_t i = 0; i < header->msg_iovlen; i++) {
		memcpy(bytes + len, header->msg_iov[i].iov_base, header->msg_iov[i].iov_len);
		len += header->msg_iov[i].iov_len;
	}
	const uint32_t size = segment ? segment : (uint32_t)len, n = (uint32_t)((len + size - 1) / size);
	if (segment && kernel.cannot_segment)
		errno = EIO;
	else if (kernel.room == 0)
		errno = EAGAIN;
	else {
		kernel.room -= n < kernel.room ? n : kernel.room;
		for (uint32_t i = 0; i < n; i++)
			deliver(bytes + (size_t)i * size);
		return (ssize_t)len;
	}
	return -1;
}

int sendmmsg(int fd, struct mmsghdr *headers, unsigned n, int flags)
{
	for (unsigned i = 0; i < n; i++)
		if (sendmsg(fd, &headers[i].msg_hdr, flags) < 0)
			return i > 0 ? (int)i : -1;
	return (int)n;
}

struct bench {
	struct relay_socket sock;
	struct refused_paths refused;
	struct relay_outbox_counters counters;
	struct relay_outbox *outbox;
	struct udp_way ways[4]; /* by receiver */
	uint8_t (*bytes)[SIZE];
	uint32_t n; /* numbered so far */
};

static void begin(struct bench *b, uint32_t room, bool cannot_segment)
{
	*b = (struct bench){ .sock = { .fd = 99 } };
	memset(&kernel, 0, sizeof(kernel));
	kernel.room = room;
	kernel.cannot_segment = cannot_segment;
	b->outbox = relay_outbox_new(&b->sock, &b->refused, &b->counters);
	b->bytes = calloc(MAX_SENT, SIZE);
	assert(b->outbox && b->bytes);
	for (unsigned i = 0; i < 4; i++)
		b->ways[i] = (struct udp_way){ .remote = endpoint_from_v4(0x0a000001 + i, 4000) };
}

static void end(struct bench *b)
{
	relay_outbox_free(b->outbox);
	free(b->bytes);
}

/* A train of n from the sender to the receiver, with the next numbers. */
static void add(struct bench *b, uint32_t sender, uint32_t receiver, uint32_t n)
{
	const struct relay_udp_header header = { RELAY_UDP_DATA, receiver, sender, 7 };
	const uint32_t first = b->n;

	assert(first + n <= MAX_SENT);
	for (uint32_t i = 0; i < n; i++, b->n++) {
		relay_udp_header_encode(b->bytes[b->n], &header);
		memcpy(b->bytes[b->n] + RELAY_UDP_HEADER_LEN, &b->n, sizeof(b->n));
	}
	relay_outbox_add_run(b->outbox, &b->ways[receiver], b->bytes[first], (size_t)n * SIZE, SIZE, n);
}

/* One with the next number, which somebody else adds. */
static const uint8_t *number(struct bench *b)
{
	memcpy(b->bytes[b->n] + RELAY_UDP_HEADER_LEN, &b->n, sizeof(b->n));
	return b->bytes[b->n++];
}

/* The bytes may change from here on, as they do when the next batch is received. */
static void flush(struct bench *b)
{
	relay_outbox_flush(b->outbox, 1);
	memset(b->bytes, 0xff, (size_t)b->n * SIZE);
}

/* The socket takes so many more. */
static void make_room(struct bench *b, uint32_t room)
{
	kernel.room = room;
	relay_outbox_resume(b->outbox, 1);
}

/* All numbers below n, each once, in their order. */
static bool all_were_sent_in_order(uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (i >= kernel.n_sent || kernel.sent[i] != i)
			return false;
	return kernel.n_sent == n;
}

static void test_a_full_socket_loses_nothing_and_keeps_the_order(void)
{
	struct bench b;
	begin(&b, 45, false);

	for (int i = 0; i < 5; i++)
		add(&b, 1, 0, 20);
	flush(&b);
	assert(relay_outbox_is_waiting(b.outbox));
	add(&b, 1, 0, 20); /* behind what waits */
	flush(&b);
	while (relay_outbox_is_waiting(b.outbox))
		make_room(&b, 7);
	assert(all_were_sent_in_order(120) && b.counters.sent[RELAY_OUTBOX_DATA] == 120);
	assert(b.counters.full[RELAY_OUTBOX_DATA] == 0 && b.counters.failed[RELAY_OUTBOX_DATA] == 0);
	end(&b);
}

static void test_a_full_socket_that_cannot_segment_loses_nothing_either(void)
{
	for (uint32_t room = 0; room < 60; room++) {
		struct bench b;
		begin(&b, room, true);

		for (int i = 0; i < 3; i++)
			add(&b, 1, 0, 20); /* one message */
		add(&b, 1, 0, 20);
		flush(&b);
		add(&b, 1, 0, 20);
		flush(&b);
		while (relay_outbox_is_waiting(b.outbox))
			make_room(&b, 3);
		assert(all_were_sent_in_order(100) && b.counters.sent[RELAY_OUTBOX_DATA] == 100);
		assert(b.counters.failed[RELAY_OUTBOX_DATA] == 0 && b.counters.full[RELAY_OUTBOX_DATA] == 0);
		end(&b);
	}
}

/* More than one batch has room for: it is sent while the rest is still being added. */
static void test_a_batch_that_is_full_is_not_overtaken_by_its_rest(void)
{
	struct bench b;
	begin(&b, 10, false);

	for (int i = 0; i < 1100; i++)
		add(&b, 1, (uint32_t)i % 4, 1);
	for (int i = 0; i < 1100; i++)
		add(&b, 1, 0, 2);
	assert(kernel.n_calls > 0);
	flush(&b);
	while (relay_outbox_is_waiting(b.outbox))
		make_room(&b, 50);
	uint32_t next = 1100; /* those to the first receiver, all of the same sender */
	for (uint32_t i = 0; i < kernel.n_sent; i++)
		if (kernel.sent[i] >= 1100)
			assert(kernel.sent[i] == next++);
	assert(next == 3300 && kernel.n_sent == 3300);
	end(&b);
}

static void test_a_train_that_was_refused_is_not_tried_again_at_once(void)
{
	struct bench b;
	begin(&b, 1000, true);

	for (int i = 0; i < 2; i++) {
		add(&b, 1, 0, 10);
		flush(&b);
	}
	assert(all_were_sent_in_order(20) && kernel.n_calls == 1 + 10 + 10);
	end(&b);
}

/* An answer has a number, too. */
static void answer(struct bench *b, uint32_t to, size_t size)
{
	memcpy(b->bytes[b->n] + RELAY_UDP_HEADER_LEN, &b->n, sizeof(b->n));
	relay_outbox_add(b->outbox, RELAY_OUTBOX_STUN, &b->ways[to], b->bytes[b->n], size);
	b->n++;
}

static void test_stun_answers_to_one_address_leave_as_a_train(void)
{
	struct bench b;
	begin(&b, MAX_SENT, false);

	for (uint32_t i = 0; i < 50; i++)
		answer(&b, i % 2, SIZE);
	flush(&b);
	assert(kernel.n_calls == 2 && kernel.n_sent == 50 && b.counters.sent[RELAY_OUTBOX_STUN] == 50);
	end(&b);
}

static void test_stun_answers_of_another_size_port_or_address_of_ours_leave_by_themselves(void)
{
	struct bench b;
	begin(&b, MAX_SENT, false);

	b.ways[1] = b.ways[2] = b.ways[0];
	b.ways[1].remote.port++;
	b.ways[2].local_ip[15] = 9;
	for (uint32_t i = 0; i < 3; i++)
		answer(&b, i, SIZE);
	answer(&b, 2, SIZE - 8);
	flush(&b);
	assert(kernel.n_calls == 4 && all_were_sent_in_order(4));
	end(&b);
}

static void test_a_train_of_stun_answers_is_no_longer_than_the_kernel_takes(void)
{
	struct bench b;
	begin(&b, MAX_SENT, false);

	for (uint32_t i = 0; i < 100; i++)
		answer(&b, 0, SIZE);
	flush(&b);
	assert(kernel.n_calls == 2 && all_were_sent_in_order(100));
	end(&b);
}

static void test_a_full_socket_drops_answers_and_counts_them(void)
{
	struct bench b;
	begin(&b, 1, false);

	for (int i = 0; i < 3; i++)
		relay_outbox_add(b.outbox, RELAY_OUTBOX_ANSWER, &b.ways[0], b.bytes[0], SIZE);
	flush(&b);
	assert(!relay_outbox_is_waiting(b.outbox) && kernel.n_sent == 1 && b.counters.full[RELAY_OUTBOX_ANSWER] == 2);
	end(&b);
}

/* Nothing else is sent so, and nothing is overtaken. */
static void test_a_probe_leaves_whole_and_in_its_turn(void)
{
	struct bench b;
	begin(&b, MAX_SENT, false);

	add(&b, 1, 0, 6);
	relay_outbox_send_whole(b.outbox, &b.ways[0], number(&b), SIZE);
	add(&b, 1, 0, 2);
	assert(kernel.n_whole == 1 && !kernel.is_whole);
	flush(&b);
	assert(all_were_sent_in_order(9) && kernel.n_whole == 1);
	assert(b.counters.sent[RELAY_OUTBOX_PROBE] == 1 && b.counters.sent[RELAY_OUTBOX_DATA] == 8);
	end(&b);
}

struct probe {
	uint8_t bytes[RELAY_UDP_HEADER_LEN + RELAY_PROBE_MIN_LEN];
};

/* From 3 to 0; its number is what it begins with. */
static struct probe make_probe(void)
{
	static const uint8_t magic[] = { 0xd2, 0x70, 0x32, 0x70 };
	const struct relay_udp_header header = { RELAY_UDP_DATA, 0, 3, 7 };
	struct probe probe = { { 0 } };

	relay_udp_header_encode(probe.bytes, &header);
	memcpy(probe.bytes + RELAY_UDP_HEADER_LEN, magic, sizeof(magic));
	return probe;
}

static void send_probe(struct bench *b)
{
	struct probe probe = make_probe();

	relay_outbox_send_whole(b->outbox, &b->ways[0], probe.bytes, sizeof(probe.bytes));
	memset(&probe, 0xff, sizeof(probe)); /* as the next batch does */
}

/* Were it dropped, who asks would take a full socket for a narrow path. */
static void test_a_probe_waits_for_a_full_socket_and_leaves_whole(void)
{
	struct bench b;
	begin(&b, 2, false);

	add(&b, 1, 0, 1);
	add(&b, 2, 1, 1);
	send_probe(&b); /* the socket is full by now */
	assert(b.counters.full[RELAY_OUTBOX_PROBE] == 0 && relay_outbox_is_waiting(b.outbox) && !kernel.is_whole);
	add(&b, 1, 0, 1);
	flush(&b);

	const uint32_t tried = kernel.n_whole;
	kernel.room = 1;
	relay_outbox_resume(b.outbox, 1);
	assert(kernel.n_sent == 3 && b.counters.sent[RELAY_OUTBOX_PROBE] + b.counters.sent[RELAY_OUTBOX_DATA] == 3);
	kernel.room = 9;
	relay_outbox_resume(b.outbox, 1);
	assert(kernel.n_sent == 4 && !relay_outbox_is_waiting(b.outbox) && !kernel.is_whole && kernel.n_whole > tried);
	assert(b.counters.sent[RELAY_OUTBOX_PROBE] == 1 && b.counters.sent[RELAY_OUTBOX_DATA] == 3);
	end(&b);
}

static void test_a_probe_that_finds_the_socket_full_again_is_not_lost(void)
{
	struct bench b;
	begin(&b, 0, false);

	add(&b, 1, 0, 2);
	flush(&b);
	send_probe(&b);
	for (int i = 0; i < 3; i++)
		relay_outbox_resume(b.outbox, 1);
	assert(kernel.n_sent == 0 && relay_outbox_is_waiting(b.outbox));
	kernel.room = 9;
	relay_outbox_resume(b.outbox, 1);
	assert(kernel.n_sent == 3 && !relay_outbox_is_waiting(b.outbox));
	assert(b.counters.sent[RELAY_OUTBOX_PROBE] == 1 && b.counters.sent[RELAY_OUTBOX_DATA] == 2);
	end(&b);
}

int main(void)
{
	test_a_probe_leaves_whole_and_in_its_turn();
	test_a_probe_waits_for_a_full_socket_and_leaves_whole();
	test_a_probe_that_finds_the_socket_full_again_is_not_lost();
	test_a_full_socket_loses_nothing_and_keeps_the_order();
	test_a_full_socket_that_cannot_segment_loses_nothing_either();
	test_a_batch_that_is_full_is_not_overtaken_by_its_rest();
	test_a_train_that_was_refused_is_not_tried_again_at_once();
	test_stun_answers_to_one_address_leave_as_a_train();
	test_stun_answers_of_another_size_port_or_address_of_ours_leave_by_themselves();
	test_a_train_of_stun_answers_is_no_longer_than_the_kernel_takes();
	test_a_full_socket_drops_answers_and_counts_them();
	puts("ok");
}
