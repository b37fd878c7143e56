/*
 * How much is received at once: of small datagrams many, of trains few, whatever came before. Over loopback; skipped
 * where the socket may not hold that much.
 */
#include "relay/udp_socket.h"
#include "world.h"

#include <netinet/udp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

#define SKIPPED	 77
#define N_SMALL	 600
#define N_LITTLE 300
#define N_TRAINS 40
#define SEGMENT	 1000
#define TRAIN	 (60 * SEGMENT)

struct bench {
	struct relay_socket sock;
	struct relay_inbox *inbox;
	struct sockaddr_in to;
	int fd;
};

static void begin(struct bench *b)
{
	const struct endpoint any = endpoint_from_v4(INADDR_LOOPBACK, 0);

	EXPECT(relay_socket_open(&any, 0, &b->sock) == 0 && (b->inbox = relay_inbox_new()));
	b->to = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(b->sock.local.port),
				      .sin_addr = { htonl(INADDR_LOOPBACK) } };
	b->fd = socket(AF_INET, SOCK_DGRAM, 0);
	EXPECT(b->fd >= 0);
}

static void end(struct bench *b)
{
	close(b->fd);
	relay_inbox_free(b->inbox);
	relay_socket_close(&b->sock);
}

static bool holds_all(const struct bench *b)
{
	int bytes = 0;
	socklen_t len = sizeof(bytes);

	return getsockopt(b->sock.fd, SOL_SOCKET, SO_RCVBUF, &bytes, &len) == 0 && bytes >= RELAY_SOCKET_BUFFER;
}

/* Of message i, at that place: its datagrams differ, and so do messages that follow each other. */
static uint8_t byte_of(unsigned i, size_t at)
{
	return (uint8_t)(i * 7 + at / 13);
}

/* n times so many bytes, in datagrams of SEGMENT at most: on loopback they are there when this returns. */
static void send_to_it(const struct bench *b, unsigned n, size_t len)
{
	static uint8_t bytes[TRAIN];
	const int segment = SEGMENT;

	EXPECT(setsockopt(b->fd, IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof(segment)) == 0);
	for (unsigned i = 0; i < n; i++) {
		for (size_t at = 0; at < len; at++)
			bytes[at] = byte_of(i, at);
		EXPECT(sendto(b->fd, bytes, len, 0, (const struct sockaddr *)&b->to, sizeof(b->to)) == (ssize_t)len);
	}
}

static void expect_message(const struct relay_message *message, unsigned i, size_t len)
{
	EXPECT(message->len == len && message->size == (len < SEGMENT ? len : SEGMENT));
	for (size_t at = 0; at < len; at++)
		EXPECT(message->bytes[at] == byte_of(i, at));
}

/*
 * All that is there, n messages of that length in their order; in how many calls they come, and the most that came at
 * once. That nothing more is there one more call may have to say.
 */
static unsigned receive_all(struct bench *b, unsigned n, size_t len, uint32_t *ret_most)
{
	unsigned n_calls = 0, i = 0;
	bool is_full = true;

	*ret_most = 0;
	while (is_full) {
		const uint32_t got = relay_inbox_receive(b->inbox, &b->sock, &is_full);
		for (uint32_t m = 0; m < got; m++)
			expect_message(relay_inbox_message(b->inbox, m), i++, len);
		*ret_most = got > *ret_most ? got : *ret_most;
		n_calls += got > 0;
	}
	EXPECT(i == n);
	return n_calls;
}

/* A small buffer overflows long before as many are there as are asked for. */
static void test_many_mean_that_there_may_be_more(struct bench *b)
{
	bool is_full;

	send_to_it(b, 1, 10);
	EXPECT(relay_inbox_receive(b->inbox, &b->sock, &is_full) == 1 && !is_full);
	send_to_it(b, N_LITTLE, 10);
	EXPECT(relay_inbox_receive(b->inbox, &b->sock, &is_full) == N_LITTLE && is_full);
	EXPECT(relay_inbox_receive(b->inbox, &b->sock, &is_full) == 0 && !is_full);
}

static void test_of_small_ones_many_are_taken_at_once_and_of_trains_few(struct bench *b)
{
	uint32_t most;

	for (int i = 0; i < 3; i++) {
		send_to_it(b, N_SMALL, SEGMENT);
		EXPECT(receive_all(b, N_SMALL, SEGMENT, &most) == 1 && most == N_SMALL);
	}
	send_to_it(b, N_TRAINS, TRAIN);
	receive_all(b, N_TRAINS, TRAIN, &most); /* what they are shows when they are there */
	for (int i = 0; i < 3; i++) {
		send_to_it(b, N_TRAINS, TRAIN);
		EXPECT(receive_all(b, N_TRAINS, TRAIN, &most) >= 2 && most >= 8 && most <= 20);
	}
	send_to_it(b, N_SMALL, SEGMENT);
	receive_all(b, N_SMALL, SEGMENT, &most);
	send_to_it(b, N_SMALL, SEGMENT);
	EXPECT(receive_all(b, N_SMALL, SEGMENT, &most) == 1 && most == N_SMALL);
}

int main(void)
{
	struct bench b;
	begin(&b);

	test_many_mean_that_there_may_be_more(&b);
	const bool is_large = holds_all(&b);
	if (is_large)
		test_of_small_ones_many_are_taken_at_once_and_of_trains_few(&b);
	end(&b);
	puts(is_large ? "ok" : "skipped: the socket may not hold so much");
	return is_large ? 0 : SKIPPED;
}
