/* Bytes arrive in any pieces; whole lines come out, and a line has an end. */
#include "common/lines.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

static int put(struct lines *lines, const char *text, size_t n)
{
	size_t size;
	char *room = lines_room(lines, &size);

	assert(size >= n);
	memcpy(room, text, n);
	return lines_put(lines, n);
}

static void expect_line(struct lines *lines, const char *expected)
{
	char *line;
	size_t len;

	assert(lines_take(lines, &line, &len));
	assert(len == strlen(expected) && strcmp(line, expected) == 0);
}

static void expect_none(struct lines *lines)
{
	char *line;
	size_t len;

	assert(!lines_take(lines, &line, &len));
}

static void test_lines_come_out_whole_however_they_came_in(void)
{
	const char *text = "one\n\ntwo\r\nthree\n";

	for (size_t piece = 1; piece <= strlen(text); piece++) {
		struct lines lines;
		char got[64] = "", *line;
		size_t len, n;

		lines_init(&lines, 100);
		for (size_t at = 0; at < strlen(text); at += n) {
			n = strlen(text) - at < piece ? strlen(text) - at : piece;
			assert(put(&lines, text + at, n) == 0);
			while (lines_take(&lines, &line, &len))
				strcat(strcat(got, line), "|");
		}
		assert(strcmp(got, "one||two|three|") == 0);
		lines_deinit(&lines);
	}
}

static void test_what_is_not_taken_stays(void)
{
	struct lines lines;

	lines_init(&lines, 100);
	assert(put(&lines, "a\nb\nc", 5) == 0);
	expect_line(&lines, "a");
	assert(put(&lines, "d\n", 2) == 0);
	expect_line(&lines, "b");
	expect_line(&lines, "cd");
	expect_none(&lines);
	lines_deinit(&lines);
}

static void test_a_line_longer_than_allowed_is_refused_with_or_without_its_end(void)
{
	struct lines lines;

	lines_init(&lines, 4);
	assert(put(&lines, "12", 2) == 0);
	assert(put(&lines, "34", 2) == 0);
	assert(put(&lines, "5", 1) == -EMSGSIZE);
	lines_deinit(&lines);
	assert(put(&lines, "1234\n", 5) == 0);
	expect_line(&lines, "1234");
	assert(put(&lines, "12345\n", 6) == -EMSGSIZE);
	lines_deinit(&lines);
}

static void test_the_buffer_grows_with_the_line(void)
{
	static char long_line[100001];
	struct lines lines;
	char *line;
	size_t len;

	memset(long_line, 'x', sizeof(long_line) - 1);
	lines_init(&lines, sizeof(long_line));
	for (size_t at = 0; at < sizeof(long_line) - 1; at += 1000)
		assert(put(&lines, long_line + at, 1000) == 0);
	expect_none(&lines);
	assert(put(&lines, "\nrest", 5) == 0);
	assert(lines_take(&lines, &line, &len) && len == sizeof(long_line) - 1);
	assert(strcmp(line, long_line) == 0);
	expect_none(&lines);
	lines_deinit(&lines);
}

int main(void)
{
	test_lines_come_out_whole_however_they_came_in();
	test_what_is_not_taken_stays();
	test_a_line_longer_than_allowed_is_refused_with_or_without_its_end();
	test_the_buffer_grows_with_the_line();
	return 0;
}
