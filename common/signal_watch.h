/*
 * Signals that are read, never delivered: they are blocked for good, by the threads that are started later as well. One that nobody
 * reads yet, or any more, waits, and outlives exec: whoever begins anew in its own process loses none and is ended by none, as PID 1
 * of a container neither. Children of uv_spawn() start with none blocked.
 *
 *   signal_watch_start() ──► on_signal() each ──► signal_watch_stop() … they wait … exec … signal_watch_start() ──► on_signal()
 */
#pragma once

#include "common/error.h"

#include <uv.h>

struct signal_watch {
	uv_poll_t poll;
	int fd;
	void (*on_signal)(void *owner, int number);
	void (*on_stopped)(void *owner);
	void *owner;
};

/*
 * The n signals of numbers, by the loop's thread. Call before any other thread is started. watch is the caller's and stays where it is
 * until on_stopped. 0, or -errno: nothing is watched, but they may be blocked.
 */
P2P_CHECK int signal_watch_start(struct signal_watch *watch, uv_loop_t *loop, const int *numbers, size_t n,
				 void (*on_signal)(void *owner, int number), void *owner, struct error *reterr);
/* No signal after this; on_stopped (or NULL) a turn of the loop later. They stay blocked. */
void signal_watch_stop(struct signal_watch *watch, void (*on_stopped)(void *owner));
