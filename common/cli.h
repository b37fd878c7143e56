/*
 * Options of a command line, by table: one parser, one form of error, one form of help.
 *
 * "--name VALUE", "--name=VALUE", "-n VALUE", "-nVALUE"; flags "--name", "-n". "--" ends the options;
 * "-" alone is an argument. An error names the option, never its value, and an argument is shown only
 * up to a '#', behind which join links keep their secret. Pure.
 */
#pragma once

#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct cli_option {
	char letter;	   /* 0: none */
	const char *name;  /* without the dashes */
	const char *value; /* what it takes, for help: "PATH"; NULL: a flag */
	const char *doc;   /* one line */
	const char **ret_text; /* of an option with a value; borrowed from argv */
	bool *ret_flag;	       /* of a flag */
};

struct cli {
	const struct cli_option *options, *more; /* two tables: the command's own and the program's */
	size_t n_options, n_more;
	bool stop_at_argument; /* leave the first argument and all behind it alone */
};

struct cli_shown {
	char s[64];
};

/*
 * Parses argv[0 … argc) (no program name). Arguments are moved to the front, in order; *ret_n is how
 * many. With stop_at_argument *ret_n counts the options consumed instead: argv[*ret_n] is the first
 * argument. 0 or -EINVAL.
 */
P2P_CHECK int cli_parse(const struct cli *cli, int argc, char *argv[], int *ret_n, struct error *reterr);
/* "  -n, --name VALUE  doc", lined up. */
void cli_print_options(FILE *out, const struct cli_option *options, size_t n);
/* An argument as it may be repeated in an error. */
struct cli_shown cli_show(const char *argument);
/* Overwrites an argument (a secret, already copied), so that ps(1) does not show it. */
void cli_wipe(char *argument);
/* A whole number. 0, or -EINVAL: "--count: must be a whole number from 1 to 1000". */
P2P_CHECK int cli_number(const char *option, const char *text, long min, long max, long *ret,
			 struct error *reterr);
