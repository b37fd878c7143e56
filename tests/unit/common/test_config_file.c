/*
 * The configuration parser: what it reads, and that each mistake is told with its line and remedy.
 */
#include "common/config_file.h"
#include "common/macros.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int check_even(const char *value, struct error *reterr)
{
	return atoi(value) % 2 == 0 ? 0 : error_set(reterr, -EINVAL, "an even number, such as 2");
}

static const struct config_setting settings[] = {
	{ "node", "name", CONFIG_TEXT, 0, 8, "", false, NULL, "Name" },
	{ "node", "pairs", CONFIG_NUMBER, -2, 65535, "4", false, check_even, "Pairs" },
	{ "node", "verbose", CONFIG_BOOL, 0, 0, "no", false, NULL, "Talk" },
	{ "public", "address", CONFIG_TEXT, 1, 45, NULL, true, NULL, "Address" },
};
static const struct config_schema schema = { settings, ARRAY_LEN(settings) };

static struct config_values parsed(const char *text)
{
	struct config_values values;
	struct error error = { 0 };
	int r = config_file_parse(&schema, "x.conf", text, strlen(text), &values, &error);

	if (r != 0)
		fprintf(stderr, "%s\n", error.message);
	assert(r == 0);
	return values;
}

static void test_an_empty_file_is_all_defaults(void)
{
	struct config_values values = parsed("");

	assert(strcmp(config_text(&values, "node", "name"), "") == 0);
	assert(config_number(&values, "node", "pairs") == 4);
	assert(!config_bool(&values, "node", "verbose"));
	assert(!config_has_section(&values, "public"));
	assert(config_count(&values, "public", "address") == 0);
	config_values_deinit(&values);
}

static void test_values_are_read_without_the_white_space_around_them(void)
{
	struct config_values values = parsed("\xef\xbb\xbf# comment\n\n"
					     "[node]\r\n  name =  a b # c \r\npairs=-2\n\tverbose\t=\tyes\n"
					     "; comment\n[ public ]\naddress = 1\naddress = 2");

	assert(strcmp(config_text(&values, "node", "name"), "a b # c") == 0);
	assert(config_number(&values, "node", "pairs") == -2);
	assert(config_bool(&values, "node", "verbose"));
	assert(config_has_section(&values, "public"));
	assert(config_count(&values, "public", "address") == 2);
	assert(strcmp(config_item(&values, "public", "address", 1), "2") == 0);
	config_values_deinit(&values);
}

static const struct {
	const char *text, *error;
} mistakes[] = {
	{ "name = x", "x.conf:1: 'name' stands before any section; put it under one, such as [node]" },
	{ "[node]\nnaem = x", "x.conf:2: unknown key 'naem' in [node]; did you mean 'name'?" },
	{ "[public]\n\nadress = 1", "x.conf:3: unknown key 'adress' in [public]; did you mean 'address'?" },
	{ "[node]\nzzzz = 1", "x.conf:2: unknown key 'zzzz' in [node]; its keys are name, pairs, verbose" },
	{ "[node]\naddress = 1", "x.conf:2: unknown key 'address' in [node]; it belongs under [public]" },
	{ "[nod]\n", "x.conf:1: unknown section [nod]; did you mean [node]?" },
	{ "[zebra]\n", "x.conf:1: unknown section [zebra]; the sections are [node], [public]" },
	{ "[node", "x.conf:1: a section reads '[name]'; found '[node'" },
	{ "[", "x.conf:1: a section reads '[name]'; found '['" },
	{ "[]", "x.conf:1: unknown section []; the sections are [node], [public]" },
	{ "[node]\n[node]", "x.conf:2: section [node] stands twice; join the two" },
	{ "[node]\nname", "x.conf:2: expected 'key = value', found 'name'" },
	{ "[node]\nname = x\n\nname = y", "x.conf:4: name stands twice in [node] (first in line 2); keep one" },
	{ "[node]\nname = nine chars", "x.conf:2: name = nine chars: must have 0 to 8 characters, has 10" },
	{ "[node]\npairs =", "x.conf:2: pairs has no value; give it one or delete the line" },
	{ "[node]\npairs = 12a", "x.conf:2: pairs = 12a: must be a whole number from -2 to 65535" },
	{ "[node]\npairs = 65536", "x.conf:2: pairs = 65536: must be a whole number from -2 to 65535" },
	{ "[node]\npairs = 99999999999999999999",
	  "x.conf:2: pairs = 99999999999999999999: must be a whole number from -2 to 65535" },
	{ "[node]\npairs = +4", "x.conf:2: pairs = +4: must be a whole number from -2 to 65535" },
	{ "[node]\npairs = 3", "x.conf:2: pairs = 3: must be an even number, such as 2" },
	{ "[node]\nverbose = 1", "x.conf:2: verbose = 1: must be yes or no" },
	{ "[public]\naddress =", "x.conf:2: address has no value; give it one or delete the line" },
	{ "[node]\nname = \x01", "x.conf:2: control character (byte 0x01); remove it" },
	{ "[node]\n# \xff", "x.conf:2: not valid UTF-8; save the file as UTF-8" },
	{ "[node]\nabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz = 1",
	  "x.conf:2: unknown key 'abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuv…' in [node]; its keys are "
	  "name, pairs, verbose" },
};

