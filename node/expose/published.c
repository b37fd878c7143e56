#include "node/expose/published.h"

#include "common/log.h"
#include "relay/frontdoor/front_door.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* What one member publishes, and where it is. */
struct published {
	const struct map_exposure *exposure;
	const struct map_peer *peer;
	struct door_rule rule;
	struct endpoint target;
};

struct published_list {
	uint32_t n;
	struct published *items;
};

/* Those of one host: who can be reached first, of these who is online, then by name. */
static int by_preference(const void *a, const void *b)
{
	const struct published *left = a, *right = b;
	const bool is_nowhere = endpoint_is_none(&left->target);

	if (is_nowhere != endpoint_is_none(&right->target))
		return is_nowhere ? 1 : -1;
	if (left->peer->online != right->peer->online)
		return left->peer->online ? -1 : 1;
	return strcmp(left->peer->name, right->peer->name);
}

/* A name that the configuration has, in whichever scheme, is the configuration's. */
static bool is_configured(const struct published_options *options, const struct host_pattern *host)
{
	for (uint32_t i = 0; i < options->n_configured; i++)
		if (options->configured[i].host.is_wildcard == host->is_wildcard &&
		    host_name_equal(&options->configured[i].host.name, &host->name))
			return true;
	return false;
}

static struct endpoint target_of(const struct published_options *options, const struct published *published)
{
	const struct endpoint nowhere = { 0 };

	if (published->exposure->port == 0)
		return nowhere;
	const struct endpoint target = endpoint_from_v4(ntohl(published->peer->ip4.s_addr), published->exposure->port);
	if (!front_door_leads_back(options->listen, options->n_listen, &target))
		return target;
	log_warning("frontdoor", "the target of %s is the front door itself: nobody is led there",
		    published->exposure->host);
	return nowhere;
}

/* A port may be granted for the doors of some nodes alone. */
static bool may_have(const struct map *map, const struct map_exposure *exposure, const struct door_rule *rule)
{
	char name[PORT_NAME_TEXT];
	struct port_name port;

	if (!rule->takes[DOOR_TCP] && !rule->takes[DOOR_UDP])
		return true;
	if (port_name_from(exposure->host, strlen(exposure->host), &port) != 0)
		return false;
	port.door_id = map->self.id;
	port_name_print(&port, name);
	return map_has_grant(map, exposure->peer_id, exposure->host) || map_has_grant(map, exposure->peer_id, name);
}

/* False: of a scheme that this version does not know, perhaps; or nobody's, or the configuration's. */
static bool take(const struct published_options *options, const struct map_exposure *exposure, struct published *ret)
{
	const struct map *map = options->map;
	const struct map_peer *peer = exposure->peer_id == map->self.id ? &map->self
									: map_find_peer(map, exposure->peer_id);

	*ret = (struct published){ .exposure = exposure, .peer = peer };
	if (!peer || door_rule_parse_host(exposure->host, strlen(exposure->host), &ret->rule, NULL) != 0)
		return false;
	if (!may_have(map, exposure, &ret->rule))
		return false;
	if (is_configured(options, &ret->rule.host)) {
		log_debug("frontdoor", "%s of %s: the configuration's is used", exposure->host, peer->name);
		return false;
	}
	ret->rule.header = DOOR_HEADER_V2;
	ret->target = target_of(options, ret);
	return true;
}

/* In the order in which they are preferred; the caller frees the items. */
static struct published_list list_published(const struct published_options *options, bool only_wildcards)
{
	const struct map *map = options->map;
	struct published_list list = { .items = calloc(map->n_exposures + 1, sizeof(*list.items)) };

	if (!list.items)
		abort();
	for (uint32_t i = 0; i < map->n_exposures; i++) {
		if (only_wildcards && !strchr(map->exposures[i].host, '*'))
			continue;
		list.n += take(options, &map->exposures[i], &list.items[list.n]);
	}
	qsort(list.items, list.n, sizeof(*list.items), by_preference);
	return list;
}

