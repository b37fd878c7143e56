#include "common/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SUPPRESSED_MAX 40 /* bytes of "how many were left out" */

static _Atomic int current_level = LOG_LEVEL_INFO;

static const struct {
	const char *padded, *journal;
} levels[] = {
	[LOG_LEVEL_ERROR] = { "error", "<3>" }, [LOG_LEVEL_WARNING] = { "warn ", "<4>" },
	[LOG_LEVEL_INFO] = { "info ", "<6>" },	[LOG_LEVEL_DEBUG] = { "debug", "<7>" },
	[LOG_LEVEL_TRACE] = { "trace", "<7>" },
};

void log_set_level(enum log_level level)
{
	atomic_store_explicit(&current_level, (int)level, memory_order_relaxed);
}

enum log_level log_get_level(void)
{
	return (enum log_level)atomic_load_explicit(&current_level, memory_order_relaxed);
}

static size_t put_prefix(char *line, size_t cap, enum log_level level, const char *module)
{
	struct timespec now;
	struct tm tm;
	int n;

	if (getenv("JOURNAL_STREAM")) {
		n = snprintf(line, cap, "%s%s: ", levels[level].journal, module);
	} else {
		clock_gettime(CLOCK_REALTIME, &now);
		gmtime_r(&now.tv_sec, &tm);
		n = snprintf(line, cap, "%04d-%02d-%02dT%02d:%02d:%02d.%03ldZ %s %s: ", tm.tm_year + 1900,
			     tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec,
			     now.tv_nsec / 1000000, levels[level].padded, module);
	}
	return n > 0 && (size_t)n < cap ? (size_t)n : 0;
}

static void write_line(enum log_level level, const char *module, uint32_t suppressed, const char *format,
		       va_list args)
{
	char line[1024];
	size_t used = put_prefix(line, sizeof(line), level, module);
	int n = vsnprintf(line + used, sizeof(line) - used, format, args);

	if (n < 0)
		return;
	used += (size_t)n;
	const size_t most = sizeof(line) - 1 - (suppressed > 0 ? SUPPRESSED_MAX : 0);
	if (used > most)
		used = most;
	if (suppressed > 0)
		used += (size_t)snprintf(line + used, sizeof(line) - used, " (%u more suppressed)", suppressed);
	/* A stranger's bytes must not be able to begin a line of their own. */
	for (size_t i = 0; i < used; i++)
		if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
			line[i] = '?';
	line[used++] = '\n';
	ssize_t written = write(STDERR_FILENO, line, used);
	(void)written; /* nowhere to tell */
}

void log_line(enum log_level level, const char *module, const char *format, ...)
{
	va_list args;

	if (level > log_get_level())
		return;
	va_start(args, format);
	write_line(level, module, 0, format, args);
	va_end(args);
}

bool log_limit_take(struct log_limit *limit, uint64_t second, uint32_t *ret_suppressed)
{
	*ret_suppressed = 0;
	if (limit->second != second) {
		*ret_suppressed = limit->suppressed;
		*limit = (struct log_limit){ .second = second };
	}
	if (limit->n >= LOG_LINES_PER_SECOND) {
		limit->suppressed += limit->suppressed < UINT32_MAX;
		return false;
	}
	limit->n++;
	return true;
}

void log_limited(struct log_limit *limit, enum log_level level, const char *module, const char *format, ...)
{
	uint32_t suppressed;
	struct timespec now;
	va_list args;

	if (level > log_get_level())
		return;
	clock_gettime(CLOCK_MONOTONIC, &now);
	if (!log_limit_take(limit, (uint64_t)now.tv_sec, &suppressed))
		return;
	va_start(args, format);
	write_line(level, module, suppressed, format, args);
	va_end(args);
}
