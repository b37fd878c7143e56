/*
 * Messages from sockets are datagrams, or trains of them from one address. A train of one flow goes on as one, unless each of its
 * datagrams gets a header. What is over is freed at the end of the turn, as events of the same turn may still point to it; its
 * socket rests (resting_sockets.h), so that nobody gets its port while answers for it are under way.
 */
#include "relay/frontdoor/door_datagrams.h"

#include "common/clock.h"
#include "common/log.h"
#include "relay/frontdoor/door_udp_socket.h"
#include "relay/frontdoor/proxy_header_wire.h"
#include "relay/frontdoor/resting_sockets.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define EVENTS_A_TURN	32
#define MESSAGES_A_TURN 64 /* of one socket */
#define MAX_FLOWS	4096
#define FILES_A_FLOW	8 /* of so many one is for a flow */
#define MAX_DOORS	2 /* as visitors of TCP: a front door, and the acceptor of a member */
#define HEADER_MAX	384
#define LOOPBACK	1 /* the index of the loopback interface, always */
#define LOOK_AGAIN_MS	1000
#define PLACE_BUFFER	(1 << 20) /* for receiving: there may be many places, which strangers fill */

struct datagram_place {
	struct watch watch;
	struct door_datagrams *datagrams;
	struct relay_socket sock;
	struct port_name name; /* number 0: headers say */
	bool is_whole;		/* what leaves is not cut into pieces */
	uint32_t interface;	/* where headers say: that has its address, when it was looked for last; 0: none */
	uint64_t look_again_ms;
	struct link among_places;
};

/* What a flow has. */
struct carrier {
	struct watch watch;
	struct datagram_flow *flow; /* NULL: over */
	struct datagram_place *place;
	struct relay_socket sock; /* connected to the target */
	struct endpoint target, destination; /* destination: that the visitor came to */
	enum sniffer_protocol protocol;
	struct host_name name; /* of the port, or of QUIC's host */
	uint8_t n_doors;
	enum door_header header;
	struct door_gate *gate;	   /* held */
	struct door_place *led_to; /* held; NULL: there is but the target */
	bool has_answered, was_refused;
	bool has_no_trains[2]; /* to its target, to its visitor */
	struct link gone;
};

struct door_datagrams {
	struct watch watch;
	int epoll_fd;
	bool takes_header;
	const struct door_routes *routes;
	struct datagram_flows *flows;
	struct relay_inbox *inbox;
	struct link places, gone;
	struct resting_sockets resting; /* no more than there are places for flows that are free */
	uint32_t max_flows;
	uint16_t last_number;
	uint64_t now_ms, n_chosen;
	struct door_udp_losses losses;
	struct log_limit log_limit, targets_log_limit; /* as door_udp.c */
};

/* A datagram, or a train: who sent it, and what for. */
struct arrival {
	struct datagram_place *place;
	const struct udp_way *way;
	struct endpoint visitor, destination;
	enum sniffer_protocol protocol; /* SNIFFER_UDP; or SNIFFER_QUIC, which has no port */
	uint16_t port;
	struct host_name name; /* of the port, or of QUIC's host */
	uint8_t n_doors;
	const uint8_t *bytes;
	size_t len, size;
};

static struct datagram_counters *counters_of(struct door_datagrams *datagrams)
{
	return datagram_flows_counters(datagrams->flows);
}

