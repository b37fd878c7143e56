/*
 * UDP_SEGMENT and UDP_GRO refused as kernels and network cards do it: sendmsg(2) is ours here, and refuses
 * trains to some remotes; recvmmsg(2), and fails. The same datagrams arrive all the same, once each and in
 * order.
 */
#include "node/wireguard/udp.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N    TRAIN_MAX /* more than one UDP_SEGMENT takes */
#define SIZE 200

/* How sendmsg behaves. */
static struct {
	const char *bad_ip;	/* trains to it are refused */
	uint16_t bad_size;	/* … of datagrams from this size on */
	int error;
	uint32_t n_pass;	/* … after so many trains that are taken */
	uint32_t n_until_full;	/* datagrams until the socket is full; UINT32_MAX: never */
	uint32_t n_trains, n_singles, n_refused;
	int receive_error; /* while datagrams are joined */
} kernel;

ssize_t __real_sendmsg(int fd, const struct msghdr *message, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags);

static uint16_t segment_of(const struct msghdr *message)
{
	uint16_t segment = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR((struct msghdr *)(uintptr_t)message, c))
		if (c->cmsg_level == IPPROTO_UDP)
			memcpy(&segment, CMSG_DATA(c), sizeof(segment));
	return segment;
}

static size_t size_of(const struct msghdr *message)
{
	size_t size = 0;

	for (size_t i = 0; i < message->msg_iovlen; i++)
		size += message->msg_iov[i].iov_len;
	return size;
}

ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags)
{
	struct endpoint to = endpoint_from_sockaddr(message->msg_name);
	uint16_t segment = segment_of(message);
	struct endpoint bad;

	/* Some kernels refuse it for a single datagram, which Firezone did not know. */
	assert(segment == 0 || size_of(message) > segment);
	assert(endpoint_parse_ip(kernel.bad_ip, to.port, &bad) == 0);
	if (segment && segment >= kernel.bad_size && endpoint_equal(&to, &bad) && kernel.n_pass == 0) {
		kernel.n_refused++;
		errno = kernel.error;
		return -1;
	}
	if (segment && kernel.n_pass > 0)
		kernel.n_pass--;
	if (kernel.n_until_full == 0) {
		errno = EAGAIN;
		return -1;
	}
	kernel.n_until_full -= kernel.n_until_full != UINT32_MAX;
	kernel.n_trains += segment != 0;
	kernel.n_singles += segment == 0;
	return __real_sendmsg(fd, message, flags);
}

int __real_recvmmsg(int fd, struct mmsghdr *messages, unsigned n, int flags, struct timespec *timeout);
int __wrap_recvmmsg(int fd, struct mmsghdr *messages, unsigned n, int flags, struct timespec *timeout);

static bool is_joining(int fd)
{
	int value = 0;
	socklen_t len = sizeof(value);

	return getsockopt(fd, IPPROTO_UDP, 104 /* UDP_GRO */, &value, &len) == 0 && value != 0;
}

int __wrap_recvmmsg(int fd, struct mmsghdr *messages, unsigned n, int flags, struct timespec *timeout)
{
	if (kernel.receive_error && is_joining(fd)) {
		errno = kernel.receive_error;
		return -1;
	}
	return __real_recvmmsg(fd, messages, n, flags, timeout);
}

struct pair {
	struct offloads offloads;
	struct udp *from, *to;
	struct udp_inbox *inbox;
};

static void begin(struct pair *pair, const char *bad_ip, int error)
{
	memset(pair, 0, sizeof(*pair));
	memset(&kernel, 0, sizeof(kernel));
	kernel.bad_ip = bad_ip;
	kernel.error = error;
	kernel.n_until_full = UINT32_MAX;
	assert(udp_open(&(struct udp_options){ .offloads = &pair->offloads }, &pair->from, NULL) == 0);
	assert(udp_open(&(struct udp_options){ 0 }, &pair->to, NULL) == 0);
	pair->inbox = calloc(1, sizeof(*pair->inbox));
	assert(pair->inbox);
}

static void end(struct pair *pair)
{
	udp_free(pair->from);
	udp_free(pair->to);
	free(pair->inbox);
}

static struct train numbered(uint32_t size)
{
	static uint8_t bytes[N * SIZE];
	struct train train = { .base = bytes, .n = N, .stride = size, .size = size, .last_size = size / 2 };

	for (uint32_t i = 0; i < N; i++)
		memset(train_packet(&train, i), (int)i + 1, train_size(&train, i));
	return train;
}

