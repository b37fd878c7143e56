#include "relay/frontdoor/door_routes.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define WHITE " \t"

struct door_routes {
	struct host_table tables[DOOR_N_SCHEMES];
	uint32_t n, max, n_doors;
	struct endpoint *doors; /* sorted by address */
	uint32_t n_awaited;
	struct door_awaited *awaited; /* sorted by host */
	struct host_name own;	/* len 0: none */
	struct door_route items[]; /* one a rule and scheme, then the buckets of both tables */
};

/* ---- from text ---- */

static size_t take_scheme(const char *text, size_t len, struct door_rule *rule)
{
	static const char *const names[DOOR_N_HOST_SCHEMES] = { [DOOR_HTTP] = "http://", [DOOR_HTTPS] = "https://" };

	for (int i = 0; i < DOOR_N_HOST_SCHEMES; i++) {
		if (len < strlen(names[i]) || memcmp(text, names[i], strlen(names[i])) != 0)
			continue;
		rule->takes[i] = true;
		return strlen(names[i]);
	}
	rule->takes[DOOR_HTTP] = rule->takes[DOOR_HTTPS] = true;
	return 0;
}

static int take_host(const char *text, size_t len, struct door_rule *rule, struct error *reterr)
{
	const int r = host_pattern_from(text, len, &rule->host);

	if (r == 0)
		return 0;
	return error_set(reterr, -EINVAL, "a host such as app.example.org or *.example.org; '%.*s' is none: %s",
			 (int)(len < 80 ? len : 80), text, host_name_error_text(r));
}

static int take_port(const char *text, uint16_t *ret)
{
	unsigned long port = 0;

	for (const char *at = text; *at != '\0'; at++) {
		if (*at < '0' || *at > '9' || (port = port * 10 + (unsigned long)(*at - '0')) > UINT16_MAX)
			return -EINVAL;
	}
	*ret = (uint16_t)port;
	return port == 0 ? -EINVAL : 0;
}

static int take_address(const char *text, struct door_rule *rule, struct error *reterr)
{
	const char *colon = strrchr(text, ':');
	const size_t name_len = colon ? (size_t)(colon - text) : 0;

	if (endpoint_parse(text, &rule->address) == 0 && rule->address.port != 0)
		return 0;
	if (name_len > 0 && name_len <= MAP_NAME_LEN && take_port(colon + 1, &rule->address.port) == 0) {
		memcpy(rule->member, text, name_len);
		if (map_name_is_valid(rule->member))
			return 0;
	}
	return error_set(reterr, -EINVAL,
			 "behind the host an address with a port, such as 127.0.0.1:8443 or [::1]:8443, or a member "
			 "of the network with a port, such as alice:8443; '%.80s' is neither", text);
}

int door_header_parse(const char *text, enum door_header *ret, struct error *reterr)
{
	if (*text == '\0' || strcmp(text, "proxy=none") == 0)
		*ret = DOOR_NO_HEADER;
	else if (strcmp(text, "proxy=v1") == 0)
		*ret = DOOR_HEADER_V1;
	else if (strcmp(text, "proxy=v2") == 0)
		*ret = DOOR_HEADER_V2;
	else
		return error_set(reterr, -EINVAL, "behind the target proxy=v1, proxy=v2 or nothing; not '%.80s'", text);
	return 0;
}

static int take_target(const char *text, struct door_rule *rule, struct error *reterr)
{
	const size_t len = strcspn(text, WHITE);
	char address[INET6_ADDRSTRLEN + MAP_NAME_LEN] = "";
	int r;

	/* What is longer is no address: it is named as it stands. */
	if (len < sizeof(address))
		memcpy(address, text, len);
	r = take_address(len < sizeof(address) ? address : text, rule, reterr);
	return r != 0 ? r : door_header_parse(text + len + strspn(text + len, WHITE), &rule->header, reterr);
}

int door_rule_parse_host(const char *text, size_t len, struct door_rule *ret, struct error *reterr)
{
	struct door_rule rule = { 0 };
	struct port_name port;

	if (port_name_from(text, len, &port) == 0 && port.door_id == 0) {
		*ret = (struct door_rule){ .takes[DOOR_TCP] = port.kind == PORT_TCP, .takes[DOOR_UDP] = port.kind == PORT_UDP };
		port_name_to_host(&port, &ret->host.name);
		return 0;
	}
	const size_t scheme_len = take_scheme(text, len, &rule);
	const int r = take_host(text + scheme_len, len - scheme_len, &rule, reterr);

	if (r == 0)
		*ret = rule;
	return r;
}

