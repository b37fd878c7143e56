/* Log lines: what a stranger can make many of is bounded by the second, and told; and a line is one line. */
#include "common/log.h"

#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CALLS 100

/* What `speak` writes to stderr, which is a pipe meanwhile. */
static const char *heard(void (*speak)(void *context), void *context)
{
	static char text[16384];
	int ends[2];
	const int before = dup(STDERR_FILENO);

	assert(before >= 0 && pipe2(ends, O_CLOEXEC) == 0 && dup2(ends[1], STDERR_FILENO) == STDERR_FILENO);
	close(ends[1]);
	speak(context);
	assert(dup2(before, STDERR_FILENO) == STDERR_FILENO);
	close(before);
	size_t used = 0;
	for (ssize_t n; (n = read(ends[0], text + used, sizeof(text) - 1 - used)) > 0;)
		used += (size_t)n;
	close(ends[0]);
	text[used] = '\0';
	return text;
}

static uint32_t n_lines(const char *text)
{
	uint32_t n = 0;

	for (; (text = strchr(text, '\n')); text++)
		n++;
	return n;
}

static uint32_t told_in(const char *text)
{
	uint32_t sum = 0, n;

	while ((text = strstr(text, " ("))) {
		if (sscanf(text, " (%u more suppressed)\n", &n) == 1)
			sum += n;
		text++;
	}
	return sum;
}

static void test_of_many_in_a_second_five_are_written_and_the_rest_is_told_once(void)
{
	struct log_limit limit = { 0 };
	uint32_t n = 0, suppressed;

	for (int i = 0; i < CALLS; i++) {
		n += log_limit_take(&limit, 7, &suppressed);
		assert(suppressed == 0);
	}
	assert(n == LOG_LINES_PER_SECOND);
	/* However much later; and not again. */
	assert(log_limit_take(&limit, 1000, &suppressed) && suppressed == CALLS - LOG_LINES_PER_SECOND);
	assert(log_limit_take(&limit, 1000, &suppressed) && suppressed == 0);
	assert(log_limit_take(&limit, 1001, &suppressed) && suppressed == 0);
}

static void test_an_hour_of_floods_is_five_lines_a_second_and_none_is_forgotten(void)
{
	struct log_limit limit = { 0 };
	uint32_t written = 0, told = 0, suppressed;

	for (uint64_t second = 1; second <= 3600; second++)
		for (int i = 0; i < CALLS; i++) {
			written += log_limit_take(&limit, second, &suppressed);
			told += suppressed;
		}
	assert(written == 3600 * LOG_LINES_PER_SECOND);
	assert(written + told + limit.suppressed == 3600 * CALLS);
}

static void test_a_count_that_is_full_stays_full(void)
{
	struct log_limit limit = { .second = 7, .n = LOG_LINES_PER_SECOND, .suppressed = UINT32_MAX };
	uint32_t suppressed;

	assert(!log_limit_take(&limit, 7, &suppressed));
	assert(log_limit_take(&limit, 8, &suppressed) && suppressed == UINT32_MAX);
}

static void flood(void *limit)
{
	for (int i = 0; i < CALLS; i++)
		log_limited(limit, LOG_LEVEL_INFO, "test", "event %d", i);
}

static void next(void *limit)
{
	log_limited(limit, LOG_LEVEL_INFO, "test", "the next");
}

static void test_what_is_written_is_bounded_and_the_next_second_tells_the_rest(void)
{
	struct log_limit limit = { 0 };
	const char *text = heard(flood, &limit);
	const uint32_t written = n_lines(text);

	/* The flood may lie on the border of two seconds, and nothing is left out but what is counted. */
	assert(written >= LOG_LINES_PER_SECOND && written <= 2 * LOG_LINES_PER_SECOND);
	assert(written + told_in(text) + limit.suppressed == CALLS);
	assert(strstr(text, "info  test: event 0\n"));
	const uint32_t left = limit.suppressed;
	limit.second--; /* a second passes */
	text = heard(next, &limit);
	assert(n_lines(text) == 1 && strstr(text, "test: the next (") && told_in(text) == left);
	text = heard(next, &limit);
	assert(n_lines(text) == 1 && strstr(text, "test: the next\n"));
}

static void too_quiet(void *limit)
{
	for (int i = 0; i < CALLS; i++)
		log_limited(limit, LOG_LEVEL_DEBUG, "test", "not of this level");
}

static void test_what_is_not_of_the_level_is_not_counted(void)
{
	struct log_limit limit = { 0 };

	assert(strcmp(heard(too_quiet, &limit), "") == 0);
	assert(limit.suppressed == 0 && limit.n == 0);
}

static void long_and_strange(void *limit)
{
	char name[4000];

	memset(name, 'x', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	memcpy(name, "a\nb\r\x1b\x7f", 6);
	log_limited(limit, LOG_LEVEL_INFO, "test", "host %s", name);
}

static void test_a_strangers_bytes_begin_no_line_and_hide_no_count(void)
{
	struct log_limit limit = { .suppressed = 95 }; /* of a second that is long over */
	const char *text = heard(long_and_strange, &limit);

	assert(n_lines(text) == 1 && strlen(text) <= 1024 && strstr(text, "host a?b???xxx"));
	assert(told_in(text) == 95);
}

int main(void)
{
	unsetenv("JOURNAL_STREAM");
	test_of_many_in_a_second_five_are_written_and_the_rest_is_told_once();
	test_an_hour_of_floods_is_five_lines_a_second_and_none_is_forgotten();
	test_a_count_that_is_full_stays_full();
	test_what_is_written_is_bounded_and_the_next_second_tells_the_rest();
	test_what_is_not_of_the_level_is_not_counted();
	test_a_strangers_bytes_begin_no_line_and_hide_no_count();
	return 0;
}
