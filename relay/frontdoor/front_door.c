/* The loop's side: sockets, the thread's beginning and end, routes and counters between both. */
#include "relay/frontdoor/front_door.h"

#include "common/log.h"
#include "common/macros.h"
#include "relay/frontdoor/door_thread.h"
#include "relay/frontdoor/door_datagrams.h"
#include "relay/frontdoor/door_udp.h"
#include "relay/frontdoor/hand_over.h"
#include "relay/frontdoor/stream_queue.h"
#include "relay/tcp_listener.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <sodium.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define TIMER_SLACK_NS	     1000UL
#define MAX_VISITORS	     65536
#define MAX_VISITORS_SOURCE  1024
#define MAX_WARM	     1024
#define PORT_OF_HTTP	     80  /* without TLS, so never QUIC's */
#define FILES_OF_OTHERS	     256 /* of the process, which are not for visitors */
#define TO_RELAY_A_TURN	     64 /* each is a handshake: then the loop's others have their turn */
#define N_COUNTERS	     (sizeof(struct front_door_counters) / sizeof(uint64_t))

_Static_assert(sizeof(struct front_door_counters) % sizeof(uint64_t) == 0, "published by words");

struct front_door {
	/* of the loop's thread */
	uv_async_t ended, dialling, handing, porting;
	uint8_t n_handles;
	bool has_dialling, has_handing, has_porting;
	void (*ports_changed)(void *owner);
	void *ports_owner;
	bool is_relays[DOOR_MAX_LISTEN], shares_relay;
	struct front_door_relay_port relay_port;
	struct front_door_dial_ports dial_ports;
	struct front_door_streams_port streams_port;
	pthread_t thread;
	void (*stopped)(void *owner);
	void *owner;
	uint32_t n_listen;
	int listeners[DOOR_MAX_LISTEN];
	int dial_listener; /* -1: nobody dials back */

	/* between both */
	int wake_fd;
	struct dial_exchange exchange;
	struct hand_over for_relay, dial_backs; /* if shares_relay */
	_Atomic bool is_stopping, hands_over;
	struct door_routes *_Atomic new_routes; /* NULL: none; whoever takes it out owns it */
	_Atomic uint64_t published[N_COUNTERS];
	pthread_mutex_t ports_lock;
	struct port_states ports; /* under it */

	/* of the thread, once it runs */
	struct door_thread *visitors;
	struct door_udp *udp; /* NULL: no QUIC */
	struct door_datagrams *datagrams; /* NULL: no ports of UDP */
	struct door_routes *routes;
	struct stream_queue before, next; /* streams of the door before, and for the next; -1: none */
	uint64_t n_ports_told;
};

/* ---- the thread ---- */

static void publish(struct front_door *door)
{
	struct front_door_counters counters = door_thread_counters(door->visitors);
	uint64_t words[N_COUNTERS];

	if (door->udp)
		counters.quic = door_udp_counters(door->udp);
	if (door->datagrams)
		counters.datagrams = door_datagrams_counters(door->datagrams);
	memcpy(words, &counters, sizeof(counters));
	for (size_t i = 0; i < N_COUNTERS; i++)
		atomic_store_explicit(&door->published[i], words[i], memory_order_relaxed);
}

/* What could be had, and what could not. */
static void publish_ports(struct front_door *door)
{
	const struct port_states *states;
	const uint64_t n = door_thread_ports(door->visitors, &states);

	if (n == door->n_ports_told)
		return;
	door->n_ports_told = n;
	pthread_mutex_lock(&door->ports_lock);
	const bool is_same = memcmp(&door->ports, states, sizeof(*states)) == 0;
	door->ports = *states;
	pthread_mutex_unlock(&door->ports_lock);
	if (!is_same && door->has_porting)
		uv_async_send(&door->porting);
}

static void take_word(struct front_door *door)
{
	struct door_routes *routes = atomic_exchange(&door->new_routes, NULL);

	door_take_answers(door->visitors);
	if (!routes)
		return;
	door_thread_set_routes(door->visitors, routes);
	if (door->udp)
		door_udp_set_routes(door->udp, routes);
	door_routes_free(door->routes);
	door->routes = routes;
}

static void hand_streams_over(struct front_door *door)
{
	if (!atomic_load(&door->hands_over))
		return;
	const int r = stream_queue_open(&door->next);
	if (r < 0)
		log_warning("frontdoor", "visitors end with this door: %s", strerror(-r));
	else
		door_thread_hand_streams_over(door->visitors, &door->next);
}

