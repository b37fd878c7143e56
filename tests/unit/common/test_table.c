/* Tables line up by what the terminal shows, whatever bytes the cells are made of. */
#include "common/table.h"
#include "common/utf8.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void expect(struct table *table, const char *expected)
{
	char *text = table_text(table);

	if (strcmp(text, expected) != 0)
		fprintf(stderr, "expected:\n%sgot:\n%s", expected, text);
	assert(strcmp(text, expected) == 0);
	free(text);
	table_free(table);
}

static void test_columns_are_as_wide_as_their_widest_cell(void)
{
	struct table *table = table_new("NAME|>LATENCY|PATH");

	table_cell(table, "alice");
	table_cell(table, "%d ms", 7);
	table_cell(table, "direct");
	table_cell(table, "bo");
	table_cell(table, "1234567 ms");
	table_cell(table, "relay");
	assert(table_rows(table) == 2);
	expect(table, "NAME      LATENCY  PATH\n"
		      "alice        7 ms  direct\n"
		      "bo     1234567 ms  relay\n");
}

static void test_widths_are_columns_of_the_terminal(void)
{
	struct table *table = table_new("NAME|X");

	table_cell(table, "zoë");
	table_cell(table, "1");
	table_cell(table, "中文");
	table_cell(table, "2");
	table_cell(table, "e\xcc\x81"); /* e and a combining acute */
	table_cell(table, "3");
	expect(table, "NAME  X\n"
		      "zoë   1\n"
		      "中文  2\n"
		      "e\xcc\x81     3\n");
}

static void test_a_cell_cannot_speak_to_the_terminal(void)
{
	struct table *table = table_new("A|B");

	table_cell(table, "\x1b[2J\n");
	table_cell(table, "\xff\xc2\x9b");
	expect(table, "A      B\n"
		      "?[2J?  ??\n");
}

static void test_lines_have_no_white_space_at_their_end(void)
{
	struct table *table = table_new("A|B|C");

	table_cell(table, "1");
	table_cell(table, "%s", "");
	table_cell(table, "%s", "");
	expect(table, "A  B  C\n"
		      "1\n");
}

static void test_a_row_may_be_short(void)
{
	struct table *table = table_new("A|B");

	table_cell(table, "1");
	expect(table, "A  B\n"
		      "1\n");
}

static void test_only_whole_and_shortest_utf8_is_valid(void)
{
	assert(utf8_is_valid("a\xc3\xa9\xe4\xb8\xad\xf0\x9f\x98\x80", 10));
	assert(!utf8_is_valid("\xc0\xaf", 2));		   /* overlong */
	assert(!utf8_is_valid("\xe0\x80\xaf", 3));	   /* overlong */
	assert(!utf8_is_valid("\xed\xa0\x80", 3));	   /* surrogate */
	assert(!utf8_is_valid("\xf4\x90\x80\x80", 4));	   /* beyond U+10FFFF */
	assert(!utf8_is_valid("\xe4\xb8", 2));		   /* cut off */
	assert(!utf8_is_valid("\x80", 1));
	assert(utf8_is_plain("ok", 2) && !utf8_is_plain("a\x7f", 2) && !utf8_is_plain("\xc2\x85", 2));
}

int main(void)
{
	test_columns_are_as_wide_as_their_widest_cell();
	test_widths_are_columns_of_the_terminal();
	test_a_cell_cannot_speak_to_the_terminal();
	test_lines_have_no_white_space_at_their_end();
	test_a_row_may_be_short();
	test_only_whole_and_shortest_utf8_is_valid();
	return 0;
}
