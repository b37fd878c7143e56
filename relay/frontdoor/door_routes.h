/*
 * Where visitors go: from host and protocol to an address.
 *
 *   text of the configuration ──► door_rule ──► door_routes ──► door_route (its target)
 *
 *   app.example.org 127.0.0.1:8443              HTTPS and HTTP
 *   https://app.example.org 127.0.0.1:8443      HTTPS (TLS by its SNI) alone
 *   http://app.example.org 127.0.0.1:8080       HTTP/1 and HTTP/2 without TLS alone
 *   *.example.org [2001:db8::7]:443             one label instead of the star
 *   app.example.org alice:8443                  port 8443 of the member alice, over the overlay
 *   app.example.org 127.0.0.1:8443 proxy=v2     the target is told who the visitor is (proxy_header_wire.h)
 *
 * An exact name goes before the wildcard, in either scheme: who has https://app.example.org has the name, and nobody gets
 * its HTTP by *.example.org (nor, with the HTTP, a certificate for it).
 *
 * And where it listens: "80, 443", "198.51.100.1:80, [2001:db8::1]:8443".
 *
 * The node's own name, where its relay has a port with the door (door_share.h), is no host's.
 *
 * Routes are made once, looked up by one thread, and replaced as a whole. Pure.
 */
#pragma once

#include "common/endpoint.h"
#include "common/error.h"
#include "common/map.h"
#include "relay/frontdoor/door_gate.h"
#include "relay/frontdoor/door_places.h"
#include "relay/frontdoor/door_sink.h"
#include "relay/frontdoor/host_table.h"
#include "relay/frontdoor/port_name.h"
#include "relay/frontdoor/sniffer.h"

#include <stdbool.h>
#include <stdint.h>

#define DOOR_MAX_LISTEN 16

/* Of a port (port_name.h) the name stands where that of a host does. */
enum door_scheme { DOOR_HTTP, DOOR_HTTPS, DOOR_N_HOST_SCHEMES, DOOR_TCP = DOOR_N_HOST_SCHEMES, DOOR_UDP, DOOR_N_SCHEMES };

/* The PROXY header that the target gets before the visitor's first bytes. */
enum door_header { DOOR_NO_HEADER, DOOR_HEADER_V1, DOOR_HEADER_V2 };

struct door_rule {
	bool takes[DOOR_N_SCHEMES];
	struct host_pattern host;
	enum door_header header;
	struct door_gate *gate; /* borrowed; NULL: all may come */
	struct door_sink *sink; /* borrowed, of what the gate belongs to; NULL: visitors are led to the target itself */
	bool is_dial_back; /* there is no target: an agent dials back for each visitor (relay/webgw) */
	bool is_without_quic;
	char member[MAP_NAME_LEN + 1]; /* "": address is the target */
	struct endpoint address;       /* of a member: its port alone */
};

struct door_route {
	struct host_entry entry;
	enum door_scheme scheme;
	struct endpoint target; /* none: the host is known, and nobody is there */
	uint32_t n_places;      /* 0: the target alone */
	struct door_place **places; /* held; of these one is chosen for each visitor */
	enum door_header header;
	struct door_gate *gate; /* held; NULL: all may come */
	struct door_sink *sink; /* lives as long as the gate is held; NULL: none */
	bool is_dial_back;	/* the same; target is none */
	bool is_without_quic;	/* of HTTPS */
};

struct door_awaited {
	struct host_name host;
	struct door_gate *gate;
};

struct door_routes;

/* "proxy=v1", "proxy=v2", "proxy=none" or "", which is none. 0, or -EINVAL with what it should be in reterr. */
P2P_CHECK int door_header_parse(const char *text, enum door_header *ret, struct error *reterr);
/* The first word of a rule alone: host and schemes of *ret; a port's name as well ("tcp:2222"). 0, or -EINVAL with what is wrong in reterr. */
P2P_CHECK int door_rule_parse_host(const char *text, size_t len, struct door_rule *ret, struct error *reterr);
/* 0, or -EINVAL with what is wrong, and how it should be, in reterr. */
P2P_CHECK int door_rule_parse(const char *text, struct door_rule *ret, struct error *reterr);
/* Ports and addresses, comma between them; a port alone is of "::". At least one. The same. */
P2P_CHECK int door_listen_parse(const char *text, struct endpoint ret[DOOR_MAX_LISTEN], uint32_t *ret_n,
				struct error *reterr);
