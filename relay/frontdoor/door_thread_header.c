/*
 * The PROXY header: what another door says of a visitor that it passes on, and what this one says to a target.
 *
 *   door ──► header: visitor, host, scheme ──► who it is, and the host's route ──► as if it had come by itself
 *                   how many doors ──► one more; who has come through DOOR_MAX_DOORS is led in a ring, and refused
 */
#include "relay/frontdoor/door_thread_internal.h"

#include "relay/frontdoor/proxy_header_wire.h"

#include <assert.h>
#include <errno.h>
#include <sys/socket.h>

static bool find_host(const struct proxy_header *header, struct sniffed *ret)
{
	struct sniffed found = { .protocol = header->scheme == PROXY_HTTPS ? SNIFFER_TLS : SNIFFER_HTTP_1 };
	const char *name = (const char *)header->authority.at;
	struct port_name port;

	if (!header->has_addresses || header->is_datagram || !name)
		return false;
	if (header->scheme == PROXY_TCP) {
		if (port_name_from(name, header->authority.len, &port) != 0 || port.kind != PORT_TCP || port.door_id != 0)
			return false;
		found.protocol = SNIFFER_TCP;
		port_name_to_host(&port, &found.host);
	} else if ((header->scheme != PROXY_HTTP && header->scheme != PROXY_HTTPS) ||
		   host_name_from(name, header->authority.len, &found.host) != 0) {
		return false;
	}
	*ret = found;
	return true;
}

/* Who is passed on has the share of places of its own address, not that of the door which passes it on. */
static bool become(struct visitor *visitor, const struct endpoint *remote)
{
	struct door_thread *door = visitor->door;
	const uint16_t source = door_source_of(door, remote);

	if (door->n_of_source[source] >= door->options.max_visitors_source) {
		door->counters.over_source_limit++;
		return false;
	}
	door->n_of_source[visitor->source]--;
	door->n_of_source[source]++;
	visitor->source = source;
	visitor->remote = *remote;
	return true;
}

/* A door of before does not say how many; it is one. */
static uint8_t doors_of(const struct proxy_header *header)
{
	return header->n_doors != 0 ? header->n_doors : 1;
}

void visitor_refuse_ring(struct visitor *visitor, const struct host_name *host)
{
	struct door_thread *door = visitor->door;

	door->counters.in_a_ring++;
	log_limited(&door->log_limit, LOG_LEVEL_WARNING, "frontdoor",
		    "%s for %s has come through %u doors, and would be led to one more: refused", host->text,
		    endpoint_ip_text(&visitor->remote).s, visitor->n_doors);
	visitor_turn_away(visitor);
}

bool visitor_take_header(struct visitor *visitor, const uint8_t *bytes, size_t n)
{
	struct door_thread *door = visitor->door;
	struct proxy_header header;
	struct sniffed found;
	size_t len = 0;
	const int r = proxy_v2_decode(bytes, n, &header, &len);

	if (r == PROXY_MORE)
		return true;
	if (r != 0 || !find_host(&header, &found)) {
		door->counters.bad_header++;
		log_limited(&door->log_limit, LOG_LEVEL_WARNING, "frontdoor", "header from %s: %s: refused",
			    endpoint_ip_text(&visitor->remote).s, r != 0 ? proxy_header_error_name(r) : "no host");
		visitor_turn_away(visitor);
	} else if ((visitor->n_doors = doors_of(&header)) >= DOOR_MAX_DOORS) {
		visitor_refuse_ring(visitor, &found.host);
	} else if (!become(visitor, &header.source)) {
		visitor_turn_away(visitor);
	} else {
		visitor_let_in(visitor, &found, &header.destination, bytes + len, n - len);
	}
	return false;
}

struct endpoint visitor_own_end(const struct visitor *visitor)
{
	struct sockaddr_storage address = { 0 };
	socklen_t len = sizeof(address);

	(void)getsockname(visitor->pair.ends[0].fd, (struct sockaddr *)&address, &len);
	return endpoint_from_sockaddr((const struct sockaddr *)&address);
}

static enum proxy_scheme scheme_of(enum sniffer_protocol protocol)
{
	switch (protocol) {
	case SNIFFER_TLS:
		return PROXY_HTTPS;
	case SNIFFER_TCP:
		return PROXY_TCP;
	default:
		return PROXY_HTTP;
	}
}

size_t visitor_write_header(const struct visitor *visitor, enum door_header kind, const struct sniffed *found,
			    const struct endpoint *destination, uint8_t buf[DOOR_HEADER_MAX])
{
	const struct proxy_header header = {
		.has_addresses = true,
		.source = visitor->remote,
		.destination = destination ? *destination : visitor_own_end(visitor),
		.authority = { .at = (const uint8_t *)found->host.text, .len = found->host.len },
		.scheme = scheme_of(found->protocol),
		.n_doors = (uint8_t)(visitor->n_doors + 1),
	};
	const size_t n = kind == DOOR_HEADER_V1 ? proxy_v1_encode(&header, buf, DOOR_HEADER_MAX)
						: proxy_v2_encode(&header, buf, DOOR_HEADER_MAX);

	assert(n > 0);
	return n;
}
