/*
 * The device's thread: it sleeps until a lane has news, the loop a command, or a timer is due. It is
 * woken by one eventfd, at most once for all that happened since it last looked.
 */
#include "node/wireguard/lane.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/log.h"
#include "node/wireguard/lane_thread.h"
#include "node/wireguard/message_wire.h"

/* Events of one thread handled in one turn of the loop. */
#define LOOP_BURST 1024
/* News of one lane taken before the others are looked at. */
#define NEWS_BURST 256
/* Marks that lanes leave are collected so often; the timers' shortest time is 5 s. */
#define COLLECT_NS UINT64_C(100000000)
/* While something waits to be freed. */
#define RECLAIM_NS UINT64_C(10000000)

struct command {
	void (*fn)(const struct lane_context *context, void *arg);
	void (*done)(void *arg);
	void *arg;
};

struct lane {
	/* set before the threads start */
	struct lane_ports ports;
	int wake_fd;
	pthread_t thread;
	unsigned n_lanes, n_shards, n_tuns;
	struct lane_thread *lanes[LANE_MAX];
	enum lane_role roles[LANE_MAX];
	struct tun tuns[LANE_MAX_QUEUES];

	/* between the threads */
	struct ring commands, completions;
	struct lane_outbox outbox; /* of the device's thread */
	_Atomic bool is_stopping;
	_Atomic bool is_woken;
	uv_async_t async;

	/* of the loop thread */
	uint32_t n_outstanding;
	bool is_stopped, is_tun_gone_told;
	void (*stopped)(void *arg);
	void *stopped_arg;

	/* of the device's thread */
	struct wg_device *device;
	struct udp *udp;
	struct wg_time now;
	uint64_t collect_ns; /* when marks are collected next; UINT64_MAX: there are none */
	bool has_more_news, has_retired;
	bool is_reclaiming; /* what was retired up to `passed` can be freed when marked news were taken */
	uint64_t passed;
	bool loop_has_news;
};

/* ---- how many lanes ---- */

static unsigned lanes_for(unsigned wanted)
{
	cpu_set_t cpus;

	if (wanted == 0)
		wanted = sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? (unsigned)CPU_COUNT(&cpus) : 1;
	return wanted > LANE_MAX ? LANE_MAX : wanted;
}

uint32_t lane_n_shards(unsigned n_lanes)
{
	n_lanes = lanes_for(n_lanes);
	return n_lanes >= 4 ? n_lanes : 1;
}

/* So many that flows rarely share one; a multiple of the lanes that seal. */
unsigned lane_n_queues(unsigned n_lanes)
{
	const unsigned n_shards = lane_n_shards(n_lanes);

	return LANE_MAX_QUEUES / n_shards * n_shards;
}

/* ---- waking ---- */

/* Any thread. */
static void wake_device(void *owner)
{
	struct lane *lane = owner;
	const uint64_t one = 1;

	if (!atomic_exchange(&lane->is_woken, true))
		(void)!write(lane->wake_fd, &one, sizeof(one));
}

/* Any thread. */
static void wake_loop(void *owner)
{
	struct lane *lane = owner;

	uv_async_send(&lane->async);
}

/* ---- device's thread: ports of the device ---- */

/* Handshakes, keepalives, packets that waited. A full socket drops them: all are repeated. */
static void on_transmit(void *owner, struct wg_peer *peer, const struct wg_path *path,
			const struct train *train)
{
	struct lane *lane = owner;

	if (path->relay_id == 0 && lane->udp)
		(void)udp_send(lane->udp, 0, path, train, NULL);
	else if (path->relay_id != 0 && lane->ports.relay)
		lane_outbox_relay(&lane->outbox, path, train);
}

static void on_deliver(void *owner, struct wg_peer *peer, const struct train *train)
{
	abort(); /* data packets are opened by lanes */
}

static void on_peer_event(void *owner, struct wg_peer *peer, const struct wg_event *event)
{
	struct lane *lane = owner;
	struct lane_peer_event record = { .peer_id = wg_peer_id(peer), .type = event->type };

	if (!lane->ports.peer)
		return;
	if (event->path)
		record.path = *event->path;
	lane_outbox_peer(&lane->outbox, &record);
}

/* ---- device's thread: commands ---- */

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

static void use_udp(struct lane_thread *thread, void *arg)
{
	lane_thread_use_udp(thread, arg);
}

void lane_use_udp(const struct lane_context *context, struct udp *udp)
{
	struct lane *lane = context->lane;

	assert(!udp || udp->n_shards == lane->n_shards);
	lane->udp = udp;
	for (unsigned i = 0; i < lane->n_lanes; i++)
		lane_thread_call(lane->lanes[i], use_udp, udp);
}

