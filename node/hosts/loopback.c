/*
 * Two sides. The loop's: peers are made and changed here, and told to the thread as commands. The
 * thread's: sockets that are ready are served for a bounded burst each.
 */
#include "node/hosts/loopback.h"

#include "common/clock.h"
#include "common/log.h"
#include "node/wireguard/message_wire.h"
#include "common/ring.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define EVENT_RING_LEN	 (2u << 20)
#define BUCKETS		 1024
#define ADDRESSES	 4 /* of a peer: its path, and the latest others */
#define PEER_BURST	 64 /* datagrams of one peer before the others */
#define UDP_BURST	 2 /* calls for UDP_INBOX_MESSAGES trains */
#define READY_MAX	 64
#define LOOP_BURST	 1024
#define SOCKET_BUFFER	 (4 << 20)
#define SEND_PATIENCE_MS 2
#define MOVED_NS	 200000000ull

enum source_kind { SOURCE_WAKE, SOURCE_UDP_V4, SOURCE_UDP_V6, SOURCE_PEER };

struct source {
	enum source_kind kind;
};

/* One address known as a peer's. */
struct address {
	struct endpoint endpoint; /* none: not in the table */
	struct loopback_peer *peer;
	struct address *next; /* of its bucket */
};

struct loopback_peer {
	struct source source;
	uint32_t id;
	struct udp socket; /* IPv4 only */
	struct loopback_peer *next, **at; /* of all, by the loop */
	/* of the loop */
	struct endpoint known[ADDRESSES]; /* what the thread was told: [0] the path's */
	uint32_t n_told;
	/* of the thread */
	struct peer_path path;
	struct address addresses[ADDRESSES];
	/* under the lock */
	struct loopback_carried carried;
};

enum command_type { COMMAND_ADD, COMMAND_REMOVE, COMMAND_PATH, COMMAND_ADDRESS };

struct command {
	struct command *next;
	enum command_type type;
	struct loopback_peer *peer;
	struct peer_path path;
	uint32_t slot;
	struct endpoint address;
};

enum event_type { EVENT_DATAGRAM, EVENT_RELAY };

/* Head of a record in the event ring; bytes follow. */
struct event {
	enum event_type type;
	enum demux_kind kind;
	struct endpoint from;
	uint32_t peer_id;
	struct train train; /* base is not used */
	uint32_t len;
};

/* What one recvmmsg(2) from a peer's socket fills. */
struct burst {
	size_t slot; /* bytes for each datagram */
	uint8_t *bytes;
	struct mmsghdr headers[PEER_BURST];
	struct iovec pieces[PEER_BURST];
	_Alignas(struct cmsghdr) uint8_t controls[PEER_BURST][64];
	uint8_t ds[PEER_BURST];
};

struct loopback {
	/* set before the thread starts */
	struct loopback_ports ports;
	struct udp *udp;
	struct wg_path wireguard; /* where it listens */
	int epoll_fd, wake_fd;
	pthread_t thread;

	/* between the threads */
	pthread_mutex_t lock; /* of commands and what was carried: held for a few words, never for a call */
	struct command *commands, **last_command;
	struct ring events;
	uv_async_t async;
	_Atomic bool is_stopping, has_moved;
	_Atomic uint64_t n_unknown_initiations, n_unknown_senders, n_no_path, n_sends_dropped;

	/* of the loop */
	struct loopback_peer *peers;
	void (*stopped)(void *arg);
	void *stopped_arg;

	/* of the thread */
	struct source wake, udp_v4, udp_v6;
	struct address *buckets[BUCKETS];
	struct udp_inbox *inbox;
	struct burst *burst;
	uint64_t now_ns, moved_ns;
	bool loop_has_news;
};

