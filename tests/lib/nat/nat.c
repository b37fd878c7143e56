#include "tests/lib/nat/nat.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <strings.h>

#define FIRST_PORT 1024
#define LAST_PORT  65535

/* ---- lists; a link that is in none points to itself ---- */

static void link_init(struct nat_link *link)
{
	link->next = link->previous = link;
}

static void link_remove(struct nat_link *link)
{
	link->next->previous = link->previous;
	link->previous->next = link->next;
	link_init(link);
}

static void link_append(struct nat_link *list, struct nat_link *link)
{
	link->previous = list->previous;
	link->next = list;
	list->previous->next = link;
	list->previous = link;
}

static struct nat_link *link_first(const struct nat_link *list)
{
	return list->next == list ? NULL : list->next;
}

/* ---- keys ---- */

enum index { BY_INSIDE, BY_OUTSIDE, BY_REMOTE, INDEXES };

static uint64_t mix(uint64_t x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

static uint64_t hash_endpoint(uint64_t seed, const struct endpoint *endpoint)
{
	uint64_t high, low;

	memcpy(&high, endpoint->ip, sizeof(high));
	memcpy(&low, endpoint->ip + 8, sizeof(low));
	return mix(mix(mix(seed + 1) ^ high) ^ low ^ endpoint->port);
}

static struct nat_link *bucket(const struct nat *nat, enum index index, enum nat_protocol protocol,
			       const struct endpoint *a, const struct endpoint *b)
{
	uint64_t hash = hash_endpoint(protocol, a);

	if (b)
		hash = hash_endpoint(hash, b);
	return &nat->tables.buckets[index * nat->tables.n_buckets +
				    (hash & (nat->tables.n_buckets - 1))];
}

static bool is_same_address(const struct endpoint *a, const struct endpoint *b)
{
	return memcmp(a->ip, b->ip, sizeof(a->ip)) == 0;
}

static struct endpoint part_of(const struct endpoint *remote, enum nat_behaviour behaviour)
{
	struct endpoint part = *remote;

	if (behaviour == NAT_INDEPENDENT)
		return (struct endpoint){ 0 };
	if (behaviour == NAT_ADDRESS)
		part.port = 0;
	return part;
}

static const struct nat_rules *rules_of(const struct nat *nat, enum nat_protocol protocol)
{
	return &nat->config.rules[protocol];
}

static bool is_over(const struct nat *nat, enum nat_protocol protocol, uint64_t used_ns, uint64_t now_ns)
{
	return now_ns - used_ns >= rules_of(nat, protocol)->timeout_ns;
}

/* ---- mappings ---- */

static struct nat_mapping *find_mapping(const struct nat *nat, enum nat_protocol protocol,
					const struct endpoint *inside, const struct endpoint *remote)
{
	const struct endpoint part = part_of(remote, rules_of(nat, protocol)->mapping);
	const struct nat_link *list = bucket(nat, BY_INSIDE, protocol, inside, &part);

	for (struct nat_link *link = list->next; link != list; link = link->next) {
		struct nat_mapping *m = container_of(link, struct nat_mapping, by_inside);
		if (m->protocol == protocol && endpoint_equal(&m->inside, inside) &&
		    endpoint_equal(&m->remote, &part))
			return m;
	}
	return NULL;
}

static struct nat_mapping *find_port(const struct nat *nat, enum nat_protocol protocol,
				     const struct endpoint *outside)
{
	const struct nat_link *list = bucket(nat, BY_OUTSIDE, protocol, outside, NULL);

	for (struct nat_link *link = list->next; link != list; link = link->next) {
		struct nat_mapping *m = container_of(link, struct nat_mapping, by_outside);
		if (m->protocol == protocol && endpoint_equal(&m->outside, outside))
			return m;
	}
	return NULL;
}

static uint32_t random_below(struct nat *nat, uint32_t n)
{
	nat->random += 0x9e3779b97f4a7c15u;
	return (uint32_t)(mix(nat->random) % n);
}

static uint32_t inside_ip(const struct endpoint *inside)
{
	return (uint32_t)inside->ip[12] << 24 | (uint32_t)inside->ip[13] << 16 |
	       (uint32_t)inside->ip[14] << 8 | inside->ip[15];
}

static uint32_t choose_address(struct nat *nat, const struct endpoint *inside)
{
	const struct nat_config *config = &nat->config;

	if (config->is_pool_arbitrary)
		return config->addresses[nat->next_address++ % config->n_addresses];
	return config->addresses[inside_ip(inside) % config->n_addresses];
}

/* Where the search for a free port begins. */
static uint32_t first_guess(struct nat *nat, enum nat_protocol protocol, const struct endpoint *inside,
			    uint32_t n_ports)
{
	const struct nat_config *config = &nat->config;

	if (config->ports == NAT_PORTS_STEP && nat->last_port[protocol])
		return 0u + nat->last_port[protocol] - config->first_port + config->port_step;
	if (config->ports == NAT_PORTS_PRESERVE && inside->port >= config->first_port &&
	    inside->port <= config->last_port)
		return 0u + inside->port - config->first_port;
	return random_below(nat, n_ports);
}

static int choose_port(struct nat *nat, enum nat_protocol protocol, const struct endpoint *inside,
		       struct endpoint *ret)
{
	const struct nat_config *config = &nat->config;
	const uint32_t n_ports = config->last_port - config->first_port + 1u;
	uint32_t guess = first_guess(nat, protocol, inside, n_ports) % n_ports;
	struct endpoint outside = endpoint_from_v4(choose_address(nat, inside), 0);

	for (uint32_t i = 0; i < n_ports; i++) {
		outside.port = (uint16_t)(config->first_port + guess);
		if (!find_port(nat, protocol, &outside)) {
			nat->last_port[protocol] = outside.port;
			*ret = outside;
			return 0;
		}
		/* A port that was to be kept and is not free: one like any other. */
		if (i == 0 && config->ports == NAT_PORTS_PRESERVE)
			guess = random_below(nat, n_ports);
		else
			guess = (guess + 1) % n_ports;
	}
	return NAT_FULL;
}

static void remove_session(struct nat *nat, struct nat_session *s)
{
	link_remove(&s->by_remote);
	link_remove(&s->of_mapping);
	link_remove(&s->by_use);
	link_append(&nat->free_sessions, &s->by_use);
	nat->counts.sessions--;
}

static void remove_mapping(struct nat *nat, struct nat_mapping *m)
{
	struct nat_link *link;

	while ((link = link_first(&m->sessions)) != NULL)
		remove_session(nat, container_of(link, struct nat_session, of_mapping));
	link_remove(&m->by_inside);
	link_remove(&m->by_outside);
	link_remove(&m->by_use);
	link_append(&nat->free_mappings, &m->by_use);
	nat->counts.mappings--;
}

static struct nat_mapping *new_mapping(struct nat *nat, uint64_t now_ns, enum nat_protocol protocol,
				       const struct endpoint *inside, const struct endpoint *remote)
{
	struct nat_link *link = link_first(&nat->free_mappings);
	struct endpoint outside;
	struct nat_mapping *m;

	if (!link || choose_port(nat, protocol, inside, &outside) != 0)
		return NULL;
	link_remove(link);
	m = container_of(link, struct nat_mapping, by_use);
	m->protocol = protocol;
	m->inside = *inside;
	m->outside = outside;
	m->remote = part_of(remote, rules_of(nat, protocol)->mapping);
	m->open_ns = now_ns + rules_of(nat, protocol)->filter_lag_ns;
	m->used_ns = now_ns;
	link_append(bucket(nat, BY_INSIDE, protocol, &m->inside, &m->remote), &m->by_inside);
	link_append(bucket(nat, BY_OUTSIDE, protocol, &m->outside, NULL), &m->by_outside);
	link_append(&nat->mappings[protocol], &m->by_use);
	nat->counts.mappings_made++;
	if (++nat->counts.mappings > nat->counts.mappings_peak)
		nat->counts.mappings_peak = nat->counts.mappings;
	return m;
}

/* ---- sessions ---- */

static struct nat_session *find_session(const struct nat *nat, enum nat_protocol protocol,
					const struct endpoint *inside, const struct endpoint *remote)
{
	const struct nat_link *list = bucket(nat, BY_REMOTE, protocol, inside, remote);

	for (struct nat_link *link = list->next; link != list; link = link->next) {
		struct nat_session *s = container_of(link, struct nat_session, by_remote);
		if (s->mapping->protocol == protocol && endpoint_equal(&s->mapping->inside, inside) &&
		    endpoint_equal(&s->remote, remote))
			return s;
	}
	return NULL;
}

static struct nat_session *new_session(struct nat *nat, uint64_t now_ns, struct nat_mapping *m,
				       const struct endpoint *remote)
{
	struct nat_link *link = link_first(&nat->free_sessions);
	struct nat_session *s;

	if (!link)
		return NULL;
	link_remove(link);
	s = container_of(link, struct nat_session, by_use);
	s->mapping = m;
	s->remote = *remote;
	s->was_asked = false;
	s->used_ns = now_ns;
	link_append(bucket(nat, BY_REMOTE, m->protocol, &m->inside, remote), &s->by_remote);
	link_append(&nat->sessions[m->protocol], &s->by_use);
	link_append(&m->sessions, &s->of_mapping);
	nat->counts.sessions_made++;
	if (++nat->counts.sessions > nat->counts.sessions_peak)
		nat->counts.sessions_peak = nat->counts.sessions;
	return s;
}

static void use(struct nat *nat, struct nat_session *s, uint64_t now_ns)
{
	struct nat_mapping *m = s->mapping;

	s->used_ns = m->used_ns = now_ns;
	link_remove(&s->by_use);
	link_append(&nat->sessions[m->protocol], &s->by_use);
	link_remove(&m->by_use);
	link_append(&nat->mappings[m->protocol], &m->by_use);
}

void nat_expire(struct nat *nat, uint64_t now_ns)
{
	struct nat_link *link;

	for (enum nat_protocol protocol = 0; protocol < NAT_PROTOCOLS; protocol++) {
		while ((link = link_first(&nat->sessions[protocol])) != NULL) {
			struct nat_session *s = container_of(link, struct nat_session, by_use);
			if (!is_over(nat, protocol, s->used_ns, now_ns))
				break;
			remove_session(nat, s);
		}
		while ((link = link_first(&nat->mappings[protocol])) != NULL) {
			struct nat_mapping *m = container_of(link, struct nat_mapping, by_use);
			if (!is_over(nat, protocol, m->used_ns, now_ns))
				break;
			remove_mapping(nat, m);
		}
	}
}

/* ---- packets ---- */

static int refuse(struct nat *nat, enum nat_refusal why)
{
	if (why == NAT_UNMAPPED)
		nat->counts.unmapped++;
	else if (why == NAT_FILTERED)
		nat->counts.filtered++;
	else if (why == NAT_FULL)
		nat->counts.full++;
	return (int)why;
}

int nat_out(struct nat *nat, uint64_t now_ns, enum nat_protocol protocol, const struct endpoint *inside,
	    const struct endpoint *remote, struct endpoint *ret_outside)
{
	struct nat_session *s;
	struct nat_mapping *m;

	nat_expire(nat, now_ns);
	s = find_session(nat, protocol, inside, remote);
	if (!s) {
		/* Not a mapping without a session: nothing would be let in by it. */
		if (!link_first(&nat->free_sessions))
			return refuse(nat, NAT_FULL);
		m = find_mapping(nat, protocol, inside, remote);
		if (!m)
			m = new_mapping(nat, now_ns, protocol, inside, remote);
		if (!m)
			return refuse(nat, NAT_FULL);
		s = new_session(nat, now_ns, m, remote);
	}
	if (!s->was_asked)
		s->open_ns = now_ns + rules_of(nat, protocol)->filter_lag_ns;
	s->was_asked = true;
	use(nat, s, now_ns);
	*ret_outside = s->mapping->outside;
	return 0;
}

static bool is_open(const struct nat_session *s, uint64_t now_ns)
{
	return s->was_asked && now_ns >= s->open_ns;
}

static bool has_asked_address(const struct nat_mapping *m, const struct endpoint *remote, uint64_t now_ns)
{
	for (const struct nat_link *link = m->sessions.next; link != &m->sessions; link = link->next) {
		const struct nat_session *s = container_of(link, struct nat_session, of_mapping);
		if (is_same_address(&s->remote, remote) && is_open(s, now_ns))
			return true;
	}
	return false;
}

static bool lets_in(const struct nat *nat, const struct nat_mapping *m, const struct nat_session *s,
		    const struct endpoint *remote, uint64_t now_ns)
{
	switch (rules_of(nat, m->protocol)->filtering) {
	case NAT_INDEPENDENT:
		return now_ns >= m->open_ns;
	case NAT_ADDRESS:
		return has_asked_address(m, remote, now_ns);
	case NAT_ADDRESS_AND_PORT:
		return s && s->mapping == m && is_open(s, now_ns);
	}
	return false;
}

int nat_in(struct nat *nat, uint64_t now_ns, enum nat_protocol protocol, const struct endpoint *remote,
	   const struct endpoint *outside, struct endpoint *ret_inside)
{
	struct nat_session *s;
	struct nat_mapping *m;

	nat_expire(nat, now_ns);
	m = find_port(nat, protocol, outside);
	if (!m)
		return refuse(nat, NAT_UNMAPPED);
	s = find_session(nat, protocol, &m->inside, remote);
	if (!lets_in(nat, m, s, remote, now_ns))
		return refuse(nat, NAT_FILTERED);
	if (!s)
		s = new_session(nat, now_ns, m, remote);
	if (!s)
		return refuse(nat, NAT_FULL);
	if (s->mapping != m) {
		link_remove(&s->of_mapping);
		link_append(&m->sessions, &s->of_mapping);
		s->mapping = m;
	}
	if (rules_of(nat, protocol)->is_kept_by_inbound)
		use(nat, s, now_ns);
	*ret_inside = m->inside;
	return 0;
}

int nat_turn(struct nat *nat, uint64_t now_ns, enum nat_protocol protocol, const struct endpoint *from,
	     const struct endpoint *outside, struct endpoint *ret_source, struct endpoint *ret_inside)
{
	struct endpoint mapped;
	int r;

	if (nat->config.hairpin == NAT_HAIRPIN_OFF)
		return refuse(nat, NAT_NO_HAIRPIN);
	r = nat_out(nat, now_ns, protocol, from, outside, &mapped);
	if (r == 0)
		r = nat_in(nat, now_ns, protocol, &mapped, outside, ret_inside);
	if (r == 0)
		*ret_source = nat->config.hairpin == NAT_HAIRPIN_INTERNAL ? *from : mapped;
	return r;
}

bool nat_find_inside(const struct nat *nat, uint64_t now_ns, enum nat_protocol protocol,
		     const struct endpoint *outside, struct endpoint *ret_inside)
{
	const struct nat_mapping *m = find_port(nat, protocol, outside);

	if (!m || is_over(nat, protocol, m->used_ns, now_ns))
		return false;
	*ret_inside = m->inside;
	return true;
}

bool nat_find_outside(const struct nat *nat, uint64_t now_ns, enum nat_protocol protocol,
		      const struct endpoint *inside, const struct endpoint *remote,
		      struct endpoint *ret_outside)
{
	const struct nat_session *s = find_session(nat, protocol, inside, remote);

	if (!s || is_over(nat, protocol, s->used_ns, now_ns))
		return false;
	*ret_outside = s->mapping->outside;
	return true;
}

/* ---- the NAT ---- */

void nat_forget(struct nat *nat)
{
	struct nat_link *link;

	for (enum nat_protocol protocol = 0; protocol < NAT_PROTOCOLS; protocol++)
		while ((link = link_first(&nat->mappings[protocol])) != NULL)
			remove_mapping(nat, container_of(link, struct nat_mapping, by_use));
}

static void init_links(struct nat *nat)
{
	const struct nat_tables *tables = &nat->tables;

	link_init(&nat->free_mappings);
	link_init(&nat->free_sessions);
	for (int i = 0; i < NAT_PROTOCOLS; i++) {
		link_init(&nat->mappings[i]);
		link_init(&nat->sessions[i]);
	}
	for (uint32_t i = 0; i < INDEXES * tables->n_buckets; i++)
		link_init(&tables->buckets[i]);
	for (uint32_t i = 0; i < tables->n_mappings; i++) {
		link_init(&tables->mappings[i].sessions);
		link_init(&tables->mappings[i].by_inside);
		link_init(&tables->mappings[i].by_outside);
		link_append(&nat->free_mappings, &tables->mappings[i].by_use);
	}
	for (uint32_t i = 0; i < tables->n_sessions; i++) {
		link_init(&tables->sessions[i].by_remote);
		link_init(&tables->sessions[i].of_mapping);
		link_append(&nat->free_sessions, &tables->sessions[i].by_use);
	}
}

void nat_init(struct nat *nat, const struct nat_config *config, const struct nat_tables *tables)
{
	assert(config->n_addresses > 0 && config->n_addresses <= NAT_ADDRESSES_MAX);
	assert(tables->n_buckets > 0 && (tables->n_buckets & (tables->n_buckets - 1)) == 0);
	memset(nat, 0, sizeof(*nat));
	nat->config = *config;
	nat->tables = *tables;
	nat->random = config->seed;
	if (config->first_port == 0 && config->last_port == 0) {
		nat->config.first_port = FIRST_PORT;
		nat->config.last_port = LAST_PORT;
	}
	assert(nat->config.first_port > 0 && nat->config.first_port <= nat->config.last_port);
	init_links(nat);
}

bool nat_has_address(const struct nat *nat, const struct endpoint *endpoint)
{
	for (uint32_t i = 0; i < nat->config.n_addresses; i++) {
		const struct endpoint own = endpoint_from_v4(nat->config.addresses[i], 0);
		if (is_same_address(&own, endpoint))
			return true;
	}
	return false;
}

static const char *const type_names[3][3] = {
	{ "EIM-EIF", "EIM-ADF", "EIM-APDF" },
	{ "ADM-EIF", "ADM-ADF", "ADM-APDF" },
	{ "APDM-EIF", "APDM-ADF", "APDM-APDF" },
};

int nat_parse_type(const char *name, enum nat_behaviour *ret_mapping, enum nat_behaviour *ret_filtering)
{
	for (unsigned m = 0; m < 3; m++)
		for (unsigned f = 0; f < 3; f++)
			if (strcasecmp(name, type_names[m][f]) == 0) {
				*ret_mapping = (enum nat_behaviour)m;
				*ret_filtering = (enum nat_behaviour)f;
				return 0;
			}
	return -EINVAL;
}

const char *nat_name(const struct nat_rules *rules)
{
	return rules ? type_names[rules->mapping][rules->filtering] : "public";
}

static bool maps_independently(const struct nat_rules *rules)
{
	return !rules || rules->mapping == NAT_INDEPENDENT;
}

static bool is_easy(const struct nat_rules *rules)
{
	return !rules || rules->filtering == NAT_INDEPENDENT ||
	       (rules->mapping == NAT_INDEPENDENT && rules->filtering == NAT_ADDRESS);
}

/* One side lets in whoever comes from the other's address, or both have one known address. */
bool nat_pair_can_be_direct(const struct nat_rules *a, const struct nat_rules *b)
{
	return is_easy(a) || is_easy(b) || (maps_independently(a) && maps_independently(b));
}
