#include "node/side_paths.h"

#include "common/log.h"
#include "node/side_sockets.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define BURST	   64	/* datagrams of one way before others get their turn */
#define MAX_LEN	   9216 /* of a datagram */
#define BUFFER_LEN (1 << 20)
#define MAX_OLD	   4096	  /* datagrams that came before a socket was connected: more its queue does not hold */
#define SILENT_MS  180000 /* the peer's NAT, or ours, has forgotten such a pair */

struct pair;

struct end {
	struct pair *pair;
	int fd;
	uv_poll_t poll;
};

/* near: towards our UDP socket; far: towards the peer. */
struct pair {
	struct pair *next;
	uint32_t peer_id;
	struct end near, far;
	uint64_t heard_ms; /* the peer; the loop's clock */
	int n_open;
};

struct side_paths {
	uv_loop_t *loop;
	struct pair *pairs;
	uint32_t n_pairs;
	uint32_t peer_id; /* searched for; 0: none */
	uint16_t our_port;
	struct endpoint from;
	struct side_sockets *sockets;
	bool is_closing; /* the last ones; no others are opened before, for there would be no bound to their number */
	bool is_freed;
};

/* ---- pairs ---- */

static void on_end_closed(uv_handle_t *handle)
{
	struct end *end = container_of((uv_poll_t *)handle, struct end, poll);
	struct pair *pair = end->pair;

	close(end->fd);
	if (--pair->n_open == 0)
		free(pair);
}

static void close_pair(struct pair *pair)
{
	uv_close((uv_handle_t *)&pair->near.poll, on_end_closed);
	uv_close((uv_handle_t *)&pair->far.poll, on_end_closed);
}

/* What does not go at once is lost, as on any way. */
static void carry(const struct end *from, const struct end *to)
{
	uint8_t bytes[MAX_LEN];

	for (int i = 0; i < BURST; i++) {
		ssize_t n = recv(from->fd, bytes, sizeof(bytes), MSG_DONTWAIT | MSG_TRUNC);
		if (n < 0 && errno != ECONNREFUSED && errno != EHOSTUNREACH && errno != ENETUNREACH && errno != EMSGSIZE)
			return;
		if (n > 0 && n <= (ssize_t)sizeof(bytes))
			(void)!send(to->fd, bytes, (size_t)n, MSG_DONTWAIT);
	}
}

static void on_near(uv_poll_t *poll, int status, int events)
{
	const struct end *end = container_of(poll, struct end, poll);

	carry(end, &end->pair->far);
}

static void on_far(uv_poll_t *poll, int status, int events)
{
	const struct end *end = container_of(poll, struct end, poll);

	end->pair->heard_ms = uv_now(poll->loop);
	carry(end, &end->pair->near);
}

static int connect_to(int fd, const struct endpoint *to)
{
	struct sockaddr_storage address;
	const socklen_t len = endpoint_to_sockaddr(to, &address);
	const int size = BUFFER_LEN;

	(void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	return connect(fd, (struct sockaddr *)&address, len) == 0 ? 0 : -errno;
}

/* The far socket is connected: its own address is that by which the peer is reached. */
static int open_near(int far, uint16_t our_port, int *ret)
{
	struct sockaddr_in name;
	socklen_t len = sizeof(name);
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), r = 0;

	if (fd < 0)
		return -errno;
	if (getsockname(far, (struct sockaddr *)&name, &len) != 0)
		r = -errno;
	name.sin_port = 0;
	if (r == 0 && bind(fd, (struct sockaddr *)&name, sizeof(name)) != 0)
		r = -errno;
	struct endpoint ours = endpoint_from_sockaddr((struct sockaddr *)&name);
	ours.port = our_port;
	if (r == 0)
		r = connect_to(fd, &ours);
	if (r != 0)
		close(fd);
	else
		*ret = fd;
	return r;
}

static void start_end(struct side_paths *paths, struct pair *pair, struct end *end, int fd, uv_poll_cb cb)
{
	end->pair = pair;
	end->fd = fd;
	uv_poll_init(paths->loop, &end->poll, fd);
	uv_poll_start(&end->poll, UV_READABLE, cb);
	pair->n_open++;
}

static struct pair *add_pair(struct side_paths *paths, int far, int near)
{
	struct pair *pair = calloc(1, sizeof(*pair));

	if (!pair)
		abort();
	pair->peer_id = paths->peer_id;
	pair->heard_ms = uv_now(paths->loop);
	start_end(paths, pair, &pair->near, near, on_near);
	start_end(paths, pair, &pair->far, far, on_far);
	pair->next = paths->pairs;
	paths->pairs = pair;
	paths->n_pairs++;
	return pair;
}

static uint32_t n_pairs_of(const struct side_paths *paths, uint32_t peer_id)
{
	uint32_t n = 0;

	for (const struct pair *pair = paths->pairs; pair; pair = pair->next)
		n += pair->peer_id == peer_id;
	return n;
}