int door_rule_parse(const char *text, struct door_rule *ret, struct error *reterr)
{
	struct door_rule rule = { 0 };
	const size_t len = strcspn(text, WHITE);
	const char *target = text + len + strspn(text + len, WHITE);
	int r;

	if (len == take_scheme(text, len, &rule) || *target == '\0')
		return error_set(reterr, -EINVAL, "a host and where it is, such as 'app.example.org 127.0.0.1:8443'");
	if ((r = door_rule_parse_host(text, len, &rule, reterr)) != 0 || (r = take_target(target, &rule, reterr)) != 0)
		return r;
	if (rule.takes[DOOR_TCP] || rule.takes[DOOR_UDP])
		return error_set(reterr, -EINVAL, "a host such as app.example.org; ports are published by members: p2pctl expose");
	*ret = rule;
	return 0;
}

static int take_place(const char *text, size_t len, struct endpoint *ret)
{
	char place[72] = { 0 };
	struct endpoint any = { 0 };

	while (len > 0 && strchr(WHITE, text[len - 1]))
		len--;
	if (len >= sizeof(place))
		return -EINVAL;
	memcpy(place, text, len);
	if (endpoint_parse(place, ret) == 0)
		return ret->port == 0 ? -EINVAL : 0;
	if (take_port(place, &any.port) != 0)
		return -EINVAL;
	*ret = any;
	return 0;
}

int door_listen_parse(const char *text, struct endpoint ret[DOOR_MAX_LISTEN], uint32_t *ret_n, struct error *reterr)
{
	struct endpoint places[DOOR_MAX_LISTEN];
	uint32_t n = 0;

	for (const char *at = text, *end; at; at = end ? end + 1 : NULL) {
		at += strspn(at, WHITE);
		end = strchr(at, ',');
		if (n == DOOR_MAX_LISTEN)
			return error_set(reterr, -EINVAL, "%d ports and addresses at most", DOOR_MAX_LISTEN);
		if (take_place(at, end ? (size_t)(end - at) : strlen(at), &places[n]) != 0)
			return error_set(reterr, -EINVAL,
					 "ports, or addresses with a port, such as '80, 443' or '198.51.100.1:80'");
		for (uint32_t i = 0; i < n; i++)
			if (endpoint_equal(&places[i], &places[n]))
				return error_set(reterr, -EINVAL, "each port and address once; port %u stands twice",
						 places[n].port);
		n++;
	}
	memcpy(ret, places, n * sizeof(*places));
	*ret_n = n;
	return 0;
}

bool door_listens_at(const struct endpoint *places, uint32_t n, const struct endpoint *target, bool is_own)
{
	for (uint32_t i = 0; i < n; i++) {
		const struct endpoint any6 = { .port = places[i].port };
		const struct endpoint any4 = endpoint_from_v4(0, places[i].port);
		const bool is_any = endpoint_equal(&places[i], &any6) ||
				    (endpoint_equal(&places[i], &any4) && endpoint_is_v4(target));
		if (endpoint_equal(&places[i], target) || (is_own && is_any && places[i].port == target->port))
			return true;
	}
	return false;
}

uint32_t door_places_of_port(const struct endpoint *listen, uint32_t n, uint16_t port, struct endpoint ret[DOOR_MAX_LISTEN])
{
	const struct endpoint any6 = { .port = port }, any4 = endpoint_from_v4(0, port);
	bool has_any4 = false;
	uint32_t n_places = 0;

	for (uint32_t i = 0; i < n; i++) {
		struct endpoint place = listen[i];
		place.port = port;
		if (endpoint_equal(&place, &any6)) { /* has the others as well */
			ret[0] = any6;
			return 1;
		}
		has_any4 = has_any4 || endpoint_equal(&place, &any4);
	}
	for (uint32_t i = 0; i < n; i++) {
		struct endpoint place = listen[i];
		place.port = port;
		bool is_there = has_any4 && endpoint_is_v4(&place) && !endpoint_equal(&place, &any4);
		for (uint32_t j = 0; j < n_places; j++)
			is_there = is_there || endpoint_equal(&ret[j], &place);
		if (!is_there)
			ret[n_places++] = place;
	}
	return n_places;
}

/* ---- the tables ---- */

static uint32_t power_of_two_from(uint32_t n)
{
	uint32_t power = 1;

	while (power < n)
		power *= 2;
	return power;
}

struct door_routes *door_routes_new(uint32_t n_rules)
{
	const uint32_t max = n_rules * DOOR_N_HOST_SCHEMES, /* a rule is for a host, or for one port */
		       n_buckets = power_of_two_from(n_rules);
	struct door_routes *routes = calloc(1, sizeof(*routes) + max * sizeof(*routes->items) +
						       DOOR_N_SCHEMES * n_buckets * sizeof(struct host_entry *));

