/* One turn after the other: what happened, what the pump has to do, who is late. */
#include "relay/frontdoor/door_thread_internal.h"

#include "common/clock.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define EVENTS_A_TURN	256
#define CROWD		2     /* visitors of one turn: not one who comes again and again */
#define CROWD_MS	2     /* so long it is one after such a turn */
#define NAP_NS		50000 /* and the kernel's slack: front_door.c has made it small */
#define MANY_EVENTS	32    /* these are worth a turn: it needs no nap to have more */
#define LOOK_NS		50000
#define MAX_LOOKS_LEFT_OUT 255
#define LINGER_MS	2000 /* for an answer to arrive */
#define PIPE_BYTES	(256u << 10)
#define FLOW_BYTES	(256u << 10) /* of one way in one turn */
#define TURN_BYTES	(4u << 20)   /* a millisecond or so: then those who come have their turn */
#define MAX_PIPES	1024
#define MAX_KEPT_BYTES	(16u << 20)

static uint64_t earlier(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* Ends who is late; returns when the next one is. */
static uint64_t expire_all(struct door_thread *door)
{
	struct front_door_counters *counters = &door->counters;
	uint64_t ignored = 0, next = splice_pump_expire(door->pump, door->now_ms);

	next = earlier(next, door_expire(door, &door->sniffing, door->options.sniff_ms, &counters->too_slow));
	next = earlier(next, door_expire(door, &door->silent, door->options.silent_ms, &ignored));
	next = earlier(next, door_expire_tries(door));
	next = earlier(next, door_expire(door, &door->connecting, door->options.connect_ms, &counters->connect_timed_out));
	next = earlier(next, door_expire(door, &door->lingering, LINGER_MS, &ignored));
	next = earlier(next, door_tally_gates(door));
	next = earlier(next, door_expire_dial_back(door));
	next = earlier(next, door_retry_ports(door));
	if (door->datagrams)
		next = earlier(next, door_datagrams_expire(door->datagrams, door->now_ms));
	next = earlier(next, door_retry_accept(door));
	return earlier(next, door_tend_warm(door)); /* last: the others may have something for it */
}

/* ---- the thread ---- */

static void read_clock(struct door_thread *door)
{
	door->now_ms = clock_now_ns() / 1000000;
}

static void on_word(struct watch *watch, uint32_t events)
{
	struct door_thread *door = container_of(watch, struct door_thread, wake_watch);
	uint64_t n;

	(void)events;
	door->has_word = read(door->wake_fd, &n, sizeof(n)) == sizeof(n);
}

static int time_to_wait(const struct door_thread *door)
{
	if (door->pump_has_more)
		return 0;
	if (door->due_ms == UINT64_MAX)
		return -1;
	const uint64_t wait_ms = door->due_ms > door->now_ms ? door->due_ms - door->now_ms : 0;
	return wait_ms < 3600000 ? (int)wait_ms + 1 : 3600000;
}

/*
 * To sleep and be woken costs more than a short visit's answer takes to come: so for a moment it is looked for, while
 * whoever else wants the processor has it. When that was in vain the next times are left out, more each time: who waits
 * for what is far away sleeps.
 */
static int look_for_events(struct door_thread *door, struct epoll_event *events)
{
	const uint64_t until_ns = clock_now_ns() + LOOK_NS;
	int n;

	if (!door->may_look || door->n_not_to_look > 0) {
		door->n_not_to_look -= door->n_not_to_look > 0;
		return 0;
	}
	while ((n = epoll_wait(door->epoll_fd, events, EVENTS_A_TURN, 0)) == 0 && clock_now_ns() < until_ns)
		sched_yield();
	if (n > 0)
		door->n_looks_in_vain = 0;
	else if (door->n_looks_in_vain < MAX_LOOKS_LEFT_OUT)
		door->n_looks_in_vain = 2 * door->n_looks_in_vain + 1;
	door->n_not_to_look = door->n_looks_in_vain;
	return n;
}

/*
 * In a crowd a turn for each thing that happens costs a fifth of all: who has a turn after a nap has many at once, and nobody in a
 * crowd has waited for less than that. Not while somebody comes alone, who waits for each of his answers.
 */
static bool may_nap(const struct door_thread *door)
{
	return door->now_ms <= door->crowd_until_ms && door->n_events < MANY_EVENTS;
}

static int wait_for_events(struct door_thread *door, struct epoll_event *events)
{
	const struct timespec nap = { .tv_nsec = NAP_NS };
	const int wait_ms = time_to_wait(door);
	int n = 0;

	if (wait_ms != 0 && may_nap(door))
		(void)nanosleep(&nap, NULL);
	else if (wait_ms != 0)
		n = look_for_events(door, events);

	return n != 0 ? n : epoll_wait(door->epoll_fd, events, EVENTS_A_TURN, wait_ms);
}

bool door_thread_turn(struct door_thread *door)
{
	struct epoll_event events[EVENTS_A_TURN];
	const int n = wait_for_events(door, events);
	const uint64_t n_before = door->counters.visitors;

	door->n_events = n > 0 ? (uint32_t)n : 0;
	door->has_word = false;
	door->n_turns++;
	read_clock(door);
	for (int i = 0; i < n; i++) {
		struct watch *watched = events[i].data.ptr;
		watched->happened(watched, events[i].events);
	}
	if (door->counters.visitors >= n_before + CROWD)
		door->crowd_until_ms = door->now_ms + CROWD_MS;
	door->pump_has_more = splice_pump_turn(door->pump, door->now_ms);
	door->due_ms = expire_all(door);
	door_free_gone(door);
	door_free_gone_callers(door);
	door_free_gone_warm(door);
	return door->has_word;
}

/* ---- beginning and end ---- */

static struct splice_pump *new_pump(struct door_thread *door)
{
	struct rlimit files = { .rlim_cur = 1024 };

	(void)getrlimit(RLIMIT_NOFILE, &files);
	const uint64_t some = files.rlim_cur / 16;
	const struct splice_pump_options options = {
		.epoll_fd = door->epoll_fd,
		.max_pipes = some < MAX_PIPES ? (uint32_t)some : MAX_PIPES,
		.pipe_size = PIPE_BYTES,
		.budget = FLOW_BYTES,
		.turn_bytes = TURN_BYTES,
		.max_kept_bytes = MAX_KEPT_BYTES,
		.idle_ms = door->options.idle_ms,
		.half_closed_ms = door->options.half_closed_ms,
		.owner = door,
		.ended = door_on_pair_ended,
	};
	return splice_pump_new(&options);
}

int door_thread_new(const struct front_door_options *options, const int *listeners, int wake_fd,
		    struct door_thread **ret)
{
	struct door_thread *door = calloc(1, sizeof(*door));

	if (!door)
		return -ENOMEM;
	door->options = *options;
	door->wake_fd = wake_fd;
	door->wake_watch.happened = on_word;
	door->spare_fd = door_open_spare();
	link_init_ring(&door->kept);
	link_init_ring(&door->all);
	link_init_ring(&door->sniffing);
	link_init_ring(&door->connecting);
	link_init_ring(&door->trying);
	link_init_ring(&door->answering);
	link_init_ring(&door->holding);
	link_init_ring(&door->silent);
	link_init_ring(&door->warm_gone);
	door_warm_init(&door->warm, options->max_warm, options->connect_ms);
	door->warm_due_ms = UINT64_MAX;
	link_init_ring(&door->lingering);
	link_init_ring(&door->gone);
	link_init_ring(&door->ports);
	crypto_shorthash_keygen(door->seed);
	door->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	door->pump = new_pump(door);
	read_clock(door);
	door->due_ms = UINT64_MAX;
	door->may_look = sysconf(_SC_NPROCESSORS_ONLN) > 1; /* else nothing comes meanwhile */
	int r = door->epoll_fd < 0 ? -errno : door_watch(door, door->wake_fd, &door->wake_watch, EPOLLIN);
	if (r == 0)
		r = door_open_listeners(door, listeners);
	if (r < 0) {
		door_thread_free(door);
		return r;
	}
	*ret = door;
	return 0;
}

int door_thread_also_watch(struct door_thread *door, int fd, struct watch *other)
{
	return door_watch(door, fd, other, EPOLLIN);
}

int door_thread_use_datagrams(struct door_thread *door, struct door_datagrams *datagrams)
{
	door->datagrams = datagrams;
	return door_thread_also_watch(door, door_datagrams_fd(datagrams), door_datagrams_watch(datagrams));
}

void door_thread_free(struct door_thread *door)
{
	if (!door)
		return;
	door->is_over = true;
	door_end_all(door);
	door_close_warm(door);
	door_free_gone_warm(door);
	door_warm_deinit(&door->warm);
	door_close_dial_back(door);
	door_close_ports(door);
	splice_pump_free(door->pump);
	if (door->epoll_fd >= 0)
		close(door->epoll_fd);
	if (door->spare_fd >= 0)
		close(door->spare_fd);
	free(door);
}

void door_thread_share_relay(struct door_thread *door, struct hand_over *for_relay, struct hand_over *dial_backs, void (*wake)(void *owner),
			     void *owner)
{
	const uint32_t some = 16 + door->options.max_visitors / 4; /* where there are few descriptors */

	door->relay_places = some < RELAY_PLACES ? some : RELAY_PLACES;
	door->for_relay = for_relay;
	door->dial_backs = dial_backs;
	door->wake_for_relay = wake;
	door->relay_owner = owner;
}

void door_thread_set_routes(struct door_thread *door, const struct door_routes *routes)
{
	door->routes = routes;
	door->counters.routes_taken++;
	door_cut_shut(door);
	door_cut_silent(door);
	door_check_warm(door);
	if (door->datagrams)
		door_datagrams_set_routes(door->datagrams, routes);
	door_update_ports(door);
}

struct front_door_counters door_thread_counters(const struct door_thread *door)
{
	const struct splice_pump_counters pump = splice_pump_counters(door->pump);
	struct front_door_counters counters = door->counters;

	counters.sniffing_now = door->n_in[SNIFFING] - door->n_silent;
	counters.visitors_now -= door->n_silent;
	counters.warm_now = door->options.takes_header ? door->n_silent : door->warm.n;
	counters.connecting_now = door->n_in[CONNECTING] + door->n_in[ANSWERING];
	counters.waiting_now = door->n_in[WAITING];
	counters.hello_bytes_now = door->kept_bytes;
	counters.bytes_in += pump.bytes[0];
	counters.bytes_out = pump.bytes[1];
	counters.bytes_copied = pump.bytes_copied;
	counters.pipes_now = pump.pipes_in_use;
	return counters;
}
