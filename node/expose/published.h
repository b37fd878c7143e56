/*
 * Where what members publish is: a front door's routes, by the map.
 *
 *   map: exposures ──► published_add_routes ──► member's overlay address, port of its acceptor
 *        grants ─────► published_keep_names ──► nobody there, where a wildcard would stand for another's name
 *
 * The configuration goes before what members publish: a name that it has in one scheme is its in both. Several that
 * publish the same host share its visitors (relay/frontdoor/door_places.h): those that are online, if one is.
 *
 *   *.example.org of bob, and app.example.org is        then visitors of app.example.org are
 *   nobody's                                            bob's
 *   granted to alice, who publishes it                  alice's
 *   granted to alice, who does not publish it now       refused: they are not bob's, who could have a certificate for it
 *   granted to alice and to bob                         bob's, for it is his as well
 */
#pragma once

#include "common/map.h"
#include "relay/frontdoor/door_routes.h"

#include <stdint.h>

struct published_options {
	const struct map *map;
	const struct door_rule *configured;
	uint32_t n_configured;
	const struct endpoint *listen; /* the door's own places: nobody is led there */
	uint32_t n_listen;
	struct host_name *told; /* published_is_news() */
	struct door_places *places; /* of routes before, and of these */
};

/* A host is refused since it is the node's own name, at each change of the map: it is said once. told: what was said last. */
bool published_is_news(const struct host_name *refused, struct host_name *told);

/* So many rules are added at most. */
uint32_t published_count(const struct map *map);
/* After those of the configuration. */
void published_add_routes(const struct published_options *options, struct door_routes *routes);
/* After all others. */
void published_keep_names(const struct published_options *options, struct door_routes *routes);
