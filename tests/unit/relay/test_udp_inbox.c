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

/* n times so many bytes, in datagrams of SEGMENT at most: on loopback they are there when this returns. */
static void send_to_it(const struct bench *b, unsigned n, size_t len)
{
	static uint8_t bytes[TRAIN];
	const int segment = SEGMENT;

	EXPECT(setsockopt(b->fd, IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof(segment)) == 0);
	for (unsigned i = 0; i < n; i++)
		EXPECT(sendto(b->fd, bytes, len, 0, (const struct sockaddr *)&b->to, sizeof(b->to)) == (ssize_t)len);
}

/* All that is there; how many calls that takes, and the most that came at once. */
static unsigned receive_all(struct bench *b, uint32_t *ret_most)
{
	unsigned n_calls = 0;
	bool is_full = true;

	*ret_most = 0;
	while (is_full) {
		const uint32_t n = relay_inbox_receive(b->inbox, &b->sock, &is_full);
		*ret_most = n > *ret_most ? n : *ret_most;
		n_calls++;
	}
	return n_calls;
}

int main(void)
{
	struct bench b;
	uint32_t most;
	begin(&b);

	if (!holds_all(&b))
		return SKIPPED;
	for (int i = 0; i < 3; i++) {
		send_to_it(&b, N_SMALL, SEGMENT);
		EXPECT(receive_all(&b, &most) == 1 && most == N_SMALL);
	}
	send_to_it(&b, N_TRAINS, TRAIN);
	receive_all(&b, &most); /* what they are shows when they are there */
	for (int i = 0; i < 3; i++) {
		send_to_it(&b, N_TRAINS, TRAIN);
		EXPECT(receive_all(&b, &most) >= 2 && most >= 8 && most <= 20);
	}
	send_to_it(&b, N_SMALL, SEGMENT);
	receive_all(&b, &most);
	send_to_it(&b, N_SMALL, SEGMENT);
	EXPECT(receive_all(&b, &most) == 1 && most == N_SMALL);
	end(&b);
	puts("ok");
}