static void *run(void *owner)
{
	struct front_door *door = owner;

	(void)prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NS); /* of this thread: for the naps of door_thread_turn() */
	if (door->before.fds[0] >= 0 || door->before.fds[1] >= 0)
		door_thread_take_streams(door->visitors, &door->before);
	publish_ports(door);
	publish(door);
	while (!atomic_load(&door->is_stopping)) {
		if (door_thread_turn(door->visitors))
			take_word(door);
		publish_ports(door); /* first: routes that are counted as taken have had their ports opened */
		publish(door);
	}
	hand_streams_over(door);
	door_thread_free(door->visitors);
	door_udp_free(door->udp);
	door_datagrams_free(door->datagrams);
	door->visitors = NULL;
	door->udp = NULL;
	door->datagrams = NULL;
	uv_async_send(&door->ended);
	return NULL;
}

/* ---- the loop ---- */

static void wake(struct front_door *door)
{
	const uint64_t one = 1;

	if (write(door->wake_fd, &one, sizeof(one)) < 0)
		return; /* EAGAIN: it is awake */
}

static void free_door(struct front_door *door)
{
	door_thread_free(door->visitors);
	door_udp_free(door->udp);
	door_datagrams_free(door->datagrams);
	door_routes_free(door->routes);
	door_routes_free(atomic_load(&door->new_routes));
	for (uint32_t i = 0; i < door->n_listen; i++)
		close(door->listeners[i]);
	if (door->dial_listener >= 0) {
		close(door->dial_listener);
		dial_exchange_deinit(&door->exchange);
	}
	if (door->shares_relay) {
		hand_over_deinit(&door->for_relay);
		hand_over_deinit(&door->dial_backs);
	}
	if (door->wake_fd >= 0)
		close(door->wake_fd);
	pthread_mutex_destroy(&door->ports_lock);
	free(door);
}

static void on_closed(uv_handle_t *handle)
{
	struct front_door *door = handle->data;

	if (--door->n_handles > 0)
		return;
	void (*stopped)(void *owner) = door->stopped;
	void *owner = door->owner;

	free_door(door);
	if (stopped)
		stopped(owner);
}

static void close_handles(struct front_door *door)
{
	uv_close((uv_handle_t *)&door->ended, on_closed);
	if (door->has_dialling)
		uv_close((uv_handle_t *)&door->dialling, on_closed);
	if (door->has_handing)
		uv_close((uv_handle_t *)&door->handing, on_closed);
	if (door->has_porting)
		uv_close((uv_handle_t *)&door->porting, on_closed);
}

static void on_ended(uv_async_t *async)
{
	struct front_door *door = container_of(async, struct front_door, ended);

	pthread_join(door->thread, NULL);
	if (door->next.fds[0] >= 0)
		door->streams_port.left(door->streams_port.owner, door->next.fds, STREAM_QUEUE_FDS);
	stream_queue_close(&door->next);
	close_handles(door);
}

static void on_dialling(uv_async_t *async)
{
	struct front_door *door = container_of(async, struct front_door, dialling);
	struct dial_wanted wanted;
	struct dial_over over;

	while (dial_exchange_take_over(&door->exchange, &over))
		door->dial_ports.over(door->dial_ports.owner, &over);
	while (dial_exchange_take_wanted(&door->exchange, &wanted)) {
		door->dial_ports.wanted(door->dial_ports.owner, &wanted);
		free(wanted.first);
	}
	sodium_memzero(&wanted, sizeof(wanted));
}

/* False: nobody waits there. */
static bool take_handed(struct front_door *door, struct hand_over *queue)
{
	const struct handed_over *handed = hand_over_peek(queue);

	if (!handed)
		return false;
	door->relay_port.visitor(door->relay_port.owner, handed->whose, handed->fd, &handed->remote, handed->bytes, handed->n);
	hand_over_done(queue);
	return true;
}

static void on_handing(uv_async_t *async)
{
	struct front_door *door = container_of(async, struct front_door, handing);

	for (int i = 0; i < TO_RELAY_A_TURN; i += 2) {
		const bool of_relay = take_handed(door, &door->for_relay), is_dial_back = take_handed(door, &door->dial_backs);
		if (!of_relay && !is_dial_back)
			return;
	}
	uv_async_send(async);
}

static void on_porting(uv_async_t *async)
{
	struct front_door *door = container_of(async, struct front_door, porting);

	door->ports_changed(door->ports_owner);
}

/* In the door's thread. */
static void wake_for_relay(void *owner)
{
	struct front_door *door = owner;

	uv_async_send(&door->handing);
}