static struct wg_path path_to(const struct pair *pair, const char *ip)
{
	struct wg_path path = { 0 };

	assert(endpoint_parse_ip(ip, pair->to->port, &path.remote) == 0);
	return path;
}

static void expect_all(struct pair *pair, const char *ip, const struct train *sent)
{
	enum udp_family family = strchr(ip, ':') ? UDP_V6 : UDP_V4;
	struct pollfd readable = { .fd = udp_fd(pair->to, 0, family), .events = POLLIN };
	struct train train;

	for (uint32_t at = 0; at < N;) {
		assert(poll(&readable, 1, 10000) == 1);
		int n = udp_receive(pair->to, 0, family, pair->inbox);
		for (int m = 0; m < n; m++)
			while (udp_message_next(&pair->inbox->messages[m], &train))
				for (uint32_t i = 0; i < train.n; i++, at++)
					assert(at < N && train_size(&train, i) == train_size(sent, at) &&
					       train_packet(&train, i)[0] == at + 1);
	}
	assert(poll(&readable, 1, 0) == 0); /* and none twice */
}

static struct train send_numbered(struct pair *pair, const char *ip, uint32_t size)
{
	struct wg_path path = path_to(pair, ip);
	struct train train = numbered(size);
	uint32_t sent = 0;

	assert(udp_send(pair->from, 0, &path, &train, &sent) == 0 && sent == N);
	return train;
}

/* Sends a numbered train there, which arrives. */
static void send_to(struct pair *pair, const char *ip, uint32_t size)
{
	struct train train = send_numbered(pair, ip, size);

	expect_all(pair, ip, &train);
}

static const struct offload_gauge *gauge(const struct pair *pair)
{
	return &pair->offloads.gauges[OFFLOAD_UDP_GSO];
}

static void test_a_refused_train_leaves_one_by_one(const char *ip, int error)
{
	struct pair pair;
	begin(&pair, ip, error);

	send_to(&pair, ip, SIZE);
	assert(kernel.n_refused == 1 && kernel.n_singles == N && kernel.n_trains == 0);
	assert(gauge(&pair)->n_refused == 1 && gauge(&pair)->n_used == 0 && gauge(&pair)->n_fell_back > 0);
	send_to(&pair, ip, SIZE);
	assert(kernel.n_refused == 1); /* not tried again … */
	udp_routes_changed(pair.from);
	send_to(&pair, ip, SIZE);
	assert(kernel.n_refused == 2); /* … until routes change */
	assert(strcmp(offloads_report(&pair.offloads, OFFLOAD_UDP_GSO).state, "on") == 0);
	end(&pair);
}

static void test_a_refusal_does_not_concern_other_paths(void)
{
	struct pair pair;
	begin(&pair, "127.0.0.2", EIO);

	send_to(&pair, "127.0.0.2", SIZE);
	uint32_t n_singles = kernel.n_singles;
	send_to(&pair, "127.0.0.3", SIZE);
	send_to(&pair, "::1", SIZE);
	assert(kernel.n_trains > 0 && kernel.n_refused == 1);
	assert(kernel.n_singles == n_singles + 2); /* what 63 leave of 64 */
	end(&pair);
}

static void test_smaller_datagrams_may_still_go_in_trains(void)
{
	struct pair pair;
	begin(&pair, "127.0.0.2", EMSGSIZE);

	kernel.bad_size = SIZE;
	send_to(&pair, "127.0.0.2", SIZE);
	assert(kernel.n_refused == 1 && kernel.n_trains == 0);
	send_to(&pair, "127.0.0.2", SIZE - 1);
	assert(kernel.n_refused == 1 && kernel.n_trains == 1);
	end(&pair);
}

/* A path's MTU counts what is on the wire. */
static void test_the_header_of_a_relay_counts_for_what_is_refused(void)
{
	struct train train = numbered(SIZE);
	struct wg_path relayed;
	uint32_t sent = 0;
	struct pair pair;
	begin(&pair, "127.0.0.2", EMSGSIZE);
	relayed = path_to(&pair, "127.0.0.2");
	relayed.relay_id = 7;

	kernel.bad_size = SIZE + WG_RELAY_HEADER_LEN;
	for (uint32_t i = 1; i <= 2; i++) {
		assert(udp_send(pair.from, 0, &relayed, &train, &sent) == 0 && sent == N);
		assert(kernel.n_refused == 1 && kernel.n_singles == i * N && kernel.n_trains == 0);
	}
	relayed.relay_id = 0; /* directly they are shorter */
	assert(udp_send(pair.from, 0, &relayed, &train, &sent) == 0 && sent == N);
	assert(kernel.n_refused == 1 && kernel.n_trains == 1);
	end(&pair);
}

