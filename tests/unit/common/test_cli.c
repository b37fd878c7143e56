/* Command lines: the forms an option may take, and errors that keep secrets. */
#include "common/cli.h"
#include "common/macros.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *path, *count;
static bool json, verbose;

static const struct cli_option own[] = {
	{ 'c', "count", "N", "How often", &count, NULL },
	{ 'v', "verbose", NULL, "Talk", NULL, &verbose },
};
static const struct cli_option global[] = {
	{ 's', "socket", "PATH", "Where", &path, NULL },
	{ 0, "json", NULL, "For programs", NULL, &json },
};

struct line {
	char words[8][80];
	char *argv[9];
	int argc, n;
	struct error error;
};

static int parse_with(struct line *line, const char *text, bool stop)
{
	struct cli cli = { own, global, ARRAY_LEN(own), ARRAY_LEN(global), stop };
	char copy[256], *rest = copy, *word;

	path = count = NULL;
	json = verbose = false;
	*line = (struct line){ 0 };
	snprintf(copy, sizeof(copy), "%s", text);
	while ((word = strsep(&rest, " "))) {
		snprintf(line->words[line->argc], sizeof(line->words[0]), "%s", word);
		line->argv[line->argc] = line->words[line->argc];
		line->argc++;
	}
	return cli_parse(&cli, line->argc, line->argv, &line->n, &line->error);
}

static void expect_error(const char *text, const char *expected)
{
	struct line line;

	assert(parse_with(&line, text, false) == -EINVAL);
	if (strcmp(line.error.message, expected) != 0)
		fprintf(stderr, "expected: %s\ngot:      %s\n", expected, line.error.message);
	assert(strcmp(line.error.message, expected) == 0);
}

static void test_a_value_stands_beside_or_within_its_option(void)
{
	static const char *const forms[] = { "--socket /x", "--socket=/x", "-s /x", "-s/x" };
	struct line line;

	for (size_t i = 0; i < ARRAY_LEN(forms); i++) {
		assert(parse_with(&line, forms[i], false) == 0);
		assert(line.n == 0 && strcmp(path, "/x") == 0);
	}
}

static void test_arguments_and_options_may_be_mixed(void)
{
	struct line line;

	assert(parse_with(&line, "bob -v - --json --count 3 -- --not", false) == 0);
	assert(line.n == 3 && verbose && json && strcmp(count, "3") == 0);
	assert(strcmp(line.argv[0], "bob") == 0);
	assert(strcmp(line.argv[1], "-") == 0);
	assert(strcmp(line.argv[2], "--not") == 0);
}

static void test_parsing_can_stop_at_the_first_argument(void)
{
	struct line line;

	assert(parse_with(&line, "--json ping --unknown", true) == 0);
	assert(line.n == 1 && json);
	assert(parse_with(&line, "--json", true) == 0);
	assert(line.n == 1);
}

static void test_errors_name_the_option_and_never_its_value(void)
{
	expect_error("--jsn", "unknown option '--jsn'; did you mean '--json'?");
	expect_error("--zzz=secret", "unknown option '--zzz'; --help lists them");
	expect_error("-z", "unknown option '-z'; --help lists them");
	expect_error("--socket", "--socket needs a value: --socket PATH");
	expect_error("-c", "--count needs a value: --count N");
	expect_error("--json=yes", "--json takes no value");
	expect_error("-v1", "--verbose takes no value");
}

static void test_an_argument_is_shown_without_its_secret(void)
{
	char argument[] = "p2p://host:1/#pin.key";

	assert(strcmp(cli_show(argument).s, "p2p://host:1/…") == 0);
	assert(strcmp(cli_show("bob").s, "bob") == 0);
	assert(strcmp(cli_show("a\x1b[2J").s, "a…") == 0);
	assert(strlen(cli_show("a very long argument that does not end where one would expect it to end").s) < 64);
	cli_wipe(argument);
	assert(strspn(argument, "*") == 21);
}

static void test_numbers_have_bounds(void)
{
	struct error error;
	long n = 5;

	assert(cli_number("--count", "12", 1, 20, &n, &error) == 0 && n == 12);
	assert(cli_number("--count", "0", 1, 20, &n, &error) == -EINVAL && n == 12);
	assert(strcmp(error.message, "--count: must be a whole number from 1 to 20") == 0);
	assert(cli_number("--count", "", 1, 20, &n, &error) == -EINVAL);
	assert(cli_number("--count", "-3", 1, 20, &n, &error) == -EINVAL);
	assert(cli_number("--count", "3x", 1, 20, &n, &error) == -EINVAL);
	assert(cli_number("--count", "99999999999999999999", 1, 20, &n, &error) == -EINVAL);
}

static void test_help_lines_up(void)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	cli_print_options(out, global, ARRAY_LEN(global));
	fclose(out);
	assert(strcmp(text, "  -s, --socket PATH  Where\n"
			    "      --json         For programs\n") == 0);
	free(text);
}

int main(void)
{
	test_a_value_stands_beside_or_within_its_option();
	test_arguments_and_options_may_be_mixed();
	test_parsing_can_stop_at_the_first_argument();
	test_errors_name_the_option_and_never_its_value();
	test_an_argument_is_shown_without_its_secret();
	test_numbers_have_bounds();
	test_help_lines_up();
	return 0;
}