	if (!routes)
		abort();
	routes->max = max;
	struct host_entry **buckets = (struct host_entry **)(routes->items + max);
	for (uint32_t i = 0; i < DOOR_N_SCHEMES; i++)
		host_table_init(&routes->tables[i], buckets + i * n_buckets, n_buckets);
	return routes;
}

void door_routes_free(struct door_routes *routes)
{
	if (!routes)
		return;
	for (uint32_t i = 0; i < routes->n; i++) {
		struct door_route *route = &routes->items[i];
		door_gate_let_go(route->gate);
		for (uint32_t j = 0; j < route->n_places; j++)
			door_place_let_go(route->places[j]);
		free(route->places);
	}
	for (uint32_t i = 0; i < routes->n_awaited; i++)
		door_gate_let_go(routes->awaited[i].gate);
	free(routes->awaited);
	free(routes->doors);
	free(routes);
}

void door_routes_set_own_name(struct door_routes *routes, const struct host_name *own)
{
	assert(routes->n == 0);
	routes->own = *own;
}

const struct host_name *door_routes_own_name(const struct door_routes *routes)
{
	return &routes->own;
}

static bool is_own(const struct door_routes *routes, const struct host_name *name)
{
	return routes->own.len > 0 && host_name_equal(&routes->own, name);
}

int door_routes_add(struct door_routes *routes, const struct door_rule *rule, const struct endpoint *target)
{
	if (!rule->host.is_wildcard && is_own(routes, &rule->host.name))
		return -EPERM;
	for (int i = 0; i < DOOR_N_SCHEMES; i++)
		if (rule->takes[i] && host_table_find_pattern(&routes->tables[i], &rule->host))
			return -EEXIST;
	for (int i = 0; i < DOOR_N_SCHEMES; i++) {
		if (!rule->takes[i])
			continue;
		assert(routes->n < routes->max);
		struct door_route *route = &routes->items[routes->n++];
		*route = (struct door_route){ .entry.pattern = rule->host,
					      .scheme = (enum door_scheme)i,
					      .target = *target,
					      .header = rule->header,
					      .gate = door_gate_hold(rule->gate),
					      .sink = rule->sink,
					      .is_dial_back = rule->is_dial_back,
					      .is_without_quic = rule->is_without_quic };
		int r = host_table_add(&routes->tables[i], &route->entry);
		assert(r == 0);
		(void)r;
	}
	return 0;
}

static bool takes_place(const struct door_route *route, const struct door_place *place)
{
	return route->n_places > 0 && route->n_places < DOOR_MAX_PLACES &&
	       (place->is_online || !route->places[0]->is_online);
}

static void put_place(struct door_route *route, struct door_place *place)
{
	struct door_place **places = realloc(route->places, (route->n_places + 1) * sizeof(struct door_place *));

	if (!places)
		abort();
	places[route->n_places++] = door_place_hold(place);
	route->places = places;
}

int door_routes_add_place(struct door_routes *routes, const struct door_rule *rule, struct door_place *place)
{
	int failed = 0;

	for (int i = 0; i < DOOR_N_SCHEMES; i++) {
		struct door_rule one = *rule;
		memset(one.takes, 0, sizeof(one.takes));
		one.takes[i] = true;
		int r = rule->takes[i] ? door_routes_add(routes, &one, &place->target) : 0;
		struct host_entry *entry = host_table_find_pattern(&routes->tables[i], &rule->host);
		struct door_route *route = entry ? container_of(entry, struct door_route, entry) : NULL;
		if (rule->takes[i] && (r == 0 || (r == -EEXIST && takes_place(route, place)))) {
			put_place(route, place);
			r = 0;
		}
		failed = r != 0 ? r : failed;
	}
	return failed;
}

static int compare_addresses(const void *a, const void *b)
{
	const struct endpoint *one = a, *other = b;

	return memcmp(one->ip, other->ip, sizeof(one->ip));
}

void door_routes_set_doors(struct door_routes *routes, const struct endpoint *doors, uint32_t n)
{
	assert(!routes->doors);
	if (n == 0)
		return;
	routes->doors = calloc(n, sizeof(*doors));
	if (!routes->doors)
		abort();
	memcpy(routes->doors, doors, n * sizeof(*doors));
	qsort(routes->doors, n, sizeof(*doors), compare_addresses);
	routes->n_doors = n;
}

bool door_routes_has_door(const struct door_routes *routes, const struct endpoint *remote)
{
	return routes->n_doors > 0 &&
	       bsearch(remote, routes->doors, routes->n_doors, sizeof(*routes->doors), compare_addresses) != NULL;
}

