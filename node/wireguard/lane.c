/*
 * The lane's one idea: each descriptor that is ready is served for a bounded burst, so that no
 * direction starves the other, and a burst's packets travel as trains from read to write.
 */
#include "node/wireguard/lane.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "node/wireguard/aead.h"
#include "node/wireguard/icmp.h"
#include "node/wireguard/ring.h"

#define EVENT_RING_LEN	 (2u << 20)
#define RELAYED_RING_LEN (2u << 20)
/* So much of one source before the others are looked at: about half a millisecond each. */
#define TUN_BURST   256 /* packets */
#define UDP_BURST   2	/* calls for UDP_INBOX_MESSAGES trains */
#define RELAY_BURST 64	/* trains */
/* Events handled in one turn of the loop. */
#define LOOP_BURST 1024
/* A full socket is waited for so long before its packets are dropped. */
#define SEND_PATIENCE_MS 2

/* ICMP errors a second. */
#define MAX_REJECT_ANSWERS 100

/* The TUN is read into the first, superpackets are cut into the second. */
#define READ_ROOM   (OFFLOAD_MAX_PACKET + WG_OVERHEAD + 16)
#define READ_BUFFER (128u * 1024 + READ_ROOM)
/* The longest train of a cut: 64 packets of 1/64 superpacket, or one packet of 64 KB. */
#define CUT_BUFFER (WG_HEADROOM + OFFLOAD_MAX_PACKET + TRAIN_MAX * (120 + WG_OVERHEAD + 16))

enum source { SOURCE_WAKE, SOURCE_TUN, SOURCE_UDP, SOURCE_N = SOURCE_UDP + UDP_N_FAMILIES };

struct command {
	void (*fn)(const struct lane_context *context, void *arg);
	void (*done)(void *arg);
	void *arg;
};

enum event_type { EVENT_DATAGRAM, EVENT_RELAY, EVENT_PEER };

/* Head of a record in the event ring; bytes follow. */
struct event {
	enum event_type type;
	enum demux_kind kind;
	struct wg_path path;
	struct lane_peer_event peer;
	struct train train; /* base is not used */
	uint32_t len;
};

/* Head of a record in the ring of relayed datagrams; bytes follow. */
struct relayed {
	struct wg_path from;
	struct train train;
};

struct counters {
	_Atomic uint64_t unknown, sends_dropped, rejected;
	_Atomic uint64_t tun_reads, tun_packets, udp_messages, udp_datagrams;
};

struct lane {
	/* set before the thread starts */
	struct lane_ports ports;
	bool is_plain;
	int wake_fd, epoll_fd;
	pthread_t thread;

	/* between the threads */
	struct ring commands, completions, events, relayed;
	_Atomic bool is_stopping;
	_Atomic bool is_tun_gone; /* not yet told; no event, since none may be lost for want of room */
	uv_async_t async;
	struct counters counters;

	/* of the loop thread */
	uint32_t n_outstanding;
	void (*stopped)(void *arg);
	void *stopped_arg;

	/* of the lane thread */
	struct wg_device *device;
	struct tun tun;
	struct udp *udp;
	uint32_t mtu;
	struct wg_time now;
	bool loop_has_news;
	uint32_t ready; /* bits by enum source */
	uint64_t reject_second;
	uint32_t n_reject_answers; /* in that second */
	struct train pending; /* packets read, not yet sealed; n 0: none */
	uint8_t *read_buffer, *cut_buffer, *relayed_buffer;
	struct udp_inbox *inbox;
};

static struct wg_time time_now(void)
{
	struct timespec boot, real;

	clock_gettime(CLOCK_BOOTTIME, &boot);
	clock_gettime(CLOCK_REALTIME, &real);
	return (struct wg_time){
		.ns = (uint64_t)boot.tv_sec * 1000000000 + (uint64_t)boot.tv_nsec,
		.real_ns = (uint64_t)real.tv_sec * 1000000000 + (uint64_t)real.tv_nsec,
	};
}

