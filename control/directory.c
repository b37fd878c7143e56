#include "control/directory.h"

#include "common/prefix.h"

#include <assert.h>
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void directory_init(struct directory *directory)
{
	*directory = (struct directory){ 0 };
}

void directory_deinit(struct directory *directory)
{
	for (uint32_t i = 0; i < directory->n; i++) {
		free(directory->members[i]->exposures);
		free(directory->members[i]);
	}
	free(directory->members);
	host_grants_deinit(&directory->grants);
	directory_init(directory);
}

/* The array, sorted by id */

static uint32_t lower_bound(const struct directory *d, uint32_t id)
{
	uint32_t low = 0, high = d->n;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		if (d->members[middle]->peer.id < id)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static struct member *find_any(const struct directory *d, uint32_t id)
{
	uint32_t i = lower_bound(d, id);

	return i < d->n && d->members[i]->peer.id == id ? d->members[i] : NULL;
}

static struct member *insert(struct directory *d, uint32_t id)
{
	uint32_t i = lower_bound(d, id);
	struct member **members = realloc(d->members, (d->n + 1) * sizeof(struct member *));
	struct member *member = calloc(1, sizeof(*member));

	if (!members || !member)
		abort();
	d->members = members;
	memmove(&members[i + 1], &members[i], (d->n - i) * sizeof(struct member *));
	members[i] = member;
	d->n++;
	member->peer.id = id;
	if (id > d->last_id)
		d->last_id = id;
	return member;
}

/* The list, by revision */

static void take_out(struct directory *d, struct member *m)
{
	if (m->older)
		m->older->newer = m->newer;
	else if (d->oldest == m)
		d->oldest = m->newer;
	if (m->newer)
		m->newer->older = m->older;
	else if (d->newest == m)
		d->newest = m->older;
	m->older = m->newer = NULL;
}

static void put_newest(struct directory *d, struct member *m)
{
	assert(!d->newest || d->newest->revision <= m->revision);
	m->older = d->newest;
	m->newer = NULL;
	if (d->newest)
		d->newest->newer = m;
	else
		d->oldest = m;
	d->newest = m;
}

/* Everything but the links and what belongs to the running service. */
static void copy_record(struct member *to, const struct member *from)
{
	struct member copy = *from;

	copy.older = to->older;
	copy.newer = to->newer;
	copy.connection = to->connection;
	copy.offline_at_ms = to->offline_at_ms;
	copy.wakes = to->wakes;
	copy.woken = to->woken;
	copy.wake_waits = to->wake_waits;
	copy.grants_revision = to->grants_revision;
	if (to->exposures != from->exposures)
		free(to->exposures);
	*to = copy;
}

struct member *directory_load(struct directory *d, const struct member *record)
{
	struct member *m = insert(d, record->peer.id);

	copy_record(m, record);
	m->grants_revision = m->revision;
	put_newest(d, m);
	if (m->removed)
		d->n_removed++;
	else
		d->n_present++;
	return m;
}

struct member *directory_put(struct directory *d, const struct member *record, uint64_t sequence)
{
	struct member *m = find_any(d, record->peer.id);

	assert(sequence == d->sequence + 1);
	if (!m) {
		m = insert(d, record->peer.id);
		d->n_present++;
	}
	assert(!m->removed);
	take_out(d, m);
	const bool had_relay = m->had_relay;
	copy_record(m, record);
	m->had_relay = had_relay || m->had_relay || member_is_relay(m);
	m->revision = d->sequence = sequence;
	put_newest(d, m);
	return m;
}

struct member *directory_put_granted(struct directory *d, const struct member *record, uint64_t sequence)
{
	struct member *m = directory_put(d, record, sequence);

	m->grants_revision = sequence;
	return m;
}

bool directory_is_full_of_relays(const struct directory *d)
{
	uint32_t n = 0;

	for (const struct member *m = directory_next(d, NULL); m; m = directory_next(d, m))
		n += member_is_relay(m) ? 1 : 0;
	return n >= MAP_MAX_RELAYS;
}

uint64_t directory_judge_exposures(const struct directory *d, const struct member *member,
				   const struct map_exposures *exposures)
{
	const uint64_t granted = host_grants_judge(&d->grants, exposures);
	const uint64_t before = exposures == member->exposures ? member->granted : 0;
	uint32_t n = (uint32_t)__builtin_popcountll(granted);

	if ((granted & ~before) == 0)
		return granted;
	for (const struct member *m = directory_next(d, NULL); m; m = directory_next(d, m))
		n += m == member ? 0 : (uint32_t)__builtin_popcountll(m->granted);
	return n <= MAP_MAX_EXPOSURES ? granted : granted & before;
}

static void forget_oldest_removed(struct directory *d)
{
	struct member *m = d->oldest;

	while (!m->removed)
		m = m->newer;
	d->oldest_resumable = m->revision;
	take_out(d, m);
	uint32_t i = lower_bound(d, m->peer.id);
	memmove(&d->members[i], &d->members[i + 1], (d->n - i - 1) * sizeof(struct member *));
	d->n--;
	d->n_removed--;
	free(m);
}

void directory_remove(struct directory *d, uint32_t id, uint64_t sequence)
{
	struct member *m = directory_find(d, id);

	assert(m && !m->connection && sequence == d->sequence + 1);
	take_out(d, m);
	m->removed = true;
	free(m->exposures);
	m->exposures = NULL;
	host_grants_remove_member(&d->grants, id);
	m->revision = d->sequence = sequence;
	put_newest(d, m);
	d->n_present--;
	if (++d->n_removed > DIRECTORY_MAX_REMOVED)
		forget_oldest_removed(d);
}

/* Looking */

struct member *directory_find(const struct directory *d, uint32_t id)
{
	struct member *m = find_any(d, id);

	return m && !m->removed ? m : NULL;
}

struct member *directory_next(const struct directory *d, const struct member *after)
{
	for (uint32_t i = after ? lower_bound(d, after->peer.id) + 1 : 0; i < d->n; i++)
		if (!d->members[i]->removed)
			return d->members[i];
	return NULL;
}

struct member *directory_find_by_key(const struct directory *d, const struct public_key *node_key)
{
	for (uint32_t i = 0; i < d->n; i++)
		if (!d->members[i]->removed &&
		    public_key_equal(&d->members[i]->peer.node_key, node_key))
			return d->members[i];
	return NULL;
}

struct member *directory_find_by_name(const struct directory *d, const char *name)
{
	for (uint32_t i = 0; i < d->n; i++)
		if (!d->members[i]->removed && strcmp(d->members[i]->peer.name, name) == 0)
			return d->members[i];
	return NULL;
}

/* Names and addresses */

/*
 * Lower case, anything else a '-', none at either end, only the first label; "node" when nothing is
 * left.
 */
static void normalise(const char *wanted, char ret[MAP_NAME_LEN + 1])
{
	size_t n = 0;

	for (; *wanted && *wanted != '.' && n < MAP_NAME_LEN; wanted++) {
		char c = *wanted;
		if (c >= 'A' && c <= 'Z')
			c = (char)(c - 'A' + 'a');
		if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')))
			c = '-';
		if (c != '-' || n > 0)
			ret[n++] = c;
	}
	while (n > 0 && ret[n - 1] == '-')
		n--;
	ret[n] = '\0';
	if (n == 0)
		memcpy(ret, "node", sizeof("node"));
}

void directory_free_name(const struct directory *d, const char *wanted, char ret[MAP_NAME_LEN + 1])
{
	char base[MAP_NAME_LEN + 1];

	normalise(wanted, base);
	memcpy(ret, base, sizeof(base));
	for (unsigned i = 2; directory_find_by_name(d, ret); i++) {
		char suffix[16];
		int n = snprintf(suffix, sizeof(suffix), "-%u", i);
		snprintf(ret, MAP_NAME_LEN + 1, "%.*s%s", MAP_NAME_LEN - n, base, suffix);
	}
}

static uint32_t host_of(const struct directory *d, struct in_addr address)
{
	return ntohl(address.s_addr) - ntohl(d->prefix4.s_addr);
}

/* One bit a host number, for those that are taken. */
static uint8_t *taken_hosts(const struct directory *d, uint32_t n_hosts, uint32_t *ret_highest)
{
	uint8_t *taken = calloc(n_hosts / 8 + 1, 1);

	if (!taken)
		abort();
	*ret_highest = 0;
	for (uint32_t i = 0; i < d->n; i++) {
		uint32_t host = host_of(d, d->members[i]->peer.ip4);
		if (host >= n_hosts)
			continue;
		if (!d->members[i]->removed)
			taken[host / 8] |= (uint8_t)(1 << host % 8);
		/* An address is used again late, not at once. */
		if (host > *ret_highest)
			*ret_highest = host;
	}
	return taken;
}

int directory_free_addresses(const struct directory *d, struct in_addr *ret4, struct in6_addr *ret6)
{
	uint32_t n_hosts = (uint32_t)(UINT64_C(1) << (32 - d->prefix4_len)), highest, host = 0;
	uint8_t *taken = taken_hosts(d, n_hosts, &highest);

	/* Neither the network's own address nor the broadcast address. */
	for (uint32_t i = 1; i < n_hosts - 1 && host == 0; i++) {
		uint32_t candidate = (highest + i - 1) % (n_hosts - 2) + 1;
		if (!(taken[candidate / 8] & 1 << candidate % 8))
			host = candidate;
	}
	free(taken);
	if (host == 0)
		return -ENOSPC;
	ret4->s_addr = htonl(ntohl(d->prefix4.s_addr) + host);
	*ret6 = d->prefix6;
	const uint32_t host_be = htonl(host);
	memcpy(&ret6->s6_addr[12], &host_be, sizeof(host_be));
	return 0;
}

/* Snapshot and patch */

bool directory_can_resume(const struct directory *d, uint64_t epoch, uint64_t sequence)
{
	return epoch == d->epoch && sequence >= d->oldest_resumable && sequence <= d->sequence &&
	       sequence > 0;
}

/* NULL: nothing that may be published. */
static struct json *granted_json(const struct member *m)
{
	if (!m->exposures || m->granted == 0)
		return NULL;
	struct map_exposures *granted = malloc(sizeof(*granted));
	if (!granted)
		abort();
	*granted = (struct map_exposures){ .id = m->peer.id, .port = m->exposures->port };
	for (uint32_t i = 0; i < m->exposures->n; i++)
		if (m->granted & UINT64_C(1) << i)
			memcpy(granted->hosts[granted->n++], m->exposures->hosts[i], sizeof(*granted->hosts));
	struct json *json = map_exposures_to_json(granted);
	free(granted);
	return json;
}

/* The whole names that are granted to it; NULL: none. */
static struct json *grants_json(const struct directory *d, const struct member *m)
{
	uint32_t n;
	const struct host_grant *grants = host_grants_of(&d->grants, m->peer.id, &n);
	struct json *json, *hosts = NULL;

	for (uint32_t i = 0; i < n; i++) {
		if (grants[i].host.is_wildcard)
			continue;
		if (!hosts)
			hosts = json_array();
		json_append_string(hosts, grants[i].host.name.text);
	}
	if (!hosts)
		return NULL;
	json = json_object();
	json_put_integer(json, "id", m->peer.id);
	json_put(json, "hosts", hosts);
	return json;
}

struct json *directory_snapshot(const struct directory *d, const struct member *for_member)
{
	struct json *json = json_object(), *peers = json_array(), *relays = json_array();
	struct json *exposures = json_array(), *grants = json_array(), *granted;

	json_put_u64(json, "sequence", d->sequence);
	json_put_u64(json, "epoch", d->epoch);
	json_put_string(json, "network", d->network);
	json_put_string(json, "prefix4", prefix4_text(d->prefix4, d->prefix4_len).s);
	json_put_string(json, "prefix6", prefix6_text(&d->prefix6, d->prefix6_len).s);
	json_put(json, "self", map_peer_to_json(&for_member->peer));
	for (const struct member *m = directory_next(d, NULL); m; m = directory_next(d, m)) {
		if (m != for_member)
			json_append(peers, map_peer_to_json(&m->peer));
		if (member_is_relay(m))
			json_append(relays, map_relay_to_json(&m->relay));
		if ((granted = granted_json(m)))
			json_append(exposures, granted);
		if ((granted = grants_json(d, m)))
			json_append(grants, granted);
	}
	json_put(json, "peers", peers);
	json_put(json, "relays", relays);
	json_put(json, "exposures", exposures);
	json_put(json, "grants", grants);
	return json;
}

struct json *directory_patch(const struct directory *d, const struct member *for_member,
			     uint64_t after)
{
	struct json *json = json_object(), *put_peers = json_array(), *remove_peers = json_array();
	struct json *put_relays = json_array(), *remove_relays = json_array();
	struct json *put_exposures = json_array(), *remove_exposures = json_array(), *granted;
	struct json *put_grants = json_array(), *remove_grants = json_array();

	json_put_u64(json, "after", after);
	json_put_u64(json, "sequence", d->sequence);
	for (const struct member *m = d->newest; m && m->revision > after; m = m->older) {
		if (m == for_member)
			json_put(json, "self", map_peer_to_json(&m->peer));
		else if (m->removed)
			json_append(remove_peers, json_integer(m->peer.id));
		else
			json_append(put_peers, map_peer_to_json(&m->peer));
		if (member_is_relay(m) && !m->removed)
			json_append(put_relays, map_relay_to_json(&m->relay));
		else if (m->had_relay)
			json_append(remove_relays, json_integer(m->peer.id));
		if ((granted = granted_json(m)))
			json_append(put_exposures, granted);
		else if (m->exposures)
			json_append(remove_exposures, json_integer(m->peer.id));
		if (m->removed || m->grants_revision <= after)
			continue;
		if ((granted = grants_json(d, m)))
			json_append(put_grants, granted);
		else /* it may have had some */
			json_append(remove_grants, json_integer(m->peer.id));
	}
	json_put(json, "put_peers", put_peers);
	json_put(json, "remove_peers", remove_peers);
	json_put(json, "put_relays", put_relays);
	json_put(json, "remove_relays", remove_relays);
	json_put(json, "put_exposures", put_exposures);
	json_put(json, "remove_exposures", remove_exposures);
	json_put(json, "put_grants", put_grants);
	json_put(json, "remove_grants", remove_grants);
	return json;
}