static int compare_awaited(const void *a, const void *b)
{
	const struct door_awaited *one = a, *other = b;

	return strcmp(one->host.text, other->host.text);
}

void door_routes_set_awaited(struct door_routes *routes, const struct door_awaited *awaited, uint32_t n)
{
	assert(!routes->awaited);
	if (n == 0)
		return;
	routes->awaited = calloc(n, sizeof(*awaited));
	if (!routes->awaited)
		abort();
	memcpy(routes->awaited, awaited, n * sizeof(*awaited));
	for (uint32_t i = 0; i < n; i++)
		(void)door_gate_hold(routes->awaited[i].gate);
	qsort(routes->awaited, n, sizeof(*awaited), compare_awaited);
	routes->n_awaited = n;
}

struct door_gate *door_routes_awaited_gate(const struct door_routes *routes, const struct host_name *host)
{
	const struct door_awaited wanted = { .host = *host };
	const struct door_awaited *found = NULL;

	if (routes->n_awaited > 0 && host->len > 0)
		found = bsearch(&wanted, routes->awaited, routes->n_awaited, sizeof(*routes->awaited), compare_awaited);
	return found ? found->gate : NULL;
}

static bool has_port(const struct door_routes *routes, enum door_scheme scheme, uint16_t number)
{
	const struct port_name port = { .kind = scheme == DOOR_UDP ? PORT_UDP : PORT_TCP, .number = number };
	struct host_pattern exact = { .is_wildcard = false };

	if (scheme < DOOR_N_HOST_SCHEMES || number == 0)
		return false;
	port_name_to_host(&port, &exact.name);
	return host_table_find_pattern(&routes->tables[scheme], &exact) != NULL;
}

bool door_routes_lead_back(const struct door_routes *routes, const struct endpoint *first_door, const struct door_route *route)
{
	const struct endpoint *target = &route->target;

	if (memcmp(first_door->ip, target->ip, sizeof(target->ip)) != 0 || endpoint_is_loopback(target))
		return false;
	if (first_door->port != target->port && !has_port(routes, route->scheme, target->port))
		return false;
	return !endpoint_is_private(target) || door_routes_has_door(routes, target);
}

bool door_route_has_quic(const struct door_route *route)
{
	const bool is_members = route->n_places > 0 && route->header == DOOR_HEADER_V2;

	return route->scheme == DOOR_HTTPS && !route->is_without_quic && !route->sink && !endpoint_is_none(&route->target) &&
	       (route->header == DOOR_NO_HEADER || is_members);
}

bool door_routes_has_name(const struct door_routes *routes, const struct host_name *host)
{
	const struct host_pattern exact = { .name = *host };
	bool has = false;

	for (int i = 0; i < DOOR_N_SCHEMES && !has; i++)
		has = host_table_find_pattern(&routes->tables[i], &exact) != NULL;
	return has;
}

const struct door_route *door_routes_next_port(const struct door_routes *routes, uint32_t *at, struct port_name *ret)
{
	while (*at < routes->n) {
		const struct door_route *route = &routes->items[(*at)++];
		const struct host_name *name = &route->entry.pattern.name;
		if (route->scheme >= DOOR_N_HOST_SCHEMES && port_name_from(name->text, name->len, ret) == 0)
			return route;
	}
	return NULL;
}

const struct door_route *door_routes_next(const struct door_routes *routes, uint32_t *at)
{
	return *at < routes->n ? &routes->items[(*at)++] : NULL;
}

static enum door_scheme scheme_of(enum sniffer_protocol protocol)
{
	switch (protocol) {
	case SNIFFER_TLS:
	case SNIFFER_QUIC:
		return DOOR_HTTPS;
	case SNIFFER_TCP:
		return DOOR_TCP;
	case SNIFFER_UDP:
		return DOOR_UDP;
	case SNIFFER_HTTP_1:
	case SNIFFER_HTTP_2:
	case SNIFFER_UNKNOWN:
	case SNIFFER_N_PROTOCOLS:
		break;
	}
	return DOOR_HTTP;
}

const struct door_route *door_routes_find(const struct door_routes *routes, enum sniffer_protocol protocol,
					  const struct host_name *host)
{
	const enum door_scheme scheme = scheme_of(protocol);
	const struct host_pattern exact = { .name = *host };
	struct host_entry *entry = host_table_find_pattern(&routes->tables[scheme], &exact);

	if (is_own(routes, host))
		return NULL;
	if (!entry && door_routes_has_name(routes, host))
		return NULL; /* it has its owner, in the other scheme alone */
	if (!entry)
		entry = host_table_find(&routes->tables[scheme], host);
	return entry ? container_of(entry, struct door_route, entry) : NULL;
}
