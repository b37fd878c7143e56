/*
 * Warm connections of webgw's agents, and an agent of our own, in figures for Prometheus (relay/relay_metrics.h). Names and
 * labels are in p2pnode(8), and stay.
 */
#pragma once

#include "relay/webgw/data_links.h"
#include "relay/webgw/webgw_agent.h"

#include <stdio.h>

struct webgw_metrics {
	bool has_links, is_agent;
	struct data_links_counters links; /* of agents within TLS */
	struct webgw_agent_counters agent;
};

/* Nothing is put of what there is not. */
void webgw_metrics_put(FILE *out, const struct webgw_metrics *metrics);
