/*
 * Which host names a member may publish: an admin grants them.
 *
 *   asked for          granted to it                and then
 *   app.example.org    app.example.org              may
 *   app.example.org    *.example.org                may, unless app.example.org is granted to another, and not to it
 *   *.example.org      *.example.org                may
 *   *.example.org      a.example.org                may not
 *   app.example.org    -                            may not
 *
 *   tcp:2222           tcp:2222, or tcp:2222/7      may: at any front door, or at that of node 7 alone, which the door
 *                                                   itself sees to
 *
 * A port stands where a host does, by its name (port_name.h). The whole name goes before the wildcard, as at the front door (host_table.h). Whole names are in the map, also those that
 * are not published now: so that nobody's wildcard stands for another's name. A name may be granted to several
 * members. A plain array: an admin does not grant many. Pure.
 */
#pragma once

#include "common/macros.h"
#include "common/map.h"
#include "relay/frontdoor/host_name.h"
#include "relay/frontdoor/port_name.h"

#include <stdbool.h>
#include <stdint.h>

#define HOST_GRANTS_MAX 4096

struct host_grant {
	uint32_t member_id;
	int64_t created_s;
	struct host_pattern host;
};

struct host_grants {
	uint32_t n;
	struct host_grant *items; /* by member, and of each in the order in which they were granted */
};

void host_grants_deinit(struct host_grants *grants);
/* 0, -EEXIST or -ENOSPC. Copied. */
P2P_CHECK int host_grants_add(struct host_grants *grants, const struct host_grant *grant);
/* The first of those of this member, *ret_n in all; NULL: it has none. Borrowed. */
const struct host_grant *host_grants_of(const struct host_grants *grants, uint32_t member_id, uint32_t *ret_n);
/* NULL: it has not been granted. */
const struct host_grant *host_grants_find(const struct host_grants *grants, uint32_t member_id,
					  const struct host_pattern *host);
/* Nothing, when it has not been granted. */
void host_grants_remove(struct host_grants *grants, uint32_t member_id, const struct host_pattern *host);
void host_grants_remove_member(struct host_grants *grants, uint32_t member_id);
/* "app.example.org", "*.example.org", "tcp:2222", "tcp:2222/7". 0, or an enum host_name_error. */
P2P_CHECK int host_grant_name_from(const char *text, struct host_pattern *ret);
/* Is it of a port? Then which. */
bool host_grant_is_port(const struct host_pattern *host, struct port_name *ret);
/* May the member publish it? */
bool host_grants_allow(const struct host_grants *grants, uint32_t member_id, const struct host_pattern *host);
/* A bit for each of its hosts: it may be published. What is no host (of a scheme unknown here, say) may not. */
uint64_t host_grants_judge(const struct host_grants *grants, const struct map_exposures *exposures);