static void count(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

/* ---- thread: to the loop ---- */

static struct event *begin_event(struct loopback *loopback, enum event_type type, size_t len)
{
	/* Anybody can send datagrams: they must not take the room of what peers are sent by relay. */
	struct event *event = type == EVENT_DATAGRAM ?
				      ring_reserve_for_stranger(&loopback->events, sizeof(*event) + len) :
				      ring_reserve(&loopback->events, sizeof(*event) + len);

	if (!event)
		return NULL; /* counted by the ring */
	memset(event, 0, sizeof(*event));
	event->type = type;
	event->len = (uint32_t)len;
	return event;
}

static void post_event(struct loopback *loopback)
{
	ring_commit(&loopback->events);
	loopback->loop_has_news = true;
}

static void post_datagrams(struct loopback *loopback, enum demux_kind kind, const struct endpoint *from,
			   const struct train *train)
{
	for (uint32_t i = 0; i < train->n; i++) {
		struct event *event = begin_event(loopback, EVENT_DATAGRAM, train_size(train, i));
		if (!event)
			return;
		event->kind = kind;
		event->from = *from;
		memcpy(event + 1, train_packet(train, i), train_size(train, i));
		post_event(loopback);
	}
}

static void post_relay(struct loopback *loopback, uint32_t peer_id, const struct train *train)
{
	struct event *event = begin_event(loopback, EVENT_RELAY, (size_t)train_bytes(train));

	if (!event)
		return;
	uint8_t *at = (uint8_t *)(event + 1);
	for (uint32_t i = 0; i < train->n; at += train_size(train, i++))
		memcpy(at, train_packet(train, i), train_size(train, i));
	event->peer_id = peer_id;
	event->train = *train;
	event->train.stride = train->size;
	post_event(loopback);
}

static void note_moved(struct loopback *loopback)
{
	if (loopback->now_ns - loopback->moved_ns < MOVED_NS)
		return;
	loopback->moved_ns = loopback->now_ns;
	atomic_store(&loopback->has_moved, true);
	loopback->loop_has_news = true;
}

/* ---- thread: addresses ---- */

static struct address **bucket_of(struct loopback *loopback, const struct endpoint *endpoint)
{
	uint32_t hash = 2166136261u; /* FNV-1a: addresses come from answered pings */

	for (size_t i = 0; i < sizeof(endpoint->ip); i++)
		hash = (hash ^ endpoint->ip[i]) * 16777619u;
	return &loopback->buckets[((hash ^ endpoint->port) * 16777619u) % BUCKETS];
}

static void forget_address(struct loopback *loopback, struct address *address)
{
	if (endpoint_is_none(&address->endpoint))
		return;
	struct address **at = bucket_of(loopback, &address->endpoint);
	while (*at != address)
		at = &(*at)->next;
	*at = address->next;
	*address = (struct address){ 0 };
}

/* The latest to be known at an address is found first. */
static void set_address(struct loopback *loopback, struct loopback_peer *peer, uint32_t slot,
			const struct endpoint *endpoint)
{
	struct address *address = &peer->addresses[slot];

	forget_address(loopback, address);
	if (endpoint_is_none(endpoint))
		return;
	struct address **at = bucket_of(loopback, endpoint);
	*address = (struct address){ .endpoint = *endpoint, .peer = peer, .next = *at };
	*at = address;
}

static struct loopback_peer *find_by_address(struct loopback *loopback, const struct endpoint *endpoint)
{
	const struct address *address = *bucket_of(loopback, endpoint);

	while (address && !endpoint_equal(&address->endpoint, endpoint))
		address = address->next;
	return address ? address->peer : NULL;
}

/* ---- to WireGuard, from either thread ---- */

static uint8_t type_of(const struct train *train, uint32_t i)
{
	return train_packet(train, i)[0]; /* the demux has seen more than that */
}

/* from: NULL when by relay. */
static void note_received(struct loopback *loopback, struct loopback_peer *peer, const struct endpoint *from,
			  const struct train *train, uint64_t now_ns)
{
	struct loopback_carried *carried = &peer->carried;
	uint64_t bytes = 0;
	bool is_data = false;

	for (uint32_t i = 0; i < train->n; i++) {
		if (type_of(train, i) != WG_MESSAGE_COOKIE_REPLY)
			bytes += train_size(train, i);
		is_data |= type_of(train, i) == WG_MESSAGE_DATA && train_size(train, i) > WG_DATA_MIN_LEN;
	}
	pthread_mutex_lock(&loopback->lock);
	if (from) {
		carried->rx_direct_bytes += bytes;
		carried->rx_direct_ns = now_ns;
		carried->rx_endpoint = *from;
	} else {
		carried->rx_relay_bytes += bytes;
		carried->rx_relay_ns = now_ns;
	}
	if (is_data)
		carried->rx_data_ns = now_ns;
	pthread_mutex_unlock(&loopback->lock);
}

static int give_to_wireguard(struct loopback *loopback, struct loopback_peer *peer, const struct train *train)
{
	uint32_t sent = 0;
	int r = udp_send(&peer->socket, 0, &loopback->wireguard, train, &sent);

	if (r != 0)
		count(&loopback->n_sends_dropped, train->n - sent);
	return r;
}

/* ---- thread: from the network ---- */

static void receive_wireguard(struct loopback *loopback, const struct endpoint *from, const struct train *train)
{
	struct loopback_peer *peer = find_by_address(loopback, from);

	if (!peer) {
		for (uint32_t i = 0; i < train->n; i++)
			count(type_of(train, i) == WG_MESSAGE_INITIATION ? &loopback->n_unknown_initiations :
									   &loopback->n_unknown_senders,
			      1);
		return;
	}
	note_received(loopback, peer, from, train, loopback->now_ns);
	(void)give_to_wireguard(loopback, peer, train);
	note_moved(loopback);
}

/* Datagrams of one sender; runs of the same protocol stay together. */
static void receive_train(struct loopback *loopback, const struct endpoint *from, const struct train *train)
{
	uint32_t first = 0;

	while (first < train->n) {
		enum demux_kind kind = demux_datagram(train_packet(train, first), train_size(train, first));
		uint32_t n = 1;
		while (first + n < train->n &&
		       demux_datagram(train_packet(train, first + n), train_size(train, first + n)) == kind)
			n++;
		struct train run = train_slice(train, first, n);
		if (kind == DEMUX_WIREGUARD)
			receive_wireguard(loopback, from, &run);
		else
			post_datagrams(loopback, kind, from, &run);
		first += n;
	}
}

static void serve_udp(struct loopback *loopback, enum udp_family family)
{
	struct train train;

	for (int i = 0; i < UDP_BURST; i++) {
		int n = udp_receive(loopback->udp, 0, family, loopback->inbox);

		for (int k = 0; k < n; k++) {
			struct udp_message *message = &loopback->inbox->messages[k];
			while (udp_message_next(message, &train))
				receive_train(loopback, &message->from.remote, &train);
		}
		if (n < UDP_INBOX_MESSAGES)
			return;
	}
}

/* ---- thread: from WireGuard ---- */

static uint8_t ds_of(struct msghdr *header)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c))
		if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TOS)
			return *(const uint8_t *)CMSG_DATA(c);
	return 0;
}

