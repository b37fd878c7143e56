/*
 * To and from clients over TLS, whose connections are the loop's. What goes there is put into a ring as it came, headers
 * and all; what comes from there gets its header here.
 */
#include "common/relay_wire.h"
#include "relay/udp_server_internal.h"

#include <stdlib.h>
#include <string.h>

#define MAX_CARRIED 1024 /* packets of the bridge to UDP in one turn */

static void put_to_tls(struct udp_server *server, const struct udp_bridge_run *run, const uint8_t *bytes, uint32_t n)
{
	if (udp_bridge_put(&server->bridge.to_tls, run, bytes))
		server->has_put = true;
	else
		server->dropped_to_tls += n;
}

void udp_server_carry(struct udp_server *server, const struct udp_clients_route *route, const uint8_t *bytes,
		      size_t len, size_t size, uint32_t n)
{
	const struct udp_bridge_run run = {
		.from = *route->from, .to = *route->to, .size = (uint32_t)size, .len = (uint32_t)len,
		.head = RELAY_UDP_HEADER_LEN,
	};

	if (size - RELAY_UDP_HEADER_LEN > RELAY_MAX_PACKET) /* the longest datagrams of IPv6 have no room in a frame */
		server->dropped_to_tls += n;
	else
		put_to_tls(server, &run, bytes, n);
}

static void take_note(struct udp_server *server, const struct udp_bridge_note *note)
{
	switch (note->news) {
	case UDP_BRIDGE_CAME:
		udp_clients_add_elsewhere(server->clients, &note->node_key, server->now_ns);
		break;
	case UDP_BRIDGE_LEFT:
		udp_clients_remove_elsewhere(server->clients, &note->node_key);
		break;
	case UDP_BRIDGE_PINGED:
		udp_clients_ping_elsewhere(server->clients, &note->node_key, server->now_ns);
		break;
	case UDP_BRIDGE_REACHED:
	case UDP_BRIDGE_UNREACHED:
		break; /* that is for us to say */
	}
}

void udp_server_take_notes(struct udp_server *server)
{
	struct udp_bridge_notes notes;

	if (!udp_bridge_take(&server->bridge.notes_to_udp, &notes))
		return;
	for (size_t i = 0; i < notes.n; i++)
		take_note(server, &notes.items[i]);
	free(notes.items);
}

void udp_server_tell_reached(void *owner, const struct public_key *node_key, bool is_here)
{
	struct udp_server *server = owner;

	udp_bridge_note(&server->bridge.notes_to_tls, node_key, is_here ? UDP_BRIDGE_REACHED : UDP_BRIDGE_UNREACHED);
	server->has_put = true;
}

/* Where a packet from TLS goes. The note that its sender is there may have come after we looked for notes. */
static enum udp_clients_place route_carried(struct udp_server *server, const struct udp_bridge_run *run,
					    struct udp_way **ret_way, struct relay_udp_header *ret)
{
	const enum udp_clients_place place = udp_clients_route_from_elsewhere(
		server->clients, &run->from, &run->to, run->len, server->now_ns, ret_way, ret);

	if (place != UDP_CLIENTS_NOWHERE || !atomic_load(&server->bridge.notes_to_udp.has_notes))
		return place;
	udp_server_take_notes(server);
	return udp_clients_route_from_elsewhere(server->clients, &run->from, &run->to, run->len, server->now_ns,
						ret_way, ret);
}

/* A ring has one record at a time, and an outbox wants all to stay: so it is copied once more. */
static void send_carried(struct udp_server *server, struct udp_way *way, const struct relay_udp_header *header,
			 const uint8_t *bytes, size_t len)
{
	const size_t whole = RELAY_UDP_HEADER_LEN + len;

	if (server->n_staged + whole > STAGED_BYTES)
		udp_server_flush(server);
	uint8_t *at = server->staged + server->n_staged;
	relay_udp_header_encode(at, header);
	memcpy(at + RELAY_UDP_HEADER_LEN, bytes, len);
	server->n_staged += whole;
	udp_server_forward_run(server, way, at, whole, whole, 1);
}

static void take_run(struct udp_server *server, const struct udp_bridge_run *run, const uint8_t *bytes)
{
	const struct udp_bridge_run gone = { .from = run->to, .to = run->from, .is_gone = true };
	struct relay_udp_header header;
	struct udp_way *way;

	server->turn.bytes += run->len;
	switch (route_carried(server, run, &way, &header)) {
	case UDP_CLIENTS_HERE:
		send_carried(server, way, &header, bytes, run->len);
		break;
	case UDP_CLIENTS_ELSEWHERE:
		put_to_tls(server, run, bytes, 1);
		break;
	case UDP_CLIENTS_NOWHERE:
		if (udp_clients_may_tell_gone(server->clients, &run->from, server->now_ns))
			put_to_tls(server, &gone, NULL, 1);
		break;
	}
}

void udp_server_take_carried(struct udp_server *server)
{
	struct ring *ring = &server->bridge.to_udp;
	const uint64_t end = ring_mark(ring); /* what comes meanwhile is for the next turn */
	const struct udp_bridge_run *run;
	const uint8_t *bytes;

	for (int n = 0; !ring_is_taken(ring, end) && (run = udp_bridge_peek(ring, &bytes)); n++) {
		if (n == MAX_CARRIED) { /* the sockets have their turn, and then the rest */
			udp_server_wake(server);
			break;
		}
		take_run(server, run, bytes);
		ring_release(ring);
	}
	udp_server_flush(server);
}