static void count(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

/* lane thread: to the loop */

/* An event with room for len bytes; NULL when the ring is full. */
static struct event *begin_event(struct lane *lane, enum event_type type, size_t len)
{
	struct event *event = ring_reserve(&lane->events, sizeof(*event) + len);

	if (!event)
		return NULL;
	memset(event, 0, sizeof(*event));
	event->type = type;
	event->len = (uint32_t)len;
	return event;
}

static void post_event(struct lane *lane)
{
	ring_commit(&lane->events);
	lane->loop_has_news = true;
}

static void post_datagrams(struct lane *lane, enum demux_kind kind, const struct wg_path *from,
			   const struct train *train)
{
	if (lane->is_plain || !lane->ports.datagram || kind == DEMUX_UNKNOWN) {
		count(&lane->counters.unknown, train->n);
		return;
	}
	for (uint32_t i = 0; i < train->n; i++) {
		struct event *event = begin_event(lane, EVENT_DATAGRAM, train_size(train, i));
		if (!event)
			return;
		event->kind = kind;
		event->path = *from;
		memcpy(event + 1, train_packet(train, i), train_size(train, i));
		post_event(lane);
	}
}

static void post_relay(struct lane *lane, const struct wg_path *path, const struct train *train)
{
	if (!lane->ports.relay)
		return;
	struct event *event = begin_event(lane, EVENT_RELAY, (size_t)train_bytes(train));
	if (!event)
		return;
	uint8_t *at = (uint8_t *)(event + 1);
	for (uint32_t i = 0; i < train->n; at += train_size(train, i++))
		memcpy(at, train_packet(train, i), train_size(train, i));
	event->path = *path;
	event->train = *train;
	event->train.stride = train->size;
	post_event(lane);
}

/* lane thread: ports of the device */

/* A full socket is waited for, a little: dropping in the middle of a train costs a retransmission. */
static void send_all(struct lane *lane, const struct wg_path *path, const struct train *train)
{
	struct train rest = *train;
	uint32_t sent = 0;
	int r = udp_send(lane->udp, 0, path, &rest, &sent);

	if (r == -EAGAIN) {
		enum udp_family family = endpoint_is_v4(&path->remote) ? UDP_V4 : UDP_V6;
		struct pollfd full = { .fd = udp_fd(lane->udp, 0, family), .events = POLLOUT };
		poll(&full, 1, SEND_PATIENCE_MS);
		rest = train_slice(train, sent, train->n - sent);
		r = udp_send(lane->udp, 0, path, &rest, &sent);
		if (r == -EAGAIN)
			count(&lane->counters.sends_dropped, rest.n - sent);
	}
}

static void on_transmit(void *owner, struct wg_peer *peer, const struct wg_path *path,
			const struct train *train)
{
	struct lane *lane = owner;

	if (path->relay_id != 0)
		post_relay(lane, path, train);
	else if (lane->udp)
		send_all(lane, path, train);
}

static void on_deliver(void *owner, struct wg_peer *peer, const struct train *train)
{
	struct lane *lane = owner;

	if (lane->tun.fd >= 0)
		(void)tun_write(&lane->tun, train); /* that the TUN is gone shows in epoll */
}

static void on_peer_event(void *owner, struct wg_peer *peer, const struct wg_event *event)
{
	struct lane *lane = owner;
	struct event *record = lane->ports.peer ? begin_event(lane, EVENT_PEER, 0) : NULL;

	if (!record)
		return;
	record->peer = (struct lane_peer_event){ .peer_id = wg_peer_id(peer), .type = event->type };
	if (event->path)
		record->peer.path = *event->path;
	post_event(lane);
}

/* Nobody has this destination: the sender is told, so that it need not wait for a timeout. */
static void on_reject(void *owner, enum wg_drop why, const uint8_t *packet, size_t size)
{
	struct lane *lane = owner;
	uint64_t second = lane->now.ns / 1000000000;
	uint8_t answer[ICMP6_MAX_LEN];

	count(&lane->counters.rejected, 1);
	if (lane->reject_second != second)
		lane->n_reject_answers = 0;
	lane->reject_second = second;
	if (why != WG_DROP_OUT_NO_PEER || lane->n_reject_answers >= MAX_REJECT_ANSWERS)
		return;

	size_t len = icmp_unreachable(packet, size, answer);
	if (len == 0 || lane->tun.fd < 0)
		return;
	lane->n_reject_answers++;
	struct train train = train_of_one(answer, len);
	(void)tun_write(&lane->tun, &train);
}

/* lane thread: from the TUN to the network */

static void flush_pending(struct lane *lane)
{
	if (lane->pending.n > 0)
		wg_device_send(lane->device, &lane->pending, lane->now);
	lane->pending.n = 0;
}

/* Where the next packet is read to: behind those pending, in its slot of the train. */
static uint8_t *read_position(struct lane *lane)
{
	uint8_t *start = lane->read_buffer + WG_HEADROOM;

	if (lane->pending.n == 0)
		return start;
	uint8_t *next = lane->pending.base + (size_t)lane->pending.n * lane->pending.stride;
	if (next + READ_ROOM <= lane->read_buffer + READ_BUFFER)
		return next;
	flush_pending(lane);
	return start;
}

/* A packet that came alone joins the train of its like, or begins a new one where it lies. */
static void add_pending(struct lane *lane, uint8_t *packet, uint32_t size)
{
	struct train *pending = &lane->pending;

	if (pending->n > 0 && size <= pending->size) {
		pending->n++;
		pending->last_size = size;
	} else {
		flush_pending(lane);
		*pending = train_of_one(packet, size);
		pending->stride = wg_slot_size(size, lane->mtu);
	}
	if (size < pending->size || pending->n == TRAIN_MAX)
		flush_pending(lane);
}

/* How many packets it was cut into. */
static uint32_t send_superpacket(struct lane *lane, struct offload_cut *cut)
{
	uint32_t stride = wg_slot_size(offload_packet_len(cut), lane->mtu);
	uint32_t max_n = (CUT_BUFFER - WG_HEADROOM) / stride;
	struct train train;

	if (max_n > TRAIN_MAX)
		max_n = TRAIN_MAX;
	while (offload_next(cut, lane->cut_buffer + WG_HEADROOM, stride, max_n, &train))
		wg_device_send(lane->device, &train, lane->now);
	return cut->n_cut;
}

/* How many packets the read has brought. */
static uint32_t send_read(struct lane *lane, const struct offload_header *header, uint8_t *packet, size_t len)
{
	struct offload_cut cut;
	bool is_super;

	int r = offload_begin(header, packet, len, &cut, &is_super);
	if (header->gso_type != OFFLOAD_GSO_NONE)
		tun_read_made_sense(&lane->tun, r == 0);
	if (r != 0) {
		flush_pending(lane);
		return 1;
	}
	if (!is_super) {
		add_pending(lane, packet, (uint32_t)len);
		return 1;
	}
	flush_pending(lane);
	return send_superpacket(lane, &cut);
}

static void serve_tun(struct lane *lane)
{
	struct offload_header header;
	uint32_t n_packets = 0, n_reads = 0;

	while (n_packets < TUN_BURST) {
		uint8_t *packet = read_position(lane);
		ssize_t len = tun_read(&lane->tun, &header, packet, OFFLOAD_MAX_PACKET);
		if (len <= 0) {
			lane->ready &= ~(1u << SOURCE_TUN);
			break;
		}
		n_packets += send_read(lane, &header, packet, (size_t)len);
		n_reads++;
	}
	flush_pending(lane);
	count(&lane->counters.tun_reads, n_reads);
	count(&lane->counters.tun_packets, n_packets);
}

/* lane thread: from the network to the TUN */

/* Datagrams of one sender; runs of the same protocol stay together. */
static void receive_train(struct lane *lane, const struct wg_path *from, const struct train *train)
{
	uint32_t first = 0;

	while (first < train->n) {
		enum demux_kind kind =
			demux_datagram(train_packet(train, first), train_size(train, first));
		uint32_t n = 1;
		while (first + n < train->n &&
		       demux_datagram(train_packet(train, first + n), train_size(train, first + n)) == kind)
			n++;
		struct train run = train_slice(train, first, n);
		if (kind == DEMUX_WIREGUARD)
			wg_device_receive(lane->device, &run, from, lane->now);
		else
			post_datagrams(lane, kind, from, &run);
		first += n;
	}
}

static void serve_udp(struct lane *lane, enum udp_family family)
{
	struct train train;

	for (int i = 0; i < UDP_BURST; i++) {
		int n = udp_receive(lane->udp, 0, family, lane->inbox);

		for (int k = 0; k < n; k++) {
			struct udp_message *message = &lane->inbox->messages[k];
			count(&lane->counters.udp_messages, 1);
			while (udp_message_next(message, &train)) {
				count(&lane->counters.udp_datagrams, train.n);
				receive_train(lane, &message->from, &train);
			}
		}
		if (n < UDP_INBOX_MESSAGES) {
			lane->ready &= ~(1u << ((unsigned)SOURCE_UDP + family));
			return;
		}
	}
}

/* The relay's bytes lie in the ring; the device opens in place, and the ring is not ours to change. */
static void serve_relayed(struct lane *lane)
{
	const struct relayed *relayed;
	size_t len;

	for (int i = 0; (relayed = ring_peek(&lane->relayed, &len)); i++) {
		if (i == RELAY_BURST) {
			lane->ready |= 1u << SOURCE_WAKE; /* the rest after the others */
			return;
		}
		struct train train = relayed->train;
		struct wg_path from = relayed->from;
		train.base = lane->relayed_buffer;
		memcpy(train.base, relayed + 1, len - sizeof(*relayed));
		ring_release(&lane->relayed);
		receive_train(lane, &from, &train);
	}
}

/* lane thread: commands */

static void complete(struct lane *lane, const struct command *command)
{
	struct command *record = ring_reserve(&lane->completions, sizeof(*record));

	assert(record); /* as many as may be outstanding fit */
	*record = *command;
	ring_commit(&lane->completions);
	lane->loop_has_news = true;
}

static void serve_commands(struct lane *lane)
{
	struct lane_context context = { .lane = lane, .device = lane->device, .now = lane->now };
	const struct command *next;
	size_t len;

	while ((next = ring_peek(&lane->commands, &len))) {
		struct command command = *next;
		ring_release(&lane->commands);
		command.fn(&context, command.arg);
		complete(lane, &command);
	}
}

/* lane thread: waiting */

static void watch(struct lane *lane, int fd, unsigned source, bool on)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u32 = source };

	if (fd < 0)
		return;
	if (epoll_ctl(lane->epoll_fd, on ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, fd, &event) != 0 && on)
		log_error("wireguard", "cannot watch descriptor %d: %s", fd, strerror(errno));
	lane->ready &= ~(1u << source);
}