/* Would who is led to target come to one of these n places? is_own: target is an address of this machine. */
bool door_listens_at(const struct endpoint *places, uint32_t n, const struct endpoint *target, bool is_own);
/* Where such a door has a port that leads to a member: at all its addresses, each once. Returns how many. */
uint32_t door_places_of_port(const struct endpoint *listen, uint32_t n, uint16_t port, struct endpoint ret[DOOR_MAX_LISTEN]);
/* n_rules: as many may be added at most. */
struct door_routes *door_routes_new(uint32_t n_rules);
/* Accepts NULL. */
void door_routes_free(struct door_routes *routes);
/* Before the first is added. */
void door_routes_set_own_name(struct door_routes *routes, const struct host_name *own);
/* len 0: it has none. */
const struct host_name *door_routes_own_name(const struct door_routes *routes);
/*
 * target: see door_route. 0, or: -EEXIST, its host has one already for one of the schemes; -EPERM, it is the node's own
 * name. Then nothing is added.
 */
P2P_CHECK int door_routes_add(struct door_routes *routes, const struct door_rule *rule, const struct endpoint *target);
/*
 * One more place for the pattern of this rule, in all the schemes that it takes; its target is the route's if it is the
 * first. The place is held. 0, -EPERM as above, or -EEXIST: for one of the schemes the pattern is that of a route without
 * places, or has DOOR_MAX_PLACES, or places that are online, which this one is not; it is added to those that take it.
 */
P2P_CHECK int door_routes_add_place(struct door_routes *routes, const struct door_rule *rule, struct door_place *place);
/*
 * Of a door that takes visitors from other doors (front_door_options.takes_header): the addresses of those, copied; their
 * ports do not matter. Once.
 */
void door_routes_set_doors(struct door_routes *routes, const struct endpoint *doors, uint32_t n);
bool door_routes_has_door(const struct door_routes *routes, const struct endpoint *remote);
/*
 * Is the target the door that it came to first? Its address says so only if it is one place for all: a loopback or private one
 * is of that door's machine or network there, and of another here. But that of a door in the overlay is the same everywhere.
 * Of a port: or another port of that door for which there is a route as well, which may lead to the first one.
 */
bool door_routes_lead_back(const struct door_routes *routes, const struct endpoint *first_door, const struct door_route *route);
/*
 * Hosts that are no routes yet, of webgw's that members have by their grants: who was led there by the door before goes on
 * through these gates, nobody else comes in. Copied, the gates are held. Once.
 */
void door_routes_set_awaited(struct door_routes *routes, const struct door_awaited *awaited, uint32_t n);
/* NULL: it is none of these. */
struct door_gate *door_routes_awaited_gate(const struct door_routes *routes, const struct host_name *host);
/*
 * May QUIC be led by it? Of HTTPS, to a target that gets datagrams as they are: nothing goes in front of those, and TLS does not end
 * in this process. What leads to a member does by a header for that member's acceptor, which asks the same of its own route.
 */
bool door_route_has_quic(const struct door_route *route);
/* Is there a route for this very name, in whichever scheme? */
bool door_routes_has_name(const struct door_routes *routes, const struct host_name *host);
/* The next one of a port; *at is 0 at first. NULL: no more. */
const struct door_route *door_routes_next_port(const struct door_routes *routes, uint32_t *at, struct port_name *ret);
/* The next one; *at is 0 at first. NULL: no more. */
const struct door_route *door_routes_next(const struct door_routes *routes, uint32_t *at);
/* NULL: nobody's; as the own name is. */
const struct door_route *door_routes_find(const struct door_routes *routes, enum sniffer_protocol protocol,
					  const struct host_name *host);
