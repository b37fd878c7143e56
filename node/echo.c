#include "node/echo.h"

#include <errno.h>
#include <linux/icmp.h>
#include <netinet/ip.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define TICK_MS 20 /* how late a time-out may be told */
#define BURST	64 /* packets read before the loop's other work gets its turn */

struct pending {
	echo_cb cb; /* NULL: free */
	void *owner;
	struct in_addr to;
	uint16_t sequence;
	uint64_t sent_ns, timeout_ns;
};

struct echo {
	int fd;
	uint16_t id, next_sequence;
	uint32_t n_pending;
	struct pending pending[ECHO_MAX_PENDING];
	uv_poll_t poll;
	uv_timer_t timer;
	int n_open_handles;
	void (*closed)(void *owner);
	void *closed_owner;
};

static uint16_t checksum(const void *bytes, size_t len)
{
	const uint8_t *at = bytes;
	uint32_t sum = 0;

	for (size_t i = 0; i + 1 < len; i += 2)
		sum += (uint32_t)at[i] << 8 | at[i + 1];
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

static void finish(struct echo *echo, struct pending *pending, int code, uint32_t rtt_us)
{
	struct pending done = *pending;

	pending->cb = NULL;
	echo->n_pending--;
	if (echo->n_pending == 0)
		uv_timer_stop(&echo->timer);
	done.cb(done.owner, code, rtt_us);
}

static void on_reply(struct echo *echo, const struct icmphdr *header, struct in_addr from)
{
	uint64_t now_ns = uv_hrtime();

	for (size_t i = 0; i < ECHO_MAX_PENDING; i++) {
		struct pending *pending = &echo->pending[i];
		if (pending->cb && pending->sequence == ntohs(header->un.echo.sequence) &&
		    pending->to.s_addr == from.s_addr) {
			finish(echo, pending, 0, (uint32_t)((now_ns - pending->sent_ns) / 1000));
			return;
		}
	}
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
	struct echo *echo = container_of(poll, struct echo, poll);
	uint8_t packet[1500];

	for (int i = 0; i < BURST; i++) {
		struct sockaddr_in from;
		socklen_t from_len = sizeof(from);
		ssize_t n = recvfrom(echo->fd, packet, sizeof(packet), MSG_DONTWAIT, (struct sockaddr *)&from,
				     &from_len);
		if (n < 0)
			return;
		/* A raw socket gives the IP header, too; its length is in the low four bits, in words. */
		size_t header_len = n > 0 ? (size_t)(packet[0] & 15) * 4 : 0;
		struct icmphdr header;
		if ((size_t)n < header_len + sizeof(header))
			continue;
		memcpy(&header, packet + header_len, sizeof(header));
		if (header.type == ICMP_ECHOREPLY && ntohs(header.un.echo.id) == echo->id)
			on_reply(echo, &header, from.sin_addr);
	}
}

static void on_tick(uv_timer_t *timer)
{
	struct echo *echo = container_of(timer, struct echo, timer);
	uint64_t now_ns = uv_hrtime();

	for (size_t i = 0; i < ECHO_MAX_PENDING; i++)
		if (echo->pending[i].cb && echo->pending[i].timeout_ns <= now_ns)
			finish(echo, &echo->pending[i], -ETIMEDOUT, 0);
}

int echo_new(uv_loop_t *loop, struct echo **ret)
{
	const struct icmp_filter only_replies = { .data = ~(1u << ICMP_ECHOREPLY) };
	int fd = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_ICMP);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_RAW, ICMP_FILTER, &only_replies, sizeof(only_replies)); /* else we sort them out */
	struct echo *echo = calloc(1, sizeof(*echo));
	if (!echo) {
		close(fd);
		return -ENOMEM;
	}
	echo->fd = fd;
	echo->id = (uint16_t)(getpid() ^ (int)(uv_hrtime() >> 10));
	uv_timer_init(loop, &echo->timer);
	int r = uv_poll_init(loop, &echo->poll, fd);
	if (r == 0)
		r = uv_poll_start(&echo->poll, UV_READABLE, on_readable);
	if (r != 0)
		abort(); /* a fresh socket can be polled */
	*ret = echo;
	return 0;
}

int echo_send(struct echo *echo, struct in_addr to, uint32_t timeout_ms, echo_cb cb, void *owner)
{
	struct pending *free_one = NULL;
	struct {
		struct icmphdr header;
		uint8_t payload[56];
	} packet = { .header = { .type = ICMP_ECHO } };
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr = to };

	for (size_t i = 0; i < ECHO_MAX_PENDING && !free_one; i++)
		if (!echo->pending[i].cb)
			free_one = &echo->pending[i];
	if (!free_one)
		return -EBUSY;

	uint16_t sequence = echo->next_sequence++;
	packet.header.un.echo.id = htons(echo->id);
	packet.header.un.echo.sequence = htons(sequence);
	packet.header.checksum = htons(checksum(&packet, sizeof(packet)));
	uint64_t now_ns = uv_hrtime();
	if (sendto(echo->fd, &packet, sizeof(packet), 0, (struct sockaddr *)&address, sizeof(address)) < 0)
		return -errno;
	*free_one = (struct pending){ .cb = cb,
				      .owner = owner,
				      .to = to,
				      .sequence = sequence,
				      .sent_ns = now_ns,
				      .timeout_ns = now_ns + (uint64_t)timeout_ms * 1000000 };
	if (echo->n_pending++ == 0)
		uv_timer_start(&echo->timer, on_tick, TICK_MS, TICK_MS);
	return 0;
}

static void on_closed(uv_handle_t *handle)
{
	struct echo *echo = handle->data;

	if (--echo->n_open_handles > 0)
		return;
	close(echo->fd);
	echo->closed(echo->closed_owner);
	free(echo);
}

void echo_close(struct echo *echo, void (*closed)(void *owner), void *owner)
{
	if (!echo) {
		closed(owner);
		return;
	}
	for (size_t i = 0; i < ECHO_MAX_PENDING; i++)
		if (echo->pending[i].cb)
			finish(echo, &echo->pending[i], -ECANCELED, 0);
	echo->closed = closed;
	echo->closed_owner = owner;
	echo->n_open_handles = 2;
	echo->poll.data = echo;
	echo->timer.data = echo;
	uv_close((uv_handle_t *)&echo->poll, on_closed);
	uv_close((uv_handle_t *)&echo->timer, on_closed);
}