/* Number of datagrams read. */
static uint32_t read_burst(struct burst *burst, int fd)
{
	for (uint32_t i = 0; i < PEER_BURST; i++) {
		burst->pieces[i] = (struct iovec){ burst->bytes + i * burst->slot, burst->slot };
		burst->headers[i].msg_hdr = (struct msghdr){ .msg_iov = &burst->pieces[i],
							     .msg_iovlen = 1,
							     .msg_control = burst->controls[i],
							     .msg_controllen = sizeof(burst->controls[i]) };
	}
	int n = recvmmsg(fd, burst->headers, PEER_BURST, MSG_DONTWAIT, NULL);
	for (int i = 0; i < n; i++)
		burst->ds[i] = ds_of(&burst->headers[i].msg_hdr);
	return n > 0 ? (uint32_t)n : 0; /* an error is an ICMP message: WireGuard is about to end */
}

/* The longest train from here: packets of one size and DS field, the last may be shorter. */
static struct train next_train(const struct burst *burst, uint32_t first, uint32_t n)
{
	struct train train = train_of_one(burst->bytes + first * burst->slot, burst->headers[first].msg_len);

	train.stride = (uint32_t)burst->slot;
	train.ds = burst->ds[first];
	for (uint32_t i = first + 1; i < n && train.last_size == train.size; i++) {
		uint32_t size = burst->headers[i].msg_len;
		if (size > train.size || size == 0 || burst->ds[i] != train.ds)
			break;
		train.n++;
		train.last_size = size;
	}
	return train;
}

