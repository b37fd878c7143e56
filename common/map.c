/*
 * The map as values: JSON in and out, and patches.
 *
 * A patch is read whole into values of its own first; only when all of it is good is the map
 * touched, and from there on nothing can fail but memory, which aborts.
 */
#include "common/map.h"

#include "common/prefix.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* An array of records that begin with their id, sorted by it. */
struct table {
	void **items;
	uint32_t *n;
	size_t size;
};

static struct table peers_of(struct map *map)
{
	return (struct table){ (void **)&map->peers, &map->n_peers, sizeof(struct map_peer) };
}

static struct table relays_of(struct map *map)
{
	return (struct table){ (void **)&map->relays, &map->n_relays, sizeof(struct map_relay) };
}

static struct table exposures_of(struct map *map)
{
	return (struct table){ (void **)&map->exposures, &map->n_exposures, sizeof(struct map_exposure) };
}

static struct table grants_of(struct map *map)
{
	return (struct table){ (void **)&map->grants, &map->n_grants, sizeof(struct map_grant) };
}

static_assert(offsetof(struct map_peer, id) == 0 && offsetof(struct map_relay, id) == 0 &&
		      offsetof(struct map_exposure, peer_id) == 0 && offsetof(struct map_grant, peer_id) == 0,
	      "tables look for the id at the front");

static uint32_t id_at(const void *items, uint32_t i, size_t size)
{
	uint32_t id;

	memcpy(&id, (const char *)items + i * size, sizeof(id));
	return id;
}