/* What came before it was connected may be of anybody. */
static void carry_old(const struct pair *pair, const struct endpoint *from)
{
	uint8_t bytes[MAX_LEN];

	for (int i = 0; i < MAX_OLD; i++) {
		struct sockaddr_storage address = { 0 };
		socklen_t len = sizeof(address);
		ssize_t n = recvfrom(pair->far.fd, bytes, sizeof(bytes), MSG_DONTWAIT | MSG_TRUNC,
				     (struct sockaddr *)&address, &len);
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return;
		if (n <= 0 || n > (ssize_t)sizeof(bytes))
			continue;
		const struct endpoint source = endpoint_from_sockaddr((struct sockaddr *)&address);
		if (endpoint_equal(&source, from))
			(void)!send(pair->near.fd, bytes, (size_t)n, MSG_DONTWAIT);
	}
}

/* ---- the search ---- */

static void on_received(void *owner, uint32_t index, const struct endpoint *from, const uint8_t *bytes, size_t len)
{
	struct side_paths *paths = owner;
	int near = -1;

	if (!endpoint_equal(from, &paths->from) || paths->n_pairs >= SIDE_PATHS_MAX ||
	    n_pairs_of(paths, paths->peer_id) >= SIDE_PATHS_MAX_PEER)
		return;
	const int far = side_sockets_take(paths->sockets, index), whole = IP_PMTUDISC_PROBE;
	int r = far < 0 ? far : connect_to(far, from);
	if (r == 0 && setsockopt(far, IPPROTO_IP, IP_MTU_DISCOVER, &whole, sizeof(whole)) != 0)
		r = -errno;
	if (r == 0)
		r = open_near(far, paths->our_port, &near);
	if (r != 0) {
		log_debug("traffic", "peer=%u: a way through our NAT, but no sockets for it (%d)", paths->peer_id, r);
		if (far >= 0)
			close(far);
		return;
	}
	log_info("traffic", "peer=%u: a way through our NAT was found", paths->peer_id);
	const struct pair *pair = add_pair(paths, far, near);
	(void)!send(pair->near.fd, bytes, len, MSG_DONTWAIT);
	carry_old(pair, from);
}

static void remove_at(struct side_paths *paths, struct pair **at)
{
	struct pair *pair = *at;

	*at = pair->next;
	paths->n_pairs--;
	close_pair(pair);
}

static void remove_pairs(struct side_paths *paths, uint32_t peer_id)
{
	for (struct pair **at = &paths->pairs; *at;) {
		if ((*at)->peer_id == peer_id)
			remove_at(paths, at);
		else
			at = &(*at)->next;
	}
}

/* Else dead ones would be all that there may be. */
static void remove_silent(struct side_paths *paths)
{
	const uint64_t now_ms = uv_now(paths->loop);

	for (struct pair **at = &paths->pairs; *at;) {
		if (now_ms - (*at)->heard_ms >= SILENT_MS)
			remove_at(paths, at);
		else
			at = &(*at)->next;
	}
}

static void on_sockets_closed(void *owner)
{
	struct side_paths *paths = owner;

	paths->is_closing = false;
	if (paths->is_freed)
		free(paths);
}

int side_paths_search(struct side_paths *paths, uint32_t peer_id, uint32_t n, const struct endpoint *from,
		      uint16_t our_port)
{
	const struct side_sockets_options options = { .n = n, .owner = paths, .received = on_received,
						     .closed = on_sockets_closed };
	uint16_t ports[SIDE_SOCKETS_MAX];

	if (paths->peer_id != 0 || paths->is_closing)
		return -EBUSY;
	remove_pairs(paths, peer_id);
	remove_silent(paths);
	int r = side_sockets_open(paths->loop, &options, ports, &paths->sockets);
	if (r != 0)
		return r;
	paths->peer_id = peer_id;
	paths->from = *from;
	paths->our_port = our_port;
	return 0;
}

void side_paths_knock(struct side_paths *paths, uint32_t peer_id, uint32_t number, const struct endpoint *to)
{
	static const uint8_t nothing[1] = { 0 }; /* to whom it comes knows none of it, and drops it */

	if (paths->peer_id == peer_id)
		(void)side_sockets_send(paths->sockets, number, to, nothing, sizeof(nothing));
}

void side_paths_stop_search(struct side_paths *paths, uint32_t peer_id)
{
	if (paths->peer_id != peer_id || !paths->sockets)
		return;
	paths->is_closing = true;
	side_sockets_close(paths->sockets);
	paths->sockets = NULL;
	paths->peer_id = 0;
}

void side_paths_end(struct side_paths *paths, uint32_t peer_id)
{
	side_paths_stop_search(paths, peer_id);
	remove_pairs(paths, peer_id);
}

struct side_paths *side_paths_new(uv_loop_t *loop)
{
	struct side_paths *paths = calloc(1, sizeof(*paths));

	if (!paths)
		abort();
	paths->loop = loop;
	return paths;
}

void side_paths_free(struct side_paths *paths)
{
	if (!paths)
		return;
	side_paths_stop_search(paths, paths->peer_id);
	while (paths->pairs)
		remove_pairs(paths, paths->pairs->peer_id);
	paths->is_freed = true;
	if (!paths->is_closing)
		free(paths);
}