static void watch_udp(struct lane *lane, bool on)
{
	for (unsigned family = 0; lane->udp && family < UDP_N_FAMILIES; family++)
		watch(lane, udp_fd(lane->udp, 0, family), (unsigned)SOURCE_UDP + family, on);
}

void lane_use_udp(const struct lane_context *context, struct udp *udp)
{
	struct lane *lane = context->lane;

	watch_udp(lane, false);
	lane->udp = udp;
	watch_udp(lane, true);
}

void lane_use_tun(const struct lane_context *context, const struct tun *tun_take)
{
	struct lane *lane = context->lane;

	watch(lane, lane->tun.fd, SOURCE_TUN, false);
	tun_close(&lane->tun);
	lane->tun = *tun_take;
	watch(lane, lane->tun.fd, SOURCE_TUN, true);
}

void lane_set_mtu(const struct lane_context *context, uint32_t mtu)
{
	context->lane->mtu = mtu;
	wg_device_set_mtu(context->device, mtu);
}

/* Milliseconds to wait for descriptors; 0 when there is work left from the last burst. */
static int patience_ms(const struct lane *lane)
{
	uint64_t deadline = wg_device_next_deadline(lane->device);

	if (lane->ready)
		return 0;
	if (deadline == UINT64_MAX)
		return -1;
	if (deadline <= lane->now.ns)
		return 0;
	uint64_t ms = (deadline - lane->now.ns + 999999) / 1000000;
	return ms < 60000 ? (int)ms : 60000;
}

