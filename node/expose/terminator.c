/* The thread, the places that it has, and who takes one. What becomes of them is in terminator_visit.c. */
#include "node/expose/terminator_internal.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/macros.h"

#include <errno.h>
#include <signal.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS_A_TURN  64
#define MAX_VISITS     16384
#define MAX_HANDSHAKES 1024
#define MAX_OF_SOURCE  64
#define HANDSHAKE_MS   10000
#define CONNECT_MS     5000
#define HALF_CLOSED_MS 120000 /* as the door has it */

/* ---- places ---- */

static uint16_t source_of(const struct terminator *terminator, const struct endpoint *remote)
{
	uint8_t hash[crypto_shorthash_BYTES];
	uint16_t index;

	crypto_shorthash(hash, remote->ip, endpoint_is_v4(remote) ? 16 : 7, terminator->seed);
	memcpy(&index, hash, sizeof(index));
	return index;
}

static bool take_place(struct terminator *terminator, uint16_t source)
{
	const uint32_t n_visits = atomic_fetch_add(&terminator->n_visits, 1);
	const uint32_t n_shaking = atomic_fetch_add(&terminator->n_shaking, 1);
	const uint16_t n_of_source = atomic_fetch_add(&terminator->n_of_source[source], 1);

	if (n_visits < terminator->options.max_visits && n_shaking < terminator->options.max_handshakes &&
	    n_of_source < terminator->options.max_of_source)
		return true;
	atomic_fetch_sub(&terminator->n_visits, 1);
	atomic_fetch_sub(&terminator->n_shaking, 1);
	atomic_fetch_sub(&terminator->n_of_source[source], 1);
	return false;
}

/* ---- in the door's thread ---- */

static void wake(struct terminator *terminator)
{
	const uint64_t one = 1;

	if (write(terminator->wake_fd, &one, sizeof(one)) < 0)
		return; /* EAGAIN: it is awake */
}

/* An ACME server comes from wherever it likes. Who is let in so does not come further than here: lead_on(). */
static bool judges(struct door_sink *sink)
{
	return tls_site_has_challenge(&container_of(sink, struct terminated, sink)->site);
}

static bool take(struct door_sink *sink, int fd, const struct door_guest *guest)
{
	struct terminated *host = container_of(sink, struct terminated, sink);
	struct terminator *terminator = host->terminator;
	const uint16_t source = source_of(terminator, &guest->source);
	struct visit *visit = take_place(terminator, source) ? calloc(1, sizeof(*visit)) : NULL;

	if (!visit) {
		terminated_count(host, N_OF(over_limit));
		close(fd);
		return false;
	}
	visit->terminator = terminator;
	visit->host = host;
	visit->guest = *guest;
	visit->guest.gate = visit->gate = door_gate_hold(guest->gate);
	visit->is_stranger = !door_gate_allows(visit->gate, &guest->source);
	visit->source = source;
	visit->state = guest->is_https ? SHAKING : ASKING;
	visit->near = (struct side){ .visit = visit, .fd = fd };
	visit->far = (struct side){ .visit = visit, .fd = -1 };
	pthread_mutex_lock(&terminator->lock);
	visit->next = terminator->coming;
	terminator->coming = visit;
	pthread_mutex_unlock(&terminator->lock);
	wake(terminator);
	return true;
}

/* ---- the thread ---- */

static void free_gone(struct terminator *terminator)
{
	struct link *first;

	while ((first = link_first(&terminator->gone))) {
		struct visit *visit = container_of(first, struct visit, place);
		link_remove(first);
		door_gate_let_go(visit->gate);
		atomic_fetch_sub(&terminator->n_visits, 1);
		free(visit);
	}
}

static struct visit *take_coming(struct terminator *terminator)
{
	struct visit *in_order = NULL, *next;

	pthread_mutex_lock(&terminator->lock);
	struct visit *coming = terminator->coming;
	terminator->coming = NULL;
	pthread_mutex_unlock(&terminator->lock);
	for (; coming; coming = next) {
		next = coming->next;
		coming->next = in_order;
		in_order = coming;
	}
	return in_order;
}

static void let_in(struct terminator *terminator)
{
	struct visit *next;

	for (struct visit *visit = take_coming(terminator); visit; visit = next) {
		next = visit->next;
		visit_place(visit, (enum visit_state)visit->state, &terminator->early);
		visit_step(visit, NULL, 0);
	}
}

/* Returns when the next is late. */
static uint64_t expire(struct terminator *terminator, const struct link *ring, uint32_t time_ms)
{
	struct link *first;

	while ((first = link_first(ring))) {
		struct visit *visit = container_of(first, struct visit, place);
		if (visit->since_ms + time_ms > terminator->now_ms)
			return visit->since_ms + time_ms;
		visit_expire(visit);
	}
	return UINT64_MAX;
}

static int time_to_wait(struct terminator *terminator)
{
	const uint64_t early = expire(terminator, &terminator->early, terminator->options.handshake_ms);
	const uint64_t connecting = expire(terminator, &terminator->connecting, terminator->options.connect_ms);
	const uint64_t blind = expire(terminator, &terminator->blind, terminator->options.half_closed_ms);
	const uint64_t first = early < connecting ? early : connecting;
	const uint64_t due = first < blind ? first : blind;

	return due == UINT64_MAX ? -1 : (int)(due - terminator->now_ms) + 1;
}

