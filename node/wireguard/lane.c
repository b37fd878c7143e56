/*
 * The lane's one idea: each descriptor that is ready is served for a bounded burst, so that no
 * direction starves the other, and a burst's packets travel as trains from read to write.
 */
#include "node/wireguard/lane_internal.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"

/* Handshakes, or trains that wait for a session: what comes beyond is dropped and counted. */
#define NEWS_RING_LEN	 (256u << 10)
#define RELAYED_RING_LEN (1u << 20)

/* While the device sends what was handed over: so often, so long. About 2 ms, then it is handed on. */
#define MAX_WAITS 40
#define WAIT_NS	  50000
#define TIMER_SLACK_NS 1000

struct wg_time lane_time_now(void)
{
	struct timespec real;

	clock_gettime(CLOCK_REALTIME, &real);
	return (struct wg_time){
		.ns = clock_now_ns(),
		.real_ns = (uint64_t)real.tv_sec * 1000000000 + (uint64_t)real.tv_nsec,
	};
}

void *lane_allocate(size_t size)
{
	void *memory = calloc(1, size);

	if (!memory)
		abort();
	return memory;
}

/* ---- to the device's thread ---- */

/* Head of a record in the ring of news; the train's bytes follow. */
static bool hand(void *owner, const struct wg_news *news)
{
	struct lane *lane = owner;
	const bool has_train = news->type == WG_NEWS_PLAIN || news->type == WG_NEWS_HANDSHAKE;
	const size_t len = has_train ? (size_t)train_bytes(&news->train) : 0;
	const bool is_strangers = news->type == WG_NEWS_HANDSHAKE || news->type == WG_NEWS_LOST_SESSION;
	struct wg_news *record = is_strangers ? ring_reserve_for_stranger(&lane->news, sizeof(*record) + len) :
						ring_reserve(&lane->news, sizeof(*record) + len);

	if (!record)
		return false;
	*record = *news;
	if (has_train) {
		train_copy((uint8_t *)(record + 1), &news->train);
		record->train.stride = news->train.size;
	}
	ring_commit(&lane->news);
	lane->device_has_news = true;
	return true;
}

static void wake_device(struct lane *lane)
{
	lane->device_has_news = false;
	lane->config.wake_device(lane->config.owner);
}

static void on_noted(void *owner)
{
	struct lane *lane = owner;

	lane->device_has_news = true;
}

/* Peers can give cause to wait (they move, they renew sessions): all together not too often. */
static bool wait_for_device(void *owner, unsigned n_waits)
{
	const struct timespec pause = { .tv_nsec = WAIT_NS };
	struct lane *lane = owner;
	const uint64_t before_ns = lane_time_now().ns;

	if (n_waits == MAX_WAITS || !wait_budget_allows(&lane->wait_budget, before_ns))
		return false;
	wake_device(lane);
	nanosleep(&pause, NULL);
	wait_budget_spend(&lane->wait_budget, lane_time_now().ns - before_ns);
	return true;
}

bool lane_take_news(struct lane *lane, struct wg_time now, unsigned max)
{
	const struct wg_news *record;
	size_t len;

	for (unsigned i = 0; i < max; i++) {
		if (!(record = ring_peek(&lane->news, &len)))
			return true;
		struct wg_news news = *record;
		/* Trains are mutable in general; these bytes are only to be read. */
		news.train.base = (uint8_t *)(uintptr_t)(record + 1);
		wg_device_take(lane->config.device, &news, now);
		ring_release(&lane->news);
	}
	return false;
}

void lane_mark_news(struct lane *lane)
{
	lane->news_mark = ring_mark(&lane->news);
}

bool lane_marked_were_taken(const struct lane *lane)
{
	return ring_is_taken(&lane->news, lane->news_mark);
}

/* ---- waiting ---- */

void lane_wake(struct lane *lane)
{
	const uint64_t one = 1;

	(void)!write(lane->wake_fd, &one, sizeof(one));
}

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
	if (!lane->udp || !(lane->config.role & LANE_OPENS))
		return;
	for (unsigned family = 0; family < UDP_N_FAMILIES; family++)
		watch(lane, udp_fd(lane->udp, lane->config.shard, (enum udp_family)family),
		      (unsigned)SOURCE_UDP + family, on);
}

