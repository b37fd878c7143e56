#include "relay/frontdoor/resting_sockets.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define REST_MS	   2000 /* longer than what was under way comes in */
#define MAX_TRIES  4
#define AT_ONCE	   64
#define MAX_THROWN 64 /* times as many: more than the buffer of such a socket holds */

struct resting {
	struct link place;
	struct relay_socket sock;
	uint64_t since_ms;
};

void resting_sockets_init(struct resting_sockets *resting)
{
	link_init_ring(&resting->ring);
	resting->n = 0;
}

static void end(struct resting_sockets *resting, struct resting *one)
{
	link_remove(&one->place);
	relay_socket_close(&one->sock);
	free(one);
	resting->n--;
}

/* Up to a megabyte may wait, which would be there as long as the socket is. */
static void throw_away(int fd)
{
	struct mmsghdr messages[AT_ONCE];
	int n;

	for (int i = 0; i < MAX_THROWN; i++) {
		memset(messages, 0, sizeof(messages));
		n = recvmmsg(fd, messages, AT_ONCE, MSG_DONTWAIT, NULL);
		if (n < 0 && errno == EAGAIN) /* else what was said by ICMP, in front of the rest */
			return;
	}
}

void resting_sockets_add(struct resting_sockets *resting, struct relay_socket *sock, uint64_t now_ms)
{
	struct resting *one = calloc(1, sizeof(*one));
	const int least = 1;

	if (!one)
		abort();
	(void)setsockopt(sock->fd, SOL_SOCKET, SO_RCVBUF, &least, sizeof(least));
	throw_away(sock->fd); /* since then no more comes than fits */
	one->sock = *sock;
	one->since_ms = now_ms;
	sock->fd = -1;
	link_put_last(&resting->ring, &one->place);
	resting->n++;
}

void resting_sockets_make_room(struct resting_sockets *resting, uint64_t n_beside, uint64_t most)
{
	while (resting->n > 0 && n_beside + resting->n > most)
		end(resting, container_of(link_first(&resting->ring), struct resting, place));
}

bool resting_sockets_give_up(struct resting_sockets *resting, uint32_t try)
{
	const struct link *first;

	if (try >= MAX_TRIES || resting->n == 0)
		return false;
	for (uint32_t i = 0; i < 1u << try && (first = link_first(&resting->ring)); i++)
		end(resting, container_of(first, struct resting, place));
	return true;
}

uint64_t resting_sockets_expire(struct resting_sockets *resting, uint64_t now_ms)
{
	struct link *first;

	while ((first = link_first(&resting->ring))) {
		struct resting *one = container_of(first, struct resting, place);
		if (one->since_ms + REST_MS > now_ms)
			return one->since_ms + REST_MS;
		end(resting, one);
	}
	return UINT64_MAX;
}