/* The index of the first record whose id is not smaller. */
static uint32_t lower_bound(const void *items, uint32_t n, size_t size, uint32_t id)
{
	uint32_t low = 0, high = n;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		if (id_at(items, middle, size) < id)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static const void *find(const void *items, uint32_t n, size_t size, uint32_t id)
{
	uint32_t i = lower_bound(items, n, size, id);

	return i < n && id_at(items, i, size) == id ? (const char *)items + i * size : NULL;
}

static void grow(struct table t)
{
	void *items = realloc(*t.items, (*t.n + 1) * t.size);

	if (!items)
		abort();
	*t.items = items;
}

static void put(struct table t, const void *record)
{
	uint32_t id = id_at(record, 0, t.size);
	uint32_t i = lower_bound(*t.items, *t.n, t.size, id);

	if (i == *t.n || id_at(*t.items, i, t.size) != id) {
		grow(t);
		char *at = (char *)*t.items + i * t.size;
		memmove(at + t.size, at, (*t.n - i) * t.size);
		++*t.n;
	}
	memcpy((char *)*t.items + i * t.size, record, t.size);
}

static void drop(struct table t, uint32_t id)
{
	uint32_t i = lower_bound(*t.items, *t.n, t.size, id);

	if (i == *t.n || id_at(*t.items, i, t.size) != id)
		return;
	char *at = (char *)*t.items + i * t.size;
	memmove(at, at + t.size, (*t.n - i - 1) * t.size);
	--*t.n;
}

/* Exposures and grants: several records of one node, which come and go together */

static uint32_t count_of(const void *items, uint32_t n, size_t size, uint32_t peer_id)
{
	const uint32_t first = lower_bound(items, n, size, peer_id);
	uint32_t i = first;

	while (i < n && id_at(items, i, size) == peer_id)
		i++;
	return i - first;
}

static void drop_all(struct table t, uint32_t peer_id)
{
	const uint32_t first = lower_bound(*t.items, *t.n, t.size, peer_id);
	const uint32_t n = count_of(*t.items, *t.n, t.size, peer_id);

	if (n == 0)
		return; /* there may be no memory at all */
	char *at = (char *)*t.items + first * t.size;
	memmove(at, at + n * t.size, (*t.n - first - n) * t.size);
	*t.n -= n;
}

/* In place of those that are there. */
static void put_all(struct table t, uint32_t peer_id, const void *records, uint32_t n)
{
	drop_all(t, peer_id);
	if (n == 0)
		return;
	const uint32_t first = lower_bound(*t.items, *t.n, t.size, peer_id);
	char *items = realloc(*t.items, (*t.n + n) * t.size);
	if (!items)
		abort();
	memmove(items + (first + n) * t.size, items + first * t.size, (*t.n - first) * t.size);
	memcpy(items + first * t.size, records, n * t.size);
	*t.items = items;
	*t.n += n;
}

static uint32_t first_exposure(const struct map *map, uint32_t peer_id)
{
	return lower_bound(map->exposures, map->n_exposures, sizeof(*map->exposures), peer_id);
}

static uint32_t count_exposures(const struct map *map, uint32_t peer_id)
{
	return count_of(map->exposures, map->n_exposures, sizeof(*map->exposures), peer_id);
}

static uint32_t count_grants(const struct map *map, uint32_t peer_id)
{
	return count_of(map->grants, map->n_grants, sizeof(*map->grants), peer_id);
}

const struct map_exposure *map_exposures_of(const struct map *map, uint32_t peer_id, uint32_t *ret_n)
{
	*ret_n = count_exposures(map, peer_id);
	return *ret_n > 0 ? &map->exposures[first_exposure(map, peer_id)] : NULL;
}

bool map_has_grant(const struct map *map, uint32_t peer_id, const char *host)
{
	uint32_t i = lower_bound(map->grants, map->n_grants, sizeof(*map->grants), peer_id);

	for (; i < map->n_grants && map->grants[i].peer_id == peer_id; i++)
		if (strcmp(map->grants[i].host, host) == 0)
			return true;
	return false;
}

void map_init(struct map *map)
{
	*map = (struct map){ 0 };
}

void map_deinit(struct map *map)
{
	free(map->peers);
	free(map->relays);
	free(map->exposures);
	free(map->grants);
	map_init(map);
}

/* n records on the heap, or NULL when there are none. */
static void *duplicate(const void *items, uint32_t n, size_t size)
{
	if (n == 0)
		return NULL;
	void *copy = malloc(n * size);
	if (!copy)
		abort();
	return memcpy(copy, items, n * size);
}

int map_copy(const struct map *from, struct map *ret)
{
	struct map copy = *from;

	copy.peers = duplicate(from->peers, from->n_peers, sizeof(*from->peers));
	copy.relays = duplicate(from->relays, from->n_relays, sizeof(*from->relays));
	copy.exposures = duplicate(from->exposures, from->n_exposures, sizeof(*from->exposures));
	copy.grants = duplicate(from->grants, from->n_grants, sizeof(*from->grants));
	*ret = copy;
	return 0;
}

const struct map_peer *map_find_peer(const struct map *map, uint32_t id)
{
	return find(map->peers, map->n_peers, sizeof(*map->peers), id);
}

const struct map_relay *map_find_relay(const struct map *map, uint32_t id)
{
	return find(map->relays, map->n_relays, sizeof(*map->relays), id);
}

const struct map_peer *map_find_peer_by_name(const struct map *map, const char *name)
{
	for (uint32_t i = 0; i < map->n_peers; i++)
		if (strcmp(map->peers[i].name, name) == 0)
			return &map->peers[i];
	return NULL;
}

const struct map_peer *map_find_peer_by_key(const struct map *map,
					    const struct public_key *node_key)
{
	for (uint32_t i = 0; i < map->n_peers; i++)
		if (public_key_equal(&map->peers[i].node_key, node_key))
			return &map->peers[i];
	return NULL;
}

bool map_is_front_door(const struct map *map, struct in_addr ip4)
{
	if (map->self.ip4.s_addr == ip4.s_addr)
		return map->self.front_door && map_find_relay(map, map->self.id);
	for (uint32_t i = 0; i < map->n_peers; i++)
		if (map->peers[i].ip4.s_addr == ip4.s_addr)
			return map->peers[i].front_door && map_find_relay(map, map->peers[i].id);
	return false;
}

bool map_host_is_valid(const char *host)
{
	const size_t n = strlen(host);

	return n > 0 && n <= MAP_HOST_LEN && strspn(host, "abcdefghijklmnopqrstuvwxyz0123456789-_.*:/[]") == n;
}

bool map_name_is_valid(const char *name)
{
	size_t n = strlen(name);

	if (n < 1 || n > MAP_NAME_LEN || name[0] == '-' || name[n - 1] == '-')
		return false;
	return strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == n;
}

/* Records from JSON */

static int get_id(const struct json *json, uint32_t *ret, struct error *reterr)
{
	int64_t id;
	int r = json_get_integer(json, "id", 1, UINT32_MAX, &id, reterr);

	if (r == 0)
		*ret = (uint32_t)id;
	return r;
}

static int get_name(const struct json *json, const char *key, char ret[MAP_NAME_LEN + 1],
		    struct error *reterr)
{
	const char *name;
	int r = json_get_string(json, key, &name, reterr);

	if (r != 0)
		return r;
	if (!map_name_is_valid(name))
		return error_set(reterr, -EINVAL,
				 "member '%s': must be a name of 1 to %d of a-z 0-9 -", key,
				 MAP_NAME_LEN);
	memcpy(ret, name, strlen(name) + 1);
	return 0;
}

/* with_port: "ip:port", else "ip". The member may be absent. */
static int get_endpoints(const struct json *json, const char *key, bool with_port, uint32_t max,
			 struct endpoint *ret, uint32_t *ret_n, struct error *reterr)
{
	const struct json *list = json_member(json, key);
	uint32_t n = 0;

	if (list && !json_is_array(list))
		return error_set(reterr, -EINVAL, "member '%s': must be an array", key);
	for (const struct json *i = json_first(list); i; i = json_next(i)) {
		const char *text = json_text(i);
		if (n == max)
			return error_set(reterr, -EINVAL, "member '%s': more than %u", key, max);
		int r = !text       ? -EINVAL
			: with_port ? endpoint_parse(text, &ret[n])
				    : endpoint_parse_ip(text, 0, &ret[n]);
		if (r != 0)
			return error_set(reterr, -EINVAL, "member '%s': must hold %s", key,
					 with_port ? "\"ip:port\" strings" : "IP address strings");
		n++;
	}
	*ret_n = n;
	return 0;
}

static int get_session_key(const struct json *json, struct public_key *ret, struct error *reterr)
{
	if (!json_member(json, "session_key") || json_is_null(json_member(json, "session_key")))
		return 0;
	return json_get_public_key(json, "session_key", ret, reterr);
}

int map_peer_from_json(const struct json *json, struct map_peer *ret, struct error *reterr)
{
	struct map_peer peer = { 0 };
	int64_t home_relay = 0;
	int r = get_id(json, &peer.id, reterr);

	if (r == 0)
		r = get_name(json, "name", peer.name, reterr);
	if (r == 0)
		r = json_get_public_key(json, "node_key", &peer.node_key, reterr);
	if (r == 0)
		r = get_session_key(json, &peer.session_key, reterr);
	if (r == 0)
		r = json_get_address4(json, "address4", &peer.ip4, reterr);
	if (r == 0)
		r = json_get_address6(json, "address6", &peer.ip6, reterr);
	if (r == 0)
		r = json_get_integer_or(json, "home_relay", 0, UINT32_MAX, 0, &home_relay, reterr);
	if (r == 0)
		r = json_get_boolean_or(json, "online", false, &peer.online, reterr);
	if (r == 0)
		r = json_get_boolean_or(json, "front_door", false, &peer.front_door, reterr);
	if (r == 0)
		r = get_endpoints(json, "endpoints", true, MAP_MAX_ENDPOINTS, peer.endpoints,
				  &peer.n_endpoints, reterr);
	if (r != 0)
		return r;
	peer.home_relay = (uint32_t)home_relay;
	*ret = peer;
	return 0;
}

/* "tcp:2222" */
static int read_port(const char *text, bool is_open, struct map_port *ret)
{
	unsigned long number = 0;

	*ret = (struct map_port){ .is_open = is_open, .is_udp = text && strncmp(text, "udp:", 4) == 0 };
	if (!text || (!ret->is_udp && strncmp(text, "tcp:", 4) != 0))
		return -EINVAL;
	for (text += 4; *text != '\0'; text++) {
		if (*text < '0' || *text > '9' || (number = number * 10 + (unsigned long)(*text - '0')) > UINT16_MAX)
			return -EINVAL;
	}
	ret->number = (uint16_t)number;
	return number > 0 ? 0 : -EINVAL;
}

int map_ports_from_json(const struct json *json, struct map_port ret[MAP_MAX_PORTS], uint32_t *ret_n, struct error *reterr)
{
	static const char *const keys[] = { "failed", "open" };
	struct map_port ports[MAP_MAX_PORTS];
	uint32_t n = 0;

	if (json && !json_is_object(json))
		return error_set(reterr, -EINVAL, "member 'ports': must be an object");
	for (int is_open = 0; json && is_open < 2; is_open++) {
		const struct json *list = json_member(json, keys[is_open]);
		if (list && !json_is_array(list))
			return error_set(reterr, -EINVAL, "member 'ports': '%s' must be an array", keys[is_open]);
		for (const struct json *i = list ? json_first(list) : NULL; i; i = json_next(i))
			if (n == MAP_MAX_PORTS || read_port(json_text(i), is_open == 1, &ports[n++]) != 0)
				return error_set(reterr, -EINVAL, "member 'ports': must hold at most %d ports such as "
						 "\"tcp:2222\"", MAP_MAX_PORTS);
	}
	memcpy(ret, ports, n * sizeof(*ports));
	*ret_n = n;
	return 0;
}

int map_relay_from_json(const struct json *json, struct map_relay *ret, struct error *reterr)
{
	struct map_relay relay = { 0 };
	int64_t tls_port = 0, stun_port = 0, cost_ms = 0;
	int r = get_id(json, &relay.id, reterr);

	if (r == 0)
		r = get_name(json, "name", relay.name, reterr);
	if (r == 0)
		r = json_get_public_key(json, "node_key", &relay.node_key, reterr);
	if (r == 0)
		r = json_get_integer_or(json, "tls_port", 0, UINT16_MAX, 0, &tls_port, reterr);
	if (r == 0)
		r = json_get_integer_or(json, "stun_port", 0, UINT16_MAX, 0, &stun_port, reterr);
	if (r == 0)
		r = get_endpoints(json, "addresses", false, MAP_MAX_ADDRESSES, relay.addresses,
				  &relay.n_addresses, reterr);
	if (r == 0 && json_member(json, "region"))
		r = get_name(json, "region", relay.region, reterr);
	if (r == 0)
		r = json_get_integer_or(json, "cost_ms", 0, MAP_MAX_COST_MS, 0, &cost_ms, reterr);
	if (r == 0)
		r = map_ports_from_json(json_member(json, "ports"), relay.ports, &relay.n_ports, reterr);
	if (r != 0)
		return r;
	relay.cost_ms = (uint16_t)cost_ms;
	relay.tls_port = (uint16_t)tls_port;
	relay.stun_port = (uint16_t)stun_port;
	*ret = relay;
	return 0;
}

int map_exposures_from_json(const struct json *json, struct map_exposures *ret, struct error *reterr)
{
	const struct json *hosts;
	int64_t port;
	int r = get_id(json, &ret->id, reterr);

	if (r == 0)
		r = json_get_integer_or(json, "port", 0, UINT16_MAX, 0, &port, reterr);
	if (r == 0)
		r = json_get_array(json, "hosts", &hosts, reterr);
	if (r != 0)
		return r;
	ret->port = (uint16_t)port;
	ret->n = 0;
	for (const struct json *i = json_first(hosts); i; i = json_next(i)) {
		const char *host = json_text(i);
		if (ret->n == MAP_MAX_HOSTS)
			return error_set(reterr, -EINVAL, "member 'hosts': more than %d", MAP_MAX_HOSTS);
		if (!host || !map_host_is_valid(host))
			return error_set(reterr, -EINVAL,
					 "member 'hosts': must hold hosts such as \"https://app.example.org\"");
		strcpy(ret->hosts[ret->n++], host);
	}
	return 0;
}

/* Records to JSON */

struct json *map_peer_to_json(const struct map_peer *peer)
{
	struct json *json = json_object(), *endpoints = json_array();

	json_put_integer(json, "id", peer->id);
	json_put_string(json, "name", peer->name);
	json_put_public_key(json, "node_key", &peer->node_key);
	if (!public_key_is_zero(&peer->session_key))
		json_put_public_key(json, "session_key", &peer->session_key);
	json_put_string(json, "address4", address4_text(peer->ip4).s);
	json_put_string(json, "address6", address6_text(&peer->ip6).s);
	json_put_integer(json, "home_relay", peer->home_relay);
	json_put_boolean(json, "online", peer->online);
	if (peer->front_door)
		json_put_boolean(json, "front_door", true);
	for (uint32_t i = 0; i < peer->n_endpoints; i++)
		json_append_string(endpoints, endpoint_text(&peer->endpoints[i]).s);
	json_put(json, "endpoints", endpoints);
	return json;
}

struct json *map_relay_to_json(const struct map_relay *relay)
{
	struct json *json = json_object(), *addresses = json_array();

	json_put_integer(json, "id", relay->id);
	json_put_string(json, "name", relay->name);
	json_put_public_key(json, "node_key", &relay->node_key);
	json_put_integer(json, "tls_port", relay->tls_port);
	json_put_integer(json, "stun_port", relay->stun_port);
	for (uint32_t i = 0; i < relay->n_addresses; i++)
		json_append_string(addresses, endpoint_ip_text(&relay->addresses[i]).s);
	json_put(json, "addresses", addresses);
	if (relay->region[0])
		json_put_string(json, "region", relay->region);
	if (relay->n_ports > 0)
		json_put(json, "ports", map_ports_to_json(relay->ports, relay->n_ports));
	if (relay->cost_ms)
		json_put_integer(json, "cost_ms", relay->cost_ms);
	return json;
}

struct json *map_ports_to_json(const struct map_port *ports, uint32_t n)
{
	struct json *json = json_object(), *lists[2] = { json_array(), json_array() };
	char text[16];

	for (uint32_t i = 0; i < n; i++) {
		snprintf(text, sizeof(text), "%s:%u", ports[i].is_udp ? "udp" : "tcp", ports[i].number);
		json_append_string(lists[ports[i].is_open], text);
	}
	json_put(json, "failed", lists[0]);
	json_put(json, "open", lists[1]);
	return json;
}

struct json *map_exposures_to_json(const struct map_exposures *exposures)
{
	struct json *json = json_object(), *hosts = json_array();

	json_put_integer(json, "id", exposures->id);
	json_put_integer(json, "port", exposures->port);
	for (uint32_t i = 0; i < exposures->n; i++)
		json_append_string(hosts, exposures->hosts[i]);
	json_put(json, "hosts", hosts);
	return json;
}

/* Those of one node, from items[0] on. */
static struct json *exposures_json(const struct map_exposure *items, uint32_t n)
{
	struct json *json = json_object(), *hosts = json_array();

	json_put_integer(json, "id", items->peer_id);
	json_put_integer(json, "port", items->port);
	for (uint32_t i = 0; i < n; i++)
		json_append_string(hosts, items[i].host);
	json_put(json, "hosts", hosts);
	return json;
}

static struct json *grants_json(const struct map_grant *items, uint32_t n)
{
	struct json *json = json_object(), *hosts = json_array();

	json_put_integer(json, "id", items->peer_id);
	for (uint32_t i = 0; i < n; i++)
		json_append_string(hosts, items[i].host);
	json_put(json, "hosts", hosts);
	return json;
}

struct json *map_to_json(const struct map *map)
{
	struct json *json = json_object(), *peers = json_array(), *relays = json_array();
	struct json *exposures = json_array(), *grants = json_array();

	json_put_u64(json, "sequence", map->sequence);
	json_put_u64(json, "epoch", map->epoch);
	json_put_string(json, "network", map->network);
	json_put_string(json, "prefix4", prefix4_text(map->prefix4, map->prefix4_len).s);
	json_put_string(json, "prefix6", prefix6_text(&map->prefix6, map->prefix6_len).s);
	json_put(json, "self", map_peer_to_json(&map->self));
	for (uint32_t i = 0; i < map->n_peers; i++)
		json_append(peers, map_peer_to_json(&map->peers[i]));
	json_put(json, "peers", peers);
	for (uint32_t i = 0; i < map->n_relays; i++)
		json_append(relays, map_relay_to_json(&map->relays[i]));
	json_put(json, "relays", relays);
	for (uint32_t i = 0, n; i < map->n_exposures; i += n) {
		n = count_exposures(map, map->exposures[i].peer_id);
		json_append(exposures, exposures_json(&map->exposures[i], n));
	}
	json_put(json, "exposures", exposures);
	for (uint32_t i = 0, n; i < map->n_grants; i += n) {
		n = count_grants(map, map->grants[i].peer_id);
		json_append(grants, grants_json(&map->grants[i], n));
	}
	json_put(json, "grants", grants);
	return json;
}

/* Snapshot and patch */

/*
 * A list of records that is kept sorted; an id that comes twice is refused. The member may be
 * absent.
 */
static int read_records(const struct json *json, const char *key, uint32_t max, struct table t,
			int (*read)(const struct json *item, void *ret, struct error *reterr),
			struct error *reterr)
{
	union {
		struct map_peer peer;
		struct map_relay relay;
	} record;
	const struct json *list = json_member(json, key);
	uint32_t i = 0;

	if (list && !json_is_array(list))
		return error_set(reterr, -EINVAL, "member '%s': must be an array", key);
	for (const struct json *item = json_first(list); item; item = json_next(item), i++) {
		int r = *t.n < max ? read(item, &record, reterr)
				   : error_set(reterr, -EINVAL, "more than %u", max);
		if (r == 0 && find(*t.items, *t.n, t.size, id_at(&record, 0, t.size)))
			r = error_set(reterr, -EINVAL, "an id that came before");
		if (r != 0) {
			error_prefix(reterr, "%s[%u]", key, i);
			return r;
		}
		put(t, &record);
	}
	return 0;
}

static int read_peer(const struct json *item, void *ret, struct error *reterr)
{
	return map_peer_from_json(item, ret, reterr);
}

static int read_relay(const struct json *item, void *ret, struct error *reterr)
{
	return map_relay_from_json(item, ret, reterr);
}

static int read_exposures(const struct json *json, const char *key, struct map *map, struct error *reterr)
{
	const struct json *list = json_member(json, key);
	struct map_exposures *record = malloc(sizeof(*record));
	struct map_exposure *items = calloc(MAP_MAX_HOSTS, sizeof(*items));
	int r = list && !json_is_array(list) ? error_set(reterr, -EINVAL, "member '%s': must be an array", key) : 0;

	if (!record || !items)
		abort();
	for (const struct json *item = json_first(r == 0 ? list : NULL); item && r == 0; item = json_next(item)) {
		r = map_exposures_from_json(item, record, reterr);
		if (r == 0 && map->n_exposures + record->n > MAP_MAX_EXPOSURES)
			r = error_set(reterr, -EINVAL, "more than %d", MAP_MAX_EXPOSURES);
		if (r == 0 && (record->n == 0 || count_exposures(map, record->id) > 0))
			r = error_set(reterr, -EINVAL, record->n == 0 ? "an id with no hosts" : "an id that came before");
		for (uint32_t i = 0; r == 0 && i < record->n; i++) {
			items[i] = (struct map_exposure){ .peer_id = record->id, .port = record->port };
			strcpy(items[i].host, record->hosts[i]);
		}
		if (r == 0)
			put_all(exposures_of(map), record->id, items, record->n);
		else
			error_prefix(reterr, "%s", key);
	}
	free(record);
	free(items);
	return r;
}

/* Those of one node; room for MAP_MAX_GRANTS. */
static int read_granted(const struct json *item, struct map_grant *ret, uint32_t *ret_n, struct error *reterr)
{
	const struct json *hosts;
	uint32_t id, n = 0;
	int r = get_id(item, &id, reterr);

	if (r == 0)
		r = json_get_array(item, "hosts", &hosts, reterr);
	if (r != 0)
		return r;
	for (const struct json *i = json_first(hosts); i; i = json_next(i)) {
		const char *host = json_text(i);
		if (n == MAP_MAX_GRANTS || !host || !map_host_is_valid(host))
			return error_set(reterr, -EINVAL, "member 'hosts': must hold at most %d hosts such as "
					 "\"app.example.org\"", MAP_MAX_GRANTS);
		ret[n].peer_id = id;
		strcpy(ret[n++].host, host);
	}
	*ret_n = n;
	return n > 0 ? 0 : error_set(reterr, -EINVAL, "an id with no hosts");
}

static int read_grants(const struct json *json, const char *key, struct map *map, struct error *reterr)
{
	const struct json *list = json_member(json, key);
	struct map_grant *items = json_length(list) > 0 ? calloc(MAP_MAX_GRANTS, sizeof(*items)) : NULL;
	int r = list && !json_is_array(list) ? error_set(reterr, -EINVAL, "member '%s': must be an array", key) : 0;
	uint32_t n = 0;

	if (json_length(list) > 0 && !items)
		abort();
	for (const struct json *item = json_first(r == 0 ? list : NULL); item && r == 0; item = json_next(item)) {
		r = read_granted(item, items, &n, reterr);
		if (r == 0 && map->n_grants + n > MAP_MAX_GRANTS)
			r = error_set(reterr, -EINVAL, "more than %d", MAP_MAX_GRANTS);
		if (r == 0 && count_grants(map, items->peer_id) > 0)
			r = error_set(reterr, -EINVAL, "an id that came before");
		if (r == 0)
			put_all(grants_of(map), items->peer_id, items, n);
		else
			error_prefix(reterr, "%s", key);
	}
	free(items);
	return r;
}

static int read_self(const struct json *json, struct map_peer *ret, struct error *reterr)
{
	const struct json *self;
	int r = json_get_object(json, "self", &self, reterr);

	if (r == 0) {
		r = map_peer_from_json(self, ret, reterr);
		if (r != 0)
			error_prefix(reterr, "self");
	}
	return r;
}

static int read_map(const struct json *json, struct map *map, struct error *reterr)
{
	int r = json_get_u64(json, "sequence", &map->sequence, reterr);

	if (r == 0)
		r = json_get_u64(json, "epoch", &map->epoch, reterr);
	if (r == 0)
		r = get_name(json, "network", map->network, reterr);
	if (r == 0)
		r = json_get_prefix4(json, "prefix4", &map->prefix4, &map->prefix4_len, reterr);
	if (r == 0)
		r = json_get_prefix6(json, "prefix6", &map->prefix6, &map->prefix6_len, reterr);
	if (r == 0)
		r = read_self(json, &map->self, reterr);
	if (r == 0)
		r = read_records(json, "peers", MAP_MAX_PEERS, peers_of(map), read_peer, reterr);
	if (r == 0)
		r = read_records(json, "relays", MAP_MAX_RELAYS, relays_of(map), read_relay,
				 reterr);
	if (r == 0)
		r = read_exposures(json, "exposures", map, reterr);
	if (r == 0)
		r = read_grants(json, "grants", map, reterr);
	return r;
}

int map_from_json(const struct json *snapshot, struct map *ret, struct error *reterr)
{
	struct map map;

	map_init(&map);
	int r = read_map(snapshot, &map, reterr);
	if (r != 0) {
		map_deinit(&map);
		return r;
	}
	drop(peers_of(&map), map.self.id);
	*ret = map;
	return 0;
}

/* A patch, read whole. Its puts are a map of their own. */
struct patch {
	uint64_t after;
	struct map put;
	bool has_self;
	uint32_t *remove_peers, *remove_relays, *remove_exposures, *remove_grants;
	uint32_t n_remove_peers, n_remove_relays, n_remove_exposures, n_remove_grants;
};

static int read_ids(const struct json *json, const char *key, uint32_t **ret, uint32_t *ret_n,
		    struct error *reterr)
{
	const struct json *list = json_member(json, key);
	size_t n = json_length(list);
	uint32_t i = 0;

	if (n == 0 && (!list || json_is_array(list)))
		return 0;
	if (!json_is_array(list) || n > MAP_MAX_PEERS)
		return error_set(reterr, -EINVAL, "member '%s': must be an array of at most %d ids",
				 key, MAP_MAX_PEERS);
	*ret = calloc(n, sizeof(**ret));
	if (!*ret)
		abort();
	for (const struct json *item = json_first(list); item; item = json_next(item)) {
		int64_t id;
		int r = json_integer_value(item, 1, UINT32_MAX, &id);
		if (r != 0)
			return error_set(reterr, r, "%s[%u]: must be an id", key, i);
		(*ret)[i++] = (uint32_t)id;
	}
	*ret_n = i;
	return 0;
}

static int read_patch(const struct json *json, struct patch *p, struct error *reterr)
{
	int r = json_get_u64(json, "after", &p->after, reterr);

	if (r == 0)
		r = json_get_u64(json, "sequence", &p->put.sequence, reterr);
	if (r == 0 && p->put.sequence < p->after)
		r = error_set(reterr, -EINVAL,
			      "member 'sequence': must not be smaller than 'after'");
	if (r == 0)
		r = read_records(json, "put_peers", MAP_MAX_PEERS, peers_of(&p->put), read_peer,
				 reterr);
	if (r == 0)
		r = read_records(json, "put_relays", MAP_MAX_RELAYS, relays_of(&p->put), read_relay,
				 reterr);
	if (r == 0)
		r = read_ids(json, "remove_peers", &p->remove_peers, &p->n_remove_peers, reterr);
	if (r == 0)
		r = read_ids(json, "remove_relays", &p->remove_relays, &p->n_remove_relays, reterr);
	if (r == 0)
		r = read_exposures(json, "put_exposures", &p->put, reterr);
	if (r == 0)
		r = read_ids(json, "remove_exposures", &p->remove_exposures, &p->n_remove_exposures, reterr);
	if (r == 0)
		r = read_grants(json, "put_grants", &p->put, reterr);
	if (r == 0)
		r = read_ids(json, "remove_grants", &p->remove_grants, &p->n_remove_grants, reterr);
	p->has_self = json_member(json, "self") != NULL;
	if (r == 0 && p->has_self)
		r = read_self(json, &p->put.self, reterr);
	return r;
}

/* Who leaves the network publishes nothing, and nothing is granted to it. */
static void apply_lists(struct table t, struct table puts, const uint32_t *remove, uint32_t n_remove,
			const struct patch *p)
{
	for (uint32_t i = 0; i < p->n_remove_peers; i++)
		drop_all(t, p->remove_peers[i]);
	for (uint32_t i = 0; i < n_remove; i++)
		drop_all(t, remove[i]);
	for (uint32_t i = 0, n; i < *puts.n; i += n) {
		const uint32_t peer_id = id_at(*puts.items, i, puts.size);
		n = count_of(*puts.items, *puts.n, puts.size, peer_id);
		put_all(t, peer_id, (const char *)*puts.items + i * puts.size, n);
	}
}

static void apply(struct map *map, struct patch *p)
{
	apply_lists(exposures_of(map), exposures_of(&p->put), p->remove_exposures, p->n_remove_exposures, p);
	apply_lists(grants_of(map), grants_of(&p->put), p->remove_grants, p->n_remove_grants, p);
	for (uint32_t i = 0; i < p->n_remove_peers; i++)
		drop(peers_of(map), p->remove_peers[i]);
	for (uint32_t i = 0; i < p->n_remove_relays; i++)
		drop(relays_of(map), p->remove_relays[i]);
	for (uint32_t i = 0; i < p->put.n_peers; i++)
		put(peers_of(map), &p->put.peers[i]);
	for (uint32_t i = 0; i < p->put.n_relays; i++)
		put(relays_of(map), &p->put.relays[i]);
	if (p->has_self)
		map->self = p->put.self;
	drop(peers_of(map), map->self.id);
	map->sequence = p->put.sequence;
}

static bool outgrows(struct table t, struct table puts, uint32_t max)
{
	uint32_t n_new = 0;

	for (uint32_t i = 0; i < *puts.n; i++)
		n_new += !find(*t.items, *t.n, t.size, id_at(*puts.items, i, t.size));
	return *t.n + n_new > max;
}

/* What is removed without a put counts until the next patch: control makes room first. */
static bool lists_outgrow(struct table t, struct table puts, uint32_t max)
{
	uint32_t n_replaced = 0;

	for (uint32_t i = 0, of_one; i < *puts.n; i += of_one) {
		const uint32_t peer_id = id_at(*puts.items, i, puts.size);
		of_one = count_of(*puts.items, *puts.n, puts.size, peer_id);
		n_replaced += count_of(*t.items, *t.n, t.size, peer_id);
	}
	return *t.n + *puts.n - n_replaced > max;
}

static int check_patch(struct map *map, struct patch *p, struct error *reterr)
{
	if (p->after != map->sequence)
		return error_set(reterr, -ESTALE, "the patch follows %llu, the map is at %llu",
				 (unsigned long long)p->after, (unsigned long long)map->sequence);
	if (outgrows(peers_of(map), peers_of(&p->put), MAP_MAX_PEERS) ||
	    outgrows(relays_of(map), relays_of(&p->put), MAP_MAX_RELAYS) ||
	    lists_outgrow(exposures_of(map), exposures_of(&p->put), MAP_MAX_EXPOSURES) ||
	    lists_outgrow(grants_of(map), grants_of(&p->put), MAP_MAX_GRANTS))
		return error_set(reterr, -EINVAL, "the map would grow beyond its bounds");
	return 0;
}

int map_apply_patch(struct map *map, const struct json *json, struct error *reterr)
{
	struct patch p = { 0 };
	int r = read_patch(json, &p, reterr);

	if (r == 0)
		r = check_patch(map, &p, reterr);
	if (r == 0)
		apply(map, &p);
	free(p.remove_peers);
	free(p.remove_relays);
	free(p.remove_exposures);
	free(p.remove_grants);
	map_deinit(&p.put);
	return r;
}