static void watch_tuns(struct lane *lane, bool on)
{
	if (!(lane->config.role & LANE_SEALS))
		return;
	for (unsigned i = 0; i < lane->n_tuns; i++)
		watch(lane, lane->tuns[i].fd, SOURCE_TUN + i, on);
}

void lane_use_udp(struct lane *lane, struct udp *udp)
{
	watch_udp(lane, false);
	lane->udp = udp;
	watch_udp(lane, true);
}

void lane_set_mtu(struct lane *lane, uint32_t mtu)
{
	lane->mtu = mtu;
	wg_lane_set_mtu(lane->core, mtu);
}

static void handle_tun_error(struct lane *lane)
{
	if (lane->n_tuns == 0 || tun_is_alive(&lane->tuns[0]))
		return;
	watch_tuns(lane, false);
	lane->n_tuns = 0;
	atomic_store(&lane->is_tun_gone, true);
	lane->outbox.has_news = true;
}

static void wait_for_work(struct lane *lane)
{
	struct epoll_event events[SOURCE_N];
	uint64_t n_wakes;

	if (!lane->ready) {
		/* Others first: they may bring more, and a longer train costs less than one more wake-up. */
		wg_reader_leave(lane->reader);
		sched_yield();
	}
	int n = epoll_wait(lane->epoll_fd, events, SOURCE_N, lane->ready ? 0 : -1);
	wg_reader_enter(wg_device_readers(lane->config.device), lane->reader);
	lane->now = lane_time_now();
	for (int i = 0; i < n; i++) {
		unsigned source = events[i].data.u32;
		lane->ready |= 1u << source;
		if (source >= SOURCE_TUN && events[i].events & (EPOLLERR | EPOLLHUP))
			handle_tun_error(lane);
	}
	if (lane->n_tuns == 0) /* perhaps since a moment ago, and other queues were told of as well */
		lane->ready &= ~SOURCES_TUN;
	if (lane->ready & 1u << SOURCE_WAKE)
		(void)!read(lane->wake_fd, &n_wakes, sizeof(n_wakes));
	lane->ready &= ~(1u << SOURCE_WAKE);
}

static void serve_call(struct lane *lane)
{
	struct lane_call *call = atomic_load(&lane->call);

	if (!call)
		return;
	atomic_store(&lane->call, NULL);
	call->fn(lane, call->arg);
	sem_post(&call->done);
}

static void tell_others(struct lane *lane)
{
	if (lane->device_has_news)
		wake_device(lane);
	if (lane->outbox.has_news)
		lane->config.wake_loop(lane->config.owner);
	lane->outbox.has_news = false;
}

static void *lane_main(void *arg)
{
	struct lane *lane = arg;

	prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NS); /* by default it doubles a short sleep */
	while (!atomic_load(&lane->is_stopping)) {
		wait_for_work(lane);
		serve_call(lane);
		lane_serve_relayed(lane);
		for (unsigned family = 0; family < UDP_N_FAMILIES; family++)
			if (lane->ready & 1u << ((unsigned)SOURCE_UDP + family))
				lane_serve_udp(lane, (enum udp_family)family);
		if (lane->ready & SOURCES_TUN)
			lane_serve_tun(lane);
		tell_others(lane);
	}
	wg_reader_leave(lane->reader);
	return NULL;
}

/* ---- the device's thread ---- */

void lane_call(struct lane *lane, void (*fn)(struct lane *lane, void *arg), void *arg)
{
	struct lane_call call = { .fn = fn, .arg = arg };

	sem_init(&call.done, 0, 0);
	atomic_store(&lane->call, &call);
	lane_wake(lane);
	while (sem_wait(&call.done) != 0)
		;
	sem_destroy(&call.done);
}

static int new_core(struct lane *lane)
{
	struct wg_device *device = lane->config.device;
	const struct wg_lane_ports ports = {
		.owner = lane,
		.transmit = lane_transmit,
		.deliver = lane_deliver,
		.reject = lane_reject,
		.hand = hand,
		.noted = on_noted,
		.wait = wait_for_device,
	};

	lane->reader = wg_readers_add(wg_device_readers(device));
	if (!lane->reader)
		return -EMFILE;
	int r = wg_lane_new(device, &ports, lane->reader, &lane->core);
	if (r != 0)
		wg_readers_remove(wg_device_readers(device), lane->reader);
	return r;
}

