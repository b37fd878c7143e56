/*
 * What a simulation is called with: which seeds, and how much is said. One seed is one run, the same each time.
 *
 *   --seeds N      so many …                       --case N       that case alone, where there are several
 *   --from N       … from this one on              --keep-going   also after one that failed
 *   --seed N       this one alone                  --trace        says what happens
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define SIM_ALL_CASES UINT32_MAX

struct sim_options {
	uint64_t n, from; /* seeds */
	uint32_t only;    /* case, or SIM_ALL_CASES */
	bool keeps_going, trace;
};

/* n_seeds: unless it is said. False, and told why: it is called with something else. */
bool sim_options_take(int argc, char *argv[], uint64_t n_seeds, bool has_cases, struct sim_options *ret);