/* In the door's thread. */
static void wake_loop(void *owner)
{
	struct front_door *door = owner;

	uv_async_send(&door->dialling);
}

static int add_handle(uv_loop_t *loop, struct front_door *door, uv_async_t *async, uv_async_cb cb, struct error *reterr)
{
	const int r = uv_async_init(loop, async, cb);

	if (r < 0)
		return error_set(reterr, r, "%s", uv_strerror(r));
	async->data = door;
	door->n_handles++;
	return 0;
}

/* Of QUIC's paths each has one. */
static struct quic_flows_options udp_options(const struct rlimit *files)
{
	return door_udp_defaults(files->rlim_cur < UINT32_MAX ? (uint32_t)files->rlim_cur : UINT32_MAX);
}

/* Ports of UDP, or what other doors bring of them. */
static bool has_datagrams(const struct front_door_options *options)
{
	return options->udp_ports.n > 0 || options->takes_header;
}

/*
 * Each visitor has two descriptors, and pipes, which are bounded by themselves; what is warm is a fiftieth. One whose agent came
 * within TLS may have four: what the door has for the agent's is a pair's end, TLS is behind the other.
 */
static struct front_door_options with_defaults(const struct front_door_options *options)
{
	struct front_door_options full = *options;
	struct rlimit files = { .rlim_cur = 1024 };

	(void)getrlimit(RLIMIT_NOFILE, &files);
	const uint64_t others = FILES_OF_OTHERS + (full.serves_quic ? udp_options(&files).max_flows : 0) +
				(has_datagrams(options) ? door_datagrams_max_flows(files.rlim_cur) : 0);
	const uint64_t room = files.rlim_cur > 2 * others ? files.rlim_cur - others : FILES_OF_OTHERS;
	const uint64_t n_files = options->has_dial_back ? 5 : 3;
	const uint32_t most = room / n_files < MAX_VISITORS ? (uint32_t)(room / n_files) : MAX_VISITORS;
	if (full.max_visitors == 0 || full.max_visitors > most)
		full.max_visitors = most;
	if (full.max_visitors_source == 0)
		full.max_visitors_source = full.max_visitors / 4 < MAX_VISITORS_SOURCE ? full.max_visitors / 4
										       : MAX_VISITORS_SOURCE;
	if (full.max_warm == 0)
		full.max_warm = full.max_visitors / 16 < MAX_WARM ? full.max_visitors / 16 : MAX_WARM;
	full.silent_ms = full.silent_ms ? full.silent_ms : 60 * 1000;
	full.max_hello_bytes = full.max_hello_bytes ? full.max_hello_bytes : 64 << 20;
	full.sniff_ms = full.sniff_ms ? full.sniff_ms : 10 * 1000;
	full.connect_ms = full.connect_ms ? full.connect_ms : 5 * 1000;
	full.idle_ms = full.idle_ms ? full.idle_ms : 3600 * 1000;
	full.half_closed_ms = full.half_closed_ms ? full.half_closed_ms : 120 * 1000;
	full.dial_ms = full.dial_ms ? full.dial_ms : 5 * 1000;
	full.present_ms = full.present_ms ? full.present_ms : 3 * 1000;
	return full;
}

/* At the ports that the others have. */
static int open_udp(struct front_door *door, const struct front_door_options *options, struct error *reterr)
{
	struct endpoint places[DOOR_MAX_LISTEN];
	struct rlimit files = { .rlim_cur = 1024 };
	uint32_t n = 0, failed;

	for (uint32_t i = 0; i < options->n_listen; i++) {
		if (options->listen[i].port == PORT_OF_HTTP)
			continue;
		places[n] = options->listen[i];
		places[n++].port = front_door_port(door, i);
	}
	if (n == 0)
		return 0;
	(void)getrlimit(RLIMIT_NOFILE, &files);
	const struct quic_flows_options own = udp_options(&files);
	int r = door_udp_new(&own, places, n, &door->udp, &failed);
	if (r < 0)
		return error_set(reterr, r, "UDP %s: %s; with quic = no it is not needed",
				 endpoint_text(&places[failed]).s, strerror(-r));
	door_udp_set_routes(door->udp, door->routes);
	r = door_thread_also_watch(door->visitors, door_udp_fd(door->udp), door_udp_watch(door->udp));
	return r < 0 ? error_set(reterr, r, "cannot open the front door: %s", strerror(-r)) : 0;
}

