/*
 * An error for humans: what is wrong, where, and how to mend it.
 *
 * Functions that can fail for a reason a user must act on take `struct error *reterr` last (may be
 * NULL) and fill it on failure; each caller on the way up may put its own context in front.
 * Never put a secret into it.
 */
#pragma once

#include "common/macros.h"

#include <stdarg.h>

struct error {
	int code; /* the value the failing function returned */
	char message[512];
};

/* Fills *err (if not NULL) and returns code, so that `return error_set(err, -EINVAL, "…")` reads well. */
int error_set(struct error *err, int code, const char *format, ...) P2P_PRINTF(3, 4);
/* Puts "context: " in front of the message. */
void error_prefix(struct error *err, const char *format, ...) P2P_PRINTF(2, 3);
