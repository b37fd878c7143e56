#include "control/host_grants.h"

#include "relay/frontdoor/door_routes.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static_assert(MAP_MAX_HOSTS <= 64, "a bit for each");
static_assert(2 * HOST_GRANTS_MAX <= MAP_MAX_GRANTS, "those of before and those that come, in one patch");

static bool is_same(const struct host_pattern *a, const struct host_pattern *b)
{
	return a->is_wildcard == b->is_wildcard && host_name_equal(&a->name, &b->name);
}

int host_grant_name_from(const char *text, struct host_pattern *ret)
{
	struct port_name port;

	if (port_name_from(text, strlen(text), &port) != 0)
		return host_pattern_from(text, strlen(text), ret);
	*ret = (struct host_pattern){ .is_wildcard = false };
	port_name_to_host(&port, &ret->name);
	return 0;
}

bool host_grant_is_port(const struct host_pattern *host, struct port_name *ret)
{
	return !host->is_wildcard && port_name_from(host->name.text, host->name.len, ret) == 0;
}

void host_grants_deinit(struct host_grants *grants)
{
	free(grants->items);
	*grants = (struct host_grants){ 0 };
}

/* Where those of the member begin, or would. */
static uint32_t first_of(const struct host_grants *grants, uint32_t member_id)
{
	uint32_t low = 0, high = grants->n;

	while (low < high) {
		const uint32_t middle = low + (high - low) / 2;
		if (grants->items[middle].member_id < member_id)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

const struct host_grant *host_grants_of(const struct host_grants *grants, uint32_t member_id, uint32_t *ret_n)
{
	const uint32_t first = first_of(grants, member_id);
	uint32_t end = first;

	while (end < grants->n && grants->items[end].member_id == member_id)
		end++;
	*ret_n = end - first;
	return end > first ? &grants->items[first] : NULL;
}

const struct host_grant *host_grants_find(const struct host_grants *grants, uint32_t member_id,
					  const struct host_pattern *host)
{
	uint32_t n;
	const struct host_grant *own = host_grants_of(grants, member_id, &n);

	for (uint32_t i = 0; i < n; i++)
		if (is_same(&own[i].host, host))
			return &own[i];
	return NULL;
}

int host_grants_add(struct host_grants *grants, const struct host_grant *grant)
{
	if (host_grants_find(grants, grant->member_id, &grant->host))
		return -EEXIST;
	if (grants->n == HOST_GRANTS_MAX)
		return -ENOSPC;
	struct host_grant *items = realloc(grants->items, (grants->n + 1) * sizeof(*items));
	if (!items)
		abort();
	grants->items = items;
	const uint32_t at = grant->member_id == UINT32_MAX ? grants->n : first_of(grants, grant->member_id + 1);
	memmove(&items[at + 1], &items[at], (grants->n - at) * sizeof(*items));
	items[at] = *grant;
	grants->n++;
	return 0;
}

void host_grants_remove(struct host_grants *grants, uint32_t member_id, const struct host_pattern *host)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < grants->n; i++)
		if (grants->items[i].member_id != member_id || !is_same(&grants->items[i].host, host))
			grants->items[kept++] = grants->items[i];
	grants->n = kept;
}

void host_grants_remove_member(struct host_grants *grants, uint32_t member_id)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < grants->n; i++)
		if (grants->items[i].member_id != member_id)
			grants->items[kept++] = grants->items[i];
	grants->n = kept;
}

/* At some door. */
static bool allows_port(const struct host_grants *grants, uint32_t member_id, const struct port_name *port)
{
	uint32_t n;
	const struct host_grant *own = host_grants_of(grants, member_id, &n);

	for (uint32_t i = 0; i < n; i++) {
		struct port_name granted;
		if (host_grant_is_port(&own[i].host, &granted) && granted.kind == port->kind && granted.number == port->number)
			return true;
	}
	return false;
}

bool host_grants_allow(const struct host_grants *grants, uint32_t member_id, const struct host_pattern *host)
{
	bool by_wildcard = false, is_of_another = false;
	struct port_name port;

	if (host_grant_is_port(host, &port))
		return allows_port(grants, member_id, &port);
	for (uint32_t i = 0; i < grants->n; i++) {
		const struct host_grant *grant = &grants->items[i];
		const bool is_own = grant->member_id == member_id;
		if (is_same(&grant->host, host)) {
			if (is_own)
				return true;
			is_of_another = true;
		} else if (is_own && grant->host.is_wildcard && !host->is_wildcard) {
			by_wildcard = by_wildcard || host_pattern_matches(&grant->host, &host->name);
		}
	}
	return by_wildcard && !is_of_another;
}

uint64_t host_grants_judge(const struct host_grants *grants, const struct map_exposures *exposures)
{
	uint64_t granted = 0;

	for (uint32_t i = 0; exposures && i < exposures->n; i++) {
		struct door_rule rule;
		if (door_rule_parse_host(exposures->hosts[i], strlen(exposures->hosts[i]), &rule, NULL) == 0 &&
		    host_grants_allow(grants, exposures->id, &rule.host))
			granted |= UINT64_C(1) << i;
	}
	return granted;
}