/* What other doors bring comes to the port that they have for visitors of TCP, too. */
static int open_datagrams(struct front_door *door, const struct front_door_options *options, struct error *reterr)
{
	struct datagram_place *place;
	struct rlimit files = { .rlim_cur = 1024 };
	struct endpoint address;
	int r;

	if (!has_datagrams(options))
		return 0;
	(void)getrlimit(RLIMIT_NOFILE, &files);
	r = door_datagrams_new(door_datagrams_max_flows(files.rlim_cur), options->takes_header, &door->datagrams);
	if (r == 0)
		r = door_thread_use_datagrams(door->visitors, door->datagrams);
	for (uint32_t i = 0; options->takes_header && i < options->n_listen && r == 0; i++) {
		address = options->listen[i];
		address.port = front_door_port(door, i);
		r = door_datagrams_open(door->datagrams, &address, NULL, &place);
	}
	return r < 0 ? error_set(reterr, r, "cannot open the front door for UDP: %s", strerror(-r)) : 0;
}

static int prepare(struct front_door *door, const struct front_door_options *options, struct error *reterr)
{
	const struct front_door_options full = with_defaults(options);
	int r = 0;

	for (uint32_t i = 0; i < options->n_listen && r == 0; i++) {
		const struct listen_sockets *sockets = options->is_relays[i] ? options->relay_sockets : NULL;
		r = door_open_listener(&options->listen[i], sockets, &door->listeners[i], reterr);
		door->n_listen += r == 0;
	}
	if (r == 0 && options->has_dial_back) {
		r = door_open_listener(&options->dial_back, NULL, &door->dial_listener, reterr);
		if (r == 0)
			dial_exchange_init(&door->exchange, wake_loop, door);
	}
	if (r < 0) {
		error_prefix(reterr, "front door");
		return r;
	}
	door->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = door->wake_fd < 0 ? -errno : door_thread_new(&full, door->listeners, door->wake_fd, &door->visitors);
	if (r == 0 && options->has_dial_back)
		r = door_thread_open_dial_back(door->visitors, door->dial_listener, &door->exchange);
	if (r < 0)
		return error_set(reterr, r, "cannot open the front door: %s", strerror(-r));
	if (door->shares_relay)
		door_thread_share_relay(door->visitors, &door->for_relay, &door->dial_backs, wake_for_relay, door);
	if ((r = open_datagrams(door, options, reterr)) < 0)
		return r;
	door_thread_set_routes(door->visitors, door->routes);
	r = options->serves_quic ? open_udp(door, options, reterr) : 0;
	if (r < 0)
		error_prefix(reterr, "front door");
	return r;
}

/* The program's signals are the loop's; also SIGPIPE, which splice(2) would raise. */
static int start_thread(struct front_door *door)
{
	sigset_t all, before;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int r = -pthread_create(&door->thread, NULL, run, door);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return r;
}

