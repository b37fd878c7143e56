/*
 * A message from a socket is a datagram, or a train of them that came at once from one address. Those of a train that
 * belong to one path leave as one train again. What is over is freed at the end of the turn, as events of the same turn
 * may still point to it; its socket rests (resting_sockets.h), so that nobody gets its port while answers for it are under way.
 */
#include "relay/frontdoor/door_udp.h"

#include "common/clock.h"
#include "common/log.h"
#include "relay/frontdoor/door_udp_socket.h"
#include "relay/frontdoor/proxy_header_wire.h"
#include "relay/frontdoor/resting_sockets.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define EVENTS_A_TURN 32
#define MESSAGES_A_TURN 64 /* of one socket; each may be a train of 64 datagrams. The rest is there in the next turn */
#define TICK_MS	      250 /* while there are paths, or sockets rest: who is late is so by this at most */
#define MAX_FLOWS     16384
#define HEADER_MAX    384
#define WITHOUT_QUIC_MS 60000 /* so long others are asked first */
#define FILES_A_FLOW  8 /* of so many one is for a path: the door's other visitors have three each */

struct place {
	struct watch watch;
	struct door_udp *udp;
	struct relay_socket sock;
};

struct path {
	struct watch watch;
	struct door_udp *udp;
	struct quic_flow *flow; /* NULL: over */
	struct link gone;
	struct relay_socket sock;
	bool has_no_trains[2]; /* to its target, to its visitor */
	struct door_place *led_to; /* held; NULL: of no member, or moved */
	bool is_whole;		   /* what leaves to the target is not cut into pieces */
	size_t header_len;	   /* of what stands in front of each datagram to the target; 0: nothing */
	uint8_t header[];
};

/* Datagrams of one train that go the same way. */
struct run {
	struct path *path; /* NULL: none */
	const uint8_t *bytes;
	size_t len;
};

struct door_udp {
	struct watch watch, timer_watch;
	int epoll_fd, timer_fd;
	bool is_ticking;
	uint32_t n_places;
	struct place places[DOOR_MAX_LISTEN];
	const struct door_routes *routes;
	uint32_t asked_ms; /* after which who was not answered is over */
	struct quic_flows *flows;
	struct relay_inbox *inbox;
	struct link gone;
	struct resting_sockets resting; /* no more than there are places for paths that are free */
	uint32_t max_flows;
	uint64_t now_ms;
	struct door_udp_losses losses;
	struct log_limit log_limit, targets_log_limit; /* targets': who asks for what is not there hides none of them */
};

/* ---- paths come and go ---- */