static void read_clock(struct terminator *terminator)
{
	terminator->now_ms = clock_now_ns() / 1000000;
}

static void handle(struct terminator *terminator, const struct epoll_event *event)
{
	struct side *side = event->data.ptr;
	uint64_t n;

	if (!side) {
		if (read(terminator->wake_fd, &n, sizeof(n)) > 0)
			let_in(terminator);
		return;
	}
	visit_step(side->visit, side, event->events);
}

static void end_all(struct terminator *terminator, const struct link *ring)
{
	struct link *first;

	while ((first = link_first(ring)))
		visit_end(container_of(first, struct visit, place), true);
}

static void *run(void *owner)
{
	struct terminator *terminator = owner;
	struct epoll_event events[EVENTS_A_TURN];

	while (!atomic_load(&terminator->is_stopping)) {
		const int wait_ms = time_to_wait(terminator);
		free_gone(terminator);
		const int n = epoll_wait(terminator->epoll_fd, events, EVENTS_A_TURN, wait_ms);
		read_clock(terminator);
		for (int i = 0; i < n; i++)
			handle(terminator, &events[i]);
		free_gone(terminator);
	}
	let_in(terminator);
	end_all(terminator, &terminator->early);
	end_all(terminator, &terminator->connecting);
	end_all(terminator, &terminator->open);
	end_all(terminator, &terminator->blind);
	free_gone(terminator);
	return NULL;
}

/* ---- from outside ---- */

static struct terminator_options with_defaults(const struct terminator_options *options)
{
	struct terminator_options full = *options;
	struct rlimit files = { .rlim_cur = 1024 };

	(void)getrlimit(RLIMIT_NOFILE, &files);
	const uint32_t most = files.rlim_cur / 8 < MAX_VISITS ? (uint32_t)(files.rlim_cur / 8) : MAX_VISITS;
	if (full.max_visits == 0 || full.max_visits > most)
		full.max_visits = most;
	full.max_handshakes = full.max_handshakes ? full.max_handshakes : MAX_HANDSHAKES;
	full.max_of_source = full.max_of_source ? full.max_of_source : MAX_OF_SOURCE;
	full.handshake_ms = full.handshake_ms ? full.handshake_ms : HANDSHAKE_MS;
	full.connect_ms = full.connect_ms ? full.connect_ms : CONNECT_MS;
	full.half_closed_ms = full.half_closed_ms ? full.half_closed_ms : HALF_CLOSED_MS;
	return full;
}

static void free_terminator(struct terminator *terminator)
{
	if (terminator->wake_fd >= 0)
		close(terminator->wake_fd);
	if (terminator->epoll_fd >= 0)
		close(terminator->epoll_fd);
	pthread_mutex_destroy(&terminator->lock);
	free(terminator);
}

/* Signals are the loop's; also SIGPIPE, which TLS would raise. */
static int start_thread(struct terminator *terminator)
{
	struct epoll_event event = { .events = EPOLLIN };
	sigset_t all, before;

	if (terminator->wake_fd < 0 || terminator->epoll_fd < 0 ||
	    epoll_ctl(terminator->epoll_fd, EPOLL_CTL_ADD, terminator->wake_fd, &event) < 0)
		return -errno;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	const int r = -pthread_create(&terminator->thread, NULL, run, terminator);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return r;
}

int terminator_new(const struct terminator_options *options, struct terminator **ret, struct error *reterr)
{
	struct terminator *terminator = calloc(1, sizeof(*terminator));

	if (!terminator)
		abort();
	terminator->options = with_defaults(options);
	pthread_mutex_init(&terminator->lock, NULL);
	crypto_shorthash_keygen(terminator->seed);
	link_init_ring(&terminator->early);
	link_init_ring(&terminator->connecting);
	link_init_ring(&terminator->open);
	link_init_ring(&terminator->blind);
	link_init_ring(&terminator->gone);
	read_clock(terminator);
	terminator->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	terminator->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	const int r = start_thread(terminator);
	if (r < 0) {
		free_terminator(terminator);
		return error_set(reterr, r, "TLS cannot be terminated: %s", strerror(-r));
	}
	*ret = terminator;
	return 0;
}

void terminator_free(struct terminator *terminator)
{
	if (!terminator)
		return;
	atomic_store(&terminator->is_stopping, true);
	wake(terminator);
	pthread_join(terminator->thread, NULL);
	free_terminator(terminator);
}

void terminated_init(struct terminated *terminated, struct terminator *terminator, const struct endpoint *target,
		     enum exposure_proxy proxy)
{
	*terminated = (struct terminated){ .sink = { .take = take, .judges = judges }, .terminator = terminator, .target = *target, .proxy = proxy };
	tls_site_init(&terminated->site);
}

void terminated_deinit(struct terminated *terminated)
{
	tls_site_deinit(&terminated->site);
}

struct terminated_counters terminated_counters(const struct terminated *terminated)
{
	struct terminated_counters counters;
	uint64_t words[TERMINATED_N_COUNTERS];

	for (size_t i = 0; i < TERMINATED_N_COUNTERS; i++)
		words[i] = atomic_load_explicit(&terminated->counters[i], memory_order_relaxed);
	memcpy(&counters, words, sizeof(counters));
	return counters;
}
