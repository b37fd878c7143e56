/*
 * How many connections an agent keeps warm for a host: as many as visitors came in the busiest of the last ten seconds, between
 * what is configured and what the server has room for. So who comes in a row, or many at once, finds one.
 *
 * Pure.
 */
#pragma once

#include <stdint.h>

#define WARM_DEMAND_S 10

/* All zero: nobody has come. */
struct warm_demand {
	uint64_t second; /* of the last visitor */
	uint16_t visitors[WARM_DEMAND_S]; /* of each second, by its number modulo WARM_DEMAND_S; older ones are not valid */
};

void warm_demand_note(struct warm_demand *demand, uint64_t now_ms);
/* least > most: most. */
uint32_t warm_demand_wanted(const struct warm_demand *demand, uint32_t least, uint32_t most, uint64_t now_ms);
