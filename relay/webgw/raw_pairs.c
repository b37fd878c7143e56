#include "relay/webgw/raw_pairs.h"

#include "common/clock.h"
#include "common/spawn.h"
#include "relay/frontdoor/splice_pump.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

#define EVENTS_A_TURN  64
#define MAX_PIPES      256
#define PIPE_BYTES     (256u << 10)
#define FLOW_BYTES     (256u << 10) /* of one way in one turn */
#define TURN_BYTES     (4u << 20)
#define MAX_KEPT_BYTES (16u << 20)
#define IDLE_MS	       UINT64_C(3600000) /* as the front door has them */
#define HALF_CLOSED_MS UINT64_C(120000)
#define N_HANDLES      3

struct raw_pair {
	struct splice_pair pair;
	struct link place; /* among all, or those who are gone */
	uint64_t gone_ms;
	struct raw_pairs_counter *counter;
};

struct raw_pairs {
	int epoll_fd;
	uv_poll_t poll;
	uv_timer_t timer; /* somebody is late */
	uv_idle_t more;	  /* there is something to do at once */
	struct splice_pump *pump;
	struct link all, gone;
	uint32_t n;
	uint8_t n_open;
	void (*closed)(void *owner);
	void *owner;
};

static uint64_t now_ms(void)
{
	return clock_now_ns() / 1000000;
}

static void on_pair_ended(void *owner, struct splice_pair *ended, enum splice_outcome outcome)
{
	struct raw_pair *pair = container_of(ended, struct raw_pair, pair);
	struct raw_pairs *pairs = owner;

	pairs->n--;
	pair->counter->now--;
	pair->counter->unanswered += outcome == SPLICE_RESET && ended->flows[1].n_bytes == 0;
	pair->gone_ms = now_ms();
	link_put_last(&pairs->gone, &pair->place);
}

/* Events may point to it as long as a child that is being started has a copy of its sockets: see door_may_free(). */
static void free_gone(struct raw_pairs *pairs, uint64_t at_ms)
{
	struct link *first;

	while ((first = link_first(&pairs->gone))) {
		struct raw_pair *pair = container_of(first, struct raw_pair, place);
		if (pair->gone_ms + SPAWN_REST_MS > at_ms && spawn_has_copies(at_ms))
			return;
		link_remove(first);
		free(pair);
	}
}

static void on_timer(uv_timer_t *timer);
static void on_more(uv_idle_t *more);

static void turn(struct raw_pairs *pairs)
{
	struct epoll_event events[EVENTS_A_TURN];
	const int n = epoll_wait(pairs->epoll_fd, events, EVENTS_A_TURN, 0);

	for (int i = 0; i < n; i++) {
		struct watch *watched = events[i].data.ptr;
		watched->happened(watched, events[i].events);
	}
	const uint64_t at_ms = now_ms();
	const bool has_more = splice_pump_turn(pairs->pump, at_ms);
	const uint64_t due_ms = splice_pump_expire(pairs->pump, at_ms);
	free_gone(pairs, at_ms);
	if (has_more)
		(void)uv_idle_start(&pairs->more, on_more);
	else
		(void)uv_idle_stop(&pairs->more);
	if (due_ms != UINT64_MAX)
		(void)uv_timer_start(&pairs->timer, on_timer, due_ms > at_ms ? due_ms - at_ms : 0, 0);
	else
		(void)uv_timer_stop(&pairs->timer);
}

static void on_timer(uv_timer_t *timer)
{
	turn(container_of(timer, struct raw_pairs, timer));
}

/* One turn for all that happened: what is told besides is in it. */
static void on_more(uv_idle_t *more)
{
	turn(container_of(more, struct raw_pairs, more));
}

static void on_events(uv_poll_t *poll, int status, int events)
{
	struct raw_pairs *pairs = container_of(poll, struct raw_pairs, poll);

	(void)status;
	(void)events;
	if (!uv_is_active((uv_handle_t *)&pairs->more)) /* else its turn comes, and takes them */
		turn(pairs);
}