int lane_new(const struct lane_config *config, struct lane **ret)
{
	struct lane *lane = aligned_alloc(_Alignof(struct lane), sizeof(*lane));

	if (!lane)
		abort();
	memset(lane, 0, sizeof(*lane));
	lane->config = *config;
	lane->n_tuns = config->n_tuns;
	memcpy(lane->tuns, config->tuns, config->n_tuns * sizeof(lane->tuns[0]));
	ring_init(&lane->news, NEWS_RING_LEN);
	ring_init(&lane->relayed, RELAYED_RING_LEN);
	lane_outbox_init(&lane->outbox);
	if (config->role & LANE_SEALS)
		lane_tx_init(lane);
	if (config->role & LANE_OPENS)
		lane_rx_init(lane);
	lane->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	lane->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	int r = lane->wake_fd < 0 || lane->epoll_fd < 0 ? -EMFILE : new_core(lane);
	if (r != 0) {
		lane_free(lane);
		return r;
	}
	lane_set_mtu(lane, config->mtu);
	wg_lane_set_shard(lane->core, config->shard);
	watch(lane, lane->wake_fd, SOURCE_WAKE, true);
	watch_tuns(lane, true);
	lane_use_udp(lane, config->udp);
	*ret = lane;
	return 0;
}

/* Signals are the loop's: the lane's system calls are not to be disturbed. */
void lane_start(struct lane *lane)
{
	sigset_t all, before;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	if (pthread_create(&lane->thread, NULL, lane_main, lane) != 0)
		abort();
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	lane->has_started = true;
}

void lane_stop(struct lane *lane)
{
	if (!lane->has_started)
		return;
	atomic_store(&lane->is_stopping, true);
	lane_wake(lane);
	pthread_join(lane->thread, NULL);
	lane->has_started = false;
}

void lane_free(struct lane *lane)
{
	if (!lane)
		return;
	wg_lane_free(lane->core);
	if (lane->wake_fd >= 0)
		close(lane->wake_fd);
	if (lane->epoll_fd >= 0)
		close(lane->epoll_fd);
	ring_deinit(&lane->news);
	ring_deinit(&lane->relayed);
	lane_outbox_deinit(&lane->outbox);
	lane_tx_deinit(lane);
	lane_rx_deinit(lane);
	free(lane);
}

/* ---- for the loop ---- */

struct lane_outbox *lane_outbox(struct lane *lane)
{
	return &lane->outbox;
}

bool lane_take_tun_gone(struct lane *lane)
{
	return atomic_exchange(&lane->is_tun_gone, false);
}

static uint64_t read_counter(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

void lane_get_counters(const struct lane *lane, struct lane_counters *ret)
{
	const struct lane_counts *counters = &lane->counters;

	*ret = (struct lane_counters){
		.n_events_dropped = lane_outbox_n_dropped(&lane->outbox),
		.n_relayed_dropped = read_counter(&lane->relayed.n_dropped),
		.n_news_dropped = read_counter(&lane->news.n_dropped),
		.n_unknown = read_counter(&counters->unknown),
		.n_sends_dropped = read_counter(&counters->sends_dropped),
		.n_tun_refused = read_counter(&counters->tun_refused),
		.n_rejected = read_counter(&counters->rejected),
		.n_tun_reads = read_counter(&counters->tun_reads),
		.n_tun_packets = read_counter(&counters->tun_packets),
		.n_tun_bytes = read_counter(&counters->tun_bytes),
		.n_udp_messages = read_counter(&counters->udp_messages),
		.n_udp_datagrams = read_counter(&counters->udp_datagrams),
		.n_udp_bytes = read_counter(&counters->udp_bytes),
		.n_udp_relayed = read_counter(&counters->udp_relayed),
	};
	for (int i = 0; i < WG_N_DROPS; i++)
		ret->drops[i] = wg_lane_drops(lane->core, (enum wg_drop)i);
}