static void handle_tun_error(struct lane *lane)
{
	if (tun_is_alive(&lane->tun))
		return;
	watch(lane, lane->tun.fd, SOURCE_TUN, false);
	tun_close(&lane->tun);
	atomic_store_explicit(&lane->is_tun_gone, true, memory_order_release);
	lane->loop_has_news = true;
}

static void wait_for_work(struct lane *lane)
{
	struct epoll_event events[SOURCE_N];
	uint64_t n_wakes;

	int n = epoll_wait(lane->epoll_fd, events, SOURCE_N, patience_ms(lane));
	lane->now = time_now();
	for (int i = 0; i < n; i++) {
		unsigned source = events[i].data.u32;
		lane->ready |= 1u << source;
		if (source == SOURCE_TUN && events[i].events & (EPOLLERR | EPOLLHUP))
			handle_tun_error(lane);
	}
	if (lane->ready & 1u << SOURCE_WAKE)
		(void)!read(lane->wake_fd, &n_wakes, sizeof(n_wakes));
	lane->ready &= ~(1u << SOURCE_WAKE);
}

static void tell_loop(struct lane *lane)
{
	if (lane->loop_has_news)
		uv_async_send(&lane->async);
	lane->loop_has_news = false;
}

static void *lane_main(void *arg)
{
	struct lane *lane = arg;

	while (!atomic_load_explicit(&lane->is_stopping, memory_order_acquire)) {
		wait_for_work(lane);
		serve_commands(lane);
		serve_relayed(lane);
		for (unsigned family = 0; family < UDP_N_FAMILIES; family++)
			if (lane->ready & 1u << ((unsigned)SOURCE_UDP + family))
				serve_udp(lane, (enum udp_family)family);
		if (lane->ready & 1u << SOURCE_TUN)
			serve_tun(lane);
		wg_device_tick(lane->device, lane->now);
		tell_loop(lane);
	}
	serve_commands(lane);
	return NULL;
}