static void note_sent(struct loopback *loopback, struct loopback_peer *peer, const struct train *train)
{
	struct loopback_carried *carried = &peer->carried;
	bool is_data = false, is_initiation = false;

	for (uint32_t i = 0; i < train->n; i++) {
		is_initiation |= type_of(train, i) == WG_MESSAGE_INITIATION;
		is_data |= type_of(train, i) == WG_MESSAGE_DATA && train_size(train, i) > WG_DATA_MIN_LEN;
	}
	pthread_mutex_lock(&loopback->lock);
	carried->tx_bytes += train_bytes(train);
	if (is_data)
		carried->tx_data_ns = loopback->now_ns;
	if (is_initiation)
		carried->tx_initiation_ns = loopback->now_ns;
	pthread_mutex_unlock(&loopback->lock);
}

/* A full socket is waited for, a little: dropping in the middle of a train costs a retransmission. */
static void send_direct(struct loopback *loopback, const struct endpoint *to, const struct train *train)
{
	const struct wg_path path = { .remote = *to };
	uint32_t sent = 0, more = 0;
	int r = udp_send(loopback->udp, 0, &path, train, &sent);

	if (r != -EAGAIN)
		return; /* other errors are losses that the sockets count */
	struct pollfd full = { .fd = udp_fd(loopback->udp, 0, endpoint_is_v4(to) ? UDP_V4 : UDP_V6),
			       .events = POLLOUT };
	poll(&full, 1, SEND_PATIENCE_MS);
	struct train rest = train_slice(train, sent, train->n - sent);
	if (udp_send(loopback->udp, 0, &path, &rest, &more) == -EAGAIN)
		count(&loopback->n_sends_dropped, rest.n - more);
}

static void send_train(struct loopback *loopback, struct loopback_peer *peer, const struct train *train)
{
	note_sent(loopback, peer, train);
	if (peer->path.direct)
		send_direct(loopback, &peer->path.endpoint, train);
	if (peer->path.relay)
		post_relay(loopback, peer->id, train);
	if (!peer->path.direct && !peer->path.relay)
		count(&loopback->n_no_path, train->n);
}

static void serve_peer(struct loopback *loopback, struct loopback_peer *peer)
{
	struct burst *burst = loopback->burst;
	uint32_t n = read_burst(burst, udp_fd(&peer->socket, 0, UDP_V4));

	for (uint32_t first = 0; first < n;) {
		struct train train = next_train(burst, first, n);
		first += train.n;
		if (demux_datagram(train.base, train.size) == DEMUX_WIREGUARD)
			send_train(loopback, peer, &train);
	}
	if (n > 0)
		note_moved(loopback);
}

/* ---- thread: commands ---- */

static void watch(struct loopback *loopback, int fd, struct source *source)
{
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = source };

	if (fd >= 0 && epoll_ctl(loopback->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0)
		log_error("wireguard", "cannot watch descriptor %d: %s", fd, strerror(errno));
}

static void free_peer(struct loopback_peer *peer)
{
	close(udp_fd(&peer->socket, 0, UDP_V4)); /* and the epoll forgets it */
	free(peer);
}

static void run_command(struct loopback *loopback, const struct command *command)
{
	struct loopback_peer *peer = command->peer;

	switch (command->type) {
	case COMMAND_ADD:
		watch(loopback, udp_fd(&peer->socket, 0, UDP_V4), &peer->source);
		break;
	case COMMAND_REMOVE:
		for (uint32_t i = 0; i < ADDRESSES; i++)
			forget_address(loopback, &peer->addresses[i]);
		free_peer(peer);
		break;
	case COMMAND_PATH:
		peer->path = command->path;
		break;
	case COMMAND_ADDRESS:
		set_address(loopback, peer, command->slot, &command->address);
		break;
	}
}