static void set_mtu(struct lane_thread *thread, void *arg)
{
	lane_thread_set_mtu(thread, *(const uint32_t *)arg);
}

void lane_set_mtu(const struct lane_context *context, uint32_t mtu)
{
	wg_device_set_mtu(context->device, mtu);
	for (unsigned i = 0; i < context->lane->n_lanes; i++)
		lane_thread_call(context->lane->lanes[i], set_mtu, &mtu);
}

/* ---- device's thread: the rest ---- */

static void serve_news(struct lane *lane)
{
	lane->has_more_news = false;
	for (unsigned i = 0; i < lane->n_lanes; i++)
		if (!lane_thread_take_news(lane->lanes[i], lane->now, NEWS_BURST))
			lane->has_more_news = true;
}

static void collect(struct lane *lane)
{
	if (lane->collect_ns <= lane->now.ns) {
		wg_device_collect(lane->device, lane->now);
		lane->collect_ns = UINT64_MAX;
	}
	if (lane->collect_ns == UINT64_MAX && wg_device_has_notes(lane->device))
		lane->collect_ns = lane->now.ns + COLLECT_NS;
}

/* News that are in a ring now may name what lanes have let go of. */
static void begin_reclaim(struct lane *lane)
{
	if (lane->is_reclaiming)
		return;
	lane->is_reclaiming = true;
	lane->passed = wg_readers_passed(wg_device_readers(lane->device));
	for (unsigned i = 0; i < lane->n_lanes; i++)
		lane_thread_mark_news(lane->lanes[i]);
}

/* Later ones cannot: were the rings awaited empty, a flood would keep old keys and fill the memory. */
static void end_reclaim(struct lane *lane)
{
	lane->has_retired = true;
	for (unsigned i = 0; i < lane->n_lanes; i++)
		if (!lane_thread_marked_were_taken(lane->lanes[i]))
			return;
	lane->is_reclaiming = false;
	lane->has_retired = wg_device_reclaim(lane->device, lane->passed, lane->now);
}

static uint64_t next_deadline(const struct lane *lane)
{
	uint64_t deadline = wg_device_next_deadline(lane->device);

	if (lane->collect_ns < deadline)
		deadline = lane->collect_ns;
	if (lane->has_retired && lane->now.ns + RECLAIM_NS < deadline)
		deadline = lane->now.ns + RECLAIM_NS;
	return deadline;
}

static void wait_for_work(struct lane *lane)
{
	struct pollfd wake = { .fd = lane->wake_fd, .events = POLLIN };
	const uint64_t deadline = next_deadline(lane);
	uint64_t n_wakes;
	int ms = -1;

	if (lane->has_more_news || deadline <= lane->now.ns)
		ms = 0;
	else if (deadline - lane->now.ns < UINT64_C(60000000000))
		ms = (int)((deadline - lane->now.ns + 999999) / 1000000);
	else if (deadline != UINT64_MAX)
		ms = 60000;
	if (poll(&wake, 1, ms) > 0)
		(void)!read(lane->wake_fd, &n_wakes, sizeof(n_wakes));
	/* Whoever comes from now on wakes us again; what came before is seen below. */
	(void)atomic_exchange(&lane->is_woken, false);
	lane->now = lane_time_now();
}

static void tell_loop(struct lane *lane)
{
	if (lane->loop_has_news || lane->outbox.has_news)
		wake_loop(lane);
	lane->loop_has_news = lane->outbox.has_news = false;
}

static void *device_main(void *arg)
{
	struct lane *lane = arg;

	while (!atomic_load(&lane->is_stopping)) {
		wait_for_work(lane);
		begin_reclaim(lane);
		serve_commands(lane);
		serve_news(lane);
		collect(lane);
		wg_device_tick(lane->device, lane->now);
		end_reclaim(lane);
		tell_loop(lane);
	}
	serve_commands(lane);
	return NULL;
}

/* ---- loop thread: from the others ---- */

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

/*
 * False when there is more. What a lane posted may follow what the device posted before (packets that
 * waited for a session, to a relay), so the device's goes first, and of the lanes' only what was there
 * before we looked at the device's. Who posts later wakes us again.
 */
static bool dispatch_events(struct lane *lane)
{
	uint64_t marks[LANE_MAX];
	bool is_all = true;

	for (unsigned i = 0; i < lane->n_lanes; i++)
		marks[i] = lane_outbox_mark(lane_thread_outbox(lane->lanes[i]));
	if (!lane_outbox_dispatch(&lane->outbox, &lane->ports, UINT64_MAX, LOOP_BURST, &lane->is_stopped))
		return false;
	for (unsigned i = 0; i < lane->n_lanes; i++)
		is_all &= lane_outbox_dispatch(lane_thread_outbox(lane->lanes[i]), &lane->ports, marks[i],
					       LOOP_BURST, &lane->is_stopped);
	return is_all;
}

