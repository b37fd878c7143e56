/*
 * Ports that lead to one member each: opened and closed as the routes say, at the addresses where the door listens.
 *
 *   routes ──► wanted, and in the operator's ranges ──► open ──► who comes is let in at once: nothing is sniffed;
 *                                                        │        of UDP: door_datagrams.h
 *                                                        │
 *                                                        └ could not be had: again every ten seconds, and it is told
 *
 * Bounds: half of DOOR_MAX_PORTS of TCP, and of UDP; what is more is -ENOSPC.
 */
#include "relay/frontdoor/door_thread_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define OPEN_AGAIN_MS 10000

struct door_port {
	struct listener listener; /* of TCP; fd -1: not open */
	struct datagram_place *datagrams; /* of UDP; NULL: not open */
	struct port_name name;
	struct endpoint place;
	bool is_wanted;
	int error;
	struct link among_ports;
};

/* ---- one port at one address ---- */

static struct door_port *find_port(const struct door_thread *door, const struct port_name *name, const struct endpoint *place)
{
	for (struct link *at = door->ports.after; at != &door->ports; at = at->after) {
		struct door_port *port = container_of(at, struct door_port, among_ports);
		if (port_name_equal(&port->name, name) && endpoint_equal(&port->place, place))
			return port;
	}
	return NULL;
}

static void open_port(struct door_port *port)
{
	if (port->name.kind == PORT_UDP) {
		port->error = door_datagrams_open(port->listener.door->datagrams, &port->place, &port->name, &port->datagrams);
		return;
	}
	struct door_thread *door = port->listener.door;
	struct error error = { .message = "" };
	int fd = -1, r = door_open_listener(&port->place, NULL, &fd, &error);

	if (r == 0 && (r = door_watch(door, fd, &port->listener.watch, door->accept_again_ms == 0 ? EPOLLIN : 0)) < 0) {
		close(fd);
		fd = -1;
	}
	port->listener.fd = fd;
	port->error = r;
}

static void close_port(struct door_port *port)
{
	if (port->listener.fd >= 0) {
		/* A child that is being forked has it open for a moment: closing alone would leave it in the epoll set. */
		(void)epoll_ctl(port->listener.door->epoll_fd, EPOLL_CTL_DEL, port->listener.fd, NULL);
		close(port->listener.fd);
	}
	door_datagrams_close(port->datagrams);
	link_remove(&port->among_ports);
	free(port);
}

static struct door_port *add_port(struct door_thread *door, const struct port_name *name, const struct endpoint *place)
{
	struct door_port *port = calloc(1, sizeof(*port));

	if (!port)
		abort();
	port->name = *name;
	port->place = *place;
	port->listener = (struct listener){ .door = door, .fd = -1, .port = &port->name };
	door_listener_init(&port->listener);
	link_put_last(&door->ports, &port->among_ports);
	open_port(port);
	return port;
}

/* ---- all of them ---- */

/* The addresses where the door listens, each once: with the port's number instead of theirs. */
static uint32_t places_of(const struct door_thread *door, uint16_t number, struct endpoint ret[DOOR_MAX_LISTEN])
{
	return door_places_of_port(door->options.listen, door->options.n_listen, number, ret);
}

static void want_port(struct door_thread *door, const struct port_name *name)
{
	struct endpoint places[DOOR_MAX_LISTEN];
	const uint32_t n = places_of(door, name->number, places);

	for (uint32_t i = 0; i < n; i++) {
		struct door_port *port = find_port(door, name, &places[i]);
		if (!port)
			port = add_port(door, name, &places[i]);
		port->is_wanted = true;
	}
}

static void note(struct port_states *states, const struct port_name *name, int error)
{
	for (uint32_t i = 0; i < states->n; i++)
		if (port_name_equal(&states->items[i].name, name)) {
			states->items[i].error = states->items[i].error ? states->items[i].error : error;
			return;
		}
	if (states->n < DOOR_MAX_PORTS)
		states->items[states->n++] = (struct port_state){ .name = *name, .error = error };
}

