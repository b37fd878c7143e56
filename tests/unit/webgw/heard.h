/* What is logged, for tests that look at it. */
#pragma once

#include <assert.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

/* What `speak` writes to stderr, which is a file meanwhile. */
static const char *heard(void (*speak)(void))
{
	static char text[65536];
	char path[] = "/tmp/heard-XXXXXX";
	const int before = dup(STDERR_FILENO), file = mkstemp(path);

	assert(before >= 0 && file >= 0 && unlink(path) == 0 && dup2(file, STDERR_FILENO) == STDERR_FILENO);
	speak();
	assert(dup2(before, STDERR_FILENO) == STDERR_FILENO);
	close(before);
	const ssize_t n = pread(file, text, sizeof(text) - 1, 0);
	assert(n >= 0);
	close(file);
	text[n] = '\0';
	return text;
}
