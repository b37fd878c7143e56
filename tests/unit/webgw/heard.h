/* What is logged, for tests that look at it. */
#pragma once

#include <assert.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static struct {
	char text[65536];
	int file, before; /* stderr's stand-in, and stderr */
} hearing;

/* What was said goes to stderr all the same. Also from a signal's handler: an assert in `speak` would die without a word. */
static void end_hearing(int signal)
{
	const ssize_t n = pread(hearing.file, hearing.text, sizeof(hearing.text) - 1, 0);

	(void)signal;
	(void)dup2(hearing.before, STDERR_FILENO);
	hearing.text[n > 0 ? n : 0] = '\0';
	const ssize_t written = n > 0 ? write(STDERR_FILENO, hearing.text, (size_t)n) : 0;
	(void)written; /* nowhere to tell */
}

/* What `speak` writes to stderr, which is a file meanwhile. */
static const char *heard(void (*speak)(void))
{
	char path[] = "/tmp/heard-XXXXXX";

	hearing.before = dup(STDERR_FILENO);
	hearing.file = mkstemp(path);
	assert(hearing.before >= 0 && hearing.file >= 0 && unlink(path) == 0);
	assert(dup2(hearing.file, STDERR_FILENO) == STDERR_FILENO && signal(SIGABRT, end_hearing) != SIG_ERR);
	speak();
	assert(signal(SIGABRT, SIG_DFL) != SIG_ERR);
	end_hearing(0);
	close(hearing.before);
	close(hearing.file);
	return hearing.text;
}
