#include "tests/sim/sim_options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool take_flag(const char *word, struct sim_options *ret)
{
	if (strcmp(word, "--trace") == 0)
		ret->trace = true;
	else if (strcmp(word, "--keep-going") == 0)
		ret->keeps_going = true;
	else
		return false;
	return true;
}

static bool take_number(const char *word, const char *value, bool has_cases, struct sim_options *ret)
{
	const uint64_t number = value ? strtoull(value, NULL, 10) : 0;

	if (!value)
		return false;
	if (strcmp(word, "--seeds") == 0)
		ret->n = number;
	else if (strcmp(word, "--from") == 0)
		ret->from = number;
	else if (strcmp(word, "--seed") == 0)
		ret->from = number, ret->n = 1;
	else if (has_cases && strcmp(word, "--case") == 0)
		ret->only = (uint32_t)number;
	else
		return false;
	return true;
}

bool sim_options_take(int argc, char *argv[], uint64_t n_seeds, bool has_cases, struct sim_options *ret)
{
	*ret = (struct sim_options){ .n = n_seeds, .from = 1, .only = SIM_ALL_CASES };
	for (int i = 1; i < argc; i++) {
		if (take_flag(argv[i], ret))
			continue;
		if (take_number(argv[i], argv[i + 1], has_cases, ret)) { /* argv ends with NULL */
			i++;
			continue;
		}
		fprintf(stderr, "usage: %s [--seeds N] [--from N] [--seed N]%s [--keep-going] [--trace]\n", argv[0],
			has_cases ? " [--case N]" : "");
		return false;
	}
	return true;
}
