/*
 * The device's thread: it sleeps until a lane has news, the loop a command, or a timer is due. It is
 * woken by one eventfd, at most once for all that happened since it last looked.
 */
#include "node/wireguard/lanes.h"

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
#include "node/wireguard/lane.h"
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
	void (*fn)(const struct lanes_context *context, void *arg);
	void (*done)(void *arg);
	void *arg;
};

struct lanes {
	/* set before the threads start */
	struct lanes_ports ports;
	int wake_fd;
	pthread_t thread;
	unsigned n_lanes, n_shards, n_tuns;
	struct lane *each[LANES_MAX];
	enum lane_role roles[LANES_MAX];
	struct tun tuns[LANES_MAX_QUEUES];

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

/* As many as we may use. Asked once: sockets, queues and lanes must agree, and it can be changed meanwhile. */
static unsigned n_cores(void)
{
	static unsigned n;
	cpu_set_t cpus;

	if (n == 0)
		n = sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? (unsigned)CPU_COUNT(&cpus) : 1;
	return n;
}

static unsigned lanes_for(unsigned wanted)
{
	const unsigned n = wanted ? wanted : n_cores();

	return n > LANES_MAX ? LANES_MAX : n;
}

uint32_t lanes_n_shards(unsigned n_lanes)
{
	n_lanes = lanes_for(n_lanes);
	return n_lanes >= 4 ? n_lanes : 1;
}

/* So many that flows rarely share one; a multiple of the lanes that seal. */
unsigned lanes_n_queues(unsigned n_lanes)
{
	const unsigned n_shards = lanes_n_shards(n_lanes);

	return LANES_MAX_QUEUES / n_shards * n_shards;
}

/* ---- waking ---- */

/* Any thread. */
static void wake_device(void *owner)
{
	struct lanes *lanes = owner;
	const uint64_t one = 1;

	if (!atomic_exchange(&lanes->is_woken, true))
		(void)!write(lanes->wake_fd, &one, sizeof(one));
}

/* Any thread. */
static void wake_loop(void *owner)
{
	struct lanes *lanes = owner;

	uv_async_send(&lanes->async);
}

/* A lane's thread; lanes with sockets of their own are numbered as their shards. */
static bool pass_on(void *owner, uint32_t shard, const struct wg_path *from, const struct train *datagrams)
{
	struct lanes *lanes = owner;

	/* What a full ring drops is counted there. */
	return shard < lanes->n_lanes && lane_pass_on(lanes->each[shard], from, datagrams) != LANE_E_BUSY;
}

/* ---- device's thread: ports of the device ---- */

/* Handshakes, keepalives, packets that waited. A full socket drops them: all are repeated. */
static void on_transmit(void *owner, struct wg_peer *peer, const struct wg_path *path,
			const struct train *train)
{
	struct lanes *lanes = owner;

	if (!wg_path_is_the_loops(path) && lanes->udp)
		(void)udp_send(lanes->udp, 0, path, train, NULL);
	else if (wg_path_is_the_loops(path) && lanes->ports.relay)
		lane_outbox_relay(&lanes->outbox, path, train);
}

static void on_fit_source(void *owner, struct wg_path *path)
{
	const struct lanes *lanes = owner;

	if (lanes->udp)
		udp_fit_source(lanes->udp, path);
}

static void on_deliver(void *owner, struct wg_peer *peer, const struct train *train)
{
	abort(); /* data packets are opened by lanes */
}

static void on_peer_event(void *owner, struct wg_peer *peer, const struct wg_event *event)
{
	struct lanes *lanes = owner;
	struct lanes_peer_event record = { .peer_id = wg_peer_id(peer), .type = event->type };

	if (!lanes->ports.peer)
		return;
	if (event->path)
		record.path = *event->path;
	lane_outbox_peer(&lanes->outbox, &record);
}

/* ---- device's thread: commands ---- */

static void complete(struct lanes *lanes, const struct command *command)
{
	struct command *record = ring_reserve(&lanes->completions, sizeof(*record));

	assert(record); /* as many as may be outstanding fit */
	*record = *command;
	ring_commit(&lanes->completions);
	lanes->loop_has_news = true;
}

static void serve_commands(struct lanes *lanes)
{
	struct lanes_context context = { .lanes = lanes, .device = lanes->device, .now = lanes->now };
	const struct command *next;
	size_t len;

	while ((next = ring_peek(&lanes->commands, &len))) {
		struct command command = *next;
		ring_release(&lanes->commands);
		command.fn(&context, command.arg);
		complete(lanes, &command);
	}
}

static void use_udp(struct lane *thread, void *arg)
{
	lane_use_udp(thread, arg);
}

void lanes_use_udp(const struct lanes_context *context, struct udp *udp)
{
	struct lanes *lanes = context->lanes;

	assert(!udp || udp->n_shards == lanes->n_shards);
	lanes->udp = udp;
	for (unsigned i = 0; i < lanes->n_lanes; i++)
		lane_call(lanes->each[i], use_udp, udp);
}

static void set_mtu(struct lane *thread, void *arg)
{
	lane_set_mtu(thread, *(const uint32_t *)arg);
}

void lanes_set_mtu(const struct lanes_context *context, uint32_t mtu)
{
	wg_device_set_mtu(context->device, mtu);
	for (unsigned i = 0; i < context->lanes->n_lanes; i++)
		lane_call(context->lanes->each[i], set_mtu, &mtu);
}

static void set_relays(struct lane *thread, void *arg)
{
	lane_set_relays(thread, arg);
}

void lanes_set_relays(const struct lanes_context *context, const struct udp_relays *relays)
{
	struct udp_relays copy = *relays;

	for (unsigned i = 0; i < context->lanes->n_lanes; i++)
		lane_call(context->lanes->each[i], set_relays, &copy);
}

/* ---- device's thread: the rest ---- */

static void serve_news(struct lanes *lanes)
{
	lanes->has_more_news = false;
	for (unsigned i = 0; i < lanes->n_lanes; i++)
		if (!lane_take_news(lanes->each[i], lanes->now, NEWS_BURST))
			lanes->has_more_news = true;
}

static void collect(struct lanes *lanes)
{
	if (lanes->collect_ns <= lanes->now.ns) {
		wg_device_collect(lanes->device, lanes->now);
		lanes->collect_ns = UINT64_MAX;
	}
	if (lanes->collect_ns == UINT64_MAX && wg_device_has_notes(lanes->device))
		lanes->collect_ns = lanes->now.ns + COLLECT_NS;
}

/* News that are in a ring now may name what lanes have let go of. */
static void begin_reclaim(struct lanes *lanes)
{
	if (lanes->is_reclaiming)
		return;
	lanes->is_reclaiming = true;
	lanes->passed = wg_readers_passed(wg_device_readers(lanes->device));
	for (unsigned i = 0; i < lanes->n_lanes; i++)
		lane_mark_news(lanes->each[i]);
}

/* Later ones cannot: were the rings awaited empty, a flood would keep old keys and fill the memory. */
static void end_reclaim(struct lanes *lanes)
{
	lanes->has_retired = true;
	for (unsigned i = 0; i < lanes->n_lanes; i++)
		if (!lane_marked_were_taken(lanes->each[i]))
			return;
	lanes->is_reclaiming = false;
	lanes->has_retired = wg_device_reclaim(lanes->device, lanes->passed, lanes->now);
}

static uint64_t next_deadline(const struct lanes *lanes)
{
	uint64_t deadline = wg_device_next_deadline(lanes->device);

	if (lanes->collect_ns < deadline)
		deadline = lanes->collect_ns;
	if (lanes->has_retired && lanes->now.ns + RECLAIM_NS < deadline)
		deadline = lanes->now.ns + RECLAIM_NS;
	return deadline;
}

static void wait_for_work(struct lanes *lanes)
{
	struct pollfd wake = { .fd = lanes->wake_fd, .events = POLLIN };
	const uint64_t deadline = next_deadline(lanes);
	uint64_t n_wakes;
	int ms = -1;

	if (lanes->has_more_news || deadline <= lanes->now.ns)
		ms = 0;
	else if (deadline - lanes->now.ns < UINT64_C(60000000000))
		ms = (int)((deadline - lanes->now.ns + 999999) / 1000000);
	else if (deadline != UINT64_MAX)
		ms = 60000;
	if (poll(&wake, 1, ms) > 0)
		(void)!read(lanes->wake_fd, &n_wakes, sizeof(n_wakes));
	/* Whoever comes from now on wakes us again; what came before is seen below. */
	(void)atomic_exchange(&lanes->is_woken, false);
	lanes->now = lane_time_now();
}

static void tell_loop(struct lanes *lanes)
{
	if (lanes->loop_has_news || lanes->outbox.has_news)
		wake_loop(lanes);
	lanes->loop_has_news = lanes->outbox.has_news = false;
}

static void *device_main(void *arg)
{
	struct lanes *lanes = arg;

	while (!atomic_load(&lanes->is_stopping)) {
		wait_for_work(lanes);
		begin_reclaim(lanes);
		serve_commands(lanes);
		serve_news(lanes);
		collect(lanes);
		wg_device_tick(lanes->device, lanes->now);
		end_reclaim(lanes);
		tell_loop(lanes);
	}
	serve_commands(lanes);
	return NULL;
}

/* ---- loop thread: from the others ---- */

static void dispatch_completions(struct lanes *lanes)
{
	const struct command *next;
	size_t len;

	while ((next = ring_peek(&lanes->completions, &len))) {
		struct command command = *next;
		ring_release(&lanes->completions);
		lanes->n_outstanding--;
		if (command.done)
			command.done(command.arg);
	}
}

/*
 * False when there is more. What a lane posted may follow what the device posted before (packets that
 * waited for a session, to a relay), so the device's goes first, and of the lanes' only what was there
 * before we looked at the device's. Who posts later wakes us again.
 */
static bool dispatch_events(struct lanes *lanes)
{
	uint64_t marks[LANES_MAX];
	bool is_all = true;

	for (unsigned i = 0; i < lanes->n_lanes; i++)
		marks[i] = lane_outbox_mark(lane_outbox(lanes->each[i]));
	if (!lane_outbox_dispatch(&lanes->outbox, &lanes->ports, UINT64_MAX, LOOP_BURST, &lanes->is_stopped))
		return false;
	for (unsigned i = 0; i < lanes->n_lanes; i++)
		is_all &= lane_outbox_dispatch(lane_outbox(lanes->each[i]), &lanes->ports, marks[i],
					       LOOP_BURST, &lanes->is_stopped);
	return is_all;
}

static void tell_tun_gone(struct lanes *lanes)
{
	bool is_gone = false;

	for (unsigned i = 0; i < lanes->n_lanes; i++)
		is_gone |= lane_take_tun_gone(lanes->each[i]);
	if (!is_gone || lanes->is_tun_gone_told || lanes->is_stopped)
		return;
	lanes->is_tun_gone_told = true;
	if (lanes->ports.tun_gone)
		lanes->ports.tun_gone(lanes->ports.owner);
}

static void on_async(uv_async_t *async)
{
	struct lanes *lanes = container_of(async, struct lanes, async);

	dispatch_completions(lanes);
	tell_tun_gone(lanes);
	if (!dispatch_events(lanes) && !lanes->is_stopped)
		uv_async_send(&lanes->async); /* the rest in the next turn */
}

/* ---- loop thread: life ---- */

static void free_lanes(struct lanes *lanes)
{
	for (unsigned i = 0; i < lanes->n_lanes; i++)
		lane_free(lanes->each[i]);
	wg_device_free(lanes->device);
	for (unsigned i = 0; i < lanes->n_tuns; i++)
		tun_close(&lanes->tuns[i]);
	if (lanes->wake_fd >= 0)
		close(lanes->wake_fd);
	ring_deinit(&lanes->commands);
	ring_deinit(&lanes->completions);
	lane_outbox_deinit(&lanes->outbox);
	free(lanes);
}

static void on_async_closed(uv_handle_t *handle)
{
	struct lanes *lanes = container_of((uv_async_t *)handle, struct lanes, async);
	void (*stopped)(void *arg) = lanes->stopped;
	void *arg = lanes->stopped_arg;

	free_lanes(lanes);
	stopped(arg);
}

static struct lanes *new_lanes(const struct lanes_config *config)
{
	struct lanes *lanes = aligned_alloc(_Alignof(struct lanes), sizeof(*lanes));