static void serve_commands(struct loopback *loopback)
{
	pthread_mutex_lock(&loopback->lock);
	struct command *command = loopback->commands;
	loopback->commands = NULL;
	loopback->last_command = &loopback->commands;
	pthread_mutex_unlock(&loopback->lock);

	while (command) {
		struct command *next = command->next;
		run_command(loopback, command);
		free(command);
		command = next;
	}
}

static void serve(struct loopback *loopback, struct source *source)
{
	uint64_t n_wakes;

	switch (source->kind) {
	case SOURCE_WAKE:
		(void)!read(loopback->wake_fd, &n_wakes, sizeof(n_wakes));
		break;
	case SOURCE_UDP_V4:
		serve_udp(loopback, UDP_V4);
		break;
	case SOURCE_UDP_V6:
		serve_udp(loopback, UDP_V6);
		break;
	case SOURCE_PEER:
		serve_peer(loopback, container_of(source, struct loopback_peer, source));
		break;
	}
}

static void *thread_main(void *arg)
{
	struct loopback *loopback = arg;
	struct epoll_event events[READY_MAX];

	while (!atomic_load(&loopback->is_stopping)) {
		int n = epoll_wait(loopback->epoll_fd, events, READY_MAX, -1);

		loopback->now_ns = clock_now_ns();
		for (int i = 0; i < n; i++)
			serve(loopback, events[i].data.ptr);
		serve_commands(loopback); /* afterwards: it frees peers */
		if (loopback->loop_has_news)
			uv_async_send(&loopback->async);
		loopback->loop_has_news = false;
	}
	serve_commands(loopback);
	return NULL;
}

/* ---- loop: from the thread ---- */

static void dispatch(struct loopback *loopback, const struct event *event)
{
	const struct loopback_ports *ports = &loopback->ports;
	struct train train = event->train;

	if (event->type == EVENT_DATAGRAM) {
		ports->datagram(ports->owner, event->kind, &event->from, (const uint8_t *)(event + 1), event->len);
		return;
	}
	/* Trains are mutable in general; these bytes are only to be read. */
	train.base = (uint8_t *)(uintptr_t)(event + 1);
	ports->relay(ports->owner, event->peer_id, &train);
}

static void on_async(uv_async_t *async)
{
	struct loopback *loopback = container_of(async, struct loopback, async);
	const struct event *event;
	size_t len;

	if (!loopback->stopped && atomic_exchange(&loopback->has_moved, false))
		loopback->ports.moved(loopback->ports.owner);
	for (int i = 0; i < LOOP_BURST; i++) {
		if (loopback->stopped || !(event = ring_peek(&loopback->events, &len)))
			return;
		dispatch(loopback, event);
		if (!loopback->stopped)
			ring_release(&loopback->events);
	}
	uv_async_send(&loopback->async); /* the rest in the next turn */
}

/* ---- loop: peers ---- */

static void wake(struct loopback *loopback)
{
	const uint64_t one = 1;

	(void)!write(loopback->wake_fd, &one, sizeof(one));
}

static void tell(struct loopback *loopback, const struct command *command)
{
	struct command *copy = malloc(sizeof(*copy));

	if (!copy)
		abort();
	*copy = *command;
	copy->next = NULL;
	pthread_mutex_lock(&loopback->lock);
	*loopback->last_command = copy;
	loopback->last_command = &copy->next;
	pthread_mutex_unlock(&loopback->lock);
	wake(loopback);
}

/* What anybody on this machine has sent before the socket was connected. */
static void discard_all(int fd)
{
	uint8_t byte;

	while (recv(fd, &byte, sizeof(byte), MSG_DONTWAIT) >= 0)
		;
}

/* Connected, so that nobody but WireGuard is heard. */
static int open_socket(const struct loopback *loopback, int *ret_fd)
{
	const int size = SOCKET_BUFFER, on = 1;
	struct sockaddr_in name = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr_storage to;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	(void)setsockopt(fd, IPPROTO_IP, IP_RECVTOS, &on, sizeof(on));
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) != 0)
		(void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	socklen_t len = endpoint_to_sockaddr(&loopback->wireguard.remote, &to);
	if (bind(fd, (const struct sockaddr *)&name, sizeof(name)) != 0 ||
	    connect(fd, (const struct sockaddr *)&to, len) != 0) {
		int r = -errno;
		close(fd);
		return r;
	}
	discard_all(fd);
	*ret_fd = fd;
	return 0;
}