static void test_each_mistake_names_file_line_and_remedy(void)
{
	for (size_t i = 0; i < ARRAY_LEN(mistakes); i++) {
		struct config_values values = { .file = "untouched" };
		struct error error = { 0 };
		int r = config_file_parse(&schema, "x.conf", mistakes[i].text, strlen(mistakes[i].text), &values,
					  &error);

		if (strcmp(error.message, mistakes[i].error) != 0)
			fprintf(stderr, "expected: %s\ngot:      %s\n", mistakes[i].error, error.message);
		assert(r == -EINVAL && strcmp(error.message, mistakes[i].error) == 0);
		assert(strcmp(values.file, "untouched") == 0);
	}
}

static void expect_refused(const char *text, size_t len, int code, const char *why)
{
	struct config_values values;
	struct error error = { 0 };

	assert(config_file_parse(&schema, "x.conf", text, len, &values, &error) == code);
	assert(strstr(error.message, why));
}

static void test_a_file_has_bounds(void)
{
	static char text[CONFIG_FILE_MAX_LEN + 1];

	memset(text, '\n', sizeof(text));
	expect_refused(text, sizeof(text), -EFBIG, "longer than 262144 bytes");
	memset(text, 'x', sizeof(text));
	expect_refused(text, CONFIG_FILE_MAX_LINE + 1, -EINVAL, "x.conf:1: line longer than 1024 bytes");
	size_t n = (size_t)sprintf(text, "[public]\n");
	for (int i = 0; i <= CONFIG_FILE_MAX_ITEMS; i++)
		n += (size_t)sprintf(text + n, "address = %d\n", i);
	expect_refused(text, n, -EINVAL, "x.conf:66: address stands more than 64 times");
	n = (size_t)sprintf(text, "[public]\naddress = ");
	memset(text + n, 'x', CONFIG_FILE_MAX_VALUE + 1);
	expect_refused(text, n + CONFIG_FILE_MAX_VALUE + 1, -EINVAL, "longer than 256 bytes");
	expect_refused("[node]\0", 7, -EINVAL, "control character (byte 0x00)");
}

static void test_an_error_of_the_whole_names_the_line_of_its_part(void)
{
	struct config_values values = parsed("[node]\n\npairs = 2\n");
	struct error error;

	assert(config_error(&values, "node", "pairs", &error, "too %s", "few") == -EINVAL);
	assert(strcmp(error.message, "x.conf:3: too few") == 0);
	assert(config_error(&values, "node", "name", &error, "missing") == -EINVAL);
	assert(strcmp(error.message, "x.conf: missing") == 0);
	config_values_deinit(&values);
}

static void test_the_defaults_as_text_parse_to_the_defaults(void)
{
	char *text = config_schema_text(&schema);
	struct config_values values = parsed(text);

	assert(strstr(text, "[node]\n# Name\nname =\n# Pairs\n# -2 to 65535\npairs = 4\n"));
	assert(strstr(text, "\n#[public]\n## Address\n## may stand several times\n#address =\n"));
	assert(config_number(&values, "node", "pairs") == 4);
	config_values_deinit(&values);
	free(text);
}

int main(void)
{
	test_an_empty_file_is_all_defaults();
	test_values_are_read_without_the_white_space_around_them();
	test_each_mistake_names_file_line_and_remedy();
	test_a_file_has_bounds();
	test_an_error_of_the_whole_names_the_line_of_its_part();
	test_the_defaults_as_text_parse_to_the_defaults();
	return 0;
}
