/*
 * How long a lane may stand still for the device: a share of the time, whoever gives cause for it. What
 * a lane waits for is order; when it has waited enough it goes on without.
 *
 * All zero is a start. Pure.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define WAIT_BUDGET_SHARE  10			/* a tenth of the time */
#define WAIT_BUDGET_MAX_NS UINT64_C(10000000) /* and so much at once */

struct wait_budget {
	uint64_t spent_ns; /* not yet made up for */
	uint64_t at_ns;	   /* as of then */
};

static inline bool wait_budget_allows(struct wait_budget *budget, uint64_t now_ns)
{
	const uint64_t made_up = (now_ns - budget->at_ns) / WAIT_BUDGET_SHARE;

	budget->spent_ns = budget->spent_ns > made_up ? budget->spent_ns - made_up : 0;
	budget->at_ns = now_ns;
	return budget->spent_ns < WAIT_BUDGET_MAX_NS;
}

static inline void wait_budget_spend(struct wait_budget *budget, uint64_t ns)
{
	budget->spent_ns += ns;
}
