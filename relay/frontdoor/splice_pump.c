/*
 * Edges only mark what a pair may do; the turn does it, so that one epoll_wait() with many edges and one busy pair
 * cost the same care. A pair ends in end_pair() and nowhere else.
 */
#include "relay/frontdoor/splice_pump.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define SCRATCH_BYTES	 65536
#define COPY_BYTES	 (17u << 10)  /* a record of TLS with all that is around it; more at a time goes through a pipe */
#define MAX_SPARE_PIPES	 64 /* kept open though nobody needs them */
#define LOOK_MS		 100 /* after who leaves: no edge tells that all is acknowledged */
#define LEAVE_MS	 10000 /* it acknowledges nothing */

/* Linux has it only in its own headers. */
#ifndef F_SETPIPE_SZ
#define F_SETPIPE_SZ 1031
#endif

struct splice_pipe {
	struct splice_pipe *next; /* spare */
	int in, out;		  /* where bytes go in, and come out */
};

struct splice_pump {
	struct splice_pump_options options;
	struct splice_pump_counters counters;
	struct splice_pipe *spare;
	uint32_t n_spare;
	struct link busy;
	struct link idle, half_closed; /* by when something moved last */
	struct link leaving;	       /* by when they were looked at last */
	uint64_t now_ms;
	uint64_t kept_bytes;
	uint32_t n_pairs;
	uint8_t scratch[SCRATCH_BYTES];
};

/* ---- pipes ---- */

static void close_pipe(struct splice_pump *pump, struct splice_pipe *pipe)
{
	close(pipe->in);
	close(pipe->out);
	free(pipe);
	pump->counters.pipes_open--;
}

static struct splice_pipe *open_pipe(struct splice_pump *pump)
{
	int fds[2];

	if (pump->counters.pipes_open >= pump->options.max_pipes || pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
		return NULL;
	struct splice_pipe *pipe = malloc(sizeof(*pipe));
	if (!pipe)
		abort();
	(void)fcntl(fds[1], F_SETPIPE_SZ, (int)pump->options.pipe_size); /* a smaller one does as well */
	*pipe = (struct splice_pipe){ .out = fds[0], .in = fds[1] };
	pump->counters.pipes_open++;
	return pipe;
}

/* An empty one; NULL: there is none. */
static struct splice_pipe *take_pipe(struct splice_pump *pump)
{
	struct splice_pipe *pipe = pump->spare;

