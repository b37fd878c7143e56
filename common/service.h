/* What a daemon owes the system it runs on: telling that it is ready, and giving up what it need not have. */
#pragma once

#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>

/* sd_notify(3) by hand: "READY=1", "STOPPING=1". Nothing happens without $NOTIFY_SOCKET. */
void service_notify(const char *state);

/*
 * Sockets outlive a program in two ways:
 *
 *   it ends, or is killed, and systemd starts it again:   keep ──► systemd's store ─────────► take
 *   service_begin_restart(), it ends, service_restart():  keep ──► copies of this process ──► take, by the same process
 */

/*
 * The sockets that come to this program as sd_listen_fds(3) says: opened by a .socket unit, or kept by service_keep_sockets()
 * of the program that ran before. They are the caller's now, close-on-exec. How many; those over max are closed.
 * Call once, before any thread is started: it takes the variables out of the environment.
 */
size_t service_take_sockets(int *ret, size_t max);
/* Does somebody take up what is kept: systemd, or, after service_begin_restart(), this process itself? */
bool service_is_followed(void);
/* Keeps copies for the next start, beside those that are kept; n 0: forgets these. Those that are too many are not kept. */
void service_keep_sockets(const int *fds, size_t n);
/* Waits, not for long, until they are forgotten: a port that a copy has cannot be bound. */
void service_await_forgotten(void);

/* From now on this process keeps copies itself, close-on-exec; what systemd has stays as it is, and it is told of a reload. */
void service_begin_restart(void);
/* It is not to follow itself after all: systemd gets the copies, if it is there, and they are closed. */
void service_cancel_restart(void);
bool service_is_restarting(void);
/*
 * When all has ended: runs the program that argv[0] names anew in this process, with all arguments, what was kept, and, as
 * ambient ones, the capabilities that were when it began and that it still has. Only returns if that is not possible: -errno.
 */
P2P_CHECK int service_restart(char *const argv[], struct error *reterr);

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