/* loop thread: from the lane */

static void dispatch_completions(struct lane *lane)
{
	const struct command *next;
	size_t len;

	while ((next = ring_peek(&lane->completions, &len))) {
		struct command command = *next;
		ring_release(&lane->completions);
		lane->n_outstanding--;
		if (command.done)
			command.done(command.arg);
	}
}

static void dispatch_event(struct lane *lane, const struct event *event)
{
	const struct lane_ports *ports = &lane->ports;
	struct train train = event->train;

	switch (event->type) {
	case EVENT_DATAGRAM:
		ports->datagram(ports->owner, event->kind, &event->path, (const uint8_t *)(event + 1),
				event->len);
		break;
	case EVENT_RELAY:
		/* Trains are mutable in general; these bytes are only to be read. */
		train.base = (uint8_t *)(uintptr_t)(event + 1);
		ports->relay(ports->owner, &event->path, &train);
		break;
	case EVENT_PEER:
		ports->peer(ports->owner, &event->peer);
		break;
	}
}

static void on_async(uv_async_t *async)
{
	struct lane *lane = container_of(async, struct lane, async);
	const struct event *event;
	size_t len;

	dispatch_completions(lane);
	if (!lane->stopped && atomic_exchange(&lane->is_tun_gone, false) && lane->ports.tun_gone)
		lane->ports.tun_gone(lane->ports.owner);
	for (int i = 0; i < LOOP_BURST; i++) {
		if (lane->stopped || !(event = ring_peek(&lane->events, &len)))
			return;
		dispatch_event(lane, event);
		if (!lane->stopped)
			ring_release(&lane->events);
	}
	uv_async_send(&lane->async); /* the rest in the next turn */
}

/* loop thread: public */

static void wake(struct lane *lane)
{
	const uint64_t one = 1;

	(void)!write(lane->wake_fd, &one, sizeof(one));
}

static void free_lane(struct lane *lane)
{
	wg_device_free(lane->device);
	tun_close(&lane->tun);
	if (lane->wake_fd >= 0)
		close(lane->wake_fd);
	if (lane->epoll_fd >= 0)
		close(lane->epoll_fd);
	ring_deinit(&lane->commands);
	ring_deinit(&lane->completions);
	ring_deinit(&lane->events);
	ring_deinit(&lane->relayed);
	free(lane->read_buffer);
	free(lane->cut_buffer);
	free(lane->relayed_buffer);
	free(lane->inbox);
	free(lane);
}

static void on_async_closed(uv_handle_t *handle)
{
	struct lane *lane = container_of((uv_async_t *)handle, struct lane, async);
	void (*stopped)(void *arg) = lane->stopped;
	void *arg = lane->stopped_arg;

	free_lane(lane);
	stopped(arg);
}

static void *allocate(size_t size)
{
	void *memory = calloc(1, size);

	if (!memory)
		abort();
	return memory;
}

static struct lane *new_lane(const struct lane_config *config)
{
	struct lane *lane = aligned_alloc(_Alignof(struct lane), sizeof(*lane));

	if (!lane)
		abort();
	memset(lane, 0, sizeof(*lane));
	lane->ports = config->ports;
	lane->is_plain = config->is_plain;
	lane->tun = config->tun_take;
	lane->udp = config->udp;
	lane->mtu = config->mtu ? config->mtu : WG_DEFAULT_MTU;
	ring_init(&lane->commands, LANE_MAX_COMMANDS * 64);
	ring_init(&lane->completions, LANE_MAX_COMMANDS * 64);
	ring_init(&lane->events, EVENT_RING_LEN);
	ring_init(&lane->relayed, RELAYED_RING_LEN);
	lane->read_buffer = allocate(READ_BUFFER);
	lane->cut_buffer = allocate(CUT_BUFFER);
	lane->relayed_buffer = allocate(UDP_MESSAGE_MAX);
	lane->inbox = allocate(sizeof(*lane->inbox));
	lane->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	lane->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	return lane;
}

