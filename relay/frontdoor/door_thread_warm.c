/*
 * Connections to members before there is a visitor for them. How many, and how long, says door_warm.h; what becomes of a visitor
 * whose connection turns out to be dead, door_thread_places.c.
 *
 *   visitor ──► led by a warm one, or not ──► door_fill_warm(): socket, connect ──► epoll ──► READY ──► the next visitor's
 *                                                                                     └─► ended, or says something: closed
 *
 * A member hears nothing on them, and says nothing: between its handshake and its end such a connection sends no segment.
 */
#include "relay/frontdoor/door_thread_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

struct warm_one {
	struct door_warm_one of;
	struct watch watch;
	struct door_thread *door;
	int fd;		  /* -1: it is a visitor's, or closed */
	struct link gone;
};

static struct warm_one *whole(struct door_warm_one *one)
{
	return container_of(one, struct warm_one, of);
}

/* It is in no pool any more. */
static void let_go(struct warm_one *one)
{
	if (one->fd >= 0) {
		/* Where a child that is being started has it open too, closing does not take it out. */
		(void)epoll_ctl(one->door->epoll_fd, EPOLL_CTL_DEL, one->fd, NULL);
		splice_close_with_reset(one->fd); /* nothing was said: one segment, and nothing is left of it here */
	}
	one->fd = -1;
	link_put_last(&one->door->warm_gone, &one->gone);
}

static void close_one(struct door_thread *door, struct door_warm_one *one)
{
	door_warm_remove(&door->warm, one);
	let_go(whole(one));
}

static void fail_one(struct door_thread *door, struct door_warm_one *one)
{
	door->counters.warm_ended++;
	door_warm_failed(&door->warm, one, door->now_ms);
	let_go(whole(one));
}

static void note_due(struct door_thread *door, const struct door_warm_pool *pool)
{
	const uint64_t due = door_warm_due(&door->warm, pool, door->now_ms);

	if (due < door->warm_due_ms)
		door->warm_due_ms = due;
}

/* ---- making ---- */

static void on_warm(struct watch *watch, uint32_t events)
{
	struct warm_one *one = container_of(watch, struct warm_one, watch);

	if (!one->of.pool)
		return; /* that is over */
	struct door_warm_pool *pool = one->of.pool;
	if (events & (EPOLLERR | EPOLLHUP | EPOLLRDHUP | EPOLLIN))
		fail_one(one->door, &one->of); /* it has nothing to say before it hears of a visitor */
	else if ((events & EPOLLOUT) && !one->of.is_ready)
		door_warm_is_ready(&one->of, one->door->now_ms);
	note_due(one->door, pool);
}

/* A socket on its way, or -errno. */
static int begin(const struct endpoint *target)
{
	struct sockaddr_storage address;
	const socklen_t len = endpoint_to_sockaddr(target, &address);
	const int fd = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)&address, len) < 0 && errno != EINPROGRESS) {
		const int r = -errno;
		close(fd);
		return r;
	}
	return fd;
}

static void make_one(struct door_thread *door, struct door_warm_pool *pool)
{
	struct warm_one *one = calloc(1, sizeof(*one));

	if (!one)
		abort();
	one->door = door;
	one->watch.happened = on_warm;
	one->fd = begin(&pool->target);
	door_warm_add(&door->warm, pool, &one->of, door->now_ms);
	if (one->fd < 0 || door_watch(door, one->fd, &one->watch, SPLICE_EVENTS_OF_FULL) < 0)
		fail_one(door, &one->of);
}

static void fill(struct door_thread *door, struct door_warm_pool *pool)
{
	struct door_warm_one *other;

	while (door_warm_wants(pool, door->now_ms) && door_warm_has_room(&door->warm, pool, door->now_ms, &other)) {
		if (other)
			close_one(door, other);
		make_one(door, pool);
	}
	note_due(door, pool);
}

void door_fill_warm(struct door_thread *door, const struct endpoint *target)
{
	struct door_warm_pool *pool = door_warm_visit(&door->warm, target, door->now_ms);

	if (pool)
		fill(door, pool);
}

/* ---- for a visitor ---- */