/* The first 63 datagrams were taken as a train; what is refused then is the rest. */
static void test_what_was_taken_is_not_sent_again(void)
{
	struct wg_path path;
	struct train train = numbered(SIZE);
	struct pair pair;
	begin(&pair, "127.0.0.2", EIO);
	path = path_to(&pair, "127.0.0.2");

	kernel.n_pass = 1;
	for (int i = 0; i < 2; i++) { /* the second time from the middle of a train */
		struct train part = train_slice(&train, i ? 32 : 0, 32);
		uint32_t sent = 0;
		assert(udp_send(pair.from, 0, &path, &part, &sent) == 0 && sent == 32);
	}
	expect_all(&pair, "127.0.0.2", &train);
	assert(kernel.n_trains == 1 && kernel.n_singles == 32 && kernel.n_refused == 1);
	end(&pair);
}

static void test_a_socket_that_fills_up_is_gone_on_with_where_it_stopped(void)
{
	struct wg_path path;
	struct train train = numbered(SIZE);
	uint32_t sent = 0;
	struct pair pair;
	begin(&pair, "127.0.0.2", EIO);
	path = path_to(&pair, "127.0.0.2");

	kernel.n_until_full = 10;
	assert(udp_send(pair.from, 0, &path, &train, &sent) == -EAGAIN && sent == 10);
	kernel.n_until_full = UINT32_MAX;
	struct train rest = train_slice(&train, sent, N - sent);
	assert(udp_send(pair.from, 0, &path, &rest, &sent) == 0 && sent == N - 10);
	expect_all(&pair, "127.0.0.2", &train);
	assert(pair.from->counters.n_lost == 0);
	end(&pair);
}

static void test_what_cannot_be_received_joined_is_received_one_by_one(int error)
{
	struct pair pair;
	begin(&pair, "127.0.0.2", EIO);
	udp_free(pair.to);
	assert(udp_open(&(struct udp_options){ .offloads = &pair.offloads }, &pair.to, NULL) == 0);

	if (!is_joining(udp_fd(pair.to, 0, UDP_V4)))
		goto end; /* this kernel cannot do it at all */
	kernel.receive_error = error;
	(void)send_numbered(&pair, "127.0.0.1", SIZE);
	assert(udp_receive(pair.to, 0, UDP_V4, pair.inbox) == -error);
	struct offload_report report = offloads_report(&pair.offloads, OFFLOAD_UDP_GRO);
	assert(strcmp(report.state, "refused") == 0 && report.n_refused == 1 && report.n_used == 0);
	while (udp_receive(pair.to, 0, UDP_V4, pair.inbox) > 0)
		; /* what had come joined is lost */
	send_to(&pair, "127.0.0.1", SIZE);
	send_to(&pair, "::1", SIZE); /* what one socket cannot do, its like are not asked for */
	report = offloads_report(&pair.offloads, OFFLOAD_UDP_GRO);
	assert(report.n_refused == 1 && report.n_used == 0);
end:
	end(&pair);
}

static void test_other_errors_say_nothing_about_joining(void)
{
	struct pair pair;
	begin(&pair, "127.0.0.2", EIO);
	kernel.receive_error = ENOMEM;

	if (is_joining(udp_fd(pair.to, 0, UDP_V4)))
		assert(udp_receive(pair.to, 0, UDP_V4, pair.inbox) == -ENOMEM && is_joining(udp_fd(pair.to, 0, UDP_V4)));
	end(&pair);
}

int main(void)
{
	static const int errors[] = { EIO, EINVAL, EMSGSIZE };

	for (size_t i = 0; i < ARRAY_LEN(errors); i++) {
		test_a_refused_train_leaves_one_by_one("127.0.0.2", errors[i]);
		test_a_refused_train_leaves_one_by_one("::1", errors[i]);
	}
	test_a_refusal_does_not_concern_other_paths();
	test_smaller_datagrams_may_still_go_in_trains();
	test_the_header_of_a_relay_counts_for_what_is_refused();
	test_what_was_taken_is_not_sent_again();
	test_a_socket_that_fills_up_is_gone_on_with_where_it_stopped();
	test_what_cannot_be_received_joined_is_received_one_by_one(EIO);
	test_what_cannot_be_received_joined_is_received_one_by_one(EINVAL);
	test_other_errors_say_nothing_about_joining();
	puts("ok");
	return 0;
}