int loopback_add_peer(struct loopback *loopback, uint32_t id, struct loopback_peer **ret, struct error *reterr)
{
	struct sockaddr_in name = { 0 };
	socklen_t len = sizeof(name);
	int fd = -1, r = open_socket(loopback, &fd);

	if (r != 0)
		return error_set(reterr, r, "cannot open a loopback socket: %s", strerror(-r));
	struct loopback_peer *peer = calloc(1, sizeof(*peer));
	if (!peer)
		abort();
	getsockname(fd, (struct sockaddr *)&name, &len);
	peer->source.kind = SOURCE_PEER;
	peer->id = id;
	peer->socket.n_shards = 1;
	peer->socket.fds[0][UDP_V4] = fd;
	peer->socket.fds[0][UDP_V6] = -1;
	peer->socket.port = ntohs(name.sin_port);
	peer->socket.offloads = loopback->udp->offloads;
	peer->socket.may_segment = loopback->udp->may_segment;
	peer->next = loopback->peers;
	peer->at = &loopback->peers;
	if (peer->next)
		peer->next->at = &peer->next;
	loopback->peers = peer;
	tell(loopback, &(struct command){ .type = COMMAND_ADD, .peer = peer });
	*ret = peer;
	return 0;
}

void loopback_remove_peer(struct loopback *loopback, struct loopback_peer *peer)
{
	*peer->at = peer->next;
	if (peer->next)
		peer->next->at = peer->at;
	tell(loopback, &(struct command){ .type = COMMAND_REMOVE, .peer = peer });
}

struct endpoint loopback_peer_endpoint(const struct loopback_peer *peer)
{
	return endpoint_from_v4(INADDR_LOOPBACK, peer->socket.port);
}

static void tell_address(struct loopback *loopback, struct loopback_peer *peer, uint32_t slot,
			 const struct endpoint *address)
{
	if (endpoint_equal(&peer->known[slot], address))
		return;
	peer->known[slot] = *address;
	tell(loopback,
	     &(struct command){ .type = COMMAND_ADDRESS, .peer = peer, .slot = slot, .address = *address });
}

void loopback_know(struct loopback *loopback, struct loopback_peer *peer, const struct endpoint *address)
{
	for (uint32_t i = 0; i < ADDRESSES; i++)
		if (endpoint_equal(&peer->known[i], address))
			return;
	tell_address(loopback, peer, 1 + peer->n_told++ % (ADDRESSES - 1), address);
}

void loopback_set_path(struct loopback *loopback, struct loopback_peer *peer, const struct peer_path *path)
{
	struct endpoint before = peer->known[0];
	static const struct endpoint none;

	tell(loopback, &(struct command){ .type = COMMAND_PATH, .peer = peer, .path = *path });
	tell_address(loopback, peer, 0, path->direct ? &path->endpoint : &none);
	/* What is still on its way from there is the peer's as well. */
	if (!endpoint_is_none(&before))
		loopback_know(loopback, peer, &before);
}

int loopback_put_relayed(struct loopback *loopback, struct loopback_peer *peer, const uint8_t *bytes, size_t len)
{
	/* Only read; trains are mutable for those that open in place. */
	const struct train train = train_of_one((uint8_t *)(uintptr_t)bytes, len);

	note_received(loopback, peer, NULL, &train, clock_now_ns());
	return give_to_wireguard(loopback, peer, &train);
}

void loopback_get_carried(struct loopback *loopback, const struct loopback_peer *peer,
			  struct loopback_carried *ret)
{
	pthread_mutex_lock(&loopback->lock);
	*ret = peer->carried;
	pthread_mutex_unlock(&loopback->lock);
}

