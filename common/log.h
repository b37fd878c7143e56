/*
 * Logging to stderr, one line an event: "2026-01-31T12:00:00.123Z info  relay: admitted node=alice".
 *
 * The level is the one global of the program. With $JOURNAL_STREAM the time is left out and the level
 * becomes systemd's <N> prefix. Thread-safe: a line is one write(2), of 1,024 bytes at most.
 * Never log a secret. What a stranger can trigger goes through log_limited().
 */
#pragma once

#include "common/macros.h"

#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG, LOG_LEVEL_TRACE };

void log_set_level(enum log_level level);
enum log_level log_get_level(void);
/* "error", "warning", "info", "debug", "trace". 0 or -EINVAL. */
P2P_CHECK int log_level_parse(const char *text, enum log_level *ret);
const char *log_level_name(enum log_level level);

/* module: one word, the noun that speaks ("relay", "control", "wireguard"). */
void log_line(enum log_level level, const char *module, const char *format, ...) P2P_PRINTF(3, 4);

#define log_error(module, ...)	 log_line(LOG_LEVEL_ERROR, module, __VA_ARGS__)
#define log_warning(module, ...) log_line(LOG_LEVEL_WARNING, module, __VA_ARGS__)
#define log_info(module, ...)	 log_line(LOG_LEVEL_INFO, module, __VA_ARGS__)
#define log_debug(module, ...)	 log_line(LOG_LEVEL_DEBUG, module, __VA_ARGS__)
#define log_trace(module, ...)	 log_line(LOG_LEVEL_TRACE, module, __VA_ARGS__)

#define LOG_LINES_PER_SECOND 5

/*
 * So many lines a second; the rest is counted, and told once in the first line of a later second. Zeroed at first, of one
 * thread; events that a stranger can make many of have one of their own, so that they hide no others.
 */
struct log_limit {
	uint64_t second;
	uint32_t n, suppressed;
};
void log_limited(struct log_limit *limit, enum log_level level, const char *module, const char *format,
		 ...) P2P_PRINTF(4, 5);
/* Its decision: may a line be written in this second? *ret_suppressed: how many were not since the last that told. */
P2P_CHECK bool log_limit_take(struct log_limit *limit, uint64_t second, uint32_t *ret_suppressed);
