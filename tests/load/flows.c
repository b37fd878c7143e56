/*
 * Traffic that knows what it should look like.
 *
 *   flows serve IP PORT
 *   flows send IP PORT ID SECONDS [tcp | udp:RATE:SIZE | uso:RATE:SIZE]...
 *
 * serve prints "ready"; on SIGTERM it prints what it has seen and ends. send runs all its flows at
 * once for so long, or until SIGTERM, then prints what it has sent. Both print one line of JSON.
 *
 * tcp    a connection, as much as goes, both ways at once: each end checks each byte
 * udp    RATE datagrams a second, numbered: the receiver counts what is late, double or damaged.
 *        SIZE 0: all sizes mixed
 * uso    the same, given to the kernel many at a time (UDP_SEGMENT)
 *
 * Flows are numbered from ID on; one server takes flows of several senders with different IDs.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

#define FLOWS_MAX   256
#define BLOCK	    (64 * 1024)
#define MAGIC	    0x666c6f77u
#define WINDOW	    (1u << 16) /* numbers of a flow that are remembered */
#define SIZE_MIN    32u
#define SIZE_MAX_UDP 1372u
#define TIMEOUT_S   150

static const char *program_ip;
static volatile sig_atomic_t was_told_to_end;
static struct sockaddr_storage address;
static socklen_t address_len;