static void note_all(struct door_thread *door)
{
	for (const struct link *at = door->ports.after; at != &door->ports; at = at->after) {
		const struct door_port *port = container_of(at, const struct door_port, among_ports);
		note(&door->port_states, &port->name, port->error);
	}
}

bool door_may_open_port(const struct door_thread *door, const struct port_name *name)
{
	if (name->kind == PORT_UDP)
		return door->datagrams && port_ranges_have(&door->options.udp_ports, name->number);
	return port_ranges_have(&door->options.tcp_ports, name->number);
}

/* The next one that is led somewhere and may be opened; *i: 0 at first. */
static bool next_port(const struct door_thread *door, uint32_t *i, struct port_name *ret)
{
	while (door->routes && !door->options.takes_header && door_routes_next_port(door->routes, i, ret))
		if (door_may_open_port(door, ret))
			return true;
	return false;
}

/* For whom there was no place, as far as there is room to tell: behind those that are open. */
static void note_left_out(struct door_thread *door)
{
	uint32_t i = 0, n[PORT_N_KINDS] = { 0 };
	struct port_name name;

	while (next_port(door, &i, &name))
		if (n[name.kind]++ >= DOOR_MAX_PORTS / 2)
			note(&door->port_states, &name, -ENOSPC);
}

void door_update_ports(struct door_thread *door)
{
	struct link *at, *next;
	struct port_name name;
	uint32_t i = 0, n[PORT_N_KINDS] = { 0 };

	for (at = door->ports.after; at != &door->ports; at = at->after)
		container_of(at, struct door_port, among_ports)->is_wanted = false;
	door->port_states.n = 0;
	while (next_port(door, &i, &name))
		if (n[name.kind]++ < DOOR_MAX_PORTS / 2)
			want_port(door, &name);
	for (at = door->ports.after; at != &door->ports; at = next) {
		struct door_port *port = container_of(at, struct door_port, among_ports);
		next = at->after;
		if (!port->is_wanted)
			close_port(port);
	}
	note_all(door);
	note_left_out(door);
	door->n_ports_changed++;
}

uint64_t door_retry_ports(struct door_thread *door)
{
	bool is_any = false;

	if (link_first(&door->ports) && door->now_ms >= door->ports_again_ms) {
		bool has_changed = false;
		for (struct link *at = door->ports.after; at != &door->ports; at = at->after) {
			struct door_port *port = container_of(at, struct door_port, among_ports);
			const int before = port->error;
			if (before != 0)
				open_port(port);
			has_changed = has_changed || port->error != before;
		}
		door->ports_again_ms = door->now_ms + OPEN_AGAIN_MS;
		if (has_changed)
			door_update_ports(door);
	}
	for (struct link *at = door->ports.after; at != &door->ports && !is_any; at = at->after)
		is_any = container_of(at, struct door_port, among_ports)->error != 0;
	return is_any ? door->ports_again_ms : UINT64_MAX;
}

void door_set_ports_accepting(struct door_thread *door, bool is_accepting)
{
	for (struct link *at = door->ports.after; at != &door->ports; at = at->after) {
		struct door_port *port = container_of(at, struct door_port, among_ports);
		struct epoll_event event = { .events = is_accepting ? EPOLLIN : 0, .data.ptr = &port->listener.watch };
		if (port->listener.fd >= 0)
			(void)epoll_ctl(door->epoll_fd, EPOLL_CTL_MOD, port->listener.fd, &event);
	}
}

uint64_t door_thread_ports(const struct door_thread *door, const struct port_states **ret)
{
	*ret = &door->port_states;
	return door->n_ports_changed;
}

void door_close_ports(struct door_thread *door)
{
	struct link *first;

	while ((first = link_first(&door->ports)))
		close_port(container_of(first, struct door_port, among_ports));
}

/* ---- who comes ---- */

void visitor_enter_port(struct visitor *visitor, const struct port_name *port)
{
	static const uint8_t nothing;
	struct sniffed found = { .protocol = SNIFFER_TCP };

	port_name_to_host(port, &found.host);
	if (visitor_keeps_place(visitor))
		visitor_let_in(visitor, &found, NULL, &nothing, 0);
	else
		visitor_turn_away(visitor);
}