static int watch(struct raw_pairs *pairs, struct splice_end *end, int fd)
{
	struct epoll_event event = { .events = SPLICE_EVENTS_OF_FULL, .data.ptr = &end->watch };

	end->fd = fd;
	end->is_watched_for_room = true;
	return epoll_ctl(pairs->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

int raw_pairs_begin(struct raw_pairs *pairs, int from_take, int to_take, uint8_t *head_take, size_t n_head,
		    struct raw_pairs_counter *counter)
{
	struct raw_pair *pair = calloc(1, sizeof(*pair));

	if (!pair)
		abort();
	if (head_take)
		splice_pair_set_head_take(&pair->pair, head_take, n_head);
	/* What each can do its first edge tells, which is there at once. */
	int r = watch(pairs, &pair->pair.ends[0], from_take);
	if (r == 0)
		r = watch(pairs, &pair->pair.ends[1], to_take);
	if (r < 0) {
		splice_pair_drop_head(&pair->pair);
		/* A child that is being started may have a copy of it: closing alone would leave it there. */
		(void)epoll_ctl(pairs->epoll_fd, EPOLL_CTL_DEL, from_take, NULL);
		splice_close_with_reset(from_take);
		splice_close_with_reset(to_take);
		free(pair);
		return r;
	}
	splice_pair_begin(pairs->pump, &pair->pair, now_ms());
	link_put_last(&pairs->all, &pair->place);
	pairs->n++;
	pair->counter = counter;
	counter->now++;
	(void)uv_idle_start(&pairs->more, on_more);
	return 0;
}

uint32_t raw_pairs_count(const struct raw_pairs *pairs)
{
	return pairs->n;
}

/* ---- beginning and end ---- */

int raw_pairs_new(uv_loop_t *loop, struct raw_pairs **ret)
{
	struct raw_pairs *pairs = calloc(1, sizeof(*pairs));

	if (!pairs)
		abort();
	pairs->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	int r = pairs->epoll_fd < 0 ? -errno : uv_poll_init(loop, &pairs->poll, pairs->epoll_fd);
	if (r < 0) {
		if (pairs->epoll_fd >= 0)
			close(pairs->epoll_fd);
		free(pairs);
		return r;
	}
	const struct splice_pump_options options = { .epoll_fd = pairs->epoll_fd, .max_pipes = MAX_PIPES, .pipe_size = PIPE_BYTES,
						     .budget = FLOW_BYTES, .turn_bytes = TURN_BYTES,
						     .max_kept_bytes = MAX_KEPT_BYTES, .idle_ms = IDLE_MS,
						     .half_closed_ms = HALF_CLOSED_MS, .owner = pairs, .ended = on_pair_ended };
	pairs->pump = splice_pump_new(&options);
	link_init_ring(&pairs->all);
	link_init_ring(&pairs->gone);
	(void)uv_timer_init(loop, &pairs->timer);
	(void)uv_idle_init(loop, &pairs->more);
	(void)uv_poll_start(&pairs->poll, UV_READABLE, on_events);
	pairs->n_open = N_HANDLES;
	*ret = pairs;
	return 0;
}

static void on_part_closed(struct raw_pairs *pairs)
{
	if (--pairs->n_open > 0)
		return;
	void (*closed)(void *owner) = pairs->closed;
	void *const owner = pairs->owner;

	close(pairs->epoll_fd);
	free(pairs);
	closed(owner);
}

static void on_poll_closed(uv_handle_t *handle)
{
	on_part_closed(container_of((uv_poll_t *)handle, struct raw_pairs, poll));
}

static void on_timer_closed(uv_handle_t *handle)
{
	on_part_closed(container_of((uv_timer_t *)handle, struct raw_pairs, timer));
}

static void on_more_closed(uv_handle_t *handle)
{
	on_part_closed(container_of((uv_idle_t *)handle, struct raw_pairs, more));
}

void raw_pairs_close(struct raw_pairs *pairs, void (*closed)(void *owner), void *owner)
{
	struct link *first;

	pairs->closed = closed;
	pairs->owner = owner;
	while ((first = link_first(&pairs->all))) {
		splice_pair_cut(pairs->pump, &container_of(first, struct raw_pair, place)->pair);
		link_put_last(&pairs->gone, first);
	}
	while ((first = link_first(&pairs->gone))) { /* nobody asks for events any more */
		link_remove(first);
		free(container_of(first, struct raw_pair, place));
	}
	pairs->n = 0;
	splice_pump_free(pairs->pump);
	uv_close((uv_handle_t *)&pairs->poll, on_poll_closed);
	uv_close((uv_handle_t *)&pairs->timer, on_timer_closed);
	uv_close((uv_handle_t *)&pairs->more, on_more_closed);
}