/* In each scheme for itself: two members may share a name. 0, or what door_routes_add() said of the last. */
static int add(struct door_routes *routes, const struct door_rule *rule, const struct endpoint *target)
{
	int failed = 0;

	for (int i = 0; i < DOOR_N_SCHEMES; i++) {
		struct door_rule one = *rule;
		memset(one.takes, 0, sizeof(one.takes));
		one.takes[i] = true;
		const int r = rule->takes[i] ? door_routes_add(routes, &one, target) : 0;
		failed = r != 0 ? r : failed;
	}
	return failed;
}

/* With those that were added before for the same name. The same. */
static int add_one(const struct published_options *options, struct door_routes *routes, const struct door_rule *rule,
		   const struct published *published)
{
	const struct map_peer *peer = published->peer;

	if (endpoint_is_none(&published->target))
		return add(routes, rule, &published->target);
	return door_routes_add_place(routes, rule, door_places_get(options->places, published->exposure->host, peer->name,
								   &published->target, peer->online));
}

bool published_is_news(const struct host_name *refused, struct host_name *told)
{
	const bool is_news = !host_name_equal(refused, told);

	*told = *refused;
	return is_news;
}

uint32_t published_count(const struct map *map)
{
	return map->n_exposures + map->n_grants;
}

void published_add_routes(const struct published_options *options, struct door_routes *routes)
{
	const struct published_list list = list_published(options, false);

	for (uint32_t i = 0; i < list.n; i++) {
		const struct published *one = &list.items[i];
		const int r = add_one(options, routes, &one->rule, one);
		if (r == -EPERM && (!options->told || published_is_news(&one->rule.host.name, options->told)))
			log_warning("frontdoor", "%s of %s is refused: it is this node's own name, by which its relay is "
				    "asked for", one->exposure->host, one->peer->name);
		else if (r != 0 && r != -EPERM)
			log_debug("frontdoor", "%s of %s: others are used", one->exposure->host, one->peer->name);
	}
	free(list.items);
}

/* Does some wildcard stand for it? */
static bool is_found(const struct door_routes *routes, const struct host_name *name)
{
	return door_routes_find(routes, SNIFFER_TLS, name) || door_routes_find(routes, SNIFFER_HTTP_1, name);
}

/* name has no route of its own, and shall be led nowhere but to those to whom it is granted. */
static void keep_name(const struct published_options *options, const struct published_list *wildcards,
		      const struct host_name *name, struct door_routes *routes)
{
	const struct endpoint nowhere = { 0 };
	struct door_rule rule = { .host.name = *name, .header = DOOR_HEADER_V2 };

	for (uint32_t i = 0; i < wildcards->n; i++) {
		const struct published *one = &wildcards->items[i];
		if (!host_pattern_matches(&one->rule.host, name) ||
		    !map_has_grant(options->map, one->exposure->peer_id, name->text))
			continue;
		memcpy(rule.takes, one->rule.takes, sizeof(rule.takes));
		(void)add_one(options, routes, &rule, one);
	}
	memset(rule.takes, 0, sizeof(rule.takes));
	for (int i = 0; i < DOOR_N_HOST_SCHEMES; i++)
		rule.takes[i] = true;
	(void)add(routes, &rule, &nowhere);
}

void published_keep_names(const struct published_options *options, struct door_routes *routes)
{
	const struct map *map = options->map;
	const struct published_list wildcards = list_published(options, true);

	for (uint32_t i = 0; i < map->n_grants; i++) {
		struct host_name name;
		const char *host = map->grants[i].host;
		if (host_name_from(host, strlen(host), &name) == 0 && !door_routes_has_name(routes, &name) &&
		    is_found(routes, &name))
			keep_name(options, &wildcards, &name, routes);
	}
	free(wildcards.items);
}
