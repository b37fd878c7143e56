/* What a daemon owes the system it runs on: telling that it is ready, and giving up what it need not have. */
#pragma once

#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>

/* sd_notify(3) by hand: "READY=1", "STOPPING=1". Nothing happens without $NOTIFY_SOCKET. */
void service_notify(const char *state);

/*
 * The sockets that systemd hands over (sd_listen_fds(3)): opened by a .socket unit, or kept by service_keep_sockets()
 * of the program that ran before. They are the caller's now, close-on-exec. How many; those over max are closed.
 * Call once, before any thread is started: it takes the variables out of the environment.
 */
size_t service_take_sockets(int *ret, size_t max);
/* Is there somebody who may keep sockets? */
bool service_is_supervised(void);
/* Lets systemd keep copies under that name for the next start, beside those it has; n 0: it forgets these. */
void service_keep_sockets(const char *name, const int *fds, size_t n);
/* Waits, not for long, until it has: a port that a copy of its has cannot be bound. */
void service_await_forgotten(void);

/*
 * Gives up all capabilities but these (CAP_… of <linux/capability.h>) for good. Call before any thread
 * is started. Of these only what the process has is kept. 0 or -errno.
 */
P2P_CHECK int service_keep_capabilities(const unsigned *capabilities, size_t n, struct error *reterr);

/*
 * For a program that reads what strangers send and has opened all it needs: no capabilities, none to be had by
 * starting another program, and no other process of this user reads its memory. Before any thread. 0 or -errno.
 */
P2P_CHECK int service_give_up_all(struct error *reterr);

/* Raises the soft limit of open files to the hard one. */
void service_raise_file_limit(void);