	if (!lanes)
		abort();
	memset(lanes, 0, sizeof(*lanes));
	lanes->ports = config->ports;
	lanes->udp = config->udp;
	lanes->collect_ns = UINT64_MAX;
	lanes->n_shards = lanes_n_shards(config->n_lanes);
	lanes->n_tuns = config->n_tuns;
	for (unsigned i = 0; i < config->n_tuns; i++)
		lanes->tuns[i] = config->tuns_take[i];
	ring_init(&lanes->commands, LANES_MAX_COMMANDS * 64);
	ring_init(&lanes->completions, LANES_MAX_COMMANDS * 64);
	lane_outbox_init(&lanes->outbox);
	lanes->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return lanes;
}

static void log_cipher(const struct wg_aead *aead)
{
	if (aead->failed)
		log_warning("wireguard", "%s gives wrong results on this machine and is not used",
			    aead->failed);
	log_info("wireguard", "packets are sealed with %s", wg_aead_name(aead));
}

static int new_device(struct lanes *lanes, uint32_t mtu)
{
	const struct wg_config config = {
		.ports = {
			.owner = lanes,
			.transmit = on_transmit,
			.deliver = on_deliver,
			.event = on_peer_event,
			.fit_source = on_fit_source,
		},
		.mtu = mtu,
		.staged_size = mtu > WG_STAGED_SIZE ? mtu : 0, /* large packets may wait, too */
		.n_shards = lanes->n_shards,
	};

	int r = wg_device_new(&config, &lanes->device);
	if (r == 0)
		log_cipher(wg_device_aead(lanes->device));
	return r;
}

static int add_lane(struct lanes *lanes, const struct lanes_config *config, enum lane_role role, uint32_t shard)
{
	struct tun tuns[LANES_MAX_QUEUES];
	unsigned n_tuns = 0;

	for (unsigned i = shard; i < lanes->n_tuns; i += lanes->n_shards)
		tuns[n_tuns++] = lanes->tuns[i];
	if (n_tuns == 0 && lanes->n_tuns > 0)
		tuns[n_tuns++] = lanes->tuns[0]; /* to write to */
	const struct lane_config thread = {
		.owner = lanes,
		.device = lanes->device,
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
		.pass_on = lanes->n_shards > 1 ? pass_on : NULL,
	};
	int r = lane_new(&thread, &lanes->each[lanes->n_lanes]);

	if (r == 0)
		lanes->roles[lanes->n_lanes++] = role;
	return r;
}

static int add_lanes(struct lanes *lanes, const struct lanes_config *config)
{
	int r = 0;

	if (lanes->n_shards == 1 && lanes_for(config->n_lanes) > 1) {
		r = add_lane(lanes, config, LANE_OPENS, 0);
		return r == 0 ? add_lane(lanes, config, LANE_SEALS, 0) : r;
	}
	for (uint32_t i = 0; r == 0 && i < lanes->n_shards; i++)
		r = add_lane(lanes, config, i == 0 || i < lanes->n_tuns ? LANE_DOES_BOTH : LANE_OPENS, i);
	return r;
}

static void start_threads(struct lanes *lanes)
{
	sigset_t all, before;

	/* Signals are the loop's. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	if (pthread_create(&lanes->thread, NULL, device_main, lanes) != 0)
		abort(); /* no memory for a thread's stack */
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	for (unsigned i = 0; i < lanes->n_lanes; i++)
		lane_start(lanes->each[i]);
}

int lanes_start(const struct lanes_config *config, struct lanes **ret, struct error *reterr)
{
	assert(config->n_tuns <= lanes_n_queues(config->n_lanes));
	assert(!config->udp || config->udp->n_shards == lanes_n_shards(config->n_lanes));
	struct lanes *lanes = new_lanes(config);
	int r = lanes->wake_fd < 0 ? -EMFILE : new_device(lanes, config->mtu);
	if (r == 0)
		r = add_lanes(lanes, config);
	if (r == 0)
		r = uv_async_init(config->loop, &lanes->async, on_async);
	if (r != 0) {
		lanes->n_tuns = 0; /* they stay the caller's */
		free_lanes(lanes);
		return error_set(reterr, r, "cannot start the data plane: %s", strerror(-r));
	}
	lanes->now = lane_time_now();
	start_threads(lanes);
	*ret = lanes;
	return 0;
}

void lanes_stop(struct lanes *lanes, void (*stopped)(void *arg), void *arg)
{
	assert(!lanes->is_stopped);
	lanes->is_stopped = true;
	lanes->stopped = stopped;
	lanes->stopped_arg = arg;
	/* The device's thread first: its last commands may call the lanes. */
	atomic_store(&lanes->is_stopping, true);
	wake_device(lanes);
	pthread_join(lanes->thread, NULL);
	for (unsigned i = 0; i < lanes->n_lanes; i++)
		lane_stop(lanes->each[i]);
	dispatch_completions(lanes);
	uv_close((uv_handle_t *)&lanes->async, on_async_closed);
}

/* ---- loop thread: public ---- */

int lanes_run(struct lanes *lanes, void (*fn)(const struct lanes_context *context, void *arg), void *arg,
	     void (*done)(void *arg))
{
	struct command *command;

	if (lanes->is_stopped || lanes->n_outstanding == LANES_MAX_COMMANDS)
		return -EAGAIN;
	command = ring_reserve(&lanes->commands, sizeof(*command));
	assert(command);
	*command = (struct command){ .fn = fn, .done = done, .arg = arg };
	ring_commit(&lanes->commands);
	lanes->n_outstanding++;
	wake_device(lanes);
	return 0;
}

/* The lane that opens what this datagram belongs to. */
static struct lane *lane_of(struct lanes *lanes, const uint8_t *datagram, uint32_t size)
{
	struct wg_data_header header;

