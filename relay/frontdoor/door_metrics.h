/*
 * Doors and what stands behind them, in figures for Prometheus (relay/relay_metrics.h): the door by which visitors come
 * from outside, that to which other doors bring them, and each exposure. Labels are from short lists, but for the host of
 * an exposure: of these a node has EXPOSURE_MAX. Names and labels are in p2pnode(8), and stay.
 */
#pragma once

#include "relay/frontdoor/door_gate.h"
#include "relay/frontdoor/front_door.h"

#include <stdint.h>
#include <stdio.h>

struct door_metrics_exposure {
	const char *host; /* "https://app.example.org"; no character of it needs an escape */
	struct door_gate_counters counters;
};

struct door_metrics {
	const struct front_door_counters *front, *exposed; /* NULL: there is no such door */
	const struct door_metrics_exposure *exposures;
	uint32_t n_exposures;
};

/* Nothing is put where there is nothing. */
void door_metrics_put(FILE *out, const struct door_metrics *metrics);
