/*
 * The program file that this process could run next: before anything is given up for it, a child asks it whether it would start. It
 * may be newer than what runs, know other settings, or be broken.
 *
 *   successor_check() ──► child: argv[0] OPTION … ──► on_checked(0)
 *                            │                   └──► on_checked(< 0): it ended otherwise; what it said is in the log before
 *                            └── limit_ms, successor_cancel()   ──► killed ──► on_checked(< 0)
 */
#pragma once

#include "common/error.h"

#include <stdint.h>
#include <uv.h>

struct successor {
	uv_process_t process;
	uv_timer_t limit;
	int n_handles; /* not closed yet */
	const char *file;
	struct error error;
	int result;
	void (*on_checked)(void *owner, int result, const char *why);
	void *owner;
};

/*
 * Runs argv (as execvp(3) would, what it says on standard error comes to ours) with one more option before all others. on_checked is
 * called once, never before this returns: 0, or why not, as -errno and as a text that is valid during the call; all handles are closed
 * then. successor is the caller's, and argv stays, until then. Thread: the loop's.
 */
void successor_check(struct successor *successor, uv_loop_t *loop, char *const argv[], const char *option, uint64_t limit_ms,
		     void (*on_checked)(void *owner, int result, const char *why), void *owner);
/* As soon as possible; on_checked is called. */
void successor_cancel(struct successor *successor);