	if (pipe) {
		pump->spare = pipe->next;
		pump->n_spare--;
	} else {
		pipe = open_pipe(pump);
	}
	if (pipe)
		pump->counters.pipes_in_use++;
	return pipe;
}

static void give_back(struct splice_pump *pump, struct splice_flow *flow)
{
	struct splice_pipe *pipe = flow->pipe;

	if (!pipe)
		return;
	flow->pipe = NULL;
	pump->counters.pipes_in_use--;
	if (flow->state.waiting > 0 || pump->n_spare >= MAX_SPARE_PIPES) {
		close_pipe(pump, pipe); /* what is in it is nobody's */
		return;
	}
	pipe->next = pump->spare;
	pump->spare = pipe;
	pump->n_spare++;
}

static void drop_waiting(struct splice_pump *pump, struct splice_flow *flow)
{
	give_back(pump, flow);
	free(flow->head);
	flow->head = NULL;
	pump->kept_bytes -= flow->head_size;
	flow->head_size = 0;
	flow->state.waiting = 0;
}

/* ---- one pair ---- */

void splice_close_with_reset(int fd)
{
	const struct linger linger = { .l_onoff = 1 };

	(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	close(fd);
}

/* Accepts one that is closed. */
static void close_end(struct splice_end *end, bool with_reset)
{
	if (end->fd < 0)
		return;
	if (with_reset)
		splice_close_with_reset(end->fd);
	else
		close(end->fd);
	end->fd = -1;
}

static void close_pair(struct splice_pump *pump, struct splice_pair *pair, enum splice_outcome outcome)
{
	for (int i = 0; i < 2; i++) {
		drop_waiting(pump, &pair->flows[i]);
		close_end(&pair->ends[i], outcome != SPLICE_DONE);
	}
	link_remove(&pair->busy);
	link_remove(&pair->quiet);
	pair->pump = NULL;
	pump->n_pairs--;
}

static void end_pair(struct splice_pump *pump, struct splice_pair *pair, enum splice_outcome outcome)
{
	close_pair(pump, pair, outcome);
	pump->counters.done += outcome == SPLICE_DONE;
	pump->counters.reset += outcome == SPLICE_RESET;
	pump->counters.timed_out += outcome == SPLICE_TIMED_OUT;
	pump->options.ended(pump->options.owner, pair, outcome); /* pair may be gone now */
}

static void note_moved(struct splice_pump *pump, struct splice_pair *pair)
{
	const bool is_half_closed = pair->flows[0].state.is_done || pair->flows[1].state.is_done;

	pair->moved_ms = pump->now_ms;
	pair->unacknowledged = 0;
	link_put_last(is_half_closed ? &pump->half_closed : &pump->idle, &pair->quiet);
}

/* ---- who leaves ---- */

static uint32_t count_unacknowledged(const struct splice_end *end)
{
	int n = 0; /* an end (FIN) counts for one */

	return end->fd < 0 || ioctl(end->fd, SIOCOUTQ, &n) < 0 ? 0 : (uint32_t)n;
}

/* What it says is for nobody; not read, it would make a reset of closing. */
static void hear_out(struct splice_pump *pump, struct splice_end *end)
{
	ssize_t n = 1;

	for (int i = 0; i < 4 && n > 0; i++)
		n = recv(end->fd, pump->scratch, SCRATCH_BYTES, MSG_DONTWAIT);
	end->has_ended = end->has_ended || n == 0;
	end->state.is_broken = end->state.is_broken || (n < 0 && errno != EAGAIN && errno != EINTR);
}

/*
 * Who was given its end may take its time to end itself: that it does not, when all was acknowledged, is no more patience
 * worth than that it acknowledges nothing.
 */
static void look_after_end(struct splice_pump *pump, struct splice_pair *pair, int i)
{
	struct splice_end *end = &pair->ends[i];

	if (end->fd < 0)
		return;
	hear_out(pump, end);
	const uint32_t n = count_unacknowledged(end);
	const bool was_given_end = pair->flows[1 - i].is_finished;
	if (n < end->unacknowledged)
		end->got_ms = pump->now_ms;
	end->unacknowledged = n;
	if (n == 0 && was_given_end && end->has_ended)
		close_end(end, false);
	else if ((n == 0 && !was_given_end) || end->state.is_broken || end->got_ms + LEAVE_MS <= pump->now_ms)
		close_end(end, true);
}

static void look_after(struct splice_pump *pump, struct splice_pair *pair)
{
	for (int i = 0; i < 2; i++)
		look_after_end(pump, pair, i);
	if (pair->ends[0].fd < 0 && pair->ends[1].fd < 0) {
		end_pair(pump, pair, SPLICE_RESET);
		return;
	}
	pair->moved_ms = pump->now_ms;
	link_put_last(&pump->leaving, &pair->quiet);
}

/* One end broke: the other has still to get what it was given. */
static void leave(struct splice_pump *pump, struct splice_pair *pair)
{
	pair->is_leaving = true;
	for (int i = 0; i < 2; i++) {
		struct splice_end *end = &pair->ends[i];
		drop_waiting(pump, &pair->flows[i]);
		if (end->state.is_broken)
			close_end(end, true);
		end->unacknowledged = count_unacknowledged(end);
		end->got_ms = pump->now_ms;
	}
	look_after(pump, pair);
}

/* ---- one flow ---- */

static void note_given(struct splice_pump *pump, struct splice_pair *pair, int way, size_t n)
{
	pair->flows[way].n_bytes += n;
	pump->counters.bytes[way] += n;
}

/* That it has room again is told. Most are never full: so it is not told of those. */
static void watch_for_room(struct splice_pump *pump, struct splice_end *end)
{
	struct epoll_event event = { .events = SPLICE_EVENTS_OF_FULL, .data.ptr = &end->watch };

	end->state.is_writable = false;
	if (end->is_watched_for_room)
		return;
	end->is_watched_for_room = true;
	if (epoll_ctl(pump->options.epoll_fd, EPOLL_CTL_MOD, end->fd, &event) < 0)
		pump_edge(&end->state, false, false, true);
}

/* A socket has taken n bytes, or has answered with an error. */
static void note_sent(struct splice_pump *pump, struct splice_pair *pair, int way, ssize_t n)
{
	struct splice_end *to = &pair->ends[1 - way];

	if (n > 0) {
		pair->flows[way].state.waiting -= (size_t)n;
		note_given(pump, pair, way, (size_t)n);
	} else if (n < 0 && errno == EAGAIN) {
		watch_for_room(pump, to);
	} else if (n == 0 || errno != EINTR) {
		pump_edge(&to->state, false, false, true);
	}
}

/* What is small does not wait for what was before it. Who is given only what it was given at first needs no call for it. */
static void make_prompt(struct splice_end *end)
{
	const int one = 1;

	if (!end->is_prompt)
		(void)setsockopt(end->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	end->is_prompt = true;
}

static void drain(struct splice_pump *pump, struct splice_pair *pair, int way)
{
	struct splice_flow *flow = &pair->flows[way];
	const int to = pair->ends[1 - way].fd;
	const size_t n = flow->state.waiting;

	make_prompt(&pair->ends[1 - way]);
	if (flow->head) {
		const ssize_t sent = send(to, flow->head + flow->head_at, n, MSG_NOSIGNAL | MSG_DONTWAIT);
		flow->head_at += sent > 0 ? (size_t)sent : 0;
		note_sent(pump, pair, way, sent);
	} else {
		note_sent(pump, pair, way, splice(flow->pipe->out, NULL, to, NULL, n, SPLICE_F_NONBLOCK | SPLICE_F_MOVE));
	}
	if (flow->state.waiting == 0)
		drop_waiting(pump, flow);
}

/* Also what of the other's end is not read yet counts. */
static bool goes_on(const struct splice_pair *pair, int i)
{
	return !pair->flows[i].state.has_ended && !pair->ends[i].has_hung_up && !pair->ends[i].state.is_broken;
}

static void note_end(struct splice_pair *pair, int way)
{
	const struct splice_flow *flow = &pair->flows[way];

	if (goes_on(pair, 1 - way) && flow->n_bytes == 0 && flow->state.waiting == 0)
		pair->left_silent = (uint8_t)(1 + way);
	pair->flows[way].state.has_ended = true;
	pair->flows[way].state.is_cut_off = pair->ends[way].state.is_broken;
}

/* A socket has given n bytes, or has answered with an error. */
static void note_received(struct splice_pair *pair, int way, ssize_t n)
{
	struct splice_end *from = &pair->ends[way];

	if (n > 0 || (n < 0 && errno == EINTR))
		return;
	if (n < 0 && errno == EAGAIN && !from->state.is_broken) {
		from->state.is_readable = false;
		return;
	}
	from->state.is_broken = from->state.is_broken || n < 0;
	note_end(pair, way);
}

/*
 * Less came than was asked for: so that was all, until an edge; and if its end had come before, that was the last. Not
 * so where urgent data is: reading stops in front of it.
 */
static void note_emptied(struct splice_pair *pair, int way)
{
	struct splice_end *from = &pair->ends[way];

	if (from->is_urgent)
		return;
	from->state.is_readable = false;
	if (from->has_hung_up || from->state.is_broken)
		note_end(pair, way);
}

/* Is more of that to come? */
static bool is_much(size_t n, size_t want)
{
	return n == want || n >= COPY_BYTES;
}

static void keep(struct splice_pump *pump, struct splice_flow *flow, const uint8_t *bytes)
{
	const size_t n = flow->state.waiting;

	flow->head = malloc(n);
	if (!flow->head)
		abort();
	memcpy(flow->head, bytes, n);
	flow->head_at = 0;
	flow->head_size = n;
	pump->kept_bytes += n;
}

/*
 * A little: two calls instead of three, and no pipe. What is not taken is kept. Who is given the last of it with the end
 * gets both in one segment.
 */
static size_t pass(struct splice_pump *pump, struct splice_pair *pair, int way, size_t max)
{
	struct splice_flow *flow = &pair->flows[way];
	const size_t want = max < COPY_BYTES ? max : COPY_BYTES;
	const ssize_t n = recv(pair->ends[way].fd, pump->scratch, want, MSG_DONTWAIT);

	note_received(pair, way, n);
	if (n <= 0)
		return 0;
	flow->is_bulk = (size_t)n == want;
	flow->state.waiting = (size_t)n;
	if ((size_t)n < want)
		note_emptied(pair, way);
	make_prompt(&pair->ends[1 - way]);
	const int more = flow->state.has_ended && !flow->state.is_cut_off ? MSG_MORE : 0;
	const ssize_t sent =
		send(pair->ends[1 - way].fd, pump->scratch, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT | more);
	note_sent(pump, pair, way, sent);
	if (flow->state.waiting > 0)
		keep(pump, flow, pump->scratch + (sent > 0 ? sent : 0));
	return (size_t)n;
}

/* Takes from the one what the other has taken: nothing waits here. Returns how much. */
static size_t copy(struct splice_pump *pump, struct splice_pair *pair, int way, size_t max)
{
	const int from = pair->ends[way].fd, to = pair->ends[1 - way].fd;
	const size_t want = max < SCRATCH_BYTES ? max : SCRATCH_BYTES;
	const ssize_t n = recv(from, pump->scratch, want, MSG_PEEK | MSG_DONTWAIT);

	if (n <= 0) {
		note_received(pair, way, n);
		return 0;
	}
	pair->flows[way].is_bulk = is_much((size_t)n, want);
	pair->flows[way].state.waiting = (size_t)n;
	make_prompt(&pair->ends[1 - way]);
	const ssize_t sent = send(to, pump->scratch, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT);
	note_sent(pump, pair, way, sent);
	pair->flows[way].state.waiting = 0;
	if (sent <= 0)
		return 0;
	pump->counters.bytes_copied += (uint64_t)sent;
	/* It was there a moment ago, and nobody else reads. */
	note_received(pair, way, recv(from, pump->scratch, (size_t)sent, MSG_DONTWAIT));
	return (size_t)sent;
}

/*
 * The pipe is empty: so EAGAIN means that the socket has nothing, and not that the pipe is full; or that it has
 * something urgent, which the next edge tells. An end may be none, for the same cause: reading knows. Returns how much.
 */
static size_t fill_pipe(struct splice_pump *pump, struct splice_pair *pair, int way, size_t max)
{
	struct splice_flow *flow = &pair->flows[way];
	const size_t want = max < pump->options.pipe_size ? max : pump->options.pipe_size;
	const ssize_t n =
		splice(pair->ends[way].fd, NULL, flow->pipe->in, NULL, want, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);

	if (n <= 0)
		give_back(pump, flow);
	if (n == 0)
		return pass(pump, pair, way, max);
	note_received(pair, way, n);
	if (n < 0)
		return 0;
	flow->is_bulk = is_much((size_t)n, want);
	flow->state.waiting = (size_t)n;
	return (size_t)n;
}

/* Returns how much. */
static size_t fill(struct splice_pump *pump, struct splice_pair *pair, int way, size_t max)
{
	struct splice_flow *flow = &pair->flows[way];

	if (!flow->is_bulk && pump->kept_bytes < pump->options.max_kept_bytes)
		return pass(pump, pair, way, max);
	if (!pair->ends[way].is_urgent)
		flow->pipe = take_pipe(pump);
	return flow->pipe ? fill_pipe(pump, pair, way, max) : copy(pump, pair, way, max);
}

/* The last byte went before. When the other way is done as well, closing says it to both. */
static void finish(struct splice_pump *pump, struct splice_pair *pair, int way)
{
	struct splice_end *to = &pair->ends[1 - way];

	pair->flows[way].state.is_done = true;
	pair->flows[way].is_finished = true;
	note_moved(pump, pair);
	/* Who leaves is not closed at once. */
	const bool is_whole = !pair->ends[0].state.is_broken && !pair->ends[1].state.is_broken;
	if (!(is_whole && pair->flows[1 - way].state.is_done) && shutdown(to->fd, SHUT_WR) < 0)
		pump_edge(&to->state, false, false, true);
}

/* PUMP_REST, PUMP_YIELD or PUMP_RESET. */
static enum pump_deed run_flow(struct splice_pump *pump, struct splice_pair *pair, int way)
{
	struct splice_flow *flow = &pair->flows[way];
	size_t budget = pump->options.budget;

	for (;;) {
		const struct pump_end *from = &pair->ends[way].state, *to = &pair->ends[1 - way].state;
		const enum pump_deed deed = pump_next(&flow->state, from, to, budget);
		switch (deed) {
		case PUMP_DRAIN:
			drain(pump, pair, way);
			break;
		case PUMP_FILL:
			budget -= fill(pump, pair, way, budget);
			break;
		case PUMP_FINISH:
			finish(pump, pair, way);
			break;
		case PUMP_DISCARD:
			drop_waiting(pump, flow);
			flow->state.is_done = true;
			note_moved(pump, pair);
			break;
		case PUMP_REST:
		case PUMP_YIELD:
		case PUMP_RESET:
		case PUMP_N_DEEDS:
			return deed;
		}
	}
}

static bool is_over(const struct splice_pair *pair)
{
	return pair->flows[0].state.is_done && pair->flows[1].state.is_done;
}

static void run_pair(struct splice_pump *pump, struct splice_pair *pair)
{
	const uint64_t before = pair->flows[0].n_bytes + pair->flows[1].n_bytes;
	bool has_more = false;

	if (pair->is_leaving) {
		look_after(pump, pair);
		return;
	}
	/* What one way finds out (an end is broken) may free the other: so the first is asked again. */
	for (int i = 0; i < 3; i++) {
		const enum pump_deed deed = i == 2 && has_more ? PUMP_YIELD : run_flow(pump, pair, i % 2);
		if (deed == PUMP_RESET) {
			leave(pump, pair);
			return;
		}
		has_more = has_more || deed == PUMP_YIELD;
	}
	if (is_over(pair)) {
		const bool is_whole = !pair->ends[0].state.is_broken && !pair->ends[1].state.is_broken;
		if (is_whole)
			end_pair(pump, pair, SPLICE_DONE);
		else
			leave(pump, pair);
		return;
	}
	if (pair->flows[0].n_bytes + pair->flows[1].n_bytes != before)
		note_moved(pump, pair);
	if (has_more)
		link_put_last(&pump->busy, &pair->busy);
}

static void on_edge(struct watch *watch, uint32_t events)
{
	struct splice_end *end = container_of(watch, struct splice_end, watch);
	struct splice_pump *pump = end->pair->pump;

	if (!pump)
		return; /* over since the events were fetched */
	splice_end_note(end, events);
	pump_edge(&end->state, events & (EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLHUP), events & (EPOLLOUT | EPOLLHUP),
		  false);
	if (!link_is_in_ring(&end->pair->busy))
		link_put_last(&pump->busy, &end->pair->busy);
}

/* ---- public ---- */

void splice_end_note(struct splice_end *end, uint32_t events)
{
	end->is_urgent = end->is_urgent || (events & EPOLLPRI);
	end->has_hung_up = end->has_hung_up || (events & EPOLLRDHUP);
	pump_edge(&end->state, false, false, events & EPOLLERR);
}

struct splice_pump *splice_pump_new(const struct splice_pump_options *options)
{
	struct splice_pump *pump = calloc(1, sizeof(*pump));

	if (!pump)
		abort();
	pump->options = *options;
	link_init_ring(&pump->busy);
	link_init_ring(&pump->idle);
	link_init_ring(&pump->half_closed);
	link_init_ring(&pump->leaving);
	return pump;
}

void splice_pump_free(struct splice_pump *pump)
{
	if (!pump)
		return;
	assert(pump->n_pairs == 0);
	while (pump->spare) {
		struct splice_pipe *pipe = pump->spare;
		pump->spare = pipe->next;
		close_pipe(pump, pipe);
	}
	free(pump);
}

static void set_head(struct splice_pair *pair, int way, uint8_t *bytes, size_t len)
{
	struct splice_flow *flow = &pair->flows[way];

	assert(!pair->pump && len > 0);
	flow->head = bytes;
	flow->head_at = 0;
	flow->head_size = len;
	flow->state.waiting = len;
}

void splice_pair_set_head_take(struct splice_pair *pair, uint8_t *bytes, size_t len)
{
	set_head(pair, 0, bytes, len);
}

void splice_pair_set_answer_take(struct splice_pair *pair, uint8_t *bytes, size_t len)
{
	set_head(pair, 1, bytes, len);
}

static void drop_head(struct splice_flow *flow)
{
	free(flow->head);
	flow->head = NULL;
	flow->head_size = 0;
	flow->state.waiting = 0;
}

void splice_pair_drop_head(struct splice_pair *pair)
{
	assert(!pair->pump);
	drop_head(&pair->flows[0]);
	drop_head(&pair->flows[1]);
}

void splice_pair_skip_head(struct splice_pair *pair, size_t n)
{
	struct splice_flow *flow = &pair->flows[0];

	assert(!pair->pump && flow->head_at == 0 && n <= flow->state.waiting);
	if (n == flow->state.waiting) {
		drop_head(flow);
		return;
	}
	flow->head_at = n;
	flow->state.waiting -= n;
}

void splice_pair_begin(struct splice_pump *pump, struct splice_pair *pair, uint64_t now_ms)
{
	assert(!pair->pump);
	pair->pump = pump;
	pump->now_ms = now_ms;
	pump->n_pairs++;
	pump->kept_bytes += pair->flows[0].head_size + pair->flows[1].head_size;
	for (int i = 0; i < 2; i++) {
		pair->ends[i].pair = pair;
		pair->ends[i].watch.happened = on_edge;
	}
	note_moved(pump, pair);
	link_put_last(&pump->busy, &pair->busy);
}

void splice_pair_cut(struct splice_pump *pump, struct splice_pair *pair)
{
	assert(pair->pump == pump);
	pump->counters.reset++;
	close_pair(pump, pair, SPLICE_RESET);
}

/* ---- to and from another program ---- */

struct splice_pair *splice_pump_quietest(const struct splice_pump *pump, bool is_half_closed)
{
	struct link *first = link_first(is_half_closed ? &pump->half_closed : &pump->idle);

	return first ? container_of(first, struct splice_pair, quiet) : NULL;
}

void splice_pair_save(const struct splice_pair *pair, uint64_t now_ms, struct splice_saved *ret)
{
	assert(pair->pump && !pair->is_leaving);
	*ret = (struct splice_saved){ .quiet_ms = now_ms - pair->moved_ms };
	for (int i = 0; i < 2; i++) {
		const struct splice_end *end = &pair->ends[i];
		const struct splice_flow *flow = &pair->flows[i];
		ret->ends[i].fd = end->fd;
		ret->ends[i].is_urgent = end->is_urgent;
		ret->ends[i].is_broken = end->state.is_broken;
		ret->ends[i].is_prompt = end->is_prompt;
		ret->flows[i].state = flow->state;
		ret->flows[i].pipe_out = flow->pipe ? flow->pipe->out : -1;
		ret->flows[i].pipe_in = flow->pipe ? flow->pipe->in : -1;
		ret->flows[i].head = flow->head ? flow->head + flow->head_at : NULL;
		ret->flows[i].is_bulk = flow->is_bulk;
		ret->flows[i].is_finished = flow->is_finished;
		ret->flows[i].n_bytes = flow->n_bytes;
	}
}

void splice_pair_let_go(struct splice_pump *pump, struct splice_pair *pair)
{
	assert(pair->pump == pump);
	close_pair(pump, pair, SPLICE_DONE); /* an end that others have as well is not told */
}

/* One that another program has filled. */
static struct splice_pipe *adopt_pipe(struct splice_pump *pump, int out, int in)
{
	struct splice_pipe *pipe = malloc(sizeof(*pipe));

	if (!pipe)
		abort();
	*pipe = (struct splice_pipe){ .out = out, .in = in };
	pump->counters.pipes_open++;
	pump->counters.pipes_in_use++;
	return pipe;
}

void splice_pair_set(struct splice_pump *pump, struct splice_pair *pair, const struct splice_saved *saved)
{
	assert(!pair->pump);
	for (int i = 0; i < 2; i++) {
		struct splice_end *end = &pair->ends[i];
		struct splice_flow *flow = &pair->flows[i];
		end->fd = saved->ends[i].fd;
		end->is_urgent = saved->ends[i].is_urgent;
		end->is_prompt = saved->ends[i].is_prompt;
		end->is_watched_for_room = true;
		end->state = (struct pump_end){ .is_readable = true, .is_writable = true,
						.is_broken = saved->ends[i].is_broken };
		flow->state = saved->flows[i].state;
		flow->is_bulk = saved->flows[i].is_bulk;
		flow->is_finished = saved->flows[i].is_finished;
		flow->n_bytes = saved->flows[i].n_bytes;
		if (saved->flows[i].pipe_out >= 0)
			flow->pipe = adopt_pipe(pump, saved->flows[i].pipe_out, saved->flows[i].pipe_in);
		else if (flow->state.waiting > 0)
			keep(pump, flow, saved->flows[i].head);
	}
}

void splice_pair_unset(struct splice_pump *pump, struct splice_pair *pair)
{
	assert(!pair->pump);
	for (int i = 0; i < 2; i++)
		drop_waiting(pump, &pair->flows[i]);
}

/* Rings are by when something moved: nobody is put behind who was quiet for less. */
static uint64_t not_before_last(const struct link *ring, uint64_t moved_ms)
{
	const struct link *last = ring->before;

	if (last == ring)
		return moved_ms;
	const uint64_t before = container_of(last, struct splice_pair, quiet)->moved_ms;
	return before > moved_ms ? before : moved_ms;
}

void splice_pair_resume(struct splice_pump *pump, struct splice_pair *pair, uint64_t quiet_ms, uint64_t now_ms)
{
	const bool is_half_closed = pair->flows[0].state.is_done || pair->flows[1].state.is_done;
	const uint64_t moved_ms = not_before_last(is_half_closed ? &pump->half_closed : &pump->idle,
						  quiet_ms < now_ms ? now_ms - quiet_ms : 0);

	/* What waits in memory is counted already. */
	pump->kept_bytes -= pair->flows[0].head_size + pair->flows[1].head_size;
	splice_pair_begin(pump, pair, now_ms);
	pair->moved_ms = moved_ms;
}

static uint64_t count_bytes(const struct splice_pump *pump)
{
	return pump->counters.bytes[0] + pump->counters.bytes[1];
}

bool splice_pump_turn(struct splice_pump *pump, uint64_t now_ms)
{
	/* Who is put into busy from now on has its turn the next time. */
	struct link ring, *first;
	const uint64_t end = count_bytes(pump) + pump->options.turn_bytes;

	pump->now_ms = now_ms;
	link_init_ring(&ring);
	link_move_all(&ring, &pump->busy);
	while ((first = link_first(&ring)) && count_bytes(pump) < end) {
		link_remove(first);
		run_pair(pump, container_of(first, struct splice_pair, busy));
	}
	link_move_all(&ring, &pump->busy);
	link_move_all(&pump->busy, &ring);
	return link_first(&pump->busy) != NULL;
}

/* Nothing has moved here; but maybe what was given before still arrives. */
static void end_if_silent(struct splice_pump *pump, struct splice_pair *pair)
{
	const uint32_t before = pair->unacknowledged;
	const uint32_t n = count_unacknowledged(&pair->ends[0]) + count_unacknowledged(&pair->ends[1]);

	if (n == 0 || (before != 0 && n >= before)) {
		end_pair(pump, pair, SPLICE_TIMED_OUT);
		return;
	}
	note_moved(pump, pair);
	pair->unacknowledged = n;
}

/* When the first of the ring is due; those that are have their end. */
static uint64_t expire(struct splice_pump *pump, const struct link *ring, uint64_t time_ms, uint64_t now_ms)
{
	const struct link *first;

	while ((first = link_first(ring))) {
		struct splice_pair *pair = container_of(first, struct splice_pair, quiet);
		if (pair->moved_ms + time_ms > now_ms)
			return pair->moved_ms + time_ms;
		end_if_silent(pump, pair);
	}
	return UINT64_MAX;
}

/* Each once: who stays is due later than now. */
static uint64_t look_after_all(struct splice_pump *pump, uint64_t now_ms)
{
	const struct link *first;

	while ((first = link_first(&pump->leaving))) {
		struct splice_pair *pair = container_of(first, struct splice_pair, quiet);
		if (pair->moved_ms + LOOK_MS > now_ms)
			return pair->moved_ms + LOOK_MS;
		look_after(pump, pair);
	}
	return UINT64_MAX;
}

uint64_t splice_pump_expire(struct splice_pump *pump, uint64_t now_ms)
{
	pump->now_ms = now_ms;
	const uint64_t idle = expire(pump, &pump->idle, pump->options.idle_ms, now_ms);
	const uint64_t half = expire(pump, &pump->half_closed, pump->options.half_closed_ms, now_ms);

	const uint64_t look = look_after_all(pump, now_ms), first = idle < half ? idle : half;

	return first < look ? first : look;
}

struct splice_pump_counters splice_pump_counters(const struct splice_pump *pump)
{
	return pump->counters;
}