	if (lanes->n_shards == 1)
		return lanes->each[0];
	if (wg_data_header_decode(datagram, size, &header) != 0)
		return lanes->each[0];
	return lanes->each[header.receiver % lanes->n_shards];
}

int lanes_put_relayed(struct lanes *lanes, const struct wg_path *from, const struct train *datagrams)
{
	int r = 0;

	if (lanes->is_stopped)
		return -EAGAIN;
	if (lanes->n_shards == 1)
		return lane_put_relayed(lanes->each[0], from, datagrams);
	for (uint32_t i = 0; r == 0 && i < datagrams->n; i++) {
		const struct train one = train_slice(datagrams, i, 1);
		r = lane_put_relayed(lane_of(lanes, one.base, one.size), from, &one);
	}
	return r;
}

bool lanes_get_lane(struct lanes *lanes, unsigned i, struct lane_counters *ret, const char **ret_role)
{
	if (i >= lanes->n_lanes)
		return false;
	lane_get_counters(lanes->each[i], ret);
	*ret_role = lanes->roles[i] == LANE_OPENS ? "opens" : lanes->roles[i] == LANE_SEALS ? "seals" : "both";
	return true;
}

void lanes_get_counters(struct lanes *lanes, struct lane_counters *ret)
{
	const size_t n = sizeof(*ret) / sizeof(uint64_t);
	struct lane_counters one;

	*ret = (struct lane_counters){ .n_events_dropped = lane_outbox_n_dropped(&lanes->outbox) };
	for (unsigned i = 0; i < lanes->n_lanes; i++) {
		lane_get_counters(lanes->each[i], &one);
		/* All of them are counts. */
		for (size_t k = 0; k < n; k++)
			((uint64_t *)ret)[k] += ((const uint64_t *)&one)[k];
	}
}