void loopback_get_counters(struct loopback *loopback, struct loopback_counters *ret)
{
	*ret = (struct loopback_counters){
		.n_unknown_initiations = loopback->n_unknown_initiations,
		.n_unknown_senders = loopback->n_unknown_senders,
		.n_no_path = loopback->n_no_path,
		.n_sends_dropped = loopback->n_sends_dropped,
		.n_events_dropped = loopback->events.n_dropped,
	};
}

/* ---- loop: life ---- */

static void free_loopback(struct loopback *loopback)
{
	while (loopback->peers) {
		struct loopback_peer *peer = loopback->peers;
		loopback->peers = peer->next;
		free_peer(peer);
	}
	if (loopback->epoll_fd >= 0)
		close(loopback->epoll_fd);
	if (loopback->wake_fd >= 0)
		close(loopback->wake_fd);
	ring_deinit(&loopback->events);
	pthread_mutex_destroy(&loopback->lock);
	free(loopback->burst->bytes);
	free(loopback->burst);
	free(loopback->inbox);
	free(loopback);
}

static void on_async_closed(uv_handle_t *handle)
{
	struct loopback *loopback = container_of((uv_async_t *)handle, struct loopback, async);
	void (*stopped)(void *arg) = loopback->stopped;
	void *arg = loopback->stopped_arg;

	free_loopback(loopback);
	stopped(arg);
}

static void *allocate(size_t size)
{
	void *memory = aligned_alloc(64, (size + 63) & ~(size_t)63);

	if (!memory)
		abort();
	return memset(memory, 0, size);
}

static struct loopback *new_loopback(const struct loopback_options *options)
{
	struct loopback *loopback = allocate(sizeof(*loopback));

	loopback->ports = options->ports;
	loopback->udp = options->udp;
	loopback->wireguard.remote = endpoint_from_v4(INADDR_LOOPBACK, options->wireguard_port);
	loopback->last_command = &loopback->commands;
	loopback->wake.kind = SOURCE_WAKE;
	loopback->udp_v4.kind = SOURCE_UDP_V4;
	loopback->udp_v6.kind = SOURCE_UDP_V6;
	pthread_mutex_init(&loopback->lock, NULL);
	ring_init(&loopback->events, EVENT_RING_LEN);
	loopback->inbox = allocate(sizeof(*loopback->inbox));
	loopback->burst = allocate(sizeof(*loopback->burst));
	loopback->burst->slot = (options->mtu + WG_OVERHEAD + 127u) & ~63u; /* a handshake fits, too */
	loopback->burst->bytes = allocate(PEER_BURST * loopback->burst->slot);
	loopback->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	loopback->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	return loopback;
}

/* Signals are the loop's. */
static int start_thread(struct loopback *loopback)
{
	sigset_t all, before;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int r = -pthread_create(&loopback->thread, NULL, thread_main, loopback);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return r;
}

int loopback_start(const struct loopback_options *options, struct loopback **ret, struct error *reterr)
{
	struct loopback *loopback = new_loopback(options);
	int r = loopback->wake_fd < 0 || loopback->epoll_fd < 0 ? -EMFILE : 0;

	if (r == 0)
		r = uv_async_init(options->loop, &loopback->async, on_async);
	if (r != 0) {
		free_loopback(loopback);
		return error_set(reterr, r, "cannot start the data plane: %s", strerror(-r));
	}
	watch(loopback, loopback->wake_fd, &loopback->wake);
	watch(loopback, udp_fd(loopback->udp, 0, UDP_V4), &loopback->udp_v4);
	watch(loopback, udp_fd(loopback->udp, 0, UDP_V6), &loopback->udp_v6);
	if (start_thread(loopback) != 0)
		abort(); /* no memory for a thread's stack */
	*ret = loopback;
	return 0;
}

void loopback_stop(struct loopback *loopback, void (*stopped)(void *arg), void *arg)
{
	assert(!loopback->stopped);
	loopback->stopped = stopped;
	loopback->stopped_arg = arg;
	atomic_store(&loopback->is_stopping, true);
	wake(loopback);
	pthread_join(loopback->thread, NULL);
	uv_close((uv_handle_t *)&loopback->async, on_async_closed);
}