static int watch_fd(struct door_udp *udp, int fd, struct watch *watch)
{
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = watch };

	return epoll_ctl(udp->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

/*
 * Not of paths that made room for others: who sends much could say so of any member. Nor of who alone is not answered, as a visitor
 * whom the member does not allow.
 */
static void note_unanswered(const struct door_udp *udp, const struct quic_flow *flow, struct door_place *place)
{
	if (place && flow->fsm.state == QUIC_FLOW_ASKED && udp->now_ms >= flow->fsm.since_ms + udp->asked_ms &&
	    place->quic_heard_ms < flow->fsm.since_ms)
		place->without_quic_until_ms = udp->now_ms + WITHOUT_QUIC_MS;
}

static void on_flow_ended(void *owner, struct quic_flow *flow)
{
	struct door_udp *udp = owner;
	struct path *path = flow->owner;

	if (!path)
		return;
	if (path->header_len > 0) /* before the kernel may give the socket's port to another visitor's */
		door_udp_send_behind(&path->sock, path->header, path->header_len, path->header, 0, 0, &udp->losses);
	note_unanswered(udp, flow, path->led_to);
	if (path->led_to)
		door_place_leave(path->led_to);
	door_place_let_go(path->led_to);
	path->flow = NULL;
	/* A child that is being forked has it open for a moment: closing alone would leave it in the epoll set. */
	(void)epoll_ctl(udp->epoll_fd, EPOLL_CTL_DEL, path->sock.fd, NULL);
	resting_sockets_add(&udp->resting, &path->sock, udp->now_ms);
	link_put_last(&udp->gone, &path->gone);
}

static void free_gone(struct door_udp *udp)
{
	struct link *first;

	while ((first = link_first(&udp->gone))) {
		link_remove(first);
		free(container_of(first, struct path, gone));
	}
}

/* What this machine has no more of, EAGAIN: ports of its own. It says nothing of the target. */
static bool is_ours(int error)
{
	return error == -EMFILE || error == -ENFILE || error == -ENOSPC || error == -ENOMEM || error == -EAGAIN;
}

static void on_unreachable(struct door_udp *udp, struct quic_flow *flow, const struct host_name *host, const struct endpoint *target,
			   int error)
{
	struct quic_counters *counters = quic_flows_counters(udp->flows);

	counters->no_descriptors += is_ours(error);
	counters->unreachable += !is_ours(error);
	log_limited(&udp->targets_log_limit, LOG_LEVEL_WARNING, "frontdoor", "QUIC target not reached: %s at %s: %s", host->text,
		    endpoint_text(target).s, strerror(-error));
	quic_flows_end(udp->flows, flow);
}

static void on_target(struct watch *watch, uint32_t events);

/* How long it is. */
static size_t write_header(const struct door_udp *udp, const struct quic_flow *flow, const struct host_name *host,
			   uint8_t buf[HEADER_MAX])
{
	const struct udp_way *way = &flow->way;
	const struct endpoint *local = &udp->places[way->socket].sock.local;
	struct endpoint destination = *local;
	static const uint8_t any[sizeof(way->local_ip)];

	if (memcmp(way->local_ip, any, sizeof(any)) != 0)
		memcpy(destination.ip, way->local_ip, sizeof(destination.ip));
	const struct proxy_header header = {
		.has_addresses = true,
		.is_datagram = true,
		.source = way->remote,
		.destination = destination,
		.authority = { .at = (const uint8_t *)host->text, .len = host->len },
		.scheme = PROXY_HTTPS,
		.n_doors = 1,
	};
	return proxy_v2_encode(&header, buf, HEADER_MAX);
}

static int connect_path(struct door_udp *udp, struct path *path, const struct endpoint *target)
{
	int r = door_udp_connect(target, &path->sock);

	if (r == 0 && (r = watch_fd(udp, path->sock.fd, &path->watch)) < 0)
		relay_socket_close(&path->sock);
	return r;
}

/* has_header: the target, which is a member's, is told for whom it gets it. NULL: it could not be had, and the flow is over. */
static struct path *open_path(struct door_udp *udp, struct quic_flow *flow, const struct endpoint *target,
			      const struct host_name *host, bool has_header)
{
	uint8_t header[HEADER_MAX];
	const size_t header_len = has_header ? write_header(udp, flow, host, header) : 0;
	struct path *path = calloc(1, sizeof(*path) + header_len);

	if (!path)
		abort();
	path->header_len = header_len;
	memcpy(path->header, header, header_len);
	path->is_whole = true;
	path->watch.happened = on_target;
	path->udp = udp;
	/* This path is among those that are there. */
	resting_sockets_make_room(&udp->resting, quic_flows_counters(udp->flows)->flows_now, udp->max_flows);
	int r = connect_path(udp, path, target);
	for (uint32_t try = 0; is_ours(r) && resting_sockets_give_up(&udp->resting, try); try++)
		r = connect_path(udp, path, target);
	if (r < 0) {
		free(path);
		on_unreachable(udp, flow, host, target, r);
		return NULL;
	}
	path->flow = flow;
	flow->owner = path;
	return path;
}

/* ---- from targets ---- */

/* What the target's machine says: nobody listens there. Who is proven has been served, and may be again. */
static bool is_refused(struct path *path)
{
	int error = 0;
	socklen_t len = sizeof(error);

	(void)getsockopt(path->sock.fd, SOL_SOCKET, SO_ERROR, &error, &len);
	return (error == ECONNREFUSED || error == EHOSTUNREACH || error == ENETUNREACH) &&
	       path->flow->fsm.state == QUIC_FLOW_ASKED;
}

static void pass_to_visitor(struct path *path, const struct relay_message *message)
{
	struct door_udp *udp = path->udp;
	struct quic_counters *counters = quic_flows_counters(udp->flows);
	struct quic_flow *flow = path->flow;

	size_t passed = 0; /* the front of the train: who may be sent no more is not sent the rest either */
	for (size_t at = 0; at < message->len; at += message->size) {
		const size_t len = message->len - at < message->size ? message->len - at : message->size;
		const bool may = quic_flows_from_target(udp->flows, flow, message->bytes + at, len, udp->now_ms);
		const bool is_next = may && passed == at;
		counters->datagrams_out += is_next;
		counters->over_answer += may && !is_next;
		passed += is_next ? len : 0;
	}
	counters->bytes_out += passed;
	door_udp_send(&udp->places[flow->way.socket].sock, &flow->way, message->bytes, passed, message->size,
		      &path->has_no_trains[1], &udp->losses);
}

static void on_target(struct watch *watch, uint32_t events)
{
	struct path *path = container_of(watch, struct path, watch);
	struct door_udp *udp = path->udp;
	bool is_full;

	if (!path->flow)
		return;
	if (events & EPOLLERR && is_refused(path)) {
		if (path->led_to)
			path->led_to->without_quic_until_ms = udp->now_ms + WITHOUT_QUIC_MS;
		const struct quic_connection *connection = path->flow->connection;
		on_unreachable(udp, path->flow, &connection->host, &connection->target, -ECONNREFUSED);
		return;
	}
	const uint32_t n = relay_inbox_receive(udp->inbox, &path->sock, &is_full);
	if (n > 0 && path->led_to) {
		path->led_to->quic_heard_ms = udp->now_ms;
		path->led_to->without_quic_until_ms = 0;
	}
	for (uint32_t i = 0; i < n; i++)
		pass_to_visitor(path, relay_inbox_message(udp->inbox, i));
}

/* ---- from visitors ---- */

static void pass_to_target(struct path *path, const uint8_t *bytes, size_t len, size_t size)
{
	struct quic_counters *counters = quic_flows_counters(path->udp->flows);

	counters->datagrams_in += (len + size - 1) / size;
	counters->bytes_in += len;
	if (path->header_len == 0) {
		door_udp_send(&path->sock, NULL, bytes, len, size, &path->has_no_trains[0], &path->udp->losses);
		return;
	}
	door_udp_set_whole_for(&path->sock, size, &path->is_whole);
	door_udp_send_behind(&path->sock, path->header, path->header_len, bytes, len, size, &path->udp->losses);
}

static void flush(struct run *run, size_t size)
{
	if (run->path && run->path->flow)
		pass_to_target(run->path, run->bytes, run->len, size);
	*run = (struct run){ 0 };
}

/* NULL: nobody's, or nobody there; counted. */
static const struct door_route *find_route(struct door_udp *udp, const struct quic_flow *flow)
{
	struct quic_counters *counters = quic_flows_counters(udp->flows);
	const struct host_name *host = &quic_flows_found(flow)->host;
	const struct door_route *route = udp->routes ? door_routes_find(udp->routes, SNIFFER_QUIC, host) : NULL;
	const bool is_there = route && door_route_has_quic(route) && !route->gate; /* that a gate lets in one by one: by TCP alone */

	counters->unknown_host += !route;
	counters->nobody_there += route && !is_there;
	if (is_there)
		return route;
	log_limited(&udp->log_limit, LOG_LEVEL_INFO, "frontdoor", "%s %s for %s by QUIC: no answer",
		    route ? "nobody is there:" : "unknown host:", host->text, endpoint_ip_text(&flow->way.remote).s);
	return NULL;
}

/* Of several members that publish the host, of whom some may have no QUIC; NULL: nobody's but the target's. */
static struct door_place *choose(const struct door_route *route, uint64_t now_ms)
{
	struct door_place *silent[DOOR_MAX_PLACES], *place = NULL;
	uint32_t n_silent = 0;

	if (route->n_places == 0)
		return NULL;
	for (uint32_t i = 0; i < route->n_places; i++)
		if (now_ms < route->places[i]->without_quic_until_ms)
			silent[n_silent++] = route->places[i];
	if (n_silent < route->n_places)
		place = door_place_choose(route->places, route->n_places, silent, n_silent, now_ms);
	return place ? place : door_place_choose(route->places, route->n_places, NULL, 0, now_ms);
}

/* NULL: it is not led, and over. */
static struct path *lead(struct door_udp *udp, struct quic_flow *flow)
{
	const struct door_route *route = find_route(udp, flow);
	const uint8_t *kept;
	size_t len;

	if (!route) {
		quic_flows_end(udp->flows, flow);
		return NULL;
	}
	struct door_place *place = choose(route, udp->now_ms);
	const struct endpoint target = place ? place->target : route->target;
	const struct host_name host = quic_flows_found(flow)->host;
	struct path *path = open_path(udp, flow, &target, &host, place);
	if (!path)
		return NULL;
	if (place) {
		path->led_to = door_place_hold(place);
		door_place_enter_again(place); /* so many are there; whether TCP is answered is not tried by it */
	}
	for (uint32_t i = 0; (kept = quic_flows_kept(flow, i, &len)); i++)
		pass_to_target(path, kept, len, len);
	quic_flows_led(udp->flows, flow, &target, udp->now_ms);
	flow->connection->host = host;
	flow->connection->has_header = place;
	return path;
}

/* Where this datagram goes; NULL: nowhere. */
static struct path *take_datagram(struct place *place, const struct udp_way *from, const uint8_t *bytes, size_t len)
{
	struct door_udp *udp = place->udp;
	struct quic_flow *flow = NULL;
	struct quic_answer answer;
	bool has_no_trains = true;

	switch (quic_flows_from_visitor(udp->flows, from, bytes, len, udp->now_ms, &flow, &answer)) {
	case QUIC_PASS:
		return flow->owner;
	case QUIC_LEAD:
		return lead(udp, flow);
	case QUIC_MOVED:
		return open_path(udp, flow, &flow->connection->target, &flow->connection->host, flow->connection->has_header);
	case QUIC_NEGOTIATE:
		door_udp_send(&place->sock, from, answer.bytes, answer.len, answer.len, &has_no_trains, &udp->losses);
		return NULL;
	case QUIC_KEPT:
	case QUIC_DROPPED:
		break;
	}
	return NULL;
}

static void take_message(struct place *place, const struct relay_message *message)
{
	struct run run = { 0 };

	for (size_t at = 0; at < message->len; at += message->size) {
		const size_t len = message->len - at < message->size ? message->len - at : message->size;
		struct path *path = take_datagram(place, &message->from, message->bytes + at, len);
		if (path != run.path)
			flush(&run, message->size);
		if (path && !run.path)
			run = (struct run){ .path = path, .bytes = message->bytes + at };
		run.len += len;
	}
	flush(&run, message->size);
}

static void on_place(struct watch *watch, uint32_t events)
{
	struct place *place = container_of(watch, struct place, watch);
	bool is_full;

	(void)events;
	const uint32_t n = relay_inbox_receive(place->udp->inbox, &place->sock, &is_full);
	for (uint32_t i = 0; i < n; i++)
		take_message(place, relay_inbox_message(place->udp->inbox, i));
}

/* ---- the turn ---- */

static void on_tick(struct watch *watch, uint32_t events)
{
	struct door_udp *udp = container_of(watch, struct door_udp, timer_watch);
	uint64_t n;

	(void)events;
	if (read(udp->timer_fd, &n, sizeof(n)) < 0)
		return;
	(void)quic_flows_expire(udp->flows, udp->now_ms);
	(void)resting_sockets_expire(&udp->resting, udp->now_ms);
}

static void tick_while_needed(struct door_udp *udp)
{
	const bool is_needed = quic_flows_counters(udp->flows)->flows_now > 0 || udp->resting.n > 0;
	const struct timespec each = { .tv_nsec = is_needed ? TICK_MS * 1000000 : 0 };
	const struct itimerspec timer = { .it_interval = each, .it_value = each };

	if (is_needed != udp->is_ticking && timerfd_settime(udp->timer_fd, 0, &timer, NULL) == 0)
		udp->is_ticking = is_needed;
}

static void on_turn(struct watch *watch, uint32_t events)
{
	struct door_udp *udp = container_of(watch, struct door_udp, watch);
	struct epoll_event happened[EVENTS_A_TURN];
	const int n = epoll_wait(udp->epoll_fd, happened, EVENTS_A_TURN, 0);

	(void)events;
	udp->now_ms = clock_now_ns() / 1000000;
	for (int i = 0; i < n; i++) {
		struct watch *watched = happened[i].data.ptr;
		watched->happened(watched, happened[i].events);
	}
	free_gone(udp);
	tick_while_needed(udp);
}

/* ---- beginning and end ---- */

struct quic_flows_options door_udp_defaults(uint32_t max_files)
{
	const uint32_t most = max_files / FILES_A_FLOW > 16 ? max_files / FILES_A_FLOW : 16;
	struct quic_flows_options options = {
		.times = { .sniff_ms = 10000, .asked_ms = 10000, .answered_ms = 30000, .idle_ms = 120000, .spare_ms = 10000 },
		.max_flows = most < MAX_FLOWS ? most : MAX_FLOWS,
		.max_paths = 4,
		.max_kept_bytes = 16 << 20,
		.hellos_per_s = 5000,
		.hellos_source_per_s = 200,
		.negotiations_per_s = 100,
	};

	options.max_source = options.max_flows / 4 < 1024 ? options.max_flows / 4 : 1024;
	return options;
}

static int open_places(struct door_udp *udp, const struct endpoint *places, uint32_t n, uint32_t *ret_failed)
{
	for (; udp->n_places < n; udp->n_places++) {
		struct place *place = &udp->places[udp->n_places];
		*ret_failed = udp->n_places;
		int r = door_udp_listen(&places[udp->n_places], (uint16_t)udp->n_places, &place->sock);
		if (r < 0)
			return r;
		place->watch.happened = on_place;
		place->udp = udp;
		if ((r = watch_fd(udp, place->sock.fd, &place->watch)) < 0) {
			relay_socket_close(&place->sock);
			return r;
		}
	}
	return 0;
}

int door_udp_new(const struct quic_flows_options *options, const struct endpoint *places, uint32_t n,
		 struct door_udp **ret, uint32_t *ret_failed)
{
	struct door_udp *udp = calloc(1, sizeof(*udp));
	struct quic_flows_options own = *options;

	if (!udp)
		abort();
	own.owner = udp;
	own.ended = on_flow_ended;
	udp->asked_ms = options->times.asked_ms;
	*ret_failed = 0;
	udp->max_flows = options->max_flows;
	link_init_ring(&udp->gone);
	resting_sockets_init(&udp->resting);
	udp->watch.happened = on_turn;
	udp->timer_watch.happened = on_tick;
	udp->now_ms = clock_now_ns() / 1000000;
	udp->flows = quic_flows_new(&own, udp->now_ms);
	udp->inbox = relay_inbox_new();
	if (udp->inbox)
		relay_inbox_set_most(udp->inbox, MESSAGES_A_TURN);
	udp->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	udp->timer_fd = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
	int r = udp->epoll_fd < 0 || udp->timer_fd < 0 ? -errno : udp->inbox ? 0 : -ENOMEM;
	if (r == 0)
		r = watch_fd(udp, udp->timer_fd, &udp->timer_watch);
	if (r == 0)
		r = open_places(udp, places, n, ret_failed);
	if (r < 0) {
		door_udp_free(udp);
		return r;
	}
	*ret = udp;
	return 0;
}

void door_udp_free(struct door_udp *udp)
{
	if (!udp)
		return;
	quic_flows_free(udp->flows);
	resting_sockets_make_room(&udp->resting, 0, 0);
	free_gone(udp);
	for (uint32_t i = 0; i < udp->n_places; i++)
		relay_socket_close(&udp->places[i].sock);
	relay_inbox_free(udp->inbox);
	if (udp->epoll_fd >= 0)
		close(udp->epoll_fd);
	if (udp->timer_fd >= 0)
		close(udp->timer_fd);
	free(udp);
}

int door_udp_fd(const struct door_udp *udp)
{
	return udp->epoll_fd;
}

struct watch *door_udp_watch(struct door_udp *udp)
{
	return &udp->watch;
}

void door_udp_set_routes(struct door_udp *udp, const struct door_routes *routes)
{
	udp->routes = routes;
}

uint16_t door_udp_port(const struct door_udp *udp, uint32_t place)
{
	return place < udp->n_places ? udp->places[place].sock.local.port : 0;
}

struct quic_counters door_udp_counters(const struct door_udp *udp)
{
	struct quic_counters counters = *quic_flows_counters(udp->flows);

	counters.full = udp->losses.full;
	counters.too_big = udp->losses.too_big;
	counters.failed = udp->losses.failed;
	return counters;
}