static void tell_tun_gone(struct lane *lane)
{
	bool is_gone = false;

	for (unsigned i = 0; i < lane->n_lanes; i++)
		is_gone |= lane_thread_take_tun_gone(lane->lanes[i]);
	if (!is_gone || lane->is_tun_gone_told || lane->is_stopped)
		return;
	lane->is_tun_gone_told = true;
	if (lane->ports.tun_gone)
		lane->ports.tun_gone(lane->ports.owner);
}

static void on_async(uv_async_t *async)
{
	struct lane *lane = container_of(async, struct lane, async);

	dispatch_completions(lane);
	tell_tun_gone(lane);
	if (!dispatch_events(lane) && !lane->is_stopped)
		uv_async_send(&lane->async); /* the rest in the next turn */
}

/* ---- loop thread: life ---- */

static void free_lane(struct lane *lane)
{
	for (unsigned i = 0; i < lane->n_lanes; i++)
		lane_thread_free(lane->lanes[i]);
	wg_device_free(lane->device);
	for (unsigned i = 0; i < lane->n_tuns; i++)
		tun_close(&lane->tuns[i]);
	if (lane->wake_fd >= 0)
		close(lane->wake_fd);
	ring_deinit(&lane->commands);
	ring_deinit(&lane->completions);
	lane_outbox_deinit(&lane->outbox);
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

static struct lane *new_lane(const struct lane_config *config)
{
	struct lane *lane = aligned_alloc(_Alignof(struct lane), sizeof(*lane));

	if (!lane)
		abort();
	memset(lane, 0, sizeof(*lane));
	lane->ports = config->ports;
	lane->udp = config->udp;
	lane->collect_ns = UINT64_MAX;
	lane->n_shards = lane_n_shards(config->n_lanes);
	lane->n_tuns = config->n_tuns;
	for (unsigned i = 0; i < config->n_tuns; i++)
		lane->tuns[i] = config->tuns_take[i];
	ring_init(&lane->commands, LANE_MAX_COMMANDS * 64);
	ring_init(&lane->completions, LANE_MAX_COMMANDS * 64);
	lane_outbox_init(&lane->outbox);
	lane->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return lane;
}

static void log_cipher(const struct wg_aead *aead)
{
	if (aead->failed)
		log_warning("wireguard", "%s gives wrong results on this machine and is not used",
			    aead->failed);
	log_info("wireguard", "packets are sealed with %s", wg_aead_name(aead));
}

static int new_device(struct lane *lane, uint32_t mtu)
{
	const struct wg_config config = {
		.ports = {
			.owner = lane,
			.transmit = on_transmit,
			.deliver = on_deliver,
			.event = on_peer_event,
		},
		.mtu = mtu,
		.staged_size = mtu > WG_STAGED_SIZE ? mtu : 0, /* large packets may wait, too */
		.n_shards = lane->n_shards,
	};

	int r = wg_device_new(&config, &lane->device);
	if (r == 0)
		log_cipher(wg_device_aead(lane->device));
	return r;
}

static int add_lane(struct lane *lane, const struct lane_config *config, enum lane_role role, uint32_t shard)
{
	struct tun tuns[LANE_MAX_QUEUES];
	unsigned n_tuns = 0;

	for (unsigned i = shard; i < lane->n_tuns; i += lane->n_shards)
		tuns[n_tuns++] = lane->tuns[i];
	if (n_tuns == 0 && lane->n_tuns > 0)
		tuns[n_tuns++] = lane->tuns[0]; /* to write to */
	const struct lane_thread_config thread = {
		.owner = lane,
		.device = lane->device,
		.role = role,
		.shard = shard,
		.mtu = config->mtu ? config->mtu : WG_DEFAULT_MTU,
		.tuns = tuns,
		.n_tuns = n_tuns,
		.udp = config->udp,
		.is_plain = config->is_plain,
		.wants_datagrams = config->ports.datagram,
		.wants_relay = config->ports.relay,
		.wake_device = wake_device,
		.wake_loop = wake_loop,
	};
	int r = lane_thread_new(&thread, &lane->lanes[lane->n_lanes]);

	if (r == 0)
		lane->roles[lane->n_lanes++] = role;
	return r;
}

static int add_lanes(struct lane *lane, const struct lane_config *config)
{
	int r = 0;

	if (lane->n_shards == 1 && lanes_for(config->n_lanes) > 1) {
		r = add_lane(lane, config, LANE_OPENS, 0);
		return r == 0 ? add_lane(lane, config, LANE_SEALS, 0) : r;
	}
	for (uint32_t i = 0; r == 0 && i < lane->n_shards; i++)
		r = add_lane(lane, config, i == 0 || i < lane->n_tuns ? LANE_DOES_BOTH : LANE_OPENS, i);
	return r;
}

static void start_threads(struct lane *lane)
{
	sigset_t all, before;

	/* Signals are the loop's. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	if (pthread_create(&lane->thread, NULL, device_main, lane) != 0)
		abort(); /* no memory for a thread's stack */
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	for (unsigned i = 0; i < lane->n_lanes; i++)
		lane_thread_start(lane->lanes[i]);
}

int lane_start(const struct lane_config *config, struct lane **ret, struct error *reterr)
{
	assert(config->n_tuns <= lane_n_queues(config->n_lanes));
	assert(!config->udp || config->udp->n_shards == lane_n_shards(config->n_lanes));
	struct lane *lane = new_lane(config);
	int r = lane->wake_fd < 0 ? -EMFILE : new_device(lane, config->mtu);
	if (r == 0)
		r = add_lanes(lane, config);
	if (r == 0)
		r = uv_async_init(config->loop, &lane->async, on_async);
	if (r != 0) {
		lane->n_tuns = 0; /* they stay the caller's */
		free_lane(lane);
		return error_set(reterr, r, "cannot start the data plane: %s", strerror(-r));
	}
	lane->now = lane_time_now();
	start_threads(lane);
	*ret = lane;
	return 0;
}

void lane_stop(struct lane *lane, void (*stopped)(void *arg), void *arg)
{
	assert(!lane->is_stopped);
	lane->is_stopped = true;
	lane->stopped = stopped;
	lane->stopped_arg = arg;
	/* The device's thread first: its last commands may call the lanes. */
	atomic_store(&lane->is_stopping, true);
	wake_device(lane);
	pthread_join(lane->thread, NULL);
	for (unsigned i = 0; i < lane->n_lanes; i++)
		lane_thread_stop(lane->lanes[i]);
	dispatch_completions(lane);
	uv_close((uv_handle_t *)&lane->async, on_async_closed);
}

/* ---- loop thread: public ---- */

int lane_run(struct lane *lane, void (*fn)(const struct lane_context *context, void *arg), void *arg,
	     void (*done)(void *arg))
{
	struct command *command;

	if (lane->is_stopped || lane->n_outstanding == LANE_MAX_COMMANDS)
		return -EAGAIN;
	command = ring_reserve(&lane->commands, sizeof(*command));
	assert(command);
	*command = (struct command){ .fn = fn, .done = done, .arg = arg };
	ring_commit(&lane->commands);
	lane->n_outstanding++;
	wake_device(lane);
	return 0;
}

/* The lane that opens what this datagram belongs to. */
static struct lane_thread *lane_of(struct lane *lane, const uint8_t *datagram, uint32_t size)
{
	struct wg_data_header header;

	if (lane->n_shards == 1)
		return lane->lanes[0];
	if (wg_data_header_decode(datagram, size, &header) != 0)
		return lane->lanes[0];
	return lane->lanes[header.receiver % lane->n_shards];
}

int lane_put_relayed(struct lane *lane, const struct wg_path *from, const struct train *datagrams)
{
	int r = 0;

	if (lane->is_stopped)
		return -EAGAIN;
	if (lane->n_shards == 1)
		return lane_thread_put_relayed(lane->lanes[0], from, datagrams);
	for (uint32_t i = 0; r == 0 && i < datagrams->n; i++) {
		const struct train one = train_slice(datagrams, i, 1);
		r = lane_thread_put_relayed(lane_of(lane, one.base, one.size), from, &one);
	}
	return r;
}

bool lane_get_lane(struct lane *lane, unsigned i, struct lane_counters *ret, const char **ret_role)
{
	if (i >= lane->n_lanes)
		return false;
	lane_thread_get_counters(lane->lanes[i], ret);
	*ret_role = lane->roles[i] == LANE_OPENS ? "opens" : lane->roles[i] == LANE_SEALS ? "seals" : "both";
	return true;
}

void lane_get_counters(struct lane *lane, struct lane_counters *ret)
{
	const size_t n = sizeof(*ret) / sizeof(uint64_t);
	struct lane_counters one;

	*ret = (struct lane_counters){ .n_events_dropped = lane_outbox_n_dropped(&lane->outbox) };
	for (unsigned i = 0; i < lane->n_lanes; i++) {
		lane_thread_get_counters(lane->lanes[i], &one);
		/* All of them are counts. */
		for (size_t k = 0; k < n; k++)
			((uint64_t *)ret)[k] += ((const uint64_t *)&one)[k];
	}
}