/* An address of this machine is reached from itself; but 127.0.0.8 from 127.0.0.1. */
static bool is_own_address(const struct endpoint *target)
{
	struct sockaddr_storage address, own = { 0 };
	const socklen_t len = endpoint_to_sockaddr(target, &address);
	socklen_t own_len = sizeof(own);
	const int fd = socket(address.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return false;
	const bool is_reached = connect(fd, (const struct sockaddr *)&address, len) == 0 &&
				getsockname(fd, (struct sockaddr *)&own, &own_len) == 0;
	close(fd);
	if (!is_reached)
		return false;
	const struct endpoint from = endpoint_from_sockaddr((const struct sockaddr *)&own);
	return memcmp(from.ip, target->ip, sizeof(from.ip)) == 0;
}

bool front_door_leads_back(const struct endpoint *places, uint32_t n, const struct endpoint *target)
{
	return door_listens_at(places, n, target, true) &&
	       (door_listens_at(places, n, target, endpoint_is_loopback(target)) || is_own_address(target));
}

static void take_relay_port(struct front_door *door, const struct front_door_options *options)
{
	memcpy(door->is_relays, options->is_relays, sizeof(door->is_relays));
	door->relay_port = options->relay_port;
	for (uint32_t i = 0; i < options->n_listen; i++)
		door->shares_relay = door->shares_relay || options->is_relays[i];
	if (!door->shares_relay)
		return;
	hand_over_init(&door->for_relay, HAND_OVER_MAX_SOURCE);
	hand_over_init(&door->dial_backs, HAND_OVER_MAX_DIALS);
}

static int add_more_handles(uv_loop_t *loop, struct front_door *door, const struct front_door_options *options,
			    struct error *reterr)
{
	int r = 0;

	if (options->has_dial_back) {
		r = add_handle(loop, door, &door->dialling, on_dialling, reterr);
		door->has_dialling = r == 0;
	}
	if (r == 0 && door->shares_relay) {
		r = add_handle(loop, door, &door->handing, on_handing, reterr);
		door->has_handing = r == 0;
	}
	if (r == 0 && options->ports_changed) {
		door->ports_changed = options->ports_changed;
		door->ports_owner = options->ports_owner;
		r = add_handle(loop, door, &door->porting, on_porting, reterr);
		door->has_porting = r == 0;
	}
	return r;
}

int front_door_start(uv_loop_t *loop, const struct front_door_options *options, struct door_routes *routes_take,
		     struct front_door **ret, struct error *reterr)
{
	assert(options->n_listen > 0 && options->n_listen <= DOOR_MAX_LISTEN);
	struct front_door *door = calloc(1, sizeof(*door));
	if (!door)
		abort();
	door->wake_fd = door->dial_listener = -1;
	door->before = door->next = (struct stream_queue)STREAM_QUEUE_NONE;
	door->streams_port = options->streams_port;
	pthread_mutex_init(&door->ports_lock, NULL);
	door->dial_ports = options->dial_ports;
	take_relay_port(door, options);
	door->routes = routes_take;
	int r = prepare(door, options, reterr);
	if (r == 0)
		r = add_handle(loop, door, &door->ended, on_ended, reterr);
	if (r < 0) {
		free_door(door);
		return r;
	}
	if ((r = add_more_handles(loop, door, options, reterr)) < 0) {
		close_handles(door);
		return r;
	}
	if (options->streams_before)
		door->before = *options->streams_before;
	r = start_thread(door);
	if (r < 0) {
		close_handles(door);
		return error_set(reterr, r, "cannot start a thread: %s", strerror(-r));
	}
	if (options->streams_before)
		*options->streams_before = (struct stream_queue)STREAM_QUEUE_NONE;
	*ret = door;
	return 0;
}

void front_door_stop(struct front_door *door, void (*cb)(void *owner), void *owner)
{
	door->stopped = cb;
	door->owner = owner;
	atomic_store(&door->is_stopping, true);
	wake(door);
}

void front_door_hand_over(struct front_door *door)
{
	atomic_store(&door->hands_over, door->streams_port.left != NULL);
}

void front_door_set_routes_take(struct front_door *door, struct door_routes *routes)
{
	door_routes_free(atomic_exchange(&door->new_routes, routes));
	wake(door);
}

void front_door_ports(struct front_door *door, struct port_states *ret)
{
	pthread_mutex_lock(&door->ports_lock);
	*ret = door->ports;
	pthread_mutex_unlock(&door->ports_lock);
}

static uint16_t port_of(int fd)
{
	struct sockaddr_storage address = { 0 };
	socklen_t len = sizeof(address);

	if (getsockname(fd, (struct sockaddr *)&address, &len) < 0)
		return 0;
	return endpoint_from_sockaddr((struct sockaddr *)&address).port;
}

uint16_t front_door_port(const struct front_door *door, uint32_t listener)
{
	return listener < door->n_listen ? port_of(door->listeners[listener]) : 0;
}

uint32_t front_door_relay_sockets(const struct front_door *door, int ret[DOOR_MAX_LISTEN])
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < door->n_listen; i++)
		if (door->is_relays[i])
			ret[n++] = door->listeners[i];
	return n;
}

uint16_t front_door_dial_back_port(const struct front_door *door)
{
	return door->dial_listener >= 0 ? port_of(door->dial_listener) : 0;
}

void front_door_answer(struct front_door *door, uint64_t ticket, int64_t subscription, struct agent_tally *tally)
{
	const struct dial_answer answer = { .ticket = ticket, .subscription = subscription, .tally = tally };

	dial_exchange_answer(&door->exchange, &answer);
	wake(door);
}

bool front_door_take_caller(struct front_door *door, const struct dial_caller *caller_take)
{
	const bool is_given = dial_exchange_give(&door->exchange, caller_take);

	if (is_given) {
		wake(door);
	} else {
		if (caller_take->fd >= 0)
			splice_close_with_reset(caller_take->fd);
		free(caller_take->answer);
	}
	return is_given;
}

struct front_door_counters front_door_counters(const struct front_door *door)
{
	struct front_door_counters counters;
	uint64_t words[N_COUNTERS];

	for (size_t i = 0; i < N_COUNTERS; i++)
		words[i] = atomic_load_explicit(&door->published[i], memory_order_relaxed);
	memcpy(&counters, words, sizeof(counters));
	return counters;
}
