/*
 * What a public node serves, in figures for Prometheus (text format 0.0.4): by transport, and what came to nothing
 * by cause. The names of the metrics are in p2pnode(8), and stay.
 */
#pragma once

#include "relay/diglett/diglett_metrics.h"
#include "relay/webgw/webgw_metrics.h"
#include "relay/frontdoor/door_metrics.h"
#include "relay/public_node.h"

#include <stdbool.h>
#include <stdint.h>

#define RELAY_METRICS_TYPE "text/plain; version=0.0.4; charset=utf-8"

struct relay_metrics {
	const struct public_node_stats *stats; /* NULL: nothing is served */
	bool is_draining, has_control;
	struct door_metrics doors;
	struct diglett_metrics diglett;
	struct webgw_metrics webgw;
	/* Of the process. */
	double cpu_s, started_s; /* since 1970 */
	uint64_t resident_bytes;
	uint32_t open_fds, max_fds;
};

/* On the heap, the caller frees it. Out of memory aborts. */
char *relay_metrics_text(const struct relay_metrics *metrics);
