/*
 * A diglett server and an agent in figures for Prometheus (relay/relay_metrics.h). Names and labels are in p2pnode(8), and
 * stay; of labels there are few.
 */
#pragma once

#include "relay/diglett/diglett_agent.h"
#include "relay/diglett/diglett_server.h"

#include <stdio.h>

struct diglett_metrics {
	bool is_server, is_agent;
	struct diglett_server_counters server;
	struct diglett_agent_counters agent;
};

/* Nothing is put of what there is not. */
void diglett_metrics_put(FILE *out, const struct diglett_metrics *metrics);