static _Noreturn void fail(const char *what)
{
	fprintf(stderr, "flows: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void on_term(int number)
{
	was_told_to_end = 1;
}

static bool is_time_left(uint64_t end_ns)
{
	return !was_told_to_end && now_ns() < end_ns;
}

static void sleep_until(uint64_t at_ns)
{
	const struct timespec t = { (time_t)(at_ns / 1000000000), (long)(at_ns % 1000000000) };

	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

static void start(pthread_t *thread, void *(*fn)(void *arg), void *arg)
{
	errno = pthread_create(thread, NULL, fn, arg);
	if (errno != 0)
		fail("thread");
}

static int new_socket(int type)
{
	const struct timeval timeout = { .tv_sec = TIMEOUT_S };
	int fd = socket(address.ss_family, type | SOCK_CLOEXEC, 0);

	if (fd < 0)
		fail("socket");
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
	return fd;
}

/* The content of everything: word n of a stream. */
static uint64_t word(uint64_t seed, uint64_t n)
{
	uint64_t x = (seed + 1) * 0x9e3779b97f4a7c15u + n;

	x = (x ^ x >> 31) * 0xbf58476d1ce4e5b9u;
	return x ^ x >> 29;
}

/* ---- TCP ---- */

struct stream {
	int fd;
	uint32_t id;
	bool is_client;
	_Atomic bool is_over; /* nothing more is to be sent */
	uint64_t sent, received, end_ns;
	uint64_t longest_stall_ns;
	bool is_damaged, is_broken;
	pthread_t sender, receiver;
};

static struct stream streams[FLOWS_MAX];
static _Atomic unsigned n_streams;

static void *stream_send(void *arg)
{
	struct stream *stream = arg;
	uint64_t block[BLOCK / 8], n = 0;

	while (!atomic_load(&stream->is_over) && is_time_left(stream->end_ns)) {
		for (size_t i = 0; i < BLOCK / 8; i++)
			block[i] = word(stream->id * 2u + stream->is_client, n++);
		for (size_t done = 0; done < BLOCK;) {
			ssize_t len = send(stream->fd, (char *)block + done, BLOCK - done, MSG_NOSIGNAL);
			if (len <= 0) {
				stream->is_broken = true;
				return NULL;
			}
			done += (size_t)len;
			stream->sent += (uint64_t)len;
		}
	}
	shutdown(stream->fd, SHUT_WR);
	return NULL;
}

static void check_block(struct stream *stream, const uint64_t *block, size_t n_words)
{
	uint64_t at = stream->received / 8;

	for (size_t i = 0; i < n_words; i++)
		if (block[i] != word(stream->id * 2u + !stream->is_client, at + i))
			stream->is_damaged = true;
	stream->received += n_words * 8;
}

static void *stream_receive(void *arg)
{
	struct stream *stream = arg;
	uint64_t block[BLOCK / 8], last_ns = now_ns();
	size_t have = 0;

	for (;;) {
		ssize_t len = recv(stream->fd, (char *)block + have, BLOCK - have, 0);
		uint64_t now = now_ns();
		if (now - last_ns > stream->longest_stall_ns)
			stream->longest_stall_ns = now - last_ns;
		last_ns = now;
		if (len <= 0) {
			stream->is_broken |= len < 0 || have != 0;
			break;
		}
		have += (size_t)len;
		check_block(stream, block, have / 8);
		memmove(block, (char *)block + have / 8 * 8, have % 8);
		have %= 8;
	}
	atomic_store(&stream->is_over, true);
	return NULL;
}

static struct stream *stream_begin(int fd, uint32_t id, bool is_client, uint64_t end_ns)
{
	unsigned n = atomic_load(&n_streams);

	if (n == FLOWS_MAX) {
		close(fd);
		return NULL;
	}
	struct stream *stream = &streams[n];
	*stream = (struct stream){ .fd = fd, .id = id, .is_client = is_client, .end_ns = end_ns };
	start(&stream->sender, stream_send, stream);
	start(&stream->receiver, stream_receive, stream);
	atomic_fetch_add(&n_streams, 1);
	return stream;
}

static void stream_connect(uint32_t id, uint64_t end_ns)
{
	int fd = new_socket(SOCK_STREAM);

	if (connect(fd, (struct sockaddr *)&address, address_len) != 0)
		fail("connect");
	if (send(fd, &id, sizeof(id), 0) != sizeof(id))
		fail("send");
	stream_begin(fd, id, true, end_ns);
}

static void *streams_accept(void *arg)
{
	const struct timeval timeout = { .tv_sec = TIMEOUT_S };
	int listener = *(int *)arg;

	for (;;) {
		uint32_t id;
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0)
			continue; /* nobody for a while */
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
		if (recv(fd, &id, sizeof(id), MSG_WAITALL) == sizeof(id))
			stream_begin(fd, id, false, UINT64_MAX);
	}
	return NULL;
}

static void streams_finish(void)
{
	for (unsigned i = 0; i < atomic_load(&n_streams); i++) {
		pthread_join(streams[i].sender, NULL);
		pthread_join(streams[i].receiver, NULL);
	}
}

static void streams_print(void)
{
	printf("\"tcp\": {");
	for (unsigned i = 0; i < atomic_load(&n_streams); i++) {
		const struct stream *stream = &streams[i];
		printf("%s\"%u\": {\"sent\": %llu, \"received\": %llu, \"damaged\": %s, \"broken\": %s, "
		       "\"stall_ms\": %llu}",
		       i ? ", " : "", stream->id, (unsigned long long)stream->sent,
		       (unsigned long long)stream->received, stream->is_damaged ? "true" : "false",
		       stream->is_broken ? "true" : "false",
		       (unsigned long long)stream->longest_stall_ns / 1000000);
	}
	printf("}");
}

/* ---- UDP, the sending half ---- */

struct header {
	uint32_t magic, flow;
	uint64_t number;
	uint64_t size;
};

struct pulse {
	uint32_t id, rate, size;
	bool is_uso;
	uint64_t end_ns, sent, refused;
	pthread_t thread;
};

static struct pulse pulses[FLOWS_MAX];
static unsigned n_pulses;

static size_t datagram_make(uint64_t *bytes, const struct pulse *pulse, uint64_t number)
{
	uint64_t size = pulse->size;

	if (size == 0)
		size = SIZE_MIN + word(pulse->id, number) % (SIZE_MAX_UDP - SIZE_MIN + 1);
	const struct header header = { MAGIC, pulse->id, number, size };
	memcpy(bytes, &header, sizeof(header));
	for (size_t i = sizeof(header) / 8; i < (size + 7) / 8; i++)
		bytes[i] = word(number << 20 ^ pulse->id, i);
	return size;
}

/* n datagrams in one call; the last of them too has the flow's size. */
static bool send_segments(int fd, const struct pulse *pulse, uint64_t number, unsigned n)
{
	static _Thread_local uint64_t bytes[BLOCK / 8];
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(uint16_t))] = { 0 };
	struct iovec iov = { .iov_base = bytes, .iov_len = (size_t)n * pulse->size };
	struct msghdr message = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&message);

	for (unsigned i = 0; i < n; i++) {
		uint64_t one[(SIZE_MAX_UDP + 7) / 8];
		datagram_make(one, pulse, number + i);
		memcpy((char *)bytes + (size_t)i * pulse->size, one, pulse->size);
	}
	cmsg->cmsg_level = SOL_UDP;
	cmsg->cmsg_type = UDP_SEGMENT;
	cmsg->cmsg_len = CMSG_LEN(sizeof(uint16_t));
	memcpy(CMSG_DATA(cmsg), &(uint16_t){ (uint16_t)pulse->size }, sizeof(uint16_t));
	return sendmsg(fd, &message, 0) > 0;
}

