#include "tests/sim/nat.h"

#include <string.h>

static struct endpoint part_of(const struct endpoint *remote, enum nat_behaviour behaviour)
{
	struct endpoint part = *remote;

	if (behaviour == NAT_INDEPENDENT)
		return (struct endpoint){ 0 };
	if (behaviour == NAT_ADDRESS)
		part.port = 0;
	return part;
}

static bool port_is_taken(const struct nat *nat, uint64_t now_ns, uint16_t port)
{
	for (uint32_t i = 0; i < NAT_MAX_MAPPINGS; i++)
		if (nat->mappings[i].port == port &&
		    now_ns - nat->mappings[i].used_ns < nat->timeout_ns)
			return true;
	return false;
}

static uint16_t new_port(struct nat *nat, uint64_t now_ns, uint16_t inside)
{
	if (nat->mapping == NAT_INDEPENDENT && !port_is_taken(nat, now_ns, inside))
		return inside;
	do {
		nat->next_port = (uint16_t)(20000 + (nat->next_port * 7919u + 31u) % 40000u);
	} while (port_is_taken(nat, now_ns, nat->next_port));
	return nat->next_port;
}

static struct nat_mapping *find_mapping(struct nat *nat, uint64_t now_ns,
					const struct endpoint *inside,
					const struct endpoint *remote)
{
	struct endpoint part = part_of(remote, nat->mapping);

	for (uint32_t i = 0; i < NAT_MAX_MAPPINGS; i++) {
		struct nat_mapping *m = &nat->mappings[i];

		if (m->port && now_ns - m->used_ns >= nat->timeout_ns)
			memset(m, 0, sizeof(*m));
		if (m->port && endpoint_equal(&m->inside, inside) &&
		    endpoint_equal(&m->remote, &part))
			return m;
	}
	return NULL;
}

/* In place of the one unused longest. */
static struct nat_mapping *new_mapping(struct nat *nat, const struct endpoint *inside,
				       const struct endpoint *remote, uint16_t port)
{
	struct nat_mapping *m = &nat->mappings[0];

	for (uint32_t i = 1; i < NAT_MAX_MAPPINGS; i++)
		if (nat->mappings[i].used_ns < m->used_ns)
			m = &nat->mappings[i];
	memset(m, 0, sizeof(*m));
	m->inside = *inside;
	m->remote = part_of(remote, nat->mapping);
	m->port = port;
	return m;
}

static struct nat_filter *filter_for(struct nat_mapping *m, const struct endpoint *part)
{
	struct nat_filter *oldest = &m->filters[0];

	for (uint32_t i = 0; i < m->n_filters; i++) {
		if (endpoint_equal(&m->filters[i].remote, part))
			return &m->filters[i];
		if (m->filters[i].used_ns < oldest->used_ns)
			oldest = &m->filters[i];
	}
	if (m->n_filters < NAT_MAX_FILTERS)
		oldest = &m->filters[m->n_filters++];
	memset(oldest, 0, sizeof(*oldest));
	oldest->remote = *part;
	return oldest;
}

static void open_filter(struct nat *nat, struct nat_mapping *m, uint64_t now_ns,
			const struct endpoint *remote)
{
	struct endpoint part = part_of(remote, nat->filtering);
	struct nat_filter *f = filter_for(m, &part);

	if (f->used_ns == 0 || now_ns - f->used_ns >= nat->timeout_ns)
		f->open_ns = now_ns + nat->filter_lag_ns;
	f->used_ns = now_ns;
}

bool nat_out(struct nat *nat, uint64_t now_ns, const struct endpoint *inside,
	     const struct endpoint *remote, struct endpoint *ret_source)
{
	struct nat_mapping *m;

	if (nat->udp_cut)
		return false;
	m = find_mapping(nat, now_ns, inside, remote);
	if (!m)
		m = new_mapping(nat, inside, remote, new_port(nat, now_ns, inside->port));
	m->used_ns = now_ns;
	open_filter(nat, m, now_ns, remote);
	*ret_source = endpoint_from_v4(nat->ip, m->port);
	return true;
}

static bool lets_in(const struct nat *nat, const struct nat_mapping *m, uint64_t now_ns,
		    const struct endpoint *part)
{
	for (uint32_t f = 0; f < m->n_filters; f++)
		if (endpoint_equal(&m->filters[f].remote, part) &&
		    now_ns >= m->filters[f].open_ns &&
		    now_ns - m->filters[f].used_ns < nat->timeout_ns)
			return true;
	return false;
}

/*
 * An answer leaves by the port its question came in by, also when something else was sent to that
 * remote before: connection tracking goes by the newer entry.
 */
static void remember_caller(struct nat *nat, uint64_t now_ns, const struct endpoint *inside,
			    const struct endpoint *remote, uint16_t port)
{
	struct nat_mapping *m = find_mapping(nat, now_ns, inside, remote);

	if (!m)
		m = new_mapping(nat, inside, remote, port);
	m->port = port;
	m->used_ns = now_ns;
}

bool nat_in(struct nat *nat, uint64_t now_ns, const struct endpoint *remote, uint16_t port,
	    struct endpoint *ret_inside)
{
	struct endpoint part = part_of(remote, nat->filtering);

	for (uint32_t i = 0; i < NAT_MAX_MAPPINGS && !nat->udp_cut; i++) {
		struct nat_mapping *m = &nat->mappings[i];

		if (m->port != port || now_ns - m->used_ns >= nat->timeout_ns ||
		    !lets_in(nat, m, now_ns, &part))
			continue;
		*ret_inside = m->inside;
		remember_caller(nat, now_ns, ret_inside, remote, port);
		return true;
	}
	return false;
}

void nat_forget(struct nat *nat)
{
	nat->next_port = (uint16_t)(nat->next_port + 1);
	memset(nat->mappings, 0, sizeof(nat->mappings));
}

static bool maps_independently(const struct nat *nat)
{
	return !nat || nat->mapping == NAT_INDEPENDENT;
}

static bool is_easy(const struct nat *nat)
{
	return !nat || nat->filtering == NAT_INDEPENDENT ||
	       (nat->mapping == NAT_INDEPENDENT && nat->filtering == NAT_ADDRESS);
}

/* One side lets in whoever comes from the other's address, or both have one known address. */
bool nat_pair_can_be_direct(const struct nat *a, const struct nat *b)
{
	return is_easy(a) || is_easy(b) || (maps_independently(a) && maps_independently(b));
}

const char *nat_name(const struct nat *nat)
{
	static const char *const names[3][3] = {
		{ "EIM-EIF", "EIM-ADF", "EIM-APDF" },
		{ "ADM-EIF", "ADM-ADF", "ADM-APDF" },
		{ "APDM-EIF", "APDM-ADF", "APDM-APDF" },
	};

	return nat ? names[nat->mapping][nat->filtering] : "public";
}