bool door_has_warm(const struct door_thread *door, const struct endpoint *target)
{
	const struct door_warm_pool *pool = door_warm_find(&door->warm, target);

	return pool && link_first(&pool->ready);
}

bool visitor_claim_warm(struct visitor *visitor, const struct endpoint *target)
{
	struct door_thread *door = visitor->door;
	struct splice_end *end = &visitor->pair.ends[1];
	struct epoll_event event = { .events = SPLICE_EVENTS, .data.ptr = &end->watch };
	struct door_warm_one *claimed = door_warm_claim(&door->warm, door_warm_find(&door->warm, target), door->now_ms);

	if (!claimed)
		return false;
	struct warm_one *one = whole(claimed);
	if (epoll_ctl(door->epoll_fd, EPOLL_CTL_MOD, one->fd, &event) < 0) {
		let_go(one);
		return false;
	}
	end->watch.happened = visitor_on_target;
	end->fd = one->fd;
	visitor->warm = WARM_UNTOLD;
	one->fd = -1;
	let_go(one);
	return true;
}

void door_warm_has_worked(struct door_thread *door, const struct endpoint *target)
{
	struct door_warm_pool *pool = door_warm_find(&door->warm, target);

	if (pool)
		door_warm_worked(pool);
}

static void close_all(struct door_thread *door, struct door_warm_pool *pool)
{
	struct door_warm_one *one;

	while ((one = door_warm_any(pool)))
		close_one(door, one);
}

void door_warm_was_dead(struct door_thread *door, const struct endpoint *target)
{
	struct door_warm_pool *pool = door_warm_find(&door->warm, target);

	if (!pool)
		return;
	door_warm_distrust(pool, door->now_ms);
	close_all(door, pool);
	note_due(door, pool);
}

/* ---- routes, time, and the end ---- */

static void mark(struct door_thread *door)
{
	const struct door_route *route;
	uint32_t at = 0;

	while (door->routes && (route = door_routes_next(door->routes, &at)))
		for (uint32_t i = 0; i < route->n_places; i++) {
			struct door_warm_pool *pool = door_warm_find(&door->warm, &route->places[i]->target);
			if (pool)
				pool->is_marked = true;
		}
}

void door_check_warm(struct door_thread *door)
{
	struct link *at = door->warm.pools.after, *next;

	if (door->warm.n_pools == 0)
		return;
	mark(door);
	for (; at != &door->warm.pools; at = next) {
		struct door_warm_pool *pool = container_of(at, struct door_warm_pool, among_all);
		next = at->after;
		if (!pool->is_marked) {
			close_all(door, pool);
			door_warm_forget(&door->warm, pool);
			continue;
		}
		pool->is_marked = false;
	}
}

static void tend(struct door_thread *door, struct door_warm_pool *pool)
{
	struct door_warm_one *one;

	while ((one = door_warm_late(&door->warm, pool, door->now_ms)))
		fail_one(door, one);
	while ((one = door_warm_over(pool, door->now_ms)))
		close_one(door, one);
	if (door_warm_is_done(pool, door->now_ms))
		door_warm_forget(&door->warm, pool);
	else
		fill(door, pool);
}

uint64_t door_tend_warm(struct door_thread *door)
{
	struct link *at = door->warm.pools.after, *next;

	if (door->warm_due_ms > door->now_ms)
		return door->warm_due_ms;
	door->warm_due_ms = UINT64_MAX;
	for (; at != &door->warm.pools; at = next) {
		next = at->after;
		tend(door, container_of(at, struct door_warm_pool, among_all));
	}
	return door->warm_due_ms;
}

void door_close_warm(struct door_thread *door)
{
	if (door->warm.n == 0)
		return;
	for (struct link *at = door->warm.pools.after; at != &door->warm.pools; at = at->after) {
		struct door_warm_pool *pool = container_of(at, struct door_warm_pool, among_all);
		door_warm_distrust(pool, door->now_ms);
		close_all(door, pool);
		note_due(door, pool);
	}
}

void door_free_gone_warm(struct door_thread *door)
{
	struct link *first;

	while ((first = link_first(&door->warm_gone))) {
		link_remove(first);
		free(container_of(first, struct warm_one, gone));
	}
}