static int watch_fd(struct door_datagrams *datagrams, int fd, struct watch *watch)
{
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = watch };

	return epoll_ctl(datagrams->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

/* ---- the end of a flow ---- */

/* Whether it is there, of a host that is what its TCP port does: many have no QUIC. */
static bool is_told_of_target(const struct carrier *carrier)
{
	return carrier->protocol == SNIFFER_UDP;
}

static void leave_target(struct carrier *carrier)
{
	/* It took datagrams again and said nothing: it may be there. */
	const bool is_quiet = !carrier->has_answered && !carrier->was_refused && is_told_of_target(carrier);

	if (carrier->gate) {
		if (is_quiet && door_gate_counters(carrier->gate).state == DOOR_TARGET_DOWN)
			door_gate_set_state(carrier->gate, DOOR_TARGET_UNKNOWN);
		door_gate_leave(carrier->gate);
		door_gate_let_go(carrier->gate);
	}
	if (carrier->led_to)
		door_place_leave(carrier->led_to);
	door_place_let_go(carrier->led_to);
}

/* How long it is. */
static size_t put_header(struct carrier *carrier, uint8_t *buf)
{
	const struct proxy_header header = {
		.has_addresses = true,
		.is_datagram = true,
		.source = carrier->flow->visitor,
		.destination = carrier->destination,
		.authority = { .at = (const uint8_t *)carrier->name.text, .len = carrier->name.len },
		.scheme = PROXY_UDP,
		.n_doors = (uint8_t)(carrier->n_doors + 1),
	};
	return proxy_v2_encode(&header, buf, HEADER_MAX);
}

/*
 * A member's acceptor has a flow for this socket's port, and its target may go on for minutes: it is told, by the header alone, before the
 * kernel gives the port to another visitor's. Visitors' own empty datagrams are not passed on, so nothing else looks so.
 */
static void say_ended(struct carrier *carrier)
{
	struct door_datagrams *datagrams = carrier->place->datagrams;
	uint8_t header[HEADER_MAX];

	if (datagrams->takes_header || carrier->header != DOOR_HEADER_V2)
		return;
	door_udp_send_behind(&carrier->sock, header, put_header(carrier, header), header, 0, 0, &datagrams->losses);
}

static void on_flow_ended(void *owner, struct datagram_flow *flow)
{
	struct door_datagrams *datagrams = owner;
	struct carrier *carrier = flow->owner;

	if (!carrier)
		return;
	say_ended(carrier);
	carrier->flow = NULL;
	/* A child that is being forked has it open for a moment: closing alone would leave it in the epoll set. */
	(void)epoll_ctl(datagrams->epoll_fd, EPOLL_CTL_DEL, carrier->sock.fd, NULL);
	leave_target(carrier);
	resting_sockets_add(&datagrams->resting, &carrier->sock, clock_now_ns() / 1000000);
	link_put_last(&datagrams->gone, &carrier->gone);
}

static void free_gone(struct door_datagrams *datagrams)
{
	struct link *first;

	while ((first = link_first(&datagrams->gone))) {
		link_remove(first);
		free(container_of(first, struct carrier, gone));
	}
}

/* ---- from targets ---- */

static void note_refused(struct carrier *carrier)
{
	if (carrier->was_refused)
		return;
	carrier->was_refused = true;
	carrier->has_answered = false;
	if (carrier->gate && is_told_of_target(carrier))
		door_gate_not_reached(carrier->gate);
	if (carrier->led_to)
		door_place_failed(carrier->led_to, carrier->place->datagrams->now_ms);
	counters_of(carrier->place->datagrams)->unreachable++;
}

static void note_answered(struct carrier *carrier)
{
	if (carrier->has_answered)
		return;
	carrier->has_answered = true;
	carrier->was_refused = false;
	if (carrier->gate && is_told_of_target(carrier))
		door_gate_reached(carrier->gate);
	if (carrier->led_to)
		door_place_answered(carrier->led_to);
}

static void pass_to_visitor(struct carrier *carrier, const struct relay_message *message)
{
	struct door_datagrams *datagrams = carrier->place->datagrams;
	struct datagram_counters *counters = counters_of(datagrams);

	if (message->len == 0)
		return;
	datagram_flows_from_target(datagrams->flows, carrier->flow);
	note_answered(carrier);
	counters->datagrams_out += (message->len + message->size - 1) / message->size;
	counters->bytes_out += message->len;
	if (carrier->gate)
		door_gate_moved(carrier->gate, 0, message->len);
	door_udp_set_whole_for(&carrier->place->sock, carrier->protocol == SNIFFER_QUIC ? message->size : 0,
			       &carrier->place->is_whole);
	door_udp_send(&carrier->place->sock, &carrier->flow->way, message->bytes, message->len, message->size,
		      &carrier->has_no_trains[1], &datagrams->losses);
}

static void on_target(struct watch *watch, uint32_t events)
{
	struct carrier *carrier = container_of(watch, struct carrier, watch);
	int error = 0;
	socklen_t len = sizeof(error);
	bool is_full;

	if (!carrier->flow)
		return;
	struct door_datagrams *datagrams = carrier->place->datagrams;
	/* What the target's machine says: nobody has that port. */
	if (events & EPOLLERR && getsockopt(carrier->sock.fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0 && error != 0)
		note_refused(carrier);
	const uint32_t n = relay_inbox_receive(datagrams->inbox, &carrier->sock, &is_full);
	for (uint32_t i = 0; i < n; i++)
		pass_to_visitor(carrier, relay_inbox_message(datagrams->inbox, i));
}

/* ---- to targets ---- */

static void pass_with_header(struct carrier *carrier, const struct arrival *arrival)
{
	uint8_t header[HEADER_MAX];

	door_udp_send_behind(&carrier->sock, header, put_header(carrier, header), arrival->bytes, arrival->len, arrival->size,
			     &carrier->place->datagrams->losses);
}

static void pass_to_target(struct carrier *carrier, const struct arrival *arrival)
{
	struct door_datagrams *datagrams = carrier->place->datagrams;
	struct datagram_counters *counters = counters_of(datagrams);

	counters->datagrams_in += (arrival->len + arrival->size - 1) / arrival->size;
	counters->bytes_in += arrival->len;
	if (carrier->gate)
		door_gate_moved(carrier->gate, arrival->len, 0);
	if (carrier->header == DOOR_HEADER_V2)
		pass_with_header(carrier, arrival);
	else
		door_udp_send(&carrier->sock, NULL, arrival->bytes, arrival->len, arrival->size, &carrier->has_no_trains[0],
			      &datagrams->losses);
}

/* ---- the beginning of a flow ---- */

static void say_refused(struct door_datagrams *datagrams, const struct arrival *arrival, const char *why)
{
	log_limited(&datagrams->log_limit, LOG_LEVEL_INFO, "frontdoor", "%s to %s%s: %s: no answer",
		    endpoint_ip_text(&arrival->visitor).s, arrival->name.text, arrival->protocol == SNIFFER_QUIC ? " by QUIC" : "",
		    why);
}

/* NULL: nobody's, or nobody there, or not to be had by this one; counted. */
static const struct door_route *find_route(struct door_datagrams *datagrams, const struct arrival *arrival)
{
	struct datagram_counters *counters = counters_of(datagrams);
	const struct door_route *route = datagrams->routes ? door_routes_find(datagrams->routes, arrival->protocol, &arrival->name)
							   : NULL;
	const bool is_quic = arrival->protocol == SNIFFER_QUIC;

	if (!route || endpoint_is_none(&route->target) || (is_quic && !door_route_has_quic(route))) {
		counters->unknown_port += !route;
		counters->nobody_there += route != NULL;
		say_refused(datagrams, arrival, route ? "nobody is there" : is_quic ? "unknown host" : "unknown port");
		return NULL;
	}
	if (datagrams->takes_header && door_routes_lead_back(datagrams->routes, &arrival->destination, route)) {
		counters->in_a_ring++;
		say_refused(datagrams, arrival, "it would be led in a ring");
		return NULL;
	}
	const enum door_gate_answer answer = route->gate ? door_gate_ask(route->gate, &arrival->visitor, false, datagrams->now_ms)
							 : DOOR_GATE_OPEN;
	if (answer == DOOR_GATE_OPEN)
		return route;
	counters->not_allowed += answer == DOOR_GATE_NOT_ALLOWED;
	counters->over_gate_rate += answer != DOOR_GATE_NOT_ALLOWED;
	say_refused(datagrams, arrival, door_gate_answer_name(answer));
	return NULL;
}

static int connect_to(struct door_datagrams *datagrams, struct carrier *carrier)
{
	int r = door_udp_connect(&carrier->target, &carrier->sock);

	if (r < 0)
		return r;
	if (carrier->protocol == SNIFFER_UDP)
		(void)relay_socket_set_whole(&carrier->sock, false);
	if ((r = watch_fd(datagrams, carrier->sock.fd, &carrier->watch)) < 0)
		relay_socket_close(&carrier->sock);
	return r;
}

/* What this machine has no more of, EAGAIN: ports of its own. It says nothing of the target. */
static bool is_ours(int error)
{
	return error == -EMFILE || error == -ENFILE || error == -ENOSPC || error == -ENOMEM || error == -EAGAIN;
}

static void note_not_connected(struct door_datagrams *datagrams, const struct door_route *route, int error)
{
	struct datagram_counters *counters = counters_of(datagrams);

	counters->no_descriptors += is_ours(error);
	counters->unreachable += !is_ours(error);
	if (!is_ours(error) && route->gate && route->scheme == DOOR_UDP)
		door_gate_not_reached(route->gate);
	log_limited(&datagrams->targets_log_limit, LOG_LEVEL_WARNING, "frontdoor", "%s is not reached: %s",
		    route->entry.pattern.name.text, strerror(-error));
}

/* NULL: it is not led anywhere. */
static struct carrier *open_carrier(struct door_datagrams *datagrams, const struct arrival *arrival,
				    const struct door_route *route)
{
	struct door_place *led_to = route->n_places > 0 ? door_place_choose(route->places, route->n_places, NULL, 0,
									    datagrams->now_ms)
							: NULL;
	struct carrier *carrier = calloc(1, sizeof(*carrier));

	if (!carrier)
		abort();
	carrier->watch.happened = on_target;
	carrier->place = arrival->place;
	carrier->target = led_to ? led_to->target : route->target;
	carrier->destination = arrival->destination;
	carrier->protocol = arrival->protocol;
	carrier->name = arrival->name;
	carrier->n_doors = arrival->n_doors;
	carrier->header = route->header;
	/* This flow is among those that are there. */
	resting_sockets_make_room(&datagrams->resting, counters_of(datagrams)->flows_now, datagrams->max_flows);
	int r = connect_to(datagrams, carrier);
	for (uint32_t try = 0; is_ours(r) && resting_sockets_give_up(&datagrams->resting, try); try++)
		r = connect_to(datagrams, carrier);
	if (r < 0) {
		note_not_connected(datagrams, route, r);
		free(carrier);
		return NULL;
	}
	if (led_to) {
		carrier->led_to = door_place_hold(led_to);
		door_place_enter(led_to, ++datagrams->n_chosen, datagrams->now_ms);
	}
	if (route->gate) {
		carrier->gate = door_gate_hold(route->gate);
		door_gate_enter(route->gate);
	}
	return carrier;
}

/* ---- from visitors ---- */

/* A flow of QUIC has no port, by which others are told apart: a door may have its socket for another host of the same visitor now. */
static void end_of_another_host(struct door_datagrams *datagrams, const struct arrival *arrival)
{
	struct datagram_flow *flow = datagram_flows_find(datagrams->flows, arrival->way);
	const struct carrier *carrier = flow ? flow->owner : NULL;

	if (carrier && (carrier->protocol != arrival->protocol || !host_name_equal(&carrier->name, &arrival->name)))
		datagram_flows_end(datagrams->flows, flow);
}

static void take_arrival(struct door_datagrams *datagrams, const struct arrival *arrival)
{
	struct datagram_flow *flow;

	if (arrival->protocol == SNIFFER_QUIC)
		end_of_another_host(datagrams, arrival);
	switch (datagram_flows_from_visitor(datagrams->flows, arrival->way, &arrival->visitor, arrival->port,
					    datagrams->now_ms, &flow)) {
	case DATAGRAM_DROPPED:
		return;
	case DATAGRAM_BEGUN: {
		const struct door_route *route = find_route(datagrams, arrival);
		struct carrier *carrier = route ? open_carrier(datagrams, arrival, route) : NULL;
		if (!carrier) {
			datagram_flows_end(datagrams->flows, flow);
			return;
		}
		flow->owner = carrier;
		carrier->flow = flow;
		break;
	}
	case DATAGRAM_PASS:
		break;
	}
	pass_to_target(flow->owner, arrival);
}

static bool take_port(const struct proxy_value *authority, struct arrival *arrival)
{
	struct port_name port;

	if (port_name_from((const char *)authority->at, authority->len, &port) != 0 || port.kind != PORT_UDP || port.door_id != 0)
		return false;
	arrival->protocol = SNIFFER_UDP;
	arrival->port = port.number;
	port_name_to_host(&port, &arrival->name);
	return true;
}

static bool take_host(const struct proxy_value *authority, struct arrival *arrival)
{
	arrival->protocol = SNIFFER_QUIC;
	arrival->port = 0; /* which no port is */
	return host_name_from((const char *)authority->at, authority->len, &arrival->name) == 0;
}

static bool take_name(const struct proxy_header *header, struct arrival *arrival)
{
	if (!header->is_datagram || !header->authority.at)
		return false;
	return header->scheme == PROXY_UDP     ? take_port(&header->authority, arrival)
	       : header->scheme == PROXY_HTTPS ? take_host(&header->authority, arrival)
					       : false;
}

/* False: it is none that a front door would send. */
static bool take_header(struct door_datagrams *datagrams, struct arrival *arrival)
{
	struct datagram_counters *counters = counters_of(datagrams);
	struct proxy_header header;
	size_t len;

	if (proxy_v2_decode(arrival->bytes, arrival->len, &header, &len) != 0 || !take_name(&header, arrival)) {
		counters->bad_header++;
		return false;
	}
	arrival->n_doors = header.n_doors != 0 ? header.n_doors : 1;
	if (arrival->n_doors >= MAX_DOORS) {
		counters->in_a_ring++;
		return false;
	}
	arrival->visitor = header.source;
	arrival->destination = header.destination;
	arrival->bytes += len;
	arrival->len -= len;
	arrival->size = arrival->len;
	return true;
}

/*
 * Linux takes datagrams to any address of its own by any interface: without this, whoever is at a link of this machine could send
 * in a door's name. What is of this machine itself, as of its own door, comes by the interface of the address or by loopback.
 */
static bool is_by_its_interface(struct datagram_place *place, uint32_t ifindex)
{
	const uint64_t now_ms = place->datagrams->now_ms;

	if (ifindex == LOOPBACK)
		return true;
	if (ifindex != place->interface && now_ms >= place->look_again_ms) { /* it may have been made anew */
		place->interface = door_udp_interface_of(&place->sock.local);
		place->look_again_ms = now_ms + LOOK_AGAIN_MS;
	}
	return ifindex != 0 && ifindex == place->interface;
}

/* From another door, each datagram with a header. */
static void take_from_door(struct datagram_place *place, const struct relay_message *message)
{
	struct door_datagrams *datagrams = place->datagrams;

	if (!datagrams->routes || !door_routes_has_door(datagrams->routes, &message->from.remote) ||
	    !is_by_its_interface(place, message->ifindex)) {
		counters_of(datagrams)->no_door++;
		return;
	}
	for (size_t at = 0; at < message->len; at += message->size) {
		const size_t len = message->len - at < message->size ? message->len - at : message->size;
		struct arrival arrival = { .place = place, .way = &message->from, .bytes = message->bytes + at, .len = len };
		if (!take_header(datagrams, &arrival))
			continue;
		if (arrival.len > 0)
			take_arrival(datagrams, &arrival);
		else
			(void)datagram_flows_end_of(datagrams->flows, arrival.way, &arrival.visitor, arrival.port);
	}
}

static void take_message(struct datagram_place *place, const struct relay_message *message)
{
	struct arrival arrival = { .place = place,
				   .way = &message->from,
				   .visitor = message->from.remote,
				   .destination = message->asked,
				   .protocol = SNIFFER_UDP,
				   .port = place->name.number,
				   .bytes = message->bytes,
				   .len = message->len,
				   .size = message->size };

	if (message->len == 0)
		return;
	if (place->datagrams->takes_header) {
		take_from_door(place, message);
		return;
	}
	port_name_to_host(&place->name, &arrival.name);
	take_arrival(place->datagrams, &arrival);
}

static void on_place(struct watch *watch, uint32_t events)
{
	struct datagram_place *place = container_of(watch, struct datagram_place, watch);
	struct relay_inbox *inbox = place->datagrams->inbox;
	bool is_full;

	(void)events;
	const uint32_t n = relay_inbox_receive(inbox, &place->sock, &is_full);
	for (uint32_t i = 0; i < n; i++)
		take_message(place, relay_inbox_message(inbox, i));
}

static void on_turn(struct watch *watch, uint32_t events)
{
	struct door_datagrams *datagrams = container_of(watch, struct door_datagrams, watch);
	struct epoll_event happened[EVENTS_A_TURN];
	const int n = epoll_wait(datagrams->epoll_fd, happened, EVENTS_A_TURN, 0);

	(void)events;
	datagrams->now_ms = clock_now_ns() / 1000000;
	for (int i = 0; i < n; i++) {
		struct watch *watched = happened[i].data.ptr;
		watched->happened(watched, happened[i].events);
	}
	free_gone(datagrams);
}

/* ---- places ---- */

/* Sockets are told apart by it. */
static uint16_t next_number(struct door_datagrams *datagrams)
{
	const struct link *at;

	do {
		datagrams->last_number++;
		for (at = datagrams->places.after; at != &datagrams->places; at = at->after)
			if (container_of(at, const struct datagram_place, among_places)->sock.number == datagrams->last_number)
				break;
	} while (at != &datagrams->places);
	return datagrams->last_number;
}

int door_datagrams_open(struct door_datagrams *datagrams, const struct endpoint *address, const struct port_name *name,
			struct datagram_place **ret)
{
	struct datagram_place *place = calloc(1, sizeof(*place));

	if (!place)
		abort();
	int r = door_udp_listen(address, next_number(datagrams), &place->sock);
	if (r == 0) {
		const int buffer = PLACE_BUFFER;
		(void)setsockopt(place->sock.fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof(buffer));
		(void)relay_socket_set_whole(&place->sock, false);
		if (datagrams->takes_header)
			r = relay_socket_tell_interface(&place->sock);
		if (r == 0)
			r = watch_fd(datagrams, place->sock.fd, &place->watch);
		if (r < 0)
			relay_socket_close(&place->sock);
	}
	if (r < 0) {
		free(place);
		return r;
	}
	place->watch.happened = on_place;
	place->datagrams = datagrams;
	if (name)
		place->name = *name;
	link_put_last(&datagrams->places, &place->among_places);
	*ret = place;
	return 0;
}

static bool is_of_place(const void *context, const struct datagram_flow *flow)
{
	const struct carrier *carrier = flow->owner;

	return carrier && carrier->place == context;
}

void door_datagrams_close(struct datagram_place *place)
{
	if (!place)
		return;
	struct door_datagrams *datagrams = place->datagrams;
	datagram_flows_end_some(datagrams->flows, is_of_place, place);
	free_gone(datagrams);
	(void)epoll_ctl(datagrams->epoll_fd, EPOLL_CTL_DEL, place->sock.fd, NULL);
	relay_socket_close(&place->sock);
	link_remove(&place->among_places);
	free(place);
}

/* ---- routes and time ---- */

static bool leads_to(const struct door_route *route, const struct carrier *carrier)
{
	bool has = route->n_places == 0 && !carrier->led_to && endpoint_equal(&route->target, &carrier->target);

	for (uint32_t i = 0; i < route->n_places; i++)
		has = has || route->places[i] == carrier->led_to;
	return has && route->gate == carrier->gate && route->header == carrier->header &&
	       !(carrier->gate && door_gate_is_shut(carrier->gate));
}

static bool is_led_elsewhere(const void *context, const struct datagram_flow *flow)
{
	const struct door_datagrams *datagrams = context;
	const struct carrier *carrier = flow->owner;
	const struct door_route *route = datagrams->routes && carrier
						 ? door_routes_find(datagrams->routes, carrier->protocol, &carrier->name)
						 : NULL;

	return !route || !leads_to(route, carrier) || (carrier->protocol == SNIFFER_QUIC && !door_route_has_quic(route));
}

void door_datagrams_set_routes(struct door_datagrams *datagrams, const struct door_routes *routes)
{
	datagrams->routes = routes;
	datagram_flows_end_some(datagrams->flows, is_led_elsewhere, datagrams);
	free_gone(datagrams);
}

uint64_t door_datagrams_expire(struct door_datagrams *datagrams, uint64_t now_ms)
{
	const uint64_t next = datagram_flows_expire(datagrams->flows, now_ms);
	const uint64_t rested = resting_sockets_expire(&datagrams->resting, now_ms);

	free_gone(datagrams);
	return rested < next ? rested : next;
}

/* ---- beginning and end ---- */

uint32_t door_datagrams_max_flows(uint64_t max_files)
{
	const uint64_t most = max_files / FILES_A_FLOW > 16 ? max_files / FILES_A_FLOW : 16;

	return most < MAX_FLOWS ? (uint32_t)most : MAX_FLOWS;
}

int door_datagrams_new(uint32_t max_flows, bool takes_header, struct door_datagrams **ret)
{
	struct door_datagrams *datagrams = calloc(1, sizeof(*datagrams));

	if (!datagrams)
		abort();
	const struct datagram_flows_options options = {
		.times_ms = { 10000, 30000, 120000 },
		.max_flows = max_flows,
		.max_source = max_flows / 8 > 8 ? max_flows / 8 : 8,
		.begun_per_s = 5000,
		.begun_port_per_s = 50,
		.begun_source_per_s = 200,
		.owner = datagrams,
		.ended = on_flow_ended,
	};
	link_init_ring(&datagrams->places);
	link_init_ring(&datagrams->gone);
	resting_sockets_init(&datagrams->resting);
	datagrams->max_flows = max_flows;
	datagrams->takes_header = takes_header;
	datagrams->watch.happened = on_turn;
	datagrams->now_ms = clock_now_ns() / 1000000;
	datagrams->flows = datagram_flows_new(&options, datagrams->now_ms);
	datagrams->inbox = relay_inbox_new();
	datagrams->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (datagrams->epoll_fd < 0 || !datagrams->inbox) {
		const int r = datagrams->epoll_fd < 0 ? -errno : -ENOMEM;
		door_datagrams_free(datagrams);
		return r;
	}
	relay_inbox_set_most(datagrams->inbox, MESSAGES_A_TURN);
	*ret = datagrams;
	return 0;
}

void door_datagrams_free(struct door_datagrams *datagrams)
{
	struct link *first;

	if (!datagrams)
		return;
	while ((first = link_first(&datagrams->places)))
		door_datagrams_close(container_of(first, struct datagram_place, among_places));
	datagram_flows_free(datagrams->flows);
	resting_sockets_make_room(&datagrams->resting, 0, 0);
	free_gone(datagrams);
	relay_inbox_free(datagrams->inbox);
	if (datagrams->epoll_fd >= 0)
		close(datagrams->epoll_fd);
	free(datagrams);
}

int door_datagrams_fd(const struct door_datagrams *datagrams)
{
	return datagrams->epoll_fd;
}

struct watch *door_datagrams_watch(struct door_datagrams *datagrams)
{
	return &datagrams->watch;
}

struct datagram_counters door_datagrams_counters(const struct door_datagrams *datagrams)
{
	struct datagram_counters counters = *datagram_flows_counters(datagrams->flows);

	counters.full = datagrams->losses.full;
	counters.too_big = datagrams->losses.too_big;
	counters.failed = datagrams->losses.failed;
	return counters;
}