static void log_cipher(const struct wg_aead *aead)
{
	if (aead->failed)
		log_warning("wireguard", "%s gives wrong results on this machine and is not used",
			    aead->failed);
	log_info("wireguard", "packets are sealed with %s", wg_aead_name(aead));
}

static int new_device(struct lane *lane)
{
	const struct wg_config config = {
		.ports = {
			.owner = lane,
			.transmit = on_transmit,
			.deliver = on_deliver,
			.event = on_peer_event,
			.reject = on_reject,
		},
		.mtu = lane->mtu,
	};

	int r = wg_device_new(&config, &lane->device);
	if (r == 0)
		log_cipher(wg_device_aead(lane->device));
	return r;
}

/* Signals are the loop's: the lane's system calls are not to be disturbed. */
static int start_thread(struct lane *lane)
{
	sigset_t all, before;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int r = -pthread_create(&lane->thread, NULL, lane_main, lane);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return r;
}

int lane_start(const struct lane_config *config, struct lane **ret, struct error *reterr)
{
	struct lane *lane = new_lane(config);
	int r = lane->wake_fd < 0 || lane->epoll_fd < 0 ? -EMFILE : new_device(lane);

	if (r == 0)
		r = uv_async_init(config->loop, &lane->async, on_async);
	if (r != 0) {
		lane->tun.fd = -1; /* stays the caller's */
		free_lane(lane);
		return error_set(reterr, r, "cannot start the data plane: %s", strerror(-r));
	}
	watch(lane, lane->wake_fd, SOURCE_WAKE, true);
	watch(lane, lane->tun.fd, SOURCE_TUN, true);
	watch_udp(lane, true);
	lane->now = time_now();
	r = start_thread(lane);
	if (r != 0)
		abort(); /* no memory for a thread's stack */
	*ret = lane;
	return 0;
}

void lane_stop(struct lane *lane, void (*stopped)(void *arg), void *arg)
{
	assert(!lane->stopped);
	lane->stopped = stopped;
	lane->stopped_arg = arg;
	atomic_store_explicit(&lane->is_stopping, true, memory_order_release);
	wake(lane);
	pthread_join(lane->thread, NULL);
	dispatch_completions(lane);
	uv_close((uv_handle_t *)&lane->async, on_async_closed);
}

int lane_run(struct lane *lane, void (*fn)(const struct lane_context *context, void *arg), void *arg,
	     void (*done)(void *arg))
{
	struct command *command;

	if (lane->stopped || lane->n_outstanding == LANE_MAX_COMMANDS)
		return -EAGAIN;
	command = ring_reserve(&lane->commands, sizeof(*command));
	assert(command);
	*command = (struct command){ .fn = fn, .done = done, .arg = arg };
	ring_commit(&lane->commands);
	lane->n_outstanding++;
	wake(lane);
	return 0;
}

int lane_put_relayed(struct lane *lane, const struct wg_path *from, const struct train *datagrams)
{
	size_t len = (size_t)train_bytes(datagrams);

	if (lane->stopped || len > UDP_MESSAGE_MAX)
		return -EAGAIN;
	struct relayed *record = ring_reserve(&lane->relayed, sizeof(*record) + len);
	if (!record)
		return -EAGAIN;
	uint8_t *at = (uint8_t *)(record + 1);
	for (uint32_t i = 0; i < datagrams->n; at += train_size(datagrams, i++))
		memcpy(at, train_packet(datagrams, i), train_size(datagrams, i));
	record->from = *from;
	record->train = *datagrams;
	record->train.stride = datagrams->size;
	ring_commit(&lane->relayed);
	wake(lane);
	return 0;
}

void lane_get_counters(struct lane *lane, struct lane_counters *ret)
{
	*ret = (struct lane_counters){
		.n_events_dropped = lane->events.n_dropped,
		.n_relayed_dropped = lane->relayed.n_dropped,
		.n_unknown = lane->counters.unknown,
		.n_sends_dropped = lane->counters.sends_dropped,
		.n_rejected = lane->counters.rejected,
		.n_tun_reads = lane->counters.tun_reads,
		.n_tun_packets = lane->counters.tun_packets,
		.n_udp_messages = lane->counters.udp_messages,
		.n_udp_datagrams = lane->counters.udp_datagrams,
	};
}
