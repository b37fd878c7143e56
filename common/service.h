/* What a daemon owes the system it runs on: telling that it is ready, and giving up what it need not have. */
#pragma once

#include "common/error.h"

#include <stddef.h>

/* sd_notify(3) by hand: "READY=1", "STOPPING=1". Nothing happens without $NOTIFY_SOCKET. */
void service_notify(const char *state);

/*
 * Gives up all capabilities but these (CAP_… of <linux/capability.h>) for good. Call before any thread
 * is started. Of these only what the process has is kept. 0 or -errno.
 */
P2P_CHECK int service_keep_capabilities(const unsigned *capabilities, size_t n, struct error *reterr);

/* Raises the soft limit of open files to the hard one. */
void service_raise_file_limit(void);