static void send_some(int fd, struct pulse *pulse, unsigned n)
{
	uint64_t bytes[(SIZE_MAX_UDP + 7) / 8];

	while (n > 0) {
		unsigned many = pulse->is_uso && n > 1 ? (n < 40 ? n : 40) : 1;
		bool good;
		if (many > 1)
			good = send_segments(fd, pulse, pulse->sent, many);
		else
			good = send(fd, bytes, datagram_make(bytes, pulse, pulse->sent), 0) > 0;
		if (!good)
			pulse->refused += many; /* nobody there just now: the number is lost */
		pulse->sent += many;
		n -= many;
	}
}

/* What is due, once a millisecond; many at a time less often, so that they are many. */
static void *pulse_send(void *arg)
{
	struct pulse *pulse = arg;
	const uint64_t pause_ns = pulse->is_uso ? 10000000 : 1000000;
	int fd = new_socket(SOCK_DGRAM);
	uint64_t begin = now_ns();

	if (connect(fd, (struct sockaddr *)&address, address_len) != 0)
		fail("connect");
	for (uint64_t tick = begin; is_time_left(pulse->end_ns); tick += pause_ns) {
		uint64_t due = (now_ns() - begin) * pulse->rate / 1000000000;
		uint64_t n = due - pulse->sent;
		send_some(fd, pulse, n < pulse->rate / 20 + 1 ? (unsigned)n : pulse->rate / 20 + 1);
		sleep_until(tick);
	}
	close(fd);
	return NULL;
}

static void pulses_finish(void)
{
	for (unsigned i = 0; i < n_pulses; i++)
		pthread_join(pulses[i].thread, NULL);
}

static void pulses_print(void)
{
	printf("\"udp\": {");
	for (unsigned i = 0; i < n_pulses; i++)
		printf("%s\"%u\": {\"sent\": %llu, \"refused\": %llu}", i ? ", " : "", pulses[i].id,
		       (unsigned long long)pulses[i].sent, (unsigned long long)pulses[i].refused);
	printf("}");
}

/* ---- UDP, the receiving half ---- */

struct sink {
	bool is_used;
	uint32_t id;
	uint64_t next, received, late, twice, too_old, damaged, deepest;
	uint64_t last_ns, longest_silence_ns;
	uint8_t seen[WINDOW / 8];
};

static struct sink sinks[FLOWS_MAX];
static uint64_t n_strange;

static struct sink *sink_of(uint32_t id)
{
	for (unsigned i = 0; i < FLOWS_MAX; i++) {
		if (!sinks[i].is_used)
			sinks[i] = (struct sink){ .is_used = true, .id = id, .last_ns = now_ns() };
		if (sinks[i].id == id)
			return &sinks[i];
	}
	return NULL;
}

static bool datagram_is_whole(const uint64_t *bytes, size_t size, const struct header *header)
{
	uint64_t expected[(SIZE_MAX_UDP + 7) / 8];
	const struct pulse pulse = { .id = header->flow, .size = (uint32_t)header->size };

	if (header->size != size || size > SIZE_MAX_UDP)
		return false;
	datagram_make(expected, &pulse, header->number);
	return memcmp(bytes, expected, size) == 0;
}

/* Notes the number; false: it was there already. */
static bool mark(struct sink *sink, uint64_t number)
{
	uint8_t *byte = &sink->seen[number / 8 % sizeof(sink->seen)], bit = (uint8_t)(1u << number % 8);

	for (; sink->next <= number; sink->next++)
		sink->seen[sink->next / 8 % sizeof(sink->seen)] &= (uint8_t)~(1u << sink->next % 8);
	if (*byte & bit)
		return false;
	*byte |= bit;
	return true;
}

static void sink_take(struct sink *sink, const struct header *header)
{
	uint64_t now = now_ns(), behind = header->number < sink->next ? sink->next - header->number : 0;

	if (now - sink->last_ns > sink->longest_silence_ns && sink->received > 0)
		sink->longest_silence_ns = now - sink->last_ns;
	sink->last_ns = now;
	if (behind >= WINDOW) {
		sink->too_old++;
		return;
	}
	if (!mark(sink, header->number)) {
		sink->twice++;
		return;
	}
	sink->received++;
	sink->late += behind > 0;
	if (behind > sink->deepest)
		sink->deepest = behind;
}

static void *sinks_receive(void *arg)
{
	int fd = *(int *)arg;
	uint64_t bytes[2048 / 8];

	for (;;) {
		ssize_t size = recv(fd, bytes, sizeof(bytes), 0);
		struct header header;
		if (size < 0)
			continue; /* nothing for a while */
		memcpy(&header, bytes, sizeof(header));
		struct sink *sink = size >= (ssize_t)sizeof(header) && header.magic == MAGIC ?
					    sink_of(header.flow) :
					    NULL;
		if (!sink)
			n_strange++;
		else if (datagram_is_whole(bytes, (size_t)size, &header))
			sink_take(sink, &header);
		else
			sink->damaged++;
	}
	return NULL;
}

static void sinks_print(void)
{
	printf("\"strange\": %llu, \"udp\": {", (unsigned long long)n_strange);
	for (unsigned i = 0; i < FLOWS_MAX && sinks[i].is_used; i++) {
		const struct sink *sink = &sinks[i];
		printf("%s\"%u\": {\"received\": %llu, \"late\": %llu, \"twice\": %llu, \"too_old\": %llu, "
		       "\"damaged\": %llu, \"deepest\": %llu, \"silence_ms\": %llu}",
		       i ? ", " : "", sink->id, (unsigned long long)sink->received,
		       (unsigned long long)sink->late, (unsigned long long)sink->twice,
		       (unsigned long long)sink->too_old, (unsigned long long)sink->damaged,
		       (unsigned long long)sink->deepest,
		       (unsigned long long)sink->longest_silence_ns / 1000000);
	}
	printf("}");
}

/* ---- both ---- */

static int serve(void)
{
	int listener = new_socket(SOCK_STREAM), datagrams = new_socket(SOCK_DGRAM), got;
	const int one = 1, room = 8 << 20;
	pthread_t accepting, receiving;
	sigset_t end;

	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	setsockopt(datagrams, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
	if (bind(listener, (struct sockaddr *)&address, address_len) != 0 || listen(listener, 64) != 0 ||
	    bind(datagrams, (struct sockaddr *)&address, address_len) != 0)
		fail(program_ip);
	sigemptyset(&end);
	sigaddset(&end, SIGTERM);
	sigprocmask(SIG_BLOCK, &end, NULL);
	start(&accepting, streams_accept, &listener);
	start(&receiving, sinks_receive, &datagrams);
	puts("ready");
	fflush(stdout);
	sigwait(&end, &got);
	streams_finish();
	printf("{");
	streams_print();
	printf(", ");
	sinks_print();
	puts("}");
	return 0;
}

static void begin_flow(const char *what, uint32_t id, uint64_t end_ns)
{
	char kind[4] = "";
	unsigned rate, size;

	if (strcmp(what, "tcp") == 0) {
		stream_connect(id, end_ns);
		return;
	}
	if (sscanf(what, "%3[a-z]:%u:%u", kind, &rate, &size) != 3 || rate == 0 || n_pulses == FLOWS_MAX ||
	    (size != 0 && (size < SIZE_MIN || size > SIZE_MAX_UDP))) {
		fprintf(stderr, "flows: what is %s?\n", what);
		exit(2);
	}
	struct pulse *pulse = &pulses[n_pulses++];
	*pulse = (struct pulse){ .id = id, .rate = rate, .size = size, .end_ns = end_ns,
				 .is_uso = strcmp(kind, "uso") == 0 };
	start(&pulse->thread, pulse_send, pulse);
}

static int send_all(uint32_t id, uint64_t seconds, int n, char *const flows[])
{
	uint64_t end_ns = now_ns() + seconds * 1000000000;

	signal(SIGTERM, on_term); /* glibc: interrupted calls go on */
	for (int i = 0; i < n; i++)
		begin_flow(flows[i], id + (uint32_t)i, end_ns);
	streams_finish();
	pulses_finish();
	printf("{");
	streams_print();
	printf(", ");
	pulses_print();
	puts("}");
	return 0;
}

static bool parse_address(const char *ip, const char *port)
{
	struct sockaddr_in *v4 = (void *)&address;
	struct sockaddr_in6 *v6 = (void *)&address;
	uint16_t number = htons((uint16_t)atoi(port));

	program_ip = ip;
	if (inet_pton(AF_INET, ip, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = number;
		address_len = sizeof(*v4);
		return true;
	}
	v6->sin6_family = AF_INET6;
	v6->sin6_port = number;
	address_len = sizeof(*v6);
	return inet_pton(AF_INET6, ip, &v6->sin6_addr) == 1;
}

int main(int argc, char *argv[])
{
	signal(SIGPIPE, SIG_IGN);
	if (argc == 4 && strcmp(argv[1], "serve") == 0 && parse_address(argv[2], argv[3]))
		return serve();
	if (argc > 6 && strcmp(argv[1], "send") == 0 && parse_address(argv[2], argv[3]))
		return send_all((uint32_t)atoi(argv[4]), (uint64_t)atoi(argv[5]), argc - 6, argv + 6);
	fputs("usage: flows serve IP PORT | flows send IP PORT ID SECONDS FLOW...\n", stderr);
	return 2;
}
